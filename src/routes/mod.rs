//! Routes: which paths there are, who may call them and what answers. Owns path normalisation, patterns and the route table;
//! knows no HTTP server and no upstream but by its name.

mod contract;
pub mod host;
mod path;
mod pattern;
mod table;
mod tree;

use std::sync::Arc;
use std::time::Duration;

use crate::ids::{GroupId, PlanId, RouteId, UpstreamId};

pub use contract::Contract;
pub use host::HostPattern;
pub use path::{Ambiguous, normalise};
pub use pattern::{InvalidPattern, Pattern, Segment};
pub use table::{Audience, BuiltIns, Route, RouteTable, Target};

/// What the gateway itself can answer a route with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// The request as received, credentials blanked.
    Echo,
    /// The time of day.
    Time,
    /// Who the token belongs to.
    Whoami,
}

/// What answers a configured route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The gateway itself.
    Resource(Resource),
    /// An upstream.
    Upstream(Arc<Forwarding>),
    /// Another proxy, which asks by forward-auth; here there is nothing at the path.
    External,
}

/// What becomes of a request on its way to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarding {
    /// Who answers.
    pub upstream: UpstreamId,
    /// The path that the upstream sees.
    pub rewrite: Rewrite,
    /// Most bytes of a request's content; `None` is no limit, for it is never held in memory.
    pub body_bytes: Option<u64>,
    /// How long the upstream may take for the head of its answer; `None` is the upstream's own setting.
    pub response_timeout: Option<Duration>,
    /// How long nothing may move in content, a stream or a tunnel; `None` is the upstream's own setting.
    pub idle_timeout: Option<Duration>,
    /// Whether the client's token goes on to the upstream.
    pub pass_credentials: bool,
    /// Whether the upstream is told whose request it is.
    pub identity_headers: bool,
    /// What ends with the token.
    pub token_end: TokenEnd,
}

/// The path that an upstream sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// The normalised path of the request.
    Keep,
    /// Without a prefix, which ends at a segment, and with another before it. Either may be empty.
    Strip {
        /// What is taken away.
        prefix: Box<str>,
        /// What is put before the rest.
        add: Box<str>,
    },
    /// This path for every request.
    Replace(Box<str>),
}

/// What of an exchange that is under way ends with its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenEnd {
    /// What has no end of its own: tunnels, event streams, gRPC. When the token is revoked, a transfer too.
    #[default]
    Streams,
    /// Everything, a transfer that is half done too.
    Everything,
    /// Nothing.
    Nothing,
}

/// One `[[routes]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Its id: the label in logs and metrics. No two routes share one.
    pub id: RouteId,
    /// The hosts it answers; empty is every host.
    pub hosts: Vec<HostPattern>,
    /// The paths it answers.
    pub path: Pattern,
    /// The methods it answers; empty is every method.
    pub methods: Vec<String>,
    /// The groups that a token must reach; empty is any valid token but the demo one.
    pub groups: Vec<GroupId>,
    /// Whether it must reach all of them; one is enough otherwise.
    pub all_groups: bool,
    /// What answers.
    pub destination: Destination,
    /// The plan that each account has on it.
    pub plan: Option<PlanId>,
}

impl RouteSettings {
    /// A route of every host and method to a built-in resource, for any valid token but the demo one.
    pub fn new(id: RouteId, path: Pattern, resource: Resource) -> Self {
        let destination = Destination::Resource(resource);
        Self { id, hosts: vec![], path, methods: vec![], groups: vec![], all_groups: false, destination, plan: None }
    }
}

/// The routes of a new installation: a licensed sample beside the Demo group, so that a refusal for want of a licence can
/// be seen.
pub fn default_routes() -> Vec<RouteSettings> {
    let (id, path) = ("sample".parse().expect("a route id"), "/sample/*".parse().expect("a pattern"));
    let groups = vec!["sample".parse().expect("a group id")];
    vec![RouteSettings { groups, ..RouteSettings::new(id, path, Resource::Echo) }]
}
