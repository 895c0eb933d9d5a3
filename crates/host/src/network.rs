// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Bridges and taps of the network namespace the daemon runs in.
//!
//! A tap is not persistent: it lives as long as somebody holds its descriptor. The daemon opens
//! it, hands it to the engine and closes its own copy; so the tap outlives the daemon, however
//! that ends, and vanishes with the engine, however *that* ends. Joining a bridge is a step of its
//! own, because a guest that arrives joins only when this host owns it.

mod names;
pub mod segment;

use futures::TryStreamExt;
use nix::libc;
use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{Handle, LinkUnspec};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use tokio::sync::Mutex;
use whimbrel_model::problem::{Kind, Remedy};

pub use names::TapName;

const TUN_DEVICE: &str = "/dev/net/tun";
/// The largest hardware address that is not a broadcast: a bridge takes the smallest of its ports.
const PORT_ADDRESS: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];

/// A handle to the network of this namespace.
#[derive(Clone, Debug)]
pub struct Network {
    handle: Handle,
    /// The kernel lists for one at a time on a socket, and tells others that it is busy.
    listing: Arc<Mutex<()>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    pub name: String,
    pub index: u32,
    pub mtu: u32,
    pub is_up: bool,
    /// With the spanning tree protocol on, a new port is deaf for twice the forward delay.
    pub has_stp: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("there is no bridge `{bridge}` on this host, which has {}", list(.found))]
    NoBridge { bridge: String, found: Vec<String> },
    #[error("there is no link `{link}`")]
    NoLink { link: String },
    #[error("the link `{link}` exists already, and belongs to another program")]
    Taken { link: String },
    #[error("failed to open `{TUN_DEVICE}`")]
    NoTun {
        #[source]
        source: io::Error,
    },
    #[error("not permitted to {action} `{link}`")]
    NotPermitted { action: &'static str, link: String },
    #[error("the kernel refused to {action} `{link}`")]
    Refused {
        action: &'static str,
        link: String,
        #[source]
        source: io::Error,
    },
}

fn list(bridges: &[String]) -> String {
    match bridges {
        [] => "none".to_owned(),
        bridges => format!("`{}`", bridges.join("`, `")),
    }
}

impl Remedy for NetworkError {
    fn code(&self) -> &'static str {
        match self {
            NetworkError::NoBridge { .. } => "network/no-bridge",
            NetworkError::NoLink { .. } => "network/no-link",
            NetworkError::Taken { .. } => "network/tap-taken",
            NetworkError::NoTun { .. } => "network/no-tun",
            NetworkError::NotPermitted { .. } => "network/not-permitted",
            NetworkError::Refused { .. } => "network/refused",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            NetworkError::NoBridge { .. }
            | NetworkError::Taken { .. }
            | NetworkError::NoTun { .. }
            | NetworkError::NotPermitted { .. } => Kind::Refused,
            NetworkError::NoLink { .. } | NetworkError::Refused { .. } => Kind::Failed,
        }
    }

    fn remedy(&self) -> String {
        match self {
            NetworkError::NoBridge { bridge, .. } => format!(
                "create it with `ip link add {bridge} type bridge`, or name another bridge in the \
                 guest file"
            ),
            NetworkError::NoLink { link } | NetworkError::Refused { link, .. } => {
                format!("look at `ip -details link show {link}`")
            }
            NetworkError::Taken { link } => format!(
                "if nothing needs it, delete it with `ip link delete {link}`; daemons that share \
                 a network namespace need one each"
            ),
            NetworkError::NoTun { .. } => "load the driver with `modprobe tun`".into(),
            NetworkError::NotPermitted { .. } => {
                "run the daemon as root or with CAP_NET_ADMIN, or use a `user` network".into()
            }
        }
    }
}

