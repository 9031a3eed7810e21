//! `scripts/inject-agent.sh`: what it appends, and what it refuses.

use crate::support::disk::{A, B, Disk, architecture, gzip, need_disks, other_architecture};
use crate::support::initramfs_table::{need_table, prepare, script};
use crate::support::{need_all, run};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAp6DknZ5r+YfNK59OozTuJk36bTqGSRuuVVIY7w7kz8o=\n-----END PUBLIC KEY-----\n";

/// An initramfs, an agent that is no more than an ELF header, a configuration, a key and a check.
pub struct Bench {
    pub dir: TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        let tree = bench.path("tree");
        fs::create_dir_all(tree.join("usr/bin")).unwrap();
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("init"), "#!/bin/sh\n").unwrap();
        fs::write(bench.path("initramfs"), bench.archive()).unwrap();
        fs::write(bench.path("agent"), elf(architecture(), false)).unwrap();
        fs::write(bench.path("update.conf"), "signature = off\n").unwrap();
        fs::create_dir(bench.path("keys")).unwrap();
        fs::write(bench.path("keys/site.pub"), PUBLIC).unwrap();
        fs::write(bench.path("20-site"), "#!/bin/sh\n").unwrap();
        for (name, mode) in [("update.conf", 0o644), ("keys", 0o755), ("keys/site.pub", 0o644), ("20-site", 0o755)] {
            bench.chmod(name, mode);
        }
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The tree as a gzip'd cpio archive.
    fn archive(&self) -> Vec<u8> {
        let script = "find . | cpio --quiet -o -H newc";
        let out = Command::new("sh").args(["-c", script]).current_dir(self.path("tree")).output().unwrap();
        assert!(out.status.success());
        gzip(self.dir.path(), &out.stdout)
    }

    pub fn command(&self, output: &str, more: &[&str]) -> Command {
        let mut inject = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/inject-agent.sh"));
        inject.current_dir(self.dir.path()).env_remove("SOURCE_DATE_EPOCH");
        inject.args(["--initramfs", "initramfs", "--agent", "agent", "--output", output]).args(more);
        inject
    }

    #[track_caller]
    pub fn refuses(&self, words: &str, more: &[&str]) {
        let out = self.command("out", more).output().unwrap();
        assert!(!out.status.success(), "{words}");
        assert!(said(&out).contains(words), "'{words}' is missing: {}", said(&out));
        assert!(!self.path("out").exists(), "{words}");
    }
}

pub fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// As much of a program as readelf wants to see.
pub fn elf(architecture: &str, dynamic: bool) -> Vec<u8> {
    let machine: u16 = if architecture == "amd64" { 62 } else { 183 };
    let mut bytes = vec![0; 64 + 56];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16] = 2;
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[20] = 1;
    bytes[32] = 64;
    bytes[52] = 64;
    bytes[54] = 56;
    bytes[56] = 1;
    bytes[64] = if dynamic { 3 } else { 1 };
    bytes
}

pub fn need_tools() {
    need_all(&["cpio", "gzip", "zcat", "readelf"]);
}

