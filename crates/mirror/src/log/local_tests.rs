//! The folder is read as the object store reads it, and what is wrong is named as exactly.

use std::collections::BTreeMap;
use std::io::Write;

use futures::TryStreamExt;

use super::*;
use crate::log::read_commits;
use crate::store::open_store;

struct Folder {
    dir: tempfile::TempDir,
    table: Store,
    log: LocalLog,
}

impl Folder {
    /// With an odd name, as the path is used in two ways.
    fn new() -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("50%25 off & naïve #1");
        fs::create_dir_all(root.join(LOG_FOLDER)).unwrap();
        let table = open_store(root.to_str().unwrap(), &BTreeMap::new()).unwrap();
        let log = LocalLog::of(&table).unwrap();
        Folder { dir, table, log }
    }

    /// Commits 0 to `n - 1`, each with two files.
    fn with_commits(n: i64) -> Folder {
        let folder = Folder::new();
        for version in 0..n {
            folder.write(version, &(add(version, "a") + "\n" + &add(version, "b") + "\n"));
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.log.folder.join(name)
    }

    fn commit_path(&self, version: i64) -> PathBuf {
        self.path(&format!("{version:020}.json"))
    }

    fn write(&self, version: i64, text: &str) {
        fs::write(self.commit_path(version), text).unwrap();
    }

    async fn files(&self) -> Vec<CommitFile> {
        self.log.list(None).await.unwrap().commits
    }

    async fn stored(&self, files: Vec<CommitFile>) -> Vec<ReadCommit> {
        let commits = read_commits(&self.table.store, &self.table.log_folder(), files);
        commits.try_collect().await.unwrap()
    }

    /// The versions that are read, and the first error.
    async fn until_error(&self, files: Vec<CommitFile>) -> (Vec<i64>, String) {
        let mut commits = self.log.commits(files);
        let mut versions = Vec::new();
        loop {
            match commits.next().await.unwrap() {
                Ok(commit) => versions.push(commit.file.version.get()),
                Err(error) => return (versions, error.to_string()),
            }
        }
    }
}

fn add(version: i64, name: &str) -> String {
    format!(
        r#"{{"add":{{"path":"{name}{version}","partitionValues":{{}},"size":7,"modificationTime":1,"dataChange":true}}}}"#
    )
}

fn file(version: i64, size: u64) -> CommitFile {
    CommitFile { version: Version::new(version).unwrap(), size, modified: TimestampMs(1) }
}

