// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Which transitions of the machines have really been taken.
//!
//! A transition is (state, input, state after); one that stays and does nothing is none. The set
//! that exploration reaches is committed in `docs/`, and a test compares: one that is gone was
//! lost, one that is new has to be looked at.

use crate::world::Wrong;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use whimbrel_handoff::door::{Refusal, Unknown, Verdict};
use whimbrel_handoff::effect::Effect;
use whimbrel_handoff::ownership::{EngineView, Found, Ownership};
use whimbrel_handoff::record::Standing;

use crate::world::Input;

/// A move of the machines: from, on, to.
pub type Move = (&'static str, &'static str, &'static str);

/// What an exploration or a walk has seen. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Coverage(Arc<Mutex<Seen>>);

#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub moves: BTreeSet<Move>,
    pub verdicts: BTreeSet<&'static str>,
}

impl Coverage {
    /// Returns everything seen so far.
    pub fn seen(&self) -> Seen {
        self.with(|seen| seen.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        act(&mut self.0.lock().expect("nobody panics while holding it"))
    }

    fn saw(&self, from: &'static str, on: &'static str, to: &'static str) {
        self.with(|seen| seen.moves.insert((from, on, to)));
    }

    pub(crate) fn record(
        &self,
        before: &Ownership,
        input: &Input,
        after: &Ownership,
        effects: &[Effect],
    ) {
        if effects.is_empty() && before == after {
            return;
        }
        let on = match input {
            Input::Message { message, .. } => message.body.name(),
            Input::Event(event) => event.name(),
        };
        self.saw(before.name(), on, after.name());
    }

    pub(crate) fn offered(&self, after: &Ownership) {
        self.saw("Owned", "(offer)", after.name());
    }

    pub(crate) fn recovery(&self, found: &Found, engine: EngineView, after: &Ownership) {
        let from = match found {
            Found::Nothing => "(nothing)",
            Found::Damaged => "(damaged)",
            Found::Record(record) => match record.standing {
                Standing::Owned { mending: None, .. } => "(Owned)",
                Standing::Owned { mending: Some(_), .. } => "(Owned, to mend)",
                Standing::Elsewhere { .. } => "(Elsewhere)",
                Standing::Offering { .. } => "(Offering)",
                Standing::Ceded { .. } => "(Ceded)",
                Standing::Draining { .. } => "(Draining)",
                Standing::Receiving { .. } => "(Receiving)",
                Standing::Taken { .. } => "(Taken)",
                Standing::Disputed { .. } => "(Disputed)",
            },
        };
        let on = match engine {
            EngineView::Gone => "(no engine)",
            EngineView::NeverRan => "(never ran)",
            EngineView::HasRun => "(has run)",
        };
        self.saw(from, on, after.name());
    }

    pub(crate) fn verdict(&self, verdict: &Verdict) {
        let name = match verdict {
            Verdict::Start { .. } => "start",
            Verdict::Acquire { .. } => "acquire",
            Verdict::Resume => "resume",
            Verdict::Refused(refusal) => match refusal {
                Refusal::OwnedBy { .. } => "refused: owned by another",
                Refusal::ImageOfOther { .. } => "refused: image of another guest",
                Refusal::HandoffOpen { .. } => "refused: a handoff is open",
                Refusal::PeerAnswers { .. } => "refused: the peer answers",
                Refusal::InUse => "refused: an image is in use",
                Refusal::NoCopy => "refused: no copy in memory",
                Refusal::HalfCopy => "refused: half a copy",
            },
            Verdict::InDoubt(unknown) => match unknown.first() {
                Some(Unknown::Silent { .. }) | None => "in doubt: a host is silent",
                Some(Unknown::DiskUnreadable) => "in doubt: disk unreadable",
                Some(Unknown::DiskDamaged) => "in doubt: disk record damaged",
                Some(Unknown::OwnRecordDamaged) => "in doubt: own record damaged",
                Some(Unknown::OwnMemoryLost) => "in doubt: own memory lost",
            },
        };
        self.with(|seen| seen.verdicts.insert(name));
    }
}

/// Returns what a wrong thing is, in words.
pub fn words(wrong: Wrong) -> &'static str {
    match wrong {
        Wrong::Two => "two engines run the guest",
        Wrong::TimeTravel => "an engine went on with memory older than what has run since",
        Wrong::Lost => "the last newest copy of the guest was destroyed",
        Wrong::HalfLost => "the source's half of a post-copy was destroyed while it was needed",
        Wrong::EpochReused => "an epoch was used twice",
        Wrong::ForeignPolicy => "a policy was applied to a guest that is not ours",
        Wrong::RanUnowned => "a guest was started by a host that does not own it",
        Wrong::Panicked => "an assertion of the machines failed",
        Wrong::NobodyRuns => "healed, and nobody runs the guest",
        Wrong::Unsettled => "healed, and something is still undecided",
        Wrong::LeftOver => "healed, and something is left over",
        Wrong::RunStateChanged => "healed, and the guest is not what it was",
    }
}

/// Returns what was seen as the tables of the documentation.
pub fn table(seen: &Seen) -> String {
    let mut text = String::from(
        "# Transitions\n\n\
         Every transition of the ownership machines that the model check has taken. In brackets:\n\
         what a restarted daemon found on disk, and of the engine. Written by `./x model`; a test\n\
         compares.\n\n| from | on | to |\n| --- | --- | --- |\n",
    );
    for (from, on, to) in &seen.moves {
        text.push_str(&format!("| {from} | {on} | {to} |\n"));
    }
    text.push_str("\n# Verdicts of the door\n\n");
    for verdict in &seen.verdicts {
        text.push_str(&format!("- {verdict}\n"));
    }
    text
}
