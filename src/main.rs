//! Parses, dispatches, prints the error, sets the exit code. Must never: decide anything.

use argh::FromArgs;
use kubesolo_update::cli::{Cli, Command};
use kubesolo_update::cmd::{
    self, Outcome, activate, apply, check, healthcheck, lint, metrics, rollback, status, verify,
};
use kubesolo_update::error::{Error, Kind};
use kubesolo_update::{config, system::System};
use std::io::{Write, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    let typed: Vec<_> = std::env::args_os().skip(1).collect();
    let Some(words) = typed.iter().map(|w| w.to_str()).collect::<Option<Vec<&str>>>() else {
        return cmd::finish(Err(Error::new(Kind::Usage, "an argument is not UTF-8")), false);
    };
    let mut json = false;
    let ended = match Cli::from_args(&["kubesolo-update"], &words) {
        Ok(Cli { version: true, .. }) => print(concat!("kubesolo-update ", env!("CARGO_PKG_VERSION"))),
        Ok(Cli { command: Some(command), .. }) => {
            json = command.json();
            run(&command)
        }
        Ok(Cli { command: None, .. }) => Err(Error::new(Kind::Usage, "no command").hint("--help lists them")),
        Err(early) if early.status.is_ok() => print(early.output.trim_end()),
        Err(early) => Err(Error::new(Kind::Usage, early.output.trim_end()).hint("--help lists commands and flags")),
    };
    cmd::finish(ended, json)
}

fn run(command: &Command) -> Result<Outcome, Error> {
    let out = &mut stdout().lock();
    if let Command::Lint(args) = command {
        return lint::run(args, out);
    }
    let common = command.common();
    let system = System::new(common.root.clone().unwrap_or_else(|| "/".into()));
    let config = match command {
        Command::Status(_)
        | Command::Verify(_)
        | Command::Rollback(_)
        | Command::Healthcheck(_)
        | Command::Metrics(_) => config::load_leniently(&system, &common)?,
        _ => config::load(&system, &common)?,
    };
    match command {
        Command::Check(args) => check::run(&system, &config, args, out),
        Command::Apply(args) => apply::run(&system, &config, args, out),
        Command::Activate(args) => activate::run(&system, &config, args, out),
        Command::Rollback(args) => rollback::run(&system, &config, args, out),
        Command::Status(args) => status::run(&system, &config, args, out),
        Command::Healthcheck(args) => healthcheck::run(&system, &config, args, out),
        Command::Metrics(args) => metrics::run(&system, &config, args, out),
        Command::Verify(args) => verify::run(&system, &config, args, out),
        Command::Lint(args) => lint::run(args, out),
    }
}

fn print(text: &str) -> Result<Outcome, Error> {
    // Nobody reads it: nothing is lost.
    let _ = writeln!(stdout(), "{text}");
    Ok(Outcome::Done)
}
