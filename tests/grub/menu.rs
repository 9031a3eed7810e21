//! What a person, or a noisy line, can do to GRUB over the serial console.

use crate::support::boot_cases::values;
use crate::support::loader::{
    BOOTS_PRINTED, SHIPPED, asks, build_image, make_disk, make_shipped_disk, put_blocks, put_shim, read_block,
    slots_tried, words_after,
};
use crate::support::qemu::{Drive, Firmware, Machine, need_machine};
use crate::support::run;
use std::fs;
use std::path::Path;

const ESCAPE: &[u8] = b"\x1b";

/// A disk whose clocks run otherwise than shipped: a busy host is slower than a finger in two seconds, and nobody waits
/// for a whole minute.
fn disk_with_clocks(dir: &Path, countdown: u32, choice: u32) -> Drive {
    let mut config = fs::read_to_string(SHIPPED).unwrap();
    for (from, to) in [(2, countdown), (60, choice)] {
        let shipped = format!("set timeout={from}\n");
        assert_eq!(config.matches(&shipped).count(), 1);
        config = config.replace(&shipped, &format!("set timeout={to}\n"));
    }
    let (path, image) = (dir.join("clocks.cfg"), dir.join("image"));
    fs::write(&path, config).unwrap();
    run(build_image(dir, "amd64", &image).arg("--grub-config").arg(path));
    put_blocks(dir, &image, "B:3:0::1");
    Drive { image, read_only: false }
}

/// Calls the choice, in the countdown.
fn call(firmware: Firmware, machine: &mut Machine) {
    machine.wait_said("30    ", 1);
    machine.press(ESCAPE);
    if firmware != Firmware::Bios {
        // Firmware whose console is the line waits two seconds, in case a longer sequence begins: the second ends that.
        machine.press(ESCAPE);
    }
    machine.wait_said(asks(), 1);
    // The clock runs: keys are being read.
    machine.wait_said("59    ", 1);
}

/// Every letter, one power-up after the other. Slot B is on trial, and does not load. That is said only where no person
/// had asked for that slot.
fn hold_letters(firmware: Firmware) {
    need_machine(firmware);
    let dir = tempfile::tempdir().unwrap();
    let drive = make_disk(dir.path(), firmware.architecture(), "no-kernel-B");
    // Later than the shipped file's own two seconds: a busy host is slower than a finger.
    put_shim(dir.path(), &drive.image, &format!("{BOOTS_PRINTED}set timeout=30\n"));
    put_blocks(dir.path(), &drive.image, "B:3:0::1");
    let mut machine = Machine::start(firmware, std::slice::from_ref(&drive), 0, dir.path());
    for (key, tried, after, words, missing) in [
        (b"a", "A", "B:3:0::1", ["kubesolo.slot=A", "quiet"].as_slice(), ["kubesolo.skipped"].as_slice()),
        (b"b", "BA", "B:3:0::1", &["kubesolo.slot=A", "quiet"], &["kubesolo.skipped"]),
        (b"e", "BA", "B:3:0::1", &["kubesolo.slot=A", "kubesolo.shell"], &["kubesolo.skipped", "quiet"]),
        (b"d", "BA", "B:2:0::1", &["kubesolo.skipped=B", "debug", "ignore_loglevel", "kubesolo.debug"], &["quiet"]),
    ] {
        let before = machine.said().len();
        call(firmware, &mut machine);
        machine.press(key);
        machine.wait_said("SHIM boots ", 1);
        machine.wait_said("\n", 1);
        let said = &machine.said()[before..];
        let context = || format!("{firmware:?}: {}: {said}", key.escape_ascii());
        assert_eq!(slots_tried(said), tried, "{}", context());
        let line = words_after(said, "SHIM linux ");
        assert!(words.iter().all(|word| line.iter().any(|w| w == word)), "{}", context());
        assert!(!line.iter().any(|w| missing.iter().any(|m| w.starts_with(m))), "{}", context());
        assert_eq!(words_after(said, "SHIM boots ")[0], after, "{}", context());
    }
    call(firmware, &mut machine);
    machine.press(b"m");
    machine.wait_said("GNU GRUB", 1);
}

#[apply(long_test)]
fn every_letter_chooses_on_bios() {
    hold_letters(Firmware::Bios);
}

#[apply(long_test)]
fn every_letter_chooses_on_uefi() {
    hold_letters(Firmware::Uefi);
}

#[apply(long_test)]
fn every_letter_chooses_on_arm64() {
    hold_letters(Firmware::UefiArm64);
}

/// Slot B is on trial and is counted, whatever comes over the line.
fn hold_normal_boot(machine: &mut Machine, drive: &Drive) {
    machine.wait_said("Neither slot loads.", 1);
    assert_eq!(slots_tried(machine.said()), "BA", "{}", machine.said());
    assert_eq!(values(&read_block(&drive.image, "grubenv")), "B:2:0::1");
}

/// A line that gives back what GRUB writes, its terminal control included, is full of Escapes.
#[apply(long_test)]
fn a_line_that_echoes_does_not_stop_the_boot() {
    need_machine(Firmware::Bios);
    let dir = tempfile::tempdir().unwrap();
    let drive = make_shipped_disk(dir.path(), "amd64", "both");
    put_blocks(dir.path(), &drive.image, "B:3:0::1");
    let mut machine = Machine::start(Firmware::Bios, std::slice::from_ref(&drive), 0, dir.path());
    machine.echo();
    hold_normal_boot(&mut machine, &drive);
    assert!(machine.said().contains(asks()), "no Escape came back: {}", machine.said());
}

/// Escape after Escape: each gets its choice, the tenth a normal boot.
#[apply(long_test)]
fn escape_without_end_does_not_stop_the_boot() {
    need_machine(Firmware::Bios);
    let dir = tempfile::tempdir().unwrap();
    let drive = disk_with_clocks(dir.path(), 30, 60);
    let mut machine = Machine::start(Firmware::Bios, std::slice::from_ref(&drive), 0, dir.path());
    machine.wait_said("30    ", 1);
    for _ in 0..10 {
        machine.press(ESCAPE);
        machine.wait_said("60    ", 1);
    }
    machine.press(ESCAPE);
    hold_normal_boot(&mut machine, &drive);
}

/// One Escape, then every key that chooses nothing: the clock runs on.
#[apply(long_test)]
fn keys_that_choose_nothing_do_not_stop_the_clock() {
    need_machine(Firmware::Bios);
    let dir = tempfile::tempdir().unwrap();
    let drive = disk_with_clocks(dir.path(), 30, 5);
    let mut machine = Machine::start(Firmware::Bios, std::slice::from_ref(&drive), 0, dir.path());
    machine.wait_said("30    ", 1);
    machine.press(ESCAPE);
    machine.wait_said(asks(), 1);
    machine.wait_said("5    ", 1);
    let choosing = b"abdem\x1b";
    let others: Vec<u8> = (1..=255).filter(|byte| !choosing.contains(byte)).collect();
    machine.press(&others);
    // Arrows and Home, as terminals send them.
    machine.press(b"\x1b[A\x1b[B\x1b[H");
    hold_normal_boot(&mut machine, &drive);
    assert_eq!(machine.said().matches(asks()).count(), 1, "{}", machine.said());
}
