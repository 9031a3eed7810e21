use super::*;
use crate::base::error::{Course, Error};
use crate::base::time::Moment;
use crate::boot::vars::BootVars;
use crate::ledger::failures::Failures;
use crate::ledger::proven::Proven;
use crate::ledger::state::State;
use crate::ledger::traffic::Traffic;
use crate::machine::view::View;
use crate::slot::record::Slot;
use crate::update::reconcile::Finding;
use crate::update::survey::Survey;
use std::collections::BTreeMap;

fn broken() -> Report {
    let view = |slot| View::unreadable(slot, Error::new(Kind::Device, "gone"));
    Report {
        survey: Survey {
            running: None,
            slots: [view(Slot::A), view(Slot::B)],
            vars: None,
            skipped: None,
            boot_id: None,
            state: State::default(),
            failures: Failures::default(),
            proven: Proven::default(),
            finding: Finding::Nothing,
        },
        is_boot_busy: false,
        env_source: None,
        work: None,
        denied: None,
        offered: None,
        stopped: None,
        remarks: Vec::new(),
        next: String::new(),
    }
}

fn of(report: &Report, meminfo: &[u8], stat: &[u8]) -> String {
    text(&Facts { report, available: false, meminfo, stat })
}

/// Returns values by series. Panics: a line is neither a comment nor a series, or a series is repeated.
fn values(page: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(found.insert(series.to_string(), value.parse().unwrap()).is_none(), "{line}");
    }
    found
}

#[test]
fn a_machine_of_which_nothing_is_known_has_every_series() {
    let page = of(&broken(), b"", b"");
    let values = values(&page);
    assert_eq!(values.len(), 1 + 9 + 16 + 1 + 2 + 11 + 4 + 2);
    for (series, value) in &values {
        let info = format!(
            "kubesolo_os_info{{version=\"unknown\",channel=\"unknown\",architecture=\"{ARCHITECTURE}\",slot=\"unknown\"}}"
        );
        let is_one = *series == info
            || series == "kubesolo_update_phase{phase=\"idle\"}"
            || series == "kubesolo_update_readable"
            || series.starts_with("kubesolo_update_build_info{version=\"");
        assert_eq!(*value, u64::from(is_one), "{series}");
    }
    for name in values.keys().map(|series| series.split('{').next().unwrap()) {
        for comment in ["HELP", "TYPE"] {
            assert_eq!(page.matches(&format!("# {comment} {name} ")).count(), 1, "{name}");
        }
    }
}

#[test]
fn what_is_known_is_said() {
    let mut report = broken();
    report.survey.running = Some(Slot::B);
    report.survey.slots[1].version = Some("1\\2\"3\n4".into());
    report.survey.vars =
        Some(BootVars { boot_success: Some(true), boot_counter: Some(2), boot_canary: true, ..vars() });
    report.survey.state = State {
        phase: Phase::RolledBack,
        attempts_total: u64::MAX,
        rollbacks_total: 3,
        traffic_total: Traffic { fetched_bytes: 1 << 40, copied_bytes: 5 },
        last_error: Some("x".into()),
        last_error_kind: Some("rollback".into()),
        started_at: Moment::parse("2026-11-22T20:00:00Z").ok(),
        updated_at: Moment::parse("2026-11-22T20:00:01Z").ok(),
        ..State::default()
    };
    let page = of(
        &report,
        b"MemTotal:      2048 kB\nMemFree: 1 kB\nMemAvailable:\t 1024 kB\n",
        b"cpu 1\nintr 5 6 7\nbtime 1795377600\n",
    );
    let values = values(&page);
    for (series, value) in [
        ("kubesolo_boot_success", 1),
        ("kubesolo_boot_counter", 2),
        ("kubesolo_boot_canary", 1),
        ("kubesolo_update_attempts_total", u64::MAX),
        ("kubesolo_update_rollbacks_total", 3),
        ("kubesolo_update_bytes_total{origin=\"network\"}", 1 << 40),
        ("kubesolo_update_bytes_total{origin=\"slot\"}", 5),
        ("kubesolo_update_phase{phase=\"rolled_back\"}", 1),
        ("kubesolo_update_phase{phase=\"idle\"}", 0),
        ("kubesolo_update_last_error{kind=\"rollback\"}", 1),
        ("kubesolo_update_last_error{kind=\"unknown\"}", 0),
        ("kubesolo_update_last_attempt_timestamp_seconds", 1_795_377_600),
        ("kubesolo_update_state_timestamp_seconds", 1_795_377_601),
        ("kubesolo_memory_total_bytes", 2 << 20),
        ("kubesolo_memory_available_bytes", 1 << 20),
        ("kubesolo_boot_time_seconds", 1_795_377_600),
    ] {
        assert_eq!(values.get(series), Some(&value), "{series}");
    }
    // A newline never gets this far; if it did, it would be escaped.
    assert!(page.contains("version=\"1\\\\2\\\"3 4\","), "{page}");
    let mut raw = Page(String::new());
    raw.sample("n", &[("l", "a\nb\\\"")], 7);
    assert_eq!(raw.0, "n{l=\"a\\nb\\\\\\\"\"} 7\n");
}

