//! No output of any command holds the secret half of a key, but the one that creates it.

use super::{Desk, Exit, id_of};

#[tokio::test]
async fn a_key_is_seen_once_and_never_again() {
    let (desk, key) = Desk::furnished().await;
    let id = id_of(&key).to_owned();
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJqdGkiOiJBQUFBQUFBQUFBQUFBQUFBQUFBQUFBIn0.c2lnbmF0dXJl";
    let option = format!("--key={key}");
    let lines: Vec<Vec<&str>> = vec![
        vec!["keys", "list"],
        vec!["keys", "list", "--json"],
        vec!["keys", "show", &key],
        vec!["keys", "show", &key, "--json"],
        vec!["keys", "suspend", &key],
        vec!["keys", "resume", &key],
        vec!["keys", "set-expiry", &key, "30d"],
        vec!["keys", "set-groups", &key, "--group", "orders"],
        vec!["keys", "set-label", &id, "build"],
        vec!["tokens", "revoke", "--key", &key],
        vec!["tokens", "revoke", &option],
        vec!["tokens", "revoke", "--token", jwt],
        vec!["tokens", "revocations"],
        vec!["accounts", "show", &key],
        vec!["accounts", "create", &key],
        vec!["licences", "show", &key],
        vec!["groups", "create", &key],
        vec!["try", "http://localhost", "--path", &key],
        vec!["keys", &key],
        vec![&key],
        vec!["keys", "revoke", &key],
        vec!["keys", "resume", &key],
        vec!["check"],
    ];
    // Neither the whole secret nor the first half of it.
    let secret = &key["kb_0123456789ab_".len()..];
    for line in &lines {
        let ran = desk.run_args(line).await;
        for (stream, text) in [("stdout", &ran.out), ("stderr", &ran.err)] {
            assert!(!text.contains(&secret[..16]), "{stream} of {} {}: {text}", line[0], line.get(1).unwrap_or(&""));
            assert!(!text.contains("eyJqdGki"), "{stream} of {} {}: {text}", line[0], line.get(1).unwrap_or(&""));
        }
        if line.contains(&key.as_str()) {
            assert!(ran.err.contains("warning: a whole API key was on the command line"), "{}", ran.err);
        }
    }
    let shown = desk.run_args(&["keys", "show", &key]).await;
    assert!(shown.exit == Exit::Done && shown.out.contains("revoked"), "a pasted key names its id: {shown:?}");
}

#[tokio::test]
async fn a_secret_alone_in_the_place_of_an_id_is_not_repeated() {
    let (desk, key) = Desk::furnished().await;
    let secret = &key["kb_0123456789ab_".len()..];
    let ran = desk.run_args(&["keys", "show", secret]).await;
    assert_eq!(ran.exit, Exit::Misuse);
    assert!(!ran.err.contains(secret), "{}", ran.err);
}

#[tokio::test]
async fn a_password_is_never_repeated() {
    let desk = Desk::new();
    desk.run_with(&["accounts", "create", "acme", "--password-stdin"], b"correct horse battery", &[]).await.done();
    for line in ["accounts show acme", "accounts list --json", "accounts clear-password acme --json"] {
        let ran = desk.run(line).await;
        assert!(!format!("{}{}", ran.out, ran.err).contains("horse"), "{ran:?}");
        assert!(!format!("{}{}", ran.out, ran.err).contains("argon2"), "{ran:?}");
    }
    let bad = desk.run_with(&["accounts", "set-password", "acme", "--password-stdin"], b"horse\x07battery", &[]).await;
    assert_eq!(bad.exit, Exit::Failed);
    assert!(!bad.err.contains("horse"), "{}", bad.err);
}
