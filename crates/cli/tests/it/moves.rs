// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Plans, migrations, reports, recovery.

use crate::lab::{Lab, Ran};
use insta::assert_snapshot;
use tokio::sync::mpsc;

#[test]
fn a_plan_is_printed() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["plan", "web1", "beta"]), @r#"
    exit code: 0
    ----- stdout -----
    web1: alpha -> beta
    ok       `alpha` and `beta` run the same version

    forecast: 9-14 s in all, pause 60-110 ms, 300-400 MiB on the wire
              it will end as promised
              the link carries 112 MiB/s
    carrier:  tunnel, 2 channels: the link is fast
    ----- stderr -----
    "#);
    assert_snapshot!(lab.run(&["plan", "web1", "full"]), @r#"
    exit code: 1
    ----- stdout -----
    web1: alpha -> full
    blocker  `full` has 1.5 GiB free memory, and guest `web1` needs 4 GiB
             help: choose a host with room for it: `whimbrel host list`
             code: plan/not-enough-memory
    blocker  `full` has no bridge `br0`
             help: add it there: `ip link add br0 type bridge`
             code: plan/bridge-missing
    carrier:  tunnel, 2 channels: the link is fast

    2 blockers: web1 cannot move to full now.
    ----- stderr -----
    "#);
    let json = lab.run(&["plan", "web1", "full", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, plan["findings"][0]["severity"].as_str()), (1, Some("blocker")));
}

