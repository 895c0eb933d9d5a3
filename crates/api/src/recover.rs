// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Recovery: which host owns a guest in doubt, and what a person may say about it.

use crate::guest::GuestSummary;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What each host knows about a guest, and what could be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recovery {
    /// The guest's name.
    pub guest: String,
    /// The guest's uuid.
    pub guest_uuid: String,
    /// Whether anything is in doubt at all.
    pub is_in_doubt: bool,
    /// One sentence: how it stands.
    pub text: String,
    /// What each host says, this one first.
    pub hosts: Vec<HostKnowledge>,
    /// What a person can do, best first.
    pub choices: Vec<Choice>,
}

/// What one host knows about a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostKnowledge {
    /// The host.
    pub host: String,
    /// Whether it answered just now.
    pub is_reachable: bool,
    /// What it knows, or why it did not answer.
    pub text: String,
}

/// Something a person can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Choice {
    /// The command that does it.
    pub command: String,
    /// What will happen, and what if the statement in it is false.
    pub consequence: String,
}

/// Acts on a guest in doubt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoverRequest {
    /// The host to start the guest on. Absent: the one that answers.
    pub on: Option<String>,
    /// The host that a person states to be off for good.
    pub is_off: Option<String>,
    /// The host that the configured fence command is to switch off.
    pub fence: Option<String>,
    /// A person states that no damaged record says anything newer than what can be read.
    #[serde(default)]
    pub despite_damage: bool,
}

/// What recovery did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recovered {
    /// One sentence: where the guest is now and what it does.
    pub text: String,
    /// The guest, if this host has it.
    pub guest: Option<GuestSummary>,
}
