// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The bench the tests work at: an engine, guests on it, and a wire between two of them.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use whimbrel_engine::fake::FakeEngine;
use whimbrel_engine::qemu::{Qemu, QemuConfig};
use whimbrel_engine::xen::Xen;
use whimbrel_engine::{
    ChannelEnd, Engine, EngineEvent, Instance, Launch, Migration, MigrationOptions, Start, Tuning,
};
use whimbrel_model::guest::{
    Boot, BootFrom, Cpus, Devices, Disk, DiskDevice, DiskFormat, DiskSource, Firmware, Guest,
    Memory, Policies, Policy,
};
use whimbrel_model::id::{GuestId, GuestName};
use whimbrel_model::passport::Passport;
use whimbrel_model::run_state::RunState;
use whimbrel_model::units::Bytes;

/// Nothing here takes long; what does is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Which engine a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Fake,
    Qemu,
    Xen,
}

/// An engine and a place for its guests' directories.
pub(crate) struct Bench {
    kind: Kind,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) fake: Option<Arc<FakeEngine>>,
    pub(crate) folder: TempDir,
}

/// One guest, defined and frozen but not launched.
pub(crate) struct Defined {
    pub(crate) id: GuestId,
    pub(crate) guest: Guest,
    pub(crate) passport: Passport,
}

impl Bench {
    /// Returns a bench; none, and a loud word, where the engine is not installed.
    pub(crate) async fn new(kind: Kind) -> Option<Bench> {
        let folder = tempfile::Builder::new().prefix("whimbrel-").tempdir().unwrap();
        let (engine, fake): (Arc<dyn Engine>, _) = match kind {
            Kind::Fake => {
                let fake = Arc::new(FakeEngine::new());
                (fake.clone(), Some(fake))
            }
            Kind::Qemu => (Arc::new(Qemu::new(config())), None),
            Kind::Xen => (Arc::new(Xen::default()), None),
        };
        match engine.facts().await {
            Ok(_) => Some(Bench { kind, engine, fake, folder }),
            Err(error) => {
                eprintln!("SKIPPED: {error}");
                None
            }
        }
    }

    /// Defines a small guest, changed as the test likes.
    pub(crate) async fn define(&self, change: impl FnOnce(&mut Guest)) -> Defined {
        let id = GuestId(uuid::Uuid::new_v4());
        let mut guest = small_guest();
        if self.kind == Kind::Xen {
            // There are others on the host.
            guest.name = GuestName::new("tested").unwrap();
            guest.boot = given_kernel();
            guest.memory.size = Bytes::mib(96);
        }
        change(&mut guest);
        let passport = self.engine.freeze(id, &guest).await.unwrap();
        Defined { id, guest, passport }
    }

