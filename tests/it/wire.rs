//! Bytes over a socket, for what no client library would send.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::gateway::{TestGateway, provider};

/// Nothing in these tests takes longer; what does hangs.
pub const LONG: Duration = Duration::from_secs(20);

/// A connection that HTTP/1.1 is spoken on, byte by byte.
pub struct Wire<IO = TlsStream<TcpStream>> {
    io: IO,
    read: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Raw {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// TLS as the gateway's clients do it, offering one protocol.
pub fn tls(gateway: &TestGateway, protocol: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(gateway.authority()).expect("a certificate")).expect("an authority");
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    Arc::new(config)
}

/// A TLS connection that offers one protocol.
pub async fn connect(gateway: &TestGateway, protocol: &str, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(tls(gateway, protocol)).connect(name, tcp).await
}

impl Wire {
    pub async fn open(gateway: &TestGateway) -> Self {
        Self::open_for(gateway, "http/1.1").await
    }

    /// With an agreement to speak another protocol.
    pub async fn open_for(gateway: &TestGateway, protocol: &str) -> Self {
        let tcp = TcpStream::connect(gateway.https()).await.expect("a connection");
        Self::new(connect(gateway, protocol, tcp).await.expect("TLS"))
    }

    /// With a receive buffer so small that what is not read soon blocks the sender.
    pub async fn open_narrow(gateway: &TestGateway) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let tcp = socket.connect(gateway.https()).await.expect("a connection");
        Self::new(connect(gateway, "http/1.1", tcp).await.expect("TLS"))
    }
}

impl Wire<TcpStream> {
    /// Without TLS, at the TLS port.
    pub async fn open_plain(gateway: &TestGateway) -> Self {
        Self::new(TcpStream::connect(gateway.https()).await.expect("a connection"))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    fn new(io: IO) -> Self {
        Self { io, read: vec![] }
    }

    /// Sends as much as the other end takes: it may have closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.io.write_all(bytes.as_ref()).await;
        let _ = self.io.flush().await;
    }

    /// Sends, and reads meanwhile, so that neither end waits for the other.
    pub async fn send_reading(&mut self, bytes: impl AsRef<[u8]>) {
        let (mut from, mut to) = tokio::io::split(&mut self.io);
        let sending = async {
            let _ = to.write_all(bytes.as_ref()).await;
            let _ = to.flush().await;
        };
        tokio::pin!(sending);
        loop {
            tokio::select! {
                () = &mut sending => return,
                read = from.read_buf(&mut self.read) => if !matches!(read, Ok(1..)) { return },
            }
        }
    }

    /// More bytes; `false` at the end.
    async fn more(&mut self) -> bool {
        let read = timeout(LONG, self.io.read_buf(&mut self.read)).await.expect("bytes, or the end, in time");
        matches!(read, Ok(1..))
    }

    /// The next answer; `None` when the connection ended before one was whole.
    pub async fn answer(&mut self) -> Option<Raw> {
        self.answer_to("GET").await
    }

    /// The next answer to a request with this method.
    pub async fn answer_to(&mut self, method: &str) -> Option<Raw> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.read[..end].to_vec()).expect("a header section in ASCII");
        let status: u16 = head.get(9..12).expect("a status line").parse().expect("a status");
        let mut raw = Raw { status, head, body: String::new() };
        let has_body = method != "HEAD" && status >= 200 && status != 204;
        let length = raw.header("content-length").filter(|_| has_body).map_or(0, |n| n.parse().expect("a number"));
        while self.read.len() < end + 4 + length {
            if !self.more().await {
                return None;
            }
        }
        raw.body = String::from_utf8(self.read[end + 4..end + 4 + length].to_vec()).expect("text");
        self.read.drain(..end + 4 + length);
        Some(raw)
    }

    /// The next answer as it came, with its chunks if it has any; `None` when the connection ended before it was whole.
    pub async fn any_answer(&mut self) -> Option<Vec<u8>> {
        loop {
            let head = self.read.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
            if let Some(head) = head {
                let text = String::from_utf8_lossy(&self.read[..head]).to_lowercase();
                let status = text.get(9..12).and_then(|status| status.parse::<u16>().ok()).expect("a status");
                let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
                let end = match length {
                    _ if status < 200 || status == 204 || status == 304 => Some(head),
                    Some(length) => Some(head + usize::min(length, usize::MAX - head)),
                    None if text.contains("transfer-encoding: chunked") => {
                        self.read[head..].windows(5).position(|five| five == b"0\r\n\r\n").map(|at| head + at + 5)
                    }
                    None => Some(head),
                };
                if let Some(end) = end.filter(|end| *end <= self.read.len()) {
                    return Some(self.read.drain(..end).collect());
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// So many bytes; `None` where there are fewer.
    pub async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.read.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.read.drain(..count).collect())
    }

    /// Whether the connection ends without TLS saying so (RFC 8446 §6.1): then what came is not all.
    pub async fn ends_abruptly(&mut self) -> bool {
        loop {
            match timeout(LONG, self.io.read_buf(&mut self.read)).await.expect("bytes, or the end, in time") {
                Ok(1..) => {}
                Ok(0) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Whether the other end closes, having sent nothing more.
    pub async fn is_closed(&mut self) -> bool {
        !self.more().await && self.read.is_empty()
    }

    /// Takes up to so many bytes, if there are any.
    pub async fn take_some(&mut self, most: usize) {
        let until = self.read.len() + most;
        while self.read.len() < until && self.more().await {}
    }

    /// Everything until the other end closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }
}

/// Sends one request on a connection of its own; `None` when it is closed without an answer.
pub async fn exchange(gateway: &TestGateway, request: impl AsRef<[u8]>) -> Option<Raw> {
    let mut wire = Wire::open(gateway).await;
    wire.send_reading(request).await;
    wire.answer().await
}
