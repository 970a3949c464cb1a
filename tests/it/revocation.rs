//! Revocations: what is dead is dead everywhere, and nothing else is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keybearer::accounts::Account;
use keybearer::credentials::Kept;
use keybearer::ids::TokenId;
use keybearer::keys::{ApiKey, Key, KeyState};
use keybearer::persist::{Cut, Update};
use keybearer::revocations::{RevocationStore, Target};

use crate::forge;
use crate::gateway::{SAMPLE, TestGateway};

fn id(token: &str) -> TokenId {
    forge::claims(token)["jti"].as_str().expect("an id").parse().expect("an id")
}

/// Two accounts; the first with two keys and a password.
struct Scene {
    gateway: TestGateway,
    key: ApiKey,
    second: ApiKey,
    other: ApiKey,
}

impl Scene {
    async fn start() -> Self {
        let gateway = TestGateway::start().await;
        let key = gateway.acme().await;
        let second = gateway.key("acme").await;
        gateway.account("other", None).await;
        gateway.licence("other", &[SAMPLE], None).await;
        let other = gateway.key("other").await;
        Self { gateway, key, second, other }
    }

    /// A token by each: the first key, the second key, the password, and the other account's key.
    async fn tokens(&self) -> [String; 4] {
        [
            self.gateway.token(&self.key).await,
            self.gateway.token(&self.second).await,
            self.gateway.get("/token").basic("acme", "open sesame").await.token(),
            self.gateway.token(&self.other).await,
        ]
    }

    async fn alive(&self, tokens: &[String; 4]) -> [bool; 4] {
        let mut alive = [false; 4];
        for (token, alive) in tokens.iter().zip(&mut alive) {
            let status = self.gateway.get("/sample/x").bearer(token).await.status;
            assert!(matches!(status, 200 | 401), "{status}");
            *alive = status == 200;
        }
        alive
    }

    async fn revoke(&self, target: &Target) {
        self.gateway.store.revoke(target, self.gateway.now(), false).await.expect("stored");
        self.gateway.sync().await;
    }
}

#[tokio::test]
async fn each_revocation_ends_what_it_names_and_nothing_else() {
    let scene = Scene::start().await;
    let first = scene.tokens().await;
    assert_eq!(scene.alive(&first).await, [true; 4]);
    scene.revoke(&Target::Token(id(&first[0]))).await;
    assert_eq!(scene.alive(&first).await, [false, true, true, true], "one token");

    let second = scene.tokens().await;
    scene.revoke(&Target::Key(*scene.key.id())).await;
    assert_eq!(scene.alive(&second).await, [false, true, true, true], "one key");
    let third = scene.tokens().await;
    assert_eq!(scene.alive(&third).await, [true; 4], "the key itself is good, even in the same second");

    scene.revoke(&Target::Account("acme".parse().expect("a name"))).await;
    assert_eq!(scene.alive(&third).await, [false, false, false, true], "one account");
    let fourth = scene.tokens().await;
    assert_eq!(scene.alive(&fourth).await, [true; 4]);

    scene.revoke(&Target::All).await;
    assert_eq!(scene.alive(&fourth).await, [false; 4], "everything");
    let fifth = scene.tokens().await;
    assert_eq!(scene.alive(&fifth).await, [true; 4]);
    for earlier in [&first, &second, &third, &fourth] {
        assert_eq!(scene.alive(earlier).await[..3], [false; 3], "the dead stay dead");
    }
}

#[tokio::test]
async fn revoke_all_before_draws_a_line_in_time() {
    let scene = Scene::start().await;
    let before = scene.tokens().await;
    scene.gateway.advance(Duration::from_secs(60));
    let line = scene.gateway.now();
    let after = scene.tokens().await;
    scene.gateway.advance(Duration::from_secs(60));
    scene.gateway.store.revoke_all_before(line, scene.gateway.now()).await.expect("stored");
    scene.gateway.sync().await;
    assert_eq!(scene.alive(&before).await, [false; 4]);
    assert_eq!(scene.alive(&after).await, [true; 4], "issued at the line is not before it");
    // An earlier line, drawn later, brings nobody back.
    scene.gateway.store.revoke_all_before(line - Duration::from_secs(3600), scene.gateway.now()).await.expect("stored");
    scene.gateway.sync().await;
    assert_eq!(scene.alive(&before).await, [false; 4]);
}

