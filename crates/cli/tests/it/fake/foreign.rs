// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest `old` that others have started.

use whimbrel_api::guest::{Created, GuestRef, GuestState, GuestSummary, Note, NoteLevel};
use whimbrel_api::{Kind, Problem};

const OLD: &str = "6f0c1f0e-6a3e-4f0b-9d55-0d3a1c9b7e04";

pub(super) fn old() -> GuestSummary {
    GuestSummary {
        uuid: OLD.into(),
        id: None,
        name: "old".into(),
        state: GuestState::Running,
        is_foreign: true,
        ..super::summary("web1")
    }
}

pub(super) fn adopt(guest: &GuestRef) -> Result<Created, Problem> {
    if guest.to_string() != "old" {
        let text =
            format!("guest `{guest}` cannot be adopted: this host's engine is qemu, not Xen");
        let remedy = "define it from its file: `whimbrel create FILE`";
        return Err(Problem::new(Kind::Refused, "adopt/no-xen", text, remedy));
    }
    let text = "it has 64 MiB now, and 96 MiB from its next start".into();
    let guest = GuestSummary { id: Some(4), is_foreign: false, ..old() };
    Ok(Created { guest, notes: vec![Note { level: NoteLevel::Note, text }] })
}
