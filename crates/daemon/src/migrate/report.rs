// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How a migration gets on, told while it runs, and what it cost, told after.

use crate::daemon::Daemon;
use crate::guests::GuestTask;
use crate::migrate::watch::Figures;
use crate::migrate::{Journey, Role, ms};
use crate::story::unix_ms;
use std::time::{Duration, Instant, SystemTime};
use whimbrel_api::Problem;
use whimbrel_api::event::Event as ApiEvent;
use whimbrel_api::limits::SAMPLES_MAX;
use whimbrel_api::migration::{
    Migration, MigrationResult, Mode, Outcome, PageCounts, PauseParts, Phase, PhaseTime, Progress,
    Report, Sample,
};
use whimbrel_api::plan::{Finding, Forecast, Range};
use whimbrel_bargain::Step;
use whimbrel_engine::Migration as EngineMigration;
use whimbrel_host::network::TapName;
use whimbrel_host::store::ReportRow;
use whimbrel_link::carrier::Status;
use whimbrel_link::wire::ReportQuery;
use whimbrel_model::id::{HandoffId, HostId, HostName};
use whimbrel_model::plan::{Plan, Severity, Span};

/// How long a migration may take to end once its target asks for the report.
const REPORT_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a guest that says nothing is listened to, and how often.
const FIRST_PACKET_MAX: Duration = Duration::from_secs(1);
const FIRST_PACKET_LOOK_EVERY: Duration = Duration::from_millis(1);

/// How an attempt gets on.
#[derive(Debug)]
pub(crate) struct Progressing {
    began_at: SystemTime,
    began: Instant,
    phase: Phase,
    phase_began: Instant,
    phases: Vec<PhaseTime>,
    findings: Vec<Finding>,
    checks_passed: u32,
    forecast: Option<Forecast>,
    progress: Option<Progress>,
    pages: Option<PageCounts>,
    /// What the source's engine took for the state of its devices, where that can be seen.
    devices: Option<Duration>,
    samples: Samples,
    /// Why the bargain cannot be kept.
    miss: Option<String>,
    /// It was said that post-copy takes longer than the whole migration was to take.
    pub(super) is_late: bool,
    /// The most the guest was slowed down.
    throttle_percent_max: u8,
    /// When the guest stopped, when everything had arrived, when it was ceded, when it was over.
    stopped: Option<Instant>,
    arrived: Option<Instant>,
    ceded: Option<Instant>,
    released: Option<Instant>,
    /// How long starting took, on the target.
    start: Option<Duration>,
    outcome: Option<Outcome>,
}

