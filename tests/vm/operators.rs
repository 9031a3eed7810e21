//! docs/operators.md, followed from an empty directory: every block, in order, as it stands there.

use crate::support::disk::need_disks;
use crate::support::kit::{Firmware, need_vm, repo};
use crate::support::need_all;
use crate::support::walkthrough::{Walk, blocks};
use std::fs;
use std::net::TcpListener;

/// Ports that the document names; the test takes free ones.
const PORTS: [u16; 2] = [8080, 5000];

#[apply(long_test)]
fn the_operators_guide_leads_from_an_empty_directory_to_an_updated_and_rolled_back_machine() {
    need_vm(Firmware::Bios);
    need_disks();
    need_all(&["oras", "docker-registry"]);
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
    let mut walk = Walk::new(dir.path(), &[("KUBESOLO", repo().to_str().unwrap()), ("LC_ALL", "C")]);
    let blocks = blocks(&document);
    assert!(blocks.iter().filter(|b| b.info == "sh on the machine").count() >= 6, "where have they gone?");
    for block in &blocks {
        println!("line {}: {}", block.line, block.info);
        walk.follow(block);
    }
}
