//! `keybearer licences …`

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Subcommand};

use super::failure::Failure;
use super::licence_documents::{IssueArgs, VendorKeyCommand};
use super::view::{self, LicenceView, Named, show_seats};
use super::when::{End, When, show_end, span};
use super::{Session, group_set, licence_documents, plans};
use crate::ids::{AccountName, GroupId, LicenceId, scope};
use crate::licences::{Documents, Licence, NewLicence, Operations, STANDARD_PLAN, Upgrade};

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
        /// The name of a plan: one of [[plans]] bounds what may be used, any other is for your own records.
        #[arg(long, default_value = STANDARD_PLAN)]
        plan: String,
        /// When it begins: a date, an instant, or a span such as 7d; now when not given.
        #[arg(long, value_name = "WHEN")]
        starts: Option<When>,
        /// When it ends: a date, an instant, or a span such as 365d; never when not given.
        #[arg(long, value_name = "WHEN")]
        ends: Option<When>,
        /// How many keys the account may have: those that are neither revoked nor expired. Any number when not given.
        #[arg(long, value_name = "N")]
        seats: Option<u32>,
        /// A trial of this length, such as 14d. An account gets one for the same groups.
        #[arg(long, value_name = "SPAN", value_parser = span, conflicts_with = "ends")]
        trial: Option<Duration>,
        /// Another trial, though the account had one.
        #[arg(long, requires = "trial")]
        again: bool,
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
    #[command(
        group = ArgGroup::new("to").required(true),
        after_help = "Examples:\n  keybearer licences extend 0123456789ab --by 30d\n  \
        keybearer licences extend 0123456789ab --until 2028-01-01"
    )]
    Extend {
        /// Its id.
        id: LicenceId,
        /// A date, an instant, a span from now such as 365d, or never; the same as --until.
        #[arg(group = "to")]
        ends: Option<End>,
        /// Add a span such as 30d to its present end, or to now when that is past.
        #[arg(long, value_name = "SPAN", value_parser = span, group = "to")]
        by: Option<Duration>,
        /// A date, an instant, a span from now such as 365d, or never.
        #[arg(long, value_name = "WHEN", group = "to")]
        until: Option<End>,
    },
    /// Replace plan, groups, seats or end; what is not given stays. The account's tokens die when a group is lost or one of
    /// them could outlive an earlier end, and of nothing that is gained. A trial becomes a licence like others.
    #[command(
        group = ArgGroup::new("to").required(true).multiple(true),
        after_help = "Example:\n  keybearer licences upgrade 0123456789ab --plan gold --group orders --group reports --seats 20"
    )]
    Upgrade {
        /// Its id.
        id: LicenceId,
        /// The name of a plan; it holds from the next tokens on.
        #[arg(long, group = "to")]
        plan: Option<String>,
        /// A group it grants from now on; may be given several times.
        #[arg(long = "group", value_name = "GROUP", group = "to")]
        groups: Vec<GroupId>,
        /// How many keys the account may have, or any. Fewer end no key that there is.
        #[arg(long, value_name = "N", group = "to")]
        seats: Option<Seats>,
        /// A date, an instant, a span from now such as 365d, or never.
        #[arg(long, value_name = "WHEN", group = "to")]
        ends: Option<End>,
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
    /// Install a signed document that a vendor has issued, or a newer one of the same licence. Nothing is asked over the network.
    Install {
        /// The document.
        file: PathBuf,
        /// Make the groups that it names and that do not exist.
        #[arg(long)]
        create_groups: bool,
    },
    /// Show what a document says, and whether this installation believes it.
    Inspect {
        /// The document.
        file: PathBuf,
    },
    /// For vendors: issue a signed document, which a customer's gateway enforces without a call home.
    #[command(
        after_help = "Example:\n  keybearer licences issue --sign --vendor-key vendor.key --account acme --group orders \
        --seats 20 --until 365d --out acme.licence\n\nTo renew it, name its licence:\n  \
        keybearer licences issue --sign --vendor-key vendor.key --licence 0123456789ab …"
    )]
    Issue(IssueArgs),
    /// For vendors: the key that documents are signed with.
    #[command(subcommand)]
    VendorKey(VendorKeyCommand),
    /// Replace the groups it grants. The account's tokens die when a group is lost.
    SetGroups {
        /// Its id.
        id: LicenceId,
        /// A group; may be given several times.
        #[arg(long = "group", value_name = "GROUP", required = true)]
        groups: Vec<GroupId>,
    },
}

/// A number of seats, or `any`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seats(Option<u32>);

impl FromStr for Seats {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "any" {
            return Ok(Self(None));
        }
        text.parse().map(|seats| Self(Some(seats))).map_err(|_| "write a whole number, or any")
    }
}

