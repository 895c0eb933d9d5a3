// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Builds what the other commands run.

use crate::shell::{Shell, run};
use anyhow::Result;

const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";
const STATIC_FLAGS: &str = "-C target-feature=+crt-static";

/// Builds the program, the witness of the test guest, and the program that tells the stories.
pub(crate) fn for_lab(shell: &Shell) -> Result<()> {
    run(&mut shell.cargo(&["build", "--quiet", "-p", "whimbrel", "-p", "e2e"]))?;
    let with_faults = ["--bin", "whimbrel-with-faults", "--features", "fault-points"];
    run(shell.cargo(&["build", "--quiet", "-p", "whimbrel"]).args(with_faults))?;
    witness(shell)
}

/// Builds the program as it is shipped.
pub(crate) fn optimised(shell: &Shell) -> Result<()> {
    let program = ["build", "--quiet", "--release", "-p", "whimbrel", "--bin", "whimbrel"];
    run(&mut shell.cargo(&program))
}

/// Builds what acts out what others do: nothing of ours runs there but the guest.
pub(crate) fn for_rivals(shell: &Shell) -> Result<()> {
    run(&mut shell.cargo(&["build", "--quiet", "-p", "e2e"]))?;
    witness(shell)
}

/// Measures the program as it is shipped.
pub(crate) fn bench(shell: &Shell, arguments: &[&str]) -> Result<()> {
    run(&mut shell.cargo(&["build", "--quiet", "--release", "-p", "whimbrel", "-p", "e2e"]))?;
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
