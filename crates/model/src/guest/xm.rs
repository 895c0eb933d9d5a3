// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The classic `xm`/`xl` guest file: read as data, never executed.
//!
//! A file that worked on Xen gives the same guest here, or a reason why it cannot. What has no
//! meaning here is left out and named in a warning; what would change the guest is an error. On
//! engines that name disks by their place the guest's disks get new names, its kernel's command
//! line follows, and every step is told.

mod boot;
mod disk;
mod keys;
mod network;
mod syntax;

use super::file::{MEMORY_MAX, MEMORY_MIN};
use super::{Cpus, Devices, Guest, Memory, Policies, Policy, VCPUS_MAX};
use crate::id::{GuestId, GuestName};
use crate::passport::EngineKind;
use crate::similar::similar;
use crate::text_file::{Fault, FileError, Place, TextFile, printable};
use crate::units::Bytes;
use keys::Fate;
use std::path::PathBuf;
use syntax::{Assignment, Value};

/// Where an imported guest will run.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// On Xen a guest keeps the names of its disks; on QEMU they become `vda`, `vdb` …
    pub engine: EngineKind,
    /// The bridge of a `vif` that names none; without one it is `xenbr0`, as with `xl`.
    pub bridge: Option<&'a str>,
}

/// A guest read from a classic file, and what happened to it on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub guest: Guest,
    /// What was translated, one line each, to be printed.
    pub notes: Vec<String>,
    /// What has no meaning here, or needs a look inside the guest.
    pub warnings: Vec<Warning>,
}

/// Something in the file that was left out, or that the guest's owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub place: Option<Place>,
    pub key: String,
    pub text: String,
}

/// Reads a classic guest file.
pub fn parse(file: &TextFile<'_>, options: Options<'_>) -> Result<Imported, FileError> {
    let mut import = Import {
        file,
        options,
        assignments: syntax::parse(file)?,
        notes: Vec::new(),
        warnings: Vec::new(),
    };
    import.check_keys()?;
    let guest = import.guest()?;
    Ok(Imported { guest, notes: import.notes, warnings: import.warnings })
}

/// Tells a classic file from a TOML one: by its name, else by how it writes what both have.
pub fn is_classic(file: &TextFile<'_>) -> bool {
    if file.name.ends_with(".toml") {
        return false;
    }
    let is_classic_line = |line: &str| {
        let Some((key, value)) = line.split_once('=') else { return false };
        match (key.trim(), value.trim_start().chars().next()) {
            ("memory" | "maxmem", Some(first)) => first.is_ascii_digit(),
            ("disk" | "vif", Some(first)) => first == '[',
            ("builder" | "type" | "extra" | "root" | "ramdisk", Some(_)) => true,
            _ => false,
        }
    };
    file.name.ends_with(".cfg")
        || (!file.text.contains("[[") && file.text.lines().any(is_classic_line))
}

/// A file on its way to a guest.
struct Import<'a> {
    file: &'a TextFile<'a>,
    options: Options<'a>,
    assignments: Vec<Assignment>,
    notes: Vec<String>,
    warnings: Vec<Warning>,
}

/// A text of the file with its place.
struct Item {
    text: String,
    file: String,
    key: String,
    place: Place,
}

impl Item {
    fn error(&self, fault: Fault) -> FileError {
        FileError {
            file: self.file.clone(),
            place: Some(self.place),
            key: Some(self.key.clone()),
            fault: Box::new(fault),
        }
    }

    fn bad(&self, text: impl Into<String>) -> FileError {
        self.error(Fault::BadValue { text: text.into() })
    }

    fn unsupported(&self, text: impl Into<String>, remedy: impl Into<String>) -> FileError {
        self.error(Fault::Unsupported { text: text.into(), remedy: remedy.into() })
    }
}

