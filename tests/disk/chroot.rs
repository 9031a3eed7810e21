//! The agent's mounts: in a chroot, beside others who mount and unmount, and on kernels that lack the calls for it.
//! What runs in a namespace of its own here goes with it, whatever becomes of the test.

use crate::support::disk::{A, B, DATA, Disk, EFI, need_disks, wait_for};
use crate::support::machine::{Left, Machine};
use crate::support::raw::{Raw, Reply};
use crate::support::release::{Medium, Release};
use crate::support::root::{Root, Run};
use crate::support::trial::Trial;
use crate::support::{self, command, need, run};
use kubesolo_update::parts::disk::mount;
use kubesolo_update::parts::disk::partition::Partition;
use kubesolo_update::parts::os::sys::{Access, FileSystemContext};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

const SIGKILL: i32 = 9;
const WAIT: Duration = Duration::from_secs(60);
/// Kernels before 5.2, and containers whose filter of system calls is older than that.
const OLD_KERNEL: [&str; 4] = ["-e", "trace=fsopen", "-e", "inject=fsopen:error=ENOSYS"];
const OLD_FILTER: [&str; 4] = ["-e", "trace=fsopen", "-e", "inject=fsopen:error=EPERM"];

fn ready() {
    need_disks();
    need("oras");
    need("strace");
    need("unshare");
}

/// A `strace` that says nothing; the program's process is the one that was started. Input: what it injects, if anything.
fn strace(what: &[&str]) -> Command {
    let mut strace = command("strace");
    strace.args(["-D", "-f", "-o", "/dev/null"]).args(what);
    strace
}

