//! A system that says what GRUB told it, and powers off: a real kernel, and a busybox. And what can be broken in it.

use super::boot_cases::values;
use super::grub_version::Version;
use super::loader::{
    EFI_BYTES, EFI_OFFSET, SHIPPED, build_image_of, file_of, flip_bit, guid, overwrite, put_blocks, read_block,
    words_after,
};
use super::qemu::{self, Drive, Firmware, Machine, need_machine};
use super::{need, need_file, run};
use kubesolo_update::parts::slot::record::Slot;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// On the command line of every kernel.
const PANIC: &str = " panic=10 ";

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The EFI file system is lost; else: what of slot B cannot be read.
    Efi,
    Initramfs,
    Kernel,
    Digests,
}

/// Kernel and initramfs of an architecture.
pub struct System {
    architecture: &'static str,
    kernel: PathBuf,
    initramfs: PathBuf,
}

fn tools(architecture: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/vm").join(architecture)
}

fn kernel(architecture: &str) -> PathBuf {
    qemu::kernel(architecture).unwrap_or_else(|| tools(architecture).join("boot/vmlinuz"))
}

/// Says whether one can be made here. Panics: in CI.
pub fn need_system(architecture: &str) {
    need("cpio");
    need_file(&kernel(architecture));
    need_file(&tools(architecture).join("bin/busybox"));
}

impl System {
    /// Makes one in a directory.
    pub fn new(dir: &Path, architecture: &'static str) -> System {
        let tree = dir.join("tree");
        fs::create_dir_all(tree.join("dev")).unwrap();
        fs::create_dir_all(tree.join("proc")).unwrap();
        fs::copy(tools(architecture).join("bin/busybox"), tree.join("busybox")).unwrap();
        let init = "#!/busybox sh\n/busybox mount -t proc proc /proc\n\
            echo \"INIT $(/busybox cat /proc/cmdline)\"\n/busybox poweroff -f\n";
        fs::write(tree.join("init"), init).unwrap();
        run(Command::new("chmod").args(["755", "init", "busybox"]).current_dir(&tree));
        // The console has to be there before init has mounted anything.
        let pack = "{ find . ! -name . | cpio -o -H newc -R 0:0 --quiet; } | gzip -1 >../initramfs";
        run(Command::new("sh").args(["-c", &format!("mknod dev/console c 5 1 && {pack}")]).current_dir(&tree));
        System { architecture, kernel: kernel(architecture), initramfs: dir.join("initramfs") }
    }

    /// Makes the command that builds an image with it in both slots. In an emulator whose host is busy, Linux may find
    /// that the timer does not tick, and panic: one boot more is counted then.
    pub fn build_image(&self, dir: &Path, image: &Path) -> Command {
        let (shipped, config) = (fs::read_to_string(SHIPPED).unwrap(), dir.join("real.cfg"));
        assert_eq!(shipped.matches(PANIC).count(), 1);
        fs::write(&config, shipped.replace(PANIC, &format!("{PANIC}no_timer_check "))).unwrap();
        let mut build = build_image_of(&self.kernel, &self.initramfs, self.architecture, 64, image);
        build.arg("--grub-config").arg(config);
        build
    }

    /// The image, as QEMU names it, with one sector of a file of slot B that cannot be read.
    pub fn with_fault(&self, dir: &Path, image: &Path, fault: Fault) -> PathBuf {
        let file = match fault {
            Fault::None | Fault::Efi => return image.into(),
            Fault::Initramfs => fs::read(&self.initramfs).unwrap(),
            Fault::Kernel => fs::read(&self.kernel).unwrap(),
            Fault::Digests => file_of(image, Slot::A, "slot.crc32").into_bytes(),
        };
        let disk = fs::read(image).unwrap();
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
}

/// Boots a real kernel, with nothing of GRUB replaced: from slot B, which is on trial; or from slot A, where that is not
/// known because the EFI file system is lost, or where a sector of a file of slot B cannot be read.
pub fn boot_for_real(version: Version, firmware: Firmware, fault: Fault) {
    let architecture = firmware.architecture();
    need_machine(firmware);
    version.need(firmware);
    need_system(architecture);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let system = System::new(dir, architecture);
    let image = dir.join("image");
    run(version.choose(system.build_image(dir, &image).arg("--require-platforms")));
    put_blocks(dir, &image, "B:3:0::0");
    let (slot, number) = if fault == Fault::None { ("B", 3) } else { ("A", 2) };
    let words = match fault {
        Fault::Initramfs | Fault::Kernel | Fault::Digests => {
            Some("Slot B does not load: it is not what slot.crc32 says, or cannot be read.")
        }
        Fault::None | Fault::Efi => None,
    };
    let skipped = if words.is_some() { "kubesolo.skipped=B " } else { "" };
    let part = format!(
        "kubesolo.slot={slot} kubesolo.part={} panic=10 no_timer_check {skipped}console=",
        guid(&image, number)
    );
    if fault == Fault::Efi {
        overwrite(&image, 0, EFI_BYTES, 0);
    }
    let drive = Drive { image: system.with_fault(dir, &image, fault), read_only: false };
    let mut machine = Machine::start(firmware, &[drive], 0, dir);
    if let Some(words) = words {
        // GRUB's own: that sector it was.
        machine.wait_said("error: failure reading sector", 1);
        machine.wait_said(words, 1);
    }
    machine.wait_said("INIT ", 1);
    machine.wait_off();
    let line = words_after(machine.said(), "INIT ").remove(0);
    assert!(line.contains(&part) && line.ends_with("quiet"), "{version:?}, {firmware:?}, {part}: {line}");
    let after = values(&read_block(&image, "grubenv"));
    let wanted = if fault == Fault::Efi { "::::" } else { "B:2:0::1" };
    assert_eq!(after, wanted, "{version:?}, {firmware:?}: {}", machine.said());
}

/// Boots a real kernel from a disk whose slot A is confirmed, and has one bit of its initramfs flipped: slot B comes up, the
/// agent is told, and not a byte of the EFI partition is another. Input: which byte of the initramfs.
pub fn boot_rotten(version: Version, firmware: Firmware, at: usize) {
    let architecture = firmware.architecture();
    need_machine(firmware);
    version.need(firmware);
    need_system(architecture);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let image = dir.join("image");
    let system = System::new(dir, architecture);
    run(version.choose(system.build_image(dir, &image).arg("--require-platforms")));
    put_blocks(dir, &image, "A:3:1::1");
    flip_bit(&image, Slot::A, "kubesolo-os.gz", at);
    let before = efi_bytes(&image);
    let mut machine = Machine::start(firmware, &[Drive { image: image.clone(), read_only: false }], 0, dir);
    machine.wait_said("HASH MISMATCH", 1);
    machine.wait_said("Slot A does not load: it is not what slot.crc32 says", 1);
    machine.wait_said("INIT ", 1);
    machine.wait_off();
    let line = words_after(machine.said(), "INIT ").remove(0);
    let part = format!("kubesolo.slot=B kubesolo.part={} ", guid(&image, 3));
    assert!(line.contains(&part) && line.contains(" kubesolo.skipped=A "), "{version:?}, {firmware:?}: {line}");
    assert!(efi_bytes(&image) == before, "{version:?}, {firmware:?}: the EFI partition was written");
}

fn efi_bytes(image: &Path) -> Vec<u8> {
    let mut bytes = vec![0; EFI_BYTES as usize];
    File::open(image).unwrap().read_exact_at(&mut bytes, EFI_OFFSET).unwrap();
    bytes
}
