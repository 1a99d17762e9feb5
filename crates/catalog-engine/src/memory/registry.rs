//! The registry: records by their key, and the revision.

use deltalakedb_catalog_core::support::{self, prelude::*};

use super::MemoryBackend;
use super::state::{Registry, State};

impl State {
    fn registry_write(
        &mut self,
        writes: &[RecordWrite],
        at: TimestampMs,
        entry: Option<&AuditEntry>,
    ) -> Result<RegistryOutcome> {
        RecordWrite::check(writes)?;
        entry.map_or(Ok(()), AuditEntry::check)?;
        let Registry { revision, records } = &mut self.registry;
        let current = |key: &RecordKey| records.get(key).map(|record| record.revision);
        if let Some(conflict) = RegistryOutcome::conflict(writes, current) {
            return Ok(conflict);
        }
        *revision += 1;
        let revision = *revision;
        for RecordWrite { key, body, .. } in writes {
            let Some(body) = body.clone() else {
                records.remove(key);
                continue;
            };
            records
                .insert(key.clone(), Record { key: key.clone(), revision, body, changed_at: at });
        }
        if let Some(entry) = entry {
            self.keep_once(entry);
        }
        Ok(RegistryOutcome::Written(revision))
    }
}

#[async_trait]
impl RegistryBackend for MemoryBackend {
    async fn registry_get(&self, key: &RecordKey) -> ReadResult<Option<Record>> {
        Ok(self.open()?.registry.records.get(key).cloned())
    }

    async fn registry_list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> ReadResult<Page<Record, String>> {
        let after = support::registry_after(kind, after)?;
        let state = self.open()?;
        let found = state.registry.records.values();
        let found = found.filter(|r| r.key.kind() == kind && r.key.name() > after);
        Ok(super::state::page(found.cloned(), limit, |r| r.key.name().to_owned()))
    }

    async fn registry_write(
        &self,
        writes: &[RecordWrite],
        at: TimestampMs,
        entry: Option<&AuditEntry>,
    ) -> WriteResult<RegistryOutcome> {
        Ok(self.open()?.registry_write(writes, at, entry)?)
    }

    async fn registry_all(
        &self,
        after: Option<&RecordKey>,
        limit: usize,
    ) -> ReadResult<Page<Record, RecordKey>> {
        let state = self.open()?;
        let found = state.registry.records.values();
        let found = found.filter(|record| after.is_none_or(|after| record.key > *after));
        Ok(super::state::page(found.cloned(), limit, |record| record.key.clone()))
    }

    async fn registry_load(&self, records: &[Record], revision: i64) -> WriteResult<bool> {
        let mut state = self.open()?;
        Record::check(records, revision)?;
        if state.registry.revision != 0 {
            return Ok(false);
        }
        let records = records.iter().map(|record| (record.key.clone(), record.clone())).collect();
        state.registry = Registry { revision, records };
        Ok(true)
    }

    async fn registry_revision(&self) -> ReadResult<i64> {
        Ok(self.open()?.registry.revision)
    }
}
