//! Disk images with the boot loader in them, and what tests change on them.

use super::boot_cases::block;
use super::disk::{initramfs_of, kernel_noise, noise};
use super::qemu::Drive;
use super::{command, run};
use kubesolo_update::parts::boot::grub_table::Content;
use kubesolo_update::parts::slot::record::Slot;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/grub/grub.cfg");
/// What GRUB prints when it was asked for the choice. Who waits for it calls [`asks`].
const ASKS: &str = "PRESS THE KEY, WITHOUT SHIFT:";
pub const COPIES: [&str; 2] = ["grubenv", "grubenv.bak"];
pub const EFI_OFFSET: u64 = 1 << 20;
pub const EFI_BYTES: u64 = 64 << 20;
const SLOT_OFFSETS: [u64; 2] = [65 << 20, 81 << 20];

/// Returns the words that GRUB prints when it was asked for the choice. Words that it no longer has would be waited for in vain.
pub fn asks() -> &'static str {
    let said = format!("{ASKS}\"\n");
    assert_eq!(fs::read_to_string(SHIPPED).unwrap().matches(&said).count(), 1, "{SHIPPED} does not say '{ASKS}'");
    ASKS
}

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
    fs::write(&kernel, kernel_noise(1, 5000)).unwrap();
    fs::write(&initramfs, initramfs_of(dir, &noise(2, 5000))).unwrap();
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