/// Each end of a migration has its sentence and its exit code.
#[test]
fn every_end_of_a_migration_is_told() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["migrate", "web1", "beta"]), @r#"
    exit code: 0
    ----- stdout -----
    web1 now runs on beta. Pause 84 ms (last pages 41, device state 22, first packet 21); \
        total 11 s.
    ----- stderr -----
    "#);
    assert_snapshot!(lab.run(&["migrate", "db", "beta"]), @r#"
    exit code: 0
    ----- stdout -----
    db is now defined on beta; total 11 s.
    ----- stderr -----
    "#);
    assert_snapshot!(lab.run(&["migrate", "web1", "full"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    blocker  `full` has no bridge `br0`
             help: add it there: `ip link add br0 type bridge`
             code: plan/bridge-missing
    error: `full` has 1.5 GiB free memory, and guest `web1` needs 4 GiB

    help: choose a host with room for it: `whimbrel host list`
    code: plan/not-enough-memory
    "#);
    assert_snapshot!(lab.run(&["migrate", "web1", "broken"]), @r#"
    exit code: 3
    ----- stdout -----
    ----- stderr -----
    web1 stays on alpha.
    error: `broken` went away while memory travelled

    help: try again once it is back: `whimbrel migrate web1 broken`
    code: migration/target-lost
    "#);
    assert_snapshot!(lab.run(&["migrate", "web1", "far"]), @r#"
    exit code: 4
    ----- stdout -----
    ----- stderr -----
    error: `far` may own guest `web1`, and does not answer

    help: see what each host knows: `whimbrel recover web1`
    code: handoff/in-doubt
    "#);
    let json = lab.run(&["migrate", "web1", "beta", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(report["pause_ms"], 84);
}

/// Ctrl-C cancels, says so, and says where the guest stays; the second one only leaves.
#[test]
fn ctrl_c_cancels() {
    let lab = Lab::new();
    let interrupted = |args: &[&str]| -> Ran {
        let (interrupt, interrupts) = mpsc::unbounded_channel();
        interrupt.send(()).unwrap();
        lab.prepare().interrupts(interrupts).run(args)
    };
    assert_snapshot!(interrupted(&["migrate", "web1", "slow"]), @r#"
    exit code: 3
    ----- stdout -----
    ----- stderr -----
    Cancelling: web1 stays on alpha, unless it has just moved.
    Cancelled: web1 stays on alpha.
    "#);
    assert_eq!(lab.fake.asked.lock().unwrap().last().unwrap(), "cancel web1");
}

/// A detached migration is begun and left alone; an address names the host that has it.
#[test]
fn migrations_can_be_left_alone() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["migrate", "web1", "192.0.2.2", "--detach"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    web1 is moving to beta: `whimbrel watch web1` shows how.
    "#);
    assert_eq!(*lab.fake.asked.lock().unwrap(), ["migrate web1 beta stop_and_copy=false"]);
    assert_snapshot!(lab.run(&["migrate", "web1", "bata"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: no paired host is called `bata`

    help: did you mean `beta`? Otherwise see the paired hosts with `whimbrel host list`, or \
        pair with it: `whimbrel host invite` there, `whimbrel host join` here
    code: host/not-found
    "#);
}

/// A held migration is told to cut over, and followed to its end; what cannot be is refused.
#[test]
fn a_migration_is_held_and_cut_over() {
    let lab = Lab::new();
    lab.run(&["migrate", "web1", "beta", "--hold", "--detach"]);
    assert_snapshot!(lab.run(&["cutover", "web1"]), @r#"
    exit code: 0
    ----- stdout -----
    web1 now runs on beta. Pause 84 ms (last pages 41, device state 22, first packet 21); \
        total 11 s.
    ----- stderr -----
    "#);
    let asked = lab.fake.asked.lock().unwrap().clone();
    assert_eq!(asked, ["migrate web1 beta stop_and_copy=false held", "cut over web1"]);
    for wrong in [&["--hold", "--stop-and-copy"][..], &["--max-slowdown", "100%"]] {
        assert_eq!(lab.run(&[&["migrate", "web1", "beta"], wrong].concat()).code, 2, "{wrong:?}");
    }
    let wrong = lab.run(&["migrate", "web1", "beta", "--on-miss", "despair"]);
    let values = "possible values: cancel, pause, throttle, postcopy";
    assert!(wrong.err.contains(values), "{}", wrong.err);
}

#[test]
fn migrations_are_watched_and_cancelled() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["watch", "web1"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: guest `web1` is not moving

    help: see how its last move went with `whimbrel report web1`
    code: migration/none
    "#);
    assert_snapshot!(lab.run(&["watch", "lost"]), @r#"
    exit code: 4
    ----- stdout -----
    ----- stderr -----
    error: `far` may own guest `web1`, and does not answer

    help: see what each host knows: `whimbrel recover web1`
    code: handoff/in-doubt
    "#);
    let everything = lab.run(&["watch"]);
    let lines: Vec<_> = everything.out.lines().filter_map(|line| line.split_once("Z  ")).collect();
    let lines: Vec<_> = lines.into_iter().map(|(_, text)| text).collect();
    assert_snapshot!(lines.join("\n"), @r#"
    web1 is running on alpha
    paired with beta
    web1: alpha -> beta: memory
    web1: alpha -> beta: done
    "#);
    assert_snapshot!(lab.run(&["cancel", "web1"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    Cancelled: web1 stays on alpha.
    "#);
    assert_snapshot!(lab.run(&["cancel", "db"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    Too late: db has just moved to beta.
    "#);
}

#[test]
fn reports_are_kept() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["report", "web1"]), @r#"
    exit code: 0
    ----- stdout -----
    web1: alpha -> beta, live: done

    began     2008-06-11 15:46:02Z
    total     11 s
    pause     84 ms (last pages 41 ms, device state 22 ms, first packet 21 ms)
    promised  pause 100 ms, 10 m, 30 % slowdown, 20 % used: kept
    forecast  time as expected, pause as expected, bytes as expected
    memory    512 MiB in 3 rounds, 600 MiB sent, 300 MiB on the wire
    carrier   tunnel, 2 channels
    phases    plan 120 ms, prepare 300 ms
    expected  9-14 s in all, pause 60-110 ms, 300-400 MiB on the wire
    attempt   web1/beta
    ----- stderr -----
    "#);
    assert_snapshot!(lab.run(&["report", "lost"]), @r#"
    exit code: 0
    ----- stdout -----
    lost: alpha -> broken, live: failed

    reason    `broken` went away while memory travelled
    code      migration/target-lost
    began     2008-06-11 15:46:02Z
    total     11 s
    promised  pause 100 ms, 10 m, 30 % slowdown, 20 % used
    memory    512 MiB in 3 rounds, 600 MiB sent, 300 MiB on the wire
    carrier   tunnel, 2 channels
    phases    plan 120 ms, prepare 300 ms
    expected  9-14 s in all, pause 60-110 ms, 300-400 MiB on the wire
    attempt   lost/broken
    ----- stderr -----
    "#);
    assert_snapshot!(lab.run(&["report"]), @r#"
    exit code: 0
    ----- stdout -----
    Began                 Guest  From   To      Result  Total  Pause     Wire
    2008-06-11 15:46:02Z  web1   alpha  beta    done     11 s  84 ms  300 MiB
    2008-06-11 15:46:02Z  web1   alpha  broken  failed   11 s         300 MiB
    ----- stderr -----
    "#);
}

/// Without a statement the hosts are asked; a doubt they cannot settle is explained.
#[test]
fn recovery_explains() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["recover", "web1"]), @r#"
    exit code: 0
    ----- stdout -----
    `web1` runs on `alpha`; nothing is in doubt.
    ----- stderr -----
    "#);
    assert_snapshot!(lab.run(&["recover", "lost"]), @r#"
    exit code: 4
    ----- stdout -----
    `lost` was moving to `beta`, which may run it now.

    What each host knows:
      alpha: gave it up at 15:46:47
      beta (does not answer): no route to host

    What you can do:
      whimbrel recover lost --is-off beta
          `lost` starts on `alpha`; if this is false, its disk will be corrupted
    ----- stderr -----
    error: `beta` may own guest `lost`, and does not answer

    help: bring `beta` back, or choose one of the above
    code: handoff/in-doubt
    "#);
    assert_snapshot!(lab.run(&["recover", "lost", "--is-off", "beta"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    `lost` runs on `alpha`, since `beta` is off.
    "#);
}
