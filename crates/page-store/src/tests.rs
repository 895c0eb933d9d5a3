// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use tempfile::TempDir;
use whimbrel_model::config::Budget;
use whimbrel_model::id::{GuestId, GuestName, HostId, HostName};
use whimbrel_model::problem::Remedy;
use whimbrel_model::units::Bytes;
use whimbrel_pages::codec::{Codec, Packer};
use whimbrel_pages::digest::PageDigest;
use whimbrel_pages::image::{
    ImageId, ImageKey, ImageWriter, Manifest, ManifestName, Seal, SealedBlock,
};
use whimbrel_pages::parts::{PartDigests, Parts};
use whimbrel_pages::sender::{Kept, KeptPage};
use whimbrel_pages::shelf::{Shelf, SlotLost};
use whimbrel_pages::split::{PAGE_BYTES, Page, Place};

use crate::policy::{Policy, Why};
use crate::{About, Folder, Held, ImageShelf, PageStore, StoreError};

const ROOMY: u64 = 1 << 30;

fn guest(n: u128) -> GuestId {
    GuestId(uuid::Uuid::from_u128(n))
}

/// A folder where nothing has to give way. A machine's disk may be nearly full, and is then of no
/// use here: everything is dropped at once, as it should be.
fn roomy_place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    if !PageStore::new(place.path()).space().unwrap().is_short() {
        return place;
    }
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let space = PageStore::new(place.path()).space().unwrap();
    assert!(!space.is_short(), "neither the disk nor /dev/shm has 5 % of its space free");
    place
}

fn store() -> (TempDir, PageStore) {
    let place = roomy_place();
    let store = PageStore::new(place.path().join("pages"));
    (place, store)
}

fn key(n: u8) -> ImageKey {
    ImageKey::new([n; 32])
}