impl Import<'_> {
    /// Looks at every key once: what is left out is named, what must not be left out is refused.
    fn check_keys(&mut self) -> Result<(), FileError> {
        let mut warnings = Vec::new();
        for (index, assignment) in self.assignments.iter().enumerate() {
            let Assignment { key, place, value, .. } = assignment;
            let mut warn = |text: String| {
                warnings.push(Warning { place: Some(*place), key: key.clone(), text });
            };
            if self.assignments[..index].iter().any(|earlier| earlier.key == *key) {
                warn("it is set twice; the last one counts".to_owned());
            }
            let is_on = is_on(value);
            match keys::fate(key) {
                Fate::Translated | Fate::RefusedIfOff(_) if is_on => {}
                Fate::Translated | Fate::RefusedIfOn(_) if !is_on => {}
                Fate::Translated => {}
                Fate::Ignored(why) => warn(format!("left out: {why}")),
                Fate::RefusedIfOn(why) | Fate::RefusedIfOff(why) => {
                    let fault = Fault::Unsupported {
                        text: why.to_owned(),
                        remedy: format!(
                            "remove `{key}` from line {} of {}, if the guest can do without",
                            place.line, self.file.name
                        ),
                    };
                    return Err(self.item(assignment, String::new()).error(fault));
                }
                Fate::Unknown => {
                    match similar(key, keys::TRANSLATED.iter().map(|(known, _)| *known)) {
                        Some(near) => {
                            let fault = Fault::UnknownKey {
                                similar: Some(near.to_owned()),
                                known: keys::TRANSLATED
                                    .iter()
                                    .map(|(key, _)| (*key).to_owned())
                                    .collect(),
                            };
                            let mut item = self.item(assignment, String::new());
                            item.place = *place;
                            return Err(item.error(fault));
                        }
                        None => warn("left out: neither `xm` nor `xl` knows it".to_owned()),
                    }
                }
            }
        }
        self.warnings = warnings;
        Ok(())
    }

    fn guest(&mut self) -> Result<Guest, FileError> {
        let mut disks = disk::disks(self)?;
        let boot = boot::boot(self, &mut disks)?;
        Ok(Guest {
            name: match self.text("name")? {
                Some(name) => {
                    GuestName::new(&*name.text).map_err(|error| name.bad(error.to_string()))?
                }
                None => return Err(self.missing("name", "a guest needs a name")),
            },
            id: match self.text("uuid")? {
                Some(id) => {
                    Some(id.text.parse::<GuestId>().map_err(|error| id.bad(error.to_string()))?)
                }
                None => None,
            },
            memory: self.memory()?,
            cpus: self.cpus()?,
            machine: None,
            boot,
            disks,
            networks: network::networks(self)?,
            devices: Devices { has_balloon: true, has_rng: true, has_serial: true },
            on: self.policies()?,
            autostart: self.autostart()?,
            keep_memory: true,
        })
    }

    fn memory(&mut self) -> Result<Memory, FileError> {
        let Some((mib, item)) = self.number("memory")? else {
            return Err(self.missing("memory", "a guest needs memory: `memory = 512` (in MiB)"));
        };
        let size = u64::try_from(mib).ok().and_then(|mib| mib.checked_mul(Bytes::MIB)).map(Bytes);
        let Some(size) = size.filter(|size| (MEMORY_MIN..=MEMORY_MAX).contains(size)) else {
            let text = format!("{mib} MiB is not between {MEMORY_MIN} and {MEMORY_MAX}");
            return Err(item.bad(text));
        };
        if let Some((max, _)) = self.number("maxmem")?.filter(|&(max, _)| max > mib) {
            let text = format!("left out: the guest has {mib} MiB and cannot grow to {max}");
            self.warn_key("maxmem", text);
        }
        Ok(Memory { size, min: None })
    }

    fn cpus(&mut self) -> Result<Cpus, FileError> {
        let (count, count_max) = (self.cpu_count("vcpus")?, self.cpu_count("maxvcpus")?);
        let count = count.or(count_max).unwrap_or(1);
        if let Some(cpuid) = self.texts("cpuid")?.iter().find(|item| item.text.trim() != "host") {
            return Err(cpuid.unsupported(
                "it gives the guest a processor of its own making",
                "take `cpuid` out of the file, create the guest from TOML (`whimbrel show NAME \
                 --toml` prints it), and name the model there: `cpu = \"Skylake-Server,-hle\"`",
            ));
        }
        Ok(Cpus { count, count_max: count_max.unwrap_or(count).max(count), model: None })
    }

    fn cpu_count(&self, key: &str) -> Result<Option<u32>, FileError> {
        let Some((number, item)) = self.number(key)? else { return Ok(None) };
        match u32::try_from(number).ok().filter(|count| (1..=VCPUS_MAX).contains(count)) {
            Some(count) => Ok(Some(count)),
            None => Err(item.bad(format!("{number} is not a number from 1 to {VCPUS_MAX}"))),
        }
    }

    fn policies(&mut self) -> Result<Policies, FileError> {
        Ok(Policies {
            poweroff: match self.policy("on_poweroff")? {
                Some(policy) => policy,
                None => self.policy("on_shutdown")?.unwrap_or(Policy::Destroy),
            },
            reboot: self.policy("on_reboot")?.unwrap_or(Policy::Restart),
            crash: self.policy("on_crash")?.unwrap_or(Policy::Restart),
        })
    }

    fn policy(&mut self, key: &str) -> Result<Option<Policy>, FileError> {
        let Some(item) = self.text(key)? else { return Ok(None) };
        let (policy, lost) = match item.text.as_str() {
            "destroy" => (Policy::Destroy, None),
            "restart" => (Policy::Restart, None),
            "preserve" => (Policy::Preserve, None),
            "rename-restart" => {
                (Policy::Restart, Some("the old guest is not kept under a new name"))
            }
            "coredump-destroy" => (Policy::Destroy, Some("no core is dumped")),
            "coredump-restart" => (Policy::Restart, Some("no core is dumped")),
            "soft-reset" => {
                return Err(item.unsupported(
                    "guests are not reset softly",
                    "choose `destroy`, `restart` or `preserve`",
                ));
            }
            other => {
                let other = printable(other);
                return Err(
                    item.bad(format!("`{other}` is not one of `destroy`, `restart`, `preserve`"))
                );
            }
        };
        if let Some(lost) = lost {
            self.warn(&item, format!("`{}`: {lost}", item.text));
        }
        Ok(Some(policy))
    }

    fn autostart(&self) -> Result<bool, FileError> {
        Ok(self.text("on_xend_start")?.is_some_and(|item| item.text == "start"))
    }

    fn warn(&mut self, item: &Item, text: String) {
        let key = item.key.clone();
        self.warnings.push(Warning { place: Some(item.place), key, text });
    }

    fn warn_key(&mut self, key: &str, text: String) {
        let place = self.assignment(key).map(|assignment| assignment.place);
        self.warnings.push(Warning { place, key: key.to_owned(), text });
    }

    fn missing(&self, key: &str, text: &str) -> FileError {
        FileError {
            file: self.file.name.to_owned(),
            place: None,
            key: Some(key.to_owned()),
            fault: Box::new(Fault::Missing { text: text.to_owned() }),
        }
    }

    /// The last assignment of a key counts; `None` is as good as none.
    fn assignment(&self, key: &str) -> Option<&Assignment> {
        let last = self.assignments.iter().rev().find(|assignment| assignment.key == key);
        last.filter(|assignment| assignment.value != Value::None)
    }

    fn item(&self, assignment: &Assignment, text: String) -> Item {
        Item {
            text,
            file: self.file.name.to_owned(),
            key: assignment.key.clone(),
            place: assignment.value_place,
        }
    }

    fn wrong_type(&self, assignment: &Assignment, expected: &'static str) -> FileError {
        let found = assignment.value.kind();
        self.item(assignment, String::new()).error(Fault::WrongType { expected, found })
    }

    /// Returns a key's string; an empty one is as good as none.
    fn text(&self, key: &str) -> Result<Option<Item>, FileError> {
        let Some(assignment) = self.assignment(key) else { return Ok(None) };
        match &assignment.value {
            Value::Text(text) if text.trim().is_empty() => Ok(None),
            Value::Text(text) => Ok(Some(self.item(assignment, text.trim().to_owned()))),
            Value::Number(_) | Value::List(_) | Value::None => {
                Err(self.wrong_type(assignment, "a string"))
            }
        }
    }

    /// Returns a key's list of strings; one string alone is a list of one.
    fn texts(&self, key: &str) -> Result<Vec<Item>, FileError> {
        let Some(assignment) = self.assignment(key) else { return Ok(Vec::new()) };
        let list = match &assignment.value {
            Value::Text(text) => return Ok(vec![self.item(assignment, text.clone())]),
            Value::List(list) => list,
            Value::Number(_) | Value::None => return Err(self.wrong_type(assignment, "a list")),
        };
        let items = list.iter().enumerate().map(|(index, (value, place))| match value {
            Value::Text(text) => Ok(Item {
                place: *place,
                key: format!("{key}[{index}]"),
                ..self.item(assignment, text.clone())
            }),
            Value::Number(_) | Value::List(_) | Value::None => {
                let mut item = self.item(assignment, String::new());
                item.place = *place;
                Err(item.error(Fault::WrongType { expected: "a string", found: value.kind() }))
            }
        });
        items.collect()
    }

    /// Returns a key's number; a string of digits will do, as it did for `xm`.
    fn number(&self, key: &str) -> Result<Option<(i64, Item)>, FileError> {
        let Some(assignment) = self.assignment(key) else { return Ok(None) };
        let number = match &assignment.value {
            Value::Number(number) => Some(*number),
            Value::Text(text) => text.trim().parse().ok(),
            Value::List(_) | Value::None => None,
        };
        match number {
            Some(number) => Ok(Some((number, self.item(assignment, number.to_string())))),
            None => Err(self.wrong_type(assignment, "a number")),
        }
    }

    fn path(&self, key: &str) -> Result<Option<PathBuf>, FileError> {
        let Some(item) = self.text(key)? else { return Ok(None) };
        self.file.path(&item.text).map(Some).map_err(|text| item.bad(text))
    }
}

/// Whether a value switches something on.
fn is_on(value: &Value) -> bool {
    match value {
        Value::None => false,
        Value::Number(number) => *number != 0,
        Value::Text(text) => !matches!(text.trim(), "" | "0" | "no" | "off" | "none" | "None"),
        Value::List(list) => list.iter().any(|(value, _)| is_on(value)),
    }
}

/// Returns the part of `docs/reference/old-files.md` that is about guests.
pub fn reference() -> String {
    keys::reference()
}

#[cfg(test)]
mod tests;
