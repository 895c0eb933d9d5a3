// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What is known before the first byte moves: facts of both hosts, judged by `model::plan`.

use crate::daemon::Daemon;
use crate::guests::{GuestView, Papers, parse_passport, parse_stored};
use crate::migrate::carrier::carrier_for;
use crate::migrate::{LINK_LOST_MAX, Planned, Target, learned, prove};
use crate::pages;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};
use whimbrel_api::Problem;
use whimbrel_api::plan as api;
use whimbrel_host::claims::{Beside, Place};
use whimbrel_host::dirs::UserIds;
use whimbrel_host::facts;
use whimbrel_host::network::segment::{self, Speaker};
use whimbrel_link::conn::{ConnectError, RequestError};
use whimbrel_link::wire::{FactsQuery, VERSIONS};
use whimbrel_model::config::allow::allows_bridge;
use whimbrel_model::facts::wire as facts_wire;
use whimbrel_model::facts::{
    ForwardTaken, GuestFacts, HostFacts, LinkFacts, LoadFacts, MacTaken, MemoryFacts, NameFacts,
    ProtocolRange, RelocationFacts, SegmentFacts, WayBack,
};
use whimbrel_model::guest::{Guest, Mac, NetworkKind, Protocol};
use whimbrel_model::id::{GuestId, HostId, HostName};
use whimbrel_model::passport::{DeviceKind, EngineKind, Passport};
use whimbrel_model::plan::reach::Unreachable;
use whimbrel_model::plan::{
    self, Bargain, Convergence, Finding, Forecast, Question, Severity, Side, Span,
};
use whimbrel_model::run_state::RunState;
use whimbrel_model::units::Bytes;

/// What the target answers: its own facts and those about the guest, each in its own format.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    version: u32,
    host: String,
    guest: String,
}

const VERSION: u32 = 1;

/// What is not known by then stays unknown: a plan is quick.
const MEASURE_MAX: Duration = Duration::from_secs(1);
/// How long a guest's habits may take to be measured.
const DIRTY_MAX: Duration = Duration::from_secs(2);
/// What may be sent for it.
const MEASURE_BYTES: Bytes = Bytes(8 << 20);
/// The same where the target holds most of the memory: it should not be what travels.
const MEASURE_BYTES_HELD: Bytes = Bytes(1 << 20);
/// See [`is_long`].
const FIRST_PASS_LONG: Duration = Duration::from_secs(10);

/// How long the source may take to answer the target that calls back.
const BACK_MAX: Duration = Duration::from_secs(1);
/// How long the target listens for the source on the guest's bridges, in vain.
const LISTEN_MAX: Duration = Duration::from_secs(1);
/// How often the source speaks there meanwhile.
const SPEAK_EVERY: Duration = Duration::from_millis(50);

/// How long a target may hold on to an attempt that the source has given up: until it gives up
/// by itself, and then ends its engine.
const LET_GO_MAX: Duration = LINK_LOST_MAX.saturating_add(Duration::from_secs(5));
const LET_GO_LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is to be planned, and how thoroughly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) is_stop_and_copy: bool,
    pub(crate) bargain: Bargain,
    /// Whether a predicted miss is no reason to refuse.
    pub(crate) may_miss: bool,
    /// An engine is started on the target, paused, and ended again.
    pub(crate) is_proved: bool,
    /// No frames are sent on the guest's bridges.
    pub(crate) is_unprobed: bool,
}

