// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A real Debian on a disk, for guests whose page cache is to hold what a server's does. Built once
//! and kept in a cache directory.

use crate::apt::{mirror, unpacked_once};
use crate::command::run;
use crate::disk::give_to_engine;
use crate::setting::Skip;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SUITE: &str = "bookworm";
/// What a small server has besides the base.
const PACKAGES: &str =
    "--include=python3,git,perl,vim,nginx-light,sqlite3,man-db,locales,procps,less";
const DISK_SIZE: &str = "1536M";

/// The disk every guest gets a copy of.
#[derive(Clone, Debug)]
pub struct Userland {
    disk: PathBuf,
}

impl Userland {
    /// Takes the disk from the cache, or downloads and builds it.
    pub fn build(cache: &Path) -> Result<Userland> {
        fs::create_dir_all(cache)?;
        let place = unpacked_once(&cache.join("userland"), |partial| {
            let tree = partial.join("tree");
            make_tree(&tree)?;
            let mut make = Command::new("mkfs.ext4");
            make.args(["-q", "-L", "userland", "-d"]).arg(&tree);
            run(make.arg(partial.join("disk.img")).arg(DISK_SIZE)).context("no file system")?;
            Ok(fs::remove_dir_all(&tree)?)
        })?;
        Ok(Userland { disk: place.join("disk.img") })
    }

    /// Gives a guest its own disk, which its engine may write.
    pub fn copy_to(&self, path: &Path) -> Result<PathBuf> {
        let mut copy = Command::new("cp");
        run(copy.args(["--sparse=always", "--reflink=auto"]).arg(&self.disk).arg(path))?;
        give_to_engine(path)
    }
}

fn make_tree(tree: &Path) -> Result<()> {
    if !Path::new("/usr/bin/mmdebstrap").exists() {
        return Err(Skip("there is no Debian to run: apt-get install mmdebstrap".to_owned()).into());
    }
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=minbase", PACKAGES, SUITE]).arg(tree);
    let mirror = mirror(false);
    if !mirror.is_empty() {
        make.arg(mirror);
    }
    run(&mut make).context("failed to build a userland")
}
