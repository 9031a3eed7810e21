//! Chunk indexes: the three scripts that publish put one behind each large layer, an independent reader finds it right, and stock tools
//! and releases without any are as before.

use crate::support::delta::pack;
use crate::support::disk::{architecture, build_image, kernel_noise, need_disks, noise};
use crate::support::publish::{Desk, before_path, refused, stderr};
use crate::support::registry::{CHUNKS_TYPE, INITRAMFS_TYPE, KERNEL_TYPE, Registry};
use crate::support::release::sha256;
use crate::support::root::jq;
use crate::support::signing::{Signed, script, sign};
use crate::support::{command, need, need_all, run};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const TOOL: &str = env!("CARGO_BIN_EXE_kubesolo-chunks");
const WITHOUT: &str = "without chunk indexes: machines will fetch each changed kernel or layer as a whole";

fn ready() {
    need_disks();
    need_all(&["docker-registry", "oras", "jq", "flock"]);
}

/// A desk with one release: a kernel and a first layer that are large, a second layer that is small. Returns: the options that name them.
fn desk() -> (Desk, Vec<String>) {
    let desk = Desk::new();
    fs::create_dir(desk.path("www")).unwrap();
    fs::write(desk.path("vmlinuz"), kernel_noise(1, 1_300_001)).unwrap();
    fs::write(desk.path("base.gz"), pack(desk.dir.path(), &noise(2, 1_500_000))).unwrap();
    fs::write(desk.path("agent.gz"), crate::support::disk::initramfs_of(desk.dir.path(), &noise(3, 50_000))).unwrap();
    let words = ["--arch", architecture(), "--kernel", "vmlinuz", "--initramfs", "base.gz", "--initramfs", "agent.gz"];
    (desk, words.map(String::from).to_vec())
}

fn publish(desk: &Desk, name: &str, files: &[String], more: &[&str]) -> Command {
    let mut script = desk.script(name, "1.2.0", &[], more);
    script.args(files).env("KUBESOLO_CHUNKS", TOOL);
    script
}

/// Reads an index by nothing but its description: docs/publishing.md.
#[track_caller]
fn assert_index(index: &[u8], layer: &[u8]) {
    let number = |at: usize, length: usize| {
        index[at..at + length].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)) as usize
    };
    assert_eq!(&index[..8], b"KSCHUNK\x01");
    let (bits, count, size) = (number(8, 4), number(12, 4), number(16, 8));
    assert_eq!((bits, size), (14, layer.len()));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&index[24..56]), sha256(layer));
    assert_eq!(index.len(), 56 + 12 * count);
    assert!(count > 1 && index.len() * 1000 < layer.len(), "{count} chunks, {} bytes", index.len());
    let mut at = 0;
    for n in 0..count {
        let length = number(56 + 12 * n, 4);
        assert!(length <= 65_536 && (length >= 4_096 || n + 1 == count), "{length}");
        assert_eq!(hex(&index[60 + 12 * n..68 + 12 * n]), sha256(&layer[at..at + length])[..16]);
        at += length;
    }
    assert_eq!(at, layer.len());
}

/// Type and digest of each layer of the manifest, in order.
fn layers(manifest: &str) -> Vec<(String, String)> {
    let lines = jq(manifest, "[.layers[] | .mediaType + \" \" + .digest] | join(\"\\n\")");
    lines.lines().map(|line| line.split_once(" sha256:").unwrap()).map(|(a, b)| (a.into(), b.into())).collect()
}

