// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the machine must have: root, and some Debian packages.

use crate::shell::run;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a machine is to be ready for. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Two hosts, and guests whose kernel the engine loads.
    Lab,
    /// Guests that firmware boots from media made here.
    Stories,
    /// What others do the same with.
    Bench,
}

/// A program (or, by its whole path, a file) we need, the package that has it, and what for.
struct Need {
    purpose: Purpose,
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const fn need(
    purpose: Purpose,
    program: &'static str,
    package: &'static str,
    why: &'static str,
) -> Need {
    Need { purpose, program, package, why }
}

const BIOS: &str = "/usr/lib/grub/i386-pc/boot.img";
const EFI: &str = "/usr/lib/grub/x86_64-efi/moddep.lst";
const LIBVIRT: &str = "/etc/libvirt/qemu.conf";
const LIBVIRT_INIT: &str = "/etc/init.d/libvirtd";
const NFS_FILES: &str = "/usr/lib/x86_64-linux-gnu/ganesha/libfsalvfs.so";
const NFS_DISKS: &str = "/usr/lib/x86_64-linux-gnu/qemu/block-nfs.so";
const OVMF: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";

const NEEDS: &[Need] = &[
    need(Purpose::Lab, "qemu-system-x86_64", "qemu-system-x86", "runs the guests"),
    need(Purpose::Lab, "qemu-img", "qemu-utils", "makes disk images"),
    need(Purpose::Lab, "ip", "iproute2", "makes the two hosts' networks"),
    need(Purpose::Lab, "nft", "nftables", "blocks a port, as a firewall would"),
    need(Purpose::Stories, "grub-mkrescue", "grub-common", "makes media that firmware boots"),
    need(Purpose::Stories, "xorriso", "xorriso", "writes them"),
    need(Purpose::Stories, "mformat", "mtools", "writes their EFI part"),
    need(Purpose::Stories, BIOS, "grub-pc-bin", "boots them by BIOS"),
    need(Purpose::Stories, EFI, "grub-efi-amd64-bin", "boots them by UEFI"),
    need(Purpose::Stories, OVMF, "ovmf", "is the guests' UEFI"),
    need(Purpose::Stories, "rpcbind", "rpcbind", "finds the NFS server"),
    need(Purpose::Stories, "ganesha.nfsd", "nfs-ganesha", "serves disks over NFS"),
    need(Purpose::Stories, NFS_FILES, "nfs-ganesha-vfs", "serves them from a directory"),
    need(Purpose::Stories, NFS_DISKS, "qemu-block-extra", "lets QEMU read disks over NFS"),
    need(Purpose::Bench, LIBVIRT, "libvirt-daemon-system", "is what we are compared with"),
    need(Purpose::Bench, LIBVIRT_INIT, "libvirt-daemon-system-sysv", "leaves systemd as it is"),
    need(Purpose::Bench, "mmdebstrap", "mmdebstrap", "makes a Debian that guests run"),
    need(Purpose::Bench, "mkfs.ext4", "e2fsprogs", "makes the disk it lies on"),
    need(Purpose::Bench, "losetup", "mount", "makes block devices for what we are compared with"),
    need(Purpose::Bench, "virsh", "libvirt-clients", "is what we are compared with"),
];

/// Packages that come from one source and must have one version.
const QEMU_PACKAGES: [&str; 5] =
    ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "qemu-utils", "qemu-block-extra"];

pub(crate) const WITHOUT_ROOT: &str = "\
Without root there are no bridges and no network namespaces, so no two hosts on this machine.
What works without: one host, and a guest with user networking. Showing that.
(For the two hosts, run ./x demo as root.)";

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

pub(crate) fn require_root() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(
        "this needs root: it makes two hosts out of network and mount namespaces, bridges and \
         taps.\n   Without root, `./x check` runs the fast tests and \
         `./x demo` shows a guest on one host."
    )
}

fn missing(purpose: Purpose) -> Vec<&'static Need> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places: Vec<_> = path.split(':').chain(["/usr/sbin", "/sbin"]).collect();
    let exists = |need: &&Need| places.iter().any(|dir| Path::new(dir).join(need.program).exists());
    NEEDS.iter().filter(|need| need.purpose <= purpose && !exists(need)).collect()
}

