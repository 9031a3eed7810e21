//! What a person types first: `-h`, `--help`, a command that does not exist.

use crate::support::root::{Root, Run};
use std::process::Command;

fn agent(words: &[&str]) -> Run {
    Command::new(Root::program()).args(words).output().unwrap().into()
}

/// The commands that the program's own help lists.
fn commands() -> Vec<String> {
    let help = agent(&["--help"]).expect(0, &["Commands:"]).stdout;
    let (_, list) = help.split_once("Commands:\n").unwrap();
    // Continued lines are indented further.
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    names.map(|line| line.split(' ').next().unwrap().to_string()).collect()
}

#[apply(test)]
fn short_and_long_help_are_one() {
    let top = agent(&["-h"]).expect(0, &["Usage: kubesolo-update", "-h, --help"]);
    assert_eq!(top.stdout, agent(&["--help"]).stdout);
    assert!(top.stderr.is_empty());
    let commands = commands();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let short = agent(&[&command, "-h"]).expect(0, &["Usage: kubesolo-update", &command, "-h, --help"]);
        assert_eq!(short.stdout, agent(&[&command, "--help"]).stdout, "{command}");
        assert!(short.stderr.is_empty(), "{command}");
    }
}

/// Help wins wherever it stands, and what is beside it is not even looked at. A line more is a case more.
#[apply(test)]
fn help_wins() {
    let of = |command: &str| agent(&[command, "--help"]).expect(0, &[]).stdout;
    for (words, command) in [
        (&["rollback", "--help", "--root", "m"][..], "rollback"),
        (&["rollback", "--root", "m", "-h"], "rollback"),
        (&["rollback", "-h", "--frob", "x"], "rollback"),
        (&["rollback", "--json", "--help"], "rollback"),
        (&["-h", "rollback"], "rollback"),
        (&["help", "rollback"], "rollback"),
        (&["rollback", "help"], "rollback"),
        (&["check", "--splay", "soon", "-h"], "check"),
    ] {
        let run = agent(words).expect(0, &[]);
        assert!(run.stdout == of(command) && run.stderr.is_empty(), "{words:?}: {run:?}");
    }
    // Where an option expects its value, that is the value: who is told 0 believes that it was done.
    agent(&["rollback", "--root", "--help"]).expect(7, &["--help/proc/cmdline"]);
    assert_eq!(agent(&["--json", "--help"]).stdout, agent(&["help"]).expect(0, &["Commands:"]).stdout);
    agent(&["healtcheck", "--help"]).expect(2, &["unknown command `healtcheck`", "`healthcheck`"]);
}

