//! Rules: which groups may do what in which repositories. All rules that fit count together, and nothing else is allowed.

use std::collections::BTreeSet;

use serde::Serialize;

use super::scope::Resource;
use super::{NamePattern, Settings};
use crate::groups::demo;
use crate::ids::{GroupId, Groups};
use crate::tokens::Grant;

/// What can be done in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Read.
    Pull,
    /// Write. A client that pushes also asks what is there already, and needs to pull for that.
    Push,
    /// Delete.
    Delete,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    /// Its name in scopes and tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// In which repositories.
    pub name: NamePattern,
    /// A credential must reach one of these groups; none is any credential but the public demo one.
    pub groups: Vec<GroupId>,
    /// What it may do.
    pub actions: Vec<Action>,
}

/// An entry of the `access` claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Access {
    /// As asked for.
    #[serde(rename = "type")]
    pub kind: String,
    /// As asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// As asked for.
    pub name: String,
    /// What may be done of that which was asked for.
    pub actions: Vec<&'static str>,
}

impl std::fmt::Display for Access {
    /// The scope that it was asked for by, with what is allowed of it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.kind)?;
        if let Some(class) = &self.class {
            write!(f, "({class})")?;
        }
        write!(f, ":{}:{}", self.name, self.actions.join(","))
    }
}

/// What `grant` may have of what is asked for.
pub(super) fn access(settings: &Settings, grant: &Grant, asked: &[Resource]) -> Vec<Access> {
    let access = asked.iter().map(|resource| {
        let actions = match resource.kind.as_str() {
            "repository" => in_repository(settings, grant, resource),
            // The one resource of a registry as a whole: the list of all repositories, for which the action is `*`.
            "registry" if resource.name == "catalog" && resource.class.is_none() => {
                let may = may(grant, &settings.catalog_groups) && !settings.catalog_groups.is_empty();
                if may && resource.actions.contains("*") { vec!["*"] } else { vec![] }
            }
            _ => vec![],
        };
        let Resource { kind, class, name, .. } = resource.clone();
        Access { kind, class, name, actions }
    });
    access.filter(|access| !access.actions.is_empty()).collect()
}

fn in_repository(settings: &Settings, grant: &Grant, resource: &Resource) -> Vec<&'static str> {
    let rules = settings.rules.iter();
    let fit = rules.filter(|rule| may(grant, &rule.groups) && rule.name.has(&resource.name, &grant.account));
    let allowed: BTreeSet<Action> = fit.flat_map(|rule| rule.actions.iter().copied()).collect();
    let wants_all = resource.actions.contains("*");
    let wanted = allowed.into_iter().filter(|action| wants_all || resource.actions.contains(action.as_str()));
    wanted.map(Action::as_str).collect()
}

/// Whether a credential reaches one of these groups.
fn may(grant: &Grant, groups: &[GroupId]) -> bool {
    let reaches = |reached: &Groups| groups.iter().any(|group| reached.contains(group));
    if groups.is_empty() { grant.account.as_str() != demo::DEMO } else { reaches(&grant.groups) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::repositories::{KeyName, read_scopes};
    use crate::revocations::Cutoff;
    use crate::tokens::{Client, Terms};

    fn grant(account: &str, groups: &[&str]) -> Grant {
        Grant {
            account: account.parse().unwrap(),
            client: Client::Password,
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
            not_after: None,
            longest: None,
            known_at: Timestamp::from_secs(1000),
            cutoff: Cutoff(0),
            terms: Terms::default(),
        }
    }

    fn rule(name: &str, groups: &[&str], actions: &[Action]) -> Rule {
        let groups = groups.iter().map(|group| group.parse().unwrap()).collect();
        Rule { name: name.parse().unwrap(), groups, actions: actions.to_vec() }
    }

    fn settings() -> Settings {
        use Action::{Delete, Pull, Push};
        Settings {
            service: "registry.example.com".into(),
            key_name: KeyName::Libtrust,
            catalog_groups: vec!["office".parse().unwrap()],
            rules: vec![
                rule("team/**", &["readers", "writers"], &[Pull]),
                rule("team/app", &["writers"], &[Push]),
                rule("{account}/**", &[], &[Pull, Push, Delete]),
                rule("open/*", &["demo"], &[Pull]),
            ],
        }
    }

    fn shown(grant: &Grant, scopes: &str) -> String {
        let asked = read_scopes([scopes]).unwrap();
        access(&settings(), grant, &asked).iter().map(Access::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_rule_that_fits_adds_what_it_allows() {
        let writer = grant("acme", &["demo", "writers"]);
        assert_eq!(shown(&writer, "repository:team/app:pull,push"), "repository:team/app:pull,push");
        assert_eq!(shown(&writer, "repository:team/app:push"), "repository:team/app:push", "no more than is asked for");
        assert_eq!(shown(&writer, "repository:team/other:pull,push"), "repository:team/other:pull");
        assert_eq!(shown(&writer, "repository:team/app:*"), "repository:team/app:pull,push", "all that is allowed");
        let reader = grant("bob", &["demo", "readers"]);
        assert_eq!(shown(&reader, "repository:team/app:pull,push,delete"), "repository:team/app:pull");
        let all = "repository:team/app:pull,push repository:bob/x:pull,push repository:acme/x:pull registry:catalog:*";
        assert_eq!(shown(&reader, all), "repository:team/app:pull repository:bob/x:pull,push");
    }

    #[test]
    fn what_no_rule_allows_is_left_out() {
        let stranger = grant("eve", &["demo"]);
        for scope in [
            "repository:team/app:pull",
            "repository:team:pull",
            "repository:acme/x:pull",
            "repository:eve:pull",
            "repository:eve/x:purge",
            "repository:eve/x:",
            "registry:catalog:*",
            "registry:other:*",
            "volume:eve/x:pull",
        ] {
            assert_eq!(shown(&stranger, scope), "", "{scope}");
        }
        assert_eq!(shown(&stranger, "repository:open/x:pull,push"), "repository:open/x:pull");
        assert_eq!(shown(&stranger, "repository(plugin):eve/x:pull"), "repository(plugin):eve/x:pull");
    }

    #[test]
    fn the_demo_credential_reaches_what_names_its_group_and_nothing_else() {
        let demo = grant("demo", &["demo"]);
        assert_eq!(shown(&demo, "repository:demo/x:pull,push,delete"), "", "no group is anyone but the public");
        assert_eq!(shown(&demo, "repository:open/x:pull,push"), "repository:open/x:pull");
    }

    #[test]
    fn the_list_of_all_repositories_is_for_who_is_named() {
        let office = grant("office", &["office"]);
        assert_eq!(shown(&office, "registry:catalog:*"), "registry:catalog:*");
        for other in ["registry:catalog:pull", "registry:catalog:", "registry(x):catalog:*", "repository:catalog:*"] {
            assert_eq!(shown(&office, other), "", "{other}");
        }
        let nobody = Settings { catalog_groups: vec![], ..settings() };
        assert_eq!(access(&nobody, &office, &read_scopes(["registry:catalog:*"]).unwrap()), []);
    }
}
