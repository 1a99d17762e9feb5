//! What a commit sends, and what it makes of each answer.

use std::sync::Arc;
use std::time::Duration;

use deltalakedb_catalog_core::action::FileKey;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{CommitOutcome, CommittedTable, Rejection};
use deltalakedb_catalog_core::commit::CommitIndex;
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::TimestampMs;

use super::peer::{Kind, Peer, Reply, Set, Value};
use super::{adds, connect, numbers, remove, request, table, v};

fn committed(tables: &[(i64, i64)]) -> Reply {
    let names = ["v0", "t0", "v1", "t1"];
    let values: Vec<i64> = tables.iter().flat_map(|(version, time)| [*version, *time]).collect();
    Reply::Sets(vec![numbers(&["kind"], &[0]), numbers(&names[..values.len()], &values)])
}

#[tokio::test]
async fn a_commit_of_one_table_is_one_request() {
    let peer = Peer::new([committed(&[(4, 1000)])]);
    let db = connect(&peer).await.unwrap();
    let outcome = db.commit(request(vec![(table(7), adds(&["a", "b"]))])).await.unwrap();
    let done = CommittedTable { table_id: table(7), version: v(4), timestamp: TimestampMs(1000) };
    assert_eq!(outcome, CommitOutcome::Committed(vec![done]));

    let asked = peer.asked_since_connect();
    assert_eq!(asked.len(), 1, "one round trip");
    let commit = &asked[0];
    assert_eq!(commit.kind, Kind::Rpc);
    assert_eq!(commit.values[0], Value::Bytes(b"token-1".to_vec()));
    assert_eq!(commit.values[1], Value::Int(1000));
    assert!(commit.declared.starts_with("@P1 varbinary(8000),@P2 bigint,"), "{}", commit.declared);
    for value in [
        Value::Bytes(table(7).0.as_bytes().to_vec()),
        Value::Bytes(FileKey::digest_of("a", "").to_vec()),
        Value::Text("a".to_owned()),
        Value::Text("b".to_owned()),
        Value::Text("{\"t\":".to_owned()),
        // The head that was read.
        Value::Int(3),
    ] {
        assert!(commit.values.contains(&value), "{value:?} in {:?}", commit.values);
    }
    assert!(!commit.values.contains(&Value::Null), "no parameter without a type");
    let declared = commit.declared.split(",@").count();
    assert_eq!(declared, commit.values.len());
    // In this order: settings, transaction, token, compare-and-set, rows, end, answer.
    let mut at = 0;
    for part in [
        "SET XACT_ABORT ON",
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "BEGIN TRANSACTION",
        "WHERE token = @P1",
        "INSERT INTO [dbo].dl_batches",
        "UPDATE [dbo].dl_tables SET head_version = head_version + 1",
        "SET @n = @@ROWCOUNT",
        "INSERT INTO [dbo].dl_files",
        "UPDATE f SET removed_version",
        "INSERT INTO [dbo].dl_commits",
        "INSERT INTO [dbo].dl_commit_chunks",
        "INSERT INTO [dbo].dl_mirror_status",
        "COMMIT TRANSACTION",
        "AS kind",
    ] {
        let found = commit.sql[at..].find(part);
        at += found.unwrap_or_else(|| panic!("{part} in its place in {}", commit.sql));
    }
}

#[tokio::test]
async fn a_commit_of_several_tables_is_one_request_in_the_order_of_ids() {
    let peer = Peer::new([committed(&[(4, 1000), (4, 1001)])]);
    let db = connect(&peer).await.unwrap();
    let parts = vec![(table(9), adds(&["a"])), (table(2), adds(&["b"]))];
    let outcome = db.commit(request(parts)).await.unwrap();
    let done = |id, time| CommittedTable {
        table_id: table(id),
        version: v(4),
        timestamp: TimestampMs(time),
    };
    assert_eq!(outcome, CommitOutcome::Committed(vec![done(9, 1000), done(2, 1001)]));
    let asked = peer.asked_since_connect();
    assert_eq!(asked.len(), 1);
    let place = |id: u128| {
        let key = Value::Bytes(table(id).0.as_bytes().to_vec());
        asked[0].values.iter().position(|value| *value == key).unwrap()
    };
    assert!(place(2) < place(9), "locks are taken in the order of the ids");
}

