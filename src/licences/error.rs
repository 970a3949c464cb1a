//! Why an operation on licences was refused or failed, and what to do about it.

use std::fmt;

use super::DocumentError;
use crate::clock::Timestamp;
use crate::ids::{AccountName, GroupId, InvalidId, LicenceId};
use crate::persist;

/// Why an operation on licences was refused or failed.
#[derive(Debug)]
pub enum Error {
    /// There is no licence of that id.
    Unknown(LicenceId),
    /// There is no account of that name.
    NoAccount(AccountName),
    /// The demo account cannot be licensed: no configuration or command widens it.
    DemoAccount,
    /// There is no group of that id.
    NoGroup(GroupId),
    /// The Demo group needs no licence.
    DemoGroup,
    /// A licence that grants nothing.
    NoGroups,
    /// An end at or before the start.
    EndBeforeStart {
        /// The start.
        starts_at: Timestamp,
        /// The end.
        ends_at: Timestamp,
    },
    /// An end that lies in the past.
    PastEnd(Timestamp),
    /// A plan name that is empty or no single line.
    Plan(Option<InvalidId>),
    /// The account had its trial of these groups.
    HadTrial {
        /// The account.
        account: AccountName,
        /// The trial's licence.
        trial: LicenceId,
    },
    /// A trial without an end.
    EndlessTrial,
    /// A licence without end has nothing to be added to.
    NoEnd(LicenceId),
    /// An upgrade that names nothing to change.
    NoChange,
    /// A document that cannot be believed.
    Document(DocumentError),
    /// The licence comes from a document, and only another document changes what it grants.
    FromDocument(LicenceId),
    /// The licence of that id was granted here, and no document takes its place.
    GrantedHere(LicenceId),
    /// The licence of that id is another account's.
    OtherAccount(LicenceId),
    /// A document that is not newer than the one installed.
    OlderDocument {
        /// The licence.
        id: LicenceId,
        /// When the installed one was made.
        installed: Timestamp,
        /// When this one was.
        offered: Timestamp,
    },
    /// A document whose licence has ended.
    DocumentEnded(Timestamp),
    /// A document from the future: one of two clocks is wrong.
    NotYetIssued {
        /// What the clock shows.
        now: Timestamp,
        /// When the document was made.
        issued_at: Timestamp,
    },
    /// The clock was set back.
    SetBack {
        /// What it shows.
        now: Timestamp,
        /// The latest time seen.
        latest: Timestamp,
    },
    /// Every id that was drawn is taken.
    NoFreeId,
    /// The store failed.
    Store(persist::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(id) => write!(f, "there is no licence {id}"),
            Self::NoAccount(name) => write!(f, "there is no account \"{name}\""),
            Self::DemoAccount => f.write_str("the demo account reaches the Demo group alone and cannot be licensed"),
            Self::NoGroup(id) => write!(f, "there is no group \"{id}\""),
            Self::DemoGroup => f.write_str("the Demo group is open to anyone and needs no licence; leave \"demo\" out"),
            Self::NoGroups => f.write_str("a licence must grant at least one group; to end it, end or suspend it"),
            Self::EndBeforeStart { starts_at, ends_at } => {
                write!(f, "the end {ends_at} does not lie after the start {starts_at}")
            }
            Self::PastEnd(at) => write!(f, "the end {at} is in the past; to end a licence now, end it"),
            Self::Plan(Some(rule)) => rule.fmt(f),
            Self::Plan(None) => f.write_str("a plan needs a name"),
            Self::HadTrial { account, trial } => {
                write!(f, "account \"{account}\" had its trial of these groups: licence {trial}")
            }
            Self::EndlessTrial => f.write_str("a trial needs an end"),
            Self::NoEnd(id) => write!(f, "licence {id} has no end to add to; it goes on until it is ended"),
            Self::NoChange => f.write_str("nothing to change was named: a plan, groups, seats or an end"),
            Self::Document(error) => error.fmt(f),
            Self::FromDocument(id) => write!(
                f,
                "licence {id} comes from a signed document, which alone says what it grants and until when; ask its vendor \
                 for a new document and install that"
            ),
            Self::GrantedHere(id) => {
                write!(f, "there is a licence {id} that was granted here; no document takes its place")
            }
            Self::OtherAccount(id) => {
                write!(f, "licence {id} is another account's; ask the vendor for a document of its own")
            }
            Self::OlderDocument { id, installed, offered } => write!(
                f,
                "the document of licence {id} that is installed was made at {installed}, and this one at {offered}; only a \
                 newer one takes its place"
            ),
            Self::DocumentEnded(at) => {
                write!(f, "the document's licence has ended at {at}; ask its vendor for a new one")
            }
            Self::NotYetIssued { now, issued_at } => write!(
                f,
                "the document was made at {issued_at} and this machine's clock shows {now}; set the clock right, or tell the \
                 vendor that theirs is wrong"
            ),
            Self::SetBack { now, latest } => write!(
                f,
                "this machine's clock shows {now}, and it was {latest} before; set the clock right: until then no licence \
                 from a document grants anything"
            ),
            Self::NoFreeId => f.write_str("no free licence id was found; try again"),
            Self::Store(_) => f.write_str("licences could not be read or written"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(source) => Some(source),
            _ => None,
        }
    }
}

impl From<persist::Error> for Error {
    fn from(error: persist::Error) -> Self {
        Self::Store(error)
    }
}
