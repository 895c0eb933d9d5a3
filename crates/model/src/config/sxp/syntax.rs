// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Takes an s-expression file apart: `(key value …)`, with `#` comments and quoted strings.

use crate::text_file::{FILE_BYTES_MAX, Fault, FileError, Place, TextFile, printable};

/// `(key value …)`; several values are joined by spaces, and lists inside are kept as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub key: String,
    pub value: String,
    pub place: Place,
}

pub(super) fn parse(file: &TextFile<'_>) -> Result<Vec<Setting>, FileError> {
    if file.text.len() > FILE_BYTES_MAX {
        return Err(FileError::whole(file, Fault::TooLong { bytes: file.text.len() }));
    }
    let mut parser = Parser { file, at: 0 };
    let mut settings = Vec::new();
    while let Some(next) = parser.skip_blank() {
        if next != '(' {
            let text = format!("expected `(`, found `{}`", printable(next));
            return Err(parser.error(parser.at, text));
        }
        settings.extend(parser.setting()?);
    }
    Ok(settings)
}

struct Parser<'a> {
    file: &'a TextFile<'a>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.file.text[self.at..]
    }

    fn error(&self, at: usize, text: impl Into<String>) -> FileError {
        FileError {
            file: self.file.name.to_owned(),
            place: Some(self.file.place(at)),
            key: None,
            fault: Box::new(Fault::Syntax { text: text.into() }),
        }
    }

    /// Skips blanks and comments, and returns what comes next.
    fn skip_blank(&mut self) -> Option<char> {
        loop {
            let next = self.rest().chars().next()?;
            match next {
                '#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                c if c.is_whitespace() => self.at += c.len_utf8(),
                _ => return Some(next),
            }
        }
    }

    /// Reads one `( … )`. Depth is only counted: nothing here recurses. An empty one is nothing.
    fn setting(&mut self) -> Result<Option<Setting>, FileError> {
        let start = self.at;
        let (mut depth, mut words) = (0_usize, Vec::<String>::new());
        loop {
            match self.skip_blank() {
                None => return Err(self.error(start, "this `(` is not closed")),
                Some('(') => {
                    self.at += 1;
                    depth += 1;
                    if depth > 1 {
                        words.push("(".to_owned());
                    }
                }
                Some(')') => {
                    self.at += 1;
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                    words.push(")".to_owned());
                }
                Some(quote @ ('\'' | '"')) => words.push(self.string(quote)?),
                Some(_) => words.push(self.atom()),
            }
        }
        let mut words = words.into_iter();
        Ok(words.next().map(|key| Setting {
            key,
            value: words.collect::<Vec<_>>().join(" "),
            place: self.file.place(start),
        }))
    }

    fn atom(&mut self) -> String {
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || "()'\"".contains(c));
        let atom = &rest[..end.unwrap_or(rest.len())];
        self.at += atom.len();
        atom.to_owned()
    }

    fn string(&mut self, quote: char) -> Result<String, FileError> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.at += offset + c.len_utf8();
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, escaped)) if escaped == quote || escaped == '\\' => text.push(escaped),
                    Some((_, other)) => text.extend(['\\', other]),
                    None => break,
                },
                c => text.push(c),
            }
        }
        Err(self.error(start, "the string is not closed"))
    }
}
