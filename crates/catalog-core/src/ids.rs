//! Newtypes for the identities that cross every layer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text or a number that is no version, name, id or token. Display text says what a good one is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(String);

type Result<T, E = InvalidId> = std::result::Result<T, E>;

/// A table version: a non-negative, gapless 64-bit counter that starts at 0
/// (Delta protocol, "Delta Log Entries").
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Version(i64);

impl Version {
    /// The version that creates a table.
    pub const ZERO: Version = Version(0);
    /// Larger than every real version: stored as `removed_version` of a file that is still active.
    pub const NEVER: i64 = i64::MAX;

    /// Wraps a number read from a database, a file name or a user.
    ///
    /// # Errors
    /// [`InvalidId`] if it is negative or `i64::MAX` (reserved for "never").
    pub fn new(value: i64) -> Result<Self> {
        if (0..Self::NEVER).contains(&value) {
            Ok(Version(value))
        } else {
            Err(InvalidId(format!(
                "version {value} is out of range: a version lies between 0 and {}",
                Self::NEVER - 1
            )))
        }
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Version {
        Version(self.0.saturating_add(1))
    }

    /// The version before this one, or `None` at version 0.
    #[must_use]
    pub const fn previous(self) -> Option<Version> {
        if self.0 == 0 { None } else { Some(Version(self.0 - 1)) }
    }

    /// `00000000000000000010`: the 20-digit form of file names in `_delta_log/`.
    #[must_use]
    pub fn padded(self) -> String {
        format!("{:020}", self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Version {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self> {
        s.parse::<i64>()
            .map_err(|_| InvalidId(format!("'{s}' is not a version number")))
            .and_then(Version::new)
    }
}

/// Milliseconds since the Unix epoch, signed, as in every Delta field.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct TimestampMs(pub i64);

impl TimestampMs {
    /// This time plus a number of milliseconds, saturating.
    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> TimestampMs {
        TimestampMs(self.0.saturating_add(ms))
    }

    /// The time for people: `2026-11-29 08:30:00 UTC`.
    #[must_use]
    pub fn utc(self) -> String {
        let (days, ms) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
        // Days to a date, in eras of 400 years that begin in March:
        // https://howardhinnant.github.io/date_algorithms.html#civil_from_days
        let days = days.saturating_add(719_468);
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + i64::from(month <= 2);
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The catalog's own identity of a table. It stays the same through renames, drops and undrops,
/// and is not the Delta `metaData.id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub Uuid);

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for TableId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self> {
        Uuid::parse_str(s)
            .map(TableId)
            .map_err(|_| InvalidId(format!("'{s}' is not a table id (a UUID)")))
    }
}

/// The client's unique id of one commit batch. Committing twice with one token commits once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct CommitToken(String);

impl TryFrom<String> for CommitToken {
    type Error = InvalidId;

    fn try_from(token: String) -> Result<Self> {
        CommitToken::new(token)
    }
}

impl CommitToken {
    /// Longest token, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Checks and wraps a token.
    ///
    /// # Errors
    /// [`InvalidId`] unless it is 1 to 128 printable ASCII characters without spaces.
    pub fn new(token: impl Into<String>) -> Result<Self> {
        let token = token.into();
        if token.is_empty()
            || token.len() > Self::MAX_LEN
            || !token.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(InvalidId(format!(
                "a commit token is 1 to {} printable ASCII characters without spaces",
                Self::MAX_LEN
            )));
        }
        Ok(CommitToken(token))
    }

    /// The token as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommitToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `namespace.table`. The namespace may itself contain dots; the table part may not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "NameParts")]
pub struct TableName {
    namespace: String,
    name: String,
}

/// A name as it is written by serde, before it is checked.
#[derive(Deserialize)]
struct NameParts {
    namespace: String,
    name: String,
}

impl TryFrom<NameParts> for TableName {
    type Error = InvalidId;

    fn try_from(parts: NameParts) -> Result<Self> {
        TableName::new(parts.namespace, parts.name)
    }
}

impl TableName {
    /// Namespace of a name that is written without one.
    pub const DEFAULT_NAMESPACE: &'static str = "default";
    /// Longest namespace and longest table part, in characters.
    pub const MAX_CHARS: usize = 255;

    /// Checks both parts. Quotes, `%`, spaces inside, emoji and SQL fragments are ordinary
    /// characters here: names are only ever bound as parameters.
    ///
    /// # Errors
    /// [`InvalidId`] if a part is empty, longer than 255 characters, has a control character,
    /// starts or ends in white space, or if the table part contains a dot.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Result<Self> {
        let this = TableName { namespace: namespace.into(), name: name.into() };
        for (what, part) in [("namespace", &this.namespace), ("table name", &this.name)] {
            let chars = part.chars().count();
            let problem = if chars == 0 {
                Some("it is empty".to_owned())
            } else if chars > Self::MAX_CHARS {
                Some(format!("it has {chars} characters, at most {} are allowed", Self::MAX_CHARS))
            } else if part.chars().any(char::is_control) {
                Some("it contains a control character".to_owned())
            } else if part.trim() != part {
                Some("it starts or ends with white space".to_owned())
            } else {
                None
            };
            if let Some(problem) = problem {
                return Err(InvalidId(format!("bad {what} {part:?}: {problem}")));
            }
        }
        if this.name.contains('.') {
            return Err(InvalidId(format!(
                "bad table name {:?}: a table name contains no dot (namespace.table)",
                this.name
            )));
        }
        if this.namespace.starts_with('.')
            || this.namespace.ends_with('.')
            || this.namespace.contains("..")
        {
            return Err(InvalidId(format!(
                "bad namespace {:?}: it has an empty part between dots",
                this.namespace
            )));
        }
        Ok(this)
    }

    /// The namespace part.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The table part.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.name)
    }
}

impl FromStr for TableName {
    type Err = InvalidId;

    /// `namespace.table`, or `table` in the namespace `default`. Splits at the last dot.
    fn from_str(s: &str) -> Result<Self> {
        match s.rsplit_once('.') {
            Some((namespace, name)) => TableName::new(namespace, name),
            None => TableName::new(Self::DEFAULT_NAMESPACE, s),
        }
    }
}

/// How a caller names a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TableRef {
    /// By the catalog's own id. Finds dropped tables too.
    Id(TableId),
    /// By name. Finds live tables only.
    Name(TableName),
}

impl fmt::Display for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableRef::Id(id) => id.fmt(f),
            TableRef::Name(name) => name.fmt(f),
        }
    }
}

