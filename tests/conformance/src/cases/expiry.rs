//! What grows old goes: tokens are forgotten, and so are the rows of what was published long ago.

use std::collections::BTreeSet;

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, Expiry, ImportEnd, ImportedCommit, MirrorLease, Published,
};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TimestampMs};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorState};

use super::cases;
use super::outbox::{failure, table};
use crate::change::{Change, metadata, protocol};
use crate::env::{
    CaseResult, Env, TableDump, clear_outbox, committed, fail, finish_import, forget_tokens,
    retrying, together, v,
};

/// What a page of a few looks at.
const FEW: usize = 3;

fn expiry(before: TimestampMs, limit: usize) -> Expiry {
    Expiry { before, limit, dry_run: false }
}

/// A commit of a few tables under a token.
async fn batch(env: &Env, token: &CommitToken, ids: &[TableId]) -> CaseResult<CommitOutcome> {
    let mut tables = Vec::new();
    for id in ids {
        tables.push(Change::files([format!("{token}-{id}")]).append(*id, v(0))?);
    }
    let request = CommitRequest { token: token.clone(), now: env.now(), tables };
    Ok(retrying(|| env.db().commit(request.clone())).await?)
}

/// The same without tokens.
fn without_tokens(mut dump: TableDump) -> TableDump {
    for commit in &mut dump.commits {
        commit.token = None;
        commit.batch_position = None;
    }
    dump
}

fn tokens_of(dump: &TableDump) -> Vec<Option<&str>> {
    dump.commits.iter().map(|c| c.token.as_ref().map(CommitToken::as_str)).collect()
}

/// Versions of a table that have a row, complete or not.
async fn rows(env: &Env, id: TableId) -> CaseResult<Vec<(i64, MirrorState)>> {
    let mut rows = env.outbox(Some(id), None).await?;
    rows.extend(env.outbox(Some(id), Some(MirrorState::Complete)).await?);
    rows.sort_by_key(|row| row.version);
    Ok(rows.into_iter().map(|row| (row.version.get(), row.state)).collect())
}

/// Publishes versions of a table, each at the time of its number.
async fn publish(
    env: &Env,
    id: TableId,
    versions: std::ops::RangeInclusive<i64>,
) -> CaseResult<MirrorLease> {
    let mut request = env.claim_by("worker");
    request.only = Some(id);
    let task = env.claim_one(&request).await?;
    let done: Vec<_> = versions
        .map(|n| Published { version: v(n), digest: format!("d{n}"), at: TimestampMs(n) })
        .collect();
    assert!(env.db().mirror_complete(&task.lease, &done).await?);
    Ok(task.lease)
}

