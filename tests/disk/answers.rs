//! `--json` and `--shell`: one envelope for every command, the same in both, and what it means that it cannot be written.

use crate::support::disk::{B, Disk, need_disks};
use crate::support::release::{Medium, Release};
use crate::support::root::{Root, Run, jq};
use crate::support::trial::{Trial, spoil};
use crate::support::web::{Answer, Web};
use crate::support::{command, need, need_all};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// A window of a minute that was open, or will be, about half a day from now.
fn shut_window() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let clock = |secs: u64| kubesolo_update::parts::base::time::rfc3339(secs)[11..16].to_owned();
    format!("{}-{}", clock(now + 12 * 3600), clock(now + 12 * 3600 + 60))
}

/// The lines of `--shell` as busybox's shell reads them: each variable by its name.
#[track_caller]
fn eval(lines: &str) -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("lines"), lines).unwrap();
    let names = dir.path().join("names");
    let listed: Vec<&str> = lines.lines().filter_map(|line| line.split_once("='")).map(|(name, _)| name).collect();
    fs::write(&names, listed.join("\n") + "\n").unwrap();
    // A value may end in a newline, which $(...) takes away.
    let script = r#"eval "$(cat lines; echo)"
        while read -r name; do eval "printf '%s\\0%s\\0' \"\$name\" \"\${$name}\""; done <names"#;
    let mut shell = command("busybox");
    let out = shell.args(["ash", "-euc", script]).current_dir(dir.path()).output().unwrap();
    assert!(out.status.success(), "{}\n{lines}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something of it was run");
    let said = String::from_utf8(out.stdout).unwrap();
    let words: Vec<&str> = said.split('\0').collect();
    words.chunks_exact(2).map(|pair| (pair[0].to_string(), pair[1].to_string())).collect()
}

/// What a document says by the names of `--shell`, as jq has it.
#[track_caller]
fn flat(document: &str) -> BTreeMap<String, String> {
    let filter = r#". as $all
        | [paths(type != "object" and type != "array") as $p | {path: $p, value: ($all | getpath($p))}]
        + [paths(arrays) as $p | {path: ($p + ["count"]), value: ($all | getpath($p) | length)}]
        | map(((["kubesolo"] + .path) | map(tostring) | join("_") | ascii_upcase) as $name
              | $name + "=" + (.value | if . == null then "" else tostring end) + "|")
        | .[]"#;
    // No text has a newline, and none is taken away at its end.
    let pair = |line: &str| line.strip_suffix('|').unwrap().split_once('=').map(|(a, b)| (a.into(), b.into())).unwrap();
    jq(document, filter).lines().map(pair).collect()
}

