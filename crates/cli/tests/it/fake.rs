// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A daemon that is made up: one host `alpha` with a few guests, paired with `beta`.
//!
//! Guests: `web1` runs, `db` is stopped, `lost` is in doubt. Migrations end by their target:
//! `beta` takes the guest, `full` refuses it, `broken` fails, `slow` waits to be cancelled, `far`
//! leaves it in doubt.

mod foreign;

use async_trait::async_trait;
use futures::StreamExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use whimbrel_api::console::ConsoleQuery;
use whimbrel_api::event::{Event, EventQuery};
use whimbrel_api::guest::*;
use whimbrel_api::host::*;
use whimbrel_api::log::{Level, LogLine, LogPage, LogQuery};
use whimbrel_api::migration::*;
use whimbrel_api::pages::{KeptElsewhere, KeptMemory, KeptMemoryList, MemoryDropped};
use whimbrel_api::plan::*;
use whimbrel_api::recover::*;
use whimbrel_api::{Kind, Problem};
use whimbrel_daemon::console::{Hub, HubOptions};
use whimbrel_daemon::http::{Backend, Caller, ConsoleStream, EventStream, Scope};
use whimbrel_model::id::GuestName;

pub(crate) struct Fake {
    /// What was asked for, in order.
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) directory: PathBuf,
    /// The console of `web1`, once a test has one.
    pub(crate) hub: Mutex<Option<Hub>>,
    /// Lets the migrations to `slow` end.
    cancelled: Arc<Notify>,
    /// Nothing is kept on this host.
    pub(crate) is_bare: AtomicBool,
    /// There is a guest `old` that others have started.
    pub(crate) has_foreign: AtomicBool,
}

/// How long a guest takes to shut down.
const SHUTDOWN_MS: u64 = 1_000;

const WEB1: &str = "6f0c1f0e-6a3e-4f0b-9d55-0d3a1c9b7e01";
const DB: &str = "6f0c1f0e-6a3e-4f0b-9d55-0d3a1c9b7e02";
const LOST: &str = "6f0c1f0e-6a3e-4f0b-9d55-0d3a1c9b7e03";

pub(crate) fn summary(name: &str) -> GuestSummary {
    let (uuid, id, state, memory, cpu_time_ms) = match name {
        "web1" => (WEB1, 1, GuestState::Running, 512, 82_649),
        "db" => (DB, 2, GuestState::Stopped, 2048, 0),
        _ => (LOST, 3, GuestState::InDoubt, 128, 1_000),
    };
    GuestSummary {
        uuid: uuid.into(),
        id: Some(id),
        name: name.into(),
        state,
        host: "alpha".into(),
        memory_bytes: memory << 20,
        cpu_count: 1,
        cpu_time_ms,
        is_transient: false,
        is_autostarted: name == "web1",
        is_foreign: false,
        moving_with: None,
    }
}

fn detail(name: &str) -> GuestDetail {
    let is_web1 = name == "web1";
    GuestDetail {
        summary: summary(name),
        definition: format!("name = \"{name}\"\nmemory = \"512 MiB\"\n"),
        is_definition_pending: is_web1,
        boot: "kernel /xen/vmlinuz".into(),
        disks: vec![DiskInfo {
            name: "vda".into(),
            source: "/xen/web1.img".into(),
            format: "raw".into(),
            device: "disk".into(),
            is_read_only: false,
        }],
        networks: vec![NetworkInfo {
            mac: Some("52:54:00:12:34:56".into()),
            kind: "bridge".into(),
            bridge: Some("br0".into()),
            forwards: Vec::new(),
        }],
        frozen: is_web1.then(|| Frozen {
            engine: "qemu".into(),
            engine_version: "7.2.22".into(),
            accelerator: "tcg".into(),
            machine: "pc-q35-7.2".into(),
            cpu: "qemu64".into(),
            cpu_features: vec!["sse2".into()],
        }),
        started_at_ms: is_web1.then_some(1_213_199_162_000),
        pid: is_web1.then_some(4711),
        fits: vec![
            Fit { host: "beta".into(), is_fit: true, reason: None },
            Fit { host: "full".into(), is_fit: false, reason: Some("it lacks `avx2`".into()) },
        ],
        migration: (name == "lost").then(|| migration("lost", "far")),
        kept: is_web1.then(|| KeptElsewhere {
            host: "beta".into(),
            kept_at_ms: 1_213_199_162_000,
            memory_bytes: 480 << 20,
        }),
        remark: (name == "lost").then(|| "`beta` does not answer".into()),
    }
}

