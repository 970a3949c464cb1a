//! One installation: its folder and configuration, its command line and its server.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::https::Client;
use crate::poll::{PATIENCE, until, until_some};

/// Hashes that cost next to nothing and rates that no test reaches.
const CHEAP: &str = r#"
[credentials]
argon2_memory_kib = 64
argon2_iterations = 1
failures_per_address = "1000000/m"
failures_per_user = "1000000/m"

[demo]
requests_per_address = "1000000/m"
tokens_per_address = "1000000/m"
"#;

/// The default route, which a configuration that names others has to repeat.
pub const SAMPLE_ROUTE: &str =
    "[[routes]]\nid = \"sample\"\npath = \"/sample/*\"\ngroups = [\"sample\"]\nresource = \"echo\"\n";

/// A folder with a configuration; the data folder lies in it, or where it was said.
#[derive(Debug)]
pub struct Installation {
    folder: TempDir,
    data_dir: PathBuf,
}

impl Installation {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With more configuration, which is put at the end.
    pub fn with(more: &str) -> Self {
        let folder = TempDir::with_prefix("keybearer-").expect("a folder");
        let data_dir = folder.path().join("data");
        let installation = Self { folder, data_dir };
        installation.configure(more);
        installation
    }

    /// With its data folder elsewhere.
    pub fn at(data_dir: &Path) -> Self {
        let mut installation = Self::new();
        data_dir.clone_into(&mut installation.data_dir);
        installation
    }

    /// Writes the configuration anew, in one step, as an editor or a deployment does.
    pub fn configure(&self, more: &str) {
        let next = self.path("gateway.toml.new");
        fs::write(&next, format!("{CHEAP}\n{more}")).expect("a written file");
        fs::rename(next, self.path("gateway.toml")).expect("a replaced file");
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new file in the folder.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a written file");
        path
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn database(&self) -> PathBuf {
        self.data_dir.join("keybearer.db")
    }

    pub fn ca(&self) -> PathBuf {
        self.data_dir.join("tls/ca.pem")
    }

    /// A command of the program in this installation.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = program();
        command.args(args).arg("--config").arg(self.path("gateway.toml")).arg("--data-dir").arg(&self.data_dir);
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Done {
        finish(self.command(args), b"")
    }

    /// Runs a command that succeeds, and gives back its data.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code(), Some(0), "{args:?}: {done}");
        done.stdout.trim_end().to_owned()
    }

    /// Runs a command that succeeds and reads `stdin`.
    #[track_caller]
    pub fn ok_with_input(&self, args: &[&str], stdin: &[u8]) {
        let done = finish(self.command(args), stdin);
        assert_eq!(done.code(), Some(0), "{args:?}: {done}");
    }

    /// An account with a licence of group `sample`, and a key of it.
    #[track_caller]
    pub fn customer(&self, account: &str) -> Customer {
        if self.run(&["groups", "show", "sample"]).code() != Some(0) {
            self.ok(&["groups", "create", "sample", "--title", "The sample API"]);
        }
        self.ok(&["accounts", "create", account]);
        let licence = self.ok(&["licences", "grant", account, "--group", "sample", "--ends", "365d"]);
        Customer { account: account.to_owned(), licence, key: self.ok(&["keys", "create", account, "--label", "ci"]) }
    }

    /// Starts a server that serves.
    #[track_caller]
    pub fn serve(&self) -> Server {
        Server::start(self.command(SERVE)).expect_serving(self)
    }
}

pub const SERVE: &[&str] = &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

/// The program, with nothing of this process's environment that could configure it.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keybearer"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYBEARER")) {
        command.env_remove(name);
    }
    command
}

/// Somebody with a key.
#[derive(Debug)]
pub struct Customer {
    pub account: String,
    pub licence: String,
    pub key: String,
}

impl Customer {
    /// What the key may be called by.
    pub fn key_id(&self) -> &str {
        key_id(&self.key)
    }
}

/// `kb_<id>` of a key.
pub fn key_id(key: &str) -> &str {
    key.rsplit_once('_').expect("a key").0
}

/// A command that has ended.
#[derive(Debug)]
pub struct Done {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub at: Instant,
}

impl Done {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nstdout:\n{}stderr:\n{}", self.status, self.stdout, self.stderr)
    }
}

/// Runs a command to its end, which must come.
#[track_caller]
pub fn finish(command: Command, stdin: &[u8]) -> Done {
    Running::start(command, stdin).end()
}

