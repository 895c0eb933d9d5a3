// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The end of what a console has shown, so that attaching again neither repeats nor loses a line.

use std::collections::VecDeque;

/// How much is remembered: enough to be found only where it belongs.
const TAIL_BYTES_MAX: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
        self.0.extend(end);
        self.0.drain(..self.0.len().saturating_sub(TAIL_BYTES_MAX));
    }

    /// Returns the part of `scrollback` that follows what was shown; all of it if nothing was
    /// shown yet, or if what was shown is not there any more.
    pub(super) fn new_part<'a>(&mut self, scrollback: &'a [u8]) -> &'a [u8] {
        let shown = self.0.make_contiguous();
        if shown.is_empty() {
            return scrollback;
        }
        let last = scrollback.windows(shown.len()).rposition(|window| window == &*shown);
        last.map_or(scrollback, |position| &scrollback[position + shown.len()..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_shown() {
        let mut tail = Tail::default();
        assert_eq!(tail.new_part(b"all"), b"all");
        tail.push(b"one\ntwo\n");
        assert_eq!(tail.new_part(b"zero\none\ntwo\nthree\n"), b"three\n");
        assert_eq!(tail.new_part(b"one\ntwo\n"), b"");
        assert_eq!(tail.new_part(b"another machine\n"), b"another machine\n");
        assert_eq!(tail.new_part(b""), b"");
        tail.push(&[b'x'; TAIL_BYTES_MAX]);
        let mut scrollback = vec![b'x'; TAIL_BYTES_MAX + 7];
        scrollback.push(b'y');
        assert_eq!(tail.new_part(&scrollback), b"y");
    }
}
