//! `metrics`: what it says of machines in every state, the two ways beside the server, and that it stands in nobody's way.

use crate::support::disk::{A, B, Disk, need_disks, wait_for};
use crate::support::prometheus::{check_metrics, need_promtool, value};
use crate::support::release::Release;
use crate::support::root::Root;
use crate::support::served::{PATIENCE, Served};
use crate::support::trial::Trial;
use crate::support::web::{Answer, Web};
use crate::support::{self, run};
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(120);
/// At once, and so often each: with one temporary name for all, every third run failed.
const WRITERS: usize = 3;
const RUNS: usize = 30;

const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };

fn proc_files(root: &Root) {
    for name in ["meminfo", "stat"] {
        fs::write(root.path("proc").join(name), fs::read(format!("/proc/{name}")).unwrap()).unwrap();
    }
}

/// Holds values of the printed page, which promtool has found clean.
#[track_caller]
fn once(root: &Root, expected: &[(&str, u64)]) -> String {
    let page = root.agent(&["metrics", "--once"]).expect(0, &[]).stdout;
    check_metrics(&page);
    for (series, wanted) in expected {
        assert_eq!(value(&page, series), *wanted, "{series}");
    }
    page
}

fn info(version: &str, channel: &str, slot: &str) -> String {
    let known = format!("version=\"{version}\",channel=\"{channel}\",architecture=\"{ARCHITECTURE}\",slot=\"{slot}\"");
    format!("kubesolo_os_info{{{known}}}")
}

#[apply(test)]
fn a_stable_machine() {
    need_disks();
    need_promtool();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    root.set_boot_variables(&["boot_canary=1"]);
    proc_files(&root);
    let before = ([disk.bytes(A), disk.bytes(B)], root.blocks(), names(&root));
    let page = once(
        &root,
        &[
            (&info("1.0.0", "stable", "A"), 1),
            ("kubesolo_update_phase{phase=\"idle\"}", 1),
            ("kubesolo_update_phase{phase=\"staged\"}", 0),
            ("kubesolo_update_attempts_total", 0),
            ("kubesolo_update_last_attempt_timestamp_seconds", 0),
            ("kubesolo_update_available", 0),
            ("kubesolo_boot_success", 1),
            ("kubesolo_boot_canary", 1),
            ("kubesolo_slot_valid{slot=\"A\"}", 1),
            ("kubesolo_update_last_error{kind=\"network\"}", 0),
        ],
    );
    let of_shell = |script: &str| -> u64 { run(Command::new("sh").args(["-c", script])).trim().parse().unwrap() };
    let total = of_shell("awk '/^MemTotal:/ { print $2 }' /proc/meminfo") * 1024;
    assert_eq!(value(&page, "kubesolo_memory_total_bytes"), total);
    let booted = of_shell("awk '/^btime/ { print $2 }' /proc/stat");
    assert_eq!(value(&page, "kubesolo_boot_time_seconds"), booted);
    let available = value(&page, "kubesolo_memory_available_bytes");
    assert!(available > 0 && available < total, "{available}");
    // It looked, and no more.
    assert!(before == ([disk.bytes(A), disk.bytes(B)], root.blocks(), names(&root)), "something was written");
}

/// Every file below the machine's own directories.
fn names(root: &Root) -> Vec<String> {
    let found = run(Command::new("find").args(["boot", "var", "etc"]).current_dir(root.path("")));
    found.lines().map(str::to_string).collect()
}

#[apply(test)]
fn an_update_from_beginning_to_end() {
    Trial::ready();
    need_promtool();
    let mut trial = Trial::activated();
    once(
        &trial.root,
        &[
            (&info("1.0.0", "stable", "A"), 1),
            ("kubesolo_update_phase{phase=\"activated\"}", 1),
            ("kubesolo_update_attempts_total", 1),
            ("kubesolo_boot_success", 0),
            ("kubesolo_boot_counter", 3),
            ("kubesolo_slot_valid{slot=\"B\"}", 1),
        ],
    );
    trial.root.set_boot_variables(&["boot_counter=2"]);
    trial.boot(B);
    let page = once(
        &trial.root,
        &[(&info("2.0.0", "stable", "B"), 1), ("kubesolo_boot_counter", 2), ("kubesolo_boot_success", 0)],
    );
    // As date(1) reads what the state says.
    for (field, series) in [("started_at", "last_attempt"), ("updated_at", "state")] {
        let time = trial.root.state_field(field);
        let truth = run(Command::new("date").args(["-u", "+%s", "-d", &time]));
        assert_eq!(value(&page, &format!("kubesolo_update_{series}_timestamp_seconds")).to_string(), truth.trim());
    }
    trial.root.agent(&["rollback"]).expect(0, &[]);
    once(
        &trial.root,
        &[
            ("kubesolo_update_phase{phase=\"rolled_back\"}", 1),
            // Not before the machine has restarted, and the agent runs.
            ("kubesolo_update_rollbacks_total", 0),
            ("kubesolo_update_last_error{kind=\"rollback\"}", 1),
            ("kubesolo_boot_success", 1),
        ],
    );
    trial.boot(A);
    trial.root.agent(&["activate"]).expect(3, &[]);
    once(&trial.root, &[("kubesolo_update_phase{phase=\"rolled_back\"}", 1), ("kubesolo_update_rollbacks_total", 1)]);
}

