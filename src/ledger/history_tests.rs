//! Tests of the history: its content after every transition of the state, and that it neither grows without bound nor breaks.

use super::*;
use crate::base::digest::Digest;
use crate::base::error::Error;
use crate::ledger::state::{STATE_MAX_BYTES, State, Taken};
use crate::slot::record::{FileRecord, Record};

fn taken<'a>(version: &'a str, target: Slot) -> Taken<'a> {
    Taken {
        from_version: Some("1.0.0"),
        version,
        source: "layout x",
        digest: Digest::of(version.as_bytes()),
        target,
        insisted: false,
    }
}

fn record(version: &str) -> Record {
    let file = |bytes: &[u8]| FileRecord { size_bytes: 1, sha256: Digest::of(bytes) };
    Record {
        version: version.into(),
        architecture: "amd64".into(),
        channel: "stable".into(),
        source: "layout x".into(),
        manifest_digest: Some(Digest::of(version.as_bytes())),
        signed_by: Vec::new(),
        index_digest: None,
        passed: Vec::new(),
        release_date: None,
        kernel: file(b"k"),
        initramfs: file(b"i"),
        layers: Vec::new(),
    }
}

fn network() -> Error {
    Error::new(Kind::Network, "no route")
}

fn unhealthy() -> Error {
    Error::new(Kind::Unhealthy, "the node is not ready")
}

/// Each entry as one line.
fn told(state: &State) -> Vec<String> {
    let line = |a: &Attempt| {
        let text = |part| a.text(part).unwrap_or("-");
        let second = |part| a.text(part).map_or("-".to_string(), |time| time[14..19].to_string());
        let (from, to, slot, result) =
            (text(Part::FromVersion), text(Part::ToVersion), text(Part::Slot), text(Part::Result));
        let (kind, began, ended) = (text(Part::ErrorKind), second(Part::StartedAt), second(Part::EndedAt));
        format!("{from}>{to} {slot} {result} {kind} {began}-{ended} x{}", a.count)
    };
    assert_eq!(State::parse(state.encode().as_bytes()).unwrap(), *state);
    state.history.attempts().iter().map(line).collect()
}

fn downloading(state: &mut State, version: &str, now: u64) {
    state.begin(now).unwrap();
    state.take(&taken(version, Slot::B), now).unwrap();
}

fn staged(state: &mut State, version: &str, now: u64) {
    downloading(state, version, now);
    state.step(Phase::Staged, now + 1).unwrap();
}

#[test]
fn an_attempt_is_one_entry_that_follows_the_phase() {
    let mut s = State::default();
    s.begin(1).unwrap();
    assert_eq!(told(&s), [""; 0]);
    s.take(&taken("1.1.0", Slot::B), 2).unwrap();
    assert_eq!(told(&s), ["1.0.0>1.1.0 B downloading - 00:02-- x1"]);
    s.step(Phase::Staged, 3).unwrap();
    assert_eq!(told(&s), ["1.0.0>1.1.0 B staged - 00:02-00:03 x1"]);
    s.activate(Some("1.0.0"), Slot::B, &record("1.1.0"), 4).unwrap();
    assert_eq!(told(&s), ["1.0.0>1.1.0 B activated - 00:02-00:04 x1"]);
    s.step(Phase::Verifying, 5).unwrap();
    assert_eq!(told(&s), ["1.0.0>1.1.0 B verifying - 00:02-- x1"]);
    // The first trial boot fails, and the second passes.
    s.fail(&unhealthy(), 6).unwrap();
    assert_eq!(told(&s), ["1.0.0>1.1.0 B failed unhealthy 00:02-00:06 x1"]);
    s.step(Phase::Verifying, 7).unwrap();
    s.succeed(8).unwrap();
    assert_eq!(told(&s), ["1.0.0>1.1.0 B success - 00:02-00:08 x1"]);
    // Rolled back later by hand: it was a success nevertheless.
    s.roll_back(Slot::B, Some((Digest::of(b"1.1.0"), "1.1.0".into())), "manual rollback", 9).unwrap();
    let both = ["1.0.0>1.1.0 B success - 00:02-00:08 x1", "1.0.0>1.1.0 B rolled_back rollback 00:09-00:09 x1"];
    assert_eq!(told(&s), both);
    // The slot it went back to does not come up: GRUB returns.
    s.roll_back(Slot::A, Some((Digest::of(b"1.0.0"), "1.0.0".into())), "three boots", 10).unwrap();
    assert_eq!(told(&s)[..2], both);
    assert_eq!(told(&s)[2..], ["1.1.0>1.0.0 A rolled_back rollback 00:10-00:10 x1"]);
    assert_eq!((s.attempt_count, s.rollbacks_total), (0, 2));
}