impl Progressing {
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self {
            began_at: SystemTime::now(),
            began: now,
            phase: Phase::Plan,
            phase_began: now,
            phases: Vec::new(),
            findings: Vec::new(),
            checks_passed: 0,
            forecast: None,
            progress: None,
            pages: None,
            devices: None,
            samples: Samples::default(),
            miss: None,
            is_late: false,
            throttle_percent_max: 0,
            stopped: None,
            arrived: None,
            ceded: None,
            released: None,
            start: None,
            outcome: None,
        }
    }

    /// When the person asked.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Enters a phase; phases only go forward.
    fn enter(&mut self, phase: Phase) -> bool {
        if phase <= self.phase {
            return false;
        }
        let now = Instant::now();
        let duration_ms = ms(now - self.phase_began);
        self.phases.push(PhaseTime { phase: self.phase, duration_ms });
        (self.phase, self.phase_began) = (phase, now);
        true
    }

    /// The engine says that it is switching over, and when the guest stopped.
    fn note_switching(&mut self, stopped: Option<SystemTime>) {
        let ago = stopped.and_then(|at| at.elapsed().ok());
        let at = ago.and_then(|ago| Instant::now().checked_sub(ago));
        if at.is_some() && self.stopped.is_none() {
            self.stopped = at;
        }
        self.enter(Phase::Switch);
    }

    /// How long the guest has stood still so far.
    pub(super) fn stood(&self) -> Duration {
        self.stopped.map_or(Duration::ZERO, |at| at.elapsed())
    }

    pub(crate) fn note_plan(&mut self, plan: &Plan) {
        let findings = plan.findings.iter();
        let is_ok = |severity| severity == Severity::Ok;
        self.checks_passed =
            u32::try_from(findings.clone().filter(|finding| is_ok(finding.severity)).count())
                .unwrap_or(u32::MAX);
        self.findings = findings
            .filter(|finding| !is_ok(finding.severity))
            .map(crate::migrate::plan::finding)
            .collect();
        self.forecast = plan.forecast.as_ref().map(crate::migrate::plan::forecast);
    }

    /// Takes in new figures. What was said to be done stays done.
    fn note_figures(&mut self, figures: &Figures) {
        let (EngineMigration::Active(seen)
        | EngineMigration::Switching(seen)
        | EngineMigration::PostCopy(seen)
        | EngineMigration::Interrupted(seen)
        | EngineMigration::Completed(seen)) = &figures.migration
        else {
            return;
        };
        if let Some(channel) = figures.carried.channels.first() {
            self.devices = channel.devices;
            self.pages = channel.pages.map(|pages| PageCounts {
                new_count: pages.new_pages,
                held_count: pages.same_pages,
                changed_count: pages.delta_pages,
                disk_count: pages.block_pages,
                uniform_count: pages.fill_pages,
                visited_count: channel.held_pages.into(),
                resumed_count: channel.resumed.into(),
                repeated_bytes: pages.repeat_bytes,
            });
        }
        self.samples.push(Sample {
            at_ms: ms(self.began.elapsed()),
            remaining_bytes: seen.remaining.0,
            rate_bytes_per_second: seen.rate.0,
            dirty_bytes_per_second: seen.dirty_rate.0,
            wire_bytes: wire_bytes(&figures.carried),
            throttle_percent: seen.throttle_percent,
        });
        let before = self.progress.take().unwrap_or_default();
        let done = seen.total.0.saturating_sub(seen.remaining.0);
        let permille = done.saturating_mul(1000).checked_div(seen.total.0).unwrap_or(0);
        let permille = u32::try_from(permille.min(1000)).unwrap_or(1000);
        self.throttle_percent_max = self.throttle_percent_max.max(seen.throttle_percent);
        let advice = figures.advice.as_ref();
        let range = |span: Span<Duration>| Range { min: ms(span.low), max: ms(span.high) };
        self.progress = Some(Progress {
            round: seen.round,
            done_permille: permille.max(before.done_permille),
            total_bytes: seen.total.0,
            remaining_bytes: seen.remaining.0,
            transferred_bytes: seen.transferred.0.max(before.transferred_bytes),
            wire_bytes: wire_bytes(&figures.carried).max(before.wire_bytes),
            rate_bytes_per_second: seen.rate.0,
            dirty_bytes_per_second: seen.dirty_rate.0,
            throttle_percent: seen.throttle_percent,
            pause_now_ms: advice.map(|advice| ms(advice.pause_now)).or(before.pause_now_ms),
            is_holding: advice.map_or(before.is_holding, |advice| advice.step == Step::Hold),
            remaining_ms: advice.and_then(|advice| advice.eta).map(range),
            reason: advice.map(|advice| advice.reason.clone()).or(before.reason),
        });
    }

    /// Where the pause went, as this host saw it.
    fn pause(&self) -> (Option<u64>, PauseParts) {
        let span = |from: Option<Instant>, to: Option<Instant>| Some(ms(to? - from?));
        // Where the carrier looks into the stream; it is over before the last byte is there.
        let device_state_ms = self.devices.map(ms);
        let parts = PauseParts {
            last_pages_ms: span(self.stopped, self.arrived)
                .map(|ms| ms.saturating_sub(device_state_ms.unwrap_or(0))),
            device_state_ms,
            commit_ms: span(self.arrived, self.ceded),
            start_ms: self.start.map(ms).or(span(self.ceded, self.released)),
            first_packet_ms: None,
        };
        (span(self.stopped, self.released), parts)
    }
}

/// The moments of a migration, thinned out as it goes on: however long that is, they are spread
/// evenly over all of it.
#[derive(Debug, Default)]
struct Samples {
    kept: Vec<Sample>,
    /// The least time between two of them.
    apart_ms: u64,
}

