// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The keys of the guest file. The reader refuses every other, and the reference page prints them.

use crate::text_file::{Key, Section};

pub(super) const INTRO: &str = r#"
A guest file says what a guest is. `whimbrel create web1.toml` defines and starts it, `whimbrel show
web1 --toml` prints it back, complete. Sizes are written with their unit (`512 MiB`, `4G`). Relative
paths start at the folder of the file. A key that is not listed here is refused.

```toml
name = "web1"
memory = "512 MiB"
vcpus = 2

[boot]
kernel = "/xen/vmlinuz"
ramdisk = "/xen/initrd.img"
command_line = "root=/dev/vda ro console=ttyS0"

[[disk]]
path = "/xen/web1.img"

[[disk]]
path = "/xen/web1-swap.img"

[[network]]
bridge = "br0"
```
"#;

pub(super) static TOP: Section = Section {
    header: "",
    about: "What the guest is called, how large it is, and what happens when it ends.",
    keys: &[
        Key { name: "version", value: "`1`", default: "`1`", about: "The version of the format." },
        Key {
            name: "name",
            value: "letters, digits, `.`, `_` and `-`; not digits only; at most 63 bytes",
            default: "none: it must be given",
            about: "The guest's name, unique on every host it may run on.",
        },
        Key {
            name: "uuid",
            value: "a uuid",
            default: "drawn when the guest is defined",
            about: "The guest's identity for all its life, on every host; its firmware sees it, \
                    too.",
        },
        Key {
            name: "memory",
            value: "a size in whole MiB, from 16 MiB",
            default: "none: it must be given",
            about: "The memory the guest boots with.",
        },
        Key {
            name: "memory_min",
            value: "a size in whole MiB, at most `memory`",
            default: "none: the guest is never squeezed",
            about: "What a host may squeeze the guest down to, by its balloon, to make room for \
                    another.",
        },
        Key {
            name: "vcpus",
            value: "a number from 1 to 255",
            default: "`1`",
            about: "How many virtual CPUs the guest boots with.",
        },
        Key {
            name: "vcpus_max",
            value: "a number from `vcpus` to 255",
            default: "`vcpus`",
            about: "How many virtual CPUs the guest could be given later.",
        },
        Key {
            name: "cpu",
            value: "a CPU model of the engine, with flags: `\"Skylake-Server,-hle\"`",
            default: "the named model of the host the guest first starts on",
            about: "What processor the guest sees. It can move to hosts that have all of its \
                    features.",
        },
        Key {
            name: "machine",
            value: "a machine type of the engine: `\"pc-q35-7.2\"`",
            default: "the engine's default when the guest first starts, then frozen",
            about: "The board the guest sees. A versioned one runs on every host that knows it.",
        },
        Key {
            name: "on_poweroff",
            value: "`\"destroy\"`, `\"restart\"` or `\"preserve\"`",
            default: "`\"destroy\"`",
            about: "What happens when the guest powers itself off: it is stopped, it starts again, \
                    or its engine is kept for a look.",
        },
        Key {
            name: "on_reboot",
            value: "`\"destroy\"`, `\"restart\"` or `\"preserve\"`",
            default: "`\"restart\"`",
            about: "What happens when the guest reboots.",
        },
        Key {
            name: "on_crash",
            value: "`\"destroy\"`, `\"restart\"` or `\"preserve\"`",
            default: "`\"restart\"`",
            about: "What happens when the guest's kernel panics or its engine dies.",
        },
        Key {
            name: "autostart",
            value: "`true` or `false`",
            default: "`false`",
            about: "Whether the guest starts when its host has booted. It follows the guest when \
                    it moves.",
        },
        Key {
            name: "keep_memory",
            value: "`true` or `false`",
            default: "`true`",
            about: "Whether a host that the guest leaves may keep its memory, sealed with a key \
                    that leaves with the guest, so that coming back is quick. A host keeps none \
                    where its configuration says so (`keep` under `[pages]`).",
        },
        Key {
            name: "balloon",
            value: "`true` or `false`",
            default: "`true`",
            about: "Whether the guest has a balloon device.",
        },
        Key {
            name: "rng",
            value: "`true` or `false`",
            default: "`true`",
            about: "Whether the guest has a source of random numbers.",
        },
        Key {
            name: "serial",
            value: "`true` or `false`",
            default: "`true`",
            about: "Whether the guest has a serial port, `ttyS0`; `whimbrel console` talks to it.",
        },
        Key { name: "boot", value: "", default: "", about: "" },
        Key { name: "disk", value: "", default: "", about: "" },
        Key { name: "network", value: "", default: "", about: "" },
    ],
};

