// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Draws `docs/rivals.md`: what was done, on what, and what came of each case, beside what came of
//! the same fault with ours.

use super::act::Came;
use super::cases::{Case, Setup, all};
use super::moments::{MOMENTS, Moment, Sign};
use super::results::Results;
use super::stage::options;
use crate::command::stdout_of;
use crate::libvirt::DAEMON;
use crate::matrix::stage::{GUEST, Side};
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Where our own results are.
const OURS: &str = "docs/crash-matrix.md";
/// As much of a message as fits a cell.
const MESSAGE_MAX: usize = 90;

/// How bad the end of a case is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Two,
    Undone,
    NoneLeft,
    Stuck,
    Damaged,
    Leftovers,
    /// The fault killed the engine that ran it.
    Killed,
    Well,
}

impl End {
    const ALL: [(End, &'static str); 8] = [
        (End::Two, "ran two copies at a time"),
        (End::Undone, "ran the source's older copy after the target's had run"),
        (End::NoneLeft, "lost the guest, whose engine nobody had killed"),
        (End::Stuck, "left one copy or two that stand still, and nobody to say which goes on"),
        (End::Damaged, "damaged it"),
        (
            End::Leftovers,
            "kept it running on one host and left something to be cleared away by hand",
        ),
        (End::Killed, "lost it with the engine or host that ran it, as was to be expected"),
        (End::Well, "ended well: on one host, undamaged, nothing left to do"),
    ];

    fn of(case: &Case, came: &Came) -> End {
        match came.place.as_str() {
            _ if !came.two.is_zero() => End::Two,
            "both" => End::Two,
            _ if !came.undone.is_zero() => End::Undone,
            "none" if case.takes_the_guest() => End::Killed,
            "none" => End::NoneLeft,
            "stuck" => End::Stuck,
            _ if !matches!(came.witness.as_str(), "well" | "-") => End::Damaged,
            _ if came.settled.is_none() => End::Leftovers,
            _ => End::Well,
        }
    }
}

pub(super) fn write(results: &Results, path: &Path) -> Result<()> {
    let ours = fs::read_to_string(OURS).context("our own results")?;
    let parts = [include_str!("page.md"), &versions()?, &commands(), &moments()];
    let mut page = parts.join("\n") + "\n";
    _ = writeln!(page, "## Every case\n\n{}", sum(results));
    for (setup, title) in [
        (Setup::Usual, "`--p2p`, disks are files that both hosts' locks reach"),
        (Setup::Devices, "`--p2p`, disks are block devices, each host has its own"),
        (Setup::Paused, "`--p2p`, the guest is paused"),
        (Setup::Direct, "without `--p2p`: `virsh` leads"),
    ] {
        _ = write!(page, "\n### {title}\n\n{}", table(results, setup, &ours));
    }
    fs::write(path, page).with_context(|| format!("failed to write {}", path.display()))
}

/// Counts the ends of all cases, each by the worst of its times.
pub(super) fn sum(results: &Results) -> String {
    let cases = all();
    let mut times = 0;
    let mut worst = Vec::new();
    for case in &cases {
        times += results.of(case).len();
        worst.extend(results.of(case).iter().map(|came| End::of(case, came)).min());
    }
    let mut text =
        format!("{} of {} cases were acted out, {times} times in all:", worst.len(), cases.len());
    for (end, what) in End::ALL {
        let count = worst.iter().filter(|one| **one == end).count();
        if count > 0 {
            _ = write!(text, "\n- {count} {what}");
        }
    }
    text
}

fn table(results: &Results, setup: Setup, ours: &str) -> String {
    let mut text = String::from(
        "| moment | fault | times | virsh: the guest | left over | to be typed | `virsh` said | ours |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for case in all().iter().filter(|case| case.setup == setup) {
        let came = results.of(case);
        let there = case.ours().and_then(|(point, fault)| cell_of(ours, point, fault));
        let columns = [
            case.moment.key.to_owned(),
            case.fault.key().to_owned(),
            came.len().to_string(),
            counted(came, |came| guest(case, came)),
            counted(came, |came| came.left.join(", ")),
            counted(came, |came| came.to_type.join(", then ")),
            counted(came, |came| shortened(&came.said)),
            there.unwrap_or("-").to_owned(),
        ];
        _ = writeln!(text, "| {} |", columns.join(" | "));
    }
    text
}

/// Where the guest was, and for how long none or two of it ran.
fn guest(case: &Case, came: &Came) -> String {
    let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
    let still = seconds(came.still);
    match End::of(case, came) {
        End::Two if came.place == "both" => format!("**two**, {} s and on", seconds(came.two)),
        End::Two => format!("**two** for {} s, then {}", seconds(came.two), came.place),
        End::Undone => {
            let lost = came.undone.as_secs_f64() * 1000.0;
            format!("**{}**, {lost:.1} ms undone", came.place)
        }
        End::NoneLeft => "**none**".to_owned(),
        End::Killed => "none, killed".to_owned(),
        End::Stuck if case.setup == Setup::Paused => "**two**, both paused".to_owned(),
        End::Stuck => "**stuck**".to_owned(),
        End::Damaged => format!("**damaged** on the {}", came.place),
        End::Leftovers => format!("**{}** {still}/-", came.place),
        End::Well => {
            format!("{} {still}/{}", came.place, seconds(came.settled.unwrap_or_default()))
        }
    }
}

/// What was the same each time is said once; what was not, how often.
fn counted(came: &[Came], say: impl Fn(&Came) -> String) -> String {
    // Times differ a little: those that only differ in digits are the same.
    let rough = |text: &str| text.replace(|c: char| c.is_ascii_digit() || c == '.', "");
    let mut said: Vec<(String, usize)> = Vec::new();
    for text in came.iter().map(say) {
        match said.iter_mut().find(|(known, _)| rough(known) == rough(&text)) {
            Some((_, count)) => *count += 1,
            None => said.push((text, 1)),
        }
    }
    match said.as_slice() {
        [] => "?".to_owned(),
        [(text, _)] => text.clone(),
        several => {
            let each = several.iter().map(|(text, count)| {
                let text = if text.is_empty() { "nothing" } else { text };
                format!("{text} ({count} of {})", came.len())
            });
            each.collect::<Vec<_>>().join("; ")
        }
    }
}

/// The beginning of what a person would have read, without what only this machine knows.
fn shortened(said: &str) -> String {
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let said = said.split(" (LC_ALL").next().unwrap_or(said);
    match said.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}…", &said[..end]),
        None => said.to_owned(),
    }
}

