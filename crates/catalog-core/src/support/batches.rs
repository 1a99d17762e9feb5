//! Which commits of one token are of one batch.
//!
//! A batch has each place and each table once. A token that was forgotten may be used again, and what was taken over
//! from a catalog at two times, as a full and an incremental backup are, can have both batches. The older one was old
//! when it was forgotten, so that between the two nothing was committed for long.

use std::collections::HashSet;

use crate::backend::CommittedTable;
use crate::ids::TimestampMs;

/// The batches of one token, oldest first, each in the order of the places that come with the commits. It is one,
/// unless a place or a table is there twice.
#[must_use]
pub fn batches(mut written: Vec<(i64, CommittedTable)>) -> Vec<Vec<CommittedTable>> {
    let mut found = Vec::new();
    while is_mixed(&written) {
        written.sort_by_key(|(place, commit)| (commit.timestamp, *place));
        let gap = |at: usize| -> i64 {
            let time = |at: usize| written.get(at).map_or(TimestampMs(0), |(_, c)| c.timestamp).0;
            time(at).saturating_sub(time(at.saturating_sub(1)))
        };
        // Of equal ones the last: what is left is mixed less.
        let newest = (1..written.len()).max_by_key(|at| gap(*at)).unwrap_or(1);
        let rest = written.split_off(newest);
        found.append(&mut batches(std::mem::replace(&mut written, rest)));
    }
    written.sort_by_key(|(place, _)| *place);
    found.push(written.into_iter().map(|(_, commit)| commit).collect());
    found
}

/// The newest batch of a token.
#[must_use]
pub fn newest_batch(written: Vec<(i64, CommittedTable)>) -> Vec<CommittedTable> {
    batches(written).pop().unwrap_or_default()
}

fn is_mixed(written: &[(i64, CommittedTable)]) -> bool {
    let (mut places, mut tables) = (HashSet::new(), HashSet::new());
    !written.iter().all(|(place, commit)| places.insert(*place) && tables.insert(commit.table_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{TableId, Version};
    use uuid::Uuid;

    const DAY: i64 = 86_400_000;

    fn at(place: i64, table: u128, version: i64, time: i64) -> (i64, CommittedTable) {
        let table_id = TableId(Uuid::from_u128(table));
        let version = Version::new(version).unwrap();
        (place, CommittedTable { table_id, version, timestamp: TimestampMs(time) })
    }

    fn told(written: Vec<(i64, CommittedTable)>) -> Vec<Vec<i64>> {
        let versions = |batch: Vec<CommittedTable>| batch.iter().map(|c| c.version.get()).collect();
        batches(written).into_iter().map(versions).collect()
    }

    #[test]
    fn a_batch_is_one_however_far_apart_its_clocks_are() {
        assert_eq!(told(Vec::new()), [[0_i64; 0]]);
        assert_eq!(told(vec![at(0, 1, 5, 100)]), [[5]]);
        assert_eq!(told(vec![at(1, 2, 3, 100 * DAY), at(0, 1, 5, 7)]), [[5, 3]]);
    }

    #[test]
    fn a_token_that_was_used_again_is_of_two() {
        // The same table.
        assert_eq!(told(vec![at(0, 1, 5, 0), at(0, 1, 12, DAY)]), [[5], [12]]);
        // Others: the place tells. The clocks of a batch are some way apart.
        let both = vec![at(0, 1, 5, 0), at(1, 2, 3, 9), at(1, 3, 7, DAY), at(0, 4, 1, DAY + 20)];
        assert_eq!(told(both.clone()), [vec![5, 3], vec![1, 7]]);
        let newest: Vec<i64> = newest_batch(both).iter().map(|c| c.version.get()).collect();
        assert_eq!(newest, [1, 7]);
        // Again and again, and all at one time.
        let thrice = vec![at(0, 1, 3, 2 * DAY), at(0, 1, 1, 0), at(0, 1, 2, DAY)];
        assert_eq!(told(thrice), [[1], [2], [3]]);
        assert_eq!(told(vec![at(0, 1, 1, 0), at(0, 1, 2, 0)]).len(), 2);
    }
}
