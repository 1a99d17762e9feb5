//! Files under other spellings and names, other tables below and above, and commits meanwhile.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use deltalakedb_catalog_core::model::MirrorMode;
use deltalakedb_catalog_engine::catalog::ChangeTarget;
use deltalakedb_catalog_engine::env::NoProgress;
use deltalakedb_catalog_engine::fault::{Fault, FaultyBackend, Verb};
use deltalakedb_catalog_engine::memory::MemoryBackend;

use super::tests::{DAY, DELETE, file, run, there};
use super::*;
use crate::import::{ImportOptions, import_table};
use crate::testing::{Lake, add, remove, zero};

/// A table as another engine wrote it, in a folder of the lake, in one commit of these lines.
async fn foreign(lake: &Lake, name: &str, folder: &str, lines: &str) -> TableId {
    let log = lake.log(folder);
    fs::create_dir_all(&log).unwrap();
    let commit = zero("\"deletionVectors\"", "") + lines;
    fs::write(log.join("00000000000000000000.json"), commit).unwrap();
    import(lake, name, &lake.location(folder)).await
}

async fn import(lake: &Lake, name: &str, location: &str) -> TableId {
    let options = ImportOptions {
        skip_validation: true,
        ..ImportOptions::new(name.parse().unwrap(), location)
    };
    import_table(&lake.catalog, options, &NoProgress).await.unwrap().table_id.unwrap()
}

fn with_vector(add: &str, kind: &str, text: &str) -> String {
    let vector = format!(
        r#""deletionVector":{{"storageType":"{kind}","pathOrInlineDv":"{text}","offset":1,"sizeInBytes":36,"cardinality":2}},"dataChange""#
    );
    add.replace("\"dataChange\"", &vector)
}

#[tokio::test]
async fn live_files_stay_however_their_paths_are_spelt() {
    let lake = Lake::new();
    let root = lake.dir.path().join("t").to_str().unwrap().to_owned();
    let spelt = [
        ("one_slash.parquet", format!("file:{root}/one_slash.parquet")),
        ("three.parquet", format!("file://{root}/three.parquet")),
        ("host.parquet", format!("file://localhost{root}/host.parquet")),
        ("upper.parquet", format!("FILE://{root}/upper.parquet")),
        ("bare.parquet", format!("{root}/bare.parquet")),
        ("x/double.parquet", "x//double.parquet".to_owned()),
        ("x/dot.parquet", "x/./dot.parquet".to_owned()),
        ("a/back.parquet", "b/../a/back.parquet".to_owned()),
        ("up.parquet", "../t/up.parquet".to_owned()),
        ("with space.parquet", format!("file:{root}/with%20space.parquet")),
        ("a%20b.parquet", format!("file:{root}/a%2520b.parquet")),
        // Not encoded, as some writers left them.
        ("un coded.parquet", format!("{root}/un coded.parquet")),
        ("c%20d.parquet", "c%20d.parquet".to_owned()),
        ("e?f#g.parquet", "e?f#g.parquet".to_owned()),
        // Spark's folders: a value with `/`, `:` and a space, escaped by Hive's rules, then as a URI.
        ("day=1%2F2 3%3A4/h.parquet", "day=1%252F2%203%253A4/h.parquet".to_owned()),
        ("over.parquet", "%6fver%2Eparquet".to_owned()),
    ];
    let vectors = [
        ("dv p.bin", "p", format!("file:{root}/dv%20p.bin")),
        ("x/q.bin", "p", format!("file://localhost{root}/x//q.bin")),
        ("ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin", "u", {
            "ab^-aqEH.-t@S}K{vb[*k^".to_owned()
        }),
    ];
    let mut lines: String = spelt.iter().map(|(_, path)| add(path)).collect();
    for (i, (_, kind, text)) in vectors.iter().enumerate() {
        lines += &with_vector(&add(&format!("v{i}.parquet")), kind, text);
    }
    foreign(&lake, "t", "t", &lines).await;
    let live: Vec<&str> =
        spelt.iter().map(|(name, _)| *name).chain(vectors.iter().map(|(name, ..)| *name)).collect();
    lake.clock.advance(100 * DAY);
    for name in live.iter().chain(&["orphan.parquet", "b/orphan.parquet"]) {
        file(&lake, name, 60);
    }
    let report = run(&lake, DELETE).await.unwrap();
    for name in live {
        assert!(there(&lake, name), "{name} is live");
    }
    assert_eq!((report.unneeded, report.deleted), (2, 2), "{:?}", report.files);
    assert!(!there(&lake, "orphan.parquet") && !there(&lake, "b/orphan.parquet"));
}

