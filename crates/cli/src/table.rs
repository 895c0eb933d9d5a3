// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Columns of text.

/// Where a column stands in its space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table: a head, and rows of as many cells.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "a row has a cell for every column");
        self.rows.push(cells);
    }

    /// Returns the lines, columns two spaces apart, without spaces at their ends.
    pub(crate) fn render(&self) -> String {
        let width = |(index, (head, _)): (usize, &(&str, Align))| {
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells.chain([head.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = self.columns.iter().enumerate().map(width).collect();
        let head: Vec<String> = self.columns.iter().map(|(head, _)| (*head).to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let cells = row.iter().zip(&self.columns).zip(&widths);
            let padded: Vec<String> = cells
                .map(|((cell, (_, align)), &width)| match align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                })
                .collect();
            text.push_str(padded.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// Returns `name  value` lines, the names in one column; lines without a value are left out.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let shown = || fields.iter().filter(|(_, value)| !value.is_empty());
    let width = shown().map(|(name, _)| name.len()).max().unwrap_or(0);
    shown()
        .map(|(name, value)| {
            let indent = format!("\n{:width$}  ", "");
            format!("{name:<width$}  {}\n", value.replace('\n', &indent))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns are as wide as their widest cell, and lines have no spaces at their ends.
    #[test]
    fn tables_are_aligned() {
        let mut table =
            Table::new(&[("Name", Align::Left), ("ID", Align::Right), ("Host", Align::Left)]);
        table.row(vec!["web1".into(), "7".into(), "alpha".into()]);
        table.row(vec!["database".into(), "12".into(), String::new()]);
        assert_eq!(table.render(), "Name      ID  Host\nweb1       7  alpha\ndatabase  12\n");
    }

    /// Values of several lines stay in their column.
    #[test]
    fn fields_are_aligned() {
        let text = fields(&[("a", "1".into()), ("long", "2\n3".into()), ("gone", String::new())]);
        assert_eq!(text, "a     1\nlong  2\n      3\n");
    }
}
