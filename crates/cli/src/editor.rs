// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Text in the user's own editor.

use crate::codes;
use crate::printer::Printer;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use whimbrel_api::{Kind, Problem};

/// Opens `text` in the user's editor and returns what was left there.
pub(crate) fn edit(printer: &Printer, name: &str, text: &str) -> Result<String, Problem> {
    if !printer.io.is_input_terminal || !printer.io.is_err_terminal {
        let text = "an editor needs a terminal";
        let remedy = "give the new definition with `--file FILE`";
        return Err(Problem::new(Kind::Usage, codes::EDIT_NO_TERMINAL, text, remedy));
    }
    let file = Scratch::new(name, text)?;
    let editor = ["VISUAL", "EDITOR"].into_iter().find_map(std::env::var_os);
    let editor = editor.filter(|editor| !editor.is_empty()).unwrap_or_else(|| "vi".into());
    run(&editor, &file.path)?;
    file.read()
}

/// Runs the editor through the shell, as git does: `$EDITOR` may have arguments.
fn run(editor: &OsString, file: &Path) -> Result<(), Problem> {
    let mut script = editor.clone();
    script.push(" \"$@\"");
    let status = Command::new("sh").arg("-c").arg(script).arg("sh").arg(file).status();
    let name = editor.display();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(format!("the editor `{name}` ended with {status}"))),
        Err(error) => Err(failed(format!("the editor `{name}` cannot be started: {error}"))),
    }
}

fn failed(text: String) -> Problem {
    let remedy = "name another editor in `$EDITOR`, or give the new definition with `--file FILE`";
    Problem::new(Kind::Refused, codes::EDIT_NO_EDITOR, text, remedy)
}

/// A file for the time of an edit, readable by its user only.
struct Scratch {
    path: std::path::PathBuf,
}

impl Scratch {
    fn new(name: &str, text: &str) -> Result<Self, Problem> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let safe: String = name.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
        let name = format!("whimbrel-{safe}-{}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        let cannot = |error: std::io::Error| {
            super::command::cannot_write(&path.display().to_string(), &error)
        };
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(&path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(cannot)?;
        Ok(Self { path })
    }

    fn read(&self) -> Result<String, Problem> {
        std::fs::read_to_string(&self.path).map_err(|error| {
            let remedy = "save the file under its own name";
            super::command::cannot_read(&self.path.display().to_string(), &error, remedy)
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
