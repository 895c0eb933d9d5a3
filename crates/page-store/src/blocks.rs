// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Of a guest's disks: an index of their blocks by digest, and the disks themselves, read.
//!
//! ```text
//! "WPB1\0\0\0\0"  u32 disks  u32 zero   u64 bytes of each disk
//! 12 bytes for each block that is not empty, in rising order:
//!     the first 8 bytes of its digest, and its number
//! ```
//!
//! Numbers are big-endian; blocks of all disks are numbered through. An index is a guess about
//! disks that a guest writes to: whoever uses it looks at what lies there, see
//! [`whimbrel_pages::blocks`]. So it is neither sealed nor checked, and a damaged one costs
//! questions on the wire.
//!
//! Neither making nor using it takes much memory, however large the disks are: sorted runs are
//! merged, and looking up reads the few entries between two fences.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Advice, OFlags, fadvise};
use whimbrel_pages::blocks::{BLOCKS_MAX, Blocks};
use whimbrel_pages::digest::PageDigest;
use whimbrel_pages::shelf::{Shelf, SlotLost};
use whimbrel_pages::split::{PAGE_BYTES, Page};

use crate::error::StoreError;

const MAGIC: &[u8; 8] = b"WPB1\0\0\0\0";
const ENTRY_BYTES: usize = 12;

/// Disks a guest may have, far more than that.
const DISKS_MAX: usize = 64;

/// Entries that are sorted at a time: 4 MiB of them, for 1 GiB of a disk.
const RUN_ENTRIES: usize = 256 << 10;

/// Runs that are merged. Of more than 1 TiB that is not empty the rest travels as pages.
const RUNS_MAX: usize = 1024;

/// What is read of a disk, or of a run, at once.
const READ_BYTES: usize = 1 << 20;
const RUN_READ_ENTRIES: usize = 512;

/// Entries from one fence to the next, which are read for one look.
const FENCE_ENTRIES: usize = 256;

/// The most a process can be nice.
const NICE_MAX: i32 = 19;

/// The beginning of a digest, and the block.
type Entry = (u64, u32);

fn prefix(digest: PageDigest) -> u64 {
    u64::from_be_bytes(*digest.0.first_chunk().expect("a digest has 16 bytes"))
}

fn entry_bytes((prefix, block): Entry) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..8].copy_from_slice(&prefix.to_be_bytes());
    bytes[8..].copy_from_slice(&block.to_be_bytes());
    bytes
}

fn entry(bytes: &[u8]) -> Entry {
    let (prefix, block) = bytes.split_at(8);
    let prefix = u64::from_be_bytes(prefix.try_into().expect("8 bytes"));
    (prefix, u32::from_be_bytes(block.try_into().expect("4 bytes")))
}

/// Disks of a guest, opened for reading, in the guest's order.
#[derive(Debug)]
pub struct Disks {
    disks: Vec<OpenDisk>,
    blocks: u32,
}

#[derive(Debug)]
struct OpenDisk {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl OpenDisk {
    fn open(path: &Path) -> Result<Self, StoreError> {
        // A path that has become a pipe must not hold us up.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("it is small");
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let mut file = file.map_err(StoreError::io("open", path))?;
        // The length of block devices, too.
        let bytes = file.seek(SeekFrom::End(0)).map_err(StoreError::io("measure", path))?;
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    /// Returns how many whole blocks it has.
    fn blocks(&self) -> u64 {
        self.bytes / PAGE_BYTES as u64
    }
}

impl Disks {
    /// All of them, or none: blocks are numbered through.
    pub fn open(paths: &[PathBuf]) -> Result<Self, StoreError> {
        let disks = paths.iter().take(DISKS_MAX).map(|path| OpenDisk::open(path));
        let disks = disks.collect::<Result<Vec<_>, _>>()?;
        let blocks: u64 = disks.iter().map(OpenDisk::blocks).sum();
        Ok(Self { disks, blocks: u32::try_from(blocks).unwrap_or(BLOCKS_MAX) })
    }

    /// Returns how many blocks there are.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    fn read(&self, block: u32, page: &mut Page) -> Result<(), SlotLost> {
        let mut block = u64::from(block);
        for disk in &self.disks {
            if block < disk.blocks() {
                let at = block * PAGE_BYTES as u64;
                return disk.file.read_exact_at(page, at).map_err(|_| SlotLost);
            }
            block -= disk.blocks();
        }
        Err(SlotLost)
    }

