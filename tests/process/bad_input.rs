//! Bad files and bad settings: one clear message, the right exit status, nothing lost.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{CertificateParams, KeyPair};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::installation::{Done, Installation, SERVE, Server, finish};

const NOBODY: u32 = 65534;

/// Asserts that a command failed for a reason its user can mend, that it said so once, and that the message says all of
/// `words`. The message is printed: `--nocapture` shows them all.
#[track_caller]
pub fn refused(what: &str, done: &Done, words: &[&str]) {
    println!("{what}: {}", done.stderr.trim_end());
    assert_eq!(done.code(), Some(1), "{what}: {done}");
    assert_eq!(done.stderr.matches("error: ").count(), 1, "{what}: one message: {done}");
    assert!(!done.stderr.contains("panicked") && !done.stdout.contains("panicked"), "{what}: {done}");
    for word in words {
        assert!(done.stderr.contains(word), "{what} does not say {word:?}: {done}");
    }
}

/// `serve`, which ends by itself.
#[track_caller]
fn serve(installation: &Installation) -> Done {
    Server::start(installation.command(SERVE)).expect_end()
}

#[test]
fn every_fault_of_a_configuration_is_told_at_once() {
    let installation = Installation::with(
        "frobnicate = true\n\n[server]\nlisten = \"nowhere\"\nshutdown_grace = \"a while\"\n\n\
         [tokens]\nlifetme = \"1h\"\nissuer = \"http://localhost\"\n\n[[routes]]\nid = \"sample\"\npath = \"/token/x\"\n\
         groups = [\"Sample Group\"]\nresource = \"teapot\"\n",
    );
    let words = [
        "demo.frobnicate",
        "server.listen",
        "server.shutdown_grace",
        "tokens.lifetme",
        "lifetime",
        "tokens.issuer",
        "routes[0].groups[0]",
        "routes[0].resource",
        "faults:",
    ];
    refused("several faults, serve", &serve(&installation), &words);
    refused("several faults, another command", &installation.run(&["keys", "list"]), &words);
    let check = installation.run(&["check"]);
    assert_eq!(check.code(), Some(1), "{check}");
    words[..8].iter().for_each(|word| assert!(check.stdout.contains(word), "{word}: {check}"));
    assert!(!installation.data_dir().exists(), "nothing was made");
}

#[test]
fn a_configuration_that_is_no_text_or_not_there_is_told() {
    let installation = Installation::new();
    let with = |path: &Path| {
        let mut command = crate::installation::program();
        command.args(["check", "--config"]).arg(path);
        let done = finish(command, b"");
        println!("{}: {}", path.display(), done.stdout.trim_end());
        assert_eq!(done.code(), Some(1), "{done}");
        assert!(done.stdout.contains(path.to_str().unwrap()), "{done}");
        done.stdout
    };
    assert!(with(&installation.path("missing.toml")).contains("correct --config"));
    assert!(with(&installation.file("latin.toml", b"# f\xfcr\n")).contains("UTF-8"));
    assert!(with(&installation.file("broken.toml", "[server\nlisten = 1\n")).contains(":1:"));
    with(installation.path("").as_path());

    let mut command = installation.command(SERVE);
    command.env("KEYBEARER__TOKENS__LIFETIME", "forever");
    let done = Server::start(command).expect_end();
    refused("a bad variable", &done, &["tokens.lifetime", "KEYBEARER__TOKENS__LIFETIME"]);
}