/// Asks both hosts and judges.
pub(crate) async fn make_plan(
    daemon: &Daemon,
    view: &GuestView,
    target: &Target,
    asked: Asked,
) -> Result<Planned, Problem> {
    let papers =
        view.papers.clone().ok_or_else(|| Problem::guest_not_found(&view.id.to_string()))?;
    let run = view.engine.as_ref().and_then(|_| run_state(view));
    leave_marks(&papers.guest).await;
    let held = pages::held(daemon, view.id, target.host).await;
    let answered = ask_aloud(daemon, &papers, target, held.is_some(), asked).await;
    let source_host = host_facts(daemon, None).await?;
    let source_guest = guest_facts(daemon, view.id, &papers.guest, papers.passport.as_ref()).await;
    let ((target_host, target_guest, link), segments) = answered?;
    let hindrances = hindrances(view).await;
    let source_guest = GuestFacts { segments, hindrances, ..source_guest };
    // Of what is held there, little travels.
    let is_long = held.is_none() && is_long(papers.guest.memory.size, link.rate);
    let dirty_rate = match run {
        Some(RunState::Running) if is_long => measure_writes(view).await,
        _ => None,
    };
    let (carrier, _) = carrier_for(held.as_ref(), link.rate);
    let way = learned::Way { carrier, is_held: held.is_some() };
    let learned = learned::learned(daemon, view.id, &target.name, way).await;
    let plan = plan::plan(&Question {
        id: view.id,
        guest: &papers.guest,
        passport: papers.passport.as_ref(),
        run_state: run,
        source: Side { host: &source_host, guest: &source_guest },
        target: Side { host: &target_host, guest: &target_guest },
        link: &link,
        load: LoadFacts { dirty_rate, is_held: held.is_some(), learned, ..LoadFacts::default() },
        bargain: asked.bargain,
        may_miss: asked.may_miss,
        is_stop_and_copy: asked.is_stop_and_copy,
    });
    let can = |host: &HostFacts| host.engines.iter().any(|engine| engine.has_multifd_zstd);
    let has_multifd_zstd = !asked.is_stop_and_copy && can(&source_host) && can(&target_host);
    let has_urgent_channel = has_urgent_channel(view, &papers, &target_host);
    Ok(Planned {
        plan,
        has_multifd_zstd,
        has_urgent_channel,
        has_one_channel: daemon.engine.kind() == EngineKind::Xen,
        rate: link.rate,
        dirty_rate,
        // One that was slow on a busy host is not held against all later ones.
        switchover: learned.switchover.map(|span| span.high.min(span.low * 2)),
        held,
        is_target_busy: target_guest.name.is_moving,
    })
}

/// Plans a move that is to begin at once. A target that was cut off from an attempt before may
/// not know yet that it is over; it is waited for.
pub(crate) async fn make_plan_for_move(
    daemon: &Daemon,
    view: &GuestView,
    target: &Target,
    asked: Asked,
) -> Result<Planned, Problem> {
    let patience = Instant::now() + LET_GO_MAX;
    loop {
        let planned = make_plan(daemon, view, target, asked).await?;
        if !planned.is_target_busy || Instant::now() >= patience {
            return Ok(planned);
        }
        tokio::time::sleep(LET_GO_LOOK_EVERY).await;
    }
}

/// Whether the first pass may take so long that it must be known before how much the guest writes:
/// a measurement costs a second.
fn is_long(memory: Bytes, rate: Option<Bytes>) -> bool {
    rate.is_none_or(|rate| memory.0 / rate.0.max(1) >= FIRST_PASS_LONG.as_secs())
}

/// Asks the guest's engine what keeps it from leaving; one that cannot say has nothing against it.
async fn hindrances(view: &GuestView) -> Vec<String> {
    let Some(instance) = view.engine.clone() else { return Vec::new() };
    let asked = tokio::time::timeout(MEASURE_MAX, instance.hindrances()).await;
    asked.ok().and_then(Result::ok).unwrap_or_default()
}

/// Whether the guest's own engine, which may be older than the one that is installed, and the
/// target's can both give a channel to the pages that the guest waits for.
fn has_urgent_channel(view: &GuestView, papers: &Papers, target: &HostFacts) -> bool {
    let (Some(instance), Some(passport)) = (&view.engine, &papers.passport) else { return false };
    let mut engines = target.engines.iter().filter(|engine| engine.kind == passport.engine);
    instance.has_urgent_channel()
        && engines.any(|engine| plan::postcopy::has_urgent_channel(engine, &passport.machine))
}

