// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What all tasks of the daemon share, and how it starts.

use crate::error::StartError;
use crate::guests::Registry;
use crate::memory::Memory;
use crate::peers::Peers;
use crate::story::Story;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::sync::mpsc;
use whimbrel_api::Problem;
use whimbrel_engine::qemu::{Qemu, QemuConfig};
use whimbrel_engine::xen::Xen;
use whimbrel_engine::{Engine, RunAs};
use whimbrel_handoff::record::{BootId, Identity as GuestIdentity};
use whimbrel_host::dirs::{Layout, StateDir, UserIds};
use whimbrel_host::machine;
use whimbrel_host::network::Network;
use whimbrel_host::process;
use whimbrel_host::store::Store;
use whimbrel_link::identity::Identity;
use whimbrel_link::listener::Arrival;
use whimbrel_model::config::{self, Config};
use whimbrel_model::facts::UserFacts;
use whimbrel_model::id::{GuestId, HostId, HostName};
use whimbrel_model::passport::EngineKind;
use whimbrel_model::text_file::TextFile;
use whimbrel_page_store::PageStore;
use whimbrel_page_store::policy::Policy;

/// One daemon on one host.
pub(crate) struct Daemon {
    pub(crate) name: HostName,
    pub(crate) identity: Arc<Identity>,
    pub(crate) config_file: ConfigFile,
    config: Mutex<Arc<Config>>,
    state: StateDir,
    boot: BootId,
    pub(crate) store: Store,
    pub(crate) story: Story,
    pub(crate) engine: Arc<dyn Engine>,
    engine_user: Option<RunAs>,
    pub(crate) network: Network,
    pub(crate) memory: Memory,
    /// Held while an engine is started for a proof.
    pub(crate) proving: tokio::sync::Mutex<()>,
    pub(crate) pages: PageStore,
    pub(crate) guests: Registry,
    pub(crate) peers: Arc<Peers>,
    pub(crate) started_at: SystemTime,
    /// The host was booted since a daemon last ran on it.
    is_new_boot: AtomicBool,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Where the configuration is.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    /// Somebody has named it, so it must be there; otherwise a missing one is an empty one.
    pub(crate) is_required: bool,
}

impl ConfigFile {
    pub(crate) fn read(&self) -> Result<Config, Problem> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && !self.is_required => String::new(),
            Err(source) => {
                let path = self.path.clone();
                return Err(Problem::of(&StartError::Config { path, source }));
            }
        };
        let name = self.path.display().to_string();
        let file = TextFile { name: &name, text: &text, base: self.path.parent() };
        config::parse(&file).map_err(|error| Problem::of(&error))
    }
}

/// The setting that keeps `relocation enable` over restarts.
const RELOCATION_SETTING: &str = "relocation.enabled";

impl Daemon {
    /// Reads the configuration, takes the state directory, loads what is known. Opens no port.
    pub(crate) async fn start(
        file: &ConfigFile,
    ) -> Result<(Self, mpsc::Receiver<Arrival>), Problem> {
        let config = file.read()?;
        let name = host_name(&config)?;
        let boot = machine::boot_id();
        let boot = boot.map_err(|source| Problem::of(&StartError::Boot { source }))?;
        let state = StateDir::open(&config.state_dir).map_err(|error| Problem::of(&error))?;
        let layout = state.layout().clone();
        let identity = Identity::load_or_create(&layout.identity());
        let identity = Arc::new(identity.map_err(|error| Problem::of(&error))?);
        let store = Store::open(&layout.store()).map_err(|error| Problem::of(&error))?;
        let (peers, arrivals) =
            Peers::load(name.clone(), identity.clone(), store.clone(), &config.relocation).await?;
        let daemon = Self {
            story: Story::new(store.clone(), name.clone()),
            name,
            identity,
            config_file: file.clone(),
            engine_user: engine_user(&config)?,
            boot: BootId(boot),
            engine: stoppable(engine(&config)),
            network: Network::open().map_err(|error| Problem::of(&error))?,
            memory: Memory::new(config.host_min_memory),
            proving: tokio::sync::Mutex::default(),
            pages: PageStore::new(layout.pages()),
            config: Mutex::new(Arc::new(config)),
            guests: Registry::default(),
            peers: Arc::new(peers),
            started_at: SystemTime::now(),
            is_new_boot: AtomicBool::new(false),
            state,
            store,
        };
        Ok((daemon, arrivals))
    }

    /// Opens or closes the port as configured, or as said since.
    pub(crate) async fn open_port(&self) -> Result<(), Problem> {
        let relocation = self.config().relocation.clone();
        let said = self.relocation_said().await?;
        self.peers.open(&relocation, said.unwrap_or(relocation.is_enabled)).await
    }

    /// What `whimbrel relocation` said last; it stands above the configuration.
    pub(crate) async fn relocation_said(&self) -> Result<Option<bool>, Problem> {
        let said = self.store.call(|tables| tables.setting(RELOCATION_SETTING)).await;
        let said = said.map_err(|error| Problem::of(&error))?;
        Ok(said.map(|said| said == "yes"))
    }

