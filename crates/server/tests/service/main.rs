//! A service on real sockets, over SQLite, PostgreSQL and MariaDB, asked by a real client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests: clippy only knows the functions that are marked as such"
)]

mod access;
mod bounds;
mod commits;
#[cfg(feature = "rows")]
mod rows;
mod support;
mod tables;
mod unity;

/// Repeats a test on each database.
macro_rules! on_each_database {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            use deltalakedb_test_servers::Database;

            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                crate::support::on(Database::Sqlite, super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                crate::support::on(Database::Postgres, super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn mysql() {
                crate::support::on(Database::MySql, super::$name).await;
            }
        })+
    };
}
pub(crate) use on_each_database;
