// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Reading and writing the fixed-size records.

use crate::message::Kind;
use crate::record::{Handoff, RecordError};
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId};
use whimbrel_model::run_state::RunState;

/// Fills an array from the front; what is not written stays zero.
pub(crate) struct Writer<const N: usize> {
    buffer: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    pub(crate) fn new() -> Self {
        Self { buffer: [0; N], at: 0 }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        self.buffer[self.at..end].copy_from_slice(bytes);
        self.at = end;
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(crate) fn epoch(&mut self, epoch: Epoch) {
        self.bytes(&epoch.0.to_le_bytes());
    }

    pub(crate) fn run(&mut self, run: Option<RunState>) {
        self.u8(match run {
            None => 1,
            Some(RunState::Running) => 2,
            Some(RunState::Paused) => 3,
            Some(RunState::Suspended) => 4,
            Some(RunState::ShutDown) => 5,
            Some(RunState::Panicked) => 6,
            Some(RunState::IoError) => 7,
        });
    }

    pub(crate) fn handoff(&mut self, handoff: &Handoff) {
        self.bytes(handoff.id.0.as_bytes());
        self.bytes(&handoff.peer.0);
        self.epoch(handoff.epoch);
        self.u8(match handoff.kind {
            Kind::PreCopy => 1,
            Kind::PostCopy => 2,
            Kind::Stopped => 3,
        });
    }

    pub(crate) fn moving(
        &mut self,
        tag: u8,
        owned: Epoch,
        handoff: &Handoff,
        run: Option<RunState>,
    ) {
        self.u8(tag);
        self.epoch(owned);
        self.handoff(handoff);
        self.run(run);
    }

    pub(crate) fn finish(self) -> [u8; N] {
        self.buffer
    }
}

/// Takes fields from the front of bytes whose length was checked against the longest layout.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.rest.split_first_chunk::<N>().expect("the length was checked");
        self.rest = rest;
        *head
    }

    pub(crate) fn u8(&mut self) -> u8 {
        let [value] = self.array();
        value
    }

    pub(crate) fn epoch(&mut self) -> Epoch {
        Epoch(u64::from_le_bytes(self.array()))
    }

    pub(crate) fn host(&mut self) -> HostId {
        HostId(self.array())
    }

    pub(crate) fn guest(&mut self) -> GuestId {
        GuestId(uuid::Uuid::from_bytes(self.array()))
    }

    pub(crate) fn handoff_id(&mut self) -> HandoffId {
        HandoffId(uuid::Uuid::from_bytes(self.array()))
    }

    pub(crate) fn run(&mut self) -> Result<Option<RunState>, RecordError> {
        Ok(match self.u8() {
            1 => None,
            2 => Some(RunState::Running),
            3 => Some(RunState::Paused),
            4 => Some(RunState::Suspended),
            5 => Some(RunState::ShutDown),
            6 => Some(RunState::Panicked),
            7 => Some(RunState::IoError),
            value => return Err(RecordError::Value { field: "run state", value }),
        })
    }

    pub(crate) fn handoff(&mut self) -> Result<Handoff, RecordError> {
        let (id, peer, epoch) = (self.handoff_id(), self.host(), self.epoch());
        let kind = match self.u8() {
            1 => Kind::PreCopy,
            2 => Kind::PostCopy,
            3 => Kind::Stopped,
            value => return Err(RecordError::Value { field: "kind of migration", value }),
        };
        Ok(Handoff { id, peer, epoch, kind })
    }

    pub(crate) fn rest_is_zero(&self) -> bool {
        self.rest.iter().all(|&byte| byte == 0)
    }
}
