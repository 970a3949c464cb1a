//! `keybearer signing-keys …`

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::view::SigningKeyView;
use super::when::show_end;
use super::{Session, private_file};
use crate::repositories::KeyName;
use crate::signing::{Certificate, MasterKey, Operations, Rotated};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the signing keys in the store: kid, algorithm, state and dates. Private halves are never shown.
    List,
    /// Let the next key sign, as soon as it has been published for long enough; publish one when there is none.
    #[command(
        after_help = "A key is published for signing.publish_ahead before it signs, so that verifiers that keep the \
        published keys know it by then.\n\nExamples:\n  keybearer signing-keys rotate\n  \
        keybearer signing-keys rotate --emergency    after a private key got into wrong hands"
    )]
    Rotate(Rotate),
    /// Print a certificate of every published key, PEM: the rootcertbundle of a registry of container images.
    #[command(
        after_help = "A registry reads its bundle when it starts. The next key is in it for signing.publish_ahead before it \
        signs: print it anew and restart the registry in that time, or after an emergency rotation at once.\n\nExamples:\n  \
        keybearer signing-keys certificates > bundle.pem\n  \
        keybearer signing-keys certificates --out /etc/docker/registry/keybearer.pem"
    )]
    Certificates {
        /// Write them to this file in place of standard output; it is replaced as a whole.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// The key under which private keys are sealed in the store.
    #[command(subcommand)]
    MasterKey(MasterKeyCommand),
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Now, or not at all: fail when the next key has not been published for long enough.
    #[arg(long, conflicts_with = "emergency")]
    now: bool,
    /// A new key signs at once, all others are gone at once, and every token issued so far is revoked.
    #[arg(long)]
    emergency: bool,
    /// Do not ask before an emergency rotation.
    #[arg(long, requires = "emergency")]
    yes: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum MasterKeyCommand {
    /// Make a master key: a new file that its owner alone may read.
    New {
        /// The file to make; one that is there is never overwritten.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Seal all signing keys in the store under another master key, with the gateway up or down.
    Change {
        /// The file of the master key under which they are sealed now.
        #[arg(long, value_name = "FILE")]
        old: PathBuf,
        /// The file of the one to seal them under.
        #[arg(long, value_name = "FILE")]
        new: PathBuf,
    },
}

pub(super) async fn run(session: &mut Session<'_, '_>, command: Command) -> Result<(), Failure> {
    match command {
        Command::List => list(session).await,
        Command::Rotate(how) if how.emergency => emergency(session, how.yes).await,
        Command::Rotate(how) => rotate(session, how.now).await,
        Command::Certificates { out } => certificates(session, out.as_deref()).await,
        Command::MasterKey(MasterKeyCommand::New { file }) => new_master(session, &file),
        Command::MasterKey(MasterKeyCommand::Change { old, new }) => change_master(session, &old, &new).await,
    }
}

async fn operations(session: &mut Session<'_, '_>) -> Result<Operations, Failure> {
    let store = session.store().await?;
    let config = &session.config;
    Ok(Operations::new(store, &config.signing, config.longest_token(), session.clock.clone()))
}

async fn list(session: &mut Session<'_, '_>) -> Result<(), Failure> {
    let keys = operations(session).await?.list().await?;
    let keys: Vec<SigningKeyView> = keys.iter().map(SigningKeyView::new).collect();
    if let Some(file) = &session.config.signing.private_key_file {
        session.out.note(&format!("the configuration names a signing key of its own: {}", file.display()));
    }
    if session.out.json() {
        return session.out.document(&serde_json::json!({ "signing_keys": keys }));
    }
    if keys.is_empty() {
        session.out.note("no signing keys yet; the gateway makes one when it first starts");
        return Ok(());
    }
    let rows = keys.into_iter().map(|key| {
        let dates = [key.created_at.to_string(), key.activates_at.to_string(), show_end(key.gone_at)];
        let [created, activates, gone] = dates;
        let master = key.sealed_by.unwrap_or_else(|| "(none)".into());
        [key.kid, key.algorithm, key.state.into(), created, activates, gone, master]
    });
    session.out.table(["KID", "ALGORITHM", "STATE", "CREATED", "SIGNS FROM", "GONE", "MASTER KEY"], rows.collect())
}

async fn rotate(session: &mut Session<'_, '_>, or_fail: bool) -> Result<(), Failure> {
    let operations = operations(session).await?;
    let kid = match operations.rotate(or_fail).await? {
        Rotated::Now(kid) => {
            session
                .out
                .note(&format!("key {kid} signs now; the one before stays published until its last token is dead"));
            kid
        }
        Rotated::Planned(kid, at) => {
            session.out.note(&format!(
                "key {kid} is published, and signs from {at}: by then every verifier that keeps the published keys knows it"
            ));
            session.out.note("a running gateway lets it sign by itself; `signing-keys list` shows it");
            kid
        }
    };
    show(session, &operations, &kid).await
}

async fn emergency(session: &mut Session<'_, '_>, yes: bool) -> Result<(), Failure> {
    let operations = operations(session).await?;
    if !yes {
        let question = "A new key signs at once and every token issued so far is dead at once, for all callers. Verifiers \
                        that keep the published keys refuse the new tokens until they fetch them anew. Type yes: ";
        let failed = |error: io::Error| Failure::mendable(format!("the terminal could not be read: {error}"));
        match (session.ask)(question).map_err(failed)? {
            Some(answer) if answer.expose().trim() == "yes" => {}
            Some(_) => return Err(Failure::mendable("that was not yes; nothing was changed")),
            None => {
                return Err(Failure::misuse("there is no terminal to ask on")
                    .hint("say that you mean it: keybearer signing-keys rotate --emergency --yes"));
            }
        }
    }
    let kid = operations.emergency().await?;
    session.out.note(&format!("key {kid} signs now; all other keys are gone, and every token issued so far is dead"));
    session.out.note("API keys and passwords go on working, and get new tokens");
    if session.config.signing.is_supplied() {
        session.out.hint("restart every gateway that reads the key from the file");
    }
    show(session, &operations, &kid).await
}

/// The key, for scripts.
async fn show(session: &mut Session<'_, '_>, operations: &Operations, kid: &str) -> Result<(), Failure> {
    if session.out.json() {
        let keys = operations.list().await?;
        let view = keys.iter().find(|key| key.kid == kid).map(SigningKeyView::new);
        session.out.document(&serde_json::json!({ "signing_key": view }))?;
    }
    Ok(())
}

async fn certificates(session: &mut Session<'_, '_>, file: Option<&Path>) -> Result<(), Failure> {
    let all = operations(session).await?.certificates().await?;
    // One of these keeps a registry from starting.
    let (certificates, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|one| KeyName::Libtrust.fits(one.algorithm));
    for other in &others {
        session.out.note(&format!("{} is left out: registries read no certificate for {}", other.kid, other.algorithm));
    }
    if certificates.is_empty() {
        return Err(Failure::mendable("no published key is one that registries read")
            .hint("sign with RS256 or ES256: set signing.algorithm, then keybearer signing-keys rotate"));
    }
    let bundle: String = certificates.iter().map(Certificate::pem).collect();
    if let Some(path) = file {
        replace(path, &bundle).map_err(|error| {
            Failure::mendable(format!("{} could not be written: {error}", path.display()))
                .hint("name a file in a folder that you may write to")
        })?;
        let count = certificates.len();
        let what = if count == 1 { "certificate is" } else { "certificates are" };
        session.out.note(&format!("{count} {what} in {}; restart the registry that reads it", path.display()));
    }
    if session.out.json() {
        let list: Vec<_> = certificates
            .iter()
            .map(|one| serde_json::json!({ "kid": one.kid, "algorithm": one.algorithm.as_str(), "pem": one.pem() }))
            .collect();
        return session.out.document(&serde_json::json!({ "certificates": list }));
    }
    if file.is_none() { session.out.data(bundle.trim_end()) } else { Ok(()) }
}

/// A file that is there with its old content or the new one at any moment: a registry may be starting.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    let written = std::fs::write(&new, content).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

fn new_master(session: &mut Session<'_, '_>, path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    private_file::write_new(path, &MasterKey::generate())?;
    let id = MasterKey::read(path)?.id().to_owned();
    session.out.note(&format!("{shown} holds a new master key, {id}; keep a copy where the database is not"));
    if session.config.signing.master_key_file.is_none() {
        session
            .out
            .hint("name it in signing.master_key_file and restart the gateway: that seals the keys in the store");
    }
    if session.out.json() {
        session.out.document(&serde_json::json!({ "master_key": { "id": id, "file": path } }))?;
    }
    Ok(())
}

async fn change_master(session: &mut Session<'_, '_>, old: &Path, new: &Path) -> Result<(), Failure> {
    let count = operations(session).await?.change_master(old, new).await?;
    let id = MasterKey::read(new)?.id().to_owned();
    let keys = if count == 1 { "key is" } else { "keys are" };
    session.out.note(&format!("{count} signing {keys} sealed under master key {id}"));
    if session.config.signing.master_key_file.as_deref() != Some(new) {
        session.out.hint(&format!(
            "name {} in signing.master_key_file before the next start, or put its content in place of the old file: a \
             running gateway goes on with the keys that it has, and reads that file anew when they change",
            new.display()
        ));
    }
    if session.out.json() {
        session.out.document(&serde_json::json!({ "master_key": { "id": id, "file": new }, "signing_keys": count }))?;
    }
    Ok(())
}
