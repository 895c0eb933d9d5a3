// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Why an engine did not do what it was asked, and what to do about it.

use std::path::PathBuf;
use whimbrel_model::problem::{Kind, Remedy};

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the engine `{program}` is not installed")]
    NotInstalled { program: String },

    #[error("the engine `{program}` is version {found}, and at least {needed} is needed")]
    TooOld { program: String, found: String, needed: String },

    #[error("failed to start `{program}` for guest `{guest}`: {reason}")]
    Start { program: String, guest: String, reason: String },

    /// Another process holds the image, so starting would corrupt it.
    #[error("the image `{image}` of guest `{guest}` is in use by another process: {reason}")]
    ImageLocked { guest: String, image: String, reason: String },

    /// The unprivileged user the engine runs as may not open a file of the guest.
    #[error("the engine of guest `{guest}`, running as {user}, may not open `{}`", .path.display())]
    PermissionDenied { guest: String, user: String, path: PathBuf },

    #[error("the engine of guest `{guest}` is gone{}", said(.last_words))]
    Gone { guest: String, last_words: Option<String> },

    #[error("the engine of guest `{guest}` did not answer `{command}` within {seconds} s")]
    Silent { guest: String, command: String, seconds: u64 },

    #[error("the engine of guest `{guest}` refused `{command}`: {reason}")]
    Refused { guest: String, command: String, reason: String },

    /// The guest arrived paused and has never run here; this engine would abort if it moved on.
    #[error("guest `{guest}` arrived here paused, and QEMU {version} cannot move it on like this")]
    NeverRanHere { guest: String, version: String },

    /// A guest that others have started, and everything of it that ours cannot have.
    #[error("guest `{guest}` has what a definition cannot say: {}", .what.join(", "))]
    NotExpressible { guest: String, what: Vec<String> },

    #[error("the engine cannot do this: {what}")]
    Unsupported { what: String },

    #[error("failed to {action} `{}`", .path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

fn said(words: &Option<String>) -> String {
    words.as_ref().map(|words| format!("; its last words: {words}")).unwrap_or_default()
}

impl Remedy for EngineError {
    fn code(&self) -> &'static str {
        match self {
            EngineError::NotInstalled { .. } => "engine/not-installed",
            EngineError::TooOld { .. } => "engine/too-old",
            EngineError::Start { .. } => "engine/start-failed",
            EngineError::ImageLocked { .. } => "engine/image-locked",
            EngineError::PermissionDenied { .. } => "engine/permission-denied",
            EngineError::Gone { .. } => "engine/gone",
            EngineError::Silent { .. } => "engine/silent",
            EngineError::Refused { .. } => "engine/refused",
            EngineError::NeverRanHere { .. } => "engine/never-ran-here",
            EngineError::NotExpressible { .. } => "engine/not-expressible",
            EngineError::Unsupported { .. } => "engine/unsupported",
            EngineError::File { .. } => "engine/file-failed",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            EngineError::NotInstalled { .. }
            | EngineError::TooOld { .. }
            | EngineError::ImageLocked { .. }
            | EngineError::PermissionDenied { .. }
            | EngineError::NeverRanHere { .. }
            | EngineError::NotExpressible { .. }
            | EngineError::Unsupported { .. } => Kind::Refused,
            EngineError::Start { .. }
            | EngineError::Gone { .. }
            | EngineError::Silent { .. }
            | EngineError::Refused { .. }
            | EngineError::File { .. } => Kind::Failed,
        }
    }

    fn remedy(&self) -> String {
        match self {
            EngineError::NotInstalled { program } => format!(
                "install QEMU (Debian: `apt install qemu-system-x86`), or name the program in \
                 `[engine] binary`; `{program}` was looked for"
            ),
            EngineError::TooOld { needed, .. } => {
                format!("install QEMU {needed} or newer, or name another one in `[engine] binary`")
            }
            EngineError::Start { .. } => {
                "correct what the engine complains about and start the guest again".to_owned()
            }
            EngineError::ImageLocked { image, .. } => format!(
                "find the process that has it open (`fuser -v {image}`) and end it; never start \
                 two guests on one image"
            ),
            EngineError::PermissionDenied { user, path, .. } => permission_remedy(user, path),
            EngineError::Gone { guest, .. } => {
                format!("read what it said last with `whimbrel log {guest}`, then start it again")
            }
            EngineError::Silent { guest, .. } => format!(
                "look at the load of this host and at its storage; `whimbrel stop --now {guest}` \
                 ends the engine in any case"
            ),
            EngineError::Refused { .. } => {
                "the guest was left as it was; correct the cause and try again".to_owned()
            }
            EngineError::NeverRanHere { guest, .. } => {
                format!("let it run first, if only for a moment: `whimbrel unpause {guest}`")
            }
            EngineError::NotExpressible { .. } => {
                "leave it to the program that has started it, or start it there without these"
                    .to_owned()
            }
            EngineError::Unsupported { .. } => {
                "change the guest's definition, or use another engine".to_owned()
            }
            EngineError::File { path, .. } => {
                format!("make sure that `{}` can be used", path.display())
            }
        }
    }
}

fn permission_remedy(user: &str, path: &std::path::Path) -> String {
    let path = path.display();
    format!(
        "give it the image with `chown {user} {path}`, or only access with \
         `setfacl -m u:{user}:rw {path}`; every folder above must be searchable by {user} (`x`)"
    )
}
