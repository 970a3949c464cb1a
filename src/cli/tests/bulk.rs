//! Keys in bulk: taken in, written out, begun anew.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Desk, Exit, id_of};

/// Some hash of our own kind.
const HASH: &str = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

impl Desk {
    /// Imports these lines from a file.
    async fn import(&self, lines: &str, options: &[&str]) -> super::Ran {
        let file = self.dir.path().join("keys.jsonl");
        std::fs::write(&file, lines).expect("a file");
        let mut args = vec!["keys", "import", file.to_str().expect("UTF-8")];
        args.extend(options);
        self.run_args(&args).await
    }
}

fn line(id: &str, more: Value) -> String {
    let mut line = json!({"id": id, "account": "acme", "hash": HASH});
    line.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    line.to_string()
}

#[tokio::test]
async fn keys_are_taken_in_with_all_they_have_and_a_second_time_changes_nothing() {
    let (desk, _) = Desk::furnished().await;
    let full = line(
        "0123456789ab",
        json!({
            "label": "ci", "groups": ["orders"], "networks": ["203.0.113.0/24"], "plan": "ci", "state": "suspended",
            "expires_at": "2027-01-31", "created_at": "2020-01-01T00:00:00Z",
        }),
    );
    let sha = line("0123456789ac", json!({"hash": "ab".repeat(32)}));
    let lines = format!("{full}\n\n{sha}\n");
    let dry = desk.import(&lines, &["--dry-run", "--json"]).await;
    assert_eq!(dry.json(), json!({"imported": 2, "already_there": 0, "dry_run": true}));
    assert_eq!(desk.run("keys show 0123456789ab").await.exit, Exit::Failed, "nothing was written");

    let imported = desk.import(&lines, &[]).await;
    assert_eq!(
        (imported.err.as_str(), imported.out.as_str()),
        (
            "warning: the configuration has no plan \"ci\", so it bounds nothing\n\
             hint: keybearer plans list tells those that there are; [[plans]] adds one\n\
             2 keys imported; 0 are there already\n",
            ""
        )
    );
    assert_eq!(
        desk.run("keys show 0123456789ab --json").await.json(),
        json!({
            "id": "0123456789ab", "name": "kb_0123456789ab", "account": "acme", "label": "ci", "groups": ["orders"],
            "state": "suspended", "expires_at": "2027-01-31T00:00:00Z", "created_at": "2020-01-01T00:00:00Z",
            "networks": ["203.0.113.0/24"], "plan": "ci", "last_used_at": null, "old": null,
        })
    );
    let again = desk.import(&lines, &["--json"]).await;
    assert_eq!(again.json(), json!({"imported": 0, "already_there": 2, "dry_run": false}));
    // Interrupted after the first two: the rest is taken in with the same file.
    let more = format!("{lines}{}\n", line("0123456789ad", json!({})));
    assert_eq!(desk.import(&more, &[]).await.err, "1 key imported; 2 are there already\n", "that key is not new");
    // From standard input, without an end of the last line, and as another system's editor leaves it.
    let last = format!("\u{feff}{}\r\n{}", line("0123456789ae", json!({})), line("0123456789af", json!({})));
    let piped = desk.run_with(&["keys", "import", "-"], last.as_bytes(), &[]).await;
    assert_eq!(piped.err, "2 keys imported; 0 are there already\n");
}

/// When the old secret ends, so do the tokens from before the roll: a roll that is to come would take them all.
#[tokio::test]
async fn a_roll_that_is_taken_in_lies_in_the_past_and_its_grace_within_bounds() {
    let (desk, _) = Desk::furnished().await;
    let old = |more: Value| {
        let mut old = json!({"hash": HASH, "rolled_at": "2099-01-01"});
        old.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        line("0123456789ab", json!({"old": old}))
    };
    let refused = desk.import(&old(json!({"grace_seconds": 2_592_001})), &[]).await;
    assert!(refused.err.contains("line 1: `old`: a grace is") && refused.err.contains("30d"), "{}", refused.err);
    desk.import(&old(json!({"ends_at": "2026-11-02"})), &[]).await.done();
    let shown = desk.run("keys show 0123456789ab --json").await.json();
    assert_eq!(shown["old"]["rolled_at"], "2026-11-01T12:00:00Z");
}

