//! `scripts/split-initramfs.sh`: the layers, unpacked one after the other, are the tree that the whole is; what no kernel would unpack so
//! is refused.

use crate::support::publish::stderr;
use crate::support::signing::script;
use crate::support::{PYTHON, command, need_all, run};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A tree with all that an initramfs has; `$1` is what the agent's binary says. The owner of one file is somebody's.
const TREE: &str = r#"
    mkdir -p tree && cd tree && mkdir -p usr/bin usr/lib/modules etc/kubesolo/update-keys.d dev opt/kubesolo/bin var/empty
    head -c 300000 /dev/urandom >usr/bin/busybox && ln -f usr/bin/busybox usr/bin/sh && ln -f usr/bin/busybox opt/kubesolo/bin/sh
    ln -sfn usr/bin bin && echo init >init && chmod 755 init usr/bin/busybox
    head -c 200000 /dev/urandom >usr/bin/containerd && head -c 9000 /dev/urandom >usr/bin/kubesolo
    echo "$1" >usr/bin/kubesolo-update && chmod 4750 usr/bin/kubesolo-update && : >'usr/lib/with a space'
    echo 'registry = h.example/os' >etc/kubesolo/update.conf && echo other >etc/hostname && chown 7:8 etc/hostname
    mknod dev/null c 1 3; mknod dev/disk b 8 1; mkfifo dev/fifo
"#;
/// Sorted by nothing, as `find` gives it.
const PACK: &str = "cd tree && find . -mindepth 1 | cpio -o -H newc --quiet | gzip -9n >../whole";

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Bench {
        need_all(&["cpio", "gzip", "mknod", PYTHON]);
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        bench.shell(TREE, "agent");
        bench.shell(PACK, "");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn shell(&self, words: &str, argument: &str) -> String {
        run(Command::new("sh").args(["-euc", words, "sh", argument]).current_dir(self.dir.path()))
    }

    fn split(&self, output: &str, more: &[&str]) -> Output {
        script(self.dir.path(), "split-initramfs.sh").args(["--output", output]).args(more).output().unwrap()
    }

    /// Splits it. Returns: the layers that the script prints.
    #[track_caller]
    fn layers(&self, output: &str, more: &[&str]) -> Vec<String> {
        let out = self.split(output, more);
        assert!(out.status.success(), "{}", stderr(&out));
        String::from_utf8(out.stdout).unwrap().lines().map(str::to_string).collect()
    }

    /// What stands in archives, one unpacked over the other by GNU cpio: kind, mode, owner, size, device, links, names, content.
    fn unpacked(&self, name: &str, archives: &[String]) -> String {
        fs::create_dir(self.path(name)).unwrap();
        for archive in archives {
            self.shell(&format!("cd {name} && zcat ../'{archive}' | cpio -idu --quiet --no-absolute-filenames"), "");
        }
        let list = "cd \"$1\" && find . -mindepth 1 -printf '%P %y %m %U:%G %n %l\\n' | LC_ALL=C sort
            find . -type f -exec sha256sum {} + | LC_ALL=C sort
            find . -type c -exec stat -c '%n %t %T' {} + ; find . -type b -exec stat -c '%n %t %T' {} +
            stat -c %i usr/bin/busybox usr/bin/sh opt/kubesolo/bin/sh | sort -u | wc -l";
        self.shell(list, name)
    }

    fn listed(&self, archive: &str) -> Vec<String> {
        let list = self.shell("zcat \"$1\" | cpio -t --quiet", archive);
        list.lines().map(str::to_string).collect()
    }
}

