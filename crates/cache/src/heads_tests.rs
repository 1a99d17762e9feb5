//! What readers are told of heads, and when not.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{CatalogBackend, CommitOutcome, HeadRule};
use deltalakedb_catalog_core::ids::{At, CommitToken, TimestampMs, Version};
use deltalakedb_catalog_core::model::MirrorMode;
use deltalakedb_catalog_engine::fault::{Fault, Verb};
use futures::poll;
use tokio::time::advance;

use super::*;
use crate::tests::{
    Counting, adds, append, counting, create, create_as, held, held_from, id, name, numbered, on,
    open, try_commit, v,
};
use crate::{CacheOptions, CachedBackend};

const STALENESS: Duration = Duration::from_secs(2);

fn options() -> CacheOptions {
    CacheOptions { head_max_staleness: Some(STALENESS), ..CacheOptions::default() }
}

/// The view for commits, and the one for readers.
fn views(inner: &Arc<Counting>) -> (CachedBackend, CachedBackend) {
    let db = CachedBackend::with_options(inner.clone() as Arc<dyn CatalogBackend>, &options());
    let reader = db.reader();
    (db, reader)
}

async fn head(db: &dyn CatalogBackend) -> i64 {
    let by_name = db.snapshot(&TableRef::Name(name()), At::Head).await.unwrap();
    by_name.version.get()
}

fn calls(inner: &Counting) -> u64 {
    inner.calls(Verb::Snapshot) + inner.calls(Verb::GetTable)
}

