// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What is measured together, in turn: one question, on one kind of guest, over one link.

use super::samples::{Key, Samples};
use super::ways::Way;
use std::fmt;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// The guest has never been there.
    Visit,
    /// It comes back after work.
    Return,
    /// The link is cut when nine tenths have been sent.
    Cut,
    /// The guest writes while it moves.
    Converge,
}

impl Question {
    pub(super) const ALL: [Question; 4] =
        [Question::Visit, Question::Return, Question::Cut, Question::Converge];

    pub(super) fn name(self) -> &'static str {
        match self {
            Question::Visit => "visit",
            Question::Return => "return",
            Question::Cut => "cut",
            Question::Converge => "converge",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Question::Visit => "First visit",
            Question::Return => "Return after work",
            Question::Cut => "Link cut at nine tenths",
            Question::Converge => "A guest that writes meanwhile",
        }
    }
}

/// What the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// How it dirties its checked memory: kind, MiB a second, over so many MiB.
    pub(super) dirty: Option<(&'static str, u32, u32)>,
    /// How many small files a second it rewrites.
    pub(super) files_per_s: u32,
}

/// The wire between the hosts, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: &'static str,
    pub(super) mbit: Option<u32>,
}

/// As the lab is when nothing is said.
pub(super) const UNSHAPED: Link = Link { name: "unshaped", mbit: None };

/// What the guest does between its first visit and its return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Its kind's usual work for this long, and a look around every few seconds.
    Usual(Duration),
    /// What a busy hour does to memory, in a minute.
    Churn,
}

#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) question: Question,
    pub(super) kind: Kind,
    pub(super) link: Link,
    /// What lies before a return.
    pub(super) work: Option<Work>,
    pub(super) ways: Vec<Way>,
    pub(super) rounds: usize,
}

impl Cell {
    /// Names the figures of a round of one way.
    pub(super) fn key(&self, way: Way, round: usize) -> Key {
        self.key_of(self.question, way, round)
    }

    pub(super) fn key_of(&self, question: Question, way: Way, round: usize) -> Key {
        let [question, kind] = [question.name().to_owned(), self.kind_name(question)];
        let [link, way] = [self.link.name, way.name()].map(str::to_owned);
        Key { question, kind, link, way, round }
    }

    /// The kind, and what it did before it returned.
    fn kind_name(&self, question: Question) -> String {
        match (question, self.work) {
            (Question::Return, Some(Work::Churn)) => format!("{} churned", self.kind.name),
            (Question::Return, Some(Work::Usual(time))) => {
                format!("{} {} s", self.kind.name, time.as_secs())
            }
            (_, _) => self.kind.name.to_owned(),
        }
    }

    /// Returns what has not been measured yet, round by round.
    pub(super) fn open(&self, samples: &Samples) -> Vec<(usize, Way)> {
        let rounds =
            (0..self.rounds).flat_map(|round| self.ways.iter().map(move |way| (round, *way)));
        rounds.filter(|(round, way)| !samples.has(&self.key(*way, *round))).collect()
    }

    pub(super) fn is_open(&self, samples: &Samples) -> bool {
        !self.open(samples).is_empty()
    }

    /// Tells whether this is among what was asked for: words divided by slashes, all of which must
    /// be names of this cell.
    pub(super) fn is_wanted(&self, only: &[String]) -> bool {
        let full = self.kind_name(self.question);
        let names: Vec<_> = [self.question.name(), self.kind.name, &full, self.link.name]
            .into_iter()
            .chain(self.ways.iter().map(|way| way.name()))
            .collect();
        only.is_empty() || only.iter().any(|one| one.split('/').all(|word| names.contains(&word)))
    }

    /// Leaves only those ways that were asked for, where any were.
    pub(super) fn narrowed(mut self, only: &[String]) -> Cell {
        let words: Vec<_> = only.iter().flat_map(|one| one.split('/')).collect();
        let is_asked = |way: &Way| words.contains(&way.name());
        if self.ways.iter().any(is_asked) {
            self.ways.retain(is_asked);
        }
        self
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ways: Vec<_> = self.ways.iter().map(|way| way.name()).collect();
        let Cell { question, link, rounds, .. } = self;
        let (kind, ways) = (self.kind_name(*question), ways.join(" "));
        write!(f, "{}, {kind}, {}: {ways}, {rounds} rounds", question.name(), link.name)
    }
}
