// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What Xen's tools call for each device: `xen-hotplug`. What it is to do is decided in
//! `whimbrel_engine::xen::hotplug`; here the network is brought to it.

use std::error::Error;
use std::ffi::OsString;
use whimbrel_engine::xen::hotplug::{self, Card, HotplugError};
use whimbrel_host::network::{Network, NetworkError};

/// Plugs one device in or out, if this process was started for that.
pub fn plug(arguments: &[OsString]) -> Option<Result<(), HotplugError>> {
    let arguments = hotplug::arguments(arguments)?;
    Some(hotplug::run(arguments, network))
}

fn network(card: &Card) -> Result<u32, Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    Ok(runtime.block_on(follow(card))?)
}

async fn follow(card: &Card) -> Result<u32, NetworkError> {
    let network = Network::open()?;
    match card {
        Card::Join { link, bridge, mtu } => network.join(link, bridge, *mtu).await,
        Card::Leave { link } => network.leave(link).await.map(|()| 0),
    }
}
