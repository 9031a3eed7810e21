//! Tests of the gates.

use super::*;
use crate::base::error::Course;
use crate::oci::metadata::Metadata;
use crate::offer::artifact::{FileRef, Place};
use crate::offer::refusal::refused;
use std::sync::LazyLock;

static FAILED: LazyLock<[(Digest, String); 1]> =
    LazyLock::new(|| [(Digest::of(b"new"), "failed here before: no API server".into())]);
static WINDOW: LazyLock<Window> = LazyLock::new(|| Window::parse("02:00-03:00").unwrap());

const NOW: u64 = 1_795_377_600; // 2026-11-22T20:00:00Z

fn file(size_bytes: u64) -> FileRef {
    FileRef { size_bytes, sha256: Digest::of(b"x"), chunks: None, place: Place::Blob }
}

fn artifact() -> Artifact {
    Artifact {
        release: Metadata {
            version: "1.2.0".into(),
            channel: None,
            architecture: Some("amd64".into()),
            min_compatible_version: None,
            release_notes: None,
            release_date: None,
            expires: None,
        },
        digest: Digest::of(b"new"),
        index_digest: None,
        passed: Vec::new(),
        signed_by: Vec::new(),
        source: "layout x".into(),
        kernel: file(1000),
        initramfs: file(2000),
    }
}

fn facts() -> Facts<'static> {
    Facts {
        architecture: "amd64",
        channel: "stable",
        running_version: Some("1.1.0"),
        running_digest: Some(Digest::of(b"old")),
        running_files: Some([Digest::of(b"k"), Digest::of(b"i")]),
        trial_pending: None,
        staged_digest: None,
        staged_insisted: false,
        failed: &[],
        now: Now::new(NOW, 0),
        room_bytes: Some(3000),
        window: None,
        newest_release: None,
        allow_downgrade: false,
        retry_failed: false,
        ignore_window: false,
    }
}

fn gates(artifact: &Artifact, facts: &Facts<'_>) -> Vec<Gate> {
    match judge(artifact, facts).unwrap() {
        Verdict::Refused(r) => r.iter().map(|r| r.gate).collect(),
        Verdict::Take => vec![],
        Verdict::UpToDate | Verdict::Staged => panic!("nothing to do"),
    }
}

#[test]
fn a_newer_version_that_fits_is_taken() {
    assert_eq!(judge(&artifact(), &facts()).unwrap(), Verdict::Take);
}