cases! {
    /// expire_tokens 1, 2, 4: a token that is old is as one that was never used; a younger one replays. All else
    /// stays to the byte.
    async fn an_old_token_is_as_one_that_was_never_used(env: &Env) -> CaseResult {
        let (a, b) = (env.create("a").await?, env.create("b").await?);
        let dropped = env.create("dropped").await?;
        let [old, young] = [env.token(), env.token()];
        committed(batch(env, &old, &[b, a]).await?)?;
        env.db().drop_table(dropped, &Act::at(env.now())).await?;
        let before = env.now();
        let written = committed(batch(env, &young, &[a, b]).await?)?;
        let dumps = [env.dump(a).await?, env.dump(b).await?, env.dump(dropped).await?];
        let (gone, _) = forget_tokens(env.db(), expiry(before, FEW)).await?;
        assert_eq!(gone, 4, "three creates, and a batch over two tables");
        for (id, was) in [a, b, dropped].into_iter().zip(dumps) {
            let is = env.dump(id).await?;
            let kept = if id == dropped { vec![None] } else { vec![Some(young.as_str()), None, None] };
            assert_eq!(tokens_of(&is), kept);
            assert!(is.commits.iter().all(|c| c.token.is_some() == c.batch_position.is_some()));
            assert_eq!(without_tokens(is), without_tokens(was));
        }
        assert_eq!(env.db().resolve_token(&old).await?, None);
        assert_eq!(env.db().resolve_token(&young).await?, Some(written.clone()));
        assert_eq!(batch(env, &young, &[a]).await?, CommitOutcome::Replayed(written));
        // Used again, on one of its tables: it is a new commit, and has written that alone.
        let again = committed(batch(env, &old, &[a]).await?)?;
        assert_eq!((again.len(), again[0].table_id, again[0].version), (1, a, v(3)));
        assert_eq!(env.db().resolve_token(&old).await?, Some(again.clone()));
        assert_eq!(batch(env, &old, &[b]).await?, CommitOutcome::Replayed(again));
        Ok(())
    }

    /// expire_tokens 2: what counts is the newest commit of a batch, by the table's time: it may run ahead.
    async fn a_token_is_as_young_as_its_newest_commit(env: &Env) -> CaseResult {
        let (a, ahead) = (env.create("a").await?, env.create("ahead").await?);
        let far = env.now().plus_ms(1_000_000);
        let part = Change::new().append(ahead, v(0))?;
        let request = CommitRequest { token: env.token(), now: far, tables: vec![part] };
        committed(env.db().commit(request).await?)?;
        let token = env.token();
        let written = committed(batch(env, &token, &[a, ahead]).await?)?;
        let newest = written.iter().map(|w| w.timestamp).max().unwrap_or(far);
        assert!(newest > far);
        for before in [far, newest] {
            forget_tokens(env.db(), expiry(before, FEW)).await?;
            assert_eq!(env.db().resolve_token(&token).await?, Some(written.clone()));
        }
        let (gone, _) = forget_tokens(env.db(), expiry(newest.plus_ms(1), FEW)).await?;
        assert_eq!((gone, env.db().resolve_token(&token).await?), (1, None));
        Ok(())
    }

    /// expire_tokens 3, 7: pages are bounded and follow one another in the order of the tokens' bytes, whether
    /// something goes or not; a dry run counts the same and writes nothing.
    async fn pages_of_tokens_are_bounded(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        // In the order of their bytes, which is not that of any language.
        let names = ["!", "A", "Z-1", "Z-10", "Z-2", "_", "a", "b", "~"];
        for name in names.iter().rev() {
            committed(batch(env, &CommitToken::new(*name)?, &[id]).await?)?;
        }
        let late = env.now().plus_ms(10_000);
        let token = |n: usize| CommitToken::new(names[n]).ok();
        let create = env.history(id).await?.last().and_then(|c| c.token.clone());
        let Some(create) = create else { return fail("the create has no token") };
        let (count, pages) = forget_tokens(env.db(), Expiry { dry_run: true, ..expiry(late, 4) }).await?;
        assert_eq!((count, pages), (10, 3));
        assert!(env.db().resolve_token(&create).await?.is_some(), "nothing was written");
        // Nothing is old: the cursor moves on.
        let page = env.db().expire_tokens(expiry(TimestampMs(0), 2), None).await?;
        assert_eq!((page.removed, page.next), (0, token(1)));
        let page = env.db().expire_tokens(expiry(late, 0), token(1).as_ref()).await?;
        assert_eq!((page.removed, page.next), (1, token(2)), "no limit is one");
        assert_eq!(env.db().resolve_token(&create).await?.map(|w| w.len()), Some(1));
        assert!(token(1).is_some_and(|t| !t.as_str().is_empty()));
        let page = env.db().expire_tokens(expiry(late, 4), token(2).as_ref()).await?;
        assert_eq!((page.removed, page.next), (4, token(6)));
        let page = env.db().expire_tokens(expiry(late, 3), token(6).as_ref()).await?;
        assert_eq!((page.removed, page.next), (3, None), "what is left is a page to the dot");
        let left: BTreeSet<_> =
            env.history(id).await?.into_iter().filter_map(|c| c.token).map(|t| t.to_string()).collect();
        assert_eq!(left, BTreeSet::from(["!".to_owned(), "A".to_owned()]));
        let last = env.db().expire_tokens(expiry(late, 9), token(8).as_ref()).await?;
        assert_eq!((last.removed, last.next), (0, None));
        Ok(())
    }

    /// expire_tokens 5: while a table is imported, its tokens stay, and so does the rest of their batches.
    async fn tokens_of_an_import_stay(env: &Env) -> CaseResult {
        let tables = ["first", "second"].map(|table| env.new_table(table));
        let token = CommitToken::new("of-both")?;
        let part = |position: u32| -> CaseResult<ImportedCommit> {
            let change = Change::new().protocol(protocol(2)).metadata(metadata("m"));
            let mut commit = change.imported(v(0), 100)?;
            commit.token = Some((token.clone(), position));
            Ok(commit)
        };
        let late = env.now().plus_ms(1_000_000);
        for (new, position) in tables.iter().zip(0..) {
            env.db().import_begin(new, v(0), true, env.now()).await?;
            env.db().import_commits(new.id, vec![part(position)?].into()).await?;
            let (gone, _) = forget_tokens(env.db(), expiry(late, FEW)).await?;
            assert_eq!(gone, 0);
        }
        finish_import(env.db(), tables[0].id, env.now()).await?;
        forget_tokens(env.db(), expiry(late, FEW)).await?;
        let found = env.db().resolve_token(&token).await?;
        assert_eq!(found.map(|w| w.len()), Some(2), "one of them is imported still");
        env.db().import_finish(tables[1].id, ImportEnd::default(), &Act::at(env.now())).await?;
        let (gone, _) = forget_tokens(env.db(), expiry(late, FEW)).await?;
        assert_eq!((gone, env.db().resolve_token(&token).await?), (1, None));
        Ok(())
    }

    /// expire_tokens 6: commits with tokens that are forgotten at the same time replay the whole batch, or are new.
    async fn a_commit_replays_the_whole_batch_or_is_new(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let mut ids = Vec::new();
        for name in ["a", "b", "c"] {
            ids.push(env.create(name).await?);
        }
        for round in 0..12 {
            let token = CommitToken::new(format!("round-{round}"))?;
            let written = committed(batch(env, &token, &ids).await?)?;
            let before = env.now().plus_ms(1);
            let part = Change::files([format!("again-{round}")]).append(ids[0], v(0))?;
            let request = CommitRequest { token: token.clone(), now: env.now(), tables: vec![part] };
            let expiring = {
                let db = handles[1].clone();
                async move { retrying(|| db.expire_tokens(expiry(before, 1_000), None)).await.map(|_| None) }
            };
            let committing = {
                let (db, request) = (handles[0].clone(), request.clone());
                async move { retrying(|| db.commit(request.clone())).await.map(Some) }
            };
            let calls: [futures::future::BoxFuture<'static, _>; 2] =
                [Box::pin(expiring), Box::pin(committing)];
            let mut new = None;
            for answer in together(calls).await? {
                match answer? {
                    None => {}
                    Some(CommitOutcome::Replayed(again)) => assert_eq!(again, written),
                    Some(CommitOutcome::Committed(again)) => {
                        assert_eq!((again.len(), again[0].table_id), (1, ids[0]));
                        new = Some(again);
                    }
                    Some(other) => return fail(format_args!("{other:?}")),
                }
            }
            assert_eq!(handles[1].resolve_token(&token).await?, new);
        }
        Ok(())
    }

    /// expire_tokens 6: commits go on, and none is lost or done twice, while others forget tokens.
    async fn commits_go_on_while_tokens_are_forgotten(env: &Env) -> CaseResult {
        const COMMITS: i64 = 25;
        let handles = env.two_handles().await?;
        let mut ids = Vec::new();
        for name in ["a", "b", "c"] {
            ids.push(env.create(name).await?);
        }
        let mut calls: Vec<futures::future::BoxFuture<'static, CaseResult<()>>> = Vec::new();
        for w in 0..4_usize {
            let mut requests = Vec::new();
            for n in 0..COMMITS {
                let mut tables = Vec::new();
                // In turned orders, so that who waits for whom in a circle would be seen.
                for i in 0..3 {
                    let id = ids[(w + i) % 3];
                    tables.push(Change::files([format!("{w}-{n}")]).append(id, v(0))?);
                }
                requests.push(env.request(tables));
            }
            let db = handles[w % 2].clone();
            calls.push(Box::pin(async move {
                for request in requests {
                    committed(retrying(|| db.commit(request.clone())).await?)?;
                }
                Ok(())
            }));
        }
        let late = env.now().plus_ms(10_000_000);
        for db in handles.iter().cloned() {
            calls.push(Box::pin(async move {
                for _ in 0..10 {
                    retrying(|| forget_tokens(&*db, expiry(late, 20))).await?;
                }
                Ok(())
            }));
        }
        for answer in together(calls).await? {
            answer?;
        }
        for id in ids {
            assert_eq!(env.head(id).await?, v(4 * COMMITS));
            let history = env.history(id).await?;
            assert!(history.iter().all(|c| c.token.is_some() == c.batch_position.is_some()));
        }
        Ok(())
    }

    /// mirror_expire 1: rows of old versions go, but for the newest that is published, and those that are open.
    async fn old_rows_go_but_for_the_newest(env: &Env) -> CaseResult {
        let id = table(env, "t", 6).await?;
        let other = table(env, "other", 1).await?;
        let dropped = table(env, "dropped", 2).await?;
        publish(env, id, 0..=4).await?;
        publish(env, other, 0..=0).await?;
        publish(env, dropped, 0..=2).await?;
        env.db().drop_table(dropped, &Act::at(env.now())).await?;
        assert_eq!(clear_outbox(env.db(), expiry(TimestampMs(0), FEW)).await?, 0);
        assert_eq!(clear_outbox(env.db(), expiry(TimestampMs(2), FEW)).await?, 4);
        let open = |from: i64, to: i64, state| (from..=to).map(move |n| (n, state));
        let want: Vec<_> = open(2, 4, MirrorState::Complete)
            .chain(open(5, 6, MirrorState::InFlight))
            .collect();
        assert_eq!(rows(env, id).await?, want);
        assert_eq!(clear_outbox(env.db(), expiry(TimestampMs(100), FEW)).await?, 2);
        assert_eq!(rows(env, id).await?.first(), Some(&(4, MirrorState::Complete)));
        assert_eq!(rows(env, dropped).await?, [(2, MirrorState::Complete)]);
        let want = [(0, MirrorState::Complete), (1, MirrorState::InFlight)];
        assert_eq!(rows(env, other).await?, want);
        assert_eq!(env.record(id).await?.published_version, Some(v(4)));
        Ok(())
    }

    /// mirror_expire 2, 4: pages are bounded, over tables with rows and without; a dry run counts the same and
    /// writes nothing.
    async fn pages_of_the_outbox_are_bounded(env: &Env) -> CaseResult {
        let mut ids = Vec::new();
        for n in 0..7 {
            let id = table(env, &format!("t{n}"), 4).await?;
            // Some are not published at all.
            if n % 3 != 0 {
                publish(env, id, 0..=4).await?;
            }
            ids.push(id);
        }
        let late = TimestampMs(1_000);
        let dry = Expiry { dry_run: true, ..expiry(late, 2) };
        assert_eq!(clear_outbox(env.db(), dry).await?, 16);
        for id in &ids {
            assert_eq!(rows(env, *id).await?.len(), 5, "a dry run writes nothing");
        }
        let page = env.db().mirror_expire(expiry(late, 0), None).await?;
        assert!(page.removed <= 1 && page.next.is_some(), "no limit is one: {page:?}");
        let more = clear_outbox(env.db(), expiry(late, 2)).await?;
        assert_eq!(page.removed + more, 16);
        assert_eq!(clear_outbox(env.db(), expiry(late, 1_000)).await?, 0);
        let end = env.db().mirror_expire(expiry(late, 1_000), None).await?;
        assert_eq!((end.removed, end.next), (0, None));
        Ok(())
    }

    /// mirror_expire 3: publishing goes on as before, whatever becomes of the table.
    async fn publishing_misses_no_row_that_is_gone(env: &Env) -> CaseResult {
        let id = table(env, "t", 5).await?;
        let lease = publish(env, id, 0..=3).await?;
        clear_outbox(env.db(), expiry(TimestampMs(1_000), FEW)).await?;
        // The lease goes on, and what was settled is not settled again.
        let again = Published { version: v(1), digest: "d".to_owned(), at: TimestampMs(1) };
        assert!(env.db().mirror_complete(&lease, &[again]).await.is_err(), "it is not the next one");
        assert!(env.db().mirror_fail(&lease, &failure(1, env.now())).await.is_err());
        assert!(env.db().mirror_fail(&lease, &failure(4, env.now())).await?);
        assert_eq!(env.db().mirror_retry(id, &Act::at(env.now())).await?, 1);
        for mode in [MirrorMode::Off, MirrorMode::Active, MirrorMode::Diverged] {
            env.db().mirror_set_mode(id, mode, &Act::at(env.now())).await?;
        }
        env.write(id, Change::files(["later"])).await?;
        env.db().mirror_retry(id, &Act::at(env.now())).await?;
        let want: BTreeSet<i64> = (3..=6).collect();
        let got: BTreeSet<i64> = rows(env, id).await?.into_iter().map(|(n, _)| n).collect();
        assert_eq!(got, want, "versions below the published one have no rows");
        publish(env, id, 4..=6).await?;
        assert_eq!(env.record(id).await?.published_version, Some(v(6)));
        let cleared = clear_outbox(env.db(), expiry(TimestampMs(1_000), FEW)).await?;
        assert_eq!((cleared, rows(env, id).await?.len()), (3, 1));
        Ok(())
    }
}
