// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Why a domain cannot be moved, by what xenstore says of it.

use super::loops::{self, Loop};
use super::store::plain::Store;
use std::io;

/// The state of a backend whose guest has the driver for it.
const CONNECTED: &str = "4";

/// What xenstore says of a domain.
#[derive(Debug, Default)]
struct Seen {
    /// Its kernel can be shut down by the host, and says so.
    says_poweroff: bool,
    says_suspend: bool,
    /// Disks that are files behind a loop device that goes through the cache.
    loops: Vec<Loop>,
    /// Disks that are images with tables of their own.
    tables: Vec<String>,
    /// Disks of a whole machine that it has as QEMU makes them, through the cache.
    emulated: Vec<String>,
}

/// Asks xenstored; may block.
pub(super) fn of(number: u32) -> io::Result<Vec<String>> {
    let mut store = Store::open()?;
    let mut says = |feature: &str| -> io::Result<bool> {
        let key = format!("/local/domain/{number}/control/feature-{feature}");
        Ok(store.read(&key)?.is_some_and(|said| said == "1"))
    };
    let (says_poweroff, says_suspend) = (says("poweroff")?, says("suspend")?);
    let mut seen = Seen { says_poweroff, says_suspend, ..Seen::default() };
    seen.loops = loops::cached(number)?;
    let disks = format!("/local/domain/0/backend/qdisk/{number}");
    for disk in store.list(&disks)? {
        let params = store.read(&format!("{disks}/{disk}/params"))?.unwrap_or_default();
        seen.tables.extend(params.strip_prefix("qcow2:").map(str::to_owned));
    }
    // Of other guests' disks QEMU knows nothing.
    if !store.list(&format!("/local/domain/{number}/hvmloader"))?.is_empty() {
        let disks = format!("/local/domain/0/backend/vbd/{number}");
        for disk in store.list(&disks)? {
            let mut read = |key: &str| store.read(&format!("{disks}/{disk}/{key}"));
            if read("state")?.as_deref() != Some(CONNECTED) {
                seen.emulated.extend(read("params")?);
            }
        }
    }
    Ok(hindrances(&seen))
}

fn hindrances(seen: &Seen) -> Vec<String> {
    // Kernels before 4.11 say nothing of either, and can be suspended all the same.
    let cannot_suspend = seen.says_poweroff && !seen.says_suspend;
    let suspend = cannot_suspend.then(|| {
        "its kernel cannot be suspended (it was built without hibernation callbacks)".to_owned()
    });
    let loops = seen.loops.iter().map(|Loop { path, node }| {
        format!(
            "its disk `{path}` is behind `{node}`, which keeps in this host's cache what the other \
             one would have to see; `losetup --direct-io=on {node}` mends it"
        )
    });
    let tables = seen.tables.iter().map(|path| {
        format!(
            "its disk `{path}` is a qcow2 image, and Xen does not have its tables written before \
             the other host reads them"
        )
    });
    let emulated = seen.emulated.iter().map(|path| {
        format!(
            "its disk `{path}` is used without Xen's drivers, through a cache that the other host \
             does not see; install them in the guest"
        )
    });
    suspend.into_iter().chain(loops).chain(tables).chain(emulated).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hinders_is_named() {
        let said = |says_poweroff, says_suspend| {
            hindrances(&Seen { says_poweroff, says_suspend, ..Seen::default() }).len()
        };
        assert_eq!((said(true, true), said(true, false), said(false, false)), (0, 1, 0));
        let (path, node) = ("/srv/xen/web1.img".to_owned(), "/dev/loop0".to_owned());
        let loops = vec![Loop { path, node }];
        let tables = vec!["/srv/xen/web2.qcow2".to_owned()];
        let emulated = vec!["/dev/vg/web3".to_owned()];
        let found = hindrances(&Seen { loops, tables, emulated, ..Seen::default() });
        assert!(found[0].contains("`/srv/xen/web1.img` is behind `/dev/loop0`"), "{found:?}");
        assert!(found[1].contains("`/srv/xen/web2.qcow2` is a qcow2 image"), "{found:?}");
        assert!(found[2].contains("`/dev/vg/web3` is used without Xen's drivers"), "{found:?}");
    }
}
