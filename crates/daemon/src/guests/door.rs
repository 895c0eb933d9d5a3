// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The door that every start passes: what can be known is gathered, the `handoff` crate decides,
//! and what was taken is written down before the first instruction.

use crate::disks::{self, Found};
use crate::guests::GuestError;
use crate::guests::{GuestTask, Statement};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use whimbrel_api::Problem;
use whimbrel_handoff::disk::{OwnerRecord, rivals};
use whimbrel_handoff::door::{
    self, ClaimFound, Disk, Evidence, Image, OwnerFound, Peer, Refusal, Then, Unknown, Verdict,
    Word, is_void,
};
use whimbrel_handoff::effect::{Claims, Event};
use whimbrel_handoff::ownership::{Answer, Ownership as Machine, State};
use whimbrel_handoff::source::Source;
use whimbrel_handoff::target::Target;
use whimbrel_link::wire::WhoOwns;
use whimbrel_model::id::{Epoch, HostId};

/// How long a peer may take to say whether it owns a guest that is about to start here. One that
/// is down must not hold up every start; where it could be the owner, the decision says so.
const WHO_OWNS_MAX: Duration = Duration::from_secs(2);
/// How far back the moves of a guest are read, to know where it has been.
const REPORTS_MAX: usize = 100;

impl GuestTask {
    /// Makes sure that this host may run the guest, and that this is written down.
    pub(super) async fn pass_the_door(&mut self) -> Result<(), Problem> {
        let found = self.look_at_disks().await?;
        let peers = self.ask_peers().await;
        let verdict = {
            let own = self.ownership.machine();
            door::start(&Evidence { own, disk: found.disk.clone(), peers })
        };
        self.obey(verdict, &found.owner_names).await
    }

    /// An operator has stated what no message can tell any more.
    pub(super) async fn order_recover(&mut self, statement: Statement) -> Result<(), Problem> {
        let said = self.say(statement);
        // What comes of the word is a start from the disks. A guest that is well here would lose
        // its memory by it, and win nothing.
        let is_well = self.ownership.machine().may_run() && !self.ownership.is_in_doubt();
        if self.engine.is_some() && is_well {
            let guest = self.name().to_string();
            return Err(GuestError::NotInDoubt { guest, state: self.state() }.into());
        }
        self.story_warn(format!("an operator states that {said}"));
        if self.may_resume_safely().await {
            let resumed = self.pass_the_door_by_word(statement, Then::Resume).await;
            if resumed.is_ok() {
                self.story(format!("the guest goes on here, on the word that {said}"));
                return Ok(());
            }
            if self.engine.is_some() && self.ownership.machine().may_run() {
                return resumed;
            }
        }
        self.pass_the_door_by_word(statement, Then::Boot).await?;
        self.end_engine().await;
        self.boot().await?;
        self.story(format!("the guest was started here, on the word that {said}"));
        Ok(())
    }

    fn say(&self, statement: Statement) -> String {
        let off = statement.off.map(|host| format!("`{}` is off", self.daemon.peers.name_of(host)));
        let damage = statement.despite_damage.then(|| "damaged records say nothing newer".into());
        off.into_iter().chain(damage).collect::<Vec<_>>().join(" and that ")
    }

    /// Whether this host has a whole copy in memory, and claims beside the disks would tell if
    /// another had gone on with the guest: then the word can be taken without losing the memory.
    async fn may_resume_safely(&self) -> bool {
        let has_copy = matches!(
            self.ownership.machine().state,
            State::Source(Source::Ceded { .. }) | State::Target(Target::Prepared { .. })
        );
        has_copy && matches!(self.look_at_disks().await, Ok(Found { disk: Disk::Images(_), .. }))
    }

