//! The table of boots in a real GRUB, whichever one it is: all boots of a disk in one run, held against src/boot/grub_table.rs.
//!
//! `linux`, `initrd`, `sleep` and `reboot` are unloaded and replaced by functions that print: no kernel
//! starts, many boots fit into one run of GRUB, and every line of the shipped file is as shipped.
//! Must never: know which GRUB it is. What makes the disks, and which `grub-editenv` reads them, the caller says.

use super::boot_cases::{Copies, Model, NAMES, Row, block, rows, values};
use super::loader::{COPIES, content, efi, guid, put, put_shim};
use super::qemu::{Drive, Firmware, Machine};
use super::{command, run};
use kubesolo_update::parts::boot::block::Block;
use kubesolo_update::parts::boot::grub_table::{Content, Decision};
use kubesolo_update::parts::slot::record::Slot;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Most disks of one machine: a BIOS numbers only so many.
const DISKS_MAX: usize = 12;
/// Most boots in one run of GRUB: each takes longer than the one before (measured: 122 in 208 s, 35 in 8 s; GRUB 2.06).
const BOOTS_MAX: usize = 30;
/// Of the table's disks, those that are tried on UEFI, where one alone can be told from the others.
pub const ON_UEFI: [&str; 2] = ["both", "rot-AB"];

/// What the table is tried with.
pub trait Bench {
    /// Makes a disk of the table in a directory; its GRUB reads `test.cfg`.
    fn disk(&self, dir: &Path, architecture: &str, name: &str) -> Drive;
    /// `grub-editenv` of the same GRUB.
    fn editenv(&self) -> Command;
}

/// Takes the commands that leave GRUB or wait away, and prints instead. UEFI's console is the serial line
/// already: with GRUB's own, everything would be there twice.
const SHIM: &str = r#"
if [ "$grub_platform" = efi ]; then rmmod serial; fi
source "$prefix/shipped.cfg"
rmmod linux
rmmod sleep
rmmod reboot
function linux {
    if [ -s "$1" ]; then
        for word in "$@"; do echo "SHIM linux $word"; done
    else
        false
    fi
}
function initrd {
    if [ -s "$1" ]; then echo "SHIM initrd $1"; else false; fi
}
function sleep { echo "SHIM sleep $1"; }
function reboot { echo "SHIM reboot"; }
"#;

/// One case of a batch: shows both copies after the boot, with GRUB's own eyes. Not on the BIOS's screen,
/// which takes a call into real mode for every letter.
const BATCH: &str = r#"
set home="$prefix"
function show {
    unset active_slot
    unset boot_counter
    unset boot_success
    unset rollback_from
    unset boot_canary
    load_env --file "$2" active_slot boot_counter boot_success rollback_from boot_canary
    echo "SHIM $1 $active_slot:$boot_counter:$boot_success:$rollback_from:$boot_canary"
}
function boot_case {
    echo "SHIM case $1"
    set prefix="$2"
    set options=quiet
    source "$home/shipped.cfg"
    if [ "$grub_platform" = pc ]; then terminal_output serial; fi
    boot_normally
    show main "$2/grubenv"
    show backup "$2/grubenv.bak"
}
"#;

/// What GRUB did in one case.
#[derive(Debug, Default)]
struct Seen {
    /// Slots in the order of the attempts.
    tried: Vec<String>,
    kernel_line: Vec<String>,
    booted: Option<Slot>,
    after: Vec<String>,
    waits: Vec<String>,
}

fn parse(said: &str) -> Vec<Seen> {
    let mut all: Vec<Seen> = Vec::new();
    for line in said.lines().map(str::trim) {
        if line.starts_with("SHIM case ") {
            all.push(Seen::default());
            continue;
        }
        let Some(seen) = all.last_mut() else { continue };
        if let Some(slot) = line.strip_prefix("KubeSolo OS, slot ") {
            seen.tried.push(slot.into());
        } else if let Some(path) = line.strip_prefix("SHIM initrd ") {
            // The first one would have booted; what is tried after it is what GRUB falls back to.
            let slot = if path.contains(",gpt2)/") { Slot::A } else { Slot::B };
            seen.booted.get_or_insert(slot);
        } else if let Some(word) = line.strip_prefix("SHIM linux ") {
            if seen.booted.is_none() {
                seen.kernel_line.push(word.into());
            }
        } else if let Some(values) = line.strip_prefix("SHIM main ").or(line.strip_prefix("SHIM backup ")) {
            seen.after.push(values.into());
        } else if let Some(wait) = line.strip_prefix("SHIM ").filter(|wait| *wait != "done") {
            seen.waits.push(wait.into());
        }
    }
    all
}

