// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Guests: defined, shown, ordered about.

use crate::daemon::Daemon;
use crate::foreign::{self, NOT_OURS};
use crate::guests::GuestError;
use crate::guests::{Draft, GuestHandle, GuestTask, GuestView, Order, Papers, Stop};
use crate::http::{Caller, ConsoleStream, Scope};
use crate::ownership::Ownership;
use crate::peers_view;
use crate::story::{About, unix_ms};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use whimbrel_api::Problem;
use whimbrel_api::console::ConsoleQuery;
use whimbrel_api::guest::{
    CreateGuest, Created, DefinitionFormat, DiskInfo, EditGuest, Frozen, GuestDetail, GuestList,
    GuestRef, GuestSummary, NetworkInfo, StopGuest,
};
use whimbrel_handoff::ownership::EngineView;
use whimbrel_host::store::{Desired, NewGuest, StoreError};
use whimbrel_model::guest::{
    Boot, BootFrom, DiskDevice, DiskFormat, DiskSource, Firmware, Guest, NetworkKind, Protocol,
    file, kernel,
};
use whimbrel_model::id::{GuestId, GuestName};
use whimbrel_model::passport::{Accelerator, EngineKind, Passport};

/// How long a guest may take to shut down where nobody says otherwise.
const STOP_WITHIN: Duration = Duration::from_secs(120);

pub(super) async fn list(daemon: &Arc<Daemon>, scope: Scope) -> Result<GuestList, Problem> {
    let mut list = GuestList { guests: own(daemon).await, hosts_silent: Vec::new() };
    if scope == Scope::AllHosts {
        peers_view::add_guests(daemon, &mut list).await;
    }
    Ok(list)
}

/// Returns the guests of this host, and then those that others have started.
pub(crate) async fn own(daemon: &Daemon) -> Vec<GuestSummary> {
    let mut summaries = Vec::new();
    for guest in daemon.guests.list() {
        summaries.extend(guest.view().summary(&daemon.name).await);
    }
    let foreign = foreign::list(daemon).await;
    let foreign: Vec<_> = foreign.iter().map(|it| foreign::summary(it, &daemon.name)).collect();
    // One that is defined here, and runs without us.
    summaries.retain(|ours| foreign.iter().all(|other| other.uuid != ours.uuid));
    summaries.extend(foreign);
    summaries
}

pub(super) async fn summary(
    daemon: &Daemon,
    guest: &GuestHandle,
    gone: GuestSummary,
) -> GuestSummary {
    // A transient guest is forgotten as soon as it stops.
    guest.view().summary(&daemon.name).await.unwrap_or(gone)
}

pub(super) async fn order(
    daemon: Arc<Daemon>,
    guest: GuestRef,
    order: Order,
) -> Result<GuestSummary, Problem> {
    let handle = foreign::ours(&daemon, &guest).await?;
    let before = handle.view().summary(&daemon.name).await;
    let before = before.ok_or_else(|| Problem::guest_not_found(&guest.to_string()))?;
    handle.order(order).await?;
    let gone = GuestSummary { state: whimbrel_api::guest::GuestState::Stopped, ..before };
    Ok(summary(&daemon, &handle, gone).await)
}

pub(super) async fn stop(
    daemon: Arc<Daemon>,
    caller: Caller,
    guest: GuestRef,
    request: StopGuest,
) -> Result<GuestSummary, Problem> {
    let how = match (request.is_now, request.timeout_ms) {
        (true, _) => Stop::Now,
        (false, Some(ms)) => Stop::Within(Duration::from_millis(ms)),
        (false, None) => Stop::Within(STOP_WITHIN),
    };
    order(daemon, guest, Order::Stop { caller, how }).await
}

