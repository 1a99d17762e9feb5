//! The part about the audit: rows by time and id, which are put and never changed.

use deltalakedb_catalog_core::support::{self, Span, prelude::*};
use redb::ReadableTable;

use crate::RedbBackend;
use crate::store::{Key, ReadRows, Rows, Space, WriteRows};

fn place(at: TimestampMs, id: i64) -> Key {
    Key::new(Space::Audit).number(at.0).number(id)
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    /// The last id that was given; 0 = none. It is the value of the space itself, before all rows.
    fn last_id(&self) -> Result<i64> {
        Ok(self.get(&Key::new(Space::Audit))?.unwrap_or(0))
    }
}

impl WriteRows<'_> {
    /// Keeps a row, in the transaction of what it tells of.
    pub(crate) fn keep(&mut self, entry: AuditEntry) -> Result<()> {
        entry.check()?;
        if let Some(token) = &entry.token {
            let key = Key::new(Space::AuditToken).text(token.as_str());
            if self.get::<bool>(&key)?.is_some() {
                return Ok(());
            }
            self.put(&key, &true)?;
        }
        let id = self.last_id()?.saturating_add(1);
        self.put(&Key::new(Space::Audit), &id)?;
        self.put(&place(entry.at, id), &AuditRow { id, entry })
    }
}

#[async_trait]
impl AuditBackend for RedbBackend {
    async fn audit_record(&self, entry: &AuditEntry) -> WriteResult<()> {
        let entry = entry.clone();
        Ok(self.write(move |rows| rows.keep(entry)).await?)
    }

    async fn audit_list(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        after: Option<AuditCursor>,
        limit: usize,
    ) -> ReadResult<Page<AuditRow, AuditCursor>> {
        filter.check()?;
        let (filter, span) = (filter.clone(), Span::of(filter, order, after));
        let list = move |rows: &ReadRows| {
            let from = place(TimestampMs(span.after.0), span.after.1).after();
            let to = place(TimestampMs(span.before.0), span.before.1);
            let found = rows.scan::<AuditRow>(&from, &to)?;
            let wanted = |row: &AuditRow| filter.matches(&row.entry);
            match order {
                AuditOrder::OldestFirst => {
                    support::page_where(found, wanted, limit, AuditRow::cursor)
                }
                AuditOrder::NewestFirst => {
                    support::page_where(found.rev(), wanted, limit, AuditRow::cursor)
                }
            }
        };
        Ok(self.read(list).await?)
    }
}
