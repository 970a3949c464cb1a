//! `keybearer groups …`

use std::time::Duration;

use clap::{ArgGroup, Subcommand};

use super::Session;
use super::failure::Failure;
use super::view::{self, GroupView, Named};
use super::when::span;
use crate::groups::{Deleted, GroupChange, Operations};
use crate::ids::GroupId;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a group that licences can grant and routes can ask for.
    #[command(
        after_help = "Example:\n  keybearer groups create orders --title \"The orders API\" --token-lifetime 15m"
    )]
    Create {
        /// Its id, as it stands in `scope` and in routes.
        id: GroupId,
        /// Free text for people.
        #[arg(long, default_value = "", hide_default_value = true)]
        title: String,
        /// Tokens that reach it live no longer than this, such as 15m.
        #[arg(long, value_name = "SPAN", value_parser = span)]
        token_lifetime: Option<Duration>,
    },
    /// List all groups. The Demo group is built in and not among them.
    List,
    /// Show one group.
    Show {
        /// Its id.
        id: GroupId,
    },
    /// Change a group.
    #[command(group = ArgGroup::new("change").required(true).multiple(true))]
    Set {
        /// Its id.
        id: GroupId,
        /// Free text for people.
        #[arg(long, group = "change")]
        title: Option<String>,
        /// Tokens that reach it live no longer than this, such as 15m; or default.
        #[arg(long, value_name = "SPAN", group = "change")]
        token_lifetime: Option<Lifetime>,
    },
    /// Delete a group. Refused while a licence or a key names it, unless forced.
    Delete {
        /// Its id.
        id: GroupId,
        /// Delete it all the same: those licences and keys grant nothing by it, and the accounts' tokens die.
        #[arg(long)]
        force: bool,
    },
}

/// A token lifetime, or the default one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetime(Option<Duration>);

impl std::str::FromStr for Lifetime {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "default" {
            return Ok(Self(None));
        }
        span(text).map(|span| Self(Some(span))).map_err(|rule| format!("{rule}, or default"))
    }
}

pub(super) async fn run(session: &mut Session<'_, '_>, command: Command) -> Result<(), Failure> {
    let store = session.store().await?;
    let operations = Operations::new(store.clone(), store.clone(), store.clone(), store, session.clock.clone());
    match command {
        Command::Create { id, title, token_lifetime } => {
            let group = operations.create(id, title, token_lifetime).await?;
            session.out.note(&format!("created group \"{}\"", group.id));
            session.out.hint(&format!("grant it with keybearer licences grant ACCOUNT --group {}", group.id));
            if session.out.json() {
                session.out.document(&Named(&GroupView::new(&group)))?;
            }
            Ok(())
        }
        Command::List => list(session, &operations).await,
        Command::Show { id } => {
            let group = operations.show(&id).await?;
            view::show(session.out, &GroupView::new(&group))
        }
        Command::Set { id, title, token_lifetime } => {
            let change = GroupChange { title, token_lifetime: token_lifetime.map(|lifetime| lifetime.0) };
            let group = operations.set(&id, change).await?;
            session
                .out
                .note(&format!("changed group \"{}\"; tokens issued so far keep the end they were given", group.id));
            if session.out.json() {
                session.out.document(&Named(&GroupView::new(&group)))?;
            }
            Ok(())
        }
        Command::Delete { id, force } => {
            let deleted = operations.delete(&id, force).await?;
            report(session, &deleted)
        }
    }
}

fn report(session: &mut Session<'_, '_>, deleted: &Deleted) -> Result<(), Failure> {
    session.out.note(&format!("deleted group \"{}\"", deleted.group.id));
    for licence in &deleted.licences {
        session.out.note(&format!("licence {licence} grants nothing by it any more"));
    }
    for key in &deleted.keys {
        session.out.note(&format!("key {key} reaches nothing by it any more"));
    }
    for account in &deleted.accounts_cut {
        session.out.note(&format!("the tokens of account \"{account}\" issued so far are dead"));
    }
    if session.out.json() {
        session.out.document(&serde_json::json!({
            "group": GroupView::new(&deleted.group),
            "licences": deleted.licences,
            "keys": deleted.keys,
            "accounts_with_tokens_revoked": deleted.accounts_cut,
        }))?;
    }
    Ok(())
}

async fn list(session: &mut Session<'_, '_>, operations: &Operations) -> Result<(), Failure> {
    let groups: Vec<GroupView> = operations.list().await?.iter().map(GroupView::new).collect();
    if session.out.json() {
        return session.out.document(&serde_json::json!({ "groups": groups }));
    }
    if groups.is_empty() {
        session.out.note("no groups yet beside the built-in Demo group; create one with keybearer groups create ID");
        return Ok(());
    }
    let rows = groups.into_iter().map(|group| [group.id, group.lifetime, group.created_at.to_string(), group.title]);
    session.out.table(["ID", "TOKEN LIFETIME", "CREATED", "TITLE"], rows.collect())
}