#[apply(test)]
fn each_large_layer_has_its_index_behind_it_and_is_signed_with_it() {
    ready();
    let (desk, files) = desk();
    let registry = Registry::start(desk.dir.path(), None);
    let repository = format!("{}/os", registry.host());
    let key = desk.key.private.to_str().unwrap();
    let options = ["--repository", &repository, "--plain-http", "--tag", "stable", "--key", key];
    let dry = run(publish(&desk, "push-oci-artifact.sh", &files, &options).arg("--dry-run"));
    let pushed = run(&mut publish(&desk, "push-oci-artifact.sh", &files, &options));
    let again = run(&mut publish(&desk, "push-oci-artifact.sh", &files, &options));
    let layout = ["--layout", "layout", "--tag", "stable"];
    let on_stick = run(&mut publish(&desk, "publish-layout.sh", &files, &layout));
    assert_eq!([&dry, &again, &on_stick], [&pushed; 3]);
    let name = format!("{repository}:1.2.0-{}", architecture());
    let manifest = desk.oras(&["manifest", "fetch", "--plain-http", &name]);
    let [kernel, base, agent] = ["vmlinuz", "base.gz", "agent.gz"].map(|name| fs::read(desk.path(name)).unwrap());
    let found = layers(&manifest);
    let types: Vec<&str> = found.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(types, [KERNEL_TYPE, CHUNKS_TYPE, INITRAMFS_TYPE, CHUNKS_TYPE, INITRAMFS_TYPE]);
    for (n, layer) in [(1, &kernel), (3, &base)] {
        assert_eq!(found[n - 1].1, sha256(layer));
        let blob = format!("{repository}@sha256:{}", found[n].1);
        desk.oras(&["blob", "fetch", "--plain-http", "--output", "fetched", &blob]);
        assert_index(&fs::read(desk.path("fetched")).unwrap(), layer);
        assert_index(&fs::read(desk.path("layout/blobs/sha256").join(&found[n].1)).unwrap(), layer);
    }
    assert_eq!(found[4].1, sha256(&agent));
    // Whoever pulls it with oras gets the files, and nothing beside them.
    desk.oras(&["pull", "--plain-http", "-o", desk.path("pulled").to_str().unwrap(), &name]);
    let mut pulled: Vec<_> = fs::read_dir(desk.path("pulled")).unwrap().map(|e| e.unwrap().file_name()).collect();
    pulled.sort();
    assert_eq!(pulled, ["kubesolo-os.gz.01", "kubesolo-os.gz.02", "vmlinuz"]);
    let machine = desk.machine(&format!("registry = {repository}:stable\n"));
    machine.apply(&[]).expect(0, &["1.2.0 is staged"]);
    // Another architecture, published later, leaves this one's entry as it is.
    let other = crate::support::disk::other_architecture();
    desk.prepare("1.2.0");
    run(&mut desk.script("push-oci-artifact.sh", "1.2.0", &[other], &options));
    assert_eq!(desk.oras(&["manifest", "fetch", "--plain-http", &name]), manifest);
    sign(&[&desk.key], Signed::Layout(desk.path("layout:stable").to_str().unwrap()));
    desk.machine("").apply(&["--layout", desk.path("layout").to_str().unwrap()]).expect(0, &["1.2.0 is staged"]);
}

#[apply(test)]
fn latest_json_names_the_indexes() {
    ready();
    need("openssl");
    let (desk, files) = desk();
    let options = ["--dir", "www", "--key", desk.key.private.to_str().unwrap()];
    let digest = run(&mut publish(&desk, "publish-http.sh", &files, &options));
    assert_eq!(run(&mut publish(&desk, "publish-http.sh", &files, &options)), digest);
    let document = fs::read_to_string(desk.path("www/latest.json")).unwrap();
    for name in ["kernel", "initramfs"] {
        let said = |field: &str| jq(&document, &format!(".artifacts[0].{name}.{field}"));
        let (url, index_url) = (said("url"), said("chunks.url"));
        assert_eq!(index_url, format!("{url}.chunks"));
        let [layer, index] = [url, index_url].map(|url| fs::read(desk.path("www").join(url)).unwrap());
        assert_index(&index, &layer);
        assert_eq!((said("chunks.sha256"), said("chunks.size")), (sha256(&index), index.len().to_string()));
    }
    // Published as it is: not again without, and no file is left of the trial.
    let out = publish(&desk, "publish-http.sh", &files, &options).arg("--no-chunks").output().unwrap();
    refused(&out, &["Only the chunk indexes differ", "--no-chunks, if it is there without"]);
}

/// The scripts, with a repository around them in which nothing was built.
fn elsewhere(desk: &Desk, name: &str, files: &[String], more: &[&str]) -> Command {
    let place = desk.path("elsewhere");
    if !place.exists() {
        fs::create_dir(&place).unwrap();
        symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts"), place.join("scripts")).unwrap();
    }
    let mut publish = publish(desk, name, files, more);
    let mut other = Command::new(place.join("scripts").join(name));
    for (name, value) in publish.get_envs() {
        other.env(name, value.unwrap_or_default());
    }
    other.args(publish.get_args()).current_dir(desk.dir.path()).env_remove("KUBESOLO_CHUNKS");
    publish.env_clear();
    let agent = place.join("agent");
    if !agent.exists() {
        fs::create_dir(&agent).unwrap();
        symlink(env!("CARGO_BIN_EXE_kubesolo-update"), agent.join("kubesolo-update")).unwrap();
    }
    other.env("CARGO_TARGET_DIR", desk.path("nothing")).env("KUBESOLO_UPDATE", agent.join("kubesolo-update"));
    other
}