/// A migration that has just begun.
pub(crate) fn migration(guest: &str, target: &str) -> Migration {
    Migration {
        id: format!("{guest}/{target}"),
        guest: guest.into(),
        guest_uuid: summary(guest).uuid,
        source: "alpha".into(),
        target: target.into(),
        mode: if guest == "db" { Mode::Definition } else { Mode::Live },
        phase: Phase::Plan,
        started_at_ms: 1_213_199_162_000,
        elapsed_ms: 0,
        phases: Vec::new(),
        findings: Vec::new(),
        checks_passed: 9,
        forecast: None,
        bargain: None,
        miss: None,
        progress: None,
        outcome: None,
    }
}

fn plan(guest: &str, target: &str) -> Plan {
    let ok = |text: &str| Finding {
        severity: Severity::Ok,
        code: "plan/fine".into(),
        text: text.into(),
        remedy: None,
    };
    let mut findings = vec![ok("`alpha` and `beta` run the same version")];
    if target == "full" {
        findings = blockers();
    }
    let forecast = Forecast {
        total_ms: Range { min: 9_000, max: 14_000 },
        pause_ms: Range { min: 60, max: 110 },
        wire_bytes: Range { min: 300 << 20, max: 400 << 20 },
        convergence: Convergence::Certain,
        reasons: vec!["the link carries 112 MiB/s".into()],
    };
    Plan {
        guest: guest.into(),
        source: "alpha".into(),
        target: target.into(),
        forecast: (target != "full").then_some(forecast),
        findings,
        carrier: Some("tunnel, 2 channels: the link is fast".into()),
    }
}

fn blockers() -> Vec<Finding> {
    let blocker = |code: &str, text: &str, remedy: &str| Finding {
        severity: Severity::Blocker,
        code: code.into(),
        text: text.into(),
        remedy: Some(remedy.into()),
    };
    vec![
        blocker(
            "plan/not-enough-memory",
            "`full` has 1.5 GiB free memory, and guest `web1` needs 4 GiB",
            "choose a host with room for it: `whimbrel host list`",
        ),
        blocker(
            "plan/bridge-missing",
            "`full` has no bridge `br0`",
            "add it there: `ip link add br0 type bridge`",
        ),
    ]
}

fn outcome(begun: &Migration) -> Migration {
    let problem =
        |kind, code: &str, text: &str, remedy: &str| Some(Problem::new(kind, code, text, remedy));
    let (result, problem) = match begun.target.as_str() {
        "full" => (
            MigrationResult::Refused,
            problem(
                Kind::Refused,
                "plan/not-enough-memory",
                "`full` has 1.5 GiB free memory, and guest `web1` needs 4 GiB",
                "choose a host with room for it: `whimbrel host list`",
            ),
        ),
        "broken" => (
            MigrationResult::Failed,
            problem(
                Kind::Failed,
                "migration/target-lost",
                "`broken` went away while memory travelled",
                "try again once it is back: `whimbrel migrate web1 broken`",
            ),
        ),
        "slow" => (MigrationResult::Cancelled, None),
        "far" => (
            MigrationResult::InDoubt,
            problem(
                Kind::InDoubt,
                "handoff/in-doubt",
                "`far` may own guest `web1`, and does not answer",
                "see what each host knows: `whimbrel recover web1`",
            ),
        ),
        _ => (MigrationResult::Done, None),
    };
    let is_refused = result == MigrationResult::Refused;
    let report = report(begun, result, problem.clone());
    Migration {
        phase: Phase::Ended,
        phases: report.phases.clone(),
        findings: if is_refused { blockers() } else { Vec::new() },
        outcome: Some(Outcome { result, problem, report }),
        ..begun.clone()
    }
}

