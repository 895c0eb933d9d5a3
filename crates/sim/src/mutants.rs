// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Deliberate faults, to test the tests.
//!
//! The machines carry no switches for this. A mutant changes what goes into or comes out of them,
//! or how the driver performs an effect, exactly as an error in that place would; so the product
//! code is the code that is checked. Each mutant must be found by the model check, by the
//! simulation, or by both; `docs/mutants.md` says by which.

use crate::world::Input;
use whimbrel_handoff::disk::By;
use whimbrel_handoff::door::{Disk, Evidence, Refusal, Verdict};
use whimbrel_handoff::effect::{Claims, Effect, Event};
use whimbrel_handoff::message::{Body, Reason};
use whimbrel_handoff::ownership::{Answer, EngineView, Found, Ownership, State, Step};
use whimbrel_handoff::record::{Decline, Record, Standing};
use whimbrel_handoff::source::Source;
use whimbrel_handoff::target::Target;
use whimbrel_model::id::Epoch;
use whimbrel_model::run_state::RunState;

macro_rules! mutants {
    ($($name:ident: $text:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Mutant { $($name),* }

        impl Mutant {
            pub const ALL: &'static [Mutant] = &[$(Mutant::$name),*];

            pub fn name(self) -> &'static str {
                match self { $(Mutant::$name => stringify!($name)),* }
            }

            /// What the fault is, in words.
            pub fn text(self) -> &'static str {
                match self { $(Mutant::$name => $text),* }
            }
        }
    };
}

mutants! {
    LostFinishResumesSource:
        "the target is silent after `Cede`, so the source goes on (libvirt's lost Finish)",
    GoBeforeDurable: "`Cede` is sent before `Ceded` is durable",
    ReleasedOnSend: "the source's copy is destroyed when `Cede` was sent",
    LockFreedEarly: "the source's copy is destroyed when the target is ready",
    StaleReadyCedes: "`Ready` cedes without asking the engine again",
    TargetNotHeld: "the target engine runs as soon as it has everything (started without -S)",
    RefusedTargetKeepsEngine: "a target that refuses forgets to end its engine",
    RefusalNotDurable: "`Refused` is sent and not written down",
    RefusedRunsAnyway: "a target that loses the claim starts the guest",
    EpochReused: "an offer that came to nothing gives its epoch back",
    SyncSkipped: "records are written and not synced",
    ClaimNotTaken: "claims are believed to be won without being taken",
    ClaimWithoutLook: "a claim is won without looking for newer ones",
    WhoOwnsUnanswered: "a source that has given up does not answer its target",
    OwnedNotDurable: "the target starts the guest before it is durably its own",
    StartedNotDurable: "`Started` is sent before it is written down",
    StartedEarly: "`Started` is sent when `Cede` arrives",
    AbortIgnored: "a target does not act on `Abort`",
    CedeNotRepeated: "`Cede` is sent once",
    StartedNotRepeated: "a target that has moved on does not answer an old `Cede`",
    RestartForgetsEngine: "a restarted source does not mend its engine",
    MendForgotten: "a source that breaks off does not note that its engine needs mending",
    RecoveredOfferCedes: "a restarted source takes up its offer again and believes what it is told",
    ComesBackWithOldEpoch: "a source that is refused goes on with the epoch it had",
    ReturnedKeepsEngine: "a target that returns the guest keeps its engine",
    ReturnedAfterRun: "a target whose engine died while starting returns the guest",
    ReturnedAfterCrash: "a restarted target whose engine is gone returns the guest",
    NoRecordIsRefusal: "`NoRecord` is taken for a refusal",
    AlwaysResumed: "a rollback resumes a guest that was paused",
    RunStateForgotten: "a guest that was paused is started at the target",
    EndedGuestCeded: "a guest that has powered off is ceded",
    WordUnseen: "a source that takes the guest back on a word neither says so nor looks again",
    BurnSkipped: "an operator's word resumes the source without claiming what it ceded",
    LosesClaimGoesOn: "a host that loses its claim goes on",
    AcquireKeepsCopy: "a recovery boots beside the old copy",
    DoorIgnoresDisk: "a start does not look at the disk",
    DoorIgnoresPeers: "a start does not ask the peers",
    DoorIgnoresReboot: "a start after a reboot does not wait for silent peers",
    BootAlwaysAffirmed: "a restart of the daemon counts as having asked",
    FormerOwnerStarts: "a host that has handed the guest over starts it",
    WordNeedsNoSilence: "an operator's word is accepted while the host answers",
    PostCopyReleasedEarly: "a post-copy's source is destroyed on `Started`",
    DisputeIgnored: "an owner that hears of a newer one goes on",
}