#[apply(test)]
fn the_tool_is_found_beside_the_agent() {
    ready();
    let (desk, files) = desk();
    let layout = ["--layout", "layout", "--tag", "stable", "--dry-run"];
    let release = concat!("kubesolo-chunks-", env!("CARGO_PKG_VERSION"), "-linux-");
    let names = [
        "kubesolo-chunks".into(),
        format!("kubesolo-chunks-{}", architecture()),
        format!("{release}{}", architecture()),
    ];
    for name in names {
        let mut publish = elsewhere(&desk, "publish-layout.sh", &files, &layout);
        let file = desk.path("elsewhere/agent").join(&name);
        symlink(TOOL, &file).unwrap();
        let out = publish.output().unwrap();
        let made = stderr(&out).contains(": kernel, initramfs 1; none for initramfs 2 (below 1 MiB)");
        assert!(out.status.success() && made, "{name}: {}", stderr(&out));
        fs::remove_file(file).unwrap();
    }
}

#[apply(test)]
fn what_has_an_index_is_said() {
    ready();
    let (desk, files) = desk();
    let said = |name: &str, files: &[String], more: &[&str]| {
        let out = publish(&desk, name, files, more).arg("--dry-run").output().unwrap();
        assert!(out.status.success(), "{}", stderr(&out));
        let words = stderr(&out);
        words.lines().filter(|line| line.contains("chunk index")).map(|line| format!("{line}\n")).collect::<String>()
    };
    let layout = ["--layout", "layout", "--tag", "stable"];
    let of = format!("chunk indexes for {}: ", architecture());
    assert_eq!(
        said("publish-layout.sh", &files, &layout),
        format!("publish-layout: {of}kernel, initramfs 1; none for initramfs 2 (below 1 MiB)\n")
    );
    let more = ["--initramfs", "more.gz"].map(String::from);
    fs::write(desk.path("more.gz"), pack(desk.dir.path(), &noise(8, 1_500_000))).unwrap();
    assert_eq!(
        said("publish-layout.sh", &[&files[..], &more].concat(), &layout),
        format!("publish-layout: {of}kernel, initramfs 1, 3; none for initramfs 2 (below 1 MiB)\n")
    );
    assert_eq!(said("publish-http.sh", &files, &["--dir", "www"]), format!("publish-http: {of}kernel, initramfs\n"));
    assert_eq!(said("publish-http.sh", &files, &["--dir", "www", "--no-chunks"]), "");
}

#[apply(test)]
fn a_release_that_has_nothing_of_the_one_before_is_pointed_out() {
    ready();
    let (desk, files) = desk();
    let publish = |version: &str, base: Vec<u8>| {
        fs::write(desk.path("base.gz"), base).unwrap();
        let out = desk
            .script("publish-http.sh", version, &[], &["--dir", "www"])
            .args(&files)
            .env("KUBESOLO_CHUNKS", TOOL)
            .output();
        let out = out.unwrap();
        assert!(out.status.success(), "{}", stderr(&out));
        stderr(&out)
    };
    let packed = |more: &[u8]| pack(desk.dir.path(), &[&noise(2, 1_500_000), more].concat());
    let hint = |version: &str| format!("machines of {} that run {version} would fetch ", architecture());
    let said = [publish("1.1.0", packed(b"old")), publish("1.2.0", packed(b"new")), publish("1.2.0", packed(b"new"))];
    assert!(!said.concat().contains("would fetch"), "{said:?}");
    // The same content, packed without --rsyncable, behind a byte more in front.
    let said = publish(
        "1.3.0",
        crate::support::disk::initramfs_of(desk.dir.path(), &[b"x", &noise(2, 1_500_000)[..]].concat()),
    );
    let advice = "is not packed with gzip -9n --rsyncable, sorted names and fixed times";
    assert!(said.contains(&hint("1.2.0")) && said.contains(advice), "{said}");
}

