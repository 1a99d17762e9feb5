use std::time::{Duration, SystemTime};

use deltalakedb_catalog_core::action::Add;
use futures::TryStreamExt;

use crate::{Change, Db, PublisherConfig, Table};

const LIMIT: Duration = Duration::from_secs(60);

async fn catalog() -> Db {
    Db::create(&"memory://".parse().unwrap()).await.unwrap()
}

async fn orders(db: &Db) -> Table {
    // The process has one store in memory for all tests.
    db.create_table("shop.orders")
        .location(format!("memory://orders-{}", db.ids().uuid()))
        .columns("id long, day date")
        .partition_by(["day"])
        .property("delta.appendOnly", "false")
        .await
        .unwrap()
}

fn file(path: &str, day: &str) -> Add {
    serde_json::from_str(&format!(
        r#"{{"path":"{path}","partitionValues":{{"day":"{day}"}},"size":7,"modificationTime":1}}"#
    ))
    .unwrap()
}

async fn paths(table: &Table) -> Vec<String> {
    table.files().map_ok(|file| file.add.path).try_collect().await.unwrap()
}

#[tokio::test]
async fn a_table_stays_at_its_version() {
    let db = catalog().await;
    let created = orders(&db).await;
    created.append(vec![file("a", "2026-01-01")]).await.unwrap();
    created.append(vec![file("b", "2026-01-02")]).await.unwrap();
    let latest = created.latest().await.unwrap();
    assert_eq!((created.version().get(), latest.version().get()), (0, 2));
    assert_eq!(
        (paths(&created).await.len(), paths(&latest).await),
        (0, vec!["a".into(), "b".into()])
    );
    assert_eq!((latest.num_files(), latest.size_bytes()), (2, 14));
    assert_eq!(paths(&latest.at(1).await.unwrap()).await, ["a"]);
    let by_time =
        db.table_at("shop.orders", latest.at(1).await.unwrap().timestamp()).await.unwrap();
    assert_eq!(by_time.version().get(), 1);
    let some: Vec<_> =
        latest.files_matching("day > DATE '2026-01-01'").unwrap().try_collect().await.unwrap();
    assert_eq!(some.len(), 1);
    let history: Vec<_> = by_time.history().try_collect().await.unwrap();
    assert_eq!(history.iter().map(|c| c.version.get()).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(latest.schema().unwrap().fields.len(), 2);
    // By each kind of name.
    for table in [
        db.table(latest.id()).await.unwrap(),
        db.table(latest.name()).await.unwrap(),
        db.table(&latest).await.unwrap(),
        db.table(&latest.name().to_string()).await.unwrap(),
    ] {
        assert_eq!(table.id(), latest.id());
    }
}

#[tokio::test]
async fn a_commit_leads_to_its_version_and_a_time_to_the_version_of_then() {
    let db = catalog().await;
    let (db, worker) = db.publish_in_background(PublisherConfig::default());
    let created = orders(&db).await;
    let report = created.append(vec![file("a", "2026-01-01")]).await.unwrap();
    let first = created.at_commit(&report).await.unwrap();
    let replace = |change: Change| {
        change.read_whole_table().remove_files([file("a", "2026-01-01")]).add_files([])
    };
    let report = first.commit(replace).token("t").await.unwrap();
    let second = first.at_commit(&report).await.unwrap();
    assert_eq!((first.version().get(), second.version().get()), (1, 2));
    let waited = second.wait_published(LIMIT).await.unwrap();
    assert!(waited.published_version >= second.version());
    db.wait_published(&report, LIMIT).await.unwrap();
    worker.stop().await.unwrap();

    let other = db.create_table("other").location("memory://other").columns("id long");
    let error = other.await.unwrap().at_commit(&report).await.unwrap_err();
    assert_eq!(error.code(), "invalid_input", "{error}");

    let ms = u64::try_from(first.timestamp().0).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
    assert_eq!(second.at(then).await.unwrap().version(), first.version());
    let error = second.at(SystemTime::UNIX_EPOCH - LIMIT).await.unwrap_err();
    assert_eq!(error.code(), "version_not_found", "{error}");
}

#[tokio::test]
async fn changes_of_several_tables_take_effect_together_and_once() {
    let db = catalog().await;
    let make = |name: &str| {
        db.create_table(name).location(format!("memory://{name}")).columns("id long, day date")
    };
    let made = async || {
        db.changes().token("make").create(make("a").partition_by(["day"])).create(make("b")).await
    };
    assert!(!made().await.unwrap().replayed);
    assert!(made().await.unwrap().replayed);
    let a = db.table("a").await.unwrap();
    // A file of `b` cannot have partition values.
    let wrong = db.changes().append("a", vec![file("x", "2026-01-01")]);
    let error = wrong.append("b", vec![file("x", "2026-01-01")]).await.unwrap_err();
    assert_eq!(error.code(), "invalid_input");
    assert_eq!(a.latest().await.unwrap().version().get(), 0);
}

#[tokio::test]
async fn what_was_read_is_checked_and_needs_a_version() {
    let db = catalog().await;
    let created = orders(&db).await;
    created.append(vec![file("a", "2026-01-01"), file("b", "2026-01-02")]).await.unwrap();
    let opened = created.latest().await.unwrap();
    let files: Vec<Add> = opened.files().map_ok(|file| file.add).try_collect().await.unwrap();
    let replace = |day: &str, old: usize, new: &str| {
        Change::of(&opened)
            .operation("UPDATE")
            .read_where(&format!("day = DATE '{day}'"))
            .remove_files([files[old].clone()])
            .add_files([file(new, day)])
    };
    // Both read what the other one does not touch.
    db.changes().change(replace("2026-01-01", 0, "a2")).await.unwrap();
    db.changes().change(replace("2026-01-02", 1, "b2")).await.unwrap();
    let mut now = paths(&opened.latest().await.unwrap()).await;
    now.sort();
    assert_eq!(now, ["a2", "b2"]);
    // This one read what is not there any more.
    let error = db.changes().change(replace("2026-01-02", 1, "b3")).await.unwrap_err();
    assert_eq!(error.code(), "conflict");
    // Which version was read cannot be known of a name.
    for change in [
        Change::of("shop.orders").remove_files([files[0].clone()]),
        Change::of("shop.orders").read_whole_table().add_files([file("c", "2026-01-03")]),
        Change::of("shop.orders").read_where("day IS NULL").add_files([file("c", "2026-01-03")]),
    ] {
        let error = db.changes().change(change).await.unwrap_err();
        assert!(error.to_string().contains("Db::table"), "{error}");
    }
    let error = db.changes().change(Change::of(&opened).read_where("no such")).await.unwrap_err();
    assert_eq!(error.code(), "invalid_input");
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_said_when_it_is_awaited() {
    let db = catalog().await;
    for (table, says) in [
        (db.create_table("t").columns("id long"), "without a location"),
        (db.create_table("t").location("memory://t"), "without columns"),
        (db.create_table("t").location("memory://t").columns("id lang"), "lang"),
        (db.create_table("a..b").location("memory://t").columns("id long"), "bad namespace"),
        (db.create_table("t").location("memory://t").columns("id long").token(""), "token"),
    ] {
        let error = table.await.unwrap_err();
        assert_eq!(error.code(), "invalid_input", "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let error = db.table("t").await.unwrap_err();
    assert_eq!(error.code(), "table_not_found");
    let error = db.changes().await.unwrap_err();
    assert_eq!(error.code(), "invalid_input", "{error}");
    let table = db.create_table("t").location("memory://t").columns("id long").await.unwrap();
    assert_eq!(table.at(5).await.unwrap_err().code(), "version_not_found");
    assert_eq!(table.at(-1).await.unwrap_err().code(), "invalid_input");
    let again = db.create_table("t").location("memory://t2").columns("id long").await.unwrap_err();
    assert_eq!(again.code(), "table_exists");
}

#[tokio::test]
async fn a_change_of_metadata_conflicts_with_another_and_not_with_files() {
    let db = catalog().await;
    let opened = orders(&db).await;
    // Who added files meanwhile has not changed what a column is.
    opened.append(vec![file("a", "2026-01-01")]).await.unwrap();
    let altered = opened.alter().add_column("note string").await.unwrap();
    assert_eq!(altered.version().get(), 2);
    assert_eq!(altered.schema().unwrap().to_string(), "id long, day date, note string");
    for late in [
        opened.alter().description("late"),
        opened.alter().add_column("note string"),
        opened.alter().set_property("delta.enableChangeDataFeed", "true"),
    ] {
        let error = late.await.unwrap_err();
        assert_eq!(error.code(), "conflict", "{error}");
    }
    // Files that were described by the schema of before conflict; those for the table as it is go on.
    let error = opened.append(vec![file("b", "2026-01-02")]).await.unwrap_err();
    assert_eq!(error.code(), "conflict", "{error}");
    db.changes().append("shop.orders", vec![file("b", "2026-01-02")]).await.unwrap();
    assert_eq!(altered.latest().await.unwrap().num_files(), 2);
    // Nothing to change is no commit.
    let same = altered.latest().await.unwrap();
    assert!(same.alter().set_nullable("id").commit().await.unwrap().is_none());
    assert_eq!(same.alter().set_nullable("id").await.unwrap().version(), same.version());
}

#[tokio::test]
async fn a_constraint_conflicts_with_rows_that_nobody_checked() {
    let db = catalog().await;
    let opened = orders(&db).await;
    opened.append(vec![file("a", "2026-01-01")]).await.unwrap();
    // The table was empty when it was opened, and is not any more.
    let error = opened.alter().add_constraint("pos", "id > 0").await.unwrap_err();
    assert_eq!(error.code(), "conflict", "{error}");
    let error =
        opened.latest().await.unwrap().alter().add_constraint("pos", "id > 0").await.unwrap_err();
    // Its data file is not there.
    let (code, word) = if cfg!(feature = "deltalake") {
        ("invalid_input", "data file a is damaged")
    } else {
        ("unsupported", "1 file(s)")
    };
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(word), "{error}");
}

#[tokio::test]
async fn a_frozen_table_says_who_has_frozen_it() {
    let db = catalog().await.with_user(Some("ann".parse().unwrap()));
    let open = orders(&db).await;
    assert!(!open.is_frozen());
    assert_eq!(open.frozen().await.unwrap(), None);
    let report = open.freeze().reason("the store moves").token("w").await.unwrap();
    assert!(report.changed());
    let frozen = open.latest().await.unwrap();
    assert_eq!(Some(frozen.version()), report.tables[0].version);
    let told = frozen.frozen().await.unwrap().unwrap();
    assert_eq!((told.table.as_str(), told.user.as_deref()), ("shop.orders", Some("ann")));
    assert_eq!(told.since, Some(frozen.timestamp()));
    let refused = [
        open.append(vec![file("a", "2026-01-01")]).await.unwrap_err(),
        frozen.append(vec![file("a", "2026-01-01")]).await.unwrap_err(),
        frozen.alter().description("x").await.unwrap_err(),
        open.alter().description("x").await.unwrap_err(),
        frozen.describe_files(["a.parquet"]).await.unwrap_err(),
        db.drop_table(&deltalakedb_catalog_core::ids::TableRef::Id(open.id())).await.unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.code(), "table_frozen", "{error}");
        assert!(error.to_string().contains("by ann: the store moves"), "{error}");
    }
    assert!(!frozen.freeze().await.unwrap().changed());
    assert!(frozen.unfreeze().await.unwrap().changed());
    // Once more with its token is what was done then.
    let again = open.freeze().reason("the store moves").token("w").await.unwrap();
    assert_eq!((again.changed(), &again.tables), (false, &report.tables));
    assert!(!open.latest().await.unwrap().is_frozen());
    // A change of what was opened while it was frozen has missed a change of the protocol.
    for late in [
        frozen.alter().description("x").await.unwrap_err(),
        frozen.append(vec![file("a", "2026-01-01")]).await.unwrap_err(),
    ] {
        assert_eq!(late.code(), "conflict", "{late}");
    }
    open.latest().await.unwrap().alter().description("x").await.unwrap();
    for (call, says) in [
        (db.freeze(["a..b"]), "namespace"),
        (db.freeze(["shop.orders"]).reason("a\nb"), "a reason"),
        (db.freeze(["shop.orders"]).token(""), "token"),
        (db.freeze(Vec::<&str>::new()), "no table to freeze"),
    ] {
        let error = call.await.unwrap_err();
        assert_eq!(error.code(), "invalid_input", "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let error = db.freeze(["shop.orders", "shop.none"]).await.unwrap_err();
    assert_eq!(error.code(), "table_not_found", "{error}");
    assert!(!open.latest().await.unwrap().is_frozen());
}