#[apply(test)]
fn the_layers_together_are_the_whole() {
    let bench = Bench::new();
    let layers = bench.layers("out", &["whole"]);
    assert_eq!(layers, ["out/base.gz", "out/kubesolo.gz", "out/agent.gz", "out/config.gz"]);
    let (whole, parts) = (bench.unpacked("one", &["whole".into()]), bench.unpacked("many", &layers));
    assert!(whole.ends_with("\n1\n") && whole.contains("usr/bin/kubesolo-update f 4750 0:0 1"), "{whole}");
    assert!(whole.contains("etc/hostname f 644 7:8 1") && whole.contains("dev/disk 8 1"), "{whole}");
    assert_eq!(whole, parts);
    // Nothing is there twice, and each is where it belongs. A directory is with the first that needs it.
    let lists: Vec<Vec<String>> = layers.iter().map(|layer| bench.listed(layer)).collect();
    let mut all = lists.concat();
    all.sort();
    let mut names = bench.listed("whole");
    names.sort();
    assert_eq!(all, names);
    assert!(lists.iter().all(|list| list.is_sorted()), "{lists:?}");
    assert_eq!(lists[1], ["usr/bin/containerd", "usr/bin/kubesolo"]);
    assert_eq!(lists[2], ["usr/bin/kubesolo-update"]);
    assert_eq!(lists[3], ["etc/kubesolo", "etc/kubesolo/update-keys.d", "etc/kubesolo/update.conf"]);
    // All names of a file are in one layer, whatever the table says of them.
    assert!(
        ["usr/bin/busybox", "usr/bin/sh", "opt/kubesolo/bin/sh"]
            .iter()
            .all(|name| lists[0].contains(&name.to_string()))
    );
    // As machines judge them, each and all; one gzip member each, without a name and a time.
    let agent = env!("CARGO_BIN_EXE_kubesolo-update");
    for some in layers.chunks(1).chain([&layers[..]]) {
        let mut lint = Command::new(agent);
        run(lint.arg("lint").args(some.iter().flat_map(|one| ["--initramfs", one])).current_dir(bench.dir.path()));
    }
    for layer in &layers {
        assert_eq!(fs::read(bench.path(layer)).unwrap()[3..8], [0; 5], "{layer}");
    }
}

#[apply(test)]
fn the_same_again_is_the_same_and_a_new_agent_is_another_layer_only() {
    let bench = Bench::new();
    let read = |layers: &[String]| layers.iter().map(|one| fs::read(bench.path(one)).unwrap()).collect::<Vec<_>>();
    let first = read(&bench.layers("first", &["whole"]));
    // Another order, other times and inodes.
    bench.shell("cp -a tree copy && cd copy && find . -exec touch -h {} + && find . -mindepth 1 | sort -r | sort -s -t/ -k1,1 |
        awk '{ print gsub(\"/\", \"/\"), $0 }' | sort -s -n -k1,1 | cut -d' ' -f2- | cpio -o -H newc --quiet | gzip -1 >../shuffled", "");
    assert_ne!(fs::read(bench.path("shuffled")).unwrap(), fs::read(bench.path("whole")).unwrap());
    assert!(read(&bench.layers("again", &["shuffled"])) == first);
    // A tree is the same as its archive.
    assert!(read(&bench.layers("tree-out", &["tree"])) == first);
    // In two members, the second with a new agent, and an archive in front as microcode is.
    bench.shell(
        "mkdir -p more/usr/bin && echo newer >more/usr/bin/kubesolo-update && chmod 755 more/usr/bin/kubesolo-update
        cd more && echo usr/bin/kubesolo-update | cpio -o -H newc --quiet | gzip -n >../second && cd ..
        mkdir -p early/kernel/x86/microcode && echo code >early/kernel/x86/microcode/GenuineIntel.bin
        cd early && find . -mindepth 1 | cpio -o -H newc --quiet >../front && cd .. && cat front whole second >three",
        "",
    );
    let layers = bench.layers("new", &["three"]);
    let new = read(&layers);
    let front = fs::read(bench.path("front")).unwrap();
    assert!(new[0] == [&front[..], &first[0]].concat(), "the microcode is not in front of all");
    assert!(new[1] == first[1] && new[2] != first[2] && new[3] == first[3]);
    assert_eq!(bench.shell("zcat \"$1\" | cpio -i --quiet --to-stdout usr/bin/kubesolo-update", &layers[2]), "newer\n");
    // A date of one's own.
    let mut dated = script(bench.dir.path(), "split-initramfs.sh");
    run(dated.args(["--output", "dated", "whole"]).env("SOURCE_DATE_EPOCH", "86400"));
    assert!(bench.shell("zcat dated/agent.gz | TZ=UTC cpio -tv --quiet", "").contains("Jan  2  1970"));
}

#[apply(test)]
fn a_table_of_ones_own_and_layers_that_are_there() {
    let bench = Bench::new();
    fs::write(bench.path("table"), "rest *\ndevices dev   # and what lies below\nshells usr/bin/?h\nlibs usr/l*\n")
        .unwrap();
    let options = ["--layers", "table", "tree"];
    let dry = bench.layers("out", &[&options[..], &["--dry-run"]].concat());
    assert!(!bench.path("out").exists());
    let layers = bench.layers("out", &options);
    assert_eq!(layers, dry);
    // The names of one file go with the first of them.
    assert_eq!(layers, ["out/rest.gz", "out/devices.gz", "out/libs.gz"]);
    assert_eq!(bench.listed("out/devices.gz"), ["dev", "dev/disk", "dev/fifo", "dev/null"]);
    let out = bench.split("out", &options);
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("out/rest.gz is there already (--force replaces it)"), "{}", stderr(&out));
    fs::write(bench.path("out/rest.gz"), "damaged").unwrap();
    fs::write(bench.path("out/others.gz"), "another's").unwrap();
    assert_eq!(bench.layers("out", &[&options[..], &["--force"]].concat()), layers);
    assert!(fs::metadata(bench.path("out/rest.gz")).unwrap().len() > 100_000);
    assert_eq!(fs::read(bench.path("out/others.gz")).unwrap(), b"another's");
    for (table, words) in [
        ("", "0 layers"),
        ("one\n", "line 1: a layer"),
        ("a *\nB/c *\n", "line 2: a layer"),
        (&(0..17).map(|n| format!("l{n} *\n")).collect::<String>(), "17 layers"),
    ] {
        fs::write(bench.path("table"), table).unwrap();
        let out = bench.split("none", &options);
        assert!(!out.status.success() && stderr(&out).contains(words), "{}", stderr(&out));
    }
    assert!(!bench.path("none").exists());
}

