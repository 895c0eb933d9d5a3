// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How many may knock at once.

use super::Refusal;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many connections are served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From hosts that have not proved anything yet, in all.
    pub strangers_max: usize,
    /// The same, from one address (for IPv6, from one /64).
    pub strangers_per_address_max: usize,
    /// From peers.
    pub peers_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { strangers_max: 128, strangers_per_address_max: 16, peers_max: 256 }
    }
}

/// Counts who is in.
#[derive(Debug)]
pub(super) struct Gate {
    limits: Limits,
    strangers: Arc<Mutex<Strangers>>,
    peers: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Strangers {
    count: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A stranger's place; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Place {
    address: IpAddr,
    strangers: Arc<Mutex<Strangers>>,
}

impl Gate {
    pub(super) fn new(limits: Limits) -> Self {
        let peers = Arc::new(Semaphore::new(limits.peers_max));
        Self { limits, strangers: Arc::default(), peers }
    }

    pub(super) fn enter(&self, from: IpAddr) -> Result<Place, Refusal> {
        let address = neighbourhood(from);
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let here = strangers.by_address.get(&address).copied().unwrap_or(0);
        if here >= self.limits.strangers_per_address_max {
            return Err(Refusal::TooManyFromAddress { max: self.limits.strangers_per_address_max });
        }
        if strangers.count >= self.limits.strangers_max {
            return Err(Refusal::TooMany { max: self.limits.strangers_max });
        }
        strangers.count += 1;
        strangers.by_address.insert(address, here + 1);
        drop(strangers);
        Ok(Place { address, strangers: self.strangers.clone() })
    }

    /// Turns a stranger's place into a peer's.
    pub(super) fn promote(&self, place: Place) -> Result<OwnedSemaphorePermit, Refusal> {
        drop(place);
        let permit = self.peers.clone().try_acquire_owned();
        permit.map_err(|_| Refusal::TooMany { max: self.limits.peers_max })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.count -= 1;
        let here = strangers.by_address.get_mut(&self.address).expect("it was counted in");
        *here -= 1;
        if *here == 0 {
            strangers.by_address.remove(&self.address);
        }
    }
}

/// An IPv6 host has a whole /64 to knock from.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places are limited in all and per neighbourhood, and come back when they are dropped.
    #[test]
    fn places_are_limited_and_come_back() {
        let gate =
            Gate::new(Limits { strangers_max: 3, strangers_per_address_max: 2, peers_max: 1 });
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let (one, _two) = (gate.enter(v4).unwrap(), gate.enter(v4).unwrap());
        assert!(matches!(gate.enter(v4), Err(Refusal::TooManyFromAddress { max: 2 })));
        let _three = gate.enter("2001:db8::1".parse().unwrap()).unwrap();
        let crowded = gate.enter("2001:db8::2".parse().unwrap());
        assert!(matches!(crowded, Err(Refusal::TooMany { max: 3 })));
        let peer = gate.promote(one).unwrap();
        let again = gate.enter(v4).unwrap();
        assert!(matches!(gate.promote(again), Err(Refusal::TooMany { max: 1 })));
        drop(peer);
        assert_eq!(gate.strangers.lock().unwrap().count, 2);
    }
}
