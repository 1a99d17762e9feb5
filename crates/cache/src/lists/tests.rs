//! Files come back as they went in, and lists that were brought up to date are those of the database.

use std::collections::BTreeSet;

use deltalakedb_catalog_core::action::{Add, DeletionVector, FileKey, NullableMap};
use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{CatalogBackend, HeadRule, ImportEnd, ImportedCommit};
use deltalakedb_catalog_core::commit::{CommitBody, index_lines, parse_ndjson};
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_engine::fault::Verb;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::tests::{
    Counting, adds, all, append, commit, counting, create, id, name, new_table, numbered, on, open,
    v,
};
use crate::{CacheOptions, CachedBackend};

fn maps() -> impl Strategy<Value = NullableMap> {
    let text = prop_oneof![Just(String::new()), Just("p".to_owned()), ".{0,3}"];
    vec((text.clone(), option::of(text)), 0..3).prop_map(|entries| entries.into_iter().collect())
}

fn vectors() -> impl Strategy<Value = DeletionVector> {
    (
        ".{0,3}",
        ".{0,9}",
        option::of(any::<i32>()),
        any::<i32>(),
        any::<i64>(),
        option::of(any::<i64>()),
    )
        .prop_map(|(storage_type, place, offset, size, cardinality, max_row_index)| {
            DeletionVector {
                storage_type,
                path_or_inline_dv: place,
                offset,
                size_in_bytes: size,
                cardinality,
                max_row_index,
            }
        })
}

fn any_add() -> impl Strategy<Value = Add> {
    let numbers = (any::<i64>(), any::<i64>(), option::of(any::<i64>()), option::of(any::<i64>()));
    let texts = (".{0,20}", option::of(".{0,40}"), option::weighted(0.2, ".{0,5}"));
    let maps = (maps(), option::weighted(0.3, maps()));
    (texts, numbers, maps, option::weighted(0.3, vectors()), any::<bool>()).prop_map(
        |((path, stats, provider), (size, time, row_id, row_version), maps, vector, changes)| Add {
            path,
            partition_values: maps.0,
            size,
            modification_time: time,
            data_change: changes,
            stats,
            tags: maps.1,
            deletion_vector: vector,
            base_row_id: row_id,
            default_row_commit_version: row_version,
            clustering_provider: provider,
        },
    )
}

fn cursor(version: i64, ordinal: i64) -> FileCursor {
    FileCursor { added_version: v(version), ordinal }
}

proptest! {
    #[test]
    fn every_field_of_a_file_comes_back(files in vec(any_add(), 0..40), same in any::<bool>()) {
        let files: Vec<FileRecord> = files
            .into_iter()
            .zip(0..)
            .map(|(mut add, n)| {
                if same {
                    (add.tags, add.deletion_vector, add.stats) = (None, None, None);
                    add.partition_values = NullableMap::from([("p".to_owned(), None)]);
                }
                FileRecord { cursor: cursor(n / 7, n % 7), add }
            })
            .collect();
        let columns = Columns::new(&files).unwrap();
        let back: Vec<FileRecord> = (0..columns.len()).map(|row| columns.file(row)).collect();
        prop_assert_eq!(&back, &files);
        for (row, file) in files.iter().enumerate() {
            prop_assert_eq!(columns.key(row), file.add.key());
            prop_assert_eq!(columns.find(file.cursor), Some(row));
            prop_assert_eq!(columns.after(file.cursor), row + 1);
        }
    }
}

/// What a commit does to files of a small set.
#[derive(Debug, Clone)]
struct Step {
    removes: Vec<usize>,
    adds: Vec<(usize, i64)>,
}

/// A few paths, each without a deletion vector and with two.
const KEYS: usize = 18;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (vec(0..KEYS, 0..4), vec((0..KEYS, 0..100_i64), 0..6))
        .prop_map(|(removes, adds)| Step { removes, adds });
    vec(step, 2..14)
}

