//! URLs of servers: as people write them, and hostile ones.

use std::path::Path;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

use super::*;

fn server(text: &str) -> ServerUri {
    match text.parse::<CatalogUri>() {
        Ok(uri) => uri.server().unwrap_or_else(|| panic!("{text} is no server")).clone(),
        Err(e) => panic!("{text}: {e}"),
    }
}

fn refused(text: &str) -> String {
    match text.parse::<CatalogUri>() {
        Ok(uri) => panic!("{text} was taken as {uri}"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn urls_as_people_write_them() {
    use Scheme::{Mssql, MySql, Postgres};
    for (text, scheme, user, password, host, port, database) in [
        (
            "postgresql://ann:pw@db.example:6432/lake",
            Postgres,
            "ann",
            "pw",
            "db.example",
            6432,
            "lake",
        ),
        ("postgres://ann@h/lake", Postgres, "ann", "", "h", 5432, "lake"),
        ("PostgreSQL+asyncpg://ann:p:w@h/lake/", Postgres, "ann", "p:w", "h", 5432, "lake"),
        ("postgresql+psycopg2://ann:pw@/lake", Postgres, "ann", "pw", "localhost", 5432, "lake"),
        ("postgresql:///lake", Postgres, "", "", "localhost", 5432, "lake"),
        ("postgresql://h?dbname=lake", Postgres, "", "", "h", 5432, "lake"),
        ("mysql://ann:pw@10.0.0.1/lake", MySql, "ann", "pw", "10.0.0.1", 3306, "lake"),
        ("mysql+pymysql://ann:pw@h/lake?charset=utf8mb4", MySql, "ann", "pw", "h", 3306, "lake"),
        ("mariadb://ann:pw@h:3307/lake", MySql, "ann", "pw", "h", 3307, "lake"),
        ("mariadb+mariadbconnector://ann@h/lake", MySql, "ann", "", "h", 3306, "lake"),
        ("mssql://sa:pw@h/lake", Mssql, "sa", "pw", "h", 1433, "lake"),
        ("sqlserver://sa:pw@h:1434?database=lake", Mssql, "sa", "pw", "h", 1434, "lake"),
        (
            "mssql+pyodbc://sa:pw@h/lake?driver=ODBC+Driver+18+for+SQL+Server&Encrypt=yes",
            Mssql,
            "sa",
            "pw",
            "h",
            1433,
            "lake",
        ),
        (
            "mssql://me%40tenant:pw@h.database.windows.net/lake",
            Mssql,
            "me@tenant",
            "pw",
            "h.database.windows.net",
            1433,
            "lake",
        ),
        // An '@' or '#' in a password, as many paste it.
        ("postgresql://ann:p@ss#1@h/lake", Postgres, "ann", "p@ss#1", "h", 5432, "lake"),
        (
            "postgresql://a%2Fn:p%40%3A%2F%3F%23%25@h/l%2Fake",
            Postgres,
            "a/n",
            "p@:/?#%",
            "h",
            5432,
            "l/ake",
        ),
        ("postgresql://ann:pw@[::1]/lake", Postgres, "ann", "pw", "::1", 5432, "lake"),
        (
            "postgresql://ann@[fe80::1%25eth0]:5433/lake",
            Postgres,
            "ann",
            "",
            "fe80::1%eth0",
            5433,
            "lake",
        ),
        ("mysql://ünï:pässwörd@h/lake", MySql, "ünï", "pässwörd", "h", 3306, "lake"),
    ] {
        let uri = server(text);
        assert_eq!(uri.scheme(), scheme, "{text}");
        assert_eq!(uri.user().unwrap_or_default(), user, "{text}");
        assert_eq!(uri.password().map(Secret::expose).unwrap_or_default(), password, "{text}");
        assert_eq!((uri.host(), uri.port(), uri.database()), (host, port, database), "{text}");
        let printed = uri.to_string();
        assert_eq!(server(&printed).to_string(), printed, "{text} prints back");
        assert!(server(&printed).same_catalog(&uri), "{text}");
    }
}

#[test]
fn unix_sockets() {
    let uri = server("postgresql://ann@/lake?host=/var/run/postgresql&port=5433");
    assert_eq!(uri.socket(), Some(Path::new("/var/run/postgresql")));
    assert_eq!(uri.port(), 5433);
    assert_eq!(uri.to_string(), "postgresql://ann@:5433/lake?host=/var/run/postgresql");
    assert_eq!(server(&uri.to_string()), uri);
    assert_eq!(server("postgresql://ann@%2Fvar%2Frun%2Fpostgresql:5433/lake"), uri);
    let uri = server("mysql://ann@/lake?unix_socket=/run/mysqld/mysqld.sock");
    assert_eq!(uri.socket(), Some(Path::new("/run/mysqld/mysqld.sock")));
    assert_eq!(server(&uri.to_string()), uri);
    assert!(refused("mysql://ann@h/lake?socket=/run/x.sock").contains("and a Unix socket"));
    assert!(refused("postgresql://ann@h/lake?host=/run").contains("twice"));
    assert!(refused("mysql://%2Frun/lake").contains("host"));
}

#[test]
fn options_of_postgres() {
    let text = "postgresql://ann@h/lake?sslmode=verify-full&sslrootcert=/c/ca.pem&sslcert=c.pem\
                &sslkey=k.pem&password_file=/run/secrets/pw&table_prefix=a_&schema=delta\
                &max_connections=20&min_connections=2&acquire_timeout=5s&idle_timeout=60s\
                &max_lifetime=3600s&test_before_acquire=false&statement_timeout=500ms\
                &retry_timeout=30s&statement_cache=0&application_name=dl%20nightly\
                &replica_max_staleness=2s&cache_size_bytes=5000000000&cache_max_staleness=1500ms\
                &max_clock_skew=10s";
    let uri = server(text);
    assert_eq!(uri.to_string(), text);
    assert_eq!(uri.tls_mode(), Some(TlsMode::VerifyFull));
    assert_eq!(uri.ca_file(), Some(Path::new("/c/ca.pem")));
    assert_eq!(uri.cert_file(), Some(Path::new("c.pem")));
    assert_eq!(uri.key_file(), Some(Path::new("k.pem")));
    assert_eq!(uri.password_file(), Some(Path::new("/run/secrets/pw")));
    assert_eq!((uri.table_prefix(), uri.schema()), (Some("a_"), Some("delta")));
    assert_eq!((uri.max_connections(), uri.min_connections()), (Some(20), Some(2)));
    assert_eq!(uri.acquire_timeout(), Some(Duration::from_secs(5)));
    assert_eq!(uri.idle_timeout(), Some(Duration::from_secs(60)));
    assert_eq!(uri.max_lifetime(), Some(Duration::from_secs(3600)));
    assert_eq!(uri.test_before_acquire(), Some(false));
    assert_eq!(uri.statement_timeout(), Some(Duration::from_millis(500)));
    assert_eq!(uri.retry_timeout(), Some(Duration::from_secs(30)));
    assert_eq!(uri.statement_cache(), Some(0));
    assert_eq!(uri.application_name(), Some("dl nightly"));
    assert_eq!(uri.replica_max_staleness(), Some(Duration::from_secs(2)));
    assert_eq!(uri.cache_size_bytes(), Some(5_000_000_000));
    assert_eq!(uri.cache_max_staleness(), Some(Duration::from_millis(1_500)));
    assert_eq!(uri.max_clock_skew(), Some(Duration::from_secs(10)));
    assert!(refused("mssql://h/l?cache_size_bytes=64MB").contains("must be a whole number"));
    assert!(refused("mysql://h/l?cache_max_staleness=soon").contains("500ms, 30s, 5m"));
    assert!(refused("mysql://h/l?cache_max_staleness=1s&cache-max-staleness=2s").contains("twice"));
    let uri = server("postgresql://h/l?connect_timeout=7&pool_pre_ping=1&sslmode=allow");
    assert_eq!(
        uri.to_string(),
        "postgresql://h/l?sslmode=prefer&acquire_timeout=7s&test_before_acquire=true"
    );
}

#[test]
fn options_of_mysql_and_sql_server() {
    let uri = server("mysql://h/l?ssl-mode=VERIFY_IDENTITY&ssl-ca=ca&ssl-cert=c&ssl_key=k");
    assert_eq!(uri.tls_mode(), Some(TlsMode::VerifyFull));
    assert_eq!(
        uri.to_string(),
        "mysql://h/l?ssl-mode=verify_identity&ssl-ca=ca&ssl-cert=c&ssl-key=k"
    );
    for (word, mode) in [
        ("disabled", TlsMode::Disable),
        ("PREFERRED", TlsMode::Prefer),
        ("required", TlsMode::Require),
        ("verify-ca", TlsMode::VerifyCa),
    ] {
        assert_eq!(server(&format!("mysql://h/l?ssl-mode={word}")).tls_mode(), Some(mode));
    }
    let uri = server("mssql://h/l?encrypt=true&trust_server_certificate_ca=/ca.pem&schema=delta");
    assert_eq!((uri.encrypt(), uri.schema()), (Some(Encrypt::On), Some("delta")));
    assert_eq!(uri.ca_file(), Some(Path::new("/ca.pem")));
    let uri = server("mssql://h/l?Encrypt=Optional");
    assert_eq!(uri.encrypt(), Some(Encrypt::Off));
    let text = "mssql://h/l?encrypt=strict&client_certificate=c&client_key=k&instance=LAKE";
    assert_eq!(server(text).to_string(), text);
    let uri = server("mssql://h/l?TrustServerCertificate=yes");
    assert_eq!(uri.to_string(), "mssql://h/l?trust_server_certificate=true");
}

#[test]
fn wrong_options_list_the_right_ones() {
    for (text, words) in [
        (
            "postgresql://h/l?sslmod=x",
            &["'sslmod'", "postgresql has", "sslmode", "statement_cache"][..],
        ),
        ("mysql://h/l?schema=x", &["'schema'", "mysql has", "ssl-mode", "socket"]),
        ("mssql://h/l?sslmode=x", &["'sslmode'", "mssql has", "encrypt", "schema"]),
        ("postgresql://h/l?encrypt=true", &["'encrypt'", "postgresql has"]),
        ("postgresql://h/l?options=-csearch_path%3Dx", &["'options'", "ALTER ROLE"]),
        ("postgresql://h/l?pgbouncer=true", &["statement_cache=0"]),
        ("postgresql://h/l?target_session_attrs=standby", &["read-write", "replica_urls"]),
        ("mssql://h/l?target_session_attrs=read-write", &["takes writes"]),
        ("postgresql://h/l?password=geheim", &["'password'", "password_file"]),
        ("mssql://h/l?Trusted_Connection=yes", &["SQL logins"]),
        ("postgresql://h/l?sslmode=geheim", &["sslmode", "disable, prefer, require, verify-ca"]),
        ("mysql://h/l?ssl-mode=geheim", &["ssl-mode", "disabled, preferred, required, verify_ca"]),
        ("mysql://h/l?charset=latin1", &["charset", "utf8mb4"]),
        ("mssql://h/l?encrypt=geheim", &["encrypt", "true, false, strict"]),
        ("mssql://h/l?encrypt=no&trust_server_certificate=yes", &["encrypt=false"]),
        ("postgresql://h/l?max_connections=0", &["max_connections", "at least 1"]),
        ("postgresql://h/l?max_connections=geheim", &["max_connections", "whole number"]),
        ("postgresql://h/l?max_connections=2&min_connections=3", &["min_connections", "3"]),
        ("postgresql://h/l?acquire_timeout=0", &["acquire_timeout", "longer"]),
        ("postgresql://h/l?idle_timeout=geheim", &["idle_timeout", "500ms, 30s, 5m"]),
        ("postgresql://h/l?sslcert=c", &["client certificate", "both"]),
        ("postgresql://h/l?schema=", &["schema", "empty"]),
        ("postgresql://h/l?table_prefix=a-b", &["table_prefix"]),
        ("postgresql://u:geheim@h/l?password_file=x", &["password_file", "leave one"]),
        ("postgresql://h/l?sslmode=require&sslmode=require", &["sslmode", "twice"]),
        ("postgresql://h/l?connect_timeout=1&acquire_timeout=1", &["acquire_timeout", "twice"]),
        ("postgresql://h:1/l?port=2", &["port", "twice"]),
        ("mssql://h/l?database=m", &["database", "twice"]),
    ] {
        let e = refused(text);
        for word in words {
            assert!(e.contains(word), "{text}: '{word}' is not in: {e}");
        }
        assert!(!e.contains("geheim"), "{e}");
    }
    for scheme in [Scheme::Postgres, Scheme::MySql, Scheme::Mssql] {
        for option in ["table_prefix", "max_connections", "password_file", "replica_urls"] {
            assert!(ServerUri::options(scheme).contains(&option));
        }
    }
}

#[test]
fn broken_places_are_errors_that_repeat_nothing() {
    for (text, word) in [
        ("postgresql://", "database"),
        ("postgresql://geheim", "database"),
        ("postgresql://u:geheim@h", "database"),
        ("postgresql://u:geheim@h/", "database"),
        ("postgresql://u:geheim/x@h/db", "'/' as %2F"),
        ("postgresql://u:geheim?x@h/db", "'?' as %3F"),
        ("postgresql://u:1/geheim@h/db", "'/' as %2F"),
        ("postgresql://u:12?geheim=1&y@h/db", "'?' as %3F"),
        ("postgresql://u:1/geheim/db", "'/' as %2F"),
        ("postgresql://u:geheim%@h/db", "%25"),
        ("postgresql://u:geheim%zz@h/db", "%25"),
        ("postgresql://u:geheim%ff@h/db", "UTF-8"),
        ("postgresql://u:geheim%00@h/db", "NUL"),
        ("postgresql://u@h:geheim/db", "port"),
        ("postgresql://u@h:0/db", "port"),
        ("postgresql://u@h:65536/db", "port"),
        ("postgresql://u@h:/db", "port"),
        ("postgresql://u:geheim@::1/db", "brackets"),
        ("postgresql://u:geheim@[::1/db", "[::1]"),
        ("postgresql://u:geheim@[h]/db", "[::1]"),
        ("postgresql://u:geheim@[::1]x/db", "[::1]"),
        ("postgresql://u:geheim@a b/db", "host"),
        ("mssql://u:geheim@a:1,b:2/db", "replica_urls"),
        ("postgresql://u:geheim@a:1,,b/db", "commas"),
        ("postgresql://u:geheim@,b/db", "commas"),
        ("mysql://u:geheim@a,b:x/db", "port"),
        ("mssql://u@h\\geheim/db", "named instance"),
        ("sqlserver://h:1433;user=sa;password=geheim", "port"),
        ("sqlserver://h;user=sa;password=geheim", "semicolons"),
        ("postgresql://u@h/db?geheim%20x%2F", "unknown option in"),
    ] {
        let e = refused(text);
        assert!(e.contains(word) && !e.contains("geheim"), "{text}: {e}");
    }
    for text in [
        "delta+sql://postgresql://u:geheim@h",
        "delta+sql://postgresql://u:geheim@h/",
        "delta+sql://postgresql://u:geheim@h/db",
        "delta+sql://postgresql://u:geheim@h/db/",
        "delta+sql://postgresql://u:geheim@h/db/a/b",
        "delta+sql://postgresql://u:1/geheim@h",
        "delta+sql://postgresql://u:1/x/geheim@h/t",
        "delta+sql://postgresql://u:geheim/x@h/db/t",
    ] {
        let e = text.parse::<TableUri>().unwrap_err().to_string();
        assert!(!e.contains("geheim"), "{text}: {e}");
    }
}

#[test]
fn tables_on_servers() {
    for (text, catalog, table) in [
        (
            "delta+sql://postgresql://ann:pw@h:5433/lake/sales.orders?schema=x",
            "postgresql://ann@h:5433/lake?schema=x",
            "sales.orders",
        ),
        ("delta+sql://mysql+pymysql://ann@h/lake/orders", "mysql://ann@h/lake", "default.orders"),
        ("delta+sql://mssql://sa@h/l%2Fake/s.a%2Fb%40c", "mssql://sa@h/l%2Fake", "s.a/b@c"),
        (
            "delta+sql://postgresql:///lake/s.t?host=/run/pg",
            "postgresql:///lake?host=/run/pg",
            "s.t",
        ),
    ] {
        let uri: TableUri = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(uri.catalog().to_string(), catalog, "{text}");
        assert_eq!(uri.table().to_string(), table, "{text}");
        let printed = uri.to_string();
        assert_eq!(printed.parse::<TableUri>().unwrap().to_string(), printed, "{text}");
        assert!(!format!("{uri:?}").contains("pw"));
    }
    assert!(refused("delta+sql://postgresql://u@h/db/t").contains("URL of a table"));
    assert!(refused("DELTA+SQL://postgresql://u@h/db/t").contains("URL of a table"));
}

#[test]
fn the_same_catalog_by_another_login() {
    let same = |a: &str, b: &str| {
        let [a, b] = [a, b].map(|text| text.parse::<CatalogUri>().unwrap());
        assert_eq!(a.same_catalog(&b), b.same_catalog(&a));
        a.same_catalog(&b)
    };
    assert!(same("postgres://ann:pw@H/db", "postgresql://bob@h:5432/db?max_connections=1"));
    assert!(same("mysql://h/db?table_prefix=dl_", "mysql://h/db"));
    assert!(same("sqlite:///c.db?readers=1", "sqlite:///c.db"));
    for (a, b) in [
        ("postgresql://h/db", "postgresql://h/other"),
        ("postgresql://h/db", "postgresql://h:5433/db"),
        ("postgresql://h/db", "postgresql://h/db?schema=x"),
        ("postgresql://h/db", "postgresql://h/db?table_prefix=x_"),
        ("postgresql://h/db", "mysql://h:5432/db"),
        ("postgresql://localhost/db", "postgresql:///db?host=/run"),
        ("sqlite:///c.db", "sqlite:///c.db?table_prefix=x_"),
        ("sqlite:///c.db", "memory://"),
    ] {
        assert!(!same(a, b), "{a} {b}");
    }
}

#[test]
fn replicas_take_from_the_primary_what_they_leave_out() {
    let urls = utf8_percent_encode(
        "postgresql://r1:5433?max_connections=3,postgres://bob@r2/other",
        NON_ALPHANUMERIC,
    );
    let third = utf8_percent_encode("postgresql://cid:geheim@r3", NON_ALPHANUMERIC);
    let uri = server(&format!(
        "postgresql://ann:pw@h/lake?sslmode=require&max_connections=9&replica_urls={urls}\
         &replica_urls={third}"
    ));
    let replicas = uri.replicas();
    let shown: Vec<_> = replicas
        .iter()
        .map(|r| (r.to_string(), r.password().map(|p| p.expose().to_owned())))
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        shown,
        [
            (
                "postgresql://ann@r1:5433/lake?sslmode=require&max_connections=3".to_owned(),
                some("pw")
            ),
            ("postgresql://bob@r2/other?sslmode=require&max_connections=9".to_owned(), None),
            (
                "postgresql://cid@r3/lake?sslmode=require&max_connections=9".to_owned(),
                some("geheim")
            ),
        ]
    );
    let printed = uri.to_string();
    assert!(!printed.contains("geheim") && printed.contains("replica_urls="), "{printed}");
    assert_eq!(server(&printed).to_string(), printed);
    assert!(uri.has_password() && !server(&printed).has_password());
    for (replica, word) in [
        ("mysql://r", "primary postgresql://"),
        ("r1", "replica 1: a catalog is given as a URL"),
        ("postgresql://u:gehe/im@r", "%2F"),
        ("postgresql://r?replica_max_staleness=1s", "no replicas of its own"),
        ("postgresql://r?cache_max_staleness=1s", "no cache of its own"),
        ("postgresql://r?max_clock_skew=1s", "nothing is committed to a replica"),
        ("postgresql://r?nix=1", "'nix'"),
    ] {
        let e = refused(&format!(
            "postgresql://h/l?replica_urls={}",
            utf8_percent_encode(replica, NON_ALPHANUMERIC)
        ));
        assert!(e.contains("replica 1") && e.contains(word) && !e.contains("gehe"), "{e}");
    }
    assert!(refused("postgresql://h/l?replica_urls=postgresql://u:geheim@r/l").contains("%40"));
}

#[test]
fn files_in_options_can_be_anchored() {
    let uri: CatalogUri = "mysql://h/l?ssl-ca=ca.pem&password_file=/run/pw&schema_=x"
        .replace("&schema_=x", "")
        .parse()
        .unwrap();
    assert_eq!(
        uri.relative_to(Path::new("/etc/dl")).to_string(),
        "mysql://h/l?ssl-ca=/etc/dl/ca.pem&password_file=/run/pw"
    );
}

/// Any text without NUL, with what separates parts of URLs in it.
fn any_text() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[a-z@:/?#%&=,+ \\\\\\[\\]\"'é🚀~.-]{1,16}").unwrap()
}

/// A password that cannot stand in a message by chance.
fn any_password() -> impl Strategy<Value = String> {
    any_text().prop_map(|text| format!("GEH{text}EIM"))
}

fn any_scheme() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["postgresql", "mysql", "mssql", "mysql+pymysql", "sqlserver"])
}

