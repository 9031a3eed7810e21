//! Whole machines whose plug is pulled, again and again, at every step of an update. Nothing leaves this machine.
//!
//! After each cut: it boots by itself, what runs is a whole version, and the next update succeeds.

use crate::support::disk::EFI;
use crate::support::kit::{self, BORN, Firmware, need_vm};
use crate::support::release::Release;
use crate::support::site::{CONFIRMED, Site, apply, partition};
use crate::support::vm::{Answer, Vm};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Longest that a step may take until it is cut, whatever it waits for.
const LIMIT: Duration = Duration::from_secs(120);
/// From so many cuts of each step on, a series must have met more than one outcome of it.
const ENOUGH: u32 = 6;

/// Numbers that repeat from run to run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// As much of a time, in thousandths, as falls.
    fn part_of(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.below(1000) as f64 / 1000.0)
    }
}

/// What a machine is at when its plug is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    Apply,
    Activate,
    Boot,
    Rollback,
    Confirm,
}

const WORKS: [Work; 5] = [Work::Apply, Work::Activate, Work::Boot, Work::Rollback, Work::Confirm];

/// The first sectors of both copies of the boot variables, as the disk has them now.
struct Watch {
    image: File,
    at: [u64; 2],
}

impl Watch {
    fn new(site: &Site) -> Watch {
        let (start, signature) = (site.disk.extent(EFI).0, b"# GRUB Environment Block\n");
        let bytes = site.disk.bytes(EFI);
        let sectors = bytes.chunks_exact(512).zip(0u64..).filter(|(sector, _)| sector.starts_with(signature));
        let at: Vec<u64> = sectors.map(|(_, n)| start + n * 512).collect();
        Watch { image: File::open(&site.disk.image).unwrap(), at: at.try_into().expect("two copies") }
    }

    /// Says whether the file system that starts there is mounted for writing: its journal is to be replayed.
    fn is_written(&self, start: u64) -> bool {
        let mut incompatible = [0; 4];
        self.image.read_exact_at(&mut incompatible, start + 1024 + 96).unwrap();
        u32::from_le_bytes(incompatible) & 4 != 0
    }

    fn look(&self) -> [[u8; 512]; 2] {
        self.at.map(|at| {
            let mut sector = [0; 512];
            self.image.read_exact_at(&mut sector, at).unwrap();
            sector
        })
    }
}

/// How long a step took when it was last not cut.
struct Times {
    apply: Duration,
    activate: Duration,
    boot: Duration,
    confirm: Duration,
}

/// A plug that was pulled.
pub struct Cut {
    work: Work,
    pub moment: String,
    /// The boot variables before.
    block: [[u8; 512]; 2],
    /// What was on its way to the other slot, or lay there.
    pub next: Release,
}

/// Makes a version of that name, and offers it.
pub type Offer = dyn Fn(&Site, &str) -> Release;

/// Where a machine's updates come from.
pub struct Offers {
    pub offer: Box<Offer>,
    /// The command that takes it.
    pub apply: String,
}

pub struct Series {
    dice: Dice,
    pub site: Site,
    offers: Offers,
    watch: Watch,
    vm: Option<Vm>,
    /// What runs, what it runs from, and what the other slot holds.
    pub running: Release,
    pub slot: char,
    pub other: Release,
    versions: u32,
    times: Times,
}

impl Series {
    pub fn new(seed: u64, site: Site, offers: Offers) -> Series {
        let (watch, mut vm) = (Watch::new(&site), site.power_on());
        vm.expect_hello("manual", BORN, 'A');
        let born = kit::born(Firmware::Bios);
        let unknown = Duration::from_secs(1);
        let times = Times { apply: unknown, activate: unknown, boot: unknown, confirm: unknown };
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (running, other, vm) = (born.clone(), born, Some(vm));
        Series { dice, site, offers, watch, vm, running, slot: 'A', other, versions: 0, times }
    }

    pub fn vm(&mut self) -> &mut Vm {
        self.vm.as_mut().unwrap()
    }

    pub fn target(&self) -> char {
        if self.slot == 'A' { 'B' } else { 'A' }
    }

    fn offer_next(&mut self) -> Release {
        self.versions += 1;
        (self.offers.offer)(&self.site, &format!("1.{}.0", self.versions))
    }

    /// Sends a command, and waits until it has changed the boot variables. Returns: how long that took.
    #[track_caller]
    fn until_block_changes(&mut self, line: &str) -> Duration {
        let (before, start) = (self.watch.look(), Instant::now());
        let (vm, watch) = (self.vm.as_mut().unwrap(), &self.watch);
        vm.send(line);
        assert!(vm.listen_until(LIMIT, || watch.look() != before), "'{line}' writes no block");
        start.elapsed()
    }

