use proptest::prelude::*;

use super::*;

fn root(location: &str) -> TableRoot {
    TableRoot::new(location).unwrap()
}

fn inside(location: &str, path: &str) -> String {
    match root(location).resolve(path).unwrap().place {
        Place::Inside(key) => key,
        Place::Outside(outside) => panic!("{path} is outside, at {}", outside.url),
    }
}

fn outside(location: &str, path: &str) -> Outside {
    match root(location).resolve(path).unwrap().place {
        Place::Inside(key) => panic!("{path} is inside, at {key}"),
        Place::Outside(outside) => outside,
    }
}

#[test]
fn every_spelling_of_a_local_file_is_that_file() {
    for path in [
        "x/a.parquet",
        "./x/a.parquet",
        "x//a.parquet",
        "x/./a.parquet",
        "b/../x/a.parquet",
        "../t/x/a.parquet",
        "..//./t/x/a.parquet",
        "../../../../data/t/x/a.parquet",
        "/data/t/x/a.parquet",
        "//localhost/data/t/x/a.parquet",
        "/data//t/./x/a.parquet",
        "file:/data/t/x/a.parquet",
        "file:///data/t/x/a.parquet",
        "file:////data/t/x/a.parquet",
        "file://localhost/data/t/x/a.parquet",
        "file://LOCALHOST/data/t/x/a.parquet",
        "FILE:///data/t/x/a.parquet",
        "File:/data/u/../t/x/a.parquet",
        "x/%61.parquet",
        "%78%2Fa%2eparquet",
        "x/%2E/a.parquet",
        "%2e%2e/t/x/a.parquet",
        "x/a.parquet?versionId=1",
        "file:///data/t/x/a.parquet#part",
    ] {
        assert_eq!(inside("file:///data/t", path), "x/a.parquet", "{path}");
    }
    // What only some readers take for it is kept as well.
    for path in ["x\\a.parquet", "///data/t/x/a.parquet", " x/a.parquet", "x/a.par\nquet"] {
        let found = root("file:///data/t").resolve(path).unwrap();
        assert!(found.keys().any(|key| key == "x/a.parquet"), "{path}: {found:?}");
    }
    let whole = root("file:///data/t").resolve("file%3A%2F%2F%2Fdata%2Ft%2Fx%2Fa.parquet");
    assert!(whole.unwrap().keys().any(|key| key == "x/a.parquet"));
}

#[test]
fn names_are_decoded_once_and_kept_in_every_other_reading() {
    let found = root("file:///t").resolve("day=a%20b/odd%2520name.parquet").unwrap();
    assert_eq!(found.place, Place::Inside("day=a b/odd%20name.parquet".to_owned()));
    let keys: Vec<&str> = found.keys().collect();
    for also in ["day=a%20b/odd%2520name.parquet", "day=a b/odd name.parquet"] {
        assert!(keys.contains(&also), "{keys:?}");
    }
    // A writer that does not encode.
    for name in ["100%.parquet", "a?b.parquet", "a#b.parquet", "a b.parquet", "ts=10:00/x", "a%zz"]
    {
        let found = root("file:///t").resolve(name).unwrap();
        assert!(found.keys().any(|key| key == name), "{name}: {found:?}");
    }
    assert_eq!(inside("file:///my%20lake/t", "/my%20lake/t/a"), "a");
    assert_eq!(inside("file:///50%25/t", "file:/50%25/t/a%25"), "a%");
}

#[test]
fn object_stores_have_many_addresses() {
    for path in [
        "s3://bucket/t/a%20b",
        "s3a://bucket/t/a%20b",
        "s3n://BUCKET/t/a%20b",
        "S3A://key:secret@bucket/t/a%20b",
        "/t/a%20b",
        "//bucket/t/a%20b",
        "s3:/t/a%20b",
        "../t/a%20b",
        "https://bucket.s3.eu-west-1.amazonaws.com/t/a%20b",
        "https://s3.amazonaws.com:443/bucket/t/a%20b",
    ] {
        assert_eq!(inside("s3://bucket/t", path), "a b", "{path}");
        assert_eq!(inside("s3a://bucket/t", path), "a b", "{path}");
    }
    let azure = [
        "abfss://c@acct.dfs.core.windows.net/t/a",
        "abfs://c@ACCT.dfs.core.windows.net/t/a",
        "wasbs://c@acct.blob.core.windows.net/t/a",
        "wasb://c@acct.blob.core.windows.net:443/t/a",
        "az://c@acct.blob.core.windows.net/t/a",
        "https://acct.blob.core.windows.net/c/t/a",
        "az://c/t/a",
        "abfs://c/t/a",
        "azure://c/t/a",
        "adl://c/t/a",
    ];
    for path in azure {
        for location in [azure[0], azure[2], azure[5]] {
            let location = location.trim_end_matches("/a");
            assert_eq!(inside(location, path), "a", "{path} at {location}");
        }
        let table = root("az://c/t").with_account("Acct");
        assert_eq!(table.resolve(path).unwrap().place, Place::Inside("a".to_owned()), "{path}");
        // Whose account is not told: it may be the same.
        let found = root("az://c/t").resolve(path).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a"], "{path}");
    }
    for path in ["gs://b/t/a", "gcs://b/t/a", "https://storage.googleapis.com/b/t/a"] {
        assert_eq!(inside("gs://b/t", path), "a", "{path}");
    }
    assert_eq!(inside("memory://name/t", "memory://name/t/a"), "a");
}

