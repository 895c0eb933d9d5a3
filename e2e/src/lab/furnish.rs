// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Furnishes a host from inside its namespaces: its own directories, devices and users.

use super::{ENGINE_UID, SHARED};
use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;
use std::fs;
use std::path::Path;

/// Directories of the machine that each host may change in its own copy.
const PRIVATE: [&str; 3] = ["/etc", "/srv", "/var/lib"];

/// Twice what hosts leave free: the stories take some, too.
const SPARE_PERCENT: u64 = 10;

const ENGINE_USER: &str = "whimbrel";

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
    keep_pages_elsewhere_if_full()?;
    bind(shared, Path::new(SHARED))?;
    add_engine_user()
}

/// Where the machine's disk is nearly full, hosts drop what they keep of guests' memory at once, as
/// they should; so that what they do with it is tested there, too, it lies in memory then.
fn keep_pages_elsewhere_if_full() -> Result<()> {
    let disk = statvfs("/var/lib/whimbrel").context("failed to look at the disk")?;
    if disk.blocks_available() * 100 / disk.blocks().max(1) > SPARE_PERCENT {
        return Ok(());
    }
    let pages = "/var/lib/whimbrel/pages";
    fs::create_dir_all(pages)?;
    let options = Some("mode=700");
    mount(Some("tmpfs"), pages, Some("tmpfs"), MsFlags::empty(), options)
        .context("no place for pages")
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

/// Writes the user that engines run as into this host's own copy of the user list. Done by hand:
/// the tools refuse to change a user of that name while the machine below runs anything as it.
fn add_engine_user() -> Result<()> {
    let user = format!("{ENGINE_USER}:x:{ENGINE_UID}:{ENGINE_UID}::/nonexistent:/usr/sbin/nologin");
    let group = format!("{ENGINE_USER}:x:{ENGINE_UID}:");
    for (path, entry) in [("/etc/passwd", user), ("/etc/group", group)] {
        let list = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let is_other = |line: &&str| line.split(':').next() != Some(ENGINE_USER);
        let mut lines: Vec<_> = list.lines().filter(is_other).map(str::to_owned).collect();
        // QEMU reaches /dev/kvm through this group, where there is one.
        for kvm in lines.iter_mut().filter(|line| path == "/etc/group" && line.starts_with("kvm:"))
        {
            let comma = if kvm.ends_with(':') { "" } else { "," };
            kvm.push_str(&format!("{comma}{ENGINE_USER}"));
        }
        lines.push(entry);
        fs::write(path, lines.join("\n") + "\n")?;
    }
    Ok(())
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
