//! Faults that lie between settings: each may be right by itself, and the whole is not.

use std::net::{IpAddr, SocketAddr};

use super::Config;
use super::reader::Reader;
use super::sections::Route;
use crate::credentials::{self, Hasher};

/// Paths that the gateway answers itself (CONTRACT §1, §2, §7), in the form of a route's pattern.
const BUILT_IN: [&str; 7] = ["/", "/token", "/.well-known/*", "/health/*", "/demo/*", "/whoami", "/openapi.json"];

/// Checks all that is not about routes.
pub(super) fn settings(config: &Config, reader: &mut Reader) {
    tls_files(config, reader);
    listeners(config, reader);
    argon2(&config.credentials, reader);
}

fn tls_files(config: &Config, reader: &mut Reader) {
    let pair = [("certificate", config.tls.certificate.is_some()), ("private_key", config.tls.private_key.is_some())];
    for ((given, has), (missing, has_other)) in [(pair[0], pair[1]), (pair[1], pair[0])] {
        let (given, missing) = (format!("tls.{given}"), format!("tls.{missing}"));
        if has && !has_other && reader.is_sound(&missing) {
            reader.object(&given, format!("is given without {missing}"), format!("give {missing} as well, or neither"));
        }
    }
    if config.tls.names.is_empty() && config.tls.certificate.is_none() && reader.is_sound("tls.names") {
        reader.object("tls.names", "is empty", "write the names that clients use, as in names = [\"localhost\"]");
    }
}

fn listeners(config: &Config, reader: &mut Reader) {
    let mut listeners =
        vec![("server.listen", config.server.listen), ("server.admin_listen", config.server.admin_listen)];
    if let Some(proxy) = &config.server.behind_proxy {
        listeners.push(("server.behind_proxy.listen", proxy.listen));
        if proxy.trusted.is_empty() && reader.is_sound("server.behind_proxy.trusted") {
            let remedy = "write the load balancer's networks, as in trusted = [\"10.0.0.0/8\"]";
            reader.object("server.behind_proxy.trusted", "trusts no one, so every request would be refused", remedy);
        }
    }
    for (index, (path, address)) in listeners.iter().enumerate() {
        for (other_path, other) in &listeners[..index] {
            if collide(*address, *other) && reader.is_sound(path) && reader.is_sound(other_path) {
                // The message belongs to the one that was set; a default has no place to point to.
                let (path, address, other_path, other) = match reader.is_given(path) {
                    true => (path, address, other_path, other),
                    false => (other_path, other, path, address),
                };
                let problem = format!("{address} is taken by {other_path} = \"{other}\"");
                reader.object(path, problem, "give each listener an address or port of its own");
            }
        }
    }
}

/// Whether the system would refuse the second of two listeners. `[::]` takes the port of IPv4 addresses as well.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

fn argon2(settings: &credentials::Settings, reader: &mut Reader) {
    let Err(error) = Hasher::new(settings) else { return };
    let (good, now) = (credentials::Settings::default(), settings);
    let repairs = [
        ("memory_kib", credentials::Settings { argon2_memory_kib: good.argon2_memory_kib, ..now.clone() }),
        ("iterations", credentials::Settings { argon2_iterations: good.argon2_iterations, ..now.clone() }),
        ("parallelism", credentials::Settings { argon2_parallelism: good.argon2_parallelism, ..now.clone() }),
    ];
    // The one whose default would mend it is the one to point at; when it takes more than one, memory stands for all.
    let culprit =
        repairs.iter().find(|(_, repaired)| Hasher::new(repaired).is_ok()).map_or("memory_kib", |(key, _)| key);
    let path = format!("credentials.argon2_{culprit}");
    if reader.is_sound(&path) {
        let remedy = format!(
            "the defaults are argon2_memory_kib = {}, argon2_iterations = {}, argon2_parallelism = {}",
            good.argon2_memory_kib, good.argon2_iterations, good.argon2_parallelism
        );
        reader.object(&path, error.to_string(), remedy);
    }
}

/// Checks routes against one another and against the gateway's own paths.
pub(super) fn routes(routes: &[Route], reader: &mut Reader) {
    for (index, route) in routes.iter().enumerate() {
        let earlier = &routes[..index];
        if let Some(id) = &route.id
            && let Some(twin) = earlier.iter().position(|other| other.id.as_ref() == Some(id))
        {
            let problem = format!("{:?} is the id of routes[{twin}] too", id.as_str());
            reader.object(&format!("routes[{index}].id"), problem, "give each route an id of its own");
        }
        repeated_methods(index, route, reader);
        let Some(path) = &route.path else { continue };
        if let Some(own) = BUILT_IN.iter().find(|own| overlap(path, own)) {
            let problem = format!("{path:?} overlaps {own:?}, which the gateway answers itself");
            reader.object(&format!("routes[{index}].path"), problem, "choose another path");
            continue;
        }
        let clash = earlier.iter().position(|other| {
            share_a_method(&route.methods, &other.methods)
                && other.path.as_ref().is_some_and(|other| overlap(path, other))
        });
        if let Some(other) = clash {
            let twin = routes[other].path.as_deref().unwrap_or_default();
            let problem = match twin == path {
                true => format!("{path:?} is the path of routes[{other}] too, for the same methods"),
                false => format!("{path:?} overlaps {twin:?} of routes[{other}], for the same methods"),
            };
            let remedy = "a request must have one route: change a path, or give each its own methods";
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

/// Whether a path can match both patterns. Two rules for one path would make its guard depend on their order, so this is
/// refused, even where one is more specific.
fn overlap(a: &str, b: &str) -> bool {
    let parts = |pattern: &str| match pattern.strip_suffix("/*") {
        Some(stem) => (stem.to_owned(), true),
        None => (pattern.to_owned(), false),
    };
    let ((a, a_below), (b, b_below)) = (parts(a), parts(b));
    let within = |path: &str, stem: &str| path.strip_prefix(stem).is_some_and(|rest| rest.starts_with('/'));
    a == b || (a_below && within(&b, &a)) || (b_below && within(&a, &b))
}

fn share_a_method(a: &[String], b: &[String]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|method| b.contains(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_when_a_path_can_match_both() {
        for (a, b) in [
            ("/a", "/a"),
            ("/a/*", "/a"),
            ("/a/*", "/a/b"),
            ("/a/*", "/a/b/*"),
            ("/*", "/x"),
            ("/*", "/"),
            ("/*", "/a/*"),
        ] {
            assert!(overlap(a, b) && overlap(b, a), "{a} {b}");
        }
        for (a, b) in [
            ("/a", "/b"),
            ("/a/*", "/ab"),
            ("/a", "/a/b"),
            ("/a/*", "/b/*"),
            ("/token", "/tokens"),
            ("/demo/*", "/demos"),
        ] {
            assert!(!overlap(a, b) && !overlap(b, a), "{a} {b}");
        }
    }

    #[test]
    fn listeners_collide_on_the_same_port_of_the_same_or_of_every_address() {
        let collide = |a: &str, b: &str| collide(a.parse().unwrap(), b.parse().unwrap());
        assert!(collide("127.0.0.1:8443", "127.0.0.1:8443"));
        assert!(collide("0.0.0.0:8443", "127.0.0.1:8443"));
        assert!(collide("127.0.0.1:8443", "[::]:8443"));
        assert!(!collide("0.0.0.0:8443", "[::1]:8443"));
        assert!(!collide("127.0.0.1:8443", "127.0.0.2:8443"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0"), "port 0 is a free port, another one each time");
    }
}