pub(super) async fn run(session: &mut Session<'_, '_>, command: Command) -> Result<(), Failure> {
    let command = match command {
        // A vendor's machine has no gateway's store, and need not have one.
        Command::VendorKey(command) => return licence_documents::vendor_key(session, &command),
        Command::Issue(args) => return licence_documents::issue(session, args),
        Command::Inspect { file } => return licence_documents::inspect(session, &file),
        other => other,
    };
    let store = session.store().await?;
    let documents = session.documents(&store).await?;
    let operations = Operations::new(store.clone(), store.clone(), store, session.clock.clone())
        .with_documents(std::sync::Arc::clone(&documents));
    let now = session.now();
    let (changed, done, already) = match command {
        Command::Grant { account, groups, plan, starts, ends, seats, trial, again } => {
            look_at_plan(session, &plan);
            let starts_at = starts.map(|when| when.resolve(now));
            let new = NewLicence {
                account,
                groups: groups.into_iter().collect(),
                plan: Some(plan),
                starts_at,
                ends_at: trial.map(|span| starts_at.unwrap_or(now) + span).or(ends.map(|when| when.resolve(now))),
                seats,
                trial: trial.is_some(),
                again,
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
        Command::Install { file, create_groups } => {
            return licence_documents::install(session, &operations, &file, create_groups).await;
        }
        Command::List { account } => return list(session, &operations, &documents, account.as_ref()).await,
        Command::Show { id } => {
            let licence = operations.show(&id).await?;
            let view = LicenceView::settled(licence, &documents, now);
            if let Some(distrust) = &view.distrust {
                session.out.warn(&format!("licence {id} grants nothing: {distrust}"));
            }
            return view::show(session.out, &view);
        }
        Command::Extend { id, ends, by, until } => {
            let changed = match (by, ends.or(until)) {
                (Some(by), _) => operations.extend_by(&id, by).await?,
                (None, end) => operations.extend(&id, end.and_then(|end| end.resolve(now))).await?,
            };
            let done = format!("its end is {}", show_end(changed.record.ends_at));
            (changed, done, "that is its end already")
        }
        Command::Upgrade { id, plan, groups, seats, ends } => {
            if let Some(plan) = &plan {
                look_at_plan(session, plan);
            }
            let to = Upgrade {
                plan,
                groups: group_set(groups),
                seats: seats.map(|Seats(seats)| seats),
                ends_at: ends.map(|end| end.resolve(now)),
            };
            let changed = operations.upgrade(&id, &to).await?;
            let Licence { plan, groups, ends_at, .. } = &changed.record;
            let seats = show_seats(changed.record.seats);
            let done =
                format!("it grants {} on plan \"{plan}\" until {}, seats: {seats}", scope(groups), show_end(*ends_at));
            (changed, done, "it is so already")
        }
        Command::Suspend { id } => {
            let done = "it grants nothing until it is resumed".to_owned();
            (operations.suspend(&id).await?, done, "it is suspended already")
        }
        Command::Resume { id } => (operations.resume(&id).await?, "it grants again".to_owned(), "it is not suspended"),
        Command::End { id } => (operations.end(&id).await?, "it has ended".to_owned(), "it had ended already"),
        // Taken above.
        Command::VendorKey(_) | Command::Issue(_) | Command::Inspect { .. } => return Ok(()),
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

/// A name may be for the operator's own records. Where there are plans, one that is none of them is likely to be mistyped.
pub(super) fn look_at_plan(session: &mut Session<'_, '_>, plan: &str) {
    if !session.config.plans.is_empty() && plan != STANDARD_PLAN {
        plans::warn_of_unknown(session, plan);
    }
}

async fn list(
    session: &mut Session<'_, '_>,
    operations: &Operations,
    documents: &Documents,
    account: Option<&AccountName>,
) -> Result<(), Failure> {
    let now = session.now();
    let licences = operations.list(account).await?.into_iter();
    let licences: Vec<LicenceView> = licences.map(|licence| LicenceView::settled(licence, documents, now)).collect();
    if session.out.json() {
        return session.out.document(&serde_json::json!({ "licences": licences }));
    }
    if licences.is_empty() {
        session.out.note("no licences yet; grant one with keybearer licences grant ACCOUNT --group GROUP");
        return Ok(());
    }
    let rows = licences.into_iter().map(|licence| {
        let (starts, ends) = (licence.starts_at.to_string(), show_end(licence.ends_at));
        let (plan, seats) = (licence.plan_shown(), show_seats(licence.seats));
        [licence.id, licence.account, licence.state.into(), starts, ends, plan, seats, scope(&licence.groups)]
    });
    session.out.table(["ID", "ACCOUNT", "STATE", "STARTS", "ENDS", "PLAN", "SEATS", "GROUPS"], rows.collect())
}