#[apply(test)]
fn a_broken_machine_is_defaults_and_never_a_failure() {
    need_disks();
    need_promtool();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    fs::create_dir_all(root.path("var/lib/kubesolo/update")).unwrap();
    let garbage = [&b"{\"phase\":"[..], b"", b"\xff\xfe\x00", &[b'7'; 100_000]];
    for bytes in garbage {
        for file in ["state.json", "failed.json", "seen.json", "proven.json"] {
            fs::write(root.path("var/lib/kubesolo/update").join(file), bytes).unwrap();
        }
        for file in ["boot/efi/boot/grub/grubenv", "boot/efi/boot/grub/grubenv.bak", "etc/kubesolo/update.conf"] {
            fs::write(root.path(file), bytes).unwrap();
        }
        for file in ["meminfo", "stat"] {
            fs::write(root.path("proc").join(file), bytes).unwrap();
        }
        once(
            &root,
            &[
                (&info("1.0.0", "stable", "A"), 1),
                ("kubesolo_update_phase{phase=\"idle\"}", 1),
                ("kubesolo_boot_success", 0),
                ("kubesolo_boot_canary", 0),
                ("kubesolo_slot_valid{slot=\"A\"}", 1),
                ("kubesolo_memory_total_bytes", 0),
            ],
        );
    }
    // Nothing is there at all.
    let nothing = tempfile::tempdir().unwrap();
    let run = Command::new(Root::program()).args(["metrics", "--once", "--root"]).arg(nothing.path()).output().unwrap();
    let page = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{page}");
    check_metrics(&page);
    assert_eq!(value(&page, &info("unknown", "unknown", "unknown")), 1);
    assert_eq!(value(&page, "kubesolo_slot_valid{slot=\"A\"}"), 0);
}

#[apply(test)]
fn labels_from_a_hostile_version_file_are_escaped() {
    need_disks();
    need_promtool();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let file = disk.dir().join("version");
    fs::write(&file, "a\\b\"c\u{1b}{d=\"e\"} 7\n").unwrap();
    for request in ["rm slot.json", "rm version", &format!("write {} version", file.display())] {
        run(support::command("debugfs").args(["-w", "-R", request]).arg(disk.node(A)));
    }
    once(
        &root,
        &[(&info("a\\\\b\\\"c\u{fffd}{d=\\\"e\\\"} 7", "unknown", "A"), 1), ("kubesolo_slot_valid{slot=\"A\"}", 0)],
    );
}

#[apply(test)]
fn what_was_offered_is_judged_by_the_gates() {
    need_disks();
    need_promtool();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let release = Release::new("2.0.0");
    let document = release.latest_json();
    let server = Web::start(move |path| match path {
        "/latest.json" => Answer::ok(document.clone()).header("ETag", "\"one\""),
        _ => release.file(path).map_or(Answer::status(404), Answer::ok),
    });
    root.set_boot_variables(&["boot_canary=1"]);
    fs::create_dir_all(root.path("var/lib/kubesolo/update")).unwrap();
    let available = |wanted| once(&root, &[("kubesolo_update_available", wanted)]);
    available(0);
    root.agent(&["check", "--server", &server.url("")]).expect(0, &["available"]);
    available(1);
    for (line, wanted) in [("channel = edge", 0), ("maintenance_window = 00:00-24:00", 1)] {
        root.configure(&format!("signature = off\n{line}\n"));
        // What `check` says of the same configuration.
        let code = root.agent(&["check", "--server", &server.url("")]).code;
        assert_eq!(code == 0, wanted == 1, "{line}");
        available(wanted);
    }
    root.configure("signature = off\n");
    available(1);
    // On trial, and rolled back without a record of it: not now, and not that one.
    root.agent(&["apply", "--server", &server.url(""), "--activate"]).expect(0, &[]);
    available(0);
    root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
    root.agent(&["check", "--server", &server.url("")]).expect(4, &["failed here before"]);
    available(0);
}

