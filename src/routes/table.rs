//! The route table: every path that is somebody's, and whose it is. What is not in it is secured all the same.
//!
//! Which of several routes answers a request is decided in this order, whatever order they are written in:
//!
//! 1. The gateway's own paths, on every host.
//! 2. The host: a route that names it, then one with the longest `*.` name that fits, then one of every host.
//! 3. The path: segment by segment, a literal before a parameter before all below. A slash at its end does not count.
//! 4. The method, among routes of the same host and pattern. It is no reason to look on: where the most specific pattern
//!    does not have it, the answer is 405.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::contract::Contract;
use super::path::Ambiguous;
use super::pattern::Pattern;
use super::tree::{Leaf, Slash, Tree};
use super::{Destination, Forwarding, HostPattern, Resource, RouteSettings};
use crate::groups::demo;
use crate::ids::{GroupId, PlanId, RouteId};

/// What answers a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The token endpoint.
    Token,
    /// The JWK Set.
    Jwks,
    /// The introspection endpoint.
    Introspection,
    /// The revocation endpoint.
    Revocation,
    /// Metadata of the authorization server or of the guarded resource.
    Metadata,
    /// Whether the process lives.
    HealthLive,
    /// Whether it can serve.
    HealthReady,
    /// The developer page.
    Portal,
    /// The OpenAPI document.
    OpenApi,
    /// That of the admin listener.
    AdminOpenApi,
    /// The Demo group's key and token.
    Demo,
    /// A built-in resource.
    Resource(Resource),
    /// A key's holder rolls it.
    RollKey,
    /// The counters, on the admin listener alone.
    Metrics,
    /// An upstream: see [`Route::forwarding`].
    Upstream,
    /// The decision for another proxy.
    ForwardAuth(Contract),
    /// The same by gRPC.
    Check,
    /// Another proxy, which asks by forward-auth.
    External,
    /// The usage of whose token it is.
    MyUsage,
}

/// Who may call a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Anyone.
    Public,
    /// Whoever has a valid token.
    Token,
    /// Whoever has a valid token that is not the published demo one.
    Licensed,
    /// Whoever has a token for one of these groups.
    AnyOf(Box<[GroupId]>),
    /// Whoever has a token for each of these groups.
    AllOf(Box<[GroupId]>),
}

impl Audience {
    /// The groups it asks for.
    pub fn groups(&self) -> &[GroupId] {
        match self {
            Self::AnyOf(groups) | Self::AllOf(groups) => groups,
            Self::Public | Self::Token | Self::Licensed => &[],
        }
    }
}

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its id: the label in logs and metrics.
    pub id: RouteId,
    /// The hosts it answers; empty is every host.
    pub hosts: Box<[HostPattern]>,
    /// The paths it answers.
    pub path: Pattern,
    /// The methods it answers; empty is every method.
    pub methods: Box<[Box<str>]>,
    /// `Allow` (RFC 9110 §10.2.1) of a 405: the methods of all routes that share its host and pattern.
    pub allow: Box<str>,
    /// Who may call it.
    pub audience: Audience,
    /// What answers.
    pub target: Target,
    /// What becomes of a request on its way, where an upstream answers.
    pub forwarding: Option<Arc<Forwarding>>,
    /// The plan that each account has on it.
    pub plan: Option<PlanId>,
    /// Its place among all routes: the index of its counters.
    pub index: usize,
}

impl Route {
    /// Whether plans count what is asked of it. The gateway's own doors are not charged: who has used up a quota can still see
    /// that there.
    pub fn is_charged(&self) -> bool {
        matches!(self.target, Target::Upstream | Target::External | Target::Resource(_))
            && !matches!(self.audience, Audience::Public | Audience::Token)
    }

    /// Whether it answers `method`. `HEAD` goes with `GET` (RFC 9110 §9.3.2).
    pub fn answers(&self, method: &str) -> bool {
        self.methods.is_empty()
            || self.methods.iter().any(|known| &**known == method || (method == "HEAD" && &**known == "GET"))
    }
}