/// What could not be looked at has no value; a default would raise an alarm.
#[test]
fn what_could_not_be_looked_at_is_left_out() {
    let mut report = broken();
    report.denied = Some(Error::new(Kind::Device, "permission denied"));
    let values = values(&of(&report, b"MemTotal: 1 kB", b"btime 5"));
    let names: Vec<&str> = values.keys().map(|series| series.split('{').next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "kubesolo_boot_time_seconds",
            "kubesolo_memory_available_bytes",
            "kubesolo_memory_total_bytes",
            "kubesolo_update_build_info",
            "kubesolo_update_readable"
        ]
    );
    assert_eq!(values["kubesolo_update_readable"], 0);
    for course in [Course::InUse, Course::Denied] {
        let mut report = broken();
        report.survey.slots[1].record = Err(Error::new(Kind::Device, "in use").taking(course));
        let page = of(&report, b"", b"");
        assert!(page.contains("kubesolo_slot_valid{slot=\"A\"} 0\n") && !page.contains("{slot=\"B\"}"), "{page}");
    }
}

#[test]
fn a_run_is_told_while_it_is_at_work() {
    let mut report = broken();
    let work = Work { is_alive: true, command: Some("apply".into()), percent: Some(43), ..Work::default() };
    for (work, running, percent) in [
        (Some(work.clone()), "{command=\"apply\"} 1", 43),
        (Some(Work { command: None, percent: None, ..work.clone() }), "{command=\"unknown\"} 1", 0),
        (Some(Work { is_alive: false, ..work }), "{command=\"none\"} 0", 0),
        (None, "{command=\"none\"} 0", 0),
    ] {
        report.work = work;
        let page = of(&report, b"", b"");
        assert!(page.contains(&format!("\nkubesolo_update_running{running}\n")), "{page}");
        assert!(page.contains(&format!("\nkubesolo_update_progress_percent {percent}\n")), "{page}");
    }
}

fn vars() -> BootVars {
    BootVars {
        active_slot: Some(Slot::B),
        boot_success: None,
        boot_counter: None,
        rollback_from: None,
        boot_canary: false,
    }
}

#[test]
fn an_error_without_a_known_kind_is_an_error_all_the_same() {
    for kind in [None, Some("of tomorrow")] {
        let mut report = broken();
        report.survey.state.last_error = Some("x".into());
        report.survey.state.last_error_kind = kind.map(str::to_string);
        let values = values(&of(&report, b"", b""));
        let set: Vec<_> = values.iter().filter(|(s, v)| s.contains("last_error") && **v == 1).collect();
        assert_eq!(set, [(&"kubesolo_update_last_error{kind=\"unknown\"}".to_string(), &1)]);
    }
}

#[test]
fn broken_tables_are_zero_and_long_labels_are_cut() {
    for table in ["MemTotal:", "MemTotal:  \n7", "MemTotal: x kB", "MemTotal: -1 kB", "MemTotalX: 5 kB", "\u{0}\n\n"] {
        assert_eq!(values(&of(&broken(), table.as_bytes(), b"btime"))["kubesolo_memory_total_bytes"], 0, "{table}");
    }
    let most = values(&of(&broken(), format!("MemTotal: {} kB", u64::MAX).as_bytes(), b"\xff"));
    assert_eq!(most["kubesolo_memory_total_bytes"], u64::MAX);
    let mut report = broken();
    (report.survey.running, report.survey.slots[0].version) = (Some(Slot::A), Some("\"".repeat(100_000)));
    assert!(of(&report, b"", b"").len() < 20_000);
}
