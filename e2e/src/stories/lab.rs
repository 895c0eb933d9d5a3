// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The lab itself: what it promises the other stories.

use crate::lab::{ENGINE_UID, Lab, Remains, SHARED, Share};
use crate::setting::Setting;
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn shell(host: &crate::lab::Host, script: &str) -> Result<crate::lab::Ran> {
    host.command(Path::new("/bin/sh"), &["-c", script], "")
}

/// Hosts have their own names, users and directories, and share one.
pub(super) fn hosts_are_hosts(setting: &Setting) -> Result<()> {
    let (lab, _) = setting.lab()?;
    for host in [&lab.alpha, &lab.beta] {
        let facts = shell(host, "uname -n; id -u whimbrel; ls /sys/class/net")?.ok()?;
        let expected = [host.name.clone(), ENGINE_UID.to_string(), "br0".to_owned()];
        for line in &expected {
            ensure!(facts.lines().any(|other| other == line), "{line} is not in: {facts}");
        }
        shell(host, "echo $(uname -n) >/etc/own; mkdir /run/own; touch /var/lib/own")?.ok()?;
    }
    shell(&lab.alpha, &format!("echo hello >{SHARED}/letter"))?.ok()?;
    ensure!(shell(&lab.beta, &format!("cat {SHARED}/letter"))?.ok()? == "hello\n");
    ensure!(shell(&lab.beta, "cat /etc/own")?.ok()? == "beta\n", "beta sees alpha's file");
    for path in ["/etc/own", "/run/own", "/var/lib/own"] {
        ensure!(!Path::new(path).exists(), "{path} was made on the machine below");
    }
    Ok(())
}

/// A host that may not write the shared directory, or does not have it.
pub(super) fn the_shared_directory_can_be_withheld(setting: &Setting) -> Result<()> {
    let (lab, _) = setting.lab()?;
    let write = format!("touch {SHARED}/x");
    lab.beta.see_shared(Share::ReadOnly)?;
    ensure!(!shell(&lab.beta, &write)?.status.success(), "written to a read-only directory");
    ensure!(shell(&lab.alpha, &write)?.status.success(), "read-only on the other host, too");
    lab.beta.see_shared(Share::Hidden)?;
    ensure!(shell(&lab.beta, &format!("ls {SHARED}"))?.ok()?.is_empty(), "still to be seen");
    lab.beta.see_shared(Share::Writable)?;
    shell(&lab.beta, &write)?.ok()?;
    Ok(())
}

/// Wires can be shaped, pulled and counted.
pub(super) fn wires_obey(setting: &Setting) -> Result<()> {
    let (lab, _) = setting.lab()?;
    let send = |mebibytes: u64| -> Result<Duration> {
        let listener = lab.beta.place.run(|| std::net::TcpListener::bind("0.0.0.0:9999"))?;
        let receiver = std::thread::spawn(move || -> std::io::Result<u64> {
            std::io::copy(&mut listener.accept()?.0, &mut std::io::sink())
        });
        let started = Instant::now();
        let address = (lab.beta.address, 9999);
        let mut stream = lab.alpha.place.run(move || std::net::TcpStream::connect(address))?;
        std::io::copy(&mut std::io::Read::take(std::io::repeat(7), mebibytes << 20), &mut stream)?;
        drop(stream);
        let received = receiver.join().ok().context("the receiver panicked")??;
        ensure!(received == mebibytes << 20, "{received} bytes arrived");
        Ok(started.elapsed())
    };
    send(4)?;
    lab.alpha.set_rate(Some(80))?;
    let before = lab.alpha.traffic()?;
    let took = send(4)?;
    let sent = lab.alpha.traffic()?.since(before).sent;
    // 4 MiB at 10 MB/s are 0.42 s.
    ensure!(took > Duration::from_millis(300), "80 Mbit/s carried 4 MiB in {took:?}");
    ensure!((4 << 20..6 << 20).contains(&sent), "{sent} bytes counted for 4 MiB");
    lab.alpha.set_rate(None)?;
    ensure!(send(4)? < took, "the limit was not lifted");

    lab.beta.unplug()?;
    let address = std::net::SocketAddr::from((lab.beta.address, 9999));
    let patience = Duration::from_millis(300);
    let refused =
        lab.alpha.place.run(move || std::net::TcpStream::connect_timeout(&address, patience));
    ensure!(refused.is_err(), "a pulled wire carries");
    lab.beta.plug_in()?;
    send(1)?;

    lab.beta.set_deaf(true)?;
    let deaf =
        lab.alpha.place.run(move || std::net::TcpStream::connect_timeout(&address, patience));
    ensure!(deaf.is_err(), "a deaf host hears");
    lab.beta.set_deaf(false)?;
    send(1)?;

    lab.beta.set_blocked(Some(address.port()))?;
    let blocked = lab.alpha.place.run(move || std::net::TcpStream::connect(address));
    let kind = blocked.err().map(|error| error.kind());
    ensure!(kind == Some(std::io::ErrorKind::HostUnreachable), "a blocked port says {kind:?}");
    lab.beta.set_blocked(None)?;
    send(1)?;
    Ok(())
}

/// Two labs stand beside each other, and a removed one leaves nothing: no process, no namespace, no
/// file.
pub(super) fn labs_coexist_and_leave_nothing(setting: &Setting) -> Result<()> {
    let first = Lab::new(&setting.program()?)?;
    let second = Lab::new(&setting.program()?)?;
    let mut sleeper = Command::new("sleep");
    sleeper.arg("1000");
    let mut child = first.beta.spawn(sleeper)?;
    let prefix = first.prefix().to_owned();
    drop(first);
    ensure!(child.try_wait()?.is_some(), "a process outlived its lab");
    ensure!(!Remains::named(&prefix).exist(), "the lab left something behind");
    shell(&second.alpha, "true")?.ok()?;
    Ok(())
}
