//! A small HTTPS client for the commands that play one: one connection a call, HTTP/1.1, nothing sent without TLS but what
//! [`Client::send_in_the_clear`] is asked for.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::failure::Failure;

/// More of an answer is not read.
const MOST_BODY: usize = 1024 * 1024;

/// Whom a client believes.
#[derive(Debug)]
pub(super) struct Trust {
    roots: RootCertStore,
    pinned: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Believes nobody.
    pub(super) fn nobody() -> Self {
        Self { roots: RootCertStore::empty(), pinned: Vec::new() }
    }

    /// Believes the system's certificate authorities too. A system without any is no fault.
    pub(super) fn system(&mut self) {
        self.roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }

    /// Believes the certificate authorities in a PEM file too.
    pub(super) fn authorities(&mut self, file: &Path) -> Result<(), Failure> {
        for certificate in certificates(file)? {
            self.roots.add(certificate).map_err(|error| {
                Failure::mendable(format!("{} holds no certificate authority: {error}", file.display()))
            })?;
        }
        Ok(())
    }

    /// Believes the very certificate that comes first in a PEM file, whoever signed it.
    pub(super) fn pin(&mut self, file: &Path) -> Result<(), Failure> {
        self.pinned.extend(certificates(file)?.into_iter().take(1));
        Ok(())
    }

    fn verifier(self) -> Result<Verifier, Failure> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = if self.roots.is_empty() {
            None
        } else {
            let built =
                WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots), Arc::clone(&provider)).build();
            Some(built.map_err(|error| Failure::ours(error.to_string()))?)
        };
        if chain.is_none() && self.pinned.is_empty() {
            return Err(Failure::mendable("there is no certificate authority to trust")
                .hint("name the gateway's with --cacert FILE; one that made its own keeps it in DATA_DIR/tls/ca.pem"));
        }
        Ok(Verifier { provider, chain, pinned: self.pinned })
    }
}

/// The certificates in a PEM file; at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let fault = |why: &dyn fmt::Display| Failure::mendable(format!("{}: {why}", file.display()));
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(|certificates| certificates.collect());
    match found {
        Ok(found) if found.is_empty() => Err(fault(&"there is no PEM certificate in it")),
        Ok(found) => Ok(found),
        Err(rustls::pki_types::pem::Error::Io(error)) => Err(fault(&error)),
        Err(error) => Err(fault(&format!("no PEM certificates: {error:?}"))),
    }
}

/// Believes a chain to an authority, or a pinned certificate; either way the peer must prove that it holds the key.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.chain {
            Some(chain) => chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(rustls::CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why there was no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// Nobody listens there.
    Refused(String),
    /// The connection could not be made, or broke.
    Connection(String, io::Error),
    /// It took longer than the time limit.
    TimedOut(String, Duration),
    /// The peer's certificate is not believed.
    Certificate(rustls::Error),
    /// The peer does not speak HTTP as it should.
    Protocol(hyper::Error),
    /// The content of the answer could not be read.
    Body(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(to) => write!(f, "{to} refused the connection"),
            Self::Connection(to, error) => write!(f, "the connection to {to} failed: {error}"),
            Self::TimedOut(to, limit) => write!(f, "{to} did not answer within {} s", limit.as_secs()),
            Self::Certificate(error) => write!(f, "the gateway's certificate is not trusted: {error}"),
            Self::Protocol(error) => write!(f, "no answer in HTTP: {error}"),
            Self::Body(error) => write!(f, "the content of the answer could not be read: {error}"),
        }
    }
}

impl CallError {
    /// What to do next.
    pub(super) fn what_next(&self) -> &'static str {
        match self {
            Self::Refused(_) => "is the gateway running? Start it with keybearer serve",
            Self::Certificate(_) => {
                "name the authority that signed it with --cacert FILE; a gateway that made its own keeps it in \
                 DATA_DIR/tls/ca.pem"
            }
            Self::Connection(..) | Self::TimedOut(..) => "is the address right, and does nothing filter it?",
            Self::Protocol(_) | Self::Body(_) => "does a Keybearer gateway listen there?",
        }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// From the first byte of the connection to the last one of the answer.
    pub took: Duration,
}

/// A client of one gateway.
pub(super) struct Client {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
    limit: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the gateway at a host (a name or an address without brackets) and port.
    pub(super) fn new(host: &str, port: u16, trust: Trust, limit: Duration) -> Result<Self, Failure> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::misuse(format!("\"{host}\" is neither a host name nor an address")))?;
        Self::named(host, port, name, trust, limit)
    }

    /// A client of the gateway at an address, whose certificate is for `name`.
    pub(super) fn at(address: SocketAddr, name: &str, trust: Trust, limit: Duration) -> Result<Self, Failure> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Failure::mendable(format!("\"{name}\" in tls.names is neither a host name nor an address")))?;
        Self::named(&address.ip().to_string(), address.port(), name, trust, limit)
    }

    fn named(host: &str, port: u16, name: ServerName<'static>, trust: Trust, limit: Duration) -> Result<Self, Failure> {
        let verifier = trust.verifier()?;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::ours(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { host: host.to_owned(), port, name, tls: TlsConnector::from(Arc::new(config)), limit })
    }

    /// `host:port`, with brackets where an IPv6 address needs them (RFC 3986 §3.2.2).
    pub(super) fn authority(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// Sends a request over HTTPS.
    pub(super) async fn send(&self, request: Request<Empty<Bytes>>) -> Result<Answer, CallError> {
        self.timed(async {
            let stream = self.connect().await?;
            let stream = self.tls.connect(self.name.clone(), stream).await.map_err(|error| {
                match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                    Some(error @ rustls::Error::InvalidCertificate(_)) => CallError::Certificate(error.clone()),
                    _ => CallError::Connection(self.authority(), error),
                }
            })?;
            exchange(stream, request).await
        })
        .await
    }

    /// Sends a request over plain HTTP, to see it refused. It must carry no credentials.
    pub(super) async fn send_in_the_clear(&self, request: Request<Empty<Bytes>>) -> Result<Answer, CallError> {
        self.timed(async { exchange(self.connect().await?, request).await }).await
    }

    async fn connect(&self) -> Result<TcpStream, CallError> {
        TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => CallError::Refused(self.authority()),
            _ => CallError::Connection(self.authority(), error),
        })
    }

    async fn timed(
        &self,
        call: impl Future<Output = Result<(http::response::Parts, Bytes), CallError>>,
    ) -> Result<Answer, CallError> {
        let began = Instant::now();
        let (parts, body) = tokio::time::timeout(self.limit, call)
            .await
            .map_err(|_| CallError::TimedOut(self.authority(), self.limit))??;
        Ok(Answer { status: parts.status, headers: parts.headers, body, took: began.elapsed() })
    }
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<(http::response::Parts, Bytes), CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(CallError::Protocol)?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(CallError::Protocol)?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MOST_BODY).collect().await.map_err(|error| CallError::Body(error.to_string()))?;
        Ok((parts, body.to_bytes()))
    };
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => return answer,
        // The connection may end before the answer has been taken off it; its own error shows in the answer too.
        _ = connection => {}
    }
    answered.await
}
