//! The disk image that `scripts/build-image.sh` makes, looked at with other tools than those that made it.

use crate::support::disk::{A, B, BORN, DATA, Disk, EFI, architecture, build_image, need_disks};
use crate::support::root::{Root, jq};
use crate::support::unprivileged::unprivileged;
use crate::support::{self, command, need, run};
use kubesolo_update::parts::boot::block::Block;
use kubesolo_update::parts::slot::record::{Record, Slot};
use std::fs;
use std::process::{Command, Output};

fn failed(out: Output, word: &str) {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains(word), "wanted '{word}': {said}");
}

#[apply(test)]
fn the_same_input_gives_the_same_bytes() {
    need_disks();
    let dir = tempfile::tempdir().unwrap();
    let [first, second, other] = ["first", "second", "other"].map(|name| dir.path().join(name));
    for (image, seed, epoch) in [(&first, "s", "1700000000"), (&second, "s", "1700000000"), (&other, "t", "1700000000")]
    {
        // Another directory, other inodes, and another second on the clock than the one before.
        let work = tempfile::tempdir().unwrap();
        run(build_image(work.path(), image, 24, 16).args(["--seed", seed]).env("SOURCE_DATE_EPOCH", epoch));
    }
    let [first, second, other] = [first, second, other].map(|path| fs::read(path).unwrap());
    assert!(first == second, "two runs differ");
    assert!(first != other, "the seed makes no difference");
}

#[apply(test)]
fn partitions_are_where_the_design_says() {
    need_disks();
    let disk = Disk::detached(24, 16);
    // The GUIDs are the test's own work, the rest is the script's.
    let verdict = run(command("sgdisk").arg("-v").arg(&disk.image));
    assert!(verdict.contains("No problems found") && !verdict.contains("Caution"), "{verdict}");
    let table = run(command("sgdisk").arg("-p").arg(&disk.image));
    for (n, code, name) in
        [(1, "EF00", "KSOLOEFI"), (2, "8300", "KSOLOA"), (3, "8300", "KSOLOB"), (4, "8300", "KSOLODATA")]
    {
        let line = table.lines().find(|l| l.trim_start().starts_with(&format!("{n} "))).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let (start, length) = disk.extent(n);
        let sectors = [(start / 512).to_string(), ((start + length) / 512 - 1).to_string()];
        assert_eq!(words[1..3], [sectors[0].as_str(), sectors[1].as_str()], "{line}");
        assert_eq!((words[5], words[6]), (code, name), "{line}");
    }
    let bios = table.lines().find(|l| l.trim_start().starts_with("128 ")).unwrap();
    assert!(bios.contains(" 34 ") && bios.contains(" 2047 ") && bios.contains("EF02"), "{bios}");
    let mut guids: Vec<String> = [EFI, A, B, DATA, 128].map(|n| disk.guid(n)).into();
    guids.sort();
    guids.dedup();
    assert_eq!(guids.len(), 5);
    // What a mirror of the layout table in Rust could hide: labels, as blkid's own code finds them.
    for (n, label) in [(EFI, "KSOLOEFI"), (A, "KSOLOA"), (B, "KSOLOB"), (DATA, "KSOLODATA")] {
        let offset = disk.extent(n).0.to_string();
        let found = run(command("blkid").args(["-p", "-s", "LABEL", "-o", "value", "-O", &offset]).arg(&disk.image));
        assert_eq!(found.trim(), label);
    }
}

#[apply(test)]
fn slots_hold_the_system_and_a_record_that_fits() {
    need_disks();
    let disk = Disk::detached(24, 16);
    for slot in [A, B] {
        assert_eq!(disk.names(slot), ["kubesolo-os.gz", "slot.crc32", "slot.json", "version", "vmlinuz"]);
        assert_eq!(disk.text(slot, "version").unwrap(), format!("{BORN}\n"));
        let text = disk.text(slot, "slot.json").unwrap();
        let record = Record::parse(text.as_bytes()).unwrap();
        assert_eq!((record.version.as_str(), record.architecture.as_str()), (BORN, architecture()));
        assert_eq!((record.channel.as_str(), record.manifest_digest), ("stable", None));
        for (name, field) in [("vmlinuz", "kernel"), ("kubesolo-os.gz", "initramfs")] {
            let bytes = disk.file(slot, name).unwrap();
            assert_eq!(jq(&text, &format!(".{field}.size")), bytes.len().to_string());
            assert_eq!(jq(&text, &format!(".{field}.sha256")), support::release::sha256(&bytes));
        }
        assert!(!disk.needs_recovery(slot));
    }
}

