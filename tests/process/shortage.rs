//! Full disks and too many connections: nothing is lost, what can go on goes on, and all is well when there is room again.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bad_input::refused;
use crate::files::{alone, open_files};
use crate::https::bearer;
use crate::installation::{Installation, SERVE, Server};
use crate::poll::{IN_FORCE, until, within};

/// A small disk in memory; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: only root can mount a small disk");
            return None;
        }
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            other => {
                println!("SKIPPED: no small disk could be mounted: {other:?}");
                None
            }
        }
    }

    /// Takes all the space there is.
    fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.ballast()).expect("a file");
        for size in [64 * 1024, 1024, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).expect("a removed file");
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

const DISK_FULL: &str = "the store cannot write: the disk is full; free some space and try again (nothing was changed)";

#[test]
fn on_a_full_disk_commands_fail_and_say_why_the_server_goes_on_and_all_is_well_when_there_is_space() {
    let mount = tempfile::tempdir().expect("a folder");
    let Some(disk) = Disk::mount(mount.path(), "4m") else { return };
    let installation = Installation::at(&mount.path().join("data"));
    let acme = installation.customer("acme");
    let mut server = installation.serve();
    let token = server.client().with_key(&acme.key).token();

    let mut keys = vec![acme.key.clone()];
    for round in 0..2 {
        disk.fill();
        // What the log still has room for may be written; then the disk is full.
        let mut failed = installation.run(&["keys", "create", "acme"]);
        while failed.code() == Some(0) {
            keys.push(failed.stdout.trim_end().to_owned());
            assert!(keys.len() < 100, "the disk does not get full");
            failed = installation.run(&["keys", "create", "acme"]);
        }
        refused("full disk, keys create", &failed, &[DISK_FULL]);
        assert_eq!(failed.stdout, "", "no key is shown that is not kept");
        for command in
            [&["keys", "suspend", acme.key_id()][..], &["tokens", "revoke", "--all"], &["accounts", "create", "other"]]
        {
            refused("full disk, another command", &installation.run(command), &[DISK_FULL]);
        }
        // The server goes on, with what was known and with what comes.
        let client = server.client();
        assert_eq!(client.status("/sample/x", &token), 200);
        for key in &keys {
            client.with_key(key).token();
        }
        assert_eq!(client.call("GET", "/health/ready", None).status, 200);

        disk.free();
        let done = installation.run(&["keys", "create", "acme"]);
        assert_eq!(done.code(), Some(0), "{done}");
        let key = done.stdout.trim_end().to_owned();
        within(IN_FORCE, done.at, "the key works", || client.with_key(&key).status == 200);
        keys.push(key);
        assert_eq!(installation.run(&["keys", "show", acme.key_id()]).code(), Some(0), "the suspension was not made");
        installation.ok(&["check"]);
        if round == 0 {
            // Killed on a full disk, it comes back, on the full disk or when there is space.
            disk.fill();
            server.kill();
            let on_full = Server::start(installation.command(SERVE));
            let mut process = on_full.0;
            until("it serves, or says why not", || process.has_ended() || process.stdout().contains("serving"));
            if process.has_ended() {
                refused("full disk, serve", &process.end(), &["disk is full"]);
            } else {
                process.kill();
            }
            disk.free();
            server = installation.serve();
        }
    }
    assert_eq!(server.client().status("/sample/x", &token), 200);
    server.stop();
    installation.ok(&["check"]);
}

#[test]
fn a_first_start_on_a_full_disk_is_told_and_made_good_later() {
    let mount = tempfile::tempdir().expect("a folder");
    let Some(disk) = Disk::mount(mount.path(), "1m") else { return };
    let installation = Installation::at(&mount.path().join("data"));
    // From no space at all to nearly enough: the start fails at another step each time, and the last one succeeds.
    let (mut failures, mut room) = (0, 0);
    loop {
        disk.fill();
        let size = fs::metadata(disk.ballast()).expect("a file").len();
        let file = OpenOptions::new().write(true).open(disk.ballast()).expect("a file");
        file.set_len(size.saturating_sub(room)).expect("a shorter file");
        let mut process = Server::start(installation.command(SERVE)).0;
        until("it serves, or says why not", || process.has_ended() || process.stdout().contains("serving"));
        if !process.has_ended() {
            break;
        }
        let done = process.end();
        refused(&format!("first start with {room} bytes of disk"), &done, &[]);
        assert!(done.stderr.to_lowercase().contains("disk is") || done.stderr.contains("No space left"), "{done}");
        failures += 1;
        room += 16 * 1024;
        assert!(room < 1024 * 1024, "it never starts");
    }
    assert!(failures > 0);
    disk.free();
    let server = installation.serve();
    let demo = server.client().call("GET", "/demo", None).json();
    assert_eq!(server.client().status("/demo/time", demo["token"].as_str().expect("a token")), 200);
    server.stop();
    installation.ok(&["check"]);
}

const CONNECTIONS: &str = "keybearer_connections";

/// A token of a new customer, and a call with it on a connection of its own.
fn guarded(installation: &Installation, server: &Server) -> impl Fn() -> u16 + use<> {
    let acme = installation.customer("acme");
    let client = server.client();
    let token = client.with_key(&acme.key).token();
    move || client.status("/sample/x", &token)
}