#[test]
fn a_port_that_is_taken_is_told_with_its_setting() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = taken.local_addr().expect("an address").to_string();
    let start = |listen: &str, admin: &str| {
        Server::start(installation.command(&["serve", "--listen", listen, "--admin-listen", admin]))
    };
    let free = "127.0.0.1:0";
    let words = [address.as_str(), "another program", "hint: "];
    refused("port taken", &start(&address, free).expect_end(), &[&words[..], &["server.listen"]].concat());
    refused("admin port taken", &start(free, &address).expect_end(), &[&words[..], &["server.admin_listen"]].concat());
    refused("no such address", &start("192.0.2.1:0", free).expect_end(), &["192.0.2.1:0", "no such address"]);
    // Root may listen anywhere, so there is nothing to refuse.
    if !rustix::process::geteuid().is_root() {
        refused("a port below 1024", &start("127.0.0.1:443", free).expect_end(), &["from 1024"]);
    }
    drop(taken);
    let server = start(&address, free).expect_serving(&installation);
    server.client().with_key(&acme.key).token();
}

#[test]
fn a_signing_key_that_cannot_be_used_is_told_with_its_file() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    let before = installation.serve();
    let token = before.client().with_key(&acme.key).token();
    before.stop();
    let with = |path: &Path| {
        let mut command = installation.command(SERVE);
        command.env("KEYBEARER__SIGNING__PRIVATE_KEY_FILE", path);
        Server::start(command).expect_end()
    };
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIFHDBOBgkqhkiG9w0BBQ0wQTApBgkqhkiG9w0BBQwwHAQI\n\
                     -----END ENCRYPTED PRIVATE KEY-----\n";
    let cases = [
        ("missing", installation.path("missing.pem"), "No such file"),
        ("a folder", installation.path(""), "directory"),
        ("empty", installation.file("empty.pem", ""), "not a PEM private key"),
        ("garbage", installation.file("garbage.pem", b"\x00\xffgarbage"), "not a PEM private key"),
        ("encrypted", installation.file("encrypted.pem", encrypted), "encrypted"),
        (
            "of another kind",
            installation.file("ec.pem", KeyPair::generate().unwrap().serialize_pem()),
            "set signing.algorithm = \"ES256\"",
        ),
    ];
    for (what, path, word) in cases {
        refused(&format!("signing key, {what}"), &with(&path), &["signing key ", path.to_str().unwrap(), word]);
    }
    if has_openssl() {
        let small = installation.path("small.pem");
        let made = Command::new("openssl").args(["genrsa", "-out"]).arg(&small).arg("1024").output();
        assert!(made.is_ok_and(|output| output.status.success()));
        refused("signing key, too small", &with(&small), &["not a private key for RS256 (RSA of 2048 bits or more)"]);
    }
    // Nothing is lost by the attempts: the old key signs and verifies.
    let after = installation.serve();
    assert_eq!(after.client().status("/sample/x", &token), 200);
}

#[test]
fn a_master_key_that_cannot_be_used_is_told_with_its_file() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    let master = installation.file("master.key", "00".repeat(32));
    let command = |path: Option<&Path>| {
        let mut command = installation.command(SERVE);
        if let Some(path) = path {
            command.env("KEYBEARER__SIGNING__MASTER_KEY_FILE", path);
        }
        Server::start(command)
    };
    let server = command(Some(&master)).expect_serving(&installation);
    let token = server.client().with_key(&acme.key).token();
    server.stop();
    let file = |name: &str, content: &[u8]| installation.file(name, content);
    let cases = [
        ("missing", installation.path("missing.key"), "there is no such file"),
        ("a folder", installation.path(""), "directory"),
        ("empty", file("empty.key", b""), "does not hold 32 bytes"),
        ("garbage", file("garbage.key", b"\x00\xffgarbage"), "does not hold 32 bytes"),
        ("too short", file("short.key", b"AAAA"), "holds 3 bytes and a master key has 32"),
        ("another one", file("other.key", "11".repeat(32).as_bytes()), "and the one that is given is"),
    ];
    for (what, path, word) in cases {
        refused(&format!("master key, {what}"), &command(Some(&path)).expect_end(), &[word]);
    }
    refused("no master key", &command(None).expect_end(), &["is sealed under master key", "signing.master_key_file"]);
    // Nothing is lost by the attempts.
    let server = command(Some(&master)).expect_serving(&installation);
    assert_eq!(server.client().status("/sample/x", &token), 200);
}

