//! The audit: rows in the order of their ids.

use deltalakedb_catalog_core::support::{self, Span, prelude::*};

use super::MemoryBackend;
use super::state::State;

impl State {
    /// Keeps a row. Who calls has checked the actor.
    pub(super) fn keep(&mut self, entry: AuditEntry) {
        let id = support::count(self.audit.len()).saturating_add(1);
        self.audit.push(AuditRow { id, entry });
    }

    /// The same, unless there is a row with its token. Who calls has checked the entry.
    pub(super) fn keep_once(&mut self, entry: &AuditEntry) {
        let known =
            entry.token.is_some() && self.audit.iter().any(|row| row.entry.token == entry.token);
        if !known {
            self.keep(entry.clone());
        }
    }

    fn audit_list(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        after: Option<AuditCursor>,
        limit: usize,
    ) -> Page<AuditRow, AuditCursor> {
        let span = Span::of(filter, order, after);
        let mut found: Vec<AuditRow> = self
            .audit
            .iter()
            .filter(|row| span.has(row) && filter.matches(&row.entry))
            .cloned()
            .collect();
        found.sort_unstable_by_key(AuditRow::cursor);
        if order == AuditOrder::NewestFirst {
            found.reverse();
        }
        super::state::page(found.into_iter(), limit, AuditRow::cursor)
    }
}

#[async_trait]
impl AuditBackend for MemoryBackend {
    async fn audit_record(&self, entry: &AuditEntry) -> WriteResult<()> {
        let mut state = self.open()?;
        entry.check()?;
        state.keep_once(entry);
        Ok(())
    }

    async fn audit_list(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        after: Option<AuditCursor>,
        limit: usize,
    ) -> ReadResult<Page<AuditRow, AuditCursor>> {
        filter.check()?;
        Ok(self.open()?.audit_list(filter, order, after, limit))
    }
}
