// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Takes a TOML file apart, key by key, remembering where everything stood.

use super::{FILE_BYTES_MAX, Fault, FileError, Place, Section, TextFile, printable};
use crate::similar::similar;
use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Parses the text and hands its top table to `build`.
pub(crate) fn open<T>(
    file: &TextFile<'_>,
    section: &'static Section,
    build: impl FnOnce(&Table<'_>) -> Result<T, FileError>,
) -> Result<T, FileError> {
    if file.text.len() > FILE_BYTES_MAX {
        return Err(FileError::whole(file, Fault::TooLong { bytes: file.text.len() }));
    }
    let table = DeTable::parse(file.text).map_err(|error| FileError {
        file: file.name.to_owned(),
        place: error.span().map(|span| file.place(span.start)),
        key: None,
        fault: Box::new(Fault::Syntax { text: error.message().replace('\n', "; ") }),
    })?;
    build(&Table::new(file, String::new(), table.get_ref(), table.span(), section)?)
}

/// A table of the file, all of whose keys are known.
pub(crate) struct Table<'a> {
    file: &'a TextFile<'a>,
    /// What stands before a key of this table: empty, or `boot.`.
    prefix: String,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    section: &'static Section,
}

/// A value of the file with its place.
pub(crate) struct Field<'a, T> {
    pub value: T,
    file: &'a TextFile<'a>,
    key: String,
    place: Place,
}

impl<'a> Table<'a> {
    fn new(
        file: &'a TextFile<'a>,
        prefix: String,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        section: &'static Section,
    ) -> Result<Self, FileError> {
        // In the order of the file, so that the first mistake is named first.
        let unknown = table
            .keys()
            .filter(|key| section.names().all(|name| name != key.get_ref()))
            .min_by_key(|key| key.span().start);
        if let Some(key) = unknown {
            return Err(FileError {
                file: file.name.to_owned(),
                place: Some(file.place(key.span().start)),
                key: Some(format!("{prefix}{}", printable(key.get_ref()))),
                fault: Box::new(Fault::UnknownKey {
                    similar: similar(key.get_ref(), section.names()).map(str::to_owned),
                    known: section.names().map(str::to_owned).collect(),
                }),
            });
        }
        Ok(Self { file, prefix, table, span, section })
    }

