// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What comes before a domain: a header of xl's with all of the domain's configuration.
//!
//! The target's xl believes it. It opens the disks that are named there, runs the scripts, and
//! gives the domain the devices; so a paired host could have a guest here that owns this host's
//! disks. What was offered has been judged before (`allow_paths`, `allow_bridges`, memory), so the
//! header is let through only if it says the same, and nothing besides that is not known to be
//! harmless.
//!
//! The header is little-endian: 32 bytes of magic, `0x01020304`, mandatory flags (JSON, stream of
//! version 2), optional flags, and the length of what follows: the length of the configuration, and
//! the configuration.

use super::json::Json;
use crate::error::EngineError;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

mod offered;
pub(super) use offered::{BRIDGE_UNSAID, Difference, FILE as OFFERED, Offered};

const MAGIC: &[u8; 32] = b"Xen saved domain, xl format\n \0 \r";
const BYTE_ORDER: u32 = 0x0102_0304;
/// The configuration is JSON, and the stream after it of libxl's second version.
const MANDATORY_FLAGS: u32 = 0b11;
const HEADER_BYTES: usize = 48;
/// A guest with everything that a file may give it has some 20 KiB.
const CONFIG_BYTES_MAX: usize = 256 << 10;

/// Why a header is not let through.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the link to the source was closed")]
    Cut(#[from] io::Error),
    #[error("what comes is no domain: {0}")]
    NoHeader(&'static str),
    #[error("its configuration cannot be read: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error(transparent)]
    NotAsOffered(#[from] Difference),
}

/// Reads the header from `from` and returns its bytes, if it is of the guest that was offered.
pub(super) fn take(from: &mut impl Read, offered: &Offered) -> Result<Vec<u8>, HeaderError> {
    let mut bytes = vec![0; HEADER_BYTES];
    from.read_exact(&mut bytes)?;
    let word = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were taken"))
    };
    if !bytes.starts_with(MAGIC) || word(&bytes, 32) != BYTE_ORDER {
        return Err(HeaderError::NoHeader("it does not begin like one"));
    }
    if (word(&bytes, 36), word(&bytes, 40)) != (MANDATORY_FLAGS, 0) {
        return Err(HeaderError::NoHeader("it has flags that are not known"));
    }
    let length = usize::try_from(word(&bytes, 44)).unwrap_or(usize::MAX);
    if !(4..=CONFIG_BYTES_MAX).contains(&length) {
        return Err(HeaderError::NoHeader("its configuration is too long or missing"));
    }
    bytes.resize(HEADER_BYTES + length, 0);
    from.read_exact(&mut bytes[HEADER_BYTES..])?;
    let announced = usize::try_from(word(&bytes, HEADER_BYTES)).unwrap_or(usize::MAX);
    if announced != length - 4 {
        return Err(HeaderError::NoHeader("the lengths in it do not agree"));
    }
    let config = &bytes[HEADER_BYTES + 4..];
    let json = config.strip_suffix(b"\0").unwrap_or(config);
    let sent: Json = serde_json::from_slice(json)?;
    if let Some(difference) = offered.differences(&sent).into_iter().next() {
        return Err(difference.into());
    }
    if let Some(own) = offered.with_own_scripts(&sent) {
        replace_config(&mut bytes, &own)?;
    }
    Ok(bytes)
}

/// Puts another configuration into a header, with the lengths that belong to it.
fn replace_config(bytes: &mut Vec<u8>, config: &Json) -> Result<(), HeaderError> {
    let mut text = serde_json::to_vec(config)?;
    // To libxl it is a string of C.
    text.push(0);
    let length = u32::try_from(text.len()).map_err(|_| HeaderError::NoHeader("it is too long"))?;
    bytes.truncate(HEADER_BYTES);
    bytes[44..HEADER_BYTES].copy_from_slice(&(length + 4).to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(text);
    Ok(())
}

#[cfg(test)]
mod tests;
