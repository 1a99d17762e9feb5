//! Imports of what another catalog has ratified: tokens stay known, and an import can end published
//! in part, with another time of creation, or dropped.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, Expiry, ImportEnd, ImportedCommit,
};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorState, NewTable, TableState};

use super::cases;
use super::import::{chunk, invalid, tail};
use crate::change::{Change, metadata, protocol};
use crate::env::{CaseResult, Env, committed, fail, forget_tokens, name, v};

/// A commit of another catalog: at the time `100 * version`, with a token and a place in its batch.
fn ratified(version: i64, token: &str, position: u32) -> CaseResult<ImportedCommit> {
    let mut change = Change::files([format!("f{version}")]);
    if version == 0 {
        change = change.protocol(protocol(2)).metadata(metadata("first"));
    }
    let mut commit = change.imported(v(version), version * 100)?;
    commit.token = Some((CommitToken::new(token)?, position));
    Ok(commit)
}

/// Begins to import a table, with versions 0 to `head` of tokens `{table}-0`, `{table}-1`, …
async fn importing(env: &Env, new: &NewTable, head: i64) -> CaseResult<TableId> {
    env.db().import_begin(new, v(0), true, env.now()).await?;
    let table = new.name.name();
    let commits = (0..=head).map(|n| ratified(n, &format!("{table}-{n}"), 0));
    let commits = commits.collect::<CaseResult<Vec<_>>>()?;
    env.db().import_commits(new.id, commits.into()).await?;
    Ok(new.id)
}

/// Tables and versions that a token wrote.
async fn wrote(env: &Env, token: &str) -> CaseResult<Option<Vec<(TableId, i64, i64)>>> {
    let written = env.db().resolve_token(&CommitToken::new(token)?).await?;
    Ok(written.map(|written| {
        written.into_iter().map(|w| (w.table_id, w.version.get(), w.timestamp.0)).collect()
    }))
}

/// A commit with a token that was used before: what it answers.
async fn commit_again(env: &Env, token: &str) -> CaseResult<CommitOutcome> {
    let part = Change::files(["new"]).create(env.new_table("by_a_token"))?;
    let token = CommitToken::new(token)?;
    let request = CommitRequest { token, now: env.now(), tables: vec![part] };
    Ok(env.db().commit(request).await?)
}

/// Versions in the outbox that are not complete.
async fn waiting(env: &Env, id: TableId) -> CaseResult<Vec<(i64, MirrorState)>> {
    let rows = env.outbox(Some(id), None).await?;
    Ok(rows.into_iter().map(|row| (row.version.get(), row.state)).collect())
}

fn end(published: Option<Version>) -> ImportEnd {
    ImportEnd { published, ..ImportEnd::default() }
}

