use object_store::ObjectStoreExt;

use super::*;

fn options() -> BTreeMap<String, String> {
    BTreeMap::new()
}

#[test]
fn paths_become_absolute_file_urls() {
    let cwd = env::current_dir().unwrap();
    let rel = normalize_location("some/table").unwrap();
    assert_eq!(Url::parse(&rel).unwrap().to_file_path().unwrap(), cwd.join("some/table"));
    assert_eq!(normalize_location("./some//table/").unwrap(), rel);
    assert_eq!(normalize_location("some/other/../table").unwrap(), rel);
    for (given, want) in [
        ("/a/b", "file:///a/b"),
        ("/a/b/", "file:///a/b"),
        ("file:///a/b/", "file:///a/b"),
        ("file:/a/b", "file:///a/b"),
        ("file://localhost/a/b", "file:///a/b"),
        ("file:///a//b/./c/../d", "file:///a/b/d"),
        ("/", "file:///"),
        ("/sp ace/50%/é/a#b?c", "file:///sp%20ace/50%25/%C3%A9/a%23b%3Fc"),
        ("/a/b=c:d", "file:///a/b=c:d"),
        ("memory://m/t/", "memory://m/t"),
        ("memory:///t", "memory:///t"),
    ] {
        let normal = normalize_location(given).unwrap();
        assert_eq!(normal, want, "{given}");
        assert_eq!(normalize_location(&normal).unwrap(), want, "{given}, twice");
    }
}

#[cfg(unix)]
#[test]
fn dot_dot_behind_a_link_means_the_parent_of_its_target() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("real/deep")).unwrap();
    std::os::unix::fs::symlink(root.join("real/deep"), root.join("link")).unwrap();
    let given = format!("{}/link/../t", root.display());
    let want = Url::from_file_path(root.join("real/t")).unwrap();
    assert_eq!(normalize_location(&given).unwrap(), want.as_str());
}

#[test]
fn what_cannot_be_opened_says_why_and_shows_no_secret() {
    for (given, want) in [
        ("", "empty"),
        ("  ", "empty"),
        ("s3://key:hunter2@bucket/t", "password"),
        ("az://c/t?sig=hunter2", "storage options"),
        ("file:///t#x", "%23"),
        ("file://host/t", "local path"),
        ("hdfs://name/t", "hdfs"),
        ("https://example.com/t", "plain web server"),
        ("/a\nb", "a\\nb"),
    ] {
        let error = normalize_location(given).unwrap_err().to_string();
        assert!(error.contains(want), "{given}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn cloud_schemes_open_or_name_their_feature() {
    for (given, feature, there) in [
        ("s3://bucket/a/t/", "`s3`", cfg!(feature = "s3")),
        ("s3a://bucket/a/t", "`s3`", cfg!(feature = "s3")),
        ("az://container/a/t", "`azure`", cfg!(feature = "azure")),
        ("abfss://c@account.dfs.core.windows.net/a/t", "`azure`", cfg!(feature = "azure")),
        ("gs://bucket/a/t", "`gcs`", cfg!(feature = "gcs")),
    ] {
        match normalize_location(given) {
            Ok(normal) => {
                assert!(there, "{given}");
                assert!(!normal.ends_with('/'));
            }
            Err(e) => {
                assert!(!there, "{e}");
                assert!(e.to_string().contains(feature), "{e}");
            }
        }
    }
}

#[tokio::test]
async fn strange_names_are_the_same_file_for_the_store_and_the_system() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["plain", "sp ace", "50%25 off%", "naïve 🚀", "a+b&c", "x{y}[z]~`^|", "#1?", "a:b"]
    {
        let folder = dir.path().join(name);
        let store = open_store(folder.to_str().unwrap(), &options()).unwrap();
        assert_eq!(store.local.as_deref(), Some(folder.as_path()));
        store.store.put(&store.log_dir().join("f"), "x".into()).await.unwrap();
        assert_eq!(std::fs::read(folder.join("_delta_log/f")).unwrap(), b"x", "{name}");
        let again = open_store(store.url.as_str(), &options()).unwrap();
        assert_eq!((&again.root, &again.url), (&store.root, &store.url));
        assert_eq!(store.dir_url().as_str(), format!("{}/", store.url));
        assert!(store.log_location().ends_with("/_delta_log"));
    }
}

#[tokio::test]
async fn memory_stores_are_shared_by_name() {
    let put = open_store("memory://shared-a/t", &options()).unwrap();
    put.store.put(&put.log_dir().join("f"), "x".into()).await.unwrap();
    let get = open_store("memory://shared-a/t", &options()).unwrap();
    assert!(get.store.head(&get.log_dir().join("f")).await.is_ok());
    let other = open_store("memory://shared-b/t", &options()).unwrap();
    assert!(other.store.head(&other.log_dir().join("f")).await.is_err());
}

#[test]
fn signatures_and_passwords_are_cut_out_of_texts() {
    for (text, want) in [
        ("no url", "no url"),
        ("(https://h/p?sig=s&x=1): gone", "(https://h/p?…): gone"),
        ("\"https://u:pw@h/p\" twice https://h?a b", "\"https://…@h/p\" twice https://h?… b"),
        ("abfss://c@account/p", "abfss://c@account/p"),
    ] {
        assert_eq!(redact(text), want);
    }
}

#[test]
fn a_reference_to_a_missing_variable_is_named() {
    let url = Url::parse("s3://bucket/t").unwrap();
    let options = BTreeMap::from([("secret".to_owned(), "env:DL_NO_SUCH_VARIABLE".to_owned())]);
    let error = with_environment(&url, &options).unwrap_err().to_string();
    assert!(error.contains("DL_NO_SUCH_VARIABLE") && error.contains("'secret'"), "{error}");
}
