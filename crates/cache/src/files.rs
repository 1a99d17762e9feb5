//! Lists of files: from memory, brought up to date, or from the database and then kept.

use std::sync::{Arc, PoisonError};

use deltalakedb_catalog_core::commit::index_ndjson;
use deltalakedb_catalog_core::error::ReadResult;
use deltalakedb_catalog_core::ids::{TableId, Version};
use deltalakedb_catalog_core::model::FileCursor;

use crate::entries::{Entry, Key, Seen, file};
use crate::flight::Join;
use crate::lists::FilePage;
use crate::lists::{Change, Chunk, Columns, FileList, Kept, Part, refresh};
use crate::state::State;
use crate::stats::CacheKind;
use crate::{CachedBackend, Source};

/// Pages of at most so many files are kept however long the list is.
const SHORT_PAGE: usize = 2_000;
/// Who asks for so many files at a time reads the list: then it pays to bring one up to date.
const LONG_PAGE: usize = 1_000;
/// Most commits that a list is brought up to date with: beyond, it is read anew.
const MAX_COMMITS: i64 = 256;
/// Most text in them, bytes: parsing more takes longer than reading a list of that length.
const MAX_TEXT_BYTES: u64 = 8 << 20;

impl CachedBackend {
    pub(crate) async fn cached_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<FilePage> {
        let inner = &self.source.inner;
        let Some(seen) = self.state.known(table_id, version) else {
            return inner.list_files(table_id, version, after, limit).await;
        };
        if let Some(page) = self.kept_page(table_id, version, after, limit.max(1)) {
            self.state.counters.asked(CacheKind::Files, true);
            return Ok(page);
        }
        self.state.counters.asked(CacheKind::Files, false);
        if self.lists
            && limit >= LONG_PAGE
            && let Some(list) = self.refreshed(table_id, version).await
        {
            return Ok(list.page(after, limit));
        }
        let (state, source) = (Arc::clone(&self.state), Arc::clone(&self.source));
        let lists = self.lists;
        let ask = move || async move {
            let page = source.inner.list_files(table_id, version, after, limit).await?;
            let last = state.keep_page((table_id, version), seen, after, limit, &page);
            if last && lists {
                state.assemble(table_id, version);
            }
            Ok(page)
        };
        let (key, joined) = ((table_id, version, after, limit), &self.state.counters.joined);
        self.state.pages.ask(key, Join::Any, joined, ask).await
    }

    /// The list of a version, if it is here and may answer.
    pub(crate) fn kept_list(&self, table_id: TableId, version: Version) -> Option<Arc<FileList>> {
        self.lists.then(|| self.state.list(table_id, version)).flatten()
    }

    fn kept_page(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Option<FilePage> {
        match self.kept_list(table_id, version) {
            Some(list) => Some(list.page(after, limit)),
            None => self.state.chunk(table_id, version, after)?.page(limit),
        }
    }

    /// A list at this version made of an older one; none if there is none, or it is too old.
    async fn refreshed(&self, table_id: TableId, version: Version) -> Option<Arc<FileList>> {
        let kept = self.state.lists(table_id)?;
        let behind = version.get().checked_sub(kept.newest.version.get()).filter(|n| *n > 0)?;
        let (state, source) = (Arc::clone(&self.state), Arc::clone(&self.source));
        let ask = move || async move {
            // It was brought up to date since this caller looked.
            if let Some(list) = state.lists(table_id).and_then(|kept| kept.at(version).cloned()) {
                return Ok(Some(list));
            }
            let list = if behind <= MAX_COMMITS {
                source.catch_up(table_id, &kept.newest, version).await
            } else {
                None
            };
            match &list {
                Some(list) => {
                    state.counters.refreshed.count();
                    state.keep_list(table_id, list);
                }
                // Whoever comes next would try in vain too.
                None => state.cache.invalidate(&Key::Lists(table_id)),
            }
            Ok(list)
        };
        let joined = &self.state.counters.joined;
        self.state.refreshes.ask((table_id, version), Join::Any, joined, ask).await.ok().flatten()
    }
}

impl Source {
    /// The list with all commits after it up to a version, which are read in one call. None if that does not
    /// work out: then the list is read from its rows, and if there is an error, that read has it too.
    async fn catch_up(
        &self,
        table_id: TableId,
        list: &FileList,
        version: Version,
    ) -> Option<Arc<FileList>> {
        let count = usize::try_from(version.get() - list.version.get()).ok()?;
        let from = list.version.next();
        let bodies = self.inner.read_bodies(table_id, from, version, count).await.ok()?;
        let text = bodies.iter().map(|(_, body)| body.rest.raw_len).sum::<u64>();
        let files = bodies.last().map(|(record, _)| record.total_files)?;
        if bodies.len() != count || text > MAX_TEXT_BYTES {
            return None;
        }
        let mut changes = Vec::with_capacity(count);
        let mut expected = from;
        for (record, body) in bodies {
            if record.version != expected {
                return None;
            }
            expected = expected.next();
            let text = body.published().ok()?;
            let index = index_ndjson("a stored commit", &text).ok()?;
            changes.push(Change { version: record.version, index });
        }
        // The database has counted them too.
        let list = refresh(list, changes)?;
        (u64::try_from(list.files()) == Ok(files)).then(|| Arc::new(list))
    }
}

impl State {
    fn lists(&self, table_id: TableId) -> Option<Kept> {
        match self.cache.get(&Key::Lists(table_id)) {
            Some(Entry::Lists(kept)) => Some(kept),
            _ => None,
        }
    }

