//! Which partition is ours: `kubesolo-update device`, and `kubesolo-update-boot`, which asks it and can do without.
//!
//! The hook runs in a real busybox, on this machine's own loop devices, with a kernel command line of its own; where it mounts,
//! in a mount namespace that ends with it.

use crate::support::disk::{A, B, DATA, Disk, EFI, need_disks};
use crate::support::root::{Root, Run};
use crate::support::{find, need_all, run, with_own_mounts};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const HOOK: &str = "deploy/initramfs/kubesolo-update-boot";
const BLOCK: u64 = 512;
const ENTRY: usize = 128;
/// Far more than any answer takes here, and far less than an agent that hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const LABELS: [(&str, u32); 4] = [("KSOLOEFI", EFI), ("KSOLOA", A), ("KSOLOB", B), ("KSOLODATA", DATA)];

fn ready() {
    need_disks();
    need_all(&["busybox", "unshare"]);
}

/// What is called `kubesolo-update` in the hook's PATH.
#[derive(Clone, Copy, Debug)]
enum Agent<'a> {
    Real,
    Missing,
    Script(&'a str),
    File(&'a [u8], u32),
}

/// A directory of programs, and a kernel command line.
struct Bench(TempDir);

impl Bench {
    fn new(cmdline: &str) -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        fs::create_dir(bench.path("bin")).unwrap();
        let busybox = find("busybox").unwrap();
        for applet in run(Command::new(&busybox).arg("--list")).lines().chain(["busybox"]) {
            let _ = symlink(&busybox, bench.path("bin").join(applet));
        }
        fs::write(bench.path("cmdline"), format!("{cmdline}\n")).unwrap();
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(HOOK), bench.path("hook")).unwrap();
        bench
    }

    fn of(disk: &Disk) -> Bench {
        Bench::new(&format!("quiet kubesolo.slot=A kubesolo.part={}", disk.guid(A)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs it with busybox's shell. Input: `before`: in the namespace.
    fn run(&self, agent: Agent<'_>, before: &str, args: &[&str]) -> Run {
        let place = self.path("bin/kubesolo-update");
        let _ = fs::remove_file(&place);
        let put = |bytes: &[u8], mode| {
            fs::write(&place, bytes).unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
        };
        match agent {
            Agent::Real => symlink(Root::program(), &place).unwrap(),
            Agent::Missing => {}
            Agent::Script(script) => put(format!("#!/bin/sh\n{script}\n").as_bytes(), 0o755),
            Agent::File(bytes, mode) => put(bytes, mode),
        }
        let script = format!(
            "mount --bind \"$1/cmdline\" /proc/cmdline; {before}; dir=$1; shift; exec \"$dir/bin/sh\" \"$dir/hook\" \"$@\""
        );
        let mut hook = with_own_mounts(&script);
        hook.arg(self.0.path()).args(args).env_clear();
        hook.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path("bin").display()));
        hook.env("KUBESOLO_ASK_SECS", if matches!(agent, Agent::Real) { "60" } else { "1" });
        hook.env("AGENT", Root::program()).env("BENCH", self.0.path()).env("KUBESOLO_WAIT_SECS", "20");
        let begun = Instant::now();
        let ended = Run::from(hook.output().unwrap());
        assert!(begun.elapsed() < PATIENCE, "{agent:?}: it took {:?}", begun.elapsed());
        ended
    }

    fn find(&self, agent: Agent<'_>, label: &str) -> Run {
        self.run(agent, ":", &["--find", label])
    }
}

/// One of the disk's two tables: UEFI 2.10, 5.3.
#[derive(Clone)]
struct Table {
    at: u64,
    entries_at: u64,
    header: Vec<u8>,
    entries: Vec<u8>,
}

