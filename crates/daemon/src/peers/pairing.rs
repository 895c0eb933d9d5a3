// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Pairing: an invitation here, accepted there, and both pinned.

use crate::peers::{Peers, row};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use whimbrel_api::Problem;
use whimbrel_link::listener::PairArrival;
use whimbrel_link::pairing::{
    self, Introduction, Invitation, LIFETIME, OpenInvitation, PairError, Paired,
};
use whimbrel_model::id::HostId;
use whimbrel_model::problem::{Kind, Problem as ModelProblem};

whimbrel_model::codes! {
    NAME_TAKEN = "pair/name-taken": "A paired host has this name already.";
    NO_ADDRESS = "pair/no-address": "This host has no address that another could reach.";
    BAD_ADDRESS = "pair/bad-address": "An address for the invitation cannot be read.";
}

/// How long the other host may take to answer.
const JOIN_MAX: Duration = Duration::from_secs(10);

/// What a person takes to the other host.
pub(crate) struct Opened {
    pub(crate) token: String,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) expires_at: SystemTime,
}

impl Peers {
    /// Opens an invitation, replacing the one before, and the port for it.
    pub(crate) async fn invite(self: &Arc<Self>, wanted: &[String]) -> Result<Opened, Problem> {
        let addresses = self.own_addresses(wanted).await?;
        let invitation = Invitation::draw(self.identity.id(), addresses.clone());
        let token = invitation.token();
        *self.invitation.lock().await = Some(OpenInvitation::new(invitation, Instant::now()));
        self.set_doors().await?;
        let peers = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(LIFETIME).await;
            if let Some(peers) = peers.upgrade() {
                peers.shut_the_door().await;
            }
        });
        Ok(Opened { token, addresses, expires_at: SystemTime::now() + LIFETIME })
    }

    pub(crate) async fn close_invitation(&self) -> Result<(), Problem> {
        *self.invitation.lock().await = None;
        self.set_doors().await
    }

    /// Closes the port for pairing, if the invitation has ended by itself and nothing else needs
    /// it.
    async fn shut_the_door(&self) {
        if let Err(problem) = self.set_doors().await {
            tracing::warn!(%problem, "the port could not be closed after pairing");
        }
    }

    /// Where this host can be reached: as told, or at every address it has.
    async fn own_addresses(&self, wanted: &[String]) -> Result<Vec<SocketAddr>, Problem> {
        let listen = self.settings.lock().await.address;
        let parse = |text: &String| {
            let with_port = text.parse::<SocketAddr>();
            let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, listen.port()));
            with_port.or(bare).map_err(|_| {
                Problem::new(
                    whimbrel_api::Kind::Usage,
                    BAD_ADDRESS,
                    format!("`{text}` is not an address"),
                    "write an IP address, with a port if it is not the usual one",
                )
            })
        };
        if !wanted.is_empty() {
            return wanted.iter().map(parse).collect();
        }
        let mut found = self.addresses_here().await;
        found.truncate(pairing::ADDRESSES_MAX);
        if found.is_empty() {
            return Err(Problem::new(
                whimbrel_api::Kind::Refused,
                NO_ADDRESS,
                "this host has no address but loopback",
                "give it one, or name one: `whimbrel host invite --address ADDRESS`",
            ));
        }
        Ok(found)
    }

    /// Where other hosts find this one: the address it listens at, or every one it has.
    pub(crate) async fn addresses_here(&self) -> Vec<SocketAddr> {
        let listen = self.settings.lock().await.address;
        if !listen.ip().is_unspecified() {
            return vec![listen];
        }
        let mut found = whimbrel_host::machine::addresses();
        // A socket of IPv4 does not answer IPv6; the other way round it does.
        found.retain(|ip| ip.is_ipv4() || listen.is_ipv6());
        found.into_iter().map(|ip| SocketAddr::new(ip, listen.port())).collect()
    }

    async fn introduction(&self) -> Introduction {
        let addresses = self.own_addresses(&[]).await.unwrap_or_default();
        Introduction { name: self.name.clone(), addresses }
    }

    /// Accepts an invitation of another host.
    pub(crate) async fn join(&self, token: &str) -> Result<HostId, Problem> {
        let invitation = token.parse::<Invitation>().map_err(|error| Problem::of(&error))?;
        let ours = self.introduction().await;
        let joined = pairing::join(&self.identity, &ours, &invitation, JOIN_MAX).await;
        let paired = joined.map_err(|error| Problem::of(&error))?;
        let conflict = self.name_conflict(&paired);
        self.pin(row(&paired)).await?;
        if let Some(problem) = conflict {
            // The other host has pinned this one already, and is told.
            self.forget(paired.host).await?;
            return Err(problem.into());
        }
        Ok(paired.host)
    }

    /// Hears a host that wants to pair. Returns it once both are pinned.
    pub(crate) async fn pair(&self, arrival: PairArrival) -> Result<Option<Paired>, PairError> {
        let invitation = {
            let open = self.invitation.lock().await;
            open.as_ref().and_then(|open| open.get(Instant::now()).cloned())
        };
        let Some(invitation) = invitation else { return Ok(None) };
        let proven = match pairing::hear(&self.identity, &invitation, arrival).await {
            Err(PairError::WrongKey) => {
                if let Some(open) = self.invitation.lock().await.as_mut() {
                    open.wrong_key();
                }
                self.shut_the_door().await;
                return Err(PairError::WrongKey);
            }
            heard => heard?,
        };
        if let Some(problem) = self.name_conflict(&proven.paired) {
            proven.refuse(&problem).await?;
            return Ok(None);
        }
        // Used up by the first that proves to hold its key, whatever comes of it. It may have ended
        // meanwhile, or another may have taken its place.
        if !self.use_up(&invitation).await {
            return Ok(None);
        }
        let pinned = self.pin(row(&proven.paired)).await;
        if let Err(problem) = pinned {
            proven.refuse(&problem.into()).await?;
            return Ok(None);
        }
        // The port stays open if relocation is enabled, and closes behind the guest if not.
        self.shut_the_door().await;
        proven.accept(&self.introduction().await).await.map(Some)
    }

    async fn use_up(&self, invitation: &Invitation) -> bool {
        let mut open = self.invitation.lock().await;
        let is_open = open.as_ref().and_then(|open| open.get(Instant::now())) == Some(invitation);
        if is_open {
            *open = None;
        }
        is_open
    }

    /// Two hosts of one name could not be told apart.
    fn name_conflict(&self, paired: &Paired) -> Option<ModelProblem> {
        let name = &paired.introduction.name;
        let other = self.find(name.as_str()).filter(|known| known.host != paired.host);
        let is_own = *name == self.name;
        (is_own || other.is_some()).then(|| ModelProblem {
            kind: Kind::Refused,
            code: NAME_TAKEN.to_owned(),
            text: format!("`{}` knows a host named `{name}` already", self.name),
            remedy: "give one of them another `name` in its configuration and restart its daemon"
                .to_owned(),
        })
    }
}
