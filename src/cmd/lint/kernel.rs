//! Whether a file is a kernel that GRUB starts on an architecture: by its header, also in gzip.
//!
//! Source: Linux Documentation/arch/x86/boot.rst, Documentation/arch/arm64/booting.rst and, for one packed as an EFI program,
//! drivers/firmware/efi/libstub/zboot-header.S; its machine number: PE format, "COFF file header".
//! Must never: accept another architecture's kernel, or claim more than its header says.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::progress::note;
use crate::slot::initramfs::unpack_head;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a file that contain the header; a packed one unpacks to more.
const HEAD_BYTES: u64 = 64 * 1024;
/// Bytes of the longer header, x86's, that contain the fields used here.
const HEADER_BYTES: usize = 0x238;
/// First protocol in which an x86 kernel states whether it is 64-bit.
const SAYS_BITS: u16 = 0x020c;
/// IMAGE_FILE_MACHINE_ARM64, after the mark of the PE header.
const PE_ARM64: &[u8] = b"PE\0\0\x64\xaa";

const CUT: &str = "it is cut short: its header says it is longer";

/// Judges a kernel. Input: `arch`: `amd64` or `arm64`.
/// Errors: Usage: it cannot be read; Source: not a kernel, or one of another architecture.
pub(super) fn judge(path: &Path, arch: &str) -> Result<()> {
    let mut head = Vec::new();
    let file = File::open(path).io(Kind::Usage, "open", path.display())?;
    let size_bytes = file.metadata().io(Kind::Usage, "read", path.display())?.len();
    file.take(HEAD_BYTES).read_to_end(&mut head).io(Kind::Usage, "read", path.display())?;
    let refused = |why: String| Error::new(Kind::Source, why).at("judge the kernel", path.display());
    let is_packed = head.starts_with(&[0x1f, 0x8b]);
    if is_packed {
        head = unpack_head(&head, HEADER_BYTES).map_err(refused)?;
    }
    let size_bytes = Some(size_bytes).filter(|_| !is_packed);
    if let Some(warning) = is_for(arch, &head, size_bytes).map_err(|why| {
        refused(why.into()).hint(match arch {
            "amd64" => "Linux makes it as arch/x86/boot/bzImage, distributions have it as vmlinuz",
            _ => "Linux makes it as arch/arm64/boot/Image; it may be packed with gzip",
        })
    })? {
        note(&format!("warning: {}: {warning}", path.display()));
    }
    Ok(())
}

