// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Keeps what makes the guest's return cheap: an image of its memory at the source, and at the
//! target the knowledge of what is in that image.
//!
//! Either is a thread beside the stream. It is done only when the daemon says that the guest has
//! really moved; without that word nothing is left of it.
//!
//! Keeping must not cost the move anything. What travelled packed is kept as it is; pages that did
//! not travel are packed only where no one waits for a core, and otherwise take more of the disk.

use super::cores::{CONTENDED, NOT_CONTENDED, Took, took};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use whimbrel_model::id::{GuestName, HostId, HostName};
use whimbrel_model::problem::chain;
use whimbrel_page_store::{About, Folder, Held, ImageFile, StoreError};
use whimbrel_pages::codec::Codec;
use whimbrel_pages::digest::PageDigest;
use whimbrel_pages::image::{Census, ImageId, ImageKey, ImageWriter, Seal};
use whimbrel_pages::sender::Kept;
use whimbrel_pages::split::EngineSplit;

/// Batches that may wait for the thread: more would only be memory.
const WAITING_MAX: usize = 6;

/// How long an image is written before it is judged whether there are cores to spare.
const WATCH: Duration = Duration::from_millis(20);

/// Where the stream puts what is to be kept.
pub(in super::super) struct Feed<T> {
    items: Sender<T>,
    waiting: Arc<AtomicUsize>,
    freed: Arc<Notify>,
}

impl<T> Feed<T> {
    fn new() -> (Self, Queue<T>) {
        let (items, queue) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let freed = Arc::new(Notify::new());
        let queue = Queue { items: queue, waiting: waiting.clone(), freed: freed.clone() };
        (Self { items, waiting, freed }, queue)
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Acquire) < WAITING_MAX
    }

    pub(super) fn put(&self, item: T) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        // A thread that has given up takes everything and keeps nothing.
        let _ = self.items.send(item);
    }

    /// Returns when there may be room again.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }
}

struct Queue<T> {
    items: Receiver<T>,
    waiting: Arc<AtomicUsize>,
    freed: Arc<Notify>,
}

impl<T> Queue<T> {
    /// Hands out everything until the stream has ended.
    fn each(&self, mut take: impl FnMut(T)) {
        while let Ok(item) = self.items.recv() {
            take(item);
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.freed.notify_one();
        }
    }
}

/// The word that the guest has moved, and what to write beside it.
#[derive(Clone, Debug)]
pub(in super::super) struct Moved {
    pub(in super::super) guest: GuestName,
    /// The host at the other end.
    pub(in super::super) other: HostName,
    pub(in super::super) unix_ms: u64,
}

/// A thread that keeps. Dropping it without the word throws everything away.
pub(in super::super) struct Keeper {
    word: Option<oneshot::Sender<Moved>>,
    outcome: oneshot::Receiver<Result<(), String>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn spawn<W>(work: W) -> Self
    where
        W: FnOnce(oneshot::Receiver<Moved>) -> Option<Result<(), StoreError>> + Send + 'static,
    {
        let (word, is_moved) = oneshot::channel();
        let (done, outcome) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            if let Some(outcome) = work(is_moved) {
                // The daemon may have stopped waiting.
                let _ = done.send(outcome.map_err(|error| chain(&error)));
            }
        });
        Self { word: Some(word), outcome, thread: Some(thread) }
    }

    /// The guest has moved: makes durable what was kept.
    pub(in super::super) async fn keep(mut self, moved: Moved) -> Result<(), String> {
        if let Some(word) = self.word.take() {
            // A thread that has given up says why.
            let _ = word.send(moved);
        }
        match (&mut self.outcome).await {
            Ok(outcome) => outcome,
            Err(_) => Err("the stream was given up".to_owned()),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.word = None;
        if let Some(thread) = self.thread.take() {
            // It ends at once: the stream is over. A panic has been told by its own hook.
            let _ = thread.join();
        }
    }
}

