//! `[image_registry]` and `[[repositories]]`: the registry that tokens are issued for, and who may do what in it.

use super::Config;
use super::reader::{Reader, Section};
use super::suggest;
use super::values::{Given, Read, one_of, parsed, text};
use crate::groups::demo;
use crate::ids::GroupId;
use crate::repositories::{Action, KeyName, NamePattern, Rule, Settings};
use crate::signing::Algorithm;

/// The registry as far as it could be read.
#[derive(Debug, Default)]
pub(super) struct Registry {
    service: Option<String>,
    key_name: KeyName,
    catalog_groups: Vec<GroupId>,
    is_given: bool,
}

/// A rule as far as it could be read.
#[derive(Debug, Default)]
pub(super) struct Repository {
    name: Option<NamePattern>,
    groups: Vec<GroupId>,
    actions: Vec<Action>,
}

pub(super) fn read_registry(section: &mut Section, registry: &mut Registry) {
    const NAMES: &[(&str, KeyName)] =
        &[("libtrust", KeyName::Libtrust), ("thumbprint", KeyName::Thumbprint), ("x5c", KeyName::X5c)];
    section.read_some("service", &mut registry.service, text(1..=256, "\"registry.example.com\""));
    section.read("key_id", &mut registry.key_name, one_of(NAMES, "\"libtrust\""));
    section.list("catalog_groups", &mut registry.catalog_groups, parsed("a group", "[\"operations\"]"));
    registry.is_given = section.is_given();
    if registry.is_given {
        section
            .require("service", "write what the registry calls its service, as in service = \"registry.example.com\"");
    }
}

pub(super) fn read_repository(section: &mut Section) -> Repository {
    let mut rule = Repository::default();
    section.read_some("match", &mut rule.name, parsed("a pattern of repositories", "\"team/**\""));
    section.list("groups", &mut rule.groups, parsed("a group", "[\"orders\"]"));
    section.list("actions", &mut rule.actions, action);
    section.require("match", "write which repositories it is about, as in match = \"team/**\"");
    // Left out by oversight it would open them to every customer, so openness must be written down.
    section.require(
        "groups",
        "write the groups that it is for, or groups = [] for any credential but the public demo one",
    );
    section.require("actions", "write what may be done, as in actions = [\"pull\", \"push\"]");
    rule
}

fn action(given: Given) -> Read<Action> {
    const EXAMPLE: &str = "[\"pull\", \"push\"]";
    if let Some(action) = Action::ALL.into_iter().find(|action| given.text() == Some(action.as_str())) {
        return Ok(action);
    }
    let close = given.text().and_then(|text| suggest::closest(text, Action::ALL.map(Action::as_str)));
    let remedy = match close {
        Some(action) => format!("did you mean {action:?}?"),
        None => "write \"pull\", \"push\" or \"delete\"".into(),
    };
    Err(given.is_not("an action", remedy, EXAMPLE))
}

/// Checks the registry and its rules against one another and the rest.
pub(super) fn check(registry: &Registry, rules: &[Repository], config: &Config, reader: &mut Reader) {
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("repositories[{index}].actions");
        if rule.actions.is_empty() && reader.is_given(&path) && reader.is_sound(&path) {
            reader.object(
                &path,
                "is empty",
                "write what may be done, or remove the rule: what no rule allows is denied",
            );
        }
        // Every account reaches the Demo group, and anyone does by its published key.
        let is_open = rule.groups.iter().any(|group| group.as_str() == demo::DEMO);
        if let Some(action) = rule.actions.iter().find(|action| is_open && **action != Action::Pull) {
            let problem = format!("would let anyone {} by the published demo key", action.as_str());
            reader.object(&path, problem, "write another group, or actions = [\"pull\"]");
        }
    }
    if !registry.is_given {
        if !rules.is_empty() {
            let remedy = "write [image_registry] with the service that they are in, or remove them";
            reader.object("repositories", "are given without a registry", remedy);
        }
        return;
    }
    // A registry's token must be of no use anywhere else, whatever else may come to tell the two apart.
    if let Some(service) = registry.service.as_ref().filter(|service| config.tokens.audience.contains(service)) {
        let problem = format!("{service:?} is in tokens.audience too");
        reader.object(
            "image_registry.service",
            problem,
            "choose another name, the same in the registry's own settings",
        );
    }
    names(registry.key_name, config.signing.algorithm, reader);
}

/// Checks that keys for this algorithm have names of this kind.
fn names(name: KeyName, algorithm: Algorithm, reader: &mut Reader) {
    let (of_name, of_algorithm) = ("image_registry.key_id", "signing.algorithm");
    if name.fits(algorithm) || !reader.is_sound(of_name) || !reader.is_sound(of_algorithm) {
        return;
    }
    let (name, remedy) = match name {
        KeyName::X5c => ("x5c", "sign with RS256, or write key_id = \"libtrust\""),
        _ => ("libtrust", "sign with RS256 or ES256"),
    };
    // The message belongs to the one that was set.
    if reader.is_given(of_name) {
        let problem = format!("{name:?} does not go with {of_algorithm} = \"{algorithm}\"");
        reader.object(of_name, problem, remedy);
    } else {
        let problem = format!("\"{algorithm}\" does not go with {of_name} = {name:?}");
        reader.object(of_algorithm, problem, remedy);
    }
}

/// The registry with its whole rules; all of them, when the reading had no fault.
pub(super) fn settled(registry: Registry, rules: Vec<Repository>) -> Option<Settings> {
    let settle = |rule: Repository| Some(Rule { name: rule.name?, groups: rule.groups, actions: rule.actions });
    let Registry { service, key_name, catalog_groups, is_given: _ } = registry;
    Some(Settings {
        service: service?,
        key_name,
        catalog_groups,
        rules: rules.into_iter().filter_map(settle).collect(),
    })
}