#[test]
fn what_is_given_up_before_it_is_confirmed_is_the_same_entry() {
    for phases in [&[][..], &[Phase::Activated], &[Phase::Activated, Phase::Verifying]] {
        for fails in [false, true] {
            let mut s = State::default();
            staged(&mut s, "1.1.0", 1);
            phases.iter().for_each(|phase| s.step(*phase, 3).unwrap());
            if fails {
                s.fail(&unhealthy(), 4).unwrap();
            }
            let artifact = (Digest::of(b"1.1.0"), "1.1.0".to_string());
            s.roll_back(Slot::B, Some(artifact), "r", 5).unwrap();
            assert_eq!(told(&s), ["1.0.0>1.1.0 B rolled_back rollback 00:01-00:05 x1"]);
            // The slot cannot be read: its content is known from the state.
            staged(&mut s, "1.2.0", 6);
            s.roll_back(Slot::B, None, "r", 8).unwrap();
            assert_eq!(told(&s)[1..], ["1.0.0>1.2.0 B rolled_back rollback 00:06-00:08 x1"]);
        }
    }
}

#[test]
fn a_cut_off_download_is_a_failed_attempt_and_a_cut_off_check_is_none() {
    let mut s = State::default();
    s.begin(1).unwrap();
    s.cut_off(2).unwrap();
    assert_eq!(told(&s), [""; 0]);
    downloading(&mut s, "1.1.0", 3);
    s.cut_off(4).unwrap();
    assert_eq!(told(&s), ["1.0.0>1.1.0 B failed state 00:03-00:04 x1"]);
    s.begin(5).unwrap();
    s.nothing_taken(6);
    assert_eq!(told(&s).len(), 1);
}

#[test]
fn a_dead_server_pushes_nothing_out() {
    let mut s = State::default();
    staged(&mut s, "1.1.0", 1);
    s.activate(None, Slot::B, &record("1.1.0"), 2).unwrap();
    s.succeed(2).unwrap();
    let kinds = [Kind::Network, Kind::Source, Kind::Signature];
    for now in 10..1000 {
        s.begin(now).unwrap();
        s.fail(&Error::new(kinds[now as usize % 3], format!("at {now}")), now).unwrap();
    }
    assert_eq!(
        told(&s),
        [
            "1.0.0>1.1.0 B success - 00:01-00:02 x1",
            "->- - failed source 00:10-16:37 x330",
            "->- - failed signature 00:11-16:38 x330",
            "->- - failed network 00:12-16:39 x330",
        ]
    );
    assert!(s.history.attempts()[1..].iter().any(|a| a.text(Part::Error) == Some("at 999")));
    // A success between them: the next failure is a new one.
    staged(&mut s, "1.2.0", 2000);
    s.begin(2002).unwrap();
    s.fail(&network(), 2003).unwrap();
    // And it leaves the staged slot staged: the same attempt continues afterwards.
    assert_eq!((s.phase, s.last_error_kind.as_deref()), (Phase::Staged, None));
    assert!(s.last_error.is_none() && s.attempts_total == 992);
    s.activate(None, Slot::B, &record("1.2.0"), 2004).unwrap();
    let results: Vec<&str> = s.history.attempts().iter().map(|a| a.text(Part::Result).unwrap()).collect();
    assert_eq!(results, ["success", "failed", "failed", "failed", "activated", "failed"]);
}