proptest! {
    #[test]
    fn whatever_is_encoded_comes_back(
        scheme in any_scheme(),
        user in any_text(),
        password in any_password(),
        database in any_text(),
        name in any_text(),
    ) {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let option = match Scheme::from_name(scheme).unwrap() {
            Scheme::Postgres => "sslrootcert",
            Scheme::MySql => "ssl-ca",
            _ => "trust_server_certificate_ca",
        };
        let text = format!(
            "{scheme}://{}:{}@h:77/{}?{option}={}",
            encoded(&user), encoded(&password), encoded(&database), encoded(&name),
        );
        let uri = server(&text);
        prop_assert_eq!(uri.user(), Some(user.as_str()));
        prop_assert_eq!(uri.password().map(Secret::expose), Some(password.as_str()));
        prop_assert_eq!(uri.database(), &database);
        prop_assert_eq!(uri.ca_file(), Some(Path::new(&name)));
        let uri: CatalogUri = text.parse().unwrap();
        let table = TableUri::new(uri.clone(), "s.t".parse().unwrap());
        for shown in [
            format!("{uri}"),
            format!("{uri:?}"),
            format!("{:?}", uri.place()),
            format!("{:#?}", uri.server()),
            format!("{table} {table:?}"),
        ] {
            prop_assert!(!shown.contains(&password) && !shown.contains(&encoded(&password)));
        }
        let again: CatalogUri = uri.to_string().parse().unwrap();
        prop_assert_eq!(again.to_string(), uri.to_string());
        prop_assert!(again.same_catalog(&uri));
    }

    #[test]
    fn a_password_that_was_not_encoded_is_never_shown(
        scheme in any_scheme(),
        user in any_text(),
        password in any_password(),
        tail in "(|[?]nix=1|[?]sslmode=x|[?]table_prefix=a-b|/t|/t[?]x)",
        table in any::<bool>(),
    ) {
        let mut text = format!("{scheme}://{user}:{password}@h/db{tail}");
        if table {
            text = format!("delta+sql://{text}");
        }
        // What is behind the last '@' of a password may be taken for a host, and so on: whatever
        // is made of the text, its middle does not come out.
        let shown = match (text.parse::<CatalogUri>(), text.parse::<TableUri>()) {
            (Ok(uri), _) => format!("{uri} {uri:?}"),
            (_, Ok(uri)) => format!("{uri} {uri:?}"),
            (Err(a), Err(b)) => format!("{a} {b}"),
        };
        prop_assert!(!shown.contains("GEH") && !shown.contains("EIM"), "{}: {}", text, shown);
    }

    #[test]
    fn any_text_is_an_answer_and_what_is_taken_prints_back(
        text in "(delta\\+sql://)?(postgresql|mysql|mssql)://[ -~é🚀]{0,40}",
    ) {
        if let Ok(uri) = text.parse::<CatalogUri>() {
            let printed = uri.to_string();
            prop_assert_eq!(printed.parse::<CatalogUri>().unwrap().to_string(), printed);
        }
        if let Ok(uri) = text.parse::<TableUri>() {
            let printed = uri.to_string();
            prop_assert_eq!(printed.parse::<TableUri>().unwrap().to_string(), printed);
        }
    }
}

