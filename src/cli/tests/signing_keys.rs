//! `signing-keys`: rotation, emergency and master key, as they are typed.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Desk, Exit};
use crate::signing::KeyRing;
use crate::store::SqliteStore;

const DAY: Duration = Duration::from_secs(86_400);

/// A desk whose gateway has been started once, for its first key.
async fn started() -> Desk {
    let mut desk = Desk::new();
    desk.env.push(("KEYBEARER__SIGNING__ALGORITHM".into(), "ES256".into()));
    begun(&desk, "ES256").await;
    desk
}

/// Starts a gateway once that signs in this way.
async fn begun(desk: &Desk, algorithm: &str) {
    desk.run("accounts list").await.done();
    start(desk, &crate::signing::Settings { algorithm: algorithm.parse().unwrap(), ..Default::default() })
        .await
        .expect("a key");
    desk.advance(Duration::from_secs(60));
}

async fn start(desk: &Desk, settings: &crate::signing::Settings) -> Result<(), crate::signing::Error> {
    let store = SqliteStore::open(&desk.dir.path().join("data/keybearer.db")).await.expect("a database");
    let store = Arc::new(store);
    KeyRing::load(settings, DAY, store.clone(), desk.clock.clone()).await?;
    store.close().await;
    Ok(())
}

#[tokio::test]
async fn keys_are_rotated_on_demand() {
    let desk = Desk::new();
    let none = desk.run("signing-keys rotate").await;
    assert_eq!(none.exit, Exit::Failed);
    assert!(none.err.ends_with("error: there are no signing keys yet; the gateway makes one when it first starts\n"));

    let desk = started().await;
    let early = desk.run("signing-keys rotate --now").await;
    assert_eq!(early.exit, Exit::Failed);
    assert!(early.err.contains("no key is published that could sign now"), "{}", early.err);
    let planned = desk.run("signing-keys rotate").await;
    assert!(planned.err.contains("is published, and signs from 2026-11-02T12:01:00Z"), "{}", planned.err);
    assert_eq!(planned.done(), "", "nothing here is data");
    let early = desk.run("signing-keys rotate --now").await;
    assert!(early.err.contains("may not know it before 2026-11-02T12:01:00Z\nhint: rotate without"), "{}", early.err);

    let listed = desk.run("signing-keys list").await.done();
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0].join(" "), "KID ALGORITHM STATE CREATED SIGNS FROM GONE MASTER KEY");
    assert_eq!(lines[1][1..], ["ES256", "active", "2026-11-01T12:00:00Z", "2026-11-01T12:00:00Z", "never", "(none)"]);
    assert_eq!(lines[2][1..], ["ES256", "next", "2026-11-01T12:01:00Z", "2026-11-02T12:01:00Z", "never", "(none)"]);

    desk.advance(DAY);
    let rotated = desk.run("signing-keys rotate --now --json").await.json();
    assert_eq!(rotated["signing_key"]["kid"], lines[2][0]);
    assert_eq!(rotated["signing_key"]["state"], "active");
    let keys = desk.run("signing-keys list --json").await.json();
    // A day for the demo token, and five minutes for those who keep the published keys.
    assert_eq!(keys["signing_keys"][0]["gone_at"], "2026-11-03T12:06:00Z");
    assert_eq!(keys["signing_keys"][0]["sealed_by"], json!(null));
}

#[tokio::test]
async fn an_emergency_is_asked_about() {
    let desk = started().await;
    let kids = async || {
        let keys = desk.run("signing-keys list --json").await.json();
        keys["signing_keys"].as_array().expect("a list").iter().map(|key| key["kid"].clone()).collect::<Vec<_>>()
    };
    let before = kids().await;
    let nowhere = desk.run("signing-keys rotate --emergency").await;
    assert_eq!(nowhere.exit, Exit::Misuse);
    assert!(nowhere.err.contains("hint: say that you mean it: keybearer signing-keys rotate --emergency --yes"));
    let args = ["signing-keys", "rotate", "--emergency"];
    let no = desk.run_with(&args, b"", &["no"]).await;
    assert_eq!((no.exit, no.err.contains("nothing was changed")), (Exit::Failed, true));
    assert_eq!(kids().await, before);
    for line in ["signing-keys rotate --yes", "signing-keys rotate --now --emergency"] {
        assert_eq!(desk.run(line).await.exit, Exit::Misuse, "{line}");
    }

    let typed = desk.run_with(&args, b"", &["yes"]).await;
    assert!(typed.err.contains("all other keys are gone, and every token issued so far is dead"), "{}", typed.err);
    let after = kids().await;
    assert!(after.len() == 1 && after != before);
    let revoked = desk.run("tokens revocations --json").await.json();
    assert_eq!(revoked["revocations"][0]["target"], "all");
    desk.run("signing-keys rotate --emergency --yes").await.done();
    assert_ne!(kids().await, after);
}

#[tokio::test]
async fn a_supplied_key_is_not_rotated_by_a_command() {
    let mut desk = started().await;
    desk.env.push(("KEYBEARER__SIGNING__PRIVATE_KEY_FILE".into(), "/etc/keybearer/signing.pem".into()));
    let refused = desk.run("signing-keys rotate").await;
    assert_eq!(refused.exit, Exit::Failed);
    assert!(refused.err.contains("put another into /etc/keybearer/signing.pem and restart the gateway"));
}

