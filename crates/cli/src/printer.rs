// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The only place that prints.
//!
//! Standard output is data: what was asked for, as text or JSON. Standard error is conversation:
//! what is going on, notes, problems. A reader that goes away ends the data, never with an error.

use crate::Done;
use crate::context::End;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{self, IsTerminal as _, Read, Write};
use tokio::sync::mpsc;
use whimbrel_api::guest::{Note, NoteLevel};
use whimbrel_api::{Kind, Problem};

/// Longest line that a person can type.
const LINE_BYTES_MAX: usize = 32 << 10;

/// The ends of the program.
pub struct Io {
    pub input: Box<dyn Read + Send>,
    pub out: Box<dyn Write + Send>,
    pub err: Box<dyn Write + Send>,
    pub is_input_terminal: bool,
    pub is_out_terminal: bool,
    pub is_err_terminal: bool,
    pub has_color: bool,
    /// Switches the terminal to raw mode and back.
    pub set_raw: fn(bool) -> io::Result<()>,
    /// What Ctrl-C is; none: the signals of the process.
    pub interrupts: Option<mpsc::UnboundedReceiver<()>>,
}

impl Io {
    /// Returns the ends of the process.
    pub fn of_process() -> Self {
        let is_err_terminal = io::stderr().is_terminal();
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            input: Box::new(io::stdin()),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            is_input_terminal: io::stdin().is_terminal(),
            is_out_terminal: io::stdout().is_terminal(),
            is_err_terminal,
            has_color: is_err_terminal && !is_plain,
            set_raw,
            interrupts: None,
        }
    }
}

fn set_raw(is_raw: bool) -> io::Result<()> {
    if is_raw {
        crossterm::terminal::enable_raw_mode()
    } else {
        crossterm::terminal::disable_raw_mode()
    }
}

/// The terminal in raw mode; as it was once this is dropped.
#[derive(Debug)]
pub(crate) struct RawMode(fn(bool) -> io::Result<()>);

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = (self.0)(false);
    }
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Io").finish_non_exhaustive()
    }
}

/// How something is set off. Never the only sign of anything.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    Error,
    Warning,
    Help,
    Faint,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Error => "1;31",
            Self::Warning => "1;33",
            Self::Help => "1;36",
            Self::Faint => "2",
        }
    }
}

/// Prints.
#[derive(Debug)]
pub(crate) struct Printer {
    pub(crate) io: Io,
    pub(crate) is_json: bool,
    /// Nobody reads the data any more.
    is_out_closed: bool,
    /// The terminal is raw: lines need their carriage return from us.
    pub(crate) is_raw: bool,
    /// The line that is kept up to date, on a terminal.
    bar: Option<ProgressBar>,
}

impl Printer {
    pub(crate) fn new(io: Io) -> Self {
        Self { io, is_json: false, is_out_closed: false, is_raw: false, bar: None }
    }

    /// Prints data.
    pub(crate) fn data(&mut self, text: &str) {
        self.raw(text.as_bytes());
        if !text.ends_with('\n') {
            self.raw(b"\n");
        }
    }

