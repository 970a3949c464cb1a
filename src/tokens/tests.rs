//! Issuing and verifying by every algorithm, held against a second implementation: the two must never disagree towards
//! acceptance.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::ids::{Groups, KeyId};
use crate::keys::KeyPrefix;
use crate::persist::{Cut, Update};
use crate::revocations::Cutoff;
use crate::secret::Secret;
use crate::signing::{self, Algorithm, KeyRing, PrivateKey, SigningKey, SigningKeyStore, SigningState};
use crate::store::MemoryStore;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A ring that publishes one key of each algorithm, and the keys themselves.
struct World {
    keys: [PrivateKey; 3],
    /// One ring for each active key.
    rings: [Arc<KeyRing>; 3],
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let keys = Algorithm::ALL.map(|algorithm| PrivateKey::generate(algorithm, 2048).expect("a key"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let rings = [0, 1, 2].map(|active| {
        let record = |(index, key): (usize, &PrivateKey)| SigningKey {
            kid: key.kid().to_owned(),
            algorithm: key.algorithm().to_string(),
            private: key.to_pkcs8().expect("PKCS#8"),
            sealed_by: None,
            state: if index == active { SigningState::Active } else { SigningState::Retiring },
            created_at: NOW,
            activates_at: NOW,
            longest_token: Duration::from_secs(3600),
            gone_at: None,
        };
        let records: Vec<SigningKey> = keys.iter().enumerate().map(record).collect();
        let ring = async {
            let store = Arc::new(MemoryStore::new());
            store.update_signing_keys(&|_| Update::Write(records.clone(), Cut::No)).await.expect("stored");
            let clock = Arc::new(ManualClock::new(NOW));
            KeyRing::load(&signing::Settings::default(), Duration::from_secs(3600), store, clock).await
        };
        Arc::new(runtime.block_on(ring).expect("a ring"))
    });
    World { keys, rings }
});

fn grant() -> Grant {
    Grant {
        account: "acme".parse().expect("a name"),
        client: Client::Key("0123456789ab".parse::<KeyId>().expect("an id")),
        groups: ["orders", "reports"].map(|group| group.parse().expect("a group")).into(),
        not_after: None,
        longest: None,
        known_at: NOW,
        cutoff: Cutoff(0),
        terms: Terms::default(),
    }
}

fn issue_by(active: usize, settings: &Settings, grant: &Grant) -> Result<Option<Issued>, signing::Error> {
    Issuer::new(settings, &KeyPrefix::default(), Arc::clone(&WORLD.rings[active])).issue(grant, NOW)
}

fn issued(active: usize) -> String {
    let issued = issue_by(active, &Settings::default(), &grant()).expect("signed").expect("live");
    issued.jwt.expose().clone()
}

fn verifier() -> Verifier {
    Verifier::new(&Settings::default(), Arc::clone(&WORLD.rings[0]))
}

fn verdict(jwt: &str) -> Result<Token, Invalid> {
    verifier().verify(jwt.as_bytes(), NOW)
}

fn part(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs these texts as they are.
fn sign(key: &PrivateKey, header: &str, claims: &str) -> String {
    let text = format!("{}.{}", part(header), part(claims));
    let signature = key.sign(text.as_bytes()).expect("a signature");
    format!("{text}.{}", part(signature))
}

fn header(key: &PrivateKey) -> Value {
    json!({"alg": key.algorithm().as_str(), "typ": "at+jwt", "kid": key.kid()})
}

fn claims_of(jwt: &str) -> Value {
    let claims = jwt.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64url")).expect("JSON")
}

/// The second implementation: base64url, header, signature and claims by other means than the first, and nothing that it
/// does not understand.
mod second {
    use super::*;

    /// RFC 4648 §5, without padding, and with no other spelling of the last character than the one with zero bits.
    fn base64url(text: &str) -> Option<Vec<u8>> {
        const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let (mut bits, mut held, mut out) = (0u32, 0, Vec::new());
        for character in text.chars() {
            bits = (bits << 6) | u32::try_from(ALPHABET.find(character)?).ok()?;
            held += 6;
            if held >= 8 {
                held -= 8;
                out.push(u8::try_from((bits >> held) & 0xff).ok()?);
                bits &= (1 << held) - 1;
            }
        }
        (held < 6 && bits == 0).then_some(out)
    }

    fn is_signed(jwk: &Value, alg: &str, text: &[u8], signature: &[u8]) -> bool {
        let number = |name: &str| base64url(jwk[name].as_str().unwrap_or_default()).unwrap_or_default();
        match (jwk["kty"].as_str(), alg) {
            (Some("RSA"), "RS256") => PublicKeyComponents { n: number("n"), e: number("e") }
                .verify(&RSA_PKCS1_2048_8192_SHA256, text, signature)
                .is_ok(),
            (Some("EC"), "ES256") => {
                let point = [&[4][..], &number("x"), &number("y")].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(text, signature).is_ok()
            }
            (Some("OKP"), "EdDSA") => UnparsedPublicKey::new(&ED25519, number("x")).verify(text, signature).is_ok(),
            _ => false,
        }
    }

    /// The claims of a good token.
    pub(super) fn verify(jwt: &[u8]) -> Option<Value> {
        let jwt = std::str::from_utf8(jwt).ok().filter(|jwt| jwt.len() <= 8192)?;
        let [header, claims, signature] = jwt.split('.').collect::<Vec<_>>().try_into().ok()?;
        let read: Value = serde_json::from_slice(&base64url(header)?).ok()?;
        let text = |name: &str| read[name].as_str();
        let names: Vec<&str> = read.as_object()?.keys().map(String::as_str).collect();
        if names != ["alg", "kid", "typ"] || text("typ") != Some("at+jwt") {
            return None;
        }
        let set: Value = serde_json::from_slice(&WORLD.rings[1].jwks()).ok()?;
        let jwk = set["keys"].as_array()?.iter().find(|jwk| jwk["kid"].as_str() == text("kid"))?;
        let alg = text("alg").filter(|alg| jwk["alg"] == *alg)?;
        let signed = &jwt.as_bytes()[..header.len() + 1 + claims.len()];
        if !is_signed(jwk, alg, signed, &base64url(signature)?) {
            return None;
        }
        let claims: Value = serde_json::from_slice(&base64url(claims)?).ok()?;
        let now = NOW.secs();
        let time = |name: &str| claims[name].as_u64();
        let ours = "https://localhost:8443";
        let audience = match &claims["aud"] {
            Value::Array(all) => all.iter().all(Value::is_string) && all.contains(&json!(ours)),
            one => *one == json!(ours),
        };
        let texts = ["sub", "client_id", "jti", "scope"].iter().all(|name| claims[name].is_string());
        let timely = time("nbf")? <= now && now < time("exp")? && time("iat")? < time("exp")?;
        let scope: Vec<&str> = claims["scope"].as_str()?.split(' ').filter(|word| !word.is_empty()).collect();
        let groups: Vec<&str> = claims["groups"].as_array()?.iter().filter_map(Value::as_str).collect();
        (claims["iss"] == ours && audience && texts && timely && scope == groups).then_some(claims)
    }
}

/// Holds both against each other; whether ours accepted.
fn agree(jwt: &[u8]) -> Result<bool, TestCaseError> {
    match verifier().verify(jwt, NOW) {
        Ok(token) => {
            let Some(claims) = second::verify(jwt) else {
                return Err(TestCaseError::fail(format!("accepted alone: {}", String::from_utf8_lossy(jwt))));
            };
            prop_assert_eq!(claims["sub"].as_str(), Some(token.account.as_str()));
            prop_assert_eq!(&claims["jti"], &json!(token.id.to_string()));
            prop_assert_eq!(claims["exp"].as_u64(), Some(token.expires_at));
            prop_assert_eq!(claims["groups"].as_array().map(Vec::len), Some(token.groups.len()));
            Ok(true)
        }
        Err(_) => Ok(false),
    }
}

#[test]
fn both_accept_what_is_issued_by_every_algorithm() {
    for active in 0..3 {
        let jwt = issued(active);
        assert!(agree(jwt.as_bytes()).expect("agreement"), "{jwt}");
        assert_eq!(claims_of(&jwt)["aud"], "https://localhost:8443", "one audience is a string");
        println!("{}: {} bytes", Algorithm::ALL[active], jwt.len());
    }
}

/// RFC 8725 §3.1: a `kid` is for one algorithm, whatever the header says and whoever signed.
#[test]
fn each_kid_is_pinned_to_its_algorithm() {
    let claims = claims_of(&issued(0)).to_string();
    for signer in &WORLD.keys {
        for named in &WORLD.keys {
            for alg in ["RS256", "ES256", "EdDSA", "Ed25519", "ES384", "PS256", "HS256", "none"] {
                let mut header = header(named);
                header["alg"] = json!(alg);
                let jwt = sign(signer, &header.to_string(), &claims);
                let good = signer.kid() == named.kid() && alg == named.algorithm().as_str();
                assert_eq!(verdict(&jwt).is_ok(), good, "signed by {} under {header}", signer.algorithm());
                assert_eq!(second::verify(jwt.as_bytes()).is_some(), good);
            }
        }
    }
}

/// An ECDSA signature has a second form that verifies; a token has one spelling.
#[test]
fn the_other_form_of_an_es256_signature_is_refused() {
    const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let jwt = issued(1);
    let (text, signature) = jwt.rsplit_once('.').expect("a signature");
    let mut signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    // n − s, from the last digit on.
    let mut borrow = 0;
    for at in (0..32).rev() {
        let of_n = i32::from_str_radix(&N[2 * at..2 * at + 2], 16).expect("hexadecimal");
        let digit = of_n - i32::from(signature[32 + at]) - borrow;
        borrow = i32::from(digit < 0);
        signature[32 + at] = u8::try_from(digit.rem_euclid(256)).expect("a byte");
    }
    let other = format!("{text}.{}", part(signature));
    assert!(second::verify(other.as_bytes()).is_some(), "it is a good signature");
    assert_eq!(verdict(&other), Err(Invalid::Signature));
    assert!(verdict(&jwt).is_ok());
}

#[test]
fn an_issue_time_far_ahead_is_refused() {
    let with = |iat: u64| {
        let mut claims = claims_of(&issued(2));
        claims["iat"] = json!(iat);
        verdict(&sign(&WORLD.keys[2], &header(&WORLD.keys[2]).to_string(), &claims.to_string()))
    };
    assert!(with(NOW.secs() + 60).is_ok(), "as after many revocations in one second");
    assert_eq!(with(NOW.secs() + 61), Err(Invalid::NotYetValid), "it would escape the next revocation");
}

#[test]
fn a_token_may_be_for_several_audiences() {
    let [a, b] = ["https://a.example", "https://b.example"].map(str::to_owned);
    let settings = |audience: &[&String]| Settings {
        audience: audience.iter().map(|item| (*item).clone()).collect(),
        ..Settings::default()
    };
    let jwt = issue_by(2, &settings(&[&a, &b]), &grant()).expect("signed").expect("live").jwt;
    assert_eq!(claims_of(jwt.expose())["aud"], json!([a, b]));
    let accepts = |audience: &[&String], jwt: &Secret<String>| {
        Verifier::new(&settings(audience), Arc::clone(&WORLD.rings[0])).verify(jwt.expose().as_bytes(), NOW).is_ok()
    };
    assert!(accepts(&[&a], &jwt) && accepts(&[&b], &jwt) && accepts(&[&b, &a], &jwt));
    assert!(!accepts(&[&"https://c.example".to_owned()], &jwt));
    let one = issue_by(2, &settings(&[&a]), &grant()).expect("signed").expect("live").jwt;
    assert!(accepts(&[&a, &b], &one) && !accepts(&[&b], &one));
}

#[test]
fn static_claims_are_those_of_account_and_groups() {
    let claim = |holder, name: &str, value| StaticClaim { holder, name: name.into(), value };
    let group = |name: &str| Holder::Group(name.parse().expect("a group"));
    let account = |name: &str| Holder::Account(name.parse().expect("an account"));
    let settings = Settings {
        claims: vec![
            claim(group("orders"), "https://example.com/tier", ClaimValue::Text("si\"lver\u{1}".into())),
            claim(group("reports"), "https://example.com/tier", ClaimValue::Text("bronze".into())),
            claim(group("reports"), "example.com/pages", ClaimValue::Integer(-9_007_199_254_740_991)),
            claim(group("else"), "example.com/else", ClaimValue::Boolean(true)),
            claim(account("bob"), "example.com/bob", ClaimValue::Boolean(true)),
            claim(account("acme"), "example.com/beta", ClaimValue::Boolean(false)),
        ],
        ..Settings::default()
    };
    let said = |settings: &Settings| {
        let jwt = issue_by(2, settings, &grant()).expect("signed").expect("live").jwt;
        assert!(verdict(jwt.expose()).is_ok());
        claims_of(jwt.expose()).as_object().expect("members").clone()
    };
    let claims = said(&settings);
    assert_eq!(claims["https://example.com/tier"], "si\"lver\u{1}", "the first of two groups");
    assert_eq!(claims["example.com/pages"], -9_007_199_254_740_991_i64);
    assert_eq!(claims["example.com/beta"], false);
    assert_eq!(claims.len(), 13);
    let mut over = settings.clone();
    over.claims.push(claim(account("acme"), "https://example.com/tier", ClaimValue::Text("gold".into())));
    assert_eq!(said(&over)["https://example.com/tier"], "gold", "an account's goes over its groups'");
    assert!(most_bytes(&settings.claims) > 100);
}

#[test]
fn a_token_that_nobody_would_accept_is_not_issued() {
    let groups: Groups = (0..400).map(|n| format!("group-{n:04}").parse().expect("a group")).collect();
    let grant = Grant { groups, ..grant() };
    assert!(matches!(issue_by(2, &Settings::default(), &grant), Err(signing::Error::TooLarge { .. })));
}

/// How a token is spoilt.
#[derive(Debug, Clone)]
enum Spoil {
    Replace(Index, char),
    Insert(Index, char),
    Remove(Index),
    Bit(Index, u8),
    Cut(Index),
    Header(&'static str, Value),
    Claim(&'static str, Value),
    Graft(usize, usize),
    Repeat(usize),
}

fn value() -> impl Strategy<Value = Value> {
    let now = NOW.secs();
    prop_oneof![
        Just(json!(null)),
        Just(json!([])),
        Just(json!({})),
        Just(json!("https://localhost:8443")),
        Just(json!(["https://localhost:8443", "x"])),
        Just(json!("RS256")),
        Just(json!("ES256")),
        Just(json!("EdDSA")),
        Just(json!("none")),
        Just(json!("at+jwt")),
        Just(json!(WORLD.keys[1].kid())),
        Just(json!(["orders"])),
        Just(json!("orders reports")),
        (now - 3..now + 3).prop_map(|at| json!(at)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,12}".prop_map(|text| json!(text)),
    ]
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let character = || prop_oneof![proptest::char::range('!', '~'), any::<char>()];
    let of_header = prop::sample::select(vec!["alg", "typ", "kid", "crit", "jwk", "zip", "b64"]);
    let names =
        vec!["iss", "aud", "sub", "client_id", "iat", "nbf", "exp", "jti", "scope", "groups", "x.y/z", "auth_time"];
    prop_oneof![
        (any::<Index>(), character()).prop_map(|(at, with)| Spoil::Replace(at, with)),
        (any::<Index>(), character()).prop_map(|(at, with)| Spoil::Insert(at, with)),
        any::<Index>().prop_map(Spoil::Remove),
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Spoil::Bit(at, bit)),
        any::<Index>().prop_map(Spoil::Cut),
        (of_header, value()).prop_map(|(name, value)| Spoil::Header(name, value)),
        (prop::sample::select(names), value()).prop_map(|(name, value)| Spoil::Claim(name, value)),
        (0..3usize, 0..3usize).prop_map(|(token, at)| Spoil::Graft(token, at)),
        (0..3usize).prop_map(Spoil::Repeat),
    ]
}

impl Spoil {
    /// Spoils a token; what changes its content is signed anew, by its own key.
    fn apply(&self, jwt: &[u8], key: &PrivateKey) -> Vec<u8> {
        let mut bytes = jwt.to_vec();
        let text = String::from_utf8_lossy(jwt).into_owned();
        let mut parts: Vec<String> = text.split('.').map(str::to_owned).collect();
        let edited = |at: usize, name: &str, value: &Value| -> Option<Vec<u8>> {
            let mut read: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.get(at)?).ok()?).ok()?;
            read.as_object_mut()?.insert(name.to_owned(), value.clone());
            let other = String::from_utf8(URL_SAFE_NO_PAD.decode(parts.get(1 - at)?).ok()?).ok()?;
            let pair = if at == 0 { (read.to_string(), other) } else { (other, read.to_string()) };
            Some(sign(key, &pair.0, &pair.1).into_bytes())
        };
        let put = |bytes: &mut Vec<u8>, at: usize, with: char, over: usize| {
            let mut buffer = [0; 4];
            bytes.splice(at..(at + over).min(bytes.len()), with.encode_utf8(&mut buffer).bytes());
        };
        match self {
            Self::Replace(at, with) if !bytes.is_empty() => put(&mut bytes, at.index(jwt.len()), *with, 1),
            Self::Insert(at, with) => put(&mut bytes, at.index(jwt.len() + 1), *with, 0),
            Self::Remove(at) if !bytes.is_empty() => drop(bytes.remove(at.index(jwt.len()))),
            Self::Bit(at, bit) if !bytes.is_empty() => bytes[at.index(jwt.len())] ^= 1 << bit,
            Self::Cut(at) => bytes.truncate(at.index(jwt.len() + 1)),
            Self::Header(name, value) => bytes = edited(0, name, value).unwrap_or(bytes),
            Self::Claim(name, value) => bytes = edited(1, name, value).unwrap_or(bytes),
            Self::Graft(token, at) if *at < parts.len() => {
                parts[*at] = issued(*token).split('.').nth(*at).unwrap_or_default().to_owned();
                bytes = parts.join(".").into_bytes();
            }
            Self::Repeat(at) if *at < parts.len() => {
                parts.insert(*at, parts[*at].clone());
                bytes = parts.join(".").into_bytes();
            }
            _ => {}
        }
        bytes
    }
}

fn many() -> ProptestConfig {
    ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(many())]

