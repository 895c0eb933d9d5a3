// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Keeps what makes the guest's return cheap: an image of its memory at the source, and at the
//! target the knowledge of what is in that image.
//!
//! Either is a thread beside the stream. It is done only when the daemon says that the guest has
//! really moved; without that word nothing is left of it.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::{Notify, oneshot};
use whimbrel_model::id::{GuestName, HostId, HostName};
use whimbrel_model::problem::chain;
use whimbrel_page_store::{About, Folder, Held, ImageFile, StoreError};
use whimbrel_pages::image::{Census, ImageId, ImageKey, ImageWriter, Seal};
use whimbrel_pages::sender::Kept;
use whimbrel_pages::split::EngineSplit;

/// Batches that may wait for the thread: more would only be memory.
const WAITING_MAX: usize = 6;

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
        queue.each(|kept| {
            let Ok(image) = &mut file else { return };
            if let Err(error) = write(&mut writer, image, &kept) {
                tracing::info!(error = chain(&error), "no image is kept");
                file = Err(error);
            }
        });
        let moved = word.blocking_recv().ok()?;
        Some(file.and_then(|file| finish(writer, file, moved)).and_then(|()| folder.drop_held()))
    });
    (feed, keeper)
}

fn write(writer: &mut ImageWriter, file: &mut ImageFile, kept: &Kept) -> Result<(), StoreError> {
    writer.push(kept).iter().try_for_each(|block| file.write(block))
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

/// Counts at the target what the image at the source holds.
pub(in super::super) fn census(
    folder: Folder,
    id: ImageId,
    key: ImageKey,
    keeper: HostId,
) -> (Feed<Bytes>, Keeper) {
    let (feed, queue) = Feed::new();
    let keeper = Keeper::spawn(move |word| {
        let mut census = Census::new(Box::new(EngineSplit::default()));
        let mut parts = folder.create_parts(id);
        queue.each(|stream: Bytes| {
            census.push(&stream);
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
