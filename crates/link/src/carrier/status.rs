// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How a migration's bytes stand, as its carrying process sees it.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use whimbrel_pages::sender::Counts;

/// What a carrying process says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// In the order they were opened.
    pub channels: Vec<ChannelStatus>,
    /// The channel of the pages that a guest in post-copy waits for, once the engine has it.
    pub urgent: Option<ChannelStatus>,
    /// How many there will be.
    pub channel_count: u32,
    /// The engine is to be given a channel that leads to the other one; see `is_again` in the
    /// configuration.
    pub is_linked: bool,
    /// Every channel that was announced has ended in both directions.
    pub is_finished: bool,
    /// Why the attempt is over before its end: a cut link, unequal digests.
    pub problem: Option<String>,
    /// How long no byte has passed in any direction of any channel.
    pub idle: Duration,
    /// The round trip to the other carrying process, without queues.
    pub round_trip: Option<Duration>,
}

/// One channel of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelStatus {
    /// Both engines and both carrying processes are connected.
    pub is_connected: bool,
    /// From the engine here to the engine there.
    pub outgoing: Flow,
    /// From the engine there to the engine here.
    pub incoming: Flow,
    /// How its pages travelled, where they are looked for.
    pub pages: Option<Counts>,
    /// So many of them the target held from an earlier visit when it began.
    pub held_pages: u32,
    /// How often its link was lost and made again.
    pub resumed: u32,
    /// Over how many connections its pages have travelled at once, at most; 0 before the first.
    pub connections: u32,
    /// How long the engine here took from its last page to the end: the state of its devices.
    pub devices: Option<Duration>,
}

/// One direction of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes of the engine: taken from it here (outgoing), or come from the other side (incoming).
    pub bytes: u64,
    /// Those of them that the receiving engine has accepted.
    pub accepted_bytes: u64,
    /// What it took on the wire, before encryption: frames, with the acknowledgements of the other
    /// direction.
    pub wire_bytes: u64,
    pub end: Option<End>,
}

/// How a direction has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The sending engine has closed it, the receiving engine has accepted every byte, and the
    /// BLAKE3 of all of them is the same on both sides.
    Complete { digest: [u8; 32] },
    /// The receiving engine wants no more of it.
    Stopped,
}

impl Status {
    /// Returns whether everything that any engine has sent has arrived, complete and equal.
    pub fn is_complete(&self) -> bool {
        self.has_sent_everything() && self.has_received_everything()
    }

    /// Returns whether everything the engine here has sent has arrived, complete and equal.
    pub fn has_sent_everything(&self) -> bool {
        self.all_complete(|channel| channel.outgoing)
    }

    /// Returns whether everything the engine there has sent has arrived, complete and equal.
    pub fn has_received_everything(&self) -> bool {
        self.all_complete(|channel| channel.incoming)
    }

    fn all_complete(&self, flow: impl Fn(&ChannelStatus) -> Flow) -> bool {
        let is_complete = |channel| matches!(flow(channel).end, Some(End::Complete { .. }));
        self.problem.is_none()
            && self.channel_count > 0
            && u32::try_from(self.channels.len()) == Ok(self.channel_count)
            && self.channels.iter().all(is_complete)
    }

    /// Returns the bytes the engine here has sent, and what they took on the wire.
    pub fn sent(&self) -> (u64, u64) {
        self.channels.iter().chain(&self.urgent).fold((0, 0), |(bytes, wire), channel| {
            (bytes + channel.outgoing.bytes, wire + channel.outgoing.wire_bytes)
        })
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&Raw::from(self)).expect("these types are JSON")
    }

    pub(super) fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<Raw>(text).map(Status::from)
    }
}

