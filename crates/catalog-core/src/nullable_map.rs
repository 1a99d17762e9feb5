//! The protocol's maps of text whose values may be null.

use std::fmt;
use std::ops::{Deref, DerefMut};

use litemap::LiteMap;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

type Inner = LiteMap<String, Option<String>>;

/// Map of the protocol whose values may be null: partition values, tags. A sorted vector, as most have an
/// entry or two, and there is one for each file. In JSON it is an object, also when it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NullableMap(Inner);

impl NullableMap {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        NullableMap(LiteMap::new_vec())
    }
}

impl Deref for NullableMap {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl DerefMut for NullableMap {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.0
    }
}

impl FromIterator<(String, Option<String>)> for NullableMap {
    fn from_iter<I: IntoIterator<Item = (String, Option<String>)>>(entries: I) -> Self {
        NullableMap(entries.into_iter().collect())
    }
}

impl<const N: usize> From<[(String, Option<String>); N]> for NullableMap {
    fn from(entries: [(String, Option<String>); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl IntoIterator for NullableMap {
    type Item = (String, Option<String>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_tuple_vec().into_iter()
    }
}

impl<'m> IntoIterator for &'m NullableMap {
    type Item = (&'m String, &'m Option<String>);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'm>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.0.iter())
    }
}

impl Serialize for NullableMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

impl<'de> Deserialize<'de> for NullableMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = NullableMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NullableMap, A::Error> {
        let mut entries = NullableMap::new();
        // In order, as they mostly are, each is put at the end; of a key that comes twice the last one
        // counts, as in any map.
        while let Some((key, value)) = map.next_entry()? {
            entries.insert(key, value);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_an_object_in_json() {
        for (text, entries) in [
            ("{}", vec![]),
            (r#"{"a":null}"#, vec![("a", None)]),
            (r#"{"a":"","b":"1","c":null}"#, vec![("a", Some("")), ("b", Some("1")), ("c", None)]),
        ] {
            let map: NullableMap = serde_json::from_str(text).unwrap();
            let own = |(k, v): (&str, Option<&str>)| (k.to_owned(), v.map(str::to_owned));
            assert_eq!(map, entries.into_iter().map(own).collect());
            assert_eq!(serde_json::to_string(&map).unwrap(), text);
        }
    }

    #[test]
    fn it_is_sorted_and_the_last_of_a_key_counts() {
        let map: NullableMap = serde_json::from_str(r#"{"b":"1","a":"2","b":"3"}"#).unwrap();
        assert_eq!(serde_json::to_string(&map).unwrap(), r#"{"a":"2","b":"3"}"#);
        let entries: Vec<_> = map.clone().into_iter().collect();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries.into_iter().rev().collect::<NullableMap>(), map);
        assert_eq!((&map).into_iter().count(), 2);
    }

    #[test]
    fn nothing_else_is_one() {
        for text in ["[]", r#"[["a","b"]]"#, "null", r#""a""#, r#"{"a":1}"#, r#"{"a":{}}"#] {
            assert!(serde_json::from_str::<NullableMap>(text).is_err(), "{text}");
        }
    }
}