    /// Returns the value of a key, whatever its type, if the key is there.
    fn value(&self, key: &str) -> Option<Field<'a, &'a DeValue<'a>>> {
        debug_assert!(self.section.names().any(|name| name == key), "`{key}` is not documented");
        let value = self.table.get(key)?;
        Some(self.field(key.to_owned(), value))
    }

    fn field(&self, key: String, value: &'a Spanned<DeValue<'a>>) -> Field<'a, &'a DeValue<'a>> {
        Field {
            value: value.get_ref(),
            file: self.file,
            key: format!("{}{key}", self.prefix),
            place: self.file.place(value.span().start),
        }
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<Field<'a, &'a str>>, FileError> {
        self.value(key).map(|field| field.typed("a string", DeValue::as_str)).transpose()
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, FileError> {
        let field = self.value(key).map(|field| field.typed("true or false", DeValue::as_bool));
        Ok(field.transpose()?.map(|field| field.value))
    }

    /// Reads a whole number in `range`.
    pub(crate) fn number(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<Option<u32>, FileError> {
        let Some(field) = self.value(key) else { return Ok(None) };
        let field = field.typed("a whole number", DeValue::as_integer)?;
        let number = u32::from_str_radix(field.value.as_str(), field.value.radix()).ok();
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(field.bad(format!(
                "{} is not a number from {} to {}",
                field.value,
                range.start(),
                range.end()
            ))),
        }
    }

    /// Reads a list of strings; one string alone is a list of its words.
    pub(crate) fn strings(&self, key: &str) -> Result<Vec<Field<'a, &'a str>>, FileError> {
        let Some(field) = self.value(key) else { return Ok(Vec::new()) };
        if let Some(words) = field.value.as_str() {
            let list = words.split_whitespace().map(|word| field.with(word));
            return Ok(list.collect());
        }
        let list = field.typed("a list of strings", DeValue::as_array)?;
        let items = list.value.iter().enumerate();
        items
            .map(|(index, item)| {
                self.field(format!("{key}[{index}]"), item).typed("a string", DeValue::as_str)
            })
            .collect()
    }

    /// Opens a table below this one.
    pub(crate) fn table(
        &self,
        key: &str,
        section: &'static Section,
    ) -> Result<Option<Table<'a>>, FileError> {
        let Some(field) = self.value(key) else { return Ok(None) };
        let field = field.typed("a table", DeValue::as_table)?;
        let span = self.table.get(key).map(Spanned::span).expect("the key was found");
        let prefix = format!("{}.", field.key);
        Table::new(self.file, prefix, field.value, span, section).map(Some)
    }

    /// Opens the tables of a `[[list]]`.
    pub(crate) fn tables(
        &self,
        key: &str,
        section: &'static Section,
    ) -> Result<Vec<Table<'a>>, FileError> {
        let Some(field) = self.value(key) else { return Ok(Vec::new()) };
        let list = field.typed("a list of tables", DeValue::as_array)?;
        let items = list.value.iter().enumerate();
        items
            .map(|(index, item)| {
                let name = format!("{key}[{index}]");
                let field = self.field(name, item).typed("a table", DeValue::as_table)?;
                let prefix = format!("{}.", field.key);
                Table::new(self.file, prefix, field.value, item.span(), section)
            })
            .collect()
    }

    /// Returns the error for this table as a whole, or for a key that belongs into it.
    pub(crate) fn error(&self, key: Option<&str>, fault: Fault) -> FileError {
        let value = key.and_then(|key| self.table.get(key));
        // The top table has no place of its own: what is missing there is missing in the file.
        let own_start = (!self.prefix.is_empty()).then_some(self.span.start);
        let start = value.map(|value| value.span().start).or(own_start);
        let name = match key {
            Some(key) => format!("{}{key}", self.prefix),
            None => self.prefix.trim_end_matches('.').to_owned(),
        };
        FileError {
            file: self.file.name.to_owned(),
            place: start.map(|start| self.file.place(start)),
            key: (!name.is_empty()).then_some(name),
            fault: Box::new(fault),
        }
    }

    pub(crate) fn missing(&self, key: &str, text: &str) -> FileError {
        self.error(Some(key), Fault::Missing { text: text.to_owned() })
    }

    pub(crate) fn conflict(&self, text: impl Into<String>) -> FileError {
        self.error(None, Fault::Conflict { text: text.into() })
    }
}

impl<'a, T> Field<'a, T> {
    pub(crate) fn with<U>(&self, value: U) -> Field<'a, U> {
        Field { value, file: self.file, key: self.key.clone(), place: self.place }
    }

    pub(crate) fn bad(&self, text: impl Into<String>) -> FileError {
        self.error(Fault::BadValue { text: text.into() })
    }

    pub(crate) fn error(&self, fault: Fault) -> FileError {
        FileError {
            file: self.file.name.to_owned(),
            place: Some(self.place),
            key: Some(self.key.clone()),
            fault: Box::new(fault),
        }
    }
}

impl<'a> Field<'a, &'a DeValue<'a>> {
    fn typed<U>(
        &self,
        expected: &'static str,
        read: impl FnOnce(&'a DeValue<'a>) -> Option<U>,
    ) -> Result<Field<'a, U>, FileError> {
        match read(self.value) {
            Some(value) => Ok(self.with(value)),
            None => Err(self.error(Fault::WrongType { expected, found: type_name(self.value) })),
        }
    }
}

impl<'a> Field<'a, &'a str> {
    /// Turns the string into something checked.
    pub(crate) fn check<U, E: Display>(
        &self,
        check: impl FnOnce(&'a str) -> Result<U, E>,
    ) -> Result<U, FileError> {
        check(self.value).map_err(|error| self.bad(error.to_string()))
    }

    /// Turns the string into one of a few words.
    pub(crate) fn word<U: Copy>(&self, words: &[(&str, U)]) -> Result<U, FileError> {
        let found = words.iter().find(|(word, _)| *word == self.value);
        found.map(|&(_, value)| value).ok_or_else(|| {
            let list: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.bad(format!("`{}` is not one of {}", printable(self.value), list.join(", ")))
        })
    }

    pub(crate) fn path(&self) -> Result<PathBuf, FileError> {
        self.check(|text| self.file.path(text))
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