/// Finds a cell of our own table: the row of a point, the column of a fault.
fn cell_of<'a>(page: &'a str, point: &str, fault: &str) -> Option<&'a str> {
    let cells = |line: &'a str| line.split('|').map(str::trim).collect::<Vec<_>>();
    let head = cells(page.lines().find(|line| line.starts_with("| # |"))?);
    let column = head.iter().position(|name| *name == fault)?;
    let row = page.lines().map(cells).find(|row| row.get(2) == Some(&point))?;
    row.get(column).copied().filter(|cell| !cell.is_empty())
}

fn versions() -> Result<String> {
    let first = |program: &str, argument: &str| -> Result<String> {
        let said = stdout_of(Command::new(program).arg(argument))?;
        Ok(said.lines().next().unwrap_or_default().to_owned())
    };
    let mut query = Command::new("dpkg-query");
    let package = stdout_of(query.args(["-W", "-f", "${Version}", "libvirt-daemon"]))?;
    Ok(format!(
        "## What it was run on\n\n- {} (Debian {package})\n- {}\n\
         - Linux {}, guests emulated (TCG)\n",
        first(DAEMON, "--version")?.replace(DAEMON, "libvirtd"),
        first("qemu-system-x86_64", "--version")?,
        first("uname", "-r")?,
    ))
}

