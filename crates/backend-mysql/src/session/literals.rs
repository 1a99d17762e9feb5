//! Values as SQL literals.
//!
//! Statements travel as text, many in one message: that saves the round trips of preparing each,
//! and nothing prepared is left on a connection that a pooler hands to others. So values stand in
//! the text. There is one place that writes them, here, and it writes decimal numbers and
//! hexadecimal digits only: no quote, backslash, `sql_mode` or character set can end a literal
//! early (<https://dev.mysql.com/doc/refman/8.0/en/hexadecimal-literals.html>).

use std::fmt::Write;

use uuid::Uuid;

/// [`Value::Inserted`]. No other row that is given a number is inserted in between
/// (<https://dev.mysql.com/doc/refman/8.0/en/information-functions.html#function_last-insert-id>).
const INSERTED: &str = "LAST_INSERT_ID()";
/// What `{key}` stands for.
const KEY: [&str; 2] = ["(SELECT table_key FROM ", "tables WHERE id = "];

/// A value in a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'v> {
    Null,
    Int(i64),
    Text(&'v str),
    Bytes(&'v [u8]),
    Id(Uuid),
    /// The number that the last row of `{p}tables` was given, which this transaction has inserted.
    Inserted,
}

impl Value<'_> {
    /// Bytes that the literal takes, about.
    pub(crate) fn len(&self) -> usize {
        match self {
            Value::Null => 4,
            Value::Int(_) => 20,
            Value::Text(text) => 12 + 2 * text.len(),
            Value::Bytes(bytes) => 3 + 2 * bytes.len(),
            Value::Id(_) => 35,
            Value::Inserted => INSERTED.len(),
        }
    }

    /// Appends the literal.
    pub(crate) fn write(&self, sql: &mut String) {
        match self {
            Value::Null => sql.push_str("NULL"),
            Value::Int(number) => {
                // Writing to a String does not fail.
                let _ = write!(sql, "{number}");
            }
            Value::Text(text) => {
                sql.push_str("_utf8mb4 X'");
                hex(sql, text.as_bytes());
                sql.push('\'');
            }
            Value::Bytes(bytes) => {
                sql.push_str("X'");
                hex(sql, bytes);
                sql.push('\'');
            }
            Value::Id(id) => Value::Bytes(id.as_bytes()).write(sql),
            Value::Inserted => sql.push_str(INSERTED),
        }
    }
}

fn hex(sql: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    sql.reserve(2 * bytes.len());
    for byte in bytes {
        sql.push(char::from(DIGITS[usize::from(byte >> 4)]));
        sql.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Value::Int(i64::from(flag))
    }
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Value::Text(text)
    }
}

impl<'v> From<&'v String> for Value<'v> {
    fn from(text: &'v String) -> Self {
        Value::Text(text)
    }
}

impl<'v> From<&'v [u8]> for Value<'v> {
    fn from(bytes: &'v [u8]) -> Self {
        Value::Bytes(bytes)
    }
}

impl<'v> From<&'v [u8; 16]> for Value<'v> {
    fn from(bytes: &'v [u8; 16]) -> Self {
        Value::Bytes(bytes)
    }
}

impl From<deltalakedb_catalog_core::ids::TableId> for Value<'_> {
    fn from(id: deltalakedb_catalog_core::ids::TableId) -> Self {
        Value::Id(id.0)
    }
}

impl<'v, T: Into<Value<'v>>> From<Option<T>> for Value<'v> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// Fills a text of ours: `{p}` is the prefix, each `?` the next value, and `{key}` the key of the table
/// whose id is the next value, or null if there is no such table.
///
/// The texts are constants of this crate, which have as many places as values are given.
pub(crate) fn fill(text: &str, prefix: &str, values: &[Value<'_>]) -> String {
    let length = values.iter().map(Value::len).sum::<usize>();
    let mut sql = String::with_capacity(text.len() + 64 + length);
    let mut values = values.iter();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '?']) {
        sql.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{p}") {
            sql.push_str(prefix);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('?') {
            debug_assert!(values.len() > 0, "too few values for {text}");
            values.next().unwrap_or(&Value::Null).write(&mut sql);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{key}") {
            debug_assert!(values.len() > 0, "too few values for {text}");
            for part in [KEY[0], prefix, KEY[1]] {
                sql.push_str(part);
            }
            values.next().unwrap_or(&Value::Null).write(&mut sql);
            sql.push(')');
            rest = after;
        } else {
            sql.push('{');
            rest = &rest[1..];
        }
    }
    debug_assert!(values.next().is_none(), "too many values for {text}");
    sql.push_str(rest);
    sql
}

/// `(v, v, …)`.
pub(crate) fn tuple(sql: &mut String, values: &[Value<'_>]) {
    sql.push('(');
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            sql.push(',');
        }
        value.write(sql);
    }
    sql.push(')');
}

/// `v, v, …`, for `IN (…)`.
pub(crate) fn list<'v>(values: impl IntoIterator<Item = Value<'v>>) -> String {
    let mut sql = String::new();
    for value in values {
        if !sql.is_empty() {
            sql.push(',');
        }
        value.write(&mut sql);
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_digits_only() {
        let mut sql = String::new();
        tuple(
            &mut sql,
            &[
                Value::Null,
                i64::MIN.into(),
                "a'\\\0é".into(),
                (&b"\xff\x00'"[..]).into(),
                true.into(),
                Option::<i64>::None.into(),
            ],
        );
        assert_eq!(sql, "(NULL,-9223372036854775808,_utf8mb4 X'61275C00C3A9',X'FF0027',1,NULL)");
    }

    #[test]
    fn a_value_never_fills_another_place() {
        assert_eq!(
            fill("SELECT ? FROM {p}x WHERE y = ?", "dl_", &["?{p}".into(), 2.into()]),
            "SELECT _utf8mb4 X'3F7B707D' FROM dl_x WHERE y = 2"
        );
        let table = Value::Id(Uuid::from_u128(255));
        assert_eq!(
            fill("DELETE FROM {p}x WHERE table_key = {key} AND y = ?", "dl_", &[table, 2.into()]),
            "DELETE FROM dl_x WHERE table_key = (SELECT table_key FROM dl_tables \
             WHERE id = X'000000000000000000000000000000FF') AND y = 2"
        );
    }
}
