//! Splits YAML into tokens as kubectl's libyaml does. Pure.
//!
//! A mapping key is recognized only at the colon after it: its `Key` token is then inserted in front of it.
//! Must never: skip input that it does not know.

use crate::base::error::{Error, Kind, Result};

/// Most tokens: a kubeconfig has some 30 for each cluster, and an administrator's may have 12 clusters.
const MAX_TOKENS: usize = 65_536;
/// Deepest nesting of collections.
pub(super) const MAX_DEPTH: usize = 64;
/// Longest key, in bytes. Source: YAML 1.2.2, section 8.2.2: implicit keys.
const MAX_KEY: usize = 1024;

/// Kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    /// A text that may mean null.
    Plain,
    /// A text, whatever its content.
    Quoted,
    Alias,
    Anchor,
    Tag,
    BlockList,
    BlockMap,
    BlockEnd,
    FlowList,
    FlowMap,
    FlowListEnd,
    FlowMapEnd,
    /// `-`
    Entry,
    /// `,`
    Comma,
    /// Precedes a key.
    Key,
    /// `:`
    Colon,
    /// The end of the document; its text is empty at the end of the input.
    End,
}

#[derive(Debug)]
pub(super) struct Token {
    pub is: Is,
    pub line: usize,
    pub text: String,
}

/// Makes an error that names the line. Input: `line` counts from 1.
#[cold]
#[inline(never)]
pub(super) fn bad(line: usize, why: &str) -> Error {
    Error::new(Kind::Config, format!("line {line}: {why}"))
}

/// Turns every line break into a line feed. Errors: characters that YAML forbids, or that are line breaks in some of its
/// versions only.
pub(super) fn clean(bytes: &[u8]) -> Result<String> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        let why = "it is UTF-16; `iconv -f UTF-16 -t UTF-8` makes it UTF-8";
        return Err(Error::new(Kind::Config, why));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Error::new(Kind::Config, "it is not UTF-8"))?;
    let (mut out, mut line) = (String::with_capacity(text.len() + 1), 1);
    let mut chars = text.strip_prefix('\u{feff}').unwrap_or(text).chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' if chars.as_str().starts_with('\n') => continue,
            '\r' | '\n' => {
                out.push('\n');
                line += 1;
            }
            '\u{2028}' | '\u{2029}' | '\u{feff}' => return Err(odd(line, c)),
            c if c.is_control() && c != '\t' => return Err(odd(line, c)),
            c => out.push(c),
        }
    }
    Ok(out)
}

fn odd(line: usize, c: char) -> Error {
    bad(line, &format!("the character U+{:04X} is not read", u32::from(c)))
}

/// A possible key.
struct Pending {
    token: usize,
    at: usize,
    line: usize,
    column: usize,
    /// Nothing but a key may stand there.
    is_needed: bool,
}

pub(super) struct Scanner<'a> {
    pub text: &'a str,
    pub at: usize,
    pub line: usize,
    /// Offset of the line's first byte.
    line_at: usize,
    /// Columns of the open block collections; the first is the document's.
    indents: Vec<isize>,
    /// One for each open flow collection, and one more.
    pending: Vec<Option<Pending>>,
    pub may_be_key: bool,
    tokens: Vec<Token>,
}

impl<'a> Scanner<'a> {
    /// Splits the first document into tokens, the last of which is [`Is::End`]. Input: from [`clean`].
    pub fn scan(text: &'a str) -> Result<Vec<Token>> {
        let (indents, pending, tokens) = (vec![-1], vec![None], Vec::new());
        let mut scanner = Scanner { text, at: 0, line: 1, line_at: 0, indents, pending, may_be_key: true, tokens };
        scanner.begin()?;
        while scanner.tokens.last().is_none_or(|token| token.is != Is::End) {
            if scanner.tokens.len() > MAX_TOKENS || scanner.indents.len().max(scanner.pending.len()) > MAX_DEPTH {
                return Err(scanner.bad("nested too deeply, or too long"));
            }
            scanner.next()?;
        }
        Ok(scanner.tokens)
    }

    #[cold]
    #[inline(never)]
    pub fn bad(&self, why: &str) -> Error {
        bad(self.line, why)
    }