#[test]
fn a_bad_line_is_one_entry_however_often_it_breaks() {
    let mut s = State::default();
    for n in 0..KEPT as u64 {
        staged(&mut s, &format!("1.1.{n}"), n);
    }
    assert_eq!(s.history.attempts().len(), KEPT);
    for now in 100..200 {
        downloading(&mut s, "2.0.0", now);
        assert_eq!(told(&s).len(), KEPT + 1);
        s.fail(&network(), now).unwrap();
        assert_eq!(told(&s).len(), KEPT);
    }
    assert_eq!(told(&s)[0], "1.0.0>1.1.1 B staged - 00:01-00:02 x1");
    assert_eq!(told(&s)[KEPT - 1], "1.0.0>2.0.0 B failed network 01:40-03:19 x100");
    // Failed checks are dropped before attempts.
    for (now, kind) in [(300, Kind::Network), (301, Kind::Source), (302, Kind::Digest)] {
        s.begin(now).unwrap();
        s.fail(&Error::new(kind, "no"), now).unwrap();
    }
    assert_eq!((told(&s).len(), told(&s)[0].as_str()), (KEPT, "1.0.0>1.1.2 B staged - 00:02-00:03 x1"));
    assert_eq!(told(&s)[KEPT - 1], "->- - failed digest 05:02-05:02 x1");
}

#[test]
fn a_slot_that_is_activated_without_its_state_has_an_entry() {
    let mut s = State::default();
    s.activate(Some("1.0.0"), Slot::B, &record("1.1.0"), 5).unwrap();
    assert_eq!(told(&s), ["1.0.0>1.1.0 B activated - 00:05-00:05 x1"]);
    // Nothing was downloaded: no attempt is counted.
    assert_eq!((s.attempt_count, s.attempts_total, s.from_version.as_deref()), (0, 0, Some("1.0.0")));
    // An older agent's state, without a history: the attempt in progress gets its entry.
    let old = r#"{"phase":"activated","target_slot":"B","from_version":"1.0.0","to_version":"1.1.0","started_at":"1970-01-01T00:00:03Z"}"#;
    let mut s = State::parse(old.as_bytes()).unwrap();
    assert_eq!(told(&s), [""; 0]);
    s.step(Phase::Verifying, 8).unwrap();
    s.succeed(9).unwrap();
    assert_eq!(told(&s), ["1.0.0>1.1.0 B success - 00:03-00:09 x1"]);
}

