//! Who did what to which table, when and from where: the values of the audit.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{CatalogError, Result};
use crate::ids::{CommitToken, TableId, TimestampMs};
use crate::model::{MirrorMode, TableRecord};

/// Words for [`AuditEntry::action`]. Others are allowed: lower case letters, digits, and `.`, `_`, `-`.
pub mod action {
    /// A table was dropped.
    pub const TABLE_DROP: &str = "table.drop";
    /// A dropped table was brought back.
    pub const TABLE_UNDROP: &str = "table.undrop";
    /// Publishing was turned on or off, or a foreign commit was noted.
    pub const MIRROR_MODE: &str = "mirror.mode";
    /// Versions that failed were made due.
    pub const MIRROR_RETRY: &str = "mirror.retry";
    /// An import ended, and the table can be used.
    pub const IMPORT_FINISH: &str = "import.finish";
    /// An import was given up, and its rows were deleted.
    pub const IMPORT_ABORT: &str = "import.abort";
    /// Data files are about to be deleted.
    pub const VACUUM_START: &str = "vacuum.start";
    /// Data files were deleted.
    pub const VACUUM_END: &str = "vacuum.end";
    /// Tokens of old commits are about to be forgotten.
    pub const EXPIRE_START: &str = "expire.start";
    /// Tokens of old commits were forgotten.
    pub const EXPIRE_END: &str = "expire.end";
    /// A published log was compared with the catalog, and written anew where it differed.
    pub const REPAIR: &str = "repair";
    /// A catalog was made from published logs.
    pub const REBUILD: &str = "rebuild";
    /// A catalog was made from a backup.
    pub const RESTORE: &str = "restore";
    /// A catalog was copied into this one.
    pub const COPY: &str = "copy";
}

/// On whose behalf something is done, and by which program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The user.
    pub user: Option<String>,
    /// The host that the call is from, or its address.
    pub origin: Option<String>,
    /// Name and version of the program.
    pub program: Option<String>,
}

impl Actor {
    /// Fails unless the audit may keep it.
    ///
    /// # Errors
    /// `InvalidInput` for text that is empty, long or has control characters.
    pub fn check(&self) -> Result<()> {
        check_text("user", self.user.as_deref())?;
        check_text("origin", self.origin.as_deref())?;
        check_text("program", self.program.as_deref())
    }
}

fn check_text(what: &str, text: Option<&str>) -> Result<()> {
    let Some(text) = text else { return Ok(()) };
    let chars = text.chars().count();
    if chars == 0 || chars > AuditEntry::MAX_TEXT_CHARS || text.contains(char::is_control) {
        return Err(CatalogError::invalid(format!(
            "an entry of the audit has a {what} of {chars} characters: it has 1 to {} and no control characters",
            AuditEntry::MAX_TEXT_CHARS
        )));
    }
    Ok(())
}

/// A moment, and on whose behalf something is done then: what each change that the audit tells of is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Act {
    /// When, by the core's clock.
    pub at: TimestampMs,
    /// On whose behalf.
    pub by: Actor,
}

impl Act {
    /// A moment, with nobody named.
    #[must_use]
    pub fn at(at: TimestampMs) -> Self {
        Act { at, by: Actor::default() }
    }

    /// What the audit keeps about this act on a table.
    #[must_use]
    pub fn on(&self, action: &str, table: &TableRecord) -> AuditEntry {
        AuditEntry {
            at: self.at,
            action: action.to_owned(),
            table_id: Some(table.id),
            table_name: Some(table.name.to_string()),
            by: self.by.clone(),
            detail: None,
            token: None,
        }
    }

    /// The entry of [`OutboxBackend::mirror_set_mode`](crate::backend::OutboxBackend::mirror_set_mode): none if the
    /// mode stayed as it was.
    #[must_use]
    pub fn mode_changed(&self, before: MirrorMode, table: &TableRecord) -> Option<AuditEntry> {
        let entry = || {
            let modes = serde_json::json!({ "from": before.as_str(), "to": table.mirror.as_str() });
            self.on(action::MIRROR_MODE, table).with_detail(&modes)
        };
        (table.mirror != before).then(entry)
    }

    /// The entry of [`OutboxBackend::mirror_retry`](crate::backend::OutboxBackend::mirror_retry).
    #[must_use]
    pub fn retried(&self, table: &TableRecord, versions: u64) -> AuditEntry {
        let detail = serde_json::json!({ "versions": versions });
        self.on(action::MIRROR_RETRY, table).with_detail(&detail)
    }

    /// The entry of [`TableBackend::undrop_table`](crate::backend::TableBackend::undrop_table).
    #[must_use]
    pub fn undropped(&self, before: &TableRecord, table: &TableRecord) -> AuditEntry {
        let entry = self.on(action::TABLE_UNDROP, table);
        if before.name == table.name {
            return entry;
        }
        entry.with_detail(&serde_json::json!({ "from": before.name.to_string() }))
    }

    /// The entry of [`ImportBackend::import_finish`](crate::backend::ImportBackend::import_finish).
    #[must_use]
    pub fn imported(&self, table: &TableRecord) -> AuditEntry {
        let detail = serde_json::json!({
            "version": table.head.map(crate::ids::Version::get),
            "state": table.state.as_str(),
        });
        self.on(action::IMPORT_FINISH, table).with_detail(&detail)
    }
}

/// Something that was done, as the audit keeps it. All of it is text of that time: it says the same when the table
/// is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: TimestampMs,
    /// What: one of the words of [`action`], or another one.
    pub action: String,
    /// Which table; none if it is about the whole catalog.
    pub table_id: Option<TableId>,
    /// The name that the table had.
    pub table_name: Option<String>,
    /// On whose behalf, and from where.
    #[serde(flatten)]
    pub by: Actor,
    /// More about it: a JSON object, without secrets.
    pub detail: Option<String>,
    /// Unique to this entry, if there is one: so that it can be written again after a lost answer.
    pub token: Option<CommitToken>,
}

