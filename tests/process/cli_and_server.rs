//! The command line beside a running server: what a command did is in force within a second of its end.

use std::io;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use keybearer::clock::{Clock, SystemClock, Timestamp};
use rustix::process::{Pid, Signal, kill_process};

use crate::https::{Client, Connection, basic, bearer};
use crate::installation::{Customer, Done, Installation, Server, finish, key_id, program};
use crate::poll::{IN_FORCE, until, until_some, within};

/// A customer with a live token, and one kept-alive connection to ask with: a question then costs no handshake.
struct Customership {
    customer: Customer,
    token: String,
    connection: Connection,
}

impl Customership {
    #[track_caller]
    fn begin(installation: &Installation, server: &Server, account: &str) -> Self {
        let customer = installation.customer(account);
        let mut connection = server.client().connect().expect("a connection");
        let began = Instant::now();
        let mut answer = None;
        within(IN_FORCE, began, "the new key gets a token", || {
            let got = ask(&mut connection, "/token", &basic(&customer.key, ""));
            let is_good = got.status == 200;
            answer = Some(got);
            is_good
        });
        let token = answer.expect("an answer").token();
        let mut this = Self { customer, token, connection };
        assert_eq!(this.live(), 200);
        this
    }

    /// The status of a secured path with the token that is live.
    #[track_caller]
    fn live(&mut self) -> u16 {
        ask(&mut self.connection, "/sample/x", &bearer(&self.token)).status
    }

    /// The status of the token endpoint with the key.
    #[track_caller]
    fn by_key(&mut self) -> u16 {
        ask(&mut self.connection, "/token", &basic(&self.customer.key, "")).status
    }

    /// Runs `command` and asserts that within a second of its end key and token are dead, and that they stay so.
    #[track_caller]
    fn dies_by(&mut self, installation: &Installation, command: &[&str]) {
        assert_eq!((self.by_key(), self.live()), (200, 200), "before {command:?}");
        let done = done(installation, command);
        within(IN_FORCE, done, &format!("{command:?} ends the live token"), || self.live() == 401);
        within(IN_FORCE, done, &format!("{command:?} ends the key"), || self.by_key() == 401);
        assert_eq!((self.by_key(), self.live()), (401, 401), "after {command:?}");
    }

    /// Runs `command` and asserts that within a second of its end the key works again. The token of before stays dead.
    #[track_caller]
    fn revives_by(&mut self, installation: &Installation, command: &[&str]) {
        let done = done(installation, command);
        within(IN_FORCE, done, &format!("{command:?} revives the key"), || self.by_key() == 200);
        assert_eq!(self.live(), 401, "a token that was revoked does not come back by {command:?}");
        self.token = ask(&mut self.connection, "/token", &basic(&self.customer.key, "")).token();
        assert_eq!(self.live(), 200);
    }
}

#[track_caller]
fn ask(connection: &mut Connection, path: &str, authorization: &str) -> crate::https::Answer {
    connection.call("GET", path, Some(authorization)).expect("an answer")
}

/// Runs a command that succeeds, and says when it had ended.
#[track_caller]
fn done(installation: &Installation, command: &[&str]) -> Instant {
    let done = installation.run(command);
    assert_eq!(done.code(), Some(0), "{command:?}: {done}");
    done.at
}

#[test]
fn a_customer_from_nothing_to_a_secured_path_while_the_server_runs() {
    let installation = Installation::new();
    let server = installation.serve();
    let mut acme = Customership::begin(&installation, &server, "acme");
    let whoami = ask(&mut acme.connection, "/whoami", &bearer(&acme.token)).json();
    assert_eq!((&whoami["account"], &whoami["groups"]), (&"acme".into(), &serde_json::json!(["demo", "sample"])));

    // A licence that is granted later shows in the next token, and the one that is out goes on as it was.
    installation.ok(&["groups", "create", "orders"]);
    let granted = done(&installation, &["licences", "grant", "acme", "--group", "orders"]);
    within(IN_FORCE, granted, "the new group is in the next token", || {
        let scope = ask(&mut acme.connection, "/token", &basic(&acme.customer.key, "")).json()["scope"].clone();
        scope.as_str().is_some_and(|scope| scope.contains("orders"))
    });
    assert_eq!(acme.live(), 200);
    server.stop();
}

