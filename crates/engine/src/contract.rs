// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What every engine promises.

use crate::error::EngineError;
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::broadcast;
pub use whimbrel_model::facts::EngineFacts;
use whimbrel_model::facts::UefiFacts;
use whimbrel_model::guest::Guest;
use whimbrel_model::id::GuestId;
use whimbrel_model::passport::{EngineKind, Passport};
use whimbrel_model::run_state::RunState;
use whimbrel_model::units::Bytes;

/// An engine a host has.
///
/// # Contract
///
/// - Every method may be repeated after a failure or after a crash of the daemon.
/// - A method that fails leaves nothing behind: no process, no socket, no lock.
#[async_trait]
pub trait Engine: Send + Sync {
    fn kind(&self) -> EngineKind;

    /// Whether the engine itself joins a guest's networks to their bridges; if not, the daemon
    /// makes the taps.
    fn makes_own_taps(&self) -> bool {
        false
    }

    /// Returns how much memory this host has for guests, and what is left of it, where that is not
    /// for the kernel to say.
    async fn memory(&self) -> Result<Option<HostMemory>, EngineError> {
        Ok(None)
    }

    /// Returns what this engine is and can do on this host.
    async fn facts(&self) -> Result<EngineFacts, EngineError>;

    /// Freezes everything `guest` would derive from this host.
    async fn freeze(&self, id: GuestId, guest: &Guest) -> Result<Passport, EngineError>;

    /// Starts an engine for the guest, its vCPUs stopped. Returns once it answers.
    async fn launch(&self, launch: Launch) -> Result<Arc<dyn Instance>, EngineError>;

    /// Finds the engine that an earlier daemon launched in `directory`, if it still lives. It is
    /// recognised by pid, start time and its own answer to who it is, never by pid alone.
    async fn attach(
        &self,
        id: GuestId,
        directory: &Path,
    ) -> Result<Option<Arc<dyn Instance>>, EngineError>;

    /// Says what a guest's UEFI keeps its variables in, in its directory here, or would begin with;
    /// none: it has no UEFI. May block for a moment.
    fn uefi(&self, _directory: &Path, _passport: &Passport) -> Option<UefiFacts> {
        None
    }

    /// Ends the engine that an earlier daemon launched in `directory` without speaking to it, if
    /// it has never run its guest; returns whether there is none now. For one that hangs in the
    /// middle of a stream that broke.
    async fn end_unused(&self, id: GuestId, directory: &Path) -> Result<bool, EngineError>;

    /// The program with which others start guests in this engine; none: nobody can.
    fn foreign_tool(&self) -> Option<&'static str> {
        None
    }

    /// Returns the guests of this engine that are none of `ours`.
    async fn foreign(&self, _ours: &BTreeSet<GuestId>) -> Result<Vec<Foreign>, EngineError> {
        Ok(Vec::new())
    }

    /// Says how a guest that others have started would be defined. Refuses one that has what a
    /// definition cannot say, and names all of it.
    async fn describe(&self, foreign: &Foreign) -> Result<Described, EngineError> {
        Err(EngineError::Unsupported { what: format!("guests of others: `{}`", foreign.name) })
    }

    /// Makes an instance of a guest that others have started, which does not notice. What an
    /// earlier daemon finds by [`Engine::attach`] is written by it.
    async fn adopt(&self, adopt: Adopt) -> Result<Arc<dyn Instance>, EngineError> {
        Err(EngineError::Unsupported { what: format!("adopting `{}`", adopt.guest.name) })
    }
}

/// A guest in the engine that this program has not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    pub id: GuestId,
    /// As the engine has it; it need not be a name that a guest of ours could have.
    pub name: String,
    pub run: RunState,
    pub memory: Bytes,
    pub cpu_count: u32,
    pub cpu_time: Duration,
}

/// A definition that was read from an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub guest: Guest,
    /// What will not be the same once the guest is started again, in sentences.
    pub notes: Vec<String>,
}

/// What is to be adopted, and where it is written down.
#[derive(Debug)]
pub struct Adopt {
    pub guest: Guest,
    pub passport: Passport,
    /// See [`Launch::directory`].
    pub directory: PathBuf,
}

/// The memory of a host whose kernel sees only a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    pub total: Bytes,
    /// What nobody has.
    pub free: Bytes,
    /// What the domain in which the daemon runs has for itself.
    pub own: Bytes,
    /// The engine takes of that what a guest needs, if nothing else is free.
    pub gives_own: bool,
}

impl HostMemory {
    /// Returns what there is for guests and for what the host keeps.
    pub fn available(&self, kept: Bytes) -> Bytes {
        let own = if self.gives_own { self.own } else { self.own.min(kept) };
        self.free.saturating_add(own)
    }
}

