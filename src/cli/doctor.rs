//! `keybearer doctor`: what helps to fit the gateway into its surroundings. Prints; changes nothing.

use std::net::SocketAddr;
use std::path::{self, PathBuf};

use clap::{Subcommand, ValueEnum};

use super::examples::{Example, Values};
use super::failure::Failure;
use super::health::reachable;
use super::{Exit, Session};
use crate::config::Config;
use crate::forward_auth;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Configurations for proxies that ask this gateway about their requests, with its addresses filled in.
    Proxies {
        /// Print this one; without it those there are are listed.
        #[arg(long, value_name = "PROXY")]
        print: Option<Example>,
    },
}

pub(super) fn run(session: &mut Session<'_, '_>, command: &Command) -> Result<Exit, Failure> {
    let Command::Proxies { print } = command;
    match print {
        Some(example) => print_one(session, *example)?,
        None => list(session)?,
    }
    Ok(Exit::Done)
}

fn list(session: &mut Session<'_, '_>) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for value in Example::value_variants().iter().filter_map(ValueEnum::to_possible_value) {
        rows.push([value.get_name().to_owned(), value.get_help().map(ToString::to_string).unwrap_or_default()]);
    }
    if session.out.json() {
        let document: Vec<_> =
            rows.iter().map(|[name, what]| serde_json::json!({ "name": name, "what": what })).collect();
        return session.out.document(&document);
    }
    session.out.table(["PROXY", "WHAT"], rows)?;
    session.out.hint("keybearer doctor proxies --print nginx");
    Ok(())
}

fn print_one(session: &mut Session<'_, '_>, example: Example) -> Result<(), Failure> {
    let config = &session.config;
    let asked = Asked::of(config);
    let text = example.fill(&values(config, &asked)?).map_err(|missing| Failure::ours(missing.to_string()))?;
    // Hints come first: on a terminal the end of a long file is what is seen, and the file alone is data.
    for hint in hints(config, &asked, example) {
        session.out.hint(&hint);
    }
    if session.out.json() {
        return session.out.document(&serde_json::json!({ "text": text }));
    }
    session.out.data(text.trim_end())
}

/// What of `[forward_auth]` proxies need to know.
#[derive(Debug, Default)]
struct Asked {
    /// Whether it is there at all.
    configured: bool,
    unix_socket: Option<PathBuf>,
    grpc_listen: Option<SocketAddr>,
}

impl Asked {
    fn of(config: &Config) -> Self {
        match &config.forward_auth {
            Some(forward_auth::Settings { trusted: _, unix_socket, grpc_listen }) => {
                Self { configured: true, unix_socket: unix_socket.clone(), grpc_listen: *grpc_listen }
            }
            None => Self::default(),
        }
    }
}

/// This installation's values, and the examples' own where it has none.
fn values(config: &Config, asked: &Asked) -> Result<Values, Failure> {
    // A proxy is started in another folder.
    let absolute = |path: PathBuf| {
        path::absolute(&path).map_err(|error| Failure::mendable(format!("{}: {error}", path.display())))
    };
    let mut values = Values {
        keybearer: reachable(config.server.listen),
        name: name(config),
        authority: absolute(config.data_dir.join("tls/ca.pem"))?,
        ..Values::default()
    };
    if let Some(socket) = &asked.unix_socket {
        values.unix_socket = absolute(socket.clone())?;
    }
    if let Some(listen) = asked.grpc_listen {
        values.grpc = reachable(listen);
    }
    Ok(values)
}

/// The issuer's host: clients reach the gateway by it, so it is in the certificate; unless the gateway makes its own, for
/// other names.
fn name(config: &Config) -> String {
    let issuer = config.tokens.issuer.parse::<http::Uri>().ok();
    let host = issuer.as_ref().and_then(http::Uri::host).unwrap_or("localhost").to_owned();
    let names = &config.tls.names;
    match names.first() {
        Some(first) if config.tls.certificate.is_none() && !names.contains(&host) => first.clone(),
        _ => host,
    }
}

