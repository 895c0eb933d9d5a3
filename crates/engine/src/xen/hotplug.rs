// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Plugs the disks and network cards of guests in, in place of Xen's own scripts: `xen-hotplug`.
//!
//! Xen's tools start a program for each device, when its backend is there and when it goes. What
//! comes with Xen is shell that starts dozens of programs, and of the pause of a guest that moves
//! it is the larger part. Here it is this program under another name ([`SCRIPT`], a link that the
//! daemon makes), one connection to xenstored and a few system calls:
//!
//! | what | told | it |
//! | --- | --- | --- |
//! | disk | `add` | sees that nobody is in the way ([`sharing`]), and names the device to the backend |
//! | card | `online` | joins it to its bridge, with the bridge's MTU, and up |
//! | card | `offline` | takes it off |
//!
//! Everything else needs nothing to be done. What went wrong is written into xenstore, where the
//! tools look for it. Only raw disks on block devices are plugged in like this: a file needs a loop
//! device, and Xen's script makes that.
//!
//! No runtime and no daemon: it lives for some milliseconds.

mod block;
mod error;
mod sharing;

pub use error::HotplugError;

use super::store::plain::Store;
use crate::error::EngineError;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use whimbrel_model::guest::{Boot, Disk, DiskDevice, DiskFormat, DiskSource, Guest};

/// The name by which Xen's tools call the program: the same on every host, so that no other is
/// ever taken from a peer.
pub(super) const SCRIPT: &str = "/run/whimbrel/xen-hotplug";
const NAME: &str = "xen-hotplug";
const DELETED: &str = " (deleted)";

/// Which devices of a guest this program plugs in on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plugged {
    /// One for each disk; what is not there is not plugged in.
    disks: Vec<bool>,
    networks: bool,
}

impl Plugged {
    pub(super) fn of(guest: &Guest) -> Plugged {
        let is_block = |path: &Path| {
            std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
        };
        Plugged {
            disks: guest.disks.iter().map(|disk| is_ours(disk, is_block)).collect(),
            // A whole machine has cards of QEMU's, too, which Xen's script joins.
            networks: matches!(guest.boot, Boot::Kernel { .. }),
        }
    }

    #[cfg(test)]
    pub(super) fn all(guest: &Guest) -> Plugged {
        Plugged { disks: vec![true; guest.disks.len()], networks: true }
    }

    pub(super) fn disk(&self, index: usize) -> Option<&'static str> {
        self.disks.get(index).copied().unwrap_or(false).then_some(SCRIPT)
    }

    pub(super) fn networks(&self) -> Option<&'static str> {
        self.networks.then_some(SCRIPT)
    }
}

fn is_ours(disk: &Disk, is_block: impl Fn(&Path) -> bool) -> bool {
    let is_plain = disk.format == DiskFormat::Raw && disk.device == DiskDevice::Disk;
    matches!(&disk.source, DiskSource::Path(path) if is_plain && is_block(path))
}

/// Makes the link by which Xen's tools find this program. It stays: a guest that ends calls it, and
/// the daemon may be gone by then.
pub(super) fn make_link() -> Result<(), EngineError> {
    let link = Path::new(SCRIPT);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| EngineError::File { action: "make the link", path, source }
    };
    let program = std::fs::read_link("/proc/self/exe").map_err(failed(link))?;
    // An upgrade has put another one there since this one was started.
    let program = program.to_string_lossy().trim_end_matches(DELETED).to_owned();
    if std::fs::read_link(link).is_ok_and(|found| found == Path::new(&program)) {
        return Ok(());
    }
    let folder = link.parent().expect("it is not the root");
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let fresh = folder.join(format!("{NAME}.{}", std::process::id()));
    std::os::unix::fs::symlink(&program, &fresh).map_err(failed(&fresh))?;
    std::fs::rename(&fresh, link).map_err(failed(link))
}

/// What a card needs, which is not for this room to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Card {
    Join {
        link: String,
        bridge: String,
        /// None: that of the bridge.
        mtu: Option<u32>,
    },
    Leave {
        link: String,
    },
}

/// Does what a card needs, and returns the MTU that it has then.
pub type Network = fn(&Card) -> Result<u32, Box<dyn std::error::Error + Send + Sync>>;

/// Whether the program was started to plug a device in: by the name of the link, or with the name
/// as its first argument. Returns the arguments after that.
pub fn arguments(all: &[OsString]) -> Option<&[OsString]> {
    let is_name = |word: &OsStr| Path::new(word).file_name() == Some(OsStr::new(NAME));
    match all {
        [program, rest @ ..] if is_name(program) => Some(rest),
        [_, word, rest @ ..] if word == NAME => Some(rest),
        _ => None,
    }
}

/// One device, as Xen's tools name it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Device {
    /// Its backend in xenstore.
    path: String,
    kind: Kind,
    /// The domain that it is for, and its number there.
    domain: u32,
    number: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Block,
    Card,
}

