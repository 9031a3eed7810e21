//! How long a person waits for a server, and what Ctrl-C leaves.

use crate::support::disk::{need_disks, wait_for};
use crate::support::hostile::{Reply, Step};
use crate::support::hostile_bench::{Bench, HTTP, honest, is_file};
use crate::support::hostile_table::assert_staged;
use crate::support::machine::Machine;
use crate::support::root::{Root, Run};
use crate::support::trial::Trial;
use crate::support::{command, need, run};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// Nobody listens there.
const DEAD: [&str; 2] = ["--server", "http://127.0.0.1:1"];

fn tries(said: &Run) -> usize {
    said.stderr.matches("trying again").count()
}

#[apply(test)]
fn retries_on_the_command_line_beat_those_of_the_file() {
    need_disks();
    let machine = Machine::new();
    machine.root.configure("signature = off\nretries = 100\n");
    for command in [&["check"][..], &["apply"], &["verify", "--source"], &["inspect"]] {
        let run = |retries: &str| match command {
            ["inspect"] => {
                Command::new(Root::program()).args(["inspect", "--retries", retries, DEAD[1]]).output().unwrap().into()
            }
            _ => machine.root.agent(&[command, &["--retries", retries], &DEAD].concat()),
        };
        assert_eq!(
            tries(&run("0").expect(6, &["Connection refused", "does a server run there, on this port?"])),
            0,
            "{command:?}"
        );
        assert_eq!(tries(&run("1").expect(6, &["(try 2 of 2)"])), 1, "{command:?}");
        for typed in ["101", "4294967295"] {
            run(typed).expect(2, &["--retries", "not between 0 and 100"]);
        }
        for typed in ["-1", "x", "", "4294967296"] {
            run(typed).expect(2, &["retries"]);
        }
    }
}

/// `script` gives the agent a terminal.
fn on_a_terminal(machine: &Machine, args: &[&str]) -> Run {
    let agent = machine.root.command(args);
    let words = std::iter::once(agent.get_program()).chain(agent.get_args());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &line.join(" "), "/dev/null"]).stdin(Stdio::null()).output().unwrap().into()
}

#[apply(test)]
fn a_dead_server_costs_a_person_seconds() {
    need_disks();
    need("script");
    let machine = Machine::new();
    machine.root.configure("signature = off\n");
    let said = on_a_terminal(&machine, &[&["check"], &DEAD[..]].concat()).expect(6, &["try 3 of 3", "Ctrl-C is safe"]);
    assert_eq!(said.stdout.matches("trying again").count(), 2, "{}", said.stdout);
    // What is set counts there as well.
    let one = on_a_terminal(&machine, &[&["check", "--retries", "1"], &DEAD[..]].concat()).expect(6, &["try 2 of 2"]);
    assert_eq!(one.stdout.matches("trying again").count(), 1, "{}", one.stdout);
}

#[apply(test)]
fn ctrl_c_says_where_it_stands() {
    const CUT: usize = 700_000;
    for (command, words, downloads) in
        [("check", "nothing was changed", false), ("apply", "what was downloaded is kept", true)]
    {
        let bench = Bench::new(HTTP, move |ask| match (is_file(ask) && ask.is_get(), downloads) {
            (true, true) => honest(ask).then(CUT, vec![Step::Stall]),
            (false, false) => Reply::raw(vec![Step::Stall]),
            _ => honest(ask),
        });
        // A shell's background job would pass on that SIGINT is ignored.
        let mut default = Command::new("env");
        default.arg("--default-signal=INT");
        let mut agent = bench.machine.root.command_under(default, &[command]);
        let agent = agent.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let asked = || bench.server.seen().iter().any(|ask| is_file(ask) && ask.is_get() == downloads || !downloads);
        assert!(wait_for(LIMIT, asked), "{command}: it asks for nothing");
        run(Command::new("sh").arg("-c").arg(format!("kill -INT {}", agent.id())));
        let ended = agent.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.signal(), Some(2), "{command}: {said}");
        assert!(said.contains("interrupted") && said.contains(words), "{command}: {said}");
        // The next run finds nothing in its way.
        let honest = Bench::new(HTTP, honest);
        bench.machine.root.configure(&honest.placed("signature = off\nretries = 0\nserver = http://{here}\n"));
        bench.machine.root.agent(&["apply"]).expect(0, &["2.0.0 is staged"]);
        assert_staged(&bench.machine, command);
    }
}

/// Once the boot variables may have changed, nobody is told that the running slot is as it was.
#[apply(test)]
fn ctrl_c_while_it_activates_says_so() {
    Trial::ready();
    need("strace");
    let trial = Trial::staged();
    let block = trial.root.block("grubenv");
    let mut strace = command("strace");
    strace.args(["-f", "-o", "/dev/null", "-P"]).arg(&block);
    strace.args(["-e", "inject=fsync,fdatasync:signal=SIGINT:when=1"]);
    let args = ["apply", "--layout", trial.medium.path(), "--activate"];
    let ended = trial.root.command_under(strace, &args).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("may be activated already") && !said.contains("is as it was"), "{said}");
    assert!(String::from_utf8_lossy(&fs::read(block).unwrap()).contains("active_slot=B"));
}
