//! From SQL Server's error numbers to our errors. Numbers decide, never messages
//! (<https://learn.microsoft.com/sql/relational-databases/errors-events/database-engine-events-and-errors>,
//! <https://learn.microsoft.com/azure/azure-sql/database/troubleshoot-common-errors-issues>).

use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::InvalidId;
use tiberius::error::{Error, IoErrorKind};

/// Violation of a primary key or unique constraint, and of a unique index.
const DUPLICATES: [u32; 2] = [2627, 2601];
/// 1205 deadlock victim, 3960 snapshot update conflict, 1222 lock timeout, 1204 no more locks.
const CONTENTION: [u32; 4] = [1205, 3960, 1222, 1204];
/// Azure SQL: throttled, failing over, out of workers or sessions, or not available now. 17142 and
/// 17830: an instance that is paused, or closed the connection while logging in. 921, 922: a
/// database that is being recovered. 701, 8645: out of memory.
const TRANSIENT: [u32; 20] = [
    40197, 40501, 40540, 40613, 40143, 40166, 10928, 10929, 10053, 10054, 10060, 49918, 49919,
    49920, 4221, 17142, 17830, 921, 922, 8645,
];
/// The session or the server is going down, so what ran last may or may not have ended: kill
/// state, kill, shutdown, severed.
const DYING: [u32; 5] = [596, 6005, 6006, 601, 3624];
/// 18456 login failed, 18452 untrusted domain, 18487/18488 password expired, 4060 cannot open the
/// database, 4064 cannot open the default one.
const LOGIN: [u32; 6] = [18456, 18452, 18487, 18488, 4060, 4064];
/// Permission denied on an object, a statement, a column, or the database.
const DENIED: [u32; 5] = [229, 230, 262, 297, 916];
/// No such table, column or schema.
const MISSING: [u32; 3] = [208, 207, 2760];
/// Not enough memory.
const OUT_OF_MEMORY: u32 = 701;
/// From this class on the server closes the connection.
const FATAL_CLASS: u8 = 20;

/// What a piece of database work may fail with, before it is known what it was for.
#[derive(Debug)]
pub(crate) enum DbError {
    /// From the server or the driver. The state: had the request left this process?
    Driver(Error, Sent),
    /// Ours already.
    Catalog(CatalogError),
}

/// Whether a request may have reached the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It cannot have.
    No,
    /// It may have, but it could not end a transaction.
    Harmless,
    /// It may have, and it ends a transaction.
    Deciding,
}

/// Result inside this crate.
pub(crate) type DbResult<T> = std::result::Result<T, DbError>;

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
    /// The server's number.
    pub(crate) fn number(&self) -> Option<u32> {
        match self {
            DbError::Driver(error, _) => error.code(),
            DbError::Catalog(_) => None,
        }
    }

    /// Whether a row with this key was there already.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.number().is_some_and(|number| DUPLICATES.contains(&number))
    }

    /// Whether a table is missing.
    pub(crate) fn is_missing(&self) -> bool {
        self.number().is_some_and(|number| MISSING.contains(&number))
    }

    /// Whether it is an answer of the server whose number says nothing to us.
    pub(crate) fn is_unknown(&self) -> bool {
        let DbError::Driver(Error::Server(token), _) = self else { return false };
        let number = token.code();
        token.class() < FATAL_CLASS
            && number != OUT_OF_MEMORY
            && [&DUPLICATES[..], &CONTENTION, &TRANSIENT, &DYING, &LOGIN, &DENIED, &MISSING]
                .iter()
                .all(|known| !known.contains(&number))
    }

    /// Whether a bulk load that failed so is better not tried again: anything but contention and
    /// duplicates.
    pub(crate) fn speaks_against_bulk(&self) -> bool {
        match self {
            DbError::Driver(Error::Server(token), _) => {
                let number = token.code();
                !CONTENTION.contains(&number)
                    && !DUPLICATES.contains(&number)
                    && !TRANSIENT.contains(&number)
            }
            DbError::Driver(..) => true,
            DbError::Catalog(_) => false,
        }
    }

    /// Whether it was said by the server or the driver, so that the connection is not in doubt.
    pub(crate) fn is_definite(&self) -> bool {
        matches!(
            self,
            DbError::Driver(Error::Server(_) | Error::BulkInput(_) | Error::Conversion(_), _)
        )
    }

    /// What the caller sees. `place` is server and database, `doing` what was tried.
    pub(crate) fn into_catalog(self, place: &str, doing: &str) -> CatalogError {
        match self {
            DbError::Catalog(error) => error,
            DbError::Driver(error, sent) => classify(&error, sent, place, doing),
        }
    }
}

