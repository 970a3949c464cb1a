//! `keybearer accounts …`

use clap::Subcommand;

use super::failure::Failure;
use super::view::{self, AccountView, Named};
use super::when::{End, When, show_end};
use super::{Session, password};
use crate::accounts::{NewAccount, Operations};
use crate::ids::AccountName;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create an account.
    #[command(after_help = "Examples:\n  keybearer accounts create acme --title \"Acme GmbH\"\n  \
        printf '%s' \"$PASSWORD\" | keybearer accounts create bob --password-stdin --expires 90d")]
    Create {
        /// Its name, which is also its user-id at the token endpoint.
        name: AccountName,
        /// Free text for people.
        #[arg(long, default_value = "", hide_default_value = true)]
        title: String,
        /// When its credentials stop working: a date, an instant, or a span such as 90d.
        #[arg(long, value_name = "WHEN")]
        expires: Option<When>,
        #[command(flatten)]
        password: password::Source,
    },
    /// List all accounts.
    List,
    /// Show one account.
    Show {
        /// Its name.
        name: AccountName,
    },
    /// Set or replace the password; tokens issued so far die. Without an option it is asked for on the terminal.
    SetPassword {
        /// The account's name.
        name: AccountName,
        #[command(flatten)]
        password: password::Source,
    },
    /// Take the password away; tokens issued so far die, keys remain.
    ClearPassword {
        /// The account's name.
        name: AccountName,
    },
    /// Refuse its credentials until it is resumed; its tokens die.
    Suspend {
        /// The account's name.
        name: AccountName,
    },
    /// End a suspension.
    Resume {
        /// The account's name.
        name: AccountName,
    },
    /// Move the end of an account. Tokens die when one of them could outlive an earlier end.
    SetExpiry {
        /// The account's name.
        name: AccountName,
        /// A date, an instant, a span such as 90d, or never.
        end: End,
    },
    /// Replace the title.
    SetTitle {
        /// The account's name.
        name: AccountName,
        /// Free text for people.
        title: String,
    },
}

pub(super) async fn run(session: &mut Session<'_, '_>, command: Command) -> Result<(), Failure> {
    let store = session.store().await?;
    let operations = Operations::new(store, session.clock.clone(), session.config.key_prefix.clone());
    let now = session.now();
    let (name, changed, done, already) = match command {
        Command::Create { name, title, expires, password } => {
            let password = if password.is_named() { Some(password.hashed(session)?) } else { None };
            let expires_at = expires.map(|when| when.resolve(now));
            let account = operations.create(NewAccount { name, title, password, expires_at }).await?;
            session.out.note(&format!("created account \"{}\"", account.name));
            session.out.hint(&format!(
                "grant it groups with keybearer licences grant {0} --group …, then give it a key with keybearer keys create {0}",
                account.name
            ));
            if session.out.json() {
                session.out.document(&Named(&AccountView::new(&account, now)))?;
            }
            return Ok(());
        }
        Command::List => return list(session, &operations).await,
        Command::Show { name } => {
            let account = operations.show(&name).await?;
            return view::show(session.out, &AccountView::new(&account, now));
        }
        Command::SetPassword { name, password } => {
            // A mistyped name is told before the password is asked for.
            operations.show(&name).await?;
            let hash = password.hashed(session)?;
            let changed = operations.set_password(&name, &hash).await?;
            (name, changed, "the password is set".to_owned(), "")
        }
        Command::ClearPassword { name } => {
            let changed = operations.clear_password(&name).await?;
            (name, changed, "the password is gone".to_owned(), "it has no password")
        }
        Command::Suspend { name } => {
            let changed = operations.suspend(&name).await?;
            (name, changed, "its credentials are refused until it is resumed".to_owned(), "it is suspended already")
        }
        Command::Resume { name } => {
            let changed = operations.resume(&name).await?;
            (name, changed, "its credentials work again".to_owned(), "it is not suspended")
        }
        Command::SetExpiry { name, end } => {
            let changed = operations.set_expiry(&name, end.resolve(now)).await?;
            let done = format!("its end is {}", show_end(changed.record.expires_at));
            (name, changed, done, "that is its end already")
        }
        Command::SetTitle { name, title } => {
            let changed = operations.set_title(&name, &title).await?;
            (name, changed, "the title is replaced".to_owned(), "that is its title already")
        }
    };
    view::changed(
        session.out,
        &changed,
        &AccountView::new(&changed.record, now),
        &format!("account \"{name}\": {done}"),
        &format!("account \"{name}\": {already}"),
        "its tokens issued so far, by password and by all its keys,",
    )
}

async fn list(session: &mut Session<'_, '_>, operations: &Operations) -> Result<(), Failure> {
    let now = session.now();
    let accounts: Vec<AccountView> =
        operations.list().await?.iter().map(|account| AccountView::new(account, now)).collect();
    if session.out.json() {
        return session.out.document(&serde_json::json!({ "accounts": accounts }));
    }
    if accounts.is_empty() {
        session.out.note("no accounts yet; create one with keybearer accounts create NAME");
        return Ok(());
    }
    let rows = accounts.into_iter().map(|account| {
        let password = if account.has_password { "yes" } else { "no" };
        [account.name, account.state.into(), password.into(), show_end(account.expires_at), account.title]
    });
    session.out.table(["NAME", "STATE", "PASSWORD", "EXPIRES", "TITLE"], rows.collect())
}
