//! The hashing pool: as many argon2 hashes at once as there are cores, two bounded lanes before them, and a lower priority than
//! the threads that answer requests. A flood of bad credentials fills one lane and nothing else.
//!
//! A hash cannot be interrupted, but by the kernel: one thread more is there for what is likely right alone, with a higher
//! priority than the others, so that this need not wait for the end of what is not.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use super::{HashError, Hasher, Settings};

type Job = Box<dyn FnOnce(&mut Hasher) + Send>;

/// The lane is full, or the pool has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many credentials wait to be verified")
    }
}

impl std::error::Error for Busy {}

/// Where a job waits. Both lanes are as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// What is very likely right, or is asked for by somebody who has proven who it is.
    Likely,
    /// Whatever anybody may send.
    Doubtful,
}

/// Which lanes a thread takes jobs from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Likely,
    Any,
}

impl Takes {
    /// How nice a thread is. Where they compete, the kernel gives one of the first kind three times as much as one of the second,
    /// and one that answers requests, at 0, nine times as much as one of the first.
    fn niceness(self) -> i32 {
        match self {
            Self::Likely => 10,
            Self::Any => 15,
        }
    }
}

/// So many likely ones are taken in a row while doubtful ones wait: these go on, and cost the others a quarter at most.
const IN_A_ROW: u8 = 3;

/// Threads that hash.
#[derive(Debug)]
pub struct HashPool {
    queue: Arc<Queue>,
}

impl HashPool {
    /// Starts the threads. They end when the pool is dropped and its lanes are empty.
    ///
    /// # Errors
    /// [`HashError::Parameters`].
    pub fn start(settings: &Settings) -> Result<Self, HashError> {
        let threads = match settings.hashing_threads {
            0 => thread::available_parallelism().map_or(1, std::num::NonZero::get),
            some => some,
        };
        let pool = Self { queue: Arc::new(Queue::new(settings.hashing_queue.max(1))) };
        for n in 0..=threads {
            let takes = if n == threads { Takes::Likely } else { Takes::Any };
            let (hasher, queue) = (Hasher::new(settings)?, Arc::clone(&pool.queue));
            thread::Builder::new()
                .name(format!("hash-{n}"))
                .spawn(move || work(hasher, &queue, takes))
                .map_err(|error| HashError::Parameters(format!("no thread for hashing: {error}")))?;
        }
        Ok(pool)
    }

    /// Runs `job` on one of the threads. A job whose caller has gone is skipped when its turn comes.
    ///
    /// # Errors
    /// [`Busy`] at once when the lane is full.
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        job: impl FnOnce(&mut Hasher) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (answer, answered) = oneshot::channel();
        let job = move |hasher: &mut Hasher| {
            if !answer.is_closed() {
                let _ = answer.send(job(hasher));
            }
        };
        self.queue.push(lane, Box::new(job))?;
        answered.await.map_err(|_| Busy)
    }
}

impl Drop for HashPool {
    fn drop(&mut self) {
        self.queue.lock().has_ended = true;
        self.queue.arrived.notify_all();
        self.queue.likely_arrived.notify_all();
    }
}

/// The jobs that wait, and the threads that wait for jobs.
struct Queue {
    lanes: Mutex<Lanes>,
    /// Told to a thread that takes any.
    arrived: Condvar,
    /// Told to one that takes likely ones alone.
    likely_arrived: Condvar,
    /// The length of a lane.
    longest: usize,
}

#[derive(Default)]
struct Lanes {
    likely: VecDeque<Job>,
    doubtful: VecDeque<Job>,
    /// Likely ones that were taken since the last doubtful one.
    in_a_row: u8,
    /// Threads that wait for likely ones alone.
    waiting: usize,
    has_ended: bool,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("longest", &self.longest).finish_non_exhaustive()
    }
}

impl Queue {
    fn new(longest: usize) -> Self {
        Self { lanes: Mutex::default(), arrived: Condvar::new(), likely_arrived: Condvar::new(), longest }
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, lane: Lane, job: Job) -> Result<(), Busy> {
        let mut lanes = self.lock();
        let jobs = match lane {
            Lane::Likely => &mut lanes.likely,
            Lane::Doubtful => &mut lanes.doubtful,
        };
        if jobs.len() >= self.longest {
            return Err(Busy);
        }
        jobs.push_back(job);
        // Were it told to one who does not take it, nobody might come.
        let is_for_any = lane == Lane::Doubtful || lanes.waiting < lanes.likely.len();
        drop(lanes);
        if is_for_any {
            self.arrived.notify_one()
        } else {
            self.likely_arrived.notify_one()
        }
        Ok(())
    }

    /// Waits for a job; `None` when there will be no more.
    fn next(&self, takes: Takes) -> Option<Job> {
        let mut lanes = self.lock();
        loop {
            if let Some(job) = lanes.next(takes) {
                return Some(job);
            }
            if lanes.has_ended {
                return None;
            }
            lanes = match takes {
                Takes::Any => self.arrived.wait(lanes).unwrap_or_else(PoisonError::into_inner),
                Takes::Likely => {
                    lanes.waiting += 1;
                    let mut lanes = self.likely_arrived.wait(lanes).unwrap_or_else(PoisonError::into_inner);
                    lanes.waiting -= 1;
                    lanes
                }
            };
        }
    }
}

impl Lanes {
    fn next(&mut self, takes: Takes) -> Option<Job> {
        if takes == Takes::Likely {
            return self.likely.pop_front();
        }
        let is_doubtfuls_turn = self.in_a_row >= IN_A_ROW && !self.doubtful.is_empty();
        if !is_doubtfuls_turn && let Some(job) = self.likely.pop_front() {
            self.in_a_row = self.in_a_row.saturating_add(1);
            return Some(job);
        }
        self.in_a_row = 0;
        self.doubtful.pop_front()
    }
}

