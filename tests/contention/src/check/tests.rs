//! The checker finds what is wrong: each test makes one thing wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltalakedb_catalog_core::ids::{CommitToken, TableId};
use deltalakedb_catalog_engine::catalog::{Catalog, CommitBatch};
use deltalakedb_catalog_engine::memory::MemoryBackend;

use super::check;
use crate::claims::{Claim, Claims, Verdict};
use crate::scenario::{Change, create};
use crate::system::{RandomIds, SystemClock};

/// A catalog with two tables, three commits, and claims that agree with it.
async fn world() -> (Catalog, Vec<TableId>, Claims) {
    let catalog =
        Catalog::new(Arc::new(MemoryBackend::new()), Arc::new(SystemClock), Arc::new(RandomIds));
    catalog.backend().migrate(catalog.clock().now()).await.unwrap();
    let setup = CommitBatch {
        token: Some(CommitToken::new("setup").unwrap()),
        tables: vec![create("run", 0).unwrap(), create("run", 1).unwrap()],
    };
    let report = catalog.commit(setup).await.unwrap();
    let tables: Vec<TableId> = report.tables.iter().map(|table| table.table_id).collect();
    let mut claims = Claims::default();
    for (token, touched) in [("a", &tables[..1]), ("b", &tables[..]), ("c", &tables[1..])] {
        send(&catalog, &mut claims, token, touched).await;
    }
    (catalog, tables, claims)
}

async fn send(catalog: &Catalog, claims: &mut Claims, token: &str, tables: &[TableId]) {
    let changes: Vec<Change> = tables
        .iter()
        .map(|table| Change::append(*table, vec![format!("{token}-{table}.parquet")]))
        .collect();
    let batch = CommitBatch {
        token: Some(CommitToken::new(token).unwrap()),
        tables: changes.iter().map(Change::build).collect(),
    };
    let report = catalog.commit(batch).await.unwrap();
    let claim = Claim {
        changes: changes.into_iter().map(|change| (change.table_id, change.files)).collect(),
        verdict: Verdict::Committed(report.tables.iter().map(Into::into).collect()),
    };
    claims.by_token.insert(token.to_owned(), claim);
}

/// The text of what the checker finds.
async fn found(catalog: &Catalog, tables: &[TableId], claims: &Claims) -> String {
    format!("{:#}", check(catalog, "setup", tables, claims).await.unwrap_err())
}

fn set(claims: &mut Claims, token: &str, verdict: Verdict) {
    claims.by_token.get_mut(token).unwrap().verdict = verdict;
}

#[tokio::test]
async fn what_agrees_passes() {
    let (catalog, tables, mut claims) = world().await;
    let findings = check(&catalog, "setup", &tables, &claims).await.unwrap();
    assert_eq!((findings.acknowledged, findings.versions), (3, 6));
    set(&mut claims, "b", Verdict::Unknown);
    let nothing = Claim { changes: BTreeMap::new(), verdict: Verdict::Unknown };
    claims.by_token.insert("never".to_owned(), nothing);
    let findings = check(&catalog, "setup", &tables, &claims).await.unwrap();
    assert_eq!((findings.doubtful_kept, findings.doubtful_lost), (1, 1));
}

#[tokio::test]
async fn an_acknowledged_commit_that_is_lost() {
    let (catalog, tables, mut claims) = world().await;
    let lost = claims.by_token["a"].clone();
    claims.by_token.insert("lost".to_owned(), lost);
    let text = found(&catalog, &tables, &claims).await;
    assert!(text.contains("lost was acknowledged"), "{text}");
}

#[tokio::test]
async fn a_refused_commit_that_is_there() {
    let (catalog, tables, mut claims) = world().await;
    set(&mut claims, "b", Verdict::NotApplied);
    let text = found(&catalog, &tables, &claims).await;
    assert!(text.contains("b was said not to be written"), "{text}");
}

#[tokio::test]
async fn another_version_or_time_than_was_answered() {
    let (catalog, tables, claims) = world().await;
    for wrong in [0, 1] {
        let mut claims = Claims { by_token: claims.by_token.clone(), ..Claims::default() };
        let Verdict::Committed(mut written) = claims.by_token["c"].verdict.clone() else {
            panic!("c is committed")
        };
        if wrong == 0 {
            written[0].version += 1;
        } else {
            written[0].timestamp += 1;
        }
        set(&mut claims, "c", Verdict::Committed(written));
        let text = found(&catalog, &tables, &claims).await;
        assert!(text.contains("c: "), "{text}");
    }
}

#[tokio::test]
async fn a_version_that_nobody_sent() {
    let (catalog, tables, mut claims) = world().await;
    claims.by_token.remove("c");
    let text = found(&catalog, &tables, &claims).await;
    assert!(text.contains("version 2 has token c"), "{text}");
}

#[tokio::test]
async fn a_batch_that_is_not_whole() {
    let (catalog, tables, mut claims) = world().await;
    let other = claims.by_token["b"].changes.clone();
    let claim = claims.by_token.get_mut("a").unwrap();
    claim.changes = other;
    let text = found(&catalog, &tables, &claims).await;
    assert!(text.contains("a was sent for tables"), "{text}");
}

#[tokio::test]
async fn other_files_than_were_sent() {
    let (catalog, tables, mut claims) = world().await;
    let claim = claims.by_token.get_mut("b").unwrap();
    claim.changes.get_mut(&tables[1]).unwrap().adds.push("more.parquet".to_owned());
    let text = found(&catalog, &tables, &claims).await;
    assert!(text.contains("sent was"), "{text}");
}

#[tokio::test]
async fn a_drop_that_nobody_was_told_of() {
    let (catalog, tables, claims) = world().await;
    catalog.drop_table(&tables[0].into()).await.unwrap();
    let text = found(&catalog, &tables, &claims).await;
    assert!(text.contains("1 tables are dropped"), "{text}");
}
