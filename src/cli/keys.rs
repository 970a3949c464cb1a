//! `keybearer keys …`

mod bulk;

use std::path::PathBuf;

use clap::{ArgGroup, Subcommand};
use serde::Serialize;

use super::failure::Failure;
use super::view::{self, KeyView};
use super::when::{End as KeyEnd, When, show_end, show_span, show_use};
use super::{KeyText, Session, group_set, plans};
use crate::client_addr::{Network, Networks};
use crate::clock::Timestamp;
use crate::credentials::{Hasher, Kept};
use crate::ids::{AccountName, GroupId, PlanId};
use crate::keys::{End, Grace, Key, NewKey, Operations, Roll, Start};
use crate::secret::Secret;
use crate::store::SharedStore;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a key. It is printed once, alone on standard output. Refused when every seat of the account's licences is taken.
    #[command(after_help = "Examples:\n  keybearer keys create acme --label ci > acme.key\n  \
        keybearer keys create acme --group orders.read --expires 90d\n\n\
        To replace its secret later without an outage: keybearer keys roll KEY")]
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
        /// Good from this network alone (203.0.113.0/24, 2001:db8::/48) or address; may be given several times.
        #[arg(long = "allow", value_name = "NETWORK")]
        networks: Vec<Network>,
        /// Bound by this plan, beside those of the account's licences.
        #[arg(long, value_name = "PLAN")]
        plan: Option<PlanId>,
    },
    /// Give a key a new secret; the old one goes on working for a grace. The new key is printed once, alone on standard
    /// output. It has the same id.
    #[command(after_help = "Examples:\n  keybearer keys roll kb_0123456789ab > acme.key\n  \
        keybearer keys roll kb_0123456789ab --grace 7d --start now\n  \
        keybearer keys roll kb_0123456789ab --grace 0        (the old one got into wrong hands)\n\n\
        The grace begins when the new secret is first used, so that nobody is cut off who does not have it yet. Calls with\n\
        the old one are answered with a Deprecation header all the while. keybearer keys show KEY tells when each was last\n\
        used; keybearer keys end-old KEY ends the old one early.")]
    Roll {
        /// Its id, with or without the prefix.
        key: KeyText,
        /// How long the old secret goes on working: 24h, 7d, at most 30d; 0 ends it at once, and its tokens with it.
        #[arg(long, value_name = "SPAN", default_value = "24h")]
        grace: Grace,
        /// What the grace is counted from: the first-use of the new secret, or now.
        #[arg(long, value_name = "START", default_value = "first-use")]
        start: Start,
        /// Even if the last roll is not over: its old secret ends at once.
        #[arg(long)]
        force: bool,
    },
    /// End the old secret of a rolled key now. The tokens of the key die.
    EndOld {
        /// Its id, with or without the prefix.
        key: KeyText,
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
        end: KeyEnd,
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
    /// Replace the networks the key is good from. Its tokens die when an address is lost.
    #[command(group = ArgGroup::new("from").required(true))]
    SetNetworks {
        /// Its id, with or without the prefix.
        key: KeyText,
        /// A network (203.0.113.0/24, 2001:db8::/48) or an address; may be given several times.
        #[arg(long = "allow", value_name = "NETWORK", group = "from")]
        networks: Vec<Network>,
        /// From everywhere.
        #[arg(long, group = "from", conflicts_with = "networks")]
        all: bool,
    },
    /// Bind the key's use to a plan, beside those of its account's licences. Its tokens die, so that the plan holds at once.
    #[command(group = ArgGroup::new("bound").required(true))]
    SetPlan {
        /// Its id, with or without the prefix.
        key: KeyText,
        /// A plan of the configuration.
        #[arg(group = "bound")]
        plan: Option<PlanId>,
        /// No plan of its own.
        #[arg(long, group = "bound", conflicts_with = "plan")]
        none: bool,
    },
    /// Take in keys from a file: one a line, in JSON, with their hashes.
    #[command(after_help = "A line has at least the id, the account and the hash of the whole key:\n  \
        {\"id\": \"0123456789ab\", \"account\": \"acme\", \"hash\": \"$argon2id$…\"}\n\
        and may have label, groups, networks, plan, state, expires_at and created_at. keybearer keys export writes such lines.\n\n\
        A hash may also be one that another system made: bcrypt, PBKDF2 (as PHC, passlib or Django write it), or SHA-256 in\n\
        hexadecimal digits. At its first use the key is hashed anew with argon2id.\n\n\
        Every line is looked at before the first is written. An import that was interrupted is begun anew with the same\n\
        file: what is there already is passed over.")]
    Import {
        /// The file; - is standard input.
        file: PathBuf,
        /// Look at every line and write nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Write all keys to standard output: one a line, in JSON, with their hashes. Keep it as secret as the database.
    Export {
        /// Only the keys of this account.
        #[arg(long)]
        account: Option<AccountName>,
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
        Command::Create { account, label, groups, expires, networks, plan } => {
            let expires_at = expires.map(|when| when.resolve(now));
            let networks = network_list(networks)?;
            if let Some(plan) = &plan {
                plans::warn_of_unknown(session, plan.as_str());
            }
            let new = NewKey { account, label, groups: group_set(groups), expires_at, networks, plan };
            return create(session, &operations, &store, new).await;
        }
        Command::List { account } => return list(session, &operations, account.as_ref()).await,
        Command::Show { key } => {
            let key = operations.show(&session.key_id(&key)?).await?;
            return view::show(session.out, &KeyView::new(&key, &prefix, now));
        }
        Command::Roll { key, grace, start, force } => {
            return roll(session, &operations, &key, Roll { grace, start, force }).await;
        }
        Command::Import { file, dry_run } => return bulk::import(session, &operations, &file, dry_run).await,
        Command::Export { account } => return bulk::export(session, &operations, account.as_ref()).await,
        Command::EndOld { key } => (
            operations.end_old(&session.key_id(&key)?).await?,
            "its old secret has ended".to_owned(),
            "it has no old secret that works",
        ),
        Command::SetPlan { key, plan, none: _ } => {
            if let Some(plan) = &plan {
                plans::warn_of_unknown(session, plan.as_str());
            }
            let changed = operations.set_plan(&session.key_id(&key)?, plan.as_ref()).await?;
            let done = plan.map_or_else(|| "no plan of its own".to_owned(), |plan| format!("bound by plan \"{plan}\""));
            (changed, done, "that is its plan already")
        }
        Command::SetNetworks { key, networks, all: _ } => {
            let networks = network_list(networks)?;
            let changed = operations.set_networks(&session.key_id(&key)?, networks.as_ref()).await?;
            let done = format!("it is good from {}", KeyView::new(&changed.record, &prefix, now).from());
            (changed, done, "those are its networks already")
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
        operations.create(new, |text| std::future::ready(hasher.hash(text.expose().as_bytes(), Kept::Key))).await?;
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

async fn roll(
    session: &mut Session<'_, '_>,
    operations: &Operations,
    key: &KeyText,
    roll: Roll,
) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Rolled<'a> {
        api_key: &'a str,
        key: KeyView,
        tokens_revoked: bool,
    }

    let id = session.key_id(key)?;
    let mut hasher = Hasher::new(&session.config.credentials)?;
    let hash = |text: Secret<String>| std::future::ready(hasher.hash(text.expose().as_bytes(), Kept::Key));
    let (api_key, changed) = operations.roll(&id, roll, hash).await?;
    let view = KeyView::new(&changed.record, &session.config.key_prefix, session.now());
    let name = view.name.clone();
    let old = match changed.record.previous.as_ref().map(|half| half.end) {
        _ if roll.grace.is_none() => "the old one has ended".to_owned(),
        Some(End::At(_)) => format!("the old one works until {}", show_end(changed.record.old_ends_at())),
        _ => format!("the old one works until {} after the first use of the new one", show_span(roll.grace.time())),
    };
    session.out.note(&format!("key {name} has a new secret; {old}"));
    if changed.tokens_cut {
        session.out.note("its tokens issued so far are dead");
    }
    session.out.note("the new key is printed this once and cannot be shown again: keep it now, and keep it secret");
    let text = api_key.secret().expose();
    let tokens_revoked = changed.tokens_cut;
    let shown = if session.out.json() {
        session.out.document(&Rolled { api_key: text, key: view, tokens_revoked })
    } else {
        session.out.data(text)
    };
    shown.map_err(|failure| {
        failure.hint(format!("the key was rolled and nobody has seen the new one: keybearer keys roll {name} --force"))
    })
}

fn network_list(networks: Vec<Network>) -> Result<Option<Networks>, Failure> {
    if networks.is_empty() {
        return Ok(None);
    }
    Networks::new(networks).map(Some).map_err(|error| Failure::misuse(error.to_string()))
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
        let (reach, used, old) = (key.reach(), show_use(key.last_used_at), key.old());
        [key.name, key.account, key.state.into(), show_end(key.expires_at), used, old, reach, key.label]
    });
    let head = ["KEY", "ACCOUNT", "STATE", "EXPIRES", "LAST USED", "OLD SECRET", "GROUPS", "LABEL"];
    session.out.table(head, rows.collect())
}
