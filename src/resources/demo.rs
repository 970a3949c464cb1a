//! The Demo group's published key and token (CONTRACT §4): whoever wants to try needs nothing else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http::Response;
use serde::Serialize;

use crate::clock::{Clock, Timestamp};
use crate::credentials::Verifier;
use crate::exchange::private_json;
use crate::groups::demo;
use crate::registry::{Digest, Lookup, Registry};
use crate::secret::Secret;
use crate::signing;
use crate::tokens::{Issued, Issuer, MOST_AHEAD};

/// What is published. The key and the token are no secrets: they open the Demo group alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The demo key.
    pub key: String,
    /// A demo token, good for a while.
    pub token: String,
    /// When the token expires.
    pub expires_at: Timestamp,
    /// Where this server is reached.
    pub site: PublishedSite,
}

/// How clients reach this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedSite {
    /// The URL.
    pub base_url: String,
    /// The file with the certificate to trust, when it is that of the local authority: what `curl --cacert` wants.
    pub ca_file: Option<String>,
}

impl PublishedSite {
    /// A `curl` command up to its arguments.
    pub fn curl(&self) -> String {
        match &self.ca_file {
            Some(file) => format!("curl --cacert {}", shell_word(file)),
            None => "curl".to_owned(),
        }
    }
}

/// `text` as one word of a shell.
fn shell_word(text: &str) -> std::borrow::Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | ',' | ':' | '@');
    if !text.is_empty() && text.chars().all(plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''")).into()
}

/// Keeps the demo token fresh.
pub struct Demo {
    settings: demo::Settings,
    site: PublishedSite,
    credentials: Arc<Verifier>,
    issuer: Arc<Issuer>,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    current: Mutex<Option<Issued>>,
}

impl std::fmt::Debug for Demo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Demo").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct View<'a> {
    group: &'static str,
    key: &'a str,
    token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    expires_at: String,
    try_it: [String; 2],
}

impl Demo {
    /// The Demo group of a server.
    pub fn new(
        settings: &demo::Settings,
        site: PublishedSite,
        credentials: Arc<Verifier>,
        issuer: Arc<Issuer>,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let current = Mutex::new(None);
        Self { settings: settings.clone(), site, credentials, issuer, registry, clock, current }
    }

    /// The settings of the Demo group.
    pub fn settings(&self) -> &demo::Settings {
        &self.settings
    }

    /// What is published now. A token that was revoked, that has less than half of its life before it, or that is of a time which
    /// has not come yet, is replaced.
    ///
    /// # Errors
    /// [`signing::Error`].
    pub fn published(&self) -> Result<Published, signing::Error> {
        let now = self.clock.now();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let issued = match current.take().filter(|issued| self.is_fresh(issued, now)) {
            Some(issued) => issued,
            None => self.mint(now)?,
        };
        let issued = current.insert(issued);
        Ok(Published {
            key: demo::key(self.credentials.prefix()).secret().expose().clone(),
            token: issued.jwt.expose().clone(),
            expires_at: Timestamp::from_secs(issued.token.expires_at),
            site: self.site.clone(),
        })
    }

    fn is_fresh(&self, issued: &Issued, now: Timestamp) -> bool {
        let left = Timestamp::from_secs(issued.token.expires_at).since(now);
        let life = Duration::from_secs(issued.token.expires_at - issued.token.issued_at);
        let digest = digest(&issued.jwt);
        left * 2 >= life
            && Timestamp::from_secs(issued.token.issued_at) <= now + MOST_AHEAD
            && match self.registry.look_up(&digest, now) {
                Lookup::Live(_) => true,
                Lookup::Expired(_) | Lookup::Revoked(_) => false,
                // It was evicted, to make room or because someone presented it after it was revoked.
                Lookup::Unknown => self.registry.admit(digest, &issued.token, now).is_some(),
            }
    }

    fn mint(&self, now: Timestamp) -> Result<Issued, signing::Error> {
        let grant = self.credentials.demo_grant();
        let issued = self.issuer.issue_for(&grant, self.settings.token_lifetime, now)?.ok_or(signing::Error::Sign)?;
        self.registry.admit(digest(&issued.jwt), &issued.token, now);
        Ok(issued)
    }

    /// `GET /demo`
    ///
    /// # Errors
    /// [`signing::Error`].
    pub fn respond(&self) -> Result<Response<Body>, signing::Error> {
        let Published { key, token, expires_at, site } = self.published()?;
        let (curl, base_url) = (site.curl(), &site.base_url);
        let view = View {
            group: demo::DEMO,
            key: &key,
            token: &token,
            token_type: "Bearer",
            expires_in: expires_at.since(self.clock.now()).as_secs(),
            expires_at: expires_at.to_string(),
            try_it: [
                format!("{curl} -u '{key}:' {base_url}/token"),
                format!("{curl} -H 'Authorization: Bearer {token}' {base_url}/demo/time"),
            ],
        };
        Ok(private_json(serde_json::to_vec_pretty(&view).unwrap_or_default()))
    }
}

fn digest(jwt: &Secret<String>) -> Digest {
    Digest::of(jwt.expose().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_word_of_the_line_to_copy() {
        let curl = |file: &str| PublishedSite { base_url: String::new(), ca_file: Some(file.into()) }.curl();
        assert_eq!(curl("data/tls/ca.pem"), "curl --cacert data/tls/ca.pem");
        assert_eq!(curl("/home/jo b/$x's.pem"), r"curl --cacert '/home/jo b/$x'\''s.pem'");
    }
}