/// Keeps an image at the source. Its key is drawn here and never touches this host's disks.
pub(in super::super) fn image(
    folder: Folder,
    id: ImageId,
    key: ImageKey,
    bytes_max: u64,
) -> (Feed<Kept>, Keeper) {
    let (feed, queue) = Feed::new();
    let keeper = Keeper::spawn(move |word| {
        let mut writer = ImageWriter::new(Seal::new(&key, id));
        let mut file = folder.create_image(id, bytes_max);
        let mut writing = Took::default();
        queue.each(|kept| {
            let Ok(image) = &mut file else { return };
            if let Err(error) = write(&mut writer, image, &kept, &mut writing) {
                tracing::info!(error = chain(&error), "no image is kept");
                file = Err(error);
            }
        });
        let moved = word.blocking_recv().ok()?;
        Some(file.and_then(|file| finish(writer, file, moved)).and_then(|()| folder.drop_held()))
    });
    (feed, keeper)
}

fn write(
    writer: &mut ImageWriter,
    file: &mut ImageFile,
    kept: &Kept,
    writing: &mut Took,
) -> Result<(), StoreError> {
    let (blocks, took) = took(|| writer.push(kept));
    *writing += took;
    if writing.wall >= WATCH {
        let contended = std::mem::take(writing).contended();
        if let Some(codec) = next_codec(contended, file.has_plenty_of_room()) {
            writer.set_codec(codec);
        }
    }
    blocks.iter().try_for_each(|block| file.write(block))
}

/// Returns what to pack by from now on, if that changes anything.
fn next_codec(contended: f64, has_plenty_of_room: bool) -> Option<Codec> {
    match (contended, has_plenty_of_room) {
        (..NOT_CONTENDED, _) | (_, false) => Some(Codec::Lz4),
        (CONTENDED.., true) => Some(Codec::Raw),
        (_, true) => None,
    }
}

fn finish(writer: ImageWriter, mut file: ImageFile, moved: Moved) -> Result<(), StoreError> {
    let (last, manifest, seal) = writer.finish();
    last.iter().try_for_each(|block| file.write(block))?;
    let about = About {
        guest: moved.guest,
        image: seal.id(),
        pages: 0,
        bytes: 0,
        created_unix_ms: moved.unix_ms,
        went_to: moved.other,
    };
    file.finish(&manifest, &seal, &about)
}

/// A stretch of the stream, and the digests of those of its pages that were compared on the way.
pub(in super::super) type Stretch = (Bytes, Vec<(u32, PageDigest)>);

/// Counts at the target what the image at the source holds.
pub(in super::super) fn census(
    folder: Folder,
    id: ImageId,
    key: ImageKey,
    keeper: HostId,
) -> (Feed<Stretch>, Keeper) {
    let (feed, queue) = Feed::new();
    let keeper = Keeper::spawn(move |word| {
        let mut census = Census::new(Box::new(EngineSplit::default()));
        let mut parts = folder.create_parts(id);
        queue.each(|(stream, compared): Stretch| {
            census.push(&stream, &compared);
            let mut each = census.take_parts();
            if let Ok(file) = &mut parts
                && let Err(error) = each.try_for_each(|(number, digests)| file.put(number, digests))
            {
                parts = Err(error);
            }
        });
        word.blocking_recv().ok()?;
        let held = Held { name: census.name(id), key, keeper, pages: census.held().collect() };
        let kept = folder.save_held(&held);
        if let Err(error) = parts.and_then(|parts| parts.finish(census.numbers())) {
            tracing::info!(
                error = chain(&error),
                "what changes in part will travel as whole pages"
            );
        }
        // The guest is here again: what was kept when it left is of no use.
        Some(kept.and_then(|()| folder.drop_image()))
    });
    (feed, keeper)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages are packed while there is a core for it, or little room; in between all stays.
    #[test]
    fn an_image_is_packed_where_nobody_waits() {
        assert_eq!(next_codec(0.0, true), Some(Codec::Lz4));
        assert_eq!(next_codec(0.2, true), None);
        assert_eq!(next_codec(0.5, true), Some(Codec::Raw));
        assert_eq!(next_codec(0.5, false), Some(Codec::Lz4));
    }
}
