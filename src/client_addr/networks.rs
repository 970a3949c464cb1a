//! A list of networks that a key is good from: checked once, kept in its shortest form, asked on every request.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// The networks from which something may be used: at least one, sorted, none inside another.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Networks(Box<[IpNet]>);

/// Why a list of networks is none; `Display` says what to write in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidNetworks {
    /// A text that is no network.
    NotANetwork(String),
    /// An address inside a network; the network it is in.
    HostBits(IpNet),
    /// A network that is every address.
    Everywhere,
    /// Nothing.
    Empty,
    /// More than a token can carry.
    TooMany(usize),
}

impl fmt::Display for InvalidNetworks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANetwork(text) => write!(
                f,
                "{text:?} is no network; write an address or a network such as 203.0.113.0/24 or 2001:db8::/48"
            ),
            Self::HostBits(network) => write!(f, "that is an address inside a network; write the network: {network}"),
            Self::Everywhere => f.write_str("a network of every address allows everyone; leave the list away instead"),
            Self::Empty => f.write_str("a list of networks has at least one"),
            Self::TooMany(given) => {
                write!(f, "{given} networks are too many: a token carries them, so there may be {}", Networks::MOST)
            }
        }
    }
}

impl std::error::Error for InvalidNetworks {}

impl Networks {
    /// So many networks at most: every token of the key carries them.
    pub const MOST: usize = 16;

    /// The networks of a list, neighbours joined.
    ///
    /// # Errors
    /// [`InvalidNetworks`].
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Result<Self, InvalidNetworks> {
        let given: Vec<IpNet> = networks.into_iter().map(|network| network.0).collect();
        let mut joined = IpNet::aggregate(&given);
        joined.sort_unstable();
        match joined.len() {
            0 => Err(InvalidNetworks::Empty),
            // Halves of everything make it up as well.
            _ if joined.iter().any(|network| network.prefix_len() == 0) => Err(InvalidNetworks::Everywhere),
            too_many if too_many > Self::MOST => Err(InvalidNetworks::TooMany(too_many)),
            _ => Ok(Self(joined.into())),
        }
    }

    /// Whether `address` is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether every address of `others` is in one of these. Since neighbours are joined, no network lies across two.
    pub fn cover(&self, others: &Self) -> bool {
        others.0.iter().all(|other| self.0.iter().any(|network| network.contains(other)))
    }
}

/// By spaces, as in a store.
impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, network) in self.0.iter().enumerate() {
            let space = if number == 0 { "" } else { " " };
            write!(f, "{space}{network}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Networks {
    type Err = InvalidNetworks;
    fn from_str(text: &str) -> Result<Self, InvalidNetworks> {
        Self::new(text.split_ascii_whitespace().map(str::parse).collect::<Result<Vec<Network>, _>>()?)
    }
}

impl TryFrom<Vec<String>> for Networks {
    type Error = InvalidNetworks;
    fn try_from(texts: Vec<String>) -> Result<Self, InvalidNetworks> {
        Self::new(texts.iter().map(|text| text.parse()).collect::<Result<Vec<Network>, _>>()?)
    }
}

impl From<Networks> for Vec<String> {
    fn from(networks: Networks) -> Self {
        networks.0.iter().map(IpNet::to_string).collect()
    }
}

/// One network as people write it: `203.0.113.0/24`, or an address, which is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = InvalidNetworks;
    fn from_str(text: &str) -> Result<Self, InvalidNetworks> {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        let network = text.parse().ok().or_else(address);
        let network = canonical(network.ok_or_else(|| InvalidNetworks::NotANetwork(text.to_owned()))?);
        if network != network.trunc() {
            return Err(InvalidNetworks::HostBits(network.trunc()));
        }
        if network.prefix_len() == 0 {
            return Err(InvalidNetworks::Everywhere);
        }
        Ok(Self(network))
    }
}

