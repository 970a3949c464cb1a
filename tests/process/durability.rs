//! Nothing that was acknowledged is lost on SIGKILL: a key that was shown, a revocation that was confirmed.
//!
//! A killed process leaves the system's page cache as it is, so these tests say nothing about a power cut. For that the
//! store counts on `synchronous=FULL` and the disk's word, and no test on a running machine can take that back.

use std::time::{Duration, Instant};

use crate::https::{Client, bearer};
use crate::installation::{Installation, Running, SERVE, Server, key_id};
use crate::poll::until;

/// A token, by a key that works.
fn token(client: &Client, key: &str) -> String {
    let token = client.with_key(key).token();
    assert_eq!(client.status("/sample/x", &token), 200);
    token
}

#[test]
fn a_key_that_was_shown_works_after_the_server_was_killed() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    let mut server = installation.serve();
    let mut keys = vec![acme.key];
    for round in 0..6 {
        keys.push(installation.ok(&["keys", "create", "acme", "--label", &format!("round {round}")]));
        server.kill();
        server = installation.serve();
        token(&server.client(), &keys[keys.len() - 1]);
    }
    for key in &keys {
        token(&server.client(), key);
    }
    installation.ok(&["check"]);
}

#[test]
fn a_revoked_key_stays_revoked_when_the_server_was_killed() {
    let installation = Installation::new();
    installation.customer("acme");
    let mut server = installation.serve();
    for _ in 0..5 {
        let key = installation.ok(&["keys", "create", "acme"]);
        let live = token(&server.client(), &key);
        installation.ok(&["keys", "revoke", key_id(&key)]);
        server.kill();
        server = installation.serve();
        assert_eq!(server.client().with_key(&key).status, 401);
        assert_eq!(server.client().status("/sample/x", &live), 401);
    }
    installation.ok(&["check"]);
}

#[test]
fn a_revoked_token_stays_revoked_when_the_server_was_killed_and_the_others_live() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    let mut server = installation.serve();
    let spared = token(&server.client(), &acme.key);
    let id_of = |client: &Client, token: &str| {
        let whoami = client.call("GET", "/whoami", Some(&bearer(token))).json();
        whoami["token"]["id"].as_str().expect("a token id").to_owned()
    };
    for _ in 0..5 {
        let live = token(&server.client(), &acme.key);
        let id = id_of(&server.client(), &live);
        installation.ok(&["tokens", "revoke", "--token", &id]);
        server.kill();
        server = installation.serve();
        assert_eq!(server.client().status("/sample/x", &live), 401);
        assert_eq!(server.client().status("/sample/x", &spared), 200, "a restart logs nobody out");
    }
    installation.ok(&["tokens", "revoke", "--all"]);
    server.kill();
    server = installation.serve();
    assert_eq!(server.client().status("/sample/x", &spared), 401);
    token(&server.client(), &acme.key);
    installation.ok(&["check"]);
}

#[test]
fn a_new_password_is_the_password_after_the_server_was_killed() {
    let installation = Installation::new();
    installation.customer("acme");
    installation.ok_with_input(&["accounts", "set-password", "acme", "--password-stdin"], b"password number 0");
    let mut server = installation.serve();
    for round in 1..=5 {
        let (old, new) = (format!("password number {}", round - 1), format!("password number {round}"));
        let live = server.client().with_password("acme", &old).token();
        installation.ok_with_input(&["accounts", "set-password", "acme", "--password-stdin"], new.as_bytes());
        server.kill();
        server = installation.serve();
        assert_eq!(server.client().with_password("acme", &old).status, 401);
        assert_eq!(server.client().with_password("acme", &new).status, 200);
        assert_eq!(server.client().status("/sample/x", &live), 401, "tokens by the old password are dead");
    }
    installation.ok(&["check"]);
}

/// What the server itself writes is acknowledged by its audit line.
#[test]
fn a_key_that_was_revoked_for_its_exposure_stays_revoked_when_the_server_was_killed() {
    let installation = Installation::with("[server]\nplaintext_credentials = \"revoke\"\n");
    installation.customer("acme");
    let mut server = installation.serve();
    for _ in 0..3 {
        let key = installation.ok(&["keys", "create", "acme"]);
        let live = token(&server.client(), &key);
        crate::peers::in_the_clear(server.https, Some(&crate::https::basic(&key, "")));
        server.until_logged("EXPOSED: sent over plain HTTP, and revoked");
        server.kill();
        server = installation.serve();
        assert_eq!(server.client().with_key(&key).status, 401);
        assert_eq!(server.client().status("/sample/x", &live), 401);
    }
}

