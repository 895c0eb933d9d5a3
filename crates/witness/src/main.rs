// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The witness: the only program in the test guest.
//!
//! Tests of a hypervisor that ask the hypervisor how it went prove little. So the guest itself
//! keeps checked pages in memory, counts on its disks, answers ticks on the network, and says what
//! it saw; see [`service`] for how it is asked. It is PID 1 of an initramfs without any other
//! program, so it also mounts, loads modules and obeys the power button. A disk may hold a real
//! distribution for it to run commands in: see [`userland`].

mod disk;
mod machine;
mod memory;
mod network;
mod page;
mod parameters;
mod record;
mod service;
mod state;
mod userland;

use crate::parameters::Parameters;
use crate::service::{Request, Service};
use crate::state::State;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

static CONSOLE: OnceLock<File> = OnceLock::new();

/// Says a line on the console.
fn say(line: &str) {
    if let Some(mut console) = CONSOLE.get() {
        // One write, so that lines of several threads do not mix. A console that is gone cannot
        // be complained to.
        let _ = console.write_all(format!("witness: {line}\n").as_bytes());
    }
}

fn main() -> ExitCode {
    if let Some(refused) = userland::enter() {
        return refused;
    }
    if let Some(how) = machine::told_by_the_kernel() {
        machine::end(how);
        return ExitCode::FAILURE;
    }
    if std::process::id() != 1 {
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "witness: made to be PID 1 of a test guest, not to be run here");
        return ExitCode::from(2);
    }
    let mounted = machine::mount_all();
    if let Ok(console) = OpenOptions::new().read(true).write(true).open("/dev/console") {
        CONSOLE.get_or_init(|| console);
    }
    if let Err(error) = mounted {
        say(&format!("cannot mount: {error}"));
    }
    for problem in machine::load_modules() {
        say(&format!("module not loaded: {problem}"));
    }
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let parameters = Parameters::parse(&command_line);
    for word in &parameters.complaints {
        say(&format!("cannot read `{word}` on the kernel command line"));
    }
    witness(&parameters);
    // PID 1 must not end: the kernel would panic.
    loop {
        std::thread::park();
    }
}

fn witness(parameters: &Parameters) {
    // Lives as long as the machine, and so may every thread's view of it.
    let state: &State = Box::leak(Box::new(State::new(parameters.seed, parameters.dirty)));
    let verify = memory::start(parameters, state);
    await_devices();
    let userland = parameters.userland.as_deref();
    disk::start(Duration::from_millis(parameters.disk_interval_ms), userland, state);
    let userland = userland.and_then(|disk| match userland::start(disk, state) {
        Ok(userland) => Some(userland),
        Err(error) => {
            state.report(&format!("no userland on {disk}: {error}"));
            None
        }
    });
    if let Some(disk) = &parameters.cached
        && let Err(error) = disk::read_whole(disk)
    {
        state.report(&format!("{disk} cannot be read: {error}"));
    }
    let service = Service { state, verify, userland };
    machine::obey_power_button();
    if let Err(error) = start_network(parameters, &service) {
        state.report(&format!("no network: {error}"));
    }
    let every = Duration::from_secs(parameters.heartbeat_s);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(every);
            say(&heartbeat(state));
        }
    });
    say("ready");
    if let Some(console) = CONSOLE.get() {
        serve_console(console, &service);
    }
}

/// Virtio devices appear a moment after their modules; only those that exist are waited for.
fn await_devices() {
    if machine::has_pci_class("0x0100") {
        machine::wait_for("/dev/vda");
    }
}

fn start_network(parameters: &Parameters, service: &Service) -> std::io::Result<()> {
    network::bring_up("lo", None)?;
    if parameters.address.is_none() {
        return Ok(());
    }
    machine::wait_for("/sys/class/net/eth0");
    network::bring_up("eth0", parameters.address)?;
    let here = (Ipv4Addr::UNSPECIFIED, parameters.port);
    let (listener, socket) = (TcpListener::bind(here)?, UdpSocket::bind(here)?);
    let (tcp, udp) = (service.clone(), service.clone());
    std::thread::spawn(move || tcp.serve_tcp(&listener));
    std::thread::spawn(move || udp.serve_udp(&socket));
    Ok(())
}

/// Something to see on a console where nobody types.
fn heartbeat(state: &State) -> String {
    let errors = state.memory.errors.load(Relaxed);
    let [first, second] = [0, 1].map(|index| state.disks[index].counter.load(Relaxed));
    format!(
        "up {} s, disks at {first} and {second}, memory {}, dirty {}",
        state.uptime_ms() / 1000,
        if errors == 0 { "whole".to_owned() } else { format!("DAMAGED ({errors} pages)") },
        state.dirty().kind.name(),
    )
}

/// A prompt like a login's, for tests of the console: what is typed is echoed by the terminal and
/// answered as over the network.
fn serve_console(console: &File, service: &Service) {
    let mut reader = BufReader::new(console);
    loop {
        let mut writer = console;
        let _ = writer.write_all(b"witness login: ");
        let Ok(line) = service::read_line(&mut reader) else {
            // A line too long, or a console that hung up for a moment: ask again, not in a frenzy.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let Some(line) = line else { return };
        let Some(request) = service::parse(&line) else {
            let _ = writer.write_all(format!("Login incorrect: {}\n", line.trim()).as_bytes());
            continue;
        };
        let _ = writer.write_all(format!("{}\n", service.answer(&request)).as_bytes());
        if let Request::End(how) = request {
            machine::end(how);
        }
    }
}