#[tokio::test]
async fn a_path_that_cannot_be_placed_ends_the_vacuum() {
    for path in ["dbfs:/mnt/t/a.parquet", "file://elsewhere/t/a.parquet", "x/%FF.parquet"] {
        let lake = Lake::new();
        foreign(&lake, "t", "t", &add(path)).await;
        lake.clock.advance(100 * DAY);
        file(&lake, "orphan.parquet", 60);
        for options in [VacuumOptions::default(), DELETE] {
            let error = run(&lake, options).await.unwrap_err().to_string();
            assert!(error.contains(path) && error.contains("'default.t'"), "{error}");
        }
        assert!(there(&lake, "orphan.parquet"));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_what_they_are_whatever_leads_to_them() {
    use std::os::unix::fs::symlink;
    // The log names the real folder, the catalog has a link to it; and the other way round.
    for (location, written) in [("link", "t"), ("t", "link")] {
        let lake = Lake::new();
        let dir = lake.dir.path();
        fs::create_dir_all(dir.join("t")).unwrap();
        symlink(dir.join("t"), dir.join("link")).unwrap();
        let path = format!("file:{}/{written}/a.parquet", dir.to_str().unwrap());
        foreign(&lake, "t", location, &add(&path)).await;
        lake.clock.advance(100 * DAY);
        file(&lake, "a.parquet", 60);
        file(&lake, "orphan.parquet", 60);
        let report = run(&lake, DELETE).await.unwrap();
        assert!(there(&lake, "a.parquet"), "root {location}, path {path}");
        assert_eq!((report.deleted, there(&lake, "orphan.parquet")), (1, false));
    }
    let lake = Lake::new();
    let dir = lake.dir.path();
    let lines = add("link/a.parquet") + &add("hard.parquet") + &add("alias.parquet");
    foreign(&lake, "t", "t", &lines).await;
    lake.clock.advance(100 * DAY);
    for name in ["real/a.parquet", "real/orphan.parquet", "other name.parquet", "seen.parquet"] {
        file(&lake, name, 60);
    }
    let t = dir.join("t");
    symlink(t.join("real"), t.join("link")).unwrap();
    fs::hard_link(t.join("other name.parquet"), t.join("hard.parquet")).unwrap();
    symlink(t.join("seen.parquet"), t.join("alias.parquet")).unwrap();
    // A folder of someone else, linked into the table's.
    fs::create_dir_all(dir.join("theirs")).unwrap();
    fs::rename(t.join("real/orphan.parquet"), dir.join("theirs/x.parquet")).unwrap();
    symlink(dir.join("theirs"), t.join("mounted")).unwrap();
    let report = run(&lake, DELETE).await.unwrap();
    for name in ["real/a.parquet", "other name.parquet", "hard.parquet", "seen.parquet"] {
        assert!(there(&lake, name), "{name}");
    }
    assert!(there(&lake, "alias.parquet") && dir.join("theirs/x.parquet").exists());
    assert_eq!((report.deleted, report.linked), (0, 1), "{report:?}");
}

#[tokio::test]
async fn folders_of_other_tables_are_theirs() {
    let lake = Lake::new();
    foreign(&lake, "t", "t", &add("a.parquet")).await;
    // Sorted before and after its log, known to the catalog or not.
    for folder in ["t/inner", "t/day=1/deep"] {
        fs::create_dir_all(lake.log(folder)).unwrap();
        fs::write(lake.log(folder).join("00000000000000000000.json"), zero("", "")).unwrap();
    }
    // No log yet, or not any more: only the catalog knows.
    lake.create_with("s", &zero("", ""), MirrorMode::Off).await;
    let unpublished = |name: &str, folder: &str| ChangeTarget::Create {
        name: name.parse().unwrap(),
        location: lake.location(folder),
        storage_options: std::collections::BTreeMap::new(),
        mirror: MirrorMode::Off,
        fence: false,
    };
    lake.change(unpublished("known", "t/known"), &zero("", "")).await;
    let (dropped, _) = lake.change(unpublished("dropped", "t/dropped"), &zero("", "")).await;
    lake.catalog.drop_table(&TableRef::Id(dropped)).await.unwrap();
    lake.clock.advance(100 * DAY);
    let theirs = [
        "inner/0.parquet",
        "inner/z/1.parquet",
        "day=1/deep/a.parquet",
        "known/a.parquet",
        "dropped/a.parquet",
    ];
    let ours = ["a.parquet"];
    let goes = ["inner2/a.parquet", "day=1/a.parquet", "knownx.parquet"];
    for name in theirs.iter().chain(&ours).chain(&goes) {
        file(&lake, name, 60);
    }
    let report = run(&lake, DELETE).await.unwrap();
    for name in theirs.iter().chain(&ours) {
        assert!(there(&lake, name), "{name}");
    }
    assert!(goes.iter().all(|name| !there(&lake, name)), "{report:?}");
    assert_eq!((report.deleted, report.other_tables), (3, 4));
    assert_eq!(report.other_table_folders, ["day=1/deep", "dropped", "inner", "known"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_table_below_is_known_by_a_link_to_it_too() {
    let lake = Lake::new();
    foreign(&lake, "t", "t", &add("a.parquet")).await;
    fs::create_dir_all(lake.dir.path().join("t/inner")).unwrap();
    std::os::unix::fs::symlink(lake.dir.path().join("t/inner"), lake.dir.path().join("l")).unwrap();
    lake.create_with("l", &zero("", ""), MirrorMode::Off).await;
    lake.clock.advance(100 * DAY);
    for name in ["inner/theirs.parquet", "orphan.parquet"] {
        file(&lake, name, 60);
    }
    let report = run(&lake, DELETE).await.unwrap();
    assert!(there(&lake, "inner/theirs.parquet") && !there(&lake, "orphan.parquet"));
    assert_eq!(report.other_table_folders, ["inner"]);
}

#[tokio::test]
async fn what_other_tables_of_the_catalog_name_stays() {
    let lake = Lake::new();
    foreign(&lake, "t", "t", &add("a.parquet")).await;
    let root = lake.dir.path().join("t").to_str().unwrap().to_owned();
    // A shallow clone, with a deletion vector, and one that was dropped.
    let lines = add(&format!("file:{root}/cloned%20one.parquet"))
        + &with_vector(&add("own.parquet"), "p", &format!("file://{root}/vector.bin"));
    foreign(&lake, "clone", "clone", &lines).await;
    let dropped = foreign(&lake, "gone", "gone", &add("../t/of_dropped.parquet")).await;
    lake.catalog.drop_table(&TableRef::Id(dropped)).await.unwrap();
    // A table above: its files are its own by ordinary paths.
    foreign(&lake, "above", "", &add("t/of_above.parquet")).await;
    lake.clock.advance(100 * DAY);
    let kept = ["cloned one.parquet", "vector.bin", "of_dropped.parquet", "of_above.parquet"];
    for name in kept.iter().chain(&["own.parquet", "orphan.parquet"]) {
        file(&lake, name, 60);
    }
    let report = run(&lake, DELETE).await.unwrap();
    assert_eq!(report.files, ["orphan.parquet", "own.parquet"]);
    assert!(kept.iter().all(|name| there(&lake, name)));
    // What cannot be placed may be one of these files.
    foreign(&lake, "odd", "odd", &add("dbfs:/mnt/x.parquet")).await;
    let error = run(&lake, DELETE).await.unwrap_err().to_string();
    assert!(error.contains("'default.odd'") && error.contains("--ignore-other-tables"), "{error}");
    let ignore = VacuumOptions { ignore_other_tables: true, ..DELETE };
    assert_eq!(run(&lake, ignore).await.unwrap().deleted, 4);
}

#[tokio::test]
async fn a_second_table_at_the_same_place_is_named() {
    let lake = Lake::new();
    let id = foreign(&lake, "t", "t", &add("a.parquet")).await;
    let options = ImportOptions {
        mirror: MirrorMode::Off,
        skip_validation: true,
        ..ImportOptions::new("twin".parse().unwrap(), lake.location("t"))
    };
    import_table(&lake.catalog, options, &NoProgress).await.unwrap();
    let error = run(&lake, DELETE).await.unwrap_err().to_string();
    assert!(error.contains("'default.twin'"), "{error}");
    lake.catalog.drop_table(&TableRef::Name("twin".parse().unwrap())).await.unwrap();
    run(&lake, DELETE).await.unwrap();
    assert_eq!(lake.catalog.table(&TableRef::Id(id)).await.unwrap().name.to_string(), "default.t");
}

/// A vacuum whose second look at the head waits until a test has committed; `ListFiles` and
/// `ReadBodies` are counted.
struct Gated {
    lake: Lake,
    id: TableId,
    vacuuming: tokio::task::JoinHandle<Result<VacuumReport>>,
    open: tokio::sync::oneshot::Sender<()>,
    lists: Arc<AtomicUsize>,
    bodies: Arc<AtomicUsize>,
}

impl Gated {
    async fn start(files: impl Fn(&Lake), fail: Option<Verb>) -> Gated {
        let memory = Arc::new(MemoryBackend::new());
        let lake = Lake::on(Arc::clone(&memory) as _);
        let id = lake.create("t", &zero("", "")).await;
        lake.clock.advance(100 * DAY);
        files(&lake);
        let (open, gate) = tokio::sync::oneshot::channel::<()>();
        let gate = Mutex::new(Some(gate));
        let reached = Arc::new(tokio::sync::Notify::new());
        let told = Arc::clone(&reached);
        let (lists, bodies) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&lists), Arc::clone(&bodies));
        let faulty = FaultyBackend::new(memory, move |call| {
            match call.verb {
                Verb::ListFiles => drop(counts.0.fetch_add(1, Ordering::Relaxed)),
                Verb::ReadBodies => drop(counts.1.fetch_add(1, Ordering::Relaxed)),
                _ => {}
            }
            if fail == Some(call.verb) {
                return Fault::Fail;
            }
            if (call.verb, call.nth) != (Verb::Snapshot, 1) {
                return Fault::None;
            }
            let (gate, told) = (gate.lock().unwrap().take().unwrap(), Arc::clone(&told));
            Fault::Before(Box::pin(async move {
                told.notify_one();
                gate.await.unwrap();
            }))
        });
        let (clock, ids) = (lake.catalog.clock().clone(), lake.catalog.ids().clone());
        let catalog = Catalog::new(Arc::new(faulty), clock, ids);
        let vacuuming =
            tokio::spawn(
                async move { vacuum(&catalog, &TableRef::Id(id), DELETE, &NoProgress).await },
            );
        reached.notified().await;
        Gated { lake, id, vacuuming, open, lists, bodies }
    }
}

#[tokio::test]
async fn what_was_added_and_removed_meanwhile_stays() {
    let orphans = |lake: &Lake| {
        for i in 0..2 * BATCH {
            file(lake, &format!("orphan-{i}.parquet"), 60);
        }
        for name in ["flash.parquet", "moved.parquet", "dv.bin"] {
            file(lake, name, 60);
        }
    };
    let gated = Gated::start(orphans, None).await;
    let (lake, id) = (&gated.lake, gated.id);
    let now = lake.clock_ms();
    lake.commit(id, &add("flash.parquet")).await;
    lake.commit(id, &remove("flash.parquet", now - 90 * DAY)).await;
    lake.commit(id, &add("./moved.parquet")).await;
    gated.open.send(()).unwrap();
    let report = gated.vacuuming.await.unwrap().unwrap();
    assert!(there(lake, "flash.parquet") && there(lake, "moved.parquet"));
    assert!(!there(lake, "dv.bin"));
    assert_eq!(report.deleted, 2 * 1_000 + 1);
    // Three looks at the head: what is there is listed once, what came since is read once.
    let counts = (gated.lists.load(Ordering::Relaxed), gated.bodies.load(Ordering::Relaxed));
    assert_eq!(counts, (1, 1));
}

#[tokio::test]
async fn commits_that_cannot_be_read_end_the_vacuum() {
    let orphan = |lake: &Lake| file(lake, "orphan.parquet", 60);
    let gated = Gated::start(orphan, Some(Verb::ReadBodies)).await;
    gated.lake.commit(gated.id, &add("unknown.parquet")).await;
    gated.open.send(()).unwrap();
    gated.vacuuming.await.unwrap().unwrap_err();
    assert!(there(&gated.lake, "orphan.parquet"));
}
