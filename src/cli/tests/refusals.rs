//! What commands say when they cannot do what they are asked for, and that nothing is lost by it.

use std::os::unix::fs::PermissionsExt;

use super::{Desk, Exit};

#[tokio::test]
async fn what_does_not_exist_is_told_with_what_to_do() {
    let (desk, _) = Desk::furnished().await;
    for (line, says) in [
        ("accounts show nobody", "error: there is no account \"nobody\"\nhint: keybearer accounts list"),
        ("keys create nobody", "error: there is no account \"nobody\"\nhint: keybearer accounts list"),
        ("keys show 0123456789ab", "error: there is no key 0123456789ab\nhint: keybearer keys list"),
        ("keys create acme --group none", "error: there is no group \"none\"\nhint: keybearer groups list"),
        ("licences grant acme --group none", "error: there is no group \"none\"\nhint: keybearer groups list"),
        ("licences grant acme --group demo", "error: the Demo group is open to anyone and needs no licence"),
        ("licences show 0123456789ab", "error: there is no licence 0123456789ab\nhint: keybearer licences list"),
        ("tokens revoke --account nobody", "error: there is no account \"nobody\"\nhint:"),
        ("accounts create demo", "error: \"demo\" is the built-in account"),
        ("accounts create acme", "error: there is an account \"acme\" already"),
        ("accounts create kb_x", "error: an account name may not begin with \"kb_\""),
        ("keys revoke demodemodemo", "error: the demo account and its published key are built in"),
        ("accounts set-expiry acme 2020-01-01", "error: the end 2020-01-01T00:00:00Z is in the past"),
    ] {
        let ran = desk.run(line).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Failed, ""), "{line}");
        assert!(ran.err.starts_with(says), "{line}: {}", ran.err);
    }
}

#[tokio::test]
async fn misuse_is_told_on_standard_error() {
    let desk = Desk::new();
    for line in [
        "",
        "accounts",
        "keys frobnicate",
        "keys show not-an-id",
        "accounts create a:b",
        "keys create a --expires soon",
        "licences grant a",
        "groups set g",
    ] {
        let ran = desk.run(line.trim()).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Misuse, ""), "{line:?}: {}", ran.err);
        assert!(!ran.err.is_empty(), "{line:?}");
    }
}

#[tokio::test]
async fn every_fault_of_the_configuration_is_told() {
    let mut desk = Desk::new();
    desk.env.push(("KEYBEARER__TOKENS__LIFETIME".into(), "soon".into()));
    desk.env.push(("KEYBEARER__SIGNING__RSA_BITS".into(), "512".into()));
    for line in ["accounts list", "check"] {
        let ran = desk.run(line).await;
        assert_eq!(ran.exit, Exit::Failed);
        let said = format!("{}{}", ran.out, ran.err);
        assert!(said.contains("tokens.lifetime") && said.contains("signing.rsa_bits"), "{line}: {said}");
    }
}

#[tokio::test]
async fn a_store_in_memory_has_nothing_to_manage() {
    let mut desk = Desk::new();
    desk.env.push(("KEYBEARER__STORE".into(), "memory".into()));
    let ran = desk.run("accounts list").await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("live in the gateway's process alone") && ran.err.contains("hint: "), "{}", ran.err);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_as_it_is() {
    let desk = Desk::new();
    let data = desk.dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let file = data.join("keybearer.db");
    let garbage = "this is no database, but somebody's notes\n".repeat(100);
    std::fs::write(&file, &garbage).unwrap();
    for line in ["accounts list", "accounts create acme", "check"] {
        let ran = desk.run(line).await;
        assert_eq!(ran.exit, Exit::Failed, "{ran:?}");
        assert!(format!("{}{}", ran.out, ran.err).contains("is not a keybearer database"), "{ran:?}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), garbage);
}

#[tokio::test]
async fn a_data_folder_is_made_for_its_owner_alone() {
    let (desk, _) = Desk::furnished().await;
    let mode = std::fs::metadata(desk.dir.path().join("data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_made_is_told() {
    let desk = Desk::new();
    std::fs::write(desk.dir.path().join("data"), "a file").unwrap();
    let ran = desk.run("accounts list").await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("could not be made") && ran.err.contains("hint: name another one"), "{}", ran.err);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_a_fault() {
    let mut desk = Desk::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let write = |name: &str, text: String| {
        let path = desk.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = write("cert.pem", made.cert.pem());
    let (key, wrong) =
        (write("key.pem", made.signing_key.serialize_pem()), write("wrong.pem", other.signing_key.serialize_pem()));
    let env = desk.env.clone();
    for (key, exit, says) in [
        (key.as_str(), Exit::Done, "the certificate for localhost is valid until"),
        (&wrong, Exit::Failed, "wrong.pem"),
        (&certificate, Exit::Failed, "key"),
        ("/nonexistent/key.pem", Exit::Failed, "/nonexistent/key.pem"),
    ] {
        desk.env = env.clone();
        desk.env.push(("KEYBEARER__TLS__CERTIFICATE".into(), certificate.clone()));
        desk.env.push(("KEYBEARER__TLS__PRIVATE_KEY".into(), key.to_owned()));
        let ran = desk.run("check").await;
        assert_eq!(ran.exit, exit, "{key}: {ran:?}");
        assert!(ran.out.contains(says), "{key}: {}", ran.out);
    }
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_told() {
    let desk = Desk::new();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ca = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = desk.dir.path().join("ca.pem");
    std::fs::write(&file, ca.cert.pem()).unwrap();
    let url = format!("https://127.0.0.1:{port}");
    let ran = desk.run_args(&["try", &url, "--cacert", file.to_str().unwrap()]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(
        ran.err.contains("refused the connection\nhint: is the gateway running? Start it with keybearer serve"),
        "{}",
        ran.err
    );
    let plain = desk.run("try http://localhost:8443").await;
    assert_eq!(plain.exit, Exit::Misuse);
    assert!(plain.err.contains("must begin with https://"), "{}", plain.err);
    let health = desk.run("health").await;
    assert_eq!(health.exit, Exit::Failed);
    assert!(health.err.contains("ca.pem does not exist\nhint: is the gateway running"), "{}", health.err);
}
