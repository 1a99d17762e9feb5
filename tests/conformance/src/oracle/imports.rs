//! Imports on both sides.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::ImportedCommit;
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::{BaseChunk, BaseTail, TableState};

use super::ops::{Op, Pick};
use super::world::{Step, World, add, choose, table_name, version};
use crate::change::{gone, metadata, new_table, protocol};
use crate::env::finish_import;

impl World<'_> {
    pub(super) async fn import(&mut self, op: &Op) -> Step {
        let now = self.now();
        match op {
            Op::ImportBegin { name, base, elsewhere } => {
                let mut new = self.new_table(*name, false).await;
                if !elsewhere {
                    new.location = format!("memory:///{}", new.name);
                }
                let at = version(base.map_or(0, i64::from));
                let json = base.is_none();
                self.both(async |db| db.import_begin(&new, at, json, now).await).await?;
            }
            Op::ImportBase { table, files, tombstones, astray, tail } => {
                let id = self.importing(*table).await;
                let chunk = BaseChunk {
                    files: files.iter().map(|f| add(*f)).collect(),
                    tombstones: tombstones
                        .iter()
                        .map(|f| gone(&add(*f), Some(i64::from(f.size) - 30_000)))
                        .collect(),
                };
                let name = self.record(id).await.map_or_else(|| table_name(0), |r| r.name);
                // Beginning again is how an importer learns its position.
                let mut again = new_table(id, name);
                if let Some(record) = self.record(id).await {
                    again.location = record.location;
                    let base = record.base_version;
                    let begun = self
                        .both(async |db| db.import_begin(&again, base, false, now).await)
                        .await?;
                    let (skip, buried) =
                        begun.map_or((0, 0), |p| (p.base_files, p.base_tombstones));
                    let skip = if *astray { skip + 1 } else { skip };
                    let tail = tail.then(|| BaseTail {
                        protocol: protocol(2),
                        metadata: metadata("base"),
                        txns: Vec::new(),
                        domain_metadata: Vec::new(),
                        timestamp: TimestampMs(500_000),
                    });
                    self.both(async |db| {
                        db.import_base(id, skip, buried, chunk.clone(), tail.clone()).await
                    })
                    .await?;
                }
            }
            Op::ImportCommits { table, skip, steps, edit } => {
                let id = self.importing(*table).await;
                let record = self.record(id).await;
                let head = record.as_ref().and_then(|r| r.head).map_or(-1, Version::get);
                let mut time = record.and_then(|r| r.head_timestamp).map_or(500_000, |t| t.0);
                let mut commits: Vec<ImportedCommit> = Vec::new();
                for (i, step) in (0_i64..).zip(steps) {
                    time += i64::from(*step);
                    let mut change = self.change(Some(id), edit, false).await;
                    if head < 0 && i == 0 {
                        change = change.protocol(protocol(2)).metadata(metadata("imported"));
                    }
                    let at = version(head + 1 + i + i64::from(*skip));
                    commits.push(change.imported(at, time).map_err(|e| e.to_string())?);
                }
                self.both(async |db| db.import_commits(id, commits.clone().into()).await).await?;
            }
            Op::ImportFinish(table) => {
                let id = self.importing(*table).await;
                self.both(async |db| finish_import(db, id, now).await).await?;
            }
            Op::ImportAbort(table) => {
                let id = self.importing(*table).await;
                self.both(async |db| db.import_abort(id, &Act::default()).await).await?;
            }
            other => return Err(format!("{other:?} is not an import")),
        }
        Ok(())
    }

    /// An importing table, if there is one.
    async fn importing(&self, pick: Pick) -> TableId {
        match choose(&self.in_state(TableState::Importing).await, pick) {
            Some(table) => table.id,
            None => self.table(pick).await,
        }
    }
}
