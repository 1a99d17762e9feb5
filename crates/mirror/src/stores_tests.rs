//! The same behaviour on every store that can be started here: memory, local files, S3 and Azure by
//! their emulators. A store that cannot be started is skipped, with the reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltalakedb_catalog_core::ids::{TableId, TableRef, Version};
use deltalakedb_catalog_core::model::MirrorMode;
use deltalakedb_catalog_core::secrets::is_secret;
use deltalakedb_catalog_core::sink::{MirrorSink, PutOutcome, Replaced};
use deltalakedb_catalog_engine::catalog::ChangeTarget;
use deltalakedb_catalog_engine::env::NoProgress;
use deltalakedb_test_servers::{
    CountingProxy, EmulatedStore, ObjectStoreKind, shared_object_store,
};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use uuid::Uuid;

use crate::diff::{DiffOptions, Verdict, diff};
use crate::export::publish_to;
use crate::import::{ImportOptions, import_table};
use crate::kernel::{LogLocation, read_state};
use crate::log::listing::LogName;
use crate::publish::PublisherConfig;
use crate::sink::open_sink;
use crate::store::open_store;
use crate::testing::{Lake, add, zero};
use crate::vacuum::{VacuumOptions, vacuum};

/// A place in a store, and what opens it.
struct Place {
    root: String,
    options: BTreeMap<String, String>,
    emulator: Option<EmulatedStore>,
    /// Kept as long as the place.
    folder: Option<tempfile::TempDir>,
}

impl Place {
    /// None where the store cannot be started: that was said then.
    fn open(store: &str) -> Option<Place> {
        let (root, folder) = match store {
            "s3" => return Place::emulated(ObjectStoreKind::S3),
            "azure" => return Place::emulated(ObjectStoreKind::Azure),
            "memory" => (format!("memory://{}", Uuid::new_v4()), None),
            _ => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().to_str().unwrap();
                (crate::store::normalize_location(path).unwrap(), Some(folder))
            }
        };
        Some(Place { root, options: BTreeMap::new(), emulator: None, folder })
    }

    fn emulated(kind: ObjectStoreKind) -> Option<Place> {
        let built = match kind {
            ObjectStoreKind::S3 => cfg!(feature = "s3"),
            ObjectStoreKind::Azure => cfg!(feature = "azure"),
        };
        let emulator = if built {
            shared_object_store(kind)
        } else {
            Err(format!("built without the cargo feature of {kind:?}"))
        };
        match emulator {
            Ok(emulator) => {
                let bucket = format!("dl-{}", Uuid::new_v4().simple());
                emulator.make_bucket(&bucket).unwrap();
                let folder = tempfile::tempdir().unwrap();
                Some(Place {
                    root: emulator.url(&bucket),
                    options: by_reference(&emulator, folder.path()),
                    emulator: Some(emulator),
                    folder: Some(folder),
                })
            }
            Err(why) => {
                let name = if kind == ObjectStoreKind::S3 { "s3" } else { "azure" };
                deltalakedb_test_servers::skip(&[name], why);
                None
            }
        }
    }

    fn location(&self, name: &str) -> String {
        format!("{}/lake 1/50%25/{name}", self.root).replace(' ', "%20")
    }

    fn sink(&self, name: &str) -> Arc<dyn MirrorSink> {
        open_sink(&self.location(name), &self.options).unwrap()
    }

    async fn table(&self, lake: &Lake, name: &str, head: i64) -> TableId {
        let target = ChangeTarget::Create {
            name: name.parse().unwrap(),
            location: self.location(name),
            storage_options: self.options.clone(),
            mirror: MirrorMode::Active,
            fence: true,
        };
        let (id, _) = lake.change(target, &zero("", "\"delta.checkpointInterval\":\"5\"")).await;
        for i in 1..=head {
            lake.commit(id, &add(&format!("part-{i}.parquet"))).await;
        }
        id
    }

    /// The same place through another address.
    fn through(&self, port: u16) -> BTreeMap<String, String> {
        let emulator = self.emulator.clone().unwrap();
        let endpoint = format!("http://127.0.0.1:{port}");
        by_reference(&EmulatedStore { endpoint, ..emulator }, self.folder.as_ref().unwrap().path())
    }
}

/// Options that lead to an emulator, with its secrets in files.
fn by_reference(emulator: &EmulatedStore, folder: &std::path::Path) -> BTreeMap<String, String> {
    let keep = |(name, value): (String, String)| {
        if !is_secret(&name) {
            return (name, value);
        }
        let file = folder.join(&name);
        std::fs::write(&file, format!("{value}\n")).unwrap();
        (name, format!("file:{}", file.display()))
    };
    emulator.options().into_iter().map(keep).collect()
}

macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        mod memory { $(on_every_store!(@ memory $test);)* }
        mod local { $(on_every_store!(@ local $test);)* }
        mod s3 { $(on_every_store!(@ s3 $test);)* }
        mod azure { $(on_every_store!(@ azure $test);)* }
    };
    (@ $store:ident $test:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $test() {
            if let Some(place) = super::Place::open(stringify!($store)) {
                super::$test(place).await;
            }
        }
    };
}

on_every_store!(
    objects_are_created_once_and_replaced_only_as_expected,
    racing_puts_admit_one,
    a_table_is_published_read_exported_and_imported,
    two_publishers_write_one_log,
    an_object_that_changes_behind_our_back_is_detected,
    a_vacuum_knows_files_by_every_address,
);

async fn objects_are_created_once_and_replaced_only_as_expected(place: Place) {
    let sink = place.sink("t");
    assert_eq!(sink.list(None).await.unwrap(), vec![]);
    for name in ["02.json", "00.json", "01.json", "_sidecars/x.parquet"] {
        let put = sink.put_if_absent(name, Bytes::from(name.to_owned())).await.unwrap();
        assert_eq!(put, PutOutcome::Created);
        let again = sink.put_if_absent(name, Bytes::from_static(b"other")).await.unwrap();
        assert_eq!(again, PutOutcome::Exists);
        assert_eq!(sink.get(name).await.unwrap().unwrap(), name);
    }
    let names = |after: Option<&'static str>| {
        let sink = Arc::clone(&sink);
        async move {
            let found = sink.list(after).await.unwrap();
            found.into_iter().map(|e| e.name).collect::<Vec<_>>()
        }
    };
    assert_eq!(names(None).await, ["00.json", "01.json", "02.json", "_sidecars/x.parquet"]);
    assert_eq!(names(Some("00.json")).await, ["01.json", "02.json", "_sidecars/x.parquet"]);
    assert_eq!(sink.get("03.json").await.unwrap(), None);
    let whole = Bytes::from_static(b"whole");
    assert_eq!(sink.replace("00.json", b"0", whole.clone()).await.unwrap(), Replaced::Changed);
    assert_eq!(sink.replace("03.json", b"", whole.clone()).await.unwrap(), Replaced::Changed);
    assert_eq!(sink.replace("00.json", b"00.json", whole.clone()).await.unwrap(), Replaced::Done);
    assert_eq!(sink.get("00.json").await.unwrap().unwrap(), whole);
    for text in ["1", "22"] {
        sink.put_replace("_last_checkpoint", Bytes::from(text)).await.unwrap();
        assert_eq!(sink.get("_last_checkpoint").await.unwrap().unwrap(), text);
    }
}

async fn racing_puts_admit_one(place: Place) {
    let sink = place.sink("t");
    for round in 0..8 {
        let name = format!("{round:020}.json");
        let puts = (0..16_u8).map(|i| {
            let (sink, name) = (Arc::clone(&sink), name.clone());
            tokio::spawn(async move {
                (i, sink.put_if_absent(&name, Bytes::from(vec![i; 20_000])).await.unwrap())
            })
        });
        let outcomes: Vec<(u8, PutOutcome)> =
            futures::future::join_all(puts).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<u8> = outcomes
            .iter()
            .filter(|(_, outcome)| *outcome == PutOutcome::Created)
            .map(|(i, _)| *i)
            .collect();
        let [winner] = winners[..] else { panic!("{outcomes:?}") };
        assert_eq!(sink.get(&name).await.unwrap().unwrap(), vec![winner; 20_000]);
    }
}

async fn verdict(lake: &Lake, id: TableId) -> Verdict {
    let table = TableRef::Id(id);
    diff(&lake.catalog, &table, DiffOptions::default(), &NoProgress).await.unwrap().verdict
}

