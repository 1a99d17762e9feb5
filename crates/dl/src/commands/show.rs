//! `dl show`

use std::fmt::Write;

use clap::Args;
use deltalakedb::core::action::Protocol;
use deltalakedb::core::ids::{TableRef, Version};
use deltalakedb::core::model::{MirrorMode, Snapshot, TableState};
use deltalakedb::core::schema::{DataType, StructType};
use deltalakedb::view::{FeaturesView, SnapshotView};

use super::target::AtArguments;
use crate::context::Context;
use crate::failure::Result;
use crate::output::{count, one_line, pairs, size};
use crate::time;

/// Arguments of `dl show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dl show sales.orders
  dl show sales.orders --at 2026-01-31       as it was then
  dl show sales.orders --format json | jq .schema
  dl show delta+sql://sqlite:///lake/catalog.db/sales.orders")]
pub(crate) struct Show {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    #[command(flatten)]
    at: AtArguments,
}

impl Show {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        self.at.at()?;
        let (db, table) = context.table(&self.table).await?;
        let snapshot = self.at.snapshot(&db, &table).await?;
        let shown = SnapshotView::look(&db, &snapshot).await?;
        if context.out.is_json() {
            return context.out.document(&shown);
        }
        let frozen = db.catalog().frozen(&snapshot).await?;
        let record = db.catalog().table(&TableRef::Id(snapshot.table.id)).await?;
        let metadata = &snapshot.metadata;
        let head = record.head.unwrap_or(snapshot.version);
        let mut rows: Vec<(&str, String)> = vec![
            ("Table", record.name.to_string()),
            ("Id", record.id.to_string()),
            ("Location", record.location.clone()),
        ];
        if record.state == TableState::Dropped {
            let when = record.dropped_at.map(time::show).unwrap_or_default();
            rows.push(("State", format!("dropped {when} UTC (`dl undrop {}`)", record.id)));
        }
        if let Some(frozen) = &frozen {
            let details = one_line(&frozen.details());
            rows.push(("Frozen", format!("{details} (`dl unfreeze {}`)", record.name)));
        }
        if let Some(description) = &metadata.description {
            rows.push(("Description", one_line(description)));
        }
        rows.push(("Version", version_line(&snapshot, head)));
        rows.push((
            "Files",
            format!("{}, {}", count(snapshot.num_files), size(snapshot.size_bytes)),
        ));
        let index = &shown.skipping_index;
        if index.segments > 0 {
            let files = count(u64::try_from(index.files).unwrap_or(0));
            rows.push(("Indexed", format!("{files} files, in {} segments", index.segments)));
        }
        let published = match (record.mirror, record.published_version) {
            (MirrorMode::Off, _) => "off: commits stay in the catalog".to_owned(),
            (MirrorMode::Diverged, published) => format!(
                "DIVERGED after version {}: a foreign commit stands in the log (`dl mirror status {}`)",
                published.map_or_else(|| "-".to_owned(), |v| v.to_string()),
                record.name
            ),
            (MirrorMode::Active, published) if published == record.head => {
                "published up to the head".to_owned()
            }
            (MirrorMode::Active, published) => format!(
                "published up to {} (`dl mirror status {}`)",
                published.map_or_else(|| "nothing".to_owned(), |v| format!("version {v}")),
                record.name
            ),
        };
        rows.push(("Mirror", published));
        rows.push(("Protocol", protocol_line(&snapshot.protocol)));
        rows.extend(features_lines(&snapshot));
        if !metadata.partition_columns.is_empty() {
            rows.push(("Partitioned by", one_line(&metadata.partition_columns.join(", "))));
        }
        if !shown.properties.is_empty() {
            let lines: Vec<String> = shown
                .properties
                .iter()
                .map(|(key, value)| one_line(&format!("{key} = {value}")))
                .collect();
            rows.push(("Properties", lines.join("\n")));
        }
        for txn in &shown.app_transactions {
            rows.push(("Application", one_line(&format!("{} at {}", txn.app_id, txn.version))));
        }
        for domain in &shown.domain_metadata {
            rows.push((
                "Domain",
                one_line(&format!("{} = {}", domain.domain, domain.configuration)),
            ));
        }
        context.out.text(pairs(&rows))?;
        context.out.text(match StructType::parse(&metadata.schema_string) {
            Ok(schema) => format!("Schema\n{}", tree(&schema).trim_end()),
            Err(error) => format!(
                "Schema that cannot be read ({error})\n{}",
                one_line(&metadata.schema_string)
            ),
        })
    }
}

