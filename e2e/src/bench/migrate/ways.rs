// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The ways to move a guest that are compared.

use crate::plain::Settings;

/// The honest rival: QEMU's best, with buffers that hold no long pause.
const SMALL_BUFFERS: u32 = 128 << 10;
const CHANNELS: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// `whimbrel migrate`, with a carrier or as it plans itself.
    Ours(Option<&'static str>),
    /// QEMU by its own monitor, over plain TCP.
    Qemu(&'static str, Settings),
    /// `virsh migrate --live --p2p`, with these words besides.
    Virsh(&'static str, &'static [&'static str]),
}

/// Who moves: each has a guest of its own, and all guests are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Whimbrel,
    Qemu,
    Libvirt,
}

pub(super) const OURS: Way = Way::Ours(None);
pub(super) const TUNNEL: Way = Way::Ours(Some("tunnel"));
pub(super) const PAGES: Way = Way::Ours(Some("pages"));
pub(super) const Q0: Way = Way::Qemu("Q0", Settings { channels: None, socket_bytes_max: None });
pub(super) const QX: Way =
    Way::Qemu("Qx", Settings { channels: Some(CHANNELS), socket_bytes_max: Some(SMALL_BUFFERS) });
pub(super) const V: Way = Way::Virsh("V", &[]);
/// libvirt learned zstd with 9.1; Debian 12 has 9.0, which can only send over several connections.
pub(super) const VP: Way = Way::Virsh("Vp", &["--parallel", "--parallel-connections", "2"]);

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Way::Ours(None) => "ours",
            Way::Ours(Some(carrier)) => carrier,
            Way::Qemu(name, _) | Way::Virsh(name, _) => name,
        }
    }

    pub(super) fn who(self) -> Who {
        match self {
            Way::Ours(_) => Who::Whimbrel,
            Way::Qemu(..) => Who::Qemu,
            Way::Virsh(..) => Who::Libvirt,
        }
    }
}
