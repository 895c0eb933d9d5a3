// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Furnishes a host from inside its namespaces: its own directories, devices and users.

use super::{ENGINE_UID, SHARED};
use crate::command::run;
use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Directories of the machine that each host may change in its own copy.
const PRIVATE: [&str; 3] = ["/etc", "/srv", "/var/lib"];

/// How a host sees the shared directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Writable,
    ReadOnly,
    Hidden,
}

/// Makes a freshly entered place a host.
pub(super) fn prepare(name: &str, directory: &Path, shared: &Path) -> Result<()> {
    let (none, none_text) = (None::<&Path>, None::<&str>);
    mount(none, "/", none_text, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none_text)?;
    fs::write("/proc/sys/kernel/hostname", name)?;
    // No addresses but ours: keeps the wire quiet.
    let _ = fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    show_own_devices(directory)?;

    let scratch = directory.join("scratch");
    fs::create_dir_all(&scratch)?;
    mount(Some("tmpfs"), &scratch, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    for place in PRIVATE {
        let own = scratch.join(place.trim_start_matches('/').replace('/', "-"));
        let [upper, work] = ["upper", "work"].map(|part| own.join(part));
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        let options =
            format!("lowerdir={place},upperdir={},workdir={}", upper.display(), work.display());
        mount(Some("overlay"), place, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("failed to make {place} private"))?;
    }
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;

    // State lies on a real disk: what is synced there was synced.
    bind(&directory.join("state"), Path::new("/var/lib/whimbrel"))?;
    bind(shared, Path::new(SHARED))?;
    add_engine_user()
}

/// Mounts a sysfs that shows this namespace's network devices, with the control groups kept.
fn show_own_devices(directory: &Path) -> Result<()> {
    let groups = directory.join("cgroup");
    let has_groups = Path::new("/sys/fs/cgroup").exists();
    if has_groups {
        bind(Path::new("/sys/fs/cgroup"), &groups)?;
    }
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
    if has_groups {
        bind(&groups, Path::new("/sys/fs/cgroup"))?;
        umount2(&groups, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// Shows a directory at another place, too.
pub(super) fn bind(from: &Path, to: &Path) -> Result<()> {
    for path in [from, to] {
        if !path.exists() {
            fs::create_dir_all(path)?;
        }
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("failed to show {} at {}", from.display(), to.display()))
}

/// Adds the user that engines run as, in this host's own copy of the user list.
fn add_engine_user() -> Result<()> {
    let users = fs::read_to_string("/etc/passwd")?;
    if users.lines().any(|line| line.starts_with("whimbrel:")) {
        run(Command::new("userdel").arg("whimbrel"))?;
    }
    let id = ENGINE_UID.to_string();
    run(Command::new("groupadd").args(["--system", "--gid", &id, "whimbrel"]))?;
    let mut add = Command::new("useradd");
    add.args(["--system", "--no-create-home", "--home-dir", "/nonexistent"]);
    add.args(["--shell", "/usr/sbin/nologin", "--uid", &id, "--gid", &id]);
    // QEMU reaches /dev/kvm through this group, where there is one.
    if fs::read_to_string("/etc/group")?.lines().any(|line| line.starts_with("kvm:")) {
        add.args(["--groups", "kvm"]);
    }
    run(add.arg("whimbrel"))
}

pub(super) fn see_shared(how: Share, shared: &Path) -> Result<()> {
    match umount2(SHARED, MntFlags::MNT_DETACH) {
        // It was hidden already.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
        Err(error) => return Err(error.into()),
    }
    if how == Share::Hidden {
        return Ok(());
    }
    bind(shared, Path::new(SHARED))?;
    if how == Share::ReadOnly {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&Path>, SHARED, None::<&str>, flags, None::<&str>)?;
    }
    Ok(())
}
