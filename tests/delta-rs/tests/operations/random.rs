//! Random operations of several writers on one table, and the same ones one after the other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use deltalakedb::deltalake::{WAREHOUSE, deltalake as delta};
use deltalakedb::{CatalogUri, Db};
use futures::TryStreamExt;
use tokio::sync::Mutex;

use crate::both::{rows, table_url};
use crate::databases::{self, Database};
use crate::{Result, batch, create};
use delta::datafusion::prelude::{Expr, col, lit};
use delta::kernel::transaction::CommitProperties;
use delta::protocol::SaveMode;
use delta::{DeltaTable, ensure_table_uri};

const WRITERS: u64 = 3;
const STEPS: u64 = 8;
const DAYS: [&str; 3] = ["mon", "tue", "wed"];

/// Numbers that a seed repeats (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[derive(Debug, Clone)]
enum Work {
    Append { first: i64, day: &'static str },
    Delete { below: i64, day: &'static str },
    Update { above: i64, name: String },
    Replace { first: i64, day: &'static str },
    Compact,
}

impl Work {
    fn new(random: &mut Random, number: i64) -> Work {
        let day = DAYS[usize::try_from(random.below(3)).unwrap()];
        let bound = i64::try_from(random.below(2_000)).unwrap();
        match random.below(8) {
            0..=2 => Work::Append { first: number * 100, day },
            3 => Work::Delete { below: bound, day },
            4 | 5 => Work::Update { above: bound, name: format!("by {number}") },
            6 => Work::Replace { first: number * 100, day },
            _ => Work::Compact,
        }
    }

    /// Does it; the commit, if there is one, says which work it was.
    async fn run(&self, t: DeltaTable, number: i64) -> Result<DeltaTable> {
        let number = [("work".to_owned(), serde_json::json!(number))];
        let says = CommitProperties::default().with_metadata(number);
        let of_day = |day: &str| -> Expr { col("day").eq(lit(day)) };
        Ok(match self {
            Work::Append { first, day } => {
                let new = t.write([batch(*first..*first + 5, day)]);
                new.with_save_mode(SaveMode::Append).with_commit_properties(says).await?
            }
            Work::Delete { below, day } => {
                let rows = of_day(day).and(col("id").lt(lit(*below)));
                t.delete().with_predicate(rows).with_commit_properties(says).await?.0
            }
            Work::Update { above, name } => {
                let rows = t.update().with_predicate(col("id").gt(lit(*above)));
                let rows = rows.with_update("name", lit(name.as_str()));
                rows.with_commit_properties(says).await?.0
            }
            Work::Replace { first, day } => {
                let new = t.write([batch(*first..*first + 3, day)]);
                let new = new.with_save_mode(SaveMode::Overwrite);
                new.with_replace_where(of_day(day)).with_commit_properties(says).await?
            }
            Work::Compact => t.optimize().with_commit_properties(says).await?.0,
        })
    }
}

/// In version order: with the default isolation an append may come before what did not see it.
const SERIALIZABLE: &[(&str, &str)] = &[("delta.isolationLevel", "Serializable")];

pub(crate) async fn writers_end_as_a_serial_replay_of_what_they_committed(db: Database) {
    let seed = match std::env::var("DL_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => {
            u64::from(std::process::id()) * 7
                + u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_micros())
        }
    };
    let sequences = if db == Database::Sqlite { 4 } else { 2 };
    let mut committed = 0;
    for seed in seed..seed + sequences {
        println!("DL_SEED={seed}");
        committed += sequence(db, seed).await;
    }
    // A sequence commits 13 on average: some works change nothing, some are refused.
    assert!(committed > 5 * sequences, "{committed} in {sequences} sequences");
}

/// Returns how many of the works were committed.
async fn sequence(db: Database, seed: u64) -> u64 {
    deltalakedb::deltalake::register();
    let dir = tempfile::tempdir().unwrap();
    let catalog = databases::url(db, &dir);
    let uri: CatalogUri = catalog.parse().unwrap();
    Db::create(&uri).await.unwrap();
    let url = ensure_table_uri(table_url(&catalog)).unwrap();
    let warehouse = dir.path().join("lake").to_str().unwrap().to_owned();
    let options = HashMap::from([(WAREHOUSE.to_owned(), warehouse)]);
    let open = || DeltaTable::try_from_url_with_storage_options(url.clone(), options.clone());
    create(open().await.unwrap(), SERIALIZABLE).await.unwrap();

    let tried: Arc<Mutex<BTreeMap<i64, Work>>> = Arc::default();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (table, tried) = (open().await.unwrap(), Arc::clone(&tried));
        let mut random = Random(seed.wrapping_mul(31).wrapping_add(writer));
        writers.spawn(async move {
            let (mut table, mut refused) = (table, 0);
            for step in 0..STEPS {
                // Some go on from what they know, some look first.
                if random.below(2) == 0 {
                    table.load().await.unwrap();
                }
                let number = i64::try_from(writer * STEPS + step + 1).unwrap();
                let work = Work::new(&mut random, number);
                tried.lock().await.insert(number, work.clone());
                match work.run(table.clone(), number).await {
                    Ok(after) => table = after,
                    Err(error) => {
                        let text = error.to_string();
                        let lost = ["concurrent", "Concurrent", "Metadata changed", "attempts"];
                        assert!(lost.iter().any(|word| text.contains(word)), "{work:?}: {text}");
                        refused += 1;
                        table.load().await.unwrap();
                    }
                }
            }
            refused
        });
    }
    let refused: i32 = writers.join_all().await.into_iter().sum();
    let tried = tried.lock().await.clone();
    let table = open().await.unwrap();
    let history: Vec<_> = table.history(None).try_collect().await.unwrap();
    assert_eq!(history.len(), usize::try_from(table.version().unwrap()).unwrap() + 1);
    // Newest first; the first version created the table.
    let numbers = history.iter().rev().skip(1).map(|commit| commit.info["work"].as_i64().unwrap());
    let committed: Vec<(i64, Work)> = numbers.map(|n| (n, tried[&n].clone())).collect();

    let plain = dir.path().join("plain");
    let plain = ensure_table_uri(plain.to_str().unwrap()).unwrap();
    let replayed = DeltaTable::try_from_url(plain).await.unwrap();
    let mut replayed = create(replayed, SERIALIZABLE).await.unwrap();
    for (number, work) in &committed {
        replayed = work.run(replayed, *number).await.unwrap();
    }
    println!("{} of {} committed, {refused} refused", committed.len(), tried.len());
    assert_eq!(rows(&table).await, rows(&replayed).await, "seed {seed}: {committed:?}");
    committed.len() as u64
}
