//! `docs/threat-model.md` names tests: each of them exists.

use std::fs;
use std::path::Path;

/// Every `FILE::TEST` in a document.
fn named(text: &str) -> Vec<(String, String)> {
    let spans = text.split('`').skip(1).step_by(2);
    let pairs = spans.filter_map(|span| span.split_once("::")).map(|(file, test)| (file.to_owned(), test.to_owned()));
    pairs.collect()
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for document in ["docs/threat-model.md", "docs/key-rotation.md"] {
        for (file, test) in named(&fs::read_to_string(root.join(document)).unwrap()) {
            let path = if file.contains('/') { file.clone() } else { format!("tests/{file}.rs") };
            let source = fs::read_to_string(root.join(&path)).unwrap_or_else(|e| panic!("{document}: {path}: {e}"));
            let is_there = source.contains(&format!("#[test]\nfn {test}()"))
                || source.contains(&format!("    #[test]\n    fn {test}()"));
            assert!(is_there, "{document}: {path} has no test {test}");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}
