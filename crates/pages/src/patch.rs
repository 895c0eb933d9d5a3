// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A page as the difference to its earlier version.
//!
//! A patch is a list of `skip, take, bytes`: leave so many bytes, put these in their place. The new
//! bytes themselves are kept, not their XOR with the old ones, because a codec packs them better
//! and because a patch that is applied twice does no harm.

use crate::split::{PAGE_BYTES, Page};
use crate::varint;

/// Equal bytes between two changes that are cheaper to repeat than to skip.
const GAP_MIN: usize = 6;

/// Why a patch was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a patch of {patch_bytes} bytes reaches outside of its page")]
pub struct PatchError {
    pub patch_bytes: usize,
}

/// Appends the patch from `old` to `new`, unless it would take more than `bytes_max`: then `patch`
/// is as it was, and false is returned.
pub(crate) fn make(old: &Page, new: &Page, bytes_max: usize, patch: &mut Vec<u8>) -> bool {
    let start = patch.len();
    let mut from = 0;
    let mut at = first_difference(old, new, 0);
    while at < PAGE_BYTES {
        let end = change_end(old, new, at);
        varint::put(patch, (at - from) as u64);
        varint::put(patch, (end - at) as u64);
        patch.extend_from_slice(&new[at..end]);
        if patch.len() - start > bytes_max {
            patch.truncate(start);
            return false;
        }
        from = end;
        at = first_difference(old, new, end);
    }
    true
}

/// Applies a patch to `page`.
pub(crate) fn apply(mut patch: &[u8], page: &mut Page) -> Result<(), PatchError> {
    let wrong = PatchError { patch_bytes: patch.len() };
    let mut at = 0;
    while !patch.is_empty() {
        let mut number = || varint::take(&mut patch).and_then(|n| usize::try_from(n).ok());
        let (skip, count) = number().zip(number()).ok_or(wrong)?;
        let (bytes, rest) = patch.split_at_checked(count).ok_or(wrong)?;
        let start = skip.checked_add(at).ok_or(wrong)?;
        let end = start.checked_add(count).ok_or(wrong)?;
        page.get_mut(start..end).ok_or(wrong)?.copy_from_slice(bytes);
        (at, patch) = (end, rest);
    }
    Ok(())
}

/// Returns where the change that begins at `at` ends: before the next gap worth skipping.
fn change_end(old: &Page, new: &Page, at: usize) -> usize {
    let (mut end, mut gap) = (at, 0);
    for index in at..PAGE_BYTES {
        if old[index] == new[index] {
            gap += 1;
            if gap == GAP_MIN {
                break;
            }
        } else {
            (end, gap) = (index + 1, 0);
        }
    }
    end
}

/// Returns the first byte from `at` on that differs, eight at a time; the page's end if none does.
fn first_difference(old: &Page, new: &Page, mut at: usize) -> usize {
    while at + 8 <= PAGE_BYTES && old[at..at + 8] == new[at..at + 8] {
        at += 8;
    }
    while at < PAGE_BYTES && old[at] == new[at] {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A patch turns the old page into the new one, also when it is applied twice; and it is
        /// not longer than it may be.
        #[test]
        fn a_patch_gives_the_new_page(
            changes in prop::collection::vec((0..PAGE_BYTES, any::<u8>()), 0..200),
            bytes_max in 0_usize..2000,
        ) {
            let old: Page = std::array::from_fn(|index| u8::try_from(index % 251).unwrap());
            let mut new = old;
            for (index, byte) in changes {
                new[index] = byte;
            }
            let mut patch = b"before".to_vec();
            if make(&old, &new, bytes_max, &mut patch) {
                let mut page = old;
                for _ in 0..2 {
                    apply(&patch[6..], &mut page).unwrap();
                    prop_assert!(page == new);
                }
                prop_assert!(patch.len() - 6 <= bytes_max);
            } else {
                prop_assert_eq!(patch, b"before");
            }
        }

        /// No patch, however wrong, reaches outside of the page or panics.
        #[test]
        fn any_bytes_are_a_patch_or_refused(patch in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = apply(&patch, &mut [0; PAGE_BYTES]);
        }
    }

    #[test]
    fn a_small_change_is_a_small_patch() {
        let old = [7; PAGE_BYTES];
        let mut new = old;
        new[4095] = 1;
        new[100] = 1;
        let mut patch = vec![];
        assert!(make(&old, &new, 16, &mut patch));
        assert_eq!(patch, [100, 1, 1, 0x9a, 31, 1, 1]);
    }
}
