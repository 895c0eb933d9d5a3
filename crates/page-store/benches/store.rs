// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the page store takes of a migration: `cargo bench -p whimbrel-page-store`. A third of each
//! page is noise, as in the benchmarks of `whimbrel-pages`; the disk is that of temporary files.

use divan::Bencher;
use divan::counter::BytesCount;
use tempfile::TempDir;
use whimbrel_model::id::{GuestName, HostId, HostName};
use whimbrel_page_store::{About, Folder, Held};
use whimbrel_pages::codec::{Codec, Packer};
use whimbrel_pages::digest::PageDigest;
use whimbrel_pages::image::{
    Entry, ImageId, ImageKey, ImageWriter, Location, Manifest, ManifestName, Seal, SealedBlock,
};
use whimbrel_pages::sender::{Kept, KeptPage};
use whimbrel_pages::shelf::Shelf as _;
use whimbrel_pages::split::{PAGE_BYTES, Page, Place};

const ID: ImageId = ImageId([1; 16]);
const BATCH_PAGES: u32 = 64;
const PAGES: u32 = 16_384;
/// Of a guest of 1 GiB.
const MANY_PAGES: u32 = 262_144;

fn main() {
    divan::main();
}

fn key() -> ImageKey {
    ImageKey::new([7; 32])
}

fn page(content: u32) -> Page {
    let mut noise = u64::from(content).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    std::array::from_fn(|index| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if index % 3 == 0 { noise.to_le_bytes()[7] } else { b"a page of a guest"[index % 17] }
    })
}

fn place(page_index: u32) -> Place {
    Place { block: 0, page_index }
}

fn folder() -> (TempDir, Folder) {
    let place = tempfile::tempdir().expect("there is a folder for temporary files");
    let folder = Folder::open(place.path().join("guest"));
    (place, folder)
}

fn about() -> About {
    About {
        guest: GuestName::new("web1").expect("a name"),
        image: ID,
        pages: 0,
        bytes: 0,
        created_unix_ms: 0,
        went_to: HostName::new("beta").expect("a name"),
    }
}

/// 64 MiB of memory, sealed.
fn image() -> (Vec<SealedBlock>, Manifest, Seal) {
    let mut writer = ImageWriter::new(Seal::new(&key(), ID));
    let (mut packer, mut blocks) = (Packer::default(), Vec::new());
    for batch in 0..PAGES / BATCH_PAGES {
        let indices = batch * BATCH_PAGES..(batch + 1) * BATCH_PAGES;
        let plain: Vec<u8> = indices.clone().flat_map(page).collect();
        let at = |index: u32| (index % BATCH_PAGES) * 4096;
        let kept_page = |index| KeptPage {
            place: place(index),
            digest: PageDigest::of(&page(index)),
            plain_at: Some(at(index)),
            stream_at: at(index),
        };
        let (packing, packed) = packer.pack(Codec::Zstd(1), &plain);
        blocks.extend(writer.push(&Kept {
            batch: batch.into(),
            packing,
            packed: packed.into(),
            plain_bytes: plain.len(),
            stream: plain.into(),
            pages: indices.map(kept_page).collect(),
        }));
    }
    let (last, manifest, seal) = writer.finish();
    blocks.extend(last);
    (blocks, manifest, seal)
}

fn keep(folder: &Folder, (blocks, manifest, seal): &(Vec<SealedBlock>, Manifest, Seal)) {
    let mut file = folder.create_image(ID, u64::MAX).expect("the folder takes an image");
    blocks.iter().for_each(|block| file.write(block).expect("there is space"));
    file.finish(manifest, seal, &about()).expect("there is space");
}

fn memory(pages: u32) -> BytesCount {
    BytesCount::new(u64::from(pages) * PAGE_BYTES as u64)
}

/// With all that waits for the disk, in bytes of the guest's memory.
#[divan::bench(sample_count = 10)]
fn write_image(bencher: Bencher) {
    let (image, (_place, folder)) = (image(), folder());
    bencher.counter(memory(PAGES)).bench_local(|| keep(&folder, &image));
}

/// Every page once, in the order in which they were written.
#[divan::bench(sample_count = 10)]
fn read_pages(bencher: Bencher) {
    let (image, (_place, folder)) = (image(), folder());
    keep(&folder, &image);
    let name = image.1.name();
    let mut shelf = folder.open_image(&name, &key(), 0).expect("it was just kept");
    let mut page = [0; PAGE_BYTES];
    bencher.counter(memory(PAGES)).bench_local(|| {
        (0..PAGES).for_each(|slot| shelf.get(slot, &mut page).expect("nothing is damaged"));
    });
}

/// The manifest of 1 GiB: read, opened, named.
#[divan::bench(sample_count = 10)]
fn open_image(bencher: Bencher) {
    let digest = |n: u32| PageDigest::of(&[n.to_le_bytes()[0]; PAGE_BYTES]);
    let entry = |n: u32| Entry {
        place: place(n),
        digest: digest(n),
        location: Location { block: n / BATCH_PAGES, offset: n % BATCH_PAGES * 4096 },
    };
    let manifest = Manifest::new(ID, (0..MANY_PAGES).map(entry).collect());
    let (name, (_place, folder)) = (manifest.name(), folder());
    keep(&folder, &(Vec::new(), manifest, Seal::new(&key(), ID)));
    bencher.counter(memory(MANY_PAGES)).bench_local(|| {
        folder.open_image(&name, &key(), 0).expect("it was just kept").held_pages()
    });
}

fn held() -> Held {
    Held {
        name: ManifestName { id: ID, digest: [2; 32] },
        key: key(),
        keeper: HostId([5; 32]),
        pages: (0..MANY_PAGES).map(|n| (place(n), PageDigest([3; 16]))).collect(),
    }
}

/// What is known of 1 GiB elsewhere.
#[divan::bench(sample_count = 10)]
fn save_held(bencher: Bencher) {
    let (held, (_place, folder)) = (held(), folder());
    bencher
        .counter(memory(MANY_PAGES))
        .bench_local(|| folder.save_held(&held).expect("there is space"));
}

#[divan::bench(sample_count = 10)]
fn load_held(bencher: Bencher) {
    let (_place, folder) = folder();
    folder.save_held(&held()).expect("there is space");
    bencher.counter(memory(MANY_PAGES)).bench_local(|| {
        folder.load_held().expect("it was just saved").map(|held| held.pages.len())
    });
}
