//! Which addresses a name may lead to: an answer of DNS must not turn a provider's name into a way to this machine, its network, or the
//! cloud's metadata service.
//!
//! Refused unless the configuration names them: as a literal address (or `localhost`) in `base_url`, or as a network in `allow_addresses`.
//! The address that was checked is the one that is dialled; a name is never resolved a second time for the same connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use custody::Origin;

/// A network in CIDR notation, RFC 4632 and RFC 4291 section 2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be addresses or networks such as 10.0.0.0/8 or fd00::/8")]
pub struct BadNetwork;

impl Network {
    /// Whether `address` is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.bits))
                    .unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadNetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| BadNetwork)?
            }
            Some(_) => return Err(BadNetwork),
        };
        (bits <= most)
            .then_some(Self { address, bits })
            .ok_or(BadNetwork)
    }
}

/// What a route may dial.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// `base_url` itself is an address or `localhost`: the operator wrote where this goes.
    pub literal: bool,
    /// Networks named in the configuration.
    pub networks: Vec<Network>,
}

impl Reach {
    /// What a route to `origin` may dial.
    pub fn of(origin: &Origin, networks: Vec<Network>) -> Self {
        let host = origin.host();
        Self {
            literal: host == "localhost" || host.parse::<IpAddr>().is_ok(),
            networks,
        }
    }

    /// The addresses that may be dialled, in the order of the answer.
    pub fn allowed(&self, found: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        found
            .into_iter()
            .filter(|address| {
                let ip = address.ip().to_canonical();
                self.literal
                    || is_public(ip)
                    || self.networks.iter().any(|network| network.contains(ip))
            })
            .collect()
    }
}

/// Whether an address is one that a provider on the internet can have: global unicast by the special-purpose registries of RFC 6890, with
/// what embeds or translates to an address of another kind (NAT64, 6to4, Teredo) refused too.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        // Shared address space (RFC 6598), where one cloud keeps its metadata service.
        || (a == 100 && (64..128).contains(&b))
        // Protocol assignments, 6to4 relays, benchmarking, reserved and broadcast.
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240
        // A public address by its range, the metadata and health service of another cloud by use.
        || address == Ipv4Addr::new(168, 63, 129, 16))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast is 2000::/3 and nothing else today (RFC 4291 section 2.4).
    let global = a & 0xe000 == 0x2000;
    let teredo_and_protocols = a == 0x2001 && b < 0x0200;
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    let six_to_four = a == 0x2002;
    global && !teredo_and_protocols && !documentation && !six_to_four
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn public(text: &str) -> bool {
        let address: IpAddr = text.parse().unwrap();
        !Reach::default()
            .allowed([SocketAddr::new(address, 443)])
            .is_empty()
    }

    #[test]
    fn addresses_of_the_internet_pass_and_their_neighbours_do_not() {
        for (good, bad) in [
            ("128.0.0.1", "127.0.0.1"),
            ("11.0.0.1", "10.255.255.255"),
            ("172.32.0.1", "172.31.255.255"),
            ("172.15.0.1", "172.16.0.1"),
            ("192.169.0.1", "192.168.0.1"),
            ("169.253.0.1", "169.254.169.254"),
            ("100.128.0.1", "100.100.100.200"),
            ("168.63.129.17", "168.63.129.16"),
            ("198.20.0.1", "198.19.0.1"),
            ("223.255.255.1", "224.0.0.1"),
            ("1.0.0.1", "0.0.0.0"),
            ("223.0.0.1", "255.255.255.255"),
            ("2606:4700::1", "::1"),
            ("2a00::1", "fd00:ec2::254"),
            ("2001:4860::1", "2001:db8::1"),
            ("2003::1", "2002:7f00:1::"),
            ("2600::1", "fe80::1"),
            ("2600::2", "::ffff:127.0.0.1"),
            ("2600::3", "::ffff:10.0.0.1"),
            ("2600::4", "64:ff9b::a9fe:a9fe"),
            ("2600::5", "ff02::1"),
            ("2600::6", "::"),
        ] {
            assert!(public(good), "{good}");
            assert!(!public(bad), "{bad}");
        }
        assert!(public("::ffff:1.1.1.1"), "a mapped address is what it maps");
    }

    #[test]
    fn a_named_network_opens_itself_and_nothing_beside_it() {
        let reach = Reach {
            literal: false,
            networks: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
        };
        let allowed = |text: &str| {
            let address = SocketAddr::new(text.parse().unwrap(), 443);
            reach.allowed([address]) == [address]
        };
        assert!(allowed("10.1.2.3") && !allowed("10.2.0.1"));
        assert!(allowed("fd12::1") && !allowed("fe80::1"));
        assert!(allowed("::ffff:10.1.2.3") && !allowed("169.254.169.254"));
    }

    #[test]
    fn an_answer_keeps_its_good_addresses_alone() {
        let answer: Vec<SocketAddr> = ["127.0.0.1:443", "1.1.1.1:443", "10.0.0.1:443"]
            .map(|text| text.parse().unwrap())
            .into();
        assert_eq!(Reach::default().allowed(answer.clone()), answer[1..2]);
        let literal = Reach {
            literal: true,
            networks: Vec::new(),
        };
        assert_eq!(literal.allowed(answer.clone()), answer);
    }

    #[test]
    fn networks_are_read_strictly() {
        let whole: Network = "0.0.0.0/0".parse().unwrap();
        assert!(whole.contains("255.1.2.3".parse().unwrap()));
        let one: Network = "10.0.0.1".parse().unwrap();
        assert!(one.contains("10.0.0.1".parse().unwrap()));
        assert!(!one.contains("10.0.0.2".parse().unwrap()));
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0/8",
            "fd00::/129",
            "a/8",
            "10.0.0.0/",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(BadNetwork), "{bad}");
        }
    }
}