/// What is typed, as it is typed.
fn commands() -> String {
    let target = Ipv4Addr::new(10, 77, 0, 2);
    let line =
        |setup| format!("virsh --connect qemu:///system {}", options(setup, target).join(" "));
    format!(
        "```sh\nvirsh --connect qemu:///system define {GUEST}.xml\n\
         virsh --connect qemu:///system start {GUEST}\n{}\n{}    # client-led\n```\n",
        line(Setup::Usual),
        line(Setup::Direct)
    )
}

/// Names the moments, and what they are known by.
fn moments() -> String {
    let mut text =
        String::from("| moment | known by | what has just happened |\n| --- | --- | --- |\n");
    for Moment { key, sign, what, .. } in MOMENTS {
        let known_by = match sign {
            Sign::Line(Side::Source, line) => format!("source's log: `{line}`"),
            Sign::Line(Side::Target, line) => format!("target's log: `{line}`"),
            Sign::CarriedMib(_) => "`virsh domjobinfo`".to_owned(),
            Sign::Over => "`virsh` itself".to_owned(),
        };
        _ = writeln!(text, "| {key} | {known_by} | {what} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::came;
    use super::*;

    /// Every counterpart that a case names is in our own table.
    #[test]
    fn ours_stands_beside() {
        let page = fs::read_to_string("../docs/crash-matrix.md").unwrap();
        for case in all() {
            if let Some((point, fault)) = case.ours() {
                assert!(cell_of(&page, point, fault).is_some(), "{point}/{fault}");
            }
        }
        assert!(all().iter().filter(|case| case.ours().is_some()).count() >= 30);
        assert_eq!(cell_of(&page, "source:nowhere", "link-cut"), None);
    }

    /// What was the same each time is said once, what was not with its counts.
    #[test]
    fn times_are_counted() {
        let (well, twin) = (came("target", &[]), came("target", &["paused copy on the source"]));
        let left = |came: &Came| came.left.join(", ");
        let paused = "paused copy on the source";
        assert_eq!(counted(&[], left), "?");
        assert_eq!(counted(std::slice::from_ref(&well), left), "");
        assert_eq!(counted(&[twin.clone(), twin.clone()], left), paused);
        assert_eq!(
            counted(&[twin.clone(), well, twin], left),
            format!("{paused} (2 of 3); nothing (1 of 3)")
        );
    }

    /// The worst is said first, whatever else is so.
    #[test]
    fn ends_are_told_apart() {
        let case = all().into_iter().find(|case| !case.takes_the_guest()).unwrap();
        let end = |came: &Came| End::of(&case, came);
        assert_eq!(end(&came("source", &[])), End::Well);
        assert_eq!(end(&came("source", &["a job on the source"])), End::Leftovers);
        assert_eq!(end(&came("stuck", &["paused copy on the source"])), End::Stuck);
        assert_eq!(end(&came("none", &[])), End::NoneLeft);
        let two = Came { two: Duration::from_millis(1), ..came("source", &[]) };
        assert_eq!(end(&two), End::Two);
        let undone = Came { undone: Duration::from_millis(1), ..came("source", &[]) };
        assert_eq!(end(&undone), End::Undone);
        let damaged = Came { witness: "damaged=1".to_owned(), ..came("target", &[]) };
        assert_eq!(end(&damaged), End::Damaged);
    }

    /// Messages keep what a person would know them by.
    #[test]
    fn messages_are_shortened() {
        assert_eq!(shortened("error: Timed out"), "Timed out");
        let long =
            "error: internal error: Child process (LC_ALL=C PATH=/somewhere qemu) unexpected";
        assert_eq!(shortened(long), "internal error: Child process");
        assert!(shortened(&"x".repeat(500)).chars().count() == MESSAGE_MAX + 1);
    }
}
