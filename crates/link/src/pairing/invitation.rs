// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The text that one person reads on one host and pastes on another.
//!
//! `whimbrel-invite-1/ADDRESS,ADDRESS/FINGERPRINT/KEY`: where to go, whom to expect, and what to
//! know. It is good for one host and ten minutes.

use rand::TryRngCore;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};
use whimbrel_model::id::HostId;
use whimbrel_model::problem::{Kind, Remedy};

/// How long an invitation is good.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// Wrong keys that close an invitation.
pub const WRONG_KEYS_MAX: u32 = 5;

/// Longest token that is read.
pub const TOKEN_BYTES_MAX: usize = 1024;

const PREFIX: &str = "whimbrel-invite-1";
const KEY_BYTES: usize = 16;
const KEY_CONTEXT: &str = "whimbrel 2026 whimbrel-pair/1 one-time key";

/// What a joining host must know.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    host: HostId,
    addresses: Vec<SocketAddr>,
    key: [u8; KEY_BYTES],
}

/// Why a text is not an invitation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("this is not an invitation: it does not begin with `{PREFIX}/`")]
    NotAnInvitation,
    #[error("the invitation is incomplete: its {part} is missing or cut off")]
    Incomplete { part: &'static str },
    #[error("the invitation names `{found}`, which is not an address with a port")]
    BadAddress { found: String },
}

impl Remedy for TokenError {
    fn code(&self) -> &'static str {
        "pair/not-an-invitation"
    }

    fn kind(&self) -> Kind {
        Kind::Usage
    }

    fn remedy(&self) -> String {
        "copy the whole line that `whimbrel host invite` printed on the other host".to_owned()
    }
}

impl Invitation {
    /// Draws a new one-time key.
    pub fn draw(host: HostId, addresses: Vec<SocketAddr>) -> Self {
        let mut key = [0; KEY_BYTES];
        rand::rngs::OsRng.try_fill_bytes(&mut key).expect("the kernel has random numbers");
        Self { host, addresses, key }
    }

    /// The host that invites.
    pub fn host(&self) -> HostId {
        self.host
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The text for the other host. Whoever has it can pair.
    pub fn token(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let key: String = self.key.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{PREFIX}/{}/{}/{key}", addresses.join(","), self.host)
    }

    pub(super) fn proof_key(&self) -> [u8; 32] {
        blake3::derive_key(KEY_CONTEXT, &self.key)
    }
}

/// The key stays out of logs.
impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("host", &self.host)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl FromStr for Invitation {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::NotAnInvitation);
        }
        let mut parts = text.split('/');
        if parts.next() != Some(PREFIX) {
            return Err(TokenError::NotAnInvitation);
        }
        let addresses = parts.next().unwrap_or_default();
        let addresses = addresses.split(',').filter(|text| !text.is_empty()).map(|text| {
            text.parse().map_err(|_| TokenError::BadAddress { found: text.to_owned() })
        });
        let addresses: Vec<SocketAddr> = addresses.collect::<Result<_, _>>()?;
        if addresses.is_empty() {
            return Err(TokenError::Incomplete { part: "address" });
        }
        let fingerprint = parts.next().and_then(unhex);
        let host = fingerprint.ok_or(TokenError::Incomplete { part: "fingerprint" })?;
        let key = parts.next().and_then(unhex).ok_or(TokenError::Incomplete { part: "key" })?;
        if parts.next().is_some() {
            return Err(TokenError::NotAnInvitation);
        }
        Ok(Self { host: HostId(host), addresses, key })
    }
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The one invitation a host has open: good for one host, a time, and a few wrong keys.
#[derive(Debug)]
pub struct OpenInvitation {
    invitation: Invitation,
    until: Instant,
    wrong_keys: u32,
}

impl OpenInvitation {
    pub fn new(invitation: Invitation, now: Instant) -> Self {
        Self { invitation, until: now + LIFETIME, wrong_keys: 0 }
    }

    /// The invitation, while it is good.
    pub fn get(&self, now: Instant) -> Option<&Invitation> {
        (now < self.until && self.wrong_keys < WRONG_KEYS_MAX).then_some(&self.invitation)
    }

    pub fn until(&self) -> Instant {
        self.until
    }

    /// Counts a wrong key.
    pub fn wrong_key(&mut self) {
        self.wrong_keys += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn an_invitation() -> Invitation {
        let addresses = ["192.0.2.1:8002", "[2001:db8::1]:8002"];
        let addresses = addresses.map(|a| a.parse().unwrap()).to_vec();
        Invitation { host: HostId([0xab; 32]), addresses, key: [7; KEY_BYTES] }
    }

    /// A token survives the way through a person's clipboard, and every cut of it is noticed.
    #[test]
    fn a_token_is_read_whole_or_not_at_all() {
        let token = an_invitation().token();
        assert_eq!(format!(" {token}\n").parse(), Ok(an_invitation()));
        for length in 0..token.len() {
            assert!(token[..length].parse::<Invitation>().is_err(), "cut at {length}");
        }
        assert!(format!("{token}/x").parse::<Invitation>().is_err());
        assert!(token.replace("8002", "http").parse::<Invitation>().is_err());
    }

    /// The key is in the token and nowhere else.
    #[test]
    fn the_key_is_not_logged() {
        assert!(!format!("{:?}", an_invitation()).contains("0707"));
        assert_ne!(
            Invitation::draw(HostId([0; 32]), vec![]).key,
            Invitation::draw(HostId([0; 32]), vec![]).key
        );
    }

    /// Ten minutes, and five wrong keys.
    #[test]
    fn an_invitation_ends() {
        let now = Instant::now();
        let mut open = OpenInvitation::new(an_invitation(), now);
        assert!(open.get(now + LIFETIME - Duration::from_millis(1)).is_some());
        assert!(open.get(now + LIFETIME).is_none());
        for _ in 0..WRONG_KEYS_MAX {
            assert!(open.get(now).is_some());
            open.wrong_key();
        }
        assert!(open.get(now).is_none());
    }
}
