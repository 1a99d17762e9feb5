//! The registry in copies and backups: as it was, or not at all.

use deltalakedb::core::delegation::Verb;
use deltalakedb::core::registry::{Expected, Record, RecordKey, RecordWrite, RegistryOutcome};

use super::*;

fn write(kind: &str, name: &str, body: Option<&str>) -> RecordWrite {
    let key = RecordKey::new(kind, name).unwrap();
    RecordWrite { key, expected: Expected::Any, body: body.map(str::to_owned) }
}

async fn written(db: &Arc<dyn CatalogBackend>, writes: &[RecordWrite], at: i64) {
    let outcome = db.registry_write(writes, TimestampMs(at), None).await.unwrap();
    assert!(matches!(outcome, RegistryOutcome::Written(_)), "{outcome:?}");
}

/// Records of several calls, pages and objects, of which some are gone.
async fn fill(db: &Arc<dyn CatalogBackend>) {
    for call in 0..5 {
        let writes: Vec<RecordWrite> = (0..70)
            .map(|n| {
                let kind = ["share", "role", "api-key"][n % 3];
                let body = format!("{{ \"call\" : {call}, \"text\": \"o'b \\u0000 \\\\ 😀\" }}");
                write(kind, &format!("ü {call} {n}"), Some(&body))
            })
            .collect();
        written(db, &writes, 1_000 - call).await;
    }
    written(db, &[write("role", "ü 2 1", None), write("role", "ü 1 1", Some("{}"))], -5).await;
    written(db, &[write("role", "never", None)], 7).await;
}

/// The revision and all records.
async fn registry(db: &Arc<dyn CatalogBackend>) -> (i64, Vec<Record>) {
    let revision = db.registry_revision().await.unwrap();
    (revision, db.registry_all(None, 10_000).await.unwrap().items)
}

async fn nothing_is_there(db: &Arc<dyn CatalogBackend>) {
    for state in [TableState::Active, TableState::Importing, TableState::Dropped] {
        assert!(tables(&**db, state).await.is_empty(), "{state:?}");
    }
}

