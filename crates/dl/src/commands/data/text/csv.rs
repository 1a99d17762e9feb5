//! CSV files. Lines and quotes are those of RFC 4180; `csv-core` reads them.
//!
//! An empty value is null. Between quotes it is the empty string, where the column is one of strings.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv_core::{ReadFieldResult, Reader, ReaderBuilder};
use delta::arrow::array::{ArrayRef, StringBuilder};
use delta::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalakedb::core::error::Result;
use deltalakedb::deltalake::deltalake as delta;

use super::guess::Guess;
use super::{
    BATCH_ROWS, Found, Known, Taker, check_names, fitted, open, unreadable, wrong, wrong_at,
};

/// One line of values.
#[derive(Debug, Default)]
struct Record {
    /// Line of the file that it begins on.
    line: u64,
    text: Vec<u8>,
    ends: Vec<usize>,
    /// Of each value: whether it stands between quotes.
    quoted: Vec<bool>,
}

impl Record {
    fn value<'a>(&'a self, file: &Path, i: usize) -> Result<&'a str> {
        let start = if i == 0 { 0 } else { self.ends.get(i - 1).copied().unwrap_or(0) };
        let end = self.ends.get(i).copied().unwrap_or(start);
        std::str::from_utf8(self.text.get(start..end).unwrap_or_default())
            .map_err(|_| wrong_at(file, "line", self.line, "it is not UTF-8: convert the file"))
    }

    fn values(&self, file: &Path) -> Result<Vec<String>> {
        (0..self.ends.len()).map(|i| Ok(self.value(file, i)?.to_owned())).collect()
    }
}

/// A file, record by record.
struct Records<'a> {
    file: &'a Path,
    input: BufReader<File>,
    core: Reader,
    /// Ends of lines so far.
    lines: u64,
    /// Whether the last byte was a carriage return: the end of its line may follow.
    after_return: bool,
    names: Vec<String>,
}

impl<'a> Records<'a> {
    /// Opens a file and reads the names of its columns.
    fn open(file: &'a Path, delimiter: u8) -> Result<Self> {
        let mut records = Records {
            file,
            input: open(file)?,
            core: ReaderBuilder::new().delimiter(delimiter).build(),
            lines: 0,
            after_return: false,
            names: Vec::new(),
        };
        let mut first = Record::default();
        if !records.read(&mut first)? {
            return Err(wrong(file, "it is empty: its first line names the columns"));
        }
        records.names = first.values(file)?;
        check_names(file, records.names.iter().map(String::as_str))?;
        Ok(records)
    }

    /// Reads a record that has a value for each column; false at the end.
    fn next(&mut self, record: &mut Record) -> Result<bool> {
        if !self.read(record)? {
            return Ok(false);
        }
        if record.ends.len() == self.names.len() {
            return Ok(true);
        }
        let what = format!(
            "it has {} values, and the first line names {} columns",
            record.ends.len(),
            self.names.len()
        );
        Err(wrong_at(self.file, "line", record.line, what))
    }

    fn read(&mut self, record: &mut Record) -> Result<bool> {
        record.ends.clear();
        record.quoted.clear();
        let (mut length, mut begun, mut blanks) = (0, false, 0_u64);
        // Of the value that is being read.
        let (mut quotes, mut first_byte) = (0_usize, None);
        loop {
            let input = self.input.fill_buf().map_err(|e| unreadable(self.file, &e))?;
            let at_end = input.is_empty();
            if record.text.len() < length + 64 {
                record.text.resize((length + 64) * 2, 0);
            }
            let output = record.text.get_mut(length..).unwrap_or_default();
            let (result, used, written) = self.core.read_field(input, output);
            let used_bytes = input.get(..used).unwrap_or_default();
            for byte in used_bytes {
                let ends_line = *byte == b'\n';
                if !begun && matches!(byte, b'\n' | b'\r') {
                    blanks += u64::from(ends_line && !self.after_return);
                } else if !begun {
                    begun = true;
                    record.line = self.lines + 1;
                }
                if begun && first_byte.is_none() {
                    first_byte = Some(*byte);
                }
                self.lines += u64::from(ends_line);
                quotes += usize::from(*byte == b'"');
                self.after_return = *byte == b'\r';
            }
            self.input.consume(used);
            length += written;
            match result {
                ReadFieldResult::InputEmpty | ReadFieldResult::OutputFull => {}
                ReadFieldResult::End => return Ok(false),
                ReadFieldResult::Field { record_end } => {
                    let in_quotes = first_byte == Some(b'"');
                    if at_end && in_quotes && quotes % 2 == 1 {
                        let what = "a quote is opened that nothing closes";
                        return Err(wrong_at(self.file, "line", record.line, what));
                    }
                    record.ends.push(length);
                    record.quoted.push(in_quotes);
                    (quotes, first_byte) = (0, None);
                    if record_end {
                        // Of one column alone an empty line may be a row.
                        if blanks > 0 && self.names.len() == 1 {
                            let what = "an empty line before it is a null or nothing at all: \
                                        write \"\" for an empty value, or leave the line out";
                            return Err(wrong_at(self.file, "line", record.line, what));
                        }
                        return Ok(true);
                    }
                }
            }
        }
    }
}

