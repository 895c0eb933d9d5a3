// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Threads that pack batches, and how hard they try.
//!
//! The codec must never be what everything waits for, and an idle core packs for nothing. So the
//! threads, the link and the cores are watched: where the link is what is waited for and the
//! threads have time to spare, they try harder; where the link is not, and the threads are all busy
//! or have to wait for a core, less. A step is only taken if the threads could keep up with it, by
//! what the codecs typically cost. Waiting for a core is no reason to pack worse than the quick
//! zstd does: lz4 would save the cores a tenth of what a move costs them, and send a third more.

use super::cores::{CONTENDED, NOT_CONTENDED, Took, took};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use whimbrel_pages::codec::{Codec, CodecRates, Conditions, Packer, choose};
use whimbrel_pages::sender::{Job, Packed};

/// More threads gain nothing: the engine gives no more than one core writes.
const THREADS_MAX: usize = 8;

/// How long and over how many batches is watched before the next step.
const WATCH: Duration = Duration::from_millis(50);
const BATCHES_MIN: u32 = 4;

/// Of the time watched: more than this is busy, ...
const BUSY: f64 = 0.9;
/// ... and a step must not make them busier than that.
const BUSY_AFTER: f64 = 0.8;
/// The link is waited for, or not.
const WAITED_FOR: f64 = 0.3;
const NOT_WAITED_FOR: f64 = 0.1;
/// The link carries nearly what it can. The window keeps queues short, so nobody waits for it.
const LINK_BUSY: f64 = 0.8;
/// The quick zstd: where cores are waited for, this is light enough.
const LIGHT_ENOUGH: usize = 2;

/// What packing costs more than not packing, as a step: a core is not idle then.
const FIRST_STEP: f64 = 4.0;

type Done = (Packed, Took);

/// See the module. Dropping it ends the threads.
pub(super) struct Packers {
    jobs: std::sync::mpsc::Sender<Job>,
    packed: mpsc::UnboundedReceiver<Done>,
    threads: usize,
    link_bytes_per_s: f64,
    /// Which of the typical codecs; they go from light to heavy.
    level: usize,
    watched: Watched,
}

/// What was seen since the last step.
#[derive(Debug)]
struct Watched {
    since: Instant,
    batches: u32,
    plain_bytes: usize,
    packed_bytes: usize,
    packing: Took,
    link_waits: Duration,
}

impl Watched {
    fn begin(since: Instant) -> Self {
        let link_waits = Duration::ZERO;
        let packing = Took::default();
        Self { since, batches: 0, plain_bytes: 0, packed_bytes: 0, packing, link_waits }
    }
}

impl Packers {
    pub(super) fn new(link_bytes_per_s: Option<u64>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.clamp(1, THREADS_MAX);
        let (jobs, to_do) = std::sync::mpsc::channel();
        let (done, packed) = mpsc::unbounded_channel();
        let to_do = Arc::new(Mutex::new(to_do));
        for _ in 0..threads {
            let (to_do, done) = (to_do.clone(), done.clone());
            std::thread::spawn(move || pack(&to_do, &done));
        }
        let link_bytes_per_s = link_bytes_per_s.map_or(f64::INFINITY, |bytes| bytes as f64);
        let watched = Watched::begin(Instant::now());
        let level = first_level(threads, link_bytes_per_s);
        Self { jobs, packed, threads, link_bytes_per_s, level, watched }
    }

    pub(super) fn put(&self, job: Job) {
        // The threads live as long as this does.
        let _ = self.jobs.send(job);
    }

    /// Returns the next packed batch.
    pub(super) async fn done(&mut self) -> Packed {
        let (packed, took) = self.packed.recv().await.expect("a thread holds the other end");
        self.watched.batches += 1;
        let (plain_bytes, packed_bytes) = packed.lengths();
        self.watched.plain_bytes += plain_bytes;
        self.watched.packed_bytes += packed_bytes;
        self.watched.packing += took;
        packed
    }

    /// The link was waited for this long.
    pub(super) fn on_link_wait(&mut self, waited: Duration) {
        self.watched.link_waits += waited;
    }

    /// Returns the codec to pack with now.
    pub(super) fn codec(&mut self, now: Instant) -> Codec {
        let elapsed = now.saturating_duration_since(self.watched.since);
        if elapsed >= WATCH && self.watched.batches >= BATCHES_MIN {
            let seconds = elapsed.as_secs_f64();
            let packing = self.watched.packing.wall.as_secs_f64();
            let seen = Seen {
                busy: packing / (seconds * self.threads as f64),
                contended: self.watched.packing.contended(),
                link_waits: self.watched.link_waits.as_secs_f64() / seconds,
                link_busy: self.watched.packed_bytes as f64 / seconds / self.link_bytes_per_s,
                link_busy_raw: self.watched.plain_bytes as f64 / seconds / self.link_bytes_per_s,
            };
            self.level = next_level(self.level, &seen);
            self.watched = Watched::begin(now);
        }
        CodecRates::TYPICAL[self.level].codec
    }
}

