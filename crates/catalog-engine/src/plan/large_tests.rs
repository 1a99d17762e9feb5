use super::*;
use deltalakedb_catalog_core::action::{Metadata, Protocol};
use deltalakedb_catalog_core::error::CatalogError;

fn add(path: &str) -> String {
    format!(
        r#"{{"add":{{"path":"{path}","partitionValues":{{}},"size":3,"modificationTime":1,"dataChange":false}}}}"#
    )
}

fn of_adds() -> OfAdds {
    let protocol = Protocol {
        min_reader_version: 1,
        min_writer_version: 2,
        reader_features: None,
        writer_features: None,
    };
    let metadata: Metadata = serde_json::from_str(
        r#"{"id":"m","format":{"provider":"parquet"},"schemaString":"{}","partitionColumns":[]}"#,
    )
    .unwrap();
    OfAdds::new(&protocol, &metadata).unwrap()
}

fn adds(text: &str) -> Result<(String, LaterAdds)> {
    let (lines, large) = read("c", text.as_bytes())?;
    let index = deltalakedb_catalog_core::commit::index_lines(lines);
    let (packed, later) = large.into_adds(text.as_bytes(), &index, of_adds())?;
    Ok((String::from_utf8(packed.unpack()?).unwrap(), later))
}

fn paths(later: &LaterAdds) -> Result<Vec<String>> {
    let mut pages = later.pages()?;
    let mut paths = Vec::new();
    while let Some(page) = pages.blocking_next()? {
        paths.extend(page.iter().map(|add| add.path.clone()));
    }
    Ok(paths)
}

#[test]
fn what_is_stored_is_every_line_but_blank_ones_and_the_commit_info() {
    let text = format!(
        "\n{}\r\n  \n{{\"commitInfo\":{{}}}}\n{}\n{{\"txn\":{{\"appId\":\"a\",\"version\":1}}}}\n{}",
        add("a"),
        add("b"),
        add("c")
    );
    let (stored, later) = adds(&text).unwrap();
    let txn = r#"{"txn":{"appId":"a","version":1}}"#;
    assert_eq!(stored, [&add("a"), &add("b"), txn, &add("c"), ""].join("\n"));
    assert_eq!((later.files(), later.bytes()), (3, 9));
    assert_eq!(paths(&later).unwrap(), ["a", "b", "c"]);
    // It can be read again, when a commit has lost a race.
    assert_eq!(paths(&later).unwrap(), ["a", "b", "c"]);
}

#[test]
fn a_file_that_is_added_by_two_spellings_is_named() {
    for (first, second) in [("day=a%20b/x", "day=a b/x"), ("x/a", "x//a"), ("./b", "b")] {
        let text = [add(first), add("other"), add(second)].join("\n");
        let error = adds(&text).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("in line 1"), "{error}");
    }
}

#[test]
fn an_add_that_is_wrong_is_named_by_its_line_in_what_was_handed_over() {
    for (before, line) in [("", 3), ("\n", 4), ("\n\n{\"commitInfo\":{}}\n", 6)] {
        for (wrong, what) in [
            (add("../x"), "escapes the table's root"),
            (add("y").replace("false", "1"), "invalid type"),
            (add("z").replace("\"modificationTime\":1,", ""), "modificationTime"),
            (add("z").replace("{}", "{\"k\":\"v\"}"), "unknown partition column 'k'"),
        ] {
            let text = format!("{before}{}\n{}\n{wrong}\n{}\n", add("a"), add("b"), add("c"));
            let error = adds(&text).and_then(|(_, later)| paths(&later)).unwrap_err();
            assert!(matches!(error, CatalogError::InvalidInput(_)), "{error:?}");
            let error = error.to_string();
            assert!(
                error.contains(&format!("c, line {line}: ")) && error.contains(what),
                "{error}"
            );
        }
    }
}

#[test]
fn a_file_that_occurs_twice_is_found_with_both_lines() {
    for again in [add("b"), r#"{"remove":{"path":"b","dataChange":true}}"#.to_owned()] {
        let text = format!("{}\n\n{}\n{}\n{again}\n", add("a"), add("b"), add("c"));
        let error = adds(&text).unwrap_err().to_string();
        assert!(error.contains("c, line 5: file 'b' has an action in line 3 already"), "{error}");
    }
}

#[test]
fn blocks_are_compressed_as_they_fill() {
    let text: String = (0..40_000).map(|n| add(&format!("p/{n}")) + "\n").collect();
    assert!(text.len() > 3 * BLOCK_BYTES);
    let (stored, later) = adds(&text).unwrap();
    assert!(stored == text && later.files() == 40_000);
    assert_eq!(paths(&later).unwrap().len(), 40_000);
}

#[test]
fn lines_that_were_left_out_are_counted() {
    let mut left_out = LeftOut::default();
    // Of six lines the first, second and fifth are left out.
    for next in [1, 1, 3] {
        left_out.note(next);
    }
    assert_eq!([1, 2, 3].map(|line| left_out.original(line)), [3, 4, 6]);
    assert_eq!([1, 2].map(|line| LeftOut::default().original(line)), [1, 2]);
}
