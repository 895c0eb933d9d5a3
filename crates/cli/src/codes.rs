// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Every problem code of this crate that no other program shares.

whimbrel_model::codes! {
    CONSOLE_NO_TERMINAL = "console/no-terminal":
        "A console needs a terminal to type at and to show it.";
    EDIT_NO_EDITOR = "edit/no-editor": "The editor cannot be started, or ended with an error.";
    EDIT_NO_TERMINAL = "edit/no-terminal": "An editor needs a terminal.";
    FILE_NOT_A_GUEST_FILE = "file/not-a-guest-file":
        "A file is too large, or not text, so it cannot be a guest file.";
    FILE_UNREADABLE = "file/unreadable": "A file that was named cannot be read.";
    FILE_UNWRITABLE = "file/unwritable": "A file that was named cannot be written.";
    HOST_NO_TOKEN = "host/no-token": "No token was given to `whimbrel host join`.";
    HOST_NOT_JOINED = "host/not-joined": "Nobody accepted an invitation.";
    MIGRATION_NONE = "migration/none": "The guest is not moving, so there is nothing to watch.";
    MIGRATION_UNEXPLAINED = "migration/unexplained":
        "A migration did not succeed, and the daemon gave no reason.";
    RECOVER_NOT_CONFIRMED = "recover/not-confirmed":
        "A statement was not confirmed by typing the name once more.";
    XM_NO_PORT = "xm/no-port": "A port cannot be chosen for one migration.";
    XM_UNKNOWN_COMMAND = "xm/unknown-command": "A command of the old `xm` that is not known here.";
}
