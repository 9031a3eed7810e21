//! The agent's own releases, the pipelines and the builder's image.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod builder;
mod licenses;
mod made;
mod pipelines;
mod refused;
mod vendored;

fn main() -> std::process::ExitCode {
    support::harness::main()
}
