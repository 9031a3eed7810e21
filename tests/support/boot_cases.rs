//! The table `tests/fixtures/boot-cases.tsv`: its rows, the blocks that they name, and what GRUB's
//! `save_env` makes of a block.

use super::loader::content;
use kubesolo_update::parts::boot::block::Block;
use kubesolo_update::parts::boot::grub_table::{Decision, Vars, decide};
use kubesolo_update::parts::slot::record::Slot;

const TABLE: &str = include_str!("../fixtures/boot-cases.tsv");
const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";
/// In the order of the table's notation.
pub const NAMES: [&str; 5] = ["active_slot", "boot_counter", "boot_success", "rollback_from", "boot_canary"];

/// One boot.
pub struct Row {
    pub name: &'static str,
    pub disk: &'static str,
    /// Both copies; `None`: the machine of the row above boots again.
    pub blocks: Option<[&'static str; 2]>,
    pub boots: Option<Slot>,
    pub after: [&'static str; 2],
    pub agent: &'static str,
}

/// Reads the table.
pub fn rows() -> Vec<Row> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    let mut rows: Vec<Row> = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, disk, main, backup, boots, main_after, backup_after, agent] = fields[..] else {
            panic!("not eight columns: {line}")
        };
        let again = main == "+";
        let disk = if again { rows.last().expect("a row to go on from").disk } else { disk };
        rows.push(Row {
            name,
            disk,
            blocks: (!again).then_some([main, backup]),
            boots: Slot::parse(boots),
            after: [main_after, backup_after],
            agent,
        });
        assert!(boots == "none" || Slot::parse(boots).is_some(), "{line}");
    }
    rows
}

/// Both copies, as bytes; `None`: there is not a regular file.
pub type Copies = [Option<Vec<u8>>; 2];

/// Makes a copy from the table's notation.
pub fn block(notation: &str) -> Option<Vec<u8>> {
    match notation {
        "missing" => return None,
        "empty" => return Some(Vec::new()),
        "header" => return Some(SIGNATURE.to_vec()),
        "garbage" => return Some((0..1024u32).map(|n| (n * n % 251) as u8).collect()),
        _ => {}
    }
    let mut parts = notation.split('+');
    let values: Vec<&str> = parts.next().unwrap().split(':').collect();
    assert_eq!(values.len(), 5, "{notation}");
    // As the agent writes them.
    let mut lines: Vec<String> = [0, 2, 1, 3, 4].map(|n| format!("{}={}\n", NAMES[n], values[n])).into();
    let (mut head, mut length, mut padding) = (SIGNATURE.to_vec(), 1024, b'#');
    for damage in parts {
        match damage {
            "unknown" => {
                lines.insert(0, "# for people\nmine=a\\\\b\\\nc\n".into());
                lines.push("other=1\n".into());
            }
            "order" => lines.reverse(),
            "old" => lines.truncate(3),
            "noequals" => lines.insert(0, "nonsense\n".into()),
            "escape" => lines.push("mine=a\\b\n".into()),
            "crlf-unknown" => lines.push("mine=1\r\n".into()),
            "nul-unknown" => lines.push("mine=a\0b\n".into()),
            "crlf" => {
                head = b"# GRUB Environment Block\r\n".to_vec();
                lines.iter_mut().for_each(|line| *line = line.replace('\n', "\r\n"));
            }
            "crlf-body" => lines.iter_mut().for_each(|line| *line = line.replace('\n', "\r\n")),
            "signature" => head[3] = b'X',
            "zeros" => padding = 0,
            "full" | "unended" => {
                let end = if damage == "full" { "\n" } else { "" };
                let taken = head.len() + lines.concat().len() + "mine=".len() + end.len();
                lines.push(format!("mine={}{end}", "x".repeat(1024 - taken)));
            }
            _ => match (damage.strip_prefix("dup:"), damage.strip_prefix("len")) {
                (Some(line), _) => lines.push(format!("{line}\n")),
                (_, Some(bytes)) => length = bytes.parse().unwrap(),
                _ => panic!("unknown damage: {notation}"),
            },
        }
    }
    let mut bytes = [head, lines.concat().into_bytes()].concat();
    bytes.resize(length, padding);
    Some(bytes)
}