fn about(created_unix_ms: u64) -> About {
    About {
        guest: GuestName::new("web1").unwrap(),
        image: ImageId([0; 16]),
        pages: 0,
        bytes: 0,
        created_unix_ms,
        went_to: HostName::new("beta").unwrap(),
    }
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A page of a batch: where it lives, what it contains, and whether it travelled whole.
#[derive(Clone, Copy, Debug)]
struct Sent {
    page_index: u32,
    content: u64,
    is_new: bool,
}

fn new(page_index: u32, content: u64) -> Sent {
    Sent { page_index, content, is_new: true }
}

fn place(page_index: u32) -> Place {
    Place { block: 0, page_index }
}

/// Noise, so that it does not get smaller; equal contents, equal pages.
fn noise(content: u64) -> Page {
    let mut page = [0; PAGE_BYTES];
    blake3::Hasher::new().update(&content.to_be_bytes()).finalize_xof().fill(&mut page);
    page
}

fn dull(content: u64) -> Page {
    [content.to_le_bytes()[0]; PAGE_BYTES]
}

fn batch(number: u64, sent: &[Sent], page: fn(u64) -> Page) -> Kept {
    let (mut plain, mut stream, mut pages) = (b"records".to_vec(), Vec::new(), Vec::new());
    for one in sent {
        let page = page(one.content);
        let plain_at = one.is_new.then(|| u32::try_from(plain.len()).unwrap());
        if one.is_new {
            plain.extend_from_slice(&page);
        }
        let stream_at = u32::try_from(stream.len()).unwrap();
        stream.extend_from_slice(&page);
        let digest = PageDigest::of(&page);
        pages.push(KeptPage { place: place(one.page_index), digest, plain_at, stream_at });
    }
    let (packing, packed) = Packer::default().pack(Codec::Zstd(1), &plain);
    let plain_bytes = plain.len();
    Kept {
        batch: number,
        packing,
        packed: packed.into(),
        plain_bytes,
        stream: stream.into(),
        pages,
    }
}

struct Written {
    blocks: Vec<SealedBlock>,
    manifest: Manifest,
    seal: Seal,
}

fn written(id: u8, key_byte: u8, batches: &[Vec<Sent>], page: fn(u64) -> Page) -> Written {
    let mut writer = ImageWriter::new(Seal::new(&key(key_byte), ImageId([id; 16])));
    let mut blocks = Vec::new();
    for (number, sent) in (0..).zip(batches) {
        blocks.extend(writer.push(&batch(number, sent, page)));
    }
    let (last, manifest, seal) = writer.finish();
    blocks.extend(last);
    Written { blocks, manifest, seal }
}

/// Keeps an image and returns its name.
fn keep(folder: &Folder, written: &Written, created_unix_ms: u64) -> ManifestName {
    let mut file = folder.create_image(written.manifest.id(), ROOMY).unwrap();
    written.blocks.iter().for_each(|block| file.write(block).unwrap());
    file.finish(&written.manifest, &written.seal, &about(created_unix_ms)).unwrap();
    written.manifest.name()
}

/// An image with two batches; page 1 was sent twice, page 2 as a delta.
fn small(folder: &Folder, id: u8) -> ManifestName {
    let batches =
        [vec![new(0, 10), new(1, 11)], vec![new(1, 12), Sent { is_new: false, ..new(2, 13) }]];
    keep(folder, &written(id, 7, &batches, dull), now_ms())
}

fn get(shelf: &mut ImageShelf, slot: u32) -> Result<Page, SlotLost> {
    let mut page = [0; PAGE_BYTES];
    shelf.get(slot, &mut page).map(|()| page)
}

fn names(folder: &Folder) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder.path()) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn sent() -> impl Strategy<Value = Sent> {
    (0..40_u32, 0..60_u64, any::<bool>()).prop_map(|(page_index, content, is_new)| Sent {
        page_index,
        content,
        is_new,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever travelled in whatever way, the image gives back what each page contained last, in
    /// the slots the manifest says; the slots after it are memory.
    #[test]
    fn what_was_kept_comes_back(
        batches in proptest::collection::vec(proptest::collection::vec(sent(), 0..90), 0..8),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..80),
    ) {
        let (_place, store) = store();
        let folder = store.folder(guest(1));
        let name = keep(&folder, &written(1, 2, &batches, noise), 5);
        let mut shelf = folder.open_image(&name, &key(2), 3).unwrap();
        let last: BTreeMap<u32, u64> =
            batches.iter().flatten().map(|sent| (sent.page_index, sent.content)).collect();
        prop_assert_eq!(shelf.held_pages() as usize, last.len());
        prop_assert_eq!(shelf.slots(), shelf.held_pages() + 3);
        let contents: Vec<u64> = last.values().copied().collect();
        let in_order = (0..contents.len()).collect::<Vec<_>>();
        let as_asked = order.iter().filter(|_| !contents.is_empty());
        let as_asked: Vec<_> = as_asked.map(|index| index.index(contents.len())).collect();
        for slot in in_order.into_iter().chain(as_asked) {
            let slot_number = u32::try_from(slot).unwrap();
            prop_assert!(get(&mut shelf, slot_number) == Ok(noise(contents[slot])));
            shelf.put(slot_number, &[1; PAGE_BYTES]);
            prop_assert!(get(&mut shelf, slot_number) == Ok(noise(contents[slot])));
        }
        let spare = shelf.held_pages() + 1;
        prop_assert_eq!(get(&mut shelf, spare), Err(SlotLost));
        shelf.put(spare, &[9; PAGE_BYTES]);
        prop_assert!(get(&mut shelf, spare) == Ok([9; PAGE_BYTES]));
        prop_assert!(shelf.open_bytes() <= 8 << 20);
        let about = folder.about_image().unwrap().unwrap();
        prop_assert_eq!(about.pages, last.len() as u64);
        prop_assert_eq!(about.bytes, fs::metadata(folder.path().join("image")).unwrap().len());
        prop_assert_eq!(about.image, ImageId([1; 16]));
    }
}

/// Whatever single byte of the file is another, each page is right or lost, or the image refused;
/// and each of the three happens. The same for a file that ends early or late.
#[test]
fn a_damaged_image_gives_no_wrong_page() {
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    let name = small(&folder, 1);
    let path = folder.path().join("image");
    let whole = fs::read(&path).unwrap();
    let told = folder.about_image().unwrap().unwrap();
    let expected = [dull(10), dull(12), dull(13)];
    let (mut refused, mut lost, mut right) = (0, 0, 0);
    for index in 0..whole.len() {
        let mut altered = whole.clone();
        altered[index] ^= 1 << (index % 8);
        fs::write(&path, &altered).unwrap();
        let Ok(mut shelf) = folder.open_image(&name, &key(7), 1) else {
            refused += 1;
            continue;
        };
        assert_eq!(folder.about_image().unwrap().as_ref(), Some(&told), "byte {index}");
        for (slot, expected) in (0..).zip(&expected) {
            match get(&mut shelf, slot) {
                Ok(page) if page == *expected => right += 1,
                Ok(_) => panic!("byte {index} was altered, and slot {slot} gives a wrong page"),
                Err(SlotLost) => lost += 1,
            }
        }
    }
    assert!(refused > 100 && lost > 100 && right > 100, "{refused} {lost} {right}");
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = folder.open_image(&name, &key(7), 1).unwrap_err();
        assert_eq!(error.code(), "pages/damaged", "cut to {length}");
        let kept = folder.kept_image().unwrap().unwrap();
        assert_eq!((kept.about, kept.bytes), (None, length as u64));
    }
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert_eq!(folder.open_image(&name, &key(7), 1).unwrap_err().code(), "pages/damaged");
    fs::write(&path, &whole).unwrap();
    assert!(folder.open_image(&name, &key(7), 1).is_ok());
}

