//! Files, tombstones, application transactions, domains.

use deltalakedb_catalog_core::action::NullableMap;
use deltalakedb_catalog_core::backend::{AppRows, AppState, CatalogBackendExt};
use deltalakedb_catalog_core::ids::TimestampMs;

use super::cases;
use crate::change::{Change, file, gone};
use crate::env::{CaseResult, Env, all_files, all_tombstones, v};

cases! {
    /// list_files 1: each file once at every page size; a full last page has no next.
    async fn files_are_paged_at_every_size(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files((0..5).map(|i| format!("a{i}")))).await?;
        env.write(id, Change::files((0..4).map(|i| format!("b{i}")))).await?;
        env.write(id, Change::new().remove(gone(&file("a1"), Some(1)))).await?;
        env.write(id, Change::files(["c"])).await?;
        let want = ["a0", "a2", "a3", "a4", "b0", "b1", "b2", "b3", "c"];
        for limit in 1..=10 {
            let files = all_files(env.db(), id, v(3), limit).await?;
            let paths: Vec<_> = files.iter().map(|f| f.add.path.as_str()).collect();
            assert_eq!(paths, want, "limit {limit}");
        }
        let full = env.db().list_files(id, v(3), None, 9).await?;
        assert_eq!((full.items.len(), full.next), (9, None));
        let cut = env.db().list_files(id, v(3), None, 8).await?;
        assert_eq!(cut.next, Some(cut.items[7].cursor));
        Ok(())
    }

    /// files_end 1: where it is known, it is where the page ends; at each version, page size and place.
    async fn the_end_of_a_page_is_that_of_the_page(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files((0..9).map(|i| format!("a{i}")))).await?;
        env.write(id, Change::files((0..4).map(|i| format!("b{i}")))).await?;
        env.write(id, Change::new().remove(gone(&file("a5"), Some(1)))).await?;
        env.write(id, Change::files(["c"])).await?;
        for version in 0..=3 {
            for limit in 1..=13 {
                let all = all_files(env.db(), id, v(version), 100).await?;
                for after in all.iter().map(|file| file.cursor) {
                    let page = env.db().list_files(id, v(version), Some(after), limit).await?;
                    let end = env.db().files_end(id, v(version), after, limit).await?;
                    let asked = format!("version {version}, {limit} after {after:?}");
                    assert!(end.is_none() || end == page.next, "{asked}: {end:?}, {:?}", page.next);
                }
            }
        }
        Ok(())
    }

    /// list_files 1: an empty table has one empty page.
    async fn an_empty_table_has_no_files(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let page = env.db().list_files(id, v(0), None, 1).await?;
        assert_eq!((page.items, page.next), (Vec::new(), None));
        Ok(())
    }

    /// list_files 1: commits between two pages change nothing of the listed version.
    async fn paging_is_steady_while_commits_go_on(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files((0..20).map(|i| format!("f{i:02}")))).await?;
        let mut seen = Vec::new();
        let mut after = None;
        let mut head = 0;
        loop {
            let page = env.db().list_files(id, v(0), after, 3).await?;
            seen.extend(page.items.into_iter().map(|f| f.add.path));
            match page.next {
                None => break,
                next => after = next,
            }
            // Removes a listed file and one that is still to come, and replaces a third.
            let (back, ahead) = (head, 19 - head);
            let change = Change::files([format!("new{head}"), format!("f{:02}", 10)])
                .remove(gone(&file(format!("f{back:02}")), Some(1)))
                .remove(gone(&file(format!("f{ahead:02}")), Some(1)));
            env.write(id, change).await?;
            head += 1;
        }
        assert_eq!(seen, (0..20).map(|i| format!("f{i:02}")).collect::<Vec<_>>());
        assert!(head > 5, "commits went on between the pages");
        Ok(())
    }

    /// list_files 2: an action comes back with every field that it had, and none that it had not.
    async fn adds_come_back_with_all_of_their_fields(env: &Env) -> CaseResult {
        let plain = file("plain");
        let mut full = crate::change::with_dv(file("full"), "dv");
        full.partition_values = [
            ("p".to_owned(), Some("x=1/ü%20".to_owned())),
            ("empty".to_owned(), Some(String::new())),
            ("null".to_owned(), None),
        ]
        .into_iter()
        .collect();
        full.data_change = false;
        full.stats = Some(r#"{"numRecords" : 3,"minValues":{"a":1e400,"b":"\u0000"}}"#.to_owned());
        full.tags = Some([("k".to_owned(), Some("v".to_owned())), ("n".to_owned(), None)].into_iter().collect());
        full.base_row_id = Some(0);
        full.default_row_commit_version = Some(7);
        full.clustering_provider = Some("liquid".to_owned());
        let mut empty = file("empty");
        empty.stats = Some(String::new());
        empty.tags = Some(NullableMap::new());
        empty.clustering_provider = Some(String::new());
        if let Some(dv) = &mut full.deletion_vector {
            dv.max_row_index = Some(i64::MAX);
        }
        let adds = [plain, full, empty];
        let change = adds.iter().cloned().fold(Change::new(), Change::add);
        let id = env.create_with("t", change).await?;
        let got: Vec<_> = env.files(id, v(0)).await?.into_iter().map(|f| f.add).collect();
        assert_eq!(got, adds);

        let mut bare = gone(&adds[0], None);
        (bare.extended_file_metadata, bare.partition_values, bare.size) = (None, None, None);
        let mut rich = gone(&adds[1], Some(5));
        rich.data_change = false;
        rich.stats.clone_from(&adds[1].stats);
        rich.tags.clone_from(&adds[1].tags);
        (rich.base_row_id, rich.default_row_commit_version) = (Some(1), Some(2));
        env.write(id, Change::new().remove(bare.clone()).remove(rich.clone())).await?;
        let tombstones = env.tombstones(id, v(1), -1).await?;
        let got: Vec<_> = tombstones.into_iter().map(|t| t.remove).collect();
        assert_eq!(got, [bare, rich]);
        Ok(())
    }

    /// list_tombstones 1: those removed later than `deleted_after`, to the millisecond; a missing
    /// deletion timestamp counts as 0.
    async fn tombstones_end_with_their_retention(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a", "b", "c", "d"])).await?;
        let change = Change::new()
            .remove(gone(&file("a"), Some(1_000)))
            .remove(gone(&file("b"), Some(1_001)))
            .remove(gone(&file("c"), None))
            .remove(gone(&file("d"), Some(-5)));
        env.write(id, change).await?;
        for (deleted_after, want) in [
            (i64::MIN, &["a", "b", "c", "d"][..]),
            (-6, &["a", "b", "c", "d"]),
            (-5, &["a", "b", "c"]),
            (-1, &["a", "b", "c"]),
            (0, &["a", "b"]),
            (999, &["a", "b"]),
            (1_000, &["b"]),
            (1_001, &[]),
            (i64::MAX, &[]),
        ] {
            assert_eq!(env.buried(id, v(1), deleted_after).await?, want, "{deleted_after}");
        }
        Ok(())
    }

    /// list_tombstones 1: only those of the version or before, at every page size.
    async fn tombstones_are_those_of_the_version(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a", "b", "c", "d"])).await?;
        env.write(id, Change::new().remove(gone(&file("c"), Some(1)))).await?;
        env.write(id, Change::new().remove(gone(&file("a"), Some(2)))).await?;
        env.write(id, Change::new().remove(gone(&file("d"), Some(3)))).await?;
        for (version, want) in [(0, &[][..]), (1, &["c"]), (2, &["a", "c"]), (3, &["a", "c", "d"])]
        {
            for limit in 1..=4 {
                let found = all_tombstones(env.db(), id, v(version), TimestampMs(0), limit).await?;
                let paths: Vec<_> = found.iter().map(|t| t.remove.path.as_str()).collect();
                assert_eq!(paths, want, "version {version}, limit {limit}");
            }
        }
        Ok(())
    }

    /// list_tombstones 1: not of a file that was added again by that version.
    async fn a_file_that_was_added_again_has_no_tombstone(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a", "b"])).await?;
        env.write(id, Change::new().remove(gone(&file("a"), Some(5)))).await?;
        env.write(id, Change::files(["a"])).await?;
        env.write(id, Change::new().remove(gone(&file("b"), Some(6)))).await?;
        assert_eq!(env.buried(id, v(1), 0).await?, ["a"], "before it came back");
        assert_eq!(env.buried(id, v(2), 0).await?, Vec::<String>::new());
        assert_eq!(env.buried(id, v(3), 0).await?, ["b"]);
        Ok(())
    }

    /// list_tombstones 1: each key once, with its latest remove, which also decides about its age.
    async fn the_latest_remove_of_a_file_counts(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a"])).await?;
        env.write(id, Change::new().remove(gone(&file("a"), Some(900)))).await?;
        env.write(id, Change::files(["a"])).await?;
        env.write(id, Change::new().remove(gone(&file("a"), Some(500)))).await?;
        env.write(id, Change::files(["x"])).await?;
        let latest = env.tombstones(id, v(4), 0).await?;
        let got: Vec<_> =
            latest.iter().map(|t| (t.removed_version, t.remove.deletion_timestamp)).collect();
        assert_eq!(got, [(v(3), Some(500))]);
        assert_eq!(latest[0].cursor.added_version, v(2), "the row that this remove ended");
        // In a log that is replayed, the second remove is all that is left of the file.
        assert_eq!(env.buried(id, v(4), 700).await?, Vec::<String>::new());
        let before = env.tombstones(id, v(1), 700).await?;
        assert_eq!(before.len(), 1, "at version 1 the first remove was the latest");
        Ok(())
    }

    /// app_state 1: the latest of each application at the version, by `appId`, exactly told
    /// apart.
    async fn application_transactions_are_those_of_the_version(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::new().txn("b", 5).txn("a", 1)).await?;
        env.write(id, Change::new().txn("b", 3).txn("B", 9).txn("é", 1)).await?;
        env.write(id, Change::files(["f"])).await?;
        env.write(id, Change::new().txn("a", 2)).await?;
        for (version, want) in [
            (0, &[("a", 1), ("b", 5)][..]),
            (1, &[("B", 9), ("a", 1), ("b", 3), ("é", 1)]),
            (2, &[("B", 9), ("a", 1), ("b", 3), ("é", 1)]),
            (3, &[("B", 9), ("a", 2), ("b", 3), ("é", 1)]),
        ] {
            let txns = env.db().app_transactions(id, v(version)).await?;
            let got: Vec<_> = txns.iter().map(|t| (t.app_id.as_str(), t.version)).collect();
            assert_eq!(got, want, "version {version}");
        }
        Ok(())
    }

    /// app_state 2: those in force at the version, by domain; a removed one may come back.
    async fn domains_are_those_of_the_version(env: &Env) -> CaseResult {
        let first = Change::new().domain("b", Some("1")).domain("a", Some(r#"{"x":"ü"}"#));
        let id = env.create_with("t", first).await?;
        env.write(id, Change::new().domain("b", None).domain("c", None)).await?;
        env.write(id, Change::new().domain("b", Some("2")).domain("A", Some(""))).await?;
        for (version, want) in [
            (0, &[("a", r#"{"x":"ü"}"#), ("b", "1")][..]),
            (1, &[("a", r#"{"x":"ü"}"#)]),
            (2, &[("A", ""), ("a", r#"{"x":"ü"}"#), ("b", "2")]),
        ] {
            let domains = env.db().domain_metadata(id, v(version)).await?;
            let got: Vec<_> =
                domains.iter().map(|d| (d.domain.as_str(), d.configuration.as_str())).collect();
            assert_eq!(got, want, "version {version}");
            assert!(domains.iter().all(|d| !d.removed));
        }
        Ok(())
    }

    /// app_state 3: transactions or domains alone, or both; what was not asked for is empty.
    async fn what_was_not_asked_for_is_not_read(env: &Env) -> CaseResult {
        let both = Change::new().txn("app", 7).domain("d", Some("1"));
        let id = env.create_with("t", both).await?;
        let rows = |rows| env.db().app_state(id, v(0), rows);
        let all = rows(AppRows::All).await?;
        assert_eq!((all.transactions.len(), all.domains.len()), (1, 1));
        let only = AppState { transactions: all.transactions.clone(), domains: Vec::new() };
        assert_eq!(rows(AppRows::Transactions).await?, only);
        let only = AppState { transactions: Vec::new(), domains: all.domains.clone() };
        assert_eq!(rows(AppRows::Domains).await?, only);
        // Also where something remembers one of them.
        assert_eq!(rows(AppRows::All).await?, all);
        Ok(())
    }
}
