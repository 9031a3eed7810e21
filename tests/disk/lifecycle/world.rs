//! A machine that operations happen to: the real agent on a disk image, GRUB by the decision table of `src/boot/grub_table.rs`.

use super::ops::{CALLS, Fault, Op, Verb};
use super::view::{self, Born, Content, Offer, State, Vars, content};
use crate::support::boot_cases::Model;
use crate::support::command;
use crate::support::disk::{A, B, Disk};
use crate::support::immutable::ReadOnly;
use crate::support::root::{Root, Run};
use kubesolo_update::parts::boot::grub_table::Why;
use kubesolo_update::parts::slot::record::Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

pub const SLOT_MIB: u64 = 16;
const DATA_MIB: u64 = 16;
pub const UPDATE: &str = "var/lib/kubesolo/update";
const SIGKILL: i32 = 9;
/// More boots than any decision needs to come to rest.
const MOST_BOOTS: usize = 12;
/// The machine has neither containerd nor an API server.
const CONFIG: &str = "signature = off\nretries = 0\n";

/// Returns the partition of a slot.
pub fn number(slot: Slot) -> u32 {
    if slot == Slot::A { A } else { B }
}

fn at(slot: Slot) -> usize {
    usize::from(slot == Slot::B)
}

/// Everything that is compared before and after.
#[derive(Clone)]
pub struct Seen {
    pub blocks: [Vec<u8>; 2],
    /// As the agent takes them.
    pub vars: Vars,
    pub sound: bool,
    pub state_file: Option<String>,
    /// `None`: the file is damaged.
    pub state: Option<State>,
    /// Every file of the agent's, by name.
    pub files: BTreeMap<String, Vec<u8>>,
    pub bytes: [Vec<u8>; 2],
    pub content: [Content; 2],
}

impl Seen {
    pub fn of(&self, slot: Slot) -> &Content {
        &self.content[at(slot)]
    }

    pub fn bytes_of(&self, slot: Slot) -> &[u8] {
        &self.bytes[at(slot)]
    }

    /// The state as the next run of the agent takes it.
    pub fn state_or_idle(&self) -> State {
        self.state.clone().unwrap_or_else(|| State::read(None).unwrap())
    }

    /// Digests in `failed.json`.
    pub fn failed(&self) -> BTreeSet<String> {
        let Some(file) = self.files.get("failed.json") else { return BTreeSet::new() };
        let file = String::from_utf8_lossy(file);
        let starts = file.match_indices("sha256:").map(|(start, _)| start);
        starts.filter_map(|start| file.get(start..start + 71).map(str::to_string)).collect()
    }
}

impl World<'_> {
    /// Digests that must not be tried by themselves, as far as that is recorded.
    pub fn refused(&self, seen: &Seen) -> BTreeSet<String> {
        let failed = seen.files.get("failed.json").map_or("{}".into(), |bytes| String::from_utf8_lossy(bytes));
        let boot = fs::read_to_string(self.root.path("proc/sys/kernel/random/boot_id")).unwrap();
        view::refused(&failed, boot.trim())
    }
}

/// How a command ended.
pub enum End {
    /// What it said before.
    Killed(String),
    Exit(Run),
}

/// How often things happened.
pub type Counts = BTreeMap<String, u64>;

pub struct World<'a> {
    pub disk: Disk,
    pub root: Root,
    guids: [String; 2],
    offers: &'a [Offer],
    born: Born,
    pub running: Slot,
    pub skipped: Option<Slot>,
    /// Another slot was made active, or its trial began or ended, since the machine came up.
    pub switched: bool,
    /// A health check passed in it since it was written, or it was made so.
    pub proven: [bool; 2],
    /// Digests that must be remembered until they prove themselves, and refused but where it is undecided that they are to blame.
    pub must_refuse: BTreeSet<String>,
    /// Those of them that are to blame: a person left them, or the slot that ran afterwards was healthy when it was first checked.
    /// Kept without a look at the agent's files.
    pub blamed: BTreeSet<String>,
    /// Those of which no slot was checked since GRUB left them.
    pub unchecked: BTreeSet<String>,
    /// Those on which a person insists.
    pub insisted: BTreeSet<String>,
    /// GRUB went back: so many rollbacks had been recorded before, and from which slot it did.
    pub rollbacks_known: Option<(u64, Slot)>,
    /// The agent has seen everything that happened: its next answer can be foretold.
    pub settled: bool,
    pub now: Seen,
    pub counts: Counts,
}

impl<'a> World<'a> {
    pub fn new(offers: &'a [Offer]) -> World<'a> {
        let disk = Disk::new(SLOT_MIB, DATA_MIB);
        let root = Root::new(&disk);
        root.configure(CONFIG);
        let guids = [disk.guid(A), disk.guid(B)];
        let read = |name| disk.file(A, name).unwrap();
        let born = Born { kernel: read("vmlinuz"), initramfs: read("kubesolo-os.gz") };
        fs::create_dir_all(root.path("etc/kubesolo/health.d")).unwrap();
        let now = look(&disk, &root, offers, &born, None);
        World {
            disk,
            root,
            guids,
            offers,
            born,
            running: Slot::A,
            skipped: None,
            switched: false,
            proven: [true, false],
            must_refuse: BTreeSet::new(),
            blamed: BTreeSet::new(),
            unchecked: BTreeSet::new(),
            insisted: BTreeSet::new(),
            rollbacks_known: None,
            settled: true,
            now,
            counts: Counts::new(),
        }
    }

    pub fn offer(&self, op: Op) -> &'a Offer {
        &self.offers[op.which % self.offers.len()]
    }

