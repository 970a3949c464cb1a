//! A vendor's machine and a customer's gateway.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::{Desk, Exit};
use crate::licences::document;

const DAY: Duration = Duration::from_secs(86_400);

/// A vendor's machine with a key, a customer's gateway that believes it, and the folder they exchange files in.
async fn vendor_and_customer() -> (Desk, Desk, String) {
    let (vendor, mut customer) = (Desk::new(), Desk::new());
    let folder = vendor.dir.path().to_str().expect("a path").to_owned();
    let made = vendor.run(&format!("licences vendor-key new {folder}/vendor.key")).await;
    assert!(made.err.contains("keep a copy") && made.err.contains("hint: customers put"), "{}", made.err);
    let public = made.done().trim_end().to_owned();
    let mode = std::fs::metadata(format!("{folder}/vendor.key")).expect("a file").permissions().mode();
    assert_eq!((public.len(), mode & 0o777), (43, 0o600));
    assert_eq!(vendor.run(&format!("licences vendor-key show {folder}/vendor.key")).await.done().trim_end(), public);
    let again = vendor.run(&format!("licences vendor-key new {folder}/vendor.key")).await;
    assert!(again.exit == Exit::Failed && again.err.contains("is there already"), "{}", again.err);
    assert!(!vendor.dir.path().join("data").exists(), "a vendor's machine has no store");
    customer.env.push(("KEYBEARER__LICENCES__VENDOR_KEYS".into(), public));
    customer.run("accounts create acme").await.done();
    (vendor, customer, folder)
}