/// A shell in a mount namespace of its own, which tells and is told one line at a time.
struct Shell {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl Shell {
    /// Starts it. Input: `args`: `$1` and so on.
    fn start(mut shell: Command, script: &str, args: &[&Path]) -> Shell {
        shell.args(["sh", "-euc", script, "sh"]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        Shell { child, told }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Lets it come to its end.
    fn end(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unshare() -> Command {
    let mut unshare = command("unshare");
    unshare.arg("-m");
    unshare
}

/// Holds a partition mounted in a namespace that nobody else is in. Input: `options`: of mount(8).
fn mounted_elsewhere(disk: &Disk, number: u32, options: &str) -> Shell {
    let point = disk.dir().join("elsewhere");
    fs::create_dir_all(&point).unwrap();
    let script = format!("mount -o {options} \"$1\" \"$2\"; echo mounted; read -r end || :; umount \"$2\"");
    let mut shell = Shell::start(unshare(), &script, &[&disk.node(number), &point]);
    assert_eq!(shell.line(), "mounted");
    shell
}

#[track_caller]
fn assert_free(disk: &Disk, what: &str) {
    for number in [EFI, A, B, DATA] {
        assert!(!disk.is_mounted(number), "{what}: {} is mounted", disk.name(number));
    }
    assert!(!disk.needs_recovery(B), "{what}: the journal of slot B is not empty");
}

/// A copy of the boot variables on an EFI partition of [`efi_of`].
fn copy_of(disk: &Disk, name: &str) -> Vec<u8> {
    let out = disk.dir().join("copy");
    disk.debugfs(EFI, &format!("dump /boot/grub/{name} {}", out.display()));
    fs::read(&out).unwrap()
}

/// A machine's directory as somebody on a rescue console enters it.
struct Chroot {
    root: Root,
    disk: Disk,
    is_mount_point: bool,
    bound: Vec<&'static str>,
    /// What is mounted at boot/efi, and how: a script.
    efi: String,
}

/// Gives the EFI partition what this root has at boot/efi.
fn efi_of(root: &Root, disk: &Disk) {
    disk.efi_as_ext4(&root.path("boot/efi"));
}

impl Chroot {
    fn new(is_mount_point: bool) -> Chroot {
        let disk = Disk::new(24, 16);
        let root = Root::new(&disk);
        root.set_boot_variables(&["boot_canary=1"]);
        fs::rename(root.path("proc/cmdline"), root.path("cmdline")).unwrap();
        for name in ["sys", "dev"] {
            fs::remove_file(root.path(name)).unwrap();
            fs::create_dir(root.path(name)).unwrap();
        }
        // The agent may be one that needs the C library.
        fs::create_dir(root.path("usr")).unwrap();
        for name in ["lib", "lib64", "bin"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), root.path(name)).unwrap();
        }
        fs::copy(Root::program(), root.path("ku")).unwrap();
        let machine = Chroot { root, disk, is_mount_point, bound: vec!["proc", "sys", "dev"], efi: String::new() };
        let machine = Chroot { efi: format!("mount {} boot/efi", machine.disk.node(EFI).display()), ..machine };
        efi_of(&machine.root, &machine.disk);
        machine
    }

    /// What a real grub-editenv lists of the boot disk's own copies.
    fn boot_variables(&self) -> BTreeMap<String, String> {
        for name in ["grubenv", "grubenv.bak"] {
            fs::write(self.root.block(name), copy_of(&self.disk, name)).unwrap();
        }
        self.root.boot_variables()
    }

    /// Runs the agent in it. Input: `wrapper`: a program in front of it, with its arguments.
    fn agent_under(&self, wrapper: &[&str], args: &[&str]) -> Run {
        let mut script = String::from("cd \"$1\"; ");
        if self.is_mount_point {
            script.push_str("mount --bind . .; cd \"$1\"; ");
        }
        for name in ["usr"].iter().chain(&self.bound) {
            script.push_str(&format!("mount --bind /{name} {name}; "));
        }
        if self.bound.contains(&"proc") {
            script.push_str("mount --bind cmdline proc/cmdline; ");
        }
        script.push_str("eval \"$2\"; shift 2; exec \"$@\"");
        let mut shell = unshare();
        shell.args(["sh", "-euc", &script, "sh"]).arg(self.root.path("")).arg(&self.efi).args(wrapper).arg("chroot");
        shell.arg(self.root.path("").as_os_str().to_str().unwrap().trim_end_matches('/')).arg("/ku");
        Run::from(shell.args(args).output().unwrap())
    }

    fn agent(&self, args: &[&str]) -> Run {
        self.agent_under(&[], args)
    }

    fn phase(&self) -> String {
        self.agent(&["status", "--json"]).expect(0, &[]).jq(".update.phase")
    }
}

/// What a rescue is made of, from the first look to the way back, in a directory.
fn rescue(is_mount_point: bool, wrapper: &[&str]) {
    let machine = Chroot::new(is_mount_point);
    let release = Release::new("2.0.0");
    // Below the directory: both names mean the same.
    let medium = Medium::new(&machine.root.path(""), &release);
    let source = format!("/{}", medium.dir.file_name().unwrap().to_str().unwrap());
    let (running, what) = (machine.disk.bytes(A), format!("a mount point: {is_mount_point}, under {wrapper:?}"));
    let agent = |args: &[&str]| machine.agent_under(wrapper, args);
    let status = agent(&["status", "--json"]).expect(0, &[]);
    assert_eq!(status.jq("[.running_slot, (.slots | map(.valid))]"), r#"["A",[true,true]]"#, "{what}: {status:?}");
    agent(&["verify"]).expect(0, &["Slot A  1.0.0 is what its record says", "Slot B  1.0.0 is what its record says"]);
    agent(&["check", "--layout", &source]).expect(0, &["an update is available"]);
    assert_free(&machine.disk, &what);
    agent(&["apply", "--layout", &source]).expect(0, &["2.0.0 is staged in slot B"]);
    assert_free(&machine.disk, &what);
    assert!(machine.disk.file(B, "vmlinuz").unwrap() == release.ours().kernel, "{what}");
    assert_eq!(machine.phase(), "staged", "{what}");
    agent(&["activate"]).expect(0, &["slot B is active"]);
    assert_eq!(machine.boot_variables()["active_slot"], "B", "{what}");
    assert_eq!(machine.phase(), "activated", "{what}");
    agent(&["rollback"]).expect(0, &["slot A stays active"]);
    assert_eq!(machine.boot_variables()["active_slot"], "A", "{what}");
    assert_free(&machine.disk, &what);
    assert!(machine.disk.bytes(A) == running, "{what}: the running slot was written");
    // All of it is on the disk's own data partition, and none in the directory.
    assert!(machine.root.state().is_none() && fs::read_dir(machine.root.path("run")).unwrap().count() == 0, "{what}");
}

#[apply(test)]
fn a_rescue_in_a_directory_that_is_no_mount_point() {
    ready();
    rescue(false, &[]);
}

#[apply(test)]
fn a_rescue_in_a_directory_that_is_a_mount_point() {
    ready();
    rescue(true, &[]);
}

#[apply(test)]
fn a_rescue_with_an_old_kernel() {
    ready();
    let strace = support::find("strace").unwrap();
    let wrapper = [&[strace.to_str().unwrap(), "-f", "-o", "/dev/null"][..], &OLD_KERNEL].concat();
    rescue(false, &wrapper);
    rescue(true, &wrapper);
}

/// What lies at /boot/efi in place of the boot disk's own partition. `$EFI` is that one, `$OTHER` another disk's of the same
/// label (a provisioning stick); the words of the note, if there is one.
const AT_BOOT_EFI: [(&str, &str, bool); 10] = [
    ("the right one", "mount $EFI boot/efi", false),
    ("nothing", ":", false),
    ("another disk's", "mount $OTHER boot/efi", true),
    ("another disk's, the right one elsewhere", "mkdir -p mnt; mount $EFI mnt; mount $OTHER boot/efi", true),
    ("another disk's over the right one", "mount $EFI boot/efi; mount $OTHER boot/efi", true),
    ("the right one over another disk's", "mount $OTHER boot/efi; mount $EFI boot/efi", false),
    ("a directory of the machine's", "mount --bind stand-in boot/efi", true),
    ("a directory of the right one", "mkdir -p mnt; mount $EFI mnt; mount --bind mnt/boot boot/efi", true),
    ("a tmpfs", "mount -t tmpfs none boot/efi; cp -R stand-in/boot boot/efi/", true),
    ("the right one twice", "mount $EFI boot/efi; mkdir -p mnt; mount $EFI mnt", false),
];

#[apply(test)]
fn boot_variables_are_the_boot_disks_whatever_is_mounted_in_their_place() {
    ready();
    for (what, script, is_told) in AT_BOOT_EFI {
        let mut machine = Chroot::new(false);
        let stick = Disk::new(24, 16);
        efi_of(&machine.root, &stick);
        run(command("cp").arg("-R").arg(machine.root.path("boot/efi")).arg(machine.root.path("stand-in")));
        let (ours, others) = (machine.disk.node(EFI), stick.node(EFI));
        machine.efi = format!("EFI={} OTHER={}; {script}", ours.display(), others.display());
        let before = copy_of(&stick, "grubenv");
        let back = machine.agent(&["rollback"]).expect(0, &["slot B is active, on trial for three boots"]);
        let told = format!("not KSOLOEFI of the boot disk ({})", machine.disk.name(EFI));
        assert_eq!(back.stderr.contains(&told), is_told, "{what}: {back:?}");
        assert_eq!(machine.boot_variables()["active_slot"], "B", "{what}: the boot disk's own copies");
        assert!(copy_of(&stick, "grubenv") == before, "{what}: the other disk was written");
        let stand_in = fs::read(machine.root.path("stand-in/boot/grub/grubenv")).unwrap();
        assert!(stand_in == before, "{what}: a directory was written");
        machine.agent(&["status", "--json"]).expect(0, &[r#""active_slot":"B""#]);
        assert_free(&machine.disk, what);
    }
}

/// Without a boot disk there is none whose variables they could be.
#[apply(test)]
fn boot_variables_of_no_known_disk_are_not_written() {
    ready();
    let mut machine = Chroot::new(false);
    let absent = "kubesolo.slot=A kubesolo.part=00000000-0000-4000-8000-000000000000\n";
    fs::write(machine.root.path("cmdline"), absent).unwrap();
    machine.efi = format!("mount {} boot/efi", machine.disk.node(EFI).display());
    machine.agent(&["rollback"]).expect(7, &["find the boot disk", "00000000-0000-4000-8000-000000000000"]);
    assert_eq!(machine.boot_variables()["active_slot"], "A");
}

/// What keeps the boot disk's partition from being told by its name, and nothing from being right: a trial is confirmed, by what
/// is mounted. `$DISK` is the disk, `$EFI` its partition, `$COPY` a copy of it.
const TOLD_BY_THE_MOUNT: [(&str, &str, bool); 2] = [
    ("a partition with another name", "sgdisk -c '1:EFI System Partition' $DISK >$LOG; e2label $EFI ESP", false),
    ("a copy of the disk is plugged in", ":", true),
];

#[apply(test)]
fn a_trial_is_confirmed_where_the_boot_disks_partition_is_mounted() {
    ready();
    need("sgdisk");
    for (what, script, has_copy) in TOLD_BY_THE_MOUNT {
        let mut machine = Chroot::new(false);
        let node = machine.disk.node(EFI);
        let set = format!("DISK={} EFI={} LOG=/dev/null; {script}", machine.disk.device(), node.display());
        run(Command::new("sh").args(["-euc", &set]));
        let booted = format!("kubesolo.slot=B kubesolo.part={}\n", machine.disk.guid(B));
        fs::write(machine.root.path("cmdline"), booted).unwrap();
        machine.root.install_check("10-well", "exit 0");
        machine.root.set_boot_variables(&["active_slot=B", "boot_success=0", "boot_counter=2"]);
        efi_of(&machine.root, &machine.disk);
        if !has_copy {
            run(command("e2label").arg(&node).arg("ESP"));
        }
        let copy = has_copy.then(|| machine.disk.twin());
        machine.efi = format!("mount {} boot/efi", node.display());
        machine.agent(&["healthcheck", "--timeout", "30"]).expect(0, &["the trial boot is confirmed"]);
        assert_eq!(machine.boot_variables()["boot_success"], "1", "{what}");
        machine.agent(&["status", "--json"]).expect(0, &[r#""readable":true"#]);
        if let Some(copy) = copy {
            assert!(
                String::from_utf8_lossy(&copy_of(&copy, "grubenv")).contains("boot_success=0"),
                "{what}: the copy was written"
            );
        }
    }
}

#[apply(test)]
fn what_is_missing_in_a_chroot_is_named() {
    ready();
    let mut machine = Chroot::new(false);
    for (bound, command, code, reasons) in [
        (vec!["sys", "dev"], "activate", 7, ["read /proc/cmdline"; 2]),
        // Which of the two is missed first depends on whether another machine's disk is there as well.
        (vec!["sys", "dev"], "verify", 7, ["Slot A  INVALID: read /proc/cmdline", "/proc does not show this process"]),
        (vec!["proc", "dev"], "activate", 7, ["list block devices in /sys/class/block"; 2]),
        (vec!["proc", "sys"], "verify", 7, ["/dev has no partition's device"; 2]),
    ] {
        machine.bound = bound;
        let run = machine.agent(&[command]);
        let what = format!("with {:?}: {run:?}", machine.bound);
        assert_eq!(run.code, code, "{what}");
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(reasons.iter().any(|reason| said.contains(reason)) && said.contains("`mount --rbind` /proc"), "{what}");
        assert_free(&machine.disk, &what);
    }
}

/// Nothing here may restart this machine: the right to is dropped, and the call is answered by strace.
/// Input: `delay_secs`: of sync(2). Returns: what was said, and the calls with the process's number in front.
fn restarted(machine: &Chroot, delay_secs: u32, more: &[&str]) -> (Run, Vec<String>) {
    let log = machine.root.path("calls");
    let [setpriv, strace] = ["setpriv", "strace"].map(|name| support::find(name).unwrap().display().to_string());
    let (log_name, sync) = (log.display().to_string(), format!("inject=sync:delay_enter={delay_secs}000000"));
    let under = [
        &setpriv,
        "--bounding-set=-sys_boot",
        "--inh-caps=-sys_boot",
        &strace,
        "-fy",
        "-o",
        &log_name,
        "-e",
        "trace=sync,reboot,fork,clone,kill,ftruncate,pwrite64",
        "-e",
        &sync,
        "-e",
        "inject=reboot:error=EPERM",
    ];
    let run = machine.agent_under(&[&under[..], more].concat(), &["activate", "--reboot"]);
    let calls = fs::read_to_string(log).unwrap();
    let named = [" sync(", " reboot(", "<... sync", " kill(", " ftruncate(", " pwrite64("];
    let is_call = |line: &&str| named.iter().any(|call| line.contains(call));
    (run, calls.lines().filter(is_call).map(str::to_string).collect())
}

/// A disk that has died may keep sync(2) for ever: then what is not written out is lost, and not the machine.
#[apply(long_test)]
fn a_restart_waits_for_sync_and_not_for_ever() {
    ready();
    need("setpriv");
    // strace comes to its end only with the delay.
    for delay_secs in [0, 45] {
        let machine = Chroot::new(false);
        let medium = Medium::new(&machine.root.path(""), &Release::new("2.0.0"));
        let source = format!("/{}", medium.dir.file_name().unwrap().to_str().unwrap());
        machine.agent(&["apply", "--layout", &source]).expect(0, &["2.0.0 is staged in slot B"]);
        let (run, calls) = restarted(&machine, delay_secs, &[]);
        let what = format!("sync takes {delay_secs} s: {run:?} {calls:#?}");
        let run = run.expect(1, &["restart the machine", "restarting needs root"]);
        assert_eq!(run.stderr.contains("sync: not done after 30 s"), delay_secs > 0, "{what}");
        let at = |words: &str| calls.iter().position(|call| call.contains(words)).unwrap_or_else(|| panic!("{what}"));
        assert!(at(" sync(") < at(" reboot("), "{what}");
        let ended = calls.iter().position(|call| call.contains("sync") && call.contains("= 0"));
        assert_eq!(ended.is_some_and(|ended| ended < at(" reboot(")), delay_secs == 0, "{what}");
        assert_eq!(machine.phase(), "activated", "{what}");
    }
}

/// A machine that has no process to spare, and one that is told nothing of its children, are those that a failed health check
/// restarts: what was written is written out all the same, and no other process is killed for it.
#[apply(test)]
fn a_restart_syncs_where_no_process_can_be_had() {
    ready();
    need("setpriv");
    let ignoring = ["env", "--ignore-signal=CHLD"];
    for (what, more) in [
        ("no process can be had", &["-e", "inject=fork,clone:error=EAGAIN"][..]),
        ("no memory for one", &["-e", "inject=fork,clone:error=ENOMEM"]),
        ("SIGCHLD is ignored", &ignoring),
    ] {
        let machine = Chroot::new(false);
        let medium = Medium::new(&machine.root.path(""), &Release::new("2.0.0"));
        let source = format!("/{}", medium.dir.file_name().unwrap().to_str().unwrap());
        machine.agent(&["apply", "--layout", &source]).expect(0, &["2.0.0 is staged in slot B"]);
        let (run, calls) = restarted(&machine, 0, more);
        let run = run.expect(1, &["restart the machine"]);
        assert!(!run.stderr.contains("sync: not done"), "{what}: {run:?} {calls:#?}");
        let ended = calls.iter().position(|call| call.contains("sync") && call.contains("= 0"));
        let restarts = calls.iter().position(|call| call.contains(" reboot(")).expect("it restarts");
        assert!(ended.is_some_and(|ended| ended < restarts), "{what}: {run:?} {calls:#?}");
        // What the run said of itself is gone before that: the next boot finds none that was cut off.
        let of_lock =
            |name: &str| calls[..restarts].iter().rposition(|call| call.contains(name) && call.contains("/lock>"));
        assert!(of_lock(" ftruncate(") > of_lock(" pwrite64("), "{what}: {calls:#?}");
        assert!(!calls.iter().any(|call| call.contains(" kill(")), "{what}: {calls:#?}");
    }
}

/// A server that holds the kernel back in the middle, until the client goes.
fn holding(release: &Release) -> Raw {
    let (release, document) = (release.clone(), release.latest_json());
    Raw::start(move |path| {
        let body = if path == "/latest.json" { document.clone().into_bytes() } else { release.file(path).unwrap() };
        let hold_after = path.contains("vmlinuz").then_some(body.len() / 2);
        Reply { hold_after, ..Reply::ok(body) }
    })
}

/// What `/proc/PID/io` counts: bytes handed to write(2).
fn written_bytes(pid: &str) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    io.lines().find_map(|l| l.strip_prefix("wchar: ")?.parse().ok()).unwrap()
}

/// Lines of `/proc/PID/mounts`, and what its descriptors lead to, that name a device.
fn held_by(pid: &str, device: &str) -> Vec<String> {
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = files.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string()));
    mounts.lines().map(str::to_string).chain(links).filter(|text| text.contains(device)).collect()
}

/// Somebody unmounts a stick, mounted before the agent started, while the agent waits for its source; then the agent is
/// killed. Input: `propagation`: of the namespace that both are in; `wrapper`: runs the agent.
fn stick_is_unmounted_meanwhile(propagation: &str, wrapper: Option<Command>, what: &str) {
    let (machine, stick) = (Machine::new(), Disk::new(24, 16));
    let release = Release::new("2.0.0");
    let server = holding(&release);
    let args = ["apply", "--server", &server.url()];
    let agent = wrapper.map_or_else(|| machine.root.command(&args), |w| machine.root.command_under(w, &args));
    let point = stick.dir().join("mnt");
    fs::create_dir(&point).unwrap();
    let script = "mount --make-\"$1\" /; shift; mount -t ext4 \"$1\" \"$2\"; echo x >\"$2/f\"; point=$2; shift 2; \
                  \"$@\" >/dev/null 2>&1 </dev/null & agent=$!; echo $agent; read -r go; \
                  rc=0; umount \"$point\" || rc=$?; echo $rc; read -r go; \
                  kill -KILL $agent; rc=0; wait $agent || rc=$?; echo $rc";
    let (node, program) = (stick.node(DATA), PathBuf::from(agent.get_program()));
    let agent_args: Vec<&Path> = agent.get_args().map(Path::new).collect();
    let first = [Path::new(propagation), &node, &point, &program];
    let mut shell = Shell::start(unshare(), script, &[&first, &agent_args[..]].concat());
    let pid = shell.line();
    server.wait_held();
    let arrived = release.ours().kernel.len() as u64 / 2;
    assert!(wait_for(WAIT, || written_bytes(&pid) >= arrived), "{what}: nothing is written");
    assert!(stick.is_mounted(DATA) && stick.needs_recovery(DATA), "{what}: the stick is not in use");
    shell.go_on();
    assert_eq!(shell.line(), "0", "{what}: umount");
    // At once, while the agent goes on.
    assert!(!stick.is_mounted(DATA), "{what}: the stick is busy: {:?}", held_by(&pid, &stick.name(DATA)));
    assert!(!stick.needs_recovery(DATA), "{what}: the stick was not written out");
    assert_eq!(held_by(&pid, &stick.name(DATA)), Vec::<String>::new(), "{what}");
    // Not by its path: that of a process in another namespace is told from that one's root.
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).unwrap();
    let program = PathBuf::from(format!("/proc/{pid}/exe"));
    assert_eq!(identity(&program), identity(&Root::program()), "{what}: it is not the agent that was looked at");
    assert!(machine.disk.is_mounted(B) && machine.disk.needs_recovery(B), "{what}: the agent is not at work");
    let seen = fs::read_to_string(format!("/proc/{}/mountinfo", shell.child.id())).unwrap();
    assert!(!seen.contains(&machine.disk.name(B)), "{what}: others see the mount: {seen}");
    shell.go_on();
    assert_eq!(shell.line(), (128 + SIGKILL).to_string(), "{what}: it ended by itself");
    machine.disk.wait_unmounted(B);
    assert_free(&machine.disk, what);
    shell.end();
    machine.root.agent(&["status"]).expect(0, &["was cut off"]);
    machine.assert_recovers(what);
}

#[apply(test)]
fn a_stick_that_is_unmounted_meanwhile_is_free() {
    ready();
    stick_is_unmounted_meanwhile("rprivate", None, "today's kernel");
    stick_is_unmounted_meanwhile("rprivate", Some(strace(&OLD_KERNEL)), "an old kernel");
    stick_is_unmounted_meanwhile("rshared", Some(strace(&OLD_FILTER)), "an old filter, and everything shared");
}

#[apply(test)]
fn killed_within_the_namespace_of_an_old_kernel() {
    ready();
    let machine = Machine::new();
    let medium = Medium::new(machine.disk.dir(), &Release::new("2.0.0"));
    // Two reads, then the two writes, each: setns, unshare, mount (the propagation), mount, setns.
    for (call, when) in [("unshare", 3), ("mount", 5), ("mount", 6), ("mount", 8), ("setns", 6), ("setns", 8)] {
        let mut strace = command("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace=fsopen,{call}"), "-e", OLD_KERNEL[3], "-e"]);
        strace.arg(format!("inject={call}:signal=KILL:when={when}"));
        let mut apply = machine.root.command_under(strace, &["apply", "--layout", medium.path()]);
        let status = apply.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let what = format!("killed at {call} number {when}");
        assert_eq!(status.signal(), Some(SIGKILL), "{what}: it ended by itself");
        for number in [EFI, A, B, DATA] {
            machine.disk.wait_unmounted(number);
        }
        assert_free(&machine.disk, &what);
        assert!(machine.disk.bytes(A) == machine.running, "{what}: the running slot was written");
    }
    machine.assert_recovers("in the end");
}

/// A run that is stuck in another namespace must not go on: no path means there what it meant.
#[apply(test)]
fn who_can_not_come_back_ends() {
    ready();
    let machine = Machine::new();
    let medium = Medium::new(machine.disk.dir(), &Release::new("2.0.0"));
    for when in [2, 6] {
        let inject = format!("inject=setns:error=EPERM:when={when}");
        let wrapper = strace(&["-e", "trace=fsopen,setns", "-e", OLD_KERNEL[3], "-e", &inject]);
        let mut run = machine.root.command_under(wrapper, &["apply", "--layout", medium.path()]);
        let run = Run::from(run.output().unwrap()).expect(1, &["leave a mount namespace", "this run ends here"]);
        assert!(run.stdout.is_empty(), "{run:?}");
        assert_free(&machine.disk, &inject);
    }
    machine.assert_recovers("in the end");
}

/// Mounts in this very process. Another test of this program may be starting a process, which has all descriptors, and with
/// them this one's lock, until it has become another program.
fn mount_here(part: &Partition) -> mount::Mounted {
    let mut mounted = None;
    let mount_it = || mount::hold(part, Access::Write).and_then(|hold| mount::mount_alone(part, &hold));
    assert!(wait_for(WAIT, || match mount_it() {
        Err(e) if e.is_in_use() => false,
        ended => {
            mounted = Some(ended.unwrap());
            true
        }
    }));
    mounted.unwrap()
}

#[apply(test)]
fn a_file_that_is_still_open_is_no_clean_end() {
    ready();
    let disk = Disk::new(24, 16);
    let number = fs::read_to_string(format!("/sys/class/block/{}/dev", disk.name(B))).unwrap();
    let part = Partition {
        label: "KSOLOB".into(),
        name: disk.name(B),
        node: disk.node(B),
        device_number: number.trim().into(),
        is_named: true,
    };
    for _ in 0..50 {
        let mounted = mount_here(&part);
        fs::write(mounted.dir().join("f"), "x").unwrap();
        mounted.unmount().unwrap();
        // As above; that it is free at once is held against the agent itself, which starts no process then.
        disk.wait_unmounted(B);
        assert_free(&disk, "once it is unmounted");
    }
    let mounted = mount_here(&part);
    let open = fs::File::create(mounted.dir().join("f")).unwrap();
    let error = mounted.unmount().unwrap_err().to_string();
    assert!(error.starts_with("unmount KSOLOB: ") && error.contains("a file on it is still open"), "{error}");
    assert!(disk.is_mounted(B) && disk.needs_recovery(B));
    drop(open);
    // Another test of this program may be starting a process, which has all descriptors until it has become another program.
    disk.wait_unmounted(B);
    assert_free(&disk, "once the file is closed");
    // Whoever only looks does not keep a writer from his end. Who is there first is chance.
    for _ in 0..20 {
        looked_into_at_the_end(&part);
        disk.wait_unmounted(B);
    }
}

/// A slot is looked into from the instant in which it is free; that goes on until it is known how unmounting has ended.
fn looked_into_at_the_end(part: &Partition) {
    let mounted = mount_here(part);
    let file = mounted.dir().join("f");
    fs::write(&file, "y").unwrap();
    let open = fs::File::open(&file).unwrap();
    let looked = part.clone();
    let looker = std::thread::spawn(move || {
        let mut looking = None;
        // The mount is closed, and waits for this file.
        assert!(wait_for(WAIT, || fs::metadata(&file).is_err()));
        drop(open);
        wait_for(WAIT, || {
            looking = mount::mount(&looked, Access::Read).ok();
            looking.is_some()
        });
        looking.expect("it could be looked into")
    });
    let ended = mounted.unmount();
    drop(looker.join().unwrap());
    ended.unwrap();
}

#[apply(test)]
fn a_slot_that_is_mounted_out_of_sight_is_not_written() {
    ready();
    for options in ["ro,noload", "rw"] {
        let machine = Machine::new();
        let medium = Medium::new(machine.disk.dir(), &Release::new("2.0.0"));
        for wrapper in [strace(&[]), strace(&OLD_KERNEL)] {
            let holder = mounted_elsewhere(&machine.disk, B, options);
            let mut apply = machine.root.command_under(wrapper, &["apply", "--layout", medium.path()]);
            let refused = Run::from(apply.output().unwrap());
            refused.expect(7, &["KSOLOB", "another mount namespace", &format!("grep {}", machine.disk.name(B))]);
            holder.end();
            machine.disk.wait_unmounted(B);
            // Mounting for writing writes; the agent has not.
            machine.assert_unharmed(options, "failed", "device", Left::SameFiles);
        }
        machine.assert_recovers(options);
    }
}

/// Where the agent would share a file system that somebody writes to: it is asked to empty the journal of a slot.
#[apply(test)]
fn a_slot_that_somebody_writes_to_is_not_given_up() {
    ready();
    // Slot B is confirmed, and a person chose A in GRUB's menu.
    let mut trial = Trial::booted();
    trial.root.install_check("10-ok", "echo fine");
    trial.root.agent(&["healthcheck"]).expect(0, &["the trial boot is confirmed"]);
    trial.boot(A);
    let blocks = trial.root.blocks();
    let holder = mounted_elsewhere(&trial.disk, B, "rw");
    assert!(trial.disk.needs_recovery(B));
    for wrapper in [strace(&[]), strace(&OLD_KERNEL)] {
        let run = Run::from(trial.root.command_under(wrapper, &["activate"]).output().unwrap());
        run.expect(7, &["another mount namespace", "unmount it"]);
        assert!(trial.root.blocks() == blocks, "the boot variables were written");
    }
    holder.end();
    // The same in plain sight.
    let point = trial.disk.dir().join("a mount point");
    fs::create_dir(&point).unwrap();
    let mut shell = unshare();
    shell.args(["sh", "-euc", "mount \"$1\" \"$2\"; shift 2; \"$@\"", "sh"]).arg(trial.disk.node(B)).arg(&point);
    let run = Run::from(trial.root.command_under(shell, &["activate"]).output().unwrap());
    run.expect(7, &["it is mounted at", "a mount point", "unmount it"]);
    assert!(trial.root.blocks() == blocks, "the boot variables were written");
    trial.disk.wait_unmounted(B);
    trial.root.agent(&["activate"]).expect(3, &[]);
    assert!(trial.root.blocks() == blocks && !trial.disk.needs_recovery(B));
}

/// The system calls that mount something, in order. Input: `what`: more arguments of strace.
fn traced(machine: &Machine, medium: &Medium, what: &[&str]) -> Vec<String> {
    let log = machine.disk.dir().join("trace");
    let mut strace = command("strace");
    strace.args([
        "-f",
        "-s",
        "200",
        "-e",
        "trace=mount,umount2,unshare,setns,fsopen,fsconfig,fsmount,move_mount",
        "-o",
    ]);
    strace.arg(&log).args(what);
    let mut apply = machine.root.command_under(strace, &["apply", "--layout", medium.path()]);
    Run::from(apply.output().unwrap()).expect(0, &["staged"]);
    // PID CALL(…)
    let calls = fs::read_to_string(&log).unwrap();
    calls.lines().filter_map(|l| l.split_once(' ')).map(|(_, call)| call.trim().to_string()).collect()
}

#[apply(test)]
fn no_directory_and_no_namespace_is_used() {
    ready();
    let machine = Machine::new();
    let medium = Medium::new(machine.disk.dir(), &Release::new("2.0.0"));
    let calls = traced(&machine, &medium, &[]);
    let with = |words: &[&str]| calls.iter().filter(|l| words.iter().all(|w| l.contains(w))).count();
    for name in ["mount(", "umount2(", "unshare(", "setns(", "move_mount("] {
        // What a thread does to itself, so that it is in nobody's way: it leaves no namespace.
        let is_own = |line: &str| line.starts_with("unshare(CLONE_FS)");
        assert!(!calls.iter().any(|l| l.starts_with(name) && !is_own(l)), "{name}: {calls:#?}");
    }
    let mounts = with(&["fsmount(", "FSMOUNT_CLOEXEC", "NOSUID", "NODEV", "NOEXEC", "NOATIME"]);
    assert!(
        mounts >= 4 && mounts == with(&["fsopen(\"ext4\", FSOPEN_CLOEXEC)"]) && mounts == with(&["fsmount("]),
        "{calls:#?}"
    );
    // Slot A for reading only.
    let of_a = with(&["\"source\"", &machine.disk.name(A)]);
    let starts: Vec<usize> = (0..calls.len()).filter(|at| calls[*at].contains("\"source\"")).collect();
    for (n, start) in starts.iter().enumerate() {
        let one = &calls[*start..starts.get(n + 1).copied().unwrap_or(calls.len())];
        let reads = ["\"ro\"", "\"noload\"", "RDONLY"].iter().filter(|w| one.iter().any(|l| l.contains(*w))).count();
        match one[0].contains(&machine.disk.name(A)) {
            true => assert_eq!(reads, 3, "{one:#?}"),
            false => assert!([0, 3].contains(&reads), "{one:#?}"),
        }
    }
    assert!(of_a > 0);
    assert_free(&machine.disk, "afterwards");
}

/// Before Linux 6.6 no file system can be asked for that nobody else has.
#[apply(test)]
fn without_the_call_for_being_alone_it_works_as_well() {
    ready();
    let machine = Machine::new();
    let medium = Medium::new(machine.disk.dir(), &Release::new("2.0.0"));
    let calls = traced(&machine, &medium, &[]);
    let steps: Vec<&String> = calls.iter().filter(|l| l.starts_with("fsconfig(")).collect();
    // Its number; strace may know a name for it.
    let alone = |l: &&String| l.contains(", 0x8") || l.contains("CREATE_EXCL");
    let when = 1 + steps.iter().position(alone).unwrap_or_else(|| panic!("none alone: {steps:#?}"));
    assert!(steps.iter().filter(|l| alone(l)).count() >= 2);
    fs::remove_file(machine.root.path("var/lib/kubesolo/update/state.json")).unwrap();
    let next = Medium::new(machine.disk.dir(), &Release::new("2.0.1"));
    let inject = format!("inject=fsconfig:error=EOPNOTSUPP:when={when}");
    let calls = traced(&machine, &next, &["-e", &inject]);
    assert_eq!(calls.iter().filter(|l| l.contains("EOPNOTSUPP")).count(), 1, "{calls:#?}");
    assert_free(&machine.disk, "afterwards");
    assert_eq!(machine.disk.text(B, "version").as_deref(), Some("2.0.1\n"));
}

#[apply(test)]
fn what_fails_is_told_with_the_partitions_name_and_the_kernels_words() {
    ready();
    let context = FileSystemContext::open("ext4").unwrap();
    context.set("nonsense", None).unwrap_err();
    assert_eq!(context.said(), "ext4: Unknown parameter 'nonsense'");
    assert_eq!(context.said(), "");
    let machine = Machine::new();
    let medium = Medium::new(machine.disk.dir(), &Release::new("2.0.0"));
    for (inject, words) in
        [("/^unlink:error=EIO:when=1", "remove KSOLOB:/slot.json: "), ("fsmount:error=EMFILE", "mount KSOLOA (")]
    {
        let call = inject.split(':').next().unwrap();
        let wrapper = strace(&["-e", &format!("trace={call}"), "-e", &format!("inject={inject}")]);
        let mut apply = machine.root.command_under(wrapper, &["apply", "--layout", medium.path()]);
        Run::from(apply.output().unwrap()).expect(7, &[words]);
        assert_free(&machine.disk, inject);
    }
    // In the state file as well.
    assert!(!machine.root.state_field("last_error").contains("/proc/self/fd"));
    // Who may not mount is told what it takes.
    let mut plain = command("setpriv");
    plain.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]);
    let said = Run::from(machine.root.command_under(plain, &["status", "--json"]).output().unwrap()).expect(7, &[]);
    let error = said.jq(".slots[0].error");
    assert!(error.starts_with("mount KSOLOA (") && error.ends_with("(mounting needs root)"), "{error}");
    assert_free(&machine.disk, "without the right to mount");
}
