// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! libvirt on a host of the lab: the rival that everybody knows.
//!
//! A lab's host has `/etc`, `/run` and `/var/lib` of its own already. What a libvirtd needs besides
//! is an identity of its own (both would take the machine's), and to listen for the other one.

use crate::disk;
use crate::lab::{Host, Lab, Ran, SHARED, finish};
use crate::scene::{Cast, until};
use crate::setting::Skip;
use crate::witness::Witness;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const DAEMON: &str = "/usr/sbin/libvirtd";
const PID_FILE: &str = "/run/libvirt/libvirtd.pid";
const CONNECT: [&str; 2] = ["--connect", "qemu:///system"];
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a guest usually may take to move.
pub(crate) const MOVE_PATIENCE: Duration = Duration::from_secs(120);
/// How long a command may take that only asks.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// No confinement that needs the machine's own services, and no log daemon beside it.
const QEMU_CONFIG: &str = r#"user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"#;

/// A host's libvirtd, running or not. It ends with its lab, like everything that runs there.
pub(crate) struct Libvirt<'a> {
    pub(crate) host: &'a Host,
    daemon: Option<Child>,
}

impl<'a> Libvirt<'a> {
    pub(crate) fn start(host: &'a Host) -> Result<Libvirt<'a>> {
        Libvirt::configured(host, "")
    }

    /// Starts it with further lines in `libvirtd.conf`.
    pub(crate) fn configured(host: &'a Host, more: &str) -> Result<Libvirt<'a>> {
        if !Path::new(DAEMON).exists() {
            let packages = "libvirt-daemon-system libvirt-clients dbus";
            return Err(Skip(format!("there is no libvirt: apt-get install {packages}")).into());
        }
        let [.., last] = host.address.octets();
        let config = format!(
            "listen_tls = 0\nlisten_tcp = 1\nlisten_addr = \"{}\"\nauth_tcp = \"none\"\n\
             auth_unix_rw = \"none\"\nhost_uuid = \"00000000-0000-4000-8000-0000000000{last:02}\"\n\
             {more}\n",
            host.address
        );
        host.place.run(move || furnish(&config)).context("cannot furnish libvirt")?;
        let mut libvirt = Libvirt { host, daemon: None };
        libvirt.run()?;
        Ok(libvirt)
    }

    /// Runs the daemon, which is down, and waits until it answers.
    pub(crate) fn run(&mut self) -> Result<()> {
        let log = self.host.daemon_log().with_file_name("libvirtd.out");
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(DAEMON);
        command.args(["--listen", "--pid-file", PID_FILE]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.daemon = Some(self.host.place.spawn(command)?);
        until("libvirt answers", PATIENCE, || {
            Ok(self.ask(&["list"]).is_ok_and(|ran| ran.status.success()))
        })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Kills the daemon as a crash would. Its guests stay.
    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended by itself.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Stops the daemon where it is, or lets it go on.
    pub(crate) fn hold(&self, is_held: bool) -> Result<()> {
        let signal = if is_held { Signal::SIGSTOP } else { Signal::SIGCONT };
        match self.pid() {
            Some(pid) => Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?),
            None => Ok(()),
        }
    }

    pub(crate) fn virsh(&self, arguments: &[&str]) -> Result<Ran> {
        self.host.command("virsh".as_ref(), &[&CONNECT, arguments].concat(), "")
    }

    /// Types a command that only asks: no answer for some seconds is an error.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Ran> {
        finish(self.spawn_virsh(arguments)?, &arguments.join(" "), "", ANSWER_PATIENCE)
    }

    pub(crate) fn spawn_virsh(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = Command::new("virsh");
        command.args(CONNECT).args(arguments);
        self.host.spawn(command)
    }

    /// The command in question, with further options: the same disks at both ends, which libvirt
    /// cannot know to be so.
    pub(crate) fn migrate(
        &self,
        guest: &str,
        target: &Host,
        more: &[&str],
        patience: Duration,
    ) -> Result<Ran> {
        let there = format!("qemu+tcp://{}/system", target.address);
        let memory = format!("tcp://{}", target.address);
        let options = ["--live", "--p2p", "--unsafe"];
        let names = [guest, &there, &memory];
        let words = [&["migrate"], options.as_slice(), more, &names].concat();
        let started = Instant::now();
        let ran = finish(self.spawn_virsh(&words)?, &words.join(" "), "", patience)?;
        Ok(Ran { took: started.elapsed(), ..ran })
    }

    /// Starts the same guest as ours: kernel, disks, memory, board, processor.
    pub(crate) fn create<'b>(&self, lab: &'b Lab, cast: &Cast, look: &Look) -> Result<Witness<'b>> {
        make_disks(lab, cast)?;
        let file = write_definition(lab, cast, look)?;
        self.virsh(&["create", &file])?.ok()?;
        let witness = Witness::at(&lab.client, cast.address);
        witness.wait()?;
        Ok(witness)
    }

