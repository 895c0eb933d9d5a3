// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Hosts: this one, and those paired with it.

use crate::daemon::Daemon;
use crate::http::Caller;
use crate::story::{About, unix_ms};
use std::sync::Arc;
use std::time::{Duration, Instant};
use whimbrel_api::Problem;
use whimbrel_api::event::Event;
use whimbrel_api::guest::{GuestState, Note, NoteLevel};
use whimbrel_api::host::{
    EngineInfo, HostInfo, Invitation, InviteRequest, JoinRequest, Peer, PeerList, Reloaded,
    Relocation,
};
use whimbrel_host::machine;
use whimbrel_model::config::Config;
use whimbrel_model::id::{HostId, HostName};
use whimbrel_model::units::Bytes;

whimbrel_model::codes! {
    STILL_NEEDED = "host/still-needed": "A host cannot be forgotten while a handoff with it is open.";
}

/// How long a peer may take to say that it is there.
const PING_MAX: Duration = Duration::from_secs(2);

pub(super) async fn info(daemon: &Arc<Daemon>) -> Result<HostInfo, Problem> {
    let engine = daemon.engine.facts().await;
    daemon.memory.look(&*daemon.engine).await;
    let memory = daemon.memory.facts();
    let system = machine::system();
    let cpu = machine::cpu();
    let guests = daemon.guests.list();
    let running = guests.iter().filter(|guest| guest.view().engine.is_some()).count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(HostInfo {
        name: daemon.name.to_string(),
        fingerprint: daemon.host_id().to_string(),
        fingerprint_words: daemon.identity.words(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: system.kernel,
        system: system.name,
        started_at_ms: unix_ms(daemon.started_at),
        cpu_count: cpu.count,
        cpu_model: cpu.model,
        cpu_time_ms: system.cpu_time_ms,
        memory_total_bytes: memory.total.0,
        memory_free_bytes: free(&memory),
        host_min_memory_bytes: memory.host_min_memory.0,
        memory_promised_bytes: memory.promised.0,
        guest_count: count(guests.len()),
        guest_running_count: count(running),
        engines: engine
            .as_ref()
            .map(|engine| EngineInfo {
                kind: super::guests::engine_name(engine.kind).to_owned(),
                version: engine.version.clone(),
                accelerator: super::guests::accelerator_name(engine.accelerator).to_owned(),
                accelerator_reason: engine.accelerator_reason.clone(),
                machine_default: engine.machine_default.clone(),
                cpu_model: engine.cpu_model.clone(),
            })
            .into_iter()
            .collect(),
        relocation: relocation(daemon).await,
        state_directory: daemon.layout().root().display().to_string(),
        config_file: daemon.config_file.path.display().to_string(),
        checks: crate::checks::all(daemon, engine.as_ref()).await,
    })
}

fn free(memory: &whimbrel_model::facts::MemoryFacts) -> u64 {
    let kept = memory.host_min_memory.0 + memory.promised.0;
    memory.free.0.saturating_sub(kept)
}

pub(super) async fn relocation(daemon: &Daemon) -> Relocation {
    let config = daemon.config();
    let address = Some(config.relocation.address).filter(|address| !address.is_unspecified());
    Relocation {
        is_enabled: daemon.peers.is_open().await,
        addresses: address.iter().map(ToString::to_string).collect(),
        port: config.relocation.port,
        hosts_allow: config.relocation.hosts_allow.patterns().map(str::to_owned).collect(),
    }
}

pub(super) async fn set_relocation(
    daemon: Arc<Daemon>,
    caller: Caller,
    is_enabled: bool,
) -> Result<Relocation, Problem> {
    daemon.set_relocation(is_enabled).await?;
    let about = About { caller: Some(caller), ..About::default() };
    let text = if is_enabled { "relocation was enabled" } else { "relocation was disabled" };
    daemon.story.info(&about, text);
    Ok(relocation(&daemon).await)
}

/// Reads the configuration again, puts in force what can change while the daemon runs, and says
/// what cannot.
pub(crate) async fn reload(daemon: Arc<Daemon>, caller: Caller) -> Result<Reloaded, Problem> {
    let (old, read) = (daemon.config(), daemon.config_file.read()?);
    let mut notes: Vec<_> = waiting_for_restart(&old, &read).map(warning).collect();
    let said = daemon.relocation_said().await?;
    if said.is_some_and(|said| said != read.relocation.is_enabled) {
        let word = if read.relocation.is_enabled { "disable" } else { "enable" };
        notes.push(warning(format!(
            "`enabled` under `[relocation]` is not followed: `whimbrel relocation {word}` was \
             said since, and stands above the configuration"
        )));
    }
    // What is used all the time must not change under those who use it.
    let new = Config {
        name: old.name.clone(),
        state_dir: old.state_dir.clone(),
        engine: old.engine.clone(),
        api: old.api.clone(),
        ..read
    };
    daemon.memory.set_kept(new.host_min_memory);
    daemon.set_config(new);
    daemon.open_port().await?;
    crate::pages::sweep(&daemon).await;
    let about = About { caller: Some(caller), ..About::default() };
    daemon.story.info(&about, "the configuration was read again");
    notes.iter().for_each(|note| daemon.story.warn(&about, note.text.clone()));
    let text = "relocation, limits and defaults are in force as written".to_owned();
    notes.push(Note { level: NoteLevel::Note, text });
    Ok(Reloaded { notes })
}

fn warning(text: String) -> Note {
    Note { level: NoteLevel::Warning, text }
}

/// What a changed configuration says that the daemon follows only from its next start on.
fn waiting_for_restart(old: &Config, new: &Config) -> impl Iterator<Item = String> {
    let parts = [
        (old.name == new.name, "`name` under `[host]`"),
        (old.state_dir == new.state_dir, "`state_dir` under `[host]`"),
        (old.engine == new.engine, "`[engine]`"),
        (old.api == new.api, "`[api]`"),
    ];
    let changed = parts.into_iter().filter(|(is_same, _)| !is_same);
    changed.map(|(_, what)| format!("{what} changed; it takes effect when the daemon is restarted"))
}

pub(super) async fn list(daemon: &Arc<Daemon>) -> Result<PeerList, Problem> {
    let mut hosts = vec![this_host(daemon).await];
    let peers = daemon.peers.all().into_iter().map(|host| peer(daemon, host));
    let mut others = futures::future::join_all(peers).await;
    others.sort_by(|a, b| a.name.cmp(&b.name));
    hosts.extend(others);
    Ok(PeerList { hosts })
}

async fn this_host(daemon: &Daemon) -> Peer {
    daemon.memory.look(&*daemon.engine).await;
    let memory = daemon.memory.facts();
    let running =
        daemon.guests.list().iter().filter(|g| g.view().state != GuestState::Stopped).count();
    Peer {
        name: daemon.name.to_string(),
        is_this_host: true,
        fingerprint: daemon.host_id().to_string(),
        fingerprint_words: daemon.identity.words(),
        pair_words: None,
        addresses: daemon.peers.addresses_here().await.iter().map(ToString::to_string).collect(),
        is_reachable: true,
        problem: None,
        is_relocation_enabled: Some(
            daemon.peers.is_open().await && !daemon.config().is_in_maintenance,
        ),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        engine: daemon.engine_in_words().await,
        memory_free_bytes: Some(free(&memory)),
        guest_running_count: u32::try_from(running).ok(),
        round_trip_us: None,
    }
}

/// `whimbrel 0.1.0` is the software; its version is asked for.
fn version_of(software: &str) -> &str {
    software.strip_prefix("whimbrel ").unwrap_or(software)
}

async fn peer(daemon: &Daemon, host: HostId) -> Peer {
    let began = Instant::now();
    let asking = async {
        let connection = daemon.peers.connect(host).await?;
        connection.ping().await.map_err(|error| error.problem())
    };
    let answer = match tokio::time::timeout(PING_MAX, asking).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(problem)) => Err(problem.text),
        Err(_) => Err(format!("it did not answer within {} s", PING_MAX.as_secs())),
    };
    let took = u64::try_from(began.elapsed().as_micros()).ok();
    let status = answer.as_ref().ok();
    Peer {
        name: daemon.peers.name_of(host).to_string(),
        is_this_host: false,
        fingerprint: host.to_string(),
        fingerprint_words: whimbrel_link::words::of_host(host),
        pair_words: Some(whimbrel_link::words::of_pair(daemon.host_id(), host)),
        addresses: daemon.peers.addresses(host).iter().map(ToString::to_string).collect(),
        is_reachable: status.is_some(),
        problem: answer.as_ref().err().cloned(),
        // It answers only while its port is open.
        is_relocation_enabled: status.map(|status| !status.is_in_maintenance),
        version: status.map(|status| version_of(&status.software).to_owned()),
        engine: status.map(|status| status.engine.clone()),
        memory_free_bytes: status.map(|status| status.memory_free.0),
        guest_running_count: status.map(|status| status.guest_count),
        round_trip_us: status.and(took),
    }
}

