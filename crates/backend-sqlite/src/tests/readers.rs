//! Which connections read, and that every read is answered.

use std::fs;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use deltalakedb_catalog_core::backend::parts::*;

use deltalakedb_catalog_core::ids::TableRef;

use super::support::{Place, change, create, id, paths};
use crate::worker::QUEUE;
use crate::{SqliteBackend, SqliteOptions};

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

/// As after a ROLLBACK that failed: who reads next would see an old state, or nothing at all.
#[tokio::test]
async fn a_connection_whose_transaction_does_not_end_is_replaced() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    for n in 1..=3 {
        let left = backend.workers.read(|session| {
            session.conn.execute_batch("BEGIN; SELECT count(*) FROM dl_files").unwrap();
            session.conn.query_row("SELECT 1", [], |row| row.get::<_, i64>(0)).unwrap();
            Ok(())
        });
        left.await.unwrap();
        change(&backend, 1, &format!("t{n}"), &[&format!("f{n}")], &[]).await;
        // One statement, and several in a transaction.
        let table = backend.get_table(&TableRef::Id(id(1))).await.unwrap().unwrap();
        assert_eq!(table.head.unwrap().get(), n);
        let all = i64::try_from(paths(&backend, 1, n).await.len()).unwrap();
        assert_eq!(all, n);
    }
    assert_eq!(backend.workers.readers().running(), 1);
}

#[tokio::test]
async fn many_reads_wait_outside_of_a_queue_of_so_many() {
    const MORE: usize = 3 * QUEUE;
    let place = Place::new();
    let backend = SqliteBackend::open(SqliteOptions { readers: 1, ..place.options() }).unwrap();
    let (begun, begins) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let slow = backend.workers.read(move |_| {
        begun.send(()).unwrap();
        Ok(released.recv().is_ok())
    });
    let mut slow = std::pin::pin!(slow);
    assert!(futures::poll!(slow.as_mut()).is_pending());
    begins.recv().unwrap();
    // What tokio lets a task do at one go is less than that.
    let many = (0..MORE).map(|n| backend.workers.read(move |_| Ok(n)));
    let many = tokio::task::unconstrained(futures::future::join_all(many));
    let mut many = std::pin::pin!(many);
    // All of them have asked by then.
    assert!(futures::poll!(many.as_mut()).is_pending());
    assert_eq!(backend.workers.readers().waiting(), QUEUE);
    release.send(()).unwrap();
    assert!(slow.await.unwrap());
    let answers: Result<Vec<usize>, _> = many.await.into_iter().collect();
    assert_eq!(answers.unwrap(), (0..MORE).collect::<Vec<_>>());
    // Who gives up leaves no place taken.
    for _ in 0..2 * QUEUE {
        drop(backend.workers.read(|_| Ok(())));
        let mut given_up = std::pin::pin!(backend.workers.read(|_| Ok(())));
        let _ = futures::poll!(given_up.as_mut());
    }
    at_once(&backend, 1).await;
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
