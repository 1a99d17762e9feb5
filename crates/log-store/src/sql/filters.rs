//! DataFusion's filters as conditions that files can be chosen by.

use chrono::{DateTime, NaiveDate, SecondsFormat, TimeDelta};
use deltalake::datafusion::common::ScalarValue;
use deltalake::datafusion::functions::core::getfield::GetFieldFunc;
use deltalake::datafusion::logical_expr::{Between, BinaryExpr, Expr, Like, Operator};
use deltalakedb_catalog_engine::predicate::{ColumnPath, CompareOp, Literal, Predicate};

use super::literals::NAN_VALUE;

/// The part of a conjunction of filters that files can be chosen by: true wherever all filters are.
pub(super) fn predicate(filters: &[Expr]) -> Predicate {
    Predicate::And(filters.iter().flat_map(conjuncts).filter_map(condition).collect())
}

/// `a AND b` as `a`, `b`: what is not understood can be left out of those, and of nothing else.
fn conjuncts(filter: &Expr) -> Vec<&Expr> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let mut parts = conjuncts(left);
            parts.extend(conjuncts(right));
            parts
        }
        other => vec![other],
    }
}

/// Exactly this condition; none if it cannot be said.
fn condition(filter: &Expr) -> Option<Predicate> {
    Some(match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => Predicate::And(vec![condition(left)?, condition(right)?]),
            Operator::Or => Predicate::Or(vec![condition(left)?, condition(right)?]),
            _ => comparison(left, *op, right)?,
        },
        Expr::Not(inner) => condition(inner)?.negated(),
        Expr::IsNull(inner) => Predicate::IsNull(column(inner)?),
        Expr::IsNotNull(inner) => Predicate::IsNull(column(inner)?).negated(),
        Expr::InList(list) => {
            let values = list.list.iter().map(constant).collect::<Option<_>>()?;
            negated_if(list.negated, Predicate::In { column: column(&list.expr)?, values })
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            negated_if(*negated, Predicate::between(column(expr)?, constant(low)?, constant(high)?))
        }
        Expr::Like(Like { negated, expr, pattern, escape_char: None, case_insensitive: false }) => {
            let Literal::Text(pattern) = constant(pattern)? else { return None };
            let prefix = pattern.strip_suffix('%')?;
            if prefix.is_empty() || prefix.contains(['%', '_', '\\']) {
                return None;
            }
            let prefix = prefix.to_owned();
            negated_if(*negated, Predicate::StartsWith { column: column(expr)?, prefix })
        }
        Expr::Literal(ScalarValue::Boolean(Some(value)), _) => Predicate::Always(*value),
        Expr::Column(_) | Expr::ScalarFunction(_) => {
            Predicate::compare(column(filter)?, CompareOp::Eq, Literal::Boolean(true))
        }
        _ => return None,
    })
}

fn negated_if(negated: bool, predicate: Predicate) -> Predicate {
    if negated { predicate.negated() } else { predicate }
}

fn comparison(left: &Expr, op: Operator, right: &Expr) -> Option<Predicate> {
    let op = match op {
        Operator::Eq => CompareOp::Eq,
        Operator::NotEq => CompareOp::NotEq,
        Operator::Lt => CompareOp::Lt,
        Operator::LtEq => CompareOp::LtEq,
        Operator::Gt => CompareOp::Gt,
        Operator::GtEq => CompareOp::GtEq,
        _ => return None,
    };
    match (column(left), column(right)) {
        (Some(column), None) => Some(Predicate::compare(column, op, constant(right)?)),
        (None, Some(column)) => Some(Predicate::compare(column, op.swapped(), constant(left)?)),
        _ => None,
    }
}

/// A column, or a field of one.
fn column(expr: &Expr) -> Option<ColumnPath> {
    match expr {
        Expr::Column(column) => Some(ColumnPath::top(&column.name)),
        Expr::ScalarFunction(call) if call.func.inner().is::<GetFieldFunc>() => {
            let (of, names) = call.args.split_first()?;
            let ColumnPath(mut path) = column(of)?;
            for name in names {
                let Literal::Text(name) = constant(name)? else { return None };
                path.push(name);
            }
            Some(ColumnPath(path))
        }
        // A float as `literals` makes it comparable: in the order that predicates have anyway.
        Expr::ScalarFunction(call) if call.func.name() == NAN_VALUE => match call.args.as_slice() {
            [Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }), nan]
                if is_float(right, |value| value == 0.0) && is_float(nan, f64::is_nan) =>
            {
                column(left)
            }
            _ => None,
        },
        _ => None,
    }
}

fn is_float(expr: &Expr, wanted: impl Fn(f64) -> bool) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => wanted(*value),
        Expr::Literal(ScalarValue::Float32(Some(value)), _) => wanted((*value).into()),
        _ => false,
    }
}

fn constant(expr: &Expr) -> Option<Literal> {
    match expr {
        Expr::Literal(value, _) => literal(value),
        _ => None,
    }
}

