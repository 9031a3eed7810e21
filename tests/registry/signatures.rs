//! Who must have signed, by the program itself: what a real cosign and openssl sign, in registries with and without a
//! referrers API and in layouts; what is wrong with signatures, and what comes of it.
//!
//! Longer than other files: two tables, and the same table of states for `latest.json`, belong together.

use crate::support::disk::{B, architecture, need_disks, other_architecture};
use crate::support::ferro::Ferro;
use crate::support::machine::{Left, Machine};
use crate::support::pull::put;
use crate::support::registry::oras;
use crate::support::release::{Release, Target};
use crate::support::root::{Run, jq};
use crate::support::signed::Column;
use crate::support::signed::On::{Index, Ours, Theirs};
use crate::support::signed::Who::{Right, Second, Stranger, Third};
use crate::support::signed::{INDEX_TYPE, MANIFEST_TYPE, descriptor, digest, list, listed, put_blob, referrer};
use crate::support::signed::{Scene, Trust, Who, World, configure, install, release, small};
use crate::support::signing::{BUNDLE_TYPE, Forge, KeyPair, attach, base64};
use crate::support::web::{Answer, Web};
use crate::support::{self, command, need, need_all, run};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

fn ready() {
    let tools = ["openssl", "oras", "cosign", "docker-registry", "ferro-oci-server", "jq"];
    need_disks();
    need_all(&tools);
}

const RIGHT: Trust = Trust { installed: &[Right], revoked: &[], threshold: 1 };
const SECOND: Trust = Trust { installed: &[Second], ..RIGHT };
const REVOKED: Trust = Trust { installed: &[Right, Second], revoked: &[Right], threshold: 1 };
const TWO: Trust = Trust { installed: &[Right, Second], revoked: &[], threshold: 2 };
const TWO_OF_THREE: Trust = Trust { installed: &[Right, Second, Third], revoked: &[Right], threshold: 2 };

/// A row of the matrix.
struct Row {
    name: &'static str,
    trust: Trust,
    sign: fn(&Scene),
    /// Exit code of `check` and of `apply`.
    code: i32,
    words: &'static [&'static str],
    /// Who has signed it, where that is enough.
    by: &'static [Who],
}

fn good(name: &'static str, trust: Trust, by: &'static [Who], sign: fn(&Scene)) -> Row {
    Row { name, trust, sign, code: 0, words: &[], by }
}

