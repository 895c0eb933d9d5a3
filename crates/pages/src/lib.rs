// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How memory travels: stream parsers, page records, codecs, flow control. Pure.
