//! History and stored bytes.

use bytes::Bytes;
use deltalakedb_catalog_core::backend::{CommitFilter, CommitRequest};
use deltalakedb_catalog_core::commit::Packed;
use deltalakedb_catalog_core::ids::{TableId, TimestampMs};

use super::cases;
use crate::change::Change;
use crate::env::{CaseResult, Env, all_commits, committed, v};

/// Versions 0 to 9 at the times 1000, 1100, … 1900.
async fn ten_versions(env: &Env) -> CaseResult<TableId> {
    let new = env.new_table("t");
    let id = new.id;
    for i in 0..10 {
        let change = Change::files([format!("f{i}")]);
        let part = match i {
            0 => change.create(new.clone())?,
            _ => change.exactly(id, v(i - 1))?,
        };
        let now = TimestampMs(1_000 + 100 * i);
        let request = CommitRequest { token: env.token(), now, tables: vec![part] };
        committed(env.db().commit(request).await?)?;
    }
    Ok(id)
}

cases! {
    /// list_commits 1: newest first, whole at every page size, `next` none at the end.
    async fn history_is_paged_newest_first(env: &Env) -> CaseResult {
        let id = ten_versions(env).await?;
        for limit in 1..=11 {
            let commits = all_commits(env.db(), id, &CommitFilter::default(), limit).await?;
            let got: Vec<_> = commits.iter().map(|c| c.version.get()).collect();
            assert_eq!(got, (0..10).rev().collect::<Vec<_>>(), "limit {limit}");
        }
        let full = env.db().list_commits(id, &CommitFilter::default(), None, 10).await?;
        assert_eq!((full.items.len(), full.next), (10, None));
        let cut = env.db().list_commits(id, &CommitFilter::default(), None, 4).await?;
        assert_eq!(cut.next, Some(v(6)), "the cursor is that of the last item");
        let rest = env.db().list_commits(id, &CommitFilter::default(), Some(v(2)), 10).await?;
        assert_eq!(rest.items.iter().map(|c| c.version).collect::<Vec<_>>(), [v(1), v(0)]);
        Ok(())
    }

    /// list_commits 2: from and to a version inclusive, from a time inclusive, to a time exclusive.
    async fn history_filters_are_exact_at_their_edges(env: &Env) -> CaseResult {
        let id = ten_versions(env).await?;
        let version = |i: Option<i64>| i.map(v);
        for (from_version, to_version, from_time, to_time, want) in [
            (Some(7), None, None, None, &[9, 8, 7][..]),
            (None, Some(1), None, None, &[1, 0]),
            (Some(3), Some(4), None, None, &[4, 3]),
            (Some(4), Some(3), None, None, &[]),
            (Some(10), None, None, None, &[]),
            (None, None, Some(1_800), None, &[9, 8]),
            (None, None, Some(1_801), None, &[9]),
            (None, None, None, Some(1_100), &[0]),
            (None, None, None, Some(1_101), &[1, 0]),
            (None, None, Some(1_200), Some(1_400), &[3, 2]),
            (None, None, Some(i64::MIN), Some(i64::MIN), &[]),
            (Some(3), Some(8), Some(1_500), Some(1_900), &[8, 7, 6, 5]),
        ] {
            let filter = CommitFilter {
                from_version: version(from_version),
                to_version: version(to_version),
                from_time: from_time.map(TimestampMs),
                to_time: to_time.map(TimestampMs),
            };
            for limit in [1, 2, 10] {
                let commits = all_commits(env.db(), id, &filter, limit).await?;
                let got: Vec<_> = commits.iter().map(|c| c.version.get()).collect();
                assert_eq!(got, want, "{filter:?}, limit {limit}");
            }
        }
        Ok(())
    }

    /// read_bodies 1: the range, both ends included, ascending, at most `limit`, with its records.
    async fn bodies_are_read_by_range(env: &Env) -> CaseResult {
        let id = ten_versions(env).await?;
        let history = env.history(id).await?;
        for (from, to, limit, want) in [
            (0, 9, 100, 0..10),
            (3, 5, 100, 3..6),
            (3, 3, 100, 3..4),
            (3, 9, 2, 3..5),
            (8, 1_000, 100, 8..10),
            (10, 1_000, 100, 10..10),
            (5, 4, 100, 5..5),
        ] {
            let bodies = env.db().read_bodies(id, v(from), v(to), limit).await?;
            let got: Vec<_> = bodies.iter().map(|(r, _)| r.version.get()).collect();
            assert_eq!(got, want.collect::<Vec<_>>(), "{from} to {to}, limit {limit}");
            for (record, body) in bodies {
                let text = String::from_utf8(body.published()?.to_vec())?;
                let path = format!("\"path\":\"f{}\"", record.version);
                assert!(text.contains(&path), "{text}");
                assert!(text.contains(&format!("\"timestamp\":{}", record.timestamp)), "{text}");
                assert!(history.contains(&record), "the record is that of the history");
            }
        }
        Ok(())
    }

    /// read_bodies 1: a call ends after about 32 MiB, and has at least one.
    async fn bodies_are_bounded_in_bytes(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let size = 12 << 20;
        for head in 0..4 {
            let mut part = Change::new().exactly(id, v(head))?;
            // Not a zstd frame: a backend stores what it is given and does not look inside.
            let fill = u8::try_from(head)? + 1;
            part.rest = Packed { zstd: Bytes::from(vec![fill; size]), raw_len: 1 };
            committed(env.commit(vec![part]).await?)?;
        }
        let mut from = 1;
        let mut calls = 0;
        while from <= 4 {
            let bodies = env.db().read_bodies(id, v(from), v(4), 100).await?;
            assert!(!bodies.is_empty() && bodies.len() <= 3, "{} bodies", bodies.len());
            for (record, body) in bodies {
                assert_eq!(record.version, v(from));
                assert_eq!(body.rest.zstd.len(), size);
                assert!(body.rest.zstd.iter().all(|b| i64::from(*b) == from));
                from += 1;
            }
            calls += 1;
        }
        assert!(calls > 1, "48 MiB in one call");
        Ok(())
    }
}
