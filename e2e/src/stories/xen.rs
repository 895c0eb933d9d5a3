// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Guests on real Xen.

use crate::setting::Setting;
use crate::xen::{XenHost, XenLab};
use anyhow::{Result, ensure};

const CONFIG: &str = r#"
[host]
host_min_memory = "32 MiB"
[relocation]
enabled = true
allow_paths = ["/dev"]
allow_bridges = ["xenbr0"]
"#;

const GUEST: &str = r#"
name = "web1"
memory = "128 MiB"
[boot]
kernel = "/files/vmlinuz"
ramdisk = "/files/witness.cpio"
command_line = "console=hvc0 quiet witness.ip=10.77.0.50/24 witness.memory=8 witness.seed=50"
[[disk]]
path = "/dev/vdb"
format = "raw"
[[network]]
bridge = "xenbr0"
"#;

/// What is asked of the guest over the network, and must be answered.
const ANSWERS: &str =
    "for i in $(seq 50); do ping -c1 -W1 10.77.0.50 >/dev/null && exit 0; done; exit 1";

fn furnish(host: &XenHost) -> Result<()> {
    host.run(&format!(
        "mkdir -p /etc/whimbrel; cp /files/whimbrel /usr/bin/
         cat > /etc/whimbrel/whimbrel.toml <<'END'\n{CONFIG}END
         cat > /etc/whimbrel/web1.toml <<'END'\n{GUEST}END
         setsid whimbrel daemon >/var/log/whimbrel.log 2>&1 </dev/null &
         for i in $(seq 100); do whimbrel list >/dev/null 2>&1 && exit 0; sleep 0.1; done
         cat /var/log/whimbrel.log; exit 1"
    ))?;
    Ok(())
}

/// A PVH guest with a disk and a network card moves while it runs, and comes back; nothing of it
/// stays behind.
pub(super) fn live_there_and_back(setting: &Setting) -> Result<()> {
    let lab = XenLab::boot(setting)?;
    let [one, two] = &lab.hosts;
    furnish(one)?;
    furnish(two)?;
    let token = one.run("whimbrel host invite --address 10.77.0.1:8002")?;
    two.run(&format!("echo '{}' | whimbrel host join", token.trim()))?;
    one.run("whimbrel create /etc/whimbrel/web1.toml")?;
    one.run(ANSWERS)?;
    for (from, to) in [(one, two), (two, one)] {
        from.run(&format!("whimbrel migrate web1 {}", to.name))?;
        ensure!(!from.run("xl list")?.contains("web1"), "a copy stays on {}", from.name);
        let there = to.run("xl list")?;
        ensure!(there.contains("web1 "), "it is not on {}: {there}", to.name);
        to.run(ANSWERS)?;
        from.run("! ls /var/lib/whimbrel/carry/* 2>/dev/null")?;
    }
    Ok(())
}
