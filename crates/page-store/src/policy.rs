// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What may be kept, and for how long: pure decisions.
//!
//! The newest image is worth most, as the guest that left last is the likeliest to return soon. So
//! whatever the reason, the oldest goes first.

use std::time::Duration;

use whimbrel_model::config::{Budget, Pages};
use whimbrel_model::units::Bytes;

/// File systems are left at least this part of their space, in percent; images go at once.
pub const FREE_PERCENT_MIN: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub budget: Budget,
    /// Older images are dropped.
    pub expire: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self::of(&Pages::default())
    }
}

impl Policy {
    /// Nothing is kept, and what is there goes.
    pub const NOTHING: Self = Self { budget: Budget::Size(Bytes(0)), expire: Duration::ZERO };

    /// Returns what is configured.
    pub fn of(pages: &Pages) -> Self {
        match pages.is_kept {
            true => Self { budget: pages.budget, expire: pages.expire },
            false => Self::NOTHING,
        }
    }

    /// Returns the bytes images may take, where `kept_bytes` are taken by them already.
    pub fn budget_bytes(&self, space: Space, kept_bytes: u64) -> u64 {
        match self.budget {
            Budget::Percent(percent) => {
                percent_of(space.free_bytes.saturating_add(kept_bytes), percent.into())
            }
            Budget::Size(bytes) => bytes.0,
        }
    }

    /// Tells whether something written then is too old now. A time too far ahead is no time.
    pub fn is_expired(&self, now_unix_ms: u64, written_unix_ms: u64) -> bool {
        u128::from(now_unix_ms.abs_diff(written_unix_ms)) >= self.expire.as_millis()
    }
}

/// The space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    /// What a user without privileges may still write.
    pub free_bytes: u64,
}

impl Space {
    pub(crate) fn of(stat: &rustix::fs::StatVfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Self { total_bytes: bytes(stat.f_blocks), free_bytes: bytes(stat.f_bavail) }
    }

    /// Tells whether images must give way.
    pub fn is_short(&self) -> bool {
        self.spare_bytes() == 0
    }

    /// Returns what may be written until images must give way.
    pub fn spare_bytes(&self) -> u64 {
        self.free_bytes.saturating_sub(percent_of(self.total_bytes, FREE_PERCENT_MIN))
    }
}

fn percent_of(bytes: u64, percent: u64) -> u64 {
    let part = u128::from(bytes) * u128::from(percent) / 100;
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// An image that is kept, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub created_unix_ms: u64,
    pub bytes: u64,
    pub is_damaged: bool,
}

/// Why something is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is older than the policy allows.
    Expired,
    /// All images together were larger than the budget.
    OverBudget,
    /// The file system has little space left.
    SpaceNeeded,
    /// Nobody writes it any more.
    Unfinished,
    /// It cannot be read.
    Damaged,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Why::Expired => "it has expired",
            Why::OverBudget => "the budget was exceeded",
            Why::SpaceNeeded => "the space is needed",
            Why::Unfinished => "its migration did not finish it",
            Why::Damaged => "it is damaged",
        })
    }
}

/// Says which of the images are dropped. `unfinished_bytes` are being written; they count, and are
/// left alone.
pub fn choose(
    now_unix_ms: u64,
    policy: &Policy,
    space: Space,
    images: &[Candidate],
    unfinished_bytes: u64,
) -> Vec<Option<Why>> {
    let mut whys: Vec<_> = images
        .iter()
        .map(|image| match image {
            image if image.is_damaged => Some(Why::Damaged),
            image if policy.is_expired(now_unix_ms, image.created_unix_ms) => Some(Why::Expired),
            _ => None,
        })
        .collect();
    let all_bytes = images.iter().map(|image| image.bytes).sum::<u64>() + unfinished_bytes;
    let budget_bytes = policy.budget_bytes(space, all_bytes);
    let mut oldest_first: Vec<usize> = (0..images.len()).collect();
    oldest_first.sort_by_key(|&index| images[index].created_unix_ms);
    let dropped = |whys: &[Option<Why>]| {
        let dropped = images.iter().zip(whys).filter(|(_, why)| why.is_some());
        dropped.map(|(image, _)| image.bytes).sum::<u64>()
    };
    for index in oldest_first {
        let gone_bytes = dropped(&whys);
        let free_bytes = space.free_bytes.saturating_add(gone_bytes);
        whys[index] = whys[index].or({
            if all_bytes - gone_bytes > budget_bytes {
                Some(Why::OverBudget)
            } else if (Space { free_bytes, ..space }).is_short() {
                Some(Why::SpaceNeeded)
            } else {
                None
            }
        });
    }
    whys
}

