//! A disk image from `scripts/build-image.sh`, attached as a loop device with its partitions.

use super::{command, need_all, require, run};
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const EFI: u32 = 1;
pub const A: u32 = 2;
pub const B: u32 = 3;
pub const DATA: u32 = 4;

/// What the image's slots hold.
pub const BORN: &str = "1.0.0";
const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
const EFI_MIB: u64 = 64;
const ATTACH_TRIES: u32 = 50;
const SETTLE: Duration = Duration::from_secs(20);

/// Name of this machine's architecture.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// The architecture that this machine is not.
pub fn other_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" }
}

/// Bytes that do not compress and repeat from run to run.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Noise that begins as kernels do, of either architecture. Input: 3,000 bytes or more.
pub fn kernel_noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = noise(seed, length);
    let fields: [(usize, &[u8]); 7] = [
        (0x38, b"ARM\x64"),
        (0x1f1, &[0]),
        (0x1f4, &[0; 4]),
        (0x1fe, &[0x55, 0xaa]),
        (0x202, b"HdrS"),
        (0x206, &[0x0f, 2]),
        (0x236, &[1]),
    ];
    for (place, field) in fields {
        bytes[place..place + field.len()].copy_from_slice(field);
    }
    bytes
}

/// What a real gzip makes of bytes.
pub fn gzip(dir: &Path, bytes: &[u8]) -> Vec<u8> {
    let plain = dir.join("plain");
    fs::write(&plain, bytes).unwrap();
    let out = Command::new("gzip").args(["-n", "-c"]).arg(&plain).output().unwrap();
    assert!(out.status.success() && !out.stdout.is_empty());
    fs::remove_file(&plain).unwrap();
    out.stdout
}

/// An initramfs as real tools make it: one file with these bytes, in cpio, in gzip.
pub fn initramfs_of(dir: &Path, content: &[u8]) -> Vec<u8> {
    fs::write(dir.join("content"), content).unwrap();
    let pack = "touch -d @0 content && echo content | cpio -o -H newc -R 0:0 --reproducible --quiet | gzip -n";
    let out = Command::new("sh").args(["-c", pack]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    fs::remove_file(dir.join("content")).unwrap();
    out.stdout
}

/// Goes on if this machine can attach disks.
pub fn need_disks() {
    need_all(&[
        "sgdisk",
        "mke2fs",
        "debugfs",
        "mkfs.fat",
        "mcopy",
        "losetup",
        "partx",
        "jq",
        "grub-editenv",
        "gzip",
        "cpio",
    ]);
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    require(is_root && Path::new("/dev/loop-control").exists(), "root with /dev/loop-control");
}

/// A `scripts/build-image.sh` command whose fixtures lie in `dir`.
pub fn build_image(dir: &Path, output: &Path, slot_mib: u64, data_mib: u64) -> Command {
    let (kernel, initramfs) = (dir.join("born-vmlinuz"), dir.join("born-initramfs"));
    fs::write(&kernel, kernel_noise(1, 300_001)).unwrap();
    fs::write(&initramfs, initramfs_of(dir, &noise(2, 100_003))).unwrap();
    let mut build = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-image.sh"));
    build.args(["--no-bootloader", "--version", BORN, "--arch", architecture()]).arg("--kernel").arg(kernel);
    build.arg("--initramfs").arg(initramfs).arg("--output").arg(output);
    build.arg("--slot-size").arg(slot_mib.to_string()).arg("--data-size").arg(data_mib.to_string());
    build
}

/// One image of each size is built per test program, and kept without a name: nothing is left behind.
static BUILT: Mutex<Vec<((u64, u64), File)>> = Mutex::new(Vec::new());

fn copy_of_built(slot_mib: u64, data_mib: u64, to: &Path) {
    let mut built = BUILT.lock().unwrap_or_else(|e| e.into_inner());
    let at = built.iter().position(|(size, _)| *size == (slot_mib, data_mib)).unwrap_or_else(|| {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        run(&mut build_image(dir.path(), &image, slot_mib, data_mib));
        built.push(((slot_mib, data_mib), File::open(&image).unwrap()));
        built.len() - 1
    });
    let source = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&built[at].1));
    run(Command::new("cp").args(["--sparse=always", &source]).arg(to));
}

