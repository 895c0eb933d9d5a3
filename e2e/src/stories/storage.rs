// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Disks that lie elsewhere than in the shared directory, and records beside them gone bad.

use crate::disk;
use crate::lab::NfsServer;
use crate::scene::{CONFIG, Cast, Scene, await_state, engines, json, lives_only_on, state};
use crate::setting::Setting;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// A disk that the engines themselves reach over NFS moves like any other, once the target lets it
/// in.
pub(super) fn a_disk_by_nfs_url(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let store = scene.lab.directory().join("store");
    fs::create_dir_all(&store)?;
    disk::raw(&store.join("data.img"), 16)?;
    let server = NfsServer::serve(&scene.lab, &store, "data.img")?;
    let mut cast = Cast::web1();
    cast.disks = format!("[[disk]]\nnfs = \"{}/data.img\"\nformat = \"raw\"\n", server.url);
    let witness = scene.create(alpha, &cast)?;
    let held = fs::read(store.join("data.img"))?;
    ensure!(held.iter().any(|byte| *byte != 0), "nothing was written through NFS");

    let closed = alpha.whimbrel(&["migrate", "web1", "beta"])?;
    closed.refused(1, "plan/disk-allowed").context("a disk that beta does not let in")?;
    for host in [alpha, beta] {
        let allowed = format!("[\"/srv/guests\", \"{}\"]", server.url);
        host.configure(&CONFIG.replace("[\"/srv/guests\"]", &allowed))?;
        host.whimbrel(&["reload"])?.ok()?;
    }
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    beta.whimbrel(&["migrate", "web1", "alpha"])?.ok()?;
    lives_only_on(alpha, beta, "web1", "running")?;
    let status = witness.is_well()?;
    ensure!(status.boot(0)? == 1, "it was booted anew: {status:?}");
    // The disks beside it say whose they are.
    let refusal = beta.whimbrel(&["create", &format!("{}/web1.toml", crate::lab::SHARED)])?;
    refusal.refused(1, "ownership/")?;
    alpha.whimbrel(&["stop", "--now", "web1"])?.ok().map(drop)
}

/// A damaged owner record is written anew by the host that holds the claim. Where the claim is
/// damaged, too, nothing starts until a person says that no other host runs the guest.
pub(super) fn damaged_records(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    alpha.whimbrel(&["stop", "--now", "web1"])?.ok()?;
    let folder = scene.lab.shared.join(".whimbrel");
    let owner = folder.join("web1-root.img.owner");
    fs::write(&owner, "torn")?;
    alpha.whimbrel(&["start", "web1"])?.ok().context("with the claim whole")?;
    ensure!(fs::read_to_string(&owner)?.starts_with("whimbrel"), "the record stays damaged");
    witness.wait()?;

    for file in records(&folder)? {
        fs::write(file, "torn")?;
    }
    alpha.whimbrel(&["migrate", "web1", "beta"])?.refused(1, "ownership/record-damaged")?;
    witness.is_well()?;
    alpha.whimbrel(&["stop", "--now", "web1"])?.ok()?;
    alpha.whimbrel(&["start", "web1"])?.refused(4, "ownership/in-doubt")?;
    ensure!(engines(alpha, "web1")?.is_empty(), "a guest in doubt was started");
    let said = json(alpha, &["recover", "web1"])?.to_string();
    ensure!(said.contains("--despite-damage"), "no word of what could be said: {said}");
    alpha.whimbrel(&["recover", "web1", "--despite-damage"])?.ok()?;
    await_state(alpha, "web1", "running")?;
    witness.wait()?;
    witness.is_well()?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    ensure!(state(alpha, "web1")?.is_none());
    Ok(())
}

/// Owner records and claims of all disks.
fn records(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let files = files.collect::<std::io::Result<Vec<_>>>()?;
    let is_record = |file: &PathBuf| {
        let name = file.to_string_lossy();
        name.ends_with(".owner") || name.contains(".claim.")
    };
    Ok(files.into_iter().filter(is_record).collect())
}