fn classify(error: &Error, sent: Sent, place: &str, doing: &str) -> CatalogError {
    let lost = match sent {
        Sent::Deciding => WriteState::Unknown,
        Sent::No | Sent::Harmless => WriteState::NotApplied,
    };
    let at = format!("{doing}: SQL Server {place}");
    let Error::Server(token) = error else {
        return driver_failure(error, lost, &at);
    };
    let (number, message) = (token.code(), token.message());
    let text = format!("{at}: error {number}: {message}");
    if DYING.contains(&number) || token.class() >= FATAL_CLASS {
        return CatalogError::busy(text, lost);
    }
    // An answer of the server: with XACT_ABORT on, nothing of the transaction stays.
    let not_applied = WriteState::NotApplied;
    if CONTENTION.contains(&number)
        || TRANSIENT.contains(&number)
        || DUPLICATES.contains(&number)
        || number == OUT_OF_MEMORY
    {
        return CatalogError::busy(text, not_applied);
    }
    if LOGIN.contains(&number) {
        let text = format!("{text} Check user, password and database of the URL");
        return CatalogError::failed(text, not_applied);
    }
    if DENIED.contains(&number) {
        let text = format!("{text} `dl grants` prints the rights that a login needs");
        return CatalogError::failed(text, not_applied);
    }
    if MISSING.contains(&number) {
        return CatalogError::Schema(format!(
            "{at} holds no catalog of this program under this schema and table_prefix (error \
             {number}: {message}): run `dl init` first"
        ));
    }
    CatalogError::failed(text, not_applied)
}

fn driver_failure(error: &Error, lost: WriteState, at: &str) -> CatalogError {
    match error {
        Error::Io { kind: IoErrorKind::TimedOut, .. } => CatalogError::busy(
            format!("{at} did not answer within the time allowed (statement_timeout)"),
            lost,
        ),
        Error::Io { message, .. } => {
            CatalogError::busy(format!("{at}: the connection was lost: {message}"), lost)
        }
        Error::Tls(message) => {
            // What follows is advice for users of the driver's own interface.
            let why = message.split(". To connect anyway").next().unwrap_or_default();
            CatalogError::failed(
                format!(
                    "{at}: no encrypted connection: {why}. Check encrypt, \
                     trust_server_certificate and trust_server_certificate_ca of the URL"
                ),
                lost,
            )
        }
        Error::BulkInput(message) | Error::Conversion(message) | Error::Encoding(message) => {
            CatalogError::failed(format!("{at}: the driver cannot send this: {message}"), lost)
        }
        other => CatalogError::busy(format!("{at}: {other}"), lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_answer_is_unknown_only_where_it_decides() {
        let lost = || Error::Io { kind: IoErrorKind::UnexpectedEof, message: "gone".to_owned() };
        for (sent, state) in [
            (Sent::No, WriteState::NotApplied),
            (Sent::Harmless, WriteState::NotApplied),
            (Sent::Deciding, WriteState::Unknown),
        ] {
            let error = DbError::Driver(lost(), sent).into_catalog("h:1/d", "committing");
            assert_eq!(error.write_state(), state);
            assert!(error.is_retryable());
            assert!(error.to_string().contains("h:1/d"), "{error}");
        }
    }

    #[test]
    fn certificates_are_not_worth_a_retry() {
        let error = DbError::Driver(Error::Tls("unknown issuer".to_owned()), Sent::No);
        let error = error.into_catalog("h:1/d", "connecting");
        assert!(!error.is_retryable() && error.to_string().contains("trust_server_certificate_ca"));
    }
}
