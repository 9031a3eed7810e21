//! Virtual machines that run the whole system: GRUB, Debian's kernel, `tests/vm/init`, the agent. A machine talks to
//! its test over a serial console and over a channel of its own (see `tests/vm/init`), and to one port of this
//! machine's loopback: QEMU's user network is restricted to that.

#[allow(unused_imports)] // Not every test takes them from here.
pub use super::kit::{BORN, Firmware, born, disk, need_vm, release};

use super::disk::Disk;
use super::kit::tools;
use super::{command, run};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest that a boot, a command or words may take, in an emulator on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);
/// Where a machine finds the test's server.
pub const SERVER: &str = "10.0.2.100:80";
/// As many machines at a time, in all tests together.
static FREE: (Mutex<u32>, Condvar) = (Mutex::new(2), Condvar::new());

/// What a real grub-editenv lists of `grubenv` or `grubenv.bak`, on a disk whose machine is off.
#[track_caller]
pub fn boot_variables(disk: &Disk, name: &str) -> BTreeMap<String, String> {
    let file = disk.dir().join("block");
    fs::write(&file, disk.efi_file(&format!("/boot/grub/{name}"))).unwrap();
    let listed = run(command("grub-editenv").arg(&file).arg("list"));
    listed.lines().map(|l| l.split_once('=').expect("NAME=VALUE")).map(|(n, v)| (n.into(), v.into())).collect()
}

enum Heard {
    Serial(Vec<u8>),
    Channel(Vec<u8>),
}

/// How a command in a machine ended.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub text: String,
}

impl Answer {
    /// Holds the exit code, and words that the answer must have, wherever its lines end.
    #[track_caller]
    pub fn expect(self, code: i32, words: &[&str]) -> Answer {
        assert_eq!(self.code, code, "{}", self.text);
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(&word), "'{word}' is missing: {}", self.text);
        }
        self
    }

    /// Reads the line that is a JSON document with jq.
    #[track_caller]
    pub fn jq(&self, filter: &str) -> String {
        let line = self.text.lines().find(|l| l.starts_with('{')).unwrap_or_else(|| panic!("no JSON: {}", self.text));
        super::root::jq(line, filter)
    }
}

/// A running machine; killed when dropped.
pub struct Vm {
    child: Child,
    heard: Receiver<Heard>,
    console: String,
    searched: usize,
    said: String,
    read: usize,
    channel: UnixStream,
    dir: TempDir,
    _permit: Permit,
}

struct Permit;

impl Permit {
    fn take() -> Permit {
        let mut free = FREE.0.lock().unwrap_or_else(|e| e.into_inner());
        while *free == 0 {
            free = FREE.1.wait(free).unwrap_or_else(|e| e.into_inner());
        }
        *free -= 1;
        Permit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *FREE.0.lock().unwrap_or_else(|e| e.into_inner()) += 1;
        FREE.1.notify_one();
    }
}

/// What few machines have.
#[derive(Default)]
struct Unusual<'a> {
    /// Where every write and flush is appended to.
    log: Option<&'a Path>,
    /// What the hardware clock says.
    clock: Option<&'a str>,
}

impl Vm {
    /// Powers one on. Input: its disks, of which it boots the one at `boot`; the loopback port that it may reach.
    pub fn start(firmware: Firmware, disks: &[&Disk], boot: usize, port: Option<u16>) -> Vm {
        Vm::launch(firmware, disks, boot, port, Unusual::default())
    }

    /// The same with a hardware clock that says something else. Input: `base`: as QEMU's `-rtc base=` takes it.
    pub fn start_at(firmware: Firmware, disk: &Disk, port: u16, base: &str) -> Vm {
        Vm::launch(firmware, &[disk], 0, Some(port), Unusual { clock: Some(base), ..Unusual::default() })
    }

    /// Powers one on whose disk announces a volatile cache. Every write and flush is appended to `log`, an empty file,
    /// as tests/support/write_log.rs reads it.
    pub fn start_logged(firmware: Firmware, disk: &Disk, port: u16, log: &Path) -> Vm {
        Vm::launch(firmware, &[disk], 0, Some(port), Unusual { log: Some(log), ..Unusual::default() })
    }

