// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How hosts talk: identities, mutual TLS, frames, and the process that carries a migration.
