//! An upstream under test that speaks HTTP, and records what it got.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keybearer::proxy::upstream::{Protocol, UpstreamSettings};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::gateway::provider;

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    H2c,
    /// HTTP/2 over TLS.
    Tls,
}

/// A request as an upstream got it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `:authority`, or an absolute target's.
    pub authority: Option<String>,
    pub version: Version,
    pub headers: HeaderMap,
    pub content: Bytes,
    pub trailers: Option<HeaderMap>,
    /// The content came to its end.
    pub is_whole: bool,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("visible ASCII"))
    }

    /// All lines of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().expect("visible ASCII")).collect()
    }

    /// What it takes for the host it was asked for.
    pub fn host(&self) -> Option<&str> {
        self.authority.as_deref().or_else(|| self.header("host"))
    }

    fn of<B>(request: &Request<B>) -> Self {
        Self {
            method: request.method().to_string(),
            target: request.uri().path_and_query().map_or(String::new(), ToString::to_string),
            authority: request.uri().authority().map(ToString::to_string),
            version: request.version(),
            headers: request.headers().clone(),
            content: Bytes::new(),
            trailers: None,
            is_whole: false,
        }
    }
}

/// What an upstream counts.
#[derive(Debug, Default)]
struct Counts {
    seen: Mutex<Vec<Seen>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    working: AtomicUsize,
}

/// One of [`Counts`] for as long as it lives.
struct While<F: Fn(&Counts) -> &AtomicUsize>(Arc<Counts>, F);

impl<F: Fn(&Counts) -> &AtomicUsize> While<F> {
    fn new(counts: &Arc<Counts>, of: F) -> Self {
        of(counts).fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(counts), of)
    }
}

impl<F: Fn(&Counts) -> &AtomicUsize> Drop for While<F> {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::AcqRel);
    }
}

/// An upstream that speaks HTTP. It ends when it is dropped.
pub struct Upstream {
    pub address: SocketAddr,
    speaks: Speaks,
    counts: Arc<Counts>,
    /// Its certificate, where it has one.
    dir: Option<TempDir>,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// One that answers a request when all of it is there.
    pub async fn start(speaks: Speaks, answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        let counts = Arc::new(Counts::default());
        let of = Arc::clone(&counts);
        Self::serve(speaks, counts, move |request: Request<Incoming>| {
            let (answer, counts) = (Arc::clone(&answer), Arc::clone(&of));
            async move {
                let mut seen = Seen::of(&request);
                if let Ok(content) = request.into_body().collect().await {
                    seen.is_whole = true;
                    seen.trailers = content.trailers().cloned();
                    seen.content = content.to_bytes();
                }
                let response = answer(&seen);
                counts.seen.lock().unwrap().push(seen);
                response
            }
        })
        .await
    }

    /// One that gets requests as they come; their heads alone are recorded.
    pub async fn streaming<F>(speaks: Speaks, answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let counts = Arc::new(Counts::default());
        let of = Arc::clone(&counts);
        Self::serve(speaks, counts, move |request| {
            of.seen.lock().unwrap().push(Seen::of(&request));
            answer(request)
        })
        .await
    }

    /// One that says `hello` to everything.
    pub async fn hello(speaks: Speaks) -> Self {
        Self::start(speaks, |_| Response::new("hello".into())).await
    }

    async fn serve<F>(
        speaks: Speaks,
        counts: Arc<Counts>,
        answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (dir, tls) = (speaks == Speaks::Tls).then(certified).unzip();
        let (answer, of) = (Arc::new(answer), Arc::clone(&counts));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (answer, counts, tls) = (Arc::clone(&answer), Arc::clone(&of), tls.clone());
                connections.spawn(async move {
                    counts.accepted.fetch_add(1, Ordering::AcqRel);
                    let _open = While::new(&counts, |counts| &counts.open);
                    let service = service_fn(|request| {
                        let working = While::new(&counts, |counts| &counts.working);
                        let answer = answer(request);
                        async move {
                            let answer = answer.await;
                            drop(working);
                            Ok::<_, Infallible>(answer)
                        }
                    });
                    match tls {
                        Some(tls) => match tls.accept(tcp).await {
                            Ok(stream) => speak(Speaks::H2c, stream, service).await,
                            Err(error) => eprintln!("upstream: {error}"),
                        },
                        None => speak(speaks, tcp, service).await,
                    }
                });
            }
        });
        Self { address, speaks, counts, dir, task }
    }

    /// How the gateway finds it.
    pub fn settings(&self, id: &str) -> UpstreamSettings {
        let mut settings = settings(id, self.address);
        if self.speaks == Speaks::H2c {
            settings.protocol = Protocol::Http2;
        }
        if let Some(dir) = &self.dir {
            settings.targets = vec![format!("https://localhost:{}", self.address.port()).parse().expect("a target")];
            settings.tls.ca_file = Some(dir.path().join("ca.pem"));
        }
        settings
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.counts.seen.lock().unwrap().clone()
    }

    /// The one request, which is forgotten.
    #[track_caller]
    pub fn one(&self) -> Seen {
        let mut seen = std::mem::take(&mut *self.counts.seen.lock().unwrap());
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Acquire)
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Acquire)
    }

    /// Requests whose answer has not begun.
    pub fn working(&self) -> usize {
        self.counts.working.load(Ordering::Acquire)
    }
}

/// An upstream by HTTP/1.1 whose failures do not put it out: most tests are about them.
pub fn settings(id: &str, address: SocketAddr) -> UpstreamSettings {
    let target = format!("http://{address}").parse().expect("a target");
    let mut settings = UpstreamSettings::new(id.parse().expect("an id"), vec![target]);
    settings.ejection.failures = 0;
    settings
}

async fn speak<IO, S, F>(speaks: Speaks, io: IO, service: S)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = F>,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    // How it ends is what the tests look at from the other side.
    let _ = match speaks {
        Speaks::Http1 => {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service);
            connection.with_upgrades().await
        }
        Speaks::H2c | Speaks::Tls => {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(128 * 1024).serve_connection(TokioIo::new(io), service).await
        }
    };
}

/// A certificate for `localhost`, in a folder, and TLS with it that agrees to HTTP/2.
fn certified() -> (TempDir, TlsAcceptor) {
    let dir = TempDir::new().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(dir.path().join("ca.pem"), made.cert.pem()).expect("a file");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let builder = rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_no_client_auth();
    let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key).expect("they fit");
    config.alpn_protocols = vec![b"h2".to_vec()];
    (dir, TlsAcceptor::from(Arc::new(config)))
}
