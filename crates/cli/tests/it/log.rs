// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The log, with the daemon and without.

use crate::lab::{Lab, run_alone};
use insta::assert_snapshot;

#[test]
fn the_lines_of_both_hosts_are_shown() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["log", "web1", "-n", "5"]), @r#"
    exit code: 0
    ----- stdout -----
    2008-06-11 15:46:47.000Z beta     web1: runs here now
    2008-06-11 15:46:48.500Z alpha    error: a report was not kept [disk/full]
    ----- stderr -----
    warning: the lines of `full` are missing: no route to host
    "#);
    assert_eq!(*lab.fake.asked.lock().unwrap(), ["log Some(\"web1\") Some(5)"]);
    assert_snapshot!(lab.run(&["log", "-f"]), @r#"
    exit code: 0
    ----- stdout -----
    2008-06-11 15:46:47.000Z beta     web1: runs here now
    2008-06-11 15:46:48.500Z alpha    error: a report was not kept [disk/full]
    ----- stderr -----
    note: the daemon has ended
    "#);
}

/// Without the daemon this host's own lines can still be read; what is wrong stays the missing
/// daemon where they cannot.
#[test]
fn the_log_is_readable_without_the_daemon() {
    let log = |args: &[&str]| {
        run_alone(&[&["whimbrel", "--socket", "/nonexistent/api.sock", "log"], args].concat())
    };
    assert_snapshot!(log(&[]), @r#"
    exit code: 0
    ----- stdout -----
    2023-11-14 22:13:20.000Z alpha    the daemon has ended
    ----- stderr -----
    note: the daemon does not run: these are the lines of this host alone
    "#);
    let unknown = log(&["nobody"]);
    assert!(unknown.err.contains("code: api/daemon-not-reachable"), "{unknown}");
}
