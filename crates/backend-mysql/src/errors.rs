//! From error numbers of MySQL and MariaDB to our errors. Numbers decide, never messages
//! (<https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html>,
//! <https://mariadb.com/kb/en/mariadb-error-code-reference/>).

use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::InvalidId;
use deltalakedb_sqlx_shared::{Place, driver_error, timed_out};
use sqlx::mysql::MySqlDatabaseError;

/// What a piece of database work may fail with, before it is known where it ran.
#[derive(Debug)]
pub(crate) enum DbError {
    /// From the server or the driver.
    Sqlx(sqlx::Error),
    /// No answer within the statement timeout; the connection was given up.
    Timeout(Duration),
    /// Ours already.
    Catalog(CatalogError),
    /// Another process changed the schema meanwhile: what stands there is to be looked at again.
    Again,
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

impl DbError {
    /// The number, if the server answered with an error.
    pub(crate) fn number(&self) -> Option<u16> {
        match self {
            DbError::Sqlx(sqlx::Error::Database(error)) => {
                error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
            }
            _ => None,
        }
    }

    /// Whether a primary or unique key refused a row: someone else was first.
    pub(crate) fn is_duplicate(&self) -> bool {
        // ER_DUP_ENTRY, ER_DUP_ENTRY_WITH_KEY_NAME.
        matches!(self.number(), Some(1062 | 1586))
    }

    /// Whether a table or column is not there: of a schema that was upgraded meanwhile, for instance.
    pub(crate) fn is_of_schema(&self) -> bool {
        // ER_NO_SUCH_TABLE, ER_BAD_FIELD_ERROR.
        matches!(self.number(), Some(1146 | 1054))
    }

    /// Whether the connection can be used further.
    pub(crate) fn leaves_connection_usable(&self) -> bool {
        match self {
            DbError::Sqlx(sqlx::Error::Database(_)) => {
                self.number().is_some_and(|number| !ends_session(number))
            }
            DbError::Catalog(_) | DbError::Again => true,
            DbError::Sqlx(_) | DbError::Timeout(_) => false,
        }
    }

    /// Whether a COMMIT may have taken effect although this came instead of an answer.
    ///
    /// An error that the server answers to COMMIT means that it was rolled back (Galera answers
    /// 1213 to a transaction that did not pass certification); except where it ends the session,
    /// which can come after the commit was written.
    pub(crate) fn leaves_doubt(&self) -> bool {
        match self {
            DbError::Sqlx(sqlx::Error::Database(_)) => {
                // ER_QUERY_INTERRUPTED: a kill may meet a commit that is already under way.
                // 1180 ER_ERROR_DURING_COMMIT, 1181: the storage engine could not tell.
                self.number().is_none_or(|number| {
                    ends_session(number) || matches!(number, 1317 | 1180 | 1181 | 3024 | 1969)
                })
            }
            DbError::Catalog(_) | DbError::Again => false,
            DbError::Sqlx(_) | DbError::Timeout(_) => true,
        }
    }

