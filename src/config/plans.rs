//! `[[plans]]` and `[quotas]`: what may be used, and how it is counted.

use std::time::Duration;

use super::reader::{Reader, Section};
use super::routing::Route;
use super::suggest;
use super::values::{MINUTE, boolean, duration, number, parsed};
use crate::groups::demo;
use crate::ids::PlanId;
use crate::plans::{Limit, Plan, Settings};

/// The most of anything: what a structured field can say (RFC 9651 §3.3.1).
const MOST: u64 = 999_999_999_999_999;

/// The most requests a second. Beyond it the steps of the clock would be seen.
const MOST_PER_SECOND: u64 = 1_000_000;

/// What the quotas of licence documents are called.
const RESERVED: &str = "licence-";

/// A plan as far as it could be read.
#[derive(Debug, Default)]
pub(super) struct PlanSection {
    id: Option<PlanId>,
    limits: Vec<Limit>,
}

pub(super) fn read_plan(section: &mut Section) -> PlanSection {
    let (mut id, mut burst): (Option<PlanId>, Option<u64>) = (None, None);
    section.read_some("id", &mut id, parsed("a plan's id", "\"pro\""));
    let mut given: Vec<(&str, u64)> = Vec::new();
    for name in Limit::NAMES {
        let mut most = None;
        let range = 1..=if name == "requests_per_second" { MOST_PER_SECOND } else { MOST };
        section.read_some(name, &mut most, number(range, "1000"));
        given.extend(most.map(|most| (name, most)));
    }
    section.read_some("burst", &mut burst, number(1..=MOST_PER_SECOND, "40"));
    section.require("id", "give it a name, as in id = \"pro\"");
    if !Limit::NAMES.iter().any(|name| section.has(name)) {
        section.object("requests_per_month", "is not given, nor any other limit", "write what the plan limits");
    }
    if section.has("burst") && !section.has("requests_per_second") {
        section.object("burst", "has no meaning without requests_per_second", "write that as well, or remove it");
    }
    if let Some(id) = id.as_ref().filter(|id| id.as_str().starts_with(RESERVED)) {
        let problem = format!("\"{id}\" is what the quotas of a licence's document are called");
        section.object("id", problem, "choose a name that does not begin with \"licence-\"");
    }
    let limits = given.into_iter().filter_map(|(name, most)| Limit::named(name, most, burst)).collect();
    PlanSection { id, limits }
}

pub(super) fn read_quotas(section: &mut Section, settings: &mut Settings) {
    let Settings { calendar, legacy_fields, flush_every } = settings;
    section.read("time_zone", calendar, parsed("a time zone", "\"+02:00\""));
    section.read("legacy_fields", legacy_fields, boolean);
    section.read("flush_every", flush_every, duration(Duration::from_millis(100)..=MINUTE, "\"1s\""));
}

/// Checks that no two plans share a name, and that what names one names one of them.
pub(super) fn check(plans: &[PlanSection], routes: &[Route], demo: &demo::Settings, reader: &mut Reader) {
    let ids: Vec<&PlanId> = plans.iter().filter_map(|plan| plan.id.as_ref()).collect();
    for (index, plan) in plans.iter().enumerate() {
        let twin = plans[..index].iter().position(|other| other.id.is_some() && other.id == plan.id);
        if let (Some(twin), Some(id)) = (twin, &plan.id) {
            let problem = format!("{:?} is the id of plans[{twin}] too", id.as_str());
            reader.object(&format!("plans[{index}].id"), problem, "give each plan an id of its own");
        }
    }
    let of_routes = routes.iter().enumerate().map(|(index, route)| (format!("routes[{index}].plan"), &route.plan));
    for (path, plan) in of_routes.chain([("demo.plan".to_owned(), &demo.plan)]) {
        let Some(plan) = plan.as_ref().filter(|plan| !ids.contains(plan)) else { continue };
        let remedy = match suggest::closest(plan.as_str(), ids.iter().map(|id| id.as_str())) {
            Some(close) => format!("did you mean {close:?}?"),
            None => format!("write [[plans]] with id = {:?} and its limits", plan.as_str()),
        };
        reader.object(&path, format!("there is no plan \"{plan}\""), remedy);
    }
}

/// The whole plans among `plans`; all of them, when the reading had no fault.
pub(super) fn settled(plans: Vec<PlanSection>) -> Vec<Plan> {
    plans.into_iter().filter_map(|plan| Some(Plan { id: plan.id?, limits: plan.limits })).collect()
}