pub(super) static BOOT: Section = Section {
    header: "[boot]",
    about: "What the guest boots: a kernel that the engine loads, or a disk through its firmware. \
            Without this table the guest boots its first disk by BIOS.",
    keys: &[
        Key {
            name: "kernel",
            value: "a path on the host",
            default: "none: the firmware boots a disk",
            about: "The kernel that the engine loads. Every host the guest may reboot on needs it.",
        },
        Key {
            name: "ramdisk",
            value: "a path on the host",
            default: "none",
            about: "The initial ramdisk that goes with the kernel.",
        },
        Key {
            name: "command_line",
            value: "one line, at most 2047 bytes",
            default: "empty",
            about: "The kernel's command line. `console=ttyS0` makes it talk to `whimbrel \
                    console`.",
        },
        Key {
            name: "firmware",
            value: "`\"bios\"` or `\"uefi\"`",
            default: "`\"bios\"`",
            about: "The firmware that boots a disk.",
        },
        Key {
            name: "from",
            value: "`\"disk\"` or `\"cdrom\"`",
            default: "`\"disk\"` where there is one, else `\"cdrom\"`",
            about: "Which kind of disk the firmware tries first.",
        },
    ],
};

pub(super) static DISK: Section = Section {
    header: "[[disk]]",
    about: "One table for each disk, in the guest's order: the first is `vda`, the second `vdb`. \
            To move a guest, every host must reach its disks at the same place.",
    keys: &[
        Key {
            name: "path",
            value: "a path on the host",
            default: "none: `path` or `nfs` must be given",
            about: "An image file or a block device.",
        },
        Key {
            name: "nfs",
            value: "`\"nfs://server/export/image\"`",
            default: "none: `path` or `nfs` must be given",
            about: "An image on an NFS server, read by the engine itself: no host mounts anything.",
        },
        Key {
            name: "format",
            value: "`\"raw\"` or `\"qcow2\"`",
            default: "`\"qcow2\"` where the name ends in `.qcow2`, else `\"raw\"`",
            about: "The format of the image. It is never guessed from the content, which the guest \
                    could forge.",
        },
        Key {
            name: "read_only",
            value: "`true` or `false`",
            default: "`false`; a CD-ROM is always read-only",
            about: "Whether the guest may only read the disk.",
        },
        Key {
            name: "device",
            value: "`\"disk\"` or `\"cdrom\"`",
            default: "`\"disk\"`",
            about: "What the guest sees.",
        },
        Key {
            name: "name",
            value: "a device name: `\"xvda1\"`",
            default: "by place",
            about: "The name of the disk in the guest, on engines that let it be chosen (Xen). \
                    Others ignore it.",
        },
    ],
};

pub(super) static NETWORK: Section = Section {
    header: "[[network]]",
    about: "One table for each network card.",
    keys: &[
        Key {
            name: "bridge",
            value: "the name of a bridge: `\"br0\"`",
            default: "none: `bridge` or `user` must be given",
            about: "The bridge the card is plugged into, on every host the guest runs on.",
        },
        Key {
            name: "user",
            value: "`true` or `false`",
            default: "`false`",
            about: "Whether the engine translates addresses itself: needs no privilege on the \
                    host, and open connections break when the guest moves.",
        },
        Key {
            name: "forward",
            value: "a list: `[\"tcp:127.0.0.1:2222->22\"]`; the address may be left out",
            default: "none",
            about: "With `user = true`: ports of the host that lead into the guest.",
        },
        Key {
            name: "mac",
            value: "six bytes: `\"52:54:00:12:34:56\"`",
            default: "drawn when the guest first starts, then frozen",
            about: "The address of the card.",
        },
    ],
};
