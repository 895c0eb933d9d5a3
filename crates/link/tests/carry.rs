// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Carrying processes as processes: started, left alone, killed.
//!
//! This program is its own `whimbrel carry DIR`, and its own daemon to kill. `carry measure
//! CHANNELS` and `carry measure-pages CONNECTIONS` print what two of them carry in a second,
//! `carry measure-return` what they do for a guest that goes and comes back.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use whimbrel_link::carrier::{self, Config, Control, Meet, Pages, Side, Status, Way};
use whimbrel_link::identity::Identity;
use whimbrel_model::id::{GuestName, HandoffId, HostName};

const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["carry", directory] => {
            if let Err(error) = carrier::run(Path::new(directory)) {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
        ["daemon", directory] => be_a_daemon(Path::new(directory)),
        ["measure", channels] => runtime().block_on(measure(channels.parse().unwrap())),
        ["measure-pages", connections] => {
            runtime().block_on(measure_pages(connections.parse().unwrap()));
        }
        ["measure-return"] => runtime().block_on(measure_return()),
        // What a test runner asks of every test program.
        ["--list", ..] => {}
        _ => all(),
    }
    ExitCode::SUCCESS
}

fn all() {
    let tests: [(&str, fn()); 4] = [
        ("a_dead_daemon_disturbs_nothing", || runtime().block_on(a_dead_daemon_disturbs_nothing())),
        ("a_killed_carrier_ends_both_engines", || {
            runtime().block_on(a_killed_carrier_ends_both_engines());
        }),
        ("a_carrier_ends_when_it_is_told", || runtime().block_on(a_carrier_ends_when_it_is_told())),
        ("a_carrier_that_cannot_start_says_why", || {
            runtime().block_on(a_carrier_that_cannot_start_says_why());
        }),
    ];
    for (name, test) in tests {
        print!("test {name} ... ");
        std::io::stdout().flush().unwrap();
        test();
        println!("ok");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn myself() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// Two hosts' directories, and the engines' sockets.
struct Lab {
    home: tempfile::TempDir,
    handoff: HandoffId,
    port: TcpListener,
    target_engine: UnixListener,
}

impl Lab {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for name in ["source", "target"] {
            std::fs::create_dir(home.path().join(name)).unwrap();
            Identity::load_or_create(&home.path().join(name).join("identity")).unwrap();
        }
        Self::of(home).await
    }

    async fn of(home: tempfile::TempDir) -> Self {
        let target_engine = UnixListener::bind(home.path().join("target/engine.sock")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let handoff = HandoffId(uuid::Uuid::new_v4());
        Self { home, handoff, port, target_engine }
    }

    /// The way back: the hosts change places.
    async fn back(self) -> Self {
        let [source, target, other] =
            ["source", "target", "other"].map(|name| self.home.path().join(name));
        std::fs::rename(&source, &other).unwrap();
        std::fs::rename(&target, &source).unwrap();
        std::fs::rename(&other, &target).unwrap();
        for directory in [source, target] {
            let _ = std::fs::remove_file(directory.join("engine.sock"));
        }
        Self::of(self.home).await
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn config(&self, name: &str, peer: &str, connections: u32) -> Config {
        let directory = self.directory(name);
        let (side, engine) = match name {
            "source" => {
                let addresses = vec![self.port.local_addr().unwrap()];
                let path = directory.join("engine.sock");
                (Side::Source { addresses }, Meet::Listen { path, owner: None })
            }
            _ => (Side::Target, Meet::Connect(directory.join("engine.sock"))),
        };
        let peer = Identity::load(&self.directory(peer).join("identity")).unwrap().id();
        let identity = directory.join("identity");
        let handoff = self.handoff;
        Config {
            handoff,
            identity,
            peer,
            side,
            engine,
            connections,
            bandwidth: None,
            way: Way::Tunnel,
            is_again: false,
        }
    }

    async fn spawn(&self, name: &str, peer: &str, connections: u32) -> Control {
        let config = self.config(name, peer, connections);
        carrier::spawn(&myself(), &[], &self.directory(name), &config).await.unwrap()
    }

    /// Opens a channel, as the daemon of the target would let it.
    async fn open(&self, target: &Control) -> (UnixStream, UnixStream) {
        let path = self.directory("source").join("engine.sock");
        let source = UnixStream::connect(path).await.unwrap();
        let (tcp, _) = in_time(self.port.accept()).await.unwrap();
        target.adopt(tcp.into_std().unwrap()).await.unwrap();
        let (target, _) = in_time(self.target_engine.accept()).await.unwrap();
        (source, target)
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes no time")
}

async fn until(control: &Control, holds: impl Fn(&Status) -> bool) -> Status {
    in_time(async {
        loop {
            let status = control.status().await.unwrap();
            if holds(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

async fn until_gone(control: &Control) {
    in_time(async {
        while control.is_alive().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Spawns both carrying processes and waits to be killed.
fn be_a_daemon(home: &Path) {
    runtime().block_on(async {
        for name in ["source", "target"] {
            let directory = home.join(name);
            let config = Config::load(&directory).unwrap();
            carrier::spawn(&myself(), &[], &directory, &config).await.unwrap();
        }
        println!("spawned");
        std::future::pending::<()>().await;
    });
}

/// A daemon starts both processes and is killed with SIGKILL in the middle: bytes go on, a new
/// daemon finds them by their directories alone, and they are in sessions of their own.
async fn a_dead_daemon_disturbs_nothing() {
    let lab = Lab::new().await;
    for (name, peer) in [("source", "target"), ("target", "source")] {
        // Written by a first life, found by the daemon that will be killed.
        let control = lab.spawn(name, peer, 1).await;
        control.close().await.unwrap();
        until_gone(&control).await;
    }
    let mut daemon = std::process::Command::new(myself())
        .arg("daemon")
        .arg(lab.home.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "spawned\n");
    let [source, target] = ["source", "target"].map(|name| Control::new(&lab.directory(name)));
    let (mut engine, mut other) = lab.open(&target).await;
    engine.write_all(b"before").await.unwrap();
    in_time(other.read_exact(&mut [0; 6])).await.unwrap();

    daemon.kill().unwrap();
    daemon.wait().unwrap();

    engine.write_all(b"after!").await.unwrap();
    in_time(other.read_exact(&mut [0; 6])).await.unwrap();
    let status = source.status().await.unwrap();
    assert_eq!(status.channels[0].outgoing.bytes, 12);
    assert_eq!(status.problem, None);
    assert!(status.channels[0].is_connected);
    for name in ["source", "target"] {
        let pid = pid_of(&lab.directory(name)).await;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // Behind the name in parentheses: state, parent, group, session.
        let session = stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap();
        assert_eq!(session, pid.to_string());
    }
    drop((engine, other));
    source.close().await.unwrap();
    target.close().await.unwrap();
    until_gone(&source).await;
    until_gone(&target).await;
    assert!(source.status().await.unwrap().is_complete());
}

async fn pid_of(directory: &Path) -> i32 {
    let stream = UnixStream::connect(directory.join("carry.sock")).await.unwrap();
    stream.peer_cred().unwrap().pid().unwrap()
}

/// If a carrying process dies, both engines see closed sockets, and the other one says so.
async fn a_killed_carrier_ends_both_engines() {
    let lab = Lab::new().await;
    let source = lab.spawn("source", "target", 1).await;
    let target = lab.spawn("target", "source", 1).await;
    let (mut engine, mut other) = lab.open(&target).await;
    engine.write_all(b"abc").await.unwrap();
    in_time(other.read_exact(&mut [0; 3])).await.unwrap();
    let pid = rustix::process::Pid::from_raw(pid_of(source.directory()).await).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let mut rest = Vec::new();
    // A reset is as closed as an end.
    let _ = in_time(engine.read_to_end(&mut rest)).await;
    assert_eq!(in_time(other.read(&mut [0; 8])).await.unwrap(), 0);
    let status = until(&target, |status| status.problem.is_some()).await;
    assert!(!status.has_received_everything());
    assert!(source.status().await.is_err());
    target.close().await.unwrap();
    until_gone(&target).await;
}

/// Closing waits for what is under way; afterwards the last status is still to be had, and nothing
/// is left but files.
async fn a_carrier_ends_when_it_is_told() {
    let lab = Lab::new().await;
    let source = lab.spawn("source", "target", 1).await;
    let target = lab.spawn("target", "source", 1).await;
    let (mut engine, mut other) = lab.open(&target).await;
    source.close().await.unwrap();
    target.close().await.unwrap();
    engine.write_all(b"still here").await.unwrap();
    in_time(other.read_exact(&mut [0; 10])).await.unwrap();
    assert!(source.is_alive().await && target.is_alive().await);
    engine.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
    until_gone(&source).await;
    until_gone(&target).await;
    assert!(source.status().await.unwrap().has_sent_everything());
    assert!(target.status().await.unwrap().has_received_everything());
    assert!(!lab.directory("source").join("engine.sock").exists());
    // Told again, it is as well.
    source.close().await.unwrap();
}

/// The daemon hears why.
async fn a_carrier_that_cannot_start_says_why() {
    let lab = Lab::new().await;
    let mut config = lab.config("source", "target", 1);
    config.identity = lab.directory("nowhere");
    let directory = lab.directory("source");
    let error = carrier::spawn(&myself(), &[], &directory, &config).await.unwrap_err();
    assert!(matches!(error, carrier::SpawnError::NotReady { .. }), "{error}");
}

/// Carries 2 GiB over so many channels, in one direction, on loopback.
async fn measure(channels: u32) {
    const TOTAL: u64 = 2 << 30;
    let lab = Arc::new(Lab::new().await);
    let source = lab.spawn("source", "target", channels).await;
    let target = lab.spawn("target", "source", channels).await;
    let share = TOTAL / u64::from(channels);
    let mut ends = Vec::new();
    for _ in 0..channels {
        ends.push(lab.open(&target).await);
    }
    let began = Instant::now();
    let mut tasks = Vec::new();
    for (mut engine, mut other) in ends {
        tasks.push(tokio::spawn(async move {
            let chunk = vec![0x5a; 256 << 10];
            for _ in 0..share / (256 << 10) {
                engine.write_all(&chunk).await.unwrap();
            }
            engine.shutdown().await.unwrap();
            let _ = engine.read_to_end(&mut Vec::new()).await;
        }));
        tasks.push(tokio::spawn(async move {
            let mut buffer = vec![0; 256 << 10];
            while other.read(&mut buffer).await.unwrap() > 0 {}
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let seconds = began.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = TOTAL as f64 / seconds / 1e6;
    let status = source.status().await.unwrap();
    println!("{channels} channels: {rate:.0} MB/s, round trip {:?}", status.round_trip);
    end_and_tell([source, target]).await;
}

/// Carries the memory of a guest of 1 GiB, all of it noise, over so many connections.
async fn measure_pages(connections: u32) {
    let lab = Lab::new().await;
    let controls = carry_guest(&lab, connections, None, &noise(1)).await;
    end_and_tell(controls).await;
}

/// Carries such a guest, a third of it noise, to another host and back to what was kept of it.
async fn measure_return() {
    let mut lab = Lab::new().await;
    let noise = noise(3);
    for way in ["there", "back"] {
        println!("{way}:");
        let controls = carry_guest(&lab, 1, Some(4 << 30), &noise).await;
        let [guest, other] = ["web1", "other"];
        for control in &controls {
            let names = (GuestName::new(guest).unwrap(), HostName::new(other).unwrap());
            let why_not = control.keep(&names.0, &names.1, 1).await.unwrap();
            assert_eq!(why_not, None);
        }
        end_and_tell(controls).await;
        lab = lab.back().await;
    }
}

/// Carries the guest and says how fast that was.
async fn carry_guest(
    lab: &Lab,
    connections: u32,
    image_bytes_max: Option<u64>,
    noise: &[u8],
) -> [Control; 2] {
    let spawn = async |name: &str, peer: &str| {
        let mut config = lab.config(name, peer, 1);
        config.way = Way::Pages(Pages {
            folder: lab.directory(name).join("pages"),
            image_bytes_max,
            is_reused: true,
            link_bytes_per_s: None,
            connections,
            disks: None,
            is_patient: false,
            has_urgent_channel: false,
        });
        carrier::spawn(&myself(), &[], &lab.directory(name), &config).await.unwrap()
    };
    let (source, target) = (spawn("source", "target").await, spawn("target", "source").await);
    let (mut engine, mut other) = lab.open(&target).await;
    for _ in 1..connections {
        let (tcp, _) = in_time(lab.port.accept()).await.unwrap();
        target.adopt(tcp.into_std().unwrap()).await.unwrap();
    }
    let is_joined = |status: &Status| {
        status.channels.first().is_some_and(|channel| channel.connections == connections)
    };
    until(&source, is_joined).await;
    let began = Instant::now();
    let reading = tokio::spawn(async move {
        let (mut buffer, mut total) = (vec![0; 256 << 10], 0_usize);
        while let Ok(length @ 1..) = other.read(&mut buffer).await {
            total += length;
        }
        total
    });
    write_guest(&mut engine, noise).await;
    engine.shutdown().await.unwrap();
    let total = reading.await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = total as f64 / seconds / 1e6;
    let status = until(&source, Status::has_sent_everything).await;
    let wire = status.channels[0].outgoing.wire_bytes >> 20;
    println!("{connections} connections: {rate:.0} MB/s, {seconds:.2} s, {wire} MiB on the wire");
    [source, target]
}

/// 16 MiB, of which every so manieth byte is noise.
fn noise(every: usize) -> Vec<u8> {
    let mut bytes = vec![0; 16 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    for (index, byte) in bytes.iter_mut().enumerate().filter(|(index, _)| index % every > 0) {
        *byte = b"a page of a guest"[index % 17];
    }
    bytes
}

/// Writes what an engine writes of a guest of 1 GiB: no two pages are the same.
async fn write_guest(engine: &mut UnixStream, noise: &[u8]) {
    const PAGES: u64 = 1 << 18;
    const WRITE_BYTES: usize = 256 << 10;
    let mut stream = b"QEVM\0\0\0\x03\x07\0\0\0\x02pc".to_vec();
    stream.extend(b"\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04");
    stream.extend(((PAGES << 12) | 4).to_be_bytes());
    stream.extend(b"\x06pc.ram");
    stream.extend((PAGES << 12).to_be_bytes());
    for (page, bytes) in (0..PAGES).zip(noise.chunks(4096).cycle()) {
        stream.extend(((page << 12) | 8).to_be_bytes());
        stream.extend(b"\x06pc.ram");
        stream.extend(page.to_be_bytes());
        stream.extend(&bytes[8..]);
        if stream.len() >= WRITE_BYTES {
            engine.write_all(&stream).await.unwrap();
            stream.clear();
        }
    }
    engine.write_all(&stream).await.unwrap();
}

/// Says what the processes have taken, and ends them.
async fn end_and_tell(controls: [Control; 2]) {
    for control in controls {
        let pid = pid_of(control.directory()).await;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let memory = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let peak = memory.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        println!("  user {} system {} ticks of 10 ms; {peak}", fields[11], fields[12]);
        control.close().await.unwrap();
        until_gone(&control).await;
    }
}
