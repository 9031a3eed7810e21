//! Disk images with the boot loader in them, and what tests change on them.

use super::boot_cases::block;
use super::disk::{gzip, noise};
use super::qemu::Drive;
use super::{command, run};
use kubesolo_update::slot::Slot;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/grub/grub.cfg");
pub const COPIES: [&str; 2] = ["grubenv", "grubenv.bak"];
pub const EFI_OFFSET: u64 = 1 << 20;
pub const EFI_BYTES: u64 = 64 << 20;
const SLOT_OFFSETS: [u64; 2] = [65 << 20, 81 << 20];

/// The configuration inside GRUB where a test brings its own: a file on the EFI partition.
const FROM_DISK: &str = "source \"$prefix/test.cfg\"\n";

/// What stands for booting, where the real menu is to be seen: says with which words and what is then in the
/// environment block, and powers the machine up anew.
pub const BOOTS_PRINTED: &str = r#"
source "$prefix/shipped.cfg"
rmmod linux
function linux {
    if [ -s "$1" ]; then
        for word in "$@"; do echo "SHIM linux $word"; done
    else
        false
    fi
}
function initrd {
    if [ -s "$1" ]; then
        load_env --file "$prefix/grubenv" active_slot boot_counter boot_success rollback_from boot_canary
        echo "SHIM boots $active_slot:$boot_counter:$boot_success:$rollback_from:$boot_canary"
        reboot
    else
        false
    fi
}
"#;

/// Copies a disk image from `scripts/build-image.sh`, as shipped, or with GRUB reading its configuration
/// from `test.cfg`. Each is built once, and kept without a name.
fn copy_image(architecture: &str, shipped: bool, to: &Path) {
    static BUILT: [OnceLock<File>; 4] = [const { OnceLock::new() }; 4];
    let built = &BUILT[usize::from(architecture == "arm64") * 2 + usize::from(shipped)];
    let file = built.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let mut build = build_image(dir.path(), architecture, &image);
        if !shipped {
            build.arg("--grub-config").arg(from_disk(dir.path()));
        }
        run(&mut build);
        File::open(&image).unwrap()
    });
    let source = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    run(Command::new("cp").args(["--sparse=always", &source]).arg(to));
}

/// Writes the configuration for GRUB's inside that reads `test.cfg`.
pub fn from_disk(dir: &Path) -> PathBuf {
    let config = dir.join("from-disk.cfg");
    fs::write(&config, FROM_DISK).unwrap();
    config
}

/// Makes the command that builds an image whose systems are noise.
pub fn build_image(dir: &Path, architecture: &str, output: &Path) -> Command {
    let (kernel, initramfs) = (dir.join("vmlinuz"), dir.join("initramfs"));
    fs::write(&kernel, noise(1, 5000)).unwrap();
    fs::write(&initramfs, gzip(dir, &noise(2, 5000))).unwrap();
    build_image_of(&kernel, &initramfs, architecture, 16, output)
}

/// Makes the command that builds an image of a system.
pub fn build_image_of(kernel: &Path, initramfs: &Path, architecture: &str, slot_mib: u32, output: &Path) -> Command {
    let mut build = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-image.sh"));
    build.args(["--version", "1.0.0", "--data-size", "16", "--arch", architecture]);
    build.args(["--slot-size", &slot_mib.to_string()]);
    build.arg("--kernel").arg(kernel).arg("--initramfs").arg(initramfs).arg("--output").arg(output);
    build
}

/// The EFI partition, as mtools names it.
pub fn efi(image: &Path) -> String {
    format!("{}@@{EFI_OFFSET}", image.display())
}

/// Puts a file or directory on the EFI partition.
pub fn put(image: &Path, from: &Path, to: &str) {
    run(command("mcopy").args(["-s", "-Q", "-o", "-i", &efi(image)]).arg(from).arg(format!("::{to}")));
}

/// Puts the shipped configuration there as `shipped.cfg`, and a test's own beside it.
pub fn put_shim(dir: &Path, image: &Path, text: &str) {
    let shim = dir.join("shim.cfg");
    fs::write(&shim, text).unwrap();
    put(image, &shim, "/boot/grub/test.cfg");
    put(image, Path::new(SHIPPED), "/boot/grub/shipped.cfg");
}

