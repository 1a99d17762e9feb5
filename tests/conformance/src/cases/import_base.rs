//! Imports that start from a checkpoint: the base in chunks, and history below it.

use deltalakedb_catalog_core::action::{DomainMetadata, Txn};
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::ids::{At, TimestampMs};
use deltalakedb_catalog_core::model::BaseChunk;

use super::cases;
use super::import::{chunk, imported_at_base_ten, invalid, tail};
use crate::change::{Change, file, gone, metadata, with_dv};
use crate::env::{CaseResult, Env, finish_import, retrying, together, v};

cases! {
    /// import_step 1: chunk by chunk; the last one with the tail makes the base the head.
    async fn a_base_is_stored_in_chunks(env: &Env) -> CaseResult {
        let new = env.new_table("t");
        let (db, id) = (env.db(), new.id);
        let begun = db.import_begin(&new, v(10), false, env.now()).await?;
        assert!(!begun.base_done);
        let mut first = chunk("a", 3);
        first.tombstones = vec![gone(&file("old1"), Some(5)), gone(&file("old2"), Some(6))];
        let progress = db.import_base(id, 0, 0, first, None).await?;
        assert_eq!((progress.base_files, progress.base_tombstones), (3, 2));
        assert_eq!((progress.base_done, progress.table.head), (false, None));
        let second = BaseChunk {
            files: vec![with_dv(file("a0"), "dv")],
            tombstones: vec![gone(&with_dv(file("old1"), "dv"), Some(7))],
        };
        db.import_base(id, 3, 2, second, None).await?;
        let mut rest = tail(1_000);
        rest.txns = vec![Txn { app_id: "app".to_owned(), version: 3, last_updated: Some(1) }];
        rest.domain_metadata = vec![DomainMetadata {
            domain: "d".to_owned(),
            configuration: "{}".to_owned(),
            removed: false,
        }];
        let done = db.import_base(id, 4, 3, chunk("b", 2), Some(rest.clone())).await?;
        assert_eq!((done.base_files, done.base_tombstones, done.base_done), (6, 3, true));
        assert_eq!(done.table.head, Some(v(10)));
        assert_eq!(done.table.head_timestamp, Some(TimestampMs(1_000)));
        assert_eq!((done.table.base_version, done.table.barrier_version), (v(10), v(10)));

        let finished = finish_import(db, id, env.now()).await?;
        assert_eq!(finished.published_version, Some(v(10)));
        let files = env.files(id, v(10)).await?;
        let got: Vec<_> =
            files.iter().map(|f| (f.cursor.added_version.get(), f.cursor.ordinal)).collect();
        assert_eq!(got, (0..6).map(|i| (10, i)).collect::<Vec<_>>(), "in the importer's order");
        assert_eq!(env.paths(id, v(10)).await?, ["a0", "a1", "a2", "a0", "b0", "b1"]);
        let mut buried = env.buried(id, v(10), 5).await?;
        buried.sort();
        assert_eq!(buried, ["old1", "old2"], "old1 with the vector; without it it is too old");
        let snapshot = env.snapshot(id, At::Head).await?;
        assert_eq!((snapshot.num_files, snapshot.size_bytes), (6, 600));
        assert_eq!((snapshot.protocol, snapshot.metadata), (rest.protocol, rest.metadata));
        assert_eq!((snapshot.protocol_version, snapshot.metadata_version), (v(10), v(10)));
        assert_eq!(db.app_transactions(id, v(10)).await?, rest.txns);
        assert_eq!(db.domain_metadata(id, v(10)).await?, rest.domain_metadata);
        Ok(())
    }

    /// import_step 1: a chunk that does not start where the stored ones end is `InvalidInput`.
    async fn a_chunk_at_the_wrong_position_is_invalid(env: &Env) -> CaseResult {
        let new = env.new_table("t");
        let (db, id) = (env.db(), new.id);
        db.import_begin(&new, v(10), false, env.now()).await?;
        let mut first = chunk("a", 2);
        first.tombstones = vec![gone(&file("old"), Some(5))];
        db.import_base(id, 0, 0, first.clone(), None).await?;
        for (files, tombstones) in [(0, 0), (1, 1), (3, 1), (2, 0), (2, 2), (0, 1)] {
            let answer = db.import_base(id, files, tombstones, chunk("b", 1), Some(tail(1))).await;
            invalid(&format!("{files} and {tombstones}"), answer)?;
        }
        // The first importer goes on after its interruption: its position is stored.
        let mut again = env.new_table("t");
        again.location.clone_from(&new.location);
        let resumed = db.import_begin(&again, v(10), false, env.now()).await?;
        assert_eq!((resumed.base_files, resumed.base_tombstones), (2, 1));
        assert!(!resumed.base_done);
        db.import_base(id, 2, 1, chunk("b", 1), Some(tail(1))).await?;
        invalid("after the tail", db.import_base(id, 3, 1, chunk("c", 1), None).await)?;
        finish_import(db, id, env.now()).await?;
        assert_eq!(env.paths(id, v(10)).await?, ["a0", "a1", "b0"]);
        Ok(())
    }

    /// import_step 1: two importers that send the same chunk at once store it once.
    async fn racing_importers_store_a_chunk_once(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let new = env.new_table("t");
        let id = new.id;
        env.db().import_begin(&new, v(10), false, env.now()).await?;
        for position in 0..5 {
            let calls = (0..4).map(|i: usize| {
                let db = handles[i % 2].clone();
                let part = chunk(&format!("{position}-"), 1);
                async move {
                    retrying(|| db.import_base(id, position, 0, part.clone(), None)).await
                }
            });
            let mut stored = 0;
            for answer in together(calls).await? {
                match answer {
                    Ok(progress) => {
                        assert_eq!(progress.base_files, position + 1);
                        stored += 1;
                    }
                    refused => invalid("the others", refused)?,
                }
            }
            assert_eq!(stored, 1);
        }
        env.db().import_base(id, 5, 0, chunk("last", 0), Some(tail(1))).await?;
        finish_import(env.db(), id, env.now()).await?;
        assert_eq!(env.paths(id, v(10)).await?, ["0-0", "1-0", "2-0", "3-0", "4-0"]);
        Ok(())
    }

    /// import_step 2: at or below the base they are history: listed and readable as bytes, without
    /// any effect on the state.
    async fn history_below_the_base_has_no_effect(env: &Env) -> CaseResult {
        let id = imported_at_base_ten(env).await?;
        assert_eq!(
            env.paths(id, v(10)).await?,
            ["base0", "base1", "base2", "base3", "base4"],
            "f7 to f10 are history only"
        );
        assert_eq!(env.paths(id, v(12)).await?.len(), 7);
        let history = env.history(id).await?;
        let got: Vec<_> = history
            .iter()
            .map(|c| (c.version.get(), c.timestamp.0, c.total_files, c.has_body))
            .collect();
        let want = [
            (12, 1_200, 7, true),
            (11, 1_100, 6, true),
            (10, 1_000, 5, true),
            (9, 900, 0, true),
            (8, 800, 0, true),
            (7, 700, 0, true),
        ];
        assert_eq!(got, want);
        for record in &history {
            assert_eq!(record.num_added, 1, "what the commit itself says: {record:?}");
            assert!(record.commit_info.is_some(), "{record:?}");
        }
        let bodies = env.db().read_bodies(id, v(0), v(20), 100).await?;
        let got: Vec<_> = bodies.iter().map(|(r, _)| r.version.get()).collect();
        assert_eq!(got, (7..=12).collect::<Vec<_>>());
        for (record, body) in bodies {
            let change = Change::files([format!("f{}", record.version)]);
            let want = change.imported(record.version, record.timestamp.0)?;
            assert_eq!(body, want.body, "verbatim");
        }
        Ok(())
    }

    /// import_step 2: history may come before the base is whole, and progress tells how far it is.
    async fn history_may_come_before_the_base(env: &Env) -> CaseResult {
        let new = env.new_table("t");
        let (db, id) = (env.db(), new.id);
        db.import_begin(&new, v(3), false, env.now()).await?;
        let commit = |version: i64, change: Change| change.imported(v(version), version * 100);
        let progress = db
            .import_commits(id, vec![commit(1, Change::files(["x"]))?, commit(2, Change::new())?].into())
            .await?;
        assert_eq!((progress.history_through, progress.table.head), (Some(v(2)), None));
        let progress = db.import_commits(id, vec![commit(3, Change::files(["y"]))?].into()).await?;
        assert_eq!(progress.history_through, Some(v(3)));
        invalid("above the base", db.import_commits(id, vec![commit(4, Change::new())?].into()).await)?;
        db.import_base(id, 0, 0, chunk("a", 2), Some(tail(300))).await?;
        let progress = db.import_commits(id, vec![commit(4, Change::files(["z"]))?].into()).await?;
        assert_eq!((progress.table.head, progress.history_through), (Some(v(4)), Some(v(3))));
        finish_import(db, id, env.now()).await?;
        assert_eq!(env.paths(id, v(4)).await?, ["a0", "a1", "z"]);
        let totals: Vec<_> = env.history(id).await?.iter().map(|c| c.total_files).collect();
        assert_eq!(totals, [3, 2, 0, 0]);
        Ok(())
    }

    /// list_commits 3: a base whose JSON is gone is in the history, without bytes.
    async fn a_base_may_lack_its_json(env: &Env) -> CaseResult {
        let new = env.new_table("t");
        let (db, id) = (env.db(), new.id);
        db.import_begin(&new, v(10), false, env.now()).await?;
        db.import_base(id, 0, 0, chunk("a", 2), Some(tail(1_000))).await?;
        let next = Change::files(["b"]).imported(v(11), 1_100)?;
        db.import_commits(id, vec![next].into()).await?;
        finish_import(db, id, env.now()).await?;
        let history = env.history(id).await?;
        let got: Vec<_> =
            history.iter().map(|c| (c.version.get(), c.has_body, c.total_files)).collect();
        assert_eq!(got, [(11, true, 3), (10, false, 2)]);
        let bodies = db.read_bodies(id, v(0), v(11), 10).await?;
        assert_eq!(bodies.iter().map(|(r, _)| r.version).collect::<Vec<_>>(), [v(11)]);
        Ok(())
    }

    /// import_step 2, 3: above a base as above any head: no gap, and time goes on from the base.
    async fn commits_above_a_base_are_checked(env: &Env) -> CaseResult {
        let new = env.new_table("t");
        let (db, id) = (env.db(), new.id);
        db.import_begin(&new, v(10), false, env.now()).await?;
        db.import_base(id, 0, 0, chunk("a", 1), Some(tail(1_000))).await?;
        let commit = |version: i64, time: i64| Change::new().imported(v(version), time);
        for (what, version, time) in [("gap", 12, 1_200), ("time", 11, 1_000), ("time", 11, 5)] {
            invalid(what, db.import_commits(id, vec![commit(version, time)?].into()).await)?;
        }
        db.import_commits(id, vec![commit(11, 1_001)?].into()).await?;
        assert_eq!(finish_import(db, id, env.now()).await?.head, Some(v(11)));
        Ok(())
    }

    /// import_finish 5: files and metadata of a base are replaced and removed like others.
    async fn a_base_is_written_on_like_any_version(env: &Env) -> CaseResult {
        let id = imported_at_base_ten(env).await?;
        let mut new = file("base1");
        new.size = 1;
        let change = Change::new()
            .remove(gone(&file("base0"), Some(5)))
            .add(new)
            .metadata(metadata("after"));
        assert_eq!(env.write(id, change).await?.version, v(13));
        let paths = env.paths(id, v(13)).await?;
        assert_eq!(paths, ["base2", "base3", "base4", "f11", "f12", "base1"]);
        assert_eq!(env.buried(id, v(13), 0).await?, ["base0"]);
        assert_eq!(env.snapshot(id, At::Version(v(10))).await?.metadata, metadata("base"));
        let snapshot = env.snapshot(id, At::Head).await?;
        assert_eq!((snapshot.num_files, snapshot.size_bytes), (6, 501));
        assert_eq!(env.record(id).await?.barrier_version, v(13));
        Ok(())
    }
}
