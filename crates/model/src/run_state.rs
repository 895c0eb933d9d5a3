// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a guest is doing.

/// What a guest with an engine process is doing. It travels with the handoff, so that a guest
/// arrives as what it was when it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunState {
    Running,
    /// Paused by a person.
    Paused,
    /// Asleep (ACPI S3) by its own wish.
    Suspended,
    /// Has powered itself off; the engine keeps it for us to decide.
    ShutDown,
    /// Its kernel has panicked and said so.
    Panicked,
    /// Stopped by the engine because a disk failed.
    IoError,
}
