// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Help, usage, and what needs no daemon.

use crate::lab::run_alone;
use insta::assert_snapshot;

#[test]
fn help_is_helpful() {
    assert_snapshot!("help", run_alone(&["whimbrel", "--help"]).out);
    assert_snapshot!("help_migrate", run_alone(&["whimbrel", "migrate", "--help"]).out);
    assert_snapshot!("help_create_short", run_alone(&["whimbrel", "create", "-h"]).out);
}

/// What is not understood is exit code 2, with the nearest thing that would be.
#[test]
fn what_is_not_understood_is_said() {
    assert_snapshot!(run_alone(&["whimbrel", "migarte", "web1", "beta"]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: unrecognized subcommand 'migarte'

      tip: a similar subcommand exists: 'migrate'

    Usage: whimbrel [OPTIONS] <COMMAND>

    For more information, try '--help'.
    "#);
    assert_snapshot!(run_alone(&["whimbrel", "stop", "web1", "--timeout", "soon"]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: invalid value 'soon' for '--timeout <TIME>': `soon` is not a duration; write a \
        number with a unit: `300 ms`, `90s`, `10m`, `2h`

    For more information, try '--help'.
    "#);
    assert_snapshot!(run_alone(&["whimbrel", "console", "web1", "--escape", "xyz"]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: invalid value 'xyz' for '--escape <KEY>': write `^]`, `^A`, one character, or \
        `none`

    For more information, try '--help'.
    "#);
}

/// Every command is in the reference, and what is generated for shells and manuals is there.
#[test]
fn the_reference_is_complete() {
    let reference = whimbrel_cli::reference();
    for word in ["`whimbrel host invite`", "`--max-pause TIME`", "Also called `shutdown`."] {
        assert!(reference.contains(word), "{word}\n{reference}");
    }
    assert!(!reference.contains("carry"), "hidden commands stay hidden");
    let names: Vec<_> = whimbrel_cli::completions().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["whimbrel.bash", "_whimbrel", "whimbrel.fish"]);
    let man = run_alone(&["whimbrel", "man"]);
    assert!(man.out.contains(".TH WHIMBREL 1"), "{man}");
    assert!(run_alone(&["whimbrel", "completions", "bash"]).out.contains("_whimbrel"));
}

/// The daemon is somebody else's: it is asked for with the configuration, and its problem is told
/// like any other.
#[test]
fn the_daemon_is_reached_through_its_hook() {
    assert_snapshot!(run_alone(&["whimbrel", "daemon", "--config", "/etc/w.toml"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: no daemon in this test, Some("/etc/w.toml")

    help: none
    code: test/no-daemon
    "#);
    assert_eq!(run_alone(&["whimbrel", "carry", "/nonexistent"]).code, 0);
}

/// A configuration that was named must be readable, and is read for the place of the socket.
#[test]
fn the_configuration_names_the_socket() {
    let missing = run_alone(&["whimbrel", "--config", "/nonexistent/w.toml", "list"]);
    assert_eq!(missing.code, 2);
    assert!(missing.err.contains("cannot read `/nonexistent/w.toml`"), "{missing}");
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("w.toml");
    std::fs::write(&config, "[api]\nsocket = \"/nonexistent/elsewhere.sock\"\n").unwrap();
    let ran = run_alone(&["whimbrel", "--config", config.to_str().unwrap(), "list"]);
    assert!(ran.err.contains("`/nonexistent/elsewhere.sock`"), "{ran}");
}

/// The seed's configuration becomes ours: the file is data, what could not be carried over is said.
#[test]
fn an_old_configuration_is_imported() {
    let directory = tempfile::tempdir().unwrap();
    let old = directory.path().join("xend-config.sxp");
    std::fs::write(&old, "(xend-relocation-server yes)\n(xend-relocation-hosts-allow '')\n")
        .unwrap();
    let ran = run_alone(&["whimbrel", "import", old.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.out.contains("enabled = true"), "{ran}");
    let new = directory.path().join("whimbrel.toml");
    let write = ["whimbrel", "import", old.to_str().unwrap(), "-o", new.to_str().unwrap()];
    assert_eq!(run_alone(&write).code, 0);
    assert_eq!(std::fs::read_to_string(&new).unwrap(), ran.out);
    let again = run_alone(&write);
    assert!(again.err.contains("code: file/unwritable"), "{again}");
}
