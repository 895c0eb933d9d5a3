// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Many hosts' decisions on a simulated network, disk, clock and engine. Never shipped.

pub mod coverage;
pub mod heal;
pub mod kills;
pub mod model;
pub mod mutants;
pub mod scopes;
pub mod walk;
pub mod world;
