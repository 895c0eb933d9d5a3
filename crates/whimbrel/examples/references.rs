// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Writes the references that are made from the code below a directory: `./x gen` runs this and
//! puts them into the project.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let place: PathBuf = std::env::args_os().nth(1).context("usage: references DIRECTORY")?.into();
    let write = |name: &str, content: &[u8]| write(&place.join(name), content);
    write("docs/reference/commands.md", whimbrel_cli::reference().as_bytes())?;
    write("docs/reference/configuration.md", whimbrel_model::config::reference().as_bytes())?;
    write("docs/reference/guest-file.md", whimbrel_model::guest::file::reference().as_bytes())?;
    write("docs/reference/old-files.md", old_files().as_bytes())?;
    write("crates/api/openapi.json", whimbrel_api::openapi::document().as_bytes())?;
    for (name, page) in whimbrel_cli::man_pages() {
        write(&format!("share/man/man1/{name}"), &page)?;
    }
    for (name, script) in whimbrel_cli::completions() {
        write(&format!("share/completions/{name}"), &script)?;
    }
    Ok(())
}

/// What becomes of the files of `xend`, `xm` and `xl`.
fn old_files() -> String {
    let hosts = whimbrel_model::config::sxp::reference();
    let guests = whimbrel_model::guest::xm::reference();
    format!("# Old files\n\nGenerated from the code that reads them.\n\n{hosts}\n{guests}")
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let directory = path.parent().context("a file lies in a directory")?;
    std::fs::create_dir_all(directory)?;
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
