//! The hostile table: what a row is, the honest release that its script spoils, and how a row is held.

use super::delta::{self, Delta};
use super::disk::{A, B, architecture};
use super::hostile::{Ask, Hostile, Reply};
use super::machine::{Left, Machine};
use super::registry::{CHUNKS_TYPE, INITRAMFS_TYPE, KERNEL_TYPE};
use super::release::{Release, sha256};
use super::root::Run;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;

pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Part of every secret here.
pub const SECRET: &str = "geheim";
/// `user:geheim` in base64.
const PAIR: &str = "dXNlcjpnZWhlaW0=";
/// What a script's token server hands out.
pub const TOKEN: &str = "token-geheim";
/// A run that takes longer hangs: no row may take half of it.
const HANGS_SECS: &str = "60";
/// Rows at a time: most of them wait.
const WORKERS: usize = 4;
/// Rows that use one machine, one after the other, where none touches the slot.
const ROWS_A_MACHINE: usize = 12;

/// A release, as an honest server has it.
pub struct Published {
    pub release: Release,
    pub kernel: Vec<u8>,
    pub initramfs: Vec<u8>,
    pub kernel_sha: String,
    pub initramfs_sha: String,
    pub manifest: String,
    pub manifest_sha: String,
    pub latest: String,
    /// Of the kernel and of the initramfs, if they have any.
    pub indexes: Option<[Vec<u8>; 2]>,
    index_shas: Vec<String>,
}

/// The one that all rows spoil.
pub static PUBLISHED: LazyLock<Published> = LazyLock::new(|| Published::new(Release::new("2.0.0"), None));
/// The same files, with chunk indexes.
pub static CHUNKED: LazyLock<Published> = LazyLock::new(|| {
    PUBLISHED.with_indexes([&PUBLISHED.kernel, &PUBLISHED.initramfs].map(|bytes| delta::index(bytes)))
});
/// What is another in the version that runs where the release has chunk indexes: the first stretch is where most rows cut.
const CHANGED: [std::ops::Range<usize>; 2] = [640_000..760_000, 1_000_000..1_030_000];

impl Published {
    /// Input: `indexes`: of the kernel and of the initramfs.
    pub fn new(release: Release, indexes: Option<[Vec<u8>; 2]>) -> Published {
        let (kernel, initramfs) = (release.ours().kernel.clone(), release.ours().initramfs.clone());
        let [kernel_sha, initramfs_sha] = [&kernel, &initramfs].map(|bytes| sha256(bytes));
        let index_shas: Vec<String> = indexes.iter().flatten().map(|bytes| sha256(bytes)).collect();
        let layer = |media_type: &str, sha: &str, bytes: &[u8]| {
            format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{sha}","size":{}}}"#, bytes.len())
        };
        let file = |name: &str, sha: &str, bytes: &[u8], more: &str| {
            format!(r#"{{"url":"files/{name}","sha256":"{sha}","size":{}{more}}}"#, bytes.len())
        };
        let (mut layers, mut files) = (Vec::new(), Vec::new());
        for (number, (media_type, name, sha, bytes)) in [
            (KERNEL_TYPE, "vmlinuz", &kernel_sha, &kernel),
            (INITRAMFS_TYPE, "kubesolo-os.gz", &initramfs_sha, &initramfs),
        ]
        .into_iter()
        .enumerate()
        {
            layers.push(layer(media_type, sha, bytes));
            let mut more = String::new();
            if let Some(indexes) = &indexes {
                let (sha, bytes) = (&index_shas[number], &indexes[number]);
                layers.push(layer(CHUNKS_TYPE, sha, bytes));
                more = format!(",\"chunks\":{}", file(&format!("{name}.chunks"), sha, bytes, ""));
            }
            files.push(file(name, sha, bytes, &more));
        }
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","layers":[{}],"annotations":{{"io.kubesolo.os.version":"2.0.0","io.kubesolo.os.architecture":"{}"}}}}"#,
            layers.join(","),
            architecture()
        );
        let latest = format!(
            r#"{{"version":"2.0.0","channel":"stable","architecture":"{}","kernel":{},"initramfs":{}}}"#,
            architecture(),
            files[0],
            files[1]
        );
        let manifest_sha = sha256(manifest.as_bytes());
        Published {
            release,
            kernel,
            initramfs,
            kernel_sha,
            initramfs_sha,
            manifest,
            manifest_sha,
            latest,
            indexes,
            index_shas,
        }
    }

