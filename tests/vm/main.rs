//! Whole machines in QEMU: GRUB, Linux, the agent, and power cuts.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod chunk_cuts;
mod clock;
mod damage;
mod hooks;
mod initramfs;
mod lost_writes;
mod operators;
mod power_cuts;
mod provision;
mod resume;
mod rollbacks;
mod script;
mod updates;

fn main() -> std::process::ExitCode {
    support::harness::main()
}