fn version_line(snapshot: &Snapshot, head: Version) -> String {
    let mut text = format!("{} ({} UTC)", snapshot.version, time::show(snapshot.timestamp));
    if snapshot.version < head {
        let _ = write!(text, "; the head is {head}");
    }
    if snapshot.table.base_version > Version::ZERO {
        let _ = write!(text, "; readable from {}", snapshot.table.base_version);
    }
    text
}

fn protocol_line(protocol: &Protocol) -> String {
    format!("reader {}, writer {}", protocol.min_reader_version, protocol.min_writer_version)
}

fn features_lines(snapshot: &Snapshot) -> Vec<(&'static str, String)> {
    let features = FeaturesView::from(snapshot);
    let mut rows = Vec::new();
    if !features.reader.is_empty() {
        rows.push(("Reader features", one_line(&features.reader.join(", "))));
    }
    if !features.writer.is_empty() {
        rows.push(("Writer features", one_line(&features.writer.join(", "))));
    }
    let mut active = Vec::new();
    for (on, name) in [
        (features.append_only, "append-only"),
        (features.in_commit_timestamps, "in-commit timestamps"),
        (features.fence, "foreign writers kept out"),
        (features.column_mapping, "column mapping"),
    ] {
        if on {
            active.push(name);
        }
    }
    if !active.is_empty() {
        rows.push(("In force", active.join(", ")));
    }
    rows
}

/// The schema, a field a line, nested ones indented.
fn tree(schema: &StructType) -> String {
    fn fields(text: &mut String, indent: usize, schema: &StructType) {
        for field in &schema.fields {
            let null = if field.nullable { "" } else { " not null" };
            line(text, indent, &field.name, &field.data_type, null);
        }
    }
    fn line(text: &mut String, indent: usize, name: &str, data_type: &DataType, null: &str) {
        let kind = match data_type {
            DataType::Struct(_) => "struct".to_owned(),
            DataType::Array { element, .. } if is_nested(element) => "array".to_owned(),
            DataType::Map { key, value, .. } if is_nested(key) || is_nested(value) => {
                "map".to_owned()
            }
            other => other.to_string(),
        };
        let _ = writeln!(text, "{:indent$}{} {kind}{null}", "", one_line(name));
        let indent = indent + 2;
        match data_type {
            DataType::Struct(inner) => fields(text, indent, inner),
            DataType::Array { element, .. } if is_nested(element) => {
                line(text, indent, "[element]", element, "");
            }
            DataType::Map { key, value, .. } if is_nested(key) || is_nested(value) => {
                line(text, indent, "[key]", key, "");
                line(text, indent, "[value]", value, "");
            }
            _ => {}
        }
    }
    let mut text = String::new();
    fields(&mut text, 2, schema);
    text
}

fn is_nested(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Struct(_) | DataType::Array { .. } | DataType::Map { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_a_tree() {
        let schema = StructType::from_text(
            "id long not null, tags array<string>, at map<string,array<struct<x:double>>>",
        )
        .unwrap();
        assert_eq!(
            tree(&schema),
            "  id long not null\n  tags array<string>\n  at map\n    [key] string\n    \
             [value] array\n      [element] struct\n        x double\n"
        );
    }
}
