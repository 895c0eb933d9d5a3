// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The old `xend-config.sxp`, carried over into a `whimbrel.toml`.
//!
//! What has a meaning here is translated and told; everything else that the file sets is named
//! with the reason why it stays behind. Nothing that xend left open becomes open here by itself.

mod syntax;

use super::allow::HostPattern;
use crate::text_file::{Fault, FileError, Place, TextFile, printable};
use crate::units::Bytes;
use std::fmt::Write;
use std::net::IpAddr;
use syntax::Setting;

/// A new configuration made from an old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The text of a `whimbrel.toml`.
    pub toml: String,
    /// What was carried over, one line each.
    pub notes: Vec<String>,
    /// What could not be carried over, and why.
    pub left_out: Vec<String>,
}

/// Settings without a counterpart, by the beginning of their names, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("xend-relocation-ssl", "connections between hosts are always encrypted"),
    ("xend-relocation-server-ssl", "hosts know each other by pairing: `whimbrel host invite`"),
    ("xend-udev-event-server", "there is no such server"),
    ("xend-http", "the API is on a unix socket only"),
    ("xend-unix", "the API is on a unix socket of its own"),
    ("xend-tcp", "the API is on a unix socket only"),
    ("xen-api", "the API is another one"),
    ("xend-port", "the API is on a unix socket only"),
    ("xend-address", "the API is on a unix socket only"),
    ("xend-domains", "guests are kept in the state directory"),
    (
        "enable-dom0-ballooning",
        "`autoballoon` in xl.conf says whether, and the plan counts with it",
    ),
    ("dom0-cpus", "guests are not pinned to processors"),
    ("network-script", "bridges are made by the distribution, and named by each guest"),
    ("vif-script", "cards are plugged into bridges"),
    ("vif-antispoofing", "addresses of guests are not enforced"),
    ("resource-label", "there are no access labels"),
    ("vnc", "there is no graphical console"),
    ("keymap", "there is no graphical console"),
    ("log", "the log is in the journal, and in `whimbrel log`"),
    ("console-limit", "the console's log has a limit of its own"),
    ("enable-dump", "no cores are dumped"),
    ("external-migration-tool", "there are no hooks"),
    ("device-model", "the engine is set in `[engine]`"),
    ("qemu-dm", "the engine is set in `[engine]`"),
    ("pci", "devices of the host cannot be given to guests that may move"),
];

/// Settings that are carried over, and into what.
const CARRIED: &[(&str, &str)] = &[
    ("xend-relocation-server", "`enabled` in `[relocation]`"),
    ("xend-relocation-address", "`address` in `[relocation]`; an empty one is the default"),
    ("xend-relocation-port", "`port` in `[relocation]`"),
    (
        "xend-relocation-hosts-allow",
        "`hosts_allow` in `[relocation]`, on top of pairing: empty is every paired host, no longer \
         everybody",
    ),
    ("dom0-min-mem", "`host_min_memory` in `[host]`; 0 is left out"),
];

/// Returns the part of `docs/reference/old-files.md` that is about hosts.
pub fn reference() -> String {
    let carried = CARRIED.iter().map(|(key, here)| format!("| `{key}` | {here} |\n"));
    let left_out = LEFT_OUT.iter().map(|(key, why)| format!("| `{key}`… | left out: {why} |\n"));
    let rows: String = carried.chain(left_out).collect();
    format!(
        "## Hosts: `xend-config.sxp`\n\n`whimbrel import /etc/xen/xend-config.sxp` writes a \
         `whimbrel.toml`. A name that ends in … stands for all that begin so.\n\n\
         | setting | here |\n| --- | --- |\n{rows}"
    )
}

/// Converts a `xend-config.sxp`.
pub fn convert(file: &TextFile<'_>) -> Result<Converted, FileError> {
    let mut new = New::default();
    for setting in syntax::parse(file)? {
        new.take(file, &setting)?;
    }
    if new.is_enabled == Some(true) {
        new.left_out.push(
            "xend let arriving guests use every file and every bridge; name yours in `allow_paths` \
             and `allow_bridges`"
                .to_owned(),
        );
    }
    Ok(Converted { toml: new.render(file.name), notes: new.notes, left_out: new.left_out })
}

/// The new configuration in the making.
#[derive(Default)]
struct New {
    is_enabled: Option<bool>,
    address: Option<IpAddr>,
    port: Option<u16>,
    hosts_allow: Option<Vec<String>>,
    host_min_memory: Option<Bytes>,
    notes: Vec<String>,
    left_out: Vec<String>,
}

