// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The chapter of 2008 on real Xen, typed through `xm`, with the guest's disk on NFS that the first
//! host exports and both have at the same path.

use super::WALL;
use crate::xen::scene::{is_here, refused};
use crate::xen::{XenHost, XenLab};
use anyhow::{Context as _, Result, ensure};

/// `XenGuest1.cfg`, as its owner wrote it, but for the address and the kernel's place.
const GUEST: &str = r#"# A guest of the chapter.
name = "centos.5-1"
memory = 127
vcpus = 1
kernel = "/files/vmlinuz"
ramdisk = "/files/witness.cpio"
extra = "console=hvc0 quiet witness.ip=10.77.0.51/24 witness.memory=8 witness.seed=51 witness.disk_ms=1000"
disk = [ 'tap:aio:/srv/xen/xenguest.img,xvda,w' ]
vif = [ 'bridge=xenbr0' ]
on_reboot = 'restart'
on_crash = 'restart'
"#;

/// NFS needs no more than this where no init system does it.
const EXPORT: &str = "set -e; mkdir -p /srv/xen; modprobe nfsd
    mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
    mkdir -p /run/rpc_pipefs /var/lib/nfs/v4recovery; touch /var/lib/nfs/etab
    exportfs -o rw,no_root_squash,insecure,no_subtree_check 10.77.0.0/24:/srv/xen
    rpc.mountd --no-udp --no-nfs-version 3 || true
    rpc.nfsd --no-udp --no-nfs-version 3 --lease-time 10 --grace-time 10 4
    truncate -s 16M /srv/xen/xenguest.img";
const MOUNT: &str = "mkdir -p /srv/xen
    for i in $(seq 50); do
        mount -t nfs -o vers=4.2,soft 10.77.0.1:/srv/xen /srv/xen && exit 0; sleep 0.5
    done; exit 1";

pub(super) fn as_printed(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    one.run(EXPORT)?;
    two.run(MOUNT)?;
    one.run(&format!("cat > /srv/xen/XenGuest1.cfg <<'END'\n{GUEST}END"))?;
    for host in [one, two] {
        host.run("ln -sf whimbrel /usr/bin/xm")?;
    }

    // "Checking that the guest will run successfully on both the source and target hosts."
    create_and_watch(two)?;
    two.run("xm shutdown centos.5-1 -w && ! xl list | grep centos")?;
    create_and_watch(one)?;
    let number = number_in_list(one)?;

    // "If this port is blocked by the firewall."
    two.run(WALL)?;
    let said = refused(one, &format!("xm migrate {number} 10.77.0.2 -l"), "plan/unreachable")?;
    ensure!(said.contains("8002"), "the port is not named: {said}");
    two.run("nft delete table inet wall")?;

    // "After a short period of time the guest domain will no longer appear."
    one.run(&format!("xm migrate {number} 10.77.0.2 -l"))?;
    one.run("! xm list | grep centos")?;
    number_in_list(two)?;
    ensure!(is_here(two, "centos.5-1")?, "Xen does not have it on the target");
    two.run(ANSWERS)?;
    two.run("xm log | grep -q centos.5-1")?;

    // Made by `xm create`, it is forgotten when it has ended.
    two.run("xm shutdown centos.5-1 -w && ! xm list | grep centos")?;
    Ok(())
}

/// It counts on its disk, which it can reach.
const ANSWERS: &str = "for i in $(seq 50); do
    printf 'status\\n' | socat -t 5 - TCP:10.77.0.51:7777,connect-timeout=2 2>/dev/null |
        grep ' problems=0' | grep -v ' boot0=0 ' && exit 0
    sleep 0.2; done; exit 1";

/// `xm create XenGuest1.cfg -c`, until it has booted; then Ctrl+].
fn create_and_watch(host: &XenHost) -> Result<()> {
    host.run(
        "cd /srv/xen; rm -f /tmp/keys; mkfifo /tmp/keys
         (timeout 120 script -qefc 'xm create XenGuest1.cfg -c' /dev/null \
             </tmp/keys >/tmp/typed 2>&1) &
         exec 3>/tmp/keys
         while kill -0 $! && ! grep -q 'witness: ready' /tmp/typed; do sleep 0.1; done
         printf '\\035' >&3; wait; cat /tmp/typed; grep -q 'witness: ready' /tmp/typed",
    )?;
    Ok(())
}

/// Reads the guest's number off `xm list`, and checks the chapter's columns.
fn number_in_list(host: &XenHost) -> Result<String> {
    let listed = host.run("xm list")?;
    let mut rows = listed.lines().filter(|row| !row.is_empty());
    let header = rows.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    ensure!(header == ["Name", "ID", "Mem(MiB)", "VCPUs", "State", "Time(s)"], "{listed}");
    ensure!(listed.contains("Domain-0"), "no Domain-0: {listed}");
    let row = rows.find(|row| row.starts_with("centos.5-1")).context(listed.clone())?;
    let columns: Vec<_> = row.split_whitespace().collect();
    ensure!(columns[2..4] == ["127", "1"], "not the chapter's columns: {row}");
    Ok(columns[1].to_owned())
}
