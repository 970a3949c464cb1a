//! What each command prints when it does what it is asked for.

use std::time::Duration;

use serde_json::json;

use super::{Desk, Exit, id_of};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn accounts_from_first_to_last() {
    let desk = Desk::new();
    let empty = desk.run("accounts list").await;
    assert_eq!((empty.exit, empty.out.as_str()), (Exit::Done, ""));
    assert!(empty.err.ends_with("no accounts yet; create one with keybearer accounts create NAME\n"), "{}", empty.err);

    let created = desk.run_args(&["accounts", "create", "acme", "--title", "Acme GmbH", "--expires", "90d"]).await;
    assert!(created.err.contains("created account \"acme\"\nhint: grant it groups"), "{}", created.err);
    assert_eq!(created.done(), "", "nothing here is data");
    desk.run_with(&["accounts", "create", "bob", "--password-stdin"], b"open sesame 123\n", &[]).await.done();

    assert_eq!(
        desk.run("accounts list").await.done(),
        "NAME  STATE   PASSWORD  EXPIRES               TITLE\n\
         acme  active  no        2027-01-30T12:00:00Z  Acme GmbH\n\
         bob   active  yes       never\n"
    );
    assert_eq!(
        desk.run("accounts show acme").await.done(),
        "name:     acme\ntitle:    Acme GmbH\nstate:    active\npassword: no\nexpires:  2027-01-30T12:00:00Z\n\
         created:  2026-11-01T12:00:00Z\n"
    );
    assert_eq!(
        desk.run("accounts suspend acme --json").await.json(),
        json!({
            "account": {
                "name": "acme", "title": "Acme GmbH", "state": "suspended", "has_password": false,
                "expires_at": "2027-01-30T12:00:00Z", "created_at": "2026-11-01T12:00:00Z",
            },
            "changed": true, "tokens_revoked": true,
        })
    );
    let again = desk.run("accounts suspend acme").await;
    assert_eq!(
        (again.exit, again.err.as_str()),
        (Exit::Done, "nothing changed: account \"acme\": it is suspended already\n")
    );
    let resumed = desk.run("accounts resume acme").await;
    assert_eq!(resumed.err, "account \"acme\": its credentials work again; no token was revoked\n");
    let expiry = desk.run("accounts set-expiry acme 2026-12-01").await;
    assert_eq!(
        expiry.err,
        "account \"acme\": its end is 2026-12-01T00:00:00Z; its tokens issued so far, by password and by all its keys, \
         are dead\n"
    );
    desk.run("accounts set-expiry acme never").await.done();
    desk.run_args(&["accounts", "set-title", "acme", "New name"]).await.done();
    let accounts = desk.run("--json accounts list").await.json();
    assert_eq!(accounts["accounts"][0]["title"], "New name");
    assert_eq!(accounts["accounts"][0]["expires_at"], json!(null));
}

#[tokio::test]
async fn passwords_come_from_file_input_and_terminal() {
    let desk = Desk::new();
    desk.run("accounts create acme").await.done();
    let file = desk.dir.path().join("password");
    std::fs::write(&file, "from a file, long\n").unwrap();
    let file = file.to_str().unwrap();
    let set = desk.run_args(&["accounts", "set-password", "acme", "--password-file", file]).await;
    assert!(set.err.contains("the password is set; its tokens issued so far"), "{}", set.err);
    let typed = ["typed on a terminal"; 2];
    desk.run_with(&["accounts", "set-password", "acme"], b"", &typed).await.done();
    let short = desk.run_with(&["accounts", "set-password", "acme", "--password-stdin"], b"eight888", &[]).await;
    assert!(short.err.starts_with("hint: a password of 12 characters or more"), "{}", short.err);
    assert_eq!(desk.run("accounts show acme --json").await.json()["has_password"], true);
    desk.run("accounts clear-password acme").await.done();
    assert_eq!(desk.run("accounts show acme --json").await.json()["has_password"], false);

    let differ =
        desk.run_with(&["accounts", "set-password", "acme"], b"", &["one password here", "another one here"]).await;
    assert_eq!(differ.exit, Exit::Failed);
    let nowhere = desk.run("accounts set-password acme").await;
    assert_eq!(nowhere.exit, Exit::Misuse);
    assert!(nowhere.err.contains("hint: give it with --password-stdin"), "{}", nowhere.err);
    assert_eq!(desk.run("accounts show acme --json").await.json()["has_password"], false);
}