/// A file that shrinks while it is open loses pages, and gives no wrong ones.
#[test]
fn an_image_that_shrinks_loses_pages() {
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    let name = small(&folder, 1);
    let mut shelf = folder.open_image(&name, &key(7), 0).unwrap();
    OpenOptions::new().write(true).open(folder.path().join("image")).unwrap().set_len(30).unwrap();
    assert!((0..3).all(|slot| get(&mut shelf, slot) == Err(SlotLost)));
}

/// Another key, another image, other pages, no image: each is an error of its own kind, and none
/// opens.
#[test]
fn only_the_image_that_is_meant_opens() {
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    let code = |name: &ManifestName, k| folder.open_image(name, &key(k), 0).unwrap_err().code();
    let name = ManifestName { id: ImageId([1; 16]), digest: [0; 32] };
    assert_eq!(code(&name, 7), "pages/no-image");
    assert_eq!(folder.about_image().unwrap(), None);
    let name = small(&folder, 1);
    assert_eq!(code(&name, 8), "pages/damaged");
    assert_eq!(code(&ManifestName { id: ImageId([2; 16]), ..name }, 7), "pages/other-image");
    assert_eq!(code(&ManifestName { digest: [2; 32], ..name }, 7), "pages/other-image");
    assert!(folder.open_image(&name, &key(7), 0).is_ok());
    folder.drop_image().unwrap();
    assert_eq!(code(&name, 7), "pages/no-image");
    assert!(!folder.path().exists(), "nothing is left, not even the folder");
}

/// Nobody else may read what is kept, and nothing in it shows what the guest's memory contained.
#[test]
fn what_is_kept_is_private() {
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    let name = small(&folder, 1);
    folder.save_held(&held(name)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(store.root()), mode(folder.path())), (0o700, 0o700));
    assert_eq!(mode(&folder.path().join("image")), 0o600);
    assert_eq!(mode(&folder.path().join("held")), 0o600);
    let image = fs::read(folder.path().join("image")).unwrap();
    let digest = PageDigest::of(&dull(10));
    for secret in [&[10; 8][..], &digest.0, &key(7).bytes()[..]] {
        assert!(!image.windows(secret.len()).any(|window| window == secret));
    }
}

/// An image that becomes too large is given up at once, and the one before stays.
#[test]
fn an_image_stays_within_its_bytes() {
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    let name = small(&folder, 1);
    let large = written(2, 2, &[vec![new(0, 1)], vec![new(1, 2)]], noise);
    let mut file = folder.create_image(ImageId([2; 16]), 6000).unwrap();
    file.write(&large.blocks[0]).unwrap();
    let error = file.write(&large.blocks[1]).unwrap_err();
    assert_eq!(error.code(), "pages/too-large");
    assert_eq!(names(&folder), ["image"], "its space is free as soon as it fails");
    assert!(file.finish(&large.manifest, &large.seal, &about(0)).is_err());
    assert!(folder.open_image(&name, &key(7), 0).is_ok());

    // The manifest and what is after it count, too.
    let blocks: u64 = large.blocks.iter().map(|block| block.bytes.len() as u64).sum();
    let mut file = folder.create_image(ImageId([2; 16]), 24 + blocks + 20).unwrap();
    large.blocks.iter().for_each(|block| file.write(block).unwrap());
    let error = file.finish(&large.manifest, &large.seal, &about(0)).unwrap_err();
    assert_eq!(error.code(), "pages/too-large");
    assert_eq!(names(&folder), ["image"]);
    assert_eq!(folder.create_image(ImageId([2; 16]), 3).unwrap_err().code(), "pages/too-large");
    assert_eq!(names(&folder), ["image"]);
}

