//! What is copied from the running slot, where the line, the slot or the server is bad: an update ends all the same, and what it
//! costs is said.

use crate::support::delta::Delta;
use crate::support::disk::{A, need_disks};
use crate::support::hostile::{Ask, Hostile, Reply, Step};
use crate::support::hostile_bench::{Bench, HTTP, REGISTRY, SOURCES, hold};
use crate::support::hostile_table::{CHUNKED, PUBLISHED, Published, assert_staged, before};
use crate::support::machine::Machine;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn bench(machine: Machine, conf: &str, script: impl Fn(&Ask) -> Reply + Send + Sync + 'static) -> Bench {
    let bench = Bench { machine, server: Hostile::start(Arc::new(script)) };
    bench.configure(conf);
    bench
}

/// A byte of the running slot has rotted, so that all has to be fetched; and the line never carries all of it at once. What came
/// is continued, and not completed with the rotten byte over and over.
#[apply(test)]
fn a_rotten_slot_and_a_bad_line_end_staged() {
    const CARRIED: usize = 900_000;
    need_disks();
    let mut machine = Machine::with_slots(24);
    let (old_kernel, old_initramfs) = (CHUNKED.kernel.clone(), before(&PUBLISHED.initramfs));
    Delta { old_kernel, old_initramfs, new: CHUNKED.release.clone() }.install(&mut machine, &[]);
    machine.in_slot(A, "printf x | dd of=vmlinuz bs=1 seek=1400000 conv=notrunc");
    machine.running = machine.disk.bytes(A);
    let bench = bench(machine, HTTP, |ask| match CHUNKED.honest(ask) {
        whole if ask.is_get() && CHUNKED.is_kernel(ask) && CHUNKED.kernel.len() - ask.from() > CARRIED => {
            whole.then(CARRIED, vec![Step::Reset])
        }
        rest => rest,
    });
    let first = bench.run(&["apply"]).expect(6, &["it is not what was published", "all of it fetched"]);
    assert_eq!(first.stderr.matches("all of it fetched").count(), 1, "{first:?}");
    let began = bench.server.seen().len();
    bench.run(&["apply"]).expect(0, &["continuing after", "2.0.0 is staged"]);
    assert_staged(&bench.machine, HTTP);
    let seen = bench.server.seen();
    let asked: Vec<usize> = seen[began..].iter().filter(|ask| CHUNKED.is_kernel(ask)).map(Ask::from).collect();
    assert!(asked.iter().any(|from| *from > CARRIED / 2) && !asked.contains(&0), "{asked:?}");
}

/// What an update would fetch is known after one that failed, without asking again each time.
#[apply(test)]
fn a_forecast_outlives_a_failed_update() {
    static IS_DOWN: AtomicBool = AtomicBool::new(true);
    need_disks();
    let tagged = |published: &Published, ask: &Ask| {
        let reply = published.honest(ask);
        match ask.path.contains("/manifests/") {
            true => reply.header("Docker-Content-Digest", &format!("sha256:{}", published.manifest_sha)),
            false => reply,
        }
    };
    let bench = bench(CHUNKED.machine_with(24), REGISTRY, move |ask| {
        match IS_DOWN.load(Ordering::SeqCst) && ask.is_get() && CHUNKED.is_kernel(ask) {
            true => Reply::new(503, ""),
            false => tagged(&CHUNKED, ask),
        }
    });
    bench.run(&["apply"]).expect(6, &["503"]);
    let first = bench.run(&["check", "--json"]).expect(0, &[]);
    assert!(first.jq(".fetch_bytes").parse::<u64>().unwrap() > 0, "{first:?}");
    let asked = bench.server.seen().len();
    for again in [&["check"][..], &["apply", "--dry-run"]] {
        bench.run(again).expect(0, &["To fetch", "slot A has the other"]);
    }
    assert_eq!(bench.server.seen().len(), asked + 2, "{:?}", bench.server.seen());
}

/// A server that sends no parts is named, and all that it sends is counted.
#[apply(test)]
fn what_comes_twice_is_counted() {
    need_disks();
    hold(SOURCES, |conf| {
        let bench = bench(CHUNKED.machine_with(24), conf, |ask| CHUNKED.honest(&Ask { range: None, ..ask.clone() }));
        let done = bench.run(&["apply", "--json"]).expect(0, &["does not send parts of files"]);
        let sent = CHUNKED.kernel.len() + CHUNKED.initramfs.len();
        let files = bench
            .server
            .seen()
            .into_iter()
            .filter(|ask| ask.is_get() && (CHUNKED.is_kernel(ask) || CHUNKED.is_initramfs(ask)));
        assert_eq!((done.jq(".fetched_bytes"), files.count()), (sent.to_string(), 2));
        assert!(done.jq(".copied_bytes").parse::<u64>().unwrap() > 100_000, "{done:?}");
    });
}

/// What cannot be copied from is named, in one line, and all is fetched.
#[apply(test)]
fn a_running_slot_that_lacks_something_is_named() {
    need_disks();
    for (script, words) in [
        ("rm slot.json", "slot A"),
        ("rm vmlinuz; ln -s kubesolo-os.gz vmlinuz", "vmlinuz"),
        ("rm kubesolo-os.gz; mkdir kubesolo-os.gz", "kubesolo-os.gz"),
    ] {
        let mut machine = CHUNKED.machine_with(24);
        machine.in_slot(A, script);
        machine.running = machine.disk.bytes(A);
        let bench = bench(machine, HTTP, |ask| CHUNKED.honest(ask));
        let done = bench.run(&["apply", "--json"]).expect(0, &[words, "fetched"]);
        let told = done.stderr.lines().filter(|line| line.contains("is fetched")).count();
        assert_eq!((told, done.jq(".copied_bytes").as_str()), (1, "0"), "{script}: {done:?}");
        assert_staged(&bench.machine, script);
    }
}
