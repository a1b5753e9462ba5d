//! A compressed archive of small files: `ustar` of POSIX.1-2017 (pax, "ustar Interchange Format") in gzip (RFC 1952).

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

const BLOCK: usize = 512;
/// Bytes of a name, at most.
const NAME_BYTES_MAX: usize = 100;

/// Writes files one after another.
pub(super) struct Archive<W: Write> {
    out: GzEncoder<W>,
    mtime: u64,
}

impl<W: Write> Archive<W> {
    /// Into `out`; all files have that time, Unix seconds.
    pub(super) fn new(out: W, mtime: u64) -> Self {
        Self { out: GzEncoder::new(out, Compression::default()), mtime }
    }

    /// Adds a file. `name` is relative, of printable ASCII, at most 100 bytes.
    pub(super) fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.out.write_all(&header(name, content.len() as u64, self.mtime))?;
        self.out.write_all(content)?;
        let rest = content.len().next_multiple_of(BLOCK) - content.len();
        self.out.write_all(&[0; BLOCK][..rest])
    }

    /// Ends the archive: two empty blocks.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.finish()
    }
}

fn header(name: &str, size: u64, mtime: u64) -> [u8; BLOCK] {
    assert!(name.len() <= NAME_BYTES_MAX && name.is_ascii(), "{name}: a short name");
    let mut block = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, &format!("{mtime:011o}\0"));
    // The checksum is that of the header with spaces in its own place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn files_are_in_blocks_with_names_sizes_and_checksums() {
        let mut archive = Archive::new(Vec::new(), 1_700_000_000);
        archive.file("a/b.txt", b"hello").unwrap();
        archive.file("a/empty", b"").unwrap();
        archive.file("a/full", &[b'x'; BLOCK]).unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&*archive.finish().unwrap()).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), BLOCK * (2 + 1 + 2 + 2));
        assert_eq!((&bytes[..8], &bytes[124..136]), (&b"a/b.txt\0"[..], &b"00000000005\0"[..]));
        assert_eq!(
            (&bytes[BLOCK..BLOCK + 6], &bytes[BLOCK * 2..BLOCK * 2 + 7]),
            (&b"hello\0"[..], &b"a/empty"[..])
        );
        let mut first = bytes[..BLOCK].to_vec();
        let told = u32::from_str_radix(std::str::from_utf8(&first[148..154]).unwrap(), 8).unwrap();
        first[148..156].fill(b' ');
        assert_eq!(told, first.iter().map(|byte| u32::from(*byte)).sum::<u32>());
        assert!(bytes[BLOCK * 5..].iter().all(|byte| *byte == 0));
    }
}
