// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Where distributions keep the UEFI firmware for guests.

use crate::error::EngineError;
use std::path::Path;
use whimbrel_model::facts::UefiFacts;
use whimbrel_model::passport::{BootRole, Passport};

/// The file of a guest's own variables, in its directory.
pub(super) const VARIABLES: &str = "uefi-variables.fd";

/// A firmware: its code, and the empty variables that every guest begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) code: &'static str,
    pub(super) variables: &'static str,
}

const IMAGES: [Image; 5] = [
    // Debian, Ubuntu.
    Image { code: "/usr/share/OVMF/OVMF_CODE_4M.fd", variables: "/usr/share/OVMF/OVMF_VARS_4M.fd" },
    Image { code: "/usr/share/OVMF/OVMF_CODE.fd", variables: "/usr/share/OVMF/OVMF_VARS.fd" },
    // Fedora, RHEL.
    Image {
        code: "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        variables: "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    },
    // Arch.
    Image {
        code: "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        variables: "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    },
    // openSUSE.
    Image {
        code: "/usr/share/qemu/ovmf-x86_64-code.bin",
        variables: "/usr/share/qemu/ovmf-x86_64-vars.bin",
    },
];

/// Returns the firmware that is installed here.
pub(super) fn installed() -> Result<Image, EngineError> {
    IMAGES
        .into_iter()
        .find(|image| Path::new(image.code).exists() && Path::new(image.variables).exists())
        .ok_or_else(|| EngineError::Unsupported {
            what: "UEFI, because no firmware for it is installed (Debian: `apt install ovmf`)"
                .to_owned(),
        })
}

/// Returns the empty variables that belong to a firmware's code.
pub(super) fn variables_of(code: &Path) -> Result<&'static Path, EngineError> {
    IMAGES
        .into_iter()
        .find(|image| Path::new(image.code) == code)
        .map(|image| Path::new(image.variables))
        .ok_or_else(|| EngineError::Unsupported {
            what: format!("the UEFI firmware `{}`, which is not known here", code.display()),
        })
}

/// Says what a guest's UEFI has for its variables in this directory, or would begin with.
pub(super) fn facts(directory: &Path, passport: &Passport) -> Option<UefiFacts> {
    let mut files = passport.boot_files.iter();
    let firmware = files.find(|file| file.role == BootRole::Firmware)?;
    let own = directory.join(VARIABLES).metadata();
    let is_own = own.is_ok();
    let found = own.or_else(|_| {
        let template = variables_of(&firmware.path).map_err(|error| error.to_string())?;
        template.metadata().map_err(|error| format!("`{}`: {error}", template.display()))
    });
    Some(match found {
        Ok(metadata) => UefiFacts::Variables { bytes: metadata.len(), is_own },
        Err(reason) => UefiFacts::Missing { reason },
    })
}