#[tokio::test]
async fn keys_from_first_to_last() {
    let (desk, key) = Desk::furnished().await;
    let id = id_of(&key);
    assert_eq!(
        desk.run("keys list").await.done(),
        format!(
            "KEY              ACCOUNT  STATE   EXPIRES  LAST USED  OLD SECRET  GROUPS          LABEL\n\
             kb_{id}  acme     active  never    never      (none)      (all licensed)  ci\n"
        )
    );
    assert_eq!(
        desk.run(&format!("keys show {id} --json")).await.json(),
        json!({
            "id": id, "name": format!("kb_{id}"), "account": "acme", "label": "ci", "groups": null, "state": "active",
            "expires_at": null, "created_at": "2026-11-01T12:00:00Z", "networks": null, "plan": null, "last_used_at": null, "old": null,
        })
    );
    let narrowed = desk.run(&format!("keys set-groups kb_{id} --group orders")).await;
    assert_eq!(narrowed.err, format!("key kb_{id}: its groups are orders; its tokens issued so far are dead\n"));
    let widened = desk.run(&format!("keys set-groups {id} --all")).await;
    assert_eq!(widened.err, format!("key kb_{id}: its groups are (all licensed); no token was revoked\n"));
    desk.run(&format!("keys set-label {id} build")).await.done();
    desk.run(&format!("keys set-expiry {id} 24h")).await.done();
    desk.run(&format!("keys suspend {id}")).await.done();
    assert_eq!(desk.run(&format!("keys show {id} --json")).await.json()["state"], "suspended");
    desk.run(&format!("keys resume {id}")).await.done();
    desk.advance(DAY);
    assert_eq!(desk.run(&format!("keys show {id} --json")).await.json()["state"], "expired");
    let revoked = desk.run(&format!("keys revoke {id}")).await;
    assert_eq!(revoked.err, format!("key kb_{id}: it is revoked for good; its tokens issued so far are dead\n"));
    assert_eq!(desk.run(&format!("keys revoke {id}")).await.exit, Exit::Done);
    let resumed = desk.run(&format!("keys resume {id}")).await;
    assert_eq!(
        (resumed.exit, resumed.err),
        (Exit::Failed, format!("error: key {id} is revoked, which is for good; create a new key\n"))
    );
}

