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

/// A machine that is a few lines of shell: its health check says its words behind the prompt, as on a busy host.
const SAYS_IT_LATE: &str = r#"
```sh in a second terminal
timeout 20 sh -c 'printf "TEST: version 1\n~ # healthy\n"; read -r line; printf "%s\nanswer to %s\n" "$line" "$line"'
```
```text
TEST: version 1
healthy
```
```sh on the machine
status
```
```text
answer to status
```
"#;

#[apply(test)]
fn words_behind_a_prompt_do_not_hide_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut walk = Walk::new(dir.path(), &[]);
    blocks(SAYS_IT_LATE).iter().for_each(|block| walk.follow(block));
}