/// Says how many of the images are dropped for a new one, oldest first, and how large it may be:
/// the whole budget, as older images give way to it once it is finished, as far as there is space
/// to write it.
pub fn make_room(
    policy: &Policy,
    space: Space,
    image_bytes_oldest_first: &[u64],
    unfinished_bytes: u64,
) -> (usize, u64) {
    let all_bytes = image_bytes_oldest_first.iter().sum::<u64>() + unfinished_bytes;
    let wanted = policy.budget_bytes(space, all_bytes).saturating_sub(unfinished_bytes);
    let mut free_bytes = space.free_bytes;
    let mut count = 0;
    let spare = |free_bytes| Space { free_bytes, ..space }.spare_bytes();
    for bytes in image_bytes_oldest_first {
        if spare(free_bytes) >= wanted {
            break;
        }
        free_bytes = free_bytes.saturating_add(*bytes);
        count += 1;
    }
    (count, wanted.min(spare(free_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 3_600_000;
    const NOW: u64 = 1_000 * HOUR;
    const GIB: u64 = 1 << 30;

    fn image(age_hours: u64, bytes: u64) -> Candidate {
        Candidate { created_unix_ms: NOW - age_hours * HOUR, bytes, is_damaged: false }
    }

    fn space(total: u64, free: u64) -> Space {
        Space { total_bytes: total * GIB, free_bytes: free * GIB }
    }

    fn check(space: Space, images: &[Candidate], expected: &[Option<Why>]) {
        assert_eq!(choose(NOW, &Policy::default(), space, images, 0), expected);
    }

    /// Each reason to drop an image, alone.
    #[test]
    fn each_reason_drops() {
        let roomy = space(1000, 500);
        check(roomy, &[], &[]);
        check(roomy, &[image(1, GIB), image(23, GIB)], &[None, None]);
        check(roomy, &[image(1, GIB), image(24, GIB)], &[None, Some(Why::Expired)]);
        let damaged = Candidate { is_damaged: true, ..image(1, GIB) };
        check(roomy, &[damaged, image(2, GIB)], &[Some(Why::Damaged), None]);
        // 460 free and 60 kept: 52 may be.
        let images = [image(1, 20 * GIB), image(3, 20 * GIB), image(2, 20 * GIB)];
        check(space(1000, 460), &images, &[None, Some(Why::OverBudget), None]);
        // The newest goes, too, if it alone is too large.
        check(space(1000, 10), &[image(1, 90 * GIB)], &[Some(Why::OverBudget)]);
        // 49 of 1000 free: one image of 2 brings it above 5 %.
        let images = [image(1, 2 * GIB), image(2, 2 * GIB)];
        check(space(1000, 49), &images, &[None, Some(Why::SpaceNeeded)]);
        check(space(1000, 40), &images, &[Some(Why::SpaceNeeded); 2]);
    }

    /// An image from a future that cannot be does not stay for ever.
    #[test]
    fn a_wrong_clock_keeps_nothing_for_ever() {
        let ahead = |hours| Candidate { created_unix_ms: NOW + hours * HOUR, ..image(0, GIB) };
        check(space(1000, 500), &[ahead(23), ahead(24)], &[None, Some(Why::Expired)]);
    }

    /// What is being written takes its part of the budget.
    #[test]
    fn what_is_being_written_counts() {
        let images = [image(2, 20 * GIB), image(1, 20 * GIB)];
        let chosen = |unfinished| {
            choose(NOW, &Policy::default(), space(1000, 500), &images, unfinished * GIB)
        };
        assert_eq!(chosen(10), [None, None]);
        assert_eq!(chosen(30), [Some(Why::OverBudget), None]);
    }

    #[test]
    fn nothing_is_kept_where_nothing_may_be() {
        let images = [image(0, 1), image(1, GIB)];
        let chosen = choose(NOW, &Policy::NOTHING, space(1000, 500), &images, 0);
        assert!(chosen.iter().all(Option::is_some));
        assert_eq!(make_room(&Policy::NOTHING, space(1000, 500), &[GIB], 0).1, 0);
    }

    /// A new image may have the whole budget, and the oldest go only where the disk is nearly full.
    #[test]
    fn room_is_made_only_where_it_is_needed() {
        let policy = Policy::default();
        let room = |space, images: &[u64], unfinished| {
            let images: Vec<_> = images.iter().map(|gib| gib * GIB).collect();
            let (count, bytes) = make_room(&policy, space, &images, unfinished * GIB);
            (count, bytes / GIB)
        };
        assert_eq!(room(space(1000, 500), &[], 0), (0, 50));
        assert_eq!(room(space(1000, 480), &[10, 10], 0), (0, 50));
        assert_eq!(room(space(1000, 480), &[10], 10), (0, 40));
        // 55 free: 5 are spare, and 7 wanted.
        assert_eq!(room(space(1000, 55), &[1, 2, 3, 9], 0), (2, 7));
        assert_eq!(room(space(1000, 51), &[1, 1], 0), (2, 3));
        assert_eq!(room(space(1000, 40), &[], 0), (0, 0));
    }

    proptest! {
        /// After a choice the budget is kept and the space is there, unless nothing is left; and no
        /// image is dropped for space while an older one stays.
        #[test]
        fn what_is_left_fits(
            free in 0..200_u64,
            sizes in proptest::collection::vec((0..30_u64, 0..30_u64), 0..12),
        ) {
            let images: Vec<_> = sizes.iter().map(|(age, gib)| image(*age, gib * GIB)).collect();
            let space = space(300, free);
            let policy = Policy::default();
            let whys = choose(NOW, &policy, space, &images, 0);
            let all: u64 = images.iter().map(|image| image.bytes).sum();
            let kept = || images.iter().zip(&whys).filter(|(_, why)| why.is_none());
            let left: u64 = kept().map(|(image, _)| image.bytes).sum();
            prop_assert!(left <= policy.budget_bytes(space, all));
            let free_bytes = space.free_bytes + all - left;
            let is_short = Space { free_bytes, ..space }.is_short();
            prop_assert!(kept().count() == 0 || !is_short);
            for (image, why) in images.iter().zip(&whys) {
                if matches!(why, Some(Why::OverBudget | Why::SpaceNeeded)) {
                    prop_assert!(kept().all(|(k, _)| k.created_unix_ms >= image.created_unix_ms));
                }
            }
        }
    }
}
