// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a host must know to run a guest: its definition, its passport, its number here.

use whimbrel_api::Problem;
use whimbrel_api::guest::{CreateGuest, DefinitionFormat, Note, NoteLevel};
use whimbrel_host::store::{Desired, GuestRow, NewGuest};
use whimbrel_model::guest::{Disk, DiskDevice, DiskSource, Guest, file, xm};
use whimbrel_model::id::{GuestId, LocalId};
use whimbrel_model::passport::{EngineKind, Passport};
use whimbrel_model::text_file::TextFile;

/// A guest that is defined here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Papers {
    pub(crate) id: GuestId,
    pub(crate) local_id: LocalId,
    pub(crate) guest: Guest,
    /// From the first start on.
    pub(crate) passport: Option<Passport>,
    /// Forgotten when it stops.
    pub(crate) is_transient: bool,
    pub(crate) desired: Desired,
}

impl Papers {
    pub(crate) fn from_row(row: &GuestRow) -> Result<Self, Problem> {
        let guest = parse_stored(&row.name, &row.definition)?;
        let passport = row.passport.as_deref().map(parse_passport).transpose()?;
        Ok(Self {
            id: row.guest,
            local_id: row.local_id,
            guest,
            passport,
            is_transient: row.transient,
            desired: row.desired,
        })
    }

    /// Returns what the store keeps of them.
    pub(crate) fn to_row(&self) -> NewGuest {
        NewGuest {
            guest: self.id,
            name: self.guest.name.to_string(),
            definition: self.definition(),
            passport: self.passport.as_ref().map(whimbrel_model::passport::file::to_json),
            autostart: self.guest.autostart,
            transient: self.is_transient,
            desired: self.desired,
        }
    }

    /// Returns the definition as it is stored, sent and shown.
    pub(crate) fn definition(&self) -> String {
        file::render(&self.guest)
    }

    pub(crate) fn writable_disks(&self) -> impl Iterator<Item = &DiskSource> {
        writable_disks(&self.guest)
    }
}

/// Returns the disks a guest writes to: those that must have one owner.
pub(crate) fn writable_disks(guest: &Guest) -> impl Iterator<Item = &DiskSource> {
    let is_writable = |disk: &&Disk| !disk.is_read_only && disk.device == DiskDevice::Disk;
    guest.disks.iter().filter(is_writable).map(|disk| &disk.source)
}

/// Reads a definition that this program wrote, here or on a peer.
pub(crate) fn parse_stored(name: &str, text: &str) -> Result<Guest, Problem> {
    file::parse(&TextFile { name, text, base: None }).map_err(|error| Problem::of(&error))
}

pub(crate) fn parse_passport(json: &str) -> Result<Passport, Problem> {
    whimbrel_model::passport::file::from_json(json).map_err(|error| Problem::of(&error))
}

/// A guest as a person wants it, before this host knows it.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) guest: Guest,
    pub(crate) is_transient: bool,
    pub(crate) notes: Vec<Note>,
}

impl Draft {
    /// Reads a guest file of either kind, with its overrides.
    pub(crate) fn read(request: &CreateGuest, engine: EngineKind) -> Result<Self, Problem> {
        let text = with_overrides(request);
        let base = std::path::Path::new(&request.base_directory);
        let file = TextFile { name: &request.file_name, text: &text, base: Some(base) };
        let mut notes = Vec::new();
        let guest = match request.format {
            DefinitionFormat::Toml => file::parse(&file).map_err(|error| Problem::of(&error))?,
            DefinitionFormat::Cfg => {
                let options = xm::Options { engine, bridge: None };
                let imported = xm::parse(&file, options).map_err(|error| Problem::of(&error))?;
                notes.extend(
                    imported.notes.into_iter().map(|text| Note { level: NoteLevel::Note, text }),
                );
                notes.extend(imported.warnings.into_iter().map(|warning| Note {
                    level: NoteLevel::Warning,
                    text: format!("`{}`: {}", warning.key, warning.text),
                }));
                imported.guest
            }
        };
        Ok(Self { guest, is_transient: request.is_transient, notes })
    }
}

/// Returns the text with `key=value` overrides. A later assignment wins in the classic format; in
/// TOML a top-level key may stand only once, so the line it replaces goes.
fn with_overrides(request: &CreateGuest) -> String {
    let keys: Vec<&str> = request
        .overrides
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(k, _)| k.trim())
        .collect();
    let is_replaced =
        |line: &str| line.split_once('=').is_some_and(|(key, _)| keys.contains(&key.trim()));
    match request.format {
        DefinitionFormat::Cfg => {
            let added = request.overrides.iter().map(|line| classic_assignment(line));
            std::iter::once(request.text.clone()).chain(added).collect::<Vec<_>>().join("\n")
        }
        DefinitionFormat::Toml => {
            let mut is_top = true;
            let kept = request.text.lines().filter(|line| {
                is_top &= !line.trim_start().starts_with('[');
                !(is_top && is_replaced(line))
            });
            let added = request.overrides.iter().map(String::as_str);
            added.chain(kept).collect::<Vec<_>>().join("\n")
        }
    }
}

/// `xm create` takes `name=web1` without quotes, as typed in a shell.
fn classic_assignment(line: &str) -> String {
    let Some((key, value)) = line.split_once('=') else { return line.to_owned() };
    let value = value.trim();
    let is_literal = value.starts_with(['"', '\'', '[']) || value.parse::<u64>().is_ok();
    if is_literal { line.to_owned() } else { format!("{key}={value:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(format: DefinitionFormat, text: &str, overrides: &[&str]) -> CreateGuest {
        CreateGuest {
            text: text.to_owned(),
            format,
            file_name: "web1".to_owned(),
            base_directory: "/".to_owned(),
            overrides: overrides.iter().map(|line| (*line).to_owned()).collect(),
            is_transient: false,
            is_left_stopped: false,
        }
    }

    /// An override replaces the top-level key in TOML, leaves equal keys in tables alone, and is
    /// quoted for the classic format as `xm` did.
    #[test]
    fn overrides_replace() {
        let toml = request(
            DefinitionFormat::Toml,
            "name = \"a\"\nmemory = \"1G\"\n[boot]\nname = \"kept\"",
            &["name = \"b\""],
        );
        assert_eq!(with_overrides(&toml), "name = \"b\"\nmemory = \"1G\"\n[boot]\nname = \"kept\"");

        let cfg = request(DefinitionFormat::Cfg, "name = 'a'", &["name=b", "memory=256"]);
        assert_eq!(with_overrides(&cfg), "name = 'a'\nname=\"b\"\nmemory=256");
    }
}
