//! What a command prints: aligned tables for people, JSON documents for programs.
//!
//! Standard output gets the result and nothing else; hints, warnings, progress and errors go to
//! standard error.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, ColumnConstraint, Table, Width, presets};
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Rows that are laid out together: the widths of the first ones hold for the rest.
const ROWS_AT_ONCE: usize = 1_000;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned text for people
    Table,
    /// One JSON document a command, for programs
    Json,
    /// A config file (`dl config example`)
    #[value(hide = true)]
    Yaml,
    /// A config file (`dl config example`)
    #[value(hide = true)]
    Toml,
    /// Comma-separated values (`dl audit`)
    #[value(hide = true)]
    Csv,
}

impl Format {
    /// As it is typed.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Json => "json",
            Format::Yaml => "yaml",
            Format::Toml => "toml",
            Format::Csv => "csv",
        }
    }
}

/// The command's voice: everything that is printed goes through it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
}

#[expect(clippy::unused_self, reason = "what does not depend on the format today may tomorrow")]
impl Output {
    pub(crate) fn new(format: Format, quiet: bool) -> Self {
        Output { format, quiet }
    }

    pub(crate) fn format(self) -> Format {
        self.format
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints a line of a result for people; nothing in JSON or with `--quiet`.
    pub(crate) fn say(self, text: impl AsRef<str>) -> Result<()> {
        if self.is_json() || self.quiet {
            return Ok(());
        }
        self.text(text)
    }

    /// Prints text that is the result itself, `--quiet` or not.
    pub(crate) fn text(self, text: impl AsRef<str>) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_ref().as_bytes())?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }

    /// Prints the one JSON document of a command.
    pub(crate) fn document(self, value: &impl Serialize) -> Result<()> {
        let mut out = io::stdout().lock();
        json_result(serde_json::to_writer_pretty(&mut out, value))?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }

    /// A remark about the result that nobody needs to act on.
    pub(crate) fn hint(self, text: impl AsRef<str>) {
        if !self.quiet && !self.is_json() {
            eprint(text.as_ref());
        }
    }

    /// Something that went wrong without failing the command.
    pub(crate) fn warn(self, text: impl AsRef<str>) {
        let text = text.as_ref();
        if self.is_json() {
            eprint(&serde_json::json!({ "warning": text }).to_string());
        } else {
            eprint(&format!("warning: {text}"));
        }
    }

    /// Why the command failed.
    pub(crate) fn error(self, failure: &Failure) {
        if matches!(failure, Failure::BrokenPipe) {
            return;
        }
        if self.is_json() {
            eprint(&failure.to_json().to_string());
        } else {
            eprint(&format!("error: {failure}"));
        }
    }

    /// A list: a JSON array, or a table with these columns. `right` are the columns of numbers.
    pub(crate) fn list(self, header: &'static [&'static str], right: &'static [usize]) -> List {
        let header = header.iter().map(|h| h.to_uppercase()).collect();
        List { json: self.is_json(), ..List::new(header, right.to_vec()) }
    }

    /// Rows of a query as a table, whatever the format of results is. Names stay as they are.
    #[cfg(feature = "sql")]
    pub(crate) fn rows(self, header: Vec<String>, right: Vec<usize>) -> List {
        List::new(header.iter().map(|name| one_line(name)).collect(), right)
    }
}

/// A list that is printed as it comes.
pub(crate) struct List {
    json: bool,
    header: Vec<String>,
    right: Vec<usize>,
    rows: Vec<Vec<String>>,
    widths: Option<Vec<u16>>,
    items: usize,
}

impl List {
    fn new(header: Vec<String>, right: Vec<usize>) -> List {
        List { json: false, header, right, rows: Vec::new(), widths: None, items: 0 }
    }

    /// Adds a row. Its cells may have several lines.
    #[cfg(feature = "sql")]
    pub(crate) fn push_row(&mut self, cells: &[String]) -> Result<()> {
        let lines = |cell: &String| cell.lines().map(one_line).collect::<Vec<_>>().join("\n");
        self.rows.push(cells.iter().map(lines).collect());
        self.items += 1;
        if self.rows.len() >= ROWS_AT_ONCE { self.print_rows() } else { Ok(()) }
    }

