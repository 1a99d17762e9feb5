//! Changes of a table's metadata: columns, properties, constraints, descriptions. From the protocol and the metadata
//! in force to those that are to be committed, with the operation as Spark's history names it.
//!
//! Nothing here talks to a database. What a change needs of the table's files, [`Altered::checks_rows`] says.
//!
//! 1. No change makes a file that is there unreadable. Columns are renamed and dropped under column mapping
//!    only, where files know them by other names (protocol section "Column Mapping").
//! 2. Whatever mentions a column keeps it from being renamed or dropped: constraints, generated columns,
//!    invariants, lists of columns in properties, clustering. In doubt a text mentions a column.
//! 3. A property brings the feature that it needs into the protocol. One that nobody here knows, or whose
//!    feature this writer does not have, is refused by its name.

mod columns;
mod mapping;
mod mentions;
mod properties;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::features;
use crate::schema::{DataType, StructType};
use deltalakedb_catalog_core::action::{DomainMetadata, Metadata, Protocol};
use deltalakedb_catalog_core::error::{CatalogError, Result};

/// One change of a table's metadata. Columns are named by their path: `["addr", "zip"]`; elements of arrays are
/// `element`, keys and values of maps `key` and `value`.
#[derive(Debug, Clone, PartialEq)]
pub enum Alteration {
    /// What the table holds; none takes the description away.
    Description(Option<String>),
    /// A table property.
    SetProperty {
        /// Key.
        key: String,
        /// Value.
        value: String,
    },
    /// No property of this key any more.
    UnsetProperty {
        /// Key.
        key: String,
    },
    /// What a column holds; none takes the comment away.
    Comment {
        /// Column.
        column: Vec<String>,
        /// Comment.
        text: Option<String>,
    },
    /// A new column, which is null in all rows that there are.
    AddColumn {
        /// Struct that it goes to; empty for the table itself.
        parent: Vec<String>,
        /// Name.
        name: String,
        /// Type.
        data_type: DataType,
        /// Comment.
        comment: Option<String>,
    },
    /// Another name for a column.
    RenameColumn {
        /// Column.
        column: Vec<String>,
        /// Its last part from now on.
        name: String,
    },
    /// A column less.
    DropColumn {
        /// Column.
        column: Vec<String>,
    },
    /// A column may be null from now on.
    SetNullable {
        /// Column.
        column: Vec<String>,
    },
    /// A condition that each row must keep.
    AddConstraint {
        /// Name.
        name: String,
        /// SQL expression.
        expression: String,
    },
    /// A constraint less.
    DropConstraint {
        /// Name.
        name: String,
    },
}

/// What a table is before a change.
#[derive(Debug, Clone, Copy)]
pub struct AlterBase<'a> {
    /// Protocol in force.
    pub protocol: &'a Protocol,
    /// Metadata in force.
    pub metadata: &'a Metadata,
    /// Domain metadata in force.
    pub domains: &'a [DomainMetadata],
}

/// What a table is after a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Altered {
    /// The protocol, if it is another one.
    pub protocol: Option<Protocol>,
    /// The metadata.
    pub metadata: Metadata,
    /// Name of the operation, as Spark calls it; `ALTER TABLE` for changes of several kinds.
    pub operation: &'static str,
    /// `operationParameters`, as Spark writes them.
    pub parameters: Map<String, Value>,
    /// Whether rows must be looked at: each of the table's, and all that others add meanwhile. A constraint was added.
    pub checks_rows: bool,
}

impl Altered {
    /// Whether it changes anything.
    #[must_use]
    pub fn changes(&self, base: &AlterBase<'_>) -> bool {
        self.protocol.is_some() || self.metadata != *base.metadata
    }
}

/// A step of the history: an operation and its parameters.
struct Step {
    operation: &'static str,
    parameters: Map<String, Value>,
}

impl Step {
    fn new(operation: &'static str, parameters: Value) -> Step {
        let parameters = match parameters {
            Value::Object(parameters) => parameters,
            _ => Map::new(),
        };
        Step { operation, parameters }
    }
}

/// A table while it is changed.
struct Work<'a> {
    protocol: Protocol,
    metadata: Metadata,
    schema: StructType,
    domains: &'a [DomainMetadata],
    uuid: &'a mut dyn FnMut() -> Uuid,
    checks_rows: bool,
}