    /// The same, after an operator's word.
    async fn pass_the_door_by_word(
        &mut self,
        statement: Statement,
        then: Then,
    ) -> Result<(), Problem> {
        let Statement { off, despite_damage } = statement;
        let found = self.look_at_disks().await?;
        let peers = self.ask_peers().await;
        let verdict = {
            let own = self.ownership.machine();
            let word = Word { off: off.as_slice(), despite_damage, then };
            door::recover(&Evidence { own, disk: found.disk.clone(), peers }, word)
        };
        if despite_damage && matches!(verdict, Verdict::Acquire { .. }) {
            // Nobody could claim beside it.
            disks::remove_damaged(self.papers()?.writable_disks().cloned().collect()).await?;
        }
        self.obey(verdict, &found.owner_names).await
    }

    async fn obey(
        &mut self,
        verdict: Verdict,
        names: &BTreeMap<HostId, String>,
    ) -> Result<(), Problem> {
        match verdict {
            Verdict::Start { .. } => {
                let effects = self.ownership.decide(Machine::affirm);
                self.perform(effects).await;
            }
            Verdict::Acquire { after, epoch } => {
                self.tell_machine(Event::Acquire { after, epoch }).await;
            }
            Verdict::Resume => self.tell_machine(Event::Resume).await,
            Verdict::Refused(refusal) => return Err(self.refused(refusal, names)),
            Verdict::InDoubt(unknown) => return Err(self.in_doubt(&unknown)),
        }
        if !matches!(self.ownership.machine().state, State::Owned { .. }) {
            let why = "another host took it at the same moment".to_owned();
            return Err(self.doubt(why));
        }
        self.ownership.must_own(&self.name())?;
        self.keep_papers_beside_disks().await;
        Ok(())
    }

    async fn look_at_disks(&self) -> Result<Found, Problem> {
        let disks: Vec<_> = self.papers()?.writable_disks().cloned().collect();
        disks::look(disks).await
    }

    async fn ask_peers(&self) -> Vec<Peer> {
        let keepers = &self.keepers().await;
        let asked = self.daemon.peers.all().into_iter().map(|host| async move {
            let answer = self.ask_peer(host).await;
            Peer { host, answer, is_keeper: keepers.contains(&host) }
        });
        futures::future::join_all(asked).await
    }

    /// The hosts that may have kept the guest's definition: it was there once, or is.
    async fn keepers(&self) -> BTreeSet<HostId> {
        let mut keepers = BTreeSet::new();
        if let State::Elsewhere { owner, .. } = &self.ownership.machine().state {
            keepers.insert(*owner);
        }
        let id = self.id;
        let kept = self.daemon.store.call(move |tables| tables.reports(Some(id), REPORTS_MAX));
        match kept.await {
            Ok(rows) => {
                let reports = rows.iter().filter_map(|row| {
                    serde_json::from_str::<whimbrel_api::migration::Report>(&row.report).ok()
                });
                let names = reports.flat_map(|report| [report.source, report.target]);
                keepers.extend(names.filter_map(|name| Some(self.daemon.peers.find(&name)?.host)));
            }
            // Then whoever can be reached is asked all the same.
            Err(error) => self.story_problem(&Problem::of(&error)),
        }
        keepers
    }

    /// Reads beside the disks who owns the guest, while the peer of its handoff is silent.
    pub(crate) async fn look_for_owner(&mut self) {
        if self.ownership.machine().handoff().is_none() {
            return;
        }
        let Ok(Found { disk: Disk::Images(images), .. }) = self.look_at_disks().await else {
            return;
        };
        for image in images {
            if let OwnerFound::Record(record) = image.owner {
                self.tell_machine(Event::OwnerSeen(record)).await;
            }
        }
    }

    /// Asks one host who owns the guest; nothing where it cannot be reached.
    async fn ask_peer(&self, host: HostId) -> Option<Answer> {
        let asking = async {
            let connection = self.daemon.peers.connect(host).await.ok()?;
            connection.who_owns(WhoOwns { guest: self.id, handoff: None }).await.ok()
        };
        tokio::time::timeout(WHO_OWNS_MAX, asking).await.ok().flatten()
    }