/// Measures how much the guest writes; an engine that cannot say leaves it unknown.
async fn measure_writes(view: &GuestView) -> Option<Bytes> {
    let instance = view.engine.clone()?;
    let measured = tokio::time::timeout(DIRTY_MAX, instance.dirty_rate()).await;
    measured.ok()?.ok()?
}

fn run_state(view: &GuestView) -> Option<RunState> {
    use whimbrel_api::guest::GuestState;
    match view.state {
        GuestState::Paused => Some(RunState::Paused),
        GuestState::Stopped => None,
        _ => Some(RunState::Running),
    }
}

type Answered = (HostFacts, GuestFacts, LinkFacts);

/// Asks the target, and speaks meanwhile on the guest's bridges, where the target listens.
async fn ask_aloud(
    daemon: &Daemon,
    papers: &Papers,
    target: &Target,
    is_held: bool,
    asked: Asked,
) -> Result<(Answered, Vec<SegmentFacts>), Problem> {
    let bridges = if asked.is_unprobed { Vec::new() } else { bridges_of(&papers.guest) };
    let token = (!bridges.is_empty()).then(|| uuid::Uuid::new_v4().into_bytes());
    let row = papers.to_row();
    let query = FactsQuery {
        definition: row.definition,
        passport: row.passport.unwrap_or_default().into_bytes(),
        token,
        is_proved: asked.is_proved,
        is_called_back: true,
    };
    let mut speaker = Speaker::new(&bridges, token.unwrap_or_default());
    let asking = ask(daemon, query, target, is_held);
    tokio::pin!(asking);
    let mut ticks = tokio::time::interval(SPEAK_EVERY);
    loop {
        tokio::select! {
            answered = &mut asking => return Ok((answered?, speaker.facts())),
            // The target listens once it has its own facts, and that may be late.
            _ = ticks.tick() => speaker.speak(),
        }
    }
}

/// Returns the bridges that a guest is on, each once.
fn bridges_of(guest: &Guest) -> Vec<String> {
    let bridges = guest.networks.iter().filter_map(|network| match &network.kind {
        NetworkKind::Bridge { bridge } => Some(bridge.clone()),
        NetworkKind::User { .. } => None,
    });
    bridges.collect::<BTreeSet<_>>().into_iter().collect()
}

async fn ask(
    daemon: &Daemon,
    query: FactsQuery,
    target: &Target,
    is_held: bool,
) -> Result<Answered, Problem> {
    let began = Instant::now();
    let called_at = SystemTime::now();
    let dialled = daemon.peers.dial(target.host).await;
    let mut connection =
        dialled.map_err(|error| not_reached(target, &error, called_at).to_problem())?;
    let handshake = began.elapsed();
    let address = connection.address().ip();
    let most = if is_held { MEASURE_BYTES_HELD } else { MEASURE_BYTES };
    let (facts, rate) = tokio::join!(connection.facts(query), measure(daemon, target, most));
    let json = facts.map_err(|error: RequestError| error.problem())?;
    let answer: Answer =
        serde_json::from_slice(&json).map_err(|error| nonsense(&target.name, &error))?;
    let host =
        facts_wire::host_from_json(&answer.host).map_err(|error| nonsense(&target.name, &error))?;
    let guest = facts_wire::guest_from_json(&answer.guest)
        .map_err(|error| nonsense(&target.name, &error))?;
    let link = LinkFacts {
        address: Some(address),
        // TCP, TLS and the greeting: about three exchanges.
        round_trip: Some(handshake / 3),
        rate,
        clock_ahead_ms: ahead(host.clock_unix_ms),
    };
    Ok((host, guest, link))
}

/// What is said of a target that cannot be called. Where it is this host that does not let the call
/// out, its logs may say why.
fn not_reached(target: &Target, error: &ConnectError, since: SystemTime) -> Finding {
    match error.fact() {
        (Some(address), Unreachable::Denied { .. }) => {
            let denial = whimbrel_host::security::denial_of_port(address.port(), since);
            let (name, ip, port) = (target.name.as_str(), address.ip(), address.port());
            plan::reach::unreachable(name, Some(ip), port, &Unreachable::Denied { denial }, None)
        }
        _ => error.finding(),
    }
}

