//! Whatever happens and however much is logged, no secret is in the output: not in a log, an error or a metric.

use std::fs;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keybearer::secret::Secret;
use keybearer::signing::{Algorithm, PrivateKey};
use rustix::process::Signal;

use crate::https::{basic, bearer};
use crate::installation::{Customer, Done, Installation, SERVE, finish, key_id};
use crate::peers::{has, in_the_clear};
use crate::poll::until;

/// What may be nowhere, by a name that says what it is.
#[derive(Default)]
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn add(&mut self, name: &str, secret: impl Into<String>) {
        let secret = secret.into();
        assert!(secret.len() >= 8, "too short to look for: {name}");
        self.0.push((name.to_owned(), secret));
    }

    /// A key: its secret half, and the key in base64 as Basic carries it.
    fn key(&mut self, name: &str, key: &str) {
        let (_, secret) = key.rsplit_once('_').expect("a key");
        self.add(&format!("{name}: the secret half"), secret);
        self.pair(name, key, "");
    }

    fn pair(&mut self, name: &str, user: &str, password: &str) {
        let pair = STANDARD.encode(format!("{user}:{password}"));
        // The last group depends on what follows.
        self.add(&format!("{name}: Basic"), &pair[..pair.len() - 4]);
    }

    fn token(&mut self, name: &str, token: &str) {
        self.add(&format!("{name}: the token"), token);
        let (_, signature) = token.rsplit_once('.').expect("a token");
        self.add(&format!("{name}: its signature"), signature);
    }

    fn pem(&mut self, name: &str, text: &str) {
        let lines = text.lines().filter(|line| !line.starts_with("-----") && line.len() >= 8);
        lines.enumerate().for_each(|(number, line)| self.add(&format!("{name}: line {number}"), line));
    }

    #[track_caller]
    fn assert_absent(&self, place: &str, text: &str) {
        for (name, secret) in &self.0 {
            let found = text.lines().find(|line| line.contains(secret));
            assert!(found.is_none(), "{name} is in {place}: {}", found.unwrap_or_default());
        }
    }
}

/// All that the commands print but the one line of a creation.
#[derive(Default)]
struct Printed(String);

impl Printed {
    fn run(&mut self, installation: &Installation, args: &[&str], stdin: &[u8]) -> Done {
        let done = finish(installation.command(args), stdin);
        self.0 += &format!("{done}\n");
        done
    }

    /// The key of a creation: that one line is where it may stand.
    fn create(&mut self, installation: &Installation, args: &[&str]) -> String {
        let done = installation.run(args);
        assert_eq!(done.code(), Some(0), "{done}");
        self.0 += &done.stderr;
        let key = match args.contains(&"--json") {
            true => {
                let created: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
                created["api_key"].as_str().expect("a key").to_owned()
            }
            false => done.stdout.trim_end().to_owned(),
        };
        assert_eq!(done.stdout.matches(&key).count(), 1, "it is shown once");
        self.0 += &done.stdout.replace(&key, "");
        key
    }
}

