//! Tests of the state machine.

use super::*;

fn taken(version: &str) -> Taken<'_> {
    Taken {
        from_version: Some("1.0.0"),
        version,
        source: "layout x",
        digest: Digest::of(version.as_bytes()),
        target: Slot::B,
        insisted: false,
    }
}

#[test]
fn the_table_is_the_one_in_the_documentation() {
    use Phase::*;
    let allowed: &[(Phase, &[Phase])] = &[
        (Idle, &[Checking, Activated, RolledBack]),
        (Checking, &[Downloading, Failed]),
        (Downloading, &[Staged, Failed]),
        (Staged, &[Idle, Checking, Activated, Failed, RolledBack]),
        (Activated, &[Idle, Verifying, Success, Failed, RolledBack]),
        (Verifying, &[Success, Failed, RolledBack]),
        (Success, &[Checking, Activated, RolledBack]),
        (Failed, &[Checking, Activated, Verifying, Failed, RolledBack]),
        (RolledBack, &[Idle, Checking, Activated, RolledBack]),
    ];
    for (from, to) in allowed {
        for next in Phase::ALL {
            assert_eq!(from.may_become(next), to.contains(&next), "{} to {}", from.name(), next.name());
        }
    }
}

#[test]
fn a_good_update() {
    let mut s = State::default();
    s.begin(100).unwrap();
    s.take(&taken("1.1.0"), 101).unwrap();
    assert_eq!((s.attempt_count, s.attempts_total), (1, 1));
    s.step(Phase::Staged, 102).unwrap();
    s.step(Phase::Activated, 103).unwrap();
    s.step(Phase::Verifying, 104).unwrap();
    s.succeed(105).unwrap();
    assert_eq!(s.updated_at, Some(Moment(105)));
    assert_eq!(State::parse(s.encode().as_bytes()).unwrap(), s);
}

#[test]
fn attempts_are_counted_for_one_version() {
    let mut s = State::default();
    let error = Error::new(Kind::Network, "no route");
    for (version, count, total) in [("1.1.0", 1, 1), ("1.1.0", 2, 2), ("1.2.0", 1, 3)] {
        s.begin(1).unwrap();
        s.take(&taken(version), 1).unwrap();
        s.fail(&error, 2).unwrap();
        assert_eq!((s.attempt_count, s.attempts_total), (count, total));
    }
    assert_eq!(s.last_error_kind.as_deref(), Some("network"));
}

#[test]
fn a_check_without_result_changes_nothing_but_the_time() {
    for phase in [Phase::Idle, Phase::Staged, Phase::Success, Phase::Failed, Phase::RolledBack] {
        let before = State { phase, last_error: Some("kept".into()), ..State::default() };
        let mut s = before.clone();
        s.begin(1).unwrap();
        // Killed while checking, then checked again.
        s = State::parse(s.encode().as_bytes()).unwrap();
        s.cut_off(2).unwrap();
        s.begin(2).unwrap();
        s.nothing_taken(3);
        assert_eq!((s.phase, s.last_error, s.attempts_total), (phase, Some("kept".into()), 0));
    }
}

#[test]
fn a_failed_check_leaves_a_staged_slot_staged() {
    let mut s = State { phase: Phase::Staged, to_version: Some("1.1.0".into()), ..State::default() };
    s.begin(1).unwrap();
    s.fail(&Error::new(Kind::Network, "no route"), 2).unwrap();
    assert_eq!((s.phase, s.last_error), (Phase::Staged, None));
}

#[test]
fn a_killed_download_has_failed() {
    let mut s = State::default();
    s.begin(1).unwrap();
    s.take(&taken("1.1.0"), 1).unwrap();
    s.cut_off(2).unwrap();
    assert_eq!((s.phase, s.last_error_kind.as_deref()), (Phase::Failed, Some("state")));
    assert!(s.last_error.unwrap().contains("cut off"));
}

#[test]
fn illegal_steps_are_errors_and_change_nothing() {
    let mut s = State { phase: Phase::Activated, ..State::default() };
    let before = s.clone();
    assert_eq!(s.begin(1).unwrap_err().exit_code(), 7);
    assert_eq!(s.step(Phase::Staged, 1).unwrap_err().exit_code(), 7);
    assert_eq!(s, before);
}

