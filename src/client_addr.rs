//! The client's address. Trust in headers starts at the socket: a forwarded header counts only when the peer is a trusted
//! proxy, and then from the nearest hop outwards (RFC 7239 §8.1).

mod networks;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

pub use networks::{InvalidNetworks, Network, Networks};

/// What counts as one client: an IPv4 address, or an IPv6 /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// The /16 that an address is of. There are few enough of them that something may be kept for each.
pub fn neighbourhood(address: IpAddr) -> IpNet {
    let address = address.to_canonical();
    IpNet::new(address, 16).map_or_else(|_| address.into(), |block| block.trunc())
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over the network.
    Address(SocketAddr),
    /// A process on this machine, over a Unix socket whose file mode says who may connect.
    Unix,
}

impl Peer {
    /// Its address; over a Unix socket that of this machine.
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::Address(address) => address.ip().to_canonical(),
            Self::Unix => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

/// The forwarded headers of a request, as text; what is not ASCII is not here.
#[derive(Debug, Default)]
pub struct Forwarded<'a> {
    /// `X-Forwarded-For`, all lines in order.
    pub x_forwarded_for: Vec<&'a str>,
    /// `X-Forwarded-Proto`, all lines in order.
    pub x_forwarded_proto: Vec<&'a str>,
    /// `Forwarded` (RFC 7239), all lines in order.
    pub forwarded: Vec<&'a str>,
}

/// How a request reached a listener behind a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Whose request it is.
    pub client: IpAddr,
    /// Whether the client spoke HTTPS to the outermost trusted proxy.
    pub https: bool,
}

/// The networks whose forwarded headers are believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts these networks.
    pub fn new(networks: &[IpNet]) -> Self {
        Self(networks.to_vec())
    }

    /// Whether `address` is in one of them.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether `peer` is one of them. Who may connect to a Unix socket is trusted.
    pub fn trusts_peer(&self, peer: Peer) -> bool {
        match peer {
            Peer::Address(address) => self.trusts(address.ip()),
            Peer::Unix => true,
        }
    }

    /// The client of a request that `nearest`, which is trusted, handed on with these lines of `X-Forwarded-For`: the
    /// nearest hop that is no trusted proxy. Text that is no address ends the walk: who is behind it cannot be known.
    pub fn client<L>(&self, nearest: IpAddr, lines: L) -> IpAddr
    where
        L: IntoIterator<IntoIter: DoubleEndedIterator, Item: AsRef<str>>,
    {
        let mut client = nearest.to_canonical();
        for line in lines.into_iter().rev() {
            let hops = line.as_ref().split(',').map(str::trim).filter(|hop| !hop.is_empty());
            if !self.walk(&mut client, hops.map(node).rev()) {
                break;
            }
        }
        client
    }

    /// Walks from the nearest hop outwards, and says whether it may go on.
    fn walk(&self, client: &mut IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> bool {
        for hop in hops {
            // What lies behind a hop that names no address cannot be trusted either.
            let Some(address) = hop else { return false };
            *client = address;
            if !self.trusts(address) {
                return false;
            }
        }
        true
    }

    /// Reads how a request arrived that `peer` handed on. `None` when the peer is not trusted.
    ///
    /// The client is the nearest hop that is no trusted proxy. Where `Forwarded` and `X-Forwarded-*` are both there, or a
    /// line cannot be read, or the hops disagree on the protocol, it did not arrive by HTTPS.
    pub fn arrival(&self, peer: SocketAddr, headers: &Forwarded<'_>) -> Option<Arrival> {
        if !self.trusts(peer.ip()) {
            return None;
        }
        let forwarded: Vec<Hop> = headers.forwarded.iter().flat_map(|line| split(line, ',')).map(Hop::parse).collect();
        let protocols: Vec<&str> = headers
            .x_forwarded_proto
            .iter()
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .chain(forwarded.iter().filter_map(|hop| hop.proto))
            .collect();
        // A client may send the kind of header that the proxy does not write, or leave a quote open that swallows what the
        // proxy appends. Which of two kinds to believe cannot be known here, so neither is.
        let x_forwarded = !headers.x_forwarded_for.is_empty() || !headers.x_forwarded_proto.is_empty();
        let open_quote = headers.forwarded.iter().any(|line| line.matches('"').count() % 2 == 1);
        let unreadable = headers.x_forwarded_for.iter().any(|line| line.contains('"'));
        if (x_forwarded && !headers.forwarded.is_empty()) || open_quote || unreadable {
            return Some(Arrival { client: peer.ip().to_canonical(), https: false });
        }
        let https = !protocols.is_empty() && protocols.iter().all(|proto| proto.eq_ignore_ascii_case("https"));
        let chain: Vec<Option<IpAddr>> = if forwarded.is_empty() {
            headers.x_forwarded_for.iter().flat_map(|line| line.split(',')).map(|hop| node(hop.trim())).collect()
        } else {
            forwarded.iter().map(|hop| hop.from.and_then(node)).collect()
        };
        let mut client = peer.ip().to_canonical();
        self.walk(&mut client, chain.into_iter().rev());
        Some(Arrival { client, https })
    }
}

/// One element of `Forwarded`.
struct Hop<'a> {
    from: Option<&'a str>,
    proto: Option<&'a str>,
}

