use std::collections::{BTreeMap, BTreeSet};

use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs};
use futures::TryStreamExt;

use super::*;
use crate::kernel::{LogLocation, read_state};
use crate::log::checkpoint::sidecar_names;
use crate::log::listing::LogName;
use crate::sink::open_sink;
use crate::testing::{Lake, START_MS, add, names, remove, zero};

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

async fn snapshot(lake: &Lake, id: TableId, version: i64) -> Snapshot {
    lake.catalog.snapshot(&TableRef::Id(id), At::Version(v(version))).await.unwrap()
}

/// Writes nothing but the checkpoint of a version into an empty log.
async fn only_checkpoint(lake: &Lake, id: TableId, version: i64, to: &str) -> CheckpointInfo {
    let sink = open_sink(&lake.location(to), &BTreeMap::new()).unwrap();
    let snapshot = snapshot(lake, id, version).await;
    write_checkpoint(lake.catalog.backend().as_ref(), &snapshot, sink.as_ref(), false)
        .await
        .unwrap()
}

/// Keeps the files of a checkpoint.
#[derive(Default)]
struct Kept(Vec<(String, Bytes)>);

#[async_trait]
impl CheckpointTarget for Kept {
    async fn file(&mut self, name: &str, bytes: Bytes) -> Result<u64> {
        self.0.push((name.to_owned(), bytes.clone()));
        Ok(u64::try_from(bytes.len()).unwrap())
    }
}

async fn encode(
    lake: &Lake,
    snapshot: &Snapshot,
) -> Result<(EncodedCheckpoint, Vec<(String, Bytes)>)> {
    let mut kept = Kept::default();
    let backend = lake.catalog.backend().as_ref();
    let encoded = encode_checkpoint(backend, snapshot, &mut kept).await?;
    Ok((encoded, kept.0))
}

const VECTORS: &str = "\"deletionVectors\",\"domainMetadata\",\"appendOnly\"";

/// A table with everything that a checkpoint can hold.
async fn rich(lake: &Lake, features: &str, properties: &str) -> TableId {
    let id = lake.create("rich", &zero(features, properties)).await;
    let mut lines = String::new();
    for i in 0..20 {
        lines += &add(&format!("day=2024-01-01/p%20{i}.parquet"));
    }
    lines += "{\"add\":{\"path\":\"null.parquet\",\"partitionValues\":{\"day\":null},\"size\":1,\
              \"modificationTime\":2,\"dataChange\":true,\"baseRowId\":7,\
              \"defaultRowCommitVersion\":1,\"clusteringProvider\":\"liquid\"}}\n";
    lines += "{\"txn\":{\"appId\":\"app\",\"version\":4,\"lastUpdated\":5}}\n";
    lines += "{\"txn\":{\"appId\":\"other\",\"version\":1}}\n";
    lines += "{\"domainMetadata\":{\"domain\":\"d\",\"configuration\":\"{}\",\"removed\":false}}\n";
    lines +=
        "{\"domainMetadata\":{\"domain\":\"gone\",\"configuration\":\"\",\"removed\":false}}\n";
    lake.commit(id, &lines).await;
    let vector = "\"deletionVector\":{\"storageType\":\"u\",\"pathOrInlineDv\":\
                  \"ab^-aqEH.-t@S}K{vb[*k^\",\"offset\":4,\"sizeInBytes\":40,\"cardinality\":2}";
    let plain = add("dv.parquet");
    lake.commit(id, &plain).await;
    let with_vector = plain.replace("\"size\":100", &format!("\"size\":100,{vector}"));
    let lines = remove("dv.parquet", START_MS)
        + &with_vector
        + &remove("day=2024-01-01/p%203.parquet", START_MS)
        + "{\"domainMetadata\":{\"domain\":\"gone\",\"configuration\":\"\",\"removed\":true}}\n";
    lake.commit(id, &lines).await;
    id
}

