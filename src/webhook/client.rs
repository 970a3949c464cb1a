//! One POST on a connection of its own: messages are rare, and nothing of one may get into another.

use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Error, Settings, Target, WebhookSecret};
use crate::authorities;
use crate::clock::Timestamp;
use crate::notices::{Deliver, Undelivered};

/// From the first look for the host's address to the head of the answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long one address may take to answer: where one does not, the next one must get its turn within the patience.
const EACH: Duration = Duration::from_secs(5);

/// Posts messages to one target.
pub struct Webhook {
    target: Target,
    secret: Option<WebhookSecret>,
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Webhook {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let secret = settings.secret_file.as_deref().map(WebhookSecret::read).transpose();
        let secret = secret.map_err(|problem| Error { setting: "notices.secret_file", problem })?;
        let tls = settings.target.is_tls().then(|| trust(settings)).transpose();
        let tls = tls.map_err(|problem| Error { setting: "notices.ca_file", problem })?;
        Ok(Self { target: settings.target.clone(), secret, tls })
    }

    async fn post(&self, message: &str, at: Timestamp, body: Vec<u8>) -> Result<(), Undelivered> {
        let tcp = self.connect().await?;
        match &self.tls {
            None => self.exchange(tcp, message, at, body).await,
            Some(tls) => {
                let name = ServerName::try_from(self.target.host().to_owned()).map_err(because)?;
                let stream = tls.connect(name, tcp).await.map_err(|error| because(format!("TLS: {error}")))?;
                self.exchange(stream, message, at, body).await
            }
        }
    }

    /// The first address of the host that answers.
    async fn connect(&self) -> Result<TcpStream, Undelivered> {
        let found = tokio::net::lookup_host((self.target.host(), self.target.port())).await.map_err(because)?;
        // A name may lead anywhere, whatever it says.
        let allowed = |address: &SocketAddr| self.target.is_tls() || address.ip().is_loopback();
        first_to_answer(found.filter(allowed), EACH).await
    }

    async fn exchange<S>(&self, stream: S, message: &str, at: Timestamp, body: Vec<u8>) -> Result<(), Undelivered>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(because)?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.target.path_and_query())
            .header(HOST, self.target.authority())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("keybearer/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", message)
            .header("webhook-timestamp", at.secs());
        if let Some(secret) = &self.secret {
            request = request.header("webhook-signature", secret.sign(message, at, &body));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(because)?;
        // What the answer has for content is nobody's business: with the head both are dropped, and the connection closes.
        let mut answer = pin!(sender.send_request(request));
        let answer = tokio::select! {
            answer = &mut answer => answer,
            // It may have ended with the answer already there.
            _ = connection => answer.await,
        };
        let status = answer.map_err(because)?.status();
        if status.is_success() { Ok(()) } else { Err(because(format!("the answer was {status}"))) }
    }
}

#[async_trait]
impl Deliver for Webhook {
    async fn deliver(&self, message: &str, at: Timestamp, body: Vec<u8>) -> Result<(), Undelivered> {
        let posted = tokio::time::timeout(PATIENCE, self.post(message, at, body)).await;
        posted.unwrap_or_else(|_| Err(because(format!("no answer within {} s", PATIENCE.as_secs()))))
    }
}

/// A connection to the first of these addresses that answers within so long each.
async fn first_to_answer(
    addresses: impl Iterator<Item = SocketAddr>,
    each: Duration,
) -> Result<TcpStream, Undelivered> {
    let mut last = because("its host has no address");
    for address in addresses {
        match tokio::time::timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = because(error),
            Err(_) => last = because(format!("{address} does not answer")),
        }
    }
    Err(last)
}

fn because(why: impl Display) -> Undelivered {
    Undelivered(why.to_string())
}

/// A TLS client that trusts whom the settings say.
fn trust(settings: &Settings) -> Result<TlsConnector, String> {
    let roots = match &settings.ca_file {
        Some(path) => {
            let bad = |why: String| format!("{} {why}", path.display());
            let pem = std::fs::read(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
            authorities::in_pem(&pem).map_err(bad)?
        }
        None => authorities::of_system("notices.ca_file")?,
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests;