    /// A whole update, which nothing disturbs.
    pub fn update(&mut self, what: &str) {
        let next = self.offer_next();
        self.stage(what);
        self.restart_into(next, what);
        self.confirm(what);
        self.assert_whole(what);
    }

    fn stage(&mut self, what: &str) {
        let answer = self.apply("");
        assert_eq!(answer.code, 0, "{what}: {}", answer.text);
    }

    /// Runs `apply` to its end. Input: `more`: options.
    pub fn apply(&mut self, more: &str) -> Answer {
        let (start, line) = (Instant::now(), format!("{} {more}", self.offers.apply));
        let answer = self.vm().agent(&line);
        self.times.apply = start.elapsed();
        answer
    }

    /// Activates what is staged, and waits until it runs.
    pub fn restart_into(&mut self, next: Release, what: &str) {
        self.times.activate = self.until_block_changes("kubesolo-update activate --reboot");
        let start = Instant::now();
        let runs = self.vm().hello("manual");
        self.times.boot = start.elapsed();
        assert_eq!(runs, (next.version.clone(), self.target()), "{what}: the next update");
        self.slot = self.target();
        self.other = std::mem::replace(&mut self.running, next);
    }

    pub fn confirm(&mut self, what: &str) {
        let start = Instant::now();
        let answer = self.vm().agent("healthcheck --timeout 5");
        assert!(answer.code == 0 && answer.text.contains(CONFIRMED), "{what}: {}", answer.text);
        self.times.confirm = start.elapsed();
    }

    /// Both slots, and both copies of the boot variables, from inside and from outside.
    pub fn assert_whole(&mut self, what: &str) {
        let verify = self.vm().agent("verify");
        assert_eq!(verify.code, 0, "{what}: {}", verify.text);
        self.site.assert_slot(partition(self.slot), &self.running);
        self.site.assert_slot(partition(self.target()), &self.other);
        assert!(self.site.boot_variables().starts_with(&format!("{}:1:", self.slot)), "{what}");
    }

    /// Starts a step, and pulls the plug at some moment of it: of three times once when it writes, once early, once at
    /// any moment. What a series meets is not left to chance. Input: `turn` counts the cuts of this step.
    pub fn cut(&mut self, work: Work, turn: u32, what: &str) -> Cut {
        let next = match work {
            Work::Rollback => None,
            _ => Some(self.offer_next()),
        };
        if work != Work::Apply && work != Work::Rollback {
            self.stage(what);
        }
        let (line, usual) = match work {
            Work::Apply => (format!("kubesolo-update {}", self.offers.apply), self.times.apply),
            Work::Activate => ("kubesolo-update activate".to_string(), self.times.activate),
            Work::Rollback => ("kubesolo-update rollback".to_string(), self.times.activate),
            Work::Boot => {
                self.vm().agent("activate").expect(0, &[]);
                ("sync; reboot -f".to_string(), self.times.boot)
            }
            Work::Confirm => {
                if let Some(next) = &next {
                    self.restart_into(next.clone(), what);
                }
                ("kubesolo-update healthcheck --timeout 5".to_string(), self.times.confirm)
            }
        };
        let block = self.watch.look();
        let moment = if turn.is_multiple_of(3) {
            let (more, words) = self.until_it_writes(work, &line, usual);
            self.vm().listen_for(more);
            format!("{more:?} after {words}")
        } else {
            self.vm().send(&line);
            let delay = self.dice.part_of(usual.mul_f64(if turn % 3 == 1 { 0.15 } else { 1.1 }));
            self.vm().listen_for(delay);
            format!("after {delay:?} of {usual:?}")
        };
        self.vm.take().unwrap().cut();
        Cut { work, moment, block, next: next.unwrap_or_else(|| self.other.clone()) }
    }

    /// Starts a step, and waits until it writes. Returns: how much later to cut it; after what.
    fn until_it_writes(&mut self, work: Work, line: &str, usual: Duration) -> (Duration, &'static str) {
        if work != Work::Apply {
            self.until_block_changes(line);
            return (self.dice.part_of(Duration::from_millis(10)), "the boot variables changed");
        }
        let target = self.site.disk.extent(partition(self.target())).0;
        let (vm, watch) = (self.vm.as_mut().unwrap(), &self.watch);
        vm.send(line);
        assert!(vm.listen_until(LIMIT, || watch.is_written(target)), "'{line}' writes no slot");
        (self.dice.part_of(usual.mul_f64(0.6)), "the slot was mounted")
    }

