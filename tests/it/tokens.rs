//! §6 The token: what is refused although its signature is right, and what survives a restart.

use std::time::Duration;

use aws_lc_rs::hmac;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::client::BOTH;
use crate::forge::{self, Forge, encode, good_claims};
use crate::gateway::TestGateway;

/// A running gateway, and tokens of its own key for it.
struct Bench {
    gateway: TestGateway,
    forge: &'static Forge,
}

impl Bench {
    async fn start() -> Self {
        Self { gateway: TestGateway::start().await, forge: forge::ours() }
    }

    fn claims(&self) -> Value {
        good_claims(self.gateway.now())
    }

    async fn accepts(&self, token: &str) -> bool {
        let mut statuses = Vec::new();
        for http in BOTH {
            statuses.push(self.gateway.get("/whoami").bearer(token).over(http).await.status);
        }
        assert_eq!(statuses[0], statuses[1], "both versions decide alike");
        match statuses[0] {
            200 => true,
            401 => false,
            other => panic!("{other}"),
        }
    }

    async fn refuses_header(&self, what: &str, header: Value) {
        let token = self.forge.token(&header, &self.claims());
        assert!(!self.accepts(&token).await, "{what}: {header}");
    }

    async fn refuses_claims(&self, what: &str, claims: Value) {
        assert!(!self.accepts(&self.forge.with_claims(&claims)).await, "{what}: {claims}");
    }
}

