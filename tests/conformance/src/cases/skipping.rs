//! Single files, and the skipping index.

use std::sync::Arc;

use bytes::Bytes;
use deltalakedb_catalog_core::action::Add;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{MAX_FILES_AT, MAX_SKIP_PAGES};
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, Version};
use deltalakedb_catalog_core::model::{
    BaseChunk, FileCursor, NewSkipSegment, SkipIndex, SkipPage, SkipSegment,
};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::predicate::{ColumnPath, Literal, Predicate, Pruner};
use deltalakedb_catalog_engine::skip::Feed;
use futures::TryStreamExt;

use super::cases;
use super::import::tail;
use crate::change::{Change, file, gone};
use crate::env::{CaseResult, Env, fail, finish_import, retrying, together, v};
use crate::live::{RandomIds, WallClock};

/// A segment that ends at this place, with pages of so many bytes, each other ones.
fn segment(after: Option<i64>, through: i64, pages: usize, bytes: usize) -> NewSkipSegment {
    let cursor = |n| FileCursor { added_version: v(n / 10), ordinal: n % 10 };
    let page = |n: usize| {
        let filler = (0..bytes).map(move |i| u8::try_from((i * 31 + n) % 256).unwrap_or(0));
        n.to_le_bytes().into_iter().chain(filler).collect::<Vec<u8>>()
    };
    NewSkipSegment {
        after: after.map(cursor),
        through: cursor(through),
        version: v(through + 7),
        files: through,
        root: Bytes::from(page(bytes)),
        pages: (0..pages).map(|n| page(n).into()).collect(),
    }
}

/// As it is read.
fn stored(id: i64, new: &NewSkipSegment) -> SkipSegment {
    SkipSegment {
        id,
        after: new.after,
        through: new.through,
        version: new.version,
        files: new.files,
        root: new.root.clone(),
    }
}

/// A file that holds the values from `start` on.
fn with_values(path: &str, start: i64) -> Add {
    let stats = format!(
        r#"{{"numRecords":10,"minValues":{{"x":{start}}},"maxValues":{{"x":{}}},"nullCount":{{"x":0}}}}"#,
        start + 9
    );
    Add { stats: Some(stats), ..file(path) }
}

/// Whether `x` lies between these.
fn between(low: i64, high: i64) -> Predicate {
    let number = |n: i64| Literal::Number(n.to_string());
    Predicate::between(ColumnPath::top("x"), number(low), number(high))
}

/// Files numbered so, whose values are not in the order of their numbers.
fn numbered(numbers: std::ops::Range<i64>) -> impl Iterator<Item = Add> {
    numbers.map(|n| with_values(&format!("f{n}"), (n * 7_919) % 3_000 * 10))
}

fn adding(numbers: std::ops::Range<i64>) -> Change {
    numbered(numbers).fold(Change::new(), Change::add)
}

/// Plans give what looking at each file gives.
async fn plans_agree(
    env: &Env,
    catalog: &Catalog,
    id: TableId,
    version: Version,
    questions: &[Predicate],
) -> CaseResult {
    let snapshot = catalog.snapshot(&TableRef::Id(id), At::Version(version)).await?;
    for question in questions {
        let pruner = Pruner::new(&snapshot.metadata, question)?;
        let mut want = env.files(id, version).await?;
        want.retain(|file| pruner.may_match(&file.add));
        let found: Vec<_> = catalog.files_matching(&snapshot, question)?.try_collect().await?;
        assert!(found == want, "version {version}, {question:?}");
    }
    Ok(())
}