fn has_openssl() -> bool {
    let found = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("SKIPPED: openssl is not installed");
    }
    found
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_with_its_file() {
    let installation = Installation::new();
    let key = KeyPair::generate().expect("a key");
    let certificate = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        change(&mut params);
        params.self_signed(&key).expect("a certificate").pem()
    };
    let good = installation.file("good.crt", certificate(&|_| {}));
    let good_key = installation.file("good.key", key.serialize_pem());
    let expired = installation.file(
        "expired.crt",
        certificate(&|params| {
            params.not_before = rcgen::date_time_ymd(2019, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }),
    );
    let early = installation.file(
        "early.crt",
        certificate(&|params| {
            params.not_before = rcgen::date_time_ymd(2999, 1, 1);
            params.not_after = rcgen::date_time_ymd(2999, 2, 1);
        }),
    );
    let garbage = installation.file("garbage", b"\x00\xffgarbage");
    let other_key = installation.file("other.key", KeyPair::generate().expect("a key").serialize_pem());
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted = installation.file("encrypted.key", encrypted);
    let missing = installation.path("missing");
    let cases: [(&str, &PathBuf, &PathBuf, &[&str]); 8] = [
        ("expired", &expired, &good_key, &["expired.crt expired at 2020-01-01", "renew"]),
        ("not valid yet", &early, &good_key, &["early.crt is not valid before 2999-01-01"]),
        ("not matching", &good, &other_key, &["other.key does not belong to the certificate in", "good.crt"]),
        ("garbage", &garbage, &good_key, &["garbage has no PEM certificate"]),
        ("garbage key", &good, &garbage, &["garbage has no PEM private key"]),
        ("encrypted key", &good, &encrypted, &["encrypted.key is encrypted", "openssl pkey"]),
        ("exchanged", &good_key, &good, &["exchanged"]),
        ("both missing", &missing, &missing, &["missing does not exist", "\ntls: "]),
    ];
    for (what, certificate, key, words) in cases {
        installation.configure(&format!("[tls]\ncertificate = {certificate:?}\nprivate_key = {key:?}\n"));
        refused(&format!("certificate, {what}"), &serve(&installation), words);
        let check = installation.run(&["check"]);
        assert_eq!(check.code(), Some(1), "{check}");
        assert!(check.stdout.contains(words[0]), "{check}");
    }
    installation.configure(&format!("[tls]\ncertificate = {good:?}\n"));
    refused("certificate without key", &serve(&installation), &["tls.certificate", "tls.private_key"]);
    installation.configure(&format!("[tls]\ncertificate = {good:?}\nprivate_key = {good_key:?}\n"));
    Server::start(installation.command(SERVE)).expect_serving(&installation).stop();
}

/// Runs SQL on a database that nobody else has open.
fn sql(path: &Path, statements: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut connection = options.connect().await.expect("a connection");
        sqlx::raw_sql(statements).execute(&mut connection).await.expect("done");
        connection.close().await.expect("closed");
    });
}

