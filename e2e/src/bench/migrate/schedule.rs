// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a run measures, in its order.

use super::cell::{Cell, Kind, Link, Question, UNSHAPED, Work};
use super::ways::{OURS, PAGES, Q0, QX, TUNNEL, V, VP, Way};
use std::time::Duration;

const IDLE: Kind = Kind { name: "idle", dirty: None, files_per_s: 0 };
/// A service: 256 objects a second of memory, and a few files.
const APP: Kind = Kind { name: "app", dirty: Some(("object", 1, 32)), files_per_s: 10 };
const RANDOM: Kind = Kind { name: "random", dirty: Some(("random", 4, 32)), files_per_s: 0 };
const SPARSE: Kind = Kind { name: "sparse", dirty: Some(("sparse", 16, 64)), files_per_s: 0 };
const TEXT: Kind = Kind { name: "text", dirty: Some(("text", 4, 32)), files_per_s: 0 };

const GIGABIT: Link = Link { name: "1gbit", mbit: Some(1000) };
const HUNDRED: Link = Link { name: "100mbit", mbit: Some(100) };

/// A link that ten (and 63) MiB a second are 0.8 (and 5) times of.
const CONVERGE: Link = Link { name: "105mbit", mbit: Some(105) };
const RANDOM_MOST: Kind =
    Kind { name: "random 0.8x", dirty: Some(("random", 10, 0)), files_per_s: 0 };
const SPARSE_MOST: Kind =
    Kind { name: "sparse 5x", dirty: Some(("sparse", 63, 0)), files_per_s: 0 };

pub(super) fn cells(is_quick: bool) -> Vec<Cell> {
    if is_quick { quick() } else { full() }
}

fn cell(question: Question, kind: Kind, link: Link, ways: &[Way], rounds: usize) -> Cell {
    let work = (question == Question::Return).then_some(Work::Usual(Duration::from_secs(30)));
    Cell { question, kind, link, work, ways: ways.to_vec(), rounds }
}

fn quick() -> Vec<Cell> {
    // For the others a return is just another move.
    let fast = [OURS, QX];
    vec![
        cell(Question::Visit, IDLE, GIGABIT, &[OURS, TUNNEL, QX, Q0, V], 3),
        cell(Question::Visit, IDLE, UNSHAPED, &[OURS, QX, Q0, V], 3),
        cell(Question::Return, APP, GIGABIT, &fast, 1),
        cell(Question::Return, APP, HUNDRED, &fast, 1),
        cell(Question::Visit, IDLE, HUNDRED, &fast, 1),
        cell(Question::Visit, IDLE, HUNDRED, &[Q0], 1),
        cell(Question::Cut, IDLE, HUNDRED, &fast, 1),
    ]
}

fn full() -> Vec<Cell> {
    let all = [OURS, TUNNEL, PAGES, QX, Q0, V, VP];
    let mut cells = Vec::new();
    for link in [GIGABIT, HUNDRED, UNSHAPED] {
        for kind in [IDLE, APP] {
            cells.push(cell(Question::Return, kind, link, &all, 5));
        }
        for kind in [RANDOM, SPARSE, TEXT] {
            cells.push(cell(Question::Visit, kind, link, &all, 5));
        }
    }
    for work in [Work::Usual(Duration::from_secs(300)), Work::Churn] {
        let churned = cell(Question::Return, APP, HUNDRED, &[OURS, QX], 3);
        cells.push(Cell { work: Some(work), ..churned });
    }
    cells.push(cell(Question::Cut, IDLE, HUNDRED, &all, 3));
    for kind in [RANDOM_MOST, SPARSE_MOST] {
        cells.push(cell(Question::Converge, kind, CONVERGE, &all, 3));
    }
    cells
}
