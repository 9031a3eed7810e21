//! Which network a server is on, checked at the moment of connecting, when its name has become an address.
//!
//! A registry chooses where its tokens come from. That must not let it make us talk to something inside the site, or on
//! this machine, that it cannot reach itself.
//! Must never: judge by the name alone, since its owner decides which address it resolves to.

use crate::base::error::{Error, Kind, Result};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Most servers remembered: more than one run ever contacts.
const MAX_SEEN: usize = 16;

/// What kind of network an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// This machine.
    Loopback,
    /// This link, which includes the metadata services of clouds.
    LinkLocal,
    /// This site.
    Private,
    /// Everywhere else.
    Public,
}

/// Returns the network that an address is on.
/// Source: RFC 6890; RFC 6598 (100.64.0.0/10); RFC 4193 (fc00::/7); IPv4 inside IPv6 counts as IPv4.
pub(super) fn network_of(address: IpAddr) -> Network {
    match embedded(address.to_canonical()) {
        IpAddr::V4(a) => match a.octets() {
            _ if a.is_loopback() => Network::Loopback,
            [0, ..] => Network::Loopback,
            _ if a.is_link_local() => Network::LinkLocal,
            _ if a.is_private() => Network::Private,
            [100, second, ..] if second & 0xc0 == 64 => Network::Private,
            _ => Network::Public,
        },
        IpAddr::V6(a) if a.is_loopback() || a.is_unspecified() => Network::Loopback,
        IpAddr::V6(a) if a.is_unicast_link_local() => Network::LinkLocal,
        IpAddr::V6(a) if a.is_unique_local() => Network::Private,
        IpAddr::V6(_) => Network::Public,
    }
}

/// Returns the IPv4 address inside an IPv6 one: of a translator, a tunnel, or an old notation.
/// Source: RFC 6052 (64:ff9b::/96), RFC 3056 (2002::/16), RFC 4291 (::a.b.c.d).
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] | [0, 0, 0, 0, 0, 0, high, low] => {
            v4(high, low)
        }
        _ => address,
    }
}

/// Parses a host that is an address in any notation that the resolver understands.
/// Source: POSIX, `inet_addr`: one to four numbers, decimal, octal or hexadecimal.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    if let Ok(address) = bare.parse() {
        return Some(address);
    }
    // `parse` would accept a sign.
    let digits = |text: &&str| text.bytes().all(|b| b.is_ascii_alphanumeric());
    let number = |text: &str| match text.to_ascii_lowercase().strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8).ok(),
        None => text.parse::<u32>().ok(),
    };
    let parts: Vec<u32> =
        bare.split('.').map(|part| Some(part).filter(digits).and_then(number)).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    let head = first.iter().zip([24, 16, 8]).fold(0, |sum, (part, shift)| sum | part << shift);
    // The last number fills the remaining bytes.
    let room = u32::MAX >> (8 * first.len());
    (*last <= room).then(|| IpAddr::V4(Ipv4Addr::from(head | last)))
}

/// Errors: Source: a name for this machine resolves to another one.
pub(super) fn check_loopback(host: &str, addresses: &[IpAddr]) -> Result<()> {
    match addresses.iter().find(|address| network_of(**address) != Network::Loopback) {
        None => Ok(()),
        Some(address) => Err(Error::new(Kind::Source, format!("{host} is {address}, which is not this machine"))
            .at("connect without TLS to", host)),
    }
}

#[derive(Debug, Default)]
struct State {
    /// The network on which each host was reached.
    seen: Vec<(String, Network)>,
    /// While set: only public addresses, and those of this network.
    allowed: Option<Option<Network>>,
}

/// Networks of the servers connected to. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(Arc<Mutex<State>>);

impl Peers {
    /// Restricts connections to public addresses and to the network on which this host was reached.
    /// Input: a host that was connected to, as in its URL.
    pub fn confine_to_network_of(&self, host: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.allowed = Some(state.seen.iter().find(|(seen, _)| seen == host).map(|(_, network)| *network));
    }

    /// Lifts the restriction.
    pub fn set_free(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).allowed = None;
    }

    /// Returns whether a connection to this address is allowed now.
    pub fn may(&self, address: IpAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).may(network_of(address))
    }

    /// Errors: Source: one of a host's addresses is on a network that is not allowed now. A name's owner chooses all its
    /// addresses, so a single one is enough.
    pub fn check(&self, host: &str, addresses: &[IpAddr]) -> Result<()> {
        match addresses.iter().find(|address| !self.may(**address)) {
            None => Ok(()),
            Some(address) => {
                let why = format!("{host} is {address}, on a network that the registry is not on");
                Err(Error::new(Kind::Source, why).at("connect to", "the token server"))
            }
        }
    }

    /// Records the network on which a host was reached.
    pub fn reached(&self, host: &str, address: IpAddr) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.seen.retain(|(seen, _)| seen != host);
        if state.seen.len() >= MAX_SEEN {
            state.seen.remove(0);
        }
        state.seen.push((host.to_owned(), network_of(address)));
    }
}

