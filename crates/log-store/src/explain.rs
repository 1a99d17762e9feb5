//! Errors of the query engine and of `deltalake` in words for the people who asked.
//!
//! They come through several layers, each of which adds its name, a trace or the address of its issue
//! tracker; paths are those of a scan, not of the table. What is left says what is wrong, where, and what
//! to write instead.

use std::error::Error;

use deltalake::DeltaTableError;
use deltalake::arrow::error::ArrowError;
use deltalake::datafusion::common::{Column, SchemaError};
use deltalake::datafusion::error::DataFusionError;
use deltalake::datafusion::logical_expr::LogicalPlan;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::TableName;

use crate::sql::table_of;

/// What went wrong.
#[derive(Debug)]
pub enum Explained {
    /// Of the catalog: its own error.
    Catalog(CatalogError),
    /// Of the engine: a sentence.
    Engine(String),
}

/// An error of a query.
#[must_use]
pub fn query(error: DataFusionError) -> Explained {
    match catalog_error(error) {
        Ok(error) => Explained::Catalog(error),
        Err(error) => Explained::Engine(engine_text(&error)),
    }
}

/// An error while the rows of a query over these tables are read ([`tables`]).
#[must_use]
pub fn rows(tables: &[String], error: DataFusionError) -> Explained {
    match query(error) {
        // A file's path says which table it is of.
        Explained::Engine(text) if !tables.is_empty() && !text.starts_with("table '") => {
            Explained::Engine(format!("{text} (reading {})", tables.join(", ")))
        }
        other => other,
    }
}

/// The tables of a plan with their versions, for messages.
#[must_use]
pub fn tables(plan: &LogicalPlan) -> Vec<String> {
    use deltalake::datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    let mut tables = Vec::new();
    let seen = plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(snapshot) = table_of(scan)
        {
            let table = format!("'{}' at version {}", snapshot.table.name, snapshot.version);
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if seen.is_err() {
        tables.clear();
    }
    tables
}

/// An error of an operation on a table.
#[must_use]
pub fn operation(table: &TableName, error: DeltaTableError) -> Explained {
    let error = match error {
        DeltaTableError::GenericError { source } => match source.downcast::<CatalogError>() {
            Ok(error) => return Explained::Catalog(*error),
            Err(source) => match source.downcast::<DataFusionError>() {
                Ok(error) => match query(*error) {
                    Explained::Engine(text) => return named(table, text),
                    catalog @ Explained::Catalog(_) => return catalog,
                },
                Err(source) => DeltaTableError::GenericError { source },
            },
        },
        other => other,
    };
    named(table, delta_text(&error))
}

fn named(table: &TableName, text: String) -> Explained {
    let prefix = format!("table '{table}'");
    Explained::Engine(if text.starts_with(&prefix) { text } else { format!("{prefix}: {text}") })
}

/// The catalog's own error, if it is one.
fn catalog_error(error: DataFusionError) -> Result<CatalogError, DataFusionError> {
    match error {
        DataFusionError::External(source) => match source.downcast::<CatalogError>() {
            Ok(error) => Ok(*error),
            Err(source) => Err(DataFusionError::External(source)),
        },
        DataFusionError::Diagnostic(_, inner) => catalog_error(*inner),
        DataFusionError::Context(what, inner) => {
            catalog_error(*inner).map_err(|inner| DataFusionError::Context(what, Box::new(inner)))
        }
        other => Err(other),
    }
}

fn engine_text(error: &DataFusionError) -> String {
    match error {
        // What else stands there are names of the engine's rules.
        DataFusionError::Context(what, inner) if what.starts_with("table '") => {
            format!("{what}: {}", engine_text(inner))
        }
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            engine_text(inner)
        }
        DataFusionError::Shared(inner) => engine_text(inner),
        DataFusionError::Collection(errors) => {
            errors.first().map_or_else(|| cleaned(&error.strip_backtrace()), engine_text)
        }
        DataFusionError::External(source) => source_text(source.as_ref()),
        DataFusionError::SchemaError(error, _) => schema_text(error),
        DataFusionError::ArrowError(error, _) => arrow_text(error),
        DataFusionError::SQL(error, _) => {
            format!("bad SQL: {}", cleaned(&error.to_string()))
        }
        DataFusionError::Plan(text)
        | DataFusionError::Execution(text)
        | DataFusionError::Internal(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Configuration(text)
        | DataFusionError::ResourcesExhausted(text) => cleaned(text),
        other => cleaned(&other.strip_backtrace()),
    }
}

fn source_text(source: &(dyn Error + 'static)) -> String {
    if let Some(error) = source.downcast_ref::<DataFusionError>() {
        engine_text(error)
    } else if let Some(error) = source.downcast_ref::<DeltaTableError>() {
        delta_text(error)
    } else if let Some(error) = source.downcast_ref::<ArrowError>() {
        arrow_text(error)
    } else {
        cleaned(&source.to_string())
    }
}

fn delta_text(error: &DeltaTableError) -> String {
    match error {
        DeltaTableError::GenericError { source } => source_text(source.as_ref()),
        DeltaTableError::Arrow { source } => arrow_text(source),
        other => cleaned(&other.to_string()),
    }
}

fn arrow_text(error: &ArrowError) -> String {
    match error {
        ArrowError::ExternalError(source) => source_text(source.as_ref()),
        ArrowError::DivideByZero => "division by zero: NULLIF(divisor, 0) makes it null".to_owned(),
        ArrowError::ArithmeticOverflow(text) => {
            format!("a number is out of range: {}", cleaned(text))
        }
        ArrowError::CastError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::ParseError(text)
        | ArrowError::JsonError(text)
        | ArrowError::InvalidArgumentError(text)
        | ArrowError::SchemaError(text) => cleaned(text),
        other => cleaned(&other.to_string()),
    }
}

/// Columns that a message lists.
const MOST_COLUMNS: usize = 40;

fn schema_text(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let wanted = written(field);
            let ours = |column: &&Column| !column.name.starts_with("__delta_rs");
            let known: Vec<&Column> = valid_fields.iter().filter(ours).collect();
            let near: Vec<String> = known
                .iter()
                .filter(|column| column.name.eq_ignore_ascii_case(&field.name))
                .filter(|column| column.name != field.name)
                .map(|column| written(column))
                .collect();
            if !near.is_empty() {
                return format!(
                    "there is no column {wanted}; upper and lower case differ: write {}",
                    near.join(", or ")
                );
            }
            let mut names: Vec<String> =
                known.iter().take(MOST_COLUMNS).map(|column| written(column)).collect();
            if known.len() > MOST_COLUMNS {
                names.push("…".to_owned());
            }
            if names.is_empty() {
                return format!(
                    "there is no column {wanted} here; text is written 'in single quotes'"
                );
            }
            format!("there is no column {wanted}, only {}", names.join(", "))
        }
        SchemaError::AmbiguousReference { field } => format!(
            "column {} is in more than one of the tables: write the table's name before it, as in \
             t.{0}",
            written(field)
        ),
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            format!("there are two columns {name}: give one of them another name with AS")
        }
    }
}

