// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel create`

use super::{ConsoleArgs, cannot_read};
use crate::context::{Context, End};
use crate::printer::Printer;
use crate::{Done, codes};
use clap::ValueEnum;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use whimbrel_api::guest::{CreateGuest, DefinitionFormat, GuestState};
use whimbrel_api::limits::DEFINITION_BYTES_MAX;
use whimbrel_api::{Kind, Problem};

/// Define a guest from a file, and start it.
///
/// The file is TOML, or a classic file of `xm` and `xl` (`.cfg`), which is read as data and never
/// executed. Paths in it are relative to the file.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The guest file; `-` reads it from standard input.
    file: PathBuf,
    /// Keys of the file to replace: `memory=1GiB`.
    #[arg(value_name = "KEY=VALUE", value_parser = key_and_value)]
    overrides: Vec<String>,
    /// Attach to its console at once; Ctrl+] leaves it.
    #[arg(short, long)]
    console: bool,
    /// Define it only.
    #[arg(long, conflicts_with_all = ["console", "transient"])]
    no_start: bool,
    /// Forget its definition when it stops.
    #[arg(long)]
    transient: bool,
    /// How the file is written [default: `toml` for `*.toml`, else `cfg`].
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Toml,
    Cfg,
}

fn key_and_value(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("write `key=value`".to_owned()),
    }
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let format = args.format.map(|format| match format {
        Format::Toml => DefinitionFormat::Toml,
        Format::Cfg => DefinitionFormat::Cfg,
    });
    let mut request = read_file(&mut cx.printer, &args.file, format)?;
    request.overrides = args.overrides;
    request.is_transient = args.transient;
    request.is_left_stopped = args.no_start;
    create(cx, &request, args.console).await
}

/// Creates a guest, says what there is to say, and attaches to its console if that is wanted.
pub(crate) async fn create(cx: &mut Context, request: &CreateGuest, is_console: bool) -> Done {
    let created = cx.client.create(request).await?;
    let guest = &created.guest;
    if cx.printer.is_json {
        cx.printer.json(&created);
    } else {
        cx.printer.notes(&created.notes);
        let text = match guest.state {
            GuestState::Stopped => format!("{} is defined on {}.", guest.name, guest.host),
            state => format!("{} is {state} on {}.", guest.name, guest.host),
        };
        cx.printer.say(&text);
    }
    if is_console {
        return crate::console::run(cx, ConsoleArgs::from_start(created.guest.name)).await;
    }
    Ok(End::Done)
}

/// Reads a guest file into a request that starts it.
pub(crate) fn read_file(
    printer: &mut Printer,
    path: &Path,
    format: Option<DefinitionFormat>,
) -> Result<CreateGuest, Problem> {
    let (file_name, text) = read_text(printer, path)?;
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    let guessed = if is_toml { DefinitionFormat::Toml } else { DefinitionFormat::Cfg };
    let is_from_pipe = path == Path::new("-");
    let format = match format {
        Some(format) => format,
        None if is_from_pipe => DefinitionFormat::Toml,
        None => guessed,
    };
    let base = if is_from_pipe { Path::new("") } else { path.parent().unwrap_or(Path::new("")) };
    let base = std::path::absolute(Path::new(".").join(base))
        .map_err(|error| cannot_read(&file_name, &error, "change to a folder that exists"))?;
    Ok(CreateGuest {
        text,
        format,
        file_name,
        base_directory: base.display().to_string(),
        overrides: Vec::new(),
        is_transient: false,
        is_left_stopped: false,
    })
}

/// Reads a file that the user named, within limits.
pub(super) fn read_text(printer: &mut Printer, path: &Path) -> Result<(String, String), Problem> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(DEFINITION_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    let (name, read) = if path == Path::new("-") {
        let read = (&mut printer.io.input).take(limit).read_to_end(&mut bytes);
        ("standard input".to_owned(), read)
    } else {
        let read =
            std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
        (path.display().to_string(), read)
    };
    read.map_err(|error| cannot_read(&name, &error, "check the path of the guest file"))?;
    let bad = |text: String| {
        let remedy = "give a guest file: `docs/guide` shows examples";
        Problem::new(Kind::Usage, codes::FILE_NOT_A_GUEST_FILE, text, remedy)
    };
    if bytes.len() > DEFINITION_BYTES_MAX {
        return Err(bad(format!("`{name}` has more than {DEFINITION_BYTES_MAX} bytes")));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| bad(format!("`{name}` is not text (UTF-8)")))?;
    Ok((name, text))
}
