//! Upstreams for the gateway to stand before: an HTTP/1.1 server that does what the path says, and bare sockets that do
//! something else. Each has a runtime of its own; when that ends all its sockets close, as those of a killed process do.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep};

use crate::poll::until_some;

/// What a backend has seen.
#[derive(Debug)]
pub struct Seen {
    /// Requests so far.
    pub requests: AtomicUsize,
    /// Connections that are open.
    pub open: AtomicUsize,
    /// Bytes of content so far.
    pub bytes: AtomicU64,
    /// WebSockets that were ended by a Close.
    pub closes: AtomicUsize,
    /// Whether `/health` is good.
    pub is_well: AtomicBool,
    /// What `/wait` waits for, one for each request.
    pub go_on: Semaphore,
}

/// An upstream.
#[derive(Debug)]
pub struct Backend {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    runtime: Option<Runtime>,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

impl Backend {
    /// On a free port.
    pub fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// At an address that is free, or will be in a moment.
    #[track_caller]
    pub fn at(address: SocketAddr) -> Self {
        Self::with(address, |tcp, seen| async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(tcp), service).with_upgrades().await;
        })
    }

    /// On a free port, with something of its own for each connection.
    pub fn raw<F>(serve: fn(TcpStream) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::with(SocketAddr::from(([127, 0, 0, 1], 0)), move |tcp, _| serve(tcp))
    }

    #[track_caller]
    fn with<F>(address: SocketAddr, serve: impl Fn(TcpStream, Arc<Seen>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = runtime();
        let listener = until_some("the address is free", || runtime.block_on(TcpListener::bind(address)).ok());
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen {
            requests: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            closes: AtomicUsize::new(0),
            is_well: AtomicBool::new(true),
            go_on: Semaphore::new(0),
        });
        let of = Arc::clone(&seen);
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let _ = tcp.set_nodelay(true);
                let open = Open::new(&of);
                let serving = serve(tcp, Arc::clone(&of));
                tokio::spawn(async move {
                    serving.await;
                    drop(open);
                });
            }
        });
        Self { address, seen, runtime: Some(runtime) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::Relaxed)
    }

    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.seen.bytes.load(Ordering::Relaxed)
    }

    /// Ends as a killed process does: nothing is finished, and nobody listens any more.
    pub fn kill(self) {}
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// Counts an open connection.
struct Open(Arc<Seen>);

impl Open {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(seen))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> Result<Response<Body>, Infallible> {
    seen.requests.fetch_add(1, Ordering::Relaxed);
    let path = request.uri().path().to_owned();
    let mut parts = path.trim_start_matches('/').split('/');
    let (what, number) = (parts.next().unwrap_or_default(), parts.next().and_then(|text| text.parse().ok()));
    let response = match what {
        "quick" | "upload" | "wait" => {
            if what == "wait" {
                seen.go_on.acquire().await.expect("never closed").forget();
            }
            match count(request.into_body(), &seen).await {
                Ok(bytes) => Response::new(Body::from(format!("{what} {bytes}"))),
                // Nobody reads this.
                Err(_) => status(StatusCode::BAD_REQUEST),
            }
        }
        "health" if !seen.is_well.load(Ordering::Relaxed) => status(StatusCode::SERVICE_UNAVAILABLE),
        "health" => Response::new(Body::from("well")),
        "bytes" => Response::new(Body::new(Zeros { left: number.unwrap_or_default() })),
        "events" => {
            let mut response = Response::new(Body::new(Events { said: false }));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            response
        }
        "trickle" => Response::new(Body::new(Trickle { left: number.unwrap_or_default(), pause: None })),
        "ws" => web_socket(request, seen),
        _ => status(StatusCode::NOT_FOUND),
    };
    Ok(response)
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

async fn count(mut body: Incoming, seen: &Seen) -> Result<u64, hyper::Error> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let length = frame?.data_ref().map_or(0, |data| data.len() as u64);
        bytes += length;
        seen.bytes.fetch_add(length, Ordering::Relaxed);
    }
    Ok(bytes)
}

/// Agrees to a WebSocket, sends nothing, and answers a Close.
fn web_socket(request: Request<Incoming>, seen: Arc<Seen>) -> Response<Body> {
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let _open = Open::new(&seen);
        let mut io = TokioIo::new(upgraded);
        let mut bytes = [0; 128];
        while let Ok(count @ 1..) = io.read(&mut bytes).await {
            if bytes[..count].first() == Some(&0x88) {
                seen.closes.fetch_add(1, Ordering::Relaxed);
                let _ = io.write_all(&[0x88, 2, 3, 0xe9]).await;
                break;
            }
            // A text frame, and the masked one is not read any further.
            let _ = io.write_all(&[0x81, 2, b'h', b'i']).await;
        }
        let _ = io.shutdown().await;
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    response
}

/// So many zeros, out of nothing.
pub struct Zeros {
    pub left: u64,
}

static CHUNK: [u8; 64 * 1024] = [0; 64 * 1024];

impl http_body::Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let count = self.left.min(CHUNK.len() as u64);
        self.left -= count;
        let count = usize::try_from(count).expect("a chunk's length");
        Poll::Ready((count > 0).then(|| Ok(Frame::data(Bytes::from_static(&CHUNK[..count])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A byte each 200 ms.
pub struct Trickle {
    pub left: u64,
    pub pause: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Trickle {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(PAUSE)));
        std::task::ready!(pause.as_mut().poll(cx));
        self.pause = None;
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b".")))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Between two bytes of what trickles.
pub const PAUSE: Duration = Duration::from_millis(200);

/// One event, and no end.
struct Events {
    said: bool,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::replace(&mut self.said, true) {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data: hello\n\n")))))
    }
}