/// The first key may be in use, and hashed anew, before the last is there.
#[tokio::test]
async fn an_import_is_begun_anew_though_a_key_was_used_meanwhile() {
    let (desk, _) = Desk::furnished().await;
    let exported = desk.run("keys export").await.done();
    let line: Value = serde_json::from_str(&exported).expect("one line");
    let hash = line["hash"].as_str().expect("a hash").to_owned();
    let with = |hash: &str| {
        let mut line = line.clone();
        line["hash"] = json!(hash);
        line.to_string()
    };
    assert!(hash.starts_with("$argon2id$v=19$m=8192,t=1,p=1$"), "today's parameters: {hash}");
    for before in [&*hash.replace("m=8192", "m=4096"), &"ab".repeat(32)] {
        assert_eq!(desk.import(&with(before), &[]).await.err, "0 keys imported; 1 is there already\n", "{before}");
    }
    let (made_with, output) = hash.rsplit_once('$').expect("a PHC string");
    let first = if output.starts_with('A') { 'B' } else { 'A' };
    let other = desk.import(&with(&format!("{made_with}${first}{}", &output[1..])), &[]).await;
    assert!(other.err.contains("not as this line has it"), "another secret: {}", other.err);
}

/// A key that is taken in holds a seat as one that was created does.
#[tokio::test]
async fn no_more_keys_are_taken_in_than_there_are_seats() {
    let (desk, _) = Desk::furnished().await;
    let seats = async |seats: &str| {
        let listed = desk.run("licences list --json").await.json();
        let id = listed["licences"][0]["id"].as_str().expect("a licence").to_owned();
        assert_eq!(desk.run(&format!("licences upgrade {id} --seats {seats}")).await.exit, Exit::Done);
    };
    // One is held already.
    seats("3").await;
    let gone = line("0123456789aa", json!({"state": "revoked"}));
    let two = format!("{gone}\n{}\n{}\n", line("0123456789ab", json!({})), line("0123456789ac", json!({})));
    let three = format!("{two}{}\n", line("0123456789ad", json!({"state": "suspended"})));
    let refused = desk.import(&three, &[]).await;
    assert_eq!(refused.exit, Exit::Failed);
    assert!(refused.err.contains("line 4: account \"acme\" has 3 seats"), "{}", refused.err);
    assert_eq!(desk.run("keys show 0123456789ab").await.exit, Exit::Failed, "nothing was written");
    assert_eq!(desk.import(&two, &[]).await.err, "3 keys imported; 0 are there already\n");
    // What is there takes no second seat, though there are fewer now.
    seats("1").await;
    assert_eq!(desk.import(&two, &[]).await.err, "0 keys imported; 3 are there already\n");
}

#[tokio::test]
async fn every_fault_is_told_with_its_line_and_nothing_is_written() {
    let (desk, key) = Desk::furnished().await;
    let present = id_of(&key).to_owned();
    let cases = [
        (line("0123456789ab", json!({})), None),
        ("{".to_owned(), Some("it is no key in JSON")),
        (line("short", json!({})), Some("a key id is 12 letters and digits (column")),
        (line("0123456789ab", json!({})), Some("the id 0123456789ab is in a line before")),
        (line("0123456789ac", json!({"account": "nobody"})), Some("there is no account \"nobody\"")),
        (line("0123456789ad", json!({"account": "demo"})), Some("are built in")),
        (line("0123456789ae", json!({"groups": ["none"]})), Some("there is no group \"none\"")),
        (line("0123456789af", json!({"groups": []})), Some("`groups` has at least one")),
        (line("0123456789ag", json!({"hash": "open sesame"})), Some("`hash` is no hash that can be used")),
        (line("0123456789ah", json!({"networks": ["203.0.113.7/24"]})), Some("203.0.113.0/24")),
        (line("0123456789ai", json!({"label": "two\nlines"})), Some("`label`")),
        (line("0123456789aj", json!({"expires_at": "soon"})), Some("write a date")),
        (line("0123456789ak", json!({"secret": "x"})), Some("unknown field `secret`")),
        (line("0123456789al", json!({"old": {"hash": HASH, "rolled_at": "2026-01-01"}})), Some("`ends_at` or")),
        (line(&present, json!({})), Some("is there already, and not as this line has it")),
    ];
    let mut lines = String::new();
    for (text, _) in &cases {
        writeln!(lines, "{text}").expect("a string");
    }
    let refused = desk.import(&lines, &[]).await;
    assert_eq!(refused.exit, Exit::Failed);
    for (number, (_, says)) in cases.iter().enumerate() {
        let told = refused.err.lines().find(|told| told.starts_with(&format!("line {}: ", number + 1)));
        match says {
            Some(says) => assert!(told.is_some_and(|told| told.contains(says)), "{number} {says}: {told:?}"),
            None => assert_eq!(told, None),
        }
    }
    assert!(refused.err.ends_with("error: 14 lines cannot be taken in; nothing was written\n"), "{}", refused.err);
    assert!(!refused.err.contains("open sesame"), "what may be a secret is not repeated");
    assert_eq!(desk.run("keys show 0123456789ab").await.exit, Exit::Failed);

    let many: String = (0..150).map(|_| "{}\n").collect();
    let refused = desk.import(&many, &[]).await;
    assert!(refused.err.contains("line 100: ") && !refused.err.contains("line 101: "), "{}", refused.err);
    assert!(refused.err.contains("… and 50 more\n"), "{}", refused.err);
    let long = desk.import(&"x".repeat(70_000), &[]).await;
    assert!(long.exit == Exit::Failed && long.err.contains("line 1 is too long"), "{}", long.err);
    let nowhere = desk.run("keys import /nowhere.jsonl").await;
    assert!(nowhere.exit == Exit::Failed && nowhere.err.contains("could not be read"), "{}", nowhere.err);
}