impl Device {
    /// Reads `…/backend/vbd/DOMAIN/NUMBER`.
    fn parse(path: &str) -> Option<Device> {
        let mut words = path.rsplit('/');
        let (number, domain) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let kind = match words.next()? {
            "vbd" => Kind::Block,
            "vif" => Kind::Card,
            _ => return None,
        };
        (words.next() == Some("backend")).then(|| Device {
            path: path.trim_end_matches('/').to_owned(),
            kind,
            domain,
            number,
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }
}

/// Plugs one device in or out, and says in xenstore how that went.
pub fn run(arguments: &[OsString], network: Network) -> Result<(), HotplugError> {
    let command = arguments.iter().find(|word| !word.to_string_lossy().contains('='));
    let command = command.map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let path = std::env::var("XENBUS_PATH").unwrap_or_default();
    let Some(device) = Device::parse(&path) else { return Err(HotplugError::NoDevice { path }) };
    let mut store = Store::open().map_err(HotplugError::store("open"))?;
    let done = match (device.kind, command.as_str()) {
        (Kind::Block, "add") => block::add(&mut store, &device),
        (Kind::Card, "online") => online(&mut store, &device, network),
        (Kind::Card, "offline") => offline(network),
        // A disk that goes leaves nothing, and cards of emulated guests are not plugged in here.
        (Kind::Block, "remove") | (Kind::Card, "add" | "remove") => Ok(()),
        _ => Err(HotplugError::Unknown { command }),
    };
    if let Err(error) = &done {
        // The tools read it there; where that cannot be, the exit code says enough.
        let _ = store.write(&device.key("hotplug-error"), &error.text());
        let _ = store.write(&device.key("hotplug-status"), error.status());
    }
    done
}

fn online(store: &mut Store, device: &Device, network: Network) -> Result<(), HotplugError> {
    let link = link()?;
    let key = device.key("bridge");
    let bridge = store.read(&key).map_err(HotplugError::store("read"))?;
    let bridge = bridge.ok_or(HotplugError::Missing { key })?;
    let mtu = store.read(&device.key("mtu")).map_err(HotplugError::store("read"))?;
    let mtu = mtu.and_then(|text| text.parse().ok());
    let card = Card::Join { link: link.clone(), bridge, mtu };
    let mtu = network(&card).map_err(|source| HotplugError::Network { link, source })?;
    let front = format!("/local/domain/{}/device/vif/{}/mtu", device.domain, device.number);
    store.write(&front, &mtu.to_string()).map_err(HotplugError::store("write"))?;
    connected(store, device)
}

fn offline(network: Network) -> Result<(), HotplugError> {
    let link = link()?;
    let card = Card::Leave { link: link.clone() };
    network(&card).map(drop).map_err(|source| HotplugError::Network { link, source })
}

fn link() -> Result<String, HotplugError> {
    std::env::var("vif").map_err(|_| HotplugError::Missing { key: "the variable `vif`".to_owned() })
}

/// The backend may begin.
fn connected(store: &mut Store, device: &Device) -> Result<(), HotplugError> {
    let written = store.write(&device.key("hotplug-status"), "connected");
    written.map_err(HotplugError::store("write"))
}

/// The place of the locks that Xen's own scripts take, too.
fn locks() -> PathBuf {
    PathBuf::from("/run/xen-hotplug")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(all: &[&str]) -> Vec<OsString> {
        all.iter().map(Into::into).collect()
    }

    /// By the name of a link as Xen's tools call it, and by the name as a word.
    #[test]
    fn it_is_known_by_its_name() {
        let asked = |all: &[&str]| arguments(&words(all)).map(<[OsString]>::to_vec);
        assert_eq!(asked(&[SCRIPT, "add"]), Some(words(&["add"])));
        assert_eq!(
            asked(&["/usr/bin/whimbrel", "xen-hotplug", "online", "type_if=vif"]),
            Some(words(&["online", "type_if=vif"]))
        );
        assert_eq!(asked(&["whimbrel", "list"]), None);
        assert_eq!(asked(&["whimbrel", "show", "xen-hotplug"]), None);
        assert_eq!(asked(&[]), None);
    }

    #[test]
    fn devices_are_named_by_their_backend() {
        let disk = Device::parse("/local/domain/0/backend/vbd/12/51712").unwrap();
        assert_eq!((disk.kind, disk.domain, disk.number), (Kind::Block, 12, 51712));
        assert_eq!(disk.key("mode"), "/local/domain/0/backend/vbd/12/51712/mode");
        let card = Device::parse("backend/vif/3/0").unwrap();
        assert_eq!((card.kind, card.domain, card.number), (Kind::Card, 3, 0));
        for bad in ["", "/local/domain/0/device/vbd/1/2", "backend/console/1/0", "backend/vbd/x/0"]
        {
            assert_eq!(Device::parse(bad), None, "{bad}");
        }
    }

    /// A file needs a loop device, another format a program, and a drive may be empty: those are
    /// left to Xen's tools.
    #[test]
    fn only_block_devices_are_plugged_in() {
        let text = r#"
name = "web1"
memory = "128 MiB"
[boot]
kernel = "/k"
[[disk]]
path = "/dev/vdb"
format = "raw"
[[disk]]
path = "/srv/a.img"
format = "raw"
[[disk]]
path = "/dev/vdc"
format = "qcow2"
[[disk]]
path = "/dev/vdd"
format = "raw"
device = "cdrom"
"#;
        let file = whimbrel_model::text_file::TextFile { name: "", text, base: None };
        let guest = whimbrel_model::guest::file::parse(&file).unwrap();
        let is_block = |path: &Path| path.starts_with("/dev");
        let ours: Vec<_> = guest.disks.iter().map(|disk| is_ours(disk, is_block)).collect();
        assert_eq!(ours, [true, false, false, false]);
        let plugged = Plugged { disks: ours, networks: true };
        assert_eq!((plugged.disk(0), plugged.disk(1), plugged.disk(9)), (Some(SCRIPT), None, None));
        assert_eq!(Plugged::default().networks(), None);
    }
}
