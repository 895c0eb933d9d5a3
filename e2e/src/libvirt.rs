// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! libvirt on a host of the lab: the rival that everybody knows.
//!
//! A lab's host has `/etc`, `/run` and `/var/lib` of its own already. What a libvirtd needs besides
//! is an identity of its own (both would take the machine's), and to listen for the other one.

use crate::disk;
use crate::lab::{Host, Ran, SHARED};
use crate::scene::{Cast, Scene, until};
use crate::setting::Skip;
use crate::witness::Witness;
use anyhow::{Context as _, Result, ensure};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DAEMON: &str = "/usr/sbin/libvirtd";
const PATIENCE: Duration = Duration::from_secs(60);

/// No confinement that needs the machine's own services, and no log daemon beside it.
const QEMU_CONFIG: &str = r#"user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"#;

/// A running libvirtd. It ends with its lab, like everything that runs there.
pub(super) struct Libvirt<'a> {
    pub(super) host: &'a Host,
    daemon: Child,
}

impl<'a> Libvirt<'a> {
    pub(super) fn start(host: &'a Host) -> Result<Libvirt<'a>> {
        if !Path::new(DAEMON).exists() {
            let packages = "libvirt-daemon-system libvirt-clients dbus";
            return Err(Skip(format!("there is no libvirt: apt-get install {packages}")).into());
        }
        let [.., last] = host.address.octets();
        let config = format!(
            "listen_tls = 0\nlisten_tcp = 1\nlisten_addr = \"{}\"\nauth_tcp = \"none\"\n\
             auth_unix_rw = \"none\"\nhost_uuid = \"00000000-0000-4000-8000-0000000000{last:02}\"\n",
            host.address
        );
        host.place.run(move || furnish(&config)).context("cannot furnish libvirt")?;
        let log = host.daemon_log().with_file_name("libvirtd.log");
        let log = File::create(log)?;
        let mut command = Command::new(DAEMON);
        command.args(["--listen", "--pid-file", "/run/libvirt/libvirtd.pid"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let daemon = host.place.spawn(command)?;
        let libvirt = Libvirt { host, daemon };
        until("libvirt answers", PATIENCE, || Ok(libvirt.virsh(&["list"])?.status.success()))?;
        Ok(libvirt)
    }

    pub(super) fn pid(&self) -> u32 {
        self.daemon.id()
    }

    pub(super) fn virsh(&self, arguments: &[&str]) -> Result<Ran> {
        let arguments = [&["--connect", "qemu:///system"], arguments].concat();
        self.host.command("virsh".as_ref(), &arguments, "")
    }

    /// The command in question: the same disks at both ends, which libvirt cannot know to be so.
    pub(super) fn migrate(&self, guest: &str, target: &Host) -> Result<Ran> {
        let there = format!("qemu+tcp://{}/system", target.address);
        let memory = format!("tcp://{}", target.address);
        let options = ["--live", "--p2p", "--unsafe"];
        self.virsh(&[&["migrate"], options.as_slice(), &[guest, &there, &memory]].concat())
    }

    /// Starts the same guest as ours: kernel, disks, memory, board, processor.
    pub(super) fn create<'b>(
        &self,
        scene: &'b Scene,
        cast: &Cast,
        look: &Look,
    ) -> Result<Witness<'b>> {
        let shared = &scene.lab.shared;
        disk::raw(&shared.join(format!("{}-root.img", cast.name)), 16)?;
        disk::qcow2(&shared.join(format!("{}-swap.qcow2", cast.name)), 8)?;
        let file = format!("{}.xml", cast.name);
        fs::write(shared.join(&file), definition(cast, look))?;
        self.virsh(&["create", &format!("{SHARED}/{file}")])?.ok()?;
        let witness = scene.witness(cast);
        witness.wait()?;
        Ok(witness)
    }

    /// Waits until a guest runs here and no longer there.
    pub(super) fn has_it_alone(&self, other: &Libvirt<'_>, guest: &str) -> Result<()> {
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
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
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

/// What our engine was started with: the rival's guest looks the same.
pub(super) struct Look {
    pub(super) machine: String,
    pub(super) cpu: String,
}

impl Look {
    /// Reads it off our engine's own command line.
    pub(super) fn of_engine(pid: u32) -> Result<Look> {
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
        Ok(Look { machine: after("-machine")?, cpu })
    }
}

fn definition(cast: &Cast, look: &Look) -> String {
    let Cast { name, memory_mib, .. } = cast;
    let Look { machine, cpu } = look;
    let command_line = cast.command_line();
    let disk = |file: &str, format: &str, place: &str| {
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='{format}' cache='none'/>\
             <source file='{SHARED}/{file}'/><target dev='{place}' bus='virtio'/></disk>"
        )
    };
    let root = disk(&format!("{name}-root.img"), "raw", "vda");
    let swap = disk(&format!("{name}-swap.qcow2"), "qcow2", "vdb");
    format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='{machine}'>hvm</type><kernel>{SHARED}/vmlinuz</kernel>
<initrd>{SHARED}/witness.cpio</initrd><cmdline>{command_line}</cmdline></os>
<features><acpi/><apic/></features>
<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>{cpu}</model></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{root}{swap}
<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>
<serial type='pty'/><rng model='virtio'><backend model='builtin'/></rng><memballoon model='virtio'/>
<panic model='isa'/></devices></domain>\n"
    )
}
