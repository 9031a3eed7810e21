//! The command line, before and after parsing: whether help is asked for, which command is meant, and the likely meaning of an
//! unknown word. Pure.
//!
//! Must never: run what was not typed.

use super::flags::{self, HELP};
use crate::base::error::{Error, Kind};
use crate::base::text::{Margins, fold};
use crate::base::url::without_secrets;
use crate::cli::{Check, Cli, Command, Common, Flags};
use argh::{EarlyExit, FromArgs, SubCommands};

/// Options that may precede a command, without a value.
const GLOBAL: [&str; 8] = ["--help", "-h", "--json", "--shell", "--quiet", "--verbose", "--version", "-V"];
/// How argh begins its message on an unknown word.
const UNRECOGNIZED: &str = "Unrecognized argument: ";

/// Columns at which argh breaks the lines of options: breaking one again would leave a single word.
const HELP_COLUMNS: usize = 80;
/// Column where argh begins the text of an option.
const OPTION_COLUMNS: usize = 20;

/// The words of a command line.
pub struct Typed<'a> {
    /// The words to parse; of a line that asks for help, only the command and `--help`.
    pub words: Vec<&'a str>,
    /// The command, if the name is a known one.
    pub command: Option<&'static str>,
    /// The word in the command's place.
    name: Option<&'a str>,
    json: bool,
    shell: bool,
}

