//! Every document that the agent gives to a test is held to docs/json-schema.json, by a real validator: they are collected
//! while the tests run, and judged at the end in one go, since a validator takes a third of a second to start.

use super::{PYTHON, has_python};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

/// What every document begins with.
const BEGINNING: &str = "{\"schema_version\":";

static COLLECTED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps a text for [`judge`] if it is the agent's document.
pub fn collect(text: &str) {
    if is_document(text) {
        let mut collected = COLLECTED.lock().unwrap();
        // Many a run says what another has said.
        if !collected.iter().any(|known| known == text) {
            collected.push(text.to_string());
        }
    }
}

/// Says whether a text begins as the agent's documents do.
pub fn is_document(text: &str) -> bool {
    text.starts_with(BEGINNING)
}

/// Holds what was collected to the schema. Returns: what is wrong with it; nothing where nothing is.
pub fn judge() -> String {
    let collected = std::mem::take(&mut *COLLECTED.lock().unwrap());
    match collected.is_empty() || !has_python("jsonschema") {
        true => String::new(),
        false => schema_faults(&collected.iter().map(String::as_str).collect::<Vec<_>>()),
    }
}

/// Says where documents are not what docs/json-schema.json describes; nothing where they are.
pub fn schema_faults(documents: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let names = documents.iter().enumerate().map(|(n, document)| {
        let file = dir.path().join(format!("{n}.json"));
        fs::write(&file, document).unwrap();
        format!("{}\n", file.display())
    });
    let list = dir.path().join("list");
    fs::write(&list, names.collect::<String>()).unwrap();
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json-schema.json");
    // A run that fails for its own reasons must not look like documents without faults.
    let out = Command::new(PYTHON).args(["-c", HOLD_TO_SCHEMA]).arg(schema).arg(list).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    let end = format!("held {}\n", documents.len());
    assert!(out.status.success() && said.ends_with(&end), "{}", String::from_utf8_lossy(&out.stderr));
    said.trim_end_matches(&end).to_string()
}

const HOLD_TO_SCHEMA: &str = "
import json, sys, unicodedata
STEERING = {'LRE', 'RLE', 'LRO', 'RLO', 'PDF', 'LRI', 'RLI', 'FSI', 'PDI'}
from jsonschema.validators import validator_for
schema = json.load(open(sys.argv[1]))
kind = validator_for(schema, None)
kind.check_schema(schema)
judge = kind(schema)
names = open(sys.argv[2]).read().split()
def once(pairs):
    if len(dict(pairs)) != len(pairs):
        raise ValueError('a member stands there twice: %s' % [name for name, _ in pairs])
    return dict(pairs)
def texts(part):
    if isinstance(part, str):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from texts(inner)
for name in names:
    text = open(name).read()
    try:
        document = json.loads(text, object_pairs_hook=once)
    except ValueError as error:
        print('no JSON:', error, 'in', text[:300])
        continue
    for said in texts(document):
        if any(unicodedata.category(c) in ('Cc', 'Zl', 'Zp') or unicodedata.bidirectional(c) in STEERING for c in said):
            print('a control character in', ascii(said[:300]))
    for fault in judge.iter_errors(document):
        print(list(fault.absolute_path), fault.validator, fault.message[:300], 'in', text[:300])
print('held', len(names))
";