/// How an effect is performed.
pub(crate) enum Performed {
    AsMeant,
    Not,
    Unsynced,
}

pub(crate) fn performed(mutant: Option<Mutant>, effect: &Effect) -> Performed {
    match (mutant, effect) {
        (Some(Mutant::SyncSkipped), Effect::Persist(_)) => Performed::Unsynced,
        (Some(Mutant::OwnedNotDurable), Effect::Persist(record))
            if matches!(record.standing, Standing::Taken { .. }) =>
        {
            Performed::Not
        }
        _ => Performed::AsMeant,
    }
}

/// Whether a host that takes the guest back looks at nobody.
pub(crate) fn is_unseen(mutant: Option<Mutant>, own: &Ownership) -> bool {
    mutant == Some(Mutant::WordUnseen) && matches!(own.state, State::Source(_))
}

pub(crate) fn claims_are_fiction(mutant: Option<Mutant>) -> bool {
    mutant == Some(Mutant::ClaimNotTaken)
}

pub(crate) fn looks_around(mutant: Option<Mutant>) -> bool {
    mutant != Some(Mutant::ClaimWithoutLook)
}

/// Whether an incoming engine is held until it is told to run.
pub(crate) fn target_is_held(mutant: Option<Mutant>) -> bool {
    mutant != Some(Mutant::TargetNotHeld)
}

/// What a driver says that has asked the engine and was told no.
pub(crate) fn unconfirmed(mutant: Option<Mutant>) -> Event {
    match mutant {
        Some(Mutant::StaleReadyCedes | Mutant::RecoveredOfferCedes) => {
            Event::Confirmed { run: Some(RunState::Running) }
        }
        _ => Event::Unconfirmed,
    }
}

/// What the machines are told; none: they are told nothing.
pub(crate) fn input(mutant: Option<Mutant>, before: &Ownership, input: Input) -> Option<Input> {
    let Some(mutant) = mutant else { return Some(input) };
    let body = match input {
        Input::Message { message, .. } => Some(message.body),
        Input::Event(_) => None,
    };
    let is_ceded = matches!(before.state, State::Source(Source::Ceded { .. }));
    let replaced = |body| match input {
        Input::Message { from, message } => {
            Input::Message { from, message: whimbrel_handoff::message::Message { body, ..message } }
        }
        Input::Event(_) => input,
    };
    match (mutant, body, input) {
        (Mutant::AbortIgnored, Some(Body::Abort), _) => None,
        (Mutant::NoRecordIsRefusal, Some(Body::NoRecord), _) => {
            Some(replaced(Body::Refused { reason: Reason::Failed }))
        }
        (Mutant::RunStateForgotten, Some(Body::Cede { run: Some(_) }), _) => {
            Some(replaced(Body::Cede { run: Some(RunState::Running) }))
        }
        (Mutant::LockFreedEarly, Some(Body::Ready), _) if is_ceded => Some(replaced(Body::Started)),
        (
            Mutant::EndedGuestCeded,
            _,
            Input::Event(Event::Confirmed { run: Some(RunState::ShutDown) }),
        ) => Some(Input::Event(Event::Confirmed { run: Some(RunState::Running) })),
        (Mutant::EndedGuestCeded, _, Input::Event(Event::GuestEnded { .. })) => None,
        (Mutant::ReturnedAfterRun, _, Input::Event(Event::StartLost)) => {
            Some(Input::Event(Event::StartRefused))
        }
        (Mutant::LosesClaimGoesOn, _, Input::Event(Event::ClaimLost { epoch, .. })) => {
            Some(Input::Event(Event::ClaimWon { epoch }))
        }
        (Mutant::RefusedRunsAnyway, _, Input::Event(Event::ClaimLost { epoch, .. }))
            if matches!(before.state, State::Target(_)) =>
        {
            Some(Input::Event(Event::ClaimWon { epoch }))
        }
        (Mutant::DisputeIgnored, _, Input::Event(Event::Heard { .. }))
            if matches!(before.state, State::Owned { .. }) =>
        {
            None
        }
        (Mutant::DisputeIgnored, Some(Body::Owner { .. } | Body::Started), _)
            if matches!(before.state, State::Owned { .. }) =>
        {
            None
        }
        (Mutant::CedeNotRepeated, Some(Body::Ready | Body::WhoOwns), _) if is_ceded => None,
        (Mutant::CedeNotRepeated, _, Input::Event(Event::Nudge)) if is_ceded => None,
        _ => Some(input),
    }
}