/// A process and what it has written so far; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn start(mut command: Command, stdin: &[u8]) -> Self {
        use std::io::Write;
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("a started process");
        // It may end before it has read everything, or anything.
        let _ = child.stdin.take().map(|mut pipe| pipe.write_all(stdin));
        let mut running = Self { stdout: Arc::default(), stderr: Arc::default(), readers: Vec::new(), child };
        let stdout = running.child.stdout.take().expect("a pipe");
        let stderr = running.child.stderr.take().expect("a pipe");
        running.collect(stdout, Arc::clone(&running.stdout));
        running.collect(stderr, Arc::clone(&running.stderr));
        running
    }

    fn collect(&mut self, mut pipe: impl Read + Send + 'static, into: Arc<Mutex<Vec<u8>>>) {
        self.readers.push(thread::spawn(move || {
            let mut bytes = [0; 16 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                into.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        }));
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.lock().unwrap()).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a living process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its resident memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a living process");
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// SIGKILL, unless it has ended by itself; the process is gone when this returns.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end, which must come.
    #[track_caller]
    pub fn end(mut self) -> Done {
        let (mut status, began) = (None, Instant::now());
        while status.is_none() {
            status = self.child.try_wait().expect("a child");
            if status.is_none() {
                assert!(began.elapsed() < PATIENCE, "still running:\n{}\n{}", self.stdout(), self.stderr());
                thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        let at = Instant::now();
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        Done { status: status.unwrap(), stdout: self.stdout(), stderr: self.stderr(), at }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server process.
#[derive(Debug)]
pub struct Server {
    pub process: Running,
    pub https: SocketAddr,
    pub admin: SocketAddr,
    ca: PathBuf,
}

/// A server process that has not said yet that it serves.
#[derive(Debug)]
pub struct Starting(pub Running);

impl Server {
    pub fn start(command: Command) -> Starting {
        Starting(Running::start(command, b""))
    }

    /// A client of the main listener that believes the local authority.
    pub fn client(&self) -> Client {
        Client::new(self.https, &self.ca)
    }

    /// A client of the admin listener.
    pub fn admin_client(&self) -> Client {
        Client::new(self.admin, &self.ca)
    }

    /// Where it is reached, under a name that its certificate holds.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.https.port())
    }

    /// The value of a metric without labels.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.admin_client().call("GET", "/metrics", None).text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in:\n{text}"))
    }

    /// Waits until the log holds `text`.
    #[track_caller]
    pub fn until_logged(&self, text: &str) {
        until(&format!("{text:?} in the log of {}", self.https), || self.process.stdout().contains(text));
    }

    /// How often the log holds `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.process.stdout().matches(text).count()
    }

    /// Ends it as an operator does, and asserts that it ended well.
    #[track_caller]
    pub fn stop(self) -> Done {
        self.process.signal(Signal::TERM);
        let done = self.process.end();
        assert_eq!(done.code(), Some(0), "{done}");
        assert!(!done.stdout.contains("panicked") && !done.stderr.contains("panicked"), "{done}");
        done
    }

    /// SIGKILL; it is gone when this returns.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

impl Starting {
    /// Waits until it serves.
    #[track_caller]
    pub fn expect_serving(mut self, installation: &Installation) -> Server {
        let line = until_some("the server serves", || {
            assert!(!self.0.has_ended(), "ended:\n{}\n{}", self.0.stdout(), self.0.stderr());
            let log = self.0.stdout();
            let mut lines = log.split_inclusive('\n');
            lines.find(|line| line.ends_with('\n') && line.contains("serving")).map(str::to_owned)
        });
        let address = |name: &str| {
            // Both forms of the log: https=127.0.0.1:1 and "https":"127.0.0.1:1".
            let (_, rest) = line.split_once(name).expect(name);
            let rest = rest.trim_start_matches(['"', ':', '=']);
            let end = rest.find(['"', ' ', '\n']).unwrap_or(rest.len());
            rest[..end].parse().unwrap_or_else(|_| panic!("{line}"))
        };
        let (https, admin) = (address("https"), address("admin"));
        Server { process: self.0, https, admin, ca: installation.ca() }
    }

    /// Waits for the end of one that does not serve.
    #[track_caller]
    pub fn expect_end(self) -> Done {
        self.0.end()
    }
}