#[test]
fn suspending_and_revoking_a_key_is_in_force_within_a_second() {
    let installation = Installation::new();
    let server = installation.serve();
    let mut acme = Customership::begin(&installation, &server, "acme");
    let mut other = Customership::begin(&installation, &server, "other");
    let id = acme.customer.key_id().to_owned();
    acme.dies_by(&installation, &["keys", "suspend", &id]);
    acme.revives_by(&installation, &["keys", "resume", &id]);
    acme.dies_by(&installation, &["keys", "revoke", &id]);
    let resumed = installation.run(&["keys", "resume", &id]);
    assert_eq!(resumed.code(), Some(1), "revoked is for good: {resumed}");
    assert_eq!((acme.by_key(), acme.live()), (401, 401));
    assert_eq!((other.by_key(), other.live()), (200, 200), "nobody else is concerned");
}

#[test]
fn suspending_and_ending_a_licence_is_in_force_within_a_second() {
    let installation = Installation::new();
    let server = installation.serve();
    let mut acme = Customership::begin(&installation, &server, "acme");
    let licence = acme.customer.licence.clone();
    acme.dies_by(&installation, &["licences", "suspend", &licence]);
    acme.revives_by(&installation, &["licences", "resume", &licence]);
    acme.dies_by(&installation, &["licences", "end", &licence]);
    let account = acme.customer.account.clone();
    acme.revives_by(&installation, &["licences", "grant", &account, "--group", "sample"]);
}

#[test]
fn suspending_an_account_is_in_force_within_a_second() {
    let installation = Installation::new();
    let server = installation.serve();
    let mut acme = Customership::begin(&installation, &server, "acme");
    acme.dies_by(&installation, &["accounts", "suspend", "acme"]);
    acme.revives_by(&installation, &["accounts", "resume", "acme"]);
}

#[test]
fn a_key_and_its_tokens_end_with_its_expiry() {
    let installation = Installation::new();
    let server = installation.serve();
    let mut acme = Customership::begin(&installation, &server, "acme");
    let id = acme.customer.key_id().to_owned();

    // The token that is out could outlive the new end, so it dies at once; a new one lives no longer than the key.
    let set = done(&installation, &["keys", "set-expiry", &id, "3s"]);
    let end = set + Duration::from_secs(3);
    within(IN_FORCE, set, "the token that would outlive the key is dead", || acme.live() == 401);
    let answer = ask(&mut acme.connection, "/token", &basic(&acme.customer.key, ""));
    assert!(Instant::now() > end || answer.json()["expires_in"].as_u64() <= Some(3), "{}", answer.text());
    acme.token = answer.token();
    assert_eq!(acme.live(), 200);
    within(IN_FORCE, end, "the token ends with its key", || acme.live() == 401);
    within(IN_FORCE, end, "the key ends", || acme.by_key() == 401);

    let moved = done(&installation, &["keys", "set-expiry", &id, "never"]);
    within(IN_FORCE, moved, "the key works again", || acme.by_key() == 200);
}

#[test]
fn revoking_every_token_spares_keys_and_the_tokens_that_come_after() {
    let installation = Installation::new();
    let server = installation.serve();
    let mut acme = Customership::begin(&installation, &server, "acme");
    let mut other = Customership::begin(&installation, &server, "other");
    let revoked = done(&installation, &["tokens", "revoke", "--all"]);
    within(IN_FORCE, revoked, "every token is dead", || (acme.live(), other.live()) == (401, 401));
    acme.token = ask(&mut acme.connection, "/token", &basic(&acme.customer.key, "")).token();
    assert_eq!((acme.live(), other.live()), (200, 401));
}

#[test]
fn revoking_the_tokens_before_an_instant_spares_those_after_it() {
    let installation = Installation::new();
    let server = installation.serve();
    let mut acme = Customership::begin(&installation, &server, "acme");
    // Instants are typed to the second: the next one that begins lies between the two tokens.
    let instant = Timestamp::from_secs(SystemClock.now().secs() + 1);
    until("the next second begins", || SystemClock.now() > instant);
    // A token's `iat` is the moment at which the server last knew that its key was good, a little before it was asked for.
    let later = until_some("a token with an iat after the instant", || {
        let token = ask(&mut acme.connection, "/token", &basic(&acme.customer.key, "")).token();
        let issued_at = ask(&mut acme.connection, "/whoami", &bearer(&token)).json()["token"]["issued_at"].clone();
        (issued_at.as_str()? >= instant.to_string().as_str()).then_some(token)
    });
    let revoked = done(&installation, &["tokens", "revoke", "--all-before", &instant.to_string()]);
    within(IN_FORCE, revoked, "the token of before is dead", || acme.live() == 401);
    acme.token = later;
    assert_eq!(acme.live(), 200, "the token of after lives");
    let future = installation.run(&["tokens", "revoke", "--all-before", "2999-01-01"]);
    assert_eq!(future.code(), Some(1), "{future}");
}

