//! Several writers and readers on two handles: what two processes would do.

use std::collections::BTreeSet;
use std::sync::Arc;

use deltalakedb_catalog_core::backend::{
    CatalogBackend, CommitOutcome, CommitRequest, Rejection, TableFilter,
};
use deltalakedb_catalog_core::ids::{At, TableId, TableRef};
use futures::FutureExt;

use super::cases;
use crate::change::{Change, file, gone};
use crate::env::{CaseResult, Env, Halt, all_files, committed, fail, retrying, together, v};

const WRITERS: usize = 8;

/// Runs one task a writer and collects what they answer.
async fn race<T: Send + 'static, F>(tasks: impl IntoIterator<Item = F>) -> CaseResult<Vec<T>>
where
    F: Future<Output = CaseResult<T>> + Send + 'static,
{
    together(tasks).await?.into_iter().collect()
}

async fn send(db: &dyn CatalogBackend, request: &CommitRequest) -> CaseResult<CommitOutcome> {
    Ok(retrying(|| db.commit(request.clone())).await?)
}

/// Replaces the single file of a table by another one, reading and trying again until it is done.
async fn replace_the_file(
    db: Arc<dyn CatalogBackend>,
    id: TableId,
    requests: Vec<(String, CommitRequest)>,
) -> CaseResult<()> {
    let table = TableRef::Id(id);
    for (path, template) in requests {
        // Each turn that fails is one that another writer won: the whole ends.
        loop {
            let head = retrying(|| db.snapshot(&table, At::Head)).await?.version;
            let files = retrying(|| all_files(&*db, id, head, 10)).await?;
            let [old] = files.as_slice() else {
                return fail(format_args!("version {head} has files {files:?}"));
            };
            let change = Change::files([&path]).remove(gone(&old.add, Some(1)));
            let mut request = template.clone();
            request.tables = vec![change.exactly(id, head)?];
            match send(&*db, &request).await? {
                CommitOutcome::Committed(_) => break,
                CommitOutcome::HeadMoved { .. } => tokio::task::yield_now().await,
                other => return fail(format_args!("{other:?}")),
            }
        }
    }
    Ok(())
}

