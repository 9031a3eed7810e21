//! The flags that several commands take: parted from those of a command's own, and shown in its help. Pure.
//!
//! Must never: take the value of an option for a flag.

/// What asks for help; the bare word only where a command, or nothing more, is expected.
pub(crate) const HELP: [&str; 3] = ["--help", "-h", "help"];

/// Which flags which commands take.
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

/// What stands in front of the options in what argh says, and behind the last.
const OPTIONS: &str = "\n\nOptions:";
const HELP_ROW: &str = "\n  -h, --help";

/// Returns whether an option takes a value. Input: `help`: what argh says of the options.
pub fn has_value(help: &str, option: &str) -> bool {
    help.contains(&[" [", option, " <"].concat())
}

/// Returns whether there is such an option. Input: `help`: what argh says of the options.
pub fn has(help: &str, option: &str) -> bool {
    has_value(help, option) || help.contains(&[" [", option, "]"].concat())
}

/// Returns whether a command takes a flag. Input: `flag`: without its dashes.
fn takes(command: &str, flag: &str) -> bool {
    let has = |list: &str, name: &str| list.split(' ').any(|known| known == name);
    TAKEN.iter().any(|(flags, commands)| has(flags, flag) && has(commands, command))
}

/// Parts the words of a line in two: what is the command's own, and its flags. What stands in front of the command is its own,
/// and what stands behind `--` or asks for help: argh says what is wrong with it.
/// Input: `help`: what argh says of all options of the command.
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

/// Makes the help of a command with its flags: they come first. Input: `own`, `flags`: as argh says it of each.
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
