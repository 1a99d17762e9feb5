//! The part about the registry: records by kind and name. redb has one writer at a time.

use deltalakedb_catalog_core::support::{self, prelude::*};
use redb::ReadableTable;

use crate::RedbBackend;
use crate::store::{Key, ReadRows, Rows, Space, WriteRows};

fn place(key: &RecordKey) -> Key {
    Key::new(Space::Registry).text(key.kind()).text(key.name())
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    /// The revision; 0 = nothing was written. It is the value of the space itself, before all rows.
    fn revision(&self) -> Result<i64> {
        Ok(self.get(&Key::new(Space::Registry))?.unwrap_or(0))
    }

    fn record(&self, key: &RecordKey) -> Result<Option<Record>> {
        self.get(&place(key))
    }
}

impl WriteRows<'_> {
    fn write_records(
        &mut self,
        writes: &[RecordWrite],
        at: TimestampMs,
        entry: Option<AuditEntry>,
    ) -> Result<RegistryOutcome> {
        RecordWrite::check(writes)?;
        let mut found = Vec::new();
        for write in writes {
            found.extend(self.record(&write.key)?.map(|record| (record.key, record.revision)));
        }
        let current = |key: &RecordKey| found.iter().find(|(k, _)| k == key).map(|(_, r)| *r);
        if let Some(conflict) = RegistryOutcome::conflict(writes, current) {
            return Ok(conflict);
        }
        let revision = self.revision()?.saturating_add(1);
        self.put(&Key::new(Space::Registry), &revision)?;
        for RecordWrite { key, body, .. } in writes {
            match body.clone() {
                None => self.delete_all(&place(key))?,
                Some(body) => {
                    let record = Record { key: key.clone(), revision, body, changed_at: at };
                    self.put(&place(key), &record)?;
                }
            }
        }
        entry.map_or(Ok(()), |entry| self.keep(entry))?;
        Ok(RegistryOutcome::Written(revision))
    }
}

#[async_trait]
impl RegistryBackend for RedbBackend {
    async fn registry_get(&self, key: &RecordKey) -> ReadResult<Option<Record>> {
        let key = key.clone();
        Ok(self.read(move |rows| rows.record(&key)).await?)
    }

    async fn registry_list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> ReadResult<Page<Record, String>> {
        let of_kind = Key::new(Space::Registry).text(kind);
        let after = of_kind.clone().text(support::registry_after(kind, after)?).after();
        let list = move |rows: &ReadRows| {
            let found = rows.scan::<Record>(&after, &of_kind.end())?;
            support::page_where(found, |_| true, limit, |record| record.key.name().to_owned())
        };
        Ok(self.read(list).await?)
    }

    async fn registry_write(
        &self,
        writes: &[RecordWrite],
        at: TimestampMs,
        entry: Option<&AuditEntry>,
    ) -> WriteResult<RegistryOutcome> {
        let (writes, entry) = (writes.to_vec(), entry.cloned());
        Ok(self.write(move |rows| rows.write_records(&writes, at, entry)).await?)
    }

    async fn registry_all(
        &self,
        after: Option<&RecordKey>,
        limit: usize,
    ) -> ReadResult<Page<Record, RecordKey>> {
        // The revision stands before all records.
        let after = after.map_or(Key::new(Space::Registry), place).after();
        let list = move |rows: &ReadRows| {
            let found = rows.scan::<Record>(&after, &Key::new(Space::Registry).end())?;
            support::page_where(found, |_| true, limit, |record| record.key.clone())
        };
        Ok(self.read(list).await?)
    }

    async fn registry_load(&self, records: &[Record], revision: i64) -> WriteResult<bool> {
        let records = records.to_vec();
        let load = move |rows: &mut WriteRows<'_>| {
            Record::check(&records, revision)?;
            if rows.revision()? != 0 {
                return Ok(false);
            }
            rows.put(&Key::new(Space::Registry), &revision)?;
            records.iter().try_for_each(|record| rows.put(&place(&record.key), record))?;
            Ok(true)
        };
        Ok(self.write(load).await?)
    }

    async fn registry_revision(&self) -> ReadResult<i64> {
        Ok(self.read(Rows::revision).await?)
    }
}