    /// What the cut left on the disk, from outside, before anything boots.
    pub fn found(&self, cut: &Cut) -> &'static str {
        if cut.work == Work::Apply {
            let slot = partition(self.target());
            if self.watch.is_written(self.site.disk.extent(slot).0) {
                return "target half written";
            }
            let record = self.site.disk.debugfs(slot, "cat /slot.json").replace(' ', "");
            let new = record.contains(&format!("\"version\":\"{}\"", cut.next.version));
            return if new { "target with its new record" } else { "target as it was" };
        }
        let block = self.watch.look();
        match [block[0] != cut.block[0], block[1] != cut.block[1]] {
            [false, false] => "boot variables as they were",
            [true, false] => "one copy of the boot variables written",
            [false, true] => "only the backup of the boot variables written",
            [true, true] => "both copies of the boot variables written",
        }
    }

    /// It boots, by itself, and what runs is a version that may run now, and whole.
    pub fn boots(&mut self, cut: &Cut, what: &str) {
        self.vm = Some(self.site.power_on());
        let (version, slot) = self.vm().hello("manual");
        let stays = (version.as_str(), slot) == (self.running.version.as_str(), self.slot);
        let moves = version == cut.next.version && slot == self.target();
        let allowed = match cut.work {
            Work::Apply | Work::Confirm => stays,
            Work::Activate | Work::Rollback => stays || moves,
            Work::Boot => moves,
        };
        assert!(allowed, "{what}: {version} runs in slot {slot}");
        if moves {
            self.slot = slot;
            self.other = std::mem::replace(&mut self.running, cut.next.clone());
        }
        self.site.assert_slot(partition(slot), &self.running);
        let verify = self.vm().agent(&format!("verify --slot {slot}"));
        // Slots only: a copy of the boot variables may be behind.
        assert!(verify.text.contains(&format!("{version} is what its record says")), "{what}: {}", verify.text);
        self.vm().agent("status").expect(0, &[&format!("slot {slot}")]);
    }

    /// Settles what the cut left open. Returns: words about it.
    fn settle(&mut self, what: &str) -> &'static str {
        let on_trial = self.vm().agent("status --json").jq(".boot.boot_success") == "false";
        if on_trial {
            self.confirm(what);
            return "on trial";
        }
        "confirmed"
    }
}

/// One series of cuts. Panics: something is not as it must be; or so many cuts met so little that they prove nothing.
fn power_cuts(seed: u64, cuts: u32) {
    let offer = Box::new(|site: &Site, version: &str| site.offer(version, "healthy"));
    let offers = Offers { offer, apply: apply() };
    let (start, mut series) = (Instant::now(), Series::new(seed, Site::new(Firmware::Bios), offers));
    let mut met: BTreeMap<(Work, &str), u32> = BTreeMap::new();
    series.update("before the first cut");
    for (number, work) in (1..=cuts).zip(WORKS.into_iter().cycle()) {
        let what = format!("seed {seed}, cut {number} of {cuts}: {work:?}");
        let cut = series.cut(work, (number - 1) / WORKS.len() as u32, &what);
        let found = series.found(&cut);
        let what = format!("{what} {}: {found}", cut.moment);
        series.boots(&cut, &what);
        let what = format!("{what}; {} runs in slot {}", series.running.version, series.slot);
        let state = series.settle(&what);
        series.update(&what);
        println!("{what}, {state}; updated to {}, slot {}", series.running.version, series.slot);
        *met.entry((work, found)).or_default() += 1;
    }
    let seconds = start.elapsed().as_secs();
    println!("seed {seed}: {cuts} cuts and {cuts} updates after them in {seconds} s; met: {met:?}");
    if cuts / WORKS.len() as u32 >= ENOUGH {
        let count = |work, found| met.get(&(work, found)).copied().unwrap_or_default();
        assert!(count(Work::Apply, "target half written") > 0, "no slot was cut while it was written");
        for work in [Work::Activate, Work::Rollback, Work::Confirm] {
            let as_it_was = count(work, "boot variables as they were");
            assert!(as_it_was > 0, "{work:?} was never cut before its write");
            assert!(as_it_was < cuts / WORKS.len() as u32, "{work:?} was never cut at or after its write");
        }
    }
}

/// How many cuts each of the two series makes: 30, or half of what `CUTS` says.
fn cuts() -> u32 {
    let total = std::env::var("CUTS").ok().filter(|c| !c.is_empty()).map_or(60, |c| c.parse().expect("CUTS=NUMBER"));
    u32::div_ceil(total, 2)
}

#[apply(long_test)]
fn power_cuts_first_series() {
    need_vm(Firmware::Bios);
    power_cuts(1, cuts());
}

#[apply(long_test)]
fn power_cuts_second_series() {
    need_vm(Firmware::Bios);
    power_cuts(2, cuts());
}