/// Defines a guest and starts it. A guest that does not start is not defined, either.
pub(super) async fn create(
    daemon: Arc<Daemon>,
    caller: Caller,
    request: CreateGuest,
) -> Result<Created, Problem> {
    let draft = Draft::read(&request, daemon.engine.kind())?;
    check_kernel(&draft.guest)?;
    let id = draft.guest.id.unwrap_or_else(|| GuestId(uuid::Uuid::new_v4()));
    let guest = Guest { id: Some(id), ..draft.guest };
    let new = NewGuest {
        guest: id,
        name: guest.name.to_string(),
        definition: file::render(&guest),
        passport: None,
        autostart: guest.autostart,
        transient: draft.is_transient,
        desired: Desired::Stopped,
    };
    let handle = define(&daemon, &guest.name, new).await?;
    let about = About {
        guest: handle.view().papers.as_ref().map(|papers| (id, papers.guest.name.clone())),
        caller: Some(caller),
        handoff: None,
    };
    daemon.story.info(&about, "the guest was defined");
    if !request.is_left_stopped
        && let Err(problem) = handle.order(Order::Start { caller }).await
    {
        // It may be in doubt, and then its definition is needed to find out.
        if problem.kind != whimbrel_api::Kind::InDoubt {
            handle.order(Order::Remove { caller }).await?;
        }
        return Err(problem);
    }
    let summary = handle.view().summary(&daemon.name).await;
    let guest = summary.ok_or_else(|| Problem::guest_not_found(&id.to_string()))?;
    Ok(Created { guest, notes: draft.notes })
}

/// Makes a guest known here, stopped.
pub(crate) async fn define(
    daemon: &Arc<Daemon>,
    name: &GuestName,
    new: NewGuest,
) -> Result<GuestHandle, Problem> {
    let id = new.guest;
    let row = daemon.store.call(move |tables| tables.add_guest(&new)).await;
    let row = row.map_err(|error| taken(daemon, id, name, &error))?;
    let papers = Papers::from_row(&row)?;
    let (handle, ends) = daemon.guests.enter(id);
    // A guest that was here before and moved away has its task, which remembers that.
    if let Some(ends) = ends {
        let (ownership, effects) = Ownership::open(daemon, id, EngineView::Gone);
        let papers = Some(papers.clone());
        let task = GuestTask::new(daemon.clone(), handle.clone(), ends, papers, ownership);
        tokio::spawn(task.begin(effects));
    }
    // Answered by the task: from then on everybody sees the guest.
    handle.order(Order::Define { papers: Box::new(papers) }).await?;
    Ok(handle)
}

fn taken(daemon: &Daemon, id: GuestId, wanted: &GuestName, error: &StoreError) -> Problem {
    match error {
        StoreError::NameTaken { name } => {
            let other = daemon.guests.named(wanted).map_or(id, |other| other.id);
            GuestError::NameTaken { name: name.clone(), other: other.to_string() }.into()
        }
        StoreError::GuestTaken { .. } => {
            let other = daemon.guests.get(id).and_then(|other| other.view().papers.clone());
            let other = other.map_or_else(|| id.to_string(), |other| other.guest.name.to_string());
            GuestError::IdTaken { id: id.to_string(), other }.into()
        }
        error => Problem::of(error),
    }
}

/// Refuses a kernel that no engine here can start, before anything is written down.
fn check_kernel(guest: &Guest) -> Result<(), Problem> {
    let Boot::Kernel { kernel, .. } = &guest.boot else { return Ok(()) };
    let mut head = Vec::new();
    let limit = u64::try_from(kernel::HEAD_BYTES).unwrap_or(u64::MAX);
    let read = std::fs::File::open(kernel).and_then(|file| file.take(limit).read_to_end(&mut head));
    if let Err(error) = read {
        let reason = error.to_string();
        let error = kernel::KernelError::Unusable { path: kernel.clone(), reason };
        return Err(Problem::of(&error));
    }
    kernel::check(kernel, &head).map_err(|error| Problem::of(&error))
}

