//! Imports: begin, commits, finish, abort.

use std::fmt::Debug;

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::{CatalogBackendExt, in_memory};
use deltalakedb_catalog_core::backend::{CommitOutcome, ImportedCommit, Rejection, TableFilter};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs};
use deltalakedb_catalog_core::later::{LargeCommit, read_large_by};
use deltalakedb_catalog_core::model::{BaseChunk, BaseTail, MirrorMode, TableState};

use super::cases;
use crate::change::{Change, file, gone, metadata, protocol};
use crate::env::{CaseResult, Env, committed, fail, finish_import, name, v};

/// The small rest of a base.
pub(super) fn tail(timestamp: i64) -> BaseTail {
    BaseTail {
        protocol: protocol(2),
        metadata: metadata("base"),
        txns: Vec::new(),
        domain_metadata: Vec::new(),
        timestamp: TimestampMs(timestamp),
    }
}

/// Files `{prefix}0`, `{prefix}1`, …
pub(super) fn chunk(prefix: &str, files: usize) -> BaseChunk {
    let files = (0..files).map(|i| file(format!("{prefix}{i}"))).collect();
    BaseChunk { files, tombstones: Vec::new() }
}

/// A finished import: base 10 at the time 1000 with five files, history from 7 on, head 12 at 1200.
pub(super) async fn imported_at_base_ten(env: &Env) -> CaseResult<TableId> {
    let new = env.new_table("imported");
    let (db, id) = (env.db(), new.id);
    db.import_begin(&new, v(10), false, env.now()).await?;
    db.import_base(id, 0, 0, chunk("base", 5), Some(tail(1_000))).await?;
    let mut commits = Vec::new();
    for version in 7..=12 {
        let change = Change::files([format!("f{version}")]);
        commits.push(change.imported(v(version), version * 100)?);
    }
    db.import_commits(id, commits.into()).await?;
    finish_import(db, id, env.now()).await?;
    Ok(id)
}

/// An import from JSON, with versions 0 to `head` at the times 0, 100, …
async fn importing_from_json(env: &Env, table: &str, head: i64) -> CaseResult<TableId> {
    let new = env.new_table(table);
    env.db().import_begin(&new, v(0), true, env.now()).await?;
    let mut commits = Vec::new();
    for version in 0..=head {
        let mut change = Change::files([format!("f{version}")]);
        if version == 0 {
            change = change.protocol(protocol(2)).metadata(metadata("first"));
        }
        commits.push(change.imported(v(version), version * 100)?);
    }
    env.db().import_commits(new.id, commits.into()).await?;
    Ok(new.id)
}

pub(super) fn invalid<T: Debug>(
    what: &str,
    answer: Result<T, impl Into<CatalogError>>,
) -> CaseResult {
    match answer.plain() {
        Err(CatalogError::InvalidInput(_)) => Ok(()),
        other => fail(format_args!("{what}: expected InvalidInput, got {other:?}")),
    }
}

fn exists<T: Debug>(what: &str, answer: Result<T, impl Into<CatalogError>>) -> CaseResult {
    match answer.plain() {
        Err(CatalogError::TableExists(_)) => Ok(()),
        other => fail(format_args!("{what}: expected TableExists, got {other:?}")),
    }
}

fn hidden<T: Debug>(what: &str, answer: Result<T, impl Into<CatalogError>>) -> CaseResult {
    match answer.plain() {
        Err(CatalogError::TableNotFound(_)) => Ok(()),
        other => fail(format_args!("{what}: expected TableNotFound, got {other:?}")),
    }
}

