// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Where a story opens: two paired hosts with their daemons up, and guests to put on them.

use crate::disk;
use crate::image::GuestImage;
use crate::lab::{Host, Lab, SHARED};
use crate::setting::Setting;
use crate::witness::Witness;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// What both daemons are told, unless the story says otherwise.
pub const CONFIG: &str = r#"
[relocation]
enabled = true
allow_paths = ["/srv/guests"]
allow_bridges = ["br0"]
"#;
/// How long something may take that is expected to happen at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);
/// How long a host may take to read the disks of a guest, slowly.
const READ: Duration = Duration::from_secs(120);

/// Two hosts, a client and the image of the test guest.
pub struct Scene {
    pub lab: Lab,
    pub image: GuestImage,
}

/// A guest of a story: a name, an address, two disks.
#[derive(Clone, Debug)]
pub struct Cast {
    pub name: String,
    pub address: Ipv4Addr,
    pub memory_mib: u32,
    /// Further words for the witness, on the kernel command line.
    pub words: String,
    /// Further keys at the top of the guest file.
    pub keys: String,
    /// What it boots, where it is not the kernel that the engine loads: a `[boot]` table.
    pub boot: Option<String>,
    /// Tables of further disks, before the usual two.
    pub disks: String,
    /// Tables of its networks.
    pub networks: String,
    /// Whether its last disk holds a distribution, for the witness to run commands in.
    pub has_userland: bool,
}

impl Scene {
    /// Both daemons are up, know each other, and accept each other's guests.
    pub fn paired(setting: &Setting) -> Result<Scene> {
        let scene = Scene::strangers(setting)?;
        scene.pair()?;
        Ok(scene)
    }

    /// Both daemons are up and have never met.
    pub fn strangers(setting: &Setting) -> Result<Scene> {
        let (lab, image) = setting.lab()?;
        Scene::furnish(lab, image)
    }

    /// Starts both daemons of a fresh lab.
    pub fn furnish(lab: Lab, image: GuestImage) -> Result<Scene> {
        Scene::configured(lab, image, ["", ""])
    }

    /// Starts both daemons with further lines at the end of their configurations.
    pub fn configured(lab: Lab, image: GuestImage, more: [&str; 2]) -> Result<Scene> {
        for (host, more) in [&lab.alpha, &lab.beta].into_iter().zip(more) {
            host.configure(&format!("{CONFIG}\n{more}"))?;
            host.start_daemon()?;
        }
        Ok(Scene { lab, image })
    }

    pub fn alpha(&self) -> &Host {
        &self.lab.alpha
    }

    pub fn beta(&self) -> &Host {
        &self.lab.beta
    }

    /// Pairs the hosts as a person would: the invitation of one is read by the other.
    pub fn pair(&self) -> Result<()> {
        let token = invite(self.alpha())?;
        self.beta().whimbrel_reading(&["host", "join"], &format!("{token}\n"))?.ok()?;
        Ok(())
    }

    /// Makes a guest's disks, one raw and one qcow2, and returns its file.
    pub fn guest_file(&self, cast: &Cast) -> Result<String> {
        let shared = &self.lab.shared;
        disk::raw(&shared.join(format!("{}-root.img", cast.name)), 16)?;
        disk::qcow2(&shared.join(format!("{}-swap.qcow2", cast.name)), 8)?;
        let path = format!("{SHARED}/{}.toml", cast.name);
        std::fs::write(shared.join(format!("{}.toml", cast.name)), cast.file())?;
        Ok(path)
    }

    /// Creates a guest on a host and waits until its witness answers.
    pub fn create(&self, host: &Host, cast: &Cast) -> Result<Witness<'_>> {
        let file = self.guest_file(cast)?;
        host.whimbrel(&["create", &file])?.ok()?;
        let witness = self.witness(cast);
        witness.wait().with_context(|| console_of(host, &cast.name))?;
        Ok(witness)
    }

    pub fn witness(&self, cast: &Cast) -> Witness<'_> {
        Witness::at(&self.lab.client, cast.address)
    }
}

impl Cast {
    /// The usual guest.
    pub fn web1() -> Cast {
        Cast::named("web1", 50)
    }

    /// Another one beside it.
    pub fn web2() -> Cast {
        Cast::named("web2", 51)
    }

    pub fn named(name: &str, last: u8) -> Cast {
        Cast {
            name: name.to_owned(),
            address: Ipv4Addr::new(10, 77, 0, last),
            memory_mib: 192,
            words: String::new(),
            keys: String::new(),
            boot: None,
            disks: String::new(),
            networks: "[[network]]\nbridge = \"br0\"\n".to_owned(),
            has_userland: false,
        }
    }

    /// A witness that dirties this many MiB a second from its start.
    pub fn dirtying(mut self, kind: &str, mib_per_s: u32) -> Cast {
        self.words.push_str(&format!(" witness.dirty={kind}:{mib_per_s}"));
        self
    }

    /// A guest that keeps this many MiB of checked pages.
    pub fn with_memory(mut self, memory_mib: u32, checked_mib: u32) -> Cast {
        self.memory_mib = memory_mib;
        self.words.push_str(&format!(" witness.memory={checked_mib}"));
        self
    }

    /// A guest with a distribution on its third disk, which is to be made with [`Userland`].
    ///
    /// [`Userland`]: crate::userland::Userland
    pub fn with_userland(mut self) -> Cast {
        self.has_userland = true;
        self.words.push_str(" witness.userland=vdc");
        self
    }