#[test]
fn what_lies_elsewhere_has_one_url() {
    for path in ["/data/t2/a", "../t2/a", "file:/data/t2/a", "file://localhost/data/./t2//a"] {
        let found = outside("file:///data/t", path);
        assert_eq!(
            (found.url.as_str(), found.same_volume, found.key.as_str()),
            ("file:///data/t2/a", true, "data/t2/a"),
            "{path}"
        );
    }
    let clone = outside("s3://mine/t", "s3a://key:secret@Theirs/t2/a%20b");
    assert_eq!((clone.url.as_str(), clone.same_volume), ("s3://theirs/t2/a%20b", false));
    assert_eq!(outside("file:///t", "hdfs://Name:8020/x").url, "hdfs://name/x");
    let other =
        outside("abfss://c@a.dfs.core.windows.net/t", "wasbs://c@b.blob.core.windows.net/x");
    assert_eq!(other.url, "abfss://c@b.dfs.core.windows.net/x");
    // The same key behind another name of the same bucket is kept.
    let found = root("s3://bucket/lake/t").resolve("gs://bucket/lake/t/a").unwrap();
    assert!(matches!(found.place, Place::Outside(_)));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn what_nobody_can_place_is_named() {
    for path in [
        "",
        ".",
        "..",
        "x/..",
        "/data/t",
        "file:/",
        "file://otherhost/data/t/a",
        "dbfs:/mnt/t/a",
        "viewfs://cluster/t/a",
        "https://minio.local:9000/bucket/t/a",
        "x/%FF%FE.parquet",
        "s3:///key",
        "abfss://acct.dfs.core.windows.net/t/a",
    ] {
        let error = root("file:///data/t").resolve(path).unwrap_err().to_string();
        assert!(error.contains(&format!("path '{path}' cannot be placed")), "{error}");
    }
    let secret = root("file:///t").resolve("dbfs://user:hidden@x/a?sig=hidden").unwrap_err();
    assert!(!secret.to_string().contains("hidden"), "{secret}");
    assert!(TableRoot::new("data/t").is_err());
}

#[test]
fn spellings_within_a_table_have_one_key() {
    for path in ["day=a b/x", "day=a%20b/x", "day=a%20b//./x", "./day=a b/x", "%64ay=a%20b%2fx"] {
        assert_eq!(relative_key(path), "day=a b/x", "{path}");
    }
    for path in ["../t/x", "a/../x", "/t/x", "file:/t/x", "%FF", ".", ""] {
        assert_eq!(relative_key(path), path);
    }
}

#[test]
fn roots_are_told_apart() {
    let holds = |a: &str, b: &str| root(a).holds(&root(b));
    assert_eq!(holds("file:///a", "file:/a/b/c").as_deref(), Some("b/c"));
    assert_eq!(holds("s3://b/a", "s3a://b/a").as_deref(), Some(""));
    assert_eq!(holds("file:///a", "file:///ab"), None);
    assert_eq!(holds("file:///a/b", "file:///a"), None);
    let azure = holds("az://c/t", "abfss://c@acct.dfs.core.windows.net/t/u");
    assert_eq!(azure.as_deref(), Some("u"));
}

#[test]
fn deletion_vectors_have_the_protocols_file_names() {
    let vector = |storage_type: &str, text: &str| DeletionVector {
        storage_type: storage_type.to_owned(),
        path_or_inline_dv: text.to_owned(),
        offset: Some(1),
        size_in_bytes: 1,
        cardinality: 1,
        max_row_index: None,
    };
    let place = |kind: &str, text: &str| {
        let found = root("file:///t").resolve_vector(&vector(kind, text));
        found.map(|found| found.map(|found| found.place))
    };
    let encoded = "ab^-aqEH.-t@S}K{vb[*k^";
    let want = "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin";
    assert_eq!(place("u", encoded).unwrap(), Some(Place::Inside(want.to_owned())));
    assert_eq!(place("u", &encoded[2..]).unwrap(), Some(Place::Inside(want[3..].to_owned())));
    assert_eq!(place("p", "file:/t/x.bin").unwrap(), Some(Place::Inside("x.bin".to_owned())));
    assert_eq!(place("i", "anything").unwrap(), None);
    for bad in ["", "short", "ab^-aqEH.-t@S}K{vb[*k\u{e9}"] {
        assert!(place("u", bad).is_err(), "{bad}");
    }
    assert!(place("r", encoded).is_err());
}

/// A name as engines may find one: no slash, not `.` or `..`.
fn name() -> impl Strategy<Value = String> {
    let odd = "[a-c =%?#:+&~{}|^`\"<>\\\\é日2-5F]{1,8}";
    prop_oneof![odd, "[a-z0-9=._-]{1,12}", "[a-z]%2[05F]{1,3}[a-z]"]
        .prop_filter("dots are no names", |name| !matches!(name.as_str(), "." | ".."))
}

/// Each character of a name as it is or encoded, in upper or lower case; what must be is.
fn spell(name: &str, choices: &[u8]) -> String {
    let mut out = String::new();
    let encode = |out: &mut String, c: char, upper: bool| {
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            let encoded = format!("%{byte:02x}");
            out.push_str(&if upper { encoded.to_ascii_uppercase() } else { encoded });
        }
    };
    for (i, c) in name.chars().enumerate() {
        let must = !c.is_ascii_alphanumeric() && !"-._~=".contains(c);
        match (choices[i % choices.len()] % 3, must) {
            (0, false) => out.push(c),
            (choice, _) => encode(&mut out, c, choice != 1),
        }
    }
    out
}