    /// Returns a byte ahead; 0 at the end.
    #[inline(never)]
    pub fn peek(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Returns whether a space, a tab, a line break or the end is ahead.
    #[inline(never)]
    pub fn is_gap(&self, ahead: usize) -> bool {
        matches!(self.peek(ahead), b' ' | b'\t' | b'\n' | 0)
    }

    /// Returns the text from `at` to the current position.
    #[inline(never)]
    pub fn since(&self, at: usize) -> &'a str {
        self.text.get(at..self.at).unwrap_or_default()
    }

    pub fn column(&self) -> usize {
        self.at - self.line_at
    }

    pub fn indent(&self) -> isize {
        self.indents.last().copied().unwrap_or(-1)
    }

    pub fn is_flow(&self) -> bool {
        self.pending.len() > 1
    }

    pub fn newline(&mut self) {
        self.at += 1;
        self.line += 1;
        self.line_at = self.at;
    }

    pub fn skip_while(&mut self, wanted: &dyn Fn(u8) -> bool) {
        while self.peek(0) != 0 && wanted(self.peek(0)) {
            self.at += 1;
        }
    }

    pub fn push(&mut self, is: Is, line: usize, text: &str) {
        self.tokens.push(Token { is, line, text: text.to_owned() });
    }

    /// Takes a one-character token.
    fn take(&mut self, is: Is) {
        self.push(is, self.line, "");
        self.at += 1;
    }

    fn skip_blanks(&mut self) {
        loop {
            let tabs = self.is_flow() || !self.may_be_key;
            self.skip_while(&|b| b == b' ' || (tabs && b == b'\t'));
            if self.peek(0) == b'#' {
                self.skip_while(&|b| b != b'\n');
            }
            if self.peek(0) != b'\n' {
                return;
            }
            self.newline();
            self.may_be_key |= !self.is_flow();
        }
    }

    /// Returns whether `---` or `...` stands alone here, which closes every open collection.
    pub fn is_mark(&self) -> bool {
        let rest = &self.text[self.at..];
        self.column() == 0 && (rest.starts_with("---") || rest.starts_with("...")) && self.is_gap(3)
    }

    /// Reads what precedes the document.
    fn begin(&mut self) -> Result<()> {
        loop {
            self.skip_blanks();
            let rest = &self.text[self.at..];
            let is_directive = self.peek(0) == b'%' && self.column() == 0;
            if is_directive {
                let line = rest.split(['\n', '#']).next().unwrap_or(rest).trim_ascii_end();
                if line != "%YAML 1.1" {
                    return Err(self.bad("this directive is not read, only %YAML 1.1"));
                }
                self.skip_while(&|b| b != b'\n');
            } else if self.is_mark() && rest.starts_with('-') {
                self.at += 3;
                self.may_be_key = false;
                return Ok(());
            } else {
                return Ok(());
            }
        }
    }

    fn next(&mut self) -> Result<()> {
        self.skip_blanks();
        self.close_blocks(self.column() as isize);
        let first = self.peek(0);
        match first {
            0 => self.end(),
            _ if self.is_mark() => self.end(),
            b'%' if self.column() == 0 => Err(self.bad("a directive after the beginning")),
            b'[' | b'{' => self.open_flow(if first == b'[' { Is::FlowList } else { Is::FlowMap }),
            b']' | b'}' => self.close_flow(if first == b']' { Is::FlowListEnd } else { Is::FlowMapEnd }),
            b',' => {
                self.forget_key()?;
                self.may_be_key = true;
                self.take(Is::Comma);
                Ok(())
            }
            b'-' if self.is_gap(1) => self.entry(Is::BlockList, Is::Entry),
            b'?' if self.is_flow() || self.is_gap(1) => {
                self.entry(Is::BlockMap, Is::Key)?;
                self.may_be_key = !self.is_flow();
                Ok(())
            }
            b':' if self.is_flow() || self.is_gap(1) => self.colon(),
            b'*' | b'&' => self.anchor(if first == b'*' { Is::Alias } else { Is::Anchor }),
            b'!' => {
                self.may_begin_key()?;
                self.word(Is::Tag, &|b| !matches!(b, b' ' | b'\t' | b'\n'));
                Ok(())
            }
            b'|' | b'>' if !self.is_flow() => self.block_text(first == b'|'),
            b'\'' | b'"' => self.quoted(first),
            b'\t' => Err(self.bad("a tab where only spaces are read")),
            b'%' | b'@' | b'`' | b'|' | b'>' => Err(self.bad("a text cannot begin like this without quotes")),
            _ => self.plain(),
        }
    }

