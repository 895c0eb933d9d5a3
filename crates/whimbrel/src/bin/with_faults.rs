// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The one binary as the crash matrix runs it: with fault points in it, and otherwise the same.

fn main() -> std::process::ExitCode {
    whimbrel::run()
}
