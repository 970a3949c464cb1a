//! Opens a connection to one address: TCP, TLS where it is asked for, and what both sides then agree to speak (RFC 7301).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::trust::Tls;

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// HTTP/1.1 and nothing else.
    Http1,
    /// HTTP/2 and nothing else.
    Http2,
    /// What the target likes better.
    Either,
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// A connection that did not come about.
#[derive(Debug, Clone)]
pub struct ConnectError {
    timeout: bool,
    reason: Arc<str>,
}

impl ConnectError {
    pub(super) fn because(reason: impl fmt::Display) -> Self {
        Self { timeout: false, reason: reason.to_string().into() }
    }

    fn too_late() -> Self {
        Self { timeout: true, reason: "timed out".into() }
    }

    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        self.timeout
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ConnectError {}

/// Opens connections as an upstream's settings say.
#[derive(Debug)]
pub(super) struct Connector {
    pub tls: Option<Tls>,
    pub timeout: Duration,
}

impl Connector {
    /// A new connection to `address`, with TLS if there is a name to ask for.
    pub async fn open(
        &self,
        address: SocketAddr,
        name: Option<&ServerName<'static>>,
        wanted: Wanted,
        open: Open,
    ) -> Result<(Stream, Spoken), ConnectError> {
        tokio::time::timeout(self.timeout, self.open_untimed(address, name, wanted, open))
            .await
            .unwrap_or_else(|_| Err(ConnectError::too_late()))
    }

    async fn open_untimed(
        &self,
        address: SocketAddr,
        name: Option<&ServerName<'static>>,
        wanted: Wanted,
        open: Open,
    ) -> Result<(Stream, Spoken), ConnectError> {
        let tcp = TcpStream::connect(address).await.map_err(ConnectError::because)?;
        // Heads and small contents go out at once; whoever writes more fills whole segments anyway.
        tcp.set_nodelay(true).map_err(ConnectError::because)?;
        let (Some(name), Some(tls)) = (name, &self.tls) else {
            let spoken = if wanted == Wanted::Http2 { Spoken::Http2 } else { Spoken::Http1 };
            return Ok((Stream { io: Io::Plain(tcp), _open: open }, spoken));
        };
        let client = match wanted {
            Wanted::Http1 => &tls.http1,
            Wanted::Http2 => &tls.http2,
            Wanted::Either => &tls.either,
        };
        let name = tls.server_name.as_ref().unwrap_or(name).clone();
        let stream = client.connect(name, tcp).await.map_err(|error| ConnectError::because(format!("TLS: {error}")))?;
        let spoken = match (stream.get_ref().1.alpn_protocol(), wanted) {
            (Some(b"h2"), _) => Spoken::Http2,
            (_, Wanted::Http2) => return Err(ConnectError::because("TLS: the target does not agree to HTTP/2")),
            _ => Spoken::Http1,
        };
        Ok((Stream { io: Io::Tls(Box::new(stream)), _open: open }, spoken))
    }
}

/// Counts a connection from when it is begun until its socket is closed, wherever that happens: the count is part of the
/// socket, and goes with it into a tunnel.
#[derive(Debug)]
pub(super) struct Open(Arc<AtomicUsize>);

impl Open {
    /// One more on `count`.
    pub fn count(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes of a connection.
#[derive(Debug)]
pub(super) struct Stream {
    io: Io,
    // After `io`: the socket is closed before it is counted down.
    _open: Open,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Io::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (&mut self.io, bytes) {
            // One buffer as one: `send` costs the kernel less than `writev`, and most requests are a head alone.
            (Io::Plain(io), [one]) => Pin::new(io).poll_write(cx, one),
            (Io::Plain(io), several) => Pin::new(io).poll_write_vectored(cx, several),
            (Io::Tls(io), several) => Pin::new(io).poll_write_vectored(cx, several),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
