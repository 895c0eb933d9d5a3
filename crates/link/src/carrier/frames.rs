// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What two carrying processes say to each other, on each channel's own connection.
//!
//! A frame is a kind, three zero bytes, and the length of what follows, big-endian:
//!
//! ```text
//!   OPEN    version, channel, channels (2 bytes each), handoff (16), way (1)
//!                                                         first, from the source
//!   READY   -                                             the engine there is connected
//!   SHELF   slots (4), held (1), blocks (4)               the same, where pages travel
//!   REFUSED why, in words                                 instead of READY or SHELF
//!   DATA    bytes of the engine
//!   ACK     total (8): so many bytes the engine here has accepted
//!   FIN     total (8), BLAKE3 (32): the engine here has closed this direction
//!   END     -                                             answers FIN: complete and equal
//!   STOP    -                                             the engine here wants no more
//!   PING    number (8), answered by PONG with the same
//! ```
//!
//! Way 1 is the tunnel: what follows is above. Way 2 is pages: OPEN goes on with what the source
//! knows of an image at the target (0, or 1, its name (48) and its key (32)) and with the image
//! the source is going to keep (0, or 1, its id (16) and its key (32)); the target says in SHELF
//! whether it holds that image, how many slots its shelf has and how many blocks of the guest's
//! disks it can read, and from then on both speak the frames of `whimbrel-pages`. Way 3 takes a
//! stream of pages up again on a new connection, after READY; way 4 joins one to it. Way 5 opens
//! the urgent channel beside it, or takes that up again.
//!
//! There may be more kinds in a later version; the versions are agreed on in OPEN.

use bytes::{Buf, Bytes, BytesMut};
use whimbrel_model::id::HandoffId;
use whimbrel_pages::image::{ImageId, ImageKey, ManifestName};

pub(super) const HEADER_BYTES: usize = 8;
/// Longest payload of a DATA frame.
pub(super) const DATA_BYTES_MAX: usize = 1 << 20;
/// Longest reason for a refusal.
pub(super) const REASON_BYTES_MAX: usize = 1024;
pub(super) const VERSION: u16 = 3;

const OPEN: u8 = 1;
const READY: u8 = 2;
const REFUSED: u8 = 3;
const DATA: u8 = 4;
const ACK: u8 = 5;
const FIN: u8 = 6;
const END: u8 = 7;
const STOP: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const SHELF: u8 = 11;

const TUNNEL: u8 = 1;
const PAGES: u8 = 2;
const RESUME: u8 = 3;
const JOIN: u8 = 4;
const URGENT: u8 = 5;

/// OPEN without what is known and kept of images.
const OPEN_BYTES_MIN: usize = 23;
const OPEN_BYTES_MAX: usize = OPEN_BYTES_MIN + 1 + 48 + 32 + 1 + 16 + 32;

/// One frame; of DATA perhaps only a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Open(Open),
    Ready,
    Shelf(Shelf),
    Refused { reason: String },
    Data(Bytes),
    Ack { total: u64 },
    Fin { total: u64, digest: [u8; 32] },
    End,
    Stop,
    Ping(u64),
    Pong(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) version: u16,
    pub(super) channel: u16,
    pub(super) channels: u16,
    pub(super) handoff: HandoffId,
    pub(super) way: OpenWay,
}

/// How the engine's bytes are to travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OpenWay {
    Tunnel,
    Pages {
        /// An image that the target may hold of the guest.
        known: Option<(ManifestName, ImageKey)>,
        /// The image that the source is going to keep.
        kept: Option<(ImageId, ImageKey)>,
    },
    /// A stream of pages goes on.
    Resume,
    /// A stream of pages gets another connection besides.
    Join,
    /// Beside a stream of pages, the engine has a channel for those that its guest waits for. The
    /// first connection of it, or one that goes on.
    Urgent,
}

/// What the target holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shelf {
    pub(super) slots: u32,
    /// The first slots are the image that the source knows.
    pub(super) is_image_held: bool,
    /// Of the guest's disks.
    pub(super) blocks: u32,
}

/// Why the other process is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the other side sent a frame of unknown kind {kind}")]
    Kind { kind: u8 },
    #[error("the other side sent a frame of kind {kind} with {length} bytes")]
    Length { kind: u8, length: u32 },
    #[error("the other side sent a frame with a damaged header")]
    Header,
    #[error("the other side opened a way that this version does not know")]
    Way,
}

