// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Files that people write: TOML whose errors name the file, the line, the column and the key.
//!
//! A file format here is a few tables of [`Key`]s. The same tables tell the reader which keys
//! exist (anything else is refused, with the nearest known name) and make the reference page, so
//! that the two cannot disagree.
//!
//! Nothing is read from disk: the caller brings the text.

mod read;
mod reference;

pub(crate) use read::{Field, Table, open};
pub(crate) use reference::{Key, Section, render};

use crate::codes;
use crate::problem::{Kind, Remedy};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// Longest file that is looked at, in bytes.
pub const FILE_BYTES_MAX: usize = 64 * 1024;

/// A file that somebody wrote and the caller has read.
#[derive(Clone, Copy, Debug)]
pub struct TextFile<'a> {
    /// How errors name it: usually its path as the user typed it.
    pub name: &'a str,
    pub text: &'a str,
    /// The folder that relative paths in it start from; without one they are refused.
    pub base: Option<&'a Path>,
}

/// A place in a file. Both numbers start at 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// Why a file was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    pub file: String,
    pub place: Option<Place>,
    /// The key with its tables: `disk[1].path`.
    pub key: Option<String>,
    pub fault: Box<Fault>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be taken apart at all.
    Syntax {
        text: String,
    },
    UnknownKey {
        similar: Option<String>,
        known: Vec<String>,
    },
    WrongType {
        expected: &'static str,
        found: &'static str,
    },
    /// The value has the right type and says something that cannot be.
    BadValue {
        text: String,
    },
    Missing {
        text: String,
    },
    /// Two keys, each fine, that contradict each other.
    Conflict {
        text: String,
    },
    TooLong {
        bytes: usize,
    },
    Version {
        found: String,
    },
    /// It is understood, and cannot be done here without changing what it means.
    Unsupported {
        text: String,
        remedy: String,
    },
}

impl FileError {
    pub(crate) fn whole(file: &TextFile<'_>, fault: Fault) -> Self {
        Self { file: file.name.to_owned(), place: None, key: None, fault: Box::new(fault) }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        match (&self.key, &*self.fault) {
            (Some(key), Fault::UnknownKey { .. }) => write!(f, ": unknown key `{key}`"),
            (Some(key), fault) => write!(f, ": `{key}`: {fault}"),
            (None, fault) => write!(f, ": {fault}"),
        }
    }
}

impl std::error::Error for FileError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Syntax { text }
            | Fault::BadValue { text }
            | Fault::Missing { text }
            | Fault::Conflict { text }
            | Fault::Unsupported { text, .. } => f.write_str(text),
            Fault::UnknownKey { .. } => f.write_str("unknown key"),
            Fault::WrongType { expected, found } => write!(f, "expected {expected}, found {found}"),
            Fault::TooLong { bytes } => {
                write!(f, "the file has {bytes} bytes, and at most {FILE_BYTES_MAX} are read")
            }
            Fault::Version { found } => {
                write!(f, "the file has version {found}, and this Whimbrel reads version 1")
            }
        }
    }
}

impl Remedy for FileError {
    fn code(&self) -> &'static str {
        match &*self.fault {
            Fault::Syntax { .. } => codes::FILE_SYNTAX,
            Fault::UnknownKey { .. } => codes::FILE_UNKNOWN_KEY,
            Fault::WrongType { .. } => codes::FILE_WRONG_TYPE,
            Fault::BadValue { .. } => codes::FILE_BAD_VALUE,
            Fault::Missing { .. } => codes::FILE_MISSING_KEY,
            Fault::Conflict { .. } => codes::FILE_CONFLICT,
            Fault::TooLong { .. } => codes::FILE_TOO_LONG,
            Fault::Version { .. } => codes::FILE_VERSION,
            Fault::Unsupported { .. } => codes::FILE_UNSUPPORTED,
        }
    }

    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn remedy(&self) -> String {
        let place = match self.place {
            Some(Place { line, .. }) => format!("line {line} of {}", self.file),
            None => self.file.clone(),
        };
        match &*self.fault {
            Fault::UnknownKey { similar: Some(similar), .. } => {
                format!("did you mean `{similar}`? Correct {place}")
            }
            Fault::UnknownKey { similar: None, known } => {
                format!("remove it from {place}; known here: {}", known.join(", "))
            }
            Fault::Missing { .. } => format!("add it to {}", self.file),
            Fault::TooLong { .. } => "give a file that somebody wrote, not an image".to_owned(),
            Fault::Version { .. } => "upgrade Whimbrel on this host".to_owned(),
            Fault::Unsupported { remedy, .. } => remedy.clone(),
            Fault::Syntax { .. }
            | Fault::WrongType { .. }
            | Fault::BadValue { .. }
            | Fault::Conflict { .. } => format!("correct {place}"),
        }
    }
}

impl TextFile<'_> {
    /// Finds line and column of a byte of the text.
    pub(crate) fn place(&self, at: usize) -> Place {
        let mut end = at.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    pub(crate) fn path(&self, text: &str) -> Result<PathBuf, String> {
        check_path(text, self.base)
    }
}

/// Returns a text as it can be shown: without control characters, and not too long.
pub(crate) fn printable(text: impl fmt::Display) -> String {
    let text = text.to_string();
    const SHOWN_CHARS_MAX: usize = 80;
    let shown = text.chars().take(SHOWN_CHARS_MAX);
    let mut shown: String =
        shown.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Makes a path absolute and checks that it says only one thing.
pub(crate) fn check_path(text: &str, base: Option<&Path>) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if text.is_empty() {
        return Err("a path cannot be empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err(format!("the path `{}` contains a control character", printable(text)));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("the path `{text}` contains `..`; write where it really leads"));
    }
    let absolute = match base {
        _ if path.is_absolute() => path.to_owned(),
        Some(base) => base.join(path),
        None => return Err(format!("the path `{text}` is relative; begin it with `/`")),
    };
    Ok(absolute.components().collect())
}
