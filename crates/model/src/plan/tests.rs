// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Two healthy hosts give a plan without a word of warning; each spoilt fact gives exactly the
//! finding that names it, with its values and a remedy.

use super::reach::{Unreachable, unreachable};
use super::*;
use crate::codes;
use crate::facts::{
    Access, BootFileState, BridgeFacts, Denial, DiskPresent, DiskState, FileKind, Firewall,
    ForwardTaken, Heard, Learned, MacTaken, Mark, Proof, ProtocolRange, SegmentFacts, UefiFacts,
    WayBack,
};
use crate::guest::{DiskSource, Mac, NetworkKind};
use crate::passport::{Accelerator, EngineKind};
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
    is_stop_and_copy: bool,
    on_miss: OnMiss,
}

impl World {
    fn healthy() -> Self {
        let kvm = |name| {
            let mut host = sample::host_facts(name);
            host.engines[0].accelerator = Accelerator::Kvm;
            host
        };
        let file = crate::text_file::TextFile { name: "", text: sample::GUEST_FILE, base: None };
        Self {
            guest: crate::guest::file::parse(&file).unwrap(),
            passport: Some(Passport { accelerator: Accelerator::Kvm, ..sample::passport() }),
            run_state: Some(RunState::Running),
            source: (kvm("alpha"), sample::guest_facts()),
            target: (kvm("beta"), sample::guest_facts()),
            is_stop_and_copy: false,
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
                ..LoadFacts::default()
            },
            on_miss: OnMiss::Cancel,
        }
    }

    fn plan(&self) -> Plan {
        self.plan_for(Bargain { on_miss: self.on_miss, ..Bargain::default() }, false)
    }

    fn plan_for(&self, bargain: Bargain, may_miss: bool) -> Plan {
        plan(&Question {
            id: sample::guest_id(),
            guest: &self.guest,
            passport: self.passport.as_ref(),
            run_state: self.run_state,
            source: Side { host: &self.source.0, guest: &self.source.1 },
            target: Side { host: &self.target.0, guest: &self.target.1 },
            link: &self.link,
            load: self.load,
            may_miss,
            bargain,
            is_stop_and_copy: self.is_stop_and_copy,
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
    insta::assert_snapshot!(show(&plan.findings));
}

/// Spoils one thing, and returns what is no longer well.
fn spoil(spoil: impl FnOnce(&mut World)) -> Vec<Finding> {
    let mut world = World::healthy();
    spoil(&mut world);
    let plan = world.plan();
    assert!(plan.is_blocked() || plan.forecast.is_some());
    plan.findings.into_iter().filter(|finding| finding.severity != Severity::Ok).collect()
}

#[test]
fn each_spoilt_fact_has_its_finding() {
    let mut all = String::new();
    let mut seen = BTreeSet::new();
    let mut check = |severity, code, how: fn(&mut World)| {
        let findings = spoil(how);
        assert_eq!(
            findings.iter().map(|f| (f.severity, f.code)).collect::<Vec<_>>(),
            [(severity, code)],
            "{}",
            show(&findings)
        );
        assert!(findings.iter().all(|finding| !finding.remedy.is_empty()));
        seen.insert(code);
        all.push_str(&show(&findings));
    };
    use Severity::{Blocker, Warning};

    check(Blocker, codes::PLAN_PROTOCOL, |w| {
        w.target.0.protocol = ProtocolRange { min: 2, max: 3 };
    });
    check(Blocker, codes::PLAN_RELOCATION, |w| w.target.0.relocation.is_enabled = false);
    check(Blocker, codes::PLAN_RELOCATION, |w| w.source.0.relocation.is_enabled = false);
    check(Blocker, codes::PLAN_ALLOWED, |w| {
        w.target.0.relocation.hosts_allow = vec!["gamma".to_owned()];
        w.target.0.relocation.is_asker_allowed = false;
    });
    check(Blocker, codes::PLAN_MAINTENANCE, |w| w.target.0.is_in_maintenance = true);
    check(Warning, codes::PLAN_WAY_BACK, |w| {
        w.source.0.security.firewall = Some(Firewall::Nftables);
        let address = Some("10.0.0.1:8002".to_owned());
        w.target.1.way_back = Some(WayBack::Closed { address, why: Unreachable::NoRoute });
    });
    check(Warning, codes::PLAN_WAY_BACK, |w| {
        let why = Unreachable::TimedOut { seconds: 1 };
        w.target.1.way_back = Some(WayBack::Closed { address: None, why });
    });
    check(Blocker, codes::PLAN_HINDRANCE, |w| {
        let reason = "non-migratable device: 0000:00:01.0/nvme".to_owned();
        w.source.1.hindrances = vec![reason];
    });
    check(Blocker, codes::PLAN_UEFI, |w| {
        let reason = "no firmware for it is installed".to_owned();
        uefi(w, Some(UefiFacts::Missing { reason }));
    });
    check(Blocker, codes::PLAN_UEFI, |w| uefi(w, variables(131_072, false)));
    check(Warning, codes::PLAN_UEFI, |w| {
        uefi(w, variables(540_672, false));
        w.run_state = None;
    });
    check(Warning, codes::PLAN_UEFI, |w| uefi(w, None));
    check(Warning, codes::PLAN_LINK, |w| w.link.rate = None);
    check(Warning, codes::PLAN_CLOCK, |w| w.link.clock_ahead_ms = Some(90_000));
    check(Blocker, codes::PLAN_GUEST_BUSY, |w| w.run_state = Some(RunState::Panicked));
    check(Blocker, codes::PLAN_GUEST_BUSY, |w| w.source.1.name.is_moving = true);
    check(Blocker, codes::PLAN_NAME, |w| {
        w.target.1.name.name_taken_by = Some(GuestId(uuid::Uuid::from_u128(1)));
    });
    check(Blocker, codes::PLAN_NAME, |w| {
        w.target.1.name.known_as = Some(w.guest.name.clone());
        w.target.1.name.is_active = true;
    });
    // The seed's own figures: keeping 262144 KiB would leave only 248744 KiB.
    check(Blocker, codes::PLAN_MEMORY, |w| {
        w.target.0.memory.free = Bytes(510_888 * Bytes::KIB);
    });
    check(Blocker, codes::PLAN_MEMORY, |w| {
        w.target.0.memory.promised = Bytes::mib(1500);
        w.target.0.incoming_count = 2;
    });
    check(Warning, codes::PLAN_POSTCOPY, |w| {
        w.on_miss = OnMiss::Postcopy;
        w.target.0.security.may_handle_faults = true;
    });
    check(Blocker, codes::PLAN_POSTCOPY, |w| {
        w.on_miss = OnMiss::Postcopy;
        // Only a newer QEMU goes by the device.
        w.target.0.engines[0].version = "7.2.22".to_owned();
        w.target.0.security.has_fault_device = true;
    });
    check(Blocker, codes::PLAN_ENGINE, |w| w.target.0.engines.clear());
    check(Blocker, codes::PLAN_ENGINE, |w| {
        w.target.0.engines[0].accelerator = Accelerator::Tcg;
        w.target.0.engines[0].accelerator_reason = "`/dev/kvm` does not open".to_owned();
    });
    check(Warning, codes::PLAN_ENGINE, |w| w.target.0.engines[0].version = "7.2.9".to_owned());
    check(Blocker, codes::PLAN_MACHINE, |w| {
        w.target.0.engines[0].machines.pop();
        w.target.0.engines[0].machine_default = "pc-q35-7.1".to_owned();
    });
    check(Blocker, codes::PLAN_CPU, |w| w.target.0.engines[0].cpu_features.clear());
    check(Blocker, codes::PLAN_ROM, |w| w.target.1.roms[0].bytes = 524_288);
    check(Blocker, codes::PLAN_DISK, |w| w.target.1.disks[0].state = DiskState::Missing);
    check(Blocker, codes::PLAN_DISK, |w| {
        w.target.1.disks[0].state = DiskState::Unknown { reason: "stale file handle".to_owned() };
    });
    check(Blocker, codes::PLAN_DISK, |w| w.target.1.disks.clear());
    check(Blocker, codes::PLAN_DISK_ALLOWED, |w| w.disk().resolved = "/etc/shadow".into());
    check(Blocker, codes::PLAN_DISK_SAME, |w| {
        w.disk().mark = Mark::NotTried;
        w.disk().size = Bytes(17);
    });
    check(Blocker, codes::PLAN_DISK_SAME, |w| w.disk().mark = Mark::Absent);
    check(Blocker, codes::PLAN_DISK_SAME, |w| w.disk().inode = Some(4712));
    check(Blocker, codes::PLAN_DISK_SAME, |w| w.disk().kind = FileKind::BlockDevice);
    check(Warning, codes::PLAN_DISK_SAME, |w| {
        w.source.1.disks[0].state = DiskState::Unknown { reason: "busy".to_owned() };
    });
    check(Blocker, codes::PLAN_BOOT_FILE, |w| {
        w.target.1.boot_files[0].state = BootFileState::Missing;
    });
    check(Blocker, codes::PLAN_BOOT_FILE, |w| {
        w.target.1.boot_files[0].state = BootFileState::Present { bytes: 13, blake3: [1; 32] };
    });
    check(Blocker, codes::PLAN_BOOT_FILE, |w| {
        let reason = "permission denied".to_owned();
        w.target.1.boot_files[0].state = BootFileState::Unreadable { reason };
    });
    check(Warning, codes::PLAN_BOOT_FILE, |w| w.target.1.boot_files.clear());
    check(Blocker, codes::PLAN_BRIDGE, |w| w.target.0.bridges[0].name = "br1".to_owned());
    check(Blocker, codes::PLAN_BRIDGE, |w| w.target.0.relocation.allow_bridges.clear());
    check(Blocker, codes::PLAN_BRIDGE, |w| {
        w.target.0.relocation.allow_bridges = vec!["br7".to_owned()];
    });
    check(Warning, codes::PLAN_BRIDGE, |w| {
        w.target.0.bridges = vec![BridgeFacts { name: "br0".to_owned(), mtu: 9000 }];
    });
    check(Warning, codes::PLAN_EMULATED, emulate);
    check(Warning, codes::PLAN_DISK_SPACE, |w| w.disk().space = Some(Bytes::mib(3)));
    check(Warning, codes::PLAN_DISK_CACHE, |w| w.disk().is_direct = Some(false));
    check(Blocker, codes::PLAN_MAC, |w| {
        let guest = crate::id::GuestName::new("web2").unwrap();
        w.target.1.macs_taken = vec![MacTaken { mac: Mac([0x52, 0x54, 0, 1, 2, 3]), guest }];
    });
    check(Blocker, codes::PLAN_SEGMENT, |w| hear(w, Heard::Silence { waited_ms: 1000 }));
    check(Warning, codes::PLAN_SEGMENT, |w| {
        hear(w, Heard::NotTried { reason: "operation not permitted".to_owned() });
    });
    check(Blocker, codes::PLAN_PROOF, |w| {
        let problem = Problem {
            kind: Kind::Failed,
            code: "engine/start".to_owned(),
            text: "QEMU ended at once: unsupported machine type".to_owned(),
            remedy: "read what it said".to_owned(),
        };
        w.target.1.proof = Some(Proof::Failed { problem });
    });
    check(Warning, codes::PLAN_USER_NETWORK, |w| {
        w.guest.networks[0].kind = NetworkKind::User { forwards: Vec::new() };
    });
    check(Blocker, codes::PLAN_FORWARD, |w| {
        let forward = "tcp:2222->22".parse().unwrap();
        let reason = "address in use".to_owned();
        w.target.1.forwards_taken = vec![ForwardTaken { forward, reason }];
    });
    check(Blocker, codes::PLAN_CONVERGENCE, |w| {
        w.load.dirty_rate = Some(Bytes(140_000_000));
    });
    check(Blocker, codes::PLAN_DEADLINE, |w| {
        w.link.rate = Some(Bytes(20_000));
        w.load.dirty_rate = None;
    });
    insta::assert_snapshot!(all);

    // No code of a plan is without its case here, but for those that have tests of their own.
    const OWN_TESTS: [&str; 4] =
        [codes::PLAN_DISK_ACCESS, codes::PLAN_LIVE, codes::PLAN_PAUSE, codes::PLAN_UNREACHABLE];
    let known = codes::CODES.iter().map(|(code, _)| *code);
    let untried: Vec<_> = known
        .filter(|code| code.starts_with("plan/") && !seen.contains(code))
        .filter(|code| !OWN_TESTS.contains(code))
        .collect();
    assert!(untried.is_empty(), "{untried:?}");
}

fn variables(bytes: u64, is_own: bool) -> Option<UefiFacts> {
    Some(UefiFacts::Variables { bytes, is_own })
}

fn uefi(world: &mut World, there: Option<UefiFacts>) {
    world.source.1.uefi = variables(540_672, true);
    world.target.1.uefi = there;
}

/// Variables of a guest that runs travel; those of a guest that never had any begin there.
#[test]
fn uefi_variables_travel_or_begin() {
    assert_eq!(spoil(|world| uefi(world, variables(540_672, false))), []);
    let never_started = spoil(|world| {
        uefi(world, variables(131_072, false));
        world.source.1.uefi = variables(540_672, false);
        world.run_state = None;
    });
    assert_eq!(never_started, []);
}

/// What Xen cannot do with a PV guest is known before it is tried, and what it can is offered.
#[test]
fn a_pv_guest_is_not_moved_while_it_runs() {
    let live = |machine: &str, is_stop_and_copy| {
        let found = spoil(|w| {
            for host in [&mut w.source.0, &mut w.target.0] {
                host.engines[0].kind = EngineKind::Xen;
                host.engines[0].machines = vec![machine.to_owned()];
            }
            let passport = w.passport.as_mut().unwrap();
            (passport.engine, passport.machine) = (EngineKind::Xen, machine.to_owned());
            w.is_stop_and_copy = is_stop_and_copy;
        });
        found.into_iter().find(|finding| finding.code == codes::PLAN_LIVE)
    };
    let found = live("xenpv", false).unwrap();
    assert_eq!(found.severity, Severity::Blocker);
    assert!(found.remedy.contains("--stop-and-copy"), "{}", found.remedy);
    assert_eq!(live("xenpv", true), None);
    assert_eq!(live("xenpvh", false), None);
}

/// It cannot become another kind of guest: what makes such machines is to be installed.
#[test]
fn a_host_without_qemu_for_xen_takes_no_whole_machine() {
    let found = spoil(|w| {
        for host in [&mut w.source.0, &mut w.target.0] {
            host.engines[0].kind = EngineKind::Xen;
            host.engines[0].machines = vec!["xenpvh".to_owned()];
        }
        let passport = w.passport.as_mut().unwrap();
        (passport.engine, passport.machine) = (EngineKind::Xen, "xenhvm".to_owned());
    });
    let found = found.into_iter().find(|finding| finding.code == codes::PLAN_MACHINE).unwrap();
    assert_eq!(found.severity, Severity::Blocker);
    assert!(found.remedy.contains("apt install qemu-system-xen"), "{}", found.remedy);
}

/// Beside an engine that chooses its pause, what was promised is compared with what is expected:
/// said, warned of, or refused where it cannot be.
#[test]
fn a_pause_that_xen_chooses_is_forecast() {
    let seconds = Duration::from_secs;
    let found = |promised: u64, on_miss: OnMiss, learned: Option<u64>| {
        let mut world = World::healthy();
        for host in [&mut world.source.0, &mut world.target.0] {
            host.engines[0].kind = EngineKind::Xen;
        }
        world.passport.as_mut().unwrap().engine = EngineKind::Xen;
        let seen = learned.map(|high| Span { low: seconds(high) / 2, high: seconds(high) });
        world.load.learned.pause = seen;
        let bargain = Bargain { pause_max: seconds(promised), on_miss, ..Bargain::default() };
        let plan = world.plan_for(bargain, false);
        plan.findings.into_iter().find(|finding| finding.code == codes::PLAN_PAUSE).unwrap()
    };
    let none = found(1800, OnMiss::Cancel, None);
    assert_eq!(none.severity, Severity::Ok);
    assert!(none.text.ends_with("none is promised without `--max-pause`"), "{}", none.text);
    let severity = |promised, on_miss, learned| found(promised, on_miss, learned).severity;
    // Of a guest with a few devices that has never moved anything may come.
    assert_eq!(severity(2, OnMiss::Cancel, None), Severity::Warning);
    assert_eq!(severity(2, OnMiss::Pause, None), Severity::Ok);
    // One that took four seconds does not take one, and six will do.
    assert_eq!(severity(7, OnMiss::Cancel, Some(4)), Severity::Ok);
    assert_eq!(severity(2, OnMiss::Cancel, Some(4)), Severity::Warning);
    let refused = found(0, OnMiss::Cancel, Some(4));
    assert_eq!(refused.severity, Severity::Blocker);
    assert!(refused.text.contains("1.0 s to 6.0 s"), "{}", refused.text);
    assert!(refused.remedy.contains("`whimbrel migrate web1 beta --max-pause 7s`"));
}

fn hear(world: &mut World, heard: Heard) {
    world.target.1.segments = vec![SegmentFacts { bridge: "br0".to_owned(), heard }];
}

fn emulate(world: &mut World) {
    world.passport = Some(sample::passport());
    world.source.0.engines[0].accelerator = Accelerator::Tcg;
    world.target.0.engines[0].accelerator = Accelerator::Tcg;
}

/// A guest that stands still writes nothing that could be lost.
#[test]
fn an_emulated_guest_that_is_stopped_first_loses_nothing() {
    assert_eq!(spoil(|world| (emulate(world), world.is_stop_and_copy = true).1), []);
    assert_eq!(spoil(|world| (emulate(world), world.run_state = Some(RunState::Paused)).1), []);
}

/// What the source could not send, the target need not have heard; who did not listen, says
/// nothing.
#[test]
fn silence_counts_only_where_somebody_spoke() {
    let findings = spoil(|world| {
        hear(world, Heard::Silence { waited_ms: 1000 });
        world.source.1.segments[0].heard =
            Heard::NotTried { reason: "the link is down".to_owned() };
    });
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].severity, findings[0].code), (Severity::Warning, codes::PLAN_SEGMENT));
    assert_eq!(spoil(|world| world.target.1.segments.clear()), []);
}

