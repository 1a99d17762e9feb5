//! From PostgreSQL's error codes to our errors. Codes decide, never messages
//! (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::InvalidId;
use deltalakedb_sqlx_shared::{Place, driver_error, timed_out};
use sqlx::postgres::PgDatabaseError;

/// What a piece of database work may fail with, before it is known where it ran.
#[derive(Debug)]
pub(crate) enum DbError {
    /// From the server or the driver.
    Sqlx(sqlx::Error),
    /// No answer within the statement timeout; the connection was given up.
    Timeout(Duration),
    /// Ours already.
    Catalog(CatalogError),
}

/// Result inside this crate.
pub(crate) type DbResult<T> = std::result::Result<T, DbError>;

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        DbError::Sqlx(error)
    }
}

impl From<InvalidId> for DbError {
    fn from(error: InvalidId) -> Self {
        DbError::Catalog(error.into())
    }
}

impl From<CatalogError> for DbError {
    fn from(error: CatalogError) -> Self {
        DbError::Catalog(error)
    }
}

/// `unique_violation`.
const UNIQUE_VIOLATION: &str = "23505";

impl DbError {
    fn server(&self) -> Option<&PgDatabaseError> {
        match self {
            DbError::Sqlx(sqlx::Error::Database(error)) => {
                error.try_downcast_ref::<PgDatabaseError>()
            }
            _ => None,
        }
    }

    /// The SQLSTATE, if the server answered with an error.
    pub(crate) fn code(&self) -> Option<&str> {
        self.server().map(PgDatabaseError::code)
    }

    /// What the server adds to its message.
    pub(crate) fn detail(&self) -> Option<&str> {
        self.server().and_then(PgDatabaseError::detail)
    }

    /// Whether a table or a column is not there: our tables may have got another version.
    pub(crate) fn misses_table_or_column(&self) -> bool {
        matches!(self.code(), Some("42P01" | "42703"))
    }

    /// Whether a primary key or unique index refused a row: someone else was first.
    pub(crate) fn is_unique_violation(&self) -> bool {
        self.code() == Some(UNIQUE_VIOLATION)
    }

    /// Whether an object is there already: another process created it meanwhile.
    pub(crate) fn is_duplicate_object(&self) -> bool {
        // duplicate_table, duplicate_schema, duplicate_object; and the unique index of the
        // system catalog itself, when both created it at once.
        self.code().is_some_and(|code| matches!(code, "42P07" | "42P06" | "42710" | "23505"))
    }

    /// Whether the connection can be used further: an error that the server answered leaves it
    /// intact, unless the server ended the session.
    pub(crate) fn leaves_connection_usable(&self) -> bool {
        match self {
            DbError::Sqlx(sqlx::Error::Database(_)) => {
                self.code().is_some_and(|code| !ends_session(code))
            }
            // Not even sent.
            DbError::Sqlx(sqlx::Error::Encode(_)) | DbError::Catalog(_) => true,
            DbError::Sqlx(_) | DbError::Timeout(_) => false,
        }
    }

    /// Whether the statement may have taken effect although this came instead of an answer.
    ///
    /// An error that the server answers to a statement in a transaction of its own, or to COMMIT,
    /// means that the transaction was rolled back; except where it ends the session
    /// (`admin_shutdown`, `crash_shutdown`; a pooler's report that it lost the server), which can
    /// come after the commit record was written, and `statement_completion_unknown` of CockroachDB.
    pub(crate) fn leaves_doubt(&self) -> bool {
        match self {
            DbError::Sqlx(sqlx::Error::Database(_)) => {
                self.code().is_none_or(|code| ends_session(code) || code == "40003")
            }
            DbError::Sqlx(sqlx::Error::Encode(_)) | DbError::Catalog(_) => false,
            DbError::Sqlx(_) | DbError::Timeout(_) => true,
        }
    }

