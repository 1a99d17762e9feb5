//! Copying the rows of the audit. The target keeps what it has, and gets each row of the source once.

use deltalakedb_catalog_core::audit::{AuditFilter, AuditOrder};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::CommitToken;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::retry::Retry;

/// Rows that are read at a time.
const ROWS: usize = 500;

/// Copies the rows that the target lacks. A row without a token gets one of its place: so it is written once, however
/// often it is copied. Where one of the two keeps no audit, nothing happens.
pub(crate) async fn copy(from: &Catalog, to: &Catalog) -> Result<()> {
    let retry = Retry::of(to);
    let both = retry.repeat(|| from.backend().info()).await?.keeps_audit
        && retry.repeat(|| to.backend().info()).await?.keeps_audit;
    if !both {
        return Ok(());
    }
    let filter = AuditFilter::default();
    let mut after = None;
    loop {
        let list = || from.backend().audit_list(&filter, AuditOrder::OldestFirst, after, ROWS);
        let page = retry.repeat(list).await?;
        for mut row in page.items {
            if row.entry.token.is_none() {
                let token = format!("audit-{}-{}", row.id, row.entry.at.0);
                row.entry.token = Some(CommitToken::new(token).map_err(CatalogError::from)?);
            }
            retry.repeat(|| to.backend().audit_record(&row.entry)).await?;
        }
        match page.next {
            None => return Ok(()),
            next => after = next,
        }
    }
}
