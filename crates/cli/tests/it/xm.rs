// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The seed's chapter, as typed in 2008.

use crate::lab::{Lab, Ran};
use insta::assert_snapshot;

fn xm(lab: &Lab, args: &[&str]) -> Ran {
    lab.prepare().run_as("xm", args)
}

#[test]
fn the_chapter_can_be_typed() {
    let lab = Lab::new();
    assert_snapshot!(xm(&lab, &["list"]), @r#"
    exit code: 0
    ----- stdout -----
    Name                                      ID Mem(MiB) VCPUs State   Time(s)
    Domain-0                                   0      736     2 r-----   3995.3
    web1                                       1      512     1 r-----     82.6
    db                                               2048     1 ------      0.0
    lost                                       3      128     1 --p---      1.0
    ----- stderr -----
    "#);
    let file = lab.file("XenGuest1.cfg", "name = 'web1'");
    assert_snapshot!(xm(&lab, &["create", &file, "memory=256"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    Using config file "/tmp/lab/XenGuest1.cfg".
    note: xvda1 becomes vda, and root= follows
    warning: /etc/fstab in the guest may name xvda2
    web1 is running on alpha.
    "#);
    assert_snapshot!(xm(&lab, &["migrate", "1", "192.0.2.2", "-l"]), @r#"
    exit code: 0
    ----- stdout -----
    web1 now runs on beta. Pause 84 ms (last pages 41, device state 22, first packet 21); \
        total 11 s.
    ----- stderr -----
    "#);
    assert_snapshot!(xm(&lab, &["migrate", "1", "beta"]), @r#"
    exit code: 0
    ----- stdout -----
    web1 now runs on beta. Pause 84 ms (last pages 41, device state 22, first packet 21); \
        total 11 s.
    ----- stderr -----
    "#);
    let asked = lab.fake.asked.lock().unwrap().join("\n");
    assert_snapshot!(asked, @r#"
    create Cfg ["memory=256"] transient=true
    migrate web1 beta stop_and_copy=false
    migrate web1 beta stop_and_copy=true
    "#);
    assert_snapshot!(xm(&lab, &["log"]), @r#"
    exit code: 0
    ----- stdout -----
    2008-06-11 15:46:47.000Z beta     web1: runs here now
    2008-06-11 15:46:48.500Z alpha    error: a report was not kept [disk/full]
    ----- stderr -----
    warning: the lines of `full` are missing: no route to host
    "#);
}

#[test]
fn the_rest_of_xm() {
    let lab = Lab::new();
    assert_snapshot!(xm(&lab, &["list", "web1"]), @r#"
    exit code: 0
    ----- stdout -----
    Name                                      ID Mem(MiB) VCPUs State   Time(s)
    web1                                       1      512     1 r-----     82.6
    ----- stderr -----
    "#);
    assert_snapshot!(xm(&lab, &["list", "nobody"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: there is no guest `nobody` here

    help: see the guests of this host with `whimbrel list`, and those of all paired hosts \
        with `whimbrel list --all-hosts`
    code: guest/not-found
    "#);
    for verb in ["shutdown", "destroy", "pause", "unpause", "reboot"] {
        let ran = xm(&lab, &[verb, "1"]);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{verb}");
    }
    assert!(xm(&lab, &["info"]).out.starts_with("host "));
    assert!(xm(&lab, &["list", "-l", "web1"]).out.starts_with("name "));
}

#[test]
fn what_xm_had_and_this_has_not_is_refused_with_a_hint() {
    let lab = Lab::new();
    assert_snapshot!(xm(&lab, &["migrate", "1", "beta", "-l", "-p", "8003"]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: a port cannot be chosen for one migration, so `-p 8003` has no meaning here

    help: set `port` in `[relocation]` of the other host's whimbrel.toml, and pair again
    code: xm/no-port
    "#);
    assert_snapshot!(xm(&lab, &["save", "1", "file"]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: `xm save` is not known here

    help: pause it with `whimbrel pause GUEST`; saving to a file is not built yet
    code: xm/unknown-command
    "#);
    assert_snapshot!(xm(&lab, &["help"]), @r#"
    exit code: 0
    ----- stdout -----
    Manages guests in the words of Xen 3's `xm`

    Usage: xm <COMMAND>

    Commands:
      create    Create a guest from a file and start it. It is forgotten when it stops
      list      List guests
      console   Attach to a guest's console; Ctrl+] leaves it
      shutdown  Ask a guest to shut down
      destroy   End a guest at once
      reboot    Ask a guest to shut down, and start it again
      pause     Stop a guest's virtual CPUs where they are
      unpause   Let a paused guest go on
      migrate   Move a guest to another host
      log       Show the log
      info      Show what this host is and has
      help      Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    This is Whimbrel: `whimbrel --help` shows everything it can do.
    ----- stderr -----
    "#);
}
