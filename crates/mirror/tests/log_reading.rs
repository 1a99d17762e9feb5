//! Reads the log of every table of the corpus, and checks checkpoints against commits: where the
//! commits reach back to version 0, the files of each checkpoint are those that replaying gives.
// All of this is test code; clippy only sees that of functions marked as tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "corpus/tables.rs"]
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deltalakedb_catalog_core::action::{Add, FileKey};
use deltalakedb_catalog_core::ids::Version;
use deltalakedb_mirror::log::{
    Base, ChainOptions, CheckpointReader, FileAction, LogListing, read_commits,
};
use deltalakedb_mirror::store::LogDir;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

type Files = BTreeMap<FileKey, Add>;

/// Tables whose checkpoint was written without the statistics that the commits have.
const WITHOUT_STATS: [&str; 1] = ["kernel/parquet_row_group_skipping"];

/// The parts of a file that a checkpoint must agree on with the commit that added it.
fn essence(add: &Add, with_stats: bool) -> impl PartialEq + std::fmt::Debug {
    let stats = add.stats.as_deref().filter(|_| with_stats);
    let records = stats.and_then(|s| {
        serde_json::from_str::<serde_json::Value>(s).unwrap().get("numRecords").cloned()
    });
    (
        add.size,
        add.modification_time,
        add.partition_values.clone(),
        add.deletion_vector.clone(),
        records,
        add.base_row_id,
        add.default_row_commit_version,
        add.clustering_provider.clone(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_agree_with_commits() {
    let Some(corpus) = tables::Corpus::open() else { return };
    let mut compared = 0;
    for table in &corpus.tables {
        let store: Arc<dyn ObjectStore> =
            Arc::new(LocalFileSystem::new_with_prefix(&table.root).unwrap());
        let dir = LogDir::from(Path::from("_delta_log"));
        let listing = LogListing::read(&store, &dir).await.unwrap();
        let chain = match listing.chain(ChainOptions::default()) {
            Ok(chain) => chain,
            Err(e) => {
                println!("{}: {e}", table.name);
                assert_eq!(table.name, "kernel/crc-malformed");
                continue;
            }
        };
        // State after each version, where known.
        let mut states: BTreeMap<Version, Files> = BTreeMap::new();
        let mut state = Files::new();
        let base = chain.bases[0].clone();
        let mut applied = read_commits(&store, &dir, chain.applied(&base).to_vec());
        while let Some(commit) = applied.try_next().await.unwrap_or_else(|e| panic!("{e}")) {
            for remove in &commit.index.removes {
                state.remove(&remove.key());
            }
            for add in commit.index.adds {
                state.insert(add.key(), add);
            }
            if base == Base::Json && listing.checkpoints.contains_key(&commit.file.version) {
                states.insert(commit.file.version, state.clone());
            }
        }
        for forms in listing.checkpoints.values() {
            for files in forms {
                let reader = CheckpointReader::open(&store, &dir, files).await.unwrap();
                let (protocol, _) = reader.state().unwrap();
                let mut found = Files::new();
                let mut tombstones = BTreeSet::new();
                let mut actions = reader.files();
                while let Some(batch) = actions.try_next().await.unwrap() {
                    for action in batch {
                        match action {
                            FileAction::Add(a) => assert!(found.insert(a.key(), a).is_none()),
                            FileAction::Remove(r) => assert!(tombstones.insert(r.key())),
                        }
                    }
                }
                println!(
                    "{}: {:?} of {} (writer {}): {} files, {} tombstones, {} sidecars",
                    table.name,
                    files.kind,
                    files.version,
                    protocol.min_writer_version,
                    found.len(),
                    tombstones.len(),
                    reader.tail().sidecars.len(),
                );
                if let Some(want) = states.get(&files.version) {
                    compared += 1;
                    let stats = !WITHOUT_STATS.contains(&table.name.as_str());
                    let got: Vec<_> = found.iter().map(|(k, a)| (k, essence(a, stats))).collect();
                    let want: Vec<_> = want.iter().map(|(k, a)| (k, essence(a, stats))).collect();
                    assert_eq!(got, want, "{} at {}", table.name, files.version);
                }
            }
        }
    }
    assert!(compared > 20, "only {compared} checkpoints were compared");
}
