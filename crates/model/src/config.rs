// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The daemon's configuration, `whimbrel.toml`.

pub mod allow;
pub mod sxp;

use crate::id::HostName;
use crate::passport::Accelerator;
use crate::plan::Bargain;
use crate::text_file::{Fault, FileError, TextFile};
use crate::units::Bytes;
use allow::{AllowedHosts, Network};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// The port of the seed, and ours.
pub const PORT_DEFAULT: u16 = 8002;
/// Where the file is looked for.
pub const PATH_DEFAULT: &str = "/etc/whimbrel/whimbrel.toml";

/// Everything that can be configured, with its default where the file is silent.
#[derive(Clone, Debug)]
pub struct Config {
    /// None: the machine's own host name.
    pub name: Option<HostName>,
    pub state_dir: PathBuf,
    /// What the host keeps for itself when guests arrive.
    pub host_min_memory: Bytes,
    pub api: Api,
    pub engine: Engine,
    pub relocation: Relocation,
    pub bargain: Bargain,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// None: `api.sock` in the state directory.
    pub socket: Option<PathBuf>,
    /// The group that may use the socket besides root; ignored where it does not exist.
    pub group: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// The unprivileged user the engine runs as.
    pub user: String,
    /// None: looked for in `PATH`.
    pub qemu: Option<PathBuf>,
    /// None: KVM where it really works, else TCG.
    pub accelerator: Option<Accelerator>,
}

/// Whether guests may come from other hosts, from which, and what they may bring.
#[derive(Clone, Debug)]
pub struct Relocation {
    pub is_enabled: bool,
    pub address: IpAddr,
    pub port: u16,
    pub hosts_allow: AllowedHosts,
    /// Folders (absolute) and `nfs://` prefixes; disks of an arriving guest must lie in one.
    pub allow_paths: Vec<String>,
    /// Bridges an arriving guest may join.
    pub allow_bridges: Vec<String>,
    /// Bytes a second, for all migrations of this host together; none: as much as fits.
    pub bandwidth: Option<Bytes>,
    /// Peers are reached through this network where they have an address in it.
    pub network: Option<Network>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            state_dir: PathBuf::from("/var/lib/whimbrel"),
            host_min_memory: Bytes::mib(256),
            api: Api { socket: None, group: "whimbrel".to_owned() },
            engine: Engine { user: "whimbrel".to_owned(), qemu: None, accelerator: None },
            relocation: Relocation {
                is_enabled: false,
                address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                port: PORT_DEFAULT,
                hosts_allow: AllowedHosts::any(),
                allow_paths: Vec::new(),
                allow_bridges: Vec::new(),
                bandwidth: None,
                network: None,
            },
            bargain: Bargain::default(),
        }
    }
}

/// Reads `whimbrel.toml`.
pub fn parse(file: &TextFile<'_>) -> Result<Config, FileError> {
    let text = "not built yet".to_owned();
    Err(FileError::whole(file, Fault::Syntax { text }))
}

/// Returns the file with `[relocation] enabled` set, its comments and order kept.
pub fn with_relocation(file: &TextFile<'_>, is_enabled: bool) -> Result<String, FileError> {
    let text = format!("not built yet ({is_enabled})");
    Err(FileError::whole(file, Fault::Syntax { text }))
}

/// Returns the reference page of the format, `docs/reference/configuration.md`.
pub fn reference() -> String {
    String::new()
}
