// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The machine: bridges and taps, disks, ownership files, the store, processes.
