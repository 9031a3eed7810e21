//! Tests of `json::long`: what is cut, what stays, and that the parser sees all of it.

use super::*;
use crate::base::json::{Field, parse};
use miniserde::Deserialize;
use miniserde::de::Visitor;

#[derive(Deserialize)]
struct Doc {
    name: Field<String>,
    size: Field<u64>,
}

#[test]
fn long_texts_and_white_space_are_cut() {
    let full = "x".repeat(MAX_TEXT);
    for (value, want) in [
        (format!("{full}y"), full.clone()),
        (format!("{full}y\\\"z"), full.clone()),
        (format!("{}\u{e9}\u{e9}", &full[1..]), format!("{}\u{e9}", &full[1..])),
        (format!("{}\\u00e9yz", &full[1..]), format!("{}\u{e9}", &full[1..])),
        (format!("{}\\ud83d\\ude00y", &full[1..]), format!("{}\u{1f600}", &full[1..])),
        (full.clone(), full.clone()),
        ("a  b\\\\".to_owned(), "a  b\\".to_owned()),
    ] {
        let mut text = format!(
            r#"  {{ {}"more":"{}","name":"{value}",{} "size" : 1 2 }}"#,
            " ".repeat(3 << 20),
            full,
            "\n\t".repeat(9)
        );
        shorten(&mut text.as_bytes().to_vec()).unwrap();
        text = text.replace("1 2", "12");
        let mut bytes = text.into_bytes();
        shorten(&mut bytes).unwrap();
        assert!(bytes.len() < 3 * MAX_TEXT && bytes.capacity() < 4 * MAX_TEXT);
        let doc: Doc = parse(&bytes, "t").unwrap();
        assert_eq!(doc.name.need("name").unwrap(), want);
        assert_eq!(doc.size.need("size").unwrap(), 12);
    }
    let mut small = b"  {  ".to_vec();
    shorten(&mut small).unwrap();
    assert_eq!(small, b"  {  ");
    let mut other = vec![0xff; MAX_TEXT + 1];
    assert!(shorten(&mut other).unwrap_err().to_string().contains("UTF-8"));
    let mut many = format!("[{}1]", "1,".repeat(MAX_SHORTENED / 2)).into_bytes();
    assert!(shorten(&mut many).unwrap_err().to_string().contains("1 MiB"));
}

