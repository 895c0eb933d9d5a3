// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Server-sent events, decoded within limits.

use super::lost;
use crate::event::Event;
use crate::limits::EVENT_BYTES_MAX;
use crate::problem::Problem;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::time::Duration;

/// The daemon sends something at least every 15 seconds; a longer silence is a dead connection.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    decoder: Decoder,
}

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, decoder: Decoder::default() }
    }

    /// Returns the next event, or nothing when the daemon has ended the stream. May be dropped at
    /// any time without losing an event. Events of kinds that this client does not know are left
    /// out.
    pub async fn next(&mut self) -> Option<Result<Event, Problem>> {
        loop {
            match self.decoder.next() {
                Ok(Some(json)) => match serde_json::from_str(&json) {
                    Ok(event) => return Some(Ok(event)),
                    Err(error) if is_unknown_kind(&json) => drop(error),
                    Err(error) => return Some(Err(lost(&format!("a bad event: {error}")))),
                },
                Ok(None) => match self.read().await {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(problem) => return Some(Err(problem)),
                },
                Err(TooLarge) => {
                    return Some(Err(lost(&format!("an event over {EVENT_BYTES_MAX} bytes"))));
                }
            }
        }
    }

    async fn read(&mut self) -> Result<bool, Problem> {
        match tokio::time::timeout(SILENCE_MAX, self.body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    self.decoder.push(&data);
                }
                Ok(true)
            }
            Ok(Some(Err(error))) => Err(lost(&error.to_string())),
            Ok(None) => Ok(false),
            Err(_) => Err(lost(&format!("silent for {} s", SILENCE_MAX.as_secs()))),
        }
    }
}

/// Whether the event is one of a later version of the contract.
fn is_unknown_kind(json: &str) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_str(json).ok();
    let kind = value.as_ref().and_then(|value| value["kind"].as_str());
    kind.is_some_and(|kind| !Event::KINDS.contains(&kind))
}

/// An event or a line is over the limit.
#[derive(Debug, PartialEq, Eq)]
struct TooLarge;

/// Takes bytes, gives the `data` of events. Pure.
#[derive(Debug, Default)]
struct Decoder {
    /// What has come and is not a whole line yet.
    buffer: Vec<u8>,
    /// Where in `buffer` the next line begins.
    start: usize,
    /// The `data` lines of the event so far.
    data: String,
}

impl Decoder {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Result<Option<String>, TooLarge> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                if !self.data.is_empty() {
                    return Ok(Some(std::mem::take(&mut self.data)));
                }
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
                if self.data.len() > EVENT_BYTES_MAX {
                    return Err(TooLarge);
                }
            }
            // Comments keep the connection alive; other fields repeat what is in the data.
        }
        Ok(None)
    }

    fn line(&mut self) -> Result<Option<String>, TooLarge> {
        let rest = &self.buffer[self.start..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return if rest.len() > EVENT_BYTES_MAX { Err(TooLarge) } else { Ok(None) };
        };
        let line = rest[..length].strip_suffix(b"\r").unwrap_or(&rest[..length]);
        let line = String::from_utf8_lossy(line).into_owned();
        self.start += length + 1;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(chunks: &[&str]) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for chunk in chunks {
            decoder.push(chunk.as_bytes());
            while let Some(event) = decoder.next().unwrap() {
                events.push(event);
            }
        }
        events
    }

    /// Events are found whatever the cuts, comments and line ends.
    #[test]
    fn events_are_decoded() {
        let check = |chunks: &[&str], expected: &[&str]| assert_eq!(decode(chunks), expected);
        check(&["event: guest\ndata: {}\n\n"], &["{}"]);
        check(&["da", "ta: a", "\n", "\ndata: b\r\n\r\n"], &["a", "b"]);
        check(&[": keep-alive\n\n", "data:x\ndata: y\n\n"], &["x\ny"]);
        check(&["data: not ended"], &[]);
    }

    /// Neither a line without end nor an event of many lines is collected without limit.
    #[test]
    fn events_are_bounded() {
        let mut decoder = Decoder::default();
        decoder.push(&vec![b'a'; EVENT_BYTES_MAX + 1]);
        assert_eq!(decoder.next(), Err(TooLarge));

        let mut decoder = Decoder::default();
        decoder.push("data: 0123456789abcdef\n".repeat(EVENT_BYTES_MAX / 16 + 1).as_bytes());
        assert_eq!(decoder.next(), Err(TooLarge));
    }

    /// A daemon that is newer than this client may send events it does not know; garbage is still
    /// an error.
    #[test]
    fn only_unknown_kinds_are_forgiven() {
        assert!(is_unknown_kind(r#"{"kind":"eclipse","data":{}}"#));
        assert!(!is_unknown_kind(r#"{"kind":"guest","data":{}}"#));
        assert!(!is_unknown_kind("nonsense"));
    }
}