    pub fn is_proven(&self, slot: Slot) -> bool {
        self.proven[at(slot)]
    }

    pub fn set_proven(&mut self, slot: Slot, is_proven: bool) {
        self.proven[at(slot)] = is_proven;
    }

    pub fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_string()).or_default() += 1;
    }

    /// Looks at everything again. Returns what was seen before.
    pub fn look(&mut self) -> Seen {
        let now = look(&self.disk, &self.root, self.offers, &self.born, Some(&self.now));
        std::mem::replace(&mut self.now, now)
    }

    /// Looks at the boot variables alone: where only GRUB has written.
    pub fn look_at_variables(&mut self) {
        self.now.blocks = self.root.blocks();
        (self.now.vars, self.now.sound) = variables(&self.now.blocks);
    }

    /// Runs the agent for an operation.
    pub fn agent(&mut self, op: Op) -> End {
        let offer = self.offer(op).medium.path();
        let mut args = match op.verb {
            Verb::Apply => vec!["apply", "--layout", offer],
            Verb::Check => vec!["check", "--json", "--layout", offer],
            Verb::Status => vec!["status", "--json"],
            Verb::Verify => vec!["verify"],
            Verb::Repair => vec!["verify", "--repair-boot-variables"],
            Verb::Activate => vec!["activate"],
            Verb::Rollback => vec!["rollback"],
            Verb::HealthPass | Verb::HealthFail => vec!["healthcheck", "--timeout", "0"],
            _ => panic!("{op} is no command"),
        };
        let flags = [("--activate", op.activate), ("--retry-failed", op.retry), ("--allow-downgrade", op.downgrade)];
        args.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| *flag));
        self.install_check(op.verb == Verb::HealthPass);
        let blocked = (op.fault == Fault::Unwritable).then(|| self.block_data());
        let mut run = match op.fault {
            Fault::Kill(call, when) => {
                let mut strace = command("strace");
                let name = CALLS[call];
                strace.args(["-o", "/dev/null", "-e", &format!("trace={name}"), "-e"]);
                strace.arg(format!("inject={name}:signal=KILL:when={when}"));
                self.root.command_under(strace, &args)
            }
            _ => self.root.command(&args),
        };
        let out = run.stdin(Stdio::null()).output().unwrap();
        drop(blocked);
        if out.status.signal() == Some(SIGKILL) {
            assert!(matches!(op.fault, Fault::Kill(..)), "{op}: killed by somebody else");
            for slot in [A, B] {
                self.disk.wait_unmounted(slot);
            }
            return End::Killed(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        End::Exit(out.into())
    }

    /// A check that passes or not, and keeps what the state said meanwhile.
    fn install_check(&self, passes: bool) {
        let path = self.root.path("etc/kubesolo/health.d/10-check");
        let [state, witness] = [UPDATE.to_string() + "/state.json", "run/witness".into()].map(|p| self.root.path(&p));
        let _ = fs::remove_file(&witness);
        let code = u8::from(!passes);
        let script = format!("#!/bin/sh\ncp {} {} 2>&1\nexit {code}\n", state.display(), witness.display());
        if fs::read(&path).is_ok_and(|old| old == script.as_bytes()) {
            return;
        }
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The phase while the last check ran.
    pub fn witness(&self) -> Option<String> {
        let file = fs::read_to_string(self.root.path("run/witness")).ok()?;
        Some(State::read(Some(&file)).ok()?.phase)
    }

    /// Lets nothing be replaced any more, as long as it lives. Root is not stopped by modes.
    fn block_data(&self) -> ReadOnly {
        let dir = self.root.path(UPDATE);
        fs::create_dir_all(&dir).unwrap();
        // What is there can be locked.
        fs::File::options().create(true).append(true).open(dir.join("lock")).unwrap();
        ReadOnly::new(&dir)
    }

    /// GRUB boots until a system comes up; what is out of order is so in the first boot alone. Errors: none comes up.
    pub fn restart(&mut self, op: Op) -> Result<(), String> {
        let uncounted = op.verb == Verb::RestartUncounted;
        let skips = op.verb == Verb::RestartSkipping || uncounted && op.which % 2 == 1;
        let by_hand = op.verb == Verb::RestartByHand;
        let mut model = self.model();
        for boot in 0..MOST_BOOTS {
            if boot == 0 && by_hand {
                let chosen = self.now.vars.active.other();
                if self.now.of(chosen).whole {
                    self.count("booted by hand");
                    self.settled = false;
                    self.come_up(chosen, None);
                    return Ok(());
                }
            }
            let before = self.running;
            let disk = model.disk;
            if uncounted && boot == 0 {
                model.disk = "read-only";
            }
            let (decision, _) = model.boot();
            model.disk = disk;
            if decision.why == Why::NotCounted {
                self.count("a boot that is not counted");
            }
            self.save_blocks(&model);
            let first = decision.first;
            let loads = |slot: Slot| self.now.of(slot).loads && !(skips && boot == 0 && slot == first);
            let Some(booted) = decision.boots(loads) else { continue };
            // What GRUB could not write down it has not given up.
            if decision.why == Why::UsedUp && !(uncounted && boot == 0) {
                self.gave_up(first.other());
            }
            let skipped = (booted != first).then_some(first);
            if !self.now.of(booted).whole {
                self.count("a system that does not come up");
                self.settled = false;
                continue;
            }
            let calm = matches!(decision.why, Why::Confirmed | Why::Counted) && skipped.is_none();
            // That another slot comes up than ran is news, but where the agent itself has made it active.
            self.settled &= calm;
            if before != booted {
                self.count("the other slot comes up");
            }
            self.come_up(booted, skipped);
            return Ok(());
        }
        Err("no slot comes up".into())
    }

    fn come_up(&mut self, slot: Slot, skipped: Option<Slot>) {
        (self.running, self.skipped, self.switched) = (slot, skipped, false);
        let word = skipped.map_or(String::new(), |slot| format!("kubesolo.skipped={}", slot.letter()));
        if skipped.is_some() {
            self.count("a slot is passed over");
        }
        self.root.boot_with(slot.letter(), Some(&self.guids[at(slot)]), &word);
    }

    /// GRUB has counted three boots of a slot.
    fn gave_up(&mut self, slot: Slot) {
        self.count("GRUB goes back");
        self.settled = false;
        let digest = self.now.of(slot).digest.clone();
        self.insisted.retain(|insisted| Some(insisted) != digest.as_ref());
        // It was forgotten meanwhile: then nothing is held against it.
        let must_refuse = &self.must_refuse;
        self.blamed.retain(|blamed| must_refuse.contains(blamed));
        // `activate` that was killed before it wrote the state, after a rollback of the same slot: that is all that is recorded.
        let is_known = self.now.state.as_ref().is_some_and(|state| state.phase != "rolled_back");
        self.unchecked.extend(digest.clone().filter(|_| is_known));
        self.must_refuse.extend(digest);
        self.rollbacks_known = self.now.state.as_ref().map(|state| (state.rollbacks, slot));
    }

    /// GRUB's view of this machine.
    pub fn model(&self) -> Model {
        let recorded = |slot: Slot| self.now.of(slot).version.is_some();
        let disk = if !recorded(Slot::A) && recorded(Slot::B) { "no-record-A" } else { "both" };
        Model { copies: self.now.blocks.clone().map(Some), disk }
    }

    fn save_blocks(&mut self, model: &Model) {
        for (name, copy) in ["grubenv", "grubenv.bak"].iter().zip(&model.copies) {
            fs::write(self.root.block(name), copy.as_ref().unwrap()).unwrap();
        }
    }

    /// Boots from here on without anybody doing anything, every system unhealthy. Returns: the slot it ends in.
    /// Errors: it does not come to rest, or in something that is not whole.
    pub fn destiny(&self) -> Result<Slot, String> {
        let mut model = self.model();
        let mut last = None;
        for _ in 0..MOST_BOOTS {
            let before = model.copies.clone();
            let (decision, _) = model.boot();
            let booted = decision.boots(|slot| self.now.of(slot).loads).ok_or("no slot loads")?;
            if before == model.copies && last == Some(booted) && decision.why == Why::Confirmed {
                return match self.now.of(booted).whole {
                    true => Ok(booted),
                    false => Err(format!("slot {booted} boots for good, and it is not whole")),
                };
            }
            last = Some(booted);
        }
        Err("booting does not come to rest".into())
    }
}

fn look(disk: &Disk, root: &Root, offers: &[Offer], born: &Born, before: Option<&Seen>) -> Seen {
    let blocks = root.blocks();
    let (vars, sound) = variables(&blocks);
    let dir = root.path(UPDATE);
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_file() {
            files.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
        }
    }
    let state_file = files.get("state.json").map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let state = State::read(state_file.as_deref()).ok();
    let bytes = [disk.bytes(A), disk.bytes(B)];
    let content = [A, B].map(|partition| {
        let which = usize::from(partition == B);
        match before {
            Some(before) if before.bytes[which] == bytes[which] => before.content[which].clone(),
            _ => content(disk, partition, offers, Some(born)),
        }
    });
    Seen { blocks, vars, sound, state_file, state, files, bytes, content }
}

/// As the agent takes them; and whether both copies are as they should be.
fn variables(blocks: &[Vec<u8>; 2]) -> (Vars, bool) {
    let read = [Vars::read(&blocks[0]), Vars::read(&blocks[1])];
    let vars = read[0].or(read[1]).expect("one copy of the boot variables is good");
    (vars, read[0].is_some() && blocks[0] == blocks[1])
}
