//! What commits say of who made them, and of which table they are.
//!
//! Two fields of `commitInfo`, which the protocol leaves to writers:
//!
//! * `userName`: the user on whose behalf a commit is made;
//! * `catalogTable`: the name that the table had in its catalog. What is published is a backup of the
//!   catalog, and a table's name would be nowhere else in it.
//!
//! A field that the writer's own `commitInfo` has is kept as it is. Nothing else of the line changes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;

use crate::plan::Plan;
use deltalakedb_catalog_core::commit::{FirstLine, commit_info_object};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::fields::Fields;
use deltalakedb_catalog_core::frozen::is_one_line;
use deltalakedb_catalog_core::ids::{TableName, TimestampMs};

/// `commitInfo.userName`, as Delta's other writers call it.
const USER: &str = "userName";
/// `commitInfo.catalogTable`.
const TABLE: &str = "catalogTable";

/// A user's name, as commits carry it: some text on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName(String);

impl UserName {
    /// Longest name, in characters.
    pub const MAX_CHARS: usize = 256;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserName {
    type Err = CatalogError;

    /// # Errors
    /// `InvalidInput` for one that is empty, too long, or has control characters in it.
    fn from_str(text: &str) -> Result<Self> {
        let refused = |what: &str| Err(CatalogError::invalid(format!("a user's name {what}")));
        let name = text.trim();
        if name.is_empty() {
            return refused("is not empty");
        }
        if name.chars().count() > Self::MAX_CHARS {
            return refused(&format!("has at most {} characters", Self::MAX_CHARS));
        }
        if !name.chars().all(is_one_line) {
            return refused("has no control characters in it");
        }
        Ok(UserName(name.to_owned()))
    }
}

/// What the commits of a catalog are signed with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// On whose behalf; not said if none.
    pub user: Option<UserName>,
    /// Whether commits carry the name of their table.
    pub table_names: bool,
}

impl Signature {
    /// Signs a plan.
    pub(crate) fn sign(&self, plan: &mut Plan, table: &TableName) {
        let user = self.user.as_ref().map(|user| (USER, user.as_str().to_owned()));
        let name = self.table_names.then(|| (TABLE, table.to_string()));
        let fields: Vec<(&str, String)> = user.into_iter().chain(name).collect();
        if fields.is_empty() {
            return;
        }
        let Some(signed) = with_fields(&plan.first_line, &fields) else { return };
        // What history reads; the timestamp is filled in at commit.
        let info = commit_info_object(&signed.render(TimestampMs(0))).map(str::to_owned);
        Arc::make_mut(&mut plan.index).commit_info = info;
        plan.first_line = signed;
    }
}

/// The line with those of the fields that its `commitInfo` lacks, at its end; none if it lacks none.
fn with_fields(line: &FirstLine, fields: &[(&str, String)]) -> Option<FirstLine> {
    let text = line.render(TimestampMs(0));
    let object = commit_info_object(&text)?;
    let Fields(known) = serde_json::from_str(object).ok()?;
    let mut added = String::new();
    for (name, value) in fields.iter().filter(|(name, _)| known.iter().all(|(k, _)| k != name)) {
        if !known.is_empty() || !added.is_empty() {
            added.push(',');
        }
        added.push_str(&Value::from(*name).to_string());
        added.push(':');
        added.push_str(&Value::from(value.as_str()).to_string());
    }
    if added.is_empty() {
        return None;
    }
    // The object is a part of the text: what comes after its brace is counted from the end, as the
    // times in between are of any length.
    let start = object.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let after = text.len().checked_sub(start + object.len())?;
    let mut parts = line.parts().to_vec();
    let last = parts.last_mut()?;
    let brace = last.len().checked_sub(after + 1).filter(|at| last[*at..].starts_with('}'))?;
    last.insert_str(brace, &added);
    Some(FirstLine::with_parts(parts))
}

/// `catalogTable` of a `commitInfo` object, if it is a name.
#[must_use]
pub fn table_of(commit_info: &str) -> Option<TableName> {
    let info: Value = serde_json::from_str(commit_info).ok()?;
    info.get(TABLE)?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signed(line: &FirstLine, fields: &[(&str, &str)]) -> Option<String> {
        let fields: Vec<(&str, String)> =
            fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        with_fields(line, &fields).map(|line| line.render(TimestampMs(17)))
    }

    #[test]
    fn fields_go_to_the_end_and_the_rest_keeps_its_bytes() {
        let both = [(USER, "ann \"the\" \\ o'b"), (TABLE, "a.b")];
        let more = r#""userName":"ann \"the\" \\ o'b","catalogTable":"a.b""#;
        for (line, want) in [
            (r#"{"commitInfo":{}}"#, format!(r#"{{"commitInfo":{{{more}}}}}"#)),
            (
                r#"{"commitInfo": { "a" : 1.0 } } "#,
                format!(r#"{{"commitInfo": {{ "a" : 1.0 ,{more}}} }} "#),
            ),
            (
                r#"{"x":{"a":1},"commitInfo":{"a":1},"y":{}}"#,
                format!(r#"{{"x":{{"a":1}},"commitInfo":{{"a":1,{more}}},"y":{{}}}}"#),
            ),
            (
                r#"{"commitInfo":{"userName":"other"}}"#,
                r#"{"commitInfo":{"userName":"other","catalogTable":"a.b"}}"#.to_owned(),
            ),
        ] {
            assert_eq!(signed(&FirstLine::fixed(line), &both), Some(want), "{line}");
        }
        let parts = ["{\"commitInfo\":{\"inCommitTimestamp\":", ",\"timestamp\":", ",\"a\":1}}"];
        let line = FirstLine::with_parts(parts.map(str::to_owned).to_vec());
        let want = format!(
            "{{\"commitInfo\":{{\"inCommitTimestamp\":17,\"timestamp\":17,\"a\":1,{more}}}}}"
        );
        assert_eq!(signed(&line, &both), Some(want));
        let known = r#"{"commitInfo":{"userName":"","catalogTable":null}}"#;
        assert_eq!(signed(&FirstLine::fixed(known), &both), None, "kept as it is");
    }

    #[test]
    fn names_of_users_are_one_line_of_text() {
        assert_eq!(" Ann O'B ".parse::<UserName>().unwrap().as_str(), "Ann O'B");
        let longest = "ü".repeat(UserName::MAX_CHARS);
        assert!(longest.parse::<UserName>().is_ok());
        for bad in ["", " ", "a\nb", "a\u{0}", "\u{1b}[31m", "a\u{202e}b", "a\u{2028}b"] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
        assert!((longest + "u").parse::<UserName>().is_err());
    }

    proptest! {
        #[test]
        fn whatever_a_user_is_called_the_line_is_json(
            name in "[^\\p{C}\u{2028}\u{2029}]{1,40}",
            info in proptest::collection::btree_map("[a-z\"\\\\{}]{0,6}", "[^\\p{C}]{0,6}", 0..4),
        ) {
            let Ok(user) = name.parse::<UserName>() else { return Ok(()) };
            let line = serde_json::json!({ "commitInfo": info }).to_string();
            let text = signed(&FirstLine::fixed(line), &[(USER, user.as_str())]).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(value["commitInfo"][USER].as_str(), Some(user.as_str()));
            for (key, text) in &info {
                prop_assert_eq!(value["commitInfo"][key].as_str(), Some(text.as_str()));
            }
        }
    }
}
