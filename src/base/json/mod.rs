//! JSON from outside: parsed with bounded memory, into fields that can be named when they are wrong.
//!
//! miniserde's errors carry no detail and its memory follows the input, so documents pass a shape check
//! first. Must never: recurse, or let a small document take much memory.

mod long;
mod shape;

use crate::base::error::{Error, Kind, Result};
use miniserde::de::{Map, Seq, Visitor};
use miniserde::{Deserialize, make_place};

pub use long::shorten;

make_place!(Place);

/// Parses a document. Input: its bytes (capped by the caller); `document` names it in errors. A leading byte order
/// mark is skipped, as parsers may (RFC 8259, section 8.1).
/// Errors: Source: not UTF-8, not JSON (and what it is, where that is recognizable), nested too deeply, too many parts, or a
/// part of the wrong type.
pub fn parse<T: Deserialize>(bytes: &[u8], document: &str) -> Result<T> {
    let fail = |why: &str| Error::new(Kind::Source, shape::other_than_json(bytes).unwrap_or(why)).at("read", document);
    let text = std::str::from_utf8(bytes).map_err(|_| fail("not UTF-8 text"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    shape::check(text.as_bytes()).map_err(fail)?;
    miniserde::json::from_str(text).map_err(|_| fail("not valid JSON, or not of the expected shape"))
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
    fn every_truncation_is_an_error() {
        let whole = r#"{"name":"a\u00e9\n","size":7,"x":[true,false,null,1.5e3,-2]}"#;
        assert!(parse::<Doc>(whole.as_bytes(), "t").is_ok());
        for cut in 0..whole.len() {
            assert_eq!(parse::<Doc>(&whole.as_bytes()[..cut], "t").err().unwrap().kind(), Kind::Source, "{cut}");
        }
    }
}
