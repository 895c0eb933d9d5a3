// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Will the guest's next reboot, on the target, find what it needs?

use super::{Finding, Question, disks};
use crate::codes;
use crate::facts::BootFileState;
use crate::passport::{BootFile, BootRole};

pub(super) fn boot_files(question: &Question<'_>) -> Vec<Finding> {
    let Some(passport) = question.passport else { return Vec::new() };
    passport.boot_files.iter().map(|file| boot_file(question, file)).collect()
}

fn boot_file(question: &Question<'_>, file: &BootFile) -> Finding {
    let role = match file.role {
        BootRole::Kernel => "kernel",
        BootRole::Ramdisk => "ramdisk",
        BootRole::Firmware => "firmware",
    };
    let (source, target) = (question.source_name(), question.target_name());
    let path = file.path.display();
    let copy = format!("copy it: `rsync -a {source}:{path} {path}` on `{target}`");
    let facts = question.target.guest.boot_files.iter();
    let state = facts.into_iter().find(|facts| facts.path == file.path).map(|facts| &facts.state);
    let blocker =
        |text: String, remedy: String| Finding::blocker(codes::PLAN_BOOT_FILE, text, remedy);
    // The firmware belongs to the engine's installation, not to what a peer may choose.
    if file.role != BootRole::Firmware
        && let Some(finding) = disks::allowed_path(question, &path.to_string(), role)
    {
        return finding;
    }
    match state {
        Some(BootFileState::Present { blake3, .. }) if *blake3 == file.blake3 => Finding::ok(
            codes::PLAN_BOOT_FILE,
            format!("the {role} `{path}` is the same on `{target}`"),
        ),
        Some(BootFileState::Present { bytes, .. }) => blocker(
            format!(
                "the {role} `{path}` is another one on `{target}`: {bytes} bytes there, {} bytes \
                 when `{}` started, and the content differs",
                file.bytes,
                question.guest_name()
            ),
            match file.role {
                BootRole::Firmware => "install the same firmware package on both hosts".to_owned(),
                BootRole::Kernel | BootRole::Ramdisk => copy,
            },
        ),
        Some(BootFileState::Missing) => {
            blocker(format!("the {role} `{path}` is missing on `{target}`"), copy)
        }
        Some(BootFileState::Unreadable { reason }) => blocker(
            format!("the {role} `{path}` cannot be read on `{target}`: {reason}"),
            format!("let the user `{}` read it", question.target.host.engine_user.name),
        ),
        None => Finding::warning(
            codes::PLAN_BOOT_FILE,
            format!("`{target}` has not said whether it has the {role} `{path}`"),
            "run the same version of Whimbrel on both hosts",
        ),
    }
}
