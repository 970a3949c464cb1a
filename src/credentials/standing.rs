//! What an account may have at a given moment: its own validity, its licences, and the groups there are.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::Reason;
use crate::accounts::Account;
use crate::clock::Timestamp;
use crate::groups::demo;
use crate::ids::{GroupId, Groups, PlanId};
use crate::licences::Licence;
use crate::tokens::Limited;

/// All groups, with the longest life each allows a token.
pub(super) type GroupLives = HashMap<GroupId, Option<Duration>>;

/// An account with its licences, as read from the store.
#[derive(Debug)]
pub(super) struct Standing {
    pub account: Account,
    pub licences: Vec<Licence>,
    pub read_at: Timestamp,
}

/// What a credential of the account reaches at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reach {
    pub groups: Groups,
    pub not_after: Option<Timestamp>,
    pub longest: Option<Duration>,
}

impl Standing {
    /// The same with the licences alone that no document says.
    pub fn without_documents(&self) -> Self {
        let licences = self.licences.iter().filter(|licence| licence.document.is_none()).cloned().collect();
        Self { account: self.account.clone(), licences, read_at: self.read_at }
    }

    /// What a credential limited to `only` (if to anything) and ending at `ends_at` (if ever) reaches at `now`.
    ///
    /// The Demo group is open to anyone, so whoever reaches something reaches it too; but it does not make a credential
    /// good whose licences have ended.
    pub fn reach(
        &self,
        only: Option<&Groups>,
        ends_at: Option<Timestamp>,
        lives: &GroupLives,
        demo_is_open: bool,
        now: Timestamp,
    ) -> Result<Reach, Reason> {
        if !self.account.is_live(now) {
            return Err(Reason::AccountNotLive);
        }
        // Of a group that several licences grant, the last end counts; of several groups, the first end.
        let mut ends: HashMap<&GroupId, Option<Timestamp>> = HashMap::new();
        for licence in self.licences.iter().filter(|licence| licence.is_live(now)) {
            let granted = licence.groups.iter().filter(|group| lives.contains_key(*group));
            for group in granted.filter(|group| only.is_none_or(|only| only.contains(*group))) {
                let end = ends.entry(group).or_insert(licence.ends_at);
                *end = (*end).zip(licence.ends_at).map(|(one, other)| one.max(other));
            }
        }
        if ends.is_empty() {
            return Err(Reason::NothingGranted);
        }
        let not_after = [ends_at, self.account.expires_at].into_iter().chain(ends.values().copied()).flatten().min();
        let longest = ends.keys().filter_map(|group| lives.get(*group).copied().flatten()).min();
        let mut groups: Groups = ends.into_keys().cloned().collect();
        if demo_is_open {
            groups.insert(demo::group());
        }
        Ok(Reach { groups, not_after, longest })
    }

