//! The example configurations of other proxies (`config/examples`), filled in with an installation's values.
//!
//! Owns which values each file has and how each is spelled in it; knows nothing of what the files otherwise say. A file
//! holds literal defaults, so that it works as it is and so that a reader sees what a value looks like.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::ValueEnum;

/// A file of `config/examples`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Example {
    /// nginx, for its conf.d folder
    Nginx,
    /// Caddy: a Caddyfile
    Caddy,
    /// HAProxy; it needs haproxy-lua beside it
    Haproxy,
    /// The Lua script by which HAProxy asks
    HaproxyLua,
    /// Envoy, which asks over HTTP
    Envoy,
    /// Envoy, which asks over gRPC
    EnvoyGrpc,
    /// Traefik: the static configuration; it needs traefik-dynamic beside it
    Traefik,
    /// Traefik: the dynamic configuration
    TraefikDynamic,
}

/// What a file is filled in with. The default is what the files hold as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    /// Where a proxy reaches Keybearer's HTTPS listener.
    pub keybearer: SocketAddr,
    /// A DNS name in Keybearer's certificate.
    pub name: String,
    /// A PEM file with the authority of that certificate.
    pub authority: PathBuf,
    /// Where Envoy reaches the gRPC listener.
    pub grpc: SocketAddr,
    /// The Unix socket.
    pub unix_socket: PathBuf,
    /// The API behind the proxy.
    pub api: SocketAddr,
    /// The port that the proxy serves clients on.
    pub port: u16,
    /// The proxy's own certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM. HAProxy looks for it beside the certificate, by the same name and `.key`.
    pub private_key: PathBuf,
    /// Where HAProxy finds the Lua script.
    pub script: PathBuf,
    /// Where Traefik finds its dynamic configuration.
    pub dynamic: PathBuf,
}

impl Default for Values {
    fn default() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            keybearer: local(8443),
            name: "localhost".into(),
            authority: "data/tls/ca.pem".into(),
            grpc: local(8445),
            unix_socket: "/run/keybearer/authz.sock".into(),
            api: local(9000),
            port: 9443,
            certificate: "tls/proxy.crt".into(),
            private_key: "tls/proxy.key".into(),
            script: "haproxy/keybearer.lua".into(),
            dynamic: "traefik/dynamic.yaml".into(),
        }
    }
}

/// How a value is spelled in a file.
type Spelling = fn(&Values) -> String;

const ADDRESS: Spelling = |values| values.keybearer.to_string();
const NAME: Spelling = |values| values.name.clone();
const URL: Spelling = |values| format!("https://{}:{}", values.name, values.keybearer.port());
const AUTHORITY: Spelling = |values| values.authority.display().to_string();
const SOCKET: Spelling = |values| values.unix_socket.display().to_string();
const API: Spelling = |values| values.api.to_string();
const PORT: Spelling = |values| values.port.to_string();
const CERTIFICATE: Spelling = |values| values.certificate.display().to_string();
const PRIVATE_KEY: Spelling = |values| values.private_key.display().to_string();
const SCRIPT: Spelling = |values| values.script.display().to_string();
const DYNAMIC: Spelling = |values| values.dynamic.display().to_string();
const ENVOY_ADDRESS: Spelling = |values| envoy(values.keybearer);
const ENVOY_GRPC: Spelling = |values| envoy(values.grpc);
const ENVOY_API: Spelling = |values| envoy(values.api);
const ENVOY_PORT: Spelling = |values| format!("port_value: {}", values.port);

/// An address as Envoy's files have it.
fn envoy(address: SocketAddr) -> String {
    format!("address: \"{}\", port_value: {}", address.ip(), address.port())
}

/// A literal of a file stood in no place: the file and this room do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    literal: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the example does not hold {:?}", self.literal)
    }
}

impl std::error::Error for Missing {}

