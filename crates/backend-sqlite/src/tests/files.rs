//! Listing at old versions: both ways to do it give the same rows.

use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::ids::{TimestampMs, Version};
use rusqlite::params;

use super::support::{Place, change, create, id, paths, raw};
use crate::reads::{FILES_AT_MANY, TOMBSTONES_MANY};
use crate::rows::text::fill;

#[tokio::test]
async fn old_versions_list_what_went_since_in_order() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    change(&backend, 1, "1", &["a", "b", "c", "d", "e"], &[]).await;
    change(&backend, 1, "2", &["f", "g"], &["b", "d"]).await;
    change(&backend, 1, "3", &["b"], &["a", "f"]).await;
    change(&backend, 1, "4", &["c"], &[]).await; // replaces
    let expected: [&[&str]; 5] = [
        &[],
        &["a", "b", "c", "d", "e"],
        &["a", "c", "e", "f", "g"],
        &["c", "e", "g", "b"],
        &["e", "g", "b", "c"],
    ];
    let conn = raw(&place.path());
    for (version, expected) in (0_i64..).zip(expected) {
        assert_eq!(paths(&backend, 1, version).await, expected, "version {version}");
        // The way that is taken where very much went since.
        let listed: Vec<String> = conn
            .prepare(&fill(FILES_AT_MANY, "dl_"))
            .unwrap()
            .query_map(params![1, -1, -1, 100, version], |row| row.get(2))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(listed, expected, "version {version}");
    }
}

#[tokio::test]
async fn both_ways_to_list_tombstones_agree() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    change(&backend, 1, "1", &["a", "b", "c"], &[]).await;
    change(&backend, 1, "2", &[], &["a", "b"]).await;
    change(&backend, 1, "3", &["a"], &["c"]).await;
    change(&backend, 1, "4", &[], &["a"]).await;
    let conn = raw(&place.path());
    for (version, expected) in
        [(1, vec![]), (2, vec!["a", "b"]), (3, vec!["b", "c"]), (4, vec!["b", "c", "a"])]
    {
        let at = Version::new(version).unwrap();
        let page = backend.list_tombstones(id(1), at, TimestampMs(99), None, 100).await.unwrap();
        let listed: Vec<_> = page.items.iter().map(|t| t.remove.path.as_str()).collect();
        assert_eq!(listed, expected, "version {version}");
        let many: i64 = conn
            .prepare(&format!("SELECT count(*) FROM ({})", fill(TOMBSTONES_MANY, "dl_")))
            .unwrap()
            .query_row(params![1, -1, -1, 100, version, 99], |row| row.get(0))
            .unwrap();
        assert_eq!(usize::try_from(many).unwrap(), expected.len(), "version {version}");
        let none = backend.list_tombstones(id(1), at, TimestampMs(100), None, 100).await.unwrap();
        assert!(none.items.is_empty());
    }
}

#[tokio::test]
async fn equal_digests_are_compared_in_full() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    change(&backend, 1, "1", &["a", "b"], &[]).await;
    // As if 'a' and 'c' had one digest.
    raw(&place.path())
        .execute(
            "UPDATE dl_files SET file_key = ?1 WHERE path = 'a'",
            [&deltalakedb_catalog_core::action::FileKey::digest_of("c", "")[..]],
        )
        .unwrap();
    change(&backend, 1, "2", &["c"], &[]).await;
    assert_eq!(paths(&backend, 1, 2).await, ["a", "b", "c"]);
    change(&backend, 1, "3", &[], &["c"]).await;
    assert_eq!(paths(&backend, 1, 3).await, ["a", "b"]);
}
