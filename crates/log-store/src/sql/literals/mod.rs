//! Constants take the type of what they are compared with.
//!
//! The planner knows numbers with a point as decimals (the sessions say so), and text as text. Before the
//! query engine brings both sides of a comparison to a common type, which may round or overflow, each
//! constant becomes a value of the other side's type; one that lies between two values moves the
//! comparison to the lower one (`a < 1.005` is `a <= 1.00` where the column has two digits). Elsewhere a
//! number with a point is a double, as it always was, unless a double would lose digits.
//!
//! Floats compare as in Delta's statistics and Spark: NaN equals itself and is greater than all, -0.0
//! equals 0.0. The engine orders them by their bits, and skips row groups as if NaN were not there.

mod fit;
mod rule;

use deltalake::arrow::datatypes::{DataType, TimeUnit};
use deltalake::datafusion::common::tree_node::{Transformed, TreeNode};
use deltalake::datafusion::common::{DFSchema, ScalarValue};
use deltalake::datafusion::error::Result;
use deltalake::datafusion::functions::math::expr_fn::nanvl;
use deltalake::datafusion::logical_expr::expr::{InList, ScalarFunction};
use deltalake::datafusion::logical_expr::{
    Between, BinaryExpr, Cast, Expr, ExprSchemable, Operator, cast, lit,
};
use deltalakedb_catalog_core::error::CatalogError;

use super::query_error;
pub(super) use fit::number_token;
use fit::{Fit, fit};
pub(super) use rule::Literals;

/// Digits that a double keeps, whatever they are.
const DOUBLE_DIGITS: usize = 15;
/// Name of the function that floats are made comparable with.
pub(super) const NAN_VALUE: &str = "nanvl";

/// The expression with constants of the types that they are compared with.
///
/// # Errors
/// `InvalidInput` in `External`: a constant that is no value of the type.
pub(super) fn typed(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let typed = expr.transform_up(|expr| node(expr, schema).map(Transformed::yes))?.data;
    Ok(or_double(typed))
}

/// A value for a column: a constant becomes one of the column's type.
///
/// # Errors
/// `InvalidInput` in `External`: a constant that is no value of the type.
pub(super) fn assigned(
    expr: Expr,
    schema: &DFSchema,
    column: &str,
    data_type: &DataType,
) -> Result<Expr> {
    let typed = expr.transform_up(|expr| node(expr, schema).map(Transformed::yes))?.data;
    let Some(value) = constant(&typed)? else { return Ok(or_double(typed)) };
    let refused = |why: &str| {
        query_error(CatalogError::invalid(format!(
            "{} does not fit column {column} of type {}: {why}",
            shown(&value),
            type_name(data_type)
        )))
    };
    match fit(&value, value_type(data_type)).map_err(|why| refused(&why))? {
        Some(Fit::Exact(value)) => Ok(lit(value)),
        Some(Fit::After(_)) => Err(refused("it would be rounded; round or cast it in the value")),
        Some(Fit::Above(_) | Fit::Below(_)) => Err(refused("it is out of range")),
        Some(Fit::Double(double)) if double.fract() != 0.0 => {
            Err(refused("it would be rounded; round or cast it in the value"))
        }
        Some(Fit::Double(_)) | None => Ok(or_double(typed)),
    }
}

