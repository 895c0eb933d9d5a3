// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The best proof that a guest can come: an engine is started here with its exact passport, paused
//! and waiting for memory, and ended again.
//!
//! Such an engine opens the guest's disks and locks none, holds taps that are on no bridge, and
//! never runs the guest. It has a place of its own, apart from the guest's: whoever owns the guest
//! is not touched by it. A daemon that is killed meanwhile ends it when it starts again.

use crate::daemon::Daemon;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use whimbrel_api::Problem;
use whimbrel_engine::{Launch, Start};
use whimbrel_host::network::TapName;
use whimbrel_model::facts::Proof;
use whimbrel_model::guest::{Guest, NetworkKind};
use whimbrel_model::id::{GuestId, LocalId};
use whimbrel_model::passport::Passport;

whimbrel_model::codes! {
    PROOF_BUSY = "plan/proof-busy": "This host is just now starting another engine for a proof.";
    PROOF_SLOW = "plan/proof-slow": "An engine that was started for a proof did not come up in time.";
}

/// How long an engine may take to come up.
const START_MAX: Duration = Duration::from_secs(5);
/// No guest has this number: its taps are the proof's.
const LOCAL_ID: LocalId = LocalId(u32::MAX);

/// Starts an engine for a guest, and ends it.
pub(super) async fn prove(daemon: &Daemon, guest: &Guest, passport: &Passport) -> Proof {
    // One at a time: the taps have one name.
    let Ok(_alone) = daemon.proving.try_lock() else {
        let problem = busy(daemon).into();
        return Proof::Failed { problem };
    };
    let began = Instant::now();
    let tried = tokio::time::timeout(START_MAX, start(daemon, guest, passport)).await;
    let tried = tried.unwrap_or_else(|_| Err(slow(guest)));
    let ended = end(daemon, passport.guest).await;
    match tried.and(ended) {
        Ok(()) => {
            let took_ms = super::ms(began.elapsed());
            Proof::Given { took_ms }
        }
        Err(problem) => Proof::Failed { problem: problem.into() },
    }
}

async fn start(daemon: &Daemon, guest: &Guest, passport: &Passport) -> Result<(), Problem> {
    let created = daemon.layout().create_proof(passport.guest, daemon.engine_ids());
    let directory = created.map_err(|error| Problem::of(&error))?;
    let launch = Launch {
        guest: guest.clone(),
        passport: passport.clone(),
        directory,
        taps: taps(daemon, guest).await?,
        start: Start::Incoming,
        run_as: daemon.run_as(),
        wrapper: Vec::new(),
    };
    daemon.engine.launch(launch).await.map(drop).map_err(|error| Problem::of(&error))
}

async fn taps(daemon: &Daemon, guest: &Guest) -> Result<Vec<OwnedFd>, Problem> {
    let mut taps = Vec::new();
    for network in &guest.networks {
        if let NetworkKind::Bridge { bridge } = &network.kind {
            let index = u8::try_from(taps.len()).expect("NETWORKS_MAX is checked");
            let name = TapName { guest: LOCAL_ID, index };
            let made = daemon.network.create_tap(name, bridge).await;
            taps.push(made.map_err(|error| Problem::of(&error))?);
        }
    }
    Ok(taps)
}

/// Ends the engine of a proof and removes its place. It is found by what it left there.
async fn end(daemon: &Daemon, guest: GuestId) -> Result<(), Problem> {
    let place = daemon.layout().proof(guest);
    let ended = daemon.engine.end_unused(guest, &place).await;
    ended.map_err(|error| Problem::of(&error))?;
    daemon.layout().remove_proof(guest).map_err(|error| Problem::of(&error))
}

/// Ends what a daemon that was killed has left.
pub(crate) async fn end_forgotten(daemon: &Daemon) -> Result<(), Problem> {
    let forgotten = daemon.layout().proof_ids().map_err(|error| Problem::of(&error))?;
    for guest in forgotten {
        end(daemon, guest).await?;
    }
    Ok(())
}

fn busy(daemon: &Daemon) -> Problem {
    Problem::new(
        whimbrel_api::Kind::Refused,
        PROOF_BUSY,
        format!("`{}` is starting another engine for a proof", daemon.name),
        "try again in a moment",
    )
}

fn slow(guest: &Guest) -> Problem {
    Problem::new(
        whimbrel_api::Kind::Failed,
        PROOF_SLOW,
        format!("an engine for `{}` did not come up in {} s", guest.name, START_MAX.as_secs()),
        "look at the load of that host, and try again",
    )
}
