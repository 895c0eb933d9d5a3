// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Stop and copy: `xl save` writes the same stream that `xl migrate` does, of a guest that stands
//! still meanwhile.
//!
//! It is never interrupted: a guest whose `xl save` dies stays suspended, and `xl` knows no word
//! that wakes it. Whatever becomes of the stream is read to its end; then the guest is there,
//! paused, and is let go on if it is to stay.

use super::{CHANNEL, Phase, RECEIVED, Shared, answer_source, expect, pump};
use crate::xen::record::Record;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Sends the guest of this directory.
pub(super) fn save(directory: &Path, control: UnixListener) -> io::Result<()> {
    let record = Record::read(directory).map_err(io::Error::other)?;
    let name = record.ok_or_else(|| io::Error::other("there is no guest here"))?.name;
    let channel = UnixStream::connect(directory.join(CHANNEL))?;
    let shared = Shared::new();
    answer_source(control, &shared);
    let (mut domain, theirs) = io::pipe()?;
    let mut command = Command::new("xl");
    command.args(["save", "-p", &name, "/dev/stdin"]);
    // What it writes to is a pipe, so `stdin` is but a name for it; `stdout` is for its words.
    command.stdin(OwnedFd::from(theirs)).stdout(io::stderr()).stderr(Stdio::inherit());
    let mut child = command.spawn()?;
    drop(command);
    let (forward, pumping) = (channel.try_clone()?, Arc::clone(&shared));
    let reading = std::thread::spawn(move || {
        if let Err(error) = pump(&mut domain, forward, &pumping) {
            pumping.fail(&error.to_string());
        }
        let mut rest = [0; 4096];
        while domain.read(&mut rest).is_ok_and(|length| length > 0) {}
    });
    let status = child.wait()?;
    let _ = reading.join();
    if !status.success() {
        shared.fail("xl could not save the guest");
    }
    let mut backward = channel.try_clone()?;
    match expect(&mut backward, RECEIVED) {
        Ok(()) => drop(shared.leave_travelling(Phase::Arrived)),
        Err(_) => shared.fail("the link to the target was closed"),
    }
    // Nothing more comes from here: the digests of both ends can be compared.
    let _ = channel.shutdown(Shutdown::Write);
    let ended = shared.wait_while(|phase| matches!(phase, Phase::Travelling | Phase::Arrived));
    if ended != (Phase::Settled { is_well: true }) {
        Command::new("xl").args(["unpause", &name]).stdin(Stdio::null()).status()?;
    }
    Ok(())
}