cases! {
    /// files_at 1: those that are asked for and were there, in their order, with all of their fields.
    async fn single_files_are_found_by_their_place(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files((0..5).map(|i| format!("a{i}")))).await?;
        env.write(id, Change::files((0..5).map(|i| format!("b{i}")))).await?;
        env.write(id, Change::new().remove(gone(&file("a1"), Some(1)))).await?;
        let all = env.files(id, v(1)).await?;
        let places: Vec<_> = all.iter().map(|f| f.cursor).collect();
        assert_eq!(env.db().files_at(id, v(1), &places).await?, all);
        let some: Vec<_> = places.iter().copied().step_by(3).collect();
        let found = env.db().files_at(id, v(1), &some).await?;
        assert_eq!(found, all.iter().step_by(3).cloned().collect::<Vec<_>>());
        // One was removed, some are not there yet, and some never are.
        let paths = |files: Vec<deltalakedb_catalog_core::model::FileRecord>| {
            files.into_iter().map(|f| f.add.path).collect::<Vec<_>>()
        };
        let found = env.db().files_at(id, v(2), &places[..2]).await?;
        assert_eq!(paths(found), ["a0"]);
        let found = env.db().files_at(id, v(0), &places[4..6]).await?;
        assert_eq!(paths(found), ["a4"]);
        let never = FileCursor { added_version: v(0), ordinal: 99 };
        assert!(env.db().files_at(id, v(2), &[never]).await?.is_empty());
        assert!(env.db().files_at(id, v(2), &[]).await?.is_empty());
        assert!(env.db().files_at(env.id(), v(2), &places).await?.is_empty());
        Ok(())
    }

    /// files_at 1: as many as may be asked for.
    async fn many_single_files(env: &Env) -> CaseResult {
        let count = MAX_FILES_AT + 500;
        let id = env.create_with("t", Change::files((0..count).map(|i| format!("f{i}")))).await?;
        let all = env.files(id, v(0)).await?;
        let some: Vec<_> = all[250..250 + MAX_FILES_AT].to_vec();
        let places: Vec<_> = some.iter().map(|f| f.cursor).collect();
        assert_eq!(env.db().files_at(id, v(0), &places).await?, some);
        Ok(())
    }

    /// skip_index 1, skip_pages 1, skip_replace 2: what was written comes back, byte for byte.
    async fn segments_come_back_as_they_were_written(env: &Env) -> CaseResult {
        let (id, other) = (env.create("t").await?, env.create("u").await?);
        let db = env.db();
        let none = db.skip_index(id).await?;
        assert_eq!((none.generation, none.segments.len()), (0, 0));
        let (late, early) = (segment(Some(40), 90, 3, 0), segment(None, 40, 2, 9_000));
        assert!(db.skip_replace(id, 0, &[], &late).await?);
        assert!(db.skip_replace(id, 1, &[], &early).await?);
        let index = db.skip_index(id).await?;
        assert_eq!(index.generation, 2);
        assert_eq!(index.segments, [stored(2, &early), stored(1, &late)]);
        let at = |segment, page| SkipPage { segment, page };
        let asked = [at(2, 1), at(1, 2), at(9, 0), at(2, 7), at(2, 1), at(1, 0)];
        let found = db.skip_pages(id, &asked).await?;
        let page = |of: &NewSkipSegment, n: usize| Some(of.pages[n].clone());
        let want =
            [page(&early, 1), page(&late, 2), None, None, page(&early, 1), page(&late, 0)];
        assert_eq!(found, want);
        assert!(db.skip_pages(id, &[]).await?.is_empty());
        assert_eq!(db.skip_pages(other, &[at(1, 0)]).await?, [None]);
        assert!(db.skip_index(other).await?.segments.is_empty());
        assert_eq!(db.skip_index(env.id()).await?.generation, 0);

        // One takes the place of both.
        let both = segment(None, 95, 1, 10);
        assert!(db.skip_replace(id, 2, &[2, 1], &both).await?);
        let index = db.skip_index(id).await?;
        assert_eq!((index.generation, index.segments), (3, vec![stored(3, &both)]));
        // Those that were read before may be in a cache.
        let found = db.skip_pages(id, &[at(1, 1), at(3, 0), at(2, 0)]).await?;
        assert_eq!(found, [None, page(&both, 0), None]);
        Ok(())
    }

    /// skip_index 1: that nothing comes after the last segment is only said of versions of which it is true.
    async fn the_end_of_an_index_is_that_of_the_files(env: &Env) -> CaseResult {
        let (db, id) = (env.db(), env.create_with("t", adding(0..10)).await?);
        let end = |index: SkipIndex| index.complete_to.map(Version::get);
        // The place of a segment that ends with this file of a version.
        let through = |version: i64, ordinal: i64| {
            NewSkipSegment {
                through: FileCursor { added_version: v(version), ordinal },
                ..segment(None, 9, 1, 10)
            }
        };
        assert_eq!(end(db.skip_index(id).await?), None, "no segment");
        assert!(db.skip_replace(id, 0, &[], &through(0, 8)).await?);
        assert_eq!(end(db.skip_index(id).await?), None, "a file of the same version");
        assert!(db.skip_replace(id, 1, &[1], &through(0, 9)).await?);
        let says = |index: SkipIndex, head: i64| [None, Some(head)].contains(&end(index));
        assert!(says(db.skip_index(id).await?, 0));
        env.write(id, Change::new().txn("app", 1)).await?;
        assert!(says(db.skip_index(id).await?, 1), "a version without files");
        env.write(id, adding(10..11)).await?;
        assert_eq!(end(db.skip_index(id).await?), None, "a file of a later version");
        let f10 = numbered(10..11).next().map(|add| gone(&add, Some(1)));
        env.write(id, f10.into_iter().fold(Change::new(), Change::remove)).await?;
        assert_eq!(end(db.skip_index(id).await?), None, "it was there before");
        assert!(db.skip_replace(id, 2, &[], &NewSkipSegment {
            after: Some(FileCursor { added_version: v(0), ordinal: 9 }),
            ..through(2, 0)
        }).await?);
        assert!(says(db.skip_index(id).await?, 3));
        Ok(())
    }

    /// skip_replace 1: with another generation than the table's, nothing is changed.
    async fn an_old_generation_changes_nothing(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let db = env.db();
        let first = segment(None, 10, 1, 1);
        assert!(!db.skip_replace(id, 1, &[], &first).await?);
        assert_eq!(db.skip_index(id).await?.generation, 0);
        assert!(db.skip_replace(id, 0, &[], &first).await?);
        for generation in [0, 2, i64::MAX] {
            assert!(!db.skip_replace(id, generation, &[1], &segment(None, 20, 1, 1)).await?);
        }
        let index = db.skip_index(id).await?;
        assert_eq!((index.generation, index.segments), (1, vec![stored(1, &first)]));
        let page = db.skip_pages(id, &[SkipPage { segment: 1, page: 0 }]).await?;
        assert_eq!(page, [Some(first.pages[0].clone())]);
        Ok(())
    }

    /// skip_replace 1: of calls with one generation at the same time one is true; commits go on.
    async fn one_of_many_replaces_wins(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        for generation in 0..4 {
            let calls = (0..8).map(|n| {
                let db = env.shared();
                async move {
                    let new = segment(None, 10 + n, 20, 100);
                    let old: Vec<i64> = Some(generation).filter(|g| *g > 0).into_iter().collect();
                    retrying(|| db.skip_replace(id, generation, &old, &new)).await
                }
            });
            let (answers, written) = futures::join!(
                together(calls),
                env.write(id, Change::files([format!("f{generation}")]))
            );
            written?;
            let won = answers?.into_iter().collect::<Result<Vec<_>, _>>()?;
            assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
            let index = env.db().skip_index(id).await?;
            assert_eq!((index.generation, index.segments.len()), (generation + 1, 1));
        }
        Ok(())
    }

    /// skip_pages 2: as many as may be asked for, of some size.
    async fn many_pages(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let new = segment(None, 10, 2 * MAX_SKIP_PAGES + 1, 6_000);
        assert!(env.db().skip_replace(id, 0, &[], &new).await?);
        let number = |n: usize| u32::try_from(n).unwrap_or(0);
        let asked: Vec<_> = (0..MAX_SKIP_PAGES)
            .map(|n| SkipPage { segment: 1, page: number(2 * (MAX_SKIP_PAGES - n)) })
            .collect();
        let found = env.db().skip_pages(id, &asked).await?;
        let want: Vec<_> =
            (0..MAX_SKIP_PAGES).map(|n| Some(new.pages[2 * (MAX_SKIP_PAGES - n)].clone())).collect();
        assert!(found == want, "each page at its place");
        Ok(())
    }

    /// skip_index 1: through it come the files that looking at each one leaves,
    /// at the head and before, while it is written anew.
    async fn planning_through_the_index_leaves_the_same_files(env: &Env) -> CaseResult {
        let id = env.create_with("t", adding(0..1_200)).await?;
        let catalog = Catalog::new(env.shared(), Arc::new(WallClock), Arc::new(RandomIds));
        let questions = [between(5_000, 5_060), between(0, 29_999), between(-5, -1)];
        let mut sizes = Vec::new();
        for step in 0..4_i64 {
            match step {
                0 => {}
                1 => {
                    env.write(id, adding(1_200..1_500)).await?;
                }
                2 => {
                    let gone = (0..50).fold(Change::new(), |change, n| {
                        change.remove(gone(&file(format!("f{}", n * 20)), Some(1)))
                    });
                    env.write(id, gone).await?;
                }
                _ => {
                    env.write(id, adding(1_500..3_000)).await?;
                }
            }
            sizes.push(catalog.maintain_index(id).await?.files);
            for version in 0..=step {
                plans_agree(env, &catalog, id, v(version), &questions).await?;
            }
        }
        assert_eq!(sizes, [1_200, 300, 0, 1_500], "what each run had to write");
        Ok(())
    }

    /// import_step 1, 2: files are at the places at which the core's index, made of what is
    /// handed over, has them; also of files that come again, in one call or another.
    async fn an_index_made_while_importing_leaves_the_same_files(env: &Env) -> CaseResult {
        let new = env.new_table("t");
        let (db, id) = (env.db(), new.id);
        db.import_begin(&new, v(3), false, env.now()).await?;
        let feed = Feed::start(Some(&tail(1_000).metadata));
        for (first, last) in [(0, 301), (301, 600)] {
            let files: Vec<Add> = numbered(first..last).collect();
            let tail = Some(tail(1_000)).filter(|_| last == 600);
            let stored = u64::try_from(first)?;
            feed.base(v(3), stored, &files).await;
            let chunk = BaseChunk { files, tombstones: Vec::new() };
            db.import_base(id, stored, 0, chunk, tail).await?;
        }
        let again = |n: i64, start: i64| with_values(&format!("f{n}"), start);
        let removed = |n: i64| gone(&file(format!("f{n}")), Some(1));
        let batches = [
            vec![
                adding(600..700).add(again(5, 90_000)).imported(v(4), 1_100)?,
                adding(700..800).add(again(650, 91_000)).imported(v(5), 1_200)?,
                adding(800..801).add(again(650, 92_000)).imported(v(6), 1_300)?,
                adding(801..900).remove(removed(6)).remove(removed(720)).imported(v(7), 1_400)?,
                Change::new().add(again(6, 93_000)).imported(v(8), 1_500)?,
            ],
            vec![
                adding(900..901).add(again(600, 94_000)).imported(v(9), 1_600)?,
                adding(901..1_400).add(again(7, 95_000)).imported_in_pages(v(10), 1_700, 60)?,
            ],
            vec![adding(1_400..1_500).imported(v(11), 1_800)?],
            // A large one that adds nothing.
            vec![Change::new().remove(removed(9)).imported_in_pages(v(12), 1_900, 60)?],
        ];
        for commits in batches {
            let commits = commits.into();
            feed.commits(&commits).await;
            db.import_commits(id, commits).await?;
        }
        finish_import(db, id, env.now()).await?;
        let Some(fed) = feed.end().await else { return fail("the files gave no index") };
        let catalog = Catalog::new(env.shared(), Arc::new(WallClock), Arc::new(RandomIds));
        assert_eq!(catalog.adopt_index(id, fed).await?.files, 1_506);
        let mut questions: Vec<_> =
            (90_000..=95_000).step_by(1_000).map(|x| between(x, x + 5)).collect();
        questions.extend((0..30_000).step_by(2_999).map(|x| between(x, x + 250)));
        plans_agree(env, &catalog, id, v(12), &questions).await?;
        questions.truncate(7);
        plans_agree(env, &catalog, id, v(6), &questions).await
    }
}
