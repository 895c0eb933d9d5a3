// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Memory travels as pages: what the target holds does not travel, and a link that is cut is made
//! again.

use super::migrate::move_and_check;
use crate::carriers::peak_kib;
use crate::lab::{Host, finish};
use crate::scene::{
    Cast, SOON, Scene, await_disks_known, engines, json, lives_only_on, report, until,
};
use crate::setting::Setting;
use crate::witness::Witness;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

const STORE: &str = "/var/lib/whimbrel/pages";
const PAGES: [&str; 2] = ["--carrier", "pages"];
/// What a carrying process may take, beside a hundredth of the guest's memory.
const CARRIER_KIB_MAX: u64 = 48 << 10;

/// A guest moves, comes back, and moves again: each time what its last host has kept does not
/// travel, of what it has changed in part only that does, and every page it checks is right.
pub(super) fn there_and_back_and_there(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let cast = Cast::web1().dirtying("object", 4);
    let witness = scene.create(alpha, &cast)?;
    let moved = peak_kib([alpha, beta], || move_and_check(&witness, alpha, beta, &PAGES));
    let (first, peak_kib) = moved;
    let first = first?;
    let memory_kib_max = CARRIER_KIB_MAX + u64::from(cast.memory_mib) * 1024 / 100;
    println!("the carrying processes took {peak_kib} KiB at most");
    ensure!((1..=memory_kib_max).contains(&peak_kib), "{peak_kib} of {memory_kib_max} KiB");
    ensure!(first["carrier"] == "pages", "{first}");
    until_kept(alpha, beta)?;
    let mut hosts = [beta, alpha];
    for _ in 0..3 {
        let [source, target] = hosts;
        let back = move_and_check(&witness, source, target, &PAGES)?;
        let sent = |report: &Value| report["wire_bytes"].as_u64().context("no bytes in a report");
        println!("{} bytes, and {} when it came back", sent(&first)?, sent(&back)?);
        ensure!(sent(&back)? * 3 < sent(&first)?, "what was kept travelled again: {back}");
        let changed = back["pages"]["changed_count"].as_u64();
        ensure!(changed > Some(100), "what was changed in part travelled whole: {back}");
        until_kept(source, target)?;
        hosts = [target, source];
    }
    Ok(())
}

/// How long a link must be out until both sides take it for lost.
const OUT: Duration = Duration::from_secs(7);
const BLINK: Duration = Duration::from_secs(1);
const MOVED: Duration = Duration::from_secs(120);

/// The cable is pulled once for long and four times for a moment: the migration goes on where it
/// was, and the engines do not notice.
pub(super) fn a_cable_is_pulled_and_plugged_in(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let (witness, command) = in_the_middle(&scene)?;
    for out in [BLINK, OUT, BLINK, BLINK, BLINK] {
        beta.unplug()?;
        // How long it is out is what the story is about.
        std::thread::sleep(out);
        beta.plug_in()?;
        let before = alpha.traffic()?;
        until("memory goes on", SOON, || Ok(alpha.traffic()?.since(before).sent > 1 << 20))?;
    }
    arrives(&scene, &witness, command)
}

/// The target's daemon dies, and the link with it: the daemon that comes back lets the new link in.
pub(super) fn the_target_daemon_dies_with_the_link(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let beta = scene.beta();
    let (witness, command) = in_the_middle(&scene)?;
    beta.kill_daemon()?;
    beta.unplug()?;
    std::thread::sleep(OUT);
    beta.plug_in()?;
    beta.start_daemon()?;
    arrives(&scene, &witness, command)
}

/// A guest whose memory travels over a slow wire, and cannot all have travelled.
fn in_the_middle(scene: &Scene) -> Result<(Witness<'_>, Child)> {
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", 1).with_memory(256, 96))?;
    alpha.set_rate(Some(50))?;
    let before = alpha.traffic()?;
    let command = [&["migrate", "web1", "beta"], &PAGES[..]].concat();
    let command = alpha.spawn_whimbrel(&command)?;
    until("memory flows to an engine on the target", SOON, || {
        let is_received = !engines(beta, "web1")?.is_empty();
        Ok(is_received && alpha.traffic()?.since(before).sent > 2 << 20)
    })?;
    Ok((witness, command))
}

/// The guest arrives, whole and never booted, over more than one link.
fn arrives(scene: &Scene, witness: &Witness<'_>, command: Child) -> Result<()> {
    let (alpha, beta) = (scene.alpha(), scene.beta());
    finish(command, "migrate web1 beta", "", MOVED)?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    let status = witness.is_well()?;
    ensure!(status.boot(0)? == 1, "the guest was booted anew: {status:?}");
    let report = report(alpha, "web1")?;
    println!("{report}");
    let pages = &report["pages"];
    ensure!(pages["resumed_count"].as_u64() >= Some(1), "the link was never made again: {report}");
    let (again, all) = (pages["repeated_bytes"].as_u64(), report["wire_bytes"].as_u64());
    let (again, all) = (again.context("no count")?, all.context("no count")?);
    ensure!(again * 20 < all, "{again} of {all} bytes travelled again");
    Ok(())
}

