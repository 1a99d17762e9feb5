//! Statements that write, gathered into as few messages as the server's packets allow.

use deltalakedb_catalog_core::error::CatalogError;

use crate::errors::{DbError, DbResult, conflicting};
use crate::session::Call;
use crate::session::literals::{Value, tuple};

/// What has to be right about the number of rows that a statement wrote or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Any,
    Exactly(usize),
}

/// Gathers statements and sends them when a message is full; [`Writer::finish`] sends the rest.
pub(crate) struct Writer<'c> {
    pub(crate) call: &'c mut Call,
    message: String,
    /// One entry a statement of the message.
    expected: Vec<Rows>,
    /// `INSERT INTO … VALUES ` of the statement that takes more rows.
    open: Option<String>,
    limit: usize,
}

impl<'c> Writer<'c> {
    pub(crate) fn new(call: &'c mut Call) -> Self {
        let limit = call.session.message_bytes();
        Writer { call, message: String::new(), expected: Vec::new(), open: None, limit }
    }

    /// A statement that may write any number of rows.
    pub(crate) async fn push(&mut self, text: &str, values: &[Value<'_>]) -> DbResult<()> {
        self.add(text, values, Rows::Any).await
    }

    /// A statement that must find exactly one row: a compare-and-set.
    pub(crate) async fn push_one(&mut self, text: &str, values: &[Value<'_>]) -> DbResult<()> {
        self.add(text, values, Rows::Exactly(1)).await
    }

    /// A statement that must find so many rows.
    pub(crate) async fn push_exactly(
        &mut self,
        rows: usize,
        text: &str,
        values: &[Value<'_>],
    ) -> DbResult<()> {
        self.add(text, values, Rows::Exactly(rows)).await
    }

    async fn add(&mut self, text: &str, values: &[Value<'_>], rows: Rows) -> DbResult<()> {
        let statement = self.call.session.sql(text, values);
        self.open = None;
        self.make_room(statement.len()).await?;
        if !self.message.is_empty() {
            self.message.push_str("; ");
        }
        self.message.push_str(&statement);
        self.expected.push(rows);
        Ok(())
    }

    /// A row of an `INSERT INTO … VALUES `; rows of one text that follow each other share it.
    pub(crate) async fn row(&mut self, insert: &str, values: &[Value<'_>]) -> DbResult<()> {
        let length = values.iter().map(|value| value.len() + 1).sum::<usize>() + 4;
        let insert = self.call.session.sql(insert, &[]);
        self.make_room(length + insert.len()).await?;
        if self.open.as_deref() == Some(&insert) {
            self.message.push(',');
        } else {
            if !self.message.is_empty() {
                self.message.push_str("; ");
            }
            self.message.push_str(&insert);
            self.expected.push(Rows::Any);
            self.open = Some(insert);
        }
        tuple(&mut self.message, values);
        Ok(())
    }

    async fn make_room(&mut self, bytes: usize) -> DbResult<()> {
        if bytes > self.limit {
            return Err(DbError::Catalog(CatalogError::invalid(format!(
                "one row needs a message of {bytes} bytes, the server of database '{}' takes {}: \
                 raise its max_allowed_packet",
                self.call.session.at, self.limit
            ))));
        }
        if self.message.len() + bytes + 2 > self.limit {
            self.send().await?;
        }
        Ok(())
    }

    /// Sends what is gathered, so that statements which read find it.
    pub(crate) async fn send(&mut self) -> DbResult<()> {
        self.open = None;
        if self.message.is_empty() {
            return Ok(());
        }
        let message = std::mem::take(&mut self.message);
        let expected = std::mem::take(&mut self.expected);
        let sets = self.call.run(message).await?;
        let right = sets.len() == expected.len()
            && sets.iter().zip(expected).all(|(set, rows)| match rows {
                Rows::Any => true,
                Rows::Exactly(rows) => usize::try_from(set.affected) == Ok(rows),
            });
        if right {
            return Ok(());
        }
        // The rows were looked at under the lock of their table. On a cluster, or an engine whose
        // locks are weaker, another writer came between: nothing stays of this transaction.
        Err(DbError::Catalog(conflicting(&self.call.session.at)))
    }

    /// Sends what is left.
    pub(crate) async fn finish(mut self) -> DbResult<()> {
        self.send().await
    }

    /// Largest piece of bytes that fits into a row.
    pub(crate) fn piece(&self) -> usize {
        (self.limit.saturating_sub(1024) / 2).max(1024)
    }
}
