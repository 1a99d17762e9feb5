//! Connections, reads, and what is shown of them.

use std::time::Duration;

use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::{At, TableRef};

use super::peer::{Kind, Peer, Reply, Set, Value};
use super::{connect, options, table};
use crate::MssqlBackend;
use crate::grants::{GrantRole, grants};
use crate::options::{Encrypt, MssqlOptions};

fn one_table() -> Reply {
    let names = vec![
        "id",
        "namespace",
        "name",
        "location",
        "storage_options",
        "state",
        "created_at_ms",
        "dropped_at_ms",
        "head_version",
        "head_timestamp_ms",
        "base_version",
        "barrier_version",
        "mode",
        "published_version",
        "version",
        "timestamp_ms",
        "total_files",
        "total_bytes",
        "version",
        "protocol",
        "version",
        "metadata",
    ];
    let text = |text: &str| Value::Text(text.to_owned());
    let int = Value::Int;
    let metadata = r#"{"id":"m","format":{"provider":"parquet","options":{}},
        "schemaString":"{}","partitionColumns":[],"configuration":{}}"#;
    let row = vec![
        Value::Bytes(table(7).0.as_bytes().to_vec()),
        text("ns"),
        text("t"),
        text("memory:///t"),
        text("{}"),
        text("active"),
        int(5),
        Value::NullInt,
        int(4),
        int(1000),
        int(0),
        int(0),
        text("off"),
        Value::NullInt,
        int(4),
        int(1000),
        int(3),
        int(300),
        int(0),
        text(r#"{"minReaderVersion":1,"minWriterVersion":2}"#),
        int(0),
        text(metadata),
    ];
    Reply::Sets(vec![Set(names, vec![row])])
}

#[tokio::test]
async fn opening_a_table_is_one_request() {
    let peer = Peer::new([one_table()]);
    let db = connect(&peer).await.unwrap();
    let snapshot = db.snapshot(&TableRef::Id(table(7)), At::Head).await.unwrap();
    assert_eq!((snapshot.version.get(), snapshot.num_files, snapshot.size_bytes), (4, 3, 300));
    let asked = peer.asked_since_connect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].kind, Kind::Rpc);
    assert_eq!(asked[0].values, [Value::Bytes(table(7).0.as_bytes().to_vec())]);
}

#[tokio::test]
async fn reads_are_never_unknown() {
    for reply in [Reply::Close, Reply::Error(1205, 13), Reply::Error(596, 21)] {
        let peer = Peer::new([reply]);
        let db = connect(&peer).await.unwrap();
        let error = db.snapshot(&TableRef::Id(table(7)), At::Head).await.plain().unwrap_err();
        assert!(error.is_retryable());
        assert_eq!(error.write_state(), WriteState::NotApplied);
    }
}

#[tokio::test]
async fn missing_tables_are_schema() {
    let peer = Peer::new([Reply::Error(208, 16)]);
    let db = connect(&peer).await.unwrap();
    let error = db.get_table(&TableRef::Id(table(7))).await.plain().unwrap_err();
    assert!(matches!(error, CatalogError::Schema(_)), "{error:?}");
    assert!(error.to_string().contains("dl init"), "{error}");
}

#[tokio::test]
async fn a_connection_with_an_error_on_it_is_looked_at_before_it_is_used_again() {
    let peer = Peer::new([one_table(), Reply::Error(1205, 13), one_table()]);
    let db = connect(&peer).await.unwrap();
    let open = || async { db.snapshot(&TableRef::Id(table(7)), At::Head).await };
    open().await.unwrap();
    open().await.unwrap_err();
    open().await.unwrap();
    let asked = peer.asked_since_connect();
    let recycled = |from: usize, to: usize| {
        asked[from..to].iter().filter(|r| r.sql.starts_with("IF @@TRANCOUNT > 0")).count()
    };
    assert_eq!(recycled(0, 2), 0, "a good one is used at once: {asked:?}");
    assert_eq!(recycled(2, asked.len()), 1, "{asked:?}");
    assert!(asked.iter().all(|r| r.connection == asked[0].connection));
}

#[tokio::test]
async fn old_connections_are_replaced() {
    let peer = Peer::new([one_table()]);
    let mut options = options();
    options.pool.max_lifetime = Duration::from_nanos(1);
    let db = MssqlBackend::connect_over(options, peer.clone()).await.unwrap();
    let before = peer.connections();
    db.snapshot(&TableRef::Id(table(7)), At::Head).await.unwrap();
    assert_eq!(peer.connections(), before + 1);
}

