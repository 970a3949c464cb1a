//! Where log lines go: into memory at once, and to standard output by a thread of its own, so that no request waits for a
//! terminal, a pipe or a disk.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Lines that nobody takes are dropped beyond this many bytes, and counted.
const MOST_WAITING: usize = 16 * 1024 * 1024;

/// How long lines may wait for company, unless there are this many bytes of them or one is urgent.
const GATHER: Duration = Duration::from_millis(50);
const GATHERED: usize = 64 * 1024;

/// A cheap handle on the log's writer.
#[derive(Debug, Clone)]
pub struct Sink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    urgent: bool,
    writing: bool,
}

impl Sink {
    /// Starts the writer.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            written: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("log".into()).spawn(move || write(&writer, out))?;
        Ok(Self { shared })
    }

    /// Hands over one or more whole lines.
    pub fn write(&self, lines: &[u8], urgent: bool) {
        let mut waiting = self.shared.lock();
        if waiting.lines.len() + lines.len() > MOST_WAITING {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let wake = waiting.lines.is_empty() || urgent;
        let before = waiting.lines.len();
        waiting.lines.extend_from_slice(lines);
        let full = before < GATHERED && waiting.lines.len() >= GATHERED;
        waiting.urgent |= urgent || full;
        drop(waiting);
        if wake || full {
            self.shared.arrived.notify_one();
        }
    }

    /// Waits until everything handed over so far is written, for a second at the most: a reader that has stopped reading
    /// must not keep the process from ending.
    pub fn flush(&self) {
        let mut waiting = self.shared.lock();
        waiting.urgent = true;
        self.shared.arrived.notify_one();
        let limit = Duration::from_secs(1);
        let done = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        drop(self.shared.written.wait_timeout_while(waiting, limit, done));
    }

    /// How many lines were dropped because nobody took them.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(shared: &Shared, mut out: impl Write) {
    let mut taken = Vec::new();
    loop {
        let mut waiting = shared.lock();
        while waiting.lines.is_empty() {
            waiting.urgent = false;
            waiting = shared.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let gathering = shared.arrived.wait_timeout_while(waiting, GATHER, |waiting| !waiting.urgent);
        waiting = gathering.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::swap(&mut waiting.lines, &mut taken);
        waiting.urgent = false;
        waiting.writing = true;
        drop(waiting);
        // A log that cannot be written is no reason to stop serving; it is counted.
        if out.write_all(&taken).and_then(|()| out.flush()).is_err() {
            let lines = taken.iter().filter(|byte| **byte == b'\n').count();
            shared.dropped.fetch_add(lines as u64, Ordering::Relaxed);
        }
        taken.clear();
        if taken.capacity() > 1024 * 1024 {
            taken = Vec::new();
        }
        shared.lock().writing = false;
        shared.written.notify_all();
    }
}

/// One event of `tracing`, gathered and handed over as a whole.
#[derive(Debug)]
pub struct EventWriter {
    sink: Sink,
    line: Vec<u8>,
}

impl Write for EventWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for EventWriter {
    fn drop(&mut self) {
        self.sink.write(&self.line, true);
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Sink {
    type Writer = EventWriter;

    fn make_writer(&self) -> EventWriter {
        EventWriter { sink: self.clone(), line: Vec::with_capacity(256) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shelf(Arc<Mutex<Vec<u8>>>);

    impl Write for Shelf {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_whole_and_in_order() {
        let shelf = Shelf::default();
        let sink = Sink::start(shelf.clone()).unwrap();
        for n in 0..20_000 {
            sink.write(format!("line {n}\n").as_bytes(), n % 1000 == 0);
        }
        sink.flush();
        let written = String::from_utf8(shelf.0.lock().unwrap().clone()).unwrap();
        assert!(written.lines().enumerate().all(|(n, line)| line == format!("line {n}")));
        assert_eq!((written.lines().count(), sink.dropped()), (20_000, 0));
    }

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        struct Stuck(std::sync::mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = std::sync::mpsc::channel();
        let sink = Sink::start(Stuck(stuck)).unwrap();
        let line = vec![b'x'; 1024 * 1024];
        for _ in 0..40 {
            sink.write(&line, false);
        }
        assert!(sink.dropped() > 0);
        drop(release);
    }
}
