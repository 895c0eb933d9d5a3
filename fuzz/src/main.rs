// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Runs the fuzz targets.
//!
//! `--smoke` needs no more than the stable compiler: the committed corpus as it is, and then, for a
//! few seconds a target, with bytes changed. Without it, libFuzzer runs each target for a minute
//! (or `--seconds N`), which needs the nightly compiler and `cargo install cargo-fuzz`.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use whimbrel_fuzz::{TARGETS, Target};

const SMOKE_TIME: Duration = Duration::from_secs(2);

/// Longer inputs find nothing more, only later.
const INPUT_BYTES_MAX: usize = 64 << 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--smoke"] => {
            TARGETS.iter().for_each(smoke);
            ExitCode::SUCCESS
        }
        [] => fuzz("60"),
        ["--seconds", seconds] => fuzz(seconds),
        _ => {
            eprintln!("usage: fuzz [--smoke | --seconds N]");
            ExitCode::from(2)
        }
    }
}

/// A panic in here names the target, and the input is left in a file.
fn smoke((name, target): &Target) {
    let corpus = corpus(name);
    let started = Instant::now();
    let mut dice = 0x5eed_u64;
    let mut runs = 0_u64;
    let last = std::env::temp_dir().join(format!("whimbrel-fuzz-{name}"));
    std::panic::set_hook(Box::new({
        let (name, last) = (*name, last.clone());
        move |panic| eprintln!("fuzz: {name}: {panic}\nfuzz: the input is in {}", last.display())
    }));
    for input in &corpus {
        std::fs::write(&last, input).expect("the folder for temporary files takes a file");
        target(input);
    }
    while started.elapsed() < SMOKE_TIME {
        let input = mutate(&corpus, &mut dice);
        if std::panic::catch_unwind(|| target(&input)).is_err() {
            std::fs::write(&last, &input).expect("the folder for temporary files takes a file");
            std::process::exit(1);
        }
        runs += 1;
    }
    let _ = std::fs::remove_file(&last);
    let files = corpus.len();
    println!("{name:<12} {files:>4} inputs, {runs:>8} changed ones, no fault");
}

/// The committed inputs of a target; never none.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no inputs", folder.display());
    files.iter().map(|file| std::fs::read(file).expect("the corpus can be read")).collect()
}

/// An input with some bytes changed, repeated, cut out or taken from another.
fn mutate(corpus: &[Vec<u8>], dice: &mut u64) -> Vec<u8> {
    let mut roll = |below: usize| {
        *dice =
            dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*dice >> 33) as usize % below.max(1)
    };
    let mut input = corpus[roll(corpus.len())].clone();
    for _ in 0..1 + roll(6) {
        let at = roll(input.len());
        match roll(6) {
            _ if input.is_empty() => input.push(roll(256) as u8),
            0 => input[at] ^= 1 << roll(8),
            1 => input[at] = [0, 1, 0x7f, 0x80, 0xff, 0x28, 0x22, 0x10][roll(8)],
            2 => input.truncate(at),
            3 => drop(input.drain(at..(at + roll(40)).min(input.len()))),
            4 => input.insert(at, roll(256) as u8),
            _ => {
                let other = &corpus[roll(corpus.len())];
                let from = roll(other.len());
                let end = (from + roll(200)).min(other.len());
                input.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn fuzz(seconds: &str) -> ExitCode {
    for (name, _) in TARGETS {
        println!("fuzz: {name} for {seconds} s");
        let status = Command::new("cargo")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["+nightly", "fuzz", "run", "--features", "libfuzzer", name, "--"])
            .args([format!("-max_total_time={seconds}"), format!("-max_len={INPUT_BYTES_MAX}")])
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(_) => return ExitCode::FAILURE,
            Err(error) => {
                eprintln!("fuzz: cargo cannot be started: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
