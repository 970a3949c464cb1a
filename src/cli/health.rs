//! `keybearer health`: asks the gateway on this machine whether it is ready, for a container's health check.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Empty;

use super::client::{Client, Trust};
use super::failure::Failure;
use super::{Exit, Session};
use crate::config::Config;

/// Health checks are usually killed after some seconds; an answer that takes longer is none.
const LIMIT: Duration = Duration::from_secs(3);

pub(super) async fn run(session: &mut Session<'_, '_>) -> Result<Exit, Failure> {
    let config = &session.config;
    let client = Client::at(reachable(config.server.listen), &name(config), trust(config)?, LIMIT)?;
    let request = Request::get("/health/ready")
        .header("host", client.authority())
        .body(Empty::new())
        .map_err(|error| Failure::ours(error.to_string()))?;
    let answer = client
        .send(request)
        .await
        .map_err(|error| Failure::mendable(format!("not ready: {error}")).hint(error.what_next()))?;
    let ready = answer.status == StatusCode::OK;
    if session.out.json() {
        session.out.document(&serde_json::json!({ "ready": ready, "status": answer.status.as_u16() }))?;
    } else if ready {
        session.out.data("ready")?;
    }
    if ready {
        return Ok(Exit::Done);
    }
    Err(Failure::mendable(format!("not ready: {} answered {}", client.authority(), answer.status.as_u16())))
}

/// Where a process on this machine reaches a listener.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, listen.port())
}

/// A name that the certificate the gateway makes for itself holds.
fn name(config: &Config) -> String {
    let names = &config.tls.names;
    if names.is_empty() || names.iter().any(|name| name == "localhost") {
        "localhost".to_owned()
    } else {
        names[0].clone()
    }
}

/// The operator's certificate itself, since no name in it need lead to this machine from within; else the authority in the
/// data folder.
fn trust(config: &Config) -> Result<Trust, Failure> {
    let mut trust = Trust::nobody();
    match &config.tls.certificate {
        Some(certificate) => trust.pin(certificate)?,
        None => {
            let authority = config.data_dir.join("tls/ca.pem");
            if !authority.exists() {
                return Err(Failure::mendable(format!("not ready: {} does not exist", authority.display()))
                    .hint("is the gateway running, with the same --config and --data-dir?"));
            }
            trust.authorities(&authority)?;
        }
    }
    Ok(trust)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_by_loopback() {
        let reach = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:443"), "127.0.0.1:443");
        assert_eq!(reach("[::]:443"), "[::1]:443");
        assert_eq!(reach("10.0.0.7:443"), "10.0.0.7:443");
    }

    #[test]
    fn the_name_is_one_that_the_certificate_holds() {
        let mut config = Config::default();
        assert_eq!(name(&config), "localhost");
        config.tls.names = vec!["api.example.com".into()];
        assert_eq!(name(&config), "api.example.com");
    }
}