/// Without this, everything below could be refused for a mistake of the forge.
#[tokio::test]
async fn a_forged_token_with_everything_right_is_accepted() {
    let bench = Bench::start().await;
    assert!(bench.accepts(&bench.forge.with_claims(&bench.claims())).await);
    let reordered = format!(r#"{{"kid":"{}","typ":"at+jwt" , "alg":"RS256"}}"#, bench.forge.key.kid());
    assert!(bench.accepts(&bench.forge.sign(&reordered, &bench.claims().to_string())).await, "JSON is JSON");
    let mut more = bench.claims();
    more["auth_time"] = json!(1);
    assert!(bench.accepts(&bench.forge.with_claims(&more)).await, "unknown claims are ignored (RFC 7519 §4)");
}

/// RFC 8725 §3.1: the algorithm is pinned.
#[tokio::test]
async fn no_algorithm_but_rs256_is_accepted() {
    let bench = Bench::start().await;
    let claims = bench.claims();
    let with = |alg: &str| {
        let mut header = bench.forge.header();
        header["alg"] = json!(alg);
        header
    };
    for alg in ["none", "None", "NONE", "", "rs256", "RS384", "RS512", "PS256", "HS256", "ES256", "EdDSA"] {
        bench.refuses_header("another algorithm under our signature", with(alg)).await;
        let unsigned = format!("{}.{}.", encode(with(alg).to_string()), encode(claims.to_string()));
        assert!(!bench.accepts(&unsigned).await, "{alg} without a signature");
        assert!(!bench.accepts(unsigned.trim_end_matches('.')).await, "{alg} in two parts");
    }
    let unsigned = format!("{}.{}.", encode(bench.forge.header().to_string()), encode(claims.to_string()));
    assert!(!bench.accepts(&unsigned).await, "RS256 without a signature");

    // HS256 with the public key, which everyone has, as its secret.
    let public = serde_json::to_value(bench.forge.key.jwk()).expect("a JWK");
    let modulus = public["n"].as_str().expect("a modulus");
    let jwks = bench.gateway.get("/.well-known/jwks.json").await.body;
    for secret in [modulus.as_bytes(), public.to_string().as_bytes(), jwks.as_bytes(), b"".as_slice()] {
        let signed = format!("{}.{}", encode(with("HS256").to_string()), encode(claims.to_string()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        assert!(!bench.accepts(&format!("{signed}.{}", encode(tag))).await);
    }

    // The right key by other algorithms of RSA, with the header that says so and with the one that does not.
    let key = EncodingKey::from_rsa_pem(bench.forge.pem().as_bytes()).expect("a key");
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        for header in [with(&format!("{algorithm:?}")), bench.forge.header()] {
            let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
            let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, algorithm).expect("a signature");
            assert!(!bench.accepts(&format!("{signed}.{signature}")).await, "{algorithm:?} under {header}");
        }
    }
}

/// RFC 9068 §2.1 and RFC 8725 §3.11: an ID token or anything else of another type is none of ours.
#[tokio::test]
async fn the_type_is_required() {
    let bench = Bench::start().await;
    let mut header = bench.forge.header();
    for typ in [json!("JWT"), json!("jwt"), json!("id+jwt"), json!(""), json!(null), json!(1), json!(["at+jwt"])] {
        header["typ"] = typ;
        bench.refuses_header("another type", header.clone()).await;
    }
    header.as_object_mut().expect("members").remove("typ");
    bench.refuses_header("no type", header).await;
}

/// Only keys that we published verify, and only by their `kid`.
#[tokio::test]
async fn the_kid_is_required_and_must_be_ours() {
    let bench = Bench::start().await;
    let mut header = bench.forge.header();
    let own = bench.forge.key.kid();
    let stranger = forge::a_strangers();
    for kid in [
        json!(stranger.key.kid()),
        json!(""),
        json!(null),
        json!(0),
        json!(own.to_lowercase()),
        json!(&own[1..]),
        json!(format!("{own} ")),
        json!("../../etc/passwd"),
        json!("' OR 1=1 --"),
        json!([own]),
    ] {
        header["kid"] = kid;
        bench.refuses_header("another kid", header.clone()).await;
    }
    header.as_object_mut().expect("members").remove("kid");
    bench.refuses_header("no kid", header).await;
    // A stranger's signature under our kid, and under its own.
    assert!(!bench.accepts(&stranger.token(&bench.forge.header(), &bench.claims())).await);
    assert!(!bench.accepts(&stranger.with_claims(&bench.claims())).await);
}

/// RFC 8725 §3.10: what would have us fetch or trust a key, decompress, or understand an extension, is refused.
#[tokio::test]
async fn headers_that_bring_their_own_key_or_ask_for_more_are_refused() {
    let bench = Bench::start().await;
    let stranger = forge::a_strangers();
    let jwk = serde_json::to_value(stranger.key.jwk()).expect("a JWK");
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("jku", json!("https://evil.example/jwks.json")),
        ("jwk", jwk.clone()),
        ("x5u", json!("https://evil.example/x5.pem")),
        ("x5c", json!(["MII"])),
        ("x5t", json!("x")),
        ("x5t#S256", json!("x")),
        ("zip", json!("DEF")),
        ("b64", json!(false)),
        ("cty", json!("JWT")),
        ("enc", json!("A256GCM")),
        ("anything", json!(null)),
    ] {
        let mut header = bench.forge.header();
        header[name] = value;
        bench.refuses_header(name, header.clone()).await;
        let forged = stranger.token(&header, &bench.claims());
        assert!(!bench.accepts(&forged).await, "{name}, signed by a stranger");
    }
    for text in ["", "[]", "null", "\"x\"", "{", "{}", "{\"alg\":\"RS256\"}", "\u{feff}{}"] {
        assert!(!bench.accepts(&bench.forge.sign(text, &bench.claims().to_string())).await, "{text:?}");
    }
}

/// RFC 9068 §2.2: every claim is required, of its type.
#[tokio::test]
async fn a_claim_that_is_missing_or_of_another_type_is_refused() {
    let bench = Bench::start().await;
    for name in ["iss", "aud", "sub", "client_id", "exp", "nbf", "iat", "jti", "scope", "groups"] {
        let mut claims = bench.claims();
        claims.as_object_mut().expect("members").remove(name);
        bench.refuses_claims("missing", claims).await;
        for wrong in [json!(null), json!(true), json!({}), json!([1]), json!("x y"), json!(-1), json!(1.5)] {
            let mut claims = bench.claims();
            claims[name] = wrong;
            bench.refuses_claims(name, claims).await;
        }
    }
    let mut claims = bench.claims();
    claims["exp"] = json!(claims["exp"].to_string());
    bench.refuses_claims("a time in quotes", claims).await;
    for text in ["", "[]", "null", "1", "\"x\"", "{", "{}"] {
        assert!(!bench.accepts(&bench.forge.sign(&bench.forge.header().to_string(), text)).await, "{text:?}");
    }
}