#[test]
fn a_proof_is_said() {
    let mut world = World::healthy();
    world.target.1.proof = Some(Proof::Given { took_ms: 140 });
    let plan = world.plan();
    let proof = plan.findings.iter().find(|finding| finding.code == codes::PLAN_PROOF).unwrap();
    assert!(proof.severity == Severity::Ok && proof.text.contains("140 ms"), "{}", proof.text);
}

/// With what can be taken from guests that consent, there is room; the arithmetic says so.
#[test]
fn memory_of_consenting_guests_counts() {
    let mut world = World::healthy();
    world.target.0.memory.free = Bytes::mib(600);
    assert!(world.plan().is_blocked());
    world.target.0.memory.reclaimable = Bytes::mib(300);
    let plan = world.plan();
    let memory = plan.findings.iter().find(|finding| finding.code == codes::PLAN_MEMORY).unwrap();
    assert!(memory.severity == Severity::Ok, "{}", memory.text);
    assert!(memory.text.contains("307200 KiB can be taken"), "{}", memory.text);
}

#[test]
fn a_denied_disk_names_the_cause_and_the_command() {
    let mut all = String::new();
    let record = || "avc: denied { write } comm=\"qemu\"".to_owned();
    let check = |all: &mut String, denial: Denial, fs: &str| {
        let findings = spoil(|world| {
            world.disk().write = Access::Denied(denial);
            world.disk().file_system.kind = fs.to_owned();
        });
        assert_eq!(findings.len(), 1, "{}", show(&findings));
        assert_eq!(findings[0].code, codes::PLAN_DISK_ACCESS);
        all.push_str(&show(&findings));
    };
    check(&mut all, Denial::ReadOnlyMount, "nfs4");
    check(&mut all, Denial::ReadOnlyMount, "ext4");
    check(&mut all, Denial::Mode { uid: 0, gid: 0, mode: 0o600 }, "ext4");
    check(&mut all, Denial::Folder { path: "/xen".into() }, "ext4");
    check(&mut all, Denial::RootSquash, "nfs4");
    check(&mut all, Denial::Server { reason: "it is exported read-only".to_owned() }, "nfs");
    check(&mut all, Denial::Selinux { record: record() }, "nfs4");
    check(&mut all, Denial::Selinux { record: record() }, "xfs");
    check(&mut all, Denial::Apparmor { record: record() }, "ext4");
    check(&mut all, Denial::Other { reason: "input/output error".to_owned() }, "ext4");
    insta::assert_snapshot!(all);
}

