// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The contract: request, response and event types of the HTTP API, and its client.
