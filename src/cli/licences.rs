//! `keybearer licences …`

use clap::Subcommand;

use super::failure::Failure;
use super::view::{self, LicenceView, Named};
use super::when::{End, When, show_end};
use super::{Session, group_set};
use crate::ids::{AccountName, GroupId, LicenceId, scope};
use crate::licences::{NewLicence, Operations, STANDARD_PLAN};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Grant groups to an account. The licence's id is printed on standard output.
    #[command(
        after_help = "Examples:\n  keybearer licences grant acme --group orders --group invoices --ends 365d\n  \
        keybearer licences grant acme --group reports --starts 2027-01-01 --ends 2028-01-01"
    )]
    Grant {
        /// The licensee.
        account: AccountName,
        /// A group it grants; may be given several times.
        #[arg(long = "group", value_name = "GROUP", required = true)]
        groups: Vec<GroupId>,
        /// The name of a plan, for your own records.
        #[arg(long, default_value = STANDARD_PLAN)]
        plan: String,
        /// When it begins: a date, an instant, or a span such as 7d; now when not given.
        #[arg(long, value_name = "WHEN")]
        starts: Option<When>,
        /// When it ends: a date, an instant, or a span such as 365d; never when not given.
        #[arg(long, value_name = "WHEN")]
        ends: Option<When>,
    },
    /// List all licences.
    List {
        /// Only the licences of this account.
        #[arg(long)]
        account: Option<AccountName>,
    },
    /// Show one licence.
    Show {
        /// Its id.
        id: LicenceId,
    },
    /// Move the end of a licence. The account's tokens die when one of them could outlive an earlier end.
    Extend {
        /// Its id.
        id: LicenceId,
        /// A date, an instant, a span from now such as 365d, or never.
        ends: End,
    },
    /// Grant nothing by it until it is resumed; the account's tokens die.
    Suspend {
        /// Its id.
        id: LicenceId,
    },
    /// End a suspension.
    Resume {
        /// Its id.
        id: LicenceId,
    },
    /// End it now; the account's tokens die.
    End {
        /// Its id.
        id: LicenceId,
    },
    /// Replace the groups it grants. The account's tokens die when a group is lost.
    SetGroups {
        /// Its id.
        id: LicenceId,
        /// A group; may be given several times.
        #[arg(long = "group", value_name = "GROUP", required = true)]
        groups: Vec<GroupId>,
    },
}

pub(super) async fn run(session: &mut Session<'_, '_>, command: Command) -> Result<(), Failure> {
    let store = session.store().await?;
    let operations = Operations::new(store.clone(), store.clone(), store, session.clock.clone());
    let now = session.now();
    let (changed, done, already) = match command {
        Command::Grant { account, groups, plan, starts, ends } => {
            let new = NewLicence {
                account,
                groups: groups.into_iter().collect(),
                plan: Some(plan),
                starts_at: starts.map(|when| when.resolve(now)),
                ends_at: ends.map(|when| when.resolve(now)),
            };
            let licence = operations.grant(new).await?;
            session.out.note(&format!(
                "licence {} grants {} to account \"{}\" from {} to {}",
                licence.id,
                scope(&licence.groups),
                licence.account,
                licence.starts_at,
                show_end(licence.ends_at)
            ));
            session.out.note("tokens issued so far do not know of it; the next ones do");
            return if session.out.json() {
                session.out.document(&Named(&LicenceView::new(&licence, now)))
            } else {
                session.out.data(licence.id.as_str())
            };
        }
        Command::List { account } => return list(session, &operations, account.as_ref()).await,
        Command::Show { id } => {
            let licence = operations.show(&id).await?;
            return view::show(session.out, &LicenceView::new(&licence, now));
        }
        Command::Extend { id, ends } => {
            let changed = operations.extend(&id, ends.resolve(now)).await?;
            let done = format!("its end is {}", show_end(changed.record.ends_at));
            (changed, done, "that is its end already")
        }
        Command::Suspend { id } => {
            let done = "it grants nothing until it is resumed".to_owned();
            (operations.suspend(&id).await?, done, "it is suspended already")
        }
        Command::Resume { id } => (operations.resume(&id).await?, "it grants again".to_owned(), "it is not suspended"),
        Command::End { id } => (operations.end(&id).await?, "it has ended".to_owned(), "it had ended already"),
        Command::SetGroups { id, groups } => {
            let groups = group_set(groups).unwrap_or_default();
            let changed = operations.set_groups(&id, &groups).await?;
            let done = format!("it grants {}", scope(&changed.record.groups));
            (changed, done, "those are its groups already")
        }
    };
    let (id, account) = (&changed.record.id, &changed.record.account);
    view::changed(
        session.out,
        &changed,
        &LicenceView::new(&changed.record, now),
        &format!("licence {id}: {done}"),
        &format!("licence {id}: {already}"),
        &format!("the tokens of account \"{account}\" issued so far, by password and by all its keys,"),
    )
}

async fn list(
    session: &mut Session<'_, '_>,
    operations: &Operations,
    account: Option<&AccountName>,
) -> Result<(), Failure> {
    let now = session.now();
    let licences: Vec<LicenceView> =
        operations.list(account).await?.iter().map(|licence| LicenceView::new(licence, now)).collect();
    if session.out.json() {
        return session.out.document(&serde_json::json!({ "licences": licences }));
    }
    if licences.is_empty() {
        session.out.note("no licences yet; grant one with keybearer licences grant ACCOUNT --group GROUP");
        return Ok(());
    }
    let rows = licences.into_iter().map(|licence| {
        let (starts, ends) = (licence.starts_at.to_string(), show_end(licence.ends_at));
        [licence.id, licence.account, licence.state.into(), starts, ends, licence.plan, scope(&licence.groups)]
    });
    session.out.table(["ID", "ACCOUNT", "STATE", "STARTS", "ENDS", "PLAN", "GROUPS"], rows.collect())
}