#[test]
fn a_read_only_disk_need_not_be_writable() {
    let findings = spoil(|world| {
        world.guest.disks[0].is_read_only = true;
        world.disk().write = Access::Denied(Denial::ReadOnlyMount);
    });
    assert_eq!(findings, []);
}

#[test]
fn a_disk_without_a_beside_is_never_called_proven() {
    let findings = spoil(|world| {
        for facts in [&mut world.source.1, &mut world.target.1] {
            let disk = DiskPresent {
                kind: FileKind::BlockDevice,
                inode: None,
                mark: Mark::NotTried,
                ..sample::disk_present()
            };
            facts.disks[0].state = DiskState::Present(Box::new(disk));
        }
    });
    assert_eq!(findings.len(), 1);
    assert_eq!(
        (findings[0].severity, findings[0].code),
        (Severity::Warning, codes::PLAN_DISK_SAME)
    );
}

#[test]
fn a_disk_that_grows_between_two_looks_is_still_one_disk() {
    assert_eq!(spoil(|world| world.disk().size = Bytes::mib(1025)), []);
}

#[test]
fn an_nfs_address_is_allowed_by_its_export() {
    let url = "nfs://10.0.0.9/xen/web1.img";
    let nfs = |allowed: &str| {
        let allowed = allowed.to_owned();
        spoil(|world| {
            world.guest.disks[0].source = DiskSource::Nfs(url.to_owned());
            for facts in [&mut world.source.1, &mut world.target.1] {
                facts.disks[0].source = DiskSource::Nfs(url.to_owned());
                let disk = DiskPresent {
                    kind: FileKind::Nfs,
                    inode: None,
                    mark: Mark::NotTried,
                    write: Access::Unknown { reason: "only the engine can try it".to_owned() },
                    ..sample::disk_present()
                };
                facts.disks[0].state = DiskState::Present(Box::new(disk));
            }
            world.target.0.relocation.allow_paths = vec![allowed, "/xen".to_owned()];
        })
    };
    assert_eq!(nfs("nfs://10.0.0.9/xen"), []);
    assert_eq!(nfs("nfs://10.0.0.9/xe")[0].code, codes::PLAN_DISK_ALLOWED);
    assert_eq!(nfs("nfs://10.0.0.8/xen")[0].code, codes::PLAN_DISK_ALLOWED);
}

