//! Lost answers and busy databases: what the contract lets a caller find out afterwards.

use std::sync::Arc;

use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{CatalogBackend, CommitOutcome};
use deltalakedb_catalog_core::error::WriteState;
use deltalakedb_catalog_engine::fault::{Fault, FaultyBackend, Verb};

use super::cases;
use crate::change::Change;
use crate::env::{CaseResult, Env, committed, retrying, v};

/// The backend of a case, with the first commit going wrong.
fn first_commit(env: &Env, fault: fn() -> Fault) -> FaultyBackend<Arc<dyn CatalogBackend>> {
    FaultyBackend::new(env.shared(), move |call| match (call.verb, call.nth) {
        (Verb::Commit, 0) => fault(),
        _ => Fault::None,
    })
}

cases! {
    /// commit 2, resolve_token 1: a commit whose answer is lost is found by its token, and repeating
    /// it writes nothing more.
    async fn a_lost_answer_is_found_by_the_token(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let db = first_commit(env, || Fault::LoseAnswer);
        let request = env.request(vec![Change::files(["a"]).exactly(id, v(0))?]);
        let error = match db.commit(request.clone()).await {
            Err(error) => error,
            Ok(outcome) => return crate::env::fail(format_args!("{outcome:?}")),
        };
        assert_eq!(error.write_state(), WriteState::Unknown);
        let found = db.resolve_token(&request.token).await?.unwrap_or_default();
        assert_eq!(found.iter().map(|w| w.version).collect::<Vec<_>>(), [v(1)]);
        assert_eq!(db.commit(request).await?, CommitOutcome::Replayed(found));
        assert_eq!(env.head(id).await?, v(1));
        Ok(())
    }

    /// resolve_token 1: a commit that never arrived has no answer, and repeating it commits.
    async fn a_lost_request_has_no_answer(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let db = first_commit(env, || Fault::LoseRequest);
        let request = env.request(vec![Change::files(["a"]).exactly(id, v(0))?]);
        assert!(db.commit(request.clone()).await.is_err());
        assert_eq!(db.resolve_token(&request.token).await?, None);
        committed(db.commit(request).await?)?;
        assert_eq!(env.paths(id, v(1)).await?, ["a"]);
        Ok(())
    }

    /// contract 2: a busy database wrote nothing; the same request goes through the next time.
    async fn a_busy_database_is_tried_again(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let db = FaultyBackend::new(env.shared(), |call| match (call.verb, call.nth) {
            (Verb::Commit, 0..=2) => Fault::Busy,
            _ => Fault::None,
        });
        let request = env.request(vec![Change::files(["a"]).append(id, v(0))?]);
        committed(retrying(|| db.commit(request.clone())).await?)?;
        assert_eq!(db.calls(Verb::Commit), 4);
        assert_eq!(env.paths(id, v(1)).await?, ["a"]);
        Ok(())
    }

    /// commit 3: writers whose answers are lost at random lose nothing and write nothing twice.
    async fn writers_with_lost_answers_write_once(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let db: Arc<dyn CatalogBackend> =
            Arc::new(FaultyBackend::new(env.shared(), |call| match (call.verb, call.nth % 5) {
                (Verb::Commit, 1) => Fault::LoseAnswer,
                (Verb::Commit, 2) => Fault::LoseRequest,
                (Verb::Commit, 4) => Fault::Busy,
                _ => Fault::None,
            }));
        let mut tasks = Vec::new();
        for w in 0..4 {
            let mut requests = Vec::new();
            for i in 0..10 {
                let part = Change::files([format!("{w}-{i}")]).append(id, v(0))?;
                requests.push(env.request(vec![part]));
            }
            let db = db.clone();
            tasks.push(tokio::spawn(async move {
                for request in requests {
                    let mut attempts = 0;
                    loop {
                        attempts += 1;
                        assert!(attempts < 1_000, "no end of faults");
                        match db.commit(request.clone()).await {
                            Ok(CommitOutcome::Committed(_) | CommitOutcome::Replayed(_)) => break,
                            Ok(other) => panic!("{other:?}"),
                            Err(_) => tokio::task::yield_now().await,
                        }
                    }
                }
            }));
        }
        for task in tasks {
            task.await?;
        }
        assert_eq!(env.head(id).await?, v(40));
        let mut paths = env.paths(id, v(40)).await?;
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), 40);
        Ok(())
    }
}
