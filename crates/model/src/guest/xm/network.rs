// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Network cards: `mac=00:16:3e:01:02:03, bridge=xenbr0`.

use super::{Import, Item};
use crate::guest::file::check_bridge;
use crate::guest::{Mac, NETWORKS_MAX, Network, NetworkKind};
use crate::similar;
use crate::text_file::{Fault, FileError, printable};
use std::collections::HashSet;

/// The bridge that `xl` takes when a card names none.
const BRIDGE_DEFAULT: &str = "xenbr0";
const KEYS: [&str; 10] =
    ["mac", "bridge", "ip", "script", "type", "model", "vifname", "rate", "backend", "gateway"];

pub(super) fn networks(import: &mut Import<'_>) -> Result<Vec<Network>, FileError> {
    let items = import.texts("vif")?;
    if items.len() > NETWORKS_MAX {
        let count = items.len();
        let text =
            format!("a guest has at most {NETWORKS_MAX} network cards, and here are {count}");
        return Err(items[NETWORKS_MAX].error(Fault::BadValue { text }));
    }
    let (mut networks, mut macs) = (Vec::new(), HashSet::new());
    for item in &items {
        let network = network(import, item)?;
        if let Some(mac) = network.mac.filter(|&mac| !macs.insert(mac)) {
            let text = format!("another card of this guest has the address {mac}");
            return Err(item.error(Fault::Conflict { text }));
        }
        networks.push(network);
    }
    Ok(networks)
}

fn network(import: &mut Import<'_>, item: &Item) -> Result<Network, FileError> {
    let (mut mac, mut bridge) = (None, None);
    let parts = item.text.split(',').map(str::trim).filter(|part| !part.is_empty());
    for part in parts {
        let (key, value) = part.split_once('=').map_or((part, ""), |(k, v)| (k.trim(), v.trim()));
        match key {
            "mac" => {
                let parsed = value.parse::<Mac>().map_err(|error| item.bad(error.to_string()))?;
                mac = Some(parsed);
            }
            "bridge" => bridge = Some(check_bridge(value).map_err(|text| item.bad(text))?),
            "script" if value.rsplit('/').next() == Some("vif-bridge") => {}
            "script" => {
                return Err(item.unsupported(
                    format!("the card is set up by the script `{value}`"),
                    "make a bridge with it on every host, and name the bridge here",
                ));
            }
            "backend" if matches!(value, "0" | "Domain-0" | "dom0") => {}
            "backend" => {
                return Err(item.unsupported(
                    format!("the card is on the domain `{value}`, and there are no driver domains"),
                    "name a bridge of the host",
                ));
            }
            "ip" | "gateway" | "netmask" => {
                let text =
                    format!("`{key}` of a card is not enforced; the guest sets its own address");
                import.warn(item, text);
            }
            "rate" => import.warn(item, "`rate` of a card is not enforced".to_owned()),
            "type" | "model" => {
                import.warn(item, format!("`{part}`: the card is a virtio one"));
            }
            "vifname" | "devid" | "trusted" | "mtu" => {
                import.warn(item, format!("`{key}` has no meaning here"));
            }
            _ => {
                let hint = similar::hint(key, KEYS);
                return Err(item.bad(format!("a card has no `{}`{hint}", printable(key))));
            }
        }
    }
    let bridge = bridge.unwrap_or_else(|| {
        let assumed = import.options.bridge.unwrap_or(BRIDGE_DEFAULT);
        import.warn(item, format!("the card names no bridge; `{assumed}` is assumed"));
        assumed.to_owned()
    });
    Ok(Network { mac, kind: NetworkKind::Bridge { bridge } })
}
