// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest that somebody has started with `xl`, beside ours.

use crate::xen::scene::{refused, start_daemon};
use crate::xen::{XenHost, XenLab};
use anyhow::{Context as _, Result, ensure};

/// As people have them: no word of processors, a policy of its own. The hosts share one disk, which
/// is another guest's.
const CLASSIC: &str = r#"
type = "pvh"
name = "old"
kernel = "/files/vmlinuz"
ramdisk = "/files/witness.cpio"
extra = "console=hvc0 quiet witness.ip=10.77.0.60/24 witness.memory=8 witness.seed=60"
memory = 80
vif = [ "bridge=xenbr0" ]
on_crash = "restart"
"#;
const ANSWERS: &str =
    "for i in $(seq 200); do ping -c1 -W1 10.77.0.60 >/dev/null && exit 0; done; exit 1";
const UPTIME: &str = "for i in $(seq 50); do
    printf 'status\\n' | socat -t 5 - TCP:10.77.0.60:7777,connect-timeout=2 2>/dev/null |
        sed -n 's/^ok uptime_ms=\\([0-9]*\\) .* memory_errors=0 .*/\\1/p' | grep . && exit 0
    sleep 0.2; done; exit 1";
/// The domain's number, and the process that xl has left to see to its end.
const NUMBER: &str = "xl domid old";
const WATCHED: &str = "readlink /proc/[0-9]*/fd/1 | grep -q /xl-old.log";
/// The daemon is killed as soon as the guest is owned.
const HALF_ADOPTED: &str = "id=$(xl list -v | awk '$1 == \"old\" { print $7 }')
    (whimbrel adopt old &)
    for i in $(seq 600); do [ -s /var/lib/whimbrel/guests/$id/ownership ] && break; sleep 0.05; done
    kill -9 $(cat /run/daemon.pid)";

fn uptime(host: &XenHost) -> Result<u64> {
    let said = host.run(UPTIME)?;
    said.trim().parse().with_context(|| said.clone())
}

/// What somebody has started with `xl` is seen and left alone; adopted, it is like any other, and
/// was never booted anew.
pub(super) fn a_guest_of_xl(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    one.run(&format!("cat > /tmp/old.cfg <<'END'\n{CLASSIC}END\nxl create -q /tmp/old.cfg"))?;
    let listed = one.run("whimbrel list")?;
    ensure!(listed.contains("not adopted"), "it is not seen: {listed}");
    one.run(ANSWERS)?;
    let number = one.run(NUMBER)?;
    one.run(WATCHED)?;
    for verb in ["migrate old xen2 --no-probe", "stop old", "rm old", "console old --read-only"] {
        refused(one, &format!("whimbrel {verb}"), "guest/not-ours")?;
    }
    let shown = one.run("whimbrel show old")?;
    ensure!(shown.contains("`whimbrel adopt old`"), "it does not say what to do: {shown}");

    // A daemon that dies in the middle leaves one that can be adopted again, or one that is ours.
    one.run(HALF_ADOPTED)?;
    start_daemon(one)?;
    if one.run("whimbrel list")?.contains("not adopted") {
        println!("{}", one.run("time whimbrel adopt old")?);
    }
    one.run(&format!("! {WATCHED}"))?;
    let listed = one.run("whimbrel list")?;
    ensure!(!listed.contains("not adopted"), "it is not ours: {listed}");
    one.run("kill -9 $(cat /run/daemon.pid)")?;
    start_daemon(one)?;
    ensure!(one.run("whimbrel show old")?.contains("running"), "it was not found again");
    ensure!(one.run(NUMBER)? == number, "it is in another domain");

    let before = uptime(one)?;
    println!("{}", one.run("whimbrel migrate old xen2 --no-probe")?);
    ensure!(uptime(two)? > before, "it was booted anew");
    one.run("! xl list old")?;
    two.run("whimbrel stop --now old && whimbrel rm old && ! xl list old")?;
    Ok(())
}
