// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Every problem code of this crate.

crate::codes! {
    FILE_SYNTAX = "file/syntax": "A file cannot be taken apart: a quote, a bracket or an equals sign is missing or too many.";
    FILE_UNKNOWN_KEY = "file/unknown-key": "A file has a key that does not exist, so it would have no effect.";
    FILE_WRONG_TYPE = "file/wrong-type": "A key has a value of another type, such as a number where a string is needed.";
    FILE_BAD_VALUE = "file/bad-value": "A key has a value that cannot be.";
    FILE_MISSING_KEY = "file/missing-key": "A file lacks a key that it must have.";
    FILE_CONFLICT = "file/conflict": "Two keys of a file contradict each other.";
    FILE_TOO_LONG = "file/too-long": "A file is longer than anything a person would write.";
    FILE_VERSION = "file/version": "A file was written by a newer Whimbrel.";
    FILE_UNSUPPORTED = "file/unsupported": "A classic file asks for something that Whimbrel cannot give without changing what the guest is.";
    JSON_TOO_LONG = "json/too-long": "A stored text, or one from a peer, is longer than it can be.";
    JSON_VERSION = "json/version": "A stored text, or one from a peer, was written by another version of Whimbrel.";
    JSON_MALFORMED = "json/malformed": "A stored text, or one from a peer, says something that cannot be.";
    KERNEL_XEN_ONLY = "kernel/xen-only": "A kernel can only run paravirtualised on Xen.";
    KERNEL_UNUSABLE = "kernel/unusable": "A kernel file is not one that the engine can start.";
}