#[test]
fn commands_at_once_do_not_get_in_each_others_way() {
    let installation = Installation::new();
    let server = installation.serve();
    let acme = Customership::begin(&installation, &server, "acme");
    let keys: Vec<(String, Instant)> = thread::scope(|scope| {
        let create = || {
            let done = installation.run(&["keys", "create", "acme"]);
            assert_eq!(done.code(), Some(0), "{done}");
            (done.stdout.trim_end().to_owned(), done.at)
        };
        let commands: Vec<_> = (0..10).map(|_| scope.spawn(create)).collect();
        commands.into_iter().map(|command| command.join().expect("a key")).collect()
    });
    let client = server.client();
    for (key, at) in &keys {
        // Keys made later were asked for later; each has its own second.
        let asked = at.elapsed();
        within(IN_FORCE.max(asked), *at, "the key works", || client.with_key(key).status == 200);
    }
    let mut names: Vec<&str> = keys.iter().map(|(key, _)| key_id(key)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 10);

    // Half of them are revoked at once, and only they are dead.
    thread::scope(|scope| {
        for (key, _) in &keys[..5] {
            scope.spawn(|| installation.ok(&["keys", "revoke", key_id(key)]));
        }
    });
    let revoked = Instant::now();
    within(IN_FORCE, revoked, "the revoked keys are dead", || {
        keys[..5].iter().all(|(key, _)| client.with_key(key).status == 401)
    });
    assert!(keys[5..].iter().all(|(key, _)| client.with_key(key).status == 200));
    assert_eq!(client.with_key(&acme.customer.key).status, 200);
    installation.ok(&["check"]);
}

#[test]
fn try_plays_a_client_against_a_running_server_and_says_when_there_is_none() {
    let installation = Installation::new();
    let server = installation.serve();
    let acme = Customership::begin(&installation, &server, "acme").customer;
    let url = server.url();
    let played = installation.run(&["try", &url]);
    assert_eq!(played.code(), Some(0), "{played}");
    assert!(played.stdout.ends_with("5 of 5 as expected\n"), "{played}");

    let key = installation.file("acme.key", format!("{}\n", acme.key));
    let played = installation.run(&["try", &url, "--key-file", key.to_str().unwrap(), "--path", "/sample/x"]);
    assert_eq!(played.code(), Some(0), "{played}");
    assert!(!played.stdout.contains(&acme.key) && !played.stderr.contains(&acme.key), "{played}");

    // The demo key does not open what needs a licence, and that is not as expected.
    let played = installation.run(&["try", &url, "--path", "/sample/x"]);
    assert_eq!(played.code(), Some(1), "{played}");
    assert!(played.stdout.contains("403"), "{played}");

    server.stop();
    let played = installation.run(&["try", &url]);
    assert_eq!(played.code(), Some(1), "{played}");
    assert!(played.stderr.contains("error: ") && played.stderr.contains("\nhint: "), "{played}");
    assert_eq!(played.stdout, "", "{played}");
}

#[test]
fn health_says_by_its_exit_whether_the_gateway_is_ready() {
    let installation = Installation::new();
    let health = |listen: &str| -> Done {
        let mut command = installation.command(&["health"]);
        command.env("KEYBEARER__SERVER__LISTEN", listen);
        finish(command, b"")
    };
    let before = health("127.0.0.1:1");
    assert_eq!(before.code(), Some(1), "{before}");
    assert!(before.stderr.contains("not ready: ") && before.stderr.contains("\nhint: "), "{before}");

    let server = installation.serve();
    let listen = server.https.to_string();
    let during = health(&listen);
    assert_eq!((during.code(), during.stdout.as_str()), (Some(0), "ready\n"), "{during}");
    server.stop();
    let after = health(&listen);
    assert_eq!(after.code(), Some(1), "{after}");
    assert!(after.stderr.contains("not ready: ") && after.stderr.contains("\nhint: "), "{after}");
}

#[test]
fn check_says_by_its_exit_whether_all_is_well() {
    let installation = Installation::new();
    let nothing_yet = installation.run(&["check"]);
    assert_eq!(nothing_yet.code(), Some(0), "{nothing_yet}");
    assert!(!installation.data_dir().exists(), "a check makes nothing");

    let server = installation.serve();
    installation.customer("acme");
    let running = installation.run(&["check"]);
    assert_eq!(running.code(), Some(0), "{running}");
    assert!(running.stderr.contains("0 faults, 0 warnings"), "{running}");
    server.stop();

    installation.configure("[tokens]\nlifetime = \"1 fortnight\"\n\n[server]\nlisten = \"nowhere\"\n");
    let faulty = installation.run(&["check"]);
    assert_eq!(faulty.code(), Some(1), "{faulty}");
    assert!(faulty.stderr.contains("2 faults"), "{faulty}");
}

