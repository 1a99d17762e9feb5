//! The outbox: what is claimed, completed, failed, retried, switched on and off.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{ClaimRequest, MirrorLease, PublishFailure, Published};
use deltalakedb_catalog_core::error::{CatalogError, PlainResult};
use deltalakedb_catalog_core::ids::{TableId, TimestampMs};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorState};

use super::cases;
use super::tables::not_found;
use crate::change::Change;
use crate::env::{CaseResult, Env, committed, fail, v};

/// A version as published.
pub(super) fn published(version: i64) -> Published {
    Published { version: v(version), digest: format!("digest-{version}"), at: TimestampMs(version) }
}

/// A failure that may be tried again at a time.
pub(super) fn failure(version: i64, retry_at: TimestampMs) -> PublishFailure {
    PublishFailure {
        version: v(version),
        error: format!("cannot write {version}: it's \"full\""),
        retry_at,
        diverged: false,
    }
}

/// A table with versions 0 to `head`.
pub(super) async fn table(env: &Env, name: &str, head: i64) -> CaseResult<TableId> {
    let id = env.create(name).await?;
    for i in 1..=head {
        env.write(id, Change::files([format!("f{i}")])).await?;
    }
    Ok(id)
}

async fn states(env: &Env, id: TableId) -> CaseResult<Vec<(i64, MirrorState, u32)>> {
    let mut rows = env.outbox(Some(id), None).await?;
    rows.extend(env.outbox(Some(id), Some(MirrorState::Complete)).await?);
    rows.sort_by_key(|r| r.version);
    Ok(rows.into_iter().map(|r| (r.version.get(), r.state, r.attempts)).collect())
}

async fn complete(env: &Env, lease: &MirrorLease, versions: &[i64]) -> CaseResult<bool> {
    let done: Vec<_> = versions.iter().map(|i| published(*i)).collect();
    Ok(env.db().mirror_complete(lease, &done).await?)
}

use MirrorState::{Complete, Failed, InFlight, Pending};

