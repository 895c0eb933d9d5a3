// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

fn main() {}
