//! The YAML that kubectl reads: its first document, as a tree. Pure.
//!
//! kubectl follows libyaml's rules of YAML 1.1, with JSON as a subset; this parser does too, or refuses, naming the line. The
//! table: `tests/fixtures/kubeconfigs.tsv`. An alias refers to the node that it names and is not a copy, so none is expensive.
//! Must never: guess the meaning of a value that it does not understand; recurse deeper than [`scan::MAX_DEPTH`].

mod scan;
mod text;

use crate::base::base64;
use crate::base::error::Result;
use scan::{Is, MAX_DEPTH, Scanner, Token, bad};
use std::cell::Cell;

/// Most anchors: each alias searches them all.
const MAX_ANCHORS: usize = 256;
/// Most keys examined in all lookups, since merge keys may refer to further merge keys.
const MAX_LOOKS: usize = 1 << 20;

/// A node, and the line on which it begins.
#[derive(Debug)]
pub struct Node {
    pub line: usize,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Null,
    Text(String),
    /// An unsupported scalar, and why.
    Odd(String),
    List(Vec<usize>),
    Map(Vec<(usize, usize)>),
}

/// A document.
#[derive(Debug)]
pub struct Document {
    nodes: Vec<Node>,
    root: usize,
    looks: Cell<usize>,
}

impl Document {
    /// Errors: Config: not UTF-8, malformed, too large, or in an unsupported form; the line is named.
    pub fn parse(bytes: &[u8]) -> Result<Document> {
        let text = scan::clean(bytes)?;
        let tokens = Scanner::scan(&text)?;
        let mut parser = Parser { tokens: &tokens, at: 0, nodes: Vec::new(), anchors: Vec::new() };
        let root = parser.node(0, false)?;
        let token = parser.peek();
        if token.is != Is::End {
            return Err(bad(token.line, "the document ends before this"));
        }
        if !token.text.is_empty() && matches!(parser.nodes[root].value, Value::Null) {
            return Err(bad(token.line, "the first document is empty, and no other is read"));
        }
        Ok(Document { nodes: parser.nodes, root, looks: Cell::new(0) })
    }

    pub fn root(&self) -> &Node {
        &self.nodes[self.root]
    }

    /// Finds a key's value. Returns: `None`: it is missing, or null.
    /// Errors: Config: `map` is neither a mapping nor null.
    pub fn get(&self, map: &Node, key: &str) -> Result<Option<&Node>> {
        let found = self.look(map, key, 0)?;
        Ok(found.filter(|node| !matches!(node.value, Value::Null)))
    }