/// The log beside the database is for those who work on it: when nothing runs, the one file is a backup.
#[test]
fn a_copy_of_the_database_holds_everything_when_nothing_runs() {
    let (original, restored) = (Installation::new(), Installation::new());
    let acme = original.customer("acme");
    std::fs::create_dir(restored.data_dir()).expect("a folder");
    let copy = || std::fs::copy(original.database(), restored.database()).expect("a copy");
    copy();
    let server = restored.serve();
    token(&server.client(), &acme.key);
    server.stop();

    // And so it is after a server that ended by itself, with the commands beside it.
    let server = original.serve();
    let key = original.ok(&["keys", "create", "acme"]);
    let live = token(&server.client(), &acme.key);
    server.stop();
    copy();
    let server = restored.serve();
    token(&server.client(), &key);
    assert_eq!(server.client().status("/sample/x", &live), 200, "signing keys are in it too");
}

/// Wherever a first start is cut off, the next one finishes it.
#[test]
fn a_first_start_that_was_killed_at_any_moment_is_made_good_by_the_next() {
    let whole = {
        let (installation, began) = (Installation::new(), Instant::now());
        installation.serve().kill();
        began.elapsed()
    };
    const CUTS: u32 = 12;
    for cut in 0..CUTS {
        let installation = Installation::new();
        let mut first = Running::start(installation.command(SERVE), b"");
        std::thread::sleep(whole * cut / CUTS);
        first.kill();
        let server = installation.serve();
        let published = server.client().call("GET", "/demo", None).json();
        let demo = published["token"].as_str().expect("a demo token");
        assert_eq!(server.client().status("/demo/time", demo), 200);
        server.kill();
        installation.ok(&["check"]);
    }
}

/// The command line is killed over the whole length of its life, by small steps.
#[test]
fn a_key_whose_line_was_complete_works_although_its_command_was_killed() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    let server = installation.serve();
    let create = || Running::start(installation.command(&["keys", "create", "acme"]), b"");
    let began = Instant::now();
    create().end();
    let usual = began.elapsed();

    const CUTS: u32 = 40;
    let (mut shown, mut cut_off) = (vec![acme.key], 0);
    for cut in 0..CUTS {
        let mut command = create();
        // Up to one and a half times as long as it takes.
        std::thread::sleep(usual * cut * 3 / (CUTS * 2));
        command.kill();
        let stdout = command.end().stdout;
        match stdout.strip_suffix('\n') {
            Some(key) => shown.push(key.to_owned()),
            None => {
                assert_eq!(stdout, "", "a line comes as a whole");
                cut_off += 1;
            }
        }
    }
    // Whatever the machine's pace was, there was a command that was cut off at once, and now one that is not.
    assert!(cut_off > 0);
    shown.push(installation.ok(&["keys", "create", "acme"]));

    for key in &shown {
        token(&server.client(), key);
    }
    let listed: serde_json::Value = serde_json::from_str(&installation.ok(&["keys", "list", "--json"])).expect("JSON");
    let listed = listed["keys"].as_array().expect("keys").len();
    assert!(listed >= shown.len(), "{listed} keys of {} that were shown", shown.len());
    println!("{} keys shown, {cut_off} commands cut off, {listed} keys in the store", shown.len());
    installation.ok(&["check"]);
}

/// Killed while it works: requests are being answered and commands are being run at the moment of the SIGKILL.
#[test]
fn a_server_that_was_killed_at_work_comes_back_with_everything_that_was_acknowledged() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    let mut keys = vec![acme.key];
    for round in 0..3 {
        let server = installation.serve();
        let busy = Busy::start(&server, &keys[0]);
        let created = std::thread::scope(|scope| {
            let commands: Vec<_> =
                (0..4).map(|_| scope.spawn(|| installation.ok(&["keys", "create", "acme"]))).collect();
            until("requests are answered", || busy.answered() > 3);
            std::thread::sleep(Duration::from_millis(20 * round));
            server.kill();
            commands.into_iter().map(|command| command.join().expect("a created key")).collect::<Vec<_>>()
        });
        keys.extend(created);
        drop(busy);
    }
    let server = installation.serve();
    for key in &keys {
        token(&server.client(), key);
    }
    installation.ok(&["check"]);
}

/// A client that asks for tokens until the server is gone.
struct Busy {
    answered: std::sync::Arc<std::sync::atomic::AtomicU32>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Busy {
    fn start(server: &Server, key: &str) -> Self {
        use std::sync::atomic::Ordering::Relaxed;
        let (client, basic) = (server.client(), crate::https::basic(key, ""));
        let answered = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counter = std::sync::Arc::clone(&answered);
        let thread = std::thread::spawn(move || {
            let Ok(mut connection) = client.connect() else { return };
            while let Ok(answer) = connection.call("GET", "/token", Some(&basic)) {
                assert_eq!(answer.status, 200);
                counter.fetch_add(1, Relaxed);
            }
        });
        Self { answered, thread: Some(thread) }
    }

    fn answered(&self) -> u32 {
        self.answered.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("good answers");
        }
    }
}
