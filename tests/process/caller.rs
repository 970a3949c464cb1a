//! A client for what lasts: HTTP/1.1 and HTTP/2 over TLS, by `hyper`, many at once; and the bare bytes of a WebSocket.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::https::bearer;
use crate::installation::{Installation, Server};
use crate::poll::PATIENCE;

/// Whom to call, and with what token.
#[derive(Clone)]
pub struct Caller {
    address: SocketAddr,
    roots: Arc<RootCertStore>,
    token: Arc<str>,
}

/// A connection of either kind. Clones of an HTTP/2 one share it.
pub enum Line {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

/// A whole answer.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Whole {
    /// What kind of problem it tells, `None` if it is none.
    pub fn problem(&self) -> Option<String> {
        let is_problem = self.headers.get("content-type").is_some_and(|kind| kind == "application/problem+json");
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        is_problem.then(|| body["type"].as_str().map(str::to_owned))?
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Ends what takes too long.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

impl Caller {
    /// Of this server, with a token of a customer of this installation.
    pub fn new(installation: &Installation, server: &Server, token: &str) -> Self {
        Self::at(server.https, &installation.ca(), token)
    }

    fn at(address: SocketAddr, ca: &Path, token: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).expect("a readable file") {
            roots.add(certificate.expect("a PEM certificate")).expect("a certificate authority");
        }
        Self { address, roots: Arc::new(roots), token: token.into() }
    }

    /// The bytes below HTTP.
    pub async fn tls(&self, protocol: &[u8]) -> io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").expect("a name"), tcp).await
    }

    pub async fn one(&self) -> Line {
        let io = TokioIo::new(self.tls(b"http/1.1").await.expect("TLS"));
        let (sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Line::One(sender)
    }

    pub async fn two(&self) -> Line {
        self.two_with(|_| {}).await
    }

    pub async fn two_with(&self, set: impl FnOnce(&mut http2::Builder<TokioExecutor>)) -> Line {
        let io = TokioIo::new(self.tls(b"h2").await.expect("TLS"));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        set(&mut builder);
        let (sender, connection) = builder.handshake(io).await.expect("HTTP/2");
        tokio::spawn(connection);
        Line::Two(sender)
    }

    /// A request; its token and its host are put in.
    pub fn request(&self, method: Method, path: &str, body: Body) -> Request<Body> {
        let uri = format!("https://localhost{path}");
        Request::builder()
            .method(method)
            .uri(uri)
            .header("authorization", bearer(&self.token))
            .body(body)
            .expect("a request")
    }

    /// A GET and its whole answer, on a connection of its own.
    pub async fn get(&self, path: &str) -> Whole {
        let mut line = self.one().await;
        let sent = line.send(self.request(Method::GET, path, Body::empty()));
        whole(soon(path, sent).await.expect("an answer")).await.expect("the whole of it")
    }

    /// Opens a WebSocket; the frames are the caller's affair.
    pub async fn web_socket(&self, path: &str) -> io::Result<TlsStream<TcpStream>> {
        let mut tls = self.tls(b"http/1.1").await?;
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
            bearer(&self.token)
        );
        tls.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(tls.read_u8().await?);
        }
        match answer.starts_with(b"HTTP/1.1 101 ") {
            true => Ok(tls),
            false => Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned())),
        }
    }
}

/// Reads one short frame of a server: its opcode and its content.
pub async fn frame(tls: &mut TlsStream<TcpStream>) -> io::Result<(u8, Vec<u8>)> {
    let (first, length) = (tls.read_u8().await?, tls.read_u8().await?);
    let mut content = vec![0; usize::from(length & 0x7f)];
    tls.read_exact(&mut content).await?;
    Ok((first & 0x0f, content))
}

/// The code of the Close that a WebSocket gets next.
pub async fn close_code(tls: &mut TlsStream<TcpStream>) -> io::Result<u16> {
    match frame(tls).await? {
        (8, content) if content.len() >= 2 => Ok(u16::from_be_bytes([content[0], content[1]])),
        other => Err(io::Error::other(format!("no Close: {other:?}"))),
    }
}

impl Line {
    pub async fn send(&mut self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::One(sender) => {
                sender.ready().await?;
                let path = request.uri().path().to_owned();
                *request.uri_mut() = path.parse().expect("a path");
                request.headers_mut().insert("host", http::HeaderValue::from_static("localhost"));
                sender.send_request(request).await
            }
            Self::Two(sender) => {
                let mut sender = sender.clone();
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    pub fn share(&self) -> Self {
        match self {
            Self::One(_) => panic!("an HTTP/1.1 connection has one request at a time"),
            Self::Two(sender) => Self::Two(sender.clone()),
        }
    }
}

pub async fn whole(response: Response<Incoming>) -> hyper::Result<Whole> {
    let (head, body) = response.into_parts();
    let body = soon("the content of an answer", body.collect()).await?.to_bytes();
    Ok(Whole { status: head.status.as_u16(), headers: head.headers, body })
}

/// Reads content to its end and throws it away; how much it was.
pub async fn drain(mut body: Incoming) -> hyper::Result<u64> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}