#[apply(test)]
fn appends_one_segment_and_touches_nothing_before_it() {
    need_tools();
    let bench = Bench::new();
    let more = ["--conf", "update.conf", "--keys", "keys", "--health-check", "20-site"];
    // Of what is linked into the agent, beside it as `scripts/licenses.sh` puts it there.
    fs::write(bench.path("THIRD-PARTY-LICENSES.txt"), "texts\n").unwrap();
    run(&mut bench.command("out", &more));
    let (before, after) = (fs::read(bench.path("initramfs")).unwrap(), fs::read(bench.path("out")).unwrap());
    assert!(after.starts_with(&before));
    fs::write(bench.path("segment"), &after[before.len()..]).unwrap();

    // Both archives, one behind the other, as the kernel reads them.
    let list = "zcat out | { cpio -t --quiet; cpio -tv --quiet; }";
    let listed = run(Command::new("sh").args(["-c", list]).current_dir(bench.dir.path()));
    assert!(listed.lines().any(|line| line == "init"), "{listed}");
    let list = run(Command::new("sh").args(["-c", "zcat segment | cpio -tv --quiet"]).current_dir(bench.dir.path()));
    let files: Vec<(String, String)> = list
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .inspect(|words| assert_eq!(words[2..4], ["root", "root"], "{words:?}"))
        .map(|words| (words[0].to_string(), words[words.len() - 1].to_string()))
        .filter(|(mode, _)| !mode.starts_with('d'))
        .collect();
    let expected = [
        ("-rw-------", "etc/kubesolo/crontabs/root"),
        ("-rwxr-xr-x", "etc/kubesolo/health.d/20-site"),
        ("-rw-r--r--", "etc/kubesolo/update-keys.d/site.pub"),
        ("-rw-r--r--", "etc/kubesolo/update.conf"),
        ("-rwxr-xr-x", "usr/bin/kubesolo-update"),
        ("-rwxr-xr-x", "usr/bin/kubesolo-update-apply"),
        ("-rwxr-xr-x", "usr/bin/kubesolo-update-boot"),
        ("-rwxr-xr-x", "usr/bin/kubesolo-update-health"),
        ("-rwxr-xr-x", "usr/bin/kubesolo-update-rescue"),
        ("-rw-r--r--", "usr/share/doc/kubesolo-update/LICENSE"),
        ("-rw-r--r--", "usr/share/doc/kubesolo-update/THIRD-PARTY-LICENSES.txt"),
    ];
    assert_eq!(files, expected.map(|(mode, name)| (mode.to_string(), name.to_string())));

    // Twice, and once more on top: the same bytes, and still an initramfs.
    run(&mut bench.command("again", &more));
    assert!(fs::read(bench.path("again")).unwrap() == after);
    run(Command::new("gzip").arg("-t").stdin(fs::File::open(bench.path("out")).unwrap()));
}

#[apply(test)]
fn says_what_it_would_do_and_does_not() {
    need_tools();
    let bench = Bench::new();
    let out = bench.command("out", &["--dry-run", "--conf", "update.conf"]).output().unwrap();
    assert!(out.status.success());
    assert!(said(&out).contains("/etc/kubesolo/update.conf"), "{}", said(&out));
    assert!(!bench.path("out").exists());
}

