//! Accepting connections: TLS, and what comes in the clear to a TLS port.
//!
//! No redirect and no other mercy: a request in the clear gets one fixed answer, whatever it carries, and the connection
//! closes (CONTRACT §3). What it carried is looked at afterwards.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::{Connection, Tcp, Watched};
use super::exposure::Exposure;
use super::front::Serving;
use crate::client_addr::Peer;
use crate::problem::{Kind, Problem};
use crate::telemetry::Metrics;

/// The first byte of a TLS record that begins a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;

/// A request in the clear is read so far and so long, to see what it exposed.
const PLAINTEXT_BYTES: usize = 16 * 1024;
const PLAINTEXT_TIME: Duration = Duration::from_secs(2);

/// Accepts TLS connections.
#[derive(Debug, Clone)]
pub struct TlsDoor {
    shared: Arc<TlsShared>,
}

#[derive(Debug)]
struct TlsShared {
    config: RustlsConfig,
    handshake_timeout: Duration,
    exposure: Arc<Exposure>,
    metrics: Arc<Metrics>,
}

impl TlsDoor {
    /// A door with the certificate that `config` holds at the moment of each connection.
    pub fn new(
        config: RustlsConfig,
        handshake_timeout: Duration,
        exposure: Arc<Exposure>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { shared: Arc::new(TlsShared { config, handshake_timeout, exposure, metrics }) }
    }
}

type Accepting<S, F> = Pin<Box<dyn Future<Output = io::Result<(Watched<S>, Serving<F>)>> + Send>>;

impl<F: Send + 'static> Accept<TcpStream, Serving<F>> for TlsDoor {
    type Stream = Watched<TlsStream<Tcp>>;
    type Service = Serving<F>;
    type Future = Accepting<TlsStream<Tcp>, F>;

    fn accept(&self, tcp: TcpStream, serving: Serving<F>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            tcp.set_nodelay(true)?;
            let connection = Arc::clone(serving.connection());
            let until = Instant::now() + shared.handshake_timeout;
            let slow = |_| {
                shared.metrics.closed("slow_handshake");
                io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time")
            };
            let mut first = [0];
            if timeout_at(until, tcp.peek(&mut first)).await.map_err(slow)?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if first[0] != HANDSHAKE {
                // This has a limit of its own: what was exposed is looked at in the end, however short ours is.
                shared.answer_in_the_clear(tcp, &connection).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a request in the clear"));
            }
            let handshake = TlsAcceptor::from(shared.config.get_inner()).accept(Tcp(tcp));
            let tls = timeout_at(until, handshake).await.map_err(slow)?.inspect_err(|_| {
                shared.metrics.handshakes_failed.inc();
            })?;
            let is_http1 = tls.get_ref().1.alpn_protocol() != Some(b"h2");
            Ok((Watched::new(tls, connection, is_http1), serving))
        })
    }
}

impl TlsShared {
    /// Answers before it looks at what was sent, so that neither body nor time tells a good key from a bad one.
    async fn answer_in_the_clear(&self, mut tcp: TcpStream, connection: &Connection) {
        self.metrics.plaintext.inc();
        let mut head = zeroize::Zeroizing::new(Vec::with_capacity(2048));
        let read = async {
            while head.len() < PLAINTEXT_BYTES && !head.windows(4).any(|end| end == b"\r\n\r\n") {
                if tcp.read_buf(&mut *head).await? == 0 {
                    break;
                }
            }
            tcp.write_all(https_required().as_bytes()).await?;
            tcp.shutdown().await?;
            // Until the client closes too: a reset would take the answer from it.
            let mut rest = [0; 1024];
            while tcp.read(&mut rest).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        // Whether the client took the answer is its own affair.
        let _ = timeout(PLAINTEXT_TIME, read).await;
        if let Peer::Address(peer) = connection.peer() {
            self.exposure.examine(&head, peer);
        }
    }
}

/// The fixed answer to a request in the clear: not a byte of it depends on the request.
fn https_required() -> String {
    let body = Problem::new(
        Kind::HttpsRequired,
        "This port speaks HTTPS only. Whatever key or token was sent to it in the clear must be treated as exposed.",
    )
    .to_json();
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n{}",
        body.len(),
        String::from_utf8_lossy(&body)
    )
}

/// Accepts connections of a load balancer that has ended TLS. Whether each request came by HTTPS is the front's question.
#[derive(Debug, Clone, Copy)]
pub struct ProxiedDoor;

impl<F: Send + 'static> Accept<TcpStream, Serving<F>> for ProxiedDoor {
    type Stream = Watched<TcpStream>;
    type Service = Serving<F>;
    type Future = std::future::Ready<io::Result<(Watched<TcpStream>, Serving<F>)>>;

    fn accept(&self, tcp: TcpStream, serving: Serving<F>) -> Self::Future {
        let accepted = tcp.set_nodelay(true);
        std::future::ready(accepted.map(|()| {
            let connection = Arc::clone(serving.connection());
            (Watched::new(tcp, connection, true), serving)
        }))
    }
}

/// Accepts connections of proxies on this machine, by a Unix socket. Its file's mode says who may connect.
#[derive(Debug, Clone, Copy)]
pub struct UnixDoor;

impl<F: Send + 'static> Accept<UnixStream, Serving<F>> for UnixDoor {
    type Stream = Watched<UnixStream>;
    type Service = Serving<F>;
    type Future = std::future::Ready<io::Result<(Watched<UnixStream>, Serving<F>)>>;

    fn accept(&self, stream: UnixStream, serving: Serving<F>) -> Self::Future {
        let connection = Arc::clone(serving.connection());
        std::future::ready(Ok((Watched::new(stream, connection, true), serving)))
    }
}
