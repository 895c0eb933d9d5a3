// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The test guest: a Debian cloud kernel, and an initramfs with the witness and the modules it
//! needs. Built once and kept in a cache directory.

use crate::apt::{Apt, unpacked_once};
use crate::cpio::Archive;
use anyhow::{Context as _, Result};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// Modules the witness can use, on QEMU and on Xen; what they depend on comes along.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_balloon",
    "virtio_console",
    "virtio_rng",
    "button",
    "evdev",
    "pvpanic_pci",
    "pvpanic_mmio",
    "xen_blkfront",
    "xen_netfront",
];

/// What a guest boots.
#[derive(Clone, Debug)]
pub struct GuestImage {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
}

impl GuestImage {
    /// Takes the image from the cache, or downloads and builds it.
    pub fn build(cache: &Path, witness: &Path) -> Result<GuestImage> {
        fs::create_dir_all(cache)?;
        let tree = unpacked_once(&cache.join("kernel"), |partial| fetch_kernel(cache, partial))?;
        let kernel = find(&tree.join("boot"), |name| name.starts_with("vmlinuz-"))
            .context("the kernel package holds no kernel")?;
        let initramfs = cache.join("witness.cpio");
        if is_newer(witness, &initramfs)? || is_newer(&std::env::current_exe()?, &initramfs)? {
            let partial = cache.join(format!("witness.cpio.{}", std::process::id()));
            write_initramfs(&tree, witness, &partial)?;
            fs::rename(&partial, &initramfs)?;
        }
        Ok(GuestImage { kernel, initramfs })
    }

    /// Copies the image to where a host can see it, whatever user its engine runs as.
    pub fn copy_to(&self, directory: &Path) -> Result<GuestImage> {
        let copy = |from: &Path, name: &str| -> Result<PathBuf> {
            let to = directory.join(name);
            fs::copy(from, &to).with_context(|| format!("failed to copy {}", from.display()))?;
            Ok(to)
        };
        Ok(GuestImage {
            kernel: copy(&self.kernel, "vmlinuz")?,
            initramfs: copy(&self.initramfs, "witness.cpio")?,
        })
    }
}

fn fetch_kernel(cache: &Path, into: &Path) -> Result<()> {
    let fetch = |apt: Apt| -> Result<()> {
        let depends = apt.depends(KERNEL_PACKAGE)?;
        let package = depends.first().context("the kernel package is not known")?;
        apt.unpack(&[package], into)
    };
    fetch(Apt::system()).or_else(|_| {
        let suites = ["bookworm", "bookworm-updates", "bookworm-security"];
        fetch(Apt::private(&cache.join("apt"), &suites)?)
    })
}

/// Tells whether `input` changed after `output` was made, or `output` was never made.
fn is_newer(input: &Path, output: &Path) -> Result<bool> {
    let made = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let changed =
        made(input).with_context(|| format!("{} is missing: `./x` builds it", input.display()))?;
    Ok(made(output).map_or(true, |made| made <= changed))
}

fn write_initramfs(tree: &Path, witness: &Path, output: &Path) -> Result<()> {
    let modules = Modules::below(&tree.join("lib/modules"))?;
    let mut archive = Archive::new(BufWriter::new(File::create(output)?));
    for directory in ["dev", "proc", "sys", "sbin", "lib", "lib/modules"] {
        archive.directory(directory)?;
    }
    archive.program("init", &fs::read(witness)?)?;
    // What the kernel runs when the host asks the guest to end, on Xen.
    for name in ["sbin/poweroff", "sbin/reboot"] {
        archive.link(name, "/init")?;
    }
    let mut order = String::new();
    for (name, content) in modules.in_order(MODULES)? {
        let path = format!("lib/modules/{name}.ko");
        archive.file(&path, &content)?;
        order.push_str(&format!("/{path}\n"));
    }
    archive.file("lib/modules/order", order.as_bytes())?;
    archive.finish()?;
    Ok(())
}

/// The modules of a kernel, by name.
pub(crate) struct Modules(HashMap<String, PathBuf>);

impl Modules {
    pub(crate) fn below(directory: &Path) -> Result<Modules> {
        let mut found = HashMap::new();
        let mut waiting = vec![directory.to_owned()];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    waiting.push(path);
                } else if path.extension().is_some_and(|extension| extension == "ko") {
                    let name = path.file_stem().unwrap_or_default().to_string_lossy();
                    found.insert(name.replace('-', "_"), path);
                }
            }
        }
        Ok(Modules(found))
    }

    /// Returns the wanted modules and all they depend on, dependencies first.
    pub(crate) fn in_order(&self, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut order = Vec::new();
        for name in wanted {
            self.add(name, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        if order.iter().any(|(added, _)| added == name) {
            return Ok(());
        }
        let Some(path) = self.0.get(name) else {
            // Built into this kernel.
            return Ok(());
        };
        let content = fs::read(path)?;
        for dependency in dependencies(&content) {
            self.add(&dependency, order)?;
        }
        order.push((name.to_owned(), content));
        Ok(())
    }
}

/// Reads the `depends=` line of a module's information section.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let rest = &module[start + KEY.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let names = String::from_utf8_lossy(&rest[..end]);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn find(directory: &Path, matches: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let mut names = entries.filter(|entry| matches(&entry.file_name().to_string_lossy()));
    names.next().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dependencies come first, each once, also where two share one.
    #[test]
    fn modules_are_loaded_after_what_they_need() {
        let place = tempfile::tempdir().unwrap();
        let module = |name: &str, depends: &str| {
            let content = format!("ELF\0license=GPL\0depends={depends}\0retpoline=Y\0");
            fs::write(place.path().join(name), content).unwrap();
        };
        module("virtio.ko", "");
        module("virtio-ring.ko", "virtio");
        module("virtio_pci.ko", "virtio,virtio-ring");
        module("virtio_blk.ko", "virtio_ring,virtio");
        let modules = Modules::below(place.path()).unwrap();
        let order = modules.in_order(&["virtio_pci", "virtio_blk", "built_in"]).unwrap();
        let names: Vec<_> = order.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["virtio", "virtio_ring", "virtio_pci", "virtio_blk"]);
    }
}
