// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Tells the stories: `e2e run [NAME…]`, called by `./x e2e`.

#![allow(clippy::print_stdout, reason = "a test program talks to a person")]

use anyhow::Result;
use clap::{Parser, Subcommand};
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
    },
    /// Tells one story in this process
    Tell { name: String },
    /// Lists the stories
    List,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { names, jobs } => e2e::runner::run(&names, jobs),
        Command::Tell { name } => e2e::runner::tell(&name),
        Command::List => {
            e2e::stories::STORIES.iter().for_each(|story| println!("{}", story.name));
            Ok(ExitCode::SUCCESS)
        }
    }
}