/// Gives disk and partitions random GUIDs, in both tables. What `sgdisk -G` does, without its second of sleep;
/// tests/disk/image.rs lets sgdisk judge it.
fn give_new_guids(image: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    let last = fs::metadata(image).unwrap().len() / SECTOR - 1;
    let random = || RandomState::new().build_hasher().finish().to_le_bytes();
    let guids: Vec<[u8; 16]> = (0..129).map(|_| [random(), random()].concat().try_into().unwrap()).collect();
    let crc = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum().to_le_bytes()
    };
    for lba in [1, last] {
        let (mut header, mut entries) = ([0; 92], vec![0; 128 * 128]);
        file.read_exact_at(&mut header, lba * SECTOR).unwrap();
        let at = u64::from_le_bytes(header[72..80].try_into().unwrap()) * SECTOR;
        file.read_exact_at(&mut entries, at).unwrap();
        for (entry, guid) in entries.chunks_exact_mut(128).zip(&guids).filter(|(e, _)| e[..16] != [0; 16]) {
            entry[16..32].copy_from_slice(guid);
        }
        header[56..72].copy_from_slice(&guids[128]);
        header[88..92].copy_from_slice(&crc(&entries));
        header[16..20].fill(0);
        let sum = crc(&header);
        header[16..20].copy_from_slice(&sum);
        file.write_all_at(&entries, at).unwrap();
        file.write_all_at(&header, lba * SECTOR).unwrap();
    }
}

/// An attached disk; detached when dropped.
pub struct Disk {
    pub image: PathBuf,
    slot_mib: u64,
    data_mib: u64,
    device: Option<String>,
    // Dropped after the device is gone.
    dir: TempDir,
}

impl Disk {
    /// Makes and attaches one with GUIDs of its own.
    pub fn new(slot_mib: u64, data_mib: u64) -> Disk {
        let mut disk = Disk::detached(slot_mib, data_mib);
        disk.attach();
        disk
    }

