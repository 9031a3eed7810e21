//! What GRUB told the kernel about this boot. Pure.
//!
//! `kubesolo.slot=A` names the running slot, `kubesolo.part=<GUID>` the partition it came from.
//! Must never: guess a slot that was not named.

use crate::slot::Slot;

/// Says what the kernel command line knows of this boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootedFrom {
    /// The running slot.
    pub slot: Option<Slot>,
    /// Unique GUID of its partition, lower case.
    pub partition_guid: Option<String>,
}

/// Reads a kernel command line.
/// Input: the content of `/proc/cmdline`. The last of several equal words counts, as in the kernel.
pub fn parse(cmdline: &str) -> BootedFrom {
    let mut from = BootedFrom::default();
    for word in cmdline.split_ascii_whitespace() {
        if let Some(slot) = word.strip_prefix("kubesolo.slot=") {
            from.slot = Slot::parse(slot);
        } else if let Some(guid) = word.strip_prefix("kubesolo.part=") {
            let guid = guid.to_ascii_lowercase();
            let shaped = guid.len() == 36 && guid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
            from.partition_guid = shaped.then_some(guid);
        }
    }
    from
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
        assert_eq!(from, BootedFrom { slot: Some(Slot::B), partition_guid: Some(guid.into()) });
    }

    #[test]
    fn senseless_values_count_as_absent() {
        for text in ["", "kubesolo.slot=C", "kubesolo.slot=", "xkubesolo.slot=A", "kubesolo.slot=A kubesolo.slot=a"] {
            assert_eq!(parse(text).slot, None, "{text}");
        }
        assert_eq!(parse("kubesolo.part=../../sda1").partition_guid, None);
        assert_eq!(parse("kubesolo.slot=A kubesolo.slot=B").slot, Some(Slot::B));
    }
}