#[test]
fn a_guarded_request_is_answered_beside_thousands_of_idle_connections() {
    // This process holds the other ends, and runs other tests.
    let _alone = alone();
    let count = open_files().saturating_sub(1000).min(10_000);
    if count < 10_000 {
        println!("SKIPPED in part: the limit of open files allows {count} connections, not 10000");
    }
    let installation = Installation::with(
        "[limits]\nhandshake_timeout = \"10m\"\nconnections = 20000\nconnections_per_address = 20000\n",
    );
    let server = installation.serve();
    let call = guarded(&installation, &server);
    assert_eq!(call(), 200);
    let at_rest = server.metric(CONNECTIONS);

    let mut idle = Vec::with_capacity(count);
    for _ in 0..count {
        idle.push(TcpStream::connect(server.https).expect("a connection"));
    }
    until("all are accepted", || server.metric(CONNECTIONS) >= at_rest + count as f64);
    for _ in 0..20 {
        assert_eq!(call(), 200);
    }
    let began = Instant::now();
    assert_eq!(call(), 200);
    println!("{count} idle connections; a guarded request on a new connection took {:?}", began.elapsed());
    let key = installation.run(&["keys", "create", "acme"]);
    assert_eq!(key.code(), Some(0), "{key}");
    within(IN_FORCE, key.at, "the key works", || server.client().with_key(key.stdout.trim_end()).status == 200);

    drop(idle);
    until("the connections are counted out", || server.metric(CONNECTIONS) <= at_rest);
    assert_eq!(call(), 200);
    server.stop();
}

#[test]
fn connections_that_never_speak_are_closed() {
    let installation = Installation::with("[limits]\nhandshake_timeout = \"500ms\"\nidle_timeout = \"500ms\"\n");
    let server = installation.serve();
    let at_rest = server.metric(CONNECTIONS);
    let mut idle: Vec<_> = (0..200).map(|_| TcpStream::connect(server.https).expect("a connection")).collect();
    // TLS, and then nothing.
    let mut silent = server.client().connect().expect("a connection");
    until("the server closes them", || server.metric(CONNECTIONS) <= at_rest);
    for tcp in &mut idle {
        tcp.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        assert!(matches!(tcp.read(&mut [0]), Ok(0) | Err(_)));
    }
    assert!(silent.call("GET", "/health/live", None).is_err());
    let metrics = server.admin_client().call("GET", "/metrics", None).text();
    assert!(metrics.contains("keybearer_connections_closed_total{reason=\"slow_handshake\"} 200"), "{metrics}");
    server.stop();
}

/// A server under `ulimit`, with its arguments as they are.
fn serve_with_limit(installation: &Installation, option: &str, files: u32) -> Server {
    let plain = installation.command(SERVE);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {option} {files} && exec \"$0\" \"$@\"")]);
    command.arg(plain.get_program()).args(plain.get_args());
    Server::start(command).expect_serving(installation)
}

const TOO_FEW_FILES: &str = "the limit of open files (ulimit -Hn) allows fewer connections than the configuration";

/// The limit that most systems begin with is one that a process may raise by itself.
#[test]
fn a_server_raises_its_soft_limit_of_open_files() {
    let installation = Installation::with("[limits]\nhandshake_timeout = \"10m\"\nconnections = 1000\n");
    if open_files() < 1100 {
        println!("SKIPPED: the hard limit of open files is below 1100");
        return;
    }
    let server = serve_with_limit(&installation, "-Sn", 128);
    let call = guarded(&installation, &server);
    let _idle: Vec<_> = (0..300).map(|_| TcpStream::connect(server.https).expect("a connection")).collect();
    until("all are accepted", || server.metric(CONNECTIONS) >= 300.0);
    assert_eq!(call(), 200);
    assert_eq!(server.logged(TOO_FEW_FILES), 0);
    server.stop();
}

/// With fewer descriptors than connections the server neither ends nor forgets how to answer.
#[test]
fn a_server_without_descriptors_to_spare_comes_back_when_there_are_some() {
    let installation = Installation::with("[limits]\nhandshake_timeout = \"10m\"\n");
    let server = serve_with_limit(&installation, "-n", 128);
    server.until_logged(TOO_FEW_FILES);
    let call = guarded(&installation, &server);
    let acme = installation.ok(&["keys", "create", "acme"]);
    let token = server.client().with_key(&acme).token();
    let mut open = server.client().connect().expect("a connection");
    let mut ask = |path: &str| open.call("GET", path, Some(&bearer(&token))).expect("an answer").status;
    assert_eq!(ask("/sample/x"), 200);

    let idle: Vec<_> = (0..200).map(|_| TcpStream::connect(server.https).expect("a connection")).collect();
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..20 {
        assert_eq!(ask("/sample/x"), 200, "a connection that is open is served");
    }
    // What the store decides is in force all the same.
    let revoked = installation.run(&["tokens", "revoke", "--all"]);
    assert_eq!(revoked.code(), Some(0), "{revoked}");
    within(IN_FORCE, revoked.at, "the token is dead", || ask("/sample/x") == 401);

    drop(idle);
    until("new connections are served again", || call() == 401);
    assert_eq!(server.client().with_key(&acme).status, 200);
    assert_eq!(server.client().call("GET", "/health/ready", None).status, 200);
    server.stop();
}
