// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| whimbrel_fuzz::held(data));
