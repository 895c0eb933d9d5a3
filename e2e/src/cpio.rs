// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Writes the archive a kernel unpacks as its first file system (cpio, "newc").

use anyhow::{Context as _, Result};
use std::io::Write;

const HEADER_FIELDS: usize = 13;
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// An archive under way: directories first, then what lies in them.
pub struct Archive<W> {
    out: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Archive { out, entries: 0 }
    }

    pub fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, DIRECTORY, &[])
    }

    pub fn program(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, PROGRAM, content)
    }

    pub fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, FILE, content)
    }

    /// A symbolic link.
    pub fn link(&mut self, name: &str, to: &str) -> Result<()> {
        self.entry(name, LINK, to.as_bytes())
    }

    /// Writes the end mark.
    pub fn finish(mut self) -> Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let mut fields = [0; HEADER_FIELDS];
        fields[0] = self.entries; // inode
        fields[1] = mode;
        fields[4] = 1; // links
        fields[6] = u32::try_from(content.len()).context("a file too large for cpio")?;
        fields[11] = u32::try_from(name.len() + 1).context("a name too long for cpio")?;
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.padded(&[header.as_bytes(), name.as_bytes(), b"\0"].concat())?;
        self.padded(content)
    }

    /// Writes the bytes and fills up to a multiple of four.
    fn padded(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        self.out.write_all(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a small archive, as documented in the kernel's `initramfs-buffer-format`.
    #[test]
    fn an_archive_is_laid_out_as_the_kernel_wants() {
        let mut archive = Archive::new(Vec::new());
        archive.program("init", b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert!(bytes.starts_with(b"070701"));
        assert_eq!(&bytes[14..22], b"000081ed", "mode");
        assert_eq!(&bytes[54..62], b"00000005", "size");
        assert_eq!(&bytes[94..102], b"00000005", "length of the name with its zero");
        assert_eq!(&bytes[110..116], b"init\0\0", "name, padded");
        assert_eq!(&bytes[116..124], b"hello\0\0\0", "content, padded");
        assert!(bytes.len().is_multiple_of(4));
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