    fn header(&self) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        let count = u32::try_from(self.disks.len()).expect("there are few disks");
        header.extend_from_slice(&count.to_be_bytes());
        header.extend_from_slice(&[0; 4]);
        for disk in &self.disks {
            header.extend_from_slice(&disk.bytes.to_be_bytes());
        }
        header
    }
}

/// A shelf beside which the guest's disks can be read.
pub struct DiskShelf {
    shelf: Box<dyn Shelf>,
    disks: Disks,
}

impl DiskShelf {
    pub fn new(shelf: Box<dyn Shelf>, disks: Disks) -> Self {
        Self { shelf, disks }
    }
}

impl Shelf for DiskShelf {
    fn slots(&self) -> u32 {
        self.shelf.slots()
    }

    fn put(&mut self, slot: u32, page: &Page) {
        self.shelf.put(slot, page);
    }

    fn get(&mut self, slot: u32, page: &mut Page) -> Result<(), SlotLost> {
        self.shelf.get(slot, page)
    }

    fn compares(&self, slot: u32) -> Option<PageDigest> {
        self.shelf.compares(slot)
    }

    fn blocks(&self) -> u32 {
        self.disks.blocks()
    }

    fn block(&mut self, block: u32, page: &mut Page) -> Result<(), SlotLost> {
        self.disks.read(block, page)
    }
}

/// An index that was made, opened.
#[derive(Debug)]
pub struct BlockIndex {
    file: File,
    /// Where the entries begin, and how many there are.
    from: u64,
    entries: u64,
    /// The prefix of each [`FENCE_ENTRIES`]th entry.
    fences: Vec<u64>,
}

impl BlockIndex {
    /// Opens the index of these disks. None if there is none, or if it is of other disks.
    pub fn open(path: &Path, disks: &Disks) -> Result<Option<Self>, StoreError> {
        let failed = |source| StoreError::io("read", path)(source);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let header = disks.header();
        let mut found = vec![0; header.len()];
        let bytes = file.metadata().map_err(failed)?.len();
        let from = header.len() as u64;
        if file.read_exact_at(&mut found, 0).is_err() || found != header {
            return Ok(None);
        }
        let entries = (bytes - from) / ENTRY_BYTES as u64;
        let mut index = Self { file, from, entries, fences: Vec::new() };
        for number in (0..entries).step_by(FENCE_ENTRIES) {
            let mut one = [0; ENTRY_BYTES];
            index.read(number, &mut one).map_err(failed)?;
            index.fences.push(entry(&one).0);
        }
        Ok(Some(index))
    }

    /// Returns how many blocks it knows.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    fn read(&self, number: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, self.from + number * ENTRY_BYTES as u64)
    }
}

impl Blocks for BlockIndex {
    fn find(&mut self, digest: PageDigest) -> Option<u32> {
        let wanted = prefix(digest);
        let fence = self.fences.partition_point(|&fence| fence <= wanted).checked_sub(1)?;
        let first = (fence * FENCE_ENTRIES) as u64;
        let count = usize::try_from(self.entries - first).ok()?.min(FENCE_ENTRIES);
        let mut buffer = [0; FENCE_ENTRIES * ENTRY_BYTES];
        let bytes = &mut buffer[..count * ENTRY_BYTES];
        self.read(first, bytes).ok()?;
        let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
        let at = entries.binary_search_by_key(&wanted, |bytes| entry(bytes).0).ok()?;
        Some(entry(&entries[at]).1)
    }
}

/// Makes the index as [`make`] does, at so many bytes a second at most, with the least priority
/// there is: the calling thread has it from then on.
pub fn make_gently(path: &Path, disks: &Disks, bytes_per_second: u64) -> Result<u64, StoreError> {
    // Where that is refused it is only less polite.
    let _ = rustix::process::nice(NICE_MAX);
    make(path, disks, |bytes| {
        let micros = bytes as u64 * 1_000_000 / bytes_per_second;
        std::thread::sleep(Duration::from_micros(micros));
    })
}