/// Measures the way to the target. A release that cannot be asked leaves it unknown.
async fn measure(daemon: &Daemon, target: &Target, most: Bytes) -> Option<Bytes> {
    let measuring = async { daemon.peers.dial(target.host).await.ok()?.measure(most).await.ok() };
    tokio::time::timeout(MEASURE_MAX, measuring).await.ok().flatten()
}

fn ahead(theirs: u64) -> Option<i64> {
    let ours = i64::try_from(crate::story::unix_ms(SystemTime::now())).ok()?;
    Some(i64::try_from(theirs).ok()? - ours)
}

fn nonsense(host: &HostName, error: &dyn std::error::Error) -> Problem {
    Problem::new(
        whimbrel_api::Kind::Refused,
        "peer/not-understood",
        format!("`{host}` answered with facts that make no sense: {error}"),
        "install the same release on both hosts",
    )
}

/// Reads what a peer says of itself in its answer.
pub(crate) fn read_host_facts(json: &[u8]) -> Result<HostFacts, Problem> {
    let peer = HostName::new("the-peer").expect("a valid name");
    let answer: Answer = serde_json::from_slice(json).map_err(|error| nonsense(&peer, &error))?;
    facts_wire::host_from_json(&answer.host).map_err(|error| nonsense(&peer, &error))
}

/// The paired host that wants to know.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) host: HostId,
    pub(crate) name: HostName,
    /// Where it called from.
    pub(crate) address: IpAddr,
}

/// Answers a peer that wants to send a guest here.
pub(crate) async fn answer_facts(
    daemon: &Daemon,
    asker: &Asker,
    query: FactsQuery,
) -> Result<Vec<u8>, Problem> {
    let host = host_facts(daemon, Some((&asker.name, asker.address))).await?;
    if query.definition.is_empty() {
        return Ok(to_answer(&host, &GuestFacts::default()));
    }
    let guest = parse_stored("the guest in question", &query.definition)?;
    let passport = match query.passport.as_slice() {
        [] => None,
        json => Some(parse_passport(&String::from_utf8_lossy(json))?),
    };
    let id = passport.as_ref().map(|passport| passport.guest).or(guest.id);
    let id = id.unwrap_or(GuestId(uuid::Uuid::nil()));
    let proving = async {
        match &passport {
            Some(passport) if query.is_proved => Some(prove::prove(daemon, &guest, passport).await),
            _ => None,
        }
    };
    let calling =
        async { if query.is_called_back { Some(call(daemon, asker).await) } else { None } };
    let (about, segments, proof, way_back) = tokio::join!(
        guest_facts(daemon, id, &guest, passport.as_ref()),
        listen(daemon, &guest, &host, query.token),
        proving,
        calling
    );
    Ok(to_answer(&host, &GuestFacts { segments, proof, way_back, ..about }))
}

/// Calls a host that has called here, to see whether the way is open in this direction, too.
async fn call(daemon: &Daemon, asker: &Asker) -> WayBack {
    let began = Instant::now();
    let tried = tokio::time::timeout(BACK_MAX, daemon.peers.dial(asker.host)).await;
    match tried {
        Ok(Ok(_)) => WayBack::Open { took_ms: super::ms(began.elapsed()) },
        Ok(Err(error)) => {
            let (address, why) = error.fact();
            WayBack::Closed { address: address.map(|address| address.to_string()), why }
        }
        Err(_) => {
            let address = daemon.peers.addresses(asker.host).first().map(ToString::to_string);
            WayBack::Closed { address, why: Unreachable::TimedOut { seconds: BACK_MAX.as_secs() } }
        }
    }
}

fn to_answer(host: &HostFacts, guest: &GuestFacts) -> Vec<u8> {
    let answer = Answer {
        version: VERSION,
        host: facts_wire::host_to_json(host),
        guest: facts_wire::guest_to_json(guest),
    };
    serde_json::to_vec(&answer).expect("facts are JSON")
}

