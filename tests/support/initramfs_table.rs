//! Shapes of initramfs that people and tools make: what real kernels do with each, and what the agent has to say of it.
//!
//! A row is a shell script that writes the initramfs to its output, with real tools, and these to take from: `sys.cpio` and
//! `sys.gz`, a system; `m1`, `m1.cpio`, `m1.gz`, a file that has to be there whole afterwards; `e.gz`, an archive with an
//! empty file `e`; `newc`, a writer of single entries; `pack FILE...`, an archive. To add one is to add a line.

use super::disk::noise;
use super::{PYTHON, need_all};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What kernels 6.1 and 6.12 do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Unpacks all of it.
    Whole,
    /// Unpacks a part of it, and says nothing.
    Part,
    /// Says so: `Initramfs unpacking failed: ...`.
    Fails(&'static str),
}
use Kernel::{Fails, Part, Whole};

/// What the agent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Takes,
    Refuses(&'static str),
    /// Takes it, and says what is missing.
    Warns(&'static str),
}
use Says::{Refuses, Takes, Warns};

pub type Row = (&'static str, &'static str, Kernel, Says);

/// Length of `m1`: more than two windows of gzip, and padded.
pub const M1_BYTES: usize = 70_001;

/// Rows that kernels boot, and rows that they do not, for an ordinary run.
pub const SHORT: [&str; 4] =
    ["512 zeros between two members", "1,100 members", "a comment (pigz -C)", "an early archive in front, aligned"];

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    // gzip members, and what lies between them.
    ("one member", "cat sys.cpio m1.cpio | gzip -n", Whole, Takes),
    ("two members", "cat sys.gz m1.gz", Whole, Takes),
    ("512 zeros between two members", "cat sys.gz; zeros 512; cat m1.gz", Whole, Takes),
    ("zeros between and behind, not aligned", "cat sys.gz; zeros 3; cat m1.gz; zeros 509", Whole, Takes),
    ("zeros in front", "zeros 512; cat sys.gz m1.gz", Whole, Takes),
    ("1,100 members", "cat sys.gz; many 1100; cat m1.gz", Whole, Takes),
    ("5,000 members", "cat sys.gz; many 5000; cat m1.gz", Whole, Takes),
    ("an empty member between", "cat sys.gz; gzip -n </dev/null; cat m1.gz", Whole, Takes),
    ("an empty member first", "gzip -n </dev/null; cat sys.gz m1.gz", Fails("junk at the end of compressed archive"), Refuses("holds no cpio archive")),
    ("junk behind", "cat sys.gz m1.gz; echo rubbish", Fails("invalid magic at start of compressed archive"), Refuses("neither gzip nor cpio")),
    ("one letter behind", "cat sys.gz m1.gz; printf x", Fails("invalid magic at start of compressed archive"), Refuses("cut in its header")),
    ("junk between", "cat sys.gz; echo rubbish; cat m1.gz", Fails("invalid magic at start of compressed archive"), Refuses("neither gzip nor cpio")),
    // Headers of gzip.
    ("a name (gzip FILE)", "cat sys.gz; gzip -c m1.cpio", Whole, Takes),
    ("a name (pigz FILE)", "cat sys.gz; pigz -c m1.cpio", Whole, Takes),
    ("gzip --rsyncable", "cat sys.cpio m1.cpio | gzip -n --rsyncable", Whole, Takes),
    ("gzip -1", "cat sys.gz; gzip -1n <m1.cpio", Whole, Takes),
    ("python's gzip", "cat sys.gz; python3 -m gzip --fast - <m1.cpio", Whole, Takes),
    ("a comment (pigz -C)", "cat sys.gz; pigz -C text <m1.cpio", Fails("uncompression error"), Refuses("a comment")),
    ("an extra field (bgzip)", "cat sys.gz; bgzip -c <m1.cpio", Fails("uncompression error"), Refuses("an extra field")),
    ("an extra field in the first member", "bgzip -c <sys.cpio; cat m1.gz", Fails("uncompression error"), Refuses("an extra field")),
    ("a header checksum", "cat sys.gz; flags 2 <m1.gz", Fails("uncompression error"), Refuses("a checksum")),
    ("the text flag", "cat sys.gz; flags 1 <m1.gz", Whole, Takes),
    ("a reserved flag", "cat sys.gz; flags 128 <m1.gz", Whole, Takes),
    ("another method than deflate", "cat sys.gz; poke 2 7 <m1.gz", Fails("Not a gzip file"), Refuses("neither gzip nor cpio")),
    // The trailer: kernels pass it over.
    ("a wrong checksum", "cat sys.gz; poke -8 0 <m1.gz", Whole, Refuses("its checksum is wrong")),
    ("a wrong length", "cat sys.gz; poke -2 1 <m1.gz", Whole, Refuses("its length is wrong")),
    // One archive in two members.
    ("cut within a header", "cat sys.gz; cut_at 60 m1.cpio", Fails("junk at the end of compressed archive"), Refuses("within the header")),
    ("cut within a name", "cat sys.gz; cut_at 112 m1.cpio", Fails("junk at the end of compressed archive"), Refuses("within the name")),
    ("cut behind a name", "cat sys.gz; cut_at 116 m1.cpio", Fails("junk at the end of compressed archive"), Refuses("within a file")),
    ("cut within a file", "cat sys.gz; cut_at 1000 m1.cpio", Fails("junk at the end of compressed archive"), Refuses("within a file")),
    ("cut within padding", "cat sys.gz; cut_at 70118 m1.cpio", Fails("junk at the end of compressed archive"), Refuses("within the padding")),
    ("cut at the end of an entry", "cat sys.gz; cut_at 70120 m1.cpio", Whole, Takes),
    ("no trailer", "cat sys.gz; head -c 70120 m1.cpio | gzip -n", Whole, Takes),
    ("cut at every 64 KiB (pigz -i is whole)", "cat sys.cpio m1.cpio | pigz -i -b 128", Whole, Takes),
    // Archives that are not compressed.
    ("an early archive in front, aligned", "cat early.cpio sys.gz m1.gz", Whole, Takes),
    ("an early archive in front, not aligned", "head -c 511 early.cpio; cat sys.gz m1.gz", Fails("broken padding"), Refuses("not padded")),
    ("two early archives", "cat early.cpio early.cpio sys.gz m1.gz", Whole, Takes),
    ("an early archive, and zeros", "cat early.cpio; zeros 1024; cat sys.gz m1.gz", Whole, Takes),
    ("an early archive behind one zero", "zeros 1; cat early.cpio sys.gz m1.gz", Fails("invalid magic at start of compressed archive"), Refuses("multiple of four")),
    ("an early archive behind four zeros", "zeros 4; cat early.cpio sys.gz m1.gz", Whole, Takes),
    ("an early archive of the old kind", "echo e | cpio -o -H odc --quiet; cat sys.gz m1.gz", Fails("incorrect cpio method used: use -H newc option"), Refuses("old kind (odc)")),
    ("not compressed, behind gzip, aligned", "cat sys.gz; align sys.gz; cat m1.cpio", Whole, Takes),
    ("not compressed, behind gzip, not aligned", "cat sys.gz; align sys.gz; zeros 1; cat m1.cpio", Fails("invalid magic at start of compressed archive"), Refuses("multiple of four")),
    ("nothing is compressed", "cat sys.cpio m1.cpio", Whole, Refuses("cpio without compression: compress it with gzip")),
    ("cut within the last archive, not compressed", "cat sys.gz; align sys.gz; head -c 1000 m1.cpio", Part, Refuses("within a file")),
    ("cut within the last padding, not compressed", "cat sys.gz; align sys.gz; head -c 70118 m1.cpio", Whole, Takes),
    // Other ways to compress.
    ("zstd", "cat sys.gz; zstd -qc <m1.cpio", Whole, Refuses("zstd, machines take gzip: unpack that part and compress it with gzip (Debian")),
    ("xz", "cat sys.gz; xz -c --check=crc32 <m1.cpio", Whole, Refuses("it is xz")),
    ("lzma", "cat sys.gz; xz -c --format=lzma <m1.cpio", Whole, Refuses("it is lzma")),
    ("bzip2", "cat sys.gz; bzip2 -c <m1.cpio", Whole, Refuses("it is bzip2")),
    ("lz4 (of kernels)", "cat sys.gz; lz4 -lqc <m1.cpio", Whole, Refuses("it is lz4")),
    ("lz4 (of people)", "cat sys.gz; lz4 -qc <m1.cpio", Fails("invalid magic at start of compressed archive"), Refuses("it is lz4")),
    ("an early archive and zstd", "cat early.cpio; cat sys.cpio m1.cpio | zstd -qc", Whole, Refuses("it is zstd")),
    // cpio.
    ("several trailers", "cat sys.cpio sys.cpio m1.cpio | gzip -n", Whole, Takes),
    ("an archive of nothing", "cat sys.gz; pack </dev/null | gzip -n; cat m1.gz", Whole, Takes),
    ("with checksums (070702)", "cat sys.gz; echo m1 | cpio -o -H crc --quiet | gzip -n", Whole, Takes),
    ("with a wrong checksum (070702)", "cat sys.gz; echo m1 | cpio -o -H crc --quiet | poke 200 0 | gzip -n", Fails("bad data checksum"), Refuses("checksum of a file")),
    ("the old kind (070707)", "cat sys.gz; echo m1 | cpio -o -H odc --quiet | gzip -n", Fails("incorrect cpio method used: use -H newc option"), Refuses("cpio -o -H newc")),
    ("the old binary kind", "cat sys.gz; echo m1 | cpio -o -H bin --quiet | gzip -n", Fails("junk within compressed archive"), Refuses("junk behind an entry")),
    ("a tar archive", "cat sys.gz; tar -cf - m1 | gzip -n", Fails("junk within compressed archive"), Refuses("junk behind an entry")),
    ("a tar archive alone", "tar -cf - m1 | gzip -n", Fails("no cpio magic"), Refuses("holds no cpio archive")),
    ("no archive", "echo no archive | gzip -n", Fails("junk at the end of compressed archive"), Refuses("holds no cpio archive")),
    ("junk behind a trailer", "cat sys.gz m1.gz; { cat m1.cpio; echo junk; } | gzip -n", Fails("junk within compressed archive"), Refuses("junk behind an entry")),
    ("an entry at no multiple of four", "cat sys.gz; { head -c 70120 m1.cpio; zeros 1; cat m1.cpio; } | gzip -n", Fails("broken padding"), Refuses("not padded")),
    ("zeros before the first entry", "{ zeros 512; cat sys.cpio m1.cpio; } | gzip -n", Fails("no cpio magic"), Refuses("holds no cpio archive")),
    ("zeros before the first entry of the second member", "cat sys.gz; { zeros 512; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a name of 4,095 letters and a NUL", "cat sys.gz; newc $(long 4095)z 0100644 x | gzip -n; cat m1.gz", Part, Refuses("more than 255 bytes")),
    ("a name longer than PATH_MAX", "cat sys.gz; { newc $(long 5000) 0100644 x; cat m1.cpio; } | gzip -n", Part, Refuses("kernels take 1 to 4096")),
    ("a name of 300 letters", "cat sys.gz; { newc $(printf %0300d 0) 0100644 x; cat m1.cpio; } | gzip -n", Part, Refuses("more than 255 bytes")),
    ("a name without a NUL", "cat sys.gz; { newc --no-nul abc 0100644 x; cat m1.cpio; } | gzip -n", Fails("malformed archive"), Refuses("does not end with a NUL")),
    ("a name with more NULs (dracut)", "cat sys.gz; { newc --nuls abc 0100644 x; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("no name", "cat sys.gz; { newc '' 0100644 x; cat m1.cpio; } | gzip -n", Part, Refuses("it has no name")),
    ("a directory with content", "cat sys.gz; { newc d 040755 x; cat m1.cpio; } | gzip -n", Part, Refuses("an entry that is not a regular file has content")),
    ("an entry of no kind", "cat sys.gz; { newc k 0644 ''; cat m1.cpio; } | gzip -n", Part, Refuses("neither file nor directory")),
    ("a link to nothing", "cat sys.gz; { newc l 0120777 ''; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a link whose target is too long", "cat sys.gz; { newc l 0120777 $(printf %04096d 0); cat m1.cpio; } | gzip -n", Part, Refuses("more than 4095 bytes")),
    // What lies where: tests/vm/initramfs.rs holds `lint --list` against what kernels have made.
    ("spellings of a path", "cat sys.gz; { newc ./a 040755 ''; newc /a/b 040750 ''; newc .//a/c 040700 ''; newc a/../a/./d 0100644 x; newc a/e/ 040711 ''; newc ../../f 0100600 x; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a directory behind a link", "cat sys.gz; { newc real 040755 ''; newc usr 0120777 real; newc usr/bin 040711 ''; newc usr/bin/x 0100755 x; newc abs 0120777 /real/bin; newc abs/y 0100644 x; newc real/up 0120777 ../real; newc real/up/z 0100644 x; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a directory in place of a link", "cat sys.gz; { newc real 040755 ''; newc real/x 0100644 x; newc usr 0120777 real; } | gzip -n; { newc usr 040755 ''; newc usr/y 0100644 x; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a directory in place of a link, with a slash", "cat sys.gz; { newc real 040755 ''; newc usr 0120777 real; newc usr/ 040711 ''; newc etc 0120777 real; newc etc/. 040700 ''; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a directory in place of a file", "cat sys.gz; { newc usr 0100644 x; newc usr 040755 ''; newc usr/y 0100644 x; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a file in place of a link", "cat sys.gz; { newc a 0100644 x; newc b 0120777 a; newc b 0100600 x; newc c 0120777 gone; newc c 0100600 x; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a file in place of an empty directory", "cat sys.gz; { newc a 040755 ''; newc a 0100644 x; newc b 040755 ''; newc b 0120777 a; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a file in place of a full directory", "cat sys.gz; { newc a 040755 ''; newc a/x 0100644 x; newc a 0100644 x; cat m1.cpio; } | gzip -n", Part, Warns("leave out a: a directory that is not empty")),
    ("a link in place of a full directory", "cat sys.gz; { newc a 040755 ''; newc a/x 0100644 x; newc a 0120777 x; cat m1.cpio; } | gzip -n", Part, Warns("leave out a: a directory that is not empty")),
    ("a directory through a link to nothing", "cat sys.gz; { newc a 0120777 gone; newc a/ 040755 ''; newc a/b 040755 ''; newc gone/. 040755 ''; cat m1.cpio; } | gzip -n", Part, Warns("leave out a/")),
    ("below a file", "cat sys.gz; { newc a 0100644 x; newc a/b 0100644 x; newc a/ 040755 ''; newc c/ 040755 ''; cat m1.cpio; } | gzip -n", Part, Warns("leave out a/b")),
    ("links in a circle", "cat sys.gz; { newc a 0120777 b; newc b 0120777 a; newc a/x 0100644 x; cat m1.cpio; } | gzip -n", Part, Warns("leave out a/x")),
    ("hard links", "cat sys.gz; { links a 5; links b 5; links c 6; newc d 040755 ''; links d/e 5; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("hard links by cpio", "cat sys.gz; ln -f m1 m2; printf 'm1\\nm2\\n' | pack | gzip -n; rm m2", Whole, Takes),
    ("a hard link that takes the place of a link", "cat sys.gz; { newc t 040755 ''; newc b 0120777 t; links a 5; links b 5; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a hard link over a trailer", "cat sys.gz; { links a 5; pack </dev/null; links b 5; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a hard link over members", "cat sys.gz; links a 5 | gzip -n; { links b 5; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a hard link to a link", "cat sys.gz; { newc t 040755 ''; links a 5; newc a 0120777 t/x; links b 5; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a hard link to itself", "cat sys.gz; { links a 5; links a 5; cat m1.cpio; } | gzip -n", Part, Warns("leave out a: what it is a hard link to is gone")),
    ("devices", "cat sys.gz; { newc p 010644 ''; newc c 020600 ''; newc b 060640 ''; newc s 0140755 ''; newc p 0100644 x; newc c 020666 ''; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("what kernels bring", "cat sys.gz; { newc dev/null 020666 ''; newc root 040750 ''; newc root/x 0100644 x; cat m1.cpio; } | gzip -n", Whole, Takes),
    ("a file whose directory is missing", "cat sys.gz; { newc no/x 0100644 x; cat m1.cpio; } | gzip -n", Part, Warns("leave out no/x: its directory is missing")),
];

/// What the scripts take from.
const PRELUDE: &str = r#"
set -eu
zeros() { head -c "$1" /dev/zero; }
pack() { cpio -o -H newc -R 0:0 --reproducible --quiet; }
align() { zeros $(((4 - $(wc -c <"$1") % 4) % 4)); }
cut_at() { head -c "$1" "$2" | gzip -n; tail -c +$(($1 + 1)) "$2" | gzip -n; }
many() { python3 -c 'import sys; sys.stdout.buffer.write(open("e.gz", "rb").read() * int(sys.argv[1]))' "$1"; }
long() { python3 -c 'import sys; print("/".join(["l" * 300] * 20)[:int(sys.argv[1]) - 1])' "$1"; }
poke() {
    python3 -c 'import sys
b = bytearray(sys.stdin.buffer.read()); at, to = int(sys.argv[1]), int(sys.argv[2])
b[at] = to if b[at] != to else to + 1
sys.stdout.buffer.write(b)' "$@"
}
flags() {
    python3 -c 'import sys, zlib
b = bytearray(sys.stdin.buffer.read()); b[3] |= int(sys.argv[1]); crc = b""
if b[3] & 2: crc = (zlib.crc32(b[:10]) & 0xffff).to_bytes(2, "little")
sys.stdout.buffer.write(bytes(b[:10]) + crc + bytes(b[10:]))' "$@"
}
links() { LINKS=2 INODE=$2 newc "$1" 0100644 x; }
newc() {
    python3 -c 'import os, sys
words = sys.argv[1:]; how = words.pop(0) if words[0].startswith("--") else ""
name, mode, data = words[0].encode(), int(words[1], 8), words[2].encode()
inode, links = int(os.environ.get("INODE", 77)), int(os.environ.get("LINKS", 1))
name += {"": b"\0", "--nuls": b"\0" * 7, "--no-nul": b""}[how]
head = b"070701" + b"".join(b"%08X" % n for n in [inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0])
pad = lambda b: b + b"\0" * (-len(b) % 4)
sys.stdout.buffer.write(pad(head + name) + pad(data))' "$@"
}
"#;

/// Goes on if all that makes them is there.
pub fn need_table() {
    need_all(&["cpio", "gzip", "pigz", "bgzip", "zstd", "xz", "bzip2", "lz4", "tar", PYTHON]);
}

/// Makes what rows are made of. Input: `system`: file names below `dir`, a line each, that make the system.
pub fn prepare(dir: &Path, system: &str) {
    fs::write(dir.join("m1"), noise(11, M1_BYTES)).unwrap();
    fs::write(dir.join("system"), system).unwrap();
    let make = "touch e; mkdir -p kernel; touch kernel/microcode; pack <system >sys.cpio; gzip -1n <sys.cpio >sys.gz
        echo m1 | pack >m1.cpio; gzip -n <m1.cpio >m1.gz; echo e | pack | gzip -n >e.gz
        printf 'kernel\nkernel/microcode\n' | pack >early.cpio";
    script(dir, make);
}

/// Makes a row.
pub fn make(dir: &Path, row: &Row) -> Vec<u8> {
    script(dir, row.1)
}

/// Runs a script with what rows are made of. Returns: its output.
pub fn script(dir: &Path, text: &str) -> Vec<u8> {
    let out = Command::new("sh").args(["-c", &format!("{PRELUDE}\n{text}")]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{text}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}
