// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest's last word about itself, for everyone who only wants to look.

use crate::console::Hub;
use crate::guests::Papers;
use std::sync::Arc;
use std::time::SystemTime;
use whimbrel_api::Problem;
use whimbrel_api::guest::{GuestState, GuestSummary};
use whimbrel_api::migration::Migration;
use whimbrel_engine::Instance;
use whimbrel_handoff::ownership::Answer;
use whimbrel_model::id::{GuestId, HostName};

/// What a guest's task says of it. Replaced as a whole whenever something changes.
#[derive(Clone)]
pub(crate) struct GuestView {
    pub(crate) id: GuestId,
    /// None where the guest is only remembered: it moved away, or is about to arrive.
    pub(crate) papers: Option<Arc<Papers>>,
    pub(crate) state: GuestState,
    /// To ask for its CPU time and process, never to do anything with it.
    pub(crate) engine: Option<Arc<dyn Instance>>,
    pub(crate) is_launching: bool,
    pub(crate) started_at: Option<SystemTime>,
    pub(crate) console: Option<Hub>,
    pub(crate) moving: Option<Moving>,
    pub(crate) is_edit_pending: bool,
    /// Why it is in this state, where that is not plain.
    pub(crate) remark: Option<String>,
    /// Who owns it, as peers are told; none: they are told nothing.
    pub(crate) ownership: Option<Answer>,
}

/// A migration that goes on.
#[derive(Clone, Debug)]
pub(crate) struct Moving {
    /// The other host.
    pub(crate) with: String,
    pub(crate) migration: Arc<Migration>,
}

impl std::fmt::Debug for GuestView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestView").field("id", &self.id).field("state", &self.state).finish()
    }
}

impl GuestView {
    pub(crate) fn unknown(id: GuestId) -> Self {
        Self {
            id,
            papers: None,
            state: GuestState::Stopped,
            engine: None,
            is_launching: false,
            started_at: None,
            console: None,
            moving: None,
            is_edit_pending: false,
            remark: None,
            ownership: None,
        }
    }

    /// Returns whether the guest's engine, if there is one, is this daemon's affair: it holds one,
    /// is about to, or does not know enough to say that there is none.
    pub(crate) fn is_held(&self) -> bool {
        self.engine.is_some() || self.is_launching || self.state != GuestState::Stopped
    }

    /// Returns whether something beside its disks is there and cannot be read.
    pub(crate) async fn has_damaged_records(&self) -> Result<bool, Problem> {
        let Some(papers) = &self.papers else { return Ok(false) };
        let disks = papers.writable_disks().cloned().collect();
        Ok(crate::disks::look(disks).await?.disk.is_damaged())
    }

    /// Returns the guest as a list shows it; none where it has no papers here.
    pub(crate) async fn summary(&self, host: &HostName) -> Option<GuestSummary> {
        let papers = self.papers.as_ref()?;
        let cpu_time = match &self.engine {
            // An engine that is just going away has no time to tell; the list must not fail.
            Some(engine) => engine.cpu_time().await.unwrap_or_default(),
            None => std::time::Duration::ZERO,
        };
        Some(GuestSummary {
            uuid: self.id.to_string(),
            id: Some(papers.local_id.0),
            name: papers.guest.name.to_string(),
            state: self.state,
            host: host.to_string(),
            memory_bytes: papers.guest.memory.size.0,
            cpu_count: papers.guest.cpus.count,
            cpu_time_ms: u64::try_from(cpu_time.as_millis()).unwrap_or(u64::MAX),
            is_transient: papers.is_transient,
            is_autostarted: papers.guest.autostart,
            is_foreign: false,
            moving_with: self.moving.as_ref().map(|moving| moving.with.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An engine that cannot be spoken to is not somebody else's.
    #[test]
    fn only_a_stopped_guest_is_not_held() {
        let stopped = GuestView::unknown(GuestId(uuid::Uuid::from_u128(1)));
        assert!(!stopped.is_held());
        assert!(GuestView { is_launching: true, ..stopped.clone() }.is_held());
        assert!(GuestView { state: GuestState::InDoubt, ..stopped }.is_held());
    }
}
