//! `scripts/usb-provision.sh` on loop devices: what is on the stick afterwards, as other tools read it; what it refuses; sticks that lie
//! and runs that are killed.

use crate::support::disk::{BORN, architecture, build_image, need_disks, other_architecture, wait_for};
use crate::support::provision::{META_DATA, NETWORK, SiteFiles, Stick, USER_DATA, bytes, small_layout};
use crate::support::publish::{before_path, wrap};
use crate::support::root::Root;
use crate::support::{self, PYTHON, command, need, need_all, need_python, run};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

pub const MIB: u64 = 1 << 20;
/// EFI, two slots of 16 MiB, data of 16 MiB.
const IMAGE_MIB: u64 = 1 + 64 + 16 + 16 + 16 + 1;
const DATA_AT: u64 = (1 + 64 + 16 + 16) * MIB;
/// No whole number of MiB, as sticks are.
pub const STICK: u64 = 128 * MIB + 5 * 512;

pub fn ready() {
    need_disks();
    need_all(&["jq", "xz", "lsblk", "unshare"]);
}

pub fn site() -> SiteFiles {
    let site = SiteFiles::new();
    run(&mut build_image(site.dir.path(), &site.path("image"), 16, 16));
    small_layout(&site, &["amd64", "arm64"]);
    site
}

pub fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn guids(disk: &Path) -> Vec<String> {
    let print = run(command("sgdisk").arg("-p").arg(disk));
    let mut found = vec![print.lines().find(|l| l.starts_with("Disk identifier")).unwrap().to_string()];
    for number in ["1", "2", "3", "4", "128"] {
        let info = run(command("sgdisk").args(["-i", number]).arg(disk));
        found.push(info.lines().find(|l| l.starts_with("Partition unique GUID")).unwrap().to_string());
    }
    found
}

/// Something of the data partition, by debugfs.
fn data(stick: &Stick, request: &str) -> String {
    let place = format!("{}?offset={DATA_AT}", stick.file.display());
    run(command("debugfs").args(["-R", request, &place]).stderr(Stdio::null()))
}

