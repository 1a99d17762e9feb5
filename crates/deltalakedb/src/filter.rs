//! Row filters as people write them: the conditions of a SQL `WHERE`, as far as files can be
//! chosen by them.

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_engine::predicate::{ColumnPath, CompareOp, Literal, Predicate};
use sqlparser::ast::{
    BinaryOperator, DataType, Expr, Ident, TimezoneInfo, UnaryOperator, Value, ValueWithSpan,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

/// Longest filter, in bytes. Long lists of values are the reason to have it this high.
const MAX_BYTES: usize = 1024 * 1024;
/// Most words and signs besides constants and commas: each may be a level of the parsed tree.
const MAX_TOKENS: usize = 2_000;

/// Levels of parentheses and NOTs. The parser uses tens of kilobytes of stack for each in a debug
/// build: its own limit of 50 overflows a thread of tokio's.
const MAX_DEPTH: usize = 20;

/// What can be written, for errors.
const SUPPORTED: &str = "a filter compares columns with constants (=, <>, <, <=, >, >=, BETWEEN, \
                         IN, LIKE 'prefix%', IS [NOT] NULL) and joins such conditions with AND, \
                         OR and NOT";

/// Reads a filter such as `day >= DATE '2024-01-01' AND (country = 'de' OR "net price" < 10.5)`.
///
/// Columns are bare, or quoted with double quotes or backticks; a dot leads into a struct
/// (`addr.zip`). A boolean column is a condition by itself. Constants are numbers, `'text'`, `TRUE`,
/// `FALSE`, `NULL`, `DATE '…'` and `TIMESTAMP '…'`; which of them fits a column is checked when the
/// filter meets a table.
///
/// # Errors
/// `InvalidInput` naming the place, or the construct that is not supported and what is.
pub fn parse_filter(text: &str) -> Result<Predicate> {
    if text.trim().is_empty() {
        return Err(CatalogError::invalid(format!("the filter is empty: {SUPPORTED}")));
    }
    if text.len() > MAX_BYTES {
        return Err(CatalogError::invalid(format!(
            "the filter has {} bytes: at most {MAX_BYTES} are possible",
            text.len()
        )));
    }
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, text)
        .tokenize_with_location()
        .map_err(|e| CatalogError::invalid(format!("bad filter: {e}")))?;
    let weight = tokens.iter().filter(|t| !is_light(&t.token)).count();
    if weight > MAX_TOKENS {
        return Err(CatalogError::invalid(format!(
            "the filter has {weight} words and signs: at most {MAX_TOKENS} are possible (a long \
             list of values goes into one IN)"
        )));
    }
    let mut parser =
        Parser::new(&dialect).with_recursion_limit(MAX_DEPTH).with_tokens_with_locations(tokens);
    let expr = parser.parse_expr().map_err(|e| bad_syntax(&e))?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(trailing(&rest));
    }
    condition(expr)
}

/// Tokens that never add a level to the tree.
fn is_light(token: &Token) -> bool {
    matches!(
        token,
        Token::Whitespace(_) | Token::Comma | Token::Number(..) | Token::SingleQuotedString(_)
    )
}

fn bad_syntax(error: &ParserError) -> CatalogError {
    CatalogError::invalid(match error {
        ParserError::TokenizerError(what) | ParserError::ParserError(what) => {
            format!("bad filter: {what}")
        }
        ParserError::RecursionLimitExceeded => {
            format!("bad filter: more than {MAX_DEPTH} levels of parentheses or NOT")
        }
    })
}

fn trailing(token: &TokenWithSpan) -> CatalogError {
    CatalogError::invalid(format!(
        "bad filter: '{}' at line {}, column {} does not continue the condition before it",
        token.token, token.span.start.line, token.span.start.column
    ))
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(CatalogError::invalid(format!(
        "the filter uses {what}, which is not supported: {SUPPORTED}"
    )))
}

