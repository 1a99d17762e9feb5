//! Errors that do not depend on the database: those of the driver, the network and the client's time limit.

use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, WriteState};

/// Where an error occurred: it is in every message.
#[derive(Debug, Clone, Copy)]
pub struct Place<'p> {
    /// The database: `host:port/database`.
    pub at: &'p str,
    /// The work; it completes "while …".
    pub doing: &'p str,
}

/// The error of a request without an answer in time. `advice` says how the cause is found at the server.
#[must_use]
pub fn timed_out(
    after: Duration,
    place: Place<'_>,
    advice: &str,
    write: WriteState,
) -> CatalogError {
    let Place { at, doing } = place;
    CatalogError::busy(
        format!(
            "database '{at}' did not answer within {} ms while {doing}: raise statement_timeout, or look \
             for what blocks it {advice}",
            after.as_millis()
        ),
        write,
    )
}

/// Errors of the driver and the network. Their texts hold no secrets.
///
/// `tls_option` is the name of the option that says how connections are encrypted.
#[must_use]
pub fn driver_error(
    error: &sqlx::Error,
    place: Place<'_>,
    tls_option: &str,
    write: WriteState,
) -> CatalogError {
    let Place { at, doing } = place;
    match error {
        // What rustls refuses comes as an I/O error.
        sqlx::Error::Io(why) if why.kind() == std::io::ErrorKind::InvalidData => {
            CatalogError::failed(
                format!(
                    "no encrypted connection to database '{at}' for {doing}: the server's \
                     certificate or encryption was refused: {why}; check {tls_option} and \
                     the certificate files"
                ),
                write,
            )
        }
        sqlx::Error::Io(why) => CatalogError::busy(
            format!(
                "the connection to database '{at}' failed while {doing}: {why}; check that the \
                 server runs and can be reached"
            ),
            write,
        ),
        sqlx::Error::PoolTimedOut => CatalogError::busy(
            format!(
                "no connection to database '{at}' could be had in time for {doing}: the server \
                 does not answer, or all connections are in use (max_connections, acquire_timeout)"
            ),
            write,
        ),
        sqlx::Error::PoolClosed => CatalogError::closed(at),
        sqlx::Error::Tls(why) => CatalogError::failed(
            format!(
                "no encrypted connection to database '{at}' for {doing}: {why}; check {tls_option} and \
                 the certificate files"
            ),
            write,
        ),
        sqlx::Error::Configuration(why) => {
            CatalogError::invalid(format!("the options of database '{at}' are wrong: {why}"))
        }
        sqlx::Error::Encode(why) => CatalogError::invalid(format!(
            "database '{at}' cannot take a value, while {doing}: {why}"
        )),
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::RowNotFound => CatalogError::corrupt(format!(
            "database '{at}' holds an unexpected value, found while {doing}: {error}; was it \
             changed by another program?"
        )),
        // What is left are breaches of the protocol, as a connection that breaks may cause.
        _ => CatalogError::busy(format!("database '{at}' failed while {doing}: {error}"), write),
    }
}
