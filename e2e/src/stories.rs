// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The stories: each a test that reads as what happens to a guest.

mod image;

use crate::setting::Setting;
use anyhow::Result;

/// A test on real hosts and guests.
pub struct Story {
    /// `group/what_is_told`.
    pub name: &'static str,
    pub tell: fn(&Setting) -> Result<()>,
}

impl Story {
    pub fn group(&self) -> &'static str {
        self.name.split_once('/').map_or(self.name, |(group, _)| group)
    }

    pub fn is_meant_by(&self, name: &str) -> bool {
        self.name == name || self.group() == name
    }
}

/// Names the stories of modules: `group/function`.
macro_rules! stories {
    ($($group:ident { $($story:ident),* $(,)? })*) => {
        &[$($(Story {
            name: concat!(stringify!($group), "/", stringify!($story)),
            tell: $group::$story,
        },)*)*]
    };
}

/// All stories, in the order in which they are told.
pub const STORIES: &[Story] = stories! {
    image { the_witness_boots_and_counts }
};