impl State {
    fn may(&self, network: Network) -> bool {
        network == Network::Public || self.allowed.is_none_or(|allowed| allowed == Some(network))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_addresses() {
        for (address, network) in [
            ("127.0.0.1", Network::Loopback),
            ("127.9.9.9", Network::Loopback),
            ("0.0.0.0", Network::Loopback),
            ("::1", Network::Loopback),
            ("::", Network::Loopback),
            ("::ffff:127.0.0.1", Network::Loopback),
            ("169.254.169.254", Network::LinkLocal),
            ("fe80::1", Network::LinkLocal),
            ("febf::1", Network::LinkLocal),
            ("10.1.2.3", Network::Private),
            ("172.31.0.1", Network::Private),
            ("192.168.1.1", Network::Private),
            ("100.127.0.1", Network::Private),
            ("fd00::1", Network::Private),
            ("::ffff:10.0.0.1", Network::Private),
            ("64:ff9b::a9fe:a9fe", Network::LinkLocal),
            ("2002:a00:1::1", Network::Private),
            ("::7f00:1", Network::Loopback),
            ("64:ff9b::c000:201", Network::Public),
            ("172.32.0.1", Network::Public),
            ("100.128.0.1", Network::Public),
            ("192.0.2.1", Network::Public),
            ("2001:db8::1", Network::Public),
        ] {
            assert_eq!(network_of(address.parse().unwrap()), network, "{address}");
        }
    }

    #[test]
    fn a_confined_client_reaches_public_addresses_and_the_hosts_own_network() {
        let peers = Peers::default();
        let ips = |text: &str| text.split(' ').map(|a| a.parse::<IpAddr>().unwrap()).collect::<Vec<_>>();
        peers.reached("r", ips("10.0.0.1")[0]);
        peers.confine_to_network_of("r");
        for (addresses, allowed) in [
            ("10.9.9.9", true),
            ("192.0.2.1", true),
            ("64:ff9b::a9fe:a9fe", false),
            ("2002:7f00:1::1", false),
            ("127.0.0.1", false),
            // One forbidden address of several is enough.
            ("192.0.2.1 169.254.169.254", false),
        ] {
            assert_eq!(peers.check("t", &ips(addresses)).is_ok(), allowed, "{addresses}");
        }
        // A name's other addresses say nothing about the network that its server is on.
        peers.set_free();
        assert!(peers.check("r", &ips("192.0.2.1 127.0.0.1 169.254.169.254")).is_ok());
        peers.reached("r", ips("192.0.2.1")[0]);
        peers.confine_to_network_of("r");
        assert!(!peers.may(ips("127.0.0.1")[0]) && !peers.may(ips("10.9.9.9")[0]) && peers.may(ips("192.0.2.9")[0]));
        peers.confine_to_network_of("unknown");
        assert!(peers.check("t", &ips("10.9.9.9")).is_err());
        peers.set_free();
        assert!(peers.check("t", &ips("127.0.0.1")).is_ok());
        for host in 0..1000 {
            peers.reached(&host.to_string(), ips("10.0.0.1")[0]);
        }
        assert!(peers.0.lock().unwrap().seen.len() <= MAX_SEEN);
    }

    #[test]
    fn a_name_of_this_machine_leads_nowhere_else() {
        for (addresses, allowed) in [
            ("127.0.0.1 ::1", true),
            ("127.9.9.9", true),
            ("10.1.2.3", false),
            ("127.0.0.1 10.1.2.3", false),
            ("192.0.2.1", false),
            ("fe80::1", false),
        ] {
            let addresses: Vec<IpAddr> = addresses.split(' ').map(|a| a.parse().unwrap()).collect();
            assert_eq!(check_loopback("localhost", &addresses).is_ok(), allowed, "{addresses:?}");
        }
    }

    #[test]
    fn addresses_as_the_resolver_reads_them() {
        for (host, address) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("[::1]", Some("::1")),
            ("2852039166", Some("169.254.169.254")),
            ("0x7f.1", Some("127.0.0.1")),
            ("0177.0.0.01", Some("127.0.0.1")),
            ("10.1.258", Some("10.1.1.2")),
            ("127.1.", Some("127.0.0.1")),
            ("10.256.0.1", None),
            ("256.1", None),
            ("1.2.3.4.5", None),
            ("4294967296", None),
            ("registry.example", None),
            ("0XA9FEA9FE", Some("169.254.169.254")),
            ("0", Some("0.0.0.0")),
            ("1.2.65536", None),
            ("08.1", None),
            ("+1", None),
            ("0x+1", None),
            ("1..2", None),
            ("0x", None),
            ("", None),
        ] {
            assert_eq!(literal(host), address.map(|a| a.parse().unwrap()), "{host}");
        }
    }
}