impl Work<'_> {
    /// Adds a feature to the protocol, if it is not there.
    fn need(&mut self, feature: &str) -> Result<()> {
        self.protocol = features::with_feature(&self.protocol, feature)?;
        Ok(())
    }

    fn mapped(&self) -> bool {
        features::column_mapping_enabled(&self.metadata)
    }
}

/// Makes changes, in this order. `uuid` gives names to columns in files, where the table maps columns.
///
/// # Errors
/// `InvalidInput` for a change that does not fit the table; `Unsupported` for one whose feature cannot be had here, and
/// for a table with a feature that this writer does not have. Each names the column, the property or the constraint.
pub fn alter(
    base: &AlterBase<'_>,
    changes: &[Alteration],
    uuid: &mut dyn FnMut() -> Uuid,
) -> Result<Altered> {
    features::check_commit(base.protocol, base.metadata)?;
    let mut work = Work {
        protocol: base.protocol.clone(),
        metadata: base.metadata.clone(),
        schema: StructType::parse(&base.metadata.schema_string)?,
        domains: base.domains,
        uuid,
        checks_rows: false,
    };
    let before = work.schema.clone();
    let mut steps: Vec<Step> = Vec::new();
    for change in changes {
        let step = work.apply(change)?;
        let joined = steps.last_mut().is_some_and(|last| join(last, &step));
        if !joined {
            steps.push(step);
        }
    }
    if work.schema != before {
        work.metadata.schema_string = work.schema.to_json();
    }
    features::check_commit(&work.protocol, &work.metadata)?;
    let (operation, parameters) = match steps.as_slice() {
        [] => return Err(CatalogError::invalid("there is nothing to change in the table")),
        [one] => (one.operation, one.parameters.clone()),
        several => {
            let all: Vec<Value> = several
                .iter()
                .map(|step| {
                    json!({ "operation": step.operation, "operationParameters": step.parameters })
                })
                .collect();
            let mut parameters = Map::new();
            parameters.insert("changes".to_owned(), Value::String(Value::Array(all).to_string()));
            ("ALTER TABLE", parameters)
        }
    };
    Ok(Altered {
        protocol: (work.protocol != *base.protocol).then_some(work.protocol),
        metadata: work.metadata,
        operation,
        parameters,
        checks_rows: work.checks_rows,
    })
}

/// Puts a step into the one before it, where Spark has one operation for both.
fn join(last: &mut Step, step: &Step) -> bool {
    if last.operation != step.operation {
        return false;
    }
    let key = match step.operation {
        "SET TBLPROPERTIES" | "UNSET TBLPROPERTIES" => "properties",
        "ADD COLUMNS" | "DROP COLUMNS" => "columns",
        _ => return false,
    };
    let text = |step: &Step| step.parameters.get(key).and_then(Value::as_str).map(str::to_owned);
    let (Some(a), Some(b)) = (text(last), text(step)) else { return false };
    let joined = match (serde_json::from_str(&a), serde_json::from_str(&b)) {
        (Ok(Value::Array(mut a)), Ok(Value::Array(b))) => {
            a.extend(b);
            Value::Array(a)
        }
        (Ok(Value::Object(mut a)), Ok(Value::Object(b))) => {
            a.extend(b);
            Value::Object(a)
        }
        _ => return false,
    };
    last.parameters.insert(key.to_owned(), Value::String(joined.to_string()));
    true
}

impl Work<'_> {
    fn apply(&mut self, change: &Alteration) -> Result<Step> {
        match change {
            Alteration::Description(text) => {
                self.metadata.description.clone_from(text);
                let properties = json!({ "comment": text.as_deref().unwrap_or_default() });
                Ok(Step::new("SET TBLPROPERTIES", json!({ "properties": properties.to_string() })))
            }
            Alteration::SetProperty { key, value } => self.set_property(key, value),
            Alteration::UnsetProperty { key } => self.unset_property(key),
            Alteration::Comment { column, text } => self.comment(column, text.as_deref()),
            Alteration::AddColumn { parent, name, data_type, comment } => {
                self.add_column(parent, name, data_type, comment.as_deref())
            }
            Alteration::RenameColumn { column, name } => self.rename_column(column, name),
            Alteration::DropColumn { column } => self.drop_column(column),
            Alteration::SetNullable { column } => self.set_nullable(column),
            Alteration::AddConstraint { name, expression } => self.add_constraint(name, expression),
            Alteration::DropConstraint { name } => self.drop_constraint(name),
        }
    }
}
