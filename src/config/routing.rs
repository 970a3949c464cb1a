//! The sections of what is guarded: routes, and who is asked about them.

use std::sync::Arc;
use std::time::Duration;

use super::domain::{host_pattern, method, network, pattern, plain_path};
use super::reader::Section;
use super::values::{Given, HOUR, Read, address, boolean, duration, one_of, parsed, path, size};
use crate::forward_auth;
use crate::ids::{GroupId, PlanId, RouteId, UpstreamId};
use crate::routes::{Destination, Forwarding, HostPattern, Pattern, Resource, Rewrite, RouteSettings, TokenEnd};

/// A route as far as it could be read, so that what is sound in it can still be compared with the others.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub id: Option<RouteId>,
    pub hosts: Vec<HostPattern>,
    pub path: Option<Pattern>,
    pub methods: Vec<String>,
    pub upstream: Option<UpstreamId>,
    pub strip_prefix: Option<String>,
    pub plan: Option<PlanId>,
    groups: Vec<GroupId>,
    all_groups: bool,
    resource: Option<Resource>,
    forward_auth: bool,
    add_prefix: Option<String>,
    replace_path: Option<String>,
    body_bytes: Option<usize>,
    response_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    pass_credentials: bool,
    identity_headers: bool,
    token_end: TokenEnd,
}

/// What answers, in the order in which it is asked for.
const DESTINATIONS: [&str; 3] = ["resource", "upstream", "forward_auth"];

/// What is of use with an upstream alone.
const OF_UPSTREAMS: [&str; 9] = [
    "strip_prefix",
    "add_prefix",
    "replace_path",
    "body_bytes",
    "response_timeout",
    "idle_timeout",
    "pass_credentials",
    "identity_headers",
    "token_end",
];

pub(super) fn read_route(section: &mut Section) -> Route {
    const RESOURCES: &[(&str, Resource)] =
        &[("echo", Resource::Echo), ("time", Resource::Time), ("whoami", Resource::Whoami)];
    const MATCHES: &[(&str, bool)] = &[("any", false), ("all", true)];
    const ENDS: &[(&str, TokenEnd)] =
        &[("streams", TokenEnd::Streams), ("everything", TokenEnd::Everything), ("nothing", TokenEnd::Nothing)];
    let mut route = Route { identity_headers: true, ..Route::default() };
    section.read_some("id", &mut route.id, parsed("a route id", "\"orders\""));
    section.list("hosts", &mut route.hosts, host_pattern);
    section.read_some("path", &mut route.path, pattern);
    section.list("methods", &mut route.methods, method);
    section.list("groups", &mut route.groups, parsed("a group", "[\"orders\"]"));
    section.read("groups_match", &mut route.all_groups, one_of(MATCHES, "\"any\""));
    section.read_some("plan", &mut route.plan, parsed("a plan's id", "\"pro\""));
    section.read_some("resource", &mut route.resource, one_of(RESOURCES, "\"echo\""));
    section.read_some("upstream", &mut route.upstream, parsed("an upstream id", "\"orders\""));
    section.read("forward_auth", &mut route.forward_auth, boolean);
    section.read_some("strip_prefix", &mut route.strip_prefix, plain_path);
    section.read_some("add_prefix", &mut route.add_prefix, plain_path);
    section.read_some("replace_path", &mut route.replace_path, plain_path);
    section.read_some("body_bytes", &mut route.body_bytes, size(0..=1 << 50, "\"10MiB\""));
    section.read_some("response_timeout", &mut route.response_timeout, upstream_timeout("\"60s\""));
    section.read_some("idle_timeout", &mut route.idle_timeout, upstream_timeout("\"60s\""));
    section.read("pass_credentials", &mut route.pass_credentials, boolean);
    section.read("identity_headers", &mut route.identity_headers, boolean);
    section.read("token_end", &mut route.token_end, one_of(ENDS, "\"streams\""));
    section.require("id", "give it a name, as in id = \"orders\"");
    section.require("path", "write what it answers, as in path = \"/orders/*\"");
    // Left out by oversight it would open the route to every customer, so openness must be written down.
    section.require(
        "groups",
        "write the groups that may call it, or groups = [] for any valid token but the public demo one",
    );
    one_destination(section, &route);
    route
}

