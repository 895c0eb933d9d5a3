// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Whether QEMU can start a kernel file, judged by its first bytes.
//!
//! A kernel of the years of `xm` may know nothing but Xen's paravirtual machine. QEMU would show a
//! black console; we say so before anything starts. Three kinds of file boot: a bzImage, an ELF
//! image with a PVH entry (its notes name it), and an ELF image with a multiboot header.

use crate::codes;
use crate::problem::{Kind, Remedy};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How much of the beginning of the file the check wants to see.
pub const HEAD_BYTES: usize = 64 * 1024;
/// Most bytes of notes that are looked at.
pub const NOTES_BYTES_MAX: usize = 64 * 1024;

/// Where a multiboot header must begin, by its specification.
const MULTIBOOT_HEAD_BYTES: usize = 8192;
const MULTIBOOT_MAGIC: [u8; 4] = 0x1bad_b002_u32.to_le_bytes();
/// The type of the note that names the entry for PVH, and the owner of Xen's notes.
const NOTE_PHYS32_ENTRY: u32 = 18;
const NOTE_OWNER: &[u8] = b"Xen\0";
const PT_NOTE: u32 = 4;

const COMPRESSED: [(&str, &[u8]); 6] = [
    ("gzip", &[0x1f, 0x8b]),
    ("bzip2", b"BZh"),
    ("xz", &[0xfd, b'7', b'z', b'X', b'Z', 0]),
    ("lzma", &[0x5d, 0, 0]),
    ("lz4", &[0x02, 0x21, 0x4c, 0x18]),
    ("zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
];

/// Why a kernel file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    #[error("the kernel `{}` can only run paravirtualised on Xen: {reason}", .path.display())]
    XenOnly { path: PathBuf, reason: &'static str },
    #[error("the kernel `{}` cannot be started: {reason}", .path.display())]
    Unusable { path: PathBuf, reason: String },
}

impl Remedy for KernelError {
    fn code(&self) -> &'static str {
        match self {
            KernelError::XenOnly { .. } => codes::KERNEL_XEN_ONLY,
            KernelError::Unusable { .. } => codes::KERNEL_UNUSABLE,
        }
    }

    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn remedy(&self) -> String {
        "give the guest a kernel of a current distribution (a bzImage such as `/boot/vmlinuz-*`) \
         with its ramdisk, which must hold the virtio drivers"
            .to_owned()
    }
}

/// Returns where in the file the notes of an ELF image lie, so that the caller can read them for
/// [`check`]. Nothing for other files.
pub fn notes_range(head: &[u8]) -> Option<Range<u64>> {
    let elf = Elf::new(head)?;
    let (offset, length) = elf.note_segments().next()?;
    let length = length.min(u64::try_from(NOTES_BYTES_MAX).expect("64 KiB fit"));
    Some(offset..offset.checked_add(length)?)
}

/// Checks a kernel file by its first [`HEAD_BYTES`], or all of it, if it is shorter.
///
/// The notes of an ELF image may lie further back; then it passes, unless the caller reads its
/// [`notes_range`], too, and asks [`check_with_notes`].
pub fn check(path: &Path, head: &[u8]) -> Result<(), KernelError> {
    let Some(range) = notes_range(head) else { return check_with_notes(path, head, &[]) };
    let range = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
    match range.and_then(|(start, end)| head.get(start..end)) {
        Some(notes) => check_with_notes(path, head, notes),
        None => Ok(()),
    }
}