/// Judges a header. Pure. Input: its beginning; the file's size, if known. Returns: a warning about an accepted kernel.
fn is_for(arch: &str, head: &[u8], size_bytes: Option<u64>) -> std::result::Result<Option<&'static str>, &'static str> {
    let at = |place: usize, bytes: &[u8]| head.get(place..).is_some_and(|rest| rest.starts_with(bytes));
    let number = |place: usize| {
        let bytes = head.get(place..place + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    };
    let is_x86 = at(0x1fe, &[0x55, 0xaa]) && at(0x202, b"HdrS") && head.len() >= HEADER_BYTES;
    let is_arm64 = at(0x38, b"ARM\x64");
    if is_x86 && arch == "amd64" {
        let setup = match head[0x1f1] {
            0 => 4,
            sectors => u64::from(sectors),
        };
        let needed = (setup + 1) * 512 + u64::from(number(0x1f4)) * 16;
        return match size_bytes.is_some_and(|size| size < needed) {
            true => Err(CUT),
            false if number(0x206) as u16 >= SAYS_BITS && number(0x236) & 1 == 0 => Err("it is a kernel of 32 bits"),
            false => Ok(None),
        };
    }
    // End of its payload: where it begins plus its length.
    let is_zboot = at(0, b"MZ\0\0zimg");
    let zboot_end = u64::from(number(0x08)) + u64::from(number(0x0c));
    match () {
        () if is_arm64 && arch == "arm64" => Ok(None),
        () if is_x86 => Err("it is for amd64"),
        () if is_arm64 => Err("it is for arm64"),
        () if at(0, b"\x7fELF") => Err("it is an ELF file (vmlinux), which GRUB does not start"),
        () if is_zboot && !at(number(0x3c) as usize, PE_ARM64) => Err("it is for neither amd64 nor arm64"),
        () if is_zboot && arch != "arm64" => Err("it is for arm64"),
        () if is_zboot && size_bytes.is_some_and(|size| size < zboot_end) => Err(CUT),
        () if is_zboot => Ok(Some("it is packed for EFI (zboot), which GRUB before 2.12 does not start")),
        () if at(0, b"MZ") => Err("it is an EFI program without a kernel's header"),
        () if at(0, b"07070") => Err("it is an initramfs"),
        () => Err("not a kernel"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x86(change: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; 0x400];
        let fields: [(usize, &[u8]); 5] =
            [(0x1f1, &[1]), (0x1fe, &[0x55, 0xaa]), (0x202, b"HdrS"), (0x206, &[0x0f, 2]), (0x236, &[1])];
        for (place, bytes) in fields.iter().chain(change) {
            head[*place..*place + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn a_header_says_what_it_is() {
        let with = |place: usize, bytes: &[u8]| {
            let mut head = vec![b'x'; 0x400];
            head[place..place + bytes.len()].copy_from_slice(bytes);
            head
        };
        let packed = "it is packed for EFI (zboot), which GRUB before 2.12 does not start";
        let zboot = |machine: &[u8], payload_bytes: u32| {
            let mut head = with(0, b"MZ\0\0zimg");
            for (place, number) in [(0x08, 0x100), (0x0c, payload_bytes), (0x3c, 0x40)] {
                head[place..place + 4].copy_from_slice(&number.to_le_bytes());
            }
            head[0x40..0x46].copy_from_slice(machine);
            head
        };
        for (arch, head, wanted) in [
            ("amd64", x86(&[]), Ok(None)),
            ("amd64", x86(&[(0x1f4, &[4])]), Err("it is cut short: its header says it is longer")),
            ("amd64", x86(&[(0x1f1, &[0])]), Err("it is cut short: its header says it is longer")),
            ("amd64", x86(&[(0x236, &[0])]), Err("it is a kernel of 32 bits")),
            ("amd64", x86(&[(0x236, &[0]), (0x206, &[0x0b, 2])]), Ok(None)),
            ("amd64", x86(&[(0x1fe, &[0])]), Err("not a kernel")),
            ("amd64", x86(&[])[..0x237].to_vec(), Err("not a kernel")),
            ("arm64", with(0x38, b"ARMd"), Ok(None)),
            ("amd64", with(0x38, b"ARMd"), Err("it is for arm64")),
            ("arm64", x86(&[]), Err("it is for amd64")),
            ("amd64", with(0x38, b"ARMe"), Err("not a kernel")),
            ("amd64", with(0, b"\x7fELF"), Err("it is an ELF file (vmlinux), which GRUB does not start")),
            ("arm64", zboot(b"PE\0\0\x64\xaa", 0x300), Ok(Some(packed))),
            ("arm64", zboot(b"PE\0\0\x64\xaa", 0x301), Err("it is cut short: its header says it is longer")),
            ("amd64", zboot(b"PE\0\0\x64\xaa", 0x300), Err("it is for arm64")),
            // RISC-V, LoongArch, no machine number.
            ("arm64", zboot(b"PE\0\0\x64\x50", 0x300), Err("it is for neither amd64 nor arm64")),
            ("arm64", zboot(b"PE\0\0\x64\x62", 0x300), Err("it is for neither amd64 nor arm64")),
            ("arm64", with(0, b"MZ\0\0zimg"), Err("it is for neither amd64 nor arm64")),
            ("amd64", with(0, b"MZ\0\0zimg"), Err("it is for neither amd64 nor arm64")),
            ("amd64", with(0, b"MZ"), Err("it is an EFI program without a kernel's header")),
            ("amd64", with(0, b"070701"), Err("it is an initramfs")),
            ("amd64", Vec::new(), Err("not a kernel")),
        ] {
            let size = head.len() as u64;
            assert_eq!(is_for(arch, &head, Some(size)), wanted);
        }
    }
}
