//! What commits do to files: removes, replaced adds, deletion vectors, totals.

use deltalakedb_catalog_core::backend::{CommitOutcome, Rejection};
use deltalakedb_catalog_core::ids::At;

use super::cases;
use crate::change::{Change, file, gone, with_dv};
use crate::env::{CaseResult, Env, committed, v};

fn not_active(index: usize, path: &str, dv_id: &str) -> CommitOutcome {
    let reason = Rejection::FileNotActive { path: path.to_owned(), dv_id: dv_id.to_owned() };
    CommitOutcome::Rejected { index, reason }
}

cases! {
    /// commit 5: a removed file is gone from its version on and leaves a tombstone.
    async fn a_remove_ends_a_file_and_leaves_a_tombstone(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a", "b", "c"])).await?;
        let remove = gone(&file("b"), Some(77));
        env.write(id, Change::new().remove(remove.clone())).await?;
        assert_eq!(env.paths(id, v(0)).await?, ["a", "b", "c"]);
        assert_eq!(env.paths(id, v(1)).await?, ["a", "c"]);
        let tombstones = env.tombstones(id, v(1), 0).await?;
        assert_eq!(tombstones.len(), 1);
        assert_eq!((tombstones[0].removed_version, &tombstones[0].remove), (v(1), &remove));
        let cursor = tombstones[0].cursor;
        assert_eq!((cursor.added_version, cursor.ordinal), (v(0), 1), "that of the file's row");
        Ok(())
    }

    /// commit 5: a remove of a file that is not active is rejected, and nothing is written.
    async fn a_remove_of_an_inactive_file_is_rejected(env: &Env) -> CaseResult {
        let with = with_dv(file("with"), "dv");
        let id = env.create_with("t", Change::files(["a", "b"]).add(with.clone())).await?;
        env.write(id, Change::new().remove(gone(&file("b"), Some(1)))).await?;
        let before = env.dump(id).await?;
        for (what, remove, path, dv_id) in [
            ("never there", gone(&file("x"), Some(1)), "x", ""),
            ("removed before", gone(&file("b"), Some(1)), "b", ""),
            ("other case", gone(&file("A"), Some(1)), "A", ""),
            ("has a vector", gone(&file("with"), Some(1)), "with", ""),
            ("has none", gone(&with_dv(file("a"), "dv"), Some(1)), "a", "udv@1"),
            ("another vector", gone(&with_dv(file("with"), "other"), None), "with", "uother@1"),
        ] {
            let change = Change::files(["new"]).remove(gone(&file("a"), Some(1))).remove(remove);
            let outcome = env.commit(vec![change.exactly(id, v(1))?]).await?;
            assert_eq!(outcome, not_active(0, path, dv_id), "{what}");
        }
        assert_eq!(env.dump(id).await?, before);
        Ok(())
    }

    /// commit 5: with `Append` too, a remove must hit an active file.
    async fn an_append_with_a_remove_is_checked_at_the_head(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a", "b"])).await?;
        env.write(id, Change::new().remove(gone(&file("a"), Some(1)))).await?;
        let stale = Change::new().remove(gone(&file("a"), Some(1))).append(id, v(0))?;
        assert_eq!(env.commit(vec![stale]).await?, not_active(0, "a", ""));
        let fine = Change::new().remove(gone(&file("b"), Some(1))).append(id, v(0))?;
        committed(env.commit(vec![fine]).await?)?;
        assert_eq!(env.paths(id, v(2)).await?, Vec::<String>::new());
        Ok(())
    }

    /// commit 9: a moved head is told before a missing file.
    async fn a_moved_head_is_told_before_a_missing_file(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        env.write(id, Change::files(["a"])).await?;
        let part = Change::new().remove(gone(&file("x"), Some(1))).exactly(id, v(0))?;
        let outcome = env.commit(vec![part]).await?;
        assert_eq!(outcome, CommitOutcome::HeadMoved { index: 0, head: v(1) });
        Ok(())
    }

    /// commit 5: an add of an active file replaces its row, without a tombstone.
    async fn an_add_of_an_active_file_replaces_it(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a", "b"])).await?;
        let mut new = file("a");
        new.size = 7;
        new.stats = Some(r#"{"numRecords":1}"#.to_owned());
        env.write(id, Change::new().add(new.clone())).await?;
        let files = env.files(id, v(1)).await?;
        assert_eq!(files.len(), 2);
        assert_eq!((files[0].add.path.as_str(), &files[1].add), ("b", &new));
        assert_eq!(files[1].cursor.added_version, v(1));
        assert_eq!(env.files(id, v(0)).await?[0].add, file("a"), "the past is what it was");
        assert_eq!(env.buried(id, v(1), i64::MIN).await?, Vec::<String>::new());
        let snapshot = env.snapshot(id, At::Head).await?;
        assert_eq!((snapshot.num_files, snapshot.size_bytes), (2, 107));
        Ok(())
    }

    /// commit 5: removes apply before adds: one commit may remove a file and add it again.
    async fn remove_and_add_in_one_commit_leaves_the_file(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a", "b"])).await?;
        let mut new = file("a");
        new.size = 1;
        // The add stands first in the bytes: the order of lines does not matter.
        env.write(id, Change::new().add(new.clone()).remove(gone(&file("a"), Some(9)))).await?;
        assert_eq!(env.paths(id, v(1)).await?, ["b", "a"]);
        assert_eq!(env.files(id, v(1)).await?[1].add, new);
        assert_eq!(env.buried(id, v(1), i64::MIN).await?, Vec::<String>::new());
        let snapshot = env.snapshot(id, At::Head).await?;
        assert_eq!((snapshot.num_files, snapshot.size_bytes), (2, 101));
        Ok(())
    }

    /// contract 7: a file is its path and its deletion vector: the two states are two files.
    async fn the_deletion_vector_is_part_of_a_file(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a"])).await?;
        let (one, two) = (with_dv(file("a"), "one"), with_dv(file("a"), "two"));
        let first = Change::new().remove(gone(&file("a"), Some(5))).add(one.clone());
        env.write(id, first).await?;
        env.write(id, Change::new().remove(gone(&one, Some(6))).add(two.clone())).await?;
        let files = env.files(id, v(2)).await?;
        assert_eq!(files.iter().map(|f| &f.add).collect::<Vec<_>>(), [&two]);
        let buried = env.tombstones(id, v(2), 0).await?;
        let mut keys: Vec<_> = buried.iter().map(|t| t.remove.key()).collect();
        keys.sort();
        assert_eq!(keys, [file("a").key(), one.key()]);
        assert_eq!(buried.len(), 2, "each key has its own tombstone");
        // Two vectors of one path at once are two rows: it is not ours to judge.
        env.write(id, Change::new().add(one.clone())).await?;
        assert_eq!(env.files(id, v(3)).await?.len(), 2);
        assert_eq!(env.snapshot(id, At::Head).await?.num_files, 2);
        Ok(())
    }

    /// contract 7: a path is compared byte for byte: never decoded, folded or trimmed.
    async fn paths_are_compared_byte_for_byte(env: &Env) -> CaseResult {
        let paths = [
            "p=a/f",
            "p=A/f",
            "p=%61/f",
            "p=a//f",
            "./p=a/f",
            "p=a/f ",
            " p=a/f",
            "p=á/f",
            "p=a\u{301}/f",
            "P=a/f",
            "p=a/F",
        ];
        let id = env.create_with("t", Change::files(paths)).await?;
        assert_eq!(env.paths(id, v(0)).await?, paths);
        for (i, path) in paths.iter().enumerate() {
            env.write(id, Change::new().remove(gone(&file(*path), Some(1)))).await?;
            let left = env.paths(id, v(i64::try_from(i)? + 1)).await?;
            assert_eq!(left, paths[i + 1..]);
        }
        Ok(())
    }

    /// list_files 2: within a version files keep the order of the commit.
    async fn files_keep_the_order_of_the_commit(env: &Env) -> CaseResult {
        let first = ["z", "m", "a", "0", "B"];
        let id = env.create_with("t", Change::files(first)).await?;
        env.write(id, Change::files(["y", "b"])).await?;
        let files = env.files(id, v(1)).await?;
        let got: Vec<_> = files
            .iter()
            .map(|f| (f.cursor.added_version.get(), f.cursor.ordinal, f.add.path.as_str()))
            .collect();
        let want = [
            (0, 0, "z"),
            (0, 1, "m"),
            (0, 2, "a"),
            (0, 3, "0"),
            (0, 4, "B"),
            (1, 0, "y"),
            (1, 1, "b"),
        ];
        assert_eq!(got, want);
        Ok(())
    }

    /// snapshot 2: totals follow every add, remove and replacement, at every version.
    async fn totals_are_right_at_every_version(env: &Env) -> CaseResult {
        let sized = |path: &str, size| {
            let mut add = file(path);
            add.size = size;
            add
        };
        let id = env.create("t").await?;
        let mut want = vec![(0, 0)];
        for (change, files, bytes) in [
            (Change::new().add(sized("a", 10)).add(sized("b", 20)), 2, 30),
            (Change::new().add(sized("a", 15)), 2, 35),
            (Change::new().remove(gone(&sized("b", 20), Some(1))).add(sized("c", 0)), 2, 15),
            (Change::new().remove(gone(&sized("a", 15), Some(1))), 1, 0),
            (Change::new(), 1, 0),
            (Change::new().remove(gone(&sized("c", 0), None)).add(sized("d", 5)), 1, 5),
        ] {
            env.write(id, change).await?;
            want.push((files, bytes));
        }
        let history = env.history(id).await?;
        for (record, want) in history.iter().rev().zip(&want) {
            let snapshot = env.snapshot(id, At::Version(record.version)).await?;
            assert_eq!((snapshot.num_files, snapshot.size_bytes), *want, "{}", record.version);
            assert_eq!((record.total_files, record.total_bytes), *want, "{}", record.version);
            let files = env.files(id, record.version).await?;
            let bytes: i64 = files.iter().map(|f| f.add.size).sum();
            assert_eq!((u64::try_from(files.len())?, u64::try_from(bytes)?), *want);
        }
        Ok(())
    }

    /// list_commits 3: a remove without a size counts the bytes of the file it removes.
    async fn a_remove_without_size_counts_known_bytes(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a", "b"])).await?;
        let mut remove = gone(&file("a"), None);
        remove.size = None;
        remove.partition_values = None;
        remove.extended_file_metadata = None;
        env.write(id, Change::new().remove(remove.clone())).await?;
        let record = env.history(id).await?[0].clone();
        assert_eq!((record.num_removed, record.bytes_removed), (1, 100));
        assert_eq!((record.total_files, record.total_bytes), (1, 100));
        assert_eq!(env.tombstones(id, v(1), -1).await?[0].remove, remove, "as it was written");
        Ok(())
    }
}