/// With any of these, an agent takes no update any more, or the publisher's secret is on every machine.
#[apply(test)]
fn refuses_what_would_not_work_or_not_be_safe() {
    need_tools();
    let bench = Bench::new();
    bench.refuses("is for", &["--arch", other_architecture()]);
    bench.refuses("is missing", &["--initramfs", ""]);
    bench.refuses("is not a regular file", &["--conf", "absent"]);
    bench.refuses("not an executable file", &["--health-check", "update.conf"]);
    bench.refuses("unknown option", &["--nonsense"]);
    bench.refuses("is not a program", &["--agent", "update.conf"]);

    bench.chmod("keys/site.pub", 0o666);
    bench.refuses("keys/site.pub: its mode is 666: others than its owner may write it", &["--keys", "keys"]);
    bench.chmod("keys/site.pub", 0o644);
    bench.chmod("keys", 0o777);
    bench.refuses("trust keys: its mode is 777: others than its owner may write it", &["--keys", "keys"]);
    bench.chmod("keys", 0o755);
    fs::write(bench.path("keys/site.pub"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    bench.refuses("PRIVATE", &["--keys", "keys"]);
    fs::remove_file(bench.path("keys/site.pub")).unwrap();
    bench.refuses("no *.pub", &["--keys", "keys"]);

    fs::write(bench.path("agent"), elf(architecture(), true)).unwrap();
    bench.refuses("dynamically linked", &[]);
    fs::write(bench.path("agent"), elf(architecture(), false)).unwrap();

    let whole = fs::read(bench.path("initramfs")).unwrap();
    for (bytes, words) in [
        (b"not gzip".to_vec(), "neither gzip nor cpio"),
        (whole[..whole.len() - 9].to_vec(), "it is cut in its data"),
        (gzip(bench.dir.path(), b"no archive"), "no cpio archive"),
    ] {
        fs::write(bench.path("initramfs"), bytes).unwrap();
        bench.refuses(words, &[]);
    }
    // The segment's own directory would take the link's place.
    fs::remove_dir(bench.path("tree/usr/bin")).unwrap();
    symlink("../bin", bench.path("tree/usr/bin")).unwrap();
    fs::write(bench.path("initramfs"), bench.archive()).unwrap();
    bench.refuses("symbolic link", &[]);
    bench.refuses("has to make /usr/bin a directory", &[]);

    fs::write(bench.path("initramfs"), whole).unwrap();
    fs::write(bench.path("there"), "mine").unwrap();
    let out = bench.command("there", &[]).output().unwrap();
    assert!(!out.status.success() && said(&out).contains("is there already"), "{}", said(&out));
    assert_eq!(fs::read(bench.path("there")).unwrap(), b"mine");
}

/// What lies in an initramfs: a script that makes it (tests/support/initramfs_table.rs), and why the agent cannot be put
/// there; nothing: it can. Each archive counts, the last most, and every spelling of a path.
#[rustfmt::skip]
const PLACES: &[(&str, &str)] = &[
    // A system as distributions make it, with links elsewhere.
    ("cat early.cpio sys.gz", ""),
    ("cat early.cpio; { newc usr 040755 ''; newc usr/bin 040755 ''; newc bin 0120777 usr/bin; newc etc 040755 ''; newc etc/passwd 0100644 x; } | gzip -n", ""),
    // A link in the way, in whichever archive, and however it is spelt.
    ("cat early.cpio; newc usr 0120777 system/usr | gzip -n", "/usr is a symbolic link"),
    ("cat early.cpio; newc etc 0120777 system/etc | gzip -n", "/etc is a symbolic link"),
    ("cat early.cpio sys.gz; newc usr 0120777 x | gzip -n", "/usr is a symbolic link"),
    ("cat sys.cpio early.cpio | gzip -n; newc usr 0120777 x | gzip -n", "/usr is a symbolic link"),
    ("cat sys.gz; align sys.gz; newc usr 0120777 x", "/usr is a symbolic link"),
    ("cat sys.gz; zeros 512; newc ./usr 0120777 x | gzip -n", "/usr is a symbolic link"),
    ("cat sys.gz; newc /usr 0120777 x | gzip -n", "/usr is a symbolic link"),
    ("cat sys.gz; newc .//usr 0120777 x | gzip -n", "/usr is a symbolic link"),
    ("cat sys.gz; newc ../usr 0120777 x | gzip -n", "/usr is a symbolic link"),
    ("{ newc a 040755 ''; newc a/../usr 0120777 x; } | gzip -n", "/usr is a symbolic link"),
    ("{ newc here 0120777 .; newc here/etc 0120777 x; } | gzip -n", "/etc is a symbolic link"),
    ("{ newc usr 040755 ''; newc usr/bin 0120777 ../bin; } | gzip -n", "/usr/bin is a symbolic link"),
    ("{ newc etc 040755 ''; newc etc/kubesolo 0120777 /data; } | gzip -n", "/etc/kubesolo is a symbolic link"),
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/crontabs 0120777 x; } | gzip -n", "/etc/kubesolo/crontabs is a symbolic link"),
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/update-keys.d 0120777 x; } | gzip -n", "/etc/kubesolo/update-keys.d is a symbolic link"),
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/health.d 0120777 x; } | gzip -n", "/etc/kubesolo/health.d is a symbolic link"),
    ("{ links t 5; newc t 0120777 x; links usr 5; } | gzip -n", "/usr is a symbolic link"),
    // A later archive decides.
    ("newc usr 040755 '' | gzip -n; newc usr 0120777 x | gzip -n", "/usr is a symbolic link"),
    ("newc usr 0120777 x | gzip -n; newc usr 040755 '' | gzip -n", ""),
    ("newc usr 0120777 x | gzip -n; { newc x 040755 ''; newc usr/ 040755 ''; } | gzip -n", "/usr is a symbolic link"),
    ("{ newc usr 040755 ''; newc usr/x 0100644 x; } | gzip -n; newc usr 0120777 x | gzip -n", ""),
    // Something else in the way.
    ("newc usr 0100644 x | gzip -n", "/usr is not a directory"),
    ("{ newc etc 040755 ''; newc etc/kubesolo 0100644 x; } | gzip -n", "/etc/kubesolo is not a directory"),
    ("newc usr 010644 '' | gzip -n", "/usr is not a directory"),
    ("{ newc usr 040755 ''; newc usr/bin 040755 ''; newc usr/bin/kubesolo-update 040755 ''; } | gzip -n", "/usr/bin/kubesolo-update is a directory"),
    ("{ newc usr 040755 ''; newc usr/bin 040755 ''; links usr/bin/sh 5; links usr/bin/kubesolo-update-boot 5; } | gzip -n", "/usr/bin/kubesolo-update-boot has other names"),
    ("{ newc usr 040755 ''; newc usr/bin 040755 ''; newc usr/bin/kubesolo-update 0120777 x; newc usr/bin/kubesolo-update-boot 0100644 x; } | gzip -n", ""),
    // What is put there takes its place, and its mode.
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/update-keys.d 040775 ''; } | gzip -n", ""),
    // What machines that boot it would stop at, and be healthy.
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/revocations 040755 ''; } | gzip -n", "trust /etc/kubesolo/revocations: its name says that it revokes something"),
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/how-to-Revoke.txt 0100644 x; } | gzip -n", "trust /etc/kubesolo/how-to-Revoke.txt: its name says"),
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/update-keys.d 040755 ''; newc etc/kubesolo/update-keys.d/revocation-a.pub 0100644 x; } | gzip -n", "revocation-a.pub: its name says that it revokes something"),
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/update-keys.d 040755 ''; newc etc/kubesolo/update-keys.d/revoked 040757 ''; } | gzip -n", "update-keys.d/revoked: its mode is 757"),
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/update-keys.d 040755 ''; newc etc/kubesolo/update-keys.d/revoked 040755 ''; newc etc/kubesolo/update-keys.d/revoked/old 0100666 ''; } | gzip -n", "revoked/old: its mode is 666"),
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/update-keys.d 040755 ''; newc etc/kubesolo/update-keys.d/.stolen 0120777 x; } | gzip -n", ".stolen: neither a file nor the directory `revoked`"),
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/update-keys.d 040755 ''; newc 'etc/kubesolo/update-keys.d/.#a.pub' 0120777 x; newc etc/kubesolo/update-keys.d/b.pub 0100666 x; } | gzip -n", ""),
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/update-keys.d 040755 ''; for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do newc etc/kubesolo/update-keys.d/$n.pub 0100644 x; done; } | gzip -n", "17 key files, where at most 16 are looked at"),
    ("{ newc etc 040755 ''; newc etc/kubesolo 040755 ''; newc etc/kubesolo/update-keys.d 040755 ''; for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do newc etc/kubesolo/update-keys.d/$n.pub 0100644 x; done; newc etc/kubesolo/update-keys.d/site.pub 0100644 x; } | gzip -n", ""),
];

