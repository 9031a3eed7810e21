//! A power cut on a drive that loses its cache. Killing QEMU (tests/vm/) keeps what the host cached; here every
//! write and flush of a whole machine is recorded, and what `activate`, the confirmation, `rollback` and the repair
//! write to the EFI partition is replayed as a drive may have kept it: every prefix, torn requests, lost writes. At
//! each, GRUB's own FAT code reads both copies of the environment block, and what it then boots must be right.
//!
//! The same is asked about two writers that are known to be wrong, so that it is seen to notice.

use crate::support::disk::{Disk, EFI};
use crate::support::grub_view::{Grub, View};
use crate::support::need;
use crate::support::vm::{self, BORN, Firmware, SERVER, Vm, need_vm};
use crate::support::write_log::{Log, Recording, SECTOR, mark};
use kubesolo_update::parts::boot::grub_table::{Decision, Vars, Why, decide};
use kubesolo_update::parts::slot::record::Slot::{self, A, B};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";

/// Who wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Agent,
    Grub,
    /// Writes a file beside it, fsyncs it, renames it over, syncs.
    Renames,
    /// Writes as a shell does: truncates, writes; then fsyncs.
    Truncates,
}

/// Something that changes the boot variables, and what GRUB reads before and after. `None`: neither copy is good.
struct Act {
    name: String,
    writer: Writer,
    old: Option<Vars>,
    new: Vars,
}

fn vars(active: Slot, success: bool, counter: u8) -> Vars {
    Vars { active, counter, success, rollback_from: None, canary: true }
}

/// A machine whose writes are recorded.
struct Recorder {
    vm: Vm,
    acts: Vec<Act>,
}

impl Recorder {
    fn mark(&mut self, when: &str, name: &str) {
        let words = mark(&format!("{when} {name}"));
        self.vm.run(&format!("echo '{words}' >/var/lib/kubesolo/mark && sync")).expect(0, &[]);
    }

    /// Lets something happen between two marks.
    fn record(&mut self, name: &str, writer: Writer, vars: (Option<Vars>, Vars), act: impl FnOnce(&mut Vm)) {
        self.mark("before", name);
        act(&mut self.vm);
        self.mark("after", name);
        self.acts.push(Act { name: name.into(), writer, old: vars.0, new: vars.1 });
    }

    fn agent(&mut self, name: &str, (old, new): (Vars, Vars), arguments: &str, words: &str) {
        let act = |vm: &mut Vm| _ = vm.agent(arguments).expect(0, &[words]);
        self.record(name, Writer::Agent, (Some(old), new), act);
    }

    fn restart(&mut self, name: &str, (old, new): (Vars, Vars), version: &str) {
        let slot = new.active.letter();
        self.record(name, Writer::Grub, (Some(old), new), |vm| {
            vm.send("sync; reboot -f");
            vm.expect_hello("manual", version, slot);
        });
    }

    /// Changes the EFI partition by hand.
    fn spoil(&mut self, line: &str) {
        self.vm.run(&on_efi(&format!("{line} && sync"))).expect(0, &[]);
    }

    fn repair(&mut self, name: &str, damage: &str, (old, new): (Option<Vars>, Vars)) {
        self.spoil(damage);
        self.vm.agent("verify").expect(7, &["--repair-boot-variables"]);
        let act = |vm: &mut Vm| _ = vm.agent("verify --repair-boot-variables").expect(0, &["written anew"]);
        self.record(name, Writer::Agent, (old, new), act);
    }
}

fn on_efi(line: &str) -> String {
    format!("mkdir -p /efi && mount -t vfat /dev/vda1 /efi && cd /efi/boot/grub && {line} && cd / && umount /efi")
}

/// Runs everything in one machine. Returns: what happened; the log is complete then.
fn record(disk: &Disk, log: &Path) -> Vec<Act> {
    let web = vm::release(Firmware::Bios, "1.1.0", "healthy").serve();
    let vm = Vm::start_logged(Firmware::Bios, disk, web.port, log);
    let mut recorder = Recorder { vm, acts: Vec::new() };
    recorder.vm.expect_hello("manual", BORN, 'A');
    // Without a cache to lose, the machine would not flush.
    recorder.vm.run("cat /sys/block/vda/queue/write_cache").expect(0, &["write back"]);
    recorder.vm.agent(&format!("apply --server http://{SERVER}")).expect(0, &["1.1.0 is staged in slot B"]);
    updates(&mut recorder);
    repairs(&mut recorder);
    moved(&mut recorder);
    wrong_writers(&mut recorder);
    // Of what both lost, the proof that GRUB can write is a part.
    let fresh = Vars { canary: false, ..vars(B, true, 3) };
    recorder.repair("repair, both bad", "echo x >grubenv && rm grubenv.bak", (None, fresh));
    recorder.vm.power_off();
    recorder.acts
}

