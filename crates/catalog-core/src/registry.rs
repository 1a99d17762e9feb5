//! Small named records beside the tables: the values of the registry.
//!
//! A service keeps there what it has to find again, and what its other instances have to see: keys, principals with
//! their roles, shares, recipients. What a body means is the service's own.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{CatalogError, Result};
use crate::ids::TimestampMs;

/// What a record is found by: its kind, and its name among those of its kind. Both are compared byte for byte, and
/// keys are ordered by the bytes of their UTF-8: by kind, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "KeyParts")]
pub struct RecordKey {
    kind: String,
    name: String,
}

/// A key as it is written by serde, before it is checked.
#[derive(Deserialize)]
struct KeyParts {
    kind: String,
    name: String,
}

impl TryFrom<KeyParts> for RecordKey {
    type Error = CatalogError;

    fn try_from(KeyParts { kind, name }: KeyParts) -> Result<Self> {
        RecordKey::new(kind, name)
    }
}

impl RecordKey {
    /// Longest kind, in characters.
    pub const MAX_KIND_CHARS: usize = 32;
    /// Longest name, in characters.
    pub const MAX_NAME_CHARS: usize = 255;

    /// A key.
    ///
    /// # Errors
    /// `InvalidInput` for a kind that is not 1 to 32 of `a-z`, `0-9`, `_` and `-`; for a name that is not 1 to 255
    /// characters, or has control characters.
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> Result<Self> {
        let (kind, name) = (kind.into(), name.into());
        RecordKey::check_kind(&kind)?;
        RecordKey::check_name(&name)?;
        Ok(RecordKey { kind, name })
    }

    /// Fails unless records may be of this kind.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn check_kind(kind: &str) -> Result<()> {
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if (1..=Self::MAX_KIND_CHARS).contains(&kind.len()) && kind.chars().all(allowed) {
            return Ok(());
        }
        Err(CatalogError::invalid(format!(
            "a record has the kind {kind:?}: it is 1 to {} lower case letters, digits, `_` or `-`",
            Self::MAX_KIND_CHARS
        )))
    }

    /// Fails unless a record may have this name.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn check_name(name: &str) -> Result<()> {
        let chars = name.chars().count();
        if (1..=Self::MAX_NAME_CHARS).contains(&chars) && !name.contains(char::is_control) {
            return Ok(());
        }
        Err(CatalogError::invalid(format!(
            "a record has a name of {chars} characters: it has 1 to {} and no control characters",
            Self::MAX_NAME_CHARS
        )))
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Display for RecordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} '{}'", self.kind, self.name)
    }
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it is found by.
    #[serde(flatten)]
    pub key: RecordKey,
    /// The revision of the registry that wrote it last: positive, and another one after each write.
    pub revision: i64,
    /// A JSON object, as it was written.
    pub body: String,
    /// When it was written last, by the writer's clock.
    pub changed_at: TimestampMs,
}

impl Record {
    /// Fails unless a registry of this revision may have these records.
    ///
    /// # Errors
    /// `InvalidInput` for a key that stands twice, a body that [`RecordWrite::check_body`] refuses, a revision of a
    /// record that is not between 1 and the registry's, and a negative revision of the registry.
    pub fn check(records: &[Record], revision: i64) -> Result<()> {
        if revision < 0 {
            return Err(CatalogError::invalid(format!("a registry has the revision {revision}")));
        }
        let mut keys = BTreeSet::new();
        for record in records {
            let key = &record.key;
            RecordWrite::check_body(key, &record.body)?;
            if !keys.insert(key) {
                return Err(CatalogError::invalid(format!("the record {key} stands in it twice")));
            }
            if !(1..=revision).contains(&record.revision) {
                return Err(CatalogError::invalid(format!(
                    "the record {key} has the revision {}, the registry {revision}",
                    record.revision
                )));
            }
        }
        Ok(())
    }
}

/// What has to hold of a record before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expected {
    /// There is none.
    Absent,
    /// It is there, and this write was the last one.
    Revision(i64),
    /// Nothing.
    Any,
}