fn vector(key: usize) -> Option<DeletionVector> {
    let offset = i32::try_from(key % 3).unwrap();
    (offset > 0).then(|| DeletionVector {
        storage_type: "u".to_owned(),
        path_or_inline_dv: "vector".to_owned(),
        offset: Some(offset),
        size_in_bytes: 1,
        cardinality: 1,
        max_row_index: None,
    })
}

fn file(key: usize, size: i64) -> Add {
    Add {
        path: format!("part-{}", key / 3),
        partition_values: NullableMap::from([("p".to_owned(), Some((key / 9).to_string()))]),
        size,
        modification_time: 1,
        data_change: true,
        stats: Some(format!("{{\"numRecords\":{size}}}")),
        tags: None,
        deletion_vector: vector(key),
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}

fn lines(step: &Step) -> String {
    use deltalakedb_catalog_core::action::{Action, Remove};
    let removes = step.removes.iter().map(|key| {
        let Add { path, deletion_vector, .. } = file(*key, 0);
        Action::Remove(Remove {
            path,
            deletion_timestamp: Some(1),
            data_change: true,
            extended_file_metadata: None,
            partition_values: None,
            size: None,
            stats: None,
            tags: None,
            deletion_vector,
            base_row_id: None,
            default_row_commit_version: None,
        })
    });
    let adds = step.adds.iter().map(|(key, size)| Action::Add(file(*key, *size)));
    removes.chain(adds).map(|action| action.to_line().unwrap() + "\n").collect()
}

const ZERO: &str = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}
{"metaData":{"id":"m","format":{"provider":"parquet","options":{}},"schemaString":"{}","partitionColumns":[],"configuration":{}}}
"#;

/// A table whose first commits came with an import, which may add a file twice and remove one that is not
/// there, and the others from us.
async fn play(inner: &Counting, steps: &[Step], imported: usize) -> usize {
    let mut commits = Vec::new();
    let texts = std::iter::once(ZERO.to_owned()).chain(steps.iter().take(imported).map(lines));
    for (text, version) in texts.zip(0..) {
        commits.push(ImportedCommit {
            version: v(version),
            timestamp: TimestampMs(version + 1),
            body: CommitBody::verbatim(text.as_bytes()).unwrap(),
            index: index_lines(parse_ndjson("test", text.as_bytes()).unwrap()),
            later: None,
            token: None,
        });
    }
    let table = new_table(id(), name());
    inner.import_begin(&table, v(0), true, TimestampMs(1)).await.unwrap();
    inner.import_commits(id(), commits.into()).await.unwrap();
    inner.import_finish(id(), ImportEnd::default(), &Act::at(TimestampMs(1))).await.unwrap();
    let mut version = imported.min(steps.len());
    for step in steps.iter().skip(imported) {
        let active = all(inner, v(version.try_into().unwrap()), 1_000).await;
        let active: BTreeSet<FileKey> = active.iter().map(|file| file.add.key()).collect();
        let mut seen = BTreeSet::new();
        let removes = step.removes.iter().copied();
        let removes: Vec<usize> =
            removes.filter(|k| active.contains(&file(*k, 0).key()) && seen.insert(*k)).collect();
        let mut seen = BTreeSet::new();
        let adds = step.adds.iter().copied().filter(|(key, _)| seen.insert(*key)).collect();
        let step = Step { removes, adds };
        let target = on(HeadRule::Append { since: v(0) });
        commit(inner, &format!("step-{version}"), target, &lines(&step)).await;
        version += 1;
    }
    version
}