    fn launch(firmware: Firmware, disks: &[&Disk], boot: usize, port: Option<u16>, unusual: Unusual<'_>) -> Vm {
        let permit = Permit::take();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut qemu = command(firmware.program());
        // Never /dev/kvm, also where there is one: results and times are to be the same everywhere.
        qemu.args(["-accel", "tcg", "-nodefaults", "-display", "none", "-serial", "stdio"]);
        match firmware {
            Firmware::UefiArm64 => qemu.args(["-machine", "virt", "-cpu", "cortex-a57", "-m", "512"]),
            _ => qemu.args(["-machine", "q35", "-cpu", "qemu64", "-m", "384"]),
        };
        if let Some(base) = unusual.clock {
            qemu.arg("-rtc").arg(format!("base={base}"));
        }
        if let Some([code, vars]) = firmware.flash() {
            fs::copy(vars, path("vars")).unwrap();
            qemu.arg("-drive").arg(format!("if=pflash,format=raw,readonly=on,file={code}"));
            qemu.arg("-drive").arg(format!("if=pflash,format=raw,file={}", path("vars")));
        }
        for (n, disk) in disks.iter().enumerate() {
            let first = if n == boot { ",bootindex=0" } else { "" };
            // The page cache outlives QEMU: a kill loses nothing but what the machine had not yet sent.
            let file = disk.image.display();
            if let Some(log) = unusual.log {
                let files =
                    format!("file.driver=file,file.filename={file},log.driver=file,log.filename={}", log.display());
                // The host itself need not flush: it is the guest's requests that count, and those come before this.
                let cache = "file.cache.no-flush=on,log.cache.no-flush=on";
                let node = format!("driver=blklogwrites,node-name=d{n},log-sector-size=512,{files},{cache}");
                qemu.arg("-blockdev").arg(node);
            } else {
                qemu.arg("-drive").arg(format!("if=none,id=d{n},format=raw,file={file},cache=unsafe"));
            }
            qemu.arg("-device").arg(format!("virtio-blk-pci,drive=d{n}{first}"));
        }
        if let Some(port) = port {
            let busybox = tools(super::disk::architecture()).join("bin/busybox");
            let forward = format!("guestfwd=tcp:{SERVER}-cmd:{} nc 127.0.0.1 {port}", busybox.display());
            qemu.arg("-netdev").arg(format!("user,id=n0,restrict=on,{forward}"));
            qemu.args(["-device", "virtio-net-pci,netdev=n0,romfile="]);
        }
        qemu.arg("-chardev").arg(format!("socket,id=c0,path={},server=on,wait=off", path("channel")));
        qemu.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=c0,name=test"]);
        qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", path("qmp")));
        let mut child = qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, heard) = channel();
        listen(stdout, send.clone(), Heard::Serial);
        let channel = connect(&dir.path().join("channel"), &mut child);
        listen(channel.try_clone().unwrap(), send, Heard::Channel);
        let (console, said) = (String::new(), String::new());
        Vm { child, heard, console, searched: 0, said, read: 0, channel, dir, _permit: permit }
    }

    /// Everything on the serial console so far.
    pub fn console(&self) -> &str {
        &self.console
    }

    /// Takes in what the machine says next. False: the deadline passed, or the machine ended.
    fn hear(&mut self, deadline: Instant) -> bool {
        match self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Heard::Serial(bytes)) => self.console.extend(bytes.iter().map(|b| char::from(b & 0x7f))),
            Ok(Heard::Channel(bytes)) => self.said.push_str(&String::from_utf8_lossy(&bytes)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    #[track_caller]
    fn must_hear(&mut self, deadline: Instant, what: &str) {
        if !self.hear(deadline) {
            let registers = self.registers();
            panic!("no {what}; console:\n{}\nchannel:\n{}\nregisters:\n{registers}", self.console, self.said);
        }
    }

    /// Listens for a time.
    pub fn listen_for(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while self.hear(deadline) {}
    }

    /// Waits for words on the console, after those that were waited for last.
    #[track_caller]
    pub fn wait_said(&mut self, words: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.console[self.searched..].find(words) {
                self.searched += at + words.len();
                return;
            }
            self.must_hear(deadline, words);
        }
    }

    /// Waits for words as long as that; returns whether they came.
    pub fn wait_within(&mut self, words: &str, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            if let Some(at) = self.console[self.searched..].find(words) {
                self.searched += at + words.len();
                return true;
            }
            if !self.hear(deadline) {
                return false;
            }
        }
    }

    /// Listens until something has happened outside of the machine; returns whether it did, within the time.
    pub fn listen_until(&mut self, time: Duration, mut happened: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + time;
        while !happened() {
            if Instant::now() > deadline {
                return false;
            }
            self.hear(Instant::now() + Duration::from_millis(1));
        }
        true
    }

    /// Types a line on the serial console.
    pub fn type_line(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits until it has booted. Input: `mode`: `auto` runs the health check (`auto 60`: for 60 s), `manual` leaves
    /// that to the test.
    /// Returns: version and slot that run.
    #[track_caller]
    pub fn hello(&mut self, mode: &str) -> (String, char) {
        let deadline = Instant::now() + LIMIT;
        let hello = loop {
            let new = &self.said[self.read..];
            if let Some(line) = new.find("@hello ").and_then(|at| new[at..].split_once('\n')) {
                let hello = line.0.to_string();
                self.read = self.said.len() - line.1.len();
                break hello;
            }
            self.must_hear(deadline, "@hello");
        };
        self.send(mode);
        let mut words = hello.split(' ').skip(1);
        (words.next().unwrap().to_string(), words.next().unwrap().chars().next().unwrap_or('-'))
    }

    /// Holds what booted.
    #[track_caller]
    pub fn expect_hello(&mut self, mode: &str, version: &str, slot: char) {
        assert_eq!(self.hello(mode), (version.to_string(), slot), "console:\n{}", self.console);
    }

    /// Sends a line, whatever comes of it.
    pub fn send(&mut self, line: &str) {
        self.channel.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Runs a shell command to its end.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> Answer {
        self.send(line);
        let deadline = Instant::now() + LIMIT;
        loop {
            let new = &self.said[self.read..];
            if let Some((text, rest)) = new.split_once("\n@end ")
                && let Some((code, _)) = rest.split_once('\n')
            {
                let answer = Answer { code: code.parse().unwrap(), text: text.to_string() };
                self.read += text.len() + "\n@end ".len() + code.len() + 1;
                return answer;
            }
            self.must_hear(deadline, line);
        }
    }

    /// Runs the agent.
    #[track_caller]
    pub fn agent(&mut self, arguments: &str) -> Answer {
        self.run(&format!("kubesolo-update {arguments}"))
    }

    /// A field of `state.json`.
    #[track_caller]
    pub fn state(&mut self, name: &str) -> String {
        let answer = self.run("cat /var/lib/kubesolo/update/state.json");
        super::root::jq(&answer.expect(0, &[]).text, &format!(".{name}"))
    }

    /// The reset button.
    pub fn reset(&mut self) {
        self.ask_qemu("\"system_reset\"");
    }

    /// Gives QEMU an order. Returns: its answer; empty where it is gone.
    fn ask_qemu(&mut self, order: &str) -> String {
        let mut stream = BufReader::new(connect(&self.dir.path().join("qmp"), &mut self.child));
        let mut line = String::new();
        for order in ["\"qmp_capabilities\"", order] {
            let _ = writeln!(stream.get_mut(), "{{\"execute\":{order}}}");
            line.clear();
            while !line.contains("\"return\"") {
                line.clear();
                if stream.read_line(&mut line).unwrap_or(0) == 0 {
                    return line;
                }
            }
        }
        line
    }

    /// Where the processor is, twice: a machine that hangs stays there.
    fn registers(&mut self) -> String {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return "qemu has ended".into();
        }
        let order = "\"human-monitor-command\",\"arguments\":{\"command-line\":\"info registers\"}";
        let first = self.ask_qemu(order);
        thread::sleep(Duration::from_secs(1));
        format!("{first}\n{}", self.ask_qemu(order))
    }

    /// Shuts it down in good order.
    #[track_caller]
    pub fn power_off(mut self) {
        self.send("sync; umount -a -t ext4; poweroff -f");
        let deadline = Instant::now() + LIMIT;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not power off; console:\n{}", self.console);
            self.hear(Instant::now() + Duration::from_millis(20));
        }
    }

    /// Pulls the plug.
    pub fn cut(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(mut from: impl Read + Send + 'static, to: Sender<Heard>, wrap: fn(Vec<u8>) -> Heard) {
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut chunk) {
            if to.send(wrap(chunk[..n].to_vec())).is_err() {
                return;
            }
        }
    });
}

fn connect(path: &Path, child: &mut Child) -> UnixStream {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Ok(stream) = UnixStream::connect(path) {
            return stream;
        }
        assert!(child.try_wait().unwrap().is_none(), "qemu ended at once");
        assert!(Instant::now() < deadline, "qemu does not open {}", path.display());
        thread::sleep(Duration::from_millis(10));
    }
}
