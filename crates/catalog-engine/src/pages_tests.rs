use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Numbers below `count`, in pages of ten.
#[derive(Debug, Default)]
struct Numbers {
    count: usize,
    /// Whether ends are known.
    ends: bool,
    /// Page that fails, by its first number.
    broken: Option<usize>,
    /// The same, but it panics.
    panics: Option<usize>,
    began: Arc<Mutex<Vec<usize>>>,
    at_work: Arc<AtomicUsize>,
    most_at_work: Arc<AtomicUsize>,
}

const SIZE: usize = 10;

/// Lets all other tasks get as far as they can. On the one thread of these tests, where nothing waits for time
/// or for the world, that is a matter of turns: each turn, every task that can go on does.
async fn all_others() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

impl Pages for Numbers {
    type Item = usize;
    type Cursor = usize;

    async fn page(&self, after: Option<usize>) -> Result<Page<usize, usize>> {
        let first = after.map_or(0, |after| after + 1);
        self.began.lock().unwrap().push(first);
        let at_work = self.at_work.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_work.fetch_max(at_work, Ordering::SeqCst);
        if Handle::try_current().is_ok() {
            all_others().await;
        }
        self.at_work.fetch_sub(1, Ordering::SeqCst);
        assert!(self.panics != Some(first), "as a test");
        if self.broken == Some(first) {
            return Err(CatalogError::invalid("broken"));
        }
        let items: Vec<usize> = (first..self.count.min(first + SIZE)).collect();
        let next = items.last().copied().filter(|last| last + 1 < self.count);
        Ok(Page { items, next })
    }

    async fn end(&self, after: &usize) -> Result<Option<usize>> {
        let end = after + SIZE;
        Ok(Some(end).filter(|end| self.ends && *end < self.count))
    }
}

#[tokio::test]
async fn pages_are_read_as_they_are_asked_for_until_one_fails() {
    for (count, broken, want) in
        [(0, None, vec![0]), (25, None, vec![10, 10, 5]), (25, Some(20), vec![10, 10])]
    {
        let list = Numbers { count, broken, ..Numbers::default() };
        let mut pages = each_page(|after| list.page(after));
        assert_eq!(*list.began.lock().unwrap(), [0_usize; 0], "nobody has asked");
        for (number, size) in want.iter().enumerate() {
            let page = pages.try_next().await.unwrap().unwrap();
            assert_eq!((page.len(), list.began.lock().unwrap().len()), (*size, number + 1));
        }
        assert_eq!(pages.try_next().await.is_err(), broken.is_some());
        assert!(pages.try_next().await.unwrap().is_none(), "it has ended");
    }
}

#[tokio::test]
async fn every_item_comes_once_in_order() {
    for ends in [false, true] {
        for count in [0, 1, 9, 10, 11, 20, 21, 95, 100, 101] {
            let list = Numbers { count, ends, ..Numbers::default() };
            let found: Vec<usize> = pages(list).try_collect().await.unwrap();
            assert_eq!(found, (0..count).collect::<Vec<_>>(), "{count}, {ends}");
        }
    }
}

#[test]
fn without_a_runtime_pages_are_read_when_they_are_asked_for() {
    let list = Numbers { count: 35, ..Numbers::default() };
    let began = Arc::clone(&list.began);
    let found: Vec<usize> = futures::executor::block_on(pages(list).try_collect()).unwrap();
    assert_eq!(found, (0..35).collect::<Vec<_>>());
    assert_eq!(*began.lock().unwrap(), [0, 10, 20, 30]);
}

#[tokio::test]
async fn pages_whose_ends_are_known_are_read_at_once() {
    for (ends, most) in [(false, 1), (true, 2)] {
        let list = Numbers { count: 100, ends, ..Numbers::default() };
        let at_work = Arc::clone(&list.most_at_work);
        let _: Vec<usize> = pages(list).try_collect().await.unwrap();
        let found = at_work.load(Ordering::SeqCst);
        assert!(found >= most && found <= 3 && (ends || found == 1), "{ends}: {found}");
    }
}

/// Until no more pages are begun, in many more turns than a page takes.
async fn settled(began: &Mutex<Vec<usize>>) {
    let begun = || began.lock().unwrap().len();
    loop {
        let before = begun();
        for _ in 0..20 {
            all_others().await;
        }
        if begun() == before {
            return;
        }
    }
}

#[tokio::test]
async fn reading_ahead_is_bounded_and_ends_with_the_list() {
    for ends in [false, true] {
        let list = Numbers { count: 1_000, ends, ..Numbers::default() };
        let began = Arc::clone(&list.began);
        let mut stream = pages(list);
        assert_eq!(stream.try_next().await.unwrap(), Some(0));
        settled(&began).await;
        // The first one, one that is ready and, if need be, one that waits for its place.
        let ahead = began.lock().unwrap().len();
        assert!((2..=3).contains(&ahead), "{ends}: {ahead}");
        drop(stream);
        settled(&began).await;
        assert_eq!(began.lock().unwrap().len(), ahead, "{ends}: goes on reading for nobody");
    }
}

#[tokio::test]
async fn an_error_comes_after_the_items_before_it() {
    for ends in [false, true] {
        let list = Numbers { count: 100, ends, broken: Some(30), ..Numbers::default() };
        let mut stream = pages(list);
        for n in 0..30 {
            assert_eq!(stream.try_next().await.unwrap(), Some(n));
        }
        let error = stream.try_next().await.unwrap_err().to_string();
        assert!(error.contains("broken"), "{error}");
    }
}

#[tokio::test]
async fn a_page_that_panics_is_no_end_of_the_list() {
    for ends in [false, true] {
        let list = Numbers { count: 100, ends, panics: Some(30), ..Numbers::default() };
        let found: Result<Vec<usize>> = pages(list).try_collect().await;
        let error = found.unwrap_err().to_string();
        assert!(error.contains("ended early"), "{ends}: {error}");
    }
}
