// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Will the target's engine find the same disks at the same places, and may it write them?

mod access;
mod space;

use super::{Finding, Question};
use crate::codes;
use crate::facts::{DiskPresent, DiskState, FileKind, Mark};
use crate::guest::{Disk, DiskSource};
use std::path::Path;

pub(super) fn disks(question: &Question<'_>) -> Vec<Finding> {
    let disks = question.guest.disks.iter().enumerate();
    disks.flat_map(|(index, disk)| check(question, index, disk)).collect()
}

fn check(question: &Question<'_>, index: usize, disk: &Disk) -> Vec<Finding> {
    let target = question.target_name();
    let source = &disk.source;
    let facts = question.target.guest.disks.get(index).filter(|facts| facts.source == *source);
    let there = match facts.map(|facts| &facts.state) {
        Some(DiskState::Present(there)) => &**there,
        Some(DiskState::Missing) => return vec![missing(question, index, source)],
        Some(DiskState::Unknown { reason }) => {
            return vec![Finding::blocker(
                codes::PLAN_DISK,
                format!("nobody can tell whether `{target}` has the disk `{source}`: {reason}"),
                format!("on `{target}`: `ls -l {source}` shows the cause; then try again"),
            )];
        }
        None => {
            return vec![Finding::blocker(
                codes::PLAN_DISK,
                format!("`{target}` has said nothing about the disk `{source}`"),
                "run the same version of Whimbrel on both hosts",
            )];
        }
    };
    let resolved = match source {
        DiskSource::Path(_) => there.resolved.display().to_string(),
        DiskSource::Nfs(url) => url.clone(),
    };
    if let Some(finding) = allowed_path(question, &resolved, "disk") {
        return vec![finding];
    }
    let mut findings = vec![same(question, index, source, there)];
    findings.extend(access::access(question, disk, there));
    findings.extend(space::space(question, disk, there));
    findings.extend(space::cache(question, disk, here(question, index), there));
    findings
}

fn missing(question: &Question<'_>, index: usize, source: &DiskSource) -> Finding {
    let target = question.target_name();
    let here = here(question, index).map(|here| &here.file_system);
    let mount = match here.filter(|here| here.kind.starts_with("nfs")) {
        Some(here) => format!(
            "mount it: `mount -t nfs {} {}` on `{target}`",
            here.source,
            here.mount_point.display()
        ),
        None => format!(
            "make its folder reachable at the same path on `{target}`, by NFS for example: export \
             it on `{}` and mount it there",
            question.source_name()
        ),
    };
    Finding::blocker(codes::PLAN_DISK, format!("`{target}` has no disk `{source}`"), mount)
}

/// Returns the disk as the source sees it.
fn here<'a>(question: &Question<'a>, index: usize) -> Option<&'a DiskPresent> {
    match &question.source.guest.disks.get(index)?.state {
        DiskState::Present(disk) => Some(disk),
        DiskState::Missing | DiskState::Unknown { .. } => None,
    }
}

/// What the two views of a disk say about its being one disk.
enum Sameness {
    Proven(String),
    Likely(String),
    Different(String),
    Unknown(String),
}

