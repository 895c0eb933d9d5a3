// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The wires of a lab, made with ip(8) and tc(8).

use crate::command::{run, stdout_of};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

/// The address of the client in every lab.
const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

/// Bytes that went over a host's wire so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub sent: u64,
    pub received: u64,
}

impl Traffic {
    /// Reads the counters of the uplink, in the host's own view.
    pub(super) fn of_uplink() -> Result<Traffic> {
        let read = |name: &str| -> Result<u64> {
            let text = fs::read_to_string(format!("/sys/class/net/up0/statistics/{name}"))?;
            text.trim().parse().context("a counter is a number")
        };
        Ok(Traffic { sent: read("tx_bytes")?, received: read("rx_bytes")? })
    }

    pub fn since(self, before: Traffic) -> Traffic {
        Traffic { sent: self.sent - before.sent, received: self.received - before.received }
    }
}

/// Returns what went over the wire between the hosts so far, in both directions, in bytes: all that
/// passed their ports of the lan, but for what the client said and heard. Between the hosts it
/// passes two of their ports, between one and the client only one.
pub(super) fn bytes_between_hosts(lan: &str, hosts: [&str; 2]) -> Result<u64> {
    let shown = stdout_of(Command::new("ip").args(["-n", lan, "-s", "-j", "link", "show"]))?;
    let links: Value = serde_json::from_str(&shown).context("ip(8) does not speak JSON")?;
    let passed = |name: &str| -> Result<u64> {
        let links = links.as_array().into_iter().flatten();
        let link = links.into_iter().find(|link| link["ifname"] == port(name));
        let counts = &link.with_context(|| format!("no wire to {name}"))?["stats64"];
        let bytes = |way: &str| counts[way]["bytes"].as_u64();
        bytes("rx").zip(bytes("tx")).map(|(rx, tx)| rx + tx).context("a port counts bytes")
    };
    let of_hosts = passed(hosts[0])? + passed(hosts[1])?;
    Ok(of_hosts.saturating_sub(passed("client")?) / 2)
}

pub(super) fn make_lan(lan: &str) -> Result<()> {
    ip(lan, "link add lan type bridge forward_delay 0")?;
    ip(lan, "link set lan up")
}

pub(super) fn join_as_client(lan: &str, client: &str) -> Result<()> {
    plug(lan, client, "client")?;
    ip(client, "link set lo up")?;
    ip(client, &format!("address add {CLIENT_ADDRESS}/24 dev up0"))
}

/// Joins a host: its uplink is a port of its own bridge, which carries its address.
pub(super) fn join_as_host(lan: &str, host: &str, name: &str, address: Ipv4Addr) -> Result<()> {
    plug(lan, host, name)?;
    ip(host, "link set lo up")?;
    // A bridge without an address of its own takes the lowest of its ports: it could change when a
    // guest's tap joins, and nobody would find the host for a while.
    let [.., last] = address.octets();
    ip(
        host,
        &format!("link add br0 address 52:77:00:00:00:{last:02x} type bridge forward_delay 0"),
    )?;
    ip(host, "link set up0 master br0")?;
    ip(host, &format!("address add {address}/24 dev br0"))?;
    ip(host, "link set br0 up")
}

/// Lays a wire from the lan into a namespace, where it is called `up0`.
fn plug(lan: &str, namespace: &str, name: &str) -> Result<()> {
    ip(lan, &format!("link add {} type veth peer name up0 netns {namespace}", port(name)))?;
    ip(lan, &format!("link set {} master lan up", port(name)))?;
    ip(namespace, "link set up0 up")
}

/// Pulls the wire of a host, or plugs it in again.
pub(super) fn set_wire(lan: &str, name: &str, is_plugged: bool) -> Result<()> {
    let state = if is_plugged { "up" } else { "down" };
    ip(lan, &format!("link set {} {state}", port(name)))
}

/// Shapes both directions of a host's wire; `None` removes the limit.
pub(super) fn set_rate(lan: &str, host: &str, name: &str, mbit: Option<u32>) -> Result<()> {
    for (namespace, device) in [(host, "up0".to_owned()), (lan, port(name))] {
        let mut tc = Command::new("tc");
        tc.args(["-n", namespace, "qdisc"]);
        match mbit {
            Some(mbit) => {
                // A burst of 4 ms: large enough for the rate, too small to hide it.
                let burst = (u64::from(mbit) * 1_000_000 / 8 / 250).max(16 * 1024);
                tc.args(["replace", "dev", &device, "root", "tbf", "latency", "20ms"]);
                tc.args(["rate", &format!("{mbit}mbit"), "burst", &burst.to_string()]);
                run(&mut tc)?;
            }
            // There may be no limit to remove.
            None => drop(run(tc.args(["del", "dev", &device, "root"]))),
        }
    }
    Ok(())
}

/// Makes a host deaf: what it says still arrives at the others, and nothing arrives at it. So a
/// connection is half open.
pub(super) fn set_deaf(host: &str, is_deaf: bool) -> Result<()> {
    let rules = "table netdev deaf {
        chain ingress { type filter hook ingress device \"up0\" priority 0; policy drop; }
    }";
    nft(host, if is_deaf { rules } else { "delete table netdev deaf" })
}

/// Closes a TCP port as a distribution's firewall does: `No route to host`.
pub(super) fn set_blocked(host: &str, port: Option<u16>) -> Result<()> {
    match port {
        Some(port) => nft(
            host,
            &format!(
                "table inet firewall {{
                    chain input {{
                        type filter hook input priority 0;
                        tcp dport {port} reject with icmpx type admin-prohibited
                    }}
                }}"
            ),
        ),
        None => nft(host, "delete table inet firewall"),
    }
}

fn nft(host: &str, rules: &str) -> Result<()> {
    run(Command::new("ip").args(["netns", "exec", host, "nft", rules]))
}

fn port(name: &str) -> String {
    format!("p-{name}")
}

fn ip(namespace: &str, arguments: &str) -> Result<()> {
    run(Command::new("ip").args(["-n", namespace]).args(arguments.split(' ')))
}