    /// The last key wins, as in kubectl; merged keys count at the position of their `<<`, and there the first of several wins.
    fn look(&self, map: &Node, key: &str, depth: usize) -> Result<Option<&Node>> {
        let entries = match &map.value {
            Value::Null => return Ok(None),
            Value::Map(entries) => entries,
            _ => return Err(bad(map.line, &format!("a mapping with {key} belongs here"))),
        };
        for (name, value) in entries.iter().rev() {
            self.looks.set(self.looks.get() + 1);
            if depth > MAX_DEPTH || self.looks.get() > MAX_LOOKS {
                return Err(bad(map.line, "merge keys (<<) lead to too many others"));
            }
            let (name, value) = (&self.nodes[*name], &self.nodes[*value]);
            match (&name.value, &value.value) {
                (Value::Text(text), _) if text == key => return Ok(Some(value)),
                (Value::Odd(text), Value::List(parts)) if text == MERGE => {
                    for part in parts {
                        if let Some(found) = self.look(&self.nodes[*part], key, depth + 1)? {
                            return Ok(Some(found));
                        }
                    }
                }
                (Value::Odd(text), _) if text == MERGE => {
                    if let Some(found) = self.look(value, key, depth + 1)? {
                        return Ok(Some(found));
                    }
                }
                (Value::Odd(why), _) => {
                    return Err(bad(name.line, &format!("a key is written with {why}, which is not read")));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Finds a key's text. Returns: `None` for an empty one, too.
    pub fn text(&self, map: &Node, key: &str) -> Result<Option<(&str, usize)>> {
        let Some(node) = self.get(map, key)? else { return Ok(None) };
        match &node.value {
            Value::Text(text) => Ok(Some((text.as_str(), node.line)).filter(|_| !text.is_empty())),
            Value::Odd(why) => Err(bad(node.line, &format!("{key} is written with {why}, which is not read"))),
            _ => Err(bad(node.line, &format!("{key} is a list or a mapping, not a text"))),
        }
    }

    /// Finds a key's list; a missing one is empty.
    pub fn list(&self, map: &Node, key: &str) -> Result<Vec<&Node>> {
        let Some(node) = self.get(map, key)? else { return Ok(Vec::new()) };
        match &node.value {
            Value::List(items) => Ok(items.iter().map(|item| &self.nodes[*item]).collect()),
            _ => Err(bad(node.line, &format!("{key} is not a list"))),
        }
    }
}

/// The key that merges.
const MERGE: &str = "<<";

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    nodes: Vec<Node>,
    /// Anchor names; `None` while the node is incomplete.
    anchors: Vec<(&'a str, Option<usize>)>,
}

impl<'a> Parser<'a> {
    /// The last token is never consumed.
    fn peek(&self) -> &'a Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn skip_if(&mut self, is: Is) -> bool {
        let found = self.peek().is == is;
        self.at += usize::from(found);
        found
    }

    fn add(&mut self, line: usize, value: Value) -> usize {
        self.nodes.push(Node { line, value });
        self.nodes.len() - 1
    }

    /// Reads a node; an empty one is null. Input: `is_value`: a list may be indented as little as its key.
    fn node(&mut self, depth: usize, is_value: bool) -> Result<usize> {
        let Token { line, .. } = *self.peek();
        if depth > MAX_DEPTH {
            return Err(bad(line, "nested too deeply"));
        }
        let (mut tag, mut anchor) = (None, None);
        loop {
            let token = self.peek();
            match token.is {
                Is::Alias if tag.is_none() && anchor.is_none() => return self.alias(),
                Is::Tag if tag.is_none() => tag = Some(token.text.as_str()),
                Is::Anchor if anchor.is_none() => {
                    anchor = Some(self.anchors.len());
                    self.anchors.push((&token.text[1..], None));
                }
                _ => break,
            }
            self.at += 1;
        }
        if self.anchors.len() > MAX_ANCHORS {
            return Err(bad(line, "too many anchors"));
        }
        let value = self.value(tag, depth, is_value)?;
        let node = self.add(line, value);
        if let Some(anchor) = anchor {
            self.anchors[anchor].1 = Some(node);
        }
        Ok(node)
    }

    fn value(&mut self, tag: Option<&str>, depth: usize, is_value: bool) -> Result<Value> {
        let token = self.peek();
        match token.is {
            Is::Plain | Is::Quoted => {
                self.at += 1;
                Ok(scalar(token.is == Is::Plain, &token.text, tag))
            }
            Is::FlowMap => self.flow_map(depth),
            Is::FlowList => self.flow_list(depth),
            Is::BlockMap => self.block_map(depth),
            Is::BlockList => {
                self.at += 1;
                let list = self.entries(depth)?;
                self.close(Is::BlockEnd)?;
                Ok(list)
            }
            Is::Entry if is_value => self.entries(depth),
            _ => Ok(scalar(true, "", tag)),
        }
    }

    fn alias(&mut self) -> Result<usize> {
        let token = self.peek();
        self.at += 1;
        match self.anchors.iter().rev().find(|(name, _)| *name == &token.text[1..]) {
            Some((_, Some(node))) => Ok(*node),
            Some(_) => Err(bad(token.line, "an alias (*) of what it stands in")),
            None => Err(bad(token.line, "an alias (*) without an anchor (&) before it")),
        }
    }

    fn close(&mut self, is: Is) -> Result<()> {
        match self.skip_if(is) {
            true => Ok(()),
            false => {
                Err(bad(self.peek().line, "this belongs to no list or mapping: is it indented as what is around it?"))
            }
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Value> {
        let mut items = Vec::new();
        while self.skip_if(Is::Entry) {
            items.push(self.node(depth + 1, false)?);
        }
        Ok(Value::List(items))
    }

    /// Input: `is_value`: see [`Parser::node`].
    fn pair(&mut self, depth: usize, is_value: bool) -> Result<(usize, usize)> {
        let key = self.node(depth + 1, is_value)?;
        let value = match self.skip_if(Is::Colon) {
            true => self.node(depth + 1, is_value)?,
            false => self.add(self.peek().line, Value::Null),
        };
        Ok((key, value))
    }

    fn block_map(&mut self, depth: usize) -> Result<Value> {
        self.at += 1;
        let mut pairs = Vec::new();
        while self.skip_if(Is::Key) {
            pairs.push(self.pair(depth, true)?);
        }
        self.close(Is::BlockEnd)?;
        Ok(Value::Map(pairs))
    }

    fn flow_map(&mut self, depth: usize) -> Result<Value> {
        self.at += 1;
        let mut pairs = Vec::new();
        while self.peek().is != Is::FlowMapEnd {
            if !pairs.is_empty() {
                self.comma()?;
            }
            if self.peek().is != Is::FlowMapEnd {
                self.has_more()?;
                let pair = match self.skip_if(Is::Key) {
                    true => self.pair(depth, false)?,
                    false => (self.node(depth + 1, false)?, self.add(self.peek().line, Value::Null)),
                };
                pairs.push(pair);
            }
        }
        self.at += 1;
        Ok(Value::Map(pairs))
    }

    fn flow_list(&mut self, depth: usize) -> Result<Value> {
        self.at += 1;
        let mut items = Vec::new();
        while self.peek().is != Is::FlowListEnd {
            if !items.is_empty() {
                self.comma()?;
            }
            self.has_more()?;
            let line = self.peek().line;
            if self.skip_if(Is::Key) {
                let pair = self.pair(depth, false)?;
                items.push(self.add(line, Value::Map(vec![pair])));
            } else if self.peek().is != Is::FlowListEnd {
                items.push(self.node(depth + 1, false)?);
            }
        }
        self.at += 1;
        Ok(Value::List(items))
    }

    fn has_more(&self) -> Result<()> {
        match self.peek().is {
            Is::Comma | Is::Entry | Is::Colon => Err(bad(
                self.peek().line,
                "a comma or a colon with nothing before it on its line, or - between brackets",
            )),
            _ => Ok(()),
        }
    }

    fn comma(&mut self) -> Result<()> {
        match self.skip_if(Is::Comma) {
            true => Ok(()),
            false => {
                let why =
                    "a comma or the closing bracket is missing before this, or a key is not on the line of its colon";
                Err(bad(self.peek().line, why))
            }
        }
    }
}

/// Resolves a scalar. A number or boolean without quotes is a text here; kubectl refuses it where a text
/// is expected. Source: YAML 1.1, its types; kubectl treats a custom tag as a text.
fn scalar(is_plain: bool, text: &str, tag: Option<&str>) -> Value {
    let is_own = |tag: &str| !tag[1..].contains(['!', '<', '%']);
    match tag {
        None if is_plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        None if is_plain && text == MERGE => Value::Odd(text.to_owned()),
        Some("!" | "!!merge") if text == MERGE => Value::Odd(text.to_owned()),
        None | Some("!!str") => Value::Text(text.to_owned()),
        Some("!!binary") => match base64::decode(&text.replace(['\n', '\r'], "")).map(String::from_utf8) {
            Some(Ok(text)) => Value::Text(text),
            _ => Value::Odd("!!binary, but is not the base64 of a text".to_owned()),
        },
        Some(tag) if is_own(tag) => Value::Text(text.to_owned()),
        Some(tag) => Value::Odd(["the tag ", tag].concat()),
    }
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
