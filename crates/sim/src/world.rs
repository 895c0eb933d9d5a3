// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A world of hosts around the real ownership machines: daemons, slots, engines, a network and a
//! shared disk, each as small as it can be and as bad as it really is.
//!
//! The same world is explored exhaustively by the model checker and walked at random by the
//! simulation. Whatever can happen next is an [`Action`]; everything between two actions is
//! atomic. What costs states without showing anything is folded into its neighbour: a send that
//! follows a durable write happens with it (a lost message is one that is never delivered), but
//! never before it.
//!
//! - **The network** never forgets: a message once sent can be delivered at any later time, any
//!   number of times, or never. That is loss, delay, reordering and repetition at once.
//! - **A daemon** can die between any two effects, and between an effect and its answer.
//! - **A host** can lose its power: engine and daemon are gone, the slot is what was synced.
//! - **An engine** can fail while it sends, die, resume by itself when it was not told how its
//!   migration ended, refuse to start, or die while it starts.
//!
//! Two ghosts watch that no machine can see: the *version* of the guest, which grows whenever an
//! engine starts to run it (who then runs an older memory has travelled in time), and the first
//! [`Wrong`] thing that happened.

mod actions;
mod disk;
mod driver;
mod engine;
mod evidence;

pub use actions::{Action, after};
pub use disk::SharedDisk;
pub use driver::{End, Input, Node, Task};
pub use engine::{Engine, Phase};

use crate::coverage::Coverage;
use crate::mutants::Mutant;
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;
use whimbrel_handoff::disk::{By, OwnerRecord};
use whimbrel_handoff::message::{Body, Kind, Message};
use whimbrel_handoff::ownership::{Ledger, Ownership, State};
use whimbrel_handoff::record::{BootId, Identity, Record, Standing};
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId};
use whimbrel_model::run_state::RunState;

/// What a world is made of and what may go wrong in it.
#[derive(Clone, Debug)]
pub struct Scope {
    pub name: &'static str,
    pub hosts: usize,
    pub storage: Storage,
    pub kind: Kind,
    /// What the guest is at the beginning; none: stopped.
    pub run: Option<RunState>,
    pub words: Words,
    pub budget: Budget,
    /// A deliberate fault in the machines or their driver.
    pub mutant: Option<Mutant>,
    pub coverage: Coverage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// A shared file system: owner record, claims, and the engines' locks if they are to help.
    Beside { has_locks: bool },
    /// A shared block device or URL.
    NoPlace,
}

/// What operators say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Only of hosts that are off.
    True,
    /// Of hosts that merely do not answer.
    False,
}

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub migrations: u8,
    pub daemon_deaths: u8,
    pub host_deaths: u8,
    pub engine_faults: u8,
    pub cancels: u8,
    pub starts: u8,
    pub words: u8,
    /// Old state directories brought back.
    pub restores: u8,
}

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// Two engines run the guest.
    Two,
    /// An engine went on with memory older than what has run since.
    TimeTravel,
    /// The last newest copy of a living guest was destroyed.
    Lost,
    /// The source's half of a post-copy was destroyed or resumed while the target needed it.
    HalfLost,
    /// An epoch was offered or taken twice.
    EpochReused,
    /// The guest's policy was applied to a guest that is not ours.
    ForeignPolicy,
    /// An incoming engine joined the network or ran before it was owned.
    RanUnowned,
    /// An assertion of the machines failed.
    Panicked,
    // What a healed world must not be.
    NobodyRuns,
    Unsettled,
    LeftOver,
    RunStateChanged,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub hosts: Vec<Arc<Host>>,
    pub net: Arc<BTreeSet<Parcel>>,
    pub disk: Arc<SharedDisk>,
    pub left: Budget,
    /// Handoffs begun so far; also the id of the last.
    pub handoffs: u8,
    /// How often some engine has started to run the guest.
    pub version: u8,
    /// What the guest is to be where it is; none: it has ended or never ran.
    pub expected: Option<RunState>,
    pub wrong: Option<Wrong>,
    /// Whether two copies ran under a false word, with nothing to prevent it.
    pub is_disputed: bool,
    /// Whether every epoch is used once: nobody says a word, no old state is brought back.
    pub is_unambiguous: bool,
    /// The version whose last newest copy a fault has taken, so that no decision can lose it.
    pub crashed: u8,
    /// Whether a false word may have made two copies: see [`Scope::is_tolerant`].
    pub is_tolerant: bool,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    pub is_on: bool,
    pub boot: u8,
    /// What the ownership file answers after a power cut.
    pub slot: Option<Record>,
    /// What it answers now, where somebody forgot to sync.
    pub cache: Option<Record>,
    /// What a backup of it holds.
    pub backup: Option<Record>,
    pub node: Option<Node>,
    pub engine: Option<Engine>,
}

/// A message on its way, or on its way again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parcel {
    pub from: usize,
    pub to: usize,
    pub message: Message,
}

