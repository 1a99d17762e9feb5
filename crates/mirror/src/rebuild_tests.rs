use deltalakedb_catalog_core::ids::{At, TableRef};
use deltalakedb_catalog_core::model::MirrorMode;
use deltalakedb_catalog_engine::env::NoProgress;

use super::*;
use crate::diff::{DiffOptions, Verdict, diff};
use crate::testing::{Lake, add};

#[test]
fn names_come_from_folders() {
    let name = |pattern: &str, location: &str| {
        name_of(pattern, "s3://b/lake", location).map(|name| name.to_string()).unwrap()
    };
    let pattern = "{parent}.{name}";
    assert_eq!(name(pattern, "s3://b/lake/sales/orders"), "sales.orders");
    assert_eq!(name(pattern, "s3://b/lake/orders"), "default.orders");
    assert_eq!(name(pattern, "s3://b/lake/a/b/sales/orders.v1"), "sales.orders_v1");
    assert_eq!(name(pattern, "s3://b/lake"), "default.lake");
    assert_eq!(name("x.{parent}_{name}", "s3://b/lake/a/b"), "x.a_b");
    assert!(name_of(pattern, "s3://b", "s3://b/a%0A/b").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_catalog_is_rebuilt_from_its_logs() {
    let lake = Lake::new();
    let names = ["sales/orders", "sales/items 1", "hr/deep/er/people"];
    let mut heads = Vec::new();
    for (i, name) in names.iter().enumerate() {
        // Folders like those of namespaces.
        let id = lake.table(&format!("t{i}"), 12 + i64::try_from(i).unwrap()).await;
        lake.publisher().run_once(None).await.unwrap();
        let to = lake.dir.path().join("lake").join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::rename(lake.dir.path().join(format!("t{i}")), &to).unwrap();
        let snapshot = lake.catalog.snapshot(&TableRef::Id(id), At::Head).await.unwrap();
        heads.push((snapshot.version, snapshot.num_files, snapshot.protocol, snapshot.metadata));
    }
    std::fs::create_dir_all(lake.dir.path().join("lake/sales/_hidden/_delta_log")).unwrap();
    std::fs::create_dir_all(lake.dir.path().join("lake/broken/_delta_log")).unwrap();
    std::fs::write(lake.dir.path().join("lake/broken/_delta_log/00000000000000000003.json"), "")
        .unwrap();
    drop(lake.catalog);

    let new = Lake::new();
    let options = RebuildOptions {
        from: lake.dir.path().join("lake").to_str().unwrap().to_owned(),
        storage_options: BTreeMap::new(),
        names: None,
        skip_validation: false,
    };
    let bad = RebuildOptions { names: Some("a.b".to_owned()), ..options.clone() };
    assert!(rebuild(&new.catalog, &bad, &NoProgress).await.is_err());
    let rebuilt = rebuild(&new.catalog, &options, &NoProgress).await.unwrap();
    let outcomes: Vec<String> = rebuilt
        .iter()
        .map(|table| match &table.outcome {
            RebuildOutcome::Imported(report) => report.name.to_string(),
            RebuildOutcome::There { .. } => "there".to_owned(),
            RebuildOutcome::Failed { error } => {
                assert!(error.contains("broken"), "{error}");
                "failed".to_owned()
            }
        })
        .collect();
    assert_eq!(outcomes, ["failed", "er.people", "sales.items 1", "sales.orders"]);
    for (name, head) in [("sales.orders", &heads[0]), ("sales.items 1", &heads[1])] {
        let table = TableRef::Name(name.parse().unwrap());
        let snapshot = new.catalog.snapshot(&table, At::Head).await.unwrap();
        let found = (snapshot.version, snapshot.num_files, snapshot.protocol, snapshot.metadata);
        assert_eq!(&found, head);
        assert_eq!(snapshot.table.mirror, MirrorMode::Active);
        // It goes on where the lost one stopped.
        new.commit(snapshot.table.id, &add("more")).await;
    }
    let report = new.publisher().run_once(None).await.unwrap();
    assert_eq!((report.published, report.diverged), (2, 0));
    let table = TableRef::Name("sales.orders".parse().unwrap());
    let report = diff(&new.catalog, &table, DiffOptions::default(), &NoProgress).await.unwrap();
    assert_eq!(report.verdict, Verdict::Parity);
    let again = rebuild(&new.catalog, &options, &NoProgress).await.unwrap();
    let there = |t: &&RebuiltTable| matches!(t.outcome, RebuildOutcome::There { .. });
    assert_eq!(again.iter().filter(there).count(), 3);
}

/// A catalog whose commits carry the names of its tables, as those of the facade do.
fn signed() -> Lake {
    let mut lake = Lake::new();
    let signature = signature::Signature { user: None, table_names: true };
    lake.catalog = lake.catalog.clone().with_signature(signature);
    lake
}

fn options(lake: &Lake) -> RebuildOptions {
    RebuildOptions {
        from: lake.dir.path().to_str().unwrap().to_owned(),
        storage_options: BTreeMap::new(),
        names: None,
        skip_validation: true,
    }
}

fn outcomes(rebuilt: &[RebuiltTable]) -> Vec<String> {
    rebuilt
        .iter()
        .map(|table| match &table.outcome {
            RebuildOutcome::Imported(report) => report.name.to_string(),
            RebuildOutcome::There { name } => format!("there: {name}"),
            RebuildOutcome::Failed { error } => error.clone(),
        })
        .collect()
}

/// A table called `name` in the folder of that name; returns it as it is after a move to `folder`.
async fn table_in(lake: &Lake, name: &str, folder: &str) -> deltalakedb_catalog_core::ids::TableId {
    let id = lake.table(name, 2).await;
    lake.publisher().run_once(None).await.unwrap();
    let to = lake.dir.path().join(folder);
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::rename(lake.dir.path().join(name), to).unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_get_the_names_back_that_they_had() {
    let lake = signed();
    table_in(&lake, "shop.orders", "o").await;
    table_in(&lake, "shop.it\"ems \u{fc}", "deep/er/i").await;
    // Renamed, and committed to since: the newest commit counts, behind one of another program.
    let id = lake.table("old.name", 1).await;
    lake.catalog.drop_table(&TableRef::Id(id)).await.unwrap();
    let new_name = Some("new.name".parse().unwrap());
    lake.catalog.undrop_table(&TableRef::Id(id), new_name).await.unwrap();
    lake.commit(id, &add("later")).await;
    lake.publisher().run_once(None).await.unwrap();
    std::fs::write(lake.log("old.name").join("00000000000000000003.json"), add("theirs")).unwrap();
    // Nothing of ours is in it.
    let foreign = lake.dir.path().join("ns/foreign/_delta_log");
    std::fs::create_dir_all(&foreign).unwrap();
    let zero = crate::testing::zero("", "");
    std::fs::write(foreign.join("00000000000000000000.json"), zero).unwrap();

    let want = ["shop.it\"ems \u{fc}", "ns.foreign", "shop.orders", "new.name"];
    let new = Lake::new();
    let rebuilt = rebuild(&new.catalog, &options(&lake), &NoProgress).await.unwrap();
    let mut got = outcomes(&rebuilt);
    got.sort();
    let mut sorted = want.map(str::to_owned).to_vec();
    sorted.sort();
    assert_eq!(got, sorted);
    // A pattern is for all tables.
    let by_folder = RebuildOptions { names: Some("x.{name}".to_owned()), ..options(&lake) };
    let rebuilt = rebuild(&Lake::new().catalog, &by_folder, &NoProgress).await.unwrap();
    let mut got = outcomes(&rebuilt);
    got.sort();
    assert_eq!(got, ["x.foreign", "x.i", "x.o", "x.old_name"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_outlive_the_cleanup_of_old_commits() {
    let lake = signed();
    let properties =
        "\"delta.checkpointInterval\":\"2\",\"delta.logRetentionDuration\":\"interval 1 seconds\"";
    let id = lake.create("shop.orders", &crate::testing::zero("", properties)).await;
    for n in 0..4 {
        lake.commit(id, &add(&format!("{n}"))).await;
        lake.clock.advance(1_000_000_000);
        lake.publisher().run_once(None).await.unwrap();
    }
    let log = lake.log("shop.orders");
    assert!(!log.join("00000000000000000000.json").exists());
    let rebuilt = rebuild(&Lake::new().catalog, &options(&lake), &NoProgress).await.unwrap();
    assert_eq!(outcomes(&rebuilt), ["shop.orders"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tables_of_one_name_are_refused_and_both_named() {
    let lake = signed();
    table_in(&lake, "shop.orders", "a").await;
    table_in(&lake, "shop.items", "items").await;
    let copy = lake.dir.path().join("backup/a/_delta_log");
    std::fs::create_dir_all(&copy).unwrap();
    for name in crate::testing::names(&lake.dir.path().join("a/_delta_log")) {
        let from = lake.dir.path().join("a/_delta_log").join(&name);
        std::fs::copy(from, copy.join(&name)).unwrap();
    }
    let new = Lake::new();
    let rebuilt = rebuild(&new.catalog, &options(&lake), &NoProgress).await.unwrap();
    let got = outcomes(&rebuilt);
    assert_eq!(got.len(), 3);
    assert_eq!(got[2], "shop.items");
    for error in &got[..2] {
        for part in ["'shop.orders'", "/a,", "/backup/a", "--names"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    // Nor is a name taken that is another table's in the catalog.
    std::fs::remove_dir_all(lake.dir.path().join("backup")).unwrap();
    let other = Lake::new();
    other.table("shop.orders", 0).await;
    let rebuilt = rebuild(&other.catalog, &options(&lake), &NoProgress).await.unwrap();
    let error = &outcomes(&rebuilt)[0];
    let there = other.location("shop.orders");
    assert!(error.contains(&there) && error.contains("/a"), "{error}");
}

/// A table that is in the catalog is not imported again because its folder has another name, too.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_known_by_every_name_of_its_folder() {
    let lake = Lake::new();
    lake.table("t", 2).await;
    lake.publisher().run_once(None).await.unwrap();
    let link = lake.dir.path().with_extension("link");
    std::os::unix::fs::symlink(lake.dir.path(), &link).unwrap();
    let options = RebuildOptions {
        from: link.to_str().unwrap().to_owned(),
        storage_options: BTreeMap::new(),
        names: None,
        skip_validation: false,
    };
    let rebuilt = rebuild(&lake.catalog, &options, &NoProgress).await;
    std::fs::remove_file(&link).unwrap();
    let rebuilt = rebuilt.unwrap();
    let [table] = rebuilt.as_slice() else { panic!("{rebuilt:?}") };
    assert!(matches!(table.outcome, RebuildOutcome::There { .. }), "{table:?}");
    let key = |location: &str| crate::store::place_key(location);
    assert_eq!(key("s3a://B/t/"), key("s3://b/x/../t"));
}

/// That a table is frozen is part of its log.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_table_is_rebuilt_frozen() {
    let lake = Lake::new();
    let id = lake.table("lake/t", 3).await;
    let reason = Some("the store moves".parse().unwrap());
    lake.catalog.freeze(&[TableRef::Id(id)], reason, None).await.unwrap();
    lake.publisher().run_once(None).await.unwrap();
    let new = Lake::new();
    let options = RebuildOptions {
        from: lake.dir.path().join("lake").to_str().unwrap().to_owned(),
        storage_options: BTreeMap::new(),
        names: Some("x.{name}".to_owned()),
        skip_validation: false,
    };
    rebuild(&new.catalog, &options, &NoProgress).await.unwrap();
    let table = TableRef::Name("x.t".parse().unwrap());
    let head = new.catalog.snapshot(&table, At::Head).await.unwrap();
    let told = new.catalog.frozen(&head).await.unwrap().unwrap();
    assert_eq!((told.version.get(), told.reason.as_deref()), (4, Some("the store moves")));
    assert!(told.since.is_some());
    let error = new.catalog.drop_table(&table).await.unwrap_err();
    assert_eq!(error.code(), "table_frozen", "{error}");
    new.catalog.unfreeze(&[table], None, None).await.unwrap();
    new.commit(head.table.id, &add("more")).await;
}
