// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a host keeps of guests' memory, as people manage it. How it gets there and is used again is
//! told by the stories of migrations.

use crate::lab::Host;
use crate::scene::{CONFIG, Cast, SOON, Scene, json, until};
use crate::setting::Setting;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::PathBuf;

const PAGES: &str = "/var/lib/whimbrel/pages";

/// A guest that was never here.
const STRANGER: &str = "5f0c1f0e-6a3e-4f0b-9d55-0d3a1c9b7e05";

/// Nothing is kept at first, and that is said; the configuration is checked and followed at once;
/// what is damaged or was never finished goes by itself; what a person names goes when told.
pub(super) fn kept_within_bounds(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let alpha = scene.alpha();
    let list = json(alpha, &["pages", "list"])?;
    ensure!(list["images"].as_array().is_some_and(Vec::is_empty), "something is kept: {list}");
    let budget = list["budget_bytes"].as_u64().context("no budget")?;
    ensure!(list["is_kept"] == true && budget > 0, "nothing may be kept: {list}");
    alpha.whimbrel(&["pages", "drop", "web1"])?.refused(1, "pages/nothing-kept")?;
    ensure!(alpha.whimbrel(&["pages", "drop", "--all"])?.stderr.contains("Nothing was kept"));

    alpha.configure(&format!("{CONFIG}\n[pages]\nbudget = \"0%\"\n"))?;
    alpha.whimbrel(&["reload"])?.refused(1, "file/bad-value")?;
    alpha.configure(&format!("{CONFIG}\n[pages]\nbudget = \"5 MiB\"\n"))?;
    alpha.whimbrel(&["reload"])?.ok()?;
    let list = json(alpha, &["pages", "list"])?;
    ensure!(list["budget_bytes"] == 5 << 20, "the budget is not followed: {list}");

    alpha.stop_daemon()?;
    let unfinished = format!("image-{}.unfinished", "0a".repeat(16));
    plant(alpha, STRANGER, &[("image", b"cut off"), (&unfinished, b"left")])?;
    alpha.start_daemon()?;
    until("what is of no use is swept", SOON, || Ok(kept(alpha)?.is_empty()))?;
    let log = alpha.whimbrel(&["log"])?.ok()?;
    for why in ["it is damaged", "its migration did not finish it"] {
        ensure!(log.contains(why), "`{why}` is not in the log:\n{log}");
    }

    plant(alpha, STRANGER, &[("held", &held())])?;
    alpha.whimbrel(&["pages", "drop", STRANGER])?.ok()?;
    ensure!(kept(alpha)?.is_empty(), "something is left after a drop");
    plant(alpha, STRANGER, &[("held", &held())])?;
    alpha.configure(&format!("{CONFIG}\n[pages]\nkeep = false\n"))?;
    alpha.whimbrel(&["reload"])?.ok()?;
    ensure!(kept(alpha)?.is_empty(), "something is left where nothing may be kept");
    let said = alpha.whimbrel(&["pages", "list"])?;
    ensure!(said.stderr.contains("keep = false"), "no word that nothing is kept: {said}");
    Ok(())
}

/// `show` says what another host keeps of a guest, and whoever ends the guest ends that, too: the
/// key goes with it. Ending it for a while does not.
pub(super) fn gone_with_its_guest(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let alpha = scene.alpha();
    let file = scene.guest_file(&Cast::web1())?;
    for is_transient in [false, true] {
        let arguments: &[&str] = if is_transient { &["--transient"] } else { &[] };
        alpha.whimbrel(&[&["create", &file], arguments].concat())?.ok()?;
        let shown = json(alpha, &["show", "web1"])?;
        ensure!(shown["kept"].is_null(), "something is kept of a new guest: {shown}");
        let uuid = shown["summary"]["uuid"].as_str().context("no uuid")?.to_owned();
        plant(alpha, &uuid, &[("held", &held())])?;
        let shown = alpha.whimbrel(&["show", "web1"])?.ok()?;
        let line = shown.lines().find(|line| line.starts_with("kept memory"));
        let line = line.with_context(|| format!("no kept memory in:\n{shown}"))?;
        ensure!(line.contains("512 MiB on host-0404"), "not what is kept: {line}");
        alpha.whimbrel(&["stop", "--now", "web1"])?.ok()?;
        if !is_transient {
            ensure!(kept(alpha)? == [uuid], "a stopped guest has lost what is kept of it");
            alpha.whimbrel(&["rm", "web1"])?.ok()?;
        }
        until("all that was kept is gone", SOON, || Ok(kept(alpha)?.is_empty()))?;
    }
    Ok(())
}

/// Puts files where a host keeps what it keeps of a guest.
fn plant(host: &Host, guest: &str, files: &[(&str, &[u8])]) -> Result<()> {
    let folder = PathBuf::from(PAGES).join(guest);
    let files: Vec<_> =
        files.iter().map(|(name, text)| (folder.join(name), text.to_vec())).collect();
    host.place.run(move || {
        fs::create_dir_all(folder)?;
        files.into_iter().try_for_each(|(path, text)| fs::write(path, text))
    })?;
    Ok(())
}

/// The beginning of what is known of an image elsewhere, 512 MiB of it; the rest is only read when
/// the guest leaves.
fn held() -> Vec<u8> {
    let (name, key, keeper) = ([1; 48], [3; 32], [4; 32]);
    [&b"WPH1"[..], &name, &key, &keeper, &(512_u64 << 8).to_be_bytes()].concat()
}

/// The guests of which a host keeps something.
fn kept(host: &Host) -> Result<Vec<String>> {
    Ok(host.place.run(|| match fs::read_dir(PAGES) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<Vec<_>>>(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    })?)
}
