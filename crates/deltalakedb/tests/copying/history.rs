//! Catalogs with a history, made by random operations.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use deltalakedb::core::action::Add;
use deltalakedb::core::audit::Act;
use deltalakedb::core::backend::CatalogBackendExt;
use deltalakedb::core::backend::{
    CatalogBackend, ClaimRequest, CommitOutcome, CommitRequest, ImportEnd, PublishFailure,
    Published, TableCommit,
};
use deltalakedb::core::ids::{CommitToken, TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb::core::model::{
    BaseChunk, BaseTail, MirrorMode, NewTable, TableRecord, TableState,
};
use deltalakedb_conformance::change::{Change, file, gone, metadata, new_table, protocol, with_dv};
use deltalakedb_conformance::env::all_files;
use uuid::Uuid;

use crate::same::tables;

/// Few names, so that dropped and live tables share them.
const NAMES: [&str; 5] = ["a", "b", "B", "c", "d"];

/// SplitMix64: the same numbers for the same seed, everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'t, T>(&mut self, items: &'t [T]) -> Option<&'t T> {
        let len = u64::try_from(items.len()).unwrap();
        items.get(usize::try_from(self.below(len)).unwrap())
    }
}

/// Writes to a catalog at random.
pub(crate) struct Writer {
    db: Arc<dyn CatalogBackend>,
    rng: Rng,
    now: i64,
    number: u64,
}

impl Writer {
    pub(crate) fn new(db: &Arc<dyn CatalogBackend>, seed: u64) -> Writer {
        Writer { db: Arc::clone(db), rng: Rng(seed), now: 1_000, number: 0 }
    }

    fn now(&mut self) -> TimestampMs {
        self.now += i64::try_from(self.rng.below(50)).unwrap();
        TimestampMs(self.now)
    }

    /// Lets some time pass, and says a time in the middle of it.
    pub(crate) fn pass(&mut self, ms: i64) -> TimestampMs {
        self.now += 2 * ms;
        TimestampMs(self.now - ms)
    }

    fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn add(&mut self) -> Add {
        let mut add = file(format!("f{}", self.rng.below(8)));
        add.size = i64::try_from(self.rng.below(1_000)).unwrap();
        add.stats = self.rng.one_in(2).then(|| r#"{"numRecords":1}"#.to_owned());
        let dv = self.rng.below(5);
        if dv < 2 { with_dv(add, &format!("dv{dv}")) } else { add }
    }

    fn adds(&mut self, most: u64) -> Vec<Add> {
        let mut keys = HashSet::new();
        let count = self.rng.below(most + 1);
        (0..count).map(|_| self.add()).filter(|add| keys.insert(add.key())).collect()
    }

    fn new_table(&mut self) -> NewTable {
        let n = self.number();
        let id = TableId(Uuid::from_u64_pair(n.wrapping_mul(0x9E37_79B9_7F4A_7C15), n));
        let name = *self.rng.pick(&NAMES).unwrap();
        let mut new = new_table(id, TableName::new("ns", name).unwrap());
        if self.rng.one_in(3) {
            new.mirror = MirrorMode::Off;
        }
        new.storage_options.insert("region".to_owned(), format!("r{n}"));
        new
    }

    async fn is_free(&self, name: &TableName) -> bool {
        self.db.get_table(&TableRef::Name(name.clone())).await.unwrap().is_none()
    }

    /// Actions that go with any commit.
    fn extras(&mut self, mut change: Change) -> Change {
        if self.rng.one_in(6) {
            change = change.metadata(metadata(&format!("m{}", self.rng.below(9))));
        }
        if self.rng.one_in(8) {
            change = change.protocol(protocol(2 + i32::try_from(self.rng.below(3)).unwrap()));
        }
        if self.rng.one_in(3) {
            let version = i64::try_from(self.rng.below(100)).unwrap();
            change = change.txn(&format!("app{}", self.rng.below(3)), version);
        }
        if self.rng.one_in(3) {
            let value = self.rng.one_in(2).then_some("{\"x\":1}");
            change = change.domain(&format!("d{}", self.rng.below(3)), value);
        }
        change
    }

    async fn change(&mut self, table: &TableRecord) -> Change {
        let files = all_files(&*self.db, table.id, table.head.unwrap(), 100).await.unwrap();
        let mut keys = BTreeSet::new();
        let mut change = Change::new();
        for _ in 0..self.rng.below(3) {
            if let Some(old) = self.rng.pick(&files)
                && keys.insert(old.add.key())
            {
                let at = self.rng.one_in(4).then_some(4_000);
                change = change.remove(gone(&old.add, at));
            }
        }
        for add in self.adds(4) {
            if keys.insert(add.key()) {
                change = change.add(add);
            }
        }
        self.extras(change)
    }

    /// A batch over one to three tables.
    async fn commit(&mut self) {
        let mut parts: Vec<TableCommit> = Vec::new();
        let active = tables(&*self.db, TableState::Active).await;
        let mut seen = HashSet::new();
        for _ in 0..=self.rng.below(3) {
            match self.rng.pick(&active).cloned() {
                Some(table) if !self.rng.one_in(6) => {
                    if seen.insert(table.name.clone()) {
                        let change = self.change(&table).await;
                        parts.push(change.exactly(table.id, table.head.unwrap()).unwrap());
                    }
                }
                _ => {
                    let new = self.new_table();
                    if self.is_free(&new.name).await && seen.insert(new.name.clone()) {
                        let change = self.adds(4).into_iter().fold(Change::new(), Change::add);
                        parts.push(self.extras(change).create(new).unwrap());
                    }
                }
            }
        }
        if parts.is_empty() {
            return;
        }
        let token = CommitToken::new(format!("token-{}", self.number())).unwrap();
        let request = CommitRequest { token, now: self.now(), tables: parts };
        match self.db.commit(request).await.unwrap() {
            CommitOutcome::Committed(_) => {}
            other => panic!("{other:?}"),
        }
    }

    /// A table of another engine, from a checkpoint or from its commits.
    async fn import(&mut self) {
        let new = self.new_table();
        if !self.is_free(&new.name).await {
            return;
        }
        let (db, id) = (Arc::clone(&self.db), new.id);
        let now = self.now();
        let from_json = self.rng.one_in(2);
        let base = if from_json { 0 } else { self.rng.below(6) };
        let base = i64::try_from(base).unwrap();
        let v = |n: i64| Version::new(n).unwrap();
        db.import_begin(&new, v(base), from_json, now).await.unwrap();
        let time = |version: i64| 100 + 10 * version;
        let mut first = base + 1;
        if from_json {
            first = 0;
        } else {
            let history = i64::try_from(self.rng.below(4)).unwrap();
            for version in (base + 1 - history).max(0)..=base {
                let change = self.adds(3).into_iter().fold(Change::new(), Change::add);
                let change = self.extras(change);
                let commit = change.imported(v(version), time(version)).unwrap();
                db.import_commits(id, vec![commit].into()).await.unwrap();
            }
            let files = self.adds(6);
            let keys: HashSet<_> = files.iter().map(Add::key).collect();
            let mut tombstones = self.adds(4);
            tombstones.retain(|add| !keys.contains(&add.key()));
            let tail = BaseTail {
                protocol: protocol(5),
                metadata: metadata("base"),
                txns: Vec::new(),
                domain_metadata: Vec::new(),
                timestamp: TimestampMs(time(base)),
            };
            let tombstones = tombstones.iter().map(|add| gone(add, Some(2_000))).collect();
            let chunk = BaseChunk { files, tombstones };
            db.import_base(id, 0, 0, chunk, Some(tail)).await.unwrap();
        }
        for version in first..first + 1 + i64::try_from(self.rng.below(5)).unwrap() {
            // Other engines may name a file twice, and remove what is not there.
            let mut change = Change::new();
            for _ in 0..self.rng.below(4) {
                change = change.add(self.add());
            }
            for _ in 0..self.rng.below(3) {
                let add = self.add();
                change = change.remove(gone(&add, Some(3_500)));
            }
            if version == 0 {
                change = change.protocol(protocol(2)).metadata(metadata("first"));
            }
            change = self.extras(change);
            let commit = change.imported(v(version), time(version)).unwrap();
            db.import_commits(id, vec![commit].into()).await.unwrap();
        }
        let head = db.get_table(&TableRef::Id(id)).await.unwrap().unwrap().head;
        let published = if self.rng.one_in(4) { None } else { head };
        let end = ImportEnd { published, ..ImportEnd::default() };
        db.import_finish(id, end, &Act::at(now)).await.unwrap();
    }

    /// A mirror worker publishes some, or fails.
    async fn publish(&mut self) {
        let now = self.now();
        let request = ClaimRequest {
            owner: "worker".to_owned(),
            now,
            lease_ms: 10,
            max_tables: 2,
            max_versions: 4,
            only: None,
        };
        for task in self.db.mirror_claim(&request).await.unwrap() {
            let count = usize::try_from(self.rng.below(5)).unwrap();
            let done: Vec<Published> = task
                .versions
                .iter()
                .take(count)
                .map(|version| Published { version: *version, digest: "d".to_owned(), at: now })
                .collect();
            assert!(self.db.mirror_complete(&task.lease, &done).await.unwrap());
            let failed = task.versions.get(count).filter(|_| self.rng.one_in(3));
            if let Some(version) = failed {
                let failure = PublishFailure {
                    version: *version,
                    error: "no".to_owned(),
                    retry_at: now.plus_ms(100),
                    diverged: self.rng.one_in(2),
                };
                assert!(self.db.mirror_fail(&task.lease, &failure).await.unwrap());
            } else {
                self.db.mirror_release(&task.lease).await.unwrap();
            }
        }
    }

    pub(crate) async fn step(&mut self) {
        let active = tables(&*self.db, TableState::Active).await;
        let table = self.rng.pick(&active).cloned();
        match (self.rng.below(20), table) {
            (0 | 1, Some(table)) => {
                let now = self.now();
                self.db.drop_table(table.id, &Act::at(now)).await.unwrap();
            }
            (2, _) => {
                let dropped = tables(&*self.db, TableState::Dropped).await;
                let name = *self.rng.pick(&NAMES).unwrap();
                let name = TableName::new("ns", name).unwrap();
                if let Some(table) = self.rng.pick(&dropped).cloned()
                    && self.is_free(&name).await
                {
                    self.db.undrop_table(table.id, &name, &Act::default()).await.unwrap();
                }
            }
            (3, Some(table)) => {
                let mode = if self.rng.one_in(2) { MirrorMode::Off } else { MirrorMode::Active };
                let now = self.now();
                self.db.mirror_set_mode(table.id, mode, &Act::at(now)).await.unwrap();
            }
            (4 | 5, _) => self.publish().await,
            (6 | 7, _) => self.import().await,
            _ => self.commit().await,
        }
    }

    pub(crate) async fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step().await;
        }
    }
}
