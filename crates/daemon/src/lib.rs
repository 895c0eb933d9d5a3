// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The program that stays: guests, migrations, peers, recovery, the API server.

pub mod console;
pub mod http;
