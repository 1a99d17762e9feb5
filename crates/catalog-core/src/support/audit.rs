//! Rows and lists of the audit.

use super::records::{Reader, RowFormat};
use crate::audit::{Actor, AuditCursor, AuditEntry, AuditFilter, AuditOrder, AuditRow};
use crate::error::Result;
use crate::ids::{CommitToken, TableId};

/// The columns that [`audit_row`] reads, in this order.
pub const AUDIT_COLUMNS: &str =
    "id, at_ms, action, table_id, table_name, user_name, origin, program, detail, token";

/// A row of the audit, from the [`AUDIT_COLUMNS`]; the table's id is text.
///
/// # Errors
/// `Corrupt` for a column that cannot be read.
pub fn audit_row<F: RowFormat>(row: &F::Row) -> Result<AuditRow> {
    let reader = Reader::<F>::new(row, "the audit", None);
    let table_id: Option<String> = reader.get(3)?;
    let token: Option<String> = reader.get(9)?;
    let table_id = table_id.map(|id| id.parse::<TableId>());
    let token = token.map(CommitToken::new);
    Ok(AuditRow {
        id: reader.get(0)?,
        entry: AuditEntry {
            at: reader.time(1)?,
            action: reader.get(2)?,
            table_id: table_id.transpose().map_err(|error| reader.bad_column(3, error))?,
            table_name: reader.get(4)?,
            by: Actor { user: reader.get(5)?, origin: reader.get(6)?, program: reader.get(7)? },
            detail: reader.get(8)?,
            token: token.transpose().map_err(|error| reader.bad_column(9, error))?,
        },
    })
}

/// Where a page of the audit is: between two places, both excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// (time, id) that all rows come after.
    pub after: (i64, i64),
    /// (time, id) that all rows come before.
    pub before: (i64, i64),
}

impl Span {
    /// Of the rows that a filter's times and a cursor leave. Ids are positive.
    #[must_use]
    pub fn of(filter: &AuditFilter, order: AuditOrder, cursor: Option<AuditCursor>) -> Span {
        let mut span = Span {
            after: (filter.since.map_or(i64::MIN, |time| time.0), 0),
            before: filter.until.map_or((i64::MAX, i64::MAX), |time| (time.0, 0)),
        };
        if let Some(AuditCursor { at, id }) = cursor {
            match order {
                AuditOrder::OldestFirst => span.after = span.after.max((at.0, id)),
                AuditOrder::NewestFirst => span.before = span.before.min((at.0, id)),
            }
        }
        span
    }

    /// Whether a row is in it.
    #[must_use]
    pub fn has(&self, row: &AuditRow) -> bool {
        let place = (row.entry.at.0, row.id);
        self.after < place && place < self.before
    }
}
