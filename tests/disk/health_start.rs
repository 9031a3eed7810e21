//! How a health check is started, and what is said of one that does not start or ends badly: the same with each C library.

use crate::support;
use crate::support::root::Run;
use crate::support::trial::Trial;
use std::fs;

/// What a file of health.d holds, and what is said of it. `$0` is its path.
const ENDS: &[(&str, &str)] = &[
    // It is no program, or none that the kernel can run: the kernel's word, whichever C library starts it.
    ("#!/no/such/interpreter\n", "(os error 2)"),
    ("#!/bin/sh\r\nexit 0\r\n", "(os error 2)"),
    ("#!/etc/passwd\n", "(os error 13)"),
    ("#!/tmp\n", "(os error 13)"),
    ("#!/etc/passwd/sh\n", "(os error 20)"),
    ("#!$0\n", "(os error 40)"),
    ("", "(os error 8)"),
    ("#!\n", "(os error 8)"),
    ("exit 0\n", "(os error 8)"),
    ("\u{feff}#!/bin/sh\nexit 0\n", "(os error 8)"),
    ("\x7fELF", "(os error 8)"),
    // What a shell gives for a program that it could not start is the check's own status.
    ("#!/bin/sh\nexit 126\n", "exit status 126"),
    ("#!/bin/sh\nexit 127\n", "exit status 127"),
    ("#!/bin/sh\nexit 255\n", "exit status 255"),
    ("#!/bin/sh\nexit 256\n", "null"),
    ("#!/bin/sh\nexec 2>/dev/null\n/no/such/program\n", "exit status 127"),
    ("#!/bin/sh\nulimit -c 0\nkill -ABRT $$\n", "ended by signal 6"),
    ("#!/bin/sh\nkill -KILL $$\n", "ended by signal 9"),
    ("#!/bin/sh\nkill -PIPE $$\n", "ended by signal 13"),
    ("#!/bin/sh\nkill -RTMAX $$ 2>/dev/null || kill -64 $$\n", "ended by signal 64"),
    // What it has of this process.
    ("#!/bin/sh\nread line || echo nothing to read\nexit 5\n", "nothing to read, exit status 5"),
    (
        "#!/bin/sh\n{ yes; echo \"ended with $?\" >&2; } | head -n 1 >/dev/null\nexit 6\n",
        "ended with 141, exit status 6",
    ),
    ("#!/bin/sh\nexec >&- 2>&-\nexit 4\n", "exit status 4"),
    ("#!/bin/sh\necho first; echo second >&2\nexit 3\n", "second, exit status 3"),
    ("#!/bin/sh\necho second >&2; echo first\nexit 3\n", "first, exit status 3"),
    ("#!/bin/sh\nrm -- \"$0\"\necho gone\nexit 3\n", "gone, exit status 3"),
    ("#!/bin/sh\n: > \"$0\"\nexec sh -c 'echo emptied; exit 3'\n", "emptied, exit status 3"),
];

#[apply(test)]
fn each_way_in_which_a_check_does_not_start_or_ends() {
    Trial::ready();
    let trial = Trial::booted();
    let path = trial.root.path("etc/kubesolo/health.d/10-site");
    for (content, said) in ENDS {
        trial.root.install_check("10-site", "");
        fs::write(&path, content.replace("$0\n", &format!("{}\n", path.display()))).unwrap();
        let mut agent = trial.root.command(&["healthcheck", "--timeout", "0", "--json"]);
        let run = Run::from(agent.stdin(fs::File::open("Cargo.toml").unwrap()).output().unwrap());
        let (healthy, detail) = (run.jq(".healthy"), run.jq(".checks[] | select(.name == \"10-site\") | .detail"));
        assert_eq!(healthy, if *said == "null" { "true" } else { "false" }, "{content:?}: {}", run.stderr);
        match said.starts_with('(') {
            true => assert!(detail.trim_matches('"').ends_with(said), "{content:?}: {detail}"),
            false => assert_eq!(detail.trim_matches('"'), *said, "{content:?}"),
        }
    }
}

/// Of a program for no machine that there is.
#[apply(test)]
fn a_check_for_another_machine_is_said_to_be_one() {
    Trial::ready();
    let trial = Trial::booted();
    trial.root.install_check("10-site", "");
    let mut program = fs::read("/bin/true").unwrap();
    program[18..20].copy_from_slice(&[0xfe, 0xfe]);
    fs::write(trial.root.path("etc/kubesolo/health.d/10-site"), program).unwrap();
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["10-site: ", "(os error 8)"]);
}

