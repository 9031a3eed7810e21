//! Any sequence of commands, failures and restarts keeps the invariants of DESIGN sections 5 and 11.
//!
//! proptest makes up the lives of machines; the agent is the real one, on a disk image; GRUB is the decision table of
//! `src/boot/grub_table.rs`, to which `tests/grub/table.rs` holds a real GRUB. A failing life is made shorter, and printed as a line that runs
//! it again:  `LIFECYCLE_SCRIPT='apply activate; restart' cargo test --test disk lifecycle -- --nocapture`
//!
//! `LIFECYCLE_CASES`: how many lives; `LIFECYCLE_SECONDS`: no new life is begun after so long; `LIFECYCLE_SEED`: which;
//! `LIFECYCLE_SHRINKING`: seconds to make a failing one shorter.

mod damage;
mod expect;
mod hold;
mod ops;
mod view;
mod world;

use crate::support::disk::{architecture, initramfs_of, need_disks, noise, other_architecture};
use crate::support::need;
use crate::support::release::{Medium, Pair, Release, Target};
use ops::{Fault, Op, life, parse_script, script};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use view::{Make, Offer};
use world::{Counts, World};

/// The same lives in every run: who looks for more gives another number.
const SEED: u64 = 1;
const CASES: u64 = 80;
const SECONDS: u64 = 75;
const THREADS: u64 = 2;
const SHRINKING_SECONDS: u64 = 180;

const AFTER: &str = "after operation ";

/// A life in which everything happens that can: whatever chance leaves out, this does not.
const TOUR: &str = include_str!("lifecycle/tour.txt");

/// Lives that went wrong once.
const MENDED: [&str; 8] = [
    // attempt_count was that of the version that failed, beside the name of the one that was left.
    "restart; apply activate; restart; health-pass; apply which=4; rollback",
    // Confirmed, and remembered as failed for good.
    "apply; restart; activate; rollback; apply activate retry; restart; health-pass kill=rename:2; health-pass",
    // Healthy, and killed before the boot variables: forgotten as a failure, and not confirmed yet.
    "restart; apply activate; rollback; restart-skipping; apply; health-pass kill=pwrite64:1; apply",
    // A slot taken over in this very run was taken for one without a way back, since nothing could be recorded.
    "restart-skipping; health-fail unwritable",
    // GRUB at the end of its count, and nothing that it decides can be written.
    "restart; apply activate; restart; restart; apply activate; restart; restart-uncounted which=1; apply",
    // `status` repeats why a slot was made active, which is not doing it.
    "restart; rollback; restart; restart; restart; restart-uncounted which=1; health-fail; restart; status",
    // A rollback called off, and cut off before the state: the next run has to find it, and not count it.
    "restart; rollback; rollback kill=rename:1; apply",
    // The same where it could not be recorded.
    "restart; apply activate; restart; health-pass; rollback; rollback unwritable; apply activate",
];

fn release(dir: &std::path::Path, version: &str) -> Release {
    let pair = |architecture: &'static str| {
        let seed = version.bytes().chain(architecture.bytes()).fold(7u64, |h, b| h.wrapping_mul(31) ^ u64::from(b));
        let initramfs = initramfs_of(dir, &noise(seed ^ 1, 60_003));
        Pair {
            architecture,
            kernel: crate::support::disk::kernel_noise(seed, 150_007),
            initramfs,
            chunks: None,
            first_layer: 0,
        }
    };
    Release { version: version.into(), annotations: Vec::new(), pairs: [pair("amd64"), pair("arm64")] }
}

fn offers(dir: &std::path::Path) -> Vec<Offer> {
    let table = [
        ("2.0.0", Make::Good),
        ("3.0.0", Make::Good),
        ("4.0.0", Make::Good),
        ("0.9.0", Make::Good),
        ("5.0.0", Make::Damaged),
        ("6.0.0", Make::Foreign),
        ("7.0.0", Make::Expired),
    ];
    table.map(|(version, make)| offer(dir, version, make)).into()
}

