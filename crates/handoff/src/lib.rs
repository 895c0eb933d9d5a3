// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Who owns a guest: the state machines of a handoff. Pure.
