//! Tests of how `inspect` uses the gates. The table against `check` is tests/registry/inspect.rs.

use super::*;
use crate::oci::metadata::Metadata;
use crate::offer::artifact::Place;

fn artifact(version: &str) -> Artifact {
    let file = FileRef { size_bytes: 1, sha256: Digest::of(b"f"), chunks: None, place: Place::Nowhere };
    Artifact {
        release: Metadata {
            version: version.into(),
            channel: Some("beta".into()),
            architecture: Some("arm64".into()),
            min_compatible_version: Some("1.0.0".into()),
            release_notes: None,
            release_date: Some("2026-01-01T00:00:00Z".into()),
            expires: Some("2030-01-01T00:00:00Z".into()),
        },
        digest: Digest::of(b"m"),
        index_digest: None,
        passed: Vec::new(),
        signed_by: vec![Digest::of(b"k")],
        source: "registry r/os:latest".into(),
        kernel: file.clone(),
        initramfs: file,
    }
}

fn labels(artifact: &Artifact, machine: Option<&str>, now_secs: u64) -> String {
    let machine = machine.map(|text| Machine::parse(text, None).unwrap());
    match judge(artifact, machine.as_ref(), Now::new(now_secs, 0)) {
        Ok(Verdict::Refused(refusals)) => refusals.iter().map(|r| r.gate.label()).collect::<Vec<_>>().join(" "),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_machine_that_is_spoken_of_remembers_nothing_and_refuses_as_others_do() {
    const THEN: u64 = 1_780_000_000;
    let later = crate::base::time::parse_rfc3339("2030-01-01T00:00:00Z").unwrap();
    for (version, machine, now, said) in [
        ("2.0.0", Some("1.0.0/arm64/beta"), THEN, "Ok(Take)"),
        ("2.0.0", Some("1.0.0/arm64"), THEN, "channel"),
        ("2.0.0", Some("1.0.0/amd64/beta"), THEN, "architecture"),
        ("2.0.0", Some("0.9.9/arm64/beta"), THEN, "min_compatible_version"),
        ("2.0.0", Some("2.0.1/arm64/beta"), THEN, "newer"),
        ("2.0.0", Some("2024.01/arm64/beta"), THEN, "running_version"),
        ("2.0.0", Some("1.0.0/arm64/beta"), later, "expired"),
        // The same version, however it is written; not another build or pre-release of it.
        ("2.0.0", Some("2.0.0/arm64/beta"), later, "Ok(UpToDate)"),
        ("v2.0.0", Some("2.0.0/arm64/beta"), THEN, "Ok(UpToDate)"),
        ("2.0.0", Some("v2.0.0/arm64/beta"), THEN, "Ok(UpToDate)"),
        ("2.0.0+b", Some("2.0.0+a/arm64/beta"), THEN, "newer"),
        ("2.0.0-rc.1", Some("2.0.0/arm64/beta"), THEN, "newer"),
        // Without a machine: what holds for all.
        ("2.0.0", None, THEN, "Ok(Take)"),
        ("0.0.1", None, THEN, "Ok(Take)"),
        ("2.0.0", None, later, "expired"),
    ] {
        assert_eq!(labels(&artifact(version), machine, now), said, "{version} {machine:?}");
    }
    let unsaid =
        Artifact { release: Metadata { architecture: None, ..artifact("2.0.0").release }, ..artifact("2.0.0") };
    assert_eq!(labels(&unsaid, None, THEN), "architecture");
    for bad in [
        Artifact { release: Metadata { version: "2".into(), ..artifact("").release }, ..artifact("") },
        Artifact {
            release: Metadata { min_compatible_version: Some("one".into()), ..artifact("2.0.0").release },
            ..artifact("2.0.0")
        },
        Artifact {
            release: Metadata { expires: Some("never".into()), ..artifact("2.0.0").release },
            ..artifact("2.0.0")
        },
        Artifact {
            release: Metadata { release_date: Some("now".into()), ..artifact("2.0.0").release },
            ..artifact("2.0.0")
        },
    ] {
        let e = judge(&bad, None, Now::new(THEN, 0)).unwrap_err();
        assert_eq!(e.exit_code(), 6, "{e}");
    }
}

#[test]
fn what_weighs_most_is_what_it_ends_with() {
    let gone = || Some(Error::new(Kind::Source, "gone"));
    let refusal = |why: &str| Refusal { gate: Gate::Expired, why: why.into(), hint: "" };
    let refused = || Verdict::Refused(vec![refusal("x")]);
    let dir = tempfile::tempdir().unwrap();
    let make = "openssl genpkey -algorithm ed25519 | openssl pkey -pubout >\"$0\"";
    let made = std::process::Command::new("sh").args(["-c", make]).arg(dir.path().join("key.pub")).status();
    assert!(made.unwrap().success());
    for (has_key, machine, verdicts, missing, word, code) in [
        (false, true, vec![Verdict::Take], None, "unchecked", 5),
        (false, true, vec![refused()], gone(), "unchecked", 5),
        (true, true, vec![refused()], gone(), "refused", 4),
        (true, true, vec![Verdict::Take], gone(), "incomplete", 6),
        (true, true, vec![Verdict::UpToDate], gone(), "incomplete", 6),
        (true, true, vec![Verdict::UpToDate], None, "up_to_date", 3),
        (true, true, vec![Verdict::Take], None, "accepted", 0),
        (true, false, vec![Verdict::Take, Verdict::Take], None, "authentic", 0),
        (true, false, vec![Verdict::Take, refused()], None, "refused", 4),
    ] {
        let keys = if has_key { vec![dir.path().join("key.pub")] } else { Vec::new() };
        let flags = Common { flags: subject::place("./layout", None, &|_| true).unwrap(), ..Common::default() };
        let request = Request {
            config: config::validate(&Raw::default(), &flags, &|path| PathBuf::from(path)).unwrap(),
            machine: machine.then(|| Machine::parse("1.0.0/arm64", None).unwrap()),
            ring: Keyring::named(&keys, 1).unwrap(),
        };
        let seen =
            |verdict| JudgedOffer { artifact: artifact("2.0.0"), verdict, missing: missing.clone(), unindexed: None };
        let all: Vec<JudgedOffer> = verdicts.into_iter().map(seen).collect();
        let (said, outcome) = conclude(&request, &all);
        let ended = match &outcome {
            Outcome::Refused(error) => error.exit_code(),
            Outcome::Nothing => 3,
            _ => 0,
        };
        assert_eq!((said, ended), (word, code));
    }
    // What is not checked is not called authentic, even if signatures are switched off.
    let flags = Common { flags: subject::place("./layout", None, &|_| true).unwrap(), ..Common::default() };
    let mut config = config::validate(&Raw::default(), &flags, &|path| PathBuf::from(path)).unwrap();
    config.signature = SignaturePolicy::Off;
    let request = Request { config, machine: None, ring: Keyring::named(&[], 1).unwrap() };
    let all = [JudgedOffer { artifact: artifact("2.0.0"), verdict: Verdict::Take, missing: None, unindexed: None }];
    assert!(matches!(conclude(&request, &all), ("unchecked", Outcome::Done)));
}
