// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `docs/specification.md` against the tree: a promise names tests that exist, or says that it has
//! none yet. So the page cannot rot.

use std::fs;
use std::path::{Path, PathBuf};

/// What a promise without a test says.
const NOT_YET: &str = "*not yet";

/// Where tests are looked for.
struct Tree {
    root: PathBuf,
    stories: String,
    scopes: String,
    mutants: String,
}

impl Tree {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        let stories = read("e2e/src/stories.rs");
        let (scopes, mutants) = (read("crates/sim/src/scopes.rs"), read("docs/mutants.md"));
        Self { root, stories, scopes, mutants }
    }

    fn has(&self, name: &str) -> bool {
        match name.split_once(' ') {
            Some(("e2e", story)) => self.tells(story),
            Some(("model", scope)) => self.scopes.contains(scope),
            Some(("mutant", mutant)) => self.mutants.contains(&format!("| {mutant} |")),
            Some((file, test)) => self.tests(file, test),
            None => false,
        }
    }

    /// Whether a story is in the table of all of them, in its group.
    fn tells(&self, story: &str) -> bool {
        let Some((group, name)) = story.split_once('/') else { return false };
        let Some((_, table)) = self.stories.split_once("stories! {") else { return false };
        let Some((_, members)) = table.split_once(&format!("{group} {{")) else { return false };
        let members = members.split('}').next().unwrap_or_default();
        members.split(',').any(|member| member.trim() == name)
    }

    fn tests(&self, file: &str, test: &str) -> bool {
        let text = fs::read_to_string(self.root.join(file)).unwrap_or_default();
        text.contains(&format!("fn {test}("))
    }
}

/// Returns the promises of a page: its numbered items, each on one line.
fn promises(page: &str) -> Vec<String> {
    let is_start =
        |line: &str| line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    let mut found: Vec<String> = Vec::new();
    let mut is_inside = false;
    for line in page.lines() {
        if is_start(line) {
            found.push(line.to_owned());
            is_inside = true;
        } else if is_inside && line.starts_with("   ") {
            let last = found.last_mut().expect("an item has begun");
            last.push(' ');
            last.push_str(line.trim());
        } else {
            is_inside = false;
        }
    }
    found
}

fn faults(page: &str, tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for promise in promises(page) {
        let names: Vec<_> = match promise.split_once("Test:") {
            Some((_, tests)) => tests.split('`').skip(1).step_by(2).collect(),
            None => Vec::new(),
        };
        if names.is_empty() && !promise.contains(NOT_YET) {
            faults.push(format!("neither a test nor `{NOT_YET} tested*`: {promise}"));
        }
        let missing = names.into_iter().filter(|name| !tree.has(name));
        faults.extend(missing.map(|name| format!("there is no `{name}`: {promise}")));
    }
    faults
}

#[test]
fn promises_are_kept_by_tests() {
    let tree = Tree::read();
    let page = fs::read_to_string(tree.root.join("docs/specification.md")).unwrap();
    assert!(promises(&page).len() > 60, "the promises are not found on the page");
    let faults = faults(&page, &tree);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The check, checked: each kind of name is found where it is, and missed where it is not.
#[test]
fn a_broken_promise_is_noticed() {
    let tree = Tree::read();
    let count = |promise: &str| faults(&format!("1. It holds.\n   {promise}\n"), &tree).len();
    for good in [
        "Test: `e2e life/from_create_to_rm`, `e2e systemd/the_host_goes_down`",
        "Test: `model \"there and back\"`, `mutant EpochReused`",
        "Test: `xtask/src/promises.rs a_broken_promise_is_noticed`",
        "*not yet tested*",
    ] {
        assert_eq!(count(good), 0, "{good}");
    }
    for bad in [
        "",
        "Test: none",
        "Test: `e2e life/there_and_back`",
        "Test: `e2e nothing/of_this`",
        "Test: `model \"a scope\"`",
        "Test: `mutant Epoch`",
        "Test: `xtask/src/promises.rs a_broken`",
        "Test: `xtask/src/none.rs a_broken_promise_is_noticed`",
        "Test: `there_and_back`",
    ] {
        assert_eq!(count(bad), 1, "{bad}");
    }
}
