"""Splits an initramfs into layers: cpio archives (newc) that kernels unpack one after the other to the same files.

Called by scripts/split-initramfs.sh: SOURCE TABLE SECONDS DIR. SOURCE is an initramfs or a directory tree. Writes DIR/NAME.cpio for each
layer that has something, DIR/front (what stands uncompressed in front), and DIR/order, the names of the layers.

Must never: write a file of the archive to the disk; lose an entry, or have it twice; guess what a kernel would do: what is not plain is
refused.
"""

import os
import re
import stat
import sys
import zlib

TRAILER = b"TRAILER!!!"
# There in every kernel's own archive, so files may lie below them without an entry.
BUILT_IN = {b"", b"dev", b"root"}
MAGIC = (b"070701", b"070702")
# Far more than any machine here could boot.
MOST_BYTES = 4 << 30


class Refused(Exception):
    """Why it is not split."""


def shown(path):
    return "/" + path.decode("utf-8", "backslashreplace")


class Entry:
    """One name. `links` is the list of all names of the file, which they share; `data` as well."""

    def __init__(self, path, mode, uid, gid, rdev, data, links):
        self.path, self.mode, self.uid, self.gid = path, mode, uid, gid
        self.rdev, self.data, self.links = rdev, data, links

    def is_dir(self):
        return stat.S_ISDIR(self.mode)


class Tree:
    """What has been unpacked so far, by path; the rules are those of init/initramfs.c."""

    def __init__(self):
        self.entries = {}

    def add(self, entry):
        path, before = entry.path, self.entries.get(entry.path)
        parent = path.rpartition(b"/")[0]
        above = self.entries.get(parent)
        if path != b"." and (above is None and parent not in BUILT_IN or above is not None and not above.is_dir()):
            kind = "is not a directory" if above else "is not in front of it"
            raise Refused(f"{shown(path)}: {shown(parent)} {kind}, so a kernel may put it elsewhere, or nowhere")
        if before is not None:
            if before.is_dir() and not entry.is_dir():
                raise Refused(f"{shown(path)} is a directory, and something else in a later archive")
            if len(before.links) > 1 or len(entry.links) > 1:
                raise Refused(f"{shown(path)} is there twice, and has other names (hard links): a kernel would overwrite them too")
            same = stat.S_IFMT(before.mode) == stat.S_IFMT(entry.mode)
            if same and before.rdev != entry.rdev:
                raise Refused(f"{shown(path)} is two devices")
        self.entries[path] = entry


def clean(name):
    """The path of a name, which must lead nowhere but below the root."""
    if name.startswith(b"/"):
        raise Refused(f"{name!r} is an absolute path")
    parts = [part for part in name.split(b"/") if part != b"."]
    if not parts:
        return b"."
    if any(part in (b"", b"..") for part in parts) or b"\n" in name or b"\t" in name:
        raise Refused(f"{name!r} is not a plain path")
    return b"/".join(parts)


def unpack(data, at, tree):
    """Adds one archive, which begins at `at`. Returns where it ends."""
    files = {}
    while True:
        head = data[at : at + 110]
        if len(head) < 110 or head[:6] not in MAGIC or not re.fullmatch(rb"[0-9A-Fa-f]{104}", head[6:]):
            raise Refused("a cpio archive in it is cut short, or not of the kind newc")
        ino, mode, uid, gid, nlink, _, size, major, minor, rmajor, rminor, length, _ = (
            int(head[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)
        )
        name, start = data[at + 110 : at + 110 + length], (at + 110 + length + 3) // 4 * 4
        at = (start + size + 3) // 4 * 4
        if length == 0 or name[-1:] != b"\0" or len(name) < length or start + size > len(data):
            raise Refused("a cpio archive in it is cut short")
        name = name[:-1]
        if name == TRAILER:
            break
        path, body = clean(name), data[start : start + size]
        if stat.S_ISREG(mode) and nlink > 1:
            links, holder = files.setdefault((ino, major, minor), ([], [b""]))
            if body and holder[0] and body != holder[0]:
                raise Refused(f"{shown(path)} is one file with {shown(links[0])}, with another content")
            links.append(path)
            holder[0] = body or holder[0]
        else:
            links, holder = [path], [body]
        tree.add(Entry(path, mode, uid, gid, (rmajor, rminor), holder, links))
    return at


def inflate(data, at):
    """One gzip member at `at`. Returns its content, and where it ends."""
    machine = zlib.decompressobj(31)
    try:
        content = machine.decompress(data[at:], MOST_BYTES)
    except zlib.error as why:
        raise Refused(f"gzip: {why}") from why
    if not machine.eof:
        raise Refused("gzip: it is cut short, or larger than 4 GiB unpacked")
    return content, len(data) - len(machine.unused_data)


def read_archive(path, tree):
    """Returns what stands in front, uncompressed, as kernels want it there (microcode): it is kept as it is."""
    with open(path, "rb") as file:
        data = file.read()
    at, front, seen = 0, b"", False
    while at < len(data):
        if data[at] == 0:
            at += 1
        elif data[at : at + 2] == b"\x1f\x8b":
            content, at = inflate(data, at)
            inner = 0
            while inner < len(content):
                inner = inner + 1 if content[inner] == 0 else unpack(content, inner, tree)
            seen = True
        elif data[at : at + 6] in MAGIC:
            own = tree if seen else Tree()
            at = unpack(data, at, own)
            if not seen:
                rest = at + len(data[at:]) - len(data[at:].lstrip(b"\0"))
                if rest < len(data):
                    # A multiple of four, and what stands behind begins where it began.
                    front = data[:rest]
                else:
                    tree.entries = own.entries
        else:
            raise Refused("neither gzip nor cpio (newc)")
    return front


def read_directory(root, tree):
    """A tree on the disk. Its files are root's in the initramfs, unless root is who asks."""
    root, mine, links = os.fsencode(root), os.geteuid() == 0, {}

    def take(path):
        full = os.path.join(root, path)
        info = os.lstat(full)
        data = b""
        if stat.S_ISREG(info.st_mode):
            with open(full, "rb") as file:
                data = file.read()
        elif stat.S_ISLNK(info.st_mode):
            data = os.readlink(full)
        elif stat.S_ISSOCK(info.st_mode):
            raise Refused(f"{shown(path)} is a socket")
        names, holder = [path], [data]
        if stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
            names, holder = links.setdefault((info.st_dev, info.st_ino), ([], holder))
            names.append(path)
        owner = (info.st_uid, info.st_gid) if mine else (0, 0)
        device = stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)
        rdev = (os.major(info.st_rdev), os.minor(info.st_rdev)) if device else (0, 0)
        tree.add(Entry(clean(path), info.st_mode, *owner, rdev, holder, names))
        if stat.S_ISDIR(info.st_mode):
            for name in sorted(os.listdir(full)):
                take(os.path.join(path, name))

    for name in sorted(os.listdir(root)):
        take(name)


