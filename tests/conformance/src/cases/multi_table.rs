//! Batches over several tables: all or nothing.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::{CommitOutcome, CommitRequest, Rejection, TableFilter};
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs};

use super::cases;
use crate::change::{Change, file, gone};
use crate::env::{CaseResult, Env, committed, name, v};

async fn three(env: &Env) -> CaseResult<[TableId; 3]> {
    Ok([
        env.create_with("t1", Change::files(["a"])).await?,
        env.create_with("t2", Change::files(["a"])).await?,
        env.create_with("t3", Change::files(["a"])).await?,
    ])
}

cases! {
    /// commit 1: a batch writes all of its tables, and answers in the order of the request.
    async fn a_batch_commits_all_of_its_tables(env: &Env) -> CaseResult {
        let ids = three(env).await?;
        env.write(ids[1], Change::files(["b"])).await?;
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let mut parts = Vec::new();
            for i in order {
                let change = Change::files([format!("n{}", order[0])]);
                parts.push(change.append(ids[i], v(0))?);
            }
            let written = committed(env.commit(parts).await?)?;
            let got: Vec<_> = written.iter().map(|w| w.table_id).collect();
            assert_eq!(got, order.map(|i| ids[i]));
        }
        for (id, head) in ids.into_iter().zip([3, 4, 3]) {
            assert_eq!(env.head(id).await?, v(head));
        }
        Ok(())
    }

    /// commit 1: the failure of the third table leaves nothing of the first two, in every way to
    /// fail.
    async fn the_failure_of_one_table_leaves_none(env: &Env) -> CaseResult {
        let ids = three(env).await?;
        env.write(ids[2], Change::files(["b"])).await?;
        let dropped = env.create("dropped").await?;
        env.db().drop_table(dropped, &Act::at(env.now())).await?;
        let mut before = Vec::new();
        for id in ids {
            before.push(env.dump(id).await?);
        }
        let missing = Rejection::FileNotActive { path: "x".to_owned(), dv_id: String::new() };
        let failures = [
            (
                Change::new().exactly(ids[2], v(0))?,
                CommitOutcome::HeadMoved { index: 3, head: v(1) },
            ),
            (
                Change::new().remove(gone(&file("x"), Some(1))).append(ids[2], v(1))?,
                CommitOutcome::Rejected { index: 3, reason: missing },
            ),
            (
                Change::new().create(env.new_table("t1"))?,
                CommitOutcome::Rejected { index: 3, reason: Rejection::NameTaken(name("t1")) },
            ),
            (
                Change::new().append(dropped, v(0))?,
                CommitOutcome::Rejected { index: 3, reason: Rejection::TableNotFound(dropped) },
            ),
        ];
        for (part, want) in failures {
            let new = env.new_table("new");
            let new_id = new.id;
            let request = env.request(vec![
                Change::files(["n"]).remove(gone(&file("a"), Some(1))).exactly(ids[0], v(0))?,
                Change::files(["n"]).append(ids[1], v(0))?,
                Change::files(["n"]).create(new)?,
                part,
            ]);
            assert_eq!(env.db().commit(request.clone()).await?, want);
            for (id, before) in ids.into_iter().zip(&before) {
                assert_eq!(env.dump(id).await?, *before, "{want:?}");
            }
            assert_eq!(env.db().get_table(&TableRef::Id(new_id)).await?, None, "{want:?}");
            assert_eq!(env.db().get_table(&TableRef::Name(name("new"))).await?, None);
            assert_eq!(env.db().resolve_token(&request.token).await?, None);
        }
        Ok(())
    }

    /// commit 9: of several tables that fail, the first of the request is told.
    async fn the_first_failing_table_is_told(env: &Env) -> CaseResult {
        let ids = three(env).await?;
        env.write(ids[0], Change::files(["b"])).await?;
        env.write(ids[1], Change::files(["b"])).await?;
        env.write(ids[1], Change::files(["c"])).await?;
        for (order, index, head) in [([0, 1, 2], 0, 1), ([1, 0, 2], 0, 2), ([2, 1, 0], 1, 2)] {
            let mut parts = Vec::new();
            for i in order {
                parts.push(Change::files(["n"]).exactly(ids[i], v(0))?);
            }
            let outcome = env.commit(parts).await?;
            assert_eq!(outcome, CommitOutcome::HeadMoved { index, head: v(head) }, "{order:?}");
        }
        Ok(())
    }

    /// commit 1: fifty tables are created, and then written, in one batch each.
    async fn fifty_tables_in_one_batch(env: &Env) -> CaseResult {
        let mut ids = Vec::new();
        let mut parts = Vec::new();
        for i in 0..50 {
            let new = env.new_table(&format!("t{i:02}"));
            ids.push(new.id);
            parts.push(Change::files([format!("a{i}"), format!("b{i}")]).create(new)?);
        }
        let written = committed(env.commit(parts).await?)?;
        assert_eq!(written.iter().map(|w| w.table_id).collect::<Vec<_>>(), ids);
        let listed = env.db().list_tables(&TableFilter::default(), None, 100).await?.items;
        let mut sorted = ids.clone();
        sorted.sort_by_key(|id| listed.iter().position(|t| t.id == *id));
        assert_eq!((listed.len(), &sorted), (50, &ids), "by name: t00, t01, …");

        let mut parts = Vec::new();
        for (i, id) in ids.iter().enumerate() {
            let remove = gone(&file(format!("a{i}")), Some(1));
            parts.push(Change::files([format!("c{i}")]).remove(remove).exactly(*id, v(0))?);
        }
        let request = env.request(parts);
        let written = committed(env.db().commit(request.clone()).await?)?;
        assert!(written.iter().all(|w| w.version == v(1)), "{written:?}");
        assert_eq!(env.db().resolve_token(&request.token).await?, Some(written));
        for (i, id) in ids.iter().enumerate() {
            assert_eq!(env.paths(*id, v(1)).await?, [format!("b{i}"), format!("c{i}")]);
        }
        assert_eq!(env.outbox(None, None).await?.len(), 100);
        Ok(())
    }

    /// commit 1: one batch creates a table and appends to another.
    async fn create_and_append_in_one_batch(env: &Env) -> CaseResult {
        let old = env.create_with("old", Change::files(["a"])).await?;
        let new = env.new_table("new");
        let new_id = new.id;
        let parts =
            vec![Change::files(["n"]).create(new)?, Change::files(["b"]).append(old, v(0))?];
        let written = committed(env.commit(parts).await?)?;
        let got: Vec<_> = written.iter().map(|w| (w.table_id, w.version)).collect();
        assert_eq!(got, [(new_id, v(0)), (old, v(1))]);
        assert_eq!(env.paths(new_id, v(0)).await?, ["n"]);
        assert_eq!(env.paths(old, v(1)).await?, ["a", "b"]);
        Ok(())
    }

    /// commit 14: two creates of one name in a batch: the second is told.
    async fn one_batch_cannot_create_a_name_twice(env: &Env) -> CaseResult {
        let (one, two) = (env.new_table("t"), env.new_table("t"));
        let id = one.id;
        let parts = vec![Change::new().create(one)?, Change::new().create(two)?];
        let reason = Rejection::NameTaken(name("t"));
        assert_eq!(env.commit(parts).await?, CommitOutcome::Rejected { index: 1, reason });
        assert_eq!(env.db().get_table(&TableRef::Id(id)).await?, None);
        Ok(())
    }

    /// commit 13: each table of a batch gets its own timestamp, `max(now, head + 1)`.
    async fn each_table_has_its_own_timestamp(env: &Env) -> CaseResult {
        let ids = three(env).await?;
        let ahead = TimestampMs(2_000_000_000_000);
        let request = CommitRequest {
            token: env.token(),
            now: ahead,
            tables: vec![Change::new().exactly(ids[1], v(0))?],
        };
        committed(env.db().commit(request).await?)?;
        let mut parts = Vec::new();
        for id in ids {
            parts.push(Change::new().append(id, v(0))?);
        }
        let request = env.request(parts);
        let written = committed(env.db().commit(request.clone()).await?)?;
        let got: Vec<_> = written.iter().map(|w| w.timestamp).collect();
        assert_eq!(got, [request.now, ahead.plus_ms(1), request.now]);
        for (id, want) in ids.into_iter().zip(got) {
            assert_eq!(env.snapshot(id, At::Head).await?.timestamp, want);
        }
        Ok(())
    }
}