    pub fn with_indexes(&self, indexes: [Vec<u8>; 2]) -> Published {
        Published::new(self.release.clone(), Some(indexes))
    }

    /// A machine that runs what this is an update of.
    pub fn machine(&self) -> Machine {
        self.machine_with(24)
    }

    /// The same, with larger slots.
    pub fn machine_with(&self, slot_mib: u64) -> Machine {
        let mut machine = Machine::with_slots(slot_mib);
        if self.indexes.is_some() {
            let [old_kernel, old_initramfs] = [&self.kernel, &self.initramfs].map(|bytes| before(bytes));
            Delta { old_kernel, old_initramfs, new: self.release.clone() }.install(&mut machine, &[]);
        }
        machine
    }

    /// Whether it is about a chunk index, and which: 0: the kernel's.
    pub fn index_of(&self, ask: &Ask) -> Option<usize> {
        ["/vmlinuz.chunks", "/kubesolo-os.gz.chunks"]
            .iter()
            .position(|name| ask.path.ends_with(name))
            .or_else(|| self.index_shas.iter().position(|sha| ask.path.ends_with(sha)))
    }

    pub fn is_kernel(&self, ask: &Ask) -> bool {
        ask.path.ends_with(&self.kernel_sha) || ask.path.ends_with("/vmlinuz")
    }

    pub fn is_initramfs(&self, ask: &Ask) -> bool {
        ask.path.ends_with(&self.initramfs_sha) || ask.path.ends_with("/kubesolo-os.gz")
    }

    /// What an honest server answers.
    pub fn honest(&self, ask: &Ask) -> Reply {
        match ask.path.as_str() {
            "/latest.json" => Reply::ok(self.latest.as_str()),
            "/v2/os/manifests/v1" => manifest(&self.manifest),
            path if path.ends_with(&self.manifest_sha) => manifest(&self.manifest),
            _ if self.is_kernel(ask) => part(&self.kernel, ask),
            _ if self.is_initramfs(ask) => part(&self.initramfs, ask),
            _ if self.index_of(ask).is_some() => {
                part(&self.indexes.as_ref().unwrap()[self.index_of(ask).unwrap()], ask)
            }
            path if path.starts_with("/token") => Reply::ok(format!(r#"{{"token":"{TOKEN}"}}"#)),
            _ => Reply::new(404, ""),
        }
    }
}

/// A manifest's answer.
pub fn manifest(text: &str) -> Reply {
    Reply::ok(text).header("Content-Type", MANIFEST_TYPE)
}

/// An index's answer.
pub fn index(text: &str) -> Reply {
    Reply::ok(text).header("Content-Type", INDEX_TYPE)
}

/// A file of the version before.
pub fn before(bytes: &[u8]) -> Vec<u8> {
    let mut old = bytes.to_vec();
    CHANGED.into_iter().for_each(|range| old[range].iter_mut().for_each(|byte| *byte ^= 0x55));
    old
}

/// The whole, or the part that was asked for.
pub fn part(bytes: &[u8], ask: &Ask) -> Reply {
    let (from, end) = (ask.from(), ask.end().unwrap_or(bytes.len()).min(bytes.len()));
    match from {
        0 if ask.end().is_none() => Reply::ok(bytes),
        _ if from >= end => Reply::new(416, ""),
        _ => Reply::new(206, &bytes[from..end])
            .header("Content-Range", &format!("bytes {from}-{}/{}", end - 1, bytes.len())),
    }
}

/// What slot B must be afterwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slot {
    /// Every byte as before.
    Untouched,
    /// Its file system was mounted; the old version is there, whole.
    Whole,
    /// No record, and no part of a file.
    Emptied,
    /// No record, and so many bytes of the kernel for the next run.
    Part(usize),
    /// The same, but how many is the clock's choice.
    SomePart,
    /// The release.
    Staged,
    /// Anything but a record of the release.
    NotStaged,
}

/// Which protocol the script speaks.
#[derive(Clone, Copy, PartialEq)]
pub enum Source {
    Registry,
    Http,
}

type Make = dyn Fn(&Published, &Ask) -> Reply + Send + Sync;

/// One case.
pub struct Row {
    pub name: String,
    source: Source,
    /// What follows the repository's name.
    tag: String,
    conf: String,
    script: Arc<Make>,
    published: &'static Published,
    code: i32,
    kind: &'static str,
    words: Vec<String>,
    /// Most requests, to both hosts.
    most: usize,
    slot: Slot,
    /// The Range of every GET for the kernel, in order.
    ranges: Option<Vec<Option<usize>>>,
}

/// A row about the registry, refused before anything is downloaded, in one request. What differs is said after it.
pub fn row(name: impl Into<String>, script: impl Fn(&Published, &Ask) -> Reply + Send + Sync + 'static) -> Row {
    Row {
        name: name.into(),
        source: Source::Registry,
        tag: ":v1".into(),
        conf: "retries = 0".into(),
        script: Arc::new(script),
        published: &PUBLISHED,
        code: 6,
        kind: "source",
        words: Vec::new(),
        most: 1,
        slot: Slot::Untouched,
        ranges: None,
    }
}

impl Row {
    pub fn http(mut self) -> Row {
        self.source = Source::Http;
        self
    }