cases! {
    /// import_step 2, import_finish 3: a log replayed from version 0 becomes an active table.
    async fn a_log_is_imported_from_json(env: &Env) -> CaseResult {
        let new = env.new_table("t");
        let (db, id) = (env.db(), new.id);
        let begun = db.import_begin(&new, v(0), true, TimestampMs(5)).await?;
        assert_eq!((begun.table.id, begun.table.state), (id, TableState::Importing));
        assert_eq!((begun.table.head, begun.table.created_at), (None, TimestampMs(5)));
        assert!(begun.base_done, "there is no base to store");
        assert_eq!((begun.base_files, begun.base_tombstones, begun.history_through), (0, 0, None));

        let first = Change::files(["a", "b"]).protocol(protocol(2)).metadata(metadata("first"));
        let second = Change::files(["c"]).remove(gone(&file("a"), Some(7))).txn("app", 4);
        let commits = vec![first.imported(v(0), 100)?, second.imported(v(1), 200)?];
        let progress = db.import_commits(id, commits.clone().into()).await?;
        assert_eq!(progress.table.head, Some(v(1)));
        assert_eq!(progress.table.head_timestamp, Some(TimestampMs(200)));
        let third = Change::new().metadata(metadata("second")).imported(v(2), 300)?;
        db.import_commits(id, vec![third.clone()].into()).await?;

        let finished = finish_import(db, id, env.now()).await?;
        assert_eq!((finished.state, finished.head), (TableState::Active, Some(v(2))));
        assert_eq!(finished.published_version, Some(v(2)), "its log is at its location");
        assert_eq!((finished.base_version, finished.barrier_version), (v(0), v(2)));
        assert_eq!(env.record(id).await?, finished);
        assert_eq!(env.paths(id, v(0)).await?, ["a", "b"]);
        assert_eq!(env.paths(id, v(2)).await?, ["b", "c"]);
        assert_eq!(env.buried(id, v(2), 0).await?, ["a"]);
        let snapshot = env.snapshot(id, At::Head).await?;
        assert_eq!((snapshot.num_files, snapshot.metadata), (2, metadata("second")));
        assert_eq!(env.snapshot(id, At::Version(v(1))).await?.metadata, metadata("first"));
        for commit in commits.into_iter().chain([third]) {
            assert_eq!(env.body(id, commit.version).await?, commit.body.published()?);
        }
        assert_eq!(env.outbox(Some(id), None).await?, [], "nothing to publish");
        Ok(())
    }

    /// import_step 2, list_commits 3: history has what the imported commits say, without a token.
    async fn imported_history_is_complete(env: &Env) -> CaseResult {
        let id = importing_from_json(env, "t", 3).await?;
        finish_import(env.db(), id, env.now()).await?;
        let history = env.history(id).await?;
        let got: Vec<_> =
            history.iter().map(|c| (c.version.get(), c.timestamp.0, c.total_files)).collect();
        assert_eq!(got, [(3, 300, 4), (2, 200, 3), (1, 100, 2), (0, 0, 1)]);
        for record in history {
            assert_eq!((record.token, record.num_added, record.has_body), (None, 1, true));
            assert!(record.commit_info.is_some_and(|info| info.contains("WRITE")));
            assert_eq!(record.changes_metadata, record.version == v(0));
        }
        Ok(())
    }

    /// import_step 2: the same comes of commits that are handed over together and one by one: files
    /// that are added again end the row before, also within one call; removes and applications lie between.
    async fn commits_are_the_same_however_they_are_grouped(env: &Env) -> CaseResult {
        let mut changes = Vec::new();
        for n in 1..=30_i64 {
            let mut change = Change::files([format!("a{n}"), format!("b{n}")]);
            match n {
                // Again: of an earlier call, of this one, and twice in one commit.
                9 => change = change.add(file("base")).add(file("a3")),
                14 => change = change.add(file("a13")),
                17 => change = change.add(file("c")).add(file("c")),
                20 => change = change.remove(gone(&file("a19"), Some(5))).txn("app", 1),
                25 => change = Change::new(),
                _ => {}
            }
            changes.push(change);
        }
        let mut dumps = Vec::new();
        for (table, together) in [("one", 1), ("some", 7), ("all", 30)] {
            let new = env.new_table(table);
            let (db, id) = (env.db(), new.id);
            db.import_begin(&new, v(0), true, env.now()).await?;
            let zero =
                Change::files(["base"]).protocol(protocol(2)).metadata(metadata("zero")).imported(v(0), 1)?;
            db.import_commits(id, vec![zero].into()).await?;
            let numbered: Vec<_> = (1_i64..).zip(&changes).collect();
            for some in numbered.chunks(together) {
                let commits = some
                    .iter()
                    .map(|(n, change)| Change::clone(change).imported(v(*n), n * 10))
                    .collect::<Result<Vec<_>, _>>()?;
                db.import_commits(id, commits.into()).await?;
            }
            finish_import(db, id, env.now()).await?;
            let mut states = Vec::new();
            for version in 0..=30 {
                let snapshot = env.snapshot(id, At::Version(v(version))).await?;
                let files = env.files(id, v(version)).await?;
                assert_eq!(files.len() as u64, snapshot.num_files, "version {version}");
                states.push((files, snapshot.size_bytes));
            }
            let history: Vec<_> = env
                .history(id)
                .await?
                .into_iter()
                .map(|c| (c.version, c.timestamp, c.num_added, c.bytes_removed, c.total_files))
                .collect();
            let mut bodies = Vec::new();
            for version in 0..=30 {
                bodies.push(env.body(id, v(version)).await?);
            }
            dumps.push((states, history, bodies));
        }
        assert!(dumps[0] == dumps[1], "seven at a time");
        assert!(dumps[0] == dumps[2], "all at once");
        Ok(())
    }

    /// import_step 5: a commit whose adds come in pages is stored as one that is handed over whole: into an
    /// empty table, over files that are there, and as history.
    async fn large_commits_are_stored_as_small_ones(env: &Env) -> CaseResult {
        let any = env.id();
        let range = |from: usize, to: usize| Change::files((from..to).map(|i| format!("f{i}")));
        let mut dumps = Vec::new();
        for (table, page) in [("whole", None), ("paged", Some(7)), ("page", Some(5_000))] {
            let of = |change: Change, version: i64| {
                change.imported_in_pages(v(version), version * 100, page.unwrap_or(1_000))
            };
            let new = env.new_table(table);
            let (db, id) = (env.db(), new.id);
            db.import_begin(&new, v(2), false, env.now()).await?;
            // A base without files: the first large commit finds an empty table.
            db.import_base(id, 0, 0, BaseChunk::default(), Some(tail(200))).await?;
            let again = (90..110).fold(range(240, 260), |c, i| c.add(file(format!("f{i}"))));
            let again = again
                .remove(gone(&file("f5"), Some(40)))
                .remove(gone(&file("f91"), Some(50)))
                .remove(gone(&file("never"), Some(60)))
                .metadata(metadata("later"))
                .txn("app", 5);
            let all = (0..260).filter(|i| *i != 5).map(|i| gone(&file(format!("f{i}")), Some(70)));
            let batches = [
                vec![of(range(0, 30), 1)?],
                vec![of(range(0, 240), 3)?, of(again, 4)?],
                vec![of(all.fold(Change::new(), Change::remove), 5)?, of(range(0, 100), 6)?],
            ];
            for commits in batches {
                let mut commits = commits.into();
                if page.is_none() {
                    commits = in_memory(commits).await?;
                }
                db.import_commits(id, commits).await?;
            }
            finish_import(db, id, env.now()).await?;
            let mut states = Vec::new();
            for version in 2..=6 {
                let snapshot = env.snapshot(id, At::Version(v(version))).await?;
                let files = env.files(id, v(version)).await?;
                assert_eq!(files.len() as u64, snapshot.num_files, "version {version}");
                let buried = env.buried(id, v(version), 0).await?;
                states.push((files, snapshot.size_bytes, snapshot.metadata, buried));
            }
            let mut bodies = Vec::new();
            for version in [1, 3, 4, 5, 6] {
                bodies.push(env.body(id, v(version)).await?);
            }
            let mut history = env.history(id).await?;
            for commit in &mut history {
                commit.table_id = any;
            }
            dumps.push((states, history, bodies));
        }
        let sizes: Vec<_> = dumps[0].0.iter().map(|state| state.0.len()).collect();
        assert_eq!(sizes, [0, 240, 259, 0, 100]);
        assert!(dumps[0] == dumps[1], "pages of seven");
        assert!(dumps[0] == dumps[2], "a page");
        Ok(())
    }

    /// import_step 5: small and large commits follow each other in one call; each finds the files of those
    /// before it.
    async fn small_and_large_commits_are_stored_in_one_call(env: &Env) -> CaseResult {
        let id = importing_from_json(env, "t", 0).await?;
        let large = |change: Change, n: i64| change.imported_in_pages(v(n), n * 100, 3);
        let named = |paths: &[&str]| Change::files(paths.iter().copied());
        let commits = vec![
            named(&["a", "b"]).imported(v(1), 100)?,
            // Those of the one before again, in pages.
            large(named(&["n0", "n1", "n2", "a", "b", "n3"]), 2)?,
            // Of those in pages, one goes, and one comes again.
            named(&["n1"]).remove(gone(&file("n0"), Some(1))).imported(v(3), 300)?,
            large(named(&["n1", "n0", "c"]).remove(gone(&file("n3"), Some(2))), 4)?,
        ];
        env.db().import_commits(id, commits.into()).await?;
        finish_import(env.db(), id, env.now()).await?;
        for (version, want) in [
            (2, vec!["f0", "n0", "n1", "n2", "a", "b", "n3"]),
            (3, vec!["f0", "n2", "a", "b", "n3", "n1"]),
            (4, vec!["f0", "n2", "a", "b", "n1", "n0", "c"]),
        ] {
            let mut paths = env.paths(id, v(version)).await?;
            let mut want: Vec<String> = want.into_iter().map(str::to_owned).collect();
            paths.sort();
            want.sort();
            assert_eq!(paths, want, "version {version}");
            let snapshot = env.snapshot(id, At::Version(v(version))).await?;
            assert_eq!(snapshot.num_files, want.len() as u64);
            assert_eq!(snapshot.size_bytes, 100 * want.len() as u64);
        }
        Ok(())
    }

    /// import_step 5: a large commit that cannot be read to its end leaves nothing; then a whole one is
    /// stored.
    async fn a_large_commit_that_is_damaged_leaves_nothing(env: &Env) -> CaseResult {
        let id = importing_from_json(env, "t", 0).await?;
        let files = |n: usize| Change::files((0..n).map(|i| format!("n{i}")));
        let good = files(600).imported_in_pages(v(1), 100, 100)?;
        let text = good.body.published()?;
        // The last line lacks what is only looked at when its page is read.
        let text = String::from_utf8(text.to_vec())?;
        let at = text.rfind("\"modificationTime\"").unwrap_or_default();
        let text = format!("{}\"another\"{}", &text[..at], &text[at + 18..]);
        let LargeCommit { index, body, later, .. } = read_large_by("a file", text.as_bytes(), 100)?;
        let bad = ImportedCommit { index, body, later: Some(later.clone()), ..good.clone() };
        let second = files(1).imported(v(2), 200)?;
        match env.db().import_commits(id, vec![bad, second.clone()].into()).await.plain() {
            Err(CatalogError::InvalidInput(text)) if text.contains("a file, line ") => {}
            other => return fail(format_args!("expected the line that is wrong, got {other:?}")),
        }
        assert!(later.is_damaged());
        assert_eq!(env.record(id).await?.head, Some(v(0)));
        assert_eq!(env.paths(id, v(0)).await?, ["f0"]);
        env.db().import_commits(id, vec![good, second].into()).await?;
        finish_import(env.db(), id, env.now()).await?;
        assert_eq!(env.snapshot(id, At::Head).await?.num_files, 601);
        assert_eq!(env.files(id, v(1)).await?.len(), 601);
        Ok(())
    }

    /// contract 6: until it is finished, the table can only be found by `get_table`.
    async fn an_importing_table_is_hidden(env: &Env) -> CaseResult {
        let id = importing_from_json(env, "t", 2).await?;
        let (db, now) = (env.db(), env.now());
        assert_eq!(env.record(id).await?.state, TableState::Importing);
        let by_name = db.get_table(&TableRef::Name(name("t"))).await?;
        assert_eq!(by_name.map(|t| t.id), Some(id));
        assert_eq!(db.list_tables(&TableFilter::default(), None, 10).await?.items, []);
        hidden("by name", db.snapshot(&TableRef::Name(name("t")), At::Version(v(0))).await)?;
        // By id it can be read as far as it is stored: to validate it before it is finished.
        let snapshot = env.snapshot(id, At::Head).await?;
        assert_eq!((snapshot.version, snapshot.table.state), (v(2), TableState::Importing));
        let files = db.list_files(id, v(2), None, 10).await?;
        assert_eq!(files.items.len() as u64, snapshot.num_files);
        db.list_tombstones(id, v(0), now, None, 10).await?;
        db.app_transactions(id, v(0)).await?;
        db.domain_metadata(id, v(0)).await?;
        assert_eq!(env.history(id).await?.len(), 3);
        assert_eq!(db.read_bodies(id, v(0), v(2), 10).await?.len(), 3);
        hidden("drop_table", db.drop_table(id, &Act::at(now)).await)?;
        hidden("mirror_retry", db.mirror_retry(id, &Act::at(now)).await)?;
        hidden("mirror_set_mode", db.mirror_set_mode(id, MirrorMode::Off, &Act::at(now)).await)?;
        for part in [Change::new().exactly(id, v(2))?, Change::new().append(id, v(0))?] {
            let reason = Rejection::TableNotFound(id);
            let outcome = env.commit(vec![part]).await?;
            assert_eq!(outcome, CommitOutcome::Rejected { index: 0, reason });
        }
        assert_eq!(db.mirror_claim(&env.claim_by("w")).await?, []);
        assert_eq!(env.record(id).await?.head, Some(v(2)), "none of this changed anything");
        Ok(())
    }

    /// import_begin 2: the same name and location find the interrupted import, where it stopped.
    async fn an_interrupted_import_is_resumed(env: &Env) -> CaseResult {
        let id = importing_from_json(env, "t", 2).await?;
        let record = env.record(id).await?;
        let other = env.reopen().await?;
        let mut again = env.new_table("t");
        again.location.clone_from(&record.location);
        let resumed = other.import_begin(&again, v(0), true, env.now()).await?;
        assert_eq!((resumed.table, resumed.base_done), (record, true));
        assert_eq!(env.db().get_table(&TableRef::Id(again.id)).await?, None, "no second table");
        let next = Change::files(["f3"]).imported(v(3), 300)?;
        other.import_commits(id, vec![next].into()).await?;
        assert_eq!(finish_import(&*other, id, env.now()).await?.head, Some(v(3)));
        Ok(())
    }

    /// import_begin 1: a live table of the name, or an import with another location or base, is
    /// `TableExists`.
    async fn a_taken_name_cannot_be_imported(env: &Env) -> CaseResult {
        env.create("live").await?;
        let db = env.db();
        let live = env.new_table("live");
        exists("a live table", db.import_begin(&live, v(0), true, env.now()).await)?;
        let first = env.new_table("t");
        db.import_begin(&first, v(5), false, env.now()).await?;
        let elsewhere = env.new_table("t");
        exists("another place", db.import_begin(&elsewhere, v(5), false, env.now()).await)?;
        let mut again = env.new_table("t");
        again.location.clone_from(&first.location);
        exists("another base", db.import_begin(&again, v(6), false, env.now()).await)?;
        assert_eq!(db.import_begin(&again, v(5), false, env.now()).await?.table.id, first.id);
        let json = env.new_table("json");
        db.import_begin(&json, v(0), true, env.now()).await?;
        exists("a checkpoint of 0", db.import_begin(&json, v(0), false, env.now()).await)?;

        let dropped = env.create("dropped").await?;
        db.drop_table(dropped, &Act::at(env.now())).await?;
        db.import_begin(&env.new_table("dropped"), v(0), true, env.now()).await?;
        Ok(())
    }

    /// import_step 2: applied versions continue the head without a gap, and none comes twice.
    async fn a_gap_in_imported_versions_is_invalid(env: &Env) -> CaseResult {
        let id = importing_from_json(env, "t", 2).await?;
        let before = env.record(id).await?;
        let commit = |version: i64| Change::new().imported(v(version), 1_000 + version);
        for (what, commits) in [
            ("a gap", vec![commit(4)?]),
            ("the head again", vec![commit(2)?]),
            ("the first again", vec![commit(0)?]),
            ("a gap inside", vec![commit(3)?, commit(5)?]),
            ("twice", vec![commit(3)?, commit(3)?]),
            ("backwards", vec![commit(4)?, commit(3)?]),
        ] {
            invalid(what, env.db().import_commits(id, commits.into()).await)?;
            assert_eq!(env.record(id).await?, before, "{what}: nothing was stored");
        }
        let new = env.new_table("u");
        env.db().import_begin(&new, v(0), true, env.now()).await?;
        invalid("not from 0", env.db().import_commits(new.id, vec![commit(1)?].into()).await)
    }

    /// import_step 3: timestamps grow strictly, within a call and from call to call.
    async fn timestamps_that_do_not_grow_are_invalid(env: &Env) -> CaseResult {
        let id = importing_from_json(env, "t", 2).await?;
        let before = env.record(id).await?;
        for times in [[200, 300], [199, 300], [300, 300], [300, 299], [i64::MIN, 0]] {
            let commits = vec![
                Change::new().imported(v(3), times[0])?,
                Change::new().imported(v(4), times[1])?,
            ];
            invalid("times", env.db().import_commits(id, commits.into()).await)?;
            assert_eq!(env.record(id).await?, before, "{times:?}");
        }
        let fine = vec![Change::new().imported(v(3), 201)?, Change::new().imported(v(4), 202)?];
        assert_eq!(env.db().import_commits(id, fine.into()).await?.table.head, Some(v(4)));
        Ok(())
    }

    /// import_step 2: a remove of an unknown file leaves its tombstone, and only that.
    async fn a_remove_of_an_unknown_file_leaves_a_tombstone(env: &Env) -> CaseResult {
        let id = importing_from_json(env, "t", 0).await?;
        let (one, two) = (gone(&file("unknown1"), Some(50)), gone(&file("unknown2"), Some(60)));
        let change = Change::new().remove(one).remove(two).remove(gone(&file("f0"), Some(70)));
        env.db().import_commits(id, vec![change.imported(v(1), 100)?].into()).await?;
        let again = Change::files(["unknown1"]).imported(v(2), 200)?;
        env.db().import_commits(id, vec![again].into()).await?;
        finish_import(env.db(), id, env.now()).await?;
        assert_eq!(env.paths(id, v(0)).await?, ["f0"]);
        assert_eq!(env.paths(id, v(1)).await?, Vec::<String>::new());
        let sorted = async |version, after| -> CaseResult<Vec<String>> {
            let mut buried = env.buried(id, v(version), after).await?;
            buried.sort();
            Ok(buried)
        };
        assert_eq!(sorted(0, 0).await?, Vec::<String>::new());
        assert_eq!(sorted(1, 0).await?, ["f0", "unknown1", "unknown2"]);
        assert_eq!(sorted(1, 55).await?, ["f0", "unknown2"]);
        assert_eq!(sorted(2, 0).await?, ["f0", "unknown2"]);
        assert_eq!(env.snapshot(id, At::Head).await?.num_files, 1);
        Ok(())
    }

    /// import_step 2: what other engines left in one commit is taken: a file removed and added, or
    /// removed twice, or added twice (the last one counts).
    async fn odd_commits_of_other_engines_are_taken(env: &Env) -> CaseResult {
        let id = importing_from_json(env, "t", 0).await?;
        let mut last = file("x");
        last.size = 5;
        let change = Change::files(["f0", "x"])
            .add(last.clone())
            .remove(gone(&file("f0"), Some(50)))
            .remove(gone(&file("f0"), Some(51)));
        env.db().import_commits(id, vec![change.imported(v(1), 100)?].into()).await?;
        finish_import(env.db(), id, env.now()).await?;
        assert_eq!(env.paths(id, v(1)).await?, ["f0", "x"]);
        assert_eq!(env.files(id, v(1)).await?[1].add, last);
        assert_eq!(env.snapshot(id, At::Head).await?.size_bytes, 105);
        assert_eq!(env.buried(id, v(1), i64::MIN).await?, Vec::<String>::new());
        Ok(())
    }

    /// import_finish 1: `Corrupt` without a head, a protocol or metadata; the import stays.
    async fn an_incomplete_import_cannot_be_finished(env: &Env) -> CaseResult {
        let db = env.db();
        let commits = [
            None,
            Some(Change::new()),
            Some(Change::new().protocol(protocol(2))),
            Some(Change::new().metadata(metadata("m"))),
        ];
        for (i, change) in commits.into_iter().enumerate() {
            let new = env.new_table(&format!("t{i}"));
            db.import_begin(&new, v(0), true, env.now()).await?;
            if let Some(change) = change {
                db.import_commits(new.id, vec![change.imported(v(0), 1)?].into()).await?;
            }
            match finish_import(db, new.id, env.now()).await {
                Err(CatalogError::Corrupt(_)) => {}
                other => return fail(format_args!("{i}: {other:?}")),
            }
            assert_eq!(env.record(new.id).await?.state, TableState::Importing);
        }
        Ok(())
    }

    /// import_abort 1: the table and its rows are gone, and its name is free.
    async fn an_aborted_import_leaves_nothing(env: &Env) -> CaseResult {
        let id = importing_from_json(env, "t", 2).await?;
        let live = env.create_with("live", Change::files(["a"])).await?;
        let before = env.dump(live).await?;
        env.db().import_abort(id, &Act::default()).await?;
        assert_eq!(env.db().get_table(&TableRef::Id(id)).await?, None);
        assert_eq!(env.db().get_table(&TableRef::Name(name("t"))).await?, None);
        hidden("again", env.db().import_abort(id, &Act::default()).await)?;
        hidden("a live table", env.db().import_abort(live, &Act::default()).await)?;
        hidden("finish", finish_import(env.db(), live, env.now()).await)?;
        hidden("commits", env.db().import_commits(live, Vec::new().into()).await)?;
        assert_eq!(env.dump(live).await?, before);

        // The same id and name can be used again, and nothing of the old rows shows.
        let mut new = env.new_table("t");
        new.id = id;
        committed(env.commit(vec![Change::files(["new"]).create(new)?]).await?)?;
        assert_eq!(env.paths(id, v(0)).await?, ["new"]);
        assert_eq!(env.history(id).await?.len(), 1);
        Ok(())
    }

    /// import_finish 5, commit 6: after an import, commits go on and are the first to be published.
    async fn commits_go_on_after_an_import(env: &Env) -> CaseResult {
        let id = importing_from_json(env, "t", 2).await?;
        finish_import(env.db(), id, env.now()).await?;
        let change = Change::files(["new"]).remove(gone(&file("f1"), Some(1)));
        assert_eq!(env.write(id, change).await?.version, v(3));
        assert_eq!(env.paths(id, v(3)).await?, ["f0", "f2", "new"]);
        let task = env.claim_one(&env.claim_by("w")).await?;
        assert_eq!((task.versions, task.attempts), (vec![v(3)], 0));
        assert_eq!(task.table.published_version, Some(v(2)));
        Ok(())
    }

    /// import_finish 3: a table that is not to be published has no outbox rows after it either.
    async fn an_import_without_mirror(env: &Env) -> CaseResult {
        let mut new = env.new_table("t");
        new.mirror = MirrorMode::Off;
        let id = new.id;
        env.db().import_begin(&new, v(0), true, env.now()).await?;
        let first = Change::new().protocol(protocol(2)).metadata(metadata("m"));
        env.db().import_commits(id, vec![first.imported(v(0), 1)?].into()).await?;
        let finished = finish_import(env.db(), id, env.now()).await?;
        assert_eq!((finished.mirror, finished.published_version), (MirrorMode::Off, Some(v(0))));
        env.write(id, Change::new()).await?;
        assert_eq!(env.outbox(None, None).await?, []);
        Ok(())
    }
}
