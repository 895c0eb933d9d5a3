// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Who may send guests here: `hosts_allow`, and networks.
//!
//! The meaning is xend's, made strict. A pattern is compared with the name under which the peer
//! was pinned at pairing, and with the address it calls from; never with what reverse DNS says.
//! An empty list allows every *paired* host, because pairing has come before.

use regex::bytes::{Regex, RegexBuilder};
use std::net::IpAddr;
use std::str::FromStr;

/// Most patterns that a list may have.
pub const PATTERNS_MAX: usize = 256;
/// Longest pattern, in bytes, and the memory that a compiled one may take.
pub const PATTERN_BYTES_MAX: usize = 512;
const REGEX_MEMORY_MAX: usize = 1 << 20;

/// The list `hosts_allow`; an empty one allows every paired host.
#[derive(Clone, Debug, Default)]
pub struct AllowedHosts {
    patterns: Vec<HostPattern>,
}

/// Whether an arriving guest may join a bridge, by `allow_bridges`: an empty list allows none, and
/// `*` allows every one. The plan and the host that is asked to take the guest both go by this.
pub fn allows_bridge(allow_bridges: &[String], bridge: &str) -> bool {
    allow_bridges.iter().any(|allowed| allowed == bridge || allowed == "*")
}

/// One entry of `hosts_allow`.
#[derive(Clone, Debug)]
pub struct HostPattern {
    /// As it was written.
    text: String,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    /// A name or an address, where `*` stands for any text and `?` for any character.
    Wildcard(String),
    Network(Network),
    /// Begins with `^`, as most of xend's did.
    Regex(Regex),
}

/// A network, `192.168.1.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

/// Why a pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("the pattern is empty")]
    Empty,
    #[error("the pattern has {bytes} bytes, and at most {PATTERN_BYTES_MAX} are allowed")]
    TooLong { bytes: usize },
    #[error("`{pattern}` is not a regular expression: {reason}")]
    Regex { pattern: String, reason: String },
    #[error(
        "`{pattern}` contains `{found}`; write a name, an address, a network, wildcards `*` and \
         `?`, or a regular expression that begins with `^`"
    )]
    BadCharacter { pattern: String, found: char },
    #[error("`{text}` is not a network; write `192.168.1.0/24`")]
    Network { text: String },
    #[error("the list has {count} patterns, and at most {PATTERNS_MAX} are allowed")]
    TooMany { count: usize },
}

impl AllowedHosts {
    /// Allows every paired host.
    pub fn any() -> Self {
        Self::default()
    }

    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        let patterns = patterns.into_iter().map(HostPattern::new).collect::<Result<Vec<_>, _>>()?;
        match patterns.len() {
            0..=PATTERNS_MAX => Ok(Self { patterns }),
            count => Err(PatternError::TooMany { count }),
        }
    }

    /// The patterns as written.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|pattern| pattern.text.as_str())
    }

    /// Whether the host that was pinned under `name` and calls from `address` is allowed.
    pub fn allows(&self, name: &str, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.patterns.is_empty()
            || self.patterns.iter().any(|pattern| pattern.matches(name, address))
    }
}

impl HostPattern {
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let rule = match text {
            "" => return Err(PatternError::Empty),
            _ if text.len() > PATTERN_BYTES_MAX => {
                return Err(PatternError::TooLong { bytes: text.len() });
            }
            _ if text.starts_with('^') => Rule::Regex(regex(text)?),
            _ if text.contains('/') => Rule::Network(text.parse()?),
            _ => Rule::Wildcard(wildcard(text)?),
        };
        Ok(Self { text: text.to_owned(), rule })
    }

    fn matches(&self, name: &str, address: IpAddr) -> bool {
        let name = name.to_ascii_lowercase();
        match &self.rule {
            Rule::Network(network) => network.contains(address),
            Rule::Wildcard(pattern) => {
                wildcard_matches(pattern, &name) || wildcard_matches(pattern, &address.to_string())
            }
            Rule::Regex(regex) => {
                regex.is_match(name.as_bytes()) || regex.is_match(address.to_string().as_bytes())
            }
        }
    }
}

fn regex(pattern: &str) -> Result<Regex, PatternError> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .case_insensitive(true)
        .size_limit(REGEX_MEMORY_MAX)
        .build()
        .map_err(|error| {
            let text = error.to_string();
            // The last line says what is wrong; the lines before draw the pattern.
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            PatternError::Regex { pattern: pattern.to_owned(), reason: reason.to_owned() }
        })
}

fn wildcard(text: &str) -> Result<String, PatternError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:*?".contains(c);
    match text.chars().find(|&c| !allowed(c)) {
        Some(found) => Err(PatternError::BadCharacter { pattern: text.to_owned(), found }),
        None => Ok(text.to_ascii_lowercase()),
    }
}

