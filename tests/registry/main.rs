//! The agent against registries and proxies, and what is signed there: docker-registry, ferro-oci-server, oras, cosign.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod initramfs_layers;
mod key_rotation;
mod latest;
mod proxies;
mod quick_start;
mod registries;
mod registry_auth;
mod self_signed;
mod server_starts;
mod signature_lists;
mod signatures;
mod signing_refused;
mod signing_scripts;
mod sources;
mod tls;

fn main() -> std::process::ExitCode {
    support::harness::main()
}
