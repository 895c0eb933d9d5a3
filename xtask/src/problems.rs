// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The page of all problem codes, read from the source: where an error is defined is where its code
//! and its text are, so the page cannot fall behind.
//!
//! A code is found as a line of a `codes!` table, as a documented constant, as an arm of
//! `Remedy::code` (with the text of its variants' `#[error]`), or, in an area known from those, as
//! a literal beside the text of its problem.

use std::collections::{BTreeMap, BTreeSet};

/// Each code and what it means, as said where it is defined.
pub(crate) type Codes = BTreeMap<String, BTreeSet<String>>;

/// Finds all codes in sources without their tests.
pub(crate) fn find(sources: &[String]) -> Codes {
    let mut codes = Codes::new();
    for source in sources {
        for (code, text) in defined(source) {
            codes.entry(code).or_default().insert(text);
        }
    }
    let areas: BTreeSet<_> =
        codes.keys().filter_map(|code| area(code)).map(str::to_owned).collect();
    for source in sources {
        for (code, text) in beside_a_text(source) {
            let is_known = area(&code).is_some_and(|area| areas.contains(area));
            if is_known && codes.get(&code).is_none_or(BTreeSet::is_empty) {
                codes.entry(code).or_default().insert(text);
            }
        }
    }
    codes
}

/// Writes the page.
pub(crate) fn page(codes: &Codes) -> String {
    let mut page = String::from(INTRODUCTION);
    let mut last = "";
    for (code, texts) in codes {
        let area = area(code).unwrap_or_default();
        if area != last {
            page.push_str(&format!("\n## {area}\n\n"));
            last = area;
        }
        let texts: Vec<_> =
            texts.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
        page.push_str(format!("- `{code}`: {}", texts.join(" · ")).trim_end_matches(": "));
        page.push('\n');
    }
    page
}

const INTRODUCTION: &str = "\
# Problems

Written by `./x gen`; do not edit.

Every problem has a code, a text and a remedy. Scripts match on the code, never on the text. What
stands in braces below is filled in with what was measured; several texts of one code are parted by
a dot. The exit code says what it means for the guest: 1 refused, nothing changed; 2 the command was
not understood; 3 failed, and the guest is where and as it was; 4 in doubt, see `whimbrel recover`.
";

fn defined(source: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if let Some((code, rest)) = line.split_once(" = ").and_then(|(_, rest)| leading_code(rest))
        {
            let is_constant = line.contains("const ");
            // A long text stands below its code.
            let below = || literal(&lines[index + 1..].join("\n"));
            let text = match is_constant {
                true => doc_above(&lines[..index]),
                false => literal(rest).or_else(below),
            };
            found.extend(text.map(|text| (code, text)));
        } else if let Some((_, (code, _))) = split_arm(line) {
            let variants = variants_of_arm(&lines[..=index]);
            let texts = variants.iter().filter_map(|variant| error_text(source, variant));
            found.extend(texts.map(|text| (code.clone(), text)));
        }
    }
    found
}

/// Splits `A { .. } | B(_) => "area/words",`.
fn split_arm(line: &str) -> Option<(&str, (String, &str))> {
    let (pattern, value) = line.split_once("=> ")?;
    Some((pattern, leading_code(value)?))
}

/// Collects the variants of a match arm, which may begin some lines above.
fn variants_of_arm(lines: &[&str]) -> Vec<String> {
    let is_start = |line: &&str| line.contains("=>") || line.ends_with('{');
    let above = &lines[..lines.len() - 1];
    let start = above.iter().rposition(is_start).map_or(0, |start| start + 1);
    let pattern = lines[start..].join(" ");
    let pattern = pattern.split("=>").next().unwrap_or_default();
    let name = |part: &str| {
        let name = part.trim().rsplit("::").next()?;
        Some(name.split([' ', '{', '(']).next()?.to_owned())
    };
    pattern.split('|').filter_map(name).filter(|name| !name.is_empty()).collect()
}