pub(super) async fn invite(
    daemon: Arc<Daemon>,
    caller: Caller,
    request: InviteRequest,
) -> Result<Invitation, Problem> {
    let opened = daemon.peers.invite(&request.addresses).await?;
    let about = About { caller: Some(caller), ..About::default() };
    daemon.story.info(&about, "an invitation was opened");
    Ok(Invitation {
        token: opened.token,
        expires_at_ms: unix_ms(opened.expires_at),
        addresses: opened.addresses.iter().map(ToString::to_string).collect(),
        fingerprint_words: daemon.identity.words(),
    })
}

pub(super) async fn close_invitation(daemon: Arc<Daemon>) -> Result<(), Problem> {
    daemon.peers.close_invitation().await
}

pub(super) async fn join(
    daemon: Arc<Daemon>,
    caller: Caller,
    request: JoinRequest,
) -> Result<Peer, Problem> {
    let host = daemon.peers.join(&request.token).await?;
    let peer = peer(&daemon, host).await;
    let about = About { caller: Some(caller), ..About::default() };
    let words = peer.pair_words.clone().unwrap_or_default();
    daemon.story.info(&about, format!("paired with `{}` ({words})", peer.name));
    daemon.story.send(Event::Paired(peer.clone()));
    Ok(peer)
}

