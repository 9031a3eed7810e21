//! What whole virtual machines are made of: firmware, kernel, initramfs, a disk image, versions to update to.

use super::delta::index;
use super::disk::{Disk, EFI};
use super::release::{Pair, Release};
use super::{command, need, need_all, need_file, run};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// What the image's slots hold.
pub const BORN: &str = "1.0.0";
const DATA_MIB: u64 = 16;
/// What GRUB starts if nobody says otherwise.
const NORMAL: &str = "\nmenuentry \"KubeSolo OS\" --id normal {\n    set options=quiet\n";
const EMERGENCY: &str = "\nmenuentry \"KubeSolo OS\" --id normal {\n    set options=kubesolo.shell\n";

/// What starts the boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
    UefiArm64,
}

impl Firmware {
    /// Architecture of the machine.
    pub fn architecture(self) -> &'static str {
        if self == Firmware::UefiArm64 { "arm64" } else { "amd64" }
    }

    pub fn program(self) -> &'static str {
        if self == Firmware::UefiArm64 { "qemu-system-aarch64" } else { "qemu-system-x86_64" }
    }

    fn slot_mib(self) -> u64 {
        if self == Firmware::UefiArm64 { 64 } else { 40 }
    }

    /// Code and an empty variable store.
    pub fn flash(self) -> Option<[&'static str; 2]> {
        match self {
            Firmware::Bios => None,
            Firmware::Uefi => Some(["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"]),
            Firmware::UefiArm64 => Some(["/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"]),
        }
    }
}

pub fn repo() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn tools(architecture: &str) -> PathBuf {
    repo().join(".tools/vm").join(architecture)
}

/// The static agent: beside the one that `KUBESOLO_UPDATE_BIN` names, or in `dist/`. A plain `cargo build` is no use,
/// there are no libraries in the machine.
pub fn agent(architecture: &str) -> PathBuf {
    let named = std::env::var_os("KUBESOLO_UPDATE_BIN").map(PathBuf::from);
    let dir = named.and_then(|path| Some(path.parent()?.to_path_buf())).unwrap_or_else(|| repo().join("dist"));
    dir.join(format!("kubesolo-update-{architecture}"))
}

fn kernel(architecture: &str) -> Option<PathBuf> {
    let names = fs::read_dir(tools(architecture).join("boot")).ok()?;
    let paths = names.filter_map(|entry| Some(entry.ok()?.path()));
    paths.into_iter().find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz")))
}

/// Goes on if such machines can be made here.
pub fn need_vm(firmware: Firmware) {
    need(firmware.program());
    need_all(&["grub-mkimage", "mcopy", "debugfs", "sgdisk", "mkfs.fat", "cpio", "jq", "grub-editenv"]);
    let architecture = firmware.architecture();
    let busybox = tools(super::disk::architecture()).join("bin/busybox");
    let mut files = vec![tools(architecture).join("packages"), busybox, agent(architecture)];
    files.extend(firmware.flash().into_iter().flatten().map(PathBuf::from));
    files.iter().for_each(|path| need_file(path));
}

/// What all machines of a firmware are copies of.
struct Kit {
    kernel: Vec<u8>,
    initramfs: Vec<u8>,
    /// Without a name: nothing is left behind.
    image: File,
}

static KITS: Mutex<Vec<(&str, Arc<Kit>)>> = Mutex::new(Vec::new());

fn kit(firmware: Firmware) -> Arc<Kit> {
    let architecture = firmware.architecture();
    let mut kits = KITS.lock().unwrap_or_else(|e| e.into_inner());
    if let Some((_, kit)) = kits.iter().find(|(name, _)| *name == architecture) {
        return kit.clone();
    }
    let dir = tempfile::tempdir().unwrap();
    let (initramfs, image) = (dir.path().join("initramfs"), dir.path().join("image"));
    let mut build = Command::new(repo().join("tests/vm/build-initramfs.sh"));
    build.args(["--arch", architecture, "--version", BORN]).arg("--agent").arg(agent(architecture));
    run(build.arg("--output").arg(&initramfs));
    build_image(firmware, dir.path(), &initramfs, &image, &[]);
    let kernel = fs::read(kernel(architecture).unwrap()).unwrap();
    let initramfs = fs::read(&initramfs).unwrap();
    let kit = Kit { kernel, initramfs, image: File::open(&image).unwrap() };
    let kit = Arc::new(kit);
    kits.push((architecture, kit.clone()));
    kit
}

/// Replaces a file on the EFI partition of a machine that is off; `None`: the file goes.
pub fn replace_efi(disk: &Disk, path: &str, bytes: Option<&[u8]>) {
    let efi = format!("{}@@{}", disk.image.display(), disk.extent(EFI).0);
    let _ = command("mdel").args(["-i", &efi, &format!("::{path}")]).output();
    if let Some(bytes) = bytes {
        let file = disk.dir().join("replacement");
        fs::write(&file, bytes).unwrap();
        run(command("mcopy").args(["-o", "-i", &efi]).arg(&file).arg(format!("::{path}")));
    }
}

/// A new disk with version [`BORN`] in both slots.
pub fn disk(firmware: Firmware) -> Disk {
    let kit = kit(firmware);
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    let source = format!("/proc/{}/fd/{}", std::process::id(), kit.image.as_raw_fd());
    run(Command::new("cp").args(["--sparse=always", &source]).arg(&image));
    Disk::of_image(dir, image, firmware.slot_mib(), DATA_MIB)
}

