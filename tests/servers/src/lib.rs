//! Throwaway database servers and emulators of object stores for tests, from the programs that the machine has installed.
//!
//! Each server runs on a random loopback port, as an unprivileged user (servers refuse to run as
//! root), with durability on, in a folder of its own. It dies, and its folder goes, when its value
//! is dropped, and also when the process that started it is killed.
//!
//! - [`Postgres`] (and its streaming [replicas](Postgres::replica)), [`MariaDb`] (or MySQL, where
//!   that is what is installed), [`Galera`] and [`PgBouncer`] are servers.
//! - [`ObjectStore`] is an emulator of S3 (moto) or Azure Blob Storage (Azurite), with everything in
//!   memory; [`shared_object_store`] is the one that `DL_TEST_S3_ENDPOINT` or `DL_TEST_AZURE_ENDPOINT`
//!   names, else one that this process starts.
//! - [`Prometheus`] asks targets for their metrics, and answers queries.
//! - [`CountingProxy`] stands between a client and a server: it counts round trips, and breaks
//!   connections at a chosen moment.
//! - [`shared_postgres`] and [`shared_mysql`] are what most tests want: the server that
//!   `DL_TEST_POSTGRES_URL` or `DL_TEST_MYSQL_URL` names, else one that this process starts.
//! - [`skip`] is what a test calls that cannot run here, and [`is_required`] whether it must.
//! - [`Database`] is one of the databases that a test is repeated on.
//!
//! Servers are started on Linux only: their processes are found in `/proc`.
//!
//! Nothing here is for anything but tests: the passwords are random but they are on disk.
#![forbid(unsafe_code)]

mod account;
mod database;
mod folder;
mod galera;
mod mariadb;
mod objects;
mod otlp;
mod pgbouncer;
mod ports;
mod postgres;
mod process;
mod programs;
mod prometheus;
mod proxy;
mod required;
mod shared;
mod system;
mod tls;
mod wait;

pub use database::Database;
pub use folder::{folders_of, home};
pub use galera::Galera;
pub use mariadb::{MariaDb, MariaDbOptions};
pub use objects::{EmulatedStore, ObjectStore, ObjectStoreKind, check_object_store};
pub use otlp::OtlpReceiver;
pub use pgbouncer::{PgBouncer, PoolMode};
pub use postgres::{Postgres, PostgresOptions};
pub use programs::{Software, emulators};
pub use prometheus::Prometheus;
pub use proxy::CountingProxy;
pub use required::{is_required, skip, tell_skip};
pub use shared::{
    galera_urls, mssql_urls, mysql_urls, postgres_urls, shared_galera, shared_mysql,
    shared_object_store, shared_postgres,
};
pub use tls::Tls;
pub use wait::wait_until;
