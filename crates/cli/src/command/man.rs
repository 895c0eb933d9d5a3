// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel man`

use super::cannot_write;
use crate::Done;
use crate::context::End;
use crate::printer::Printer;
use std::path::PathBuf;

/// Print the manual page, or write the pages of all commands.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write all pages into this folder.
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
}

pub(super) fn run(printer: &mut Printer, args: &Args) -> Done {
    let pages = crate::reference::man_pages();
    let Some(directory) = &args.directory else {
        printer.raw(&pages[0].1);
        return Ok(End::Done);
    };
    for (name, page) in pages {
        let path = directory.join(name);
        std::fs::write(&path, page)
            .map_err(|error| cannot_write(&path.display().to_string(), &error))?;
    }
    Ok(End::Done)
}
