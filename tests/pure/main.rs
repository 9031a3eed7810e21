//! What needs no root: formats against the tools that have them too, scripts that write files, documents.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod completions;
mod crates;
mod deps;
mod documents;
mod first_words;
mod grubenv;
mod grubenv_file;
mod grubenv_repair;
mod harness;
mod long_tests;
mod man_page;
mod p256;
mod pictures;
mod scripts;
mod signature_bits;
mod start;
mod threat_model;
mod wings;

fn main() -> std::process::ExitCode {
    if let Some(dir) = std::env::var_os(grubenv_file::CHILD) {
        grubenv_file::child_saves_a_trial(dir.as_ref());
        return std::process::ExitCode::SUCCESS;
    }
    support::harness::main()
}
