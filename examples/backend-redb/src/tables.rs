//! The part about tables, and the keys by which they are found.

use deltalakedb_catalog_core::support::{self, StoredTable, prelude::*};
use redb::ReadableTable;

use crate::RedbBackend;
use crate::store::{Key, ReadRows, Rows, Space, WriteRows};

pub(crate) fn name_key(name: &TableName) -> Key {
    Key::new(Space::Name).text(name.namespace()).text(name.name())
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    pub(crate) fn table(&self, id: TableId) -> Result<Option<StoredTable>> {
        self.get(&Key::of(Space::Table, id))
    }

    /// A table whose rows can be read by its id: any.
    pub(crate) fn readable(&self, id: TableId) -> Result<StoredTable> {
        self.table(id)?.ok_or_else(|| support::not_found(id))
    }

    /// A table in a state.
    pub(crate) fn in_state(&self, id: TableId, state: TableState) -> Result<StoredTable> {
        let table = self.table(id)?.filter(|table| table.record.state == state);
        table.ok_or_else(|| support::not_found(id))
    }

    /// The live table of a name. Dropped ones keep theirs.
    pub(crate) fn live(&self, name: &TableName) -> Result<Option<StoredTable>> {
        for id in self.all(&name_key(name))? {
            let table = self.readable(id?)?;
            if table.record.state != TableState::Dropped {
                return Ok(Some(table));
            }
        }
        Ok(None)
    }

    pub(crate) fn find(&self, table: &TableRef) -> Result<Option<StoredTable>> {
        match table {
            TableRef::Id(id) => self.table(*id),
            TableRef::Name(name) => self.live(name),
        }
    }
}

impl WriteRows<'_> {
    /// Stores a table, and the key by which its name is found.
    pub(crate) fn put_table(&mut self, table: &StoredTable) -> Result<()> {
        let TableRecord { id, name, .. } = &table.record;
        self.put(&name_key(name).id(*id), id)?;
        self.put(&Key::of(Space::Table, *id), table)
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
        let all = Key::new(Space::Name);
        let within = filter.namespace.as_ref().map_or(all.clone(), |name| all.text(name));
        let after = after.map(|(name, id)| name_key(name).id(*id).after());
        let from = after.map_or(within.clone(), |after| after.max(within.clone()));
        let list = move |rows: &ReadRows| {
            let found = rows.scan(&from, &within.end())?;
            let tables = found.map(|id| Ok(rows.readable(id?)?.record));
            let wanted = |table: &TableRecord| table.state == state;
            support::page_where(tables, wanted, limit, |table| (table.name.clone(), table.id))
        };
        Ok(self.read(list).await?)
    }

    async fn drop_table(&self, table_id: TableId, act: &Act) -> WriteResult<TableRecord> {
        let act = act.clone();
        let drop = move |rows: &mut WriteRows<'_>| {
            let mut table = rows.in_state(table_id, TableState::Active)?;
            table.drop_at(act.at);
            rows.put_table(&table)?;
            rows.keep(act.on(audit_action::TABLE_DROP, &table.record))?;
            Ok(table.record)
        };
        Ok(self.write(drop).await?)
    }

    async fn undrop_table(
        &self,
        table_id: TableId,
        name: &TableName,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        let (name, act) = (name.clone(), act.clone());
        let undrop = move |rows: &mut WriteRows<'_>| {
            let mut table = rows.in_state(table_id, TableState::Dropped)?;
            if rows.live(&name)?.is_some() {
                return Err(CatalogError::TableExists(name));
            }
            rows.delete_all(&name_key(&table.record.name).id(table_id))?;
            let before = table.record.clone();
            table.undrop(name);
            rows.put_table(&table)?;
            rows.keep(act.undropped(&before, &table.record))?;
            Ok(table.record)
        };
        Ok(self.write(undrop).await?)
    }
}