/// The JSON of the control socket and of the status file.
#[derive(Serialize, Deserialize)]
struct Raw {
    channels: Vec<RawChannel>,
    #[serde(default)]
    urgent: Option<RawChannel>,
    channel_count: u32,
    #[serde(default)]
    is_linked: bool,
    is_finished: bool,
    problem: Option<String>,
    idle_ms: u64,
    round_trip_us: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct RawChannel {
    is_connected: bool,
    outgoing: RawFlow,
    incoming: RawFlow,
    pages: Option<RawCounts>,
    held_pages: u32,
    resumed: u32,
    #[serde(default)]
    connections: u32,
    #[serde(default)]
    devices_us: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct RawCounts {
    stream_bytes: u64,
    frame_bytes: u64,
    repeat_bytes: u64,
    new_pages: u64,
    same_pages: u64,
    delta_pages: u64,
    block_pages: u64,
    fill_pages: u64,
    plain_bytes: u64,
    packed_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct RawFlow {
    bytes: u64,
    accepted_bytes: u64,
    wire_bytes: u64,
    end: Option<RawEnd>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawEnd {
    Complete { digest: [u8; 32] },
    Stopped,
}

impl From<&Status> for Raw {
    fn from(status: &Status) -> Self {
        let flow = |flow: &Flow| RawFlow {
            bytes: flow.bytes,
            accepted_bytes: flow.accepted_bytes,
            wire_bytes: flow.wire_bytes,
            end: flow.end.map(|end| match end {
                End::Complete { digest } => RawEnd::Complete { digest },
                End::Stopped => RawEnd::Stopped,
            }),
        };
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let channel = |channel: &ChannelStatus| RawChannel {
            is_connected: channel.is_connected,
            outgoing: flow(&channel.outgoing),
            incoming: flow(&channel.incoming),
            pages: channel.pages.map(RawCounts::from),
            held_pages: channel.held_pages,
            resumed: channel.resumed,
            connections: channel.connections,
            devices_us: channel.devices.map(micros),
        };
        Raw {
            channels: status.channels.iter().map(channel).collect(),
            urgent: status.urgent.as_ref().map(channel),
            channel_count: status.channel_count,
            is_linked: status.is_linked,
            is_finished: status.is_finished,
            problem: status.problem.clone(),
            idle_ms: u64::try_from(status.idle.as_millis()).unwrap_or(u64::MAX),
            round_trip_us: status.round_trip.map(micros),
        }
    }
}

impl From<Raw> for Status {
    fn from(raw: Raw) -> Self {
        let flow = |flow: RawFlow| Flow {
            bytes: flow.bytes,
            accepted_bytes: flow.accepted_bytes,
            wire_bytes: flow.wire_bytes,
            end: flow.end.map(|end| match end {
                RawEnd::Complete { digest } => End::Complete { digest },
                RawEnd::Stopped => End::Stopped,
            }),
        };
        let channel = |channel: RawChannel| ChannelStatus {
            is_connected: channel.is_connected,
            outgoing: flow(channel.outgoing),
            incoming: flow(channel.incoming),
            pages: channel.pages.map(Counts::from),
            held_pages: channel.held_pages,
            resumed: channel.resumed,
            connections: channel.connections,
            devices: channel.devices_us.map(Duration::from_micros),
        };
        Status {
            channels: raw.channels.into_iter().map(channel).collect(),
            urgent: raw.urgent.map(channel),
            channel_count: raw.channel_count,
            is_linked: raw.is_linked,
            is_finished: raw.is_finished,
            problem: raw.problem,
            idle: Duration::from_millis(raw.idle_ms),
            round_trip: raw.round_trip_us.map(Duration::from_micros),
        }
    }
}

impl From<Counts> for RawCounts {
    fn from(counts: Counts) -> Self {
        RawCounts {
            stream_bytes: counts.stream_bytes,
            frame_bytes: counts.frame_bytes,
            repeat_bytes: counts.repeat_bytes,
            new_pages: counts.new_pages,
            same_pages: counts.same_pages,
            delta_pages: counts.delta_pages,
            block_pages: counts.block_pages,
            fill_pages: counts.fill_pages,
            plain_bytes: counts.plain_bytes,
            packed_bytes: counts.packed_bytes,
        }
    }
}

impl From<RawCounts> for Counts {
    fn from(counts: RawCounts) -> Self {
        Counts {
            stream_bytes: counts.stream_bytes,
            frame_bytes: counts.frame_bytes,
            repeat_bytes: counts.repeat_bytes,
            new_pages: counts.new_pages,
            same_pages: counts.same_pages,
            delta_pages: counts.delta_pages,
            block_pages: counts.block_pages,
            fill_pages: counts.fill_pages,
            plain_bytes: counts.plain_bytes,
            packed_bytes: counts.packed_bytes,
        }
    }
}
