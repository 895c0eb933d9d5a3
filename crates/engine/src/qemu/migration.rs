// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How a guest moves out of one QEMU and into another.
//!
//! What QEMU does at the source, in the words it uses:
//!
//! ```text
//! setup -> active -> (vCPUs stop) -> pre-switchover -> device -> completed
//!             |                           |              |
//!             +------- cancelling --------+--------------+-> cancelled | failed
//! ```
//!
//! - `pause-before-switchover` gives a step in which nothing has been given away yet. We answer it
//!   at once, from the task that listens to events: time spent there is downtime. Only an instance
//!   that began to send does so: a later daemon that finds its guest there cancels instead.
//! - `return-path` makes `completed` mean that the target has everything. Without it QEMU says so
//!   while data is still on its way.
//! - `late-block-activate` leaves the target's disks alone until `resume`. Together with `-S` it is
//!   why both engines can be complete while neither, or only the source, runs.
//! - Post-copy leaves `active` by the same step, and goes on by itself when that is answered:
//!
//!   ```text
//!   pre-switchover -> postcopy-active -> completed
//!                       |        ^
//!                       v        |
//!       postcopy-paused -> postcopy-recover     over new sockets, both ends asked for it
//!   ```
//!
//!   The target's engine says `postcopy-active` before its devices are there; its guest leaves
//!   `inmigrate` only when all of them are, and stands still then, because of `-S`. Its disks are
//!   active from there on, whatever `late-block-activate` says.
//! - With `postcopy-preempt` the pages that the guest waits for have a channel of their own. The
//!   source's QEMU connects it to the same place as the first when post-copy begins, and again
//!   with `resume`. Which is which is told by the order alone.
//! - While post-copy is cut off, the main thread of the target's QEMU may stand still on a page
//!   that is missing, and then answers nothing. Its events come nevertheless, so they say that it
//!   is cut off, and `migrate-recover` is one of the commands that it runs in another thread.
//! - While a stalled link holds `device`, QEMU's monitor answers nothing. The cure is to close the
//!   sockets at the other end of the channels.

use super::instance::{QemuInstance, refused};
use super::probe::{Version, capabilities};
use super::qmp::Event;
use super::record::remove_if_there;
use crate::contract::Instance;
use crate::contract::{ChannelEnd, Migration, MigrationOptions, PauseSteps, Progress, Tuning};
use crate::error::EngineError;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use whimbrel_model::units::Bytes;

pub(super) const SOCKET: &str = "migrate.sock";

/// The first version that moves on a guest which arrived paused and never ran; older ones abort
/// (`bdrv_inactivate_recurse: Assertion`). Known good is 10.0, what lies between was not tried.
const VERSION_MOVES_COLD: Version = Version { major: 10, minor: 0, micro: 0 };

/// The first version whose target, at the end, waits for all pages in the urgent channel; with
/// older ones a guest can lose one (fixed by QEMU's commit cf02f29e1e38).
pub(super) const VERSION_URGENT_CHANNEL: Version = Version { major: 8, minor: 2, micro: 0 };

/// Most data channels of one migration.
const CHANNELS_MAX: u32 = 16;
/// QEMU's own limit of `downtime-limit`.
const PAUSE_MS_MAX: u128 = 2_000_000;
/// What QEMU says of a second `migrate-recover`.
const ALREADY_LISTENS: &str = "triggered already";
/// Post-copy was cut off, and it is not known yet whether it will go on.
const CUT_STATES: [&str; 3] = ["postcopy-paused", "postcopy-recover", "postcopy-recover-setup"];
/// QEMU slows no guest down further.
const THROTTLE_MAX: u8 = 99;
/// How long a cancelled migration may take to wind up.
const CANCEL_WAIT_MAX: Duration = Duration::from_secs(60);

/// What this daemon knows of a migration it began.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// We began to send, and it has not ended yet.
    is_sending: bool,
    /// The guest ran when we began.
    was_running: bool,
    /// Half of the guest is elsewhere: what follows an end here is not ours to do.
    is_postcopy: bool,
    /// QEMU has said that post-copy was cut off, and not that it goes on.
    is_cut: bool,
    /// What was last seen of post-copy.
    seen: Progress,
    steps: PauseSteps,
}

