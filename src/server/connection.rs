//! One client connection: how many there are, and when a slow one is closed.
//!
//! `hyper` bounds the time of a header section, and nothing else that a slow client can do. Here a connection is closed when
//! it sends nothing (before, between or inside header sections) or takes nothing of an answer for too long. One timer per
//! connection is looked at only when the connection waits, and costs a request nothing.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::Limits;
use crate::client_addr::{self, Peer};
use crate::telemetry::Metrics;

/// A header section has begun, and nobody has looked at the clock yet: mostly it is complete before anyone must.
const JUST_NOW: u64 = u64::MAX;

/// Counts connections and admits new ones.
#[derive(Debug)]
pub struct Connections {
    limits: ArcSwap<Limits>,
    metrics: Arc<Metrics>,
    open: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
}

impl Connections {
    /// No connections yet.
    pub fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            limits: ArcSwap::from_pointee(limits.clone()),
            metrics,
            open: AtomicUsize::new(0),
            by_address: DashMap::new(),
        }
    }

    /// Keeps other limits from now on.
    pub fn set(&self, limits: &Limits) {
        self.limits.store(Arc::new(limits.clone()));
    }

    /// Admits a connection, unless there are too many.
    pub fn admit(self: &Arc<Self>, peer: Peer) -> Option<Arc<Connection>> {
        let limits = self.limits.load();
        if self.open.fetch_add(1, Ordering::AcqRel) >= limits.connections {
            self.open.fetch_sub(1, Ordering::AcqRel);
            self.metrics.closed("too_many_connections");
            return None;
        }
        let address = match peer {
            Peer::Address(address) => Some(client_addr::network(address.ip())),
            Peer::Unix => None,
        };
        let of_address = address.map_or(0, |address| {
            let mut count = self.by_address.entry(address).or_insert(0);
            *count += 1;
            *count
        });
        self.metrics.connections.inc();
        // From here on the connection's drop keeps the counts right.
        let connection = Arc::new(Connection {
            peer,
            address,
            all: Arc::clone(self),
            began: Instant::now(),
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            write_blocked_since: AtomicU64::new(0),
        });
        if of_address > limits.connections_per_address {
            self.metrics.closed("too_many_connections_of_address");
            return None;
        }
        Some(connection)
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

/// One connection. Times are milliseconds since it began, never 0; 0 is "not now".
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    /// What its count is kept under, where one is.
    address: Option<IpAddr>,
    all: Arc<Connections>,
    began: Instant,
    in_flight: AtomicU32,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    write_blocked_since: AtomicU64,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.open.fetch_sub(1, Ordering::AcqRel);
        self.all.metrics.connections.dec();
        let Some(address) = &self.address else { return };
        if let Some(mut count) = self.all.by_address.get_mut(address) {
            *count -= 1;
        }
        self.all.by_address.remove_if(address, |_, count| *count == 0);
    }
}

impl Connection {
    /// The other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// A request's header section is complete.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.head_since.store(0, Ordering::Release);
        InFlight { connection: Arc::clone(self), answered_at: None, is_resting: false }
    }

    /// When the connection must be closed, as things stand, and why.
    fn deadline(&self, is_http1: bool) -> (Instant, &'static str) {
        let limits = self.all.limits.load();
        // An answer's last bytes may wait for the client long after its body was handed over and nothing is in flight.
        let (since, limit, reason) = match self.write_blocked_since.load(Ordering::Acquire) {
            since if since > 0 => (since, limits.write_timeout, "slow_reader"),
            // The door that works on it has limits of its own; look again later.
            _ if self.in_flight.load(Ordering::Acquire) > 0 => return (Instant::now() + limits.write_timeout, "busy"),
            _ => match self.head_since.load(Ordering::Acquire) {
                since if since > 0 && since != JUST_NOW && is_http1 => (since, limits.header_timeout, "slow_header"),
                _ => (self.idle_since.load(Ordering::Acquire), limits.idle_timeout, "idle"),
            },
        };
        (self.began + Duration::from_millis(since) + limit, reason)
    }
}

/// A request that is being answered, until the last byte of its answer was handed over.
#[derive(Debug)]
pub struct InFlight {
    connection: Arc<Connection>,
    answered_at: Option<Instant>,
    is_resting: bool,
}

