//! Runs the tests of a program as libtest would, with two things that libtest lacks: a test that finds out while it runs
//! that it cannot run counts as ignored, never as passed; and long tests wait for `make test-all`.
//!
//! A test is a function with `#[apply(test)]` or `#[apply(long_test)]`; the macros below put it into the list, so that
//! none can be forgotten. Must never: decide what a missing tool means (that is [`super::need`]).

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A test of this program.
pub struct Case {
    pub module: &'static str,
    pub name: &'static str,
    /// Left to `make test-all`: `--ignored` runs these, `--include-ignored` all.
    pub long: bool,
    pub run: fn(),
}

inventory::collect!(Case);

/// Lists a function as a test: `#[apply(test)]`.
macro_rules! test {
    ($(#[$attribute:meta])* fn $name:ident() $body:block) => {
        $crate::support::harness::list!(false, $(#[$attribute])* fn $name() $body);
    };
}

/// Lists a function as a test that `make test` leaves out for its length: `#[apply(long_test)]`.
macro_rules! long_test {
    ($(#[$attribute:meta])* fn $name:ident() $body:block) => {
        $crate::support::harness::list!(true, $(#[$attribute])* fn $name() $body);
    };
}

macro_rules! list {
    ($long:literal, $(#[$attribute:meta])* fn $name:ident() $body:block) => {
        $(#[$attribute])*
        fn $name() $body
        ::inventory::submit! {
            $crate::support::harness::Case {
                module: module_path!(),
                name: stringify!($name),
                long: $long,
                run: $name,
            }
        }
    };
}
pub(crate) use list;

/// Why a test did not run.
struct Skip(String);

/// How long a test has to take to be named at the end.
const SLOW: Duration = Duration::from_secs(5);

/// Names of tests with what is to be said of them, as they end.
static SKIPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());
static SLOWEST: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Ends the test that calls this: it counts as ignored, and the reason is said.
pub fn skip(why: &str) -> ! {
    panic_any(Skip(why.to_string()))
}

/// Scripts ask an agent what machines take: the one that is tested. Set for all that tests start, so it has to be set
/// before this program begins.
fn begin_with_agent() {
    if std::env::var_os("KUBESOLO_UPDATE").is_none() {
        let agent = std::env::var_os("KUBESOLO_UPDATE_BIN").unwrap_or(env!("CARGO_BIN_EXE_kubesolo-update").into());
        let mut again = Command::new(std::env::current_exe().expect("a test program has a path"));
        panic!("{}", again.args(std::env::args_os().skip(1)).env("KUBESOLO_UPDATE", agent).exec());
    }
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    begin_with_agent();
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Skipping is no failure: nothing to report.
        if !panic.payload().is::<Skip>() {
            report(panic);
        }
    }));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials());
    let skipped = std::mem::take(&mut *SKIPPED.lock().unwrap());
    for line in &skipped {
        println!("SKIP: {line}");
    }
    let mut slowest = std::mem::take(&mut *SLOWEST.lock().unwrap());
    slowest.sort_by(|a, b| b.cmp(a));
    for (time, name) in slowest {
        println!("slow: {:7.1} s  {name}", time.as_secs_f64());
    }
    let faults = super::answers::judge();
    if !faults.is_empty() {
        println!("answers that docs/json-schema.json does not describe:\n{faults}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn trials() -> Vec<Trial> {
    let mut cases: Vec<(String, &Case)> =
        inventory::iter::<Case>.into_iter().map(|case| (full_name(case), case)).collect();
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    let trial = |(name, case): (String, &'static Case)| {
        Trial::ignorable_test(name.clone(), move || run(&name, case.run)).with_ignored_flag(case.long)
    };
    cases.into_iter().map(trial).collect()
}

/// `MODULE::NAME`: the program's own name is in cargo's line already.
fn full_name(case: &Case) -> String {
    let module = case.module.split_once("::").map_or("", |(_, module)| module);
    format!("{module}::{}", case.name)
}

fn run(name: &str, test: fn()) -> Result<Completion, Failed> {
    let start = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(test));
    let time = start.elapsed();
    if time >= SLOW {
        SLOWEST.lock().unwrap().push((time, name.to_string()));
    }
    match ended {
        Ok(()) => Ok(Completion::Completed),
        Err(panic) => match panic.downcast::<Skip>() {
            Ok(skip) => {
                SKIPPED.lock().unwrap().push(format!("{name}: {}", skip.0));
                Ok(Completion::ignored_with(skip.0))
            }
            // Its message was printed where it happened.
            Err(panic) => resume_unwind(panic),
        },
    }
}