/// What comes out of the machines.
pub(crate) fn step(
    mutant: Option<Mutant>,
    before: &Ownership,
    input: &Input,
    (mut own, mut effects): Step,
) -> Step {
    // A table: one arm a mutant.
    let Some(mutant) = mutant else { return (own, effects) };
    let is_ceding = !is_ceded(before) && is_ceded(&own);
    match mutant {
        Mutant::LostFinishResumesSource => {
            if let (
                State::Source(Source::Ceded { epoch, run, .. }),
                Input::Event(Event::PeerGone),
            ) = (&before.state, input)
            {
                return keep(before, *epoch, *run);
            }
        }
        Mutant::GoBeforeDurable if is_ceding => {
            effects.rotate_right(1);
        }
        Mutant::ReleasedOnSend if is_ceding => effects.push(Effect::DestroyCopy),
        Mutant::RefusedTargetKeepsEngine if declined(&own) == Some(Decline::Refused) => {
            drop_copies(&mut effects);
        }
        Mutant::ReturnedKeepsEngine if declined(&own) == Some(Decline::Returned) => {
            drop_copies(&mut effects);
        }
        Mutant::RefusalNotDurable if declined(&own) == Some(Decline::Refused) => {
            effects.retain(|effect| !matches!(effect, Effect::Persist(_)));
            own.state = before.state.clone();
            if matches!(own.state, State::Target(_)) {
                own.state = State::Unknown;
            }
        }
        Mutant::WhoOwnsUnanswered => {
            let asks = matches!(input, Input::Message { message, .. }
                if matches!(message.body, Body::Ready | Body::WhoOwns | Body::Accepted));
            let is_kept = matches!(own.state, State::Owned { .. });
            if is_kept && (asks || own != *before) {
                effects.retain(|effect| !matches!(effect, Effect::Send { .. }));
            }
        }
        _ => return later_step(mutant, before, input, (own, effects)),
    }
    (own, effects)
}

