// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! QEMU, driven over its monitor (QMP).
//!
//! One rule a file: what this host's QEMU can do (`facts`), what a guest takes from it for ever
//! (`freeze`), the command line that follows (`command`), a process that outlives us (`launch`),
//! one guest (`instance`), and how it moves (`migration`).

mod command;
mod dirty;
mod facts;
mod firmware;
mod freeze;
mod instance;
mod launch;
mod migration;
mod probe;
pub(crate) mod process;
mod qmp;
mod record;
#[cfg(test)]
mod samples;
mod words;

use crate::contract::{Engine, EngineFacts, Instance, Launch};
use crate::error::EngineError;
use async_trait::async_trait;
use facts::Facts;
use instance::QemuInstance;
use probe::Probe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::Mutex;
use whimbrel_model::facts::UefiFacts;
use whimbrel_model::guest::Guest;
use whimbrel_model::id::GuestId;
use whimbrel_model::passport::{Accelerator, EngineKind, Passport};

/// Which QEMU to use, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuConfig {
    pub binary: PathBuf,
    /// Where its firmware lies, if not where it was built for (`-L`).
    pub data_dir: Option<PathBuf>,
    /// Overrules the choice between KVM and TCG.
    pub accelerator: Option<Accelerator>,
}

impl Default for QemuConfig {
    fn default() -> Self {
        QemuConfig {
            binary: PathBuf::from("qemu-system-x86_64"),
            data_dir: None,
            accelerator: None,
        }
    }
}

/// The QEMU of this host.
pub struct Qemu {
    config: QemuConfig,
    /// What was found out, and about which binary.
    facts: Mutex<Option<(Stamp, Facts)>>,
}

/// Tells one binary from the next that is installed in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    modified: Option<SystemTime>,
}

impl Qemu {
    pub fn new(config: QemuConfig) -> Self {
        Qemu { config, facts: Mutex::new(None) }
    }

    /// Returns the facts; asks only where the binary is new to us.
    async fn known(&self) -> Result<Facts, EngineError> {
        let path = launch::find_program(&self.config.binary)?;
        let modified = path.metadata().and_then(|metadata| metadata.modified()).ok();
        let stamp = Stamp { path, modified };
        let mut known = self.facts.lock().await;
        if let Some((of, facts)) = known.as_ref()
            && *of == stamp
        {
            return Ok(facts.clone());
        }
        let facts = facts::ask(&self.config).await?;
        *known = Some((stamp, facts.clone()));
        Ok(facts)
    }
}

#[async_trait]
impl Engine for Qemu {
    fn kind(&self) -> EngineKind {
        EngineKind::Qemu
    }

    async fn facts(&self) -> Result<EngineFacts, EngineError> {
        Ok(self.known().await?.engine)
    }

    async fn freeze(&self, id: GuestId, guest: &Guest) -> Result<Passport, EngineError> {
        let facts = self.known().await?;
        let probe = Probe::start(&self.config, facts.engine.accelerator).await?;
        let cpu = freeze::cpu(guest, &facts, &probe).await;
        probe.stop().await;
        let cpu = cpu?;
        let described = guest.clone();
        let boot_files = tokio::task::spawn_blocking(move || freeze::boot_files(&described))
            .await
            .expect("reading files does not panic")?;
        freeze::passport(id, guest, &facts, cpu, boot_files)
    }

    async fn launch(&self, launch: Launch) -> Result<Arc<dyn Instance>, EngineError> {
        let instance: Arc<dyn Instance> = QemuInstance::launch(&self.config, launch).await?;
        Ok(instance)
    }

    async fn attach(
        &self,
        id: GuestId,
        directory: &Path,
    ) -> Result<Option<Arc<dyn Instance>>, EngineError> {
        let found = QemuInstance::attach(id, directory).await?;
        Ok(found.map(|instance| -> Arc<dyn Instance> { instance }))
    }

    fn uefi(&self, directory: &Path, passport: &Passport) -> Option<UefiFacts> {
        firmware::facts(directory, passport)
    }

    async fn end_unused(&self, id: GuestId, directory: &Path) -> Result<bool, EngineError> {
        QemuInstance::end_unused(id, directory).await
    }
}
