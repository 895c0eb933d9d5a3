// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a stream of pages begins with, on either side: what is known of an earlier visit, and what
//! will be kept for the next one.

use super::super::config::{Config, PAGES_CONNECTIONS_MAX, Pages};
use super::super::frames::{Frame, OpenWay, Shelf};
use super::super::meter::Meter;
use super::super::throttle::{Throttle, Toll};
use super::keeper::{self, Feed, Keeper, Stretch};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use whimbrel_model::id::HostId;
use whimbrel_model::problem::chain;
use whimbrel_page_store::blocks::{BlockIndex, DiskShelf, Disks};
use whimbrel_page_store::{Folder, Held, HeldParts, StoreError};
use whimbrel_pages::codec::Codec;
use whimbrel_pages::image::{ImageId, ImageKey, ManifestName};
use whimbrel_pages::receiver::Receiver;
use whimbrel_pages::sender::{Kept, Sender, SenderConfig};
use whimbrel_pages::shelf::{MemoryShelf, NoShelf, Shelf as PageShelf};
use whimbrel_pages::split::{EngineSplit, OpaqueSplit};

/// Pages that the target holds in memory, and the source to make deltas against: 16 MiB on either
/// side. Hot pages come again and again; all others come once.
const SPARE_SLOTS: u32 = 4096;

/// What an engine has written leaves this soon, also if it could be packed better with more.
const IDLE: Duration = Duration::from_millis(1);

/// What [`super::Stream`] is made of.
pub(in super::super) struct Begin {
    pub(super) engine: UnixStream,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) image: Option<Feed<Kept>>,
    pub(super) census: Option<Feed<Stretch>>,
    pub(in super::super) meter: Arc<Meter>,
    pub(super) toll: Toll,
    pub(super) link_bytes_per_s: Option<u64>,
    pub(super) connections: u32,
    /// What the engine has written leaves this soon.
    pub(super) idle: Duration,
}

/// What the source knows before it has spoken to the target.
pub(in super::super) struct Known {
    /// What the target may hold.
    held: Option<(Held, Option<HeldParts>)>,
    /// The image that is going to be kept here. Its key never touches this host's disks.
    kept: Option<(ImageId, ImageKey)>,
    /// What lies on the guest's disks, and how many blocks they have.
    blocks: Option<(BlockIndex, u32)>,
}

impl Known {
    pub(in super::super) async fn load(pages: &Pages, config: &Config) -> Self {
        let id = ImageId(config.handoff.0.into_bytes());
        Self {
            held: load_held(pages, config.peer).await,
            kept: pages.image_bytes_max.map(|_| (id, ImageKey::new(rand::random()))),
            blocks: load_blocks(pages).await,
        }
    }

    /// Returns what the target is told.
    pub(in super::super) fn way(&self) -> OpenWay {
        let known = self.held.as_ref().map(|(held, _)| (held.name, held.key.clone()));
        OpenWay::Pages { known, kept: self.kept.clone() }
    }

    /// Returns the source's side, once the target has said what it holds.
    pub(in super::super) fn begin(
        self,
        engine: UnixStream,
        pages: &Pages,
        shelf: Shelf,
        throttle: Arc<Throttle>,
    ) -> (Begin, Option<Keeper>) {
        let kept = self.kept.zip(pages.image_bytes_max).map(|((id, key), bytes_max)| {
            keeper::image(Folder::open(pages.folder.clone()), id, key, bytes_max)
        });
        let (image, keeper) = kept.unzip();
        let mut sender = Sender::new(SenderConfig {
            split: Box::new(EngineSplit::default()),
            codec: Codec::Lz4,
            slots: shelf.slots,
            recent_pages_max: SPARE_SLOTS,
            is_kept: image.is_some(),
        });
        let meter = Arc::new(Meter::new(Instant::now()));
        if let Some((held, parts)) = self.held.filter(|_| shelf.is_image_held) {
            meter.set_held_pages(u32::try_from(held.pages.len()).unwrap_or(u32::MAX));
            sender.hold(held.pages);
            if let Some(parts) = parts {
                sender.hold_parts(Box::new(parts));
            }
        }
        if let Some((index, _)) = self.blocks.filter(|(_, blocks)| *blocks == shelf.blocks) {
            sender.hold_blocks(Box::new(index));
        }
        let begin = Begin {
            engine,
            sender,
            receiver: Receiver::new(Box::new(NoShelf)),
            image,
            census: None,
            meter,
            toll: Toll::in_turn(throttle),
            link_bytes_per_s: pages.link_bytes_per_s,
            connections: pages.connections.clamp(1, PAGES_CONNECTIONS_MAX),
            idle: IDLE,
        };
        (begin, keeper)
    }
}

