//! The first connection: which time limit connections can start with.

use deltalakedb_sqlx_shared::{Lease, Pool, TakesWrites};
use futures::future::BoxFuture;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::errors::{DbError, DbResult};
use crate::options::{AtStart, PostgresOptions};

/// Where the server is told how long a statement by itself may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitSetBy {
    /// Connections start with the limit.
    Connection,
    /// Statements that wait for locks limit their waiting in their text.
    Statement,
}

/// A pool whose first connection is there, and whether the server knows how long statements may take.
pub(super) async fn first_connection(
    options: &PostgresOptions,
) -> DbResult<(Pool<PgConnection>, LimitSetBy)> {
    // Without prepared statements each statement is in a transaction, which says it.
    let at_starts: &[AtStart] = if options.statement_cache > 0 {
        &[AtStart::LimitAndCheck, AtStart::Limit, AtStart::Nothing]
    } else {
        &[AtStart::Nothing]
    };
    let mut refused = None;
    for at_start in at_starts {
        let servers: Vec<_> =
            options.each_server().iter().map(|one| one.to_driver(*at_start)).collect();
        let ask = options.wants_writes().then_some(takes_writes as TakesWrites<PgConnection>);
        let pool = Pool::of_servers(servers, ask, options.pool.clone())?;
        let mut lease = match pool.acquire().await {
            Ok(lease) => lease,
            Err(error) if *at_start != AtStart::Nothing && refuses_parameters(&error) => {
                tracing::debug!(%error, ?at_start, "the server does not take these parameters");
                refused = Some(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if *at_start == AtStart::Nothing {
            drop(lease);
            return Ok((pool, LimitSetBy::Statement));
        }
        let limit_set_by = match has_limit(&mut lease, options).await {
            Ok(true) => LimitSetBy::Connection,
            Ok(false) => LimitSetBy::Statement,
            Err(error) => {
                lease.discard();
                return Err(error);
            }
        };
        drop(lease);
        return Ok((pool, limit_set_by));
    }
    Err(refused.unwrap_or(sqlx::Error::PoolClosed).into())
}

/// Whether the server of a connection takes writes: it is no standby, and the login may write.
fn takes_writes(connection: &mut PgConnection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
    Box::pin(async move {
        let row = sqlx::raw_sql("SHOW transaction_read_only").fetch_one(connection).await?;
        Ok(row.try_get::<String, _>(0)? == "off")
    })
}

/// Whether a connection really has the limit that it started with: a pooler may take a parameter, and not
/// pass it on.
async fn has_limit(lease: &mut Lease<PgConnection>, options: &PostgresOptions) -> DbResult<bool> {
    let limit = options.pool.acquire_timeout;
    let show = sqlx::Executor::fetch_one(lease.connection()?, "SHOW statement_timeout");
    match tokio::time::timeout(limit, show).await {
        Err(_) => Err(DbError::Timeout(limit)),
        Ok(Ok(row)) => {
            let text: String = sqlx::Row::try_get(&row, 0)?;
            Ok(shown_millis(&text) == Some(options.statement_millis()))
        }
        // An engine that only speaks the protocol, and has taken the parameter.
        Ok(Err(sqlx::Error::Database(_))) => Ok(true),
        Ok(Err(error)) => Err(error.into()),
    }
}

/// A time as the server shows it: `1500ms`, `1min`, `0`.
fn shown_millis(text: &str) -> Option<u128> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u128>().ok()?.checked_mul(factor)
}

/// Whether a connection may be had without parameters of ours: the server said no, and not because of
/// the login (class 28), the database (3D), or what it is short of or busy with (53, 57).
fn refuses_parameters(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    let code = error.code().unwrap_or_default();
    !["28", "3D", "53", "57"].iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_server_shows_them() {
        for (text, millis) in [
            ("0", Some(0)),
            ("60000", Some(60_000)),
            ("500ms", Some(500)),
            ("90s", Some(90_000)),
            ("1min", Some(60_000)),
            ("2h", Some(7_200_000)),
            ("1d", Some(86_400_000)),
            ("1 week", None),
            ("", None),
        ] {
            assert_eq!(shown_millis(text), millis, "{text}");
        }
    }
}