fn report(begun: &Migration, result: MigrationResult, problem: Option<Problem>) -> Report {
    let is_moved = result == MigrationResult::Done && begun.mode == Mode::Live;
    let time = |phase, duration_ms| PhaseTime { phase, duration_ms };
    Report {
        migration: begun.id.clone(),
        guest: begun.guest.clone(),
        guest_uuid: begun.guest_uuid.clone(),
        source: begun.source.clone(),
        target: begun.target.clone(),
        mode: begun.mode,
        result,
        problem,
        caller_uid: 0,
        started_at_ms: begun.started_at_ms,
        total_ms: 11_200,
        pause_ms: is_moved.then_some(84),
        pause: PauseParts {
            last_pages_ms: is_moved.then_some(41),
            device_state_ms: is_moved.then_some(22),
            first_packet_ms: is_moved.then_some(21),
            ..PauseParts::default()
        },
        memory_bytes: 512 << 20,
        transferred_bytes: 600 << 20,
        wire_bytes: 300 << 20,
        round_count: 3,
        carrier: Some("tunnel".into()),
        channel_count: 2,
        pages: None,
        phases: vec![time(Phase::Plan, 120), time(Phase::Prepare, 300)],
        forecast: plan("web1", "beta").forecast,
        bargain: Some(Bargain {
            pause_ms_max: 100,
            deadline_ms: 600_000,
            slowdown_percent_max: 30,
            on_miss: OnMiss::Cancel,
            is_held: false,
        }),
        is_kept: is_moved.then_some(true),
        miss: None,
        throttle_percent_max: 20,
        rehearsed_pause_ms: None,
        reason: None,
        samples: Vec::new(),
    }
}

pub(crate) fn log_line(at_ms: u64, host: &str, text: &str) -> LogLine {
    LogLine {
        at_ms,
        host: host.into(),
        level: Level::Info,
        guest: None,
        guest_uuid: None,
        migration: None,
        code: None,
        caller_uid: None,
        text: text.into(),
    }
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

fn peer(name: &str) -> Peer {
    let is_this_host = name == "alpha";
    let is_reachable = name != "full";
    Peer {
        name: name.into(),
        is_this_host,
        fingerprint: "00".repeat(32),
        fingerprint_words: format!("{name} bird sings at dawn"),
        pair_words: (!is_this_host).then(|| format!("alpha and {name} sing")),
        addresses: vec![match name {
            "alpha" => "192.0.2.1:8002".into(),
            "beta" => "192.0.2.2:8002".into(),
            _ => "[2001:db8::3]:8002".into(),
        }],
        is_reachable,
        problem: (!is_reachable).then(|| "no route to host".into()),
        is_relocation_enabled: is_reachable.then_some(true),
        version: is_reachable.then(|| "0.1.0".into()),
        engine: is_reachable.then(|| "qemu 7.2.22 (tcg)".into()),
        memory_free_bytes: is_reachable.then_some(3 << 30),
        guest_running_count: is_reachable.then_some(1),
        round_trip_us: (!is_this_host && is_reachable).then_some(430),
    }
}

impl Fake {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            asked: Mutex::default(),
            directory: directory.to_owned(),
            hub: Mutex::default(),
            cancelled: Arc::default(),
            is_bare: AtomicBool::new(false),
            has_foreign: AtomicBool::new(false),
        }
    }

    /// Returns the hub of a console whose engine listens on this socket of the lab's directory.
    /// Must be called inside a runtime.
    pub(crate) fn new_hub(&self, socket: &str) -> Hub {
        let hub = Hub::start(HubOptions {
            guest: GuestName::new("web1").unwrap(),
            socket: self.directory.join(socket),
            log: self.directory.join("console.log"),
        });
        *self.hub.lock().unwrap() = Some(hub.clone());
        hub
    }

    fn ask(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }

    fn name(&self, guest: &GuestRef) -> Result<String, Problem> {
        let typed = guest.to_string();
        let known = ["web1", "db", "lost"].into_iter().map(summary);
        let is_meant = |guest: &GuestSummary| {
            let id = guest.id.map(|id| id.to_string());
            guest.name == typed || guest.uuid == typed || id.as_deref() == Some(&typed)
        };
        let found = known.into_iter().find(is_meant).map(|guest| guest.name);
        found.ok_or_else(|| Problem::guest_not_found(&typed))
    }

    fn changed(
        &self,
        what: &str,
        guest: &GuestRef,
        state: GuestState,
    ) -> Result<GuestSummary, Problem> {
        let name = self.name(guest)?;
        self.ask(format!("{what} {name}"));
        Ok(GuestSummary { state, ..summary(&name) })
    }
}

