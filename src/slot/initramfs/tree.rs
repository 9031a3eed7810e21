//! The root file system after the kernel has unpacked an initramfs: every archive of it, in order.
//!
//! Source: Linux init/initramfs.c: an entry replaces one of another kind, a directory replaces a link to one.
//! For publishers: memory grows with the unpacked size. Must never: be used on a machine.

use super::cpio::{DIR, Entry, FILE, KIND, LINK, Seen};
use std::fmt::Write;

/// Most links that a path may pass (Linux, MAXSYMLINKS).
const LINKS_MAX: u32 = 40;
/// Node number of `/`.
const ROOT: usize = 0;
/// Most bytes kept of a file: one more than machines read of any file below /etc/kubesolo.
const KEPT_MAX: usize = (256 << 10) + 1;

struct Node {
    mode: u16,
    uid: u32,
    target: Vec<u8>,
    parent: usize,
    children: Numbers,
}

/// Node numbers by name, sorted. A `BTreeMap` takes 5 KB more and is only better for hundreds of thousands of unsorted names in
/// one directory, which no initramfs has.
#[derive(Default)]
struct Numbers(Vec<(Vec<u8>, usize)>);

impl Numbers {
    /// Returns the position of a name, or where it would be inserted.
    fn place(&self, name: &[u8]) -> Result<usize, usize> {
        self.0.binary_search_by(|(there, _)| there.as_slice().cmp(name))
    }

    fn get(&self, name: &[u8]) -> Option<usize> {
        self.place(name).ok().map(|at| self.0[at].1)
    }

    fn insert(&mut self, name: Vec<u8>, number: usize) {
        match self.place(&name) {
            Ok(at) => self.0[at].1 = number,
            Err(at) => self.0.insert(at, (name, number)),
        }
    }

    fn remove(&mut self, name: &[u8]) {
        if let Ok(at) = self.place(name) {
            self.0.remove(at);
        }
    }
}

/// Target of a path: a name in a directory (empty: the directory itself), and the node there.
struct Place {
    dir: usize,
    name: Vec<u8>,
    node: Option<usize>,
}

/// A file, directory or other node at a path.
pub struct Lying {
    /// Path by which it was found.
    pub path: Vec<u8>,
    /// Its number in the tree: the same in every tree of the same initramfs.
    pub node: usize,
    /// Kind and permissions, as `st_mode` has them.
    pub mode: u16,
    /// Its owner.
    pub uid: u32,
}

impl Lying {
    /// Returns whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & KIND == DIR
    }

    /// Returns whether it is a file.
    pub fn is_file(&self) -> bool {
        self.mode & KIND == FILE
    }
}

/// The unpacked file system.
pub struct Tree {
    nodes: Vec<Node>,
    /// Files to keep, with the content so far: a few.
    kept: Vec<(usize, Vec<u8>)>,
    open: Option<usize>,
    /// Positions in `first_names`, by the key of a hard link.
    hard_links: Numbers,
    first_names: Vec<Vec<u8>>,
    /// Entries that the kernel silently omits, each with the reason.
    pub left_out: Vec<String>,
}

impl Default for Tree {
    /// What every kernel provides: `/dev`, `/dev/console`, `/root` (Linux, usr/default_cpio_list).
    fn default() -> Tree {
        let root = Node { mode: DIR | 0o755, uid: 0, target: Vec::new(), parent: ROOT, children: Numbers::default() };
        let mut tree = Tree {
            nodes: vec![root],
            kept: Vec::new(),
            open: None,
            hard_links: Numbers::default(),
            first_names: Vec::new(),
            left_out: Vec::new(),
        };
        for (name, mode) in [("dev", DIR | 0o755), ("dev/console", 0o020_600), ("root", DIR | 0o700)] {
            tree.make(name.as_bytes(), mode, &[]);
        }
        tree
    }
}

impl Tree {
    /// Begins an empty tree that keeps the content of these files, up to a limit. Input: their numbers in a tree of the same
    /// initramfs.
    pub fn keeping(nodes: impl Iterator<Item = usize>) -> Tree {
        Tree { kept: nodes.map(|node| (node, Vec::new())).collect(), ..Tree::default() }
    }