/// DER as PEM (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn scenario(format: &str) {
    let mut secrets = Secrets::default();
    let mut printed = Printed::default();
    let configuration = format!(
        "[logging]\nformat = \"{format}\"\nlevel = \"trace\"\n\n[server]\nplaintext_credentials = \"revoke\"\n\n"
    );
    let installation = Installation::with(&configuration);
    let signing = PrivateKey::generate(Algorithm::Rs256, 2048).and_then(|key| key.to_pkcs8()).expect("a key");
    let signing = pem("PRIVATE KEY", signing.expose());
    secrets.pem("the signing key", &signing);
    let signing = installation.file("signing.pem", signing);
    let master = "c2VjcmV0IG1hc3RlciBrZXkgb2YgMzIgYnl0ZXMuLi4=";
    secrets.add("the master key", master);
    let master = installation.file("master.key", master);
    let configuration =
        format!("[signing]\nprivate_key_file = {signing:?}\nmaster_key_file = {master:?}\n\n{configuration}");
    installation.configure(&configuration);
    let server = installation.serve();

    // Accounts, keys and passwords, by every form of every command that takes or makes a secret.
    let run = |printed: &mut Printed, args: &[&str]| printed.run(&installation, args, b"");
    run(&mut printed, &["groups", "create", "sample"]);
    run(&mut printed, &["accounts", "create", "acme"]);
    let licence = run(&mut printed, &["licences", "grant", "acme", "--group", "sample"]).stdout.trim_end().to_owned();
    let key = printed.create(&installation, &["keys", "create", "acme", "--label", "ci"]);
    let other = printed.create(&installation, &["keys", "create", "acme", "--json"]);
    let exposed = printed.create(&installation, &["keys", "create", "acme"]);
    let acme = Customer { account: "acme".to_owned(), licence, key };
    let (first, second) = ("the first password of acme", "the second password of acme");
    printed.run(&installation, &["accounts", "set-password", "acme", "--password-stdin"], first.as_bytes());
    let file = installation.file("password", second);
    run(&mut printed, &["accounts", "set-password", "acme", "--password-file", file.to_str().unwrap()]);
    for (name, key) in [("the key", &acme.key), ("the other key", &other), ("the exposed key", &exposed)] {
        secrets.key(name, key);
    }
    for (name, password) in [("the first password", first), ("the second password", second)] {
        secrets.add(name, password);
        secrets.pair(name, "acme", password);
    }

    // Secrets where they do not belong: as arguments.
    for args in [
        &["keys", "show", acme.key.as_str()][..],
        &["keys", "revoke", other.as_str(), "--frobnicate"],
        &["keys", "create", acme.key.as_str()],
        &["tokens", "revoke", "--key", acme.key.as_str()],
        &["accounts", "show", acme.key.as_str()],
        &["try", &format!("https://{}:x@localhost", acme.key)],
        &[acme.key.as_str()],
    ] {
        run(&mut printed, args);
    }

    // Every way to get a token, well and badly.
    let client = server.client();
    let token = client.with_key(&acme.key).token();
    let by_password = client.with_password("acme", second).token();
    let by_id = client.with_password(acme.key_id(), &acme.key).token();
    for (name, token) in [("by key", &token), ("by password", &by_password), ("by id", &by_id)] {
        secrets.token(name, token);
    }
    assert_eq!(client.with_password("acme", first).status, 401);
    let mangled = format!("{}x", acme.key);
    let wrong = "the wrong password, which someone may have got right elsewhere";
    secrets.add("the wrong password", wrong);
    secrets.pair("the wrong password", "acme", wrong);
    assert_eq!(client.with_password("acme", wrong).status, 401);
    assert_eq!(client.with_key(&mangled).status, 401);
    assert_eq!(client.with_password(&acme.key, "superfluous password").status, 401);
    assert_eq!(client.call("GET", "/token", Some(&format!("Basic {}", &basic(&acme.key, "")[6..40]))).status, 400);
    let mut connection = client.connect().expect("a connection");
    let form = format!("grant_type=client_credentials&client_id={}&client_secret={}", acme.key_id(), acme.key);
    let post = format!(
        "POST /token HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n\r\n{form}",
        form.len()
    );
    connection.send(post.as_bytes()).expect("sent");
    let by_form = connection.answer().expect("an answer");
    if by_form.status == 200 {
        secrets.token("by form", &by_form.token());
    }

    // Every way to use one, well and badly.
    for path in ["/sample/x", "/demo/echo", "/demo/time", "/whoami", "/nothing"] {
        client.status(path, &token);
    }
    let (signed, _) = token.rsplit_once('.').expect("a token");
    let forged = format!("{signed}.{}", "A".repeat(342));
    assert_eq!(client.status("/sample/x", &forged), 401);
    secrets.add("the forged token", &forged);
    for path in [
        format!("/sample/x?access_token={token}"),
        format!("/sample/x?key={}", acme.key),
        format!("/{token}"),
        format!("/{}/x", acme.key),
        format!("/sample/{}", acme.key),
    ] {
        client.call("GET", &path, None);
        client.call("GET", &path, Some(&bearer(&by_password)));
    }
    for header in ["x-api-key", "cookie", "proxy-authorization", "authorization"] {
        let value = format!("{header}: {}\r\n", acme.key);
        let head =
            format!("GET /demo/echo HTTP/1.1\r\nhost: localhost\r\n{value}authorization: {}\r\n\r\n", bearer(&token));
        let mut connection = client.connect().expect("a connection");
        connection.send(head.as_bytes()).expect("sent");
        let answer = connection.answer().expect("an answer").text();
        secrets.assert_absent(&format!("the answer to {header}"), &answer);
    }

    // Over HTTP/2, whose library logs every frame.
    let by_curl = has("curl");
    if by_curl {
        let url = server.url();
        let ca = installation.ca();
        let curl = |path: &str, header: &str| {
            let mut curl = Command::new("curl");
            curl.args([
                "-q",
                "-sS",
                "--noproxy",
                "*",
                "--http2",
                "--max-time",
                "20",
                "-w",
                "\n%{http_version}",
                "--cacert",
            ]);
            curl.arg(&ca).args(["-H", header]).arg(format!("{url}{path}"));
            let done = finish(curl, b"");
            let (body, version) = done.stdout.rsplit_once('\n').expect("what curl says");
            assert_eq!(version, "2", "{done}");
            body.to_owned()
        };
        let body: serde_json::Value =
            serde_json::from_str(&curl("/token", &format!("authorization: {}", basic(&acme.key, "")))).expect("JSON");
        let by_http2 = body["token"].as_str().expect("a token");
        secrets.token("by HTTP/2", by_http2);
        curl("/token", &format!("authorization: {}", basic("acme", wrong)));
        curl("/demo/echo", &format!("authorization: {}", bearer(by_http2)));
        curl("/demo/echo", &format!("authorization: {}", bearer(&forged)));
        curl(&format!("/sample/{by_http2}"), &format!("x-api-key: {}", acme.key));
    }

    // In the clear: the key is revoked for it, and written about.
    for authorization in [basic(&exposed, ""), basic("acme", wrong), bearer(&by_id), basic(&mangled, "")] {
        secrets.assert_absent("the answer in the clear", &in_the_clear(server.https, Some(&authorization)));
    }
    in_the_clear(server.https, Some(&acme.key));
    until("the exposed key is revoked", || client.with_key(&exposed).status == 401);
    until("the exposed token is revoked", || client.status("/sample/x", &by_id) == 401);

    // The rest of an operator's day.
    for args in [
        &["keys", "list"][..],
        &["keys", "list", "--json"],
        &["keys", "show", acme.key_id(), "--json"],
        &["accounts", "list", "--json"],
        &["accounts", "show", "acme"],
        &["signing-keys", "list"],
        &["signing-keys", "list", "--json"],
        &["tokens", "revoke", "--key", key_id(&other)],
        &["tokens", "revocations"],
        &["check"],
        &["check", "--json"],
        &["try", &server.url()],
        &["try", &server.url(), "--json"],
    ] {
        run(&mut printed, args);
    }
    let url = server.url();
    printed.run(&installation, &["try", &url, "--key-stdin", "--path", "/sample/x"], acme.key.as_bytes());
    printed.run(&installation, &["try", &url, "--key-stdin"], mangled.as_bytes());
    printed.run(&installation, &["try", &url, "--key-stdin", "--json"], acme.key.as_bytes());
    // Faults in files that hold secrets: the file is named, its content is not shown.
    for name in ["ca.key", "localhost.key"] {
        secrets.pem(name, &fs::read_to_string(installation.data_dir().join("tls").join(name)).expect("a PEM key"));
    }
    let broken = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    secrets.pem("a key of another kind", &broken);
    let broken = installation.file("broken.pem", &broken);
    let mut command = installation.command(SERVE);
    command.env("KEYBEARER__SIGNING__PRIVATE_KEY_FILE", &broken);
    let refused = finish(command, b"");
    assert_eq!(refused.code(), Some(1), "{refused}");
    printed.0 += &format!("{refused}\n");
    let secret_in_config = "[server]\nlisten = \"kb_0123456789ab_0123456789abcdef0123456789abcdef000000\"\n";
    secrets.add("a key in a configuration", "0123456789abcdef0123456789abcdef");
    installation.configure(secret_in_config);
    server.process.signal(Signal::HUP);
    server.until_logged("the new configuration is faulty");
    run(&mut printed, &["check"]);
    installation.configure(&configuration);

    let metrics = server.admin_client().call("GET", "/metrics", None).text();
    assert!(metrics.contains("keybearer_tokens_issued"), "{metrics}");
    secrets.assert_absent("the metrics", &metrics);
    let ended = server.stop();
    assert!(ended.stdout.contains("DEBUG") && ended.stdout.contains("EXPOSED"), "everything is logged");
    assert!(!by_curl || ended.stdout.contains("TRACE"), "HTTP/2 is logged frame by frame");
    let Done { stdout, stderr, .. } = &ended;
    if format == "json" {
        for line in stdout.lines() {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "no JSON: {line}");
        }
    }
    secrets.assert_absent("the log", stdout);
    secrets.assert_absent("the server's messages", stderr);
    secrets.assert_absent("what the commands print", &printed.0);
    assert!(printed.0.contains(acme.key_id()), "ids are no secret");
    println!("{format}: {} secrets in {} bytes of log", secrets.0.len(), stdout.len());
}

#[test]
fn no_secret_is_in_the_output_at_level_trace_as_text() {
    scenario("text");
}

#[test]
fn no_secret_is_in_the_output_at_level_trace_as_json() {
    scenario("json");
}

/// The test above is worth what its own eyes are.
#[test]
#[should_panic(expected = "the key: Basic is in here")]
fn a_secret_that_is_there_is_found() {
    let mut secrets = Secrets::default();
    let key = Secret::new("kb_0123456789ab_0123456789abcdefghijklmnopqrstuvABCDEF".to_owned());
    secrets.key("the key", key.expose());
    secrets.assert_absent("here", &format!("a line\nauthorization: {}\n", basic(key.expose(), "")));
}