/// Listens for the asker on those of the guest's bridges that are here and open to it.
async fn listen(
    daemon: &Daemon,
    guest: &Guest,
    host: &HostFacts,
    token: Option<[u8; 16]>,
) -> Vec<SegmentFacts> {
    let Some(token) = token else { return Vec::new() };
    let allowed = &daemon.config().relocation.allow_bridges;
    let is_open = |bridge: &String| {
        let is_here = host.bridges.iter().any(|here| here.name == *bridge);
        is_here && allows_bridge(allowed, bridge)
    };
    let bridges: Vec<_> = bridges_of(guest).into_iter().filter(is_open).collect();
    let listening =
        tokio::task::spawn_blocking(move || segment::listen(&bridges, token, LISTEN_MAX));
    listening.await.expect("a panic ends the whole daemon")
}

/// What this host says of itself.
pub(crate) async fn host_facts(
    daemon: &Daemon,
    asker: Option<(&HostName, IpAddr)>,
) -> Result<HostFacts, Problem> {
    let engine = daemon.engine.facts().await.map_err(|error| Problem::of(&error))?;
    daemon.memory.look(&*daemon.engine).await;
    let bridges = daemon.network.bridges().await.map_err(|error| Problem::of(&error))?;
    let config = daemon.config();
    let user = daemon.engine_user_facts();
    let allows = |(name, address): (&HostName, IpAddr)| {
        config.relocation.hosts_allow.allows(name.as_str(), address)
    };
    let patterns = config.relocation.hosts_allow.patterns().map(str::to_owned).collect();
    Ok(HostFacts {
        name: daemon.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: ProtocolRange { min: *VERSIONS.start(), max: *VERSIONS.end() },
        memory: MemoryFacts {
            reclaimable: crate::balloon::reclaimable(daemon),
            ..daemon.memory.facts()
        },
        cpu: whimbrel_host::machine::cpu(),
        engines: vec![engine],
        bridges: bridges
            .into_iter()
            .map(|bridge| whimbrel_model::facts::BridgeFacts { name: bridge.name, mtu: bridge.mtu })
            .collect(),
        engine_user: daemon.engine_user_facts(),
        relocation: RelocationFacts {
            is_enabled: daemon.peers.is_open().await,
            port: config.relocation.port,
            hosts_allow: patterns,
            is_asker_allowed: asker.is_none_or(allows),
            allow_paths: config.relocation.allow_paths.clone(),
            allow_bridges: config.relocation.allow_bridges.clone(),
        },
        security: whimbrel_host::security::facts(UserIds { uid: user.uid, gid: user.gid }),
        clock_unix_ms: crate::story::unix_ms(SystemTime::now()),
        incoming_count: daemon.memory.promised_count(),
        is_in_maintenance: config.is_in_maintenance,
    })
}

/// What this host says of one guest's things.
pub(crate) async fn guest_facts(
    daemon: &Daemon,
    id: GuestId,
    guest: &Guest,
    passport: Option<&Passport>,
) -> GuestFacts {
    let user = daemon.engine_user_facts();
    let named = daemon.guests.named(&guest.name).filter(|other| other.id != id);
    let known = daemon.guests.get(id).map(|guest| guest.view());
    let known = known.filter(|view| view.papers.is_some());
    let name = NameFacts {
        name_taken_by: named.map(|other| other.id),
        known_as: known.as_ref().and_then(|view| Some(view.papers.as_ref()?.guest.name.clone())),
        is_active: known.as_ref().is_some_and(|view| view.engine.is_some()),
        // The plan itself is the first phase of a move.
        is_moving: known
            .as_ref()
            .and_then(|view| view.moving.as_ref())
            .is_some_and(|moving| moving.migration.phase > whimbrel_api::migration::Phase::Plan),
    };
    let user = UserIds { uid: user.uid, gid: user.gid };
    let sources = guest.disks.iter().map(|disk| disk.source.clone()).collect();
    let boot_files = passport.iter().flat_map(|passport| &passport.boot_files);
    let boot_files = boot_files.map(|file| (file.role, file.path.clone())).collect();
    GuestFacts {
        disks: facts::disks(sources, user, true, &daemon.config().relocation.allow_paths).await,
        boot_files: facts::boot_files(boot_files, user).await,
        name,
        forwards_taken: forwards_taken(guest),
        // No device of ours is given an option ROM.
        roms: Vec::new(),
        macs_taken: macs_taken(daemon, id, passport),
        segments: Vec::new(),
        proof: None,
        way_back: None,
        hindrances: Vec::new(),
        uefi: passport
            .and_then(|passport| daemon.engine.uefi(&daemon.layout().guest(id).run(), passport)),
    }
}