impl New {
    fn take(&mut self, file: &TextFile<'_>, setting: &Setting) -> Result<(), FileError> {
        let Setting { key, place, .. } = setting;
        let value = setting.value.as_str();
        let bad = |text: String| error(file, *place, key, Fault::BadValue { text });
        match key.as_str() {
            "xend-relocation-server" => {
                let is_enabled =
                    yes(value).ok_or_else(|| bad(format!("`{value}` is not yes or no")))?;
                self.is_enabled = Some(is_enabled);
                self.note(setting, &format!("`enabled = {is_enabled}` in `[relocation]`"));
            }
            "xend-relocation-address" => self.address(setting),
            "xend-relocation-port" => {
                let port = value.parse().ok().filter(|&port: &u16| port != 0);
                let port = port.ok_or_else(|| bad(format!("`{value}` is not a port")))?;
                self.port = Some(port);
                self.note(setting, &format!("`port = {port}` in `[relocation]`"));
            }
            "xend-relocation-hosts-allow" => self.hosts_allow(setting),
            "dom0-min-mem" => {
                let mib =
                    value.parse::<u64>().ok().filter(|mib| mib.checked_mul(Bytes::MIB).is_some());
                let mib = mib.ok_or_else(|| bad(format!("`{value}` is not a number of MiB")))?;
                if mib == 0 {
                    let why = "0 switched ballooning off; the default holds";
                    self.left_out.push(format!("(dom0-min-mem 0): {why}"));
                } else {
                    self.host_min_memory = Some(Bytes::mib(mib));
                    let size = Bytes::mib(mib);
                    self.note(setting, &format!("`host_min_memory = \"{size}\"` in `[host]`"));
                }
            }
            _ => {
                let known = LEFT_OUT.iter().filter(|(prefix, _)| key.starts_with(prefix));
                // The longest beginning is the most precise.
                let known = known.max_by_key(|(prefix, _)| prefix.len());
                let why = known.map_or("it has no meaning here", |(_, why)| *why);
                self.left_out.push(format!("({key} …): {why}"));
            }
        }
        Ok(())
    }

    fn note(&mut self, setting: &Setting, what: &str) {
        let Setting { key, value, .. } = setting;
        let value = if value.is_empty() { "''" } else { value };
        self.notes.push(format!("({key} {value}) is {what}"));
    }

    fn address(&mut self, setting: &Setting) {
        let address = match setting.value.as_str() {
            // Every interface, which is the default here, too.
            "" => {
                self.note(setting, "the default: all addresses");
                return;
            }
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            text => text.parse().ok(),
        };
        match address {
            Some(address) => {
                self.address = Some(address);
                self.note(setting, &format!("`address = \"{address}\"` in `[relocation]`"));
            }
            None => self.left_out.push(format!(
                "({} {}): an address is needed, not a name",
                setting.key, setting.value
            )),
        }
    }

    fn hosts_allow(&mut self, setting: &Setting) {
        let mut list = Vec::new();
        for pattern in setting.value.split_whitespace() {
            match new_pattern(pattern) {
                Ok(new) => list.push(new),
                Err(why) => self.left_out.push(format!("`{pattern}` of {}: {why}", setting.key)),
            }
        }
        match list.is_empty() && !setting.value.trim().is_empty() {
            // An empty list would let in more than the old one did.
            true => list.push("^$".to_owned()),
            false if list.is_empty() => {
                self.note(setting, "`hosts_allow = []`: every paired host, no longer everyone");
            }
            false => self.note(setting, &format!("`hosts_allow = {}`", array(&list))),
        }
        self.hosts_allow = Some(list);
    }

    fn render(&self, name: &str) -> String {
        let mut toml = format!("# Made from {} by `whimbrel import`.\n", printable(name));
        let mut line = |text: String| writeln!(toml, "{text}").expect("a String takes everything");
        if let Some(size) = self.host_min_memory {
            line(format!("\n[host]\nhost_min_memory = \"{}\"", size.to_exact_string()));
        }
        line("\n[relocation]".to_owned());
        line(format!("enabled = {}", self.is_enabled.unwrap_or(false)));
        if let Some(address) = self.address {
            line(format!("address = \"{address}\""));
        }
        if let Some(port) = self.port {
            line(format!("port = {port}"));
        }
        if let Some(list) = &self.hosts_allow {
            line(format!("hosts_allow = {}", array(list)));
        }
        line(
            "# Where disks of arriving guests may lie, and which bridges they may join:".to_owned(),
        );
        line("# allow_paths = [\"/xen\"]\n# allow_bridges = [\"xenbr0\"]".to_owned());
        toml
    }
}

fn array(list: &[String]) -> String {
    let list = list.iter().map(|text| toml::Value::String(text.clone())).collect();
    toml::Value::Array(list).to_string()
}

fn yes(value: &str) -> Option<bool> {
    match value {
        "yes" | "true" | "on" | "1" => Some(true),
        "no" | "false" | "off" | "0" | "" => Some(false),
        _ => None,
    }
}

/// Turns one of xend's patterns, a regular expression matched from the start, into ours.
fn new_pattern(old: &str) -> Result<String, String> {
    let core = old.trim_start_matches('^').trim_end_matches('$');
    let plain = core.replace("\\.", ".").replace("\\-", "-");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
    // Who wrote a plain name or address meant that one, and not whatever begins with it.
    let new = match plain.chars().all(is_plain) {
        true => plain,
        false => format!("^(?:{})", old.trim_start_matches('^')),
    };
    HostPattern::new(&new).map(|_| new).map_err(|error| error.to_string())
}

