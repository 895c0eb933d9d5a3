// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Help, usage, and what needs no daemon.

use crate::lab::run_alone;
use insta::assert_snapshot;

#[test]
fn help_is_helpful() {
    assert_snapshot!(run_alone(&["whimbrel", "--help"]), @r#"
    exit code: 0
    ----- stdout -----
    Runs virtual machines on Linux hosts and moves them between hosts while they run

    Usage: whimbrel [OPTIONS] <COMMAND>

    Commands:
      create       Define a guest from a file, and start it
      start        Start a guest that was defined before
      stop         Ask a guest to shut down, and wait until it has [alias: shutdown]
      reboot       Reset a guest, as its reset button would
      pause        Stop a guest's virtual CPUs where they are. It keeps its memory
      unpause      Let a paused guest go on
      list         List guests: where they are, what they are doing, what they use [aliases: ls, ps]
      show         Show what a guest is, where it is, and which paired hosts could take it
      edit         Change the definition of a guest. A running guest keeps the old one until its next
                   start
      rm           Forget the definition of a stopped guest. Disks are never touched
      console      Attach to a guest's console. Ctrl+] leaves it
      plan         Check what a migration would meet, and forecast what it would cost. Nothing is
                   changed
      migrate      Move a guest to another host while it runs
      watch        Watch a guest's migration, or everything that happens. Ctrl-C leaves; nothing is
                   cancelled
      cancel       Give up a guest's migration: the guest stays where it is
      report       Show what a guest's last migration cost, or list the migrations of this host
      recover      Settle which host owns a guest in doubt, or explain what each host knows
      log          Show what happened: on this host and, for moves, on the other one. Times are UTC
      info         Show what this host is and has
      doctor       Check whether this host is fit to run guests and to take them in
      host         Pair hosts, and see those that are paired
      relocation   Open or close this host for moving guests. Kept over restarts of the daemon
      reload       Have the daemon read its configuration again
      import       Convert an old `xend-config.sxp` into a `whimbrel.toml`
      daemon       Run the daemon, in the foreground
      completions  Print the completions of a shell
      man          Print the manual page, or write the pages of all commands

    Options:
          --json           Print data and problems as JSON
          --socket <PATH>  The daemon's socket [default: as configured] [env: WHIMBREL_SOCKET]
          --config <FILE>  The daemon's configuration [default: /etc/whimbrel/whimbrel.toml] [env:
                           WHIMBREL_CONFIG]
      -h, --help           Print help
      -V, --version        Print version

    Exit codes: 0 done, 1 refused and nothing changed, 2 not understood, 3 failed and the guest is where
    it was, 4 in doubt (run `whimbrel recover`).
    ----- stderr -----
    "#);
    assert_snapshot!(run_alone(&["whimbrel", "migrate", "--help"]), @r#"
    exit code: 0
    ----- stdout -----
    Move a guest to another host while it runs.

    What can be known is checked first, and nothing is begun where something stands in the way. Ctrl-C
    cancels: the guest stays where it is. A paused guest arrives paused; of a stopped guest the
    definition moves.

    Usage: whimbrel migrate [OPTIONS] <GUEST> <HOST>

    Arguments:
      <GUEST>
              The guest's name, its number on this host, or its uuid

      <HOST>
              The paired host it shall go to: its name, or one of its addresses

    Options:
          --stop-and-copy
              Stop the guest first and copy then

          --bandwidth <RATE>
              The most it may send: `100MiB/s`, `1Gbit/s` [default: as configured]

          --max-pause <TIME>
              The longest pause the guest may see: `100ms` [default: as configured]

          --carrier <CARRIER>
              How memory travels: `tunnel` or `pages` [default: the planner chooses]

          --channels <COUNT>
              How many data channels [default: the planner chooses]

      -d, --detach
              Do not wait for the end; `whimbrel watch GUEST` shows it

          --json
              Print data and problems as JSON

          --socket <PATH>
              The daemon's socket [default: as configured]
              
              [env: WHIMBREL_SOCKET]

          --config <FILE>
              The daemon's configuration [default: /etc/whimbrel/whimbrel.toml]
              
              [env: WHIMBREL_CONFIG]

      -h, --help
              Print help (see a summary with '-h')
    ----- stderr -----
    "#);
    assert_snapshot!(run_alone(&["whimbrel", "create", "-h"]), @r#"
    exit code: 0
    ----- stdout -----
    Define a guest from a file, and start it

    Usage: whimbrel create [OPTIONS] <FILE> [KEY=VALUE]...

    Arguments:
      <FILE>          The guest file; `-` reads it from standard input
      [KEY=VALUE]...  Keys of the file to replace: `memory=1GiB`

    Options:
      -c, --console          Attach to its console at once; Ctrl+] leaves it
          --no-start         Define it only
          --transient        Forget its definition when it stops
          --format <FORMAT>  How the file is written [default: `toml` for `*.toml`, else `cfg`]
                             [possible values: toml, cfg]
          --json             Print data and problems as JSON
          --socket <PATH>    The daemon's socket [default: as configured] [env: WHIMBREL_SOCKET]
          --config <FILE>    The daemon's configuration [default: /etc/whimbrel/whimbrel.toml] [env:
                             WHIMBREL_CONFIG]
      -h, --help             Print help (see more with '--help')
    ----- stderr -----
    "#);
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
    error: invalid value 'soon' for '--timeout <TIME>': `soon` is not a duration; write a number with a unit: `300 ms`, `90s`, `10m`, `2h`

    For more information, try '--help'.
    "#);
    assert_snapshot!(run_alone(&["whimbrel", "console", "web1", "--escape", "xyz"]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: invalid value 'xyz' for '--escape <KEY>': write `^]`, `^A`, one character, or `none`

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