/// Compares the whole text with a pattern of literal characters, `?` and `*`.
fn wildcard_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last `*` did not fit: it then takes one more byte.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t + 1));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            Some(_) | None => {
                let Some((after_star, next)) = retry else { return false };
                retry = Some((after_star, next + 1));
                (p, t) = (after_star, next);
            }
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(host)) => {
                let different = (net.to_bits() ^ host.to_bits()).leading_zeros();
                different >= u32::from(self.prefix)
            }
            (IpAddr::V6(net), IpAddr::V6(host)) => {
                let different = (net.to_bits() ^ host.to_bits()).leading_zeros();
                different >= u32::from(self.prefix)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let wrong = || PatternError::Network { text: text.to_owned() };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let prefix_max = if address.is_ipv4() { 32 } else { 128 };
        match prefix <= prefix_max {
            true => Ok(Self { address, prefix }),
            false => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    //! A list lets in whom it names, and nobody by accident.

    use super::*;

    fn allows(patterns: &[&str], name: &str, address: &str) -> bool {
        let list = AllowedHosts::new(patterns.iter().copied()).unwrap();
        list.allows(name, address.parse().unwrap())
    }

    #[test]
    fn no_bridge_is_joined_that_is_not_named() {
        let check = |list: &[&str], bridge, expected| {
            let list: Vec<_> = list.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(allows_bridge(&list, bridge), expected, "{list:?} {bridge}");
        };
        check(&[], "br0", false);
        check(&["br0"], "br0", true);
        check(&["br0"], "br01", false);
        check(&["br1", "*"], "br0", true);
        check(&["br*"], "br0", false);
    }

    #[test]
    fn hosts_are_matched_by_name_address_wildcard_network_and_regex() {
        let check = |pattern: &str, name: &str, address: &str, expected: bool| {
            assert_eq!(allows(&[pattern], name, address), expected, "{pattern} {name} {address}");
        };
        check("beta", "beta", "10.0.0.2", true);
        check("BETA", "beta", "10.0.0.2", true);
        check("beta", "beta2", "10.0.0.2", false);
        check("10.0.0.2", "beta", "10.0.0.2", true);
        check("10.0.0.2", "beta", "::ffff:10.0.0.2", true);
        check("10.0.0.2", "beta", "10.0.0.22", false);
        check("10.0.0.*", "beta", "10.0.0.22", true);
        check("10.0.*.2", "beta", "10.0.77.2", true);
        check("10.0.0.*", "beta", "10.0.10.2", false);
        check("node-??", "node-17", "10.0.0.2", true);
        check("node-??", "node-1", "10.0.0.2", false);
        check("*.example.org", "a.b.example.org", "10.0.0.2", true);
        check("*.example.org", "example.org", "10.0.0.2", false);
        check("*", "anyone", "10.0.0.2", true);
        check("192.168.0.0/16", "beta", "192.168.7.1", true);
        check("192.168.0.0/16", "beta", "192.169.7.1", false);
        check("0.0.0.0/0", "beta", "192.169.7.1", true);
        check("0.0.0.0/0", "beta", "fe80::1", false);
        check("fd00::/8", "beta", "fd12::1", true);
        check(r"^localhost$", "localhost", "127.0.0.1", true);
        check(r"^localhost$", "localhost.evil.org", "10.0.0.2", false);
        check(r"^192\.168\.1\.\d+$", "beta", "192.168.1.17", true);
        check(r"^192\.168\.1\.\d+$", "beta", "192.168.11.1", false);
        // A dot is a dot where no regular expression was asked for.
        check("10.0.0.2", "10a0b0c2", "10.9.9.9", false);
    }

    #[test]
    fn an_empty_list_allows_everyone_and_a_long_one_whoever_is_in_it() {
        assert!(allows(&[], "beta", "10.0.0.2"));
        assert!(allows(&["alpha", "beta"], "beta", "10.0.0.2"));
        assert!(!allows(&["alpha", "beta"], "gamma", "10.0.0.2"));
    }

    #[test]
    fn bad_patterns_are_named() {
        let check = |pattern: &str, expected: &str| {
            assert_eq!(HostPattern::new(pattern).unwrap_err().to_string(), expected);
        };
        check("", "the pattern is empty");
        check("10.0.0.0/33", "`10.0.0.0/33` is not a network; write `192.168.1.0/24`");
        check("^(a", "`^(a` is not a regular expression: unclosed group");
        check(
            "a|b",
            "`a|b` contains `|`; write a name, an address, a network, wildcards `*` and `?`, or a \
             regular expression that begins with `^`",
        );
        assert!(HostPattern::new("^((a{99}){99}){99}$").is_err());
        assert!(HostPattern::new(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
        assert!(AllowedHosts::new(["a"; PATTERNS_MAX + 1]).is_err());
    }

    #[test]
    fn a_wildcard_takes_no_exponential_time() {
        let pattern = format!("{}b", "a*".repeat(200));
        assert!(!wildcard_matches(&pattern, &"a".repeat(400)));
    }
}
