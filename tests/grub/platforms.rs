//! What `scripts/build-image.sh` makes of a GRUB that lacks something: the image goes on without what it can spare, says
//! what it will not boot on, and is not made at all where it would not boot.
//!
//! Each GRUB here is this system's, copied, with something taken out of it.

use crate::support::disk::{initramfs_of, kernel_noise, need_disks, noise};
use crate::support::{command, find, need_all, need_file, run};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const TARGETS: [&str; 2] = ["i386-pc", "x86_64-efi"];

/// A copy of this system's GRUB.
struct Grub {
    dir: TempDir,
}

fn need_grub() {
    for target in TARGETS {
        need_file(&Path::new("/usr/lib/grub").join(target).join("moddep.lst"));
    }
    need_disks();
    need_all(&["grub-mkimage", "grub-script-check"]);
}

impl Grub {
    fn new() -> Grub {
        let dir = tempfile::tempdir().unwrap();
        let (programs, files) = (dir.path().join("usr/bin"), dir.path().join("usr/lib/grub"));
        fs::create_dir_all(&programs).unwrap();
        fs::create_dir_all(&files).unwrap();
        for program in ["grub-mkimage", "grub-script-check"] {
            symlink(find(program).unwrap(), programs.join(program)).unwrap();
        }
        for target in TARGETS {
            run(Command::new("cp").arg("-r").arg(Path::new("/usr/lib/grub").join(target)).arg(&files));
        }
        fs::write(dir.path().join("vmlinuz"), kernel_noise(1, 5000)).unwrap();
        fs::write(dir.path().join("initramfs"), initramfs_of(dir.path(), &noise(2, 5000))).unwrap();
        Grub { dir }
    }

    /// A file of a target.
    fn file(&self, target: &str, name: &str) -> PathBuf {
        self.dir.path().join("usr/lib/grub").join(target).join(name)
    }

    fn lacks(&self, target: &str, name: &str) {
        fs::remove_file(self.file(target, name)).unwrap();
    }

