//! Carries operations out on both sides and compares the answers.

use std::collections::BTreeSet;
use std::fmt::Debug;

use deltalakedb_catalog_core::action::Add;
use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{
    CatalogBackend, CommitFilter, CommitOutcome, CommitRequest, CommitTarget, Expiry, MirrorLease,
    TableCommit, TableFilter,
};
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{
    MirrorMode, NewTable, TableRecord, TableState, TombstoneRecord,
};
use deltalakedb_catalog_engine::memory::MemoryBackend;
use uuid::Uuid;

use super::ops::{Edit, File, Op, Pick, Remove, Rule, Target};
use crate::change::{Change, file, gone, metadata, new_table, protocol, with_dv};
use crate::env::{TableDump, all_commits, all_files, all_rows, all_tombstones, dump};

/// Few enough to meet, and out of order.
const NAMES: [(&str, &str); 8] = [
    ("a", "u"),
    ("b", "t"),
    ("a.b", "x"),
    ("a", "t"),
    ("A", "t"),
    ("a", "v"),
    ("b", "w"),
    ("a%", "_"),
];
/// Every so often an operation goes where it must be refused.
const ASTRAY: Pick = 12;

/// An operation that found a difference says which.
pub(super) type Step<T = ()> = std::result::Result<T, String>;

/// Both sides, and what was done on them.
pub(super) struct World<'a> {
    pub(super) reference: MemoryBackend,
    pub(super) db: &'a dyn CatalogBackend,
    now: i64,
    counter: u64,
    tables: Vec<TableId>,
    tokens: Vec<CommitToken>,
    /// The same lease as each side gave it: their epochs may count differently.
    pub(super) leases: Vec<(MirrorLease, MirrorLease)>,
}

/// What two backends must agree on in an error: its kind and its values, not its text.
fn kind(error: &CatalogError) -> String {
    match error {
        CatalogError::VersionNotFound { earliest, latest, .. } => {
            format!("VersionNotFound {earliest} to {latest}")
        }
        CatalogError::TableExists(name) => format!("TableExists {name}"),
        CatalogError::TableNotFound(_) => "TableNotFound".to_owned(),
        CatalogError::InvalidInput(_) => "InvalidInput".to_owned(),
        CatalogError::Corrupt(_) => "Corrupt".to_owned(),
        other => format!("{other:?}"),
    }
}

pub(super) fn same<T: PartialEq + Debug, E: Into<CatalogError>>(
    reference: Result<T, E>,
    db: Result<T, E>,
) -> Step<Option<T>> {
    match (reference.plain(), db.plain()) {
        (Ok(want), Ok(got)) if want == got => Ok(Some(got)),
        (Err(want), Err(got)) if kind(&want) == kind(&got) => Ok(None),
        (want, got) => Err(difference(&format!("{want:?}"), &format!("{got:?}"))),
    }
}

/// Two texts from shortly before where they part.
fn difference(want: &str, got: &str) -> String {
    let common = want.chars().zip(got.chars()).take_while(|(w, g)| w == g).count();
    let excerpt = |text: &str| -> String {
        let start = common.saturating_sub(120);
        let dots = if start == 0 { "" } else { "…" };
        let part: String = text.chars().skip(start).take(600).collect();
        format!("{dots}{part}")
    };
    format!("different answers\n  reference: {}\n  backend:   {}", excerpt(want), excerpt(got))
}

/// Where a tombstone without a file stands is each backend's own: they are compared by file.
fn comparable(mut tombstones: Vec<TombstoneRecord>) -> Vec<TombstoneRecord> {
    tombstones.sort_by_key(|t| t.remove.key());
    if let Some(first) = tombstones.first().map(|t| t.cursor) {
        for tombstone in &mut tombstones {
            tombstone.cursor = first;
            tombstone.cursor.ordinal = 0;
            tombstone.cursor.added_version = Version::ZERO;
        }
    }
    tombstones
}

fn comparable_dump(mut dump: TableDump) -> TableDump {
    dump.tombstones = comparable(dump.tombstones);
    dump
}