#[test]
fn a_folder_may_be_called_as_a_drive_is() {
    let found = TableRoot::new("file:///lake/t").unwrap().resolve("a:/<").unwrap();
    assert!(found.keys().any(|key| key == "a:/<"), "{found:?}");
}

proptest! {
    /// Each spelling of a file resolves to that file, below each kind of root.
    #[test]
    fn spellings_of_one_file_are_one(
        names in proptest::collection::vec(name(), 1..4),
        table in name(),
        choices in proptest::collection::vec(any::<u8>(), 7),
        noise in proptest::collection::vec(0_u8..4, 4),
    ) {
        let key = names.join("/");
        let table = encode(&table);
        let mut relative = String::new();
        for (i, name) in names.iter().enumerate() {
            if i > 0 {
                relative.push('/');
            }
            relative += ["", "./", "/", "gone/../"][usize::from(noise[i])];
            // A doubled slash in front would make it absolute.
            if i == 0 && noise[0] == 2 {
                relative = "./".to_owned();
            }
            relative += &spell(name, &choices);
        }
        for (location, addresses) in [
            (format!("file:///lake/{table}"), vec![
                format!("file:/lake/{table}/"), format!("FILE://localhost/lake/{table}/"),
                format!("/lake/{table}/"), format!("//localhost/lake//{table}/"),
            ]),
            (format!("s3://bucket/lake/{table}"), vec![
                format!("s3a://bucket/lake/{table}/"), format!("S3N://Bucket/x/../lake/{table}/"),
                format!("/lake/{table}/"),
            ]),
            (format!("az://c/lake/{table}"), vec![format!("abfss://c/lake/{table}/")]),
            (format!("abfss://c@a.dfs.core.windows.net/lake/{table}"), vec![
                format!("wasb://c@A.blob.core.windows.net/lake/{table}/"),
            ]),
        ] {
            let root = TableRoot::new(&location).unwrap();
            let up = format!("../{table}/");
            for before in [String::new(), "./".to_owned(), up].into_iter().chain(addresses) {
                let path = format!("{before}{relative}");
                let found = root.resolve(&path).unwrap();
                prop_assert_eq!(&found.place, &Place::Inside(key.clone()), "{} at {}", path, location);
            }
        }
    }

    /// Two files never share a canonical spelling, so none passes for the other.
    #[test]
    fn files_do_not_collide(a in name(), b in name()) {
        prop_assume!(a != b);
        let root = TableRoot::new("file:///lake/t").unwrap();
        let [a, b] = [a, b].map(|name| root.resolve(&encode(&name)).unwrap().place);
        prop_assert_ne!(a, b);
    }

    /// A name that its writer did not encode is among what is kept, whatever is in it.
    #[test]
    fn a_name_that_is_not_encoded_is_kept(names in proptest::collection::vec(name(), 1..4)) {
        let key = names.join("/");
        let root = TableRoot::new("file:///lake/t").unwrap();
        if let Ok(found) = root.resolve(&key) {
            prop_assert!(found.keys().any(|k| k == key), "{} {:?}", key, found);
        }
    }
}