impl AuditEntry {
    /// Longest action, in characters.
    pub const MAX_ACTION_CHARS: usize = 64;
    /// Longest name of a table, of a user, of a host and of a program, in characters.
    pub const MAX_TEXT_CHARS: usize = 520;
    /// Longest detail, in bytes.
    pub const MAX_DETAIL_BYTES: usize = 16 * 1024;

    /// The same with a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: &Value) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// Fails unless it may be kept.
    ///
    /// # Errors
    /// `InvalidInput` for an action that is empty, long or has other characters; for text that is empty, long or
    /// has control characters; for a detail that is long or no JSON object.
    pub fn check(&self) -> Result<()> {
        let bad =
            |what: String| Err(CatalogError::invalid(format!("an entry of the audit {what}")));
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        let length = self.action.len();
        if length == 0 || length > Self::MAX_ACTION_CHARS || !self.action.chars().all(allowed) {
            return bad(format!(
                "has the action {:?}: it is 1 to {} lower case letters, digits, `.`, `_` or `-`",
                self.action,
                Self::MAX_ACTION_CHARS
            ));
        }
        check_text("table's name", self.table_name.as_deref())?;
        self.by.check()?;
        if let Some(detail) = &self.detail {
            if detail.len() > Self::MAX_DETAIL_BYTES {
                let most = Self::MAX_DETAIL_BYTES;
                return bad(format!(
                    "has a detail of {} bytes, at most {most} are allowed",
                    detail.len()
                ));
            }
            if !matches!(serde_json::from_str(detail), Ok(Value::Object(_))) {
                return bad("has a detail that is no JSON object".to_owned());
            }
        }
        Ok(())
    }
}

/// A row of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Positive, and the row's own. Later rows have larger ones, mostly.
    pub id: i64,
    /// What it says.
    #[serde(flatten)]
    pub entry: AuditEntry,
}

/// Which rows to list. By itself all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only rows about one of these tables, or with the table's name below. At most [`AuditFilter::MOST`].
    pub table_ids: Vec<TableId>,
    /// Only rows about a table that had this name then, or one of those above.
    pub table_name: Option<String>,
    /// Only these actions; none = all. At most [`AuditFilter::MOST`].
    pub actions: Vec<String>,
    /// Only on behalf of this user.
    pub user: Option<String>,
    /// At or after this time.
    pub since: Option<TimestampMs>,
    /// Before this time.
    pub until: Option<TimestampMs>,
}

impl AuditFilter {
    /// Most tables, and most actions, that one filter names.
    pub const MOST: usize = 1_000;

    /// Fails if it names too many.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn check(&self) -> Result<()> {
        if self.table_ids.len() > Self::MOST || self.actions.len() > Self::MOST {
            let most = Self::MOST;
            return Err(CatalogError::invalid(format!(
                "a filter of the audit names at most {most} tables and {most} actions"
            )));
        }
        Ok(())
    }

    /// Whether rows of any table belong to the list, and those of none.
    #[must_use]
    pub fn is_any_table(&self) -> bool {
        self.table_ids.is_empty() && self.table_name.is_none()
    }

    /// Whether a row belongs to the list.
    #[must_use]
    pub fn matches(&self, entry: &AuditEntry) -> bool {
        let is_table = self.is_any_table()
            || entry.table_id.is_some_and(|id| self.table_ids.contains(&id))
            || (self.table_name.is_some() && self.table_name == entry.table_name);
        is_table
            && (self.actions.is_empty() || self.actions.contains(&entry.action))
            && (self.user.is_none() || self.user == entry.by.user)
            && self.since.is_none_or(|since| entry.at >= since)
            && self.until.is_none_or(|until| entry.at < until)
    }
}

/// In which order rows are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum AuditOrder {
    /// By time, then id.
    #[default]
    OldestFirst,
    /// The other way round.
    NewestFirst,
}

/// A place between two rows of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AuditCursor {
    /// Time of a row.
    pub at: TimestampMs,
    /// Its id.
    pub id: i64,
}

impl AuditRow {
    /// Its place.
    #[must_use]
    pub fn cursor(&self) -> AuditCursor {
        AuditCursor { at: self.entry.at, id: self.id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> AuditEntry {
        AuditEntry {
            at: TimestampMs(0),
            action: "table.drop".to_owned(),
            table_id: None,
            table_name: None,
            by: Actor::default(),
            detail: None,
            token: None,
        }
    }

    #[test]
    fn what_may_be_kept_has_bounds() {
        entry().check().unwrap();
        let long = "ü".repeat(AuditEntry::MAX_TEXT_CHARS);
        let by = |user: &str| Actor { user: Some(user.to_owned()), ..Actor::default() };
        for user in ["o'b \"x\" \\ 😀", "a%b_c", &long] {
            AuditEntry { by: by(user), ..entry() }.check().unwrap();
        }
        for user in ["", "a\0b", "a\nb", "\u{1b}[31m", &format!("{long}x")] {
            let e = AuditEntry { by: by(user), ..entry() }.check().unwrap_err();
            assert!(e.to_string().contains("user"), "{e}");
        }
        for action in ["", "Drop", "a b", "ü", &"a".repeat(65)] {
            AuditEntry { action: action.to_owned(), ..entry() }.check().unwrap_err();
        }
        for detail in ["", "1", "[]", "{", "null", &format!("{{\"a\":\"{}\"}}", "x".repeat(16_400))]
        {
            AuditEntry { detail: Some(detail.to_owned()), ..entry() }.check().unwrap_err();
        }
    }
}
