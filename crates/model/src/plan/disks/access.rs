// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Why the target's engine may not open a disk, and the command that lets it.

use super::super::{Finding, Question};
use crate::codes;
use crate::facts::{Access, Denial, DiskPresent, FileKind, UserFacts};
use crate::guest::Disk;

/// Judges what the target's engine may do with a disk: read, and write unless it is read-only.
pub(super) fn access(question: &Question<'_>, disk: &Disk, there: &DiskPresent) -> Vec<Finding> {
    let wanted: &[(&str, &Access)] = match disk.is_read_only {
        true => &[("read", &there.read)],
        false => &[("read", &there.read), ("write", &there.write)],
    };
    let user = &question.target.host.engine_user.name;
    let place = format!("`{}` on `{}`", disk.source, question.target_name());
    for (verb, access) in wanted {
        match access {
            Access::Granted => {}
            // What keeps it from being read keeps it from being written: one finding is enough.
            Access::Denied(denial) => return vec![denied(question, there, verb, &place, denial)],
            Access::Unknown { .. } if there.kind == FileKind::Nfs => {
                return vec![Finding::ok(
                    codes::PLAN_DISK_ACCESS,
                    format!("the target's engine will try {place} before anything is copied"),
                )];
            }
            Access::Unknown { reason } => {
                return vec![Finding::warning(
                    codes::PLAN_DISK_ACCESS,
                    format!(
                        "nobody can tell whether the user `{user}` may {verb} {place}: {reason}"
                    ),
                    "the target's engine is started before anything is copied, and will tell",
                )];
            }
        }
    }
    let verbs = if disk.is_read_only { "read" } else { "read and write" };
    vec![Finding::ok(codes::PLAN_DISK_ACCESS, format!("the user `{user}` may {verbs} {place}"))]
}

fn denied(
    question: &Question<'_>,
    there: &DiskPresent,
    verb: &str,
    place: &str,
    denial: &Denial,
) -> Finding {
    let user = &question.target.host.engine_user.name;
    let (why, remedy) = cause(question, there, verb, denial);
    let text =
        format!("the user `{user}`, which the engine runs as, may not {verb} {place}: {why}");
    Finding::blocker(codes::PLAN_DISK_ACCESS, text, remedy)
}

/// Why it is denied, and what helps.
fn cause(
    question: &Question<'_>,
    there: &DiskPresent,
    verb: &str,
    denial: &Denial,
) -> (String, String) {
    let target = question.target_name();
    let user = &question.target.host.engine_user.name;
    let UserFacts { uid, gid, .. } = question.target.host.engine_user;
    let path = there.resolved.display();
    let file_system = &there.file_system;
    let mount = file_system.mount_point.display();
    match denial {
        Denial::ReadOnlyMount => (
            format!("`{}` is mounted read-only on `{mount}`", file_system.source),
            match file_system.kind.starts_with("nfs") {
                true => format!(
                    "export it `rw` on its server (`exportfs -ra`), then on `{target}`: `mount -o \
                     remount,rw {mount}`"
                ),
                false => format!("on `{target}`: `mount -o remount,rw {mount}`"),
            },
        ),
        Denial::Server { reason } => (
            format!("the NFS server `{}` says no to uid {uid}: {reason}", file_system.source),
            format!(
                "on `{}`: `chown {uid}:{gid} {path}` (or `setfacl -m u:{uid}:rw {path}`), with an \
                 export that is `rw` and squashes no users (no `all_squash`), then `exportfs -ra`",
                file_system.source
            ),
        ),
        Denial::Mode { uid, gid, mode } => (
            format!("it belongs to uid {uid}, gid {gid}, with mode {mode:03o}"),
            format!("on `{target}`: `setfacl -m u:{user}:rw {path}` (or `chown {user} {path}`)"),
        ),
        Denial::Folder { path } => (
            format!("its folder `{}` may not be entered", path.display()),
            format!("on `{target}`: `setfacl -m u:{user}:x {}`", path.display()),
        ),
        Denial::RootSquash => (
            format!("the server of `{}` maps root to nobody (`root_squash`)", file_system.source),
            "add `no_root_squash` to the export in the server's /etc/exports, then there: \
             `exportfs -ra`"
                .to_owned(),
        ),
        Denial::Other { reason } => {
            (reason.clone(), format!("on `{target}`: let the user `{user}` {verb} `{path}`"))
        }
        Denial::Selinux { record } => by_selinux(question, there, record),
        Denial::Apparmor { record } => (
            format!("AppArmor denies it: {record}"),
            format!(
                "on `{target}`: add `{path} rwk,` to the profile's file in /etc/apparmor.d/local, \
                 then `systemctl reload apparmor`"
            ),
        ),
    }
}

fn by_selinux(question: &Question<'_>, there: &DiskPresent, record: &str) -> (String, String) {
    let (target, path) = (question.target_name(), there.resolved.display());
    let remedy = match there.file_system.kind.starts_with("nfs") {
        true => format!("on `{target}`: `setsebool -P virt_use_nfs 1`"),
        false => format!(
            "on `{target}`: `semanage fcontext -a -t svirt_image_t '{path}' && restorecon {path}`"
        ),
    };
    (format!("SELinux denies it: {record}"), remedy)
}