/// Returns the hardware addresses of a guest that others have here.
fn macs_taken(daemon: &Daemon, id: GuestId, passport: Option<&Passport>) -> Vec<MacTaken> {
    let macs = |passport: &Passport| -> Vec<Mac> {
        let devices = passport.devices.iter();
        let of_device = |kind: &DeviceKind| match kind {
            DeviceKind::Network { mac, .. } => Some(*mac),
            _ => None,
        };
        devices.filter_map(|device| of_device(&device.kind)).collect()
    };
    let ours = passport.map(macs).unwrap_or_default();
    let others = daemon.guests.list().into_iter().filter(|other| other.id != id);
    let taken = others.filter_map(|other| {
        let papers = other.view().papers.clone()?;
        let theirs = macs(papers.passport.as_ref()?);
        let mac = ours.iter().find(|mac| theirs.contains(mac))?;
        Some(MacTaken { mac: *mac, guest: papers.guest.name.clone() })
    });
    taken.collect()
}

/// Leaves marks beside the disks, so that the other host can tell the same file from its twin.
async fn leave_marks(guest: &Guest) {
    let disks: Vec<_> = guest.disks.iter().map(|disk| disk.source.clone()).collect();
    let leaving = tokio::task::spawn_blocking(move || {
        for disk in disks {
            // A folder that takes no mark is told apart by what else there is.
            if let Ok(Beside::Place(place)) = Place::of(&disk) {
                let _ = place.leave_mark();
            }
        }
    });
    leaving.await.expect("a panic ends the whole daemon");
}

/// Returns the forwards whose port on this host somebody else listens on.
fn forwards_taken(guest: &Guest) -> Vec<ForwardTaken> {
    let networks = guest.networks.iter();
    let forwards = networks.flat_map(|network| match &network.kind {
        NetworkKind::User { forwards } => forwards.as_slice(),
        NetworkKind::Bridge { .. } => &[],
    });
    let taken = forwards.filter_map(|forward| {
        let bound = match forward.protocol {
            Protocol::Tcp => std::net::TcpListener::bind(forward.host).err(),
            Protocol::Udp => std::net::UdpSocket::bind(forward.host).err(),
        };
        bound.map(|error| ForwardTaken { forward: *forward, reason: error.to_string() })
    });
    taken.collect()
}

pub(crate) fn finding(finding: &Finding) -> api::Finding {
    api::Finding {
        severity: match finding.severity {
            Severity::Ok => api::Severity::Ok,
            Severity::Warning => api::Severity::Warning,
            Severity::Blocker => api::Severity::Blocker,
        },
        code: finding.code.to_owned(),
        text: finding.text.clone(),
        remedy: Some(finding.remedy.clone()).filter(|remedy| !remedy.is_empty()),
    }
}

pub(crate) fn forecast(forecast: &Forecast) -> api::Forecast {
    let time =
        |span: Span<Duration>| api::Range { min: super::ms(span.low), max: super::ms(span.high) };
    api::Forecast {
        total_ms: time(forecast.total),
        pause_ms: time(forecast.pause),
        wire_bytes: api::Range { min: forecast.bytes.low.0, max: forecast.bytes.high.0 },
        convergence: match forecast.convergence {
            Convergence::Certain => api::Convergence::Certain,
            Convergence::Likely => api::Convergence::Likely,
            Convergence::Unlikely => api::Convergence::Unlikely,
            Convergence::Unknown => api::Convergence::Unknown,
        },
        reasons: forecast.reasons.clone(),
    }
}