/// The same, started as by GRUB's entry "emergency shell".
pub fn disk_of_emergency(firmware: Firmware) -> Disk {
    let (kit, dir) = (kit(firmware), tempfile::tempdir().unwrap());
    let (initramfs, image) = (dir.path().join("initramfs"), dir.path().join("disk.img"));
    fs::write(&initramfs, &kit.initramfs).unwrap();
    build_image(firmware, dir.path(), &initramfs, &image, &[(NORMAL, EMERGENCY)]);
    Disk::of_image(dir, image, firmware.slot_mib(), DATA_MIB)
}

/// Builds an image. Input: `edits`: what to replace in GRUB's configuration by what.
fn build_image(firmware: Firmware, dir: &Path, initramfs: &Path, image: &Path, edits: &[(&str, &str)]) {
    let mut cfg = fs::read_to_string(repo().join("grub/grub.cfg")).unwrap();
    // Nobody is there to press Escape. And in an emulator whose host is busy, Linux may find that the timer does not
    // tick, and panic before it begins; and it counts the seconds of a panic far too slowly.
    for (from, to) in
        [("set timeout=2", "set timeout=0"), (" panic=10 ", " panic=1 no_timer_check ")].iter().chain(edits)
    {
        assert_eq!(cfg.matches(from).count(), 1, "{from}");
        cfg = cfg.replace(from, to);
    }
    let (architecture, config) = (firmware.architecture(), dir.join("grub.cfg"));
    fs::write(&config, cfg).unwrap();
    let mut build = Command::new(repo().join("scripts/build-image.sh"));
    build.args(["--version", BORN, "--arch", architecture]).arg("--output").arg(image);
    build.arg("--kernel").arg(kernel(architecture).unwrap()).arg("--initramfs").arg(initramfs);
    build.args(["--slot-size", &firmware.slot_mib().to_string(), "--data-size", &DATA_MIB.to_string()]);
    run(build.arg("--grub-config").arg(config));
}

/// A version for these machines. Input: `behaviour`: see `tests/vm/init`.
pub fn release(firmware: Firmware, version: &str, behaviour: &str) -> Release {
    release_with(firmware, version, behaviour, &[])
}

/// The same with files of its own in the initramfs. Input: path, content, mode of each.
pub fn release_with(firmware: Firmware, version: &str, behaviour: &str, files: &[(&str, &str, u32)]) -> Release {
    let kit = kit(firmware);
    let dir = tempfile::tempdir().unwrap();
    let (from, to, tree) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("tree"));
    fs::write(&from, &kit.initramfs).unwrap();
    for (path, content, mode) in files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
    }
    let mut build = Command::new(repo().join("tests/vm/build-initramfs.sh"));
    build.args(["--version", version, "--behaviour", behaviour]).arg("--from").arg(&from);
    if !files.is_empty() {
        build.arg("--add").arg(&tree);
    }
    run(build.arg("--output").arg(&to));
    let bootable = |architecture: &'static str| match architecture == firmware.architecture() {
        true => Pair {
            architecture,
            kernel: kit.kernel.clone(),
            initramfs: fs::read(&to).unwrap(),
            chunks: None,
            first_layer: 0,
        },
        false => Pair {
            architecture,
            kernel: super::disk::kernel_noise(1, 3000),
            initramfs: super::disk::initramfs_of(dir.path(), b"none"),
            chunks: None,
            first_layer: 0,
        },
    };
    let pairs = [bootable("amd64"), bootable("arm64")];
    Release { version: version.into(), annotations: Vec::new(), pairs }
}

/// Most that an update from one chunked release to another fetches of about 2,000,000 bytes: a few chunks.
pub const CHUNKED_MOST_BYTES: usize = 200_000;

/// The same, packed as the documentation advises: what all versions have in common and a word of this one, then what only this
/// one has. Input: `is_layered`: in two layers; the first one, or the whole, has a chunk index.
pub fn chunked_release(firmware: Firmware, version: &str, is_layered: bool) -> Release {
    let kit = kit(firmware);
    let mut release = release(firmware, version, "healthy");
    let ours = release.pairs.iter_mut().find(|pair| pair.architecture == firmware.architecture()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("base.gz"), &kit.initramfs).unwrap();
    let script = "printf '%s\\n' \"$1\" >word && touch -d @0 word && { gzip -dc base.gz
        echo word | cpio -o -H newc -R 0:0 --reproducible --quiet; } | gzip -9n --rsyncable >packed.gz";
    run(Command::new("sh").args(["-ec", script, "sh", version]).current_dir(dir.path()));
    let base = fs::read(dir.path().join("packed.gz")).unwrap();
    ours.initramfs = [&base[..], &ours.initramfs[kit.initramfs.len()..]].concat();
    (ours.first_layer, ours.chunks) = match is_layered {
        true => (base.len(), Some(index(&base))),
        false => (0, Some(index(&ours.initramfs))),
    };
    release
}

/// The version that the disk was born with.
pub fn born(firmware: Firmware) -> Release {
    let kit = kit(firmware);
    let pair = |architecture| Pair {
        architecture,
        kernel: kit.kernel.clone(),
        initramfs: kit.initramfs.clone(),
        chunks: None,
        first_layer: 0,
    };
    Release { version: BORN.into(), annotations: Vec::new(), pairs: [pair("amd64"), pair("arm64")] }
}
