//! The maintenance window, by the clock of this machine: it is asked again when it matters.

use crate::support::disk::{Disk, need_disks, wait_for};
use crate::support::release::Release;
use crate::support::root::{Root, Run};
use crate::support::web::{Answer, Web};
use crate::support::{command, need};
use kubesolo_update::parts::base::time::{rfc3339, weekday_and_minute};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// No server is waited for longer than 30 s for its first byte.
const LAST_SECS: u64 = 25;

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// `HH:MM`.
fn clock(secs: u64) -> String {
    rfc3339(secs)[11..16].to_string()
}

/// Makes `Day HH:MM-HH:MM` of a day in whose window `secs` is, which ends at `end`.
fn window(end: u64) -> String {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let begin = end - 3600;
    let (day, _) = weekday_and_minute(begin);
    format!("{} {}-{}", DAYS[usize::from(day)], clock(begin), clock(end))
}

/// A window that closes while `apply --activate` downloads.
#[apply(long_test)]
fn a_window_that_closes_meanwhile_lets_nothing_be_activated() {
    need_disks();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    root.set_boot_variables(&["boot_canary=1"]);
    // So near the end of a minute that the window closes while the server is waited for.
    let is_near = || (60 - LAST_SECS..=57).contains(&(now_secs() % 60));
    assert!(wait_for(Duration::from_secs(90), is_near));
    let end = now_secs() / 60 * 60 + 60;
    let release = Release::new("2.0.0");
    let document = release.latest_json();
    let server = Web::start(move |path| {
        if path == "/latest.json" {
            return Answer::ok(document.clone());
        }
        assert!(wait_for(Duration::from_secs(60), || now_secs() >= end));
        Answer::ok(release.file(path).unwrap())
    });
    root.configure(&format!(
        "signature = off\nretries = 0\nserver = {}\nmaintenance_window = {}\n",
        server.url(""),
        window(end)
    ));
    let run =
        root.agent(&["apply", "--activate", "--json"]).expect(4, &["the maintenance window is", "--ignore-window"]);
    assert_eq!(run.jq("[.result, .activated]"), r#"["staged",false]"#);
    assert_eq!(run.jq("[.kind, .exit_code, .refusals[].gate]"), r#"["gate",4,"maintenance_window"]"#);
    assert_eq!((root.state_field("phase").as_str(), root.boot_variables()["active_slot"].as_str()), ("staged", "A"));
    // Nothing more is asked of the server, and nothing changes, until it is open again.
    let asked = server.seen().len();
    root.agent(&["apply", "--activate"]).expect(4, &["the maintenance window is"]);
    root.agent(&["activate"]).expect(4, &["the maintenance window is", "stays staged"]);
    assert_eq!((root.state_field("phase").as_str(), server.seen().len()), ("staged", asked + 1));
    root.configure(&format!(
        "signature = off\nretries = 0\nserver = {}\nmaintenance_window = {}\n",
        server.url(""),
        window(now_secs() / 60 * 60 + 1800)
    ));
    root.agent(&["apply", "--activate"]).expect(0, &["2.0.0 is staged in slot B already", "slot B is active"]);
}

/// A window that closes while `activate` reads the slot, which takes minutes on slow flash.
#[apply(long_test)]
fn a_window_that_closes_while_the_slot_is_read_lets_nothing_be_activated() {
    need_disks();
    need("strace");
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    root.set_boot_variables(&["boot_canary=1"]);
    root.agent(&["apply", "--server", &Release::new("2.0.0").serve().url("")]).expect(0, &["is staged"]);
    // Each piece of a file takes a few seconds; the last is read when the window has closed.
    let mut strace = command("strace");
    strace.args(["-f", "-o", "/dev/null", "-P", "/vmlinuz", "-P", "/kubesolo-os.gz"]);
    strace.args(["-e", &format!("inject=read:delay_enter={}s", LAST_SECS / 4)]);
    let left = || 60 - now_secs() % 60;
    assert!(wait_for(Duration::from_secs(60), || (5..LAST_SECS).contains(&left())));
    root.configure(&format!("signature = off\nmaintenance_window = {}\n", window(now_secs() + left())));
    let run = Run::from(root.command_under(strace, &["activate", "--json"]).output().unwrap());
    assert_eq!(run.jq("[.result, .kind, .refusals[].gate]"), r#"["refused","gate","maintenance_window"]"#, "{run:?}");
    assert!(run.jq(".refusals[0].reason").starts_with("the maintenance window is"), "{run:?}");
    assert_eq!(run.jq(".refusals[0].hint"), "--ignore-window overrides it");
    // It was open when the reading began.
    run.expect(4, &["activate slot B", "the maintenance window is", "reading slot B"]);
    assert_eq!((root.state_field("phase").as_str(), root.boot_variables()["active_slot"].as_str()), ("staged", "A"));
}

/// Whoever stands before the machine decides; and a window that is shut is no failure of the update.
#[apply(test)]
fn a_window_that_is_shut_is_passed_by_a_person_only() {
    need_disks();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    root.set_boot_variables(&["boot_canary=1"]);
    let server = Release::new("2.0.0").serve();
    // It closed an hour ago.
    let shut = window(now_secs() / 60 * 60 - 3600);
    root.configure(&format!("signature = off\nserver = {}\nmaintenance_window = {shut}\n", server.url("")));
    for command in ["check", "apply"] {
        root.agent(&[command]).expect(4, &["the maintenance window is", &shut, "--ignore-window"]);
    }
    assert_eq!(root.state_field("phase"), "idle");
    root.agent(&["check", "--ignore-window"]).expect(0, &["an update is available"]);
    root.agent(&["apply", "--ignore-window"]).expect(0, &["2.0.0 is staged"]);
    let refused = root.agent(&["activate", "--json"]).expect(4, &["the maintenance window is"]);
    assert_eq!(refused.jq("[.result, .slot, .version]"), r#"["refused","B","2.0.0"]"#);
    assert_eq!(root.state_field("phase"), "staged");
    root.agent(&["activate", "--ignore-window"]).expect(0, &["slot B is active"]);
    // Going back asks for no window.
    root.agent(&["rollback"]).expect(0, &["is called off"]);
}