impl<'a> Hop<'a> {
    fn parse(element: &'a str) -> Self {
        let mut hop = Self { from: None, proto: None };
        for pair in split(element, ';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match name.trim() {
                name if name.eq_ignore_ascii_case("for") => hop.from = Some(value),
                name if name.eq_ignore_ascii_case("proto") => hop.proto = Some(value),
                _ => {}
            }
        }
        hop
    }
}

/// Splits at `by`, but not inside quotes.
fn split(text: &str, by: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == by && !quoted
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

/// An address in any of the forms that proxies write: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(address, _)| address);
    let address = bracketed.unwrap_or(text);
    let parsed = address.parse::<IpAddr>().ok();
    parsed.or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip())).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1:4711";

    fn arrival(peer: &str, xff: &[&str], proto: &[&str], forwarded: &[&str]) -> Option<(String, bool)> {
        let trusted = TrustedProxies::new(&["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let headers = Forwarded {
            x_forwarded_for: xff.to_vec(),
            x_forwarded_proto: proto.to_vec(),
            forwarded: forwarded.to_vec(),
        };
        trusted.arrival(peer.parse().unwrap(), &headers).map(|arrival| (arrival.client.to_string(), arrival.https))
    }

    #[test]
    fn headers_of_an_untrusted_peer_are_not_read() {
        assert_eq!(arrival("192.0.2.9:1", &["203.0.113.7"], &["https"], &[]), None);
    }

    #[test]
    fn the_nearest_untrusted_hop_is_the_client() {
        let client = |xff: &[&str]| arrival(PROXY, xff, &["https"], &[]).unwrap().0;
        assert_eq!(client(&["203.0.113.7"]), "203.0.113.7");
        assert_eq!(client(&["198.51.100.1, 203.0.113.7,10.0.0.2"]), "203.0.113.7", "a forged entry lies further out");
        assert_eq!(client(&["198.51.100.1", "203.0.113.7 , 10.9.9.9"]), "203.0.113.7", "several lines are one list");
        assert_eq!(client(&["203.0.113.7, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client(&["::ffff:203.0.113.7"]), "203.0.113.7");
        assert_eq!(client(&["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client(&["203.0.113.7:5000"]), "203.0.113.7");
        assert_eq!(client(&[]), "10.0.0.1");
        assert_eq!(arrival("[::ffff:10.0.0.1]:5", &["203.0.113.7"], &["https"], &[]).unwrap().0, "203.0.113.7");
    }

    #[test]
    fn the_client_behind_a_chain_of_trusted_proxies_is_found() {
        let trusted = TrustedProxies::new(&["10.0.0.0/8".parse().unwrap()]);
        let client = |lines: &[&str]| trusted.client("10.0.0.1".parse().unwrap(), lines.iter()).to_string();
        assert_eq!(client(&["6.6.6.6, 203.0.113.7, 10.0.0.2"]), "203.0.113.7");
        assert_eq!(
            client(&["6.6.6.6", "203.0.113.7,", " 10.0.0.3 ,10.0.0.2"]),
            "203.0.113.7",
            "empty elements are none"
        );
        assert_eq!(client(&["203.0.113.7", "unknown", "10.0.0.2"]), "10.0.0.2", "nothing behind it is believed");
        assert_eq!(client(&[]), "10.0.0.1");
        assert!(trusted.trusts_peer(Peer::Unix) && trusted.trusts_peer(Peer::Address("10.0.0.1:9".parse().unwrap())));
        assert!(!trusted.trusts_peer(Peer::Address("192.0.2.1:9".parse().unwrap())));
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let read = |line: &str| arrival(PROXY, &[], &[], &[line]).unwrap();
        assert_eq!(read("for=203.0.113.7;proto=https"), ("203.0.113.7".into(), true));
        assert_eq!(
            read(r#"For="[2001:db8:cafe::17]:4711" ; Proto=HTTPS;by=203.0.113.43"#),
            ("2001:db8:cafe::17".into(), true)
        );
        assert_eq!(read(r#"for="a,b", for=203.0.113.7;proto=http"#), ("203.0.113.7".into(), false));
        assert_eq!(read("for=_hidden"), ("10.0.0.1".into(), false));
    }

    #[test]
    fn https_must_be_said_by_all_who_say_anything() {
        let https = |proto: &[&str], forwarded: &[&str]| arrival(PROXY, &["203.0.113.7"], proto, forwarded).unwrap().1;
        assert!(https(&["https"], &[]));
        assert!(https(&["HTTPS, https"], &[]));
        assert!(!https(&[], &[]));
        assert!(!https(&["http"], &[]));
        assert!(!https(&["https", "http"], &[]));
        assert!(!https(&["https"], &["for=203.0.113.7;proto=http"]));
    }

    #[test]
    fn what_a_client_could_have_slipped_in_is_not_https() {
        let forged = Some(("10.0.0.1".to_owned(), false));
        assert_eq!(arrival(PROXY, &["203.0.113.7"], &["https"], &["for=6.6.6.6;proto=https"]), forged);
        assert_eq!(arrival(PROXY, &[], &[], &["for=6.6.6.6;proto=https;x=\", for=203.0.113.7;proto=http"]), forged);
        assert_eq!(arrival(PROXY, &["?\""], &["https"], &[]), forged);
    }

    #[test]
    fn an_ipv6_client_is_its_64_bit_network() {
        let same = |a: &str| network(a.parse().unwrap()).to_string();
        assert_eq!(same("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(same("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
