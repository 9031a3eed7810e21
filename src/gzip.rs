//! Checks that a stream is whole gzip, as the kernel reads an initramfs. Keeps nothing of it.
//!
//! Several members may follow each other, with zero bytes between and after them.
//! Source: RFC 1952; Linux Documentation/driver-api/early-userspace/buffer-format.rst.
//! Must never: hold more than a window of the output, or accept a member that was cut.

use flate2::write::GzDecoder;
use std::io::{self, Write};

/// Most that an initramfs may inflate to, in bytes: far beyond what these machines have as memory.
const INFLATED_MAX_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// Most members that it may have: an initramfs has one, and one for each thing that was appended. Each costs memory
/// to be set up, however small it is.
const MEMBERS_MAX: u32 = 1024;

/// Takes a stream in pieces, and says in the end whether it was whole.
#[derive(Default)]
pub struct Check {
    member: Option<GzDecoder<Count>>,
    members: u32,
    inflated_bytes: u64,
}

struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        if self.0 > INFLATED_MAX_BYTES {
            return Err(io::Error::other("it inflates to more than 8 GiB"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Check {
    /// Takes the next bytes.
    /// Errors: what is wrong with them, for people.
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let mut member = match self.member.take() {
                Some(member) => member,
                None if self.members > 0 && bytes[0] == 0 => {
                    bytes = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
                    continue;
                }
                None if self.members == MEMBERS_MAX => {
                    return Err(format!("it has more than {MEMBERS_MAX} gzip members"));
                }
                None => {
                    self.members += 1;
                    GzDecoder::new(Count(self.inflated_bytes))
                }
            };
            match member.write(bytes).map_err(|e| self.told(&e))? {
                0 => self.inflated_bytes = member.finish().map_err(|e| self.told(&e))?.0,
                n => {
                    bytes = &bytes[n..];
                    self.member = Some(member);
                }
            }
        }
        Ok(())
    }

    /// Ends the stream.
    /// Errors: the last member is cut, or its checksum or length is wrong; or there was none.
    pub fn finish(mut self) -> Result<(), String> {
        match self.member.take() {
            Some(member) => member.finish().map(|_| ()).map_err(|e| self.told(&e)),
            None if self.members == 0 => Err("it is empty".into()),
            None => Ok(()),
        }
    }

    fn told(&self, error: &io::Error) -> String {
        format!("gzip member {}: {error}", self.members.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Compresses with the real gzip.
    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut child = Command::new("gzip").arg("-nc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    fn check(bytes: &[u8], step: usize) -> Result<(), String> {
        let mut c = Check::default();
        bytes.chunks(step).try_for_each(|piece| c.update(piece))?;
        c.finish()
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut seed = 7u32;
        (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect()
    }

    #[test]
    fn one_member_several_members_and_padding() {
        let one = gzip(&noise(70_000));
        let mut several = [one.clone(), gzip(b""), gzip(&[0; 100_000])].concat();
        several.extend_from_slice(&[0; 513]);
        several.extend_from_slice(&gzip(b"appended"));
        several.extend_from_slice(&[0; 3]);
        for step in [1, 7, 4096, 1 << 20] {
            check(&one, step).unwrap();
            check(&several, step).unwrap();
        }
    }

    #[test]
    fn every_cut_is_seen() {
        let whole = gzip(&noise(300));
        for end in 0..whole.len() {
            for step in [1, 1000] {
                assert!(check(&whole[..end], step).is_err(), "cut at {end}, step {step}");
            }
        }
    }

    #[test]
    fn every_broken_byte_past_the_header_is_seen() {
        let whole = gzip(&noise(300));
        for at in 10..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff; // all bits: some of a byte may be padding
            assert!(check(&broken, 1000).is_err(), "byte {at}");
        }
    }

    #[test]
    fn members_without_end_are_refused() {
        let many = gzip(b"").repeat(MEMBERS_MAX as usize);
        check(&many, 1 << 20).unwrap();
        assert!(check(&[many, gzip(b"")].concat(), 1 << 20).unwrap_err().contains("more than 1024"));
    }

    #[test]
    fn other_content_is_refused() {
        assert!(check(b"", 1).is_err());
        assert!(check(b"070701 not gzip at all", 5).is_err());
        assert!(check(&[0; 100], 10).is_err());
        let mut trailing = gzip(b"x");
        trailing.extend_from_slice(b"junk after the member");
        for step in [1, 100] {
            assert!(check(&trailing, step).is_err());
        }
    }
}
