//! Tokens: committing twice with one token commits once.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::{CommitOutcome, CommitRequest};
use deltalakedb_catalog_core::ids::CommitToken;

use super::cases;
use crate::change::{Change, file, gone};
use crate::env::{CaseResult, Env, committed, fail, retrying, together, v};

cases! {
    /// commit 2: the same request again is `Replayed` with what it wrote, and writes nothing.
    async fn a_repeated_commit_is_replayed(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let request = env.request(vec![Change::files(["a"]).exactly(id, v(0))?]);
        let written = committed(env.db().commit(request.clone()).await?)?;
        let before = env.dump(id).await?;
        for _ in 0..3 {
            let again = env.db().commit(request.clone()).await?;
            assert_eq!(again, CommitOutcome::Replayed(written.clone()));
        }
        assert_eq!(env.dump(id).await?, before);
        Ok(())
    }

    /// commit 2: a repeated create is `Replayed`, not `NameTaken`.
    async fn a_repeated_create_is_replayed(env: &Env) -> CaseResult {
        let request = env.request(vec![Change::new().create(env.new_table("t"))?]);
        let written = committed(env.db().commit(request.clone()).await?)?;
        assert_eq!(env.db().commit(request).await?, CommitOutcome::Replayed(written));
        Ok(())
    }

    /// commit 2: the token is checked first, whatever else the request says.
    async fn the_token_decides_before_anything_else(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let other = env.create("u").await?;
        let request = env.request(vec![Change::files(["a"]).exactly(id, v(0))?]);
        let written = committed(env.db().commit(request.clone()).await?)?;
        env.write(id, Change::files(["b"])).await?;
        for part in [
            Change::files(["c"]).exactly(id, v(0))?,
            Change::files(["c"]).append(other, v(0))?,
            Change::new().remove(gone(&file("never"), None)).exactly(id, v(2))?,
            Change::new().create(env.new_table("t"))?,
        ] {
            let request =
                CommitRequest { token: request.token.clone(), now: env.now(), tables: vec![part] };
            let again = env.db().commit(request).await?;
            assert_eq!(again, CommitOutcome::Replayed(written.clone()));
        }
        env.db().drop_table(id, &Act::at(env.now())).await?;
        let again = env.db().commit(request).await?;
        assert_eq!(again, CommitOutcome::Replayed(written), "of a table that was dropped since");
        assert_eq!((env.head(id).await?, env.head(other).await?), (v(2), v(0)));
        Ok(())
    }

    /// commit 2: requests with one token at the same time commit once; all learn the same.
    async fn concurrent_commits_with_one_token_commit_once(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let id = env.create("t").await?;
        for round in 0..5 {
            let request = env.request(vec![Change::files([format!("f{round}")]).append(id, v(0))?]);
            let calls = (0..8).map(|i| {
                let (db, request) = (handles[i % 2].clone(), request.clone());
                async move { retrying(|| db.commit(request.clone())).await }
            });
            let (mut fresh, mut answers) = (0, Vec::new());
            for outcome in together(calls).await? {
                match outcome? {
                    CommitOutcome::Committed(tables) => {
                        fresh += 1;
                        answers.push(tables);
                    }
                    CommitOutcome::Replayed(tables) => answers.push(tables),
                    other => return fail(format_args!("{other:?}")),
                }
            }
            assert_eq!(fresh, 1, "exactly one of them wrote");
            assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
            assert_eq!(env.head(id).await?, v(round + 1));
        }
        Ok(())
    }

    /// commit 2: one token on different tables at once is one commit too.
    async fn one_token_on_different_tables_commits_once(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let mut ids = Vec::new();
        for i in 0..6 {
            ids.push(env.create(&format!("t{i}")).await?);
        }
        let token = env.token();
        let mut calls = Vec::new();
        for (i, id) in ids.iter().enumerate() {
            let tables = vec![Change::files(["f"]).append(*id, v(0))?];
            let request = CommitRequest { token: token.clone(), now: env.now(), tables };
            let db = handles[i % 2].clone();
            calls.push(async move { retrying(|| db.commit(request.clone())).await });
        }
        let mut fresh = 0;
        for outcome in together(calls).await? {
            match outcome? {
                CommitOutcome::Committed(_) => fresh += 1,
                CommitOutcome::Replayed(_) => {}
                other => return fail(format_args!("{other:?}")),
            }
        }
        let mut versions = 0;
        for id in ids {
            versions += env.head(id).await?.get();
        }
        assert_eq!((fresh, versions), (1, 1));
        Ok(())
    }

    /// resolve_token 1: none for a token that never committed, what it wrote otherwise, in order.
    async fn resolve_token_tells_what_was_written(env: &Env) -> CaseResult {
        let (a, b) = (env.create("a").await?, env.create("b").await?);
        assert_eq!(env.db().resolve_token(&env.token()).await?, None);
        for (one, two) in [(a, b), (b, a)] {
            let parts = vec![Change::new().append(one, v(0))?, Change::new().append(two, v(0))?];
            let request = env.request(parts);
            let written = committed(env.db().commit(request.clone()).await?)?;
            assert_eq!(written.iter().map(|w| w.table_id).collect::<Vec<_>>(), [one, two]);
            assert_eq!(env.db().resolve_token(&request.token).await?, Some(written));
        }
        Ok(())
    }

    /// resolve_token 2: another handle sees it as soon as the commit was acknowledged.
    async fn another_handle_resolves_the_token(env: &Env) -> CaseResult {
        let other = env.reopen().await?;
        let id = env.create("t").await?;
        for _ in 0..10 {
            let request = env.request(vec![Change::new().append(id, v(0))?]);
            let written = committed(env.db().commit(request.clone()).await?)?;
            assert_eq!(other.resolve_token(&request.token).await?, Some(written.clone()));
            assert_eq!(other.commit(request).await?, CommitOutcome::Replayed(written));
        }
        Ok(())
    }

    /// contract 7: tokens are compared byte for byte, and may be 128 characters of anything printable.
    async fn tokens_are_compared_byte_for_byte(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let long = "x".repeat(127);
        let tokens = [
            "tok".to_owned(),
            "TOK".to_owned(),
            "to%".to_owned(),
            "to_".to_owned(),
            "'; DROP TABLE dl_commits;--".replace(' ', "_"),
            "\"?1$1:x@p\\".to_owned(),
            format!("{long}a"),
            format!("{long}b"),
        ];
        for (i, token) in tokens.iter().enumerate() {
            let request = CommitRequest {
                token: CommitToken::new(token.clone())?,
                now: env.now(),
                tables: vec![Change::new().append(id, v(0))?],
            };
            let written = committed(env.db().commit(request.clone()).await?)?;
            assert_eq!(written[0].version, v(i64::try_from(i)? + 1), "{token}");
            assert_eq!(env.db().resolve_token(&request.token).await?, Some(written), "{token}");
            assert_eq!(env.history(id).await?[0].token, Some(request.token));
        }
        Ok(())
    }
}
