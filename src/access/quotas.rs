//! Which plans bound a request: those of the licences that it came by, of its key, of its route and of its address in the Demo
//! group. What they count is the `plans` room's; this one knows whose counts they are.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use dashmap::DashMap;

use crate::clock::Timestamp;
use crate::groups::demo;
use crate::ids::{GroupId, LicenceId, PlanId};
use crate::plans::{Bound, Meters, Plan, Share, Shown, Subject};
use crate::registry::Principal;
use crate::routes::{Audience, Route};
use crate::tokens::{Client, Limited};

/// Places that are remembered at once. Beyond it all are found anew.
const MOST_PLACES: usize = 100_000;

/// Who asks for what, in numbers that are never used for anything else within a process.
type Place = (u64, u64, usize);

/// The plans in force, and everybody's counts by them.
#[derive(Debug)]
pub struct Quotas {
    meters: Arc<Meters>,
    state: ArcSwap<State>,
    legacy_fields: bool,
    /// Plans that somebody named and nobody knows, each told once.
    unknown: Mutex<HashSet<PlanId>>,
}

/// What a reload replaces as a whole.
#[derive(Debug, Default)]
struct State {
    plans: HashMap<PlanId, Arc<Plan>>,
    demo: Option<Arc<Plan>>,
    /// What bounds whom where; `None` is nothing.
    bounds: DashMap<Place, Option<Arc<Bound>>>,
}

impl Quotas {
    /// These plans, counted by `meters`; `demo` is the one of client addresses in the Demo group.
    pub fn new(meters: Arc<Meters>, plans: &[Plan], demo: Option<&PlanId>, legacy_fields: bool) -> Self {
        let state = ArcSwap::from_pointee(State::new(plans, demo));
        Self { meters, state, legacy_fields, unknown: Mutex::default() }
    }

