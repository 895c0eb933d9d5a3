// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A daemon that is made up, and the program run against it.

use crate::fake::Fake;
use std::fmt;
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use whimbrel_api::log::{LogPage, LogQuery};
use whimbrel_api::{Kind, Problem};
use whimbrel_cli::{Hooks, Io};
use whimbrel_daemon::http::{Socket, serve};

/// Longest line in a snapshot, so that it fits the page with its indentation.
const LINE_MAX: usize = 88;

pub(crate) struct Lab {
    pub(crate) directory: TempDir,
    pub(crate) fake: Arc<Fake>,
    runtime: Runtime,
}

/// What a run of the program left.
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "exit code: {}", self.code)?;
        let (out, err) = (folded(&self.out), folded(&self.err));
        writeln!(f, "----- stdout -----\n{out}----- stderr -----\n{err}")
    }
}

/// Folds lines that do not fit the page; a backslash marks where.
fn folded(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while rest.len() > LINE_MAX {
            let cut = rest[..LINE_MAX].rfind(' ').map_or(LINE_MAX, |space| space + 1);
            out.push_str(&rest[..cut]);
            out.push_str("\\\n    ");
            rest = &rest[cut..];
        }
        out.push_str(rest);
    }
    out
}

/// A program yet to run, and what is at its ends.
pub(crate) struct Run<'a> {
    lab: &'a Lab,
    input: Box<dyn Read + Send>,
    is_terminal: bool,
    interrupts: Option<mpsc::UnboundedReceiver<()>>,
    out: Captured,
}

/// What was written, while it is written.
#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let _inside = runtime.enter();
        let socket = Socket::bind(&directory.path().join("api.sock"), None).unwrap();
        let fake = Arc::new(Fake::new(directory.path()));
        runtime.spawn(serve(socket, fake.clone(), std::future::pending()));
        drop(_inside);
        Self { directory, fake, runtime }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Runs `whimbrel` with these arguments and nobody at the terminal.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.prepare().run(args)
    }

    pub(crate) fn prepare(&self) -> Run<'_> {
        Run {
            lab: self,
            input: Box::new(io::empty()),
            is_terminal: false,
            interrupts: None,
            out: Captured::default(),
        }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Run<'_> {
    pub(crate) fn input(mut self, text: &str) -> Self {
        self.input = Box::new(Cursor::new(text.to_owned().into_bytes()));
        self
    }

    pub(crate) fn keyboard(mut self, keys: impl Read + Send + 'static) -> Self {
        self.input = Box::new(keys);
        self
    }

    pub(crate) fn terminal(mut self) -> Self {
        self.is_terminal = true;
        self
    }

    pub(crate) fn interrupts(mut self, interrupts: mpsc::UnboundedReceiver<()>) -> Self {
        self.interrupts = Some(interrupts);
        self
    }

    pub(crate) fn out(mut self, out: Captured) -> Self {
        self.out = out;
        self
    }

    pub(crate) fn run(self, args: &[&str]) -> Ran {
        let socket = self.lab.socket();
        let all = ["whimbrel", "--socket", socket.to_str().unwrap()];
        self.run_exactly(&[&all, args].concat())
    }

    /// Runs the program under another name; it finds its daemon through the configuration.
    pub(crate) fn run_as(self, name: &str, args: &[&str]) -> Ran {
        let config =
            self.lab.file("whimbrel.toml", &format!("[api]\nsocket = {:?}\n", self.lab.socket()));
        let program = format!("/usr/sbin/{name}");
        self.run_exactly(&[&[program.as_str(), "--config", &config], args].concat())
    }

    fn run_exactly(self, args: &[&str]) -> Ran {
        let err = Captured::default();
        // Waits are told from hangs by the test runner's own limit; an interrupt never comes.
        let interrupts = self.interrupts.or_else(|| Some(mpsc::unbounded_channel().1));
        let io = Io {
            input: self.input,
            out: Box::new(self.out.clone()),
            err: Box::new(err.clone()),
            is_input_terminal: self.is_terminal,
            is_out_terminal: self.is_terminal,
            is_err_terminal: self.is_terminal,
            has_color: false,
            set_raw: |_| Ok(()),
            interrupts,
        };
        let code = whimbrel_cli::run_with(args.iter().map(Into::into), hooks(), io);
        let place = self.lab.directory.path().display().to_string();
        let clean = |text: String| text.replace(&place, "/tmp/lab");
        Ran { code, out: clean(self.out.text()), err: clean(err.text()) }
    }
}

/// Runs the program alone, without any daemon.
pub(crate) fn run_alone(args: &[&str]) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let fake = Arc::new(Fake::new(directory.path()));
    let lab = Lab { directory, fake, runtime };
    lab.prepare().run_exactly(args)
}

pub(crate) fn hooks() -> Hooks {
    Hooks {
        daemon: |config| {
            let text = format!("no daemon in this test, {config:?}");
            Err(Problem::new(Kind::Refused, "test/no-daemon", text, "none"))
        },
        carry: |_| Ok(()),
        xl_pipe: |_, _| Ok(()),
        stored_log,
    }
}

fn stored_log(_: &Path, query: &LogQuery) -> Result<LogPage, Problem> {
    let line = crate::fake::log_line(1_700_000_000_000, "alpha", "the daemon has ended");
    match query.guest.as_deref() {
        Some("nobody") => Err(Problem::guest_not_found("nobody")),
        _ => Ok(LogPage { lines: vec![line], hosts_silent: Vec::new() }),
    }
}