/// The same, for what comes after the commit point.
fn later_step(
    mutant: Mutant,
    before: &Ownership,
    input: &Input,
    (mut own, mut effects): Step,
) -> Step {
    match mutant {
        Mutant::StartedNotDurable => swap_persist_and_send(&mut effects, Body::Started),
        Mutant::StartedEarly => {
            if let State::Target(Target::Claiming { handoff, .. }) = own.state
                && own != *before
            {
                let message = whimbrel_handoff::message::Message {
                    guest: own.ledger.identity.guest,
                    handoff: handoff.id,
                    epoch: handoff.epoch,
                    body: Body::Started,
                };
                effects.insert(0, Effect::Send { to: handoff.peer, message });
            }
        }
        Mutant::StartedNotRepeated => {
            let is_old_cede = matches!(input, Input::Message { message, .. }
                if matches!(message.body, Body::Cede { .. }));
            if is_old_cede && !matches!(before.state, State::Target(_)) {
                effects.clear();
            }
        }
        Mutant::MendForgotten => forget_mending(&mut effects),
        Mutant::ComesBackWithOldEpoch => {
            if let State::Source(Source::Returning { epoch, .. }) = before.state
                && matches!(own.state, State::Owned { .. })
            {
                age(&mut own, &mut effects, epoch);
            }
        }
        Mutant::AlwaysResumed => {
            for effect in &mut effects {
                if let Effect::Mend { run } = effect {
                    *run = RunState::Running;
                }
            }
        }
        Mutant::BurnSkipped => {
            if let State::Source(Source::Burning { epoch, handoff, run }) = own.state {
                let take = own.ledger.consumed.next();
                own.state = State::Source(Source::Returning { epoch, handoff, run, take });
                let declined = Some((handoff.peer, handoff.epoch));
                let claims = Claims { after: epoch, epoch: take, declined };
                effects = vec![Effect::TakeClaim(claims)];
            }
        }
        Mutant::AcquireKeepsCopy if matches!(before.state, State::Acquiring { .. }) => {
            drop_copies(&mut effects);
        }
        Mutant::PostCopyReleasedEarly => {
            if let State::Source(Source::Draining { handoff }) = own.state {
                return own_elsewhere(own, handoff.peer, handoff.epoch);
            }
        }
        _ => {}
    }
    (own, effects)
}

/// What a restarted daemon makes of its record.
pub(crate) fn recovery(
    mutant: Option<Mutant>,
    found: Found,
    engine: EngineView,
    (mut own, mut effects): Step,
) -> Step {
    let Found::Record(record) = found else { return (own, effects) };
    match mutant {
        Some(Mutant::RestartForgetsEngine) => {
            effects.retain(|effect| !matches!(effect, Effect::Mend { .. }));
        }
        Some(Mutant::MendForgotten) => forget_mending(&mut effects),
        Some(Mutant::RecoveredOfferCedes) => {
            if let Standing::Offering { epoch, handoff, run } = record.standing {
                let is_accepted = true;
                own.state = State::Source(Source::Offering { epoch, handoff, run, is_accepted });
                own.ledger.consumed = record.consumed;
                effects.clear();
            }
        }
        Some(Mutant::ReturnedAfterCrash) => {
            if let Standing::Taken { owned, handoff, run } = record.standing
                && engine == EngineView::Gone
            {
                own.state = State::Target(Target::Taken { owned, handoff, run });
                return own.on_event(Event::StartRefused);
            }
        }
        Some(Mutant::BootAlwaysAffirmed) => own.ledger.boot = own.ledger.now,
        Some(Mutant::RefusedTargetKeepsEngine | Mutant::ReturnedKeepsEngine) => {
            drop_copies(&mut effects);
        }
        _ => {}
    }
    (own, effects)
}

/// What an owner does that begins to offer.
pub(crate) fn offered(mutant: Option<Mutant>, (mut own, mut effects): Step) -> Step {
    if mutant != Some(Mutant::EpochReused) {
        return (own, effects);
    }
    let State::Source(Source::Offering { epoch, mut handoff, run, is_accepted }) = own.state else {
        return (own, effects);
    };
    handoff.epoch = epoch.next();
    own.ledger.consumed = handoff.epoch;
    own.state = State::Source(Source::Offering { epoch, handoff, run, is_accepted });
    for effect in &mut effects {
        match effect {
            Effect::Persist(record) => {
                record.consumed = handoff.epoch;
                record.standing = Standing::Offering { epoch, handoff, run };
            }
            Effect::Send { message, .. } => message.epoch = handoff.epoch,
            _ => {}
        }
    }
    (own, effects)
}

