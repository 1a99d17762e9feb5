//! Leases on two handles: who may publish, and who no longer may.

use std::collections::BTreeSet;

use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::ids::TimestampMs;

use super::cases;
use super::outbox::{failure, published, table};
use crate::change::Change;
use crate::env::{CaseResult, Env, Halt, fail, retrying, together, v};

cases! {
    /// mirror_claim 1: while a lease holds, no other owner gets the table; the owner itself does.
    async fn a_lease_is_exclusive(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        table(env, "t", 1).await?;
        let first = env.claim_by("one");
        let task = env.claim_one(&first).await?;
        let mut second = env.claim_by("two");
        second.now = task.lease.until.plus_ms(-1);
        assert_eq!(handles[1].mirror_claim(&second).await?, [], "to its last millisecond");
        let again = env.claim_one(&first).await?;
        assert_eq!(again.versions, task.versions);
        assert!(handles[1].mirror_complete(&again.lease, &[published(0)]).await?);
        Ok(())
    }

    /// mirror_claim 1: of owners that claim at once, one gets each table, and no two the same.
    async fn racing_claims_share_no_table(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let mut want = BTreeSet::new();
        for i in 0..12 {
            want.insert(table(env, &format!("t{i}"), 0).await?);
        }
        let calls = (0..8).map(|w: usize| {
            let db = handles[w % 2].clone();
            let mut request = env.claim_by(&format!("worker-{w}"));
            (request.max_tables, request.lease_ms) = (3, 1_000_000);
            async move {
                let mut got = Vec::new();
                for _ in 0..3 {
                    got.extend(retrying(|| db.mirror_claim(&request)).await?);
                }
                Ok::<_, Halt>((request.owner, got))
            }
        });
        let mut owners = std::collections::BTreeMap::new();
        for answer in together(calls).await? {
            let (owner, tasks) = answer?;
            for task in tasks {
                assert_eq!(task.lease.owner, owner);
                let before = owners.insert(task.table.id, owner.clone());
                assert!(before.is_none_or(|b| b == owner), "two owners of one table");
            }
        }
        assert_eq!(owners.into_keys().collect::<BTreeSet<_>>(), want, "and none was left out");
        Ok(())
    }

    /// mirror_claim 4: a lease lapses at its `until`: then it is free for others, with a higher epoch.
    async fn a_lapsed_lease_is_taken_over(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let id = table(env, "t", 2).await?;
        let old = env.claim_one(&env.claim_by("one")).await?;
        assert!(env.db().mirror_complete(&old.lease, &[published(0)]).await?);
        let mut request = env.claim_by("two");
        request.now = old.lease.until;
        let tasks = handles[1].mirror_claim(&request).await?;
        let [new] = tasks.as_slice() else { return fail(format_args!("{tasks:?}")) };
        assert!(new.lease.epoch > old.lease.epoch, "{new:?} after {old:?}");
        assert_eq!((new.versions.as_slice(), new.attempts), (&[v(1), v(2)][..], 1));
        assert_eq!(env.record(id).await?.published_version, Some(v(0)));
        Ok(())
    }

    /// mirror_settle 1, mirror_renew 1: a holder that lost its lease is refused: nothing is recorded, whatever it
    /// says.
    async fn a_stale_holder_is_fenced_off(env: &Env) -> CaseResult {
        let id = table(env, "t", 2).await?;
        let old = env.claim_one(&env.claim_by("one")).await?.lease;
        let mut request = env.claim_by("two");
        request.now = old.until.plus_ms(1);
        let new = env.claim_one(&request).await?.lease;
        let before = env.dump(id).await?;
        let db = env.db();
        assert!(!db.mirror_complete(&old, &[published(0)]).await?);
        assert!(!db.mirror_fail(&old, &failure(0, TimestampMs(0))).await?);
        assert_eq!(db.mirror_renew(&old, request.now, 99_000).await?, None);
        assert!(!db.mirror_release(&old).await?);
        assert_eq!(env.dump(id).await?, before);
        // Not even under the new holder's name, and not with a number of its own choice.
        let mut forged = old.clone();
        forged.owner.clone_from(&new.owner);
        assert!(!db.mirror_complete(&forged, &[published(0)]).await?);
        forged = old.clone();
        forged.epoch = new.epoch;
        assert!(!db.mirror_complete(&forged, &[published(0)]).await?);
        assert_eq!(env.dump(id).await?, before);
        assert!(db.mirror_complete(&new, &[published(0), published(1)]).await?);
        Ok(())
    }

    /// mirror_settle 1: an owner whose lease another one had in between is a stale holder too.
    async fn an_owner_that_comes_back_has_a_new_epoch(env: &Env) -> CaseResult {
        table(env, "t", 1).await?;
        let mut leases = Vec::new();
        let mut now = env.now();
        for owner in ["one", "two", "one", "two"] {
            let mut request = env.claim_by(owner);
            request.now = now;
            let lease = env.claim_one(&request).await?.lease;
            now = lease.until.plus_ms(1);
            leases.push(lease);
        }
        assert!(leases.windows(2).all(|w| w[0].epoch < w[1].epoch), "{leases:?}");
        for stale in &leases[..3] {
            assert!(!env.db().mirror_complete(stale, &[published(0)]).await?, "{stale:?}");
        }
        assert!(env.db().mirror_complete(&leases[3], &[published(0)]).await?);
        Ok(())
    }

    /// mirror_settle 1: a lease that lapsed, but that no one took, still counts.
    async fn a_lapsed_lease_that_no_one_took_still_holds(env: &Env) -> CaseResult {
        let id = table(env, "t", 1).await?;
        let mut request = env.claim_by("one");
        request.lease_ms = 1;
        let lease = env.claim_one(&request).await?.lease;
        assert!(env.db().mirror_complete(&lease, &[published(0)]).await?);
        assert_eq!(env.record(id).await?.published_version, Some(v(0)));
        Ok(())
    }

    /// mirror_renew 2: a renewed lease holds for its new time.
    async fn a_renewed_lease_holds_on(env: &Env) -> CaseResult {
        let id = table(env, "t", 1).await?;
        let task = env.claim_one(&env.claim_by("one")).await?;
        let later = task.lease.until.plus_ms(-1);
        let renewed = env.db().mirror_renew(&task.lease, later, 20_000).await?;
        let Some(renewed) = renewed else { return fail("the lease was not renewed") };
        assert_eq!(renewed.until, later.plus_ms(20_000));
        assert_eq!((renewed.table_id, &renewed.owner), (id, &task.lease.owner));
        let mut request = env.claim_by("two");
        request.now = task.lease.until.plus_ms(1);
        assert_eq!(env.db().mirror_claim(&request).await?, [], "past the old end");
        assert!(env.db().mirror_complete(&renewed, &[published(0)]).await?);
        request.now = renewed.until.plus_ms(1);
        assert_eq!(env.claim_one(&request).await?.versions, [v(1)]);
        assert_eq!(env.db().mirror_renew(&renewed, request.now, 1_000).await?, None);
        Ok(())
    }

    /// mirror_settle 2: workers that race over one table publish each version once, in order.
    async fn racing_workers_publish_each_version_once(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let id = table(env, "t", 19).await?;
        let start = env.now();
        let workers = (0..4).map(|w: usize| {
            let db = handles[w % 2].clone();
            let mut request = env.claim_by(&format!("worker-{w}"));
            (request.max_versions, request.now) = (2, start);
            async move {
                let mut done = Vec::new();
                // Bounded by the time that a case may take: idle workers turn fast.
                loop {
                    let tasks = retrying(|| db.mirror_claim(&request)).await?;
                    for task in &tasks {
                        for version in &task.versions {
                            let one = [published(version.get())];
                            if retrying(|| db.mirror_complete(&task.lease, &one)).await? {
                                done.push(version.get());
                            }
                        }
                        retrying(|| db.mirror_release(&task.lease)).await?;
                    }
                    let rows = retrying(|| db.mirror_rows(Some(id), None, None, 1)).await?;
                    if rows.items.is_empty() {
                        return Ok::<_, Halt>(done);
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut all = Vec::new();
        for worker in together(workers).await? {
            all.extend(worker?);
        }
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        assert_eq!(env.record(id).await?.published_version, Some(v(19)));
        Ok(())
    }

    /// commit 6: commits go on while a table is leased, and are part of the next claim.
    async fn commits_go_on_under_a_lease(env: &Env) -> CaseResult {
        let id = table(env, "t", 0).await?;
        let request = env.claim_by("w");
        let task = env.claim_one(&request).await?;
        env.write(id, Change::files(["a"])).await?;
        assert_eq!(task.versions, [v(0)]);
        assert!(env.db().mirror_complete(&task.lease, &[published(0)]).await?);
        let next = env.claim_one(&request).await?;
        assert_eq!((next.versions, next.attempts), (vec![v(1)], 0));
        Ok(())
    }
}
