//! The command line: reads arguments, calls the rooms' operations and prints what they say.
//!
//! Data goes to stdout, all else to stderr. Exit 0: done. 1: failed for a reason the user can mend. 2: misuse, or our fault.
//! Nothing here decides anything about accounts, keys or licences: that is in the rooms.

mod accounts;
mod chart;
mod check;
mod client;
mod doctor;
pub mod examples;
mod failure;
mod groups;
mod health;
mod keys;
mod licence_documents;
mod licences;
mod output;
mod password;
mod plans;
mod private_file;
mod scrub;
mod serve;
mod signing_keys;
mod store;
mod terminal;
#[cfg(test)]
mod tests;
mod tokens;
mod try_out;
mod usage;
mod view;
mod when;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Faults, Overrides};
use crate::ids::{Groups, KeyId};
use crate::licences::Documents;
use crate::secret::Secret;
use crate::server::openapi;
use crate::store::SharedStore;

pub use terminal::ask;

use failure::Failure;
use output::Output;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed for a reason the user can mend.
    Failed,
    /// Misuse, or our fault.
    Misuse,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::Misuse => Self::from(2),
        }
    }
}

/// Asks for a secret on the terminal without echo; `None` when there is no terminal.
pub type Ask<'a> = &'a mut dyn FnMut(&str) -> io::Result<Option<Secret<String>>>;

/// What a command has of the process it runs in, so that a test can run one without a process.
pub struct Process<'a> {
    /// Standard input.
    pub stdin: &'a mut dyn Read,
    /// Standard output.
    pub stdout: &'a mut dyn Write,
    /// Standard error.
    pub stderr: &'a mut dyn Write,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// Asks on the terminal; [`ask`] in a real process.
    pub ask: Ask<'a>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Process<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// Turns an API key into a short-lived token and guards HTTP APIs with it.
#[derive(Debug, Parser)]
#[command(
    name = "keybearer",
    version,
    max_term_width = 110,
    after_help = "A customer from nothing to a key:\n  \
        keybearer groups create orders --title \"The orders API\"\n  \
        keybearer accounts create acme --title \"Acme GmbH\"\n  \
        keybearer licences grant acme --group orders --ends 365d\n  \
        keybearer keys create acme --label ci\n\n\
        The commands work with the gateway up or down; a running one applies a change within a second.\n\
        Exit status: 0 done, 1 failed for a reason you can mend, 2 misuse or a fault of this program."
)]
struct Cli {
    /// Configuration file; without one the built-in defaults hold.
    #[arg(long, global = true, value_name = "FILE", help_heading = "With every command")]
    config: Option<PathBuf>,
    /// Folder of keys, certificates and the database [default: data].
    #[arg(long, global = true, value_name = "DIR", help_heading = "With every command")]
    data_dir: Option<PathBuf>,
    /// Print one JSON document instead of text, for scripts.
    #[arg(long, global = true, help_heading = "With every command")]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM. SIGHUP, or a change of the configuration file, reloads.
    Serve(serve::Args),
    /// Licensees: who holds keys and licences.
    #[command(subcommand)]
    Accounts(accounts::Command),
    /// API keys: create, narrow, suspend and revoke them.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Licences: which groups an account reaches, and for how long.
    #[command(subcommand)]
    Licences(licences::Command),
    /// Groups of resources, which licences grant.
    #[command(subcommand)]
    Groups(groups::Command),
    /// Plans: how much licences, keys and routes allow.
    #[command(subcommand)]
    Plans(plans::Command),
    /// Tokens that are out: revoke them before their time.
    #[command(subcommand)]
    Tokens(tokens::Command),
    /// The keys that tokens are signed with.
    #[command(subcommand)]
    SigningKeys(signing_keys::Command),
    /// Who has used what: requests, bytes and response times, added up.
    Usage(usage::Args),
    /// Check configuration, store and certificates, and say every fault.
    Check,
    /// Help to fit the gateway into its surroundings: proxies that ask it.
    #[command(subcommand)]
    Doctor(doctor::Command),
    /// Play a client: key, token, secured path, refusals; print each exchange.
    Try(try_out::Args),
    /// Print the OpenAPI document of the configuration, as the gateway serves it at /openapi.json.
    Openapi {
        /// That of the admin listener.
        #[arg(long)]
        admin: bool,
    },
    /// Ask a gateway on this machine whether it is ready (for container health checks).
    Health,
}

