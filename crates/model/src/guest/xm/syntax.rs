// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Takes a classic file apart: assignments of literals, as data.
//!
//! `xm` executed such a file as Python. Here nothing is executed: a value is a string, a number,
//! `True`, `False`, `None` or a list of them; anything that would have to be computed is refused
//! where it stands. A line ends at its newline, except inside brackets and after a backslash.

use crate::text_file::{Fault, FileError, Place, TextFile, printable};

/// Most assignments of a file, and most items of a list.
const ENTRIES_MAX: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    List(Vec<(Value, Place)>),
    None,
}

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Number(_) => "a number",
            Value::List(_) => "a list",
            Value::None => "None",
        }
    }
}

/// `key = value`, as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub key: String,
    pub place: Place,
    pub value: Value,
    pub value_place: Place,
}

/// Returns the assignments of a file in their order.
pub(super) fn parse(file: &TextFile<'_>) -> Result<Vec<Assignment>, FileError> {
    if file.text.len() > crate::text_file::FILE_BYTES_MAX {
        return Err(FileError::whole(file, Fault::TooLong { bytes: file.text.len() }));
    }
    let mut parser = Parser { file, at: 0 };
    let mut assignments = Vec::new();
    loop {
        parser.skip_blank(true);
        if parser.peek().is_none() {
            return Ok(assignments);
        }
        if assignments.len() >= ENTRIES_MAX {
            return Err(parser.syntax(format!("more than {ENTRIES_MAX} assignments")));
        }
        assignments.push(parser.assignment()?);
    }
}

