//! Waiting for a version to be published.

use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{TableId, TableName, TableRef, Version};
use deltalakedb_catalog_core::model::{MirrorMode, TableState};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::retry::backoff_ms;
use serde::Serialize;

/// First pause between two looks, milliseconds; it grows.
const FIRST_PAUSE_MS: i64 = 5;
/// Longest pause, milliseconds.
const MAX_PAUSE_MS: i64 = 250;

/// A version that is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waited {
    /// Table.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// What was waited for.
    pub version: Version,
    /// Last version that is published.
    pub published_version: Version,
    /// How long it took, milliseconds.
    pub waited_ms: i64,
}

/// Waits until a version (none: the head at the time of the call) is published, by whichever worker.
///
/// # Errors
/// `TableNotFound`; `VersionNotFound` for a version that there is not; `InvalidInput` if the table's
/// publishing is off or has stopped; `Unavailable` (retryable) if it is not published within `limit`.
pub async fn wait_published(
    catalog: &Catalog,
    table: &TableRef,
    version: Option<Version>,
    limit: Option<Duration>,
) -> Result<Waited> {
    let catalog = &catalog.clone().on_primary();
    let first = catalog.table(table).await?;
    let by_id = TableRef::Id(first.id);
    let name = first.name.clone();
    let Some(wanted) = version.or(first.head) else {
        return Err(CatalogError::TableNotFound(table.to_string()));
    };
    if let Some(head) = first.head.filter(|head| wanted > *head) {
        return Err(CatalogError::VersionNotFound {
            table: name.to_string(),
            version: wanted.to_string(),
            earliest: first.base_version,
            latest: head,
        });
    }
    let began = catalog.clock().now();
    let limit_ms = limit.map(|limit| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
    let mut looks = 0_u32;
    let mut record = first;
    loop {
        let waited_ms = catalog.clock().now().0.saturating_sub(began.0);
        if let Some(published_version) = record.published_version.filter(|p| *p >= wanted) {
            return Ok(Waited {
                table_id: record.id,
                name,
                version: wanted,
                published_version,
                waited_ms,
            });
        }
        let stopped = match (record.state, record.mirror) {
            (TableState::Active, MirrorMode::Active) => None,
            (TableState::Active, MirrorMode::Off) => {
                Some(format!("publishing is off: `dl mirror enable {name}`"))
            }
            (TableState::Active, MirrorMode::Diverged) => {
                Some(format!("publishing has stopped: `dl mirror status {name}` says why"))
            }
            _ => Some("it was dropped".to_owned()),
        };
        if let Some(why) = stopped {
            return Err(CatalogError::invalid(format!(
                "version {wanted} of table '{name}' is not published, and will not be: {why}"
            )));
        }
        if limit_ms.is_some_and(|limit| waited_ms >= limit) {
            return Err(CatalogError::busy(
                format!(
                    "version {wanted} of table '{name}' is not published after {:.1} s (the last one \
                     that is: {}). Is a worker running? `dl mirror run {name}` publishes now",
                    std::time::Duration::from_millis(u64::try_from(waited_ms).unwrap_or(0))
                        .as_secs_f64(),
                    record.published_version.map_or_else(|| "none".to_owned(), |v| v.to_string()),
                ),
                WriteState::NotApplied,
            ));
        }
        let pause = backoff_ms(FIRST_PAUSE_MS, MAX_PAUSE_MS, looks, catalog.ids().fraction());
        catalog.clock().sleep(Duration::from_millis(pause.unsigned_abs())).await;
        looks = looks.saturating_add(1);
        record = catalog.table(&by_id).await?;
    }
}