fn node(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom => comparison(*left, op, *right, schema)?,
            Operator::Plus
            | Operator::Minus
            | Operator::Multiply
            | Operator::Modulo
            | Operator::Divide => arithmetic(*left, op, *right, schema),
            _ => binary(or_double(*left), op, or_double(*right)),
        },
        Expr::Between(Between { expr, negated, low, high }) => {
            let both = binary(
                comparison((*expr).clone(), Operator::GtEq, *low, schema)?,
                Operator::And,
                comparison(*expr, Operator::LtEq, *high, schema)?,
            );
            if negated { not(both)? } else { both }
        }
        Expr::InList(list) => in_list(list, schema)?,
        Expr::Not(inner) => not(*inner)?,
        Expr::Negative(inner) => match &*inner {
            Expr::Literal(value, _) if is_decimal(&value.data_type()) => {
                lit(value.arithmetic_negate()?)
            }
            _ => Expr::Negative(inner),
        },
        // Whatever it becomes, nothing is lost on the way.
        Expr::Cast(_) | Expr::TryCast(_) | Expr::Literal(..) => expr,
        Expr::ScalarFunction(ref call) => match of_time(call, schema) {
            Some(in_microseconds) => in_microseconds,
            None => children(expr, schema)?,
        },
        other => children(other, schema)?,
    })
}

/// Times in microseconds, which reach from year 1 to 9999; in nanoseconds they end in 2262.
fn of_time(call: &ScalarFunction, schema: &DFSchema) -> Option<Expr> {
    let whole = || Expr::ScalarFunction(call.clone());
    let utc = || Some("UTC".into());
    let [argument] = call.args.as_slice() else {
        let now = call.args.is_empty() && call.func.name() == "now";
        return now.then(|| cast(whole(), DataType::Timestamp(TimeUnit::Microsecond, utc())));
    };
    let unit = match call.func.name() {
        "to_timestamp" | "to_timestamp_micros" => TimeUnit::Microsecond,
        "to_timestamp_millis" => TimeUnit::Millisecond,
        "to_timestamp_seconds" => TimeUnit::Second,
        _ => return None,
    };
    let of = argument.get_type(schema).ok()?;
    match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Date32 => {
            Some(cast(argument.clone(), DataType::Timestamp(unit, None)))
        }
        // Numbers are seconds.
        _ if of.is_integer() && call.func.name() == "to_timestamp" => {
            let seconds = cast(argument.clone(), DataType::Timestamp(TimeUnit::Second, None));
            Some(cast(seconds, DataType::Timestamp(TimeUnit::Microsecond, None)))
        }
        _ => None,
    }
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

fn is_decimal(of: &DataType) -> bool {
    matches!(of, DataType::Decimal128(..) | DataType::Decimal256(..))
}

fn decimal_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if is_decimal(&value.data_type()))
}

/// The type of a column's values: a dictionary is only how they are kept.
fn value_type(of: &DataType) -> &DataType {
    match of {
        DataType::Dictionary(_, value) => value,
        other => other,
    }
}

fn type_of(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    expr.get_type(schema).ok().map(|of| value_type(&of).clone())
}

/// The double of a decimal literal, if it keeps all digits.
fn as_double(expr: &Expr) -> Option<Expr> {
    let Expr::Literal(ScalarValue::Decimal128(Some(digits), _, scale), _) = expr else {
        return None;
    };
    let text = digits.unsigned_abs().to_string();
    let kept = text.trim_end_matches('0').len() <= DOUBLE_DIGITS;
    let double = format!("{digits}e{}", -i32::from(*scale)).parse::<f64>().ok()?;
    kept.then(|| lit(double))
}

fn or_double(expr: Expr) -> Expr {
    as_double(&expr).unwrap_or(expr)
}

