// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A picture for each question: bars, with a line from the least to the most. Bars are drawn by
//! hand: a plotting crate would bring fonts and a hundred dependencies for some rectangles.
//!
//! What is compared is one group, and each group has its own scale: the longest bar fills it.

use super::cell::Question;
use super::cut::{AFTER, RESENT, UNTIL_THERE};
use super::measure::{BYTES, SILENCE, WHOLE};
use super::samples::{Key, Samples};
use crate::bench::table::Spread;
use anyhow::Result;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Figure, title, what it is divided by, decimals.
type Panel = (&'static str, &'static str, f64, usize);

const MOVE: [Panel; 3] = [
    (BYTES, "bytes on the wire, MB", 1e6, 1),
    (WHOLE, "whole time, s", 1e3, 2),
    (SILENCE, "a client's longest silence, ms", 1.0, 0),
];
const CUT: [Panel; 3] = [
    (AFTER, "bytes after the cut, MB", 1e6, 1),
    (RESENT, "sent again, %", 1.0, 1),
    (UNTIL_THERE, "until the guest was there, s", 1e3, 1),
];

const LABELS: f64 = 230.0;
const PANEL: f64 = 300.0;
/// The longest bar; beside it there is room for its number.
const BAR: f64 = 215.0;
const ROW: f64 = 18.0;
const GAP: f64 = 12.0;
const TOP: f64 = 58.0;

/// Draws what was measured beside its figures, a picture a question; returns where they are.
pub(super) fn draw(samples: &Samples) -> Result<Vec<PathBuf>> {
    let name = samples.path().file_stem().unwrap_or_default().to_string_lossy();
    let mut files = Vec::new();
    for question in Question::ALL {
        if let Some(picture) = picture(samples, question) {
            let file = samples.path().with_file_name(format!("{name}-{}.svg", question.name()));
            fs::write(&file, picture)?;
            files.push(file);
        }
    }
    Ok(files)
}

/// Draws the figures that the documentation tells of, `docs/benchmarks/migrate.csv`, anew below
/// another directory. They are written there as well, as a run writes them.
pub(crate) fn references(project: &Path, into: &Path) -> Result<()> {
    let [from, to] = [project, into].map(|root| root.join("docs/benchmarks/migrate.csv"));
    fs::create_dir_all(to.parent().unwrap_or(into))?;
    fs::copy(from, &to)?;
    draw(&Samples::open(&to, false)?).map(drop)
}

fn panels(question: Question) -> [Panel; 3] {
    match question {
        Question::Visit | Question::Return | Question::Converge => MOVE,
        // No silence: a client cannot reach every guest over a wire that is cut.
        Question::Cut => CUT,
    }
}

/// Draws a question; `None` if nothing was measured for it.
pub(super) fn picture(samples: &Samples, question: Question) -> Option<String> {
    let keys = samples.keys(question.name());
    if keys.is_empty() {
        return None;
    }
    let panels = panels(question);
    let mut body = String::new();
    let mut y = TOP;
    for group in keys.chunk_by(|a, b| (&a.kind, &a.link) == (&b.kind, &b.link)) {
        draw_group(&mut body, samples, group, &panels, y);
        y += ROW * rows(group) + GAP;
    }
    let width = LABELS + PANEL * 3.0;
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{y}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"22\" font-size=\"16\" font-weight=\"bold\">{}: medians, and from the \
         least to the most</text>\n",
        question.title()
    );
    let mut x = LABELS;
    for (_, title, ..) in panels {
        let _ = writeln!(picture, "<text x=\"{x}\" y=\"46\" fill=\"#555\">{title}</text>");
        x += PANEL;
    }
    Some(picture + &body + "</svg>\n")
}

fn rows(keys: &[Key]) -> f64 {
    f64::from(u32::try_from(keys.len()).expect("there are few ways"))
}

fn draw_group(body: &mut String, samples: &Samples, group: &[Key], panels: &[Panel; 3], top: f64) {
    let mut y = top;
    for (index, key) in group.iter().enumerate() {
        let Key { kind, link, way, .. } = key;
        let base = y + 13.0;
        if index == 0 {
            let _ = writeln!(body, "<text x=\"8\" y=\"{base}\">{kind}, {link}</text>");
        }
        let end = LABELS - 8.0;
        let _ = writeln!(body, "<text x=\"{end}\" y=\"{base}\" text-anchor=\"end\">{way}</text>");
        y += ROW;
    }
    let mut x = LABELS;
    for (figure, _, unit, decimals) in panels {
        let spreads: Vec<_> = group.iter().map(|key| samples.spread(key, figure)).collect();
        let most = spreads.iter().flatten().map(|spread| spread.most).fold(0.0, f64::max);
        let mut y = top;
        for (key, spread) in group.iter().zip(&spreads) {
            if let Some(spread) = spread.filter(|_| most > 0.0) {
                let text = format!("{:.decimals$}", spread.median / unit);
                draw_bar(body, [x, y], spread, BAR / most, colour(&key.way), &text);
            }
            y += ROW;
        }
        x += PANEL;
    }
}

fn draw_bar(
    body: &mut String,
    [x, y]: [f64; 2],
    spread: Spread,
    scale: f64,
    colour: &str,
    text: &str,
) {
    let Spread { median, least, most, .. } = spread;
    let (width, middle) = (median * scale, y + ROW / 2.0);
    let [from, to] = [least, most].map(|value| x + value * scale);
    let (top, height, after, base) = (y + 2.0, ROW - 4.0, to + 6.0, y + 13.0);
    let _ = writeln!(
        body,
        "<rect x=\"{x}\" y=\"{top}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>\
         <line x1=\"{from:.1}\" y1=\"{middle}\" x2=\"{to:.1}\" y2=\"{middle}\" stroke=\"black\"/>\
         <text x=\"{after:.1}\" y=\"{base}\">{text}</text>"
    );
}

/// Ours are blue, QEMU's orange, libvirt's grey.
fn colour(way: &str) -> &'static str {
    match way {
        "ours" => "#1f5fa8",
        "pages" => "#4f8fd0",
        "tunnel" => "#8fbce6",
        "Qx" => "#d98324",
        "Q0" => "#ecb878",
        _ => "#a8a8a8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way has its bars, and the longest of a group fills it.
    #[test]
    fn the_longest_bar_fills_its_group() {
        let place = tempfile::tempdir().unwrap();
        let mut samples = Samples::open(&place.path().join("f.csv"), true).unwrap();
        for (way, value) in [("ours", 1e6), ("Qx", 4e6)] {
            let [question, kind, link, way] = ["visit", "idle", "1gbit", way].map(str::to_owned);
            let key = Key { question, kind, link, way, round: 0 };
            samples.note(&key, &[(BYTES.to_owned(), value)]).unwrap();
        }
        let picture = picture(&samples, Question::Visit).unwrap();
        assert!(picture.contains("width=\"215.0\"") && picture.contains("width=\"53.8\""));
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
        assert!(super::picture(&samples, Question::Cut).is_none());
    }
}
