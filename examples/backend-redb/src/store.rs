//! Keys, ranges of keys, and which error of the store means what.
//!
//! All rows are in one ordered map of bytes. A key is the number of its space, then parts that sort as what they
//! stand for: ids as they are, numbers as big-endian bytes, text with a mark at its end. Most values are JSON, and say
//! all that is needed of their keys.

use deltalakedb_catalog_core::support::prelude::*;
use redb::{ReadOnlyTable, ReadableTable, Table, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

type Raw = &'static [u8];

/// All rows.
pub(crate) const ROWS: TableDefinition<'static, Raw, Raw> = TableDefinition::new("deltalakedb");

/// The rows, in a transaction that reads or writes.
pub(crate) struct Rows<T>(pub(crate) T);
pub(crate) type ReadRows = Rows<ReadOnlyTable<Raw, Raw>>;
pub(crate) type WriteRows<'t> = Rows<Table<'t, Raw, Raw>>;

/// What rows are about, the first byte of their keys. The comment gives the rest of the key, and the value. Spaces
/// from `Table` on are those of one table.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Space {
    /// Nothing: the version of the schema. It stays the first key in all versions.
    Schema,
    /// namespace, name, id: the id. Of tables in all states.
    Name,
    /// token, place in the batch, id, version: the id, the version.
    Token,
    /// id: the table.
    Table,
    /// id, version: history.
    Commit,
    /// id, version: the commit's first line, length of the other lines.
    Body,
    /// id, version: the other lines, compressed.
    Rest,
    /// id, cursor: a file, a tombstone, or both.
    File,
    /// id, path, deletion vector, cursor: the cursor. Of the rows of `File`, of all versions.
    FileKey,
    /// id, version: the version, the protocol.
    Protocol,
    /// id, version: the version, the metadata.
    Metadata,
    /// id, application, version: the application, the transaction.
    Txn,
    /// id, domain, version: the domain, its metadata.
    Domain,
    /// id, version: the row of the outbox.
    Outbox,
    /// id, segment: the segment of the skipping index, without its root.
    SkipSegment,
    /// id, segment, page: the page as it is; the segment's root is page -1.
    SkipPage,
    /// time, id: the row of the audit. No space of a table: the rows stay when it goes.
    Audit,
    /// token: true. Of the rows of `Audit` that have one.
    AuditToken,
    /// kind, name: the record.
    Registry,
}

/// A key, or the beginning of some.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn new(space: Space) -> Key {
        Key(vec![space as u8])
    }

    pub(crate) fn of(space: Space, id: TableId) -> Key {
        Key::new(space).id(id)
    }

    /// The beginnings of all keys about a table, but for those of its name and its tokens.
    pub(crate) fn of_table(id: TableId) -> impl Iterator<Item = Key> {
        (Space::Table as u8..=Space::SkipPage as u8).map(move |space| Key(vec![space]).id(id))
    }

    pub(crate) fn id(self, id: TableId) -> Key {
        self.bytes(id.0.as_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Key {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Signed numbers sort as bytes do once their sign is turned around.
    pub(crate) fn number(self, number: i64) -> Key {
        self.bytes(&(number ^ i64::MIN).to_be_bytes())
    }

    pub(crate) fn version(self, version: Version) -> Key {
        self.number(version.get())
    }

    pub(crate) fn cursor(self, cursor: FileCursor) -> Key {
        self.version(cursor.added_version).number(cursor.ordinal)
    }

    /// Text ends with two zero bytes; a zero byte inside of it is followed by a one.
    pub(crate) fn text(self, text: &str) -> Key {
        self.bytes(text.replace('\0', "\0\u{1}").as_bytes()).bytes(&[0, 0])
    }

    /// The first key after all keys that begin with this one.
    pub(crate) fn end(&self) -> Key {
        let last = self.0.iter().rposition(|byte| *byte < u8::MAX);
        let mut end = self.0[..last.map_or(0, |last| last + 1)].to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Key(end)
    }

    /// The first key after this one.
    pub(crate) fn after(self) -> Key {
        self.bytes(&[0])
    }
}

impl<T: ReadableTable<Raw, Raw>> Rows<T> {
    pub(crate) fn bytes(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(key.0.as_slice()).map_err(failed)?.map(|value| value.value().to_vec()))
    }

    pub(crate) fn get<V: DeserializeOwned>(&self, key: &Key) -> Result<Option<V>> {
        self.bytes(key)?.map(|value| from_json(&value)).transpose()
    }

    /// Rows from a key up to (excluding) another, read as they are asked for.
    pub(crate) fn scan<V: DeserializeOwned>(
        &self,
        from: &Key,
        to: &Key,
    ) -> Result<impl DoubleEndedIterator<Item = Result<V>> + use<'_, T, V>> {
        let to = to.max(from);
        let range = self.0.range(from.0.as_slice()..to.0.as_slice()).map_err(failed)?;
        Ok(range.map(|row| from_json(row.map_err(failed)?.1.value())))
    }

    /// All rows whose key begins like this.
    pub(crate) fn all<V: DeserializeOwned>(
        &self,
        prefix: &Key,
    ) -> Result<impl DoubleEndedIterator<Item = Result<V>> + use<'_, T, V>> {
        self.scan(prefix, &prefix.end())
    }
}

