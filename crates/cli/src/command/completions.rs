// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel completions`

use crate::Done;
use crate::context::End;
use crate::printer::Printer;
use clap_complete::Shell;

/// Print the completions of a shell.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which shell.
    shell: Shell,
}

pub(super) fn run(printer: &mut Printer, args: &Args) -> Done {
    printer.raw(&crate::reference::completions_of(args.shell));
    Ok(End::Done)
}
