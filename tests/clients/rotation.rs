//! Verifiers in scripts, through the rotations of an afternoon that takes a second. The time of day in a script is the
//! gateway's, so each library keeps the key set for as long as it would.

use std::collections::BTreeSet;
use std::time::Duration;

use keybearer::signing::{Algorithm, Settings};
use serde_json::json;

use crate::forge::claims;
use crate::published::{kid_of, kids, settle};
use crate::scene::Scene;
use crate::script::Script;

const MINUTE: Duration = Duration::from_secs(60);

/// Every library keeps the key set for at least four of them.
const STEP: Duration = Duration::from_secs(70);

/// Seconds by which jwcrypto allows a clock to be wrong.
const LEEWAY: u64 = 60;

/// So many that the second rotation is over, and the key before the first one is gone.
const STEPS: usize = 160;

/// A token, and what is to be known of it.
struct Issued {
    text: String,
    kid: String,
    /// Unix time.
    expires: u64,
    /// It with another signature.
    forged: String,
}

impl Issued {
    fn new(text: String) -> Self {
        let expires = claims(&text)["exp"].as_u64().expect("a time");
        let (signed, signature) = text.rsplit_once('.').expect("a signature");
        // Its first byte is another.
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("{signed}.{first}{}", &signature[1..]);
        Self { kid: kid_of(&text), expires, forged, text }
    }
}

async fn play(script: &str, algorithm: Algorithm) {
    let scene = Scene::start(|config| {
        let (rotate_every, publish_ahead) = (90 * MINUTE, 60 * MINUTE);
        config.signing = Settings { algorithm, rotate_every, publish_ahead, ..Settings::default() };
    })
    .await;
    let test = json!({
        "jwks_uri": format!("{}/.well-known/jwks.json", scene.url),
        "issuer": scene.url, "audience": scene.url, "algorithm": algorithm.as_str(),
    });
    let Some(mut script) = Script::start(script, &scene.gateway, &test) else { return };
    let mut tokens: Vec<Issued> = Vec::new();
    let mut signers: Vec<String> = Vec::new();
    let (mut met_unfetched, mut is_gone) = (false, false);
    for step in 0..STEPS {
        scene.gateway.advance(STEP);
        let published = kids(&settle(&[&scene.gateway]).await);
        tokens.push(Issued::new(scene.token().await));
        let now = scene.gateway.now().secs();
        let alive: Vec<&Issued> = tokens.iter().filter(|token| now < token.expires).collect();
        let expired = tokens.iter().rfind(|token| token.expires + LEEWAY <= now);
        let newest = alive.last().expect("the one that was just issued");
        // It, and the oldest of each key.
        let oldest = signers.iter().filter_map(|kid| alive.iter().find(|token| token.kid == *kid));
        let good: Vec<&String> = oldest.chain([newest]).map(|token| &token.text).collect();
        let mut bad: Vec<&String> = expired.map(|token| &token.text).into_iter().chain([&newest.forged]).collect();
        // All that is bad takes its time, and the keys are the same for many steps.
        let worse = if step % 20 == 0 { scene.bad().await } else { vec![] };
        bad.extend(worse.iter().map(|(_, token)| token));
        let said = script.ask(&json!({"now": now, "good": good, "bad": bad})).await;
        if signers.last() != Some(&newest.kid) {
            met_unfetched |= !signers.is_empty() && said["kept"] == true;
            signers.push(newest.kid.clone());
        }
        is_gone |= !published.contains(&signers[0]);
    }
    assert!(script.end().await.is_empty());
    assert_eq!(signers.iter().collect::<BTreeSet<_>>().len(), 3, "two rotations: {signers:?}");
    assert!(is_gone, "the first key is gone");
    assert!(met_unfetched, "a new key was met with the key set of before");
}

macro_rules! plays {
    ($($name:ident: $script:literal, $algorithm:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            play($script, Algorithm::$algorithm).await;
        }
    )*};
}

plays! {
    jose_verifies_rs256_through_rotations: "jose.mjs", Rs256;
    jose_verifies_es256_through_rotations: "jose.mjs", Es256;
    jose_verifies_eddsa_through_rotations: "jose.mjs", EdDsa;
    pyjwt_verifies_rs256_through_rotations: "pyjwt_verifier.py", Rs256;
    pyjwt_verifies_es256_through_rotations: "pyjwt_verifier.py", Es256;
    pyjwt_verifies_eddsa_through_rotations: "pyjwt_verifier.py", EdDsa;
    jwcrypto_verifies_rs256_through_rotations: "jwcrypto_verifier.py", Rs256;
    jwcrypto_verifies_es256_through_rotations: "jwcrypto_verifier.py", Es256;
    jwcrypto_verifies_eddsa_through_rotations: "jwcrypto_verifier.py", EdDsa;
    joserfc_verifies_rs256_through_rotations: "joserfc_verifier.py", Rs256;
    joserfc_verifies_es256_through_rotations: "joserfc_verifier.py", Es256;
    joserfc_verifies_eddsa_through_rotations: "joserfc_verifier.py", EdDsa;
}
