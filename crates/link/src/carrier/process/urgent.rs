// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The urgent channel: the pages that a guest in post-copy waits for, beside all others.
//!
//! It has a connection of its own, so that nothing of it stands behind what waits in buffers on the
//! way of the others. When the engine connects it, if at all, is the engine's matter: some do when
//! they begin, some when post-copy does. When its connection is lost it goes on like a stream of
//! pages, and the engines do not notice; its first connection is made the same way. So a source
//! that did not hear whether the target had opened it just asks again.

use super::super::config::{Pages, Way};
use super::super::frames::{Frame, Open, OpenWay};
use super::super::pages::{Coming, LinkWay, Links, Stream, begin};
use super::super::status::ChannelStatus;
use super::{COMING_MAX, Carrier, Connection, Meter, connect_engine, refuse, send};
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use whimbrel_model::problem::chain;

/// What is known of an urgent channel that there is.
pub(super) struct Urgent {
    meter: Arc<Meter>,
    /// Of the target: where its stream waits for connections.
    coming: Option<mpsc::Sender<Coming>>,
}

impl Urgent {
    pub(super) fn status(&self) -> ChannelStatus {
        self.meter.status()
    }
}

impl Carrier {
    fn pages_with_urgent(&self) -> Option<&Pages> {
        match &self.config.way {
            Way::Pages(pages) => Some(pages).filter(|pages| pages.has_urgent_channel),
            Way::Tunnel => None,
        }
    }

    /// Of the source: waits for the engine to connect it, where it may.
    pub(super) async fn open_urgent_from_engine(
        self: &Arc<Self>,
        listener: &UnixListener,
    ) -> Result<(), String> {
        let Some(pages) = self.pages_with_urgent() else { return Ok(()) };
        let (engine, _) = listener.accept().await.map_err(|e| chain(&e))?;
        let way = LinkWay::Dial { carrier: self.clone(), way: OpenWay::Urgent };
        self.start_urgent(engine, Links::new(way, pages), None);
        Ok(())
    }

    /// Of the target: connects the engine, or goes on with a channel it has.
    pub(super) async fn receive_urgent(
        self: &Arc<Self>,
        open: &Open,
        (mut link, rest): Connection,
    ) -> Result<(), String> {
        let Some(pages) = self.pages_with_urgent().filter(|_| open.handoff == self.config.handoff)
        else {
            return refuse(link, "this side was told of no urgent channel".to_owned()).await;
        };
        let (path, _turn) = self.take_turn().await?;
        let coming = match self.urgent_coming() {
            Some(coming) => coming,
            None if self.lock().channels.is_empty() => {
                return refuse(link, "the urgent channel came first".to_owned()).await;
            }
            None => match connect_engine(&path).await {
                Ok(engine) => {
                    let (coming, links) = mpsc::channel(COMING_MAX);
                    let links = Links::new(LinkWay::Wait(links), pages);
                    self.start_urgent(engine, links, Some(coming.clone()));
                    coming
                }
                Err(reason) => {
                    self.lose(format!("the urgent channel was not opened: {reason}"));
                    return refuse(link, reason).await;
                }
            },
        };
        if coming.is_closed() {
            return refuse(link, "the urgent channel is over".to_owned()).await;
        }
        send(&mut link, &Frame::Ready).await.map_err(|e| chain(&e))?;
        let outcome = coming.try_send(Coming::Resumes((link, rest)));
        outcome.map_err(|_| "too many links came for the urgent channel".to_owned())
    }

    fn urgent_coming(&self) -> Option<mpsc::Sender<Coming>> {
        self.lock().urgent.as_ref().and_then(|urgent| urgent.coming.clone())
    }

    fn start_urgent(
        self: &Arc<Self>,
        engine: UnixStream,
        links: Links,
        coming: Option<mpsc::Sender<Coming>>,
    ) {
        let begin = begin::urgent(engine, self.throttle.clone());
        let meter = begin.meter.clone();
        self.lock().urgent = Some(Urgent { meter: meter.clone(), coming });
        let carrying = Stream::new(begin).run(None, links);
        self.attend("the urgent channel".to_owned(), meter, carrying);
    }
}
