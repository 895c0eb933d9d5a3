// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A domain's configuration, as libxl writes it and reads it.
//!
//! libxl reads JSON in C: it takes the first of two equal keys, and ends a string at a NUL. Here
//! neither is let through.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// JSON in which no key comes twice and no string holds a NUL.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(i128),
    Text(String),
    List(Vec<Json>),
    Map(BTreeMap<String, Json>),
}

impl Json {
    /// Returns what is at a place: keys with `/` between them.
    pub(super) fn at(&self, place: &str) -> Option<&Json> {
        place.split('/').try_fold(self, |json, key| match json {
            Json::Map(map) => map.get(key),
            _ => None,
        })
    }

    pub(super) fn text(&self, place: &str) -> Option<&str> {
        match self.at(place) {
            Some(Json::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self, place: &str) -> Option<i128> {
        match self.at(place) {
            Some(Json::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// Returns the members of a list; none where there is no list.
    pub(super) fn list(&self, place: &str) -> &[Json] {
        match self.at(place) {
            Some(Json::List(items)) => items,
            _ => &[],
        }
    }

    pub(super) fn map_mut(&mut self) -> Option<&mut BTreeMap<String, Json>> {
        match self {
            Json::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(super) fn list_mut(&mut self, key: &str) -> Option<&mut Vec<Json>> {
        match self.map_mut()?.get_mut(key) {
            Some(Json::List(items)) => Some(items),
            _ => None,
        }
    }

    /// Takes what is at a key out of a group of settings.
    pub(super) fn take(self, key: &str) -> Option<Json> {
        match self {
            Json::Map(mut map) => map.remove(key),
            _ => None,
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => write!(f, "null"),
            Json::Bool(is) => write!(f, "{is}"),
            Json::Number(number) => write!(f, "{number}"),
            Json::Text(text) => write!(f, "`{}`", text.escape_debug()),
            Json::List(items) => write!(f, "a list of {}", items.len()),
            // A disk is called by its path, a network card by its address.
            Json::Map(map) => match map.get("pdev_path").or(map.get("mac")) {
                Some(name @ Json::Text(_)) => write!(f, "{name}"),
                _ => write!(f, "a group of settings"),
            },
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => to.serialize_unit(),
            Json::Bool(is) => to.serialize_bool(*is),
            Json::Number(number) => to.serialize_i128(*number),
            Json::Text(text) => to.serialize_str(text),
            Json::List(items) => items.serialize(to),
            Json::Map(map) => map.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JSON with whole numbers")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Json, E> {
        match value.contains('\0') {
            true => Err(E::custom("a string with a NUL")),
            false => Ok(Json::Text(value.to_owned())),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = from.next_entry::<String, Json>()? {
            if key.contains('\0') || map.contains_key(&key) {
                return Err(de::Error::custom(format!("`{}` twice", key.escape_debug())));
            }
            map.insert(key, value);
        }
        Ok(Json::Map(map))
    }
}