/// There, confirmed, back on trial, straight back from the trial. Ends in slot B, confirmed.
fn updates(recorder: &mut Recorder) {
    let [born, trial_b, counted_b] = [vars(A, true, 3), vars(B, false, 3), vars(B, false, 2)];
    let [confirmed_b, trial_a, counted_a] = [vars(B, true, 2), vars(A, false, 3), vars(A, false, 2)];
    let back = vars(B, true, 2);
    recorder.agent("activate", (born, trial_b), "activate", "slot B is active, on trial");
    recorder.restart("GRUB counts", (trial_b, counted_b), "1.1.0");
    recorder.repair("repair on trial, main short", "echo x >grubenv", (Some(counted_b), counted_b));
    recorder.repair("repair on trial, backup short", "echo x >grubenv.bak", (Some(counted_b), counted_b));
    recorder.agent("confirmation", (counted_b, confirmed_b), "healthcheck --timeout 5", "the trial boot is confirmed");
    recorder.agent("rollback from a confirmed slot", (confirmed_b, trial_a), "rollback", "slot A is active, on trial");
    recorder.restart("GRUB counts again", (trial_a, counted_a), BORN);
    recorder.agent("rollback from a trial", (counted_a, back), "rollback", "slot B, which was confirmed before");
    recorder.vm.send("sync; reboot -f");
    recorder.vm.expect_hello("manual", "1.1.0", 'B');
}

/// One copy bad, and a save while one is bad. Ends in slot B, confirmed.
fn repairs(recorder: &mut Recorder) {
    let good = vars(B, true, 2);
    for copy in ["grubenv", "grubenv.bak"] {
        let garbage = format!("dd if=/dev/zero of={copy} bs=1024 count=1 conv=notrunc");
        let damages = [("garbage", garbage), ("short", format!("echo x >{copy}")), ("missing", format!("rm {copy}"))];
        for (what, damage) in damages {
            recorder.repair(&format!("repair, {copy} {what}"), &damage, (Some(good), good));
        }
    }
    recorder.spoil("echo x >grubenv");
    let trial = vars(A, false, 3);
    recorder.agent("rollback, main bad", (good, trial), "rollback --retry-failed", "slot A is active, on trial");
    recorder.spoil("rm grubenv.bak");
    recorder.agent("trial called off, backup bad", (trial, vars(B, true, 3)), "rollback", "the trial of slot A");
}

/// A stranger's variable in front moves the agent's own out of the first sector. A save moves them back, and a sector
/// of it may land without the other. Begins and ends in slot B, confirmed.
fn moved(recorder: &mut Recorder) {
    let (confirmed, trial) = (vars(B, true, 3), vars(A, false, 3));
    // The second sector begins before all of them, in the first one, after the first one.
    for length in [SECTOR - 25 - 6, SECTOR - 25 - 6 - 7, SECTOR - 25 - 6 - 14] {
        let rest = "grep -v '^mine\\|^#' grubenv; printf %01024d 0 | tr 0 '#'";
        let block =
            format!("{{ head -n 1 grubenv; printf 'mine=%0{length}d\\n' 0; {rest}; }} | head -c 1024 >/tmp/new");
        recorder.spoil(&format!("{block} && dd if=/tmp/new of=grubenv conv=notrunc && cp grubenv grubenv.bak"));
        let act = "rollback --retry-failed";
        recorder.agent(&format!("rollback, moved by {length}"), (confirmed, trial), act, "slot A is active, on trial");
        recorder.vm.agent("rollback").expect(0, &["the trial of slot A"]);
    }
}

