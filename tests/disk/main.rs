//! The agent on disk images with two slots: loop devices, servers on loopback, a containerd.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod apply;
mod bad_input;
mod bad_machine;
mod blame;
mod chroot;
mod concurrent;
mod demo;
mod health;
mod health_node;
mod hostile;
mod hostile_documents;
mod hostile_files;
mod hostile_redirects;
mod hostile_state;
mod image;
mod kill;
mod lifecycle;
mod memory;
mod metrics;
mod metrics_server;
mod partitions;
mod prometheus;
mod rollback;
mod slot_digests;
mod status;
mod window;

fn main() -> std::process::ExitCode {
    support::harness::main()
}
