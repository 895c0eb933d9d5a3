// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Will a disk image find room to grow on its file system, and is it read past the page caches?

use super::super::{Finding, Question};
use crate::codes;
use crate::facts::{DiskPresent, FileKind};
use crate::guest::Disk;

pub(super) fn space(question: &Question<'_>, disk: &Disk, there: &DiskPresent) -> Option<Finding> {
    let (space, grows) = (there.space?, there.grows?);
    if disk.is_read_only {
        return None;
    }
    let (source, target) = (&disk.source, question.target_name());
    let mount = there.file_system.mount_point.display();
    Some(match grows <= space {
        true => Finding::ok(
            codes::PLAN_DISK_SPACE,
            format!("`{source}` may still grow by {grows}, and {space} are free on `{mount}`"),
        ),
        false => Finding::warning(
            codes::PLAN_DISK_SPACE,
            format!(
                "`{source}` may still grow by {grows}, and only {space} are free on `{mount}` \
                 (seen from `{target}`): the guest stands still once it is full"
            ),
            format!("make room there: `du -x -h {mount} | sort -h | tail`"),
        ),
    })
}

/// A host that caches a shared file can give its engine what another host has overwritten.
pub(super) fn cache(
    question: &Question<'_>,
    disk: &Disk,
    here: Option<&DiskPresent>,
    there: &DiskPresent,
) -> Option<Finding> {
    let is_direct = |view: &DiskPresent| view.kind == FileKind::Nfs || view.is_direct == Some(true);
    let is_unknown = |view: &DiskPresent| view.is_direct.is_none() && view.kind != FileKind::Nfs;
    let here = here?;
    if is_unknown(here) || is_unknown(there) {
        return None;
    }
    let (source, from, to) = (&disk.source, question.source_name(), question.target_name());
    let says =
        |view| if is_direct(view) { "past its page cache" } else { "through its page cache" };
    if is_direct(here) && is_direct(there) {
        let text = format!("`{from}` and `{to}` both use `{source}` past their page caches");
        return Some(Finding::ok(codes::PLAN_DISK_CACHE, text));
    }
    Some(Finding::warning(
        codes::PLAN_DISK_CACHE,
        format!(
            "`{from}` uses `{source}` {}, `{to}` {}: what the file system `{}` ({}) keeps in a \
             cache can be older than the disk",
            says(here),
            says(there),
            there.file_system.source,
            there.file_system.kind
        ),
        "put the image on a file system that allows O_DIRECT, such as NFS, XFS or ext4",
    ))
}
