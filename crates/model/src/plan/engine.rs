// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Can the target's engine be what the source's engine is, to the byte?

use super::{Finding, Question};
use crate::codes;
use crate::facts::{EngineFacts, HostFacts};
use crate::passport::{Accelerator, EngineKind, Passport};

fn accelerator_name(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "KVM",
        Accelerator::Tcg => "TCG (emulation)",
    }
}

/// Returns the numbers of a version: `7.2.22` is `[7, 2, 22]`.
pub(super) fn version_numbers(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok()).collect()
}

pub(super) fn engine(question: &Question<'_>) -> Vec<Finding> {
    let Some(passport) = question.passport else { return Vec::new() };
    let target = question.target_name();
    let kind = passport.engine.name();
    let Some(engine) = question.target_engine() else {
        return vec![Finding::blocker(
            codes::PLAN_ENGINE,
            format!("`{}` runs on {kind}, and `{target}` has none", question.guest_name()),
            match passport.engine {
                EngineKind::Qemu => format!(
                    "on `{target}`: `apt install qemu-system-x86` (or this distribution's package)"
                ),
                EngineKind::Xen | EngineKind::Fake => {
                    "choose a host that has it: `whimbrel host list`".to_owned()
                }
            },
        )];
    };
    let mut findings = Vec::new();
    if passport.engine != EngineKind::Xen {
        findings.push(accelerator(question, engine));
    }
    let source = question.source.host.engines.iter().find(|engine| engine.kind == passport.engine);
    let source_version = source.map_or(passport.engine_version.as_str(), |engine| &engine.version);
    let versions = format!(
        "{kind} {source_version} on `{}`, {} on `{target}`",
        question.source_name(),
        engine.version
    );
    findings.push(match version_numbers(&engine.version) < version_numbers(source_version) {
        false => Finding::ok(codes::PLAN_ENGINE, versions),
        true => Finding::warning(
            codes::PLAN_ENGINE,
            format!("{versions}: the guest goes to an older engine"),
            format!("upgrade {kind} on `{target}`, where its distribution has a newer one"),
        ),
    });
    findings
}

fn accelerator(question: &Question<'_>, engine: &EngineFacts) -> Finding {
    let target = question.target_name();
    let wanted = question.passport.map_or(engine.accelerator, |passport| passport.accelerator);
    let names = (accelerator_name(wanted), accelerator_name(engine.accelerator));
    match wanted == engine.accelerator {
        true => Finding::ok(codes::PLAN_ENGINE, format!("both hosts run guests with {}", names.0)),
        false => Finding::blocker(
            codes::PLAN_ENGINE,
            format!(
                "`{}` runs with {}, and `{target}` offers {} ({})",
                question.guest_name(),
                names.0,
                names.1,
                engine.accelerator_reason
            ),
            "set `accelerator` in `[engine]` of whimbrel.toml alike on both hosts and restart the \
             guest, or choose another host: `whimbrel host list`",
        ),
    }
}

/// A paravirtual guest has its page tables itself, and the Xen of most distributions cannot see
/// what it writes: its `xl` gives up with `Failed to enable logdirty`.
pub(super) fn live(question: &Question<'_>) -> Vec<Finding> {
    let Some(passport) = question.passport else { return Vec::new() };
    let is_live = question.run_state.is_some() && !question.is_stop_and_copy;
    if passport.engine != EngineKind::Xen || passport.machine != "xenpv" || !is_live {
        return Vec::new();
    }
    let (guest, target) = (question.guest_name(), question.target_name());
    vec![Finding::blocker(
        codes::PLAN_LIVE,
        format!("`{guest}` is a PV guest, and Xen does not move those while they run"),
        format!(
            "stop it for the time it takes: `whimbrel migrate {guest} {target} --stop-and-copy`; \
             or make it a PVH guest (`machine = \"xenpvh\"`)"
        ),
    )]
}

