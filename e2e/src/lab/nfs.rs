// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! An NFS server in user space, at the client's address: for disks that engines reach by URL.

use super::{Lab, Place};
use crate::command::run;
use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take until it shows its files.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the server is announced.
const PORTMAPPER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 9), 111);

/// What an export lets its clients do, in the server's own words.
pub struct Export {
    access: &'static str,
    squash: &'static str,
}

impl Export {
    pub const READ_ONLY: Export = Export { access: "RO", squash: "No_Root_Squash" };
    pub const ROOT_SQUASHED: Export = Export { access: "RW", squash: "Root_Squash" };
}

/// Serves a directory until it is dropped.
pub struct NfsServer {
    daemons: Vec<Child>,
    /// The directory, as `nfs://` names it.
    pub url: String,
}

impl NfsServer {
    /// Shows `directory`, in which there must be a disk image of that name, to everybody as they
    /// are.
    pub fn serve(lab: &Lab, directory: &Path, image: &str) -> Result<NfsServer> {
        Self::serve_as(lab, directory, image, &Export { access: "RW", squash: "No_Root_Squash" })
    }

    /// The same, with an export that forbids something; the image must be readable all the same.
    pub fn serve_as(
        lab: &Lab,
        directory: &Path,
        image: &str,
        export: &Export,
    ) -> Result<NfsServer> {
        let place = Place::new(&format!("{}-client", lab.prefix()), own_run)?;
        let [config, log] = ["nfs.conf", "nfs.log"].map(|name| lab.directory().join(name));
        fs::write(&config, configuration(directory, export))?;
        let mut portmapper = Command::new("rpcbind");
        portmapper.arg("-f").stdin(Stdio::null());
        let mut server = Command::new("ganesha.nfsd");
        server.args(["-F", "-p", "/run/ganesha.pid", "-L"]).arg(&log).arg("-f").arg(&config);
        server.stdin(Stdio::null());
        let mut serving =
            NfsServer { daemons: Vec::new(), url: "nfs://10.77.0.9/guests".to_owned() };
        serving.daemons.push(place.spawn(portmapper)?);
        // The server wants to be known there as it starts, or ends.
        wait_for_portmapper(&place)?;
        serving.daemons.push(place.spawn(server)?);
        let image = format!("{}/{image}", serving.url);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let image = image.clone();
            let shows = move || run(Command::new("qemu-img").args(["info", &image]));
            let Err(error) = place.run(shows) else { return Ok(serving) };
            let said = || fs::read_to_string(&log).unwrap_or_default();
            ensure!(Instant::now() < deadline, "the NFS server shows nothing: {error}\n{}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for NfsServer {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            // It may have ended by itself.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn wait_for_portmapper(place: &Place) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = place.run(|| TcpStream::connect(PORTMAPPER)) {
        ensure!(Instant::now() < deadline, "the portmapper does not listen: {error}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The portmapper has its socket and its lock there.
fn own_run() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).context("no /run")
}

fn configuration(directory: &Path, Export { access, squash }: &Export) -> String {
    format!(
        "NFS_CORE_PARAM {{ Protocols = 3; Enable_NLM = false; Enable_RQUOTA = false;\n\
         Enable_UDP = false; mount_path_pseudo = true; }}\n\
         EXPORT {{ Export_Id = 1; Path = {}; Pseudo = /guests; Access_Type = {access};\n\
         Squash = {squash}; Protocols = 3; Transports = TCP; SecType = sys;\n\
         FSAL {{ Name = VFS; }} }}\n",
        directory.display()
    )
}
