// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The one binary.

fn main() -> std::process::ExitCode {
    whimbrel::run()
}