/// The five values that GRUB's `load_env` reads, joined; of a block that it refuses, only the colons.
pub fn values(copy: &Option<Vec<u8>>) -> String {
    let block = copy.as_deref().and_then(Block::decode_lenient).unwrap_or_default();
    NAMES.map(|name| String::from_utf8_lossy(block.get(name).unwrap_or_default()).into_owned()).join(":")
}

/// A machine whose boots are those that src/boot/grub_table.rs decides.
pub struct Model {
    pub copies: Copies,
    pub disk: &'static str,
}

impl Model {
    /// Boots once.
    pub fn boot(&mut self) -> (Decision, Option<Slot>) {
        let disk = self.disk;
        let recorded = [disk != "no-record-A", true];
        let read = |copies: &Copies| copies.each_ref().map(|copy| copy.as_deref().and_then(Vars::read));
        let now = read(&self.copies);
        let copies = &mut self.copies;
        let decision = decide(now, recorded, &mut |vars| {
            let winner = copies.iter().flatten().find(|copy| Vars::read(copy).is_some()).expect("one is good");
            let no_rollback = Block::decode_lenient(winner).is_none_or(|b| b.get("rollback_from").is_none());
            let rollback = match vars.rollback_from {
                Some(slot) => Some(slot.letter().to_string()),
                None if no_rollback => None,
                None => Some(String::new()),
            };
            let set = [
                Some(vars.active.letter().to_string()),
                Some(vars.counter.to_string()),
                Some(u8::from(vars.success).to_string()),
                rollback,
                Some(u8::from(vars.canary).to_string()),
            ];
            for copy in copies.iter_mut().flatten().filter(|_| disk != "read-only") {
                save_env(copy, &set);
            }
            read(copies)
        });
        (decision, decision.boots_by(|slot| content(disk, slot)))
    }
}

/// GRUB's `save_env`: all variables or none. Source: grub-core/lib/envblk.c (read, not copied); the
/// tests hold every result against a real GRUB's, byte for byte.
fn save_env(copy: &mut Vec<u8>, set: &[Option<String>; 5]) {
    if !copy.starts_with(SIGNATURE) || copy.len() == SIGNATURE.len() {
        return;
    }
    let mut new = copy.clone();
    for (name, value) in NAMES.iter().zip(set) {
        let done = match value {
            Some(value) => edit(&mut new, name.as_bytes(), Some(value.as_bytes())),
            None => {
                edit(&mut new, name.as_bytes(), None);
                true
            }
        };
        if !done {
            return;
        }
    }
    *copy = new;
}

/// Sets or deletes the first variable of a name. False: cannot.
fn edit(buffer: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) -> bool {
    let size = buffer.len();
    let used = size - buffer.iter().rev().take_while(|b| **b == b'#').count();
    if buffer[used - 1] != b'\n' {
        return false;
    }
    let start = [name, b"="].concat();
    let mut at = SIGNATURE.len();
    while at + start.len() < used {
        let end = line_end(buffer, at);
        if buffer[at..].starts_with(&start) {
            let (from, to, with) = match value {
                Some(value) => (at + start.len(), end, value),
                None => (at, end + 1, b"".as_slice()),
            };
            if used + with.len() > size + (to - from) {
                return false;
            }
            buffer.splice(from..to, with.iter().copied());
            // Longer: padding falls off. Shorter: padding comes on.
            buffer.resize(size, b'#');
            return true;
        }
        at = end + 1;
    }
    let Some(value) = value else { return true };
    let line = [&start, value, b"\n"].concat();
    if used + line.len() > size {
        return false;
    }
    buffer[used..used + line.len()].copy_from_slice(&line);
    true
}

fn line_end(buffer: &[u8], mut at: usize) -> usize {
    while at < buffer.len() && buffer[at] != b'\n' {
        at += if buffer[at] == b'\\' { 2 } else { 1 };
    }
    at
}
