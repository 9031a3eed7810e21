//! The scripts that publish and provision: layouts, `latest.json`, registries, container images, sticks.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod chunks;
mod dates;
mod http;
mod inject;
mod inject_site;
mod layout;
mod lint;
mod lint_trust;
mod oci_images;
mod older;
mod partial;
mod registry;
mod signed_tags;
mod split;
mod target_arch;
mod upload_release;
mod usage;
mod usb_files;
mod usb_in_use;
mod usb_provision;

fn main() -> std::process::ExitCode {
    support::harness::main()
}
