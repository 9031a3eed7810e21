//! The agent against registries and proxies, and what is signed there: docker-registry, ferro-oci-server, oras, cosign.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod chunks;
mod cleaning;
mod client_certificates;
mod initramfs_layers;
mod inspect;
mod inspect_alone;
mod key_rotation;
mod latest;
mod names;
mod other_formats;
mod proxies;
mod quick_start;
mod registries;
mod registry_auth;
mod revoked_digests;
mod self_signed;
mod server_starts;
mod signature_lists;
mod signatures;
mod signing_refused;
mod signing_scripts;
mod sources;
mod tls;
mod unknown_names;
mod unread;

fn main() -> std::process::ExitCode {
    support::harness::main()
}