/// What `query-migrate` says, as far as we read it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Answer {
    status: Option<String>,
    #[serde(default)]
    ram: Ram,
    downtime: Option<u64>,
    error_desc: Option<String>,
    cpu_throttle_percentage: Option<u8>,
    /// Since QEMU 6.0, and only there if there are any.
    #[serde(default)]
    blocked_reasons: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Ram {
    transferred: u64,
    remaining: u64,
    total: u64,
    dirty_sync_count: u64,
    dirty_pages_rate: u64,
    page_size: u64,
    mbps: f64,
}

impl QemuInstance {
    pub(super) async fn begin_receive(
        &self,
        options: MigrationOptions,
    ) -> Result<ChannelEnd, EngineError> {
        let path = self.directory.join(SOCKET);
        let failed = |source| EngineError::File { action: "remove", path: path.clone(), source };
        remove_if_there(&path).map_err(failed)?;
        self.prepare(&options).await?;
        self.execute("migrate-incoming", json!({ "uri": unix_uri(&path)? })).await?;
        Ok(ChannelEnd::Listen(path))
    }

    pub(super) async fn begin_send(
        &self,
        options: MigrationOptions,
        channels: ChannelEnd,
    ) -> Result<(), EngineError> {
        let ChannelEnd::Connect(path) = channels else {
            let what = "sending to whoever connects: QEMU connects itself".to_owned();
            return Err(EngineError::Unsupported { what });
        };
        let status = self.may_send().await?;
        self.prepare(&options).await?;
        self.set_tuning(options.tuning).await?;
        let was_running = status == "running";
        let uri = unix_uri(&path)?;
        *self.moving() = Moving { is_sending: true, was_running, ..Moving::default() };
        let begun = async {
            if was_running && options.is_stop_and_copy {
                self.execute("stop", json!({})).await?;
            }
            self.execute("migrate", json!({ "uri": uri })).await
        };
        let begun = begun.await;
        if matches!(begun, Err(EngineError::Refused { .. })) {
            self.restore().await?;
        }
        begun.map(|_| ())
    }

    /// Refuses what QEMU would not survive, or not do. Returns its run state.
    async fn may_send(&self) -> Result<String, EngineError> {
        let status = self.status().await?;
        match status.as_str() {
            "postmigrate" => {
                let reason = "it has already moved from here; resume it first".to_owned();
                Err(refused(&self.name(), "migrate", reason))
            }
            "inmigrate" => {
                let reason = "its memory is still arriving".to_owned();
                Err(refused(&self.name(), "migrate", reason))
            }
            _ if !self.has_run() && self.version < VERSION_MOVES_COLD => {
                let version = self.version.to_string();
                Err(EngineError::NeverRanHere { guest: self.name(), version })
            }
            _ => Ok(status),
        }
    }

    /// Sets every capability and parameter we care for, on or off: an earlier attempt may have
    /// left others.
    async fn prepare(&self, options: &MigrationOptions) -> Result<(), EngineError> {
        if options.may_postcopy && options.channels > 1 {
            let what = "post-copy over more than one channel".to_owned();
            return Err(EngineError::Unsupported { what });
        }
        if options.has_urgent_channel && self.version < VERSION_URGENT_CHANNEL {
            let what = format!("an urgent channel with QEMU {}", self.version);
            return Err(EngineError::Unsupported { what });
        }
        if options.channels > CHANNELS_MAX {
            let what = format!("{} channels; the most is {CHANNELS_MAX}", options.channels);
            return Err(EngineError::Unsupported { what });
        }
        let is_multifd = options.channels > 1;
        let known = capabilities(&self.monitor).await?;
        let wanted = [
            ("events", true),
            ("return-path", true),
            ("late-block-activate", true),
            ("pause-before-switchover", true),
            ("validate-uuid", true),
            ("multifd", is_multifd),
            ("postcopy-ram", options.may_postcopy),
            ("postcopy-preempt", options.has_urgent_channel),
            ("auto-converge", options.may_throttle),
            ("xbzrle", false),
        ];
        if let Some((missing, _)) =
            wanted.iter().find(|(name, is_on)| *is_on && !known.contains(*name))
        {
            let what = format!("QEMU {} does not know `{missing}`", self.version);
            return Err(EngineError::Unsupported { what });
        }
        let set: Vec<Value> = wanted
            .iter()
            .filter(|(name, _)| known.contains(*name))
            .map(|(name, is_on)| json!({ "capability": name, "state": is_on }))
            .collect();
        self.execute("migrate-set-capabilities", json!({ "capabilities": set })).await?;
        if is_multifd {
            let compression = if options.is_compressed { "zstd" } else { "none" };
            let parameters = json!({
                "multifd-channels": options.channels, "multifd-compression": compression,
            });
            self.execute("migrate-set-parameters", parameters).await?;
        }
        Ok(())
    }

