//! Faults that lie between routes: two for one request, one that no request reaches, one that leads nowhere.

use std::collections::HashMap;

use super::reader::Reader;
use super::routing::Route;
use crate::ids::{RouteId, UpstreamId};
use crate::routes::{HostPattern, Pattern};

/// Paths that the gateway answers itself (CONTRACT §1, §2, §7), on every host and before all routes.
const BUILT_IN: [&str; 12] = [
    "/",
    "/token",
    "/introspect",
    "/revoke",
    "/.well-known/*",
    "/health/*",
    "/demo/*",
    "/whoami",
    "/me/*",
    "/openapi.json",
    "/authz/*",
    "/envoy.service.auth.v3.Authorization/*",
];

/// Checks routes against one another, against the gateway's own paths and against the upstreams there are.
pub(super) fn routes(routes: &[Route], upstreams: &[UpstreamId], reader: &mut Reader) {
    let built_in: Vec<Pattern> = BUILT_IN.iter().filter_map(|own| own.parse().ok()).collect();
    let mut by_id: HashMap<&RouteId, usize> = HashMap::new();
    // By host and shape of the path; every host is a host of its own here, since named ones go before it.
    let mut by_place: HashMap<(Option<&HostPattern>, String), Vec<usize>> = HashMap::new();
    for (index, route) in routes.iter().enumerate() {
        if let Some(id) = &route.id
            && let Some(twin) = by_id.get(id)
        {
            let problem = format!("{:?} is the id of routes[{twin}] too", id.as_str());
            reader.object(&format!("routes[{index}].id"), problem, "give each route an id of its own");
        }
        if let Some(id) = &route.id {
            by_id.entry(id).or_insert(index);
        }
        repeated_methods(index, route, reader);
        repeated_hosts(index, route, reader);
        leads_somewhere(index, route, upstreams, reader);
        let Some(path) = &route.path else { continue };
        stripped(index, path, route, reader);
        if let Some(own) = built_in.iter().find(|own| own.covers(path)) {
            let problem = format!("\"{path}\" is within \"{own}\", which the gateway answers itself");
            reader.object(&format!("routes[{index}].path"), problem, "choose another path: no request would come here");
            continue;
        }
        let hosts = if route.hosts.is_empty() { vec![None] } else { route.hosts.iter().map(Some).collect() };
        let mut clash: Option<usize> = None;
        for host in hosts {
            let neighbours = by_place.entry((host, path.shape())).or_default();
            let twin = neighbours.iter().find(|other| share_a_method(&route.methods, &routes[**other].methods));
            clash = clash.into_iter().chain(twin.copied()).min();
            neighbours.push(index);
        }
        if let (Some(other), true) =
            (clash.filter(|other| *other != index), reader.is_sound(&format!("routes[{index}].hosts")))
        {
            let problem = format!("\"{path}\" is the path of routes[{other}] too, for the same hosts and methods");
            let remedy = "a request must have one route: change a path, or give each its own hosts or methods";
            reader.object(&format!("routes[{index}].path"), problem, remedy);
        }
    }
}

fn repeated_methods(index: usize, route: &Route, reader: &mut Reader) {
    for (at, method) in route.methods.iter().enumerate() {
        if route.methods[..at].contains(method) {
            reader.object(&format!("routes[{index}].methods"), format!("{method:?} is in it twice"), "write it once");
        }
    }
}

fn repeated_hosts(index: usize, route: &Route, reader: &mut Reader) {
    for (at, host) in route.hosts.iter().enumerate() {
        if route.hosts[..at].contains(host) {
            reader.object(&format!("routes[{index}].hosts"), format!("\"{host}\" is in it twice"), "write it once");
        }
    }
    let path = format!("routes[{index}].hosts");
    if route.hosts.is_empty() && reader.is_given(&path) && reader.is_sound(&path) {
        reader.object(&path, "is empty", "write the hosts, or leave it out for every host");
    }
}

fn leads_somewhere(index: usize, route: &Route, upstreams: &[UpstreamId], reader: &mut Reader) {
    let Some(upstream) = &route.upstream else { return };
    if !upstreams.contains(upstream) {
        let close = super::suggest::closest(upstream.as_str(), upstreams.iter().map(UpstreamId::as_str));
        let remedy = match close {
            Some(close) => format!("did you mean {close:?}?"),
            None => format!("write [[upstreams]] with id = {:?} and its targets", upstream.as_str()),
        };
        reader.object(&format!("routes[{index}].upstream"), format!("there is no upstream \"{upstream}\""), remedy);
    }
}

/// What is stripped must be there in every request: a route that matches more would have paths that cannot be rewritten.
fn stripped(index: usize, path: &Pattern, route: &Route, reader: &mut Reader) {
    let Some(prefix) = route.strip_prefix.as_deref() else { return };
    let literal = path.literal_prefix();
    let is_within =
        prefix == "/" || literal.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !is_within {
        let problem = format!("{prefix:?} is not what every path of \"{path}\" begins with");
        let remedy = match literal.as_str() {
            "" => "leave it out: these paths have nothing in common".to_owned(),
            literal => format!("write {literal:?}, or a part of it that ends before a '/'"),
        };
        reader.object(&format!("routes[{index}].strip_prefix"), problem, remedy);
    }
}

fn share_a_method(a: &[String], b: &[String]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|method| b.contains(method))
}
