//! Predicates over a table's rows, and which files they rule out.
//!
//! A predicate is built without knowing the table; [`Pruner::new`] types it against a schema.
//! Values compare as in Spark SQL: comparisons with null are neither true nor false, strings
//! compare by their UTF-8 bytes, NaN equals itself and is greater than every number, and -0.0
//! equals 0.0. Timestamps without a zone are read as UTC.
//!
//! Pruning is one-sided: a file that holds a matching row is never ruled out, whatever its
//! statistics leave out, round or truncate (protocol section "Per-file Statistics").

mod bound;
pub(crate) mod facts;
mod partition;
pub(crate) mod value;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::features::column_mapping_enabled;
use crate::schema::{DataType, StructField, StructType};
pub(crate) use bound::Bound;
use deltalakedb_catalog_core::action::{Add, Metadata};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use facts::{Facts, Stats, partition_facts, stats_facts};
use partition::PartitionType;
pub use partition::PartitionValue;
use value::{Kind, Value};

/// A column by its logical name, nested fields one part each: `["addr", "zip"]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColumnPath(pub Vec<String>);

impl ColumnPath {
    /// A top-level column; dots in it are part of the name.
    #[must_use]
    pub fn top(name: impl Into<String>) -> Self {
        ColumnPath(vec![name.into()])
    }
}

impl fmt::Display for ColumnPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// A constant as it was written: its type follows from the column that it is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// `NULL`
    Null,
    /// `TRUE`, `FALSE`
    Boolean(bool),
    /// Digits, with sign, point and exponent as in SQL.
    Number(String),
    /// `'text'`; also a date or time, if the column is one.
    Text(String),
    /// `DATE '2024-01-31'`
    Date(String),
    /// `TIMESTAMP '2024-01-31 12:00:00'`; UTC unless it names an offset.
    Timestamp(String),
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Null => f.write_str("NULL"),
            Literal::Boolean(b) => write!(f, "{b}"),
            Literal::Number(n) => f.write_str(n),
            Literal::Text(t) => write!(f, "'{t}'"),
            Literal::Date(t) => write!(f, "DATE '{t}'"),
            Literal::Timestamp(t) => write!(f, "TIMESTAMP '{t}'"),
        }
    }
}

/// How a column is compared with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    /// `=`
    Eq,
    /// `<>`
    NotEq,
    /// `<`
    Lt,
    /// `<=`
    LtEq,
    /// `>`
    Gt,
    /// `>=`
    GtEq,
}

impl CompareOp {
    /// The operator with its sides swapped: `5 < a` is `a > 5`.
    #[must_use]
    pub const fn swapped(self) -> Self {
        match self {
            CompareOp::Lt => CompareOp::Gt,
            CompareOp::LtEq => CompareOp::GtEq,
            CompareOp::Gt => CompareOp::Lt,
            CompareOp::GtEq => CompareOp::LtEq,
            same => same,
        }
    }
}

/// A condition on rows, in SQL's three-valued logic: a row matches where it is true.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// True or false for every row.
    Always(bool),
    /// All of them; true if empty.
    And(Vec<Predicate>),
    /// Any of them; false if empty.
    Or(Vec<Predicate>),
    /// Not this (null stays null).
    Not(Box<Predicate>),
    /// `column op literal`
    Compare {
        /// Left side.
        column: ColumnPath,
        /// Operator.
        op: CompareOp,
        /// Right side.
        literal: Literal,
    },
    /// `column IN (values)`
    In {
        /// Column.
        column: ColumnPath,
        /// Values; a null among them makes "no" into null.
        values: Vec<Literal>,
    },
    /// `column LIKE 'prefix%'`
    StartsWith {
        /// Column, a string.
        column: ColumnPath,
        /// Prefix.
        prefix: String,
    },
    /// `column IS NULL`
    IsNull(ColumnPath),
}

impl Predicate {
    /// `column op literal`
    #[must_use]
    pub fn compare(column: ColumnPath, op: CompareOp, literal: Literal) -> Self {
        Predicate::Compare { column, op, literal }
    }

    /// `column BETWEEN low AND high`, both included.
    #[must_use]
    pub fn between(column: ColumnPath, low: Literal, high: Literal) -> Self {
        Predicate::And(vec![
            Predicate::compare(column.clone(), CompareOp::GtEq, low),
            Predicate::compare(column, CompareOp::LtEq, high),
        ])
    }