    /// The error for callers. `at` is the database, `doing` completes "while …".
    pub(crate) fn into_catalog(self, at: &str, doing: &str, write: WriteState) -> CatalogError {
        match self {
            DbError::Catalog(error) => error,
            DbError::Again => CatalogError::busy(
                format!("another process changes the schema of database '{at}'"),
                write,
            ),
            DbError::Timeout(after) => {
                timed_out(after, Place { at, doing }, "with SHOW PROCESSLIST", write)
            }
            DbError::Sqlx(sqlx::Error::Database(error)) => {
                match error.try_downcast::<MySqlDatabaseError>() {
                    Ok(error) => server_error(error.number(), error.message(), at, doing, write),
                    Err(error) => CatalogError::failed(
                        format!("database '{at}' failed while {doing}: {}", error.message()),
                        write,
                    ),
                }
            }
            DbError::Sqlx(error) => driver_error(&error, Place { at, doing }, "ssl-mode", write),
        }
    }
}

/// Two writers of one row that did not see each other's locks: the one that lost tries again.
pub(crate) fn conflicting(at: &str) -> CatalogError {
    CatalogError::busy(
        format!("rows of database '{at}' were changed at the same time"),
        WriteState::NotApplied,
    )
}

/// `ER_SERVER_SHUTDOWN`, `ER_NORMAL_SHUTDOWN`, `ER_NEW_ABORTING_CONNECTION`, `ER_CONNECTION_KILLED`,
/// `ER_NET_*`, `ER_ABORTING_CONNECTION`, `CR_SERVER_GONE_ERROR`, `CR_SERVER_LOST`,
/// `ER_CLIENT_INTERACTION_TIMEOUT`: the session is over.
fn ends_session(number: u16) -> bool {
    matches!(
        number,
        1053 | 1077 | 1152 | 1153 | 1158 | 1159 | 1160 | 1161 | 1184 | 1927 | 2006 | 2013 | 4031
    )
}

pub(crate) fn server_error(
    number: u16,
    why: &str,
    at: &str,
    doing: &str,
    write: WriteState,
) -> CatalogError {
    let failed = |advice: &str| {
        CatalogError::failed(
            format!("database '{at}' failed while {doing} (error {number}): {why}{advice}"),
            write,
        )
    };
    let busy = |advice: &str| {
        CatalogError::busy(
            format!("database '{at}' is busy while {doing} (error {number}): {why}{advice}"),
            write,
        )
    };
    match number {
        // ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK (in Galera also: not certified),
        // ER_CHECKREAD (the record changed since), ER_LOCK_NOWAIT, TiDB's write conflicts.
        1205 | 1213 | 1020 | 3572 | 8002 | 8022 | 8028 | 9007 => busy(""),
        // ER_UNKNOWN_COM_ERROR: a Galera node that is not part of the cluster now.
        1047 => busy("; the node is not ready, others may be"),
        // ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED.
        1040 | 1203 | 1226 => busy("; lower max_connections here, or raise it there"),
        // ER_QUERY_INTERRUPTED, ER_QUERY_TIMEOUT, ER_STATEMENT_TIMEOUT of MariaDB.
        1317 | 3024 | 1969 => busy("; raise the server's time limit if it needs so long"),
        // ER_NET_PACKET_TOO_LARGE.
        1153 => CatalogError::invalid(format!(
            "database '{at}' refuses a message of this size while {doing} (error {number}): raise \
             max_allowed_packet of the server"
        )),
        _ if ends_session(number) => busy(""),
        // ER_DISK_FULL, ER_RECORD_FILE_FULL, ER_OUTOFMEMORY, ER_OUT_OF_RESOURCES.
        1021 | 1114 | 1037 | 1038 | 1041 => failed("; free or add what is short, then try again"),
        // ER_ACCESS_DENIED_ERROR, ER_ACCESS_DENIED_NO_PASSWORD_ERROR, ER_HOST_NOT_PRIVILEGED.
        1045 | 1698 | 1130 => failed("; check user, password and the hosts it may come from"),
        // ER_DBACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR, ER_COLUMNACCESS_DENIED_ERROR,
        // ER_SPECIFIC_ACCESS_DENIED_ERROR.
        1044 | 1142 | 1143 | 1227 => {
            failed("; `dl grants` prints the statements that give a login what it needs")
        }
        // ER_BAD_DB_ERROR.
        1049 => failed("; create the database first"),
        // ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION,
        // ER_READ_ONLY_MODE.
        1290 | 1792 | 1836 => failed("; writes need a server that is not read-only"),
        // ER_NO_SUCH_TABLE, ER_BAD_FIELD_ERROR.
        1146 | 1054 => CatalogError::Schema(format!(
            "database '{at}' does not have what is needed for {doing} (error {number}): {why}; run \
             `dl init` first"
        )),
        // ER_DATA_TOO_LONG, ER_WARN_DATA_OUT_OF_RANGE, ER_TRUNCATED_WRONG_VALUE_FOR_FIELD,
        // ER_TOO_BIG_ROWSIZE, ER_TOO_LONG_KEY.
        1406 | 1264 | 1366 | 1118 | 1071 => CatalogError::invalid(format!(
            "database '{at}' cannot store a value, while {doing} (error {number}): {why}"
        )),
        // Every rule that our keys express is checked before a row is written. The message holds
        // the key, which is not shown.
        1062 | 1586 => CatalogError::corrupt(format!(
            "rows of database '{at}' contradict each other, found while {doing} (error {number}): \
             were they changed by another program? Restore a backup"
        )),
        _ => failed(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_its_kind() {
        let of = |number| server_error(number, "why", "h:1/d", "testing", WriteState::NotApplied);
        for number in [1205, 1213, 1047, 1040, 1317, 3024, 1969, 1053, 2006, 2013, 1927] {
            assert!(of(number).is_retryable(), "{number}");
        }
        for number in [1045, 1044, 1142, 1049, 1290, 1792, 1836, 1021, 9999] {
            assert!(matches!(of(number), CatalogError::Unavailable { retryable: false, .. }));
        }
        assert!(matches!(of(1146), CatalogError::Schema(_)));
        assert!(matches!(of(1062), CatalogError::Corrupt(_)));
        assert!(matches!(of(1406), CatalogError::InvalidInput(_)));
        for number in [1205, 1045, 1146, 1062, 1406, 1153, 9999] {
            assert!(of(number).to_string().contains("h:1/d"), "{number}");
        }
    }
}
