// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Kept memory: listed and dropped.

use crate::lab::Lab;
use insta::assert_snapshot;
use std::sync::atomic::Ordering;

#[test]
fn kept_memory_is_listed() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["pages", "list"]), @r#"
    exit code: 0
    ----- stdout -----
    Guest                                 Went to     Memory    Takes  Since                \
         Until
    mail                                  beta       480 MiB  150 MiB  2008-06-11 15:46:02Z \
         2008-06-12 15:46:02Z
    6f0c1f0e-6a3e-4f0b-9d55-0d3a1c9b7e02  (damaged)               8 B  2008-06-11 15:46:02Z \
         2008-06-12 15:46:02Z
    ----- stderr -----
    150 MiB of at most 5 GiB; 7 MiB more is being written.
    "#);
    assert_snapshot!(lab.run(&["pages", "ls", "--json"]), @r#"
    exit code: 0
    ----- stdout -----
    {
      "is_kept": true,
      "images": [
        {
          "guest": "mail",
          "guest_uuid": "6f0c1f0e-6a3e-4f0b-9d55-0d3a1c9b7e01",
          "went_to": "beta",
          "created_at_ms": 1213199162000,
          "expires_at_ms": 1213285562000,
          "memory_bytes": 503316480,
          "bytes": 157286400
        },
        {
          "guest": null,
          "guest_uuid": "6f0c1f0e-6a3e-4f0b-9d55-0d3a1c9b7e02",
          "went_to": null,
          "created_at_ms": 1213199162000,
          "expires_at_ms": 1213285562000,
          "memory_bytes": null,
          "bytes": 8
        }
      ],
      "bytes": 157286408,
      "budget_bytes": 5368709120,
      "unfinished_bytes": 7340032
    }
    ----- stderr -----
    "#);
    lab.fake.is_bare.store(true, Ordering::Relaxed);
    assert_snapshot!(lab.run(&["pages", "list"]), @r#"
    exit code: 0
    ----- stdout -----
    Guest  Went to  Memory  Takes  Since  Until
    ----- stderr -----
    This host keeps no memory: `keep = false` stands under `[pages]`.
    "#);
}

/// It is dropped guest by guest or all at once.
#[test]
fn kept_memory_is_dropped() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["pages", "drop", "mail"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    The memory of 1 guest was dropped; 150 MiB are free again.
    "#);
    assert_snapshot!(lab.run(&["pages", "drop", "web1"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    What other hosts keep of 1 guest here cannot be opened any more.
    "#);
    assert_snapshot!(lab.run(&["pages", "drop", "--all"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    The memory of 2 guests was dropped; 150 MiB are free again.
    What other hosts keep of 1 guest here cannot be opened any more.
    "#);
    assert_snapshot!(lab.run(&["pages", "drop", "--all", "--json"]), @r#"
    exit code: 0
    ----- stdout -----
    {
      "image_count": 2,
      "bytes": 157286400,
      "key_count": 1
    }
    ----- stderr -----
    "#);
    assert_snapshot!(lab.run(&["pages", "drop", "db"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: no memory of `db` is kept here

    help: see what is kept: `whimbrel pages list`
    code: pages/nothing-kept
    "#);
    lab.fake.is_bare.store(true, Ordering::Relaxed);
    assert_snapshot!(lab.run(&["pages", "drop", "--all"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    Nothing was kept.
    "#);
    let asked = lab.fake.asked.lock().unwrap().clone();
    assert_eq!(asked, ["drop mail", "drop web1", "drop all", "drop all", "drop db", "drop all"]);
}

/// Nothing is dropped by mistake: either a guest or all must be said.
#[test]
fn what_is_dropped_must_be_said() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["pages", "drop"]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: the following required arguments were not provided:
      <GUEST|--all>

    Usage: whimbrel pages drop <GUEST|--all>

    For more information, try '--help'.
    "#);
    assert_snapshot!(lab.run(&["pages", "drop", "web1", "--all"]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: the argument '[GUEST]' cannot be used with '--all'

    Usage: whimbrel pages drop <GUEST|--all>

    For more information, try '--help'.
    "#);
    assert!(lab.fake.asked.lock().unwrap().is_empty());
}