    /// The licences that bound how much of `reached` may be used at `now`: by a plan, if it is among `plans`, or by the quotas
    /// of a document. What a licence without bounds grants too is not bound. The licence that ends first is the first, so
    /// that what would lapse is used up before the rest.
    pub fn limits(&self, reached: &Groups, plans: &BTreeSet<PlanId>, now: Timestamp) -> Vec<Limited> {
        let live: Vec<&Licence> = self.licences.iter().filter(|licence| licence.is_live(now)).collect();
        let plan = |licence: &Licence| licence.plan.parse().ok().filter(|plan| plans.contains(plan));
        let is_bound = |licence: &Licence| !licence.quotas.is_empty() || plan(licence).is_some();
        let (mut bound, free): (Vec<&Licence>, Vec<&Licence>) = live.into_iter().partition(|licence| is_bound(licence));
        bound.sort_by_key(|licence| (licence.ends_at.is_none(), licence.ends_at, licence.id));
        let is_free = |group: &GroupId| free.iter().any(|licence| licence.groups.contains(group));
        let limits = bound.into_iter().map(|licence| Limited {
            licence: licence.id,
            plan: plan(licence),
            quotas: licence.quotas.clone(),
            groups: licence.groups.intersection(reached).filter(|group| !is_free(group)).cloned().collect(),
        });
        limits.filter(|limited| !limited.groups.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1000);

    fn at(secs: u64) -> Option<Timestamp> {
        Some(Timestamp::from_secs(secs))
    }

    fn groups(names: &[&str]) -> Groups {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn licence(names: &[&str], ends_at: Option<Timestamp>) -> Licence {
        Licence {
            id: crate::ids::LicenceId::random(),
            account: "acme".parse().unwrap(),
            groups: groups(names),
            plan: "standard".into(),
            starts_at: Timestamp::from_secs(500),
            ends_at,
            suspended: false,
            seats: None,
            trial: false,
            document: None,
            quotas: [].into(),
            created_at: Timestamp::from_secs(500),
        }
    }

    fn standing(licences: Vec<Licence>) -> Standing {
        let account = Account {
            name: "acme".parse().unwrap(),
            title: String::new(),
            password: None,
            suspended: false,
            expires_at: None,
            created_at: Timestamp::from_secs(500),
        };
        Standing { account, licences, read_at: NOW }
    }

    fn lives() -> GroupLives {
        let short = Some(Duration::from_secs(60));
        [("a", None), ("b", short)].map(|(name, life)| (name.parse().unwrap(), life)).into()
    }

    #[test]
    fn of_one_group_the_last_end_counts_and_of_several_the_first() {
        let standing = standing(vec![licence(&["a"], at(2000)), licence(&["a"], at(3000)), licence(&["b"], at(2500))]);
        let reach = standing.reach(None, None, &lives(), false, NOW).unwrap();
        assert_eq!(
            reach,
            Reach { groups: groups(&["a", "b"]), not_after: at(2500), longest: Some(Duration::from_secs(60)) }
        );
        let only = groups(&["a"]);
        let reach = standing.reach(Some(&only), at(9000), &lives(), true, NOW).unwrap();
        assert_eq!(reach, Reach { groups: groups(&["a", "demo"]), not_after: at(3000), longest: None });
    }

    #[test]
    fn a_group_is_bound_by_the_licences_that_grant_it_unless_one_has_no_bounds() {
        let known: BTreeSet<PlanId> = ["gold".parse().unwrap(), "silver".parse().unwrap()].into();
        let on = |plan: &str, names: &[&str], ends_at| Licence { plan: plan.into(), ..licence(names, ends_at) };
        let named = |licences: Vec<Licence>, reached: &[&str]| -> Vec<(Option<String>, String)> {
            let limits = standing(licences).limits(&groups(reached), &known, NOW);
            let word =
                |limited: Limited| (limited.plan.map(|plan| plan.to_string()), crate::ids::scope(&limited.groups));
            limits.into_iter().map(word).collect()
        };
        let gold = |groups: &str| (Some("gold".to_owned()), groups.to_owned());
        assert_eq!(named(vec![on("gold", &["a", "b"], None)], &["a", "demo"]), [gold("a")]);
        assert_eq!(named(vec![on("Gold plated", &["a"], None)], &["a"]), [], "no such plan");
        let both = vec![on("gold", &["a", "b"], None), on("standard", &["a"], None)];
        assert_eq!(named(both, &["a", "b"]), [gold("b")], "one has no bounds for this");
        let ended = vec![on("gold", &["a"], None), on("standard", &["a"], at(1000))];
        assert_eq!(named(ended, &["a"]), [gold("a")]);
        let lapsing = vec![on("gold", &["a"], None), on("silver", &["a"], at(3000)), on("gold", &["a"], at(2000))];
        assert_eq!(
            named(lapsing, &["a"]).into_iter().map(|(plan, _)| plan.unwrap()).collect::<Vec<_>>(),
            ["gold", "silver", "gold"],
            "what ends first is first"
        );
        let quotas = Licence { quotas: [("requests_per_month".to_owned(), 7)].into(), ..licence(&["a"], None) };
        assert_eq!(named(vec![quotas], &["a"]), [(None, "a".to_owned())]);
    }

    #[test]
    fn a_licence_counts_from_its_start_to_just_before_its_end() {
        let standing = standing(vec![licence(&["a"], at(2000))]);
        let reaches = |secs| standing.reach(None, None, &lives(), true, Timestamp::from_secs(secs)).is_ok();
        assert_eq!([499, 500, 1999, 2000].map(reaches), [false, true, true, false]);
    }

    #[test]
    fn nothing_is_granted_by_a_group_that_is_no_more_or_by_demo_alone() {
        let standing = standing(vec![licence(&["gone"], None)]);
        assert_eq!(standing.reach(None, None, &lives(), true, NOW), Err(Reason::NothingGranted));
    }

    #[test]
    fn an_account_that_is_suspended_or_has_ended_reaches_nothing() {
        let mut standing = standing(vec![licence(&["a"], None)]);
        standing.account.expires_at = at(1000);
        assert_eq!(standing.reach(None, None, &lives(), true, NOW), Err(Reason::AccountNotLive));
        standing.account.expires_at = at(1001);
        assert_eq!(standing.reach(None, None, &lives(), true, NOW).unwrap().not_after, at(1001));
        standing.account.suspended = true;
        assert_eq!(standing.reach(None, None, &lives(), true, NOW), Err(Reason::AccountNotLive));
    }
}