impl From<TableId> for TableRef {
    fn from(id: TableId) -> Self {
        TableRef::Id(id)
    }
}

impl From<TableName> for TableRef {
    fn from(name: TableName) -> Self {
        TableRef::Name(name)
    }
}

impl From<&TableRef> for TableRef {
    fn from(table: &TableRef) -> Self {
        table.clone()
    }
}

impl From<&TableName> for TableRef {
    fn from(name: &TableName) -> Self {
        TableRef::Name(name.clone())
    }
}

impl FromStr for TableRef {
    type Err = InvalidId;

    /// A table's id, else a name as [`TableName`] reads it. A table with an id for a name is
    /// `default.<id>`.
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.parse::<TableId>() {
            Ok(id) => TableRef::Id(id),
            Err(_) => TableRef::Name(text.parse()?),
        })
    }
}

/// Which state of a table a read wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum At {
    /// The latest ratified version.
    Head,
    /// Exactly this version.
    Version(Version),
    /// The latest version whose commit timestamp is not after this time.
    Timestamp(TimestampMs),
}

impl From<Version> for At {
    fn from(version: Version) -> Self {
        At::Version(version)
    }
}

impl From<TimestampMs> for At {
    fn from(time: TimestampMs) -> Self {
        At::Timestamp(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_by_name_or_by_id() {
        let id = TableId(Uuid::from_u128(7));
        assert_eq!(id.to_string().parse::<TableRef>().unwrap(), TableRef::Id(id));
        let name = TableRef::Name(TableName::new("shop", "orders").unwrap());
        assert_eq!("shop.orders".parse::<TableRef>().unwrap(), name);
        let named = format!("default.{id}");
        assert_eq!(named.parse::<TableRef>().unwrap(), TableRef::Name(named.parse().unwrap()));
        assert!("a..b".parse::<TableRef>().is_err());
    }

    #[test]
    fn names_split_at_the_last_dot_and_print_back() {
        let n: TableName = "a.b.c".parse().unwrap();
        assert_eq!((n.namespace(), n.name()), ("a.b", "c"));
        assert_eq!(n.to_string().parse::<TableName>().unwrap(), n);
        let n: TableName = "sales".parse().unwrap();
        assert_eq!(n.to_string(), "default.sales");
    }

    #[test]
    fn hostile_names_are_ordinary_and_broken_ones_are_refused() {
        for ok in ["'; DROP TABLE x;--", "50% off", "naïve 🚀", "\"quoted\""] {
            TableName::new("ns", ok).unwrap();
        }
        for bad in ["", " x", "x ", "a\0b", "a\nb", "a.b", &"x".repeat(256)] {
            assert!(TableName::new("ns", bad).is_err(), "{bad:?}");
        }
        assert!("a..b".parse::<TableName>().is_err());
        assert!(".b".parse::<TableName>().is_err());
    }

    #[test]
    fn names_and_tokens_are_checked_when_they_are_read() {
        let name: TableName = "a.b.c".parse().unwrap();
        let text = serde_json::to_string(&name).unwrap();
        assert_eq!(serde_json::from_str::<TableName>(&text).unwrap(), name);
        assert!(serde_json::from_str::<TableName>(&text.replace('c', "c.d")).is_err());
        let token = CommitToken::new("t-1").unwrap();
        let text = serde_json::to_string(&token).unwrap();
        assert_eq!((text.as_str(), serde_json::from_str(&text).unwrap()), ("\"t-1\"", token));
        assert!(serde_json::from_str::<CommitToken>("\"t 1\"").is_err());
    }

    #[test]
    fn versions_reject_negative_and_reserved() {
        assert!(Version::new(-1).is_err());
        assert!(Version::new(i64::MAX).is_err());
        assert_eq!(Version::new(10).unwrap().padded(), "00000000000000000010");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199_999, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200_000, "2024-03-01 00:00:00 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
            (-62_135_596_800_000, "0001-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(TimestampMs(ms).utc(), text);
        }
        // Broken clocks end no program.
        for ms in [i64::MIN, i64::MAX] {
            assert!(TimestampMs(ms).utc().ends_with("UTC"));
        }
    }
}
