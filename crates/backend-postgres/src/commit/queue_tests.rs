use std::collections::HashSet;

use deltalakedb_catalog_core::ids::{CommitToken, TimestampMs};
use deltalakedb_conformance::change::Change;
use deltalakedb_conformance::env::v;
use uuid::Uuid;

use super::*;

fn table(n: usize) -> TableId {
    TableId(Uuid::from_u128(u128::try_from(n).unwrap()))
}

/// An append of so many files; its token is its number.
fn append(table: TableId, number: usize, files: usize) -> Arc<CommitRequest> {
    let files: Vec<String> = (0..files).map(|file| format!("{number}-{file}")).collect();
    Arc::new(CommitRequest {
        token: CommitToken::new(number.to_string()).unwrap(),
        now: TimestampMs(1),
        tables: vec![Change::files(files).append(table, v(0)).unwrap()],
    })
}

fn number(waiting: &Waiting) -> usize {
    waiting.request.token.as_str().parse().unwrap()
}

/// Numbers of the commits of a turn, by table.
fn numbers(parts: &[TableAppends]) -> Vec<(TableId, Vec<usize>)> {
    parts.iter().map(|(table, waiting)| (*table, waiting.iter().map(number).collect())).collect()
}

/// Any numbers, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).unwrap()).unwrap()
    }
}

#[test]
fn a_table_waits_for_its_turn_and_goes_with_others() {
    let mut queue = Queue::new(1);
    assert!(queue.wait(table(0), &append(table(0), 0, 1)).is_none(), "its turn is now");
    let _told: Vec<_> = [(1, 1), (2, 2), (1, 3), (0, 4), (3, 5)]
        .map(|(n, number)| queue.wait(table(n), &append(table(n), number, 1)).unwrap())
        .into();
    let next = queue.end(&[table(0)], true, |other| other == table(2));
    assert_eq!(next.len(), 1);
    let want = [(table(1), vec![1, 3]), (table(3), vec![5]), (table(0), vec![4])];
    assert_eq!(numbers(&next[0]), want);
    // One that goes alone does so when it is the first.
    let next = queue.end(&[table(1), table(3), table(0)], true, |other| other == table(2));
    assert_eq!(next.len(), 1);
    assert_eq!(numbers(&next[0]), [(table(2), vec![2])]);
    // A turn that does not count leaves the others theirs.
    assert!(queue.end(&[table(2)], false, |_| false).is_empty());
    assert!(queue.wait(table(4), &append(table(4), 6, 1)).is_some());
}

#[test]
fn a_statement_has_a_bound() {
    let mut queue = Queue::new(1);
    assert!(queue.wait(table(0), &append(table(0), 0, 1)).is_none());
    let mut told = Vec::new();
    for number in 1..=10 {
        let n = 1 + number % 2;
        told.push(queue.wait(table(n), &append(table(n), number, 450)).unwrap());
    }
    let mut turns = Vec::new();
    let mut ended = vec![table(0)];
    while let [next] = queue.end(&ended, true, |_| false).as_slice() {
        turns.push(next.iter().map(|(_, waiting)| waiting.len()).sum::<usize>());
        ended = next.iter().map(|(table, _)| *table).collect();
    }
    assert_eq!(turns, [4, 4, 2], "at most 2,000 files");
}

#[test]
fn whatever_comes_each_goes_once_in_the_order_of_its_table() {
    for seed in 1..=40_u64 {
        let mut random = Random(seed * 7_919);
        let most = 1 + random.below(4);
        let mut queue = Queue::new(most);
        let mut turns: Vec<Vec<TableId>> = Vec::new();
        let (mut came, mut told) = (0, Vec::new());
        let (mut waits, mut gone) = (0, 0);
        let mut last: HashMap<TableId, usize> = HashMap::new();
        let mut steps = 0;
        while steps < 500 || !turns.is_empty() {
            steps += 1;
            let at: HashSet<TableId> = turns.iter().flatten().copied().collect();
            if steps < 500 && random.below(3) > 0 {
                let table = table(random.below(7));
                came += 1;
                let files = 1 + random.below(3);
                if let Some(answer) = queue.wait(table, &append(table, came, files)) {
                    told.push(answer);
                    waits += 1;
                } else {
                    assert!(!at.contains(&table), "seed {seed}: two at a table");
                    turns.push(vec![table]);
                    assert!(turns.len() <= most, "seed {seed}");
                }
                continue;
            }
            if turns.is_empty() {
                continue;
            }
            let ended = turns.swap_remove(random.below(turns.len()));
            let alone = table(random.below(7));
            for next in queue.end(&ended, true, |other| other == alone) {
                let at: HashSet<TableId> = turns.iter().flatten().copied().collect();
                assert!(next.len() == 1 || next.iter().all(|(table, _)| *table != alone));
                for (table, waiting) in &next {
                    assert!(!at.contains(table), "seed {seed}: two at a table");
                    assert!(!waiting.is_empty(), "seed {seed}: a turn for nobody");
                    for waiting in waiting {
                        let before = last.insert(*table, number(waiting));
                        assert!(before.is_none_or(|before| before < number(waiting)));
                        gone += 1;
                    }
                }
                turns.push(next.iter().map(|(table, _)| *table).collect());
            }
            assert!(turns.len() <= most, "seed {seed}");
        }
        assert_eq!(gone, waits, "seed {seed}: somebody waits for ever");
        assert!(queue.tables.is_empty() && queue.ready.is_empty() && queue.running == 0);
    }
}
