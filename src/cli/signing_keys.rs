//! `keybearer signing-keys …`

use clap::Subcommand;

use super::Session;
use super::failure::Failure;
use super::view::SigningKeyView;
use super::when::show_end;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the signing keys in the store: kid, algorithm, state and dates. Private halves are never shown.
    List,
}

pub(super) async fn run(session: &mut Session<'_, '_>, command: Command) -> Result<(), Failure> {
    let Command::List = command;
    let store = session.store().await?;
    let keys: Vec<SigningKeyView> = store.signing_keys().await?.iter().map(SigningKeyView::new).collect();
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
        [key.kid, key.algorithm, key.state.into(), created, activates, gone]
    });
    session.out.table(["KID", "ALGORITHM", "STATE", "CREATED", "SIGNS FROM", "GONE"], rows.collect())
}