#[test]
fn a_file_that_is_no_database_of_ours_is_told_and_left_as_it_is() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    let original = fs::read(installation.database()).expect("a database");
    let put = |content: &[u8]| fs::write(installation.database(), content).expect("a written file");

    let of_another_program = installation.path("other.db");
    sql(&of_another_program, "CREATE TABLE songs (name TEXT); INSERT INTO songs VALUES ('a song');");
    let marked = installation.path("marked.db");
    sql(&marked, "PRAGMA application_id = 7; CREATE TABLE songs (name TEXT);");
    let newer = installation.path("newer.db");
    fs::write(&newer, &original).expect("a copy");
    sql(&newer, "PRAGMA user_version = 99;");
    let read = |path: &Path| fs::read(path).expect("a database");

    let no_database = "is not a keybearer database; move it away";
    let cases: [(&str, Vec<u8>, &[&str]); 6] = [
        ("garbage", b"garbage ".repeat(2000), &[no_database, "left untouched"]),
        ("short garbage", b"x".to_vec(), &[no_database, "left untouched"]),
        ("of another program", read(&of_another_program), &[no_database, "left untouched"]),
        ("with another program's mark", read(&marked), &[no_database, "left untouched"]),
        ("newer", read(&newer), &["schema 99", "newer keybearer", "left untouched"]),
        ("cut in half", original[..original.len() / 2].to_vec(), &["the database is damaged", "restore a backup"]),
    ];
    for (what, content, words) in cases {
        put(&content);
        refused(&format!("database, {what}, serve"), &serve(&installation), words);
        refused(&format!("database, {what}, keys create"), &installation.run(&["keys", "create", "acme"]), words);
        let check = installation.run(&["check"]);
        assert_eq!(check.code(), Some(1), "{what}: {check}");
        assert!(check.stdout.contains(words[0]), "{what}: {check}");
        assert!(read(&installation.database()) == content, "{what}: it was written to");
    }

    put(&original);
    let server = installation.serve();
    server.client().with_key(&acme.key).token();
}

/// Damage in the middle of the file: what can be read is served or refused, and `check` finds it.
#[test]
fn damage_in_the_database_is_found_by_check() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    for _ in 0..20 {
        installation.ok(&["keys", "create", "acme"]);
    }
    let original = fs::read(installation.database()).expect("a database");
    const PAGE: usize = 4096;
    for page in 1..original.len() / PAGE {
        let mut damaged = original.clone();
        damaged[page * PAGE..(page + 1) * PAGE].fill(0xa5);
        fs::write(installation.database(), &damaged).expect("a written file");
        let check = installation.run(&["check"]);
        assert_eq!(check.code(), Some(1), "page {page}: {check}");
        assert!(check.stdout.contains("fault    store"), "page {page}: {check}");
        let list = installation.run(&["keys", "list"]);
        assert!(!list.stderr.contains("panicked"), "page {page}: {list}");
    }
    fs::write(installation.database(), &original).expect("a written file");
    installation.ok(&["check"]);
    installation.serve().client().with_key(&acme.key).token();
}

#[test]
fn a_data_folder_that_cannot_be_one_is_told() {
    let there = Installation::new();
    let file = there.file("file", "a file");
    let commands: [&[&str]; 2] = [SERVE, &["keys", "list"]];
    for command in commands {
        let installation = Installation::at(&file);
        refused("data folder is a file", &installation.run(command), &[file.to_str().unwrap(), "hint: "]);
        let below = file.join("data");
        let installation = Installation::at(&below);
        refused("data folder below a file", &installation.run(command), &[below.to_str().unwrap(), "hint: "]);
    }
    assert_eq!(fs::read(&file).expect("the file"), b"a file");
}

#[test]
fn a_data_folder_that_may_not_be_written_is_told() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    installation.serve().stop();
    let root = rustix::process::geteuid().is_root();
    // Root may write anywhere: the commands run as nobody then, who may read the configuration and no more.
    fs::set_permissions(installation.path(""), Permissions::from_mode(0o755)).expect("a mode");
    let run = |args: &[&str]| {
        let mut command = installation.command(args);
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        finish(command, b"")
    };
    if root && run(&["--version"]).code().is_none_or(|code| code > 2) {
        println!("SKIPPED: the program may not be run by nobody");
        return;
    }
    let data = installation.data_dir();
    let modes: [(&str, u32); 2] = [("not readable", 0o000), ("not writable", 0o500)];
    for (what, mode) in modes {
        fs::set_permissions(data, Permissions::from_mode(mode)).expect("a mode");
        let words = ["may not be read and written by this user", "keybearer.db"];
        refused(&format!("data folder {what}, serve"), &run(SERVE), &words[..1]);
        refused(&format!("data folder {what}, keys create"), &run(&["keys", "create", "acme"]), &words[..1]);
    }
    // Readable to all, and the database too, but not writable: as after a restore by root.
    fs::set_permissions(data, Permissions::from_mode(0o755)).expect("a mode");
    if root {
        fs::set_permissions(installation.database(), Permissions::from_mode(0o644)).expect("a mode");
        refused("database not writable", &run(&["keys", "list"]), &["keybearer.db may not be read and written"]);
    }
    // Where there is no folder yet and none may be made.
    let parent = installation.path("locked");
    fs::create_dir(&parent).expect("a folder");
    fs::set_permissions(&parent, Permissions::from_mode(0o555)).expect("a mode");
    let elsewhere = Installation::at(&parent.join("data"));
    fs::set_permissions(elsewhere.path(""), Permissions::from_mode(0o755)).expect("a mode");
    let mut command = elsewhere.command(SERVE);
    if root {
        command.uid(NOBODY).gid(NOBODY);
    }
    refused(
        "data folder cannot be made",
        &finish(command, b""),
        &["locked/data may not be read and written by this user"],
    );

    fs::set_permissions(data, Permissions::from_mode(0o700)).expect("a mode");
    let server = installation.serve();
    server.client().with_key(&acme.key).token();
    let mode = fs::metadata(installation.database()).expect("a database").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "private again");
}

