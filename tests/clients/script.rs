//! A script in the language of its library: found what it needs, started, and talked with in lines of JSON.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use crate::gateway::TestGateway;
use crate::program::{Program, find};

/// Nothing that a script does takes longer; what does hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The oldest node that openid-client and oauth4webapi run on.
const OLDEST_NODE: u32 = 20;

/// The folder of the scripts.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Node with the packages of `package.json`; says so when something is missing.
fn node() -> Option<(PathBuf, PathBuf)> {
    let node = find("node")?;
    let output = Command::new(&node).arg("--version").output().expect("node's version");
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    if major.is_none_or(|major: u32| major < OLDEST_NODE) {
        println!("SKIPPED: {} is {version}, too old: node {OLDEST_NODE} or later is needed", node.display());
        return None;
    }
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci-node/node_modules");
    if !packages.join("openid-client").is_dir() {
        println!("SKIPPED: {} is missing: .ci/run makes it, as tests/clients/README.md says", packages.display());
        return None;
    }
    Some((node, packages))
}

/// Python with the libraries of `requirements.txt`; says so when something is missing.
fn python() -> Option<PathBuf> {
    let python = find("python3")?;
    let imports = "import authlib, cryptography, freezegun, joserfc, jwcrypto, jwt, requests_oauthlib";
    let output = Command::new(&python).args(["-c", imports]).output().expect("python3 runs");
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        println!("SKIPPED: {}: {why}: pip install -r tests/clients/requirements.txt", python.display());
        return None;
    }
    Some(python)
}

/// The command that runs a script, by its name, with trust in this gateway; `None`, and says so, when it cannot run here.
pub fn command(script: &str, gateway: &TestGateway, folder: &Path) -> Option<Command> {
    let mut command = if script.ends_with(".mjs") {
        let (node, packages) = node()?;
        // Modules are looked for beside the script, and nowhere else.
        std::os::unix::fs::symlink(packages, folder.join("node_modules")).expect("a link");
        for name in [script, "conversation.mjs"] {
            std::fs::copy(scripts().join(name), folder.join(name)).expect("a copy");
        }
        let mut command = Command::new(node);
        // The gateway listens on 127.0.0.1, and `localhost` may be ::1 first.
        command.arg("--dns-result-order=ipv4first").arg(folder.join(script));
        command
    } else {
        let mut command = Command::new(python()?);
        command.arg("-B").arg(scripts().join(script));
        command
    };
    for variable in ["NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"] {
        command.env(variable, gateway.authority());
    }
    // No proxy of this machine stands between it and the gateway.
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(variable);
    }
    Some(command)
}

/// A running script. It is ended when it is dropped.
pub struct Script {
    input: Option<ChildStdin>,
    lines: UnboundedReceiver<String>,
    name: String,
    // Shows what it complained of after a panic, and must go before the folder.
    program: Program,
    _folder: TempDir,
}

impl Script {
    /// Starts a script that trusts this gateway, and tells it `first`. `None` when it cannot run here.
    pub fn start(name: &str, gateway: &TestGateway, first: &Value) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = command(name, gateway, folder.path())?;
        let log = folder.path().join("log");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log).expect("a log"));
        let mut child = command.process_group(0).spawn().expect("it starts");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("its output"));
        let (told, lines) = unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    break;
                }
            }
        });
        let program = Program::of(child, &log);
        let mut script = Self { input, lines, name: name.to_owned(), program, _folder: folder };
        script.say(first);
        Some(script)
    }

    /// Tells it something.
    pub fn say(&mut self, something: &Value) {
        let input = self.input.as_mut().expect("it listens");
        let told = writeln!(input, "{something}").and_then(|()| input.flush());
        assert!(told.is_ok(), "{} has ended", self.name);
    }

    /// What it says next; `None` when it has ended.
    pub async fn hear(&mut self) -> Option<Value> {
        let line = timeout(PATIENCE, self.lines.recv()).await;
        let line = line.unwrap_or_else(|_| panic!("{} is silent", self.name))?;
        Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("{} says {line}", self.name)))
    }

    /// Tells it something, and returns its answer.
    pub async fn ask(&mut self, something: &Value) -> Value {
        self.say(something);
        let answer = self.hear().await;
        answer.unwrap_or_else(|| panic!("{} has ended", self.name))
    }

    /// Tells it that this is all, and returns what it says until it ends; it must end well.
    pub async fn end(mut self) -> Vec<Value> {
        self.input = None;
        let mut rest = Vec::new();
        while let Some(said) = self.hear().await {
            rest.push(said);
        }
        // Its output is closed, so it is about to end.
        let ended = self.program.wait();
        assert!(ended.success(), "{} has failed, after {rest:?}", self.name);
        rest
    }
}
