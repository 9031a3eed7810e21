//! The flags that every command on a machine takes: parted from those of its own, and shown in its help. Pure.
//!
//! Must never: take the value of an option for a flag.

/// What there is to ask for help with; the bare word only where a command, or nothing more, is expected.
pub(crate) const HELP: [&str; 3] = ["--help", "-h", "help"];

/// What stands in front of the options in what argh says, and behind the last.
const OPTIONS: &str = "\n\nOptions:";
const HELP_ROW: &str = "\n  -h, --help";

/// Says whether an option takes a value. Input: `help`: what argh says of the options.
pub fn has_value(help: &str, option: &str) -> bool {
    help.contains(&[" [", option, " <"].concat())
}

/// Parts the words of a line in two: what is the command's own, and its flags. What stands in front of the command is its own,
/// and what stands behind `--` or asks for help: argh says what is wrong with it.
/// Input: `shared`, `help`: what argh says of the flags, and of all options of the command.
pub fn part<'a>(words: &[&'a str], shared: &str, help: &str) -> (Vec<&'a str>, Vec<&'a str>) {
    let command = words.iter().position(|word| !word.starts_with('-')).map_or(words.len(), |at| at + 1);
    let (mut own, mut flags) = (words[..command].to_vec(), Vec::new());
    let mut rest = words[command..].iter().copied();
    while let Some(word) = rest.next() {
        let is_flag = has_value(shared, word) || shared.contains(&[" [", word, "]"].concat());
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

/// Makes the help of a command with its flags: they come first. Input: `own`, `shared`: as argh says it of each.
pub fn shown(own: &str, shared: &str, command: &str) -> String {
    let between = |start: &str, end: &str| {
        let found = shared.split_once(start).and_then(|(_, rest)| rest.split_once(end));
        found.map_or("", |(found, _)| found)
    };
    let name = [" ", command].concat();
    let usage = [&name, between(&name, "\n\n")].concat();
    let rows = [OPTIONS, between(OPTIONS, HELP_ROW)].concat();
    own.replacen(&name, &usage, 1).replacen(OPTIONS, &rows, 1)
}
