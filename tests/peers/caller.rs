//! The client in front of a proxy: trusts its certificate alone, and can send what no client library would.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Certificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::client::{Answer, Http};
use crate::gateway::provider;

/// Nothing in these tests takes longer; what does hangs.
pub const LONG: Duration = Duration::from_secs(30);

pub struct Caller {
    one: reqwest::Client,
    two: reqwest::Client,
    tls: Arc<ClientConfig>,
    port: u16,
}

impl Caller {
    /// For a proxy on `port` with this certificate, PEM.
    pub fn new(port: u16, certificate: &[u8]) -> Self {
        let provider = provider();
        let builder = || {
            let trusted = Certificate::from_pem(certificate).expect("a certificate");
            reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(LONG)
                .resolve("localhost", SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
                .tls_certs_only([trusted])
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate).expect("a certificate")).expect("an authority");
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut tls = tls.expect("versions").with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            one: builder().http1_only().build().expect("a client"),
            two: builder().http2_prior_knowledge().build().expect("a client"),
            tls: Arc::new(tls),
            port,
        }
    }

    /// Sends a request, and returns the answer to it.
    pub async fn send(&self, http: Http, method: &str, path: &str, headers: &[(&str, &str)], content: &[u8]) -> Answer {
        let answer = self.try_to_send(http, method, path, headers, content).await;
        answer.unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    async fn try_to_send(
        &self,
        http: Http,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        content: &[u8],
    ) -> reqwest::Result<Answer> {
        let client = match http {
            Http::One => &self.one,
            Http::Two => &self.two,
        };
        let method = method.parse().expect("a method");
        let mut request = client.request(method, format!("https://localhost:{}{path}", self.port));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !content.is_empty() {
            request = request.body(content.to_vec());
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await?;
        Ok(Answer { status, headers, body })
    }

    /// The first answer to a `GET` with a token. A proxy may listen before it has read its certificates and routes, and
    /// then closes, or answers 404.
    pub async fn first(&self, path: &str, token: &str) -> Answer {
        let began = Instant::now();
        let authorization = format!("Bearer {token}");
        loop {
            let answer = self.try_to_send(Http::One, "GET", path, &[("authorization", &authorization)], &[]).await;
            match answer {
                Ok(answer) if answer.status != 404 => return answer,
                other => assert!(began.elapsed() < LONG, "it does not serve: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `GET` with a token, over HTTP/1.1.
    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(Http::One, "GET", path, &[("authorization", &format!("Bearer {token}"))], &[]).await
    }

    /// Sends these header lines as they are, and returns the answer's status.
    pub async fn raw(&self, request_line: &str, lines: &[String]) -> u16 {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut io = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.expect("TLS");
        let lines = lines.join("\r\n");
        let port = self.port;
        let close = if lines.contains("Connection: Upgrade") { "" } else { "Connection: close\r\n" };
        let text = format!("{request_line}\r\nHost: localhost:{port}\r\n{close}{lines}\r\n\r\n");
        io.write_all(text.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        loop {
            // An interim answer may come before the one that counts.
            let text = String::from_utf8_lossy(&answer);
            let rest = text.strip_prefix("HTTP/1.1 100 ").and_then(|rest| rest.split_once("\r\n\r\n"));
            if let Some((head, _)) = rest.map_or(&*text, |(_, last)| last).split_once("\r\n\r\n") {
                let status = head.get(9..12).and_then(|status| status.parse().ok());
                return status.unwrap_or_else(|| panic!("no status: {head}"));
            }
            let read = timeout(LONG, io.read_buf(&mut answer)).await.expect("an answer, in time");
            assert!(matches!(read, Ok(1..)), "no answer: {read:?} after {:?}", String::from_utf8_lossy(&answer));
        }
    }
}
