// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Two real Xen hosts on one machine, each in a QEMU that emulates all of it.
//!
//! The hosts share a disk, and a network of their own; commands reach their control domains over a
//! port of the loopback interface that leads into each.

pub mod image;
pub(crate) mod scene;

use crate::image::GuestImage;
use crate::setting::Setting;
use anyhow::{Context as _, Result, ensure};
use image::HostImage;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a host may take to boot, emulated on a busy machine.
const BOOT_PATIENCE: Duration = Duration::from_secs(120);
/// Longest a command in a host may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(400);
/// What the kernel on the medium that firmware boots is told.
const BOOT_COMMAND_LINE: &str = "console=ttyS0 quiet witness.ip=10.77.0.50/24 witness.memory=8 \
                                 witness.seed=50 witness.disk_ms=1000";
const SHARED_BYTES: u64 = 64 << 20;

/// Both hosts; they end with this.
pub struct XenLab {
    pub hosts: [XenHost; 2],
    _place: tempfile::TempDir,
}

pub struct XenHost {
    pub name: String,
    number: u8,
    port: u16,
    serial: PathBuf,
    engine: Child,
}

impl XenLab {
    /// Boots both hosts with the programs and the guest's files in `/files`.
    pub fn boot(setting: &Setting, programs: &[PathBuf]) -> Result<XenLab> {
        let image = HostImage::build(&setting.cache())?;
        let place = tempfile::tempdir()?;
        let files = place.path().join("files.img");
        pack_files(programs, &setting.image()?, place.path(), &files)?;
        let shared = place.path().join("shared.img");
        File::create(&shared)?.set_len(SHARED_BYTES)?;
        let host = |number| XenHost::start(number, &image, place.path());
        let hosts = [host(1)?, host(2)?];
        for host in &hosts {
            host.wait()?;
        }
        Ok(XenLab { hosts, _place: place })
    }
}

/// Makes the read-only disk that brings everything of ours into the hosts.
fn pack_files(programs: &[PathBuf], guest: &GuestImage, place: &Path, disk: &Path) -> Result<()> {
    let tree = place.join("files");
    fs::create_dir(&tree)?;
    guest.copy_to(&tree)?;
    crate::bootable::make(guest, BOOT_COMMAND_LINE, &tree.join("boot.iso"))?;
    for (name, text) in image::PROGRAMS {
        image::write_program(&tree.join(name), text)?;
    }
    for program in programs {
        // Without what only a debugger reads it is a third as long.
        let name = program.file_name().context("a program has a name")?;
        let mut strip = Command::new("strip");
        crate::command::run(strip.arg("-o").arg(tree.join(name)).arg(program))?;
    }
    let mut make = Command::new("mkfs.ext4");
    crate::command::run(make.args(["-q", "-d"]).arg(&tree).arg(disk).arg("192M"))
}

impl XenHost {
    fn start(number: u8, image: &HostImage, place: &Path) -> Result<XenHost> {
        let other = 3 - number;
        let name = format!("xen{number}");
        // Free a moment ago; QEMU binds it again at once.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let serial = place.join(format!("{name}.serial"));
        let path = |name: &str| place.join(name).display().to_string();
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-M", "pc"]);
        command.args(["-accel", "tcg,thread=multi", "-cpu", "qemu64,+npt,-rdtscp"]);
        command.args(["-m", "1024", "-smp", "1", "-kernel"]).arg(&image.xen);
        command.args([
            "-append",
            "console=com1 com1=115200,8n1 dom0_mem=512M,max:512M dom0_max_vcpus=1 noreboot \
             spec-ctrl=no xpti=no ucode=no",
            "-initrd",
            &format!(
                "{} console=hvc0 quiet mitigations=off whimbrel.host={name} \
                 whimbrel.address=10.77.0.{number},{}",
                image.kernel.display(),
                image.initramfs.display()
            ),
        ]);
        let root = image.root.display().to_string();
        let disks = [
            ("root", root, "snapshot=on", ""),
            ("shared", path("shared.img"), "cache=none", ",share-rw=on"),
            ("files", path("files.img"), "readonly=on", ""),
        ];
        for (slot, (id, file, how, more)) in disks.iter().enumerate() {
            command.args([
                "-drive",
                &format!("if=none,id={id},format=raw,file={file},{how},file.locking=off"),
                "-device",
                &format!("virtio-blk-pci,drive={id},addr={}{more}", slot + 4),
            ]);
        }
        let (ours, theirs) = (path(&format!("lan{number}")), path(&format!("lan{other}")));
        command.args([
            "-netdev",
            &format!(
                "dgram,id=lan,local.type=unix,local.path={ours},remote.type=unix,remote.path={theirs}"
            ),
            "-device",
            &format!("virtio-net-pci,netdev=lan,mac=52:54:00:00:00:0{number},addr=8"),
            "-netdev",
            &format!(
                "user,id=commands,restrict=on,net=10.8.{number}.0/24,\
                 hostfwd=tcp:127.0.0.1:{port}-10.8.{number}.15:1024"
            ),
            "-device",
            &format!("virtio-net-pci,netdev=commands,mac=52:54:00:00:01:0{number},addr=9"),
            "-serial",
            &format!("file:{}", serial.display()),
        ]);
        let said = File::create(place.join(format!("{name}.qemu")))?;
        let engine = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn()?;
        Ok(XenHost { name, number, port, serial, engine })
    }

    /// Its address in the network that the hosts and their guests share.
    pub fn address(&self) -> String {
        format!("10.77.0.{}", self.number)
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.serial).unwrap_or_default()).into_owned()
    }

    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + BOOT_PATIENCE;
        while !self.said().contains("READY") {
            let said = self.said();
            ensure!(!said.contains("Dom0 crashed"), "{} crashed:\n{said}", self.name);
            ensure!(Instant::now() < deadline, "{} does not boot:\n{said}", self.name);
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Runs a shell script in the control domain; what it says is in the error, too.
    pub fn run(&self, script: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(COMMAND_PATIENCE))?;
        stream.write_all(script.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).with_context(|| format!("{}: {script}", self.name))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (said, status) = text.rsplit_once("\n#exit ").unwrap_or((&text, "none"));
        ensure!(status.trim() == "0", "{}: `{script}` ends with {status}: {said}", self.name);
        Ok(said.to_owned())
    }
}

impl Drop for XenHost {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.engine.kill();
        let _ = self.engine.wait();
    }
}
