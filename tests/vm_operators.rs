//! docs/operators.md, followed from an empty directory: every block, in order, as it stands there.

mod support;

use std::fs;
use std::net::TcpListener;
use support::kit::{Firmware, need_vm, repo};
use support::walkthrough::{Walk, blocks};
use support::{disk::need_disks, need};

/// Ports that the document names; the test takes free ones.
const PORTS: [u16; 2] = [8080, 5000];

#[test]
fn the_operators_guide_leads_from_an_empty_directory_to_an_updated_and_rolled_back_machine() {
    if !need_vm(Firmware::Bios) || !need_disks() || !["oras", "docker-registry"].into_iter().all(need) {
        return;
    }
    let mut document = fs::read_to_string(repo().join("docs/operators.md")).unwrap();
    let free = PORTS.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    for (port, listener) in PORTS.iter().zip(&free) {
        let own = listener.local_addr().unwrap().port();
        document = document
            .replace(&format!(":{port}"), &format!(":{own}"))
            .replace(&format!(" {port} "), &format!(" {own} "));
    }
    drop(free);
    let dir = tempfile::tempdir().unwrap();
    // Another directory of cargo's would be another build.
    let home = std::env::var("HOME").unwrap();
    let cargo = std::env::var("CARGO_HOME").unwrap_or(format!("{home}/.cargo"));
    let rustup = std::env::var("RUSTUP_HOME").unwrap_or(format!("{home}/.rustup"));
    let environment =
        [("KUBESOLO", repo().to_str().unwrap()), ("CARGO_HOME", &cargo), ("RUSTUP_HOME", &rustup), ("LC_ALL", "C")];
    let mut walk = Walk::new(dir.path(), &environment);
    let blocks = blocks(&document);
    assert!(blocks.iter().filter(|b| b.info == "sh on the machine").count() >= 6, "where have they gone?");
    for block in &blocks {
        println!("line {}: {}", block.line, block.info);
        walk.follow(block);
    }
}
