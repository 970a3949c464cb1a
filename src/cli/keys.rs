//! `keybearer keys …`

use clap::{ArgGroup, Subcommand};
use serde::Serialize;

use super::failure::Failure;
use super::view::{self, KeyView};
use super::when::{End, When, show_end};
use super::{KeyText, Session, group_set};
use crate::clock::Timestamp;
use crate::credentials::Hasher;
use crate::ids::{AccountName, GroupId};
use crate::keys::{Key, NewKey, Operations};
use crate::store::SharedStore;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a key. It is printed once, alone on standard output. Refused when every seat of the account's licences is taken.
    #[command(after_help = "Examples:\n  keybearer keys create acme --label ci > acme.key\n  \
        keybearer keys create acme --group orders.read --expires 90d\n\n\
        To replace a key without an outage: create a second one, let its user switch, then end the first with\n  \
        keybearer keys set-expiry OLD 24h        (or keys revoke OLD, at once)")]
    Create {
        /// The account whose key it will be.
        account: AccountName,
        /// Free text for people.
        #[arg(long, default_value = "", hide_default_value = true)]
        label: String,
        /// Narrow the key to this group; may be given several times. Without it the key reaches all its account is
        /// licensed for.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<GroupId>,
        /// When it stops working: a date, an instant, or a span such as 90d.
        #[arg(long, value_name = "WHEN")]
        expires: Option<When>,
    },
    /// List all keys.
    List {
        /// Only the keys of this account.
        #[arg(long)]
        account: Option<AccountName>,
    },
    /// Show one key; its secret is not kept and cannot be shown.
    Show {
        /// Its id, with or without the prefix.
        key: KeyText,
    },
    /// Refuse the key until it is resumed; its tokens die.
    Suspend {
        /// Its id, with or without the prefix.
        key: KeyText,
    },
    /// End a suspension.
    Resume {
        /// Its id, with or without the prefix.
        key: KeyText,
    },
    /// End the key and its tokens for good.
    Revoke {
        /// Its id, with or without the prefix.
        key: KeyText,
    },
    /// Move the end of a key. Its tokens die when one of them could outlive an earlier end.
    SetExpiry {
        /// Its id, with or without the prefix.
        key: KeyText,
        /// A date, an instant, a span such as 90d, or never.
        end: End,
    },
    /// Replace the groups the key is narrowed to. Its tokens die when a group is lost.
    #[command(group = ArgGroup::new("reach").required(true))]
    SetGroups {
        /// Its id, with or without the prefix.
        key: KeyText,
        /// A group; may be given several times.
        #[arg(long = "group", value_name = "GROUP", group = "reach")]
        groups: Vec<GroupId>,
        /// All that the account is licensed for.
        #[arg(long, group = "reach", conflicts_with = "groups")]
        all: bool,
    },
    /// Replace the label.
    SetLabel {
        /// Its id, with or without the prefix.
        key: KeyText,
        /// Free text for people.
        label: String,
    },
}

pub(super) async fn run(session: &mut Session<'_, '_>, command: Command) -> Result<(), Failure> {
    let store = session.store().await?;
    let prefix = session.config.key_prefix.clone();
    let operations =
        Operations::new(store.clone(), store.clone(), store.clone(), session.clock.clone(), prefix.clone())
            .with_documents(session.documents(&store).await?);
    let now = session.now();
    let (changed, done, already) = match command {
        Command::Create { account, label, groups, expires } => {
            let expires_at = expires.map(|when| when.resolve(now));
            let new = NewKey { account, label, groups: group_set(groups), expires_at };
            return create(session, &operations, &store, new).await;
        }
        Command::List { account } => return list(session, &operations, account.as_ref()).await,
        Command::Show { key } => {
            let key = operations.show(&session.key_id(&key)?).await?;
            return view::show(session.out, &KeyView::new(&key, &prefix, now));
        }
        Command::Suspend { key } => (
            operations.suspend(&session.key_id(&key)?).await?,
            "it is refused until it is resumed".to_owned(),
            "it is suspended already",
        ),
        Command::Resume { key } => {
            (operations.resume(&session.key_id(&key)?).await?, "it works again".to_owned(), "it is not suspended")
        }
        Command::Revoke { key } => (
            operations.revoke(&session.key_id(&key)?).await?,
            "it is revoked for good".to_owned(),
            "it is revoked already",
        ),
        Command::SetExpiry { key, end } => {
            let changed = operations.set_expiry(&session.key_id(&key)?, end.resolve(now)).await?;
            let done = format!("its end is {}", show_end(changed.record.expires_at));
            (changed, done, "that is its end already")
        }
        Command::SetGroups { key, groups, all: _ } => {
            let changed = operations.set_groups(&session.key_id(&key)?, group_set(groups).as_ref()).await?;
            let done = format!("its groups are {}", KeyView::new(&changed.record, &prefix, now).reach());
            (changed, done, "those are its groups already")
        }
        Command::SetLabel { key, label } => (
            operations.set_label(&session.key_id(&key)?, &label).await?,
            "the label is replaced".to_owned(),
            "that is its label already",
        ),
    };
    let view = KeyView::new(&changed.record, &prefix, now);
    let name = view.name.clone();
    view::changed(
        session.out,
        &changed,
        &view,
        &format!("key {name}: {done}"),
        &format!("key {name}: {already}"),
        "its tokens issued so far",
    )
}