/// What is still to do before the printed file works.
fn hints(config: &Config, asked: &Asked, example: Example) -> Vec<String> {
    let mut hints = Vec::new();
    if !asked.configured {
        hints.push(
            "nobody may ask this gateway yet; write into its configuration:\n  \
             [forward_auth]\n  trusted = [\"127.0.0.1/32\", \"::1/128\"]   # the proxy's address\n\
             and give each route that the proxy guards: forward_auth = true"
                .to_owned(),
        );
    }
    if example == Example::EnvoyGrpc && asked.grpc_listen.is_none() {
        hints.push("gRPC is off; write under [forward_auth]: grpc_listen = \"127.0.0.1:8445\"".to_owned());
    }
    if config.tls.certificate.is_some() && !matches!(example, Example::HaproxyLua | Example::Traefik) {
        hints.push(
            "the gateway serves a certificate of yours: where the file says tls/ca.pem, write the authority that it is from"
                .to_owned(),
        );
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured() -> (Config, Asked) {
        let mut config = Config { data_dir: "/srv/kb".into(), ..Config::default() };
        config.server.listen = "0.0.0.0:1443".parse().unwrap();
        config.tokens.issuer = "https://auth.example.com:1443".into();
        config.tls.names = vec!["gateway.internal".into(), "auth.example.com".into()];
        let asked = Asked {
            configured: true,
            unix_socket: Some("/srv/authz".into()),
            grpc_listen: Some("[::]:1445".parse().unwrap()),
        };
        (config, asked)
    }

    #[test]
    fn every_file_has_this_installations_addresses() {
        let (config, asked) = configured();
        let values = values(&config, &asked).unwrap();
        for (example, expected) in [
            (Example::Nginx, &["127.0.0.1:1443", "auth.example.com", "/srv/kb/tls/ca.pem", "/srv/authz"][..]),
            (Example::Caddy, &["127.0.0.1:1443", "auth.example.com", "/srv/kb/tls/ca.pem", "/srv/authz"]),
            (Example::Haproxy, &["https://127.0.0.1:1443 auth.example.com", "/srv/kb/tls/ca.pem", "/srv/authz"]),
            (Example::Envoy, &["address: \"127.0.0.1\", port_value: 1443", "auth.example.com", "/srv/kb/tls/ca.pem"]),
            (Example::EnvoyGrpc, &["address: \"::1\", port_value: 1445", "auth.example.com", "/srv/kb/tls/ca.pem"]),
            (Example::TraefikDynamic, &["https://auth.example.com:1443", "/srv/kb/tls/ca.pem"]),
        ] {
            let text = example.fill(&values).unwrap();
            for value in expected {
                assert!(text.contains(value), "{example:?}: {value}");
            }
            for literal in ["8443", "8445", "localhost", "data/tls", "/run/keybearer"] {
                assert!(!text.contains(literal), "{example:?} still holds {literal}");
            }
            assert!(hints(&config, &asked, example).is_empty(), "{example:?}: nothing is left to do");
        }
    }

    #[test]
    fn what_is_left_to_do_is_told() {
        let (mut config, asked) = configured();
        let told = |config: &Config, asked: &Asked, example| hints(config, asked, example).join("\n");
        assert!(told(&config, &Asked::default(), Example::Nginx).contains("[forward_auth]\n  trusted = "));
        let no_grpc = Asked { configured: true, ..Asked::default() };
        assert!(told(&config, &no_grpc, Example::EnvoyGrpc).contains("grpc_listen = "));
        assert!(told(&config, &no_grpc, Example::Envoy).is_empty());
        config.tls.certificate = Some("/etc/tls.pem".into());
        assert!(told(&config, &asked, Example::Nginx).contains("write the authority"));
    }

    #[test]
    fn the_name_is_in_the_certificate() {
        let (mut config, _) = configured();
        assert_eq!(name(&config), "auth.example.com");
        config.tls.names = vec!["gateway.internal".into()];
        assert_eq!(name(&config), "gateway.internal", "the certificate that is made does not hold the issuer's host");
        config.tls.certificate = Some("/etc/tls.pem".into());
        assert_eq!(name(&config), "auth.example.com", "the operator knows what is in theirs");
    }
}
