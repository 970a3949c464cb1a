//! What an operator can do with licences. The command line calls it, and an admin API can call the same.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Documents, Error, Licence, LicenceStore};
use crate::accounts::AccountStore;
use crate::change::{Changed, Verdict, cut_for_end};
use crate::clock::{Clock, Timestamp};
use crate::groups::{self, GroupStore, demo};
use crate::ids::{AccountName, Groups, LicenceId, free_text};
use crate::persist::{Cut, Inserted, Update};

/// The plan of a licence that names none.
pub const STANDARD_PLAN: &str = "standard";

/// How often an id that is taken is drawn anew.
const DRAWS: usize = 4;

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
    /// How many keys may hold a seat; `None` is any number.
    pub seats: Option<u32>,
    /// Whether it is a trial, which an account gets once for the same groups.
    pub trial: bool,
    /// A trial all the same, though the account had one.
    pub again: bool,
}

/// What an upgrade replaces; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Upgrade {
    /// The plan's name.
    pub plan: Option<String>,
    /// What it grants.
    pub groups: Option<Groups>,
    /// The seats; `Some(None)` is any number.
    pub seats: Option<Option<u32>>,
    /// The end; `Some(None)` takes it away.
    pub ends_at: Option<Option<Timestamp>>,
}

/// The operations on licences.
#[derive(Clone)]
pub struct Operations {
    pub(super) licences: Arc<dyn LicenceStore>,
    accounts: Arc<dyn AccountStore>,
    pub(super) groups: Arc<dyn GroupStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) documents: Arc<Documents>,
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
        Self { licences, accounts, groups, clock, documents: Arc::default() }
    }

    /// With documents of vendors that are believed; otherwise none is.
    pub fn with_documents(self, documents: Arc<Documents>) -> Self {
        Self { documents, ..self }
    }

    /// Grants a licence. Tokens issued so far do not know of it; the next ones do.
    ///
    /// # Errors
    /// When the account or a group does not exist, the end does not lie after the start and the present, the account had its
    /// trial, or the store fails.
    pub async fn grant(&self, new: NewLicence) -> Result<Licence, Error> {
        self.account(&new.account).await?;
        self.check_groups(&new.groups).await?;
        let plan = new.plan.unwrap_or_else(|| STANDARD_PLAN.to_owned());
        check_plan(&plan)?;
        if new.trial && new.ends_at.is_none() {
            return Err(Error::EndlessTrial);
        }
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
                seats: new.seats,
                trial: new.trial,
                document: None,
                quotas: [].into(),
                created_at: now,
            };
            let had = Mutex::new(None);
            let fits = |held: &[Licence]| {
                let only_once = new.trial && !new.again;
                let trial = held.iter().find(|held| only_once && held.trial && held.groups == new.groups);
                *had.lock().unwrap_or_else(PoisonError::into_inner) = trial.map(|trial| trial.id);
                trial.is_none()
            };
            match self.licences.insert_licence_if(&licence, &fits).await? {
                Inserted::Done => return Ok(licence),
                Inserted::Taken => {}
                Inserted::Refused => {
                    let had = had.into_inner().unwrap_or_else(PoisonError::into_inner);
                    let refused = had.map(|trial| Error::HadTrial { account: new.account, trial });
                    return Err(refused.unwrap_or(Error::NoFreeId));
                }
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
            not_from_document(&licence)?;
            check_end(licence.starts_at, end, now)?;
            if licence.ends_at == end {
                return Ok(Update::Keep);
            }
            let cut = cut_for_end(licence.ends_at, end, now);
            Ok(Update::Write(Licence { ends_at: end, ..licence }, cut))
        })
        .await
    }

    /// Moves the end by `by`: from where it is, or from now when that is past.
    ///
    /// # Errors
    /// When there is no such licence, it has no end, or the store fails.
    pub async fn extend_by(&self, id: &LicenceId, by: Duration) -> Result<Changed<Licence>, Error> {
        self.update(id, |licence, now| {
            not_from_document(&licence)?;
            let end = licence.ends_at.ok_or(Error::NoEnd(licence.id))?.max(now) + by;
            check_end(licence.starts_at, Some(end), now)?;
            Ok(Update::Write(Licence { ends_at: Some(end), ..licence }, Cut::No))
        })
        .await
    }

    /// Replaces what `to` names. A trial that is upgraded is none any more. The account's tokens die when a group is lost, or
    /// when one could outlive an earlier end; nothing that is gained cuts any. Fewer seats end no key: no new one is created
    /// until enough of them are free.
    ///
    /// # Errors
    /// When nothing is named, a group does not exist, the end does not lie after the start and the present, there is no such
    /// licence, or the store fails.
    pub async fn upgrade(&self, id: &LicenceId, to: &Upgrade) -> Result<Changed<Licence>, Error> {
        if to.plan.is_none() && to.groups.is_none() && to.seats.is_none() && to.ends_at.is_none() {
            return Err(Error::NoChange);
        }
        if let Some(plan) = &to.plan {
            check_plan(plan)?;
        }
        if let Some(groups) = &to.groups {
            self.check_groups(groups).await?;
        }
        self.update(id, |licence, now| {
            not_from_document(&licence)?;
            let after = Licence {
                plan: to.plan.clone().unwrap_or_else(|| licence.plan.clone()),
                groups: to.groups.clone().unwrap_or_else(|| licence.groups.clone()),
                seats: to.seats.unwrap_or(licence.seats),
                ends_at: to.ends_at.unwrap_or(licence.ends_at),
                trial: false,
                ..licence.clone()
            };
            if to.ends_at.is_some() {
                check_end(after.starts_at, after.ends_at, now)?;
            }
            if after == licence {
                return Ok(Update::Keep);
            }
            let cut = cut_for(&licence, &after, now);
            Ok(Update::Write(after, cut))
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
            not_from_document(&licence)?;
            if licence.groups == *groups {
                return Ok(Update::Keep);
            }
            let after = Licence { groups: groups.clone(), ..licence.clone() };
            let cut = cut_for(&licence, &after, now);
            Ok(Update::Write(after, cut))
        })
        .await
    }

    pub(super) async fn account(&self, name: &AccountName) -> Result<(), Error> {
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
    pub(super) async fn update(
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

/// Whether the account's tokens must die when `before` becomes `after`: for a group that is lost, or an end that one of them
/// could outlive.
pub(super) fn cut_for(before: &Licence, after: &Licence, now: Timestamp) -> Cut {
    if after.groups.is_superset(&before.groups) {
        cut_for_end(before.ends_at, after.ends_at, now)
    } else {
        Cut::Now(now)
    }
}

fn not_from_document(licence: &Licence) -> Result<(), Error> {
    if licence.document.is_some() { Err(Error::FromDocument(licence.id)) } else { Ok(()) }
}

fn check_plan(plan: &str) -> Result<(), Error> {
    if plan.trim().is_empty() {
        return Err(Error::Plan(None));
    }
    free_text(plan).map(drop).map_err(|rule| Error::Plan(Some(rule)))
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
        let (plan, starts_at, ends_at, seats) = (None, None, None, None);
        NewLicence { account, groups: groups(&["orders"]), plan, starts_at, ends_at, seats, trial: false, again: false }
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

    #[tokio::test]
    async fn a_span_is_added_to_the_end_or_to_now_when_that_is_past() {
        let office = Office::new().await;
        let ending = |ends_at| NewLicence { ends_at, ..orders() };
        let id = office.licences.grant(ending(Some(office.now + 10 * DAY))).await.expect("a licence").id;
        let by = async |days: u32| office.licences.extend_by(&id, days * DAY).await.expect("a licence").record.ends_at;
        assert_eq!(by(30).await, Some(office.now + 40 * DAY));
        office.clock.advance(50 * DAY);
        assert_eq!(by(1).await, Some(office.now + 51 * DAY));
        let endless = office.granted().await;
        assert!(matches!(office.licences.extend_by(&endless, DAY).await, Err(Error::NoEnd(_))));
    }

    #[tokio::test]
    async fn an_upgrade_cuts_for_what_is_lost_and_not_for_what_is_gained() {
        let office = Office::new().await;
        let id = office.granted().await;
        let to = async |upgrade: Upgrade| {
            let changed = office.licences.upgrade(&id, &upgrade).await.expect("a licence");
            (changed.written, changed.tokens_cut)
        };
        let reach = |ids: &[&str]| Upgrade { groups: Some(groups(ids)), ..Upgrade::default() };
        let gold = Upgrade { plan: Some("gold".into()), seats: Some(Some(5)), ..reach(&["orders", "reports"]) };
        assert_eq!(to(gold.clone()).await, (true, false));
        assert_eq!(to(gold).await, (false, false));
        assert_eq!(to(reach(&["reports"])).await, (true, true));
        let end = |end| Upgrade { ends_at: Some(end), ..Upgrade::default() };
        assert_eq!(to(end(Some(office.now + DAY))).await, (true, true));
        assert_eq!(to(end(None)).await, (true, false));
        let licence = office.licences.show(&id).await.expect("a licence");
        assert_eq!((licence.plan.as_str(), licence.seats), ("gold", Some(5)));
        let refused = async |upgrade: Upgrade| office.licences.upgrade(&id, &upgrade).await.expect_err("a refusal");
        assert!(matches!(refused(Upgrade::default()).await, Error::NoChange));
        assert!(matches!(refused(reach(&["none"])).await, Error::NoGroup(_)));
        assert!(matches!(refused(end(Some(office.now))).await, Error::EndBeforeStart { .. }));
    }

    #[tokio::test]
    async fn an_account_has_one_trial_of_the_same_groups() {
        let office = Office::new().await;
        let ends_at = Some(office.now + 14 * DAY);
        let trial = |ids: &[&str]| NewLicence { groups: groups(ids), trial: true, ends_at, ..orders() };
        let first = office.licences.grant(trial(&["orders"])).await.expect("a licence");
        assert!(first.trial);
        let refused = office.licences.grant(trial(&["orders"])).await.expect_err("a refusal");
        assert!(matches!(refused, Error::HadTrial { trial, .. } if trial == first.id), "{refused}");
        office.licences.grant(trial(&["orders", "reports"])).await.expect("other groups");
        office.licences.grant(NewLicence { again: true, ..trial(&["orders"]) }).await.expect("again, on purpose");
        office.licences.grant(NewLicence { trial: false, ..trial(&["orders"]) }).await.expect("no trial");
        let endless = NewLicence { ends_at: None, ..trial(&["reports"]) };
        assert!(matches!(office.licences.grant(endless).await, Err(Error::EndlessTrial)));
        let plan = Upgrade { plan: Some("gold".into()), ..Upgrade::default() };
        assert!(!office.licences.upgrade(&first.id, &plan).await.expect("a licence").record.trial);
    }
}