/// Returns the target's side. `kept` is the image that the source is going to keep.
pub(in super::super) fn target(
    engine: UnixStream,
    pages: &Pages,
    shelf: Box<dyn PageShelf>,
    kept: Option<(ImageId, ImageKey)>,
    config: &Config,
    throttle: Arc<Throttle>,
) -> (Begin, Option<Keeper>) {
    let counted = kept
        .filter(|_| pages.image_bytes_max.is_some())
        .map(|(id, key)| keeper::census(Folder::open(pages.folder.clone()), id, key, config.peer));
    let (census, keeper) = counted.unzip();
    let begin = Begin {
        engine,
        sender: opaque(),
        receiver: Receiver::new(shelf),
        image: None,
        census,
        meter: Arc::new(Meter::new(Instant::now())),
        toll: Toll::in_turn(throttle),
        link_bytes_per_s: pages.link_bytes_per_s,
        connections: 1,
        idle: IDLE,
    };
    (begin, keeper)
}

/// Returns either side of the urgent channel: bytes that nobody looks into, and that wait for
/// nobody.
pub(in super::super) fn urgent(engine: UnixStream, throttle: Arc<Throttle>) -> Begin {
    Begin {
        engine,
        sender: opaque(),
        receiver: Receiver::new(Box::new(NoShelf)),
        image: None,
        census: None,
        meter: Arc::new(Meter::new(Instant::now())),
        toll: Toll::first(throttle),
        link_bytes_per_s: None,
        connections: 1,
        idle: Duration::ZERO,
    }
}

/// Sends what is not looked into.
fn opaque() -> Sender {
    Sender::new(SenderConfig {
        split: Box::new(OpaqueSplit),
        codec: Codec::Raw,
        slots: 0,
        recent_pages_max: 0,
        is_kept: false,
    })
}

/// Returns what the source is told of the shelf.
pub(in super::super) fn describe(shelf: &dyn PageShelf) -> Frame {
    let slots = shelf.slots();
    Frame::Shelf(Shelf { slots, is_image_held: slots > SPARE_SLOTS, blocks: shelf.blocks() })
}

/// Returns what is known of an image that the peer keeps.
async fn load_held(pages: &Pages, peer: HostId) -> Option<(Held, Option<HeldParts>)> {
    if !pages.is_reused {
        return None;
    }
    let folder = Folder::open(pages.folder.clone());
    let loading = tokio::task::spawn_blocking(move || {
        let held = folder.load_held()?.filter(|held| held.keeper == peer);
        held.map(|held| folder.held_parts(&held).map(|parts| (held, parts))).transpose()
    });
    match loading.await.expect("a panic ends the process") {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(error = chain(&error), "the guest leaves as if it was never there");
            None
        }
    }
}

/// Opens the index of the guest's disks, if there is one.
async fn load_blocks(pages: &Pages) -> Option<(BlockIndex, u32)> {
    let disks = pages.disks.clone()?;
    let loading = tokio::task::spawn_blocking(move || -> Result<_, StoreError> {
        let opened = Disks::open(&disks.paths)?;
        let index = BlockIndex::open(&disks.index, &opened)?;
        Ok(index.map(|index| (index, opened.blocks())))
    });
    match loading.await.expect("a panic ends the process") {
        Ok(blocks) => blocks,
        Err(error) => {
            tracing::warn!(error = chain(&error), "what lies on the guest's disks travels, too");
            None
        }
    }
}

/// Opens what there is here of the guest: the image that the peer knows, and its disks.
pub(in super::super) async fn open_shelf(
    pages: &Pages,
    known: Option<(ManifestName, ImageKey)>,
) -> Box<dyn PageShelf> {
    let shelf = open_image(pages, known).await;
    let Some(paths) = pages.disks.clone().map(|disks| disks.paths) else { return shelf };
    let opening = tokio::task::spawn_blocking(move || Disks::open(&paths));
    match opening.await.expect("a panic ends the process") {
        Ok(disks) => Box::new(DiskShelf::new(shelf, disks)),
        Err(error) => {
            tracing::warn!(error = chain(&error), "what lies on the guest's disks is sent, too");
            shelf
        }
    }
}

/// Opens the image that the peer knows; without one there are the slots in memory.
async fn open_image(pages: &Pages, known: Option<(ManifestName, ImageKey)>) -> Box<dyn PageShelf> {
    let none = || Box::new(MemoryShelf::new(SPARE_SLOTS));
    let Some((name, key)) = known.filter(|_| pages.is_reused) else { return none() };
    let folder = Folder::open(pages.folder.clone());
    let opening = tokio::task::spawn_blocking(move || folder.open_image(&name, &key, SPARE_SLOTS));
    match opening.await.expect("a panic ends the process") {
        Ok(shelf) => Box::new(shelf),
        Err(error) => {
            tracing::warn!(error = chain(&error), "the guest comes as if it was never here");
            none()
        }
    }
}
