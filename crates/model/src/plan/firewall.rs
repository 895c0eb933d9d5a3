// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The command that opens our port, for the firewall that is in charge.

use crate::facts::Firewall;
use std::net::IpAddr;

/// Returns what to type on a host so that `from` (or everyone) can reach its TCP `port`.
pub fn open_port(firewall: Option<Firewall>, port: u16, from: Option<IpAddr>) -> String {
    let Some(firewall) = firewall else {
        // Nobody could look: name the three that distributions use.
        let all = [Firewall::Nftables, Firewall::Firewalld, Firewall::Ufw];
        let commands: Vec<_> = all
            .into_iter()
            .map(|firewall| format!("{}: `{}`", name(firewall), command(firewall, port, from)))
            .collect();
        return commands.join("; ");
    };
    format!("`{}`", command(firewall, port, from))
}

fn name(firewall: Firewall) -> &'static str {
    match firewall {
        Firewall::Nftables => "nftables",
        Firewall::Firewalld => "firewalld",
        Firewall::Ufw => "ufw",
        Firewall::Iptables => "iptables",
    }
}

fn command(firewall: Firewall, port: u16, from: Option<IpAddr>) -> String {
    let family = |from: IpAddr| if from.is_ipv4() { "ip" } else { "ip6" };
    match (firewall, from) {
        (Firewall::Nftables, None) => {
            format!("nft insert rule inet filter input tcp dport {port} accept")
        }
        (Firewall::Nftables, Some(from)) => format!(
            "nft insert rule inet filter input {} saddr {from} tcp dport {port} accept",
            family(from)
        ),
        (Firewall::Firewalld, None) => {
            format!("firewall-cmd --permanent --add-port={port}/tcp && firewall-cmd --reload")
        }
        (Firewall::Firewalld, Some(from)) => format!(
            "firewall-cmd --permanent --add-rich-rule='rule family={} source address={from} port \
             port={port} protocol=tcp accept' && firewall-cmd --reload",
            if from.is_ipv4() { "ipv4" } else { "ipv6" }
        ),
        (Firewall::Ufw, None) => format!("ufw allow {port}/tcp"),
        (Firewall::Ufw, Some(from)) => {
            format!("ufw allow proto tcp from {from} to any port {port}")
        }
        (Firewall::Iptables, from) => {
            let program = match from {
                Some(IpAddr::V6(_)) => "ip6tables",
                Some(IpAddr::V4(_)) | None => "iptables",
            };
            let source = from.map(|from| format!(" -s {from}")).unwrap_or_default();
            format!("{program} -I INPUT -p tcp{source} --dport {port} -j ACCEPT")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_firewall_has_its_command() {
        let from = Some("10.0.0.1".parse().unwrap());
        let all = [
            open_port(Some(Firewall::Nftables), 8002, from),
            open_port(Some(Firewall::Firewalld), 8002, from),
            open_port(Some(Firewall::Ufw), 8002, from),
            open_port(Some(Firewall::Iptables), 8002, from),
            open_port(None, 8002, None),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }
}