#[test]
fn shortening_makes_no_json_of_what_is_none() {
    let long = "x".repeat(MAX_TEXT + 9);
    for text in [
        format!(r#"{{"name":"{long}"#),
        format!(r#"{{"name":"{long}\"#),
        format!(r#"{{"name":"{long}\u"#),
        format!(r#"{{"name":"{long}","size":1 2}}"#),
        format!(r#"{{"name":"{long}""size":1}}"#),
    ] {
        let mut bytes = text.into_bytes();
        assert!(shorten(&mut bytes).and_then(|()| parse::<Doc>(&bytes, "t")).is_err());
    }
}

/// Any JSON: the parser's verdict on a whole document, however much memory that takes.
struct Any;

impl Deserialize for Any {
    fn begin(_: &mut Option<Self>) -> &mut dyn Visitor {
        <dyn Visitor>::ignore()
    }
    fn default() -> Option<Self> {
        Some(Any)
    }
}

#[derive(Deserialize)]
struct Holder {
    x: Any,
}

fn is_json(text: &str) -> bool {
    miniserde::json::from_str::<Holder>(&format!("{{\"x\":{text}}}")).map(|holder| holder.x).is_ok()
}

/// What may straddle or follow the cut: characters and escapes of every length, valid and invalid.
const ACROSS: [&str; 30] = [
    r"\ud83d\ude00",
    r"\uD83D\uDE00",
    r"\ud83d\uDe00\ud83d\ude00",
    r"\u0000",
    r"\u00e9",
    r"\\u0041",
    r"\\\\",
    "\u{1f600}",
    "\u{e9}\u{20ac}",
    "\u{7f}\u{2028}",
    r"\/\b\f\n\r\t",
    "{[,:]}",
    // Not JSON; the parser has to see it beyond the cut.
    r"\dueude00",
    r"\ud83d",
    r"\ud83d\ud83d",
    r"\ude00",
    r"\ude00\ud83d",
    r"\ud83d\n",
    r"\ud83dx",
    r"\ud83d\\ude00",
    r"\u12",
    r"\u12g4",
    r"\u+123",
    r"\U0041",
    r"\x41",
    r"\'",
    "\n",
    "\t",
    "\0",
    "\u{1}",
];

#[test]
fn what_is_cut_is_seen_by_the_parser_wherever_the_cut_falls() {
    let (mut good, mut bad) = (0, 0);
    for across in ACROSS {
        // From just before the cut to just after it, and past the first piece given to the parser.
        for length in (MAX_TEXT - 14..MAX_TEXT + 3).chain(MAX_TEXT + PIECE - 14..MAX_TEXT + PIECE + 3) {
            for text in [
                format!(r#"{{"name":"{}{across}","size":1}}"#, "x".repeat(length)),
                format!(r#"{{"name":"n","size":1,"more":["{}{across}{across}z"]}}"#, "x".repeat(length)),
            ] {
                let want = is_json(&text);
                let mut bytes = text.clone().into_bytes();
                let got = shorten(&mut bytes).and_then(|()| parse::<Doc>(&bytes, "t"));
                assert_eq!(got.is_ok(), want, "{across} at {length}: {:?}", got.map(|_| ()));
                *(if want { &mut good } else { &mut bad }) += 1;
                if let Ok(doc) = got {
                    let name = doc.name.need("name").unwrap();
                    let whole: Doc = parse(text.as_bytes(), "t").unwrap();
                    assert!(whole.name.need("name").unwrap().starts_with(&name), "{across} at {length}");
                    assert!(bytes.len() < MAX_TEXT + 100, "{}", bytes.len());
                }
            }
        }
    }
    assert!(good == 12 * 34 * 2 && bad == 18 * 34 * 2, "{good} {bad}");
}

#[test]
fn names_stay_as_they_are() {
    let long = "n".repeat(MAX_TEXT + 9);
    for (text, word) in [
        (format!(r#"{{"{long}":1,"name":"n","size":1}}"#), None),
        // Two names that begin alike are two, and a duplicate is noticed.
        (format!(r#"{{"{long}a" : 1,"{long}b":2,"name":"n","size":1}}"#), None),
        (format!(r#"{{"{long}":1,"{long}":2,"name":"n","size":1}}"#), Some("same name twice")),
        (format!(r#"{{"{long}\ud83d\ude00":1,"name":"n","size":1}}"#), None),
        (format!(r#"{{"{long}\ud83d":1,"name":"n","size":1}}"#), Some("not valid JSON")),
        (format!(r#"{{"{long}\x":1,"name":"n","size":1}}"#), Some("not valid JSON")),
        (format!(r#"{{"{}":1,"name":"n","size":1}}"#, "n".repeat(MAX_SHORTENED)), Some("1 MiB")),
    ] {
        let mut bytes = text.into_bytes();
        let got = shorten(&mut bytes).and_then(|()| parse::<Doc>(&bytes, "t"));
        match (got, word) {
            (Ok(_), None) => {}
            (Err(e), Some(word)) if e.to_string().contains(word) => {}
            (got, word) => panic!("{word:?}: {:?}", got.map(|_| ())),
        }
    }
}

#[test]
fn only_white_space_of_json_is_cut() {
    let long = "x".repeat(MAX_TEXT);
    for (between, is_good) in [
        ("  ", true),
        ("\r\n\t \n", true),
        (" \u{c}", false),
        (" \u{b}", false),
        (" \u{a0}", false),
        (" \u{feff}", false),
    ] {
        let mut bytes = format!(r#"{{"name":{between}"{long}",{between}"size":1}}"#).into_bytes();
        let got = shorten(&mut bytes).and_then(|()| parse::<Doc>(&bytes, "t"));
        assert_eq!(got.is_ok(), is_good, "{between:?}");
    }
}