    /// Applies the next entry as the kernel does.
    pub fn see(&mut self, seen: &Seen<'_>) {
        match seen {
            Seen::Trailer => self.hard_links = Numbers::default(),
            Seen::Content(bytes) => {
                if let Some(kept) = self.open.and_then(|node| self.kept_of(node)) {
                    kept.extend_from_slice(&bytes[..bytes.len().min(KEPT_MAX - kept.len())]);
                }
            }
            Seen::Entry(entry) => {
                self.open = None;
                if let Err(why) = self.entry(entry) {
                    self.left_out.push(format!("{}: {why}", shown(entry.name)));
                }
            }
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), &'static str> {
        let kind = entry.mode & KIND;
        // A link replaces anything, even a link.
        self.clear(entry.name, if kind == LINK { None } else { Some(kind) });
        let linked = kind != LINK && kind != DIR && entry.links >= 2 && self.hard_link(entry)?;
        if linked && kind != FILE {
            return Ok(());
        }
        let place = self.find(entry.name, kind == FILE).ok_or("its directory is missing")?;
        match place.node.map(|node| (node, self.nodes[node].mode & KIND)) {
            Some((node, there)) if there == kind && kind != LINK => {
                self.written(node, entry, !linked);
                Ok(())
            }
            Some((_, DIR)) => Err("a directory that is not empty is in its place"),
            Some(_) => Err("something else is in its place"),
            // `mkdir` does not follow a dangling link.
            None if kind == DIR && self.is_there(entry.name) => Err("something else is in its place"),
            None => {
                let node = self.add(place.dir, place.name, entry.mode, entry.target);
                self.written(node, entry, true);
                Ok(())
            }
        }
    }

    /// An entry without content empties a file, unless it is a hard link.
    fn written(&mut self, node: usize, entry: &Entry<'_>, empties: bool) {
        (self.nodes[node].mode, self.nodes[node].uid) = (entry.mode, entry.uid);
        if entry.mode & KIND == FILE {
            self.open = Some(node);
            if let Some(kept) = self.kept_of(node).filter(|_| empties || entry.size > 0) {
                kept.clear();
            }
        }
    }

    fn kept_of(&mut self, node: usize) -> Option<&mut Vec<u8>> {
        self.kept.iter_mut().find(|(kept, _)| *kept == node).map(|(_, bytes)| bytes)
    }

    /// Returns the node at a path, through links; `None`: nothing.
    pub fn at(&self, path: &[u8]) -> Option<Lying> {
        let node = self.find(path, true)?.node?;
        Some(self.lying(path.to_vec(), node))
    }

    /// Returns the entries of a directory by name; links are not followed. Anything else has none.
    pub fn entries(&self, dir: &Lying) -> Vec<Lying> {
        let children = self.nodes[dir.node].children.0.iter();
        children.map(|(name, node)| self.lying([&dir.path, &b"/"[..], name].concat(), *node)).collect()
    }

    /// Returns the kept content of a file.
    pub fn content(&self, of: &Lying) -> &[u8] {
        self.kept.iter().find(|(kept, _)| *kept == of.node).map_or(&[], |(_, bytes)| bytes)
    }

    fn lying(&self, path: Vec<u8>, node: usize) -> Lying {
        Lying { path, node, mode: self.nodes[node].mode, uid: self.nodes[node].uid }
    }