pub(super) async fn edit(
    daemon: Arc<Daemon>,
    caller: Caller,
    guest: GuestRef,
    request: EditGuest,
) -> Result<Created, Problem> {
    let handle = foreign::ours(&daemon, &guest).await?;
    let view = handle.view();
    let old = view.papers.as_ref().ok_or_else(|| Problem::guest_not_found(&guest.to_string()))?;
    if request.replaces.as_ref().is_some_and(|text| *text != old.definition()) {
        return Err(GuestError::Changed { guest: old.guest.name.to_string() }.into());
    }
    let draft = Draft::read(
        &CreateGuest {
            text: request.text,
            format: DefinitionFormat::Toml,
            file_name: old.guest.name.to_string(),
            base_directory: request.base_directory,
            overrides: Vec::new(),
            is_transient: old.is_transient,
            is_left_stopped: true,
        },
        daemon.engine.kind(),
    )?;
    check_kernel(&draft.guest)?;
    let guest = Guest { id: Some(handle.id), ..draft.guest };
    let papers = Papers { guest, ..Papers::clone(old) };
    handle.order(Order::Edit { caller, papers: Box::new(papers) }).await?;
    let summary = handle.view().summary(&daemon.name).await;
    let guest = summary.ok_or_else(|| Problem::guest_not_found(&handle.id.to_string()))?;
    Ok(Created { guest, notes: draft.notes })
}

pub(super) async fn remove(
    daemon: Arc<Daemon>,
    caller: Caller,
    guest: GuestRef,
) -> Result<(), Problem> {
    foreign::ours(&daemon, &guest).await?.order(Order::Remove { caller }).await
}

pub(super) async fn console(
    daemon: &Arc<Daemon>,
    caller: Caller,
    guest: &GuestRef,
    query: ConsoleQuery,
) -> Result<Box<dyn ConsoleStream>, Problem> {
    let handle = match foreign::ours(daemon, guest).await {
        Ok(handle) => handle,
        Err(problem) if problem.code == NOT_OURS => return Err(problem),
        // It may have moved away a moment ago.
        Err(problem) => return peers_view::console(daemon, guest, query).await.ok_or(problem),
    };
    let view = handle.view();
    let Some(hub) = &view.console else {
        return Err(GuestError::NotNow {
            guest: guest.to_string(),
            state: view.state,
            action: "watched",
            instead: format!(
                "start it with `whimbrel start {guest}`; only a guest with an engine has a console"
            ),
        }
        .into());
    };
    Ok(Box::new(hub.open(caller, query)?))
}

pub(super) async fn detail(daemon: &Arc<Daemon>, guest: &GuestRef) -> Result<GuestDetail, Problem> {
    if let Some(detail) = foreign::detail(daemon, guest).await {
        return Ok(detail);
    }
    let view = daemon.guests.find(guest)?.view();
    let missing = || Problem::guest_not_found(&guest.to_string());
    let papers = view.papers.as_ref().ok_or_else(missing)?;
    let summary = view.summary(&daemon.name).await.ok_or_else(missing)?;
    Ok(GuestDetail {
        summary,
        definition: papers.definition(),
        is_definition_pending: view.is_edit_pending,
        boot: boot(&papers.guest.boot),
        disks: disks(&papers.guest),
        networks: networks(&papers.guest, papers.passport.as_ref()),
        frozen: papers.passport.as_ref().map(frozen),
        started_at_ms: view.started_at.map(unix_ms),
        pid: view.engine.as_ref().map(|engine| engine.process().pid).filter(|pid| *pid != 0),
        fits: peers_view::fits(daemon, papers).await,
        migration: view.moving.as_ref().map(|moving| (*moving.migration).clone()),
        kept: crate::pages::kept_elsewhere(daemon, view.id).await,
        remark: remark(&view),
    })
}

