//! A client that sees what a library hides: content piece by piece, trailers, broken answers, upgrades.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, Version, request};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Guarded;
use crate::client::{Answer, Http};
use crate::wire::{self, LONG};

/// One connection to the gateway. Dropped, it closes at once.
pub struct Caller {
    sender: Sender,
    connection: JoinHandle<()>,
    http: Http,
    authority: String,
    token: Option<String>,
}

enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Caller {
    pub async fn open(guarded: &Guarded, http: Http) -> Self {
        let (gateway, authority) = (&guarded.gateway, format!("localhost:{}", guarded.gateway.https().port()));
        let tcp = TcpStream::connect(gateway.https()).await.expect("a connection");
        let protocol = if http == Http::One { "http/1.1" } else { "h2" };
        let io = TokioIo::new(wire::connect(gateway, protocol, tcp).await.expect("TLS"));
        let (sender, connection) = match http {
            Http::One => {
                let (sender, connection) =
                    http1::Builder::new().max_buf_size(1 << 20).handshake(io).await.expect("a beginning");
                (Sender::One(sender), tokio::spawn(async { drop(connection.with_upgrades().await) }))
            }
            Http::Two => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.max_header_list_size(1 << 20);
                let (sender, connection) = builder.handshake(io).await.expect("a beginning");
                (Sender::Two(sender), tokio::spawn(async { drop(connection.await) }))
            }
        };
        let token = Some(guarded.token.clone());
        Self { sender, connection, http, authority, token }
    }

    /// With another token, or none.
    pub fn with_token(mut self, token: Option<&str>) -> Self {
        self.token = token.map(str::to_owned);
        self
    }

    /// A request with the token.
    pub fn request(&self, method: &str, target: &str) -> request::Builder {
        let method: Method = method.parse().expect("a method");
        let builder = match self.http {
            Http::One => Request::builder().uri(target).header("host", &self.authority),
            Http::Two => {
                let uri: Uri = format!("https://{}{target}", self.authority).parse().expect("a URI");
                Request::builder().version(Version::HTTP_2).uri(uri)
            }
        };
        let builder = builder.method(method);
        match &self.token {
            Some(token) => builder.header("authorization", format!("Bearer {token}")),
            None => builder,
        }
    }

    pub fn get(&self, target: &str) -> request::Builder {
        self.request("GET", target)
    }

    pub fn post(&self, target: &str) -> request::Builder {
        self.request("POST", target)
    }

    /// Sends a request, and waits for the head of its answer.
    pub async fn try_send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        let answer = async {
            match &mut self.sender {
                Sender::One(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Two(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        timeout(LONG, answer).await.expect("an answer in time")
    }

    pub async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        self.try_send(request).await.expect("an answer")
    }

    /// Sends a request, and reads its whole answer.
    pub async fn answer(&mut self, request: Request<Body>) -> Answer {
        let answer = self.send(request).await;
        whole(answer).await.expect("a whole answer").0
    }

    /// `GET`, and the whole answer.
    pub async fn got(&mut self, target: &str) -> Answer {
        let request = self.get(target).body(Body::empty()).expect("a request");
        self.answer(request).await
    }
}

/// Reads an answer to its end: with its trailers, or how it broke.
pub async fn whole(response: Response<Incoming>) -> hyper::Result<(Answer, Option<HeaderMap>)> {
    let (head, body) = response.into_parts();
    let content = timeout(LONG, body.collect()).await.expect("an end in time")?;
    let trailers = content.trailers().cloned();
    let body = String::from_utf8(content.to_bytes().to_vec()).expect("text");
    Ok((Answer { status: head.status.as_u16(), headers: head.headers, body }, trailers))
}

/// The next piece of content that is not empty; `None` at the end.
pub async fn piece(body: &mut Incoming) -> Option<hyper::Result<String>> {
    loop {
        let frame = timeout(LONG, body.frame()).await.expect("a piece, or the end, in time")?;
        match frame.map(|frame| frame.into_data().expect("no trailers")) {
            Ok(data) if data.is_empty() => {}
            Ok(data) => return Some(Ok(String::from_utf8(data.to_vec()).expect("text"))),
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Content that a test feeds as it likes.
pub fn feed() -> (Feeder, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Feeder(sender), Body::new(Fed(receiver)))
}

/// Feeds content. Dropped, the content ends.
#[derive(Clone)]
pub struct Feeder(mpsc::UnboundedSender<io::Result<Frame<Bytes>>>);

impl Feeder {
    pub fn data(&self, data: impl Into<Bytes>) {
        let _ = self.0.send(Ok(Frame::data(data.into())));
    }

    pub fn trailers(self, trailers: &[(&'static str, &'static str)]) {
        let trailers = trailers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let _ = self.0.send(Ok(Frame::trailers(trailers)));
    }

    /// Breaks the content off.
    pub fn fail(self) {
        let _ = self.0.send(Err(io::Error::other("broken off")));
    }

    /// Waits until nobody takes the content any more.
    pub async fn is_unwanted(&self) {
        timeout(LONG, self.0.closed()).await.expect("in time");
    }
}

struct Fed(mpsc::UnboundedReceiver<io::Result<Frame<Bytes>>>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx)
    }
}