/// §6: issuer and audience are ours, to the letter; subject, client, id and groups are of our form.
#[tokio::test]
async fn a_claim_that_is_not_ours_is_refused() {
    let bench = Bench::start().await;
    for (name, wrong) in [
        ("iss", json!("https://localhost:8443/")),
        ("iss", json!("https://evil.example")),
        ("iss", json!("")),
        ("aud", json!("https://localhost:8443/")),
        ("aud", json!("https://evil.example")),
        ("aud", json!(["https://evil.example"])),
        ("sub", json!("")),
        ("sub", json!("a:b")),
        ("client_id", json!("kb_short")),
        ("client_id", json!("someone-else")),
        ("jti", json!("")),
        ("jti", json!("short")),
        ("scope", json!("sample")),
        ("scope", json!("sample demo")),
        ("scope", json!("demo sample other")),
        ("groups", json!([])),
        ("groups", json!(["demo", "Sample"])),
        ("groups", json!(["demo", "sample", "other"])),
    ] {
        let mut claims = bench.claims();
        claims[name] = wrong;
        bench.refuses_claims(name, claims).await;
    }
}

/// RFC 7519 §4.1.4: expired at `exp`; §4.1.5: not before `nbf`. No leeway by default.
#[tokio::test]
async fn times_are_kept_to_the_second() {
    let bench = Bench::start().await;
    let now = bench.gateway.now().secs();
    let at = |iat: u64, nbf: u64, exp: u64| {
        let mut claims = bench.claims();
        (claims["iat"], claims["nbf"], claims["exp"]) = (json!(iat), json!(nbf), json!(exp));
        bench.forge.with_claims(&claims)
    };
    assert!(!bench.accepts(&at(now - 10, now - 10, now)).await, "it is over at exp");
    assert!(bench.accepts(&at(now - 10, now - 10, now + 1)).await);
    assert!(!bench.accepts(&at(now - 10, now - 10, now - 1)).await);
    assert!(!bench.accepts(&at(now, now + 1, now + 10)).await, "nbf lies ahead");
    assert!(bench.accepts(&at(now, now, now + 10)).await);
    assert!(!bench.accepts(&at(now + 20, now, now + 10)).await, "issued after it is over");
    let far = at(now, now, u64::from(u32::MAX) + 1000);
    let huge = at(now, now, u64::MAX);
    let later = at(now, now + 1, now + 10);
    bench.gateway.advance(Duration::from_secs(1));
    assert!(bench.accepts(&later).await, "its time has come");
    // Whatever is said of times far away, nothing breaks.
    for token in [far, huge, at(0, 0, 0), at(u64::MAX, u64::MAX, u64::MAX)] {
        let _ = bench.accepts(&token).await;
    }
}

/// §6: over 8 KiB is refused before it is looked at.
#[tokio::test]
async fn a_token_over_8_kib_is_refused() {
    let bench = Bench::start().await;
    let sized = |groups: usize| {
        let mut claims = bench.claims();
        let groups: Vec<String> = (0..groups).map(|n| format!("group-{n:04}")).collect();
        (claims["scope"], claims["groups"]) = (json!(groups.join(" ")), json!(groups));
        bench.forge.with_claims(&claims)
    };
    let most = (1..).take_while(|groups| sized(*groups).len() <= 8192).last().expect("one fits");
    let (fits, over) = (sized(most), sized(most + 1));
    assert!(fits.len() > 8100 && over.len() > 8192);
    assert!(bench.accepts(&fits).await);
    assert!(!bench.accepts(&over).await);
}