    /// Prints data as it is.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        let written = self.io.out.write_all(bytes).and_then(|()| self.io.out.flush());
        self.is_out_closed |= written.is_err();
    }

    /// Prints data as JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) {
        let json = serde_json::to_string_pretty(value).expect("answers are plain data");
        self.data(&json);
    }

    /// Prints one JSON value of many, on one line.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) {
        let json = serde_json::to_string(value).expect("answers are plain data");
        self.data(&json);
    }

    /// Returns whether nobody reads the data any more.
    pub(crate) fn is_out_closed(&self) -> bool {
        self.is_out_closed
    }

    /// Says something to the person at the terminal.
    pub(crate) fn say(&mut self, text: &str) {
        let text = if self.is_raw { text.replace('\n', "\r\n") } else { text.to_owned() };
        let end = if self.is_raw { "\r\n" } else { "\n" };
        let err = &mut self.io.err;
        // A terminal that is gone hears nothing, and nothing can be done about it.
        let mut write = || drop(write!(err, "{text}{end}").and_then(|()| err.flush()));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Brings the line that is kept up to date, which only a terminal has.
    pub(crate) fn progress(&mut self, line: &str) {
        if !self.io.is_err_terminal {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{wide_msg}").expect("a valid template");
            ProgressBar::new_spinner().with_style(style)
        });
        bar.set_message(line.to_owned());
        bar.tick();
    }

    /// Removes that line.
    pub(crate) fn progress_end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Switches the terminal to raw mode, and back whatever happens.
    pub(crate) fn raw_mode(&mut self) -> io::Result<RawMode> {
        let set_raw = self.io.set_raw;
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // A panic aborts the program, so nothing is dropped.
            let _ = set_raw(false);
            report(panic);
        }));
        set_raw(true)?;
        self.is_raw = true;
        Ok(RawMode(set_raw))
    }

    /// Takes the input away, for a reader of its own.
    pub(crate) fn take_input(&mut self) -> Box<dyn Read + Send> {
        std::mem::replace(&mut self.io.input, Box::new(io::empty()))
    }

    /// Says something without ending the line, before reading an answer.
    pub(crate) fn ask(&mut self, text: &str) {
        let _ = write!(self.io.err, "{text}").and_then(|()| self.io.err.flush());
    }

    /// Reads a line that the person types; nothing at the end of the input.
    pub(crate) fn read_line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while line.len() < LINE_BYTES_MAX {
            match self.io.input.read(&mut byte) {
                Ok(1) if byte[0] != b'\n' => line.push(byte[0]),
                Ok(0) | Err(_) if line.is_empty() => return None,
                _ => break,
            }
        }
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    pub(crate) fn note(&mut self, text: &str) {
        let label = self.paint(Style::Help, "note:");
        self.say(&format!("{label} {text}"));
    }

    pub(crate) fn warning(&mut self, text: &str) {
        let label = self.paint(Style::Warning, "warning:");
        self.say(&format!("{label} {text}"));
    }

    pub(crate) fn notes(&mut self, notes: &[Note]) {
        for Note { level, text } in notes {
            match level {
                NoteLevel::Note => self.note(text),
                NoteLevel::Warning => self.warning(text),
            }
        }
    }

    pub(crate) fn problem(&mut self, problem: &Problem) {
        if self.is_json {
            let json = serde_json::to_string_pretty(problem).expect("a problem is plain data");
            return self.say(&json);
        }
        let error = self.paint(Style::Error, "error:");
        let help = self.paint(Style::Help, "help:");
        let code = self.paint(Style::Faint, "code:");
        self.say(&format!("{error} {}\n", problem.text));
        if !problem.remedy.is_empty() {
            self.say(&format!("{help} {}", problem.remedy));
        }
        self.say(&format!("{code} {}", problem.code));
    }

    /// Prints what clap has to say and returns the exit code.
    pub(crate) fn usage(&mut self, error: &clap::Error) -> u8 {
        let text = error.render();
        let text = if self.io.has_color { text.ansi().to_string() } else { text.to_string() };
        if error.use_stderr() {
            self.say(text.trim_end());
            Kind::Usage.exit_code()
        } else {
            self.data(&text);
            0
        }
    }

    /// Tells the problem a command ended with, if any, and returns the exit code.
    pub(crate) fn end(&mut self, result: Done) -> u8 {
        match result {
            Ok(End::Done) => 0,
            Ok(End::Told(kind)) => kind.exit_code(),
            Err(problem) => {
                self.problem(&problem);
                problem.kind.exit_code()
            }
        }
    }

    /// Returns `text` set off, where that is wanted.
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        if self.io.has_color {
            format!("\x1b[{}m{text}\x1b[0m", style.code())
        } else {
            text.to_owned()
        }
    }
}
