//! What a process left behind that ended without saying goodbye.

use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::CommitOutcome;
use deltalakedb_catalog_core::ids::{At, TableRef};

use super::cases;
use super::outbox::published;
use crate::change::{Change, file, gone, metadata, protocol};
use crate::env::{CaseResult, Env, committed, dump, finish_import, name, v};

cases! {
    /// commit 7: acknowledged commits are there for the next process, whole.
    async fn acknowledged_commits_outlive_their_handle(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let mut requests = Vec::new();
        for i in 0..10 {
            let db = env.reopen().await?;
            let change = Change::files([format!("f{i}")]).txn("app", i);
            let request = env.request(vec![change.append(id, v(0))?]);
            let written = committed(db.commit(request.clone()).await?)?;
            requests.push((request, written));
            drop(db); // Not closed.
        }
        let db = env.reopen().await?;
        let snapshot = db.snapshot(&TableRef::Name(name("t")), At::Head).await?;
        assert_eq!((snapshot.version, snapshot.num_files), (v(10), 10));
        for (request, written) in requests {
            assert_eq!(db.resolve_token(&request.token).await?, Some(written.clone()));
            assert_eq!(db.commit(request).await?, CommitOutcome::Replayed(written));
        }
        assert_eq!(dump(&*db, id).await?, env.dump(id).await?);
        Ok(())
    }

    /// import_begin 2: an import goes on in the next process where it stopped.
    async fn an_import_outlives_its_handle(env: &Env) -> CaseResult {
        let mut new = env.new_table("t");
        let id = new.id;
        let db = env.reopen().await?;
        db.import_begin(&new, v(0), true, env.now()).await?;
        let first = Change::files(["a"]).protocol(protocol(2)).metadata(metadata("m"));
        db.import_commits(id, vec![first.imported(v(0), 1)?].into()).await?;
        drop(db);
        let db = env.reopen().await?;
        new.id = env.id();
        let resumed = db.import_begin(&new, v(0), true, env.now()).await?;
        assert_eq!((resumed.table.id, resumed.table.head), (id, Some(v(0))));
        let next = Change::files(["b"]).remove(gone(&file("a"), Some(1))).imported(v(1), 2)?;
        db.import_commits(id, vec![next].into()).await?;
        finish_import(&*db, id, env.now()).await?;
        drop(db);
        assert_eq!(env.paths(id, v(1)).await?, ["b"]);
        Ok(())
    }

    /// mirror_claim 4: work in flight of a worker that died is done by the next one after the lease.
    async fn work_of_a_dead_worker_is_taken_over(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        env.write(id, Change::files(["a"])).await?;
        let db = env.reopen().await?;
        let tasks = db.mirror_claim(&env.claim_by("dead")).await?;
        assert_eq!(tasks[0].versions, [v(0), v(1)]);
        assert!(db.mirror_complete(&tasks[0].lease, &[published(0)]).await?);
        drop(db);
        let mut request = env.claim_by("next");
        request.now = tasks[0].lease.until.plus_ms(1);
        let task = env.claim_one(&request).await?;
        assert_eq!((task.versions, task.attempts), (vec![v(1)], 1));
        assert!(env.db().mirror_complete(&task.lease, &[published(1)]).await?);
        assert_eq!(env.outbox(Some(id), None).await?, []);
        Ok(())
    }
}
