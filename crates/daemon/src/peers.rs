// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The hosts this one is paired with: who they are, where they are, who may come in.
//!
//! Pairs are kept in the store and, for the handshakes, in memory. A host that was forgotten stays
//! written down as forgotten, so that its next knock is refused by name.

mod pairing;

use crate::migrate::Target;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, mpsc, watch};
use whimbrel_api::Problem;
use whimbrel_host::store::{PeerRow, Store};
use whimbrel_link::conn::{ConnectError, Connection, Dialer, PeerAddress};
use whimbrel_link::identity::Identity;
use whimbrel_link::listener::{Arrival, Doors, Limits, Listener};
use whimbrel_link::pairing::OpenInvitation;
use whimbrel_link::tls::{Pins, Standing};
use whimbrel_link::wire::Hello;
use whimbrel_model::config::Relocation;
use whimbrel_model::config::allow::{AllowedHosts, Network};
use whimbrel_model::id::{HostId, HostName};

/// How long a paired host may take to answer a call.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The paired hosts, and the port they come through.
#[derive(Debug)]
pub(crate) struct Peers {
    name: HostName,
    identity: Arc<Identity>,
    store: Store,
    dialer: Dialer,
    listener: Listener,
    pins: Arc<PinBoard>,
    /// Where the port is, and who is let in.
    settings: Mutex<Settings>,
    invitation: Mutex<Option<OpenInvitation>>,
}

#[derive(Debug)]
struct Settings {
    address: SocketAddr,
    is_enabled: bool,
}

/// Who is paired, for the handshakes.
#[derive(Debug)]
pub(crate) struct PinBoard {
    rows: RwLock<BTreeMap<HostId, PeerRow>>,
    allow: RwLock<AllowedHosts>,
    /// Something in `rows` has changed.
    changed: watch::Sender<()>,
    /// Addresses in it are tried first.
    network: RwLock<Option<Network>>,
}

impl Pins for PinBoard {
    fn standing(&self, host: HostId, from: IpAddr) -> Standing {
        let rows = self.rows.read().expect("nothing panics while it holds the pins");
        let Some(row) = rows.get(&host) else { return Standing::Stranger };
        let Ok(name) = HostName::new(&row.name) else { return Standing::Stranger };
        let allow = self.allow.read().expect("nothing panics while it holds the list");
        if row.is_forgotten {
            Standing::Forgotten(name)
        } else if allow.allows(name.as_str(), from) {
            Standing::Paired(name)
        } else {
            Standing::NotAllowed(name)
        }
    }
}

impl PinBoard {
    fn with<T>(&self, look: impl FnOnce(&BTreeMap<HostId, PeerRow>) -> T) -> T {
        look(&self.rows.read().expect("nothing panics while it holds the pins"))
    }

    fn put(&self, row: PeerRow) {
        let mut rows = self.rows.write().expect("nothing panics while it holds the pins");
        rows.insert(row.host, row);
        drop(rows);
        self.changed.send_replace(());
    }
}

impl Peers {
    /// Loads the pairs. The port stays closed until [`Peers::open`].
    pub(crate) async fn load(
        name: HostName,
        identity: Arc<Identity>,
        store: Store,
        relocation: &Relocation,
    ) -> Result<(Self, mpsc::Receiver<Arrival>), Problem> {
        let rows = store.call(|tables| tables.peers()).await;
        let rows = rows.map_err(|error| Problem::of(&error))?;
        let rows = rows.into_iter().map(|row| (row.host, row)).collect();
        let pins = Arc::new(PinBoard {
            rows: RwLock::new(rows),
            allow: RwLock::new(relocation.hosts_allow.clone()),
            changed: watch::Sender::new(()),
            network: RwLock::new(relocation.network),
        });
        let (listener, arrivals) = Listener::new(identity.clone(), pins.clone(), Limits::default());
        let dialer = Dialer::new(identity.clone(), Hello::ours(name.clone()));
        let address = SocketAddr::new(relocation.address, relocation.port);
        let peers = Self {
            name,
            identity,
            store,
            dialer,
            listener,
            pins,
            settings: Mutex::new(Settings { address, is_enabled: false }),
            invitation: Mutex::default(),
        };
        Ok((peers, arrivals))
    }

    /// Opens or closes the port as the settings say; an open invitation keeps it open for pairing.
    pub(crate) async fn open(
        &self,
        relocation: &Relocation,
        is_enabled: bool,
    ) -> Result<(), Problem> {
        *self.pins.allow.write().expect("nothing panics while it holds the list") =
            relocation.hosts_allow.clone();
        *self.pins.network.write().expect("nothing panics while it holds the network") =
            relocation.network;
        {
            let mut settings = self.settings.lock().await;
            settings.address = SocketAddr::new(relocation.address, relocation.port);
            settings.is_enabled = is_enabled;
        }
        self.set_doors().await
    }

    async fn set_doors(&self) -> Result<(), Problem> {
        let now = std::time::Instant::now();
        let is_open_to_pairing =
            self.invitation.lock().await.as_ref().is_some_and(|open| open.get(now).is_some());
        let settings = self.settings.lock().await;
        let doors = Doors { is_open_to_peers: settings.is_enabled, is_open_to_pairing };
        let opened = self.listener.open(&[settings.address], doors).await;
        opened.map_err(|error| Problem::of(&error))
    }