/// A machine of the table and all its boots.
pub struct Case {
    pub rows: Vec<Row>,
    pub before: Copies,
}

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for row in rows() {
        match row.blocks {
            Some(notations) => cases.push(Case { before: notations.map(block), rows: vec![row] }),
            None => cases.last_mut().unwrap().rows.push(row),
        }
    }
    cases
}

/// Boots every case of the table, and holds all that GRUB did against src/boot/grub_table.rs.
pub fn hold_grub(bench: &impl Bench, firmware: Firmware) {
    let dir = tempfile::tempdir().unwrap();
    let alone = firmware != Firmware::Bios;
    let mut batch: Vec<Case> = Vec::new();
    for case in cases().into_iter().filter(|case| !alone || ON_UEFI.contains(&case.rows[0].disk)) {
        batch.push(case);
        let (disks, boots) = (disks_of(&batch).len(), batch.iter().map(|case| case.rows.len()).sum::<usize>());
        let full = disks > if alone { 1 } else { DISKS_MAX } || boots > BOOTS_MAX;
        if full && batch.len() > 1 {
            let next = batch.pop().unwrap();
            hold_batch(bench, firmware, dir.path(), &batch);
            batch = vec![next];
        }
    }
    hold_batch(bench, firmware, dir.path(), &batch);
}

/// Names of the disks that cases are on, each once.
fn disks_of(cases: &[Case]) -> Vec<&'static str> {
    let mut disks: Vec<&str> = Vec::new();
    for case in cases {
        if !disks.contains(&case.rows[0].disk) {
            disks.push(case.rows[0].disk);
        }
    }
    disks
}

/// Boots cases in one run of GRUB. Input: a directory for the disks.
fn hold_batch(bench: &impl Bench, firmware: Firmware, disk_dir: &Path, cases: &[Case]) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disks = disks_of(cases);
    let drives: Vec<Drive> = disks.iter().map(|name| bench.disk(disk_dir, firmware.architecture(), name)).collect();
    let mut script = format!("{SHIM}{BATCH}");
    for (at, drive) in drives.iter().enumerate() {
        let tree = dir.join(format!("tree{at}"));
        for (n, case) in cases.iter().enumerate().filter(|(_, case)| case.rows[0].disk == disks[at]) {
            let home = tree.join(n.to_string());
            fs::create_dir_all(&home).unwrap();
            for (name, copy) in COPIES.iter().zip(&case.before) {
                if let Some(bytes) = copy {
                    fs::write(home.join(name), bytes).unwrap();
                }
            }
            // On UEFI GRUB numbers disks as the firmware likes: one disk only, that it was started from.
            let disk = if disks.len() > 1 { format!("(hd{at},gpt1)") } else { "($boot_disk,gpt1)".into() };
            for _ in &case.rows {
                writeln!(script, "boot_case {n} \"{disk}/cases/{n}\"").unwrap();
            }
        }
        put(&drive.image, &tree, "/cases");
    }
    script.push_str("echo \"SHIM done\"\nhalt\n");
    put_shim(
        dir,
        &drives[0].image,
        &script.replacen("set home", "regexp --set=1:boot_disk '^\\(([^,]+),' \"$prefix\"\nset home", 1),
    );
    let mut machine = Machine::start(firmware, &drives, 0, dir);
    machine.wait_said("SHIM done", 1);
    let said = machine.said().to_string();
    drop(machine);
    let mut all = parse(&said).into_iter();
    for (at, drive) in drives.iter().enumerate() {
        let here = cases.iter().enumerate().filter(|(_, case)| case.rows[0].disk == disks[at]);
        let blocks = read_cases(dir, &drive.image, at);
        for (n, case) in here {
            let mut model = Model { copies: case.before.clone(), disk: disks[at] };
            for row in &case.rows {
                let (decision, boots) = model.boot();
                let seen = all.next().unwrap_or_else(|| panic!("GRUB did not get to '{}':\n{said}", row.name));
                hold_boot(firmware, row, &seen, (decision, boots), drive);
                let after = model.copies.each_ref().map(|copy| values(copy).replace('\r', ""));
                assert_eq!(seen.after, after, "{}: {seen:?}", row.name);
            }
            for (name, copy) in COPIES.iter().zip(&model.copies) {
                let on_disk = blocks.get(&format!("{n}/{name}"));
                let last = case.rows.last().unwrap().name;
                assert!(on_disk == copy.as_ref(), "after '{last}', {name} is not byte for byte what was foretold");
                if let Some(bytes) = on_disk {
                    hold_editenv(bench, dir, last, bytes);
                }
            }
        }
    }
    assert!(all.next().is_none());
}

