// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! This host, and those paired with it.

use crate::lab::Lab;
use insta::assert_snapshot;

#[test]
fn this_host_is_described() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["info"]), @r#"
    exit code: 0
    ----- stdout -----
    host           alpha
    fingerprint    alpha bird sings at dawn
    version        0.1.0
    system         Debian GNU/Linux 12
    kernel         6.1.0
    processors     2 x Test CPU
    memory         1.3 GiB; 700 MiB for new guests, 256 MiB kept for the host
    engines        qemu 7.2.22 (tcg)
    guests         3 guests, 2 of them with an engine
    relocation     disabled
    daemon since   2008-06-11 15:46:02Z
    state          /var/lib/whimbrel
    configuration  /etc/whimbrel/whimbrel.toml
    ----- stderr -----
    "#);
    assert_snapshot!(lab.run(&["doctor"]), @r#"
    exit code: 0
    ----- stdout -----
    ok       `alpha` and `beta` run the same version
    warning  the processor has no virtualization, so guests run about ten times slower
             help: switch it on in the firmware, if it is there
             code: doctor/no-kvm

    This host is fit, with 1 warning.
    ----- stderr -----
    "#);
}

#[test]
fn hosts_are_paired() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["host", "list"]), @r#"
    exit code: 0
    ----- stdout -----
    Host   State       Takes guests  Engine              Free  Guests  Version  Addresses
    alpha  this host   yes           qemu 7.2.22 (tcg)  3 GiB       1  0.1.0    \
        192.0.2.1:8002
    beta   up, 0.4 ms  yes           qemu 7.2.22 (tcg)  3 GiB       1  0.1.0    \
        192.0.2.2:8002
    full   no answer   ?                                                        \
        [2001:db8::3]:8002
    ----- stderr -----
    warning: `full` does not answer: no route to host
    "#);
    assert_snapshot!(lab.run(&["host", "invite"]), @r#"
    exit code: 0
    ----- stdout -----
    whimbrel1-SECRET
    ----- stderr -----
    On the other host, run `whimbrel host join` and give it this token:


    It can be used once, within 10 m. This host's fingerprint is
      alpha bird sings at dawn
    "#);
    assert_snapshot!(lab.prepare().input("  whimbrel1-SECRET \n").run(&["host", "join"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    Paired with beta. Both sides show the same words, unless somebody is in between:
      alpha and beta sing
    "#);
    assert_eq!(*lab.fake.asked.lock().unwrap(), ["join whimbrel1-SECRET"]);
    assert_snapshot!(lab.run(&["host", "join"]), @r#"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: no token was given

    help: paste what `whimbrel host invite` printed on the other host
    code: host/no-token
    "#);
    assert_snapshot!(lab.run(&["host", "forget", "beta"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    beta is forgotten; forget this host there, too.
    "#);
    assert_snapshot!(lab.run(&["host", "forget", "betta"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: no paired host is called `betta`

    help: did you mean `beta`? Otherwise see the paired hosts with `whimbrel host list`, or \
        pair with it: `whimbrel host invite` there, `whimbrel host join` here
    code: host/not-found
    "#);
}

#[test]
fn relocation_is_opened_and_closed() {
    let lab = Lab::new();
    assert_snapshot!(lab.run(&["relocation", "enable"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    Relocation is enabled on port 8002 of all addresses, for any paired host.
    "#);
    assert_snapshot!(lab.run(&["relocation"]), @r#"
    exit code: 0
    ----- stdout -----
    disabled
    ----- stderr -----
    "#);
    assert_snapshot!(lab.run(&["reload"]), @r#"
    exit code: 0
    ----- stdout -----
    ----- stderr -----
    warning: the port changed; restart the daemon for it
    The configuration was read again.
    "#);
}