/// How to start an engine for a guest.
#[derive(Debug)]
pub struct Launch {
    pub guest: Guest,
    pub passport: Passport,
    /// The guest's own directory on this host, for sockets and logs. Exists, and is writable by
    /// the user the engine runs as.
    pub directory: PathBuf,
    /// One open tap for each `bridge` network of the guest, in their order.
    pub taps: Vec<OwnedFd>,
    pub start: Start,
    /// The unprivileged user (and group) the engine runs as; none: the caller's own.
    pub run_as: Option<RunAs>,
    /// What goes before the engine's program, and becomes it: where an init system would end the
    /// engine together with the caller, this puts it elsewhere.
    pub wrapper: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunAs {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The guest begins at its firmware or kernel.
    Boot,
    /// The guest's memory and devices will come through [`Instance::receive`].
    Incoming,
}

/// One guest that an engine holds.
///
/// # Contract
///
/// - After `pause` returns, no vCPU executes another instruction until `resume`.
/// - After `send` has reported [`Migration::Completed`], the guest is stopped here and its disks
///   are released; `resume` takes them again and goes on.
/// - An instance that was launched with [`Start::Incoming`] never runs before `resume`, writes no
///   disk before it, and announces nothing on the network before `announce`.
/// - `cancel` returns a guest that ran to running, in every phase before `PostCopy` and
///   `Completed`. Some engines can do so in `PostCopy`, too; the others refuse.
/// - `destroy` returns only when the process is gone.
#[async_trait]
pub trait Instance: Send + Sync {
    /// The process that is this guest; pid 0, which none has, where it is not a process.
    fn process(&self) -> Process;

    /// Whether the guest may have executed an instruction under this engine. Survives a restart
    /// of the daemon: an engine that received a guest and never ran it can still give it back.
    fn has_run(&self) -> bool;

    /// Whether [`MigrationOptions::has_urgent_channel`] may be asked of it.
    fn has_urgent_channel(&self) -> bool {
        false
    }

    /// What the guest is doing, by the engine's own word.
    async fn run_state(&self) -> Result<RunState, EngineError>;

    async fn pause(&self) -> Result<(), EngineError>;
    async fn resume(&self) -> Result<(), EngineError>;
    /// Asks the guest to shut down (ACPI power button). Returns at once.
    async fn power_down(&self) -> Result<(), EngineError>;
    async fn reset(&self) -> Result<(), EngineError>;
    /// Ends the engine, whatever the guest is doing, and waits until it is gone.
    async fn destroy(&self) -> Result<(), EngineError>;

    /// Events from now on. The channel closes when the engine is gone.
    fn events(&self) -> broadcast::Receiver<EngineEvent>;

    /// The stream socket of the guest's serial console; the daemon is its only client.
    fn console(&self) -> Option<PathBuf>;

    /// Host CPU time the guest has used.
    async fn cpu_time(&self) -> Result<Duration, EngineError>;
    /// Measures how much the guest writes, in bytes of pages a second; takes about as long. None:
    /// it cannot be said. Not to be asked while memory travels.
    async fn dirty_rate(&self) -> Result<Option<Bytes>, EngineError>;
    /// Why the engine would refuse to send the guest just now, in its own words; empty: it would
    /// not, or does not say so beforehand.
    async fn hindrances(&self) -> Result<Vec<String>, EngineError> {
        Ok(Vec::new())
    }
    /// Sets what the balloon aims at.
    async fn set_memory_target(&self, target: Bytes) -> Result<(), EngineError>;

    /// Makes ready to receive. Returns when the engine listens for
    /// [`MigrationOptions::connections`] connections, the main channel first.
    async fn receive(&self, options: MigrationOptions) -> Result<ChannelEnd, EngineError>;
    /// Begins to send, over as many connections. Returns when the engine has accepted; progress
    /// through `migration`. The engine switches over by itself when what remains fits into the
    /// pause that was asked for; nothing of the daemon is needed for it.
    async fn send(
        &self,
        options: MigrationOptions,
        channels: ChannelEnd,
    ) -> Result<(), EngineError>;
    /// How the migration, in or out, stands, by the engine's own word just now.
    async fn migration(&self) -> Result<Migration, EngineError>;
    /// Changes the pause the engine aims at, the bandwidth it may use and how much it slows the
    /// guest down, while it runs.
    async fn retune(&self, tuning: Tuning) -> Result<(), EngineError>;
    /// Gives up sending and returns how the migration really ended: `Cancelled` or `Failed`, or
    /// `Completed` where it was too late, and then nothing was changed.
    ///
    /// While the engine sends the last pages it may answer only after its channels were closed:
    /// a caller whose patience ends closes the sockets at the other end of the channels.
    async fn cancel(&self) -> Result<Migration, EngineError>;
    /// Tells the network where the guest is now.
    async fn announce(&self) -> Result<(), EngineError>;