/// Asks debugfs for something in a slot. Returns: what it answers.
fn ask_slot(image: &Path, slot: Slot, request: &str) -> String {
    let target = format!("{}?offset={}", image.display(), SLOT_OFFSETS[usize::from(slot == Slot::B)]);
    run(command("debugfs").args(["-w", "-R", request]).arg(target))
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

/// What is done to a slot.
#[derive(Clone, Copy)]
enum Change {
    Remove(&'static str),
    /// Nothing is left in the file.
    Empty(&'static str),
    /// One bit of a byte of the file is another.
    Flip(&'static str, usize),
    /// `slot.crc32` holds something else. Input: what it held, and those lines alone.
    Digests(fn(&[u8], &[u8]) -> Vec<u8>),
}
use Change::{Digests, Empty, Flip, Remove};

const KERNEL: &str = "vmlinuz";
const INITRAMFS: &str = "kubesolo-os.gz";
const DIGESTS: &str = "slot.crc32";

/// What is wrong with a disk of the table: what in which slot, and what GRUB then finds in it.
/// A disk that is not named here has nothing wrong with its slots.
const DISKS: &[(&str, Slot, Change, Content)] = &[
    ("no-kernel-A", Slot::A, Remove(KERNEL), Content::Broken),
    ("no-initramfs-A", Slot::A, Remove(INITRAMFS), Content::Broken),
    ("empty-kernel-A", Slot::A, Empty(KERNEL), Content::Broken),
    ("no-record-A", Slot::A, Remove("slot.json"), Content::Whole),
    ("no-kernel-B", Slot::B, Remove(KERNEL), Content::Broken),
    ("none", Slot::A, Remove(KERNEL), Content::Broken),
    ("none", Slot::B, Remove(INITRAMFS), Content::Broken),
    // Rot, with and without a list that tells it.
    ("rot-first-A", Slot::A, Flip(INITRAMFS, 10), Content::Differs),
    ("rot-middle-A", Slot::A, Flip(INITRAMFS, 4500), Content::Differs),
    ("rot-last-A", Slot::A, Flip(INITRAMFS, 5000), Content::Differs),
    ("rot-kernel-A", Slot::A, Flip(KERNEL, 4999), Content::Differs),
    ("rot-B", Slot::B, Flip(INITRAMFS, 10), Content::Differs),
    ("rot-AB", Slot::A, Flip(KERNEL, 0), Content::Differs),
    ("rot-AB", Slot::B, Flip(INITRAMFS, 4500), Content::Differs),
    ("rot-A-none-B", Slot::A, Flip(INITRAMFS, 10), Content::Differs),
    ("rot-A-none-B", Slot::B, Remove(INITRAMFS), Content::Broken),
    ("no-list-A", Slot::A, Remove(DIGESTS), Content::Whole),
    ("rot-no-list-A", Slot::A, Flip(INITRAMFS, 10), Content::Whole),
    ("rot-no-list-A", Slot::A, Remove(DIGESTS), Content::Whole),
    // The list itself.
    ("list-empty-A", Slot::A, Empty(DIGESTS), Content::Differs),
    ("list-flipped-A", Slot::A, Flip(DIGESTS, 470), Content::Differs),
    ("list-garbage-A", Slot::A, Digests(|_, _| noise(3, 512)), Content::Differs),
    ("list-zeros-A", Slot::A, Digests(|_, _| vec![0; 512]), Content::Differs),
    ("list-cut-A", Slot::A, Digests(|whole, _| whole[..500].to_vec()), Content::Differs),
    ("list-unfilled-A", Slot::A, Digests(|_, lines| lines.to_vec()), Content::Differs),
    ("list-one-name-A", Slot::A, Digests(|_, lines| first_line(lines)), Content::Differs),
    ("list-no-name-A", Slot::A, Digests(|_, _| filled(b"00000000  ")), Content::Differs),
    ("list-unknown-name-A", Slot::A, Digests(|_, lines| filled(&[lines, b"00000000  x\n"].concat())), Content::Differs),
    ("list-star-A", Slot::A, Digests(|_, lines| filled(&replaced(lines, "  ", " *"))), Content::Differs),
    ("list-crlf-A", Slot::A, Digests(|_, lines| filled(&replaced(lines, "\n", "\r\n"))), Content::Whole),
    ("list-upper-A", Slot::A, Digests(|_, lines| filled(&upper(lines))), Content::Whole),
    ("list-path-A", Slot::A, Digests(|_, lines| filled(&replaced(lines, "  ", "  /"))), Content::Whole),
    ("list-long-A", Slot::A, Digests(|whole, _| [whole, &noise(3, 100_000)].concat()), Content::Whole),
    // Nobody's rot: made by hand. The agent calls it INVALID.
    ("list-by-hand-A", Slot::A, Digests(|_, lines| filled(&first_line(lines))), Content::Whole),
    ("list-none-B", Slot::A, Empty(DIGESTS), Content::Differs),
    ("list-none-B", Slot::B, Remove(KERNEL), Content::Broken),
];

/// Fills a list as the agent does.
fn filled(lines: &[u8]) -> Vec<u8> {
    [&vec![b' '; 512 - lines.len()], lines].concat()
}

fn first_line(lines: &[u8]) -> Vec<u8> {
    lines.split_inclusive(|b| *b == b'\n').next().unwrap().to_vec()
}

fn replaced(lines: &[u8], from: &str, to: &str) -> Vec<u8> {
    String::from_utf8(lines.to_vec()).unwrap().replace(from, to).into_bytes()
}

/// Digits in capitals, names as they are.
fn upper(lines: &[u8]) -> Vec<u8> {
    let digits = |line: &[u8]| [line[..8].to_ascii_uppercase(), line[8..].to_vec()].concat();
    lines.split_inclusive(|b| *b == b'\n').flat_map(digits).collect()
}

/// What GRUB finds in a slot of a disk of the table. Panics: there is no such disk.
pub fn content(disk: &str, slot: Slot) -> Content {
    let named = |(name, ..): &&(&str, Slot, Change, Content)| *name == disk;
    assert!(["both", "read-only"].contains(&disk) || DISKS.iter().any(|row| named(&row)), "unknown disk: {disk}");
    DISKS.iter().filter(named).find(|(_, at, ..)| *at == slot).map_or(Content::Whole, |(.., found)| *found)
}

/// Makes an image into a disk of the table.
pub fn change_into(image: PathBuf, name: &str) -> Drive {
    DISKS.iter().filter(|row| row.0 == name).for_each(|(_, slot, change, _)| change_file(&image, *slot, *change));
    Drive { image, read_only: name == "read-only" }
}

fn change_file(image: &Path, slot: Slot, change: Change) {
    match change {
        Remove(file) => drop(ask_slot(image, slot, &format!("rm /{file}"))),
        Empty(file) => write_file(image, slot, file, b""),
        Flip(file, at) => flip_bit(image, slot, file, at),
        Digests(make) => {
            let whole = file_of(image, slot, DIGESTS);
            assert_eq!(whole.len(), 512, "{DIGESTS} as built");
            write_file(image, slot, DIGESTS, &make(whole.as_bytes(), whole.trim_start().as_bytes()));
        }
    }
}

/// Changes one bit of a file, where it is on the disk: nothing else of the file system knows of it.
pub fn flip_bit(image: &Path, slot: Slot, file: &str, at: usize) {
    let block = ask_slot(image, slot, &format!("bmap /{file} {}", at / 4096));
    let block: u64 = block.trim().parse().unwrap_or_else(|e| panic!("{file}, byte {at}: {block}: {e}"));
    let disk = File::options().read(true).write(true).open(image).unwrap();
    let place = SLOT_OFFSETS[usize::from(slot == Slot::B)] + block * 4096 + (at % 4096) as u64;
    let mut byte = [0];
    disk.read_exact_at(&mut byte, place).unwrap();
    disk.write_all_at(&[byte[0] ^ 1], place).unwrap();
}

/// A text in a slot.
pub fn file_of(image: &Path, slot: Slot, file: &str) -> String {
    ask_slot(image, slot, &format!("cat /{file}"))
}

fn write_file(image: &Path, slot: Slot, file: &str, bytes: &[u8]) {
    let content = image.with_extension("content");
    fs::write(&content, bytes).unwrap();
    ask_slot(image, slot, &format!("rm /{file}"));
    // debugfs makes holes of zeros, and GRUB cannot read a file that is nothing else.
    ask_slot(image, slot, &format!("write {} /{file}", content.display()));
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