    fn refused(&self, refusal: Refusal, names: &BTreeMap<HostId, String>) -> Problem {
        let guest = self.name().to_string();
        let known = |host: &HostId| {
            let paired = self.daemon.peers.find_name(*host).map(|name| name.to_string());
            paired.or_else(|| names.get(host).cloned()).unwrap_or_else(|| format!("host {host}"))
        };
        match refusal {
            Refusal::OwnedBy { owner, epoch, .. } => {
                GuestError::OwnedElsewhere { guest, owner: known(&owner), epoch: epoch.0 }.into()
            }
            Refusal::ImageOfOther { guest: other } => GuestError::DiskOfOther {
                guest,
                other: other.to_string(),
                hosts: names.values().cloned().collect::<Vec<_>>().join("`, `"),
            }
            .into(),
            Refusal::HandoffOpen { at } => {
                self.doubt(format!("a handoff is open at {}", known(&at)))
            }
            Refusal::PeerAnswers { host } => {
                GuestError::PeerAnswers { guest, host: known(&host) }.into()
            }
            Refusal::InUse => GuestError::ImageInUse { guest }.into(),
            Refusal::NoCopy | Refusal::HalfCopy => {
                self.doubt("there is no whole copy in this host's memory".to_owned())
            }
        }
    }

    fn in_doubt(&self, unknown: &[Unknown]) -> Problem {
        let why = unknown.iter().map(|unknown| match unknown {
            Unknown::Silent { host } => {
                format!("`{}` may have it and does not answer", self.daemon.peers.name_of(*host))
            }
            Unknown::DiskUnreadable => "the records beside its disks cannot be read".to_owned(),
            Unknown::DiskDamaged => "a record beside its disks is damaged".to_owned(),
            Unknown::OwnRecordDamaged => "the ownership file of this host is damaged".to_owned(),
            Unknown::OwnMemoryLost => {
                "it was handed to this host, which has no record of that".to_owned()
            }
        });
        self.doubt(why.collect::<Vec<_>>().join("; "))
    }

    fn doubt(&self, why: String) -> Problem {
        GuestError::InDoubt { guest: self.name().to_string(), why }.into()
    }

    /// Takes the claim of an epoch, and tells of its holder where that is known to own the guest.
    pub(crate) async fn take_claim(&self, claims: Claims) -> Vec<Event> {
        let taken = self.try_claim(claims).await;
        let Event::ClaimLost { holder, .. } = taken else { return vec![taken] };
        match self.ask_peer(holder).await {
            Some(Answer::Owner { owner, epoch, .. }) if owner == holder => {
                vec![taken, Event::Heard { owner, epoch }]
            }
            _ => vec![taken],
        }
    }

    /// Takes the claim on every writable disk that has a place for one, and looks who else may
    /// have.
    async fn try_claim(&self, claims: Claims) -> Event {
        let epoch = claims.epoch;
        let Ok(papers) = self.papers() else { return Event::ClaimUnavailable { epoch } };
        let disks: Vec<_> = papers.writable_disks().cloned().collect();
        match disks::claim(disks.clone(), self.claimant(epoch)).await {
            Event::ClaimWon { .. } => {}
            lost => return lost,
        }
        let Ok(found) = disks::look(disks).await else { return Event::ClaimUnavailable { epoch } };
        let rivals = match &found.disk {
            Disk::Images(images) => {
                let me = self.daemon.host_id();
                images.iter().flat_map(|image| rivals_of(image, &claims, me)).collect()
            }
            Disk::Unreadable => return Event::ClaimUnavailable { epoch },
            Disk::Local | Disk::NoPlace => Vec::new(),
        };
        for (holder, theirs) in rivals {
            if !is_void(holder, theirs, self.ask_peer(holder).await) {
                return Event::ClaimLost { epoch, holder };
            }
        }
        if matches!(found.disk, Disk::Images(_)) {
            return Event::ClaimWon { epoch };
        }
        match self.rival_without_place(epoch).await {
            Some(holder) => Event::ClaimLost { epoch, holder },
            None => Event::ClaimWon { epoch },
        }
    }