fn condition(expr: Expr) -> Result<Predicate> {
    Ok(match expr {
        Expr::Nested(inner) => condition(*inner)?,
        Expr::BinaryOp { op: BinaryOperator::And, .. } => {
            Predicate::And(chain(expr, &BinaryOperator::And)?)
        }
        Expr::BinaryOp { op: BinaryOperator::Or, .. } => {
            Predicate::Or(chain(expr, &BinaryOperator::Or)?)
        }
        Expr::BinaryOp { left, op, right } => comparison(&left, &op, &right)?,
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => condition(*expr)?.negated(),
        Expr::IsNull(inner) => Predicate::IsNull(column(&inner)?),
        Expr::IsNotNull(inner) => Predicate::IsNull(column(&inner)?).negated(),
        Expr::IsTrue(inner) => is_boolean(&inner, true)?,
        Expr::IsNotTrue(inner) => is_boolean(&inner, true)?.negated(),
        Expr::IsFalse(inner) => is_boolean(&inner, false)?,
        Expr::IsNotFalse(inner) => is_boolean(&inner, false)?.negated(),
        Expr::InList { expr, list, negated } => {
            let column = column(&expr)?;
            let values = list.iter().map(constant).collect::<Result<_>>()?;
            negate_if(negated, Predicate::In { column, values })
        }
        Expr::Between { expr, negated, low, high } => negate_if(
            negated,
            Predicate::between(column(&expr)?, constant(&low)?, constant(&high)?),
        ),
        Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
            negate_if(negated, like(column(&expr)?, &constant(&pattern)?)?)
        }
        Expr::Like { .. } => return unsupported("LIKE with ANY or ESCAPE"),
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
            Predicate::compare(column(&expr)?, CompareOp::Eq, Literal::Boolean(true))
        }
        Expr::Value(ValueWithSpan { value: Value::Boolean(b), .. }) => Predicate::Always(b),
        Expr::Value(_) | Expr::TypedString(_) => {
            return unsupported("a constant in place of a condition");
        }
        other => return unsupported(&name(&other)),
    })
}

fn negate_if(negated: bool, predicate: Predicate) -> Predicate {
    if negated { predicate.negated() } else { predicate }
}

/// The conditions of `a AND b AND c`, which parses into a tree that leans to the left as deep as
/// the chain is long: taken apart in a loop, as recursion would use up the stack.
fn chain(expr: Expr, joined_by: &BinaryOperator) -> Result<Vec<Predicate>> {
    let mut parts = Vec::new();
    let mut rest = expr;
    loop {
        match rest {
            Expr::BinaryOp { left, op, right } if op == *joined_by => {
                parts.push(condition(*right)?);
                rest = *left;
            }
            first => {
                parts.push(condition(first)?);
                break;
            }
        }
    }
    parts.reverse();
    Ok(parts)
}

fn comparison(left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Predicate> {
    let op = match op {
        BinaryOperator::Eq => CompareOp::Eq,
        BinaryOperator::NotEq => CompareOp::NotEq,
        BinaryOperator::Lt => CompareOp::Lt,
        BinaryOperator::LtEq => CompareOp::LtEq,
        BinaryOperator::Gt => CompareOp::Gt,
        BinaryOperator::GtEq => CompareOp::GtEq,
        other => return unsupported(&format!("the operator '{other}'")),
    };
    match (is_column(left), is_column(right)) {
        (true, false) => Ok(Predicate::compare(column(left)?, op, constant(right)?)),
        (false, true) => Ok(Predicate::compare(column(right)?, op.swapped(), constant(left)?)),
        (true, true) => unsupported("a comparison of two columns"),
        (false, false) => {
            // Names whichever side is more than a constant.
            constant(left)?;
            constant(right)?;
            unsupported("a comparison of two constants")
        }
    }
}

/// `column IS TRUE`: never null, unlike `column = TRUE`.
fn is_boolean(expr: &Expr, value: bool) -> Result<Predicate> {
    let column = column(expr)?;
    Ok(Predicate::And(vec![
        Predicate::compare(column.clone(), CompareOp::Eq, Literal::Boolean(value)),
        Predicate::IsNull(column).negated(),
    ]))
}

fn like(column: ColumnPath, pattern: &Literal) -> Result<Predicate> {
    let Literal::Text(pattern) = pattern else {
        return unsupported("LIKE with something other than text");
    };
    let prefix = pattern.trim_end_matches('%');
    if prefix.contains(['%', '_', '\\']) {
        return unsupported("a LIKE pattern with '_', '\\' or with '%' elsewhere than at its end");
    }
    Ok(if prefix.len() == pattern.len() {
        Predicate::compare(column, CompareOp::Eq, Literal::Text(pattern.clone()))
    } else {
        Predicate::StartsWith { column, prefix: prefix.to_owned() }
    })
}

fn is_column(expr: &Expr) -> bool {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::Nested(inner) => is_column(inner),
        _ => false,
    }
}

fn column(expr: &Expr) -> Result<ColumnPath> {
    let part = |ident: &Ident| ident.value.clone();
    match expr {
        Expr::Identifier(ident) => Ok(ColumnPath(vec![part(ident)])),
        Expr::CompoundIdentifier(idents) => Ok(ColumnPath(idents.iter().map(part).collect())),
        Expr::Nested(inner) => column(inner),
        Expr::Value(_) | Expr::TypedString(_) => unsupported("a constant in place of a column"),
        other => unsupported(&format!("{} in place of a column", name(other))),
    }
}