fn bad(name: &'static str, trust: Trust, words: &'static [&'static str], sign: fn(&Scene)) -> Row {
    Row { name, trust, sign, code: 5, words, by: &[] }
}

/// What a real cosign signs, and who may have.
fn rows_of_cosign() -> Vec<Row> {
    vec![
        bad("unsigned", RIGHT, &["it is not signed"], |_| {}),
        good("right key, on the index", RIGHT, &[Right], |s| s.cosign(Index, Right)),
        good("right key, on the manifest", RIGHT, &[Right], |s| s.cosign(Ours, Right)),
        bad("wrong key", RIGHT, &["signed by sha256:", "not installed"], |s| s.cosign(Index, Stranger)),
        bad("revoked key", REVOKED, &["signed by sha256:", "Right.pub, revoked"], |s| s.cosign(Index, Right)),
        bad("over the other architecture's manifest", RIGHT, &["it is not signed"], |s| s.cosign(Theirs, Right)),
        good("two keys of two", TWO, &[Right, Second], |s| {
            s.cosign(Index, Right);
            s.attach(Index, s.forge(Index, &[Second]).bundle());
        }),
        bad("one key twice", TWO, &["2 keys must have signed it, and only sha256:", "Right.pub"], |s| {
            s.cosign(Index, Right);
            s.cosign(Index, Right);
        }),
        bad("Ed25519 by cosign", SECOND, &["Ed25519ph", "sign with P-256"], |s| s.cosign(Index, Second)),
    ]
}

/// What openssl signs.
fn rows_of_openssl() -> Vec<Row> {
    vec![
        good("Ed25519, on the index", SECOND, &[Second], |s| s.attach(Index, s.forge(Index, &[Second]).bundle())),
        good("Ed25519, on the manifest", SECOND, &[Second], |s| s.attach(Ours, s.forge(Ours, &[Second]).bundle())),
        good("P-256", RIGHT, &[Right], |s| s.attach(Index, s.forge(Index, &[Right]).bundle())),
        bad("wrong Ed25519 key", RIGHT, &["not installed"], |s| s.attach(Index, s.forge(Index, &[Second]).bundle())),
        bad("revoked, and a stranger", REVOKED, &["Right.pub, revoked"], |s| {
            s.attach(Index, s.forge(Index, &[Right]).bundle());
            s.attach(Index, s.forge(Index, &[Stranger]).bundle());
        }),
        good("revoked, and another", REVOKED, &[Second], |s| {
            s.attach(Index, s.forge(Index, &[Right]).bundle());
            s.attach(Index, s.forge(Index, &[Second]).bundle());
        }),
        good("two keys in one envelope", TWO, &[Right, Second], |s| {
            s.attach(Index, s.forge(Index, &[Right, Second]).bundle());
        }),
        good("one key on the index, the other on the manifest", TWO, &[Right, Second], |s| {
            s.attach(Index, s.forge(Index, &[Right]).bundle());
            s.attach(Ours, s.forge(Ours, &[Second]).bundle());
        }),
        bad("one of two", TWO, &["2 keys must have signed it, and only"], |s| {
            s.attach(Index, s.forge(Index, &[Second]).bundle());
        }),
        bad("one key twice in one envelope", TWO, &["2 keys must have signed it, and only"], |s| {
            s.attach(Index, s.forge(Index, &[Right, Right]).bundle());
        }),
        bad("one key on the index and on the manifest", TWO, &["2 keys must have signed it, and only"], |s| {
            s.attach(Index, s.forge(Index, &[Right]).bundle());
            s.attach(Ours, s.forge(Ours, &[Right]).bundle());
        }),
        bad("two keys, one of them revoked", TWO_OF_THREE, &["and only sha256:", "Right.pub, revoked"], |s| {
            s.attach(Index, s.forge(Index, &[Right, Second]).bundle());
        }),
        bad("for another digest", RIGHT, &["a signature is for sha256:"], |s| {
            let other = digest("another release");
            s.attach(Index, Forge::new(&other, &[s.world.key(Right)]).bundle());
        }),
        bad("of the other architecture's, on ours", RIGHT, &["a signature is for sha256:"], |s| {
            s.attach(Ours, s.forge(Theirs, &[Right]).bundle());
        }),
        bad("of the other architecture's, on the index", RIGHT, &["a signature is for sha256:"], |s| {
            s.attach(Index, s.forge(Theirs, &[Right]).bundle());
        }),
        bad("of our manifest, on the index", RIGHT, &["a signature is for sha256:"], |s| {
            s.attach(Index, s.forge(Ours, &[Right]).bundle());
        }),
        good("for several, one of them this", RIGHT, &[Right], |s| {
            let other = format!(r#""subject":[{{"digest":{{"sha256":"{}"}}}},"#, "0".repeat(64));
            s.attach(Index, s.forge(Index, &[Right]).edit(r#""subject":["#, &other).bundle());
        }),
        good("a good one among bad ones", RIGHT, &[Right], |s| {
            s.attach(Index, "{");
            s.attach(Index, s.forge(Index, &[Stranger]).bundle());
            s.attach(Index, s.forge(Index, &[Right]).bundle());
            s.attach(Index, s.forge(Theirs, &[Right]).bundle());
        }),
        good("unknown fields", RIGHT, &[Right], |s| {
            let forge = s.forge(Index, &[Right]).edit(r#""predicate":{}"#, r#""predicate":{"a":[1,{}]},"b":null"#);
            let log = r#""verificationMaterial":{"tlogEntries":[{"logIndex":"7"}],"timestampVerificationData":{},"#;
            let bundle = forge.bundle().replacen(r#""verificationMaterial":{"#, log, 1);
            let bundle = bundle.replacen(r#"{"sig":"#, r#"{"keyid":"","cert":[],"sig":"#, 1);
            assert!(bundle.contains("tlogEntries") && bundle.contains("keyid"));
            s.attach(Index, bundle.replacen('{', r#"{"x":{"payload":"e30=","dsseEnvelope":{}},"#, 1));
        }),
        good("somebody else's hint", RIGHT, &[Right], |s| {
            let hint = Some(s.world.key(Stranger).hint());
            s.attach(Index, Forge { hint, ..s.forge(Index, &[Right]) }.bundle());
        }),
        good("no hint", RIGHT, &[Right], |s| {
            s.attach(Index, Forge { hint: None, ..s.forge(Index, &[Right]) }.bundle());
        }),
        bad("the right hint, signed by a stranger", RIGHT, &["Right.pub", "does not verify"], |s| {
            let hint = Some(s.world.key(Right).hint());
            s.attach(Index, Forge { hint, ..s.forge(Index, &[Stranger]) }.bundle());
        }),
        bad("huge", RIGHT, &["bytes, where it has at most 65536"], |s| {
            let filler = format!(r#"{{"x":"{}","#, "x".repeat(64 << 10));
            s.attach(Index, s.forge(Index, &[Right]).bundle().replacen('{', &filler, 1));
        }),
        good("as long as it may be", RIGHT, &[Right], |s| {
            let bundle = s.forge(Index, &[Right]).bundle();
            s.attach(Index, format!("{bundle}{}", " ".repeat((64 << 10) - bundle.len())));
        }),
    ]
}

/// A good bundle that is spoilt in one place after it was signed. Input: what stands there, and what is put there.
const GARBLED: [(&str, &str, &str, &str); 17] = [
    (
        "mediaType",
        r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3"#,
        r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.2"#,
        "'mediaType' is",
    ),
    ("no mediaType", r#"{"mediaType":"#, r#"{"mediatype":"#, "'mediaType'"),
    ("mediaType is a number", r#"{"mediaType":"#, r#"{"mediaType":7,"x":"#, "'mediaType'"),
    ("no dsseEnvelope", r#""dsseEnvelope""#, r#""envelope""#, "'dsseEnvelope' is missing"),
    (
        "payloadType",
        r#""payloadType":"application/vnd.in-toto+json""#,
        r#""payloadType":"application/json""#,
        "'dsseEnvelope.payloadType' is",
    ),
    ("no payloadType", r#""payloadType""#, r#""type""#, "'dsseEnvelope.payloadType'"),
    ("payload is no base64", r#""payload":""#, r#""payload":"*"#, "'dsseEnvelope.payload' is not base64"),
    ("payload begins otherwise", r#""payload":"ey"#, r#""payload":"eY"#, "does not verify"),
    ("payload is cut", r#""payload":"eyJf"#, r#""payload":""#, "does not verify"),
    ("no payload", r#""payload":"#, r#""body":"#, "'dsseEnvelope.payload'"),
    ("no signatures", r#""signatures":["#, r#""signatures":[],"x":["#, "'dsseEnvelope.signatures' has not 1"),
    ("signatures is missing", r#""signatures":"#, r#""sigs":"#, "'dsseEnvelope.signatures' has not 1"),
    ("signature is no base64", r#"{"sig":""#, r#"{"sig":"-"#, "signatures[0].sig' is not base64"),
    ("signature begins otherwise", r#"{"sig":"ME"#, r#"{"sig":"MF"#, "does not verify"),
    ("signature is longer", r#"{"sig":""#, r#"{"sig":"AAAA"#, "does not verify"),
    ("no sig", r#"{"sig":"#, r#"{"signature":"#, "signatures[0].sig'"),
    ("two payloads", r#""payload":"#, r#""payload":"e30=","payload":"#, "same name twice"),
];

/// A statement that says something else, signed by the right key.
const STATED: [(&str, &str, &str, &str); 6] = [
    ("another type of statement", "Statement/v1", "Statement/v0.1", "'_type' is"),
    ("an attestation", "https://sigstore.dev/cosign/sign/v1", "https://spdx.dev/Document", "'predicateType' is"),
    ("no subject", r#""subject":"#, r#""object":"#, "'subject' has not 1"),
    ("no digest", r#""digest":"#, r#""hash":"#, "'subject.digest' is missing"),
    ("another hash", r#""sha256":"#, r#""sha512":"#, "'subject.digest.sha256'"),
    ("no JSON", r#"{"_type""#, r#"{_type"#, "about something else"),
];

/// Makes a machine that is pointed at a row, and holds what `check` and `apply` say.
fn hold(world: &World, spare: &mut Option<Machine>, row: &Row, scene: &Scene) {
    let what = format!("{:?}: {}", world.column, row.name);
    eprintln!("{what}");
    // A refused release leaves a machine as it was: the next row has it.
    let machine = spare.take().unwrap_or_else(Machine::new);
    install(&machine, world, row.trust);
    configure(&machine, row.trust.threshold);
    let [flag, source] = scene.source();
    let check = machine.root.agent(&["check", "--json", &flag, &source]).expect(row.code, row.words);
    machine.apply(&[&flag, &source]).expect(row.code, row.words);
    if row.code != 0 {
        assert_eq!(check.jq(".kind"), "signature", "{what}");
        machine.assert_unharmed(&what, "failed", "signature", Left::Untouched);
        *spare = Some(machine);
        return;
    }
    let mut by = world.fingerprints(row.by);
    by.sort();
    assert_eq!(check.jq(".offered.signed_by | sort | join(\" \")"), by.join(" "), "{what}");
    assert_eq!(check.jq(".offered.manifest_digest"), scene.digest(Ours), "{what}");
    let record = machine.disk.text(B, "slot.json").expect("a record");
    assert_eq!(jq(&record, ".signed_by | sort | join(\" \")"), by.join(" "), "{what}");
    assert_eq!(jq(&record, ".manifest_digest"), scene.digest(Ours), "{what}");
}

/// All rows of a column.
fn matrix(column: Column) {
    ready();
    let world = World::new(column);
    let mut spare = None;
    for (n, row) in rows_of_cosign().into_iter().chain(rows_of_openssl()).enumerate() {
        let scene = world.publish(&format!("row-{n}"));
        (row.sign)(&scene);
        hold(&world, &mut spare, &row, &scene);
    }
    // These hold as the others do, and are many: `check` alone.
    let machine = spare.unwrap_or_else(Machine::new);
    install(&machine, &world, RIGHT);
    configure(&machine, 1);
    let refused = |name: &str, words: &str, tag: &str, spoil: &dyn Fn(Forge) -> Vec<u8>| {
        eprintln!("{column:?}: {name}");
        let scene = world.publish(tag);
        let bundle = spoil(scene.forge(Index, &[Right]));
        scene.attach(Index, bundle);
        let [flag, source] = scene.source();
        machine.root.agent(&["check", &flag, &source]).expect(5, &["no signature of it counts", words]);
        [flag, source]
    };
    for (n, (name, from, to, words)) in GARBLED.into_iter().enumerate() {
        refused(name, words, &format!("garbled-{n}"), &|forge| {
            let bundle = forge.bundle();
            assert_eq!(bundle.matches(from).count(), 1, "{name}: {bundle}");
            bundle.replace(from, to).into_bytes()
        });
    }
    for (n, (name, from, to, words)) in STATED.into_iter().enumerate() {
        refused(name, words, &format!("stated-{n}"), &|forge| forge.edit(from, to).bundle().into_bytes());
    }
    refused("half of it", "a bundle is malformed", "half", &|forge| {
        let bundle = forge.bundle().into_bytes();
        bundle[..bundle.len() / 2].to_vec()
    });
    refused("all but its end", "a bundle is malformed", "end", &|forge| {
        forge.bundle().strip_suffix('}').unwrap().as_bytes().to_vec()
    });
    let last = refused("not UTF-8", "not UTF-8", "latin1", &|forge| {
        forge.bundle().replacen('{', r#"{"x":"ö","#, 1).chars().map(|c| c as u8).collect()
    });
    machine.apply(&[&last[0], &last[1]]).expect(5, &["no signature of it counts"]);
    machine.assert_unharmed("garbled bundles", "failed", "signature", Left::Untouched);
}

#[apply(test)]
fn signatures_in_a_registry_with_a_referrers_api() {
    matrix(Column::ReferrersApi);
}

#[apply(test)]
fn signatures_in_a_registry_without_one() {
    matrix(Column::TagFallback);
}

#[apply(test)]
fn signatures_in_a_layout() {
    matrix(Column::Layout);
}

#[apply(test)]
fn signatures_in_a_tar_of_a_layout() {
    ready();
    let world = World::new(Column::Tar);
    let mut spare = None;
    for (n, row) in rows_of_cosign().into_iter().enumerate().filter(|(n, _)| [1, 2, 3].contains(n)) {
        let scene = world.publish(&format!("row-{n}"));
        (row.sign)(&scene);
        hold(&world, &mut spare, &row, &scene);
    }
}

#[apply(test)]
fn a_signed_index_that_offers_the_wrong_architecture_is_refused() {
    ready();
    let world = World::new(Column::TagFallback);
    let scene = world.publish("v1");
    // The publisher's slip, or an old key's: the other architecture's manifest under this one's name.
    let theirs = world.publish("v1").digest(Theirs).to_owned();
    let manifest = run(oras(world.home()).args(["manifest", "fetch", "--plain-http", &scene.reference(Theirs)]));
    assert_eq!(digest(&manifest), theirs);
    let platform = format!(r#","platform":{{"os":"linux","architecture":"{}"}}"#, architecture());
    let index = list(&[descriptor(MANIFEST_TYPE, &manifest, &platform)]);
    world.push(&index, INDEX_TYPE, "swapped");
    let machine = Machine::new();
    install(&machine, &world, RIGHT);
    configure(&machine, 1);
    let registry = format!("{}:swapped", world.repository());
    machine.apply(&["--registry", &registry]).expect(5, &["it is not signed"]);
    let reference = format!("{}@{}", world.repository(), digest(&index));
    let bundle = Forge::new(&digest(&index), &[world.key(Right)]).bundle();
    attach(world.home(), Target::Registry, &reference, bundle.as_bytes());
    let words = format!("artifact is for {}", other_architecture());
    machine.apply(&["--registry", &registry]).expect(4, &[&words]);
    machine.assert_unharmed("the other architecture", "failed", "gate", Left::Untouched);
}

/// A machine and a `latest.json` that is served, both to be changed.
struct Site {
    _dir: TempDir,
    machine: Machine,
    served: Arc<Mutex<Served>>,
    web: Web,
    keys: [KeyPair; 3],
}

#[derive(Clone)]
struct Served {
    release: Release,
    document: Vec<u8>,
    signature: Option<Vec<u8>>,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path();
        let keys = [KeyPair::p256(home, "one"), KeyPair::ed25519(home, "two"), KeyPair::p256(home, "stranger")];
        let release = small(&release());
        let served = Served { document: release.latest_json().into(), release, signature: None };
        let served = Arc::new(Mutex::new(served));
        let answers = served.clone();
        let web = Web::start(move |path| {
            let served = answers.lock().unwrap().clone();
            match path {
                "/latest.json" => Answer::ok(served.document),
                "/latest.json.sig" => served.signature.map_or(Answer::status(404), Answer::ok),
                _ => served.release.file(path).map_or(Answer::status(404), Answer::ok),
            }
        });
        let machine = Machine::new();
        fs::create_dir_all(machine.root.path("etc/kubesolo/update-keys.d/revoked")).unwrap();
        let site = Site { _dir: dir, machine, served, keys, web };
        site.configure("");
        site.trust(&[0], &[]);
        site
    }

    fn configure(&self, more: &str) {
        self.machine.root.configure(&format!("server = {}\nretries = 0\n{more}\n", self.web.url("/")));
    }

    /// Installs keys and lists what is revoked.
    fn trust(&self, keys: &[usize], revoked: &[String]) {
        for (n, key) in self.keys.iter().enumerate() {
            let _ = fs::remove_file(self.machine.root.path(&format!("etc/kubesolo/update-keys.d/{n}.pub")));
            if keys.contains(&n) {
                put(&self.machine, &format!("update-keys.d/{n}.pub"), key.pem(), 0o644);
            }
        }
        put(&self.machine, "update-keys.d/revoked/list", revoked.join("\n"), 0o644);
    }

    /// One line for each key.
    fn lines(&self, keys: &[usize]) -> String {
        let document = self.served.lock().unwrap().document.clone();
        keys.iter().map(|n| format!("{}\n", base64(&self.keys[*n].sign(&document)))).collect()
    }

    fn serve(&self, signature: Option<&str>) {
        self.served.lock().unwrap().signature = signature.map(|text| text.into());
    }

    /// Serves another release with another date, signed by the first key.
    fn offer(&self, version: &str, date: &str) {
        let release = Release { version: version.into(), ..self.served.lock().unwrap().release.clone() };
        let dated = format!(r#"{{"release_date":"{date}","#);
        self.served.lock().unwrap().document = release.latest_json().replacen('{', &dated, 1).into();
        self.serve(Some(&self.lines(&[0])));
    }

    #[track_caller]
    fn check(&self, code: i32, words: &[&str]) -> Run {
        self.machine.root.agent(&["check", "--json"]).expect(code, words)
    }

    #[track_caller]
    fn is_signed_by(&self, keys: &[usize]) {
        let mut by: Vec<String> = keys.iter().map(|n| self.keys[*n].fingerprint()).collect();
        by.sort();
        assert_eq!(self.check(0, &[]).jq(".offered.signed_by | sort | join(\" \")"), by.join(" "));
    }
}

#[apply(test)]
fn a_detached_signature() {
    need_disks();
    need("openssl");
    let site = Site::new();
    let fingerprints = site.keys.each_ref().map(KeyPair::fingerprint);
    let none = "none is by an installed key";
    site.check(5, &["it is not signed"]);
    site.machine.apply(&[]).expect(5, &["it is not signed"]);
    site.machine.assert_unharmed("unsigned", "failed", "signature", Left::Untouched);
    site.serve(Some(&site.lines(&[2])));
    site.check(5, &[none]);
    site.serve(Some(&site.lines(&[0])));
    site.is_signed_by(&[0]);
    for n in [0, 1] {
        site.trust(&[n], &[]);
        site.serve(Some(&site.lines(&[n])));
        site.is_signed_by(&[n]);
    }
    site.trust(&[0, 1], &[fingerprints[0].clone()]);
    site.serve(Some(&site.lines(&[0])));
    site.check(5, &["signed by sha256:", "0.pub, revoked"]);
    site.serve(Some(&site.lines(&[0, 1])));
    site.is_signed_by(&[1]);

    site.trust(&[0, 1], &[]);
    site.configure("signature_threshold = 2");
    site.is_signed_by(&[0, 1]);
    for lines in [site.lines(&[0]), site.lines(&[0, 0]), site.lines(&[0, 2])] {
        site.serve(Some(&lines));
        site.check(5, &["2 keys must have signed it, and only sha256:"]);
    }
    site.configure("");

    // Of another document; what is no signature; too much of it.
    let signature = site.lines(&[0]);
    let line = signature.trim_end();
    let document = site.served.lock().unwrap().document.clone();
    site.served.lock().unwrap().document.push(b'\n');
    site.serve(Some(&signature));
    site.check(5, &[none]);
    site.served.lock().unwrap().document = document;
    for (text, words) in [
        (String::new(), "it is empty"),
        ("\n\n".into(), "it is empty"),
        (line[..line.len() - 4].into(), none),
        (format!("AAAA{signature}"), none),
        (format!("{line}="), "not base64"),
        (format!("untrusted comment\n{signature}"), "not base64"),
        (signature.repeat(17), "more than 16 signatures"),
    ] {
        site.serve(Some(&text));
        site.check(5, &[words]);
    }
    // Of more than 8 KiB not a byte is looked at: an answer of no use.
    site.serve(Some(&"\n".repeat(9 << 10)));
    site.check(6, &["latest.json.sig"]);
    // As base64 and openssl break lines.
    let signature = site.lines(&[0]);
    let (head, tail) = signature.split_at(64);
    site.serve(Some(&format!("{head}\n{tail}")));
    site.is_signed_by(&[0]);

    site.machine.apply(&[]).expect(0, &["2.0.0 is staged"]);
    let record = site.machine.disk.text(B, "slot.json").unwrap();
    assert_eq!(jq(&record, ".signed_by | join(\" \")"), fingerprints[0]);
}

#[apply(test)]
fn the_place_of_a_missing_signature_is_named() {
    need_disks();
    need("openssl");
    let site = Site::new();
    site.check(5, &["it is not signed", "its signature is expected at", &site.web.url("/latest.json.sig")]);
}

#[apply(test)]
fn what_is_not_signed_is_not_parsed() {
    need_disks();
    need("openssl");
    let site = Site::new();
    for document in ["no JSON at all", "", "{\"version\":7}", "{\"artifacts\":[]}", "\u{0}", "[[[[["] {
        site.served.lock().unwrap().document = document.into();
        for signature in [None, Some(site.lines(&[2])), Some(String::new()), Some("AAAA".into())] {
            site.serve(signature.as_deref());
            site.check(5, &["latest.json"]);
        }
        // That it is none is found out once it is signed.
        site.serve(Some(&site.lines(&[0])));
        let code = site.machine.root.agent(&["check"]).code;
        assert!(code == 6 || code == 4, "{document}: {code}");
    }
}

#[apply(test)]
fn keys_decide_not_the_configuration() {
    need_disks();
    need("openssl");
    let site = Site::new();
    // Keys that are there are asked, whatever the configuration says.
    site.configure("signature = off");
    site.check(5, &["it is not signed"]);
    site.machine.apply(&[]).expect(5, &["it is not signed"]);
    // None at all, chosen and not chosen.
    site.trust(&[], &[]);
    site.configure("");
    for args in [&["check"][..], &["apply"], &["activate"], &["apply", "--activate"]] {
        site.machine
            .root
            .agent(args)
            .expect(5, &["signatures are required, and no key is installed", "signature = off"]);
    }
    site.configure("signature = off");
    assert_eq!(site.check(0, &[]).jq(".offered.signed_by"), "[]");
    // Others may write it: it is not trusted, and not forgotten either.
    site.serve(Some(&site.lines(&[0])));
    for mode in [0o664, 0o646, 0o666] {
        site.trust(&[], &[]);
        put(&site.machine, "update-keys.d/0.pub", site.keys[0].pem(), mode);
        for configuration in ["", "signature = off"] {
            site.configure(configuration);
            site.check(2, &["0.pub", &format!("its mode is {mode:o}"), "chmod go-w"]);
            site.machine.apply(&[]).expect(2, &["none of the installed keys is good"]);
        }
        // A good one beside it.
        put(&site.machine, "update-keys.d/1.pub", site.keys[1].pem(), 0o644);
        site.check(5, &["none is by an installed key", "this key does not count"]);
        site.configure("signature_threshold = 2");
        site.check(2, &["1 good keys are installed, and signature_threshold is 2"]);
        site.configure("");
        fs::remove_file(site.machine.root.path("etc/kubesolo/update-keys.d/1.pub")).unwrap();
    }
    // So is the directory that others may write to, and that of what is revoked.
    site.trust(&[0], &[]);
    site.is_signed_by(&[0]);
    for name in ["update-keys.d", "update-keys.d/revoked"] {
        let path = site.machine.root.path(&format!("etc/kubesolo/{name}"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        site.check(2, &["its mode is 777"]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // What is revoked is read whole, or nothing is accepted.
    put(&site.machine, "update-keys.d/revoked/list", "sha256:abc\n", 0o644);
    site.check(2, &["revoked/list", "line 1"]);
    put(&site.machine, "update-keys.d/revoked/list", "", 0o666);
    site.check(2, &["revoked/list", "its mode is 666"]);
    // A key that lies in `revoked/` is revoked; a link and a second copy of one key are no other keys.
    site.trust(&[0], &[]);
    put(&site.machine, "update-keys.d/revoked/lost.pub", site.keys[0].pem(), 0o644);
    site.check(2, &["none of the installed keys is good and not revoked"]);
    fs::remove_file(site.machine.root.path("etc/kubesolo/update-keys.d/revoked/lost.pub")).unwrap();
    put(&site.machine, "update-keys.d/copy.pub", site.keys[0].pem(), 0o644);
    site.configure("signature_threshold = 2");
    site.check(2, &["1 good keys are installed"]);
    site.configure("");
    let keys = site.machine.root.path("etc/kubesolo/update-keys.d");
    fs::remove_file(keys.join("copy.pub")).unwrap();
    fs::rename(keys.join("0.pub"), keys.join("0.pem")).unwrap();
    std::os::unix::fs::symlink("0.pem", keys.join("0.pub")).unwrap();
    site.check(2, &["0.pub", "a symbolic link"]);
}

#[apply(test)]
fn an_older_release_is_not_taken_for_news() {
    need_disks();
    need("openssl");
    let mut site = Site::new();
    let (dated, words) = ("it was released at", "one of 2026-03-01T00:00:00Z has run");
    site.offer("3.1.0", "2026-02-01T00:00:00Z");
    let between = site.served.lock().unwrap().clone();
    site.offer("3.0.0", "2026-03-01T00:00:00Z");
    site.machine.apply(&[]).expect(0, &["3.0.0 is staged"]);
    // What is only staged shuts nothing out: the publisher can take it back by offering an older one.
    *site.served.lock().unwrap() = between.clone();
    site.check(0, &["3.1.0"]);
    fs::create_dir(site.machine.root.path("etc/kubesolo/health.d")).unwrap();
    put(&site.machine, "health.d/10-fine", "#!/bin/sh\n", 0o755);
    let root = &mut site.machine.root;
    root.agent(&["activate"]).expect(0, &["on trial"]);
    root.set_boot_variables(&["boot_counter=2"]);
    root.boot('B', Some(&site.machine.disk.guid(B)));
    root.agent(&["healthcheck"]).expect(0, &["confirmed"]);
    // What the publisher had signed before, word for word: newer than what runs by its number, older by its date.
    let check = site.check(4, &[&format!("{dated} 2026-02-01T00:00:00Z"), words]);
    assert_eq!(check.jq(".refusals | map(.gate) | join(\" \")"), "release_date");
    site.machine.apply(&[]).expect(4, &[words]);
    assert_eq!(site.machine.root.state_field("phase"), "success");
    site.machine.apply(&["--allow-downgrade"]).expect(0, &["3.1.0 is staged"]);
    // The date does not go back, nor can it be left out.
    site.offer("3.2.0", "2026-02-28T23:59:59Z");
    site.check(4, &[words]);
    site.offer("3.2.0", "2026-03-01T00:00:00Z");
    site.check(0, &["3.2.0"]);
    // What nobody signed moves nothing.
    site.offer("9.0.0", "2027-01-01T00:00:00Z");
    site.serve(None);
    site.machine.apply(&[]).expect(5, &["it is not signed"]);
    site.offer("3.2.0", "2026-03-01T00:00:00Z");
    site.check(0, &["3.2.0"]);
}

#[apply(test)]
fn what_is_revoked_after_it_was_staged_is_not_activated() {
    need_disks();
    need("openssl");
    let site = Site::new();
    site.trust(&[0, 1], &[]);
    site.serve(Some(&site.lines(&[0])));
    let done = site.machine.apply(&["--json"]).expect(0, &["staged"]);
    let (manifest, kernel) = (done.jq(".manifest_digest"), digest(&site.served.lock().unwrap().release.ours().kernel));
    let key = site.keys[0].fingerprint();
    let activate = |code, words: &[&str]| {
        site.machine.root.agent(&["activate"]).expect(code, words);
        assert_eq!(site.machine.root.boot_variables()["active_slot"], "A");
        assert!(site.machine.root.blocks() == site.machine.blocks, "the boot variables were written");
    };
    // The key is revoked, removed; the artifact is revoked, by its own digest and by that of its kernel.
    site.trust(&[0, 1], std::slice::from_ref(&key));
    activate(5, &["activate slot B", "0.pub, revoked", "0 trusted keys, where it takes 1"]);
    site.check(5, &["0.pub, revoked"]);
    site.trust(&[1], &[]);
    activate(5, &[&key, "not installed", "run apply again"]);
    for revoked in [&manifest, &kernel] {
        site.trust(&[0, 1], std::slice::from_ref(revoked));
        activate(5, &[revoked, "is revoked on this machine"]);
        site.check(5, &[revoked, "is revoked on this machine"]);
        site.machine.apply(&[]).expect(5, &[revoked, "is revoked on this machine"]);
        site.machine.root.agent(&["verify"]).expect(5, &[revoked, "is revoked on this machine"]);
    }
    site.trust(&[0, 1], &[]);
    site.configure("signature_threshold = 2");
    activate(5, &["1 trusted keys, where it takes 2"]);
    // Keys that came later, where it was staged without any.
    site.trust(&[], &[]);
    site.configure("signature = off");
    site.offer("2.1.0", "2026-02-01T00:00:00Z");
    site.machine.apply(&[]).expect(0, &["2.1.0 is staged"]);
    assert_eq!(jq(&site.machine.disk.text(B, "slot.json").unwrap(), ".signed_by"), "[]");
    site.trust(&[0], &[]);
    activate(5, &["no signature of it was ever verified"]);
    // Signed and staged anew, it is activated.
    site.configure("");
    site.serve(Some(&site.lines(&[0])));
    site.machine.root.agent(&["apply", "--activate"]).expect(0, &["slot B is active"]);
    assert_eq!(site.machine.root.boot_variables()["active_slot"], "B");
}

#[apply(test)]
fn what_is_revoked_is_not_gone_back_to() {
    need_disks();
    need("openssl");
    let site = Site::new();
    let record = site.machine.disk.text(B, "slot.json").expect("slot B holds a system");
    let revoked = format!("sha256:{}", jq(&record, ".kernel.sha256"));
    site.trust(&[0], std::slice::from_ref(&revoked));
    site.machine.root.agent(&["rollback"]).expect(5, &["go back to slot B", &revoked, "is revoked on this machine"]);
    assert!(site.machine.root.blocks() == site.machine.blocks, "the boot variables were written");
    // It was never signed, and that holds nobody back.
    site.trust(&[0], &[]);
    site.machine.root.agent(&["rollback"]).expect(0, &["slot B is active, on trial"]);
}

#[apply(test)]
fn verify_says_who_signed_and_what_is_known_of_it() {
    need_disks();
    need("openssl");
    let site = Site::new();
    site.serve(Some(&site.lines(&[0])));
    site.machine.apply(&[]).expect(0, &["2.0.0 is staged"]);
    let key = site.keys[0].fingerprint();
    let verify = |args: &[&str], code, words: &[&str]| {
        site.machine.root.agent(&[&["verify", "--slot", "B"], args].concat()).expect(code, words)
    };
    let by = format!("signed by {key} (0.pub)");
    verify(&[], 0, &[&by, "when it was staged, not checked again"]);
    verify(&["--source"], 0, &[&by, "checked now at the source", "Source  2.0.0 from server http:"]);
    let slot = |args: &[&str], code| {
        let slot = "[.slots[0].signed_by[0], .slots[0].signature_trusted, .slots[0].signature_checked_now]";
        verify(&[args, &["--json"]].concat(), code, &[]).jq(slot)
    };
    assert_eq!(slot(&[], 0), format!("[\"{key}\",true,false]"));
    assert_eq!(slot(&["--source"], 0), format!("[\"{key}\",true,true]"));
    let source = verify(&["--source", "--json"], 0, &[]).jq("[.source.version, .source.signed_by[0], .source.error]");
    assert_eq!(source, format!("[\"2.0.0\",\"{key}\",null]"));
    // The source has it no more, or another's signature of it.
    site.serve(Some(&site.lines(&[2])));
    verify(&["--source"], 5, &["not checked again", "none is by an installed key"]);
    assert_eq!(slot(&["--source"], 5), format!("[\"{key}\",true,false]"));
    // Something else is offered, by the right key.
    site.offer("2.1.0", "2026-02-01T00:00:00Z");
    verify(&["--source"], 0, &["not checked again", "Source  2.1.0"]);
    assert_eq!(slot(&["--source"], 0), format!("[\"{key}\",true,false]"));
    // The key is revoked: what runs is what it is, and is not trusted any more.
    site.trust(&[0, 1], std::slice::from_ref(&key));
    verify(&[], 0, &["NOT trusted any more", "0.pub, revoked"]);
    assert_eq!(slot(&[], 0), format!("[\"{key}\",false,false]"));
    site.trust(&[0], &[]);
    site.machine.root.agent(&["verify", "--slot", "A"]).expect(0, &["no signature of it was ever checked"]);
}

/// One connection, many uploads.
struct Upload {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Upload {
    fn new(host: &str) -> Upload {
        let stream = TcpStream::connect(host).unwrap();
        stream.set_nodelay(true).unwrap();
        Upload { stream: BufReader::new(stream), host: host.into() }
    }

    fn manifest(&mut self, name: &str, media_type: &str, text: &str) {
        let (host, length) = (&self.host, text.len());
        let request = format!(
            "PUT /v2/os/manifests/{name} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {media_type}\r\n\
             Content-Length: {length}\r\n\r\n{text}"
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut status, mut length) = (String::new(), 0);
        self.stream.read_line(&mut status).unwrap();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            if line.trim_end().is_empty() {
                break;
            }
            if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        assert!(status.contains(" 201 "), "{status}{}", String::from_utf8_lossy(&body));
    }
}

/// More than anybody signs.
const MANY: usize = 10_000;
/// So many of them are there, which is more than are looked at.
const REAL: usize = 130;

/// A stranger's signatures of a release, all different, in a registry. Returns: their entries.
fn attach_many(scene: &Scene) -> Vec<String> {
    let bundle = scene.forge(Index, &[Stranger]).bundle();
    scene.attach(Index, &bundle);
    let subject = descriptor(INDEX_TYPE, &scene.index, "");
    let mut upload = Upload::new(&scene.world.host);
    let years = (0..REAL).map(|n| format!("{}-01-01", 2027 + n));
    let texts = years.map(|year| referrer(&subject, bundle.as_bytes()).replace("2026-01-01", &year));
    let put = |text: String| {
        upload.manifest(&digest(&text), MANIFEST_TYPE, &text);
        listed(&text)
    };
    texts.map(put).collect()
}

/// Entries for what is not there.
fn absent(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| listed(&format!("absent {n}")))
}

/// How many entries a list has that is served.
fn served(url: &str, file: &Path) -> String {
    let accept = format!("Accept: {INDEX_TYPE}");
    run(command("curl").args(["-sf", "-H", &accept, url, "-o"]).arg(file));
    jq(&fs::read_to_string(file).unwrap(), ".manifests | length")
}

/// Holds that a machine takes nothing, and is as it was.
#[track_caller]
fn refused(machine: &Machine, source: [&str; 2], code: i32, words: &[&str]) {
    machine.root.agent(&[&["check"], &source[..]].concat()).expect(code, words);
    machine.apply(&source).expect(code, words);
    let kind = if code == 5 { "signature" } else { "source" };
    machine.assert_unharmed("10,000 referrers", "failed", kind, Left::Untouched);
}

#[apply(test)]
fn ten_thousand_referrers_in_a_registry_with_a_referrers_api() {
    ready();
    need("curl");
    let mut world = World::new(Column::ReferrersApi);
    let scene = world.publish("v1");
    let real = attach_many(&scene);
    scene.attach(Index, scene.forge(Index, &[Right]).bundle());
    let index = scene.digest(Index).to_owned();
    let machine = Machine::new();
    install(&machine, &world, RIGHT);
    configure(&machine, 1);
    // Each of its uploads takes longer than the one before it: the rest is put into what it keeps, behind the others.
    for (count, words) in [(1000, "the first 128 candidates were looked at"), (MANY, "no signature of it counts")] {
        world.servers = (None, None);
        let kept = world.home().join("ferro/metadata.json");
        let more = format!("[{}]", absent(count - real.len() - 2).collect::<Vec<_>>().join(","));
        fs::write(world.home().join("more.json"), more).unwrap();
        let before = kept.with_extension("before");
        if !before.exists() {
            fs::copy(&kept, &before).unwrap();
        }
        let add = format!(".referrers.os[\"{index}\"] += $more[0]");
        let mut jq = command("jq");
        jq.args(["-c", &add, "--slurpfile", "more"]).arg(world.home().join("more.json")).arg(&before);
        fs::write(&kept, run(&mut jq)).unwrap();
        let ferro = Ferro::start(world.home());
        let url = format!("http://{}/v2/os/referrers/{index}", ferro.host());
        assert_eq!(served(&url, &world.home().join("list.json")), count.to_string());
        refused(&machine, ["--registry", &format!("{}/os:v1", ferro.host())], 5, &[words]);
        world.servers.1 = Some(ferro);
    }
}

#[apply(test)]
fn ten_thousand_referrers_in_a_registry_without_one() {
    ready();
    need("curl");
    let world = World::new(Column::TagFallback);
    let scene = world.publish("v1");
    // It takes no list of what it does not have.
    let real = attach_many(&scene);
    let machine = Machine::new();
    install(&machine, &world, RIGHT);
    configure(&machine, 1);
    let tag = scene.digest(Index).replace(':', "-");
    for (count, words) in [(1000, "the first 128 candidates were looked at"), (MANY, "no signature of it counts")] {
        let entries: Vec<String> = real.iter().cycle().take(count).cloned().collect();
        Upload::new(&world.host).manifest(&tag, INDEX_TYPE, &list(&entries));
        let url = format!("http://{}/v2/os/manifests/{tag}", world.host);
        assert_eq!(served(&url, &world.home().join("list.json")), count.to_string());
        refused(&machine, ["--registry", &format!("{}/os:v1", world.host)], 5, &[words]);
    }
}

#[apply(test)]
fn ten_thousand_referrers_in_a_layout() {
    ready();
    let world = World::new(Column::Layout);
    let scene = world.publish("v1");
    let real = attach_many(&scene);
    let tag = scene.digest(Index).replace(':', "-");
    Upload::new(&world.host).manifest(&tag, INDEX_TYPE, &list(&real));
    *scene.attached.borrow_mut() = vec![Index; REAL];
    let layout = scene.layout();
    let before = fs::read_to_string(layout.join("index.json")).unwrap();
    assert_eq!(before.matches(BUNDLE_TYPE).count(), REAL, "{before}");
    let machine = Machine::new();
    install(&machine, &world, RIGHT);
    configure(&machine, 1);
    let source = layout.to_str().unwrap();
    // With so many it is not even read.
    for (count, code, words) in [(1000, 5, "candidates were looked at"), (MANY, 6, "index.json")] {
        let more: Vec<String> = absent(count).collect();
        let text = before.trim_end().strip_suffix("]}").unwrap();
        fs::write(layout.join("index.json"), format!("{text},{}]}}", more.join(","))).unwrap();
        refused(&machine, ["--layout", source], code, &[words]);
    }
}

#[apply(test)]
fn a_layout_of_many_signed_releases() {
    ready();
    let world = World::new(Column::Layout);
    let scene = world.publish("v1");
    scene.attach(Index, scene.forge(Index, &[Right]).bundle());
    let layout = scene.layout();
    let machine = Machine::new();
    install(&machine, &world, RIGHT);
    configure(&machine, 1);
    let source = layout.to_str().unwrap().to_owned();
    machine.root.agent(&["check", "--layout", &source]).expect(0, &["2.0.0"]);
    // Releases 1.0 to 1.139, signed by the same key, stand before it.
    let others = (0..140).map(|n| {
        let other = support::signed::manifest(architecture(), &format!("1.{n}.0"));
        let bundle = Forge::new(&digest(&other), &[world.key(Right)]).bundle();
        let around = referrer(&descriptor(MANIFEST_TYPE, &other, ""), bundle.as_bytes());
        put_blob(&layout, &bundle);
        put_blob(&layout, &around);
        listed(&around)
    });
    let others: Vec<String> = others.collect();
    let before = fs::read_to_string(layout.join("index.json")).unwrap();
    let text = before.replacen(r#""manifests":["#, &format!(r#""manifests":[{},"#, others.join(",")), 1);
    assert_ne!(text, before);
    fs::write(layout.join("index.json"), text).unwrap();
    machine.root.agent(&["check", "--layout", &source]).expect(0, &["2.0.0"]);
}

#[apply(test)]
fn a_mirror_that_is_down_does_not_make_an_unsigned_document_a_matter_of_the_network() {
    need_disks();
    need("openssl");
    let site = Site::new();
    site.serve(None);
    let down = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    site.configure(&format!("mirror = http://{down}/"));
    site.check(5, &["it is not signed", "; trying 127.0.0.1"]);
}