pub(super) async fn forget(
    daemon: Arc<Daemon>,
    caller: Caller,
    host: String,
) -> Result<(), Problem> {
    let target = daemon.peers.find(&host).ok_or_else(|| Problem::host_not_found(&host))?;
    let is_needed = |guest: &crate::guests::GuestHandle| {
        guest.view().moving.as_ref().is_some_and(|moving| moving.with == target.name.as_str())
    };
    if let Some(guest) = daemon.guests.list().iter().find(|guest| is_needed(guest)) {
        return Err(still_needed(&target.name, guest));
    }
    daemon.peers.forget(target.host).await?;
    let about = About { caller: Some(caller), ..About::default() };
    daemon.story.info(&about, format!("`{host}` was forgotten"));
    Ok(())
}

fn still_needed(host: &HostName, guest: &crate::guests::GuestHandle) -> Problem {
    let name = guest.view().papers.as_ref().map(|papers| papers.guest.name.to_string());
    let name = name.unwrap_or_else(|| guest.id.to_string());
    Problem::new(
        whimbrel_api::Kind::Refused,
        STILL_NEEDED,
        format!("guest `{name}` is being handed over between this host and `{host}`"),
        format!("wait for that (`whimbrel watch {name}`), or cancel it (`whimbrel cancel {name}`)"),
    )
}

/// Room for a guest, for people.
pub(crate) fn room(memory: &whimbrel_model::facts::MemoryFacts) -> Bytes {
    Bytes(free(memory))
}
