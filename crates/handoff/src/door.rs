// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Every start asks: may this host run this guest?
//!
//! `create`, `start`, autostart, restart after a crash and `recover` come here with what can be
//! known: the host's own ownership, what lies beside the images, and what every peer that can be
//! reached has answered. The verdict is to start, to claim an epoch and start, to refuse and name
//! the owner, or that it cannot be known and why.
//!
//! What is believed:
//!
//! - The **newest** epoch wins, whoever reports it. Own record, disk and peers are equals in this.
//! - A **claim** on the disk counts as ownership by its holder, unless that holder itself answers
//!   that it does not own the guest: then it crashed between claim and record, and whatever it
//!   takes next passes this door again and finds ours.
//! - A damaged record is never read as an older one.
//! - A host that was **off** may have been declared off, and its guests be started elsewhere this
//!   very moment, by a word that was true. So after a reboot an owner does not go on with the
//!   epoch it had: it claims the next one, as whoever recovers the guest does, and one of them
//!   wins. Where storage is shared and has no place for claims, it starts only once every host
//!   that keeps the definition has answered. In the boot in which its right was last established
//!   nobody can truly have said that the host is off.
//!
//! An operator's word (or a fence command's) says of hosts by name that they are off: no engine
//! of theirs lives. It is refused while one of them answers (unless it answers that it
//! does not have the guest), while an image is in use, and if it
//! does not cover every host that could have the guest. What comes of it is a claim and a boot
//! from disk, which is right wherever the guest ran last. To go on with a *copy in memory* is
//! another statement, `Resume`: that the copy here is the newest there is. With claims on a shared
//! disk a false one is harmless while the handoff is undecided, for the claim is taken first. Where
//! there is no place for claims, whoever goes on by such a word says so first and then asks around
//! once more: a target that was truly off may be back this very moment.
//!
//! Of records that are damaged an operator may say that they were not newer than what can still be
//! read. Claims and peers are asked all the same, and so is every host that keeps the definition.

use crate::disk::{By, Claim, OwnerRecord};
use crate::ownership::{Answer, Ownership, State};
use crate::source::Source;
use crate::target::Target;
use whimbrel_model::id::{Epoch, GuestId, HostId};

/// What can be known before a start.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    pub own: &'a Ownership,
    pub disk: Disk,
    pub peers: Vec<Peer>,
}

/// What the guest's writable images are, and what lies beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Storage of this host alone, or none at all.
    Local,
    /// Storage other hosts can write, with no place for claims: a block device, a URL.
    NoPlace,
    /// It has a place, and that cannot be read.
    Unreadable,
    Images(Vec<Image>),
}

impl Disk {
    /// Whether something beside an image is there and cannot be read.
    pub fn is_damaged(&self) -> bool {
        let Disk::Images(images) = self else { return false };
        images.iter().any(|image| {
            let is_damaged = |claim: &ClaimFound| matches!(claim, ClaimFound::Damaged { .. });
            image.owner == OwnerFound::Damaged || image.claims.iter().any(is_damaged)
        })
    }
}

/// What was found beside one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub owner: OwnerFound,
    /// Every claim, of any epoch; a damaged one counts as held by nobody we know.
    pub claims: Vec<ClaimFound>,
    /// Whether some engine has the image open for writing now, by its lock.
    pub is_in_use: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnerFound {
    #[default]
    None,
    Damaged,
    Record(OwnerRecord),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimFound {
    /// The epoch is in its name.
    Damaged {
        epoch: Epoch,
    },
    Claim(Claim),
}

/// What a paired host answered to `WhoOwns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub host: HostId,
    /// None: it could not be reached.
    pub answer: Option<Answer>,
    /// Whether it keeps this guest's definition, and so could have started it.
    pub is_keeper: bool,
}

/// What an operator (or a fence command) states, because no message can tell it any more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Word<'a> {
    /// No engine of these hosts lives.
    pub off: &'a [HostId],
    /// No record that cannot be read, here or beside the disks, says anything newer than what can.
    pub despite_damage: bool,
    pub then: Then,
}