    /// Stops a guest that is being sent, hands its devices over and lets the rest of its memory
    /// follow: see [`Migration::PostCopy`]. Returns when the engine has accepted. Only where
    /// [`MigrationOptions::may_postcopy`] was asked for at both ends.
    async fn enter_postcopy(&self) -> Result<(), EngineError> {
        Err(EngineError::Unsupported { what: POSTCOPY.to_owned() })
    }
    /// At the target of a post-copy that was cut off ([`Migration::Interrupted`]): listens again.
    async fn receive_again(&self) -> Result<ChannelEnd, EngineError> {
        Err(EngineError::Unsupported { what: POSTCOPY.to_owned() })
    }
    /// At its source: goes on with what the target has not got.
    async fn send_again(&self, _channels: ChannelEnd) -> Result<(), EngineError> {
        Err(EngineError::Unsupported { what: POSTCOPY.to_owned() })
    }
}

const POSTCOPY: &str = "post-copy";

/// What no other process can have been: a pid and when it began, from `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, in clock ticks since boot.
    pub start_ticks: u64,
}

/// Where an engine's migration channels meet the carrying process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEnd {
    /// The engine listens on this unix stream socket; each connection is a channel, the first
    /// accepted is the main one.
    Listen(PathBuf),
    /// The engine connects to this unix stream socket, once a channel.
    Connect(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationOptions {
    /// 1 is a single stream; more is multifd with that many data channels besides the main one.
    pub channels: u32,
    pub is_compressed: bool,
    pub tuning: Tuning,
    /// Stop the guest first and copy then.
    pub is_stop_and_copy: bool,
    /// [`Tuning::throttle_percent`] may be asked for later on.
    pub may_throttle: bool,
    /// [`Instance::enter_postcopy`] may be asked for later on. Has one channel.
    pub may_postcopy: bool,
    /// In post-copy, the pages that the guest waits for have a channel of their own, which the
    /// engine connects when it likes. Both ends are told the same.
    pub has_urgent_channel: bool,
}

impl MigrationOptions {
    /// Returns how many connections the engine makes or expects, without the urgent channel.
    pub fn connections(&self) -> u32 {
        if self.channels > 1 { self.channels + 1 } else { 1 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes a second the engine may send; none: as much as the socket takes. However little it is,
    /// a page in each tenth of a second is sent.
    pub bandwidth: Option<Bytes>,
    pub pause_max: Duration,
    /// The share of its time that a vCPU is kept from executing while memory travels; at most 99.
    /// It may take an engine a few passes to get there. Ends with the migration.
    pub throttle_percent: u8,
}

/// How a migration stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Migration {
    None,
    /// Memory is on its way and the guest runs at the source.
    Active(Progress),
    /// The guest is stopped at the source, and the last pages are on their way.
    Switching(Progress),
    /// Everything but memory has arrived. The target may run the guest and gets the pages that it
    /// misses as it touches them; the source stands still for good and serves them. Neither half
    /// is a guest without the other.
    PostCopy(Progress),
    /// A post-copy has lost its channels: both wait for [`Instance::receive_again`] and
    /// [`Instance::send_again`].
    Interrupted(Progress),
    Completed(Progress),
    Failed {
        reason: String,
    },
    /// At the target: what the source sends is another guest than it has offered. Nothing of it was
    /// let in.
    NotAsOffered {
        what: String,
    },
    Cancelled,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    pub transferred: Bytes,
    pub remaining: Bytes,
    pub total: Bytes,
    /// Passes over the guest's memory so far; the first is 1.
    pub round: u64,
    /// Bytes a second, measured by the engine over its last round.
    pub rate: Bytes,
    /// Bytes a second the guest dirties.
    pub dirty_rate: Bytes,
    /// How much the guest is slowed down now.
    pub throttle_percent: u8,
    /// How long the engine says the guest was stopped, once completed.
    pub downtime: Option<Duration>,
    /// The steps of the pause, as far as they have come and this daemon saw them.
    pub pause: PauseSteps,
}

/// When the guest was stopped in order to be moved, and what followed, by this host's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PauseSteps {
    /// The last vCPU stopped.
    pub stopped: Option<SystemTime>,
    /// The last pages and the device state began to flow.
    pub switching: Option<SystemTime>,
    /// The other engine has acknowledged everything.
    pub completed: Option<SystemTime>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// The vCPUs stopped, for whatever reason.
    Stopped,
    Resumed,
    /// The guest asked for a reset; the engine has carried it out.
    Reset,
    /// The guest powered itself off; the engine holds it.
    ShutDown,
    Panicked,
    IoError {
        disk: String,
    },
    Suspended,
    /// The state of a migration changed; ask `migration`.
    Migration,
    /// The process is gone.
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept is kept of what the daemon's own domain has, and is not taken from elsewhere.
    #[test]
    fn memory_of_the_own_domain_counts_where_it_is_given() {
        let memory = |gives_own| {
            let (total, free, own) = (Bytes::mib(1024), Bytes::mib(400), Bytes::mib(512));
            HostMemory { total, free, own, gives_own }
        };
        let left = |gives_own, kept| memory(gives_own).available(kept).saturating_sub(kept);
        assert_eq!(left(true, Bytes::mib(256)), Bytes::mib(656));
        assert_eq!(left(false, Bytes::mib(256)), Bytes::mib(400));
        // The own domain has less than is to be kept: that much is missing.
        assert_eq!(left(true, Bytes::mib(600)), Bytes::mib(312));
        assert_eq!(left(false, Bytes::mib(600)), Bytes::mib(312));
    }
}