/// Checks a kernel file by its beginning and by the bytes of its [`notes_range`].
pub fn check_with_notes(path: &Path, head: &[u8], notes: &[u8]) -> Result<(), KernelError> {
    let unusable = |reason: &str| {
        Err(KernelError::Unusable { path: path.to_owned(), reason: reason.to_owned() })
    };
    let xen_only =
        |reason: &'static str| Err(KernelError::XenOnly { path: path.to_owned(), reason });
    if is_bzimage(head) {
        return Ok(());
    }
    if Elf::new(head).is_some() {
        let xen_notes = notes_of_xen(notes);
        return match () {
            () if xen_notes.contains(&NOTE_PHYS32_ENTRY) || has_multiboot_header(head) => Ok(()),
            () if !xen_notes.is_empty() => {
                xen_only("its ELF notes name Xen's entry, and none that other engines know")
            }
            () if contains(head, b"XEN_VER=") => xen_only("it has the old `__xen_guest` section"),
            () => unusable(
                "it is an ELF image without a PVH entry (CONFIG_PVH) and without a multiboot \
                 header",
            ),
        };
    }
    let compressed = COMPRESSED.iter().find(|(_, magic)| head.starts_with(magic));
    match compressed {
        Some((name, _)) => unusable(&format!(
            "it is compressed with {name} as a whole, as kernels for Xen alone used to be"
        )),
        None if head.is_empty() => unusable("it is empty"),
        None => unusable("it is neither a bzImage nor an ELF image"),
    }
}

/// Whether the file has the setup header of Linux for x86.
fn is_bzimage(head: &[u8]) -> bool {
    head.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && head.get(0x202..0x206) == Some(b"HdrS")
}

fn has_multiboot_header(head: &[u8]) -> bool {
    let head = &head[..head.len().min(MULTIBOOT_HEAD_BYTES)];
    head.chunks_exact(4).any(|word| word == MULTIBOOT_MAGIC)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// The beginning of a little-endian ELF image for x86.
struct Elf<'a> {
    head: &'a [u8],
    is_64_bit: bool,
}

impl<'a> Elf<'a> {
    fn new(head: &'a [u8]) -> Option<Self> {
        let (class, order) = (*head.get(4)?, *head.get(5)?);
        let is_elf = head.starts_with(b"\x7fELF") && matches!(class, 1 | 2) && order == 1;
        is_elf.then_some(Self { head, is_64_bit: class == 2 })
    }

    /// Reads a little-endian number of `bytes` bytes.
    fn number(&self, at: usize, bytes: usize) -> Option<u64> {
        let field = self.head.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Returns offset and length of the segments that hold notes.
    fn note_segments(&self) -> impl Iterator<Item = (u64, u64)> {
        let word = if self.is_64_bit { 8 } else { 4 };
        let (table_at, size_at, count_at) =
            if self.is_64_bit { (32, 54, 56) } else { (28, 42, 44) };
        let (offset_at, length_at) = if self.is_64_bit { (8, 32) } else { (4, 16) };
        let table = self.number(table_at, word).and_then(|table| usize::try_from(table).ok());
        let size = self.number(size_at, 2).and_then(|size| usize::try_from(size).ok());
        let count = self.number(count_at, 2).and_then(|count| usize::try_from(count).ok());
        let headers = table.zip(size).zip(count);
        headers.into_iter().flat_map(move |((table, size), count)| {
            (0..count).filter_map(move |index| {
                let at = table.checked_add(size.checked_mul(index)?)?;
                let is_note = self.number(at, 4)? == u64::from(PT_NOTE);
                let offset = self.number(at.checked_add(offset_at)?, word)?;
                let length = self.number(at.checked_add(length_at)?, word)?;
                is_note.then_some((offset, length))
            })
        })
    }
}

/// Returns the types of the notes that Xen owns.
fn notes_of_xen(notes: &[u8]) -> Vec<u32> {
    let mut types = Vec::new();
    let mut rest = notes;
    while let Some((header, body)) = rest.split_at_checked(12) {
        let number = |at: usize| {
            let bytes = header[at..at + 4].try_into().expect("four bytes were taken");
            u32::from_le_bytes(bytes)
        };
        let padded = |length: u32| usize::try_from(length).ok()?.checked_next_multiple_of(4);
        let (Some(name_length), Some(value_length)) = (padded(number(0)), padded(number(4))) else {
            break;
        };
        let Some((name, body)) = body.split_at_checked(name_length) else { break };
        if name == NOTE_OWNER {
            types.push(number(8));
        }
        let Some((_, after)) = body.split_at_checked(value_length) else { break };
        rest = after;
    }
    types
}

#[cfg(test)]
mod tests {
    //! Each kind of file is told from the others, and no bytes make the check panic.