impl Samples {
    fn push(&mut self, sample: Sample) {
        let last = self.kept.last().map(|last| last.at_ms + self.apart_ms);
        if last.is_some_and(|due_ms| sample.at_ms < due_ms) {
            return;
        }
        if self.kept.len() >= SAMPLES_MAX {
            let first_ms = self.kept.first().map_or(0, |first| first.at_ms);
            let length_ms = sample.at_ms.saturating_sub(first_ms);
            self.apart_ms = length_ms / (SAMPLES_MAX as u64 / 2);
            let mut due_ms = 0;
            self.kept.retain(|kept| {
                let is_due = kept.at_ms >= due_ms;
                if is_due {
                    due_ms = kept.at_ms + self.apart_ms;
                }
                is_due
            });
        }
        self.kept.push(sample);
    }
}

fn wire_bytes(status: &Status) -> u64 {
    let channels = status.channels.iter().chain(&status.urgent);
    channels.map(|channel| channel.outgoing.wire_bytes + channel.incoming.wire_bytes).sum()
}

impl Journey {
    /// Returns the migration as it stands.
    pub(crate) fn migration(&self, task: &GuestTask) -> Migration {
        let here = task.daemon.name.to_string();
        let there = self.peer_name.to_string();
        let (source, target) = if self.is_source() { (here, there) } else { (there, here) };
        let progressing = &self.progressing;
        Migration {
            id: self.handoff.to_string(),
            guest: task.name().to_string(),
            guest_uuid: task.id.to_string(),
            source,
            target,
            mode: self.mode,
            phase: progressing.phase,
            started_at_ms: unix_ms(progressing.began_at),
            elapsed_ms: ms(progressing.began.elapsed()),
            phases: progressing.phases.clone(),
            findings: progressing.findings.clone(),
            checks_passed: progressing.checks_passed,
            forecast: progressing.forecast.clone(),
            bargain: self.promise(),
            miss: progressing.miss.clone(),
            progress: progressing.progress.clone(),
            outcome: progressing.outcome.clone(),
        }
    }

    fn report(
        &self,
        task: &GuestTask,
        result: MigrationResult,
        problem: Option<Problem>,
    ) -> Report {
        let migration = self.migration(task);
        let progress = migration.progress.clone().unwrap_or_default();
        let (pause_ms, pause) = self.progressing.pause();
        let papers = task.papers.as_ref();
        let is_moved = result == MigrationResult::Done;
        Report {
            migration: migration.id,
            guest: migration.guest,
            guest_uuid: migration.guest_uuid,
            source: migration.source,
            target: migration.target,
            mode: self.mode,
            result,
            problem,
            caller_uid: self.caller.map_or(0, |caller| caller.uid),
            started_at_ms: migration.started_at_ms,
            total_ms: migration.elapsed_ms,
            pause_ms: pause_ms.filter(|_| is_moved),
            pause,
            memory_bytes: papers.map_or(0, |papers| papers.guest.memory.size.0),
            transferred_bytes: progress.transferred_bytes,
            wire_bytes: progress.wire_bytes,
            round_count: progress.round,
            carrier: self
                .offer
                .as_ref()
                .filter(|_| self.mode != Mode::Definition)
                .map(|offer| offer.carrier.name().to_owned()),
            pages: self.progressing.pages.clone(),
            channel_count: self.offer.as_ref().map_or(0, |offer| offer.channels),
            phases: migration.phases,
            forecast: migration.forecast,
            bargain: migration.bargain,
            is_kept: migration.bargain.filter(|_| is_moved).map(|bargain| {
                let in_time = bargain.is_held || migration.elapsed_ms <= bargain.deadline_ms;
                let throttled = self.progressing.throttle_percent_max;
                in_time
                    && pause_ms.is_none_or(|pause| pause <= bargain.pause_ms_max)
                    // An engine that may be asked to slow down does so by 1 %.
                    && throttled <= bargain.slowdown_percent_max.max(1)
            }),
            miss: migration.miss,
            throttle_percent_max: self.progressing.throttle_percent_max,
            rehearsed_pause_ms: progress
                .pause_now_ms
                .filter(|_| result == MigrationResult::Rehearsed),
            reason: progress.reason,
            samples: self.progressing.samples.kept.clone(),
        }
    }
}

impl GuestTask {
    /// Enters a phase of the journey and tells everybody.
    pub(crate) fn mark(&mut self, phase: Phase) {
        let Some(journey) = &mut self.journey else { return };
        if journey.progressing.enter(phase) {
            self.send_migration();
        }
    }

