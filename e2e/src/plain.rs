// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! QEMU by itself, moved over TCP by its own monitor: what everybody else is built on.
//!
//! It is given every advantage: nothing is encrypted, nobody checks anything, and the target starts
//! the guest by itself as soon as it has everything.

use crate::command::run;
use crate::disk;
use crate::lab::{Host, Lab, SHARED, TooLong};
use crate::libvirt::Look;
use crate::monitor::Monitor;
use crate::scene::Cast;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MIGRATION_PORT: u16 = 4444;
/// How long the target may take to go on once the source says that all is sent.
const RESUME_PATIENCE: Duration = Duration::from_secs(30);

/// How its own monitor is told to move it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Channels of their own for pages, compressed with zstd; none: all over one, as it is.
    pub channels: Option<u32>,
    /// The most a TCP socket of either host may hold, each way.
    pub socket_bytes_max: Option<u32>,
}

/// What moving took.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Starting the target's engine, and telling both what to do.
    pub prepare: Duration,
    /// From `migrate` until the guest runs on the target and the source says so.
    pub travel: Duration,
}

/// A running engine.
pub struct PlainEngine {
    child: Child,
    monitor: Monitor,
}

/// A guest of plain QEMU.
pub struct PlainGuest<'a> {
    lab: &'a Lab,
    cast: Cast,
    machine: String,
    cpu: String,
    engine: Option<PlainEngine>,
    is_on_beta: bool,
}

