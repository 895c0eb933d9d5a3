// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Two healthy hosts give a plan without a word of warning; each spoilt fact gives exactly the
//! finding that names it, with its values and a remedy.

use super::reach::{Unreachable, unreachable};
use super::*;
use crate::codes;
use crate::facts::{
    Access, BootFileState, BridgeFacts, Denial, DiskPresent, DiskState, FileKind, Firewall,
    ForwardTaken, Mark, ProtocolRange,
};
use crate::guest::{DiskSource, NetworkKind};
use crate::passport::Accelerator;
use crate::sample;
use std::collections::BTreeSet;
use std::time::Duration;

/// Everything a question borrows.
struct World {
    guest: Guest,
    passport: Option<Passport>,
    run_state: Option<RunState>,
    source: (HostFacts, GuestFacts),
    target: (HostFacts, GuestFacts),
    link: LinkFacts,
    load: LoadFacts,
}

impl World {
    fn healthy() -> Self {
        let file = crate::text_file::TextFile { name: "", text: sample::GUEST_FILE, base: None };
        Self {
            guest: crate::guest::file::parse(&file).unwrap(),
            passport: Some(sample::passport()),
            run_state: Some(RunState::Running),
            source: (sample::host_facts("alpha"), sample::guest_facts()),
            target: (sample::host_facts("beta"), sample::guest_facts()),
            link: LinkFacts {
                address: Some("10.0.0.2".parse().unwrap()),
                round_trip: Some(Duration::from_millis(1)),
                rate: Some(Bytes(125_000_000)),
                clock_ahead_ms: Some(-12),
            },
            load: LoadFacts {
                dirty_rate: Some(Bytes(1_000_000)),
                used: Some(Bytes::mib(200)),
                switchover: Some(Duration::from_millis(60)),
            },
        }
    }

    fn plan(&self) -> Plan {
        plan(&Question {
            id: sample::guest_id(),
            guest: &self.guest,
            passport: self.passport.as_ref(),
            run_state: self.run_state,
            source: Side { host: &self.source.0, guest: &self.source.1 },
            target: Side { host: &self.target.0, guest: &self.target.1 },
            link: &self.link,
            load: self.load,
            bargain: Bargain::default(),
        })
    }

    fn disk(&mut self) -> &mut DiskPresent {
        match &mut self.target.1.disks[0].state {
            DiskState::Present(disk) => disk,
            DiskState::Missing | DiskState::Unknown { .. } => panic!("the sample has a disk"),
        }
    }
}

fn show(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|finding| {
        let Finding { severity, code, text, remedy } = finding;
        let remedy = if remedy.is_empty() { String::new() } else { format!("\n    {remedy}") };
        format!("{severity:?} {code}: {text}{remedy}\n")
    });
    lines.collect()
}

#[test]
fn healthy_hosts_are_fit() {
    let plan = World::healthy().plan();
    assert!(!plan.is_blocked() && plan.problem().is_none());
    assert!(plan.findings.iter().all(|finding| finding.severity == Severity::Ok));
    insta::assert_snapshot!(show(&plan.findings), @r"
    Ok plan/protocol: `alpha` runs Whimbrel 0.1.0, `beta` runs 0.1.0: both speak protocol 1
    Ok plan/relocation: relocation is enabled on both hosts
    Ok plan/allowed: `alpha` may send guests to `beta` (`hosts_allow` is empty there: every paired host may)
    Ok plan/clock: the clock of `beta` is 12 ms behind that of `alpha`
    Ok plan/name: the name and the uuid of `web1` are free on `beta`
    Ok plan/memory: `web1` needs 593920 KiB on `beta`, and there is room: 2097152 KiB are free
    Ok plan/engine: both hosts run guests with TCG (emulation)
    Ok plan/engine: QEMU 7.2.22 on `alpha`, 7.2.22 on `beta`
    Ok plan/machine: `beta` knows the machine type pc-q35-7.2
    Ok plan/cpu: `beta` has all 2 CPU features that `web1` sees (qemu64,+ssse3)
    Ok plan/rom: option ROMs have the same sizes on both hosts
    Ok plan/disk-same: `/xen/web1.img` on `alpha` and on `beta` is one disk of 1 GiB: a mark left beside it here was found there
    Ok plan/disk-access: the user `whimbrel` may read and write `/xen/web1.img` on `beta`
    Ok plan/boot-file: the kernel `/xen/vmlinuz` is the same on `beta`
    Ok plan/bridge: the bridge `br0` is there on `beta`, MTU 1500
    ");
    world.load = LoadFacts::default();
    world.link.rate = None;
    let unknown = world.plan().forecast.unwrap();
    assert!(unknown.total.low < known.total.low && unknown.total.high > known.total.high);
    assert_eq!(unknown.convergence, Convergence::Unknown);
    world.run_state = Some(RunState::Paused);
    let paused = world.plan().forecast.unwrap();
    assert_eq!((paused.convergence, paused.pause.high), (Convergence::Certain, Duration::ZERO));
}

#[test]
fn a_host_that_cannot_be_reached_has_a_remedy() {
    let address = Some("10.0.0.2".parse().unwrap());
    let reason = || "the certificate is not the one that was pinned".to_owned();
    let all = [
        unreachable("beta", address, 8002, &Unreachable::Refused, None),
        unreachable("beta", address, 8002, &Unreachable::NoRoute, None),
        unreachable(
            "beta",
            address,
            8002,
            &Unreachable::TimedOut { seconds: 5 },
            Some(Firewall::Ufw),
        ),
        unreachable("beta", address, 8002, &Unreachable::Denied, None),
        unreachable("beta", None, 8002, &Unreachable::NameUnknown, None),
        unreachable("beta", address, 8002, &Unreachable::Tls { reason: reason() }, None),
    ];
    insta::assert_snapshot!(show(&all));
}
