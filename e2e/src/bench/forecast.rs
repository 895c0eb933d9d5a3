// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `./x bench forecast`: what `plan` said of a migration beside what came of it.
//!
//! Different guests over different links, there and back and there again: the first move of a
//! guest is forecast from what can be measured beforehand, the later ones also from what the
//! earlier ones took. A forecast is a range; the goal is that nine of ten outcomes lie within, and
//! a range that always holds because it is wide is told by its width.

use crate::scene::{Cast, Scene, lives_only_on, report};
use crate::setting::Setting;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::fs;

/// Moves of one guest over one link.
const MOVES: usize = 3;
const LINKS: [(&str, Option<u32>); 3] =
    [("unshaped", None), ("1 Gbit/s", Some(1000)), ("100 Mbit/s", Some(100))];
/// What is forecast, by its name in the report's forecast and in the report.
const FIGURES: [(&str, &str); 3] =
    [("total_ms", "total_ms"), ("pause_ms", "pause_ms"), ("wire_bytes", "wire_bytes")];
/// So many of the outcomes are to lie within their forecast.
const GOAL: f64 = 0.9;

fn guests() -> [(&'static str, Cast); 5] {
    let web1 = Cast::web1;
    [
        ("idle", web1()),
        ("large, idle", web1().with_memory(512, 256)),
        ("text, 4 MiB/s", web1().with_memory(256, 64).dirtying("text", 4)),
        ("random, 1 MiB/s", web1().with_memory(256, 96).dirtying("random", 1)),
        ("objects, 4 MiB/s", web1().with_memory(384, 128).dirtying("object", 4)),
    ]
}

/// One figure of one migration.
struct Told {
    guest: &'static str,
    link: &'static str,
    /// Which move of the guest it was.
    nth: usize,
    what: &'static str,
    low: f64,
    high: f64,
    came: f64,
}

impl Told {
    fn holds(&self) -> bool {
        (self.low..=self.high).contains(&self.came)
    }

    /// How far outside the range it came: 1 within, 2 for twice the most or half the least.
    fn miss(&self) -> f64 {
        (self.low / self.came.max(1.0)).max(self.came / self.high.max(1.0)).max(1.0)
    }
}

pub(super) fn forecast(setting: &Setting) -> Result<()> {
    let mut told = Vec::new();
    for (guest, cast) in guests() {
        follow(setting, guest, &cast, &mut told)?;
    }
    let raw = setting.figures().join("forecast.csv");
    fs::create_dir_all(setting.figures())?;
    fs::write(&raw, csv(&told)).with_context(|| format!("cannot write {}", raw.display()))?;
    println!("\n{}", summary(&told));
    println!("every figure: {}", raw.display());
    Ok(())
}

/// Moves one guest over every link.
fn follow(setting: &Setting, guest: &'static str, cast: &Cast, told: &mut Vec<Told>) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let witness = scene.create(scene.alpha(), cast)?;
    let mut hosts = [scene.alpha(), scene.beta()];
    let mut nth = 0;
    for (link, mbit) in LINKS {
        scene.alpha().set_rate(mbit)?;
        scene.beta().set_rate(mbit)?;
        for _ in 0..MOVES {
            let [source, target] = hosts;
            source.whimbrel(&["migrate", &cast.name, &target.name])?.ok()?;
            lives_only_on(target, source, &cast.name, "running")?;
            witness.is_well()?;
            nth += 1;
            let report = report(target, &cast.name)?;
            for (what, came) in FIGURES {
                let range = &report["forecast"][what];
                let figure = Told {
                    guest,
                    link,
                    nth,
                    what,
                    low: number(&range["min"])?,
                    high: number(&range["max"])?,
                    came: number(&report[came])?,
                };
                println!("{}", line(&figure));
                told.push(figure);
            }
            hosts.reverse();
        }
    }
    Ok(())
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("no number: {value}"))
}

fn line(told: &Told) -> String {
    let Told { guest, link, nth, what, low, high, came } = told;
    let verdict = if told.holds() { "" } else { "  OUTSIDE" };
    format!(
        "{guest:<17} {link:<11} {nth:>2} {what:<11} {low:>12.0} {high:>12.0} {came:>12.0}{verdict}"
    )
}

fn csv(told: &[Told]) -> String {
    let lines = told.iter().map(|told| {
        let Told { guest, link, nth, what, low, high, came } = told;
        format!("\"{guest}\",{link},{nth},{what},{low},{high},{came}\n")
    });
    std::iter::once("guest,link,move,what,low,high,came\n".to_owned()).chain(lines).collect()
}

/// Of first moves and of later ones: how many came as was said, how wide the ranges were (most
/// through least, median), and by how much the worst was missed.
fn summary(told: &[Told]) -> String {
    let mut text = format!(
        "{:<28} {:>7} {:>7} {:>7} {:>7} {:>11}\n",
        "", "moves", "within", "share", "width", "worst miss"
    );
    for (name, is_first) in [("a guest's first move", true), ("later ones", false)] {
        for (what, _) in FIGURES {
            let of: Vec<_> =
                told.iter().filter(|t| t.what == what && (t.nth == 1) == is_first).collect();
            let within = of.iter().filter(|told| told.holds()).count();
            let worst = of.iter().map(|told| told.miss()).fold(1.0, f64::max);
            let width = median(of.iter().map(|told| told.high / told.low.max(1.0)).collect());
            text.push_str(&format!(
                "{:<28} {:>7} {within:>7} {:>7.2} {width:>7.1} {worst:>11.2}\n",
                format!("{name}, {what}"),
                of.len(),
                share(within, of.len()),
            ));
        }
    }
    let times: Vec<_> = told.iter().filter(|told| told.what == "total_ms").collect();
    let within = times.iter().filter(|told| told.holds()).count();
    let verdict = if share(within, times.len()) >= GOAL { "met" } else { "missed" };
    text.push_str(&format!(
        "the time was as forecast {within} of {} times; the goal of nine in ten is {verdict}\n",
        times.len()
    ));
    text
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_outside_is_counted_and_measured() {
        let told = |what, nth, came| Told {
            guest: "idle",
            link: "unshaped",
            nth,
            what,
            low: 100.0,
            high: 200.0,
            came,
        };
        let all = [
            told("total_ms", 1, 100.0),
            told("total_ms", 2, 400.0),
            told("total_ms", 3, 150.0),
            told("pause_ms", 2, 50.0),
        ];
        assert!(all[0].holds() && !all[1].holds());
        assert_eq!((all[1].miss(), all[2].miss(), all[3].miss()), (2.0, 1.0, 2.0));
        let text = summary(&all);
        assert!(text.contains("2 of 3 times; the goal of nine in ten is missed"), "{text}");
        assert!(
            text.contains(
                "later ones, total_ms               2       1    0.50     2.0        2.00"
            ),
            "{text}"
        );
    }
}
