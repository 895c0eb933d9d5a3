// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Starts a guest's QEMU so that it outlives the daemon.
//!
//! The program is wrapped in the tools of the system, each of which replaces itself by the next,
//! so that the pid stays the one we started:
//!
//! ```text
//! the caller's wrapper   its own scope, where systemd runs: stopping the daemon spares it
//! setsid                 its own session, so that no terminal takes it along
//! setpriv                the unprivileged user, and nobody else's groups but those of /dev/kvm
//! qemu-system-x86_64
//! ```
//!
//! The sockets for the monitor and the console are made here and passed on listening. So there is
//! nothing to wait for before connecting, a QEMU that dies at once is noticed at once, and only the
//! daemon's user can connect.

use super::QemuConfig;
use super::command::{self, DiskPlace, Surroundings, Tap};
use super::firmware;
use super::process::Pinned;
use super::record::{Record, remove_if_there};
use super::words::{self, Subject};
use crate::contract::{Launch, RunAs};
use crate::error::EngineError;
use command_fds::{CommandFdExt, FdMapping};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio::net::UnixStream;
use whimbrel_model::guest::{DiskSource, Guest, NetworkKind};
use whimbrel_model::passport::{Accelerator, BootRole, DeviceKind};

/// The first number that a passed descriptor has in the child; 0, 1 and 2 are taken.
const CHILD_FD_FIRST: i32 = 3;

pub(super) const MONITOR_SOCKET: &str = "qmp.sock";
pub(super) const CONSOLE_SOCKET: &str = "console.sock";
pub(super) const CONSOLE_LOG: &str = "console.log";
pub(super) const ENGINE_LOG: &str = "engine.log";

/// A QEMU that has just been started, and a stream to its monitor.
pub(super) struct Started {
    pub(super) process: Arc<Pinned>,
    pub(super) stream: UnixStream,
    pub(super) record: Record,
}

/// Descriptors on their way into the child.
#[derive(Default)]
struct Passed(Vec<FdMapping>);

impl Passed {
    /// Takes a descriptor and returns the number it will have in the child.
    fn add(&mut self, parent_fd: OwnedFd) -> i32 {
        let count = i32::try_from(self.0.len()).expect("a guest has a handful of descriptors");
        let child_fd = CHILD_FD_FIRST + count;
        self.0.push(FdMapping { parent_fd, child_fd });
        child_fd
    }
}

/// Starts QEMU. Whoever fails to open its monitor afterwards calls [`abandon`].
pub(super) async fn start(
    config: &QemuConfig,
    launch: &Launch,
    taps: Vec<OwnedFd>,
) -> Result<Started, EngineError> {
    let program = find_program(&config.binary)?;
    let mut passed = Passed::default();
    let found = surroundings(launch, taps, &mut passed)?;
    let arguments = command::arguments(config, launch, &found)?;
    let log = open_log(&launch.directory.join(ENGINE_LOG))?;
    let mut command = wrapped(launch, &program);
    command.args(arguments).stdin(Stdio::null()).stderr(log.1).stdout(log.0).current_dir("/");
    command.fd_mappings(passed.0).expect("each number is given once");
    let failed = |source| EngineError::File { action: "run", path: program.clone(), source };
    let child = command.spawn().map_err(failed)?;
    // The command still holds our ends of the sockets; a dead child would never be noticed.
    drop(command);
    let process = watch(child).map_err(failed)?;
    let record = Record::new(process.process(), launch, &program, found.console_fd.is_some());
    let socket = launch.directory.join(MONITOR_SOCKET);
    let connected = match record.write(&launch.directory) {
        Ok(()) => UnixStream::connect(&socket).await.map_err(|source| EngineError::File {
            action: "connect to",
            path: socket,
            source,
        }),
        Err(error) => Err(error),
    };
    match connected {
        Ok(stream) => Ok(Started { process, stream, record }),
        Err(error) => {
            let error = explain(&program, launch, error);
            abandon(&process, &launch.directory).await;
            Err(error)
        }
    }
}