    /// Opens or closes the port, now and after every restart.
    pub(crate) async fn set_relocation(&self, is_enabled: bool) -> Result<(), Problem> {
        self.peers.open(&self.config().relocation.clone(), is_enabled).await?;
        let word = if is_enabled { "yes" } else { "no" };
        let put = self.store.call(move |tables| tables.put_setting(RELOCATION_SETTING, word));
        put.await.map_err(|error| Problem::of(&error))
    }

    pub(crate) fn api_socket(&self) -> PathBuf {
        let configured = self.config().api.socket.clone();
        configured.unwrap_or_else(|| self.layout().api_socket())
    }

    pub(crate) fn boot(&self) -> BootId {
        self.boot
    }

    pub(crate) fn set_new_boot(&self, is_new: bool) {
        self.is_new_boot.store(is_new, Ordering::Relaxed);
    }

    /// Whether the host was booted since a daemon last ran on it.
    pub(crate) fn is_new_boot(&self) -> bool {
        self.is_new_boot.load(Ordering::Relaxed)
    }

    /// The engine, for people: `QEMU 7.2.22 (tcg)`.
    pub(crate) async fn engine_in_words(&self) -> Option<String> {
        let engine = self.engine.facts().await.ok()?;
        let accelerator = crate::backend::accelerator_name(engine.accelerator);
        Some(format!("QEMU {} ({accelerator})", engine.version))
    }

    /// The configuration in force just now.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.lock().expect("nothing panics while it holds the configuration").clone()
    }

    pub(crate) fn set_config(&self, config: Config) {
        *self.config.lock().expect("nothing panics while it holds the configuration") =
            Arc::new(config);
    }

    /// How much memory of guests that left is kept, and for how long.
    pub(crate) fn pages_policy(&self) -> Policy {
        Policy::of(&self.config().pages)
    }

    pub(crate) fn layout(&self) -> &Layout {
        self.state.layout()
    }

    pub(crate) fn host_id(&self) -> HostId {
        self.identity.id()
    }

    /// Whose ownership a guest's file on this host speaks of.
    pub(crate) fn guest_identity(&self, guest: GuestId) -> GuestIdentity {
        GuestIdentity { guest, host: self.host_id() }
    }

    /// The unprivileged user the engine runs as; none where the daemon is not root itself.
    pub(crate) fn run_as(&self) -> Option<RunAs> {
        self.engine_user
    }

    pub(crate) fn engine_ids(&self) -> Option<UserIds> {
        self.engine_user.map(|RunAs { uid, gid }| UserIds { uid, gid })
    }

    /// Who a socket must belong to for an engine to use it.
    pub(crate) fn engine_owner(&self) -> Option<(u32, u32)> {
        self.engine_user.map(|RunAs { uid, gid }| (uid, gid))
    }

    /// The user engines run as, for the plan.
    pub(crate) fn engine_user_facts(&self) -> UserFacts {
        let own = process::own_user();
        match self.engine_user {
            Some(RunAs { uid, gid }) => {
                UserFacts { name: self.config().engine.user.clone(), uid, gid }
            }
            None => UserFacts { name: own.name, uid: own.uid, gid: own.gid },
        }
    }
}

/// Whether the engine that is named, or else the one that this host runs on, is Xen.
fn is_xen(config: &Config) -> bool {
    config.engine.kind.map_or_else(Xen::is_here, |kind| kind == EngineKind::Xen)
}

fn engine(config: &Config) -> Arc<dyn Engine> {
    if is_xen(config) {
        return Arc::new(Xen::new(config.engine.plugs_in_on_xen));
    }
    Arc::new(Qemu::new(QemuConfig {
        binary: config.engine.qemu.clone().unwrap_or_else(|| QemuConfig::default().binary),
        data_dir: config.engine.qemu_data.clone(),
        accelerator: config.engine.accelerator,
    }))
}

/// The engine as it is.
#[cfg(not(feature = "fault-points"))]
fn stoppable(engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
    engine
}

/// The engine, its every call a fault point.
#[cfg(feature = "fault-points")]
fn stoppable(engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
    Arc::new(crate::faults::Stoppable(engine))
}

fn host_name(config: &Config) -> Result<HostName, Problem> {
    if let Some(name) = &config.name {
        return Ok(name.clone());
    }
    let name = machine::host_name();
    HostName::new(&name).map_err(|source| Problem::of(&StartError::HostName { name, source }))
}

/// The unprivileged user of engines; only root can become somebody else.
fn engine_user(config: &Config) -> Result<Option<RunAs>, Problem> {
    // A domain is no process, so it has no user.
    if process::own_user().uid != 0 || is_xen(config) {
        return Ok(None);
    }
    let found = process::user(&config.engine.user).map_err(|error| Problem::of(&error))?;
    Ok(Some(RunAs { uid: found.uid, gid: found.gid }))
}
