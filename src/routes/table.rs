//! The route table: every path that is somebody's, and whose it is. What is not in it is secured all the same.

use std::collections::HashMap;

use super::{Resource, RouteSettings};
use crate::groups::demo;
use crate::ids::{GroupId, RouteId};

/// What answers a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The token endpoint.
    Token,
    /// The JWK Set.
    Jwks,
    /// Whether the process lives.
    HealthLive,
    /// Whether it can serve.
    HealthReady,
    /// The developer page.
    Portal,
    /// The Demo group's key and token.
    Demo,
    /// A built-in resource.
    Resource(Resource),
    /// The counters, on the admin listener alone.
    Metrics,
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
}

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its id: the label in logs and metrics.
    pub id: RouteId,
    /// The path, without the `/*` of a prefix.
    pub path: Box<str>,
    /// Whether everything below the path belongs to it too.
    pub is_prefix: bool,
    /// The methods it answers; empty is every method.
    pub methods: Box<[Box<str>]>,
    /// `Allow` (RFC 9110 §10.2.1) of a 405.
    pub allow: Box<str>,
    /// Who may call it.
    pub audience: Audience,
    /// What answers.
    pub target: Target,
    /// Its place among all routes: the index of its counters.
    pub index: usize,
}

impl Route {
    /// Whether it answers `method`. `HEAD` goes with `GET` (RFC 9110 §9.3.2).
    pub fn answers(&self, method: &str) -> bool {
        self.methods.is_empty()
            || self.methods.iter().any(|known| &**known == method || (method == "HEAD" && &**known == "GET"))
    }
}

/// All routes.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
    exact: HashMap<Box<str>, usize>,
    /// Longest first.
    prefixes: Vec<usize>,
}

impl RouteTable {
    /// The built-in routes and the configured ones. The Demo group's are there only when it is open.
    pub fn new(configured: &[RouteSettings], demo_is_open: bool) -> Self {
        let mut table = Self::default();
        let get = ["GET"].as_slice();
        table.add("token", "/token", &["GET", "POST"], Audience::Public, Target::Token);
        table.add("jwks", "/.well-known/jwks.json", get, Audience::Public, Target::Jwks);
        table.add("health-live", "/health/live", get, Audience::Public, Target::HealthLive);
        table.add("health-ready", "/health/ready", get, Audience::Public, Target::HealthReady);
        table.add("portal", "/", get, Audience::Public, Target::Portal);
        table.add("whoami", "/whoami", get, Audience::Token, Target::Resource(Resource::Whoami));
        if demo_is_open {
            let demo = || Audience::AnyOf([demo::group()].into());
            table.add("demo", "/demo", get, Audience::Public, Target::Demo);
            table.add("demo-echo", "/demo/echo", &[], demo(), Target::Resource(Resource::Echo));
            table.add("demo-time", "/demo/time", get, demo(), Target::Resource(Resource::Time));
        }
        for route in configured {
            let methods: Vec<&str> = route.methods.iter().map(String::as_str).collect();
            let audience = match route.groups.as_slice() {
                // The Demo group is not widened by a route that names no group (CONTRACT §4).
                [] => Audience::Licensed,
                groups => Audience::AnyOf(groups.into()),
            };
            table.add(route.id.as_str(), &route.path, &methods, audience, Target::Resource(route.resource));
        }
        table.prefixes.sort_by_key(|index| std::cmp::Reverse(table.routes[*index].path.len()));
        table
    }

    /// The routes of the admin listener.
    pub fn admin() -> Self {
        let mut table = Self::default();
        table.add("admin-health-live", "/health/live", &["GET"], Audience::Public, Target::HealthLive);
        table.add("admin-health-ready", "/health/ready", &["GET"], Audience::Public, Target::HealthReady);
        table.add("admin-metrics", "/metrics", &["GET"], Audience::Public, Target::Metrics);
        table
    }

    fn add(&mut self, id: &str, path: &str, methods: &[&str], audience: Audience, target: Target) {
        let index = self.routes.len();
        let (path, is_prefix) = match path.strip_suffix("/*") {
            Some(prefix) => (prefix, true),
            None => (path, false),
        };
        if is_prefix {
            self.prefixes.push(index);
        }
        self.exact.insert(path.into(), index);
        let mut allow = methods.to_vec();
        if methods.contains(&"GET") && !methods.contains(&"HEAD") {
            allow.push("HEAD");
        }
        self.routes.push(Route {
            id: id.parse().expect("route ids are checked when they are configured"),
            path: path.into(),
            is_prefix,
            methods: methods.iter().map(|method| Box::from(*method)).collect(),
            allow: allow.join(", ").into(),
            audience,
            target,
            index,
        });
    }

    /// The route of a normalised path: an exact one first, else the longest prefix that ends at a segment.
    pub fn find(&self, path: &str) -> Option<&Route> {
        if let Some(index) = self.exact.get(path) {
            return Some(&self.routes[*index]);
        }
        self.prefixes
            .iter()
            .map(|index| &self.routes[*index])
            .find(|route| path.strip_prefix(&*route.path).is_some_and(|rest| rest.starts_with('/')))
    }

    /// All routes, the built-in ones first.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(id: &str, path: &str) -> RouteSettings {
        RouteSettings {
            id: id.parse().unwrap(),
            path: path.into(),
            methods: vec![],
            groups: vec![],
            resource: Resource::Echo,
        }
    }

    #[test]
    fn an_exact_path_wins_then_the_longest_prefix() {
        let table =
            RouteTable::new(&[route("all", "/api/*"), route("v2", "/api/v2/*"), route("one", "/api/v2/x")], true);
        let find = |path: &str| table.find(path).map(|route| route.id.as_str().to_owned());
        assert_eq!(find("/api"), Some("all".into()));
        assert_eq!(find("/api/v1/x"), Some("all".into()));
        assert_eq!(find("/api/v2/x"), Some("one".into()));
        assert_eq!(find("/api/v2/x/y"), Some("v2".into()));
        assert_eq!(find("/api/v22"), Some("all".into()));
        assert_eq!(find("/apiary"), None);
        assert_eq!(find("/demo/other"), None);
        assert_eq!(find("/"), Some("portal".into()));
    }

    #[test]
    fn only_the_short_list_is_public() {
        let table = RouteTable::new(&super::super::default_routes(), true);
        let public: Vec<_> =
            table.routes().iter().filter(|route| route.audience == Audience::Public).map(|r| &*r.path).collect();
        assert_eq!(public, ["/token", "/.well-known/jwks.json", "/health/live", "/health/ready", "/", "/demo"]);
    }

    #[test]
    fn head_goes_with_get() {
        let table = RouteTable::new(&[], true);
        let token = table.find("/token").unwrap();
        assert!(token.answers("HEAD") && token.answers("POST") && !token.answers("PUT"));
        assert_eq!(&*token.allow, "GET, POST, HEAD");
    }
}
