// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The reference page of a file format, from the tables that its reader uses.

use std::fmt::Write;

/// One table of a file format.
pub(crate) struct Section {
    /// As it is written: `[boot]`, `[[disk]]`; empty at the top of the file.
    pub header: &'static str,
    pub about: &'static str,
    pub keys: &'static [Key],
}

/// One key, as the reader knows it and as the reference explains it.
pub(crate) struct Key {
    pub name: &'static str,
    /// What is written after `=`; empty for a table, which has a section of its own.
    pub value: &'static str,
    /// What holds where the key is left out.
    pub default: &'static str,
    pub about: &'static str,
}

impl Section {
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }
}

/// Returns the reference page: `title`, `intro`, then every section with its keys.
pub(crate) fn render(title: &str, intro: &str, sections: &[&Section]) -> String {
    let mut page = format!("# {title}\n\n{}\n", intro.trim());
    for section in sections {
        let heading = match section.header {
            "" => "At the top of the file".to_owned(),
            header => format!("`{header}`"),
        };
        let about = section.about.trim();
        write!(page, "\n## {heading}\n\n{about}\n").expect("a String takes everything");
        for key in section.keys.iter().filter(|key| !key.value.is_empty()) {
            let Key { name, value, default, about } = key;
            write!(page, "\n### `{name}`\n\n{about}\n\n- Value: {value}\n- Default: {default}\n")
                .expect("a String takes everything");
        }
    }
    page
}