/// A disk that takes no more is an error that names the file; nothing is left, and the image before
/// stays. Run again as a child whose files may have 64 KiB.
#[test]
fn a_full_disk_leaves_what_was() {
    const PLACE: &str = "WHIMBREL_PAGE_STORE_TEST";
    let test = "tests::a_full_disk_leaves_what_was";
    let Some(root) = std::env::var_os(PLACE) else {
        let (_place, store) = store();
        let name = small(&store.folder(guest(1)), 1);
        let mut child = std::process::Command::new("sh");
        child.args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" --exact \"$1\" --nocapture"]);
        child.arg(std::env::current_exe().unwrap()).arg(test).env(PLACE, store.root());
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        assert_eq!(names(&store.folder(guest(1))), ["image"]);
        assert!(store.folder(guest(1)).open_image(&name, &key(7), 0).is_ok());
        return;
    };
    let folder = PageStore::new(root).folder(guest(1));
    let pages = (0..64).map(|n| new(n, n.into())).collect();
    let large = written(2, 2, &[pages], noise);
    let mut file = folder.create_image(ImageId([2; 16]), ROOMY).unwrap();
    let error = file.write(&large.blocks[0]).unwrap_err();
    assert_eq!(error.code(), "pages/unusable");
    assert!(error.to_string().contains("image-0202"), "{error}");
    assert!(matches!(file.write(&large.blocks[0]).unwrap_err(), StoreError::GivenUp { .. }));
    let mut many = held(large.manifest.name());
    many.pages = (0..10_000).map(|n| (place(n), PageDigest([1; 16]))).collect();
    assert_eq!(folder.save_held(&many).unwrap_err().code(), "pages/unusable");
}

/// Where the file system has little space left, an image that is being written is given up at once,
/// and what is kept goes. Run again as a child on a file system of 32 MiB.
#[test]
fn little_space_is_left_to_others() {
    const PLACE: &str = "WHIMBREL_PAGE_STORE_SMALL";
    let test = "tests::little_space_is_left_to_others";
    let Some(root) = std::env::var_os(PLACE) else {
        let place = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("unshare");
        let mount = "mount -t tmpfs -o size=32m small \"$2\" && exec \"$0\" --exact \"$1\"";
        child.args(["--map-root-user", "--mount", "sh", "-c", mount]);
        child.arg(std::env::current_exe().unwrap()).arg(test).arg(place.path());
        let output = child.env(PLACE, place.path()).output();
        let said = output.map(|output| format!("{output:?}")).unwrap_or_default();
        match said.contains("test result") {
            true => assert!(said.contains("1 passed"), "{said}"),
            false => eprintln!("skipped: this machine lets nobody mount a file system: {said}"),
        }
        return;
    };
    let store = PageStore::new(Path::new(&root).join("pages"));
    let name = small(&store.folder(guest(1)), 1);
    let folder = store.folder(guest(2));
    let fill = |mib: usize| {
        let path = Path::new(&root).join("others");
        fs::write(path, vec![1; mib << 20]).unwrap();
    };
    let block = |number| SealedBlock { number, bytes: vec![1; 1 << 20] };
    fill(23);
    let mut file = folder.create_image(ImageId([2; 16]), ROOMY).unwrap();
    let error = (0..9).find_map(|number| file.write(&block(number)).err()).unwrap();
    assert_eq!(error.code(), "pages/little-space");
    assert_eq!(names(&folder), Vec::<String>::new());
    fill(29);
    let mut file = folder.create_image(ImageId([2; 16]), ROOMY).unwrap();
    let error = (0..4).find_map(|number| file.write(&block(number)).err()).unwrap();
    assert_eq!(error.code(), "pages/unusable", "there is no space at all");
    assert_eq!(names(&folder), Vec::<String>::new());

    let sweep = || store.sweep(SystemTime::now(), &Policy::default(), |_| true).unwrap();
    assert_eq!(sweep(), []);
    assert!(store.folder(guest(1)).open_image(&name, &key(7), 0).is_ok());
    fill(31);
    let dropped = sweep();
    assert_eq!((dropped.len(), dropped[0].why), (1, Why::SpaceNeeded));
    let room = store.room_for_image(&Policy::default()).unwrap();
    assert_eq!((room.bytes_max, room.dropped), (0, Vec::new()));
}