    pub fn tag(mut self, tag: &str) -> Row {
        self.tag = tag.into();
        self
    }

    /// Lines of `update.conf` in place of `retries = 0`.
    pub fn conf(mut self, conf: &str) -> Row {
        self.conf = conf.into();
        self
    }

    pub fn says(mut self, words: &[&str]) -> Row {
        self.words = words.iter().map(|w| w.to_string()).collect();
        self
    }

    /// Exit code 6: the network is to blame.
    pub fn network(mut self) -> Row {
        self.kind = "network";
        self
    }

    /// Exit code 5.
    pub fn digest(self) -> Row {
        self.ends(5, "digest")
    }

    pub fn ends(mut self, code: i32, kind: &'static str) -> Row {
        (self.code, self.kind) = (code, kind);
        self
    }

    pub fn most(mut self, requests: usize) -> Row {
        self.most = requests;
        self
    }

    /// With a download: what is left in the slot.
    pub fn leaves(mut self, slot: Slot, requests: usize) -> Row {
        (self.slot, self.most) = (slot, requests);
        self
    }

    /// Exit code 0.
    pub fn works(mut self, requests: usize) -> Row {
        (self.code, self.kind, self.slot, self.most) = (0, "null", Slot::Staged, requests);
        self
    }

    /// With other files, or indexes.
    pub fn of(mut self, published: &'static Published) -> Row {
        self.published = published;
        self
    }

    /// The same where the release has chunk indexes, and the running slot most of it. What ends well, does so too; what does
    /// not, ends in the same way, unless `is_avoided`. Input: `more`: requests.
    pub fn again(mut self, is_avoided: bool, more: usize) -> Row {
        let most = self.most + more;
        (self.published, self.ranges, self.words) = (&CHUNKED, None, Vec::new());
        match is_avoided || self.slot == Slot::Staged {
            true => self.works(most),
            false => self.leaves(Slot::NotStaged, most),
        }
    }

    /// Whether it comes as far as the files.
    pub fn touches_files(&self) -> bool {
        self.slot != Slot::Untouched
    }

    pub fn ranges(mut self, ranges: &[usize]) -> Row {
        self.ranges = Some(ranges.iter().map(|from| (*from > 0).then_some(*from)).collect());
        self
    }

    fn line(&self) -> String {
        let words: Vec<String> = self.words.iter().map(|w| format!("`{w}`")).collect();
        format!("| {} | {} | {} | {} |", self.name, self.code, words.join(", "), self.most)
    }