/// Writes both copies of the environment block of an image.
pub fn put_blocks(dir: &Path, image: &Path, notation: &str) {
    for name in COPIES {
        fs::write(dir.join(name), block(notation).unwrap()).unwrap();
        put(image, &dir.join(name), &format!("/boot/grub/{name}"));
    }
}

/// Overwrites a part of the EFI partition. Input: bytes from its start, length, what with.
pub fn overwrite(image: &Path, from: u64, length: u64, with: u8) {
    let file = File::options().write(true).open(image).unwrap();
    let block = vec![with; 1 << 16];
    for at in (0..length).step_by(block.len()) {
        let now = block.len().min((length - at) as usize);
        file.write_all_at(&block[..now], EFI_OFFSET + from + at).unwrap();
    }
}

/// Reads a copy of the environment block of an image.
pub fn read_block(image: &Path, name: &str) -> Option<Vec<u8>> {
    let read = command("mtype").args(["-i", &efi(image), &format!("::/boot/grub/{name}")]).output().unwrap();
    read.status.success().then_some(read.stdout)
}

/// Changes a slot with debugfs.
fn change_slot(image: &Path, slot: Slot, request: &str) {
    let target = format!("{}?offset={}", image.display(), SLOT_OFFSETS[usize::from(slot == Slot::B)]);
    run(command("debugfs").args(["-w", "-R", request]).arg(target));
}

/// Unique GUID of a partition, lower case.
pub fn guid(image: &Path, number: u32) -> String {
    let info = run(command("sgdisk").args(["-i", &number.to_string()]).arg(image));
    let line = info.lines().find_map(|l| l.strip_prefix("Partition unique GUID: ")).unwrap();
    line.trim().to_lowercase()
}

/// Makes a disk of the table; its GRUB reads `test.cfg`.
pub fn make_disk(dir: &Path, architecture: &str, name: &str) -> Drive {
    make(dir, architecture, name, false)
}

/// Makes a disk of the table, with the boot loader as shipped.
pub fn make_shipped_disk(dir: &Path, architecture: &str, name: &str) -> Drive {
    make(dir, architecture, name, true)
}

fn make(dir: &Path, architecture: &str, name: &str, shipped: bool) -> Drive {
    let image = dir.join(format!("{name}.img"));
    copy_image(architecture, shipped, &image);
    change_into(image, name)
}

/// Makes an image into a disk of the table.
pub fn change_into(image: PathBuf, name: &str) -> Drive {
    for (named, slot, requests) in [
        ("no-kernel-A", Slot::A, ["rm /vmlinuz", ""]),
        ("no-initramfs-A", Slot::A, ["rm /kubesolo-os.gz", ""]),
        ("empty-kernel-A", Slot::A, ["rm /vmlinuz", "write /dev/null /vmlinuz"]),
        ("no-record-A", Slot::A, ["rm /slot.json", ""]),
        ("no-kernel-B", Slot::B, ["rm /vmlinuz", ""]),
        ("none", Slot::A, ["rm /vmlinuz", ""]),
        ("none", Slot::B, ["rm /kubesolo-os.gz", ""]),
    ] {
        if named == name {
            requests.into_iter().filter(|r| !r.is_empty()).for_each(|request| change_slot(&image, slot, request));
        }
    }
    Drive { image, read_only: name == "read-only" }
}

/// Lines that begin so, without the beginning. On UEFI, where two consoles share a line, such a line may be there
/// twice in one.
pub fn words_after(said: &str, start: &str) -> Vec<String> {
    let rest = |line: &str| Some(line.trim().strip_prefix(start)?.split(start).next()?.to_string());
    said.lines().filter_map(rest).collect()
}

/// Letters of the slots that GRUB tried, in order. Where its countdown was, there is no new line before; and where two
/// consoles share a line, each letter is there twice.
pub fn slots_tried(said: &str) -> String {
    let start = "KubeSolo OS, slot ";
    let mut letters: Vec<char> =
        said.match_indices(start).filter_map(|(at, _)| said[at + start.len()..].chars().next()).collect();
    letters.dedup();
    letters.into_iter().collect()
}
