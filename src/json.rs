//! JSON from outside: parsed with bounded memory, into fields that can be named when they are wrong.
//!
//! miniserde's errors say nothing and its memory follows the input, so documents pass a shape check
//! first. Must never: recurse, or let a small document take much memory.

mod shape;

use crate::error::{Error, Kind, Result};
use miniserde::de::{Map, Seq, Visitor};
use miniserde::{Deserialize, make_place};

/// Longest text that [`shorten`] leaves, in bytes.
pub const MAX_TEXT: usize = 64 << 10;
/// Longest document that [`shorten`] leaves, in bytes. What remains is the document as it came: the whole agent has
/// 5.0 MiB of memory with the largest, of 4 MiB, and 3.8 MiB with 1 MiB of 680 entries (measured, static amd64).
const MAX_SHORTENED: usize = 1 << 20;

make_place!(Place);

/// Parses a document. Input: its bytes (capped by the caller); `document` names it in errors.
/// Errors: Source: not UTF-8, not JSON, nested too deeply, too many parts, or a part of the wrong shape.
pub fn parse<T: Deserialize>(bytes: &[u8], document: &str) -> Result<T> {
    let fail = |why: &str| Error::new(Kind::Source, why).at("read", document);
    let text = std::str::from_utf8(bytes).map_err(|_| fail("not UTF-8 text"))?;
    shape::check(bytes).map_err(fail)?;
    miniserde::json::from_str(text).map_err(|_| fail("not valid JSON, or not of the expected shape"))
}

/// Cuts texts beyond [`MAX_TEXT`] and runs of white space out of a document, in place: what is parsed, and what the
/// parser makes of it, is small then. Text that had to be shorter is still too long, and release notes are cut.
/// Input: the document, wholly checked: its digest is another one afterwards. What is no JSON stays none.
/// Errors: Source: not UTF-8, or more than 1 MiB is left.
pub fn shorten(document: &mut Vec<u8>) -> Result<()> {
    if document.len() <= MAX_TEXT {
        return Ok(());
    }
    if std::str::from_utf8(document).is_err() {
        return Err(Error::new(Kind::Source, "not UTF-8 text"));
    }
    let (mut at, mut kept, mut text_from) = (0, 0, None);
    while at < document.len() {
        let rest = &document[at..];
        let step = step(rest, text_from.is_some());
        let keep = match text_from {
            Some(from) if rest[0] != b'"' => kept - from < MAX_TEXT || is_second_half(rest),
            Some(_) => {
                text_from = None;
                true
            }
            None if rest[0] == b'"' => {
                text_from = Some(kept + 1);
                true
            }
            None => !(rest[0].is_ascii_whitespace() && kept > 0 && document[kept - 1].is_ascii_whitespace()),
        };
        if keep {
            document.copy_within(at..at + step, kept);
            kept += step;
        }
        at += step;
    }
    document.truncate(kept);
    if kept > MAX_SHORTENED {
        return Err(Error::new(Kind::Source, "more than 1 MiB of JSON, with every long text cut to 64 KiB"));
    }
    document.shrink_to_fit();
    Ok(())
}

/// Length of what stands first and must not be parted: an escape or a character in a text, a byte outside.
fn step(rest: &[u8], in_text: bool) -> usize {
    let whole = match rest {
        _ if !in_text => 1,
        [b'\\', b'u', ..] => 6,
        [b'\\', ..] => 2,
        [first, ..] => first.leading_ones().max(1) as usize,
        [] => 1,
    };
    whole.min(rest.len())
}

/// Says whether this is the second `\u` escape of a pair. Source: RFC 8259, section 7.
fn is_second_half(rest: &[u8]) -> bool {
    matches!(rest, [b'\\', b'u', b'd' | b'D', b'c'..=b'f' | b'C'..=b'F', ..])
}

/// Holds one scalar member, so that a wrong type is reported by name and not as a broken document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// Not there, or null.
    #[default]
    Missing,
    /// There, but of another JSON type.
    Wrong,
    /// There.
    Is(T),
}

impl<T> Field<T> {
    /// Returns the value. Errors: Source: missing or of the wrong type; `name` says which.
    pub fn need(self, name: &str) -> Result<T> {
        self.optional(name)?.ok_or_else(|| Error::new(Kind::Source, format!("'{name}' is missing")))
    }

    /// Returns the value if there is one. Errors: Source: of the wrong type.
    pub fn optional(self, name: &str) -> Result<Option<T>> {
        match self {
            Field::Missing => Ok(None),
            Field::Wrong => Err(Error::new(Kind::Source, format!("'{name}' has the wrong type"))),
            Field::Is(value) => Ok(Some(value)),
        }
    }

    /// Returns the value, or the fallback where this one is missing.
    pub fn or(self, fallback: Field<T>) -> Field<T> {
        match self {
            Field::Missing => fallback,
            other => other,
        }
    }
}

/// A scalar that a [`Field`] can hold.
pub trait Scalar: Sized + 'static {
    /// Takes a JSON string.
    fn from_text(_: &str) -> Option<Self> {
        None
    }
    /// Takes a JSON number that is a whole one and not negative.
    fn from_number(_: u64) -> Option<Self> {
        None
    }
}

impl Scalar for String {
    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Scalar for u64 {
    fn from_number(number: u64) -> Option<Self> {
        Some(number)
    }
}

impl<T: Scalar> Deserialize for Field<T> {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }

