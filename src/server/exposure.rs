//! Credentials that were sent in the clear: recognised, verified, written to the audit log, counted, and by policy revoked.

use std::net::SocketAddr;
use std::sync::Arc;

use super::PlaintextCredentials;
use super::follow::Follower;
use crate::access::Presented as Access;
use crate::accounts;
use crate::clock::Clock;
use crate::credentials::{Outcome, Presented, Verifier};
use crate::groups::demo;
use crate::keys;
use crate::revocations;
use crate::store::SharedStore;
use crate::telemetry::Metrics;
use crate::tokens::{self, Client};

/// What is done about exposed credentials.
pub struct Exposure {
    policy: PlaintextCredentials,
    credentials: Arc<Verifier>,
    tokens: tokens::Verifier,
    accounts: accounts::Operations,
    keys: keys::Operations,
    revocations: revocations::Operations,
    follower: Arc<Follower>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Exposure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exposure").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Exposure {
    /// Acts by `policy`. Only what is right can have been exposed, so everything is verified first.
    pub fn new(
        policy: PlaintextCredentials,
        credentials: Arc<Verifier>,
        tokens: tokens::Verifier,
        store: &SharedStore,
        follower: Arc<Follower>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (store, now, prefix) = (|| Arc::clone(store), || Arc::clone(&clock), || credentials.prefix().clone());
        Self {
            accounts: accounts::Operations::new(store(), now(), prefix()),
            keys: keys::Operations::new(store(), store(), store(), now(), prefix()),
            revocations: revocations::Operations::new(store(), store(), store(), now()),
            policy,
            credentials,
            tokens,
            follower,
            metrics,
            clock,
        }
    }

    /// Looks for credentials in the head of a request that came in the clear, and acts on them in the background.
    pub fn examine(self: &Arc<Self>, head: &[u8], peer: SocketAddr) {
        let mut found = false;
        for line in head.split(|byte| *byte == b'\n').skip(1) {
            if found {
                // One request exposes one credential; a thousand lines are somebody's try to keep us busy.
                break;
            }
            let Some((name, value)) = line.split_at_checked("authorization:".len()) else { continue };
            if name.eq_ignore_ascii_case(b"authorization:") {
                found = true;
                self.examine_value(value.trim_ascii(), peer);
            }
        }
        if !found {
            tracing::info!(client.address = %peer.ip(), "a request came over plain HTTP and was refused");
        }
    }

    /// Acts on the value of an `Authorization` header that came in the clear.
    pub fn examine_value(self: &Arc<Self>, value: &[u8], peer: SocketAddr) {
        if let Access::Bearer(jwt) = Access::from_authorization(value) {
            match self.tokens.verify(jwt, self.clock.now()) {
                Ok(token) => self.spawn_token(token, peer),
                Err(why) => self.not_ours(peer, why.word()),
            }
            return;
        }
        match Presented::from_authorization(value, self.credentials.prefix()) {
            Ok(presented) => {
                let exposure = Arc::clone(self);
                tokio::spawn(async move {
                    // A wrong key cannot be exposed; and ids are public, so that a wrong key must not revoke a right one.
                    match exposure.credentials.verify(presented, peer.ip()).await {
                        Outcome::Verified(grant) => exposure.credential(&grant.client, &grant.account, peer).await,
                        Outcome::Rejected(reason) => exposure.not_ours(peer, reason.word()),
                        Outcome::Throttled(_) | Outcome::Busy => exposure.not_ours(peer, "not_verified"),
                        Outcome::Unavailable(error) => {
                            tracing::error!(error = %error, "a credential that came in the clear could not be verified");
                        }
                    }
                });
            }
            Err(why) => self.not_ours(peer, why.word()),
        }
    }

    fn not_ours(&self, peer: SocketAddr, reason: &'static str) {
        self.metrics.exposed("none");
        tracing::info!(client.address = %peer.ip(), reason, "a request came over plain HTTP and was refused; what it carried is no valid credential");
    }

    fn spawn_token(self: &Arc<Self>, token: tokens::Token, peer: SocketAddr) {
        let exposure = Arc::clone(self);
        tokio::spawn(async move {
            exposure.metrics.exposed("token");
            let is_published = token.account.as_str() == demo::DEMO;
            let revoke = exposure.policy == PlaintextCredentials::Revoke && !is_published;
            let revoked = match revoke {
                true => exposure.revocations.token(token.id).await.map(drop).map_err(Failed::from),
                false => Ok(()),
            };
            exposure.put_in_force().await;
            audit(revoked, revoke, peer, &format!("token {} of {}", token.id, token.account));
        });
    }

    async fn credential(&self, client: &Client, account: &crate::ids::AccountName, peer: SocketAddr) {
        let is_published = account.as_str() == demo::DEMO;
        let revoke = self.policy == PlaintextCredentials::Revoke && !is_published;
        let (what, revoked) = match client {
            Client::Key(id) => {
                self.metrics.exposed(if is_published { "demo" } else { "key" });
                let revoked = match revoke {
                    true => self.keys.revoke(id).await.map(drop).map_err(Failed::from),
                    false => Ok(()),
                };
                (format!("key {id} of {account}"), revoked)
            }
            Client::Password => {
                self.metrics.exposed("password");
                let revoked = match revoke {
                    true => self.accounts.clear_password(account).await.map(drop).map_err(Failed::from),
                    false => Ok(()),
                };
                (format!("password of {account}"), revoked)
            }
        };
        self.put_in_force().await;
        audit(revoked, revoke, peer, &what);
    }

    /// What was revoked is dead on this node at once. If the store is away now, it is in force as soon as it is back.
    async fn put_in_force(&self) {
        let _ = self.follower.sync().await;
    }
}

/// Why an exposed credential could not be revoked.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// The audit line. It names the credential by its public id, never by itself.
fn audit(revoked: Result<(), Failed>, revoke: bool, peer: SocketAddr, credential: &str) {
    let client = peer.ip();
    match revoked {
        Ok(()) if revoke => tracing::warn!(
            client.address = %client, credential, "EXPOSED: sent over plain HTTP, and revoked"
        ),
        Ok(()) => tracing::warn!(
            client.address = %client, credential, "EXPOSED: sent over plain HTTP; replace it"
        ),
        Err(error) => tracing::error!(
            client.address = %client, credential, error = %error, "EXPOSED: sent over plain HTTP, and could not be revoked"
        ),
    }
}
