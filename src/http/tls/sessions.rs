//! Resumable TLS sessions of a few servers: a short list, searched linearly.
//!
//! rustls's own store is a hash map, and keeps one server where it is asked for eight sessions.
//! Must never: hand out a ticket of TLS 1.3 twice (RFC 8446, appendix C.4), or grow with what a server sends.

use crate::os::sys::thread::lock;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use std::sync::{Mutex, MutexGuard};

/// Servers remembered; the one added first is dropped first: a registry, its token server, a few redirects.
const SERVERS: usize = 8;
/// Tickets kept for each; the newest is used first: OpenSSL sends 2, Go 1.
const TICKETS: usize = 4;

/// Servers with their sessions, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Vec<Server>>);

#[derive(Debug)]
struct Server {
    name: ServerName<'static>,
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: Vec<Tls13ClientSessionValue>,
}

impl Sessions {
    fn servers(&self) -> MutexGuard<'_, Vec<Server>> {
        lock(&self.0)
    }
}

fn find<'s>(servers: &'s mut [Server], name: &ServerName<'_>) -> Option<&'s mut Server> {
    servers.iter_mut().find(|s| s.name == *name)
}

/// Finds a server's entry, or adds one, dropping the oldest if full.
fn entry<'s>(servers: &'s mut Vec<Server>, name: ServerName<'static>) -> &'s mut Server {
    let at = servers.iter().position(|s| s.name == name).unwrap_or_else(|| {
        push(servers, Server { name, group: None, tls12: None, tls13: Vec::new() }, SERVERS);
        servers.len() - 1
    });
    &mut servers[at]
}

/// Appends an element; if there are `most` already, the first is dropped.
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
pub(crate) mod tests {
    use super::*;
    use crate::base::clock::Now;
    use crate::http::crypto;
    use crate::http::tls::{Clock, Pem, Trust};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{
        ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection, SupportedProtocolVersion,
    };
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::Arc;
    use std::time::{SystemTime, UNIX_EPOCH};

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

    /// Makes a certificate for `registry.example` and a server that uses it, for one version of TLS.
    pub(crate) fn server(
        dir: &std::path::Path,
        version: &'static SupportedProtocolVersion,
    ) -> (PathBuf, Arc<ServerConfig>) {
        let (key, pem) = (dir.join("key.pem"), dir.join("ca.pem"));
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=r".split(' '))
            .args(["-addext", "subjectAltName=DNS:registry.example", "-keyout"])
            .args([key.as_os_str(), "-out".as_ref(), pem.as_os_str()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let chain = vec![CertificateDer::from_pem_file(&pem).unwrap()];
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
            .unwrap();
        config.send_tls13_tickets = 2;
        (pem, Arc::new(config))
    }

    /// Performs a handshake in memory and reads what the server sends after it. Returns whether a session was resumed.
    fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> HandshakeKind {
        let mut client = ClientConnection::new(client.clone(), name("registry.example")).unwrap();
        let mut server = ServerConnection::new(server.clone()).unwrap();
        while client.wants_write() || server.wants_write() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        client.handshake_kind().unwrap()
    }

    #[test]
    fn sessions_are_taken_up_again_in_both_versions() {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let dir = tempfile::tempdir().unwrap();
            let (pem, server) = server(dir.path(), version);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let now: Clock = Arc::new(move || Now::new(now, 0));
            let trust = Trust {
                ca: Some(Pem::File(pem)),
                ca_candidates: vec![],
                now,
                floor_secs: 0,
                shares_clock: false,
                server_name: None,
                identity: None,
            };
            let [unknown, known] = trust.client_configs().unwrap();
            assert_eq!(handshake(&unknown, &server), HandshakeKind::Full, "{version:?}");
            assert_eq!(handshake(&unknown, &server), HandshakeKind::Resumed, "{version:?}");
            // A client that may show its identity must not resume a session of one that may not.
            assert_eq!(handshake(&known, &server), HandshakeKind::Full, "{version:?}");
            assert_eq!(handshake(&known, &server), HandshakeKind::Resumed, "{version:?}");
        }
    }
}