    #[test]
    fn spoilt_tokens_are_never_accepted_by_ours_alone(
        active in 0..3usize,
        spoils in prop::collection::vec(spoil(), 1..4),
    ) {
        let mut jwt = issued(active).into_bytes();
        for spoil in &spoils {
            jwt = spoil.apply(&jwt, &WORLD.keys[active]);
        }
        agree(&jwt)?;
    }

    #[test]
    fn no_bytes_make_the_parser_panic_and_none_are_a_token(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!agree(&bytes)?);
    }

    #[test]
    fn no_signed_json_makes_it_panic(
        active in 0..3usize,
        parts in prop::collection::vec("[ -~]{0,40}|\\{(\"(alg|typ|kid|exp|aud)\":(\"[a-zA-Z0-9+]{0,8}\"|[0-9eE+.-]{1,22}|\\[\\]|null),?){0,6}\\}", 2),
    ) {
        prop_assert!(!agree(sign(&WORLD.keys[active], &parts[0], &parts[1]).as_bytes())?);
        // A good header, so that the claims are reached.
        let header = header(&WORLD.keys[active]).to_string();
        prop_assert!(!agree(sign(&WORLD.keys[active], &header, &parts[1]).as_bytes())?);
    }

    #[test]
    fn what_is_issued_is_what_is_verified(
        active in 0..3usize,
        account in "[a-z0-9@._-]{1,20}",
        groups in prop::collection::btree_set("[a-z0-9][a-z0-9_.-]{0,12}", 0..12),
        by_key in any::<bool>(),
        life in 1..100_000u64,
    ) {
        let Ok(account) = account.parse() else { return Ok(()) };
        let groups: Groups = groups.iter().filter_map(|group| group.parse().ok()).collect();
        let client = if by_key { Client::Key(KeyId::random()) } else { Client::Password };
        let settings = Settings { lifetime: Duration::from_secs(life), ..Settings::default() };
        let grant = Grant { account, client, groups, ..grant() };
        let issued = issue_by(active, &settings, &grant).expect("signed").expect("live");
        prop_assert_eq!(verdict(issued.jwt.expose()), Ok(issued.token));
        prop_assert!(agree(issued.jwt.expose().as_bytes())?);
    }
}

/// Of each kind of spoiling some must change nothing that matters, or the test above could not fail.
#[test]
fn some_spoilt_tokens_are_accepted_by_both() {
    let mut kinds = BTreeMap::new();
    let harmless = [
        ("claim", Spoil::Claim("auth_time", json!(1))),
        ("audience", Spoil::Claim("aud", json!(["https://localhost:8443", "x"]))),
        ("header", Spoil::Header("typ", json!("at+jwt"))),
    ];
    for (kind, spoil) in harmless {
        for (active, key) in WORLD.keys.iter().enumerate() {
            let spoilt = spoil.apply(issued(active).as_bytes(), key);
            *kinds.entry(kind).or_insert(0) += usize::from(agree(&spoilt).expect("agreement"));
        }
    }
    assert_eq!(kinds.into_values().collect::<Vec<_>>(), [3, 3, 3]);
}
