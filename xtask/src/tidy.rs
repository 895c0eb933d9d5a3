// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Keeps the house tidy: what no compiler checks.

use crate::shell::Shell;
use std::fs;
use std::path::Path;

const LINE_MAX: usize = 100;
const FUNCTION_MAX: usize = 70;
/// Lines of a file without its tests.
const FILE_MAX: usize = 800;
const LICENCE: &str = "SPDX-License-Identifier: Apache-2.0 OR MIT";

/// A word that is not used here, and the one that is. Written in halves, so that this list does not
/// find itself.
const BANNED: &[(&str, &str)] = &[
    (concat!("ds", "t"), "target"),
    (concat!("de", "st"), "target"),
    (concat!("FIX", "ME"), "an issue"),
    (concat!("XX", "X"), "an issue"),
    (concat!("#[ign", "ore]"), "a test that runs"),
    (concat!("hyper", "visors"), "engines"),
];

/// Paths of a developer's own machine have no business in the project.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];

struct Source {
    name: String,
    text: String,
}

impl Source {
    /// The text before the unit tests: tables of cases may be as long as they need to be.
    fn without_tests(&self) -> &str {
        if self.name.ends_with("/tests.rs") {
            return "";
        }
        self.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(&self.text)
    }
}

/// All committed files with one of these endings.
fn sources(endings: &[&str]) -> Vec<Source> {
    let shell = Shell::at_root().unwrap();
    let output = shell.command("git", &["ls-files", "-co", "--exclude-standard"]).output().unwrap();
    assert!(output.status.success(), "tidy asks git which files belong to the project");
    let names = String::from_utf8(output.stdout).unwrap();
    let wanted = names.lines().filter(|name| endings.iter().any(|ending| name.ends_with(ending)));
    wanted
        .filter_map(|name| {
            let text = fs::read_to_string(shell.root.join(name)).ok()?;
            Some(Source { name: name.to_owned(), text })
        })
        .collect()
}

/// Fails with all faults at once: one run shows everything there is to do.
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn each_line(sources: &[Source], fault: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let lines = |source: &Source| {
        let numbered = (1..).zip(source.text.lines());
        let faults = numbered.filter_map(|(number, line)| Some((number, fault(line)?)));
        faults.map(|(number, what)| format!("{}:{number}: {what}", source.name)).collect::<Vec<_>>()
    };
    sources.iter().flat_map(lines).collect()
}

/// Tells whether `word` stands in `line` as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// rustfmt breaks code, and neither texts nor tables.
#[test]
fn lines_fit_the_page() {
    assert_none(&each_line(&sources(&[".rs", ".toml.example", ".proto"]), |line| {
        let length = line.chars().count();
        let quotes = line.chars().take(LINE_MAX).filter(|&c| c == '"').count();
        let is_in_text = quotes % 2 == 1;
        let is_table = line.trim_start().trim_start_matches(['/', '!', ' ']).starts_with('|');
        (length > LINE_MAX && !is_in_text && !is_table)
            .then(|| format!("{length} columns, {LINE_MAX} fit"))
    }));
}

#[test]
fn every_source_file_names_its_licence() {
    let lacks = |source: &Source| !source.text.lines().take(3).any(|line| line.contains(LICENCE));
    let sources = sources(&[".rs", ".proto", ".sh"]);
    let faults: Vec<_> = sources.iter().filter(|source| lacks(source)).collect();
    assert_none(&faults.iter().map(|s| format!("{}: no `{LICENCE}`", s.name)).collect::<Vec<_>>());
}

#[test]
fn files_and_functions_fit_a_head() {
    let mut faults = Vec::new();
    for source in sources(&[".rs"]) {
        let count = source.without_tests().lines().count();
        if count > FILE_MAX {
            faults.push(format!("{}: {count} lines, {FILE_MAX} are the limit", source.name));
        }
        for (line, length) in long_functions(source.without_tests()) {
            faults.push(format!("{}:{line}: {length} lines in one function", source.name));
        }
    }
    assert_none(&faults);
}

