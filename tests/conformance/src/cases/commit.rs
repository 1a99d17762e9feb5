//! One table, one writer: versions, rules, timestamps, bytes.

use deltalakedb_catalog_core::backend::{CommitOutcome, CommitRequest};
use deltalakedb_catalog_core::commit::FirstLine;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{At, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorState};

use super::cases;
use crate::change::{Change, file, gone, metadata, protocol};
use crate::env::{CaseResult, Env, committed, committed_one, fail, v};

cases! {
    /// commit 3: the commit that creates a table is version 0, and holds its files.
    async fn the_first_version_is_zero(env: &Env) -> CaseResult {
        let new = env.new_table("t");
        let id = new.id;
        let request = env.request(vec![Change::files(["a", "b"]).create(new)?]);
        let now = request.now;
        let written = committed_one(env.db().commit(request).await?)?;
        assert_eq!((written.table_id, written.version, written.timestamp), (id, v(0), now));
        let snapshot = env.snapshot(id, At::Head).await?;
        assert_eq!((snapshot.version, snapshot.timestamp), (v(0), now));
        assert_eq!((snapshot.num_files, snapshot.size_bytes), (2, 200));
        assert_eq!((snapshot.protocol_version, snapshot.metadata_version), (v(0), v(0)));
        assert_eq!((snapshot.protocol, snapshot.metadata), (protocol(2), metadata("first")));
        assert_eq!(env.paths(id, v(0)).await?, ["a", "b"]);
        Ok(())
    }

    /// commit 3: each version is the head plus one.
    async fn versions_are_gapless(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        for i in 1..=20 {
            let written = env.write(id, Change::files([format!("f{i}")])).await?;
            assert_eq!(written.version, v(i));
        }
        let versions: Vec<_> = env.history(id).await?.iter().map(|c| c.version.get()).collect();
        assert_eq!(versions, (0..=20).rev().collect::<Vec<_>>());
        Ok(())
    }

    /// commit 3, 11: on any other head than the expected one, nothing is written and the
    /// head is told.
    async fn exactly_on_another_head_has_moved(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        env.write(id, Change::files(["a"])).await?;
        env.write(id, Change::files(["b"])).await?;
        let before = env.dump(id).await?;
        for head in [0, 1, 3, 1_000_000] {
            let outcome = env.commit(vec![Change::files(["x"]).exactly(id, v(head))?]).await?;
            assert_eq!(outcome, CommitOutcome::HeadMoved { index: 0, head: v(2) }, "{head}");
        }
        assert_eq!(env.dump(id).await?, before);
        Ok(())
    }

    /// commit 11: goes on top of any head while only files were added since.
    async fn append_goes_on_any_head(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        for i in 1..=5 {
            let outcome = env.commit(vec![Change::files([format!("f{i}")]).append(id, v(0))?]);
            assert_eq!(committed_one(outcome.await?)?.version, v(i));
        }
        assert_eq!(env.paths(id, v(5)).await?, ["f1", "f2", "f3", "f4", "f5"]);
        assert_eq!(env.record(id).await?.barrier_version, v(0));
        Ok(())
    }

    /// commit 8, 11: metadata or protocol after the base stop it; at the barrier it goes on.
    async fn append_stops_at_the_barrier(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        env.write(id, Change::files(["a"])).await?;
        for (barrier, change) in [
            (2, Change::new().metadata(metadata("second"))),
            (4, Change::new().protocol(protocol(3))),
            (6, Change::new().metadata(metadata("third")).protocol(protocol(4))),
        ] {
            assert_eq!(env.write(id, change).await?.version, v(barrier));
            assert_eq!(env.record(id).await?.barrier_version, v(barrier));
            let late = Change::files(["late"]).append(id, v(barrier - 1))?;
            let outcome = env.commit(vec![late]).await?;
            assert_eq!(outcome, CommitOutcome::HeadMoved { index: 0, head: v(barrier) });
            let fine = Change::files([format!("after-{barrier}")]).append(id, v(barrier))?;
            committed(env.commit(vec![fine]).await?)?;
            assert_eq!(env.record(id).await?.barrier_version, v(barrier));
        }
        assert_eq!(env.paths(id, v(7)).await?, ["a", "after-2", "after-4", "after-6"]);
        Ok(())
    }

    /// commit 8, 11: a change of the protocol may go on any head, too, and is a barrier for what comes after it.
    async fn a_protocol_goes_on_top_of_appends(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        for i in 1..=3 {
            let append = Change::files([format!("f{i}")]).append(id, v(0))?;
            committed(env.commit(vec![append]).await?)?;
        }
        let changed = env.commit(vec![Change::new().protocol(protocol(3)).append(id, v(0))?]).await?;
        assert_eq!(committed_one(changed)?.version, v(4));
        assert_eq!(env.record(id).await?.barrier_version, v(4));
        for late in [
            Change::files(["late"]).append(id, v(3))?,
            Change::new().protocol(protocol(4)).append(id, v(3))?,
        ] {
            let outcome = env.commit(vec![late]).await?;
            assert_eq!(outcome, CommitOutcome::HeadMoved { index: 0, head: v(4) });
        }
        committed(env.commit(vec![Change::files(["after"]).append(id, v(4))?]).await?)?;
        assert_eq!(env.paths(id, v(5)).await?, ["f1", "f2", "f3", "after"]);
        Ok(())
    }

    /// commit 8: neither removes, nor transactions, nor domains move the barrier.
    async fn other_actions_do_not_move_the_barrier(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a"])).await?;
        env.write(id, Change::new().remove(gone(&file("a"), Some(1)))).await?;
        env.write(id, Change::new().txn("app", 1).domain("d", Some("{}"))).await?;
        assert_eq!(env.record(id).await?.barrier_version, v(0));
        let part = Change::files(["b"]).append(id, v(0))?;
        assert_eq!(committed_one(env.commit(vec![part]).await?)?.version, v(3));
        Ok(())
    }

    /// commit 4: timestamps are the clock's, and grow strictly when it stands still or goes back.
    async fn timestamps_grow_with_any_clock(env: &Env) -> CaseResult {
        let new = env.new_table("t");
        let id = new.id;
        let commit = async |now: i64, part| -> CaseResult<(i64, i64)> {
            let request =
                CommitRequest { token: env.token(), now: TimestampMs(now), tables: vec![part] };
            let written = committed_one(env.db().commit(request).await?)?;
            Ok((written.version.get(), written.timestamp.0))
        };
        assert_eq!(commit(-5_000, Change::new().create(new)?).await?, (0, -5_000));
        let clock = [-5_000, -5_000, -9_999, -1, 0, 1_000, 1_000, 900, 0, 1_005, 2_000];
        let want = [-4_999, -4_998, -4_997, -1, 0, 1_000, 1_001, 1_002, 1_003, 1_005, 2_000];
        for (i, (now, want)) in clock.into_iter().zip(want).enumerate() {
            let change = Change::files([format!("f{i}")]);
            let part = if i % 2 == 0 {
                change.append(id, v(0))?
            } else {
                change.exactly(id, v(i64::try_from(i)?))?
            };
            assert_eq!(commit(now, part).await?, (i64::try_from(i)? + 1, want));
        }
        let record = env.record(id).await?;
        assert_eq!(record.head_timestamp, Some(TimestampMs(2_000)));
        let stored: Vec<_> = env.history(id).await?.iter().rev().map(|c| c.timestamp.0).collect();
        assert_eq!(stored[0], -5_000);
        assert_eq!(stored[1..], want);
        Ok(())
    }

    /// commit 12: the first line is rendered with the commit timestamp, wherever its parts want it.
    async fn the_first_line_has_the_commit_timestamp(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let head = env.record(id).await?.head_timestamp.unwrap_or_default();
        let line = FirstLine::with_parts(vec![
            r#"{"commitInfo":{"inCommitTimestamp":"#.to_owned(),
            r#","timestamp":"#.to_owned(),
            r#","operation":"MERGE","quote":"it's \"so\" ?1 $1 :x %s"}}"#.to_owned(),
        ]);
        let part = Change::new().raw("{\"x\":1}\n").first_line(line.clone()).exactly(id, v(0))?;
        // The clock is behind: the rendered timestamp is the commit's, not the clock's.
        let request = CommitRequest { token: env.token(), now: TimestampMs(5), tables: vec![part] };
        let written = committed_one(env.db().commit(request).await?)?;
        assert_eq!(written.timestamp, head.plus_ms(1));
        let want = format!("{}\n{{\"x\":1}}\n", line.render(written.timestamp));
        assert_eq!(env.body(id, v(1)).await?, want.as_bytes());
        let info = env.history(id).await?[0].commit_info.clone().unwrap_or_default();
        assert_eq!(format!("{{\"commitInfo\":{info}}}"), line.render(written.timestamp));
        Ok(())
    }

    /// commit 12: bytes come back exactly: unknown actions and fields, spacing, any line end, no end.
    async fn bodies_are_kept_byte_for_byte(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let large = vec![b'a'; 100_000];
        let bodies: [&[u8]; 7] = [
            b"",
            b"\n",
            b"{\"futureAction\":{\"a\" : [1, 2.50, 1e400, \"\\u0000\"]}}\n",
            b"{\"add\":{\"path\":\"p\",\"size\":1,\"modificationTime\":1,\"new\":{}}}\r\n\r\n",
            "{\"x\":\"é🚀\u{2028}\"}   \n   {\"y\":null}".as_bytes(),
            b"\x00\x01\xff\xfe not even text \x80",
            &large,
        ];
        for (i, bytes) in bodies.into_iter().enumerate() {
            let head = v(i64::try_from(i)?);
            let line = FirstLine::fixed(format!("{{\"commitInfo\":{{\"n\":{i}}}}}"));
            let part = Change::new().raw(bytes).first_line(line).exactly(id, head)?;
            committed(env.commit(vec![part]).await?)?;
            let mut want = format!("{{\"commitInfo\":{{\"n\":{i}}}}}\n").into_bytes();
            want.extend_from_slice(bytes);
            assert_eq!(env.body(id, head.next()).await?, want, "body {i}");
        }
        Ok(())
    }

    /// commit 12: a first line of any text is kept; it need not be a `commitInfo`.
    async fn a_first_line_need_not_be_commit_info(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let line = FirstLine::fixed(r#"{"txn":{"appId":"a","version":1}}"#);
        let part = Change::files(["f"]).first_line(line.clone()).exactly(id, v(0))?;
        committed(env.commit(vec![part]).await?)?;
        let body = env.body(id, v(1)).await?;
        assert!(body.starts_with(line.render(TimestampMs(0)).as_bytes()), "{body:?}");
        assert_eq!(env.history(id).await?[0].commit_info, None);
        Ok(())
    }

    /// list_commits 3: a commit's record says what it did and who did it.
    async fn the_commit_record_says_what_happened(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a", "b"])).await?;
        let mut big = file("c");
        big.size = 1_000;
        let change = Change::new()
            .remove(gone(&file("a"), Some(5)))
            .add(big)
            .metadata(metadata("second"))
            .txn("app", 3);
        let request = env.request(vec![change.exactly(id, v(0))?]);
        let written = committed_one(env.db().commit(request.clone()).await?)?;
        let record = env.history(id).await?[0].clone();
        assert_eq!(record.table_id, id);
        assert_eq!((record.version, record.timestamp), (v(1), written.timestamp));
        assert_eq!(record.token, Some(request.token));
        assert_eq!((record.num_added, record.num_removed), (1, 1));
        assert_eq!((record.bytes_added, record.bytes_removed), (1_000, 100));
        assert_eq!((record.changes_metadata, record.changes_protocol), (true, false));
        assert_eq!((record.total_files, record.total_bytes), (2, 1_100));
        assert!(record.has_body);
        let info = format!(r#"{{"timestamp":{},"operation":"WRITE"}}"#, written.timestamp);
        assert_eq!(record.commit_info, Some(info));
        Ok(())
    }

    /// commit 12: a commit of nothing but its first line is a version like any other.
    async fn an_empty_commit_is_a_version(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a"])).await?;
        assert_eq!(env.write(id, Change::new()).await?.version, v(1));
        assert_eq!(env.paths(id, v(1)).await?, ["a"]);
        let record = env.history(id).await?[0].clone();
        assert_eq!((record.num_added, record.num_removed, record.total_files), (0, 0, 1));
        Ok(())
    }

    /// commit 6: each version of a published table is put into the outbox with the commit.
    async fn the_outbox_row_comes_with_the_commit(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        env.write(id, Change::files(["a"])).await?;
        let rows = env.outbox(Some(id), None).await?;
        let got: Vec<_> = rows.iter().map(|r| (r.version, r.state, r.attempts)).collect();
        assert_eq!(got, [(v(0), MirrorState::Pending, 0), (v(1), MirrorState::Pending, 0)]);
        for row in rows {
            assert_eq!((row.last_error, row.digest, row.published_at), (None, None, None));
            assert_eq!(row.table_id, id);
        }
        Ok(())
    }

    /// commit 6: none for a table that is not published.
    async fn a_table_that_is_not_published_has_no_outbox_rows(env: &Env) -> CaseResult {
        let mut new = env.new_table("t");
        new.mirror = MirrorMode::Off;
        let id = new.id;
        committed(env.commit(vec![Change::new().create(new)?]).await?)?;
        env.write(id, Change::files(["a"])).await?;
        assert_eq!(env.outbox(Some(id), None).await?, []);
        assert_eq!(env.outbox(None, None).await?, []);
        Ok(())
    }

    /// commit 13: at least one table, and none twice, else `InvalidInput` and nothing written.
    async fn a_malformed_batch_is_invalid(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let before = env.dump(id).await?;
        let part = Change::files(["a"]).append(id, v(0))?;
        for tables in [Vec::new(), vec![part.clone(), part]] {
            match env.commit(tables).await {
                Err(CatalogError::InvalidInput(_)) => {}
                other => return fail(format_args!("{other:?}")),
            }
        }
        assert_eq!(env.dump(id).await?, before);
        Ok(())
    }

    /// commit 1: a refused commit leaves nothing, not even its token.
    async fn a_refused_commit_leaves_nothing(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a"])).await?;
        let before = env.dump(id).await?;
        let change =
            || Change::files(["b"]).metadata(metadata("x")).txn("app", 1).domain("d", Some("{}"));
        let mut request = env.request(vec![change().exactly(id, v(7))?]);
        let moved = env.db().commit(request.clone()).await?;
        assert_eq!(moved, CommitOutcome::HeadMoved { index: 0, head: v(0) });
        assert_eq!(env.dump(id).await?, before);
        assert_eq!(env.db().resolve_token(&request.token).await?, None);
        request.tables = vec![change().exactly(id, Version::ZERO)?];
        let written = committed_one(env.db().commit(request.clone()).await?)?;
        assert_eq!(written.version, v(1), "the token was not used up");
        assert_eq!(env.db().resolve_token(&request.token).await?, Some(vec![written]));
        Ok(())
    }

    /// commit 4: at the end of time there is no later timestamp: an error, and nothing written.
    async fn the_end_of_time_is_refused_cleanly(env: &Env) -> CaseResult {
        let new = env.new_table("t");
        let id = new.id;
        let mut request = env.request(vec![Change::new().create(new)?]);
        request.now = TimestampMs(i64::MAX);
        if env.db().commit(request).await.is_err() {
            return Ok(()); // Refused at once: clean too.
        }
        let before = env.dump(id).await?;
        let part = Change::files(["a"]).exactly(id, v(0))?;
        match env.commit(vec![part]).await {
            Err(CatalogError::InvalidInput(_)) => {}
            other => return fail(format_args!("{other:?}")),
        }
        assert_eq!(env.dump(id).await?, before);
        Ok(())
    }
}
