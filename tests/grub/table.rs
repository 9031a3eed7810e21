//! The shipped GRUB configuration in a real GRUB, in virtual machines: what it boots and what it writes
//! is what src/boot.rs says, for every row of tests/fixtures/boot-cases.tsv.
//!
//! `linux`, `initrd`, `sleep` and `reboot` are unloaded and replaced by functions that print: no kernel
//! starts, many boots fit into one run of GRUB, and every line of the shipped file is as shipped.

use crate::support::boot_cases::{Copies, Model, NAMES, Row, block, rows, values};
use crate::support::loader::{
    BOOTS_PRINTED, COPIES, EFI_BYTES, SHIPPED, build_image, build_image_of, efi, from_disk, guid, make_disk,
    make_shipped_disk, overwrite, put, put_blocks, put_shim, read_block, words_after,
};
use crate::support::qemu::{Drive, Firmware, Machine, kernel, need_machine};
use crate::support::{command, need, need_file, run};
use kubesolo_update::boot::{Decision, Vars};
use kubesolo_update::grubenv::Block;
use kubesolo_update::grubenv_file::EnvFiles;
use kubesolo_update::slot::Slot;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
struct Case {
    rows: Vec<Row>,
    before: Copies,
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for row in rows() {
        match row.blocks {
            Some(notations) => cases.push(Case { before: notations.map(block), rows: vec![row] }),
            None => cases.last_mut().unwrap().rows.push(row),
        }
    }
    cases
}

/// What the table says a copy holds, against what src/boot.rs says.
#[track_caller]
fn hold_after(row: &Row, before: &Copies, after: &Copies) {
    for n in 0..2 {
        let name = format!("{}: {}", row.name, COPIES[n]);
        match row.after[n] {
            "=" => assert!(before[n] == after[n], "{name} was written: {}", values(&after[n])),
            should => {
                assert_eq!(values(&after[n]), should, "{name}");
                assert!(before[n] != after[n], "{name} was not written: the table should say =");
            }
        }
    }
}

#[apply(test)]
fn the_function_does_what_the_table_says() {
    let cases = cases();
    for case in &cases {
        let mut model = Model { copies: case.before.clone(), disk: case.rows[0].disk };
        for row in &case.rows {
            let before = model.copies.clone();
            let (_, boots) = model.boot();
            assert_eq!(boots, row.boots, "{}", row.name);
            hold_after(row, &before, &model.copies);
        }
    }
    assert!(cases.len() > 80);
}

/// Where the agent is stricter than GRUB, the table says so; and what the agent saves, GRUB acts on.
#[apply(test)]
fn agent_and_grub_agree_on_what_is_active() {
    for case in cases() {
        let mut model = Model { copies: case.before.clone(), disk: case.rows[0].disk };
        for row in &case.rows {
            let dir = tempfile::tempdir().unwrap();
            for (name, copy) in COPIES.iter().zip(&model.copies) {
                if let Some(bytes) = copy {
                    fs::write(dir.path().join(name), bytes).unwrap();
                }
            }
            let files = EnvFiles::new(dir.path());
            let loaded = files.load();
            let grub = model.copies.iter().flatten().find_map(|bytes| Vars::read(bytes));
            let agent = match (loaded.usable(), grub) {
                (Err(_), _) => "none",
                (Ok(_), None) => panic!("{}: the agent takes what GRUB does not", row.name),
                (Ok((_, vars)), Some(grub)) => {
                    let same = (vars.active_slot, vars.boot_success, vars.boot_counter)
                        == (Some(grub.active), Some(grub.success), Some(grub.counter));
                    if same { "same" } else { "other" }
                }
            };
            assert_eq!(agent, row.agent, "{}", row.name);
            for target in [Slot::A, Slot::B] {
                agent_saves(row, &files, &model.copies, target);
            }
            model.boot();
        }
    }
}

