// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Tells the stories: `e2e run [NAME…]`, called by `./x e2e`.

#![allow(clippy::print_stdout, reason = "a test program talks to a person")]

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Two hosts on one machine, a real guest, and the stories they act out")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs stories by group or name; all if none is named
    Run {
        names: Vec<String>,
        /// Stories told at a time
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Leaves out a group
        #[arg(long)]
        except: Vec<String>,
    },
    /// Tells one story in this process
    Tell { name: String },
    /// Lists the stories
    List,
    /// Shows a guest that moves between two hosts
    Demo {
        /// Leaves the hosts and the guest standing
        #[arg(long, conflicts_with = "clean")]
        keep: bool,
        /// Only removes what an earlier demo left standing
        #[arg(long)]
        clean: bool,
        /// One host, user networking: what works for everybody
        #[arg(long)]
        without_root: bool,
    },
    /// Something dies at a point of a migration
    CrashMatrix {
        /// A spread of the cases, within five minutes
        #[arg(long)]
        quick: bool,
        /// One case (`POINT/FAULT`), all of a point, or all of a fault; may be repeated
        #[arg(long, alias = "case")]
        only: Vec<String>,
        /// The same faults against another program
        #[arg(long, conflicts_with = "quick")]
        rival: Option<Rival>,
        /// Forgets what earlier runs have shown
        #[arg(long)]
        fresh: bool,
        /// Writes the table to `docs/crash-matrix.md`
        #[arg(long)]
        docs: bool,
        /// Labs at a time
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Guests go back and forth
    Soak {
        #[arg(long, default_value_t = 20)]
        count: usize,
        /// Instead, kills the daemon so many times beside twenty guests
        #[arg(long)]
        daemon_kills: Option<usize>,
    },
    /// Measures
    Bench {
        name: String,
        /// What can be told within ten minutes
        #[arg(long)]
        quick: bool,
        /// Forgets what earlier runs have measured
        #[arg(long)]
        fresh: bool,
        /// Only what has one of these names, as in `visit/idle/1gbit/Qx`; may be repeated
        #[arg(long)]
        only: Vec<String>,
    },
    /// Draws the plots of the documentation from its figures, below a directory
    Plots { project: PathBuf, into: PathBuf },
}

/// What others migrate with.
#[derive(Clone, Copy, ValueEnum)]
enum Rival {
    Virsh,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { names, jobs, except } => e2e::runner::run(&names, &except, jobs),
        Command::Tell { name } => e2e::runner::tell(&name),
        Command::List => {
            e2e::stories::STORIES.iter().for_each(|story| println!("{}", story.name));
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo { clean: true, .. } => {
            e2e::demo::clean();
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo { without_root: true, .. } => done(e2e::demo::alone()),
        Command::Demo { keep, .. } => done(e2e::demo::demo(keep)),
        Command::CrashMatrix { quick, only, rival, fresh, docs, jobs } => {
            let options = e2e::matrix::Options { quick, only, fresh, docs, jobs };
            let is_well = match rival {
                None => e2e::matrix::run(&options)?,
                Some(Rival::Virsh) => e2e::matrix::virsh::run(&options)?,
            };
            Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Soak { daemon_kills: Some(count), .. } => {
            done(e2e::soak::kills::daemon_kills(count))
        }
        Command::Soak { count, .. } => done(e2e::soak::soak(count)),
        Command::Plots { project, into } => done(e2e::bench::plots(&project, &into)),
        Command::Bench { name, quick, fresh, only } => {
            done(e2e::bench::bench(&name, &e2e::bench::Options { quick, fresh, only }))
        }
    }
}

fn done(outcome: Result<()>) -> Result<ExitCode> {
    outcome.map(|()| ExitCode::SUCCESS)
}
