// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a carrying process is told when it starts: `carry.json`.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use whimbrel_model::id::{HandoffId, HostId};

pub(super) const CONFIG_FILE: &str = "carry.json";
const VERSION: u32 = 3;

/// What to carry, between whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub handoff: HandoffId,
    /// The directory of this host's identity.
    pub identity: PathBuf,
    /// The host at the other end; nobody else is spoken to.
    pub peer: HostId,
    pub side: Side,
    /// Where the engine's channels meet this process.
    pub engine: Meet,
    /// How many channels there will be.
    pub connections: u32,
    /// Bytes a second of all channels together; none: no limit.
    pub bandwidth: Option<u64>,
    pub way: Way,
    /// Of the source: the engine has lost its channels before, and is to be given one only when
    /// that leads to the other engine.
    pub is_again: bool,
}

/// How the engine's bytes travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Untouched.
    Tunnel,
    /// One channel, looked into for the guest's pages.
    Pages(Pages),
}

/// A stream of pages travels over no more connections than this.
pub const PAGES_CONNECTIONS_MAX: u32 = 8;

/// What a stream of pages may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    /// The guest's folder in the page store of this host.
    pub folder: PathBuf,
    /// Of the source: bytes that an image of the guest's memory may take here. Of the target: any
    /// number says that it may note what the source keeps. None: nothing is kept.
    pub image_bytes_max: Option<u64>,
    /// Whether what is known of an earlier visit is used.
    pub is_reused: bool,
    /// Of the source: bytes a second the link carries, if that was measured.
    pub link_bytes_per_s: Option<u64>,
    /// Of the source: over how many connections the stream travels, at most
    /// [`PAGES_CONNECTIONS_MAX`].
    pub connections: u32,
    /// The guest's disks, where pages that lie on them may travel as references.
    pub disks: Option<Disks>,
    /// Whether a lost link is waited for as long as it takes, and not for two minutes: nobody can
    /// do without what it carries.
    pub is_patient: bool,
    /// Whether the engine has another channel, for the pages that its guest waits for. It may
    /// connect it when it likes, or not at all.
    pub has_urgent_channel: bool,
}

/// Raw disks that both hosts read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disks {
    /// In the guest's order.
    pub paths: Vec<PathBuf>,
    /// Of the source: the index of their blocks.
    pub index: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// Connects to the peer, at the first of these addresses that answers.
    Source { addresses: Vec<SocketAddr> },
    /// Is given connections by its daemon.
    Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meet {
    /// The engine listens here.
    Connect(PathBuf),
    /// The engine connects here. The socket is made by the carrying process and given to this
    /// user and group, where it should not be its own.
    Listen { path: PathBuf, owner: Option<(u32, u32)> },
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("failed to {action} `{}`", .path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{}` is not what this program wrote", .path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{}` was written by another release (version {version})", .path.display())]
    Version { path: PathBuf, version: u32 },
}

impl Config {
    pub(super) fn save(&self, directory: &Path) -> Result<(), ConfigError> {
        let path = directory.join(CONFIG_FILE);
        let text = serde_json::to_vec_pretty(&Raw::from(self)).expect("these types are JSON");
        std::fs::write(&path, text).map_err(|source| ConfigError::File {
            action: "write",
            path,
            source,
        })
    }

    /// Reads what was written when the carrying process of `directory` was started.
    pub fn load(directory: &Path) -> Result<Self, ConfigError> {
        let path = directory.join(CONFIG_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::File { action: "read", path, source }),
        };
        match serde_json::from_slice::<Raw>(&text) {
            Ok(raw) if raw.version == VERSION => Ok(raw.into()),
            Ok(raw) => Err(ConfigError::Version { path, version: raw.version }),
            Err(source) => Err(ConfigError::Malformed { path, source }),
        }
    }
}

/// The file's own type.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u32,
    handoff: uuid::Uuid,
    identity: PathBuf,
    peer: [u8; 32],
    side: RawSide,
    engine: RawMeet,
    connections: u32,
    bandwidth: Option<u64>,
    pages: Option<RawPages>,
    #[serde(default)]
    is_again: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPages {
    folder: PathBuf,
    image_bytes_max: Option<u64>,
    is_reused: bool,
    link_bytes_per_s: Option<u64>,
    #[serde(default = "one")]
    connections: u32,
    disks: Option<Disks>,
    #[serde(default)]
    is_patient: bool,
    #[serde(default)]
    has_urgent_channel: bool,
}

/// What releases did that did not write how many.
fn one() -> u32 {
    1
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawSide {
    Source { addresses: Vec<SocketAddr> },
    Target,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawMeet {
    Connect { path: PathBuf },
    Listen { path: PathBuf, owner: Option<(u32, u32)> },
}

impl From<&Config> for Raw {
    fn from(config: &Config) -> Self {
        Raw {
            version: VERSION,
            handoff: config.handoff.0,
            identity: config.identity.clone(),
            peer: config.peer.0,
            side: match &config.side {
                Side::Source { addresses } => RawSide::Source { addresses: addresses.clone() },
                Side::Target => RawSide::Target,
            },
            engine: match &config.engine {
                Meet::Connect(path) => RawMeet::Connect { path: path.clone() },
                Meet::Listen { path, owner } => {
                    RawMeet::Listen { path: path.clone(), owner: *owner }
                }
            },
            connections: config.connections,
            bandwidth: config.bandwidth,
            is_again: config.is_again,
            pages: match &config.way {
                Way::Tunnel => None,
                Way::Pages(pages) => Some(RawPages {
                    folder: pages.folder.clone(),
                    image_bytes_max: pages.image_bytes_max,
                    is_reused: pages.is_reused,
                    link_bytes_per_s: pages.link_bytes_per_s,
                    connections: pages.connections,
                    disks: pages.disks.clone(),
                    is_patient: pages.is_patient,
                    has_urgent_channel: pages.has_urgent_channel,
                }),
            },
        }
    }
}

impl From<Raw> for Config {
    fn from(raw: Raw) -> Self {
        Config {
            handoff: HandoffId(raw.handoff),
            identity: raw.identity,
            peer: HostId(raw.peer),
            side: match raw.side {
                RawSide::Source { addresses } => Side::Source { addresses },
                RawSide::Target => Side::Target,
            },
            engine: match raw.engine {
                RawMeet::Connect { path } => Meet::Connect(path),
                RawMeet::Listen { path, owner } => Meet::Listen { path, owner },
            },
            connections: raw.connections,
            bandwidth: raw.bandwidth,
            is_again: raw.is_again,
            way: match raw.pages {
                None => Way::Tunnel,
                Some(pages) => Way::Pages(Pages {
                    folder: pages.folder,
                    image_bytes_max: pages.image_bytes_max,
                    is_reused: pages.is_reused,
                    link_bytes_per_s: pages.link_bytes_per_s,
                    connections: pages.connections,
                    disks: pages.disks,
                    is_patient: pages.is_patient,
                    has_urgent_channel: pages.has_urgent_channel,
                }),
            },
        }
    }
}
