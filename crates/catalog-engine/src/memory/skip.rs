//! Skipping indexes.

use std::collections::BTreeMap;

use bytes::Bytes;

use deltalakedb_catalog_core::model::{NewSkipSegment, SkipIndex, SkipPage, SkipSegment};

/// Of one table.
#[derive(Debug, Clone, Default)]
pub(super) struct SkipState {
    generation: i64,
    segments: BTreeMap<i64, NewSkipSegment>,
}

impl SkipState {
    pub(super) fn index(&self) -> SkipIndex {
        let mut segments: Vec<_> = self
            .segments
            .iter()
            .map(|(id, segment)| SkipSegment {
                id: *id,
                after: segment.after,
                through: segment.through,
                version: segment.version,
                files: segment.files,
                root: segment.root.clone(),
            })
            .collect();
        segments.sort_by_key(|segment| segment.through);
        SkipIndex { generation: self.generation, segments, complete_to: None }
    }

    pub(super) fn page(&self, page: SkipPage) -> Option<Bytes> {
        let number = usize::try_from(page.page).ok()?;
        self.segments.get(&page.segment)?.pages.get(number).cloned()
    }

    pub(super) fn replace(
        &mut self,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> bool {
        if generation != self.generation {
            return false;
        }
        self.generation += 1;
        for id in remove {
            self.segments.remove(id);
        }
        self.segments.insert(self.generation, segment.clone());
        true
    }
}
