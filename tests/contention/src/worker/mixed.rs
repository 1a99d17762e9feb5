//! Commits that get into each other's way.

use deltalakedb_catalog_core::ids::{At, TableRef};
use futures::TryStreamExt;

use super::Worker;
use crate::journal::{Failure, Line, say};
use crate::scenario::Change;

/// Table that everybody writes.
const MAIN: usize = 0;
/// Table that comes and goes.
const SIDE: usize = 1;
/// Number of files that all workers take out and put back.
const HOT_FILES: u64 = 8;

impl Worker {
    pub(super) async fn mixed(&mut self) -> anyhow::Result<()> {
        // Files of this worker that are in the main table: nobody else touches them.
        let mut mine: Vec<String> = Vec::new();
        let mut transactions = 0;
        for _ in 0..self.args.commits {
            self.attempts += 1;
            let token = self.token();
            let added = format!("{token}-t{MAIN}.parquet");
            let append = self.append(MAIN);
            match self.rng.below(20) {
                0..8 => {
                    if self.send(&token, &[append]).await?.is_ok() {
                        mine.push(added);
                    }
                }
                8..12 => {
                    let old = match mine.len() {
                        0 => None,
                        len => Some(mine.swap_remove(self.rng.index(len))),
                    };
                    let change = match &old {
                        Some(old) => append.remove(old),
                        None => append,
                    };
                    match self.send(&token, &[change]).await? {
                        Ok(()) => mine.push(added),
                        Err(_) => mine.extend(old),
                    }
                }
                12..15 => {
                    let change = self.hot_file().await?;
                    let _ = self.send(&token, &[change]).await?;
                }
                15 => {
                    transactions += 1;
                    let app = format!("worker-{}", self.args.index);
                    let change = append.transaction(&app, transactions);
                    if self.send(&token, &[change]).await?.is_ok() {
                        mine.push(added);
                    }
                }
                16 => {
                    let head =
                        self.catalog.snapshot(&TableRef::Id(self.tables[MAIN]), At::Head).await?;
                    let change = Change::append(self.tables[MAIN], Vec::new())
                        .at(head.version)
                        .property(&head.metadata, &token);
                    let _ = self.send(&token, &[change]).await?;
                }
                17..19 => {
                    let side = self.append(SIDE);
                    if self.send(&token, &[side, append]).await?.is_ok() {
                        mine.push(added);
                    }
                }
                _ => self.drop_or_undrop().await?,
            }
        }
        Ok(())
    }

    /// Takes out a file that others write too, or puts it back.
    async fn hot_file(&mut self) -> anyhow::Result<Change> {
        let main = self.tables[MAIN];
        let head = self.catalog.snapshot(&TableRef::Id(main), At::Head).await?;
        let path = format!("hot-{}.parquet", self.rng.below(HOT_FILES));
        let files: Vec<_> = self.catalog.files(main, head.version).try_collect().await?;
        Ok(if files.iter().any(|file| file.add.path == path) {
            Change::append(main, Vec::new()).at(head.version).remove(&path)
        } else {
            Change::append(main, vec![path]).at(head.version)
        })
    }

    async fn drop_or_undrop(&mut self) -> anyhow::Result<()> {
        let side = TableRef::Id(self.tables[SIDE]);
        let drop = self.rng.below(2) == 0;
        let answer = if drop {
            self.catalog.drop_table(&side).await
        } else {
            self.catalog.undrop_table(&side, None).await
        };
        say(&match answer {
            Ok(_) => Line::Dropped(drop),
            Err(error) => {
                Line::NotDropped { failure: Failure::of(&error), text: error.to_string() }
            }
        })
    }
}
