//! Signing keys through their whole life, with gateways that run and time that is advanced.

use std::collections::BTreeSet;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use keybearer::clock::Timestamp;
use keybearer::signing::{Algorithm, JWKS_MAX_AGE, Operations, PrivateKey, Settings};
use serde_json::{Value, json};

use crate::forge::{claims, encode, good_claims};
use crate::gateway::{Builder, TestGateway};
use crate::published::{jwks, kid_of, kids, settle};

const HOUR: Duration = Duration::from_secs(3600);
const TWENTY_MINUTES: Duration = Duration::from_secs(1200);

fn settings() -> Settings {
    Settings { algorithm: Algorithm::Es256, rotate_every: 3 * HOUR, publish_ahead: HOUR, ..Settings::default() }
}

fn build() -> Builder {
    TestGateway::build().with(|config| {
        config.signing = settings();
        // Its tokens live for a day, and keys stay as long.
        config.demo.enabled = false;
    })
}

/// A verifier of another make.
fn verify(set: &JwkSet, jwt: &str) {
    let jwk = set.find(&kid_of(jwt)).expect("a known kid");
    let mut validation = Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&["https://localhost:8443"]);
    // By the gateways' clock.
    validation.validate_exp = false;
    let key = DecodingKey::from_jwk(jwk).expect("a key");
    jsonwebtoken::decode::<Value>(jwt, &key, &validation).expect("a good token");
}

/// Two gateways on one database, ten rotations by themselves, tokens of either at the other all along, and a verifier that
/// fetches the JWK Set every 20 minutes, in turn from both.
#[tokio::test]
async fn ten_rotations_on_two_gateways_and_every_token_verifies_everywhere() {
    let one = build().sqlite().start().await;
    let two = build().beside(&one).await.start().await;
    let both = [&one, &two];
    let key = one.acme().await;
    let mut known = settle(&both).await;
    let mut live: Vec<(u64, String)> = Vec::new();
    let mut signers: Vec<String> = Vec::new();
    for step in 0.. {
        one.advance(TWENTY_MINUTES);
        settle(&both).await;
        let now = one.now().secs();
        live.retain(|(expires, _)| now < *expires);
        let token = both[step % 2].token(&key).await;
        live.push((claims(&token)["exp"].as_u64().expect("a time"), token.clone()));
        let kid = kid_of(&token);
        if signers.last() != Some(&kid) {
            assert!(!signers.contains(&kid), "a key signs once in its life");
            signers.push(kid);
        }
        for (_, token) in &live {
            // With what it fetched 20 minutes ago, which it is about to fetch anew.
            verify(&known, token);
            assert_eq!(both[(step + 1) % 2].get("/whoami").bearer(token).await.status, 200);
        }
        known = jwks(both[step / 2 % 2]).await;
        assert!(known.keys.len() <= 3, "what retires goes");
        if signers.len() == 11 {
            assert!((88..=92).contains(&step), "{step}: ten times three hours, and never twice");
            break;
        }
    }
    one.advance(HOUR + JWKS_MAX_AGE);
    assert!(settle(&both).await.keys.len() <= 2);
}

/// After an emergency nothing of before is good, on any gateway: not a token that was issued, and not one that a thief made
/// with the private key and had verified here before, whatever time of issue he wrote into it.
#[tokio::test]
async fn an_emergency_ends_what_was_issued_and_what_was_forged() {
    let one = build().sqlite().start().await;
    let two = build().beside(&one).await.start().await;
    let both = [&one, &two];
    let key = one.acme().await;
    settle(&both).await;
    let issued = one.token(&key).await;
    let stolen = one.store.signing_keys().await.expect("a read").remove(0);
    let stolen = PrivateKey::from_pkcs8(stolen.private.expose()).expect("a key");
    let forge = |iat: Timestamp| {
        let mut claims = good_claims(one.now());
        (claims["iat"], claims["exp"]) = (json!(iat.secs()), json!(one.now().secs() + 30 * 24 * 3600));
        let text = format!("{}.{}", stolen.encoded_header(), encode(claims.to_string()));
        format!("{text}.{}", encode(stolen.sign(text.as_bytes()).expect("a signature")))
    };
    let forged = [forge(one.now()), forge(one.now() + Duration::from_secs(30))];
    let too_far = forge(one.now() + HOUR);
    for gateway in both {
        for token in [&issued, &forged[0], &forged[1]] {
            assert_eq!(gateway.get("/whoami").bearer(token).await.status, 200);
        }
        gateway.get("/whoami").bearer(&too_far).await.assert_invalid_token();
    }

    let store = std::sync::Arc::new(one.other_process().await);
    let clock = std::sync::Arc::new(keybearer::clock::ManualClock::new(one.now()));
    let operations = Operations::new(store, &settings(), HOUR, clock);
    let kid = operations.emergency().await.expect("done");
    for gateway in both {
        gateway.sync().await;
        assert_eq!(kids(&jwks(gateway).await), BTreeSet::from([kid.clone()]));
        for token in [&issued, &forged[0], &forged[1]] {
            gateway.get("/whoami").bearer(token).await.assert_invalid_token();
        }
    }
    let fresh = one.token(&key).await;
    for gateway in both {
        assert_eq!(gateway.get("/whoami").bearer(&fresh).await.status, 200, "keys go on working");
    }
}