/// Ends what was started, waits for it, and removes what it leaves.
pub(super) async fn abandon(process: &Pinned, directory: &Path) {
    if let Err(error) = process.kill() {
        tracing::error!(%error, pid = process.process().pid, "failed to kill an engine");
        return;
    }
    process.gone().await;
    clean(directory);
}

/// Removes the sockets and the record of a QEMU that is gone. Its logs stay.
pub(super) fn clean(directory: &Path) {
    for name in [MONITOR_SOCKET, CONSOLE_SOCKET, super::migration::SOCKET] {
        let path = directory.join(name);
        if let Err(error) = remove_if_there(&path) {
            tracing::warn!(%error, path = %path.display(), "failed to remove a socket");
        }
    }
    if let Err(error) = Record::remove(directory) {
        tracing::warn!(%error, path = %directory.display(), "failed to remove a launch record");
    }
}

/// Puts QEMU's own words in the place of an error that only says that it is gone.
pub(super) fn explain(program: &Path, launch: &Launch, error: EngineError) -> EngineError {
    let is_dead = matches!(error, EngineError::Gone { .. } | EngineError::File { .. });
    match words::last_words(&launch.directory.join(ENGINE_LOG)) {
        Some(said) if is_dead => {
            let program = program.display().to_string();
            let user = user_name(launch.run_as);
            let guest = launch.guest.name.as_str();
            words::classify(&Subject { program: &program, guest, user: &user }, &said)
        }
        _ => error,
    }
}

/// Takes hold of the child, and reaps it when it ends, whoever still cares about it.
fn watch(child: Child) -> std::io::Result<Arc<Pinned>> {
    let pinned = Arc::new(Pinned::adopt(child)?);
    let watched = Arc::clone(&pinned);
    tokio::spawn(async move { watched.gone().await });
    Ok(pinned)
}

/// Opens and finds everything that the command line will speak of.
fn surroundings(
    launch: &Launch,
    taps: Vec<OwnedFd>,
    passed: &mut Passed,
) -> Result<Surroundings, EngineError> {
    let directory = &launch.directory;
    let is_bridge = |kind: &NetworkKind| matches!(kind, NetworkKind::Bridge { .. });
    let wanted = launch.guest.networks.iter().filter(|network| is_bridge(&network.kind)).count();
    if taps.len() != wanted {
        let what = format!("{} taps for {wanted} networks on bridges", taps.len());
        return Err(EngineError::Unsupported { what });
    }
    let monitor_fd = passed.add(listen(&directory.join(MONITOR_SOCKET))?);
    let has_console =
        launch.passport.devices.iter().any(|device| device.kind == DeviceKind::Serial);
    let console_fd = match has_console {
        true => Some(passed.add(listen(&directory.join(CONSOLE_SOCKET))?)),
        false => None,
    };
    let taps = taps.into_iter().map(|tap| Tap {
        fd: passed.add(tap),
        vhost_fd: vhost(launch.passport.accelerator).map(|vhost| passed.add(vhost)),
    });
    Ok(Surroundings {
        taps: taps.collect(),
        monitor_fd,
        console_fd,
        console_log: directory.join(CONSOLE_LOG),
        disks: disk_places(&launch.guest),
        uefi_variables: uefi_variables(launch)?,
    })
}

/// Makes a listening socket, in the place of one that an earlier engine left.
fn listen(path: &Path) -> Result<OwnedFd, EngineError> {
    let failed = |source| EngineError::File { action: "listen on", path: path.to_owned(), source };
    remove_if_there(path).map_err(failed)?;
    UnixListener::bind(path).map(OwnedFd::from).map_err(failed)
}

/// Lets the kernel move packets where guests are fast; an emulated one gains nothing from it.
fn vhost(accelerator: Accelerator) -> Option<OwnedFd> {
    if accelerator == Accelerator::Tcg {
        return None;
    }
    let opened = OpenOptions::new().read(true).write(true).open("/dev/vhost-net");
    opened.inspect_err(|error| tracing::debug!(%error, "no vhost-net")).ok().map(OwnedFd::from)
}

