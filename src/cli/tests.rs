//! Every command, run as a process would run it: arguments in, two streams and an exit status out.

use std::sync::Arc;
use std::time::Duration;

use super::{Exit, Process, run};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::secret::Secret;

mod bulk;
mod commands;
mod documents;
mod licence_documents;
mod player;
mod refusals;
mod secrets;
mod signing_keys;
mod usage;

/// A data folder of its own, and a clock that stands still.
struct Desk {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    env: Vec<(String, String)>,
}

/// What a command left behind.
#[derive(Debug)]
struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

impl Ran {
    /// Standard output of a command that is expected to be done.
    #[track_caller]
    fn done(self) -> String {
        assert_eq!(self.exit, Exit::Done, "{self:#?}");
        self.out
    }

    #[track_caller]
    fn json(self) -> serde_json::Value {
        let out = self.done();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

impl Desk {
    fn new() -> Self {
        // Cheap hashes: the tests are about commands.
        let env =
            [("KEYBEARER__CREDENTIALS__ARGON2_MEMORY_KIB", "8192"), ("KEYBEARER__CREDENTIALS__ARGON2_ITERATIONS", "1")];
        Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
            clock: Arc::new(ManualClock::new(Timestamp::parse("2026-11-01T12:00:00Z").expect("an instant"))),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        }
    }

    /// A desk with group `orders`, account `acme`, a licence and a key, and the key.
    async fn furnished() -> (Self, String) {
        let desk = Self::new();
        desk.run("groups create orders --title Orders").await.done();
        desk.run("accounts create acme --title Acme").await.done();
        desk.run("licences grant acme --group orders").await.done();
        let key = desk.run("keys create acme --label ci").await.done().trim_end().to_owned();
        (desk, key)
    }

    async fn run(&self, line: &str) -> Ran {
        self.run_with(&line.split(' ').collect::<Vec<_>>(), b"", &[]).await
    }

    async fn run_args(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"", &[]).await
    }

    /// Runs a command with standard input and what is typed on the terminal; with nothing typed there is no terminal.
    async fn run_with(&self, args: &[&str], mut stdin: &[u8], typed: &[&str]) -> Ran {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut typed = typed.iter();
        let mut ask = |_: &str| Ok(typed.next().map(|text| Secret::from(*text)));
        let process = Process {
            stdin: &mut stdin,
            stdout: &mut stdout,
            stderr: &mut stderr,
            env: self.env.clone(),
            ask: &mut ask,
            clock: self.clock.clone(),
        };
        let data = self.dir.path().join("data");
        let mut all = vec!["keybearer".into(), "--data-dir".into(), data.into_os_string()];
        all.extend(args.iter().map(Into::into));
        let exit = run(all, process).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Ran { exit, out: text(stdout), err: text(stderr) }
    }

    fn advance(&self, by: Duration) -> Timestamp {
        self.clock.advance(by);
        self.clock.now()
    }
}

/// The id in a whole key.
fn id_of(key: &str) -> &str {
    &key["kb_".len().."kb_".len() + 12]
}
