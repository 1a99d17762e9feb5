//! A catalog, and who holds its tables.

use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::PlainResult;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use deltalakedb_backend_postgres::PostgresBackend;
use deltalakedb_catalog_core::backend::{CommitOutcome, CommitRequest, TableCommit};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{At, CommitToken, TableId, TableName, TableRef, TimestampMs};
use deltalakedb_conformance::change::{Change, new_table};
use deltalakedb_conformance::env::{all_files, v};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::{Guard, options};

pub(crate) const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

pub(crate) struct World {
    pub(crate) db: Arc<PostgresBackend>,
    /// The first of them.
    pub(crate) table: TableId,
    pub(crate) tables: Vec<TableId>,
    /// Holds rows of tables.
    pub(crate) holder: PgConnection,
    pub(crate) schema: String,
    pub(crate) guard: Guard,
}

pub(crate) fn request(token: &str, tables: Vec<TableCommit>) -> CommitRequest {
    CommitRequest { token: CommitToken::new(token).unwrap(), now: NOW, tables }
}

impl World {
    /// A table at version 0 with one file; none where there is no server.
    pub(crate) async fn new() -> Option<World> {
        World::with(1, 12).await
    }

    /// Several of them, and a pool of so many connections.
    pub(crate) async fn with(tables: usize, connections: u32) -> Option<World> {
        let admin = match deltalakedb_test_servers::shared_postgres() {
            Ok(url) => url,
            Err(why) => {
                deltalakedb_test_servers::skip(&["postgres"], why);
                return None;
            }
        };
        let schema = format!("dl_groups_{}", Uuid::new_v4().simple());
        let mut options = options(&format!("{admin}#{schema}")).unwrap();
        options.pool.max_connections = connections;
        // By which its sessions are found.
        options.application_name.clone_from(&schema);
        let db = PostgresBackend::connect(options).await.unwrap();
        db.migrate(NOW).await.unwrap();
        let tables: Vec<TableId> = (0..tables).map(|_| TableId(Uuid::new_v4())).collect();
        let creates = (0..).zip(&tables).map(|(n, table)| {
            let new = new_table(*table, TableName::new("g", format!("t{n}")).unwrap());
            Change::files(["first"]).create(new).unwrap()
        });
        db.commit(request("create", creates.collect())).await.unwrap();
        let holder = PgConnection::connect(&admin).await.unwrap();
        let guard = Guard { admin, schema: schema.clone() };
        Some(World { db, table: tables[0], tables, holder, schema, guard })
    }

    /// Nobody commits from now on.
    pub(crate) async fn hold(&mut self) {
        let sql = format!("BEGIN; SELECT 1 FROM {}.dl_tables FOR UPDATE", self.schema);
        self.holder.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }

    /// Somebody else has these tables from now on, until the connection ends its transaction.
    pub(crate) async fn held(&self, tables: &[TableId]) -> PgConnection {
        let ids: Vec<String> = tables.iter().map(|table| format!("'{table}'")).collect();
        let sql = format!(
            "BEGIN; SELECT 1 FROM {}.dl_tables WHERE id IN ({}) FOR UPDATE",
            self.schema,
            ids.join(", ")
        );
        let mut holder = PgConnection::connect(&self.guard.admin).await.unwrap();
        holder.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        holder
    }

    pub(crate) async fn release(&mut self) {
        self.holder.execute("COMMIT").await.unwrap();
    }

    /// Waits until so many statements on this catalog wait for a lock at the server, bounded.
    pub(crate) async fn waiting(&self, wanted: i64) {
        let mut admin = PgConnection::connect(&self.guard.admin).await.unwrap();
        let sql = "SELECT count(*) FROM pg_stat_activity
             WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid()
               AND (application_name = $1 OR query LIKE '%' || $1 || '%')";
        let began = Instant::now();
        loop {
            // By name: the server shows only the beginning of a long statement.
            let row = sqlx::query(sql).bind(&self.schema).fetch_one(&mut admin);
            let found: i64 = row.await.unwrap().get(0);
            if found >= wanted {
                return;
            }
            let late = began.elapsed() > Duration::from_secs(30);
            assert!(!late, "{found} of {wanted} statements wait");
        }
    }

    /// Starts a commit. When this returns, it is in the queue, or on its way to the server: both is
    /// decided at the first look at it.
    pub(crate) async fn start(
        &self,
        token: &str,
        commit: TableCommit,
    ) -> JoinHandle<Result<CommitOutcome>> {
        let (db, request) = (Arc::clone(&self.db), request(token, vec![commit]));
        let mut call = Box::pin(async move { db.commit(request).await.plain() });
        match poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
            Poll::Ready(done) => tokio::spawn(async { done }),
            Poll::Pending => tokio::spawn(call),
        }
    }

    pub(crate) fn append(&self, files: &[&str]) -> TableCommit {
        Change::files(files.iter().copied()).append(self.table, v(0)).unwrap()
    }

    pub(crate) async fn paths(&self) -> Vec<String> {
        self.paths_of(self.table).await
    }

    /// Files at the head, which the totals of its commit agree with.
    pub(crate) async fn paths_of(&self, table: TableId) -> Vec<String> {
        let head = self.db.snapshot(&TableRef::Id(table), At::Head).await.unwrap();
        let files = all_files(self.db.as_ref(), table, head.version, 100).await.unwrap();
        assert_eq!(u64::try_from(files.len()).unwrap(), head.num_files);
        assert_eq!(
            files.iter().map(|f| f.add.size).sum::<i64>(),
            i64::try_from(head.size_bytes).unwrap()
        );
        files.into_iter().map(|f| f.add.path).collect()
    }
}

pub(crate) fn version(outcome: &CommitOutcome) -> i64 {
    match outcome {
        CommitOutcome::Committed(tables) => tables[0].version.get(),
        other => panic!("{other:?}"),
    }
}