/// Names what is missing, for those who may not install it.
pub(crate) fn say_missing_packages() {
    for need in missing(Purpose::Lab) {
        eprintln!("missing: package {} ({})", need.package, need.why);
    }
}

/// Installs what is missing. Does nothing, and asks nobody, where all is there.
pub(crate) fn install_packages(purpose: Purpose) -> Result<()> {
    let missing = missing(purpose);
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("installing package {}: {}", need.package, need.why);
    }
    if !is_root() {
        bail!("installing packages needs root");
    }
    let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    if !can_install(&packages) {
        // No lists yet, or old ones.
        run(apt().args(["-qq", "update"])).context("cannot read the package lists")?;
    }
    let plan = plans(&packages)
        .into_iter()
        .find(|plan| simulate(plan).is_some_and(|plan| touches_only_qemu(&plan)))
        .with_context(|| format!("apt finds no way to install {}", packages.join(", ")))?;
    let mut install = apt();
    install.args(["-qq", "-y", "--no-install-recommends", "install"]).args(plan);
    run(install.stdout(Stdio::null()))
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn can_install(packages: &[&str]) -> bool {
    let plan: Vec<_> = packages.iter().map(|package| (*package).to_owned()).collect();
    simulate(&plan).is_some()
}

/// Ways to install, best first: as apt likes; all of QEMU from the stable suite, where a part of
/// it came from backports and fits nothing else; all of it from backports.
fn plans(packages: &[&str]) -> Vec<Vec<String>> {
    let plain: Vec<String> = packages.iter().map(|package| (*package).to_owned()).collect();
    let from = |suite: &str| {
        let mut plan = vec!["--allow-downgrades".to_owned()];
        let others = packages.iter().filter(|package| !QEMU_PACKAGES.contains(package));
        plan.extend(others.map(|package| (*package).to_owned()));
        let installed = QEMU_PACKAGES.iter().filter(|package| is_installed(package));
        let wanted = QEMU_PACKAGES.iter().filter(|package| packages.contains(package));
        let mut qemu: Vec<_> = installed.chain(wanted).chain(&QEMU_PACKAGES[..3]).collect();
        qemu.sort_unstable();
        qemu.dedup();
        plan.extend(qemu.iter().map(|package| format!("{package}/{suite}")));
        plan
    };
    vec![plain, from("bookworm"), from("bookworm-backports")]
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    let output = query.args(["-W", "-f", "${Status}", package]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| output.stdout.starts_with(b"install ok installed"))
}

/// Asks apt what it would do; `None` if it would not.
fn simulate(plan: &[String]) -> Option<String> {
    let mut command = apt();
    command.args(["-s", "-y", "--no-install-recommends", "install"]).args(plan);
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Tells whether a plan leaves everything alone that was there and is not QEMU: nothing is removed,
/// and only parts of QEMU change their version.
fn touches_only_qemu(plan: &str) -> bool {
    plan.lines().all(|line| {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("Remv"), ..) => false,
            // `Inst NAME [OLD VERSION] (NEW VERSION …)`: an upgrade or a downgrade.
            (Some("Inst"), Some(name), Some(old)) if old.starts_with('[') => {
                QEMU_PACKAGES.contains(&name)
            }
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// New packages and other versions of QEMU are fine; nothing else of the machine may change.
    #[test]
    fn plans_that_touch_the_machine_are_refused() {
        let check = |plan, expected| assert_eq!(touches_only_qemu(plan), expected, "{plan}");
        check("Inst nftables (1.0.6-2 Debian:12 [amd64])", true);
        check("Inst qemu-utils [1:10.0] (1:7.2 Debian:12 [amd64])\nConf qemu-utils (1:7.2)", true);
        check("Inst libc6 [2.36-9] (2.36-10 Debian:12 [amd64])", false);
        check("Remv qemu-utils [1:10.0]", false);
    }

    #[test]
    fn qemu_is_asked_for_as_a_whole() {
        let plans = plans(&["qemu-system-x86", "nftables"]);
        assert_eq!(plans[0], ["qemu-system-x86", "nftables"]);
        assert!(plans[1].contains(&"qemu-system-common/bookworm".to_owned()));
        assert!(plans[1].contains(&"nftables".to_owned()));
        assert!(plans[2].contains(&"qemu-system-data/bookworm-backports".to_owned()));
    }
}