impl Table {
    fn both(disk: &Disk) -> [Table; 2] {
        let length = fs::metadata(&disk.image).unwrap().len();
        let file = fs::File::open(&disk.image).unwrap();
        [BLOCK, length - BLOCK].map(|at| {
            let (mut header, mut entries) = (vec![0; 92], vec![0; 128 * ENTRY]);
            file.read_exact_at(&mut header, at).unwrap();
            assert!(header.starts_with(b"EFI PART"));
            let entries_at = u64::from_le_bytes(header[72..80].try_into().unwrap()) * BLOCK;
            file.read_exact_at(&mut entries, entries_at).unwrap();
            Table { at, entries_at, header, entries }
        })
    }

    /// A number of the header: 80: of entries; 84: their length.
    fn set(&mut self, at: usize, number: u32) {
        self.header[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }

    /// Bytes of the table's entries, from an entry's beginning.
    fn put(&mut self, entry: usize, offset: usize, bytes: &[u8]) {
        let at = entry * ENTRY + offset;
        self.entries[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes both sums right.
    fn seal(&mut self) {
        let sum = |bytes: &[u8]| {
            let mut crc = flate2::Crc::new();
            crc.update(bytes);
            crc.sum()
        };
        let field = |at: usize| u32::from_le_bytes(self.header[at..at + 4].try_into().unwrap()) as usize;
        let entries = sum(&self.entries[..field(80) * field(84)]);
        self.set(88, entries);
        self.set(16, 0);
        let header = sum(&self.header);
        self.set(16, header);
    }

    /// Through the device, so that its cache has it too.
    fn write(&self, disk: &Disk) {
        let device = OpenOptions::new().write(true).open(disk.device()).unwrap();
        device.write_all_at(&self.entries, self.entries_at).unwrap();
        device.write_all_at(&self.header, self.at).unwrap();
        device.sync_all().unwrap();
    }
}

/// What is done to both tables, and the GUID as they hold it. Slot A has entry 1.
type Change = fn(&mut [Table; 2], &[u8]);

/// In both tables, with sums that are right: the agent judges it as well.
fn sealed(tables: &mut [Table; 2], change: impl Fn(&mut Table)) {
    for table in tables {
        change(table);
        table.seal();
    }
}

/// Takes the GUID away from the slot, and puts it elsewhere.
fn moved(tables: &mut [Table; 2], guid: &[u8], entry: usize, offset: usize) {
    sealed(tables, |table| {
        table.put(1, 16, &[0x5a; 16]);
        table.put(entry, offset, guid);
    });
}

/// Found, or not: by the agent and by the shell. A line more is a case more.
const DISKS: &[(&str, bool, Change)] = &[
    ("as it should be", true, |_, _| {}),
    ("33 sectors behind the first are zeros", true, |t, _| {
        t[0].header.fill(0);
        t[0].entries.fill(0);
    }),
    ("the same of the disk's end", true, |t, _| {
        t[1].header.fill(0);
        t[1].entries.fill(0);
    }),
    ("a wrong sum of the first header", true, |t, _| t[0].header[16] ^= 1),
    ("a wrong sum of the first entries", true, |t, _| t[0].header[88] ^= 1),
    ("the first has no signature", true, |t, _| t[0].header[7] ^= 1),
    ("the first has no such entry", true, |t, _| t[0].put(1, 0, &[0; ENTRY])),
    ("the first has no such entry, and is sound", true, |t, _| {
        t[0].put(1, 0, &[0; ENTRY]);
        t[0].seal();
    }),
    ("the first has too many entries", true, |t, _| t[0].set(80, u32::MAX)),
    ("the first has no entries", true, |t, _| t[0].set(80, 0)),
    ("the first has entries of no length", true, |t, _| t[0].set(84, 0)),
    ("the first has entries that are too short", true, |t, _| t[0].set(84, 64)),
    ("the first has its entries nowhere", true, |t, _| t[0].header[72..80].fill(0xff)),
    ("entries elsewhere", true, |t, _| {
        t[0].header[72] = 64;
        t[0].entries_at = 64 * BLOCK;
        t[0].seal();
        t[1].header[0] = 0;
    }),
    ("entries of 512 bytes", true, |t, _| {
        let wide = t[0].entries[..32 * ENTRY].chunks(ENTRY).flat_map(|entry| [entry, &[0; 3 * ENTRY]].concat());
        t[0].entries = wide.collect();
        t[0].set(80, 32);
        t[0].set(84, 512);
        t[0].seal();
        t[1].header[0] = 0;
    }),
    ("four entries", true, |t, _| sealed(t, |table| table.set(80, 4))),
    ("neither has a signature", false, |t, _| t.iter_mut().for_each(|table| table.header[0] = 0)),
    ("both are zeros", false, |t, _| {
        for table in t {
            table.header.fill(0);
            table.entries.fill(0);
        }
    }),
    ("behind the last entry", false, |t, _| sealed(t, |table| table.set(80, 1))),
    ("a partition's type", false, |t, guid| moved(t, guid, 2, 0)),
    ("the slot's own type", false, |t, guid| moved(t, guid, 1, 0)),
    ("across two entries", false, |t, guid| moved(t, guid, 5, ENTRY - 8)),
    ("a partition's extent", false, |t, guid| moved(t, guid, 5, 32)),
    ("a partition's name", false, |t, guid| moved(t, guid, 3, 56)),
    ("half a byte further", false, |t, guid| {
        let (before, behind) = ([&[0], guid].concat(), [guid, &[0]].concat());
        let shifted: Vec<u8> = before.iter().zip(&behind).map(|(high, low)| high << 4 | low >> 4).collect();
        moved(t, &shifted, 1, 15);
    }),
    ("an entry without a type", false, |t, guid| moved(t, guid, 6, 16)),
    ("an entry that the kernel does not know", false, |t, guid| {
        t.iter_mut().for_each(|table| table.put(6, 0, &[7; 16]));
        moved(t, guid, 6, 16);
    }),
    ("the disk's own", false, |t, guid| {
        t.iter_mut().for_each(|table| table.header[56..72].copy_from_slice(guid));
        sealed(t, |table| table.put(1, 16, &[0x5a; 16]));
    }),
];

#[apply(test)]
fn a_guid_is_a_partitions_own_in_either_table() {
    ready();
    let disk = Disk::new(24, 16);
    let (bench, sound, node) = (Bench::of(&disk), Table::both(&disk), format!("{}\n", disk.node(DATA).display()));
    let guid = sound[0].entries[ENTRY + 16..ENTRY + 32].to_vec();
    let mut faults = Vec::new();
    for (name, is_there, change) in DISKS {
        let mut tables = sound.clone();
        change(&mut tables, &guid);
        // Not where the first entries lay before, either.
        let nothing = Table { entries: vec![0; 96 * BLOCK as usize], ..sound[0].clone() };
        nothing.write(&disk);
        tables.iter().for_each(|table| table.write(&disk));
        let wanted = if *is_there { (0, node.clone()) } else { (1, String::new()) };
        // Without a word: the agent knows the answer.
        for (who, agent) in [("the agent", Agent::Real), ("the shell", Agent::Missing)] {
            let out = bench.find(agent, "KSOLODATA");
            if (out.code, &out.stdout) != (wanted.0, &wanted.1) || out.stderr.contains("gave no answer") {
                faults.push(format!("{name}, {who}: {out:?}"));
            }
        }
    }
    sound.iter().for_each(|table| table.write(&disk));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What lies there as the agent; whether the partition is found all the same, and what is said. A line more is a case more.
const AGENTS: &[(Agent<'_>, bool, &str)] = &[
    (Agent::Missing, true, ""),
    (Agent::Script("exit 2"), true, "(exit code 2): looking without it"),
    (Agent::Script("exit 1"), true, "(exit code 1): looking without it"),
    (Agent::Script("exit 8"), true, "(exit code 8): looking without it"),
    (Agent::Script("exit 77"), true, "(exit code 77): looking without it"),
    (Agent::Script("exit 0"), true, "(exit code 0): looking without it"),
    (Agent::Script("echo /dev/null"), true, "looking without it"),
    (Agent::Script("echo sda4"), true, "looking without it"),
    (Agent::Script("echo /dev/no-such-disk4"), true, "looking without it"),
    (Agent::Script("\"$AGENT\" device KSOLOA; \"$AGENT\" device KSOLOB"), true, "looking without it"),
    (Agent::Script("\"$AGENT\" \"$@\"; exit 9"), true, "(exit code 9): looking without it"),
    (Agent::Script("kill -KILL $$"), true, "(exit code 137): looking without it"),
    (Agent::Script("kill -SEGV $$"), true, "(exit code 139): looking without it"),
    (Agent::Script("exec sleep 1000"), true, "looking without it"),
    (Agent::Script("trap '' TERM; exec sleep 1000"), true, "looking without it"),
    (Agent::Script("kill -STOP $$"), true, "looking without it"),
    (Agent::Script("\"$AGENT\" \"$@\"; exec sleep 1000"), true, "looking without it"),
    (Agent::File(b"#!/no/such/interpreter\n", 0o755), true, "looking without it"),
    (Agent::File(b"\x7fELF\x02\x01\x01", 0o755), true, "looking without it"),
    (Agent::File(b"", 0o644), true, "(exit code 126): looking without it"),
    // An answer while it is waited for; asked once, its own reader looks too: an agent that is broken says it to everything.
    (Agent::Script("echo 'no disk qualifies' >&2; exit 7"), true, ""),
    (Agent::Script("\"$AGENT\" \"$@\"; echo 'it says so' >&2; exit 7"), true, ""),
];

#[apply(test)]
fn an_agent_that_cannot_be_asked_is_done_without() {
    ready();
    let disk = Disk::new(24, 16);
    let (bench, node) = (Bench::of(&disk), format!("{}\n", disk.node(DATA).display()));
    let mut faults = Vec::new();
    for (agent, is_found, words) in AGENTS {
        let out = bench.find(*agent, "KSOLODATA");
        let wanted = if *is_found { (0, node.as_str()) } else { (1, "") };
        let is_told = if words.is_empty() { out.stderr.is_empty() } else { out.stderr.contains(words) };
        if (out.code, out.stdout.as_str()) != wanted || !is_told {
            faults.push(format!("{agent:?}: {out:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[apply(test)]
fn of_two_disks_the_one_that_booted_counts() {
    ready();
    let (first, second) = (Disk::new(24, 16), Disk::new(24, 16));
    for disk in [&first, &second] {
        let bench = Bench::of(disk);
        for (label, number) in LABELS {
            for agent in [Agent::Real, Agent::Missing] {
                let out = bench.find(agent, label).expect(0, &[]);
                assert_eq!(out.stdout, format!("{}\n", disk.node(number).display()), "{agent:?} {label}");
            }
        }
        // Which slot runs is another question: GRUB's mistake must not cost the machine its data.
        let odd = Bench::new(&format!("kubesolo.slot=B kubesolo.part={}", disk.guid(A).to_uppercase()));
        let out = odd.find(Agent::Real, "KSOLODATA").expect(0, &[]);
        assert_eq!((out.stdout, out.stderr), (format!("{}\n", disk.node(DATA).display()), String::new()));
    }
    // A copy, and a disk that is not there. Nothing of it is guessed.
    let twin = first.twin();
    let bench = Bench::of(&first);
    let out = bench.find(Agent::Real, "KSOLODATA").expect(1, &["2 disks qualify", &twin.name(DATA)]);
    assert_eq!(out.stdout, "");
    assert_eq!(bench.find(Agent::Missing, "KSOLODATA").expect(1, &[]).stdout, "");
    drop(twin);
    bench.find(Agent::Real, "KSOLODATA").expect(0, &[]);
    let absent = Bench::new("kubesolo.slot=A kubesolo.part=00000000-1111-4222-8333-444444444444");
    absent.find(Agent::Real, "KSOLODATA").expect(1, &["no disk qualifies"]);
    assert_eq!(absent.find(Agent::Missing, "KSOLODATA").expect(1, &[]).stdout, "");
}

/// Where it mounts, nothing of this machine's is below.
const ALONE: &str = "mount -t tmpfs none /var/lib; mount -t tmpfs none /etc; mkdir /etc/kubesolo; \
                     mount --bind /dev/null /dev/console 2>/dev/null || :";

#[apply(test)]
fn the_data_are_waited_for_until_the_agent_finds_them() {
    ready();
    let disk = Disk::new(24, 16);
    let bench = Bench::of(&disk);
    let mounted = format!("{} is mounted at /var/lib/kubesolo", disk.name(DATA));
    // The disk appears late: twice, there is none yet.
    let late = "echo x >>\"$BENCH/asked\"; [ \"$(wc -l <\"$BENCH/asked\")\" -gt 2 ] || exit 7; exec \"$AGENT\" \"$@\"";
    let out = bench.run(Agent::Script(late), ALONE, &[]).expect(0, &[&mounted]);
    assert!(!out.stderr.contains("without it"), "{}", out.stderr);
    assert_eq!(fs::read_to_string(bench.path("asked")).unwrap().lines().count(), 3);
    // One that hangs is asked once, and not each second.
    let hangs = "echo x >>\"$BENCH/hung\"; exec sleep 1000";
    bench.run(Agent::Script(hangs), ALONE, &[]).expect(0, &[&mounted, "looking without it"]);
    let absent = Bench::new("kubesolo.slot=A kubesolo.part=00000000-1111-4222-8333-444444444444");
    let none = format!("{ALONE}; export KUBESOLO_WAIT_SECS=2");
    absent.run(Agent::Script(hangs), &none, &[]).expect(1, &["no partition KSOLODATA on the boot disk after 2 s"]);
    assert_eq!(fs::read_to_string(absent.path("hung")).unwrap().lines().count(), 1);
    // In the agent's words, once.
    let out = absent.run(Agent::Real, &none, &[]).expect(1, &["after 2 s", "no disk qualifies"]);
    assert_eq!(out.stderr.matches("no disk qualifies").count(), 1, "{}", out.stderr);
    drop(disk);
}

#[apply(test)]
fn the_verb_needs_nothing_but_the_kernel() {
    ready();
    let disk = Disk::new(24, 16);
    let mut root = Root::new(&disk);
    // No configuration that makes sense, no data, no boot variables.
    root.configure_node("nonsense = yes\n");
    for dir in ["boot", "var", "run"] {
        fs::remove_dir_all(root.path(dir)).unwrap();
    }
    let device = |number| root.path("dev").join(disk.name(number)).display().to_string();
    for (label, number) in LABELS {
        let out = root.agent(&["device", label]).expect(0, &[]);
        assert_eq!((out.stdout, out.stderr), (format!("{}\n", device(number)), String::new()));
        let out = root.agent(&["device", label, "--json"]).expect(0, &[]);
        assert_eq!(
            out.jq("[.command, .result, .label, .device]"),
            format!("[\"device\",\"found\",\"{label}\",\"{}\"]", device(number))
        );
        let out = root.agent(&["device", "--shell", label]).expect(0, &["KUBESOLO_RESULT='found'\n"]);
        assert!(out.stdout.contains(&format!("KUBESOLO_DEVICE='{}'\n", device(number))), "{}", out.stdout);
    }
    for label in ["KSOLO", "ksoloa", "KSOLOC", "", "KSOLOA ", "A", "KSOLODATA\n", "/dev/sda"] {
        let said = root.agent(&["device", label, "--json"]).expect(2, &["KSOLOEFI, KSOLOA, KSOLOB, KSOLODATA"]);
        assert_eq!(said.jq("[.result, .kind]"), r#"["error","usage"]"#, "{label:?}");
    }
    root.agent(&["device"]).expect(2, &["label"]);
    root.agent(&["device", "KSOLOA", "KSOLOB"]).expect(2, &[]);
    root.boot('A', Some("00000000-1111-4222-8333-444444444444"));
    let said = root.agent(&["device", "KSOLOA", "--json"]).expect(7, &["no disk qualifies"]);
    assert_eq!(said.jq("[.result, .kind]"), r#"["error","device"]"#);
    fs::remove_file(root.path("proc/cmdline")).unwrap();
    root.agent(&["device", "KSOLOA"]).expect(7, &["proc/cmdline"]);
}
