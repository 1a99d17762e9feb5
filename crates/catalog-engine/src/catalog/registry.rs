//! The registry: small named records, with retries, and lost answers found out.

use deltalakedb_catalog_core::audit::AuditEntry;
use deltalakedb_catalog_core::delegation::Verb;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteError, WriteState};
use deltalakedb_catalog_core::ids::{CommitToken, TimestampMs};
use deltalakedb_catalog_core::model::Page;
use deltalakedb_catalog_core::registry::{Record, RecordKey, RecordWrite, RegistryOutcome};

use super::Catalog;
use crate::retry::Retry;

/// What the registry says of a write whose answer was lost.
enum Found {
    /// All records are as it wrote them: the revision.
    AsWritten(i64),
    /// Some are not.
    Otherwise,
}

impl Catalog {
    /// A record of the registry; none if there is none. It is read from the primary, and never kept.
    ///
    /// # Errors
    /// `Unsupported` where the database keeps no registry; those of the database.
    pub async fn registry_get(&self, key: &RecordKey) -> Result<Option<Record>> {
        self.repeat(|| self.backend.registry_get(key)).await
    }

    /// Records of one kind in the order of their names' bytes, a page at a time. `after` is the name that all names of
    /// the page come after.
    ///
    /// # Errors
    /// `InvalidInput` for what is no kind or name; `Unsupported` where the database keeps no registry; those of the
    /// database.
    pub async fn registry_list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Record, String>> {
        self.repeat(|| self.backend.registry_list(kind, after, limit)).await
    }

    /// The revision of the registry: 0 as long as nothing was written. It grows by one with each write. So a caller
    /// that remembers records asks whether they are still right.
    ///
    /// # Errors
    /// `Unsupported` where the database keeps no registry; those of the database.
    pub async fn registry_revision(&self) -> Result<i64> {
        self.repeat(|| self.backend.registry_revision()).await
    }

    /// All records in the order of their keys, a page at a time, see [`RegistryBackend::registry_all`].
    ///
    /// # Errors
    /// `Unsupported` where the database keeps no registry; those of the database.
    ///
    /// [`RegistryBackend::registry_all`]: deltalakedb_catalog_core::backend::RegistryBackend::registry_all
    pub async fn registry_all(
        &self,
        after: Option<&RecordKey>,
        limit: usize,
    ) -> Result<Page<Record, RecordKey>> {
        self.repeat(|| self.backend.registry_all(after, limit)).await
    }

    /// Fills a registry to which nothing was written with records as they are. False if something was written to it,
    /// which may be this: an attempt whose answer was lost is made again.
    ///
    /// # Errors
    /// `InvalidInput` for records that cannot be of one registry; `Unsupported` where the database keeps no registry;
    /// those of the database.
    pub async fn registry_load(&self, records: &[Record], revision: i64) -> Result<bool> {
        let mut failures = Retry::of(self).start();
        loop {
            let failure = match self.backend.registry_load(records, revision).await {
                Err(error)
                    if error.is_retryable() || error.write_state() == WriteState::Unknown =>
                {
                    error.into()
                }
                other => return other.map_err(Into::into),
            };
            if !failures.again().await {
                return Err(failures.explain(failure));
            }
            self.meters.again(Verb::RegistryLoad);
        }
    }

    /// Writes and deletes records of the registry: all of them, or none. The entry is kept in the audit with them, see
    /// [`Catalog::entry`]; one without a token gets one, so that it is kept once.
    ///
    /// A write whose answer was lost is repeated. If that is a conflict, and the records are exactly as this call
    /// wrote them, it was written. A write that expects nothing may so take effect twice, one after the other.
    ///
    /// # Errors
    /// `InvalidInput` for writes or an entry that are out of bounds; `Unsupported` where the database keeps no
    /// registry; those of the database. `Unavailable` says whether it may have been written.
    pub async fn registry_write(
        &self,
        writes: &[RecordWrite],
        entry: Option<AuditEntry>,
    ) -> Result<RegistryOutcome> {
        let at = self.clock.now();
        let entry = entry.map(|entry| self.with_token(entry)).transpose()?;
        let mut failures = Retry::of(self).start();
        let mut unknown = false;
        loop {
            let failure = match self.backend.registry_write(writes, at, entry.as_ref()).await {
                Ok(conflict @ RegistryOutcome::Conflict { .. }) if unknown => {
                    // It may conflict with itself.
                    return match self.found(writes, at).await.map_err(in_doubt)? {
                        Found::AsWritten(revision) => Ok(RegistryOutcome::Written(revision)),
                        Found::Otherwise => Ok(conflict),
                    };
                }
                Ok(outcome) => return Ok(outcome),
                Err(WriteError::Indeterminate(error)) => {
                    unknown = true;
                    error.into()
                }
                Err(WriteError::Determinate(error)) if error.is_retryable() => error.into(),
                Err(error) if unknown => return Err(in_doubt(error.into())),
                Err(error) => return Err(error.into()),
            };
            if !failures.again().await {
                let error = failures.explain(failure);
                return Err(if unknown { in_doubt(error) } else { error });
            }
            self.meters.again(Verb::RegistryWrite);
            tracing::debug!(unknown, "write to the registry goes again");
        }
    }

    /// An entry of the audit on behalf of the [`actor`](Catalog::actor), now. It can be written again: it has a token.
    ///
    /// # Errors
    /// None in practice: those of a token.
    pub fn entry(&self, action: &str, detail: &serde_json::Value) -> Result<AuditEntry> {
        let act = self.act();
        self.with_token(AuditEntry {
            at: act.at,
            action: action.to_owned(),
            table_id: None,
            table_name: None,
            by: act.by,
            detail: Some(detail.to_string()),
            token: None,
        })
    }

    /// The same with a token, if it has none.
    fn with_token(&self, mut entry: AuditEntry) -> Result<AuditEntry> {
        if entry.token.is_none() {
            entry.token = Some(CommitToken::new(self.ids.uuid().as_hyphenated().to_string())?);
        }
        Ok(entry)
    }

    /// Whether all records are as a call wrote them that may have taken effect: with its bodies, its time and one
    /// revision, and those that it deleted absent.
    async fn found(&self, writes: &[RecordWrite], at: TimestampMs) -> Result<Found> {
        let mut revision = None;
        for RecordWrite { key, body, .. } in writes {
            let is_as_written = match (self.registry_get(key).await?, body) {
                (None, None) => true,
                (Some(record), Some(body)) => {
                    let same = *revision.get_or_insert(record.revision) == record.revision;
                    same && record.changed_at == at && record.body == *body
                }
                _ => false,
            };
            if !is_as_written {
                return Ok(Found::Otherwise);
            }
        }
        match revision {
            Some(revision) => Ok(Found::AsWritten(revision)),
            // Nothing tells which call deleted them. A caller that compares sees each write after its own.
            None => Ok(Found::AsWritten(self.registry_revision().await?)),
        }
    }
}

/// An error after which it is not known whether an earlier attempt took effect.
fn in_doubt(error: CatalogError) -> CatalogError {
    let (message, retryable) = match error {
        CatalogError::Unavailable { message, retryable, .. } => (message, retryable),
        other => (other.to_string(), false),
    };
    CatalogError::Unavailable {
        message: format!("it is not known whether the registry was written: {message}"),
        retryable,
        write: WriteState::Unknown,
    }
}
