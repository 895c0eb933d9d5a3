// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Where distributions keep the UEFI firmware for guests.

use crate::error::EngineError;
use std::path::Path;

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