/// Makes the index of these disks, in place of the one before, and returns how many blocks it has.
/// `breathe` is told of every stretch that was read, in bytes, and may wait.
pub fn make(path: &Path, disks: &Disks, mut breathe: impl FnMut(usize)) -> Result<u64, StoreError> {
    let unfinished = path.with_extension("unfinished");
    let failed = |source| StoreError::io("write", &unfinished)(source);
    let mut runs = Runs::new(&path.with_extension("runs")).map_err(failed)?;
    let mut base = 0;
    for disk in &disks.disks {
        let read = index_disk(disk, base, &mut runs, &mut breathe);
        read.map_err(StoreError::io("index", &disk.path))?;
        base += disk.blocks();
    }
    let mut out = BufWriter::new(create(&unfinished).map_err(failed)?);
    out.write_all(&disks.header()).map_err(failed)?;
    let entries = runs.merge(&mut out).map_err(failed)?;
    out.flush().map_err(failed)?;
    std::fs::rename(&unfinished, path).map_err(failed)?;
    Ok(entries)
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Reads what of a disk is not a hole.
fn index_disk(
    disk: &OpenDisk,
    base: u64,
    runs: &mut Runs,
    breathe: &mut impl FnMut(usize),
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let end = disk.blocks() * PAGE_BYTES as u64;
    let mut at = 0;
    while at < end && !runs.is_full() {
        at = next_data(&disk.file, at).min(end);
        let length = usize::try_from((end - at).min(READ_BYTES as u64)).expect("it is short");
        let stretch = &mut buffer[..length];
        disk.file.read_exact_at(stretch, at)?;
        // Others keep their page cache. Advice; who does not take it has more in it, no more.
        let _ = fadvise(&disk.file, at, NonZeroU64::new(length as u64), Advice::DontNeed);
        let first = base + at / PAGE_BYTES as u64;
        let (pages, _) = stretch.as_chunks::<PAGE_BYTES>();
        for (page, number) in pages.iter().zip(first..) {
            let Ok(block) = u32::try_from(number) else { return Ok(()) };
            // Empty pages are a byte on the wire already.
            if page.iter().any(|&byte| byte != page[0]) {
                runs.push((prefix(PageDigest::of(page)), block))?;
            }
        }
        at += length as u64;
        breathe(length);
    }
    Ok(())
}

/// Returns where data goes on; where a file system cannot say, right here.
fn next_data(file: &File, at: u64) -> u64 {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => data - data % PAGE_BYTES as u64,
        Err(rustix::io::Errno::NXIO) => u64::MAX,
        Err(_) => at,
    }
}

/// Sorted runs in a file without a name.
struct Runs {
    file: File,
    open: Vec<Entry>,
    /// How many entries each has.
    lengths: Vec<usize>,
}

impl Runs {
    fn new(path: &Path) -> io::Result<Self> {
        let file = create(path)?;
        std::fs::remove_file(path)?;
        Ok(Self { file, open: Vec::new(), lengths: Vec::new() })
    }

    fn is_full(&self) -> bool {
        self.lengths.len() >= RUNS_MAX
    }

    fn push(&mut self, entry: Entry) -> io::Result<()> {
        self.open.push(entry);
        if self.open.len() < RUN_ENTRIES { Ok(()) } else { self.end_run() }
    }

    fn end_run(&mut self) -> io::Result<()> {
        self.open.sort_unstable();
        self.open.dedup_by_key(|entry| entry.0);
        let bytes: Vec<u8> = self.open.iter().flat_map(|&one| entry_bytes(one)).collect();
        self.file.write_all(&bytes)?;
        self.lengths.push(self.open.len());
        self.open.clear();
        Ok(())
    }

    /// Writes all of them as one, each content once, and returns how many.
    fn merge(mut self, out: &mut impl Write) -> io::Result<u64> {
        self.end_run()?;
        let mut cursors = Vec::new();
        let mut at = 0;
        for left in self.lengths {
            cursors.push(Cursor { at, left, read: Vec::new().into_iter() });
            at += (left * ENTRY_BYTES) as u64;
        }
        let mut heap = BinaryHeap::new();
        for (number, cursor) in cursors.iter_mut().enumerate() {
            heap.extend(cursor.next(&self.file)?.map(|first| Reverse((first, number))));
        }
        let (mut count, mut last) = (0, None);
        while let Some(Reverse((entry, number))) = heap.pop() {
            if last != Some(entry.0) {
                out.write_all(&entry_bytes(entry))?;
                (count, last) = (count + 1, Some(entry.0));
            }
            heap.extend(cursors[number].next(&self.file)?.map(|next| Reverse((next, number))));
        }
        Ok(count)
    }
}

/// Goes through one run.
struct Cursor {
    at: u64,
    left: usize,
    read: std::vec::IntoIter<Entry>,
}

