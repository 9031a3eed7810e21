//! YAML scalars: plain, quoted and block, with folding and escapes. Pure.
//!
//! Must never: skip input that it does not know.

use super::scan::{Is, Scanner, bad};
use crate::base::error::Result;
use std::iter::repeat_n;
use std::mem::take;

/// How a text that may have line breaks is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Quoted,
    /// In quotes, after a backslash at the end of a line.
    Escaped,
}

impl Scanner<'_> {
    /// `|` and `>`. Source: YAML 1.2.2, section 8.1.
    pub fn block_text(&mut self, is_literal: bool) -> Result<()> {
        self.forget_key()?;
        self.may_be_key = true;
        let (line, outer) = (self.line, self.indent().max(0) as usize);
        self.at += 1;
        let (mut chomp, mut indent) = (0, 0);
        for _ in 0..2 {
            match self.peek(0) {
                sign @ (b'+' | b'-') if chomp == 0 => chomp = sign,
                digit @ b'1'..=b'9' if indent == 0 => indent = outer + usize::from(digit - b'0'),
                _ => break,
            }
            self.at += 1;
        }
        self.skip_while(&|b| b == b' ' || b == b'\t');
        if self.peek(0) == b'#' {
            self.skip_while(&|b| b != b'\n');
        }
        match self.peek(0) {
            b'\n' => self.newline(),
            0 => {}
            _ => return Err(self.bad("what stands after | or > is not read")),
        }
        let (mut out, mut broke, mut was_blank) = (String::new(), false, false);
        let mut breaks = self.block_breaks(&mut indent)?;
        while self.column() == indent && self.peek(0) != 0 {
            let is_blank = matches!(self.peek(0), b' ' | b'\t');
            if broke && (is_literal || was_blank || is_blank) {
                out.push('\n');
            } else if broke && breaks == 0 {
                out.push(' ');
            }
            out.extend(repeat_n('\n', breaks));
            was_blank = is_blank;
            let at = self.at;
            self.skip_while(&|b| b != b'\n');
            out.push_str(self.since(at));
            broke = self.peek(0) == b'\n';
            if broke {
                self.newline();
            }
            breaks = self.block_breaks(&mut indent)?;
        }
        if broke && chomp != b'-' {
            out.push('\n');
        }
        if chomp == b'+' {
            out.extend(repeat_n('\n', breaks));
        }
        self.push(Is::Quoted, line, &out);
        Ok(())
    }

    /// Skips empty lines and the next indentation, which it detects if need be. Returns: the number of empty lines.
    fn block_breaks(&mut self, indent: &mut usize) -> Result<usize> {
        let (mut breaks, mut deepest) = (0, 0);
        loop {
            while (*indent == 0 || self.column() < *indent) && self.peek(0) == b' ' {
                self.at += 1;
            }
            deepest = deepest.max(self.column());
            match self.peek(0) {
                b'\t' if *indent == 0 || self.column() < *indent => {
                    return Err(self.bad("a tab where only spaces are read"));
                }
                b'\n' => self.newline(),
                _ => break,
            }
            breaks += 1;
        }
        if *indent == 0 {
            *indent = deepest.max((self.indent() + 1) as usize).max(1);
        }
        Ok(breaks)
    }

    /// Skips spaces and line breaks within a text. Returns: their folded form, and whether there were line breaks.
    fn fold(&mut self, style: Style) -> Result<(String, bool)> {
        let (is_plain, escaped) = (style == Style::Plain, style == Style::Escaped);
        let (mut out, mut breaks, at) = (String::new(), usize::from(escaped), self.at);
        loop {
            match self.peek(0) {
                b'\n' => {
                    self.newline();
                    breaks += 1;
                }
                b'\t' if is_plain && breaks > 0 && (self.column() as isize) < self.indent() + 1 => {
                    return Err(self.bad("a tab where only spaces are read"));
                }
                b' ' | b'\t' => self.at += 1,
                _ => break,
            }
        }
        match breaks {
            0 => out.push_str(self.since(at)),
            1 if escaped => {}
            1 => out.push(' '),
            _ => out.extend(repeat_n('\n', breaks - 1)),
        }
        Ok((out, breaks > 0))
    }

    /// Source: YAML 1.2.2, sections 7.3.1 and 7.3.2.
    pub fn quoted(&mut self, quote: u8) -> Result<()> {
        self.may_begin_key()?;
        let (line, mut out) = (self.line, String::new());
        self.at += 1;
        loop {
            let at = self.at;
            self.skip_while(&|b| b != quote && !matches!(b, b' ' | b'\t' | b'\n' | b'\\'));
            out.push_str(self.since(at));
            match self.peek(0) {
                b'\\' if quote == b'\'' => {
                    out.push('\\');
                    self.at += 1;
                }
                b'\\' if self.peek(1) == b'\n' => {
                    self.at += 1;
                    self.newline();
                    out.push_str(&self.fold(Style::Escaped)?.0);
                }
                b'\\' => out.push(self.escape()?),
                b'\'' if self.peek(1) == quote && quote == b'\'' => {
                    out.push('\'');
                    self.at += 2;
                }
                b if b == quote => break,
                0 => return Err(bad(line, "a quote is open at the end")),
                _ => out.push_str(&self.fold(Style::Quoted)?.0),
            }
            if self.is_mark() {
                return Err(bad(line, "a quote is open at the end of the document"));
            }
        }
        self.at += 1;
        self.push(Is::Quoted, line, &out);
        Ok(())
    }

    /// Source: YAML 1.1, section 5.6, except `\/`, which kubectl has.
    fn escape(&mut self) -> Result<char> {
        let letter = self.peek(1);
        self.at += 2;
        let digits = match letter {
            b'0' => return Ok('\0'),
            b'a' => return Ok('\x07'),
            b'b' => return Ok('\x08'),
            b't' | b'\t' => return Ok('\t'),
            b'n' => return Ok('\n'),
            b'v' => return Ok('\x0b'),
            b'f' => return Ok('\x0c'),
            b'r' => return Ok('\r'),
            b'e' => return Ok('\x1b'),
            b' ' | b'"' | b'\'' | b'\\' => return Ok(char::from(letter)),
            b'N' => return Ok('\u{85}'),
            b'_' => return Ok('\u{a0}'),
            b'L' => return Ok('\u{2028}'),
            b'P' => return Ok('\u{2029}'),
            b'x' => 2,
            b'u' => 4,
            b'U' => 8,
            _ => return Err(self.bad("this escape (a backslash in double quotes) is not read")),
        };
        let text = self.text.get(self.at..self.at + digits);
        let text = text.filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let found = text.and_then(|text| char::from_u32(u32::from_str_radix(text, 16).ok()?));
        self.at += digits;
        found.ok_or_else(|| self.bad("this escape (a backslash in double quotes) is not a character"))
    }

    /// Source: YAML 1.2.2, section 7.3.3.
    pub fn plain(&mut self) -> Result<()> {
        self.may_begin_key()?;
        let (line, indent, mut out, mut gap) = (self.line, self.indent() + 1, String::new(), (String::new(), false));
        while !self.is_mark() && self.peek(0) != b'#' {
            let at = self.at;
            while !(self.is_gap(0) || self.peek(0) == b':' && self.is_gap(1)) {
                if self.is_flow() && b",?[]{}".contains(&self.peek(0)) {
                    break;
                }
                self.at += 1;
            }
            if self.at > at {
                out.push_str(&take(&mut gap.0));
                gap.1 = false;
                out.push_str(self.since(at));
            }
            if !self.is_gap(0) || self.peek(0) == 0 {
                break;
            }
            gap = self.fold(Style::Plain)?;
            if !self.is_flow() && (self.column() as isize) < indent {
                break;
            }
        }
        if out.is_empty() {
            return Err(self.bad("a text cannot begin like this without quotes"));
        }
        self.push(Is::Plain, line, &out);
        // A key may follow a line break.
        self.may_be_key = gap.1;
        Ok(())
    }
}
