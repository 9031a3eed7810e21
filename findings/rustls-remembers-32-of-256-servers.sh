#!/bin/sh
# A rustls client that is documented to take up the sessions of 256 server names again remembers 32; asked for 8 sessions, one.
#
# Guessed: what its documentation says: `Resumption::in_memory_sessions(8)` "stores data for the given number of sessions", so that
#          a second connection to each of 8 servers, met once each, is a resumed one; a ClientConfig as it comes "supports
#          resumption with up to 256 server names".
# Seen:    the number is divided by 8, the most tickets that are kept of one server, whatever a server has sent, and with TLS 1.2
#          too, where it has one session at most. With 8 the first server is a full handshake again as soon as there is a second,
#          by default as soon as there are 33. Only `ClientSessionMemoryCache::new` says so. rustls 0.23.46, ring 0.17.14.
# Matters: a registry, its token server and where it redirects to are three names: a store of "eight sessions" knows the last of
#          them alone, and every connection to the others costs a whole handshake. The agent has a store of its own
#          (src/http/tls/sessions.rs).
set -eu
# shellcheck source=findings/lib/crates.sh
. "$(dirname -- "$0")/lib/crates.sh"

main() {
    no_arguments "$@"
    begin
    program >"$WORK/sessions.rs"
    build_pinned sessions 'rustls = { version = "=0.23.46", default-features = false, features = ["ring", "std", "tls12"] }' \
        'ring = "=0.17.14"' 'rcgen = { version = "=0.14.10", default-features = false, features = ["crypto", "ring"] }'
    timeout 300 "$WORK/sessions" >"$WORK/seen" 2>"$WORK/errors" || cannot "the program ends early: $(tail -n 3 "$WORK/errors")"
    cat "$WORK/seen"
    expected >"$WORK/expected"
    diff "$WORK/expected" "$WORK/seen" >"$WORK/diff" || changed "$(cat "$WORK/diff")"
    say "as found: an eighth of the number, in servers"
}

# Of how many servers the first is resumed. Guessed: 8, 8, 264, 256, 256.
expected() {
    cat <<'END'
TLS 1.3, in_memory_sessions(8): 1
TLS 1.2, in_memory_sessions(8): 1
TLS 1.3, in_memory_sessions(264): 33
TLS 1.3, as it comes: 32
TLS 1.2, as it comes: 32
END
}

program() {
    cat <<'END'
use rustls::client::Resumption;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};
use std::sync::Arc;

/// More than anyone asks for here.
const MOST: usize = 300;

fn name(number: usize) -> String {
    format!("server-{number}.example")
}

/// One connection, handshake and tickets, without a network: what one side writes the other reads.
fn connect(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, number: usize) -> HandshakeKind {
    let name = ServerName::try_from(name(number)).unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    for _ in 0..20 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.handshake_kind(), server.handshake_kind());
    client.handshake_kind().unwrap()
}

fn main() {
    let names: Vec<String> = (0..MOST).map(name).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
    // The server remembers nothing, and forgets nothing: what decides is the client's store.
    server.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
    let server = Arc::new(server);
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();

    let client = |version: &'static SupportedProtocolVersion, sessions: Option<usize>| {
        let mut client =
            ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots.clone()).with_no_client_auth();
        if let Some(sessions) = sessions {
            client.resumption = Resumption::in_memory_sessions(sessions);
        }
        Arc::new(client)
    };
    // Of how many servers, met once each, the first is still known.
    let known = |version, sessions| {
        let known = |servers: usize| {
            let client = client(version, sessions);
            for number in 0..servers {
                assert_eq!(connect(&client, &server, number), HandshakeKind::Full);
            }
            connect(&client, &server, 0) == HandshakeKind::Resumed
        };
        (1..=MOST).take_while(|&servers| known(servers)).last().unwrap_or(0)
    };
    let (old, new) = (&rustls::version::TLS12, &rustls::version::TLS13);
    println!("TLS 1.3, in_memory_sessions(8): {}", known(new, Some(8)));
    println!("TLS 1.2, in_memory_sessions(8): {}", known(old, Some(8)));
    println!("TLS 1.3, in_memory_sessions(264): {}", known(new, Some(264)));
    println!("TLS 1.3, as it comes: {}", known(new, None));
    println!("TLS 1.2, as it comes: {}", known(old, None));
}
END
}

main "$@"
