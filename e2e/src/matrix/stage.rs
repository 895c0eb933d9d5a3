// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Two hosts whose daemons have fault points, and one guest that is moved again and again.

use super::observer::{self, Observer};
use crate::lab::{Host, Lab};
use crate::scene::{CONFIG, Cast, Scene, engines, state};
use crate::setting::Setting;
use crate::witness::{Status, Witness};
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::time::{Duration, Instant};

/// How long a daemon may need until it has come to its point.
const POINT_PATIENCE: Duration = Duration::from_secs(20);

/// How long a daemon may still be busy when nothing of the migration can be seen any more.
const LAST_POINTS_MAX: Duration = Duration::from_millis(500);

/// How long nothing may be passed until all is at rest.
const REST: Duration = Duration::from_millis(300);

/// Either end of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Source,
    Target,
}

/// The lab of the matrix. The guest is at home on whichever host it came to last.
pub(super) struct Stage {
    // The daemons go before the observer of their engines.
    scene: Scene,
    pub(super) observer: Observer,
    listeners: [UnixListener; 2],
    is_on_beta: bool,
    /// How often the guest has been booted so far.
    pub(super) boots: u64,
}

/// A daemon that stands at its point. Dropping this lets it go on.
pub(super) struct Standing {
    _harness: UnixStream,
}

impl Stage {
    /// Sets up a lab and boots the guest on alpha.
    pub(super) fn new(setting: &Setting) -> Result<Stage> {
        let lab = Lab::new(&setting.program_with_faults()?)?;
        let image = setting.image()?.copy_to(&lab.shared)?;
        let observer = Observer::new(lab.directory())?;
        let listen = |host: &Host| -> Result<UnixListener> {
            fs::create_dir_all(host.faults())?;
            let listener = UnixListener::bind(host.faults().join("harness.sock"))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listeners = [listen(&lab.alpha)?, listen(&lab.beta)?];
        let engine = format!("{CONFIG}\n[engine]\nqemu = \"{}\"", observer.program().display());
        for host in [&lab.alpha, &lab.beta] {
            host.configure(&engine)?;
            host.start_daemon()?;
        }
        let scene = Scene { lab, image };
        scene.pair()?;
        let stage = Stage { scene, observer, listeners, is_on_beta: false, boots: 1 };
        stage.scene.create(stage.alpha(), &cast())?;
        Ok(stage)
    }

    pub(super) fn alpha(&self) -> &Host {
        self.scene.alpha()
    }

    pub(super) fn beta(&self) -> &Host {
        self.scene.beta()
    }

    /// The host where the guest is at home, and the one it goes to.
    pub(super) fn host(&self, side: Side) -> &Host {
        if (side == Side::Source) == self.is_on_beta { self.beta() } else { self.alpha() }
    }

    /// The guest is at home where it went.
    pub(super) fn turn(&mut self) {
        self.is_on_beta = !self.is_on_beta;
    }

    pub(super) fn witness(&self) -> Witness<'_> {
        self.scene.witness(&cast())
    }

    pub(super) fn hosts(&self) -> [&Host; 2] {
        [self.alpha(), self.beta()]
    }

    /// Waits until no daemon passes any more points: the last ones come when nothing of a
    /// migration can be seen any more, and must not be taken for those of the next one.
    pub(super) fn rest(&self) -> Result<()> {
        let traces = self.hosts().map(|host| host.faults().join("trace"));
        traces.iter().try_for_each(|trace| observer::begin_trace(trace))?;
        let passed = || traces.iter().map(|trace| fs::read(trace).map_or(0, |text| text.len()));
        let deadline = Instant::now() + POINT_PATIENCE;
        let mut before = usize::MAX;
        while Instant::now() < deadline {
            let now = passed().sum();
            if now == before {
                return Ok(());
            }
            before = now;
            std::thread::sleep(REST);
        }
        bail!("the daemons pass points without an end")
    }

    /// Begins to move the guest.
    pub(super) fn migrate(&self) -> Result<Child> {
        let target = self.host(Side::Target);
        self.host(Side::Source).spawn_whimbrel(&["migrate", GUEST, &target.name])
    }

