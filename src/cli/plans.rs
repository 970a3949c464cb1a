//! `keybearer plans …`: what the configuration has of them. Plans are no records: they are written there.

use clap::Subcommand;
use serde_json::json;

use super::Session;
use super::failure::Failure;
use crate::plans::{Limit, Plan};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the plans of the configuration, each with its limits.
    List,
}

pub(super) fn run(session: &mut Session<'_, '_>, command: &Command) -> Result<(), Failure> {
    let Command::List = command;
    let plans = &session.config.plans;
    if session.out.json() {
        let plans: Vec<_> =
            plans.iter().map(|plan| json!({ "id": plan.id.as_str(), "limits": limits(plan) })).collect();
        return session.out.document(&json!({ "plans": plans }));
    }
    if plans.is_empty() {
        session.out.note("no plans yet; write [[plans]] in the configuration file");
        return Ok(());
    }
    let rows = plans.iter().flat_map(|plan| {
        // The id stands once, before its first limit.
        let ids = std::iter::once(plan.id.to_string()).chain(std::iter::repeat(String::new()));
        let scope = |limit: &Limit| if limit.is_shared() { "all gateways" } else { "each gateway" };
        ids.zip(&plan.limits).map(move |(id, limit)| [id, limit.to_string(), scope(limit).to_owned()])
    });
    let rows = rows.collect();
    session.out.table(["ID", "LIMIT", "COUNTED BY"], rows)
}

/// Warns of the name of a plan that the configuration does not have: what bears it is bound by nothing.
pub(super) fn warn_of_unknown(session: &mut Session<'_, '_>, plan: &str) {
    if session.config.plans.iter().all(|known| known.id.as_str() != plan) {
        session.out.warn(&format!("the configuration has no plan \"{plan}\", so it bounds nothing"));
        session.out.hint("keybearer plans list tells those that there are; [[plans]] adds one");
    }
}

fn limits(plan: &Plan) -> Vec<serde_json::Value> {
    let of = |limit: &Limit| {
        json!({
            "name": limit.word(),
            "most": limit.most,
            "burst": limit.burst(),
            "text": limit.to_string(),
            "scope": if limit.is_shared() { "all gateways" } else { "this gateway" },
        })
    };
    plan.limits.iter().map(of).collect()
}
