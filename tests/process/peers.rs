//! Programs of others as clients: `curl`, and a bare socket.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::installation::{Done, Installation, Server, finish};
use crate::poll::PATIENCE;

/// Whether a program is there; says so when it is not.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("SKIPPED: {program} is not installed");
    }
    found
}

/// The answer to a request for `/token` that is sent in the clear, as text.
pub fn in_the_clear(address: SocketAddr, authorization: Option<&str>) -> String {
    let mut tcp = TcpStream::connect(address).expect("a connection");
    tcp.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    tcp.write_all(format!("GET /token HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n").as_bytes()).expect("sent");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).expect("an answer, and the end");
    let _ = tcp.shutdown(Shutdown::Both);
    answer
}

const DEMO_KEY: &str = "kb_demodemodemo_ThisKeyIsPublicAndOpensDemoOnly01bQJ3X";

/// What `curl` says of one call.
#[derive(Debug)]
struct Curled {
    exit: Option<i32>,
    status: u16,
    version: String,
    redirect: String,
    headers: String,
    body: String,
    errors: String,
}

struct Curl<'a> {
    server: &'a Server,
    ca: &'a Path,
}

impl Curl<'_> {
    fn call(&self, path: &str, args: &[&str]) -> Curled {
        self.call_url(&format!("{}{path}", self.server.url()), args)
    }

    fn call_url(&self, url: &str, args: &[&str]) -> Curled {
        let mut command = Command::new("curl");
        command.args(["-q", "-sS", "--max-time", "20", "--noproxy", "*", "-D", "-", "-o", "-"]);
        command.args(["-w", "\n@%{http_code} %{http_version} %{redirect_url}", "--cacert"]).arg(self.ca);
        let done = finish(command_with(command, args, url), b"");
        let (answer, said) = done.stdout.rsplit_once("\n@").unwrap_or(("", "0 0 "));
        let (headers, body) = answer.rsplit_once("\r\n\r\n").unwrap_or(("", answer));
        let mut said = said.splitn(3, ' ').map(str::to_owned);
        let mut next = || said.next().unwrap_or_default();
        Curled {
            exit: done.code(),
            status: next().parse().unwrap_or(0),
            version: next(),
            redirect: next(),
            headers: headers.to_ascii_lowercase(),
            body: body.to_owned(),
            errors: done.stderr.clone(),
        }
    }

    fn token(&self, args: &[&str]) -> String {
        let answer = self.call("/token", args);
        assert_eq!((answer.exit, answer.status), (Some(0), 200), "{answer:?}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        body["token"].as_str().expect("a token").to_owned()
    }
}

fn command_with(mut command: Command, args: &[&str], url: &str) -> Command {
    command.args(args).arg(url);
    command
}

#[test]
fn curl_goes_from_the_demo_key_to_a_secured_path() {
    if !has("curl") {
        return;
    }
    let installation = Installation::new();
    let (server, ca) = (installation.serve(), installation.ca());
    let curl = Curl { server: &server, ca: &ca };
    for (protocol, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for tls in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"]] {
            let with =
                |more: &[&str]| [&[protocol], tls, more].concat().iter().map(|s| s.to_string()).collect::<Vec<_>>();
            let call = |path: &str, more: &[&str]| {
                let args = with(more);
                let answer = curl.call(path, &args.iter().map(String::as_str).collect::<Vec<_>>());
                assert_eq!((answer.exit, answer.version.as_str()), (Some(0), version), "{tls:?}: {answer:?}");
                answer
            };
            let basic = format!("{DEMO_KEY}:");
            let answer = call("/token", &["-u", &basic]);
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.headers.contains("cache-control: no-store"), "{answer:?}");
            let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
            assert_eq!(body["token"], body["access_token"]);
            let bearer = format!("Authorization: Bearer {}", body["token"].as_str().expect("a token"));
            let answer = call("/demo/time", &["-H", &bearer]);
            assert_eq!(answer.status, 200, "{answer:?}");

            assert_eq!(call("/token", &[]).status, 400, "not specified");
            assert_eq!(call("/token", &["-u", "somebody:"]).status, 400, "no password");
            let wrong = call("/token", &["-u", "somebody:wrong"]);
            assert_eq!(wrong.status, 401);
            assert!(
                wrong.headers.contains("www-authenticate: basic realm=\"keybearer\", charset=\"utf-8\""),
                "{wrong:?}"
            );
            let no_token = call("/demo/time", &[]);
            assert_eq!(no_token.status, 401);
            assert!(no_token.headers.contains("www-authenticate: bearer realm="), "{no_token:?}");
            let narrow = call("/sample/x", &["-H", &bearer]);
            assert_eq!(narrow.status, 403);
            assert!(narrow.headers.contains("error=\"insufficient_scope\""), "{narrow:?}");
            assert_eq!(call("/nothing/here", &["-H", &bearer]).status, 404);
            let posted = call("/demo/echo", &["-H", &bearer, "-d", "hello"]);
            assert!(posted.status == 200 && posted.body.contains("\"text\": \"hello\""), "{posted:?}");
        }
    }
    server.stop();
}