impl<'a> PlainGuest<'a> {
    /// Starts the same guest as ours on alpha. Its disks are there.
    pub(crate) fn start(lab: &'a Lab, cast: &Cast, look: &Look) -> Result<PlainGuest<'a>> {
        let shared = &lab.shared;
        disk::raw(&shared.join(format!("{}-root.img", cast.name)), 16)?;
        disk::qcow2(&shared.join(format!("{}-swap.qcow2", cast.name)), 8)?;
        let mut guest = PlainGuest {
            lab,
            cast: cast.clone(),
            machine: look.machine.clone(),
            cpu: look.cpu.clone(),
            engine: None,
            is_on_beta: false,
        };
        guest.engine = Some(guest.launch(&lab.alpha, false)?);
        Ok(guest)
    }

    /// The host it is on, and the other one.
    pub fn hosts(&self) -> [&'a Host; 2] {
        let [alpha, beta] = [&self.lab.alpha, &self.lab.beta];
        if self.is_on_beta { [beta, alpha] } else { [alpha, beta] }
    }

    /// Asks its engine.
    pub fn ask(&mut self, command: &str) -> Result<Value> {
        self.engine.as_mut().context("it has no engine")?.monitor.ask(command, json!({}))
    }

    /// Moves the guest to the other host. If that fails it runs on where it was.
    pub fn migrate(&mut self, settings: Settings, patience: Duration) -> Result<Times> {
        let started = Instant::now();
        let [source_host, target_host] = self.hosts();
        let _limited = match settings.socket_bytes_max {
            Some(bytes) => {
                vec![Limited::new(source_host, bytes)?, Limited::new(target_host, bytes)?]
            }
            None => Vec::new(),
        };
        let mut target = self.launch(target_host, true)?;
        let source = self.engine.as_mut().context("it has no engine")?;
        let prepared = prepare([&mut source.monitor, &mut target.monitor], settings, target_host);
        let prepare = started.elapsed();
        let uri = uri(target_host);
        let outcome = prepared.and_then(|()| {
            let sent = source.monitor.ask("migrate", json!({"uri": uri}))?;
            ensure!(sent.is_object(), "`migrate` was answered with {sent}");
            arrive(&mut source.monitor, &mut target.monitor, patience)
        });
        let travel = started.elapsed() - prepare;
        match outcome {
            Ok(()) => {
                self.engine = Some(target);
                self.is_on_beta = !self.is_on_beta;
                Ok(Times { prepare, travel })
            }
            Err(error) => {
                // A source that waits for its target answers nobody.
                drop(target);
                self.go_on()?;
                Err(error)
            }
        }
    }

    /// Lets the source run on after a failure. It does not always notice one by itself.
    fn go_on(&mut self) -> Result<()> {
        self.ask("migrate_cancel")?;
        let status = self.ask("query-status")?;
        if status["running"] != true {
            self.ask("cont")?;
        }
        Ok(())
    }

    fn launch(&self, host: &Host, is_target: bool) -> Result<PlainEngine> {
        let Cast { name, memory_mib, .. } = &self.cast;
        let [.., last] = self.cast.address.octets();
        let tap = format!("plain{last}");
        host.place.run({
            let tap = tap.clone();
            move || make_tap(&tap)
        })?;
        let socket = host.daemon_log().with_file_name(format!("{name}.monitor"));
        // An earlier engine's.
        let _ = fs::remove_file(&socket);
        let mut qemu = Command::new("qemu-system-x86_64");
        let machine = format!("{},usb=off,dump-guest-core=off,graphics=off", self.machine);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-name", name]);
        qemu.args(["-machine", &machine, "-accel", "tcg,thread=multi", "-cpu", &self.cpu]);
        qemu.args(["-smp", "1", "-m", &format!("{memory_mib}M"), "-rtc", "base=utc"]);
        qemu.args(["-kernel", &format!("{SHARED}/vmlinuz")]);
        qemu.args(["-initrd", &format!("{SHARED}/witness.cpio")]);
        qemu.args(["-append", &self.cast.command_line()]);
        qemu.args([
            "-serial",
            "null",
            "-device",
            "virtio-rng-pci",
            "-device",
            "virtio-balloon-pci",
        ]);
        let netdev = format!("tap,id=net0,ifname={tap},script=no,downscript=no");
        let card = format!("virtio-net-pci,netdev=net0,mac=52:54:00:77:00:{last:02x},romfile=");
        qemu.args(["-netdev", &netdev, "-device", &card]);
        for (index, drive) in self.drives().iter().enumerate() {
            let device = format!("virtio-blk-pci,drive=disk{index}");
            qemu.args(["-drive", drive, "-device", &device]);
        }
        qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        if is_target {
            qemu.args(["-incoming", "defer"]);
        }
        let said = fs::File::create(socket.with_extension("out"))?;
        qemu.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let mut child = host.place.spawn(qemu)?;
        match Monitor::connect(&socket) {
            Ok(monitor) => Ok(PlainEngine { child, monitor }),
            Err(error) => {
                end(&mut child);
                let said = fs::read_to_string(socket.with_extension("out")).unwrap_or_default();
                Err(error.context(format!("QEMU on {} said: {said}", host.name)))
            }
        }
    }

    fn drives(&self) -> Vec<String> {
        let drive = |index: usize, file: &str, format: &str| {
            let path = format!("{SHARED}/{}-{file}", self.cast.name);
            format!("file={path},if=none,id=disk{index},format={format},cache=none,discard=unmap")
        };
        let mut drives = vec![drive(0, "root.img", "raw"), drive(1, "swap.qcow2", "qcow2")];
        if self.cast.has_userland {
            drives.push(drive(2, "userland.img", "raw"));
        }
        drives
    }
}

impl Drop for PlainEngine {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Tells both ends how, and lets the target listen.
fn prepare(ends: [&mut Monitor; 2], settings: Settings, target: &Host) -> Result<()> {
    let [source, target_end] = ends;
    for end in [&mut *source, &mut *target_end] {
        let capability = |name: &str, state: bool| json!({"capability": name, "state": state});
        let is_multiple = settings.channels.is_some();
        let capabilities = [capability("events", true), capability("multifd", is_multiple)];
        end.ask("migrate-set-capabilities", json!({"capabilities": capabilities}))?;
        // Its default would be a gigabit a second, whatever the wire.
        let mut parameters = json!({"max-bandwidth": 0});
        if let Some(channels) = settings.channels {
            parameters["multifd-channels"] = channels.into();
            parameters["multifd-compression"] = "zstd".into();
        }
        end.ask("migrate-set-parameters", parameters)?;
    }
    target_end.ask("migrate-incoming", json!({"uri": uri(target)}))?;
    source.forget_events()
}

/// Waits until the source has sent everything and the guest runs on the target.
fn arrive(source: &mut Monitor, target: &mut Monitor, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    let ended = source.event(deadline, |event, data| match (event, data["status"].as_str()) {
        ("MIGRATION", Some(status @ ("completed" | "failed" | "cancelled"))) => {
            Some(status.to_owned())
        }
        _ => None,
    })?;
    match ended.as_deref() {
        Some("completed") => {}
        Some(other) => bail!("QEMU's migration {other}"),
        None => return Err(TooLong(patience).into()),
    }
    let deadline = Instant::now() + RESUME_PATIENCE;
    let resumed = target.event(deadline, |event, _| (event == "RESUME").then_some(()))?;
    resumed.context("the guest does not run on the target")
}

fn uri(target: &Host) -> String {
    format!("tcp:{}:{MIGRATION_PORT}", target.address)
}

/// Makes the tap that the guest's card is plugged into, if there is none, and joins the bridge.
fn make_tap(tap: &str) -> Result<()> {
    let ip = |line: &str| run(Command::new("ip").args(line.split(' ')));
    if !Path::new("/sys/class/net").join(tap).exists() {
        ip(&format!("tuntap add {tap} mode tap"))?;
    }
    ip(&format!("link set {tap} master br0 up"))
}

/// A host whose new TCP sockets hold little, as long as this lives.
struct Limited<'a> {
    host: &'a Host,
    before: Vec<(PathBuf, String)>,
}

impl<'a> Limited<'a> {
    fn new(host: &'a Host, bytes_max: u32) -> Result<Limited<'a>> {
        let before = host.place.run(move || -> Result<_> {
            let mut before = Vec::new();
            for (name, usual) in [("tcp_wmem", 16 << 10), ("tcp_rmem", 128 << 10)] {
                let path = PathBuf::from("/proc/sys/net/ipv4").join(name);
                before.push((path.clone(), fs::read_to_string(&path)?));
                fs::write(&path, format!("4096 {} {bytes_max}", bytes_max.min(usual)))?;
            }
            Ok(before)
        });
        Ok(Limited { host, before: before.context("cannot limit the sockets of a host")? })
    }
}

impl Drop for Limited<'_> {
    fn drop(&mut self) {
        let before = std::mem::take(&mut self.before);
        self.host.place.run(move || {
            for (path, limits) in before {
                // It could be written a moment ago.
                let _ = fs::write(path, limits);
            }
        });
    }
}
