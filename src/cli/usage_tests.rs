//! Lines as people type them.

use super::*;

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
        // What is a value, or stands behind the options, asks for nothing.
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

#[test]
fn what_there_is_not_is_told_from_what_is_meant() {
    for (line, words) in [
        (&["healtcheck"][..], &["unknown command `healtcheck`", "did you mean `healthcheck`?"][..]),
        (&["chekc", "--json"], &["unknown command `chekc`", "`check`"]),
        (&["Status"], &["`status`"]),
        (&["STATUS"], &["did you mean `status`?"]),
        (
            &["--root", "m", "status"],
            &["unknown option `--root`", "an option stands behind its command: status --root"],
        ),
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
        (&["check", "--", "--json"], &["(behind -- nothing is an option: check --json)"]),
        (&["apply", "--", "--frob"], &["(apply --help lists the options)"]),
        (&["apply", "--ok-if-nothig"], &["--ok-if-nothing"]),
        (&["check", "--frobnicate"], &["unknown option `--frobnicate`", "(check --help lists the options)"]),
        (&["--vresion"], &["did you mean --version?"]),
        (&["check", "--root"], &["--root", "check --help"]),
    ] {
        let typed = read(line);
        let early = parse("kubesolo-update", &typed.words).unwrap_err();
        let said = typed.wrong(early.output.trim_end()).to_string();
        assert!(words.iter().all(|word| said.contains(word)), "{line:?}: {said}");
    }
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
        (&["lint", "--json"], " None json"),
        (&["inspect", "x", "--tag", "t"], " None"),
    ] {
        match parse("kubesolo-update", line) {
            Err(early) => assert!(early.output.contains(taken), "{line:?}: {}", early.output),
            Ok((cli, common)) => {
                let splay = match &cli.command {
                    Some(Command::Check(check)) => format!(" {:?}", check.splay),
                    _ => String::new(),
                };
                let json = if cli.json || common.json { " json" } else { "" };
                let verbose = if common.verbose { " verbose" } else { "" };
                assert_eq!(format!("{}{splay} {:?}{json}{verbose}", common.command, common.tag), taken, "{line:?}");
            }
        }
    }
}

#[test]
fn help_has_the_flags_of_all_commands_before_those_of_its_own() {
    for (command, usage, rows) in [
        ("check", "[--layout <layout>] [--json] [--shell] [--quiet] [--verbose] [--splay <splay>]", 16),
        ("status", "[--layout <layout>] [--json] [--shell] [--quiet] [--verbose]\n\nShow slots", 11),
        ("device", "device [--json] [--shell] [--root <root>] [--] <label>\n", 3),
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
