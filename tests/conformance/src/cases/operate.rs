//! `pool_stats` and `close`.

use std::time::Duration;

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::{CatalogBackend, CommitOutcome, PoolStats};
use deltalakedb_catalog_core::error::{CatalogError, PlainResult};
use deltalakedb_catalog_core::ids::TableRef;
use futures::FutureExt;

use super::cases;
use crate::change::Change;
use crate::env::{CaseResult, Env, Halt, fail, name, retrying, together, v};

/// How often, and with which pause, a state is waited for.
const LOOKS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

fn pool(db: &dyn CatalogBackend) -> CaseResult<PoolStats> {
    db.pool_stats().ok_or_else(|| Halt::Skip("it has no limited number of connections".to_owned()))
}

/// Whether a call failed because the backend was closed.
fn says_closed<T: std::fmt::Debug>(answer: Result<T, impl Into<CatalogError>>) -> CaseResult {
    match answer.plain() {
        Err(CatalogError::Unavailable { message, retryable: false, .. })
            if message.contains("closed the catalog") =>
        {
            Ok(())
        }
        other => fail(format_args!("after close: {other:?}")),
    }
}

cases! {
    /// pool_stats 1: within its limit, also while calls run, and counters do not go down.
    async fn a_pool_tells_its_connections_and_keeps_its_limit(env: &Env) -> CaseResult {
        pool(env.db())?;
        let id = env.create("t").await?;
        let mut before = pool(env.db())?;
        for round in 0..5 {
            let calls = (0..40).map(|call| {
                let db = env.shared();
                async move {
                    let (seen, table) = (db.pool_stats(), TableRef::Id(id));
                    retrying(|| db.get_table(&table)).await?;
                    Ok::<_, CatalogError>((call, seen))
                }
            });
            for answer in together(calls).await? {
                let (call, seen) = answer?;
                let seen = seen.unwrap_or_default();
                assert!(seen.limit >= 1, "{round}, {call}: {seen:?}");
                assert!(seen.active + seen.idle <= seen.limit, "{round}, {call}: {seen:?}");
            }
            let now = pool(env.db())?;
            assert!(now.waits_total >= before.waits_total, "{before:?} {now:?}");
            assert!(now.wait_us_total >= before.wait_us_total, "{before:?} {now:?}");
            before = now;
        }
        Ok(())
    }

    /// pool_stats 2: after the answers, and after calls that nobody waits for, no connection is in use.
    async fn a_call_that_was_answered_uses_no_connection(env: &Env) -> CaseResult {
        pool(env.db())?;
        let id = env.create("t").await?;
        for i in 0..10 {
            env.write(id, Change::files([format!("f{i}")])).await?;
            let db = env.shared();
            // One poll, then the future is gone.
            drop(db.get_table(&TableRef::Id(id)).now_or_never());
        }
        for _ in 0..LOOKS {
            if pool(env.db())?.active == 0 {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        fail(format_args!("nobody calls: {:?}", pool(env.db())?))
    }

    /// close 1, 3: later calls of all parts fail, say why, and write nothing; also after a second close.
    async fn calls_after_close_fail_and_write_nothing(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let [db, other] = env.two_handles().await?;
        db.close().await?;
        let part = Change::files(["late"]).append(id, v(0))?;
        let request = env.request(vec![part]);
        for _ in 0..2 {
            says_closed(db.get_table(&TableRef::Id(id)).await)?;
            says_closed(db.list_files(id, v(0), None, 10).await)?;
            says_closed(db.commit(request.clone()).await)?;
            says_closed(db.resolve_token(&request.token).await)?;
            says_closed(db.mirror_claim(&env.claim_by("w")).await)?;
            says_closed(db.drop_table(id, &Act::at(env.now())).await)?;
            says_closed(db.info().await)?;
            says_closed(db.migrate(env.now()).await)?;
            db.close().await?;
        }
        // Where a handle is all there is, it was closed too.
        if let Ok(found) = other.get_table(&TableRef::Name(name("t"))).await {
            assert_eq!(found.and_then(|table| table.head), Some(v(0)));
            assert_eq!(retrying(|| other.resolve_token(&request.token)).await?, None);
        }
        Ok(())
    }

    /// close 2: of commits that are under way, each is acknowledged and there, or failed and is not.
    async fn commits_under_way_end_as_a_whole(env: &Env) -> CaseResult {
        let ids = [env.create("a").await?, env.create("b").await?, env.create("c").await?];
        let [db, other] = env.two_handles().await?;
        let mut requests = Vec::new();
        for id in ids {
            requests.push(env.request(vec![Change::files(["f"]).append(id, v(0))?]));
        }
        let commits = requests.iter().map(|request| db.commit(request.clone()));
        let (answers, closed) = futures::join!(futures::future::join_all(commits), db.close());
        closed?;
        let looks = other.info().await.is_ok();
        for (answer, request) in answers.into_iter().zip(&requests) {
            match answer.plain() {
                Ok(CommitOutcome::Committed(written)) if looks => {
                    let found = retrying(|| other.resolve_token(&request.token)).await?;
                    assert_eq!(found, Some(written), "it was acknowledged");
                }
                Ok(CommitOutcome::Committed(_)) => {}
                Ok(other) => return fail(format_args!("{other:?}")),
                Err(error) => {
                    let code = error.code();
                    assert!(["unavailable", "busy"].contains(&code), "{error}");
                }
            }
        }
        Ok(())
    }

    /// close 4: a future that was polled once has closed it, and no connection stays.
    async fn a_close_that_nobody_waits_for_takes_effect(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let db = env.shared();
        drop(db.close().now_or_never());
        says_closed(db.get_table(&TableRef::Id(id)).await)?;
        for _ in 0..LOOKS {
            match db.pool_stats() {
                Some(stats) if stats.active + stats.idle > 0 => {}
                _ => return Ok(()),
            }
            tokio::time::sleep(PAUSE).await;
        }
        fail(format_args!("connections are left: {:?}", db.pool_stats()))
    }
}