/// Finds functions by their indentation, which rustfmt vouches for.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    // A function that only lists things may be as long as the list; it says so inside.
    let mut is_table = false;
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        match &open {
            Some((start, end)) if line == end => {
                let length = number - start + 1;
                if length > FUNCTION_MAX && !is_table {
                    found.push((*start, length));
                }
                open = None;
            }
            // Only a signature, as in a trait.
            Some((_, end)) if line.starts_with(&end.replace('}', ")")) && line.ends_with(';') => {
                open = None;
            }
            Some(_) => is_table |= code.starts_with("// A table:"),
            None if has_word(code, "fn") && is_function(code) => {
                open = Some((number, format!("{indent}}}")));
                is_table = false;
            }
            None => {}
        }
    }
    found
}

/// The first line of a function with a body, or of one whose body opens further down.
fn is_function(code: &str) -> bool {
    let starts = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "const fn "];
    let starts_async = ["pub async fn ", "pub(crate) async fn ", "pub(super) async fn "];
    let is_one = starts.iter().chain(&starts_async).any(|start| code.starts_with(start));
    is_one && !code.ends_with(';') && !code.ends_with('}')
}

/// A line without its string literals: what another program's output is called is not ours to say.
fn without_strings(line: &str) -> String {
    line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

#[test]
fn banned_words_stay_out() {
    assert_none(&each_line(&sources(&[".rs"]), |line| {
        let code = without_strings(line);
        let (word, better) = BANNED.iter().find(|(word, _)| has_word(&code, word))?;
        Some(format!("`{word}`: say {better}"))
    }));
}

#[test]
fn no_paths_of_somebodys_machine() {
    let endings = [".rs", ".md", ".toml", ".yml", ".service", "x", "run", ".sh", ".proto"];
    assert_none(&each_line(&sources(&endings), |line| {
        let path = MACHINE_PATHS.iter().find(|path| line.contains(**path))?;
        Some(format!("`{path}` is a place on one machine"))
    }));
}

/// A file that no module names is never compiled, and its tests never run.
#[test]
fn no_module_is_forgotten() {
    let sources = sources(&[".rs"]);
    let mut faults = Vec::new();
    for source in &sources {
        let path = Path::new(&source.name);
        let stem = path.file_stem().unwrap().to_string_lossy();
        if stem == "mod" {
            faults.push(format!("{}: a module is `name.rs`, here", source.name));
        }
        let is_root = ["lib", "main", "build"].contains(&stem.as_ref());
        let parent = path.parent().unwrap();
        let is_target = ["tests", "examples", "benches", "bin", "fuzz_targets"]
            .iter()
            .any(|target| parent.ends_with(target));
        if is_root || is_target {
            continue;
        }
        let own = format!("{}.rs", parent.display());
        let candidates =
            [own, format!("{}/lib.rs", parent.display()), format!("{}/main.rs", parent.display())];
        let is_named =
            sources.iter().filter(|other| candidates.contains(&other.name)).any(|other| {
                other.text.lines().any(|line| line.trim_end().ends_with(&format!("mod {stem};")))
            });
        if !is_named {
            faults.push(format!("{}: no module names this file", source.name));
        }
    }
    assert_none(&faults);
}

/// The checks above, checked.
#[test]
fn tidy_notices() {
    assert!(has_word("let a = b;", "b") && !has_word("let ab = c;", "b"));
    let long = format!("    fn long() {{\n{}    }}\n", "        x();\n".repeat(FUNCTION_MAX));
    assert_eq!(long_functions(&long), [(1, FUNCTION_MAX + 2)]);
    let table = long.replacen("        x();", "        // A table: one line each.", 1);
    assert_eq!(long_functions(&table), []);
    let declared =
        format!("    fn declared(\n        a: u8,\n    ) -> u8;\n{}", "    x\n".repeat(99));
    assert_eq!(long_functions(&declared), []);
    assert_eq!(long_functions("fn one() {}\nfn two() {\n    x();\n}\n"), []);
    assert!(sources(&[".rs"]).len() > 20);
}