/// Literals directly below: doubles, unless they stand beside decimals or digits would be lost.
fn children(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let chooses = match &expr {
        Expr::Case(_) => true,
        Expr::ScalarFunction(call) => matches!(
            call.func.name(),
            "coalesce" | "nvl" | "nvl2" | "nullif" | "greatest" | "least"
        ),
        _ => false,
    };
    let mut keep = false;
    expr.apply_children(|child| {
        keep |= if decimal_literal(child) {
            as_double(child).is_none()
        } else {
            chooses && type_of(child, schema).is_some_and(|of| is_decimal(&of))
        };
        Ok(deltalake::datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    if keep {
        return Ok(expr);
    }
    Ok(expr.map_children(|child| Ok(Transformed::yes(or_double(child))))?.data)
}

/// Beside decimals literals are decimals; a quotient is a double, as decimals would keep few digits of it.
fn arithmetic(left: Expr, op: Operator, right: Expr, schema: &DFSchema) -> Expr {
    if !decimal_literal(&left) && !decimal_literal(&right) && op != Operator::Divide {
        return binary(left, op, right);
    }
    if op == Operator::Divide {
        let made_of_literals =
            |expr: &Expr| expr.exists(|e| Ok(decimal_literal(e))).unwrap_or(false);
        let literals = made_of_literals(&left) || made_of_literals(&right);
        let side = |expr: Expr| {
            let expr = or_double(expr);
            let exact = type_of(&expr, schema).is_some_and(|of| is_decimal(&of));
            if literals && exact { cast(expr, DataType::Float64) } else { expr }
        };
        return binary(side(left), op, side(right));
    }
    let beside = |other: &Expr| {
        decimal_literal(other)
            || matches!(other, Expr::Literal(value, _) if value.data_type().is_integer())
            || type_of(other, schema).is_some_and(|of| is_decimal(&of))
    };
    let (keep_left, keep_right) = (beside(&right), beside(&left));
    let side = |expr: Expr, keep: bool| if keep { without_exponent(expr) } else { or_double(expr) };
    binary(side(left, keep_left), op, side(right, keep_right))
}

/// `1e3` as 1000: decimals with a negative scale are not computed with everywhere.
fn without_exponent(expr: Expr) -> Expr {
    if let Expr::Literal(ScalarValue::Decimal128(Some(digits), precision, scale), _) = &expr
        && *scale < 0
        && let Some(factor) = 10_i128.checked_pow(u32::from(scale.unsigned_abs()))
        && let Some(digits) = digits.checked_mul(factor)
        && let Some(precision) = precision.checked_add(scale.unsigned_abs())
    {
        return lit(ScalarValue::Decimal128(Some(digits), precision, 0));
    }
    expr
}

/// The value of a constant that is not null.
fn constant(expr: &Expr) -> Result<Option<ScalarValue>> {
    Ok(match expr {
        Expr::Literal(value, _) if !value.is_null() => Some(value.clone()),
        Expr::Alias(alias) => constant(&alias.expr)?,
        Expr::Negative(inner) => match constant(inner)? {
            Some(value) if value.data_type().is_numeric() => Some(value.arithmetic_negate()?),
            _ => None,
        },
        Expr::Cast(Cast { expr, field }) => match constant(expr)? {
            Some(value) => Some(value.cast_to(field.data_type()).map_err(|_| {
                query_error(CatalogError::invalid(format!(
                    "{} is no value of type {}",
                    shown(&value),
                    type_name(field.data_type())
                )))
            })?),
            None => None,
        },
        _ => None,
    })
}

fn comparison(left: Expr, op: Operator, right: Expr, schema: &DFSchema) -> Result<Expr> {
    match (constant(&left)?, constant(&right)?) {
        (None, Some(value)) => with_constant(left, op, &value, right, schema),
        (Some(value), None) => {
            let swapped = op.swap().unwrap_or(op);
            with_constant(right, swapped, &value, left, schema)
        }
        (Some(_), Some(_)) => Ok(binary(left, op, right)),
        (None, None) => Ok(of_times(left, op, right, schema)),
    }
}

/// Two times, dates among them, in microseconds.
fn of_times(left: Expr, op: Operator, right: Expr, schema: &DFSchema) -> Expr {
    use DataType::{Date32, Timestamp};
    use TimeUnit::{Microsecond, Nanosecond};
    let (Some(of_left), Some(of_right)) = (type_of(&left, schema), type_of(&right, schema)) else {
        return binary(left, op, right);
    };
    let side = |expr: Expr, of: &DataType, other: &DataType| match (of, other) {
        (Timestamp(Nanosecond, zone), Date32) | (Date32, Timestamp(_, zone)) => {
            cast(expr, Timestamp(Microsecond, zone.clone()))
        }
        (Timestamp(Nanosecond, zone), Timestamp(unit, _)) if *unit != Nanosecond => {
            cast(expr, Timestamp(Microsecond, zone.clone()))
        }
        _ => expr,
    };
    binary(side(left, &of_left, &of_right), op, side(right, &of_right, &of_left))
}

fn with_constant(
    expr: Expr,
    op: Operator,
    value: &ScalarValue,
    written: Expr,
    schema: &DFSchema,
) -> Result<Expr> {
    let Some(of) = type_of(&expr, schema) else {
        return Ok(binary(or_double(expr), op, or_double(written)));
    };
    match fitted(&expr, value, &of)? {
        Some(fit) => Ok(compare(expr, op, fit)),
        None => Ok(binary(expr, op, or_double(written))),
    }
}

fn fitted(expr: &Expr, value: &ScalarValue, of: &DataType) -> Result<Option<Fit>> {
    fit(value, of).map_err(|why| {
        let what = match expr {
            Expr::Column(column) => format!("column {}", column.quoted_flat_name()),
            other => format!("'{other}'"),
        };
        query_error(CatalogError::invalid(format!(
            "{what} is of type {}, and {} is none: {why}",
            type_name(of),
            shown(value)
        )))
    })
}

fn compare(expr: Expr, op: Operator, fit: Fit) -> Expr {
    let at = |op, value| one(expr.clone(), op, value);
    match (fit, op) {
        (Fit::Exact(value), op) => at(op, value),
        (Fit::Double(double), op) => {
            one(cast(expr, DataType::Float64), op, ScalarValue::Float64(Some(double)))
        }
        // Nothing is equal to it.
        (Fit::After(_) | Fit::Above(_) | Fit::Below(_), Operator::IsDistinctFrom) => lit(true),
        (Fit::After(_) | Fit::Above(_) | Fit::Below(_), Operator::IsNotDistinctFrom) => lit(false),
        (Fit::After(value), Operator::Eq) => {
            binary(at(Operator::Lt, value.clone()), Operator::And, at(Operator::Gt, value))
        }
        (Fit::After(value), Operator::NotEq) => {
            binary(at(Operator::LtEq, value.clone()), Operator::Or, at(Operator::Gt, value))
        }
        (Fit::After(value) | Fit::Above(value), Operator::Lt | Operator::LtEq)
        | (Fit::Above(value), Operator::NotEq) => at(Operator::LtEq, value),
        (Fit::After(value) | Fit::Above(value), _) => at(Operator::Gt, value),
        (Fit::Below(value), Operator::Eq | Operator::Lt | Operator::LtEq) => {
            at(Operator::Lt, value)
        }
        (Fit::Below(value), _) => at(Operator::GtEq, value),
    }
}

/// A comparison with a value of the same type.
fn one(expr: Expr, op: Operator, value: ScalarValue) -> Expr {
    let (double, of) = match &value {
        ScalarValue::Float64(Some(value)) => (*value, DataType::Float64),
        ScalarValue::Float32(Some(value)) => (f64::from(*value), DataType::Float32),
        _ => return binary(expr, op, lit(value)),
    };
    if double.is_finite() && double != 0.0 {
        match op {
            Operator::Eq => return binary(expr, op, lit(value)),
            // By its bits a NaN may also be less than all.
            Operator::Lt | Operator::LtEq => {
                let from = cast(lit("-inf"), of);
                let no_nan = binary(expr.clone(), Operator::GtEq, from);
                return binary(binary(expr, op, lit(value)), Operator::And, no_nan);
            }
            _ => {}
        }
    }
    binary(ordered(expr, &of), op, lit(canonical(value)))
}

/// A float by whose bits it is ordered: one NaN, greater than all, and no -0.0.
fn ordered(expr: Expr, of: &DataType) -> Expr {
    let zero = if *of == DataType::Float32 { lit(0.0_f32) } else { lit(0.0_f64) };
    nanvl(binary(expr, Operator::Plus, zero), cast(lit("NaN"), of.clone()))
}

fn canonical(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float64(Some(v)) if v.is_nan() => ScalarValue::Float64(Some(f64::NAN)),
        ScalarValue::Float64(Some(v)) => ScalarValue::Float64(Some(v + 0.0)),
        ScalarValue::Float32(Some(v)) if v.is_nan() => ScalarValue::Float32(Some(f32::NAN)),
        ScalarValue::Float32(Some(v)) => ScalarValue::Float32(Some(v + 0.0)),
        other => other,
    }
}

/// Not this. What is turned around below must know of NaN, too: row groups are skipped by it.
fn not(inner: Expr) -> Result<Expr> {
    let inner = inner.transform_up(|expr| {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let of = match &**right {
            Expr::Literal(value @ (ScalarValue::Float32(_) | ScalarValue::Float64(_)), _) => {
                value.data_type()
            }
            _ => return Ok(Transformed::no(expr)),
        };
        let compares = op.supports_propagation();
        if !compares || is_ordered(left) || matches!(&**left, Expr::Literal(..)) {
            return Ok(Transformed::no(expr));
        }
        Ok(Transformed::yes(binary(ordered((**left).clone(), &of), *op, (**right).clone())))
    })?;
    Ok(Expr::Not(Box::new(inner.data)))
}

fn is_ordered(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == NAN_VALUE)
}

fn in_list(list: InList, schema: &DFSchema) -> Result<Expr> {
    let InList { expr, list, negated } = list;
    let as_it_is = |expr: Box<Expr>, list: Vec<Expr>| {
        let list = list.into_iter().map(or_double).collect();
        Expr::InList(InList { expr, list, negated })
    };
    let Some(of) = type_of(&expr, schema) else { return Ok(as_it_is(expr, list)) };
    let mut values = Vec::with_capacity(list.len());
    let mut outside = None;
    for item in &list {
        if matches!(item, Expr::Literal(value, _) if value.is_null()) {
            values.push(item.clone());
            continue;
        }
        let Some(value) = constant(item)? else { return Ok(as_it_is(expr, list)) };
        match fitted(&expr, &value, &of)? {
            Some(Fit::Exact(value)) => values.push(lit(value)),
            // No value is equal to it.
            Some(fit @ (Fit::After(_) | Fit::Above(_) | Fit::Below(_))) => outside = Some(fit),
            Some(Fit::Double(_)) | None => return Ok(as_it_is(expr, list)),
        }
    }
    if values.is_empty() {
        let op = if negated { Operator::NotEq } else { Operator::Eq };
        return Ok(match outside {
            Some(fit) => compare(*expr, op, fit),
            None => as_it_is(expr, list),
        });
    }
    if matches!(of, DataType::Float32 | DataType::Float64) {
        let canonical = values.into_iter().map(|value| match value {
            Expr::Literal(value, metadata) => Expr::Literal(canonical(value), metadata),
            other => other,
        });
        let list = canonical.collect();
        let expr = Box::new(ordered(*expr, &of));
        return Ok(Expr::InList(InList { expr, list, negated }));
    }
    Ok(Expr::InList(InList { expr, list: values, negated }))
}

/// A constant as people write it.
fn shown(value: &ScalarValue) -> String {
    match value {
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => format!("'{text}'"),
        other => other.to_string(),
    }
}

/// A type by its name in Delta.
pub(super) fn type_name(of: &DataType) -> String {
    match of {
        DataType::Int8 => "byte".to_owned(),
        DataType::Int16 => "short".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "long".to_owned(),
        DataType::Float32 => "float".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamp".to_owned(),
        DataType::Timestamp(_, None) => "timestamp_ntz".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary".to_owned(),
        DataType::Dictionary(_, value) => type_name(value),
        other => other.to_string(),
    }
}