#[tokio::test]
async fn a_document_goes_from_the_vendor_to_the_customer() {
    let (vendor, customer, folder) = vendor_and_customer().await;
    let issue = format!("licences issue --sign --vendor-key {folder}/vendor.key --vendor Widgets --account acme");
    let issued = vendor
        .run(&format!(
            "{issue} --groups orders --plan gold --seats 1 --quota calls=7 --until 30d --out {folder}/a.licence --json"
        ))
        .await
        .json();
    let id = issued["document"]["licence"].as_str().expect("an id").to_owned();

    let inspected = customer.run(&format!("licences inspect {folder}/a.licence")).await;
    assert!(inspected.err.starts_with("the signature is good"), "{}", inspected.err);
    let shown = inspected.done();
    for line in ["vendor:   Widgets", "account:  acme", "groups:   orders", "seats:    1", "quotas:   calls=7"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let stranger = Desk::new();
    let unknown = stranger.run(&format!("licences inspect {folder}/a.licence --json")).await;
    assert!(unknown.err.contains("not one of licences.vendor_keys"), "{}", unknown.err);
    assert_eq!(unknown.json()["believed"], false);

    let refused = customer.run(&format!("licences install {folder}/a.licence")).await;
    assert!(refused.err.contains("there is no group \"orders\"") && refused.err.contains("hint: "), "{}", refused.err);
    let installed = customer.run(&format!("licences install {folder}/a.licence --create-groups")).await;
    assert!(
        installed.err.contains(&format!("licence {id}: installed from a document of Widgets")),
        "{}",
        installed.err
    );
    installed.done();
    let config = format!("{folder}/plans.toml");
    std::fs::write(&config, "[[plans]]\nid = \"silver\"\nrequests_per_day = 1\n").expect("a file");
    let again = customer.run(&format!("licences install {folder}/a.licence --config {config}")).await;
    assert!(again.err.starts_with("warning: the configuration has no plan \"gold\""), "{}", again.err);
    let view = customer.run(&format!("licences show {id} --json")).await.json();
    assert_eq!(
        view,
        json!({
            "id": id, "account": "acme", "groups": ["orders"], "plan": "gold", "seats": 1, "trial": false,
            "from_document": true, "state": "active", "starts_at": "2026-11-01T12:00:00Z",
            "ends_at": "2026-12-01T12:00:00Z", "created_at": "2026-11-01T12:00:00Z",
        })
    );
    customer.run("keys create acme").await.done();
    assert_eq!(customer.run("keys create acme").await.exit, Exit::Failed, "one seat");
    let upgraded = customer.run(&format!("licences upgrade {id} --seats 9")).await;
    assert!(upgraded.exit == Exit::Failed && upgraded.err.contains("ask its vendor"), "{}", upgraded.err);

    vendor.advance(DAY);
    customer.advance(DAY);
    vendor
        .run(&format!("{issue} --group orders --seats 2 --until 60d --licence {id} --out {folder}/b.licence"))
        .await
        .done();
    customer.run(&format!("licences install {folder}/b.licence")).await.done();
    customer.run("keys create acme").await.done();
    let older = customer.run(&format!("licences install {folder}/a.licence")).await;
    assert!(older.exit == Exit::Failed && older.err.contains("only a newer one"), "{}", older.err);

    let text = std::fs::read_to_string(format!("{folder}/b.licence")).expect("a document");
    let lines: Vec<&str> = text.lines().collect();
    let swapped = text.replace(lines[2], &lines[2].chars().rev().collect::<String>());
    std::fs::write(format!("{folder}/c.licence"), swapped).expect("a file");
    for command in ["install", "inspect"] {
        assert_eq!(customer.run(&format!("licences {command} {folder}/c.licence")).await.exit, Exit::Failed);
    }
}

#[tokio::test]
async fn a_key_that_is_gone_and_a_clock_that_is_set_back_are_told() {
    let (vendor, mut customer, folder) = vendor_and_customer().await;
    customer.run("groups create orders").await.done();
    let issue = format!("licences issue --sign --vendor-key {folder}/vendor.key --account acme --group orders");
    vendor.run(&format!("{issue} --out {folder}/a.licence")).await.done();
    customer.run(&format!("licences install {folder}/a.licence")).await.done();
    customer.run("check").await.done();
    let id = customer.run("licences list --json").await.json()["licences"][0]["id"].as_str().expect("an id").to_owned();

    let right = customer.clock.clone();
    let start = crate::clock::Clock::now(&*right);
    customer.clock = std::sync::Arc::new(crate::clock::ManualClock::new(start - DAY));
    let checked = customer.run("check").await;
    assert!(
        checked.exit == Exit::Failed && checked.out.contains("no licence from a document grants anything"),
        "{checked:?}"
    );
    assert_eq!(customer.run(&format!("licences show {id} --json")).await.json()["state"], "refused");
    customer.clock = right;
    customer.run("check").await.done();

    customer.env.retain(|(name, _)| !name.contains("VENDOR_KEYS"));
    let checked = customer.run("check").await;
    assert!(checked.exit == Exit::Failed && checked.out.contains("not one of licences.vendor_keys"), "{checked:?}");
    let shown = customer.run(&format!("licences show {id}")).await;
    assert!(shown.err.contains(&format!("licence {id} grants nothing")), "{}", shown.err);
}

/// A mistyped quota of a document would bound nobody until its end.
#[tokio::test]
async fn a_quota_that_bounds_nothing_is_told_and_none_is_given_twice() {
    let (vendor, _customer, folder) = vendor_and_customer().await;
    let issue = format!("licences issue --sign --vendor-key {folder}/vendor.key --account acme --group orders");
    let held_to = vendor.run(&format!("{issue} --quota requests_per_day=3 --quota concurrent=1")).await;
    assert!(!held_to.err.contains("warning"), "{}", held_to.err);
    let mistyped = vendor.run(&format!("{issue} --quota request_per_day=3")).await;
    assert!(
        mistyped.err.starts_with("warning: gateways show the quota \"request_per_day\", and it bounds nothing")
            && mistyped.err.contains("requests_per_day"),
        "{}",
        mistyped.err
    );
    let twice = vendor.run(&format!("{issue} --quota concurrent=3 --quota concurrent=9 --out {folder}/twice")).await;
    assert!(twice.exit == Exit::Misuse && twice.err.contains("is there twice, with 3 and 9"), "{twice:?}");
    assert!(!std::path::Path::new(&format!("{folder}/twice")).exists());
}

/// Whoever is shown a document that nobody has vouched for is shown a text.
#[tokio::test]
async fn a_document_plays_no_tricks_with_the_terminal() {
    let (_vendor, customer, folder) = vendor_and_customer().await;
    let header = json!({"alg": "EdDSA", "typ": "keybearer-licence+jwt", "kid": "\u{1b}[2Jvendor"});
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = json!({
        "jti": "AAAAAAAAAAAAAAAAAAAAAA", "iss": "Widgets", "sub": "0123456789ab", "iat": 1, "nbf": 1, "account": "acme",
        "groups": ["orders"], "plan": "gold",
    });
    let strange = json!({"\u{9b}2Jclaim": 1});
    for (claims, says) in [(claims, r"vendor key \u{1b}[2Jvendor"), (strange, r"unknown field `\u{9b}2Jclaim`")] {
        let compact = format!("{}.{}.AAAA", part(header.clone()), part(claims));
        std::fs::write(format!("{folder}/x.licence"), document::armour(&compact)).expect("a file");
        let shown = customer.run(&format!("licences inspect {folder}/x.licence")).await;
        assert!(shown.err.contains(says) && !shown.err.contains(['\u{1b}', '\u{9b}']), "{:?}", shown.err);
    }
}
