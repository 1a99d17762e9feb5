//! Which connections read, and that every read is answered.

use std::fs;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use deltalakedb_catalog_core::backend::CatalogBackend;

use super::support::Place;
use crate::SqliteBackend;

/// Reads that are all at work at the same time.
async fn at_once(backend: &Arc<SqliteBackend>, reads: usize) {
    let meeting = Arc::new(Barrier::new(reads));
    let all = (0..reads).map(|_| {
        let meeting = Arc::clone(&meeting);
        backend.workers.read(move |session| {
            meeting.wait();
            Ok(session.conn.query_row("SELECT 1", [], |row| row.get::<_, i64>(0)).unwrap())
        })
    });
    for answer in futures::future::join_all(all).await {
        assert_eq!(answer.unwrap(), 1);
    }
}

#[tokio::test]
async fn one_read_after_the_other_needs_one_connection() {
    let place = Place::new();
    let backend = place.catalog().await;
    for _ in 0..50 {
        backend.info().await.unwrap();
        at_once(&backend, 1).await;
    }
    assert_eq!(backend.workers.readers().running(), 1);
}

#[tokio::test]
async fn whoever_reads_at_once_after_opening_needs_one_connection_too() {
    let place = Place::new();
    place.catalog().await;
    for _ in 0..50 {
        let backend = place.open();
        at_once(&backend, 1).await;
        assert_eq!(backend.workers.readers().running(), 1);
    }
}

#[tokio::test]
async fn reads_at_once_get_as_many_as_there_may_be() {
    let place = Place::new();
    let backend = place.catalog().await;
    at_once(&backend, 4).await;
    assert_eq!(backend.workers.readers().running(), 4);
    // More than connections: the rest wait.
    let sleep = |_: &crate::session::Session| {
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    };
    let many = (0..40).map(|_| backend.workers.read(sleep));
    assert!(futures::future::join_all(many).await.iter().all(Result::is_ok));
    assert_eq!(backend.workers.readers().running(), 4);
}

#[tokio::test]
async fn a_read_that_panics_takes_nobody_with_it() {
    let place = Place::new();
    let backend = place.catalog().await;
    let broken = backend.workers.read::<()>(|_| panic!("as a test")).await;
    let error = broken.unwrap_err().to_string();
    assert!(error.contains("has stopped"), "{error}");
    at_once(&backend, 3).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_replaced_is_not_mixed_with_the_first() {
    let (place, other) = (Place::new(), Place::new());
    drop(other.catalog().await);
    let backend = place.catalog().await;
    fs::rename(other.path(), place.path()).unwrap();
    // Who is connected goes on with the file that was opened; nobody connects to the other one.
    let reads = (0..8).map(|_| {
        backend.workers.read(|session| {
            std::thread::sleep(Duration::from_millis(5));
            Ok(session.conn.query_row("SELECT 1", [], |row| row.get::<_, i64>(0)).unwrap())
        })
    });
    assert!(futures::future::join_all(reads).await.iter().all(Result::is_ok));
    assert_eq!(backend.workers.readers().running(), 1);
}
