//! `scripts/vm.sh`: the machine that a person looks at. Its console is read here, by nobody.

use crate::support::disk::Disk;
use crate::support::kit::{self, Firmware, need_vm};
use crate::support::vm::boot_variables;
use crate::support::{command, need, run};
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longest that a boot, or the end of a machine, may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The script, and what it says on stdout.
struct Script {
    child: Child,
    said: Receiver<u8>,
    text: String,
}

impl Script {
    fn start(options: &[&str], image: &Path) -> Script {
        let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/vm.sh"));
        script.args(options).arg(image).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, said) = channel();
        thread::spawn(move || {
            for byte in BufReader::new(stdout).bytes() {
                let Ok(byte) = byte else { return };
                let _ = send.send(byte);
            }
        });
        Script { child, said, text: String::new() }
    }

    #[track_caller]
    fn wait_said(&mut self, words: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.text.contains(words) {
            match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(byte) => self.text.push(char::from(byte & 0x7f)),
                Err(e) => panic!("no '{words}': {e}\n{}", self.text),
            }
        }
    }

    fn terminate(&self) -> Command {
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -TERM \"$0\""]).arg(self.child.id().to_string());
        kill
    }

    /// Ends the script as a terminal that closes would. Panics: the machine lives on.
    #[track_caller]
    fn end(mut self) {
        run(&mut self.terminate());
        assert_eq!(self.child.wait().unwrap().code(), Some(143));
        // Its stdout is QEMU's: it ends when both are gone.
        let deadline = Instant::now() + LIMIT;
        while self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(Instant::now() < deadline, "QEMU lives on");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // After a failure, its machine would go on.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.terminate().status();
            let _ = self.child.wait();
        }
    }
}

fn canary(disk: &Disk) -> String {
    boot_variables(disk, "grubenv")["boot_canary"].clone()
}

#[apply(test)]
fn an_image_boots_and_is_not_written_to() {
    need_vm(Firmware::Bios);
    need("qemu-img");
    let disk = kit::disk(Firmware::Bios);
    let qcow2 = disk.dir().join("disk.qcow2");
    run(command("qemu-img").args(["convert", "-O", "qcow2"]).arg(&disk.image).arg(&qcow2));
    for image in [&disk.image, &qcow2] {
        let mut script = Script::start(&[], image);
        script.wait_said("TEST: version 1.0.0, slot A");
        // Its console is a terminal: what stands beside these words has colours.
        script.wait_said("all is well");
        script.end();
    }
    // GRUB notes at the first boot that it can write.
    assert_eq!(canary(&disk), "0");
}

#[apply(long_test)]
fn an_image_boots_with_uefi_and_is_kept() {
    need_vm(Firmware::Uefi);
    let disk = kit::disk(Firmware::Uefi);
    let mut script = Script::start(&["--uefi", "--keep"], &disk.image);
    script.wait_said("TEST: version 1.0.0, slot A");
    script.end();
    assert_eq!(canary(&disk), "1");
}

#[apply(long_test)]
fn says_what_is_wrong_with_what_was_typed() {
    let dir = tempfile::tempdir().unwrap();
    for (options, words) in [
        (vec!["--nonsense"], "unknown option"),
        (vec!["--arch", "mips"], "--arch must be"),
        (vec!["--arch"], "needs a value"),
        (vec!["absent"], "is not a regular file"),
        (vec!["one", "two"], "one image"),
    ] {
        let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/vm.sh"));
        let out = script.args(&options).current_dir(&dir).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(words), "{options:?}: {said}");
    }
}
