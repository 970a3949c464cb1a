//! A program of others: found, started, and ended with all that it started, however the test ends.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Where a program is; says so when it is nowhere.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where .ci/run puts what Debian does not have.
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci-venv/bin");
    // Debian keeps servers in sbin, which is not on every user's path.
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders = std::iter::once(ours).chain(std::env::split_paths(&path)).chain(more);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        println!("SKIPPED: {name} is not installed");
    }
    found
}

/// A port that nothing listens on and that no other test of this run was given.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        if GIVEN.lock().expect("no panic inside").insert(port) {
            return port;
        }
    }
}

/// A running program. Dropping it kills its whole process group; after a panic its log is shown.
pub struct Program {
    child: Child,
    log: PathBuf,
}

/// How a start ended that was none.
#[derive(Debug)]
pub enum Start {
    /// Another process was quicker to take the port.
    PortTaken,
    /// It ended, with this log.
    Ended(String),
}

impl Program {
    /// Takes care of a child that leads a process group of its own and writes into `log`.
    pub fn of(child: Child, log: &Path) -> Self {
        Self { child, log: log.to_owned() }
    }

    /// Starts `command` with its output in `log`, and waits until it accepts connections on `port`.
    pub async fn start(mut command: Command, log: &Path, port: u16) -> Result<Self, Start> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let output = File::create(log).expect("a log");
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a log")).stderr(output).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut program = Self::of(child, log);
        let began = Instant::now();
        loop {
            let listens = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            // In this order: what ended did not open the port that someone listens on.
            if program.child.try_wait().expect("its state").is_some() {
                let log = program.log();
                let taken = log.contains("ddress already in use") || log.contains("cannot bind socket");
                return Err(if taken { Start::PortTaken } else { Start::Ended(log) });
            }
            if listens {
                return Ok(program);
            }
            assert!(began.elapsed() < PATIENCE, "{command:?} does not listen on {port}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for its end, which is near.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("its end")
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.wait();
        if std::thread::panicking() {
            // The end of it is what the panic is about.
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- {}\n{}\n---", self.log.display(), lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}
