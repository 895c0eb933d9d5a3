// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Every problem code of this crate.

crate::codes! {
    FILE_SYNTAX = "file/syntax":
        "A file cannot be taken apart: a quote, a bracket or an equals sign is missing or too \
         many.";
    FILE_UNKNOWN_KEY = "file/unknown-key":
        "A file has a key that does not exist, so it would have no effect.";
    FILE_WRONG_TYPE = "file/wrong-type":
        "A key has a value of another type, such as a number where a string is needed.";
    FILE_BAD_VALUE = "file/bad-value": "A key has a value that cannot be.";
    FILE_MISSING_KEY = "file/missing-key": "A file lacks a key that it must have.";
    FILE_CONFLICT = "file/conflict": "Two keys of a file contradict each other.";
    FILE_TOO_LONG = "file/too-long": "A file is longer than anything a person would write.";
    FILE_VERSION = "file/version": "A file was written by a newer Whimbrel.";
    FILE_UNSUPPORTED = "file/unsupported":
        "A classic file asks for something that Whimbrel cannot give without changing what the \
         guest is.";
    JSON_TOO_LONG = "json/too-long": "A stored text, or one from a peer, is longer than it can be.";
    JSON_VERSION = "json/version":
        "A stored text, or one from a peer, was written by another version of Whimbrel.";
    JSON_MALFORMED = "json/malformed":
        "A stored text, or one from a peer, says something that cannot be.";
    PLAN_ALLOWED = "plan/allowed":
        "Whether the target accepts guests from this host (`hosts_allow`).";
    PLAN_BOOT_FILE = "plan/boot-file":
        "Whether the target has the kernel, ramdisk or firmware that the guest's next reboot \
         needs.";
    PLAN_BRIDGE = "plan/bridge":
        "Whether the target has a bridge of the guest, and lets arriving guests join it.";
    PLAN_LINK = "plan/link": "What the way to the target carries, and how long an answer takes.";
    PLAN_CLOCK = "plan/clock": "Whether the clocks of both hosts agree.";
    PLAN_CONVERGENCE = "plan/convergence":
        "Whether the guest writes slowly enough to be caught up with.";
    PLAN_CPU = "plan/cpu": "Whether the target can give the guest every CPU feature it sees.";
    PLAN_DEADLINE = "plan/deadline": "Whether the migration can end before its deadline.";
    PLAN_DISK = "plan/disk": "Whether the target has a disk of the guest at the same place.";
    PLAN_DISK_ACCESS = "plan/disk-access":
        "Whether the target's engine may use a disk of the guest.";
    PLAN_DISK_ALLOWED = "plan/disk-allowed":
        "Whether the target lets arriving guests use files from there (`allow_paths`).";
    PLAN_DISK_SAME = "plan/disk-same":
        "Whether both hosts see the same disk, not two under one name.";
    PLAN_DISK_CACHE = "plan/disk-cache":
        "Whether both engines read and write a shared disk past their hosts' page caches.";
    PLAN_DISK_SPACE = "plan/disk-space":
        "Whether a disk image that grows has room to.";
    PLAN_EMULATED = "plan/emulated":
        "Whether a guest that is emulated may lose a write while it moves.";
    PLAN_ENGINE = "plan/engine": "Whether the target has an engine that can take the guest over.";
    PLAN_FORWARD = "plan/forward":
        "Whether the ports that are forwarded to the guest are free on the target.";
    PLAN_GUEST_BUSY = "plan/guest-busy":
        "Whether the guest is free to move: not moving already, not dead.";
    PLAN_MAC = "plan/mac":
        "Whether the guest's hardware addresses are free on the target.";
    PLAN_LIVE = "plan/live": "Whether a guest of this kind can be moved while it runs.";
    PLAN_MACHINE = "plan/machine": "Whether the target's engine knows the guest's machine type.";
    PLAN_WAY_BACK = "plan/way-back": "Whether the target reaches the source's port, too: for the way home, and to ask who owns the guest.";
    PLAN_HINDRANCE = "plan/hindrance": "What keeps the guest's engine from sending it, such as a device that cannot move.";
    PLAN_UEFI = "plan/uefi-variables":
        "Whether the guest's UEFI finds its variables on the target.";
    PLAN_MAINTENANCE = "plan/maintenance": "Whether the target's operator wants guests to come.";
    PLAN_MEMORY = "plan/memory": "Whether the target has memory for the guest.";
    PLAN_NAME = "plan/name": "Whether the guest's name and uuid are free on the target.";
    PLAN_PROOF = "plan/proof":
        "Whether the target's engine starts with exactly what the guest was frozen with.";
    PLAN_PAUSE = "plan/pause":
        "What a promised pause is worth where the engine chooses the pause by itself.";
    PLAN_POSTCOPY = "plan/postcopy":
        "What it means, and needs, that the guest may run on the target before its memory is \
         there.";
    PLAN_PROTOCOL = "plan/protocol":
        "Whether both hosts' versions of Whimbrel understand each other.";
    PLAN_RELOCATION = "plan/relocation": "Whether relocation is enabled on both hosts.";
    PLAN_ROM = "plan/rom":
        "Whether the option ROMs of the guest's devices have the same size on the target.";
    PLAN_SEGMENT = "plan/segment":
        "Whether the bridges of both hosts are one network segment.";
    PLAN_UNREACHABLE = "plan/unreachable": "The target cannot be reached.";
    PLAN_USER_NETWORK = "plan/user-network":
        "Whether open connections survive: with user networking they do not.";
    KERNEL_XEN_ONLY = "kernel/xen-only": "A kernel can only run paravirtualised on Xen.";
    KERNEL_UNUSABLE = "kernel/unusable": "A kernel file is not one that the engine can start.";
}