/// Compares the two views. A mark that one host leaves and the other finds proves one folder, and
/// a file has one number on its file system, whoever mounts it. Sizes come last: an image may have
/// grown between two looks, and clients of one server may remember different ones.
fn compare(here: &DiskPresent, there: &DiskPresent) -> Sameness {
    let different = |what: &str, here: &dyn std::fmt::Display, there: &dyn std::fmt::Display| {
        Sameness::Different(format!("{what} is {here} here and {there} there"))
    };
    if here.kind != there.kind {
        return different("its kind", &kind_name(here.kind), &kind_name(there.kind));
    }
    let has_mark = match (&here.mark, &there.mark) {
        (Mark::Found { text: ours }, Mark::Found { text: theirs }) if ours == theirs => true,
        (Mark::Found { .. }, Mark::Found { .. } | Mark::Absent) => {
            return Sameness::Different("a mark left beside it here is not there".to_owned());
        }
        (Mark::Found { .. } | Mark::Absent | Mark::NotTried, _) => false,
    };
    match (here.inode, there.inode) {
        // One folder, and still two files: somebody has just replaced one.
        (Some(ours), Some(theirs)) if ours != theirs => different("its inode", &ours, &theirs),
        _ if has_mark => Sameness::Proven("a mark left beside it here was found there".to_owned()),
        _ if here.kind == FileKind::Nfs => {
            Sameness::Likely("both read it from the same server".to_owned())
        }
        _ if here.size != there.size => different("its size in bytes", &here.size.0, &there.size.0),
        (Some(inode), Some(_)) => Sameness::Likely(format!("both see inode {inode}")),
        (Some(_), None) | (None, Some(_) | None) => {
            let kind = kind_name(here.kind);
            Sameness::Unknown(format!("no mark could be left beside the {kind}"))
        }
    }
}

fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::BlockDevice => "block device",
        FileKind::Nfs => "file on an NFS server",
        FileKind::Other => "special file",
    }
}

fn same(
    question: &Question<'_>,
    index: usize,
    source: &DiskSource,
    there: &DiskPresent,
) -> Finding {
    let (from, to) = (question.source_name(), question.target_name());
    let both = format!("`{source}` on `{from}` and on `{to}`");
    let sameness = match here(question, index) {
        Some(here) => compare(here, there),
        None => Sameness::Unknown(format!("`{from}` could not look at its own")),
    };
    // Of a disk that only the engine can open, nobody knows the size.
    let size = match there.kind {
        FileKind::Nfs => String::new(),
        FileKind::File | FileKind::BlockDevice | FileKind::Other => format!(" of {}", there.size),
    };
    match sameness {
        Sameness::Proven(why) | Sameness::Likely(why) => {
            Finding::ok(codes::PLAN_DISK_SAME, format!("{both} is one disk{size}: {why}"))
        }
        Sameness::Different(why) => Finding::blocker(
            codes::PLAN_DISK_SAME,
            format!("{both} are two different disks: {why}"),
            format!(
                "mount the storage that `{from}` uses at the same path on `{to}` (now `{}` is \
                 mounted on `{}` there)",
                there.file_system.source,
                there.file_system.mount_point.display()
            ),
        ),
        Sameness::Unknown(why) => Finding::warning(
            codes::PLAN_DISK_SAME,
            format!("nobody can prove that {both} is one disk: {why}"),
            format!(
                "make sure of it (compare `blkid {source}` on both hosts): the guest would be \
                 damaged on another disk"
            ),
        ),
    }
}

/// Returns the blocker for a file that the target does not let arriving guests use.
pub(super) fn allowed_path(question: &Question<'_>, path: &str, what: &str) -> Option<Finding> {
    let target = question.target.host;
    let allowed = &target.relocation.allow_paths;
    if allowed.iter().any(|allowed| lies_in(path, allowed)) {
        return None;
    }
    let list = if allowed.is_empty() { "empty".to_owned() } else { allowed.join(", ") };
    let folder = match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((folder, _)) => folder,
    };
    Some(Finding::blocker(
        codes::PLAN_DISK_ALLOWED,
        format!(
            "`{}` does not let arriving guests use the {what} `{path}` (`allow_paths` there: \
             {list})",
            target.name
        ),
        format!(
            "on `{}`: add \"{folder}\" to `allow_paths` in `[relocation]` of whimbrel.toml, then \
             `systemctl reload whimbrel`",
            target.name
        ),
    ))
}

/// Whether a file lies in a folder, part by part: `/xen2/a` does not lie in `/xen`.
pub fn lies_in(path: &str, folder: &str) -> bool {
    match (path.starts_with("nfs://"), folder.starts_with("nfs://")) {
        (true, true) => {
            let rest = path.strip_prefix(folder.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (false, false) => Path::new(path).starts_with(folder),
        (true, false) | (false, true) => false,
    }
}