fn constant(expr: &Expr) -> Result<Literal> {
    match expr {
        Expr::Nested(inner) => constant(inner),
        Expr::Value(value) => plain(&value.value),
        Expr::UnaryOp { op, expr } => match (op, constant(expr)) {
            (UnaryOperator::Plus, Ok(Literal::Number(n))) => Ok(Literal::Number(n)),
            (UnaryOperator::Minus, Ok(Literal::Number(n))) => {
                Ok(Literal::Number(match n.strip_prefix('-') {
                    Some(positive) => positive.to_owned(),
                    None => format!("-{n}"),
                }))
            }
            _ => unsupported(&name(expr)),
        },
        Expr::TypedString(typed) => {
            let Value::SingleQuotedString(text) = &typed.value.value else {
                return unsupported("a typed constant that is not in single quotes");
            };
            match &typed.data_type {
                DataType::Date => Ok(Literal::Date(text.clone())),
                DataType::Timestamp(
                    None,
                    TimezoneInfo::None | TimezoneInfo::WithTimeZone | TimezoneInfo::WithoutTimeZone,
                )
                | DataType::TimestampNtz(None) => Ok(Literal::Timestamp(text.clone())),
                other => unsupported(&format!("a constant of type {other}")),
            }
        }
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
            unsupported("a column in place of a constant (text goes in single quotes)")
        }
        other => unsupported(&name(other)),
    }
}

fn plain(value: &Value) -> Result<Literal> {
    match value {
        Value::Number(digits, false) => Ok(Literal::Number(digits.clone())),
        Value::SingleQuotedString(text) => Ok(Literal::Text(text.clone())),
        Value::Boolean(b) => Ok(Literal::Boolean(*b)),
        Value::Null => Ok(Literal::Null),
        Value::Placeholder(name) => unsupported(&format!("the parameter '{name}'")),
        _ => unsupported("a constant of a special form"),
    }
}

