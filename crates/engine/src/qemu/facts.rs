// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What this host's QEMU is and can do.
//!
//! Nothing is assumed from a version number but the oldest version we speak to: everything else
//! is asked. The answers are kept until the binary changes.

use super::QemuConfig;
use super::migration::VERSION_URGENT_CHANNEL;
use super::probe::{CpuDefinition, CpuFacts, Machine, Probe, Version};
use crate::contract::EngineFacts;
use crate::error::EngineError;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use whimbrel_model::passport::{Accelerator, EngineKind};

/// The oldest QEMU we drive: the one of Debian 12.
pub(super) const VERSION_MIN: Version = Version { major: 7, minor: 2, micro: 0 };

/// The machine every new guest gets, unless it asks for another.
const MACHINE_ALIAS: &str = "q35";

/// The facts of the contract, and what only this room needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) engine: EngineFacts,
    /// The same as `engine.cpu_features`.
    pub(super) cpu_available: BTreeSet<String>,
    pub(super) cpu: CpuFacts,
}

/// Asks a fresh probe everything.
pub(super) async fn ask(config: &QemuConfig) -> Result<Facts, EngineError> {
    let (accelerator, accelerator_reason) =
        choose_accelerator(config.accelerator, &Hardware::see());
    let probe = Probe::start(config, accelerator).await?;
    let facts = ask_probe(config, &probe, accelerator, accelerator_reason).await;
    probe.stop().await;
    facts
}

async fn ask_probe(
    config: &QemuConfig,
    probe: &Probe,
    accelerator: Accelerator,
    accelerator_reason: String,
) -> Result<Facts, EngineError> {
    let version = probe.version().await?;
    if version < VERSION_MIN {
        return Err(EngineError::TooOld {
            program: config.binary.display().to_string(),
            found: version.to_string(),
            needed: format!("{}.{}", VERSION_MIN.major, VERSION_MIN.minor),
        });
    }
    let machines = probe.machines().await?;
    let capabilities = probe.capabilities().await?;
    let (cpu_available, cpu) = probe.everything().await?;
    let vendor = match accelerator {
        // The model should be of the processor's own maker; an emulated one has no maker.
        Accelerator::Kvm => processor_vendor(),
        Accelerator::Tcg => None,
    };
    let has_multifd = capabilities.contains("multifd");
    let cpu_models = models(config, probe, &cpu, vendor.as_deref()).await?;
    let engine = EngineFacts {
        kind: EngineKind::Qemu,
        version: version.to_string(),
        accelerator,
        accelerator_reason,
        machine_default: machine_default(config, &machines)?,
        machines: versioned(machines),
        cpu_model: cpu_models[0].clone(),
        cpu_models,
        cpu_features: cpu_available.iter().cloned().collect(),
        has_multifd,
        has_multifd_zstd: has_multifd && probe.has_multifd_zstd().await,
        has_urgent_channel: version >= VERSION_URGENT_CHANNEL
            && capabilities.contains("postcopy-preempt"),
    };
    Ok(Facts { engine, cpu_available, cpu })
}

fn machine_default(config: &QemuConfig, machines: &[Machine]) -> Result<String, EngineError> {
    machines
        .iter()
        .find(|machine| machine.alias.as_deref() == Some(MACHINE_ALIAS))
        .map(|machine| machine.name.clone())
        .ok_or_else(|| EngineError::Unsupported {
            what: format!("`{}` has no machine type `{MACHINE_ALIAS}`", config.binary.display()),
        })
}

/// Keeps the names that will mean the same machine in every later version.
fn versioned(machines: Vec<Machine>) -> Vec<String> {
    let mut names: Vec<_> = machines
        .into_iter()
        .map(|machine| machine.name)
        .filter(|name| name.starts_with("pc-q35-") || name.starts_with("pc-i440fx-"))
        .collect();
    names.sort_by_key(|name| numbers(name));
    names
}

/// Orders `pc-q35-10.0` after `pc-q35-7.2`.
fn numbers(name: &str) -> (String, Vec<u32>) {
    let (family, version) = name.rsplit_once('-').unwrap_or((name, ""));
    (family.to_owned(), version.split('.').filter_map(|part| part.parse().ok()).collect())
}

/// Returns the named CPU models that are wholly available here, the one that gives a guest the most
/// first. There is one at least.
///
/// Only `Name-vN` is considered: unlike `host` and `max` it means the same on every host and in
/// every version, and unlike `Name` it does not depend on the machine type.
async fn models(
    config: &QemuConfig,
    probe: &Probe,
    cpu: &CpuFacts,
    vendor: Option<&str>,
) -> Result<Vec<String>, EngineError> {
    let mut ranked: Vec<(usize, String)> = Vec::new();
    for model in probe.cpu_definitions().await?.into_iter().filter(is_candidate) {
        let expansion = probe.expand(cpu, &model.name, &BTreeMap::new()).await?;
        if vendor.is_some() && expansion.vendor.as_deref() != vendor {
            continue;
        }
        ranked.push((expansion.features.len(), model.name));
    }
    if ranked.is_empty() {
        return Err(EngineError::Unsupported {
            what: format!("`{}` has no CPU model that works on this host", config.binary.display()),
        });
    }
    ranked.sort_by(|a, b| b.cmp(a));
    Ok(ranked.into_iter().map(|(_, name)| name).collect())
}