    /// Further words for the witness.
    pub fn with_words(mut self, words: &str) -> Cast {
        self.words.push(' ');
        self.words.push_str(words);
        self
    }

    pub fn with_keys(mut self, keys: &str) -> Cast {
        self.keys.push_str(keys);
        self.keys.push('\n');
        self
    }

    /// What its kernel is told.
    pub fn command_line(&self) -> String {
        let Cast { address, words, .. } = self;
        let [.., last] = address.octets();
        // Emulated on a busy machine, the timer's check fails, and the kernel gives up.
        let kernel = "console=ttyS0 quiet no_timer_check";
        format!("{kernel} witness.ip={address}/24 witness.seed={last}{words}")
    }

    /// The guest file.
    pub fn file(&self) -> String {
        let Cast { name, memory_mib, keys, disks, networks, has_userland, .. } = self;
        let boot = self.boot.clone().unwrap_or_else(|| {
            format!(
                "[boot]\nkernel = \"{SHARED}/vmlinuz\"\nramdisk = \"{SHARED}/witness.cpio\"\n\
                 command_line = \"{}\"\n",
                self.command_line()
            )
        });
        let userland = if *has_userland {
            format!("[[disk]]\npath = \"{SHARED}/{name}-userland.img\"\nformat = \"raw\"\n")
        } else {
            String::new()
        };
        format!(
            r#"name = "{name}"
memory = "{memory_mib} MiB"
{keys}
{boot}
{disks}
[[disk]]
path = "{SHARED}/{name}-root.img"
format = "raw"

[[disk]]
path = "{SHARED}/{name}-swap.qcow2"
format = "qcow2"

{userland}
{networks}"#
        )
    }
}

/// Invites another host and returns the token.
pub fn invite(host: &Host) -> Result<String> {
    Ok(host.whimbrel(&["host", "invite"])?.ok()?.trim().to_owned())
}

/// Waits until something is so.
pub fn until(
    what: &str,
    patience: Duration,
    mut is_so: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !is_so()? {
        if Instant::now() > deadline {
            bail!("not within {patience:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Parses what a command printed with `--json`.
pub fn json(host: &Host, arguments: &[&str]) -> Result<Value> {
    let printed = host.whimbrel(&[arguments, &["--json"]].concat())?.ok()?;
    serde_json::from_str(&printed).with_context(|| format!("not JSON: {printed}"))
}

/// Returns what `list` says a guest is doing on a host; `None` if it is not there.
pub fn state(host: &Host, guest: &str) -> Result<Option<String>> {
    let list = json(host, &["list"])?;
    let guests = list["guests"].as_array().or_else(|| list.as_array());
    let guests = guests.with_context(|| format!("no guests in {list}"))?;
    let found = guests.iter().find(|entry| entry["name"] == guest);
    Ok(found.and_then(|entry| entry["state"].as_str()).map(str::to_owned))
}

/// Waits until `list` says that a guest is in a state.
pub fn await_state(host: &Host, guest: &str, wanted: &str) -> Result<()> {
    until(&format!("{guest} is {wanted} on {}", host.name), SOON, || {
        Ok(state(host, guest)?.as_deref() == Some(wanted))
    })
}

/// Checks that a guest is on exactly one host, in that state, and that no engine of it is left on
/// the other.
pub fn lives_only_on(home: &Host, other: &Host, guest: &str, wanted: &str) -> Result<()> {
    await_state(home, guest, wanted)?;
    until(&format!("nothing of {guest} is left on {}", other.name), SOON, || {
        Ok(state(other, guest)?.is_none() && engines(other, guest)?.is_empty())
    })
    .with_context(|| console_of(other, guest))
}

/// Waits until a host knows what lies on the disks of a guest that runs there.
pub fn await_disks_known(host: &Host) -> Result<()> {
    until(&format!("{} knows what lies on disks", host.name), READ, || {
        Ok(host.place.run(|| -> std::io::Result<bool> {
            let mut guests = std::fs::read_dir("/var/lib/whimbrel/guests")?;
            Ok(guests.any(|guest| guest.is_ok_and(|guest| guest.path().join("blocks").exists())))
        })?)
    })
}

/// Returns the process ids of engines that run a guest on a host.
pub fn engines(host: &Host, guest: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for pid in host.processes() {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&line);
        let is_engine = text.starts_with("qemu") || text.contains("/qemu");
        let is_meant =
            text.contains(&format!("guest={guest}")) || text.contains(&format!("{guest}-root.img"));
        if is_engine && is_meant {
            found.push(pid);
        }
    }
    Ok(found)
}

/// What a guest's console said, for errors.
pub fn console_of(host: &Host, guest: &str) -> String {
    let log = host.command(
        "/bin/sh".as_ref(),
        &["-c", "tail -n 30 /var/lib/whimbrel/guests/*/run/console.log"],
        "",
    );
    let log = log.map(|ran| ran.stdout).unwrap_or_default();
    format!("{guest} on {}: console:\n{log}\ndaemon:\n{}", host.name, host.daemon_said())
}

/// Checks what a migration's report says of its success, and returns it.
pub fn report(host: &Host, guest: &str) -> Result<Value> {
    let report = json(host, &["report", guest])?;
    ensure!(report["result"] == "done", "the report says: {report}");
    Ok(report)
}