pub(super) fn machine(question: &Question<'_>) -> Vec<Finding> {
    let (Some(passport), Some(engine)) = (question.passport, question.target_engine()) else {
        return Vec::new();
    };
    let (machine, target) = (&passport.machine, question.target_name());
    if engine.machines.contains(machine) {
        return vec![Finding::ok(
            codes::PLAN_MACHINE,
            format!("`{target}` knows the machine type {machine}"),
        )];
    }
    let newest = &engine.machine_default;
    let guest = question.guest_name();
    let remedy = match machine.as_str() {
        "xenhvm" => format!(
            "install the QEMU that makes such machines for Xen on `{target}` (Debian: `apt install \
             qemu-system-xen`)"
        ),
        _ => format!(
            "upgrade the engine on `{target}`, or give the guest `machine = \"{newest}\"` with \
             `whimbrel edit {guest}` and restart it"
        ),
    };
    vec![Finding::blocker(
        codes::PLAN_MACHINE,
        format!(
            "`{}` has the machine type {machine}, which {} {} on `{target}` does not know (its own \
             is {newest})",
            guest,
            engine.kind.name(),
            engine.version
        ),
        remedy,
    )]
}

/// Says in short why a host cannot take a guest of this passport; nothing where it can, as far as
/// its engine and processor go.
pub fn misfit(passport: &Passport, host: &HostFacts) -> Option<String> {
    let Some(engine) = host.engines.iter().find(|engine| engine.kind == passport.engine) else {
        return Some(format!("it has no {}", passport.engine.name()));
    };
    if !engine.machines.contains(&passport.machine) {
        return Some(format!("its engine does not know the machine type {}", passport.machine));
    }
    let has = |feature: &&String| engine.cpu_features.contains(feature);
    let missing: Vec<_> =
        passport.cpu.features.iter().filter(|feature| !has(feature)).map(String::as_str).collect();
    (!missing.is_empty()).then(|| format!("its processor lacks {}", missing.join(", ")))
}

pub(super) fn cpu(question: &Question<'_>) -> Vec<Finding> {
    let (Some(passport), Some(engine)) = (question.passport, question.target_engine()) else {
        return Vec::new();
    };
    let (guest, target) = (question.guest_name(), question.target_name());
    let has = |feature: &&String| engine.cpu_features.contains(feature);
    let missing: Vec<_> = passport.cpu.features.iter().filter(|feature| !has(feature)).collect();
    if missing.is_empty() {
        return vec![Finding::ok(
            codes::PLAN_CPU,
            format!(
                "`{target}` has all {} CPU features that `{guest}` sees ({})",
                passport.cpu.features.len(),
                passport.cpu.model
            ),
        )];
    }
    let names: Vec<_> = missing.iter().map(|name| name.as_str()).collect();
    vec![Finding::blocker(
        codes::PLAN_CPU,
        format!(
            "`{guest}` uses {} CPU features that `{target}` ({}) lacks: {}",
            missing.len(),
            question.target.host.cpu.model,
            names.join(", ")
        ),
        format!(
            "choose another host, or give the guest a model both have with `whimbrel edit {guest}` \
             (`cpu = \"{}\"`) and restart it",
            engine.cpu_model
        ),
    )]
}

pub(super) fn roms(question: &Question<'_>) -> Vec<Finding> {
    let Some(passport) = question.passport else { return Vec::new() };
    let devices = passport.devices.iter();
    let compared = devices.filter_map(|device| {
        let wanted = device.rom_bytes?;
        let found = question.target.guest.roms.iter().find(|rom| rom.device == device.id)?.bytes;
        Some((device, wanted, found))
    });
    let (mut is_any, mut findings) = (false, Vec::new());
    for (device, wanted, found) in compared {
        is_any = true;
        if wanted != found {
            findings.push(Finding::blocker(
                codes::PLAN_ROM,
                format!(
                    "device `{}` of `{}` has an option ROM of {wanted} bytes, and on `{}` it would \
                     have {found}",
                    device.id,
                    question.guest_name(),
                    question.target_name()
                ),
                "install the same version of the ROMs on both hosts (package `ipxe-qemu`)",
            ));
        }
    }
    if findings.is_empty() {
        let text = match is_any {
            true => "option ROMs have the same sizes on both hosts".to_owned(),
            false => format!("no device of `{}` has an option ROM", question.guest_name()),
        };
        findings.push(Finding::ok(codes::PLAN_ROM, text));
    }
    findings
}
