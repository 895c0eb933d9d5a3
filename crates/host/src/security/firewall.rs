// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Which firewall is in charge, so that a remedy names the command that this host needs.

use std::process::{Command, Stdio};
use whimbrel_model::facts::Firewall;

/// What there is to go by.
#[derive(Debug, Default)]
struct Signs {
    runs_firewalld: bool,
    /// `/etc/ufw/ufw.conf`.
    ufw: String,
    /// `nft list chains`.
    chains: String,
    /// `/proc/net/ip_tables_names`.
    iptables: String,
}

pub(super) fn detect() -> Option<Firewall> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    judge(&Signs {
        runs_firewalld: runs("firewalld"),
        ufw: read("/etc/ufw/ufw.conf"),
        chains: nft_chains(),
        iptables: read("/proc/net/ip_tables_names"),
    })
}

/// The managers first: they work through nftables or iptables, and undo what is done behind them.
fn judge(signs: &Signs) -> Option<Firewall> {
    let is_ufw_on =
        || signs.ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes"));
    if signs.runs_firewalld {
        Some(Firewall::Firewalld)
    } else if is_ufw_on() {
        Some(Firewall::Ufw)
    } else if let Some(chain) = input_chain(&signs.chains) {
        // `iptables` made upon nftables has chains in capitals.
        Some(if chain == "INPUT" { Firewall::Iptables } else { Firewall::Nftables })
    } else if signs.iptables.lines().any(|table| table == "filter") {
        Some(Firewall::Iptables)
    } else {
        None
    }
}

/// Returns the first chain that sees what arrives.
fn input_chain(chains: &str) -> Option<&str> {
    let mut name = None;
    for line in chains.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("chain ") {
            name = rest.split(' ').next();
        } else if line.starts_with("type filter ") && line.contains(" hook input ") {
            return name;
        }
    }
    None
}

fn nft_chains() -> String {
    let mut command = Command::new("nft");
    command.args(["list", "chains"]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).into_owned()
}

/// Whether a program of this name runs.
fn runs(name: &str) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else { return false };
    let mut paths = entries.flatten().map(|entry| entry.path().join("comm"));
    paths.any(|path| std::fs::read_to_string(path).is_ok_and(|comm| comm.trim_end() == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFT: &str = "table inet filter {
    \tchain output {
    \t\ttype filter hook output priority filter; policy accept;
    \t}
    \tchain input {
    \t\ttype filter hook input priority filter; policy drop;
    \t}
    }";

    /// The manager wins over what it is made upon; without any sign there is no firewall.
    #[test]
    fn the_firewall_in_charge_is_found() {
        let nft = || Signs { chains: NFT.into(), ..Signs::default() };
        assert_eq!(judge(&Signs::default()), None);
        assert_eq!(judge(&nft()), Some(Firewall::Nftables));
        let upon_nft = NFT.replace("chain input", "chain INPUT");
        assert_eq!(judge(&Signs { chains: upon_nft, ..nft() }), Some(Firewall::Iptables));
        let forward = NFT.replace("hook input", "hook forward");
        assert_eq!(judge(&Signs { chains: forward, ..nft() }), None);
        let ufw = "# comment\nENABLED=yes\nLOGLEVEL=low\n";
        assert_eq!(judge(&Signs { ufw: ufw.into(), ..nft() }), Some(Firewall::Ufw));
        let off = ufw.replace("yes", "no");
        assert_eq!(judge(&Signs { ufw: off, ..Signs::default() }), None);
        assert_eq!(judge(&Signs { runs_firewalld: true, ..nft() }), Some(Firewall::Firewalld));
        let legacy = Signs { iptables: "nat\nfilter\n".into(), ..Signs::default() };
        assert_eq!(judge(&legacy), Some(Firewall::Iptables));
    }
}
