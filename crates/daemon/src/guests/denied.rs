// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! An engine that is denied a file hears no more than "permission denied". Who has denied it may
//! have said so in the audit log, or in the kernel's.

use crate::guests::Papers;
use std::path::PathBuf;
use std::time::SystemTime;
use whimbrel_api::{Kind, Problem};
use whimbrel_host::security;
use whimbrel_model::facts::Denial;
use whimbrel_model::guest::{Boot, DiskSource};

whimbrel_model::codes! {
    DENIED = "engine/file-denied": "SELinux or AppArmor denies the engine a file of the guest.";
}

/// Returns who has denied the guest's engine a file since then; nothing if nobody has said so.
pub(super) async fn since(papers: &Papers, since: SystemTime) -> Option<Problem> {
    let files = files(papers);
    let looking = move || {
        files.into_iter().find_map(|path| {
            let denial = security::denial_of_file(&path, inode(&path), since)?;
            Some((path, denial))
        })
    };
    // A panic ends the whole daemon.
    let (path, denial) = tokio::task::spawn_blocking(looking).await.ok()??;
    let path = path.display();
    let (who, record, remedy) = match denial {
        Denial::Selinux { record } => (
            "SELinux",
            record,
            format!(
                "`semanage fcontext -a -t svirt_image_t '{path}' && restorecon {path}`; on NFS: \
                 `setsebool -P virt_use_nfs 1`"
            ),
        ),
        Denial::Apparmor { record } => (
            "AppArmor",
            record,
            format!(
                "add `{path} rwk,` to the profile's file in /etc/apparmor.d/local, then \
                 `systemctl reload apparmor`"
            ),
        ),
        _ => return None,
    };
    let text = format!("{who} denies the engine `{path}`: {record}");
    Some(Problem::new(Kind::Refused, DENIED, text, remedy))
}

/// Every file of this host that the guest's engine opens.
fn files(papers: &Papers) -> Vec<PathBuf> {
    let disks = papers.guest.disks.iter().filter_map(|disk| match &disk.source {
        DiskSource::Path(path) => Some(path.clone()),
        DiskSource::Nfs(_) => None,
    });
    let mut files: Vec<_> = disks.collect();
    if let Boot::Kernel { kernel, ramdisk, .. } = &papers.guest.boot {
        files.push(kernel.clone());
        files.extend(ramdisk.clone());
    }
    files
}

fn inode(path: &std::path::Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Some(std::fs::metadata(path).ok()?.ino())
}
