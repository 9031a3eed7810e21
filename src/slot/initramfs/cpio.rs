//! The entries of cpio archives, as the kernel reads them. Pure; keeps only one header or name at a time.
//!
//! Source: Linux init/initramfs.c; Documentation/driver-api/early-userspace/buffer-format.rst.
//! Must never: take an entry that the kernel would silently omit: those are reported, not skipped.

/// Part before the name, in bytes: magic, and thirteen numbers of eight hexadecimal digits.
const HEADER: usize = 110;
const MAGIC: usize = 6;
/// Including the NUL at its end, in bytes; also limits the target of a link.
const PATH_MAX: u64 = 4096;
const NAME_MAX: usize = 255;
const TRAILER: &[u8] = b"TRAILER!!!";

/// Type bits of a mode, and their values.
pub(crate) const KIND: u16 = 0o170_000;
pub(crate) const FILE: u16 = 0o100_000;
pub(crate) const DIR: u16 = 0o040_000;
pub(crate) const LINK: u16 = 0o120_000;
const OTHERS: [u16; 4] = [0o010_000, 0o020_000, 0o060_000, 0o140_000];

/// What the kernel acts on.
pub enum Seen<'a> {
    /// A file, a directory, and so on.
    Entry(Entry<'a>),
    /// The next bytes of the file seen last.
    Content(&'a [u8]),
    /// The end of an archive: hard links do not cross it.
    Trailer,
}

/// One entry.
pub struct Entry<'a> {
    /// As the archive spells it.
    pub name: &'a [u8],
    /// Kind and permissions, as `st_mode` has them.
    pub mode: u16,
    /// Its owner.
    pub uid: u32,
    /// Length of the content, in bytes.
    pub size: u64,
    /// From 2 on, names with the same `id` are one file.
    pub links: u32,
    /// Inode, major and minor number of the device.
    pub id: [u32; 3],
    /// Target of a symbolic link; empty for anything else.
    pub target: &'a [u8],
}

#[derive(Clone, Copy, Default)]
enum State {
    /// Between two entries: zeros, or the next header at a multiple of four.
    Reset,
    #[default]
    Header,
    Name,
    Body(u64),
    Skip(u64),
}

/// Reads consecutive archives.
#[derive(Default)]
pub(crate) struct Reader {
    state: State,
    /// Bytes collected so far: a header, or name and target.
    buffer: Vec<u8>,
    /// From the header: mode, owner, length, length of the name, checksum, links, inode and device.
    mode: u16,
    uid: u32,
    size: u64,
    name_length: usize,
    checksum: Option<u32>,
    links: u32,
    id: [u32; 3],
    sum: u32,
    /// Bytes since the archive, or the gzip member, began; alignment counts from there.
    position: u64,
    /// Total of bytes received.
    pub(crate) unpacked_bytes: u64,
}

impl Reader {
    /// Begins with a separate archive.
    pub(crate) fn begin(&mut self) {
        self.state = State::Header;
        self.buffer.clear();
        self.position = 0;
    }

    /// Begins behind whole archives.
    pub(crate) fn begin_behind(&mut self) {
        self.state = State::Reset;
    }

    /// Begins with the content of a gzip member. The first member must begin with a header, not with zeros.
    pub(crate) fn begin_member(&mut self) {
        self.position = 0;
    }

