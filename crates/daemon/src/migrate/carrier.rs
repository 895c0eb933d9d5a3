// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How memory travels: which carrier a migration takes and why, and what its carrying process may
//! use and keep.
//!
//! - The **tunnel** carries the engine's channels untouched, in two channels compressed by the
//!   engine where the link is slower than that.
//! - **Pages** looks into one channel, which may travel over several connections: what the target
//!   holds does not travel, lost links are made again, and an image is kept for its return. It
//!   costs more of the processors, so it is for links that are slower than they are, and for
//!   guests that come back. It is the way of post-copy, too: an engine that has lost its channels
//!   there may not take new ones.

use crate::blocks;
use crate::daemon::Daemon;
use crate::guests::GuestTask;
use crate::migrate::{Planned, Role};
use crate::pages;
use crate::story::About;
use std::time::SystemTime;
use whimbrel_handoff::message::Kind;
use whimbrel_link::carrier::{Control, PAGES_CONNECTIONS_MAX, Pages, Way};
use whimbrel_link::wire::{CarrierKind, Offer};
use whimbrel_model::id::HandoffId;
use whimbrel_model::plan;
use whimbrel_model::units::Bytes;
use whimbrel_page_store::HeldSummary;

/// Channels of a migration whose engines compress: one thread for each.
const TUNNEL_CHANNELS: u32 = 2;

/// On faster links looking for pages costs more time than it saves.
const PAGES_PAY_BELOW: Bytes = Bytes(200 << 20);

/// The same where the target holds most of them already.
const HELD_PAGES_PAY_BELOW: Bytes = Bytes(600 << 20);

/// What the person who asked for the migration wants of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) carrier: Option<CarrierKind>,
    pub(crate) channels: Option<u32>,
    pub(crate) bandwidth: Option<Bytes>,
}

impl Wish {
    /// Over how many connections a stream of pages travels: one, unless more are asked for. Where
    /// more pay has not been measured; see `docs/benchmarks.md`.
    pub(super) fn pages_connections(self) -> u32 {
        self.channels.unwrap_or(1).clamp(1, PAGES_CONNECTIONS_MAX)
    }
}

/// How memory will travel.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) carrier: CarrierKind,
    pub(crate) channels: u32,
    /// The pages that a guest in post-copy waits for have a channel of their own.
    pub(crate) has_urgent_channel: bool,
    /// In one line, for people.
    pub(crate) reason: String,
}

impl Planned {
    /// Chooses for a guest that may, or may never, run on the target before its memory is there.
    pub(crate) fn choose(&self, wish: Wish, may_postcopy: bool) -> Choice {
        let rate = [self.rate, wish.bandwidth].into_iter().flatten().min();
        let (carrier, reason) = match wish.carrier {
            _ if may_postcopy => {
                (CarrierKind::Pages, "post-copy goes on behind a lost link".to_owned())
            }
            Some(carrier) => (carrier, "as was asked for".to_owned()),
            None if wish.channels.is_some_and(|channels| channels > 1) => {
                (CarrierKind::Tunnel, "so many channels were asked for".to_owned())
            }
            None => carrier_for(self.held.as_ref(), rate),
        };
        match carrier {
            CarrierKind::Pages => {
                let how = match wish.pages_connections() {
                    1 => "pages".to_owned(),
                    count => format!("pages, {count} connections"),
                };
                Choice {
                    carrier,
                    channels: 1,
                    has_urgent_channel: may_postcopy && self.has_urgent_channel,
                    reason: format!("{how}: {reason}"),
                }
            }
            CarrierKind::Tunnel => {
                let compresses = self.has_multifd_zstd && plan::compression_pays(rate);
                let channels = if compresses { TUNNEL_CHANNELS } else { 1 };
                let channels = wish.channels.filter(|_| !self.has_one_channel).unwrap_or(channels);
                let how = match channels {
                    1 => "tunnel, one channel".to_owned(),
                    count => format!("tunnel, {count} channels with zstd"),
                };
                let reason = format!("{how}: {reason}");
                Choice { carrier, channels, has_urgent_channel: false, reason }
            }
        }
    }
}

