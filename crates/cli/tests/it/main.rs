// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The program as people meet it: arguments in; output, conversation and exit code out; between
//! them the real client, the real API server, and a daemon that is made up.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

mod console;
mod fake;
mod guests;
mod help;
mod hosts;
mod lab;
mod log;
mod moves;
mod pages;
mod xm;

/// Every file here is part of the one binary: a forgotten one would never run.
#[test]
fn no_file_is_forgotten() {
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").filter(|module| *module != "main");
        if let Some(module) = module {
            assert!(main.contains(&format!("\nmod {module};\n")), "{name} is not in main.rs");
        }
    }
}
