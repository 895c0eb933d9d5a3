// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A QEMU without a machine, started only to be asked what it knows.

use super::QemuConfig;
use super::qmp::Monitor;
use crate::error::EngineError;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use whimbrel_model::passport::Accelerator;

/// Stands in for the guest in the errors of a QEMU that has none.
const NO_GUEST: &str = "(probe)";
/// Of what QEMU writes when it dies, this much is kept.
const STDERR_BYTES_MAX: u64 = 16 << 10;

/// A running probe. It is killed when dropped.
pub(super) struct Probe {
    pub(super) monitor: Monitor,
    child: Child,
}

/// A version of QEMU. Ordered as the numbers are.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) micro: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) alias: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct CpuDefinition {
    pub(super) name: String,
    /// None: QEMU could not tell.
    pub(super) unavailable_features: Option<Vec<String>>,
    #[serde(default)]
    pub(super) deprecated: bool,
}

/// A CPU model, spelled out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuExpansion {
    pub(super) vendor: Option<String>,
    pub(super) features: BTreeSet<String>,
}

impl Probe {
    pub(super) async fn start(
        config: &QemuConfig,
        accelerator: Accelerator,
    ) -> Result<Probe, EngineError> {
        let accelerator = accelerator_name(accelerator);
        let mut command = Command::new(&config.binary);
        command
            .args(["-S", "-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-machine", &format!("none,accel={accelerator}")])
            .args(["-sandbox", "on", "-qmp", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| spawn_error(config, error))?;
        let stdin = child.stdin.take().expect("stdin was piped above");
        let stdout = child.stdout.take().expect("stdout was piped above");
        let stream = tokio::io::join(stdout, stdin);
        match Monitor::open(NO_GUEST, stream).await {
            Ok(monitor) => Ok(Probe { monitor, child }),
            Err(EngineError::Gone { .. }) => Err(EngineError::Start {
                program: config.binary.display().to_string(),
                guest: NO_GUEST.to_owned(),
                reason: last_words(&mut child).await,
            }),
            Err(error) => Err(error),
        }
    }

    /// Ends the probe and waits until it is gone.
    pub(super) async fn stop(mut self) {
        // It holds nothing, so how it ends does not matter; that it is reaped does.
        let _ = self.child.kill().await;
    }

    pub(super) async fn version(&self) -> Result<Version, EngineError> {
        #[derive(Deserialize)]
        struct Answer {
            qemu: Version,
        }
        Ok(self.monitor.query::<Answer>("query-version", json!({})).await?.qemu)
    }

    pub(super) async fn machines(&self) -> Result<Vec<Machine>, EngineError> {
        self.monitor.query("query-machines", json!({})).await
    }

    pub(super) async fn cpu_definitions(&self) -> Result<Vec<CpuDefinition>, EngineError> {
        self.monitor.query("query-cpu-definitions", json!({})).await
    }

    pub(super) async fn capabilities(&self) -> Result<BTreeSet<String>, EngineError> {
        capabilities(&self.monitor).await
    }

    /// Whether multifd can compress with zstd, which is a choice at QEMU's build.
    pub(super) async fn has_multifd_zstd(&self) -> bool {
        let parameters = json!({ "multifd-compression": "zstd" });
        self.monitor.execute("migrate-set-parameters", parameters).await.is_ok()
    }

    /// Everything a guest can be given here: the features of the model `max`, and, beside them,
    /// the names of all features that QEMU knows.
    pub(super) async fn everything(&self) -> Result<(BTreeSet<String>, CpuFacts), EngineError> {
        let properties = self.expand_raw("static", "max", &BTreeMap::new()).await?;
        let known = properties.keys().cloned().collect();
        let given = switched_on(&properties).collect();
        Ok((given, CpuFacts { known }))
    }

    /// Spells out a model with flags.
    pub(super) async fn expand(
        &self,
        facts: &CpuFacts,
        name: &str,
        flags: &BTreeMap<String, bool>,
    ) -> Result<CpuExpansion, EngineError> {
        let properties = self.expand_raw("full", name, flags).await?;
        let vendor = properties.get("vendor").and_then(Value::as_str).map(str::to_owned);
        let features = switched_on(&properties).filter(|name| facts.known.contains(name)).collect();
        Ok(CpuExpansion { vendor, features })
    }

    async fn expand_raw(
        &self,
        kind: &str,
        name: &str,
        flags: &BTreeMap<String, bool>,
    ) -> Result<BTreeMap<String, Value>, EngineError> {
        #[derive(Deserialize)]
        struct Answer {
            model: Model,
        }
        #[derive(Deserialize)]
        struct Model {
            #[serde(default)]
            props: BTreeMap<String, Value>,
        }
        let arguments = json!({ "type": kind, "model": { "name": name, "props": flags } });
        let answer: Answer = self.monitor.query("query-cpu-model-expansion", arguments).await?;
        Ok(answer.model.props)
    }
}

/// The names that are CPU features, as opposed to other properties of a CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuFacts {
    known: BTreeSet<String>,
}

/// The migration capabilities this QEMU knows.
pub(super) async fn capabilities(monitor: &Monitor) -> Result<BTreeSet<String>, EngineError> {
    #[derive(Deserialize)]
    struct Capability {
        capability: String,
    }
    let known: Vec<Capability> = monitor.query("query-migrate-capabilities", json!({})).await?;
    Ok(known.into_iter().map(|known| known.capability).collect())
}

pub(super) fn accelerator_name(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg",
    }
}

fn switched_on(properties: &BTreeMap<String, Value>) -> impl Iterator<Item = String> {
    properties
        .iter()
        .filter(|(_, value)| **value == Value::Bool(true))
        .map(|(name, _)| name.clone())
}

fn spawn_error(config: &QemuConfig, error: std::io::Error) -> EngineError {
    let program = config.binary.display().to_string();
    match error.kind() {
        std::io::ErrorKind::NotFound => EngineError::NotInstalled { program },
        _ => EngineError::File { action: "run", path: config.binary.clone(), source: error },
    }
}

async fn last_words(child: &mut Child) -> String {
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // What cannot be read is missing from a message, no more.
        let _ = stderr.take(STDERR_BYTES_MAX).read_to_end(&mut words).await;
    }
    let words = String::from_utf8_lossy(&words).trim().to_owned();
    if words.is_empty() { "it ended at once and said nothing".to_owned() } else { words }
}
