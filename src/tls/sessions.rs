//! TLS sessions that may be taken up again, of a few servers: a short list, searched from its beginning.
//!
//! rustls's own store is a hash map, and keeps one server where it is asked for eight sessions.
//! Must never: hand out a ticket of TLS 1.3 twice (RFC 8446, appendix C.4), or grow with what a server sends.

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Servers remembered, the one that was met first is given up first: a registry, its token server, a few redirects.
const SERVERS: usize = 8;
/// Tickets kept of each, the newest is used first: OpenSSL sends 2, Go 1.
const TICKETS: usize = 4;

/// What is remembered, in the order in which the servers were met.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Vec<Server>>);

#[derive(Debug)]
struct Server {
    name: ServerName<'static>,
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: Vec<Tls13ClientSessionValue>,
}

impl Sessions {
    fn servers(&self) -> MutexGuard<'_, Vec<Server>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'s>(servers: &'s mut [Server], name: &ServerName<'_>) -> Option<&'s mut Server> {
    servers.iter_mut().find(|s| s.name == *name)
}

/// Finds a server's entry, or makes it, and room for it.
fn entry<'s>(servers: &'s mut Vec<Server>, name: ServerName<'static>) -> &'s mut Server {
    let at = servers.iter().position(|s| s.name == name).unwrap_or_else(|| {
        push(servers, Server { name, group: None, tls12: None, tls13: Vec::new() }, SERVERS);
        servers.len() - 1
    });
    &mut servers[at]
}

/// Adds at the end; where there are `most`, the first goes.
fn push<T>(list: &mut Vec<T>, new: T, most: usize) {
    if list.len() == most {
        list.remove(0);
    }
    list.push(new);
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        entry(&mut self.servers(), name).group = Some(group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        find(&mut self.servers(), name)?.group
    }

    fn set_tls12_session(&self, name: ServerName<'static>, session: Tls12ClientSessionValue) {
        entry(&mut self.servers(), name).tls12 = Some(session);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        find(&mut self.servers(), name)?.tls12.clone()
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        if let Some(server) = find(&mut self.servers(), name) {
            server.tls12 = None;
        }
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        push(&mut entry(&mut self.servers(), name).tls13, ticket, TICKETS);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        find(&mut self.servers(), name)?.tls13.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(host: &str) -> ServerName<'static> {
        ServerName::try_from(host.to_owned()).unwrap()
    }

    #[test]
    fn remembers_each_server_on_its_own() {
        let sessions = Sessions::default();
        sessions.set_kx_hint(name("registry.example"), NamedGroup::secp256r1);
        sessions.set_kx_hint(name("cdn.example"), NamedGroup::secp384r1);
        assert_eq!(sessions.kx_hint(&name("registry.example")), Some(NamedGroup::secp256r1));
        assert_eq!(sessions.kx_hint(&name("CDN.example")), Some(NamedGroup::secp384r1));
        assert_eq!(sessions.kx_hint(&name("other.example")), None);
        sessions.set_kx_hint(name("cdn.example"), NamedGroup::secp256r1);
        assert_eq!(sessions.kx_hint(&name("cdn.example")), Some(NamedGroup::secp256r1));
        assert_eq!(sessions.servers().len(), 2);
    }

    #[test]
    fn gives_up_the_server_that_was_met_first() {
        let sessions = Sessions::default();
        for n in 0..=SERVERS {
            sessions.set_kx_hint(name(&format!("s{n}.example")), NamedGroup::secp256r1);
        }
        assert_eq!(sessions.servers().len(), SERVERS);
        assert_eq!(sessions.kx_hint(&name("s0.example")), None);
        for n in 1..=SERVERS {
            assert_eq!(sessions.kx_hint(&name(&format!("s{n}.example"))), Some(NamedGroup::secp256r1));
        }
    }

    #[test]
    fn the_newest_are_kept_and_no_more() {
        let mut list = Vec::new();
        for n in 0..7 {
            push(&mut list, n, TICKETS);
        }
        assert_eq!(list, [3, 4, 5, 6]);
    }
}
