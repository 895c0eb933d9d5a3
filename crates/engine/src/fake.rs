// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! An engine without guests, for tests of our own decisions.
//!
//! It keeps the contract, and on request it does what real engines do at bad moments: fail, hang,
//! die, resume by itself. Its guests are tasks of this program: they outlive a daemon that is
//! dropped inside one test, not the program. What it sends through its channels is a small
//! stand-in for memory, with acknowledgements, so that a whole migration can run between two of
//! them over real sockets (see `wire`).

mod console;
mod guest;
mod wire;

use crate::contract::{Engine, EngineFacts, Instance, Launch, Process, Start};
use crate::error::EngineError;
use async_trait::async_trait;
use guest::{Body, FakeInstance};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use whimbrel_model::guest::{DiskDevice, Guest, Mac};
use whimbrel_model::id::GuestId;
use whimbrel_model::passport::{Accelerator, Cpu, Device, DeviceKind, EngineKind, Passport};
use whimbrel_model::run_state::RunState;
use whimbrel_model::units::Bytes;

/// The fake of one host.
#[derive(Default)]
pub struct FakeEngine {
    /// By the directory they were launched in: one guest may be on two hosts of one test.
    guests: Mutex<HashMap<PathBuf, Arc<Body>>>,
    facts: Mutex<Option<EngineFacts>>,
    launch_failure: Mutex<Option<String>>,
    launched: AtomicU64,
}

/// Something the fake does on behalf of the daemon, and can be told to fail at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Pause,
    Resume,
    Reset,
    Destroy,
    Receive,
    Send,
    Cancel,
    Announce,
}

/// Where a fake that sends can be told to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// While memory flows and the guest runs.
    Active,
    /// While the guest is stopped and the last of it flows. As with QEMU, `cancel` answers only
    /// when the channels were closed.
    Switching,
}

/// A hand on a fake guest: what a real one does by itself.
#[derive(Clone)]
pub struct FakeGuest(Arc<Body>);

impl FakeEngine {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes this host another one, for plans.
    pub fn set_facts(&self, facts: EngineFacts) {
        *lock(&self.facts) = Some(facts);
    }

    /// Lets the next launch fail with this reason.
    pub fn fail_next_launch(&self, reason: &str) {
        *lock(&self.launch_failure) = Some(reason.to_owned());
    }

    /// Returns the guest that was launched in `directory` and lives.
    pub fn guest(&self, directory: &Path) -> Option<FakeGuest> {
        lock(&self.guests).get(directory).filter(|body| body.is_alive()).cloned().map(FakeGuest)
    }
}

impl FakeGuest {
    /// Bytes a second the guest dirties from now on.
    pub fn set_dirty_rate(&self, rate: Bytes) {
        self.0.state().dirty_rate = rate;
    }

    /// Lets the next call of this kind fail with this reason.
    pub fn fail_next(&self, call: Call, reason: &str) {
        self.0.state().failures.insert(call, reason.to_owned());
    }

    /// Lets a migration stand still when it comes to this stage; none lets it go on.
    pub fn hang_at(&self, stage: Option<Stage>) {
        self.0.hang.send_replace(stage);
    }

    /// The engine crashes.
    pub fn die(&self) {
        self.0.die();
    }

    /// The engine starts the guest without being told to.
    pub fn resume_by_itself(&self) {
        self.0.enter(RunState::Running);
    }

    pub fn power_off(&self) {
        self.0.enter(RunState::ShutDown);
    }

    pub fn panic(&self) {
        self.0.enter(RunState::Panicked);
    }

    pub fn suspend(&self) {
        self.0.enter(RunState::Suspended);
    }

    /// The n-th disk fails.
    pub fn fail_disk(&self, index: usize) {
        self.0.fail_disk(index);
    }

    /// What stands in for the guest's memory: drawn when it boots, and it moves with the guest.
    pub fn memory(&self) -> u64 {
        self.0.state().memory
    }

    /// How often the guest was announced here.
    pub fn announced(&self) -> u64 {
        self.0.state().announced
    }
}

