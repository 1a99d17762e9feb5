//! What `copy-catalog` and `restore` have in common: tables of one catalog made in another.

use std::fmt::Write as _;

use clap::ValueEnum;
use deltalakedb::copy::{Progressed, TableCopy, Validate};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::count;

/// How much is compared before tables become active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum How {
    All,
    Sample,
    None,
}

impl How {
    pub(super) fn validate(self) -> Validate {
        match self {
            How::All => Validate::All,
            How::Sample => Validate::default(),
            How::None => Validate::None,
        }
    }
}

/// What was done to tables.
#[derive(Debug, Clone, Copy)]
pub(super) enum Done {
    Copied,
    Restored,
}

impl Done {
    fn word(self) -> &'static str {
        match self {
            Done::Copied => "copied",
            Done::Restored => "restored",
        }
    }

    fn header(self) -> &'static [&'static str] {
        match self {
            Done::Copied => {
                &["table", "state", "version", "copied commits", "compared versions", "result"]
            }
            Done::Restored => {
                &["table", "state", "version", "restored commits", "compared versions", "result"]
            }
        }
    }
}

/// Lists the tables, and tells of each what differs.
pub(super) fn list(context: &Context, tables: &[TableCopy], done: Done) -> Result<()> {
    let mut list = context.out.list(done.header(), &[2, 3, 4]);
    for table in tables {
        list.push(table, || {
            vec![
                table.name.to_string(),
                table.state.as_str().to_owned(),
                table.head.map_or_else(|| "-".to_owned(), |head| head.to_string()),
                count(table.commits),
                count(table.compared_versions),
                result(table, done),
            ]
        })?;
    }
    list.end()?;
    for table in tables.iter().filter(|table| table.num_differences > 0) {
        let mut text = format!("'{}' ({}) differs:", table.name, table.table_id);
        for difference in &table.differences {
            text.push_str("\n  ");
            text.push_str(difference);
        }
        let more = table.num_differences.saturating_sub(table.differences.len());
        if more > 0 {
            let _ = write!(text, "\n  … and {more} more");
        }
        context.out.error(&Failure::Mismatch(text));
    }
    Ok(())
}

fn result(table: &TableCopy, done: Done) -> String {
    if table.num_differences > 0 {
        return "DIFFERS".to_owned();
    }
    let done = done.word();
    match (table.progress, table.resumed) {
        (Progressed::Copied, false) => done.to_owned(),
        (Progressed::Copied, true) => format!("{done} (continued)"),
        (Progressed::Present, _) => "there already".to_owned(),
        (Progressed::Loaded, _) => "not finished".to_owned(),
        (Progressed::Refused, _) => format!("not {done}"),
    }
}