#[async_trait]
impl Backend for Fake {
    async fn host(&self, _: Caller) -> Result<HostInfo, Problem> {
        let mut checks = plan("web1", "beta").findings;
        checks.push(Finding {
            severity: Severity::Warning,
            code: "doctor/no-kvm".into(),
            text: "the processor has no virtualization, so guests run about ten times slower"
                .into(),
            remedy: Some("switch it on in the firmware, if it is there".into()),
        });
        Ok(HostInfo {
            name: "alpha".into(),
            fingerprint: "00".repeat(32),
            fingerprint_words: "alpha bird sings at dawn".into(),
            version: "0.1.0".into(),
            kernel: "6.1.0".into(),
            system: "Debian GNU/Linux 12".into(),
            started_at_ms: 1_213_199_162_000,
            cpu_count: 2,
            cpu_model: "Test CPU".into(),
            cpu_time_ms: 3_995_300,
            memory_total_bytes: 1376 << 20,
            memory_free_bytes: 700 << 20,
            host_min_memory_bytes: 256 << 20,
            memory_promised_bytes: 0,
            guest_count: 3,
            guest_running_count: 2,
            engines: vec![EngineInfo {
                kind: "qemu".into(),
                version: "7.2.22".into(),
                accelerator: "tcg".into(),
                accelerator_reason: "no vmx or svm".into(),
                machine_default: "pc-q35-7.2".into(),
                cpu_model: "qemu64".into(),
            }],
            relocation: self.relocation(Caller { uid: 0 }).await?,
            state_directory: "/var/lib/whimbrel".into(),
            config_file: "/etc/whimbrel/whimbrel.toml".into(),
            checks,
        })
    }

    async fn reload(&self, _: Caller) -> Result<Reloaded, Problem> {
        let text = "the port changed; restart the daemon for it".into();
        Ok(Reloaded { notes: vec![Note { level: NoteLevel::Warning, text }] })
    }

    async fn relocation(&self, _: Caller) -> Result<Relocation, Problem> {
        self.set_relocation(Caller { uid: 0 }, false).await
    }

    async fn set_relocation(&self, _: Caller, is_enabled: bool) -> Result<Relocation, Problem> {
        Ok(Relocation { is_enabled, addresses: Vec::new(), port: 8002, hosts_allow: Vec::new() })
    }

    async fn guests(&self, _: Caller, scope: Scope) -> Result<GuestList, Problem> {
        let mut guests: Vec<_> = ["web1", "db", "lost"].into_iter().map(summary).collect();
        let mut hosts_silent = Vec::new();
        if scope == Scope::AllHosts {
            let mail = GuestSummary { name: "mail".into(), host: "beta".into(), ..summary("web1") };
            let moving_with = Some("alpha".into());
            guests.push(GuestSummary { id: None, moving_with, ..mail });
            let reason = "no route to host".into();
            hosts_silent.push(HostSilent { host: "full".into(), reason });
        }
        if self.has_foreign.load(Ordering::Relaxed) {
            guests.push(foreign::old());
        }
        Ok(GuestList { guests, hosts_silent })
    }

    async fn guest(&self, _: Caller, guest: GuestRef) -> Result<GuestDetail, Problem> {
        self.name(&guest).map(|name| detail(&name))
    }

    async fn create(&self, _: Caller, request: CreateGuest) -> Result<Created, Problem> {
        let CreateGuest { text, format, overrides, is_transient, is_left_stopped, .. } = &request;
        self.ask(format!("create {format:?} {overrides:?} transient={is_transient}"));
        if text.contains("broken") {
            let text = format!("{}:1: unknown key `broken`", request.file_name);
            return Err(Problem::new(Kind::Refused, "file/unknown-key", text, "correct line 1"));
        }
        let note = |level, text: &str| Note { level, text: text.into() };
        let state = if *is_left_stopped { GuestState::Stopped } else { GuestState::Running };
        Ok(Created {
            guest: GuestSummary { state, ..summary("web1") },
            notes: vec![
                note(NoteLevel::Note, "xvda1 becomes vda, and root= follows"),
                note(NoteLevel::Warning, "/etc/fstab in the guest may name xvda2"),
            ],
        })
    }

