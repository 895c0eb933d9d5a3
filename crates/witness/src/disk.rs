// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Writes the counter to a disk and checks that what was written is still there.
//!
//! Before each write the previous one is read back past the page cache: a second writer, or a disk
//! that forgot, is noticed within one interval.

use crate::record::{BLOCK_BYTES, Block, Found, Record, SLOTS, Slot, judge};
use crate::state::{DISKS_MAX, State};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::sleep;
use std::time::Duration;

/// After a failed write the disk is given this long before the next try.
const PATIENCE: Duration = Duration::from_secs(1);

struct Disk {
    name: &'static str,
    file: File,
    last: Record,
}

/// Starts a thread for each of the first disks that are there, under the names of virtio or Xen.
/// Those that can only be read are counted, not counted on, and the one with a userland is left
/// alone.
pub(crate) fn start(interval: Duration, userland: Option<&str>, state: &'static State) {
    let names = [["vda", "xvda"], ["vdb", "xvdb"], ["vdc", "xvdc"]];
    let exists = |name: &&str| Path::new("/dev").join(name).exists() && userland != Some(*name);
    let found = names.into_iter().filter_map(|names| names.into_iter().find(exists));
    let (fixed, writable): (Vec<_>, Vec<_>) = found.partition(|name| is_read_only(name));
    state.read_only_disks.store(fixed.len() as u64, Relaxed);
    for (index, name) in writable.into_iter().take(DISKS_MAX).enumerate() {
        std::thread::spawn(move || match Disk::open(name, state) {
            Ok(disk) => disk.count(index, interval, state),
            Err(reason) => {
                state.disks[index].errors.fetch_add(1, Relaxed);
                state.report(&format!("{name} is not counted on: {reason}"));
            }
        });
    }
}

/// Reads a disk as any program would, and so into the page cache.
pub(crate) fn read_whole(name: &str) -> io::Result<u64> {
    io::copy(&mut File::open(Path::new("/dev").join(name))?, &mut io::sink())
}

fn is_read_only(name: &str) -> bool {
    let flag = std::fs::read_to_string(format!("/sys/block/{name}/ro"));
    flag.is_ok_and(|flag| flag.trim() == "1")
}

impl Disk {
    /// Opens a disk and judges what it holds. A disk that only lost records is reported and used;
    /// one that is not ours is refused.
    fn open(name: &'static str, state: &State) -> Result<Disk, String> {
        let path = Path::new("/dev").join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_DIRECT)
            .open(&path)
            .map_err(|error| error.to_string())?;
        let slots = read_slots(&file).map_err(|error| error.to_string())?;
        let fresh = Record { seed: state.seed, boot: 0, counter: 0 };
        let mut last = match judge(&slots, state.seed) {
            Found::Fresh => fresh,
            Found::Continues { last } => last,
            Found::Foreign(reason) => return Err(reason),
            Found::Broken { last, reason } => {
                state.report(&format!("{name}: {reason}"));
                last
            }
        };
        crate::say(&format!("{name} goes on after counter {}", last.counter));
        last.boot += 1;
        Ok(Disk { name, file, last })
    }

    fn count(mut self, index: usize, interval: Duration, state: &State) {
        let shared = &state.disks[index];
        shared.boot.store(self.last.boot, Relaxed);
        shared.counter.store(self.last.counter, Relaxed);
        let mut is_first = true;
        loop {
            let step = if is_first { Ok(()) } else { self.check(state, index) };
            match step.and_then(|()| self.write_next()) {
                Ok(()) => {
                    shared.counter.store(self.last.counter, Relaxed);
                    is_first = false;
                    sleep(interval);
                }
                Err(error) => {
                    shared.errors.fetch_add(1, Relaxed);
                    state.report(&format!("{}: {error}", self.name));
                    sleep(PATIENCE);
                }
            }
        }
    }

    /// Reads the previous record back, past the page cache.
    fn check(&self, state: &State, index: usize) -> io::Result<()> {
        let mut block = Block::zeroed();
        self.file.read_exact_at(&mut block.0, offset(self.last.counter))?;
        if block.decode() != Slot::Record(self.last) {
            state.disks[index].errors.fetch_add(1, Relaxed);
            let (name, last, found) = (self.name, self.last, block.decode());
            state.report(&format!("{name}: wrote {last:?} and read {found:?}"));
        }
        Ok(())
    }

    fn write_next(&mut self) -> io::Result<()> {
        let next = Record { counter: self.last.counter + 1, ..self.last };
        let mut block = Block::zeroed();
        block.encode(&next);
        self.file.write_all_at(&block.0, offset(next.counter))?;
        self.file.sync_data()?;
        self.last = next;
        Ok(())
    }
}

fn read_slots(file: &File) -> io::Result<Vec<Slot>> {
    let mut block = Block::zeroed();
    (0..SLOTS)
        .map(|slot| file.read_exact_at(&mut block.0, offset(slot)).map(|()| block.decode()))
        .collect()
}

fn offset(counter: u64) -> u64 {
    counter % SLOTS * BLOCK_BYTES as u64
}
