//! What an operator can do with licences. The command line calls it, and an admin API can call the same.

use std::fmt;
use std::sync::Arc;

use super::{Licence, LicenceStore};
use crate::accounts::AccountStore;
use crate::change::{Changed, Verdict, cut_for_end};
use crate::clock::{Clock, Timestamp};
use crate::groups::{self, GroupStore, demo};
use crate::ids::{AccountName, GroupId, Groups, InvalidId, LicenceId, free_text};
use crate::persist::{self, Cut, Update};

/// The plan of a licence that names none.
pub const STANDARD_PLAN: &str = "standard";

/// How often an id that is taken is drawn anew.
const DRAWS: usize = 4;

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

/// What a new licence is made of.
#[derive(Debug, Clone)]
pub struct NewLicence {
    /// The licensee.
    pub account: AccountName,
    /// What it grants.
    pub groups: Groups,
    /// The plan's name; [`STANDARD_PLAN`] when none is given.
    pub plan: Option<String>,
    /// Its start; now when none is given.
    pub starts_at: Option<Timestamp>,
    /// Its end.
    pub ends_at: Option<Timestamp>,
}

/// The operations on licences.
#[derive(Clone)]
pub struct Operations {
    licences: Arc<dyn LicenceStore>,
    accounts: Arc<dyn AccountStore>,
    groups: Arc<dyn GroupStore>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl Operations {
    /// Operations on the licences of `licences`; the other stores are asked whether what a licence names exists.
    pub fn new(
        licences: Arc<dyn LicenceStore>,
        accounts: Arc<dyn AccountStore>,
        groups: Arc<dyn GroupStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { licences, accounts, groups, clock }
    }

    /// Grants a licence. Tokens issued so far do not know of it; the next ones do.
    ///
    /// # Errors
    /// When the account or a group does not exist, the end does not lie after the start and the present, or the store
    /// fails.
    pub async fn grant(&self, new: NewLicence) -> Result<Licence, Error> {
        self.account(&new.account).await?;
        self.check_groups(&new.groups).await?;
        let plan = new.plan.unwrap_or_else(|| STANDARD_PLAN.to_owned());
        if plan.trim().is_empty() {
            return Err(Error::Plan(None));
        }
        free_text(&plan).map_err(|rule| Error::Plan(Some(rule)))?;
        let now = self.clock.now();
        let starts_at = new.starts_at.unwrap_or(now);
        check_end(starts_at, new.ends_at, now)?;
        for _ in 0..DRAWS {
            let licence = Licence {
                id: LicenceId::random(),
                account: new.account.clone(),
                groups: new.groups.clone(),
                plan: plan.clone(),
                starts_at,
                ends_at: new.ends_at,
                suspended: false,
                created_at: now,
            };
            if self.licences.insert_licence(&licence).await? {
                return Ok(licence);
            }
        }
        Err(Error::NoFreeId)
    }

    /// All licences by account and id, or those of one account.
    ///
    /// # Errors
    /// When there is no such account, or the store fails.
    pub async fn list(&self, of: Option<&AccountName>) -> Result<Vec<Licence>, Error> {
        if let Some(name) = of {
            self.account(name).await?;
        }
        Ok(self.licences.licences(of).await?)
    }

    /// One licence.
    ///
    /// # Errors
    /// When there is none of that id, or the store fails.
    pub async fn show(&self, id: &LicenceId) -> Result<Licence, Error> {
        self.licences.licence(id).await?.ok_or_else(|| Error::Unknown(*id))
    }

    /// Moves the end; `None` takes it away. An earlier end cuts the account's tokens where one could outlive it.
    ///
    /// # Errors
    /// When the end does not lie after the start and the present, there is no such licence, or the store fails.
    pub async fn extend(&self, id: &LicenceId, end: Option<Timestamp>) -> Result<Changed<Licence>, Error> {
        self.update(id, |licence, now| {
            check_end(licence.starts_at, end, now)?;
            if licence.ends_at == end {
                return Ok(Update::Keep);
            }
            let cut = cut_for_end(licence.ends_at, end, now);
            Ok(Update::Write(Licence { ends_at: end, ..licence }, cut))
        })
        .await
    }

    /// Grants nothing until it is resumed; the account's tokens die.
    ///
    /// # Errors
    /// When there is no such licence, or the store fails.
    pub async fn suspend(&self, id: &LicenceId) -> Result<Changed<Licence>, Error> {
        self.update(id, |licence, now| {
            Ok(if licence.suspended {
                Update::Keep
            } else {
                Update::Write(Licence { suspended: true, ..licence }, Cut::Now(now))
            })
        })
        .await
    }

    /// Ends a suspension. Tokens that died stay dead.
    ///
    /// # Errors
    /// When there is no such licence, or the store fails.
    pub async fn resume(&self, id: &LicenceId) -> Result<Changed<Licence>, Error> {
        self.update(id, |licence, _| {
            Ok(if licence.suspended {
                Update::Write(Licence { suspended: false, ..licence }, Cut::No)
            } else {
                Update::Keep
            })
        })
        .await
    }

    /// Ends it now; the account's tokens die. One that has ended already stays as it is.
    ///
    /// # Errors
    /// When there is no such licence, or the store fails.
    pub async fn end(&self, id: &LicenceId) -> Result<Changed<Licence>, Error> {
        self.update(id, |licence, now| {
            Ok(if licence.ends_at.is_some_and(|end| end <= now) {
                Update::Keep
            } else {
                Update::Write(Licence { ends_at: Some(now), ..licence }, Cut::Now(now))
            })
        })
        .await
    }

    /// Replaces what it grants. The account's tokens die when a group is lost.
    ///
    /// # Errors
    /// When a group does not exist, there is no such licence, or the store fails.
    pub async fn set_groups(&self, id: &LicenceId, groups: &Groups) -> Result<Changed<Licence>, Error> {
        self.check_groups(groups).await?;
        self.update(id, |licence, now| {
            if licence.groups == *groups {
                return Ok(Update::Keep);
            }
            let cut = if groups.is_superset(&licence.groups) { Cut::No } else { Cut::Now(now) };
            Ok(Update::Write(Licence { groups: groups.clone(), ..licence }, cut))
        })
        .await
    }

    async fn account(&self, name: &AccountName) -> Result<(), Error> {
        if name.as_str() == demo::DEMO {
            return Err(Error::DemoAccount);
        }
        self.accounts.account(name).await?.map(|_| ()).ok_or_else(|| Error::NoAccount(name.clone()))
    }

    async fn check_groups(&self, groups: &Groups) -> Result<(), Error> {
        if groups.is_empty() {
            return Err(Error::NoGroups);
        }
        if groups.contains(&demo::group()) {
            return Err(Error::DemoGroup);
        }
        match groups::missing(&*self.groups, groups).await? {
            Some(id) => Err(Error::NoGroup(id)),
            None => Ok(()),
        }
    }

    /// `now` is read inside the atomic update: a cut that waited for another writer must not be older than the change.
    async fn update(
        &self,
        id: &LicenceId,
        change: impl Fn(Licence, Timestamp) -> Result<Update<Licence>, Error> + Send + Sync,
    ) -> Result<Changed<Licence>, Error> {
        let verdict = Verdict::default();
        let decide = |licence| verdict.note(change(licence, self.clock.now()));
        let updated = self.licences.update_licence(id, &decide).await?;
        if verdict.is_late(self.clock.now()) {
            let again = |licence| Update::Write(licence, Cut::Now(self.clock.now()));
            self.licences.update_licence(id, &again).await?;
        }
        verdict.of(updated)?.ok_or_else(|| Error::Unknown(*id))
    }
}

fn check_end(starts_at: Timestamp, ends_at: Option<Timestamp>, now: Timestamp) -> Result<(), Error> {
    match ends_at {
        Some(ends_at) if ends_at <= starts_at => Err(Error::EndBeforeStart { starts_at, ends_at }),
        Some(ends_at) if ends_at <= now => Err(Error::PastEnd(ends_at)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::Account;
    use crate::clock::ManualClock;
    use crate::groups::Group;
    use crate::revocations::{RevocationStore, Target};
    use crate::store::MemoryStore;
    use std::time::Duration;

    const DAY: Duration = Duration::from_secs(86_400);

    struct Office {
        store: Arc<MemoryStore>,
        licences: Operations,
        clock: Arc<ManualClock>,
        now: Timestamp,
    }

    impl Office {
        async fn new() -> Self {
            let store = Arc::new(MemoryStore::default());
            let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
            let now = clock.now();
            let name = "acme".parse().expect("a name");
            let title = String::new();
            let acme = Account { name, title, password: None, suspended: false, expires_at: None, created_at: now };
            assert!(store.insert_account(&acme).await.expect("a store"));
            for id in ["orders", "reports"] {
                let id = id.parse().expect("a group id");
                let group = Group { id, title: String::new(), token_lifetime: None, created_at: now };
                assert!(store.insert_group(&group).await.expect("a store"));
            }
            let licences = Operations::new(store.clone(), store.clone(), store.clone(), clock.clone());
            Self { store, licences, clock, now }
        }

        async fn granted(&self) -> LicenceId {
            self.licences.grant(orders()).await.expect("a licence").id
        }

        async fn cuts(&self) -> usize {
            let account = Target::Account("acme".parse().expect("a name"));
            let revocations = self.store.revocations(self.now).await.expect("a store");
            revocations.into_iter().filter(|revocation| revocation.target == account).count()
        }
    }

    fn groups(ids: &[&str]) -> Groups {
        ids.iter().map(|id| id.parse().expect("a group id")).collect()
    }

    fn orders() -> NewLicence {
        let account = "acme".parse().expect("a name");
        NewLicence { account, groups: groups(&["orders"]), plan: None, starts_at: None, ends_at: None }
    }

    #[tokio::test]
    async fn a_licence_begins_now_on_the_standard_plan_without_end() {
        let office = Office::new().await;
        let licence = office.licences.grant(orders()).await.expect("a licence");
        assert_eq!((licence.plan.as_str(), licence.starts_at, licence.ends_at), (STANDARD_PLAN, office.now, None));
        assert!(licence.is_live(office.now));
        assert_eq!(office.licences.show(&licence.id).await.expect("stored"), licence);
    }

    #[tokio::test]
    async fn what_a_licence_names_must_exist_and_be_licensable() {
        let office = Office::new().await;
        let refused = async |new: NewLicence| office.licences.grant(new).await.expect_err("a refusal");
        let to = |account: &str| NewLicence { account: account.parse().unwrap(), ..orders() };
        assert!(matches!(refused(to("nobody")).await, Error::NoAccount(_)));
        assert!(matches!(refused(to("demo")).await, Error::DemoAccount));
        let of = |ids: &[&str]| NewLicence { groups: groups(ids), ..orders() };
        assert!(matches!(refused(of(&["none"])).await, Error::NoGroup(_)));
        assert!(matches!(refused(of(&["orders", "demo"])).await, Error::DemoGroup));
        assert!(matches!(refused(of(&[])).await, Error::NoGroups));
        let plan = |plan: &str| NewLicence { plan: Some(plan.into()), ..orders() };
        assert!(matches!(refused(plan(" ")).await, Error::Plan(None)));
        assert!(matches!(refused(plan("a\nb")).await, Error::Plan(Some(_))));
        let now = office.now;
        let lasting =
            |starts_at, ends_at| NewLicence { starts_at: Some(starts_at), ends_at: Some(ends_at), ..orders() };
        assert!(matches!(refused(lasting(now + DAY, now + DAY)).await, Error::EndBeforeStart { .. }));
        assert!(matches!(refused(lasting(now - DAY, now)).await, Error::PastEnd(_)));
        assert_eq!(office.licences.list(None).await.expect("a store"), []);
    }

    #[tokio::test]
    async fn an_earlier_end_cuts_tokens_and_a_later_one_does_not() {
        let office = Office::new().await;
        let id = office.granted().await;
        let now = office.now;
        let cut = async |end| office.licences.extend(&id, end).await.expect("a licence").tokens_cut;
        assert!(!cut(Some(now + 365 * DAY)).await, "no token lives that long");
        assert!(cut(Some(now + DAY)).await);
        assert!(!cut(Some(now + 2 * DAY)).await);
        assert!(!cut(None).await);
        assert!(matches!(office.licences.extend(&id, Some(now - DAY)).await, Err(Error::EndBeforeStart { .. })));
        office.clock.advance(2 * DAY);
        assert!(matches!(office.licences.extend(&id, Some(now + DAY)).await, Err(Error::PastEnd(_))));
    }

    #[tokio::test]
    async fn suspending_and_ending_cut_tokens_and_resuming_does_not() {
        let office = Office::new().await;
        let id = office.granted().await;
        let suspended = office.licences.suspend(&id).await.expect("a licence");
        assert!(suspended.tokens_cut && !suspended.record.is_live(office.now));
        assert_eq!(office.cuts().await, 1);
        assert!(!office.licences.suspend(&id).await.expect("a licence").written);
        let resumed = office.licences.resume(&id).await.expect("a licence");
        assert!(resumed.record.is_live(office.now) && !resumed.tokens_cut);
        let ended = office.licences.end(&id).await.expect("a licence");
        assert!(ended.tokens_cut && !ended.record.is_live(office.now));
        assert_eq!(ended.record.ends_at, Some(office.now));
        assert!(!office.licences.end(&id).await.expect("a licence").written);
    }

    #[tokio::test]
    async fn a_lost_group_cuts_tokens_and_a_gained_one_does_not() {
        let office = Office::new().await;
        let id = office.granted().await;
        let set = async |ids: &[&str]| {
            let changed = office.licences.set_groups(&id, &groups(ids)).await.expect("a licence");
            (changed.written, changed.tokens_cut)
        };
        assert_eq!(set(&["orders", "reports"]).await, (true, false));
        assert_eq!(set(&["orders", "reports"]).await, (false, false));
        assert_eq!(set(&["reports"]).await, (true, true));
        assert!(matches!(office.licences.set_groups(&id, &groups(&["none"])).await, Err(Error::NoGroup(_))));
    }
}
