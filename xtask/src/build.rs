// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Builds what the other commands run.

use crate::shell::{Shell, run};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::process::Stdio;

const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";
const STATIC_FLAGS: &str = "-C target-feature=+crt-static";
const WITH_FAULTS: [&str; 4] = ["--bin", "whimbrel-with-faults", "--features", "fault-points"];

/// Builds the program, the witness of the test guest, and the program that tells the stories.
pub(crate) fn for_lab(shell: &Shell) -> Result<()> {
    run(&mut shell.cargo(&["build", "--quiet", "-p", "whimbrel", "-p", "e2e"]))?;
    run(shell.cargo(&["build", "--quiet", "-p", "whimbrel"]).args(WITH_FAULTS))?;
    witness(shell)
}

/// Builds the tests that are run inside a Xen host, and puts them beside the program.
pub(crate) fn contract_on_xen(shell: &Shell) -> Result<()> {
    let name = "contract_on_xen";
    let mut build = shell.cargo(&["test", "--no-run", "--quiet", "--message-format=json"]);
    let output = build.args(["-p", "whimbrel-engine", "--test", name]).stderr(Stdio::inherit());
    let output = output.output()?.stdout;
    let built = serde_json::Deserializer::from_slice(&output).into_iter::<Value>().flatten();
    let mut built = built.filter_map(|message| {
        (message["target"]["name"] == name)
            .then(|| message["executable"].as_str())?
            .map(str::to_owned)
    });
    let program = built.next().context("the tests for Xen were not built")?;
    std::fs::copy(program, shell.target().join("debug").join(name))?;
    Ok(())
}

/// Builds what acts out what others do: nothing of ours runs there but the guest.
pub(crate) fn for_rivals(shell: &Shell) -> Result<()> {
    run(&mut shell.cargo(&["build", "--quiet", "-p", "e2e"]))?;
    witness(shell)
}

/// Measures the program as it is shipped.
pub(crate) fn bench(shell: &Shell, arguments: &[&str]) -> Result<()> {
    run(&mut shell.cargo(&["build", "--quiet", "--release", "-p", "whimbrel", "-p", "e2e"]))?;
    if arguments.first() == Some(&"xen") {
        let program = ["build", "--quiet", "--release", "-p", "whimbrel"];
        run(shell.cargo(&program).args(WITH_FAULTS))?;
    }
    witness(shell)?;
    let arguments = [&["bench"], arguments].concat();
    run(&mut shell.command(shell.target().join("release/e2e"), &arguments))
}

fn witness(shell: &Shell) -> Result<()> {
    let witness = ["build", "--quiet", "-p", "whimbrel-witness", "--profile", "witness"];
    let mut build = shell.cargo(&witness);
    build.args(["--target", STATIC_TARGET]);
    run(build.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", STATIC_FLAGS))
}

/// Runs the program that tells the stories.
pub(crate) fn e2e(shell: &Shell, arguments: &[&str]) -> Result<()> {
    let program = shell.target().join("debug/e2e");
    if !program.exists() {
        run(&mut shell.cargo(&["build", "--quiet", "-p", "e2e"]))?;
    }
    run(&mut shell.command(program, arguments))
}

/// Runs the simulator and model checker, which the dev profile optimises in full.
pub(crate) fn sim(shell: &Shell, arguments: &[&str]) -> Result<()> {
    run(shell.cargo(&["run", "--quiet", "-p", "whimbrel-sim", "--"]).args(arguments))
}

/// Runs the fuzz targets; `--smoke` gives each a few seconds. They are a workspace of their own,
/// because fuzzing needs what nothing that is shipped may depend on.
pub(crate) fn fuzz(shell: &Shell, arguments: &[&str]) -> Result<()> {
    let mut fuzz = shell.cargo(&["run", "--quiet", "--release", "--bin", "fuzz"]);
    fuzz.args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir"]);
    fuzz.arg(shell.target().join("fuzz")).arg("--").args(arguments);
    run(&mut fuzz)
}