/// What to do after an operator's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Then {
    /// Start the guest from its disks; whatever was in memory is lost.
    #[default]
    Boot,
    /// Go on with the copy in this host's memory, which the operator says is the newest.
    Resume,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ours with this epoch: [`Ownership::affirm`], then start.
    Start {
        epoch: Epoch,
    },
    /// Nobody's: [`crate::effect::Event::Acquire`], then start.
    Acquire {
        after: Epoch,
        epoch: Epoch,
    },
    /// [`crate::effect::Event::Resume`].
    Resume,
    Refused(Refusal),
    InDoubt(Vec<Unknown>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    OwnedBy {
        owner: HostId,
        epoch: Epoch,
        known_by: KnownBy,
    },
    /// The image belongs to another guest.
    ImageOfOther {
        guest: GuestId,
    },
    /// A handoff is under way here, or at this peer: it decides.
    HandoffOpen {
        at: HostId,
    },
    /// The operator says it is off, and it answers.
    PeerAnswers {
        host: HostId,
    },
    /// Some engine has an image open for writing.
    InUse,
    /// There is no copy in memory to go on with.
    NoCopy,
    /// The copy here is half of a post-copy.
    HalfCopy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    OwnRecord,
    OwnerRecord,
    Claim,
    Peer(HostId),
}

/// Something that would have to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// This host may have the guest and does not answer.
    Silent {
        host: HostId,
    },
    DiskUnreadable,
    /// The owner record or the newest claim cannot be read.
    DiskDamaged,
    /// Our own record cannot be read.
    OwnRecordDamaged,
    /// The guest was ceded to us, and we do not remember.
    OwnMemoryLost,
}

/// A host that has the guest, by somebody's account.
#[derive(Clone, Copy)]
struct Candidate {
    owner: HostId,
    epoch: Epoch,
    known_by: KnownBy,
}

/// Decides whether the guest may start here, nobody having said anything.
pub fn start(evidence: &Evidence<'_>) -> Verdict {
    decide(evidence, Word::default())
}

/// Decides on an operator's word.
pub fn recover(evidence: &Evidence<'_>, word: Word<'_>) -> Verdict {
    // A host that answers and does not have the guest by its own account has forgotten it: that
    // is what the word is about.
    let answers = |peer: &Peer| match peer.answer {
        None | Some(Answer::NoRecord) => false,
        Some(Answer::Owner { owner, .. }) => owner == peer.host,
        Some(Answer::Moving { .. } | Answer::Acquiring { .. } | Answer::Damaged) => true,
    };
    let is_up = |host| evidence.peers.iter().any(|peer| peer.host == host && answers(peer));
    if let Some(&host) = word.off.iter().find(|&&host| is_up(host)) {
        return Verdict::Refused(Refusal::PeerAnswers { host });
    }
    if evidence.images().any(|image| image.is_in_use) {
        return Verdict::Refused(Refusal::InUse);
    }
    let verdict = decide(evidence, word);
    match (word.then, &verdict) {
        (Then::Resume, Verdict::Acquire { .. }) => evidence.resume(),
        (Then::Boot | Then::Resume, _) => verdict,
    }
}

fn decide(evidence: &Evidence<'_>, word: Word<'_>) -> Verdict {
    if let Some(refusal) = evidence.obstacle(word.off) {
        return Verdict::Refused(refusal);
    }
    let me = evidence.own.ledger.identity.host;
    let ours = match evidence.own.state {
        State::Owned { epoch } => Some(epoch),
        _ => None,
    };
    let newest = evidence.candidates().max_by_key(|c| (c.epoch, c.owner != me, c.owner));
    if let Some(Candidate { owner, epoch, known_by }) = newest
        && owner != me
        && ours.is_none_or(|ours| epoch >= ours)
        && !word.off.contains(&owner)
    {
        return Verdict::Refused(Refusal::OwnedBy { owner, epoch, known_by });
    }
    let unknown = evidence.unknown(ours, newest, word);
    if !unknown.is_empty() {
        return Verdict::InDoubt(unknown);
    }
    let is_newest = |ours| newest.is_none_or(|c| c.owner == me && c.epoch == ours);
    let ledger = &evidence.own.ledger;
    // What takes the place of the damaged records is a claim of its own.
    let is_mending = word.despite_damage && evidence.disk.is_damaged();
    match ours {
        Some(epoch)
            if ledger.boot == ledger.now
                && !is_mending
                && is_newest(epoch)
                && evidence.newest_claim() <= Some(epoch) =>
        {
            Verdict::Start { epoch }
        }
        Some(_) | None => {
            Verdict::Acquire { after: evidence.disk_top(), epoch: evidence.top().next() }
        }
    }
}

