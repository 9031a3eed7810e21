//! GRUB and e2fsprogs of other Debians, unpacked below `.tools` and never installed.
//!
//! Must never: run them with this system's libraries, or take this system's in their place.

use super::boot_table::Bench;
use super::loader::{build_image, change_into, from_disk};
use super::qemu::{Drive, Firmware};
use super::{command, need_file, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// e2fsprogs whose defaults GRUB 2.06 was not made for.
pub const E2FSPROGS: &str = "e2fsprogs-1.47";

/// A GRUB, and the e2fsprogs that make its slots.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// Directory below `.tools`; `None`: this system's.
    pub grub: Option<&'static str>,
    pub e2fsprogs: Option<&'static str>,
}

/// This system's GRUB (2.06 on Debian 12) and e2fsprogs.
pub const OWN: Version = Version { grub: None, e2fsprogs: None };
/// The same GRUB, slots of e2fsprogs 1.47.
pub const SYSTEM: Version = Version { grub: None, e2fsprogs: Some(E2FSPROGS) };
pub const GRUB_2_12: Version = Version { grub: Some("grub-2.12"), e2fsprogs: Some(E2FSPROGS) };
pub const GRUB_2_14: Version = Version { grub: Some("grub-2.14"), e2fsprogs: Some(E2FSPROGS) };

pub fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(name)
}

/// Makes a command of a program below a root of unpacked packages, with the C library and the libraries there.
pub fn unpacked(name: &str, program: &str) -> Command {
    let (root, triplet) = (root(name), format!("{}-linux-gnu", std::env::consts::ARCH));
    let beside = root.join("usr/lib").join(triplet);
    let entries = fs::read_dir(&beside).unwrap_or_else(|e| panic!("{}: {e}", beside.display()));
    let mut names = entries.map(|entry| entry.unwrap().path());
    let is_loader = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("ld-linux-"));
    let mut loader = Command::new(names.find(is_loader).unwrap_or_else(|| panic!("{}: no loader", beside.display())));
    loader.arg("--library-path").arg(&beside).arg(root.join(program));
    loader
}

impl Version {
    /// Goes on if this GRUB is here for a firmware, and the e2fsprogs.
    pub fn need(&self, firmware: Firmware) {
        let target = match firmware {
            Firmware::Bios => "i386-pc/boot.img",
            Firmware::Uefi => "x86_64-efi/normal.mod",
            Firmware::UefiArm64 => "arm64-efi/normal.mod",
        };
        if let Some(name) = self.grub {
            need_file(&root(name).join("usr/lib/grub").join(target));
            need_file(&root(name).join("usr/bin/grub-mkimage"));
        }
        if let Some(name) = self.e2fsprogs {
            need_file(&root(name).join("usr/sbin/mke2fs"));
        }
    }

    /// Adds to a `scripts/build-image.sh` which GRUB and which e2fsprogs it is to take.
    pub fn choose<'a>(&self, build: &'a mut Command) -> &'a mut Command {
        if let Some(name) = self.grub {
            build.arg("--grub-dir").arg(root(name));
        }
        if let Some(name) = self.e2fsprogs {
            build.arg("--e2fsprogs-dir").arg(root(name));
        }
        build
    }

    /// `grub-fstest` of this GRUB: its own code for file systems, on this machine.
    pub fn fstest(&self) -> Command {
        self.tool("grub-fstest")
    }

    fn tool(&self, program: &str) -> Command {
        self.grub.map_or_else(|| command(program), |name| unpacked(name, &format!("usr/bin/{program}")))
    }
}

impl Bench for Version {
    fn disk(&self, dir: &Path, architecture: &str, name: &str) -> Drive {
        let (built, image) = (dir.join("built.img"), dir.join(format!("{name}.img")));
        if !built.exists() {
            let mut build = build_image(dir, architecture, &built);
            run(self.choose(build.arg("--grub-config").arg(from_disk(dir))));
        }
        run(Command::new("cp").arg("--sparse=always").arg(&built).arg(&image));
        change_into(image, name)
    }

    fn editenv(&self) -> Command {
        self.tool("grub-editenv")
    }
}
