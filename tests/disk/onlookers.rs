//! Who looks while an update is at work, was cut off, or may not look at all; and what cron hears of it.

use crate::support::disk::{A, Disk, need_disks, wait_for};
use crate::support::release::Release;
use crate::support::root::{Root, Run};
use crate::support::trial::{Trial, wipe};
use crate::support::unprivileged::unprivileged;
use crate::support::web::{Answer, Web};
use crate::support::{command, need};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::concurrent::holding;

/// How long what was sent may take to be read.
const LIMIT: Duration = Duration::from_secs(60);

fn lock_of(root: &Root) -> std::path::PathBuf {
    root.path("var/lib/kubesolo/update/lock")
}

/// An `apply` whose download stands still.
fn standing(root: &Root, url: &str) -> Child {
    root.command(&["apply", "--server", url]).stderr(Stdio::null()).spawn().unwrap()
}

fn looks(root: &Root, wrapper: &[&str], args: &[&str]) -> Run {
    match wrapper {
        [] => root.agent(args),
        [program, words @ ..] => {
            let mut wrapper = command(program);
            wrapper.args(words);
            Run::from(root.command_under(wrapper, args).output().unwrap())
        }
    }
}

/// Who looks: a wrapper around the agent, and whether the process is seen from there.
const LOOKERS: &[(&str, &[&str], bool)] = &[
    ("on the machine", &[], true),
    ("in a container", &["unshare", "-p", "-f", "--mount-proc"], false),
    ("in another mount namespace", &["unshare", "-m"], true),
];