#[test]
fn random_walks_keep_the_invariants() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    let error = Error::new(Kind::Digest, "wrong");
    let mut s = State::default();
    for now in 0..20_000 {
        let before = s.clone();
        let version = if next(2) == 0 { "1.1.0" } else { "1.2.0" };
        let done = match next(10) {
            0 => s.begin(now),
            1 => s.take(&taken(version), now),
            2 => s.step(Phase::Staged, now),
            3 => s.step(Phase::Activated, now),
            4 => s.step(Phase::Verifying, now),
            5 => s.succeed(now),
            6 => s.fail(&error, now),
            7 => s.cut_off(now),
            8 => s.roll_back(Slot::B, None, "r", now),
            _ => {
                s.nothing_taken(now);
                Ok(())
            }
        };
        if done.is_err() {
            assert_eq!(State { phase: before.phase, ..s.clone() }.phase, before.phase);
        }
        assert_eq!(State::parse(s.encode().as_bytes()).unwrap(), s);
        assert!(s.attempts_total >= before.attempts_total && s.rollbacks_total >= before.rollbacks_total);
        assert_eq!(s.resume_phase.is_some(), s.phase == Phase::Checking);
        assert!(
            s.phase != Phase::Success
                || s.last_error.is_none()
                || before.phase == s.phase
                || before.resume_phase.is_some()
        );
        let trial = matches!(before.phase, Phase::Activated | Phase::Verifying);
        assert!(!trial || !s.phase.is_unfinished(), "a trial must not be overwritten");
    }
}

#[test]
fn broken_files_are_errors() {
    let good = State::default().encode();
    for end in 0..good.trim_end().len() {
        assert!(State::parse(&good.as_bytes()[..end]).is_err());
    }
    for bad in [
        "{\"phase\":\"flying\"}",
        "{\"phase\":\"idle\",\"target_slot\":\"C\"}",
        "{\"phase\":\"activated\"}",
        "{\"phase\":\"verifying\",\"target_slot\":null}",
        "[]",
        "null",
        "{\"phase\":1}",
    ] {
        assert_eq!(State::parse(bad.as_bytes()).unwrap_err().exit_code(), 7, "{bad}");
    }
}

#[test]
fn attempts_are_counted_for_the_version_that_is_named() {
    let at = |version, target| Taken {
        from_version: Some("1.0.0"),
        version,
        source: "s",
        digest: Digest::of(version.as_bytes()),
        target,
        insisted: false,
    };
    let mut s = State::default();
    for again in 1..=2 {
        s.begin(1).unwrap();
        s.take(&at("3.0.0", Slot::A), 2).unwrap();
        assert_eq!(s.attempt_count, again);
        s.cut_off(3).unwrap();
    }
    // Slot B, which holds 2.0.0, is left: attempts at that version are unknown.
    let left = Some((Digest::of(b"2.0.0"), "2.0.0".to_string()));
    s.roll_back(Slot::B, left.clone(), "manual", 4).unwrap();
    assert_eq!((s.to_version.as_deref(), s.attempt_count, s.attempts_total), (Some("2.0.0"), 0, 2));
    s.begin(5).unwrap();
    s.take(&at("2.0.0", Slot::B), 6).unwrap();
    s.cut_off(7).unwrap();
    // The same version: that was one attempt.
    s.roll_back(Slot::B, left, "manual", 8).unwrap();
    assert_eq!((s.to_version.as_deref(), s.attempt_count, s.attempts_total), (Some("2.0.0"), 1, 3));
}

#[test]
fn a_check_that_is_answered_ends_the_failure_of_those_before() {
    let (network, digest) = (Error::new(Kind::Network, "no route"), Error::new(Kind::Digest, "wrong bytes"));
    let idle = State::default();
    let mut success = State { phase: Phase::Verifying, target_slot: Some(Slot::B), ..State::default() };
    success.succeed(1).unwrap();
    let mut rolled_back = State::default();
    rolled_back.roll_back(Slot::B, None, "not healthy", 1).unwrap();
    let mut failed = State::default();
    failed.begin(1).unwrap();
    failed.take(&taken("1.1.0"), 1).unwrap();
    failed.fail(&digest, 1).unwrap();
    for before in [idle, success, rolled_back, failed] {
        let mut s = before.clone();
        for now in [2, 3] {
            s.begin(now).unwrap();
            s.fail(&network, now).unwrap();
            assert_eq!((s.phase, s.last_error_kind.as_deref()), (Phase::Failed, Some("network")));
        }
        // Killed while it asks: no source has answered.
        s.begin(4).unwrap();
        s.cut_off(4).unwrap();
        assert_eq!((s.phase, s.last_error_kind.as_deref()), (Phase::Failed, Some("network")));
        s.begin(5).unwrap();
        s.answered(5);
        let told = |s: &State| (s.phase, s.target_slot, s.last_error.clone(), s.last_error_kind.clone());
        assert_eq!(told(&s), told(&before));
        assert_eq!(State::parse(s.encode().as_bytes()).unwrap(), s);
    }
}
