//! `device`: prints the device node of the boot disk's partition with a label, for init and its hooks, by the same code as the
//! other commands.
//!
//! Must never: mount, lock, write, or read a configuration; or name a partition of another disk.

use crate::base::error::{Error, Kind, Result};
use crate::cli::publishers::Device;
use crate::cmd::Outcome;
use crate::cmd::answer::Reply;
use crate::cmd::words::say;
use crate::disk::partition::OURS;
use crate::machine;
use crate::os::system::System;

/// Runs the command.
/// Errors: Usage: not one of our labels. Device: no such partition, or the boot disk is not known.
pub fn run(system: &System, args: &Device, out: &mut Reply) -> Result<Outcome> {
    let label = &args.label;
    if !OURS.contains(&label.as_str()) {
        let hint = ["the labels are ", &OURS.join(", ")].concat();
        return Err(Error::new(Kind::Usage, "there is no such label").at("find partition", label).hint(hint));
    }
    let node = machine::device(system, label)?.display().to_string();
    out.result("found");
    out.members.field("label", label);
    out.members.field("device", &node);
    // Unchanged: a folded line, or shortened digests, would be another path.
    say(out, &node)?;
    Ok(Outcome::Done)
}