struct Parser<'a> {
    file: &'a TextFile<'a>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.file.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn place(&self) -> Place {
        self.file.place(self.at)
    }

    fn error(&self, place: Place, key: Option<String>, fault: Fault) -> FileError {
        FileError { file: self.file.name.to_owned(), place: Some(place), key, fault: fault.into() }
    }

    fn syntax(&self, text: impl Into<String>) -> FileError {
        self.error(self.place(), None, Fault::Syntax { text: text.into() })
    }

    fn program(&self, place: Place, what: &str) -> FileError {
        let text = format!("{what}; the file is read as data and never executed");
        let remedy = "write the value itself: a string, a number or a list".to_owned();
        self.error(place, None, Fault::Unsupported { text, remedy })
    }

    /// Skips blanks and comments; newlines (and `;`) only where they mean nothing.
    fn skip_blank(&mut self, across_lines: bool) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r' | '\u{feff}') => drop(self.bump()),
                Some('\n' | ';') if across_lines => drop(self.bump()),
                Some('\\') if self.rest()[1..].trim_start_matches('\r').starts_with('\n') => {
                    while self.bump().is_some_and(|c| c != '\n') {}
                }
                Some('#') => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                Some(_) | None => return,
            }
        }
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn assignment(&mut self) -> Result<Assignment, FileError> {
        let place = self.place();
        let key = self.word();
        if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) {
            let found = self.peek().unwrap_or(' ').escape_debug();
            return Err(self.syntax(format!("expected `key = value`, found `{found}`")));
        }
        self.skip_blank(false);
        let rest = self.rest();
        if !rest.starts_with('=') || rest.starts_with("==") {
            let line = self.file.text.lines().nth(place.line - 1).unwrap_or_default().trim();
            let what = format!("`{}` is a line of a program", printable(line));
            return Err(self.program(place, &what));
        }
        self.bump();
        self.skip_blank(false);
        let value_place = self.place();
        let value = self.value(key, false)?;
        self.skip_blank(false);
        match self.peek() {
            None | Some('\n' | ';') => {
                Ok(Assignment { key: key.to_owned(), place, value, value_place })
            }
            Some('+' | '%' | '*' | '.' | '(' | '[' | '-' | '/' | '|') => {
                Err(self.program(value_place, &format!("`{key}` is computed")))
            }
            Some(found) => {
                let found = printable(found);
                Err(self.syntax(format!("expected the end of the line, found `{found}`")))
            }
        }
    }

    fn value(&mut self, key: &str, in_list: bool) -> Result<Value, FileError> {
        let place = self.place();
        match self.peek() {
            Some('\'' | '"') => self.string(false).map(Value::Text),
            Some('[' | '(') if in_list => {
                Err(self.program(place, &format!("`{key}` has a list inside a list")))
            }
            Some('[') => self.list(key, ']'),
            Some('(') => self.list(key, ')'),
            Some(c) if c.is_ascii_digit() || c == '-' => self.number(),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => self.named(key),
            Some(found) if found != '\n' => {
                let found = printable(found);
                Err(self.syntax(format!("expected a value for `{key}`, found `{found}`")))
            }
            Some(_) | None => Err(self.syntax(format!("expected a value for `{key}`"))),
        }
    }

    /// `True`, `None`, the prefix of a string, or the beginning of a program.
    fn named(&mut self, key: &str) -> Result<Value, FileError> {
        let place = self.place();
        let word = self.word();
        let is_string = matches!(self.peek(), Some('\'' | '"'));
        match word {
            "r" | "R" if is_string => self.string(true).map(Value::Text),
            "u" | "U" | "b" | "B" if is_string => self.string(false).map(Value::Text),
            "True" => Ok(Value::Number(1)),
            "False" => Ok(Value::Number(0)),
            "None" => Ok(Value::None),
            _ => Err(self.program(place, &format!("`{key}` is computed from `{word}`"))),
        }
    }

    fn number(&mut self) -> Result<Value, FileError> {
        let place = self.place();
        let negative = self.rest().starts_with('-');
        self.at += usize::from(negative);
        let word = self.word();
        let digits = word.trim_end_matches(['l', 'L']).to_ascii_lowercase();
        let parsed = match digits.get(..2) {
            Some("0x") => i64::from_str_radix(&digits[2..], 16),
            Some("0o") => i64::from_str_radix(&digits[2..], 8),
            // As Python 2 and C have it.
            Some(_) if digits.starts_with('0') => i64::from_str_radix(&digits, 8),
            Some(_) | None => digits.parse(),
        };
        match parsed {
            Ok(number) if self.peek() != Some('.') => {
                Ok(Value::Number(if negative { -number } else { number }))
            }
            Ok(_) | Err(_) => {
                let text = format!("`{}` is not a whole number", printable(word));
                Err(self.error(place, None, Fault::BadValue { text }))
            }
        }
    }

    fn list(&mut self, key: &str, end: char) -> Result<Value, FileError> {
        let open = self.place();
        self.bump();
        let mut items = Vec::new();
        loop {
            self.skip_blank(true);
            if self.peek() == Some(end) {
                self.bump();
                return Ok(Value::List(items));
            }
            if self.peek().is_none() {
                let text = format!("the list of `{key}` is not closed with `{end}`");
                return Err(self.error(open, None, Fault::Syntax { text }));
            }
            if items.len() >= ENTRIES_MAX {
                return Err(self.syntax(format!("`{key}` has more than {ENTRIES_MAX} items")));
            }
            let place = self.place();
            items.push((self.value(key, true)?, place));
            self.skip_blank(true);
            match self.peek() {
                Some(',') => drop(self.bump()),
                Some(c) if c == end => {}
                Some('\'' | '"') => {
                    return Err(self.syntax("a comma is missing between two items"));
                }
                Some('+' | '%' | '*' | '.') => {
                    return Err(self.program(place, &format!("`{key}` is computed")));
                }
                Some(_) | None => {
                    return Err(self.syntax(format!("expected `,` or `{end}` in `{key}`")));
                }
            }
        }
    }

    fn string(&mut self, is_raw: bool) -> Result<String, FileError> {
        let open = self.place();
        let quote = self.bump().expect("the caller saw a quote");
        let triple: String = [quote; 3].iter().collect();
        let is_triple = self.file.text[self.at - 1..].starts_with(&triple);
        self.at += if is_triple { 2 } else { 0 };
        let mut text = String::new();
        loop {
            if is_triple && self.rest().starts_with(&triple) {
                self.at += 3;
                return Ok(text);
            }
            match self.bump() {
                Some(c) if c == quote && !is_triple => return Ok(text),
                Some('\n') if !is_triple => break,
                Some('\\') if !is_raw => self.escape(&mut text)?,
                Some(c) => text.push(c),
                None => break,
            }
        }
        let text = "the string is not closed".to_owned();
        Err(self.error(open, None, Fault::Syntax { text }))
    }

    fn escape(&mut self, text: &mut String) -> Result<(), FileError> {
        match self.bump() {
            Some('\n') => {}
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some(c @ ('\\' | '\'' | '"')) => text.push(c),
            Some('x' | 'u' | 'N' | '0'..='7') => {
                return Err(self.syntax("write the character itself, not its number"));
            }
            // As Python does with what it does not know.
            Some(c) => text.extend(['\\', c]),
            None => {}
        }
        Ok(())
    }
}