    /// The list of a version, if it is here.
    pub(crate) fn list(&self, table_id: TableId, version: Version) -> Option<Arc<FileList>> {
        self.lists(table_id)?.at(version).cloned()
    }

    fn chunk(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
    ) -> Option<Arc<Chunk>> {
        match self.cache.get(&Key::Chunk(table_id, version, after)) {
            Some(Entry::Chunk(chunk)) => Some(chunk),
            _ => None,
        }
    }

    /// What all lists of one table may weigh, bytes.
    fn share_bytes(&self) -> usize {
        // The cache takes weights of 32 bits.
        let share = (self.capacity_bytes / 2).min(u64::from(u32::MAX));
        usize::try_from(share).unwrap_or(usize::MAX)
    }

    /// Keeps a page that the database gave. Whether all of the list may be here now.
    fn keep_page(
        &self,
        (table_id, version): (TableId, Version),
        seen: Seen,
        after: Option<FileCursor>,
        limit: usize,
        page: &FilePage,
    ) -> bool {
        // What is read once, and would push everything else out, passes by, and costs nothing.
        let whole = seen.files.and_then(|files| usize::try_from(files).ok());
        let fits = whole.is_some_and(|files| {
            let page_files = page.items.len();
            let per_file = page.items.iter().map(file).sum::<usize>() / page_files.max(1);
            per_file.saturating_mul(files.max(page_files)) <= self.share_bytes()
        });
        if !fits && limit > SHORT_PAGE {
            return false;
        }
        let Some(columns) = Columns::new(&page.items) else { return false };
        let chunk = Chunk { columns: Arc::new(columns), next: page.next };
        let next = chunk.next;
        let entry = Entry::Chunk(Arc::new(chunk));
        self.cache.insert(Key::Chunk(table_id, version, after), entry);
        // Pages may come in any order: the last one to come completes the list.
        next.is_none_or(|next| self.chunk(table_id, version, Some(next)).is_some())
    }

    fn assemble(&self, table_id: TableId, version: Version) {
        let (mut parts, mut keys) = (Vec::new(), Vec::new());
        let mut after = None;
        loop {
            let Some(chunk) = self.chunk(table_id, version, after) else { return };
            parts.push(Part::whole(Arc::clone(&chunk.columns)));
            keys.push(Key::Chunk(table_id, version, after));
            after = chunk.next;
            if after.is_none() {
                break;
            }
        }
        if self.keep_list(table_id, &Arc::new(FileList::new(version, parts))) {
            for key in keys {
                self.cache.invalidate(&key);
            }
        }
    }

    /// Keeps a list if it is a newer one; false if not.
    fn keep_list(&self, table_id: TableId, list: &Arc<FileList>) -> bool {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.lists(table_id).map(|kept| kept.newest);
        if before.as_ref().is_some_and(|before| before.version >= list.version)
            || list.weight() > self.share_bytes()
        {
            return false;
        }
        let mut kept = Kept { newest: Arc::clone(list), before };
        if kept.weight() > self.share_bytes() {
            kept.before = None;
        }
        self.cache.insert(Key::Lists(table_id), Entry::Lists(kept));
        true
    }
}
