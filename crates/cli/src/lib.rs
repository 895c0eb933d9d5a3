// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The program people type: commands, printer, progress, and the xm front.