#[tokio::test]
async fn what_is_told_of_a_file_plays_no_tricks_with_the_terminal() {
    let (desk, _) = Desk::furnished().await;
    let refused = desk.import("{\"\\u001b]0;x\\u0007\\u202e\": 1}\n", &[]).await;
    assert!(refused.err.starts_with("line 1: unknown field `\\u{1b}]0;x\\u{7}\\u{202e}` (column"), "{:?}", refused.err);
}

#[tokio::test]
async fn what_is_written_out_is_taken_in_elsewhere_as_it_was() {
    let (desk, key) = Desk::furnished().await;
    let id = id_of(&key).to_owned();
    desk.run(&format!("keys roll {id} --grace 7d --start now")).await.done();
    desk.run("keys create acme --group orders --allow 203.0.113.0/24 --expires 90d").await.done();
    let revoked = desk.run("keys create acme --json").await.json()["key"]["id"].as_str().expect("an id").to_owned();
    desk.run(&format!("keys revoke {revoked}")).await.done();
    let exported = desk.run("keys export").await;
    assert!(
        exported.err.ends_with("3 keys, with their hashes: keep them as secret as the database\n"),
        "{}",
        exported.err
    );
    let lines = exported.done();
    assert_eq!(lines.lines().count(), 3);
    assert!(lines.contains("\"ends_at\":\"2026-11-08T12:00:00Z\""), "a secret that still works goes with its key");

    let (other, own) = Desk::furnished().await;
    assert_eq!(other.import(&lines, &[]).await.err, "3 keys imported; 0 are there already\n");
    other.run(&format!("keys revoke {}", id_of(&own))).await.done();
    let without_own = |text: String| -> Vec<String> {
        text.lines().filter(|line| !line.contains(id_of(&own))).map(str::to_owned).collect()
    };
    assert_eq!(without_own(other.run("keys export").await.done()), without_own(lines));
    assert_eq!(other.run("keys export --account nobody").await.exit, Exit::Failed);
}

#[tokio::test]
async fn many_keys_are_taken_in_with_progress() {
    let (desk, _) = Desk::furnished().await;
    let mut lines = String::new();
    for number in 0..20_500 {
        writeln!(lines, "{}", line(&format!("k{number:011}"), json!({}))).expect("a string");
    }
    let imported = desk.import(&lines, &[]).await;
    assert_eq!(
        imported.err,
        "10000 lines looked at\n20000 lines looked at\n10000 of 20500 written\n20000 of 20500 written\n\
         20500 keys imported; 0 are there already\n"
    );
    assert_eq!(desk.import(&lines, &["--json"]).await.json()["already_there"], 20_500);
}

#[tokio::test]
async fn a_password_is_taken_over_by_its_hash() {
    let desk = Desk::new();
    let bcrypt = b"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";
    desk.run_with(&["accounts", "create", "bob", "--hash-stdin"], bcrypt, &[]).await.done();
    assert_eq!(desk.run("accounts show bob --json").await.json()["has_password"], true);
    for (hash, says) in [("open sesame", "no hash that can be used"), (&*"ab".repeat(32), "keeps no password")] {
        let refused = desk.run_with(&["accounts", "set-password", "bob", "--hash-stdin"], hash.as_bytes(), &[]).await;
        assert!(refused.exit == Exit::Failed && refused.err.contains(says), "{}", refused.err);
        assert!(!refused.err.contains(hash));
    }
}