#[track_caller]
fn assert_provisioned(site: &SiteFiles, stick: &Stick) {
    let image = site.path("image");
    // All but the table is the image's, up to the data.
    assert!(stick.bytes(0, 440) == bytes(&image, 0, 440), "boot code");
    assert!(stick.bytes(34 * 512, 2014 * 512) == bytes(&image, 34 * 512, 2014 * 512), "BIOS partition");
    assert!(stick.bytes(MIB, (DATA_AT - MIB) as usize) == bytes(&image, MIB, (DATA_AT - MIB) as usize), "slots");
    let table = run(command("sgdisk").arg("-v").arg(&stick.file));
    assert!(table.contains("No problems found"), "{table}");
    let print = run(command("sgdisk").arg("-p").arg(&stick.file));
    let line = print.lines().find(|l| l.contains("KSOLODATA")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((words[1], words[2]), ("198656", "260095"), "{line}");
    run(command("e2fsck").args(["-fn", &format!("{}?offset={DATA_AT}", stick.file.display())]));
    let blocks = data(stick, "show_super_stats -h");
    let size: u64 = blocks.lines().find_map(|l| l.strip_prefix("Block count:")).unwrap().trim().parse().unwrap();
    assert_eq!(size * 4096, 30 * MIB);
    assert!(!blocks.contains("needs_recovery"), "{blocks}");
    for (path, text, mode) in [
        ("/cloud-init/user-data", USER_DATA, "0600"),
        ("/cloud-init/network-config", NETWORK, "0600"),
        ("/cloud-init/meta-data", META_DATA, "0600"),
        ("/site/update.conf", "containerd_socket = off\nkubeconfig = off\n", "0644"),
        ("/site/update-keys.d/site.pub", &String::from_utf8(site.key.pem()).unwrap(), "0644"),
    ] {
        assert_eq!(data(stick, &format!("cat {path}")), text);
        let stat = data(stick, &format!("stat {path}"));
        assert!(
            stat.contains(&format!("Mode:  {mode}")) && stat.contains("User:     0   Group:     0"),
            "{path}: {stat}"
        );
    }
    assert!(data(stick, "stat /cloud-init").contains("Mode:  0700"));
    assert!(data(stick, "cat /site/update-keys.d/revoked/list").starts_with("sha256:000"));
}

#[apply(test)]
fn a_stick_has_the_image_and_what_is_the_sites() {
    ready();
    need_all(&["oras", "skopeo", "qemu-img", "cloud-init"]);
    need_python("cloudinit");
    let site = site();
    let stick = Stick::new(site.dir.path(), "stick", STICK);
    let out = site.provision(&stick, &[]).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    for words in ["everything is lost", "cloud-init/user-data", "100 %", "reading back", "it is ready"] {
        assert!(said(&out).contains(words), "{words}: {}", said(&out));
    }
    assert_provisioned(&site, &stick);
    let fresh = guids(&stick.file);
    assert!(fresh.iter().zip(guids(&site.path("image"))).all(|(new, old)| *new != old), "{fresh:?}");
    // The update on it, as other tools and the agent read it.
    let rdump = site.path("rdump");
    fs::create_dir(&rdump).unwrap();
    data(&stick, &format!("rdump /updates /cloud-init {}", rdump.display()));
    let updates = rdump.join("updates");
    let digest = |layout: &Path| {
        run(command("oras").args(["resolve", "--oci-layout"]).arg(format!("{}:stable", layout.display())))
    };
    assert_eq!(digest(&updates), digest(&site.path("layout")));
    run(command("skopeo").args(["inspect", "--raw"]).arg(format!("oci:{}:stable", updates.display())));
    let machine = support::disk::Disk::new(24, 16);
    let root = Root::new(&machine);
    root.configure("signature = off\n");
    root.agent(&["check", "--layout", updates.to_str().unwrap()]).expect(0, &["1.1.0"]);
    // cloud-init itself takes the directory for its seed.
    let read = "import sys; from cloudinit import util; d = util.read_seeded(sys.argv[1] + '/'); print(d[0]['local-hostname'], d[1].decode()[:13])";
    let seeded = run(Command::new(PYTHON).args(["-c", read]).arg(rdump.join("cloud-init")));
    assert_eq!(seeded, "pump-17 #cloud-config\n");
    // Once more, the same stick, from packed images, with the image's own GUIDs.
    run(command("xz").args(["-k", "-1"]).arg(site.path("image")));
    run(Command::new("sh")
        .args(["-c", "gzip -1 <image >image.gz && qemu-img convert -O qcow2 image image.qcow2"])
        .current_dir(site.dir.path()));
    for packed in ["image.xz", "image.gz", "image.qcow2"] {
        run(&mut site.provision(&stick, &["--image", packed, "--keep-guids"]));
        assert_provisioned(&site, &stick);
        assert_eq!(guids(&stick.file), guids(&site.path("image")), "{packed}");
    }
    assert_eq!(stick.loops_upon(), "");
}

#[apply(test)]
fn whoever_gives_no_meta_data_gets_an_instance_of_its_own() {
    ready();
    let site = site();
    let stick = Stick::new(site.dir.path(), "stick", STICK);
    let mut ids = Vec::new();
    for _ in 0..2 {
        run(&mut site.script(&stick.device, &["--user-data", "user-data", "--force", "--yes"]));
        ids.push(data(&stick, "cat /cloud-init/meta-data"));
        assert_eq!(data(&stick, "ls -p /site").trim(), "");
    }
    assert!(ids.iter().all(|id| id.starts_with("instance-id: iid-") && id.len() > 50) && ids[0] != ids[1], "{ids:?}");
}

/// Runs it, and holds that the device is as it was.
#[track_caller]
pub fn hold_refused(stick: &Stick, command: &mut Command, words: &str) {
    hold_ends(stick, command, words, 1);
}

/// The same, with an exit code: 2 is wrong usage.
#[track_caller]
fn hold_ends(stick: &Stick, command: &mut Command, words: &str, code: i32) {
    let before = stick.hash();
    let out = command.output().unwrap();
    assert!(out.status.code() == Some(code) && said(&out).contains(words), "wanted '{words}': {}", said(&out));
    assert!(stick.hash() == before, "{words}: the device was written");
    assert_eq!(stick.loops_upon(), "", "{words}");
}

#[apply(test)]
fn what_is_in_use_too_small_or_not_removable_is_left_alone() {
    ready();
    need("mkswap");
    need("dmsetup");
    let site = site();
    let stick = Stick::new(site.dir.path(), "stick", STICK);
    hold_refused(&stick, &mut site.script(&stick.device, &["--yes"]), "is not removable");
    hold_refused(&stick, &mut site.script(&stick.device, &["--force"]), "there is no terminal to ask at");
    hold_refused(&stick, &mut site.script("/dev/null", &["--force", "--yes"]), "not a block device");
    hold_refused(&stick, &mut site.script("absent", &["--force", "--yes"]), "is not there");
    hold_refused(&stick, &mut site.script("image", &["--force", "--yes"]), "not a block device");
    let small = Stick::new(site.dir.path(), "small", IMAGE_MIB * MIB - 512);
    hold_refused(&small, &mut site.script(&small.device, &["--force", "--yes"]), "too small");
    // Mounted, here and in another namespace; swap; a partition. Read only: the kernel writes to others when it likes.
    let mounted = Stick::new(site.dir.path(), "mounted", STICK);
    run(command("mkfs.ext4").args(["-q", "-F", &mounted.device]));
    let mut hold = Command::new("unshare");
    hold.args([
        "--mount",
        "sh",
        "-euc",
        "mount -o ro,noload \"$1\" \"$2\"; echo mounted; read -r _",
        "sh",
        &mounted.device,
    ]);
    fs::create_dir(site.path("mnt")).unwrap();
    let mut hold = hold.arg(site.path("mnt")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 8];
    std::io::Read::read_exact(hold.stdout.as_mut().unwrap(), &mut line).unwrap();
    hold_refused(&mounted, &mut site.script(&mounted.device, &["--force", "--yes"]), "is in use (mounted at");
    drop(hold.stdin.take());
    hold.wait().unwrap();
    run(site.script(&mounted.device, &["--force", "--yes"]).arg("--dry-run"));
    let table = Stick::new(site.dir.path(), "table", STICK);
    run(&mut site.script(&table.device, &["--force", "--yes"]));
    run(command("partx").args(["-a", &table.device]));
    let part = format!("{}p4", table.device);
    hold_refused(&table, &mut site.script(&part, &["--force", "--yes"]), "not a whole disk");
    run(command("mount").args(["-o", "ro,noload", &part]).arg(site.path("mnt")));
    hold_refused(&table, &mut site.script(&table.device, &["--force", "--yes"]), "is in use (mounted at");
    run(command("umount").arg(site.path("mnt")));
    // A stick that says that it is one needs no --force.
    let flag = site.path("removable");
    fs::write(&flag, "1\n").unwrap();
    let script = site.script(&stick.device, &["--dry-run"]);
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "sh", "-euc", "mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"", "sh"]).arg(&flag);
    inside.arg(format!("/sys/block/{}/removable", stick.name())).arg(script.get_program()).args(script.get_args());
    let before = stick.hash();
    run(inside.current_dir(site.dir.path()));
    assert!(stick.hash() == before);
    // Whatever looks through all disks has a partition open for a moment.
    let gone = || command("partx").args(["-d", &table.device]).output().unwrap().status.success();
    assert!(wait_for(Duration::from_secs(20), gone), "the partitions stay");
}

#[apply(test)]
fn what_must_not_go_onto_a_machine_does_not() {
    ready();
    let site = site();
    let stick = Stick::new(site.dir.path(), "stick", STICK);
    site.write("not-cloud", "hostname: x\n");
    site.write("bad-cloud", "#cloud-config\nhostname: [1, 2]\n");
    site.write("bad.conf", "sserver = https://x.example.com\n");
    site.write("bad-source.conf", "server = ftp://x.example.com\n");
    site.write("loose.conf", "server = https://x.example.com\n");
    fs::create_dir_all(site.path("private")).unwrap();
    fs::copy(site.path("site.key"), site.path("private/oops.pub")).unwrap();
    fs::create_dir_all(site.path("nokeys")).unwrap();
    run(Command::new("cp").arg("-r").arg(site.path("keys")).arg(site.path("badlist")));
    fs::write(site.path("badlist/revoked/list"), "sha256:short\n").unwrap();
    for name in ["private", "nokeys", "badlist"] {
        run(Command::new("chmod").args(["-R", "go-w"]).arg(site.path(name)));
    }
    run(Command::new("chmod").arg("666").arg(site.path("loose.conf")));
    fs::create_dir(site.path("empty")).unwrap();
    fs::rename(site.path("layout"), site.path("both")).unwrap();
    small_layout(&site, &[other_architecture()]);
    fs::rename(site.path("layout"), site.path("other")).unwrap();
    run(Command::new("cp").arg("-r").arg(site.path("both")).arg(site.path("large")));
    fs::File::create(site.path("large/filler")).unwrap().set_len(20 * MIB).unwrap();
    fs::write(site.path("noise"), support::disk::noise(1, 5 << 20)).unwrap();
    let mut packed = run_bytes(Command::new("xz").arg("-c1").arg(site.path("image")));
    let half = packed.len() / 2;
    packed[half] ^= 1;
    fs::write(site.path("damaged.xz"), packed).unwrap();
    fs::write(site.path("cut"), bytes(&site.path("image"), 0, 90 << 20)).unwrap();
    for (args, words) in [
        (&["--user-data", "not-cloud"][..], "its first line"),
        (&["--user-data", "bad-cloud"], "cloud-init's schema"),
        (&["--user-data", "absent"], "absent is not a regular file"),
        (&["--network-config", "network-config"], "wants --user-data"),
        (&["--meta-data", "meta-data"], "wants --user-data"),
        (&["--conf", "bad.conf"], "the agent does not take"),
        (&["--conf", "bad-source.conf"], "the agent does not take"),
        (&["--conf", "loose.conf"], "may write to it"),
        (&["--keys", "private"], "PRIVATE key"),
        (&["--keys", "nokeys"], "no *.pub"),
        (&["--keys", "badlist"], "not a list of what is revoked"),
        (&["--keys", "update.conf"], "is not a directory"),
        (&["--layout", "empty"], "not an OCI image layout"),
        (&["--layout", "other"], "has no update for"),
        (&["--layout", "large"], "of the data partition"),
        (&["--image", "noise"], "not a disk image"),
        (&["--image", "cut"], "not an image of KubeSolo OS"),
        (&["--image", "damaged.xz"], "is damaged"),
        (&["--image", "absent"], "is not a regular file"),
    ] {
        let agent = Root::program();
        let more = [&["--force", "--yes", "--agent", agent.to_str().unwrap()], args].concat();
        hold_refused(&stick, &mut site.script(&stick.device, &more), words);
    }
    let mut bare = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/usb-provision.sh"));
    hold_ends(&stick, &mut bare, "--image is missing", 2);
    hold_ends(&stick, bare.args(["--image"]).arg(site.path("image")), "--device is missing", 2);
    for (args, words) in [(["--yes", "--nonsense"], "unknown option"), (["--yes", "--image"], "needs a value")] {
        hold_ends(&stick, &mut site.script(&stick.device, &args), words, 2);
    }
    // Another disk than ours.
    let foreign = site.path("foreign");
    fs::File::create(&foreign).unwrap().set_len(64 * MIB).unwrap();
    run(command("sgdisk").args(["-n", "1:0:0"]).arg(&foreign));
    hold_refused(
        &stick,
        &mut site.script(&stick.device, &["--force", "--yes", "--image", "foreign"]),
        "not an image of KubeSolo OS",
    );
    let before = stick.hash();
    fs::rename(site.path("both"), site.path("layout")).unwrap();
    let out = site.provision(&stick, &["--dry-run"]).output().unwrap();
    assert!(out.status.success() && said(&out).contains("nothing was written"), "{}", said(&out));
    assert!(stick.hash() == before && !architecture().is_empty() && !BORN.is_empty());
}

fn run_bytes(command: &mut Command) -> Vec<u8> {
    let out = command.output().unwrap();
    assert!(out.status.success());
    out.stdout
}

#[apply(test)]
fn a_person_is_asked() {
    ready();
    need("script");
    let site = site();
    let stick = Stick::new(site.dir.path(), "stick", STICK);
    let program = site.script(&stick.device, &["--force"]);
    let words: Vec<String> = std::iter::once(program.get_program())
        .chain(program.get_args())
        .map(|w| format!("'{}'", w.to_str().unwrap()))
        .collect();
    let typed = |answer: &str| {
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &words.join(" "), "/dev/null"]).current_dir(site.dir.path());
        let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // What is typed before the question waits for it.
        writeln!(terminal.stdin.as_mut().unwrap(), "{answer}").unwrap();
        let out = terminal.wait_with_output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let before = stick.hash();
    for wrong in ["yes", "", "/dev/loop"] {
        let (success, text) = typed(wrong);
        assert!(!success && text.contains("not confirmed"), "{text}");
        assert!(stick.hash() == before);
    }
    let (success, text) = typed(&stick.device);
    assert!(success && text.contains("it is ready"), "{text}");
    assert!(stick.looks_like_a_disk());
}

