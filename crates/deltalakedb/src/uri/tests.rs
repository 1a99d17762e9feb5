//! Well-formed and hostile URLs.

use super::*;

fn sqlite(uri: &CatalogUri) -> &SqliteUri {
    match uri.place() {
        Place::Sqlite(sqlite) => sqlite,
        other => panic!("{other:?}"),
    }
}

fn catalog(text: &str) -> CatalogUri {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn refused(text: &str) -> String {
    match text.parse::<CatalogUri>() {
        Ok(uri) => panic!("{text} was taken as {uri}"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn sqlite_urls_name_files() {
    for (text, path) in [
        ("sqlite:///abs/path.db", "/abs/path.db"),
        ("sqlite:////abs/path.db", "/abs/path.db"),
        ("sqlite:///./rel.db", "./rel.db"),
        ("sqlite:///../rel.db", "../rel.db"),
        ("sqlite:///.hidden/x.db", "/.hidden/x.db"),
        ("sqlite:///..x.db", "/..x.db"),
        ("sqlite+aiosqlite:///abs/path.db", "/abs/path.db"),
        ("SQLite+pysqlite://rel.db", "rel.db"),
        ("sqlite://rel.db", "rel.db"),
        ("sqlite://./a b.db", "./a b.db"),
        ("sqlite://./a%20b.db", "./a b.db"),
        ("SQLite:///x/50%25%3F#1.db", "/x/50%?#1.db"),
        ("sqlite:///tmp/naïve🚀.db", "/tmp/naïve🚀.db"),
        ("sqlite:///tmp/%F0%9F%9A%80.db", "/tmp/🚀.db"),
        ("sqlite://user@host.db", "user@host.db"),
        ("sqlite://file:x.db%3Fmode=memory", "./file:x.db?mode=memory"),
    ] {
        let uri = catalog(text);
        assert_eq!(sqlite(&uri).path(), Path::new(path), "{text}");
        assert_eq!(catalog(&uri.to_string()), uri, "{text} prints back");
    }
}

#[test]
fn options_are_read_and_printed() {
    let uri = catalog("sqlite://x.db?table_prefix=a_&readers=2&busy_timeout_ms=5");
    let file = sqlite(&uri);
    assert_eq!(
        (file.table_prefix(), file.readers(), file.busy_timeout_ms()),
        (Some("a_"), Some(2), Some(5))
    );
    assert_eq!(uri.to_string(), "sqlite://x.db?table_prefix=a_&readers=2&busy_timeout_ms=5");
    let text = "sqlite://x.db?cache_size_bytes=0&cache_max_staleness=2s&retry_timeout=500ms";
    let uri = catalog(text);
    assert_eq!(uri.cache_size_bytes(), Some(0));
    assert_eq!(uri.cache_max_staleness(), Some(std::time::Duration::from_secs(2)));
    assert_eq!(uri.retry_timeout(), Some(std::time::Duration::from_millis(500)));
    assert_eq!(uri.to_string(), text);
    let text = "sqlite://x.db?max_clock_skew=5s";
    assert_eq!(catalog(text).max_clock_skew(), Some(std::time::Duration::from_secs(5)));
    assert_eq!(catalog(text).to_string(), text);
    for bad in [
        "cache_size_bytes=1MB",
        "cache_max_staleness=1w",
        "cache_max_staleness=1&cache_max_staleness=1",
    ] {
        let error = format!("sqlite://x.db?{bad}").parse::<CatalogUri>().unwrap_err().to_string();
        assert!(error.contains("option cache_"), "{error}");
    }
    assert_eq!(catalog("sqlite://x.db?"), catalog("sqlite://x.db"));
}

#[test]
fn wrong_options_list_the_right_ones() {
    let e = refused("sqlite://x.db?tableprefix=a_");
    assert!(e.contains("'tableprefix'") && e.contains("table_prefix, readers, busy"), "{e}");
    assert!(refused("sqlite://x.db?readers=many").contains("whole number"));
    assert!(refused("sqlite://x.db?readers=1&readers=2").contains("twice"));
    assert!(refused("sqlite://x.db?table_prefix=a\"; DROP TABLE x").contains("table_prefix"));
    assert!(refused("sqlite://x.db?table_prefix=").contains("table_prefix"));
    assert!(refused("memory://?readers=1").contains("no options"));
}

#[test]
fn other_databases_are_refused_by_name_and_without_their_password() {
    for text in [
        "oracle://user:geheim@host/db",
        "oracle+cx://user:geheim@host:3306/db?ssl=true",
        "mssql+://sa:geheim@host/db",
        "delta+sql://oracle://user:geheim@host/db/t",
    ] {
        let e = match text.parse::<TableUri>() {
            Err(e) if TableUri::is_one(text) => e.to_string(),
            _ => refused(text),
        };
        assert!(e.contains("no backend for '") && !e.contains("geheim"), "{e}");
        assert!(e.contains("there are: sqlite, postgresql, mysql, mssql"), "{e}");
    }
    for text in ["user:geheim@host/db", "geheim", "", "://geheim", "a b://geheim", "sqlite:geheim"]
    {
        let e = refused(text);
        assert!(e.contains("sqlite:///absolute") && !e.contains("geheim"), "{text}: {e}");
    }
    let e = refused("sqlite://x.db?password=geheim");
    assert!(e.contains("'password'") && !e.contains("geheim"), "{e}");
}

#[test]
fn broken_urls_are_errors_not_panics() {
    for text in [
        "sqlite://",
        "sqlite://?readers=1",
        "sqlite:///a%",
        "sqlite:///a%2",
        "sqlite:///a%zz",
        "sqlite:///a%é",
        "sqlite:///a%ff",
        "sqlite:///a%00b",
        "memory://x",
        "é://x",
    ] {
        assert!(!refused(text).is_empty());
    }
}

#[test]
fn table_urls_end_in_the_table() {
    for (text, at, table) in [
        (
            "delta+sql://sqlite:///path/catalog.db/sales?table_prefix=dl_",
            "sqlite:///path/catalog.db?table_prefix=dl_",
            "default.sales",
        ),
        ("delta+sql://sqlite://rel.db/ns.sales", "sqlite://rel.db", "ns.sales"),
        ("DELTA+SQL://sqlite://./a b.db/a.b.c", "sqlite://./a b.db", "a.b.c"),
        ("delta+sql://sqlite:///c.db/ns.50%25%20off", "sqlite:///c.db", "ns.50% off"),
        ("delta+sql://sqlite:///c.db/ns.a%2Fb", "sqlite:///c.db", "ns.a/b"),
        (
            "delta+sql://sqlite:///c.db/ns.a'; DROP TABLE x;--",
            "sqlite:///c.db",
            "ns.a'; DROP TABLE x;--",
        ),
        ("delta+sql://memory:///sales", "memory://", "default.sales"),
        ("delta+sql://memory://sales", "memory://", "default.sales"),
    ] {
        let uri: TableUri = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(uri.catalog().to_string(), at, "{text}");
        assert_eq!(uri.table().to_string(), table, "{text}");
        assert_eq!(uri.to_string().parse::<TableUri>().unwrap(), uri, "{text} prints back");
    }
}

#[test]
fn broken_table_urls_are_errors_not_panics() {
    for text in [
        "delta+sql://",
        "delta+sql://sqlite://",
        "delta+sql://sqlite://catalog.db",
        "delta+sql://sqlite:///",
        "delta+sql://sqlite:///sales",
        "delta+sql://sqlite:///c.db/",
        "delta+sql://sqlite:///c.db/a..b",
        "delta+sql://sqlite:///c.db/%00",
        "delta+sql://sqlite:///c.db/a%0Ab",
        "delta+sql://sqlite:///c.db/%",
        "delta+sql:/sqlite",
        "sqlite:///c.db/t",
        "délta+sql://",
        "",
    ] {
        assert!(text.parse::<TableUri>().is_err(), "{text}");
    }
    assert!(refused("delta+sql://sqlite:///c.db/t").contains("URL of a table"));
}

#[test]
fn relative_catalogs_can_be_anchored() {
    let uri = catalog("sqlite://x.db?readers=1").relative_to(Path::new("/etc/dl"));
    assert_eq!(uri.to_string(), "sqlite:///etc/dl/x.db?readers=1");
    let uri = catalog("sqlite:///x.db").relative_to(Path::new("/etc/dl"));
    assert_eq!(uri.to_string(), "sqlite:///x.db");
    assert_eq!(catalog("memory://").relative_to(Path::new("/etc")).to_string(), "memory://");
}

proptest::proptest! {
    #[test]
    fn any_text_is_an_answer_and_what_is_taken_prints_back(
        text in "(delta\\+sql://)?(sqlite|memory|x)://[ -~é🚀]{0,40}",
    ) {
        if let Ok(uri) = text.parse::<CatalogUri>() {
            proptest::prop_assert_eq!(uri.to_string().parse::<CatalogUri>().unwrap(), uri);
        }
        if let Ok(uri) = text.parse::<TableUri>() {
            proptest::prop_assert_eq!(uri.to_string().parse::<TableUri>().unwrap(), uri);
        }
    }
}
