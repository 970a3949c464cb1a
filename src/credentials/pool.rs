//! The hashing pool: as many argon2 hashes at once as there are cores, a bounded queue before them, and a lower priority
//! than the threads that answer requests. A flood of bad credentials fills this queue and nothing else.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use super::{HashError, Hasher, Settings};

type Job = Box<dyn FnOnce(&mut Hasher) + Send>;

/// The queue is full, or the pool has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many credentials wait to be verified")
    }
}

impl std::error::Error for Busy {}

/// Threads that hash.
#[derive(Debug)]
pub struct HashPool {
    queue: SyncSender<Job>,
}

impl HashPool {
    /// Starts the threads. They end when the pool is dropped and their queue is empty.
    ///
    /// # Errors
    /// [`HashError::Parameters`].
    pub fn start(settings: &Settings) -> Result<Self, HashError> {
        let threads = match settings.hashing_threads {
            0 => thread::available_parallelism().map_or(1, std::num::NonZero::get),
            some => some,
        };
        let (queue, jobs) = sync_channel(settings.hashing_queue.max(1));
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 0..threads {
            let (hasher, jobs) = (Hasher::new(settings)?, Arc::clone(&jobs));
            thread::Builder::new()
                .name(format!("hash-{n}"))
                .spawn(move || work(hasher, &jobs))
                .map_err(|error| HashError::Parameters(format!("no thread for hashing: {error}")))?;
        }
        Ok(Self { queue })
    }

    /// Runs `job` on one of the threads. A job whose caller has gone is skipped when its turn comes.
    ///
    /// # Errors
    /// [`Busy`] at once when the queue is full.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut Hasher) -> T + Send + 'static) -> Result<T, Busy> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |hasher| {
            if !answer.is_closed() {
                let _ = answer.send(job(hasher));
            }
        });
        match self.queue.try_send(job) {
            Ok(()) => answered.await.map_err(|_| Busy),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Busy),
        }
    }
}

fn work(mut hasher: Hasher, jobs: &Mutex<Receiver<Job>>) {
    // On Linux this concerns the calling thread alone. Without the permission to be nice, hashing just competes.
    let _ = rustix::process::setpriority_process(None, 10);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            // A job that panics answers nobody, which its caller takes for `Busy`; the thread goes on.
            Ok(job) => drop(catch_unwind(AssertUnwindSafe(|| job(&mut hasher)))),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_the_rest_is_answered() {
        let settings = Settings { argon2_memory_kib: 64, hashing_threads: 1, hashing_queue: 1, ..Settings::default() };
        let pool = Arc::new(HashPool::start(&settings).unwrap());
        let (started, has_started) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let first = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move {
                pool.run(move |_| {
                    started.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    1
                })
                .await
            }
        });
        tokio::task::spawn_blocking(move || has_started.recv()).await.unwrap().unwrap();
        let second = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run(|_| 2).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(pool.run(|_| 3).await, Err(Busy));
        go_on.send(()).unwrap();
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(1), Ok(2)));
    }
}
