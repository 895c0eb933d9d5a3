// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A real systemd on a host of the lab: it starts the daemon, and takes the host down.
//!
//! It is process 1 of a process namespace, with control groups of its own and a boot id of its own
//! at each boot. Of the machine's units it sees only the few that order a boot and a shutdown; ours
//! are those that are shipped, in `share/systemd`. Two more stand for the network and the storage,
//! and write down how many engines there still were when they went.

use super::Host;
use super::process::{Ran, wait_with_deadline};
use crate::setting::Skip;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SYSTEMD: &str = "/lib/systemd/systemd";
const MACHINE_UNITS: &str = "/lib/systemd/system";
const OUR_UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../share/systemd");
/// What the machine's own units give to the host.
const BORROWED: [&str; 19] = [
    "basic.target",
    "final.target",
    "local-fs-pre.target",
    "local-fs.target",
    "network-online.target",
    "network-pre.target",
    "network.target",
    "paths.target",
    "poweroff.target",
    "remote-fs-pre.target",
    "remote-fs.target",
    "shutdown.target",
    "slices.target",
    "sockets.target",
    "swap.target",
    "sysinit.target",
    "systemd-poweroff.service",
    "timers.target",
    "umount.target",
];
/// How long a boot may take, and a shutdown with guests that do as they are asked.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long killed processes may take to be gone.
const DEATH_PATIENCE: Duration = Duration::from_secs(5);

/// Leaves the control groups of the lab for one of the host's own, then all other namespaces but
/// that of the network, and becomes systemd there. `$1` is a directory for it.
const BOOT: &str = r#"
set -eu
mkdir -p "$1/groups"
mountpoint -q "$1/groups" || mount -t cgroup2 cgroup2 "$1/groups"
mkdir -p "$1/groups/$2"
echo $$ > "$1/groups/$2/cgroup.procs"
exec unshare --pid --cgroup --mount --ipc --fork --kill-child --mount-proc sh -euc '
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    cat /proc/sys/kernel/random/uuid > "$1/boot_id"
    mount --bind "$1/boot_id" /proc/sys/kernel/random/boot_id
    cat /proc/sys/kernel/hostname > /etc/hostname
    rm -rf /run/systemd
    exec env -i container=lab SYSTEMD_UNIT_PATH="$1/units" '"$3"' --system \
        --unit=lab.target --log-target=console --log-level=warning --show-status=no
' boot "$1"
"#;

/// A host that systemd has booted.
pub struct Booted<'a> {
    host: &'a Host,
    directory: PathBuf,
    group: String,
    init: Option<Child>,
}

