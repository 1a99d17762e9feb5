//! The outbox on both sides.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{
    ClaimRequest, MirrorLease, MirrorTask, PublishFailure, Published,
};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::model::{MirrorMode, MirrorState};

use super::ops::Op;
use super::world::{Step, World, same, version};
use crate::env::{all_rows, clear_outbox};

impl World<'_> {
    pub(super) async fn outbox(&mut self, op: &Op) -> Step {
        let now = self.now();
        match op {
            Op::Claim { owner, only, tables, versions, lease_ms } => {
                let only = match only {
                    Some(pick) => Some(self.table(*pick).await),
                    None => None,
                };
                let request = ClaimRequest {
                    owner: format!("owner{owner}"),
                    now,
                    lease_ms: i64::from(*lease_ms),
                    max_tables: usize::from(*tables),
                    max_versions: usize::from(*versions),
                    only,
                };
                self.claim(&request).await?;
            }
            Op::Complete { lease, count, astray } => {
                let Some((want, got)) = self.lease(*lease) else { return Ok(()) };
                let published = self.record(want.table_id).await.and_then(|r| r.published_version);
                let first = published.map_or(0, |v| v.get() + 1) + i64::from(*astray);
                let done: Vec<_> = (first..first + i64::from(*count))
                    .map(|v| Published {
                        version: version(v),
                        digest: format!("digest-{v}"),
                        at: now,
                    })
                    .collect();
                let want = self.reference.mirror_complete(&want, &done).await;
                same(want, self.db.mirror_complete(&got, &done).await)?;
            }
            Op::Fail { lease, offset, retry_in, diverged } => {
                let Some((want, got)) = self.lease(*lease) else { return Ok(()) };
                let published = self.record(want.table_id).await.and_then(|r| r.published_version);
                let failure = PublishFailure {
                    version: version(published.map_or(0, |v| v.get() + 1) + i64::from(*offset)),
                    error: format!("failed at {now}"),
                    retry_at: now.plus_ms(i64::from(*retry_in)),
                    diverged: *diverged,
                };
                let want = self.reference.mirror_fail(&want, &failure).await;
                same(want, self.db.mirror_fail(&got, &failure).await)?;
            }
            Op::Renew { lease, lease_ms } => {
                let Some((want, got)) = self.lease(*lease) else { return Ok(()) };
                let ms = i64::from(*lease_ms);
                let want = self.reference.mirror_renew(&want, now, ms).await;
                let got = self.db.mirror_renew(&got, now, ms).await;
                same(want.map(|l| l.map(without_epoch)), got.map(|l| l.map(without_epoch)))?;
            }
            Op::Release(lease) => {
                let Some((want, got)) = self.lease(*lease) else { return Ok(()) };
                let want = self.reference.mirror_release(&want).await;
                same(want, self.db.mirror_release(&got).await)?;
            }
            Op::Rows { table, state, limit } => {
                let table = match table {
                    Some(pick) => Some(self.table(*pick).await),
                    None => None,
                };
                let state = [
                    None,
                    Some(MirrorState::Pending),
                    Some(MirrorState::InFlight),
                    Some(MirrorState::Complete),
                    Some(MirrorState::Failed),
                ][usize::from(*state) % 5];
                let limit = usize::from(*limit);
                self.both(async |db| all_rows(db, table, state, limit).await).await?;
            }
            Op::Expire { before, limit, dry_run } => {
                let expiry = self.expiry(*before, *limit, *dry_run);
                self.both(async |db| clear_outbox(db, expiry).await).await?;
            }
            Op::Retry(table) => {
                let id = self.table(*table).await;
                self.both(async |db| db.mirror_retry(id, &Act::at(now)).await).await?;
            }
            Op::SetMode { table, mode } => {
                let id = self.table(*table).await;
                let mode = [MirrorMode::Off, MirrorMode::Active, MirrorMode::Diverged]
                    [usize::from(*mode) % 3];
                self.both(async |db| db.mirror_set_mode(id, mode, &Act::at(now)).await).await?;
            }
            other => return Err(format!("{other:?} is not of the outbox")),
        }
        Ok(())
    }

    async fn claim(&mut self, request: &ClaimRequest) -> Step {
        let want = self.reference.mirror_claim(request).await.map_err(|e| e.to_string())?;
        let got = self.db.mirror_claim(request).await.map_err(|e| e.to_string())?;
        let strip = |tasks: &[MirrorTask]| -> Vec<MirrorTask> {
            let mut tasks = tasks.to_vec();
            for task in &mut tasks {
                task.lease.epoch = 0;
            }
            tasks
        };
        same(Ok::<_, CatalogError>(strip(&want)), Ok(strip(&got)))?;
        for task in &want {
            let next = task.table.published_version.map_or(0, |v| v.get() + 1);
            let gapless = (next..).zip(&task.versions).all(|(n, v)| v.get() == n);
            if !gapless || task.versions.is_empty() {
                return Err(format!("the versions of a task have a gap: {task:?}"));
            }
        }
        self.leases.extend(want.into_iter().zip(got).map(|(w, g)| (w.lease, g.lease)));
        Ok(())
    }
}

fn without_epoch(lease: MirrorLease) -> MirrorLease {
    MirrorLease { epoch: 0, ..lease }
}
