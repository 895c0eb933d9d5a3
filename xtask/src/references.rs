// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! References made from the code: they lie in the project, so that they can be read there and a
//! change to them is seen in review.

use crate::problems;
use crate::shell::{Shell, run};
use anyhow::{Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Makes all references; with `is_check` only compares them with what is committed.
pub(crate) fn generate(shell: &Shell, is_check: bool) -> Result<()> {
    let fresh = shell.target().join("references");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    let page = fresh.join("docs/reference/problems.md");
    fs::create_dir_all(page.parent().unwrap_or(&fresh))?;
    fs::write(page, problems::page(&problems::find(&product_sources(shell)?)))?;
    let mut make = shell.cargo(&["run", "--quiet", "-p", "whimbrel", "--example", "references"]);
    run(make.arg("--").arg(&fresh))?;
    let mut plots = shell.cargo(&["run", "--quiet", "-p", "e2e", "--", "plots"]);
    run(plots.arg(&shell.root).arg(&fresh))?;
    let mut stale = Vec::new();
    for file in files_below(&fresh)? {
        let name = file.strip_prefix(&fresh)?;
        let committed = shell.root.join(name);
        let content = fs::read(&file)?;
        if fs::read(&committed).is_ok_and(|old| old == content) {
            continue;
        }
        stale.push(name.display().to_string());
        if !is_check {
            fs::create_dir_all(committed.parent().unwrap_or(&shell.root))?;
            fs::write(&committed, content)?;
        }
    }
    match (stale.is_empty(), is_check) {
        (true, _) => println!("all references are up to date"),
        (false, false) => println!("written: {}", stale.join(", ")),
        (false, true) => bail!("stale: {}; `./x gen` writes them anew", stale.join(", ")),
    }
    Ok(())
}

/// The text of all sources that users meet problems of, without tests.
fn product_sources(shell: &Shell) -> Result<Vec<String>> {
    let mut sources = Vec::new();
    for file in files_below(&shell.root.join("crates"))? {
        let name = file.to_string_lossy();
        let is_shipped = !name.contains("/tests") && !name.contains("/sim/");
        if is_shipped && name.contains("/src/") && name.ends_with(".rs") {
            let text = fs::read_to_string(&file)?;
            let without_tests = text.split("\n#[cfg(test)]").next().unwrap_or(&text);
            sources.push(without_tests.to_owned());
        }
    }
    Ok(sources)
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut waiting) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() { waiting.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}