#[test]
fn every_fault_of_upstreams_and_their_routes_is_told_at_once() {
    let installation = Installation::with(
        "[[routes]]\nid = \"orders\"\npath = \"/orders/*\"\ngroups = []\nupstream = \"order\"\nresource = \"echo\"\n\
         token_end = \"soon\"\nbody_bytes = \"ten\"\n\n\
         [[routes]]\nid = \"orders\"\nhosts = [\"*.*.example.com\"]\npath = \"/a/{b\"\ngroups = []\nforward_auth = true\n\
         strip_prefix = \"/a\"\n\n\
         [[routes]]\nid = \"third\"\npath = \"/third/*\"\ngroups = []\nupstream = \"order\"\n\n\
         [[upstreams]]\nid = \"orders\"\ntargets = [\"ftp://127.0.0.1\", \"http://127.0.0.1:9000/path\"]\n\
         balance = \"random\"\nprotocol = \"spdy\"\nmax_requests = 0\nconnect_timeout = \"0s\"\nretrys = 3\n\
         [upstreams.health]\npath = \"healthz\"\n[upstreams.tls]\ncertificate = \"client.pem\"\n\n\
         [[upstreams]]\nid = \"orders\"\ntargets = []\nhost = \"a b\"\n\n\
         [forward_auth]\ntrusted = [\"everyone\"]\ngrpc_listen = \"8445\"\nunix_sockt = \"/run/authz.sock\"\n",
    );
    let words = [
        "routes[0].token_end",
        "routes[0].body_bytes",
        "routes[0].upstream",
        "routes[1].hosts[0]",
        "routes[1].path",
        "routes[1].strip_prefix",
        "upstreams[0].targets[0]",
        "upstreams[0].targets[1]",
        "upstreams[0].balance",
        "upstreams[0].protocol",
        "upstreams[0].max_requests",
        "upstreams[0].connect_timeout",
        "upstreams[0].retrys",
        "retries",
        "upstreams[0].health.path",
        "upstreams[0].tls.certificate",
        "upstreams[1].host",
        "forward_auth.trusted[0]",
        "forward_auth.grpc_listen",
        "forward_auth.unix_sockt",
        "unix_socket",
    ];
    refused("faults of upstreams, serve", &serve(&installation), &words);
    let check = installation.run(&["check"]);
    assert_eq!(check.code(), Some(1), "{check}");
    words.iter().for_each(|word| assert!(check.stdout.contains(word), "{word}: {check}"));
}

