// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Connections that the source joins to the first one, one after the other.
//!
//! They are a matter of speed only: where one cannot be made, the stream goes on with those there
//! are. A target of an earlier release knows of none, and closes them.

use super::super::frames::OpenWay;
use super::super::process::{Carrier, Connection, NoLink};
use super::{LinkWay, Links};
use std::sync::Arc;
use tokio::task::JoinSet;

/// See the module. Dropping it ends what is being made.
pub(super) struct Joins {
    carrier: Option<Arc<Carrier>>,
    /// So many are still to be made.
    left: u32,
    making: JoinSet<Result<Connection, NoLink>>,
}

impl Joins {
    pub(super) fn new(links: &Links, count: u32) -> Self {
        let carrier = match &links.way {
            LinkWay::Dial { carrier, .. } => Some(carrier.clone()),
            LinkWay::Wait(_) => None,
        };
        Self { carrier, left: count, making: JoinSet::new() }
    }

    /// The target was heard on the first connection: it waits for others to join that one, and not
    /// one that was lost.
    pub(super) fn go_on(&mut self) {
        let Some(carrier) = self.carrier.as_ref().filter(|_| self.making.is_empty()) else {
            return;
        };
        if self.left > 0 {
            self.left -= 1;
            let carrier = carrier.clone();
            self.making.spawn(async move { carrier.link_for_pages(OpenWay::Join).await });
        }
    }

    /// Returns the next that was made.
    pub(super) async fn next(&mut self) -> Connection {
        loop {
            match self.making.join_next().await {
                Some(made) => match made.expect("this task does not panic") {
                    Ok(connection) => {
                        self.go_on();
                        return connection;
                    }
                    Err(error) => {
                        tracing::info!(%error, "there will be no more connections");
                        self.left = 0;
                    }
                },
                None => std::future::pending().await,
            }
        }
    }
}
