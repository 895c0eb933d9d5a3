// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The demo without root: one host, a guest with user networking.

use super::say;
use crate::disk;
use crate::image::GuestImage;
use crate::setting::Setting;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon of this user, in a directory of its own.
struct Own {
    directory: PathBuf,
    program: PathBuf,
    daemon: Child,
}

/// Shows a guest on one host, as whoever asks.
pub fn alone() -> Result<()> {
    let setting = Setting::find()?;
    let own = Own::start(&setting)?;
    let image = setting.image()?.copy_to(&own.directory)?;
    let port = free_port()?;
    say("a guest with user networking; a port of this machine leads into it");
    let file = own.directory.join("web1.toml");
    fs::write(&file, guest(&own.directory, &image, port)?)?;
    own.type_here(&["create", &file.display().to_string()])?;
    own.type_here(&["list"])?;
    println!("what the guest says through port {port}: {}", ask(port)?);
    own.type_here(&["stop", "web1"])?;
    own.type_here(&["list"])
}

impl Own {
    fn start(setting: &Setting) -> Result<Own> {
        let directory = std::env::temp_dir().join(format!("whimbrel-alone-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let config = directory.join("whimbrel.toml");
        fs::write(
            &config,
            format!("[host]\nstate_dir = \"{}\"\n", directory.join("state").display()),
        )?;
        say("a daemon of your own, without root");
        let program = setting.program()?;
        let log = fs::File::create(directory.join("daemon.log"))?;
        let mut command = Command::new(&program);
        command.arg("daemon").arg("--config").arg(&config);
        let daemon = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        let own = Own { directory, program, daemon };
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(own.socket()).is_err() {
            if Instant::now() > deadline {
                let said = fs::read_to_string(own.directory.join("daemon.log"))?;
                bail!("the daemon does not answer: {said}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(own)
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("state/api.sock")
    }

    fn type_here(&self, arguments: &[&str]) -> Result<()> {
        println!("$ whimbrel {}", arguments.join(" "));
        let config = self.directory.join("whimbrel.toml");
        let mut command = Command::new(&self.program);
        command.args(arguments).env("WHIMBREL_CONFIG", config).stdin(Stdio::null());
        let status = command.status()?;
        ensure!(status.success(), "that failed ({status})");
        Ok(())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // The guest outlives the daemon, so it goes first.
        let _ = self.type_here(&["stop", "--now", "web1"]);
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn guest(directory: &Path, image: &GuestImage, port: u16) -> Result<String> {
    let root = disk::raw(&directory.join("root.img"), 16)?;
    let [kernel, ramdisk, root] =
        [&image.kernel, &image.initramfs, &root].map(|path| path.display().to_string());
    Ok(format!(
        r#"name = "web1"
memory = "192 MiB"

[boot]
kernel = "{kernel}"
ramdisk = "{ramdisk}"
command_line = "console=ttyS0 quiet witness.ip=10.0.2.15/24"

[[disk]]
path = "{root}"
format = "raw"

[[network]]
user = true
forward = ["tcp:127.0.0.1:{port}->7777"]
"#
    ))
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Asks the witness until it has booted.
fn ask(port: u16) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    loop {
        let answer = TcpStream::connect(address).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"status\n")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(line)
        });
        match answer {
            Ok(line) if line.starts_with("ok ") => return Ok(line.trim().to_owned()),
            _ if Instant::now() > deadline => return answer.context("the guest does not answer"),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