#[test]
fn a_star_allows_every_bridge() {
    let all = || vec!["*".to_owned()];
    assert_eq!(spoil(|world| world.target.0.relocation.allow_bridges = all()), []);
}

#[test]
fn folders_are_compared_part_by_part() {
    let check = |path, folder, expected| assert_eq!(disks::lies_in(path, folder), expected);
    check("/xen/a.img", "/xen", true);
    check("/xen/a.img", "/", true);
    check("/xen/a.img", "/xen/a.img", true);
    check("/xen2/a.img", "/xen", false);
    check("/a", "nfs://s/a", false);
    check("nfs://s/a/b", "/", false);
    check("nfs://s/a/b", "nfs://s/a/", true);
}

#[test]
fn a_guest_that_never_started_moves_by_its_definition() {
    let mut world = World::healthy();
    world.passport = None;
    world.run_state = None;
    world.target.0.memory.free = Bytes(0);
    let plan = world.plan();
    assert!(!plan.is_blocked(), "{}", show(&plan.findings));
    assert_eq!(plan.forecast.unwrap().pause.high, Duration::ZERO);
}

#[test]
fn a_forecast_is_a_range_and_says_what_it_rests_on() {
    let mut world = World::healthy();
    let known = world.plan().forecast.unwrap();
    let seconds = |time: Duration| time.as_secs_f64();
    // 200 MiB at what a compressed stream takes of the link; or at what a busy engine may be left.
    assert!((0.80..0.81).contains(&seconds(known.total.low)), "{known:?}");
    assert!((5.2..5.3).contains(&seconds(known.total.high)), "{known:?}");
    let pause = (known.pause.low, known.pause.high);
    assert_eq!(pause, (Duration::from_millis(30), Duration::from_millis(390)));
    assert_eq!(known.convergence, Convergence::Certain);
    let reasons = [
        "the link carries 119 MiB/s",
        "200 MiB of 512 MiB hold anything but zeroes",
        "the guest writes 977 KiB/s, and more while it moves",
    ];
    assert_eq!(known.reasons, reasons);
    world.load = LoadFacts::default();
    world.link.rate = None;
    let unknown = world.plan().forecast.unwrap();
    assert!(unknown.total.low < known.total.low && unknown.total.high > known.total.high);
    assert_eq!(unknown.convergence, Convergence::Unknown);
    world.run_state = Some(RunState::Paused);
    let paused = world.plan().forecast.unwrap();
    assert_eq!((paused.convergence, paused.pause.high), (Convergence::Certain, Duration::ZERO));
}