fn literal(value: &ScalarValue) -> Option<Literal> {
    if value.is_null() {
        return Some(Literal::Null);
    }
    Some(match value {
        ScalarValue::Boolean(Some(value)) => Literal::Boolean(*value),
        ScalarValue::Int8(Some(value)) => Literal::Number(value.to_string()),
        ScalarValue::Int16(Some(value)) => Literal::Number(value.to_string()),
        ScalarValue::Int32(Some(value)) => Literal::Number(value.to_string()),
        ScalarValue::Int64(Some(value)) => Literal::Number(value.to_string()),
        ScalarValue::UInt8(Some(value)) => Literal::Number(value.to_string()),
        ScalarValue::UInt16(Some(value)) => Literal::Number(value.to_string()),
        ScalarValue::UInt32(Some(value)) => Literal::Number(value.to_string()),
        ScalarValue::UInt64(Some(value)) => Literal::Number(value.to_string()),
        ScalarValue::Float32(Some(value)) if value.is_finite() => {
            Literal::Number(value.to_string())
        }
        ScalarValue::Float64(Some(value)) if value.is_finite() => {
            Literal::Number(value.to_string())
        }
        ScalarValue::Decimal128(Some(value), _, scale) => Literal::Number(decimal(*value, *scale)?),
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => Literal::Text(text.clone()),
        ScalarValue::Date32(Some(days)) => {
            let date = NaiveDate::default().checked_add_signed(TimeDelta::days((*days).into()))?;
            Literal::Date(date.format("%Y-%m-%d").to_string())
        }
        ScalarValue::TimestampMicrosecond(Some(micros), _) => {
            let time = DateTime::from_timestamp_micros(*micros)?;
            Literal::Timestamp(time.to_rfc3339_opts(SecondsFormat::Micros, true).replace('Z', ""))
        }
        ScalarValue::Dictionary(_, value) => return literal(value),
        _ => return None,
    })
}

/// `12345` with scale 2 is `123.45`.
fn decimal(value: i128, scale: i8) -> Option<String> {
    let scale = usize::try_from(scale).ok()?;
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use deltalake::datafusion::logical_expr::{col, lit};
    use deltalake::datafusion::prelude::{get_field, nanvl};

    use super::*;

    fn of(filter: Expr) -> Predicate {
        let Predicate::And(parts) = predicate(&[filter]) else { panic!("not a conjunction") };
        if parts.len() == 1 { parts[0].clone() } else { Predicate::And(parts) }
    }

    fn number(text: &str) -> Literal {
        Literal::Number(text.to_owned())
    }

    #[test]
    fn comparisons_keep_their_meaning_on_both_sides() {
        let a = || ColumnPath::top("a");
        assert_eq!(of(col("a").lt(lit(5))), Predicate::compare(a(), CompareOp::Lt, number("5")));
        assert_eq!(of(lit(5).lt(col("a"))), Predicate::compare(a(), CompareOp::Gt, number("5")));
        assert_eq!(
            of(nanvl(col("a") + lit(0.0), lit(f64::NAN)).gt(lit(5))),
            Predicate::compare(a(), CompareOp::Gt, number("5"))
        );
        assert_eq!(of(col("a")), Predicate::compare(a(), CompareOp::Eq, Literal::Boolean(true)));
        let field = ColumnPath(vec!["a".to_owned(), "b.c".to_owned()]);
        assert_eq!(
            of(get_field(col("a"), "b.c").eq(lit("x"))),
            Predicate::compare(field, CompareOp::Eq, Literal::Text("x".to_owned()))
        );
    }

    #[test]
    fn constants_are_written_exactly() {
        for (value, want) in [
            (ScalarValue::Decimal128(Some(-5), 10, 2), number("-0.05")),
            (ScalarValue::Decimal128(Some(12345), 10, 2), number("123.45")),
            (ScalarValue::Decimal128(Some(7), 10, 0), number("7")),
            (ScalarValue::UInt64(Some(u64::MAX)), number("18446744073709551615")),
            (ScalarValue::Date32(Some(-1)), Literal::Date("1969-12-31".to_owned())),
            (
                ScalarValue::TimestampMicrosecond(Some(1_500_000), Some("UTC".into())),
                Literal::Timestamp("1970-01-01T00:00:01.500000".to_owned()),
            ),
            (ScalarValue::Int64(None), Literal::Null),
        ] {
            assert_eq!(literal(&value), Some(want), "{value}");
        }
        for value in
            [ScalarValue::Float64(Some(f64::NAN)), ScalarValue::Float32(Some(f32::INFINITY))]
        {
            assert_eq!(literal(&value), None, "{value}");
        }
    }

    #[test]
    fn what_cannot_be_said_is_left_out_of_conjunctions_only() {
        let odd = || (col("b") + lit(1)).eq(lit(2));
        let plain = || col("a").gt(lit(1));
        let said = || Predicate::compare(ColumnPath::top("a"), CompareOp::Gt, number("1"));
        assert_eq!(of(plain().and(odd())), said());
        assert_eq!(of(plain().or(odd())), Predicate::And(vec![]));
        assert_eq!(of(Expr::Not(Box::new(plain().and(odd())))), Predicate::And(vec![]));
        assert_eq!(of(col("a").eq(col("b"))), Predicate::And(vec![]));
        assert_eq!(of(col("a").like(lit("x_%"))), Predicate::And(vec![]));
        assert_eq!(
            of(col("a").not_like(lit("x%"))),
            Predicate::StartsWith { column: ColumnPath::top("a"), prefix: "x".to_owned() }
                .negated()
        );
    }
}
