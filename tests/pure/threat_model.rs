//! `docs/threat-model.md` names tests: each of them exists.

use std::fs;
use std::path::Path;

/// Every `PROGRAM::MODULE::TEST` of tests/, and every `FILE::TEST` of src/, in a document: the file, and the test.
fn named(text: &str) -> Vec<(String, String)> {
    let spans = text.split('`').skip(1).step_by(2);
    let pairs = spans.filter_map(|span| span.rsplit_once("::"));
    pairs
        .map(|(place, test)| match place.split_once("::") {
            Some((program, module)) => (format!("tests/{program}/{module}.rs"), test.to_owned()),
            None => (place.to_owned(), test.to_owned()),
        })
        .collect()
}

#[apply(test)]
fn every_test_that_the_threat_model_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for document in ["docs/threat-model.md", "docs/key-rotation.md"] {
        for (path, test) in named(&fs::read_to_string(root.join(document)).unwrap()) {
            let source = fs::read_to_string(root.join(&path)).unwrap_or_else(|e| panic!("{document}: {path}: {e}"));
            let attributes = ["#[apply(test)]\n", "#[apply(long_test)]\n", "#[test]\n", "    #[test]\n    "];
            let is_there = attributes.iter().any(|attribute| source.contains(&format!("{attribute}fn {test}()")));
            assert!(is_there, "{document}: {path} has no test {test}");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}
