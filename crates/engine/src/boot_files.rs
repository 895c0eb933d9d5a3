// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The files that a guest's next start needs, described by content: another host has to have the
//! same.

use crate::error::EngineError;
use std::io::Read;
use std::path::Path;
use whimbrel_model::guest::{Boot, Guest};
use whimbrel_model::passport::{BootFile, BootRole};

const READ_BYTES: usize = 1 << 20;

/// Describes the kernel and ramdisk that the definition names, if it does. Blocks.
pub(crate) fn of_kernel(guest: &Guest) -> Result<Vec<BootFile>, EngineError> {
    let Boot::Kernel { kernel, ramdisk, .. } = &guest.boot else { return Ok(Vec::new()) };
    let kernel = describe(BootRole::Kernel, kernel);
    let ramdisk = ramdisk.as_ref().map(|path| describe(BootRole::Ramdisk, path));
    std::iter::once(kernel).chain(ramdisk).collect()
}

/// Reads one file to its end. Blocks.
pub(crate) fn describe(role: BootRole, path: impl AsRef<Path>) -> Result<BootFile, EngineError> {
    let path = path.as_ref();
    let failed = |source| EngineError::File { action: "read", path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    let blake3 = *hasher.finalize().as_bytes();
    Ok(BootFile { role, path: path.to_owned(), bytes: hasher.count(), blake3 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest is of the content, whatever its length.
    #[test]
    fn files_are_described_by_content() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content = vec![7; READ_BYTES + 3];
        std::fs::write(file.path(), &content).unwrap();
        let found = describe(BootRole::Kernel, file.path()).unwrap();
        assert_eq!(found.bytes, content.len() as u64);
        assert_eq!(found.blake3, *blake3::hash(&content).as_bytes());
        assert!(describe(BootRole::Kernel, "/nonexistent/kernel").is_err());
    }
}
