//! Tests with lines as people type them.

use super::*;

#[test]
fn a_wrong_number_shows_no_secret() {
    let said =
        plain("Error parsing option '--retries' with value 'https://u:hunter2@h/x': invalid digit found in string");
    assert!(said.contains("--retries") && said.contains("whole number") && !said.contains("hunter2"), "{said}");
}

fn read<'a>(line: &'a [&'a str]) -> Typed<'a> {
    Typed::read(line)
}

#[test]
fn help_wins_wherever_it_stands() {
    for (line, words) in [
        (&["rollback", "--help", "--root", "m"][..], &["rollback", "--help"][..]),
        (&["rollback", "--root", "m", "-h"], &["rollback", "--help"]),
        (&["rollback", "-h", "--frob"], &["rollback", "--help"]),
        (&["rollback", "help"], &["rollback", "--help"]),
        (&["help", "rollback"], &["rollback", "--help"]),
        (&["--help", "rollback"], &["rollback", "--help"]),
        (&["--json", "-h", "status"], &["status", "--help"]),
        (&["help"], &["--help"]),
        (&["-h", "--frob"], &["--help"]),
        (&["--root", "m", "status", "-h"], &["status", "--help"]),
        // A value, or a word after `--`, does not ask for help.
        (&["lint", "--channel", "help"], &["lint", "--channel", "help"]),
        (&["check", "--", "--help"], &["check", "--", "--help"]),
        (&["apply", "--registry", "-h"], &["apply", "--registry", "-h"]),
        (&["apply", "--tag", "--help", "--json"], &["apply", "--tag", "--help", "--json"]),
        (&["apply", "--tag", "--help", "--help"], &["apply", "--help"]),
        (&["apply", "--reboot", "-h", "--root", "m"], &["apply", "--help"]),
        (&["inspect", "x", "-h"], &["inspect", "--help"]),
        (&["check", "--tag", "1"], &["check", "--tag", "1"]),
        (&[], &[]),
    ] {
        assert_eq!(read(line).words, words, "{line:?}");
    }
}

#[test]
fn the_form_is_known_before_the_line_is_parsed() {
    for (line, form, command) in [
        (&["check", "--json", "--frob"][..], Form::Json, Some("check")),
        (&["--json"], Form::Json, None),
        (&["frob", "--shell"], Form::Shell, None),
        (&["--shell", "status"], Form::Shell, Some("status")),
        (&["status", "--shell", "--json"], Form::Json, Some("status")),
        (&["check", "--", "--json"], Form::Text, Some("check")),
        (&["--root", "check", "status", "--json"], Form::Json, Some("status")),
        (&[], Form::Text, None),
    ] {
        let typed = read(line);
        assert_eq!((typed.form(), typed.command), (form, command), "{line:?}");
    }
}

/// What is typed, and words of the error. One line is one case.
#[test]
fn what_there_is_not_is_told_from_what_is_meant() {
    for (line, words) in [
        (&["healtcheck"][..], &["unknown command `healtcheck`", "did you mean `healthcheck`?"][..]),
        (&["chekc", "--json"], &["unknown command `chekc`", "`check`"]),
        (&["Status"], &["`status`"]),
        (&["STATUS"], &["did you mean `status`?"]),
        (&["--root", "m", "status"], &["unknown option `--root`", "options go after the command: status --root"]),
        (&["--quite", "status", "--json"], &["unknown option `--quite`"]),
        (&["--json", "stauts"], &["unknown command `stauts`", "`status`"]),
        (&["roll-back", "--reboot"], &["`rollback`"]),
        (&["update"], &["unknown command `update`", "--help lists the commands: check, apply"]),
        (&["check", "--jsn"], &["unknown option `--jsn`", "did you mean --json?", "check --help"]),
        (&["check", "--server=http://x"], &["unknown option", "the value is the next word: --server http://x"]),
        (&["apply", "--reboot=yes"], &["unknown option `--reboot=yes` (it takes no value: --reboot)"]),
        (&["check", "--quiet=1"], &["(it takes no value: --quiet)"]),
        (&["status", "--json=true"], &["(it takes no value: --json)"]),
        (&["apply", "--retries=3"], &["the value is the next word: --retries 3"]),
        (&["inspect", "--key=k.pub", "x"], &["the value is the next word: --key k.pub"]),
        (&["inspect", "--verbose=yes", "x"], &["(it takes no value: --verbose)"]),
        (&["check", "--", "--json"], &["(after -- nothing is an option: check --json)"]),
        (&["apply", "--", "--frob"], &["(apply --help lists the options)"]),
        (&["apply", "--ok-if-nothig"], &["--ok-if-nothing"]),
        (&["check", "--frobnicate"], &["unknown option `--frobnicate`", "(check --help lists the options)"]),
        (&["--vresion"], &["did you mean --version?"]),
        (&["check", "--root"], &["--root needs a value", "check --help"]),
        (&["check", "--root", "a", "--root", "b"], &["--root is given twice (check --help"]),
        (&["check", "--splay", "soon"], &["`--splay soon` is not a whole number in its range"]),
        (&["verify", "--retries", "-1"], &["`--retries -1` is not a whole number in its range"]),
        (&["apply", "stray"], &["unknown argument `stray` (apply --help"]),
        (&["device"], &["missing: label (device --help"]),
    ] {
        let said = wrong(line);
        assert!(words.iter().all(|word| said.contains(word)), "{line:?}: {said}");
    }
}

/// What is typed, and the whole error.
#[test]
fn an_option_of_other_commands_is_told_from_one_that_there_is_not() {
    for (line, said) in [
        (
            &["status", "--server", "http://x/"][..],
            "`status` has no option `--server` (it is an option of check, apply, verify; status --help lists the options)",
        ),
        (
            &["--tag", "x", "activate", "--json"],
            "`activate` has no option `--tag` (it is an option of check, apply, verify, inspect; activate --help lists the options)",
        ),
        (
            &["rollback", "--layout=/x"],
            "`rollback` has no option `--layout=/x` (it is an option of check, apply, verify; rollback --help lists the options)",
        ),
        (
            &["status", "--slot", "A"],
            "`status` has no option `--slot` (it is an option of verify; status --help lists the options)",
        ),
        (
            &["check", "--activate"],
            "`check` has no option `--activate` (it is an option of apply; check --help lists the options)",
        ),
        (&["status", "--version"], "`status` has no option `--version` (kubesolo-update --version prints it)"),
        (
            &["--server", "http://x/"],
            "unknown option `--server` (it is an option of check, apply, verify; --help lists the options)",
        ),
    ] {
        assert_eq!(wrong(line), said, "{line:?}");
    }
}

#[test]
fn what_was_typed_wrong_is_shown_without_its_secrets() {
    for line in [
        &["apply", "https://user:SECRET@up.example/"][..],
        &["apply", "--server=https://user:SECRET@up.example/"],
        &["status", "--server=https://user:SECRET@up.example/"],
        &["apply", "--reboot=https://up.example/?token=SECRET"],
        &["apply", "--server", "https://a/", "--server", "https://user:SECRET@up.example/"],
        &["https://user:SECRET@up.example/"],
    ] {
        let said = wrong(line);
        assert!(!said.contains("SECRET"), "{line:?}: {said}");
    }
}

fn wrong(line: &[&str]) -> String {
    let typed = read(line);
    let early = parse("kubesolo-update", &typed.words).unwrap_err();
    typed.wrong(early.output.trim_end()).to_string()
}

#[test]
fn a_flag_is_told_from_the_value_of_an_option() {
    for (line, taken) in [
        (&["check", "--tag", "t", "--splay", "7", "--json"][..], "check Some(7) Some(\"t\") json"),
        (&["--json", "check", "--verbose", "--tag", "--json"], "check None Some(\"--json\") json verbose"),
        (&["check", "--tag", "help"], "check None Some(\"help\")"),
        (&["--", "check", "--tag", "t"], "check None Some(\"t\")"),
        (&["check", "--splay", "--json"], "Error parsing option '--splay' with value '--json'"),
        (&["check", "--splay", "--tag", "t"], "Error parsing option '--splay' with value '--tag'"),
        (&["check", "--json", "--tag"], "No value provided for option '--tag'"),
        (&["check", "--tag", "a", "--tag", "b"], "'--tag' with value 'b': duplicate values"),
        (&["--tag", "t", "check"], "Unrecognized argument: --tag"),
        (&["check", "--", "--tag", "t"], "Unrecognized argument: --tag"),
        (&["check", "--json", "x", "--tag", "t"], "Unrecognized argument: x"),
        (&["check", "--json", "help", "--tag", "t"], "Trailing arguments are not allowed after `help`."),
        (&["lint", "--tag", "t"], "Unrecognized argument: --tag"),
        (&["lint", "--json"], "lint None None json"),
        (&["lint", "--channel", "--json"], "lint None None"),
        (&["inspect", "x", "--tag", "t"], "inspect None Some(\"t\")"),
        (&["inspect", "--", "--tag"], "inspect None None"),
    ] {
        match parse("kubesolo-update", line) {
            Err(early) => assert!(early.output.contains(taken), "{line:?}: {}", early.output),
            Ok((cli, Common { flags, command })) => {
                let json = if cli.json || flags.json { " json" } else { "" };
                let verbose = if flags.verbose { " verbose" } else { "" };
                let seen = format!("{command} {:?} {:?}{json}{verbose}", flags.splay, flags.tag);
                assert_eq!(seen, taken, "{line:?}");
            }
        }
    }
}

/// The flags of each command: `--config --state --root` on a machine, the source's flags where a source is asked.
#[test]
fn each_flag_is_of_the_commands_that_use_it() {
    const MACHINE: &str = "check apply activate rollback healthcheck status metrics verify";
    for (flags, takers) in [
        ("--config", "check apply activate rollback healthcheck status metrics verify inspect"),
        ("--state", MACHINE),
        ("--root", "check apply activate rollback healthcheck status metrics verify device"),
        ("--json --shell", "check apply activate rollback healthcheck status metrics verify device inspect lint"),
        ("--quiet --verbose", "check apply activate rollback healthcheck status metrics verify inspect"),
        ("--server --registry --layout", "check apply verify"),
        ("--tag --retries", "check apply verify inspect"),
        ("--splay --allow-downgrade", "check apply"),
        ("--retry-failed", "check apply rollback"),
        ("--ignore-window", "check apply activate"),
        ("--reboot --allow-unproven-bootloader", "apply activate rollback"),
    ] {
        for flag in flags.split(' ') {
            let seen: Vec<_> = commands().filter(|command| flags::has(&help_of(Some(command)), flag)).collect();
            assert_eq!(seen.join(" "), takers, "{flag}");
        }
    }
    // Every flag is taken by some command, and each command takes what the table lists.
    let shared = said(Flags::from_args(&["", "status"], &HELP[..1]));
    let all = |help: &str| -> Vec<String> {
        let words = help.split_once("\n\n").unwrap().0.split(" [--").skip(1);
        words.map(|word| ["--", word.split([' ', ']']).next().unwrap()].concat()).collect()
    };
    let flags = all(&shared);
    assert!(flags.len() == 18, "{flags:?}");
    for flag in &flags {
        assert!(commands().any(|command| flags::has(&help_of(Some(command)), flag)), "{flag}");
    }
    for command in commands() {
        let help = help_of(Some(command));
        let options = all(&help);
        for option in &options {
            assert_eq!(options.iter().filter(|other| *other == option).count(), 1, "{command} {option}");
            let words = if flags::has_value(&help, option) { &[command, option, "1"][..] } else { &[command, option] };
            let said = parse("", words).err().map_or_else(String::new, |early| early.output);
            assert!(!said.contains("Unrecognized"), "{command} {option}: {said}");
            assert!(help.contains(&format!("\n  {option}")), "{command} {option}");
        }
    }
}

#[test]
fn help_has_the_flags_of_all_commands_before_those_of_its_own() {
    for (command, usage, rows) in [
        ("check", "[--verbose] [--server <url>] [--registry <reference>] [--tag <tag>] [--layout <path>]", 16),
        ("verify", "[--retries <number>] [--slot <A|B>]", 15),
        ("status", "[--root <directory>] [--json] [--shell] [--quiet] [--verbose]\n\nShow slots", 7),
        ("device", "device [--root <directory>] [--json] [--shell] [--] <label>\n", 3),
    ] {
        for line in [&[command, "--help"][..], &[command, "--json", "help"]] {
            let said = parse("kubesolo-update", line).unwrap_err().output;
            assert!(said.starts_with(&format!("Usage: kubesolo-update {command} [--")), "{said}");
            assert!(said.contains(usage), "{said}");
            let options = said.split_once("\nOptions:\n").unwrap().1;
            assert_eq!(options.lines().filter(|row| row.starts_with("  --")).count(), rows, "{said}");
            assert!(options.ends_with("\n  -h, --help, help  display usage information\n"), "{said}");
        }
    }
}

#[test]
fn distances() {
    for (a, b, far) in [
        ("", "", 0),
        ("", "ab", 2),
        ("check", "chekc", 1),
        ("abc", "axc", 1),
        ("ABC", "abd", 1),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!((distance(a.as_bytes(), b.as_bytes()), distance(b.as_bytes(), a.as_bytes())), (far, far), "{a} {b}");
    }
}
