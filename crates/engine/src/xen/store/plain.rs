// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The same conversation without a runtime, for a program that lives for a moment.

use super::{DIRECTORY, ERROR, READ, WRITE, framed, payload_length, socket};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long xenstored may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Debug)]
pub(in crate::xen) struct Store(UnixStream);

impl Store {
    pub(in crate::xen) fn open() -> io::Result<Store> {
        let stream = UnixStream::connect(socket())?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Store(stream))
    }

    /// Reads a key; none where it is not there.
    pub(in crate::xen) fn read(&mut self, path: &str) -> io::Result<Option<String>> {
        let answer = self.ask(READ, &[path.as_bytes(), b"\0"].concat())?;
        Ok(answer.map(|bytes| String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()))
    }

    /// Returns the names below a key; none where it is not there.
    pub(in crate::xen) fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        let answer = self.ask(DIRECTORY, &[path.as_bytes(), b"\0"].concat())?.unwrap_or_default();
        let names = answer.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    pub(in crate::xen) fn write(&mut self, path: &str, value: &str) -> io::Result<()> {
        let done = self.ask(WRITE, &[path.as_bytes(), b"\0", value.as_bytes()].concat())?;
        done.map(drop).ok_or_else(|| io::Error::other(format!("xenstored does not know `{path}`")))
    }

    fn ask(&mut self, kind: u32, payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.0.write_all(&framed(kind, payload)?)?;
        let mut head = [0; super::HEADER_BYTES];
        self.0.read_exact(&mut head)?;
        let (answered, length) = payload_length(&head)?;
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer)?;
        match answered {
            ERROR if answer.starts_with(b"ENOENT") => Ok(None),
            ERROR => {
                let text = String::from_utf8_lossy(&answer);
                let text = text.trim_end_matches('\0');
                Err(io::Error::other(format!("xenstored answers `{text}`")))
            }
            _ => Ok(Some(answer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::store::PAYLOAD_BYTES_MAX;

    /// Answers what is asked with these, and returns what was asked.
    fn with(answers: Vec<(u32, Vec<u8>)>) -> (Store, std::thread::JoinHandle<Vec<Vec<u8>>>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let answering = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for (kind, answer) in answers {
                let mut head = [0; 16];
                theirs.read_exact(&mut head).unwrap();
                let mut payload = vec![0; payload_length(&head).unwrap().1];
                theirs.read_exact(&mut payload).unwrap();
                asked.push([&head[..4], &payload].concat());
                theirs.write_all(&framed(kind, &answer).unwrap()).unwrap();
            }
            asked
        });
        (Store(ours), answering)
    }

    #[test]
    fn keys_are_read_listed_and_written() {
        let (mut store, answering) = with(vec![
            (READ, b"fe:10".to_vec()),
            (ERROR, b"ENOENT\0".to_vec()),
            (DIRECTORY, b"1\x0012\0".to_vec()),
            (ERROR, b"ENOENT\0".to_vec()),
            (WRITE, b"OK\0".to_vec()),
            (ERROR, b"EACCES\0".to_vec()),
        ]);
        assert_eq!(store.read("/a").unwrap().as_deref(), Some("fe:10"));
        assert_eq!(store.read("/b").unwrap(), None);
        assert_eq!(store.list("/c").unwrap(), ["1", "12"]);
        assert_eq!(store.list("/d").unwrap(), Vec::<String>::new());
        store.write("/e", "connected").unwrap();
        assert!(store.write("/f", "x").unwrap_err().to_string().contains("EACCES"));
        let asked = answering.join().unwrap();
        assert_eq!(asked[0], b"\x02\0\0\0/a\0");
        // A value ends with its length, not with a NUL.
        assert_eq!(asked[4], b"\x0b\0\0\0/e\0connected");
    }

    /// An answer longer than the protocol allows is refused before memory is taken for it.
    #[test]
    fn answers_are_bounded() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"\x02\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff").unwrap();
        assert!(Store(ours).read("/tool").is_err());
        let too_long = "x".repeat(PAYLOAD_BYTES_MAX + 1);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(Store(ours).write("/a", &too_long).is_err());
    }
}