/// An IPv4 network that is written in IPv6 (RFC 4291 §2.5.5.2) is that IPv4 network: clients' addresses are told so.
fn canonical(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        _ => None,
    };
    let mapped = mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    mapped.map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(text: &str) -> Networks {
        text.parse().expect("networks")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_list_is_kept_in_its_shortest_form() {
        for (given, kept) in [
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("203.0.113.7", "203.0.113.7/32"),
            ("203.0.113.128/25 203.0.113.0/25", "203.0.113.0/24"),
            ("203.0.113.7 203.0.113.0/24 203.0.113.0/24", "203.0.113.0/24"),
            ("2001:DB8:0::/48 10.0.0.0/8", "10.0.0.0/8 2001:db8::/48"),
            ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
            ("::ffff:203.0.113.7", "203.0.113.7/32"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(networks(given).to_string(), kept, "{given}");
        }
        let json = serde_json::to_string(&networks("10.0.0.0/8 2001:db8::/48")).unwrap();
        assert_eq!(json, r#"["10.0.0.0/8","2001:db8::/48"]"#);
        assert_eq!(serde_json::from_str::<Networks>(&json).unwrap(), networks("10.0.0.0/8 2001:db8::/48"));
        assert!(serde_json::from_str::<Networks>("[]").is_err());
    }

    #[test]
    fn what_is_no_list_is_told_with_its_remedy() {
        for (given, says) in [
            ("", "at least one"),
            ("localhost", "\"localhost\" is no network"),
            ("203.0.113.0/33", "is no network"),
            ("203.0.113.7/24", "write the network: 203.0.113.0/24"),
            ("0.0.0.0/0", "allows everyone"),
            ("0.0.0.0/1 128.0.0.0/1", "allows everyone"),
            ("::/0", "allows everyone"),
        ] {
            let error = given.parse::<Networks>().expect_err(given).to_string();
            assert!(error.contains(says), "{given}: {error}");
        }
        let many = |count: u8| (0..count).map(|n| format!("10.{n}.0.1 ")).collect::<String>();
        assert_eq!(many(16).parse::<Networks>().map(|list| list.0.len()), Ok(16));
        assert_eq!(many(17).parse::<Networks>(), Err(InvalidNetworks::TooMany(17)));
    }

    #[test]
    fn an_address_is_inside_in_either_spelling() {
        let list = networks("203.0.113.0/24 2001:db8:1::/48");
        for inside in ["203.0.113.0", "203.0.113.255", "::ffff:203.0.113.9", "2001:db8:1:ffff::1"] {
            assert!(list.contain(ip(inside)), "{inside}");
        }
        for outside in ["203.0.112.255", "203.0.114.0", "2001:db8:2::1", "::1", "::203.0.113.9"] {
            assert!(!list.contain(ip(outside)), "{outside}");
        }
    }

    proptest! {
        /// Whoever was inside the covered list is inside the covering one.
        #[test]
        fn to_cover_is_to_contain_everyone(
            one in prop::collection::vec((0u8..4, 6u8..9), 1..5),
            other in prop::collection::vec((0u8..4, 6u8..9), 1..5),
        ) {
            // Networks around 0.0.0.0 to 3.255.255.255, so that they meet, and every one of their addresses' first bytes.
            let list = |parts: &[(u8, u8)]| {
                let all = parts.iter().map(|(first, length)| {
                    IpNet::V4(Ipv4Net::new([*first, 0, 0, 0].into(), *length).unwrap()).trunc()
                });
                Networks::new(all.map(Network)).unwrap()
            };
            let (one, other) = (list(&one), list(&other));
            let inside = |list: &Networks| (0u8..=255).map(|first| list.contain(IpAddr::from([first, 0, 0, 1]))).collect::<Vec<_>>();
            let covered = inside(&one).iter().zip(inside(&other)).all(|(one, other)| *one || !other);
            prop_assert_eq!(one.cover(&other), covered);
        }

        #[test]
        fn reading_never_panics(text in "[0-9a-f:./ ]{0,40}") {
            if let Ok(list) = text.parse::<Networks>() {
                prop_assert_eq!(list.to_string().parse::<Networks>(), Ok(list));
            }
        }
    }
}
