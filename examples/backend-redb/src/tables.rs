//! The part about tables, and the keys by which they are found.

use async_trait::async_trait;
use deltalakedb_catalog_core::backend::{TableBackend, TableFilter};
use deltalakedb_catalog_core::error::{CatalogError, ReadResult, Result, WriteResult};
use deltalakedb_catalog_core::ids::{TableId, TableName, TableRef, TimestampMs};
use deltalakedb_catalog_core::model::{MirrorMode, Page, TableRecord, TableState};
use redb::ReadableTable;

use crate::RedbBackend;
use crate::rows::TableRow;
use crate::store::{Key, ReadRows, Rows, Space, WriteRows, page};

fn names(state: TableState, namespace: &str) -> Key {
    Key::new(Space::Name).text(state.as_str()).text(namespace)
}

fn name_key(state: TableState, name: &TableName) -> Key {
    names(state, name.namespace()).text(name.name())
}

fn due_key(since: TimestampMs, id: TableId) -> Key {
    Key::new(Space::Due).number(since.0).id(id)
}

pub(crate) fn not_found(id: TableId) -> CatalogError {
    CatalogError::TableNotFound(id.to_string())
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    pub(crate) fn table(&self, id: TableId) -> Result<Option<TableRow>> {
        self.get(&Key::of(Space::Table, id))
    }

    /// A table whose rows can be read by its id: any.
    pub(crate) fn readable(&self, id: TableId) -> Result<TableRow> {
        self.table(id)?.ok_or_else(|| not_found(id))
    }

    /// A table in a state.
    pub(crate) fn in_state(&self, id: TableId, state: TableState) -> Result<TableRow> {
        self.table(id)?.filter(|t| t.record.state == state).ok_or_else(|| not_found(id))
    }

    /// The live table of a name.
    pub(crate) fn live(&self, name: &TableName) -> Result<Option<TableRow>> {
        for state in [TableState::Active, TableState::Importing] {
            if let Some(found) = self.all(name_key(state, name))?.next().transpose()? {
                return self.table(found.id()?);
            }
        }
        Ok(None)
    }

    pub(crate) fn find(&self, table: &TableRef) -> Result<Option<TableRow>> {
        match table {
            TableRef::Id(id) => self.table(*id),
            TableRef::Name(name) => self.live(name),
        }
    }
}

impl WriteRows<'_> {
    /// Stores a table's row, and the keys by which it is found. Its rows of the outbox are stored before.
    pub(crate) fn put_table(&mut self, table: &mut TableRow) -> Result<()> {
        let id = table.record.id;
        self.delete_table(id)?;
        let may_be_claimed =
            table.record.state == TableState::Active && table.record.mirror == MirrorMode::Active;
        let first = self.outbox(id, table.next_to_publish())?.filter(|_| may_be_claimed);
        table.due = first.map(|row| row.enqueued_at);
        if let Some(since) = table.due {
            self.put_bytes(&due_key(since, id), &[])?;
        }
        self.put_bytes(&name_key(table.record.state, &table.record.name).id(id), &[])?;
        self.put(&Key::of(Space::Table, id), table)
    }

    /// Deletes what `put_table` stored.
    pub(crate) fn delete_table(&mut self, id: TableId) -> Result<()> {
        if let Some(old) = self.table(id)? {
            self.delete(&name_key(old.record.state, &old.record.name).id(id))?;
            if let Some(since) = old.due {
                self.delete(&due_key(since, id))?;
            }
        }
        self.delete(&Key::of(Space::Table, id))
    }
}

#[async_trait]
impl TableBackend for RedbBackend {
    fn note_change(&self, _table_id: TableId) {}

    async fn get_table(&self, table: &TableRef) -> ReadResult<Option<TableRecord>> {
        let table = table.clone();
        Ok(self.read(move |rows| Ok(rows.find(&table)?.map(|t| t.record))).await?)
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> ReadResult<Page<TableRecord, (TableName, TableId)>> {
        let state = filter.state.unwrap_or(TableState::Active);
        let within = match &filter.namespace {
            Some(namespace) => names(state, namespace),
            None => Key::new(Space::Name).text(state.as_str()),
        };
        let after = after.map(|(name, id)| name_key(state, name).id(*id).after());
        let from = after.map_or(within.clone(), |after| after.max(within.clone()));
        let list = move |rows: &ReadRows| {
            let found = rows.scan(&from, &within.end())?;
            let tables = found.map(|entry| Ok(rows.readable(entry?.id()?)?.record));
            page(tables, limit, |t| (t.name.clone(), t.id))
        };
        Ok(self.read(list).await?)
    }

    async fn drop_table(&self, table_id: TableId, now: TimestampMs) -> WriteResult<TableRecord> {
        let drop = move |rows: &mut WriteRows<'_>| {
            let mut table = rows.in_state(table_id, TableState::Active)?;
            table.record.state = TableState::Dropped;
            table.record.dropped_at = Some(now);
            rows.put_table(&mut table)?;
            Ok(table.record)
        };
        Ok(self.write(drop).await?)
    }

    async fn undrop_table(&self, table_id: TableId, name: &TableName) -> WriteResult<TableRecord> {
        let name = name.clone();
        let undrop = move |rows: &mut WriteRows<'_>| {
            let mut table = rows.in_state(table_id, TableState::Dropped)?;
            if rows.live(&name)?.is_some() {
                return Err(CatalogError::TableExists(name));
            }
            table.record.state = TableState::Active;
            table.record.dropped_at = None;
            table.record.name = name;
            rows.put_table(&mut table)?;
            Ok(table.record)
        };
        Ok(self.write(undrop).await?)
    }
}
