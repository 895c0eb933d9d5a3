// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The keys of `whimbrel.toml`. The reader refuses every other, and the reference page prints them.

use crate::text_file::{Key, Section};

pub(super) const INTRO: &str = r#"
The daemon reads `/etc/whimbrel/whimbrel.toml`, or what `--config` names; without a file everything
has its default. `systemctl reload whimbrel` applies a change; guests never notice. A key that is
not listed here is refused.

```toml
[host]
name = "alpha"

[relocation]
enabled = true
hosts_allow = ["beta", "192.168.7.*"]
allow_paths = ["/xen"]
allow_bridges = ["br0"]
```
"#;

pub(super) static TOP: Section = Section {
    header: "",
    about: "Only tables stand here.",
    keys: &[
        Key { name: "host", value: "", default: "", about: "" },
        Key { name: "api", value: "", default: "", about: "" },
        Key { name: "engine", value: "", default: "", about: "" },
        Key { name: "relocation", value: "", default: "", about: "" },
        Key { name: "migration", value: "", default: "", about: "" },
        Key { name: "pages", value: "", default: "", about: "" },
        Key { name: "fence", value: "", default: "", about: "" },
    ],
};

/// The tables, in the order of the reference.
pub(super) static SECTIONS: [&Section; 7] =
    [&HOST, &API, &ENGINE, &RELOCATION, &MIGRATION, &PAGES, &FENCE];

pub(super) static FENCE: Section = Section {
    header: "[fence]",
    about: "A program that can switch another host off, and knows when it is off.",
    keys: &[Key {
        name: "command",
        value: "a path",
        default: "none",
        about: "Called with the name of a paired host by `whimbrel recover --fence`. It must end \
                with 0 only when that host is off for certain: its word counts like an operator's. \
                It is given two minutes.",
    }],
};

pub(super) static HOST: Section = Section {
    header: "[host]",
    about: "The host itself.",
    keys: &[
        Key {
            name: "name",
            value: "letters, digits, `.`, `_` and `-`; at most 63 bytes",
            default: "the machine's host name",
            about: "The name that other hosts know this one by.",
        },
        Key {
            name: "state_dir",
            value: "a path",
            default: "`\"/var/lib/whimbrel\"`",
            about: "Where everything is kept that the daemon must remember. Several daemons can \
                    live on one machine, each with its own.",
        },
        Key {
            name: "host_min_memory",
            value: "a size",
            default: "`\"256 MiB\"`",
            about: "Memory that the host keeps for itself: no guest is started or accepted that \
                    would leave less free. What xend called `dom0-min-mem`.",
        },
        Key {
            name: "maintenance",
            value: "`true` or `false`",
            default: "`false`",
            about: "Whether the host is to be emptied: while it is `true` no guest may come, none \
                    is started, and `autostart` waits. Guests that are here go on, come up again \
                    by their own policies, and may leave. `whimbrel reload` applies it.",
        },
    ],
};

pub(super) static API: Section = Section {
    header: "[api]",
    about: "How the commands talk to the daemon.",
    keys: &[
        Key {
            name: "socket",
            value: "a path",
            default: "`api.sock` in the state directory",
            about: "The unix socket of the API.",
        },
        Key {
            name: "group",
            value: "a group",
            default: "`\"whimbrel\"`; where it does not exist, only root may use the socket",
            about: "The group whose members may use the socket, and with it every guest.",
        },
    ],
};

pub(super) static ENGINE: Section = Section {
    header: "[engine]",
    about: "What runs the guests.",
    keys: &[
        Key {
            name: "kind",
            value: "`\"auto\"`, `\"qemu\"` or `\"xen\"`",
            default: "`\"auto\"`: Xen in the control domain of a Xen host, else QEMU",
            about: "Which engine runs the guests.",
        },
        Key {
            name: "user",
            value: "a user",
            default: "`\"whimbrel\"`",
            about: "The unprivileged user that QEMU runs as. Disks of guests must be open to it.",
        },
        Key {
            name: "qemu",
            value: "a path",
            default: "`qemu-system-x86_64`, looked for in `PATH`",
            about: "The QEMU to use.",
        },
        Key {
            name: "qemu_data",
            value: "a path",
            default: "where that QEMU was built for",
            about: "The folder of its firmware, for a QEMU that lies elsewhere than it was built for.",
        },
        Key {
            name: "accelerator",
            value: "`\"auto\"`, `\"kvm\"` or `\"tcg\"`",
            default: "`\"auto\"`: KVM where `/dev/kvm` opens and the processor has `vmx` or `svm`, \
                      else TCG",
            about: "Whether guests use the processor's virtualisation or are emulated.",
        },
        Key {
            name: "xen_hotplug",
            value: "`\"scripts\"` or `\"whimbrel\"`",
            default: "`\"scripts\"`: those that come with Xen",
            about: "What plugs the network cards of Xen's guests in, and their raw disks on block \
                    devices: scripts of shell, which take a good part of the pause of a guest that \
                    moves, or a small program.",
        },
    ],
};

