// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How the common types look in JSON.

use crate::guest::{DiskSource, Forward, Mac};
use crate::id::{GuestId, GuestName, HandoffId, HostName};
use crate::problem::{Kind, Problem};
use crate::text_file::check_path;
use crate::units::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;

/// A checked type that has a form on the wire.
pub(crate) trait Wire: Sized {
    type Raw: Serialize + DeserializeOwned;

    fn to_raw(&self) -> Self::Raw;

    /// Checks again everything that the type promises.
    fn from_raw(raw: Self::Raw) -> Result<Self, String>;
}

/// Types that are written as they are.
macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            type Raw = $type;

            fn to_raw(&self) -> $type {
                self.clone()
            }

            fn from_raw(raw: $type) -> Result<Self, String> {
                Ok(raw)
            }
        }
    )*};
}
plain!(bool, u8, u16, u32, u64, String);

/// Types that are written as the text people see, and read by the same rules.
macro_rules! text {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            type Raw = String;

            fn to_raw(&self) -> String {
                self.to_string()
            }

            fn from_raw(raw: String) -> Result<Self, String> {
                raw.parse::<$type>().map_err(|error| error.to_string())
            }
        }
    )*};
}
text!(GuestId, HandoffId, GuestName, HostName, Mac, Forward);

impl<T: Wire> Wire for Option<T> {
    type Raw = Option<T::Raw>;

    fn to_raw(&self) -> Self::Raw {
        self.as_ref().map(T::to_raw)
    }

    fn from_raw(raw: Self::Raw) -> Result<Self, String> {
        raw.map(T::from_raw).transpose()
    }
}

impl<T: Wire> Wire for Box<T> {
    type Raw = Box<T::Raw>;

    fn to_raw(&self) -> Self::Raw {
        Box::new((**self).to_raw())
    }

    fn from_raw(raw: Self::Raw) -> Result<Self, String> {
        T::from_raw(*raw).map(Box::new)
    }
}

impl<T: Wire> Wire for Vec<T> {
    type Raw = Vec<T::Raw>;

    fn to_raw(&self) -> Self::Raw {
        self.iter().map(T::to_raw).collect()
    }

    fn from_raw(raw: Self::Raw) -> Result<Self, String> {
        let items = raw.into_iter().enumerate();
        items
            .map(|(index, item)| T::from_raw(item).map_err(|reason| format!("[{index}] {reason}")))
            .collect()
    }
}

impl Wire for Bytes {
    type Raw = u64;

    fn to_raw(&self) -> u64 {
        self.0
    }

    fn from_raw(raw: u64) -> Result<Self, String> {
        Ok(Self(raw))
    }
}

/// Microseconds: fine enough for a pause, and whole.
impl Wire for Duration {
    type Raw = u64;

    fn to_raw(&self) -> u64 {
        u64::try_from(self.as_micros()).unwrap_or(u64::MAX)
    }

    fn from_raw(raw: u64) -> Result<Self, String> {
        Ok(Self::from_micros(raw))
    }
}

/// Absolute, and without `..`: a path from a peer means one place only.
impl Wire for PathBuf {
    type Raw = String;

    fn to_raw(&self) -> String {
        self.to_string_lossy().into_owned()
    }

    fn from_raw(raw: String) -> Result<Self, String> {
        check_path(&raw, None)
    }
}

/// A digest, hexadecimal.
impl Wire for [u8; 32] {
    type Raw = String;

    fn to_raw(&self) -> String {
        blake3::Hash::from_bytes(*self).to_hex().to_string()
    }

    fn from_raw(raw: String) -> Result<Self, String> {
        let digest = blake3::Hash::from_hex(&raw);
        digest.map(Into::into).map_err(|_| "expected 64 hexadecimal digits".to_owned())
    }
}

impl Wire for DiskSource {
    type Raw = String;

    fn to_raw(&self) -> String {
        self.to_string()
    }

    fn from_raw(raw: String) -> Result<Self, String> {
        match raw.starts_with("nfs://") {
            true => crate::guest::file::check_nfs(&raw).map(DiskSource::Nfs),
            false => check_path(&raw, None).map(DiskSource::Path),
        }
    }
}

super::raw_enum! { Kind as RawKind { Refused, Usage, Failed, InDoubt, } }

super::raw_struct! {
    Problem as RawProblem { kind: Kind, code: String, text: String, remedy: String, }
}
