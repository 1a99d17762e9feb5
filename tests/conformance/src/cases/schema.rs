//! `info` and `migrate`. These cases start on an empty database.

use std::time::{SystemTime, UNIX_EPOCH};

use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::ids::{TableRef, TimestampMs};

use super::cases;
use crate::change::Change;
use crate::env::{CaseResult, Env, Halt, fail, name, retrying, together, v};

cases! {
    /// info 1: works on an empty database, where the schema is older than this program or of memory.
    async fn info_works_on_an_empty_database(env: &Env) -> CaseResult {
        let info = env.db().info().await?;
        assert!(!info.kind.is_empty() && !info.server_version.is_empty(), "{info:?}");
        assert!(info.supported_schema_version > 0, "{info:?}");
        assert!(
            info.schema_version == 0 || info.schema_version == info.supported_schema_version,
            "an empty database has no schema: {info:?}"
        );
        Ok(())
    }

    /// info 2: a database with a clock of its own says what time it is there.
    async fn info_tells_the_time_of_the_database(env: &Env) -> CaseResult {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let here = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let Some(there) = env.db().info().await?.clock else {
            return Err(Halt::Skip("it has no clock but this process's".to_owned()));
        };
        let apart = there.0.saturating_sub(here).saturating_abs();
        assert!(apart < 600_000, "it is {here} here and {there} there, milliseconds");
        Ok(())
    }

    /// migrate 3: after `migrate` the database has the schema that this program writes.
    async fn migrate_brings_the_schema_of_this_program(env: &Env) -> CaseResult {
        env.db().migrate(env.now()).await?;
        let info = env.db().info().await?;
        assert_eq!(info.schema_version, info.supported_schema_version);
        Ok(())
    }

    /// migrate 2: without our tables, reads say so (`Schema`) and do not say "not found".
    async fn reads_before_migrate_say_schema(env: &Env) -> CaseResult {
        if env.db().info().await?.schema_version != 0 {
            return Err(Halt::Skip("this backend needs no schema".to_owned()));
        }
        match env.db().get_table(&TableRef::Name(name("t"))).await.plain() {
            Err(CatalogError::Schema(_)) => {}
            other => return fail(format_args!("get_table: {other:?}")),
        }
        match env.db().list_tables(&TableFilter::default(), None, 10).await.plain() {
            Err(CatalogError::Schema(_)) => Ok(()),
            other => fail(format_args!("list_tables: {other:?}")),
        }
    }

    /// migrate 1: idempotent, and what is stored stays.
    async fn migrate_is_idempotent_and_keeps_data(env: &Env) -> CaseResult {
        env.db().migrate(env.now()).await?;
        let id = env.create_with("t", Change::files(["a", "b"])).await?;
        let before = env.dump(id).await?;
        for _ in 0..3 {
            env.db().migrate(env.now()).await?;
        }
        assert_eq!(env.dump(id).await?, before);
        env.write(id, Change::files(["c"])).await?;
        assert_eq!(env.paths(id, v(1)).await?, ["a", "b", "c"]);
        Ok(())
    }

    /// migrate 1: processes that migrate at once end with one schema.
    async fn concurrent_migrations_end_with_one_schema(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let calls = (0..8).map(|i: usize| {
            let db = handles[i % 2].clone();
            async move { retrying(|| db.migrate(TimestampMs(1_600_000_000_000))).await }
        });
        for answer in together(calls).await? {
            answer?;
        }
        let info = env.db().info().await?;
        assert_eq!(info.schema_version, info.supported_schema_version);
        let id = env.create("t").await?;
        assert_eq!(handles[1].get_table(&TableRef::Id(id)).await?, Some(env.record(id).await?));
        Ok(())
    }
}
