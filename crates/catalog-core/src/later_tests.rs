use super::*;
use crate::backend::{ImportedCommit, in_memory};
use crate::commit::index_ndjson;
use crate::ids::{TimestampMs, Version};

fn add(n: usize, extra: &str) -> String {
    format!(
        r#"{{"add":{{"path":"p/é{n}","partitionValues":{{"a":"{n}"}},"size":{n},"modificationTime":7,"dataChange":true{extra}}}}}"#
    )
}

fn large(text: &str, page: usize) -> Result<LargeCommit> {
    // In pieces of any length.
    struct Slow<'t>(&'t [u8]);
    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let end = into.len().min(self.0.len()).min(7);
            self.0.read(&mut into[..end])
        }
    }
    read_large_by("x", Slow(text.as_bytes()), page)
}

async fn whole(read: LargeCommit) -> CommitIndex {
    let mut index = read.index;
    index.adds = read.later.all().await.unwrap();
    index
}

#[tokio::test]
async fn a_large_commit_says_what_a_small_one_says() {
    let mut lines: Vec<String> = (0..2_000).map(|n| add(n, "")).collect();
    lines.insert(0, r#"{"commitInfo":{"operation":"WRITE"}}"#.to_owned());
    lines.insert(3, String::new());
    lines.insert(4, "  \r".to_owned());
    lines.insert(5, r#"{"remove":{"path":"gone","dataChange":true}}"#.to_owned());
    lines.insert(700, r#"{"txn":{"appId":"a","version":3}}"#.to_owned());
    lines.insert(701, format!(" {} \r", add(9_999, "")));
    lines.insert(
        702,
        r#"{"remove":null,"add":{"path":"null","size":1,"modificationTime":1}}"#.into(),
    );
    let dv = r#","deletionVector":{"storageType":"u","pathOrInlineDv":"ab","sizeInBytes":1,"cardinality":1}"#;
    lines.push(add(5, dv));
    lines.push(add(6, r#","stats":"{\"numRecords\":1}","tags":{"t":null}"#).replace("é6", "é6b"));
    lines.push(r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#.to_owned());
    for end in ["", "\n", "\r\n\n"] {
        let text = lines.join("\n") + end;
        let want = index_ndjson("x", text.as_bytes()).unwrap();
        for page in [1, 7, 2_003, 2_004, 9_000] {
            let read = large(&text, page).unwrap();
            assert!(!read.twice && read.index.adds.is_empty());
            assert_eq!((read.later.files(), read.later.bytes()), (2_004, want.added_bytes()));
            assert_eq!(read.body.published().unwrap(), text.as_bytes());
            let mut pages = read.later.pages().unwrap();
            let first = pages.next().await.unwrap().unwrap();
            assert_eq!(first.len(), page.min(2_004));
            drop(pages);
            assert_eq!(whole(read).await, want, "{page}");
        }
    }
    assert_eq!(whole(large("", 5).unwrap()).await, CommitIndex::default());
}

#[test]
fn it_is_compressed_as_it_comes() {
    let text: String = (0..60_000).map(|n| add(n, "") + "\n").collect();
    assert!(text.len() > 5 * BLOCK_BYTES);
    let read = read_large("x", text.as_bytes()).unwrap();
    assert_eq!(read.body.published().unwrap(), text.as_bytes());
    let mut pages = read.later.pages().unwrap();
    let mut files = 0;
    while let Some(page) = pages.blocking_next().unwrap() {
        assert!(page.len() <= PAGE);
        files += page.len();
    }
    assert_eq!(files, 60_000);
}

#[test]
fn a_file_that_is_added_twice_is_noticed() {
    let dv = |id: &str| {
        add(
            3,
            &format!(
                r#","deletionVector":{{"storageType":"u","pathOrInlineDv":"{id}","sizeInBytes":1,"cardinality":1}}"#
            ),
        )
    };
    let twice = |lines: &[String]| large(&lines.join("\n"), 2).unwrap().twice;
    assert!(!twice(&[add(1, ""), add(2, ""), add(3, ""), dv("a"), dv("b")]));
    assert!(twice(&[add(1, ""), add(2, ""), add(1, r#","stats":"{}""#)]));
    assert!(twice(&[dv("a"), add(3, ""), dv("a")]));
    // However its path is written.
    assert!(twice(&[add(1, ""), add(1, "").replace("é", "\\u00e9")]));
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_line() {
    for (line, want) in [
        ("broken", "x, line 3: not a JSON object"),
        (r#"{"add":{"path":"a"}}"#, "x, line 3: bad 'add' action: missing field `size`"),
        (r#"{"add":{"path":"a","size":"l"}}"#, "x, line 3: bad 'add' action"),
        (r#"{"add":{"path":"a","size":1},"txn":{}}"#, "x, line 3: bad 'add' action"),
    ] {
        let text = format!("{}\n\n{line}\n{}", add(1, ""), add(2, ""));
        let error = large(&text, 9).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    let error = read_large("x", &b"{}\n\xff\n"[..]).unwrap_err().to_string();
    assert!(error.contains("x, line 2: not UTF-8"), "{error}");
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("cut off"))
        }
    }
    let error = read_large("x", Broken).unwrap_err().to_string();
    assert!(error.contains("cannot read x: cut off"), "{error}");

    // What the first look passes over is found when the page is read, each time.
    let text = format!("{}\n{}", add(1, ""), add(2, "").replace('7', "[7]"));
    let read = large(&text, 1).unwrap();
    for _ in 0..2 {
        let mut pages = read.later.pages().unwrap();
        assert_eq!(pages.next().await.unwrap().unwrap().len(), 1);
        let error = pages.next().await.unwrap_err();
        assert!(matches!(error, CatalogError::InvalidInput(_)), "{error:?}");
        assert!(error.to_string().contains("x, line 2: bad 'add' action"), "{error}");
        assert!(read.later.is_damaged());
        assert!(pages.next().await.is_err(), "an end that was not reached");
    }
    let mut other = large(&add(1, ""), 1).unwrap().later;
    other.files = 2;
    let error = other.all().await.unwrap_err().to_string();
    assert!(error.contains("x adds 1 files, 2 were counted"), "{error}");
    other.text.zstd = other.text.zstd.slice(..other.text.zstd.len() - 9);
    other.all().await.unwrap_err();
}

#[tokio::test]
async fn who_does_not_read_pages_gets_it_whole() {
    let read = large(&(add(1, "") + "\n" + &add(2, "")), 1).unwrap();
    let commit = ImportedCommit {
        version: Version::ZERO,
        timestamp: TimestampMs(1),
        body: read.body,
        index: CommitIndex::default(),
        later: Some(read.later),
        token: None,
    };
    assert_eq!((commit.num_added(), commit.added_bytes()), (2, 3));
    let commits = in_memory(vec![commit.clone(), ImportedCommit { later: None, ..commit }].into());
    let commits = commits.await.unwrap();
    assert_eq!((commits[0].index.adds.len(), commits[1].index.adds.len()), (2, 0));
    assert!(commits.iter().all(|commit| commit.later.is_none()));
    assert_eq!(commits[0].added_bytes(), 3);
}