/// They know of one copy.
fn wrong_writers(recorder: &mut Recorder) {
    let [before, between, after] = [vars(B, true, 3), vars(A, false, 3), vars(B, false, 3)];
    let edit = |from: &str, to: &str| format!("sed '{from};{to}' /efi/boot/grub/grubenv >/tmp/new");
    recorder.vm.run(&on_efi(&edit("s/slot=B/slot=A/", "s/success=1/success=0/"))).expect(0, &[]);
    let alike = "cp grubenv grubenv.bak";
    let rename = "dd if=/tmp/new of=grubenv.new conv=fsync && mv grubenv.new grubenv && sync";
    recorder.spoil(alike);
    recorder.record("a rename", Writer::Renames, (Some(before), between), |vm| {
        vm.run(&on_efi(rename)).expect(0, &[]);
    });
    recorder.vm.run("sed -i s/slot=A/slot=B/ /tmp/new").expect(0, &[]);
    let truncate = "dd if=/tmp/new of=grubenv conv=fsync && sync";
    recorder.spoil(alike);
    recorder.record("a truncation", Writer::Truncates, (Some(between), after), |vm| {
        vm.run(&on_efi(truncate)).expect(0, &[]);
    });
}

/// What GRUB boots where every save works.
fn decision(vars: Option<Vars>) -> Decision {
    decide([vars; 2], [true; 2], &mut |saved| [Some(saved); 2])
}

/// How a state is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    /// GRUB gives the trial up and boots the other slot: no harm, but not what was asked.
    GivesUp,
    Bad,
}

impl Act {
    /// Says whether a state is right: as before or as after; only as after, once that was there for certain.
    fn is_right(&self, certain: Option<Vars>, found: Option<Vars>) -> bool {
        found == Some(self.new) || certain != Some(self.new) && found == self.old
    }

    /// The same of both copies together, and of what GRUB decides. Input: the states before the act, after its last
    /// flush, and now.
    fn judge(&self, first: &View, certain: &View, found: &View) -> Verdict {
        let mended = first.copies[0].is_none();
        let right = self.is_right(certain.winner(), found.winner())
            && (self.old.is_none() || found.decision.why != Why::Blind)
            && found.listed
            // What is being made whole, or put in order, may be so only as far as GRUB reads.
            && (found.strict || mended || !certain.in_place);
        let expected = decision(found.winner());
        match right {
            true if found.decision == expected => Verdict::Right,
            // It can read that copy, and not yet save to it: it does not boot a trial that it cannot count.
            true if mended && found.decision == (Decision { first: expected.first.other(), why: Why::NotCounted }) => {
                Verdict::GivesUp
            }
            _ => Verdict::Bad,
        }
    }
}

/// How an act fared. Numbers are of states that differ.
#[derive(Default)]
struct Score {
    cuts: usize,
    judged: usize,
    /// GRUB, with both copies, does wrong.
    bad: usize,
    gives_up: usize,
    first_bad: Option<String>,
    main_judged: usize,
    /// The main copy alone is not as before, and not as it should be.
    main_bad: usize,
    /// Stages in which a copy was being written.
    copy_stages: usize,
    /// States as before the act, and as after it, were among them.
    seen: [bool; 2],
    /// What was certain in the end.
    certain: Option<View>,
}

fn judge(act: &Act, recording: &Recording, grub: &mut Grub) -> Score {
    grub.reset(&recording.base);
    let sectors = recording.touched();
    let mut views: HashMap<Vec<u8>, View> = HashMap::new();
    let mut look = |content: &[u8]| match views.get(content) {
        Some(known) => known.clone(),
        None => views.entry(content.to_vec()).or_insert(grub.view(&sectors, content)).clone(),
    };
    let stages = recording.stages(|sector| sector.starts_with(SIGNATURE));
    let first = look(&stages[0].durable);
    assert_eq!(first.winner(), act.old, "{}: before its first write", act.name);
    let mut score = Score::default();
    for (n, stage) in stages.iter().enumerate() {
        let certain = look(&stage.durable);
        score.cuts += stage.cuts.len();
        score.copy_stages += usize::from(stage.cuts.iter().any(|cut| cut.spoilt));
        let mut judged = HashSet::new();
        for cut in stage.cuts.iter().filter(|cut| judged.insert(&cut.content)) {
            let found = look(&cut.content);
            // GRUB saves to both copies without a flush: it has to trust the drive to write a sector whole.
            if act.writer == Writer::Agent || !cut.spoilt {
                score.judged += 1;
                score.seen[0] |= found.winner() == act.old;
                score.seen[1] |= found.winner() == Some(act.new);
                match act.judge(&first, &certain, &found) {
                    Verdict::Right => {}
                    Verdict::GivesUp => score.gives_up += 1,
                    Verdict::Bad => {
                        score.bad += 1;
                        let words = format!("{}: stage {n}, write {}: {found:?}", act.name, cut.write);
                        score.first_bad.get_or_insert(words);
                    }
                }
            }
            // Nobody can mend a copy, or move its parts, without a second one.
            if first.copies[0].is_some() && first.in_place && !cut.spoilt {
                score.main_judged += 1;
                score.main_bad += usize::from(!act.is_right(certain.copies[0], found.copies[0]));
            }
        }
        score.certain = Some(certain);
    }
    score
}