impl Evidence<'_> {
    fn images(&self) -> impl Iterator<Item = &Image> {
        match &self.disk {
            Disk::Images(images) => images.as_slice(),
            Disk::Local | Disk::NoPlace | Disk::Unreadable => &[],
        }
        .iter()
    }

    fn claims(&self) -> impl Iterator<Item = ClaimFound> {
        self.images().flat_map(|image| image.claims.iter().copied())
    }

    fn newest_claim(&self) -> Option<Epoch> {
        self.claims().map(ClaimFound::epoch).max()
    }

    /// What forbids a start, whoever owns the guest.
    fn obstacle(&self, off: &[HostId]) -> Option<Refusal> {
        let ledger = &self.own.ledger;
        let me = ledger.identity.host;
        let is_open = match &self.own.state {
            State::Unknown | State::Damaged | State::Owned { .. } => false,
            State::Elsewhere { .. } | State::Disputed { .. } => false,
            // A word about the peer can end these.
            State::Source(Source::Ceded { .. })
            | State::Target(Target::Receiving { .. } | Target::Prepared { .. }) => off.is_empty(),
            State::Acquiring { .. } | State::Source(_) | State::Target(_) => true,
        };
        if is_open {
            return Some(Refusal::HandoffOpen { at: me });
        }
        let others = self.images().filter_map(|image| match image.owner {
            OwnerFound::Record(record) => Some(record.guest),
            OwnerFound::None | OwnerFound::Damaged => None,
        });
        let mut others = others.chain(self.claims().filter_map(|claim| match claim {
            ClaimFound::Claim(claim) => Some(claim.guest),
            ClaimFound::Damaged { .. } => None,
        }));
        if let Some(guest) = others.find(|&guest| guest != ledger.identity.guest) {
            return Some(Refusal::ImageOfOther { guest });
        }
        // A source that has ceded keeps the whole guest in memory: it decides. Any other peer in
        // the middle of a handoff may own the guest the next moment; but where there are claims,
        // it or we will win them.
        let has_claims = matches!(self.disk, Disk::Images(_));
        let known = self.candidates().map(|c| c.epoch).max().unwrap_or_default();
        // A source that has not yet heard that what it ceded is ours, for good.
        let has_arrived = |to, epoch| {
            to == me && matches!(self.own.state, State::Owned { epoch: held } if held == epoch)
        };
        self.peers.iter().find_map(|peer| match peer.answer {
            Some(Answer::Moving { to, epoch, .. }) if has_arrived(to, epoch) => None,
            Some(Answer::Moving { from, epoch, .. }) if from == peer.host && epoch >= known => {
                Some(Refusal::HandoffOpen { at: peer.host })
            }
            Some(Answer::Moving { epoch, .. }) if epoch >= known && !has_claims => {
                Some(Refusal::HandoffOpen { at: peer.host })
            }
            Some(_) | None => None,
        })
    }

    /// Everybody who has the guest by some account, older and newer.
    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        let me = self.own.ledger.identity.host;
        let own = match &self.own.state {
            State::Source(source) if source.has_ceded() => {
                Some((source.handoff().peer, source.handoff().epoch))
            }
            state => crate::history::owner(state, me),
        };
        let own = own.into_iter().map(|(owner, epoch)| Candidate {
            owner,
            epoch,
            known_by: KnownBy::OwnRecord,
        });
        let owners = self.images().filter_map(move |image| match image.owner {
            // Ceded to a host that did not win it, or says that it did not take it.
            OwnerFound::Record(OwnerRecord { owner, epoch, by: By::Source { .. }, .. })
                if self.claims().any(|claim| claim.is_anothers(owner, epoch))
                    || (owner != me && is_void(owner, epoch, self.answer(owner))) =>
            {
                None
            }
            OwnerFound::Record(OwnerRecord { owner, epoch, .. }) => {
                Some(Candidate { owner, epoch, known_by: KnownBy::OwnerRecord })
            }
            OwnerFound::None | OwnerFound::Damaged => None,
        });
        let claims = self.claims().filter_map(|claim| match claim {
            ClaimFound::Claim(claim) if !self.is_void(&claim) => {
                let Claim { host: owner, epoch, .. } = claim;
                Some(Candidate { owner, epoch, known_by: KnownBy::Claim })
            }
            ClaimFound::Claim(_) | ClaimFound::Damaged { .. } => None,
        });
        let peers = self.peers.iter().filter_map(|peer| match peer.answer {
            Some(Answer::Owner { owner, epoch, .. }) => {
                Some(Candidate { owner, epoch, known_by: KnownBy::Peer(peer.host) })
            }
            Some(Answer::Acquiring { epoch }) => {
                Some(Candidate { owner: peer.host, epoch, known_by: KnownBy::Peer(peer.host) })
            }
            Some(Answer::Moving { .. } | Answer::NoRecord | Answer::Damaged) | None => None,
        });
        own.chain(owners).chain(claims).chain(peers)
    }

    /// Returns whether the holder of a claim says itself that nothing came of it.
    fn is_void(&self, claim: &Claim) -> bool {
        let holder = claim.host;
        if holder == self.own.ledger.identity.host {
            // We are settled, so whatever we own is in our record.
            return true;
        }
        is_void(holder, claim.epoch, self.answer(holder))
    }

    fn answer(&self, host: HostId) -> Option<Answer> {
        self.peers.iter().find(|peer| peer.host == host)?.answer
    }

    /// What would have to be known before anything can be said.
    fn unknown(
        &self,
        ours: Option<Epoch>,
        newest: Option<Candidate>,
        word: Word<'_>,
    ) -> Vec<Unknown> {
        let Word { off, despite_damage, .. } = word;
        let ledger = &self.own.ledger;
        let me = ledger.identity.host;
        let mut unknown = Vec::new();
        if self.disk == Disk::Unreadable {
            unknown.push(Unknown::DiskUnreadable);
        }
        let newest_epoch = newest.map(|c| c.epoch).unwrap_or_default();
        let is_bad_claim = |claim| match claim {
            ClaimFound::Damaged { epoch } => epoch > newest_epoch,
            ClaimFound::Claim(_) => false,
        };
        // A damaged owner record does not matter to who holds the newest claim and knows it.
        let is_ours_by_claim = self.claims().any(|claim| match claim {
            ClaimFound::Claim(claim) => claim.host == me && Some(claim.epoch) == ours,
            ClaimFound::Damaged { .. } => false,
        });
        let is_bad_owner = self.images().any(|image| image.owner == OwnerFound::Damaged);
        let is_damaged = self.claims().any(is_bad_claim) || (is_bad_owner && !is_ours_by_claim);
        if is_damaged && !despite_damage {
            unknown.push(Unknown::DiskDamaged);
        }
        // What is ours on the disk alone was ours, and is.
        let is_ours_by_disk = self.images().any(|image| match image.owner {
            OwnerFound::Record(record) => {
                record.owner == me && record.by == By::Owner && record.epoch == newest_epoch
            }
            OwnerFound::None | OwnerFound::Damaged => false,
        });
        let was_ceded_to_us = self.images().any(|image| match image.owner {
            OwnerFound::Record(record) => {
                record.owner == me && record.by != By::Owner && record.epoch == newest_epoch
            }
            OwnerFound::None | OwnerFound::Damaged => false,
        });
        if was_ceded_to_us && ours != Some(newest_epoch) && off.is_empty() {
            unknown.push(Unknown::OwnMemoryLost);
        }
        let is_own_damaged = self.own.state == State::Damaged && !is_ours_by_disk;
        if is_own_damaged && off.is_empty() && !despite_damage {
            unknown.push(Unknown::OwnRecordDamaged);
        }
        let is_said_by_peer =
            newest.is_some_and(|c| c.owner == me && matches!(c.known_by, KnownBy::Peer(_)));
        let is_forgotten = is_said_by_peer && ours != Some(newest_epoch) && !is_ours_by_disk;
        if is_forgotten && off.is_empty() {
            unknown.push(Unknown::OwnMemoryLost);
        }
        // Where claims can be taken they decide between us and whoever is silent.
        let must_ask = match self.disk {
            Disk::Local | Disk::Images(_) | Disk::Unreadable => self.own.state == State::Damaged,
            Disk::NoPlace => ours.is_none() || ledger.boot != ledger.now,
        };
        if must_ask {
            let silent = self.peers.iter().filter(|peer| {
                peer.is_keeper && peer.answer.is_none() && !off.contains(&peer.host)
            });
            unknown.extend(silent.map(|peer| Unknown::Silent { host: peer.host }));
        }
        unknown
    }

    /// The newest epoch anything beside an image speaks of: who claims after us claims after it.
    fn disk_top(&self) -> Epoch {
        let owners = self.images().filter_map(|image| match image.owner {
            OwnerFound::Record(record) => Some(record.epoch),
            OwnerFound::None | OwnerFound::Damaged => None,
        });
        owners.chain(self.newest_claim()).max().unwrap_or_default()
    }

    /// The newest epoch anybody has used for anything.
    fn top(&self) -> Epoch {
        let peers = self.peers.iter().filter_map(|peer| match peer.answer {
            Some(Answer::Owner { epoch, consumed, .. }) => Some(epoch.max(consumed)),
            Some(Answer::Moving { epoch, .. } | Answer::Acquiring { epoch }) => Some(epoch),
            Some(Answer::NoRecord | Answer::Damaged) | None => None,
        });
        let candidates = self.candidates().map(|c| c.epoch);
        let all = peers.chain(candidates).chain(self.newest_claim());
        all.fold(self.own.ledger.consumed, Epoch::max)
    }

    /// Going on with the copy in memory instead of a boot.
    fn resume(&self) -> Verdict {
        match &self.own.state {
            State::Source(Source::Ceded { handoff, .. })
                if handoff.kind == crate::message::Kind::PostCopy =>
            {
                Verdict::Refused(Refusal::HalfCopy)
            }
            State::Source(Source::Ceded { .. }) | State::Target(Target::Prepared { .. }) => {
                Verdict::Resume
            }
            _ => Verdict::Refused(Refusal::NoCopy),
        }
    }
}

/// Returns whether nothing came of the claim that `holder` has to `epoch`, as it answers itself.
pub fn is_void(holder: HostId, epoch: Epoch, answer: Option<Answer>) -> bool {
    match answer {
        Some(Answer::NoRecord) => true,
        Some(Answer::Owner { owner, epoch: owned, .. }) => owner != holder || owned < epoch,
        Some(Answer::Moving { to, epoch: moving, .. }) => to != holder || moving != epoch,
        Some(Answer::Acquiring { .. } | Answer::Damaged) | None => false,
    }
}

impl ClaimFound {
    fn is_anothers(self, host: HostId, epoch: Epoch) -> bool {
        matches!(self, ClaimFound::Claim(claim) if claim.epoch == epoch && claim.host != host)
    }

    fn epoch(self) -> Epoch {
        match self {
            ClaimFound::Damaged { epoch } => epoch,
            ClaimFound::Claim(claim) => claim.epoch,
        }
    }
}