async fn create(
    session: &mut Session<'_, '_>,
    operations: &Operations,
    store: &SharedStore,
    new: NewKey,
) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Created<'a> {
        api_key: &'a str,
        key: KeyView,
    }

    let mut hasher = Hasher::new(&session.config.credentials)?;
    let (api_key, key) =
        operations.create(new, |text| std::future::ready(hasher.hash(text.expose().as_bytes()))).await?;
    let now = session.now();
    let view = KeyView::new(&key, &session.config.key_prefix, now);
    let name = view.name.clone();
    session.out.note(&format!("created key {name} for account \"{}\"", key.account));
    session.out.note("the key is printed this once and cannot be shown again: keep it now, and keep it secret");
    // The one place where a key leaves the program.
    let text = api_key.secret().expose();
    let shown = if session.out.json() {
        session.out.document(&Created { api_key: text, key: view })
    } else {
        session.out.data(text)
    };
    shown.map_err(|failure| {
        failure.hint(format!("the key exists and nobody has seen it: keybearer keys revoke {name}, and create another"))
    })?;
    advise(session, store, &key, now).await
}

/// What still keeps a new key from being of use.
async fn advise(session: &mut Session<'_, '_>, store: &SharedStore, key: &Key, now: Timestamp) -> Result<(), Failure> {
    let name = &key.account;
    if let Some(account) = store.account(name).await?
        && !account.is_live(now)
    {
        session.out.warn(&format!("account \"{name}\" is suspended or expired, so the key does not work yet"));
    }
    let documents = session.documents(store).await?;
    let licensed =
        store.licences(Some(name)).await?.into_iter().filter_map(|held| documents.settled(held).ok()).any(|licence| {
            licence.is_live(now) && key.groups.as_ref().is_none_or(|groups| !groups.is_disjoint(&licence.groups))
        });
    if !licensed {
        session.out.warn("no licence in force grants this key a group, so its tokens reach no licensed path");
        session.out.hint(&format!("keybearer licences grant {name} --group GROUP"));
    }
    Ok(())
}

async fn list(
    session: &mut Session<'_, '_>,
    operations: &Operations,
    account: Option<&AccountName>,
) -> Result<(), Failure> {
    let (now, prefix) = (session.now(), &session.config.key_prefix);
    let keys: Vec<KeyView> = operations.list(account).await?.iter().map(|key| KeyView::new(key, prefix, now)).collect();
    if session.out.json() {
        return session.out.document(&serde_json::json!({ "keys": keys }));
    }
    if keys.is_empty() {
        session.out.note("no keys yet; create one with keybearer keys create ACCOUNT");
        return Ok(());
    }
    let rows = keys.into_iter().map(|key| {
        let reach = key.reach();
        [key.name, key.account, key.state.into(), show_end(key.expires_at), reach, key.label]
    });
    session.out.table(["KEY", "ACCOUNT", "STATE", "EXPIRES", "GROUPS", "LABEL"], rows.collect())
}