    use super::*;
    use proptest::prelude::*;

    fn bzimage() -> Vec<u8> {
        let mut file = vec![0; 1024];
        file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file
    }

    fn note(owner: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [owner.len(), value.len()] {
            note.extend(u32::try_from(number).unwrap().to_le_bytes());
        }
        note.extend(kind.to_le_bytes());
        for part in [owner, value] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    /// An ELF image whose second program header names notes at 0x1000.
    fn elf(is_64_bit: bool, notes: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 256];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1 + u8::from(is_64_bit), 1]);
        let length = u8::try_from(notes.len()).unwrap();
        if is_64_bit {
            file[32] = 64;
            (file[54], file[56]) = (56, 2);
            let header = 64 + 56;
            (file[64], file[header], file[header + 9]) = (1, 4, 0x10);
            file[header + 32] = length;
        } else {
            file[28] = 52;
            (file[42], file[44]) = (32, 2);
            let header = 52 + 32;
            (file[52], file[header], file[header + 5]) = (1, 4, 0x10);
            file[header + 16] = length;
        }
        assert_eq!(notes_range(&file), Some(0x1000..0x1000 + u64::from(length)));
        file
    }

    fn judge(head: &[u8], notes: &[u8]) -> String {
        match check_with_notes(Path::new("/k"), head, notes) {
            Ok(()) => "fine".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn kernels_are_told_apart() {
        let gnu = note(b"GNU\0", 3, b"build id");
        let xen_only =
            [gnu.clone(), note(b"Xen\0", 5, b"xen-3.0\0"), note(b"Xen\0", 6, b"linux\0")];
        let xen_only = xen_only.concat();
        let pvh = [xen_only.clone(), note(b"Xen\0", NOTE_PHYS32_ENTRY, &[0; 4])].concat();
        assert_eq!(judge(&bzimage(), &[]), "fine");
        for is_64_bit in [false, true] {
            assert_eq!(judge(&elf(is_64_bit, &pvh), &pvh), "fine");
            let head = elf(is_64_bit, &xen_only);
            assert_eq!(
                judge(&head, &xen_only),
                "the kernel `/k` can only run paravirtualised on Xen: its ELF notes name Xen's \
                 entry, and none that other engines know"
            );
            let multiboot = [head, MULTIBOOT_MAGIC.to_vec()].concat();
            assert_eq!(judge(&multiboot, &xen_only), "fine");
        }
        let old = [elf(false, &gnu), b"GUEST_OS=linux,XEN_VER=xen-3.0".to_vec()].concat();
        assert_eq!(
            judge(&old, &gnu),
            "the kernel `/k` can only run paravirtualised on Xen: it has the old `__xen_guest` \
             section"
        );
        // Notes inside the head are found there; notes behind it leave the question open.
        let mut whole = elf(true, &xen_only);
        assert_eq!(check(Path::new("/k"), &whole), Ok(()));
        whole.resize(0x1000, 0);
        whole.extend(&xen_only);
        assert!(matches!(check(Path::new("/k"), &whole), Err(KernelError::XenOnly { .. })));
        assert!(judge(&elf(true, &gnu), &gnu).contains("without a PVH entry"));
        assert!(judge(&[0x1f, 0x8b, 8, 0], &[]).contains("compressed with gzip"));
        assert_eq!(judge(&[], &[]), "the kernel `/k` cannot be started: it is empty");
        assert!(judge(b"#!/bin/sh\n", &[]).contains("neither a bzImage nor an ELF image"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_check_panic(
            mut head in proptest::collection::vec(any::<u8>(), 0..200),
            notes in proptest::collection::vec(any::<u8>(), 0..100),
            is_elf: bool,
        ) {
            if is_elf && head.len() > 6 {
                head[..6].copy_from_slice(b"\x7fELF\x02\x01");
            }
            let _ = notes_range(&head);
            let _ = check(Path::new("/k"), &head);
            let _ = check_with_notes(Path::new("/k"), &head, &notes);
        }
    }
}
