// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The scopes that are explored, from narrow to wide.

use crate::coverage::Coverage;
use crate::world::{Budget, Scope, Storage, Words};
use whimbrel_handoff::message::Kind;
use whimbrel_model::run_state::RunState;

const NONE: Budget = Budget {
    migrations: 0,
    daemon_deaths: 0,
    host_deaths: 0,
    engine_faults: 0,
    cancels: 0,
    starts: 0,
    words: 0,
    restores: 0,
};

const BESIDE: Storage = Storage::Beside { has_locks: false };

fn scope(name: &'static str, storage: Storage, budget: Budget) -> Scope {
    Scope {
        name,
        hosts: 2,
        storage,
        kind: Kind::PreCopy,
        run: Some(RunState::Running),
        words: Words::True,
        budget,
        mutant: None,
        coverage: Coverage::default(),
    }
}

/// The scopes of the model check.
pub fn all() -> Vec<Scope> {
    let mut all = one_move();
    all.extend(many_moves_and_words());
    all
}

fn one_move() -> Vec<Scope> {
    let one = Budget { migrations: 1, ..NONE };
    vec![
        scope(
            "one move, two dead daemons",
            BESIDE,
            Budget { daemon_deaths: 2, cancels: 1, engine_faults: 1, ..one },
        ),
        scope(
            "one move, no place for claims",
            Storage::NoPlace,
            Budget {
                daemon_deaths: 1,
                host_deaths: 1,
                cancels: 1,
                engine_faults: 1,
                starts: 1,
                ..one
            },
        ),
        Scope {
            run: Some(RunState::Paused),
            ..scope(
                "one move of a paused guest",
                BESIDE,
                Budget { daemon_deaths: 1, cancels: 1, engine_faults: 1, ..one },
            )
        },
        Scope {
            run: Some(RunState::Paused),
            ..scope(
                "a paused guest that may not start",
                BESIDE,
                Budget { daemon_deaths: 1, engine_faults: 1, ..one },
            )
        },
        Scope {
            kind: Kind::PostCopy,
            ..scope(
                "one post-copy",
                BESIDE,
                Budget { daemon_deaths: 1, cancels: 1, engine_faults: 1, starts: 1, ..one },
            )
        },
        Scope {
            kind: Kind::Stopped,
            run: None,
            ..scope(
                "one move of a stopped guest",
                BESIDE,
                Budget { daemon_deaths: 2, cancels: 1, engine_faults: 1, ..one },
            )
        },
    ]
}

fn many_moves_and_words() -> Vec<Scope> {
    let one = Budget { migrations: 1, ..NONE };
    let two = Budget { migrations: 2, ..NONE };
    vec![
        scope("there and back", BESIDE, Budget { daemon_deaths: 1, cancels: 1, ..two }),
        Scope {
            hosts: 3,
            ..scope("on to a third host", BESIDE, Budget { daemon_deaths: 1, ..two })
        },
        scope(
            "power and starts",
            BESIDE,
            Budget { host_deaths: 2, starts: 2, engine_faults: 1, ..one },
        ),
        scope("true words, claims", BESIDE, Budget { host_deaths: 1, starts: 1, words: 1, ..one }),
        scope(
            "true words, no place for claims",
            Storage::NoPlace,
            Budget { host_deaths: 1, starts: 1, words: 1, ..one },
        ),
        Scope {
            words: Words::False,
            ..scope(
                "false words, claims and locks",
                Storage::Beside { has_locks: true },
                Budget { words: 1, daemon_deaths: 1, starts: 1, ..one },
            )
        },
        Scope {
            words: Words::False,
            ..scope(
                "false words, no place for claims",
                Storage::NoPlace,
                Budget { words: 1, daemon_deaths: 1, ..one },
            )
        },
        scope(
            "an old state directory",
            BESIDE,
            Budget { host_deaths: 1, restores: 1, starts: 1, ..one },
        ),
    ]
}
