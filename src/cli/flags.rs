//! The flags that several commands take: separated from a command's own options, and shown in its help. Pure.
//!
//! Must never: mistake the value of an option for a flag.

/// Words that ask for help; the bare word only where a command, or nothing more, is expected.
pub(crate) const HELP: [&str; 3] = ["--help", "-h", "help"];

/// Which commands take which flags.
const TAKEN: [(&str, &str); 10] = [
    ("config state", "check apply activate rollback healthcheck status metrics verify"),
    ("root", "check apply activate rollback healthcheck status metrics verify device"),
    ("json shell", "check apply activate rollback healthcheck status metrics verify device inspect lint"),
    ("quiet verbose", "check apply activate rollback healthcheck status metrics verify inspect"),
    ("server registry layout", "check apply verify"),
    ("tag retries", "check apply verify inspect"),
    ("splay allow-downgrade", "check apply"),
    ("retry-failed", "check apply rollback"),
    ("ignore-window", "check apply activate"),
    ("reboot allow-unproven-bootloader", "apply activate rollback"),
];

/// What precedes the options in argh's help text, and what follows the last one.
const OPTIONS: &str = "\n\nOptions:";
const HELP_ROW: &str = "\n  -h, --help";

/// Returns whether an option takes a value. Input: `help`: argh's text on the options.
pub fn has_value(help: &str, option: &str) -> bool {
    help.contains(&[" [", option, " <"].concat())
}

/// Returns whether an option exists. Input: `help`: argh's text on the options.
pub fn has(help: &str, option: &str) -> bool {
    has_value(help, option) || help.contains(&[" [", option, "]"].concat())
}

/// Returns whether a command takes a flag. Input: `flag`: without its dashes.
fn takes(command: &str, flag: &str) -> bool {
    let has = |list: &str, name: &str| list.split(' ').any(|known| known == name);
    TAKEN.iter().any(|(flags, commands)| has(flags, flag) && has(commands, command))
}

/// Splits the words of a line: the command's own, and its flags. Words before the command are its own, as are those after `--`
/// or a request for help: argh reports what is wrong with them.
/// Input: `help`: argh's text on all options of the command.
pub fn part<'a>(words: &[&'a str], command: &str, help: &str) -> (Vec<&'a str>, Vec<&'a str>) {
    let begin = words.iter().position(|word| *word == command).map_or(words.len(), |at| at + 1);
    let (mut own, mut flags) = (words[..begin].to_vec(), Vec::new());
    let mut rest = words[begin..].iter().copied();
    while let Some(word) = rest.next() {
        let is_flag = word.strip_prefix("--").is_some_and(|flag| takes(command, flag));
        let part = if is_flag { &mut flags } else { &mut own };
        part.push(word);
        if word == "--" || HELP.contains(&word) {
            own.extend(&mut rest);
        } else if has_value(help, word) {
            part.extend(rest.next());
        }
    }
    (own, flags)
}

/// Makes the help of a command with its flags, which come first. Input: `own`, `flags`: argh's text on each.
pub fn shown(own: &str, flags: &str, command: &str) -> String {
    let between = |start: &str, end: &str, each: &str| -> String {
        let found = flags.split_once(start).and_then(|(_, rest)| rest.split_once(end));
        let all = found.map_or("", |(found, _)| found).split(each);
        let taken = all.filter(|flag| takes(command, flag.split([' ', ']', '\n']).next().unwrap_or_default()));
        taken.flat_map(|flag| [each, flag]).collect()
    };
    let name = [" ", command].concat();
    let usage = [&*name, &between(&name, "\n\n", " [--")].concat();
    let rows = [OPTIONS, &between(OPTIONS, HELP_ROW, "\n  --")].concat();
    own.replacen(&name, &usage, 1).replacen(OPTIONS, &rows, 1)
}
