// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Guests and links of every kind.

/// What the guest does at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Bytes a second that it writes, each page counted as often as it is written.
    pub(crate) writes: f64,
    /// What these writes are spread over.
    pub(crate) hot: f64,
}

pub(crate) struct Trace {
    pub(crate) name: &'static str,
    pub(crate) memory: f64,
    pub(crate) load: fn(f64) -> Load,
    /// Bytes a second that the link carries.
    pub(crate) link: fn(f64) -> f64,
}

const MB: f64 = 1e6;
const GB: f64 = 1e9;

fn mb(writes: f64, hot: f64) -> Load {
    Load { writes: writes * MB, hot: hot * MB }
}

fn gigabit(_: f64) -> f64 {
    118.0 * MB
}

fn usual(name: &'static str, load: fn(f64) -> Load) -> Trace {
    Trace { name, memory: 4.0 * GB, load, link: gigabit }
}

fn on(name: &'static str, link: fn(f64) -> f64, load: fn(f64) -> Load) -> Trace {
    Trace { name, memory: 4.0 * GB, load, link }
}

/// The same at every run, and without a pattern.
fn noise(time: f64) -> f64 {
    let x = (time.floor() * 12.9898).sin() * 43758.5453;
    x - x.floor()
}

/// Whether `time` is in the first `on` seconds of each `period`.
fn wave(time: f64, period: f64, on: f64) -> bool {
    time % period < on
}

pub(crate) fn all() -> Vec<Trace> {
    let mut all = steady();
    all.extend(in_waves());
    all.extend(that_change());
    all.extend(links());
    all
}

fn steady() -> Vec<Trace> {
    vec![
        usual("idle", |_| mb(0.5, 20.0)),
        usual("light", |_| mb(10.0, 200.0)),
        usual("a database", |_| mb(40.0, 1000.0)),
        usual("busy", |_| mb(80.0, 2000.0)),
        usual("at 0.8 of the link", |_| mb(94.0, 3500.0)),
        usual("as fast as the link", |_| mb(125.0, 3500.0)),
        usual("three times the link", |_| mb(354.0, 3500.0)),
        usual("fast, in 10 MB", |_| mb(800.0, 10.0)),
        usual("fast, in 100 MB", |_| mb(800.0, 100.0)),
        Trace {
            name: "64 GB on ten gigabits",
            memory: 64.0 * GB,
            load: |_| mb(500.0, 20_000.0),
            link: |_| 1180.0 * MB,
        },
    ]
}

fn in_waves() -> Vec<Trace> {
    vec![
        usual("20 s of each minute", |t| mb(if wave(t, 60.0, 20.0) { 300.0 } else { 2.0 }, 3000.0)),
        usual("2 s of each 10", |t| mb(if wave(t, 10.0, 2.0) { 300.0 } else { 2.0 }, 3000.0)),
        usual("quiet for 5 s of each 60", |t| {
            mb(if wave(t, 60.0, 55.0) { 300.0 } else { 1.0 }, 400.0)
        }),
        usual("saw-tooth of a minute", |t| mb(200.0 * (t % 60.0) / 60.0, 3000.0)),
        usual("saw-tooth of 5 s", |t| mb(200.0 * (t % 5.0) / 5.0, 3000.0)),
        usual("a job of 150 s, and rest", |t| {
            mb(if wave(t, 300.0, 150.0) { 250.0 } else { 3.0 }, 3000.0)
        }),
        usual("noise", |t| mb(200.0 * noise(t), 2000.0)),
    ]
}

fn that_change() -> Vec<Trace> {
    vec![
        usual("growing slowly", |t| mb(20.0 + 0.2 * t, 3000.0)),
        usual("growing fast", |t| mb(20.0 + 3.0 * t, 3000.0)),
        usual("falling over 5 minutes", |t| mb((200.0 - t * 0.66).max(1.0), 3000.0)),
        usual("rests after a minute", |t| mb(if t < 60.0 { 250.0 } else { 1.0 }, 3000.0)),
        usual("wakes after 20 s", |t| mb(if t < 20.0 { 1.0 } else { 300.0 }, 3000.0)),
        usual("wakes after a minute", |t| mb(if t < 60.0 { 80.0 } else { 300.0 }, 3000.0)),
    ]
}

fn links() -> Vec<Trace> {
    vec![
        on("100 Mbit/s, light", |_| 11.8 * MB, |_| mb(1.0, 200.0)),
        on("100 Mbit/s, busy", |_| 11.8 * MB, |_| mb(40.0, 1000.0)),
        on("20 Mbit/s, idle", |_| 2.4 * MB, |_| mb(0.1, 20.0)),
        on(
            "a link that comes and goes",
            |t| if wave(t, 30.0, 20.0) { 118.0 * MB } else { 8.0 * MB },
            |_| mb(20.0, 500.0),
        ),
        on("a link that fades", |t| (118.0 - t * 0.5).max(6.0) * MB, |_| mb(30.0, 1000.0)),
        on(
            "a link that is lost for 20 s",
            |t| if (15.0..35.0).contains(&t) { 0.0 } else { 118.0 * MB },
            |_| mb(20.0, 500.0),
        ),
    ]
}