/// The lines that a new server prints are copied and pasted into a shell.
#[test]
fn the_lines_that_a_new_server_prints_work_as_they_are() {
    if !has("curl") {
        return;
    }
    let installation = Installation::new();
    let server = installation.serve();
    let welcome = server.process.stderr();
    let lines: Vec<&str> = welcome.lines().map(str::trim).filter(|line| line.contains("curl --cacert")).collect();
    assert_eq!(lines.len(), 3, "{welcome}");
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-e", "-c", script]).env("no_proxy", "*");
        finish(command, b"")
    };
    let first = shell(lines[0]);
    assert!(first.code() == Some(0) && first.stdout.contains("\"access_token\":\""), "{first}");
    let both: Done = shell(&format!("{}\n{}", lines[1], lines[2]));
    assert!(both.code() == Some(0) && both.stdout.contains("\"time\""), "{both}");
    server.stop();
}

#[test]
fn plain_http_is_refused_by_one_answer_and_never_redirected() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    let (server, ca) = (installation.serve(), installation.ca());
    let basic = |key: &str| crate::https::basic(key, "");
    let answers = [None, Some(basic(&acme.key)), Some(basic("kb_wrong")), Some("Bearer eyJ".to_owned())]
        .map(|authorization| in_the_clear(server.https, authorization.as_deref()));
    assert!(answers[0].starts_with("HTTP/1.1 400 "), "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "one answer for all: {answers:?}");
    assert!(!answers[0].to_ascii_lowercase().contains("\nlocation:"), "{}", answers[0]);
    assert!(answers[0].contains("urn:keybearer:problem:https-required"), "{}", answers[0]);
    server.until_logged("EXPOSED: sent over plain HTTP; replace it");
    assert!(!server.process.stdout().contains(&acme.key));

    if has("curl") {
        let curl = Curl { server: &server, ca: &ca };
        for listener in [server.https, server.admin] {
            let url = format!("http://localhost:{}/token", listener.port());
            let answer = curl.call_url(&url, &["-u", &format!("{DEMO_KEY}:"), "-L"]);
            assert_eq!((answer.exit, answer.status, answer.redirect.as_str()), (Some(0), 400, ""), "{answer:?}");
            assert!(!answer.headers.contains("location:"), "{answer:?}");
        }
    }
    server.stop();
}

#[test]
fn old_tls_is_refused() {
    if !has("curl") {
        return;
    }
    let installation = Installation::new();
    let (server, ca) = (installation.serve(), installation.ca());
    let curl = Curl { server: &server, ca: &ca };
    for old in ["1.0", "1.1"] {
        // SECLEVEL=0, or the client itself would not offer it.
        let args = [&format!("--tlsv{old}"), "--tls-max", old, "--ciphers", "DEFAULT@SECLEVEL=0"];
        let answer = curl.call("/health/live", &args);
        assert_eq!((answer.exit, answer.status), (Some(35), 0), "{answer:?}");
        assert!(answer.errors.contains("alert"), "it is the server that refuses: {answer:?}");
    }
    assert_eq!(server.metric("keybearer_tls_handshakes_failed_total"), 2.0);
    server.stop();
}

#[test]
fn a_client_that_does_not_trust_the_authority_is_not_served() {
    if !has("curl") {
        return;
    }
    let (installation, other) = (Installation::new(), Installation::new());
    let server = installation.serve();
    other.serve().stop();
    let ca = other.ca();
    let answer = Curl { server: &server, ca: &ca }.call("/health/live", &[]);
    assert_eq!((answer.exit, answer.status), (Some(60), 0), "{answer:?}");
    server.stop();
}

#[test]
fn curl_plays_the_readme_scenario_of_a_customer() {
    if !has("curl") {
        return;
    }
    let installation = Installation::new();
    let acme = installation.customer("acme");
    // Before the server starts: a new password ends the tokens so far, those of the moment until it is known among them.
    installation.ok_with_input(&["accounts", "set-password", "acme", "--password-stdin"], b"correct horse battery");
    let (server, ca) = (installation.serve(), installation.ca());
    let curl = Curl { server: &server, ca: &ca };
    let by_key = curl.token(&["-u", &format!("{}:", acme.key)]);
    // A client that insists on a password, and one with a name and password.
    let by_id = curl.token(&["-u", &format!("{}:{}", acme.key_id(), acme.key)]);
    let by_password = curl.token(&["-u", "acme:correct horse battery"]);
    let by_form = curl.token(&["-u", &format!("{}:", acme.key), "-d", "grant_type=client_credentials"]);
    for token in [by_key, by_id, by_password, by_form] {
        let bearer = format!("Authorization: Bearer {token}");
        assert_eq!(curl.call("/sample/x", &["-H", &bearer]).status, 200);
        assert_eq!(curl.call("/demo/time", &["-H", &bearer]).status, 200);
        assert_eq!(curl.call(&format!("/sample/x?access_token={token}"), &[]).status, 401, "not in a URL");
    }
    server.stop();
}
