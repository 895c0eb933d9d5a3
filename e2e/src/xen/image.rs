// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The disk of a Xen host: Debian packages, built once and kept. What it does when it is up comes
//! on another disk, so that a story can change it without building a host.

use crate::apt::{mirror, unpacked_once};
use crate::command::run;
use crate::cpio::Archive;
use crate::image::Modules;
use crate::setting::Skip;
use anyhow::{Context as _, Result, ensure};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SUITE: &str = "bookworm";
const PACKAGES: &str = "--include=xen-hypervisor-4.17-amd64,xen-utils-4.17,xen-utils-common,\
                        xenstore-utils,linux-image-amd64,iproute2,bridge-utils,kmod,udev,\
                        busybox-static,nfs-kernel-server,nfs-common,socat,procps,nftables,\
                        iputils-ping,openssh-server,openssh-client,\
                        qemu-system-xen";
const DISK_SIZE: &str = "1800M";
/// The first program: all it knows is where the others are.
const START: &str = "#!/bin/sh\nmount -t devtmpfs dev /dev 2>/dev/null\n\
                     mount -t ext4 -o ro /dev/vdc /files\nexec /files/whimbrel-start\n";
/// The programs of a host of the stories, as they lie on the disk that is brought along.
pub(super) const PROGRAMS: [(&str, &str); 2] =
    [("whimbrel-start", include_str!("start.sh")), ("whimbrel-agent", include_str!("agent.sh"))];
/// What the control domain needs before it has its disk.
const MODULES: &[&str] = &["virtio_pci", "virtio_blk", "virtio_net", "crc32c_generic", "ext4"];
const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";

/// What a Xen host boots from.
pub struct HostImage {
    pub xen: PathBuf,
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub root: PathBuf,
}

impl HostImage {
    /// Takes the image from the cache, where it lies under the digest of its recipe, or builds it.
    pub fn build(cache: &Path) -> Result<HostImage> {
        for (program, package) in [("mmdebstrap", "mmdebstrap"), ("xz", "xz-utils")] {
            if !Path::new("/usr/bin").join(program).exists() {
                let reason = format!("there is no Xen host to boot: apt-get install {package}");
                return Err(Skip(reason).into());
            }
        }
        fs::create_dir_all(cache)?;
        let recipe = blake3::hash(format!("{SUITE} {PACKAGES} {DISK_SIZE} {START}").as_bytes());
        let name = format!("xen-host-{}", &recipe.to_hex()[..12]);
        let place = unpacked_once(&cache.join(name), build)?;
        let path = |name: &str| place.join(name);
        Ok(HostImage {
            xen: path("xen"),
            kernel: path("vmlinux"),
            initramfs: path("initrd.cpio"),
            root: path("root.img"),
        })
    }
}

fn build(place: &Path) -> Result<()> {
    let tree = place.join("tree");
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=minbase", PACKAGES, SUITE]).arg(&tree);
    let mirror = mirror(false);
    if !mirror.is_empty() {
        make.arg(mirror);
    }
    run(&mut make).context("failed to build a Xen host")?;
    unpack_xen(&tree.join("boot"), place)?;
    write_initramfs(&tree, &place.join("initrd.cpio"))?;
    write_program(&tree.join("whimbrel-start"), START)?;
    fs::create_dir(tree.join("files"))?;
    for part in ["var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"] {
        fs::remove_dir_all(tree.join(part))?;
    }
    let mut make = Command::new("mkfs.ext4");
    make.args(["-q", "-d"]).arg(&tree).arg(place.join("root.img"));
    run(make.arg(DISK_SIZE)).context("no file system")?;
    Ok(fs::remove_dir_all(&tree)?)
}

/// Writes a script that can be run.
pub(super) fn write_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Xen and its kernel are loaded by QEMU, and unpacked here: emulated it would take long.
fn unpack_xen(boot: &Path, place: &Path) -> Result<()> {
    let find = |start: &str| -> Result<PathBuf> {
        let names = fs::read_dir(boot)?.flatten().map(|entry| entry.path());
        let mut found = names.filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(start) && !name.ends_with(".efi") && !name.ends_with(".config")
        });
        found.next().with_context(|| format!("no {start} in {}", boot.display()))
    };
    let mut unzip = Command::new("gzip");
    unzip.arg("-dc").arg(find("xen-")?).stdout(File::create(place.join("xen"))?);
    ensure!(unzip.status()?.success(), "Xen cannot be unpacked");
    let packed = fs::read(find("vmlinuz-")?)?;
    let at = packed.windows(XZ_MAGIC.len()).position(|window| window == XZ_MAGIC);
    let packed = &packed[at.context("the kernel is not packed with xz")?..];
    let mut unpack = Command::new("xz");
    let kernel = place.join("vmlinux");
    unpack.args(["-dc", "--single-stream"]).stderr(Stdio::null());
    let mut child = unpack.stdin(Stdio::piped()).stdout(File::create(&kernel)?).spawn()?;
    // What follows the kernel in its file ends the pipe early.
    let _ = child.stdin.take().context("it was asked for")?.write_all(packed);
    child.wait()?;
    ensure!(fs::read(&kernel)?.starts_with(b"\x7fELF"), "the kernel cannot be unpacked");
    Ok(())
}

fn write_initramfs(tree: &Path, output: &Path) -> Result<()> {
    let modules = Modules::below(&tree.join("lib/modules"))?;
    let mut archive = Archive::new(BufWriter::new(File::create(output)?));
    for directory in ["bin", "dev", "proc", "root", "m"] {
        archive.directory(directory)?;
    }
    archive.program("bin/busybox", &fs::read(tree.join("bin/busybox"))?)?;
    let mut init = "#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs dev /dev\n".to_owned();
    for (name, content) in modules.in_order(MODULES)? {
        archive.file(&format!("m/{name}.ko"), &content)?;
        init.push_str(&format!("/bin/busybox insmod /m/{name}.ko\n"));
    }
    init.push_str(
        "while [ ! -e /dev/vda ]; do /bin/busybox sleep 0.1; done\n\
         /bin/busybox mount -t ext4 -o noatime /dev/vda /root\n\
         exec /bin/busybox switch_root /root /whimbrel-start\n",
    );
    archive.program("init", init.as_bytes())?;
    archive.finish()?;
    Ok(())
}
