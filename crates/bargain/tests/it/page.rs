// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The table of `docs/bargain.md`, and its picture, are what the simulation says.
//! `WHIMBREL_GEN=1 cargo test -p whimbrel-bargain` writes it.

use crate::plot;
use crate::rivals::{DEADLINE, Doubling, Ours, PAUSE, Qemu};
use crate::traces;
use crate::world::{End, Policy, SWITCHOVER, run};
use std::path::PathBuf;
use whimbrel_model::plan::OnMiss;

const BEGIN: &str = "<!-- table: begin -->\n";
const END: &str = "<!-- table: end -->\n";

fn cell(end: End) -> String {
    match end {
        End::Moved { at, pause } => {
            let pause = match pause {
                short if short < 1.0 => format!("{:.0} ms", short * 1000.0),
                long => format!("{long:.1} s"),
            };
            let is_kept = at <= DEADLINE && end_pause_is_kept(end);
            format!("{}{at:.0} s, pause {pause}", if is_kept { "" } else { "broken: " })
        }
        End::Cancelled { at } => format!("said no at {at:.0} s"),
        End::Never => "never".to_owned(),
    }
}

fn end_pause_is_kept(end: End) -> bool {
    matches!(end, End::Moved { pause, .. } if pause <= PAUSE + SWITCHOVER)
}

fn table() -> String {
    let mut text = "| guest and link | bargain | with 30 % slowdown | 300 ms for ever (QEMU) | \
                    doubled pause (Proxmox VE) |\n| --- | --- | --- | --- | --- |\n"
        .to_owned();
    for trace in traces::all() {
        let policies: [Box<dyn Policy>; 4] = [
            Box::new(Ours::new(&trace, 0, OnMiss::Cancel)),
            Box::new(Ours::new(&trace, 30, OnMiss::Cancel)),
            Box::new(Qemu),
            Box::new(Doubling::default()),
        ];
        let cells = policies.map(|mut policy| cell(run(&trace, &mut *policy)));
        text += &format!("| {} | {} |\n", trace.name, cells.join(" | "));
    }
    text
}

fn picture() -> String {
    let traces = traces::all();
    let ends: Vec<_> = traces
        .iter()
        .map(|trace| {
            let policies: [Box<dyn Policy>; 3] = [
                Box::new(Ours::new(trace, 0, OnMiss::Cancel)),
                Box::new(Qemu),
                Box::new(Doubling::default()),
            ];
            (trace.name, policies.map(|mut policy| run(trace, &mut *policy)))
        })
        .collect();
    plot::picture(&ends)
}

#[test]
fn the_picture_is_up_to_date() {
    let path = docs().join("bargain.svg");
    let made = picture();
    if std::env::var_os("WHIMBREL_GEN").is_some() {
        return std::fs::write(&path, made).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == made, "run `WHIMBREL_GEN=1 cargo test -p whimbrel-bargain`");
}

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

#[test]
fn the_page_is_up_to_date() {
    let path = docs().join("bargain.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has a table");
    let (found, after) = rest.split_once(END).expect("the table ends");
    let made = table();
    if std::env::var_os("WHIMBREL_GEN").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{made}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(found, made, "run `WHIMBREL_GEN=1 cargo test -p whimbrel-bargain`");
}