impl Network {
    /// Opens the network of the calling thread's namespace. Needs a tokio runtime.
    pub fn open() -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| {
            NetworkError::Refused { action: "open", link: "netlink".into(), source }
        })?;
        tokio::spawn(connection);
        Ok(Self { handle, listing: Arc::default() })
    }

    /// Returns the bridges of this host, by name.
    pub async fn bridges(&self) -> Result<Vec<Bridge>, NetworkError> {
        let links = self.links().await?;
        let mut bridges: Vec<_> = links.iter().filter_map(as_bridge).collect();
        bridges.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(bridges)
    }

    pub async fn bridge(&self, name: &str) -> Result<Bridge, NetworkError> {
        let bridges = self.bridges().await?;
        let found = bridges.iter().find(|bridge| bridge.name == name).cloned();
        found.ok_or_else(|| NetworkError::NoBridge {
            bridge: name.to_owned(),
            found: bridges.into_iter().map(|bridge| bridge.name).collect(),
        })
    }

    /// Creates a tap with the MTU of `bridge`, up, and joined to nothing yet. It is gone when the
    /// last copy of its descriptor is closed.
    pub async fn create_tap(&self, name: TapName, bridge: &str) -> Result<OwnedFd, NetworkError> {
        let mtu = self.bridge(bridge).await?.mtu;
        let tap = open_tap(&name.to_string())?;
        let name = name.to_string();
        leave_without_addresses(&name);
        let link = self.index(&name).await?;
        let message = LinkUnspec::new_with_index(link).mtu(mtu).up().build();
        self.change("set up", &name, message).await?;
        Ok(tap)
    }

    /// Joins a tap to a bridge. Joined already: fine.
    pub async fn attach(&self, name: TapName, bridge: &str) -> Result<(), NetworkError> {
        let (bridge, name) = (self.bridge(bridge).await?, name.to_string());
        let tap = LinkUnspec::new_with_index(self.index(&name).await?);
        let message = tap.mtu(bridge.mtu).controller(bridge.index).up().build();
        self.change("attach", &name, message).await
    }

    /// Takes a tap off its bridge. Gone, or on none: fine.
    pub async fn detach(&self, name: TapName) -> Result<(), NetworkError> {
        let name = name.to_string();
        let index = match self.index(&name).await {
            Err(NetworkError::NoLink { .. }) => return Ok(()),
            index => index?,
        };
        let message = LinkUnspec::new_with_index(index).nocontroller().build();
        match self.change("detach", &name, message).await {
            Err(NetworkError::NoLink { .. }) => Ok(()),
            detached => detached,
        }
    }

    /// Joins a link that another program has made to a bridge, with the address that keeps it from
    /// ever speaking for the bridge, and returns its MTU: the one given, or the bridge's.
    pub async fn join(
        &self,
        link: &str,
        bridge: &str,
        mtu: Option<u32>,
    ) -> Result<u32, NetworkError> {
        leave_without_addresses(link);
        let index = self.index(link).await?;
        let bridge = self.bridge(bridge).await?;
        let mtu = mtu.unwrap_or(bridge.mtu);
        let message = LinkUnspec::new_with_index(index).address(PORT_ADDRESS.to_vec());
        let message = message.mtu(mtu).controller(bridge.index).up().build();
        self.change("attach", link, message).await?;
        Ok(mtu)
    }

    /// Takes such a link down and off its bridge. Gone, or on none: fine.
    pub async fn leave(&self, link: &str) -> Result<(), NetworkError> {
        let index = match self.index(link).await {
            Err(NetworkError::NoLink { .. }) => return Ok(()),
            index => index?,
        };
        let message = LinkUnspec::new_with_index(index).nocontroller().down().build();
        match self.change("detach", link, message).await {
            Err(NetworkError::NoLink { .. }) => Ok(()),
            left => left,
        }
    }

    /// Returns the taps that carry our names.
    pub async fn taps(&self) -> Result<Vec<TapName>, NetworkError> {
        let links = self.links().await?;
        let taps = links.iter().filter(|link| kind(link) == Some(&InfoKind::Tun));
        let mut taps: Vec<TapName> = taps.filter_map(|tap| link_name(tap)?.parse().ok()).collect();
        taps.sort();
        Ok(taps)
    }

    /// Returns the bridge that a tap is on.
    pub async fn bridge_of(&self, name: TapName) -> Result<Option<String>, NetworkError> {
        let links = self.links().await?;
        let text = name.to_string();
        let Some(tap) = links.iter().find(|link| link_name(link) == Some(&text)) else {
            return Err(NetworkError::NoLink { link: text });
        };
        let controller = tap.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        });
        let bridges = links.iter().filter_map(as_bridge);
        Ok(bridges.into_iter().find(|b| Some(b.index) == controller).map(|bridge| bridge.name))
    }

    /// Returns how many packets have come out of a tap: what its guest has sent.
    pub async fn packets_from(&self, name: TapName) -> Result<u64, NetworkError> {
        let name = name.to_string();
        let found = self.handle.link().get().match_name(&name).execute().try_next().await;
        let link = found.map_err(|error| refused("look at", &name, error))?;
        let Some(link) = link else { return Err(NetworkError::NoLink { link: name }) };
        let packets = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(counted) => Some(counted.rx_packets),
            _ => None,
        });
        Ok(packets.unwrap_or_default())
    }

    /// Deletes a tap that was left over. Gone already: fine.
    pub async fn delete(&self, name: TapName) -> Result<(), NetworkError> {
        let name = name.to_string();
        let index = match self.index(&name).await {
            Err(NetworkError::NoLink { .. }) => return Ok(()),
            index => index?,
        };
        match self.handle.link().del(index).execute().await {
            Err(error) => match refused("delete", &name, error) {
                NetworkError::NoLink { .. } => Ok(()),
                error => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    async fn links(&self) -> Result<Vec<LinkMessage>, NetworkError> {
        let _alone = self.listing.lock().await;
        let links = self.handle.link().get().execute().try_collect().await;
        links.map_err(|error| refused("list", "all links", error))
    }

    async fn index(&self, name: &str) -> Result<u32, NetworkError> {
        let found = self.handle.link().get().match_name(name).execute().try_next().await;
        match found.map_err(|error| refused("look at", name, error))? {
            Some(link) => Ok(link.header.index),
            None => Err(NetworkError::NoLink { link: name.to_owned() }),
        }
    }

    async fn change(
        &self,
        action: &'static str,
        name: &str,
        message: LinkMessage,
    ) -> Result<(), NetworkError> {
        let done = self.handle.link().change(message).execute().await;
        done.map_err(|error| refused(action, name, error))
    }
}

fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn link_info(link: &LinkMessage) -> &[LinkInfo] {
    let info = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => Some(info.as_slice()),
        _ => None,
    });
    info.unwrap_or_default()
}