    async fn edit(
        &self,
        _: Caller,
        guest: GuestRef,
        request: EditGuest,
    ) -> Result<Created, Problem> {
        let name = self.name(&guest)?;
        self.ask(format!("edit {name} {:?}", request.text));
        Ok(Created { guest: summary(&name), notes: Vec::new() })
    }

    async fn remove(&self, _: Caller, guest: GuestRef) -> Result<(), Problem> {
        match self.name(&guest)?.as_str() {
            "web1" => Err(Problem::new(
                Kind::Refused,
                "guest/running",
                "guest `web1` is running, and only a stopped guest can be forgotten",
                "stop it first: `whimbrel stop web1`",
            )),
            _ => Ok(()),
        }
    }

    async fn start(&self, _: Caller, guest: GuestRef) -> Result<GuestSummary, Problem> {
        self.changed("start", &guest, GuestState::Running)
    }

    async fn adopt(&self, _: Caller, guest: GuestRef) -> Result<Created, Problem> {
        foreign::adopt(&guest)
    }

    async fn stop(
        &self,
        _: Caller,
        guest: GuestRef,
        request: StopGuest,
    ) -> Result<GuestSummary, Problem> {
        let how = format!("stop now={} {:?}", request.is_now, request.timeout_ms);
        let name = self.name(&guest)?;
        if name == "lost" {
            let text = "it is not known who owns guest `lost`: `beta` does not answer";
            let remedy = "`whimbrel recover lost` shows what each host knows and what to do";
            return Err(Problem::new(Kind::InDoubt, "ownership/in-doubt", text, remedy));
        }
        if request.timeout_ms.is_some_and(|timeout| timeout < SHUTDOWN_MS) {
            self.ask(format!("{how} {name}"));
            let text = format!("guest `{name}` was asked to shut down and still runs after 0 s");
            return Err(Problem::new(Kind::Failed, "guest/did-not-shut-down", text, "wait"));
        }
        self.changed(&how, &guest, GuestState::Stopped)
    }

    async fn reboot(&self, _: Caller, guest: GuestRef) -> Result<GuestSummary, Problem> {
        self.changed("reboot", &guest, GuestState::Running)
    }

    async fn pause(&self, _: Caller, guest: GuestRef) -> Result<GuestSummary, Problem> {
        self.changed("pause", &guest, GuestState::Paused)
    }

    async fn unpause(&self, _: Caller, guest: GuestRef) -> Result<GuestSummary, Problem> {
        self.changed("unpause", &guest, GuestState::Running)
    }

    async fn console(
        &self,
        caller: Caller,
        guest: GuestRef,
        query: ConsoleQuery,
    ) -> Result<Box<dyn ConsoleStream>, Problem> {
        let name = self.name(&guest)?;
        let hub = self.hub.lock().unwrap().clone();
        let hub = hub.ok_or_else(|| Problem::guest_not_found(&name))?;
        Ok(Box::new(hub.open(caller, query)?))
    }

    async fn plan(
        &self,
        _: Caller,
        guest: GuestRef,
        request: PlanRequest,
    ) -> Result<Plan, Problem> {
        let name = self.name(&guest)?;
        Ok(plan(&name, &request.target))
    }

    async fn migrate(
        &self,
        _: Caller,
        guest: GuestRef,
        request: MigrateRequest,
    ) -> Result<Migration, Problem> {
        let name = self.name(&guest)?;
        let target = &request.target;
        if !["beta", "full", "broken", "slow", "far"].contains(&target.as_str()) {
            return Err(Problem::host_not_found(target));
        }
        let MigrateRequest { is_stop_and_copy, is_held, .. } = request;
        let held = if is_held { " held" } else { "" };
        self.ask(format!("migrate {name} {target} stop_and_copy={is_stop_and_copy}{held}"));
        Ok(migration(&name, target))
    }

    async fn cancel(&self, _: Caller, guest: GuestRef) -> Result<Migration, Problem> {
        let name = self.name(&guest)?;
        self.ask(format!("cancel {name}"));
        self.cancelled.notify_one();
        Ok(migration(&name, if name == "db" { "beta" } else { "slow" }))
    }

