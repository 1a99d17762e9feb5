//! `VERSION AS OF` and `TIMESTAMP AS OF` behind a table, as in Spark and Databricks SQL.
//!
//! DataFusion's planner passes over them, so they are moved into the table's name before it sees the
//! text: `orders VERSION AS OF 3` becomes `"orders.version=3"`. A table's name never has a dot.

use deltalake::arrow::compute::kernels::cast_utils::string_to_datetime;
use deltalake::datafusion::sql::sqlparser::dialect::GenericDialect;
use deltalake::datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_TABLE_ALIAS};
use deltalake::datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TimestampMs, Version};

use super::literals::number_token;

/// Follows a table's name, and a version follows it.
const VERSION: &str = ".version=";
/// Follows a table's name, and a time follows it.
const TIMESTAMP: &str = ".timestamp=";

/// The table's own name, and the version of it, from a name as the planner sees it.
///
/// # Errors
/// `InvalidInput` if what stands for a version or time is none.
pub(super) fn split(name: &str) -> Result<(&str, At)> {
    if let Some((table, version)) = name.rsplit_once(VERSION) {
        return Ok((table, At::Version(version.parse::<Version>()?)));
    }
    match name.rsplit_once(TIMESTAMP) {
        Some((table, time)) => Ok((table, At::Timestamp(parse_time(time)?))),
        None => Ok((name, At::Head)),
    }
}

fn parse_time(text: &str) -> Result<TimestampMs> {
    string_to_datetime(&chrono::Utc, text).map(|time| TimestampMs(time.timestamp_millis())).map_err(
        |_| {
            CatalogError::invalid(format!(
                "TIMESTAMP AS OF '{text}': give 'YYYY-MM-DD', 'YYYY-MM-DD HH:MM:SS' (both UTC) or \
                 RFC 3339"
            ))
        },
    )
}

/// Moves versions into the names of their tables.
///
/// # Errors
/// `InvalidInput` for text that cannot be taken apart, or a version that follows no name.
pub(super) fn into_names(sql: &str) -> Result<String> {
    let tokens = tokens(sql)?;
    let mut out: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let Some((length, suffix)) = version_at(&tokens[at..])? else {
            out.push(tokens[at].clone());
            at += 1;
            continue;
        };
        at += length;
        let Some(Token::Word(name)) = last_significant(&mut out) else {
            return Err(CatalogError::invalid(
                "VERSION AS OF and TIMESTAMP AS OF stand behind a table's name: \
                 sales.orders VERSION AS OF 3"
                    .to_owned(),
            ));
        };
        let own = Token::Word(name.clone());
        let quote = name.quote_style.unwrap_or('"');
        // As it is written: a quote in a quoted name stays doubled.
        name.value = format!("{}{suffix}", name.value);
        name.quote_style = Some(quote);
        if !alias_follows(&tokens[at..]) {
            out.extend([Token::make_keyword(" AS "), own]);
        }
    }
    Ok(out.iter().map(ToString::to_string).collect())
}

/// A piece of SQL with numbers that the planner takes.
///
/// # Errors
/// `InvalidInput` for text that cannot be taken apart, or a number with too many digits.
pub(super) fn with_known_numbers(sql: &str) -> Result<String> {
    Ok(tokens(sql)?.iter().map(ToString::to_string).collect())
}

fn tokens(sql: &str) -> Result<Vec<Token>> {
    let mut tokens = Tokenizer::new(&GenericDialect {}, sql)
        .with_unescape(false)
        .tokenize()
        .map_err(|e| CatalogError::invalid(format!("bad SQL: {e}")))?;
    for token in &mut tokens {
        if let Token::Number(number, _) = token
            && let Some(instead) = number_token(number).map_err(CatalogError::invalid)?
        {
            *token = Token::make_word(&instead, None);
        }
    }
    Ok(tokens)
}

