//! The terms of a token: what it is bound to beyond its account, credential and groups.
//!
//! They are carried in the token itself, in private claims (RFC 7519 §4.3), so that any gateway knows them after a restart.
//! A claim is left out when it says nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::client_addr::Networks;
use crate::ids::{Groups, LicenceId, PlanId};

/// What a grant, its token and its sessions are bound to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// The networks it may be used from; `None` is from everywhere.
    pub networks: Option<Networks>,
    /// It was got with the old secret of a key that was rolled.
    pub deprecated: Option<Deprecated>,
    /// The licences whose plans or quotas bound its use, by id. What no licence here names is not bound by one.
    pub limits: Vec<Limited>,
    /// The plan of the key it was got with.
    pub plan: Option<PlanId>,
}

/// That a licence bounds how much its groups may be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limited {
    /// The licence. Its counts are its own, and go on when it is renewed.
    pub licence: LicenceId,
    /// The plan that it names, if there is one of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanId>,
    /// The quotas of its document, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quotas: BTreeMap<String, u64>,
    /// The groups that the token reaches by it, and by no licence without bounds.
    pub groups: Groups,
}

/// That a credential was replaced, and until when it goes on working.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deprecated {
    /// When it was replaced, in Unix seconds: the date of a `Deprecation` field (RFC 9745 §2.1).
    pub since: u64,
    /// When it ends, in Unix seconds, where that is known: the date of a `Sunset` field (RFC 8594 §3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}
