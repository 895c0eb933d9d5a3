// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What PID 1 owes the kernel: mounts, modules, and the ways to end.

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

/// Written by the image builder: paths of modules, one a line, dependencies first.
const MODULE_LIST: &str = "/lib/modules/order";
/// How long a device may take to appear after its module was loaded.
const APPEARANCE: Duration = Duration::from_secs(10);
/// `struct input_event` on a 64-bit machine.
const INPUT_EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// How a guest ends by its own wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    PowerOff,
    Reboot,
    Panic,
}

pub(crate) fn mount_all() -> io::Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(place)?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)?;
    }
    Ok(())
}

/// Loads the modules in order and returns what went wrong. Modules for another hypervisor say that
/// there is no such device, which is no problem.
pub(crate) fn load_modules() -> Vec<String> {
    let list = fs::read_to_string(MODULE_LIST).unwrap_or_default();
    let load = |path: &str| -> io::Result<()> {
        match finit_module(File::open(path)?, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::ENODEV) => Ok(()),
            Err(error) => Err(error.into()),
        }
    };
    list.lines()
        .filter_map(|path| load(path).err().map(|error| format!("{path}: {error}")))
        .collect()
}

/// Waits until a path under /dev or /sys exists.
pub(crate) fn wait_for(path: &str) -> bool {
    let deadline = Instant::now() + APPEARANCE;
    while !Path::new(path).exists() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Tells whether the machine has PCI devices of a class (`0x0200` is a network card): only what
/// exists is worth waiting for.
pub(crate) fn has_pci_class(prefix: &str) -> bool {
    let devices = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    devices
        .filter_map(|device| fs::read_to_string(device.path().join("class")).ok())
        .any(|class| class.starts_with(prefix))
}

/// Ends the machine.
pub(crate) fn end(how: End) {
    nix::unistd::sync();
    let outcome = match how {
        End::PowerOff => reboot(RebootMode::RB_POWER_OFF).map(drop).map_err(io::Error::from),
        End::Reboot => reboot(RebootMode::RB_AUTOBOOT).map(drop).map_err(io::Error::from),
        End::Panic => fs::write("/proc/sysrq-trigger", "c"),
    };
    if let Err(error) = outcome {
        crate::say(&format!("cannot end the machine ({how:?}): {error}"));
    }
}

/// Says what this process was started for, if the guest's own kernel has started it: on Xen the
/// host asks the kernel, and that runs one of these programs.
pub(crate) fn told_by_the_kernel() -> Option<End> {
    match std::env::args().next()?.as_str() {
        "/sbin/poweroff" => Some(End::PowerOff),
        "/sbin/reboot" => Some(End::Reboot),
        _ => None,
    }
}

/// Powers off when the power button is pressed, on any input device.
pub(crate) fn obey_power_button() {
    let devices = fs::read_dir("/dev/input").into_iter().flatten().flatten();
    for device in devices.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"event"))
    {
        let Ok(mut events) = File::open(device.path()) else { continue };
        std::thread::spawn(move || {
            let mut event = [0; INPUT_EVENT_BYTES];
            while events.read_exact(&mut event).is_ok() {
                if is_power_button(&event) {
                    crate::say("power button: powering off");
                    end(End::PowerOff);
                }
            }
        });
    }
}

fn is_power_button(event: &[u8; INPUT_EVENT_BYTES]) -> bool {
    let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let is_pressed = event[20] == 1;
    half(16) == EV_KEY && half(18) == KEY_POWER && is_pressed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pressing is obeyed; letting go, and other keys, are not.
    #[test]
    fn only_a_pressed_power_button_counts() {
        let event = |kind: u8, code: u8, value: u8| {
            let mut event = [0; INPUT_EVENT_BYTES];
            (event[16], event[18], event[20]) = (kind, code, value);
            event
        };
        assert!(is_power_button(&event(1, 116, 1)));
        assert!(!is_power_button(&event(1, 116, 0)));
        assert!(!is_power_button(&event(1, 115, 1)));
        assert!(!is_power_button(&event(0, 116, 1)));
    }
}
