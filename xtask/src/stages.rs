// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `./x test` and `./x check`: stages in order of speed, each with a time budget.

use crate::machine::Purpose;
use crate::shell::{Counts, Shell, count, run};
use crate::{build, dependencies, machine, references};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

const PURE: [&str; 3] = ["whimbrel-model", "whimbrel-handoff", "whimbrel-pages"];

struct Stage {
    name: &'static str,
    budget: Duration,
    run: fn(&Shell) -> Result<Counts>,
}

/// How a stage went.
struct Report {
    stage: &'static Stage,
    took: Duration,
    counts: Counts,
}

const fn stage(name: &'static str, budget_s: u64, run: fn(&Shell) -> Result<Counts>) -> Stage {
    Stage { name, budget: Duration::from_secs(budget_s), run }
}

/// The fast ones: before every commit.
const CHECK: &[Stage] =
    &[stage("format", 10, format), stage("clippy", 120, clippy), stage("pure crates", 60, pure)];

/// What CI runs. Building counts where it is first needed: in `clippy` and `build`.
const TEST: &[Stage] = &[
    stage("format", 10, format),
    stage("dependencies", 20, |shell| one(dependencies::check(shell))),
    stage("tidy", 60, tidy),
    stage("clippy", 240, clippy),
    stage("build", 240, build_all),
    stage("unit tests", 240, unit),
    stage("simulator", 120, simulator),
    stage("documentation", 60, documentation),
    stage("references", 60, |shell| one(references::generate(shell, true))),
    stage("model", 60, |shell| one(build::sim(shell, &["model"]))),
    stage("simulation", 60, |shell| one(build::sim(shell, &["sim"]))),
    stage("mutants", 60, |shell| one(build::sim(shell, &["mutants"]))),
    stage("fuzz smoke", 240, |shell| one(build::fuzz(shell, &["--smoke"]))),
    stage("end to end", 15 * 60, |shell| e2e(shell, &["run"])),
    stage("crash cases", 5 * 60, |shell| e2e(shell, &["crash-matrix", "--quick"])),
    stage("xen", 10 * 60, xen),
];

pub(crate) fn check(shell: &Shell) -> Result<()> {
    all(shell, CHECK)
}

pub(crate) fn test(shell: &Shell) -> Result<()> {
    machine::require_root()?;
    machine::install_packages(Purpose::Stories)?;
    all(shell, TEST)
}

/// Runs all stages, also after one that failed, and shows a table of them.
fn all(shell: &Shell, stages: &'static [Stage]) -> Result<()> {
    let mut reports = Vec::new();
    for stage in stages {
        println!("== {}", stage.name);
        let started = Instant::now();
        let counts = (stage.run)(shell).unwrap_or_else(|error| {
            eprintln!("x: {}: {error:#}", stage.name);
            Counts { failed: 1, ..Counts::default() }
        });
        reports.push(Report { stage, took: started.elapsed(), counts });
    }
    print!("{}", table(&reports));
    let mut sum = Counts::default();
    reports.iter().for_each(|report| sum.add(report.counts));
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    if sum.failed > 0 {
        bail!("{} failed", sum.failed);
    }
    Ok(())
}

fn table(reports: &[Report]) -> String {
    let mut text = String::from("\nstage            passed  failed  skipped     took   budget\n");
    for Report { stage, took, counts } in reports {
        let late = if *took > stage.budget { "  over budget" } else { "" };
        text.push_str(&format!(
            "{:<16} {:>6}  {:>6}  {:>7}  {:>5.0} s  {:>5} s{late}\n",
            stage.name,
            counts.passed,
            counts.failed,
            counts.skipped,
            took.as_secs_f64(),
            stage.budget.as_secs()
        ));
    }
    text
}

/// A stage that is one test.
fn one(outcome: Result<()>) -> Result<Counts> {
    outcome.map(|()| Counts { passed: 1, ..Counts::default() })
}

fn format(shell: &Shell) -> Result<Counts> {
    one(run(&mut shell.cargo(&["fmt", "--all", "--check"])))
}

fn tidy(shell: &Shell) -> Result<Counts> {
    count(&mut shell.cargo(&["test", "--quiet", "-p", "xtask"]))
}

fn clippy(shell: &Shell) -> Result<Counts> {
    let lint = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    one(run(&mut shell.cargo(&lint)))
}

fn build_all(shell: &Shell) -> Result<Counts> {
    one(build::for_lab(shell))
}

fn pure(shell: &Shell) -> Result<Counts> {
    let packages = PURE.iter().flat_map(|package| ["-p", *package]);
    count(shell.cargo(&["test", "--quiet"]).args(packages))
}

fn unit(shell: &Shell) -> Result<Counts> {
    let but = ["--exclude", "xtask", "--exclude", "whimbrel-sim"];
    count(shell.cargo(&["test", "--quiet", "--workspace"]).args(but))
}

fn simulator(shell: &Shell) -> Result<Counts> {
    count(&mut shell.cargo(&["test", "--quiet", "-p", "whimbrel-sim"]))
}

fn documentation(shell: &Shell) -> Result<Counts> {
    // Private items are documented, so links to them work.
    let mut doc = shell.cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
    one(run(doc
        .arg("--document-private-items")
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links")))
}

/// The shortest of the stories on Xen: two hosts are emulated whole for it.
fn xen(shell: &Shell) -> Result<Counts> {
    build::contract_on_xen(shell)?;
    e2e(shell, &["run", "xen/the_chapter_and_the_contract"])
}

fn e2e(shell: &Shell, arguments: &[&str]) -> Result<Counts> {
    count(&mut shell.command(shell.target().join("debug/e2e"), arguments))
}