#[async_trait]
impl Engine for FakeEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Fake
    }

    async fn facts(&self) -> Result<EngineFacts, EngineError> {
        Ok(lock(&self.facts).clone().unwrap_or_else(default_facts))
    }

    async fn freeze(&self, id: GuestId, guest: &Guest) -> Result<Passport, EngineError> {
        let facts = self.facts().await?;
        let model = guest.cpus.model.clone().unwrap_or(facts.cpu_model);
        Ok(Passport {
            guest: id,
            engine: EngineKind::Fake,
            engine_version: facts.version,
            accelerator: facts.accelerator,
            machine: guest.machine.clone().unwrap_or(facts.machine_default),
            cpu: Cpu { model, features: facts.cpu_features },
            memory: guest.memory.size,
            cpu_count: guest.cpus.count,
            cpu_count_max: guest.cpus.count_max,
            devices: devices(id, guest),
            boot_files: Vec::new(),
        })
    }

    async fn launch(&self, launch: Launch) -> Result<Arc<dyn Instance>, EngineError> {
        if let Some(reason) = lock(&self.launch_failure).take() {
            let guest = launch.guest.name.to_string();
            return Err(EngineError::Start { program: "fake".to_owned(), guest, reason });
        }
        let directory = launch.directory.clone();
        if self.guest(&directory).is_some() {
            let guest = launch.guest.name.to_string();
            let reason = "there is one in its directory already".to_owned();
            return Err(EngineError::Start { program: "fake".to_owned(), guest, reason });
        }
        let number = self.launched.fetch_add(1, Ordering::Relaxed) + 1;
        // Pid 0 is nobody's: whoever would kill by it harms no one.
        let body = Body::new(&launch, Process { pid: 0, start_ticks: number })?;
        if launch.start == Start::Boot {
            body.state().memory = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        lock(&self.guests).insert(directory, Arc::clone(&body));
        Ok(Arc::new(FakeInstance(body)))
    }

    async fn attach(
        &self,
        id: GuestId,
        directory: &Path,
    ) -> Result<Option<Arc<dyn Instance>>, EngineError> {
        let Some(FakeGuest(body)) = self.guest(directory) else { return Ok(None) };
        if body.id != id {
            let reason = format!("the engine there is of guest {}, not of {id}", body.id);
            return Err(body.refused("attach", &reason));
        }
        Ok(Some(Arc::new(FakeInstance(body))))
    }

    async fn end_unused(&self, id: GuestId, directory: &Path) -> Result<bool, EngineError> {
        let Some(instance) = self.attach(id, directory).await? else { return Ok(true) };
        if instance.has_run() {
            return Ok(false);
        }
        instance.destroy().await.map(|()| true)
    }
}

fn default_facts() -> EngineFacts {
    EngineFacts {
        kind: EngineKind::Fake,
        version: "1.0.0".to_owned(),
        accelerator: Accelerator::Tcg,
        accelerator_reason: "nothing is run".to_owned(),
        machines: vec!["fake-1".to_owned()],
        machine_default: "fake-1".to_owned(),
        cpu_model: "Fake-v1".to_owned(),
        cpu_models: vec!["Fake-v1".to_owned()],
        cpu_features: vec!["aes".to_owned(), "sse2".to_owned()],
        has_multifd: true,
        has_multifd_zstd: true,
        has_urgent_channel: false,
    }
}

fn devices(id: GuestId, guest: &Guest) -> Vec<Device> {
    let device = |id: String, kind| Device { id, kind, pci_slot: None, rom_bytes: None };
    let disks = guest.disks.iter().enumerate().map(|(index, disk)| {
        let name = match disk.device {
            DiskDevice::Disk => format!("disk{index}"),
            DiskDevice::Cdrom => format!("cdrom{index}"),
        };
        device(name, DeviceKind::Disk { index })
    });
    let networks = guest.networks.iter().enumerate().map(|(index, network)| {
        let [a, b, c, ..] = *id.0.as_bytes();
        let last = u8::try_from(index).unwrap_or(u8::MAX);
        let mac = network.mac.unwrap_or(Mac([0x52, 0x54, a, b, c, last]));
        device(format!("net{index}"), DeviceKind::Network { index, mac })
    });
    disks.chain(networks).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