    pub(super) async fn set_tuning(&self, tuning: Tuning) -> Result<(), EngineError> {
        let pause = tuning.pause_max.as_millis().min(PAUSE_MS_MAX);
        // QEMU would slow the guest down by its own rules: at the second pass in which it has
        // written more than `trigger` percent of what was sent, to `initial`, and then by
        // `increment` up to `max`. So each of these says the same, and it is ours.
        let throttle = tuning.throttle_percent.clamp(1, THROTTLE_MAX);
        let trigger = if tuning.throttle_percent == 0 { 100 } else { 1 };
        let parameters = json!({
            // Its default would be 128 MiB/s; 0 is "no limit".
            "max-bandwidth": tuning.bandwidth.map_or(0, |bandwidth| bandwidth.0),
            "max-postcopy-bandwidth": tuning.bandwidth.map_or(0, |bandwidth| bandwidth.0),
            "downtime-limit": u64::try_from(pause).expect("the limit above fits"),
            "cpu-throttle-initial": throttle,
            "cpu-throttle-increment": THROTTLE_MAX,
            "max-cpu-throttle": throttle,
            "throttle-trigger-threshold": trigger,
        });
        self.execute("migrate-set-parameters", parameters).await.map(|_| ())
    }

    async fn ask_migration(&self) -> Result<Answer, EngineError> {
        let value = self.execute("query-migrate", json!({})).await?;
        serde_json::from_value(value).map_err(|error| {
            refused(&self.name(), "query-migrate", format!("its answer cannot be read: {error}"))
        })
    }

    pub(super) async fn query_hindrances(&self) -> Result<Vec<String>, EngineError> {
        Ok(self.ask_migration().await?.blocked_reasons)
    }

    pub(super) async fn query_migration(&self) -> Result<Migration, EngineError> {
        {
            let moving = self.moving();
            if moving.is_cut {
                return Ok(Migration::Interrupted(moving.seen));
            }
        }
        let answer = self.ask_migration().await?;
        let migration = translate(answer, self.moving().steps);
        let Migration::PostCopy(progress) = migration else { return Ok(migration) };
        self.moving().seen = progress;
        // The source still runs, or the devices have not arrived.
        match self.status().await?.as_str() {
            "inmigrate" => Ok(Migration::Active(progress)),
            "running" if self.moving().is_sending => Ok(Migration::Switching(progress)),
            _ => Ok(Migration::PostCopy(progress)),
        }
    }

    pub(super) async fn start_postcopy(&self) -> Result<(), EngineError> {
        self.execute("migrate-start-postcopy", json!({})).await.map(|_| ())
    }

    pub(super) async fn begin_receive_again(&self) -> Result<ChannelEnd, EngineError> {
        let path = self.directory.join(SOCKET);
        let uri = json!({ "uri": unix_uri(&path)? });
        match self.execute_urgently("migrate-recover", uri).await {
            // Older ones take it once for each cut, and listen until somebody comes.
            Err(EngineError::Refused { reason, .. }) if reason.contains(ALREADY_LISTENS) => {}
            answer => drop(answer?),
        }
        Ok(ChannelEnd::Listen(path))
    }

    pub(super) async fn begin_send_again(&self, channels: ChannelEnd) -> Result<(), EngineError> {
        let ChannelEnd::Connect(path) = channels else {
            let what = "sending to whoever connects: QEMU connects itself".to_owned();
            return Err(EngineError::Unsupported { what });
        };
        let again = json!({ "uri": unix_uri(&path)?, "resume": true });
        self.execute("migrate", again).await.map(|_| ())
    }

