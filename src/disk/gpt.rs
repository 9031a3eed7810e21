//! Finds a partition's number by its unique GUID in a GUID partition table, and its name. Pure.
//!
//! Source: UEFI 2.10 section 5.3. Must never: trust a table whose checksums do not match.

use flate2::Crc;

/// Size of a header that this module reads, in bytes.
const HEADER_BYTES: usize = 92;
/// Largest entry array that is read: 1 MiB is 64 times the specification's minimum.
const ENTRIES_MAX_BYTES: u64 = 1024 * 1024;

/// Where a table's entries lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// First logical block of the entry array.
    pub entries_lba: u64,
    /// Length of the array, in bytes.
    pub entries_bytes: usize,
    entry_bytes: usize,
    entries_crc: u32,
}

/// Reads a GPT header.
/// Input: the logical block that holds it (LBA 1, or the last one for the backup).
/// Returns: `None` if there is no header, or a damaged one.
pub fn header(block: &[u8]) -> Option<Header> {
    let size = u32_at(block, 12)? as usize;
    if block.get(..8)? != b"EFI PART" || size < HEADER_BYTES || size > block.len() {
        return None;
    }
    let mut checked = block[..size].to_vec();
    checked[16..20].fill(0);
    if crc32(&checked) != u32_at(block, 16)? {
        return None;
    }
    let (count, entry_bytes) = (u64::from(u32_at(block, 80)?), u64::from(u32_at(block, 84)?));
    let entries_bytes = count.checked_mul(entry_bytes)?;
    if entry_bytes < 128 || entries_bytes == 0 || entries_bytes > ENTRIES_MAX_BYTES {
        return None;
    }
    Some(Header {
        entries_lba: u64_at(block, 72)?,
        entries_bytes: entries_bytes as usize,
        entry_bytes: entry_bytes as usize,
        entries_crc: u32_at(block, 88)?,
    })
}

impl Header {
    /// Finds the partition with a unique GUID.
    /// Input: `entries`: the whole array; `guid`: lower case, with dashes.
    /// Returns: the partition's number, from 1; `None` if it is not there or the array is damaged.
    pub fn find(&self, entries: &[u8], guid: &str) -> Option<u32> {
        let index = self.sound(entries)?.position(|e| is_used(e) && guid_text(&e[16..32]) == guid)?;
        u32::try_from(index + 1).ok()
    }

    /// Reads the name of a partition.
    /// Input: `entries`: the whole array; `number`: from 1.
    /// Returns: `None` if there is no such partition, its name is not UTF-16, or the array is damaged.
    pub fn name(&self, entries: &[u8], number: u32) -> Option<String> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let entry = self.sound(entries)?.nth(index).filter(|e| is_used(e))?;
        let units = entry[56..128].chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
        String::from_utf16(&units.take_while(|unit| *unit != 0).collect::<Vec<u16>>()).ok()
    }

    /// Returns the entries one by one, if their checksum is right.
    fn sound<'e>(&self, entries: &'e [u8]) -> Option<std::slice::ChunksExact<'e, u8>> {
        let entries = entries.get(..self.entries_bytes)?;
        (crc32(entries) == self.entries_crc).then(|| entries.chunks_exact(self.entry_bytes))
    }
}

fn is_used(entry: &[u8]) -> bool {
    entry[..16].iter().any(|b| *b != 0)
}

/// Writes a GUID as GRUB and the kernel do: the first three fields little-endian, lower case.
fn guid_text(bytes: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::with_capacity(36);
    for (i, at) in ORDER.into_iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&crate::base::text::hex(&bytes[at..=at]));
    }
    text
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table as the specification lays it out; tests/disk/partitions.rs reads one that sgdisk made.
    fn table(guid: [u8; 16]) -> (Vec<u8>, Vec<u8>) {
        let mut entries = vec![0u8; 128 * 128];
        entries[256] = 1; // third entry: some type
        entries[272..288].copy_from_slice(&guid);
        let mut head = vec![0u8; 512];
        head[..8].copy_from_slice(b"EFI PART");
        head[12..16].copy_from_slice(&92u32.to_le_bytes());
        head[72..80].copy_from_slice(&2u64.to_le_bytes());
        head[80..84].copy_from_slice(&128u32.to_le_bytes());
        head[84..88].copy_from_slice(&128u32.to_le_bytes());
        head[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        let sum = crc32(&head[..92]);
        head[16..20].copy_from_slice(&sum.to_le_bytes());
        (head, entries)
    }

    const GUID: [u8; 16] =
        [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
    const TEXT: &str = "67452301-ab89-efcd-0123-456789abcdef";

    #[test]
    fn finds_the_number() {
        let (head, entries) = table(GUID);
        let header = header(&head).unwrap();
        assert_eq!((header.entries_lba, header.entries_bytes), (2, 16384));
        assert_eq!(header.find(&entries, TEXT), Some(3));
        assert_eq!(header.find(&entries, "00000000-0000-0000-0000-000000000000"), None);
    }

    #[test]
    fn damage_is_not_believed() {
        let (head, entries) = table(GUID);
        for byte in 0..92 {
            let mut broken = head.clone();
            broken[byte] ^= 1;
            assert_eq!(header(&broken), None, "header byte {byte}");
        }
        for cut in [0, 7, 12, 91] {
            assert_eq!(header(&head[..cut]), None);
        }
        let good = header(&head).unwrap();
        let mut broken = entries.clone();
        broken[9000] ^= 1;
        assert_eq!(good.find(&broken, TEXT), None);
        assert_eq!(good.find(&entries[..1000], TEXT), None);
    }
}