/// Arguments of kubesolo-chunks that are wrong, and what it says.
const MISUSED: &[(&[&str], &str)] = &[
    (&[], "a command is missing: index or compare"),
    (&["comapre", "base.gz", "agent.gz"], "unknown command: comapre; there are index and compare"),
    (&["compare"], "compare needs OLD and NEW, and no file is given"),
    (&["compare", "base.gz"], "compare needs OLD and NEW, and only base.gz is given"),
    (&["compare", "base.gz", "agent.gz", "vmlinuz"], "compare needs OLD and NEW, and 3 files are given"),
    (&["index"], "index needs one FILE, and no file is given"),
    (&["--verbose"], "unknown option: --verbose"),
];

#[apply(test)]
fn the_tool_says_what_was_typed_wrong_and_what_its_numbers_mean() {
    need("gzip");
    let (desk, _) = desk();
    let tool = |arguments: &[&str]| Command::new(TOOL).args(arguments).current_dir(desk.dir.path()).output().unwrap();
    for (arguments, words) in MISUSED {
        let out = tool(arguments);
        assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert_eq!(stderr(&out), format!("kubesolo-chunks: {words}; kubesolo-chunks --help explains\n"));
    }
    for arguments in [&["--help"][..], &["-h"], &["compare", "--help"], &["index", "-h"]] {
        let out = tool(arguments);
        assert!(out.status.success() && out.stdout.starts_with(b"Usage: ") && out.stderr.is_empty(), "{arguments:?}");
    }
    fs::write(desk.path("new.gz"), pack(desk.dir.path(), &[noise(2, 1_500_000), noise(5, 30_000)].concat())).unwrap();
    let compared = |new: &str| {
        let out = tool(&["compare", "base.gz", new]);
        assert!(out.status.success(), "{}", stderr(&out));
        let text = String::from_utf8(out.stdout).unwrap();
        let lines: Vec<String> = text.lines().map(String::from).collect();
        let numbers: Vec<u64> =
            lines[0].split(' ').map(|word| word.split_once('=').unwrap().1.parse().unwrap()).collect();
        assert!(lines[0].starts_with("fetch=") && numbers.len() == 4, "{text}");
        assert_eq!(numbers[3], fs::metadata(desk.path(new)).unwrap().len());
        assert!(
            lines[1].starts_with("a machine that runs base.gz would fetch ")
                && lines[1].contains(&format!(" of {new} (")),
            "{text}"
        );
        (numbers[0] * 100 / numbers[3], lines[2..].to_vec())
    };
    let (percent, lines) = compared("new.gz");
    assert!(percent < 20 && lines.is_empty(), "{percent} {lines:?}");
    let (percent, lines) = compared("vmlinuz");
    assert!(
        percent > 80 && lines.len() == 1 && lines[0].starts_with("base.gz and vmlinuz have hardly anything in common"),
        "{lines:?}"
    );
}

/// The scripts and the tool call the same files too small.
#[apply(test)]
fn what_is_too_small_is_so_for_both() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/chunks.sh");
    let script = fs::read_to_string(path).unwrap();
    let least = script.lines().find_map(|line| line.strip_prefix("LEAST_CHUNKED=")).unwrap().parse::<usize>().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("layer");
    for (length, is_small) in [(least - 1, true), (least, false)] {
        fs::write(&file, noise(1, length)).unwrap();
        let said = run(Command::new(TOOL).arg("compare").arg(&file).arg(&file));
        assert_eq!(said.contains("is smaller than 1 MiB"), is_small, "{length}: {said}");
    }
}

/// Also what still lay in a buffer when the program ended.
#[apply(test)]
fn a_full_disk_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("layer");
    // So short an index, without the byte that ends a line, is written last of all.
    fs::write(&file, "abc").unwrap();
    let file = file.to_str().unwrap();
    for arguments in [&["index", file][..], &["compare", file, file]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let out = Command::new(TOOL).args(arguments).stdout(full).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&out).contains("standard output: "), "{arguments:?}: {}", stderr(&out));
    }
}