cases! {
    /// import_step 4: a token that came with a commit is known, and committing with it is
    /// `Replayed` with what it wrote there.
    async fn a_token_replays_after_an_import(env: &Env) -> CaseResult {
        let id = importing(env, &env.new_table("t"), 2).await?;
        assert_eq!(wrote(env, "t-1").await?, Some(vec![(id, 1, 100)]), "even before its end");
        env.db().import_finish(id, end(Some(v(2))), &Act::at(env.now())).await?;
        assert_eq!(wrote(env, "t-2").await?, Some(vec![(id, 2, 200)]));
        assert_eq!(wrote(env, "t-3").await?, None);
        match commit_again(env, "t-1").await? {
            CommitOutcome::Replayed(written) => {
                assert_eq!((written.len(), written[0].table_id, written[0].version), (1, id, v(1)));
            }
            other => return fail(format_args!("expected a replay, got {other:?}")),
        }
        assert_eq!(env.db().get_table(&TableRef::Name(name("by_a_token"))).await?, None);
        let history = env.history(id).await?;
        let got: Vec<_> = history
            .iter()
            .map(|c| (c.version.get(), c.token.as_ref().map(CommitToken::as_str), c.batch_position))
            .collect();
        let want = [
            (2, Some("t-2"), Some(0)),
            (1, Some("t-1"), Some(0)),
            (0, Some("t-0"), Some(0)),
        ];
        assert_eq!(got, want);
        Ok(())
    }

    /// import_step 4: a commit without a token has none, and takes none away.
    async fn commits_without_a_token_stay_without(env: &Env) -> CaseResult {
        let id = importing(env, &env.new_table("t"), 0).await?;
        let plain = vec![Change::new().imported(v(1), 100)?, Change::new().imported(v(2), 200)?];
        env.db().import_commits(id, plain.into()).await?;
        let last = ratified(3, "last", 4)?;
        env.db().import_commits(id, vec![last].into()).await?;
        env.db().import_finish(id, end(None), &Act::at(env.now())).await?;
        let history = env.history(id).await?;
        let got: Vec<_> = history.iter().map(|c| (c.token.is_some(), c.batch_position)).collect();
        assert_eq!(got, [(true, Some(4)), (false, None), (false, None), (true, Some(0))]);
        assert_eq!(wrote(env, "last").await?, Some(vec![(id, 3, 300)]));
        Ok(())
    }

    /// import_step 6, expire_tokens 1: a token that was used again is that of the newer batch, in whichever order the
    /// two came; and both are forgotten.
    async fn a_token_of_two_batches_is_that_of_the_newer(env: &Env) -> CaseResult {
        const LATER: i64 = 100_000_000;
        let tables = ["a", "b", "c"].map(|table| env.new_table(table));
        let [a, b, c] = tables.clone().map(|new| new.id);
        for new in &tables {
            env.db().import_begin(new, v(0), true, env.now()).await?;
        }
        let later = |version: i64, token: &str, position: u32| -> CaseResult<ImportedCommit> {
            let mut commit = ratified(version, token, position)?;
            let change = Change::files([format!("late{version}")]);
            let token = commit.token.take();
            commit = change.imported(v(version), LATER + version)?;
            commit.token = token;
            Ok(commit)
        };
        // The newer batch of b alone; that of a and c is from before.
        let of_a = vec![ratified(0, "a-0", 0)?, ratified(1, "again", 0)?];
        let of_b = vec![ratified(0, "b-0", 0)?, later(1, "again", 0)?];
        let of_c = vec![ratified(0, "c-0", 0)?, ratified(1, "again", 1)?, later(2, "twice", 0)?];
        env.db().import_commits(b, of_b.into()).await?;
        env.db().import_commits(c, of_c.into()).await?;
        env.db().import_commits(a, of_a.into()).await?;
        env.db().import_commits(a, vec![ratified(2, "twice", 0)?].into()).await?;
        env.db().import_commits(a, vec![later(3, "twice", 1)?].into()).await?;
        for id in [a, b, c] {
            env.db().import_finish(id, end(None), &Act::at(env.now())).await?;
        }
        assert_eq!(wrote(env, "again").await?, Some(vec![(b, 1, LATER + 1)]));
        let twice = vec![(c, 2, LATER + 2), (a, 3, LATER + 3)];
        assert_eq!(wrote(env, "twice").await?, Some(twice.clone()));
        match commit_again(env, "twice").await? {
            CommitOutcome::Replayed(written) => {
                let got: Vec<_> =
                    written.iter().map(|w| (w.table_id, w.version.get(), w.timestamp.0)).collect();
                assert_eq!(got, twice);
            }
            other => return fail(format_args!("expected a replay, got {other:?}")),
        }
        let expiry = Expiry { before: TimestampMs(2 * LATER), limit: 2, dry_run: false };
        assert_eq!(forget_tokens(env.db(), expiry).await?.0, 5);
        assert_eq!((wrote(env, "again").await?, wrote(env, "twice").await?), (None, None));
        for id in [a, b, c] {
            assert!(env.history(id).await?.iter().all(|c| c.token.is_none()));
        }
        Ok(())
    }

    /// import_step 4: a batch over several tables, imported table by table in any order, is
    /// answered in its own order.
    async fn a_batch_that_is_imported_in_parts_replays_in_order(env: &Env) -> CaseResult {
        let tables = ["c", "a", "b"].map(|table| env.new_table(table));
        let db = env.db();
        // Imported from the last of the batch to the first.
        for (new, position) in tables.iter().rev().zip((0..3_u32).rev()) {
            db.import_begin(new, v(0), true, env.now()).await?;
            let commits = vec![
                ratified(0, "created", position)?,
                ratified(1, &format!("own-{position}"), 0)?,
                ratified(2, "changed", 2 - position)?,
            ];
            db.import_commits(new.id, commits.into()).await?;
        }
        let ids = tables.clone().map(|new| new.id);
        let want: Vec<_> = ids.iter().map(|id| (*id, 0, 0)).collect();
        assert_eq!(wrote(env, "created").await?, Some(want.clone()));
        let mut changed: Vec<_> = ids.iter().map(|id| (*id, 2, 200)).collect();
        changed.reverse();
        assert_eq!(wrote(env, "changed").await?, Some(changed));
        for id in ids {
            db.import_finish(id, end(None), &Act::at(env.now())).await?;
        }
        match commit_again(env, "created").await? {
            CommitOutcome::Replayed(written) => {
                let got: Vec<_> =
                    written.iter().map(|w| (w.table_id, w.version.get(), w.timestamp.0)).collect();
                assert_eq!(got, want);
            }
            other => return fail(format_args!("expected a replay, got {other:?}")),
        }
        Ok(())
    }

    /// import_step 4: tokens of history below the base, and of the base itself, are known too.
    async fn tokens_of_history_are_known(env: &Env) -> CaseResult {
        let new = env.new_table("t");
        let (db, id) = (env.db(), new.id);
        db.import_begin(&new, v(10), false, env.now()).await?;
        db.import_commits(id, vec![ratified(8, "below", 1)?].into()).await?;
        db.import_base(id, 0, 0, chunk("base", 2), Some(tail(1_000))).await?;
        db.import_commits(id, vec![ratified(10, "base", 0)?].into()).await?;
        db.import_commits(id, vec![ratified(11, "above", 3)?].into()).await?;
        db.import_finish(id, end(Some(v(11))), &Act::at(env.now())).await?;
        assert_eq!(wrote(env, "below").await?, Some(vec![(id, 8, 800)]));
        assert_eq!(wrote(env, "base").await?, Some(vec![(id, 10, 1_000)]));
        assert_eq!(wrote(env, "above").await?, Some(vec![(id, 11, 1_100)]));
        let history = env.history(id).await?;
        let got: Vec<_> = history.iter().map(|c| (c.version.get(), c.batch_position)).collect();
        assert_eq!(got, [(11, Some(3)), (10, Some(0)), (8, Some(1))]);
        Ok(())
    }

    /// resolve_token 3: at the base of an import the time is that of the base, as in history, whether its commit or its
    /// state was stored first.
    async fn a_token_of_the_base_has_the_time_of_history(env: &Env) -> CaseResult {
        let db = env.db();
        for (table, commit_first) in [("commit first", true), ("state first", false)] {
            let new = env.new_table(table);
            let id = new.id;
            let token = format!("base-{}", u8::from(commit_first));
            let commit = vec![ratified(10, &token, 0)?];
            db.import_begin(&new, v(10), false, env.now()).await?;
            if commit_first {
                db.import_commits(id, commit.clone().into()).await?;
                assert_eq!(wrote(env, &token).await?, Some(vec![(id, 10, 1_000)]), "so far");
            }
            db.import_base(id, 0, 0, chunk("base", 2), Some(tail(1_050))).await?;
            if !commit_first {
                db.import_commits(id, commit.into()).await?;
            }
            db.import_finish(id, end(Some(v(10))), &Act::at(env.now())).await?;
            let times: Vec<_> = env.history(id).await?.iter().map(|c| c.timestamp.0).collect();
            assert_eq!(times, [1_050], "{table}");
            assert_eq!(wrote(env, &token).await?, Some(vec![(id, 10, 1_050)]), "{table}");
        }
        Ok(())
    }

    /// import_abort 1, import_step 4: what an aborted import brought is not known any more; what
    /// other tables of the same batch wrote still is.
    async fn an_aborted_import_takes_its_tokens_along(env: &Env) -> CaseResult {
        let (one, two) = (env.new_table("one"), env.new_table("two"));
        let db = env.db();
        for (new, position) in [(&one, 0), (&two, 1)] {
            db.import_begin(new, v(0), true, env.now()).await?;
            let own = ratified(1, &format!("own-{position}"), 0)?;
            db.import_commits(new.id, vec![ratified(0, "both", position)?, own].into()).await?;
        }
        db.import_abort(one.id, &Act::default()).await?;
        assert_eq!(wrote(env, "both").await?, Some(vec![(two.id, 0, 0)]));
        assert_eq!(wrote(env, "own-0").await?, None);
        assert_eq!(wrote(env, "own-1").await?, Some(vec![(two.id, 1, 100)]));
        let outcome = commit_again(env, "own-0").await?;
        committed(outcome)?;
        Ok(())
    }

    /// import_finish 4: the table was created when the import says.
    async fn an_import_keeps_the_time_of_creation(env: &Env) -> CaseResult {
        let db = env.db();
        for (table, created_at) in [("then", Some(TimestampMs(77))), ("now", None)] {
            let new = env.new_table(table);
            let began = env.now();
            db.import_begin(&new, v(0), true, began).await?;
            db.import_commits(new.id, vec![ratified(0, table, 0)?].into()).await?;
            let end = ImportEnd { created_at, ..end(Some(v(0))) };
            let finished = db.import_finish(new.id, end, &Act::at(env.now())).await?;
            assert_eq!(finished.created_at, created_at.unwrap_or(began));
            assert_eq!((finished.state, finished.dropped_at), (TableState::Active, None));
            assert_eq!(env.record(new.id).await?, finished);
        }
        Ok(())
    }

    /// import_finish 4: a table that was dropped ends dropped: found by its id, its name free, and it
    /// can be brought back.
    async fn an_import_can_end_dropped(env: &Env) -> CaseResult {
        let db = env.db();
        let mut ids = Vec::new();
        // Several of one name, one after the other.
        for round in 0..3_i64 {
            let new = env.new_table("t");
            db.import_begin(&new, v(0), true, env.now()).await?;
            db.import_commits(new.id, vec![ratified(0, &format!("t{round}"), 0)?].into()).await?;
            let dropped_at = Some(TimestampMs(1_000 + round));
            let end = ImportEnd { dropped_at, ..end(Some(v(0))) };
            let finished = db.import_finish(new.id, end, &Act::at(env.now())).await?;
            assert_eq!((finished.state, finished.dropped_at), (TableState::Dropped, dropped_at));
            assert_eq!(finished.head, Some(v(0)));
            assert_eq!(env.record(new.id).await?, finished);
            assert_eq!(env.paths(new.id, v(0)).await?, ["f0"]);
            assert_eq!(db.get_table(&TableRef::Name(name("t"))).await?, None);
            ids.push(new.id);
        }
        let live = env.create("t").await?;
        db.drop_table(live, &Act::at(env.now())).await?;
        let back = db.undrop_table(ids[1], &name("t"), &Act::default()).await?;
        assert_eq!((back.id, back.state, back.dropped_at), (ids[1], TableState::Active, None));
        assert_eq!(env.write(ids[1], Change::files(["next"])).await?.version, v(1));
        Ok(())
    }

    /// import_finish 3: versions after the published one are enqueued, at the time of the end, and
    /// are published from there on.
    async fn what_is_not_published_is_enqueued(env: &Env) -> CaseResult {
        let pending = |versions: &[i64]| -> Vec<_> {
            versions.iter().map(|version| (*version, MirrorState::Pending)).collect()
        };
        let all = [
            ("none", None, pending(&[0, 1, 2])),
            ("some", Some(v(0)), pending(&[1, 2])),
            ("all", Some(v(2)), pending(&[])),
        ];
        for (table, published, want) in all {
            let id = importing(env, &env.new_table(table), 2).await?;
            assert_eq!(waiting(env, id).await?, [], "nothing before the end");
            let now = env.now();
            let finished = env.db().import_finish(id, end(published), &Act::at(now)).await?;
            assert_eq!(finished.published_version, published);
            assert_eq!(waiting(env, id).await?, want, "{table}");
            for row in env.outbox(Some(id), None).await? {
                assert_eq!((row.enqueued_at, row.attempts, row.retry_at), (now, 0, None));
            }
            let mut request = env.claim_by("worker");
            request.only = Some(id);
            let tasks = env.db().mirror_claim(&request).await?;
            let claimed: Vec<_> =
                tasks.into_iter().flat_map(|task| task.versions).map(Version::get).collect();
            assert_eq!(claimed, want.iter().map(|(version, _)| *version).collect::<Vec<_>>());
        }
        Ok(())
    }

    /// import_finish 3: nothing is enqueued where the mirror is off; turning it on begins after what
    /// is published.
    async fn nothing_is_enqueued_without_a_mirror(env: &Env) -> CaseResult {
        let mut new = env.new_table("t");
        new.mirror = MirrorMode::Off;
        let id = importing(env, &new, 3).await?;
        let finished = env.db().import_finish(id, end(Some(v(1))), &Act::at(env.now())).await?;
        assert_eq!((finished.mirror, finished.published_version), (MirrorMode::Off, Some(v(1))));
        assert_eq!(waiting(env, id).await?, []);
        env.db().mirror_set_mode(id, MirrorMode::Active, &Act::at(env.now())).await?;
        let want = [(2, MirrorState::Pending), (3, MirrorState::Pending)];
        assert_eq!(waiting(env, id).await?, want);
        Ok(())
    }

    /// import_finish 3: a diverged table stays so: its versions wait, and nobody gets them until
    /// someone decides.
    async fn a_diverged_table_is_imported_as_such(env: &Env) -> CaseResult {
        let mut new = env.new_table("t");
        new.mirror = MirrorMode::Diverged;
        let id = importing(env, &new, 2).await?;
        let finished = env.db().import_finish(id, end(Some(v(0))), &Act::at(env.now())).await?;
        assert_eq!(finished.mirror, MirrorMode::Diverged);
        let want = vec![(1, MirrorState::Pending), (2, MirrorState::Pending)];
        assert_eq!(waiting(env, id).await?, want);
        assert_eq!(env.db().mirror_claim(&env.claim_by("worker")).await?, []);
        env.db().mirror_retry(id, &Act::at(env.now())).await?;
        assert_eq!(env.claim_one(&env.claim_by("worker")).await?.versions, [v(1), v(2)]);
        Ok(())
    }

    /// import_finish 3: a dropped table's versions wait for its return.
    async fn a_dropped_import_is_published_once_it_is_back(env: &Env) -> CaseResult {
        let id = importing(env, &env.new_table("t"), 1).await?;
        let end = ImportEnd { dropped_at: Some(env.now()), ..end(Some(v(0))) };
        env.db().import_finish(id, end, &Act::at(env.now())).await?;
        assert_eq!(env.db().mirror_claim(&env.claim_by("worker")).await?, []);
        env.db().undrop_table(id, &name("back"), &Act::default()).await?;
        assert_eq!(env.claim_one(&env.claim_by("worker")).await?.versions, [v(1)]);
        Ok(())
    }

    /// import_finish 2: more published than there is is `InvalidInput`, and changes nothing.
    async fn more_published_than_there_is_is_invalid(env: &Env) -> CaseResult {
        let id = importing(env, &env.new_table("t"), 1).await?;
        let before = env.record(id).await?;
        for published in [v(2), v(1_000)] {
            let end = ImportEnd { created_at: Some(TimestampMs(1)), ..end(Some(published)) };
            invalid("published", env.db().import_finish(id, end, &Act::at(env.now())).await)?;
            assert_eq!(env.record(id).await?, before);
        }
        assert_eq!(waiting(env, id).await?, []);
        env.db().import_finish(id, end(Some(v(1))), &Act::at(env.now())).await?;
        Ok(())
    }

    /// import_finish 5: after an import, appends conflict with the same changes of metadata
    /// or protocol as after the commits themselves.
    async fn appends_go_on_after_an_import_as_after_commits(env: &Env) -> CaseResult {
        let mut new = env.new_table("imported");
        new.mirror = MirrorMode::Off;
        let imported = importing(env, &new, 1).await?;
        let changes = |table: &str| {
            [Change::new().metadata(metadata(table)), Change::files(["x"]), Change::files(["y"])]
        };
        for (version, change) in (2..).zip(changes("m")) {
            let commit = change.imported(v(version), version * 100)?;
            env.db().import_commits(imported, vec![commit].into()).await?;
        }
        env.db().import_finish(imported, end(None), &Act::at(env.now())).await?;
        let committed = env.create_with("committed", Change::files(["f0"])).await?;
        env.write(committed, Change::files(["f1"])).await?;
        for change in changes("m") {
            env.write(committed, change).await?;
        }
        for since in 0..=4 {
            let mut outcomes = Vec::new();
            for id in [imported, committed] {
                let barrier = env.record(id).await?.barrier_version;
                let part = Change::files([format!("since{since}")]).append(id, v(since))?;
                let answer = match env.commit(vec![part]).await? {
                    CommitOutcome::Committed(written) => Ok(written[0].version),
                    CommitOutcome::HeadMoved { head, .. } => Err(head),
                    other => return fail(format_args!("{other:?}")),
                };
                outcomes.push((barrier, answer));
            }
            assert_eq!(outcomes[0], outcomes[1], "since {since}");
            assert_eq!((outcomes[0].0, outcomes[0].1.is_ok()), (v(2), since >= 2));
        }
        Ok(())
    }
}