/// Returns the header of a DATA frame.
pub(super) fn data_header(length: usize) -> [u8; HEADER_BYTES] {
    header(DATA, length)
}

/// Returns the bytes of READY, which a connection that joins a stream of pages begins with.
pub(super) fn ready() -> Bytes {
    Bytes::copy_from_slice(&header(READY, 0))
}

fn header(kind: u8, length: usize) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(length).expect("frames are far shorter");
    let [a, b, c, d] = length.to_be_bytes();
    [kind, 0, 0, 0, a, b, c, d]
}

impl Frame {
    /// Appends the frame to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut put = |kind, parts: &[&[u8]]| {
            out.extend_from_slice(&header(kind, parts.iter().map(|part| part.len()).sum()));
            parts.iter().for_each(|part| out.extend_from_slice(part));
        };
        match self {
            Frame::Open(open) => put(
                OPEN,
                &[
                    &open.version.to_be_bytes(),
                    &open.channel.to_be_bytes(),
                    &open.channels.to_be_bytes(),
                    open.handoff.0.as_bytes(),
                    &way_bytes(&open.way),
                ],
            ),
            Frame::Ready => put(READY, &[]),
            Frame::Shelf(Shelf { slots, is_image_held, blocks }) => put(
                SHELF,
                &[&slots.to_be_bytes(), &[u8::from(*is_image_held)], &blocks.to_be_bytes()],
            ),
            Frame::Refused { reason } => {
                let end = reason.floor_char_boundary(REASON_BYTES_MAX);
                put(REFUSED, &[&reason.as_bytes()[..end]]);
            }
            Frame::Data(bytes) => put(DATA, &[bytes]),
            Frame::Ack { total } => put(ACK, &[&total.to_be_bytes()]),
            Frame::Fin { total, digest } => put(FIN, &[&total.to_be_bytes(), digest]),
            Frame::End => put(END, &[]),
            Frame::Stop => put(STOP, &[]),
            Frame::Ping(number) => put(PING, &[&number.to_be_bytes()]),
            Frame::Pong(number) => put(PONG, &[&number.to_be_bytes()]),
        }
    }
}

/// Takes frames out of bytes, however they were cut on the way.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// What is still to come of a DATA frame.
    data_left: usize,
}

impl Parser {
    /// Returns the next frame in `bytes`, or nothing until there are more. Data is passed on as
    /// it comes, in parts.
    pub(super) fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            if self.data_left > 0 {
                if bytes.is_empty() {
                    return Ok(None);
                }
                let part = bytes.split_to(self.data_left.min(bytes.len())).freeze();
                self.data_left -= part.len();
                return Ok(Some(Frame::Data(part)));
            }
            let Some(&[kind, a, b, c, l0, l1, l2, l3]) = bytes.first_chunk::<HEADER_BYTES>() else {
                return Ok(None);
            };
            if [a, b, c] != [0; 3] {
                return Err(FrameError::Header);
            }
            let length = u32::from_be_bytes([l0, l1, l2, l3]);
            check_length(kind, length)?;
            let length_bytes = usize::try_from(length).expect("it was checked");
            if kind == DATA {
                bytes.advance(HEADER_BYTES);
                self.data_left = length_bytes;
                continue;
            }
            if bytes.len() < HEADER_BYTES + length_bytes {
                return Ok(None);
            }
            bytes.advance(HEADER_BYTES);
            return read(kind, bytes.split_to(length_bytes)).map(Some);
        }
    }
}

/// Refuses a frame by its header, before anything is kept for it.
fn check_length(kind: u8, length: u32) -> Result<(), FrameError> {
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    let is_right = match kind {
        OPEN => (OPEN_BYTES_MIN..=OPEN_BYTES_MAX).contains(&bytes),
        SHELF => bytes == 9,
        READY | END | STOP => bytes == 0,
        REFUSED => bytes <= REASON_BYTES_MAX,
        DATA => (1..=DATA_BYTES_MAX).contains(&bytes),
        ACK | PING | PONG => bytes == 8,
        FIN => bytes == 40,
        _ => return Err(FrameError::Kind { kind }),
    };
    if is_right { Ok(()) } else { Err(FrameError::Length { kind, length }) }
}