    /// Puts other plans into force. What was counted goes on to count, for the limits that are still there.
    pub fn set(&self, plans: &[Plan], demo: Option<&PlanId>) {
        self.state.store(Arc::new(State::new(plans, demo)));
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Drops what counts no more.
    pub fn forget(&self, now: Timestamp) {
        self.state.load().bounds.clear();
        self.meters.forget(now);
    }

    /// The counts.
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// Whether answers have the older fields as well.
    pub(super) fn legacy_fields(&self) -> bool {
        self.legacy_fields
    }

    /// What bounds a request of `who` on `route`, which is in the table of that number. Costs nothing where no plan is.
    pub(super) fn bound(
        &self,
        who: &Principal,
        table: u64,
        route: &Route,
        client: IpAddr,
        now: Timestamp,
    ) -> Option<Arc<Bound>> {
        let terms = who.terms();
        let is_bound = !terms.limits.is_empty() || terms.plan.is_some() || route.plan.is_some();
        if !is_bound && !who.is_demo() {
            return None;
        }
        let state = self.state.load();
        if who.is_demo() {
            // Addresses come and go, and are not worth being remembered by place.
            self.meters.make_room(now);
            let on_route = || Subject::RouteAddress(route.id.clone(), client.into());
            let mut all: Vec<_> = self.of_route(&state, route, on_route).into_iter().collect();
            all.extend(self.of_address(&state, client));
            return (!all.is_empty()).then(|| Arc::new(Bound::new(&self.meters, all, vec![])));
        }
        let place = (who.serial(), table, route.index);
        if let Some(found) = state.bounds.get(&place) {
            return found.clone();
        }
        let on_route = || Subject::Route(route.id.clone(), who.account().clone());
        let all: Vec<_> = self.of_key(&state, who).into_iter().chain(self.of_route(&state, route, on_route)).collect();
        let (options, each) = self.of_licences(&state, who, route);
        let is_bound = !all.is_empty() || !each.is_empty();
        let bound = is_bound.then(|| Arc::new(Bound::of_each(&self.meters, all, options, each)));
        if state.bounds.len() >= MOST_PLACES {
            state.bounds.clear();
        }
        state.bounds.insert(place, bound.clone());
        bound
    }

    /// What is left to `who` by its key and its licences, and to `client` in the Demo group, wherever it may ask: whose it is
    /// counted for, and where each limit stands. Nothing is charged.
    pub(super) fn standings(&self, who: &Principal, client: IpAddr, now: Timestamp) -> Vec<(&'static str, Shown)> {
        let terms = who.terms();
        if terms.limits.is_empty() && terms.plan.is_none() && !who.is_demo() {
            return vec![];
        }
        let state = self.state.load();
        let of_licences = terms.limits.iter().flat_map(|limited| self.of_licence(&state, limited));
        let of_address = who.is_demo().then(|| self.of_address(&state, client)).flatten();
        let shares = self.of_key(&state, who).into_iter().map(|share| ("key", share));
        let shares = shares.chain(of_licences.map(|share| ("licence", share)));
        let shares = shares.chain(of_address.map(|share| ("client address", share)));
        shares
            .flat_map(|(per, share)| share.shown(&self.meters, now).into_iter().map(move |shown| (per, shown)))
            .collect()
    }

    fn of_address(&self, state: &State, client: IpAddr) -> Option<Share> {
        Some(self.share(state.demo.as_ref()?, Subject::Address(client.into())))
    }

    fn of_key(&self, state: &State, who: &Principal) -> Option<Share> {
        let (Client::Key(id), Some(plan)) = (who.client(), &who.terms().plan) else { return None };
        Some(self.share(&self.known(state, plan)?, Subject::Key(*id)))
    }

    fn of_route(&self, state: &State, route: &Route, whose: impl FnOnce() -> Subject) -> Option<Share> {
        Some(self.share(&self.known(state, route.plan.as_ref()?)?, whose()))
    }

    /// The shares of each licence by which the request reaches the route, and from which of them one is charged: where one group
    /// is enough, one of all, as of several subscriptions; where all are asked for, one for each group. What is reached by a
    /// licence that bounds nothing too is free.
    fn of_licences(&self, state: &State, who: &Principal, route: &Route) -> (Vec<Vec<Share>>, Vec<Vec<usize>>) {
        let asked = route.audience.groups();
        // Everybody reaches the Demo group: where no group is asked for, it is not the one by which they came.
        let is_asked =
            |group: &&GroupId| if asked.is_empty() { **group != demo::group() } else { asked.contains(*group) };
        let reached: Vec<&GroupId> = who.groups().iter().filter(is_asked).collect();
        let limits = &who.terms().limits;
        let grants =
            |limited: &Limited, groups: &[&GroupId]| groups.iter().any(|group| limited.groups.contains(*group));
        let shares = |limited| if grants(limited, &reached) { self.of_licence(state, limited) } else { vec![] };
        let options: Vec<Vec<Share>> = limits.iter().map(shares).collect();
        let one_of = |groups: &[&GroupId]| {
            let places: Vec<usize> = (0..limits.len()).filter(|place| grants(&limits[*place], groups)).collect();
            let is_limited = |group: &&GroupId| limits.iter().any(|limited| limited.groups.contains(*group));
            let is_bound = groups.iter().all(is_limited) && places.iter().all(|place| !options[*place].is_empty());
            (is_bound && !places.is_empty()).then_some(places)
        };
        let each = match route.audience {
            Audience::AllOf(_) => reached.iter().filter_map(|group| one_of(&[*group])).collect(),
            _ => one_of(&reached).into_iter().collect(),
        };
        (options, each)
    }

    /// The plan that a licence names and the quotas of its document: both hold.
    fn of_licence(&self, state: &State, limited: &Limited) -> Vec<Share> {
        let named = limited.plan.as_ref().and_then(|plan| self.known(state, plan));
        let own = document_plan(&limited.licence).and_then(|id| Plan::of_quotas(id, &limited.quotas)).map(Arc::new);
        let plans = named.into_iter().chain(own);
        plans.map(|plan| self.share(&plan, Subject::Licence(limited.licence))).collect()
    }

    fn share(&self, plan: &Arc<Plan>, subject: Subject) -> Share {
        Share { counted: self.meters.of(plan, subject), plan: Arc::clone(plan) }
    }

    /// The plan of that name. One that the configuration does not know bounds nothing.
    fn known(&self, state: &State, plan: &PlanId) -> Option<Arc<Plan>> {
        let found = state.plans.get(plan).map(Arc::clone);
        if found.is_none() && self.unknown.lock().unwrap_or_else(PoisonError::into_inner).insert(plan.clone()) {
            tracing::warn!(plan = %plan, "a licence or key names a plan that [[plans]] does not have; it bounds nothing");
        }
        found
    }
}

impl State {
    fn new(plans: &[Plan], demo: Option<&PlanId>) -> Self {
        let plans: HashMap<_, _> = plans.iter().map(|plan| (plan.id.clone(), Arc::new(plan.clone()))).collect();
        let demo = demo.and_then(|id| plans.get(id)).map(Arc::clone);
        Self { plans, demo, bounds: DashMap::new() }
    }
}

/// What the quotas of a licence's document are called: in lower case, as plans are.
fn document_plan(licence: &LicenceId) -> Option<PlanId> {
    format!("licence-{licence}").to_ascii_lowercase().parse().ok()
}
