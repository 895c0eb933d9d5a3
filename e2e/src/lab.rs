// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Two hosts on one machine: network and mount namespaces joined by a bridge.
//!
//! ```text
//!   alpha                 lan                 beta
//!   br0 10.77.0.1    +-----------+    br0 10.77.0.2      client 10.77.0.9
//!    |- up0 ---------| bridge lan|-------- up0 -|             |
//!    |- taps         +-----------+      taps   -|            up0 ---- lan
//! ```
//!
//! Each host has `/etc`, `/run`, `/srv` and `/var/lib` of its own; [`SHARED`] is one directory for
//! both. Nothing of the machine below is changed, so several labs can stand beside each other, and
//! a lab that is left behind (by a kill) is removed by the next one.

mod boot;
mod cleanup;
mod furnish;
mod host;
mod network;
mod nfs;
mod place;
mod process;

pub use boot::Booted;
pub use cleanup::{Remains, guard, remove_stale};
pub use furnish::Share;
pub use host::Host;
pub use network::Traffic;
pub use nfs::{Export, NfsServer};
pub use place::Place;
pub use process::{Lines, Ran, TooLong, finish};

use crate::command::run;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where both hosts find the same files.
pub const SHARED: &str = "/srv/guests";
/// The user that engines run as, in both hosts.
pub const ENGINE_UID: u32 = 64_321;
/// Where the guests of a lab live.
pub const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);

/// Set in the environment of a process whose labs tell at their end what the daemons said.
pub const TELLS: &str = "WHIMBREL_LABS_TELL";

/// Two hosts, a client, and what lies between them.
pub struct Lab {
    pub alpha: Host,
    pub beta: Host,
    /// Someone on the same network who talks to the guests.
    pub client: Place,
    /// The shared directory, as seen from the machine below.
    pub shared: PathBuf,
    remains: Remains,
    is_kept: bool,
}

impl Lab {
    /// Sets up a lab of this process.
    pub fn new(program: &Path) -> Result<Lab> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Lab::named(&format!("wl{}x{count}", std::process::id()), program)
    }

    /// Sets up a lab under a name of its own; one of the same name is removed first.
    pub fn named(prefix: &str, program: &Path) -> Result<Lab> {
        if !nix::unistd::geteuid().is_root() {
            bail!("a lab needs root: it makes network and mount namespaces, bridges and taps");
        }
        remove_stale();
        let remains = Remains::of(prefix, ["lan", "client", "alpha", "beta"]);
        remains.remove();
        remains.register();
        Lab::build(remains, program).context("failed to set up the lab")
    }

    fn build(remains: Remains, program: &Path) -> Result<Lab> {
        let shared = remains.directory.join("shared");
        fs::create_dir_all(&shared)?;
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777))?;
        for name in &remains.namespaces {
            run(Command::new("ip").args(["netns", "add", name]))?;
        }
        let [lan, client, alpha, beta] = &remains.namespaces;
        network::make_lan(lan)?;
        network::join_as_client(lan, client)?;
        let make_host = |name: &str, namespace: &str, last: u8| {
            let address = Ipv4Addr::new(10, 77, 0, last);
            network::join_as_host(lan, namespace, name, address)?;
            let directory = remains.directory.join(name);
            Host::new(name, namespace, lan, address, &directory, &shared, program)
        };
        let alpha = make_host("alpha", alpha, 1)?;
        let beta = make_host("beta", beta, 2)?;
        let client = Place::new(client, || Ok(()))?;
        Ok(Lab { alpha, beta, client, shared, remains, is_kept: false })
    }

    pub fn directory(&self) -> &Path {
        &self.remains.directory
    }

    /// Bytes that went between the two hosts so far, the client's left out.
    pub fn bytes_between_hosts(&self) -> Result<u64> {
        let [lan, ..] = &self.remains.namespaces;
        network::bytes_between_hosts(lan, [&self.alpha.name, &self.beta.name])
    }

    /// What this lab's namespaces are called by.
    pub fn prefix(&self) -> &str {
        let [lan, ..] = &self.remains.namespaces;
        lan.strip_suffix("-lan").expect("namespaces are named after their lab")
    }

    /// What the daemons said, for whoever reads a story that failed.
    fn tell(&self) {
        for host in [&self.alpha, &self.beta] {
            println!("the daemon of {} said last\n{}", host.name, host.daemon_said());
        }
    }

    /// Leaves everything standing when this process ends.
    pub fn keep(&mut self) {
        self.is_kept = true;
        self.remains.forget();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.is_kept {
            if std::env::var_os(TELLS).is_some() {
                self.tell();
            }
            self.remains.remove();
            self.remains.forget();
        }
    }
}
