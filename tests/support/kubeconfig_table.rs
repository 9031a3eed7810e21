//! The table `tests/fixtures/kubeconfigs.tsv`, and the kubeconfigs that it names.
//!
//! Shared by the unit tests of the parser (src/health/kubeconfig_tests.rs) and by the test that asks a real kubectl.

use std::fs;
use std::path::Path;

/// What the table's kubeconfigs are made of.
pub const BASE: &str = include_str!("../fixtures/kubeconfigs/base.yaml");
const TABLE: &str = include_str!("../fixtures/kubeconfigs.tsv");

/// A kubeconfig, and what is said of it: `read`, or `refused`; the agent's refusal is given by words of it.
pub struct Row {
    pub form: &'static str,
    pub kubectl: &'static str,
    pub agent: &'static str,
    pub bytes: Vec<u8>,
}

/// Every row.
pub fn rows() -> Vec<Row> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    let rows = lines.map(|line| {
        let fields: Vec<_> = line.split('\t').collect();
        let [form, kubectl, agent, change] = fields[..] else { panic!("not four fields: {line}") };
        assert!(["read", "refused"].contains(&kubectl), "{line}");
        Row { form, kubectl, agent, bytes: made(change) }
    });
    rows.collect()
}

fn unescape(text: &str) -> String {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        out.push(match escaped {
            None => c,
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let (digits, rest) = chars.as_str().split_at(4);
                chars = rest.chars();
                char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap()
            }
            Some(other) => other,
        });
    }
    out
}

fn made(change: &str) -> Vec<u8> {
    if let Some(file) = change.strip_prefix('@') {
        return fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kubeconfigs").join(file)).unwrap();
    }
    let mut text = BASE.to_owned();
    for part in change.split(" ;; ") {
        let (old, new) = part.split_once(" => ").unwrap_or_else(|| panic!("no => in {part}"));
        let (old, new) = (unescape(old), unescape(new));
        assert!(text.contains(&old), "{old:?} is not in {text}");
        text = text.replace(&old, &new);
    }
    text.into_bytes()
}
