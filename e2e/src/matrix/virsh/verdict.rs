// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What is there when all is over, what that is called, and what a person would have to type.

use super::stage::Stage;
use crate::matrix::stage::{GUEST, Side};
use anyhow::Result;

/// A guest's engine on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Runs,
    /// It is there, and its guest stands still.
    Stands,
    Gone,
}

/// One host, as its processes and its libvirtd show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) engine: Engine,
    /// What `virsh domstate --reason` says; `absent` if it does not know the guest.
    pub(super) state: String,
    pub(super) has_job: bool,
}

/// Both hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scene {
    pub(super) source: Found,
    pub(super) target: Found,
}

impl Scene {
    pub(super) fn of(stage: &Stage<'_>) -> Result<Scene> {
        Ok(Scene { source: found(stage, Side::Source)?, target: found(stage, Side::Target)? })
    }

    /// Where the guest is: `source`, `target`, `both` run it; `stuck`: it stands on one host or on
    /// two, and nobody runs it; `none`: there is no copy of it.
    pub(super) fn place(&self, is_paused: bool) -> &'static str {
        use Engine::{Gone, Runs, Stands};
        match (self.source.engine, self.target.engine) {
            (Runs, Runs) => "both",
            (Runs, _) => "source",
            (_, Runs) => "target",
            (Stands, Gone) if is_paused => "source",
            (Gone, Stands) if is_paused => "target",
            (Stands, _) | (_, Stands) => "stuck",
            (Gone, Gone) => "none",
        }
    }

    /// What is there and should not be, in words: nothing, once all is well.
    pub(super) fn left(&self, is_paused: bool) -> Vec<String> {
        let place = self.place(is_paused);
        let mut left = Vec::new();
        for (name, found) in [("source", &self.source), ("target", &self.target)] {
            let is_home = name == place;
            let Found { engine, state, has_job } = found;
            match engine {
                Engine::Stands if !is_home => left.push(format!("paused copy on the {name}")),
                // libvirt's word, where that is not what the engine does.
                Engine::Runs if !state.starts_with("running") => {
                    left.push(format!("runs on the {name}, which says `{state}`"));
                }
                Engine::Gone if state != "absent" && place != "none" => {
                    left.push(format!("the {name} says `{state}`"));
                }
                Engine::Runs | Engine::Stands | Engine::Gone => {}
            }
            if *has_job {
                left.push(format!("a job on the {name}"));
            }
        }
        left
    }

    pub(super) fn is_well(&self, is_paused: bool) -> bool {
        let is_somewhere = matches!(self.place(is_paused), "source" | "target");
        is_somewhere && self.left(is_paused).is_empty()
    }

    /// No copy is left that could go on by itself.
    pub(super) fn is_over(&self) -> bool {
        self.source.engine == Engine::Gone && self.target.engine == Engine::Gone
    }

    /// What a person would have to type so that exactly one copy is left, and runs.
    pub(super) fn to_type(&self, is_paused: bool) -> Vec<String> {
        let mut typed = Vec::new();
        for (name, found) in [("source", &self.source), ("target", &self.target)] {
            if found.has_job {
                typed.push(format!("{name}: virsh domjobabort {GUEST}"));
            }
        }
        match (self.place(is_paused), self.source.engine, self.target.engine) {
            // Which one has gone further, only a person can find out.
            ("both", ..) => typed.push(format!("one of them: virsh destroy {GUEST}")),
            ("source", _, Engine::Stands) => typed.push(format!("target: virsh destroy {GUEST}")),
            ("target", Engine::Stands, _) => typed.push(format!("source: virsh destroy {GUEST}")),
            ("stuck", Engine::Stands, Engine::Stands) => {
                typed.push(format!("one of them: virsh destroy {GUEST}"));
                if !is_paused {
                    typed.push(format!("the other: virsh resume {GUEST}"));
                }
            }
            ("stuck", Engine::Stands, _) => typed.push(format!("source: virsh resume {GUEST}")),
            ("stuck", ..) => typed.push(format!("target: virsh resume {GUEST}")),
            ("none", ..) if self.source.state != "absent" => {
                typed.push(format!("source: virsh start {GUEST}"));
            }
            ("none", ..) if self.target.state != "absent" => {
                typed.push(format!("target: virsh start {GUEST}"));
            }
            ("none", ..) => typed.push("virsh define and virsh start, from a copy".to_owned()),
            _ => {}
        }
        let place = self.place(is_paused);
        let others = [("target", "source", &self.source), ("source", "target", &self.target)];
        for (home, name, found) in others {
            if home == place && found.state.starts_with("shut off") {
                typed.push(format!("{name}: virsh undefine {GUEST}"));
            }
        }
        typed
    }
}