pub(super) fn table_name(pick: Pick) -> TableName {
    let (namespace, table) = NAMES[usize::from(pick) % NAMES.len()];
    TableName::new(namespace, table).expect("a valid name")
}

pub(super) fn version(number: i64) -> Version {
    Version::new(number.max(0)).unwrap_or_default()
}

pub(super) fn choose<T>(items: &[T], pick: Pick) -> Option<&T> {
    items.get(usize::from(pick).checked_rem(items.len())?)
}

pub(super) fn add(file_: File) -> Add {
    let mut add = file(format!("f{}", file_.path));
    add.size = i64::from(file_.size);
    if file_.dv == 0 { add } else { with_dv(add, &format!("dv{}", file_.dv)) }
}

impl<'a> World<'a> {
    pub(super) async fn new(db: &'a dyn CatalogBackend) -> Step<Self> {
        db.migrate(TimestampMs(0)).await.map_err(|e| e.to_string())?;
        let mut world = World {
            reference: MemoryBackend::new(),
            db,
            now: 1_000_000,
            counter: 0,
            tables: Vec::new(),
            tokens: Vec::new(),
            leases: Vec::new(),
        };
        // Two tables to begin with: sequences are short.
        let edit = Edit {
            adds: vec![File { path: 0, dv: 0, size: 1 }],
            removes: Vec::new(),
            metadata: None,
            protocol: None,
            txn: None,
            domain: None,
        };
        let create = |name| (Target::Create { name, off: false }, edit.clone());
        world.commit(None, &[create(1), create(2)]).await?;
        Ok(world)
    }