/// Everything about a guest that others have started, as far as it can be said.
pub(crate) fn detail_of(
    summary: GuestSummary,
    guest: Option<&Guest>,
    remark: String,
) -> GuestDetail {
    GuestDetail {
        summary,
        definition: guest.map(file::render).unwrap_or_default(),
        is_definition_pending: false,
        boot: guest.map(|guest| boot(&guest.boot)).unwrap_or_default(),
        disks: guest.map(disks).unwrap_or_default(),
        networks: guest.map(|guest| networks(guest, None)).unwrap_or_default(),
        frozen: None,
        started_at_ms: None,
        pid: None,
        fits: Vec::new(),
        migration: None,
        kept: None,
        remark: Some(remark),
    }
}

fn remark(view: &GuestView) -> Option<String> {
    view.remark.clone()
}

fn boot(boot: &Boot) -> String {
    match boot {
        Boot::Kernel { kernel, command_line, .. } => {
            format!("kernel {} `{command_line}`", kernel.display())
        }
        Boot::Firmware { firmware, from } => {
            let firmware = match firmware {
                Firmware::Bios => "BIOS",
                Firmware::Uefi => "UEFI",
            };
            let from = match from {
                BootFrom::Disk => "disk",
                BootFrom::Cdrom => "CD",
            };
            format!("{firmware} from {from}")
        }
    }
}

fn disks(guest: &Guest) -> Vec<DiskInfo> {
    let letters = ('a'..='z').map(|letter| format!("vd{letter}"));
    let named = guest.disks.iter().zip(letters);
    named
        .map(|(disk, place)| DiskInfo {
            name: disk.name.clone().unwrap_or(place),
            source: match &disk.source {
                DiskSource::Path(path) => path.display().to_string(),
                DiskSource::Nfs(url) => url.clone(),
            },
            format: match disk.format {
                DiskFormat::Raw => "raw".to_owned(),
                DiskFormat::Qcow2 => "qcow2".to_owned(),
            },
            device: match disk.device {
                DiskDevice::Disk => "disk".to_owned(),
                DiskDevice::Cdrom => "cdrom".to_owned(),
            },
            is_read_only: disk.is_read_only,
        })
        .collect()
}

fn networks(guest: &Guest, passport: Option<&Passport>) -> Vec<NetworkInfo> {
    let frozen_mac = |wanted: usize| {
        let devices = passport?.devices.iter();
        devices.into_iter().find_map(|device| match device.kind {
            whimbrel_model::passport::DeviceKind::Network { index, mac } if index == wanted => {
                Some(mac)
            }
            _ => None,
        })
    };
    let cards = guest.networks.iter().enumerate();
    cards
        .map(|(index, network)| {
            let mac = network.mac.or_else(|| frozen_mac(index)).map(|mac| mac.to_string());
            let (kind, bridge, forwards) = match &network.kind {
                NetworkKind::Bridge { bridge } => ("bridge", Some(bridge.clone()), Vec::new()),
                NetworkKind::User { forwards } => {
                    ("user", None, forwards.iter().map(forward).collect())
                }
            };
            NetworkInfo { mac, kind: kind.to_owned(), bridge, forwards }
        })
        .collect()
}

fn forward(forward: &whimbrel_model::guest::Forward) -> String {
    let protocol = match forward.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{protocol} {} -> {}", forward.host, forward.guest_port)
}

fn frozen(passport: &Passport) -> Frozen {
    Frozen {
        engine: engine_name(passport.engine).to_owned(),
        engine_version: passport.engine_version.clone(),
        accelerator: accelerator_name(passport.accelerator).to_owned(),
        machine: passport.machine.clone(),
        cpu: passport.cpu.model.clone(),
        cpu_features: passport.cpu.features.clone(),
    }
}

pub(crate) fn engine_name(kind: EngineKind) -> &'static str {
    match kind {
        EngineKind::Qemu => "qemu",
        EngineKind::Xen => "xen",
        EngineKind::Fake => "fake",
    }
}

pub(crate) fn accelerator_name(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg",
    }
}