/// Which of the gateway's own paths there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIns {
    /// Those of the Demo group.
    pub demo: bool,
    /// Those where other proxies ask.
    pub forward_auth: bool,
}

/// All routes.
#[derive(Debug, Default)]
pub struct RouteTable {
    serial: u64,
    routes: Vec<Route>,
    built_in: Tree,
    of_hosts: HashMap<Box<str>, Tree>,
    /// By `.example.com`, the longest first.
    of_suffixes: Vec<(Box<str>, Tree)>,
    of_every_host: Tree,
    has_askers: bool,
    allows_parameters: bool,
}

impl RouteTable {
    /// The built-in routes and the configured ones.
    pub fn new(configured: &[RouteSettings], built_ins: BuiltIns) -> Self {
        let mut table = Self::default();
        let get = ["GET"].as_slice();
        table.own("token", "/token", &["GET", "POST"], Audience::Public, Target::Token);
        table.own("jwks", "/.well-known/jwks.json", get, Audience::Public, Target::Jwks);
        // Whoever calls these two proves at the door who it is, and by more than a token.
        table.own("introspect", "/introspect", &["POST"], Audience::Public, Target::Introspection);
        table.own("revoke", "/revoke", &["POST"], Audience::Public, Target::Revocation);
        for (id, path) in [
            ("server-metadata", "/.well-known/oauth-authorization-server/*"),
            ("resource-metadata", "/.well-known/oauth-protected-resource/*"),
        ] {
            table.own(id, path, get, Audience::Public, Target::Metadata);
        }
        table.own("health-live", "/health/live", get, Audience::Public, Target::HealthLive);
        table.own("health-ready", "/health/ready", get, Audience::Public, Target::HealthReady);
        table.own("portal", "/", get, Audience::Public, Target::Portal);
        table.own("openapi", "/openapi.json", get, Audience::Public, Target::OpenApi);
        table.own("whoami", "/whoami", get, Audience::Token, Target::Resource(Resource::Whoami));
        // What is a caller's own. The published demo token is nobody's.
        table.own("me-usage", "/me/usage", get, Audience::Licensed, Target::MyUsage);
        table.own("roll-key", "/me/keys/{id}/roll", &["POST"], Audience::Licensed, Target::RollKey);
        if built_ins.demo {
            let demo = || Audience::AnyOf([demo::group()].into());
            table.own("demo", "/demo", get, Audience::Public, Target::Demo);
            table.own("demo-echo", "/demo/echo", &[], demo(), Target::Resource(Resource::Echo));
            table.own("demo-time", "/demo/time", get, demo(), Target::Resource(Resource::Time));
        }
        if built_ins.forward_auth {
            table.askers();
        }
        for route in configured {
            table.configured(route);
        }
        table.finished()
    }

    /// The routes of the admin listener.
    pub fn admin() -> Self {
        let mut table = Self::default();
        table.own("admin-health-live", "/health/live", &["GET"], Audience::Public, Target::HealthLive);
        table.own("admin-health-ready", "/health/ready", &["GET"], Audience::Public, Target::HealthReady);
        table.own("admin-metrics", "/metrics", &["GET"], Audience::Public, Target::Metrics);
        table.own("admin-openapi", "/openapi.json", &["GET"], Audience::Public, Target::AdminOpenApi);
        table.finished()
    }

    /// The paths where other proxies ask. They are public as such: the door behind them decides, about another request.
    fn askers(&mut self) {
        self.has_askers = true;
        for contract in Contract::ALL {
            let path = format!("{}/*", contract.path());
            self.own(contract.id(), &path, &[], Audience::Public, Target::ForwardAuth(contract));
        }
        self.own("authz-grpc", "/envoy.service.auth.v3.Authorization/*", &[], Audience::Public, Target::Check);
    }

