// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Hosts that were paired with.

use super::{PeerRow, StoreError, Tables, from_ms, to_ms};
use rusqlite::params;
use whimbrel_model::id::HostId;

impl Tables {
    /// Adds a peer, or replaces what is known of it.
    pub fn put_peer(&mut self, peer: &PeerRow) -> Result<(), StoreError> {
        let addresses = serde_json::to_string(&peer.addresses).expect("strings become JSON");
        self.connection
            .execute(
                "INSERT OR REPLACE INTO peers (host, name, addresses, network, certificate,
                 pinned_ms, forgotten) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    peer.host.0.as_slice(),
                    peer.name,
                    addresses,
                    peer.network,
                    peer.certificate,
                    to_ms(peer.pinned_at),
                    peer.is_forgotten,
                ],
            )
            .map_err(self.failed("write a peer to"))?;
        Ok(())
    }

    /// Returns all peers, also forgotten ones, by name.
    pub fn peers(&self) -> Result<Vec<PeerRow>, StoreError> {
        let failed = self.failed("read the peers from");
        let mut statement = self
            .connection
            .prepare(
                "SELECT host, name, addresses, network, certificate, pinned_ms, forgotten
                 FROM peers ORDER BY name, host",
            )
            .map_err(&failed)?;
        let rows = statement
            .query_map([], |row| {
                let host: Vec<u8> = row.get(0)?;
                let addresses: String = row.get(2)?;
                let peer = PeerRow {
                    host: HostId([0; 32]),
                    name: row.get(1)?,
                    addresses: Vec::new(),
                    network: row.get(3)?,
                    certificate: row.get(4)?,
                    pinned_at: from_ms(row.get(5)?),
                    is_forgotten: row.get(6)?,
                };
                Ok((host, addresses, peer))
            })
            .map_err(&failed)?;
        rows.map(|row| {
            let (host, addresses, peer) = row.map_err(&failed)?;
            let host: [u8; 32] =
                host.try_into().map_err(|_| self.unreadable("host id of", &peer.name))?;
            let addresses = serde_json::from_str(&addresses)
                .map_err(|_| self.unreadable("address list", addresses))?;
            Ok(PeerRow { host: HostId(host), addresses, ..peer })
        })
        .collect()
    }

    pub fn peer(&self, host: HostId) -> Result<Option<PeerRow>, StoreError> {
        Ok(self.peers()?.into_iter().find(|peer| peer.host == host))
    }
}
