// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The files beside an image: a line that says what this is, and JSON that people can read, too.
//!
//! ```text
//! whimbrel owner 1 5f0c33b1
//! {
//!   "guest": "…",
//!   "guest_name": "web1",
//!   …
//! ```
//! The line's numbers are the version and the CRC-32C of all after the line.

use super::{Claimant, GuestPapers, Owner, OwnerState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId};
use whimbrel_model::run_state::RunState;

/// Longest owner record or claim, in bytes.
pub(super) const RECORD_BYTES_MAX: usize = 16 << 10;
/// Longest papers of a guest, in bytes, as they are kept.
pub const PAPERS_BYTES_MAX: usize = 256 << 10;

const VERSION: u32 = 1;

/// An owner record, with what it knows of its image.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) owner: Owner,
    pub(super) image: String,
    pub(super) inode: u64,
}

#[derive(Serialize, Deserialize)]
struct RawOwner {
    guest: String,
    guest_name: String,
    host: String,
    host_name: String,
    epoch: u64,
    handoff: Option<String>,
    state: RawState,
    image: String,
    inode: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawState {
    Held,
    Ceded { run: Option<RawRun> },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawRun {
    Running,
    Paused,
    Suspended,
    ShutDown,
    Panicked,
    IoError,
}

impl From<RunState> for RawRun {
    fn from(run: RunState) -> Self {
        match run {
            RunState::Running => RawRun::Running,
            RunState::Paused => RawRun::Paused,
            RunState::Suspended => RawRun::Suspended,
            RunState::ShutDown => RawRun::ShutDown,
            RunState::Panicked => RawRun::Panicked,
            RunState::IoError => RawRun::IoError,
        }
    }
}

impl From<RawRun> for RunState {
    fn from(run: RawRun) -> Self {
        match run {
            RawRun::Running => RunState::Running,
            RawRun::Paused => RunState::Paused,
            RawRun::Suspended => RunState::Suspended,
            RawRun::ShutDown => RunState::ShutDown,
            RawRun::Panicked => RunState::Panicked,
            RawRun::IoError => RunState::IoError,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RawClaim {
    guest: String,
    host: String,
    host_name: String,
    epoch: u64,
    handoff: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RawPapers {
    guest: String,
    epoch: u64,
    definition: String,
    passport: Option<String>,
}

pub(super) fn owner(owner: &Owner, image: &Path, inode: u64) -> Vec<u8> {
    let raw = RawOwner {
        guest: owner.guest.to_string(),
        guest_name: owner.guest_name.clone(),
        host: owner.host.to_string(),
        host_name: owner.host_name.clone(),
        epoch: owner.epoch.0,
        handoff: owner.handoff.map(|handoff| handoff.to_string()),
        state: match owner.state {
            OwnerState::Held => RawState::Held,
            OwnerState::Ceded { run } => RawState::Ceded { run: run.map(RawRun::from) },
        },
        image: image.to_string_lossy().into_owned(),
        inode,
    };
    seal("owner", &raw)
}

pub(super) fn read_owner(bytes: &[u8]) -> Result<Recorded, String> {
    let raw: RawOwner = unseal("owner", bytes)?;
    let owner = Owner {
        guest: guest_id(&raw.guest)?,
        guest_name: raw.guest_name,
        host: host_id(&raw.host)?,
        host_name: raw.host_name,
        epoch: Epoch(raw.epoch),
        handoff: handoff_id(raw.handoff)?,
        state: match raw.state {
            RawState::Held => OwnerState::Held,
            RawState::Ceded { run } => OwnerState::Ceded { run: run.map(RunState::from) },
        },
    };
    Ok(Recorded { owner, image: raw.image, inode: raw.inode })
}

pub(super) fn claim(claimant: &Claimant) -> Vec<u8> {
    let raw = RawClaim {
        guest: claimant.guest.to_string(),
        host: claimant.host.to_string(),
        host_name: claimant.host_name.clone(),
        epoch: claimant.epoch.0,
        handoff: claimant.handoff.map(|handoff| handoff.to_string()),
    };
    seal("claim", &raw)
}

pub(super) fn read_claim(bytes: &[u8]) -> Result<Claimant, String> {
    let raw: RawClaim = unseal("claim", bytes)?;
    Ok(Claimant {
        guest: guest_id(&raw.guest)?,
        host: host_id(&raw.host)?,
        host_name: raw.host_name,
        epoch: Epoch(raw.epoch),
        handoff: handoff_id(raw.handoff)?,
    })
}

pub(super) fn papers(papers: &GuestPapers) -> Vec<u8> {
    let raw = RawPapers {
        guest: papers.guest.to_string(),
        epoch: papers.epoch.0,
        definition: papers.definition.clone(),
        passport: papers.passport.clone(),
    };
    seal("guest", &raw)
}

pub(super) fn read_papers(bytes: &[u8]) -> Result<GuestPapers, String> {
    let raw: RawPapers = unseal("guest", bytes)?;
    Ok(GuestPapers {
        guest: guest_id(&raw.guest)?,
        epoch: Epoch(raw.epoch),
        definition: raw.definition,
        passport: raw.passport,
    })
}

fn seal(kind: &str, raw: &impl Serialize) -> Vec<u8> {
    let mut body = serde_json::to_vec_pretty(raw).expect("these types become JSON");
    body.push(b'\n');
    let mut bytes =
        format!("whimbrel {kind} {VERSION} {:08x}\n", crc32c::crc32c(&body)).into_bytes();
    bytes.append(&mut body);
    bytes
}

fn unseal<T: DeserializeOwned>(kind: &str, bytes: &[u8]) -> Result<T, String> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);
    let line = std::str::from_utf8(line).map_err(|_| "its first line is not text")?;
    let words: Vec<_> = line.split(' ').collect();
    let ["whimbrel", found, version, sum] = words[..] else {
        return Err("its first line is not one of Whimbrel's".into());
    };
    if found != kind {
        return Err(format!("it is a `{found}` file, not a `{kind}` file"));
    }
    // The sum first: a broken digit must not look like another version.
    if sum != format!("{:08x}", crc32c::crc32c(body)) {
        return Err("its checksum is wrong".into());
    }
    if version != VERSION.to_string() {
        return Err(format!("it has version `{version}`, and this Whimbrel knows {VERSION}"));
    }
    serde_json::from_slice(body).map_err(|error| format!("its content is wrong: {error}"))
}

fn guest_id(text: &str) -> Result<GuestId, String> {
    text.parse().map_err(|_| format!("`{text}` is not a guest's id"))
}

fn handoff_id(text: Option<String>) -> Result<Option<HandoffId>, String> {
    let parse = |text: String| text.parse().map_err(|_| format!("`{text}` is not a handoff's id"));
    text.map(parse).transpose()
}

fn host_id(text: &str) -> Result<HostId, String> {
    let wrong = || format!("`{text}` is not a host's id");
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong());
    }
    let mut id = [0; 32];
    for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(HostId(id))
}