impl Cursor {
    fn next(&mut self, file: &File) -> io::Result<Option<Entry>> {
        if self.read.as_slice().is_empty() && self.left > 0 {
            let count = self.left.min(RUN_READ_ENTRIES);
            let mut bytes = vec![0; count * ENTRY_BYTES];
            file.read_exact_at(&mut bytes, self.at)?;
            self.at += bytes.len() as u64;
            self.left -= count;
            self.read = bytes.chunks(ENTRY_BYTES).map(entry).collect::<Vec<_>>().into_iter();
        }
        Ok(self.read.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_model::problem::Remedy;
    use whimbrel_pages::shelf::MemoryShelf;

    fn page(content: u32) -> Page {
        let mut page = [0; PAGE_BYTES];
        blake3::Hasher::new().update(&content.to_be_bytes()).finalize_xof().fill(&mut page);
        page
    }

    fn write(path: &Path, pages: impl IntoIterator<Item = Option<u32>>) {
        let bytes: Vec<u8> =
            pages.into_iter().flat_map(|one| one.map_or([0; PAGE_BYTES], page)).collect();
        std::fs::write(path, bytes).unwrap();
    }

    /// Two disks with holes, empty and equal blocks, and a tail that is no block: each content is
    /// found in a block that has it, nothing else is, and the shelf reads it there.
    #[test]
    fn what_lies_on_disks_is_found() {
        let place = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| place.path().join(name));
        write(&paths[0], (0..2000).map(|n| (n % 3 > 0).then_some(n)));
        write(&paths[1], (1000..1400).map(Some));
        OpenOptions::new().append(true).open(&paths[0]).unwrap().write_all(b"tail").unwrap();
        OpenOptions::new().write(true).open(&paths[1]).unwrap().set_len(80 << 20).unwrap();
        let disks = Disks::open(&paths).unwrap();
        assert_eq!(u64::from(disks.blocks()), 2000 + (80 << 20) / PAGE_BYTES as u64);
        let path = place.path().join("blocks");
        assert!(BlockIndex::open(&path, &disks).unwrap().is_none());
        let mut read = 0;
        let made = make(&path, &disks, |bytes| read += bytes).unwrap();
        assert!(read < 16 << 20, "a hole of 78 MiB was read: {read}");
        let mut index = BlockIndex::open(&path, &disks).unwrap().unwrap();
        let contents: std::collections::BTreeSet<u32> =
            (0..2000).filter(|n| n % 3 > 0).chain(1000..1400).collect();
        assert_eq!((made, index.entries()), (contents.len() as u64, contents.len() as u64));
        let mut shelf = DiskShelf::new(Box::new(MemoryShelf::new(1)), disks);
        for content in 0..2100 {
            let found = index.find(PageDigest::of(&page(content)));
            assert_eq!(found.is_some(), contents.contains(&content), "{content}");
            if let Some(block) = found {
                let mut there = [0; PAGE_BYTES];
                shelf.block(block, &mut there).unwrap();
                assert!(there == page(content));
            }
        }
        assert!(shelf.block(shelf.blocks(), &mut [0; PAGE_BYTES]).is_err());
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 3, "nothing is left");
    }

    /// Disks that have another length are other disks; a file that is none is no index.
    #[test]
    fn an_index_is_of_its_disks() {
        let place = tempfile::tempdir().unwrap();
        let paths = [place.path().join("a")];
        write(&paths[0], (0..600).map(Some));
        let path = place.path().join("blocks");
        make(&path, &Disks::open(&paths).unwrap(), |_| {}).unwrap();
        OpenOptions::new().append(true).open(&paths[0]).unwrap().write_all(b"more").unwrap();
        assert!(BlockIndex::open(&path, &Disks::open(&paths).unwrap()).unwrap().is_none());
        std::fs::write(&path, b"WPB1").unwrap();
        assert!(BlockIndex::open(&path, &Disks::open(&paths).unwrap()).unwrap().is_none());
        let missing = Disks::open(&[place.path().join("none")]).unwrap_err();
        assert_eq!(missing.code(), "pages/unusable");
    }

    /// More than one run, each content in several of them.
    #[test]
    fn runs_are_merged() {
        let place = tempfile::tempdir().unwrap();
        let mut runs = Runs::new(&place.path().join("runs")).unwrap();
        for number in 0..3000_u32 {
            runs.push((u64::from(number * 7 % 1000), number)).unwrap();
            if number % 700 == 0 {
                runs.end_run().unwrap();
            }
        }
        let mut out = Vec::new();
        assert_eq!(runs.merge(&mut out).unwrap(), 1000);
        let prefixes: Vec<u64> = out.chunks(ENTRY_BYTES).map(|bytes| entry(bytes).0).collect();
        assert!(prefixes.iter().copied().eq(0..1000));
    }
}