#[tokio::test]
async fn refusals_are_read_in_the_order_of_the_request() {
    let refused = |statuses: &[i64]| {
        let names = ["s0", "h0", "x0", "s1", "h1", "x1"];
        Reply::Sets(vec![numbers(&["kind"], &[2]), numbers(&names, statuses)])
    };
    let index = || CommitIndex { removes: vec![remove("gone")], ..adds(&["a"]) };
    let cases = [
        (refused(&[0, 0, 0, 1, 8, 0]), CommitOutcome::HeadMoved { index: 1, head: v(8) }),
        (
            refused(&[5, 0, 0, 1, 8, 0]),
            CommitOutcome::Rejected {
                index: 0,
                reason: Rejection::FileNotActive { path: "gone".to_owned(), dv_id: String::new() },
            },
        ),
        (
            refused(&[2, 0, 0, 0, 0, 0]),
            CommitOutcome::Rejected { index: 0, reason: Rejection::TableNotFound(table(1)) },
        ),
    ];
    for (reply, want) in cases {
        let peer = Peer::new([reply]);
        let db = connect(&peer).await.unwrap();
        let parts = vec![(table(1), index()), (table(2), index())];
        assert_eq!(db.commit(request(parts)).await.unwrap(), want);
    }
}

/// What a token wrote.
fn written() -> Set {
    let key = table(5).0.as_bytes().to_vec();
    let names = vec!["table_id", "version", "timestamp_ms", "batch_position"];
    Set(names, vec![vec![Value::Bytes(key), Value::Int(6), Value::Int(77), Value::Int(0)]])
}

fn known_token() -> Reply {
    Reply::Sets(vec![numbers(&["kind"], &[1]), written()])
}

#[tokio::test]
async fn a_known_token_is_replayed() {
    let done = CommittedTable { table_id: table(5), version: v(6), timestamp: TimestampMs(77) };
    // Found by the batch itself.
    let peer = Peer::new([known_token()]);
    let db = connect(&peer).await.unwrap();
    let outcome = db.commit(request(vec![(table(5), adds(&["a"]))])).await.unwrap();
    assert_eq!(outcome, CommitOutcome::Replayed(vec![done.clone()]));
    // Or by the primary key, when another one was faster: both numbers of a duplicate.
    for number in [2627, 2601] {
        let peer = Peer::new([Reply::Error(number, 14), Reply::Sets(vec![written()])]);
        let db = connect(&peer).await.unwrap();
        let outcome = db.commit(request(vec![(table(5), adds(&["a"]))])).await.unwrap();
        assert_eq!(outcome, CommitOutcome::Replayed(vec![done.clone()]));
    }
}

/// The error of a commit that is answered so.
async fn failed(reply: Reply) -> (CatalogError, Arc<Peer>) {
    let peer = Peer::new([reply]);
    let mut options = super::options();
    options.statement_timeout = Duration::from_millis(1500);
    let db = crate::MssqlBackend::connect_over(options, peer.clone()).await.unwrap();
    let error = db.commit(request(vec![(table(5), adds(&["a"]))])).await.plain().unwrap_err();
    // The backend goes on.
    peer.then(committed(&[(4, 1)]));
    db.commit(request(vec![(table(5), adds(&["a"]))])).await.unwrap();
    (error, peer)
}

#[tokio::test]
async fn contention_is_retryable_and_wrote_nothing() {
    for number in [1205, 3960, 1222, 40501, 40613, 10928, 49918] {
        let (error, _) = failed(Reply::Error(number, 13)).await;
        assert!(error.is_retryable(), "{number}: {error}");
        assert_eq!(error.write_state(), WriteState::NotApplied, "{number}");
        assert!(error.to_string().contains(&number.to_string()), "{error}");
    }
}

