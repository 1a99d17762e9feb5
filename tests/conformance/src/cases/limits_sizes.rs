//! Large and extreme values.

use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{CommitFilter, TableFilter};
use deltalakedb_catalog_core::ids::{At, TimestampMs};

use super::cases;
use crate::change::{Change, file, gone, metadata};
use crate::env::{CaseResult, Env, all_files, v};

cases! {
    /// contract 8: a megabyte of statistics on a file, and of schema in the metadata.
    async fn a_megabyte_of_statistics(env: &Env) -> CaseResult {
        let mut add = file("a");
        let filler = "ü'\\\"🚀%".repeat(90_000);
        add.stats = Some(format!("{{\"numRecords\":1,\"filler\":{filler:?}}}"));
        assert!(add.stats.as_ref().is_some_and(|s| s.len() > 1 << 20));
        let mut meta = metadata("big");
        meta.schema_string.clone_from(&filler);
        let id =
            env.create_with("t", Change::new().add(add.clone()).metadata(meta.clone())).await?;
        assert_eq!(env.files(id, v(0)).await?[0].add, add);
        assert_eq!(env.snapshot(id, At::Head).await?.metadata, meta);
        let mut remove = gone(&add, Some(1));
        remove.stats = add.stats;
        env.write(id, Change::new().remove(remove.clone())).await?;
        assert_eq!(env.tombstones(id, v(1), 0).await?[0].remove, remove);
        Ok(())
    }

    /// contract 8: ten thousand files in one commit, and their removes in the next.
    async fn ten_thousand_files_in_a_commit(env: &Env) -> CaseResult {
        const FILES: u64 = 10_000;
        let adds: Vec<_> = (0..FILES)
            .map(|i| {
                let mut add = file(format!("part={}/f{i:05}.parquet", i % 7));
                add.size = i64::try_from(i)?;
                add.partition_values.insert("part".to_owned(), Some((i % 7).to_string()));
                add.stats = Some(format!("{{\"numRecords\":{i}}}"));
                Ok(add)
            })
            .collect::<Result<_, std::num::TryFromIntError>>()?;
        let id = env.create("t").await?;
        env.write(id, adds.iter().cloned().fold(Change::new(), Change::add)).await?;
        let snapshot = env.snapshot(id, At::Head).await?;
        assert_eq!((snapshot.num_files, snapshot.size_bytes), (FILES, FILES * (FILES - 1) / 2));
        let stored = all_files(env.db(), id, v(1), 1_999).await?;
        assert!(stored.iter().map(|f| &f.add).eq(adds.iter()));
        let change = adds.iter().fold(Change::new(), |c, add| c.remove(gone(add, Some(9))));
        env.write(id, change.add(file("all"))).await?;
        assert_eq!(env.paths(id, v(2)).await?, ["all"]);
        let snapshot = env.snapshot(id, At::Head).await?;
        assert_eq!((snapshot.num_files, snapshot.size_bytes), (1, 100));
        let page = env.db().list_tombstones(id, v(2), TimestampMs(8), None, 20_000).await?;
        assert_eq!((page.items.len(), page.next), (10_000, None));
        assert_eq!(env.snapshot(id, At::Version(v(1))).await?.num_files, FILES);
        Ok(())
    }

    /// contract 8: integers at both ends of 64 bits, in every field that has one.
    async fn integers_at_both_ends(env: &Env) -> CaseResult {
        let mut adds = Vec::new();
        for (i, n) in [i64::MIN, -1, 0, 1, i64::MAX].into_iter().enumerate() {
            let mut add = file(format!("f{i}"));
            add.size = n.max(0);
            add.modification_time = n;
            add.base_row_id = Some(n);
            add.default_row_commit_version = Some(n);
            adds.push(add);
        }
        // A single huge file: sums of several are the next case.
        adds[3].size = 0;
        let change = adds.iter().cloned().fold(Change::new(), Change::add);
        let id = env.create_with("t", change.txn("low", i64::MIN).txn("high", i64::MAX)).await?;
        let stored: Vec<_> = env.files(id, v(0)).await?.into_iter().map(|f| f.add).collect();
        assert_eq!(stored, adds);
        let snapshot = env.snapshot(id, At::Head).await?;
        assert_eq!((snapshot.num_files, snapshot.size_bytes), (5, i64::MAX.unsigned_abs()));
        let txns = env.db().app_transactions(id, v(0)).await?;
        let got: Vec<_> = txns.iter().map(|t| t.version).collect();
        assert_eq!(got, [i64::MAX, i64::MIN], "high, low");

        let removes: Vec<_> = adds
            .iter()
            .zip([i64::MIN, -1, 0, 1, i64::MAX])
            .map(|(add, deleted_at)| gone(add, Some(deleted_at)))
            .collect();
        env.write(id, removes.iter().cloned().fold(Change::new(), Change::remove)).await?;
        let stored = env.tombstones(id, v(1), i64::MIN).await?;
        assert!(stored.iter().map(|t| &t.remove).eq(&removes[1..]), "later than i64::MIN");
        assert_eq!(env.snapshot(id, At::Head).await?.size_bytes, 0);
        Ok(())
    }

    /// snapshot 2: totals beyond 63 bits are reported as the largest value; nothing overflows.
    async fn totals_beyond_63_bits_are_capped(env: &Env) -> CaseResult {
        let mut change = Change::new();
        for i in 0..4 {
            let mut add = file(format!("f{i}"));
            add.size = i64::MAX;
            change = change.add(add);
        }
        let id = env.create_with("t", change).await?;
        let snapshot = env.snapshot(id, At::Head).await?;
        assert_eq!((snapshot.num_files, snapshot.size_bytes), (4, i64::MAX.unsigned_abs()));
        let record = env.history(id).await?[0].clone();
        assert_eq!((record.num_added, record.bytes_added), (4, i64::MAX.unsigned_abs()));
        env.write(id, Change::files(["small"])).await?;
        assert_eq!(env.snapshot(id, At::Head).await?.num_files, 5);
        Ok(())
    }

    /// contract 8: pages of any size may be asked for.
    async fn a_page_of_any_size(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a", "b"])).await?;
        env.write(id, Change::new().remove(gone(&file("a"), Some(1)))).await?;
        let (db, most) = (env.db(), usize::MAX);
        assert_eq!(db.list_tables(&TableFilter::default(), None, most).await?.items.len(), 1);
        assert_eq!(db.list_files(id, v(1), None, most).await?.items.len(), 1);
        let tombstones = db.list_tombstones(id, v(1), TimestampMs(0), None, most).await?;
        assert_eq!(tombstones.items.len(), 1);
        let commits = db.list_commits(id, &CommitFilter::default(), None, most).await?;
        assert_eq!(commits.items.len(), 2);
        assert_eq!(db.read_bodies(id, v(0), v(i64::MAX - 1), most).await?.len(), 2);
        assert_eq!(db.mirror_rows(None, None, None, most).await?.items.len(), 2);
        let mut claim = env.claim_by("w");
        (claim.max_tables, claim.max_versions) = (most, most);
        assert_eq!(env.claim_one(&claim).await?.versions, [v(0), v(1)]);
        Ok(())
    }

    /// contract 8: two hundred versions, and every one of them readable.
    async fn two_hundred_versions(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["f0"])).await?;
        for i in 1..200 {
            let change = Change::files([format!("f{i}")])
                .remove(gone(&file(format!("f{}", i - 1)), Some(1)));
            env.write(id, change).await?;
        }
        for version in [0, 1, 99, 198, 199] {
            assert_eq!(env.paths(id, v(version)).await?, [format!("f{version}")]);
            let buried = env.tombstones(id, v(version), 0).await?;
            assert_eq!(i64::try_from(buried.len()), Ok(version));
        }
        assert_eq!(env.history(id).await?.len(), 200);
        Ok(())
    }
}