cases! {
    /// mirror_claim 2: the versions of a table, consecutive and ascending, become `InFlight`.
    async fn a_claim_hands_out_versions_in_order(env: &Env) -> CaseResult {
        let id = table(env, "t", 4).await?;
        let mut request = env.claim_by("w");
        request.max_versions = 3;
        let task = env.claim_one(&request).await?;
        assert_eq!(task.table, env.record(id).await?);
        assert_eq!((task.versions, task.attempts), (vec![v(0), v(1), v(2)], 0));
        assert_eq!((task.lease.table_id, task.lease.owner.as_str()), (id, "w"));
        assert_eq!(task.lease.until, request.now.plus_ms(request.lease_ms));
        let want = [
            (0, InFlight, 1),
            (1, InFlight, 1),
            (2, InFlight, 1),
            (3, Pending, 0),
            (4, Pending, 0),
        ];
        assert_eq!(states(env, id).await?, want);
        Ok(())
    }

    /// mirror_settle 2: versions are completed in order; `published_version` follows.
    async fn completing_moves_the_published_version(env: &Env) -> CaseResult {
        let id = table(env, "t", 3).await?;
        let task = env.claim_one(&env.claim_by("w")).await?;
        assert!(complete(env, &task.lease, &[0]).await?);
        assert_eq!(env.record(id).await?.published_version, Some(v(0)));
        assert!(complete(env, &task.lease, &[1, 2]).await?);
        assert_eq!(env.record(id).await?.published_version, Some(v(2)));
        let want = [(0, Complete, 1), (1, Complete, 1), (2, Complete, 1), (3, InFlight, 1)];
        assert_eq!(states(env, id).await?, want);
        let rows = env.outbox(Some(id), Some(Complete)).await?;
        for (i, row) in rows.iter().enumerate() {
            let i = i64::try_from(i)?;
            assert_eq!(row.digest, Some(format!("digest-{i}")));
            assert_eq!((row.published_at, &row.last_error), (Some(TimestampMs(i)), &None));
        }
        assert!(complete(env, &task.lease, &[]).await?, "nothing is fine");
        assert!(complete(env, &task.lease, &[3]).await?);
        assert!(env.db().mirror_release(&task.lease).await?);
        assert_eq!(env.db().mirror_claim(&env.claim_by("w")).await?, []);
        env.write(id, Change::new()).await?;
        let task = env.claim_one(&env.claim_by("w")).await?;
        assert_eq!((task.versions, task.table.published_version), (vec![v(4)], Some(v(3))));
        Ok(())
    }

    /// mirror_settle 2: a version out of order is `InvalidInput`, and nothing of the call is
    /// recorded.
    async fn a_version_out_of_order_is_invalid(env: &Env) -> CaseResult {
        let id = table(env, "t", 4).await?;
        let task = env.claim_one(&env.claim_by("w")).await?;
        assert!(complete(env, &task.lease, &[0]).await?);
        let before = env.dump(id).await?;
        for versions in [&[2][..], &[0], &[1, 3], &[1, 1], &[2, 1], &[1, 2, 3, 4, 5], &[1, 2, 4]] {
            let done: Vec<_> = versions.iter().map(|i| published(*i)).collect();
            match env.db().mirror_complete(&task.lease, &done).await.plain() {
                Err(CatalogError::InvalidInput(_)) => {}
                other => return fail(format_args!("{versions:?}: {other:?}")),
            }
            assert_eq!(env.dump(id).await?, before, "{versions:?}");
        }
        Ok(())
    }

    /// mirror_settle 3: the failure is recorded, the lease given up, and the version waits for its time.
    async fn a_failure_waits_for_its_time(env: &Env) -> CaseResult {
        let id = table(env, "t", 2).await?;
        let mut request = env.claim_by("w");
        let task = env.claim_one(&request).await?;
        assert!(complete(env, &task.lease, &[0]).await?);
        let retry_at = request.now.plus_ms(5_000);
        let failed = failure(1, retry_at);
        assert!(env.db().mirror_fail(&task.lease, &failed).await?);
        assert_eq!(states(env, id).await?, [(0, Complete, 1), (1, Failed, 1), (2, Pending, 1)]);
        let row = env.outbox(Some(id), Some(Failed)).await?.remove(0);
        assert_eq!((row.last_error, row.retry_at), (Some(failed.error), Some(retry_at)));

        for owner in ["w", "other"] {
            request.owner = owner.to_owned();
            request.now = retry_at.plus_ms(-1);
            assert_eq!(env.db().mirror_claim(&request).await?, [], "not before its time");
        }
        request.now = retry_at;
        let task = env.claim_one(&request).await?;
        assert_eq!((task.versions, task.attempts), (vec![v(1), v(2)], 1));
        assert_eq!(states(env, id).await?, [(0, Complete, 1), (1, InFlight, 2), (2, InFlight, 2)]);
        assert!(complete(env, &task.lease, &[1]).await?);
        let row = env.outbox(Some(id), Some(Complete)).await?.remove(1);
        assert_eq!((row.version, row.attempts), (v(1), 2));
        assert_eq!((row.retry_at, row.last_error), (None, None), "that is over");
        Ok(())
    }

    /// mirror_settle 3: after a failure the lease is lost, also for its former holder.
    async fn a_failure_gives_the_lease_up(env: &Env) -> CaseResult {
        let id = table(env, "t", 1).await?;
        let request = env.claim_by("w");
        let task = env.claim_one(&request).await?;
        assert!(env.db().mirror_fail(&task.lease, &failure(0, request.now)).await?);
        let before = env.dump(id).await?;
        assert!(!complete(env, &task.lease, &[0]).await?);
        assert!(!env.db().mirror_fail(&task.lease, &failure(0, request.now)).await?);
        assert_eq!(env.db().mirror_renew(&task.lease, request.now, 1_000).await?, None);
        assert_eq!(env.dump(id).await?, before);
        let task = env.claim_one(&env.claim_by("other")).await?;
        assert_eq!(task.attempts, 1);
        Ok(())
    }

    /// mirror_retry 1: failed versions are due now; the number of rows is told.
    async fn retry_makes_failed_versions_due(env: &Env) -> CaseResult {
        let id = table(env, "t", 1).await?;
        assert_eq!(env.db().mirror_retry(id, &Act::at(env.now())).await?, 0);
        let mut request = env.claim_by("w");
        let task = env.claim_one(&request).await?;
        let never = failure(0, TimestampMs(i64::MAX));
        assert!(env.db().mirror_fail(&task.lease, &never).await?);
        request.now = env.now();
        assert_eq!(env.db().mirror_claim(&request).await?, []);
        assert_eq!(env.db().mirror_retry(id, &Act::at(request.now)).await?, 1);
        let task = env.claim_one(&request).await?;
        assert_eq!((task.versions, task.attempts), (vec![v(0), v(1)], 1));
        Ok(())
    }

    /// mirror_settle 3, mirror_retry 2: a diverged table stops, keeps taking commits, and can be started
    /// again.
    async fn a_diverged_table_stops_until_it_is_retried(env: &Env) -> CaseResult {
        let id = table(env, "t", 1).await?;
        let request = env.claim_by("w");
        let task = env.claim_one(&request).await?;
        assert!(complete(env, &task.lease, &[0]).await?);
        let mut foreign = failure(1, request.now);
        foreign.diverged = true;
        assert!(env.db().mirror_fail(&task.lease, &foreign).await?);
        assert_eq!(env.record(id).await?.mirror, MirrorMode::Diverged);
        let row = env.outbox(Some(id), Some(Failed)).await?.remove(0);
        assert_eq!((row.version, row.last_error), (v(1), Some(foreign.error)));
        assert_eq!(env.db().mirror_claim(&env.claim_by("w")).await?, []);
        env.write(id, Change::files(["more"])).await?;
        assert_eq!(env.outbox(Some(id), None).await?.len(), 2, "recorded, not published");
        assert_eq!(env.db().mirror_claim(&env.claim_by("w")).await?, []);

        assert_eq!(env.db().mirror_retry(id, &Act::at(env.now())).await?, 1);
        assert_eq!(env.record(id).await?.mirror, MirrorMode::Active);
        let task = env.claim_one(&env.claim_by("w")).await?;
        assert_eq!((task.versions, task.attempts), (vec![v(1), v(2)], 1));
        Ok(())
    }

    /// mirror_settle 3, mirror_set_mode 3: a table that is switched off while a worker is at it stays off,
    /// whatever the worker finds; switched on again, no version is left out.
    async fn a_table_that_is_switched_off_stays_off(env: &Env) -> CaseResult {
        let id = table(env, "t", 1).await?;
        let task = env.claim_one(&env.claim_by("w")).await?;
        env.db().mirror_set_mode(id, MirrorMode::Off, &Act::at(env.now())).await?;
        env.write(id, Change::files(["while off"])).await?;
        let mut foreign = failure(0, env.now());
        foreign.diverged = true;
        assert!(env.db().mirror_fail(&task.lease, &foreign).await?);
        assert_eq!(env.record(id).await?.mirror, MirrorMode::Off);
        env.write(id, Change::files(["still off"])).await?;
        assert_eq!(env.outbox(Some(id), None).await?.len(), 2, "0 and 1 only");
        assert_eq!(env.db().mirror_retry(id, &Act::at(env.now())).await?, 1);
        assert_eq!(env.record(id).await?.mirror, MirrorMode::Off, "retry does not switch it on");
        env.db().mirror_set_mode(id, MirrorMode::Active, &Act::at(env.now())).await?;
        let task = env.claim_one(&env.claim_by("w")).await?;
        assert_eq!(task.versions, [v(0), v(1), v(2), v(3)]);
        Ok(())
    }

    /// mirror_settle 4: the lease is free at once, and rows in flight wait again.
    async fn a_released_table_can_be_claimed_at_once(env: &Env) -> CaseResult {
        let id = table(env, "t", 2).await?;
        let task = env.claim_one(&env.claim_by("w")).await?;
        assert!(complete(env, &task.lease, &[0]).await?);
        assert_eq!(env.db().mirror_claim(&env.claim_by("other")).await?, []);
        assert!(env.db().mirror_release(&task.lease).await?);
        assert_eq!(states(env, id).await?, [(0, Complete, 1), (1, Pending, 1), (2, Pending, 1)]);
        assert!(!complete(env, &task.lease, &[1]).await?, "it was given up");
        let task = env.claim_one(&env.claim_by("other")).await?;
        assert_eq!((task.versions, task.attempts), (vec![v(1), v(2)], 1));
        Ok(())
    }

    /// mirror_claim 3: oldest work first, at most `max_tables`, or only the table asked for.
    async fn the_oldest_work_comes_first(env: &Env) -> CaseResult {
        let mut ids = Vec::new();
        for i in 0..6 {
            ids.push(table(env, &format!("t{i}"), 0).await?);
        }
        // The second table's work is done: its next commit is the newest work of all.
        let mut request = env.claim_by("w");
        request.only = Some(ids[1]);
        let task = env.claim_one(&request).await?;
        assert_eq!(task.table.id, ids[1]);
        assert!(complete(env, &task.lease, &[0]).await?);
        assert!(env.db().mirror_release(&task.lease).await?);
        env.write(ids[1], Change::new()).await?;
        let mut order = Vec::new();
        loop {
            let mut request = env.claim_by("w");
            (request.owner, request.max_tables) = (format!("w{}", order.len()), 2);
            let tasks = env.db().mirror_claim(&request).await?;
            assert!(tasks.len() <= 2);
            if tasks.is_empty() {
                break;
            }
            order.extend(tasks.iter().map(|t| t.table.id));
        }
        assert_eq!(order, [ids[0], ids[2], ids[3], ids[4], ids[5], ids[1]]);
        Ok(())
    }

    /// mirror_claim 3: dropped tables are not claimed; brought back, they are.
    async fn dropped_tables_are_not_claimed(env: &Env) -> CaseResult {
        let id = table(env, "t", 1).await?;
        env.db().drop_table(id, &Act::at(env.now())).await?;
        let mut request = env.claim_by("w");
        assert_eq!(env.db().mirror_claim(&request).await?, []);
        request.only = Some(id);
        assert_eq!(env.db().mirror_claim(&request).await?, []);
        env.db().undrop_table(id, &crate::env::name("t"), &Act::default()).await?;
        assert_eq!(env.claim_one(&env.claim_by("w")).await?.versions, [v(0), v(1)]);
        Ok(())
    }

    /// mirror_retry 3, mirror_set_mode 4, mirror_settle 5: of a dropped table the mode and the failures stay as they
    /// are, and a worker that is at it records what it has put.
    async fn a_dropped_table_is_settled_and_not_switched(env: &Env) -> CaseResult {
        let id = table(env, "t", 2).await?;
        let task = env.claim_one(&env.claim_by("w")).await?;
        env.db().drop_table(id, &Act::at(env.now())).await?;
        assert!(complete(env, &task.lease, &[0]).await?);
        let until = TimestampMs(env.now().0 + 60_000);
        assert!(env.db().mirror_fail(&task.lease, &failure(1, until)).await?);

        let (record, rows) = (env.record(id).await?, env.outbox(Some(id), None).await?);
        assert_eq!((record.mirror, record.published_version), (MirrorMode::Active, Some(v(0))));
        let got: Vec<_> = rows.iter().map(|r| (r.version, r.state)).collect();
        assert_eq!(got, [(v(1), Failed), (v(2), Pending)]);
        not_found("retry", env.db().mirror_retry(id, &Act::at(env.now())).await)?;
        for mode in [MirrorMode::Off, MirrorMode::Active, MirrorMode::Diverged] {
            not_found(mode.as_str(), env.db().mirror_set_mode(id, mode, &Act::at(env.now())).await)?;
        }
        assert_eq!((env.record(id).await?, env.outbox(Some(id), None).await?), (record, rows));
        Ok(())
    }

    /// mirror_retry 3, mirror_set_mode 4: nor is a table that is importing, or one that does not exist.
    async fn a_table_that_is_not_active_is_not_switched(env: &Env) -> CaseResult {
        let new = env.new_table("t");
        env.db().import_begin(&new, v(0), true, env.now()).await?;
        for id in [new.id, env.new_table("none").id] {
            not_found("retry", env.db().mirror_retry(id, &Act::at(env.now())).await)?;
            let answer = env.db().mirror_set_mode(id, MirrorMode::Off, &Act::at(env.now())).await;
            not_found("off", answer)?;
        }
        assert_eq!(env.record(new.id).await?.mirror, MirrorMode::Active);
        Ok(())
    }

    /// mirror_set_mode 1, 3: off, nothing is claimed nor recorded; on, every unpublished version is
    /// enqueued.
    async fn publishing_is_switched_off_and_on(env: &Env) -> CaseResult {
        let id = table(env, "t", 1).await?;
        let task = env.claim_one(&env.claim_by("w")).await?;
        assert!(complete(env, &task.lease, &[0]).await?);
        assert!(env.db().mirror_release(&task.lease).await?);
        let off = env.db().mirror_set_mode(id, MirrorMode::Off, &Act::at(env.now())).await?;
        assert_eq!((off.mirror, off.published_version), (MirrorMode::Off, Some(v(0))));
        assert_eq!(env.record(id).await?, off);
        env.write(id, Change::files(["while off"])).await?;
        env.write(id, Change::files(["while off 2"])).await?;
        assert_eq!(env.db().mirror_claim(&env.claim_by("w")).await?, []);

        let on = env.db().mirror_set_mode(id, MirrorMode::Active, &Act::at(env.now())).await?;
        assert_eq!((on.mirror, on.published_version), (MirrorMode::Active, Some(v(0))));
        let rows = env.outbox(Some(id), None).await?;
        let got: Vec<_> = rows.iter().map(|r| (r.version, r.state)).collect();
        assert_eq!(got, [(v(1), Pending), (v(2), Pending), (v(3), Pending)]);
        let task = env.claim_one(&env.claim_by("w")).await?;
        assert_eq!(task.versions, [v(1), v(2), v(3)]);
        env.db().mirror_set_mode(id, MirrorMode::Active, &Act::at(env.now())).await?;
        let task = env.claim_one(&env.claim_by("w")).await?;
        assert_eq!(task.versions, [v(1), v(2), v(3)], "switching it on twice changes nothing");
        assert_eq!(task.attempts, 2, "not even the attempts");
        Ok(())
    }

    /// mirror_set_mode 2, mirror_retry 2: a foreign commit that was seen stops a table for which nothing waits,
    /// and one for which something does; a table that is off stays off.
    async fn a_foreign_commit_that_was_seen_is_recorded(env: &Env) -> CaseResult {
        let id = table(env, "t", 1).await?;
        let off = table(env, "off", 0).await?;
        let task = env.claim_one(&ClaimRequest { only: Some(id), ..env.claim_by("w") }).await?;
        assert_eq!(task.table.id, id);
        assert!(complete(env, &task.lease, &[0, 1]).await?);
        assert!(env.db().mirror_release(&task.lease).await?);
        env.db().mirror_set_mode(off, MirrorMode::Off, &Act::at(env.now())).await?;
        for _ in 0..2 {
            let seen = env.db().mirror_set_mode(id, MirrorMode::Diverged, &Act::at(env.now())).await?;
            assert_eq!((seen.mirror, seen.published_version), (MirrorMode::Diverged, Some(v(1))));
            assert_eq!(env.record(id).await?, seen);
        }
        let seen = env.db().mirror_set_mode(off, MirrorMode::Diverged, &Act::at(env.now())).await?;
        assert_eq!(seen.mirror, MirrorMode::Off);
        env.write(id, Change::files(["later"])).await?;
        assert_eq!(env.db().mirror_claim(&env.claim_by("w")).await?, []);
        env.db().mirror_retry(id, &Act::at(env.now())).await?;
        assert_eq!(env.record(id).await?.mirror, MirrorMode::Active);
        let task = env.claim_one(&env.claim_by("w")).await?;
        assert_eq!((task.table.id, task.versions.clone()), (id, vec![v(2)]));
        // A worker that is at it records what it has put.
        env.db().mirror_set_mode(id, MirrorMode::Diverged, &Act::at(env.now())).await?;
        assert!(complete(env, &task.lease, &[2]).await?);
        assert_eq!(env.record(id).await?.mirror, MirrorMode::Diverged);
        Ok(())
    }

    /// mirror_set_mode 1: a table that was created with publishing off is published from version 0.
    async fn publishing_is_switched_on_from_the_start(env: &Env) -> CaseResult {
        let mut new = env.new_table("t");
        new.mirror = MirrorMode::Off;
        let id = new.id;
        committed(env.commit(vec![Change::new().create(new)?]).await?)?;
        env.write(id, Change::files(["a"])).await?;
        env.db().mirror_set_mode(id, MirrorMode::Active, &Act::at(env.now())).await?;
        assert_eq!(env.claim_one(&env.claim_by("w")).await?.versions, [v(0), v(1)]);
        Ok(())
    }

    /// mirror_rows 1: by (table id, version), of one table or all, by state, at every page size.
    async fn rows_are_listed_by_table_and_version(env: &Env) -> CaseResult {
        let mut ids = Vec::new();
        for i in 0..3 {
            ids.push(table(env, &format!("t{i}"), 2).await?);
        }
        let mut request = env.claim_by("w");
        request.only = Some(ids[0]);
        let task = env.claim_one(&request).await?;
        assert!(complete(env, &task.lease, &[0, 1]).await?);
        let mut sorted = ids.clone();
        sorted.sort();
        let all: Vec<_> = sorted
            .iter()
            .flat_map(|id| (0..3).map(move |version| (*id, v(version))))
            .filter(|(id, version)| *id != ids[0] || *version == v(2))
            .collect();
        for limit in 1..=8 {
            let rows = crate::env::all_rows(env.db(), None, None, limit).await?;
            let got: Vec<_> = rows.iter().map(|r| (r.table_id, r.version)).collect();
            assert_eq!(got, all, "limit {limit}");
            let done = crate::env::all_rows(env.db(), None, Some(Complete), limit).await?;
            let got: Vec<_> = done.iter().map(|r| (r.table_id, r.version)).collect();
            assert_eq!(got, [(ids[0], v(0)), (ids[0], v(1))], "limit {limit}");
        }
        let full = env.db().mirror_rows(Some(ids[1]), None, None, 3).await?;
        assert_eq!((full.items.len(), full.next), (3, None));
        let pending = env.outbox(None, Some(Pending)).await?;
        assert_eq!(pending.len(), 6);
        assert_eq!(env.outbox(None, Some(InFlight)).await?.len(), 1);
        assert_eq!(env.outbox(Some(ids[1]), Some(Failed)).await?, []);
        Ok(())
    }
}