    /// Gives up, waits until QEMU has wound up, and sees to it that the guest runs if it ran.
    pub(super) async fn give_up_sending(&self) -> Result<Migration, EngineError> {
        let mut events = self.monitor.events();
        self.execute("migrate_cancel", json!({})).await?;
        let deadline = Instant::now() + CANCEL_WAIT_MAX;
        let ended = loop {
            let migration = self.query_migration().await?;
            let is_on_its_way = matches!(
                migration,
                Migration::Active(_) | Migration::Switching(_) | Migration::PostCopy(_)
            );
            if !is_on_its_way {
                break migration;
            }
            self.next_event(&mut events, deadline, "migrate_cancel").await?;
        };
        if matches!(ended, Migration::Cancelled | Migration::Failed { .. }) {
            self.restore().await?;
        }
        Ok(ended)
    }

    /// Brings the guest back to what it was when we began to send it, once that has failed.
    async fn restore(&self) -> Result<(), EngineError> {
        let _alone = self.restoring.lock().await;
        let Moving { was_running, .. } = std::mem::take(&mut *self.moving());
        if !was_running {
            return Ok(());
        }
        // QEMU itself starts again what it stopped, after it has said that it failed.
        let mut events = self.monitor.events();
        let deadline = Instant::now() + CANCEL_WAIT_MAX;
        loop {
            match self.status().await?.as_str() {
                "finish-migrate" => self.next_event(&mut events, deadline, "migrate").await?,
                // What we stopped, it does not.
                "paused" | "postmigrate" => return self.cont().await,
                _ => return Ok(()),
            }
        }
    }

    /// Waits until QEMU says anything.
    async fn next_event(
        &self,
        events: &mut Option<Receiver<Event>>,
        deadline: Instant,
        command: &str,
    ) -> Result<(), EngineError> {
        let gone = || EngineError::Gone { guest: self.name(), last_words: None };
        let events = events.as_mut().ok_or_else(gone)?;
        match tokio::time::timeout_at(deadline, events.recv()).await {
            Ok(Ok(_) | Err(RecvError::Lagged(_))) => Ok(()),
            Ok(Err(RecvError::Closed)) => Err(gone()),
            Err(_) => Err(EngineError::Silent {
                guest: self.name(),
                command: command.to_owned(),
                seconds: CANCEL_WAIT_MAX.as_secs(),
            }),
        }
    }

    /// Events were lost: how it stands is to be asked.
    pub(super) fn ask_again(&self) {
        self.moving().is_cut = false;
    }

    /// Does what must follow an event at once.
    pub(super) async fn follow(&self, event: &Event) {
        if event.name == "MIGRATION" {
            let status = event.data["status"].as_str().unwrap_or_default();
            self.moving().is_cut = CUT_STATES.contains(&status);
        }
        let is_ours = self.moving().is_sending;
        if !is_ours {
            return;
        }
        let status = match event.name.as_str() {
            "MIGRATION" => event.data["status"].as_str().unwrap_or_default(),
            "STOP" => "stopped",
            _ => return,
        };
        let outcome = match status {
            "stopped" => {
                self.moving().steps.stopped = Some(event.at);
                Ok(())
            }
            "pre-switchover" => {
                let arguments = json!({ "state": "pre-switchover" });
                self.execute("migrate-continue", arguments).await.map(|_| ())
            }
            "device" => {
                self.moving().steps.switching = Some(event.at);
                Ok(())
            }
            "postcopy-active" => {
                let mut moving = self.moving();
                moving.is_postcopy = true;
                moving.steps.switching.get_or_insert(event.at);
                Ok(())
            }
            "completed" => {
                let mut moving = self.moving();
                moving.steps.completed = Some(event.at);
                moving.is_sending = false;
                Ok(())
            }
            "failed" | "cancelled" if !self.moving().is_postcopy => self.restore().await,
            _ => Ok(()),
        };
        if let Err(error) = outcome {
            tracing::warn!(guest = self.name(), status, %error, "a step of a migration failed");
        }
    }

