//! Clients of one kind: connections that are kept, and requests that are sent when they are due.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

/// The pace is kept to this, which is as fine as the timer is.
const TICK: Duration = Duration::from_millis(1);

/// Longer than this nobody waits; it is counted as no answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where requests go, and from which address.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub from: Ipv4Addr,
    /// Without it in the clear.
    pub tls: Option<TlsConnector>,
}

/// TLS that believes the gateway's own authority.
pub fn tls(authority: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).expect("an authority")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    TlsConnector::from(Arc::new(config.expect("TLS 1.3").with_root_certificates(roots).with_no_client_auth()))
}

async fn speak(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> hyper::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(io)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// A connection that is opened anew when it was lost.
pub struct Client {
    target: Target,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub fn new(target: Target) -> Self {
        Self { target, connection: None }
    }

    async fn connect(&self) -> std::io::Result<SendRequest<Full<Bytes>>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((IpAddr::from(self.target.from), 0).into())?;
        let stream = socket.connect(self.target.address).await?;
        stream.set_nodelay(true)?;
        let spoken = match &self.target.tls {
            Some(tls) => speak(tls.connect(ServerName::try_from("localhost").expect("a name"), stream).await?).await,
            None => speak(stream).await,
        };
        spoken.map_err(std::io::Error::other)
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> std::io::Result<(u16, Bytes)> {
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.is_closed() => connection,
            _ => self.connect().await?,
        };
        connection.ready().await.map_err(std::io::Error::other)?;
        let answer = connection.send_request(request).await.map_err(std::io::Error::other)?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
        self.connection = Some(connection);
        Ok((status, body))
    }

    /// Sends a request and reads the whole answer; status 0 is none.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> (u16, Bytes) {
        match tokio::time::timeout(PATIENCE, self.exchange(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => (0, Bytes::new()),
        }
    }
}

/// What came of one kind of request.
#[derive(Default)]
pub struct Tally {
    /// In microseconds, of those that were answered as they should be.
    times: Vec<u32>,
    statuses: BTreeMap<u16, u64>,
}

impl Tally {
    fn add(&mut self, status: u16, took: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        if (200..300).contains(&status) {
            self.times.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
    }

    fn merge(&mut self, other: Self) {
        self.times.extend(other.times);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
    }

    /// For the script.
    pub fn summary(mut self) -> Value {
        self.times.sort_unstable();
        let percentile = |hundredths: usize| {
            let at = (self.times.len() * hundredths / 100).min(self.times.len().saturating_sub(1));
            self.times.get(at).copied()
        };
        json!({ "statuses": self.statuses, "p50_us": percentile(50), "p99_us": percentile(99) })
    }
}

/// Sends what `make` makes at `rate` a second for `time`, over so many connections. A request's time begins when it is due and
/// not when a connection is free for it: a server that is slow does not get fewer of them.
pub async fn at_pace(
    target: Target,
    connections: usize,
    rate: f64,
    time: Duration,
    mut make: impl FnMut() -> Option<Request<Full<Bytes>>>,
) -> Tally {
    let (due, taken) = mpsc::unbounded_channel::<(Instant, Request<Full<Bytes>>)>();
    let taken = Arc::new(tokio::sync::Mutex::new(taken));
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let (taken, mut client) = (Arc::clone(&taken), Client::new(target.clone()));
            tokio::spawn(async move {
                let mut tally = Tally::default();
                loop {
                    let next = taken.lock().await.recv().await;
                    let Some((since, request)) = next else { return tally };
                    let (status, _) = client.send(request).await;
                    tally.add(status, since.elapsed());
                }
            })
        })
        .collect();
    let (began, mut sent) = (Instant::now(), 0.0);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while began.elapsed() < time {
        ticks.tick().await;
        let now = Instant::now();
        while sent < (now - began).as_secs_f64() * rate {
            sent += 1.0;
            if let Some(request) = make() {
                let _ = due.send((now, request));
            }
        }
    }
    drop(due);
    let mut tally = Tally::default();
    for worker in workers {
        tally.merge(worker.await.expect("a worker"));
    }
    tally
}
