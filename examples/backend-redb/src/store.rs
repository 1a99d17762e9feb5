//! Keys, ranges of keys, and which error of the store means what.
//!
//! All rows are in one ordered map of bytes. A key is the number of its space, then parts that sort as what they
//! stand for: ids as they are, numbers as big-endian bytes, text with a mark at its end.

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{TableId, Version};
use deltalakedb_catalog_core::model::{FileCursor, Page};
use deltalakedb_catalog_core::support;
use redb::{ReadOnlyTable, ReadableTable, Table, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

type Bytes = &'static [u8];

/// All rows.
pub(crate) const ROWS: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("deltalakedb");

/// The rows, in a transaction that reads or writes.
pub(crate) struct Rows<T>(pub(crate) T);
pub(crate) type ReadRows = Rows<ReadOnlyTable<Bytes, Bytes>>;
pub(crate) type WriteRows<'t> = Rows<Table<'t, Bytes, Bytes>>;

/// What rows are about, the first byte of their keys. The comment gives the rest of the key, and the value. Spaces
/// from `Commit` on are those of one table.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Space {
    /// id: the table's row.
    Table = 1,
    /// state, namespace, name, id: nothing.
    Name,
    /// token, place in the batch: what it wrote there.
    Token,
    /// since when work waits, id: nothing. Only tables that a worker may have.
    Due,
    /// id, version: history.
    Commit,
    /// id, timestamp: the version.
    Time,
    /// id, version: the commit's bytes.
    Body,
    /// id, cursor: the version that removed it, the file.
    File,
    /// id, digest of a file's key, cursor: nothing. Of files and tombstones, of all versions.
    FileKey,
    /// id, cursor: the version that removed it, the action.
    Tombstone,
    /// id, version: the protocol.
    Protocol,
    /// id, version: the metadata.
    Metadata,
    /// id, application, version: the transaction.
    Txn,
    /// id, domain, version: its metadata.
    Domain,
    /// id, version: the row of the outbox.
    Outbox,
    /// id: the generation of the skipping index.
    SkipIndex,
    /// id, segment: the segment.
    SkipSegment,
    /// id, segment, page: the page; the segment's root is page -1.
    SkipPage,
}

/// A key, or the beginning of some.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn new(space: Space) -> Key {
        Key(vec![space as u8])
    }

    /// The beginnings of all keys about a table, but for those that `put_table` keeps.
    pub(crate) fn of_table(id: TableId) -> impl Iterator<Item = Key> {
        (Space::Commit as u8..=Space::SkipPage as u8).map(move |space| Key(vec![space]).id(id))
    }

    pub(crate) fn of(space: Space, id: TableId) -> Key {
        Key::new(space).id(id)
    }

    pub(crate) fn id(self, id: TableId) -> Key {
        self.bytes(id.0.as_bytes())
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Key {
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

    /// Text ends with two zero bytes; a zero byte inside of it is followed by 255.
    pub(crate) fn text(mut self, text: &str) -> Key {
        for byte in text.bytes() {
            self.0.push(byte);
            if byte == 0 {
                self.0.push(u8::MAX);
            }
        }
        self.bytes(&[0, 0])
    }

    /// The first key after all keys that begin with this one.
    pub(crate) fn end(mut self) -> Key {
        while let Some(last) = self.0.pop() {
            if last < u8::MAX {
                self.0.push(last + 1);
                break;
            }
        }
        self
    }

    /// The first key after this one.
    pub(crate) fn after(self) -> Key {
        self.bytes(&[0])
    }
}

/// A row that was found.
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Entry {
    pub(crate) fn json<V: DeserializeOwned>(&self) -> Result<V> {
        from_json(&self.value)
    }

    /// The id at the end of the key.
    pub(crate) fn id(&self) -> Result<TableId> {
        self.key.last_chunk().map(|bytes| TableId(Uuid::from_bytes(*bytes))).ok_or_else(bad_key)
    }

    /// The number at the end of the key.
    pub(crate) fn number(&self) -> Result<i64> {
        number(self.key.last_chunk())
    }

    /// The version at the end of the key.
    pub(crate) fn version(&self) -> Result<Version> {
        Ok(Version::new(self.number()?)?)
    }

    /// The cursor at the end of the key.
    pub(crate) fn cursor(&self) -> Result<FileCursor> {
        let (ordinal, before) = (self.number()?, self.key.split_last_chunk::<8>());
        let added = number(before.and_then(|(before, _)| before.last_chunk()))?;
        Ok(FileCursor { added_version: Version::new(added)?, ordinal })
    }

    /// The key without the number at its end.
    pub(crate) fn without_number(&self) -> Result<Key> {
        let split = self.key.split_last_chunk::<8>().ok_or_else(bad_key)?;
        Ok(Key(split.0.to_vec()))
    }
}

impl<T: ReadableTable<Bytes, Bytes>> Rows<T> {
    pub(crate) fn bytes(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(key.0.as_slice()).map_err(failed)?.map(|value| value.value().to_vec()))
    }

    pub(crate) fn get<V: DeserializeOwned>(&self, key: &Key) -> Result<Option<V>> {
        self.bytes(key)?.map(|value| from_json(&value)).transpose()
    }

    /// Rows from a key up to (excluding) another, read as they are asked for.
    pub(crate) fn scan(
        &self,
        from: &Key,
        to: &Key,
    ) -> Result<impl DoubleEndedIterator<Item = Result<Entry>> + use<'_, T>> {
        let range = if from < to {
            Some(self.0.range(from.0.as_slice()..to.0.as_slice()).map_err(failed)?)
        } else {
            None
        };
        Ok(range.into_iter().flatten().map(|row| {
            let (key, value) = row.map_err(failed)?;
            Ok(Entry { key: key.value().to_vec(), value: value.value().to_vec() })
        }))
    }

    /// All rows whose key begins like this.
    pub(crate) fn all(
        &self,
        prefix: Key,
    ) -> Result<impl DoubleEndedIterator<Item = Result<Entry>> + use<'_, T>> {
        self.scan(&prefix, &prefix.clone().end())
    }
}

