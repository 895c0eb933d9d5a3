// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a host writes down about one guest: the content of a slot of its ownership file.
//!
//! The slots, their sequence numbers, checksums and syncs are the host crate's; this is the record
//! alone, in a fixed small size, and it refuses whatever it did not write itself.

mod codec;

pub use codec::{RECORD_BYTES_MAX, RecordError};

use crate::message::Kind;
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId};
use whimbrel_model::run_state::RunState;

/// The identity of one boot of a host, as its kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootId(pub [u8; 16]);

/// Whose ownership this is: one guest on one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub guest: GuestId,
    pub host: HostId,
}

/// Everything durable about who owns a guest, as one host knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Who wrote it and about which guest; a record copied from elsewhere does not match.
    pub identity: Identity,
    /// The boot of this host in which its right to run the guest was last established: by taking
    /// it, or by a start that asked. In the same boot nobody can have said that this host is off.
    pub boot: BootId,
    /// The newest epoch this host knows to have been offered or taken, by anybody. It is never
    /// offered again, also if nothing came of it.
    pub consumed: Epoch,
    pub standing: Standing,
}

/// One attempt to move the guest, as either side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handoff {
    pub id: HandoffId,
    /// The other host.
    pub peer: HostId,
    /// The epoch the target is to own.
    pub epoch: Epoch,
    pub kind: Kind,
}

/// Where a host stands with a guest, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Ours to run. `mending` is set until an engine that a failed attempt left behind has been
    /// brought back to that state.
    Owned { epoch: Epoch, mending: Option<RunState> },
    /// Another host's, as far as is known here. If we have refused or returned a handoff, its
    /// source may ask for it again, for ever.
    Elsewhere { owner: HostId, epoch: Epoch, declined: Option<Declined> },
    /// Ours, and on offer. `run` is what the guest was.
    Offering { epoch: Epoch, handoff: Handoff, run: Option<RunState> },
    /// No longer ours to run. The commit point lies before this record.
    Ceded { epoch: Epoch, handoff: Handoff, run: Option<RunState> },
    /// The target runs it, and still draws memory from our engine (post-copy).
    Draining { handoff: Handoff },
    /// On offer to us, by its owner at `owned`.
    Receiving { owned: Epoch, handoff: Handoff },
    /// Ours, not yet known to have started.
    Taken { owned: Epoch, handoff: Handoff, run: Option<RunState> },
    /// We held it at `epoch` and found another host with a newer one. Our copy, if any, is paused
    /// and kept until a person has looked.
    Disputed { epoch: Epoch, owner: HostId, newer: Epoch },
}

/// A handoff that came to nothing at its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Declined {
    pub handoff: HandoffId,
    pub how: Decline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decline {
    /// Never owned here.
    Refused,
    /// Owned here, and given back before anything ran.
    Returned,
}