impl InFlight {
    /// The answer's head is there, and the rest of it takes no time: the connection is idle from then on. Saves a clock
    /// read per request.
    pub fn ended(mut self, at: Instant) {
        self.answered_at = Some(at);
    }
}

impl InFlight {
    /// It waits for the client to take what it was given, which an HTTP/2 client can put off for ever without a byte being
    /// held up on the connection. A connection on which all requests rest is idle.
    pub fn rest(&mut self) {
        if !self.is_resting {
            self.is_resting = true;
            self.leave(Instant::now());
        }
    }

    /// It waits for what answers it.
    pub fn work(&mut self) {
        if self.is_resting {
            self.is_resting = false;
            self.connection.in_flight.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn leave(&self, at: Instant) {
        self.connection.idle_since.fetch_max(self.connection.millis(at), Ordering::AcqRel);
        self.connection.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.is_resting {
            return;
        }
        self.leave(self.answered_at.unwrap_or_else(Instant::now));
    }
}

/// A TCP stream that sends one buffer as one: `send` costs the kernel less than `writev`, and nearly every answer is one TLS
/// record.
#[derive(Debug)]
pub struct Tcp(pub TcpStream);

impl AsyncRead for Tcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bytes {
            [one] => Pin::new(&mut self.0).poll_write(cx, one),
            several => Pin::new(&mut self.0).poll_write_vectored(cx, several),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A connection's bytes, watched.
#[derive(Debug)]
pub struct Watched<IO> {
    io: IO,
    connection: Arc<Connection>,
    is_http1: bool,
    alarm: Pin<Box<Sleep>>,
}

impl<IO> Watched<IO> {
    /// Watches `io`. With HTTP/2 a header section has no time limit of its own: pings come between requests too, so what
    /// counts there is that a request comes at all.
    pub fn new(io: IO, connection: Arc<Connection>, is_http1: bool) -> Self {
        // What went before (the handshake) had a limit of its own.
        connection.idle_since.store(connection.millis(Instant::now()), Ordering::Release);
        let (at, _) = connection.deadline(is_http1);
        Self { io, connection, is_http1, alarm: Box::pin(tokio::time::sleep_until(at)) }
    }

    /// Called whenever the connection waits. Says that it has waited too long, and for what.
    fn overdue(&mut self, cx: &mut Context<'_>) -> Option<&'static str> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let (at, reason) = self.connection.deadline(self.is_http1);
            if at <= Instant::now() {
                self.connection.all.metrics.closed(reason);
                return Some(reason);
            }
            self.alarm.as_mut().reset(at);
        }
        None
    }

    /// Looks at the alarm anew when something has a shorter limit than what it was set for.
    fn hasten(&mut self) {
        let (at, _) = self.connection.deadline(self.is_http1);
        if at < self.alarm.deadline() {
            self.alarm.as_mut().reset(at);
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(done) => {
                let connection = &self.connection;
                let head_begins = buf.filled().len() > before
                    && connection.in_flight.load(Ordering::Relaxed) == 0
                    && connection.head_since.load(Ordering::Relaxed) == 0;
                if head_begins {
                    connection.head_since.store(JUST_NOW, Ordering::Release);
                }
                Poll::Ready(done)
            }
            Poll::Pending => {
                // A header section that came whole has been taken out of here by now; this one did not.
                if self.connection.head_since.load(Ordering::Relaxed) == JUST_NOW {
                    let now = self.connection.millis(Instant::now());
                    self.connection.head_since.store(now, Ordering::Release);
                    self.hasten();
                }
                // The end of the stream: hyper ends an idle connection by it without a fuss.
                if self.overdue(cx).is_some() { Poll::Ready(Ok(())) } else { Poll::Pending }
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> Watched<IO> {
    /// Notes whether the client takes what it is sent.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let blocked = &self.connection.write_blocked_since;
        if written.is_ready() {
            if blocked.load(Ordering::Relaxed) != 0 {
                // The client took something: that is no idle connection, though nothing may be in flight any more.
                self.connection.idle_since.store(self.connection.millis(Instant::now()), Ordering::Release);
                blocked.store(0, Ordering::Release);
            }
            return written;
        }
        if blocked.load(Ordering::Relaxed) == 0 {
            blocked.store(self.connection.millis(Instant::now()), Ordering::Release);
        }
        self.hasten();
        match self.overdue(cx) {
            Some(reason) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason))),
            None => Poll::Pending,
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.watch_write(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch_write(cx, shut)
    }
}