/// What is wrong ends in the script's own words, before it says that something was written.
#[apply(test)]
fn what_is_wrong_is_said_in_its_own_words() {
    let bench = Bench::new();
    let refused = |out: Output, words: &str| {
        let said = stderr(&out);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "no '{words}': {said}");
        assert!(!said.contains("Traceback") && !said.contains(" files, ") && out.stdout.is_empty(), "{said}");
    };
    fs::write(bench.path("table"), b"base *\nold usr/\xe9*\n").unwrap();
    refused(
        bench.split("out", &["--layers", "table", "tree"]),
        "split-initramfs: error: table: it is not text (UTF-8)",
    );
    let dated = |seconds: &str| {
        let mut split = script(bench.dir.path(), "split-initramfs.sh");
        split.args(["--output", "out", "whole"]).env("SOURCE_DATE_EPOCH", seconds).output().unwrap()
    };
    refused(
        dated("4294967296"),
        "SOURCE_DATE_EPOCH is 4294967296, and cpio has 32 bits for a time: at most 4294967295",
    );
    refused(dated("99999999999999999999"), "at most 4294967295");
    assert!(!bench.path("out").exists());
    assert!(dated("4294967295").status.success());
    let out = bench.split("whole/out", &["whole"]);
    refused(out, "split-initramfs: error: cannot make the directory whole/out: Not a directory");
}

#[apply(test)]
fn a_layer_of_an_earlier_run_is_named() {
    let bench = Bench::new();
    let stale = "out/config.gz is not of this run, which has nothing for that layer";
    let first = bench.split("out", &["whole"]);
    assert!(first.status.success() && !stderr(&first).contains("not of this run"), "{}", stderr(&first));
    fs::remove_dir_all(bench.path("tree/etc/kubesolo")).unwrap();
    fs::write(bench.path("out/others.gz"), "another's").unwrap();
    for more in ["--force", "--dry-run"] {
        let out = bench.split("out", &["--force", more, "tree"]);
        assert!(out.status.success() && bench.path("out/config.gz").exists(), "{}", stderr(&out));
        assert_eq!(stderr(&out).matches("not of this run").count(), 1, "{}", stderr(&out));
        assert!(stderr(&out).contains(stale) && !stderr(&out).contains("others.gz"), "{}", stderr(&out));
    }
    // The agent's layer is one file in two directories.
    assert!(stderr(&first).contains("bytes, 1 file, "), "{}", stderr(&first));
}

