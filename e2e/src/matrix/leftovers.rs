// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a migration may leave behind, and must not.

use super::stage::{GUEST, Side, Stage, carriers};
use crate::lab::Host;
use crate::scene::{engines, json};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::fs;

/// What is left of migrations, in words: nothing, once all is over.
pub(super) fn migrations(stage: &Stage) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for host in stage.hosts() {
        for pid in carriers(host) {
            found.push(format!("carrying process {pid} on {}", host.name));
        }
        for place in carry_places(host)? {
            found.push(format!("{place} on {}", host.name));
        }
        let guests = json(host, &["list"])?;
        let guests = guests["guests"].as_array().or_else(|| guests.as_array());
        for guest in guests.context("a list of guests")? {
            let state = guest["state"].as_str().unwrap_or_default();
            if !matches!(state, "running" | "stopped" | "paused") {
                found.push(format!("guest {} is {state} on {}", guest["name"], host.name));
            }
        }
    }
    Ok(found)
}

/// Everything that must not be there when the guest runs at `home` and nothing is under way.
pub(super) fn of_the_guest(stage: &Stage, home: Side) -> Result<Vec<String>> {
    let mut found = migrations(stage)?;
    for side in [Side::Source, Side::Target] {
        let host = stage.host(side);
        let wanted = usize::from(side == home);
        let mut expect = |what: &str, count: usize| {
            if count != wanted {
                found.push(format!("{count} {what} on {} instead of {wanted}", host.name));
            }
        };
        expect("engines", engines(host, GUEST)?.len());
        expect("taps", taps(host)?);
        let state = stage.state(side)?;
        let is_right = match state.as_deref() {
            Some("running") => side == home,
            None => side != home,
            Some(_) => false,
        };
        if !is_right {
            found.push(format!("the guest is {state:?} on {}", host.name));
        }
        found.extend(promised(host)?);
    }
    Ok(found)
}

fn carry_places(host: &Host) -> Result<Vec<String>> {
    let read = host.place.run(|| -> std::io::Result<Vec<String>> {
        let entries = match fs::read_dir("/var/lib/whimbrel/carry") {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.map(|entry| Ok(entry?.path().display().to_string())).collect()
    });
    read.context("failed to look for places of carrying processes")
}

fn taps(host: &Host) -> Result<usize> {
    let shown = host.command("/bin/sh".as_ref(), &["-c", "ip -j tuntap show || true"], "")?.ok()?;
    let taps: Value = serde_json::from_str(shown.trim()).unwrap_or(Value::Null);
    Ok(taps.as_array().map_or(0, Vec::len))
}

/// Memory that is promised to guests, beyond what the host keeps for itself.
fn promised(host: &Host) -> Result<Option<String>> {
    let info = json(host, &["info"])?;
    let bytes = info["memory_promised_bytes"].as_u64();
    let bytes = bytes.with_context(|| format!("no promised memory in {info}"))?;
    Ok((bytes > 0).then(|| format!("{bytes} bytes are promised on {}", host.name)))
}
