// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The key that leaves a console.

use super::INTERRUPT_KEY;
use std::str::FromStr;

/// One byte, or none: then only the end of the console ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Escape(Option<u8>);

impl Default for Escape {
    /// Ctrl+], as everywhere in this field.
    fn default() -> Self {
        Self(Some(0x1d))
    }
}

impl FromStr for Escape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let control = ["^", "ctrl+", "ctrl-"]
            .into_iter()
            .find_map(|prefix| lower.strip_prefix(prefix).filter(|rest| rest.len() == 1));
        match (control.map(str::as_bytes), text.as_bytes()) {
            (Some([key @ (b'a'..=b'z' | b'[' | b'\\' | b']' | b'^' | b'_')]), _) => {
                Ok(Self(Some(key.to_ascii_uppercase() & 0x1f)))
            }
            (None, _) if lower == "none" => Ok(Self(None)),
            (None, [key @ 0x20..0x7f]) => Ok(Self(Some(*key))),
            _ => Err("write `^]`, `^A`, one character, or `none`".to_owned()),
        }
    }
}

impl Escape {
    /// Returns where in `keys` the user leaves. A console that is only watched is left with
    /// Ctrl+C, too.
    pub(crate) fn find(self, keys: &[u8], is_read_only: bool) -> Option<usize> {
        let leaves = |&key: &u8| self.0 == Some(key) || (is_read_only && key == INTERRUPT_KEY);
        keys.iter().position(leaves)
    }

    /// Returns the key as people say it.
    pub(crate) fn name(self) -> Option<String> {
        self.0.map(|key| match key {
            0..0x20 => format!("Ctrl+{}", char::from(key | 0x40)),
            key => format!("`{}`", char::from(key)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read() {
        let check = |text: &str, byte| assert_eq!(text.parse(), Ok(Escape(byte)), "{text}");
        check("^]", Some(0x1d));
        check("ctrl+]", Some(0x1d));
        check("Ctrl-a", Some(0x01));
        check("^A", Some(0x01));
        check("~", Some(b'~'));
        check("^", Some(b'^'));
        check("none", None);
        for wrong in ["", "^1", "ab", "ctrl+", "ä"] {
            assert!(wrong.parse::<Escape>().is_err(), "{wrong}");
        }
        assert_eq!(Escape::default().name().as_deref(), Some("Ctrl+]"));
    }

    #[test]
    fn the_user_leaves() {
        let escape = Escape::default();
        assert_eq!(escape.find(b"ab\x1dc", false), Some(2));
        assert_eq!(escape.find(b"\x03", false), None);
        assert_eq!(escape.find(b"\x03", true), Some(0));
        assert_eq!(Escape(None).find(b"\x1d", false), None);
    }
}
