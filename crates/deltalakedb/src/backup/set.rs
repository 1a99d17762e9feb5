//! Names of sets and of their objects.

use std::fmt;
use std::str::FromStr;

use chrono::{TimeZone, Utc};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TimestampMs;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How the names of all objects begin.
const PREFIX: &str = "backup-";
/// Characters of a set's name.
const LEN: usize = "20260131T235959999Z-0123abcd".len();

/// A set of a backup: when it began (UTC), and a random part, as `20260131T235959999Z-0123abcd`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SetId(String);

impl SetId {
    /// A new one.
    pub(super) fn new(now: TimestampMs, id: Uuid) -> SetId {
        let time = Utc.timestamp_millis_opt(now.0).single().unwrap_or_default();
        let id = id.simple().to_string();
        SetId(format!("{}Z-{}", time.format("%Y%m%dT%H%M%S%3f"), &id[..8]))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The object whose presence makes it a set.
    pub(super) fn manifest(&self) -> String {
        format!("{PREFIX}{self}.json")
    }

    /// The object that says that it is being written.
    pub(super) fn begun(&self) -> String {
        format!("{PREFIX}{self}.begun")
    }

    /// The object of a segment.
    pub(super) fn segment(&self, number: usize) -> String {
        format!("{PREFIX}{self}.{number:06}.zst")
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SetId {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<SetId> {
        let fits = text.len() == LEN
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 => byte == b'T',
                18 => byte == b'Z',
                19 => byte == b'-',
                0..18 => byte.is_ascii_digit(),
                _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            });
        if fits {
            return Ok(SetId(text.to_owned()));
        }
        Err(CatalogError::invalid(format!(
            "'{}' is no set of a backup: one is called 20260131T235959999Z-0123abcd; `dl backup list` \
             lists them",
            text.escape_debug()
        )))
    }
}

impl TryFrom<String> for SetId {
    type Error = CatalogError;

    fn try_from(text: String) -> Result<SetId> {
        text.parse()
    }
}

impl From<SetId> for String {
    fn from(set: SetId) -> String {
        set.0
    }
}

/// What an object of a backup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    Manifest(SetId),
    Begun(SetId),
    Segment(SetId),
}

impl Object {
    /// None: it is not a backup's.
    pub(super) fn parse(name: &str) -> Option<Object> {
        let (set, rest) = name.strip_prefix(PREFIX)?.split_at_checked(LEN)?;
        let set: SetId = set.parse().ok()?;
        match rest {
            ".json" => Some(Object::Manifest(set)),
            ".begun" => Some(Object::Begun(set)),
            _ => {
                let number = rest.strip_prefix('.')?.strip_suffix(".zst")?;
                let digits = number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit());
                digits.then_some(Object::Segment(set))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let set = SetId::new(TimestampMs(1_800_000_000_123), Uuid::from_u128(7 << 96));
        assert_eq!(set.as_str(), "20270115T080000123Z-00000007");
        assert_eq!(set.as_str().parse::<SetId>().unwrap(), set);
        assert_eq!(Object::parse(&set.manifest()), Some(Object::Manifest(set.clone())));
        assert_eq!(Object::parse(&set.begun()), Some(Object::Begun(set.clone())));
        for number in [0, 7, 999_999, 1_000_000] {
            assert_eq!(Object::parse(&set.segment(number)), Some(Object::Segment(set.clone())));
        }
    }

    #[test]
    fn names_of_others_are_left_alone() {
        for name in [
            "backup-20270115T080000123Z-00000007",
            "backup-20270115T080000123Z-00000007.json.bak",
            "backup-20270115T080000123Z-0000000G.json",
            "backup-20270115T080000123Z-00000007.1.zst",
            "backup-20270115T080000123Z-00000007.-00001.zst",
            "x/backup-20270115T080000123Z-00000007.json",
            "backup-2027.json",
            "backup-é0270115T080000123Z-00000007.json",
            "",
        ] {
            assert_eq!(Object::parse(name), None, "{name}");
        }
    }
}
