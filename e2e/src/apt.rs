// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Fetches Debian packages without installing them.
//!
//! The system's own apt is asked first. Where its lists are missing, or another suite is wanted, a
//! private configuration beside the cache is used: nothing of the system is changed.

use crate::command::{run, stdout_of};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The unprivileged user of apt cannot write where we do; packages are verified all the same.
const UNSANDBOXED: &str = "-oAPT::Sandbox::User=root";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A way to call apt.
pub struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// The system's own, with its own lists.
    pub fn system() -> Apt {
        Apt { options: vec!["-qq".to_owned(), UNSANDBOXED.to_owned()] }
    }

    /// One that lives below `home` and knows the given suites, its lists freshly read.
    pub fn private(home: &Path, suites: &[&str]) -> Result<Apt> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(part))?;
        }
        let line = |suite: &&str| {
            let mirror = mirror(suite.ends_with("-security"));
            format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n")
        };
        fs::write(home.join("sources.list"), suites.iter().map(line).collect::<String>())?;
        let option = |name: &str, value: &Path| format!("-o{name}={}", value.display());
        let apt = Apt {
            options: vec![
                "-qq".to_owned(),
                UNSANDBOXED.to_owned(),
                option("Dir::Etc::SourceList", &home.join("sources.list")),
                option("Dir::Etc::SourceParts", Path::new("/dev/null")),
                option("Dir::State::Lists", &home.join("lists")),
                option("Dir::Cache", &home.join("cache")),
            ],
        };
        run(apt.get().arg("update")).context("failed to read the package lists")?;
        Ok(apt)
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(&self.options).env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Returns what a package depends on directly, by name.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let mut command = Command::new("apt-cache");
        let text = stdout_of(command.args(&self.options).args(["depends", package]))?;
        let named = |line: &str| Some(line.trim().strip_prefix("Depends: ")?.to_owned());
        Ok(text.lines().filter_map(named).collect())
    }

    /// Downloads a package (`name` or `name/suite`) and unpacks it below `into`.
    pub fn unpack(&self, packages: &[&str], into: &Path) -> Result<()> {
        let downloads = into.join("packages");
        fs::create_dir_all(&downloads)?;
        let mut download = self.get();
        download.arg("download").args(packages);
        run(download.current_dir(&downloads)).context("failed to download packages")?;
        let mut unpacked = 0;
        for entry in fs::read_dir(&downloads)? {
            let package = entry?.path();
            run(Command::new("dpkg").arg("-x").arg(&package).arg(into))?;
            unpacked += 1;
        }
        if unpacked == 0 {
            bail!("apt-get downloaded nothing for {}", packages.join(", "));
        }
        fs::remove_dir_all(&downloads)?;
        Ok(())
    }
}

/// Unpacks packages into `place` once; later calls find them there. The directory appears under
/// its name only when it is complete.
pub fn unpacked_once(place: &Path, unpack: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if !place.exists() {
        let partial = place.with_extension(format!("partial-{}", std::process::id()));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        unpack(&partial)?;
        if let Err(error) = fs::rename(&partial, place) {
            // Another test was faster; its copy is as good.
            fs::remove_dir_all(&partial)?;
            if !place.exists() {
                return Err(error).context("failed to keep the unpacked packages");
            }
        }
    }
    Ok(place.to_owned())
}

/// The machine's own mirror: of the security suite, or of all others.
pub(crate) fn mirror(is_security: bool) -> String {
    let lists = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let lists = lists.map(|entry| entry.path()).chain([PathBuf::from("/etc/apt/sources.list")]);
    let texts = lists.filter_map(|path| fs::read_to_string(path).ok()).collect::<String>();
    let words = texts.split_whitespace().filter(|word| word.starts_with("http"));
    let of_debian = |word: &&str| {
        let path = word.trim_end_matches('/');
        path.ends_with(if is_security { "/debian-security" } else { "/debian" })
    };
    words.map(str::to_owned).find(|word| of_debian(&word.as_str())).unwrap_or_default()
}