fn error(file: &TextFile<'_>, place: Place, key: &str, fault: Fault) -> FileError {
    FileError {
        file: file.name.to_owned(),
        place: Some(place),
        key: Some(key.to_owned()),
        fault: Box::new(fault),
    }
}

#[cfg(test)]
mod tests {
    //! The seed's settings mean here what they meant there, the result is a configuration, and
    //! nothing is left out silently.

    use super::*;
    use proptest::prelude::*;

    const SEED: &str = r#"
# -*- sh -*-
# Xend configuration file.
(logfile /var/log/xen/xend.log)
(xend-http-server no)
(xend-relocation-server yes)
#(xend-port            8000)
(xend-relocation-port 8002)   # the default
(xend-relocation-address '')
(xend-relocation-hosts-allow '^localhost$ ^alpha\\.example\\.org$ 192.168.1.5 ^10\\.0\\..* [')
(network-script 'network-bridge bridge=br0')
(vif-script vif-bridge)
(dom0-min-mem 256)
(dom0-cpus 0)
(xend-relocation-server-ssl-key-file xmlrpc.key)
(vncpasswd '')
(my-own-setting (a (b c)))
"#;

    #[test]
    fn what_the_reference_calls_carried_is() {
        for (key, _) in CARRIED {
            let value = if key.ends_with("server") { "yes" } else { "8002" };
            let value = if key.ends_with("address") { "127.0.0.1" } else { value };
            let converted = from(&format!("({key} {value})")).unwrap();
            assert_eq!(converted.notes.len(), 1, "{key}: {converted:?}");
        }
    }

    fn from(text: &str) -> Result<Converted, FileError> {
        convert(&TextFile { name: "xend-config.sxp", text, base: None })
    }

    #[test]
    fn the_seed_s_settings_are_carried_over() {
        let converted = from(SEED).unwrap();
        let Converted { toml, notes, left_out } = &converted;
        let all = format!("{toml}---\n{}\n---\n{}", notes.join("\n"), left_out.join("\n"));
        insta::assert_snapshot!(all);
        let file = TextFile { name: "whimbrel.toml", text: toml, base: None };
        let relocation = crate::config::parse(&file).unwrap().relocation;
        let check = |name: &str, address: &str, expected: bool| {
            let is_allowed = relocation.hosts_allow.allows(name, address.parse().unwrap());
            assert_eq!(is_allowed, expected, "{name} {address}");
        };
        check("alpha.example.org", "10.9.0.1", true);
        check("beta", "192.168.1.5", true);
        check("beta", "192.168.1.55", false);
        check("beta", "10.0.7.7", true);
        check("beta", "10.1.7.7", false);
    }

    #[test]
    fn what_was_closed_stays_closed() {
        assert!(from("").unwrap().toml.contains("enabled = false"));
        // Not one pattern could be carried over: nobody is let in, rather than everybody.
        let toml = from("(xend-relocation-hosts-allow '[')").unwrap().toml;
        let file = TextFile { name: "", text: &toml, base: None };
        let hosts = crate::config::parse(&file).unwrap().relocation.hosts_allow;
        assert!(!hosts.allows("beta", "10.0.0.1".parse().unwrap()));
        let open = from("(xend-relocation-hosts-allow '')").unwrap();
        assert!(open.toml.contains("hosts_allow = []"));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, expected: &str| {
            assert_eq!(from(text).unwrap_err().to_string(), expected);
        };
        check("(a b", "xend-config.sxp:1:1: this `(` is not closed");
        check("(a b))", "xend-config.sxp:1:6: expected `(`, found `)`");
        check("x", "xend-config.sxp:1:1: expected `(`, found `x`");
        check("(a 'b)", "xend-config.sxp:1:4: the string is not closed");
        check(
            "\n(xend-relocation-server maybe)",
            "xend-config.sxp:2:1: `xend-relocation-server`: `maybe` is not yes or no",
        );
        check(
            "(xend-relocation-port 80020)",
            "xend-config.sxp:1:1: `xend-relocation-port`: `80020` is not a port",
        );
        check(
            "(dom0-min-mem lots)",
            "xend-config.sxp:1:1: `dom0-min-mem`: `lots` is not a number of MiB",
        );
        assert!(from(&"(".repeat(50_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[ -~\n()'\"\\\\#äλ]{0,80}") {
            let _ = from(&text);
        }

        /// Whatever the old file says, the new one is a configuration.
        #[test]
        fn the_result_is_a_configuration(hosts in "[ -&*-~]{0,30}", address in "[0-9.:a-f]{0,15}") {
            let text = format!(
                "(xend-relocation-hosts-allow '{hosts}')(xend-relocation-address '{address}')"
            );
            if let Ok(Converted { toml, .. }) = from(&text) {
                let file = TextFile { name: "", text: &toml, base: None };
                prop_assert!(crate::config::parse(&file).is_ok(), "{}", toml);
            }
        }
    }
}
