//! Dates of a release in the scripts that publish: `now`, a span such as `180d`, and moments; none of it by `date -d`, which not every
//! system has.

use super::registry::ready;
use crate::support::publish::{Desk, stderr};
use crate::support::root::jq;
use crate::support::{command, need, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Options, and what is published: release date and expiry, or nothing where there is none; `?`: about now, or so many days behind
/// the release date; or words of a refusal. A line more is a case more.
type Row = (&'static [&'static str], Result<(&'static str, &'static str), &'static str>);

const ROWS: &[Row] = &[
    (&["--release-date", "now", "--expires", "180d"], Ok(("?", "?180"))),
    (&["--expires", "26w", "--release-date", "now"], Ok(("?", "?182"))),
    (&["--expires", "4800h"], Ok(("-", "?200"))),
    (
        &["--release-date", "2026-01-31T12:00:00Z", "--expires", "3650d"],
        Ok(("2026-01-31T12:00:00Z", "2036-01-29T12:00:00Z")),
    ),
    (
        &["--release-date", "2026-01-31T13:00:00+01:00", "--expires", "3650d"],
        Ok(("2026-01-31T13:00:00+01:00", "2036-01-29T12:00:00Z")),
    ),
    (&["--release-date", "now", "--expires", "2099-01-31T12:00:00Z"], Ok(("?", "2099-01-31T12:00:00Z"))),
    (&["--release-date", "now"], Ok(("?", "-"))),
    (&["--release-date", "2020-01-31T12:00:00Z", "--expires", "180d"], Err("it is past, now is")),
    (&["--expires", "180"], Err("--expires must be a time that exists")),
    (&["--expires", "180 days"], Err("or a span such as 180d (h, d or w, from the release date or now on)")),
    (&["--expires", "+180d"], Err("--expires must be a time that exists")),
    (&["--expires", "6m"], Err("--expires must be a time that exists")),
    (&["--expires", "now"], Err("--expires must be a time that exists")),
    (
        &["--release-date", "today"],
        Err("--release-date must be a time that exists, such as 2026-01-31T12:00:00Z, or now"),
    ),
    (&["--release-date", "7d"], Err("--release-date must be a time that exists")),
];

/// A `date` that knows what all systems know: `+FORMAT`, and `-u`.
fn plain_date(dir: &Path) -> String {
    let real = run(command("sh").args(["-c", "command -v date"]));
    let text = format!(
        "#!/bin/sh\nfor word in \"$@\"; do case $word in -u | +*) ;; *) echo 'date: what is that?' >&2; exit 1 ;; esac; done\nexec {} \"$@\"\n",
        real.trim()
    );
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::write(dir.join("bin/date"), text).unwrap();
    fs::set_permissions(dir.join("bin/date"), fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:", dir.join("bin").display())
}

fn publish(desk: &Desk, name: &str, place: &[&str], options: &[&str]) -> Command {
    let mut publish = crate::support::signing::script(desk.dir.path(), name);
    let path = publish.get_envs().find(|(key, _)| *key == "PATH").and_then(|(_, value)| value).unwrap().to_owned();
    let path = plain_date(desk.dir.path()) + path.to_str().unwrap();
    publish.env("PATH", path).args(["--version", "1.2.0", "--arch", "amd64", "--kernel", "vmlinuz-1.2.0-amd64"]);
    publish.args(["--initramfs", "os-1.2.0-amd64"]).args(place).args(options);
    publish
}

fn seconds(moment: &str) -> i64 {
    run(command("date").args(["-d", moment, "+%s"])).trim().parse().unwrap()
}

#[apply(test)]
fn the_dates_for_another_run_are_said_where_they_were_not_typed_and_all_is_right() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.2.0");
    const AGAIN: &str = "to start again after an interruption, give the same dates:";
    const MOMENT: &str = "2026-01-31T12:00:00Z";
    for (options, wanted) in [
        (
            &["--release-date", MOMENT, "--expires", "3650d"][..],
            " --release-date 2026-01-31T12:00:00Z --expires 2036-01-29T12:00:00Z\n",
        ),
        (&["--release-date", MOMENT, "--expires", "2099-01-31T12:00:00Z"], ""),
        (&["--release-date", "now", "--kernel", "absent"], ""),
        (&["--release-date", "now", "--layout", "vmlinuz-1.2.0-amd64"], ""),
    ] {
        let mut publish = crate::support::signing::script(desk.dir.path(), "publish-layout.sh");
        publish.args(["--version", "1.2.0", "--tag", "x", "--layout", "layout", "--dry-run", "--arch", "amd64"]);
        if !options.contains(&"--kernel") {
            publish.args(["--kernel", "vmlinuz-1.2.0-amd64"]);
        }
        let out = publish.args(["--initramfs", "os-1.2.0-amd64"]).args(options).output().unwrap();
        let said = stderr(&out);
        match wanted {
            "" => assert!(!said.contains(AGAIN), "{options:?}: {said}"),
            dates => assert!(out.status.success() && said.contains(&format!("{AGAIN}{dates}")), "{options:?}: {said}"),
        }
    }
}

#[apply(test)]
fn a_release_takes_now_and_a_span() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.2.0");
    let key = desk.key.private.to_str().unwrap().to_owned();
    for (n, (options, wanted)) in ROWS.iter().enumerate() {
        let (www, layout) = (format!("www-{n}"), format!("layout-{n}"));
        fs::create_dir(desk.path(&www)).unwrap();
        // Signed: sign.sh reads the dates, too.
        for (name, place) in [
            ("publish-http.sh", &["--dir", &www, "--key", &key][..]),
            ("publish-layout.sh", &["--layout", &layout, "--tag", "x"]),
        ]
        .into_iter()
        .take(if n == 0 { 2 } else { 1 })
        {
            let out = publish(&desk, name, place, options).output().unwrap();
            let row = format!("{name} {options:?}: {}", stderr(&out));
            let (release, expires) = match wanted {
                Err(words) => {
                    assert!(!out.status.success() && stderr(&out).contains(words), "{row}");
                    continue;
                }
                Ok(both) => both,
            };
            assert!(out.status.success(), "{row}");
            let published = match name {
                "publish-http.sh" => {
                    let text = fs::read_to_string(desk.path(&www).join("latest.json")).unwrap();
                    jq(&text, "[.release_date // \"-\", .expires // \"-\"] | join(\" \")")
                }
                _ => {
                    let manifest = "for blob in \"$1\"/blobs/sha256/*; do
                        jq -r 'select(.annotations[\"io.kubesolo.os.version\"]?) | .annotations | [.[\"io.kubesolo.os.release_date\"] // \"-\",
                            .[\"io.kubesolo.os.expires\"] // \"-\"] | join(\" \")' \"$blob\" 2>/dev/null || :; done";
                    run(command("sh").args(["-c", manifest, "sh"]).arg(desk.path(&layout)))
                }
            };
            let (date, end) = published.trim().split_once(' ').unwrap();
            let from = if date == "-" { seconds("now") } else { seconds(date) };
            match *release {
                "?" => assert!((seconds("now") - from).abs() < 300, "{row}: {date}"),
                release => assert_eq!(date, release, "{row}"),
            }
            match expires.strip_prefix('?') {
                Some(days) => {
                    let span = days.parse::<i64>().unwrap() * 86_400;
                    let off = (seconds(end) - from - span).abs();
                    assert!(off < if date == "-" { 300 } else { 1 }, "{row}: {end}");
                }
                None => assert_eq!(end, *expires, "{row}"),
            }
            // What is to be typed where this is started again changes nothing.
            if n < 2 {
                let line = stderr(&out)
                    .lines()
                    .find(|line| line.contains("give the same dates:"))
                    .unwrap_or_default()
                    .to_owned();
                let typed = line.split_once("dates: ").map_or("", |(_, rest)| rest);
                let typed: Vec<&str> = typed.split(' ').collect();
                let again = run(&mut publish(&desk, name, place, &typed));
                assert_eq!(again, String::from_utf8_lossy(&out.stdout), "{row}");
            }
        }
    }
}

/// The arithmetic of the scripts, against GNU date, with each awk that is here. What GNU date takes and RFC 3339 does not is none.
#[apply(test)]
fn moments_are_read_without_date() {
    need("busybox");
    let moments = [
        "1970-01-01T00:00:00Z",
        "1999-12-31T23:59:59Z",
        "2000-02-29T00:00:00Z",
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00.5Z",
        "2026-01-31T13:00:00+01:00",
        "2026-12-31T23:30:00-05:30",
        "2028-02-29T12:00:00+00:00",
        "2038-01-19T03:14:08Z",
        "2099-12-31T23:59:59Z",
        "2100-03-01T00:00:00Z",
        "2400-02-29T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ];
    let none = [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31 12:00:00Z",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-31T12:00:00z",
        "2026-01-31T12:00:00+24:00",
        "2026-01-31T12:00:00+01",
        "1969-12-31T23:59:59Z",
        "2026-01-31T12:00:00.Z",
        "x2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00Z\nx",
        "x\n2026-01-31T12:00:00Z",
    ];
    let dir = tempfile::tempdir().unwrap();
    let busybox = run(command("sh").args(["-c", "command -v busybox"]));
    std::os::unix::fs::symlink(busybox.trim(), dir.path().join("awk")).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/facts.sh");
    for path in [String::new(), format!("PATH={}:$PATH\n", dir.path().display())] {
        let secs = |moment: &str| {
            let script = format!("{path}. \"$1\"\nunix_secs \"$2\"");
            run(command("sh").args(["-euc", &script, "sh"]).arg(&file).arg(moment)).trim().to_owned()
        };
        for moment in moments {
            assert_eq!(secs(moment), seconds(moment).to_string(), "{path} {moment}");
        }
        for moment in none {
            assert_eq!(secs(moment), "", "{path} {moment:?}");
        }
    }
}