/// Parts of the time that was watched.
#[derive(Clone, Copy, Debug)]
struct Seen {
    busy: f64,
    /// Of the time spent packing, how much was spent waiting for a core.
    contended: f64,
    link_waits: f64,
    /// Of what the link can carry, how much was packed for it, and how much it would have been raw.
    link_busy: f64,
    link_busy_raw: f64,
}

/// The guest and the engine need cores, too.
fn first_level(threads: usize, link_bytes_per_s: f64) -> usize {
    let cores = threads as f64 / 2.0;
    let conditions = Conditions {
        link_bytes_per_s,
        input_bytes_per_s: f64::INFINITY,
        source_cores: cores,
        target_cores: cores,
    };
    let codec = choose(&CodecRates::TYPICAL, &conditions);
    CodecRates::TYPICAL.iter().position(|rates| rates.codec == codec).unwrap_or_default()
}

fn next_level(level: usize, seen: &Seen) -> usize {
    let rates = CodecRates::TYPICAL;
    let is_contended = seen.contended > CONTENDED;
    let is_too_hard = match level {
        0 => false,
        // Raw bytes are more: would the link still not be waited for?
        1 => seen.busy > BUSY && !is_contended && seen.link_busy_raw < 0.5,
        2..=LIGHT_ENOUGH => seen.busy > BUSY && !is_contended,
        _ => seen.busy > BUSY || is_contended,
    };
    let is_link_idle = seen.link_waits < NOT_WAITED_FOR && seen.link_busy < LINK_BUSY;
    if is_too_hard && is_link_idle {
        return level - 1;
    }
    let Some(next) = rates.get(level + 1) else { return level };
    let step = match level {
        0 => FIRST_STEP,
        _ => rates[level].pack_bytes_per_s / next.pack_bytes_per_s,
    };
    let busy_after = seen.busy.max(0.05) * step;
    let is_idle = seen.busy * 2.0 < BUSY_AFTER && seen.contended < NOT_CONTENDED;
    // Where cores are waited for, so may the target: what looks like the link is its processor.
    let is_link_slow = seen.link_waits > WAITED_FOR && !is_contended;
    let is_link_busy = is_link_slow || seen.link_busy > LINK_BUSY;
    let is_worth_it = is_link_busy || is_idle;
    if is_worth_it && busy_after < BUSY_AFTER { level + 1 } else { level }
}

fn pack(to_do: &Mutex<std::sync::mpsc::Receiver<Job>>, done: &mpsc::UnboundedSender<Done>) {
    let mut packer = Packer::default();
    loop {
        let job = to_do.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if done.send(took(|| job.run(&mut packer))).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(seen: impl Fn(usize) -> Seen) -> usize {
        (0..20).fold(2, |level, _| next_level(level, &seen(level)))
    }

    fn seen(busy: f64, contended: f64, link_waits: f64, link_busy: f64) -> Seen {
        Seen { busy, contended, link_waits, link_busy, link_busy_raw: link_busy * 3.0 }
    }

    /// With a slow link the threads try as hard as they can; where they are what is waited for,
    /// less; and they send raw bytes only where the link carries them.
    #[test]
    fn whoever_waits_decides() {
        assert_eq!(settle(|_| seen(0.1, 0.0, 0.9, 1.0)), 3, "the link takes no more");
        assert_eq!(settle(|_| seen(0.1, 0.0, 0.0, 0.9)), 3, "the window keeps its queue short");
        assert_eq!(settle(|_| seen(1.0, 0.0, 0.0, 0.3)), 1);
        assert_eq!(settle(|_| seen(1.0, 0.0, 0.0, 0.01)), 0);
        assert_eq!(settle(|_| seen(1.0, 0.0, 0.0, 0.9)), 2, "harder would be too hard");
        assert_eq!(settle(|_| seen(0.6, 0.0, 0.2, 0.01)), 2, "all is well");
        // Hardly anything is new: packing it harder costs nothing.
        assert_eq!(settle(|_| seen(0.02, 0.0, 0.0, 0.01)), 3);
        // It costs those who wait for a core.
        assert_eq!(settle(|_| seen(0.02, 0.5, 0.0, 0.01)), 2);
        assert_eq!(settle(|_| seen(1.0, 0.5, 0.0, 0.01)), 2, "all threads wait for a core");
        assert_eq!(settle(|_| seen(0.02, 0.5, 0.9, 0.01)), 2, "so does the other end");
        assert_eq!(settle(|_| seen(0.02, 0.5, 0.9, 0.9)), 3);
        // It does not swing: each step makes the threads busier by what it costs.
        let costs = [0.1, 0.55, 0.85, 1.5];
        assert_eq!(settle(|level| seen(f64::min(costs[level], 1.0), 0.0, 0.5, 0.5)), 2);
    }

    /// What is known beforehand is used: a link of 100 Mbit/s, of 1 Gbit/s, and one without limits.
    #[test]
    fn a_link_says_where_to_begin() {
        let codec = |cores, link| CodecRates::TYPICAL[first_level(cores, link)].codec;
        assert_eq!(codec(2, 12.5e6), Codec::Zstd(3));
        assert_eq!(codec(2, 1.18e8), Codec::Zstd(1));
        assert_eq!(codec(2, f64::INFINITY), Codec::Raw);
    }
}
