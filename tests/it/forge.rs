//! Tokens that nobody issued: any header, any claims, signed by the gateway's own key or by a stranger's.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keybearer::clock::Timestamp;
use keybearer::ids::TokenId;
use keybearer::signing::{Algorithm, PrivateKey};
use serde_json::{Value, json};

/// A signing key that the test holds.
pub struct Forge {
    pub key: PrivateKey,
    pem: String,
}

/// The key that every gateway under test signs with.
pub fn ours() -> &'static Forge {
    static OURS: LazyLock<Forge> = LazyLock::new(Forge::new);
    &OURS
}

/// A key that no gateway knows.
pub fn a_strangers() -> &'static Forge {
    static STRANGERS: LazyLock<Forge> = LazyLock::new(Forge::new);
    &STRANGERS
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A part of a token, read back.
pub fn decode(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

/// The claims of a token, unverified.
pub fn claims(jwt: &str) -> Value {
    decode(jwt.split('.').nth(1).expect("three parts"))
}

impl Forge {
    fn new() -> Self {
        let key = PrivateKey::generate(Algorithm::Rs256, 2048).expect("a key");
        let der = STANDARD.encode(key.to_pkcs8().expect("PKCS#8").expose());
        let lines: Vec<&str> = (0..der.len()).step_by(64).map(|at| &der[at..der.len().min(at + 64)]).collect();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
        Self { key, pem }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The header of a good token.
    pub fn header(&self) -> Value {
        json!({"alg": "RS256", "typ": "at+jwt", "kid": self.key.kid()})
    }

    /// Signs these texts as they are.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        let mut jwt = format!("{}.{}", encode(header), encode(claims));
        let signature = self.key.sign(jwt.as_bytes()).expect("a signature");
        jwt.push('.');
        jwt.push_str(&encode(signature));
        jwt
    }

    /// Signs these values.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        self.sign(&header.to_string(), &claims.to_string())
    }

    /// A token with a good header and these claims.
    pub fn with_claims(&self, claims: &Value) -> String {
        self.token(&self.header(), claims)
    }
}

/// The claims of a good token for the sample group, issued at `now` for an hour.
pub fn good_claims(now: Timestamp) -> Value {
    let url = "https://localhost:8443";
    json!({
        "iss": url, "aud": url, "sub": "acme", "client_id": "acme",
        "iat": now.secs(), "nbf": now.secs(), "exp": now.secs() + 3600,
        "jti": TokenId::random().to_string(), "scope": "demo sample", "groups": ["demo", "sample"],
    })
}
