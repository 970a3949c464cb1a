//! A gateway that is what it says: its issuer and audience are the URL that clients reach it by.

use std::sync::Arc;
use std::time::Duration;

use keybearer::clock::ManualClock;
use keybearer::config::Config;
use keybearer::keys::ApiKey;
use keybearer::signing::{self, Algorithm, JWKS_MAX_AGE, Operations, PrivateKey, Rotated, SigningState};
use serde_json::Value;

use crate::forge::{a_strangers, encode, good_claims};
use crate::gateway::TestGateway;
use crate::program::free_port;
use crate::published::{kids, settle};

/// A group that opens nothing here.
pub const OTHER: &str = "reports";

pub struct Scene {
    pub gateway: TestGateway,
    pub url: String,
    /// Of `acme`, who may use the sample group and [`OTHER`].
    pub key: ApiKey,
}

impl Scene {
    /// Starts it with these changes.
    pub async fn start(change: impl Fn(&mut Config)) -> Self {
        let mut refusal = None;
        for _ in 0..5 {
            // It has to be known beforehand, and another process may be quicker to take it.
            let port = free_port();
            let url = format!("https://localhost:{port}");
            let build = TestGateway::build().with(|config| {
                config.server.listen.set_port(port);
                (config.tokens.issuer, config.tokens.audience) = (url.clone(), vec![url.clone()]);
                // Its tokens live for a day, and keys that sign them are published for as long.
                config.demo.enabled = false;
                change(config);
            });
            match build.try_to_start().await {
                Ok(gateway) => {
                    let key = gateway.acme().await;
                    gateway.group(OTHER, None).await;
                    gateway.licence("acme", &[OTHER], None).await;
                    return Self { gateway, url, key };
                }
                Err(error) => refusal = Some(error),
            }
        }
        panic!("the gateway does not start: {refusal:?}");
    }

    /// A token for all that its customer may use.
    pub async fn token(&self) -> String {
        // What was done to the records and keys has to be known here before.
        self.gateway.sync().await;
        self.gateway.token(&self.key).await
    }

    /// A token for one group alone.
    pub async fn token_for(&self, group: &str) -> String {
        let form = [("grant_type", "client_credentials"), ("scope", group)];
        self.gateway.post("/token").form(&form).key(&self.key).await.token()
    }

    /// A token that nobody issued, signed with the gateway's own key.
    pub async fn signed(&self, change: impl FnOnce(&mut Value)) -> String {
        let keys = self.gateway.store.signing_keys().await.expect("a read");
        let active = keys.iter().find(|key| key.state == SigningState::Active).expect("an active key");
        let key = PrivateKey::from_pkcs8(active.private.expose()).expect("a key");
        let mut claims = good_claims(self.gateway.now());
        (claims["iss"], claims["aud"]) = (self.url.as_str().into(), self.url.as_str().into());
        change(&mut claims);
        let text = format!("{}.{}", key.encoded_header(), encode(claims.to_string()));
        let signature = key.sign(text.as_bytes()).expect("a signature");
        format!("{text}.{}", encode(signature))
    }

    /// What nobody may take for a good token, and why not.
    pub async fn bad(&self) -> Vec<(&'static str, String)> {
        let good = self.token().await;
        let (text, _) = good.rsplit_once('.').expect("a signature");
        let other = self.token().await;
        let (_, signature) = other.rsplit_once('.').expect("a signature");
        let now = self.gateway.now();
        vec![
            ("no token", "none".to_owned()),
            ("another token's signature", format!("{text}.{signature}")),
            ("no signature", format!("{text}.")),
            ("a stranger's", a_strangers().with_claims(&good_claims(now))),
            // Longer ago than any clock may be wrong by.
            ("expired", self.signed(|claims| claims["exp"] = (now.secs() - 600).into()).await),
            ("another issuer's", self.signed(|claims| claims["iss"] = "https://other.example".into()).await),
            ("for another", self.signed(|claims| claims["aud"] = "https://other.example".into()).await),
        ]
    }

    /// Publishes the key that signs next, as an operator does.
    pub async fn publish_next(&self) {
        let gateway = &self.gateway;
        let clock = Arc::new(ManualClock::new(gateway.now()));
        let lifetime = gateway.config.tokens.lifetime;
        let operations = Operations::new(Arc::clone(&gateway.store) as _, &gateway.config.signing, lifetime, clock);
        let rotated = operations.rotate(false).await.expect("done");
        assert!(matches!(rotated, Rotated::Planned(..)), "{rotated:?}");
        gateway.sync().await;
        settle(&[gateway]).await;
    }

    /// Lets so much time go by that the next key signs.
    pub async fn activate_next(&self) {
        self.gateway.advance(self.gateway.config.signing.publish_ahead);
        settle(&[&self.gateway]).await;
    }

    /// Lets so much time go by that the key before is gone.
    pub async fn retire(&self) {
        self.gateway.advance(self.gateway.config.tokens.lifetime + JWKS_MAX_AGE);
        assert_eq!(kids(&settle(&[&self.gateway]).await).len(), 1, "the active one");
    }
}

/// For verifiers that go by the real time: keys are rotated on demand, and published no longer ahead than those allow a clock
/// to be wrong by.
pub fn on_demand(algorithm: Algorithm) -> signing::Settings {
    let publish_ahead = Duration::from_secs(20);
    signing::Settings { algorithm, rotate_every: Duration::ZERO, publish_ahead, ..signing::Settings::default() }
}