async fn assert_reads_back(lake: &Lake, id: TableId, version: i64, to: &str) {
    let state =
        read_state(LogLocation::Table(lake.location(to)), &BTreeMap::new(), None).await.unwrap();
    let want = snapshot(lake, id, version).await;
    assert_eq!((state.version, &state.protocol), (v(version), &want.protocol));
    assert_eq!(state.metadata, want.metadata);
    let files: Vec<_> = lake.catalog.files(id, v(version)).try_collect().await.unwrap();
    assert_eq!(state.files.len(), files.len());
    for file in files {
        let got = &state.files[&file.add.key()];
        assert_eq!(got.partition_values, file.add.partition_values, "{:?}", file.add.path);
        assert_eq!((got.size, got.modification_time), (file.add.size, file.add.modification_time));
        assert_eq!(got.stats, file.add.stats);
        assert_eq!(got.tags, file.add.tags);
        assert_eq!(got.base_row_id, file.add.base_row_id);
        assert_eq!(got.default_row_commit_version, file.add.default_row_commit_version);
        assert_eq!(got.deleted_rows, file.add.deletion_vector.map(|d| d.cardinality));
    }
    let backend = lake.catalog.backend();
    let txns = backend.app_transactions(id, v(version)).await.unwrap();
    assert_eq!(state.txns.into_values().collect::<Vec<_>>(), txns);
    let domains = backend.domain_metadata(id, v(version)).await.unwrap();
    assert_eq!(state.domain_metadata.into_values().collect::<Vec<_>>(), domains);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_reads_back_what_the_rows_say() {
    let lake = Lake::new();
    let id = rich(&lake, VECTORS, "\"a\":\"b\"").await;
    let info = only_checkpoint(&lake, id, 3, "copy").await;
    // protocol, metadata, 2 txn, 1 domain, 2 tombstones, 21 files
    assert_eq!((info.actions, info.add_files, info.created), (28, 21, true));
    assert_eq!(names(&lake.log("copy")), ["00000000000000000003.checkpoint.parquet"]);
    assert_reads_back(&lake, id, 3, "copy").await;
    only_checkpoint(&lake, id, 1, "older").await;
    assert_reads_back(&lake, id, 1, "older").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_v2_checkpoints_gets_the_v2_spec() {
    let lake = Lake::new();
    let id = rich(&lake, &format!("{VECTORS},\"v2Checkpoint\""), "").await;
    let info = only_checkpoint(&lake, id, 3, "copy").await;
    assert_eq!(info.actions, 29, "and checkpointMetadata");
    assert_reads_back(&lake, id, 3, "copy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_v2_policy_puts_files_into_sidecars() {
    use crate::import::{ImportOptions, import_table};
    use deltalakedb_catalog_engine::env::NoProgress;
    let lake = Lake::new();
    let policy = "\"delta.checkpointPolicy\":\"v2\"";
    let id = rich(&lake, &format!("{VECTORS},\"v2Checkpoint\""), policy).await;
    let info = only_checkpoint(&lake, id, 3, "copy").await;
    // 23 files and tombstones, two a sidecar.
    assert_eq!((info.actions, info.add_files, info.created), (29 + 12, 21, true));
    let mut there = names(&lake.log("copy"));
    there.retain(|name| name != "_sidecars");
    assert_eq!(there, std::slice::from_ref(&info.name));
    assert!(matches!(LogName::parse(&info.name), LogName::UuidCheckpoint { json: false, .. }));
    let sidecars = names(&lake.log("copy").join("_sidecars"));
    assert_eq!(sidecars.len(), 12);
    let manifest = std::fs::read(lake.log("copy").join(&info.name)).unwrap();
    let named = sidecar_names(&info.name, manifest.into()).unwrap();
    let stored: Vec<String> = sidecars.iter().map(|name| format!("{SIDECARS}{name}")).collect();
    assert_eq!(named, stored);
    assert!(named.iter().all(|n| LogName::parse(n) == LogName::Sidecar(Some(v(3)))));
    assert_reads_back(&lake, id, 3, "copy").await;
    let import = ImportOptions::new("copy".parse().unwrap(), lake.location("copy"));
    import_table(&lake.catalog, import, &NoProgress).await.unwrap();
    // Again is nothing new, and what is gone comes back the same.
    let again = only_checkpoint(&lake, id, 3, "copy").await;
    assert_eq!((again.created, again.size_bytes), (false, info.size_bytes));
    let gone = lake.log("copy").join(&named[4]);
    let bytes = std::fs::read(&gone).unwrap();
    std::fs::remove_file(&gone).unwrap();
    only_checkpoint(&lake, id, 3, "copy").await;
    assert_eq!(std::fs::read(&gone).unwrap(), bytes);
    // A sidecar that was changed is never taken for the one that it was.
    std::fs::write(&gone, [&bytes[..], b"x"].concat()).unwrap();
    let sink = open_sink(&lake.location("copy"), &BTreeMap::new()).unwrap();
    let snapshot = snapshot(&lake, id, 3).await;
    let backend = lake.catalog.backend().as_ref();
    let error = write_checkpoint(backend, &snapshot, sink.as_ref(), true).await.unwrap_err();
    assert!(matches!(error, CatalogError::Corrupt(_)), "{error}");
    // A table without files has no sidecar.
    only_checkpoint(&lake, id, 0, "empty").await;
    assert_eq!(names(&lake.log("empty")).len(), 1);
    assert_reads_back(&lake, id, 0, "empty").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pages_make_one_file() {
    let lake = Lake::new();
    let id = lake.create("t", &zero("", "")).await;
    let lines: String = (0..2 * PAGE + 5).map(|i| add(&format!("{i}.parquet"))).collect();
    lake.commit(id, &lines).await;
    let info = only_checkpoint(&lake, id, 1, "copy").await;
    assert_eq!(usize::try_from(info.add_files).unwrap(), 2 * PAGE + 5);
    assert_reads_back(&lake, id, 1, "copy").await;
}

#[tokio::test]
async fn tombstones_expire_by_the_commits_time_and_bytes_are_reproducible() {
    let lake = Lake::new();
    let kept = "\"delta.deletedFileRetentionDuration\":\"interval 2 seconds\"";
    let id = lake.create("t", &zero("", kept)).await;
    lake.commit(id, &(add("a") + &add("b") + &add("c"))).await;
    lake.commit(id, &remove("a", START_MS)).await;
    lake.commit(id, &remove("b", START_MS + 3_000)).await;
    lake.clock.advance(1_000_000_000);
    let snapshot = snapshot(&lake, id, 3).await;
    assert_eq!(snapshot.timestamp, TimestampMs(START_MS + 3_000));
    let one = encode(&lake, &snapshot).await.unwrap();
    assert_eq!((one.0.actions, one.0.add_files), (2 + 1 + 1, 1), "only the tombstone of b");
    assert_eq!(one, encode(&lake, &snapshot).await.unwrap());
}

#[tokio::test]
async fn an_existing_checkpoint_is_left_alone() {
    let lake = Lake::new();
    let id = lake.table("t", 2).await;
    let first = only_checkpoint(&lake, id, 2, "copy").await;
    let path = lake.log("copy").join(&first.name);
    let theirs = b"PAR1 of another engine PAR1";
    std::fs::write(&path, theirs).unwrap();
    let again = only_checkpoint(&lake, id, 2, "copy").await;
    assert_eq!((again.created, again.size_bytes), (false, 27));
    assert_eq!(std::fs::read(&path).unwrap(), theirs);
}

/// What is not whole is not pointed to: readers that find it fail.
#[tokio::test]
async fn what_is_no_checkpoint_is_shown_and_what_is_torn_is_repaired() {
    let lake = Lake::new();
    let id = lake.table("t", 2).await;
    let info = only_checkpoint(&lake, id, 2, "copy").await;
    let path = lake.log("copy").join(&info.name);
    let whole = std::fs::read(&path).unwrap();
    let snapshot = snapshot(&lake, id, 2).await;
    let sink = open_sink(&lake.location("copy"), &BTreeMap::new()).unwrap();
    let backend = lake.catalog.backend();
    let write = |repair| write_checkpoint(backend.as_ref(), &snapshot, sink.as_ref(), repair);
    std::fs::write(&path, b"something else").unwrap();
    for repair in [false, true] {
        let error = write(repair).await.unwrap_err();
        assert!(matches!(error, CatalogError::Corrupt(_)), "{error}");
        assert!(error.to_string().contains("is no Parquet file"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"something else");
    }
    std::fs::write(&path, &whole[..100]).unwrap();
    let error = write(false).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("first 100 of"), "{error}");
    assert_eq!(write(true).await.unwrap(), info);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

#[tokio::test]
async fn rows_that_contradict_the_commit_are_not_published() {
    let lake = Lake::new();
    let id = lake.table("t", 2).await;
    let mut snapshot = snapshot(&lake, id, 2).await;
    snapshot.num_files += 1;
    let error = encode(&lake, &snapshot).await.unwrap_err();
    assert!(matches!(error, CatalogError::Corrupt(_)), "{error}");
}

#[tokio::test]
async fn the_hint_never_moves_backwards() {
    let lake = Lake::new();
    let id = lake.table("t", 3).await;
    let sink = open_sink(&lake.location("copy"), &BTreeMap::new()).unwrap();
    let mut infos = Vec::new();
    for version in [2, 3, 1] {
        infos.push(only_checkpoint(&lake, id, version, "copy").await);
    }
    let hint = || std::fs::read_to_string(lake.log("copy").join(LAST_CHECKPOINT)).unwrap();
    assert!(write_last_checkpoint(sink.as_ref(), &infos[0]).await.unwrap());
    let size = infos[0].size_bytes;
    let fields = format!("\"version\":2,\"size\":4,\"sizeInBytes\":{size},\"numOfAddFiles\":2");
    let checksum = json_checksum(&serde_json::from_str(&format!("{{{fields}}}")).unwrap());
    assert_eq!(hint(), format!("{{{fields},\"checksum\":\"{checksum}\"}}"));
    assert!(write_last_checkpoint(sink.as_ref(), &infos[1]).await.unwrap());
    assert!(!write_last_checkpoint(sink.as_ref(), &infos[2]).await.unwrap());
    assert!(!write_last_checkpoint(sink.as_ref(), &infos[1]).await.unwrap());
    assert!(hint().starts_with("{\"version\":3,"));
    std::fs::write(lake.log("copy").join(LAST_CHECKPOINT), "{broken").unwrap();
    assert!(write_last_checkpoint(sink.as_ref(), &infos[2]).await.unwrap());
    assert!(hint().starts_with("{\"version\":1,"));
}

#[tokio::test]
async fn columns_are_those_of_the_protocol() {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let lake = Lake::new();
    let id = lake.table("t", 1).await;
    let snapshot = snapshot(&lake, id, 1).await;
    let (_, mut files) = encode(&lake, &snapshot).await.unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(files.pop().unwrap().1).unwrap();
    let schema = reader.parquet_schema();
    let columns: BTreeSet<String> = schema.columns().iter().map(|c| c.path().string()).collect();
    for column in [
        "txn.appId",
        "add.partitionValues.key_value.key",
        "add.partitionValues.key_value.value",
        "add.deletionVector.pathOrInlineDv",
        "remove.deletionTimestamp",
        "metaData.partitionColumns.list.element",
        "metaData.configuration.key_value.value",
        "protocol.writerFeatures.list.element",
        "domainMetadata.removed",
    ] {
        assert!(columns.contains(column), "{column} is missing in {columns:?}");
    }
    assert!(!columns.iter().any(|c| c.starts_with("checkpointMetadata")));
}

/// The example of the protocol, section "JSON checksum".
#[test]
fn the_checksum_of_the_hint_is_the_protocols() {
    let example = serde_json::json!({
        "k0": "'v 0'", "checksum": "adsaskfljadfkjadfkj",
        "k1": {"k2": 2, "k3": ["v3", [1, 2], {"k4": "v4", "k5": ["v5", "v6", "v7"]}]}
    });
    assert_eq!(json_checksum(&example), "6a92d155a59bf2eecbd4b4ec7fd1f875");
}

/// Statistics that only the typed columns have: the kernel and our own import read them.
#[tokio::test(flavor = "multi_thread")]
async fn typed_columns_are_read_back() {
    use crate::import::{ImportOptions, import_table};
    use deltalakedb_catalog_engine::env::NoProgress;
    let lake = Lake::new();
    let properties = "\"delta.checkpoint.writeStatsAsJson\":\"false\"";
    let id = rich(&lake, VECTORS, properties).await;
    only_checkpoint(&lake, id, 3, "copy").await;
    assert_reads_back(&lake, id, 3, "copy").await;
    let import = ImportOptions::new("copy".parse().unwrap(), lake.location("copy"));
    let report = import_table(&lake.catalog, import, &NoProgress).await.unwrap();
    let copy = report.table_id.unwrap();
    let files = |id| {
        let backend = lake.catalog.backend();
        async move {
            let page = backend.list_files(id, v(3), None, 1_000).await.unwrap();
            let mut files: Vec<(String, Option<String>)> =
                page.items.into_iter().map(|f| (f.add.path, f.add.stats)).collect();
            files.sort();
            files
        }
    };
    assert_eq!(files(copy).await, files(id).await);
}

const POLICIES: [&str; 2] = ["classic", "v2"];

/// Published up to version 5, with a checkpoint at 4.
async fn published(policy: &str) -> (Lake, TableId) {
    let lake = Lake::new();
    let properties =
        format!("\"delta.checkpointInterval\":\"4\",\"delta.checkpointPolicy\":\"{policy}\"");
    let id = rich(&lake, &format!("{VECTORS},\"v2Checkpoint\""), &properties).await;
    lake.commit(id, &(remove("null.parquet", START_MS) + &add("later.parquet"))).await;
    lake.commit(id, &add("last.parquet")).await;
    lake.publisher().run_once(None).await.unwrap();
    (lake, id)
}

/// Files of the log that readers may use and need not.
fn checkpoint_files(lake: &Lake) -> Vec<std::path::PathBuf> {
    let log = lake.log("rich");
    let mut files: Vec<_> = names(&log).into_iter().map(|name| log.join(name)).collect();
    let sidecars = log.join("_sidecars");
    if sidecars.exists() {
        files.extend(names(&sidecars).into_iter().map(|name| sidecars.join(name)));
    }
    files.retain(|path| path.to_str().unwrap().contains("checkpoint"));
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_reads_the_same_with_checkpoints_and_without() {
    for policy in POLICIES {
        let (lake, _) = published(policy).await;
        let location = LogLocation::Table(lake.location("rich"));
        let options = BTreeMap::new();
        let state = |version| read_state(location.clone(), &options, Some(v(version)));
        let mut with = Vec::new();
        for version in 0..=5 {
            with.push(state(version).await.unwrap());
        }
        let files = checkpoint_files(&lake);
        assert_eq!(files.len(), if policy == "v2" { 2 + 12 } else { 2 }, "{files:?}");
        for file in files {
            std::fs::remove_file(file).unwrap();
        }
        for (version, with) in (0..).zip(with) {
            assert_eq!(state(version).await.unwrap(), with, "{policy}, version {version}");
        }
    }
}

/// Every damage is passed over by readers, or an error for them, or shown by a comparison.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_never_changes_a_result_silently() {
    use crate::diff::{DiffOptions, Verdict, diff};
    use deltalakedb_catalog_engine::env::NoProgress;
    /// Places in each file that are damaged.
    const PLACES: usize = 60;
    for policy in POLICIES {
        let (lake, id) = published(policy).await;
        let location = LogLocation::Table(lake.location("rich"));
        let right = read_state(location.clone(), &BTreeMap::new(), None).await.unwrap();
        let table = TableRef::Id(id);
        let report = || diff(&lake.catalog, &table, DiffOptions::default(), &NoProgress);
        assert_eq!(report().await.unwrap().verdict, Verdict::Parity);
        let (mut same, mut failed, mut wrong) = (0, 0, 0);
        let mut files = checkpoint_files(&lake);
        // The hint, what names the sidecars, and some of them.
        files.truncate(5);
        for path in files {
            let whole = std::fs::read(&path).unwrap();
            for at in (0..whole.len()).step_by(whole.len().div_ceil(PLACES)) {
                let mut flipped = whole.clone();
                flipped[at] ^= 1;
                for damaged in [flipped, whole[..at].to_vec()] {
                    std::fs::write(&path, &damaged).unwrap();
                    let read = read_state(location.clone(), &BTreeMap::new(), None).await;
                    let report = report().await;
                    match &read {
                        Ok(read) if *read == right => {
                            same += 1;
                            continue;
                        }
                        Ok(_) => wrong += 1,
                        Err(_) => failed += 1,
                    }
                    let shown = report.as_ref().map_or(true, |r| r.verdict == Verdict::Drift);
                    assert!(shown, "{path:?}, byte {at}: {read:?}, {report:?}");
                }
            }
            std::fs::write(&path, &whole).unwrap();
        }
        assert!(same > 0 && failed > 0 && wrong > 0, "{policy}: {same} {failed} {wrong}");
        println!("{policy}: {same} passed over, {failed} refused, {wrong} believed and shown");
    }
}