#[tokio::test]
async fn a_suspended_key_is_refused_and_its_old_tokens_stay_dead_when_it_is_resumed() {
    let scene = Scene::start().await;
    let tokens = scene.tokens().await;
    let now = scene.gateway.now();
    let set = async |state: KeyState, cut: Cut| {
        scene.gateway.update_key(&scene.key, |key| (Key { state, ..key }, cut)).await;
        scene.gateway.sync().await;
    };
    set(KeyState::Suspended, Cut::Now(now)).await;
    scene.gateway.token_call(&scene.key).await.problem(401, "invalid-credentials");
    assert_eq!(scene.alive(&tokens).await, [false, true, true, true]);
    set(KeyState::Active, Cut::No).await;
    let renewed = scene.tokens().await;
    assert_eq!(scene.alive(&renewed).await, [true; 4]);
    assert_eq!(scene.alive(&tokens).await, [false, true, true, true]);
}

#[tokio::test]
async fn a_changed_password_ends_what_the_old_one_got() {
    let scene = Scene::start().await;
    let tokens = scene.tokens().await;
    let (now, hash) = (scene.gateway.now(), scene.gateway.hash("new password", Kept::Password));
    let change = |account| (Account { password: Some(hash.clone()), ..account }, Cut::Now(now));
    scene.gateway.update_account("acme", change).await;
    scene.gateway.sync().await;
    assert_eq!(scene.alive(&tokens).await, [false, false, false, true], "the account's tokens are cut");
    scene.gateway.get("/token").basic("acme", "open sesame").await.problem(401, "invalid-credentials");
    assert_eq!(scene.gateway.get("/token").basic("acme", "new password").await.status, 200);
    assert_eq!(scene.gateway.token_call(&scene.key).await.status, 200, "its keys are as they were");
}

#[tokio::test]
async fn what_another_process_wrote_is_in_force_after_a_look_at_the_store() {
    let gateway = TestGateway::build().sqlite().start().await;
    let key = gateway.acme().await;
    let (token, password) =
        (gateway.token(&key).await, gateway.get("/token").basic("acme", "open sesame").await.token());
    let other = gateway.other_process().await;
    let now = gateway.now();
    let revoke = |key| Update::Write(Key { state: KeyState::Revoked, ..key }, Cut::Forever(now));
    keybearer::keys::KeyStore::update_key(&other, key.id(), &revoke).await.expect("stored");
    gateway.sync().await;
    gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
    gateway.token_call(&key).await.problem(401, "invalid-credentials");
    assert_eq!(gateway.get("/whoami").bearer(&password).await.status, 200);
    other.revoke(&Target::Token(id(&password)), now, false).await.expect("stored");
    gateway.sync().await;
    gateway.get("/whoami").bearer(&password).await.assert_invalid_token();
    other.close().await;
}