#[test]
fn each_gate_refuses_alone_and_names_both_values() {
    type Change = fn(&mut Artifact, &mut Facts<'static>);
    let cases: [(Gate, &str, &str, Change); 17] = [
        (Gate::Architecture, "arm64", "amd64", |a, _| a.release.architecture = Some("arm64".into())),
        (
            Gate::Architecture,
            "annotation io.kubesolo.os.architecture (in latest.json: architecture) is missing",
            "amd64",
            |a, _| a.release.architecture = None,
        ),
        (Gate::Architecture, "x86_64", "write amd64 or arm64", |a, _| a.release.architecture = Some("x86_64".into())),
        (Gate::Channel, "edge", "stable", |a, _| a.release.channel = Some("edge".into())),
        (Gate::Channel, "stable", "edge", |_, f| f.channel = "edge"),
        (Gate::Channel, "a channel with an empty name", "stable", |a, _| a.release.channel = Some(String::new())),
        (Gate::Channel, "channel 'stable '", "follows stable", |a, _| a.release.channel = Some("stable ".into())),
        (Gate::RunningVersion, "'2024.01', which is not a semantic version", "1.2.0", |_, f| {
            f.running_version = Some("2024.01")
        }),
        (Gate::RunningVersion, "does not say which version", "1.2.0", |_, f| f.running_version = None),
        (Gate::Version, "1.0.9", "1.1.0", |a, _| a.release.version = "1.0.9".into()),
        (Gate::Version, "1.1.0-rc.1", "1.1.0", |a, _| a.release.version = "1.1.0-rc.1".into()),
        (Gate::MinCompatible, "1.1.1", "1.1.0", |a, _| a.release.min_compatible_version = Some("1.1.1".into())),
        (Gate::Expired, "at 2026-11-22T19:59:60Z", "2026-11-22T20:00:00Z", |a, _| {
            a.release.expires = Some("2026-11-22T19:59:60Z".into())
        }),
        (Gate::FailedBefore, "no API server", "1.2.0 ", |_, f| f.failed = &*FAILED),
        (Gate::Size, "3000 B", "2999 B", |_, f| f.room_bytes = Some(2999)),
        (Gate::Window, "02:00-03:00", "20:00:00Z", |_, f| f.window = Some(&WINDOW)),
        (Gate::TrialPending, "trial", "slot B", |_, f| f.trial_pending = Some("trial of slot B")),
    ];
    for (gate, one, other, change) in cases {
        let (mut a, mut f) = (artifact(), facts());
        change(&mut a, &mut f);
        let Verdict::Refused(refusals) = judge(&a, &f).unwrap() else { panic!("{gate:?} let it through") };
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        assert_eq!(refusals[0].gate, gate);
        assert!(refusals[0].why.contains(one) && refusals[0].why.contains(other), "{}", refusals[0].why);
        assert_eq!(refused(&a.release.version, &refusals).exit_code(), 4);
    }
}

#[test]
fn overrides_open_their_own_gate_only() {
    let mut a = artifact();
    a.release.version = "1.0.0".into();
    let failed = [(a.digest, "x".to_string())];
    let mut f = Facts { failed: &failed, ..facts() };
    assert_eq!(gates(&a, &f), [Gate::Version, Gate::FailedBefore]);
    f.allow_downgrade = true;
    assert_eq!(gates(&a, &f), [Gate::FailedBefore]);
    f.retry_failed = true;
    assert_eq!(gates(&a, &f), []);
}

#[test]
fn the_same_version_is_nothing_to_do() {
    let mut a = artifact();
    a.release.version = "v1.1.0+rebuilt".into();
    // The same files under another name and in another document: built once, published twice.
    let same_files = || Facts { running_files: Some([a.kernel.sha256, a.initramfs.sha256]), ..facts() };
    assert_eq!(judge(&a, &same_files()).unwrap(), Verdict::UpToDate);
    assert_eq!(judge(&a, &Facts { allow_downgrade: true, ..same_files() }).unwrap(), Verdict::UpToDate);
    // The same document.
    a.digest = Digest::of(b"old");
    for allow_downgrade in [false, true] {
        assert_eq!(judge(&a, &Facts { allow_downgrade, ..facts() }).unwrap(), Verdict::UpToDate);
    }
    // The same content for another architecture is a fault, not up to date.
    a.release.architecture = Some("arm64".into());
    assert_eq!(gates(&a, &facts()), [Gate::Architecture]);
}

#[test]
fn what_is_staged_is_not_offered_again() {
    let a = artifact();
    let staged = |digest| Facts { staged_digest: Some(digest), ..facts() };
    assert_eq!(judge(&a, &staged(a.digest)).unwrap(), Verdict::Staged);
    assert_eq!(judge(&a, &staged(Digest::of(b"another"))).unwrap(), Verdict::Take);
}

/// Which gates still refuse what is already staged: what has changed since then counts; what it passed then, or was insisted
/// on, does not. A reader adds a line.
#[test]
fn what_is_staged_is_refused_by_what_has_changed_since() {
    type Change = fn(&mut Artifact, &mut Facts<'static>);
    let cases: [(&str, Option<Gate>, Change); 15] = [
        ("nothing", None, |_, _| {}),
        ("this machine follows another channel now", Some(Gate::Channel), |_, f| f.channel = "edge"),
        ("it has expired", Some(Gate::Expired), |a, _| a.release.expires = Some("2026-11-22T20:00:00Z".into())),
        ("it failed here", Some(Gate::FailedBefore), |_, f| f.failed = &*FAILED),
        ("it failed here, and was insisted on", None, |_, f| (f.failed, f.staged_insisted) = (&*FAILED, true)),
        ("it failed here, and is insisted on now", None, |_, f| (f.failed, f.retry_failed) = (&*FAILED, true)),
        ("older, insisted on", None, |a, _| a.release.version = "1.0.0".into()),
        ("another build, insisted on", None, |a, _| a.release.version = "1.1.0".into()),
        ("released before, insisted on", None, |a, f| {
            (a.release.release_date, a.signed_by) = (Some("2001-01-01T00:00:00Z".into()), vec![Digest::of(b"key")]);
            f.newest_release = Some(Moment(NOW));
        }),
        ("no date, insisted on", None, |a, f| {
            (a.signed_by, f.newest_release) = (vec![Digest::of(b"key")], Some(Moment(NOW)));
        }),
        ("what runs has no version", None, |_, f| f.running_version = Some("dev")),
        ("what runs has no version, and it needs one", None, |a, f| {
            (f.running_version, a.release.min_compatible_version) = (Some("1.0"), Some("1.1.0".into()));
        }),
        ("the window is shut", None, |_, f| f.window = Some(&WINDOW)),
        ("it would not fit beside itself", None, |_, f| f.room_bytes = Some(1)),
        ("a mark for another artifact", Some(Gate::FailedBefore), |a, f| {
            a.digest = Digest::of(b"new");
            (f.failed, f.staged_insisted, f.staged_digest) = (&*FAILED, true, Some(Digest::of(b"another")));
        }),
    ];
    for (what, gate, change) in cases {
        let mut a = artifact();
        let mut f = Facts { staged_digest: Some(a.digest), ..facts() };
        change(&mut a, &mut f);
        match (judge(&a, &f).unwrap(), gate) {
            (Verdict::Staged, None) => {}
            (Verdict::Refused(refusals), Some(gate)) if refusals.len() == 1 && refusals[0].gate == gate => {}
            (verdict, _) => panic!("{what}: {verdict:?}"),
        }
    }
}

/// What cron may ignore, and what an operator must fix.
#[test]
fn waiting_is_told_apart_from_what_a_person_must_mend() {
    let refusal = |gate| Refusal { gate, why: "x".into(), hint: "" };
    for (gates, course) in [
        (&[Gate::TrialPending][..], Course::Waits),
        (&[Gate::Window], Course::Waits),
        (&[Gate::FailedBefore], Course::Waits),
        (&[Gate::FailedBefore, Gate::Window], Course::Waits),
        (&[Gate::Window, Gate::Channel], Course::Fault),
        (&[Gate::Clock], Course::Fault),
        (&[Gate::Clock, Gate::FailedBefore], Course::Fault),
        (&[Gate::Version], Course::Fault),
        (&[Gate::RunningVersion], Course::Fault),
        (&[Gate::Replayed], Course::Fault),
        (&[Gate::Expired, Gate::TrialPending], Course::Fault),
        (&[Gate::Size], Course::Fault),
        (&[Gate::Architecture], Course::Fault),
        (&[Gate::MinCompatible], Course::Fault),
    ] {
        let refusals: Vec<Refusal> = gates.iter().copied().map(refusal).collect();
        let error = refused("version 1.2.0", &refusals);
        assert_eq!((error.course(), error.exit_code()), (course, 4), "{gates:?}");
        // A refusal that only waits never makes the state `failed`.
        assert!(course == Course::Fault || gates.iter().all(|gate| !gate.is_fault()), "{gates:?}");
    }
}

/// Builders of images write such versions; a machine that has one must not be stuck.
#[test]
fn a_running_version_that_is_not_semantic_is_left_by_a_person_who_insists() {
    for running in ["2024.01", "1.0", "dev", "01.2.3", "1.2.3.4", "1.2.3-", "", "v", "1.2.x", "latest", "1.2.3 "] {
        let mut a = artifact();
        a.release.min_compatible_version = Some("1.1.0".into());
        let f = || Facts { running_version: Some(running), ..facts() };
        assert_eq!(gates(&a, &f()), [Gate::RunningVersion], "{running}");
        assert_eq!(judge(&a, &Facts { allow_downgrade: true, ..f() }).unwrap(), Verdict::Take, "{running}");
        // The flag opens this gate, and no other.
        a.release.channel = Some("edge".into());
        assert_eq!(gates(&a, &Facts { allow_downgrade: true, ..f() }), [Gate::Channel], "{running}");
        // The running artifact is still known by its digest.
        a.release.channel = None;
        let same = Facts { running_digest: Some(a.digest), ..f() };
        assert_eq!(judge(&a, &same).unwrap(), Verdict::UpToDate, "{running}");
    }
    let unknown = || Facts { running_version: None, running_digest: None, running_files: None, ..facts() };
    assert_eq!(gates(&artifact(), &unknown()), [Gate::RunningVersion]);
    assert_eq!(judge(&artifact(), &Facts { allow_downgrade: true, ..unknown() }).unwrap(), Verdict::Take);
    assert!(Gate::RunningVersion.is_fault(), "a machine that is stuck must be seen");
}

#[test]
fn equal_in_order_is_not_the_same() {
    for (running, offered, words) in [
        ("1.29.4+k3s1", "1.29.4+k3s2", "Semantic Versioning does not order the two"),
        ("1.29.4+k3s2", "1.29.4+k3s1", "Semantic Versioning does not order the two"),
        ("1.29.4", "1.29.4+k3s1", "Semantic Versioning does not order the two"),
        ("v1.29.4", "1.29.4", "Semantic Versioning does not order the two"),
        ("1.29.4-rc.1+a", "1.29.4-rc.1+b", "Semantic Versioning does not order the two"),
        ("1.29.4", "1.29.4", "was it published twice?"),
        ("1.29.4+k3s1", "1.29.4+k3s1", "was it published twice?"),
    ] {
        let a = Artifact { release: Metadata { version: offered.into(), ..artifact().release }, ..artifact() };
        let f = Facts { running_version: Some(running), ..facts() };
        let Verdict::Refused(refusals) = judge(&a, &f).unwrap() else { panic!("{running} {offered}") };
        assert_eq!(refusals[0].gate.label(), "newer");
        let why = refusals[0].to_string();
        assert!(
            [running, offered, "another build", words, "--allow-downgrade"].iter().all(|w| why.contains(w)),
            "{why}"
        );
        assert!(!refusals[0].gate.is_fault());
        assert_eq!(judge(&a, &Facts { allow_downgrade: true, ..f }).unwrap(), Verdict::Take, "{running} {offered}");
        // A running slot without a record is known only by its version.
        let unknown = Facts { running_version: Some(running), running_digest: None, running_files: None, ..facts() };
        let verdict = judge(&a, &unknown).unwrap();
        assert_eq!(verdict == Verdict::UpToDate, running == offered, "{running} {offered}: {verdict:?}");
    }
}

#[test]
fn a_time_of_day_is_never_judged_by_a_clock_that_is_not_set() {
    let build = Moment::parse("2026-11-24T15:20:52Z").unwrap().0;
    let not_set = Now::new(3 * 3600 + 16, build);
    for window in ["15:00-16:00", "02:00-04:00", "02:00-05:00", "Sat,Sun 22:00-04:00", "00:00-24:00"] {
        let window = Window::parse(window).unwrap();
        let f = Facts { now: not_set, window: Some(&window), ..facts() };
        let Verdict::Refused(refusals) = judge(&artifact(), &f).unwrap() else { panic!("{window}") };
        assert_eq!(refusals[0].gate, Gate::Clock);
        assert_eq!(refused("version 1.2.0", &refusals).course(), Course::Fault);
        assert!(refusals[0].why.contains("the clock is not set (1970-01-01T03:00:16Z)"), "{}", refusals[0].why);
        assert_eq!(judge(&artifact(), &Facts { ignore_window: true, ..f }).unwrap(), Verdict::Take);
    }
    // Without a window the clock is not needed.
    assert_eq!(judge(&artifact(), &Facts { now: not_set, ..facts() }).unwrap(), Verdict::Take);
    // A date before the build has passed, whatever the clock says.
    let expired = Artifact {
        release: Metadata { expires: Some("2026-11-24T15:20:52Z".into()), ..artifact().release },
        ..artifact()
    };
    assert_eq!(gates(&expired, &Facts { now: not_set, ..facts() }), [Gate::Expired]);
}

#[test]
fn all_refusals_are_named_at_once() {
    let a = Artifact {
        release: Metadata { architecture: Some("arm64".into()), version: "1.0.0".into(), ..artifact().release },
        ..artifact()
    };
    assert_eq!(gates(&a, &Facts { room_bytes: Some(1), ..facts() }), [Gate::Architecture, Gate::Version, Gate::Size]);
}

#[test]
fn what_can_not_be_read_is_an_error_not_a_pass() {
    for change in [
        |a: &mut Artifact| a.release.version = "latest".into(),
        |a: &mut Artifact| a.release.expires = Some("tomorrow".into()),
        |a: &mut Artifact| a.release.min_compatible_version = Some("1".into()),
    ] {
        let mut a = artifact();
        change(&mut a);
        assert_eq!(judge(&a, &facts()).unwrap_err().exit_code(), 6);
    }
}

#[test]
fn huge_sizes_do_not_wrap() {
    let mut a = artifact();
    a.kernel.size_bytes = u64::MAX;
    a.initramfs.size_bytes = u64::MAX;
    assert_eq!(gates(&a, &facts()), [Gate::Size]);
}

#[test]
fn an_older_release_than_the_newest_that_was_taken_is_a_replay() {
    let newest = Moment::parse("2026-03-01T00:00:00Z").unwrap();
    let known = || Facts { newest_release: Some(newest), ..facts() };
    let released = |date: &str| Artifact {
        release: Metadata { release_date: Some(date.into()), ..artifact().release },
        signed_by: vec![Digest::of(b"key")],
        ..artifact()
    };
    let older = released("2026-02-28T23:59:59Z");
    assert_eq!(gates(&older, &known()), [Gate::Replayed]);
    let Verdict::Refused(refusals) = judge(&older, &known()).unwrap() else { panic!() };
    assert!(refusals[0].why.contains("2026-02-28T23:59:59Z") && refusals[0].why.contains("2026-03-01T00:00:00Z"));
    assert!(!Gate::Replayed.is_fault());
    assert_eq!(judge(&older, &Facts { allow_downgrade: true, ..known() }).unwrap(), Verdict::Take);
    assert_eq!(judge(&older, &facts()).unwrap(), Verdict::Take);
    let undated = Artifact { release: Metadata { release_date: None, ..older.release.clone() }, ..older.clone() };
    assert_eq!(gates(&undated, &known()), [Gate::Replayed]);
    assert_eq!(judge(&undated, &facts()).unwrap(), Verdict::Take);
    // The same release again, a later one, and one whose date is not signed.
    for fine in [
        released("2026-03-01T00:00:00Z"),
        released("2026-03-02T00:00:00Z"),
        Artifact { signed_by: Vec::new(), ..older.clone() },
    ] {
        assert_eq!(judge(&fine, &known()).unwrap(), Verdict::Take);
    }
    let e = judge(&released("in spring"), &facts()).unwrap_err();
    assert!(e.kind() == Kind::Source && e.to_string().contains("release_date"), "{e}");
}

#[test]
fn a_source_that_stands_still_is_noticed_when_its_release_expires() {
    let same = |expires: Option<&str>| Artifact {
        release: Metadata { expires: expires.map(str::to_owned), ..artifact().release },
        ..artifact()
    };
    let said = |artifact: &Artifact, verdict: &Verdict| stands_still(artifact, verdict, Now::new(NOW, 0)).unwrap();
    assert!(said(&same(Some("2026-11-22T20:00:00Z")), &Verdict::UpToDate).unwrap().contains("2026-11-22T20:00:00Z"));
    assert_eq!(said(&same(Some("2026-11-22T20:00:01Z")), &Verdict::UpToDate), None);
    assert_eq!(said(&same(Some("2026-11-22T20:00:00Z")), &Verdict::Take), None);
    assert_eq!(said(&same(None), &Verdict::UpToDate), None);
    assert_eq!(
        stands_still(&same(Some("soon")), &Verdict::UpToDate, Now::new(NOW, 0)).unwrap_err().kind(),
        Kind::Source
    );
}

#[test]
fn what_makes_no_sense_is_named_as_its_publisher_writes_it() {
    for (source, words) in [
        ("http http://h.example/latest.json", "read http://h.example/latest.json: 'version': "),
        ("registry h.example/os:v1", "read registry h.example/os:v1: 'io.kubesolo.os.version': "),
        ("layout /media/usb", "read layout /media/usb: 'io.kubesolo.os.version': "),
    ] {
        let offered = Artifact {
            release: Metadata { version: "v1.2".into(), ..artifact().release },
            source: source.into(),
            ..artifact()
        };
        let e = judge(&offered, &facts()).unwrap_err();
        assert!(e.kind() == Kind::Source && e.to_string().starts_with(words), "{e}");
    }
}