impl Host {
    /// Boots the host with systemd, which starts the daemon, and waits until that answers.
    pub fn boot(&self) -> Result<Booted<'_>> {
        for needed in [SYSTEMD, "/usr/bin/unshare", "/usr/bin/systemctl"] {
            if !Path::new(needed).exists() {
                bail!(Skip(format!("there is no `{needed}` on this machine")));
            }
        }
        let directory = self.directory.join("systemd");
        let programs = directory.join("bin");
        fs::create_dir_all(&programs)?;
        if !programs.join("whimbrel").exists() {
            symlink(&self.program, programs.join("whimbrel"))?;
            self.show(&programs, "/usr/local/bin")?;
        }
        self.write_units(&directory.join("units"), &directory)?;
        let group = self.namespace.clone();
        let mut command = Command::new("sh");
        command.args(["-c", BOOT, "boot"]).arg(&directory).args([&group, SYSTEMD]);
        let log = fs::File::options().create(true).append(true).open(self.daemon_log())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let init = Some(self.place.spawn(command)?);
        let mut booted = Booted { host: self, directory, group, init };
        booted.wait()?;
        Ok(booted)
    }

    fn write_units(&self, units: &Path, directory: &Path) -> Result<()> {
        fs::create_dir_all(units.join("lab.target.wants"))?;
        for name in BORROWED {
            fs::copy(Path::new(MACHINE_UNITS).join(name), units.join(name))
                .with_context(|| format!("failed to borrow {name}"))?;
        }
        for unit in fs::read_dir(OUR_UNITS)? {
            let unit = unit?;
            fs::copy(unit.path(), units.join(unit.file_name()))?;
        }
        let log = self.daemon_log();
        let said = format!("[Service]\nStandardOutput=append:{}\n", log.display());
        for unit in ["whimbrel.service", "whimbrel-guests.service"] {
            let more = units.join(format!("{unit}.d"));
            fs::create_dir_all(&more)?;
            fs::write(more.join("lab.conf"), &said)?;
        }
        fs::write(
            units.join("lab.target"),
            "[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n",
        )?;
        for (name, target) in [("network", "network.target"), ("storage", "remote-fs.target")] {
            let went = directory.join(format!("{name}-went"));
            let text = format!(
                "[Unit]\nBefore={target} network-online.target\nWants={target}\n[Service]\n\
                 Type=oneshot\nRemainAfterExit=yes\nExecStart=true\n\
                 ExecStop=sh -c 'pgrep -c qemu > {}; true'\n",
                went.display()
            );
            fs::write(units.join(format!("lab-{name}.service")), text)?;
        }
        for name in ["lab-network.service", "lab-storage.service", "whimbrel.service"] {
            let wants = units.join("lab.target.wants").join(name);
            if !wants.exists() {
                symlink(Path::new("..").join(name), wants)?;
            }
        }
        Ok(())
    }
}

impl Booted<'_> {
    /// Waits until the daemon answers.
    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.host.place.run(|| UnixStream::connect(super::host::API_SOCKET)).is_err() {
            let init = self.init.as_mut().expect("it was just started");
            let ended = init.try_wait()?;
            ensure!(ended.is_none(), "systemd ended: {}", self.host.daemon_said());
            ensure!(Instant::now() < deadline, "no daemon: {}", self.host.daemon_said());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Types a command of systemd's; it is answered only inside the host's own namespaces.
    pub fn systemctl(&self, arguments: &[&str]) -> Result<Ran> {
        let unshare = self.init.as_ref().context("the host is down")?.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))?;
        let enter = ["--target", children.trim(), "--pid", "--mount", "--cgroup", "systemctl"];
        self.host.command("nsenter".as_ref(), &[&enter, arguments].concat(), "")
    }

    /// Takes the host down as a person would, and waits until it is.
    pub fn power_off(mut self) -> Result<()> {
        self.systemctl(&["poweroff"])?.ok()?;
        let init = self.init.as_mut().expect("it is there until this");
        let ended = wait_with_deadline(init, PATIENCE)?;
        ensure!(ended.is_some(), "the host does not go down: {}", self.host.daemon_said());
        self.init = None;
        Ok(())
    }

    /// How many engines there still were when the network, or the storage, went.
    pub fn engines_when_went(host: &Host, what: &str) -> Result<u32> {
        let path = host.directory.join(format!("systemd/{what}-went"));
        let text = fs::read_to_string(&path).with_context(|| format!("the {what} never went"))?;
        Ok(text.trim().parse()?)
    }
}

impl Drop for Booted<'_> {
    fn drop(&mut self) {
        if let Some(mut init) = self.init.take() {
            // Takes everything in its process namespace along.
            let _ = init.kill();
            let _ = init.wait();
        }
        let root = self.directory.join("groups").join(&self.group);
        self.host.place.run(move || {
            let deadline = Instant::now() + DEATH_PATIENCE;
            // A group goes once the last process in it is really gone.
            while root.exists() && Instant::now() < deadline {
                remove_groups(&root);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    }
}

/// Removes a control group and those below it, if they are empty; the files in them are not real.
fn remove_groups(group: &Path) {
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    below.filter(|entry| entry.path().is_dir()).for_each(|entry| remove_groups(&entry.path()));
    // Tried again where processes are still about to go.
    let _ = fs::remove_dir(group);
}