#[tokio::test]
async fn a_master_key_is_made_used_and_changed() {
    let mut desk = started().await;
    let path = |name: &str| desk.dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (one, two) = (path("one.key"), path("two.key"));
    let made = desk.run(&format!("signing-keys master-key new {one}")).await;
    assert!(made.err.contains("hint: name it in signing.master_key_file and restart"), "{}", made.err);
    assert_eq!(made.done(), "", "the key goes to its file alone");
    let mode = std::fs::metadata(&one).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let content = std::fs::read(&one).expect("a file");
    let again = desk.run(&format!("signing-keys master-key new {one}")).await;
    assert_eq!(again.exit, Exit::Failed);
    assert!(again.err.contains("is there already; it was left as it is"), "{}", again.err);
    assert_eq!(std::fs::read(&one).expect("a file"), content);
    desk.run(&format!("signing-keys master-key new {two}")).await.done();

    desk.env.push(("KEYBEARER__SIGNING__MASTER_KEY_FILE".into(), one.clone()));
    let settings = |file: &str| crate::signing::Settings {
        algorithm: "ES256".parse().unwrap(),
        master_key_file: Some(file.into()),
        ..Default::default()
    };
    start(&desk, &settings(&one)).await.expect("sealed");
    let sealed_by =
        async |desk: &Desk| desk.run("signing-keys list --json").await.json()["signing_keys"][0]["sealed_by"].clone();
    let first = sealed_by(&desk).await;
    assert_eq!(first.as_str().map(str::len), Some(16));
    assert!(desk.run("check").await.out.contains("signing keys 1"));

    let wrong = desk.run(&format!("signing-keys master-key change --old {two} --new {one}")).await;
    assert_eq!(wrong.exit, Exit::Done, "those under the new one already stay");
    let changed = desk.run(&format!("signing-keys master-key change --old {one} --new {two}")).await;
    assert!(changed.err.contains("1 signing key is sealed under master key"), "{}", changed.err);
    assert!(changed.err.contains(&format!("hint: name {two} in signing.master_key_file")), "{}", changed.err);
    assert_ne!(sealed_by(&desk).await, first);
    let check = desk.run("check").await;
    assert!(check.exit == Exit::Failed && check.out.contains("is sealed under master key"), "{}", check.out);
    assert!(start(&desk, &settings(&one)).await.is_err());
    start(&desk, &settings(&two)).await.expect("the new one opens them");
    let missing = desk.run(&format!("signing-keys master-key change --old {two} --new {}", path("three.key"))).await;
    assert!(missing.err.contains("there is no such file"), "{}", missing.err);
    for secret in [content, std::fs::read(&two).expect("a file")] {
        let secret = String::from_utf8(secret).expect("base64");
        assert!(!format!("{}{}{}", changed.err, missing.err, check.out).contains(secret.trim()));
    }
}

#[tokio::test]
async fn certificates_of_all_published_keys_are_printed() {
    let desk = Desk::new();
    let none = desk.run("signing-keys certificates").await;
    assert_eq!(none.exit, Exit::Failed);
    assert!(none.err.contains("there are no signing keys yet"), "{}", none.err);

    let desk = started().await;
    let pem = |text: &str| text.matches("-----BEGIN CERTIFICATE-----\n").count();
    assert_eq!(pem(&desk.run("signing-keys certificates").await.done()), 1);
    desk.run("signing-keys rotate").await.done();
    let printed = desk.run("signing-keys certificates").await.done();
    assert!(pem(&printed) == 2 && printed.ends_with("-----END CERTIFICATE-----\n"), "{printed}");

    let file = desk.dir.path().join("bundle.pem");
    std::fs::write(&file, "the one before").expect("a file");
    let written = desk.run(&format!("signing-keys certificates --out {}", file.display())).await;
    assert!(written.err.contains("2 certificates are in "), "{}", written.err);
    assert_eq!(written.done(), "", "they go to the file alone");
    assert_eq!(pem(&std::fs::read_to_string(&file).expect("a file")), 2);
    assert_eq!(std::fs::read_dir(desk.dir.path()).expect("a folder").count(), 2, "the bundle, and the data folder");
    let nowhere = desk.run("signing-keys certificates --out /nowhere/bundle.pem").await;
    assert_eq!((nowhere.exit, nowhere.err.contains("/nowhere/bundle.pem could not be written")), (Exit::Failed, true));

    let list = desk.run("signing-keys certificates --json").await.json();
    let keys = desk.run("signing-keys list --json").await.json();
    for at in 0..2 {
        assert_eq!(list["certificates"][at]["kid"], keys["signing_keys"][at]["kid"]);
        assert_eq!(list["certificates"][at]["algorithm"], "ES256");
        assert_eq!(pem(list["certificates"][at]["pem"].as_str().expect("text")), 1);
    }
}

/// A certificate for Ed25519 keeps a registry from starting.
#[tokio::test]
async fn a_certificate_that_no_registry_reads_is_left_out() {
    let mut desk = Desk::new();
    desk.env.push(("KEYBEARER__SIGNING__ALGORITHM".into(), "EdDSA".into()));
    begun(&desk, "EdDSA").await;
    let none = desk.run("signing-keys certificates").await;
    assert_eq!((none.exit, none.out.as_str()), (Exit::Failed, ""));
    assert!(none.err.contains("no published key is one that registries read"), "{}", none.err);

    desk.env.last_mut().expect("a setting").1 = "ES256".into();
    desk.run("signing-keys rotate").await.done();
    let list = desk.run("signing-keys certificates --json").await;
    assert!(list.err.contains("is left out: registries read no certificate for EdDSA"), "{}", list.err);
    let list = list.json();
    let algorithms: Vec<_> =
        list["certificates"].as_array().expect("a list").iter().map(|one| &one["algorithm"]).collect();
    assert_eq!(algorithms, ["ES256"]);
}
