// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! One host: its files, its wire, its daemon, and the commands typed on it.

use super::cleanup::processes_in;
use super::furnish::{Share, bind, prepare, see_shared};
use super::process::{Ran, finish, wait_with_deadline};
use super::{Place, Traffic, network};
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const CONFIG: &str = "/etc/whimbrel/whimbrel.toml";
pub(super) const API_SOCKET: &str = "/var/lib/whimbrel/api.sock";
/// How long the daemon may take to answer after its start, or to end when asked.
const DAEMON_PATIENCE: Duration = Duration::from_secs(20);
/// Lines of the daemon's log that are shown where something failed.
const SAID_LINES: usize = 40;
/// How long a command may take unless it says otherwise.
const COMMAND_PATIENCE: Duration = Duration::from_secs(120);

pub struct Host {
    pub name: String,
    pub address: Ipv4Addr,
    pub place: Place,
    pub(super) namespace: String,
    lan: String,
    pub(super) directory: PathBuf,
    pub(super) program: PathBuf,
    daemon: Mutex<Option<Child>>,
}

impl Host {
    pub(super) fn new(
        name: &str,
        namespace: &str,
        lan: &str,
        address: Ipv4Addr,
        directory: &Path,
        shared: &Path,
        program: &Path,
    ) -> Result<Host> {
        let (own, theirs, named) = (directory.to_owned(), shared.to_owned(), name.to_owned());
        fs::create_dir_all(directory)?;
        let place = Place::new(namespace, move || prepare(&named, &own, &theirs))
            .with_context(|| format!("failed to furnish host {name}"))?;
        Ok(Host {
            name: name.to_owned(),
            address,
            place,
            namespace: namespace.to_owned(),
            lan: lan.to_owned(),
            directory: directory.to_owned(),
            program: program.to_owned(),
            daemon: Mutex::new(None),
        })
    }