#[tokio::test]
async fn a_pool_in_use_is_busy() {
    let peer = Peer::new([Reply::Stall]);
    let mut options = options();
    options.pool.max_connections = 1;
    options.pool.acquire_timeout = Duration::from_secs(2);
    let db = MssqlBackend::connect_over(options, peer.clone()).await.unwrap();
    let blocked = db.clone();
    let call = tokio::spawn(async move {
        blocked.snapshot(&TableRef::Id(table(7)), At::Head).await.map(|_| ())
    });
    while peer.asked_since_connect().is_empty() {
        tokio::task::yield_now().await;
    }
    let error = db.snapshot(&TableRef::Id(table(7)), At::Head).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("max_connections"), "{error}");
    call.abort();
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let peer = Peer::new([]);
    let mut options = options();
    options.tls.mode = Encrypt::On;
    let error = MssqlBackend::connect_over(options, peer.clone()).await.unwrap_err();
    assert_eq!(error.write_state(), WriteState::NotApplied);
    assert_eq!(peer.asked().len(), 0, "no login in the clear");
}

#[tokio::test]
async fn the_password_is_never_shown() {
    let peer = Peer::new([Reply::Close]);
    let db = connect(&peer).await.unwrap();
    let error = db.snapshot(&TableRef::Id(table(7)), At::Head).await.unwrap_err();
    for shown in [format!("{:?}", options()), format!("{db:?}"), format!("{error:?} {error}")] {
        assert!(!shown.contains("secret-word"), "{shown}");
    }
    let bad = MssqlOptions::from_url("mssql://sa:secret-word@h/db?encrypt=maybe").unwrap_err();
    assert!(!bad.to_string().contains("secret-word"), "{bad}");
}

#[test]
fn urls_are_read_as_people_write_them() {
    let text = "mssql://us%40er:p%3Aw%2F@db.example:1444/lake?encrypt=true\
        &trust_server_certificate_ca=/etc/ca.pem&table_prefix=x_&schema=cat\
        &max_connections=3&acquireTimeout=500ms&statement-timeout=5m";
    let options = MssqlOptions::from_url(text).unwrap();
    assert_eq!((options.host.as_str(), options.port), ("db.example", 1444));
    assert_eq!((options.user.as_str(), options.password.as_deref()), ("us@er", Some("p:w/")));
    assert_eq!((options.database.as_str(), options.schema.as_str()), ("lake", "cat"));
    assert_eq!(options.table_prefix, "x_");
    assert_eq!(options.tls.ca_file.as_deref(), Some(std::path::Path::new("/etc/ca.pem")));
    assert_eq!(options.pool.max_connections, 3);
    assert_eq!(options.pool.acquire_timeout, Duration::from_millis(500));
    assert_eq!(options.statement_timeout, Duration::from_secs(300));
    for scheme in ["mssql", "sqlserver", "mssql+tiberius"] {
        let options = MssqlOptions::from_url(&format!("{scheme}://sa:x@[::1]/db")).unwrap();
        assert_eq!((options.host.as_str(), options.port), ("::1", 1433));
        assert_eq!(options.tls.mode, Encrypt::On);
    }
}

#[test]
fn wrong_options_are_refused_with_the_right_ones() {
    for (text, names) in [
        ("postgres://sa@h/db", "mssql"),
        ("mssql://sa@h/db?sslmode=require", "trust_server_certificate_ca"),
        ("mssql://sa@h/db?encrypt=maybe", "strict"),
        ("mssql://sa@h/db?max_connections=many", "max_connections"),
        ("mssql://sa@h/db?max_connections=0", "max_connections"),
        ("mssql://sa@h/db?idle_timeout=long", "idle_timeout"),
        ("mssql://sa@h/db?schema=a%5D%3B--", "schema"),
        ("mssql://sa@h/db?table_prefix=9x", "table_prefix"),
        ("mssql://sa@h", "database"),
        ("mssql://h/db", "user"),
    ] {
        let error = MssqlOptions::from_url(text).unwrap_err();
        assert!(matches!(error, CatalogError::InvalidInput(_)));
        assert!(error.to_string().contains(names), "{text}: {error}");
    }
}

#[test]
fn grants_name_every_table_and_quote_the_login() {
    let options = options();
    let writer = grants(&options, GrantRole::Writer, "et]l").unwrap();
    let reader = grants(&options, GrantRole::Reader, "bi").unwrap();
    for table in crate::schema::TABLES.iter().chain(&["schema"]) {
        let name = format!("[dbo].[dl_{table}]");
        assert!(writer.iter().any(|text| text.contains(&name) && text.contains("[et]]l]")));
        assert!(reader.iter().any(|text| text.contains(&name)));
    }
    for right in ["INSERT", "UPDATE", "DELETE"] {
        assert!(!reader.iter().any(|text| text.contains(right)), "{reader:?}");
    }
    assert!(grants(&options, GrantRole::Reader, "a\nb").is_err());
}