    /// Plans what is to happen when the daemon of a side passes a point.
    pub(super) fn plan(&self, side: Side, point: &str, action: &str) -> Result<()> {
        // Somebody may have come to the point of an earlier case too late.
        while self.listener(side).accept().is_ok() {}
        let plan = self.host(side).faults().join("plan");
        let whole = plan.with_extension("new");
        fs::write(&whole, format!("{point} 1 {action}\n"))?;
        fs::rename(whole, plan).context("failed to plan")
    }

    /// Returns whether what was planned has happened, and forgets it.
    pub(super) fn drop_plan(&self, side: Side) -> bool {
        fs::remove_file(self.host(side).faults().join("plan")).is_err()
    }

    pub(super) fn is_carried_out(&self, side: Side) -> bool {
        !self.host(side).faults().join("plan").exists()
    }

    /// Waits until the daemon stands at its point; nothing if the move ends without that.
    pub(super) fn await_point(&self, side: Side, command: &mut Child) -> Result<Option<Standing>> {
        let deadline = Instant::now() + POINT_PATIENCE;
        let mut quiet_since = None;
        while Instant::now() < deadline {
            if let Ok((mut harness, _)) = self.listener(side).accept() {
                harness.set_nonblocking(false)?;
                harness.set_read_timeout(Some(POINT_PATIENCE))?;
                // One line: where it stands. We know.
                let mut line = [0; 256];
                let read = harness.read(&mut line)?;
                ensure!(read > 0, "a daemon came to its point and went away");
                return Ok(Some(Standing { _harness: harness }));
            }
            // The target has its last points when all others think that it is over. One that has
            // taken its plan is about to say so.
            let is_over = command.try_wait()?.is_some() && self.is_quiet()?;
            let since = *quiet_since.get_or_insert_with(Instant::now);
            match is_over && !self.is_carried_out(side) {
                true if since.elapsed() > LAST_POINTS_MAX => return Ok(None),
                true => {}
                false => quiet_since = None,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(None)
    }

    /// Nothing of a migration is left on either host.
    pub(super) fn is_quiet(&self) -> Result<bool> {
        Ok(super::leftovers::migrations(self)?.is_empty())
    }

    fn listener(&self, side: Side) -> &UnixListener {
        let is_beta = std::ptr::eq(self.host(side), self.beta());
        &self.listeners[usize::from(is_beta)]
    }

    /// Kills the engines of the guest on a side, and returns how many there were.
    pub(super) fn kill_engine(&self, side: Side) -> Result<usize> {
        let pids = engines(self.host(side), GUEST)?;
        kill_all(&pids)
    }

    /// Kills the carrying processes of a side, and returns how many there were.
    pub(super) fn kill_carrier(&self, side: Side) -> Result<usize> {
        kill_all(&carriers(self.host(side)))
    }

    /// What `list` says of the guest on a side.
    pub(super) fn state(&self, side: Side) -> Result<Option<String>> {
        state(self.host(side), GUEST)
    }

    /// The witness answers, and nothing of its memory and disks was lost or damaged.
    pub(super) fn is_well(&self) -> Result<Status> {
        let witness = self.witness();
        witness.wait()?;
        witness.is_well()
    }
}

/// The guest of the matrix.
pub(super) const GUEST: &str = "web1";

fn cast() -> Cast {
    Cast::named(GUEST, 50)
        .with_memory(112, 8)
        .dirtying("text", 1)
        .with_keys("on_crash = \"restart\"")
}

/// Returns the carrying processes on a host.
pub(super) fn carriers(host: &Host) -> Vec<u32> {
    let is_carrier = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"carry")
    };
    host.processes().into_iter().filter(is_carrier).collect()
}

/// Kills processes as a crash would, and returns how many there were.
pub(super) fn kill_all(pids: &[u32]) -> Result<usize> {
    for pid in pids {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(i32::try_from(*pid)?), Signal::SIGKILL);
    }
    Ok(pids.len())
}