    async fn cut_over(&self, _: Caller, guest: GuestRef) -> Result<Migration, Problem> {
        let name = self.name(&guest)?;
        self.ask(format!("cut over {name}"));
        Ok(migration(&name, "beta"))
    }

    async fn migrations(&self, _: Caller) -> Result<MigrationList, Problem> {
        Ok(MigrationList::default())
    }

    async fn migration(&self, _: Caller, id: String) -> Result<Migration, Problem> {
        let (guest, target) = id.split_once('/').expect("an id of this daemon");
        Ok(outcome(&migration(guest, target)))
    }

    async fn report(&self, _: Caller, guest: GuestRef) -> Result<Report, Problem> {
        let begun = migration(
            &self.name(&guest)?,
            if guest.to_string() == "lost" { "broken" } else { "beta" },
        );
        Ok(outcome(&begun).outcome.unwrap().report)
    }

    async fn reports(&self, _: Caller, _: Option<GuestRef>, _: u32) -> Result<ReportList, Problem> {
        let targets = ["beta", "broken"].map(|target| outcome(&migration("web1", target)));
        Ok(ReportList { reports: targets.map(|ended| ended.outcome.unwrap().report).into() })
    }

    async fn recovery(&self, _: Caller, guest: GuestRef) -> Result<Recovery, Problem> {
        let name = self.name(&guest)?;
        let is_in_doubt = name == "lost";
        let text = match is_in_doubt {
            true => format!("`{name}` was moving to `beta`, which may run it now."),
            false => format!("`{name}` runs on `alpha`; nothing is in doubt."),
        };
        let host = |host: &str, is_reachable, text: &str| HostKnowledge {
            host: host.into(),
            is_reachable,
            text: text.into(),
        };
        let choice = Choice {
            command: "whimbrel recover lost --is-off beta".into(),
            consequence: "`lost` starts on `alpha`; if this is false, its disk will be corrupted"
                .into(),
        };
        let hosts = vec![
            host("alpha", true, "gave it up at 15:46:47"),
            host("beta", false, "no route to host"),
        ];
        Ok(Recovery {
            guest: name,
            guest_uuid: LOST.into(),
            is_in_doubt,
            text,
            hosts: if is_in_doubt { hosts } else { Vec::new() },
            choices: if is_in_doubt { vec![choice] } else { Vec::new() },
        })
    }

    async fn recover(
        &self,
        _: Caller,
        guest: GuestRef,
        request: RecoverRequest,
    ) -> Result<Recovered, Problem> {
        let name = self.name(&guest)?;
        match request.is_off {
            Some(host) => {
                let text = format!("`{name}` runs on `alpha`, since `{host}` is off.");
                Ok(Recovered { text, guest: None })
            }
            None => Err(Problem::new(
                Kind::InDoubt,
                "handoff/in-doubt",
                "`beta` may own guest `lost`, and does not answer",
                "bring `beta` back, or choose one of the above",
            )),
        }
    }

    async fn kept_memory(&self, _: Caller) -> Result<KeptMemoryList, Problem> {
        let image = KeptMemory {
            guest: Some("mail".into()),
            guest_uuid: WEB1.into(),
            went_to: Some("beta".into()),
            created_at_ms: 1_213_199_162_000,
            expires_at_ms: 1_213_285_562_000,
            memory_bytes: Some(480 << 20),
            bytes: 150 << 20,
        };
        let damaged = KeptMemory {
            guest: None,
            guest_uuid: DB.into(),
            went_to: None,
            memory_bytes: None,
            bytes: 8,
            ..image.clone()
        };
        let images = match self.is_bare.load(Ordering::Relaxed) {
            true => Vec::new(),
            false => vec![image, damaged],
        };
        Ok(KeptMemoryList {
            is_kept: !self.is_bare.load(Ordering::Relaxed),
            bytes: images.iter().map(|image| image.bytes).sum(),
            budget_bytes: 5 << 30,
            unfinished_bytes: if images.is_empty() { 0 } else { 7 << 20 },
            images,
        })
    }

