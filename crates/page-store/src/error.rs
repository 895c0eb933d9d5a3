// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Why something of the page store was not done. A migration goes on without it.

use std::io;
use std::path::{Path, PathBuf};

use whimbrel_model::problem::{Kind, Remedy};
use whimbrel_model::units::Bytes;
use whimbrel_pages::image::{ImageId, ManifestError};

use crate::about::hex;
use crate::held::HeldError;

/// What is wrong with a file that was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("it is cut off, or is no image")]
    Image,
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Held(#[from] HeldError),
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("failed to {action} `{}`", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is neither a plain file nor a folder of the page store", .path.display())]
    NotPlain { path: PathBuf },
    #[error("no memory image is kept in `{}`", .path.display())]
    NoImage { path: PathBuf },
    #[error(
        "`{}` is image {}, and {} was asked for",
        .path.display(), hex(*.found), hex(*.expected)
    )]
    OtherImage { path: PathBuf, found: ImageId, expected: ImageId },
    #[error("`{}` holds other pages than were asked for", .path.display())]
    OtherPages { path: PathBuf },
    #[error("`{}` cannot be used", .path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: Damage,
    },
    #[error("`{}` would have {needed}, and at most {bytes_max} are allowed", .path.display())]
    TooLarge { path: PathBuf, needed: Bytes, bytes_max: Bytes },
    #[error("`{}` has too many parts to be kept", .path.display())]
    TooManyParts { path: PathBuf },
    #[error("only {free} of {total} are free where `{}` lies", .path.display())]
    LittleSpace { path: PathBuf, free: Bytes, total: Bytes },
    #[error("`{}` is being written already", .path.display())]
    Busy { path: PathBuf },
    #[error("`{}` was given up while it was written", .path.display())]
    GivenUp { path: PathBuf },
}

impl StoreError {
    pub(crate) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| StoreError::Io { action, path, source }
    }
}

impl Remedy for StoreError {
    fn code(&self) -> &'static str {
        match self {
            StoreError::Io { .. } | StoreError::NotPlain { .. } => "pages/unusable",
            StoreError::NoImage { .. } => "pages/no-image",
            StoreError::OtherImage { .. } | StoreError::OtherPages { .. } => "pages/other-image",
            StoreError::Damaged { .. } => "pages/damaged",
            StoreError::TooLarge { .. } | StoreError::TooManyParts { .. } => "pages/too-large",
            StoreError::LittleSpace { .. } => "pages/little-space",
            StoreError::Busy { .. } => "pages/busy",
            StoreError::GivenUp { .. } => "pages/given-up",
        }
    }

    fn kind(&self) -> Kind {
        Kind::Failed
    }

    fn remedy(&self) -> String {
        match self {
            StoreError::Io { path, .. } | StoreError::NotPlain { path } => format!(
                "make `{}` usable for the user that runs the daemon; until then no memory is kept \
                 there, and migrations carry all of it",
                path.display()
            ),
            StoreError::NoImage { .. }
            | StoreError::OtherImage { .. }
            | StoreError::OtherPages { .. }
            | StoreError::Damaged { .. } => {
                "nothing needs to be done: the migration carries all of the memory".into()
            }
            StoreError::TooLarge { .. } | StoreError::TooManyParts { .. } => {
                "raise `budget` in the section `[pages]` of the config, if this memory is worth \
                 the space"
                    .into()
            }
            StoreError::LittleSpace { .. } => {
                "free some space on this file system; memory is kept again when there is some"
                    .into()
            }
            StoreError::Busy { .. } => "wait until the migration that writes it has ended".into(),
            StoreError::GivenUp { .. } => {
                "nothing needs to be done: it was dropped, or the space was needed".into()
            }
        }
    }
}