#[apply(test)]
fn an_update_that_is_at_work_is_told_by_process_phase_and_percentage() {
    need_disks();
    need("unshare");
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let server = holding(Release::new("2.0.0"));
    let mut slow = standing(&root, &server.url());
    server.wait_held();
    // What the server has sent, the agent may still have to read.
    let has_come = || looks(&root, &[], &["status", "--json"]).jq(".run.percent >= 20") == "true";
    assert!(wait_for(LIMIT, has_come), "{}", root.agent(&["status", "--json"]).stdout);
    let pid = slow.id().to_string();
    for (who, wrapper, is_seen) in LOOKERS {
        let status = looks(&root, wrapper, &["status", "--json"]).expect(0, &[]);
        let pid = if *is_seen { pid.as_str() } else { "null" };
        let members = status.jq("[.condition, .run.at_work, .run.pid, .run.command]");
        assert_eq!(members, format!(r#"["working",true,{pid},"apply"]"#), "{who}");
        // Half of the kernel is here, and nothing of it is read back.
        assert_eq!(status.jq("[.run.percent >= 20, .run.percent <= 60]"), "[true,true]", "{who}: {}", status.stdout);
        assert!(status.jq(".run.phase").contains("vmlinuz"), "{who}: {}", status.stdout);
        assert!(status.jq(".run.started_at").ends_with('Z'), "{who}: {}", status.stdout);
        assert_eq!(status.jq(".slots | map([.valid, .looked_at])"), "[[true,true],[false,false]]", "{who}");
        let screen = looks(&root, wrapper, &["status"]).expect(0, &["being written by ", "an update is at work\n"]);
        let process = if *is_seen { format!("process {pid}") } else { "a process in a container".into() };
        let run = screen.stdout.lines().find(|line| line.starts_with("Run ")).unwrap_or_else(|| panic!("{screen:?}"));
        assert!(run.contains(&format!("apply, {process}, ")) && run.contains(" %, "), "{who}: {run}");
        assert!(!screen.stdout.contains("INVALID") && !screen.stdout.contains("cut off"), "{who}: {}", screen.stdout);
        let page = looks(&root, wrapper, &["metrics", "--once"]).expect(0, &[]).stdout;
        assert!(page.contains("\nkubesolo_update_running{command=\"apply\"} 1\n"), "{who}: {page}");
        assert!(!page.contains("\nkubesolo_update_progress_percent 0\n"), "{who}: {page}");
        let valid = "\nkubesolo_slot_valid{slot=\"A\"} 1\n";
        assert!(page.contains(valid) && !page.contains("kubesolo_slot_valid{slot=\"B\"}"), "{who}: {page}");
    }
    slow.kill().unwrap();
    slow.wait().unwrap();
    disk.wait_unmounted(crate::support::disk::B);
    // What is left of it says what was cut off; whose process that was is nobody's word that it lives.
    for (who, wrapper, _) in LOOKERS {
        let status = looks(&root, wrapper, &["status", "--json"]).expect(0, &[]);
        let members = status.jq("[.condition, .run.at_work, .run.pid, .run.command]");
        assert_eq!(members, format!(r#"["cut_off",false,{pid},"apply"]"#), "{who}");
        looks(&root, wrapper, &["status"])
            .expect(0, &["CUT OFF", &format!("Run     apply, process {pid}, "), "cut off"]);
        let page = looks(&root, wrapper, &["metrics", "--once"]).expect(0, &[]).stdout;
        assert!(page.contains("\nkubesolo_update_running{command=\"none\"} 0\n"), "{who}: {page}");
        assert!(page.contains("\nkubesolo_slot_valid{slot=\"B\"} 0\n"), "{who}: {page}");
    }
    // The next run ends well: nothing is left to tell.
    root.agent(&["apply", "--server", &Release::new("2.0.0").serve().url("")]).expect(0, &["is staged"]);
    assert_eq!(fs::metadata(lock_of(&root)).unwrap().len(), 0);
    assert_eq!(root.agent(&["status", "--json"]).jq("[.condition, .run]"), r#"["staged",null]"#);
}

/// Lines that lie in the lock file, whoever wrote them; none of them is believed while nobody holds the lock, of a machine where
/// no update was cut off.
const LEFT: &[(&str, &str)] = &[
    // A process that lives: ours.
    ("a process that lives", "apply SELF 1795377600 43 vmlinuz\n"),
    ("a process that is gone", "apply 999999999 1795377600 43 vmlinuz\n"),
    ("nothing", ""),
    ("garbage", "\u{1}\u{2} ; rm -rf /\n"),
    ("another agent's", "{\"pid\": 7}\n"),
    ("too long", "LONG"),
    ("no end", "apply 7 1795377600 5 x"),
    ("a terminal's words", "apply 7 1795377600 5 \u{1b}[31mred\n"),
];

#[apply(test)]
fn the_lock_is_believed_and_not_the_process_id_that_stands_there() {
    Trial::ready();
    need("flock");
    let trial = Trial::staged();
    let root = &trial.root;
    for (what, line) in LEFT {
        let line = line.replace("SELF", &std::process::id().to_string()).replace("LONG", &"apply 7 5 5 x".repeat(100));
        fs::write(lock_of(root), line).unwrap();
        assert_eq!(root.agent(&["status", "--json"]).expect(0, &[]).jq(".run"), "null", "{what}");
        // An update that is staged was not cut off, whatever lies there.
        let screen = root.agent(&["status"]).expect(0, &["an update is staged"]);
        assert!(!screen.stdout.contains("Run ") && !screen.stdout.contains('\u{1b}'), "{what}: {}", screen.stdout);
        // Somebody holds it who says nothing.
        let mut flock = command("flock");
        flock.arg("-n").arg(lock_of(root));
        let held = Run::from(root.command_under(flock, &["status", "--json"]).output().unwrap()).expect(0, &[]);
        assert_eq!(held.jq("[.run.at_work, .run.pid > 1]"), "[true,true]", "{what}");
    }
    // Who changes nothing leaves nothing, and who takes the lock takes what lies there away.
    root.agent(&["activate"]).expect(0, &["active"]);
    assert_eq!(fs::read(lock_of(root)).unwrap(), b"");
}

/// What others may see of a machine: `chmod` of the agent's own files on the data partition, on top of devices that only root may
/// read.
const CLOSED: &[(&str, u32)] = &[("as they are made", 0o755), ("nothing", 0o700)];

#[apply(test)]
fn who_is_not_root_could_not_look_and_is_told_that() {
    Trial::ready();
    need("setpriv");
    let trial = Trial::staged();
    let root = &trial.root;
    fs::set_permissions(root.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = |args: &[&str]| Run::from(unprivileged(place.path(), &root.command(args)).output().unwrap());
    for (what, mode) in CLOSED {
        fs::set_permissions(root.path("var/lib/kubesolo/update"), fs::Permissions::from_mode(*mode)).unwrap();
        let status = nobody(&["status"])
            .expect(7, &["could not look", "needs root", "Next    ask as root of the machine itself", "not read"]);
        assert!(!status.stdout.contains("INVALID") && !status.stdout.contains("NOT valid"), "{what}: {status:?}");
        let json = nobody(&["status", "--json"]).expect(7, &["needs root"]);
        let wanted = r#"["not_looked",7,"device",[[false,false],[false,false]]]"#;
        assert_eq!(json.jq("[.condition, .exit_code, .kind, (.slots | map([.valid, .looked_at]))]"), wanted, "{what}");
        let metrics = nobody(&["metrics", "--once"]).expect(0, &[]);
        assert!(metrics.stderr.contains("needs root") && metrics.stderr.contains("left out"), "{what}: {metrics:?}");
        assert!(metrics.stdout.contains("\nkubesolo_update_readable 0\n"), "{what}: {}", metrics.stdout);
        for series in ["slot_valid", "os_info", "boot_success", "boot_canary", "update_phase", "update_last_error"] {
            assert!(!metrics.stdout.contains(&format!("kubesolo_{series}")), "{what}: {}", metrics.stdout);
        }
        nobody(&["check", "--layout", trial.medium.path()]).expect(7, &["needs root"]);
        for args in [&["verify"][..], &["verify", "--slot", "A"], &["verify", "--slot", "B"]] {
            let verify = nobody(args).expect(7, &["needs root", "not read"]);
            assert!(!verify.stdout.contains("INVALID"), "{what}: {verify:?}");
            let json = nobody(&[args, &["--json"]].concat()).expect(7, &["needs root"]);
            let wanted = r#"["not_looked",7,"device",[[false,false]]]"#;
            let told = "[.result, .exit_code, .kind, (.slots | map([.valid, .looked_at]) | unique)]";
            assert_eq!(json.jq(told), wanted, "{what}: {args:?}");
        }
    }
    let page = root.agent(&["metrics", "--once"]).expect(0, &["kubesolo_update_readable 1"]);
    assert_eq!(page.stderr, "");
}

/// One cause, met in several places, is said once.
#[apply(test)]
fn one_cause_is_said_once() {
    need_disks();
    let disk = Disk::new(24, 16);
    let mut root = Root::new(&disk);
    fs::remove_file(root.path("sys")).unwrap();
    fs::create_dir_all(root.path("sys/class/block")).unwrap();
    root.boot('A', Some(&disk.guid(A)));
    let screen = root.agent(&["status"]).expect(7, &["as above"]);
    let words: Vec<&str> = screen.stdout.split_whitespace().collect();
    assert_eq!(words.join(" ").matches("no block device was read").count(), 1, "{}", screen.stdout);
    // A program gets it wherever it belongs.
    let slots = root.agent(&["status", "--json"]).jq(".slots | map(.error | contains(\"no block device was read\"))");
    assert_eq!(slots, "[true,true]");
}

/// What a cron line hears: a machine, the command, its exit code, and a word that must be said (empty: nothing at all).
type Heard = (&'static str, &'static [&'static str], i32, &'static str);

const UP_TO_DATE: &[Heard] = &[
    ("status", &["status"], 0, ""),
    ("check", &["check", "--layout", "SAME"], 3, ""),
    ("check, as the README has it", &["check", "--splay", "1", "--layout", "SAME"], 3, ""),
    ("check: an update", &["check", "--server", "NEXT"], 0, "2.1.0"),
    ("check: it is not for this machine", &["check", "--server", "OTHER"], 4, "edge"),
    ("check: nobody is there", &["check", "--server", "http://127.0.0.1:9"], 6, "127.0.0.1"),
    ("check: what is typed is not there", &["check", "--layout", "/nowhere"], 6, "/nowhere"),
    ("apply", &["apply", "--layout", "SAME"], 3, ""),
    ("apply, as the Job has it", &["apply", "--ok-if-nothing", "--layout", "SAME"], 0, ""),
    ("activate: nothing is staged", &["activate"], 3, ""),
    ("verify", &["verify"], 0, ""),
    ("verify, a slot that is none", &["verify", "--slot", "C"], 2, "A or B"),
    ("healthcheck", &["healthcheck"], 0, ""),
    ("a flag that is none", &["check", "--frob"], 2, "frob"),
];

const STAGED: &[Heard] = &[
    ("status", &["status"], 0, ""),
    ("check: it is staged", &["check", "--server", "NEXT"], 3, ""),
    ("apply: it is staged", &["apply", "--server", "NEXT"], 3, ""),
    ("verify", &["verify"], 0, ""),
    ("activate", &["activate"], 0, ""),
    // From here on a trial waits for its boot.
    ("status: activated", &["status"], 0, ""),
    ("apply: a trial waits", &["apply", "--server", "NEXT"], 4, ""),
    ("apply: a trial waits, in a Job", &["apply", "--ok-if-nothing", "--server", "NEXT"], 0, ""),
    ("check: a trial waits", &["check", "--server", "NEXT"], 4, ""),
    ("healthcheck", &["healthcheck"], 0, ""),
    ("rollback", &["rollback"], 0, ""),
];

#[track_caller]
fn hear(root: &Root, servers: &[(&str, String)], table: &[Heard]) {
    for (what, args, code, word) in table {
        let at =
            |arg: &&str| servers.iter().find(|(name, _)| name == arg).map_or(arg.to_string(), |(_, url)| url.clone());
        let args: Vec<String> = args.iter().map(at).chain(["--quiet".into()]).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let run = Run::from(root.command(&args).output().unwrap()).expect(*code, &[word]);
        assert!(!word.is_empty() || format!("{}{}", run.stdout, run.stderr).is_empty(), "{what}: {run:?}");
    }
}

#[apply(test)]
fn cron_hears_of_nothing_but_what_needs_a_person() {
    Trial::ready();
    let mut trial = Trial::booted();
    trial.root.set_boot_variables(&["boot_success=1"]);
    trial.root.install_check("10-ok", "exit 0");
    trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(3, &["running already"]);
    let next = Release::new("2.1.0").serve();
    let document = Release::new("2.1.0").latest_json().replace("\"stable\"", "\"edge\"");
    let other = Web::start(move |_| Answer::ok(document.clone()));
    let same = trial.medium.path().to_owned();
    let servers = [("SAME", same.clone()), ("NEXT", next.url("")), ("OTHER", other.url(""))];
    let root = &trial.root;
    hear(root, &servers, UP_TO_DATE);
    // No medium is plugged in.
    root.configure("signature = off\nlayout = /media/usb/os\n");
    hear(root, &servers, &[("check", &["check"], 3, ""), ("apply", &["apply"], 3, "")]);
    root.configure("signature = off\n");
    // What was done is said, in a line or two, and no progress.
    let staged = root.agent(&["apply", "--quiet", "--server", &servers[1].1]).expect(0, &["2.1.0 is staged in slot A"]);
    assert_eq!(staged.stderr, "");
    hear(root, &servers, STAGED);
    // A document was asked for: it is not kept back.
    let check = root.agent(&["check", "--quiet", "--json", "--layout", &same]).expect(3, &[]);
    assert_eq!(check.jq(".exit_code"), "3");
    root.agent(&["metrics", "--once", "--quiet"]).expect(0, &["kubesolo_update_readable 1"]);
    // A node that is not healthy needs a person.
    root.install_check("10-ok", "echo database gone; exit 1");
    root.agent(&["healthcheck", "--quiet", "--timeout", "1"]).expect(9, &["database gone"]);
    // So does a slot that is lost.
    wipe(&mut trial, A);
    trial.root.agent(&["verify", "--quiet"]).expect(7, &["Slot A  INVALID"]);
    trial.root.agent(&["status", "--quiet"]).expect(0, &["Slot A  -"]);
}

#[apply(test)]
fn verbose_says_each_request_and_each_check_and_no_secret() {
    need_disks();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    root.install_check("10-ok", "echo fine");
    let server = Release::new("2.0.0").serve();
    let plain = root.agent(&["check", "--server", &server.url("")]).expect(0, &[]);
    assert!(!plain.stderr.contains("GET "), "{plain:?}");
    let said = root
        .agent(&["check", "--verbose", "--server", &server.url("")])
        .expect(0, &["GET http://127.0.0.1:", "/latest.json"]);
    assert_eq!(said.stdout.lines().next(), plain.stdout.lines().next());
    root.agent(&["healthcheck", "--verbose"]).expect(0, &["10-ok: ok, ", " ms fine"]);
    // Whoever was led somewhere with a token in the address sees the address alone.
    let release = Release::new("2.0.0");
    let files = release.serve();
    let led = files.url("/latest.json?token=hidden");
    let front = Web::start(move |_| Answer::status(302).header("Location", &led));
    let said = root.agent(&["check", "--verbose", "--server", &front.url("")]);
    assert!(said.stderr.matches("GET ").count() >= 2 && !said.stderr.contains("hidden"), "{said:?}");
}

/// A file that is not what was published is heard of although a mirror has the right one; that a server is gone is not.
#[apply(test)]
fn cron_hears_of_bytes_that_are_not_what_was_published() {
    Trial::ready();
    let trial = Trial::booted();
    trial.root.set_boot_variables(&["boot_success=1"]);
    let newer = [Release::new("2.1.0"), Release::new("2.2.0")];
    for (release, is_changed, heard) in [(&newer[0], true, "expected was"), (&newer[1], false, "")] {
        let (of_first, document) = (release.clone(), release.latest_json());
        let first = Web::start(move |path| match (path, of_first.file(path)) {
            ("/latest.json", _) => Answer::ok(document.clone()),
            (_, Some(mut file)) if is_changed => {
                file[0] ^= 1;
                Answer::ok(file)
            }
            _ => Answer::status(404),
        });
        let mirror = release.serve();
        let conf = format!("signature = off\nretries = 0\nserver = {}\nmirror = {}\n", first.url("/"), mirror.url("/"));
        trial.root.configure(&conf);
        let run = trial.root.agent(&["apply", "--ok-if-nothing", "--quiet"]).expect(0, &["is staged in slot A"]);
        assert!(run.stderr.contains(heard) && run.stderr.is_empty() == heard.is_empty(), "{is_changed}: {run:?}");
    }
}

/// The cron line of the man page, while another run is at work: nothing is sent by mail, and a program is told all the same.
#[apply(test)]
fn cron_does_not_hear_of_another_run() {
    Trial::ready();
    need("flock");
    let trial = Trial::booted();
    let root = &trial.root;
    let held = |args: &[&str]| {
        let mut flock = command("flock");
        flock.arg("-n").arg(lock_of(root));
        Run::from(root.command_under(flock, args).output().unwrap())
    };
    let args = ["apply", "--ok-if-nothing", "--layout", trial.medium.path()];
    held(&args).expect(0, &["another run"]);
    let quiet = held(&[&args[..], &["--quiet"]].concat()).expect(0, &[]);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
    let json = held(&[&args[..], &["--quiet", "--json"]].concat()).expect(0, &["another run"]);
    assert_eq!((json.jq(".result"), json.stderr.as_str()), ("busy".into(), ""));
    // Who did not say that this is well is told.
    held(&["apply", "--quiet", "--layout", trial.medium.path()]).expect(8, &["another run"]);
}

/// What a run has left that nobody is at work on any more, as a restart leaves it, or an older agent.
#[apply(test)]
fn an_ordinary_end_is_not_called_cut_off() {
    Trial::ready();
    let trial = Trial::activated();
    let root = &trial.root;
    for line in ["activate 7 1795377600 100 reading slot B\n", "verify 7 1795377600 - \n"] {
        fs::write(lock_of(root), line).unwrap();
        assert_eq!(root.agent(&["status", "--json"]).expect(0, &[]).jq("[.run, .condition]"), r#"[null,"activated"]"#);
    }
}

#[apply(test)]
fn a_trial_that_was_called_off_is_an_attempt() {
    Trial::ready();
    let trial = Trial::activated();
    trial.root.agent(&["rollback"]).expect(0, &[]);
    let status = trial.root.agent(&["status"]).expect(0, &["Update  idle: no attempt is under way; as of 20", "Past"]);
    assert!(!status.stdout.contains("no attempt is recorded"), "{}", status.stdout);
}
