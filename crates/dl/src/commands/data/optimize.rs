//! `dl optimize`

use std::num::NonZeroU64;

use clap::Args;
use delta::operations::optimize::OptimizeType;
use delta::schema::partitions::{FilterLiteral, FilterOp, FilterValue};
use deltalakedb::core::predicate::{CompareOp, Literal, Predicate};
use deltalakedb::deltalake::deltalake as delta;
use deltalakedb::filter::parse_filter;
use serde_json::json;

use super::{Change, failure};
use crate::commands::commit::Done;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::{count, plural, size};

/// Arguments of `dl optimize`.
#[derive(Debug, Args)]
#[command(after_help = "\
Small files become large ones, partition by partition; rows stay what they are, so that readers and
other writers are not disturbed. With --zorder all files are written anew, rows that are near each
other in the columns together. Files that nobody needs any more go with `dl vacuum`.

Examples:
  dl optimize sales.orders
  dl optimize sales.orders --where \"day = '2026-01-31'\" --target-size 268435456
  dl optimize sales.orders --zorder customer,product")]
pub(crate) struct Optimize {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    /// Order rows along a Z-curve through these columns
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    zorder: Vec<String>,
    /// Only files that may hold such rows: comparisons of columns, joined with AND
    #[arg(long = "where", value_name = "CONDITION", allow_hyphen_values = true)]
    condition: Option<String>,
    /// Size of a file, bytes [default: the table's delta.targetFileSize, else 100 MiB]
    #[arg(long, value_name = "BYTES")]
    target_size: Option<NonZeroU64>,
    #[command(flatten)]
    change: Change,
}

impl Optimize {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let predicate = self.condition.as_deref().map(parse_filter).transpose()?;
        let mut filters = Vec::new();
        if let Some(predicate) = &predicate {
            literals(predicate, &mut filters)?;
        }
        self.change
            .run(context, &self.table, async |_, name, table| {
                let mut optimize = table.optimize().with_filters(&filters);
                if !self.zorder.is_empty() {
                    let columns = self.zorder.iter().map(|column| column.trim().to_owned());
                    optimize = optimize.with_type(OptimizeType::ZOrder(columns.collect()));
                }
                if let Some(size) = self.target_size {
                    optimize = optimize.with_target_size(size);
                }
                let (_, metrics) = optimize.await.map_err(|e| failure(name, e))?;
                if metrics.num_files_removed == 0 {
                    return Ok(Some(Done::new(
                        "optimized",
                        json!(metrics),
                        "Nothing to optimize: no partition has files to be put together.",
                    )));
                }
                let bytes = u64::try_from(metrics.files_added.total_size).unwrap_or(0);
                let text = format!(
                    "Made {} of {} ({} in all)",
                    plural(metrics.num_files_added, "file"),
                    count(metrics.num_files_removed),
                    size(bytes)
                );
                Ok(Some(Done::new("optimized", json!(metrics), &format!("{text}."))))
            })
            .await
    }
}

/// A conjunction of comparisons of columns with constants.
fn literals<'p>(predicate: &'p Predicate, out: &mut Vec<FilterLiteral<'p>>) -> Result<()> {
    let text = |literal: &'p Literal| match literal {
        Literal::Number(text)
        | Literal::Text(text)
        | Literal::Date(text)
        | Literal::Timestamp(text) => Some(text.as_str()),
        Literal::Boolean(true) => Some("true"),
        Literal::Boolean(false) => Some("false"),
        Literal::Null => None,
    };
    let unsupported = || {
        Failure::invalid(
            "--where of `dl optimize` takes comparisons of columns with constants (=, <>, \
             <, <=, >, >=, BETWEEN, IN), joined with AND",
        )
    };
    match predicate {
        Predicate::And(parts) => {
            for part in parts {
                literals(part, out)?;
            }
        }
        Predicate::Compare { column, op, literal } if column.0.len() == 1 => {
            let op = match op {
                CompareOp::Eq => FilterOp::Eq,
                CompareOp::NotEq => FilterOp::Ne,
                CompareOp::Lt => FilterOp::Lt,
                CompareOp::LtEq => FilterOp::Le,
                CompareOp::Gt => FilterOp::Gt,
                CompareOp::GtEq => FilterOp::Ge,
            };
            let value = FilterValue::Scalar(text(literal).ok_or_else(unsupported)?);
            out.push((column.0[0].as_str(), op, value));
        }
        Predicate::In { column, values } if column.0.len() == 1 => {
            let values = values.iter().map(text).collect::<Option<Vec<_>>>();
            let values = FilterValue::Set(values.ok_or_else(unsupported)?);
            out.push((column.0[0].as_str(), FilterOp::In, values));
        }
        _ => return Err(unsupported()),
    }
    Ok(())
}
