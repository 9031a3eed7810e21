use super::*;

fn parse(text: &str) -> Document {
    Document::parse(text.as_bytes()).unwrap()
}

/// Values that are not looked up are not judged, and a bad value that is looked up names its own line.
#[test]
fn only_what_is_asked_for_is_judged() {
    let document = parse("a: !!int 7\nb: [x]\nc: {d: !!binary '!'}\ne: ''\nf:\n");
    let root = document.root();
    let words = |found: Result<Option<(&str, usize)>>| found.unwrap_err().to_string();
    assert_eq!(words(document.text(root, "a")), "line 1: a is written with the tag !!int, which is not read");
    assert_eq!(words(document.text(root, "b")), "line 2: b is a list or a mapping, not a text");
    let inner = document.get(root, "c").unwrap().unwrap();
    assert!(words(document.text(inner, "d")).starts_with("line 3: d is written with !!binary"));
    for key in ["e", "f", "g"] {
        assert_eq!(document.text(root, key).unwrap(), None, "{key}");
    }
    assert_eq!(document.list(root, "b").unwrap().len(), 1);
    assert!(document.list(root, "f").unwrap().is_empty());
    assert!(document.list(root, "c").unwrap_err().to_string().starts_with("line 3: c is not a list"));
}

/// An alias is the node it names: any number of them takes no more memory than in the file.
#[test]
fn aliases_are_no_copies() {
    let mut text = String::from("a0: &a0 [x, x]\n");
    for n in 1..200 {
        text.push_str(&format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}]\n", n - 1));
    }
    assert_eq!(parse(&text).nodes.len(), 1 + 200 * 2 + 2);
    let many: String = (0..300).map(|n| format!("- &a{n} x\n")).collect();
    assert!(Document::parse(many.as_bytes()).unwrap_err().to_string().ends_with("too many anchors"));
}
