//! The text of every statement: it parses, binds what it names, and is plain T-SQL.

use std::sync::Arc;

use sqlparser::dialect::MsSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use deltalakedb_catalog_core::action::Protocol;
use deltalakedb_catalog_core::backend::CommitTarget;
use deltalakedb_catalog_core::commit::CommitIndex;
use deltalakedb_catalog_core::model::{MirrorMode, NewTable};

use super::{adds, remove, request, table};
use crate::commit::batch::Plan;
use crate::commit::{staged, token, version};
use crate::rows::text::Names;
use crate::schema::MIGRATIONS;
use crate::session::Session;
use crate::session::stream::Tcp;
use crate::{files, import, outbox, reads, schema, skip, tables};

/// Words that some front of the protocol does not take, or that correctness must not need.
const FORBIDDEN: [&str; 16] = [
    "MERGE",
    "WAITFOR",
    "OUTPUT",
    "JSON",
    "OPENJSON",
    "STRING_AGG",
    "IDENTITY",
    "SEQUENCE",
    "THROW",
    "RAISERROR",
    "WITH",
    "CONVERT",
    "LIMIT",
    "RETURNING",
    "GOTO",
    "CURSOR",
];

fn names() -> Names {
    Names { schema: "dbo".to_owned(), prefix: "dl_".to_owned() }
}

/// Every statement with its name.
fn statements() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        schema::STATEMENTS,
        tables::STATEMENTS,
        reads::STATEMENTS,
        token::STATEMENTS,
        staged::STATEMENTS,
        version::STATEMENTS,
        files::STATEMENTS,
        import::STATEMENTS,
        outbox::STATEMENTS,
        skip::STATEMENTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// A commit that has one of everything.
fn everything() -> deltalakedb_catalog_core::backend::CommitRequest {
    let protocol = Protocol {
        min_reader_version: 1,
        min_writer_version: 2,
        reader_features: None,
        writer_features: None,
    };
    let metadata = serde_json::json!({
        "id": "m", "format": {"provider": "parquet", "options": {}}, "schemaString": "{}",
        "partitionColumns": [], "configuration": {}
    });
    let index = CommitIndex {
        removes: vec![remove("r1"), remove("r2")],
        protocol: Some(protocol),
        metadata: Some(serde_json::from_value(metadata).unwrap()),
        txns: vec![
            serde_json::from_value(serde_json::json!({"appId": "a", "version": 1})).unwrap(),
        ],
        domain_metadata: vec![
            serde_json::from_value(
                serde_json::json!({"domain": "d", "configuration": "c", "removed": false}),
            )
            .unwrap(),
        ],
        commit_info: Some("{}".to_owned()),
        ..adds(&["a", "b"])
    };
    let created = CommitIndex { removes: Vec::new(), ..index.clone() };
    let mut request = request(vec![(table(2), index), (table(1), created)]);
    request.tables[1].target = CommitTarget::Create(NewTable {
        id: table(1),
        name: "ns.t".parse().unwrap(),
        location: "memory:///t".to_owned(),
        storage_options: std::collections::BTreeMap::new(),
        mirror: MirrorMode::Active,
    });
    request
}

/// Every text with a name, and how many parameters are bound, where that is known.
fn texts() -> Vec<(String, String, Option<usize>)> {
    let names = names();
    let mut all: Vec<(String, String, Option<usize>)> =
        statements().map(|(name, text)| (name.to_owned(), names.fill(text), None)).collect();
    for (version, steps) in MIGRATIONS {
        for (number, step) in steps.iter().enumerate() {
            let text = names.fill(step);
            all.push((format!("migration {version}, step {number}"), text, Some(0)));
        }
    }
    let request = everything();
    let plan = Plan::new(&request).unwrap();
    let session = Session::new(&super::options(), Arc::new(Tcp)).unwrap();
    let batch = plan.batch(&session).unwrap().unwrap();
    all.push(("commit".to_owned(), names.fill(&batch.sql), Some(batch.values.len())));
    all
}

fn tokens(text: &str) -> Vec<Token> {
    Tokenizer::new(&MsSqlDialect {}, text)
        .tokenize()
        .unwrap()
        .into_iter()
        .filter(|token| !matches!(token, Token::Whitespace(_)))
        .collect()
}

#[tokio::test]
async fn statements_keep_to_plain_words() {
    for (name, text, _) in texts() {
        for token in tokens(&text) {
            if let Token::Word(word) = &token
                && word.quote_style.is_none()
            {
                let upper = word.value.to_ascii_uppercase();
                assert!(!FORBIDDEN.contains(&upper.as_str()), "{name}: {upper} in {text}");
            }
        }
        assert!(!text.contains("{p}") && !text.contains("{i}"), "{name}: {text}");
    }
}

#[tokio::test]
async fn parameters_are_used_from_the_first_to_the_last() {
    for (name, text, bound) in texts() {
        let mut used: Vec<usize> = Vec::new();
        for token in tokens(&text) {
            let text = token.to_string();
            if let Some(number) = text.strip_prefix("@P").and_then(|n| n.parse().ok()) {
                used.push(number);
            }
        }
        used.sort_unstable();
        used.dedup();
        assert!(used.iter().copied().eq(1..=used.len()), "{name}: {used:?} in {text}");
        if let Some(bound) = bound {
            assert_eq!(used.len(), bound, "{name}");
        }
    }
}

#[tokio::test]
async fn blocks_and_brackets_are_balanced() {
    for (name, text, _) in texts() {
        let (mut round, mut blocks, mut cases) = (0_i32, 0_i32, 0_i32);
        let words = tokens(&text);
        for (at, token) in words.iter().enumerate() {
            match token {
                Token::LParen => round += 1,
                Token::RParen => round -= 1,
                Token::Word(word) => match word.value.to_ascii_uppercase().as_str() {
                    "CASE" => cases += 1,
                    "BEGIN" => {
                        let next = words.get(at + 1).map(ToString::to_string);
                        blocks += i32::from(next.as_deref() != Some("TRANSACTION"));
                    }
                    "END" if cases > 0 => cases -= 1,
                    "END" => blocks -= 1,
                    _ => {}
                },
                _ => {}
            }
            assert!(round >= 0 && blocks >= 0, "{name}: {text}");
        }
        assert_eq!((round, blocks, cases), (0, 0, 0), "{name}: {text}");
    }
}

#[tokio::test]
async fn statements_parse() {
    for (name, text, _) in texts() {
        // The parser knows no EXEC with a variable for its status.
        if name == "LOCK" {
            continue;
        }
        if let Err(error) = Parser::parse_sql(&MsSqlDialect {}, &text) {
            panic!("{name}: {error} in {text}");
        }
    }
}