    /// A guest's directory on the named host.
    pub(crate) fn directory(&self, host: &str) -> PathBuf {
        let directory = self.folder.path().join(host);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    pub(crate) fn launch_of(&self, defined: &Defined, host: &str, start: Start) -> Launch {
        Launch {
            guest: defined.guest.clone(),
            passport: defined.passport.clone(),
            directory: self.directory(host),
            taps: Vec::new(),
            start,
            run_as: None,
            wrapper: Vec::new(),
        }
    }

    pub(crate) async fn launch(
        &self,
        defined: &Defined,
        host: &str,
        start: Start,
    ) -> Arc<dyn Instance> {
        self.engine.launch(self.launch_of(defined, host, start)).await.unwrap()
    }

    /// Makes a raw disk.
    pub(crate) fn disk(&self, name: &str) -> Disk {
        let path = self.folder.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
        Disk {
            source: DiskSource::Path(path),
            format: DiskFormat::Raw,
            is_read_only: false,
            device: DiskDevice::Disk,
            name: None,
        }
    }
}

/// A test that fails must not leave its engines behind: they are made to outlive us.
impl Drop for Bench {
    fn drop(&mut self) {
        let hosts = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        for host in hosts {
            let Ok(text) = std::fs::read(host.path().join("launch.json")) else { continue };
            let Ok(record) = serde_json::from_slice::<serde_json::Value>(&text) else { continue };
            let Some(pid) = record["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()) else {
                continue;
            };
            let ours = self.folder.path().to_string_lossy().into_owned();
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&ours) {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// The system's QEMU, or the one that `WHIMBREL_TEST_QEMU` names.
fn config() -> QemuConfig {
    match std::env::var_os("WHIMBREL_TEST_QEMU") {
        Some(binary) => QemuConfig { binary: binary.into(), ..QemuConfig::default() },
        None => QemuConfig::default(),
    }
}

/// On Xen a guest is given its kernel; where one lies is for the environment to say.
fn given_kernel() -> Boot {
    let path = |name: &str| PathBuf::from(std::env::var_os(name).expect("a kernel is named"));
    Boot::Kernel {
        kernel: path("WHIMBREL_TEST_KERNEL"),
        ramdisk: Some(path("WHIMBREL_TEST_RAMDISK")),
        command_line: "console=hvc0 quiet".to_owned(),
    }
}

pub(crate) fn small_guest() -> Guest {
    Guest {
        name: GuestName::new("web1").unwrap(),
        id: None,
        memory: Memory { size: Bytes::mib(64), min: None },
        cpus: Cpus { count: 1, count_max: 1, model: None },
        machine: None,
        boot: Boot::Firmware { firmware: Firmware::Bios, from: BootFrom::Disk },
        disks: Vec::new(),
        networks: Vec::new(),
        devices: Devices { has_balloon: true, has_rng: true, has_serial: true },
        on: Policies { poweroff: Policy::Destroy, reboot: Policy::Restart, crash: Policy::Destroy },
        autostart: false,
        keep_memory: false,
    }
}

pub(crate) fn options() -> MigrationOptions {
    MigrationOptions {
        channels: 1,
        is_compressed: false,
        tuning: Tuning { pause_max: Duration::from_millis(300), ..Tuning::default() },
        is_stop_and_copy: false,
        may_throttle: false,
        may_postcopy: false,
        has_urgent_channel: false,
    }
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Waits until `ask` gives a migration that `wanted` accepts, asking anew at every event.
pub(crate) async fn until(
    instance: &Arc<dyn Instance>,
    what: &str,
    wanted: impl Fn(&Migration) -> bool,
) -> Migration {
    let mut events = instance.events();
    within(what, async {
        loop {
            let migration = instance.migration().await.unwrap();
            if wanted(&migration) {
                return migration;
            }
            // The figures of a running round change without an event.
            let _ = tokio::time::timeout(Duration::from_millis(20), events.recv()).await;
        }
    })
    .await
}

/// Waits until the instance is in the given state.
pub(crate) async fn until_state(instance: &Arc<dyn Instance>, wanted: RunState) {
    let mut events = instance.events();
    within(&format!("{wanted:?}"), async {
        while instance.run_state().await.unwrap() != wanted {
            events.recv().await.unwrap();
        }
    })
    .await;
}

pub(crate) async fn until_gone(mut events: broadcast::Receiver<EngineEvent>) {
    within("the end of the engine", async {
        loop {
            match events.recv().await {
                Ok(EngineEvent::Gone) | Err(broadcast::error::RecvError::Closed) => return,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            }
        }
    })
    .await;
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Joins a source's channels to a target's, in order, and can be held and cut.
pub(crate) struct Wire {
    pub(crate) end: ChannelEnd,
    limits: watch::Sender<Limits>,
    connected: watch::Receiver<u32>,
    task: JoinHandle<()>,
}

/// Bytes that may pass a channel before it stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) forward: u64,
    pub(crate) back: u64,
}

impl Limits {
    pub(crate) const NONE: Limits = Limits { forward: u64::MAX, back: u64::MAX };
}

impl Wire {
    pub(crate) fn new(folder: &Path, target: ChannelEnd, limits: Limits) -> Wire {
        let ChannelEnd::Listen(target) = target else { panic!("the target listens") };
        let path = folder.join("carry.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let (limits, watched) = watch::channel(limits);
        let (connections, connected) = watch::channel(0);
        let task = tokio::spawn(carry(listener, target, watched, connections));
        Wire { end: ChannelEnd::Connect(path), limits, connected, task }
    }

    /// Waits until the two ends are joined.
    pub(crate) async fn joined(&self) {
        let mut connected = self.connected.clone();
        within("a channel", connected.wait_for(|&count| count > 0)).await.unwrap();
    }

    /// Lets everything through.
    pub(crate) fn release(&self) {
        self.limits.send_replace(Limits::NONE);
    }

    /// Closes every socket.
    pub(crate) async fn cut(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn carry(
    listener: UnixListener,
    target: PathBuf,
    limits: watch::Receiver<Limits>,
    connections: watch::Sender<u32>,
) {
    // The pumps end with this task: dropping the set closes every socket.
    let mut pumps = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (near, _) = accepted.unwrap();
                // Channel n is connected only after n-1 was: that is the order.
                let Ok(far) = UnixStream::connect(&target).await else { return };
                connections.send_modify(|count| *count += 1);
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                pumps.spawn(pump(near_read, far_write, limits.clone(), |limits| limits.forward));
                pumps.spawn(pump(far_read, near_write, limits.clone(), |limits| limits.back));
            }
            Some(_) = pumps.join_next() => {}
        }
    }
}

async fn pump(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    mut limits: watch::Receiver<Limits>,
    limit: fn(&Limits) -> u64,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        passed += count as u64;
        if limits.wait_for(|limits| passed <= limit(limits)).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
