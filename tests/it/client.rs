//! An HTTP client with the gateway's certificate, and what it was answered.

use std::future::{Future, IntoFuture};
use std::path::Path;
use std::pin::Pin;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keybearer::ids::RequestId;
use keybearer::keys::ApiKey;
use reqwest::header::HeaderMap;
use reqwest::{Certificate, Method, Version};
use serde_json::Value;

use crate::gateway::TestGateway;

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

pub const BOTH: [Http; 2] = [Http::One, Http::Two];

/// One client for each version.
pub struct Clients {
    one: reqwest::Client,
    two: reqwest::Client,
}

impl Clients {
    pub fn new(authority: &Path) -> Self {
        let pem = std::fs::read(authority).expect("the local authority's certificate");
        let builder = || {
            let certificate = Certificate::from_pem(&pem).expect("a certificate");
            reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .tls_certs_only([certificate])
        };
        Self {
            one: builder().http1_only().build().expect("a client"),
            two: builder().http2_prior_knowledge().build().expect("a client"),
        }
    }
}

/// A request in the making; await it.
pub struct Call<'a> {
    clients: &'a Clients,
    http: Http,
    method: Method,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
}

impl TestGateway {
    pub fn call(&self, method: &str, path: &str) -> Call<'_> {
        self.call_at(format!("https://{}{path}", self.https()), method)
    }

    pub fn get(&self, path: &str) -> Call<'_> {
        self.call("GET", path)
    }

    pub fn post(&self, path: &str) -> Call<'_> {
        self.call("POST", path)
    }

    /// At the operators' listener.
    pub fn admin(&self, method: &str, path: &str) -> Call<'_> {
        self.call_at(format!("https://{}{path}", self.gateway.addresses().admin), method)
    }

    /// At the listener for Envoy's questions.
    pub fn at_grpc(&self, path: &str) -> Call<'_> {
        let address = self.gateway.addresses().grpc.expect("a listener for gRPC");
        self.call_at(format!("https://{address}{path}"), "GET")
    }

    /// In the clear, at the listener for load balancers.
    pub fn by_proxy(&self, path: &str) -> Call<'_> {
        let address = self.gateway.addresses().behind_proxy.expect("a listener behind a proxy");
        self.call_at(format!("http://{address}{path}"), "GET")
    }

    fn call_at(&self, url: String, method: &str) -> Call<'_> {
        let method = method.parse().expect("a method");
        Call { clients: &self.clients, http: Http::One, method, url, headers: vec![], body: None }
    }

    /// `GET /token` with a key, as `curl -u "$KEY:"` does.
    pub fn token_call(&self, key: &ApiKey) -> Call<'_> {
        self.get("/token").key(key)
    }

    /// A token for a key.
    pub async fn token(&self, key: &ApiKey) -> String {
        self.token_call(key).await.token()
    }

    /// The value of one line of the metrics; 0 when it is not there (yet).
    pub async fn metric(&self, line: &str) -> f64 {
        let metrics = self.admin("GET", "/metrics").await;
        assert_eq!(metrics.status, 200);
        let value = metrics.body.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }
}

impl Call<'_> {
    pub fn over(mut self, http: Http) -> Self {
        self.http = http;
        self
    }

    pub fn by_post(mut self) -> Self {
        self.method = Method::POST;
        self
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    pub fn basic(self, user: &str, password: &str) -> Self {
        self.header("authorization", basic(user, password))
    }

    pub fn key(self, key: &ApiKey) -> Self {
        self.basic(key.secret().expose(), "")
    }

    pub fn bearer(self, token: impl AsRef<str>) -> Self {
        self.header("authorization", format!("Bearer {}", token.as_ref()))
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(body.as_ref().to_vec());
        self
    }

    /// With this form, every character of it encoded that may be.
    pub fn form(self, parameters: &[(&str, &str)]) -> Self {
        let pairs: Vec<_> =
            parameters.iter().map(|(name, value)| format!("{}={}", form_encoded(name), form_encoded(value))).collect();
        self.raw_form(pairs.join("&"))
    }

    /// With this form to the letter.
    pub fn raw_form(self, content: impl AsRef<[u8]>) -> Self {
        self.header("content-type", "application/x-www-form-urlencoded").body(content)
    }

    async fn send(self) -> Answer {
        let client = match self.http {
            Http::One => &self.clients.one,
            Http::Two => &self.clients.two,
        };
        let mut request = client.request(self.method, self.url);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let response = request.send().await.expect("an answer");
        let version = response.version();
        assert_eq!(version == Version::HTTP_2, self.http == Http::Two, "the version that was asked for");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await.expect("a body");
        Answer { status, headers, body }
    }
}

impl<'a> IntoFuture for Call<'a> {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// The value of a Basic `Authorization` header (RFC 7617).
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// As in a form (RFC 6749 Appendix B).
pub fn form_encoded(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b' ' => "+".to_owned(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    encoded.collect()
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("visible ASCII"))
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The token of a 200 at the token endpoint.
    #[track_caller]
    pub fn token(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["token"].as_str().expect("a token").to_owned()
    }

    /// Checks the form of a problem (RFC 9457) and returns it without its `instance`, which is the request's number.
    #[track_caller]
    pub fn problem(&self, status: u16, word: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.header("cache-control"), Some("no-store"), "nobody keeps a refusal");
        let mut problem = self.json();
        assert_eq!(problem["type"], format!("urn:keybearer:problem:{word}"));
        assert_eq!(problem["status"], status);
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        let instance = problem.as_object_mut().and_then(|members| members.remove("instance")).expect("an instance");
        let number = self.header("x-request-id").expect("a request id");
        assert_eq!(number.len(), RequestId(0).to_string().len());
        assert_eq!(instance, format!("urn:keybearer:request:{number}"));
        problem
    }

    /// Checks the form of an OAuth error (RFC 6749 §5.2) and returns its description.
    #[track_caller]
    pub fn oauth_error(&self, status: u16, error: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!((self.header("cache-control"), self.header("pragma")), (Some("no-store"), Some("no-cache")));
        let body = self.json();
        assert_eq!(body["error"], error, "{self:?}");
        assert_eq!(body.as_object().map(serde_json::Map::len), Some(2), "{body}");
        let description = body["error_description"].as_str().expect("a description");
        let allowed = |c: char| matches!(c, ' ' | '!' | '#'..='[' | ']'..='~');
        assert!(!description.is_empty() && description.chars().all(allowed), "RFC 6749 §5.2: {description:?}");
        assert_eq!(self.header("www-authenticate").is_some(), status == 401, "{self:?}");
        description.to_owned()
    }

    /// The challenge of a 401 or 403.
    #[track_caller]
    pub fn challenge(&self) -> &str {
        assert_eq!(self.headers.get_all("www-authenticate").iter().count(), 1, "one challenge: {self:?}");
        self.header("www-authenticate").expect("a challenge")
    }

    /// Refused for want of a good token (RFC 6750 §3.1).
    #[track_caller]
    pub fn assert_invalid_token(&self) {
        self.problem(401, "invalid-token");
        let challenge = self.challenge();
        assert!(
            challenge.starts_with("Bearer realm=\"keybearer\", error=\"invalid_token\", error_description=\""),
            "{challenge}"
        );
    }
}
