//! GRUB alone, in QEMU, without Linux.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod config_lost;
mod menu;
mod platforms;
mod table;
mod versions;

fn main() -> std::process::ExitCode {
    support::harness::main()
}