#[tokio::test]
async fn other_numbers_are_told_apart() {
    let (error, _) = failed(Reply::Error(229, 14)).await;
    assert!(!error.is_retryable() && error.to_string().contains("dl grants"), "{error}");
    let (error, _) = failed(Reply::Error(8115, 16)).await;
    assert!(!error.is_retryable());
    assert_eq!(error.write_state(), WriteState::NotApplied);
    // The server died with the answer: it may have happened.
    for (number, class) in [(596, 21), (6005, 14)] {
        let (error, _) = failed(Reply::Error(number, class)).await;
        assert!(error.is_retryable());
        assert_eq!(error.write_state(), WriteState::Unknown, "{number}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_connection_is_not_used_again() {
    for reply in [Reply::Close, Reply::Stall] {
        let (error, peer) = failed(reply).await;
        assert!(error.is_retryable());
        assert_eq!(error.write_state(), WriteState::Unknown);
        let asked = peer.asked_since_connect();
        let connections: Vec<usize> = asked.iter().map(|r| r.connection).collect();
        assert_eq!(asked.len(), 2);
        assert_ne!(connections[0], connections[1], "{asked:?}");
    }
}

/// What SQL Server ends the work by: it takes the end of the connection as a cancellation, whatever it
/// waits for. Waiting for a row ends before that, by the server's own hand.
#[tokio::test]
async fn a_call_that_times_out_or_is_dropped_closes_its_connection() {
    let (_, peer) = failed(Reply::Stall).await;
    let asked = peer.asked_since_connect();
    assert!(asked[0].sql.contains("SET LOCK_TIMEOUT 750;"), "{}", asked[0].sql);
    hung_up(&peer, 1).await;

    let peer = Peer::new([Reply::Stall]);
    let db = connect(&peer).await.unwrap();
    let commit = db.commit(request(vec![(table(5), adds(&["a"]))]));
    tokio::select! {
        outcome = commit => panic!("{outcome:?}"),
        () = async { while peer.asked_since_connect().is_empty() { tokio::task::yield_now().await } } => {}
    }
    hung_up(&peer, 1).await;
}

async fn hung_up(peer: &Peer, times: usize) {
    let wait = async {
        while peer.hung_up() < times {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    assert_eq!(peer.hung_up(), times);
}

#[tokio::test]
async fn a_commit_with_no_rows_in_its_answer_is_unknown() {
    let (error, _) = failed(Reply::Sets(Vec::new())).await;
    assert_eq!(error.write_state(), WriteState::Unknown);
}

#[tokio::test]
async fn a_dropped_future_closes_its_connection() {
    let peer = Peer::new([Reply::Stall, committed(&[(4, 1)])]);
    let db = connect(&peer).await.unwrap();
    let call = db.commit(request(vec![(table(5), adds(&["a"]))]));
    let mut call = Box::pin(call);
    while peer.asked_since_connect().is_empty() {
        let waited = tokio::time::timeout(Duration::from_millis(5), &mut call).await;
        assert!(waited.is_err(), "it stalls");
    }
    drop(call);
    db.commit(request(vec![(table(5), adds(&["a"]))])).await.unwrap();
    let asked = peer.asked_since_connect();
    assert_ne!(asked[0].connection, asked[1].connection);
}

#[tokio::test]
async fn a_large_commit_is_a_transaction_of_several_requests() {
    let paths: Vec<String> = (0..700).map(|i| format!("f{i}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let moved = ["moved", "state", "head_version", "head_timestamp_ms", "barrier_version"];
    let row = [1, 0, 4, 1000, 0].map(Value::Int);
    let mut row = row.to_vec();
    row[1] = Value::Text("active".to_owned());
    let peer = Peer::new([
        // Token, batch row, compare-and-set, outbox, totals.
        Reply::Sets(Vec::new()),
        Reply::Sets(Vec::new()),
        Reply::Sets(vec![Set(moved.to_vec(), vec![row])]),
        Reply::Sets(Vec::new()),
        Reply::Sets(vec![numbers(&["total_files", "total_bytes"], &[1, 1])]),
    ]);
    let db = connect(&peer).await.unwrap();
    let outcome = db.commit(request(vec![(table(7), adds(&paths))])).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
    let asked = peer.asked_since_connect();
    assert!(asked.iter().all(|r| r.connection == asked[0].connection));
    assert!(asked[0].sql.contains("BEGIN TRANSACTION") && asked[0].kind == Kind::Batch);
    let last = asked.last().unwrap();
    assert_eq!((last.sql.as_str(), last.kind), ("COMMIT TRANSACTION", Kind::Batch));
    assert!(asked.iter().all(|r| r.kind != Kind::TransactionManager));
    let rows: usize = asked
        .iter()
        .filter(|r| r.sql.starts_with("INSERT INTO [dbo].dl_files"))
        .inspect(|r| assert!(r.values.len() <= 2098, "{}", r.values.len()))
        .map(|r| r.sql.matches("9223372036854775807").count())
        .sum();
    assert_eq!(rows, 700);
}

#[tokio::test]
async fn a_connection_lost_before_the_end_of_a_large_commit_is_not_applied() {
    let paths: Vec<String> = (0..700).map(|i| format!("f{i}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let peer = Peer::new([Reply::Sets(Vec::new()), Reply::Close]);
    let db = connect(&peer).await.unwrap();
    let error = db.commit(request(vec![(table(7), adds(&paths))])).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.write_state(), WriteState::NotApplied);
}

/// Answers of a commit on head 3 up to the point where its files are inserted.
fn up_to_files() -> Vec<Reply> {
    let moved = ["moved", "state", "head_version", "head_timestamp_ms", "barrier_version"];
    let mut row = [1, 0, 4, 1000, 0].map(Value::Int).to_vec();
    row[1] = Value::Text("active".to_owned());
    let none = || Reply::Sets(Vec::new());
    vec![
        Reply::Sets(Vec::new()),
        none(),
        Reply::Sets(vec![Set(moved.to_vec(), vec![row])]),
        none(),
        Reply::Sets(vec![numbers(&["total_files", "total_bytes"], &[1, 1])]),
        // The table's active rows: there are fewer than keys to look up.
        none(),
    ]
}

/// The columns of `dl_files`, as the driver asks for them before a bulk load.
fn columns() -> Reply {
    let binary = ["table_id", "file_key"];
    let text = [
        "path",
        "dv_id",
        "partition_values",
        "tags",
        "deletion_vector",
        "clustering_provider",
        "stats",
    ];
    let sample = |name: &&str| match *name {
        name if binary.contains(&name) => Value::Bytes(vec![1]),
        name if text.contains(&name) => Value::Text("x".to_owned()),
        _ => Value::Int(1),
    };
    let row = crate::files::rows::COLUMNS.iter().map(sample).collect();
    Reply::Sets(vec![Set(crate::files::rows::COLUMNS.to_vec(), vec![row])])
}

#[tokio::test]
async fn many_files_go_by_the_bulk_protocol_in_the_same_transaction() {
    let paths: Vec<String> = (0..1500).map(|i| format!("f{i}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let script = up_to_files().into_iter().chain([columns()]);
    let peer = Peer::new(script);
    let db = connect(&peer).await.unwrap();
    let outcome = db.commit(request(vec![(table(7), adds(&paths))])).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
    let asked = peer.asked_since_connect();
    let begun = asked.iter().position(|r| r.sql.contains("INSERT BULK [dbo].dl_files")).unwrap();
    let loaded = asked.iter().position(|r| r.kind == Kind::Bulk).unwrap();
    let ended = asked.iter().position(|r| r.sql == "COMMIT TRANSACTION").unwrap();
    assert!(begun < loaded && loaded < ended);
    assert!(asked.iter().all(|r| !r.sql.starts_with("INSERT INTO [dbo].dl_files")));
    let wanted = "[table_id] varbinary(max), [added_version] bigint";
    assert!(asked[begun].sql.contains(wanted), "{}", asked[begun].sql);
    assert!(asked.iter().all(|r| r.connection == asked[0].connection));
}

#[tokio::test]
async fn a_server_without_bulk_loads_gets_lists_and_is_not_asked_again() {
    let paths: Vec<String> = (0..1500).map(|i| format!("f{i}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let mut script = up_to_files();
    script.extend([columns(), Reply::Error(102, 15)]);
    script.extend(up_to_files());
    let peer = Peer::new(script);
    let db = connect(&peer).await.unwrap();
    let outcome = db.commit(request(vec![(table(7), adds(&paths))])).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
    let asked = peer.asked_since_connect();
    assert_eq!(asked.iter().filter(|r| r.sql.contains("INSERT BULK")).count(), 1);
    assert_eq!(asked.iter().filter(|r| r.sql.contains("BEGIN TRANSACTION")).count(), 2);
    let rolled_back = asked.iter().position(|r| r.sql.contains("ROLLBACK")).unwrap();
    let rows: usize = asked[rolled_back..]
        .iter()
        .filter(|r| r.sql.starts_with("INSERT INTO [dbo].dl_files"))
        .map(|r| r.sql.matches("9223372036854775807").count())
        .sum();
    assert_eq!(rows, 1500);
}
