// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What every story starts from: the built programs, the guest image, a lab.

use crate::image::GuestImage;
use crate::lab::Lab;
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};

/// Where the built things lie: all below cargo's target directory.
pub struct Setting {
    target: PathBuf,
}

impl Setting {
    /// Finds the target directory from this program's own place in it.
    pub fn find() -> Result<Setting> {
        let here = std::env::current_exe()?;
        let target =
            here.parent().and_then(Path::parent).context("not below a target directory")?;
        Ok(Setting { target: target.to_owned() })
    }

    /// The program under test: the one just built, or another build named by `E2E_PROGRAM`.
    pub fn program(&self) -> Result<PathBuf> {
        let program = match std::env::var_os("E2E_PROGRAM") {
            Some(other) => PathBuf::from(other),
            None => std::env::current_exe()?.with_file_name("whimbrel"),
        };
        ensure!(program.exists(), "{} is missing: `./x e2e` builds it", program.display());
        Ok(program)
    }

    /// The same program with fault points in it.
    pub fn program_with_faults(&self) -> Result<PathBuf> {
        let program = std::env::current_exe()?.with_file_name("whimbrel-with-faults");
        ensure!(program.exists(), "{} is missing: `./x` builds it", program.display());
        Ok(program)
    }

    /// The engine's contract, for a Xen host.
    pub fn contract_on_xen(&self) -> Result<PathBuf> {
        let program = std::env::current_exe()?.with_file_name("contract_on_xen");
        ensure!(program.exists(), "{} is missing: `./x e2e xen` builds it", program.display());
        Ok(program)
    }

    /// Downloads and built images are kept here.
    pub fn cache(&self) -> PathBuf {
        self.target.join("lab")
    }

    /// Logs of stories go here.
    pub fn logs(&self) -> PathBuf {
        self.target.join("e2e")
    }

    /// Figures of benchmarks go here.
    pub fn figures(&self) -> PathBuf {
        self.target.join("bench")
    }

    pub fn image(&self) -> Result<GuestImage> {
        let witness = self.target.join("x86_64-unknown-linux-gnu/witness/witness");
        GuestImage::build(&self.cache(), &witness).context("failed to build the guest image")
    }

    /// A lab with the guest image in its shared directory.
    pub fn lab(&self) -> Result<(Lab, GuestImage)> {
        let lab = Lab::new(&self.program()?)?;
        let image = self.image()?.copy_to(&lab.shared)?;
        Ok((lab, image))
    }
}

/// A story that cannot be told on this machine, and why. It is counted and shown, never hidden.
#[derive(Debug)]
pub struct Skip(pub String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skip {}