fn disk_places(guest: &Guest) -> Vec<DiskPlace> {
    let place = |source: &DiskSource| match source {
        DiskSource::Nfs(_) => DiskPlace::default(),
        DiskSource::Path(path) => DiskPlace {
            is_block_device: path
                .metadata()
                .is_ok_and(|metadata| metadata.file_type().is_block_device()),
            is_direct: takes_direct(path),
        },
    };
    guest.disks.iter().map(|disk| place(&disk.source)).collect()
}

/// Whether the file system under an image takes `O_DIRECT`. Whatever else is wrong with the image
/// is for QEMU to say, as the user it runs as.
fn takes_direct(path: &Path) -> bool {
    let flags = nix::libc::O_DIRECT | nix::libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    !opened.is_err_and(|error| error.raw_os_error() == Some(nix::libc::EINVAL))
}

/// Gives a UEFI guest its own variables, once.
fn uefi_variables(launch: &Launch) -> Result<PathBuf, EngineError> {
    let path = launch.directory.join(firmware::VARIABLES);
    let firmware = launch.passport.boot_files.iter().find(|file| file.role == BootRole::Firmware);
    let Some(firmware) = firmware else { return Ok(path) };
    if path.exists() {
        return Ok(path);
    }
    let template = firmware::variables_of(&firmware.path)?;
    let failed = |source| EngineError::File { action: "write", path: path.clone(), source };
    let content = std::fs::read(template).map_err(|source| EngineError::File {
        action: "read",
        path: template.to_owned(),
        source,
    })?;
    std::fs::write(&path, content).map_err(failed)?;
    if let Some(RunAs { uid, gid }) = launch.run_as {
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).map_err(failed)?;
    }
    Ok(path)
}

/// Opens the log that collects QEMU's complaints, empty, twice: for stdout and stderr.
fn open_log(path: &Path) -> Result<(Stdio, Stdio), EngineError> {
    let failed = |source| EngineError::File { action: "write", path: path.to_owned(), source };
    // A file, not a pipe: a pipe would end with the daemon. Made anew, so that nobody can have put
    // a link in its place.
    remove_if_there(path).map_err(failed)?;
    let mut options = OpenOptions::new();
    let log = options.append(true).create_new(true).mode(0o640).open(path).map_err(failed)?;
    let second = log.try_clone().map_err(failed)?;
    Ok((log.into(), second.into()))
}

/// Returns the command that becomes QEMU; the arguments are still to come.
fn wrapped(launch: &Launch, program: &Path) -> Command {
    let mut words = Vec::new();
    words.push("setsid".to_owned());
    if let Some(RunAs { uid, gid }) = launch.run_as {
        words.push("setpriv".to_owned());
        words.extend([format!("--reuid={uid}"), format!("--regid={gid}")]);
        let needs_kvm = launch.passport.accelerator == Accelerator::Kvm;
        words.push(match kvm_group().filter(|_| needs_kvm) {
            Some(group) => format!("--groups={group}"),
            None => "--clear-groups".to_owned(),
        });
        words.extend(["--no-new-privs", "--inh-caps=-all", "--"].map(str::to_owned));
    }
    let mut all = launch.wrapper.iter().cloned().chain(words.into_iter().map(OsString::from));
    let mut command = Command::new(all.next().expect("`setsid` is always there"));
    command.args(all).arg(program);
    command
}

/// The group that may use KVM here, whatever it is called.
fn kvm_group() -> Option<u32> {
    std::fs::metadata("/dev/kvm").ok().map(|metadata| metadata.gid())
}

fn user_name(run_as: Option<RunAs>) -> String {
    let uid = run_as.map_or_else(nix::unistd::geteuid, |run_as| run_as.uid.into());
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

/// Finds a program as a shell would, so that a missing one is noticed before anything is made.
pub(super) fn find_program(name: &Path) -> Result<PathBuf, EngineError> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
    };
    let candidates: Vec<PathBuf> = if name.components().count() > 1 {
        vec![name.to_owned()]
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).map(|folder| folder.join(name)).collect()
    };
    candidates
        .into_iter()
        .find(is_program)
        .ok_or_else(|| EngineError::NotInstalled { program: name.display().to_string() })
}