#[test]
fn options_of_other_drivers_mean_what_they_mean_there() {
    for (text, same) in [
        ("postgresql://h/l?pool_size=5&max_overflow=10", "postgresql://h/l?max_connections=15"),
        ("mysql://h/l?max_overflow=0&pool_size=20", "mysql://h/l?max_connections=20"),
        ("mssql://h/l?pool_size=20", "mssql://h/l?max_connections=20"),
        (
            "postgresql+psycopg2://h/l?pool_timeout=30&pool_recycle=1800&pool_pre_ping=true",
            "postgresql://h/l?acquire_timeout=30s&max_lifetime=30m&test_before_acquire=true",
        ),
        ("mysql+pymysql://h/l?pool_recycle=-1", "mysql://h/l?max_lifetime=0"),
        ("postgresql+asyncpg://h/l?ssl=true", "postgresql://h/l?sslmode=verify-full"),
        ("postgresql://h/l?ssl=require", "postgresql://h/l?sslmode=require"),
        ("mysql://h/l?ssl=false", "mysql://h/l?ssl-mode=disabled"),
        (
            "mysql://h/l?ssl=true&ssl_ca=/ca.pem",
            "mysql://h/l?ssl-mode=verify_identity&ssl-ca=/ca.pem",
        ),
        ("postgresql://h/l?ssl_ca=/ca.pem", "postgresql://h/l?sslrootcert=/ca.pem"),
    ] {
        assert_eq!(server(text), server(same), "{text}");
    }
    for (text, words) in [
        ("postgresql://h/l?max_overflow=10", &["max_overflow", "pool_size"][..]),
        ("postgresql://h/l?pool_size=0", &["pool_size", "at least 1"]),
        ("postgresql://h/l?pool_size=5&max_overflow=-1", &["max_overflow", "at least 0", "limit"]),
        (
            "postgresql://h/l?pool_size=5&max_connections=9",
            &["max_connections", "pool_size", "sum"],
        ),
        ("postgresql://h/l?pool_size=5&pool_size=6", &["pool_size", "twice"]),
        ("postgresql://h/l?ssl=true&sslmode=disable", &["sslmode", "twice"]),
        ("postgresql://h/l?ssl=maybe", &["ssl", "true, false", "verify-full"]),
        ("mssql://h/l?ssl=true", &["ssl", "encrypt=true"]),
    ] {
        let error = refused(text);
        assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
    }
}

#[test]
fn several_hosts_take_over_from_each_other() {
    let uri = |text: &str| text.parse::<CatalogUri>().unwrap();
    let list =
        uri("postgresql://u:geheim@a,[::1]:5433,c.example:5434/d?target_session_attrs=read-write");
    let server = list.server().unwrap();
    assert_eq!((server.host(), server.port()), ("a", 5432));
    assert_eq!(server.more_hosts(), [("::1".to_owned(), 5433), ("c.example".to_owned(), 5434)]);
    assert!(server.wants_writes());
    let shown = list.to_string();
    assert_eq!(
        shown,
        "postgresql://u@a,[::1]:5433,c.example:5434/d?target_session_attrs=read-write"
    );
    assert_eq!(uri(&shown).to_string(), shown);
    let mysql = uri("mysql://u@a:1,b/d");
    assert_eq!(mysql.server().unwrap().more_hosts(), [("b".to_owned(), 3306)]);
    assert!(!mysql.server().unwrap().wants_writes());
    assert!(uri("mysql://u@b/d").same_catalog(&mysql));
    assert!(!uri("mysql://u@a/d").same_catalog(&mysql), "another port");
    assert!(!uri("postgresql://u@b/d").same_catalog(&list));
}