/// Holds what was found against who wrote.
fn hold(act: &Act, recording: &Recording, score: &Score) {
    let name = &act.name;
    assert!(
        recording.writes() >= 2 && (recording.flushes >= 1 || act.writer == Writer::Grub),
        "{name}: nothing was recorded"
    );
    assert_eq!(score.seen, [true; 2], "{name}: states before it and after it");
    match act.writer {
        Writer::Agent | Writer::Grub => {
            assert_eq!(score.bad, 0, "{:?}", score.first_bad);
            assert_eq!(score.main_bad, 0, "{name}: the main copy alone");
        }
        Writer::Renames | Writer::Truncates => assert!(score.main_bad > 0, "{name}: this test notices nothing"),
    }
    if act.writer == Writer::Agent {
        // One copy is flushed before the other is touched.
        assert!(score.copy_stages >= 2, "{name}: {} stages", score.copy_stages);
        // What the agent said it had done survives whatever was not flushed then.
        let certain = score.certain.as_ref().unwrap();
        assert_eq!(certain.copies, [Some(act.new); 2], "{name}: after its last flush");
        assert!(certain.strict, "{name}");
    }
}

#[apply(long_test)]
fn a_drive_that_loses_its_cache_never_misleads_grub() {
    need_vm(Firmware::Bios);
    need("grub-fstest");
    let start = Instant::now();
    let disk = vm::disk(Firmware::Bios);
    let before = disk.bytes(EFI);
    let log = disk.dir().join("writes.log");
    File::create(&log).unwrap();
    let acts = record(&disk, &log);
    println!("recorded in {} s: {} MiB", start.elapsed().as_secs(), fs::metadata(&log).unwrap().len() >> 20);
    let log = Log::read(&log, disk.extent(EFI));
    let mut replayed = before.clone();
    log.replay(&mut replayed);
    assert!(replayed == disk.bytes(EFI), "the log is not what happened to the disk");

    let mut grub = Grub::new(&disk);
    let mut scores = Vec::new();
    for act in &acts {
        let recording = log.between(&format!("before {}", act.name), &format!("after {}", act.name), &before);
        // SeaBIOS does not announce that it would flush, so QEMU does after each write. Real drives need not.
        let recording = if act.writer == Writer::Grub { recording.without_flushes() } else { recording };
        let score = judge(act, &recording, &mut grub);
        println!("{:?}, {}: {} writes, {} flushes", act.writer, act.name, recording.writes(), recording.flushes);
        let Score { cuts, bad, judged, main_bad, main_judged, gives_up, .. } = score;
        println!("    {bad} of {judged} states bad; main copy alone {main_bad} of {main_judged}");
        println!("    {cuts} cuts; gives a trial up in {gives_up}");
        scores.push((act, recording, score));
    }
    for writer in [Writer::Agent, Writer::Grub, Writer::Renames, Writer::Truncates] {
        let of = |count: fn(&Score) -> usize| -> usize {
            scores.iter().filter(|(act, ..)| act.writer == writer).map(|(.., score)| count(score)).sum()
        };
        let (bad, judged) = (of(|s| s.bad), of(|s| s.judged));
        let (main_bad, main_judged) = (of(|s| s.main_bad), of(|s| s.main_judged));
        println!("{writer:?}: {bad} of {judged} states bad; main copy alone {main_bad} of {main_judged}");
    }
    println!("{} s in all", start.elapsed().as_secs());
    for (act, recording, score) in &scores {
        hold(act, recording, score);
    }
}