/// The gateway looks by itself, often enough: nobody asks it to here.
#[tokio::test]
async fn what_another_process_wrote_is_in_force_within_a_second() {
    let gateway = TestGateway::build().sqlite().real_time().start().await;
    let key = gateway.acme().await;
    let other = gateway.other_process().await;
    for _ in 0..3 {
        let token = gateway.token(&key).await;
        assert_eq!(gateway.get("/whoami").bearer(&token).await.status, 200);
        other.revoke(&Target::Token(id(&token)), gateway.now(), false).await.expect("stored");
        let began = Instant::now();
        while gateway.get("/whoami").bearer(&token).await.status == 200 {
            assert!(began.elapsed() < Duration::from_secs(1), "it is a second");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    other.close().await;
}

/// With the clock that stands still everything happens in one second, which is the hardest: `iat` counts in seconds.
#[tokio::test]
async fn the_follower_looks_as_time_passes() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let token = gateway.token(&key).await;
    gateway.store.revoke(&Target::Token(id(&token)), gateway.now(), false).await.expect("stored");
    gateway.advance(Duration::from_millis(250));
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    gateway.get("/whoami").bearer(&token).await.assert_invalid_token();
}

/// A restart logs nobody out, forgets no revocation, and keeps the line drawn by revoke-all-before.
#[tokio::test]
async fn tokens_and_revocations_survive_a_restart() {
    // No key of the test's own: the one that is generated must survive too.
    let build = TestGateway::build().sqlite().with(|config| config.signing.private_key_file = None);
    let gateway = build.start().await;
    let (key, lost_key) = (gateway.acme().await, gateway.key("acme").await);
    let old = gateway.token(&key).await;
    gateway.advance(Duration::from_secs(10));
    gateway.store.revoke_all_before(gateway.now(), gateway.now()).await.expect("stored");
    gateway.sync().await;
    let (good, revoked, lost) = (gateway.token(&key).await, gateway.token(&key).await, gateway.token(&lost_key).await);
    let jti = forge::claims(&revoked)["jti"].as_str().expect("an id").parse().expect("an id");
    gateway.store.revoke(&Target::Token(jti), gateway.now(), false).await.expect("stored");
    gateway.revoke_key(&lost_key).await;
    gateway.sync().await;

    let gateway = gateway.restart().await;
    assert!(gateway.registry().is_empty(), "memory is new");
    assert_eq!(gateway.get("/whoami").bearer(&good).await.status, 200, "verified once, and admitted");
    assert_eq!(gateway.registry().len(), 1);
    assert_eq!(gateway.get("/whoami").bearer(&good).await.status, 200);
    for (what, token) in [("one token", &revoked), ("its key", &lost), ("all before", &old)] {
        let answer = gateway.get("/whoami").bearer(token).await;
        answer.assert_invalid_token();
        assert!(answer.challenge().contains("revoked"), "{what}: {answer:?}");
    }
    assert_eq!(gateway.registry().len(), 1, "what is refused is not admitted");
    gateway.token_call(&lost_key).await.problem(401, "invalid-credentials");
    assert_eq!(gateway.token_call(&key).await.status, 200);
    gateway.advance(Duration::from_secs(3600));
    gateway.get("/whoami").bearer(&good).await.assert_invalid_token();
}

/// The registry is bounded: what was evicted to make room is still valid, at the price of one verification.
#[tokio::test]
async fn a_token_evicted_for_room_is_still_good() {
    let gateway = TestGateway::build().with(|config| config.tokens.max_live = 3).start().await;
    let key = gateway.acme().await;
    let mut tokens = Vec::new();
    for _ in 0..6 {
        tokens.push(gateway.token(&key).await);
        gateway.advance(Duration::from_secs(1));
    }
    assert_eq!(gateway.registry().len(), 3);
    for token in &tokens {
        assert_eq!(gateway.get("/whoami").bearer(token).await.status, 200);
        assert_eq!(gateway.registry().len(), 3);
    }
    assert!(gateway.registry().evictions().for_room >= 3);
    // Revoked while it was evicted, it does not come back.
    gateway.revoke_key(&key).await;
    gateway.sync().await;
    for token in &tokens {
        gateway.get("/whoami").bearer(token).await.assert_invalid_token();
    }
}

/// How a decision arrives while credentials are being verified and tokens issued.
#[derive(Clone, Copy)]
enum Decision {
    SuspendAccount,
    RevokeKey,
    CutAccount,
}

/// A decision in the middle of many `/token` calls: whatever they got before is dead, and they get nothing after.
async fn race(gateway: TestGateway, decision: Decision) {
    gateway.group(SAMPLE, None).await;
    let gateway = Arc::new(gateway);
    for round in 0..8 {
        let name = format!("acme-{round}");
        gateway.account(&name, Some("open sesame")).await;
        gateway.licence(&name, &[SAMPLE], None).await;
        let key = gateway.key(&name).await;
        if round % 2 == 1 {
            // A verified-before credential takes a way of its own.
            gateway.token(&key).await;
        }
        let calls: Vec<_> = (0..24)
            .map(|n| {
                let (gateway, key, name) = (Arc::clone(&gateway), key.clone(), name.clone());
                tokio::spawn(async move {
                    let mut tokens = Vec::new();
                    loop {
                        let call = gateway.get("/token");
                        let by_key = n % 3 > 0 || matches!(decision, Decision::RevokeKey);
                        let answer = if by_key { call.key(&key) } else { call.basic(&name, "open sesame") }.await;
                        match answer.status {
                            200 => tokens.push(answer.token()),
                            401 => return tokens,
                            503 => {}
                            other => panic!("{other}"),
                        }
                        if matches!(decision, Decision::CutAccount) && tokens.len() == 6 {
                            return tokens;
                        }
                    }
                })
            })
            .collect();
        // Somewhere in their midst.
        tokio::time::sleep(Duration::from_millis(5 * round)).await;
        let now = gateway.now();
        match decision {
            Decision::SuspendAccount => gateway.suspend_account(&name).await,
            Decision::RevokeKey => gateway.revoke_key(&key).await,
            Decision::CutAccount => gateway.update_account(&name, |account| (account, Cut::Now(now))).await,
        }
        gateway.sync().await;
        let line = gateway.registry().revocations().cutoff(&name.parse().expect("a name"), Some(key.id())).0;
        let mut alive = 0;
        for call in calls {
            for token in call.await.expect("no panic") {
                let status = gateway.get("/whoami").bearer(&token).await.status;
                let issued_at = forge::claims(&token)["iat"].as_u64().expect("a time");
                match decision {
                    // The credential goes on working: what it got after the cut is good, and says so by its `iat`.
                    Decision::CutAccount if issued_at >= line => alive += usize::from(status == 200),
                    _ => assert_eq!(status, 401, "round {round}: a token got before the decision outlives it"),
                }
            }
        }
        if !matches!(decision, Decision::CutAccount) {
            assert_eq!(alive, 0);
            gateway.token_call(&key).await.problem(401, "invalid-credentials");
        } else {
            assert_eq!(gateway.get("/whoami").bearer(gateway.token(&key).await).await.status, 200);
        }
    }
}

/// Hashing takes a moment, so that decisions arrive in its midst.
fn slow() -> crate::gateway::Builder {
    TestGateway::build().with(|config| {
        config.credentials.argon2_memory_kib = 2048;
        config.credentials.argon2_iterations = 2;
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_during_verification_leaves_no_live_token() {
    race(slow().start().await, Decision::SuspendAccount).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_revoked_during_verification_leaves_no_live_token() {
    race(slow().sqlite().real_time().start().await, Decision::RevokeKey).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_during_verification_ends_what_was_got_before_it() {
    race(slow().sqlite().start().await, Decision::CutAccount).await;
}

/// The clock was ahead when a token was issued, and is put right: a cut of all tokens so far would pass this one by.
#[tokio::test]
async fn a_token_of_a_time_that_has_not_come_is_not_valid_until_it_does() {
    let gateway = TestGateway::start().await;
    let key = gateway.acme().await;
    let published = async || gateway.get("/demo").await.json()["token"].as_str().expect("a token").to_owned();
    let two_hours = Duration::from_secs(7200);
    gateway.advance(two_hours);
    let (ahead, demo_ahead) = (gateway.token(&key).await, published().await);
    gateway.set_back(two_hours);
    for token in [&ahead, &demo_ahead] {
        gateway.get("/whoami").bearer(token).await.assert_invalid_token();
    }
    assert_eq!(gateway.get("/demo/time").bearer(&published().await).await.status, 200, "another is published");
    assert_eq!(gateway.get("/whoami").bearer(&gateway.token(&key).await).await.status, 200, "who asks gets another");
    gateway.advance(two_hours);
    assert_eq!(gateway.get("/whoami").bearer(&ahead).await.status, 200, "nobody has ended it");
}