    /// Returns: whether it is another name of an existing file. Errors: that file cannot be linked to.
    fn hard_link(&mut self, entry: &Entry<'_>) -> Result<bool, &'static str> {
        let [major, minor, inode] = entry.id.map(u32::to_le_bytes);
        let key = [&major[..], &minor, &inode, &(entry.mode & KIND).to_le_bytes()].concat();
        let Some(old) = self.hard_links.get(&key).map(|at| self.first_names[at].clone()) else {
            self.hard_links.insert(key, self.first_names.len());
            self.first_names.push(entry.name.to_vec());
            return Ok(false);
        };
        self.clear(entry.name, None);
        let old = self.find(&old, false).and_then(|place| place.node);
        let old = old.filter(|node| self.nodes[*node].mode & KIND != DIR).ok_or("what it is a hard link to is gone")?;
        let place = self.find(entry.name, false).ok_or("its directory is missing")?;
        if place.node.is_some() {
            return Err("something else is in its place");
        }
        self.nodes[place.dir].children.insert(place.name, old);
        Ok(true)
    }

    /// Removes a node of another kind; `None`: any node. A directory is removed only if empty.
    fn clear(&mut self, path: &[u8], kind: Option<u16>) {
        let Some(Place { dir, name, node: Some(node) }) = self.find(path, false) else { return };
        let there = &self.nodes[node];
        if !name.is_empty() && kind != Some(there.mode & KIND) && there.children.0.is_empty() {
            self.nodes[dir].children.remove(&name);
        }
    }

    fn is_there(&self, path: &[u8]) -> bool {
        let end = path.iter().rposition(|b| *b != b'/').map_or(0, |at| at + 1);
        self.find(&path[..end], false).is_some_and(|place| place.node.is_some())
    }

    fn make(&mut self, path: &[u8], mode: u16, target: &[u8]) {
        if let Some(place) = self.find(path, false) {
            self.add(place.dir, place.name, mode, target);
        }
    }

    fn add(&mut self, dir: usize, name: Vec<u8>, mode: u16, target: &[u8]) -> usize {
        self.nodes.push(Node { mode, uid: 0, target: target.to_vec(), parent: dir, children: Numbers::default() });
        let node = self.nodes.len() - 1;
        self.nodes[dir].children.insert(name, node);
        node
    }

    /// Follows a path from `/`, as the kernel does. A `/` at the end follows a link there too.
    /// Returns: `None` if a directory on the way is missing, or links form a loop.
    fn find(&self, path: &[u8], follow: bool) -> Option<Place> {
        let mut parts: Vec<Vec<u8>> = split(path);
        let (mut dir, mut links) = (ROOT, 0);
        // "usr/" and "usr/." name a link's target, and must be directories.
        let wants_dir = path.ends_with(b"/") || path.ends_with(b"/.");
        let mut follow = follow || wants_dir;
        while let Some(part) = parts.pop() {
            if self.nodes[dir].mode & KIND != DIR {
                return None;
            }
            if part == b".." {
                dir = self.nodes[dir].parent;
                continue;
            }
            let node = self.nodes[dir].children.get(&part);
            let is_last = parts.is_empty();
            match node.map(|n| &self.nodes[n]) {
                Some(there) if there.mode & KIND == LINK && (follow || !is_last) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return None;
                    }
                    if there.target.starts_with(b"/") {
                        dir = ROOT;
                    }
                    follow = follow || (is_last && there.target.ends_with(b"/"));
                    parts.extend(split(&there.target));
                }
                Some(there) if is_last && wants_dir && there.mode & KIND != DIR => return None,
                None if is_last && path.ends_with(b"/.") => return None,
                _ if is_last => return Some(Place { dir, name: part, node }),
                Some(_) => dir = node?,
                None => return None,
            }
        }
        Some(Place { dir, name: Vec::new(), node: Some(dir) })
    }

    /// Lists the tree: kind (`d`, `f`, `l`, `c`, `b`, `p`, `s`), mode in octal, number of names, path, and for a link its
    /// target, separated by tabs, one entry per line, sorted by path. Bytes other than printable ASCII are written `\OOO`.
    pub fn list(&self) -> String {
        let mut names = vec![0u32; self.nodes.len()];
        self.nodes.iter().flat_map(|node| &node.children.0).for_each(|(_, child)| names[*child] += 1);
        let mut text = String::new();
        // Last in, first out: children are pushed in reverse.
        let mut waiting: Vec<(Vec<u8>, usize)> = vec![(Vec::new(), ROOT)];
        while let Some((path, node)) = waiting.pop() {
            let there = &self.nodes[node];
            if node != ROOT {
                let _ =
                    write!(text, "{}\t{:o}\t{}\t{}", letter(there.mode), there.mode & !KIND, names[node], shown(&path));
                if there.mode & KIND == LINK {
                    let _ = write!(text, "\t{}", shown(&there.target));
                }
                text.push('\n');
            }
            waiting.extend(there.children.0.iter().rev().map(|(name, n)| ([&path, &b"/"[..], name].concat(), *n)));
        }
        text
    }
}

/// Parts of a path in reverse order.
fn split(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").rev().map(<[u8]>::to_vec).collect()
}

fn letter(mode: u16) -> char {
    match mode & KIND {
        DIR => 'd',
        FILE => 'f',
        LINK => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        _ => 's',
    }
}

fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    for byte in path {
        match byte {
            b' '..=b'~' if *byte != b'\\' => text.push(char::from(*byte)),
            _ => {
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_whatever_order_they_came_in() {
        let mut numbers = Numbers::default();
        for (number, name) in ["lib", "bin", "usr", "bin", "etc", "li"].into_iter().enumerate() {
            numbers.insert(name.into(), number);
        }
        numbers.remove(b"etc");
        numbers.remove(b"never there");
        let all: Vec<_> = numbers.0.iter().map(|(name, number)| (str::from_utf8(name).unwrap(), *number)).collect();
        assert_eq!(all, [("bin", 3), ("li", 5), ("lib", 0), ("usr", 2)]);
        assert_eq!((numbers.get(b"lib"), numbers.get(b"etc"), numbers.get(b"")), (Some(0), None, None));
    }
}
