//! Who may connect: networks of masters, each with its lane.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// An address or a network, `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an address or a network like 192.0.2.0/24, found {0:?}")]
pub struct NetworkError(String);

impl Network {
    /// Every address.
    pub const ANY: [Self; 2] = [
        Self { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), prefix: 0 },
        Self { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix: 0 },
    ];

    /// Whether the address is one of the network. IPv4 in IPv6 (`::ffff:192.0.2.7`) counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let bits = u32::from(own) ^ u32::from(other);
                bits.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let bits = u128::from(own) ^ u128::from(other);
                bits.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let bad = || NetworkError(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().map_err(|_| bad())?.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) => digits.parse().ok().filter(|prefix| *prefix <= most).ok_or_else(bad)?,
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The networks of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who.
    pub networks: Vec<Network>,
    /// Which lane.
    pub lane: usize,
}

/// The lane of an address: the narrowest network that has it decides, the first of equals.
#[must_use]
pub fn lane(list: &[Access], address: IpAddr) -> Option<usize> {
    let mut best: Option<(u8, usize)> = None;
    for access in list {
        for network in access.networks.iter().filter(|network| network.contains(address)) {
            if best.is_none_or(|(prefix, _)| network.prefix > prefix) {
                best = Some((network.prefix, access.lane));
            }
        }
    }
    best.map(|(_, lane)| lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_have_their_addresses() {
        for (text, address, inside) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.0/24", "::ffff:192.0.2.9", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db8::1", true),
        ] {
            assert_eq!(network(text).contains(address.parse().unwrap()), inside, "{text} {address}");
        }
        for address in ["192.0.2.1", "::1"] {
            assert!(Network::ANY.iter().any(|any| any.contains(address.parse().unwrap())));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "scada", "192.0.2.0/33", "192.0.2/24", "::/129", "192.0.2.0/", "192.0.2.0/-1", " 192.0.2.1"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        let error = "scada/8".parse::<Network>().unwrap_err().to_string();
        assert_eq!(error, "expected an address or a network like 192.0.2.0/24, found \"scada/8\"");
        assert_eq!(network("192.0.2.0/24").to_string(), "192.0.2.0/24");
    }

    #[test]
    fn the_narrowest_network_decides() {
        let access = |text: &str, lane| Access { networks: vec![network(text)], lane };
        let list = [access("192.0.0.0/8", 0), access("192.0.2.0/24", 1), access("192.0.2.7", 2)];
        let lane = |text: &str| lane(&list, text.parse().unwrap());
        assert_eq!(lane("192.0.2.7"), Some(2));
        assert_eq!(lane("192.0.2.8"), Some(1));
        assert_eq!(lane("192.9.9.9"), Some(0));
        assert_eq!(lane("198.51.100.1"), None);
    }
}