#[test]
fn broken_entries_are_dropped_and_the_state_stays() {
    let mut s = State::default();
    staged(&mut s, "1.1.0", 1);
    s.begin(3).unwrap();
    s.fail(&network(), 4).unwrap();
    let text = s.encode();
    for (from, to, left) in [
        (r#""result":"staged""#, r#""result":"flying""#, 1),
        (r#""result":"staged""#, r#""result":"idle""#, 1),
        (r#""result":"staged""#, r#""result":7"#, 1),
        (r#""slot":"B","result""#, r#""slot":"C","result""#, 1),
        (r#""slot":"B","result""#, r#""slot":null,"result""#, 1),
        (r#""slot":"B","result""#, r#""slot":["B"],"result""#, 1),
        (r#""started_at":"1970-01-01T00:00:01Z","ended_at""#, r#""started_at":"yesterday","ended_at""#, 1),
        (r#""started_at":"1970-01-01T00:00:01Z","ended_at""#, r#""started":"","ended_at""#, 1),
        (r#""count":1},"#, r#""count":-1},"#, 1),
        (r#""count":1},"#, r#""number":1},"#, 2),
        (r#""error_kind":"network""#, r#""error_kind":"of the future""#, 2),
        (r#""count":1},"#, r#""count":1},5,"#, 0),
        (r#""history":["#, r#""history":7,"old":["#, 0),
        (r#""history":["#, r#""history":{},"old":["#, 0),
        (r#""history":["#, r#""old":["#, 0),
    ] {
        assert!(text.contains(from), "{from}: {text}");
        let read = State::parse(text.replacen(from, to, 1).as_bytes()).unwrap();
        assert_eq!(read.history.attempts().len(), left, "{to}");
        assert_eq!(State { history: s.history.clone(), ..read }, s, "{to}");
    }
}

#[test]
fn too_many_entries_are_read_as_the_last_ones() {
    let mut s = State::default();
    for n in 0..5 {
        staged(&mut s, &format!("1.1.{n}"), n);
    }
    let list = json::to_string(s.history.attempts());
    let (_, list) = list.split_at(1);
    let many = format!("[{}", list.replace(']', ",").repeat(100)) + list;
    let read = History::parse(&format!("{{\"history\":{many}}}"));
    assert_eq!(read.attempts().len(), KEPT);
    assert_eq!(read.attempts()[KEPT - 1], s.history.attempts()[4]);
}

/// Any sequence: at most 20 calls, any texts.
#[test]
fn any_sequence_fits_into_the_file_and_survives_it() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    let texts =
        ["1.1.0".to_string(), "\"\\".repeat(2500), "\u{1F600}\u{1b}".repeat(2500), "é\n".repeat(60), String::new()];
    let mut largest = 0;
    let mut s = State::default();
    for now in 0..6_000 {
        if now % 20 == 0 && next(4) > 0 {
            s = State::default();
        }
        let mut text = || texts[next(5) as usize].as_str();
        let (version, from, why) = (text(), text(), text());
        let error = Error::new(if next(2) == 0 { Kind::Network } else { Kind::Device }, why).at(why, why).hint(why);
        let slot = if next(2) == 0 { Slot::A } else { Slot::B };
        let before = s.clone();
        let what = Taken { from_version: Some(from), source: why, ..taken(version, slot) };
        let done = match next(9) {
            0 | 1 => s.begin(now),
            2 | 3 => s.take(&what, now),
            4 => s.step(Phase::Staged, now),
            5 => s.activate(Some(from), slot, &Record { source: why.into(), ..record(version) }, now),
            6 => match next(3) {
                0 => s.step(Phase::Verifying, now),
                1 => s.cut_off(now),
                _ => s.succeed(now),
            },
            7 => s.fail(&error, now),
            _ => s.roll_back(slot, (next(2) == 0).then(|| (Digest::of(b"x"), version.into())), why, now),
        };
        let text = s.encode();
        largest = largest.max(text.len());
        assert_eq!(State::parse(text.as_bytes()).unwrap(), s);
        let attempts = s.history.attempts();
        assert!(attempts.len() <= KEPT + usize::from(s.phase == Phase::Downloading));
        if done.is_err() {
            assert_eq!(s, before, "an illegal call changed something");
        }
        // The state's own attempt is in it, as the state tells it.
        let own = attempts.iter().rev().find(|a| a.text(Part::Slot).is_some());
        if s.phase.may_become(Phase::RolledBack) && s.phase.may_become(Phase::Failed) && s.phase != Phase::Failed {
            let own = own.expect("an attempt goes on");
            let slot = s.target_slot.map(|slot| slot.to_string());
            assert!(own.has_come_to(s.phase) && own.text(Part::Slot) == slot.as_deref());
            assert_eq!(own.text(Part::ToVersion), s.to_version.as_deref());
        }
        let is_in_order = |a: &Attempt| a.text(Part::EndedAt).is_none_or(|end| Some(end) >= a.text(Part::StartedAt));
        assert!(attempts.iter().all(|a| a.count > 0 && is_in_order(a)));
    }
    assert!((10_000..STATE_MAX_BYTES as usize).contains(&largest), "{largest} bytes");
}

#[test]
fn the_largest_state_fits_into_the_file() {
    let mut s = State::default();
    let long = "\"\\".repeat(5000);
    for now in 0..100 {
        s.begin(now).unwrap();
        let (version, digest) = (format!("{now}{long}"), Digest::of(b"d"));
        let what = Taken {
            from_version: Some(&long),
            version: &version,
            source: &long,
            digest,
            target: Slot::B,
            insisted: false,
        };
        s.take(&what, now).unwrap();
        let most = told(&s).len() > KEPT;
        assert!(!most || (30_000..STATE_MAX_BYTES as usize).contains(&s.encode().len()), "{}", s.encode().len());
        s.fail(&Error::new(Kind::Unhealthy, long.as_str()).at(&long, &long).hint(long.as_str()), now).unwrap();
        s.switched_boot_id = Some("\u{1F600}".repeat(64));
        assert!(s.encode().len() < STATE_MAX_BYTES as usize, "{}", s.encode().len());
    }
}

#[test]
fn every_kind_is_known_and_in_the_schema() {
    let schema = include_str!("../../docs/json-schema.json");
    for kind in Kind::ALL {
        // When a kind is added, the compiler points to the list here.
        match kind {
            Kind::Internal | Kind::Usage | Kind::Config | Kind::Gate | Kind::Digest | Kind::Signature => {}
            Kind::Network | Kind::Source | Kind::Device | Kind::Slot | Kind::Boot | Kind::State => {}
            Kind::Busy | Kind::Unhealthy => {}
        }
        assert!(is_kind(kind.label()) && schema.contains(&format!("\"{}\"", kind.label())), "{}", kind.label());
    }
    assert!(is_kind(ROLLBACK) && !is_kind("Network") && !is_kind(""));
}

#[test]
fn cutting_again_changes_nothing() {
    for text in ["", "a", "é".repeat(5000).as_str(), &"\u{1b}".repeat(67), &"x".repeat(201)] {
        let once = cut(text, 200);
        assert!(once.len() <= 200 && cut(&once, 200) == once, "{once}");
    }
    let is_time = |text| Moment::parse_own(text).is_some();
    assert!(is_time("2026-01-31T12:00:00Z") && !is_time("2026-01-31t12:00:00Z") && !is_time("2026-01-31T12:00:00.5Z"));
}

/// As seen in a row on a machine: 10:56:45, 10:57:12, 10:43:58.
#[test]
fn one_order_and_that_is_the_end() {
    // Start, end (empty: in progress); in the order of recording. Then the order of display.
    for (attempts, order) in [
        (&[("10:40", "10:43:58"), ("10:41", "10:57:12"), ("10:50", "10:56:45")][..], &[0, 2, 1][..]),
        (&[("10:40", "10:45"), ("10:41", ""), ("10:42", "10:43")], &[2, 0, 1]),
        (&[("10:40", "10:41"), ("10:40", "10:41"), ("10:40", "10:41")], &[0, 1, 2]),
        (&[("10:40", ""), ("10:39", "")], &[0, 1]),
        (&[], &[]),
    ] {
        let time = |text: &str| format!("2026-11-22T{text}{}Z", &":00"[..8 - text.len().min(8)]);
        let mut history = History::default();
        for (start, end) in attempts {
            let mut attempt = Attempt::new(Phase::Failed, &time(start));
            attempt.set(Part::EndedAt, Some(*end).filter(|end| !end.is_empty()).map(time).as_deref());
            history.0.push(attempt);
        }
        let shown = history.by_end();
        let found: Vec<usize> =
            shown.iter().map(|shown| history.0.iter().position(|one| std::ptr::eq(one, *shown)).unwrap()).collect();
        assert_eq!(found, order, "{attempts:?}");
    }
}