    /// Takes the content of a gzip member.
    pub(crate) fn fill(&mut self, mut bytes: &[u8], see: &mut dyn FnMut(&Seen<'_>)) -> Result<(), String> {
        loop {
            let taken = self.update(bytes, see)?;
            bytes = &bytes[taken..];
            match bytes.first() {
                None => return Ok(()),
                Some(b'0') => self.state = State::Header,
                Some(_) => return Err("there is junk behind an entry".into()),
            }
        }
    }

    /// Takes bytes up to where the next archive, or something else, must begin.
    /// Returns: the number of bytes taken.
    pub(crate) fn update(&mut self, bytes: &[u8], see: &mut dyn FnMut(&Seen<'_>)) -> Result<usize, String> {
        let mut done = 0;
        loop {
            let rest = &bytes[done..];
            let taken = match self.state {
                State::Reset => rest.iter().take_while(|b| **b == 0).count(),
                State::Header => self.collect(rest, HEADER),
                State::Name => self.collect(rest, self.wanted()),
                State::Body(left) | State::Skip(left) => (rest.len() as u64).min(left) as usize,
            };
            done += taken;
            self.position += taken as u64;
            self.unpacked_bytes += taken as u64;
            self.state = match self.state {
                State::Reset if done == bytes.len() => return Ok(done),
                State::Reset if self.position.is_multiple_of(4) => return Ok(done),
                State::Reset => return Err("what follows an entry is not padded to a multiple of four bytes".into()),
                State::Header if self.buffer.len() == HEADER => self.header()?,
                State::Name if self.buffer.len() == self.wanted() => self.name(see)?,
                State::Body(left) => self.body(&rest[..taken], left - taken as u64, see)?,
                State::Skip(left) if left == taken as u64 => State::Reset,
                State::Skip(left) => State::Skip(left - taken as u64),
                waiting => waiting,
            };
            let is_ready = matches!(self.state, State::Body(0) | State::Skip(0));
            if done == bytes.len() && !is_ready {
                return Ok(done);
            }
        }
    }

    fn collect(&mut self, bytes: &[u8], wanted: usize) -> usize {
        let taken = bytes.len().min(wanted - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// Length of the padded name and of a link's target.
    fn wanted(&self) -> usize {
        self.padded_name() + if self.mode & KIND == LINK { self.size as usize } else { 0 }
    }

    /// Length up to a multiple of four, counted from the start of the header.
    fn padded_name(&self) -> usize {
        ((self.name_length + 1) & !3) + 2
    }

    fn header(&mut self) -> Result<State, String> {
        check_magic(&self.buffer)?;
        let mut numbers = [0u32; 13];
        for (number, digits) in numbers.iter_mut().zip(self.buffer[MAGIC..].chunks(8)) {
            *number = hex(digits).ok_or("a header has something else than hexadecimal digits")?;
        }
        let [inode, mode, uid, _, links, _, size, major, minor, _, _, name_length, sum] = numbers;
        self.checksum = self.buffer.starts_with(b"070702").then_some(sum);
        (self.mode, self.uid, self.size, self.links) = (mode as u16, uid, u64::from(size), links);
        (self.name_length, self.id, self.sum) = (name_length as usize, [inode, major, minor], 0);
        self.buffer.clear();
        let kind = self.mode & KIND;
        if name_length == 0 || u64::from(name_length) > PATH_MAX {
            return Err(format!("a name is {name_length} bytes long, kernels take 1 to {PATH_MAX} and skip the entry"));
        }
        if kind == LINK && self.size > PATH_MAX {
            return Err(format!("the target of a link is {size} bytes long, kernels skip it from {PATH_MAX} on"));
        }
        if kind != FILE && kind != LINK && self.size > 0 {
            return Err("an entry that is not a regular file has content: kernels skip it".into());
        }
        Ok(State::Name)
    }

    fn name(&mut self, see: &mut dyn FnMut(&Seen<'_>)) -> Result<State, String> {
        let kind = self.mode & KIND;
        let (name, rest) = self.buffer.split_at(self.padded_name());
        if name[self.name_length - 1] != 0 {
            return Err("a name does not end with a NUL".into());
        }
        let (name, target) = (until_nul(&name[..self.name_length]), until_nul(rest));
        let padding = (4 - self.size % 4) % 4;
        if kind != LINK && name == TRAILER {
            see(&Seen::Trailer);
            self.buffer.clear();
            return Ok(State::Skip(self.size + padding));
        }
        check_entry(name, kind, target)?;
        let (mode, uid, size, links, id) = (self.mode, self.uid, self.size, self.links, self.id);
        see(&Seen::Entry(Entry { name, mode, uid, size, links, id, target }));
        self.buffer.clear();
        Ok(if kind == FILE { State::Body(self.size) } else { State::Skip(padding) })
    }

    fn body(&mut self, bytes: &[u8], left: u64, see: &mut dyn FnMut(&Seen<'_>)) -> Result<State, String> {
        see(&Seen::Content(bytes));
        if self.checksum.is_some() {
            self.sum = bytes.iter().fold(self.sum, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        }
        match left {
            0 if self.checksum.is_some_and(|sum| sum != self.sum) => Err("the checksum of a file is wrong".into()),
            0 => Ok(State::Skip((4 - self.size % 4) % 4)),
            left => Ok(State::Body(left)),
        }
    }

    /// Ends a gzip member. Errors: an entry is incomplete.
    pub(crate) fn finish(&self) -> Result<(), String> {
        match self.state {
            State::Reset => Ok(()),
            State::Header if self.buffer.is_empty() => Err("it holds no cpio archive".into()),
            State::Header => check_magic(&self.buffer).and(Err("it ends within the header of an entry".into())),
            State::Name => Err("it ends within the name of an entry".into()),
            State::Body(_) => Err("it ends within a file: each gzip member has to hold whole entries".into()),
            State::Skip(_) => Err("it ends within the padding of an entry".into()),
        }
    }

    /// Ends a stream whose last archive is uncompressed: the kernel accepts missing padding there, and so does this.
    pub(crate) fn finish_plain(&self) -> Result<(), String> {
        match self.state {
            State::Skip(1..4) => Ok(()),
            _ => self.finish(),
        }
    }
}

fn check_magic(header: &[u8]) -> Result<(), String> {
    let magic = &header[..header.len().min(MAGIC)];
    if magic == b"070707" {
        return Err("it is cpio of the old kind (odc): make it with cpio -o -H newc".into());
    }
    match b"070701".starts_with(magic) || b"070702".starts_with(magic) {
        true => Ok(()),
        false => Err("it holds no cpio archive (cpio -o -H newc makes one)".into()),
    }
}

/// Refuses an entry that the kernel would silently omit. Dependencies on other entries are checked by [`super::Tree`].
fn check_entry(name: &[u8], kind: u16, target: &[u8]) -> Result<(), String> {
    let shown = String::from_utf8_lossy(&name[..name.len().min(80)]);
    let why = if name.is_empty() {
        "it has no name"
    } else if name.split(|b| *b == b'/').any(|part| part.len() > NAME_MAX) {
        "a part of its name has more than 255 bytes"
    } else if kind == LINK && target.len() as u64 >= PATH_MAX {
        "its target has more than 4095 bytes"
    } else if kind != DIR && name.ends_with(b"/") {
        "its name ends with '/', and it is not a directory"
    } else if ![FILE, DIR, LINK].contains(&kind) && !OTHERS.contains(&kind) {
        "it is neither file nor directory nor link nor device"
    } else {
        return Ok(());
    };
    Err(format!("kernels leave out entry '{shown}': {why}"))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn hex(digits: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?;
    u32::from_str_radix(digits, 16).ok()
}
