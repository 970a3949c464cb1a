//! What the tests of this process have in common: the limit of open files, and the machine.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files of this process, and so of its children, as far as the system lets it.
pub fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX))
}

/// Held by whoever opens thousands of files, or keeps the machine busy for long: two at once would not find enough of either.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // One that failed has closed its files all the same.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