/// An image that is damaged here and there, and then one that is nothing: the guest comes back
/// whole, and as much of the image as is right is of use.
pub(super) fn what_was_kept_is_damaged(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    let damages: [fn(&mut Vec<u8>); 2] = [|image| flip_here_and_there(image), Vec::clear];
    for (damage, is_of_use) in damages.into_iter().zip([true, false]) {
        move_and_check(&witness, alpha, beta, &PAGES)?;
        until_kept(alpha, beta)?;
        let image = image_of_web1(beta)?;
        alpha.place.run(move || {
            let mut bytes = fs::read(&image)?;
            damage(&mut bytes);
            fs::write(&image, bytes)
        })?;
        let back = move_and_check(&witness, beta, alpha, &PAGES)?;
        ensure!((back["pages"]["visited_count"] != 0) == is_of_use, "{back}");
    }
    Ok(())
}

/// In the first half there are only pages.
fn flip_here_and_there(image: &mut [u8]) {
    let half = image.len() / 2;
    image[..half].iter_mut().skip(5000).step_by(1 << 20).for_each(|byte| *byte ^= 1);
}

/// Where the image lies on the host that keeps it; asked where the guest is.
fn image_of_web1(home: &Host) -> Result<PathBuf> {
    let shown = json(home, &["show", "web1"])?;
    let uuid = shown["summary"]["uuid"].as_str().context("no uuid")?;
    Ok(PathBuf::from(STORE).join(uuid).join("image"))
}

/// The disk for kept memory is full: the guest moves all the same, and nothing half written stays.
pub(super) fn no_room_to_keep(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    alpha.place.run(|| fs::create_dir_all(STORE))?;
    let arguments = ["-t", "tmpfs", "-o", "size=24m", "tmpfs", STORE];
    alpha.command("mount".as_ref(), &arguments, "")?.ok()?;
    move_and_check(&witness, alpha, beta, &PAGES)?;
    until("nothing half written stays", SOON, || {
        let list = json(alpha, &["pages", "list"])?;
        let is_empty = list["images"].as_array().is_some_and(Vec::is_empty);
        Ok(is_empty && list["unfinished_bytes"] == 0)
    })?;
    move_and_check(&witness, beta, alpha, &PAGES)?;
    Ok(())
}

/// What the guest has read from its disk does not travel: the target reads it there. What lies
/// elsewhere on the disk by then travels, and every page is right.
pub(super) fn what_lies_on_the_disk(setting: &Setting) -> Result<()> {
    const READ: &str = "[pages]\nread_disks = true\n";
    let (lab, image) = setting.lab()?;
    let scene = Scene::configured(lab, image, [READ, READ])?;
    scene.pair()?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let cast = Cast::web1().with_words("witness.cached=vda");
    let file = scene.guest_file(&cast)?;
    noise(&scene.lab.shared.join("web1-root.img"), DISK_BYTES)?;
    alpha.whimbrel(&["create", &file])?.ok()?;
    let witness = scene.witness(&cast);
    witness.wait()?;
    for (source, target) in [(alpha, beta), (beta, alpha)] {
        await_disks_known(source)?;
        source.whimbrel(&["pages", "drop", "--all"])?.ok()?;
        target.whimbrel(&["pages", "drop", "--all"])?.ok()?;
        let report = move_and_check(&witness, source, target, &PAGES)?;
        let pages = report["pages"]["disk_count"].as_u64().context("no pages in a report")?;
        println!("{pages} pages were read from the disk, {} bytes sent", report["wire_bytes"]);
        ensure!(
            pages * 4096 > DISK_BYTES as u64 * 3 / 4,
            "what lies on the disk travelled: {report}"
        );
    }
    Ok(())
}

const DISK_BYTES: usize = 12 << 20;

/// Fills the end of a disk, behind what the witness counts on, with what nobody can compress.
fn noise(path: &Path, bytes: usize) -> Result<()> {
    let mut noise = vec![0; bytes];
    fs::File::open("/dev/urandom")?.read_exact(&mut noise)?;
    let disk = fs::File::options().write(true).open(path)?;
    disk.write_all_at(&noise, disk.metadata()?.len() - bytes as u64)?;
    Ok(())
}

/// Waits until `source` has kept the memory of the guest that left for `target`, and `target`
/// knows.
fn until_kept(source: &Host, target: &Host) -> Result<()> {
    let kept = until("the memory of the guest that left is kept", SOON, || {
        let list = json(source, &["pages", "list"])?;
        let shown = json(target, &["show", "web1"])?;
        Ok(list["images"].as_array().is_some_and(|images| images.len() == 1)
            && !shown["kept"].is_null())
    });
    kept.with_context(|| format!("the log of {}: {:?}", source.name, source.whimbrel(&["log"])))
}
