//! Long lists, read page by page: as pages are asked for, or some pages ahead of the reader.

use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Instrument;

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::model::Page;

/// Pages that are read or being read while nobody has asked for them, besides the one that waits to
/// be put there.
const AHEAD: usize = 1;

/// The pages of a list, one after another: each is read when it is asked for, and none after the first error. `page`
/// gives the page after a cursor.
pub fn each_page<'l, T, C, E, F>(
    page: impl FnMut(Option<C>) -> F + Send + 'l,
) -> BoxStream<'l, Result<Vec<T>, E>>
where
    T: Send + 'l,
    C: Send + 'l,
    E: Send + 'l,
    F: Future<Output = Result<Page<T, C>, E>> + Send + 'l,
{
    let pages = stream::try_unfold((Some(None), page), |(after, mut page)| async move {
        let Some(after) = after else { return Ok(None) };
        let Page { items, next } = page(after).await?;
        Ok(Some((items, (next.map(Some), page))))
    });
    pages.boxed()
}

/// A list in pages.
pub(crate) trait Pages: Send + Sync + 'static {
    type Item: Send + 'static;
    type Cursor: Clone + Send + Sync + 'static;

    /// The page after a position.
    fn page(
        &self,
        after: Option<Self::Cursor>,
    ) -> impl Future<Output = Result<Page<Self::Item, Self::Cursor>>> + Send;

    /// Where the page after a position ends, if that is known at much less cost than the page: then
    /// the next one is read at the same time.
    fn end(
        &self,
        _after: &Self::Cursor,
    ) -> impl Future<Output = Result<Option<Self::Cursor>>> + Send {
        async { Ok(None) }
    }
}

/// A task that ends with who waits for it.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Items<P> = Result<Vec<<P as Pages>::Item>>;

/// Pages after the first one.
enum Rest<P: Pages> {
    /// Outside of a runtime: each when it is asked for.
    Lazy(P::Cursor),
    /// Read by tasks of their own. They end, and give their connections back, whether or not anybody
    /// asks soon.
    Ahead(mpsc::Receiver<Task<Items<P>>>, Task<()>),
}

/// The items of all pages, in order.
pub(crate) fn pages<P: Pages>(list: P) -> BoxStream<'static, Result<P::Item>> {
    let list = Arc::new(list);
    let first = {
        let list = Arc::clone(&list);
        async move { list.page(None).await }.boxed()
    };
    stream::try_unfold(State::First(first), move |state| {
        let list = Arc::clone(&list);
        async move { step(list, state).await }
    })
    .map_ok(|items| stream::iter(items.into_iter().map(Ok)))
    .try_flatten()
    .boxed()
}

enum State<P: Pages> {
    First(BoxFuture<'static, Result<Page<P::Item, P::Cursor>>>),
    Rest(Rest<P>),
    End,
}

async fn step<P: Pages>(list: Arc<P>, state: State<P>) -> Result<Option<(Vec<P::Item>, State<P>)>> {
    match state {
        State::First(page) => {
            let page = page.await?;
            let rest = match (page.next, Handle::try_current()) {
                (None, _) => State::End,
                (Some(after), Err(_)) => State::Rest(Rest::Lazy(after)),
                (Some(after), Ok(runtime)) => {
                    let (sender, receiver) = mpsc::channel(AHEAD);
                    let reading =
                        Task(runtime.spawn(read_ahead(list, after, sender).in_current_span()));
                    State::Rest(Rest::Ahead(receiver, reading))
                }
            };
            Ok(Some((page.items, rest)))
        }
        State::Rest(Rest::Lazy(after)) => {
            let page = list.page(Some(after)).await?;
            let rest = page.next.map_or(State::End, |after| State::Rest(Rest::Lazy(after)));
            Ok(Some((page.items, rest)))
        }
        State::Rest(Rest::Ahead(mut receiver, mut reading)) => {
            // A task that panicked, or a runtime that ends: that must not pass for the end of the list.
            let broken_off = |error| {
                let text = format!("reading a list ahead ended early: {error}");
                CatalogError::failed(text, WriteState::NotApplied)
            };
            let Some(mut task) = receiver.recv().await else {
                return (&mut reading.0).await.map(|()| None).map_err(broken_off);
            };
            let items = (&mut task.0).await.map_err(broken_off)??;
            Ok(Some((items, State::Rest(Rest::Ahead(receiver, reading)))))
        }
        State::End => Ok(None),
    }
}

/// Reads the pages from a position on, the next one while the one before is being read if it is known
/// where that ends.
async fn read_ahead<P: Pages>(
    list: Arc<P>,
    mut after: P::Cursor,
    pages: mpsc::Sender<Task<Items<P>>>,
) {
    loop {
        let Ok(room) = pages.reserve().await else { return };
        let from = Some(after.clone());
        let end = list.end(&after).await;
        let list = Arc::clone(&list);
        match end {
            Ok(Some(end)) => {
                let items = async move { Ok(list.page(from).await?.items) };
                room.send(Task(tokio::spawn(items.in_current_span())));
                after = end;
            }
            Ok(None) => {
                let page = list.page(from).await;
                let (items, next) = match page {
                    Ok(page) => (Ok(page.items), page.next),
                    Err(error) => (Err(error), None),
                };
                room.send(Task(tokio::spawn(async { items })));
                let Some(next) = next else { return };
                after = next;
            }
            Err(error) => {
                room.send(Task(tokio::spawn(async { Err(error) })));
                return;
            }
        }
    }
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