impl WriteRows<'_> {
    pub(crate) fn put_bytes(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.0.insert(key.0.as_slice(), value).map_err(failed)?;
        Ok(())
    }

    pub(crate) fn put<V: Serialize>(&mut self, key: &Key, value: &V) -> Result<()> {
        let bad = |e| CatalogError::invalid(format!("cannot store a row: {e}"));
        self.put_bytes(key, &serde_json::to_vec(value).map_err(bad)?)
    }

    /// Deletes all rows whose key begins like this.
    pub(crate) fn delete_all(&mut self, prefix: &Key) -> Result<()> {
        let end = prefix.end();
        self.0.retain_in(prefix.0.as_slice()..end.0.as_slice(), |_, _| false).map_err(failed)
    }
}

fn from_json<V: DeserializeOwned>(value: &[u8]) -> Result<V> {
    let bad = |e| CatalogError::corrupt(format!("a row holds an unexpected value: {e}"));
    serde_json::from_slice(value).map_err(bad)
}

/// The error of a call after which nothing is written: each but that of a commit.
pub(crate) fn failed(error: impl Into<redb::Error>) -> CatalogError {
    use redb::Error as E;
    match error.into() {
        e @ E::DatabaseAlreadyOpen => {
            CatalogError::busy(format!("the database is in use: {e}"), WriteState::NotApplied)
        }
        E::TableDoesNotExist(_) => {
            CatalogError::Schema("there is no catalog in this file: migrate it".to_owned())
        }
        E::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            CatalogError::Schema(format!("the file is no redb database: {e}"))
        }
        e @ (E::UpgradeRequired(_)
        | E::TableTypeMismatch { .. }
        | E::TypeDefinitionChanged { .. }
        | E::TableIsMultimap(_)) => {
            CatalogError::Schema(format!("the file is another program's, or of another time: {e}"))
        }
        e @ E::Corrupted(_) => CatalogError::corrupt(format!("the database is damaged: {e}")),
        e @ E::ValueTooLarge(_) => CatalogError::invalid(format!("cannot store a row: {e}")),
        e => CatalogError::failed(format!("the database failed: {e}"), WriteState::NotApplied),
    }
}

/// The error of a commit. redb rolls back a transaction that is poisoned; after any other error the rows may be
/// durable.
pub(crate) fn commit_failed(error: redb::CommitError) -> CatalogError {
    let write = match error {
        redb::CommitError::TransactionPoisoned => WriteState::NotApplied,
        _ => WriteState::Unknown,
    };
    CatalogError::failed(format!("the database failed to commit: {error}"), write)
}
