//! What docs/key-rotation.md tells a publisher to do, done: real scripts, a real registry, the real agent. The comments
//! name the sections of that document.
//!
//! A slot's root file system is its initramfs, so the keys in an image count from the boot of that image on: here, a
//! machine that boots a release gets the files which that release's image would bring.
//! Longer than others for what docs/threat-model.md points to, at the end: the same publisher and machines, attacked.

use crate::support::disk::{A, B, Disk, architecture, initramfs_of, need_disks, other_architecture};
use crate::support::registry::{Ca, Files, INITRAMFS_TYPE, KERNEL_TYPE, Registry, oras};
use crate::support::release::{Release, Target};
use crate::support::root::{Root, Run};
use crate::support::signing::{attach, script};
use crate::support::{need_all, run};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Dates of releases: one a day, and all of them past.
const DATES: &str = "io.kubesolo.os.release_date";

fn ready() {
    need_disks();
    need_all(&["docker-registry", "oras", "openssl"]);
}

/// What an image brings in `/etc/kubesolo`.
#[derive(Clone, Default)]
struct Image {
    /// Names of keys in `update-keys.d`.
    keys: Vec<&'static str>,
    /// Names of keys whose fingerprints stand in `update-keys.d/revoked/list`.
    revoked: Vec<&'static str>,
    /// `signature_threshold`; 0: none is set.
    threshold: u32,
}

