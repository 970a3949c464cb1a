//! Routes: which paths there are, and who may call them. Owns path normalisation and the route table; knows no HTTP server.

mod path;
mod table;

use crate::ids::{GroupId, RouteId};

pub use path::{Ambiguous, normalise};
pub use table::{Audience, Route, RouteTable, Target};

/// What answers a configured route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// The request as received, credentials blanked.
    Echo,
    /// The time of day.
    Time,
    /// Who the token belongs to.
    Whoami,
}

/// One `[[routes]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Its id: the label in logs and metrics. No two routes share one.
    pub id: RouteId,
    /// An exact path (`/orders`), or a path and all below it (`/orders/*`).
    pub path: String,
    /// The methods it answers; empty is every method.
    pub methods: Vec<String>,
    /// A token must reach one of these groups; empty is any valid token.
    pub groups: Vec<GroupId>,
    /// What answers.
    pub resource: Resource,
}

/// The routes of a new installation: a licensed sample beside the Demo group, so that a refusal for want of a licence can
/// be seen.
pub fn default_routes() -> Vec<RouteSettings> {
    vec![RouteSettings {
        id: "sample".parse().expect("a route id"),
        path: "/sample/*".into(),
        methods: vec![],
        groups: vec!["sample".parse().expect("a group id")],
        resource: Resource::Echo,
    }]
}