    /// Where nothing can be claimed, whoever can be reached and wants the guest, too, has it.
    async fn rival_without_place(&self, epoch: Epoch) -> Option<HostId> {
        if !self.ownership.machine().is_taking() {
            return None;
        }
        let peers = self.ask_peers().await;
        let rival = peers.into_iter().find(|peer| match peer.answer {
            Some(Answer::Owner { owner, epoch: theirs, .. }) => {
                owner == peer.host && theirs >= epoch
            }
            Some(Answer::Acquiring { epoch: theirs }) => theirs >= epoch,
            Some(Answer::Moving { .. } | Answer::NoRecord | Answer::Damaged) | None => false,
        });
        rival.map(|peer| peer.host)
    }

    /// Writes the owner record beside every writable disk, unless a newer one is there.
    pub(crate) async fn write_owner(&self, record: OwnerRecord) {
        let Ok(papers) = self.papers() else { return };
        let owner = disks::Owned {
            record,
            guest_name: papers.guest.name.to_string(),
            host_name: if record.owner == self.daemon.host_id() {
                self.daemon.name.to_string()
            } else {
                self.daemon.peers.name_of(record.owner).to_string()
            },
        };
        let disks: Vec<_> = papers.writable_disks().cloned().collect();
        if let Err(problem) = disks::record(disks, owner).await {
            // Never the last word (that is the claim), so the start need not fail for it.
            self.story_warn(format!("the owner record could not be written: {}", problem.text));
        }
    }

    /// Keeps definition and passport beside the disks, for the day this host is gone.
    pub(crate) async fn keep_papers_beside_disks(&self) {
        fault_point!("disk/papers");
        let (Ok(papers), State::Owned { epoch }) = (self.papers(), &self.ownership.machine().state)
        else {
            return;
        };
        let row = papers.to_row();
        let kept = whimbrel_host::claims::GuestPapers {
            guest: self.id,
            epoch: *epoch,
            definition: row.definition,
            passport: row.passport,
        };
        let disks: Vec<_> = papers.writable_disks().cloned().collect();
        if let Err(problem) = disks::keep_papers(disks, kept).await {
            self.story_warn(format!(
                "its papers could not be kept beside its disks: {}",
                problem.text
            ));
        }
    }

    /// Gives up the guest for good: if it is ours, its word beside the disks goes, then its file
    /// here. What another host has written there is not ours to remove.
    pub(super) async fn release_ownership(&mut self) -> Result<(), Problem> {
        let is_ours = matches!(self.ownership.machine().state, State::Owned { .. });
        if let (Ok(papers), true) = (self.papers(), is_ours) {
            let disks: Vec<_> = papers.writable_disks().cloned().collect();
            disks::release(disks, self.id).await?;
        }
        self.ownership.close();
        let directory = self.daemon.layout().guest(self.id);
        directory.remove().map_err(|error| Problem::of(&error))
    }

    fn claimant(&self, epoch: Epoch) -> whimbrel_host::claims::Claimant {
        whimbrel_host::claims::Claimant {
            guest: self.id,
            host: self.daemon.host_id(),
            host_name: self.daemon.name.to_string(),
            epoch,
            handoff: self.ownership.machine().handoff().map(|handoff| handoff.id),
        }
    }
}

/// Who else may have taken the guest, by what lies beside one image.
fn rivals_of(image: &Image, ours: &Claims, me: HostId) -> Vec<(HostId, Epoch)> {
    let owner = match image.owner {
        OwnerFound::Record(record) => Some(record),
        OwnerFound::None | OwnerFound::Damaged => None,
    };
    let claims: Vec<_> = image
        .claims
        .iter()
        .filter_map(|claim| match claim {
            ClaimFound::Claim(claim) => Some(*claim),
            ClaimFound::Damaged { .. } => None,
        })
        .collect();
    rivals(ours, me, owner, &claims)
}