    /// Renames a command, or a hash, in one of GRUB's lists, as if another version had it under another name.
    fn renames(&self, target: &str, list: &str, from: &str, to: &str) {
        let path = self.file(target, list);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    fn lacks_platform(&self, target: &str) {
        fs::remove_dir_all(self.dir.path().join("usr/lib/grub").join(target)).unwrap();
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn build(&self, extra: &[&str]) -> (bool, String) {
        let mut build = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-image.sh"));
        build.args(["--version", "1.0.0", "--slot-size", "16", "--data-size", "16", "--force"]);
        build.arg("--kernel").arg(self.dir.path().join("vmlinuz")).arg("--grub-dir").arg(self.dir.path());
        build.arg("--initramfs").arg(self.dir.path().join("initramfs")).arg("--output").arg(self.image());
        let out = build.args(["--arch", "amd64"]).args(extra).output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    }

    #[track_caller]
    fn builds(&self, extra: &[&str], words: &[&str]) -> String {
        let (made, said) = self.build(extra);
        assert!(made && self.image().exists(), "{said}");
        words.iter().for_each(|word| assert!(said.contains(word), "'{word}': {said}"));
        said
    }

    #[track_caller]
    fn refuses(&self, extra: &[&str], words: &[&str]) {
        let (made, said) = self.build(extra);
        assert!(!made && !self.image().exists(), "{said}");
        words.iter().for_each(|word| assert!(said.contains(word), "'{word}': {said}"));
        // Said before anything is made: nothing of grub-mkimage's own, no plan.
        assert!(!said.contains("cannot open") && !said.contains("KSOLOEFI"), "{said}");
    }

    /// GRUB for UEFI, as it is on the EFI partition.
    fn loader(&self) -> Vec<u8> {
        let efi = format!("{}@@{}", self.image().display(), 1 << 20);
        command("mtype").args(["-i", &efi, "::/EFI/BOOT/BOOTX64.EFI"]).output().unwrap().stdout
    }

    /// What the firmwares find: the loader on the EFI partition; code in the first sector, and in partition 128.
    fn firmwares(&self) -> [bool; 2] {
        let efi = format!("{}@@{}", self.image().display(), 1 << 20);
        let found = command("mdir").args(["-b", "-i", &efi, "::/EFI/BOOT/BOOTX64.EFI"]).output().unwrap();
        let disk = fs::read(self.image()).unwrap();
        let code = [&disk[..440], &disk[34 * 512..35 * 512]].map(|part| part.iter().any(|byte| *byte != 0));
        assert_eq!(code[0], code[1], "half of GRUB for BIOS");
        [found.status.success(), code[0]]
    }
}

#[apply(test)]
fn a_missing_platform_is_a_warning_that_says_what_does_not_boot() {
    need_grub();
    let grub = Grub::new();
    let said = grub.builds(&["--require-platforms"], &["GRUB: x86_64-efi, i386-pc"]);
    assert!(!said.contains("WARNING") && !said.contains("left out"), "{said}");
    assert_eq!(grub.firmwares(), [true, true]);
    for (target, package, firmware, left, has) in [
        ("i386-pc", "grub-pc-bin", "BIOS", "GRUB: x86_64-efi)", [true, false]),
        ("x86_64-efi", "grub-efi-amd64-bin", "UEFI", "GRUB: i386-pc)", [false, true]),
    ] {
        let grub = Grub::new();
        grub.lacks_platform(target);
        let words = [target, package, &format!("does not boot on machines with {firmware}")];
        grub.refuses(&["--require-platforms"], &words);
        grub.builds(&[], &[&words[..], &["WARNING", left]].concat());
        assert_eq!(grub.firmwares(), has, "{target}");
    }
}

#[apply(test)]
fn no_platform_at_all_is_an_error() {
    need_grub();
    let grub = Grub::new();
    TARGETS.iter().for_each(|target| grub.lacks_platform(target));
    grub.refuses(&[], &["boot nowhere", "grub-efi-amd64-bin or grub-pc-bin", "--no-bootloader"]);
    grub.refuses(&["--arch", "arm64"], &["boot nowhere", "grub-efi-arm64-bin"]);
    grub.refuses(&["--no-bootloader", "--require-platforms"], &["one or the other"]);
    grub.builds(&["--no-bootloader"], &["no boot loader"]);
    assert_eq!(grub.firmwares(), [false, false]);
    // Nor this system's in the place of what was named.
    let programs = Grub::new();
    fs::remove_file(programs.dir.path().join("usr/bin/grub-mkimage")).unwrap();
    programs.refuses(&[], &["grub-mkimage is missing", "--grub-dir"]);
    programs.refuses(&["--grub-dir", "/nonexistent"], &["--grub-dir /nonexistent is not a directory"]);
    programs.refuses(&["--e2fsprogs-dir", "/etc"], &["mke2fs is missing"]);
}

/// What a person at the prompt misses, or a screen: said, and the image boots.
#[apply(test)]
fn modules_that_can_be_spared_are_left_out() {
    need_grub();
    let grub = Grub::new();
    grub.lacks("x86_64-efi", "all_video.mod");
    grub.lacks("x86_64-efi", "minicmd.mod");
    grub.lacks("i386-pc", "serial.mod");
    grub.builds(
        &["--require-platforms"],
        &["x86_64-efi: it has no minicmd all_video: left out", "i386-pc: it has no serial: left out"],
    );
    assert_eq!(grub.firmwares(), [true, true]);
    // As in GRUB 2.14: gone, and nothing asks for it.
    let grub = Grub::new();
    let moddep = grub.file("x86_64-efi", "moddep.lst");
    let text = fs::read_to_string(&moddep).unwrap();
    fs::write(&moddep, text.replace(" efi_uga", "")).unwrap();
    let _ = fs::remove_file(grub.file("x86_64-efi", "efi_uga.mod"));
    let said = grub.builds(&["--require-platforms"], &[]);
    assert!(!said.contains("left out"), "{said}");
}

/// Each of these ends in a prompt, or in the wrong slot, at the first boot.
#[apply(test)]
fn an_image_that_would_not_boot_is_not_made() {
    need_grub();
    for (target, package) in [("i386-pc", "grub-pc-bin"), ("x86_64-efi", "grub-efi-amd64-bin")] {
        for module in ["hashsum", "gcry_crc", "loopback", "loadenv", "ext2", "memdisk", "probe", "test", "linux"] {
            let grub = Grub::new();
            grub.lacks(target, &format!("{module}.mod"));
            grub.refuses(&[], &[&format!("no module {module} for {target}"), package]);
        }
    }
    let grub = Grub::new();
    grub.renames("x86_64-efi", "command.lst", "*probe:", "*prove:");
    grub.refuses(&[], &["does not know", "grub.cfg uses: probe"]);
    let grub = Grub::new();
    grub.renames("i386-pc", "crypto.lst", "CRC32:", "CRC-32:");
    grub.refuses(&[], &["does not know", "hashsum:crc32"]);
    for list in ["command.lst", "crypto.lst", "moddep.lst", "kernel.img"] {
        let grub = Grub::new();
        grub.lacks("i386-pc", list);
        fs::write(grub.file("i386-pc", list), "").unwrap();
        grub.refuses(&[], &[&format!("{list} is missing or empty"), "grub-pc-bin"]);
    }
}

/// What a hand-made configuration uses comes along, or is missed: inside GRUB nobody can add it.
#[apply(test)]
fn the_modules_of_a_sites_configuration_come_along() {
    need_grub();
    let grub = Grub::new();
    let config = grub.dir.path().join("site.cfg");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/grub/grub.cfg");
    let site = |text: &str| {
        fs::write(&config, format!("{}\n{text}\n", fs::read_to_string(shipped).unwrap())).unwrap();
        ["--grub-config", config.to_str().unwrap()]
    };
    grub.builds(&site("if search --set=x --label 'a; b'; then\n  echo \"frob; x\" \\\n    more # ; bad\nfi"), &[]);
    let words = "search --set".len();
    assert!(grub.loader().windows(words).any(|bytes| bytes == b"search --set"), "the configuration");
    let large = grub.loader().len();
    grub.builds(&site(&"# ".repeat(30)), &[]);
    assert!(large > grub.loader().len() + 2000, "{large}: no module came along");
    fs::remove_file(grub.image()).unwrap();
    for text in ["frobnicate now", "if true; then frobnicate; fi", "menuentry 'x' { set a=b; frobnicate }"] {
        grub.refuses(&site(text), &["does not know", "uses: frobnicate"]);
    }
    grub.lacks("x86_64-efi", "search.mod");
    grub.refuses(&site("search --set=x --label y"), &["no module search for x86_64-efi"]);
}

/// The bytes that are patched by hand for BIOS, in another order.
#[apply(test)]
fn a_boot_sector_that_is_laid_out_otherwise_is_not_patched() {
    need_grub();
    for (name, at) in [("boot.img", 92), ("boot.img", 100), ("diskboot.img", 500), ("diskboot.img", 510)] {
        let grub = Grub::new();
        let path = grub.file("i386-pc", name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        grub.refuses(&[], &[&format!("{name} is not as in GRUB"), "--no-bootloader"]);
    }
}