/// `VERSION AS OF 3`, `TIMESTAMP AS OF '…'`, both also after `FOR`: how many tokens these are, and what
/// it says.
fn version_at(tokens: &[Token]) -> Result<Option<(usize, String)>> {
    let mut significant =
        tokens.iter().enumerate().filter(|(_, token)| !matches!(token, Token::Whitespace(_)));
    let mut next = || significant.next();
    let keyword = |token: Option<(usize, &Token)>, wanted: &str| match token {
        Some((_, Token::Word(word))) => {
            word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted)
        }
        _ => false,
    };
    let mut first = next();
    if first.is_none_or(|(at, _)| at != 0) {
        return Ok(None);
    }
    if keyword(first, "FOR") {
        first = next();
    }
    let by_version = keyword(first, "VERSION");
    if !(by_version || keyword(first, "TIMESTAMP"))
        || !keyword(next(), "AS")
        || !keyword(next(), "OF")
    {
        return Ok(None);
    }
    match next() {
        Some((at, Token::Number(number, _))) if by_version => {
            let version: Version = number.parse()?;
            Ok(Some((at + 1, format!("{VERSION}{version}"))))
        }
        Some((at, Token::SingleQuotedString(time))) if !by_version => {
            parse_time(time)?;
            Ok(Some((at + 1, format!("{TIMESTAMP}{time}"))))
        }
        // Names of columns can be written so: `SELECT version AS of, …`.
        _ => Ok(None),
    }
}

/// The last token that says something; white space behind it is dropped.
fn last_significant(tokens: &mut Vec<Token>) -> Option<&mut Token> {
    while matches!(tokens.last(), Some(Token::Whitespace(_))) {
        tokens.pop();
    }
    tokens.last_mut()
}

fn alias_follows(tokens: &[Token]) -> bool {
    let next = tokens.iter().find(|token| !matches!(token, Token::Whitespace(_)));
    match next {
        Some(Token::Word(word)) => {
            word.keyword == Keyword::AS
                || word.quote_style.is_some()
                || !RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_move_into_names() {
        for (sql, want) in [
            ("select 1", "select 1"),
            (
                "select -1e300, 1.5e10, 0.0000000001",
                "select -CAST('1e300' AS DOUBLE), 1.5e10, 0.0000000001",
            ),
            (
                "SELECT * FROM sales.orders VERSION AS OF 3 WHERE a = 'it''s'",
                r#"SELECT * FROM sales."orders.version=3" AS orders WHERE a = 'it''s'"#,
            ),
            (
                "select * from t for version as of 3 o join t version as of 4 as p on o.a=p.a",
                r#"select * from "t.version=3" o join "t.version=4" as p on o.a=p.a"#,
            ),
            (
                "select * from \"a b\"\n timestamp as of '2026-01-02', u",
                r#"select * from "a b.timestamp=2026-01-02" AS "a b", u"#,
            ),
            (
                "select version as of, t.version as v from t",
                "select version as of, t.version as v from t",
            ),
            (
                "select * from (select * from t version as of 0)",
                r#"select * from (select * from "t.version=0" AS t)"#,
            ),
            (
                "select 'x version as of 3' -- t version as of 3",
                "select 'x version as of 3' -- t version as of 3",
            ),
        ] {
            assert_eq!(into_names(sql).unwrap(), want);
        }
        for (bad, says) in [
            ("select * from t timestamp as of 'yesterday'", "RFC 3339"),
            ("select * from (select 1) version as of 3", "behind a table's name"),
            ("select 'open", "bad SQL"),
            ("select * from t version as of 99999999999999999999", "version"),
            (&format!("select 1.{}", "1".repeat(90)), "digits"),
        ] {
            let error = into_names(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn names_split_back() {
        assert_eq!(split("orders").unwrap(), ("orders", At::Head));
        assert_eq!(split("a.version=3").unwrap(), ("a", At::Version(Version::new(3).unwrap())));
        assert_eq!(
            split("a.timestamp=1970-01-01 00:00:01").unwrap(),
            ("a", At::Timestamp(TimestampMs(1000)))
        );
        assert!(split("a.version=x").is_err());
    }
}