/// What the door gets to see.
pub(crate) fn evidence<'a>(mutant: Option<Mutant>, mut evidence: Evidence<'a>) -> Evidence<'a> {
    match mutant {
        Some(Mutant::DoorIgnoresDisk) => evidence.disk = Disk::Local,
        Some(Mutant::DoorIgnoresPeers) => evidence.peers.clear(),
        Some(Mutant::DoorIgnoresReboot) => {
            for peer in &mut evidence.peers {
                peer.is_keeper = false;
            }
        }
        Some(Mutant::WordUnseen) => {
            let me = evidence.own.ledger.identity.host;
            for peer in &mut evidence.peers {
                if let Some(Answer::Acquiring { epoch }) = peer.answer {
                    peer.answer = Some(Answer::Moving { from: peer.host, to: me, epoch });
                }
            }
        }
        Some(Mutant::WordNeedsNoSilence) => {
            for peer in &mut evidence.peers {
                peer.answer = None;
            }
        }
        _ => {}
    }
    evidence
}

/// What the driver makes of the verdict.
pub(crate) fn verdict(mutant: Option<Mutant>, own: &Ownership, verdict: Verdict) -> Verdict {
    let is_former = matches!(own.state, State::Elsewhere { .. });
    let is_refused = matches!(verdict, Verdict::Refused(Refusal::OwnedBy { .. }));
    if mutant == Some(Mutant::FormerOwnerStarts) && is_former && is_refused {
        let after = own.ledger.consumed;
        return Verdict::Acquire { after, epoch: after.next() };
    }
    verdict
}

fn is_ceded(own: &Ownership) -> bool {
    matches!(own.state, State::Source(Source::Ceded { .. }))
}

fn declined(own: &Ownership) -> Option<Decline> {
    match own.state {
        State::Elsewhere { declined: Some(declined), .. } => Some(declined.how),
        _ => None,
    }
}

fn drop_copies(effects: &mut Vec<Effect>) {
    effects.retain(|effect| !matches!(effect, Effect::DestroyCopy));
}

fn forget_mending(effects: &mut [Effect]) {
    for effect in effects {
        if let Effect::Persist(Record { standing: Standing::Owned { mending, .. }, .. }) = effect {
            *mending = None;
        }
    }
}

fn swap_persist_and_send(effects: &mut [Effect], wanted: Body) {
    let is_send = |e: &Effect| matches!(e, Effect::Send { message, .. } if message.body == wanted);
    let persist = effects.iter().position(|effect| matches!(effect, Effect::Persist(_)));
    let send = effects.iter().position(is_send);
    if let (Some(persist), Some(send)) = (persist, send) {
        effects.swap(persist, send);
    }
}

fn keep(before: &Ownership, epoch: Epoch, run: Option<RunState>) -> Step {
    let record = Record {
        identity: before.ledger.identity,
        boot: before.ledger.boot,
        consumed: before.ledger.consumed,
        standing: Standing::Owned { epoch, mending: run },
    };
    let mut effects = vec![Effect::Persist(record)];
    effects.extend(run.map(|run| Effect::Mend { run }));
    (Ownership { state: State::Owned { epoch }, ..before.clone() }, effects)
}

fn age(own: &mut Ownership, effects: &mut Vec<Effect>, old: Epoch) {
    own.state = State::Owned { epoch: old };
    for effect in effects.iter_mut() {
        if let Effect::Persist(Record { standing: Standing::Owned { epoch, .. }, .. }) = effect {
            *epoch = old;
        }
    }
    effects.retain(|effect| !matches!(effect, Effect::WriteOwner(owner) if owner.by == By::Owner));
}

fn own_elsewhere(mut own: Ownership, owner: whimbrel_model::id::HostId, epoch: Epoch) -> Step {
    own.state = State::Elsewhere { owner, epoch, declined: None };
    let record = Record {
        identity: own.ledger.identity,
        boot: own.ledger.boot,
        consumed: own.ledger.consumed,
        standing: Standing::Elsewhere { owner, epoch, declined: None },
    };
    (own, vec![Effect::Persist(record), Effect::DestroyCopy])
}