    /// Adds one of the gateway's own routes.
    fn own(&mut self, id: &str, path: &str, methods: &[&str], audience: Audience, target: Target) {
        let index = self.routes.len();
        let path: Pattern = path.parse().expect("our own patterns are good");
        self.built_in.leaf(&path).push(index);
        self.routes.push(Route {
            id: id.parse().expect("our own ids are good"),
            hosts: [].into(),
            path,
            methods: methods.iter().map(|method| Box::from(*method)).collect(),
            allow: Box::default(),
            audience,
            target,
            forwarding: None,
            plan: None,
            index,
        });
    }

    /// Adds a configured route.
    fn configured(&mut self, settings: &RouteSettings) {
        let index = self.routes.len();
        let RouteSettings { id, hosts, path, methods, groups, all_groups, destination, plan } = settings;
        let audience = match (groups.as_slice(), all_groups) {
            // The Demo group is not widened by a route that names no group (CONTRACT §4).
            ([], _) => Audience::Licensed,
            (groups, true) => Audience::AllOf(groups.into()),
            (groups, false) => Audience::AnyOf(groups.into()),
        };
        let (target, forwarding) = match destination {
            Destination::Resource(resource) => (Target::Resource(*resource), None),
            Destination::Upstream(forwarding) => (Target::Upstream, Some(Arc::clone(forwarding))),
            Destination::External => (Target::External, None),
        };
        for host in hosts {
            self.tree_of(host).leaf(path).push(index);
        }
        if hosts.is_empty() {
            self.of_every_host.leaf(path).push(index);
        }
        self.routes.push(Route {
            id: id.clone(),
            hosts: hosts.as_slice().into(),
            path: path.clone(),
            methods: methods.iter().map(|method| method.as_str().into()).collect(),
            allow: Box::default(),
            audience,
            target,
            forwarding,
            plan: plan.clone(),
            index,
        });
    }

    fn tree_of(&mut self, host: &HostPattern) -> &mut Tree {
        let Some(suffix) = host.suffix() else {
            return self.of_hosts.entry(host.as_str().into()).or_default();
        };
        let at = match self.of_suffixes.iter().position(|(known, _)| **known == *suffix) {
            Some(at) => at,
            None => {
                let at = self.of_suffixes.partition_point(|(known, _)| known.len() >= suffix.len());
                self.of_suffixes.insert(at, (suffix.into(), Tree::default()));
                at
            }
        };
        &mut self.of_suffixes[at].1
    }