/// Asks both ways, and holds one answer against the other. Returns: the JSON.
#[track_caller]
fn ask(root: &Root, args: &[&str], code: i32) -> Run {
    let json = root.agent(&[args, &["--json"]].concat()).expect(code, &[]);
    let shell = root.agent(&[args, &["--shell"]].concat()).expect(code, &[]);
    let mut wanted = flat(&json.stdout);
    // Always there, so that none is left of an earlier answer.
    for name in ["KUBESOLO_KIND", "KUBESOLO_MESSAGE"] {
        wanted.entry(name.into()).or_default();
    }
    let mut found = eval(&shell.stdout);
    for name in ["KUBESOLO_WAITED_SECS", "KUBESOLO_CHECKS_0_DURATION_MILLIS", "KUBESOLO_CHECKS_1_DURATION_MILLIS"] {
        // It took another time.
        assert_eq!(found.remove(name).is_some(), wanted.remove(name).is_some());
    }
    let differ = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| {
        a.iter()
            .filter(|(name, value)| b.get(*name) != Some(*value))
            .map(|(n, v)| format!("{n}={v}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(differ(&found, &wanted), differ(&wanted, &found), "{args:?}");
    json
}

#[apply(test)]
fn a_shell_reads_what_the_json_says() {
    Trial::ready();
    need_all(&["busybox", "jq"]);
    let trial = Trial::booted();
    let root = &trial.root;
    let status = ask(root, &["status"], 0);
    assert_eq!(status.jq("[.command, .result, .running_version]"), r#"["status","shown","2.0.0"]"#);
    let lines = root.agent(&["status", "--shell"]).expect(0, &["KUBESOLO_RUNNING_VERSION='2.0.0'\n"]).stdout;
    let variables = eval(&lines);
    assert_eq!(variables["KUBESOLO_RUNNING_VERSION"], "2.0.0");
    assert_eq!((&variables["KUBESOLO_SLOTS_COUNT"], &variables["KUBESOLO_SLOTS_1_SLOT"]), (&"2".into(), &"B".into()));
    ask(root, &["verify"], 0);
    ask(root, &["device", "KSOLODATA"], 0);
    ask(root, &["device", "KSOLO"], 2);
    ask(root, &["check", "--frob"], 2);
    ask(root, &["check", "--layout", trial.medium.path()], 3);
    ask(root, &["apply", "--layout", trial.medium.path()], 4);
    ask(root, &["apply", "--layout", trial.medium.path(), "--ok-if-nothing"], 0);
    ask(root, &["activate"], 4);
    let file = root.path("out.prom");
    ask(root, &["metrics", "--textfile", file.to_str().unwrap()], 0);
    // The disk is what it is: a slot that has rotted.
    let mut trial = trial;
    spoil(&mut trial.disk, B, "vmlinuz");
    let verify = ask(&trial.root, &["verify"], 7);
    assert_eq!(verify.jq("[.result, .kind, .slots[1].valid]"), r#"["faulty","slot",false]"#);
}

/// Texts from outside. A line more is a case more.
#[apply(test)]
fn nothing_of_a_value_is_run() {
    need_disks();
    need_all(&["busybox", "jq"]);
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let release = Release::new("2.0.0");
    for text in [
        "it's here",
        "'",
        "''$(touch run)''",
        "'; touch run; '",
        "$(touch run)",
        "`touch run`",
        "${IFS}",
        "\\",
        "\\'",
        "\"; touch run; \"",
        "two\nlines\n",
        "\ttab, \r return",
        "ends in a quote'",
        "\u{c1}\u{e9}\u{201c}\u{1f600}",
        "*",
        "~root",
        "-n",
        "!!",
        "#",
        "a=b; c=d & e | f > run",
    ] {
        let notes = jq("null", &format!("({} | tojson)", jq_text(text)));
        let document =
            release.latest_json().replacen("\"channel\":", &format!("\"release_notes\":{notes},\"channel\":"), 1);
        let served = release.clone();
        let web = Web::start(move |path| match path {
            "/latest.json" => Answer::ok(document.clone()),
            _ => served.file(path).map_or(Answer::status(404), Answer::ok),
        });
        let check = ask(&root, &["check", "--server", &web.url("")], 0);
        assert_eq!(check.jq(".result"), "available");
    }
    root.install_check("10-odd", r#"echo "it's \$(touch run) \`touch run\` '; touch run; '"; exit 1"#);
    let health = ask(&root, &["healthcheck", "--timeout", "0"], 9);
    assert!(health.jq(".checks[0].detail").contains("it's $(touch run)"), "{}", health.stdout);
    assert_eq!(health.jq("[.result, .kind]"), r#"["unhealthy","unhealthy"]"#);
}

/// A text as a jq expression.
fn jq_text(text: &str) -> String {
    let codes: Vec<String> = text.chars().map(|c| u32::from(c).to_string()).collect();
    format!("[{}] | implode", codes.join(","))
}

/// Why an update is not taken: what sets it up, and the gates. A line more is a case more.
#[apply(test)]
fn check_and_apply_name_the_same_gates() {
    Trial::ready();
    need("jq");
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(24, 16);
    let mut root = Root::new(&disk);
    let medium = |release: Release| Medium::new(dir.path(), &release);
    let (newer, older) = (medium(Release::new("9.0.0")), medium(Release::new("0.1.0")));
    let later = medium(Release::new("9.0.1").with("io.kubesolo.os.min_compatible_version", "8.0.0"));
    let past = medium(Release::new("9.0.2").with("io.kubesolo.os.expires", "2026-01-02T00:00:00Z"));
    let shut = format!("maintenance_window = {}\n", shut_window());
    for (medium, config, gates, hint) in [
        (&older, "", "newer", "--allow-downgrade takes it"),
        (&newer, "channel = edge\n", "channel", "null"),
        (&later, "", "min_compatible_version", "null"),
        (&past, "", "expired", "null"),
        (&newer, &shut, "maintenance_window", "--ignore-window overrides it"),
        (&older, &format!("channel = edge\n{shut}"), "channel newer maintenance_window", "null"),
    ] {
        root.configure(&format!("signature = off\n{config}"));
        // The clock goes on between the two.
        let envelope = "[.result, .kind, .exit_code, (.refusals | map(.reason |= gsub(\"[0-9:]{8}Z\"; \"\")))]";
        let asked = root.agent(&["check", "--json", "--layout", medium.path()]).expect(4, &[]);
        let applied = root.agent(&["apply", "--json", "--layout", medium.path()]).expect(4, &[]);
        assert_eq!(asked.jq(envelope), applied.jq(envelope), "{gates}");
        assert_eq!(applied.jq("[.refusals[].gate] | join(\" \")"), gates);
        assert_eq!(applied.jq("[.result, .kind, .exit_code]"), r#"["refused","gate",4]"#, "{gates}");
        assert_eq!(applied.jq(".refusals[0].hint"), hint, "{gates}");
        // The sentence for a person has each of them.
        let told = ".message as $m | [.refusals[] | .reason as $r | .hint as $h | $m | contains($r) and contains($h // \"\")] | all";
        assert_eq!(applied.jq(told), "true", "{}", applied.stdout);
        assert_eq!(applied.jq(".message | startswith(\"take version \")"), "true", "{}", applied.stdout);
    }
    // A trial belongs to itself.
    root.configure("signature = off\n");
    root.set_boot_variables(&["boot_canary=1"]);
    root.agent(&["apply", "--layout", newer.path(), "--activate", "--json"]).expect(0, &[r#""activated":true"#]);
    for args in [
        &["apply", "--layout", older.path(), "--json"][..],
        &["apply", "--ok-if-nothing", "--json", "--layout", older.path()],
    ] {
        let run = root.agent(args);
        let waits = args.contains(&"--ok-if-nothing");
        let wanted =
            if waits { r#"["waits","gate",0,"trial_pending"]"# } else { r#"["refused","gate",4,"trial_pending"]"# };
        assert_eq!(run.jq("[.result, .kind, .exit_code, .refusals[].gate]"), wanted, "{args:?}");
    }
    // What failed here before, of three commands.
    root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
    root.boot('A', Some(&disk.guid(crate::support::disk::A)));
    for args in [
        &["check", "--layout", newer.path(), "--json"][..],
        &["apply", "--layout", newer.path(), "--json"],
        &["rollback", "--json"],
    ] {
        let run = root.agent(args).expect(4, &[]);
        assert_eq!(run.jq("[.result, .refusals[].gate]"), r#"["refused","failed_before"]"#, "{args:?}");
        assert!(run.jq(".refusals[0].hint").starts_with("--retry-failed"), "{}", run.stdout);
    }
}

/// Which slot is meant, where there is nothing to do: the one that holds it.
#[apply(test)]
fn what_runs_already_is_in_the_running_slot() {
    Trial::ready();
    let mut trial = Trial::booted();
    trial.root.set_boot_variables(&["boot_success=1"]);
    let path = trial.medium.path().to_owned();
    let run = trial.root.agent(&["apply", "--json", "--layout", &path]).expect(3, &[]);
    assert_eq!(
        run.jq("[.result, .slot, .version, .activated, .restarts]"),
        r#"["up_to_date","B","2.0.0",false,false]"#
    );
    trial.boot(B);
    let newer = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
    let run = trial.root.agent(&["apply", "--json", "--layout", newer.path()]).expect(0, &[]);
    assert_eq!(run.jq("[.result, .slot, .version]"), r#"["staged","A","3.0.0"]"#);
    let run = trial.root.agent(&["apply", "--json", "--layout", newer.path()]).expect(3, &[]);
    assert_eq!(run.jq("[.result, .slot]"), r#"["staged_before","A"]"#);
}

/// Runs the agent with something in place of stdout. Returns: the exit code, and what it says on stderr.
fn with_stdout(root: &Root, args: &[&str], stdout: Stdio) -> (Option<i32>, String) {
    let out = root.command(args).stdout(stdout).output().unwrap();
    (out.status.code(), String::from_utf8(out.stderr).unwrap())
}

/// The write end of a pipe that nobody reads.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// What is asked, and its exit code where it can be said. A line more is a case more.
#[apply(test)]
fn an_answer_that_cannot_be_written_is_an_error_and_a_closed_pipe_is_none() {
    Trial::ready();
    let trial = Trial::booted();
    let layout = trial.medium.path();
    for (args, code) in [
        (&["status"][..], 0),
        (&["check", "--layout", layout], 3),
        (&["verify"], 0),
        (&["metrics", "--once"], 0),
        (&["healthcheck", "--timeout", "0"], 9),
        (&["rollback", "--help"], 0),
    ] {
        for form in [None, Some("--json"), Some("--shell")] {
            if form.is_some() && args.iter().any(|word| ["--once", "--help"].contains(word)) {
                continue;
            }
            let args: Vec<&str> = args.iter().copied().chain(form).collect();
            let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
            let (ended, said) = with_stdout(&trial.root, &args, full.into());
            assert!(ended == Some(1) && said.contains("the answer could not be written"), "{args:?}: {ended:?} {said}");
            let (ended, said) = with_stdout(&trial.root, &args, closed_pipe());
            assert!(ended == Some(code) && !said.contains("written"), "{args:?}: {ended:?} {said}");
        }
    }
    // An error has its own code where it says nothing on stdout, and a document of it is an answer.
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into();
    assert_eq!(with_stdout(&trial.root, &["apply", "--layout", layout], full()).0, Some(4));
    assert_eq!(with_stdout(&trial.root, &["apply", "--layout", layout, "--json"], full()).0, Some(1));
    // What was done is done.
    let (ended, said) = with_stdout(&trial.root, &["rollback", "--json"], full());
    assert!(ended == Some(1) && said.contains("the answer could not be written"), "{ended:?} {said}");
    trial.assert_boot("A", "1", "2", "");
}

/// The `sh` block of docs/answers.md, and the script of the man page, as they stand there.
fn recipes() -> [String; 2] {
    let read = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let (page, man) = (read("docs/answers.md"), read("docs/man/kubesolo-update.8"));
    let block = page.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let (_, rest) = man.split_once("\neval \"$(kubesolo-update").unwrap();
    let script = format!("eval \"$(kubesolo-update{}", rest.split("\n.Ed").next().unwrap());
    [block.to_string(), script]
}

#[apply(test)]
fn the_recipe_works_as_it_stands() {
    Trial::ready();
    need("busybox");
    let trial = Trial::booted();
    trial.root.set_boot_variables(&["boot_success=1"]);
    let newer = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
    let dir = tempfile::tempdir().unwrap();
    let wrapper = dir.path().join("kubesolo-update");
    fs::write(
        &wrapper,
        "#!/bin/sh\ncommand=$1; shift\nexec \"$AGENT\" \"$command\" --root \"$ROOT\" --layout \"$LAYOUT\" \"$@\"\n",
    )
    .unwrap();
    crate::support::run(command("chmod").args(["+x"]).arg(&wrapper));
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    for recipe in recipes() {
        for (layout, config, words) in [
            (newer.path(), "", "there is 3.0.0"),
            (trial.medium.path(), "", "nothing to do: up_to_date"),
            (newer.path(), "channel = edge\n", "refused by channel: artifact is on channel stable"),
            (newer.path(), "chanel = edge\n", "config: read "),
        ] {
            trial.root.configure(&format!("signature = off\n{config}"));
            let mut shell = command("busybox");
            shell.args(["ash", "-euc", &recipe]).env("AGENT", Root::program()).env("ROOT", trial.root.path(""));
            let out = shell.env("LAYOUT", layout).env("PATH", &path).output().unwrap();
            let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            assert!(out.status.success() && said.contains(words), "{recipe}: '{words}'\n{said}");
        }
    }
}