/// A column as it is written in a query: quoted where it must be.
fn written(column: &Column) -> String {
    let part = |name: &str| {
        let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
    };
    let name = part(&column.name);
    match &column.relation {
        // Names that operations give their plans.
        Some(table) if !matches!(table.table(), "?table?" | "files_scan") => {
            let table: Vec<String> = table.to_vec().iter().map(|name| part(name)).collect();
            format!("{}.{name}", table.join("."))
        }
        _ => name,
    }
}

/// What layers put before an error's text.
const LAYERS: [&str; 28] = [
    "Arrow error: ",
    "Cast error: ",
    "Compute error: ",
    "Csv error: ",
    "DataFusion error: ",
    "Error during planning: ",
    "Execution error: ",
    "External error: ",
    "External: ",
    "Failed to convert into Arrow schema: ",
    "Failed to parse parquet: ",
    "Failed to parse: ",
    "Generic DeltaTable error: ",
    "Generic error: ",
    "Internal error: ",
    "Invalid argument error: ",
    "Json error: ",
    "Kernel error: ",
    "Kernel: ",
    "Object Store error: ",
    "Object store error: ",
    "Optimizer rule 'simplify_expressions' failed\ncaused by\n",
    "Parquet argument error: ",
    "Parquet error: ",
    "Parser error: ",
    "Schema error: ",
    "Z-order failed while scanning data: ",
    "sql parser error: ",
];

/// Where the engine asks for a report of its own bugs.
const REPORT: &str = "This issue was likely caused by a bug in DataFusion's code.";