/// Two migrations that write an image of one guest do not disturb each other: what is finished last
/// stays. Within one handoff there is one writer, and what a dead one left does not stand in the
/// way.
#[test]
fn two_writers_do_not_mix() {
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    let (one, two) =
        (written(1, 1, &[vec![new(0, 1)]], noise), written(2, 2, &[vec![new(0, 2)]], noise));
    let mut first = folder.create_image(ImageId([1; 16]), ROOMY).unwrap();
    let mut second = folder.create_image(ImageId([2; 16]), ROOMY).unwrap();
    assert_eq!(folder.create_image(ImageId([1; 16]), ROOMY).unwrap_err().code(), "pages/busy");
    second.write(&two.blocks[0]).unwrap();
    first.write(&one.blocks[0]).unwrap();
    second.finish(&two.manifest, &two.seal, &about(0)).unwrap();
    let mut shelf = folder.open_image(&two.manifest.name(), &key(2), 0).unwrap();
    first.finish(&one.manifest, &one.seal, &about(0)).unwrap();
    assert!(get(&mut shelf, 0) == Ok(noise(2)), "what is open stays readable");
    let mut shelf = folder.open_image(&one.manifest.name(), &key(1), 0).unwrap();
    assert!(get(&mut shelf, 0) == Ok(noise(1)));
    assert_eq!(names(&folder), ["image"]);

    fs::write(folder.path().join(crate::folder::unfinished_image(ImageId([3; 16]))), "left")
        .unwrap();
    let third = folder.create_image(ImageId([3; 16]), ROOMY).unwrap();
    assert_eq!(names(&folder).len(), 2);
    drop(third);
    assert_eq!(names(&folder), ["image"]);
}

/// What is not finished is swept once its handoff is not alive; its writer then fails, and the
/// image before stays.
#[test]
fn the_unfinished_are_swept() {
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    let name = small(&folder, 1);
    let image = written(2, 2, &[vec![new(0, 1)]], noise);
    let mut file = folder.create_image(ImageId([2; 16]), ROOMY).unwrap();
    file.write(&image.blocks[0]).unwrap();
    let left = folder.path().join(format!("held-{}.unfinished", "04".repeat(16)));
    fs::write(&left, "left").unwrap();
    let sweep = |alive: &[u8]| {
        let is_alive = |id: ImageId| alive.iter().any(|n| id == ImageId([*n; 16]));
        store.sweep(SystemTime::now(), &Policy::default(), is_alive).unwrap()
    };
    assert_eq!(sweep(&[2, 4]), []);
    assert_eq!(
        store.list().unwrap()[0].unfinished_bytes,
        24 + image.blocks[0].bytes.len() as u64 + 4
    );
    let dropped = sweep(&[2]);
    assert_eq!((dropped[0].bytes, dropped[0].why), (4, Why::Unfinished));
    assert_eq!(sweep(&[])[0].why, Why::Unfinished);
    assert_eq!(names(&folder), ["image"]);
    let error = file.finish(&image.manifest, &image.seal, &about(0)).unwrap_err();
    assert_eq!(error.code(), "pages/given-up");
    assert!(folder.open_image(&name, &key(7), 0).is_ok());
}

/// A long image notices while it is written that it was swept or wiped.
#[test]
fn a_writer_notices_that_it_was_given_up() {
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    let mut file = folder.create_image(ImageId([2; 16]), ROOMY).unwrap();
    let block = |number| SealedBlock { number, bytes: vec![1; 1 << 20] };
    file.write(&block(0)).unwrap();
    folder.wipe().unwrap();
    assert!(!folder.path().exists());
    let error = (1..20).find_map(|number| file.write(&block(number)).err()).unwrap();
    assert_eq!(error.code(), "pages/given-up");
}