    /// Whether paired hosts are let in.
    pub(crate) async fn is_open(&self) -> bool {
        self.settings.lock().await.is_enabled
    }

    /// Every host that is paired now.
    pub(crate) fn all(&self) -> Vec<HostId> {
        self.pins.with(|rows| {
            rows.values().filter(|row| !row.is_forgotten).map(|row| row.host).collect()
        })
    }

    pub(crate) fn find_name(&self, host: HostId) -> Option<HostName> {
        let name = self.pins.with(|rows| rows.get(&host).map(|row| row.name.clone()));
        name.and_then(|name| HostName::new(name).ok())
    }

    /// The name of a host; of one that was never paired, the beginning of its fingerprint.
    pub(crate) fn name_of(&self, host: HostId) -> HostName {
        self.find_name(host).unwrap_or_else(|| {
            let short: String = host.to_string().chars().take(12).collect();
            HostName::new(format!("host-{short}")).expect("hexadecimal digits make a name")
        })
    }

    /// Where a host is looked for, in this order: in the migration network first.
    pub(crate) fn addresses(&self, host: HostId) -> Vec<SocketAddr> {
        let written = self.pins.with(|rows| rows.get(&host).map(|row| row.addresses.clone()));
        let written = written.unwrap_or_default();
        let known = written.iter().filter_map(|text| text.parse().ok()).collect();
        let network = self.pins.network.read().expect("nothing panics while it holds the network");
        preferred(known, network.as_ref())
    }

    /// Finds a paired host as a person names it: by its name, or by an address of it.
    pub(crate) fn find(&self, wanted: &str) -> Option<Target> {
        let address: Option<IpAddr> = wanted.parse().ok();
        let is_it = |host: &HostId| {
            let has_address =
                |ip: IpAddr| self.addresses(*host).iter().any(|known| known.ip() == ip);
            self.name_of(*host).as_str() == wanted || address.is_some_and(has_address)
        };
        let host = self.all().into_iter().find(is_it)?;
        Some(Target { host, name: self.name_of(host), addresses: self.addresses(host) })
    }

    /// Calls a paired host.
    pub(crate) async fn connect(&self, host: HostId) -> Result<Connection, Problem> {
        self.dial(host).await.map_err(|error| Problem::of(&error))
    }

    /// Calls a paired host, for who wants to know precisely why it cannot be reached.
    pub(crate) async fn dial(&self, host: HostId) -> Result<Connection, ConnectError> {
        let peer = PeerAddress { host, name: self.name_of(host), addresses: self.addresses(host) };
        self.dialer.connect(&peer, CONNECT_MAX).await
    }

    async fn pin(&self, row: PeerRow) -> Result<(), Problem> {
        let stored = row.clone();
        let put = self.store.call(move |tables| tables.put_peer(&stored)).await;
        put.map_err(|error| Problem::of(&error))?;
        self.pins.put(row);
        Ok(())
    }

    /// Forgets a paired host, here at once and there if it can be told.
    pub(crate) async fn forget(&self, host: HostId) -> Result<(), Problem> {
        let connection = self.connect(host).await;
        self.unpaired_by(host).await?;
        if let Ok(connection) = connection {
            // It finds out when it is refused, if it does not hear it now.
            let _ = connection.unpair().await;
        }
        Ok(())
    }

    /// Returns once a host is forgotten.
    pub(crate) async fn forgotten(&self, host: HostId) {
        let is_forgotten =
            |rows: &BTreeMap<HostId, PeerRow>| rows.get(&host).is_some_and(|row| row.is_forgotten);
        let mut changed = self.pins.changed.subscribe();
        while !self.pins.with(is_forgotten) {
            changed.changed().await.expect("the board outlives who looks at it");
        }
    }

    /// A paired host has forgotten this one, so it is forgotten here, too.
    pub(crate) async fn unpaired_by(&self, host: HostId) -> Result<(), Problem> {
        let row = self.pins.with(|rows| rows.get(&host).cloned());
        match row {
            Some(row) => self.pin(PeerRow { is_forgotten: true, ..row }).await,
            None => Ok(()),
        }
    }
}

/// Puts the addresses in the migration network first, and keeps their order otherwise.
fn preferred(mut addresses: Vec<SocketAddr>, network: Option<&Network>) -> Vec<SocketAddr> {
    if let Some(network) = network {
        addresses.sort_by_key(|address| !network.contains(address.ip()));
    }
    addresses
}

/// Returns how a pair is written down.
fn row(paired: &whimbrel_link::pairing::Paired) -> PeerRow {
    PeerRow {
        host: paired.host,
        name: paired.introduction.name.to_string(),
        addresses: paired.introduction.addresses.iter().map(SocketAddr::to_string).collect(),
        network: None,
        certificate: paired.certificate.clone(),
        pinned_at: SystemTime::now(),
        is_forgotten: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a migration network its addresses come first; nothing is left out, for a host that
    /// has none in it is still reached.
    #[test]
    fn the_migration_network_is_tried_first() {
        let known: Vec<SocketAddr> = ["10.0.0.2:8002", "192.168.7.2:8002", "10.0.0.3:8002"]
            .map(|a| a.parse().unwrap())
            .into();
        assert_eq!(preferred(known.clone(), None), known);
        let network = "192.168.7.0/24".parse().unwrap();
        assert_eq!(preferred(known.clone(), Some(&network)), [known[1], known[0], known[2]]);
    }
}