    /// Makes one with GUIDs of its own.
    pub fn detached(slot_mib: u64, data_mib: u64) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        copy_of_built(slot_mib, data_mib, &image);
        give_new_guids(&image);
        Disk { image, slot_mib, data_mib, device: None, dir }
    }

    /// Takes an image that was made elsewhere, in `dir`.
    pub fn of_image(dir: TempDir, image: PathBuf, slot_mib: u64, data_mib: u64) -> Disk {
        Disk { image, slot_mib, data_mib, device: None, dir }
    }

    /// Makes and attaches a copy, GUIDs and all.
    pub fn twin(&self) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        run(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&image));
        let mut twin = Disk { image, slot_mib: self.slot_mib, data_mib: self.data_mib, device: None, dir };
        twin.attach();
        twin
    }

    /// Attaches the image and its partitions.
    pub fn attach(&mut self) {
        assert!(self.device.is_none());
        let mut said = String::new();
        for _ in 0..ATTACH_TRIES {
            // Two that look for a free device at once may find the same.
            let out = command("losetup").args(["-f", "--show"]).arg(&self.image).output().unwrap();
            if out.status.success() {
                let device = String::from_utf8(out.stdout).unwrap().trim().to_string();
                self.device = Some(device.clone());
                // Whoever had the device before may have left a partition behind.
                if !command("partx").arg("-a").arg(&device).output().unwrap().status.success() {
                    let _ = command("partx").arg("-d").arg(&device).output().unwrap();
                    run(command("partx").arg("-a").arg(&device));
                }
                for n in [EFI, A, B, DATA] {
                    assert!(self.node(n).exists(), "{} is missing", self.node(n).display());
                }
                return;
            }
            said = String::from_utf8_lossy(&out.stderr).into_owned();
            std::thread::yield_now();
        }
        panic!("no loop device: {said}");
    }

    /// Detaches it. Panics: a partition stays busy: something left it mounted.
    pub fn detach(&mut self) {
        let Some(device) = self.device.take() else { return };
        let gone = wait_for(SETTLE, || command("partx").arg("-d").arg(&device).output().unwrap().status.success());
        let detached = command("losetup").arg("-d").arg(&device).output().unwrap().status.success();
        if !std::thread::panicking() {
            assert!(gone && detached, "{device} is still in use");
        }
    }

    /// `/dev/loop0`.
    pub fn device(&self) -> &str {
        self.device.as_deref().expect("the disk is attached")
    }

    /// `loop0p2`.
    pub fn name(&self, number: u32) -> String {
        format!("{}p{number}", self.device().trim_start_matches("/dev/"))
    }

    /// `/dev/loop0p2`.
    pub fn node(&self, number: u32) -> PathBuf {
        Path::new("/dev").join(self.name(number))
    }

    /// A partition's unique GUID, lower case, as sgdisk reads it.
    pub fn guid(&self, number: u32) -> String {
        let info = run(command("sgdisk").args(["-i", &number.to_string()]).arg(&self.image));
        let line = info.lines().find_map(|l| l.strip_prefix("Partition unique GUID: ")).expect("sgdisk names a GUID");
        line.trim().to_lowercase()
    }

    /// Where a partition lies in the image, in bytes: start and length.
    pub fn extent(&self, number: u32) -> (u64, u64) {
        let start = [1, 1 + EFI_MIB, 1 + EFI_MIB + self.slot_mib, 1 + EFI_MIB + 2 * self.slot_mib];
        let length = [EFI_MIB, self.slot_mib, self.slot_mib, self.data_mib];
        let at = number as usize - 1;
        (start[at] * MIB, length[at] * MIB)
    }

    /// Every byte of a partition, from the image: past all caches of the partition's device.
    pub fn bytes(&self, number: u32) -> Vec<u8> {
        let (start, length) = self.extent(number);
        let mut bytes = vec![0; length as usize];
        File::open(&self.image).unwrap().read_exact_at(&mut bytes, start).unwrap();
        bytes
    }

    /// Overwrites bytes of a partition, or of the disk with number 0, in the image. Detach before, for the kernel's caches.
    pub fn overwrite(&self, number: u32, offset: u64, bytes: &[u8]) {
        assert!(self.device.is_none(), "detach first");
        let start = if number == 0 { 0 } else { self.extent(number).0 };
        OpenOptions::new().write(true).open(&self.image).unwrap().write_all_at(bytes, start + offset).unwrap();
    }

    /// Asks a real debugfs, which reads the image and replays no journal: what GRUB would see.
    pub fn debugfs(&self, number: u32, request: &str) -> String {
        let target = format!("{}?offset={}", self.image.display(), self.extent(number).0);
        run(command("debugfs").args(["-R", request]).arg(target))
    }

    /// Names in a slot's root directory, sorted.
    pub fn names(&self, number: u32) -> Vec<String> {
        let listing = self.debugfs(number, "ls -p /");
        let mut names: Vec<String> = listing.lines().filter_map(|l| Some(l.split('/').nth(5)?.to_string())).collect();
        names.retain(|name| ![".", "..", "lost+found", ""].contains(&name.as_str()));
        names.sort();
        names
    }

    /// A file of a slot; `None` where there is none.
    pub fn file(&self, number: u32, name: &str) -> Option<Vec<u8>> {
        if !self.names(number).iter().any(|n| n == name) {
            return None;
        }
        let out = self.dir.path().join("dumped");
        self.debugfs(number, &format!("dump /{name} {}", out.display()));
        let bytes = fs::read(&out).unwrap();
        fs::remove_file(&out).unwrap();
        Some(bytes)
    }

    /// A text file of a slot.
    pub fn text(&self, number: u32, name: &str) -> Option<String> {
        Some(String::from_utf8(self.file(number, name)?).unwrap())
    }

    /// Says whether the journal holds what GRUB would not see.
    pub fn needs_recovery(&self, number: u32) -> bool {
        let stats = self.debugfs(number, "stats -h");
        let features = stats.lines().find(|l| l.starts_with("Filesystem features:")).expect("debugfs lists features");
        features.contains("needs_recovery")
    }

    /// Waits until no mount holds a partition, in whichever namespace; a killed process's goes a little after it.
    pub fn wait_unmounted(&self, number: u32) {
        let free = wait_for(SETTLE, || !self.is_mounted(number));
        assert!(free, "{} stays mounted", self.name(number));
    }

    /// Says whether a partition is mounted anywhere: an exclusive opening fails then.
    pub fn is_mounted(&self, number: u32) -> bool {
        match OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(self.node(number)) {
            Ok(_) => false,
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => true,
            Err(e) => panic!("{}: {e}", self.name(number)),
        }
    }

    /// A file on the EFI partition, as mcopy reads it: this machine's kernel may not know FAT.
    pub fn efi_file(&self, name: &str) -> Vec<u8> {
        let image = format!("{}@@{}", self.image.display(), self.extent(EFI).0);
        let out = command("mtype").args(["-i", &image, &format!("::{name}")]).output().unwrap();
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    /// Makes the EFI partition one that every kernel can mount: ext4, with what is in a directory.
    pub fn efi_as_ext4(&self, content: &Path) {
        let mut mke2fs = command("mke2fs");
        run(mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "KSOLOEFI", "-d"]).arg(content).arg(self.node(EFI)));
    }

    /// Mounts a partition in sight of all, until what is returned is dropped.
    pub fn mount(&self, number: u32, at: &Path) -> Mount {
        run(command("mount").arg(self.node(number)).arg(at));
        Mount(at.to_path_buf())
    }

    /// A directory that goes when the disk goes.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A partition that is mounted in sight of all.
pub struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        // A test that has failed says so itself.
        let _ = command("umount").arg(&self.0).output();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Waits for a condition; returns whether it came true.
pub fn wait_for(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(2));
    }
}
