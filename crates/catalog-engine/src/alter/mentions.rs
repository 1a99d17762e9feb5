//! Which texts of a table mention a column.

use serde_json::Value;

use super::Work;
use crate::schema::StructType;
use deltalakedb_catalog_core::error::{CatalogError, Result};

/// Prefix of the properties that hold CHECK constraints.
pub(super) const CONSTRAINTS: &str = "delta.constraints.";
/// Property that lists the columns with statistics.
const STATISTICS: &str = "delta.dataSkippingStatsColumns";
/// Domain that lists the clustering columns, by their physical names.
const CLUSTERING: &str = "delta.clustering";

/// Whether an expression may mention a column: whether its name stands in it as a word, or at all where it is no
/// word. A text in quotes counts, too.
pub(super) fn mentions(expression: &str, name: &str) -> bool {
    let (expression, name) = (expression.to_lowercase(), name.to_lowercase());
    let word = |c: char| c.is_alphanumeric() || c == '_';
    if !name.chars().all(word) {
        return expression.contains(&name) || expression.contains(&name.replace('`', "``"));
    }
    expression.split(|c| !word(c)).any(|part| part == name)
}

impl Work<'_> {
    /// Refuses to rename or drop a column that something mentions. `verb` as in "cannot be dropped".
    pub(super) fn refuse_mentioned(&self, column: &[String], verb: &str) -> Result<()> {
        let Some(top) = column.first() else { return Ok(()) };
        let shown = column.join(".");
        let refuse = |what: String| {
            Err(CatalogError::invalid(format!("column '{shown}' cannot be {verb}: {what}")))
        };
        for (key, value) in &self.metadata.configuration {
            let Some(value) = value.as_deref() else { continue };
            let prefix = key.get(..CONSTRAINTS.len());
            if prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(CONSTRAINTS)) {
                let name = &key[CONSTRAINTS.len()..];
                if mentions(value, top) {
                    return refuse(format!(
                        "the constraint '{name}' ({value}) mentions it. Drop the constraint first"
                    ));
                }
            } else if key == STATISTICS && mentions(value, top) {
                return refuse(format!(
                    "the property {STATISTICS}={value} mentions it. Change the property first"
                ));
            }
        }
        let mut found = None;
        self.schema.visit_fields(&mut |path, field| {
            for key in ["delta.generationExpression", "delta.invariants"] {
                let text = match field.metadata.get(key) {
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => continue,
                };
                // Its own expression goes with it.
                let own = verb == "dropped" && path == shown;
                if !own && mentions(&text, top) {
                    found.get_or_insert((path.to_owned(), key));
                }
            }
            Ok(())
        })?;
        match found {
            Some((path, key)) => {
                refuse(format!("the expression of column '{path}' ({key}) mentions it"))
            }
            None => Ok(()),
        }
    }

    /// Refuses to drop a column that the table is clustered by.
    pub(super) fn refuse_clustered(&self, column: &[String]) -> Result<()> {
        let domain = self.domains.iter().find(|d| d.domain == CLUSTERING && !d.removed);
        let Some(domain) = domain else { return Ok(()) };
        let physical = physical_path(&self.schema, column);
        let clustered: Option<Vec<Vec<String>>> =
            serde_json::from_str::<Value>(&domain.configuration).ok().and_then(|value| {
                serde_json::from_value(value.get("clusteringColumns")?.clone()).ok()
            });
        let hit = match clustered {
            Some(columns) => columns.iter().any(|c| c.starts_with(&physical)),
            // Nobody here can read it: any column may be in it.
            None => true,
        };
        if hit {
            return Err(CatalogError::invalid(format!(
                "column '{}' cannot be dropped: the table is clustered by it",
                column.join(".")
            )));
        }
        Ok(())
    }
}

/// The names of a column in files.
fn physical_path(schema: &StructType, column: &[String]) -> Vec<String> {
    match schema.resolve(column) {
        Ok(fields) => fields.iter().map(|field| field.physical_name().to_owned()).collect(),
        Err(_) => column.to_vec(),
    }
}
