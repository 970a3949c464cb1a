//! `keybearer tokens …`

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::view::{Named, RevocationView};
use super::when::instant;
use super::{KeyText, Session};
use crate::clock::Timestamp;
use crate::ids::{AccountName, TokenId};
use crate::revocations::Operations;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Revoke tokens before their time. Keys and passwords go on working and get new ones.
    #[command(after_help = "Examples:\n  keybearer tokens revoke --token 3q2-7wAAAAAAAAAAAAAAAA\n  \
        keybearer tokens revoke --key kb_0123456789ab\n  keybearer tokens revoke --all-before 2027-01-31T12:00:00Z\n\n\
        To stop a key or an account as well: keybearer keys suspend|revoke, keybearer accounts suspend")]
    Revoke(Which),
    /// List the revocations in force.
    Revocations,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// One token, by its jti.
    // One in 64 begins with "-", which base64url has among its digits.
    #[arg(long, value_name = "JTI", allow_hyphen_values = true)]
    token: Option<TokenId>,
    /// The tokens got so far with one key; the key itself goes on working.
    #[arg(long, value_name = "KEY")]
    key: Option<KeyText>,
    /// The tokens of one account so far, by key or password.
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<AccountName>,
    /// Every token issued so far.
    #[arg(long)]
    all: bool,
    /// Every token issued before an instant.
    #[arg(long, value_name = "WHEN", value_parser = instant)]
    all_before: Option<Timestamp>,
}

pub(super) async fn run(session: &mut Session<'_, '_>, command: Command) -> Result<(), Failure> {
    let store = session.store().await?;
    let operations = Operations::new(store.clone(), store.clone(), store, session.clock.clone());
    match command {
        Command::Revoke(which) => revoke(session, &operations, which).await,
        Command::Revocations => list(session, &operations).await,
    }
}

async fn revoke(session: &mut Session<'_, '_>, operations: &Operations, which: Which) -> Result<(), Failure> {
    let (revocation, dead, goes_on) = if let Some(id) = which.token {
        (operations.token(id).await?, format!("token {id} is dead"), None)
    } else if let Some(key) = which.key {
        let id = session.key_id(&key)?;
        let name = session.config.key_prefix.name_of(&id);
        let goes_on = format!("the key itself goes on working; to stop it: keybearer keys suspend {name}");
        (operations.of_key(&id).await?, format!("the tokens got so far with key {name} are dead"), Some(goes_on))
    } else if let Some(name) = which.account {
        let goes_on = format!("its keys and password go on working; to stop them: keybearer accounts suspend {name}");
        (
            operations.of_account(&name).await?,
            format!("the tokens of account \"{name}\" so far are dead"),
            Some(goes_on),
        )
    } else if let Some(before) = which.all_before {
        (operations.all_before(before).await?, format!("every token issued before {before} is dead"), None)
    } else {
        let goes_on = "keys and passwords go on working, the published demo key among them".to_owned();
        (operations.all().await?, "every token issued so far is dead".to_owned(), Some(goes_on))
    };
    session.out.note(&dead);
    if let Some(goes_on) = goes_on {
        session.out.note(&goes_on);
    }
    if session.out.json() {
        session.out.document(&Named(&RevocationView::new(&revocation)))?;
    }
    Ok(())
}

async fn list(session: &mut Session<'_, '_>, operations: &Operations) -> Result<(), Failure> {
    let revocations: Vec<RevocationView> = operations.list().await?.iter().map(RevocationView::new).collect();
    if session.out.json() {
        return session.out.document(&serde_json::json!({ "revocations": revocations }));
    }
    if revocations.is_empty() {
        session.out.note("no revocations in force");
        return Ok(());
    }
    let rows = revocations.into_iter().map(|revocation| {
        let before = revocation.before();
        [revocation.target.into(), revocation.id.unwrap_or_default(), before, revocation.made_at.to_string()]
    });
    session.out.table(["TARGET", "ID", "TOKENS BEFORE", "MADE"], rows.collect())
}
