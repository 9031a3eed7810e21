//! Tests of the gates.

use super::*;
use crate::source::FileRef;

const NOW: u64 = 1_795_377_600; // 2026-11-22T20:00:00Z

fn artifact() -> Artifact {
    Artifact {
        version: "1.2.0".into(),
        channel: None,
        architecture: Some("amd64".into()),
        min_compatible_version: None,
        release_notes: None,
        release_date: None,
        expires: None,
        digest: Digest::of(b"new"),
        index_digest: None,
        source: "layout x".into(),
        kernel: FileRef::for_test(1000),
        initramfs: FileRef::for_test(2000),
    }
}

fn facts() -> Facts<'static> {
    Facts {
        architecture: "amd64",
        channel: "stable",
        running_version: "1.1.0",
        running_digest: Some(Digest::of(b"old")),
        trial_pending: None,
        failed: &[],
        now_secs: NOW,
        room_bytes: Some(3000),
        window: None,
        allow_downgrade: false,
        retry_failed: false,
    }
}

fn gates(artifact: &Artifact, facts: &Facts<'_>) -> Vec<Gate> {
    match judge(artifact, facts).unwrap() {
        Verdict::Refused(r) => r.iter().map(|r| r.gate).collect(),
        Verdict::Take => vec![],
        Verdict::UpToDate => panic!("up to date"),
    }
}

#[test]
fn a_newer_version_that_fits_is_taken() {
    assert_eq!(judge(&artifact(), &facts()).unwrap(), Verdict::Take);
}

#[test]
fn each_gate_refuses_alone_and_names_both_values() {
    let window = Window::parse("02:00-03:00").unwrap();
    let failed = [(Digest::of(b"new"), "no API server".to_string())];
    type Change<'a> = Box<dyn Fn(&mut Artifact, &mut Facts<'a>) + 'a>;
    let cases: Vec<(Gate, &str, &str, Change<'_>)> = vec![
        (Gate::Architecture, "arm64", "amd64", Box::new(|a, _| a.architecture = Some("arm64".into()))),
        (Gate::Architecture, "no architecture", "amd64", Box::new(|a, _| a.architecture = None)),
        (Gate::Channel, "edge", "stable", Box::new(|a, _| a.channel = Some("edge".into()))),
        (Gate::Channel, "stable", "edge", Box::new(|_, f| f.channel = "edge")),
        (Gate::Version, "1.0.9", "1.1.0", Box::new(|a, _| a.version = "1.0.9".into())),
        (Gate::Version, "1.1.0-rc.1", "1.1.0", Box::new(|a, _| a.version = "1.1.0-rc.1".into())),
        (Gate::MinCompatible, "1.1.1", "1.1.0", Box::new(|a, _| a.min_compatible_version = Some("1.1.1".into()))),
        (
            Gate::Expired,
            "20:00:00Z",
            "2026-11-22T20:00:00Z",
            Box::new(|a, _| a.expires = Some("2026-11-22T20:00:00Z".into())),
        ),
        (Gate::FailedBefore, "no API server", &failed[0].0.short()[..4], Box::new(|_, f| f.failed = &failed)),
        (Gate::Size, "3000 B", "2999 B", Box::new(|_, f| f.room_bytes = Some(2999))),
        (Gate::Window, "02:00-03:00", "20:00:00Z", Box::new(|_, f| f.window = Some(&window))),
        (Gate::TrialPending, "trial", "slot B", Box::new(|_, f| f.trial_pending = Some("trial of slot B"))),
    ]
    .into_iter()
    .map(|(g, a, b, c)| {
        (g, Box::leak(a.to_string().into_boxed_str()) as &str, Box::leak(b.to_string().into_boxed_str()) as &str, c)
    })
    .collect();
    for (gate, one, other, change) in &cases {
        let (mut a, mut f) = (artifact(), facts());
        change(&mut a, &mut f);
        let Verdict::Refused(refusals) = judge(&a, &f).unwrap() else { panic!("{gate:?} let it through") };
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        assert_eq!(refusals[0].gate, *gate);
        assert!(refusals[0].why.contains(one) && refusals[0].why.contains(other), "{}", refusals[0].why);
        assert_eq!(refused(&a.version, &refusals).exit_code(), 4);
    }
}

#[test]
fn overrides_open_their_own_gate_only() {
    let mut a = artifact();
    a.version = "1.0.0".into();
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
    a.version = "v1.1.0+rebuilt".into();
    assert_eq!(judge(&a, &facts()).unwrap(), Verdict::UpToDate);
    // Only a person who asks gets another build of the same number.
    assert_eq!(judge(&a, &Facts { allow_downgrade: true, ..facts() }).unwrap(), Verdict::Take);
    a.digest = Digest::of(b"old");
    assert_eq!(judge(&a, &Facts { allow_downgrade: true, ..facts() }).unwrap(), Verdict::UpToDate);
    // The same number for another architecture is a fault, not peace.
    a.architecture = Some("arm64".into());
    assert_eq!(gates(&a, &facts()), [Gate::Architecture]);
}

#[test]
fn all_refusals_are_named_at_once() {
    let a = Artifact { architecture: Some("arm64".into()), version: "1.0.0".into(), ..artifact() };
    assert_eq!(gates(&a, &Facts { room_bytes: Some(1), ..facts() }), [Gate::Architecture, Gate::Version, Gate::Size]);
}

#[test]
fn what_can_not_be_read_is_an_error_not_a_pass() {
    for change in [
        |a: &mut Artifact| a.version = "latest".into(),
        |a: &mut Artifact| a.expires = Some("tomorrow".into()),
        |a: &mut Artifact| a.min_compatible_version = Some("1".into()),
    ] {
        let mut a = artifact();
        change(&mut a);
        assert_eq!(judge(&a, &facts()).unwrap_err().exit_code(), 6);
    }
    assert_eq!(judge(&artifact(), &Facts { running_version: "?", ..facts() }).unwrap_err().exit_code(), 7);
}

#[test]
fn huge_sizes_do_not_wrap() {
    let mut a = artifact();
    a.kernel.size_bytes = u64::MAX;
    a.initramfs.size_bytes = u64::MAX;
    assert_eq!(gates(&a, &facts()), [Gate::Size]);
}