impl Example {
    /// The file as it is shipped.
    pub fn text(self) -> &'static str {
        match self {
            Self::Nginx => include_str!("../../config/examples/nginx/keybearer.conf"),
            Self::Caddy => include_str!("../../config/examples/caddy/Caddyfile"),
            Self::Haproxy => include_str!("../../config/examples/haproxy/haproxy.cfg"),
            Self::HaproxyLua => include_str!("../../config/examples/haproxy/keybearer.lua"),
            Self::Envoy => include_str!("../../config/examples/envoy/envoy.yaml"),
            Self::EnvoyGrpc => include_str!("../../config/examples/envoy/envoy-grpc.yaml"),
            Self::Traefik => include_str!("../../config/examples/traefik/traefik.yaml"),
            Self::TraefikDynamic => include_str!("../../config/examples/traefik/dynamic.yaml"),
        }
    }

    /// The values that the file holds.
    fn spellings(self) -> &'static [Spelling] {
        match self {
            Self::Nginx | Self::Caddy => &[ADDRESS, NAME, AUTHORITY, SOCKET, API, PORT, CERTIFICATE, PRIVATE_KEY],
            Self::Haproxy => &[ADDRESS, NAME, AUTHORITY, SOCKET, SCRIPT, API, PORT, CERTIFICATE, PRIVATE_KEY],
            // It is told them by the configuration.
            Self::HaproxyLua => &[],
            Self::Envoy => {
                &[ENVOY_ADDRESS, URL, NAME, AUTHORITY, SOCKET, ENVOY_API, ENVOY_PORT, CERTIFICATE, PRIVATE_KEY]
            }
            Self::EnvoyGrpc => &[ENVOY_GRPC, NAME, AUTHORITY, ENVOY_API, ENVOY_PORT, CERTIFICATE, PRIVATE_KEY],
            Self::Traefik => &[PORT, DYNAMIC],
            Self::TraefikDynamic => &[URL, AUTHORITY, API, CERTIFICATE, PRIVATE_KEY],
        }
    }

    /// The file with `values` in place of its literals.
    ///
    /// # Errors
    /// A literal that is to be replaced is not in the file.
    pub fn fill(self, values: &Values) -> Result<String, Missing> {
        let literals = Values::default();
        let pairs: Vec<(String, String)> =
            self.spellings().iter().map(|spell| (spell(&literals), spell(values))).collect();
        replace(self.text(), &pairs)
    }
}

/// Puts every second text in place of every first, in one pass: what was put in is not looked at again.
///
/// # Errors
/// The first text of a pair is nowhere to be found.
pub fn replace(text: &str, pairs: &[(String, String)]) -> Result<String, Missing> {
    let mut found = vec![false; pairs.len()];
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        // The first place, and there the longest: an address within a URL belongs to the URL.
        let next = pairs.iter().enumerate().filter_map(|(index, (from, _))| Some((rest.find(from.as_str())?, index)));
        let next = next.min_by_key(|&(at, index)| (at, std::cmp::Reverse(pairs[index].0.len())));
        let Some((at, index)) = next else { break };
        let (from, to) = &pairs[index];
        found[index] = true;
        filled.push_str(&rest[..at]);
        filled.push_str(to);
        rest = &rest[at + from.len()..];
    }
    filled.push_str(rest);
    match found.iter().position(|found| !found) {
        Some(index) => Err(Missing { literal: pairs[index].0.clone() }),
        None => Ok(filled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others() -> Values {
        Values {
            keybearer: "[2001:db8::1]:1443".parse().unwrap(),
            name: "auth.example.com".into(),
            authority: "/srv/authority.pem".into(),
            grpc: "192.0.2.2:1445".parse().unwrap(),
            unix_socket: "/srv/authz".into(),
            api: "192.0.2.3:1900".parse().unwrap(),
            port: 1943,
            certificate: "/etc/chain.pem".into(),
            private_key: "/etc/key.pem".into(),
            script: "/etc/ask.lua".into(),
            dynamic: "/etc/routes.yaml".into(),
        }
    }

    #[test]
    fn every_file_is_filled_in_and_keeps_none_of_its_literals() {
        for &example in Example::value_variants() {
            let filled = example.fill(&others()).unwrap_or_else(|missing| panic!("{example:?}: {missing}"));
            for spell in example.spellings() {
                let (literal, value) = (spell(&Values::default()), spell(&others()));
                assert!(filled.contains(&value), "{example:?}: {value}");
                assert!(!filled.contains(&literal), "{example:?}: {literal}");
            }
            // Nor one that this room was not told of.
            for literal in ["8443", "8445", "9443", "9000", "localhost", "data/tls", "tls/proxy", "/run/keybearer"] {
                assert!(!filled.contains(literal), "{example:?} still holds {literal}");
            }
        }
    }

    #[test]
    fn with_its_own_literals_a_file_stays_as_it_is() {
        for &example in Example::value_variants() {
            assert_eq!(example.fill(&Values::default()).as_deref(), Ok(example.text()), "{example:?}");
        }
    }

    #[test]
    fn what_was_put_in_is_not_replaced_again_and_what_is_not_there_is_told() {
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(replace("a ab b", &[pair("a", "b"), pair("b", "a"), pair("ab", "c")]).as_deref(), Ok("b c a"));
        let missing = replace("a", &[pair("a", "b"), pair("x", "y")]).unwrap_err();
        assert_eq!(missing.to_string(), "the example does not hold \"x\"");
    }
}
