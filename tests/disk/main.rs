//! The agent on disk images with two slots: loop devices, servers on loopback, a containerd.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod answers;
mod apply;
mod bad_input;
mod bad_machine;
mod blame;
mod boot_hook;
mod chroot;
mod concurrent;
mod demo;
mod health;
mod health_hook;
mod health_node;
mod health_start;
mod hostile;
mod hostile_chunks;
mod hostile_documents;
mod hostile_files;
mod hostile_framing;
mod hostile_indexes;
mod hostile_ranges;
mod hostile_redirects;
mod hostile_state;
mod image;
mod kill;
mod kill_chunks;
mod lifecycle;
mod memory;
mod metrics;
mod metrics_server;
mod no_way_back;
mod onlookers;
mod own_files;
mod partitions;
mod patience;
mod permissions;
mod prometheus;
mod remake;
mod reuse;
mod rollback;
mod rollback_count;
mod screens;
mod site_lists;
mod slot_digests;
mod status;
mod waiting;
mod way_on;
mod window;

fn main() -> std::process::ExitCode {
    support::harness::main()
}