    fn open_flow(&mut self, is: Is) -> Result<()> {
        self.may_begin_key()?;
        self.pending.push(None);
        self.may_be_key = true;
        self.take(is);
        Ok(())
    }

    fn close_flow(&mut self, is: Is) -> Result<()> {
        self.forget_key()?;
        if !self.is_flow() {
            return Err(self.bad("a bracket closes what is not open"));
        }
        self.pending.pop();
        self.may_be_key = false;
        self.take(is);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.is_flow() {
            return Err(self.bad("a bracket is open at the end"));
        }
        self.close_blocks(-1);
        self.forget_key()?;
        self.push(Is::End, self.line, if self.peek(0) == 0 { "" } else { "more" });
        Ok(())
    }

    fn close_blocks(&mut self, column: isize) {
        while !self.is_flow() && self.indent() > column {
            self.indents.pop();
            self.push(Is::BlockEnd, self.line, "");
        }
    }

    /// Opens a block collection at this column unless one is open. Input: `token`: where it is inserted.
    fn open_block(&mut self, column: usize, is: Is, token: usize) {
        if !self.is_flow() && self.indent() < column as isize {
            self.indents.push(column as isize);
            self.tokens.insert(token, Token { is, line: self.line, text: String::new() });
        }
    }

    pub fn may_begin_key(&mut self) -> Result<()> {
        if self.may_be_key {
            self.forget_key()?;
            let (at, line, column) = (self.at, self.line, self.column());
            let is_needed = !self.is_flow() && self.indent() == column as isize;
            if let Some(last) = self.pending.last_mut() {
                *last = Some(Pending { token: self.tokens.len(), at, line, column, is_needed });
            }
        }
        self.may_be_key = false;
        Ok(())
    }

    pub fn forget_key(&mut self) -> Result<()> {
        match self.pending.last_mut().and_then(Option::take) {
            Some(key) if key.is_needed => Err(bad(key.line, "a key without a colon and a space after it")),
            _ => Ok(()),
        }
    }

    fn entry(&mut self, block: Is, is: Is) -> Result<()> {
        if !self.is_flow() {
            if !self.may_be_key {
                return Err(self.bad("a list or a mapping cannot begin here"));
            }
            self.open_block(self.column(), block, self.tokens.len());
        }
        self.forget_key()?;
        self.may_be_key = true;
        self.take(is);
        Ok(())
    }

    fn colon(&mut self) -> Result<()> {
        let key = self.pending.last_mut().and_then(Option::take);
        match key {
            Some(key) if key.line == self.line && key.at + MAX_KEY >= self.at => {
                self.tokens.insert(key.token, Token { is: Is::Key, line: key.line, text: String::new() });
                self.open_block(key.column, Is::BlockMap, key.token);
                self.may_be_key = false;
            }
            Some(key) if key.is_needed => return Err(bad(key.line, "a key without a colon on the same line")),
            _ => {
                if !self.is_flow() {
                    if !self.may_be_key {
                        return Err(self.bad("a colon and a space where no key is: does the text want quotes?"));
                    }
                    self.open_block(self.column(), Is::BlockMap, self.tokens.len());
                }
                self.may_be_key = !self.is_flow();
            }
        }
        self.take(Is::Colon);
        Ok(())
    }

    fn word(&mut self, is: Is, belongs: &dyn Fn(u8) -> bool) {
        let at = self.at;
        self.at += 1;
        self.skip_while(belongs);
        self.push(is, self.line, self.since(at));
    }

    fn anchor(&mut self, is: Is) -> Result<()> {
        self.may_begin_key()?;
        let at = self.at;
        self.word(is, &|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        match self.at - at > 1 && (self.is_gap(0) || b"?:,]}%@`".contains(&self.peek(0))) {
            true => Ok(()),
            false => Err(self.bad("the name of an anchor has letters, digits, - and _")),
        }
    }
}