    /// Writes the daemon's configuration.
    pub fn configure(&self, text: &str) -> Result<()> {
        let text = text.to_owned();
        self.place.run(move || {
            fs::create_dir_all("/etc/whimbrel")?;
            fs::write(CONFIG, text).context("failed to write the configuration")
        })
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.daemon_log())?;
        let mut command = Command::new(&self.program);
        command.args(["daemon", "--config", CONFIG]).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        // Means nothing to a program without fault points.
        command.env("WHIMBREL_FAULTS", self.faults());
        let mut child = self.place.spawn(command)?;
        let deadline = Instant::now() + DAEMON_PATIENCE;
        while self.place.run(|| UnixStream::connect(API_SOCKET)).is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("the daemon of {} ended ({status}): {}", self.name, self.daemon_said());
            }
            ensure!(
                Instant::now() < deadline,
                "the daemon of {} does not answer: {}",
                self.name,
                self.daemon_said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        *self.daemon.lock().expect("nothing panics with this lock") = Some(child);
        Ok(())
    }

    /// Puts a new file in the place of this host's own copy of the program, as an upgrade does.
    /// What runs already goes on with the old one, which has no name any more.
    pub fn upgrade(&mut self) -> Result<()> {
        let [new, own] = ["whimbrel.new", "whimbrel"].map(|name| self.directory.join(name));
        fs::copy(&self.program, &new).context("failed to copy the program")?;
        fs::rename(&new, &own)?;
        self.program = own;
        Ok(())
    }

    /// Asks the daemon to end, and waits until it has.
    pub fn stop_daemon(&self) -> Result<()> {
        self.end_daemon(Signal::SIGTERM)
    }

    /// Kills the daemon as a crash would.
    pub fn kill_daemon(&self) -> Result<()> {
        self.end_daemon(Signal::SIGKILL)
    }

    /// Stops the daemon where it is, or lets it go on.
    pub fn hold_daemon(&self, is_held: bool) -> Result<()> {
        let signal = if is_held { Signal::SIGSTOP } else { Signal::SIGCONT };
        let pid = self.daemon_pid().with_context(|| format!("{} has no daemon", self.name))?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    pub fn daemon_pid(&self) -> Option<u32> {
        self.daemon.lock().expect("nothing panics with this lock").as_ref().map(Child::id)
    }

    fn end_daemon(&self, signal: Signal) -> Result<()> {
        let child = self.daemon.lock().expect("nothing panics with this lock").take();
        let mut child = child.with_context(|| format!("{} has no daemon", self.name))?;
        kill(pid_of(&child), signal)?;
        let ended = wait_with_deadline(&mut child, DAEMON_PATIENCE)?;
        ensure!(ended.is_some(), "the daemon of {} did not end: {}", self.name, self.daemon_said());
        Ok(())
    }

    /// Where the crash matrix plans what is to happen to this host's daemon.
    pub fn faults(&self) -> PathBuf {
        self.directory.join("faults")
    }

    pub fn daemon_log(&self) -> PathBuf {
        self.directory.join("daemon.log")
    }

    /// The last lines of the daemon's log.
    pub fn daemon_said(&self) -> String {
        let log = fs::read_to_string(self.daemon_log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(SAID_LINES)..].join("\n")
    }

    /// Types a command of ours on this host.
    pub fn whimbrel<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Ran> {
        self.command(&self.program.clone(), arguments, "")
    }

    /// Types a command of ours that reads `input`.
    pub fn whimbrel_reading<S: AsRef<str>>(&self, arguments: &[S], input: &str) -> Result<Ran> {
        self.command(&self.program.clone(), arguments, input)
    }

    /// Types a command in its classic form, through the `xm` front.
    pub fn xm<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Ran> {
        let link = self.xm_link();
        if !link.exists() {
            std::os::unix::fs::symlink(&self.program, &link)?;
        }
        self.command(&link, arguments, "")
    }

    /// The link that makes the program take `xm`'s own syntax; [`Host::xm`] makes it.
    pub fn xm_link(&self) -> PathBuf {
        self.directory.join("xm")
    }

    /// Returns the ids of all processes that live on this host.
    pub fn processes(&self) -> Vec<u32> {
        let pids = processes_in([self.namespace.as_str()]);
        pids.into_iter().filter_map(|pid| u32::try_from(pid.as_raw()).ok()).collect()
    }

    /// Runs any program on this host.
    pub fn command<S: AsRef<str>>(
        &self,
        program: &Path,
        arguments: &[S],
        input: &str,
    ) -> Result<Ran> {
        let mut command = Command::new(program);
        command.args(arguments.iter().map(AsRef::as_ref)).env("NO_COLOR", "1");
        // Starting it is part of what a person waits for.
        let started = Instant::now();
        let child = self.spawn(command)?;
        let ran = finish(child, &self.typed(program, arguments), input, COMMAND_PATIENCE)?;
        Ok(Ran { took: started.elapsed(), ..ran })
    }

    /// Starts a program on this host with its output piped, for tests that watch it run.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.place.spawn(command)
    }

    /// Starts a command of ours on this host.
    pub fn spawn_whimbrel<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(arguments.iter().map(AsRef::as_ref)).env("NO_COLOR", "1");
        self.spawn(command)
    }

    /// Types a command of ours whose output goes where ours goes, for people to watch.
    pub fn watch_whimbrel(&self, arguments: &[&str]) -> Result<ExitStatus> {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        Ok(self.place.spawn(command)?.wait()?)
    }

    /// The program under test.
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn typed<S: AsRef<str>>(&self, program: &Path, arguments: &[S]) -> String {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        format!("{}# {name} {}", self.name, arguments.join(" "))
    }

    /// Pulls this host's wire.
    pub fn unplug(&self) -> Result<()> {
        network::set_wire(&self.lan, &self.name, false)
    }

    pub fn plug_in(&self) -> Result<()> {
        network::set_wire(&self.lan, &self.name, true)
    }

    /// Limits the rate of this host's wire in both directions; `None` lifts the limit.
    pub fn set_rate(&self, mbit: Option<u32>) -> Result<()> {
        network::set_rate(&self.lan, &self.namespace, &self.name, mbit)
    }

    /// Makes this host hear nothing while the others hear it: its connections are half open.
    pub fn set_deaf(&self, is_deaf: bool) -> Result<()> {
        network::set_deaf(&self.namespace, is_deaf)
    }

    /// Closes a port as a firewall does; `None` opens it again.
    pub fn set_blocked(&self, port: Option<u16>) -> Result<()> {
        network::set_blocked(&self.namespace, port)
    }

    /// Shows a directory of the machine below at a place on this host.
    pub fn show(&self, directory: &Path, at: &str) -> Result<()> {
        let (from, to) = (directory.to_owned(), PathBuf::from(at));
        self.place.run(move || bind(&from, &to))
    }

    pub fn traffic(&self) -> Result<Traffic> {
        self.place.run(Traffic::of_uplink)
    }

    /// Changes how this host sees the shared directory. Open files stay open.
    pub fn see_shared(&self, how: Share) -> Result<()> {
        let shared = self.directory.with_file_name("shared");
        self.place.run(move || see_shared(how, &shared))
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id fits"))
}