fn found(stage: &Stage<'_>, side: Side) -> Result<Found> {
    let engines = stage.engines(side)?;
    let running = stage.observer.running();
    let engine = match engines.iter().any(|pid| running.contains(pid)) {
        true => Engine::Runs,
        false if engines.is_empty() => Engine::Gone,
        false => Engine::Stands,
    };
    let libvirt = stage.of(side);
    let state = match libvirt.ask(&["domstate", GUEST, "--reason"]) {
        Ok(ran) if ran.status.success() => ran.stdout.trim().to_owned(),
        Ok(ran) if ran.stderr.contains("failed to get domain") => "absent".to_owned(),
        Ok(ran) => ran.stderr.trim().replace('\n', " "),
        Err(_) => "no answer".to_owned(),
    };
    let job = libvirt.ask(&["domjobinfo", GUEST]).map(|ran| ran.stdout).unwrap_or_default();
    Ok(Found { engine, state, has_job: has_job(&job) })
}

/// Whether `virsh domjobinfo` tells of a job that is not over.
fn has_job(said: &str) -> bool {
    let kind = said.lines().find_map(|line| line.strip_prefix("Job type:"));
    kind.is_some_and(|kind| !matches!(kind.trim(), "None" | "Completed" | ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Engine::{Gone, Runs, Stands};

    fn scene(source: (Engine, &str), target: (Engine, &str)) -> Scene {
        let found = |(engine, state): (Engine, &str)| {
            let state = state.to_owned();
            Found { engine, state, has_job: false }
        };
        Scene { source: found(source), target: found(target) }
    }

    /// One copy is well, wherever it is; everything else has a name and something to type.
    #[test]
    fn what_is_there_has_a_name() {
        let check = |scene: Scene, place: &str, left: usize, typed: &[&str]| {
            assert_eq!(scene.place(false), place, "{scene:?}");
            assert_eq!(scene.left(false).len(), left, "{scene:?}");
            assert_eq!(scene.to_type(false), typed, "{scene:?}");
            assert_eq!(scene.is_well(false), typed.is_empty(), "{scene:?}");
        };
        let (runs, paused) = ((Runs, "running (booted)"), (Stands, "paused (migrating)"));
        let (off, gone) = ((Gone, "shut off (destroyed)"), (Gone, "absent"));
        check(scene(runs, gone), "source", 0, &[]);
        check(scene(gone, runs), "target", 0, &[]);
        check(scene(runs, runs), "both", 0, &["one of them: virsh destroy web1"]);
        check(scene(paused, runs), "target", 1, &["source: virsh destroy web1"]);
        check(scene(off, runs), "target", 1, &["source: virsh undefine web1"]);
        check(scene(runs, off), "source", 1, &["target: virsh undefine web1"]);
        check(scene(paused, gone), "stuck", 1, &["source: virsh resume web1"]);
        check(scene(off, gone), "none", 0, &["source: virsh start web1"]);
        let both = ["one of them: virsh destroy web1", "the other: virsh resume web1"];
        check(scene(paused, paused), "stuck", 2, &both);
    }

    /// A guest that was paused is well where it is paused, and two of it are not.
    #[test]
    fn a_paused_guest_stays_paused() {
        let (paused, gone) = ((Stands, "paused (user)"), (Gone, "absent"));
        assert!(scene(paused, gone).is_well(true));
        assert!(scene(gone, paused).is_well(true));
        assert!(!scene(paused, paused).is_well(true));
    }

    /// As `virsh domjobinfo` of libvirt 9.0 prints it.
    #[test]
    fn jobs_are_told_from_none() {
        assert!(!has_job("Job type:         None        \n\n"));
        assert!(!has_job("Job type:         Completed   \n"));
        assert!(!has_job(""));
        assert!(has_job("Job type:         Unbounded   \nOperation:        Outgoing migration\n"));
    }
}