/// Reads all cases' files back from a disk.
fn read_cases(dir: &Path, image: &Path, at: usize) -> BTreeMap<String, Vec<u8>> {
    let back = dir.join(format!("back{at}"));
    fs::create_dir(&back).unwrap();
    run(command("mcopy").args(["-s", "-Q", "-n", "-i", &efi(image), "::/cases"]).arg(&back));
    let mut blocks = BTreeMap::new();
    for case in fs::read_dir(back.join("cases")).unwrap().map(|e| e.unwrap()) {
        for file in fs::read_dir(case.path()).unwrap().map(|e| e.unwrap()) {
            let name = format!("{}/{}", case.file_name().display(), file.file_name().display());
            blocks.insert(name, fs::read(file.path()).unwrap());
        }
    }
    blocks
}

fn hold_boot(firmware: Firmware, row: &Row, seen: &Seen, foretold: (Decision, Option<Slot>), drive: &Drive) {
    let (decision, boots) = foretold;
    let context = || format!("'{}' on {firmware:?}: {seen:?}", row.name);
    assert_eq!(seen.booted, boots, "{}", context());
    let mut order = vec![decision.first, decision.first.other()];
    // What slot.crc32 alone spoke against comes once more. (Nothing boots here: GRUB goes through all that it would try.)
    if content(row.disk, decision.first) == Content::Differs {
        order.push(decision.first);
    }
    let order: Vec<String> = order.into_iter().map(|slot| slot.letter().to_string()).collect();
    assert_eq!(seen.tried, order, "{}", context());
    // After both: a wait, and all over again.
    assert_eq!(seen.waits, ["sleep 30", "reboot"], "{}", context());
    let Some(slot) = boots else { return };
    // A slot that lacks its initramfs gets as far as the kernel line: the last one counts.
    let part = guid(&drive.image, if slot == Slot::A { 2 } else { 3 });
    let words = [format!("kubesolo.slot={slot}"), format!("kubesolo.part={part}"), "panic=10".into()];
    let serial = if firmware == Firmware::UefiArm64 { "console=ttyAMA0,115200" } else { "console=ttyS0,115200n8" };
    let start = seen.kernel_line.iter().rposition(|word| word.ends_with("/vmlinuz")).unwrap();
    let skipped = (slot != decision.first).then(|| format!("kubesolo.skipped={}", decision.first));
    let rest = ["console=tty0", serial, "quiet"].map(String::from);
    let line: Vec<String> = words.into_iter().chain(skipped).chain(rest).collect();
    assert_eq!(seen.kernel_line[start + 1..], line, "{}", context());
}

/// Real grub-editenv reads the same. It refuses other lengths than 1,024 bytes.
fn hold_editenv(bench: &impl Bench, dir: &Path, name: &str, bytes: &[u8]) {
    if bytes.len() != 1024 || !bytes.starts_with(b"# GRUB Environment Block\n") || bytes.contains(&0) {
        return;
    }
    let file = dir.join("block");
    fs::write(&file, bytes).unwrap();
    let listed = run(bench.editenv().arg(&file).arg("list"));
    let last = |name: &str| {
        let start = format!("{name}=");
        listed.lines().filter_map(|l| l.strip_prefix(&start)).next_back().unwrap_or_default().to_string()
    };
    // Its list does not tell a name of two lines from two names.
    let block = Block::decode_lenient(bytes).unwrap();
    if block.variables().all(|(name, value)| !name.contains(&b'\n') && !value.ends_with(b"\r")) {
        assert_eq!(NAMES.map(last).join(":"), values(&Some(bytes.to_vec())), "{name}: {listed}");
    }
}
