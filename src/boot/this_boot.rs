//! What GRUB told the kernel about this boot. Pure, but for [`boot_id`].
//!
//! `kubesolo.slot=A` names the running slot, `kubesolo.part=<GUID>` the partition it came from, `kubesolo.skipped=B`
//! the slot that GRUB tried first and could not load.
//! Must never: guess a slot that was not named.

use crate::os::files::read_bounded;
use crate::os::system::System;
use crate::slot::record::Slot;

/// Longest boot id that is read, in bytes; the kernel's has 37.
const BOOT_ID_MAX_BYTES: u64 = 256;

/// What the kernel command line tells of this boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootedFrom {
    /// The running slot.
    pub slot: Option<Slot>,
    /// Unique GUID of its partition, lower case.
    pub partition_guid: Option<String>,
    /// The other slot, if GRUB tried it first in this boot and it did not load.
    pub skipped: Option<Slot>,
}

/// Reads a kernel command line.
/// Input: the content of `/proc/cmdline`. The last of several equal keys counts, as in the kernel.
pub fn parse(cmdline: &str) -> BootedFrom {
    let mut from = BootedFrom::default();
    for word in cmdline.split_ascii_whitespace() {
        if let Some(slot) = word.strip_prefix("kubesolo.slot=") {
            from.slot = Slot::parse(slot);
        } else if let Some(guid) = word.strip_prefix("kubesolo.part=") {
            let guid = guid.to_ascii_lowercase();
            let shaped = guid.len() == 36 && guid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
            from.partition_guid = shaped.then_some(guid);
        } else if let Some(slot) = word.strip_prefix("kubesolo.skipped=") {
            from.skipped = Slot::parse(slot);
        }
    }
    // The running slot was not skipped, and without a running slot the word means nothing.
    from.skipped = from.skipped.filter(|skipped| from.slot == Some(skipped.other()));
    from
}

/// Returns the id of this boot, if readable.
pub fn boot_id(system: &System) -> Option<String> {
    let bytes = read_bounded(&system.boot_id(), BOOT_ID_MAX_BYTES).ok()??;
    Some(String::from_utf8(bytes).ok()?.trim().to_string()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_slot_and_partition() {
        let guid = "0fc63daf-8483-4772-8e79-3d69d8477de4";
        let from = parse(&format!(
            "BOOT_IMAGE=/vmlinuz quiet kubesolo.slot=B panic=10 kubesolo.part={}\n",
            guid.to_uppercase()
        ));
        assert_eq!(from, BootedFrom { slot: Some(Slot::B), partition_guid: Some(guid.into()), skipped: None });
    }

    #[test]
    fn senseless_values_count_as_absent() {
        for text in ["", "kubesolo.slot=C", "kubesolo.slot=", "xkubesolo.slot=A", "kubesolo.slot=A kubesolo.slot=a"] {
            assert_eq!(parse(text).slot, None, "{text}");
        }
        assert_eq!(parse("kubesolo.part=../../sda1").partition_guid, None);
        assert_eq!(parse("kubesolo.slot=A kubesolo.slot=B").slot, Some(Slot::B));
    }

    #[test]
    fn only_the_other_slot_can_have_been_skipped() {
        let skipped = |text| parse(text).skipped;
        assert_eq!(skipped("kubesolo.slot=A panic=10 kubesolo.skipped=B quiet"), Some(Slot::B));
        assert_eq!(skipped("kubesolo.skipped=A kubesolo.slot=B"), Some(Slot::A));
        for text in [
            "kubesolo.slot=A",
            "kubesolo.slot=A kubesolo.skipped=A",
            "kubesolo.slot=A kubesolo.skipped=",
            "kubesolo.slot=A kubesolo.skipped=b",
            "kubesolo.slot=A kubesolo.skipped=B kubesolo.skipped=x",
            "kubesolo.slot=A xkubesolo.skipped=B",
            "kubesolo.skipped=B",
        ] {
            assert_eq!(skipped(text), None, "{text}");
        }
    }
}