fn offer(dir: &std::path::Path, version: &str, make: Make) -> Offer {
    let mut release = release(dir, version);
    let medium = match make {
        Make::Foreign => {
            let layout = dir.join("layout-foreign");
            let pair = release.pairs.iter().find(|p| p.architecture == other_architecture()).unwrap();
            let digest = release.push(dir, Target::Layout, &format!("{}:latest", layout.display()), pair);
            Medium { dir: layout, digest }
        }
        Make::Expired => {
            release = release.with("io.kubesolo.os.expires", "2026-01-02T00:00:00Z");
            Medium::new(dir, &release)
        }
        _ => Medium::new(dir, &release),
    };
    if make == Make::Damaged {
        let mut bytes = release.ours().initramfs.clone();
        let blob = medium.blob(&bytes);
        bytes[1000] ^= 1;
        std::fs::write(blob, bytes).unwrap();
    }
    assert!(release.ours().architecture == architecture());
    Offer { make, release, medium }
}

/// Lives one life. Errors: the operation after which something was wrong, and what.
fn live(offers: &[Offer], ops: &[Op], counts: &Mutex<Counts>, tells: bool) -> Result<(), String> {
    let mut world = World::new(offers);
    let mut result = Ok(());
    for (n, op) in ops.iter().enumerate() {
        result = hold::step(&mut world, *op)
            .map_err(|why| format!("{AFTER}{} ({op}), slot {} running: {why}", n + 1, world.running));
        if tells {
            let phase = world.now.state.as_ref().map_or("damaged", |state| state.phase.as_str());
            let settled = if world.settled { "" } else { ", unsettled" };
            println!("{op:<40} slot {} runs, {}, {phase}{settled}", world.running, world.now.vars.line());
        }
        if result.is_err() {
            break;
        }
    }
    let mut counts = counts.lock().unwrap_or_else(|e| e.into_inner());
    world.counts.iter().for_each(|(name, n)| *counts.entry(name.clone()).or_default() += n);
    result
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// What must have happened in a run, or it proves nothing.
fn assert_covered(counts: &Counts, of: &[String]) {
    let missing: Vec<&String> = of.iter().filter(|name| !counts.contains_key(*name)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?}\n{counts:?}");
}

#[apply(long_test)]
fn any_sequence_keeps_the_invariants() {
    need_disks();
    need("oras");
    need("strace");
    let dir = tempfile::tempdir().unwrap();
    let offers = offers(dir.path());
    if let Ok(text) = std::env::var("LIFECYCLE_SCRIPT") {
        let counts = Mutex::default();
        live(&offers, &parse_script(&text), &counts, true).unwrap_or_else(|why| panic!("{why}"));
        return;
    }
    let toured = Mutex::default();
    let tour: Vec<Op> = TOUR.lines().filter(|line| !line.starts_with('#')).flat_map(parse_script).collect();
    if number("LIFECYCLE_TOUR", 1) == 0 {
        // To see what chance alone finds.
        println!("by chance: {:?}", by_chance(&offers));
        return;
    }
    if let Err(why) = live(&offers, &tour, &toured, false) {
        panic!("{why}\nLIFECYCLE_SCRIPT='{}'", script(&tour));
    }
    let toured = toured.into_inner().unwrap();
    for text in MENDED {
        let counts = Mutex::default();
        if let Err(why) = live(&offers, &parse_script(text), &counts, false) {
            panic!("{why}\nLIFECYCLE_SCRIPT='{text}'");
        }
        let killed = counts.into_inner().unwrap().get("killed").copied().unwrap_or(0);
        let wanted = parse_script(text).iter().filter(|op| matches!(op.fault, Fault::Kill(..))).count();
        assert_eq!(killed as usize, wanted, "a command was to be killed and was not: '{text}'");
    }
    let verbs = ops::VERBS.iter().map(|(_, name)| name.to_string());
    let phases = PHASES.iter().map(|phase| format!("phase {phase}"));
    let events = EVENTS.iter().map(|event| event.to_string());
    assert_covered(&toured, &verbs.chain(phases).chain(events).collect::<Vec<_>>());
    let counts = by_chance(&offers);
    println!("by chance: {counts:?}");
    // What chance alone must bring, if it is worth its time.
    if counts.get("lives").is_some_and(|lives| *lives >= 10) {
        assert_covered(&counts, &["killed", "restart", "confirmed", "GRUB goes back", "unwritable"].map(String::from));
    }
}

const PHASES: [&str; 9] =
    ["idle", "checking", "downloading", "staged", "activated", "verifying", "success", "failed", "rolled_back"];
const EVENTS: [&str; 16] = [
    "killed",
    "unwritable",
    "confirmed",
    "GRUB goes back",
    "a slot is passed over",
    "a boot that is not counted",
    "neither slot is proven",
    "booted by hand",
    "called off",
    "never tried",
    "a system that does not come up",
    "exit 0",
    "exit 3",
    "exit 4",
    "exit 5",
    "exit 9",
];

/// Lives made up by proptest, on several threads. Panics: one goes wrong.
fn by_chance(offers: &[Offer]) -> Counts {
    let seed = number("LIFECYCLE_SEED", SEED);
    let cases = number("LIFECYCLE_CASES", CASES);
    let deadline = Instant::now() + Duration::from_secs(number("LIFECYCLE_SECONDS", SECONDS));
    println!("LIFECYCLE_SEED={seed} LIFECYCLE_CASES={cases}");
    let (counts, stop) = (Mutex::<Counts>::default(), AtomicBool::new(false));
    let failure = std::thread::scope(|scope| {
        let worker = |n: u64| {
            let (counts, stop) = (&counts, &stop);
            scope.spawn(move || {
                let share = Share { seed: seed.wrapping_add(n), cases: cases.div_ceil(THREADS), deadline };
                let found = one_thread(offers, &share, counts, stop);
                stop.fetch_or(found.is_some(), Ordering::SeqCst);
                found
            })
        };
        let workers: Vec<_> = (0..THREADS).map(worker).collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).next()
    });
    if let Some(said) = failure {
        panic!("{said}\nLIFECYCLE_SEED={seed}");
    }
    counts.into_inner().unwrap()
}