/// One token has one spelling, so that a revocation or a digest of it covers it (RFC 7515 §2).
#[tokio::test]
async fn another_spelling_of_the_same_token_is_refused() {
    let bench = Bench::start().await;
    let key = bench.gateway.acme().await;
    let token = bench.gateway.token(&key).await;
    let [header, claims, signature]: [&str; 3] = token.split('.').collect::<Vec<_>>().try_into().expect("three parts");
    let loose = |part: &str| -> Vec<String> {
        // The last character of a part may have bits that mean nothing; each other value of them is another spelling.
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits = match part.len() % 4 {
            2 => 4,
            3 => 2,
            _ => 0,
        };
        let (rest, last) = part.split_at(part.len() - 1);
        let value = ALPHABET.iter().position(|c| *c == last.as_bytes()[0]).expect("base64url");
        (1..1 << bits).map(|other| format!("{rest}{}", char::from(ALPHABET[value ^ other]))).collect()
    };
    let mut others: Vec<String> = Vec::new();
    others.extend(loose(header).iter().map(|header| format!("{header}.{claims}.{signature}")));
    others.extend(loose(claims).iter().map(|claims| format!("{header}.{claims}.{signature}")));
    let of_signature = loose(signature);
    assert_eq!(of_signature.len(), 15, "256 bytes leave four loose bits");
    others.extend(of_signature.iter().map(|signature| format!("{header}.{claims}.{signature}")));
    for padding in ["=", "==", "%3D"] {
        others.push(format!("{token}{padding}"));
        others.push(format!("{header}{padding}.{claims}.{signature}"));
        others.push(format!("{header}.{claims}{padding}.{signature}"));
    }
    others.push(token.replace('-', "+").replace('_', "/"));
    for part in [".", ".x", "..", &format!(".{signature}")] {
        others.push(format!("{token}{part}"));
        others.push(format!("{part}{token}"));
    }
    others.push(format!("{header}.{claims}"));
    others.push(format!("{header}..{claims}.{signature}"));
    for blank in [" ", "\t"] {
        others.push(format!("{header}.{blank}{claims}.{signature}"));
        others.push(format!("{header}.{claims}.{}{blank}{}", &signature[..9], &signature[9..]));
    }
    others.push(format!("{token},{token}"));
    others.push(format!("\"{token}\""));
    for other in others.iter().filter(|other| **other != token) {
        assert!(!bench.accepts(other).await, "{other}");
    }
    assert!(bench.accepts(&token).await);
}

/// RFC 8259 §4: of two members of one name two readers take different ones, so it is refused.
#[tokio::test]
async fn two_members_of_one_name_are_refused() {
    let bench = Bench::start().await;
    let (header, claims) = (bench.forge.header().to_string(), bench.claims());
    let twice = |text: &str, name: &str, value: &Value| format!("{{\"{name}\":{value},{}", &text[1..]);
    for name in ["alg", "typ", "kid"] {
        let doubled = twice(&header, name, &bench.forge.header()[name]);
        assert!(!bench.accepts(&bench.forge.sign(&doubled, &claims.to_string())).await, "{name}");
    }
    for name in ["iss", "aud", "sub", "client_id", "exp", "nbf", "iat", "jti", "scope", "groups"] {
        let doubled = twice(&claims.to_string(), name, &claims[name]);
        assert!(!bench.accepts(&bench.forge.sign(&header, &doubled)).await, "{name}");
    }
}

/// A good token with one character changed, added or taken away anywhere is not a good token.
#[test]
fn a_token_changed_anywhere_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = runtime.block_on(Bench::start());
    let token = runtime.block_on(async { bench.gateway.token(&bench.gateway.acme().await).await });
    let change = (any::<Index>(), 0..3, "[!-~]");
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&change, |(index, kind, with)| {
        let at = index.index(token.len());
        let (before, after) = token.split_at(at);
        let changed = match kind {
            0 => format!("{before}{with}{}", &after[1..]),
            1 => format!("{before}{with}{after}"),
            _ => format!("{before}{}", &after[1..]),
        };
        prop_assume!(changed != token);
        let accepted = runtime.block_on(bench.gateway.get("/whoami").bearer(&changed).into_future()).status == 200;
        prop_assert!(!accepted);
        Ok(())
    });
    result.expect("no change is accepted");
    assert!(runtime.block_on(bench.accepts(&token)), "and the token itself is");
}

/// RFC 7515 appendix A.2: our RS256 is everyone's, and everyone's token is not ours.
#[tokio::test]
async fn the_example_of_rfc_7515_verifies_and_is_not_ours() {
    const SIGNED: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    const MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let jwk: Jwk = serde_json::from_value(json!({"kty": "RSA", "n": MODULUS, "e": "AQAB"})).expect("a JWK");
    let public = DecodingKey::from_jwk(&jwk).expect("a key");
    let verify = |text: &str| jsonwebtoken::crypto::verify(SIGNATURE, text.as_bytes(), &public, Algorithm::RS256);
    assert!(verify(SIGNED).expect("a verdict"));
    assert!(!verify(&SIGNED.replace("eyJpc3M", "eyJpc3N")).expect("a verdict"));
    let bench = Bench::start().await;
    assert!(!bench.accepts(&format!("{SIGNED}.{SIGNATURE}")).await);
}
