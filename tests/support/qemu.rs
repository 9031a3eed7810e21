//! Virtual machines with a serial console: no network, no screen, no person.

pub use super::kit::Firmware;
use super::{command, need, need_all, need_file};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longest that words may take to come, in an emulator on a busy machine: a hundred boots may come before them.
const LIMIT: Duration = Duration::from_secs(400);

/// Goes on if machines with this firmware and their boot loader can be made.
pub fn need_machine(firmware: Firmware) {
    let repo = Path::new(env!("CARGO_MANIFEST_DIR"));
    let grub = match firmware {
        Firmware::UefiArm64 => repo.join(".tools/vm/arm64/usr/lib/grub/arm64-efi/normal.mod"),
        _ => PathBuf::from("/usr/lib/grub/i386-pc/boot.img"),
    };
    need(firmware.program());
    need_all(&["grub-mkimage", "mcopy", "debugfs", "sgdisk", "mkfs.fat"]);
    need_file(&grub);
    if firmware != Firmware::UefiArm64 {
        need_file(Path::new("/usr/lib/grub/x86_64-efi/normal.mod"));
    }
    firmware.flash().into_iter().flatten().for_each(|path| need_file(Path::new(path)));
}

/// A disk of a machine, raw.
#[derive(Clone, Debug)]
pub struct Drive {
    pub image: PathBuf,
    pub read_only: bool,
}

/// A running machine; killed when dropped.
pub struct Machine {
    child: Child,
    keys: ChildStdin,
    echoes: bool,
    serial: Receiver<Vec<u8>>,
    said: String,
    searched: usize,
    control: bool,
}

impl Machine {
    /// Powers one on. Input: its disks, of which it boots one; a directory for what it needs besides.
    pub fn start(firmware: Firmware, drives: &[Drive], boot: usize, dir: &Path) -> Machine {
        let mut qemu = command(firmware.program());
        // Never /dev/kvm, also where there is one: results and times are to be the same everywhere.
        qemu.args(["-accel", "tcg", "-nodefaults", "-display", "none", "-serial", "stdio", "-nic", "none"]);
        match firmware {
            Firmware::UefiArm64 => qemu.args(["-machine", "virt", "-cpu", "cortex-a57", "-m", "512"]),
            _ => qemu.args(["-machine", "q35", "-cpu", "qemu64", "-m", "384"]),
        };
        if let Some([code, vars]) = firmware.flash() {
            let own = dir.join("firmware-vars");
            fs::copy(vars, &own).unwrap();
            qemu.arg("-drive").arg(format!("if=pflash,format=raw,readonly=on,file={code}"));
            qemu.arg("-drive").arg(format!("if=pflash,format=raw,file={}", own.display()));
        }
        for (n, drive) in drives.iter().enumerate() {
            let read_only = if drive.read_only { ",readonly=on" } else { "" };
            let first = if n == boot { ",bootindex=0" } else { "" };
            let file = drive.image.display();
            qemu.arg("-drive").arg(format!("if=none,id=d{n},format=raw,file={file}{read_only}"));
            qemu.arg("-device").arg(format!("virtio-blk-pci,drive=d{n}{first}"));
        }
        Machine::run(&mut qemu)
    }

    /// Starts a kernel of amd64 with an initramfs, and nothing else: no firmware's boot loader, no disk. A panic ends it.
    pub fn start_kernel(kernel: &Path, initramfs: &Path) -> Machine {
        let mut qemu = command(Firmware::Bios.program());
        qemu.args([
            "-accel",
            "tcg",
            "-nodefaults",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-nic",
            "none",
            "-no-reboot",
        ]);
        qemu.args(["-machine", "q35", "-cpu", "qemu64", "-m", "512", "-append"]);
        qemu.arg("console=ttyS0 quiet panic=-1 no_timer_check nokaslr");
        qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
        Machine::run(&mut qemu)
    }

    fn run(qemu: &mut Command) -> Machine {
        let mut child = qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut stdout, keys) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let (send, serial) = channel();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut chunk) {
                if send.send(chunk[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Machine { child, keys, echoes: false, serial, said: String::new(), searched: 0, control: false }
    }

    /// Everything on the serial console so far, without terminal control.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Types on the serial console. A machine that is gone hears nothing.
    pub fn press(&mut self, keys: &[u8]) {
        let _ = self.keys.write_all(keys).and_then(|()| self.keys.flush());
    }

    /// From now on, while a test waits, the line gives back every byte that comes over it.
    pub fn echo(&mut self) {
        self.echoes = true;
    }

    /// Waits until words were said so many times since the last wait. Panics: it takes too long, or the
    /// machine ended.
    #[track_caller]
    pub fn wait_said(&mut self, words: &str, times: usize) {
        let deadline = Instant::now() + LIMIT;
        let mut missing = times;
        while missing > 0 {
            if let Some(at) = self.said[self.searched..].find(words) {
                self.searched += at + words.len();
                missing -= 1;
                continue;
            }
            // Words may be cut between two readings.
            let keep = self.said.len().saturating_sub(words.len()).max(self.searched);
            self.searched = (self.searched..=keep).rev().find(|n| self.said.is_char_boundary(*n)).unwrap();
            match self.serial.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.hear(&chunk),
                Err(RecvTimeoutError::Disconnected) => panic!("ended without '{words}':\n{}", self.said),
                Err(RecvTimeoutError::Timeout) => panic!("no '{words}' within {LIMIT:?}:\n{}", self.said),
            }
        }
    }

    /// Waits until the machine powers itself off. Panics: it takes too long.
    #[track_caller]
    pub fn wait_off(&mut self) {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.serial.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.hear(&chunk),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("not off within {LIMIT:?}:\n{}", self.said),
            }
        }
        let status = self.child.wait().unwrap();
        assert!(status.success(), "qemu: {status}\n{}", self.said);
    }

    /// Takes out ESC [ ... letter, carriage returns and what is no text.
    fn hear(&mut self, chunk: &[u8]) {
        if self.echoes {
            self.press(chunk);
        }
        for byte in chunk {
            match (self.control, byte) {
                (_, 0x1b) => self.control = true,
                (true, b'[' | b'?' | b';' | b'0'..=b'9') => {}
                (true, _) => self.control = false,
                (false, b'\n' | b' '..=b'~') => self.said.push(char::from(*byte)),
                _ => {}
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Path of a kernel for machines of an architecture, below `.tools`.
pub fn kernel(architecture: &str) -> Option<PathBuf> {
    let boot = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/vm").join(architecture).join("boot");
    let names = fs::read_dir(boot).ok()?.filter_map(|e| Some(e.ok()?.path()));
    names.into_iter().find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz")))
}