async fn a_table_is_published_read_exported_and_imported(place: Place) {
    let lake = Lake::new();
    let id = place.table(&lake, "t", 12).await;
    let report = lake.publisher().run_once(None).await.unwrap();
    assert_eq!((report.published, report.checkpoints, report.failures), (13, 2, vec![]));
    assert_eq!(verdict(&lake, id).await, Verdict::Parity);
    let read = |name: &str, version: Option<i64>| {
        let location = LogLocation::Table(place.location(name));
        let options = place.options.clone();
        let version = version.map(|v| Version::new(v).unwrap());
        async move { read_state(location, &options, version).await.unwrap() }
    };
    assert_eq!(read("t", None).await.files.len(), 12);
    assert_eq!(read("t", Some(7)).await.files.len(), 7);
    let to = place.location("copy");
    let table = TableRef::Id(id);
    publish_to(&lake.catalog, &table, &to, &place.options, &NoProgress).await.unwrap();
    assert_eq!(read("copy", None).await, read("t", None).await);
    let options = ImportOptions {
        storage_options: place.options.clone(),
        mirror: MirrorMode::Off,
        ..ImportOptions::new("taken".parse().unwrap(), place.location("t"))
    };
    let report = import_table(&lake.catalog, options, &NoProgress).await.unwrap();
    assert_eq!((report.head.get(), report.num_files), (12, 12));
}

/// Leases lapse at once, so both work on the same versions all the time.
async fn two_publishers_write_one_log(place: Place) {
    let lake = Lake::new();
    let id = place.table(&lake, "t", 11).await;
    let config = PublisherConfig { lease_ms: 0, max_versions: 3, ..PublisherConfig::default() };
    let publishers: Vec<_> = (0..2)
        .map(|_| Arc::new(lake.publisher_on(Arc::clone(lake.catalog.backend()), config.clone())))
        .collect();
    for _ in 0..20 {
        let runs = publishers.iter().map(|publisher| {
            let publisher = Arc::clone(publisher);
            tokio::spawn(async move { publisher.run_once(None).await.unwrap() })
        });
        let reports = futures::future::join_all(runs).await;
        lake.clock.advance(1_000_000);
        assert!(reports.iter().all(|report| report.as_ref().unwrap().diverged == 0));
    }
    lake.publisher().run_once(None).await.unwrap();
    assert_eq!(verdict(&lake, id).await, Verdict::Parity);
    let commits = place.sink("t").list(None).await.unwrap();
    let commits = commits.iter().filter(|e| matches!(LogName::parse(&e.name), LogName::Commit(_)));
    assert_eq!(commits.count(), 12);
}

/// What a store that lies does: bytes that were acknowledged are gone, or someone else's.
async fn an_object_that_changes_behind_our_back_is_detected(place: Place) {
    let lake = Lake::new();
    let id = place.table(&lake, "t", 3).await;
    lake.publisher().run_once(None).await.unwrap();
    let sink = place.sink("t");
    let name = format!("{}.json", Version::new(2).unwrap().padded());
    let ours = sink.get(&name).await.unwrap().unwrap();
    for theirs in [Bytes::from_static(b"{\"commitInfo\":{}}\n"), ours.slice(..20), Bytes::new()] {
        sink.put_replace(&name, theirs).await.unwrap();
        assert_eq!(verdict(&lake, id).await, Verdict::Drift);
    }
    sink.put_replace(&name, ours).await.unwrap();
    assert_eq!(verdict(&lake, id).await, Verdict::Parity);
}