impl Expected {
    /// Whether it holds of a record with this revision; none: there is no record.
    #[must_use]
    pub fn holds(self, current: Option<i64>) -> bool {
        match self {
            Expected::Absent => current.is_none(),
            Expected::Revision(revision) => current == Some(revision),
            Expected::Any => true,
        }
    }
}

/// A change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordWrite {
    /// Which one.
    pub key: RecordKey,
    /// What has to hold of it before.
    pub expected: Expected,
    /// Its body from now on, a JSON object; none: it is deleted.
    pub body: Option<String>,
}

impl RecordWrite {
    /// Most writes of one call.
    pub const MOST: usize = 100;
    /// Longest body, in bytes.
    pub const MAX_BODY_BYTES: usize = 64 * 1024;

    /// Fails unless a body may be stored.
    ///
    /// # Errors
    /// `InvalidInput` if it is long or no JSON object.
    pub fn check_body(key: &RecordKey, body: &str) -> Result<()> {
        let most = Self::MAX_BODY_BYTES;
        if body.len() > most {
            return Err(CatalogError::invalid(format!(
                "the record {key} has a body of {} bytes, at most {most} are allowed",
                body.len()
            )));
        }
        if matches!(serde_json::from_str(body), Ok(Value::Object(_))) {
            return Ok(());
        }
        Err(CatalogError::invalid(format!("the record {key} has a body that is no JSON object")))
    }