    pub(super) fn on_progress(&mut self, figures: Figures) {
        let Some(journey) = &mut self.journey else { return };
        if matches!(journey.role, Role::Planning(_)) {
            return;
        }
        journey.progressing.note_figures(&figures);
        if let EngineMigration::Switching(seen) = &figures.migration {
            journey.progressing.note_switching(seen.pause.stopped);
        }
        let is_holding = journey.progressing.progress.as_ref().is_some_and(|p| p.is_holding);
        let miss = figures.advice.and_then(|advice| advice.miss);
        if let Some(miss) = miss.filter(|_| journey.progressing.miss.is_none()) {
            journey.progressing.miss = Some(miss.text.clone());
            self.story_warn(format!("the bargain cannot be kept: {}", miss.text));
        }
        self.note_deadline();
        self.send_migration();
        if is_holding {
            self.note_held();
        }
    }

    pub(super) fn note_stopped(&mut self) {
        if let Some(journey) = &mut self.journey {
            journey.progressing.stopped.get_or_insert_with(Instant::now);
            journey.progressing.enter(Phase::Switch);
        }
    }

    /// The target says that it has everything.
    pub(super) fn mark_arrived(&mut self) {
        if let Some(journey) = &mut self.journey {
            journey.progressing.arrived.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn note_completed(
        &mut self,
        seen: &whimbrel_engine::Progress,
        carried: Option<Status>,
    ) {
        let Some(journey) = &mut self.journey else { return };
        let figures = Figures {
            migration: EngineMigration::Completed(*seen),
            carried: carried.unwrap_or_default(),
            advice: None,
        };
        journey.progressing.note_figures(&figures);
    }

    /// A record is on the disk. Past the commit point this is the moment of it.
    pub(super) fn note_durable(&mut self) {
        let has_ceded = self.ownership.has_ceded();
        if let Some(journey) = &mut self.journey
            && has_ceded
        {
            journey.progressing.ceded.get_or_insert_with(Instant::now);
        }
    }

    /// The guest was started here, after it had arrived.
    pub(super) fn note_started(&mut self, took: Duration) {
        if let Some(journey) = &mut self.journey {
            journey.progressing.start = Some(took);
        }
        self.mark(Phase::Handoff);
    }

    /// The guest runs on the target, in post-copy: its pause is over, the migration is not.
    pub(super) fn note_runs_there(&mut self) {
        if let Some(journey) = &mut self.journey {
            journey.progressing.released.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn mark_released(&mut self) {
        if let Some(journey) = &mut self.journey {
            journey.progressing.released.get_or_insert_with(Instant::now);
        }
        self.mark(Phase::Release);
    }

    pub(crate) fn send_migration(&self) {
        if let Some(journey) = &self.journey {
            let migration = journey.migration(self);
            self.daemon.story.send(ApiEvent::Migration(Box::new(migration)));
        }
    }

    /// Ends the journey: its report is kept and its last event sent.
    pub(super) async fn end_journey(&mut self, result: MigrationResult, problem: Option<Problem>) {
        let Some(mut journey) = self.journey.take() else { return };
        journey.progressing.enter(Phase::Ended);
        let report = journey.report(self, result, problem.clone());
        let row = ReportRow {
            handoff: journey.handoff,
            guest: self.id,
            guest_name: report.guest.clone(),
            at: SystemTime::now(),
            report: serde_json::to_string(&report).expect("a report is JSON"),
        };
        journey.progressing.outcome = Some(Outcome { result, problem, report });
        let last = journey.migration(self);
        // The source has heard all there is. The target may be asked once more what became of it.
        if !journey.is_source() {
            self.visitors.extend(journey.wire.take());
        }
        drop(journey);
        if let Err(error) = self.daemon.store.call(move |tables| tables.put_report(&row)).await {
            self.story_problem(&Problem::of(&error));
        }
        self.daemon.story.send(ApiEvent::Migration(Box::new(last)));
        self.publish();
    }

    /// The source has measured everything: its report is the one that people read here, too.
    pub(super) fn fetch_report(&mut self, source: HostId, handoff: HandoffId) {
        let first_packet = self.first_packet.take();
        let (daemon, guest, guest_name) = (self.daemon.clone(), self.id, self.name().to_string());
        tokio::spawn(async move {
            let first_packet_ms = match first_packet {
                Some(measuring) => measuring.await.ok().flatten().map(ms),
                None => None,
            };
            match report_of(&daemon, source, ReportQuery { handoff, first_packet_ms }).await {
                Ok(report) => {
                    let report = serde_json::to_string(&report).expect("a report is JSON");
                    let row =
                        ReportRow { handoff, guest, guest_name, at: SystemTime::now(), report };
                    let put = daemon.store.call(move |tables| tables.put_report(&row)).await;
                    if let Err(error) = put {
                        tracing::warn!(%error, "a report could not be stored");
                    }
                }
                // What was measured here stays.
                Err(problem) => tracing::warn!(%problem, "the source's report could not be had"),
            }
        });
    }
}

/// Asks a host for its report of a migration.
pub(super) async fn report_of(
    daemon: &Daemon,
    host: HostId,
    query: ReportQuery,
) -> Result<Report, Problem> {
    let connection = daemon.peers.connect(host).await?;
    let json = connection.report(query).await.map_err(|error| error.problem())?;
    let report = serde_json::from_slice::<Report>(&json);
    report.map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> Problem {
    Problem::new(
        whimbrel_api::Kind::Failed,
        "peer/no-report",
        format!("the report of the other host cannot be read: {error}"),
        "install the same release on both hosts",
    )
}

/// Returns the report of a migration between this host and `peer`, waiting for it if the migration
/// is about to end.
pub(crate) async fn report_for(
    daemon: &Daemon,
    peer: &HostName,
    query: ReportQuery,
) -> Option<Vec<u8>> {
    let handoff = query.handoff;
    // Before the look, so that an end in between is not missed.
    let mut events = daemon.story.subscribe();
    let stored = daemon.store.call(move |tables| tables.report(handoff)).await.ok()?;
    let json = match stored {
        Some(row) => row.report,
        None => {
            let ended = tokio::time::timeout(REPORT_WAIT_MAX, async {
                loop {
                    match events.recv().await.ok()? {
                        ApiEvent::Migration(migration) if migration.id == handoff.to_string() => {
                            if let Some(outcome) = migration.outcome {
                                return serde_json::to_string(&outcome.report).ok();
                            }
                        }
                        _ => {}
                    }
                }
            });
            ended.await.ok()??
        }
    };
    let mut report: Report = serde_json::from_str(&json).ok()?;
    if ![&report.source, &report.target].contains(&&peer.to_string()) {
        return None;
    }
    if query.first_packet_ms.is_some() && report.target == peer.as_str() {
        report.pause.first_packet_ms = query.first_packet_ms;
        put_again(daemon, handoff, &report).await;
    }
    serde_json::to_vec(&report).ok()
}

/// Stores a report once more, with what only the other host could measure.
async fn put_again(daemon: &Daemon, handoff: HandoffId, report: &Report) {
    let json = serde_json::to_string(report).expect("a report is JSON");
    let put = daemon.store.call(move |tables| match tables.report(handoff)? {
        Some(row) => tables.put_report(&ReportRow { report: json, ..row }),
        None => Ok(()),
    });
    if let Err(error) = put.await {
        tracing::warn!(%error, "a report could not be stored");
    }
}

/// Waits for the first packet that comes out of one of the taps of a guest that has just started.
/// It may be the one with which its engine tells the switches where it is now.
pub(super) async fn first_packet(daemon: &Daemon, taps: Vec<TapName>) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < FIRST_PACKET_MAX {
        for tap in &taps {
            if daemon.network.packets_from(*tap).await.ok()? > 0 {
                return Some(began.elapsed());
            }
        }
        tokio::time::sleep(FIRST_PACKET_LOOK_EVERY).await;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A migration of hours keeps a bounded number of moments, from all of it.
    #[test]
    fn samples_are_bounded_and_spread() {
        let mut samples = Samples::default();
        for at_ms in (0..7_200_000).step_by(190) {
            samples.push(Sample { at_ms, ..Sample::default() });
            assert!(samples.kept.len() <= SAMPLES_MAX);
        }
        let kept = &samples.kept;
        assert!(kept.len() > SAMPLES_MAX / 3, "{}", kept.len());
        assert_eq!(kept[0].at_ms, 0);
        let apart = kept.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms);
        assert!(apart.max().unwrap() < 7_200_000 / 40);
    }
}