def read_table(path):
    """Returns the names of the layers in order, and (number of the layer, pattern) a line."""
    names, rules = [], []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            if len(words) != 2 or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,30}", words[0]):
                raise Refused(f"{path}, line {number}: a layer (small letters, digits, - and _) and a pattern are wanted")
            if words[0] not in names:
                names.append(words[0])
            pattern = re.escape(words[1].strip("/")).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
            rules.append((names.index(words[0]), re.compile(os.fsencode(f"{pattern}(/.*)?"), re.DOTALL)))
    if not names or len(names) > 16:
        raise Refused(f"{path}: {len(names)} layers, and machines join 1 to 16")
    return names, rules


def assign(tree, rules):
    """The layer of each path. A directory goes with the first that needs it; a file's names stay together."""
    layer = {}
    for path, entry in tree.entries.items():
        fits = [number for number, pattern in rules if pattern.fullmatch(path)]
        layer[path] = 0 if path == b"." or not fits else fits[-1]
    for entry in tree.entries.values():
        if len(entry.links) > 1:
            layer[entry.path] = min(layer[name] for name in entry.links)
    filled = {}
    for path, entry in tree.entries.items():
        if not entry.is_dir():
            parent = path.rpartition(b"/")[0]
            while parent:
                filled[parent] = min(filled.get(parent, layer[path]), layer[path])
                parent = parent.rpartition(b"/")[0]
    for path in sorted(tree.entries, reverse=True):
        entry = tree.entries[path]
        if entry.is_dir():
            layer[path] = filled.get(path, layer[path])
            parent = path.rpartition(b"/")[0]
            if parent:
                filled[parent] = min(filled.get(parent, layer[path]), layer[path])
    return layer


def padded(data):
    return data + b"\0" * (-len(data) % 4)


def record(entry, name, ino, seconds, links, data):
    fields = (ino, entry.mode, entry.uid, entry.gid, links, seconds, len(data), 0, 0, *entry.rdev, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    return padded(head) + padded(data)


def write(out, entries, seconds):
    """One archive: sorted, with numbers of its own. The last name of a file carries its content, as GNU cpio has it."""
    numbers, left, size = {}, {}, 0
    for number, entry in enumerate(entries, 1):
        ino = numbers.setdefault(min(entry.links), number)
        left[ino] = left.get(ino, len(entry.links)) - 1
        links = 2 if entry.is_dir() else len(entry.links)
        size += out.write(record(entry, entry.path, ino, seconds, links, b"" if left[ino] else entry.data[0]))
    nothing = Entry(TRAILER, 0, 0, 0, (0, 0), [b""], [TRAILER])
    size += out.write(record(nothing, TRAILER, 0, 0, 1, b""))
    out.write(b"\0" * (-size % 512))


def main(source, table, seconds, place):
    names, rules = read_table(table)
    tree, front = Tree(), b""
    if os.path.isdir(source):
        read_directory(source, tree)
    else:
        front = read_archive(source, tree)
    if not tree.entries:
        raise Refused("there is nothing in it")
    layer = assign(tree, rules)
    with open(f"{place}/front", "wb") as out:
        out.write(front)
    with open(f"{place}/order", "w", encoding="utf-8") as order:
        for number, name in enumerate(names):
            paths = sorted(path for path in tree.entries if layer[path] == number)
            if not paths:
                continue
            with open(f"{place}/{name}.cpio", "wb") as out:
                write(out, [tree.entries[path] for path in paths], int(seconds))
            files = sum(not tree.entries[path].is_dir() for path in paths)
            order.write(f"{name} {files} {len(paths) - files}\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UnicodeDecodeError:
        sys.exit(f"{sys.argv[2]}: it is not text (UTF-8)")
    except (Refused, OSError) as problem:
        sys.exit(f"{sys.argv[1]}: {problem}")