/// Runs one command. `args` begin with the program's name.
pub async fn run(args: impl IntoIterator<Item = OsString>, process: Process<'_>) -> Exit {
    let scrub::Scrubbed { args, warnings } = scrub::scrub(args);
    let Process { stdin, stdout, stderr, env, ask, clock } = process;
    let parsed = Cli::try_parse_from(args);
    let mut out = Output::new(stdout, stderr, parsed.as_ref().is_ok_and(|cli| cli.json));
    for warning in warnings {
        out.warn(&warning);
    }
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &mut out),
    };
    let mut overrides = Overrides { data_dir: cli.data_dir, ..Overrides::default() };
    if let Command::Serve(args) = &cli.command {
        (overrides.listen, overrides.admin_listen) = (args.listen, args.admin_listen);
    }
    let source = Source { file: cli.config, environment: env, overrides };
    let loaded = source.load();
    let result = match (loaded, cli.command) {
        (Err(faults), Command::Check) => check::faulty(&mut out, &faults),
        (Err(faults), _) => Err(Failure::from(faults)),
        (Ok(config), command) => {
            let opened = store::Opened::default();
            let mut session = Session { out: &mut out, stdin, ask, clock, source, config, opened };
            let result = dispatch(&mut session, command).await;
            session.opened.close().await;
            result
        }
    };
    match result {
        Ok(exit) => exit,
        Err(failure) => {
            out.failure(&failure);
            failure.exit()
        }
    }
}

async fn dispatch(session: &mut Session<'_, '_>, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Serve(_) => {
            return serve::run(&session.source, session.config.clone(), Arc::clone(&session.clock), session.out).await;
        }
        Command::Accounts(command) => accounts::run(session, command).await?,
        Command::Keys(command) => keys::run(session, command).await?,
        Command::Licences(command) => licences::run(session, command).await?,
        Command::Groups(command) => groups::run(session, command).await?,
        Command::Plans(command) => plans::run(session, &command)?,
        Command::Tokens(command) => tokens::run(session, command).await?,
        Command::SigningKeys(command) => signing_keys::run(session, command).await?,
        Command::Usage(args) => usage::run(session, args).await?,
        Command::Check => return check::run(session).await,
        Command::Doctor(command) => return doctor::run(session, &command),
        Command::Try(args) => return try_out::run(session, args).await,
        Command::Openapi { admin } => {
            let of = if admin { openapi::admin } else { openapi::of };
            session.out.document(&of(&session.config))?;
        }
        Command::Health => return health::run(session).await,
    }
    Ok(Exit::Done)
}

/// clap's own word, where it belongs: help and version on stdout, misuse on stderr.
fn usage(error: &clap::Error, out: &mut Output<'_>) -> Exit {
    let text = error.render().to_string();
    if error.use_stderr() {
        out.note(text.trim_end());
        return Exit::Misuse;
    }
    match out.data(text.trim_end()) {
        Ok(()) => Exit::Done,
        Err(failure) => failure.exit(),
    }
}

/// Where the configuration comes from, each time it is read.
#[derive(Debug, Clone)]
struct Source {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    overrides: Overrides,
}

impl Source {
    fn load(&self) -> Result<Config, Faults> {
        Config::load(self.file.as_deref(), self.environment.iter().cloned(), &self.overrides)
    }

    /// What the file says now, to notice that it changed.
    fn contents(&self) -> Option<Vec<u8>> {
        std::fs::read(self.file.as_deref()?).ok()
    }
}

/// What every command works with.
struct Session<'a, 'p> {
    out: &'a mut Output<'p>,
    stdin: &'a mut dyn Read,
    ask: Ask<'a>,
    clock: Arc<dyn Clock>,
    source: Source,
    config: Config,
    opened: store::Opened,
}

impl Session<'_, '_> {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Opens the store that the configuration names.
    async fn store(&mut self) -> Result<SharedStore, Failure> {
        store::open(&self.config, self.out, &mut self.opened).await
    }

    /// The licence documents that this configuration believes, with the latest time that the store has seen.
    async fn documents(&self, store: &SharedStore) -> Result<Arc<Documents>, Failure> {
        let documents = Documents::new(&self.config.licences);
        documents.learn(store.latest_time().await?);
        Ok(Arc::new(documents))
    }

    /// A key's id, given as `<prefix>_<id>` or as the id alone.
    fn key_id(&self, text: &KeyText) -> Result<KeyId, Failure> {
        let prefix = &self.config.key_prefix;
        prefix.key_id(&text.0).or_else(|| text.0.parse().ok()).ok_or_else(|| {
            // What was given is not repeated: it may be the secret half of a key.
            Failure::misuse(format!("that is no key id; one looks like {}_0123456789ab", prefix.as_str()))
                .hint("keybearer keys list")
        })
    }
}

/// A key's id as it was typed. It is checked after the configuration has said what keys begin with, and clap, which repeats
/// what it refuses, never sees it as wrong.
#[derive(Clone)]
struct KeyText(String);

impl std::fmt::Debug for KeyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyText")
    }
}

impl std::str::FromStr for KeyText {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// Groups given one by one, as a set; `None` when none was given.
fn group_set(groups: Vec<crate::ids::GroupId>) -> Option<Groups> {
    if groups.is_empty() { None } else { Some(groups.into_iter().collect()) }
}
