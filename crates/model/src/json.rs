// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! JSON between hosts and in the store: versioned, bounded, and apart from the checked types.
//!
//! The checked types of this crate are not `Serialize`. What is written has a *raw* type of its
//! own, made by `raw_struct!` or `raw_enum!` from an explicit list of fields; reading goes from
//! JSON to raw to checked, and every check of the way in is made again. A text says its `version`;
//! one that is not known is refused, never guessed at.

mod raw;

use crate::codes;
use crate::problem::{Kind, Remedy};
pub(crate) use raw::Wire;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Why a text from the store or from a peer was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("the {what} has {bytes} bytes, and at most {bytes_max} are read")]
    TooLong { what: &'static str, bytes: usize, bytes_max: usize },
    #[error("the {what} has version {found}, and this Whimbrel reads version {known}")]
    Version { what: &'static str, found: u64, known: u32 },
    #[error("the {what} cannot be read: {reason}")]
    Malformed { what: &'static str, reason: String },
}

impl Remedy for JsonError {
    fn code(&self) -> &'static str {
        match self {
            JsonError::TooLong { .. } => codes::JSON_TOO_LONG,
            JsonError::Version { .. } => codes::JSON_VERSION,
            JsonError::Malformed { .. } => codes::JSON_MALFORMED,
        }
    }

    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn remedy(&self) -> String {
        match self {
            JsonError::Version { .. } => {
                "run the same version of Whimbrel on both hosts: upgrade the older one".to_owned()
            }
            JsonError::TooLong { .. } | JsonError::Malformed { .. } => {
                "see `whimbrel log` on both hosts for where it came from, and report it".to_owned()
            }
        }
    }
}

/// One kind of text.
pub(crate) struct Format {
    /// As errors name it.
    pub what: &'static str,
    pub version: u32,
    pub bytes_max: usize,
}

#[derive(Serialize)]
struct Written<R> {
    version: u32,
    body: R,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct Body<R> {
    body: R,
}

impl Format {
    pub(crate) fn write<T: Wire>(&self, value: &T) -> String {
        let written = Written { version: self.version, body: value.to_raw() };
        serde_json::to_string(&written).expect("raw types have only string keys")
    }

    pub(crate) fn read<T: Wire>(&self, text: &str) -> Result<T, JsonError> {
        let what = self.what;
        if text.len() > self.bytes_max {
            let bytes_max = self.bytes_max;
            return Err(JsonError::TooLong { what, bytes: text.len(), bytes_max });
        }
        let Version { version } = self.parse(text)?;
        if version != u64::from(self.version) {
            return Err(JsonError::Version { what, found: version, known: self.version });
        }
        let Body { body } = self.parse(text)?;
        T::from_raw(body).map_err(|reason| JsonError::Malformed { what, reason })
    }

    fn parse<R: DeserializeOwned>(&self, text: &str) -> Result<R, JsonError> {
        serde_json::from_str(text)
            .map_err(|error| JsonError::Malformed { what: self.what, reason: error.to_string() })
    }
}

/// Makes the raw type of a struct and the way to it and back. A new field of the checked type does
/// not compile until somebody has decided what older texts mean by its absence.
macro_rules! raw_struct {
    ($(#[$meta:meta])* $real:ident as $raw:ident {
        $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
    }) => {
        #[derive(serde::Serialize, serde::Deserialize)]
        $(#[$meta])*
        pub(crate) struct $raw {
            $($(#[$field_meta])* $field: <$type as $crate::json::Wire>::Raw,)*
        }

        impl $crate::json::Wire for $real {
            type Raw = $raw;

            fn to_raw(&self) -> $raw {
                let $real { $($field,)* } = self;
                $raw { $($field: $crate::json::Wire::to_raw($field),)* }
            }

            fn from_raw(raw: $raw) -> Result<Self, String> {
                $(
                    let $field = <$type as $crate::json::Wire>::from_raw(raw.$field)
                        .map_err(|reason| format!("{}: {reason}", stringify!($field)))?;
                )*
                Ok($real { $($field,)* })
            }
        }
    };
}

/// Makes the raw type of an enum and the way to it and back. Variants are written in snake case.
/// `Variant(name: Type)` stands for a variant with one nameless value.
macro_rules! raw_enum {
    ($real:ident as $raw:ident {
        $($variant:ident $(($inner:ident: $inner_type:ty))? $({ $($field:ident: $type:ty),* })?,)*
    }) => {
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case", deny_unknown_fields)]
        pub(crate) enum $raw {
            $($variant
                $((<$inner_type as $crate::json::Wire>::Raw))?
                $({ $($field: <$type as $crate::json::Wire>::Raw),* })?,
            )*
        }

        impl $crate::json::Wire for $real {
            type Raw = $raw;

            fn to_raw(&self) -> $raw {
                match self {
                    $($real::$variant $(($inner))? $({ $($field),* })? => $raw::$variant
                        $(($crate::json::Wire::to_raw($inner)))?
                        $({ $($field: $crate::json::Wire::to_raw($field)),* })?,
                    )*
                }
            }

            fn from_raw(raw: $raw) -> Result<Self, String> {
                Ok(match raw {
                    $($raw::$variant $(($inner))? $({ $($field),* })? => $real::$variant
                        $((<$inner_type as $crate::json::Wire>::from_raw($inner)?))?
                        $({ $($field: <$type as $crate::json::Wire>::from_raw($field)
                            .map_err(|reason| format!("{}: {reason}", stringify!($field)))?),* })?,
                    )*
                })
            }
        }
    };
}

pub(crate) use {raw_enum, raw_struct};
