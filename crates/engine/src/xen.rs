// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Xen, driven by `xl`, which fits whatever Xen is installed.
//!
//! One question a file: what a guest is called in xl's words (`config`), one guest (`instance`)
//! and its terminal (`console`), what is written down about it (`record`), what keeps it from
//! moving (`hindrances`, `loops`), what stands between xl and the carrying process while it moves
//! (`pipe`), what is let in of that (`header`), who says that a domain has ended (`store`), and
//! what plugs its devices in (`hotplug`); of the guests that others have started, which there are
//! (`domains`), what they are (`describe`), and what xl has left to watch over them (`monitor`).

mod config;
mod console;
mod describe;
mod domains;
mod header;
mod hindrances;
pub mod hotplug;
mod instance;
mod json;
mod loops;
mod monitor;
pub mod pipe;
mod record;
mod store;
mod xl;

use crate::boot_files;
use crate::contract::{
    Adopt, Described, Engine, EngineFacts, Foreign, HostMemory, Instance, Launch,
};
use crate::error::EngineError;
use async_trait::async_trait;
use domains::Domains;
use instance::XenInstance;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::OnceCell;
use whimbrel_model::guest::{DiskDevice, Guest, Mac};
use whimbrel_model::id::GuestId;
use whimbrel_model::passport::{Accelerator, Cpu, Device, DeviceKind, EngineKind, Passport};

/// Xen's own range of addresses for guests' network cards.
const MAC_PREFIX: [u8; 3] = [0x00, 0x16, 0x3e];
/// Where QEMU is that makes whole machines: as Debian has it, and as Xen itself installs it.
const DEVICE_MODELS: [&str; 4] = [
    "/usr/libexec/xen-qemu-system-i386",
    "/usr/lib/xen/bin/qemu-system-i386",
    "/usr/lib64/xen/bin/qemu-system-i386",
    "/usr/local/lib/xen/bin/qemu-system-i386",
];
/// Guests have the host's own processor.
const CPU_MODEL: &str = "host";

/// The Xen that this host runs on.
#[derive(Debug, Default)]
pub struct Xen {
    domains: Domains,
    plugs_in: bool,
    /// What does not change while this Xen runs is asked for once: `xl` is slow.
    booted: OnceCell<xl::Info>,
}

impl Xen {
    /// `plugs_in`: guests' devices are plugged in by this program where it can, and not by Xen's
    /// scripts.
    pub fn new(plugs_in: bool) -> Self {
        Self { plugs_in, ..Self::default() }
    }

    /// Whether this is the control domain of a Xen host.
    pub fn is_here() -> bool {
        let capabilities = std::fs::read_to_string("/proc/xen/capabilities");
        capabilities.is_ok_and(|text| text.contains("control_d"))
    }
}

#[async_trait]
impl Engine for Xen {
    fn kind(&self) -> EngineKind {
        EngineKind::Xen
    }

    fn makes_own_taps(&self) -> bool {
        true
    }

    async fn memory(&self) -> Result<Option<HostMemory>, EngineError> {
        let info = xl::info().await?;
        let own = xl::own_memory()?;
        let config = std::fs::read_to_string(xl::CONFIG).unwrap_or_default();
        let gives_own = xl::gives_own_memory(&config, &info.command_line);
        Ok(Some(HostMemory { total: info.total, free: info.free, own, gives_own }))
    }

    async fn facts(&self) -> Result<EngineFacts, EngineError> {
        self.booted.get_or_try_init(xl::info).await.map(facts)
    }

    async fn freeze(&self, id: GuestId, guest: &Guest) -> Result<Passport, EngineError> {
        let facts = self.facts().await?;
        let described = guest.clone();
        let boot_files = tokio::task::spawn_blocking(move || boot_files::of_kernel(&described))
            .await
            .expect("reading files does not panic")?;
        let cpu = Cpu { model: facts.cpu_model, features: facts.cpu_features };
        Ok(Passport { cpu, boot_files, ..passport(id, guest, facts.version) })
    }