#[apply(test)]
fn nothing_that_is_there_is_lost() {
    need_tools();
    need_table();
    let bench = Bench::new();
    fs::write(bench.path("init"), "#!/bin/sh\n").unwrap();
    prepare(bench.dir.path(), "init\n");
    let more = ["--conf", "update.conf", "--keys", "keys", "--health-check", "20-site"];
    let mut wrong = Vec::new();
    for (make, words) in PLACES {
        fs::write(bench.path("initramfs"), script(bench.dir.path(), make)).unwrap();
        let out = bench.command("out", &more).output().unwrap();
        let as_told = match words.is_empty() {
            true => {
                out.status.success()
                    && fs::read(bench.path("out")).unwrap().starts_with(&fs::read(bench.path("initramfs")).unwrap())
            }
            false => !out.status.success() && said(&out).contains(words) && !bench.path("out").exists(),
        };
        if !as_told {
            wrong.push(format!("{make}: {:?}, not '{words}': {}", out.status.code(), said(&out)));
        }
        let _ = fs::remove_file(bench.path("out"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Kernels want a multiple of four bytes behind an archive that is not compressed; behind gzip, nothing is added.
#[apply(test)]
fn what_is_appended_is_padded_where_kernels_want_it() {
    need_tools();
    need_table();
    let bench = Bench::new();
    fs::write(bench.path("init"), "#!/bin/sh\n").unwrap();
    prepare(bench.dir.path(), "init\n");
    for (make, padding) in [
        ("cat sys.gz; zeros 3", 0),
        ("cat sys.gz; align sys.gz; head -c 70118 m1.cpio", 2),
        ("cat sys.gz; align sys.gz; cat early.cpio; zeros 1", 3),
        ("cat sys.gz; align sys.gz; cat early.cpio", 0),
    ] {
        let before = script(bench.dir.path(), make);
        fs::write(bench.path("initramfs"), &before).unwrap();
        run(&mut bench.command("out", &["--force"]));
        let after = fs::read(bench.path("out")).unwrap();
        let rest = after.strip_prefix(&before[..]).expect("what was there is first");
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        assert_eq!(zeros, padding, "{make}");
        let agent = std::env::var_os("KUBESOLO_UPDATE").unwrap();
        let listed =
            run(Command::new(agent).args(["lint", "--list", "--initramfs", "out"]).current_dir(bench.dir.path()));
        assert!(listed.contains("f\t755\t1\t/usr/bin/kubesolo-update\n"), "{make}: {listed}");
    }
}

#[apply(test)]
fn an_image_can_be_built_from_a_plain_initramfs_in_one_step() {
    need_tools();
    need_disks();
    let bench = Bench::new();
    let more = ["--conf", "update.conf", "--keys", "keys", "--health-check", "20-site"];
    run(bench.command("out", &more).env("SOURCE_DATE_EPOCH", "1700000000"));
    fs::write(bench.path("kernel"), crate::support::disk::kernel_noise(3, 3000)).unwrap();
    let build = |more: &[&str]| {
        let mut build = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-image.sh"));
        build.current_dir(bench.dir.path()).env("SOURCE_DATE_EPOCH", "1700000000");
        build.args(["--no-bootloader", "--kernel", "kernel", "--initramfs", "initramfs", "--version", "1.0.0"]);
        build
            .args(["--arch", architecture(), "--output", "image", "--slot-size", "24", "--data-size", "16"])
            .args(more);
        build
    };
    for (more, words) in [
        (&["--conf", "update.conf"][..], "need --agent"),
        (&["--keys", "keys", "--agent", "kernel"], "kernel is not a program"),
    ] {
        let out = build(more).output().unwrap();
        assert!(!out.status.success() && said(&out).contains(words), "'{words}': {}", said(&out));
        assert!(!bench.path("image").exists());
    }
    fs::write(bench.path("bad.conf"), "layuot = /media/usb/os\n").unwrap();
    let out = build(&["--conf", "bad.conf", "--agent", "agent"]).output().unwrap();
    assert!(!out.status.success() && said(&out).contains("unknown key `layuot`"), "{}", said(&out));
    // What no update would ever reach.
    for (more, words) in [
        (&[][..], "warning: there is no kubesolo-update in initramfs"),
        (&["--agent", "agent"], "warning: there is no public key in /etc/kubesolo/update-keys.d"),
        (&["--agent", "agent", "--keys", "keys"], ""),
        (&["--initramfs", "out"], ""),
    ] {
        let out = build(more).arg("--dry-run").output().unwrap();
        assert!(out.status.success() && said(&out).contains(words), "{more:?}: {}", said(&out));
        assert_eq!(said(&out).matches("warning").count(), usize::from(!words.is_empty()), "{more:?}: {}", said(&out));
    }
    run(build(&more).args(["--agent", "agent"]));
    let expected = fs::read(bench.path("out")).unwrap();
    let image = bench.path("image");
    let disk = Disk::of_image(bench.dir, image, 24, 16);
    for slot in [A, B] {
        assert!(disk.file(slot, "kubesolo-os.gz").unwrap() == expected, "not what inject-agent.sh makes");
    }
}