/// Files that are not plain are not read, not written, and nobody waits for them.
#[test]
fn only_plain_files_are_opened() {
    let (outside, store) = store();
    let folder = store.folder(guest(1));
    let name = small(&folder, 1);
    let image = folder.path().join("image");
    let moved = outside.path().join("moved");
    fs::rename(&image, &moved).unwrap();
    symlink(&moved, &image).unwrap();
    let is_refused = || {
        let error = folder.open_image(&name, &key(7), 0).unwrap_err();
        assert!(matches!(error, StoreError::NotPlain { .. }), "{error}");
    };
    is_refused();
    fs::remove_file(&image).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &image, rustix::fs::Mode::RWXU).unwrap();
    is_refused();
    fs::remove_file(&image).unwrap();
    fs::create_dir(&image).unwrap();
    is_refused();
    // One guest's odd folder does not keep the others from being listed and swept.
    small(&store.folder(guest(2)), 2);
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(store.sweep(SystemTime::now(), &Policy::NOTHING, |_| false).unwrap().len(), 1);

    let linked = store.folder(guest(3));
    symlink(outside.path(), linked.path()).unwrap();
    assert!(matches!(linked.create_image(name.id, ROOMY), Err(StoreError::NotPlain { .. })));
    let target = outside.path().join("target");
    fs::write(&target, "kept").unwrap();
    symlink(&target, store.folder(guest(2)).path()).ok();
    fs::create_dir_all(store.folder(guest(4)).path()).unwrap();
    symlink(&target, store.folder(guest(4)).path().join("held")).unwrap();
    assert!(store.folder(guest(4)).save_held(&held(name)).is_err());
    assert_eq!(fs::read(&target).unwrap(), b"kept");
}

fn held(name: ManifestName) -> Held {
    let pages = (0..3).map(|n| (place(n), PageDigest([1; 16]))).collect();
    Held { name, key: key(7), keeper: HostId([5; 32]), pages }
}

/// What is known of an image elsewhere comes back, is replaced, and is gone when it is dropped; the
/// key of the one before does not stay in its file.
#[test]
fn what_is_held_elsewhere_is_remembered() {
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    assert_eq!(folder.load_held().unwrap(), None);
    assert_eq!(folder.held_summary().unwrap(), None);
    folder.drop_held().unwrap();
    assert!(!store.root().exists(), "reading creates nothing");
    let one = held(ManifestName { id: ImageId([1; 16]), digest: [1; 32] });
    folder.save_held(&one).unwrap();
    assert_eq!(folder.load_held().unwrap(), Some(one.clone()));
    let mut before = File::open(folder.path().join("held")).unwrap();
    let mut two = one;
    two.key = key(8);
    two.name.id = ImageId([2; 16]);
    folder.save_held(&two).unwrap();
    assert_eq!(folder.load_held().unwrap(), Some(two.clone()));
    let is_erased = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes[..124], [0; 124]);
        assert_ne!(bytes[124..], [0; 98]);
    };
    is_erased(&mut before);
    let summary = folder.held_summary().unwrap().unwrap();
    assert_eq!((summary.name, summary.keeper, summary.pages), (two.name, two.keeper, 3));
    assert!(now_ms().abs_diff(summary.saved_unix_ms) < 3_600_000);
    let mut last = File::open(folder.path().join("held")).unwrap();
    folder.drop_held().unwrap();
    is_erased(&mut last);
    assert!(!folder.path().exists());
}

/// The digests of parts come back by slot, whatever order the pages came in and however often;
/// those of another image, or of fewer pages, are none; and they go with what they belong to.
#[test]
fn parts_belong_to_what_is_held() {
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    let held = held(ManifestName { id: ImageId([1; 16]), digest: [1; 32] });
    let digests = |content: u8| PartDigests::of(&[content; PAGE_BYTES]);
    assert!(folder.held_parts(&held).unwrap().is_none());
    let mut parts = folder.create_parts(held.name.id).unwrap();
    for number in 0..3 {
        parts.put(number, digests(7)).unwrap();
    }
    parts.put(1, digests(8)).unwrap();
    folder.save_held(&held).unwrap();
    let alone = folder.held_summary().unwrap().unwrap().bytes;
    parts.finish([2, 0, 1].into_iter()).unwrap();
    let mut found = folder.held_parts(&held).unwrap().unwrap();
    let found: Vec<_> = (0..4).map(|slot| found.of_slot(slot)).collect();
    assert_eq!(found, [Some(digests(7)), Some(digests(7)), Some(digests(8)), None]);
    assert_eq!(folder.held_summary().unwrap().unwrap().bytes, alone + 24 + 3 * 260);
    let mut other = held.clone();
    other.name.id = ImageId([2; 16]);
    assert!(folder.held_parts(&other).unwrap().is_none());
    other = held.clone();
    other.pages.pop();
    assert!(folder.held_parts(&other).unwrap().is_none());
    folder.drop_held().unwrap();
    assert!(!folder.path().exists());
}

