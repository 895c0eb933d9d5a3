// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How hosts talk: identities, mutual TLS, frames, and the process that carries a migration.
//!
//! Bottom up: a host *is* a certificate ([`identity`]); [`tls`] turns a connection into a
//! [`tls::PeerStream`], which nothing else can make; [`listener`] is the one open port, and tells
//! by the first bytes who should have a connection; [`wire`] says what may be said, in frames;
//! [`conn`] is one request, from either side; [`pairing`] is how two hosts come to know each
//! other. [`carrier`] is another program in the same binary: it holds the sockets of one
//! migration, so that a daemon may come and go.
//!
//! `docs/protocol.md` has the bytes and the limits.

pub mod carrier;
pub mod conn;
mod frame;
pub mod identity;
pub mod listener;
pub mod pairing;
mod proto;
pub mod tls;
pub mod wire;
pub mod words;