/// Activates a slot as the agent does: GRUB then acts on exactly that, or nothing was written.
fn agent_saves(row: &Row, files: &EnvFiles, copies: &Copies, target: Slot) {
    let read = || COPIES.map(|name| fs::read(files.path_of(name)).ok());
    let mut block = match files.load().block {
        Some(block) => block,
        None => return,
    };
    block.activate(target);
    let saved = files.save(&block);
    let after = read();
    let grub = after.iter().flatten().find_map(|bytes| Vars::read(bytes));
    match saved {
        Ok(_) => {
            let grub = grub.expect("GRUB reads what the agent wrote");
            assert_eq!((grub.active, grub.success, grub.counter), (target, false, 3), "{}", row.name);
        }
        Err(_) => assert!(after[0] == copies[0], "{}: refused, and yet main was written", row.name),
    }
    for (name, copy) in COPIES.iter().zip(copies) {
        match copy {
            Some(bytes) => fs::write(files.path_of(name), bytes).unwrap(),
            None => drop(fs::remove_file(files.path_of(name))),
        }
    }
}

trait PathOf {
    fn path_of(&self, name: &str) -> PathBuf;
}

impl PathOf for EnvFiles {
    fn path_of(&self, name: &str) -> PathBuf {
        use kubesolo_update::grubenv_file::Copy;
        self.path(if name == COPIES[0] { Copy::Main } else { Copy::Backup })
    }
}

