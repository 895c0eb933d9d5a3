// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Who owns a guest, as this host decides and remembers it: the machine of `handoff` and its file.
//!
//! The machine decides, the file remembers, the guest's task performs. This module is the only one
//! that writes an ownership file. Once a write has failed nothing is decided any more: what is on
//! the disk is known only after it was read again, by a restarted daemon.
//!
//! What others are told is what is durable. While a record is still to be written they hear what
//! was true before it; when nothing is certain any more they hear nothing.

use crate::daemon::Daemon;
use crate::guests::GuestError;
use whimbrel_api::Problem;
use whimbrel_handoff::effect::{Doubt, Effect, Outcome};
use whimbrel_handoff::ownership::{Answer, EngineView, Found, Ownership as Machine, State, Step};
use whimbrel_handoff::record::{RECORD_BYTES_MAX, Record, Standing};
use whimbrel_host::dirs::{GuestDir, UserIds};
use whimbrel_host::ownership::OwnershipFile;
use whimbrel_model::id::{GuestId, GuestName};

const _: () = assert!(RECORD_BYTES_MAX <= whimbrel_host::ownership::RECORD_BYTES_MAX);

/// The ownership of one guest on this host.
#[derive(Debug)]
pub(crate) struct Ownership {
    /// None only while it decides.
    machine: Option<Machine>,
    /// None until there is something to remember.
    file: Option<OwnershipFile>,
    directory: GuestDir,
    engine_user: Option<UserIds>,
    /// Why it is not known who owns the guest, for people.
    doubt: Option<String>,
    is_poisoned: bool,
    /// Records that were decided and are not written yet.
    unwritten: usize,
    /// What others are told; none: nothing, as if this host could not be reached.
    answer: Option<Answer>,
}

impl Ownership {
    /// Takes up what an earlier daemon wrote, given what there is of the guest's engine. The
    /// effects are for the guest's task to perform.
    pub(crate) fn open(daemon: &Daemon, guest: GuestId, engine: EngineView) -> (Self, Vec<Effect>) {
        let directory = daemon.layout().guest(guest);
        let identity = daemon.guest_identity(guest);
        let (file, found, doubt) = match OwnershipFile::open(&directory.ownership()) {
            Ok(file) => {
                let found = match file.read().map(Record::decode) {
                    Ok(Ok(record)) => Found::Record(record),
                    Ok(Err(_)) | Err(_) => Found::Damaged,
                };
                (Some(file), found, None)
            }
            Err(error) if error.is_missing() => (None, Found::Nothing, None),
            Err(error) => (None, Found::Damaged, Some(error.to_string())),
        };
        let (machine, effects) = Machine::recover(identity, daemon.boot(), found, engine);
        let engine_user = daemon.engine_ids();
        let mut this = Self {
            machine: Some(machine),
            file,
            directory,
            engine_user,
            doubt,
            is_poisoned: false,
            unwritten: 0,
            answer: None,
        };
        this.count(&effects);
        (this, effects)
    }

    /// Looks what an earlier daemon wrote, before anything is made of it.
    pub(crate) fn peek(daemon: &Daemon, guest: GuestId) -> Option<Standing> {
        let file = OwnershipFile::open(&daemon.layout().guest(guest).ownership()).ok()?;
        let record = Record::decode(file.read().ok()?).ok()?;
        (record.identity == daemon.guest_identity(guest)).then_some(record.standing)
    }

    /// Takes up a guest whose engine lives and cannot be spoken to: nothing is decided about it.
    pub(crate) fn open_mute(daemon: &Daemon, guest: GuestId, why: String) -> Self {
        let (mut this, _) = Self::open(daemon, guest, EngineView::HasRun);
        this.doubt = Some(why);
        this.poison();
        this
    }

    fn poison(&mut self) {
        self.is_poisoned = true;
        self.answer = None;
    }

    /// Takes note of what has just been decided.
    fn count(&mut self, effects: &[Effect]) {
        self.unwritten +=
            effects.iter().filter(|effect| matches!(effect, Effect::Persist(_))).count();
        self.settle();
    }

    fn settle(&mut self) {
        if self.unwritten == 0 && !self.is_poisoned {
            self.answer = Some(self.machine().answer());
        }
    }

    /// What others are told of who owns the guest.
    pub(crate) fn answer(&self) -> Option<Answer> {
        self.answer
    }

    pub(crate) fn machine(&self) -> &Machine {
        self.machine.as_ref().expect("it is put back before the task goes on")
    }

