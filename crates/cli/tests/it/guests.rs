// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Guests: created, listed, shown, changed, forgotten.

use crate::lab::{Lab, run_alone};
use insta::assert_snapshot;
use std::sync::atomic::Ordering;

#[test]
fn guests_are_listed() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["list"]), @r#"
    exit code: 0
    ----- stdout -----
    Name  ID  Mem(MiB)  VCPUs  State     Time(s)  Host
    web1   1       512      1  running      82.6  alpha
    db     2      2048      1  stopped       0.0  alpha
    lost   3       128      1  in doubt      1.0  alpha
    ----- stderr -----
    "#);
    assert_snapshot!(lab.run(&["ls", "--all-hosts"]), @r#"
    exit code: 0
    ----- stdout -----
    Name  ID  Mem(MiB)  VCPUs  State                     Time(s)  Host
    web1   1       512      1  running                      82.6  alpha
    db     2      2048      1  stopped                       0.0  alpha
    lost   3       128      1  in doubt                      1.0  alpha
    mail           512      1  running, moving to alpha     82.6  beta
    ----- stderr -----
    warning: the guests of `full` are missing: no route to host
    "#);
    let json = lab.run(&["ps", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(list["guests"][0]["memory_bytes"], 512 << 20);
}

/// A guest that others have started is told apart, and taken over when somebody says so.
#[test]
fn a_guest_of_others_is_adopted() {
    let lab = Lab::new();
    lab.fake.has_foreign.store(true, Ordering::Relaxed);
    assert_snapshot!(lab.run(&["list"]), @r#"
    exit code: 0
    ----- stdout -----
    Name  ID  Mem(MiB)  VCPUs  State                 Time(s)  Host
    web1   1       512      1  running                  82.6  alpha
    db     2      2048      1  stopped                   0.0  alpha
    lost   3       128      1  in doubt                  1.0  alpha
    old            512      1  running, not adopted     82.6  alpha
    ----- stderr -----
    "#);
    assert_snapshot!(lab.prepare().run_as("xm", &["list", "old"]), @r#"
    exit code: 0
    ----- stdout -----
    Name                                      ID Mem(MiB) VCPUs State   Time(s)
    old                                               512     1 r-----     82.6
    ----- stderr -----
    "#);
    let json: serde_json::Value = serde_json::from_str(&lab.run(&["list", "--json"]).out).unwrap();
    assert_eq!(json["guests"][3]["is_foreign"], true);
    assert_eq!(json["guests"][0]["is_foreign"], false);
    assert_snapshot!(lab.run(&["adopt", "old"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    note: it has 64 MiB now, and 96 MiB from its next start
    old is adopted, and running on alpha.
    "#);
    assert_snapshot!(lab.run(&["adopt", "web1"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: guest `web1` cannot be adopted: this host's engine is qemu, not Xen

    help: define it from its file: `whimbrel create FILE`
    code: adopt/no-xen
    "#);
    // It is not ours, so it is left running when all of ours are stopped.
    let stopped = lab.run(&["stop", "--all", "--json"]);
    assert!(!stopped.out.contains("old"), "{stopped}");
}

#[test]
fn a_guest_is_shown() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["show", "web1"]), @r#"
    exit code: 0
    ----- stdout -----
    name         web1
    id           1
    uuid         6f0c1f0e-6a3e-4f0b-9d55-0d3a1c9b7e01
    state        running
    host         alpha
    memory       512 MiB
    vcpus        1
    boot         kernel /xen/vmlinuz
    disks        vda  /xen/web1.img (raw)
    networks     bridge br0  52:54:00:12:34:56
    engine       qemu 7.2.22 (tcg)
    machine      pc-q35-7.2
    cpu          qemu64
    autostart    yes
    definition   edited; the next start brings it
    started      2008-06-11 15:46:02Z
    process      4711
    kept memory  480 MiB on beta, of 2008-06-11 15:46:02Z
    could go to  beta
                 full: no, it lacks `avx2`
    ----- stderr -----
    "#);
    assert_snapshot!(lab.run(&["show", "3"]), @r#"
    exit code: 0
    ----- stdout -----
    name         lost
    id           3
    uuid         6f0c1f0e-6a3e-4f0b-9d55-0d3a1c9b7e03
    state        in doubt: `beta` does not answer
    host         alpha
    moving       from alpha to far, plan
    memory       128 MiB
    vcpus        1
    boot         kernel /xen/vmlinuz
    disks        vda  /xen/web1.img (raw)
    networks     bridge br0  52:54:00:12:34:56
    autostart    no
    could go to  beta
                 full: no, it lacks `avx2`
    ----- stderr -----
    "#);
    assert_snapshot!(lab.run(&["show", "web1", "--toml"]), @r#"
    exit code: 0
    ----- stdout -----
    name = "web1"
    memory = "512 MiB"
    ----- stderr -----
    "#);
}

/// A wrong name gets a hint, also for guests of other hosts; the exit code says that nothing was
/// changed.
#[test]
fn similar_names_are_offered() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["start", "wbe1"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: there is no guest `wbe1` here

    help: did you mean `web1`? Otherwise see the guests of this host with `whimbrel list`, \
        and those of all paired hosts with `whimbrel list --all-hosts`
    code: guest/not-found
    "#);
    let other = lab.run(&["show", "mial"]);
    assert!(other.err.contains("did you mean `mail`?"), "{other}");
    assert_snapshot!(lab.run(&["show", "mail"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: guest `mail` is not here but on `beta`, where it is running

    help: say it there; to bring it here, type on `beta`: `whimbrel migrate mail HOST`
    code: guest/not-found
    "#);
    let far = lab.run(&["stop", "7"]);
    assert!(!far.err.contains("did you mean"), "{far}");
    let json = lab.run(&["--json", "start", "wbe1"]);
    let problem: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!((json.code, problem["code"].as_str()), (1, Some("guest/not-found")));
}

#[test]
fn a_guest_is_created() {
    let lab = Lab::new();
    let toml = lab.file("web1.toml", "name = \"web1\"");
    let cfg = lab.file("web1.cfg", "name = 'web1'");
    assert_snapshot!(lab.run(&["create", &toml, "memory=1GiB"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    note: xvda1 becomes vda, and root= follows
    warning: /etc/fstab in the guest may name xvda2
    web1 is running on alpha.
    "#);
    assert_snapshot!(lab.run(&["create", &cfg, "--no-start"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    note: xvda1 becomes vda, and root= follows
    warning: /etc/fstab in the guest may name xvda2
    web1 is defined on alpha.
    "#);
    lab.run(&["create", &cfg, "--transient", "--format", "toml"]);
    lab.prepare().input("name = \"piped\"").run(&["create", "-"]);
    assert_eq!(
        *lab.fake.asked.lock().unwrap(),
        [
            "create Toml [\"memory=1GiB\"] transient=false",
            "create Cfg [] transient=false",
            "create Toml [] transient=true",
            "create Toml [] transient=false",
        ]
    );
}

#[test]
fn bad_guest_files_are_refused() {
    let lab = Lab::new();
    let broken = lab.file("broken.toml", "broken = 1");
    assert_snapshot!(lab.run(&["create", &broken]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: /tmp/lab/broken.toml:1: unknown key `broken`

    help: correct line 1
    code: file/unknown-key
    "#);
    let missing = lab.directory.path().join("missing.toml");
    assert_snapshot!(lab.run(&["create", missing.to_str().unwrap()]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: cannot read `/tmp/lab/missing.toml`: No such file or directory (os error 2)

    help: check the path of the guest file
    code: file/unreadable
    "#);
    let image = lab.directory.path().join("web1.img");
    std::fs::write(&image, [0xff; 300 << 10]).unwrap();
    assert_snapshot!(lab.run(&["create", image.to_str().unwrap()]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: `/tmp/lab/web1.img` has more than 262144 bytes

    help: give a guest file: `docs/guide` shows examples
    code: file/not-a-guest-file
    "#);
    assert_snapshot!(lab.run(&["create", &broken, "memory"]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: invalid value 'memory' for '[KEY=VALUE]...': write `key=value`

    For more information, try '--help'.
    "#);
}

/// `stop --all` names what it could not stop and stops the rest; `--force` leaves no guest to its
/// wish. What is stopped already is not asked.
#[test]
fn all_guests_are_stopped() {
    let lab = Lab::new();
    let asked = || std::mem::take(&mut *lab.fake.asked.lock().unwrap()).join("\n");
    let all = lab.run(&["stop", "--all"]);
    assert_eq!(all.code, 4, "one of them is in doubt: {all}");
    assert!(all.err.contains("web1 is stopped."), "{all}");
    assert!(all.err.contains("code: ownership/in-doubt"), "{all}");
    let ask = asked();
    assert!(ask.starts_with("stop now=false Some(") && ask.ends_with(" web1"), "{ask}");
    let slow = lab.run(&["stop", "--all", "--timeout", "1ms"]);
    assert!(slow.err.contains("code: guest/did-not-shut-down"), "{slow}");
    assert!(!asked().contains("now=true"), "nobody was to be forced");
    let forced = lab.run(&["stop", "--all", "--timeout", "1ms", "--force"]);
    assert!(forced.err.contains("web1 is stopped."), "{forced}");
    assert!(asked().contains("stop now=true None web1"));
    for wrong in [&["stop"] as &[&str], &["stop", "web1", "--all"], &["stop", "web1", "--force"]] {
        assert_eq!(lab.run(wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn guests_change_their_state() {
    let lab = Lab::new();
    let commands: [&[&str]; 9] = [
        &["start", "db"],
        &["stop", "web1"],
        &["stop", "web1", "--now"],
        &["stop", "web1", "--timeout", "90s"],
        &["shutdown", "web1"],
        &["destroy", "1"],
        &["reboot", "web1"],
        &["pause", "web1"],
        &["unpause", "web1"],
    ];
    let said: Vec<String> = commands
        .map(|args| {
            let ran = lab.run(args);
            assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran}");
            ran.err
        })
        .into();
    assert_snapshot!(said.concat(), @r#"
    db is running on alpha.
    web1 is stopped.
    web1 is stopped.
    web1 is stopped.
    web1 is stopped.
    web1 is stopped.
    web1 was rebooted.
    web1 is paused.
    web1 goes on.
    "#);
    assert_snapshot!(lab.fake.asked.lock().unwrap().join("\n"), @r#"
    start db
    stop now=false None web1
    stop now=true None web1
    stop now=false Some(90000) web1
    stop now=false None web1
    stop now=true None web1
    reboot web1
    pause web1
    unpause web1
    "#);
    let json = lab.run(&["pause", "web1", "--json"]);
    assert!(json.out.contains("\"state\": \"paused\""), "{json}");
}

#[test]
fn a_guest_is_forgotten() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["rm", "db"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    db is forgotten; its disks are where they were.
    "#);
    assert_snapshot!(lab.run(&["rm", "web1"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: guest `web1` is running, and only a stopped guest can be forgotten

    help: stop it first: `whimbrel stop web1`
    code: guest/running
    "#);
}

/// Without a terminal a definition is replaced from a file; an editor is not even tried.
#[test]
fn a_definition_is_edited() {
    let lab = Lab::new();
    let file = lab.file("new.toml", "memory = \"1 GiB\"");
    assert_snapshot!(lab.run(&["edit", "web1", "--file", &file]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    web1 is redefined. Its next start brings the change.
    "#);
    assert_eq!(*lab.fake.asked.lock().unwrap(), ["edit web1 \"memory = \\\"1 GiB\\\"\""]);
    assert_snapshot!(lab.run(&["edit", "web1"]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: an editor needs a terminal

    help: give the new definition with `--file FILE`
    code: edit/no-terminal
    "#);
}

/// A daemon that does not run is said so, with what to do about it.
#[test]
fn a_missing_daemon_is_named() {
    let ran = run_alone(&["whimbrel", "--socket", "/nonexistent/api.sock", "list"]);
    assert_snapshot!(ran, @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: the Whimbrel daemon cannot be reached on `/nonexistent/api.sock`: No such file \
        or directory (os error 2)

    help: start it with `systemctl start whimbrel` (or `whimbrel daemon`), or name its \
        socket with `--socket`; guests go on running without it
    code: api/daemon-not-reachable
    "#);
}
