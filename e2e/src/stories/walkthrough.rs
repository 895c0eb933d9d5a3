// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The chapter of 2008, typed as it was printed.

use crate::disk;
use crate::lab::Host;
use crate::scene::{SOON, Scene, until};
use crate::setting::Setting;
use crate::terminal::Terminal;
use crate::witness::Witness;
use anyhow::{Context as _, Result, ensure};

/// `XenGuest1.cfg`, as its owner wrote it: two whole devices, root on the first.
const GUEST: &str = r#"# A guest of the chapter.
name = "centos.5-1"
memory = 127
vcpus = 1
kernel = "/srv/guests/vmlinuz"
ramdisk = "/srv/guests/witness.cpio"
root = "/dev/xvda1"
extra = "console=ttyS0 quiet witness.ip=10.77.0.50/24 witness.memory=8"
disk = [ 'tap:aio:/srv/guests/xenguest.img,xvda1,w', 'tap:aio:/srv/guests/xenguest.swap,xvda2,w' ]
vif = [ 'bridge=br0' ]
on_reboot = 'restart'
on_crash = 'restart'
"#;

/// What the chapter sets in `/etc/xen/xend-config.sxp`, on both hosts.
const XEND: &str = "(xend-relocation-server yes)
(xend-relocation-hosts-allow '')
#(xend-port            8000)
#(xend-relocation-port 8002)
";

/// Every section of the chapter, in its order.
pub(super) fn the_chapter_as_printed(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let shared = &scene.lab.shared;
    disk::raw(&shared.join("xenguest.img"), 16)?;
    disk::raw(&shared.join("xenguest.swap"), 8)?;
    std::fs::write(shared.join("XenGuest1.cfg"), GUEST)?;
    // "The necessary changes need to be implemented on both the source and target."
    for host in [alpha, beta] {
        enable_migration(host)?;
    }
    scene.pair()?;

    // "Checking that the guest will run successfully on both the source and target hosts."
    for host in [alpha, beta] {
        create_and_watch(host)?;
        host.xm(&["shutdown", "centos.5-1", "-w"])?.ok()?;
        until("it has exited", SOON, || Ok(!lists(host)?)).context(host.name.clone())?;
    }

    create_and_watch(alpha)?;
    let witness = Witness::new(&scene.lab.client);
    let before = witness.wait()?;
    let id = number_in_list(alpha)?;
    let target = beta.address.to_string();

    // "If this port is blocked by the firewall": named, as then, and with the remedy.
    beta.set_blocked(Some(8002))?;
    let refused = alpha.xm(&["migrate", &id, &target, "-l"])?.refused(1, "No route to host")?;
    ensure!(refused.contains("8002"), "the port is not named: {refused}");
    beta.set_blocked(None)?;

    // "After a short period of time the guest domain will no longer appear."
    alpha.xm(&["migrate", &id, &target, "-l"])?.ok()?;
    until("the source no longer lists it", SOON, || Ok(!lists(alpha)?))?;
    ensure!(lists(beta)?, "not on the target");
    let after = witness.is_well()?;
    ensure!(after.boot(0)? == before.boot(0)?, "it was booted anew: {after:?}");
    let log = beta.xm(&["log"])?.ok()?;
    ensure!(log.contains("centos.5-1"), "the log does not tell of it: {log}");

    // "A common cause for the migration failing is insufficient memory on the target."
    let config = alpha.place.run(|| std::fs::read_to_string(CONFIG))?;
    alpha.configure(&format!("[host]\nhost_min_memory = \"4 TiB\"\n{config}"))?;
    alpha.whimbrel(&["reload"])?.ok()?;
    let back = number_in_list(beta)?;
    beta.xm(&["migrate", &back, "alpha", "-l"])?.refused(1, "plan/memory")?;
    let log = beta.xm(&["log"])?.ok()?;
    let sum = "host_min_memory is 4294967296 KiB and keeping it would leave only";
    ensure!(log.contains(sum), "the log does not do the sum: {log}");
    alpha.configure(&config)?;
    alpha.whimbrel(&["reload"])?.ok()?;

    // Without `-l`: stopped first, copied then.
    beta.xm(&["migrate", &back, "alpha"])?.ok()?;
    ensure!(witness.is_well()?.boot(0)? == before.boot(0)?, "it was booted anew on its way back");
    // Made by `xm create`, the guest is transient: shut down, it is forgotten.
    alpha.xm(&["shutdown", "centos.5-1", "-w"])?.ok()?;
    until("it is forgotten", SOON, || Ok(!lists(alpha)?))
}

const CONFIG: &str = "/etc/whimbrel/whimbrel.toml";

/// Carries the old configuration over, and adds what xend had no word for: what guests may bring.
fn enable_migration(host: &Host) -> Result<()> {
    let place = "/etc/xen/xend-config.sxp";
    host.place.run(move || {
        std::fs::create_dir_all("/etc/xen")?;
        std::fs::write(place, XEND)
    })?;
    let converted = host.whimbrel(&["import", place])?.ok()?;
    ensure!(converted.contains("enabled = true"), "not enabled: {converted}");
    let bounds = "allow_paths = [\"/srv/guests\"]\nallow_bridges = [\"br0\"]";
    let bounded = converted.replacen("[relocation]", &format!("[relocation]\n{bounds}"), 1);
    ensure!(bounded != converted, "no [relocation]: {converted}");
    host.configure(&bounded)?;
    host.stop_daemon()?;
    host.start_daemon()
}

/// `cd /xen; xm create XenGuest1.cfg -c`, until it has booted; then Ctrl+].
fn create_and_watch(host: &Host) -> Result<()> {
    // Also makes the link.
    ensure!(!lists(host)?, "it is there already");
    let typed = format!("cd /srv/guests && {} create XenGuest1.cfg -c", host.xm_link().display());
    let console = Terminal::open(host, &typed)?;
    console.shown.wait_for("witness: ready", SOON * 3).context(host.name.clone())?;
    console.leave()
}

fn lists(host: &Host) -> Result<bool> {
    Ok(host.xm(&["list"])?.ok()?.contains("centos.5-1"))
}

/// Reads the guest's number off `xm list`, and checks the chapter's columns.
fn number_in_list(host: &Host) -> Result<String> {
    let listed = host.xm(&["list"])?.ok()?;
    let mut rows = listed.lines();
    let header = rows.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    ensure!(header == ["Name", "ID", "Mem(MiB)", "VCPUs", "State", "Time(s)"], "{listed}");
    ensure!(listed.contains("Domain-0"), "no Domain-0: {listed}");
    let row = rows.find(|row| row.starts_with("centos.5-1")).context(listed.clone())?;
    let columns: Vec<_> = row.split_whitespace().collect();
    ensure!(columns[2..4] == ["127", "1"], "not the chapter's columns: {row}");
    Ok(columns[1].to_owned())
}