    /// Not this.
    #[must_use]
    pub fn negated(self) -> Self {
        Predicate::Not(Box::new(self))
    }
}

/// A predicate typed against a table: tells which of its files can be left out.
#[derive(Debug, Clone)]
pub struct Pruner {
    columns: Vec<Column>,
    root: Node,
}

/// A column of a table, as its files' metadata knows it. Stored in skipping indexes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    /// Key in `partitionValues` (one part), or path in the statistics.
    pub(crate) physical: Vec<String>,
    /// Of a partition column: its type.
    pub(crate) partition: Option<PartitionType>,
    pub(crate) kind: Kind,
}

impl Column {
    /// A column by the fields that lead to it; none if there are none.
    fn new(fields: &[&StructField], partitions: &[String], mapped: bool) -> Option<Column> {
        let (top, last) = (fields.first()?, fields.last()?);
        let physical =
            |f: &&StructField| if mapped { f.physical_name() } else { &f.name }.to_owned();
        Some(Column {
            physical: fields.iter().map(physical).collect(),
            partition: (fields.len() == 1 && partitions.contains(&top.name))
                .then(|| PartitionType::of(&top.data_type)),
            kind: kind_of(last),
        })
    }

    /// All columns whose values compare: those of the partition first, then in the order of the schema.
    ///
    /// # Errors
    /// `InvalidInput` for a schema that cannot be read.
    pub(crate) fn all(metadata: &Metadata) -> Result<Vec<Column>> {
        fn visit<'s>(
            fields: &'s [StructField],
            path: &mut Vec<&'s StructField>,
            out: &mut dyn FnMut(&[&StructField]),
        ) {
            for field in fields {
                path.push(field);
                match &field.data_type {
                    DataType::Struct(inner) => visit(&inner.fields, path, out),
                    _ => out(path),
                }
                path.pop();
            }
        }
        let schema = StructType::parse(&metadata.schema_string)?;
        let mapped = column_mapping_enabled(metadata);
        let mut columns = Vec::new();
        visit(&schema.fields, &mut Vec::new(), &mut |path| {
            columns.extend(Column::new(path, &metadata.partition_columns, mapped));
        });
        columns.retain(|column| column.kind != Kind::Opaque);
        columns.sort_by_key(|column| column.partition.is_none());
        Ok(columns)
    }
}

#[derive(Debug, Clone)]
enum Node {
    /// What can come out for some row: true, false. (Null never turns into either.)
    Outcome(Outcome),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Leaf {
        column: usize,
        test: Test,
    },
}

#[derive(Debug, Clone)]
enum Test {
    Compare(CompareOp, Value),
    In { values: Vec<Value>, null: bool },
    StartsWith(String),
    IsNull,
}

/// What a condition may come out as for the rows of one file: more than really does is allowed,
/// less is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    can_be_true: bool,
    can_be_false: bool,
}

impl Pruner {
    /// Types a predicate against a table's schema and partitioning.
    ///
    /// # Errors
    /// `InvalidInput` for a column that does not exist (naming those that do), and for a constant
    /// that does not fit its column's type.
    pub fn new(metadata: &Metadata, predicate: &Predicate) -> Result<Pruner> {
        let mut binder = Binder {
            schema: StructType::parse(&metadata.schema_string)?,
            partitions: &metadata.partition_columns,
            mapped: column_mapping_enabled(metadata),
            columns: Vec::new(),
        };
        let root = binder.bind(predicate)?;
        Ok(Pruner { columns: binder.columns, root })
    }

    /// Whether the file may hold a matching row. False only if it certainly does not.
    #[must_use]
    pub fn may_match(&self, add: &Add) -> bool {
        // Statistics are text that must be parsed: only where the partition does not decide. To know
        // more can only rule out more.
        let mut facts: Vec<Facts> = self
            .columns
            .iter()
            .map(|column| {
                column.partition.map_or_else(Facts::unknown, |ty| partition_facts(add, column, ty))
            })
            .collect();
        let can_be_true = self.root.outcome(&facts).can_be_true;
        if !can_be_true || self.partitions_only() {
            return can_be_true;
        }
        let Some(stats) = add.stats.as_deref().and_then(Stats::parse) else { return true };
        for (column, facts) in self.columns.iter().zip(&mut facts) {
            if column.partition.is_none() {
                *facts = stats_facts(&stats, &column.physical, column.kind);
            }
        }
        self.root.outcome(&facts).can_be_true
    }

