// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Why a guest did not do what it was asked.

use std::time::Duration;
use whimbrel_api::Problem;
use whimbrel_api::guest::GuestState;
use whimbrel_model::problem::{Kind, Remedy};
use whimbrel_model::units::Bytes;

whimbrel_model::codes! {
    NOT_NOW = "guest/not-now": "The guest is in a state in which this cannot be done.";
    STILL_HERE = "guest/still-running": "A guest that has an engine cannot be forgotten.";
    DID_NOT_SHUT_DOWN = "guest/did-not-shut-down": "The guest was asked to shut down and did not do so in time.";
    DID_NOT_START = "guest/stops-at-once": "The guest ended again and again right after its start.";
    NAME_TAKEN = "guest/name-taken": "Another guest of this host has this name.";
    ID_TAKEN = "guest/id-taken": "Another guest of this host has this uuid.";
    NO_MEMORY = "guest/not-enough-memory": "The host has not enough free memory for the guest.";
    OWNED_ELSEWHERE = "ownership/owned-elsewhere": "Another host owns the guest, or a disk of it.";
    NOTHING_TO_RECOVER = "recover/nothing-to-do": "The guest is not in doubt, or the statement changes nothing.";
    IN_DOUBT = "ownership/in-doubt": "Who owns the guest is not known, so it is not started.";
    NOT_MOVING = "migration/none": "The guest is not being moved.";
    NOT_HELD = "migration/not-held": "The migration of this guest was not begun with `--hold`, or has been told to cut over already.";
    TOO_LATE = "migration/too-late": "The guest has been handed over already, so the migration cannot be cancelled.";
    DISK_OF_OTHER = "ownership/disk-of-other": "A disk of the guest belongs to another guest.";
    PEER_ANSWERS = "recover/peer-answers": "A host was stated to be off, and it answers.";
    RECORD_DAMAGED = "ownership/record-damaged": "A record beside a disk of the guest cannot be read, so the guest cannot be handed over.";
    IMAGE_IN_USE = "ownership/image-in-use": "A disk of the guest is open for writing in some engine.";
    IN_MAINTENANCE = "host/in-maintenance": "The host's configuration says `maintenance = true`: it takes no guests and starts none.";
    CHANGED = "guest/changed": "The definition was changed by somebody else meanwhile.";
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GuestError {
    #[error("guest `{guest}` is {state}, so it cannot be {action}")]
    NotNow { guest: String, state: GuestState, action: &'static str, instead: String },
    #[error("guest `{guest}` is {state}; only a stopped guest can be forgotten")]
    StillHere { guest: String, state: GuestState },
    #[error("guest `{guest}` was asked to shut down and still runs after {} s", .waited.as_secs())]
    DidNotShutDown { guest: String, waited: Duration },
    #[error("guest `{guest}` ended {times} times within {} s of its start", .within.as_secs())]
    DidNotStart { guest: String, times: usize, within: Duration },
    #[error("the name `{name}` belongs to guest {other} of this host")]
    NameTaken { name: String, other: String },
    #[error("the uuid {id} belongs to guest `{other}` of this host")]
    IdTaken { id: String, other: String },
    #[error(
        "guest `{guest}` needs {} KiB, but host_min_memory is {} KiB and only {} KiB are free: {} KiB are short",
        .needed.0 >> 10,
        .kept.0 >> 10,
        .free.0 >> 10,
        (.needed.0 + .kept.0).saturating_sub(.free.0) >> 10
    )]
    NoMemory { guest: String, needed: Bytes, kept: Bytes, free: Bytes },
    #[error("guest `{guest}` belongs to host `{owner}` (epoch {epoch})")]
    OwnedElsewhere { guest: String, owner: String, epoch: u64 },
    #[error("it is not known who owns guest `{guest}`: {why}")]
    InDoubt { guest: String, why: String },
    #[error("guest `{guest}` is {state} here, and not in doubt")]
    NotInDoubt { guest: String, state: GuestState },
    #[error("the migration of guest `{guest}` is not held")]
    NotHeld { guest: String },
    #[error("guest `{guest}` is not being moved")]
    NotMoving { guest: String },
    #[error("guest `{guest}` has been handed over to `{target}` already")]
    TooLate { guest: String, target: String },
    #[error("a disk of guest `{guest}` belongs to guest {other}, of host `{hosts}`")]
    DiskOfOther { guest: String, other: String, hosts: String },
    #[error("`{host}` was said to be off, and it answers")]
    PeerAnswers { guest: String, host: String },
    #[error("a record beside a disk of guest `{guest}` is damaged, so no host could claim it")]
    RecordDamaged { guest: String },
    #[error("a disk of guest `{guest}` is open for writing in some engine now")]
    ImageInUse { guest: String },
    #[error("`{host}` is in maintenance, so guest `{guest}` is not {action} there")]
    InMaintenance { guest: String, host: String, action: &'static str },
    #[error("the definition of guest `{guest}` was changed while you edited it")]
    Changed { guest: String },
}

impl Remedy for GuestError {
    fn code(&self) -> &'static str {
        match self {
            GuestError::NotNow { .. } => NOT_NOW,
            GuestError::StillHere { .. } => STILL_HERE,
            GuestError::DidNotShutDown { .. } => DID_NOT_SHUT_DOWN,
            GuestError::DidNotStart { .. } => DID_NOT_START,
            GuestError::NameTaken { .. } => NAME_TAKEN,
            GuestError::IdTaken { .. } => ID_TAKEN,
            GuestError::NoMemory { .. } => NO_MEMORY,
            GuestError::OwnedElsewhere { .. } => OWNED_ELSEWHERE,
            GuestError::InDoubt { .. } => IN_DOUBT,
            GuestError::NotInDoubt { .. } => NOTHING_TO_RECOVER,
            GuestError::NotMoving { .. } => NOT_MOVING,
            GuestError::NotHeld { .. } => NOT_HELD,
            GuestError::TooLate { .. } => TOO_LATE,
            GuestError::DiskOfOther { .. } => DISK_OF_OTHER,
            GuestError::PeerAnswers { .. } => PEER_ANSWERS,
            GuestError::RecordDamaged { .. } => RECORD_DAMAGED,
            GuestError::ImageInUse { .. } => IMAGE_IN_USE,
            GuestError::InMaintenance { .. } => IN_MAINTENANCE,
            GuestError::Changed { .. } => CHANGED,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            GuestError::DidNotShutDown { .. } | GuestError::DidNotStart { .. } => Kind::Failed,
            GuestError::InDoubt { .. } => Kind::InDoubt,
            GuestError::NotNow { .. }
            | GuestError::StillHere { .. }
            | GuestError::NameTaken { .. }
            | GuestError::IdTaken { .. }
            | GuestError::NoMemory { .. }
            | GuestError::OwnedElsewhere { .. }
            | GuestError::NotInDoubt { .. }
            | GuestError::NotMoving { .. }
            | GuestError::NotHeld { .. }
            | GuestError::TooLate { .. }
            | GuestError::DiskOfOther { .. }
            | GuestError::PeerAnswers { .. }
            | GuestError::RecordDamaged { .. }
            | GuestError::ImageInUse { .. }
            | GuestError::InMaintenance { .. }
            | GuestError::Changed { .. } => Kind::Refused,
        }
    }

    fn remedy(&self) -> String {
        match self {
            GuestError::NotNow { instead, .. } => instead.clone(),
            GuestError::StillHere { guest, .. } => {
                format!("stop it first: `whimbrel stop {guest}`")
            }
            GuestError::DidNotShutDown { guest, .. } => format!(
                "look at its console (`whimbrel console {guest}`), or end it like a power cut: \
                 `whimbrel stop --now {guest}`"
            ),
            GuestError::DidNotStart { guest, .. } => {
                format!("read what it said last: `whimbrel log {guest}`")
            }
            GuestError::NotHeld { guest } => {
                format!("it ends by itself: `whimbrel watch {guest}`")
            }
            GuestError::NameTaken { name, .. } => {
                format!("choose another name, or forget that guest: `whimbrel rm {name}`")
            }
            GuestError::IdTaken { other, .. } => format!(
                "leave `uuid` out of the file to get a new one, or forget that guest: \
                 `whimbrel rm {other}`"
            ),
            GuestError::NoMemory { .. } => "stop or move another guest, give this one less \
                 memory, or lower `host_min_memory` in the configuration"
                .to_owned(),
            GuestError::OwnedElsewhere { guest, owner, .. } => format!(
                "use that guest on `{owner}`, or bring it here with `whimbrel migrate \
                 {guest}` there; if `{owner}` is gone for good: `whimbrel recover \
                 {guest} --is-off {owner}`"
            ),
            GuestError::InDoubt { guest, .. } => {
                format!("`whimbrel recover {guest}` shows what each host knows and what to do")
            }
            GuestError::NotInDoubt { guest, .. } => {
                format!("see what each host knows with `whimbrel recover {guest}`")
            }
            GuestError::NotMoving { guest } => {
                format!("see where it is: `whimbrel show {guest}`")
            }
            GuestError::TooLate { guest, .. } => {
                format!("wait for the end with `whimbrel watch {guest}`, then move it back")
            }
            GuestError::DiskOfOther { hosts, .. } => format!(
                "give this guest a disk of its own, or forget the other guest on `{hosts}` with \
                 `whimbrel rm`"
            ),
            GuestError::PeerAnswers { guest, .. } => {
                format!(
                    "let the hosts sort it out: `whimbrel recover {guest}` shows what they know"
                )
            }
            GuestError::RecordDamaged { guest } => format!(
                "if no other host runs the guest: `whimbrel stop {guest}`, then `whimbrel recover \
                 {guest} --despite-damage`"
            ),
            GuestError::ImageInUse { guest } => format!(
                "find the process that has it open (`fuser -v`) and end it, then `whimbrel recover \
                 {guest}` again"
            ),
            GuestError::InMaintenance { host, .. } => format!(
                "use another host (`whimbrel host list`), or on `{host}`: take `maintenance = \
                 true` out of `[host]` in whimbrel.toml, then `whimbrel reload`"
            ),
            GuestError::Changed { guest } => {
                format!("look at it with `whimbrel show {guest} --toml` and edit again")
            }
        }
    }
}

impl From<GuestError> for Problem {
    fn from(error: GuestError) -> Self {
        Problem::of(&error)
    }
}