    /// The error for callers. `at` is the database, `doing` completes "while …".
    pub(crate) fn into_catalog(self, at: &str, doing: &str, write: WriteState) -> CatalogError {
        match self {
            DbError::Catalog(error) => error,
            DbError::Timeout(after) => {
                timed_out(after, Place { at, doing }, "in pg_stat_activity", write)
            }
            DbError::Sqlx(sqlx::Error::Database(error)) => {
                match error.try_downcast::<PgDatabaseError>() {
                    Ok(error) => server_error(&error, at, doing, write),
                    Err(error) => CatalogError::failed(
                        format!("database '{at}' failed while {doing}: {}", error.message()),
                        write,
                    ),
                }
            }
            DbError::Sqlx(error) => driver_error(&error, Place { at, doing }, "sslmode", write),
        }
    }
}

/// Class 08 (connection), and 57P01 to 57P05: the session is over.
fn ends_session(code: &str) -> bool {
    code.starts_with("08") || code.starts_with("57P")
}

fn server_error(error: &PgDatabaseError, at: &str, doing: &str, write: WriteState) -> CatalogError {
    let code = error.code();
    let why = error.message();
    let failed = |advice: &str| {
        CatalogError::failed(
            format!("database '{at}' failed while {doing} (code {code}): {why}{advice}"),
            write,
        )
    };
    let busy = |advice: &str| {
        CatalogError::busy(
            format!("database '{at}' is busy while {doing} (code {code}): {why}{advice}"),
            write,
        )
    };
    let schema = |advice: &str| {
        CatalogError::Schema(format!(
            "database '{at}' does not have what is needed for {doing} (code {code}): {why}{advice}"
        ))
    };
    match code {
        // serialization_failure, statement_completion_unknown, deadlock_detected,
        // lock_not_available.
        "40001" | "40003" | "40P01" | "55P03" => busy(""),
        // query_canceled: a time limit of the server, or someone cancelled it.
        "57014" => busy("; raise statement_timeout if it needs so long"),
        // too_many_connections.
        "53300" => busy("; lower max_connections here, or raise it there"),
        _ if ends_session(code) => busy(""),
        // disk_full, out_of_memory, configuration_limit_exceeded.
        _ if code.starts_with("53") => failed("; free or add what is short, then try again"),
        // invalid_authorization_specification, invalid_password.
        _ if code.starts_with("28") => failed("; check user, password and pg_hba.conf"),
        // invalid_catalog_name.
        "3D000" => failed("; create the database first"),
        // insufficient_privilege.
        "42501" => failed("; `dl grants` prints the statements that give a login what it needs"),
        // read_only_sql_transaction.
        "25006" => failed("; writes need the primary server, not a replica, and a login that may"),
        // undefined_table, undefined_column, invalid_schema_name.
        "42P01" | "42703" | "3F000" => schema("; run `dl init` first"),
        // invalid_sql_statement_name, duplicate_prepared_statement.
        "26000" | "42P05" => busy(
            "; a pooler in transaction mode loses prepared statements: set statement_cache=0 for it",
        ),
        // character_not_in_repertoire, untranslatable_character, numeric_value_out_of_range,
        // string_data_right_truncation; program_limit_exceeded.
        "22021" | "22P05" | "22003" | "22001" | "54000" => CatalogError::invalid(format!(
            "database '{at}' cannot store a value, while {doing} (code {code}): {why}"
        )),
        // Every rule that our constraints express is checked before a row is written.
        _ if code.starts_with("23") => CatalogError::corrupt(format!(
            "rows of database '{at}' contradict each other, found while {doing} (code {code}, {}): \
             were they changed by another program? Restore a backup",
            error.constraint().unwrap_or("constraint not named")
        )),
        // feature_not_supported: also "cached plan must not change result type", after an upgrade
        // of our tables by another process; the next try prepares anew.
        "0A000" => busy(""),
        _ => failed(""),
    }
}