impl WriteRows<'_> {
    pub(crate) fn put_bytes(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.0.insert(key.0.as_slice(), value).map_err(failed)?;
        Ok(())
    }

    pub(crate) fn put<V: Serialize>(&mut self, key: &Key, value: &V) -> Result<()> {
        self.put_bytes(key, &to_json(value)?)
    }

    pub(crate) fn delete(&mut self, key: &Key) -> Result<()> {
        self.0.remove(key.0.as_slice()).map_err(failed)?;
        Ok(())
    }

    /// Deletes all rows whose key begins like this.
    pub(crate) fn delete_all(&mut self, prefix: Key) -> Result<()> {
        let end = prefix.clone().end();
        self.0.retain_in(prefix.0.as_slice()..end.0.as_slice(), |_, _| false).map_err(failed)
    }
}

/// A page of what is read as it is asked for.
pub(crate) fn page<T, C>(
    items: impl Iterator<Item = Result<T>>,
    limit: usize,
    cursor: impl Fn(&T) -> C,
) -> Result<Page<T, C>> {
    let fetched = items.take(limit.max(1).saturating_add(1)).collect::<Result<Vec<T>>>()?;
    Ok(support::page(fetched, limit, cursor))
}

pub(crate) fn to_json<V: Serialize>(value: &V) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| CatalogError::invalid(format!("cannot store a row: {e}")))
}

pub(crate) fn from_json<V: DeserializeOwned>(value: &[u8]) -> Result<V> {
    let bad = |e| CatalogError::corrupt(format!("a row holds an unexpected value: {e}"));
    serde_json::from_slice(value).map_err(bad)
}

fn number(bytes: Option<&[u8; 8]>) -> Result<i64> {
    bytes.map(|bytes| i64::from_be_bytes(*bytes) ^ i64::MIN).ok_or_else(bad_key)
}

fn bad_key() -> CatalogError {
    CatalogError::corrupt("a row has a key or a value that is too short")
}

/// The error of a call after which nothing is written: each but that of a commit.
pub(crate) fn failed(error: impl Into<redb::Error>) -> CatalogError {
    use redb::Error as E;
    match error.into() {
        e @ E::DatabaseAlreadyOpen => {
            CatalogError::busy(format!("the database is in use: {e}"), WriteState::NotApplied)
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
