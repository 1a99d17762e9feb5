//! The typing of constants as the first rule that a plan goes through.

use std::sync::Arc;

use deltalake::arrow::datatypes::{DataType, Field};
use deltalake::datafusion::common::config::ConfigOptions;
use deltalake::datafusion::common::tree_node::Transformed;
use deltalake::datafusion::common::{DFSchema, ScalarValue};
use deltalake::datafusion::error::Result;
use deltalake::datafusion::logical_expr::expr_rewriter::NamePreserver;
use deltalake::datafusion::logical_expr::utils::merge_schema;
use deltalake::datafusion::logical_expr::{Cast, Expr, LogicalPlan, Values, lit};
use deltalake::datafusion::optimizer::AnalyzerRule;

use super::{as_double, typed};

/// See [`super`].
#[derive(Debug)]
pub(in crate::sql) struct Literals;

impl AnalyzerRule for Literals {
    fn name(&self) -> &'static str {
        "literals"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(of_plan)?.data)
    }
}

fn of_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::Values(values) = plan {
        return Ok(Transformed::yes(LogicalPlan::Values(of_values(values)?)));
    }
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(Transformed::yes(name.restore(typed(expr, &schema)?)))
    })?
    .map_data(LogicalPlan::recompute_schema)
}

/// Columns of decimal constants that doubles can hold, as doubles.
fn of_values(values: Values) -> Result<Values> {
    let Values { schema, values: mut rows } = values;
    let mut fields = Vec::with_capacity(schema.fields().len());
    for (at, (qualifier, field)) in schema.iter().enumerate() {
        let decimals =
            matches!(field.data_type(), DataType::Decimal128(..) | DataType::Decimal256(..));
        let doubles: Option<Vec<Expr>> = if decimals {
            rows.iter().map(|row| row.get(at).and_then(double)).collect()
        } else {
            None
        };
        let Some(doubles) = doubles else {
            fields.push((qualifier.cloned(), Arc::clone(field)));
            continue;
        };
        for (row, double) in rows.iter_mut().zip(doubles) {
            row[at] = double;
        }
        let field = Field::new(field.name(), DataType::Float64, field.is_nullable());
        fields.push((qualifier.cloned(), Arc::new(field)));
    }
    let schema = DFSchema::new_with_metadata(fields, schema.metadata().clone())?;
    Ok(Values { schema: Arc::new(schema), values: rows })
}

/// A constant of such a column.
fn double(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Literal(value, _) if value.is_null() => Some(lit(ScalarValue::Float64(None))),
        Expr::Literal(ScalarValue::Int64(Some(_)), _) => {
            let Expr::Literal(value, _) = expr else { return None };
            Some(lit(value.cast_to(&DataType::Float64).ok()?))
        }
        Expr::Literal(..) => as_double(expr),
        Expr::Cast(Cast { expr, .. }) => double(expr),
        _ => None,
    }
}