    pub(super) async fn announce_self(&self) -> Result<(), EngineError> {
        // QEMU's own rhythm for a guest that has moved: five times within two seconds.
        let rhythm = json!({ "initial": 50, "max": 550, "rounds": 5, "step": 100 });
        self.execute("announce-self", rhythm).await.map(|_| ())
    }

    fn moving(&self) -> MutexGuard<'_, Moving> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_uri(path: &Path) -> Result<String, EngineError> {
    let text = path.to_str().ok_or_else(|| EngineError::Unsupported {
        what: format!("the socket `{}`, whose name is not UTF-8", path.display()),
    })?;
    Ok(format!("unix:{text}"))
}

fn translate(answer: Answer, steps: PauseSteps) -> Migration {
    let downtime = answer.downtime.map(Duration::from_millis);
    let throttle_percent = answer.cpu_throttle_percentage.unwrap_or(0);
    let progress = Progress { throttle_percent, ..progress(&answer.ram, steps) };
    match answer.status.as_deref().unwrap_or("none") {
        "none" => Migration::None,
        "completed" => Migration::Completed(Progress { downtime, ..progress }),
        "failed" => {
            let reason = answer.error_desc.unwrap_or_else(|| "a channel was closed".to_owned());
            Migration::Failed { reason }
        }
        "cancelled" => Migration::Cancelled,
        "pre-switchover" | "device" => Migration::Switching(progress),
        "postcopy-active" | "postcopy-device" => Migration::PostCopy(progress),
        status if CUT_STATES.contains(&status) => Migration::Interrupted(progress),
        // `setup`, `wait-unplug`, `cancelling`, and what a newer QEMU may add: not at an end yet.
        _ => Migration::Active(progress),
    }
}

fn progress(ram: &Ram, pause: PauseSteps) -> Progress {
    /// QEMU says megabits a second.
    const BYTES_A_MEGABIT: f64 = 125_000.0;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturating is right for a figure that is only shown"
    )]
    let rate = (ram.mbps * BYTES_A_MEGABIT) as u64;
    Progress {
        transferred: Bytes(ram.transferred),
        remaining: Bytes(ram.remaining),
        total: Bytes(ram.total),
        round: ram.dirty_sync_count,
        rate: Bytes(rate),
        dirty_rate: Bytes(ram.dirty_pages_rate.saturating_mul(ram.page_size)),
        throttle_percent: 0,
        downtime: None,
        pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Migration {
        translate(serde_json::from_str(text).unwrap(), PauseSteps::default())
    }

    /// Answers as QEMU 7.2 gives them, shortened.
    #[test]
    fn answers_are_understood() {
        assert_eq!(read("{}"), Migration::None);
        let active = read(
            r#"{"status": "active", "ram": {"transferred": 1000, "remaining": 2000, "total": 4000,
               "mbps": 8.0, "dirty-sync-count": 2, "dirty-pages-rate": 3, "page-size": 4096},
               "expected-downtime": 300, "cpu-throttle-percentage": 20}"#,
        );
        let progress = Progress {
            transferred: Bytes(1000),
            remaining: Bytes(2000),
            total: Bytes(4000),
            round: 2,
            rate: Bytes(1_000_000),
            dirty_rate: Bytes(12_288),
            throttle_percent: 20,
            ..Progress::default()
        };
        assert_eq!(active, Migration::Active(progress));
        assert!(matches!(read(r#"{"status": "device"}"#), Migration::Switching(_)));
        let failed = read(r#"{"status": "failed", "error-desc": "no route"}"#);
        assert_eq!(failed, Migration::Failed { reason: "no route".to_owned() });
        let Migration::Completed(progress) = read(r#"{"status": "completed", "downtime": 7}"#)
        else {
            panic!("completed is completed");
        };
        assert_eq!(progress.downtime, Some(Duration::from_millis(7)));
    }

    /// What we have no word for has not ended: nobody may take it for failed or completed.
    #[test]
    fn unknown_states_are_not_an_end() {
        for status in ["setup", "cancelling", "brand-new"] {
            let answer = format!("{{\"status\": \"{status}\"}}");
            assert!(matches!(read(&answer), Migration::Active(_)), "{status}");
        }
    }
}
