// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The test guest as a medium that firmware boots: one image that is a CD and a disk, for BIOS and
//! for UEFI, made with GRUB.

use crate::command::run;
use crate::image::GuestImage;
use crate::setting::Skip;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What GRUB needs to make such an image; packages that `./x packages` installs.
const NEEDS: [&str; 5] = [
    "/usr/bin/grub-mkrescue",
    "/usr/bin/xorriso",
    "/usr/bin/mformat",
    "/usr/lib/grub/i386-pc/boot.img",
    "/usr/lib/grub/x86_64-efi/moddep.lst",
];

/// Where Debian keeps the firmware for UEFI.
const UEFI: &str = "/usr/share/OVMF";

/// Makes the image at `path`; its kernel is told `command_line`.
pub fn make(image: &GuestImage, command_line: &str, path: &Path) -> Result<()> {
    if let Some(missing) = NEEDS.iter().find(|file| !Path::new(file).exists()) {
        return Err(Skip(format!("no bootable image can be made without {missing}")).into());
    }
    let tree = path.with_extension("tree");
    fs::create_dir_all(tree.join("boot/grub"))?;
    fs::copy(&image.kernel, tree.join("boot/vmlinuz"))?;
    fs::copy(&image.initramfs, tree.join("boot/witness.cpio"))?;
    let menu = format!(
        "serial --unit=0 --speed=115200\nterminal_output serial\nset timeout=0\n\
         menuentry witness {{\n linux /boot/vmlinuz {command_line}\n \
         initrd /boot/witness.cpio\n}}\n"
    );
    fs::write(tree.join("boot/grub/grub.cfg"), menu)?;
    let mut make = Command::new("grub-mkrescue");
    make.arg("-o").arg(path).arg(&tree).args(["--fonts=", "--locales=", "--themes="]);
    run(&mut make).context("failed to make a bootable image")?;
    fs::remove_dir_all(&tree)?;
    Ok(())
}

/// Skips a story that needs UEFI where there is none.
pub fn need_uefi() -> Result<()> {
    match Path::new(UEFI).exists() {
        true => Ok(()),
        false => Err(Skip("there is no UEFI firmware: apt-get install ovmf".to_owned()).into()),
    }
}
