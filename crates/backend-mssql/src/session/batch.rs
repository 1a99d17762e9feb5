//! The text and the parameters of one request, put together at once.
//!
//! `{p}` in the text is filled in when the request is sent.

use std::fmt::{self, Write};

use tiberius::ColumnData;

/// Most parameters in one request: 2,100, of which the driver needs two
/// (<https://learn.microsoft.com/sql/sql-server/maximum-capacity-specifications-for-sql-server>).
pub(crate) const MAX_PARAMETERS: usize = 2098;
/// Most rows of one `VALUES` list.
pub(crate) const MAX_VALUES: usize = 1000;

/// A request that is being written.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    pub(crate) sql: String,
    pub(crate) values: Vec<ColumnData<'a>>,
}

/// The name of a parameter in the text: `@P1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct P(usize);

impl fmt::Display for P {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@P{}", self.0)
    }
}

impl<'a> Batch<'a> {
    pub(crate) fn new() -> Self {
        Batch::default()
    }

    /// Binds a value.
    pub(crate) fn bind(&mut self, value: ColumnData<'a>) -> P {
        self.values.push(value);
        P(self.values.len())
    }

    /// Appends a text.
    pub(crate) fn push(&mut self, text: &str) {
        self.sql.push_str(text);
        self.sql.push('\n');
    }

    /// Appends formatted text. Writing into a string cannot fail.
    pub(crate) fn write(&mut self, text: fmt::Arguments<'_>) {
        self.sql.write_fmt(text).ok();
    }
}