    /// Says for every route what a 405 allows: what all routes of its pattern have, on any of its hosts.
    fn finished(mut self) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        self.serial = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let mut siblings: HashMap<String, Vec<usize>> = HashMap::new();
        for route in &self.routes {
            siblings.entry(route.path.shape()).or_default().push(route.index);
        }
        for index in 0..self.routes.len() {
            let route = &self.routes[index];
            let shares_a_host = |other: &&usize| {
                let hosts = &self.routes[**other].hosts;
                hosts == &route.hosts || hosts.iter().any(|host| route.hosts.contains(host))
            };
            let of_pattern = siblings.get(&route.path.shape()).map_or(&[][..], Vec::as_slice);
            let mut allow: Vec<&str> = Vec::new();
            for method in of_pattern.iter().filter(shares_a_host).flat_map(|other| &self.routes[*other].methods) {
                if !allow.contains(&&**method) {
                    allow.push(method);
                }
            }
            if allow.contains(&"GET") && !allow.contains(&"HEAD") {
                allow.push("HEAD");
            }
            self.routes[index].allow = allow.join(", ").into();
        }
        self
    }

    /// Its number, from 1 on, which no other table of this process ever has.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Lets paths have a `;`.
    pub fn with_parameters(mut self, allowed: bool) -> Self {
        self.allows_parameters = allowed;
        self
    }

    /// Whether a normalised path is looked for at all.
    ///
    /// # Errors
    /// [`Ambiguous::Parameter`].
    pub fn admits(&self, path: &str) -> Result<(), Ambiguous> {
        if !self.allows_parameters && path.contains(';') { Err(Ambiguous::Parameter) } else { Ok(()) }
    }

    /// The route of a request: see the module. `host` and `path` are in their one spelling
    /// ([`of_authority`](super::host::of_authority), [`normalise`](super::normalise)). Where a pattern matches and has not
    /// the method, one of its routes all the same: [`Route::answers`] says so.
    pub fn find(&self, host: &str, path: &str, method: &str) -> Option<&Route> {
        match self.built_in.find(path, Slash::Counts) {
            Some(leaf) => Some(self.one_of(leaf, method)),
            None => self.find_configured(host, path, method),
        }
    }

    /// The same among the configured routes alone.
    pub fn find_configured(&self, host: &str, path: &str, method: &str) -> Option<&Route> {
        let of_host = self.of_hosts.get(host).and_then(|tree| tree.find(path, Slash::Ignored));
        let of_suffix = || {
            let fitting =
                self.of_suffixes.iter().filter(|(suffix, _)| host.len() > suffix.len() && host.ends_with(&**suffix));
            fitting.into_iter().find_map(|(_, tree)| tree.find(path, Slash::Ignored))
        };
        let leaf = of_host.or_else(of_suffix).or_else(|| self.of_every_host.find(path, Slash::Ignored))?;
        Some(self.one_of(leaf, method))
    }

    fn one_of(&self, leaf: &Leaf, method: &str) -> &Route {
        let mut routes = leaf.iter().map(|index| &self.routes[*index]);
        let first = &self.routes[leaf[0]];
        if leaf.len() == 1 {
            return first;
        }
        // A route that names HEAD goes before one that has it because it has GET.
        let named = routes.clone().find(|route| route.methods.iter().any(|known| **known == *method));
        named.or_else(|| routes.find(|route| route.answers(method))).unwrap_or(first)
    }

    /// Whether other proxies may ask here.
    pub fn has_askers(&self) -> bool {
        self.has_askers
    }

    /// All routes, the built-in ones first.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

#[cfg(test)]
mod tests {
    use super::super::default_routes;
    use super::*;

    const OPEN: BuiltIns = BuiltIns { demo: true, forward_auth: true };

    fn route(id: &str, path: &str) -> RouteSettings {
        RouteSettings::new(id.parse().unwrap(), path.parse().unwrap(), Resource::Echo)
    }

    fn at(hosts: &[&str], route: RouteSettings) -> RouteSettings {
        RouteSettings { hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(), ..route }
    }

    fn by(methods: &[&str], route: RouteSettings) -> RouteSettings {
        RouteSettings { methods: methods.iter().map(|method| (*method).to_owned()).collect(), ..route }
    }

    #[test]
    fn the_most_specific_path_wins_and_ours_before_all() {
        let routes = [route("all", "/api/*"), route("v2", "/api/v2/*"), route("one", "/api/v2/x"), route("rest", "/*")];
        let table = RouteTable::new(&routes, OPEN);
        let find = |path: &str| table.find("any", path, "GET").map(|route| route.id.as_str().to_owned()).unwrap();
        for (path, id) in [
            ("/api", "all"),
            ("/api/v1/x", "all"),
            ("/api/v2/x", "one"),
            ("/api/v2/x/y", "v2"),
            ("/api/v22", "all"),
            ("/apiary", "rest"),
            ("/demo/other", "rest"),
            ("/", "portal"),
            ("/token", "token"),
            ("/token/x", "rest"),
            ("/authz/ext-authz/orders/1", "authz-ext-authz"),
            ("/authz", "rest"),
        ] {
            assert_eq!(find(path), id, "{path}");
        }
        assert!(RouteTable::new(&[], OPEN).find("any", "/demo/other", "GET").is_none());
        let closed = RouteTable::new(&[], BuiltIns { demo: false, forward_auth: false });
        assert!(closed.find("any", "/demo", "GET").is_none() && closed.find("any", "/authz/haproxy", "GET").is_none());
    }