/// What one thread does of it.
struct Share {
    seed: u64,
    cases: u64,
    deadline: Instant,
}

fn one_thread(
    offers: &[Offer],
    &Share { seed, cases, deadline }: &Share,
    counts: &Mutex<Counts>,
    stop: &AtomicBool,
) -> Option<String> {
    let config = Config {
        cases: cases as u32,
        failure_persistence: None,
        max_shrink_time: number("LIFECYCLE_SHRINKING", SHRINKING_SECONDS) as u32 * 1000,
        max_shrink_iters: 4000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let has_failed = AtomicBool::new(false);
    let result = runner.run(&life(offers.len()), |life| {
        // A life that went wrong is made shorter, however long that takes.
        let is_over = Instant::now() > deadline || stop.load(Ordering::SeqCst);
        if is_over && !has_failed.load(Ordering::SeqCst) {
            return Ok(());
        }
        *counts.lock().unwrap_or_else(|e| e.into_inner()).entry("lives".into()).or_default() += 1;
        live(offers, &life.concat(), counts, false).map_err(|why| {
            has_failed.store(true, Ordering::SeqCst);
            TestCaseError::fail(why)
        })
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(why, life)) => {
            // What came after it has nothing to do with it.
            let after = why.message().strip_prefix(AFTER).and_then(|rest| rest.split(' ').next()?.parse().ok());
            let mut ops = life.concat();
            ops.truncate(after.unwrap_or(ops.len()));
            Some(format!("{why}\nLIFECYCLE_SCRIPT='{}'", script(&ops)))
        }
        Err(other) => Some(other.to_string()),
    }
}