pub(super) fn look(files: &[PathBuf], delimiter: u8, known: &Known) -> Result<Found> {
    let mut names: Vec<String> = Vec::new();
    let mut guesses: Vec<Guess> = Vec::new();
    let mut record = Record::default();
    for (nth, file) in files.iter().enumerate() {
        let mut records = Records::open(file, delimiter)?;
        if nth == 0 {
            names.clone_from(&records.names);
            guesses = vec![Guess::default(); names.len()];
        }
        let places = places(file, &names, &records.names)?;
        let open: Vec<(usize, usize)> = places
            .iter()
            .enumerate()
            .filter(|(i, _)| names.get(*i).is_some_and(|name| known.column(name).is_none()))
            .map(|(i, place)| (i, *place))
            .collect();
        if open.is_empty() {
            continue;
        }
        while records.next(&mut record)? {
            for (i, place) in &open {
                let value = record.value(file, *place)?;
                if let (false, Some(guess)) = (value.is_empty(), guesses.get_mut(*i)) {
                    guess.learn(value);
                }
            }
        }
    }
    let mut empty = Vec::new();
    let fields = names.iter().zip(guesses).map(|(name, guess)| {
        let kind = known.column(name).cloned().or_else(|| guess.kind()).unwrap_or_else(|| {
            empty.push(name.clone());
            DataType::Utf8
        });
        Field::new(name, kind, true)
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    Ok(Found { schema, empty })
}

/// Where the columns are in a file, which has all of them and no others.
fn places(file: &Path, names: &[String], of_file: &[String]) -> Result<Vec<usize>> {
    if let Some(other) = of_file.iter().find(|name| !names.contains(name)) {
        let what = format!(
            "it has a column '{other}', which the first file does not have: write files of other \
             columns by themselves"
        );
        return Err(wrong(file, what));
    }
    let place = |name: &String| {
        of_file.iter().position(|other| other == name).ok_or_else(|| {
            let what = format!(
                "it has no column '{name}', which the first file has: write files of other columns \
                 by themselves"
            );
            wrong(file, what)
        })
    };
    names.iter().map(place).collect()
}

pub(super) fn read(
    file: &Path,
    delimiter: u8,
    schema: &SchemaRef,
    send: &mut Taker<'_>,
) -> Result<()> {
    let mut records = Records::open(file, delimiter)?;
    let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
    let places = places(file, &names, &records.names)?;
    let strings: Vec<bool> =
        schema.fields().iter().map(|f| *f.data_type() == DataType::Utf8).collect();
    let mut record = Record::default();
    loop {
        let mut columns: Vec<StringBuilder> = places.iter().map(|_| StringBuilder::new()).collect();
        let mut lines = Vec::new();
        while lines.len() < BATCH_ROWS && records.next(&mut record)? {
            for ((column, place), string) in columns.iter_mut().zip(&places).zip(&strings) {
                let value = record.value(file, *place)?;
                let quoted = record.quoted.get(*place).copied().unwrap_or(false);
                column.append_option((!value.is_empty() || quoted && *string).then_some(value));
            }
            lines.push(record.line);
        }
        if lines.is_empty() {
            return Ok(());
        }
        let arrays: Vec<ArrayRef> =
            columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect();
        let batch = fitted(schema, &arrays, lines.len()).map_err(|misfit| {
            match misfit.row.and_then(|row| lines.get(row)) {
                Some(line) => wrong_at(file, "line", *line, misfit),
                None => wrong(file, misfit),
            }
        })?;
        if !send(batch) {
            return Ok(());
        }
    }
}