fn is_candidate(model: &CpuDefinition) -> bool {
    let is_named = model.name.rsplit_once("-v").is_some_and(|(family, version)| {
        !family.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())
    });
    // `qemu64` and `kvm64` are mixtures that exist nowhere and hide most of any processor.
    let is_real = !model.name.starts_with("qemu") && !model.name.starts_with("kvm");
    let is_whole = model.unavailable_features.as_ref().is_some_and(Vec::is_empty);
    is_named && is_real && is_whole && !model.deprecated
}

/// What the choice of an accelerator depends on.
pub(super) struct Hardware {
    /// Whether `/dev/kvm` opens, or why not.
    kvm: Result<(), String>,
    /// Whether /proc/cpuinfo has `vmx` or `svm`.
    has_virtualization: bool,
}

impl Hardware {
    fn see() -> Self {
        let opened = File::options().read(true).write(true).open("/dev/kvm");
        let flags = cpuinfo("flags").unwrap_or_default();
        Hardware {
            kvm: opened.map(|_| ()).map_err(|error| error.to_string()),
            has_virtualization: flags.split(' ').any(|flag| flag == "vmx" || flag == "svm"),
        }
    }
}

/// Returns the accelerator and why it was chosen.
///
/// That `/dev/kvm` opens is not enough: where the processor reports neither `vmx` nor `svm` it is
/// a software imitation, and a guest kernel runs about a thousand times too slowly on it.
fn choose_accelerator(wanted: Option<Accelerator>, seen: &Hardware) -> (Accelerator, String) {
    if let Some(wanted) = wanted {
        return (wanted, "the configuration says so".to_owned());
    }
    match (&seen.kvm, seen.has_virtualization) {
        (Ok(()), true) => {
            let reason = "`/dev/kvm` opens and the processor has vmx or svm";
            (Accelerator::Kvm, reason.to_owned())
        }
        (Ok(()), false) => {
            let reason = "`/dev/kvm` opens, but the processor reports neither vmx nor svm, so KVM \
                          would be slower than emulation";
            (Accelerator::Tcg, reason.to_owned())
        }
        (Err(error), _) => (Accelerator::Tcg, format!("`/dev/kvm` does not open ({error})")),
    }
}

fn processor_vendor() -> Option<String> {
    cpuinfo("vendor_id")
}

/// Returns the first value of a key in /proc/cpuinfo.
fn cpuinfo(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KVM needs both the device and the processor's own support; the reason names what is short.
    #[test]
    fn kvm_is_taken_only_where_it_is_real() {
        let check = |kvm: Result<(), &str>, has_virtualization, expected, reason: &str| {
            let hardware = Hardware { kvm: kvm.map_err(str::to_owned), has_virtualization };
            let (chosen, why) = choose_accelerator(None, &hardware);
            assert_eq!(chosen, expected);
            assert!(why.contains(reason), "{why}");
        };
        check(Ok(()), true, Accelerator::Kvm, "vmx or svm");
        check(Ok(()), false, Accelerator::Tcg, "neither vmx nor svm");
        check(Err("Permission denied"), true, Accelerator::Tcg, "(Permission denied)");
        check(Err("No such file"), false, Accelerator::Tcg, "does not open");
    }

    #[test]
    fn the_configuration_overrules_the_accelerator() {
        let hardware = Hardware { kvm: Err("gone".into()), has_virtualization: false };
        assert_eq!(choose_accelerator(Some(Accelerator::Kvm), &hardware).0, Accelerator::Kvm);
    }

    /// Aliases and foreign machines are left out, and ten comes after seven.
    #[test]
    fn machines_are_versioned_and_sorted() {
        let machines = ["pc-q35-10.0", "pc-q35-7.2", "microvm", "none", "pc-i440fx-7.2"];
        let machines = machines.map(|name| Machine { name: name.into(), alias: None }).into();
        assert_eq!(versioned(machines), ["pc-i440fx-7.2", "pc-q35-7.2", "pc-q35-10.0"]);
    }

    #[test]
    fn only_whole_named_models_are_candidates() {
        let check = |name: &str, missing: Option<&[&str]>, expected| {
            let unavailable_features =
                missing.map(|missing| missing.iter().map(|&name| name.to_owned()).collect());
            let model =
                CpuDefinition { name: name.into(), unavailable_features, deprecated: false };
            assert_eq!(is_candidate(&model), expected, "{name}");
        };
        check("Westmere-v1", Some(&[]), true);
        check("Westmere-v2", Some(&["spec-ctrl"]), false);
        check("Westmere", Some(&[]), false);
        check("max", Some(&[]), false);
        check("qemu64-v1", Some(&[]), false);
        check("EPYC-v1", None, false);
    }
}
