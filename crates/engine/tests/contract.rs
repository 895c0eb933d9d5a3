// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The contract of [`whimbrel_engine`], tested on every engine by the same tests.
//!
//! A guest without a kernel that sits in its firmware is a guest: it has memory, runs and moves. So
//! these tests need QEMU and nothing else; where it is missing they say so and do nothing.

#[cfg(test)]
#[path = "contract/bench.rs"]
mod bench;
#[cfg(test)]
#[path = "contract/life.rs"]
mod life;
#[cfg(test)]
#[path = "contract/moves.rs"]
mod moves;
#[cfg(test)]
#[path = "contract/postcopy.rs"]
mod postcopy;
#[cfg(test)]
#[path = "contract/qemu_only.rs"]
mod qemu_only;
