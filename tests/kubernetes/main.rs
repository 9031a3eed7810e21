//! The manifests, and the containers that they describe.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod kubeconfigs;
mod manifests;
mod node_lists;
mod run;
mod whole_node;
mod workloads;

fn main() -> std::process::ExitCode {
    support::harness::main()
}