/// Which carrier a migration takes by itself, and why.
pub(super) fn carrier_for(
    held: Option<&HeldSummary>,
    rate: Option<Bytes>,
) -> (CarrierKind, String) {
    let carries = match rate {
        Some(rate) => format!("the link carries {rate}/s"),
        None => "how much the link carries is not known".to_owned(),
    };
    let is_below = |limit| rate.is_none_or(|rate| rate < limit);
    match held {
        Some(held) if is_below(HELD_PAGES_PAY_BELOW) => {
            let held = Bytes(held.pages * pages::PAGE_BYTES);
            (CarrierKind::Pages, format!("the target holds {held} of its last visit"))
        }
        _ if is_below(PAGES_PAY_BELOW) => (CarrierKind::Pages, carries),
        _ => (CarrierKind::Tunnel, format!("{carries}, more than looking into it does")),
    }
}

impl GuestTask {
    /// What was asked for of the journey under way; nothing where the guest comes.
    fn wish(&self) -> Wish {
        match self.journey.as_ref().map(|journey| &journey.role) {
            Some(Role::Source(order)) => order.wish,
            Some(Role::Planning(_) | Role::Target | Role::Resumed { .. }) | None => Wish::default(),
        }
    }

    /// Returns what the carrying process of this side is told of the way.
    pub(super) async fn way(&self, offer: &Offer, rate: Option<Bytes>) -> Way {
        if offer.carrier == CarrierKind::Tunnel {
            return Way::Tunnel;
        }
        let is_source = self.journey.as_ref().is_some_and(super::Journey::is_source);
        let handoff = self.ownership.machine().handoff();
        let config = self.daemon.config();
        let keeps = self.papers.as_ref().is_some_and(|papers| papers.guest.keep_memory)
            && config.pages.is_kept;
        let image_bytes_max = match (keeps, is_source) {
            (false, _) => None,
            (true, true) => pages::room_for_image(&self.daemon).await,
            // Here it is only written down what the source keeps.
            (true, false) => Some(0),
        };
        Way::Pages(Pages {
            folder: self.daemon.pages.folder(self.id).path().to_owned(),
            image_bytes_max,
            is_reused: keeps,
            link_bytes_per_s: rate.map(|Bytes(bytes)| bytes),
            connections: self.wish().pages_connections(),
            disks: self
                .papers
                .as_ref()
                .and_then(|papers| blocks::disks(&self.daemon, self.id, &papers.guest)),
            has_urgent_channel: offer.has_urgent_channel,
            is_patient: handoff.is_some_and(|handoff| handoff.kind == Kind::PostCopy),
        })
    }

    /// The guest has moved: its carrying process makes durable what it keeps, and then ends. Nobody
    /// waits for that.
    pub(super) fn let_carrier_keep(&mut self) {
        let name = self.name();
        let Some(journey) = &mut self.journey else { return };
        let is_pages =
            journey.offer.as_ref().is_some_and(|offer| offer.carrier == CarrierKind::Pages);
        let Some(carrier) = journey.carrier.take_if(|_| is_pages) else { return };
        let (daemon, handoff, other) =
            (self.daemon.clone(), journey.handoff, journey.peer_name.clone());
        let about =
            About { guest: Some((self.id, name.clone())), handoff: Some(handoff), caller: None };
        let is_source = journey.is_source();
        tokio::spawn(async move {
            match carrier.keep(&name, &other, crate::story::unix_ms(SystemTime::now())).await {
                Ok(None) if is_source => {
                    daemon.story.info(&about, "its memory is kept here for its return");
                }
                Ok(None) => {}
                Ok(Some(why)) => tracing::info!(why, "nothing is kept of the guest's memory"),
                Err(error) => tracing::warn!(%error, "nothing is kept of the guest's memory"),
            }
            end_carrier(&daemon, &carrier, handoff).await;
        });
    }
}

/// Ends the carrying process and forgets its place.
pub(super) async fn end_carrier(daemon: &Daemon, carrier: &Control, handoff: HandoffId) {
    if let Err(error) = carrier.cut().await {
        tracing::warn!(%error, "the carrying process does not end");
    }
    if let Err(error) = daemon.layout().remove_carry(handoff) {
        tracing::warn!(%error, "its place stays behind");
    }
}