    /// Fails unless one call may make these writes.
    ///
    /// # Errors
    /// `InvalidInput` for no write or more than [`RecordWrite::MOST`]; for a key that stands twice; for a body that
    /// [`RecordWrite::check_body`] refuses; for the deletion of a record that is expected to be absent.
    pub fn check(writes: &[RecordWrite]) -> Result<()> {
        if writes.is_empty() || writes.len() > Self::MOST {
            return Err(CatalogError::invalid(format!(
                "a call writes {} records: it is 1 to {}",
                writes.len(),
                Self::MOST
            )));
        }
        let mut keys = BTreeSet::new();
        for RecordWrite { key, expected, body } in writes {
            if !keys.insert(key) {
                return Err(CatalogError::invalid(format!(
                    "a call writes the record {key} twice: name each one once"
                )));
            }
            match body {
                Some(body) => Self::check_body(key, body)?,
                None if *expected == Expected::Absent => {
                    return Err(CatalogError::invalid(format!(
                        "a call deletes the record {key} and expects that there is none: expect its revision, or \
                         nothing"
                    )));
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// What became of a call that writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryOutcome {
    /// All of it was written: the revision of the registry, and of the records that are there now.
    Written(i64),
    /// Nothing was written.
    Conflict {
        /// The first record of the call of which its expectation does not hold.
        key: RecordKey,
        /// That record's revision; none: there is none.
        current: Option<i64>,
    },
}

impl RegistryOutcome {
    /// The first conflict of some writes with the revisions that there are; none: they can be made.
    #[must_use]
    pub fn conflict(
        writes: &[RecordWrite],
        current: impl Fn(&RecordKey) -> Option<i64>,
    ) -> Option<RegistryOutcome> {
        writes.iter().find_map(|write| {
            let current = current(&write.key);
            let conflict = || RegistryOutcome::Conflict { key: write.key.clone(), current };
            (!write.expected.holds(current)).then(conflict)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> RecordKey {
        RecordKey::new("share", name).unwrap()
    }

    fn put(name: &str, body: &str) -> RecordWrite {
        RecordWrite { key: key(name), expected: Expected::Any, body: Some(body.to_owned()) }
    }

    #[test]
    fn keys_have_bounds_and_the_order_of_bytes() {
        let long = "ü".repeat(RecordKey::MAX_NAME_CHARS);
        for name in ["a", " ", "o'b \"x\" \\ 😀", "a%b_c", &long] {
            RecordKey::new("api-key_2", name).unwrap();
        }
        for name in ["", "a\0b", "a\nb", "\u{1b}[31m", "\u{85}", &format!("{long}x")] {
            RecordKey::new("share", name).unwrap_err();
        }
        RecordKey::new("k".repeat(32), "n").unwrap();
        for kind in ["", "Share", "a b", "a.b", "ü", &"k".repeat(33)] {
            let error = RecordKey::new(kind, "n").unwrap_err();
            assert!(error.to_string().contains("kind"), "{error}");
        }
        let mut names = ["é", "a ", "z", "B", "a", "\u{ffff}", "😀", "ab"].map(key);
        names.sort();
        let sorted: Vec<&str> = names.iter().map(RecordKey::name).collect();
        assert_eq!(sorted, ["B", "a", "a ", "ab", "z", "é", "\u{ffff}", "😀"]);
        let text = serde_json::to_string(&names[0]).unwrap();
        assert_eq!(serde_json::from_str::<RecordKey>(&text).unwrap(), names[0]);
        assert!(serde_json::from_str::<RecordKey>(&text.replace("share", "Share")).is_err());
    }

    #[test]
    fn what_a_call_may_write_has_bounds() {
        RecordWrite::check(&[put("a", "{}"), put("b", " {\"a\": [1, \"\\u0000\"]}\n")]).unwrap();
        let largest = format!("{{\"a\":\"{}\"}}", "x".repeat(RecordWrite::MAX_BODY_BYTES - 8));
        assert_eq!(largest.len(), RecordWrite::MAX_BODY_BYTES);
        RecordWrite::check(&[put("a", &largest)]).unwrap();
        for body in ["", "1", "[]", "{", "null", "{} {}", &format!("{largest} ")] {
            let error = RecordWrite::check(&[put("a", body)]).unwrap_err();
            assert!(error.to_string().contains("share 'a'"), "{error}");
        }
        let many: Vec<_> = (0..=RecordWrite::MOST).map(|n| put(&n.to_string(), "{}")).collect();
        RecordWrite::check(&many[1..]).unwrap();
        RecordWrite::check(&many).unwrap_err();
        RecordWrite::check(&[]).unwrap_err();
        RecordWrite::check(&[put("a", "{}"), put("b", "{}"), put("a", "{}")]).unwrap_err();
        RecordWrite::check(&[put("a", "{}"), put("A", "{}"), put("a ", "{}")]).unwrap();
        for (expected, right) in
            [(Expected::Absent, false), (Expected::Any, true), (Expected::Revision(3), true)]
        {
            let delete = RecordWrite { key: key("a"), expected, body: None };
            assert_eq!(RecordWrite::check(&[delete]).is_ok(), right, "{expected:?}");
        }
    }

    #[test]
    fn records_fit_their_registry() {
        let record = |name: &str, revision| Record {
            key: key(name),
            revision,
            body: "{}".to_owned(),
            changed_at: TimestampMs(-1),
        };
        Record::check(&[], 0).unwrap();
        Record::check(&[record("a", 1), record("b", 3)], 3).unwrap();
        Record::check(&[], -1).unwrap_err();
        for bad in [
            vec![record("a", 4)],
            vec![record("a", 0)],
            vec![record("a", 1), record("a", 2)],
            vec![Record { body: "[]".to_owned(), ..record("a", 1) }],
        ] {
            Record::check(&bad, 3).unwrap_err();
        }
    }

    #[test]
    fn the_first_conflict_in_the_order_of_the_call_is_named() {
        let write = |name: &str, expected| RecordWrite { expected, ..put(name, "{}") };
        let current = |key: &RecordKey| (key.name() != "none").then_some(7);
        let writes = [
            write("x", Expected::Any),
            write("none", Expected::Absent),
            write("b", Expected::Revision(7)),
            write("z", Expected::Absent),
            write("a", Expected::Revision(6)),
            write("none", Expected::Revision(7)),
        ];
        assert_eq!(RegistryOutcome::conflict(&writes[..3], current), None);
        let conflict =
            |name: &str, current| Some(RegistryOutcome::Conflict { key: key(name), current });
        assert_eq!(RegistryOutcome::conflict(&writes, current), conflict("z", Some(7)));
        assert_eq!(RegistryOutcome::conflict(&writes[4..], current), conflict("a", Some(7)));
        assert_eq!(RegistryOutcome::conflict(&writes[5..], current), conflict("none", None));
    }
}