impl Image {
    fn with(keys: &[&'static str]) -> Image {
        Image { keys: keys.to_vec(), ..Image::default() }
    }

    fn revoking(self, revoked: &[&'static str]) -> Image {
        Image { revoked: revoked.to_vec(), ..self }
    }

    fn threshold(self, threshold: u32) -> Image {
        Image { threshold, ..self }
    }
}

/// Whoever makes releases: keys, a registry, and what the images hold.
struct Publisher {
    registry: Registry,
    fingerprints: HashMap<&'static str, String>,
    images: HashMap<String, Image>,
    // Dropped last.
    dir: TempDir,
}

impl Publisher {
    /// "Making keys": `keygen.sh` for each name.
    fn new(keys: &[&'static str]) -> Publisher {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start(dir.path(), None);
        let mut publisher = Publisher { registry, fingerprints: HashMap::new(), images: HashMap::new(), dir };
        for (n, name) in keys.iter().enumerate() {
            let kind = if n % 2 == 0 { "p256" } else { "ed25519" };
            let said = run(script(publisher.dir.path(), "keygen.sh").args(["--type", kind, name]));
            publisher.fingerprints.insert(name, said.trim().to_string());
        }
        publisher
    }

    fn id(&self, key: &str) -> &str {
        &self.fingerprints[key]
    }

    fn public(&self, key: &str) -> PathBuf {
        self.dir.path().join(format!("{key}.pub"))
    }

    fn reference(&self, tag: &str) -> String {
        format!("{}/os:{tag}", self.registry.host())
    }

    /// Publishes a version whose image brings these keys as a tag of that name, signed by these keys, and names it `latest`.
    fn publish(&mut self, version: &str, day: u32, image: Image, signers: &[&str]) {
        let release = Release::new(version).with(DATES, &format!("2025-10-{day:02}T00:00:00Z"));
        release.publish(self.dir.path(), Target::Registry, &format!("{}/os", self.registry.host()), version);
        self.images.insert(version.to_string(), image);
        self.sign(version, signers);
        self.tag(version, "latest");
    }

    fn sign(&self, tag: &str, signers: &[&str]) {
        let mut sign = script(self.dir.path(), "sign.sh");
        for key in signers {
            sign.arg("--key").arg(format!("{key}.key"));
        }
        run(sign.args(["--plain-http", &self.reference(tag)]));
    }

    fn tag(&self, from: &str, to: &str) {
        run(oras(self.dir.path()).args(["tag", "--plain-http", &self.reference(from), to]));
    }
}

/// One machine, and where it runs.
struct Member {
    disk: Disk,
    root: Root,
    slot: u32,
}

impl Member {
    /// A machine that was born with an image: version 1.0.0 in slot A.
    fn born(publisher: &Publisher, image: &Image) -> Member {
        let disk = Disk::new(24, 16);
        let root = Root::new(&disk);
        root.set_boot_variables(&["boot_canary=1"]);
        let checks = root.path("etc/kubesolo/health.d");
        fs::create_dir_all(&checks).unwrap();
        std::os::unix::fs::symlink("/bin/true", checks.join("ok")).unwrap();
        let member = Member { disk, root, slot: A };
        member.unpack(publisher, image);
        member
    }

    /// Puts into `/etc/kubesolo` what an image has there, and nothing else.
    fn unpack(&self, publisher: &Publisher, image: &Image) {
        let dir = self.root.path("etc/kubesolo/update-keys.d");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("revoked")).unwrap();
        for key in &image.keys {
            self.install(&publisher.public(key));
        }
        let list: String = image.revoked.iter().map(|key| format!("{} # {key}\n", publisher.id(key))).collect();
        fs::write(dir.join("revoked/list"), list).unwrap();
        let mut text = format!("registry = {}/os\nretries = 0\n", publisher.registry.host());
        if image.threshold > 0 {
            text.push_str(&format!("signature_threshold = {}\n", image.threshold));
        }
        self.root.configure(&text);
    }

    /// Puts a public key where the agent looks, as a person would.
    fn install(&self, public: &Path) {
        let dir = self.root.path("etc/kubesolo/update-keys.d");
        fs::copy(public, dir.join(public.file_name().unwrap())).unwrap();
    }

    /// Revokes on this machine alone, as a person would.
    fn revoke(&self, digest: &str) {
        fs::write(self.root.path("etc/kubesolo/update-keys.d/revoked/by-hand"), format!("{digest}\n")).unwrap();
    }

    fn agent(&self, args: &[&str]) -> Run {
        self.root.agent(args)
    }

    fn other(&self) -> u32 {
        if self.slot == A { B } else { A }
    }

    /// Boots a slot, whose image brings its files. GRUB's count is played by a real grub-editenv.
    fn boot(&mut self, publisher: &Publisher, slot: u32, image: &Image) {
        self.slot = slot;
        let guid = self.disk.guid(slot);
        self.root.boot(if slot == A { 'A' } else { 'B' }, Some(&guid));
        self.unpack(publisher, image);
    }

    /// Activates what is staged, boots it on trial, and confirms it.
    fn restart_into(&mut self, publisher: &Publisher, version: &str) {
        self.agent(&["activate"]).expect(0, &["on trial"]);
        self.root.set_boot_variables(&["boot_counter=2"]);
        let (slot, image) = (self.other(), publisher.images[version].clone());
        self.boot(publisher, slot, &image);
        self.agent(&["healthcheck"]).expect(0, &["confirmed"]);
        let status = self.agent(&["status", "--json"]).expect(0, &[]);
        assert_eq!(status.jq(".running_version"), version);
    }

    /// Takes a version and restarts into it.
    fn update(&mut self, publisher: &Publisher, version: &str) {
        self.agent(&["apply"]).expect(0, &[&format!("{version} is staged")]);
        self.restart_into(publisher, version);
    }

    /// Holds that this machine refuses to take what a tag names, says so with these words, and writes nothing.
    #[track_caller]
    fn refuses(&self, tag: &str, code: i32, words: &[&str]) {
        let (slots, blocks) = ([A, B].map(|slot| self.disk.bytes(slot)), self.root.blocks());
        self.agent(&["check", "--tag", tag]).expect(code, words);
        self.agent(&["apply", "--tag", tag]).expect(code, words);
        assert!([A, B].map(|slot| self.disk.bytes(slot)) == slots, "a slot was written");
        assert!(self.root.blocks() == blocks, "the boot variables were written");
    }

    /// The keys that have signed what is offered, of those that are installed.
    #[track_caller]
    fn offered_is_signed_by(&self) -> String {
        self.agent(&["check", "--json"]).jq(".offered.signed_by | join(\" \")")
    }
}

/// The releases of "The ordinary rotation".
fn rotated() -> Publisher {
    let mut publisher = Publisher::new(&["old", "new"]);
    publisher.publish("2.0.0", 2, Image::with(&["old", "new"]), &["old"]);
    publisher.tag("2.0.0", "bridge");
    publisher.publish("3.0.0", 3, Image::with(&["old", "new"]), &["old", "new"]);
    publisher.publish("4.0.0", 4, Image::with(&["new"]).revoking(&["old"]), &["new"]);
    publisher
}

#[apply(test)]
fn a_machine_follows_each_step() {
    ready();
    let publisher = rotated();
    let (old, new) = (publisher.id("old"), publisher.id("new"));
    // Step 1: only the old key is out there.
    let mut machine = Member::born(&publisher, &Image::with(&["old"]));
    machine.refuses("4.0.0", 5, &["it is signed by", new, "not installed"]);
    // Step 2: release N, signed by the old key, brings the new one.
    publisher.tag("2.0.0", "latest");
    assert_eq!(machine.offered_is_signed_by(), old);
    machine.agent(&["apply"]).expect(0, &["2.0.0 is staged"]);
    // It brings it with its boot, not before.
    machine.refuses("4.0.0", 5, &[new, "not installed"]);
    machine.restart_into(&publisher, "2.0.0");
    // Step 3: release N+1, signed by both. A machine that stayed behind takes it as well.
    publisher.tag("3.0.0", "latest");
    let late = Member::born(&publisher, &Image::with(&["old"]));
    late.agent(&["apply"]).expect(0, &["3.0.0 is staged"]);
    assert_eq!(late.agent(&["verify", "--slot", "B", "--json"]).expect(0, &[]).jq(".slots[0].signed_by[]"), old);
    machine.update(&publisher, "3.0.0");
    // Step 4: release N+2, signed by the new key alone, revokes the old one.
    publisher.tag("4.0.0", "latest");
    assert_eq!(machine.offered_is_signed_by(), new);
    machine.update(&publisher, "4.0.0");
    let verified = machine.agent(&["verify", "--json", "--source"]).expect(0, &[]);
    assert_eq!(verified.jq(".source.signed_by[]"), new);
    assert_eq!(
        verified.jq(".slots | map(select(.version == \"4.0.0\")) | .[0] | [.signed_by[], .signature_trusted]"),
        format!("[\"{new}\",true]")
    );
}

/// "After it": what the old key signs is refused, though its file were still there.
#[apply(test)]
fn what_a_revoked_key_signs_is_refused_though_its_file_is_installed() {
    ready();
    let mut publisher = rotated();
    let mut machine = Member::born(&publisher, &publisher.images["3.0.0"].clone());
    machine.update(&publisher, "4.0.0");
    publisher.publish("4.1.0", 5, Image::with(&["old"]), &["old"]);
    let old = publisher.id("old").to_string();
    machine.refuses("4.1.0", 5, &["it is signed by", &old, "revoked"]);
    machine.install(&publisher.public("old"));
    machine.refuses("4.1.0", 5, &["it is signed by", &old, "old.pub, revoked"]);
    // By the digest of the key, so that another file name is no way around it.
    fs::rename(
        machine.root.path("etc/kubesolo/update-keys.d/old.pub"),
        machine.root.path("etc/kubesolo/update-keys.d/best.pub"),
    )
    .unwrap();
    machine.refuses("4.1.0", 5, &["best.pub, revoked"]);
    publisher.publish("5.0.0", 6, Image::with(&["new"]), &["new"]);
    machine.update(&publisher, "5.0.0");
}

/// "A machine that was off for all of it": all three ways.
#[apply(test)]
fn a_machine_that_was_off_for_all_of_it() {
    ready();
    let publisher = rotated();
    let (bridge, stick) = (publisher.reference("bridge"), publisher.dir.path().join("stick"));
    let copy = ["copy", "--recursive", "--from-plain-http", "--to-oci-layout", &bridge];
    run(oras(publisher.dir.path()).args(copy).arg(format!("{}:latest", stick.display())));
    for way in ["bridge", "stick", "by hand"] {
        let mut machine = Member::born(&publisher, &Image::with(&["old"]));
        machine.refuses("latest", 5, &["it is signed by", publisher.id("new"), "not installed"]);
        match way {
            "bridge" => drop(machine.agent(&["apply", "--tag", "bridge"]).expect(0, &["2.0.0 is staged"])),
            "stick" => {
                let path = stick.to_str().unwrap();
                machine.agent(&["apply", "--layout", path]).expect(0, &["2.0.0 is staged"]);
            }
            _ => machine.install(&publisher.public("new")),
        }
        if way != "by hand" {
            machine.restart_into(&publisher, "2.0.0");
        }
        machine.update(&publisher, "4.0.0");
        assert_eq!(machine.offered_is_signed_by(), publisher.id("new"), "{way}");
    }
}

/// "Going back": an older slot has its older keys, and its older list of what is revoked.
#[apply(test)]
fn going_back_brings_back_the_older_keys() {
    ready();
    let mut publisher = rotated();
    let old = publisher.id("old").to_string();
    let mut machine = Member::born(&publisher, &publisher.images["2.0.0"].clone());
    publisher.tag("3.0.0", "latest");
    machine.update(&publisher, "3.0.0");
    publisher.tag("4.0.0", "latest");
    machine.update(&publisher, "4.0.0");
    publisher.publish("4.1.0", 5, Image::with(&["old"]), &["old"]);
    machine.refuses("4.1.0", 5, &[&old, "revoked"]);
    // The other slot was signed by the old key, too, and is taken back without asking who signed it.
    let verified = machine.agent(&["verify", "--json"]).expect(0, &[]);
    let slot = ".slots | map(select(.version == \"3.0.0\")) | .[0]";
    assert_eq!(verified.jq(&format!("{slot}.valid")), "true");
    machine.agent(&["rollback"]).expect(0, &["on trial"]);
    machine.root.set_boot_variables(&["boot_counter=2"]);
    let (back, image) = (machine.other(), publisher.images["3.0.0"].clone());
    machine.boot(&publisher, back, &image);
    machine.agent(&["healthcheck"]).expect(0, &["confirmed"]);
    // And so the old key signs again for this machine.
    machine.agent(&["check"]).expect(0, &["4.1.0", &old]);
    // What does not come back is the date: a release from before the newest one that was taken is a replay.
    publisher.publish("4.0.1", 3, Image::with(&["old"]), &["old"]);
    machine.refuses("4.0.1", 4, &["it was released at 2025-10-03T00:00:00Z", "2025-10-04T00:00:00Z"]);
    // Revoked by hand until the next good release runs.
    machine.revoke(&old);
    machine.refuses("4.1.0", 5, &[&old, "revoked"]);
}

/// "Revoked while something is staged".
#[apply(test)]
fn a_staged_slot_whose_key_is_revoked_is_not_activated() {
    ready();
    let mut publisher = Publisher::new(&["key", "spare"]);
    publisher.publish("2.0.0", 2, Image::with(&["key", "spare"]), &["key"]);
    let mut machine = Member::born(&publisher, &Image::with(&["key", "spare"]));
    machine.agent(&["apply"]).expect(0, &["2.0.0 is staged"]);
    machine.revoke(publisher.id("key"));
    let blocks = machine.root.blocks();
    machine.agent(&["activate"]).expect(5, &[publisher.id("key"), "revoked", "run apply again"]);
    machine.agent(&["apply", "--activate"]).expect(5, &[publisher.id("key"), "revoked"]);
    assert!(machine.root.blocks() == blocks, "the boot variables were written");
    let verified = machine.agent(&["verify", "--slot", "B", "--json"]).expect(0, &[]);
    assert_eq!(verified.jq(".slots[0] | [.valid, .signature_trusted]"), "[true,false]");
    // The publisher signs it again, with the spare key.
    publisher.sign("2.0.0", &["spare"]);
    machine.agent(&["apply"]).expect(0, &["2.0.0 is staged"]);
    machine.restart_into(&publisher, "2.0.0");
}

/// "Revoked while something is staged": once it is activated, GRUB boots it; a person can call that off.
#[apply(test)]
fn an_activated_slot_whose_key_is_revoked_can_be_called_off() {
    ready();
    let mut publisher = Publisher::new(&["key", "spare"]);
    publisher.publish("2.0.0", 2, Image::with(&["key", "spare"]), &["key"]);
    let machine = Member::born(&publisher, &Image::with(&["key", "spare"]));
    machine.agent(&["apply", "--activate"]).expect(0, &["2.0.0 is staged"]);
    machine.revoke(publisher.id("key"));
    machine.agent(&["activate"]).expect(5, &[publisher.id("key"), "revoked", "rollback"]);
    machine.agent(&["rollback"]).expect(0, &["the trial of slot B is called off"]);
    let vars = machine.root.boot_variables();
    assert_eq!((vars["active_slot"].as_str(), vars["boot_success"].as_str()), ("A", "1"));
    // It stays off.
    machine.agent(&["activate"]).expect(3, &["nothing is staged"]);
    machine.agent(&["apply", "--activate", "--retry-failed"]).expect(5, &[publisher.id("key"), "revoked"]);
}

/// "A stolen key", with a spare one in every image from day one.
#[apply(test)]
fn a_stolen_key_is_answered_with_the_spare_one() {
    ready();
    let mut publisher = Publisher::new(&["stolen", "spare", "next"]);
    let born = Image::with(&["stolen", "spare"]);
    let mut machine = Member::born(&publisher, &born);
    publisher.publish("2.0.0", 2, Image::with(&["stolen"]), &["stolen"]);
    let thief = publisher.id("stolen").to_string();
    // What the thief can do, until it is revoked: whatever the publisher can.
    machine.agent(&["check"]).expect(0, &["2.0.0", &thief]);
    // By hand, at once: the fingerprint is enough.
    let by_hand = Member::born(&publisher, &born);
    by_hand.revoke(&thief);
    by_hand.refuses("2.0.0", 5, &[&thief, "revoked"]);
    // With a release, signed by the spare key, which revokes the stolen one and brings the next.
    publisher.publish("2.0.1", 3, Image::with(&["spare", "next"]).revoking(&["stolen"]), &["spare"]);
    machine.update(&publisher, "2.0.1");
    publisher.publish("9.0.0", 4, Image::with(&["stolen"]), &["stolen"]);
    machine.refuses("9.0.0", 5, &[&thief, "revoked"]);
    // "A lost key" goes the same way, and without haste.
    publisher.publish("2.1.0", 5, Image::with(&["next"]), &["spare", "next"]);
    machine.update(&publisher, "2.1.0");
}

/// "Two keys for each release": what `signature_threshold = 2` asks for, and how to get there and back.
#[apply(test)]
fn the_threshold_goes_up_and_down() {
    ready();
    let mut publisher = Publisher::new(&["one", "two", "three"]);
    let all = Image::with(&["one", "two", "three"]);
    let mut machine = Member::born(&publisher, &all);
    publisher.publish("2.0.0", 2, all.clone().threshold(2), &["one"]);
    machine.update(&publisher, "2.0.0");
    // One stolen key is no longer enough, and signing twice with it is not either.
    publisher.publish("3.0.0", 3, all.clone(), &["one"]);
    machine.refuses("3.0.0", 5, &["2 keys must have signed it, and only", publisher.id("one")]);
    publisher.sign("3.0.0", &["three"]);
    machine.update(&publisher, "3.0.0");
    // "Down again" was in that image, and took two signatures.
    publisher.publish("4.0.0", 4, all, &["two"]);
    machine.agent(&["apply"]).expect(0, &["4.0.0 is staged"]);
    // Raised by hand while something is staged: one signature is not enough any more.
    let text = fs::read_to_string(machine.root.path("etc/kubesolo/update.conf")).unwrap();
    machine.root.configure(&format!("{text}signature_threshold = 2\n"));
    machine.agent(&["activate"]).expect(5, &["where it takes 2"]);
    // The trap: more keys asked for than there are. Nothing can be verified, and nothing is taken.
    machine.root.configure(&format!("{text}signature_threshold = 4\n"));
    machine.agent(&["check"]).expect(2, &["3 good keys are installed, and signature_threshold is 4"]);
    machine.agent(&["apply"]).expect(2, &["signature_threshold is 4"]);
    // A revoked key does not count towards it.
    machine.root.configure(&format!("{text}signature_threshold = 3\n"));
    machine.revoke(publisher.id("three"));
    machine.agent(&["check"]).expect(2, &["2 good keys are installed, and signature_threshold is 3"]);
}

// What docs/threat-model.md says, where no other test has a machine with keys and a past.

fn digest(publisher: &Publisher, tag: &str) -> String {
    run(oras(publisher.dir.path()).args(["resolve", "--plain-http", &publisher.reference(tag)])).trim().to_string()
}

/// Signs what `sign.sh` would look at and refuse: for the dates in it.
fn sign_blindly(publisher: &Publisher, tag: &str, key: &str) {
    let (dir, digest) = (publisher.dir.path(), digest(publisher, tag));
    let key = format!("{key}.key");
    run(script(dir, "sign.sh").args(["--key", &key, "--bundle", "blind.json", "--digest", &digest]));
    let reference = format!("{}/os@{digest}", publisher.registry.host());
    attach(dir, Target::Registry, &reference, &fs::read(dir.join("blind.json")).unwrap());
    fs::remove_file(dir.join("blind.json")).unwrap();
}

/// Files on the data partition that are forged, damaged or gone.
#[apply(test)]
fn what_the_agent_remembers_is_no_proof() {
    ready();
    let mut publisher = Publisher::new(&["key", "stranger"]);
    let image = Image::with(&["key"]);
    publisher.publish("2.0.0", 9, image.clone(), &["key"]);
    let mut machine = Member::born(&publisher, &image);
    machine.update(&publisher, "2.0.0");
    let update = machine.root.path("var/lib/kubesolo/update");
    // seen.json says that a trusted key has signed what a stranger has: `check` believes it, `apply` does not.
    publisher.publish("3.0.0", 10, image.clone(), &["stranger"]);
    machine.refuses("latest", 5, &["it is signed by", publisher.id("stranger")]);
    publisher.tag("2.0.0", "latest");
    machine.agent(&["check"]).expect(3, &[]);
    let (seen, reference) = (fs::read_to_string(update.join("seen.json")).unwrap(), digest(&publisher, "2.0.0"));
    let forged = seen.replace(&reference, &digest(&publisher, "3.0.0")).replace("2.0.0", "3.0.0");
    publisher.tag("3.0.0", "latest");
    fs::write(update.join("seen.json"), &forged).unwrap();
    machine.agent(&["check"]).expect(0, &["3.0.0"]);
    let before = machine.disk.bytes(machine.other());
    machine.agent(&["apply"]).expect(5, &["it is signed by", publisher.id("stranger")]);
    assert!(machine.disk.bytes(machine.other()) == before, "the slot was written");
    // proven.json: a release from before is a replay, with it or without it: the running slot's record has the date too.
    publisher.publish("4.0.0", 5, image, &["key"]);
    machine.refuses("latest", 4, &["released at 2025-10-05T00:00:00Z", "one of 2025-10-09T00:00:00Z has run"]);
    fs::remove_file(update.join("proven.json")).unwrap();
    machine.refuses("latest", 4, &["one of 2025-10-09T00:00:00Z has run"]);
    fs::write(update.join("proven.json"), "{").unwrap();
    machine.agent(&["apply", "--allow-downgrade"]).expect(0, &["4.0.0 is staged", "proven.json.corrupt"]);
}

#[apply(test)]
fn a_revoked_index_is_revoked_in_a_slot_as_well() {
    ready();
    let mut publisher = Publisher::new(&["key"]);
    let image = Image::with(&["key"]);
    publisher.publish("2.0.0", 2, image.clone(), &["key"]);
    let mut machine = Member::born(&publisher, &image);
    machine.agent(&["apply"]).expect(0, &["2.0.0 is staged"]);
    // What `oras resolve` and sign.sh call the release.
    let index = digest(&publisher, "2.0.0");
    machine.revoke(&index);
    machine.agent(&["apply"]).expect(5, &[&index, "revoked"]);
    machine.agent(&["activate"]).expect(5, &[&index, "revoked"]);
    machine.agent(&["verify"]).expect(5, &[&index, "revoked"]);
    machine.revoke("# none");
    machine.restart_into(&publisher, "2.0.0");
    publisher.publish("3.0.0", 3, image, &["key"]);
    machine.update(&publisher, "3.0.0");
    machine.revoke(&index);
    machine.agent(&["rollback"]).expect(5, &[&index, "revoked"]);
}

/// The state is lost, so that nobody knows that it was only staged.
#[apply(test)]
fn what_never_proved_itself_is_not_rolled_back_to() {
    ready();
    let mut publisher = Publisher::new(&["key", "spare"]);
    let image = Image::with(&["key", "spare"]);
    publisher.publish("2.0.0", 2, image.clone(), &["key"]);
    let machine = Member::born(&publisher, &image);
    machine.agent(&["apply"]).expect(0, &["2.0.0 is staged"]);
    fs::remove_file(machine.root.path("var/lib/kubesolo/update/state.json")).unwrap();
    machine.revoke(publisher.id("key"));
    let blocks = machine.root.blocks();
    machine.agent(&["rollback"]).expect(5, &[publisher.id("key"), "revoked"]);
    // Nor while it cannot be read what is revoked.
    machine.revoke("sha256:half a line");
    machine.agent(&["rollback"]).expect(2, &["by-hand", "line 1"]);
    assert!(machine.root.blocks() == blocks);
    // With the key it goes on trial, like anything that could be applied.
    machine.revoke("# none");
    machine.agent(&["rollback"]).expect(0, &["on trial"]);
}

#[apply(test)]
fn an_unsigned_index_gives_no_architecture() {
    ready();
    let publisher = Publisher::new(&["key"]);
    let (repository, theirs) = (format!("{}/os", publisher.registry.host()), other_architecture());
    // An architecture's manifest that says itself for which one it is by its config alone, which no agent reads.
    let mut files = Files::new(publisher.dir.path(), theirs);
    files.initramfs = initramfs_of(publisher.dir.path(), b"initramfs");
    fs::write(files.dir.join("kubesolo-os.gz"), &files.initramfs).unwrap();
    let mut push = oras(publisher.dir.path());
    push.current_dir(&files.dir).args(["push", "--plain-http", "-a", "io.kubesolo.os.version=2.0.0"]);
    push.args(["--artifact-type", "application/vnd.kubesolo.os.update.v1", "--artifact-platform"]);
    push.arg(format!("linux/{theirs}")).arg(format!("{repository}:theirs"));
    run(push.args([format!("vmlinuz:{KERNEL_TYPE}"), format!("kubesolo-os.gz:{INITRAMFS_TYPE}")]));
    publisher.sign("theirs", &["key"]);
    // The registry makes an index that gives it to this machine.
    let manifest =
        run(oras(publisher.dir.path()).args(["manifest", "fetch", "--plain-http"]).arg(format!("{repository}:theirs")));
    let (digest, index) = (digest(&publisher, "theirs"), publisher.dir.path().join("index.json"));
    let entry = format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{},"platform":{{"os":"linux","architecture":"{}"}}}}"#,
        manifest.len(),
        architecture()
    );
    let kind = "application/vnd.oci.image.index.v1+json";
    fs::write(&index, format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[{entry}]}}"#)).unwrap();
    let mut push = oras(publisher.dir.path());
    run(push
        .args(["manifest", "push", "--plain-http", "--media-type", kind, &publisher.reference("latest")])
        .arg(&index));
    let machine = Member::born(&publisher, &Image::with(&["key"]));
    machine.refuses("latest", 4, &["annotation io.kubesolo.os.architecture", "is missing"]);
}