impl<'a> Typed<'a> {
    /// Reads any line as far as possible. Input: without the program's name.
    pub fn read(words: &[&'a str]) -> Typed<'a> {
        let options: Vec<&str> = words.iter().copied().take_while(|word| *word != "--").collect();
        let has = |word| options.contains(&word);
        // The word after an unknown option is taken for its value.
        let is_value = |at: usize| at > 0 && options[at - 1].starts_with('-') && !GLOBAL.contains(&options[at - 1]);
        let mut bare = options.iter().enumerate().filter(|(_, word)| !word.starts_with('-') && **word != HELP[2]);
        let first = bare.find(|(at, _)| !is_value(*at));
        let name = first.map(|(_, word)| *word);
        // Elsewhere it may be a value: a channel may have that name.
        let is_asked = |at| options.get(at) == Some(&HELP[2]);
        let command = commands().find(|known| name == Some(known));
        // Nor where an option expects its value: a registry called `-h` is refused, not taken for a request for help.
        let is_taken = |at: usize| at > 0 && flags::has_value(&help_of(command), options[at - 1]);
        let mut triggers = options.iter().enumerate().filter(|(_, word)| HELP[..2].contains(word));
        let is_help =
            triggers.any(|(at, _)| !is_taken(at)) || is_asked(0) || first.is_some_and(|(at, _)| is_asked(at + 1));
        let words = if is_help { name.into_iter().chain([HELP[0]]).collect() } else { words.to_vec() };
        Typed { words, command, name, json: has("--json"), shell: has("--shell") }
    }

    /// Returns the format of the answer.
    pub fn form(&self) -> Form {
        match (self.json, self.shell) {
            (true, _) => Form::Json,
            (false, true) => Form::Shell,
            (false, false) => Form::Text,
        }
    }

    /// Makes the error for a line that could not be parsed. Input: `said`: argh's message.
    pub fn wrong(&self, said: &str) -> Error {
        let error = |why: String, hint: String| Error::new(Kind::Usage, why).hint(hint);
        // Input: empty: all commands.
        let takers = |option: &str| {
            let takes = |known: &&'static str| option.is_empty() || flags::has(&help_of(Some(known)), option);
            commands().filter(takes).collect::<Vec<_>>().join(", ")
        };
        if let (Some(name), None) = (self.name, self.command) {
            let hint = match nearest(name, commands()) {
                Some(known) => format!("did you mean `{known}`? --help lists the commands"),
                None => format!("--help lists the commands: {}", takers("")),
            };
            return error(format!("unknown command `{}`", without_secrets(name)), hint);
        }
        let command = self.command.unwrap_or_default();
        let all = [command, " --help lists the options"].concat();
        let all = all.trim_start();
        let Some(option) = said.strip_prefix(UNRECOGNIZED).filter(|word| word.starts_with('-')) else {
            return error(plain(said), all.to_owned());
        };
        let help = help_of(self.command);
        let known =
            || help.split_whitespace().map(|word| word.trim_matches([',', '[', ']'])).filter(|w| w.starts_with("--"));
        let (start, value) = option.split_once('=').unwrap_or((option, ""));
        // The value may hold a secret.
        let value = without_secrets(value);
        let option = if start == option { start.to_owned() } else { format!("{start}={value}") };
        let takers = takers(start);
        let hint = match nearest(start, known()) {
            Some(near) if near == option && self.words.contains(&"--") => {
                format!("after -- nothing is an option: {command} {option}")
            }
            Some(near) if near == option => format!("options go after the command: {command} {option}"),
            Some(near) if near == start && !flags::has_value(&help, near) => format!("it takes no value: {near}"),
            Some(near) if near == start => format!("the value is the next word: {start} {value}"),
            _ if start == "--version" => "kubesolo-update --version prints it".to_owned(),
            _ if !takers.is_empty() => format!("it is an option of {takers}; {all}"),
            Some(near) => format!("did you mean {near}? {all}"),
            None => all.to_owned(),
        };
        let why = match takers.is_empty() || command.is_empty() || flags::has(&help, start) {
            true => format!("unknown option `{option}`"),
            false => format!("`{command}` has no option `{option}`"),
        };
        error(why, hint)
    }
}

/// Rewords argh's message on an argument, without possible secrets in it.
fn plain(said: &str) -> String {
    let quoted: Vec<&str> = said.split('\'').collect();
    match (quoted.as_slice(), said.strip_prefix(UNRECOGNIZED)) {
        (_, Some(word)) => format!("unknown argument `{}`", without_secrets(word)),
        ([_, option, _], _) => format!("{option} needs a value"),
        ([_, option, ..], _) if said.ends_with("duplicate values provided") => format!("{option} is given twice"),
        ([_, option, _, value, ..], _) => {
            format!("`{option} {}` is not a whole number in its range", without_secrets(value))
        }
        _ => said.replace("Required positional arguments not provided:\n    ", "missing: "),
    }
}

/// Parses a line. Input: `program`: its name; `words`: the arguments.
/// Errors: argh's text, to be printed or used in the refusal.
pub fn parse(program: &str, words: &[&str]) -> Result<(Cli, Common), EarlyExit> {
    let name = words.iter().find(|word| !word.starts_with('-'));
    let Some(command) = commands().find(|known| name == Some(known)) else {
        return Ok((Cli::from_args(&[program], words)?, Common::default()));
    };
    let own = said(Cli::from_args(&[program], &[command, HELP[0]]));
    let help = flags::shown(&own, &said(Flags::from_args(&["", command], &HELP[..1])), command);
    let (own, rest) = flags::part(words, command, &help);
    let mut common = Common { flags: Flags::from_args(&[], &rest)?, command };
    let mut cli = Cli::from_args(&[program], &own).map_err(|early| match early.status {
        Ok(()) => EarlyExit { output: help, ..early },
        Err(()) => early,
    })?;
    // Everything about it is that of `check`: its answer, its silence, its name.
    if matches!(&cli.command, Some(Command::Apply(apply)) if apply.dry_run) {
        (cli.command, common.command) = (Some(Command::Check(Check {})), "check");
    }
    Ok((cli, common))
}

/// Returns argh's text for `--help`.
fn help_of(command: Option<&'static str>) -> String {
    let words: Vec<&str> = command.into_iter().chain([HELP[0]]).collect();
    said(parse("", &words))
}

fn said<T>(parsed: Result<T, EarlyExit>) -> String {
    parsed.err().map_or_else(String::new, |early| early.output)
}

/// Makes argh's text fit a console: argh breaks the lines of options, and no others.
pub fn help(said: &str) -> String {
    // An option and its value stay together.
    let keep = |line: &str| line.replace(" <", "\u{a0}<");
    let indent = |line: &str| if line.starts_with(' ') { OPTION_COLUMNS } else { 2 };
    let mut out = String::new();
    for line in said.trim_end().lines() {
        fold(&mut out, Margins { at: 0, indent: indent(line), columns: HELP_COLUMNS }, &keep(line));
        out.push('\n');
    }
    out.trim_end().replace('\u{a0}', " ")
}

fn commands() -> impl Iterator<Item = &'static str> {
    Command::COMMANDS.iter().map(|command| command.name)
}

/// Returns the most similar known word, if similar enough: up to a third of the letters may differ.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = word.trim_start_matches('-').len() / 3;
    let all = known.map(|known| (distance(word.as_bytes(), known.as_bytes()), known));
    all.min_by_key(|(far, _)| *far).filter(|(far, _)| *far <= most.max(1)).map(|(_, known)| known)
}

/// Counts the letters to change, add, leave out or swap with the next to turn one word into another, ignoring case.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let other = usize::from(!a[i - 1].eq_ignore_ascii_case(&b[j - 1]));
                let least = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + other);
                match i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    true => least.min(rows[i - 2][j - 2] + 1),
                    false => least,
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

/// Format of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Lines for a person.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// Lines that a shell can `eval`.
    Shell,
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