#[apply(test)]
fn the_textfile_is_whole_and_readable() {
    need_disks();
    need_promtool();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    fs::create_dir(root.path("textfile")).unwrap();
    let target = root.path("textfile/kubesolo.prom");
    let write = |name: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 077; exec \"$@\"", "sh"]);
        support::root::Run::from(root.command_under(shell, &["metrics", "--textfile", name]).output().unwrap())
    };
    // Somebody who may write there puts something where a temporary file might be.
    let victim = root.path("victim");
    fs::write(&victim, "mine").unwrap();
    let in_the_way = root.path("textfile/kubesolo.prom.tmp");
    let put: [fn(&std::path::Path, &std::path::Path); 4] = [
        |_, at| drop(run(Command::new("mkfifo").arg(at))),
        |victim, at| symlink(victim, at).unwrap(),
        |victim, at| fs::hard_link(victim, at).unwrap(),
        |_, at| fs::create_dir(at).unwrap(),
    ];
    for put in put {
        put(&victim, &in_the_way);
        write(target.to_str().unwrap()).expect(0, &[]);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
        fs::remove_file(&in_the_way).or_else(|_| fs::remove_dir(&in_the_way)).unwrap();
    }
    for (name, path) in [(target.to_str().unwrap(), target.clone()), ("bare.prom", root.path("bare.prom"))] {
        for _ in 0..2 {
            let run = write(name).expect(0, &[]);
            assert_eq!(run.stdout, "");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
            check_metrics(&fs::read_to_string(&path).unwrap());
        }
    }
    assert_eq!(fs::read_dir(root.path("textfile")).unwrap().count(), 1);
    write(root.path("textfile").to_str().unwrap()).expect(2, &["not a regular file"]);
    write("/dev/null").expect(2, &["not a regular file"]);
    write(root.path("none/x.prom").to_str().unwrap()).expect(7, &["none/x.prom"]);
    for name in ["x.txt", "prom", "x.prom.bak", "x.PROM", "x.prom ", "--", "x.prom/.."] {
        write(name).expect(2, &[".prom", "--textfile -"]);
        assert!(name.contains('/') || !root.path(name).exists(), "{name} was written");
    }
    let printed = write("-").expect(0, &[]);
    check_metrics(&printed.stdout);
    assert!(!root.path("-").exists());
    // Whoever reads sees one of the two, and never a part.
    let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let page = fs::read_to_string(&target).unwrap();
                assert!(page.ends_with('\n') && page.contains("kubesolo_memory_available_bytes 0"), "{page}");
                reads.fetch_add(1, Ordering::SeqCst);
            }
        });
        let (start, mut runs) = (Instant::now(), Vec::new());
        // However fast one of the two is.
        while start.elapsed() < WAIT && (runs.len() < 10 || reads.load(Ordering::SeqCst) <= 10) {
            runs.push(write(target.to_str().unwrap()));
        }
        done.store(true, Ordering::SeqCst);
        runs.into_iter().for_each(|run| drop(run.expect(0, &[])));
    });
    assert!(reads.into_inner() > 10);
}

/// cron, a timer and a person at once: each run succeeds, who reads sees a whole page, and nothing is left.
#[apply(test)]
fn several_write_one_textfile_at_once() {
    need_disks();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let dir = root.path("textfile");
    fs::create_dir(&dir).unwrap();
    let target = dir.join("kubesolo.prom");
    let name = target.to_str().unwrap();
    let args = ["metrics", "--textfile", name];
    root.agent(&args).expect(0, &[]);
    // What a run that was killed left.
    fs::write(dir.join("kubesolo.prom.tmp-1-1"), "half").unwrap();
    let (writers, reads) = (AtomicUsize::new(WRITERS), AtomicUsize::new(0));
    thread::scope(|scope| {
        let one = || {
            let runs: Vec<_> = (0..RUNS).map(|_| root.agent(&args)).collect();
            writers.fetch_sub(1, Ordering::SeqCst);
            runs
        };
        let started: Vec<_> = (0..WRITERS).map(|_| scope.spawn(one)).collect();
        while writers.load(Ordering::SeqCst) > 0 {
            let page = fs::read_to_string(&target).unwrap();
            assert!(page.ends_with('\n') && page.contains("kubesolo_memory_available_bytes 0"), "{page}");
            reads.fetch_add(1, Ordering::SeqCst);
        }
        let runs = started.into_iter().flat_map(|writer| writer.join().unwrap());
        runs.for_each(|run| drop(run.expect(0, &[])));
    });
    assert!(reads.into_inner() > RUNS);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "something was left");
}