#[apply(test)]
fn grub_can_read_the_slots_and_the_environment_block() {
    need_disks();
    need("grub-fstest");
    let disk = Disk::detached(24, 16);
    let born = Block::fresh(Slot::A).encode().unwrap();
    let block = disk.dir().join("grubenv");
    for name in ["grubenv", "grubenv.bak"] {
        fs::write(&block, disk.efi_file(&format!("/boot/grub/{name}"))).unwrap();
        assert!(fs::read(&block).unwrap() == born, "{name} is not what the agent would make");
        let listed = run(command("grub-editenv").arg(&block).arg("list"));
        assert_eq!(listed, "active_slot=A\nboot_success=1\nboot_counter=3\nrollback_from=\nboot_canary=0\n");
    }
    // GRUB's own file-system code, past the kernel's.
    for (n, path) in [(A, "/vmlinuz"), (B, "/slot.json"), (EFI, "/boot/grub/grubenv")] {
        let grub_path = format!("(loop0,gpt{n}){path}");
        let out = command("grub-fstest").arg(&disk.image).arg("cat").arg(&grub_path).output().unwrap();
        let should = if n == EFI { disk.efi_file(path) } else { disk.file(n, &path[1..]).unwrap() };
        assert!(out.status.success() && out.stdout == should, "{grub_path}: {}", String::from_utf8_lossy(&out.stderr));
    }
    for feature in ["metadata_csum_seed", "orphan_file", "inline_data", "encrypt", "casefold", "verity"] {
        assert!(!disk.debugfs(A, "stats -h").contains(feature), "{feature}");
    }
}

#[apply(test)]
fn wrong_input_is_refused_and_writes_nothing() {
    need_disks();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let build = |extra: &[&str]| build_image(dir.path(), &image, 24, 16).args(extra).output().unwrap();
    for (extra, word) in [
        (vec!["--version", "1 0"], "--version must be a semantic version"),
        (vec!["--version", "1\"0"], "--version must be a semantic version"),
        (vec!["--version", "$(reboot)"], "--version must be a semantic version"),
        (vec!["--version", ""], "--version must be a semantic version"),
        (vec!["--version", "2024.01"], "--version must be a semantic version"),
        (vec!["--version", "1.0"], "--version must be a semantic version"),
        (vec!["--version", "dev"], "--version must be a semantic version"),
        (vec!["--version", "01.2.3"], "--version must be a semantic version"),
        (vec!["--version", "1.2.3-01"], "--version must be a semantic version"),
        (vec!["--version", "1.2.3+"], "--version must be a semantic version"),
        (vec!["--version", "1.2.3\n"], "--version must be a semantic version"),
        (vec!["--version", "1.2.3_4"], "--version must be a semantic version"),
        (vec!["--version", "1.99999999999999999999"], "--version must be a semantic version"),
        (vec!["--channel", ""], "--channel may hold"),
        (vec!["--channel", "a b"], "--channel may hold"),
        (vec!["--channel", "a\"b"], "--channel may hold"),
        (vec!["--channel", "a/b"], "--channel may hold"),
        (vec!["--channel", &"c".repeat(65)], "--channel may hold"),
        (vec!["--arch", "riscv64"], "--arch must be"),
        (vec!["--initramfs", "/etc/hostname"], "neither gzip nor cpio"),
        (vec!["--kernel", "/nonexistent"], "is not a regular file"),
        (vec!["--kernel", "/dev/null"], "is not a regular file"),
        (vec!["--efi-size", "32"], "at least 64"),
        (vec!["--slot-size", "15"], "at least 16"),
        (vec!["--slot-size", "1G"], "whole number"),
        (vec!["--data-size", "-1"], "whole number"),
        (vec!["--data-size", "99999999"], "too large"),
        (vec!["--output", "/dev/null"], "not a regular file"),
        (vec!["--output", "/nonexistent/image"], "directory of"),
        (vec!["--output"], "needs a value"),
        (vec!["--sede", "x"], "unknown option"),
    ] {
        failed(build(&extra), word);
        assert!(!image.exists(), "{extra:?}");
    }
    let large = dir.path().join("large");
    fs::write(&large, support::disk::kernel_noise(3, 20 << 20)).unwrap();
    failed(build(&["--kernel", large.to_str().unwrap()]), "needs --slot-size 26");
    assert!(build(&["--dry-run"]).status.success() && !image.exists());
    fs::write(&image, "mine").unwrap();
    failed(build(&[]), "--force");
    assert_eq!(fs::read(&image).unwrap(), b"mine");
    assert!(build(&["--force"]).status.success());
    run(command("sgdisk").arg("-v").arg(&image));
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["born-initramfs", "born-vmlinuz", "image", "large"], "something is left behind");
}

#[apply(test)]
fn nobody_needs_to_be_root() {
    need_disks();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("out/image");
    let build = build_image(dir.path(), &image, 24, 16);
    fs::create_dir(dir.path().join("out")).unwrap();
    run(Command::new("chmod").args(["-R", "a+rwX"]).arg(dir.path()));
    run(&mut unprivileged(dir.path(), &build));
    let stat =
        run(command("debugfs").args(["-R", "stat /vmlinuz"]).arg(format!("{}?offset={}", image.display(), 65 << 20)));
    assert!(stat.contains("User:     0   Group:     0"), "{stat}");
}

#[apply(test)]
fn the_agent_finds_its_way_on_it() {
    need_disks();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let status = root.agent(&["status", "--json"]).expect(0, &[]);
    assert!(status.stdout.contains(BORN), "{}", status.stdout);
}
