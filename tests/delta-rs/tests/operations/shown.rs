//! Rows as text, to be compared.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// A line for each row, sorted: its values, with `|` between them. A null is not an empty string.
pub(crate) fn lines(batches: &[RecordBatch]) -> Result<Vec<String>, ArrowError> {
    let options = FormatOptions::default().with_null("∅");
    let mut lines = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter();
        let columns: Vec<ArrayFormatter> = columns
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let values = columns.iter().map(|column| column.value(row).try_to_string());
            lines.push(values.collect::<Result<Vec<_>, _>>()?.join("|"));
        }
    }
    lines.sort_unstable();
    Ok(lines)
}