#[apply(test)]
fn one_way_at_a_time_and_an_address_that_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file.prom").display().to_string();
    let run = |args: &[&str]| {
        // An address that is taken by mistake would be served for ever.
        let mut agent = Command::new("timeout");
        agent.arg("20").arg(Root::program());
        support::root::Run::from(agent.arg("metrics").args(args).arg("--root").arg(dir.path()).output().unwrap())
    };
    for args in [
        &["--once", "--textfile", &file][..],
        &["--once", "--listen", "127.0.0.1:0"],
        &["--textfile", &file, "--listen", "127.0.0.1:0"],
    ] {
        run(args).expect(2, &[]);
    }
    for address in ["", "9199", ":9199", "localhost:9199", "127.0.0.1", "127.0.0.1:65536", "::1:9199x", "127.0.0.1:0\n"]
    {
        run(&["--listen", address]).expect(2, &["use --listen", "127.0.0.1:9199"]);
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run(&["--listen", &address]).expect(6, &["listen on", &address, "in use", "--listen names another"]);
    // An address of documentation, which nobody has.
    run(&["--listen", "192.0.2.1:9199"]).expect(6, &["192.0.2.1:9199"]);
}

#[apply(test)]
fn who_scrapes_does_not_stop_who_writes() {
    need_disks();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let served = Served::of(&root);
    let releases = ["2.0.0", "2.0.1"].map(|version| Release::new(version).serve());
    let (done, scrapes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let home = fs::read_link("/proc/self/ns/mnt").unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    served.scrape();
                    scrapes.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let (start, mut runs, mut disturbed) = (Instant::now(), Vec::new(), 0);
        // On a busy machine a scrape may take longer than an update.
        while start.elapsed() < WAIT && disturbed < 10 {
            let before = scrapes.load(Ordering::SeqCst);
            runs.push(root.agent(&["apply", "--server", &releases[runs.len() % 2].url("")]));
            disturbed += usize::from(scrapes.load(Ordering::SeqCst) > before);
        }
        done.store(true, Ordering::SeqCst);
        runs.into_iter().for_each(|run| drop(run.expect(0, &["is staged"])));
        assert!(disturbed >= 10, "nobody scraped meanwhile");
    });
    // It is where it was, with nothing of its own mounted: slot B is free for everybody.
    assert_eq!(fs::read_link(format!("/proc/{}/ns/mnt", served.child.id())).unwrap(), home);
    let mounts = served.mounts();
    assert!(mounts.contains(" / ") && !mounts.contains("KSOLO") && !mounts.contains(&disk.name(B)), "{mounts}");
    assert!(!disk.is_mounted(B), "the server pins slot B");
}

#[apply(test)]
fn the_lock_is_not_taken_and_values_are_of_now() {
    need_disks();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    // A relative root: the way back from the private mounts leads to the same directory.
    let mut agent = Command::new(Root::program());
    agent.env_clear().current_dir(root.path("")).args(["metrics", "--listen", "127.0.0.1:0", "--root", "."]);
    let served = Served::start(agent);
    assert_eq!(value(&served.scrape(), "kubesolo_boot_canary"), 0);
    fs::create_dir_all(root.path("var/lib/kubesolo/update")).unwrap();
    let lock = root.path("var/lib/kubesolo/update/lock");
    let mut flock = Command::new("flock");
    flock.arg(&lock).args(["sh", "-c", "echo held; read x"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = flock.spawn().unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    root.set_boot_variables(&["boot_canary=1", "boot_counter=1"]);
    let seen = || value(&served.scrape(), "kubesolo_boot_canary") == 1;
    assert!(wait_for(PATIENCE, seen), "{}", served.scrape());
    assert_eq!(value(&served.scrape(), &info("1.0.0", "stable", "A")), 1);
    drop(holder.stdin.take());
    holder.wait().unwrap();
}