    /// Lets the machine decide, and returns what is to be done.
    pub(crate) fn decide(&mut self, decision: impl FnOnce(Machine) -> Step) -> Vec<Effect> {
        if self.is_poisoned {
            return Vec::new();
        }
        let machine = self.machine.take().expect("it is put back before the task goes on");
        let (machine, effects) = decision(machine);
        self.machine = Some(machine);
        self.count(&effects);
        effects
    }

    /// Lets the machine decide where it may also say no.
    pub(crate) fn try_decide<E>(
        &mut self,
        decision: impl FnOnce(&Machine) -> Result<Step, E>,
    ) -> Result<Vec<Effect>, E> {
        let (machine, effects) = decision(self.machine())?;
        self.machine = Some(machine);
        self.count(&effects);
        Ok(effects)
    }

    /// Makes a record durable. After a failure nothing is decided any more.
    pub(crate) fn persist(&mut self, record: &Record) -> Result<(), Problem> {
        let bytes = record.encode();
        let written = match &mut self.file {
            Some(file) => file.write(&bytes),
            None => {
                let made = self.directory.create(self.engine_user);
                if let Err(error) = made {
                    self.poison();
                    return Err(Problem::of(&error));
                }
                let path = self.directory.ownership();
                // A damaged one was read as such; who writes now has an operator's word.
                let made = match path.exists() {
                    true => OwnershipFile::replace(&path, &bytes),
                    false => OwnershipFile::create(&path, &bytes),
                };
                made.map(|file| self.file = Some(file))
            }
        };
        match written {
            Ok(()) => {
                self.unwritten = self.unwritten.saturating_sub(1);
                self.settle();
                Ok(())
            }
            Err(error) => {
                self.poison();
                self.doubt = Some(error.to_string());
                Err(Problem::of(&error))
            }
        }
    }

    /// Whether this host has given the guest away in the handoff that is open.
    pub(crate) fn has_ceded(&self) -> bool {
        matches!(&self.machine().state, State::Source(source) if source.has_ceded())
    }

    /// Whether another host owns what this one holds a paused copy of.
    pub(crate) fn is_disputed(&self) -> bool {
        matches!(self.machine().state, State::Disputed { .. })
    }

    /// Whether another host owns it, as far as this one knows.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self.machine().state, State::Elsewhere { .. })
    }

    pub(crate) fn is_source(&self) -> bool {
        matches!(self.machine().state, State::Source(_))
    }

    /// Lets go of the file, which is about to be removed with the guest.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    /// Notes what the machine has to say about doubt, for people.
    pub(crate) fn note(&mut self, outcome: &Outcome) {
        self.doubt = match outcome {
            Outcome::InDoubt(doubt) => Some(explain(doubt)),
            Outcome::Disputed { epoch, .. } => Some(format!(
                "another host owns it with epoch {epoch}; the copy here is paused and kept"
            )),
            _ => None,
        };
    }

    /// It is known again who owns the guest.
    pub(crate) fn doubt_is_over(&mut self) {
        self.doubt = None;
    }

    pub(crate) fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
            || matches!(self.machine().state, State::Damaged | State::Disputed { .. })
    }

    /// Why it is in doubt, in words.
    pub(crate) fn remark(&self) -> Option<String> {
        self.doubt.clone()
    }

    /// Refuses what only the owner may do.
    pub(crate) fn must_own(&self, guest: &GuestName) -> Result<(), Problem> {
        if self.machine().may_run() && !self.is_poisoned {
            return Ok(());
        }
        let why = self.doubt.clone().unwrap_or_else(|| "this host does not own it".to_owned());
        Err(GuestError::InDoubt { guest: guest.to_string(), why }.into())
    }
}

/// Says in a sentence why it is not known who owns a guest.
fn explain(doubt: &Doubt) -> String {
    match doubt {
        Doubt::TargetSilent => "it was handed over, and the target does not answer".to_owned(),
        Doubt::TargetForgot => "it was handed over, and the target knows nothing of it".to_owned(),
        Doubt::SourceSilent => "it has arrived, and the source does not answer".to_owned(),
        Doubt::SourceForgot => "it has arrived, and the source knows nothing of it".to_owned(),
        Doubt::ClaimHeld { holder } => format!(
            "host {holder} holds the claim beside its disk and has not said that it owns it"
        ),
        Doubt::ClaimUnavailable => "the storage with the claims does not answer".to_owned(),
        Doubt::OwnMemoryLost => {
            "a peer says that it belongs here, and this host has no record of that".to_owned()
        }
        Doubt::Damaged => "the ownership file of this host is damaged".to_owned(),
        Doubt::CannotResume => "a post-copy migration cannot be taken back".to_owned(),
    }
}
