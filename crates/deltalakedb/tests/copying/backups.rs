//! Backups: what is restored is what was there, whatever is in between.

mod registry;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deltalakedb::backup::{
    BackupOptions, BackupReport, Keep, Place, RestoreOptions, RestoreReport, SetId, Verified,
    backup, clean, prune, restore, verify,
};
use deltalakedb::copy::{CopyOptions, Limits, Progressed, Validate};
use deltalakedb::core::audit::{Actor, AuditEntry, AuditFilter, AuditOrder};
use deltalakedb::core::backend::{CatalogBackend, CommitOutcome, CommitRequest, Expiry};
use deltalakedb::core::env::{Clock, NoProgress};
use deltalakedb::core::error::CatalogError;
use deltalakedb::core::fault::{Fault, FaultyBackend};
use deltalakedb::core::ids::{At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb::core::model::{MirrorMode, TableState};
use deltalakedb::system::SystemClock;
use deltalakedb_conformance::change::{Change, metadata, new_table, protocol};
use deltalakedb_conformance::env::forget_tokens;
use deltalakedb_conformance::fixture;
use deltalakedb_test_servers::{ObjectStoreKind, shared_object_store, skip};
use uuid::Uuid;

use crate::history::Writer;
use crate::same::{same_reads, same_writes, tables};
use crate::world::{Database, Kind, PAIRS, catalog, copy, on_server, whole};

const HOUR: Duration = Duration::from_secs(3_600);

/// A folder for backups.
struct Folder {
    dir: tempfile::TempDir,
    place: Place,
}

impl Folder {
    fn new() -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        Folder { dir, place }
    }

    /// Names of the objects.
    fn objects(&self) -> Vec<String> {
        let found = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> =
            found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

/// Whether an object's name has this ending.
fn is_a(name: &str, ending: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|extension| extension == ending)
}

/// Objects so small that there are many.
fn small() -> BackupOptions {
    BackupOptions { full: false, segment_bytes: Some(2_000) }
}

async fn back_up(
    db: &Arc<dyn CatalogBackend>,
    place: &Place,
    full: bool,
) -> Result<BackupReport, CatalogError> {
    /// A server can run it as a task of its own.
    fn of_a_task<F: Future + Send>(future: F) -> F {
        future
    }
    let options = BackupOptions { full, ..small() };
    of_a_task(backup(&catalog(db), place, &options, &NoProgress)).await
}

/// Steps so small that every table takes several.
fn steps() -> RestoreOptions {
    RestoreOptions {
        limits: Limits { commits: 3, bytes: 2_000, files: 2 },
        validate: Validate::All,
        ..RestoreOptions::default()
    }
}

async fn bring_back(
    place: &Place,
    to: &Arc<dyn CatalogBackend>,
    options: &RestoreOptions,
) -> Result<RestoreReport, CatalogError> {
    fn of_a_task<F: Future + Send>(future: F) -> F {
        future
    }
    of_a_task(restore(place, &catalog(to), options, &NoProgress)).await
}

#[track_caller]
fn complete(report: &RestoreReport) {
    assert!(report.finished && report.agrees(), "{report:#?}");
}

/// Verifies all sets and finds nothing.
async fn sound(place: &Place) -> Vec<Verified> {
    let found = verify(place, None, &NoProgress).await.unwrap();
    for one in &found {
        assert!(one.problems.is_empty(), "{one:#?}");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_at_every_version() {
    let mut versions = 0;
    for (i, (from, to)) in PAIRS.into_iter().enumerate() {
        for round in 0..8 {
            let seed = u64::try_from(10_000 + 100 * i + round).unwrap();
            println!("{from:?} to {to:?}, seed {seed}");
            let (source, target, folder) = (from.fresh().await, to.fresh().await, Folder::new());
            Writer::new(&source.db, seed).steps(60).await;
            back_up(&source.db, &folder.place, true).await.unwrap();
            sound(&folder.place).await;
            let options = if round % 2 == 0 { steps() } else { RestoreOptions::default() };
            complete(&bring_back(&folder.place, &target.db, &options).await.unwrap());
            versions += same_reads(&*source.db, &*target.db).await;
            // The same again only compares.
            let again = bring_back(&folder.place, &target.db, &steps()).await.unwrap();
            complete(&again);
            assert_eq!(again.commits, 0);
            assert!(again.tables.iter().all(|table| table.progress == Progressed::Present));
            same_writes(&source.db, &target.db).await;
        }
    }
    println!("{versions} versions compared");
    assert!(versions > 700, "{versions}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_set_of_a_chain_brings_back_its_own_state() {
    let mut incremental = 0;
    for seed in 0..6 {
        println!("seed {seed}");
        let (source, folder) = (Kind::Memory.fresh().await, Folder::new());
        let mut writer = Writer::new(&source.db, 20_000 + seed);
        let mut states: Vec<(SetId, Database)> = Vec::new();
        for round in 0..5 {
            writer.steps(14).await;
            let report = back_up(&source.db, &folder.place, round == 3).await.unwrap();
            incremental += u64::from(report.parent.is_some());
            assert_eq!(report.parent.is_none(), round == 0 || round == 3);
            let state = Kind::Memory.fresh().await;
            let options = CopyOptions { skip_importing: true, ..CopyOptions::default() };
            whole(&copy(&source.db, &state.db, &options).await.unwrap());
            states.push((report.set, state));
        }
        assert_eq!(sound(&folder.place).await.len(), 5);
        for (set, state) in &states {
            let target = Kind::Memory.fresh().await;
            let options = RestoreOptions { set: Some(set.clone()), ..steps() };
            complete(&bring_back(&folder.place, &target.db, &options).await.unwrap());
            same_reads(&*state.db, &*target.db).await;
        }
        // Nothing new: a set with rows alone.
        let nothing = back_up(&source.db, &folder.place, false).await.unwrap();
        assert_eq!((nothing.counts.commits, nothing.objects > 1), (0, true));
    }
    assert_eq!(incremental, 18);
}

/// The same writer twice: one stops at a time, of the other one a later backup is restored to that time.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_brings_back_what_was_committed_by_then() {
    let mut compared = 0;
    for seed in 0..10 {
        println!("seed {seed}");
        let (then, source, folder) =
            (Kind::Memory.fresh().await, Kind::Sqlite.fresh().await, Folder::new());
        let mut first = Writer::new(&then.db, 30_000 + seed);
        first.steps(40).await;
        let time = first.pass(1_000);
        let mut second = Writer::new(&source.db, 30_000 + seed);
        second.steps(40).await;
        assert_eq!(second.pass(1_000), time);
        back_up(&source.db, &folder.place, false).await.unwrap();
        second.steps(25).await;
        back_up(&source.db, &folder.place, false).await.unwrap();
        let sets = folder.place.list().await.unwrap().sets;
        for set in [None, Some(sets[1].id().clone())] {
            let target = Kind::Memory.fresh().await;
            let options = RestoreOptions { set, at: Some(time), ..steps() };
            let report = bring_back(&folder.place, &target.db, &options).await.unwrap();
            complete(&report);
            let mut ours = Vec::new();
            for state in [TableState::Active, TableState::Dropped] {
                for record in tables(&*then.db, state).await {
                    ours.push((
                        record.id,
                        record.head,
                        record.head_timestamp,
                        record.barrier_version,
                    ));
                }
            }
            let mut theirs = Vec::new();
            for state in [TableState::Active, TableState::Dropped] {
                for record in tables(&*target.db, state).await {
                    theirs.push((
                        record.id,
                        record.head,
                        record.head_timestamp,
                        record.barrier_version,
                    ));
                    compared += 1;
                }
            }
            ours.sort_by_key(|table| table.0);
            theirs.sort_by_key(|table| table.0);
            assert_eq!(ours, theirs);
        }
    }
    assert!(compared > 50, "{compared}");
}

/// A transaction whose parts have times on both sides of the moment: it is left out, and what follows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_never_cuts_a_transaction() {
    let (source, folder) = (Kind::Sqlite.fresh().await, Folder::new());
    let id = |n: u128| TableId(Uuid::from_u128(n));
    let create = |n: u128, name: &str| {
        let new = new_table(id(n), TableName::new("ns", name).unwrap());
        Change::files(["a"]).protocol(protocol(2)).metadata(metadata("m")).create(new).unwrap()
    };
    let v = |n| Version::new(n).unwrap();
    let commit = async |number: u32, now: i64, tables: Vec<_>| {
        let token = CommitToken::new(format!("t{number}")).unwrap();
        let request = CommitRequest { token, now: TimestampMs(now), tables };
        match source.db.commit(request).await.unwrap() {
            CommitOutcome::Committed(written) => written,
            other => panic!("{other:?}"),
        }
    };
    commit(1, 100, vec![create(1, "slow"), create(2, "other")]).await;
    // The clock of one writer is ahead: the table's next times follow it.
    commit(2, 5_000, vec![Change::files(["b"]).exactly(id(1), v(0)).unwrap()]).await;
    commit(3, 150, vec![Change::files(["c"]).exactly(id(2), v(0)).unwrap()]).await;
    let both = vec![
        Change::files(["d"]).exactly(id(1), v(1)).unwrap(),
        Change::files(["d"]).exactly(id(2), v(1)).unwrap(),
    ];
    let written = commit(4, 200, both).await;
    assert_eq!(
        (written[0].timestamp, written[1].timestamp),
        (TimestampMs(5_001), TimestampMs(200))
    );
    commit(5, 300, vec![Change::files(["e"]).exactly(id(2), v(2)).unwrap()]).await;
    back_up(&source.db, &folder.place, false).await.unwrap();
    for (time, slow, other) in
        [(100, 0, 0), (150, 0, 1), (200, 0, 1), (5_000, 1, 1), (5_001, 2, 3), (9_000, 2, 3)]
    {
        let target = Kind::Memory.fresh().await;
        let options = RestoreOptions { at: Some(TimestampMs(time)), ..steps() };
        complete(&bring_back(&folder.place, &target.db, &options).await.unwrap());
        for (table, head) in [(1, slow), (2, other)] {
            let found = target.db.get_table(&TableRef::Id(id(table))).await.unwrap().unwrap();
            assert_eq!(found.head, Some(v(head)), "{time}, {}", found.name);
        }
    }
    let target = Kind::Memory.fresh().await;
    let options = RestoreOptions { at: Some(TimestampMs(i64::MAX)), ..steps() };
    let error = bring_back(&folder.place, &target.db, &options).await.unwrap_err().to_string();
    assert!(error.contains("restore an earlier time"), "{error}");
}

/// A token that was forgotten and used again: the two sets have one use each. The restored catalog answers with the
/// newer one, and a repeated commit takes no effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_used_again_replays_its_newest_use() {
    for (from, to) in PAIRS {
        println!("{from:?} to {to:?}");
        let (source, folder) = (from.fresh().await, Folder::new());
        let id = TableId(Uuid::from_u128(1));
        let new = new_table(id, TableName::new("ns", "t").unwrap());
        let create = Change::files(["a"]).protocol(protocol(2)).metadata(metadata("m"));
        let request = |token: &str, now, part| CommitRequest {
            token: CommitToken::new(token).unwrap(),
            now: TimestampMs(now),
            tables: vec![part],
        };
        let append = |file: &str| Change::files([file]).append(id, Version::ZERO).unwrap();
        let first = request("create", 100, create.create(new).unwrap());
        source.db.commit(first).await.unwrap();
        source.db.commit(request("again", 200, append("b"))).await.unwrap();
        back_up(&source.db, &folder.place, true).await.unwrap();
        let old = Expiry { before: TimestampMs(1_000), limit: 10, dry_run: false };
        let (gone, _) = forget_tokens(&*source.db, old).await.unwrap();
        assert_eq!(gone, 2);
        let newest = source.db.commit(request("again", 2_000, append("c"))).await.unwrap();
        let CommitOutcome::Committed(newest) = newest else { panic!("{newest:?}") };
        let second = back_up(&source.db, &folder.place, false).await.unwrap();
        assert!(second.parent.is_some());
        sound(&folder.place).await;
        let target = to.fresh().await;
        complete(&bring_back(&folder.place, &target.db, &steps()).await.unwrap());
        let token = CommitToken::new("again").unwrap();
        assert_eq!(target.db.resolve_token(&token).await.unwrap(), Some(newest.clone()));
        let again = target.db.commit(request("again", 3_000, append("d"))).await.unwrap();
        assert_eq!(again, CommitOutcome::Replayed(newest));
        // The copy is compared with a source that has forgotten.
        complete(&bring_back(&folder.place, &target.db, &steps()).await.unwrap());
    }
}

/// Everything that a row can be. One of its tables has bytes that are no commit: it is backed up, and no
/// import takes it.
#[tokio::test(flavor = "multi_thread")]
async fn the_fixture_comes_back_but_for_what_no_import_takes() {
    let (source, folder) = (Kind::Sqlite.fresh().await, Folder::new());
    fixture::build(&*source.db).await.unwrap();
    let report = back_up(&source.db, &folder.place, false).await.unwrap();
    assert!(report.counts.tables > 20 && !report.left_out.is_empty(), "{report:#?}");
    sound(&folder.place).await;
    let refused = Kind::Memory.fresh().await;
    let all = RestoreOptions { keep_publishing: true, ..steps() };
    let error = bring_back(&folder.place, &refused.db, &all).await.unwrap_err().to_string();
    assert!(error.contains("main.bodies") && error.contains("version 1"), "{error}");
    assert!(tables(&*refused.db, TableState::Active).await.is_empty());

    let target = Kind::Memory.fresh().await;
    let mut wanted = tables(&*source.db, TableState::Active).await;
    wanted.extend(tables(&*source.db, TableState::Dropped).await);
    wanted.retain(|table| table.name.name() != "bodies");
    let options = RestoreOptions {
        tables: wanted.iter().map(|table| TableRef::Id(table.id)).collect(),
        ..all
    };
    complete(&bring_back(&folder.place, &target.db, &options).await.unwrap());
}

async fn there_and_back(server: &str) {
    for seed in 0..3 {
        let Some(there) = on_server(server).await else { return };
        println!("{server}, seed {seed}");
        let (source, back) = (Kind::Sqlite.fresh().await, Kind::Sqlite.fresh().await);
        let (out, home) = (Folder::new(), Folder::new());
        let mut writer = Writer::new(&source.db, 40_000 + seed);
        writer.steps(30).await;
        back_up(&source.db, &out.place, false).await.unwrap();
        writer.steps(15).await;
        back_up(&source.db, &out.place, false).await.unwrap();
        complete(&bring_back(&out.place, &there.db, &steps()).await.unwrap());
        same_reads(&*source.db, &*there.db).await;
        back_up(&there.db, &home.place, false).await.unwrap();
        sound(&home.place).await;
        complete(&bring_back(&home.place, &back.db, &steps()).await.unwrap());
        same_reads(&*source.db, &*back.db).await;
        same_writes(&source.db, &there.db).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_go_to_postgres_and_back() {
    there_and_back("postgres").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_go_to_mysql_and_back() {
    there_and_back("mysql").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_go_to_mssql_and_back() {
    there_and_back("mssql").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_lies_in_s3() {
    let emulator = if cfg!(feature = "s3") {
        shared_object_store(ObjectStoreKind::S3)
    } else {
        Err("built without the cargo feature s3".to_owned())
    };
    let emulator = match emulator {
        Ok(emulator) => emulator,
        Err(why) => return skip(&["s3"], why),
    };
    let bucket = format!("dl-{}", Uuid::new_v4().simple());
    emulator.make_bucket(&bucket).unwrap();
    let options: BTreeMap<String, String> = emulator.options().into_iter().collect();
    let place = Place::open(&format!("{}/some/folder", emulator.url(&bucket)), &options).unwrap();
    let (source, target) = (Kind::Sqlite.fresh().await, Kind::Memory.fresh().await);
    let mut writer = Writer::new(&source.db, 50_001);
    for _ in 0..3 {
        writer.steps(20).await;
        back_up(&source.db, &place, false).await.unwrap();
    }
    assert_eq!(sound(&place).await.len(), 3);
    complete(&bring_back(&place, &target.db, &steps()).await.unwrap());
    same_reads(&*source.db, &*target.db).await;
    back_up(&source.db, &place, true).await.unwrap();
    let now = TimestampMs(i64::MAX / 2);
    assert_eq!(prune(&place, Keep::Newest(1), now).await.unwrap().sets.len(), 3);
    let again = Kind::Memory.fresh().await;
    complete(&bring_back(&place, &again.db, &steps()).await.unwrap());
    same_reads(&*source.db, &*again.db).await;
}

/// Every object torn, changed at any place, or gone: it is found, and nothing wrong is restored.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_found_and_never_restored() {
    let (source, folder) = (Kind::Memory.fresh().await, Folder::new());
    let mut writer = Writer::new(&source.db, 60_000);
    for _ in 0..2 {
        writer.steps(25).await;
        back_up(&source.db, &folder.place, false).await.unwrap();
    }
    let newest = folder.place.list().await.unwrap().newest().unwrap().id().clone();
    let mut damages = 0;
    for name in folder.objects() {
        let path = folder.path(&name);
        let whole = std::fs::read(&path).unwrap();
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        let mut longer = whole.clone();
        longer.push(b' ');
        let torn = whole[..whole.len() / 2].to_vec();
        for damaged in [None, Some(Vec::new()), Some(torn), Some(changed), Some(longer)] {
            match &damaged {
                Some(damaged) => std::fs::write(&path, damaged).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let what =
                format!("{name}: {:?} bytes of {}", damaged.as_ref().map(Vec::len), whole.len());
            // A manifest with more white space is the same manifest, but not for those that rest on it.
            let harmless = is_a(&name, "json")
                && name.contains(newest.as_str())
                && damaged.as_ref().is_some_and(|damaged| damaged.len() > whole.len());
            let target = Kind::Memory.fresh().await;
            let found = verify(&folder.place, None, &NoProgress).await.unwrap();
            let problems: Vec<_> = found.iter().flat_map(|one| &one.problems).collect();
            let gone = damaged.is_none() && name.contains(newest.as_str()) && is_a(&name, "json");
            assert_eq!(problems.is_empty(), harmless || gone, "{what}: {found:#?}");
            let options = RestoreOptions { set: Some(newest.clone()), ..steps() };
            let restored = bring_back(&folder.place, &target.db, &options).await;
            if harmless {
                complete(&restored.unwrap());
            } else {
                let error = restored.unwrap_err();
                let wanted = matches!(error, CatalogError::Corrupt(_)) || gone;
                assert!(wanted, "{what}: {error}");
                assert!(tables(&*target.db, TableState::Active).await.is_empty(), "{what}");
                damages += 1;
            }
            std::fs::write(&path, &whole).unwrap();
            if !harmless {
                // What was stored so far is gone on from.
                complete(&bring_back(&folder.place, &target.db, &options).await.unwrap());
            }
        }
    }
    sound(&folder.place).await;
    println!("{damages} damages");
    assert!(damages > 30, "{damages}");
}

fn dying(db: &Database, last: u64, after: bool) -> (Arc<dyn CatalogBackend>, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let faulty = FaultyBackend::new(Arc::clone(&db.db), move |_| {
        match counter.fetch_add(1, Ordering::SeqCst) {
            n if n < last => Fault::None,
            n if n == last && after => Fault::LoseAnswer,
            _ => Fault::Fail,
        }
    });
    (Arc::new(faulty), calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_breaks_off_at_any_call_goes_on() {
    let (source, folder) = (Kind::Memory.fresh().await, Folder::new());
    Writer::new(&source.db, 70_000).steps(18).await;
    back_up(&source.db, &folder.place, false).await.unwrap();
    for after in [false, true] {
        let mut resumed = 0;
        for last in 0_u64.. {
            let target = Kind::Memory.fresh().await;
            let (broken, calls) = dying(&target, last, after);
            if bring_back(&folder.place, &broken, &steps()).await.is_ok()
                && calls.load(Ordering::SeqCst) <= last
            {
                println!("{last} calls, {resumed} restores continued");
                assert!(resumed > 0);
                break;
            }
            let report = bring_back(&folder.place, &target.db, &steps()).await.unwrap();
            complete(&report);
            resumed += u64::from(report.tables.iter().any(|table| table.resumed));
            same_reads(&*source.db, &*target.db).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_breaks_off_at_any_call_leaves_no_set() {
    let (source, folder) = (Kind::Memory.fresh().await, Folder::new());
    Writer::new(&source.db, 71_000).steps(30).await;
    std::fs::write(folder.path("notes.txt"), "ours").unwrap();
    for last in 0_u64.. {
        let (broken, calls) = dying(&source, last, false);
        let done = back_up(&broken, &folder.place, true).await.is_ok();
        let listing = folder.place.list().await.unwrap();
        if done && calls.load(Ordering::SeqCst) <= last {
            println!("{last} calls");
            assert!(last > 20);
            assert_eq!(listing.sets.len(), 1);
            break;
        }
        assert!(listing.sets.is_empty(), "{listing:?}");
    }
    // What was left is cleaned once it is old, and nothing else.
    let left = folder.place.list().await.unwrap().unfinished.len();
    assert!(left > 10, "{left}");
    let now = SystemClock.now();
    assert_eq!(clean(&folder.place, now, HOUR).await.unwrap(), []);
    let later = now.plus_ms(2 * 3_600_000);
    assert_eq!(clean(&folder.place, later, HOUR).await.unwrap().len(), left);
    assert!(folder.path("notes.txt").exists());
    let target = Kind::Memory.fresh().await;
    complete(&bring_back(&folder.place, &target.db, &steps()).await.unwrap());
    same_reads(&*source.db, &*target.db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_keeps_what_kept_sets_go_on_from() {
    let (source, folder) = (Kind::Memory.fresh().await, Folder::new());
    let mut writer = Writer::new(&source.db, 72_000);
    let mut sets = Vec::new();
    // full, +, +, full, +, +
    for round in 0..6 {
        writer.steps(6).await;
        sets.push(back_up(&source.db, &folder.place, round == 3).await.unwrap().set);
    }
    for name in ["notes.txt", "backup-notes.json", "backup-x.000001.zst"] {
        std::fs::write(folder.path(name), "ours").unwrap();
    }
    let now = SystemClock.now();
    let ids = async || -> Vec<SetId> {
        let sets = folder.place.list().await.unwrap().sets;
        sets.iter().map(|set| set.id().clone()).collect()
    };
    // The fourth newest is the last of the first chain.
    for keep in [Keep::Newest(4), Keep::For(HOUR)] {
        assert_eq!(prune(&folder.place, keep, now).await.unwrap().sets, []);
    }
    // A backup at work goes on from the last set of the first chain.
    let begun = folder.path("backup-20260131T235959999Z-0123abcd.begun");
    std::fs::write(&begun, format!("{{\"parent\":\"{}\"}}", sets[2])).unwrap();
    assert_eq!(prune(&folder.place, Keep::Newest(1), now).await.unwrap().sets, []);
    std::fs::remove_file(&begun).unwrap();
    // A deletion that was killed after its manifests: no set, and no half one.
    let manifest = folder.path(&format!("backup-{}.json", sets[2]));
    let whole = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    assert_eq!(ids().await.len(), 5);
    assert!(folder.place.list().await.unwrap().unfinished.contains_key(&sets[2]));
    std::fs::write(&manifest, whole).unwrap();
    let pruned = prune(&folder.place, Keep::Newest(2), now).await.unwrap();
    assert_eq!(pruned.sets, [sets[2].clone(), sets[1].clone(), sets[0].clone()]);
    assert_eq!(ids().await, sets[3..]);
    let later = now.plus_ms(1_000 * 3_600_000);
    assert_eq!(prune(&folder.place, Keep::For(HOUR), later).await.unwrap().sets, []);
    sound(&folder.place).await;
    let mut kept = folder.objects();
    kept.retain(|name| !sets[3..].iter().any(|set| name.contains(set.as_str())));
    assert_eq!(kept, ["backup-notes.json", "backup-x.000001.zst", "notes.txt"]);
    let target = Kind::Memory.fresh().await;
    complete(&bring_back(&folder.place, &target.db, &steps()).await.unwrap());
    same_reads(&*source.db, &*target.db).await;
}

/// Two tables that each transaction writes both: at any time they are at the same version.
#[tokio::test(flavor = "multi_thread")]
async fn writers_go_on_and_transactions_stay_whole() {
    for kind in [Kind::Sqlite, Kind::Memory] {
        let (source, folder) = (kind.fresh().await, Folder::new());
        let ids: Vec<TableId> = (1..=6).map(|n| TableId(Uuid::from_u128(n))).collect();
        let create = |id: &TableId| {
            let new = new_table(*id, TableName::new("ns", format!("t{id}")).unwrap());
            Change::files(["a"]).protocol(protocol(2)).metadata(metadata("m")).create(new).unwrap()
        };
        let request = |number: u64, tables| CommitRequest {
            token: CommitToken::new(format!("w{number}")).unwrap(),
            now: TimestampMs(i64::try_from(number).unwrap()),
            tables,
        };
        source.db.commit(request(0, ids.iter().map(create).collect())).await.unwrap();
        // Some commits for each round, so that no catalog grows without bound.
        let (more, mut wanted) = tokio::sync::mpsc::channel::<u64>(16);
        let writer = {
            let (db, ids) = (Arc::clone(&source.db), ids.clone());
            tokio::spawn(async move {
                let mut number = 0_u64;
                while let Some(count) = wanted.recv().await {
                    for _ in 0..count {
                        let head = Version::new(i64::try_from(number).unwrap()).unwrap();
                        number += 1;
                        let path = format!("f{number}");
                        let change = |id: &TableId| {
                            Change::files([path.as_str()]).exactly(*id, head).unwrap()
                        };
                        let tables = ids.iter().map(change).collect();
                        let token = CommitToken::new(format!("w{number}")).unwrap();
                        let now = TimestampMs(i64::try_from(number).unwrap());
                        db.commit(CommitRequest { token, now, tables }).await.unwrap();
                    }
                }
                number
            })
        };
        let mut heads = Vec::new();
        for round in 0..6 {
            more.send(60).await.unwrap();
            let (one, two) = tokio::join!(
                back_up(&source.db, &folder.place, round == 4),
                back_up(&source.db, &folder.place, false)
            );
            for report in [one.unwrap(), two.unwrap()] {
                let target = Kind::Memory.fresh().await;
                let options = RestoreOptions { set: Some(report.set), ..RestoreOptions::default() };
                complete(&bring_back(&folder.place, &target.db, &options).await.unwrap());
                let found = tables(&*target.db, TableState::Active).await;
                assert_eq!(found.len(), ids.len());
                assert!(found.iter().all(|table| table.head == found[0].head), "{found:#?}");
                heads.push(found[0].head.unwrap());
            }
        }
        drop(more);
        println!("{} commits, backed up at {heads:?}", writer.await.unwrap());
        assert!(heads.last() > heads.first());
        sound(&folder.place).await;
        assert!(folder.objects().iter().all(|name| !is_a(name, "begun")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_never_changed() {
    let (source, folder, target) =
        (Kind::Memory.fresh().await, Folder::new(), Kind::Memory.fresh().await);
    let id = |n: u128| TableId(Uuid::from_u128(n));
    let create = |n: u128, name: &str| {
        let new = new_table(id(n), TableName::new("ns", name).unwrap());
        Change::files(["a"]).protocol(protocol(2)).metadata(metadata("m")).create(new).unwrap()
    };
    let commit = async |db: &Database, token: &str, tables| {
        let token = CommitToken::new(token).unwrap();
        db.db.commit(CommitRequest { token, now: TimestampMs(7), tables }).await.unwrap();
    };
    commit(&source, "1", vec![create(1, "one"), create(2, "two"), create(3, "three")]).await;
    back_up(&source.db, &folder.place, false).await.unwrap();
    commit(&target, "2", vec![create(9, "two")]).await;
    let error = bring_back(&folder.place, &target.db, &steps()).await.unwrap_err().to_string();
    assert!(error.contains("ns.two") && error.contains("--into-existing"), "{error}");

    let one =
        RestoreOptions { tables: vec!["ns.one".parse().unwrap()], into_existing: true, ..steps() };
    let report = bring_back(&folder.place, &target.db, &one).await.unwrap();
    complete(&report);
    assert_eq!(report.tables.len(), 1);
    // Its name is taken by another table: that one stays, and nothing else becomes active.
    let all = RestoreOptions { into_existing: true, ..steps() };
    let report = bring_back(&folder.place, &target.db, &all).await.unwrap();
    assert!(!report.finished && !report.agrees());
    let two = report.tables.iter().find(|table| table.name.name() == "two").unwrap();
    assert_eq!(two.progress, Progressed::Refused);
    assert!(two.differences[0].contains("its name belongs to table"), "{two:?}");
    let there = target.db.get_table(&"ns.two".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(there.id, id(9));
    // A table that has gone on is compared, and kept.
    let v = |n| Version::new(n).unwrap();
    commit(&target, "3", vec![Change::files(["z"]).exactly(id(1), v(0)).unwrap()]).await;
    let report = bring_back(&folder.place, &target.db, &one).await.unwrap();
    assert!(report.tables[0].differences[0].contains("the target is in use"), "{report:#?}");
    let there = target.db.snapshot(&TableRef::Id(id(1)), At::Head).await.unwrap();
    assert_eq!(there.version, v(1));

    for (tables, text) in [
        (vec!["ns.none".parse().unwrap()], "no table 'ns.none'"),
        (vec![TableRef::Id(id(77))], "no table"),
    ] {
        let options = RestoreOptions { tables, ..steps() };
        let empty = Kind::Memory.fresh().await;
        let error = bring_back(&folder.place, &empty.db, &options).await.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    let nowhere = Folder::new();
    let empty = Kind::Memory.fresh().await;
    let error = bring_back(&nowhere.place, &empty.db, &steps()).await.unwrap_err().to_string();
    assert!(error.contains("there is no backup in"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_catalog_and_secrets_in_clear_are_refused() {
    let (source, other, folder) =
        (Kind::Memory.fresh().await, Kind::Memory.fresh().await, Folder::new());
    let create = |n: u128, secret: Option<&str>| {
        let mut new = new_table(TableId(Uuid::from_u128(n)), TableName::new("ns", "t").unwrap());
        if let Some(secret) = secret {
            new.storage_options.insert("aws_secret_access_key".to_owned(), secret.to_owned());
        }
        Change::files(["a"]).protocol(protocol(2)).metadata(metadata("m")).create(new).unwrap()
    };
    let commit = async |db: &Database, table| {
        let token = CommitToken::new("t").unwrap();
        let request = CommitRequest { token, now: TimestampMs(7), tables: vec![table] };
        db.db.commit(request).await.unwrap();
    };
    commit(&source, create(1, Some("env:KEY"))).await;
    back_up(&source.db, &folder.place, false).await.unwrap();
    commit(&other, create(2, None)).await;
    let error = back_up(&other.db, &folder.place, false).await.unwrap_err().to_string();
    assert!(error.contains("another catalog"), "{error}");
    assert_eq!(folder.place.list().await.unwrap().sets.len(), 1);
    assert!(folder.place.list().await.unwrap().unfinished.is_empty());

    let third = Kind::Memory.fresh().await;
    commit(&third, create(3, Some("geheim"))).await;
    let elsewhere = Folder::new();
    let error = back_up(&third.db, &elsewhere.place, false).await.unwrap_err().to_string();
    assert!(error.contains("aws_secret_access_key") && !error.contains("geheim"), "{error}");
    assert!(elsewhere.place.list().await.unwrap().sets.is_empty());
    for name in elsewhere.objects() {
        let bytes = std::fs::read(elsewhere.path(&name)).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("geheim"), "{name}");
    }
}

/// The lake went on after the backup: what is restored does not publish over it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_ahead_is_not_published_to() {
    let (source, folder) = (Kind::Memory.fresh().await, Folder::new());
    let lake = tempfile::tempdir().unwrap();
    let create = |n: u128, mirror| {
        let name = TableName::new("ns", format!("t{n}")).unwrap();
        let mut new = new_table(TableId(Uuid::from_u128(n)), name);
        new.location = format!("file://{}/{n}", lake.path().display());
        if n == 3 {
            // Its store cannot be opened here.
            new.location = "s3://bucket/3".to_owned();
            let nowhere = "env:DL_TEST_NO_SUCH_VARIABLE".to_owned();
            new.storage_options.insert("region".to_owned(), nowhere);
        }
        new.mirror = mirror;
        Change::files(["a"]).protocol(protocol(2)).metadata(metadata("m")).create(new).unwrap()
    };
    let tables = vec![
        create(1, MirrorMode::Active),
        create(2, MirrorMode::Active),
        create(3, MirrorMode::Active),
        create(4, MirrorMode::Off),
    ];
    let request =
        CommitRequest { token: CommitToken::new("t").unwrap(), now: TimestampMs(7), tables };
    source.db.commit(request).await.unwrap();
    back_up(&source.db, &folder.place, false).await.unwrap();
    // Table 1 is where it was. The early commits of table 2 were cleaned up. Nobody publishes table 4.
    for (table, file) in [
        (1, "00000000000000000000.json"),
        (2, "00000000000000000040.checkpoint.parquet"),
        (4, "00000000000000000001.json"),
    ] {
        let log = lake.path().join(format!("{table}/_delta_log"));
        std::fs::create_dir_all(&log).unwrap();
        std::fs::write(log.join(file), "x").unwrap();
    }
    let target = Kind::Memory.fresh().await;
    let report = bring_back(&folder.place, &target.db, &steps()).await.unwrap();
    complete(&report);
    let paused: Vec<_> = report.paused.iter().map(|paused| paused.name.to_string()).collect();
    assert_eq!(paused, ["ns.t2", "ns.t3"], "{report:#?}");
    assert!(report.paused[0].why.contains("at version 40"), "{report:#?}");
    let mut modes = Vec::new();
    for n in 1..=4 {
        let table = TableRef::Id(TableId(Uuid::from_u128(n)));
        modes.push(target.db.get_table(&table).await.unwrap().unwrap().mirror);
    }
    let (active, diverged) = (MirrorMode::Active, MirrorMode::Diverged);
    assert_eq!(modes, [active, diverged, diverged, MirrorMode::Off]);
}

/// An entry of the audit that nobody else makes.
fn noted(word: &str, at: TimestampMs, token: Option<&str>) -> AuditEntry {
    AuditEntry {
        at,
        action: format!("test.{word}"),
        table_id: None,
        table_name: Some("a.b".to_owned()),
        by: Actor { user: Some("o'brien 😀".to_owned()), ..Actor::default() },
        detail: Some(r#"{"n":1}"#.to_owned()),
        token: token.map(|token| CommitToken::new(token).unwrap()),
    }
}

/// The rows of a catalog's audit in their order, as they read without their tokens.
async fn rows_of(db: &Arc<dyn CatalogBackend>) -> Vec<AuditEntry> {
    let page = db.audit_list(&AuditFilter::default(), AuditOrder::OldestFirst, None, 10_000).await;
    let rows = page.unwrap().items.into_iter();
    rows.map(|row| AuditEntry { token: None, ..row.entry }).collect()
}

/// How often a catalog's audit has each of these rows.
fn times(rows: &[AuditEntry], of: &[AuditEntry]) -> Vec<usize> {
    of.iter().map(|row| rows.iter().filter(|there| *there == row).count()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_comes_back_once_in_its_order_and_up_to_a_time() {
    for (from, to) in PAIRS {
        println!("{from:?} to {to:?}");
        let (source, folder) = (from.fresh().await, Folder::new());
        Writer::new(&source.db, 70_000).steps(40).await;
        let now = SystemClock.now();
        for n in 0..30 {
            let entry = noted(&format!("first-{n}"), now.plus_ms(n - 100), None);
            source.db.audit_record(&entry).await.unwrap();
        }
        back_up(&source.db, &folder.place, true).await.unwrap();
        let full = rows_of(&source.db).await;
        assert!(full.len() >= 30);
        // Seen later than its time says, and one with a token.
        let late = noted("late", now.plus_ms(-7_200_000), None);
        let next = noted("next", SystemClock.now().plus_ms(1), Some("once"));
        for entry in [&late, &next] {
            source.db.audit_record(entry).await.unwrap();
        }
        let second = back_up(&source.db, &folder.place, false).await.unwrap();
        assert!(second.parent.is_some());
        sound(&folder.place).await;
        let all = rows_of(&source.db).await;

        let target = to.fresh().await;
        for _ in 0..2 {
            complete(&bring_back(&folder.place, &target.db, &steps()).await.unwrap());
            let rows = rows_of(&target.db).await;
            assert_eq!(times(&rows, &all), times(&all, &all));
            let theirs: Vec<_> = rows.into_iter().filter(|row| all.contains(row)).collect();
            assert_eq!(theirs, all, "the order is the same");
        }
        // The restored catalog goes on in the same place, and is restored once more.
        back_up(&target.db, &folder.place, false).await.unwrap();
        sound(&folder.place).await;
        let third = from.fresh().await;
        complete(&bring_back(&folder.place, &third.db, &steps()).await.unwrap());
        assert_eq!(times(&rows_of(&third.db).await, &all), times(&all, &all));

        let past = to.fresh().await;
        let at = Some(now.plus_ms(-90));
        let options = RestoreOptions { at, ..steps() };
        let report = bring_back(&folder.place, &past.db, &options).await.unwrap();
        assert!(report.finished, "{report:#?}");
        let rows = rows_of(&past.db).await;
        // The set is the full one: what was seen later is not in it.
        let (before, after): (Vec<_>, Vec<_>) =
            full.iter().cloned().partition(|row| row.at <= now.plus_ms(-90));
        assert!(before.len() > 10 && after.len() > 10);
        assert_eq!(times(&rows, &before), times(&full, &before));
        assert_eq!(times(&rows, &after), vec![0; after.len()]);
        assert_eq!(times(&rows, &[late]), [0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_an_earlier_program_is_restored_without_the_audit() {
    let (source, folder) = (Kind::Sqlite.fresh().await, Folder::new());
    Writer::new(&source.db, 71_000).steps(20).await;
    let entry = noted("first", TimestampMs(1_000), None);
    source.db.audit_record(&entry).await.unwrap();
    back_up(&source.db, &folder.place, true).await.unwrap();
    // As an earlier program would have written it.
    let name = folder.objects().into_iter().find(|name| is_a(name, "json")).unwrap();
    let text = std::fs::read_to_string(folder.path(&name)).unwrap();
    let mut sealed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let manifest = &mut sealed["manifest"];
    assert!(!manifest["audit"]["segments"].as_array().unwrap().is_empty(), "{manifest}");
    manifest.as_object_mut().unwrap().remove("audit");
    manifest["counts"].as_object_mut().unwrap().remove("audit");
    let text = serde_json::to_string(manifest).unwrap();
    let sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(text.as_bytes()));
    let sealed = format!(r#"{{"sha256":"{sha256}","manifest":{text}}}"#);
    std::fs::write(folder.path(&name), sealed).unwrap();
    sound(&folder.place).await;

    let target = Kind::Sqlite.fresh().await;
    complete(&bring_back(&folder.place, &target.db, &steps()).await.unwrap());
    assert_eq!(times(&rows_of(&target.db).await, std::slice::from_ref(&entry)), [0]);
    // The next set has all rows, however old.
    back_up(&source.db, &folder.place, false).await.unwrap();
    sound(&folder.place).await;
    let target = Kind::Sqlite.fresh().await;
    complete(&bring_back(&folder.place, &target.db, &steps()).await.unwrap());
    assert_eq!(times(&rows_of(&target.db).await, &[entry]), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_audit_is_found_before_anything_is_restored() {
    let (source, folder) = (Kind::Sqlite.fresh().await, Folder::new());
    Writer::new(&source.db, 72_000).steps(20).await;
    source.db.audit_record(&noted("first", TimestampMs(1_000), None)).await.unwrap();
    back_up(&source.db, &folder.place, true).await.unwrap();
    // The last object of the set.
    let name = folder.objects().into_iter().rfind(|name| is_a(name, "zst")).unwrap();
    let mut bytes = std::fs::read(folder.path(&name)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(folder.path(&name), bytes).unwrap();
    let found = verify(&folder.place, None, &NoProgress).await.unwrap();
    assert!(found[0].problems.iter().any(|problem| problem.contains(&name)), "{found:#?}");
    let target = Kind::Sqlite.fresh().await;
    let error = bring_back(&folder.place, &target.db, &steps()).await.unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    assert!(tables(&*target.db, TableState::Active).await.is_empty());
    assert!(tables(&*target.db, TableState::Importing).await.is_empty());
}
