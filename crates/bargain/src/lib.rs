// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The bargain: what a person was promised of a migration, and what is done to keep it.
//!
//! A person says how long the guest may stand still, how long the migration may take, how much the
//! guest may be slowed down, and what shall happen if that cannot be had. Nobody says when to
//! switch over, how many passes to make, or when to give up. That is decided here, at each look at
//! the engine:
//!
//! ```text
//!             Look                        Advice
//!   passes, what remains,        the pause the engine may make,
//!   rates, time            ──►   how much to slow the guest down,
//!                                go on | give up,
//!                                what to tell: ETA, reason, miss
//! ```
//!
//! - **The pause** ([`Allowance`]) is small at first and grows up to what was promised: an engine
//!   spends all it is given. The engine itself switches over as soon as what remains fits, which is
//!   at a minimum of what remains, and needs nobody for it.
//! - **The forecast** ([`forecast`]) follows the passes to come: each sends what was written during
//!   the one before.
//! - **Slowing down** comes when the passes do not shrink: as little as the forecast says is
//!   needed, and not more than is allowed.
//! - **A miss** is called when all that is used up and the forecast still says no: before a quarter
//!   of the time has passed, with numbers and with what would help. Then what was asked for
//!   happens: the guest stays, stands still for longer, or is slowed down further.
//! - **Post-copy**, where that was asked for, begins with the miss, over a link that is up, and
//!   only if the rest will have followed before the deadline: once begun there is no way back.
//! - **Where the engine chooses** when to stop the guest, as Xen does, none of that can be had.
//!   There a miss is called when the guest has stood still for as long as was promised
//!   ([`stands_too_long`]), and it goes on where it was; or it stands still for longer, where that
//!   was asked for.
//! - **Held** ([`hold`]), a migration converges and stays so until it is told to cut over.
//!
//! No I/O and no clock: time comes in with each look, so that hours are simulated in milliseconds.

#![forbid(unsafe_code)]

mod allowance;
mod choosing;
mod controller;
pub mod forecast;
mod hold;
mod pace;
mod words;

pub use allowance::Allowance;
pub use choosing::stands_too_long;
pub use controller::Controller;
pub use hold::{LOOK_EVERY, TRICKLE};

use std::time::Duration;
use whimbrel_model::plan::{Bargain, Span};
use whimbrel_model::units::Bytes;

/// What was agreed on before the first byte.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The guest's name, for words.
    pub guest: String,
    pub bargain: Bargain,
    /// What a switchover costs besides the last pages: devices, both records, starting.
    pub switchover: Duration,
    /// What the engine may send, in bytes a second; none: as much as the link takes.
    pub bandwidth: Option<Bytes>,
    /// What the link carries of pages that do not compress, in bytes a second; none: not measured.
    pub link_rate: Option<Bytes>,
    /// Bytes a second that the guest wrote before it was moved, where that was measured.
    pub dirty_before: Option<Bytes>,
    /// Converge, and cut over only when told to.
    pub is_held: bool,
    /// The guest's processor is emulated: short passes are not for it ([`Allowance`]).
    pub is_emulated: bool,
    /// The engine can slow the guest down.
    pub can_throttle: bool,
    /// The engine itself chooses when to stop the guest, and is done after as many passes as it
    /// likes: all that is left of a promise is to give up when it is about to be broken.
    pub chooses_pause: bool,
}

/// How the migration stands, by the engine's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Since the person asked.
    pub elapsed: Duration,
    /// Passes over the guest's memory; the first is 1.
    pub round: u64,
    /// What is known to be still to send.
    pub remaining: Bytes,
    /// Bytes a second that the engine sends.
    pub rate: Bytes,
    /// Bytes a second that the guest writes to pages; zero: not known yet.
    pub dirty_rate: Bytes,
    /// How much the guest is slowed down now.
    pub throttle_percent: u8,
    /// Both hosts see each other.
    pub is_link_up: bool,
    /// Whether the guest executes instructions.
    pub is_running: bool,
    /// How long it has stood still in order to be moved, where the engine says so.
    pub stood: Duration,
}

/// What to do, and what to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    /// The pause the engine may make now.
    pub allowance: Duration,
    /// Bytes a second the engine may send now; none: as much as the link takes.
    pub bandwidth: Option<Bytes>,
    /// How much to slow the guest down now.
    pub throttle_percent: u8,
    pub step: Step,
    /// The bargain cannot be kept. Said with every look from then on.
    pub miss: Option<Miss>,
    /// How long it will still take; none: it cannot be said.
    pub eta: Option<Span<Duration>>,
    /// The pause if the guest were stopped now.
    pub pause_now: Duration,
    /// Why it is still running, in one line.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    GoOn,
    /// Converged, and waiting to be told.
    Hold,
    /// The bargain cannot be kept, and then nothing shall be done.
    Cancel,
    /// It cannot be kept, and then the guest shall run on the target before its memory is there.
    Postcopy,
}

/// The bargain cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// When that was known.
    pub at: Duration,
    /// Why, in figures.
    pub text: String,
    /// What would help.
    pub remedy: String,
}
