// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Checks every dependency's licence and source, and that few come in two versions. Advisories are
//! not looked up: that needs a database from the network.

use crate::shell::Shell;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;

/// Licences that ours, `Apache-2.0 OR MIT`, can be shipped with.
const ALLOWED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Crates in more than one version today; fewer is better, more needs a look.
const DUPLICATES_MAX: usize = 16;

pub(crate) fn check(shell: &Shell) -> Result<()> {
    let mut metadata = shell.cargo(&["metadata", "--format-version", "1", "--locked"]);
    let output = metadata.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("metadata lists packages")?;
    let mut faults: Vec<String> = packages.iter().filter_map(fault).collect();
    faults.extend(unexplained(&std::fs::read_to_string(shell.root.join("Cargo.toml"))?));
    let duplicates = duplicates(packages);
    if duplicates.len() > DUPLICATES_MAX {
        faults
            .push(format!("more than {DUPLICATES_MAX} crates in several versions: {duplicates:?}"));
    }
    if !faults.is_empty() {
        bail!("dependencies:\n  {}", faults.join("\n  "));
    }
    let count = packages.len();
    println!(
        "{count} packages, licences and sources fine, {} in several versions",
        duplicates.len()
    );
    Ok(())
}

fn fault(package: &Value) -> Option<String> {
    let name = format!("{} {}", package["name"].as_str()?, package["version"].as_str()?);
    match package["source"].as_str() {
        None | Some(REGISTRY) => {}
        Some(other) => return Some(format!("{name} comes from {other}")),
    }
    let licence = package["license"].as_str().unwrap_or("(none stated)");
    (!is_allowed(licence)).then(|| format!("{name} is licensed {licence}"))
}

/// Reads a licence expression: every `AND` part needs an allowed `OR` choice.
fn is_allowed(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], "").replace(" / ", " OR ").replace('/', " OR ");
    flat.split(" AND ").all(|part| part.split(" OR ").any(|one| ALLOWED.contains(&one.trim())))
}

/// Dependencies of the workspace that do not say what they are for.
fn unexplained(manifest: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let section = lines.take_while(|line| !line.starts_with('['));
    section
        .filter(|line| {
            line.contains('=') && !line.starts_with("whimbrel-") && !line.contains(" # ")
        })
        .map(|line| format!("Cargo.toml does not say what this is for: {line}"))
        .collect()
}

fn duplicates(packages: &[Value]) -> Vec<String> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for name in packages.iter().filter_map(|package| package["name"].as_str()) {
        *counts.entry(name).or_default() += 1;
    }
    counts.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions_are_judged() {
        for good in
            ["MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0", "Apache-2.0 / MIT"]
        {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-2.0-only", "(none stated)", ""] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn a_dependency_must_say_what_it_is_for() {
        let manifest =
            "[workspace.dependencies]\nwhimbrel-x = 1\na = 1 # why\nb = \"2\"\n[z]\nc = 3\n";
        let faults = unexplained(manifest);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].ends_with("b = \"2\""));
    }
}