    /// Starts the row's server, and points the machine at it.
    pub fn start(&self, machine: &Machine) -> Hostile {
        let (script, published) = (self.script.clone(), self.published);
        let server = Hostile::start(Arc::new(move |ask| script(published, ask)));
        let source = match self.source {
            Source::Registry => format!("registry = {}/os{}", server.here, self.tag),
            Source::Http => format!("server = http://{}", server.here),
        };
        let entry = |entry: &str| format!(r#"{{"auths":{{"{}":{{{entry}}}}}}}"#, server.here);
        let private = |name: &str, text: String| {
            let path = machine.root.path("etc/kubesolo").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        };
        private("auth.json", entry(&format!(r#""auth":"{PAIR}""#)));
        private("identity.json", entry(&format!(r#""identitytoken":"identity-{SECRET}""#)));
        let auth = if self.conf.contains("auth_file") { "" } else { "auth_file = /etc/kubesolo/auth.json" };
        machine.root.configure(&format!("signature = off\n{source}\n{auth}\n{}\n", self.conf));
        server
    }

    /// Runs the agent once and holds what came of it.
    fn hold(&self, machine: &Machine) {
        let server = self.start(machine);
        let run = apply(machine);
        let seen = server.seen();
        self.assert_ended(machine, run, &seen);
        let gets = |a: &&Ask| a.is_get() && !a.is_other && PUBLISHED.is_kernel(a);
        if let Some(want) = &self.ranges {
            let got: Vec<_> = seen.iter().filter(gets).map(|a| a.range.as_ref().map(|_| a.from())).collect();
            assert_eq!(&got, want, "{}: other ranges", self.name);
        }
        match self.slot {
            Slot::Staged => assert_staged(machine, &self.name),
            Slot::Untouched => machine.assert_unharmed(&self.name, "failed", self.kind, Left::Untouched),
            Slot::Whole => self.assert_whole(machine),
            Slot::NotStaged => self.assert_not_staged(machine),
            Slot::Emptied | Slot::Part(_) | Slot::SomePart => {
                machine.assert_unharmed(&self.name, "failed", self.kind, Left::Invalid);
                self.assert_part(machine);
                machine.assert_recovers(&self.name);
            }
        }
    }

    /// Exit code, words, number of requests, and no secret anywhere but in a request to the registry's own host.
    fn assert_ended(&self, machine: &Machine, run: Run, seen: &[Ask]) {
        let short: Vec<String> =
            seen.iter().map(|a| format!("{} {} {:?} {:?}", a.method, a.path, a.range, a.is_other)).collect();
        let said = format!("{}{}", run.stdout, run.stderr);
        let words_missing: Vec<&String> = self.words.iter().filter(|w| !said.contains(w.as_str())).collect();
        assert!(
            run.code == self.code && words_missing.is_empty() && seen.len() <= self.most,
            "{}: wanted {} {:?}, at most {} requests; got {}:\n{said}\n{short:#?}",
            self.name,
            self.code,
            self.words,
            self.most,
            run.code
        );
        assert!(!seen.is_empty(), "{}: nothing was asked", self.name);
        let kept = machine.root.path("var/lib/kubesolo/update");
        let files = fs::read_dir(kept).unwrap().map(|e| fs::read_to_string(e.unwrap().path()).unwrap_or_default());
        for text in files.chain([said]) {
            assert!(!text.contains(SECRET) && !text.contains(PAIR), "{}: a secret is shown: {text}", self.name);
            assert!(!text.contains('\u{1b}'), "{}: an escape is shown", self.name);
        }
        for ask in seen.iter().filter(|a| a.is_other) {
            let clean = ask.authorization.is_none() && !ask.path.contains(SECRET) && !ask.body.contains(SECRET);
            assert!(clean, "{}: a secret went to another host: {ask:?}", self.name);
        }
    }

    /// The file system was mounted, which its superblock notes; nothing else has happened.
    fn assert_whole(&self, machine: &Machine) {
        assert!(machine.disk.bytes(A) == machine.running, "{}: the running slot was written", self.name);
        assert!(machine.root.blocks() == machine.blocks, "{}: the boot variables were written", self.name);
        assert_eq!(machine.root.state_field("phase"), "failed", "{}", self.name);
        assert_eq!(machine.root.state_field("last_error_kind"), self.kind, "{}", self.name);
        machine.disk.wait_unmounted(B);
        assert_eq!(machine.disk.text(B, "version").as_deref(), Some("1.0.0\n"), "{}", self.name);
        assert!(!machine.disk.names(B).iter().any(|n| n.contains(".part")), "{}: a part is left", self.name);
        machine.root.agent(&["verify", "--slot", "B"]).expect(0, &[]);
        machine.assert_recovers(&self.name);
    }

    /// Whatever is left of the slot, it is not used, and nothing else has changed.
    fn assert_not_staged(&self, machine: &Machine) {
        assert!(machine.disk.bytes(A) == machine.running, "{}: the running slot was written", self.name);
        assert!(machine.root.blocks() == machine.blocks, "{}: the boot variables were written", self.name);
        assert_eq!(machine.root.state_field("phase"), "failed", "{}", self.name);
        assert_eq!(machine.root.state_field("last_error_kind"), self.kind, "{}", self.name);
        machine.disk.wait_unmounted(B);
        assert!(!machine.disk.needs_recovery(B), "{}: the journal is not empty", self.name);
        let record = machine.disk.text(B, "slot.json").unwrap_or_default();
        assert!(!record.contains("2.0.0"), "{}: {record}", self.name);
        machine.root.agent(&["activate"]).expect(3, &["nothing is staged"]);
        if self.kind == "network" {
            // What is left is gone on with.
            let _honest = row(&self.name, |p, a| p.honest(a)).of(self.published).start(machine);
            apply(machine).expect(0, &["2.0.0 is staged"]);
            assert_staged(machine, &self.name);
        } else {
            machine.assert_recovers(&self.name);
        }
    }

    fn assert_part(&self, machine: &Machine) {
        let name = part_name();
        let length = machine.disk.file(B, &name).map(|bytes| bytes.len());
        match self.slot {
            Slot::Part(want) => assert_eq!(length, Some(want), "{}: {name}", self.name),
            Slot::SomePart => assert!(length.is_some_and(|n| n > 0), "{}: {name}: {length:?}", self.name),
            _ => {
                let names = machine.disk.names(B);
                assert!(!names.iter().any(|n| n.contains(".part")), "{}: {names:?}", self.name);
            }
        }
    }
}

/// Name of what is there of a kernel.
pub fn part_name() -> String {
    format!("vmlinuz.part-{}", &PUBLISHED.kernel_sha[..16])
}

/// Runs `apply`; one that does not end is ended, and has another exit code then.
pub fn apply(machine: &Machine) -> Run {
    let mut timeout = Command::new("timeout");
    timeout.arg(HANGS_SECS);
    machine.root.command_under(timeout, &["apply"]).output().unwrap().into()
}

/// The release is in slot B, whole, and the running slot as it was.
#[track_caller]
pub fn assert_staged(machine: &Machine, what: &str) {
    assert_eq!(machine.root.state_field("phase"), "staged", "{what}");
    assert!(machine.disk.file(B, "vmlinuz").unwrap() == PUBLISHED.kernel, "{what}");
    assert!(machine.disk.file(B, "kubesolo-os.gz").unwrap() == PUBLISHED.initramfs, "{what}");
    assert_eq!(machine.disk.names(B), ["kubesolo-os.gz", "slot.crc32", "slot.json", "version", "vmlinuz"], "{what}");
    assert!(machine.disk.bytes(A) == machine.running, "{what}: the running slot was written");
}

/// Holds every row; says all that fail. Rows that touch nothing share machines, which must work at the end.
pub fn hold_all(rows: Vec<Row>) {
    let (gentle, rough): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.slot == Slot::Untouched);
    let mut piles: Vec<Vec<Row>> = rough.into_iter().map(|row| vec![row]).collect();
    let mut gentle = gentle.into_iter().peekable();
    while gentle.peek().is_some() {
        piles.push(gentle.by_ref().take(ROWS_A_MACHINE).collect());
    }
    let (piles, failed) = (Mutex::new(piles), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(pile) = { piles.lock().unwrap().pop() } {
                    hold_pile(&pile, &failed);
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} rows fail: {failed:#?}", failed.len());
}

fn hold_pile(pile: &[Row], failed: &Mutex<Vec<String>>) {
    let mut machine = pile[0].published.machine();
    for row in pile {
        if catch_unwind(AssertUnwindSafe(|| row.hold(&machine))).is_err() {
            failed.lock().unwrap().push(row.name.clone());
            machine = row.published.machine();
        }
    }
    let Some(row) = pile.iter().rfind(|row| row.slot == Slot::Untouched) else { return };
    if catch_unwind(AssertUnwindSafe(|| machine.assert_recovers(&row.name))).is_err() {
        failed.lock().unwrap().push(format!("{}: does not recover", row.name));
    }
}

/// Holds the table of a test program against docs/testing.md.
pub fn assert_listed(module: &str, rows: &[Row]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/testing.md");
    let lines: Vec<String> = rows.iter().map(Row::line).collect();
    let mut names: Vec<&String> = rows.iter().map(|row| &row.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), rows.len(), "two rows have one name");
    let table = format!(
        "`tests/disk/{module}.rs`, {} rows:\n\n| case | exit code | words | requests at most |\n|---|---|---|---|\n{}\n",
        rows.len(),
        lines.join("\n")
    );
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(&table), "docs/testing.md lacks this table:\n\n{table}");
    let counted = |line: &str| {
        let (_, rows) = line.strip_prefix("`tests/disk/hostile")?.split_once(".rs`, ")?;
        rows.strip_suffix(" rows:")?.parse::<usize>().ok()
    };
    let total: usize = text.lines().filter_map(counted).sum();
    assert!(text.contains(&format!("\n{total} rows in all")), "docs/testing.md has {total} rows in all");
}