#[tokio::test]
async fn a_key_is_rolled_and_its_old_secret_ended() {
    let (desk, key) = Desk::furnished().await;
    let id = id_of(&key);
    let rolled = desk.run(&format!("keys roll kb_{id}")).await;
    assert_eq!(
        rolled.err,
        format!(
            "key kb_{id} has a new secret; the old one works until 1d after the first use of the new one\n\
             the new key is printed this once and cannot be shown again: keep it now, and keep it secret\n"
        )
    );
    let new = rolled.done();
    assert!(new.ends_with('\n') && id_of(&new) == id && new.trim_end() != key, "the new key alone");
    assert_eq!(
        desk.run(&format!("keys show {id} --json")).await.json()["old"],
        json!({
            "state": "waiting", "rolled_at": "2026-11-01T12:00:00Z", "grace_seconds": 86_400, "ends_at": null,
            "last_used_at": null,
        })
    );
    let shown = desk.run(&format!("keys show {id}")).await.done();
    assert!(shown.contains("old secret:    works until 1d after the first use of the new one\n"), "{shown}");
    assert!(shown.ends_with("old last used: never\n"), "{shown}");
    let list = desk.run("keys list").await.done();
    assert!(list.contains("works, new unused"), "{list}");

    let again = desk.run(&format!("keys roll {id}")).await;
    assert_eq!(again.exit, Exit::Failed);
    assert!(again.err.contains("its new secret has not been used yet"), "{}", again.err);
    assert!(again.err.contains(&format!("hint: end the old one first: keybearer keys end-old {id}")), "{}", again.err);
    let ended = desk.run(&format!("keys end-old {id}")).await;
    assert_eq!(ended.err, format!("key kb_{id}: its old secret has ended; its tokens issued so far are dead\n"));
    let none = desk.run(&format!("keys end-old {id}")).await;
    assert_eq!(none.err, format!("nothing changed: key kb_{id}: it has no old secret that works\n"));

    let document = desk.run(&format!("keys roll {id} --grace 7d --start now --json")).await.json();
    assert_eq!(document["api_key"].as_str().map(id_of), Some(id));
    assert_eq!(document["key"]["old"]["state"], "ending");
    assert_eq!(document["key"]["old"]["ends_at"], "2026-11-08T12:00:00Z");
    assert_eq!(document["tokens_revoked"], false);
    let forced = desk.run(&format!("keys roll {id} --grace 0 --force")).await;
    assert!(forced.err.contains("the old one has ended\nits tokens issued so far are dead\n"), "{}", forced.err);
    let shown = desk.run(&format!("keys show {id} --json")).await.json();
    assert_eq!((&shown["old"]["state"], &shown["old"]["ends_at"]), (&json!("ended"), &json!("2026-11-01T12:00:00Z")));

    for (line, says) in [
        ("--grace 31d", "30d at most"),
        ("--grace soon", "as in 24h"),
        ("--start later", "first-use (of the new secret) or now"),
    ] {
        let wrong = desk.run(&format!("keys roll {id} {line}")).await;
        assert!(wrong.exit == Exit::Misuse && wrong.err.contains(says), "{}", wrong.err);
    }
    desk.run(&format!("keys suspend {id}")).await.done();
    let suspended = desk.run(&format!("keys roll {id}")).await;
    assert_eq!(
        (suspended.exit, suspended.err),
        (Exit::Failed, format!("error: key {id} is suspended; resume it first\nhint: keybearer keys resume {id}\n"))
    );
}

#[tokio::test]
async fn a_key_is_bound_by_a_plan_of_its_own() {
    let (desk, _) = Desk::furnished().await;
    let created = desk.run("keys create acme --plan ci --json").await.json();
    assert_eq!(created["key"]["plan"], "ci");
    let id = created["key"]["id"].as_str().expect("an id").to_owned();
    let same = desk.run(&format!("keys set-plan {id} ci")).await;
    assert!(same.err.ends_with(&format!("nothing changed: key kb_{id}: that is its plan already\n")), "{}", same.err);
    let other = desk.run(&format!("keys set-plan {id} slow")).await;
    assert!(
        other.err.ends_with(&format!("key kb_{id}: bound by plan \"slow\"; its tokens issued so far are dead\n")),
        "{}",
        other.err
    );
    assert!(other.err.starts_with("warning: the configuration has no plan \"slow\""), "{}", other.err);
    let none = desk.run(&format!("keys set-plan {id} --none")).await;
    assert_eq!(none.err, format!("key kb_{id}: no plan of its own; no token was revoked\n"));
    assert_eq!(desk.run(&format!("keys set-plan {id} Ci")).await.exit, Exit::Misuse);
    assert_eq!(desk.run(&format!("keys set-plan {id}")).await.exit, Exit::Misuse);
}

