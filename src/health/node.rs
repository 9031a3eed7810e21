//! Streaming parser for the API server's list of nodes: keeps only names, the Ready condition and versions. Pure.
//!
//! A list can be megabytes long (images, labels, foreign conditions). Must never: use memory that grows with it.

use crate::base::error::{Error, Kind, Result};
use crate::base::text::printable;

/// Longest text that is kept, in bytes.
const MAX_TEXT: usize = 512;
/// Deepest nesting that is followed.
const MAX_DEPTH: usize = 64;
/// Most nodes that are read: there should be one, and those left behind by old names of the machine.
const MAX_NODES: usize = 64;

/// What is known of a node. Source: Kubernetes API, core/v1 Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `status` of the condition of type Ready: True, False, Unknown.
    pub ready: String,
    /// Its `reason`.
    pub reason: String,
    /// Its `message`.
    pub message: String,
    /// `status.nodeInfo.kubeletVersion`.
    pub kubelet_version: String,
    /// `status.nodeInfo.bootID`: the boot in which the kubelet wrote all this.
    pub boot_id: String,
}

/// A value's position in the document; names that are not needed are all [`Step::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Other,
    Item,
    Items,
    Kind,
    Metadata,
    Name,
    Status,
    Conditions,
    Type,
    Reason,
    Message,
    NodeInfo,
    KubeletVersion,
    BootId,
}

const STEPS: [(&[u8], Step); 12] = [
    (b"items", Step::Items),
    (b"kind", Step::Kind),
    (b"metadata", Step::Metadata),
    (b"name", Step::Name),
    (b"status", Step::Status),
    (b"conditions", Step::Conditions),
    (b"type", Step::Type),
    (b"reason", Step::Reason),
    (b"message", Step::Message),
    (b"nodeInfo", Step::NodeInfo),
    (b"kubeletVersion", Step::KubeletVersion),
    (b"bootID", Step::BootId),
];

/// What may come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expect {
    #[default]
    Value,
    /// A value, or the end of an empty list.
    FirstValue,
    Key,
    /// A key, or the end of an empty object.
    FirstKey,
    Colon,
    /// A comma, or the end of the open list or object.
    More,
    End,
}

/// The token that is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum In {
    #[default]
    Nothing,
    Text,
    Escape,
    /// This many digits of `\u` are still to come.
    Unicode(u8),
    /// A number, true, false, null.
    Word,
}

#[derive(Default)]
struct Condition {
    name: String,
    status: String,
    reason: String,
    message: String,
}

/// Streaming reader of a list of nodes.
#[derive(Default)]
pub struct NodeList {
    nodes: Vec<Node>,
    /// The condition that is being read.
    condition: Condition,
    is_list: bool,
    /// Open lists and objects: an object as its current member, a list as [`Step::Item`].
    path: Vec<Step>,
    expect: Expect,
    within: In,
    text: Vec<u8>,
    code: u32,
}

fn not_json() -> Error {
    Error::new(Kind::Source, "the list of nodes is not JSON")
}

