//! A client as small as can be: HTTP/1.1 over TLS, blocking, one certificate authority.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::poll::PATIENCE;

/// `Authorization: Basic` of a key, or of a name and password.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// `Authorization: Bearer`
pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The token in a good answer of the token endpoint.
    #[track_caller]
    pub fn token(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["token"].as_str().expect("a token").to_owned()
    }
}

/// Whom to call, and whom to believe.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Client {
    /// A client that believes the certificate authorities in `ca`.
    pub fn new(address: SocketAddr, ca: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).expect("a readable file") {
            roots.add(certificate.expect("a PEM certificate")).expect("a certificate authority");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { address, config: Arc::new(config) }
    }

    /// Connects; the handshake is done when this returns.
    pub fn connect(&self) -> io::Result<Connection> {
        let tcp = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, tcp);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(Connection { stream, head: Vec::new() })
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn call(&self, method: &str, path: &str, authorization: Option<&str>) -> Answer {
        let answer = self.connect().and_then(|mut connection| connection.call(method, path, authorization));
        answer.unwrap_or_else(|error| panic!("{method} {path} at {}: {error}", self.address))
    }

    /// The answer of the token endpoint to a key.
    #[track_caller]
    pub fn with_key(&self, key: &str) -> Answer {
        self.call("GET", "/token", Some(&basic(key, "")))
    }

    /// The answer of the token endpoint to a name and password.
    #[track_caller]
    pub fn with_password(&self, name: &str, password: &str) -> Answer {
        self.call("GET", "/token", Some(&basic(name, password)))
    }

    /// The status of a secured path with a token.
    #[track_caller]
    pub fn status(&self, path: &str, token: &str) -> u16 {
        self.call("GET", path, Some(&bearer(token))).status
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// What was read beyond the last answer.
    head: Vec<u8>,
}

impl Connection {
    /// A request without content and its answer.
    pub fn call(&mut self, method: &str, path: &str, authorization: Option<&str>) -> io::Result<Answer> {
        let authorization = authorization.map(|value| format!("authorization: {value}\r\n")).unwrap_or_default();
        self.send(format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{authorization}\r\n").as_bytes())?;
        self.answer()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads an answer.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(at) = self.head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at;
            }
            self.more()?;
        };
        let rest = self.head.split_off(end + 4);
        let head = String::from_utf8_lossy(&std::mem::replace(&mut self.head, rest)).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {head}")))?;
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        assert!(!headers.contains_key("transfer-encoding"), "the gateway's answers have a length: {head}");
        let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while self.head.len() < length {
            self.more()?;
        }
        let rest = self.head.split_off(length);
        Ok(Answer { status, body: std::mem::replace(&mut self.head, rest) })
    }

    fn more(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.head.extend_from_slice(&bytes[..count]);
                Ok(())
            }
        }
    }
}