/// Writes down what the kernel knows of it, and of whoever started it. No shell: dash changes the signals that are blocked.
const WITNESS: &str = r#"
my ($own, $agent, $to) = ("/proc/$$", "/proc/" . getppid(), $ENV{WITNESS});
sub note { my ($name, $text) = @_; open(my $file, ">", "$to/$name") or die; print $file $text; close($file) or die }
sub content { my ($path) = @_; open(my $file, "<", $path) or die; local $/; scalar <$file> }
my %files = map { $_ => content("$own/$_") } qw(environ cmdline status stat fdinfo/0);
my @fds = map { readlink("$own/fd/$_") } 0 .. 2;
note($_ =~ s/\W/-/gr, $files{$_}) for keys %files;
note("fds", join("\n", @fds));
note("cwd", readlink("$own/cwd"));
note("agent-cwd", readlink("$agent/cwd"));
note("agent-environ", content("$agent/environ"));
note("agent-stat", content("$agent/stat"));
"#;

#[apply(test)]
fn a_check_has_the_agents_environment_and_a_group_of_its_own() {
    Trial::ready();
    support::need("perl");
    let trial = Trial::booted();
    trial.root.install_check("10-site", "");
    let path = trial.root.path("etc/kubesolo/health.d/10-site");
    let perl = support::find("perl").unwrap().display().to_string();
    fs::write(&path, format!("#!{perl}\n{WITNESS}")).unwrap();
    let witness = trial.root.path("run/witness");
    fs::create_dir_all(&witness).unwrap();
    // SIGHUP is ignored as by nohup(1), SIGUSR1 blocked.
    let mut env = support::command("env");
    env.args(["--ignore-signal=HUP", "--block-signal=USR1"]);
    let mut agent = trial.root.command_under(env, &["healthcheck", "--timeout", "0"]);
    agent.env("WITNESS", &witness).env("EMPTY", "").env("LINES_OF", "a=b\nc").env("NO_UTF8", os(b"\xff\xfe"));
    agent.stdin(fs::File::open("Cargo.toml").unwrap());
    Run::from(agent.output().unwrap()).expect(0, &["the trial boot is confirmed"]);
    let read = |name: &str| fs::read(witness.join(name)).unwrap();
    let text = |name: &str| String::from_utf8(read(name)).unwrap();

    let environment = read("environ");
    assert!(environment == read("agent-environ"), "{}", String::from_utf8_lossy(&environment));
    for entry in [&b"EMPTY="[..], b"LINES_OF=a=b\nc", b"NO_UTF8=\xff\xfe"] {
        assert!(environment.split(|b| *b == 0).any(|found| found == entry), "{environment:?}");
    }
    assert_eq!(text("cmdline"), format!("{perl}\0{}\0", path.display()));
    assert_eq!(text("cwd"), text("agent-cwd"));
    let fds = text("fds");
    let fds: Vec<&str> = fds.lines().collect();
    assert!(fds[0] == "/dev/null" && fds[1].starts_with("pipe:") && fds[1] == fds[2], "{fds:?}");
    // Only for reading: the last digit of the flags in octal.
    let input = text("fdinfo-0");
    assert!(input.lines().any(|line| line.starts_with("flags:") && line.ends_with('0')), "{input}");
    // proc_pid_stat(5), from the third field on: state, parent, group, session.
    let fields =
        |stat: String| -> Vec<String> { stat.rsplit_once(") ").unwrap().1.split(' ').map(str::to_owned).collect() };
    let number = |stat: &str| stat.split(' ').next().unwrap().to_owned();
    let (own, agents) = (fields(text("stat")), fields(text("agent-stat")));
    assert_eq!(own[1], number(&text("agent-stat")), "its parent");
    assert_eq!(own[2], number(&text("stat")), "its group");
    assert!(own[3] == agents[3] && agents[2] != own[2], "{own:?} {agents:?}");

    let status = text("status");
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let (ignored, blocked) = (set("SigIgn:"), set("SigBlk:"));
    let bit = |signal: u32| 1u64 << (signal - 1);
    let [hup, usr1, pipe, term] = [1, 10, 13, 15].map(bit);
    assert_eq!(ignored & (hup | usr1 | pipe | term), hup, "{status}");
    assert_eq!(blocked & (hup | usr1 | pipe | term), usr1, "{status}");
}

fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

/// A supervisor may have told this process that it wants to hear of no child; that is inherited.
#[apply(test)]
fn a_check_counts_where_signals_of_children_are_ignored() {
    Trial::ready();
    let trial = Trial::booted();
    trial.root.install_check("10-site", "exit 0");
    let mut env = support::command("env");
    env.arg("--ignore-signal=CHLD");
    let mut agent = trial.root.command_under(env, &["healthcheck", "--timeout", "0"]);
    Run::from(agent.output().unwrap()).expect(0, &["the trial boot is confirmed"]);
}