/// A miss that is certain is refused only where it would end in a cancelled migration, and where
/// nobody wants to try it all the same; help is offered that helps.
#[test]
fn a_predicted_miss_obeys_the_bargain() {
    let convergence = |dirty, bargain: Bargain, may_miss| {
        let mut world = World::healthy();
        world.load.dirty_rate = Some(Bytes(dirty));
        let findings = world.plan_for(bargain, may_miss).findings.into_iter();
        findings.filter(|found| found.code == codes::PLAN_CONVERGENCE).collect::<Vec<_>>()
    };
    let severity = |dirty, bargain, may_miss| {
        convergence(dirty, bargain, may_miss).first().map(|found| found.severity)
    };
    let (link, bargain) = (125_000_000, Bargain::default());
    assert_eq!(severity(link / 2, bargain, false), None);
    assert_eq!(severity(link * 9 / 10, bargain, false), Some(Severity::Warning));
    assert_eq!(severity(link * 2, bargain, false), Some(Severity::Blocker));
    assert_eq!(severity(link * 2, bargain, true), Some(Severity::Warning));
    for on_miss in [OnMiss::Pause, OnMiss::Throttle] {
        let bargain = Bargain { on_miss, ..bargain };
        assert_eq!(severity(link * 2, bargain, false), Some(Severity::Warning), "{on_miss:?}");
    }
    let help = &convergence(link * 2, bargain, false)[0].remedy;
    assert!(help.contains("--max-slowdown 60%"), "{help}");
    let slowed = Bargain { slowdown_percent_max: 61, ..bargain };
    assert_eq!(severity(link * 2, slowed, false), None);
    let help = &convergence(link * 100, bargain, false)[0].remedy;
    assert!(!help.contains("--max-slowdown"), "{help}");
}

