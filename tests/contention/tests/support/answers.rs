//! A proxy that loses requests and answers, each in turn: a commit is made once all the same.

use deltalakedb_catalog_core::ids::{CommitToken, TableId};
use deltalakedb_catalog_engine::catalog::{Catalog, CommitBatch};
use deltalakedb_contention::check::check;
use deltalakedb_contention::claims::{Claim, Claims, Verdict};
use deltalakedb_contention::database;
use deltalakedb_contention::scenario::{Change, create};
use deltalakedb_test_servers::CountingProxy;
use uuid::Uuid;

use super::Outcome;
use super::server::{Server, Slot, lock, shared};

/// A commit over two tables, with what it reads before, has fewer requests than this.
const REQUESTS: u64 = 12;

/// Cuts the connection at the first request of a commit, the second, and so on: before it reaches
/// the server, and after it did. The core finds out by the token what became of it.
pub(crate) fn lost_answers<S: Server>(slot: &Slot<S>) -> Outcome {
    let server = shared(slot)?;
    let (port, direct) = {
        let server = lock(&server);
        (server.port(), server.url())
    };
    let proxy = CountingProxy::start(port)?;
    let through = lock(&server).url_at(proxy.port());
    let runtime = tokio::runtime::Runtime::new()?;
    let (cut, commits) = runtime.block_on(async {
        let catalog = database::catalog(&through).await?;
        catalog.backend().migrate(catalog.clock().now()).await?;
        let run = Uuid::new_v4().simple().to_string();
        let setup = format!("{run}-setup");
        let batch = CommitBatch {
            token: Some(CommitToken::new(setup.clone())?),
            tables: vec![create(&run, 0)?, create(&run, 1)?],
        };
        let report = catalog.commit(batch).await?;
        let tables: Vec<TableId> = report.tables.iter().map(|table| table.table_id).collect();
        let mut claims = Claims::default();
        let mut cut = 0;
        for number in 1..=REQUESTS {
            for reaches_server in [true, false] {
                if reaches_server {
                    proxy.cut_after_request(number, b"");
                } else {
                    proxy.cut_before_request(number, b"");
                }
                let token = format!("{run}-{number}-{reaches_server}");

                let claim = commit(&catalog, &token, &tables).await?;
                claims.by_token.insert(token, claim);
                cut += u64::from(!proxy.is_armed());
            }
        }
        // The last may still wait for its request.
        drop(catalog);
        let found = check(&database::catalog(&direct).await?, &setup, &tables, &claims).await?;
        anyhow::ensure!(found.acknowledged == 2 * REQUESTS, "{found:?}");
        anyhow::ensure!(cut >= 4, "only {cut} connections were cut");
        anyhow::Ok((cut, found.acknowledged))
    })?;
    Ok(format!("lost answers: {commits} commits, each made once; {cut} were cut off"))
}

async fn commit(catalog: &Catalog, token: &str, tables: &[TableId]) -> anyhow::Result<Claim> {
    let changes: Vec<Change> = tables
        .iter()
        .map(|table| Change::append(*table, vec![format!("{token}-{table}.parquet")]))
        .collect();
    let batch = CommitBatch {
        token: Some(CommitToken::new(token)?),
        tables: changes.iter().map(Change::build).collect(),
    };
    let report = catalog.commit(batch).await?;
    Ok(Claim {
        changes: changes.into_iter().map(|change| (change.table_id, change.files)).collect(),
        verdict: Verdict::Committed(report.tables.iter().map(Into::into).collect()),
    })
}
