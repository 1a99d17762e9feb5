//! What is deleted by its age must be old by the database's clock, too.

use std::time::Duration;

use deltalakedb_catalog_core::backend::SchemaBackend;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_engine::retry::Retry;

use crate::Db;

/// This machine's clock may be so far ahead of the database's when something is deleted by its age.
const MOST_AHEAD: Duration = Duration::from_secs(5 * 60);

/// A clock that is wrong by days would delete what is needed.
pub(super) async fn refuse_fast_clock(db: &Db) -> Result<()> {
    let info = Retry::of(db).repeat(|| db.backend().info()).await?;
    let now = db.clock().now();
    let Some(there) = info.clock else { return Ok(()) };
    let ahead = u64::try_from(now.0.saturating_sub(there.0)).unwrap_or(0);
    if Duration::from_millis(ahead) <= MOST_AHEAD {
        return Ok(());
    }
    Err(CatalogError::invalid(format!(
        "the clock of this machine is {} s ahead of the database's, and what is deleted is told by its age: let \
         both machines ask a time server",
        ahead / 1_000
    )))
}