/// Whatever is asked of a version, both answer the same.
async fn same(db: &CachedBackend, inner: &Counting, version: Version) {
    let want = all(inner, version, 1_000).await;
    for limit in [1_000, 1, 2, 3, 5] {
        assert_eq!(all(db, version, limit).await, want, "version {version}, {limit} a page");
    }
    let cursors: Vec<FileCursor> =
        (0..=version.get()).flat_map(|version| (0..7).map(move |n| cursor(version, n))).collect();
    assert_eq!(db.files_at(id(), version, &cursors).await.unwrap(), want);
    for (at, file) in want.iter().enumerate() {
        for limit in 1..4 {
            let follows = want.get(at + limit + 1).is_some();
            let end = want.get(at + limit).filter(|_| follows).map(|file| file.cursor);
            let found = db.files_end(id(), version, file.cursor, limit).await.unwrap();
            assert_eq!(found, end, "version {version}, {limit} after {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn lists_that_were_brought_up_to_date_are_those_of_the_database(
        steps in steps(),
        imported in 0..5_usize,
        stops in vec(1..6_usize, 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let inner = counting();
            let db = CachedBackend::new(inner.clone() as Arc<dyn CatalogBackend>).reader();
            let head = play(&inner, &steps, imported).await;
            open(&db).await;
            let mut version = 0;
            let mut read = BTreeSet::new();
            for stop in stops {
                same(&db, &inner, v(version.try_into().unwrap())).await;
                read.insert(version);
                version = (version + stop).min(head);
            }
            let refreshed = u64::try_from(read.len() - 1).unwrap();
            assert_eq!(db.stats().refreshed, refreshed, "each but the first");
            assert_eq!(inner.calls(Verb::ReadBodies), refreshed);
        });
    }
}

async fn appended(files: usize) -> (Arc<Counting>, CachedBackend) {
    let inner = counting();
    let db = CachedBackend::new(inner.clone() as Arc<dyn CatalogBackend>).reader();
    create(&db).await;
    let lines = adds((0..files).map(|n| format!("file-{n}")));
    commit(&db, "files", on(HeadRule::Append { since: v(0) }), &lines).await;
    open(&db).await;
    (inner, db)
}

#[tokio::test]
async fn a_list_is_read_once_and_then_only_what_changed() {
    let (inner, db) = appended(10_000).await;
    let want = all(&*inner, v(1), 2_500).await;
    assert_eq!(want.len(), 10_000);
    let calls = |verb| inner.calls(verb);
    let before = calls(Verb::ListFiles);
    assert_eq!(all(&db, v(1), 2_500).await, want);
    assert_eq!(calls(Verb::ListFiles) - before, 4);
    assert_eq!(all(&db, v(1), 777).await, want);
    let cursors: Vec<FileCursor> = want.iter().step_by(99).map(|file| file.cursor).collect();
    assert_eq!(db.files_at(id(), v(1), &cursors).await.unwrap().len(), cursors.len());
    // A commit more is one call; whoever still reads the list from before need not begin again.
    append(&db, "more").await;
    open(&db).await;
    let page = db.list_files(id(), v(1), None, 2_500).await.unwrap();
    assert_eq!(all(&db, v(2), 2_500).await.len(), 10_001);
    let rest = db.list_files(id(), v(1), page.next, 10_000).await.unwrap();
    assert_eq!([page.items, rest.items].concat(), want);
    assert_eq!(calls(Verb::ListFiles) - before, 4);
    assert_eq!((calls(Verb::ReadBodies), calls(Verb::FilesAt), db.stats().refreshed), (1, 0, 1));
    // Columns of files that differ in little take less than the rows do.
    let stats = db.stats();
    assert!(stats.weight_bytes < 10_000 * 100, "{stats:?}");
}

#[tokio::test]
async fn pages_that_come_in_any_order_make_a_list() {
    let (inner, db) = appended(3_000).await;
    let after = |n: i64| (n > 0).then(|| cursor(1, n * 1_000 - 1));
    for n in [2, 0, 1] {
        db.list_files(id(), v(1), after(n), 1_000).await.unwrap();
    }
    let before = inner.calls(Verb::ListFiles);
    assert_eq!(all(&db, v(1), 2_500).await.len(), 3_000);
    assert_eq!(inner.calls(Verb::ListFiles), before);
}

#[tokio::test]
async fn small_reads_load_nothing() {
    let (inner, db) = appended(3_000).await;
    // No list: the rows themselves.
    db.files_at(id(), v(1), &[cursor(1, 5)]).await.unwrap();
    assert_eq!(inner.calls(Verb::FilesAt), 1);
    all(&db, v(1), 2_500).await;
    append(&db, "more").await;
    open(&db).await;
    let before = inner.calls(Verb::ListFiles);
    db.files_at(id(), v(2), &[cursor(1, 5)]).await.unwrap();
    db.list_files(id(), v(2), None, 10).await.unwrap();
    assert_eq!((inner.calls(Verb::FilesAt), inner.calls(Verb::ListFiles) - before), (2, 1));
    assert_eq!(inner.calls(Verb::ReadBodies), 0);
}

#[tokio::test]
async fn a_list_that_is_too_far_behind_is_read_anew() {
    let (inner, db) = appended(1).await;
    all(&db, v(1), 1_000).await;
    for n in 0..257 {
        append(&db, &format!("more-{n}")).await;
    }
    open(&db).await;
    assert_eq!(all(&db, v(258), 1_000).await, all(&*inner, v(258), 1_000).await);
    append(&db, "last").await;
    open(&db).await;
    assert_eq!(all(&db, v(259), 1_000).await.len(), 259);
    assert_eq!((inner.calls(Verb::ReadBodies), db.stats().refreshed), (1, 1));
}

#[tokio::test]
async fn a_list_that_would_fill_the_cache_passes_by() {
    let (inner, _) = appended(10_000).await;
    let options = CacheOptions { capacity_bytes: 500_000, ..CacheOptions::default() };
    let db =
        CachedBackend::with_options(inner.clone() as Arc<dyn CatalogBackend>, &options).reader();
    open(&db).await;
    let before = inner.calls(Verb::ListFiles);
    for _ in 0..2 {
        assert_eq!(all(&db, v(1), 2_500).await.len(), 10_000);
    }
    assert_eq!(inner.calls(Verb::ListFiles) - before, 8);
    assert!(db.stats().weight_bytes < 10_000, "{:?}", db.stats());
    // Nor is anything kept of a table that nobody opened.
    all(&db, v(0), 10).await;
    assert!(db.files_at(numbered(9), v(0), &[cursor(0, 0)]).await.unwrap().is_empty());
}

#[test]
fn many_small_changes_leave_few_parts() {
    let record = |n: i64| FileRecord { cursor: cursor(0, n), add: file_of(n) };
    let first: Vec<FileRecord> = (0..5_000).map(record).collect();
    let mut list = FileList::new(v(0), vec![Columns::new(&first).unwrap().into()]);
    for version in 1..=2_000 {
        let mut index = deltalakedb_catalog_core::commit::CommitIndex::default();
        index.adds.push(file_of(5_000 + version));
        index.adds.push(file_of(version));
        list = refresh(&list, vec![Change { version: v(version), index }]).unwrap();
    }
    assert_eq!(list.files(), 7_000);
    assert!(list.parts.len() < 30, "{} parts", list.parts.len());
    let page = list.page(None, usize::MAX);
    assert!(page.items.is_sorted_by_key(|file| file.cursor) && page.next.is_none());
    assert_eq!(page.items.len(), 7_000);
    // Most of the first part is there; of what was added, nothing is kept twice.
    assert!(list.weight() < 7_000 * 200 + 100_000, "{}", list.weight());
}

fn file_of(n: i64) -> Add {
    Add { path: format!("file-{n}"), deletion_vector: None, ..file(0, n) }
}

#[tokio::test]
async fn who_compares_reads_the_rows_whatever_is_in_memory() {
    let (inner, db) = appended(3_000).await;
    all(&db, v(1), 2_500).await;
    append(&db, "more").await;
    open(&db).await;
    // Made of the commit.
    let list = all(&db, v(2), 2_500).await;
    assert_eq!((list.len(), db.stats().refreshed), (3_001, 1));
    let rows = CachedBackend { lists: false, ..db.clone() };
    let before = [Verb::ListFiles, Verb::FilesAt].map(|verb| inner.calls(verb));
    assert_eq!(all(&rows, v(2), 2_500).await, list);
    assert_eq!(rows.files_at(id(), v(2), &[list[7].cursor]).await.unwrap(), list[7..8]);
    let asked = [Verb::ListFiles, Verb::FilesAt].map(|verb| inner.calls(verb));
    assert_eq!(asked, [before[0] + 2, before[1] + 1]);
}