    /// The columns that it looks at.
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether files of which this is known, in the order of [`Pruner::columns`], may hold a matching
    /// row.
    pub(crate) fn may_match_facts(&self, facts: &[Facts]) -> bool {
        self.root.outcome(facts).can_be_true
    }

    /// Whether it looks at partition values only, so that it selects whole files exactly.
    #[must_use]
    pub fn partitions_only(&self) -> bool {
        self.columns.iter().all(|column| column.partition.is_some())
    }
}

impl Node {
    fn outcome(&self, facts: &[Facts]) -> Outcome {
        match self {
            Node::Outcome(outcome) => *outcome,
            Node::And(nodes) => nodes.iter().map(|n| n.outcome(facts)).fold(
                Outcome { can_be_true: true, can_be_false: false },
                |a, b| Outcome {
                    can_be_true: a.can_be_true && b.can_be_true,
                    can_be_false: a.can_be_false || b.can_be_false,
                },
            ),
            Node::Or(nodes) => nodes.iter().map(|n| n.outcome(facts)).fold(
                Outcome { can_be_true: false, can_be_false: true },
                |a, b| Outcome {
                    can_be_true: a.can_be_true || b.can_be_true,
                    can_be_false: a.can_be_false && b.can_be_false,
                },
            ),
            Node::Not(node) => {
                let inner = node.outcome(facts);
                Outcome { can_be_true: inner.can_be_false, can_be_false: inner.can_be_true }
            }
            Node::Leaf { column, test } => match facts.get(*column) {
                Some(facts) => facts.outcome(test),
                None => Outcome { can_be_true: true, can_be_false: true },
            },
        }
    }
}

impl Facts {
    fn outcome(&self, test: &Test) -> Outcome {
        if let Test::IsNull = test {
            return Outcome { can_be_true: self.may_be_null, can_be_false: self.may_be_set };
        }
        if !self.may_be_set {
            // Every row is null: every test of it is, too.
            return Outcome { can_be_true: false, can_be_false: false };
        }
        let (can_be_true, can_be_false) = match test {
            Test::IsNull => (true, true),
            Test::Compare(op, v) => match op {
                CompareOp::Eq => (self.may_equal(v), self.may_differ(v)),
                CompareOp::NotEq => (self.may_differ(v), self.may_equal(v)),
                CompareOp::Lt => (self.may_be_below(v), self.may_be_at_least(v)),
                CompareOp::LtEq => (self.may_be_at_most(v), self.may_be_above(v)),
                CompareOp::Gt => (self.may_be_above(v), self.may_be_at_most(v)),
                CompareOp::GtEq => (self.may_be_at_least(v), self.may_be_below(v)),
            },
            Test::In { values, null } => (
                values.iter().any(|v| self.may_equal(v)),
                !null && values.iter().all(|v| self.may_differ(v)),
            ),
            Test::StartsWith(prefix) => self.may_start_with(prefix),
        };
        Outcome { can_be_true, can_be_false }
    }
}

struct Binder<'a> {
    schema: StructType,
    partitions: &'a [String],
    mapped: bool,
    columns: Vec<Column>,
}