#[tokio::test]
async fn a_key_is_bound_to_networks() {
    let (desk, _) = Desk::furnished().await;
    let created = desk.run("keys create acme --allow 203.0.113.0/24 --allow 2001:db8::7 --json").await.json();
    assert_eq!(created["key"]["networks"], json!(["203.0.113.0/24", "2001:db8::7/128"]));
    let id = created["key"]["id"].as_str().expect("an id");
    let wider = desk.run(&format!("keys set-networks {id} --allow 203.0.112.0/23 --allow 2001:db8::/48")).await;
    assert_eq!(wider.err, format!("key kb_{id}: it is good from 203.0.112.0/23 2001:db8::/48; no token was revoked\n"));
    let narrower = desk.run(&format!("keys set-networks {id} --allow 203.0.112.0/23")).await;
    assert!(narrower.err.ends_with("its tokens issued so far are dead\n"), "{}", narrower.err);
    let cleared = desk.run(&format!("keys set-networks {id} --all")).await;
    assert_eq!(cleared.err, format!("key kb_{id}: it is good from everywhere; no token was revoked\n"));
    for (network, says) in [
        ("203.0.113.7/24", "write the network: 203.0.113.0/24"),
        ("localhost", "is no network"),
        ("0.0.0.0/0", "allows everyone"),
    ] {
        let wrong = desk.run(&format!("keys set-networks {id} --allow {network}")).await;
        assert!(wrong.exit == Exit::Misuse && wrong.err.contains(says), "{}", wrong.err);
    }
    assert_eq!(desk.run(&format!("keys set-networks {id}")).await.exit, Exit::Misuse);
}