/// Files whose paths are written as other engines write them, and a table below the table.
async fn a_vacuum_knows_files_by_every_address(place: Place) {
    let lake = Lake::new();
    let root = place.location("t");
    // Hadoop's names of the same stores.
    let hadoop = match root.split_once("://").unwrap() {
        ("s3", rest) => format!("s3a://{rest}"),
        ("az", rest) => format!("abfss://{rest}"),
        _ => root.clone(),
    };
    let path = url::Url::parse(&root).unwrap().path().to_owned();
    let live = [
        ("a b.parquet", "a%20b.parquet".to_owned()),
        ("c%20d.parquet", "c%2520d.parquet".to_owned()),
        ("day=x/e.parquet", "day=x//./gone/../e.parquet".to_owned()),
        ("up.parquet", "../t/up.parquet".to_owned()),
        ("whole.parquet", format!("{root}/whole.parquet")),
        ("hadoop one.parquet", format!("{hadoop}/hadoop%20one.parquet")),
        ("bare.parquet", format!("{path}/bare.parquet")),
        ("inner/f.parquet", "f.parquet".to_owned()),
    ];
    let sink = place.sink("t");
    let mut log = zero("", "");
    live.iter().filter(|(_, path)| path != "f.parquet").for_each(|(_, path)| log += &add(path));
    let name = format!("{}.json", Version::ZERO.padded());
    sink.put_if_absent(&name, log.into()).await.unwrap();
    let inner = (zero("", "") + &add("f.parquet")).into();
    place.sink("t/inner").put_if_absent(&name, inner).await.unwrap();
    let options = ImportOptions {
        storage_options: place.options.clone(),
        skip_validation: true,
        ..ImportOptions::new("t".parse().unwrap(), root.clone())
    };
    import_table(&lake.catalog, options, &NoProgress).await.unwrap();
    let store = open_store(&root, &place.options).unwrap();
    let key = |name: &str| Path::parse(format!("{}/{name}", store.root)).unwrap();
    let gone = ["orphan.parquet", "day=x/gone/e.parquet", "s3a:/x.parquet", "inner2/f.parquet"];
    for name in live.iter().map(|(name, _)| *name).chain(gone) {
        store.store.put(&key(name), "data".into()).await.unwrap();
    }
    // What was written just now is old by then.
    lake.clock.advance(1_000 * 365 * 86_400_000);
    let vacuum_all = VacuumOptions { delete: true, ..VacuumOptions::default() };
    let table = TableRef::Name("t".parse().unwrap());
    let report = vacuum(&lake.catalog, &table, vacuum_all, &NoProgress).await.unwrap();
    for (name, path) in &live {
        assert!(store.store.head(&key(name)).await.is_ok(), "{name}, written as {path}");
    }
    let mut deleted = report.files.clone();
    deleted.sort();
    let mut want = gone.to_vec();
    want.sort_unstable();
    assert_eq!((deleted, report.deleted), (want.iter().map(|n| (*n).to_owned()).collect(), 4));
    assert_eq!((report.other_tables, report.other_table_folders), (1, vec!["inner".to_owned()]));
}

/// Connections break all the time, before and after requests: the log is the same, and complete.
async fn a_network_that_breaks_costs_time_only(place: Place) {
    let lake = Lake::new();
    let emulator = place.emulator.clone().unwrap();
    let proxy = CountingProxy::start_to(emulator.endpoint.trim_start_matches("http://")).unwrap();
    let through = Place { options: place.through(proxy.port()), ..place };
    let id = through.table(&lake, "t", 30).await;
    let publisher = Arc::new(lake.publisher());
    let working = {
        let publisher = Arc::clone(&publisher);
        let clock = Arc::clone(&lake.clock);
        tokio::spawn(async move {
            loop {
                let report = publisher.run_once(None).await.unwrap();
                assert_eq!(report.diverged, 0, "{report:?}");
                clock.advance(1_000_000);
                if report.unpublished == 0 {
                    return;
                }
            }
        })
    };
    let mut cuts = 0;
    while !working.is_finished() {
        tokio::time::sleep(Duration::from_millis(15)).await;
        proxy.cut();
        cuts += 1;
    }
    working.await.unwrap();
    assert!(cuts > 3, "{cuts}");
    assert_eq!(verdict(&lake, id).await, Verdict::Parity);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_through_a_network_that_breaks() {
    if let Some(place) = Place::open("s3") {
        a_network_that_breaks_costs_time_only(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn azure_through_a_network_that_breaks() {
    if let Some(place) = Place::open("azure") {
        a_network_that_breaks_costs_time_only(place).await;
    }
}

/// The catalog holds the name of a variable, and errors hold neither secret nor signature.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_kept_by_reference() {
    let Some(mut place) = Place::open("azure") else { return };
    let key = place.options.insert("azure_storage_account_key".into(), "env:HOME".into());
    let wrong = std::env::var("HOME").unwrap();
    let lake = Lake::new();
    let id = place.table(&lake, "t", 0).await;
    let table = lake.catalog.table(&TableRef::Id(id)).await.unwrap();
    assert_eq!(table.storage_options["azure_storage_account_key"], "env:HOME");
    let mut clear = place.options.clone();
    clear.insert("azure_storage_account_key".into(), "in clear".into());
    let options = ImportOptions {
        storage_options: clear,
        ..ImportOptions::new("u".parse().unwrap(), place.location("u"))
    };
    let error = import_table(&lake.catalog, options, &NoProgress).await.unwrap_err().to_string();
    assert!(
        error.contains("azure_storage_account_key") && !error.contains("in clear\""),
        "{error}"
    );
    let report = lake.publisher().run_once(None).await.unwrap();
    let [issue] = report.failures.as_slice() else { panic!("{report:?}") };
    assert!(!issue.error.contains(&key.unwrap()), "{}", issue.error);
    assert!(!issue.error.contains(&format!("'{wrong}'")), "{}", issue.error);
    assert_eq!((report.published, report.unpublished), (0, 1));
}
