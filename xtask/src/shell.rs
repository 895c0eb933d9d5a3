// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Runs programs from the root of the project, and says what it runs.

use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) struct Shell {
    pub(crate) root: PathBuf,
}

/// How many tests a stage ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Shell {
    pub(crate) fn at_root() -> Result<Shell> {
        // Asked now, not when this was compiled: checkouts may share a target directory.
        let own = std::env::var_os("CARGO_MANIFEST_DIR").context("call ./x, not this program")?;
        let root = Path::new(&own).parent().context("xtask lies in the project")?;
        Ok(Shell { root: root.to_owned() })
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.root.join("target"), |directory| self.root.join(directory))
    }

    pub(crate) fn command(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program.as_ref());
        command.args(arguments).current_dir(&self.root);
        command
    }

    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = self.command(PathBuf::from(cargo), arguments);
        // What `cargo run` tells this program about itself. Build scripts look at these, and would
        // run again, and everything after them, whenever cargo is called directly in between.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command
    }
}

/// Runs a command; its output is the developer's to see.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command, shows its output as it comes, and counts the tests it reports. A command that
/// fails without a failed test counts as one.
pub(crate) fn count(command: &mut Command) -> Result<Counts> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    let mut counts = Counts::default();
    let stdout = child.stdout.take().context("the output was asked for")?;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match counted(&line) {
            Some(some) => counts.add(some),
            // A line for each of a thousand good tests hides the one that matters.
            None if line.starts_with("test ") && line.ends_with(" ... ok") => {}
            None if is_noise(&line) => {}
            None => println!("{line}"),
        }
    }
    let status = child.wait()?;
    if !status.success() && counts.failed == 0 {
        eprintln!("{} failed ({status})", shown(command));
        counts.failed = 1;
    }
    Ok(counts)
}

/// What cargo and the test harness say around every crate's tests.
fn is_noise(line: &str) -> bool {
    line.is_empty() || (line.starts_with("running ") && line.contains(" test"))
}

/// Reads a sum: cargo's (`test result: ok. 3 passed; 0 failed; 1 ignored; …`) or our own
/// (`3 passed, 0 failed, 1 skipped`).
fn counted(line: &str) -> Option<Counts> {
    let line = line.strip_prefix("test result: ").unwrap_or(line);
    let number = |word: &str| {
        let before = line.split_once(word)?.0.trim_end();
        before.rsplit([' ', ';', ',']).next()?.parse().ok()
    };
    Some(Counts {
        passed: number(" passed")?,
        failed: number(" failed")?,
        skipped: number(" ignored").or_else(|| number(" skipped"))?,
    })
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let arguments: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    format!("`{name} {}`", arguments.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_both_harnesses_are_read() {
        let counts = |passed, failed, skipped| Some(Counts { passed, failed, skipped });
        let rust = "test result: ok. 16 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out";
        assert_eq!(counted(rust), counts(16, 0, 2));
        assert_eq!(counted("test result: FAILED. 1 passed; 3 failed; 0 ignored;"), counts(1, 3, 0));
        assert_eq!(counted("12 passed, 1 failed, 0 skipped"), counts(12, 1, 0));
        assert_eq!(counted("ok      migrate/there_and_back   3.0 s"), None);
        assert_eq!(counted("the story passed"), None);
    }
}
