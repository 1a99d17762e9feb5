//! Who shares whose answer, and what a caller that gives up does to the others: nothing.

use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::task::Poll;

use futures::poll;
use tokio::sync::Semaphore;

use super::*;

/// Questions that are answered with their number, each once a permit is given for it.
#[derive(Clone)]
struct Desk {
    flights: Arc<Flights<u8, u64>>,
    joined: Arc<Counter>,
    sent: Arc<AtomicU64>,
    answers: Arc<Semaphore>,
}

impl Desk {
    fn new() -> Self {
        Desk {
            flights: Arc::default(),
            joined: Arc::default(),
            sent: Arc::default(),
            answers: Arc::new(Semaphore::new(0)),
        }
    }

    async fn ask(&self, key: u8, join: Join) -> ReadResult<u64> {
        let Desk { sent, answers, .. } = self.clone();
        let ask = move || async move {
            let number = sent.fetch_add(1, Ordering::Relaxed) + 1;
            answers.acquire().await.unwrap().forget();
            if number == 13 {
                Err(CatalogError::busy("thirteen", write_state()).into())
            } else {
                Ok(number)
            }
        };
        self.flights.ask(key, join, &self.joined, ask).await
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn write_state() -> deltalakedb_catalog_core::error::WriteState {
    deltalakedb_catalog_core::error::WriteState::NotApplied
}

#[tokio::test]
async fn one_question_is_on_its_way_and_one_waits() {
    let desk = Desk::new();
    let mut first = pin!(desk.ask(1, Join::NotSent));
    assert!(poll!(&mut first).is_pending());
    // These began after the first question was sent: its answer may be too old for them.
    let mut others: Vec<_> = (0..5).map(|_| Box::pin(desk.ask(1, Join::NotSent))).collect();
    for other in &mut others {
        assert!(poll!(other).is_pending());
    }
    assert_eq!((desk.sent(), desk.joined.get(), desk.flights.len()), (1, 4, 1));
    // Another question waits for nobody.
    let mut apart = pin!(desk.ask(2, Join::NotSent));
    assert!(poll!(&mut apart).is_pending());
    assert_eq!(desk.sent(), 2);
    desk.answers.add_permits(3);
    assert_eq!(first.await.unwrap(), 1);
    assert_eq!(apart.await.unwrap(), 2);
    for other in others {
        assert_eq!(other.await.unwrap(), 3);
    }
    assert_eq!((desk.sent(), desk.flights.len()), (3, 0));
}

#[tokio::test]
async fn what_never_changes_is_shared_on_its_way() {
    let desk = Desk::new();
    let mut first = Box::pin(desk.ask(1, Join::Any));
    let mut second = pin!(desk.ask(1, Join::Any));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    // Who asked first gives up: the question goes on.
    drop(first);
    desk.answers.add_permits(1);
    assert_eq!(second.await.unwrap(), 1);
    assert_eq!((desk.sent(), desk.joined.get(), desk.flights.len()), (1, 1, 0));
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_ends_and_the_next_one_is_sent() {
    let desk = Desk::new();
    let mut first = Box::pin(desk.ask(1, Join::NotSent));
    assert!(poll!(&mut first).is_pending());
    let mut second = Box::pin(desk.ask(1, Join::NotSent));
    let mut third = pin!(desk.ask(1, Join::NotSent));
    assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
    assert_eq!(desk.sent(), 1);
    // No answer ever comes to the first one.
    drop(first);
    drop(second);
    assert!(poll!(&mut third).is_pending());
    assert_eq!(desk.sent(), 2);
    desk.answers.add_permits(1);
    assert_eq!(third.await.unwrap(), 2);
    assert_eq!(desk.flights.len(), 0);
}

#[tokio::test]
async fn a_caller_that_is_not_polled_any_more_holds_nobody_up() {
    let desk = Desk::new();
    let mut first = pin!(desk.ask(1, Join::NotSent));
    assert!(poll!(&mut first).is_pending());
    desk.answers.add_permits(2);
    // The first one is waited for by nobody until the second one has its answer.
    assert_eq!(desk.ask(1, Join::NotSent).await.unwrap(), 2);
    assert_eq!(poll!(first).map(Result::unwrap), Poll::Ready(1));
}

#[tokio::test]
async fn an_error_reaches_all_and_the_next_question_is_a_new_one() {
    let desk = Desk::new();
    desk.sent.store(12, Ordering::Relaxed);
    let mut first = pin!(desk.ask(1, Join::Any));
    let mut second = pin!(desk.ask(1, Join::Any));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    desk.answers.add_permits(2);
    for answer in [first.await, second.await] {
        let error = answer.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("thirteen"), "{error}");
    }
    assert_eq!(desk.ask(1, Join::Any).await.unwrap(), 14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_never_get_an_answer_from_before_their_call() {
    let desk = Desk::new();
    desk.answers.add_permits(1_000_000);
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let desk = desk.clone();
            tokio::spawn(async move {
                for round in 0..500 {
                    let before = desk.sent();
                    if (task + round) % 7 == 0 {
                        // Begun and given up.
                        let mut given_up = Box::pin(desk.ask(1, Join::NotSent));
                        let _ = poll!(&mut given_up);
                        continue;
                    }
                    match desk.ask(1, Join::NotSent).await {
                        Ok(answer) => assert!(answer > before),
                        Err(error) => assert!(error.is_retryable()),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(desk.flights.len(), 0);
}