pub(super) static RELOCATION: Section = Section {
    header: "[relocation]",
    about: "Whether guests may come here from other hosts, from which, and what they may bring. \
            Only paired hosts are ever listened to; these settings come on top.",
    keys: &[
        Key {
            name: "enabled",
            value: "`true` or `false`",
            default: "`false`",
            about: "Whether this host takes part in migrations. Without it the port is closed. \
                    `whimbrel relocation enable` sets it without a restart.",
        },
        Key {
            name: "address",
            value: "an IP address of this host",
            default: "`\"0.0.0.0\"`: all IPv4 addresses; `\"::\"` is all addresses",
            about: "Where the daemon listens for other hosts.",
        },
        Key {
            name: "port",
            value: "a number from 1 to 65535",
            default: "`8002`, as with xend",
            about: "The TCP port for other hosts. The firewall must let it in.",
        },
        Key {
            name: "hosts_allow",
            value: "a list of patterns, or one string of them with spaces between, as with xend",
            default: "empty: every paired host",
            about: "Which paired hosts may send guests. A pattern is a name, an address, a network \
                    (`192.168.7.0/24`), a name or address with `*` and `?`, or, where it begins \
                    with `^`, a regular expression. It is compared with the name the host was \
                    paired under and with the address it calls from.",
        },
        Key {
            name: "allow_paths",
            value: "a list of folders and of `nfs://server/export` addresses",
            default: "empty: none",
            about: "Where disks, kernels and ramdisks of an arriving guest may lie; symbolic links \
                    are resolved first. `[\"/\"]` allows every path.",
        },
        Key {
            name: "allow_bridges",
            value: "a list of bridges",
            default: "empty: none",
            about: "Which bridges an arriving guest may join. `[\"*\"]` allows every bridge.",
        },
        Key {
            name: "bandwidth",
            value: "a rate: `\"100 MiB/s\"`, `\"1 Gbit/s\"`",
            default: "as much as fits",
            about: "What all migrations that leave this host may use together.",
        },
        Key {
            name: "network",
            value: "a network: `\"192.168.7.0/24\"`",
            default: "none: any address that answers",
            about: "The network for migrations: other hosts are reached by their address in it, \
                    where they have one.",
        },
    ],
};

pub(super) static MIGRATION: Section = Section {
    header: "[migration]",
    about: "What a migration aims at where the command does not say.",
    keys: &[
        Key {
            name: "max_pause",
            value: "a duration: `\"300 ms\"`",
            default: "`\"300 ms\"`",
            about: "The longest time that the guest may stand still.",
        },
        Key {
            name: "deadline",
            value: "a duration: `\"30m\"`",
            default: "`\"30m\"`",
            about: "The longest time that a migration may take.",
        },
        Key {
            name: "max_slowdown",
            value: "a number from 0 to 99, in percent",
            default: "`0`",
            about: "How much the guest may be slowed down to be caught up with.",
        },
        Key {
            name: "on_miss",
            value: "`\"cancel\"`, `\"pause\"` or `\"throttle\"`",
            default: "`\"cancel\"`",
            about: "What happens when the bargain cannot be kept: the guest stays; it stands still \
                    for longer; or it is slowed down further.",
        },
    ],
};

pub(super) static PAGES: Section = Section {
    header: "[pages]",
    about: "What is kept of the memory of guests that have left, so that little travels when they \
            return. It lies in the state directory, sealed with a key that left with the guest. \
            Kept memory always gives way: where less than 5 % of the file system is free, it is \
            dropped, the oldest first.",
    keys: &[
        Key {
            name: "keep",
            value: "`true` or `false`",
            default: "`true`",
            about: "Whether anything is kept. A guest with `keep_memory = false` leaves nothing \
                    behind in any case. `false` drops what was kept.",
        },
        Key {
            name: "budget",
            value: "a part of the free space, `\"10%\"`, from 1 to 90; or a size, `\"20 GiB\"`",
            default: "`\"10%\"`, of what would be free if nothing were kept",
            about: "How much space kept memory may take in all. The oldest is dropped first.",
        },
        Key {
            name: "expire",
            value: "a duration from 1 minute to 30 days",
            default: "`\"24h\"`",
            about: "How long memory is kept for a guest that does not return.",
        },
        Key {
            name: "read_disks",
            value: "`true` or `false`",
            default: "`false`",
            about: "Whether memory that equals blocks of the guest's raw disks is read from them by \
                    the target instead of being sent. For that the disks of guests that run here \
                    are read whole, once and then when six hours have passed, slowly (at most \
                    64 MiB a second) and with the least priority. Both hosts must say `true`. It \
                    was seen to pay at 100 Mbit/s.",
        },
    ],
};
