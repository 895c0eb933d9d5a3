// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Three guests that differ in nothing but in who moves them. One is awake, the others stand still,
//! so that nobody pays for another.

use super::cell::{Kind, Link, Work};
use super::programs::{Ours, Program, Qemu, Virsh};
use super::ways::{Way, Who};
use crate::lab::Lab;
use crate::libvirt::{Libvirt, Look};
use crate::plain::PlainGuest;
use crate::qemu::version_of;
use crate::scene::{Cast, Scene, engines};
use crate::setting::Setting;
use crate::userland::Userland;
use crate::witness::Witness;
use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

const MEMORY_MIB: u32 = 1024;
const CHECKED_MIB: u32 = 96;
/// Real work that reads all of a userland: it is packed once, and a part of it is compared with
/// what its packages say.
const FILL: &str = "tar -C / -cf - etc usr var | wc -c; dpkg --verify git python3.11-minimal";
/// A look around that touches some programs and libraries.
const LOOK: &str = "dpkg-query -W | sort | tail -n 1; python3 -c 'import json, ssl; print(1)'";
/// What lies between two looks around.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A busy hour, in short: much is read, something large is written and removed.
const CHURN: &str = "tar -C /usr -cf /var/tmp/churn lib/python3 share/perl && \
    gzip -1 -c /var/tmp/churn > /var/tmp/churn.gz && rm /var/tmp/churn /var/tmp/churn.gz; \
    dpkg --verify perl-modules-5.36; git init -q /var/tmp/tree && cp -r /etc /var/tmp/tree && \
    git -C /var/tmp/tree add . ; rm -rf /var/tmp/tree; sync";
const CHURN_TIME: Duration = Duration::from_secs(20);
const WORK_PATIENCE: Duration = Duration::from_secs(300);

pub(super) struct Stage<'a> {
    scene: &'a Scene,
    ours: Ours<'a>,
    qemu: Qemu<'a>,
    virsh: Virsh<'a>,
}

fn cast_of(who: Who) -> Cast {
    let cast = match who {
        Who::Whimbrel => Cast::web1(),
        Who::Qemu => Cast::named("plain", 51),
        Who::Libvirt => Cast::named("rival", 52),
    };
    cast.with_memory(MEMORY_MIB, CHECKED_MIB).with_userland()
}

impl<'a> Stage<'a> {
    /// Starts all guests on alpha, fills their page caches, and lets them rest.
    pub(super) fn set(setting: &Setting, scene: &'a Scene) -> Result<Stage<'a>> {
        let userland = Userland::build(&setting.cache())?;
        let [ours, plain, theirs] = [Who::Whimbrel, Who::Qemu, Who::Libvirt].map(cast_of);
        for cast in [&ours, &plain, &theirs] {
            userland.copy_to(&scene.lab.shared.join(format!("{}-userland.img", cast.name)))?;
        }
        let alpha = scene.alpha();
        scene.create(alpha, &ours)?;
        let engine = *engines(alpha, &ours.name)?.first().context("our guest has an engine")?;
        let look = Look::of_engine(engine)?;
        let version = version_of("/usr/bin/qemu-system-x86_64".as_ref())?;
        println!("QEMU {version}, machine {}, CPU {}, emulated", look.machine, look.cpu);
        let qemu = Qemu(PlainGuest::start(&scene.lab, &plain, &look)?);
        let daemons = [Libvirt::start(alpha)?, Libvirt::start(scene.beta())?];
        daemons[0].create(&scene.lab, &theirs, &look)?;
        let virsh = Virsh { daemons, guest: theirs.name.clone(), is_on_beta: false };
        let mut stage = Stage { scene, ours: Ours::new(scene, &ours.name), qemu, virsh };
        stage.fill([ours, plain, theirs])?;
        Ok(stage)
    }

    fn fill(&mut self, casts: [Cast; 3]) -> Result<()> {
        let scene = self.scene;
        let fill = |cast: &Cast| -> Result<()> {
            let witness = scene.witness(cast);
            witness.wait()?;
            witness.run(FILL, WORK_PATIENCE).map(drop)
        };
        let filled: Vec<Result<()>> = std::thread::scope(|threads| {
            let works: Vec<_> = casts.iter().map(|cast| threads.spawn(|| fill(cast))).collect();
            let ended = works.into_iter().map(|work| work.join().expect("no work panics"));
            ended.collect()
        });
        filled.into_iter().collect::<Result<()>>().context("the page cache cannot be filled")?;
        let programs: [&mut dyn Program; 3] = [&mut self.ours, &mut self.qemu, &mut self.virsh];
        programs.into_iter().try_for_each(Program::rest)
    }

    pub(super) fn lab(&self) -> &'a Lab {
        &self.scene.lab
    }

    pub(super) fn program(&mut self, way: Way) -> &mut dyn Program {
        match way.who() {
            Who::Whimbrel => &mut self.ours,
            Who::Qemu => &mut self.qemu,
            Who::Libvirt => &mut self.virsh,
        }
    }

    pub(super) fn witness(&self, way: Way) -> Witness<'a> {
        self.scene.witness(&cast_of(way.who()))
    }

    pub(super) fn set_link(&self, link: Link) -> Result<()> {
        for host in [self.scene.alpha(), self.scene.beta()] {
            host.set_rate(link.mbit)?;
            // What TCP learned of the wire that was there before.
            host.command("ip".as_ref(), &["tcp_metrics", "flush"], "")?.ok()?;
        }
        Ok(())
    }

    /// Wakes the guest and lets it do what its kind does.
    pub(super) fn wake(&mut self, way: Way, kind: Kind) -> Result<()> {
        self.program(way).wake()?;
        let (name, rate, over) = kind.dirty.unwrap_or(("none", 0, 0));
        let witness = self.witness(way);
        witness.ask(&format!("set dirty {name} {rate} {over}"))?;
        witness.ask(&format!("set files {}", kind.files_per_s)).map(drop)
    }

    /// Lets it do nothing, and then rest.
    pub(super) fn rest(&mut self, way: Way) -> Result<()> {
        let witness = self.witness(way);
        witness.ask("set dirty none 0")?;
        witness.ask("set files 0")?;
        self.program(way).rest()
    }

    /// Lets the guest, which is awake, work.
    pub(super) fn work(&self, way: Way, work: Work) -> Result<()> {
        let witness = self.witness(way);
        match work {
            Work::Usual(time) => {
                let started = Instant::now();
                while started.elapsed() < time {
                    witness.run(LOOK, WORK_PATIENCE)?;
                    std::thread::sleep(LOOK_EVERY.min(time.saturating_sub(started.elapsed())));
                }
                Ok(())
            }
            Work::Churn => {
                witness.ask("set dirty text 2")?;
                witness.run(CHURN, WORK_PATIENCE)?;
                std::thread::sleep(CHURN_TIME);
                witness.ask("set dirty none 0").map(drop)
            }
        }
    }
}