#[apply(test)]
fn a_gzip_without_rsyncable_is_named_once() {
    crate::support::need("busybox");
    let bench = Bench::new();
    fs::create_dir(bench.path("busybox")).unwrap();
    std::os::unix::fs::symlink(crate::support::find("busybox").unwrap(), bench.path("busybox/gzip")).unwrap();
    let mut split = script(bench.dir.path(), "split-initramfs.sh");
    crate::support::publish::before_path(&mut split, &bench.path("busybox"));
    let out = split.args(["--output", "out", "whole"]).output().unwrap();
    assert!(out.status.success() && out.stdout.len() > 40, "{}", stderr(&out));
    assert_eq!(stderr(&out).matches("without --rsyncable").count(), 1, "{}", stderr(&out));
}

/// Python that makes what no tool would: `add(name, mode, ino, links, body)` writes an entry of cpio.
const ENTRIES: &str = r#"
import gzip, sys
out = b""
def add(name, mode=0o100644, ino=1, links=1, body=b"x", magic=b"070701"):
    global out
    name = name.encode() + b"\0"
    fields = (ino, mode, 0, 0, links, 0, len(body), 0, 0, 0, 0, len(name), 0)
    out += magic + b"".join(b"%08x" % f for f in fields) + name
    out += b"\0" * (-len(out) % 4)
    out += body + b"\0" * (-len(body) % 4)
def end(): add("TRAILER!!!", 0, 0, 1, b"")
"#;

/// What is added, and why it is refused: by the agent, which says it first, or by the splitter.
const REFUSED: &[(&str, &str)] = &[
    ("add('../out'); end()", "../out"),
    ("add('a/../../out'); end()", "out"),
    ("add('/out'); end()", "/out"),
    ("add('a/b'); end()", "/a"),
    ("add('a', 0o120777, body=b'dev'); add('a/b'); end()", "/a"),
    ("add('a', 0o100644); add('a/b'); end()", "/a"),
    ("add('a', links=2); add('b', links=2, body=b''); end(); add('a', body=b'other'); end()", "/a"),
    ("add('a')", "cut short"),
    ("add('a', magic=b'070707'); end()", ""),
];

#[apply(test)]
fn what_no_kernel_would_unpack_so_is_refused_and_nothing_is_written() {
    let bench = Bench::new();
    for (entries, words) in REFUSED {
        let python = format!("{ENTRIES}{entries}\nopen('bad', 'wb').write(gzip.compress(out, mtime=0))");
        run(command(PYTHON).args(["-c", &python]).current_dir(bench.dir.path()));
        let before = bench.shell("find . | sort", "");
        let out = bench.split("out", &["bad"]);
        assert_eq!(out.status.code(), Some(1), "{entries}: {}", stderr(&out));
        assert!(stderr(&out).contains("error: ") && stderr(&out).contains(words), "{entries}: {}", stderr(&out));
        assert_eq!(bench.shell("find . | sort", ""), before, "{entries}");
        // The splitter alone, whoever has let it pass.
        let alone = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lib/split-initramfs.py");
        let table = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lib/layers.txt");
        fs::create_dir_all(bench.path("alone")).unwrap();
        let mut split = command(PYTHON);
        split.args(["-I", "-B", alone, "bad", table, "0", "alone"]).current_dir(bench.dir.path());
        let out = split.output().unwrap();
        assert!(!out.status.success() && stderr(&out).starts_with("bad: "), "{entries}: {}", stderr(&out));
        assert_eq!(fs::read_dir(bench.path("alone")).unwrap().count(), 0);
        fs::remove_dir(bench.path("alone")).unwrap();
    }
    for (bytes, words) in
        [(&b"no archive, however long".repeat(9)[..], "neither gzip nor cpio"), (&b"\x1f\x8b"[..], "look through")]
    {
        fs::write(bench.path("bad"), bytes).unwrap();
        let out = bench.split("out", &["bad"]);
        assert!(!out.status.success() && stderr(&out).contains(words), "{}", stderr(&out));
    }
}
