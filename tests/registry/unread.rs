//! What lies there and is not read: archives of a layout in other formats, and entries of `config.json` that are no concern of
//! the registry that is asked; as real tools write them.

use crate::support::disk::need_disks;
use crate::support::pull::{AUTH_FILE, machine, publish, put};
use crate::support::registry::{Registry, Settings, oras};
use crate::support::release::{Medium, Release};
use crate::support::token_server::{PASSWORD, USER};
use crate::support::{command, need_all, run};
use kubesolo_update::parts::base::base64;
use std::fs;
use std::process::Command;

#[apply(test)]
fn an_archive_that_is_not_read_is_named() {
    need_disks();
    need_all(&["oras", "tar", "zstd", "xz", "bzip2", "zip", "lz4", "cpio"]);
    let dir = tempfile::tempdir().unwrap();
    let medium = Medium::new(dir.path(), &Release::new("2.0.0"));
    let machine = machine("", None);
    let pack = "pack the layout with `tar -C LAYOUT -czf FILE .`";
    // What a shell makes of the layout that it stands in; FILE is the file.
    for (make, words) in [
        ("tar -cf - . | zstd -q >FILE", &["it is a zstd file; ", pack][..]),
        ("tar -cJf FILE .", &["it is an xz file; ", pack]),
        ("tar -cjf FILE .", &["it is a bzip2 file; ", pack]),
        ("tar -cf - . | lz4 -q >FILE", &["it is an lz4 file; ", pack]),
        ("tar -cf - . | xz --format=lzma >FILE", &["it is an lzma file; ", pack]),
        ("zip -qr FILE.zip . && mv FILE.zip FILE", &["it is a zip file; ", pack]),
        ("find . | cpio -oH newc --quiet >FILE", &["it is a cpio archive; ", pack]),
        ("cp index.json FILE", &["it is a JSON document; ", "name the directory that holds index.json"]),
        ("echo '<html>sign in</html>' >FILE", &["it is an HTML or XML document; ", pack]),
        (": >FILE", &["it is empty"]),
        ("head -c 2000 /dev/zero | tr '\\0' x >FILE", &["not a tar archive, or one of its headers is damaged"]),
        ("tar -cf FILE .", &[]),
        ("tar -czf FILE .", &[]),
        ("tar -cf - . | gzip -1 >FILE", &[]),
    ] {
        let file = dir.path().join("archive");
        let made = make.replace("FILE", file.to_str().unwrap());
        run(Command::new("sh").args(["-ec", &made]).current_dir(&medium.dir));
        let code = if words.is_empty() { 0 } else { 6 };
        machine.root.agent(&["check", "--layout", file.to_str().unwrap()]).expect(code, words);
    }
}

#[apply(test)]
fn the_entry_of_another_host_stops_nothing() {
    need_disks();
    need_all(&["docker-registry", "oras", "htpasswd"]);
    let dir = tempfile::tempdir().unwrap();
    publish(dir.path(), &Release::new("2.0.0"));
    let users = dir.path().join("htpasswd");
    fs::write(&users, run(command("htpasswd").args(["-Bbn", USER, PASSWORD]))).unwrap();
    let extra = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", users.display());
    let registry = Registry::start_with(dir.path(), &Settings { extra: &extra, ..Settings::default() });
    let host = registry.host();
    let good = format!("{{\"auth\":\"{}\"}}", base64::encode(format!("{USER}:{PASSWORD}").as_bytes()));
    let conf = format!("registry = {host}/os:v1\nauth_file = {AUTH_FILE}\nretries = 0\n");
    let machine = machine(&conf, None);
    for (other, remark) in [
        ("null", ""),
        ("{}", ""),
        ("\"text\"", ""),
        ("[1]", ""),
        (r#"{"auth":"no base64!"}"#, ""),
        (r#"{"auth":7}"#, ""),
        (r#"{"registrytoken":"x"}"#, "has a registrytoken, which is not read"),
    ] {
        let file =
            format!(r#"{{"auths":{{"other.example":{other},"{host}":{good}}},"credHelpers":{{"x.example":null}}}}"#);
        put(&machine, "config.json", &file, 0o600);
        let run = machine.root.agent(&["check"]).expect(0, &["an update is available", remark]);
        assert_eq!(run.stderr.is_empty(), remark.is_empty(), "{}", run.stderr);
        // A real oras takes what is of the right shape, too.
        if other.starts_with('{') && !other.contains('7') {
            fs::write(dir.path().join("config.json"), &file).unwrap();
            let mut resolve = oras(dir.path());
            resolve.args(["resolve", "--plain-http", "--registry-config", "config.json", &format!("{host}/os:v1")]);
            crate::support::run(&mut resolve);
        }
    }
    // Its own entry is another matter: named, and no secret shown.
    for (own, code, words) in [
        (r#"{"auth":"no base64!"}"#.to_owned(), 2, &["the entry '", "'auth' is not base64"][..]),
        ("\"text\"".to_owned(), 2, &["it is not an object with `auth` in it"]),
        ("null".to_owned(), 6, &["answered 401"]),
        (r#"{"registrytoken":"hunter2"}"#.to_owned(), 6, &["has a registrytoken, which is not read: write `auth`"]),
    ] {
        put(&machine, "config.json", format!(r#"{{"auths":{{"{host}":{own}}}}}"#), 0o600);
        let run = machine.root.agent(&["check"]).expect(code, words);
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    }
    put(&machine, "config.json", format!(r#"{{"auths":{{"{host}/os:v1":{good}}}}}"#), 0o600);
    machine.root.agent(&["check"]).expect(6, &["names a tag or a digest, and so fits no repository", "answered 401"]);
}
