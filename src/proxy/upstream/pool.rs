//! The connections of one endpoint: idle HTTP/1.1 ones, and HTTP/2 ones that many requests share. Per request it takes one
//! short lock to get a connection and one to give it back, and spawns nothing.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::connect::{ConnectError, Connector, Open, Spoken, Stream as Bytes, Wanted};

/// Most requests that share one HTTP/2 connection; fewer if the target says so.
const MOST_STREAMS: usize = 100;
/// Unread bytes of one answer.
const STREAM_WINDOW: u32 = 1 << 20;
/// Unread bytes of all answers on a connection.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A target's header section, uncompressed (RFC 9113 §6.5.2).
const HEADER_BYTES: u32 = 64 << 10;
/// Unsent bytes of one request.
const SEND_BUFFER: usize = 256 << 10;
/// A connection in use is asked for a sign of life so often, and has so long to give it.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// How long the closing of a connection may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Where a pool's connections lead.
#[derive(Debug)]
pub(super) struct Origin {
    pub address: SocketAddr,
    /// The target's own name, when it speaks TLS.
    pub name: Option<ServerName<'static>>,
    pub connector: Arc<Connector>,
    /// The upstream's connections that are not closed.
    pub open: Arc<AtomicUsize>,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
}

/// The connections of one endpoint.
#[derive(Debug)]
pub(super) struct Pool {
    origin: Origin,
    /// By when they came back; the last one is taken first, so that those too many are left to expire.
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Vec<Arc<Shared>>>,
    /// Whoever opens a connection that others may share holds this.
    opening: tokio::sync::Mutex<()>,
    /// How often that failed, and how the last time.
    failures: Mutex<(u64, Option<ConnectError>)>,
    /// The target did not want HTTP/2 when it was last asked.
    prefers_http1: AtomicBool,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Idle {
    own: Own,
    since: Instant,
}

/// An HTTP/1.1 connection, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Own {
    sender: http1::SendRequest<Body>,
    /// Tells the connection's task, which need not notice otherwise.
    _held: oneshot::Sender<Infallible>,
}

impl Own {
    /// One whose connection somebody else drives.
    #[cfg(test)]
    pub fn alone(sender: http1::SendRequest<Body>) -> Self {
        Self { sender, _held: oneshot::channel().0 }
    }

    pub fn sender(&mut self) -> &mut http1::SendRequest<Body> {
        &mut self.sender
    }
}

/// An HTTP/2 connection.
#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<Body>,
    streams: AtomicUsize,
    limit: Arc<AtomicUsize>,
    opened: Instant,
    /// Milliseconds since it was opened.
    idle_since: AtomicU64,
}

/// A place for one request.
#[derive(Debug)]
pub(super) enum Connection {
    /// A connection of its own.
    Http1(Own),
    /// A stream of a shared one.
    Http2(Stream),
}

/// One request's part of an HTTP/2 connection.
#[derive(Debug)]
pub(super) struct Stream(Arc<Shared>);

impl Stream {
    pub fn sender(&self) -> http2::SendRequest<Body> {
        self.0.sender.clone()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.0.streams.load(Ordering::Relaxed) == 1 {
            let idle = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.0.idle_since.store(idle, Ordering::Relaxed);
        }
        self.0.streams.fetch_sub(1, Ordering::Release);
    }
}

/// A connection, and whether it has carried requests before: then it may have been closed meanwhile without any fault.
#[derive(Debug)]
pub(super) struct Checkout {
    pub connection: Connection,
    pub reused: bool,
}