#[tokio::test(start_paused = true)]
async fn a_head_is_answered_from_memory_within_the_staleness_and_no_longer() {
    let inner = counting();
    let (db, reader) = views(&inner);
    create(&db).await;
    append(&db, "a").await;
    let first = open(&reader).await;
    assert_eq!(calls(&inner), 1);
    // Another process.
    append(&*inner, "b").await;
    advance(STALENESS * 79 / 100).await;
    for table in [TableRef::Id(id()), TableRef::Name(name())] {
        assert_eq!(reader.snapshot(&table, At::Head).await.unwrap(), first);
        assert_eq!(reader.snapshot(&table, At::Version(v(1))).await.unwrap(), first);
        assert_eq!(reader.get_table(&table).await.unwrap().as_ref(), Some(&first.table));
    }
    assert_eq!(calls(&inner), 1);
    let stats = reader.stats();
    assert_eq!((stats.stale_hits, stats.hits, stats.misses), (6, 6, 1));
    // Who plans a commit is told what is true, and what it was told readers know too.
    assert_eq!(head(&db).await, 2);
    assert_eq!(open(&db).await.version, v(2));
    assert_eq!(calls(&inner), 3);
    assert_eq!((head(&reader).await, calls(&inner)), (2, 3));
    append(&*inner, "c").await;
    advance(STALENESS).await;
    assert_eq!((head(&reader).await, calls(&inner)), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn without_a_staleness_every_head_is_asked_for() {
    let inner = counting();
    let db = CachedBackend::new(inner.clone() as Arc<dyn CatalogBackend>);
    create(&db).await;
    for view in [&db, &db.reader()] {
        for _ in 0..3 {
            open(view).await;
        }
    }
    assert_eq!((inner.calls(Verb::Snapshot), db.stats().stale_hits), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn the_age_of_an_answer_counts_from_its_question() {
    let (answer, inner) = held(Verb::Snapshot, Fault::After);
    let (db, reader) = views(&inner);
    create(&db).await;
    let mut slow = Box::pin(open(&reader));
    assert!(poll!(&mut slow).is_pending());
    append(&*inner, "a").await;
    advance(STALENESS).await;
    answer.send(()).unwrap();
    assert_eq!(slow.await.version, v(0));
    assert_eq!(head(&reader).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_this_process_wrote_is_read_at_once() {
    let inner = counting();
    let (db, reader) = views(&inner);
    create(&db).await;
    for n in 1..=3 {
        head(&reader).await;
        append(if n == 2 { &reader } else { &db }, &format!("t{n}")).await;
        assert_eq!(head(&reader).await, n);
    }
    // A commit that was told of a later head, or of its own from another process.
    append(&*inner, "elsewhere").await;
    let moved = try_commit(&db, "x", on(HeadRule::Exactly(v(1))), &adds(["x".into()])).await;
    assert!(matches!(moved, CommitOutcome::HeadMoved { .. }));
    assert_eq!(head(&reader).await, 4);
    append(&*inner, "again").await;
    let target = on(HeadRule::Append { since: Version::ZERO });
    let replayed = try_commit(&db, "again", target, &adds(["again".into()])).await;
    assert!(matches!(replayed, CommitOutcome::Replayed(_)));
    assert_eq!(head(&reader).await, 5);
    append(&*inner, "found").await;
    assert_eq!(head(&reader).await, 5);
    db.resolve_token(&CommitToken::new("found").unwrap()).await.unwrap().unwrap();
    assert_eq!(head(&reader).await, 6);
    append(&*inner, "told").await;
    db.note_change(id());
    assert_eq!(head(&reader).await, 7);
    db.mirror_set_mode(id(), MirrorMode::Active, &Act::at(TimestampMs(1))).await.unwrap();
    let row = reader.get_table(&TableRef::Id(id())).await.unwrap().unwrap();
    assert_eq!(row.mirror, MirrorMode::Active);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_asked_for_before_a_commit_is_not_kept_after_it() {
    for verb in [Verb::Snapshot, Verb::GetTable] {
        let (answer, inner) = held(verb, Fault::After);
        let (db, reader) = views(&inner);
        create(&db).await;
        let table = TableRef::Name(name());
        let mut early = Box::pin(async {
            match verb {
                Verb::Snapshot => reader.snapshot(&table, At::Head).await.unwrap().table,
                _ => reader.get_table(&table).await.unwrap().unwrap(),
            }
        });
        assert!(poll!(&mut early).is_pending());
        append(&db, "a").await;
        answer.send(()).unwrap();
        assert_eq!(early.await.head, Some(v(0)));
        assert_eq!(head(&reader).await, 1);
        let row = reader.get_table(&table).await.unwrap().unwrap();
        assert_eq!(row.head, Some(v(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_an_answer_from_before_a_commit_is_asked_for_again_after_it() {
    let (answer, inner) = held(Verb::Snapshot, Fault::After);
    let (db, reader) = views(&inner);
    create(&db).await;
    let mut early = Box::pin(head(&reader));
    assert!(poll!(&mut early).is_pending());
    append(&db, "a").await;
    let mut late = Box::pin(head(&reader));
    assert!(poll!(&mut late).is_pending());
    answer.send(()).unwrap();
    assert_eq!((late.await, early.await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_nobody_waits_for_is_not_missed_either() {
    let (_answer, inner) = held_from(Verb::Commit, 1, Fault::After);
    let (db, reader) = views(&inner);
    create(&db).await;
    assert_eq!(head(&reader).await, 0);
    let mut given_up = Box::pin(append(&db, "a"));
    assert!(poll!(&mut given_up).is_pending());
    assert_eq!(head(&reader).await, 0);
    drop(given_up);
    assert_eq!(head(&reader).await, 1);
}

#[tokio::test(start_paused = true)]
async fn names_lead_to_whom_this_process_gave_them() {
    let inner = counting();
    let (db, reader) = views(&inner);
    let other = TableName::new("ns", "other").unwrap();
    create(&db).await;
    head(&reader).await;
    db.drop_table(id(), &Act::at(TimestampMs(1))).await.unwrap();
    assert!(reader.get_table(&TableRef::Name(name())).await.unwrap().is_none());
    // Nothing is remembered of what is not active.
    let row = reader.get_table(&TableRef::Id(id())).await.unwrap().unwrap();
    assert_eq!(row.dropped_at, Some(TimestampMs(1)));
    db.undrop_table(id(), &other, &Act::default()).await.unwrap();
    assert!(reader.get_table(&TableRef::Name(name())).await.unwrap().is_none());
    assert_eq!(reader.get_table(&TableRef::Name(other.clone())).await.unwrap().unwrap().id, id());
    // Another process drops it, and this one gives the name to a new table.
    inner.drop_table(id(), &Act::at(TimestampMs(2))).await.unwrap();
    assert_eq!(reader.get_table(&TableRef::Name(other.clone())).await.unwrap().unwrap().id, id());
    create_as(&db, numbered(2), other.clone()).await;
    let row = reader.get_table(&TableRef::Name(other.clone())).await.unwrap().unwrap();
    assert_eq!(row.id, numbered(2));
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_about_a_name_from_before_it_was_given_away_is_not_kept() {
    let (answer, inner) = held(Verb::GetTable, Fault::After);
    let (db, reader) = views(&inner);
    create(&db).await;
    let table = TableRef::Name(name());
    let mut early = Box::pin(reader.get_table(&table));
    assert!(poll!(&mut early).is_pending());
    inner.drop_table(id(), &Act::at(TimestampMs(2))).await.unwrap();
    create_as(&db, numbered(2), name()).await;
    answer.send(()).unwrap();
    assert_eq!(early.await.unwrap().unwrap().id, id());
    assert_eq!(reader.get_table(&table).await.unwrap().unwrap().id, numbered(2));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_gone_is_not_remembered_by_who_asked_later() {
    let inner = counting();
    let (db, reader) = views(&inner);
    create(&db).await;
    head(&reader).await;
    inner.drop_table(id(), &Act::at(TimestampMs(2))).await.unwrap();
    assert_eq!(head(&reader).await, 0);
    assert!(db.snapshot(&TableRef::Name(name()), At::Head).await.is_err());
    assert!(reader.snapshot(&TableRef::Name(name()), At::Head).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn readers_with_a_source_of_their_own_are_not_told_what_it_did_not_say() {
    let (primary, replica) = (counting(), counting());
    let (db, reader) = CachedBackend::split(primary.clone(), replica.clone(), &options());
    for inner in [&primary, &replica] {
        create(&**inner).await;
    }
    append(&*primary, "a").await;
    // The replica lags behind: what the primary said must not be followed by something older.
    assert_eq!(head(&db).await, 1);
    assert_eq!(head(&reader).await, 0);
    assert_eq!(calls(&replica), 1);
    append(&*replica, "a").await;
    assert_eq!((head(&reader).await, calls(&replica)), (0, 1));
    // What is known to be out of date is asked for again, and so is what this process changed.
    assert_eq!(open(&db).await.version, v(1));
    assert_eq!((head(&reader).await, calls(&replica)), (1, 2));
    append(&*replica, "b").await;
    append(&db, "b").await;
    assert_eq!((head(&reader).await, calls(&replica)), (2, 3));
}

#[test]
fn entries_do_not_end_at_once() {
    let jitter = Jitter::default();
    let times: std::collections::BTreeSet<Duration> =
        (0..100).map(|_| jitter.of(Duration::from_secs(1_000))).collect();
    assert!(times.len() > 30);
    let (first, last) = (times.first().unwrap(), times.last().unwrap());
    assert!(*first >= Duration::from_secs(800) && *last <= Duration::from_secs(1_000));
}

#[test]
fn what_is_remembered_of_changes_is_bounded() {
    let cache = Cache::new(1_000);
    let heads = Heads::new(cache, true);
    for number in 0..3 * MOST_CHANGES {
        heads.forget(&[numbered(number.try_into().unwrap())], &[]);
    }
    assert!(heads.lock().last.len() <= MOST_CHANGES);
}