/// A folder with one set, whose catalog has tables and records.
async fn one_set() -> (Database, Folder) {
    let (source, folder) = (Kind::Memory.fresh().await, Folder::new());
    Writer::new(&source.db, 80_000).steps(20).await;
    fill(&source.db).await;
    back_up(&source.db, &folder.place, true).await.unwrap();
    sound(&folder.place).await;
    (source, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_the_registry_as_it_is() {
    for (from, to) in PAIRS {
        println!("{from:?} to {to:?}");
        let (source, target) = (from.fresh().await, to.fresh().await);
        Writer::new(&source.db, 81_000).steps(20).await;
        fill(&source.db).await;
        // It comes with the tables.
        let unfinished = CopyOptions { finish: false, ..CopyOptions::default() };
        copy(&source.db, &target.db, &unfinished).await.unwrap();
        assert_eq!(registry(&target.db).await, (0, Vec::new()));
        written(&source.db, &[write("share", "last", Some("{}"))], 9).await;
        let want = registry(&source.db).await;
        assert_eq!((want.0, want.1.len()), (8, 350));
        for _ in 0..2 {
            whole(&copy(&source.db, &target.db, &CopyOptions::default()).await.unwrap());
            assert_eq!(registry(&target.db).await, want);
        }
        // The target goes on, and is not overwritten.
        written(&target.db, &[write("share", "new", Some("{}"))], 10).await;
        let there = registry(&target.db).await;
        let error = copy(&source.db, &target.db, &CopyOptions::default()).await.unwrap_err();
        assert_eq!(error.code(), "invalid_input", "{error}");
        assert!(error.to_string().contains("350 records at revision 8"), "{error}");
        assert_eq!(registry(&target.db).await, there);
        // Nothing is begun in a catalog that has another one.
        let other = to.fresh().await;
        written(&other.db, &[write("share", "other", Some("{}"))], 10).await;
        let error = copy(&source.db, &other.db, &CopyOptions::default()).await.unwrap_err();
        assert_eq!(error.code(), "invalid_input", "{error}");
        nothing_is_there(&other.db).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_goes_from_database_to_database() {
    let source = Kind::Sqlite.fresh().await;
    Writer::new(&source.db, 82_000).steps(10).await;
    fill(&source.db).await;
    let want = registry(&source.db).await;
    let folder = Folder::new();
    back_up(&source.db, &folder.place, true).await.unwrap();
    let mut last = source;
    for server in ["postgres", "mysql"] {
        let Some(restored) = on_server(server).await else { continue };
        complete(&bring_back(&folder.place, &restored.db, &steps()).await.unwrap());
        assert_eq!(registry(&restored.db).await, want, "{server}");
        let Some(copied) = on_server(server).await else { continue };
        whole(&copy(&last.db, &copied.db, &CopyOptions::default()).await.unwrap());
        assert_eq!(registry(&copied.db).await, want, "{server}");
        last = copied;
    }
    let back = Kind::Sqlite.fresh().await;
    whole(&copy(&last.db, &back.db, &CopyOptions::default()).await.unwrap());
    assert_eq!(registry(&back.db).await, want);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_set_has_the_registry_of_its_time() {
    for (from, to) in PAIRS {
        println!("{from:?} to {to:?}");
        let (source, folder) = (from.fresh().await, Folder::new());
        let mut writer = Writer::new(&source.db, 83_000);
        let mut states = Vec::new();
        for n in 0..3 {
            writer.steps(10).await;
            if n == 1 {
                fill(&source.db).await;
            } else if n == 2 {
                written(&source.db, &[write("role", "ü 1 1", None)], 5).await;
            }
            let report = back_up(&source.db, &folder.place, n == 0).await.unwrap();
            states.push((report.set, report.counts.registry, registry(&source.db).await));
        }
        sound(&folder.place).await;
        let counts: Vec<u64> = states.iter().map(|(_, count, _)| *count).collect();
        assert_eq!(counts, [0, 349, 348]);
        for (set, _, want) in states {
            let target = to.fresh().await;
            let options = RestoreOptions { set: Some(set.clone()), ..steps() };
            for _ in 0..2 {
                complete(&bring_back(&folder.place, &target.db, &options).await.unwrap());
                assert_eq!(registry(&target.db).await, want, "{set}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_overwrites_no_record() {
    let (source, folder) = one_set().await;
    let want = registry(&source.db).await;
    let target = Kind::Sqlite.fresh().await;
    written(&target.db, &[write("share", "other", Some("{}"))], 10).await;
    let there = registry(&target.db).await;
    let error = bring_back(&folder.place, &target.db, &steps()).await.unwrap_err();
    assert_eq!(error.code(), "invalid_input", "{error}");
    assert!(error.to_string().contains("1 records at revision 1"), "{error}");
    nothing_is_there(&target.db).await;
    // Tables that are named come alone.
    let names: Vec<TableRef> = tables(&*source.db, TableState::Active)
        .await
        .into_iter()
        .map(|table| TableRef::Id(table.id))
        .collect();
    let options = RestoreOptions { tables: names, ..steps() };
    complete(&bring_back(&folder.place, &target.db, &options).await.unwrap());
    assert_eq!(registry(&target.db).await, there);
    // The same records may be there already.
    let target = Kind::Sqlite.fresh().await;
    assert!(target.db.registry_load(&want.1, want.0).await.unwrap());
    complete(&bring_back(&folder.place, &target.db, &steps()).await.unwrap());
    assert_eq!(registry(&target.db).await, want);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_interrupted_brings_all_records_or_none() {
    let (source, folder) = one_set().await;
    let want = registry(&source.db).await;
    for (fault, comes) in [
        ((|| Fault::LoseAnswer) as fn() -> Fault, true),
        (|| Fault::LoseAnswerBusy, true),
        (|| Fault::LoseRequest, true),
        (|| Fault::Busy, true),
        (|| Fault::Fail, false),
    ] {
        let target = Kind::Sqlite.fresh().await;
        let faulty: Arc<dyn CatalogBackend> =
            Arc::new(FaultyBackend::new(Arc::clone(&target.db), move |call| {
                match (call.verb, call.nth) {
                    (Verb::RegistryLoad, 0) => fault(),
                    _ => Fault::None,
                }
            }));
        let restored = bring_back(&folder.place, &faulty, &steps()).await;
        assert_eq!(restored.is_ok(), comes, "{restored:?}");
        let there = registry(&target.db).await;
        assert_eq!(there, if comes { want.clone() } else { (0, Vec::new()) });
        complete(&bring_back(&folder.place, &faulty, &steps()).await.unwrap());
        assert_eq!(registry(&target.db).await, want);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_the_records_of_one_moment() {
    let (source, folder) = (Kind::Memory.fresh().await, Folder::new());
    Writer::new(&source.db, 84_000).steps(10).await;
    fill(&source.db).await;
    // Between two pages a record of the first one goes, and one of the last comes.
    let inner = Arc::clone(&source.db);
    let moving: Arc<dyn CatalogBackend> =
        Arc::new(FaultyBackend::new(Arc::clone(&source.db), move |call| {
            let inner = Arc::clone(&inner);
            match (call.verb, call.nth) {
                (Verb::RegistryAll, 0) => Fault::After(Box::pin(async move {
                    let moved = [write("api-key", "ü 0 2", None), write("zz", "ü 0 2", Some("{}"))];
                    written(&inner, &moved, 5).await;
                })),
                _ => Fault::None,
            }
        }));
    back_up(&moving, &folder.place, true).await.unwrap();
    sound(&folder.place).await;
    let target = Kind::Sqlite.fresh().await;
    complete(&bring_back(&folder.place, &target.db, &steps()).await.unwrap());
    assert_eq!(registry(&target.db).await, registry(&source.db).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_does_not_stand_still_is_not_backed_up() {
    let (source, folder) = (Kind::Memory.fresh().await, Folder::new());
    Writer::new(&source.db, 85_000).steps(10).await;
    let inner = Arc::clone(&source.db);
    let moving: Arc<dyn CatalogBackend> =
        Arc::new(FaultyBackend::new(Arc::clone(&source.db), move |call| {
            let inner = Arc::clone(&inner);
            match call.verb {
                Verb::RegistryAll => Fault::After(Box::pin(async move {
                    written(&inner, &[write("key", "used", Some("{}"))], 5).await;
                })),
                _ => Fault::None,
            }
        }));
    let error = back_up(&moving, &folder.place, true).await.unwrap_err();
    assert!(error.to_string().contains("does not stop changing"), "{error}");
    assert!(folder.objects().iter().all(|name| !is_a(name, "json")), "{:?}", folder.objects());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_an_earlier_program_leaves_the_registry_alone() {
    let (_source, folder) = one_set().await;
    let name = folder.objects().into_iter().find(|name| is_a(name, "json")).unwrap();
    let text = std::fs::read_to_string(folder.path(&name)).unwrap();
    let mut sealed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let manifest = &mut sealed["manifest"];
    assert!(manifest["registry"]["segments"].as_array().unwrap().len() > 1, "{manifest}");
    assert_eq!(manifest["registry"]["revision"], 7);
    manifest.as_object_mut().unwrap().remove("registry");
    manifest["counts"].as_object_mut().unwrap().remove("registry");
    let text = serde_json::to_string(manifest).unwrap();
    let sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(text.as_bytes()));
    let sealed = format!(r#"{{"sha256":"{sha256}","manifest":{text}}}"#);
    std::fs::write(folder.path(&name), sealed).unwrap();
    sound(&folder.place).await;
    for own in [false, true] {
        let target = Kind::Sqlite.fresh().await;
        if own {
            written(&target.db, &[write("share", "own", Some("{}"))], 1).await;
        }
        let before = registry(&target.db).await;
        complete(&bring_back(&folder.place, &target.db, &steps()).await.unwrap());
        assert_eq!(registry(&target.db).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_registry_is_found_before_anything_is_restored() {
    let (_source, folder) = one_set().await;
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
    nothing_is_there(&target.db).await;
    assert_eq!(registry(&target.db).await, (0, Vec::new()));
}

/// All objects of a set that is not kept go.
#[tokio::test(flavor = "multi_thread")]
async fn objects_of_the_registry_go_with_their_set() {
    let (source, folder) = one_set().await;
    back_up(&source.db, &folder.place, true).await.unwrap();
    prune(&folder.place, Keep::Newest(1), SystemClock.now()).await.unwrap();
    sound(&folder.place).await;
    let sets: std::collections::BTreeSet<String> = folder
        .objects()
        .iter()
        .filter_map(|name| name.split('.').next().map(str::to_owned))
        .collect();
    assert_eq!(sets.len(), 1, "{sets:?}");
}