#[apply(test)]
fn without_the_tool_a_release_is_published_without_an_index() {
    ready();
    let (desk, files) = desk();
    for (script, more, place) in [
        ("publish-layout.sh", ["--layout", "layout", "--tag", "stable"], "layout"),
        ("publish-http.sh", ["--dir", "www", "--channel", "stable"], "www"),
    ] {
        for trial in [true, false] {
            let mut publish = elsewhere(&desk, script, &files, &more);
            let out = publish.args(trial.then_some("--dry-run")).output().unwrap();
            assert!(out.status.success(), "{}", stderr(&out));
            assert_eq!(stderr(&out).matches(WITHOUT).count(), 1, "{}", stderr(&out));
            assert!(stderr(&out).contains("make build makes it"));
        }
        let grep = command("grep")
            .args(["-rl", "-e", "chunks.v1", "-e", "KSCHUNK", "-e", "\"chunks\""])
            .arg(desk.path(place))
            .output();
        assert_eq!(String::from_utf8(grep.unwrap().stdout).unwrap(), "");
        // Said to be wanted so: the same bytes, and nothing is said.
        let out = publish(&desk, script, &files, &more).arg("--no-chunks").output().unwrap();
        assert!(stderr(&out).contains("already") && !stderr(&out).contains("without chunk"), "{}", stderr(&out));
    }
    // Of small files nobody says it; what is named and is no tool, or fails, ends the run with nothing written.
    let small = desk.path("small.gz");
    fs::write(&small, crate::support::disk::initramfs_of(desk.dir.path(), &noise(4, 900_000))).unwrap();
    fs::write(desk.path("small"), kernel_noise(4, 1_048_575)).unwrap();
    let words = ["--arch", architecture(), "--kernel", "small", "--initramfs", "small.gz"].map(String::from);
    let mut small = publish(&desk, "publish-layout.sh", &words, &["--layout", "small-layout", "--tag", "stable"]);
    let out = small.env("KUBESOLO_CHUNKS", "/bin/false").output().unwrap();
    assert!(out.status.success() && !stderr(&out).contains("chunk"), "{}", stderr(&out));
    let tool = |name: &str, words: &str| {
        fs::write(desk.path(name), format!("#!/bin/sh\n{words}\nexec {TOOL} \"$@\"\n")).unwrap();
        run(command("chmod").arg("755").arg(desk.path(name)));
        desk.path(name)
    };
    let failing = tool("fails", "[ \"$1\" = --version ] || { echo 'kubesolo-chunks: so' >&2; exit 1; }");
    let lying = tool("lies", "[ \"$1\" = --version ] || set -- index agent.gz");
    for (tool, words) in [
        (Path::new("/bin/false").to_path_buf(), "/bin/false does not run here"),
        (failing, "no chunk index of vmlinuz: so (--no-chunks publishes without)"),
        (lying, "vmlinuz changed while it was read"),
    ] {
        let out = publish(&desk, "publish-layout.sh", &files, &["--layout", "none", "--tag", "t"])
            .env("KUBESOLO_CHUNKS", tool)
            .output()
            .unwrap();
        refused(&out, &[words]);
        assert!(!desk.path("none").exists());
    }
}