impl Binder<'_> {
    fn bind(&mut self, predicate: &Predicate) -> Result<Node> {
        Ok(match predicate {
            Predicate::Always(value) => {
                Node::Outcome(Outcome { can_be_true: *value, can_be_false: !*value })
            }
            Predicate::And(list) => {
                Node::And(list.iter().map(|p| self.bind(p)).collect::<Result<_>>()?)
            }
            Predicate::Or(list) => {
                Node::Or(list.iter().map(|p| self.bind(p)).collect::<Result<_>>()?)
            }
            Predicate::Not(inner) => Node::Not(Box::new(self.bind(inner)?)),
            Predicate::Compare { column, op, literal } => {
                let (index, data_type) = self.column(column)?;
                match self.literal(index, column, &data_type, literal)? {
                    Some(value) => Node::Leaf { column: index, test: Test::Compare(*op, value) },
                    // Comparing with null is null for every row.
                    None => Node::Outcome(Outcome { can_be_true: false, can_be_false: false }),
                }
            }
            Predicate::In { column, values } => {
                let (index, data_type) = self.column(column)?;
                let mut typed = Vec::with_capacity(values.len());
                let mut null = false;
                for literal in values {
                    match self.literal(index, column, &data_type, literal)? {
                        Some(value) => typed.push(value),
                        None => null = true,
                    }
                }
                Node::Leaf { column: index, test: Test::In { values: typed, null } }
            }
            Predicate::StartsWith { column, prefix } => {
                let (index, data_type) = self.column(column)?;
                if data_type != DataType::String {
                    return Err(CatalogError::invalid(format!(
                        "column '{column}' is of type {data_type}: LIKE needs a string"
                    )));
                }
                Node::Leaf { column: index, test: Test::StartsWith(prefix.clone()) }
            }
            Predicate::IsNull(column) => {
                let (index, _) = self.column(column)?;
                Node::Leaf { column: index, test: Test::IsNull }
            }
        })
    }

    /// Index of the column among those used, and its type.
    fn column(&mut self, path: &ColumnPath) -> Result<(usize, DataType)> {
        let fields = self.schema.resolve(&path.0)?;
        let (Some(column), Some(last)) =
            (Column::new(&fields, self.partitions, self.mapped), fields.last())
        else {
            return Err(CatalogError::invalid("a column without a name"));
        };
        let data_type = last.data_type.clone();
        let known = self.columns.iter().position(|c| c.physical == column.physical);
        let index = known.unwrap_or(self.columns.len());
        if known.is_none() {
            self.columns.push(column);
        }
        Ok((index, data_type))
    }

    /// The constant as a value of the column's type; none for null.
    fn literal(
        &self,
        index: usize,
        path: &ColumnPath,
        data_type: &DataType,
        literal: &Literal,
    ) -> Result<Option<Value>> {
        if *literal == Literal::Null {
            return Ok(None);
        }
        let kind = self.columns.get(index).map_or(Kind::Opaque, |c| c.kind);
        match value::literal(kind, literal) {
            Some(value) => Ok(Some(value)),
            None => Err(CatalogError::invalid(format!(
                "column '{path}' is of type {data_type}, which cannot be compared with {literal}: \
                 {}",
                value::expected(kind)
            ))),
        }
    }
}

/// A partition column's value as it is written in `partitionValues` (protocol section "Partition
/// Value Serialization"), if `text` stands for one of that type. Not for null, which has no text.
///
/// None if the text is not of the type, or only if it were rounded or cut off; and for types by whose text
/// nothing can be partitioned here (binary, nested types).
#[must_use]
pub fn partition_value(data_type: &DataType, text: &str) -> Option<String> {
    let is_time = matches!(data_type, DataType::Timestamp | DataType::TimestampNtz);
    if *data_type == DataType::Binary || is_time && value::is_inexact(text) {
        return None;
    }
    PartitionValue::parse(data_type, text)?.to_text()
}

/// The keys of a JSON object with the text of their values; none if it is not one.
pub(crate) fn object(text: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let section = facts::section(text)?;
    Some(section.into_iter().map(|(name, raw)| (name, raw.get())).collect())
}

/// How a field's values compare.
fn kind_of(field: &StructField) -> Kind {
    // Strings under a collation neither compare nor are summarised by their bytes.
    if field.metadata.contains_key("__COLLATIONS") {
        return Kind::Opaque;
    }
    // Statistics of a file from before a column was widened from float have a float's digits.
    let widened = field.metadata.contains_key("delta.typeChanges");
    match &field.data_type {
        DataType::Byte | DataType::Short | DataType::Integer | DataType::Long => {
            Kind::Exact { lossy: false }
        }
        // More digits than a double holds: some writers wrote such statistics through one.
        DataType::Decimal { precision, .. } => Kind::Exact { lossy: *precision > 15 },
        DataType::Float => Kind::Float { single: true },
        DataType::Double => Kind::Float { single: widened },
        DataType::String => Kind::Text,
        DataType::Boolean => Kind::Boolean,
        DataType::Date => Kind::Date,
        DataType::Timestamp => Kind::Timestamp { zoned: true },
        DataType::TimestampNtz => Kind::Timestamp { zoned: false },
        _ => Kind::Opaque,
    }
}

#[cfg(test)]
pub(crate) mod tests;