/// An error's text without layers, traces, and requests to report it elsewhere.
fn cleaned(text: &str) -> String {
    let text = text.split("\n\nbacktrace: ").next().unwrap_or(text);
    // Which signatures failed one by one says less than which there are.
    if let Some(at) = text.find("No function matches the given name") {
        return text[at..].replace("Utf8View", "string").replace("Utf8", "string");
    }
    let mut text = text.replace("Utf8View", "string");
    if let Some(at) = text.find(REPORT) {
        let rest = text[at..].find("/issues").map_or("", |end| {
            let rest = &text[at + end + "/issues".len()..];
            rest.strip_prefix('.').unwrap_or(rest)
        });
        text = format!("{}{rest}", text[..at].trim_end());
    }
    let text = without_layers(&text);
    file_text(text).unwrap_or_else(|| text.to_owned())
}

fn without_layers(text: &str) -> &str {
    let mut text = text.trim();
    while let Some(inner) = LAYERS.iter().find_map(|layer| text.strip_prefix(layer)) {
        text = inner.trim_start();
    }
    text
}

/// An error about a data file: which one of which table.
fn file_text(text: &str) -> Option<String> {
    const FILE: &str = "Failed to fetch metadata for file ";
    const MISSING: &str = "Object at location ";
    let (path, why) = match text.strip_prefix(FILE) {
        Some(rest) => {
            let (path, why) = rest.split_once(": ")?;
            (path, without_layers(why))
        }
        None => ("", text),
    };
    let place = why.strip_prefix(MISSING).and_then(|why| why.split_once(" not found"));
    let (why, missing) = match place {
        Some((place, _)) => (place, true),
        None if why.contains("Requested range was invalid") => {
            ("it is too short to be a Parquet file", false)
        }
        None => (why, false),
    };
    if path.is_empty() && !missing {
        return None;
    }
    let (table, path) = of_scan(path);
    let table = table.map_or_else(String::new, |table| format!("table '{table}': "));
    Some(if missing {
        format!(
            "{table}data file {why} is not there. Restore it, or query an older version that does \
             not need it (VERSION AS OF)"
        )
    } else {
        format!("{table}data file {path} is damaged: {why}. Restore it from a copy")
    })
}

/// A path in a scan: the table that the scan names, and the file's path in it.
fn of_scan(path: &str) -> (Option<&str>, &str) {
    let Some((folder, file)) = path.split_once('/') else { return (None, path) };
    let (table, scan) = match folder.rsplit_once('@') {
        Some((table, scan)) => (Some(table), scan),
        None => (None, folder),
    };
    let of_scan = scan.len() == 32 && scan.bytes().all(|b| b.is_ascii_hexdigit());
    if of_scan { (table, file) } else { (None, path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_traces_and_trackers_are_left_out() {
        for (text, want) in [
            ("Generic DeltaTable error: Arrow error: Cast error: no", "no"),
            (
                "Error during planning: no such thing\n\nbacktrace:    0: std::backtrace",
                "no such thing",
            ),
            (
                "Internal error: odd.\nThis issue was likely caused by a bug in DataFusion's code. Please \
                 help us to resolve this by filing a bug report in our issue tracker: \
                 https://github.com/apache/datafusion/issues",
                "odd.",
            ),
            (
                "Parquet error: Parquet error: Failed to fetch metadata for file \
                 s.t@a97f8c63db9341ed98a8412e482a4483/p=1/x.parquet: Object Store error: Generic \
                 LocalFileSystem error: Requested range was invalid",
                "table 's.t': data file p=1/x.parquet is damaged: it is too short to be a Parquet file. \
                 Restore it from a copy",
            ),
            (
                "Parquet error: Failed to fetch metadata for file s.t/x.parquet: Object Store error: \
                 Object at location /lake/t/x.parquet not found: No such file or directory (os error 2)",
                "data file /lake/t/x.parquet is not there. Restore it, or query an older version that \
                 does not need it (VERSION AS OF)",
            ),
        ] {
            assert_eq!(cleaned(text), want);
        }
    }

    #[test]
    fn columns_are_named_as_they_are_written() {
        let not_found = |name: &str| {
            schema_text(&SchemaError::FieldNotFound {
                field: Box::new(Column::from_name(name)),
                valid_fields: vec![
                    Column::new(Some("?table?"), "Id"),
                    Column::new(Some("t"), "a b"),
                    Column::from_name("__delta_rs_path"),
                ],
            })
        };
        assert_eq!(not_found("ID"), "there is no column ID; upper and lower case differ: write Id");
        assert_eq!(not_found("x"), "there is no column x, only Id, t.\"a b\"");
    }
}