fn kind(link: &LinkMessage) -> Option<&InfoKind> {
    link_info(link).iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

fn as_bridge(link: &LinkMessage) -> Option<Bridge> {
    if kind(link) != Some(&InfoKind::Bridge) {
        return None;
    }
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })?;
    let has_stp = link_info(link).iter().any(|info| {
        match info {
        LinkInfo::Data(InfoData::Bridge(data)) => data.iter().any(|datum| {
            matches!(datum, InfoBridge::StpState(state) if *state != BridgeStpState::Disabled)
        }),
        _ => false,
    }
    });
    Some(Bridge {
        name: link_name(link)?.to_owned(),
        index: link.header.index,
        mtu,
        is_up: link.header.flags.contains(LinkFlags::Up),
        has_stp,
    })
}

fn open_tap(name: &str) -> Result<OwnedFd, NetworkError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN_DEVICE)
        .map_err(|source| NetworkError::NoTun { source })?;
    // The engine wants checksums and large packets to pass unsplit (`IFF_VNET_HDR`); an existing
    // tap of this name is somebody else's (`IFF_TUN_EXCL`).
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    match crate::sys::set_tap(file.as_raw_fd(), name, flags) {
        Ok(()) => Ok(file.into()),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::EBUSY) => NetworkError::Taken { link: name.to_owned() },
            _ => refused_io("create", name, error),
        }),
    }
}

/// Keeps this host from talking to the guest through its tap before it is on a bridge: without an
/// address of its own, the kernel sends nothing there. Best effort: harmless where it fails.
fn leave_without_addresses(name: &str) {
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
}

fn refused(action: &'static str, link: &str, error: rtnetlink::Error) -> NetworkError {
    let source = match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    };
    refused_io(action, link, source)
}

fn refused_io(action: &'static str, link: &str, source: io::Error) -> NetworkError {
    let link = link.to_owned();
    match source.raw_os_error() {
        Some(libc::ENODEV) => NetworkError::NoLink { link },
        Some(libc::EPERM | libc::EACCES) => NetworkError::NotPermitted { action, link },
        _ => NetworkError::Refused { action, link, source },
    }
}

#[cfg(test)]
mod tests;