#[tokio::test]
async fn a_new_key_is_all_there_is_on_standard_output() {
    let (desk, _) = Desk::furnished().await;
    let created = desk.run("keys create acme --group orders --expires 90d").await;
    assert!(created.err.contains("printed this once"), "{}", created.err);
    assert!(!created.err.contains("warning"), "{}", created.err);
    let key = created.done();
    assert!(key.starts_with("kb_") && key.ends_with('\n') && key.len() == 55, "{key:?}");

    let document = desk.run("keys create acme --json").await.json();
    assert_eq!(document["api_key"].as_str().map(id_of), document["key"]["id"].as_str());

    desk.run("accounts create idle").await.done();
    let unlicensed = desk.run("keys create idle").await;
    assert!(unlicensed.err.contains("warning: no licence in force"), "{}", unlicensed.err);
    assert_eq!(desk.run("keys list --account idle --json").await.json()["keys"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn licences_from_first_to_last() {
    let (desk, _) = Desk::furnished().await;
    desk.run("groups create reports").await.done();
    let granted = desk.run("licences grant acme --group reports --starts 7d --ends 365d --plan gold").await;
    let id = granted.out.trim_end().to_owned();
    assert_eq!(
        granted.err,
        format!(
            "licence {id} grants reports to account \"acme\" from 2026-11-08T12:00:00Z to 2027-11-01T12:00:00Z\n\
             tokens issued so far do not know of it; the next ones do\n"
        )
    );
    assert_eq!(
        desk.run(&format!("licences show {id} --json")).await.json(),
        json!({
            "id": id, "account": "acme", "groups": ["reports"], "plan": "gold", "seats": null, "trial": false,
            "from_document": false, "state": "pending",
            "starts_at": "2026-11-08T12:00:00Z", "ends_at": "2027-11-01T12:00:00Z",
            "created_at": "2026-11-01T12:00:00Z",
        })
    );
    desk.advance(8 * DAY);
    let suspended = desk.run(&format!("licences suspend {id}")).await;
    assert_eq!(
        suspended.err,
        format!(
            "licence {id}: it grants nothing until it is resumed; the tokens of account \"acme\" issued so far, by password \
             and by all its keys, are dead\n"
        )
    );
    desk.run(&format!("licences resume {id}")).await.done();
    let extended = desk.run(&format!("licences extend {id} never")).await;
    assert_eq!(extended.err, format!("licence {id}: its end is never; no token was revoked\n"));
    desk.run(&format!("licences set-groups {id} --group reports --group orders")).await.done();
    let list = desk.run("licences list --account acme").await.done();
    assert!(
        list.starts_with("ID            ACCOUNT  STATE   STARTS                ENDS   PLAN      SEATS  GROUPS\n"),
        "{list}"
    );
    assert!(
        list.contains(&format!(
            "{id}  acme     active  2026-11-08T12:00:00Z  never  gold      any    orders reports\n"
        )),
        "{list}"
    );
    desk.run(&format!("licences end {id}")).await.done();
    assert_eq!(desk.run(&format!("licences show {id} --json")).await.json()["state"], "ended");
}

#[tokio::test]
async fn licences_are_tried_extended_and_upgraded() {
    let (desk, _) = Desk::furnished().await;
    desk.run("groups create reports").await.done();
    let trial = "licences grant acme --group reports --trial 14d --seats 3";
    let id = desk.run(trial).await.done().trim_end().to_owned();
    let shown = desk.run(&format!("licences show {id} --json")).await.json();
    assert_eq!((&shown["trial"], &shown["ends_at"]), (&json!(true), &json!("2026-11-15T12:00:00Z")));
    let again = desk.run(trial).await;
    assert_eq!(
        (again.exit, again.err),
        (
            Exit::Failed,
            format!(
                "error: account \"acme\" had its trial of these groups: licence {id}\n\
                 hint: --again grants another all the same\n"
            )
        )
    );
    desk.run(&format!("{trial} --again")).await.done();

    let by = desk.run(&format!("licences extend {id} --by 30d")).await;
    assert_eq!(by.err, format!("licence {id}: its end is 2026-12-15T12:00:00Z; no token was revoked\n"));
    let until = desk.run(&format!("licences extend {id} --until 2027-01-01")).await;
    assert_eq!(until.err, format!("licence {id}: its end is 2027-01-01T00:00:00Z; no token was revoked\n"));
    for misuse in ["", " --by 1d --until 2028-01-01", " 365d --by 1d"] {
        assert_eq!(desk.run(&format!("licences extend {id}{misuse}")).await.exit, Exit::Misuse, "{misuse}");
    }
    let upgraded =
        desk.run(&format!("licences upgrade {id} --plan gold --seats any --group orders --group reports")).await;
    assert_eq!(
        upgraded.err,
        format!(
            "licence {id}: it grants orders reports on plan \"gold\" until 2027-01-01T00:00:00Z, seats: any; \
             no token was revoked\n"
        )
    );
    assert_eq!(desk.run(&format!("licences upgrade {id}")).await.exit, Exit::Misuse);
    let narrowed = desk.run(&format!("licences upgrade {id} --group orders --json")).await.json();
    assert_eq!((&narrowed["tokens_revoked"], &narrowed["licence"]["trial"]), (&json!(true), &json!(false)));
}

#[tokio::test]
async fn keys_beyond_the_seats_are_refused() {
    let desk = Desk::new();
    desk.run("groups create orders").await.done();
    desk.run("accounts create acme").await.done();
    let licence = desk.run("licences grant acme --group orders --seats 2").await.done().trim_end().to_owned();
    let first = desk.run("keys create acme").await.done();
    let second = desk.run("keys create acme --expires 1d").await.done();
    let refused = desk.run("keys create acme").await;
    assert_eq!((refused.exit, refused.out.as_str()), (Exit::Failed, ""));
    assert_eq!(
        refused.err,
        format!(
            "error: account \"acme\" has 2 seats by licence {licence}, and 2 keys hold one each\n\
             hint: end a key (keybearer keys list --account acme; keys revoke KEY), or buy seats: \
             licences upgrade {licence} --seats N\n"
        )
    );
    desk.run(&format!("keys suspend {}", id_of(&first))).await.done();
    assert_eq!(desk.run("keys create acme").await.exit, Exit::Failed, "what is suspended may come back");
    desk.advance(DAY);
    let third = desk.run("keys create acme").await.done();
    let back = desk.run(&format!("keys set-expiry {} never", id_of(&second))).await;
    assert!(back.exit == Exit::Failed && back.err.contains("has 2 seats"), "{}", back.err);
    desk.run(&format!("keys revoke {}", id_of(&third))).await.done();
    desk.run(&format!("keys set-expiry {} never", id_of(&second))).await.done();
    desk.run(&format!("licences upgrade {licence} --seats 3")).await.done();
    desk.run("keys create acme").await.done();
    assert_eq!(desk.run("keys create acme").await.exit, Exit::Failed);
    desk.run("licences grant acme --group orders").await.done();
    desk.run("keys create acme").await.done();
}

#[tokio::test]
async fn groups_from_first_to_last() {
    let (desk, _) = Desk::furnished().await;
    desk.run("groups set orders --token-lifetime 15m").await.done();
    assert_eq!(
        desk.run("groups list").await.done(),
        "ID      TOKEN LIFETIME  CREATED               TITLE\norders  15m             2026-11-01T12:00:00Z  Orders\n"
    );
    assert_eq!(desk.run("groups show orders --json").await.json()["token_lifetime_seconds"], 900);
    desk.run("groups set orders --token-lifetime default --title Sales").await.done();
    assert_eq!(
        desk.run("groups show orders").await.done(),
        "id:             orders\ntitle:          Sales\ntoken lifetime: (default)\ncreated:        2026-11-01T12:00:00Z\n"
    );
    let kept = desk.run("groups delete orders").await;
    assert_eq!(kept.exit, Exit::Failed);
    assert!(kept.err.contains("named by 1 licence and 0 keys"), "{}", kept.err);
    let forced = desk.run("groups delete orders --force").await;
    assert!(forced.err.contains("the tokens of account \"acme\" issued so far are dead"), "{}", forced.err);
    forced.done();
    assert_eq!(desk.run("groups list --json").await.json(), json!({ "groups": [] }));
}

#[tokio::test]
async fn tokens_are_revoked_and_listed() {
    let (desk, key) = Desk::furnished().await;
    let id = id_of(&key);
    assert!(desk.run("tokens revocations").await.err.contains("no revocations in force"));
    let by_key = desk.run(&format!("tokens revoke --key kb_{id}")).await;
    assert!(by_key.err.contains("the key itself goes on working"), "{}", by_key.err);
    by_key.done();
    let jti = crate::ids::TokenId::random();
    assert_eq!(
        desk.run(&format!("tokens revoke --token={jti} --json")).await.json(),
        json!({ "revocation": {
            "target": "token", "id": jti.to_string(), "tokens_before": null, "made_at": "2026-11-01T12:00:00Z",
            "forget_at": "2026-12-01T12:00:00Z",
        }})
    );
    desk.run("tokens revoke --account acme").await.done();
    desk.run("tokens revoke --all-before 2026-11-01").await.done();
    let listed = desk.run("tokens revocations --json").await.json();
    let targets: std::collections::BTreeSet<&str> =
        listed["revocations"].as_array().unwrap().iter().filter_map(|r| r["target"].as_str()).collect();
    assert_eq!(targets.into_iter().collect::<Vec<_>>(), ["account", "all", "key", "token"]);
    desk.run("tokens revoke --all").await.done();
    assert_eq!(desk.run("tokens revoke").await.exit, Exit::Misuse);
    assert_eq!(desk.run("tokens revoke --all --account acme").await.exit, Exit::Misuse);
    assert_eq!(desk.run("tokens revoke --all-before 2027-01-01").await.exit, Exit::Failed);
}

#[tokio::test]
async fn signing_keys_of_a_new_store_are_none() {
    let desk = Desk::new();
    let listed = desk.run("signing-keys list").await;
    assert!(
        listed.err.ends_with("no signing keys yet; the gateway makes one when it first starts\n"),
        "{}",
        listed.err
    );
    assert_eq!(desk.run("signing-keys list --json").await.json(), json!({ "signing_keys": [] }));
}

#[tokio::test]
async fn a_check_makes_nothing_and_tells_what_leads_nowhere() {
    let desk = Desk::new();
    let fresh = desk.run("check").await;
    assert!(fresh.out.contains("does not exist yet"), "{}", fresh.out);
    assert_eq!(fresh.exit, Exit::Done);
    assert!(!desk.dir.path().join("data").exists(), "a check makes nothing");

    let (desk, _) = Desk::furnished().await;
    let report = desk.run("check").await;
    assert!(report.out.contains("keybearer.db is healthy"), "{}", report.out);
    assert!(report.out.contains("accounts 1, keys 1, licences 1"), "{}", report.out);
    assert!(report.out.contains("route \"sample\" asks for group \"sample\""), "{}", report.out);
    assert_eq!((report.exit, report.err.as_str()), (Exit::Done, "0 faults, 1 warning\n"));
    desk.run("groups create sample").await.done();
    desk.run("groups delete orders --force").await.done();
    let report = desk.run("check --json").await.json();
    assert_eq!(report["ok"], true);
    let warnings: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["level"] == "warning")
        .filter_map(|finding| finding["subject"].as_str())
        .collect();
    assert_eq!(warnings, ["licences"]);

    let rules = "[image_registry]\nservice = 'images'\ncatalog_groups = ['nobody', 'sample']\n[[repositories]]\nmatch = '**'\n\
                 groups = ['sample', 'none']\nactions = ['pull']\n";
    let file = desk.dir.path().join("registry.toml");
    std::fs::write(&file, rules).unwrap();
    let report = desk.run(&format!("check --config {}", file.display())).await;
    for text in ["image_registry.catalog_groups names group \"nobody\"", "repositories[0] names group \"none\""] {
        assert!(report.out.contains(text), "{}", report.out);
    }
    assert_eq!((report.exit, report.err.as_str()), (Exit::Done, "0 faults, 3 warnings\n"));
}

#[tokio::test]
async fn help_and_version_are_data() {
    let desk = Desk::new();
    let help = desk.run("--help").await;
    for command in ["accounts", "keys", "licences", "groups", "tokens", "signing-keys", "check", "try", "health"] {
        assert!(help.out.contains(&format!("  {command} ")), "{}", help.out);
        let own = desk.run(&format!("{command} --help")).await;
        assert!(own.exit == Exit::Done && own.out.contains("Usage:"), "{own:?}");
    }
    assert_eq!(help.err, "");
    assert!(desk.run("--version").await.done().starts_with("keybearer "));
}

#[tokio::test]
async fn doctor_prints_a_proxys_configuration_and_nothing_else_on_stdout() {
    let desk = Desk::new();
    let list = desk.run("doctor proxies").await;
    assert!(list.err.ends_with("hint: keybearer doctor proxies --print nginx\n"), "{}", list.err);
    assert!(list.done().starts_with("PROXY            WHAT\nnginx            nginx, for its conf.d folder\n"));

    let printed = desk.run("doctor proxies --print nginx").await;
    assert!(printed.err.contains("hint: nobody may ask this gateway yet"), "{}", printed.err);
    let text = printed.done();
    assert!(text.starts_with("# nginx in front of an API") && text.ends_with("}\n"), "{text}");
    let authority = desk.dir.path().join("data/tls/ca.pem");
    assert!(text.contains(&format!("\"{}\"", authority.display())), "{text}");

    let json = desk.run("doctor proxies --print caddy --json").await.json();
    assert!(json["text"].as_str().is_some_and(|text| text.contains("forward_auth")), "{json}");
    assert_eq!(desk.run("doctor proxies --print apache").await.exit, Exit::Misuse);
}

#[tokio::test]
async fn the_document_is_that_of_the_configuration() {
    let desk = Desk::new();
    let document = desk.run("openapi").await.json();
    assert_eq!(document["servers"][0]["url"], "https://localhost:8443");
    assert!(document["paths"]["/demo"].is_object());
    assert!(desk.run("openapi --admin").await.json()["paths"]["/metrics"].is_object());
    let mut closed = Desk::new();
    let settings = [("KEYBEARER__DEMO__ENABLED", "false"), ("KEYBEARER__TOKENS__ISSUER", "https://api.example.com")];
    closed.env.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let document = closed.run("openapi").await.json();
    assert_eq!(document["servers"][0]["url"], "https://api.example.com");
    assert!(document["paths"]["/demo"].is_null(), "there is no such door");
}