/// The construct in words. Never prints the expression itself: it may be very deep.
fn name(expr: &Expr) -> String {
    match expr {
        Expr::Function(call) => format!("the function '{}'", call.name),
        Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => {
            "a subquery".to_owned()
        }
        Expr::Case { .. } => "CASE".to_owned(),
        Expr::Cast { .. } | Expr::Convert { .. } => "a cast".to_owned(),
        Expr::BinaryOp { op, .. } => format!("the operator '{op}'"),
        Expr::UnaryOp { op, .. } => format!("the operator '{op}'"),
        Expr::ILike { .. } => "ILIKE".to_owned(),
        Expr::RLike { .. } | Expr::SimilarTo { .. } => "a regular expression".to_owned(),
        Expr::Interval(_) => "INTERVAL".to_owned(),
        Expr::Extract { .. } => "EXTRACT".to_owned(),
        Expr::Substring { .. } | Expr::Trim { .. } | Expr::Position { .. } => {
            "a string function".to_owned()
        }
        Expr::Ceil { .. } | Expr::Floor { .. } => "rounding".to_owned(),
        Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => "IS DISTINCT FROM".to_owned(),
        Expr::IsUnknown(_) | Expr::IsNotUnknown(_) => "IS UNKNOWN".to_owned(),
        Expr::Tuple(_) => "a tuple".to_owned(),
        Expr::AnyOp { .. } | Expr::AllOp { .. } => "ANY or ALL".to_owned(),
        Expr::AtTimeZone { .. } => "AT TIME ZONE".to_owned(),
        Expr::CompoundFieldAccess { .. } | Expr::JsonAccess { .. } => {
            "access to elements by [] or :".to_owned()
        }
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => "a column".to_owned(),
        Expr::Value(_) | Expr::TypedString(_) => "a constant".to_owned(),
        _ => "an expression of another kind".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn col(path: &str) -> ColumnPath {
        ColumnPath(path.split('/').map(str::to_owned).collect())
    }

    fn cmp(path: &str, op: CompareOp, literal: Literal) -> Predicate {
        Predicate::compare(col(path), op, literal)
    }

    fn num(text: &str) -> Literal {
        Literal::Number(text.into())
    }

    #[test]
    fn conditions_become_predicates() {
        use CompareOp::{Eq, Gt, GtEq, Lt, NotEq};
        let text = |t: &str| Literal::Text(t.into());
        for (filter, want) in [
            ("a = 5", cmp("a", Eq, num("5"))),
            ("(a) <> (-5.25e3)", cmp("a", NotEq, num("-5.25e3"))),
            ("5 < a", cmp("a", Gt, num("5"))),
            ("a = - -5", cmp("a", Eq, num("5"))),
            ("addr.zip >= +1", cmp("addr/zip", GtEq, num("1"))),
            ("\"net price\" < 1 ", cmp("net price", Lt, num("1"))),
            ("`a.b`.`c\"d` = 'it''s'", cmp("a.b/c\"d", Eq, text("it's"))),
            ("d = date '2024-01-31'", cmp("d", Eq, Literal::Date("2024-01-31".into()))),
            (
                "t > TIMESTAMP '2024-01-31 12:00:00'",
                cmp("t", Gt, Literal::Timestamp("2024-01-31 12:00:00".into())),
            ),
            ("flag", cmp("flag", Eq, Literal::Boolean(true))),
            ("NOT flag", cmp("flag", Eq, Literal::Boolean(true)).negated()),
            ("a IS NULL", Predicate::IsNull(col("a"))),
            ("a is not null", Predicate::IsNull(col("a")).negated()),
            ("a != NULL", cmp("a", NotEq, Literal::Null)),
            ("true", Predicate::Always(true)),
            (
                "a IN (1, -2, NULL)",
                Predicate::In {
                    column: col("a"),
                    values: vec![num("1"), num("-2"), Literal::Null],
                },
            ),
            ("a NOT BETWEEN 1 AND 2", Predicate::between(col("a"), num("1"), num("2")).negated()),
            ("s LIKE 'ab%'", Predicate::StartsWith { column: col("s"), prefix: "ab".into() }),
            ("s NOT LIKE 'ab'", cmp("s", Eq, text("ab")).negated()),
            (
                "a = 1 AND b = 2 AND c = 3 OR NOT (d = 4)",
                Predicate::Or(vec![
                    Predicate::And(vec![
                        cmp("a", Eq, num("1")),
                        cmp("b", Eq, num("2")),
                        cmp("c", Eq, num("3")),
                    ]),
                    cmp("d", Eq, num("4")).negated(),
                ]),
            ),
        ] {
            assert_eq!(parse_filter(filter).unwrap(), want, "{filter}");
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (filter, want) in [
            ("", "empty"),
            ("a =", "bad filter: Expected"),
            ("a = 'x", "bad filter: Unterminated"),
            ("a = 1 b", "'b' at line 1, column 7"),
            ("a = 1; drop table x", "';' at line 1, column 6"),
            ("a = b", "comparison of two columns"),
            ("1 = 2", "comparison of two constants"),
            ("upper(a) = 'X'", "the function 'upper'"),
            ("a = now()", "the function 'now'"),
            ("a + 1 = 2", "the operator '+'"),
            ("a = 1 + 1", "the operator '+'"),
            ("a IN (SELECT 1)", "a subquery"),
            ("a = (SELECT 1)", "a subquery"),
            ("EXISTS (SELECT 1)", "a subquery"),
            ("CASE WHEN a THEN b END", "CASE"),
            ("CAST(a AS INT) = 1", "a cast"),
            ("a ILIKE 'x%'", "ILIKE"),
            ("a LIKE '%x'", "LIKE pattern"),
            ("a LIKE 'x_y%'", "LIKE pattern"),
            ("a LIKE 'x!%' ESCAPE '!'", "ESCAPE"),
            ("a IN (b)", "a column in place of a constant"),
            ("a BETWEEN b AND 3", "a column in place of a constant"),
            ("a = ?", "the parameter '?'"),
            ("a = INTERVAL '1' DAY", "INTERVAL"),
            ("5", "a constant in place of a condition"),
            ("a = X'00'", "special form"),
            ("a[1] = 2", "[]"),
            ("5 IS NULL", "in place of a column"),
        ] {
            let err = parse_filter(filter).unwrap_err().to_string();
            assert!(err.contains(want), "{filter}: {err}");
        }
    }

    #[test]
    fn long_filters_are_bounded_and_do_not_overflow_the_stack() {
        let list: Vec<String> = (0..50_000).map(|i| format!("'{i}'")).collect();
        parse_filter(&format!("a IN ({})", list.join(","))).unwrap();
        let Predicate::Or(parts) = parse_filter(&vec!["a=1"; 500].join(" OR ")).unwrap() else {
            panic!()
        };
        assert_eq!(parts.len(), 500);
        for hostile in [
            vec!["1"; 1_990].join("+"),
            vec!["a"; 900].join(" OR ") + " OR ;",
            format!("a{}", "::int".repeat(900)),
            format!("a{}", " IS NULL".repeat(900)),
            format!("{}a{}", "(".repeat(900), ")".repeat(900)),
            format!("{}a", "NOT ".repeat(1_900)),
            format!("a = {}1", "- ".repeat(1_900)),
            vec!["a=1"; 5_000].join(" OR "),
        ] {
            assert!(parse_filter(&hostile).is_err());
        }
    }
}
