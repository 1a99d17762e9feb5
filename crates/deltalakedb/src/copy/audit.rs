//! Copying the rows of the audit. The target keeps what it has, and gets each row of the source once.

use deltalakedb_catalog_core::audit::{AuditCursor, AuditFilter, AuditOrder, AuditRow};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::CommitToken;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::retry::Retry;

/// Rows that are read at a time.
const ROWS: usize = 500;

/// Whether a catalog keeps an audit.
pub(crate) async fn is_kept(catalog: &Catalog) -> Result<bool> {
    Ok(Retry::of(catalog).repeat(|| catalog.backend().info()).await?.keeps_audit)
}

/// Copies the rows that the target lacks. Where one of the two keeps no audit, nothing happens.
pub(crate) async fn copy(from: &Catalog, to: &Catalog) -> Result<()> {
    if !is_kept(from).await? || !is_kept(to).await? {
        return Ok(());
    }
    let mut rows = Rows::new(from, AuditFilter::default());
    while let Some(page) = rows.next().await? {
        for row in page {
            put(to, row).await?;
        }
    }
    Ok(())
}

/// Writes a row, unless it is there. A row without a token gets one of its place: so it is written once, however often
/// it is copied.
///
/// One call a row: a call of the contract that takes many would have to be written for each database, and a catalog has
/// few rows of the audit, as commits have none.
pub(crate) async fn put(to: &Catalog, mut row: AuditRow) -> Result<()> {
    if row.entry.token.is_none() {
        let token = format!("audit-{}-{}", row.id, row.entry.at.0);
        row.entry.token = Some(CommitToken::new(token).map_err(CatalogError::from)?);
    }
    Retry::of(to).repeat(|| to.backend().audit_record(&row.entry)).await?;
    Ok(())
}

/// Rows of a catalog, the oldest first, page by page.
pub(crate) struct Rows<'a> {
    of: &'a Catalog,
    filter: AuditFilter,
    after: Option<AuditCursor>,
    ended: bool,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(of: &'a Catalog, filter: AuditFilter) -> Rows<'a> {
        Rows { of, filter, after: None, ended: false }
    }

    /// The next page; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<AuditRow>>> {
        if self.ended {
            return Ok(None);
        }
        let backend = self.of.backend();
        let (filter, after) = (&self.filter, self.after);
        let list = || backend.audit_list(filter, AuditOrder::OldestFirst, after, ROWS);
        let page = Retry::of(self.of).repeat(list).await?;
        self.ended = page.next.is_none();
        self.after = page.next;
        Ok(Some(page.items))
    }
}
