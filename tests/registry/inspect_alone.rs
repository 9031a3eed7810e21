//! What only `inspect` says: who signed what there is for whom, what cannot be fetched, what was typed; and that it touches
//! nothing.

use super::inspect::{Bench, GOOD, Row, Shape};
use crate::support::disk::{BORN, architecture};
use crate::support::registry::{Registry, oras};
use crate::support::release::sha256;
use crate::support::root::{Root, Run};
use crate::support::signing::{base64, cosign_sign};
use crate::support::unprivileged::unprivileged;
use crate::support::web::{Answer, Web};
use crate::support::{command, need, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

#[apply(test)]
fn it_says_who_signed_what_there_is_for_whom() {
    let bench = Bench::new();
    need("cosign");
    let row =
        Row { facts: &[("min_compatible_version", "1.0.0"), ("expires", "2099-01-01T00:00:00Z")], by: &[], ..GOOD };
    let reference = bench.publish(&row, "stable");
    let index = run(oras(bench.home()).args(["resolve", "--plain-http", &reference]));
    cosign_sign(bench.home(), &bench.keys[0], &format!("{}@{}", bench.repository(), index.trim()));
    let release = bench.release(&row);
    let key = bench.keys[0].public.to_str().unwrap();
    let found = bench.inspect(&[&reference, "--key", key, "--json"]).expect(0, &[]);
    let parts = "[.result, .would_take, .as, [.artifacts[].architecture], .keys[0].fingerprint]";
    let fingerprint = bench.keys[0].fingerprint();
    let wanted = format!(r#"["authentic",null,null,["amd64","arm64"],"{fingerprint}"]"#);
    assert_eq!(found.jq(parts), wanted);
    for (n, pair) in release.pairs.iter().enumerate() {
        let file = |bytes: &[u8]| {
            format!(r#"[{{"digest":"sha256:{}","size_bytes":{},"chunk_index":null}}]"#, sha256(bytes), bytes.len())
        };
        assert_eq!(found.jq(&format!(".artifacts[{n}].kernel")), file(&pair.kernel));
        assert_eq!(found.jq(&format!(".artifacts[{n}].initramfs")), file(&pair.initramfs));
        assert_eq!(
            found.jq(&format!(".artifacts[{n}] | [.complete, .signed_by[]]")),
            format!(r#"[true,"{fingerprint}"]"#)
        );
        assert_eq!(
            found.jq(&format!(".artifacts[{n}].size_bytes")),
            (pair.kernel.len() + pair.initramfs.len()).to_string()
        );
    }
    let asked = found.jq(".not_asked | join(\" \")");
    for name in ["maintenance_window", "failed_before", "size", "newer", "channel"] {
        assert!(asked.contains(name), "{asked}");
    }
    let words =
        ["2.0.0 for amd64", "2.0.0 for arm64", "by sha256:", "first.pub)", "1.0.0 or later", "2099-01-01", "authentic"];
    bench.inspect(&[&reference, "--key", key]).expect(0, &words);
    // Of one architecture alone there is said that the other one is missing.
    let alone = bench.publish(&Row { shape: Shape::Ours, ..GOOD }, "alone");
    bench.inspect(&[&alone, "--key", key]).expect(0, &["nothing for the other architecture"]);
    // Variables for a shell.
    let shell = bench.inspect(&[&reference, "--key", key, "--as", &format!("{BORN}/arm64"), "--shell"]).expect(0, &[]);
    assert!(shell.stdout.contains("KUBESOLO_WOULD_TAKE='true'\n"), "{}", shell.stdout);
    assert!(shell.stdout.contains("KUBESOLO_ARTIFACTS_0_ARCHITECTURE='arm64'\n"), "{}", shell.stdout);
}

#[apply(test)]
fn what_nobody_vouches_for_does_not_end_well() {
    let bench = Bench::new();
    let reference = bench.publish(&GOOD, "stable");
    let asked = format!("{BORN}/{}", architecture());
    // Shown, and not authentic: whatever is signed there, nobody has looked.
    for args in [&[&*reference, "--json"][..], &[&*reference, "--json", "--as", &asked]] {
        let found = bench.inspect(args).expect(5, &["no --key was given"]);
        assert_eq!(found.jq("[.result, .kind, .artifacts[0].signed_by, .keys]"), r#"["unchecked","signature",[],[]]"#);
        assert_ne!(found.jq(".would_take"), "true");
    }
    bench.inspect(&[&reference, "--as", &asked]).expect(5, &["not checked", "no --key was given", "2.0.0 for"]);
    // Expired as well: who signed it comes first.
    let row = Row { facts: &[("expires", "2020-01-01T00:00:00Z")], ..GOOD };
    bench.inspect(&[&bench.publish(&row, "expired"), "--json"]).expect(5, &["unchecked"]);
    // As a machine that has chosen so.
    let file = |name: &str, text: &[u8]| {
        let path = bench.home().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (off, key) = (file("off.conf", b"signature = off\n"), bench.keys[0].public.display().to_string());
    let found = bench.inspect(&[&reference, "--json", "--as", &asked, "--config", &off]).expect(0, &[]);
    assert_eq!(found.jq(".would_take"), "true");
    // With a key it is asked for all the same; and what is no key is none that counts less.
    let stranger = bench.keys[2].public.display().to_string();
    bench.inspect(&[&reference, "--as", &asked, "--config", &off, "--key", &stranger]).expect(5, &[]);
    let empty = bench.home().join("empty");
    fs::create_dir(&empty).unwrap();
    let private = bench.keys[0].private.display().to_string();
    let noise = file("noise.pub", b"no key\n");
    let text = file("key.txt", &bench.keys[0].pem());
    for (keys, code, words) in [
        (&[&*noise][..], 2, "not one public key"),
        (&[&*key, &*noise], 2, "not one public key"),
        (&[&*private], 2, "PRIVATE"),
        (&["/nonexistent.pub"], 2, "nonexistent.pub"),
        (&[empty.to_str().unwrap()], 5, "no --key"),
        (&[&*stranger], 5, "signed by sha256:"),
        (&[&*stranger, &*key], 0, "first.pub"),
        (&[&*key, &*key], 0, "first.pub"),
        // Named, so it counts, whatever it is called and whoever may write it.
        (&[&*text], 0, "key.txt"),
    ] {
        fs::set_permissions(&text, fs::Permissions::from_mode(0o666)).unwrap();
        let options: Vec<&str> = keys.iter().flat_map(|key| ["--key", key]).collect();
        bench.inspect(&[&[&*reference, "--as", &asked][..], &options].concat()).expect(code, &[words]);
    }
}

#[apply(test)]
fn what_cannot_be_fetched_is_told_before_a_machine_tries() {
    let bench = Bench::new();
    let release = bench.release(&GOOD);
    let key = bench.keys[0].public.display().to_string();
    let reference = bench.publish(&GOOD, "stable");
    let [layout, _] = bench.copy(&reference, "whole");
    let server = bench.serve(&GOOD).unwrap();
    let asked = format!("{BORN}/{}", architecture());
    let hold = |source: &str, code: i32, result: &str, words: &str| {
        let found = bench.inspect(&[source, "--json", "--as", &asked, "--key", &key]).expect(code, &[words]);
        let complete = (code == 0).to_string();
        assert_eq!(
            found.jq("[.result, .artifacts[0].complete, .would_take]"),
            format!(r#"["{result}",{complete},{complete}]"#)
        );
        bench
            .inspect(&[source, "--key", &key])
            .expect(code, &[if code == 0 { "all of it is" } else { "NOT all of it is" }]);
    };
    for source in [&*reference, &*layout, &*server.url("")] {
        hold(source, 0, "accepted", "");
    }
    let hex = sha256(&release.ours().kernel);
    // A copy that broke off, and one whose kernel has another length.
    let blob = Path::new(&layout).join("blobs/sha256").join(&hex);
    fs::write(&blob, &release.ours().kernel[1..]).unwrap();
    hold(&layout, 6, "incomplete", &hex);
    fs::write(&blob, [&release.ours().kernel[..], b"x"].concat()).unwrap();
    hold(&layout, 5, "incomplete", &hex);
    fs::remove_file(&blob).unwrap();
    hold(&layout, 6, "incomplete", &hex);
    // A registry that was cleaned, and a server whose files were not uploaded.
    run(Command::new("find").arg(bench.home()).args(["-path", &format!("*/_layers/sha256/{hex}/link"), "-delete"]));
    run(Command::new("find").arg(bench.home()).args(["-path", &format!("*/sha256/*/{hex}/data"), "-delete"]));
    let registry = Registry::start(bench.home(), None);
    hold(&format!("{}/os:stable", registry.host()), 6, "incomplete", &hex);
    let document = release.latest_json();
    let signature = base64(&bench.keys[0].sign(document.as_bytes()));
    let bare = Web::start(move |path| match path {
        "/latest.json" => Answer::ok(document.clone()),
        "/latest.json.sig" => Answer::ok(signature.clone()),
        _ => Answer::status(404),
    });
    hold(&bare.url(""), 6, "incomplete", "404");
}

#[apply(test)]
fn it_needs_no_root_and_no_machine_and_writes_nothing() {
    let bench = Bench::new();
    need("strace");
    let reference = bench.publish(&GOOD, "stable");
    let [_, tar] = bench.copy(&reference, "copy");
    let server = bench.serve(&GOOD).unwrap();
    let (asked, key) = (format!("{BORN}/{}", architecture()), bench.keys[0].public.display().to_string());
    fs::set_permissions(bench.home(), fs::Permissions::from_mode(0o755)).unwrap();
    for source in [&*reference, &*tar, &*server.url("")] {
        let log = bench.home().join("calls");
        let mut traced = command("strace");
        traced.args(["-f", "-o", log.to_str().unwrap(), "-e", "trace=file,desc"]).arg(Root::program());
        traced.args(["inspect", source, "--as", &asked, "--key", &key]).current_dir(bench.home());
        run(&mut traced);
        let calls = fs::read_to_string(&log).unwrap();
        assert!(calls.contains("first.pub"), "{calls}");
        let others = ["/etc/kubesolo", "/var/lib/kubesolo", "/sys/", "/dev/loop", "/run/", "mount("];
        let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "mkdir", "rename", "unlink"];
        let done = |words: &[&str]| calls.lines().find(|line| words.iter().any(|word| line.contains(word)));
        assert_eq!((done(&others), done(&writes)), (None, None), "{source}");
        let mut agent = bench.command(&[source, "--as", &asked, "--key", &key]);
        agent.env_remove("PATH");
        let run: Run = unprivileged(bench.home(), &agent).output().unwrap().into();
        run.expect(0, &["such a machine would take it"]);
    }
}

#[apply(test)]
fn what_is_typed_wrongly_is_told_by_what_it_was_taken_for() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("ghcr.io/acme/os")).unwrap();
    fs::create_dir_all(dir.path().join("layout")).unwrap();
    fs::write(dir.path().join("latest.json"), "{}").unwrap();
    for (args, code, words) in [
        (&["--json"][..], 2, "source"),
        (&["ghcr.io/acme/os", "--json"], 2, "write ./ before it, or oci://"),
        (&["./ghcr.io/acme/os", "--json"], 6, "layout"),
        (&["layot", "--json"], 2, "no such file"),
        (&["./layout:stable", "--json"], 2, "--tag"),
        (&["oci-archive:layout", "--json"], 2, "--tag"),
        (&["./nothing.tar", "--json"], 6, "open layout ./nothing.tar"),
        (&["latest.json", "--json"], 6, "name the directory that holds index.json"),
        (&["docker://ghcr.io/acme/os", "--json"], 2, "another kind than http, https and oci"),
        (&["registry.example.com/OS", "--json"], 2, "read OCI reference"),
        (&["oci://registry.example.com", "--json"], 2, "no repository"),
        (&["https://updates.example.com", "--tag", "x", "--json"], 2, "use --tag x: the source is an HTTP server"),
        (&["./layout", "--as", "1.0.0/x86_64", "--json"], 2, "write amd64 or arm64"),
        (&["./layout", "--as", "1.0.0", "--json"], 2, "no architecture"),
        (&["./layout", "--config", "./none.conf", "--json"], 2, "none.conf"),
        (&["./layout", "--kee", "x", "--json"], 2, "did you mean --key"),
    ] {
        let mut agent = Command::new(Root::program());
        agent.env_clear().current_dir(dir.path()).arg("inspect").args(args);
        let run = Run::from(agent.output().unwrap()).expect(code, &[words]);
        assert_eq!(run.jq("[.command, .result, .exit_code]"), format!(r#"["inspect","error",{code}]"#));
    }
}