/// Boots every case of these disks in one run of GRUB, and holds all that it did against src/boot.rs.
fn hold_grub(firmware: Firmware, disks: &[&'static str]) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let cases: Vec<Case> = cases().into_iter().filter(|case| disks.contains(&case.rows[0].disk)).collect();
    let drives: Vec<Drive> = disks.iter().map(|name| make_disk(dir, firmware.architecture(), name)).collect();
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
                    hold_editenv(dir, last, bytes);
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
    let order = [decision.first, decision.first.other()].map(|slot| slot.letter().to_string());
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
fn hold_editenv(dir: &Path, name: &str, bytes: &[u8]) {
    if bytes.len() != 1024 || !bytes.starts_with(b"# GRUB Environment Block\n") || bytes.contains(&0) {
        return;
    }
    let file = dir.join("block");
    fs::write(&file, bytes).unwrap();
    let listed = run(command("grub-editenv").arg(&file).arg("list"));
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

#[apply(test)]
fn grub_on_bios_does_what_the_function_says() {
    need_machine(Firmware::Bios);
    let disks = ["both", "no-kernel-A", "no-initramfs-A", "empty-kernel-A", "no-record-A", "no-kernel-B", "none"];
    hold_grub(Firmware::Bios, &[disks.as_slice(), &["read-only"]].concat());
}

#[apply(test)]
fn grub_on_uefi_does_what_the_function_says() {
    need_machine(Firmware::Uefi);
    hold_grub(Firmware::Uefi, &["both"]);
}

#[apply(test)]
fn grub_on_arm64_does_what_the_function_says() {
    need_machine(Firmware::UefiArm64);
    hold_grub(Firmware::UefiArm64, &["both"]);
}

/// The whole way, nobody at the console: menu, count, reset, three times, then back, and there it stays.
#[apply(test)]
fn a_machine_that_resets_itself_comes_back() {
    need_machine(Firmware::Bios);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let drive = make_disk(dir, "amd64", "both");
    put_shim(dir, &drive.image, BOOTS_PRINTED);
    put_blocks(dir, &drive.image, "B:3:0::0");
    let mut machine = Machine::start(Firmware::Bios, std::slice::from_ref(&drive), 0, dir);
    machine.wait_said("SHIM boots ", 6);
    let said = machine.said().to_string();
    drop(machine);
    let boots = words_after(&said, "SHIM boots ");
    let should = ["B:2:0::1", "B:1:0::1", "B:0:0::1", "A:0:1:B:1", "A:0:1:B:1"];
    assert_eq!(boots[..5], should, "{said}");
    let slots = words_after(&said, "KubeSolo OS, slot ");
    assert_eq!(slots[..5], ["B", "B", "B", "A", "A"], "{said}");
}

/// Nothing to boot: no prompt, no menu; it waits and starts over.
#[apply(test)]
fn two_broken_slots_end_in_another_try() {
    need_machine(Firmware::Bios);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let drive = make_shipped_disk(dir, "amd64", "none");
    // All as shipped, `linux` included.
    let mut machine = Machine::start(Firmware::Bios, &[drive], 0, dir);
    machine.wait_said("Neither slot loads.", 2);
    assert!(!machine.said().contains("grub>"), "{}", machine.said());
}

/// A second disk with the same names, labels and files, which the firmware lists first.
#[apply(test)]
fn only_the_boot_disk_counts() {
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        need_machine(firmware);
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let [other, own] = ["other", "own"].map(|seed| {
            let image = dir.join(seed);
            run(build_image(dir, "amd64", &image).args(["--seed", seed]).arg("--grub-config").arg(from_disk(dir)));
            Drive { image, read_only: false }
        });
        put_shim(dir, &own.image, BOOTS_PRINTED);
        put_blocks(dir, &own.image, "B:3:0::1");
        let before = fs::read(&other.image).unwrap();
        let (kernel_arguments, other_image) = (format!("kubesolo.part={}", guid(&own.image, 3)), other.image.clone());
        let mut machine = Machine::start(firmware, &[other, own], 1, dir);
        machine.wait_said("SHIM boots ", 1);
        machine.wait_said("\n", 1);
        let said = machine.said().replace('\n', "");
        drop(machine);
        assert!(said.contains(&kernel_arguments), "{firmware:?}: {kernel_arguments}: {said}");
        assert!(said.contains("SHIM boots B:2:0::1"), "{firmware:?}: {said}");
        assert!(fs::read(other_image).unwrap() == before, "{firmware:?}: the other disk was written to");
    }
}

/// What is wrong with the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The EFI file system.
    Efi,
    /// One sector in the middle of slot B's initramfs, or kernel, cannot be read.
    Initramfs,
    Kernel,
}

/// A disk of which one sector in the middle of a file of slot B cannot be read.
fn with_bad_sector(dir: &Path, image: &Path, file: &Path) -> PathBuf {
    let (file, disk) = (fs::read(file).unwrap(), fs::read(image).unwrap());
    let middle = file.len() / 2 / 4096 * 4096;
    let sample = &file[middle..middle + 512];
    // Slot A comes first on the disk, slot B second.
    let found: Vec<usize> = (0..disk.len()).step_by(512).filter(|at| disk[*at..].starts_with(sample)).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    let rules = dir.join("rules");
    let rule = format!("[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\nsector = \"{}\"\n", found[1] / 512);
    fs::write(&rules, rule).unwrap();
    PathBuf::from(format!("blkdebug:{}:{}", rules.display(), image.display()))
}

/// A real kernel and a busybox that says what it was told: past GRUB, with nothing replaced. Slot B is on trial,
/// which nobody can know where the EFI file system is lost.
fn boot_for_real(firmware: Firmware, fault: Fault) {
    let architecture = firmware.architecture();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/vm").join(architecture);
    let kernel = kernel(architecture).unwrap_or_else(|| tools.join("boot/vmlinuz"));
    need_machine(firmware);
    need("cpio");
    need_file(&kernel);
    need_file(&tools.join("bin/busybox"));
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("dev")).unwrap();
    fs::create_dir_all(tree.join("proc")).unwrap();
    fs::copy(tools.join("bin/busybox"), tree.join("busybox")).unwrap();
    let init = "#!/busybox sh\n/busybox mount -t proc proc /proc\n\
        echo \"INIT $(/busybox cat /proc/cmdline)\"\n/busybox poweroff -f\n";
    fs::write(tree.join("init"), init).unwrap();
    run(Command::new("chmod").args(["755", "init", "busybox"]).current_dir(&tree));
    // The console has to be there before init has mounted anything.
    let pack = "{ find . ! -name . | cpio -o -H newc -R 0:0 --quiet; } | gzip -1 >../initramfs";
    run(Command::new("sh").args(["-c", &format!("mknod dev/console c 5 1 && {pack}")]).current_dir(&tree));
    let image = dir.join("image");
    run(&mut build_image_of(&kernel, &dir.join("initramfs"), architecture, 64, &image));
    put_blocks(dir, &image, "B:3:0::0");
    let (slot, number) = if fault == Fault::None { ("B", 3) } else { ("A", 2) };
    let unreadable = match fault {
        Fault::Initramfs => Some((dir.join("initramfs"), "Slot B does not load: its initramfs cannot be read.")),
        Fault::Kernel => Some((kernel, "Slot B does not load.")),
        Fault::None | Fault::Efi => None,
    };
    let skipped = if unreadable.is_some() { "kubesolo.skipped=B " } else { "" };
    let part = format!("kubesolo.slot={slot} kubesolo.part={} panic=10 {skipped}console=", guid(&image, number));
    if fault == Fault::Efi {
        overwrite(&image, 0, EFI_BYTES, 0);
    }
    let attached = match &unreadable {
        Some((file, _)) => with_bad_sector(dir, &image, file),
        None => image.clone(),
    };
    let mut machine = Machine::start(firmware, &[Drive { image: attached, read_only: false }], 0, dir);
    if let Some((_, words)) = unreadable {
        // GRUB's own: that sector it was.
        machine.wait_said("error: failure reading sector", 1);
        machine.wait_said(words, 1);
    }
    machine.wait_said("INIT ", 1);
    machine.wait_off();
    let line = words_after(machine.said(), "INIT ").remove(0);
    assert!(line.contains(&part) && line.ends_with("quiet"), "{part}: {line}");
    let after = values(&read_block(&image, "grubenv"));
    assert_eq!(after, if fault == Fault::Efi { "::::" } else { "B:2:0::1" });
}

