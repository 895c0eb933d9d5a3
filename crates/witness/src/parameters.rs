// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the kernel command line asks of the witness: `witness.NAME=VALUE`.

use crate::page::Kind;
use std::net::Ipv4Addr;

/// Most memory the witness will keep: the guest would rather be told than run out.
const MEMORY_MIB_MAX: usize = 64 * 1024;

/// What the witness was asked to do. Unknown or malformed words end in `complaints`, which are
/// printed: a test that misspells a parameter should find out on the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) address: Option<(Ipv4Addr, u8)>,
    pub(crate) memory_mib: usize,
    /// What the pages hold at first.
    pub(crate) fill: Kind,
    pub(crate) dirty: Dirty,
    /// Told to the disks, so that a guest with the wrong disk is noticed.
    pub(crate) seed: u64,
    pub(crate) port: u16,
    pub(crate) disk_interval_ms: u64,
    pub(crate) heartbeat_s: u64,
    /// The disk with a userland on it (`vdc`), which is not counted on.
    pub(crate) userland: Option<String>,
    /// A disk that is read once, so that it fills the page cache.
    pub(crate) cached: Option<String>,
    pub(crate) complaints: Vec<String>,
}

/// How memory is dirtied: so much a second, of this kind, over this many MiB from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dirty {
    pub(crate) kind: Kind,
    pub(crate) mib_per_s: u64,
    /// The whole memory if zero.
    pub(crate) over_mib: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            address: None,
            memory_mib: 32,
            fill: Kind::Text,
            dirty: Dirty { kind: Kind::None, mib_per_s: 0, over_mib: 0 },
            seed: 0,
            port: 7777,
            disk_interval_ms: 100,
            heartbeat_s: 5,
            userland: None,
            cached: None,
            complaints: Vec::new(),
        }
    }
}

impl Parameters {
    pub(crate) fn parse(command_line: &str) -> Self {
        let mut parameters = Parameters::default();
        for word in command_line.split_ascii_whitespace() {
            let Some(ours) = word.strip_prefix("witness.") else { continue };
            let (name, value) = ours.split_once('=').unwrap_or((ours, ""));
            if parameters.set(name, value).is_none() {
                parameters.complaints.push(word.to_owned());
            }
        }
        parameters
    }

    /// Sets one parameter; `None` if it is unknown or its value makes no sense.
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "ip" => self.address = Some(parse_address(value)?),
            "memory" => {
                self.memory_mib = value.parse().ok().filter(|mib| *mib <= MEMORY_MIB_MAX)?;
            }
            "fill" => self.fill = Kind::parse(value)?,
            "dirty" => self.dirty = Dirty::parse(value.split(':'))?,
            "seed" => self.seed = value.parse().ok()?,
            "port" => self.port = value.parse().ok()?,
            "disk_ms" => self.disk_interval_ms = value.parse().ok().filter(|ms| *ms > 0)?,
            "userland" => self.userland = Some(parse_disk(value)?),
            "cached" => self.cached = Some(parse_disk(value)?),
            "heartbeat" => self.heartbeat_s = value.parse().ok().filter(|s| *s > 0)?,
            _ => return None,
        }
        Some(())
    }
}

impl Dirty {
    /// Reads `KIND MIB_PER_S [OVER_MIB]`, from the command line or from a request.
    pub(crate) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Dirty> {
        let kind = Kind::parse(words.next()?)?;
        let mib_per_s = words.next().map_or(Some(0), |word| word.parse().ok())?;
        let over_mib = words.next().map_or(Some(0), |word| word.parse().ok())?;
        words.next().is_none().then_some(Dirty { kind, mib_per_s, over_mib })
    }
}

/// Reads the name of a disk: letters and digits, so that it stays below `/dev`.
fn parse_disk(name: &str) -> Option<String> {
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_plain.then(|| name.to_owned())
}

/// Reads `10.77.0.50/24`.
fn parse_address(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 32)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole vocabulary in one line, among words of the kernel's own.
    #[test]
    fn reads_its_own_words_and_leaves_the_kernels() {
        let parameters = Parameters::parse(
            "console=ttyS0 witness.ip=10.77.0.50/24 witness.memory=64 witness.fill=random \
             witness.dirty=sparse:8:16 witness.seed=7 witness.port=9 witness.disk_ms=5 \
             witness.heartbeat=1 witness.userland=vdc witness.cached=vdb quiet",
        );
        let expected = Parameters {
            address: Some((Ipv4Addr::new(10, 77, 0, 50), 24)),
            memory_mib: 64,
            fill: Kind::Random,
            dirty: Dirty { kind: Kind::Sparse, mib_per_s: 8, over_mib: 16 },
            seed: 7,
            port: 9,
            disk_interval_ms: 5,
            heartbeat_s: 1,
            userland: Some("vdc".to_owned()),
            cached: Some("vdb".to_owned()),
            complaints: Vec::new(),
        };
        assert_eq!(parameters, expected);
    }

    /// Nothing that was asked for is dropped in silence.
    #[test]
    fn complains_about_what_it_cannot_read() {
        for word in [
            "witness.sped=1",
            "witness.ip=10.0.0.1",
            "witness.ip=10.0.0.1/33",
            "witness.memory=much",
            "witness.memory=99999999",
            "witness.dirty=loud:1",
            "witness.dirty=text:1:2:3",
            "witness.heartbeat=0",
            "witness.userland=../sda",
        ] {
            assert_eq!(Parameters::parse(word).complaints, [word]);
        }
    }
}
