//! Upstreams with real sockets: small servers on the loopback device, and what is sent to them.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;

mod choice;
mod connections;
mod http2;
mod names;
mod retries;
mod timeouts;
mod tls;

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Break>> + Send>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// What a handler returns to break the connection without an answer.
#[derive(Debug)]
struct Break;

impl std::fmt::Display for Break {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken on purpose")
    }
}

impl std::error::Error for Break {}

/// A server that ends when it is dropped, with all its connections.
struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    /// Connections that were not closed yet.
    open: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    async fn new<F>(handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Response<Body>, Break>> + Send + 'static,
    {
        Self::at(TcpListener::bind("127.0.0.1:0").await.unwrap(), None, handler)
    }

    /// HTTP/1.1 and HTTP/2, whichever comes, perhaps with TLS.
    fn at<F>(
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Response<Body>, Break>> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let (accepted, asked, open) = (Arc::default(), Arc::default(), Arc::default());
        let counts: [Arc<AtomicUsize>; 3] = [Arc::clone(&accepted), Arc::clone(&asked), Arc::clone(&open)];
        let handler: Handler = Arc::new(move |request| {
            counts[1].fetch_add(1, Ordering::SeqCst);
            Box::pin(handler(request))
        });
        let counts: [Arc<AtomicUsize>; 2] = [Arc::clone(&accepted), Arc::clone(&open)];
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counts[0].fetch_add(1, Ordering::SeqCst);
                counts[1].fetch_add(1, Ordering::SeqCst);
                let (open, handler, tls) = (Counted(Arc::clone(&counts[1])), Arc::clone(&handler), tls.clone());
                connections.spawn(async move {
                    let _open = open;
                    match tls {
                        None => serve(stream, handler).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, handler).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, accepted, asked, open, task }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn serve<IO>(io: IO, handler: Handler)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| handler(request));
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    drop(builder.serve_connection_with_upgrades(TokioIo::new(io), service).await);
}

/// Says `text`.
fn says(text: &'static str) -> impl Fn(Request<Incoming>) -> std::future::Ready<Result<Response<Body>, Break>> {
    move |_| std::future::ready(Ok(Response::new(Body::from(text))))
}

fn settings(targets: &[&str]) -> UpstreamSettings {
    let targets = targets.iter().map(|target| target.parse().unwrap()).collect();
    UpstreamSettings::new("orders".parse().unwrap(), targets)
}

fn upstream(settings: UpstreamSettings) -> Arc<Upstream> {
    let id = settings.id.clone();
    Upstreams::new(&[settings]).unwrap().get(&id).unwrap()
}

fn limits() -> SendLimits {
    SendLimits { response_timeout: Duration::from_secs(20), progress: None }
}

fn get() -> Request<Body> {
    Request::get("/some/path?x=1").header("host", "api.example.com").body(Body::empty()).unwrap()
}

fn post(content: &'static str) -> Request<Body> {
    Request::post("/orders").header("host", "api.example.com").body(Body::from(content)).unwrap()
}

/// Sends a request and reads its answer to the end.
async fn call(upstream: &Upstream, request: Request<Body>) -> Result<Bytes, SendError> {
    let response = upstream.send(request, 7, limits()).await?;
    Ok(response.into_body().collect().await.unwrap().to_bytes())
}

/// Waits for something that another task brings about.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}: not in 20 s");
}

/// Drops the upstream, and sees that nothing is left of it.
async fn ends(upstream: Arc<Upstream>) {
    let counters = Arc::clone(&upstream.core.counters);
    let weak = Arc::downgrade(&upstream.core);
    assert_eq!(counters.in_flight.load(Ordering::SeqCst), 0, "requests in flight");
    for endpoint in upstream.core.endpoints.load().iter() {
        assert_eq!(endpoint.in_flight.load(Ordering::SeqCst), 0, "requests in flight at {}", endpoint.address);
    }
    drop(upstream);
    until("the upstream is gone", || weak.strong_count() == 0).await;
    until("its connections are closed", || counters.connections.load(Ordering::SeqCst) == 0).await;
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server in a thread of its own, one connection after the other: it acts while the test's runtime does not run.
fn thread(
    mut connection: impl FnMut(usize, &mut std::net::TcpStream) + Send + 'static,
) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        for number in 0.. {
            // The test ends, and the thread with the process.
            let Ok((mut stream, _)) = listener.accept() else { return };
            connection(number, &mut stream);
        }
    });
    (address, thread)
}

/// Reads one request with its content, when the length of that is told. Empty at the end of the stream.
fn read_request(stream: &mut std::net::TcpStream) -> String {
    use std::io::Read;
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => text.push(char::from(byte[0])),
            _ => return String::new(),
        }
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut content = vec![0; length];
    if stream.read_exact(&mut content).is_err() {
        return String::new();
    }
    text + &String::from_utf8(content).unwrap()
}

fn write(stream: &mut std::net::TcpStream, text: &str) {
    use std::io::Write;
    // Who went away meanwhile needs no answer.
    drop(stream.write_all(text.as_bytes()));
}

/// A content that a test gives piece by piece.
struct Piped(mpsc::UnboundedReceiver<Result<Frame<Bytes>, Break>>);

type Pipe = mpsc::UnboundedSender<Result<Frame<Bytes>, Break>>;

fn piped() -> (Pipe, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Body::new(Piped(receiver)))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, Break> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

impl http_body::Body for Piped {
    type Data = Bytes;
    type Error = Break;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Break>>> {
        self.0.poll_recv(cx)
    }
}