#[apply(test)]
fn a_stick_that_does_not_keep_what_is_written_never_looks_like_a_disk() {
    ready();
    let site = site();
    // A bit in the middle of a slot; a bit of the table; a bit in a file of the site's.
    for (name, on, at) in
        [("slot", "seek=97 ", 70 * MIB + 12345), ("table", "seek=0 .*count=1 .*bs=512|bs=512 .*seek=0 .*count=1", 600)]
    {
        let stick = Stick::new(site.dir.path(), name, STICK);
        let flipped = site.path(&format!("{name}.flipped"));
        let text = format!(
            "case \"$* \" in *of={device}*) ;; *) exec \"$real\" \"$@\" ;; esac\n\"$real\" \"$@\" || exit\n\
             if printf '%s ' \"$@\" | grep -qE '{on}' && [ ! -e {flag} ]; then : >{flag}\n\
             old=$(\"$real\" if={device} bs=1 skip={at} count=1 status=none | od -An -tu1)\n\
             printf \"\\\\$(printf %03o $((old ^ 1)))\" | \"$real\" of={device} bs=1 seek={at} conv=notrunc,fsync status=none; fi\nexit 0",
            device = stick.device,
            flag = flipped.display(),
        );
        let mut script = site.provision(&stick, &[]);
        before_path(&mut script, &wrap(site.dir.path(), "dd", &text));
        let out = script.output().unwrap();
        assert!(flipped.exists(), "{name}: nothing was flipped: {}", said(&out));
        assert!(
            out.status.code() == Some(1) && said(&out).contains("does not keep what is written"),
            "{name}: {}",
            said(&out)
        );
        assert!(said(&out).contains("half written, and does not boot"), "{}", said(&out));
        assert!(!stick.looks_like_a_disk(), "{name}");
        assert_eq!(stick.loops_upon(), "");
    }
    let stick = Stick::new(site.dir.path(), "file", STICK);
    let flipped = site.path("file.flipped");
    // Between the mount that writes and the one that reads.
    let text = format!(
        "\"$real\" \"$@\" || exit\ncase $* in *'-n'*) [ -e {flag} ] || {{ : >{flag}\n\
         debugfs -w -R 'write /dev/null nothing' {device}?offset={DATA_AT} >/dev/null 2>&1\n\
         debugfs -w -R 'rm /site/update.conf' {device}?offset={DATA_AT} >/dev/null 2>&1; }} ;; esac\nexit 0",
        device = stick.device,
        flag = flipped.display(),
    );
    let mut script = site.provision(&stick, &[]);
    before_path(&mut script, &wrap(site.dir.path(), "e2fsck", &text));
    let out = script.output().unwrap();
    assert!(flipped.exists() && out.status.code() == Some(1), "{}", said(&out));
    assert!(said(&out).contains("KSOLODATA") && !stick.looks_like_a_disk(), "{}", said(&out));
}

#[apply(long_test)]
fn killed_at_any_step_it_is_no_disk_or_a_whole_one() {
    ready();
    let site = site();
    let stick = Stick::new(site.dir.path(), "stick", STICK);
    let (mut killed, mut after) = (0, 0);
    for program in ["dd", "e2fsck", "resize2fs", "unshare", "blockdev", "losetup"] {
        // Of the many calls of dd, each third.
        for n in (1..).step_by(if program == "dd" { 3 } else { 1 }) {
            if !site.killed_at(&stick, program, n) {
                assert_provisioned(&site, &stick);
                break;
            }
            killed += 1;
            if stick.looks_like_a_disk() {
                // Either it had not begun, and the stick is the one of the run before, or it had ended.
                assert_provisioned(&site, &stick);
                after += 1;
            }
            assert!(wait_for(Duration::from_secs(10), || stick.loops_upon().is_empty()), "{program} {n}");
        }
    }
    println!("killed {killed} times, of which {after} left a whole disk");
    assert!(killed > 20 && after < killed / 2, "{killed} {after}");
}