    async fn drop_kept_memory(
        &self,
        _: Caller,
        guest: Option<GuestRef>,
    ) -> Result<MemoryDropped, Problem> {
        self.ask(format!("drop {}", guest.as_ref().map_or("all".into(), GuestRef::to_string)));
        let image = MemoryDropped { image_count: 1, bytes: 150 << 20, key_count: 0 };
        match guest.as_ref().map(GuestRef::to_string).as_deref() {
            None if self.is_bare.load(Ordering::Relaxed) => Ok(MemoryDropped::default()),
            None => Ok(MemoryDropped { image_count: 2, key_count: 1, ..image }),
            Some("mail") => Ok(image),
            Some("web1") => Ok(MemoryDropped { key_count: 1, ..MemoryDropped::default() }),
            Some(other) => Err(Problem::new(
                Kind::Refused,
                "pages/nothing-kept",
                format!("no memory of `{other}` is kept here"),
                "see what is kept: `whimbrel pages list`",
            )),
        }
    }

    async fn log(&self, _: Caller, query: LogQuery) -> Result<LogPage, Problem> {
        self.ask(format!("log {:?} {:?}", query.guest, query.limit));
        let moved = LogLine {
            guest: Some("web1".into()),
            ..log_line(1_213_199_207_000, "beta", "runs here now")
        };
        let failed = LogLine {
            level: Level::Error,
            code: Some("disk/full".into()),
            ..log_line(1_213_199_208_500, "alpha", "a report was not kept")
        };
        let hosts_silent =
            vec![HostSilent { host: "full".into(), reason: "no route to host".into() }];
        Ok(LogPage { lines: vec![moved, failed], hosts_silent })
    }

    async fn follow_log(&self, caller: Caller, query: LogQuery) -> Result<EventStream, Problem> {
        let lines = self.log(caller, query).await?.lines;
        Ok(futures::stream::iter(lines.into_iter().map(Event::Log)).boxed())
    }

    async fn events(&self, _: Caller, query: EventQuery) -> Result<EventStream, Problem> {
        if let Some(id) = query.migration {
            let (guest, target) = id.split_once('/').expect("an id of this daemon");
            let begun = migration(guest, target);
            let ended = outcome(&begun);
            let cancelled = self.cancelled.clone();
            let is_slow = target == "slow";
            let last = futures::stream::once(async move {
                if is_slow {
                    cancelled.notified().await;
                }
                Event::Migration(Box::new(ended))
            });
            let first = futures::stream::iter([Event::Migration(Box::new(begun))]);
            return Ok(first.chain(last).boxed());
        }
        let memory = Migration { phase: Phase::Memory, ..migration("web1", "beta") };
        let moves = [memory.clone(), memory, outcome(&migration("web1", "beta"))];
        let moves = moves.map(|migration| Event::Migration(Box::new(migration)));
        let events = [Event::Guest(summary("web1")), Event::Paired(peer("beta"))];
        Ok(futures::stream::iter(events.into_iter().chain(moves)).boxed())
    }

    async fn hosts(&self, _: Caller) -> Result<PeerList, Problem> {
        Ok(PeerList { hosts: ["alpha", "beta", "full"].map(peer).into() })
    }

    async fn baseline(&self, _: Caller) -> Result<Baseline, Problem> {
        Ok(Baseline {
            hosts: vec!["alpha".into(), "beta".into()],
            cpu_model: Some("Westmere-v1".into()),
            machine: Some("pc-q35-7.2".into()),
            features: vec!["sse2".into(), "ssse3".into()],
            beyond: vec![Beyond { host: "alpha".into(), features: vec!["avx2".into()] }],
            differ: None,
            hosts_silent: Vec::new(),
        })
    }

    async fn invite(&self, _: Caller, _: InviteRequest) -> Result<Invitation, Problem> {
        Ok(Invitation {
            token: "whimbrel1-SECRET".into(),
            expires_at_ms: now_ms() + 600_000,
            addresses: vec!["192.0.2.1:8002".into()],
            fingerprint_words: "alpha bird sings at dawn".into(),
        })
    }

    async fn close_invitation(&self, _: Caller) -> Result<(), Problem> {
        Ok(())
    }

    async fn join(&self, _: Caller, request: JoinRequest) -> Result<Peer, Problem> {
        self.ask(format!("join {}", request.token));
        Ok(peer("beta"))
    }

    async fn forget(&self, _: Caller, host: String) -> Result<(), Problem> {
        if host == "beta" { Ok(()) } else { Err(Problem::host_not_found(&host)) }
    }
}