impl Parcel {
    /// A total order over what distinguishes messages; only to keep them in a set.
    fn key(&self) -> (usize, usize, u128, &'static str, u64, u64) {
        let (a, b) = match self.message.body {
            Body::Offer { owned, .. } => (owned.0, 0),
            Body::Cede { run } => (run.map_or(0, |run| run as u64 + 1), 0),
            Body::Owner { owner, epoch } => (u64::from(owner.0[0]), epoch.0),
            Body::Abort | Body::Accepted | Body::Ready | Body::Started => (0, 0),
            Body::Refused { .. } | Body::Unwilling { .. } => (0, 0),
            Body::Returned | Body::WhoOwns | Body::NoRecord => (0, 0),
        };
        let id = self.message.handoff.0.as_u128();
        (self.from, self.to, id, self.message.body.name(), a, b)
    }
}

impl PartialOrd for Parcel {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Parcel {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

pub const GUEST: GuestId = GuestId(Uuid::from_u128(0x6775_6573_7400_4000_8000_0000_0000_0001));

/// Returns the id of the n-th host.
pub fn host_id(index: usize) -> HostId {
    let byte = u8::try_from(index + 1).expect("a world has few hosts");
    HostId([byte; 32])
}

/// Returns which host an id is.
pub fn host_index(id: HostId) -> usize {
    usize::from(id.0[0]) - 1
}

pub fn host_name(index: usize) -> &'static str {
    ["alpha", "beta", "gamma", "delta"][index]
}

fn handoff_id(number: u8) -> HandoffId {
    HandoffId(Uuid::from_u128(u128::from(number)))
}

fn boot_id(boot: u8) -> BootId {
    BootId([boot; 16])
}

impl Scope {
    pub(crate) fn has_locks(&self) -> bool {
        self.storage == Storage::Beside { has_locks: true }
    }

    /// The one documented exception: a false word where nothing on the storage can tell.
    pub(crate) fn is_tolerant(&self) -> bool {
        self.words == Words::False && !self.has_locks()
    }
}

impl World {
    /// The first host owns the guest with epoch 1 and runs it, if it is to run.
    pub fn new(scope: &Scope) -> Self {
        let engine = scope.run.map(|run| Engine::running_as(run, 1));
        let identity = |index| Identity { guest: GUEST, host: host_id(index) };
        let record = Record {
            identity: identity(0),
            boot: boot_id(1),
            consumed: Epoch(1),
            standing: Standing::Owned { epoch: Epoch(1), mending: None },
        };
        let host = |index: usize| {
            let is_owner = index == 0;
            let own = if is_owner {
                let ledger = Ledger {
                    identity: identity(0),
                    now: boot_id(1),
                    boot: boot_id(1),
                    consumed: Epoch(1),
                };
                Ownership { ledger, state: State::Owned { epoch: Epoch(1) } }
            } else {
                Ownership::unknown(identity(index), boot_id(1))
            };
            Arc::new(Host {
                is_on: true,
                boot: 1,
                slot: is_owner.then_some(record),
                cache: None,
                backup: is_owner.then_some(record),
                node: Some(Node::new(own)),
                engine: if is_owner { engine } else { None },
            })
        };
        let owner = OwnerRecord { guest: GUEST, owner: host_id(0), epoch: Epoch(1), by: By::Owner };
        let disk = match scope.storage {
            Storage::Beside { .. } => SharedDisk::owned_by(owner),
            Storage::NoPlace => SharedDisk::default(),
        };
        Self {
            hosts: (0..scope.hosts).map(host).collect(),
            net: Arc::default(),
            disk: Arc::new(disk),
            left: scope.budget,
            handoffs: 0,
            version: 1,
            expected: scope.run,
            wrong: None,
            is_disputed: false,
            is_unambiguous: scope.budget.restores == 0 && scope.budget.words == 0,
            crashed: 0,
            is_tolerant: scope.is_tolerant(),
        }
    }

    pub(crate) fn host_mut(&mut self, host: usize) -> &mut Host {
        Arc::make_mut(&mut self.hosts[host])
    }

    pub(crate) fn node_mut(&mut self, host: usize) -> Option<&mut Node> {
        self.host_mut(host).node.as_mut()
    }

    /// Returns the ownership as the daemon of a host sees it, if it runs.
    pub fn own(&self, host: usize) -> Option<&Ownership> {
        self.hosts[host].node.as_ref().map(|node| &node.own)
    }

    /// Remembers the first wrong thing.
    pub(crate) fn is_wrong(&mut self, wrong: Wrong) {
        let is_safety = matches!(wrong, Wrong::Two | Wrong::TimeTravel | Wrong::Lost);
        if is_safety && self.is_tolerant {
            return;
        }
        self.wrong = self.wrong.or(Some(wrong));
    }

    /// Hosts whose engine executes the guest.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        self.hosts.iter().enumerate().filter_map(|(index, host)| {
            host.engine.filter(|engine| engine.phase.is_running()).map(|_| index)
        })
    }
}
