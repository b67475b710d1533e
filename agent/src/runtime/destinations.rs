//! Where a guest may connect to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

/// Destinations of one guest.
pub const MAX_DESTINATIONS: usize = 64;
/// Addresses of names that are remembered for one guest: the oldest goes first.
const MAX_RESOLVED: usize = 256;
/// Longest host name (RFC 1035).
const MAX_HOST: usize = 253;

/// One place that a guest may connect to: `HOST:PORT`, where HOST is a name, an address, or a network
/// (`10.0.0.0/8`, `[fd00::]/8`), and PORT is a number or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    host: Host,
    /// None: any.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Network(IpAddr, u8),
    /// In lower case.
    Name(String),
}

/// Why a text is no destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no destination: HOST:PORT, HOST a name, an address or a network, PORT a number or *")]
pub struct NoDestination(String);

impl FromStr for Destination {
    type Err = NoDestination;

    fn from_str(text: &str) -> Result<Destination, NoDestination> {
        let wrong = || NoDestination(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = match port {
            "*" => None,
            port => Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?),
        };
        let host = host_of(host).ok_or_else(wrong)?;
        Ok(Destination { host, port })
    }
}

fn host_of(text: &str) -> Option<Host> {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address = match address.strip_prefix('[') {
        Some(rest) => Some(IpAddr::V6(rest.strip_suffix(']')?.parse().ok()?)),
        None => address.parse().ok().map(IpAddr::V4),
    };
    let Some(address) = address else {
        let named = prefix.is_none() && !text.is_empty() && text.len() <= MAX_HOST;
        let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        return (named && letters).then(|| Host::Name(text.to_ascii_lowercase()));
    };
    let all = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(all), |prefix| prefix.parse().ok().filter(|prefix| *prefix <= all))?;
    Some(Host::Network(address, prefix))
}

impl Destination {
    fn allows_port(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }
}

/// The address's bits, at the upper end.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    }
}

fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let rest = 128_u32.saturating_sub(prefix.into());
    let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
    network.is_ipv4() == address.is_ipv4() && (bits(network) ^ bits(address)) & mask == 0
}

/// What no guest reaches, whatever its destinations say: this machine's own loopback, link-local addresses (a
/// cloud's metadata among them), and what is no single machine.
fn never(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            // 0.0.0.0/8 is this machine, too.
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => {
            let link_local = v6.segments()[0] & 0xffc0 == 0xfe80;
            // With the deprecated IPv4-compatible ones, which begin with as many zeros.
            let compatible = v6.segments()[..6] == [0; 6];
            link_local || v6.is_multicast() || compatible
        }
    }
}

/// The destinations of one guest, and the addresses of those that are names.
#[derive(Default)]
pub struct Destinations {
    allowed: Vec<Destination>,
    resolved: Mutex<Vec<(IpAddr, String)>>,
}

impl fmt::Debug for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Destinations").field(&self.allowed).finish()
    }
}

impl Destinations {
    /// A guest that may connect to these.
    #[must_use]
    pub fn new(mut allowed: Vec<Destination>) -> Destinations {
        allowed.truncate(MAX_DESTINATIONS);
        allowed.shrink_to_fit();
        Destinations { allowed, resolved: Mutex::default() }
    }

    /// Whether it may connect to any at all.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.allowed.is_empty()
    }

    /// Whether it may ask for the addresses of `name`.
    #[must_use]
    pub fn allows_name(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.allowed.iter().any(|one| matches!(&one.host, Host::Name(own) if *own == name))
    }

    /// `name`, which it may ask for, has this address.
    pub fn resolved(&self, name: &str, address: IpAddr) {
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = (address, name.to_ascii_lowercase());
        if resolved.contains(&entry) {
            return;
        }
        if resolved.len() >= MAX_RESOLVED {
            resolved.remove(0);
        }
        resolved.push(entry);
    }

    /// Whether it may connect to this address.
    #[must_use]
    pub fn allows(&self, address: &SocketAddr) -> bool {
        // An IPv4 address in IPv6's clothes is the IPv4 address.
        let ip = address.ip().to_canonical();
        if never(address.ip()) {
            return false;
        }
        let resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        self.allowed.iter().filter(|one| one.allows_port(address.port())).any(|one| match &one.host {
            Host::Network(network, prefix) => contains(*network, *prefix, ip),
            Host::Name(own) => resolved.iter().any(|(known, name)| *known == ip && name == own),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn allows(allowed: &[&str], address: &str) -> bool {
        let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
        Destinations::new(allowed).allows(&address.parse().unwrap())
    }

    #[test]
    fn a_destination_is_an_address_a_network_or_a_name_with_a_port() {
        assert!(allows(&["10.1.2.3:1883"], "10.1.2.3:1883"));
        assert!(!allows(&["10.1.2.3:1883"], "10.1.2.3:1884"));
        assert!(!allows(&["10.1.2.3:1883"], "10.1.2.4:1883"));
        assert!(allows(&["10.0.0.0/8:*"], "10.255.0.1:9"));
        assert!(!allows(&["10.0.0.0/8:*"], "11.0.0.1:9"));
        assert!(allows(&["0.0.0.0/0:443"], "198.51.100.1:443"));
        assert!(allows(&["[fd00::]/8:80"], "[fd12::1]:80"));
        assert!(!allows(&["[fd00::]/8:80"], "10.0.0.1:80"));
        assert!(!allows(&[], "10.0.0.1:80"));
        // Mapped, it is the IPv4 address.
        assert!(allows(&["10.1.2.3:1"], "[::ffff:10.1.2.3]:1"));
    }

    #[test]
    fn this_machine_and_its_links_are_never_reached() {
        let everything = ["0.0.0.0/0:*", "[::]/0:*"];
        for address in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "169.254.169.254:80",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "[::1]:1",
            "[::]:1",
            "[::7f00:1]:1",
            "[fe80::1]:1",
            "[febf::1]:1",
            "[ff02::1]:1",
            "[::ffff:127.0.0.1]:1",
            "[::ffff:169.254.0.1]:1",
        ] {
            assert!(!allows(&everything, address), "{address}");
        }
        assert!(allows(&everything, "[fec0::1]:1") && allows(&everything, "192.168.1.1:1"));
    }

    #[test]
    fn a_name_allows_the_addresses_that_it_was_found_to_have() {
        let destinations = Destinations::new(vec!["Broker.test:1883".parse().unwrap()]);
        let address: SocketAddr = "10.0.0.9:1883".parse().unwrap();
        assert!(destinations.allows_name("broker.TEST") && !destinations.allows_name("other.test"));
        assert!(!destinations.allows(&address));
        destinations.resolved("broker.test", address.ip());
        assert!(destinations.allows(&address));
        assert!(!destinations.allows(&"10.0.0.9:1884".parse().unwrap()));
        // A name that leads to this machine leads nowhere.
        destinations.resolved("broker.test", [127, 0, 0, 1].into());
        assert!(!destinations.allows(&"127.0.0.1:1883".parse().unwrap()));
        // However many addresses it has had.
        for n in 0..1000_u32 {
            destinations.resolved("broker.test", IpAddr::V4((0x0b00_0000 + n).into()));
        }
        assert!(destinations.resolved.lock().unwrap().len() <= MAX_RESOLVED);
    }

    #[test]
    fn what_is_no_destination_is_refused() {
        for text in [
            "",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:65536",
            "host:x",
            "a b:1",
            "10.0.0.0/33:1",
            "[::1:80",
            "fd00::1:80/",
            "[fd00::]/129:1",
            "name/8:1",
            "-:",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }
}
