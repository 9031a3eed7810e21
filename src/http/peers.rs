//! Which network a server is on, seen at the moment of connecting, when names are addresses.
//!
//! A registry chooses where its tokens come from. It must not thereby choose that we talk to something inside the
//! site, or on this machine, that it could not reach itself.
//! Must never: judge a name by itself, since its owner says what it means.

use crate::error::{Error, Kind, Result};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Most servers that are remembered: more than one run ever talks to.
const MAX_SEEN: usize = 16;

/// What kind of network an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// This machine.
    Loopback,
    /// This cable; the metadata services of clouds as well.
    LinkLocal,
    /// This site.
    Private,
    /// Everywhere else.
    Public,
}

/// Says which network an address is on.
/// Source: RFC 6890; RFC 6598 (100.64.0.0/10); RFC 4193 (fc00::/7); IPv4 inside IPv6 counts as IPv4.
pub(super) fn network_of(address: IpAddr) -> Network {
    match address.to_canonical() {
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

#[derive(Debug, Default)]
struct State {
    seen: Vec<(String, Vec<Network>)>,
    /// While set: only public addresses, and these.
    allowed: Option<Vec<Network>>,
}

/// What is known of the servers that were connected to. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(Arc<Mutex<State>>);

impl Peers {
    /// From now on connections are made to public addresses, and to networks that this host is on; others are refused.
    /// Input: a host that was connected to, as in its URL.
    pub fn confine_to_networks_of(&self, host: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.seen.iter().find(|(seen, _)| seen == host).map(|(_, networks)| networks.clone());
        state.allowed = Some(known.unwrap_or_default());
    }

    /// Ends that.
    pub fn set_free(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).allowed = None;
    }

    /// Says whether a connection to this address may be used now.
    pub fn may(&self, address: IpAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).may(network_of(address))
    }

    /// Remembers where a host is. Input: none: a proxy knows, and decides.
    /// Errors: Source: one of its addresses is on a network that is not allowed now.
    pub fn note(&self, host: &str, addresses: &[IpAddr]) -> Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = addresses.iter().find(|a| !state.may(network_of(**a))) {
            let why = format!("{host} is {address}, on a network that the registry is not on");
            return Err(Error::new(Kind::Source, why).at("connect to", "the token server"));
        }
        state.seen.retain(|(seen, _)| seen != host);
        if state.seen.len() >= MAX_SEEN {
            state.seen.remove(0);
        }
        state.seen.push((host.to_owned(), addresses.iter().map(|a| network_of(*a)).collect()));
        Ok(())
    }
}

impl State {
    fn may(&self, network: Network) -> bool {
        network == Network::Public || self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&network))
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
            ("172.32.0.1", Network::Public),
            ("100.128.0.1", Network::Public),
            ("192.0.2.1", Network::Public),
            ("2001:db8::1", Network::Public),
        ] {
            assert_eq!(network_of(address.parse().unwrap()), network, "{address}");
        }
    }

    #[test]
    fn a_confined_client_reaches_public_addresses_and_the_hosts_own_networks() {
        let peers = Peers::default();
        let ip = |text: &str| text.split(' ').map(|a| a.parse::<IpAddr>().unwrap()).collect::<Vec<_>>();
        assert!(peers.note("r", &ip("10.0.0.1")).is_ok());
        peers.confine_to_networks_of("r");
        assert!(peers.note("t", &ip("10.9.9.9")).is_ok());
        assert!(peers.note("t", &ip("192.0.2.1")).is_ok());
        assert!(peers.note("t", &ip("127.0.0.1")).is_err());
        assert!(peers.may(ip("10.9.9.9")[0]) && !peers.may(ip("169.254.169.254")[0]));
        // One address of several is enough.
        assert!(peers.note("t", &ip("192.0.2.1 169.254.169.254")).is_err());
        peers.confine_to_networks_of("unknown");
        assert!(peers.note("t", &ip("10.9.9.9")).is_err());
        peers.set_free();
        assert!(peers.note("t", &ip("127.0.0.1")).is_ok());
        for host in 0..1000 {
            assert!(peers.note(&host.to_string(), &ip("10.0.0.1")).is_ok());
        }
        assert!(peers.0.lock().unwrap().seen.len() <= MAX_SEEN);
    }
}
