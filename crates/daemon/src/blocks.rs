// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What lies on the disks of guests that run here: an index, made in the background for the day the
//! guest leaves.
//!
//! It is made once the guest is here, and again when it is old and the disk has changed; one guest
//! at a time, slowly. Nothing depends on it: see [`whimbrel_page_store::blocks`].

use crate::daemon::Daemon;
use crate::guests::GuestView;
use crate::story::About;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use whimbrel_link::carrier::Disks;
use whimbrel_model::guest::{DiskFormat, DiskSource, Guest};
use whimbrel_model::id::GuestId;
use whimbrel_model::problem::chain;
use whimbrel_model::units::Bytes;
use whimbrel_page_store::{StoreError, blocks};

/// How often it is looked whether an index is due.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How old an index becomes.
const RENEW: Duration = Duration::from_secs(6 * 3600);

/// What is read of disks for it, so that their guests hardly notice.
const BYTES_PER_SECOND: u64 = 64 << 20;

/// Returns what the carrying process of this guest may read: its raw disks, if it has any and they
/// may be read.
pub(crate) fn disks(daemon: &Daemon, id: GuestId, guest: &Guest) -> Option<Disks> {
    let paths = raw_disks(guest);
    let may = daemon.config().pages.are_disks_read && !paths.is_empty();
    may.then(|| Disks { paths, index: daemon.layout().guest(id).blocks() })
}

fn raw_disks(guest: &Guest) -> Vec<PathBuf> {
    let raw = guest.disks.iter().filter(|disk| disk.format == DiskFormat::Raw);
    raw.filter_map(|disk| match &disk.source {
        DiskSource::Path(path) => Some(path.clone()),
        DiskSource::Nfs(_) => None,
    })
    .collect()
}

/// Makes what is due, one after the other, for as long as the daemon lives.
pub(crate) async fn watch(daemon: Arc<Daemon>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What went wrong once would go wrong every ten seconds.
    let mut given_up = HashSet::new();
    loop {
        ticks.tick().await;
        for guest in daemon.guests.list() {
            if given_up.contains(&guest.id) {
                continue;
            }
            if let Err(error) = index(&daemon, &guest.view()).await {
                tracing::warn!(guest = %guest.id, error = chain(&error), "its disks are not read");
                given_up.insert(guest.id);
            }
        }
    }
}

/// Makes the index of one guest's disks, if it runs here and that is due.
async fn index(daemon: &Daemon, view: &GuestView) -> Result<(), StoreError> {
    let Some(papers) = view.papers.as_ref().filter(|_| is_at_home(view)) else { return Ok(()) };
    let Some(disks) = disks(daemon, view.id, &papers.guest) else { return Ok(()) };
    let (done, made) = oneshot::channel();
    // A thread of its own: it keeps its low priority, and must not hold up the end of the daemon.
    std::thread::spawn(move || {
        // The daemon may have ended.
        let _ = done.send(make_if_due(&disks));
    });
    let about = About { guest: Some((view.id, papers.guest.name.clone())), ..About::default() };
    if let Some(count) = made.await.expect("a panic ends the whole daemon")? {
        let bytes = Bytes(count * crate::pages::PAGE_BYTES);
        daemon.story.info(&about, format!("what lies on its disks is known: {bytes}"));
    }
    Ok(())
}

fn is_at_home(view: &GuestView) -> bool {
    view.engine.is_some() && view.moving.is_none()
}

/// Returns how many blocks were indexed; none if nothing was due.
fn make_if_due(disks: &Disks) -> Result<Option<u64>, StoreError> {
    if !is_due(&disks.index, &disks.paths) {
        return Ok(None);
    }
    let opened = blocks::Disks::open(&disks.paths)?;
    blocks::make_gently(&disks.index, &opened, BYTES_PER_SECOND).map(Some)
}

fn is_due(index: &Path, disks: &[PathBuf]) -> bool {
    let Some(made_at) = modified_at(index) else { return true };
    let is_old = SystemTime::now().duration_since(made_at).is_ok_and(|age| age >= RENEW);
    is_old && disks.iter().any(|disk| modified_at(disk).is_none_or(|at| at > made_at))
}

fn modified_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, write};

    /// An index is made once, and again when it is old and a disk is newer.
    #[test]
    fn an_index_becomes_old() {
        let place = tempfile::tempdir().unwrap();
        let (index, disk) = (place.path().join("blocks"), place.path().join("disk"));
        write(&disk, [1; 8192]).unwrap();
        let disks = [disk.clone()];
        assert!(is_due(&index, &disks), "there is none");
        write(&index, "").unwrap();
        assert!(!is_due(&index, &disks), "it is new");
        let old = SystemTime::now() - RENEW;
        File::options().write(true).open(&index).unwrap().set_modified(old).unwrap();
        assert!(is_due(&index, &disks), "the disk was written since");
        let older = old - Duration::from_secs(1);
        File::options().write(true).open(&disk).unwrap().set_modified(older).unwrap();
        assert!(!is_due(&index, &disks), "nobody wrote to the disk");
    }
}
