// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Real processes: found by pid and start time, held, waited for and ended, children or not.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// A name full of parentheses and blanks does not confuse the reader.
#[test]
fn a_strange_name_is_read() {
    let fields: Vec<_> = (4..=52).map(|field| field.to_string()).collect();
    let stat = format!("12 (a) b (c)) R {}", fields.join(" "));
    let Stat { state, start_ticks } = parse_stat(&stat).unwrap();
    assert_eq!((state, start_ticks), ('R', 22));
    assert!(parse_stat("12 (a) R 1 2").is_none());
    assert!(parse_stat("").is_none());
}

/// We live; nobody else has our pid with another start time; no process is no process.
#[test]
fn identities_are_told_apart() {
    let ours = Identity::of(std::process::id()).unwrap().unwrap();
    assert!(ours.is_alive().unwrap());
    let earlier = Identity { start_ticks: ours.start_ticks - 1, ..ours };
    assert!(!earlier.is_alive().unwrap());
    assert_eq!(Identity::of(u32::MAX >> 1).unwrap(), None);
}

/// A process that is not our child is held, ended and waited for.
#[tokio::test]
async fn a_stranger_is_held_and_ended() {
    // The shell starts it in the background and ends; so it is nobody's child any more.
    let mut shell = Command::new("sh")
        .args(["-c", "sleep 600 >/dev/null & echo $!"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    shell.wait().unwrap();
    let identity = Identity::of(line.trim().parse().unwrap()).unwrap().unwrap();

    let mistaken = Identity { start_ticks: identity.start_ticks + 1, ..identity };
    assert!(Held::open(mistaken).unwrap().is_none(), "another one with the same pid");
    let held = Held::open(identity).unwrap().unwrap();
    held.kill().await.unwrap();
    held.kill().await.unwrap();
    assert!(!identity.is_alive().unwrap());
    assert!(Held::open(identity).unwrap().is_none());
}

/// A process that ended and was not collected yet is gone.
#[tokio::test]
async fn a_zombie_is_gone() {
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let identity = Identity::of(child.id()).unwrap().unwrap();
    let held = Held::open(identity).unwrap().unwrap();
    held.kill().await.unwrap();
    assert_eq!(Identity::of(child.id()).unwrap(), None);
    assert!(Held::open(identity).unwrap().is_none());
    child.wait().unwrap();
}

/// A scope is in our slice, goes only after the unit that stops the guests, and no two have one
/// name, so that a guest which starts again at once does not meet the scope it just had.
#[test]
fn scopes_are_ordered_and_never_have_one_name() {
    let at = |micros| SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(micros);
    let words = scope_words("whimbrel-guest-web1", "Whimbrel guest web1", at(255));
    assert_eq!(
        words.join(" "),
        "systemd-run --scope --quiet --collect --slice=whimbrel.slice \
         --property=Before=whimbrel-guests.service --description=Whimbrel guest web1 \
         --unit=whimbrel-guest-web1-ff"
    );
    assert_ne!(words, scope_words("whimbrel-guest-web1", "Whimbrel guest web1", at(256)));
}

/// Users are found, or named as missing with the command that makes them.
#[test]
fn users_are_looked_up() {
    assert_eq!(user("root").unwrap(), User { name: "root".into(), uid: 0, gid: 0 });
    let missing = user("no-such-user").unwrap_err();
    assert_eq!(missing.code(), "engine/no-user");
    assert!(missing.remedy().contains("useradd --system --shell /usr/sbin/nologin no-such-user"));
    assert_eq!(own_user().uid, nix::unistd::geteuid().as_raw());
}