cases! {
    /// commit 3: of writers that race with `Exactly` on one head, exactly one is admitted.
    async fn racing_writers_admit_one(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let id = env.create("t").await?;
        for round in 0..10 {
            let mut tasks = Vec::new();
            for w in 0..WRITERS {
                let part = Change::files([format!("{round}-{w}")]).exactly(id, v(round))?;
                let (db, request) = (handles[w % 2].clone(), env.request(vec![part]));
                tasks.push(async move { send(&*db, &request).await });
            }
            let outcomes = race(tasks).await?;
            let won = outcomes.iter().filter(|o| matches!(o, CommitOutcome::Committed(_))).count();
            let moved = CommitOutcome::HeadMoved { index: 0, head: v(round + 1) };
            let lost = outcomes.iter().filter(|o| **o == moved).count();
            assert_eq!((won, lost), (1, WRITERS - 1), "{outcomes:?}");
        }
        let files = env.files(id, v(10)).await?;
        assert_eq!(files.len(), 10);
        Ok(())
    }

    /// commit 3, 11: racing appends are all admitted: none lost, no gap, no version twice.
    async fn racing_appends_lose_none(env: &Env) -> CaseResult {
        const APPENDS: usize = 12;
        let handles = env.two_handles().await?;
        let id = env.create("t").await?;
        let mut tasks = Vec::new();
        for w in 0..WRITERS {
            let mut requests = Vec::new();
            for i in 0..APPENDS {
                let part = Change::files([format!("{w}-{i}")]).append(id, v(0))?;
                requests.push(env.request(vec![part]));
            }
            let db = handles[w % 2].clone();
            tasks.push(async move {
                let mut versions = Vec::new();
                for request in requests {
                    let written = committed(send(&*db, &request).await?)?;
                    versions.push(written[0].version.get());
                }
                Ok(versions)
            });
        }
        let all = race(tasks).await?;
        for versions in &all {
            assert!(versions.is_sorted(), "a writer's own versions grow: {versions:?}");
        }
        let total = i64::try_from(WRITERS * APPENDS)?;
        let mut versions: Vec<_> = all.into_iter().flatten().collect();
        versions.sort_unstable();
        assert_eq!(versions, (1..=total).collect::<Vec<_>>());
        let paths: BTreeSet<_> = env.paths(id, v(total)).await?.into_iter().collect();
        let want: BTreeSet<_> =
            (0..WRITERS).flat_map(|w| (0..APPENDS).map(move |i| format!("{w}-{i}"))).collect();
        assert_eq!(paths, want);
        let history = env.history(id).await?;
        assert!(history.windows(2).all(|w| w[0].timestamp > w[1].timestamp), "commit 4");
        for record in &history {
            assert_eq!(record.total_files, u64::try_from(record.version.get())?);
        }
        assert_eq!(env.outbox(Some(id), None).await?.len(), history.len());
        Ok(())
    }

    /// commit 3, 5: read, decide, write: no update is lost and no file is removed twice.
    async fn read_modify_write_loses_no_update(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let id = env.create_with("t", Change::files(["start"])).await?;
        let tasks: Vec<_> = (0..4)
            .map(|w: usize| {
                let requests = (0..5)
                    .map(|i| (format!("{w}-{i}"), env.request(Vec::new())))
                    .collect::<Vec<_>>();
                replace_the_file(handles[w % 2].clone(), id, requests)
            })
            .collect();
        race(tasks).await?;
        assert_eq!(env.head(id).await?, v(20));
        for version in 0..=20 {
            assert_eq!(env.files(id, v(version)).await?.len(), 1, "at version {version}");
        }
        assert_eq!(env.tombstones(id, v(20), 0).await?.len(), 20);
        Ok(())
    }

    /// commit 5: of racing removes of one file with `Append`, exactly one is admitted.
    async fn racing_removes_of_one_file_admit_one(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let id = env.create_with("t", Change::files(["a"])).await?;
        let mut tasks = Vec::new();
        for w in 0..WRITERS {
            let change = Change::files([format!("n{w}")]).remove(gone(&file("a"), Some(1)));
            let request = env.request(vec![change.append(id, v(0))?]);
            let db = handles[w % 2].clone();
            tasks.push(async move { send(&*db, &request).await });
        }
        let (mut won, mut lost) = (0, 0);
        for outcome in race(tasks).await? {
            match outcome {
                CommitOutcome::Committed(_) => won += 1,
                CommitOutcome::Rejected { index: 0, reason: Rejection::FileNotActive { .. } } => {
                    lost += 1;
                }
                other => return fail(format_args!("{other:?}")),
            }
        }
        assert_eq!((won, lost), (1, WRITERS - 1));
        assert_eq!(env.head(id).await?, v(1));
        Ok(())
    }

    /// commit 1: batches over the same tables in opposite orders all get through.
    async fn batches_in_opposite_orders_all_commit(env: &Env) -> CaseResult {
        const BATCHES: usize = 10;
        let handles = env.two_handles().await?;
        let ids = [env.create("a").await?, env.create("b").await?, env.create("c").await?];
        let orders = [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]];
        let mut tasks = Vec::new();
        for (w, order) in orders.into_iter().enumerate() {
            let mut requests = Vec::new();
            for i in 0..BATCHES {
                let mut parts = Vec::new();
                for t in order {
                    parts.push(Change::files([format!("{w}-{i}")]).append(ids[t], v(0))?);
                }
                requests.push(env.request(parts));
            }
            let db = handles[w % 2].clone();
            tasks.push(async move {
                for request in requests {
                    committed(send(&*db, &request).await?)?;
                }
                Ok(())
            });
        }
        race(tasks).await?;
        let total = i64::try_from(orders.len() * BATCHES)?;
        for id in ids {
            assert_eq!(env.head(id).await?, v(total));
            assert_eq!(i64::try_from(env.files(id, v(total)).await?.len()), Ok(total));
        }
        Ok(())
    }

    /// commit 1: a reader never sees a part of a batch: tables that are only written together
    /// always have the same head in one listing.
    async fn readers_see_whole_batches(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let ids = [env.create("a").await?, env.create("b").await?, env.create("c").await?];
        let mut requests = Vec::new();
        for i in 0..40 {
            let mut parts = Vec::new();
            for id in ids {
                parts.push(Change::files([format!("f{i}")]).append(id, v(0))?);
            }
            requests.push(env.request(parts));
        }
        let writer = handles[0].clone();
        let writing = tokio::spawn(async move {
            for request in requests {
                committed(send(&*writer, &request).await?)?;
            }
            Ok::<(), Halt>(())
        });
        let all = TableFilter::default();
        loop {
            let done = writing.is_finished();
            let page = retrying(|| handles[1].list_tables(&all, None, 10));
            let heads: BTreeSet<_> = page.await?.items.into_iter().map(|t| t.head).collect();
            assert_eq!(heads.len(), 1, "{heads:?}");
            if done {
                break;
            }
        }
        writing.await??;
        assert_eq!(env.head(ids[2]).await?, v(40));
        Ok(())
    }

    /// snapshot 2: while commits go on, a snapshot is of one version in all of its parts.
    async fn snapshots_are_whole_while_commits_go_on(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let id = env.create("t").await?;
        let mut requests = Vec::new();
        for i in 0..40 {
            let change = Change::files([format!("f{i}")])
                .metadata(crate::change::metadata(&format!("m{}", i + 1)));
            requests.push(env.request(vec![change.exactly(id, v(i))?]));
        }
        let writer = handles[0].clone();
        let writing = tokio::spawn(async move {
            for request in requests {
                committed(send(&*writer, &request).await?)?;
            }
            Ok::<(), Halt>(())
        });
        let table = TableRef::Id(id);
        loop {
            let done = writing.is_finished();
            let s = retrying(|| handles[1].snapshot(&table, At::Head)).await?;
            assert_eq!(s.num_files, u64::try_from(s.version.get())?, "{s:?}");
            assert_eq!(s.metadata_version, s.version);
            if s.version > v(0) {
                assert_eq!(s.metadata.description, Some(format!("m{}", s.version)));
            }
            assert!(s.table.head >= Some(s.version), "{s:?}");
            let files = retrying(|| all_files(&*handles[1], id, s.version, 7)).await?;
            assert_eq!(u64::try_from(files.len())?, s.num_files);
            if done {
                break;
            }
        }
        writing.await??;
        Ok(())
    }

    /// contract 4: what was acknowledged before a read began is seen by it, on every handle.
    async fn an_acknowledged_commit_is_seen_everywhere(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let id = env.create("t").await?;
        for i in 0..20 {
            let (here, there) = (usize::try_from(i % 2)?, usize::try_from((i + 1) % 2)?);
            let request = env.request(vec![Change::files([format!("f{i}")]).append(id, v(0))?]);
            committed(send(&*handles[here], &request).await?)?;
            let snapshot = handles[there].snapshot(&TableRef::Id(id), At::Head).await?;
            assert_eq!(snapshot.version, v(i + 1));
        }
        Ok(())
    }

    /// contract 1: a call whose future is dropped is done as a whole or not at all, and the handle
    /// stays usable.
    async fn a_dropped_call_is_all_or_nothing(env: &Env) -> CaseResult {
        let ids = [env.create("a").await?, env.create("b").await?];
        let db = env.shared();
        for i in 0..20 {
            let parts = vec![
                Change::files([format!("f{i}")]).append(ids[0], v(0))?,
                Change::files([format!("f{i}")]).append(ids[1], v(0))?,
            ];
            let request = env.request(parts);
            // One poll, then the future is gone.
            drop(db.commit(request.clone()).now_or_never());
            let before = retrying(|| db.resolve_token(&request.token)).await?;
            // The first call may still be under way: the same token settles it.
            let settled = match retrying(|| db.commit(request.clone())).await? {
                CommitOutcome::Committed(written) => {
                    assert_eq!(before, None, "it was there, and was committed again");
                    written
                }
                CommitOutcome::Replayed(written) => written,
                other => return fail(format_args!("{other:?}")),
            };
            assert!(settled.iter().all(|w| w.version == v(i + 1)), "{settled:?}");
        }
        for id in ids {
            assert_eq!(env.head(id).await?, v(20));
            assert_eq!(env.files(id, v(20)).await?.len(), 20);
        }
        Ok(())
    }
}