/// More than a file may have that is read as a whole.
fn long_text() -> String {
    let stats = "x".repeat(9_000);
    let line =
        |n: i64| add(n, "long").replace(r#""size""#, &format!(r#""stats":"{stats}","size""#));
    let text = (0..3_800).map(line).collect::<Vec<_>>().join("\n");
    assert!(text.len() as u64 > STREAMED_BYTES);
    text
}

#[test]
fn groups_are_bounded_in_number_and_bytes_and_keep_the_order() {
    let sizes = |sizes: &[u64]| -> Vec<Vec<i64>> {
        let files = (0..).zip(sizes).map(|(version, size)| file(version, *size)).collect();
        let versions = |group: Vec<CommitFile>| group.iter().map(|f| f.version.get()).collect();
        groups(files).map(versions).collect()
    };
    assert_eq!(sizes(&[]), Vec::<Vec<i64>>::new());
    assert_eq!(sizes(&[0, 1, GROUP_BYTES, 5, 6]), [vec![0, 1], vec![2], vec![3, 4]]);
    assert_eq!(sizes(&[u64::MAX, u64::MAX, 1]), [[0], [1], [2]]);
    let many: Vec<usize> = sizes(&[9; 2 * GROUP_COMMITS + 1]).iter().map(Vec::len).collect();
    assert_eq!(many, [GROUP_COMMITS, GROUP_COMMITS, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_those_of_the_object_store() {
    let folder = Folder::with_commits(150);
    folder.write(3, "");
    folder.write(4, "\r\n\n");
    folder.write(5, &add(5, "no newline at the end"));
    folder.write(70, &long_text());
    let files = folder.files().await;
    assert_eq!(files.len(), 150);
    let got: Vec<ReadCommit> = folder.log.commits(files.clone()).try_collect().await.unwrap();
    assert!(got == folder.stored(files).await);
    let added: Vec<usize> = got.iter().map(|commit| commit.index.adds.len()).collect();
    assert_eq!((added[2], added[3], added[4], added[5], added[149]), (2, 0, 0, 1, 2));
    let later: Vec<_> = got.iter().filter_map(|c| Some(c.later.as_ref()?.files())).collect();
    assert_eq!(later, [3_800]);
}

#[tokio::test]
async fn the_order_is_the_one_that_was_asked_for() {
    let folder = Folder::with_commits(3);
    let mut files = folder.files().await;
    files.reverse();
    let got: Vec<_> = folder.log.commits(files).try_collect().await.unwrap();
    let versions: Vec<i64> = got.iter().map(|commit| commit.file.version.get()).collect();
    assert_eq!(versions, [2, 1, 0]);
    assert!(folder.log.commits(Vec::new()).next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_after_what_is_right() {
    type Break = fn(&Folder);
    let cases: [(&str, Break, &[&str]); 4] = [
        (
            "no action",
            |folder| folder.write(77, &(add(0, "x") + "\n\n{oops\n" + &add(1, "x"))),
            &["00000000000000000077.json', line 3: not a JSON object"],
        ),
        (
            "not UTF-8",
            |folder| fs::write(folder.commit_path(77), b"{}\n{}\n\xff\n").unwrap(),
            &["00000000000000000077.json', line 3: not UTF-8"],
        ),
        (
            "gone",
            |folder| fs::remove_file(folder.commit_path(77)).unwrap(),
            &["cannot read commit file '", "00000000000000000077.json'", "not found"],
        ),
        (
            "a folder",
            |folder| {
                fs::remove_file(folder.commit_path(77)).unwrap();
                fs::create_dir(folder.commit_path(77)).unwrap();
            },
            &["cannot read commit file '", "00000000000000000077.json'"],
        ),
    ];
    for (case, make, wanted) in cases {
        let folder = Folder::with_commits(150);
        let files = folder.files().await;
        make(&folder);
        let (versions, error) = folder.until_error(files).await;
        assert_eq!(versions, (0..77).collect::<Vec<_>>(), "{case}");
        for fragment in wanted {
            assert!(error.contains(fragment), "{case}: {error}");
        }
        assert!(error.contains("naïve"), "{case}: {error}");
    }
}

#[tokio::test]
async fn a_file_that_has_grown_is_read_to_its_end() {
    let folder = Folder::with_commits(3);
    let files = folder.files().await;
    let mut longer = fs::OpenOptions::new().append(true).open(folder.commit_path(1)).unwrap();
    for n in 0..50 {
        longer.write_all((add(n, "more") + "\n").as_bytes()).unwrap();
    }
    folder.write(2, &long_text());
    let got: Vec<_> = folder.log.commits(files.clone()).try_collect().await.unwrap();
    assert_eq!(got[1].index.adds.len(), 52);
    assert_eq!(got[1], folder.stored(files).await[1]);
    // Not in memory, though it was listed as a small one.
    assert_eq!(
        got[2].later.as_ref().map(deltalakedb_catalog_core::later::LaterAdds::files),
        Some(3_800)
    );
    assert_eq!(got[2].raw_len, fs::metadata(folder.commit_path(2)).unwrap().len());
}

#[tokio::test]
async fn nothing_more_is_read_when_nobody_waits() {
    let folder = Folder::with_commits(3);
    let files = folder.files().await;
    assert!(read(folder.log.clone(), Weak::new(), files.clone(), None).await.is_empty());

    // Between two files, and in the midst of one.
    let waiting = Arc::new(());
    let wanted = Arc::downgrade(&waiting);
    let mut reader = GroupReader { log: folder.log.clone(), wanted, buffer: Vec::new() };
    assert!(reader.commit(files[0]).is_ok());
    let open = File::open(folder.commit_path(1)).unwrap();
    let mut open = WhileWanted { file: open, wanted: &reader.wanted };
    let mut some = [0; 16];
    open.read_exact(&mut some).unwrap();
    drop(waiting);
    let error = open.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("nobody waits"), "{error}");
    let error = reader.commit(files[1]).unwrap_err();
    assert!(matches!(error, CatalogError::Unavailable { .. }), "{error}");

    let mut commits = folder.log.commits(files);
    let first = commits.next().await.unwrap().unwrap();
    assert_eq!(first.file.version, Version::ZERO);
}

#[tokio::test]
async fn the_folder_is_listed_as_the_object_store_lists_it() {
    let folder = Folder::with_commits(12);
    let id = "80a083e8-7026-4e79-81be-64bd76c43a11";
    for name in [
        "00000000000000000003.crc",
        "00000000000000000003.checkpoint.parquet",
        "00000000000000000005.checkpoint.0000000001.0000000002.parquet",
        "00000000000000000005.checkpoint.0000000002.0000000002.parquet",
        "00000000000000000006.checkpoint.0000000001.0000000002.parquet",
        &format!("00000000000000000007.checkpoint.{id}.json"),
        &format!("00000000000000000007.checkpoint.{{{id}}}.parquet"),
        "00000000000000000000.00000000000000000005.compacted.json",
        "_last_checkpoint",
        ".00000000000000000001.json.crc",
        "00000000000000000013.json.tmp",
        "an odd #1 ü.json",
    ] {
        fs::write(folder.path(name), name).unwrap();
    }
    fs::create_dir(folder.path("_sidecars")).unwrap();
    fs::write(folder.path("_sidecars/00000000000000000014.json"), "x").unwrap();
    fs::create_dir(folder.path("00000000000000000015.json")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        fs::write(folder.dir.path().join("elsewhere"), "12345").unwrap();
        symlink(folder.dir.path().join("elsewhere"), folder.commit_path(12)).unwrap();
        symlink(folder.dir.path().join("nowhere"), folder.commit_path(16)).unwrap();
        symlink(folder.dir.path(), folder.commit_path(17)).unwrap();
    }
    let ours = folder.log.list(None).await.unwrap();
    let stored = LogListing::read(&folder.table.store, &folder.table.log_folder()).await.unwrap();
    assert_eq!(format!("{ours:?}"), format!("{stored:?}"));
    assert_eq!(ours.checkpoints.len(), 3);
    assert_eq!((ours.checksums.len(), ours.has_last_checkpoint), (1, true));
    #[cfg(unix)]
    assert_eq!(ours.commits.last().map(|c| (c.version.get(), c.size)), Some((12, 5)));

    let after = Version::new(9).unwrap();
    let later = folder.log.list(Some(after)).await.unwrap().commits;
    let mut wanted = stored.commits;
    wanted.retain(|commit| commit.version > after);
    assert_eq!(later, wanted);
}

#[tokio::test]
async fn a_place_without_a_log_is_empty() {
    let folder = Folder::new();
    assert!(folder.log.list(None).await.unwrap().is_empty());
    fs::remove_dir(&folder.log.folder).unwrap();
    assert!(folder.log.list(None).await.unwrap().is_empty());
    fs::write(&folder.log.folder, "no folder").unwrap();
    assert!(folder.log.list(None).await.unwrap().is_empty());
    let memory = open_store("memory://no-folder/t", &BTreeMap::new()).unwrap();
    assert!(LocalLog::of(&memory).is_none());
}