    #[test]
    fn a_named_host_wins_over_a_wildcard_over_every_host() {
        let table = RouteTable::new(
            &[
                route("every", "/a/*"),
                at(&["*.example.com"], route("wild", "/a/*")),
                at(&["*.eu.example.com"], route("wilder", "/a/*")),
                at(&["api.example.com", "[::1]"], route("named", "/a/b")),
            ],
            OPEN,
        );
        let find = |host: &str, path: &str| table.find(host, path, "GET").map(|route| route.id.as_str().to_owned());
        for (host, path, id) in [
            ("api.example.com", "/a/b", "named"),
            ("[::1]", "/a/b", "named"),
            ("api.example.com", "/a/c", "wild"),
            ("x.eu.example.com", "/a/b", "wilder"),
            ("example.com", "/a/b", "every"),
            ("badexample.com", "/a/b", "every"),
            ("", "/a/b", "every"),
        ] {
            assert_eq!(find(host, path), Some(id.into()), "{host}{path}");
        }
        assert_eq!(find("api.example.com", "/token"), Some("token".into()), "ours on every host");
        assert_eq!(table.find_configured("api.example.com", "/token", "GET").map(|route| &route.id), None);
    }

    #[test]
    fn routes_of_one_pattern_are_told_apart_by_their_methods() {
        let routes =
            [by(&["GET"], route("read", "/a")), by(&["PUT", "DELETE"], route("write", "/a")), route("below", "/a/*")];
        let table = RouteTable::new(&routes, OPEN);
        let find = |method: &str| table.find("", "/a", method).unwrap();
        assert_eq!(find("GET").id.as_str(), "read");
        assert_eq!(find("HEAD").id.as_str(), "read");
        assert_eq!(find("DELETE").id.as_str(), "write");
        let other = find("POST");
        assert!(!other.answers("POST"), "no less specific pattern is looked for");
        assert_eq!(&*other.allow, "GET, PUT, DELETE, HEAD");
        assert_eq!(table.find("", "/a/x", "POST").unwrap().id.as_str(), "below");
    }

    #[test]
    fn a_route_that_names_head_has_it() {
        for order in [[0, 1], [1, 0]] {
            let routes = [by(&["GET"], route("get", "/a")), by(&["HEAD"], route("head", "/a"))];
            let table = RouteTable::new(&order.map(|at: usize| routes[at].clone()), OPEN);
            assert_eq!(table.find("", "/a", "HEAD").unwrap().id.as_str(), "head");
            assert_eq!(table.find("", "/a", "GET").unwrap().id.as_str(), "get");
        }
    }

    #[test]
    fn only_the_short_list_is_public() {
        let table = RouteTable::new(&default_routes(), BuiltIns { demo: true, forward_auth: false });
        let public: Vec<_> =
            table.routes().iter().filter(|r| r.audience == Audience::Public).map(|r| r.path.to_string()).collect();
        let expected = [
            "/token",
            "/.well-known/jwks.json",
            "/introspect",
            "/revoke",
            "/.well-known/oauth-authorization-server/*",
            "/.well-known/oauth-protected-resource/*",
            "/health/live",
            "/health/ready",
            "/",
            "/openapi.json",
            "/demo",
        ];
        assert_eq!(public, expected);
    }

    #[test]
    fn a_path_has_a_semicolon_only_where_that_is_allowed() {
        let table = RouteTable::new(&[], OPEN);
        assert_eq!(table.admits("/open/..;/closed"), Err(Ambiguous::Parameter));
        assert_eq!(table.admits("/a%3Bb"), Ok(()));
        assert_eq!(table.with_parameters(true).admits("/a;v=1/b"), Ok(()));
    }

    #[test]
    fn head_goes_with_get() {
        let table = RouteTable::new(&[], OPEN);
        let token = table.find("", "/token", "GET").unwrap();
        assert!(token.answers("HEAD") && token.answers("POST") && !token.answers("PUT"));
        assert_eq!(&*token.allow, "GET, POST, HEAD");
    }
}