/// One token id in 64 begins with "-", like an option.
#[test]
fn any_token_can_be_revoked_by_its_id() {
    let installation = Installation::new();
    for id in ["-TT3awBgf3WQ7eh7PgHnoA", "--T3awBgf3WQ7eh7PgHnoA", "_TT3awBgf3WQ7eh7PgHnoA", "0123456789abcdefghijkA"] {
        installation.ok(&["tokens", "revoke", "--token", id]);
        assert!(installation.ok(&["tokens", "revocations"]).contains(id));
    }
    let misused = installation.run(&["tokens", "revoke", "--token", "--json"]);
    assert_eq!(misused.code(), Some(2), "{misused}");
}

/// A program whose reader has gone, as in `keybearer keys list | head -1`.
#[test]
fn a_reader_that_went_away_is_told_by_the_exit_and_no_panic() -> io::Result<()> {
    let installation = Installation::new();
    installation.customer("acme");
    let (reader, writer) = io::pipe()?;
    drop(reader);
    let mut command = installation.command(&["keys", "list"]);
    let output = command.stdout(writer).stderr(std::process::Stdio::piped()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the output could not be written") && !stderr.contains("panicked"), "{stderr}");
    Ok(())
}

/// Whoever collects the log may end before the gateway does.
#[test]
fn a_server_whose_log_nobody_reads_goes_on() -> io::Result<()> {
    let installation = Installation::new();
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let (https, admin) = (free()?.to_string(), free()?.to_string());
    let (reader, writer) = io::pipe()?;
    drop(reader);
    let mut command = installation.command(&["serve", "--listen", &https, "--admin-listen", &admin]);
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    let client = || installation.ca().exists().then(|| Client::new(https.parse().unwrap(), &installation.ca()));
    until("it serves", || client().is_some_and(|client| client.connect().is_ok()));
    for _ in 0..20 {
        assert_eq!(client().expect("a client").call("GET", "/health/ready", None).status, 200);
    }
    let metrics = Client::new(admin.parse().unwrap(), &installation.ca()).call("GET", "/metrics", None).text();
    assert!(metrics.contains("keybearer_log_lines_dropped"), "{metrics}");
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    let mut ended = None;
    until("it ends", || {
        ended = child.try_wait().expect("a child");
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
    Ok(())
}

/// A key that could not be printed is a key that nobody has: the command says which, and what to do.
#[test]
fn a_key_that_could_not_be_printed_is_told_by_its_id() -> io::Result<()> {
    let installation = Installation::new();
    installation.customer("acme");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
    let mut command = installation.command(&["keys", "create", "acme"]);
    let output = command.stdout(full).stderr(std::process::Stdio::piped()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let hint = stderr.lines().find(|line| line.starts_with("hint: ")).expect("a hint");
    let id = hint.split_whitespace().find(|word| word.starts_with("kb_")).expect("an id").trim_end_matches(',');
    installation.ok(&["keys", "revoke", id]);
    Ok(())
}

#[test]
fn misuse_is_told_apart_from_failure() {
    let misused = finish(program_with(&["keys", "destroy"]), b"");
    assert_eq!(misused.code(), Some(2), "{misused}");
    let helped = finish(program_with(&["--help"]), b"");
    assert_eq!((helped.code(), helped.stderr.as_str()), (Some(0), ""), "{helped}");
    let installation = Installation::new();
    let failed = installation.run(&["keys", "create", "nobody"]);
    assert_eq!(failed.code(), Some(1), "{failed}");
    assert!(failed.stderr.contains("error: ") && failed.stderr.contains("\nhint: "), "{failed}");
}

fn program_with(args: &[&str]) -> std::process::Command {
    let mut command = program();
    command.args(args);
    command
}

/// Clients of the admin listener cannot use the main one's paths, nor the other way round.
#[test]
fn metrics_are_on_the_admin_listener_alone() {
    let installation = Installation::new();
    let server = installation.serve();
    let (client, admin): (Client, Client) = (server.client(), server.admin_client());
    assert_eq!(client.call("GET", "/metrics", None).status, 401);
    let metrics = admin.call("GET", "/metrics", None);
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().ends_with("# EOF\n"));
    for listener in [&client, &admin] {
        assert_eq!(listener.call("GET", "/health/live", None).status, 200);
        assert_eq!(listener.call("GET", "/health/ready", None).status, 200);
    }
}