    /// Carries out one call on both sides.
    pub(super) async fn both<T: PartialEq + Debug, E: Into<CatalogError>>(
        &self,
        call: impl AsyncFn(&dyn CatalogBackend) -> Result<T, E>,
    ) -> Step<Option<T>> {
        let want = call(&self.reference).await;
        same(want, call(self.db).await)
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn now(&self) -> TimestampMs {
        TimestampMs(self.now)
    }

    /// Mostly an active table, sometimes a dropped or importing one or an id of nothing.
    pub(super) async fn table(&self, pick: Pick) -> TableId {
        let mut some = vec![TableId(Uuid::from_u128(1))];
        some.extend(&self.tables);
        if !pick.is_multiple_of(ASTRAY)
            && let Some(table) = choose(&self.in_state(TableState::Active).await, pick)
        {
            return table.id;
        }
        choose(&some, pick / ASTRAY).copied().unwrap_or(some[0])
    }

    pub(super) async fn in_state(&self, state: TableState) -> Vec<TableRecord> {
        let filter = TableFilter { namespace: None, state: Some(state) };
        self.reference.list_tables(&filter, None, 1_000).await.map(|p| p.items).unwrap_or_default()
    }

    /// Mostly a name that is free.
    async fn name(&self, pick: Pick) -> TableName {
        for offset in 0..u8::try_from(NAMES.len()).unwrap_or(0) {
            let name = table_name(pick.wrapping_add(offset));
            let taken = self.reference.get_table(&TableRef::Name(name.clone())).await;
            if pick.is_multiple_of(ASTRAY) || taken.ok().flatten().is_none() {
                return name;
            }
        }
        table_name(pick)
    }

    pub(super) async fn record(&self, id: TableId) -> Option<TableRecord> {
        self.reference.get_table(&TableRef::Id(id)).await.ok().flatten()
    }

    /// A version counted down from the head.
    async fn behind(&self, id: TableId, behind: i64) -> Version {
        let head = self.record(id).await.and_then(|r| r.head).unwrap_or_default();
        version(head.get().saturating_sub(behind))
    }

    pub(super) async fn new_table(&mut self, name: Pick, off: bool) -> NewTable {
        let n = self.next();
        let id = TableId(Uuid::from_u64_pair(n.wrapping_mul(0x9E37_79B9_7F4A_7C15), n));
        self.tables.push(id);
        let mut new = new_table(id, self.name(name).await);
        new.mirror = if off { MirrorMode::Off } else { MirrorMode::Active };
        new
    }

    /// A lease that was given out before, maybe lost by now.
    pub(super) fn lease(&self, pick: Pick) -> Option<(MirrorLease, MirrorLease)> {
        choose(&self.leases, pick).cloned()
    }

    /// The actions of an edit. A commit of our own has each file once; other engines may not.
    pub(super) async fn change(&self, id: Option<TableId>, edit: &Edit, once: bool) -> Change {
        let active = match id {
            Some(id) => {
                let head = self.behind(id, 0).await;
                self.reference.list_files(id, head, None, 1_000).await.map(|p| p.items)
            }
            None => Ok(Vec::new()),
        }
        .unwrap_or_default();
        let mut seen = BTreeSet::new();
        let mut change = Change::new();
        for (which, deleted_at) in &edit.removes {
            let removed = match which {
                Remove::Active(pick) => choose(&active, *pick).map(|f| f.add.clone()),
                Remove::Any(file) => Some(add(*file)),
            };
            if let Some(removed) = removed
                && (seen.insert(removed.key()) || !once)
            {
                let mut remove = gone(&removed, deleted_at.map(i64::from));
                if deleted_at.is_none() {
                    remove.size = None;
                }
                change = change.remove(remove);
            }
        }
        for file in &edit.adds {
            let file = add(*file);
            if seen.insert(file.key()) || !once {
                change = change.add(file);
            }
        }
        if let Some(pick) = edit.metadata {
            change = change.metadata(metadata(&format!("m{pick}")));
        }
        if let Some(pick) = edit.protocol {
            change = change.protocol(protocol(i32::from(pick)));
        }
        if let Some((app, at)) = edit.txn {
            change = change.txn(&format!("app{app}"), i64::from(at));
        }
        if let Some((domain, value)) = edit.domain {
            let value = value.map(|v| format!("{{\"v\":{v}}}"));
            change = change.domain(&format!("d{domain}"), value.as_deref());
        }
        change
    }

    async fn part(&mut self, target: Target, edit: &Edit) -> Step<TableCommit> {
        let part = match target {
            Target::Create { name, off } => {
                let new = self.new_table(name, off).await;
                let edit = Edit { removes: Vec::new(), ..edit.clone() };
                self.change(None, &edit, true).await.create(new)
            }
            Target::Existing { table, rule } => {
                let id = self.table(table).await;
                let change = self.change(Some(id), edit, true).await;
                match rule {
                    Rule::Head => change.exactly(id, self.behind(id, 0).await),
                    Rule::Behind(n) => change.exactly(id, self.behind(id, i64::from(n)).await),
                    Rule::Ahead(n) => change.exactly(id, self.behind(id, -i64::from(n)).await),
                    Rule::Append(n) => change.append(id, self.behind(id, i64::from(n)).await),
                }
            }
        };
        part.map_err(|e| e.to_string())
    }

    /// Carries out an operation.
    pub(super) async fn step(&mut self, op: &Op) -> Step {
        match op {
            Op::Tick(ms) => self.now = self.now.saturating_add(i64::from(*ms)),
            Op::Commit { old_token, parts } => self.commit(*old_token, parts).await?,
            Op::Drop(table) => {
                let (id, now) = (self.table(*table).await, self.now());
                self.both(async |db| db.drop_table(id, &Act::at(now)).await).await?;
            }
            Op::Undrop { table, name } => {
                let dropped = self.in_state(TableState::Dropped).await;
                let (id, old) = match choose(&dropped, *table) {
                    Some(table) => (table.id, table.name.clone()),
                    None => (self.table(*table).await, table_name(0)),
                };
                let name = match name {
                    Some(pick) => self.name(*pick).await,
                    None => old,
                };
                self.both(async |db| db.undrop_table(id, &name, &Act::default()).await).await?;
            }
            Op::Resolve(token) => {
                if let Some(token) = choose(&self.tokens, *token) {
                    self.both(async |db| db.resolve_token(token).await).await?;
                }
            }
            Op::ExpireTokens { before, limit, dry_run } => {
                let expiry = self.expiry(*before, *limit, *dry_run);
                self.expire_tokens(expiry).await?;
            }
            Op::ImportBegin { .. }
            | Op::ImportBase { .. }
            | Op::ImportCommits { .. }
            | Op::ImportFinish(_)
            | Op::ImportAbort(_) => self.import(op).await?,
            Op::Claim { .. }
            | Op::Complete { .. }
            | Op::Fail { .. }
            | Op::Renew { .. }
            | Op::Release(_)
            | Op::Rows { .. }
            | Op::Expire { .. }
            | Op::Retry(_)
            | Op::SetMode { .. } => self.outbox(op).await?,
            Op::RegistryWrite(_) | Op::RegistryRead { .. } => self.registry(op).await?,
            read => self.read(read).await?,
        }
        Ok(())
    }

    pub(super) fn expiry(&self, before: i16, limit: Pick, dry_run: bool) -> Expiry {
        Expiry { before: self.now().plus_ms(before.into()), limit: limit.into(), dry_run }
    }

    /// Page by page: each looks at the same tokens on both sides.
    async fn expire_tokens(&self, expiry: Expiry) -> Step {
        let mut after = None;
        loop {
            let page = self.both(async |db| db.expire_tokens(expiry, after.as_ref()).await).await?;
            match page.and_then(|page| page.next) {
                None => return Ok(()),
                next => after = next,
            }
        }
    }

    async fn commit(&mut self, old: Option<Pick>, parts: &[(Target, Edit)]) -> Step {
        let mut tables: Vec<TableCommit> = Vec::new();
        let mut seen = BTreeSet::new();
        for (target, edit) in parts {
            let part = self.part(*target, edit).await?;
            let fresh = match &part.target {
                CommitTarget::Existing { table_id, .. } => seen.insert(*table_id),
                CommitTarget::Create(_) => true,
            };
            // A table that occurs twice is invalid: worth a try now and then.
            if fresh || self.counter.is_multiple_of(16) {
                tables.push(part);
            }
        }
        let old = old.and_then(|pick| choose(&self.tokens, pick).cloned());
        let token = if let Some(token) = old {
            token
        } else {
            let token = CommitToken::new(format!("token-{}", self.next()));
            let token = token.map_err(|e| e.to_string())?;
            self.tokens.push(token.clone());
            token
        };
        let request = CommitRequest { token, now: self.now(), tables };
        let outcome = self.both(async |db| db.commit(request.clone()).await).await?;
        if let Some(CommitOutcome::Committed(written)) = outcome {
            let ids = written.into_iter().map(|w| w.table_id).collect::<Vec<_>>();
            for id in ids {
                let record = self.both(async |db| db.get_table(&TableRef::Id(id)).await).await?;
                if record.flatten().is_none() {
                    return Err(format!("table {id} was written and is not there"));
                }
            }
        }
        Ok(())
    }

    async fn read(&self, op: &Op) -> Step {
        match op {
            Op::Snapshot { table, behind, by_name } => {
                let id = self.table(*table).await;
                let at = At::Version(self.behind(id, i64::from(*behind)).await);
                let at = if *behind == 0 { At::Head } else { at };
                let table: TableRef = match self.record(id).await {
                    Some(record) if *by_name => record.name.into(),
                    _ => id.into(),
                };
                self.both(async |db| db.snapshot(&table, at).await).await?;
            }
            Op::SnapshotAt { table, behind, offset } => {
                let id = self.table(*table).await;
                let near = At::Version(self.behind(id, i64::from(*behind)).await);
                let near = self.reference.snapshot(&id.into(), near).await;
                let near = near.map_or(TimestampMs(0), |s| s.timestamp);
                let at = At::Timestamp(near.plus_ms(i64::from(*offset)));
                self.both(async |db| db.snapshot(&id.into(), at).await).await?;
            }
            Op::Files { table, behind, limit } => {
                let id = self.table(*table).await;
                let at = self.behind(id, i64::from(*behind)).await;
                let limit = usize::from(*limit);
                self.both(async |db| all_files(db, id, at, limit).await).await?;
            }
            Op::Tombstones { table, behind, limit, deleted_after } => {
                let id = self.table(*table).await;
                let at = self.behind(id, i64::from(*behind)).await;
                let after = TimestampMs(i64::from(*deleted_after));
                let limit = usize::from(*limit);
                self.both(async |db| {
                    all_tombstones(db, id, at, after, limit).await.map(comparable)
                })
                .await?;
                self.both(async |db| db.app_transactions(id, at).await).await?;
                self.both(async |db| db.domain_metadata(id, at).await).await?;
            }
            Op::Commits { table, from, to, time, limit } => {
                let id = self.table(*table).await;
                let filter = CommitFilter {
                    from_version: from.map(|v| version(i64::from(v))),
                    to_version: to.map(|v| version(i64::from(v))),
                    from_time: time.filter(|t| t % 2 == 0).map(|t| self.now().plus_ms(t.into())),
                    to_time: time.filter(|t| t % 2 != 0).map(|t| self.now().plus_ms(t.into())),
                };
                let limit = usize::from(*limit);
                self.both(async |db| all_commits(db, id, &filter, limit).await).await?;
            }
            Op::Bodies { table, from, count, limit } => {
                let id = self.table(*table).await;
                let (from, to) = (i64::from(*from), i64::from(*from) + i64::from(*count));
                let limit = usize::from(*limit);
                self.both(async |db| db.read_bodies(id, version(from), version(to), limit).await)
                    .await?;
            }
            Op::Tables { state, namespace, limit } => {
                let filter = TableFilter {
                    namespace: namespace.map(|n| if n == 0 { "a" } else { "b" }.to_owned()),
                    state: match state {
                        0 => None,
                        1 => Some(TableState::Active),
                        2 => Some(TableState::Dropped),
                        _ => Some(TableState::Importing),
                    },
                };
                self.tables(&filter, usize::from(*limit)).await?;
            }
            other => return Err(format!("{other:?} is not a read")),
        }
        Ok(())
    }

    /// Tables in pages.
    async fn tables(&self, filter: &TableFilter, limit: usize) -> Step {
        let mut after = None;
        loop {
            let page =
                self.both(async |db| db.list_tables(filter, after.as_ref(), limit).await).await?;
            match page.and_then(|p| p.next) {
                None => return Ok(()),
                next => after = next,
            }
        }
    }

    /// The state at the end: all tables, all versions, all tokens, the whole outbox.
    pub(super) async fn compare_everything(&self) -> Step {
        for state in [TableState::Active, TableState::Dropped, TableState::Importing] {
            let filter = TableFilter { namespace: None, state: Some(state) };
            self.tables(&filter, 3).await.map_err(|e| format!("at the end, {state:?}: {e}"))?;
        }
        for token in &self.tokens {
            self.both(async |db| db.resolve_token(token).await)
                .await
                .map_err(|e| format!("at the end, {token}: {e}"))?;
        }
        for id in self.tables.iter().copied() {
            self.compare_table(id).await.map_err(|e| format!("at the end, table {id}: {e}"))?;
        }
        self.both(async |db| all_rows(db, None, None, 5).await)
            .await
            .map_err(|e| format!("at the end, outbox: {e}"))?;
        self.compare_registry().await.map_err(|e| format!("at the end, the registry: {e}"))
    }

    async fn compare_table(&self, id: TableId) -> Step {
        let Some(record) = self.record(id).await else {
            self.both(async |db| db.get_table(&id.into()).await).await?;
            return Ok(());
        };
        self.both(async |db| dump(db, id).await.map(comparable_dump)).await?;
        let (Some(head), false) = (record.head, record.state == TableState::Importing) else {
            return Ok(());
        };
        for at in (record.base_version.get()..=head.get()).map(version) {
            let differs = |e: String| format!("version {at}: {e}");
            self.both(async |db| db.snapshot(&id.into(), At::Version(at)).await)
                .await
                .map_err(differs)?;
            self.both(async |db| all_files(db, id, at, 9).await).await.map_err(differs)?;
            self.both(async |db| {
                let all = all_tombstones(db, id, at, TimestampMs(0), 9).await;
                all.map(comparable)
            })
            .await
            .map_err(differs)?;
            self.both(async |db| db.app_transactions(id, at).await).await.map_err(differs)?;
            self.both(async |db| db.domain_metadata(id, at).await).await.map_err(differs)?;
        }
        Ok(())
    }
}