#[apply(test)]
fn a_release_from_the_future_does_not_end_tls() {
    ready();
    let mut publisher = Publisher::new(&["key"]);
    publisher.publish("2.0.0", 2, Image::with(&["key"]), &["key"]);
    let dir = publisher.dir.path();
    let future = Release::new("1.5.0").with(DATES, "2034-10-01T00:00:00Z");
    future.publish(dir, Target::Registry, &format!("{}/os", publisher.registry.host()), "future");
    sign_blindly(&publisher, "future", "key");
    publisher.images.insert("1.5.0".into(), Image::with(&["key"]));
    let mut machine = Member::born(&publisher, &Image::with(&["key"]));
    machine.agent(&["apply", "--tag", "future"]).expect(0, &["1.5.0 is staged"]);
    machine.restart_into(&publisher, "1.5.0");
    let proven = fs::read_to_string(machine.root.path("var/lib/kubesolo/update/proven.json")).unwrap();
    assert!(proven.contains("2034-10-01"), "the date counts: {proven}");
    let ca = Ca::new(dir, "ca");
    let server = ca.issue("server", "IP:127.0.0.1", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let registry = Registry::start(dir, Some(&server));
    fs::copy(&ca.certificate, machine.root.path("etc/kubesolo/ca.pem")).unwrap();
    let tls = "plain_http = no\nretries = 0\nca_file = /etc/kubesolo/ca.pem\n";
    machine.root.configure(&format!("registry = {}/os\n{tls}", registry.host()));
    // Exit code 6: "the server's certificate has expired". `--allow-downgrade` does not help.
    machine.agent(&["check", "--allow-downgrade"]).expect(0, &["2.0.0"]);
}

#[apply(test)]
fn a_source_that_stands_still_is_noticed_when_its_release_expires() {
    ready();
    let publisher = Publisher::new(&["key"]);
    let same = Release::new("1.0.0").with("io.kubesolo.os.expires", "2025-11-01T00:00:00Z");
    same.publish(publisher.dir.path(), Target::Registry, &format!("{}/os", publisher.registry.host()), "latest");
    sign_blindly(&publisher, "latest", "key");
    let machine = Member::born(&publisher, &Image::with(&["key"]));
    let check = machine.agent(&["check"]);
    let said = format!("{}{}", check.stdout, check.stderr);
    assert!(said.contains("expired"), "exit {}: {said}", check.code);
}

#[apply(test)]
fn a_list_of_what_is_revoked_that_can_not_be_found_is_no_empty_list() {
    ready();
    let mut publisher = Publisher::new(&["key"]);
    publisher.publish("2.0.0", 2, Image::with(&["key"]), &["key"]);
    let machine = Member::born(&publisher, &Image::with(&["key"]));
    let list = machine.root.path("etc/kubesolo/update-keys.d/revoked");
    fs::remove_dir_all(&list).unwrap();
    std::os::unix::fs::symlink("/var/lib/kubesolo/nothing", &list).unwrap();
    machine.refuses("latest", 2, &["revoked"]);
}
