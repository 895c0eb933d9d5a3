// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Are two bridges one network segment? A host speaks on its own, another listens on its own.
//!
//! ```text
//!   broadcast, from the bridge's own address, type 0x88b5 (for local experiments)
//!   "whimbrel", then a token of 16 bytes that was drawn for this question
//! ```
//!
//! A few frames of the smallest size: they may be lost, and a listener may come late.

use nix::sys::socket::{LinkAddr, bind, setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use whimbrel_model::facts::{Heard, SegmentFacts};

const ETHERTYPE: u16 = 0x88b5;
const MAGIC: &[u8; 8] = b"whimbrel";
const HEADER_BYTES: usize = 14;
/// The smallest frame that Ethernet carries.
const FRAME_BYTES: usize = 60;
/// How long a listener waits in vain for one frame before it looks at the clock.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Bridges a guest may be on.
const BRIDGES_MAX: usize = whimbrel_model::guest::NETWORKS_MAX;

/// Tells the frames of one question from those of others.
pub type Token = [u8; 16];

/// Speaks on bridges of this host.
#[derive(Debug)]
pub struct Speaker {
    voices: Vec<(String, io::Result<Voice>)>,
}

/// A socket on a bridge, and the frame it sends.
type Voice = (File, [u8; FRAME_BYTES]);

impl Speaker {
    pub fn new(bridges: &[String], token: Token) -> Self {
        let voices = bridges.iter().take(BRIDGES_MAX).map(|bridge| {
            let voice = open(bridge).map(|(socket, own)| (socket, frame(own, token)));
            (bridge.clone(), voice)
        });
        Self { voices: voices.collect() }
    }

    /// Sends one frame on every bridge.
    pub fn speak(&mut self) {
        for (_, voice) in &mut self.voices {
            let Ok((socket, frame)) = voice else { continue };
            if let Err(error) = socket.write_all(frame) {
                *voice = Err(error);
            }
        }
    }

    /// Says on which bridges there was anything to be heard.
    pub fn facts(self) -> Vec<SegmentFacts> {
        let facts = self.voices.into_iter().map(|(bridge, voice)| {
            let heard = voice.map_or_else(not_tried, |_| Heard::Frames);
            SegmentFacts { bridge, heard }
        });
        facts.collect()
    }
}

/// Listens on bridges of this host, on all at once, until each has heard a frame with this token,
/// or for so long. Blocks.
pub fn listen(bridges: &[String], token: Token, patience: Duration) -> Vec<SegmentFacts> {
    // All are open before any waits.
    let ears: Vec<_> =
        bridges.iter().take(BRIDGES_MAX).map(|bridge| (bridge.clone(), open(bridge))).collect();
    std::thread::scope(|scope| {
        let listening: Vec<_> = ears
            .into_iter()
            .map(|(bridge, ear)| {
                scope.spawn(move || {
                    let heard = ear.and_then(|(socket, _)| wait_for(socket, token, patience));
                    SegmentFacts { bridge, heard: heard.unwrap_or_else(not_tried) }
                })
            })
            .collect();
        let heard = listening.into_iter();
        heard.map(|ear| ear.join().expect("a panic has ended the process")).collect()
    })
}

fn not_tried(error: io::Error) -> Heard {
    Heard::NotTried { reason: error.to_string() }
}

fn wait_for(mut socket: File, token: Token, patience: Duration) -> io::Result<Heard> {
    let micros = i64::try_from(LOOK_EVERY.as_micros()).unwrap_or(i64::MAX);
    setsockopt(&socket, ReceiveTimeout, &TimeVal::microseconds(micros))?;
    let began = Instant::now();
    let mut buffer = [0; FRAME_BYTES];
    while began.elapsed() < patience {
        match socket.read(&mut buffer) {
            Ok(length) if is_meant(&buffer[..length], token) => return Ok(Heard::Frames),
            Ok(_) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
    let waited_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    Ok(Heard::Silence { waited_ms })
}

/// Opens a socket on a bridge, and returns the bridge's own address, too.
fn open(bridge: &str) -> io::Result<(File, [u8; 6])> {
    let link = link_of(bridge)?;
    let own = link.addr().ok_or_else(|| io::Error::other("it has no hardware address"))?;
    let socket = crate::sys::packet_socket(ETHERTYPE)?;
    // Without a type of its own, the address leaves the socket that of its creation.
    bind(socket.as_raw_fd(), &link)?;
    Ok((File::from(socket), own))
}

fn link_of(bridge: &str) -> io::Result<LinkAddr> {
    let mut interfaces = nix::ifaddrs::getifaddrs()?;
    let found = interfaces.find_map(|interface| {
        let is_meant = interface.interface_name == bridge;
        is_meant.then(|| interface.address?.as_link_addr().copied()).flatten()
    });
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such link"))
}

fn frame(own: [u8; 6], token: Token) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&own);
    frame[12..HEADER_BYTES].copy_from_slice(&ETHERTYPE.to_be_bytes());
    let (magic, rest) = frame[HEADER_BYTES..].split_at_mut(MAGIC.len());
    magic.copy_from_slice(MAGIC);
    rest[..token.len()].copy_from_slice(&token);
    frame
}

fn is_meant(frame: &[u8], token: Token) -> bool {
    let body = frame.get(HEADER_BYTES..).unwrap_or_default();
    body.strip_prefix(MAGIC).is_some_and(|rest| rest.starts_with(&token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, setns, unshare};
    use rtnetlink::{LinkBridge, LinkUnspec, LinkVeth};

    const TOKEN: Token = [7; 16];

    #[test]
    fn frames_are_told_apart() {
        let frame = frame([2; 6], TOKEN);
        assert!(is_meant(&frame, TOKEN));
        assert!(!is_meant(&frame, [8; 16]) && !is_meant(&frame[..30], TOKEN));
        assert!(!is_meant(&[], TOKEN) && !is_meant(&[0; FRAME_BYTES], TOKEN));
    }

    /// Two namespaces with a bridge each: what one says is heard on the other while a wire joins
    /// them, and is not once its port has left the bridge.
    #[tokio::test]
    async fn a_wire_makes_one_segment_of_two() {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            println!("SKIPPED: a network namespace of its own needs root");
            return;
        }
        // This thread's own: /proc/self is that of the process's first thread.
        let here = File::open("/proc/thread-self/ns/net").unwrap();
        let network = super::super::Network::open().unwrap();
        let links = || network.handle.link();
        for bridge in ["br0", "br1"] {
            links().add(LinkBridge::new(bridge).up().build()).execute().await.unwrap();
        }
        links().add(LinkVeth::new("w0", "w1").build()).execute().await.unwrap();
        for (port, bridge) in [("w0", "br0"), ("w1", "br1")] {
            let port = network.handle.link().get().match_name(port);
            let port = futures::TryStreamExt::try_next(&mut port.execute()).await.unwrap().unwrap();
            let bridge = network.bridge(bridge).await.unwrap().index;
            let message = LinkUnspec::new_with_index(port.header.index).controller(bridge).up();
            links().set(message.build()).execute().await.unwrap();
        }
        let ask = |bridge: &'static str, patience| {
            let here = here.try_clone().unwrap();
            let listener = std::thread::spawn(move || {
                setns(here, CloneFlags::CLONE_NEWNET).unwrap();
                listen(&[bridge.to_owned()], TOKEN, patience)
            });
            let mut speaker = Speaker::new(&["br0".to_owned()], TOKEN);
            while !listener.is_finished() {
                speaker.speak();
                std::thread::yield_now();
            }
            assert_eq!(speaker.facts()[0].heard, Heard::Frames);
            listener.join().unwrap()[0].heard.clone()
        };
        assert_eq!(ask("br1", Duration::from_secs(10)), Heard::Frames);
        assert!(matches!(ask("br7", Duration::from_secs(10)), Heard::NotTried { .. }));
        let name = |name: &str| links().get().match_name(name.to_owned());
        let port = futures::TryStreamExt::try_next(&mut name("w1").execute()).await;
        let index = port.unwrap().unwrap().header.index;
        let alone = LinkUnspec::new_with_index(index).nocontroller().build();
        links().set(alone).execute().await.unwrap();
        let silence = ask("br1", Duration::from_millis(200));
        assert_eq!(silence, Heard::Silence { waited_ms: 200 });
    }
}
