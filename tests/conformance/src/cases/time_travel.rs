//! `snapshot` at versions and at times.

use std::fmt::Debug;

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::CommitRequest;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs, Version};

use super::cases;
use crate::change::{Change, file, gone, metadata, protocol};
use crate::env::{CaseResult, Env, committed, fail, name, v};

/// Commits at a time of its own.
async fn commit_at(env: &Env, id: TableId, head: i64, now: i64, change: Change) -> CaseResult {
    let tables = vec![change.exactly(id, v(head))?];
    let request = CommitRequest { token: env.token(), now: TimestampMs(now), tables };
    committed(env.db().commit(request).await?)?;
    Ok(())
}

/// A table with versions 0 to 3 at the times 1000, 2000, 2001 and 5000.
async fn four_versions(env: &Env) -> CaseResult<TableId> {
    let new = env.new_table("t");
    let id = new.id;
    let tables = vec![Change::files(["a"]).create(new)?];
    let request = CommitRequest { token: env.token(), now: TimestampMs(1_000), tables };
    committed(env.db().commit(request).await?)?;
    commit_at(env, id, 0, 2_000, Change::files(["b"]).metadata(metadata("second"))).await?;
    commit_at(env, id, 1, 2_000, Change::new().remove(gone(&file("a"), Some(1)))).await?;
    commit_at(env, id, 2, 5_000, Change::files(["c"]).protocol(protocol(4))).await?;
    Ok(id)
}

fn no_version<T: Debug>(answer: Result<T, CatalogError>, range: (Version, Version)) -> CaseResult {
    match answer {
        Err(CatalogError::VersionNotFound { earliest, latest, .. }) => {
            assert_eq!((earliest, latest), range);
            Ok(())
        }
        other => fail(format_args!("expected VersionNotFound, got {other:?}")),
    }
}

cases! {
    /// snapshot 2: each version has its own protocol, metadata, totals and files.
    async fn each_version_is_what_it_was(env: &Env) -> CaseResult {
        let id = four_versions(env).await?;
        let want: [(_, _, _, _, &[&str]); 4] = [
            ("first", 0, 2, 0, &["a"]),
            ("second", 1, 2, 0, &["a", "b"]),
            ("second", 1, 2, 0, &["b"]),
            ("second", 1, 4, 3, &["b", "c"]),
        ];
        for (i, (description, metadata_at, writer, protocol_at, paths)) in
            want.into_iter().enumerate()
        {
            let version = v(i64::try_from(i)?);
            let snapshot = env.snapshot(id, At::Version(version)).await?;
            assert_eq!(snapshot.version, version);
            assert_eq!(snapshot.metadata, metadata(description));
            assert_eq!(snapshot.metadata_version, v(metadata_at));
            assert_eq!(snapshot.protocol, protocol(writer));
            assert_eq!(snapshot.protocol_version, v(protocol_at));
            assert_eq!(snapshot.num_files, u64::try_from(paths.len())?);
            assert_eq!(snapshot.size_bytes, 100 * u64::try_from(paths.len())?);
            assert_eq!(snapshot.table, env.record(id).await?, "the row is that of now");
            assert_eq!(env.paths(id, version).await?, paths);
        }
        let head = env.snapshot(id, At::Head).await?;
        assert_eq!(head, env.snapshot(id, At::Version(v(3))).await?);
        assert_eq!(head, env.db().snapshot(&TableRef::Name(name("t")), At::Head).await?);
        Ok(())
    }

    /// snapshot 1: a version above the head is `VersionNotFound`, with what can be read.
    async fn a_version_above_the_head_is_not_found(env: &Env) -> CaseResult {
        let id = four_versions(env).await?;
        for version in [4, 5, i64::MAX - 1] {
            let answer = env.snapshot(id, At::Version(v(version))).await;
            no_version(answer, (v(0), v(3)))?;
        }
        Ok(())
    }

    /// snapshot 3: a time means the latest version whose timestamp is not after it, to the millisecond.
    async fn a_time_means_the_latest_version_not_after_it(env: &Env) -> CaseResult {
        let id = four_versions(env).await?;
        for (time, want) in [
            (1_000, 0),
            (1_001, 0),
            (1_999, 0),
            (2_000, 1),
            (2_001, 2),
            (2_002, 2),
            (4_999, 2),
            (5_000, 3),
            (5_001, 3),
            (i64::MAX, 3),
        ] {
            let snapshot = env.snapshot(id, At::Timestamp(TimestampMs(time))).await?;
            assert_eq!(snapshot.version, v(want), "at {time}");
            assert_eq!(snapshot, env.snapshot(id, At::Version(v(want))).await?);
        }
        Ok(())
    }

    /// snapshot 1: a time before the first version is `VersionNotFound`.
    async fn a_time_before_the_first_version_is_not_found(env: &Env) -> CaseResult {
        let id = four_versions(env).await?;
        for time in [999, 0, -1, i64::MIN] {
            let answer = env.snapshot(id, At::Timestamp(TimestampMs(time))).await;
            no_version(answer, (v(0), v(3)))?;
        }
        Ok(())
    }

    /// snapshot 1: below the base of an import there is history, but no state.
    async fn below_the_base_is_not_found(env: &Env) -> CaseResult {
        let id = super::import::imported_at_base_ten(env).await?;
        for at in [At::Version(v(9)), At::Version(v(0)), At::Timestamp(TimestampMs(999))] {
            no_version(env.snapshot(id, at).await, (v(10), v(12)))?;
        }
        for (time, want) in [(1_000, 10), (1_099, 10), (1_100, 11), (1_200, 12), (9_999, 12)] {
            let snapshot = env.snapshot(id, At::Timestamp(TimestampMs(time))).await?;
            assert_eq!(snapshot.version, v(want), "at {time}");
        }
        assert_eq!(env.snapshot(id, At::Version(v(10))).await?.num_files, 5);
        Ok(())
    }

    /// snapshot 4: a dropped table is opened by its id at every version, and never by name.
    async fn a_dropped_table_is_opened_by_id(env: &Env) -> CaseResult {
        let id = four_versions(env).await?;
        env.db().drop_table(id, &Act::at(env.now())).await?;
        assert_eq!(env.snapshot(id, At::Version(v(1))).await?.num_files, 2);
        assert_eq!(env.snapshot(id, At::Timestamp(TimestampMs(2_000))).await?.version, v(1));
        match env.db().snapshot(&TableRef::Name(name("t")), At::Version(v(1))).await.plain() {
            Err(CatalogError::TableNotFound(_)) => Ok(()),
            other => fail(format_args!("{other:?}")),
        }
    }
}