    /// Adds an item: `value` is its JSON form, `row` its cells.
    pub(crate) fn push(
        &mut self,
        value: &impl Serialize,
        row: impl FnOnce() -> Vec<String>,
    ) -> Result<()> {
        if self.json {
            let mut out = io::stdout().lock();
            out.write_all(if self.items == 0 { b"[\n" } else { b",\n" })?;
            // An item a line: long lists stay small and can be searched.
            json_result(serde_json::to_writer(&mut out, value))?;
        } else {
            self.rows.push(row().iter().map(|cell| one_line(cell)).collect());
            if self.rows.len() >= ROWS_AT_ONCE {
                self.print_rows()?;
            }
        }
        self.items += 1;
        Ok(())
    }

    /// Number of items so far.
    pub(crate) fn len(&self) -> usize {
        self.items
    }

    /// Ends the list. An empty table prints its header only.
    pub(crate) fn end(mut self) -> Result<()> {
        if self.json {
            let mut out = io::stdout().lock();
            out.write_all(if self.items == 0 { b"[]\n" } else { b"\n]\n" })?;
            return Ok(out.flush()?);
        }
        if !self.rows.is_empty() || self.widths.is_none() {
            self.print_rows()?;
        }
        Ok(())
    }

    fn print_rows(&mut self) -> Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        if self.widths.is_none() {
            table.set_header(&self.header);
        }
        for row in self.rows.drain(..) {
            table.add_row(row);
        }
        for index in &self.right {
            if let Some(column) = table.column_mut(*index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let found = table.column_max_content_widths();
        if let Some(widths) = &self.widths {
            for (index, width) in widths.iter().enumerate() {
                if let Some(column) = table.column_mut(index) {
                    column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width)));
                }
            }
        } else {
            // Padding stands on both sides of a cell.
            self.widths = Some(found.iter().map(|w| w.saturating_add(2)).collect());
        }
        let mut out = io::stdout().lock();
        for line in table.lines() {
            out.write_all(line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()).as_bytes())?;
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }
}

/// Names and values under each other.
pub(crate) fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows {
        let mut lines = value.lines();
        let first = lines.next().unwrap_or_default();
        text.push_str(format!("{name:<width$}  {first}").trim_end());
        text.push('\n');
        for line in lines {
            text.push_str(format!("{:width$}  {line}", "").trim_end());
            text.push('\n');
        }
    }
    text.pop();
    text
}

fn json_result(written: serde_json::Result<()>) -> Result<()> {
    written.map_err(|e| match e.io_error_kind() {
        Some(kind) => io::Error::from(kind).into(),
        None => Failure::invalid(format!("the result has no JSON form: {e}")),
    })
}

/// Standard error may be closed: then there is nobody to tell.
fn eprint(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes());
    let _ = err.write_all(b"\n");
}

/// Text of foreign origin on one line and without control characters (terminal escapes among them).
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// `1,234,567`
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things in memory.
pub(crate) fn count_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// `1 file`, `1,200 files`
pub(crate) fn plural(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `512 B`, `1.5 KiB`, `3.0 GiB`
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: &[&str] = &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths, rounded down: a size never reads as more than it is.
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = "B";
    for name in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = name;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(12_345_678), "12,345,678");
        assert_eq!(plural(1, "file"), "1 file");
        assert_eq!(plural(1_200, "file"), "1,200 files");
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
        assert_eq!(size(u64::MAX), "15.9 EiB");
    }

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        assert_eq!(one_line("a\x1b[31m\nb"), "a\u{fffd}[31m\u{fffd}b");
    }

    #[test]
    fn pairs_align_and_indent() {
        assert_eq!(
            pairs(&[("a", "1".into()), ("long", "x\ny".into())]),
            "a     1\nlong  x\n      y"
        );
    }
}
