//! Parses, dispatches, prints the error, sets the exit code. Must never: decide anything.
#![warn(clippy::too_many_lines, clippy::fn_params_excessive_bools)]

use kubesolo_update::parts::base::error::{Error, Kind};
use kubesolo_update::parts::cli::usage::{self, Form, Typed};
use kubesolo_update::parts::cli::{Cli, Command, Common};
use kubesolo_update::parts::cmd::answer::Reply;
use kubesolo_update::parts::cmd::words::say;
use kubesolo_update::parts::cmd::{
    self, Outcome, activate, apply, check, device, healthcheck, inspect, lint, metrics, rollback, status, verify,
};
use kubesolo_update::parts::config;
use kubesolo_update::parts::os::progress;
use kubesolo_update::parts::os::sys;
use kubesolo_update::parts::os::system::System;
use std::process::ExitCode;

fn main() -> ExitCode {
    sys::hear_of_children();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let typed = Typed::read(&words);
    // Before the line is parsed, so that an error in it is a document as well.
    let mut reply = Reply::new(typed.form(), typed.command);
    if arguments.iter().any(|word| word.to_str().is_none()) {
        return cmd::finish(Err(Error::new(Kind::Usage, "an argument is not UTF-8")), reply);
    }
    let ended = match usage::parse("kubesolo-update", &typed.words) {
        Ok((cli, common)) => answer(&cli, &common, &typed, &mut reply),
        Err(early) if early.status.is_ok() => print(&usage::help(&early.output), Form::Text, &mut reply),
        Err(early) => Err(typed.wrong(early.output.trim_end())),
    };
    cmd::finish(ended, reply)
}

fn answer(cli: &Cli, common: &Common, typed: &Typed<'_>, reply: &mut Reply) -> Result<Outcome, Error> {
    let flags = &common.flags;
    let form = match (cli.json || flags.json, cli.shell || flags.shell) {
        (true, true) => return Err(Error::new(Kind::Usage, "--json and --shell cannot be used together")),
        (true, false) => Form::Json,
        (false, true) => Form::Shell,
        (false, false) => Form::Text,
    };
    *reply = Reply::new(form, typed.command.map(|_| common.command));
    match (flags.quiet, flags.verbose) {
        (_, true) => progress::be_verbose(),
        (true, false) => progress::be_quiet(),
        (false, false) => {}
    }
    match &cli.command {
        _ if cli.version => {
            reply.result("version");
            reply.members.field("agent_version", &env!("CARGO_PKG_VERSION"));
            print(concat!("kubesolo-update ", env!("CARGO_PKG_VERSION")), form, reply)
        }
        Some(command) => {
            // `apply` and `status` know for themselves what needs a person; what `metrics` prints is for a program.
            let decides = matches!(command, Command::Apply(_) | Command::Status(_) | Command::Metrics(_));
            if progress::is_quiet() && !decides {
                reply.hold();
            }
            run(command, common, reply)
        }
        None => Err(Error::new(Kind::Usage, "no command is given").hint("--help lists the commands")),
    }
}

fn run(command: &Command, common: &Common, out: &mut Reply) -> Result<Outcome, Error> {
    let flags = &common.flags;
    let system = System::new(flags.root.clone().unwrap_or_else(|| "/".into()));
    match command {
        Command::Device(args) => return device::run(&system, args, out),
        Command::Lint(args) => return lint::run(args, out),
        Command::Inspect(args) => return inspect::run(args, flags, out),
        _ => {}
    }
    let config = match command {
        Command::Status(_)
        | Command::Verify(_)
        | Command::Rollback(_)
        | Command::Healthcheck(_)
        | Command::Metrics(_) => config::load_leniently(&system, common)?,
        _ => config::load(&system, common)?,
    };
    match command {
        Command::Check(_) => check::run(&system, config, flags, out),
        Command::Apply(args) => apply::run(&system, &config, args, flags, out),
        Command::Activate(_) => activate::run(&system, &config, flags, out),
        Command::Rollback(_) => rollback::run(&system, &config, flags, out),
        Command::Status(_) => status::run(&system, &config, out),
        Command::Healthcheck(args) => healthcheck::run(&system, &config, args, out),
        Command::Metrics(args) => metrics::run(&system, &config, common, args, out),
        Command::Verify(args) => verify::run(&system, &config, args, out),
        Command::Device(args) => device::run(&system, args, out),
        Command::Inspect(args) => inspect::run(args, flags, out),
        Command::Lint(args) => lint::run(args, out),
    }
}

/// Help is for a person, whatever else was typed.
fn print(text: &str, form: Form, reply: &mut Reply) -> Result<Outcome, Error> {
    if form == Form::Text {
        *reply = Reply::new(form, None);
    }
    say(reply, text)?;
    Ok(Outcome::Done)
}