    async fn launch(&self, launch: Launch) -> Result<Arc<dyn Instance>, EngineError> {
        let instance: Arc<dyn Instance> = XenInstance::launch(launch, self.plugs_in).await?;
        Ok(instance)
    }

    async fn attach(
        &self,
        id: GuestId,
        directory: &Path,
    ) -> Result<Option<Arc<dyn Instance>>, EngineError> {
        let found = XenInstance::attach(id, directory).await?;
        Ok(found.map(|instance| -> Arc<dyn Instance> { instance }))
    }

    async fn end_unused(&self, id: GuestId, directory: &Path) -> Result<bool, EngineError> {
        let Some(instance) = self.attach(id, directory).await? else { return Ok(true) };
        if instance.has_run() {
            return Ok(false);
        }
        instance.destroy().await.map(|()| true)
    }

    fn foreign_tool(&self) -> Option<&'static str> {
        Some(xl::PROGRAM)
    }

    async fn foreign(&self, ours: &BTreeSet<GuestId>) -> Result<Vec<Foreign>, EngineError> {
        self.domains.besides(ours).await
    }

    async fn describe(&self, foreign: &Foreign) -> Result<Described, EngineError> {
        let gone = || EngineError::Gone { guest: foreign.name.clone(), last_words: None };
        let domain = xl::find(&foreign.name, foreign.id).await?.ok_or_else(gone)?;
        let number = domain.number.to_string();
        describe::describe(&xl::run(&foreign.name, &["list", "-l", &number]).await?, foreign)
    }

    async fn adopt(&self, adopt: Adopt) -> Result<Arc<dyn Instance>, EngineError> {
        let instance: Arc<dyn Instance> = XenInstance::adopt(adopt).await?;
        Ok(instance)
    }
}

/// Whether there is a QEMU that makes whole machines for Xen.
fn has_device_model() -> bool {
    DEVICE_MODELS.iter().any(|path| Path::new(path).exists())
}

fn facts(info: &xl::Info) -> EngineFacts {
    let can = |word: &str| info.abilities.iter().any(|ability| ability == word);
    let machines = [
        (can("hvm"), config::MACHINE_PVH),
        (can("pv"), config::MACHINE_PV),
        (can("hvm") && has_device_model(), config::MACHINE_HVM),
    ];
    EngineFacts {
        kind: EngineKind::Xen,
        version: info.version.clone(),
        accelerator: Accelerator::Kvm,
        accelerator_reason: "Xen uses the processor itself".to_owned(),
        machines: machines
            .iter()
            .filter(|(is_there, _)| *is_there)
            .map(|(_, machine)| (*machine).to_owned())
            .collect(),
        machine_default: config::MACHINE_PVH.to_owned(),
        cpu_model: CPU_MODEL.to_owned(),
        cpu_models: vec![CPU_MODEL.to_owned()],
        cpu_features: info.cpu_features.clone(),
        has_multifd: false,
        has_multifd_zstd: false,
        has_urgent_channel: false,
    }
}

/// Everything of a passport that this host need not be asked for.
fn passport(id: GuestId, guest: &Guest, engine_version: String) -> Passport {
    Passport {
        guest: id,
        engine: EngineKind::Xen,
        engine_version,
        accelerator: Accelerator::Kvm,
        machine: config::machine(guest).to_owned(),
        cpu: Cpu { model: CPU_MODEL.to_owned(), features: Vec::new() },
        memory: guest.memory.size,
        cpu_count: guest.cpus.count,
        cpu_count_max: guest.cpus.count_max,
        devices: devices(id, guest),
        boot_files: Vec::new(),
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
        let ([a, b, ..], [x, y, z]) = (*id.0.as_bytes(), MAC_PREFIX);
        let last = u8::try_from(index).unwrap_or(u8::MAX);
        let mac = network.mac.unwrap_or(Mac([x, y, z, a, b, last]));
        device(format!("net{index}"), DeviceKind::Network { index, mac })
    });
    let serial = std::iter::once(device("serial0".to_owned(), DeviceKind::Serial));
    disks.chain(networks).chain(serial).collect()
}