#[apply(test)]
fn a_real_kernel_starts_from_bios() {
    boot_for_real(Firmware::Bios, Fault::None);
}

#[apply(test)]
fn a_real_kernel_starts_without_an_efi_file_system() {
    boot_for_real(Firmware::Bios, Fault::Efi);
}

/// GRUB 2.06 loses the second slot's command line once it has loaded the first one's kernel.
#[apply(test)]
fn a_bad_sector_in_one_slot_does_not_reach_into_the_other() {
    for firmware in [Firmware::Bios, Firmware::Uefi, Firmware::UefiArm64] {
        boot_for_real(firmware, Fault::Initramfs);
        boot_for_real(firmware, Fault::Kernel);
    }
}

#[apply(test)]
fn a_real_kernel_starts_from_uefi() {
    boot_for_real(Firmware::Uefi, Fault::None);
}

#[apply(test)]
fn a_real_kernel_starts_on_arm64() {
    boot_for_real(Firmware::UefiArm64, Fault::None);
}

/// Inside GRUB nobody can mend it: what GRUB cannot read, or what is not there, goes into no image.
#[apply(test)]
fn a_broken_configuration_goes_into_no_image() {
    need_machine(Firmware::Bios);
    let dir = tempfile::tempdir().unwrap();
    let [empty, cut, image] = ["empty", "cut", "image"].map(|name| dir.path().join(name));
    fs::write(&empty, "").unwrap();
    fs::write(&cut, &fs::read(SHIPPED).unwrap()[..4000]).unwrap();
    let missing = dir.path().join("missing");
    for (config, word) in [(&missing, "is no file"), (&empty, "is no file"), (&cut, "is no GRUB configuration")] {
        let out = build_image(dir.path(), "amd64", &image).arg("--grub-config").arg(config).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains(word) && !image.exists(), "{config:?}: {said}");
    }
}

/// With GRUB in it, the image is as reproducible as without, and its other formats hold the same.
#[apply(test)]
fn images_with_a_boot_loader_are_reproducible_in_every_format() {
    need_machine(Firmware::Bios);
    need("qemu-img");
    need("xz");
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let build = |name: &str, extra: &[&str]| {
        let image = dir.join(name);
        let work = tempfile::tempdir().unwrap();
        let mut build = build_image(work.path(), "amd64", &image);
        run(build.args(["--seed", "s"]).args(extra).env("SOURCE_DATE_EPOCH", "1700000000"));
        image
    };
    let (first, second) = (build("first", &[]), build("second", &[]));
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "two runs differ");
    let packed = build("packed.xz", &["--format", "qcow2", "--xz"]);
    run(command("xz").arg("-d").arg(&packed));
    run(command("qemu-img").args(["compare", "-f", "raw", "-F", "qcow2"]).arg(&first).arg(dir.join("packed")));
    // A configuration on the EFI partition would look as if it counted.
    let listed = run(command("mdir").args(["-b", "-i", &efi(&first), "::/boot/grub"]));
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["::/boot/grub/grubenv", "::/boot/grub/grubenv.bak"]);
    // Code only: the disk's signature and the partition table behind it are sgdisk's.
    let loader = fs::read(&first).unwrap();
    assert!(loader[..440].iter().any(|b| *b != 0) && loader[510..512] == [0x55, 0xaa]);
    let verdict = run(command("sgdisk").arg("-v").arg(&first));
    assert!(verdict.contains("No problems found"), "{verdict}");
}