fn read(kind: u8, mut body: BytesMut) -> Result<Frame, FrameError> {
    Ok(match kind {
        OPEN => Frame::Open(Open {
            version: body.get_u16(),
            channel: body.get_u16(),
            channels: body.get_u16(),
            handoff: HandoffId(uuid::Uuid::from_u128(body.get_u128())),
            way: read_way(&body).ok_or(FrameError::Way)?,
        }),
        READY => Frame::Ready,
        SHELF => {
            let slots = body.get_u32();
            let is_image_held = match body.get_u8() {
                0 => false,
                1 => true,
                _ => return Err(FrameError::Way),
            };
            Frame::Shelf(Shelf { slots, is_image_held, blocks: body.get_u32() })
        }
        REFUSED => Frame::Refused { reason: String::from_utf8_lossy(&body).into_owned() },
        ACK => Frame::Ack { total: body.get_u64() },
        FIN => {
            let total = body.get_u64();
            let mut digest = [0; 32];
            body.copy_to_slice(&mut digest);
            Frame::Fin { total, digest }
        }
        END => Frame::End,
        STOP => Frame::Stop,
        PING => Frame::Ping(body.get_u64()),
        PONG => Frame::Pong(body.get_u64()),
        kind => return Err(FrameError::Kind { kind }),
    })
}

fn way_bytes(way: &OpenWay) -> Vec<u8> {
    let (known, kept) = match way {
        OpenWay::Tunnel => return vec![TUNNEL],
        OpenWay::Resume => return vec![RESUME],
        OpenWay::Join => return vec![JOIN],
        OpenWay::Urgent => return vec![URGENT],
        OpenWay::Pages { known, kept } => (known, kept),
    };
    let mut out = vec![PAGES, u8::from(known.is_some())];
    if let Some((name, key)) = known {
        out.extend_from_slice(&name.to_bytes());
        out.extend_from_slice(key.bytes());
    }
    out.push(u8::from(kept.is_some()));
    if let Some((id, key)) = kept {
        out.extend_from_slice(&id.0);
        out.extend_from_slice(key.bytes());
    }
    out
}

