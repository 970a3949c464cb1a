//! Faults that lie between settings: each may be right by itself, and the whole is not. Those of routes are in
//! `route_checks`.

use std::net::{IpAddr, SocketAddr};

use super::Config;
use super::reader::Reader;
use crate::credentials::{self, Hasher};

/// Checks all that is not about routes.
pub(super) fn settings(config: &Config, reader: &mut Reader) {
    tls_files(config, reader);
    listeners(config, reader);
    audience(&config.tokens.audience, reader);
    rotation(config, reader);
    argon2(&config.credentials, reader);
}

fn audience(audience: &[String], reader: &mut Reader) {
    const PATH: &str = "tokens.audience";
    if audience.is_empty() && reader.is_sound(PATH) {
        reader.object(PATH, "is empty", "write whom the tokens are for, as in audience = \"https://api.example.com\"");
    }
    let twice = audience.iter().enumerate().find(|(at, item)| audience[..*at].contains(item));
    if let Some((_, item)) = twice {
        reader.object(PATH, format!("{item:?} is in it twice"), "write it once");
    }
    const MOST: usize = 2048;
    let bytes: usize = audience.iter().map(|item| item.len() + 3).sum();
    if bytes > MOST {
        reader.object(PATH, format!("takes {bytes} bytes of every token"), format!("write {MOST} bytes or less"));
    }
}

fn rotation(config: &Config, reader: &mut Reader) {
    let signing = &config.signing;
    let (every, ahead) = ("signing.rotate_every", "signing.publish_ahead");
    if signing.rotate_every.is_zero() || signing.rotate_every > signing.publish_ahead {
        return;
    }
    if reader.is_sound(every) && reader.is_sound(ahead) {
        // The message belongs to the one that was set.
        let path = if reader.is_given(every) { every } else { ahead };
        let problem = "leaves no time between a key's turn and the publication of the next one";
        reader.object(path, problem, "write a rotate_every that is longer than publish_ahead");
    }
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
    if let Some(forward_auth) = &config.forward_auth {
        if let Some(address) = forward_auth.grpc_listen {
            listeners.push(("forward_auth.grpc_listen", address));
        }
        let path = "forward_auth.trusted";
        let asks_over_tcp = forward_auth.unix_socket.is_none() || forward_auth.grpc_listen.is_some();
        if forward_auth.trusted.is_empty() && asks_over_tcp && reader.is_sound(path) {
            let remedy = "write the networks of the proxies that ask, as in trusted = [\"127.0.0.1/32\"]";
            reader.object(path, "trusts no one, so every question would be refused", remedy);
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

#[cfg(test)]
mod tests {
    use super::*;

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