fn work(mut hasher: Hasher, queue: &Queue, takes: Takes) {
    // On Linux this concerns the calling thread alone. Without the permission to be nice, hashing just competes.
    let _ = rustix::process::setpriority_process(None, takes.niceness());
    while let Some(job) = queue.next(takes) {
        // A job that panics answers nobody, which its caller takes for `Busy`; the thread goes on.
        drop(catch_unwind(AssertUnwindSafe(|| job(&mut hasher))));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use tokio::task::JoinHandle;

    use super::Lane::{Doubtful, Likely};
    use super::*;

    fn settings() -> Settings {
        Settings { argon2_memory_kib: 64, hashing_threads: 1, hashing_queue: 4, ..Settings::default() }
    }

    /// Holds a thread until the function is called.
    async fn hold(pool: &Arc<HashPool>, lane: Lane) -> impl FnOnce() + use<> {
        let (started, has_started) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let hold = move || {
            started.send(()).unwrap();
            may_go_on.recv().unwrap();
        };
        enter(pool, lane, hold).await;
        tokio::task::spawn_blocking(move || has_started.recv()).await.unwrap().unwrap();
        move || go_on.send(()).unwrap()
    }

    /// Has a job wait, if there is room for it.
    async fn enter<T: Send + 'static>(
        pool: &Arc<HashPool>,
        lane: Lane,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<Result<T, Busy>> {
        let pool = Arc::clone(pool);
        let waits = tokio::spawn(async move { pool.run(lane, move |_| job()).await });
        tokio::task::yield_now().await;
        waits
    }

    #[tokio::test]
    async fn a_full_lane_refuses_at_once_and_the_other_one_goes_on() {
        let pool = Arc::new(HashPool::start(&settings()).unwrap());
        let go_on = hold(&pool, Doubtful).await;
        let mut waiting = Vec::new();
        for n in 0..4 {
            waiting.push(enter(&pool, Doubtful, move || n).await);
        }
        assert_eq!(pool.run(Doubtful, |_| 4).await, Err(Busy));
        for n in 0..9 {
            assert_eq!(pool.run(Likely, move |_| n).await, Ok(n), "it has a thread of its own");
        }
        go_on();
        for (n, waits) in waiting.into_iter().enumerate() {
            assert_eq!(waits.await.unwrap(), Ok(n));
        }
    }

    #[tokio::test]
    async fn all_threads_take_what_is_likely() {
        let pool = Arc::new(HashPool::start(&settings()).unwrap());
        // Whichever they are, the two are all.
        let (first, second) = (hold(&pool, Likely).await, hold(&pool, Likely).await);
        let mut waiting = Vec::new();
        for n in 0..4 {
            waiting.push(enter(&pool, Likely, move || n).await);
        }
        assert_eq!(pool.run(Likely, |_| 4).await, Err(Busy));
        second();
        for (n, waits) in waiting.into_iter().enumerate() {
            assert_eq!(waits.await.unwrap(), Ok(n));
        }
        first();
    }

    /// Whoever waits is told, and nobody is told in vain: each job is done though the pool is idle before it.
    #[tokio::test]
    async fn no_job_is_forgotten() {
        let pool = HashPool::start(&settings()).unwrap();
        for n in 0..200 {
            for lane in [Likely, Doubtful] {
                assert_eq!(pool.run(lane, move |_| n).await, Ok(n));
            }
        }
    }

    #[test]
    fn likely_ones_go_first_and_doubtful_ones_are_not_starved() {
        let mut lanes = Lanes::default();
        let (note, order) = channel();
        for (lane, names) in [(Doubtful, ["d1", "d2", "d3"].as_slice()), (Likely, &["l1", "l2", "l3", "l4", "l5"])] {
            let jobs = if lane == Likely { &mut lanes.likely } else { &mut lanes.doubtful };
            for name in names {
                let note = note.clone();
                jobs.push_back(Box::new(move |_| note.send(*name).unwrap()));
            }
        }
        drop(note);
        let mut hasher = Hasher::new(&settings()).unwrap();
        lanes.next(Takes::Likely).unwrap()(&mut hasher);
        while let Some(job) = lanes.next(Takes::Any) {
            job(&mut hasher);
        }
        assert!(lanes.next(Takes::Likely).is_none());
        assert_eq!(order.iter().collect::<Vec<_>>(), ["l1", "l2", "l3", "l4", "d1", "l5", "d2", "d3"]);
    }

    #[tokio::test]
    async fn a_job_that_panics_is_refused_and_the_thread_goes_on() {
        let pool = HashPool::start(&settings()).unwrap();
        assert_eq!(pool.run(Likely, |_| -> u8 { panic!("on purpose") }).await, Err(Busy));
        assert_eq!(pool.run(Likely, |_| 1).await, Ok(1));
    }

    #[test]
    fn threads_end_with_their_pool_and_leave_no_job() {
        let queue = Arc::new(Queue::new(4));
        let (note, done) = channel();
        for lane in [Likely, Doubtful] {
            let note = note.clone();
            queue.push(lane, Box::new(move |_| note.send(lane).unwrap())).unwrap();
        }
        drop(HashPool { queue: Arc::clone(&queue) });
        for takes in [Takes::Likely, Takes::Any] {
            work(Hasher::new(&settings()).unwrap(), &queue, takes);
        }
        drop(note);
        assert_eq!(done.iter().collect::<Vec<_>>(), [Likely, Doubtful]);
    }
}