/// Exactly one thing answers, and what is written besides must be of use for it.
fn one_destination(section: &mut Section, route: &Route) {
    let given: Vec<&str> = DESTINATIONS.into_iter().filter(|key| section.has(key)).collect();
    match given.as_slice() {
        [] => section.object(
            "resource",
            "is not given",
            "write what answers: upstream = \"…\" of an [[upstreams]], resource = \"echo\", \"time\" or \"whoami\", or \
             forward_auth = true where another proxy answers",
        ),
        [_] => {}
        [first, second, ..] => {
            section.object(
                second,
                format!("is given beside {first}"),
                "a route has one that answers: remove the other",
            );
        }
    }
    if section.has("forward_auth") && !route.forward_auth {
        section.object("forward_auth", "is false", "write true, or leave it out and write what answers");
    }
    if !section.has("upstream") {
        for key in OF_UPSTREAMS.into_iter().filter(|key| section.has(key)).collect::<Vec<_>>() {
            section.object(key, "has no meaning without an upstream", "remove it, or write upstream = \"…\"");
        }
    }
    if section.has("replace_path") {
        for key in ["strip_prefix", "add_prefix"].into_iter().filter(|key| section.has(key)).collect::<Vec<_>>() {
            section.object(key, "is given beside replace_path", "replace_path is the whole path: remove one of them");
        }
    }
}

/// A timeout towards an upstream. No limit at all would let one that hangs hold a client for ever.
pub(super) fn upstream_timeout(example: &'static str) -> impl Fn(Given) -> Read<Duration> {
    duration(Duration::from_millis(10)..=24 * HOUR, example)
}

/// The whole routes among `routes`; all of them, when the reading had no fault.
pub(super) fn settled(routes: Vec<Route>) -> Vec<RouteSettings> {
    routes.into_iter().filter_map(settle).collect()
}

fn settle(route: Route) -> Option<RouteSettings> {
    let destination = match (route.resource, route.upstream, route.forward_auth) {
        (Some(resource), _, _) => Destination::Resource(resource),
        (None, Some(upstream), _) => {
            let rewrite = match (route.replace_path, route.strip_prefix, route.add_prefix) {
                (Some(path), _, _) => Rewrite::Replace(path.into()),
                (None, None, None) => Rewrite::Keep,
                (None, prefix, add) => Rewrite::Strip { prefix: stem(prefix), add: stem(add) },
            };
            Destination::Upstream(Arc::new(Forwarding {
                upstream,
                rewrite,
                body_bytes: route.body_bytes.map(|bytes| bytes as u64),
                response_timeout: route.response_timeout,
                idle_timeout: route.idle_timeout,
                pass_credentials: route.pass_credentials,
                identity_headers: route.identity_headers,
                token_end: route.token_end,
            }))
        }
        (None, None, true) => Destination::External,
        (None, None, false) => return None,
    };
    let Route { hosts, methods, groups, all_groups, plan, .. } = route;
    Some(RouteSettings { id: route.id?, hosts, path: route.path?, methods, groups, all_groups, destination, plan })
}

/// A prefix; the root is none.
fn stem(prefix: Option<String>) -> Box<str> {
    prefix.filter(|prefix| prefix != "/").unwrap_or_default().into()
}

pub(super) fn read_forward_auth(section: &mut Section, into: &mut Option<forward_auth::Settings>) {
    let mut settings = forward_auth::Settings::default();
    let forward_auth::Settings { trusted, unix_socket, grpc_listen } = &mut settings;
    section.list("trusted", trusted, network);
    section.read_some("unix_socket", unix_socket, path("\"/run/keybearer/authz.sock\""));
    section.read_some("grpc_listen", grpc_listen, address("\"127.0.0.1:8445\""));
    if section.is_given() {
        *into = Some(settings);
    }
}
