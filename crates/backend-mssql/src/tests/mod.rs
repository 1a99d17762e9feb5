//! Tests against a scripted server, and of every statement's text.

mod commits;
mod peer;
mod sessions;
mod sql;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use deltalakedb_catalog_core::action::{Add, NullableMap, Remove};
use deltalakedb_catalog_core::backend::{CommitRequest, CommitTarget, HeadRule, TableCommit};
use deltalakedb_catalog_core::commit::{CommitIndex, FirstLine, Packed};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TimestampMs, Version};
use uuid::Uuid;

use crate::MssqlBackend;
use crate::options::{Encrypt, MssqlOptions};
use peer::{Peer, Set, Value};

/// Options for the scripted server, which has no TLS.
fn options() -> MssqlOptions {
    let mut options = MssqlOptions::new("scripted", "lake", "sa");
    options.password = Some("secret-word".to_owned());
    options.tls.mode = Encrypt::Off;
    options.statement_timeout = Duration::from_secs(5);
    options.pool.acquire_timeout = Duration::from_secs(5);
    options
}

/// A backend on a scripted server. The attempt with an encrypted login counts as a connection.
async fn connect(peer: &Arc<Peer>) -> Result<Arc<MssqlBackend>> {
    MssqlBackend::connect_over(options(), peer.clone()).await
}

fn table(number: u128) -> TableId {
    TableId(Uuid::from_u128(number))
}

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

fn add(path: &str) -> Add {
    Add {
        path: path.to_owned(),
        partition_values: NullableMap::new(),
        size: 100,
        modification_time: 7,
        data_change: true,
        stats: None,
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}

fn remove(path: &str) -> Remove {
    serde_json::from_value(serde_json::json!({
        "path": path, "deletionTimestamp": 9, "dataChange": true
    }))
    .unwrap()
}

/// A commit to tables that exist, each on exactly version 3.
fn request(parts: Vec<(TableId, CommitIndex)>) -> CommitRequest {
    CommitRequest {
        token: CommitToken::new("token-1").unwrap(),
        now: TimestampMs(1000),
        tables: parts
            .into_iter()
            .map(|(table_id, index)| TableCommit {
                target: CommitTarget::Existing { table_id, rule: HeadRule::Exactly(v(3)) },
                first_line: FirstLine::with_parts(vec!["{\"t\":".to_owned(), "}".to_owned()]),
                rest: Packed::pack(b"{}\n").unwrap(),
                index: Arc::new(index),
                later: None,
            })
            .collect(),
    }
}

fn adds(paths: &[&str]) -> CommitIndex {
    CommitIndex { adds: paths.iter().map(|path| add(path)).collect(), ..CommitIndex::default() }
}

/// A set of one row of numbers.
fn numbers(names: &[&'static str], values: &[i64]) -> Set {
    Set(names.to_vec(), vec![values.iter().map(|value| Value::Int(*value)).collect()])
}