/// What earlier migrations took makes the ranges narrower, and they hold what was seen.
#[test]
fn a_forecast_learns() {
    let mut world = World::healthy();
    world.load = LoadFacts::default();
    let before = world.plan().forecast.unwrap();
    let seen = |ms| Some(Span { low: Duration::from_millis(ms), high: Duration::from_millis(ms) });
    world.load.learned = Learned {
        count: 1,
        around: seen(900),
        switchover: seen(120),
        pause: seen(150),
        sent_times: Some(Span { low: 0.4, high: 0.4 }),
        wire_share: Some(Span { low: 0.5, high: 0.5 }),
        engine_rate: Some(Bytes(200_000_000)),
    };
    let after = world.plan().forecast.unwrap();
    let width = |forecast: &Forecast| forecast.total.high - forecast.total.low;
    assert!(width(&after) < width(&before), "{after:?} {before:?}");
    let took = Duration::from_millis(900 + 512 * 1_048_576 * 4 / 10 / 200_000);
    assert!(after.total.low < took && took < after.total.high, "{after:?}");
    assert!(after.pause.low > before.pause.low && after.pause.high < before.pause.high);
    assert!(after.reasons.iter().any(|reason| reason.contains("1 earlier migration ")));
}

#[test]
fn a_host_that_cannot_be_reached_has_a_remedy() {
    let address = Some("10.0.0.2".parse().unwrap());
    let record = || "avc: denied { name_connect } dest=8002".to_owned();
    let selinux = || Some(Denial::Selinux { record: record() });
    let record = || "apparmor=\"DENIED\" operation=\"connect\"".to_owned();
    let apparmor = || Some(Denial::Apparmor { record: record() });
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
        unreachable("beta", address, 8002, &Unreachable::Denied { denial: None }, None),
        unreachable("beta", address, 8002, &Unreachable::Denied { denial: selinux() }, None),
        unreachable("beta", address, 8002, &Unreachable::Denied { denial: apparmor() }, None),
        unreachable("beta", None, 8002, &Unreachable::NameUnknown, None),
        unreachable(
            "beta",
            address,
            8002,
            &Unreachable::of(&std::io::ErrorKind::HostUnreachable.into()),
            Some(Firewall::Firewalld),
        ),
        unreachable("beta", address, 8002, &Unreachable::Tls { reason: reason() }, None),
    ];
    insta::assert_snapshot!(show(&all));
}