/// More parts than are written at a time, and again those of all; and nothing is left of a file
/// that was not finished, whether its writer still lives or not.
#[test]
fn many_parts_are_kept() {
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    let count = 3000_u32;
    let place = |page_index| (Place { block: 0, page_index }, PageDigest::default());
    let mut held = held(ManifestName { id: ImageId([1; 16]), digest: [1; 32] });
    held.pages = (0..count).map(place).collect();
    let digests = |number: u32, pass: u32| {
        let page: [u8; PAGE_BYTES] =
            std::array::from_fn(|at| (number + pass).to_le_bytes()[at % 4]);
        PartDigests::of(&page)
    };
    let mut parts = folder.create_parts(held.name.id).unwrap();
    for pass in 0..2 {
        (0..count).for_each(|number| parts.put(number, digests(number, pass)).unwrap());
    }
    parts.finish((0..count).rev()).unwrap();
    let mut found = folder.held_parts(&held).unwrap().unwrap();
    assert!((0..count).all(|slot| found.of_slot(slot) == Some(digests(count - 1 - slot, 1))));
    let names = || fs::read_dir(folder.path()).unwrap().count();
    drop(folder.create_parts(ImageId([3; 16])).unwrap());
    assert_eq!(names(), 1);
    std::mem::forget(folder.create_parts(ImageId([3; 16])).unwrap());
    store.sweep(SystemTime::now(), &Policy::default(), |_| false).unwrap();
    assert_eq!(names(), 1);
}

/// A damaged list is an error of its kind, at whatever byte, and the sweep takes it away.
#[test]
fn a_damaged_list_is_refused() {
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    folder.save_held(&held(ManifestName { id: ImageId([1; 16]), digest: [1; 32] })).unwrap();
    let path = folder.path().join("held");
    let whole = fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for (index, byte) in whole.iter().enumerate() {
        file.write_all_at(&[byte ^ 1], index as u64).unwrap();
        assert_eq!(folder.load_held().unwrap_err().code(), "pages/damaged", "byte {index}");
        file.write_all_at(&[*byte], index as u64).unwrap();
    }
    assert!(folder.load_held().unwrap().is_some());
    file.set_len(40).unwrap();
    assert_eq!(folder.load_held().unwrap_err().code(), "pages/damaged");
    let dropped = store.sweep(SystemTime::now(), &Policy::default(), |_| true).unwrap();
    assert_eq!(dropped[0].why, Why::Damaged);
    assert_eq!(store.list().unwrap(), []);
}