fn read_way(body: &[u8]) -> Option<OpenWay> {
    let (way, mut rest) = body.split_first()?;
    let way = match *way {
        TUNNEL => OpenWay::Tunnel,
        RESUME => OpenWay::Resume,
        JOIN => OpenWay::Join,
        URGENT => OpenWay::Urgent,
        PAGES => {
            let known = match take_flag(&mut rest)? {
                true => Some((ManifestName::from_bytes(&take(&mut rest)?), take_key(&mut rest)?)),
                false => None,
            };
            let kept = match take_flag(&mut rest)? {
                true => Some((ImageId(take(&mut rest)?), take_key(&mut rest)?)),
                false => None,
            };
            OpenWay::Pages { known, kept }
        }
        _ => return None,
    };
    rest.is_empty().then_some(way)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

fn take_flag(rest: &mut &[u8]) -> Option<bool> {
    match take(rest)? {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

fn take_key(rest: &mut &[u8]) -> Option<ImageKey> {
    take(rest).map(ImageKey::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> Vec<Frame> {
        let handoff = HandoffId(uuid::Uuid::from_u128(0x0102_0304_0506_0708));
        vec![
            Frame::Open(Open {
                version: VERSION,
                channel: 2,
                channels: 3,
                handoff,
                way: OpenWay::Tunnel,
            }),
            Frame::Open(Open {
                version: VERSION,
                channel: 0,
                channels: 1,
                handoff,
                way: OpenWay::Pages {
                    known: Some((ManifestName::from_bytes(&[1; 48]), ImageKey::new([2; 32]))),
                    kept: Some((ImageId([3; 16]), ImageKey::new([4; 32]))),
                },
            }),
            Frame::Open(Open {
                version: VERSION,
                channel: 0,
                channels: 1,
                handoff,
                way: OpenWay::Join,
            }),
            Frame::Open(Open {
                version: VERSION,
                channel: 0,
                channels: 1,
                handoff,
                way: OpenWay::Urgent,
            }),
            Frame::Ready,
            Frame::Shelf(Shelf { slots: 258, is_image_held: true, blocks: 515 }),
            Frame::Refused { reason: "no such engine".to_owned() },
            Frame::Data(Bytes::from_static(b"abc")),
            Frame::Ack { total: 3 },
            Frame::Fin { total: 3, digest: [7; 32] },
            Frame::End,
            Frame::Stop,
            Frame::Ping(9),
            Frame::Pong(9),
        ]
    }

    fn bytes_of(frames: &[Frame]) -> Vec<u8> {
        let mut out = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut out));
        out
    }

    /// The bytes of `docs/protocol.md`: they must not change under a version number.
    #[test]
    fn the_bytes_are_as_documented() {
        let hex = |frame: &Frame| {
            let bytes = bytes_of(std::slice::from_ref(frame));
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let [
            open,
            open_pages,
            open_join,
            open_urgent,
            ready,
            shelf,
            refused,
            data,
            ack,
            fin,
            end,
            stop,
            ping,
            pong,
        ] = frames().try_into().unwrap();
        let handoff = "00000000000000000102030405060708";
        assert_eq!(hex(&open), format!("0100000000000017000300020003{handoff}01"));
        let (name, keys) = ("01".repeat(48), ["02", "04"].map(|byte| byte.repeat(32)));
        let id = "03".repeat(16);
        assert_eq!(
            hex(&open_pages),
            format!("0100000000000099000300000001{handoff}0201{name}{}01{id}{}", keys[0], keys[1])
        );
        assert_eq!(hex(&open_join), format!("0100000000000017000300000001{handoff}04"));
        assert_eq!(hex(&open_urgent), format!("0100000000000017000300000001{handoff}05"));
        assert_eq!(hex(&shelf), "0b00000000000009000001020100000203");
        assert_eq!(hex(&ready), "0200000000000000");
        assert_eq!(hex(&refused), "030000000000000e6e6f207375636820656e67696e65");
        assert_eq!(hex(&data), "0400000000000003616263");
        assert_eq!(hex(&ack), "05000000000000080000000000000003");
        let digest = "07".repeat(32);
        assert_eq!(hex(&fin), format!("06000000000000280000000000000003{digest}"));
        assert_eq!(hex(&end), "0700000000000000");
        assert_eq!(hex(&stop), "0800000000000000");
        assert_eq!(hex(&ping), "09000000000000080000000000000009");
        assert_eq!(hex(&pong), "0a000000000000080000000000000009");
    }

    proptest! {
        /// However the bytes are cut on the way, the frames are the same; data may come in parts.
        #[test]
        fn frames_survive_every_cut(cuts in proptest::collection::vec(1usize..40, 1..60)) {
            let sent = frames();
            let wire = bytes_of(&sent);
            let mut parser = Parser::default();
            let (mut buffer, mut received, mut at) = (BytesMut::new(), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                let end = wire.len().min(at + cut);
                buffer.extend_from_slice(&wire[at..end]);
                at = end;
                while let Some(frame) = parser.next(&mut buffer).unwrap() {
                    received.push(frame);
                }
                if at == wire.len() {
                    break;
                }
            }
            // Written again, parts of data included, they say the same.
            let data = |frames: &[Frame]| -> Vec<u8> {
                frames.iter().flat_map(|frame| match frame {
                    Frame::Data(part) => part.to_vec(),
                    _ => vec![],
                }).collect()
            };
            let rest = |frames: &[Frame]| -> Vec<Frame> {
                frames.iter().filter(|f| !matches!(f, Frame::Data(_))).cloned().collect()
            };
            prop_assert_eq!(data(&received), data(&sent));
            prop_assert_eq!(rest(&received), rest(&sent));
        }

        /// Whatever bytes come, the parser says frame, more, or no; and keeps nothing back.
        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut parser = Parser::default();
            while let Ok(Some(_)) = parser.next(&mut buffer) {}
        }
    }

    /// Lengths are judged by the header alone.
    #[test]
    fn wrong_lengths_are_refused_at_once() {
        let check = |kind: u8, length: u32| {
            let [a, b, c, d] = length.to_be_bytes();
            let mut bytes = BytesMut::from(&[kind, 0, 0, 0, a, b, c, d][..]);
            Parser::default().next(&mut bytes)
        };
        for kind in [OPEN, READY, SHELF, REFUSED, DATA, ACK, FIN, END, STOP, PING, PONG] {
            let length = u32::MAX;
            assert_eq!(check(kind, length), Err(FrameError::Length { kind, length }));
        }
        assert_eq!(check(DATA, 0), Err(FrameError::Length { kind: DATA, length: 0 }));
        assert_eq!(check(0, 0), Err(FrameError::Kind { kind: 0 }));
        let mut bytes = BytesMut::from(&[READY, 1, 0, 0, 0, 0, 0, 0][..]);
        assert_eq!(Parser::default().next(&mut bytes), Err(FrameError::Header));
    }
}
