//! Commits in a published log that are not the catalog's: how they are told from its own, and the one
//! record of them.
//!
//! Whoever comes upon an object `N.json` after the last published version asks here: a worker that
//! looks at idle tables, [`crate::reconcile`], [`crate::diff`], [`crate::ownership`],
//! [`crate::repair`], a vacuum. What is recorded is what publishing itself records when it comes
//! upon one: the table is `Diverged`, and not published further until a person has decided.
//!
//! An object is looked at first, and the table's head after it. The catalog's own publisher puts a
//! version only after its commit took effect, so an object of ours always has its commit in the
//! catalog by then, whoever put it, and however far that worker got (its bytes may be torn, and its
//! record may be lost). What has none, or other bytes, is foreign. No lease is needed for this.

use bytes::Bytes;
use deltalakedb_catalog_core::audit::{Act, Actor};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableId, TableRef, Version};
use deltalakedb_catalog_core::model::{MirrorMode, TableRecord, TableState};
use deltalakedb_catalog_core::sink::MirrorSink;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Clock;
use deltalakedb_catalog_engine::retry::Retry;

use crate::put::{ForeignBytes, commit_name, torn_text};

/// What looking and recording take.
#[derive(Clone, Copy)]
pub(crate) struct Desk<'a> {
    pub(crate) backend: &'a dyn CatalogBackend,
    pub(crate) retry: &'a Retry,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) actor: &'a Actor,
}

impl<'a> Desk<'a> {
    /// That of a catalog, which must be on its primary.
    pub(crate) fn of(catalog: &'a Catalog, retry: &'a Retry) -> Self {
        Desk {
            backend: catalog.backend().as_ref(),
            retry,
            clock: catalog.clock().as_ref(),
            actor: catalog.actor(),
        }
    }

    async fn table(&self, id: TableId) -> Result<Option<TableRecord>> {
        let table = TableRef::Id(id);
        self.retry.repeat(|| self.backend.get_table(&table)).await
    }

    /// Looks at one commit of a table's log, in one request if there is none. If it is foreign, that
    /// is recorded, and said. None: there is no such object, it is the catalog's own (a torn
    /// beginning of it too), or the table is not published.
    ///
    /// # Errors
    /// Those of the store and of the database.
    pub(crate) async fn look(
        &self,
        id: TableId,
        sink: &dyn MirrorSink,
        version: Version,
    ) -> Result<Option<String>> {
        let Some(found) = sink.get(&commit_name(version)).await? else { return Ok(None) };
        let Some(text) = self.judge(id, sink, version, &found).await? else { return Ok(None) };
        let act = Act { at: self.clock.now(), by: self.actor.clone() };
        let recorded = self
            .retry
            .repeat(|| self.backend.mirror_set_mode(id, MirrorMode::Diverged, &act))
            .await;
        match recorded {
            Ok(record) if record.mirror == MirrorMode::Diverged => {}
            // It was switched off, dropped or handed back meanwhile.
            Ok(_) | Err(CatalogError::TableNotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        // Between the look and the record the very commit may have been taken into the catalog.
        if self.judge(id, sink, version, &found).await?.is_none() {
            self.retry.repeat(|| self.backend.mirror_retry(id, &act)).await?;
            return Ok(None);
        }
        tracing::warn!(table = %id, %version, "{text}");
        Ok(Some(text))
    }

    /// Whether bytes that stood in a table's log are foreign by what the catalog has now, and what is
    /// said of them then.
    async fn judge(
        &self,
        id: TableId,
        sink: &dyn MirrorSink,
        version: Version,
        found: &Bytes,
    ) -> Result<Option<String>> {
        let Some(record) = self.table(id).await? else { return Ok(None) };
        if record.state != TableState::Active || record.mirror == MirrorMode::Off {
            return Ok(None);
        }
        let ours = if record.head.is_some_and(|head| head >= version) {
            let bodies =
                self.retry.repeat(|| self.backend.read_bodies(id, version, version, 1)).await?;
            // A version below the first one that an import kept has no bytes: nothing to compare with.
            let Some((_, body)) = bodies.into_iter().next() else { return Ok(None) };
            Some(body.published()?)
        } else {
            None
        };
        let foreign = match &ours {
            None => None,
            Some(ours) => match ForeignBytes::compare(found, ours) {
                None => return Ok(None),
                // An empty object is a beginning of everything: a store that tore our write.
                Some(foreign) if foreign.torn => return Ok(None),
                Some(foreign) => Some(foreign),
            },
        };
        let (name, log_dir) = (commit_name(version), sink.describe());
        let table = record.name.to_string();
        Ok(Some(match foreign {
            Some(foreign) => foreign_text(&table, version, &log_dir, &name, foreign),
            None => unknown_text(&record, &log_dir, &name, found.len()),
        }))
    }
}

/// What is said of a table whose mirror has diverged, where no version of the catalog has an error of
/// its own.
#[must_use]
pub fn standing(record: &TableRecord) -> String {
    let next = record.published_version.map_or(Version::ZERO, Version::next);
    format!(
        "a commit of another program stands in its log, at version {next} or after it: `dl repair {}` \
         shows both histories",
        record.name
    )
}

/// What a person is told of a commit where the catalog has another one.
pub(crate) fn foreign_text(
    table: &str,
    version: Version,
    log_dir: &str,
    name: &str,
    foreign: ForeignBytes,
) -> String {
    let ForeignBytes { found, ours, torn } = foreign;
    if torn {
        return torn_text(log_dir, name, foreign);
    }
    format!(
        "'{log_dir}/{name}' ({found} bytes) is not version {version} of table '{table}' in the \
         catalog ({ours} bytes): {}",
        what_next(table)
    )
}

/// What a person is told of a commit where the catalog has none.
fn unknown_text(record: &TableRecord, log_dir: &str, name: &str, found: usize) -> String {
    let head = record.head.map_or_else(|| "none".to_owned(), |head| head.to_string());
    let table = record.name.to_string();
    format!(
        "'{log_dir}/{name}' ({found} bytes) is no commit of table '{table}' in the catalog, whose \
         last version is {head}: {}",
        what_next(&table)
    )
}

fn what_next(table: &str) -> String {
    format!(
        "another program has committed to this table's log. Nothing was overwritten, and publishing \
         of this table has stopped; commits to the catalog go on. `dl repair {table}` shows both \
         histories and what can be done. To publish again as if nothing had happened, move that file \
         and all later versions out of the log, then run `dl mirror retry {table}`"
    )
}

#[cfg(test)]
#[path = "foreign_tests.rs"]
mod tests;