/// Finds the text that an enum's variant displays.
fn error_text(source: &str, variant: &str) -> Option<String> {
    let is_name = |at: usize| {
        let before = source[..at].rsplit('\n').next().unwrap_or_default();
        let after = source[at + variant.len()..].trim_start();
        before.trim().is_empty() && (after.starts_with(['{', '(', ',']))
    };
    let at = source.match_indices(variant).map(|(at, _)| at).find(|at| is_name(*at))?;
    let attribute = source[..at].rfind("#[error(")?;
    // The attribute right above, not that of another variant.
    let between = &source[attribute..at];
    if between.contains("},\n") || between.contains("),\n") {
        return None;
    }
    literal(&between["#[error(".len()..])
}

/// Codes that stand beside their text: `Problem::new(kind, "area/words", "text", …)`.
fn beside_a_text(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices('"') {
        let Some((code, rest)) = leading_code(&source[at..]) else { continue };
        let near = rest.split(';').next().unwrap_or_default();
        // The next literal may be another code, in a table of them.
        let text = literal(near).filter(|text| area(text).is_none());
        found.push((code, text.unwrap_or_default()));
    }
    found
}

fn doc_above(lines: &[&str]) -> Option<String> {
    let count = lines.iter().rev().take_while(|line| line.starts_with("///")).count();
    let doc = &lines[lines.len() - count..];
    let words: Vec<_> = doc.iter().map(|line| line.trim_start_matches('/').trim()).collect();
    (count > 0).then(|| words.join(" "))
}

/// Reads `"area/words-with-dashes"` at the start of `text`.
fn leading_code(text: &str) -> Option<(String, &str)> {
    let (code, rest) = text.strip_prefix('"')?.split_once('"')?;
    area(code)?;
    Some((code.to_owned(), rest))
}

/// Returns the area of what has the form of a code.
fn area(code: &str) -> Option<&str> {
    let (area, words) = code.split_once('/')?;
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    (is_word(area) && words.split('-').all(is_word)).then_some(area)
}

/// Reads the first string literal in `text`, with lines that were broken in the source made whole.
fn literal(text: &str) -> Option<String> {
    let start = text.find('"')? + 1;
    let mut escaped = false;
    let end = text[start..].find(|c| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    })?;
    let mut whole = String::new();
    for line in text[start..start + end].split("\\\n") {
        whole.push_str(if whole.is_empty() { line } else { line.trim_start() });
    }
    Some(whole.replace("\\\"", "\"").replace("\\n", " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
codes! {
    DISK = "plan/disk": "Whether the disk is there.";
    CPU = "plan/cpu":
        "Whether the target can give the guest every CPU feature \
         it sees.";
}
/// There is no such guest.
pub const NOT_FOUND: &str = "guest/not-found";

enum E {
    #[error("`{host}` is \
             silent")]
    Silent { host: String },
    #[error("gone")]
    Gone { source: Io },
    Bare,
}
impl Remedy for E {
    fn code(&self) -> &'static str {
        match self {
            E::Silent { .. }
            | E::Bare => "peer/silent",
            Self::Gone { .. } => "peer/lost",
        }
    }
}
fn f() -> Problem {
    Problem::new(Kind::Failed, "peer/odd", format!("`{x}` is \"odd\""), "do this");
    header("application/json")
}
"#;

    /// Every way in which a code is defined is read, with its text; look-alikes are not.
    #[test]
    fn codes_are_found_with_their_texts() {
        let codes = find(&[SOURCE.to_owned()]);
        let check = |code: &str, text: &str| {
            let texts = codes.get(code).unwrap_or_else(|| panic!("{code} was not found"));
            assert_eq!(texts.iter().collect::<Vec<_>>(), [text], "{code}");
        };
        check("plan/disk", "Whether the disk is there.");
        check("plan/cpu", "Whether the target can give the guest every CPU feature it sees.");
        check("guest/not-found", "There is no such guest.");
        check("peer/silent", "`{host}` is silent");
        check("peer/lost", "gone");
        check("peer/odd", "`{x}` is \"odd\"");
        assert_eq!(codes.len(), 6, "{codes:?}");
    }

    #[test]
    fn the_page_is_ordered_by_area() {
        let page = page(&find(&[SOURCE.to_owned()]));
        let order = ["## guest", "`guest/not-found`", "## peer", "`peer/lost`", "## plan"];
        let places: Vec<_> = order.iter().map(|text| page.find(text).unwrap()).collect();
        assert!(places.is_sorted(), "{page}");
    }
}