/// The sweep does what the policy says, to files: expired and damaged images go, then the oldest of
/// what is too much, and the log is told about each.
#[test]
fn the_sweep_drops_what_the_policy_says() {
    let (_place, store) = store();
    assert_eq!(store.sweep(SystemTime::now(), &Policy::default(), |_| true).unwrap(), []);
    let now = now_ms();
    for n in 1..=4_u8 {
        let image = written(n, 7, &[vec![new(0, n.into())]], noise);
        keep(&store.folder(guest(n.into())), &image, now - u64::from(n) * 3_600_000);
    }
    let bytes = store.list().unwrap()[0].image.as_ref().unwrap().bytes;
    assert!(bytes > 4096);
    fs::write(store.folder(guest(9)).path().parent().unwrap().join("other"), "not ours").unwrap();
    let policy = Policy {
        budget: Budget::Size(Bytes(2 * bytes + 100)),
        expire: Duration::from_secs(4 * 3600),
    };
    let dropped = store.sweep(SystemTime::now(), &policy, |_| true).unwrap();
    let told: Vec<_> = dropped.iter().map(|one| (one.guest, one.why)).collect();
    assert_eq!(told, [(guest(3), Why::OverBudget), (guest(4), Why::Expired)]);
    assert_eq!(dropped[0].guest_name.as_ref().unwrap().as_str(), "web1");
    assert_eq!(store.list().unwrap().len(), 2);

    fs::write(store.folder(guest(1)).path().join("image"), "no image").unwrap();
    let dropped = store.sweep(SystemTime::now(), &policy, |_| true).unwrap();
    assert_eq!((dropped[0].guest, dropped[0].why), (guest(1), Why::Damaged));
    let later = SystemTime::now() + Duration::from_secs(5 * 3600);
    store.folder(guest(2)).save_held(&held(ManifestName::from_bytes(&[1; 48]))).unwrap();
    let dropped = store.sweep(later, &policy, |_| true).unwrap();
    assert_eq!(dropped.iter().map(|one| one.why).collect::<Vec<_>>(), [Why::Expired; 2]);
    assert_eq!(store.list().unwrap(), []);
    assert!(!store.folder(guest(2)).path().exists());
}

/// A new image may have the budget; without one, nothing.
#[test]
fn room_is_what_the_policy_allows() {
    let (_place, store) = store();
    let policy = |bytes| Policy { budget: Budget::Size(Bytes(bytes)), ..Policy::default() };
    let spare = store.room_for_image(&policy(u64::MAX)).unwrap().bytes_max;
    let few = spare.min(1000);
    assert_eq!(store.room_for_image(&policy(few)).unwrap().bytes_max, few);
    assert_eq!(store.room_for_image(&Policy::NOTHING).unwrap().bytes_max, 0);
    small(&store.folder(guest(1)), 1);
    assert_eq!(store.room_for_image(&policy(few)).unwrap().dropped, []);
    // More than there is: everything goes, and still it is not more than there is.
    let room = store.room_for_image(&policy(u64::MAX)).unwrap();
    assert_eq!((room.dropped.len(), room.dropped[0].why), (1, Why::SpaceNeeded));
    assert!(room.bytes_max < u64::MAX / 2);
}

/// The shelf of a large image takes what it says: 24 bytes a page, and few opened blocks, in
/// whatever order the pages are asked for.
#[test]
fn a_shelf_takes_little_memory() {
    assert_eq!(size_of::<(PageDigest, whimbrel_pages::image::Location)>(), 24);
    let (_place, store) = store();
    let folder = store.folder(guest(1));
    let batches: Vec<Vec<Sent>> = (0..24)
        .map(|b| (0..200).map(|n| new(b * 200 + n, u64::from(b * 7 + n))).collect())
        .collect();
    let name = keep(&folder, &written(1, 7, &batches, dull), 0);
    let mut shelf = folder.open_image(&name, &key(7), 0).unwrap();
    assert_eq!(shelf.held_pages(), 4800);
    let mut most = 0;
    for step in 0..4800_u32 {
        let slot = step * 201 % 4800;
        assert!(get(&mut shelf, slot).is_ok());
        most = most.max(shelf.open_bytes());
    }
    assert!(most <= 4 << 20 && most > 3 << 20, "{most}");
}

/// Every problem people may see has its code and says what to do.
#[test]
fn every_problem_has_a_remedy() {
    let path = std::path::PathBuf::from("/p");
    let few = Bytes(1);
    let problems = [
        StoreError::NotPlain { path: path.clone() },
        StoreError::NoImage { path: path.clone() },
        StoreError::OtherPages { path: path.clone() },
        StoreError::TooLarge { path: path.clone(), needed: few, bytes_max: few },
        StoreError::LittleSpace { path: path.clone(), free: few, total: few },
        StoreError::Busy { path: path.clone() },
        StoreError::GivenUp { path },
    ];
    let mut codes: Vec<_> = problems.iter().map(Remedy::code).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), problems.len());
    assert!(problems.iter().all(|problem| !problem.remedy().is_empty()));
    let mut sink = Vec::new();
    problems.iter().for_each(|problem| writeln!(sink, "{problem}").unwrap());
    assert!(String::from_utf8(sink).unwrap().lines().all(|line| line.contains("/p")));
}
