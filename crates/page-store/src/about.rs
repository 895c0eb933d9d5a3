// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What people are told of an image: the only part of it that is not sealed.

use serde::{Deserialize, Serialize};
use whimbrel_model::id::{GuestName, HostName};
use whimbrel_pages::image::ImageId;

/// Longer than any description can be.
pub(crate) const ABOUT_BYTES_MAX: usize = 4096;

const VERSION: u32 = 1;

/// What an image is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub guest: GuestName,
    pub image: ImageId,
    /// Filled in when the image is finished, and so is `bytes`.
    pub pages: u64,
    pub bytes: u64,
    pub created_unix_ms: u64,
    pub went_to: HostName,
}

#[derive(Serialize, Deserialize)]
struct RawAbout {
    version: u32,
    guest: String,
    image: String,
    pages: u64,
    created_unix_ms: u64,
    went_to: String,
}

impl About {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let raw = RawAbout {
            version: VERSION,
            guest: self.guest.to_string(),
            image: hex(self.image),
            pages: self.pages,
            created_unix_ms: self.created_unix_ms,
            went_to: self.went_to.to_string(),
        };
        let bytes = serde_json::to_vec(&raw).expect("names and numbers are valid JSON");
        assert!(bytes.len() <= ABOUT_BYTES_MAX, "names are short");
        bytes
    }

    /// Reads the description of a file that has so many bytes; none if it is not one we know.
    pub(crate) fn from_bytes(bytes: &[u8], file_bytes: u64) -> Option<Self> {
        let raw: RawAbout = serde_json::from_slice(bytes).ok()?;
        if raw.version != VERSION {
            return None;
        }
        Some(Self {
            guest: GuestName::new(raw.guest).ok()?,
            image: image_id(&raw.image)?,
            pages: raw.pages,
            bytes: file_bytes,
            created_unix_ms: raw.created_unix_ms,
            went_to: HostName::new(raw.went_to).ok()?,
        })
    }
}

/// Writes an image's id as it stands in file names: 32 digits.
pub(crate) fn hex(id: ImageId) -> String {
    uuid::Uuid::from_bytes(id.0).simple().to_string()
}

/// Reads what [`hex`] wrote, and nothing else.
pub(crate) fn image_id(text: &str) -> Option<ImageId> {
    let id = ImageId(*uuid::Uuid::try_parse(text).ok()?.as_bytes());
    (hex(id) == text).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description comes back as it was; one of a later version, or with a name that is none, is
    /// not guessed at.
    #[test]
    fn a_description_comes_back() {
        let about = About {
            guest: GuestName::new("web1").unwrap(),
            image: ImageId([0xab; 16]),
            pages: 7,
            bytes: 8,
            created_unix_ms: 1_700_000_000_000,
            went_to: HostName::new("beta").unwrap(),
        };
        let bytes = about.to_bytes();
        assert_eq!(About::from_bytes(&bytes, 8), Some(about));
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in [("\"version\":1", "\"version\":2"), ("web1", "a/b"), ("abab", "ABAB")] {
            let other = text.replace(from, to);
            assert_ne!(other, text);
            assert_eq!(About::from_bytes(other.as_bytes(), 8), None, "{other}");
        }
    }
}