    /// Waits until a guest runs here and no longer there.
    pub(crate) fn has_it_alone(&self, other: &Libvirt<'_>, guest: &str) -> Result<()> {
        let listed = |libvirt: &Libvirt<'_>| -> Result<bool> {
            let names = libvirt.virsh(&["list", "--name"])?.ok()?;
            Ok(names.lines().any(|name| name.trim() == guest))
        };
        ensure!(listed(self)?, "{guest} is not on {}", self.host.name);
        until("it is gone from the source", PATIENCE, || Ok(!listed(other)?))
    }
}

impl Drop for Libvirt<'_> {
    fn drop(&mut self) {
        // Its guests end with the lab.
        self.kill();
    }
}

/// Gives this host its own directories and configuration of libvirt.
fn furnish(config: &str) -> Result<()> {
    use nix::mount::{MsFlags, mount};
    for place in ["/var/log/libvirt", "/var/cache/libvirt", "/var/lib/libvirt"] {
        fs::create_dir_all(place)?;
        let options = Some("mode=755");
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), options)?;
    }
    for place in ["/run/libvirt", "/etc/libvirt"] {
        fs::create_dir_all(place)?;
    }
    // The network that Debian defines would be made on start, with a DHCP server.
    let _ = fs::remove_file("/etc/libvirt/qemu/networks/autostart/default.xml");
    fs::write("/etc/libvirt/libvirtd.conf", config)?;
    fs::write("/etc/libvirt/qemu.conf", QEMU_CONFIG)?;
    Ok(())
}

/// Makes a guest's disks, one raw and one qcow2, where both hosts find them.
pub(crate) fn make_disks(lab: &Lab, cast: &Cast) -> Result<[PathBuf; 2]> {
    let place = |disk: &str| lab.shared.join(format!("{}-{disk}", cast.name));
    Ok([disk::raw(&place("root.img"), 16)?, disk::qcow2(&place("swap.qcow2"), 8)?])
}

/// Writes a guest's definition where both hosts find it, and returns that place.
pub(crate) fn write_definition(lab: &Lab, cast: &Cast, look: &Look) -> Result<String> {
    let file = format!("{}.xml", cast.name);
    fs::write(lab.shared.join(&file), definition(cast, look))?;
    Ok(format!("{SHARED}/{file}"))
}

/// How a host sees a guest's disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disks {
    /// Files of the shared directory.
    Files,
    /// Block devices of its own, in this directory.
    Devices(&'static str),
}

/// What our engine was started with: the rival's guest looks the same.
pub(crate) struct Look {
    pub(crate) machine: String,
    pub(crate) cpu: String,
    pub(crate) emulator: String,
    pub(crate) disks: Disks,
}

impl Look {
    /// Reads it off our engine's own command line.
    pub(crate) fn of_engine(pid: u32) -> Result<Look> {
        let line = fs::read(format!("/proc/{pid}/cmdline"))?;
        let words: Vec<_> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word)).collect();
        let after = |option: &str| -> Result<String> {
            let place = words.iter().position(|word| word == option);
            let value = place.and_then(|place| words.get(place + 1)).context(option.to_owned())?;
            Ok(value.split(',').next().unwrap_or_default().to_owned())
        };
        // libvirt calls the first version of a model by its bare name.
        let cpu = after("-cpu")?.trim_end_matches("-v1").to_owned();
        let emulator = "/usr/bin/qemu-system-x86_64".to_owned();
        Ok(Look { machine: after("-machine")?, cpu, emulator, disks: Disks::Files })
    }
}

fn definition(cast: &Cast, look: &Look) -> String {
    let Cast { name, memory_mib, .. } = cast;
    let Look { machine, cpu, emulator, disks } = look;
    let command_line = cast.command_line();
    let disk = |file: &str, format: &str, place: &str| {
        let (kind, source) = match disks {
            Disks::Files => ("file", format!("file='{SHARED}/{file}'")),
            Disks::Devices(directory) => ("block", format!("dev='{directory}/{file}'")),
        };
        format!(
            "<disk type='{kind}' device='disk'><driver name='qemu' type='{format}' cache='none'/>\
             <source {source}/><target dev='{place}' bus='virtio'/></disk>"
        )
    };
    let root = disk(&format!("{name}-root.img"), "raw", "vda");
    let swap = disk(&format!("{name}-swap.qcow2"), "qcow2", "vdb");
    let userland = disk(&format!("{name}-userland.img"), "raw", "vdc");
    let userland = if cast.has_userland { userland } else { String::new() };
    format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='{machine}'>hvm</type><kernel>{SHARED}/vmlinuz</kernel>
<initrd>{SHARED}/witness.cpio</initrd><cmdline>{command_line}</cmdline></os>
<features><acpi/><apic/></features>
<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>{cpu}</model></cpu>
<devices><emulator>{emulator}</emulator>{root}{swap}{userland}
<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>
<serial type='pty'/><rng model='virtio'><backend model='builtin'/></rng><memballoon model='virtio'/>
<panic model='isa'/></devices></domain>\n"
    )
}