impl NodeList {
    /// Takes the next bytes. Errors: Source: malformed JSON, nested too deeply, or too many nodes.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        bytes.iter().try_for_each(|byte| self.step(*byte))
    }

    /// Returns the nodes. Errors: Source: the document is incomplete, or not a list of nodes.
    pub fn finish(self) -> Result<Vec<Node>> {
        match (self.expect, self.is_list) {
            (Expect::End, true) => Ok(self.nodes),
            (Expect::End, false) => Err(Error::new(Kind::Source, "the answer is not a list of nodes")),
            _ => Err(not_json()),
        }
    }

    fn step(&mut self, byte: u8) -> Result<()> {
        match self.within {
            In::Nothing => self.between(byte),
            In::Word if byte.is_ascii_alphanumeric() || b"+-.".contains(&byte) => Ok(()),
            In::Word => {
                self.within = In::Nothing;
                self.between(byte)
            }
            In::Text => self.in_text(byte),
            In::Escape => {
                self.within = In::Text;
                match byte {
                    b'u' => (self.code, self.within) = (0, In::Unicode(4)),
                    b'"' | b'\\' | b'/' => self.keep(&[byte]),
                    b'b' | b'f' | b'n' | b'r' | b't' => self.keep(b" "),
                    _ => return Err(not_json()),
                }
                Ok(())
            }
            In::Unicode(left) => {
                let digit = char::from(byte).to_digit(16).ok_or_else(not_json)?;
                self.code = self.code << 4 | digit;
                self.within = if left == 1 { In::Text } else { In::Unicode(left - 1) };
                if left == 1 {
                    let c = char::from_u32(self.code).unwrap_or(char::REPLACEMENT_CHARACTER);
                    self.keep(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Ok(())
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.text.len() + bytes.len() <= MAX_TEXT {
            self.text.extend_from_slice(bytes);
        }
    }

    fn in_text(&mut self, byte: u8) -> Result<()> {
        match byte {
            b'\\' => self.within = In::Escape,
            b'"' => {
                self.within = In::Nothing;
                match self.expect {
                    Expect::Colon => self.name_step(),
                    _ => self.take_text(),
                }
            }
            0..0x20 => return Err(not_json()),
            _ => self.keep(&[byte]),
        }
        Ok(())
    }

    /// The text is a name: it becomes the step of the value that follows.
    fn name_step(&mut self) {
        let step = STEPS.iter().find(|(name, _)| *name == self.text).map_or(Step::Other, |(_, step)| *step);
        if let Some(member) = self.path.last_mut() {
            *member = step;
        }
    }

    fn between(&mut self, byte: u8) -> Result<()> {
        use Expect::{Colon, FirstKey, FirstValue, Key, More, Value};
        let is_list = self.path.last() == Some(&Step::Item);
        match (byte, self.expect) {
            (b' ' | b'\t' | b'\r' | b'\n', _) => {}
            (b'{', Value | FirstValue) => self.open(Step::Other, FirstKey)?,
            (b'[', Value | FirstValue) => self.open(Step::Item, FirstValue)?,
            (b'}', FirstKey | More) if !is_list => self.close(),
            (b']', FirstValue | More) if is_list => self.close(),
            (b',', More) => self.expect = if is_list { Value } else { Key },
            (b':', Colon) => self.expect = Value,
            (b'"', Key | FirstKey) => self.begin(In::Text, Colon),
            (b'"', Value | FirstValue) => self.begin(In::Text, More),
            (b'-' | b'0'..=b'9' | b't' | b'f' | b'n', Value | FirstValue) => self.begin(In::Word, More),
            _ => return Err(not_json()),
        }
        if self.path.is_empty() && self.expect == More {
            self.expect = Expect::End;
        }
        Ok(())
    }

    fn begin(&mut self, within: In, then: Expect) {
        self.text.clear();
        (self.within, self.expect) = (within, then);
    }

    fn open(&mut self, step: Step, then: Expect) -> Result<()> {
        if self.path.len() == MAX_DEPTH {
            return Err(Error::new(Kind::Source, "the list of nodes is nested too deeply"));
        }
        match self.path.as_slice() {
            // A node left out might be ours, and not ready.
            NODE if self.nodes.len() == MAX_NODES => {
                return Err(Error::new(Kind::Source, format!("there are more than {MAX_NODES} nodes")));
            }
            NODE => self.nodes.push(Node::default()),
            CONDITION => self.condition = Condition::default(),
            _ => {}
        }
        self.path.push(step);
        self.expect = then;
        Ok(())
    }

    fn close(&mut self) {
        self.path.pop();
        self.expect = Expect::More;
        if self.path == CONDITION
            && self.condition.name == "Ready"
            && let Some(node) = self.nodes.last_mut()
        {
            let ready = std::mem::take(&mut self.condition);
            (node.ready, node.reason, node.message) = (ready.status, ready.reason, ready.message);
        }
    }

    /// The text is a value: kept if it is needed.
    fn take_text(&mut self) {
        let text = || printable(&String::from_utf8_lossy(&self.text));
        match self.path.as_slice() {
            [Step::Kind] => self.is_list = self.text == b"NodeList",
            [Step::Items, Step::Item, rest @ ..] => {
                let Some(node) = self.nodes.last_mut() else { return };
                match rest {
                    [Step::Metadata, Step::Name] => node.name = text(),
                    [Step::Status, Step::NodeInfo, Step::KubeletVersion] => node.kubelet_version = text(),
                    [Step::Status, Step::NodeInfo, Step::BootId] => node.boot_id = text(),
                    [Step::Status, Step::Conditions, Step::Item, member] => match member {
                        Step::Type => self.condition.name = text(),
                        Step::Status => self.condition.status = text(),
                        Step::Reason => self.condition.reason = text(),
                        Step::Message => self.condition.message = text(),
                        _ => {}
                    },
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

/// Positions of the objects of nodes and of conditions.
const NODE: &[Step] = &[Step::Items, Step::Item];
const CONDITION: &[Step] = &[Step::Items, Step::Item, Step::Status, Step::Conditions, Step::Item];

/// Judges this machine's node: the one whose kubelet recorded this boot's id, whatever its name. Other nodes in the list are
/// ignored: an old name's, a virtual one, another machine's in the same datastore. Names decide only where no node has the id.
/// Input: `host`: this machine's name, `boot_id`: this boot's; both if known.
/// Returns: its name and version. Errors: Unhealthy: why it is not ready, or why the node cannot be identified.
pub fn judge(nodes: &[Node], host: &str, boot_id: Option<&str>) -> Result<String> {
    let bad = |why: String| Err(Error::new(Kind::Unhealthy, why));
    let of_this_boot = |node: &&Node| boot_id.is_some_and(|id| id.eq_ignore_ascii_case(&node.boot_id));
    let ours: Vec<&Node> = nodes.iter().filter(of_this_boot).collect();
    match ours.as_slice() {
        [] => {}
        [node] => return is_ready(node),
        // The machine was renamed within this boot: the list does not tell which of the nodes the kubelet still updates.
        several => {
            let names: Vec<&str> = several.iter().map(|node| node.name.as_str()).collect();
            return bad(format!(
                "{} nodes are of this boot: {} (`kubectl delete node` takes away the one with the old name)",
                names.len(),
                names.join(", ")
            ));
        }
    }
    // A renamed machine leaves behind a node that is never ready again.
    let named: Vec<&Node> = nodes.iter().filter(|node| node.name.eq_ignore_ascii_case(host)).collect();
    let is_named = !named.is_empty();
    let candidates = if is_named { named } else { nodes.iter().collect() };
    let Some(first) = candidates.first() else { return bad("no node has registered".into()) };
    for node in &candidates {
        is_ready(node)?;
        // The API server still holds what the kubelet reported before the restart.
        if boot_id.is_some() && !node.boot_id.is_empty() {
            return bad(format!(
                "node {} was ready in another boot; its kubelet has not reported in this one",
                node.name
            ));
        }
    }
    // A ready node may still not be this machine: a virtual node is ready before the kubelet has registered.
    if !is_named && boot_id.is_some() && !host.is_empty() {
        return bad(format!("no node is of this boot, and none is named {host}"));
    }
    is_ready(first)
}

/// Errors: Unhealthy: it is not.
fn is_ready(node: &Node) -> Result<String> {
    if node.ready == "True" {
        return Ok(format!("{} is ready, {}", node.name, node.kubelet_version));
    }
    let status = if node.ready.is_empty() { "not known yet" } else { &node.ready };
    let mut why = format!("node {} is not ready: Ready is {status}", node.name);
    for more in [&node.reason, &node.message] {
        if !more.is_empty() {
            why.push_str(", ");
            why.push_str(more);
        }
    }
    Err(Error::new(Kind::Unhealthy, why))
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