impl Pool {
    pub fn new(origin: Origin) -> Self {
        Self {
            origin,
            idle: Mutex::default(),
            shared: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            failures: Mutex::default(),
            prefers_http1: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// A connection for one request: one that is there, or a new one.
    pub async fn checkout(&self, wanted: Wanted) -> Result<Checkout, ConnectError> {
        if let Some(there) = self.take(wanted) {
            return Ok(there);
        }
        let may_share = |pool: &Self| match wanted {
            Wanted::Http1 => false,
            Wanted::Http2 => true,
            Wanted::Either => !pool.prefers_http1.load(Ordering::Relaxed),
        };
        if !may_share(self) {
            return self.open(wanted).await;
        }
        // A hundred requests that come at once need one connection, not a hundred: one opens it, the others wait.
        let failures_before = lock(&self.failures).0;
        let turn = self.opening.lock().await;
        if let Some(there) = self.take(wanted) {
            return Ok(there);
        }
        if let (failures, Some(error)) = &*lock(&self.failures)
            && *failures != failures_before
        {
            // It failed while this one waited. One after the other would wait for the same.
            return Err(error.clone());
        }
        if !may_share(self) {
            drop(turn);
            return self.open(wanted).await;
        }
        self.open(wanted).await.inspect_err(|error| {
            let mut failures = lock(&self.failures);
            *failures = (failures.0 + 1, Some(error.clone()));
        })
    }

    /// A connection that is there.
    fn take(&self, wanted: Wanted) -> Option<Checkout> {
        let stream = if wanted == Wanted::Http1 { None } else { self.take_stream().map(Connection::Http2) };
        let connection = match stream {
            None if wanted != Wanted::Http2 => self.take_idle().map(Connection::Http1),
            stream => stream,
        };
        connection.map(|connection| Checkout { connection, reused: true })
    }

    fn take_idle(&self) -> Option<Own> {
        let mut idle = lock(&self.idle);
        for at in (0..idle.len()).rev() {
            if idle[at].own.sender.is_closed() {
                idle.remove(at);
            } else if idle[at].own.sender.is_ready() {
                return Some(idle.remove(at).own);
            }
            // Else its last exchange is not over yet on its own side.
        }
        None
    }

    fn take_stream(&self) -> Option<Stream> {
        let mut shared = lock(&self.shared);
        shared.retain(|connection| !connection.sender.is_closed());
        // The first that has room: so the last ones become idle when there are too many.
        let has_room = |connection: &&Arc<Shared>| {
            let limit = connection.limit.load(Ordering::Relaxed).clamp(1, MOST_STREAMS);
            connection.streams.load(Ordering::Relaxed) < limit
        };
        shared.iter().find(has_room).map(stream)
    }

    async fn open(&self, wanted: Wanted) -> Result<Checkout, ConnectError> {
        let origin = &self.origin;
        let open = Open::count(&origin.open);
        let (bytes, spoken) = origin.connector.open(origin.address, origin.name.as_ref(), wanted, open).await?;
        if wanted == Wanted::Either {
            self.prefers_http1.store(spoken == Spoken::Http1, Ordering::Relaxed);
        }
        let connection = match spoken {
            Spoken::Http1 => Connection::Http1(begin_http1(bytes).await?),
            Spoken::Http2 => {
                let connection = begin_http2(bytes).await?;
                let stream = stream(&connection);
                let mut shared = lock(&self.shared);
                if !self.closed.load(Ordering::Relaxed) {
                    shared.push(connection);
                }
                Connection::Http2(stream)
            }
        };
        Ok(Checkout { connection, reused: false })
    }

    /// Takes a connection back whose exchange is over. An HTTP/1.1 connection is used again only once `hyper` says that it
    /// is ready; that may be a moment later.
    pub fn give_back(&self, connection: Connection) {
        let Connection::Http1(own) = connection else { return };
        if self.origin.keep_alive.is_zero() || own.sender.is_closed() {
            return;
        }
        let since = Instant::now();
        let mut idle = lock(&self.idle);
        if !self.closed.load(Ordering::Relaxed) {
            idle.push(Idle { own, since });
        }
    }

    /// Lets go of connections that are closed, or have been idle for too long.
    pub fn expire(&self, now: Instant) {
        let keep_alive = self.origin.keep_alive;
        lock(&self.idle)
            .retain(|idle| !idle.own.sender.is_closed() && now.saturating_duration_since(idle.since) < keep_alive);
        lock(&self.shared).retain(|connection| {
            let idle_since = connection.opened + Duration::from_millis(connection.idle_since.load(Ordering::Relaxed));
            let in_use = connection.streams.load(Ordering::Acquire) > 0;
            !connection.sender.is_closed() && (in_use || now.saturating_duration_since(idle_since) < keep_alive)
        });
    }

    /// Keeps no connection any more; those in use go on to the end of their exchanges.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        lock(&self.idle).clear();
        lock(&self.shared).clear();
    }
}

fn stream(connection: &Arc<Shared>) -> Stream {
    connection.streams.fetch_add(1, Ordering::Relaxed);
    Stream(Arc::clone(connection))
}

async fn begin_http1(bytes: Bytes) -> Result<Own, ConnectError> {
    let (sender, connection) =
        http1::Builder::new().handshake(TokioIo::new(bytes)).await.map_err(ConnectError::because)?;
    let (held, dropped) = oneshot::channel();
    // Once per connection. It ends when the sender is dropped, or the target closes; whoever waits for an answer then is told.
    tokio::spawn(async move {
        let mut connection = pin!(connection.with_upgrades());
        tokio::select! {
            biased;
            _ = &mut connection => {}
            // Before it closes, hyper writes what it has, for which a target that takes nothing would keep it for ever.
            _ = dropped => drop(timeout(CLOSE_WITHIN, connection).await),
        }
    });
    Ok(Own { sender, _held: held })
}

async fn begin_http2(bytes: Bytes) -> Result<Arc<Shared>, ConnectError> {
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .keep_alive_while_idle(false)
        .handshake(TokioIo::new(bytes))
        .await
        .map_err(ConnectError::because)?;
    let limit = Arc::new(AtomicUsize::new(MOST_STREAMS));
    let theirs = Arc::clone(&limit);
    tokio::spawn(poll_fn(move |cx| {
        let ended = pin!(&mut connection).poll(cx).map(drop);
        if ended.is_pending() {
            theirs.store(connection.current_max_send_streams(), Ordering::Relaxed);
        }
        ended
    }));
    Ok(Arc::new(Shared {
        sender,
        streams: AtomicUsize::new(0),
        limit,
        opened: Instant::now(),
        idle_since: AtomicU64::new(0),
    }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