#[test]
fn an_upstream_that_is_not_there_and_faults_between_sections_are_told() {
    let route = "[[routes]]\nid = \"orders\"\npath = \"/orders/*\"\ngroups = []\nupstream = \"order\"\n\n";
    let upstream = "[[upstreams]]\nid = \"orders\"\ntargets = [\"http://127.0.0.1:9000\"]\n";
    let cases = [
        (format!("{route}{upstream}"), &["routes[0].upstream", "no upstream \"order\"", "orders"][..]),
        (
            format!("{upstream}[upstreams.tls]\nserver_name = \"x\"\n"),
            &["upstreams[0].tls", "no target begins with https"],
        ),
        (format!("{upstream}\n{upstream}"), &["upstreams[1].id", "is the id of upstreams[0] too"]),
        ("[forward_auth]\ntrusted = []\n".to_owned(), &["forward_auth.trusted", "trusts no one"]),
    ];
    for (config, words) in cases {
        let installation = Installation::with(&config);
        refused("a fault between sections", &serve(&installation), words);
        let check = installation.run(&["check"]);
        assert_eq!(check.code(), Some(1), "{check}");
        words.iter().for_each(|word| assert!(check.stdout.contains(word), "{word}: {check}"));
    }
}

/// `check` and `serve` look at the same files in the same way.
#[test]
fn files_of_upstreams_that_cannot_be_used_are_told_by_check_and_serve_alike() {
    let installation = Installation::new();
    let key = KeyPair::generate().unwrap();
    let of_another = KeyPair::generate().unwrap().serialize_pem();
    let certificate = CertificateParams::new(["client".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let good = installation.file("client.pem", &certificate);
    let good_key = installation.file("client.key", key.serialize_pem());
    let missing = installation.path("missing.pem");
    let empty = installation.file("empty.pem", "");
    let garbage = installation.file("garbage.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let folder = installation.path("");
    let other_key = installation.file("other.key", of_another);
    let with = |ca: &Path, certificate: &Path, key: &Path| {
        installation.configure(&format!(
            "[[upstreams]]\nid = \"orders\"\ntargets = [\"https://localhost:9000\"]\n[upstreams.tls]\nca_file = {ca:?}\n\
             certificate = {certificate:?}\nprivate_key = {key:?}\n"
        ));
        let (serve, check) = (serve(&installation), installation.run(&["check"]));
        assert_eq!((serve.code(), check.code()), (Some(1), Some(1)), "{serve}\n{check}");
        println!("{}", serve.stderr.trim_end());
        (serve.stderr, check.stdout)
    };
    let cases = [
        (&missing, &good, &good_key, &missing, "does not exist; correct the path"),
        (&good, &missing, &good_key, &missing, "does not exist; correct the path"),
        (&good, &good, &missing, &missing, "does not exist; correct the path"),
        (&folder, &good, &good_key, &folder, "cannot be read"),
        (&empty, &good, &good_key, &empty, "has no certificate"),
        (&garbage, &good, &good_key, &garbage, "is malformed PEM"),
        (&good, &empty, &good_key, &empty, "has no certificate"),
        (&good, &good, &empty, &empty, "has no usable private key"),
        (&good, &good, &other_key, &other_key, "does not fit"),
    ];
    for (ca, certificate, key, at_fault, word) in cases {
        let (serve, check) = with(ca, certificate, key);
        for said in [serve, check] {
            for word in ["upstream orders", at_fault.to_str().unwrap(), word] {
                assert!(said.contains(word), "{word}: {said}");
            }
        }
    }
    let (serve, check) = with(&missing, &empty, &missing);
    for said in [serve, check] {
        assert_eq!(said.matches("missing.pem does not exist").count(), 2, "both: {said}");
    }

    let (ca, certificate, key) = (&good, &good, &good_key);
    installation.configure(&format!(
        "[[upstreams]]\nid = \"orders\"\ntargets = [\"https://localhost:9000\"]\n[upstreams.tls]\nca_file = {ca:?}\n\
         certificate = {certificate:?}\nprivate_key = {key:?}\n"
    ));
    let check = installation.run(&["check"]);
    assert!(check.code() == Some(0) && check.stdout.contains("1 upstream, 1 target"), "{check}");
    installation.serve().stop();
}
