// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest that is a whole machine (HVM): QEMU makes what its firmware sees, and its kernel brings
//! the drivers for Xen.

use super::{live_there_and_back, what_a_guest_is_told};
use crate::xen::XenLab;
use crate::xen::scene::{ANSWERS, refused};
use anyhow::{Result, ensure};

/// It boots what lies in `/files`; the disk is for its data.
const GUEST: &str = r#"
name = "web1"
memory = "160 MiB"
[boot]
from = "cdrom"
[[disk]]
path = "/dev/vdb"
format = "raw"
[[disk]]
path = "/files/boot.iso"
format = "raw"
read_only = true
device = "cdrom"
[[network]]
bridge = "xenbr0"
"#;

/// Boots by firmware, is told what every guest is told, moves live there and back; and is refused
/// by a host that cannot make such machines.
pub(super) fn boots_and_moves(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    one.run(&format!(
        "whimbrel stop --now web1 && whimbrel rm web1
         cat > /etc/whimbrel/hvm.toml <<'END'\n{GUEST}END
         whimbrel create /etc/whimbrel/hvm.toml"
    ))?;
    one.run(ANSWERS)?;
    what_a_guest_is_told(lab)?;
    let model = "/usr/libexec/xen-qemu-system-i386";
    two.run(&format!("mv {model} {model}.away"))?;
    let said = refused(one, super::MIGRATE, "plan/machine")?;
    ensure!(said.contains("apt install qemu-system-xen"), "no way out: {said}");
    two.run(&format!("mv {model}.away {model}"))?;
    live_there_and_back(lab)
}