/// Wrong usage is a document as well: what is typed, the command that is told, and words of the message. A line more is a case
/// more.
#[apply(test)]
fn wrong_usage_is_a_document() {
    for (words, command, message) in [
        (&["check", "--json", "--frob"][..], "check", "unknown option `--frob`"),
        (&["check", "--frob", "--json"], "check", "check --help lists the options"),
        (&["--json", "check", "--frob"], "check", "unknown option `--frob`"),
        (&["check", "--jso", "--json"], "check", "did you mean --json?"),
        (&["check", "--server=http://x/", "--json"], "check", "the value is the next word: --server http://x/"),
        (&["check", "--json", "--root"], "check", "--root"),
        (&["check", "--json", "--splay", "soon"], "check", "soon"),
        (&["check", "--json", "--shell"], "check", "--json and --shell cannot be used together"),
        (&["apply", "--json", "stray"], "apply", "stray"),
        (&["healtcheck", "--json"], "null", "did you mean `healthcheck`?"),
        (&["--json"], "null", "no command is given"),
        (&["--json", "--server", "http://x/"], "null", "it is an option of check, apply, verify"),
        (&["status", "--server", "http://x/", "--json"], "status", "`status` has no option `--server`"),
        (&["--json", "metrics", "--tag", "x"], "metrics", "it is an option of check, apply, verify, inspect"),
        (&["check", "--root", "a", "--json", "--root", "b"], "check", "--root is given twice"),
        (&["check", "--json", "--json", "--splay"], "check", "--splay needs a value"),
        (&["--json", "--shell", "check"], "check", "--json and --shell cannot be used together"),
        (&["--shell", "check", "--json"], "check", "--json and --shell cannot be used together"),
        (&["--json", "--shell"], "null", "--json and --shell cannot be used together"),
        (&["--json", "-x"], "null", "unknown option `-x`"),
        (&["lint", "--json"], "lint", "nothing to look at"),
        (&["lint", "--list", "--initramfs", "x", "--json"], "lint", "--list"),
        (&["device", "--json", "KSOLO"], "device", "KSOLOEFI, KSOLOA, KSOLOB, KSOLODATA"),
        (&["device", "--json"], "device", "label"),
        (&["metrics", "--once", "--json", "--root", "/nowhere"], "metrics", "--textfile"),
        (&["metrics", "--once", "--listen", "x", "--json", "--root", "/nowhere"], "metrics", "cannot be used together"),
        (&["metrics", "--listen", "x", "--json", "--root", "/nowhere"], "metrics", "use --listen x: "),
        (&["check", "--server", "example.com", "--json", "--root", "/nowhere"], "check", "http:// or https://"),
        (&["check", "--server", "http://", "--json", "--root", "/nowhere"], "check", "use --server: "),
        (
            &["apply", "--server", "a.example/x", "--layout", "x", "--json", "--root", "/nowhere"],
            "apply",
            "--server, --registry and",
        ),
        (&["apply", "--registry", "a.example/X", "--json", "--root", "/nowhere"], "apply", "use --registry: "),
        (
            &["verify", "--registry", "a.example/x", "--tag", "-x", "--json", "--root", "/nowhere"],
            "verify",
            "use --tag -x: ",
        ),
        (&["verify", "--retries", "101", "--json", "--root", "/nowhere"], "verify", "`--retries 101` is not between"),
        (&["check", "--layout", "http://x/", "--json", "--root", "/nowhere"], "check", "`--layout` takes no URL"),
        (&["inspect", "a.example/X", "--json"], "inspect", "read OCI reference 'a.example/X': "),
        (&["inspect", "https://a.example/", "--tag", "x", "--json"], "inspect", "use --tag x: "),
        (&["inspect", "--json"], "inspect", "missing: source"),
        (&["lint", "--conf", "http://x/", "--json"], "lint", "`--conf` takes no URL"),
        (
            &["healthcheck", "--timeout", "1", "--stable-for", "2", "--json", "--root", "/nowhere"],
            "healthcheck",
            "--stable-for is longer",
        ),
        (&["verify", "--slot", "C", "--json", "--root", "/nowhere"], "verify", "--slot takes A or B"),
        (&["apply", "--reboot", "--json", "--root", "/nowhere"], "apply", "--reboot and --root"),
        (&["healthcheck", "--check-timeout", "0", "--json", "--root", "/nowhere"], "healthcheck", "--check-timeout 0"),
    ] {
        let run = agent(words).expect(2, &[message]);
        let name = if command == "null" { command.to_owned() } else { format!("\"{command}\"") };
        let told = format!("[{name},\"error\",\"usage\",[],true]");
        assert_eq!(run.jq("[.command, .result, .kind, .refusals, .message != null]"), told, "{words:?}");
        assert!(run.stdout.contains(message) && !run.stdout.contains("update.conf"), "{words:?}: {}", run.stdout);
        // No option is blamed that was not typed.
        let is_typed = words.contains(&"--registry") || !run.stdout.contains("use --registry");
        assert!(is_typed, "{words:?}: {}", run.stdout);
        // The same for a shell, where the form is not what is wrong.
        if !words.contains(&"--shell") {
            let words: Vec<&str> = words.iter().map(|word| if *word == "--json" { "--shell" } else { word }).collect();
            let run = agent(&words).expect(2, &["KUBESOLO_RESULT='error'\n", "KUBESOLO_KIND='usage'\n"]);
            let command = if command == "null" { "" } else { command };
            assert!(run.stdout.contains(&format!("KUBESOLO_COMMAND='{command}'\n")), "{words:?}: {}", run.stdout);
        }
    }
    for command in commands() {
        let run = agent(&[&command, "--json", "--frob"]).expect(2, &[]);
        assert_eq!(run.jq("[.command, .kind]"), format!("[\"{command}\",\"usage\"]"));
        let run = agent(&[&command, "--frob", "--shell"]).expect(2, &["KUBESOLO_KIND='usage'\n"]);
        assert!(run.stdout.contains(&format!("KUBESOLO_COMMAND='{command}'\n")), "{}", run.stdout);
    }
    let odd = std::ffi::OsStr::new("--json");
    let not_text = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    for (words, command) in [(&[odd, not_text][..], "null"), (&["check".as_ref(), not_text, odd], "\"check\"")] {
        let run = Run::from(Command::new(Root::program()).args(words).output().unwrap());
        assert_eq!(run.expect(2, &["not UTF-8"]).jq("[.command, .kind]"), format!("[{command},\"usage\"]"));
    }
    let linted = agent(&["lint", "--version", "1.0.0", "--json"]).expect(0, &[]);
    assert_eq!(linted.jq("[.command, .result]"), r#"["lint","done"]"#);
    let version = agent(&["--version", "--json"]).expect(0, &[]);
    assert_eq!(version.jq("[.result, .agent_version]"), format!("[\"version\",\"{}\"]", env!("CARGO_PKG_VERSION")));
}

#[apply(test)]
fn what_is_not_understood_leads_to_help() {
    for words in [&["--halp"][..], &["-x"], &["statsu"], &["status", "-x"], &[]] {
        agent(words).expect(2, &["--help lists"]);
    }
}