#[apply(test)]
fn an_image_knows_the_layers_that_it_is_made_of() {
    ready();
    let (desk, _) = desk();
    let image = |name: &str, more: &[&str]| {
        let mut build = build_image(desk.dir.path(), &desk.path(name), 64, 16);
        build.args(more).current_dir(desk.dir.path()).output().unwrap()
    };
    let out = image("disk", &["--initramfs", "base.gz", "--initramfs", "agent.gz"]);
    assert!(out.status.success(), "{}", stderr(&out));
    let parts = ["born-initramfs", "base.gz", "agent.gz"].map(|name| fs::read(desk.path(name)).unwrap());
    let sector = run(command("sgdisk").args(["-i", "2"]).arg(desk.path("disk")));
    let first = sector.lines().find_map(|line| line.strip_prefix("First sector: ")).unwrap();
    let offset = first.split(' ').next().unwrap().parse::<u64>().unwrap() * 512;
    let file = |name: &str| {
        let out = desk.path("out");
        let disk = format!("{}?offset={offset}", desk.path("disk").display());
        run(command("debugfs").args(["-R", &format!("dump {name} {}", out.display()), &disk]));
        fs::read(out).unwrap()
    };
    assert!(file("/kubesolo-os.gz") == parts.concat());
    let record = String::from_utf8(file("/slot.json")).unwrap();
    for (n, part) in parts.iter().enumerate() {
        let said = jq(&record, &format!(".layers[{n}] | \"\\(.size) \\(.sha256)\""));
        assert_eq!(said, format!("{} {}", part.len(), sha256(part)));
    }
    assert_eq!(jq(&record, ".layers | length"), "3");
    assert_eq!(jq(&record, ".initramfs.size"), parts.concat().len().to_string());
    let out = image("other", &["--initramfs", "base.gz", "--agent", "agent.gz"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("scripts/inject-agent.sh first"), "{}", stderr(&out));
    assert!(!desk.path("other").exists());
}

#[apply(test)]
fn a_gzip_without_rsyncable_packs_all_the_same_and_says_so() {
    need_all(&["cpio", "readelf", "busybox"]);
    let desk = Desk::new();
    let dir = desk.path("busybox");
    fs::create_dir(&dir).unwrap();
    symlink(crate::support::find("busybox").unwrap(), dir.join("gzip")).unwrap();
    fs::write(desk.path("initramfs"), crate::support::disk::initramfs_of(desk.dir.path(), &noise(3, 50_000))).unwrap();
    fs::write(desk.path("agent"), crate::inject::elf(architecture(), false)).unwrap();
    for (plain, output) in [(false, "with"), (true, "without")] {
        let mut inject = script(desk.dir.path(), "inject-agent.sh");
        inject.args(["--initramfs", "initramfs", "--output", output, "--agent", "agent"]);
        if plain {
            before_path(&mut inject, &dir);
        }
        let out = inject.output().unwrap();
        assert!(out.status.success(), "{}", stderr(&out));
        assert_eq!(stderr(&out).matches("packed without --rsyncable").count(), usize::from(plain), "{}", stderr(&out));
        let agent = env!("CARGO_BIN_EXE_kubesolo-update");
        let list = run(Command::new(agent).args(["lint", "--list", "--initramfs"]).arg(desk.path(output)));
        assert!(list.contains("/usr/bin/kubesolo-update\n") && !list.contains("kubesolo-chunks"), "{list}");
    }
}

/// The block of docs/publishing.md that begins so.
fn block(start: &str) -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/publishing.md")).unwrap();
    let (_, rest) = page.split_once(start).unwrap_or_else(|| panic!("no block begins '{start}'"));
    format!("{start}{}", rest.split_once("```").expect("the block ends").0)
}

/// docs/publishing.md, "Only what changed": what a publisher types without the scripts.
#[apply(test)]
fn the_lines_for_stock_tools_make_what_the_scripts_make() {
    ready();
    need("cpio");
    let (desk, _) = desk();
    fs::create_dir_all(desk.path("tree/usr/bin")).unwrap();
    fs::write(desk.path("tree/usr/bin/busybox"), noise(2, 1_500_000)).unwrap();
    let shell = |words: &str| {
        run(command("sh").args(["-euc", words]).current_dir(desk.dir.path()));
    };
    let pack = block("cd tree && find .");
    shell(&pack);
    let packed = fs::read(desk.path("kubesolo-os.gz")).unwrap();
    run(Command::new(env!("CARGO_BIN_EXE_kubesolo-update"))
        .args(["lint", "--initramfs"])
        .arg(desk.path("kubesolo-os.gz")));
    shell("touch tree/usr/bin/busybox tree");
    shell(&pack);
    assert!(fs::read(desk.path("kubesolo-os.gz")).unwrap() == packed, "other times, other bytes");

    let registry = Registry::start(desk.dir.path(), None);
    let push = block("kubesolo-chunks index vmlinuz").replace("registry.example.com", &registry.host());
    let push = push.replace("oras push", "oras push --plain-http");
    let bin = desk.path("bin");
    fs::create_dir(&bin).unwrap();
    symlink(TOOL, bin.join("kubesolo-chunks")).unwrap();
    symlink(crate::support::find("oras").unwrap(), bin.join("oras")).unwrap();
    let mut lines = command("sh");
    lines.args(["-euc", &push]).current_dir(desk.dir.path()).env("HOME", desk.dir.path());
    before_path(&mut lines, &bin);
    run(&mut lines);
    let name = format!("{}/os/kubesolo:1.2.0-amd64", registry.host());
    let found = layers(&desk.oras(&["manifest", "fetch", "--plain-http", &name]));
    let types: Vec<&str> = found.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(types, [KERNEL_TYPE, CHUNKS_TYPE, INITRAMFS_TYPE, CHUNKS_TYPE]);
    for (n, layer) in ["vmlinuz", "kubesolo-os.gz"].into_iter().enumerate() {
        let index = fs::read(desk.path(&format!("{layer}.chunks"))).unwrap();
        assert_eq!(found[2 * n + 1].1, sha256(&index));
        assert_index(&index, &fs::read(desk.path(layer)).unwrap());
    }
}
