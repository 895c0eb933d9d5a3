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
//!
//! libxl reads JSON in C: it takes the first of two equal keys, and ends a string at a NUL. Here
//! neither is let through.

use crate::error::EngineError;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

mod offered;
pub(super) use offered::Offered;

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
    #[error("`{key}` is {found}, and {expected} was offered")]
    Differs { key: String, found: String, expected: String },
    #[error("it has `{key}` ({found}), which was not offered")]
    NotOffered { key: String, found: String },
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
    offered.check(&serde_json::from_slice(json)?)?;
    Ok(bytes)
}

/// JSON in which no key comes twice and no string holds a NUL.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Null,
    Bool(bool),
    Number(i128),
    Text(String),
    List(Vec<Json>),
    Map(BTreeMap<String, Json>),
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => write!(f, "null"),
            Json::Bool(is) => write!(f, "{is}"),
            Json::Number(number) => write!(f, "{number}"),
            Json::Text(text) => write!(f, "`{}`", text.escape_debug()),
            Json::List(items) => write!(f, "a list of {}", items.len()),
            // A disk is called by its path, a network card by its address.
            Json::Map(map) => match map.get("pdev_path").or(map.get("mac")) {
                Some(name @ Json::Text(_)) => write!(f, "{name}"),
                _ => write!(f, "a group of settings"),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JSON with whole numbers")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Json, E> {
        match value.contains('\0') {
            true => Err(E::custom("a string with a NUL")),
            false => Ok(Json::Text(value.to_owned())),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = from.next_entry::<String, Json>()? {
            if key.contains('\0') || map.contains_key(&key) {
                return Err(de::Error::custom(format!("`{}` twice", key.escape_debug())));
            }
            map.insert(key, value);
        }
        Ok(Json::Map(map))
    }
}

#[cfg(test)]
mod tests;