    fn default() -> Option<Self> {
        Some(Field::Missing)
    }
}

impl<T: Scalar> Place<Field<T>> {
    fn set(&mut self, value: Option<T>) -> miniserde::Result<()> {
        self.out = Some(value.map_or(Field::Wrong, Field::Is));
        Ok(())
    }
}

impl<T: Scalar> Visitor for Place<Field<T>> {
    fn null(&mut self) -> miniserde::Result<()> {
        self.out = Some(Field::Missing);
        Ok(())
    }
    fn boolean(&mut self, _: bool) -> miniserde::Result<()> {
        self.set(None)
    }
    fn string(&mut self, text: &str) -> miniserde::Result<()> {
        self.set(T::from_text(text))
    }
    fn negative(&mut self, _: i64) -> miniserde::Result<()> {
        self.set(None)
    }
    fn nonnegative(&mut self, number: u64) -> miniserde::Result<()> {
        self.set(T::from_number(number))
    }
    fn float(&mut self, _: f64) -> miniserde::Result<()> {
        self.set(None)
    }
    fn seq(&mut self) -> miniserde::Result<Box<dyn Seq + '_>> {
        self.set(None)?;
        <dyn Visitor>::ignore().seq()
    }
    fn map(&mut self) -> miniserde::Result<Box<dyn Map + '_>> {
        self.set(None)?;
        <dyn Visitor>::ignore().map()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Doc {
        name: Field<String>,
        size: Field<u64>,
    }

    #[test]
    fn names_what_is_missing_or_wrong() {
        for (text, name, size) in [
            (r#"{"name":"a","size":7,"more":[1,{"x":null}]}"#, Ok("a"), Ok(7)),
            (r#"{"name":null}"#, Err("'name' is missing"), Err("'size' is missing")),
            (r#"{"name":1,"size":"7"}"#, Err("'name' has the wrong type"), Err("'size' has the wrong type")),
            (r#"{"name":["a"],"size":{"x":7}}"#, Err("'name' has the wrong type"), Err("'size' has the wrong type")),
            (r#"{"name":true,"size":-7}"#, Err("'name' has the wrong type"), Err("'size' has the wrong type")),
            (r#"{"name":"","size":7.5}"#, Ok(""), Err("'size' has the wrong type")),
        ] {
            let doc: Doc = parse(text.as_bytes(), "t").unwrap();
            let shown = |e: Error| e.to_string();
            assert_eq!(doc.name.need("name").map_err(shown), name.map(str::to_owned).map_err(str::to_owned), "{text}");
            assert_eq!(doc.size.need("size").map_err(shown), size.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn refuses_what_would_cost_memory() {
        let deep = "[".repeat(4 << 20);
        assert!(parse::<Doc>(deep.as_bytes(), "t").err().unwrap().to_string().contains("deeply"));
        let wide = format!("[{}]", "{},".repeat(1 << 20));
        assert!(parse::<Doc>(wide.as_bytes(), "t").err().unwrap().to_string().contains("too many"));
        // Brackets and escaped quotes inside strings do not count.
        let text = format!(r#"{{"name":"{}\"{}","size":1}}"#, "[".repeat(100), "{".repeat(100));
        assert!(parse::<Doc>(text.as_bytes(), "t").is_ok());
        assert!(parse::<Doc>(b"\xff{}", "t").err().unwrap().to_string().contains("UTF-8"));
    }

    #[test]
    fn a_name_twice_is_refused_however_it_is_written() {
        for (text, is_good) in [
            (r#"{"name":"a","more":{"name":"b","x":[{"name":1},{"name":2}]},"size":1}"#, true),
            (r#"{"name":"name","size":1,"n":["name","name"]}"#, true),
            (r#"{"name":"a","name":"a"}"#, false),
            (r#"{"name":"a","n\u0061me":"b"}"#, false),
            (r#"{"more":{"x":1,"y":{},"x":2}}"#, false),
            (r#"{"more":[{"\\u0061":1,"\\u0061":2}]}"#, false),
            (r#"{"a\/b":1,"a/b":2}"#, false),
            (r#"{"\ud83d\ude00":1,"😀":2}"#, false),
            (r#"{"\"":1,"\\":2,"\n":3,"n":4,"\t":5}"#, true),
        ] {
            let got = parse::<Doc>(text.as_bytes(), "t").map(|_| ()).map_err(|e| e.to_string());
            assert_eq!(got.is_ok(), is_good, "{text}: {got:?}");
            assert!(is_good || got.unwrap_err().contains("same name twice"), "{text}");
        }
        let many: String = (0..20_000).map(|n| format!("\"{n}\":0,")).collect();
        assert!(parse::<Doc>(format!("{{{many}}}").as_bytes(), "t").err().unwrap().to_string().contains("too many"));
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
            (format!("{full}\\ud83d"), full.clone()),
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
            shorten(&mut bytes).unwrap();
            assert!(parse::<Doc>(&bytes, "t").is_err());
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = r#"{"name":"a\u00e9\n","size":7,"x":[true,false,null,1.5e3,-2]}"#;
        assert!(parse::<Doc>(whole.as_bytes(), "t").is_ok());
        for cut in 0..whole.len() {
            assert_eq!(parse::<Doc>(&whole.as_bytes()[..cut], "t").err().unwrap().kind(), Kind::Source, "{cut}");
        }
    }
}
