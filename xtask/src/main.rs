// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What `./x` does: builds, checks, tests and shows the project.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a developer")]

mod build;
mod dependencies;
mod machine;
mod problems;
#[cfg(test)]
mod promises;
mod references;
mod shell;
mod stages;
#[cfg(test)]
mod tidy;

use anyhow::{Result, bail};
use machine::Purpose;
use shell::Shell;
use std::process::ExitCode;

const HELP: &str = "\
./x COMMAND

  demo [--keep|--clean] two hosts on this machine, a guest that moves between them (root)
  check                fast: format, clippy, tests of the pure crates
  test                 everything CI runs, with a time budget for each stage (root)
  e2e [NAME…]          stories on real QEMU, by group or name (root); `e2e --list` names them
  crash-matrix [--quick] [--only POINT/FAULT]
                       every point of a migration, every fault; goes on where it was (root)
  crash-matrix --rival virsh [--case NAME]
                       the same faults against libvirt, seen from outside (root)
  soak [--count N]     migrations back and forth, as many as asked (root)
  soak --daemon-kills N  a daemon killed so many times beside twenty guests (root)
  bench NAME           measurements: `command` (beside libvirt; root), `micro`
  bench xen [--quick] [--only WAY]
                       moves between two emulated Xen hosts, beside `xl migrate` (root)
  bench forecast       what was said of migrations beside what came of them (root)
  bench migrate [--quick] [--fresh] [--only QUESTION/KIND/LINK/WAY]
                       whole migrations beside QEMU's and libvirt's own (root)
  model [--full]       the state machines, checked exhaustively
  sim [--seeds N]      whole migrations, simulated with faults
  mutants              the code is broken on purpose: do the tests notice?
  fuzz [--smoke]       the parsers of foreign bytes
  gen [--check]        references made from the code: CLI, configuration, problems, API
  deps                 licences, sources and duplicates of dependencies
  packages             installs the Debian packages that the above need (root)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("x: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let shell = Shell::at_root()?;
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", arguments),
    };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    match command {
        "demo" => demo(&shell, &rest),
        "check" => stages::check(&shell),
        "test" => stages::test(&shell),
        "e2e" if rest == ["--list"] => build::e2e(&shell, &["list"]),
        "e2e" => with_lab(&shell, &[&["run"], rest.as_slice()].concat()),
        "crash-matrix" | "soak" => with_lab(&shell, &[&[command], rest.as_slice()].concat()),
        "bench" => bench(&shell, &rest),
        "model" | "sim" | "mutants" => build::sim(&shell, &[&[command], rest.as_slice()].concat()),
        "fuzz" => build::fuzz(&shell, &rest),
        "gen" => references::generate(&shell, rest.contains(&"--check")),
        "deps" => dependencies::check(&shell),
        "packages" => machine::install_packages(Purpose::Bench),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("there is no command `{other}`\n\n{HELP}"),
    }
}

/// Runs the end-to-end program on a machine that has what it needs.
fn with_lab(shell: &Shell, arguments: &[&str]) -> Result<()> {
    machine::require_root()?;
    if arguments.contains(&"--rival") {
        machine::install_packages(Purpose::Bench)?;
        build::for_rivals(shell)?;
    } else {
        let is_demo = arguments.first() == Some(&"demo");
        machine::install_packages(if is_demo { Purpose::Lab } else { Purpose::Stories })?;
        build::for_lab(shell)?;
        if arguments.iter().any(|name| name.split('/').next() == Some("xen")) {
            build::contract_on_xen(shell)?;
        }
    }
    build::e2e(shell, arguments)
}

/// Measures: of whole commands on two hosts, or of the code that memory passes through.
fn bench(shell: &Shell, arguments: &[&str]) -> Result<()> {
    if arguments == ["micro"] {
        return shell::run(&mut shell.cargo(&[
            "bench",
            "--quiet",
            "-p",
            "whimbrel-pages",
            "-p",
            "whimbrel-page-store",
        ]));
    }
    machine::require_root()?;
    machine::install_packages(Purpose::Bench)?;
    build::bench(shell, arguments)
}

/// Shows a guest that moves; without root, what can be shown without.
fn demo(shell: &Shell, arguments: &[&str]) -> Result<()> {
    if !machine::is_root() {
        eprintln!("{}", machine::WITHOUT_ROOT);
        machine::say_missing_packages();
        build::for_lab(shell)?;
        return build::e2e(shell, &["demo", "--without-root"]);
    }
    with_lab(shell, &[&["demo"], arguments].concat())
}
