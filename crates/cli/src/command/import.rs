// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel import`

use super::cannot_write;
use super::create::read_text;
use crate::Done;
use crate::context::End;
use crate::printer::Printer;
use std::path::PathBuf;
use whimbrel_api::Problem;
use whimbrel_model::config::sxp;
use whimbrel_model::text_file::TextFile;

/// Convert an old `xend-config.sxp` into a `whimbrel.toml`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The old configuration; `-`: standard input.
    file: PathBuf,
    /// Where to write the new one; must not exist yet [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(printer: &mut Printer, args: &Args) -> Done {
    let (name, text) = read_text(printer, &args.file)?;
    let file = TextFile { name: &name, text: &text, base: None };
    let converted = sxp::convert(&file).map_err(|error| Problem::of(&error))?;
    match &args.output {
        None => printer.data(&converted.toml),
        Some(path) => {
            let write = |mut file: std::fs::File| {
                std::io::Write::write_all(&mut file, converted.toml.as_bytes())
            };
            let written = std::fs::File::create_new(path).and_then(write);
            written.map_err(|error| cannot_write(&path.display().to_string(), &error))?;
        }
    }
    converted.notes.iter().for_each(|note| printer.note(note));
    converted
        .left_out
        .iter()
        .for_each(|line| printer.warning(&format!("not carried over: {line}")));
    Ok(End::Done)
}
