//! Commits that are too large to have their rows in memory: their adds come in pages.

use deltalakedb_catalog_core::backend::{CommitOutcome, Rejection, TableCommit};
use deltalakedb_catalog_core::commit::Packed;
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::{At, TableId};

use super::cases;
use crate::change::{Change, file, gone, in_pages, metadata};
use crate::env::{CaseResult, Env, committed, committed_one, fail, v};

fn range(from: usize, to: usize) -> Change {
    Change::files((from..to).map(|i| format!("f{i}")))
}

/// A page of so many files, or all of the commit at once.
fn paged(commit: TableCommit, page: Option<usize>) -> CaseResult<TableCommit> {
    Ok(match page {
        Some(page) => in_pages(commit, page)?,
        None => commit,
    })
}

cases! {
    /// commit 10: a commit whose adds come in pages is written as one that is handed over whole: as a new
    /// table, on an empty one, over files that are there, and beside others in a batch.
    async fn large_commits_are_written_as_small_ones(env: &Env) -> CaseResult {
        let mut dumps = Vec::new();
        for (table, page) in [("whole", None), ("sevens", Some(7)), ("one", Some(5_000))] {
            let new = env.new_table(table);
            let id = new.id;
            let of = |commit| paged(commit, page);
            committed_one(env.commit(vec![of(range(0, 240).create(new)?)?]).await?)?;
            committed_one(env.commit(vec![of(range(240, 300).append(id, v(0))?)?]).await?)?;
            // Files that are there: their rows end.
            let again = (90..110).fold(range(300, 320), |c, i| c.add(file(format!("f{i}"))));
            let again = again
                .remove(gone(&file("f5"), Some(40)))
                .metadata(metadata("later"))
                .txn("app", 5);
            committed_one(env.commit(vec![of(again.exactly(id, v(1))?)?]).await?)?;
            let all = (0..320).filter(|i| *i != 5).map(|i| gone(&file(format!("f{i}")), Some(70)));
            let none = all.fold(Change::new(), Change::remove);
            committed_one(env.commit(vec![of(none.exactly(id, v(2))?)?]).await?)?;
            // On a table without files, beside a small commit and another large one.
            let other = env.new_table(&format!("beside-{table}"));
            let small = env.create(&format!("small-{table}")).await?;
            let parts = vec![
                Change::files(["s"]).exactly(small, v(0))?,
                of(range(0, 100).exactly(id, v(3))?)?,
                of(range(0, 50).create(other)?)?,
            ];
            assert_eq!(committed(env.commit(parts).await?)?.len(), 3);
            let mut states = Vec::new();
            for version in 0..=4 {
                let snapshot = env.snapshot(id, At::Version(v(version))).await?;
                let files = env.files(id, v(version)).await?;
                assert_eq!(files.len() as u64, snapshot.num_files, "version {version}");
                let buried = env.buried(id, v(version), 0).await?;
                states.push((files, snapshot.size_bytes, snapshot.metadata, buried));
            }
            let mut bodies = Vec::new();
            let mut history = Vec::new();
            for commit in env.history(id).await? {
                bodies.push(env.body(id, commit.version).await?.len());
                // What differs from table to table by nature.
                let sums = (commit.num_added, commit.num_removed, commit.bytes_added);
                history.push((commit.version, sums, commit.bytes_removed, commit.total_bytes));
            }
            let record = env.record(id).await?;
            dumps.push((states, history, bodies, record.barrier_version));
        }
        let sizes: Vec<_> = dumps[0].0.iter().map(|state| state.0.len()).collect();
        assert_eq!(sizes, [240, 300, 319, 0, 100]);
        assert!(dumps[0] == dumps[1], "pages of seven");
        assert!(dumps[0] == dumps[2], "a page");
        Ok(())
    }

    /// commit 10: a large commit that cannot be read to its end leaves nothing, in no table of its batch, and
    /// its token is free.
    async fn a_large_commit_that_is_damaged_leaves_nothing(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let other = env.create("other").await?;
        let before = (env.dump(id).await?, env.dump(other).await?);
        let good = range(0, 600).exactly(id, v(0))?;
        // The last line lacks what is only looked at when its page is read.
        let text = String::from_utf8(good.rest.unpack()?)?;
        let at = text.rfind("\"modificationTime\"").unwrap_or_default();
        let text = format!("{}\"another\"{}", &text[..at], &text[at + 18..]);
        let bad = TableCommit { rest: Packed::pack(text.as_bytes())?, ..good.clone() };
        let token = env.token();
        let mut request = env.request(vec![
            Change::files(["x"]).exactly(other, v(0))?,
            in_pages(bad, 100)?,
        ]);
        request.token = token.clone();
        match env.db().commit(request.clone()).await.plain() {
            Err(error @ CatalogError::InvalidInput(_)) => {
                assert!(error.to_string().contains("a case, line 600"), "{error}");
                assert_eq!(error.write_state(), WriteState::NotApplied);
            }
            other => return fail(format_args!("expected the line that is wrong, got {other:?}")),
        }
        assert_eq!((env.dump(id).await?, env.dump(other).await?), before);
        assert_eq!(env.db().resolve_token(&token).await?, None);
        request.tables[1] = in_pages(good, 100)?;
        assert_eq!(committed(env.db().commit(request).await?)?.len(), 2);
        assert_eq!(env.files(id, v(1)).await?.len(), 600);
        Ok(())
    }

    /// commit 5, 9: a large commit is refused as a small one is.
    async fn large_commits_are_refused_as_small_ones(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        env.write(id, Change::files(["a"])).await?;
        let before = env.dump(id).await?;
        let moved = in_pages(range(0, 20).exactly(id, v(0))?, 5)?;
        let head = v(1);
        let outcome = env.commit(vec![moved]).await?;
        assert_eq!(outcome, CommitOutcome::HeadMoved { index: 0, head });
        let missing = range(0, 20).remove(gone(&file("b"), Some(1)));
        let outcome = env.commit(vec![in_pages(missing.exactly(id, v(1))?, 5)?]).await?;
        let (path, dv_id) = ("b".to_owned(), String::new());
        let reason = Rejection::FileNotActive { path, dv_id };
        assert_eq!(outcome, CommitOutcome::Rejected { index: 0, reason });
        let unknown: TableId = env.id();
        let outcome = env.commit(vec![in_pages(range(0, 9).append(unknown, v(0))?, 5)?]).await?;
        let reason = Rejection::TableNotFound(unknown);
        assert_eq!(outcome, CommitOutcome::Rejected { index: 0, reason });
        assert_eq!(env.dump(id).await?, before);
        Ok(())
    }
}
