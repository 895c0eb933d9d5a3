// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Every key that `xm` and `xl` knew, and what becomes of it here.

use std::fmt::Write as _;

/// Keys that are translated, and into what.
pub(super) const TRANSLATED: &[(&str, &str)] = &[
    ("name", "`name`"),
    ("uuid", "`uuid`"),
    ("memory", "`memory`; here a number in quotes has a unit: `\"512 MiB\"`"),
    ("maxmem", "none: a guest cannot grow beyond `memory`"),
    ("vcpus", "`vcpus`"),
    ("maxvcpus", "`vcpus_max`"),
    ("kernel", "`kernel` in `[boot]`; a boot loader of Xen's (`hvmloader`) is left out"),
    ("ramdisk", "`ramdisk` in `[boot]`"),
    ("root", "`root=…` in `command_line`"),
    ("extra", "the rest of `command_line`"),
    ("cmdline", "`command_line` in `[boot]`, instead of `root` and `extra`"),
    ("bootloader", "none: copy the kernel out of the guest's disk, or say `type = \"hvm\"`"),
    ("builder", "as `type`"),
    ("type", "`[boot]`: `hvm` boots by firmware, `pv` and `pvh` by `kernel`"),
    ("boot", "`from` in `[boot]`: the first letter counts"),
    ("firmware", "`firmware` in `[boot]`"),
    ("bios", "as `firmware`"),
    ("disk", "`[[disk]]`, with `path`, `format`, `read_only` and `device`"),
    ("vif", "`[[network]]`, with `bridge` and `mac`"),
    ("cpuid", "none but `host`: name a model by `cpu`"),
    ("on_poweroff", "`on_poweroff`"),
    ("on_reboot", "`on_reboot`"),
    ("on_crash", "`on_crash`"),
    ("on_shutdown", "as `on_poweroff`"),
    ("on_xend_start", "`autostart`"),
];

/// Keys without a meaning here, and why. They are named in a warning.
pub(super) const IGNORED: &[(&[&str], &str)] = &[
    (
        &["cpu", "cpus", "cpus_soft", "nodes", "vcpu_avail", "pool", "poolname"],
        "guests are not pinned to processors",
    ),
    (&["cpu_weight", "cpu_cap", "cap", "weight"], "the host's scheduler shares the processors"),
    (
        &[
            "vfb",
            "vnc",
            "vnclisten",
            "vncdisplay",
            "vncpasswd",
            "vncunused",
            "vncconsole",
            "vncviewer",
            "sdl",
            "opengl",
            "spice",
            "keymap",
            "stdvga",
            "vga",
            "videoram",
            "nographic",
            "display",
        ],
        "there is no graphical console; `whimbrel console` shows the serial one",
    ),
    (&["serial", "console"], "every guest has a serial console"),
    (
        &["usb", "usbdevice", "usbctrl", "soundhw", "audio"],
        "the guest has no USB and no sound; its tablet served the graphical console",
    ),
    (
        &["device_model", "device_model_version", "device_model_override", "device_model_user"],
        "the engine is chosen by the host's configuration",
    ),
    (
        &[
            "pae",
            "nx",
            "hap",
            "shadow_memory",
            "timer_mode",
            "tsc_mode",
            "hpet",
            "vpt_align",
            "viridian",
            "xen_platform_pci",
            "xen_extended_power_mgmt",
            "superpages",
            "oos",
            "e820_host",
            "machine_address_size",
            "suppress_spurious_page_faults",
            "max_event_channels",
            "max_grant_frames",
            "max_maptrack_frames",
            "altp2m",
            "vuart",
            "features",
            "seclabel",
            "access_control",
            "driver_domain",
            "acpi_s3",
            "acpi_s4",
            "loader",
            "blkif",
            "netif",
            "guest_os_type",
            "passthrough",
        ],
        "it is a detail of Xen",
    ),
    (&["on_xend_stop"], "guests outlive the daemon"),
    (&["nics"], "the cards are counted from `vif`"),
    (&["bootargs", "bootloader_args"], "it belongs to `bootloader`"),
];

/// Keys that give the guest something it cannot have here: refused unless they are off.
pub(super) const REFUSED_IF_ON: &[(&[&str], &str)] = &[
    (
        &[
            "pci",
            "usbdev",
            "irq",
            "ioports",
            "ioport",
            "iomem",
            "dtdev",
            "rdm",
            "gfx_passthru",
            "vscsi",
            "pvusb",
            "device_model_args",
            "device_model_args_hvm",
            "device_model_args_pv",
        ],
        "a device of the host cannot be given to a guest that may move",
    ),
    (
        &["vtpm", "tpmif", "channel", "p9", "vdispl", "vsnd", "vkb", "virtio", "pvcalls", "nvdimm"],
        "the guest would lack this device",
    ),
    (&["nestedhvm"], "guests cannot run guests of their own"),
    (&["nomigrate"], "every guest can move"),
    (&["localtime", "rtc_timeoffset"], "the guest's clock starts at UTC"),
    (
        &["ip", "netmask", "gateway", "dhcp", "interface", "nfs_server", "nfs_root"],
        "`xm` made a kernel argument of it; write that into `extra` (`ip=…`, `nfsroot=…`)",
    ),
];

/// Keys that take something from the guest: refused if they are off.
pub(super) const REFUSED_IF_OFF: &[(&[&str], &str)] = &[
    (&["acpi"], "the guest always has ACPI: without it, nobody could ask it to shut down"),
    (&["apic"], "the guest always has an APIC"),
];

/// What becomes of a key.
pub(super) enum Fate {
    Translated,
    Ignored(&'static str),
    RefusedIfOn(&'static str),
    RefusedIfOff(&'static str),
    Unknown,
}

pub(super) fn fate(key: &str) -> Fate {
    let find = |table: &[(&[&str], &'static str)]| {
        table.iter().find(|(keys, _)| keys.contains(&key)).map(|&(_, why)| why)
    };
    if TRANSLATED.iter().any(|(known, _)| *known == key) {
        return Fate::Translated;
    }
    if let Some(why) = find(IGNORED) {
        return Fate::Ignored(why);
    }
    if let Some(why) = find(REFUSED_IF_ON) {
        return Fate::RefusedIfOn(why);
    }
    find(REFUSED_IF_OFF).map_or(Fate::Unknown, Fate::RefusedIfOff)
}

/// Returns the part of `docs/reference/old-files.md` that is about guests.
pub(super) fn reference() -> String {
    let mut text = String::from(
        "## Guests: files of `xm` and `xl`\n\nThey are read as data and never executed, by \
         `whimbrel create` and `xm create`.\n\n| key | here |\n| --- | --- |\n",
    );
    let mut row = |keys: &[&str], here: &str| {
        let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
        writeln!(text, "| {} | {here} |", keys.join(" ")).expect("a string grows");
    };
    for (key, here) in TRANSLATED {
        row(&[*key], here);
    }
    for (keys, why) in IGNORED {
        row(keys, &format!("left out, with a warning: {why}"));
    }
    for (keys, why) in REFUSED_IF_ON {
        row(keys, &format!("refused, unless off: {why}"));
    }
    for (keys, why) in REFUSED_IF_OFF {
        row(keys, &format!("refused, if off: {why}"));
    }
    text
}
