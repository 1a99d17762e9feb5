use std::collections::BTreeMap;
use std::fs;

use deltalakedb_catalog_core::error::Result;
use deltalakedb_mirror::publish::PublisherConfig;

use super::*;

struct World {
    dir: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World { dir, variables: BTreeMap::new() };
        for folder in ["work", "home/.config/dl", "xdg/dl"] {
            fs::create_dir_all(world.dir.path().join(folder)).unwrap();
        }
        world.set("HOME", &world.path("home"));
        world
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn load(&self) -> Result<Config> {
        Config::load_from(&|name| self.variables.get(name).cloned(), &self.dir.path().join("work"))
    }

    fn catalog(&self) -> String {
        self.load().unwrap().catalog(None).unwrap().to_string()
    }
}

#[test]
fn flag_before_variable_before_files() {
    let mut world = World::new();
    let none = world.load().unwrap().catalog(None).unwrap_err().to_string();
    for way in ["--catalog", "DELTA_DB_CONNECTION=", "DELTA_DB_CONNECTION_FILE=", "dl.toml"] {
        assert!(none.contains(way), "{none}");
    }
    world.file("home/.config/dl/config.toml", "catalog = 'sqlite:///home.db'");
    assert_eq!(world.catalog(), "sqlite:///home.db");
    world.set("XDG_CONFIG_HOME", &world.path("xdg"));
    world.file("xdg/dl/config.toml", "catalog = 'sqlite:///xdg.db'\nformat = 'json'");
    assert_eq!(world.catalog(), "sqlite:///xdg.db");
    world.file("work/dl.toml", "catalog = 'sqlite:///project.db'");
    assert_eq!(world.catalog(), "sqlite:///project.db");
    assert_eq!(world.load().unwrap().format(), Some("json"), "files complete each other");
    world.file("given.toml", "catalog = 'sqlite:///given.db'");
    world.set("DL_CONFIG", &world.path("given.toml"));
    assert_eq!(world.catalog(), "sqlite:///given.db");
    assert_eq!(world.load().unwrap().format(), None, "DL_CONFIG stands alone");
    world.set("DATABASE_URL", "postgres://ann:geheim@h/db");
    assert_eq!(world.catalog(), "postgresql://ann@h/db");
    world.file("url", "mysql://ann@h/db\n");
    world.set("DELTA_DB_CONNECTION_FILE", &world.path("url"));
    assert_eq!(world.catalog(), "mysql://ann@h/db");
    world.set("DELTA_DB_CONNECTION", "sqlite:///variable.db");
    assert_eq!(world.catalog(), "sqlite:///variable.db");
    let uri = world.load().unwrap().catalog(Some("sqlite:///flag.db")).unwrap();
    assert_eq!(uri.to_string(), "sqlite:///flag.db");
    for name in ["DELTA_DB_CONNECTION", "DELTA_DB_CONNECTION_FILE", "DATABASE_URL"] {
        world.set(name, "");
    }
    assert_eq!(world.catalog(), "sqlite:///given.db");
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let mut world = World::new();
    world.file("given.toml", "catalog = 'sqlite://c.db'");
    world.set("DL_CONFIG", &world.path("given.toml"));
    assert_eq!(world.catalog(), format!("sqlite://{}", world.path("c.db")));
    world.file("given.toml", "catalog = 'mysql://u@h/d?password_file=pw'");
    let at = format!("mysql://u@h/d?password_file={}", world.path("pw"));
    assert_eq!(world.catalog(), at);
}

#[test]
fn errors_say_where_and_keep_secrets() {
    let mut world = World::new();
    world.file("work/dl.toml", "catalogue = 'x'");
    let e = world.load().unwrap_err().to_string();
    assert!(e.contains("dl.toml") && e.contains("catalogue"), "{e}");
    world.file("work/dl.toml", "catalog = ");
    assert!(world.load().unwrap_err().to_string().contains("dl.toml"));
    for url in ["oracle://u:geheim@h/d", "mysql://u:gehe/im@h/d", "mysql://u:geheim@h"] {
        world.file("work/dl.toml", &format!("catalog = '{url}'"));
        let e = world.load().unwrap().catalog(None).unwrap_err().to_string();
        assert!(e.contains("dl.toml") && !e.contains("gehe"), "{e}");
    }
    world.set("DELTA_DB_CONNECTION_FILE", &world.path("no-secret"));
    let e = world.load().unwrap_err().to_string();
    assert!(e.contains("DELTA_DB_CONNECTION_FILE") && e.contains("no-secret"), "{e}");
    world.file("url", "u:geheim@h");
    world.set("DELTA_DB_CONNECTION_FILE", &world.path("url"));
    let e = world.load().unwrap().catalog(None).unwrap_err().to_string();
    assert!(e.contains("DELTA_DB_CONNECTION_FILE") && !e.contains("geheim"), "{e}");
    world.set("DELTA_DB_CONNECTION", "u:geheim@h");
    let config = world.load().unwrap();
    let e = config.catalog(None).unwrap_err().to_string();
    assert!(e.contains("DELTA_DB_CONNECTION") && !e.contains("geheim"), "{e}");
    assert!(!format!("{config:?}").contains("geheim"));
    world.set("DL_CONFIG", "missing.toml");
    assert!(world.load().unwrap_err().to_string().contains("missing.toml"));
}

impl World {
    /// A world whose project file has this text.
    fn of(name: &str, text: &str) -> World {
        let world = World::new();
        world.file(&format!("work/{name}"), text);
        world
    }

    fn toml(text: &str) -> World {
        World::of("dl.toml", text)
    }

    fn with(mut self, name: &str, value: &str) -> World {
        self.set(name, value);
        self
    }

    #[track_caller]
    fn fails(&self, words: &[&str]) -> String {
        let error = match self.load() {
            Err(error) => error.to_string(),
            Ok(config) => config.catalog(None).unwrap_err().to_string(),
        };
        for word in words {
            assert!(error.contains(word), "'{word}' is not in: {error}");
        }
        assert!(!error.contains("geheim"), "{error}");
        error
    }

    fn inspect(&self, file: Option<&str>, flag: Option<&str>) -> Inspection {
        let folder = self.dir.path().join("work");
        let variable = |name: &str| self.variables.get(name).cloned();
        Config::inspect(&variable, &folder, file.map(Path::new), flag)
    }
}

/// Each key that has an option in the URL: its value as a file says it, and the URL's options for SQLite,
/// PostgreSQL, MySQL, SQL Server. None: that database refuses it.
const EFFECTS: &[(&str, &str, [Option<&str>; 4])] = {
    const fn all(text: &'static str) -> [Option<&'static str>; 4] {
        [Some(text), Some(text), Some(text), Some(text)]
    }
    const fn servers(text: &'static str) -> [Option<&'static str>; 4] {
        [None, Some(text), Some(text), Some(text)]
    }
    &[
        ("database.schema", "'s'", [None, Some("schema=s"), None, Some("schema=s")]),
        ("database.table_prefix", "'a_'", all("table_prefix=a_")),
        (
            "database.application_name",
            "'app'",
            [None, Some("application_name=app"), None, Some("application_name=app")],
        ),
        ("database.password_file", "'/pw'", servers("password_file=/pw")),
        (
            "database.ssl",
            "true",
            [
                None,
                Some("sslmode=verify-full"),
                Some("ssl-mode=verify_identity"),
                Some("encrypt=true"),
            ],
        ),
        (
            "database.ssl_mode",
            "'verify-ca'",
            [None, Some("sslmode=verify-ca"), Some("ssl-mode=verify_ca"), None],
        ),
        (
            "database.ssl_ca",
            "'/ca'",
            [
                None,
                Some("sslrootcert=/ca"),
                Some("ssl-ca=/ca"),
                Some("trust_server_certificate_ca=/ca"),
            ],
        ),
        ("database.encrypt", "'strict'", [None, None, None, Some("encrypt=strict")]),
        (
            "database.trust_server_certificate",
            "true",
            [None, None, None, Some("trust_server_certificate=true")],
        ),
        ("database.replica_max_staleness", "'2s'", servers("replica_max_staleness=2s")),
        (
            "connection.pool_size",
            "7",
            [
                Some("readers=7"),
                Some("max_connections=7"),
                Some("max_connections=7"),
                Some("max_connections=7"),
            ],
        ),
        ("connection.min_connections", "1", servers("min_connections=1")),
        (
            "connection.pool_timeout",
            "'3s'",
            [
                Some("busy_timeout_ms=3000"),
                Some("acquire_timeout=3s"),
                Some("acquire_timeout=3s"),
                Some("acquire_timeout=3s"),
            ],
        ),
        ("connection.pool_recycle", "'5m'", servers("max_lifetime=300s")),
        ("connection.idle_timeout", "60", servers("idle_timeout=60s")),
        ("connection.pre_ping", "false", servers("test_before_acquire=false")),
        ("connection.statement_timeout", "'9s'", servers("statement_timeout=9s")),
        ("connection.statement_cache", "0", [None, Some("statement_cache=0"), None, None]),
        ("cache.size", "'1MiB'", all("cache_size_bytes=1048576")),
        ("cache.max_staleness", "'2s'", all("cache_max_staleness=2s")),
        ("performance.page_size", "500", all("page_size=500")),
        ("performance.max_clock_skew", "'2m'", all("max_clock_skew=120s")),
        ("retry.count", "9", all("retry_count=9")),
        ("retry.base", "'20ms'", all("retry_base=20ms")),
        ("retry.deadline", "0", all("retry_timeout=0s")),
    ]
};

#[test]
fn each_key_sets_its_option_or_is_refused() {
    let urls = ["sqlite:///c.db", "postgresql://u@h/d", "mysql://u@h/d", "mssql://u@h/d"];
    for (key, value, effects) in EFFECTS {
        let (section, name) = key.split_once('.').unwrap();
        for (url, effect) in urls.iter().zip(effects) {
            let world = World::toml(&format!("catalog = '{url}'\n[{section}]\n{name} = {value}\n"));
            let Some(effect) = effect else {
                let error = world.fails(&[key, "dl.toml:3", "no such setting"]);
                assert!(error.contains("profile"), "{error}");
                continue;
            };
            assert_eq!(world.catalog(), format!("{url}?{effect}"), "{key}");
            // By its name in the environment, and it goes before the file.
            let value = value.trim_matches('\'');
            let world = World::toml(&format!("catalog = '{url}'\n"))
                .with(&format!("DELTA_{}", key.replace('.', "_").to_uppercase()), value);
            assert_eq!(world.catalog(), format!("{url}?{effect}"), "{key} in the environment");
        }
    }
}

#[test]
fn the_remaining_keys_have_their_effect() {
    // What needs another one.
    for (text, url) in [
        (
            "connection = {pool_size = 5, max_overflow = 10}",
            "postgresql://u@h/d?max_connections=15",
        ),
        ("database = {ssl_cert = '/c', ssl_key = '/k'}", "postgresql://u@h/d?sslcert=/c&sslkey=/k"),
        (
            "database = {replicas = 'postgresql://r1,postgresql://r2/d'}",
            "postgresql://u@h/d?replica_urls=postgresql%3A%2F%2Fr1%2Cpostgresql%3A%2F%2Fr2%2Fd",
        ),
        (
            "database = {replicas = ['postgresql://r1', 'postgresql://r2/d']}",
            "postgresql://u@h/d?replica_urls=postgresql%3A%2F%2Fr1%2Cpostgresql%3A%2F%2Fr2%2Fd",
        ),
    ] {
        let world = World::toml(&format!("catalog = 'postgresql://u@h/d'\n{text}"));
        assert_eq!(world.catalog(), url, "{text}");
    }
    let world = World::toml("connection.max_overflow = 1\ncatalog = 'mysql://u@h/d'");
    world.fails(&["max_overflow without connection.pool_size"]);

    // The parts of a place.
    let parts = "[database]\ntype = 'postgres'\nhost = 'db.example'\nport = 6543\nname = 'la/ke'\n\
                 user = 'an@n'\npassword = 'ge:he/im'\n";
    let uri = World::toml(parts).load().unwrap().catalog(None).unwrap();
    assert_eq!(uri.to_string(), "postgresql://an%40n@db.example:6543/la%2Fke");
    assert_eq!(uri.server().unwrap().password().unwrap().expose(), "ge:he/im");
    let world = World::toml("[database]\ntype = 'sqlite'\nname = 'x.db'\n");
    assert_eq!(world.catalog(), format!("sqlite://{}", world.path("work/x.db")));
    let world = World::toml("[database]\ntype = 'mysql'\nhost = '::1'\nname = 'd'\n");
    assert_eq!(world.catalog(), "mysql://[::1]/d");
    World::toml("[database]\nname = 'x.db'\n").fails(&["type"]);
    World::toml("[database]\ntype = 'mysql'\nhost = 'h'\n").fails(&["no name"]);
    World::toml("[database]\ntype = 'sqlite'\nname = 'x'\nhost = 'geheim'\n")
        .fails(&["SQLite is a file"]);
    World::toml("catalog = 'mysql://h/d'\n[database]\nhost = 'h'\n").fails(&["both", "dl.toml:3"]);
    World::toml("catalog = 'mysql://h/d'\n[database]\ntype = 'sqlite'\n")
        .fails(&["agree", "dl.toml:3"]);

    // A worker's.
    let text = "[mirror]\nconcurrency = 9\nmax_versions = 8\nbatch = 7\nlease = '6s'\nfirst_backoff = '5s'\n\
                max_backoff = '4m'\npoll_interval = '3s'\nforeign_check_interval = '2m'\n";
    let config = World::toml(text).load().unwrap();
    let expected = PublisherConfig {
        lease_ms: 6_000,
        max_versions: 8,
        concurrency: 9,
        complete_batch: 7,
        first_backoff_ms: 5_000,
        max_backoff_ms: 240_000,
        poll_ms: 3_000,
        foreign_check_ms: 120_000,
    };
    assert_eq!(
        format!("{:?}", config.publisher(PublisherConfig::default())),
        format!("{expected:?}")
    );
    let none = World::new().load().unwrap().publisher(PublisherConfig::default());
    assert_eq!(format!("{none:?}"), format!("{:?}", PublisherConfig::default()));
    assert_eq!(config.foreign_check_interval(None).unwrap(), Some(Duration::from_secs(120)));
    assert_eq!(config.foreign_check_interval(Some("1s")).unwrap(), Some(Duration::from_secs(1)));
    let old = World::toml("foreign_check_interval = '5m'").load().unwrap();
    assert_eq!(old.foreign_check_interval(None).unwrap(), Some(Duration::from_secs(300)));

    // The log's, and watching.
    let text = "[logging]\nlevel = 'WARNING'\nformat = 'json'\nfile = 'a.log'\nmax_size = '1MB'\nmax_age = '2h'\n\
                max_files = 3\n[monitoring]\nlisten = ':9464'\nslow_call_threshold = '1s'\n";
    let world = World::toml(text);
    let config = world.load().unwrap();
    let expected = LogSettings {
        level: Some(LogLevel::Warn),
        json: true,
        file: Some(world.path("work/a.log").into()),
        max_size_bytes: 1_000_000,
        max_age: Duration::from_secs(7_200),
        max_files: 3,
    };
    assert_eq!(config.logging(), expected);
    assert_eq!(config.listen(), Some("0.0.0.0:9464".parse().unwrap()));
    assert_eq!(config.slow_call(), Some(Duration::from_secs(1)));
    assert_eq!(Config::default().slow_call(), None);
    let none = World::toml("[monitoring]\nslow_call_threshold = 0").load().unwrap();
    assert_eq!(none.slow_call(), Some(Duration::MAX));
}

#[test]
fn every_key_has_a_test_of_its_effect() {
    // Those of the test above.
    let others = [
        "catalog",
        "format",
        "profile",
        "database.type",
        "database.host",
        "database.port",
        "database.name",
        "database.user",
        "database.password",
        "database.ssl_cert",
        "database.ssl_key",
        "database.replicas",
        "connection.max_overflow",
    ];
    for key in keys() {
        let section = key.key.split('.').next().unwrap();
        let known = EFFECTS.iter().any(|(name, ..)| *name == key.key)
            || others.contains(&key.key)
            || ["mirror", "logging", "monitoring", "maintenance"].contains(&section);
        assert!(known, "{} has no test of its effect", key.key);
    }
}

#[test]
fn what_is_maintained_and_when() {
    use crate::maintain::{Choice, Step};

    let none = Config::default().maintenance();
    assert!(none.enabled && none.schedule.is_none() && none.plan.backup.is_none());
    for step in Step::ALL {
        assert_eq!(none.plan.choices[&step], Choice::Do(step.usual_limit()), "{step}");
        // The tables of keys and of steps say the same.
        let key = format!("maintenance.{}.timeout", step.label().replace('-', "_"));
        let default = model::key(&key).unwrap().default;
        assert_eq!(parse_duration(default), Some(step.usual_limit()), "{key}");
        let section = key.trim_end_matches(".timeout");
        let toml = format!("[{section}]\nenabled = false\ntimeout = '7s'\n");
        let plan = World::toml(&toml).load().unwrap().maintenance().plan;
        let Choice::Leave(reason) = &plan.choices[&step] else { panic!("{step} is done") };
        assert_eq!(*reason, format!("{section}.enabled is false"));
        let yaml = format!("{}:\n    timeout: 7s\n", section.replace('.', ":\n  "));
        let plan = World::of("dl.yaml", &yaml).load().unwrap().maintenance().plan;
        assert_eq!(plan.choices[&step], Choice::Do(Duration::from_secs(7)), "{yaml}");
    }
    let text = "[maintenance]\nenabled = false\nschedule = '30 2 * * *'\n[maintenance.backup]\nto = '/b'\n\
                keep = 7\nfull_every = '14d'\n[maintenance.vacuum]\nmin_retention = '30d'\n";
    let maintenance = World::toml(text).load().unwrap().maintenance();
    assert!(!maintenance.enabled);
    assert_eq!(maintenance.schedule.unwrap().to_string(), "30 2 * * *");
    let days = |days: u64| Duration::from_secs(days * 86_400);
    assert_eq!(maintenance.plan.min_vacuum_retention, days(30));
    let backup = maintenance.plan.backup.unwrap();
    assert_eq!((&*backup.to, backup.full_every), ("/b", Some(days(14))));
    assert_eq!(backup.keep, Some(crate::backup::Keep::Newest(7)));
    let world =
        World::toml("maintenance.interval = '1h'").with("DELTA_MAINTENANCE_BACKUP_TO", "/x");
    let maintenance = world.load().unwrap().maintenance();
    assert_eq!(maintenance.schedule.unwrap().to_string(), "1h");
    assert_eq!(maintenance.plan.backup.unwrap().to, "/x");
    let text = "[maintenance.expire]\ntokens = '90d'\noutbox = '7d'\n";
    let plan = World::toml(text).load().unwrap().maintenance().plan;
    assert_eq!((plan.expire.tokens, plan.expire.outbox), (Some(days(90)), days(7)));
    assert_eq!((none.plan.expire.tokens, none.plan.expire.outbox), (None, days(30)));
    World::toml("maintenance.expire.tokens = '23h'").fails(&["maintenance.expire.tokens", "1d"]);
    World::toml("maintenance.expire.tokens = 0").fails(&["maintenance.expire.tokens"]);
    World::toml("maintenance.expire.outbox = '1h'").fails(&["maintenance.expire.outbox", "1d"]);
    let long = "retry.deadline = '2d'\nmaintenance.expire.tokens = '3d'";
    World::toml(long).fails(&["maintenance.expire.tokens", "retry.deadline"]);
    World::toml("maintenance.schedule = 'soon'").fails(&["maintenance.schedule", "30 2 * * *"]);
    World::toml("maintenance.backup.keep = 0").fails(&["maintenance.backup.keep", "30d"]);
    World::toml("maintenance.vaccum.enabled = true").fails(&["maintenance.vacuum.enabled"]);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn the_engine_does_as_the_configuration_says() {
    let world = World::toml(
        "catalog = 'sqlite://c.db'\n[retry]\ncount = 3\nbase = '7ms'\ndeadline = '4s'\n\
         [cache]\nsize = 0\n[performance]\npage_size = 100\n",
    );
    let uri = world.load().unwrap().catalog(None).unwrap();
    let db = crate::Db::create(&uri).await.unwrap();
    let policy = db.catalog().retry_policy();
    assert_eq!((policy.attempts, policy.first_pause), (3, Duration::from_millis(7)));
    assert_eq!(db.retry_timeout(), Duration::from_secs(4));
    assert_eq!(uri.cache_size_bytes(), Some(0));
    assert_eq!(uri.page_size(), Some(100));
}

#[test]
fn stronger_sources_go_first_and_urls_before_keys_of_their_file() {
    let url = "catalog = 'postgresql://u@h/d?max_connections=3&cache_size_bytes=4096'\n";
    let world = World::toml(&format!("{url}connection.pool_size = 9\ncache.size = '1MiB'"));
    assert_eq!(world.catalog(), "postgresql://u@h/d?max_connections=3&cache_size_bytes=4096");
    let world = world.with("DB_POOL_SIZE", "5").with("DELTA_CACHE_SIZE", "2MiB");
    assert_eq!(world.catalog(), "postgresql://u@h/d?max_connections=5&cache_size_bytes=2097152");
    let world = world.with("DB_MAX_OVERFLOW", "2").with("DB_TIMEOUT", "30");
    let all = "postgresql://u@h/d?max_connections=7&acquire_timeout=30s&cache_size_bytes=2097152";
    assert_eq!(world.catalog(), all);
    // Its own name goes before the shared one.
    let world = world.with("DELTA_CONNECTION_POOL_SIZE", "20");
    assert!(world.catalog().contains("max_connections=22"), "{}", world.catalog());
    let flag = "mysql://u@h/d?max_connections=1";
    let uri = world.load().unwrap().catalog(Some(flag)).unwrap();
    let expected = "mysql://u@h/d?max_connections=1&acquire_timeout=30s&cache_size_bytes=2097152";
    assert_eq!(uri.to_string(), expected);
    // Variables that platforms set for all programs harm no catalog in a file.
    let world = World::toml("catalog = 'sqlite:///c.db'")
        .with("DB_MAX_OVERFLOW", "2")
        .with("DB_POOL_SIZE", "5");
    assert_eq!(world.catalog(), "sqlite:///c.db?readers=5");
    // The project's file goes before the user's, key by key.
    world.file("home/.config/dl/config.yaml", "retry: {count: 2, base: 1s}\nformat: json\n");
    world.file("work/dl.toml", "catalog = 'sqlite:///c.db'\nretry.count = 3");
    let config = world.load().unwrap();
    assert_eq!(config.format(), Some("json"));
    let uri = config.catalog(None).unwrap();
    assert_eq!((uri.retry_count(), uri.retry_base()), (Some(3), Some(Duration::from_secs(1))));
}

#[test]
fn names_that_people_have_in_their_environment() {
    let world =
        World::new().with("DELTA_DB_TYPE", "sqlite").with("DELTA_DB_CONNECTION", "sqlite:///c.db");
    assert_eq!(world.catalog(), "sqlite:///c.db");
    world.with("DELTA_DB_TYPE", "postgresql").fails(&["DELTA_DB_TYPE", "sqlite://", "agree"]);
    World::new()
        .with("DELTA_DB_TYPE", "oracle")
        .fails(&["DELTA_DB_TYPE", "sqlite, postgresql, mysql, mssql"]);
    World::new().with("DELTA_DB_TYPE", "sqlite").fails(&["no catalog given"]);
    let world = World::new()
        .with("DELTA_DB_TYPE", "mysql")
        .with("DELTA_DATABASE_HOST", "h")
        .with("DELTA_DATABASE_NAME", "d");
    assert_eq!(world.catalog(), "mysql://h/d");
    for (name, value, words) in [
        ("DELTA_CACHE_SIZE", "1000", &["DELTA_CACHE_SIZE", "64MiB"]),
        ("DB_POOL_SIZE", "many", &["DB_POOL_SIZE", "whole number"]),
        ("DB_POOL_SIZE", "0", &["DB_POOL_SIZE", "from 1"]),
        ("DB_TIMEOUT", "soon", &["DB_TIMEOUT", "500ms"]),
        ("DELTA_LOG_LEVEL", "loud", &["DELTA_LOG_LEVEL", "debug"]),
        ("LOG_FORMAT", "xml", &["LOG_FORMAT", "json"]),
    ] {
        World::new().with(name, value).fails(words);
    }
    let world = World::new().with("LOG_LEVEL", "INFO").with("LOG_FORMAT", "json");
    let logging = world.load().unwrap().logging();
    assert_eq!((logging.level, logging.json), (Some(LogLevel::Info), true));
    let world = world.with("DELTA_LOG_LEVEL", "debug");
    assert_eq!(world.load().unwrap().logging().level, Some(LogLevel::Debug));
    // The config file by both of its names.
    let world = World::new();
    world.file("given.yaml", "catalog: sqlite:///given.db\n");
    let given = world.path("given.yaml");
    let world = world.with("DELTA_CONFIG_PATH", &given);
    assert_eq!(world.catalog(), "sqlite:///given.db");
    let world = world.with("DL_CONFIG", &given);
    assert_eq!(world.catalog(), "sqlite:///given.db");
    world.with("DL_CONFIG", "other.toml").fails(&["DELTA_CONFIG_PATH", "DL_CONFIG"]);
    // URLs as other programs spell them.
    for (url, means) in [
        ("postgres://u:geheim@h/d", "postgresql://u@h/d"),
        ("postgresql+psycopg2://u:geheim@h/d", "postgresql://u@h/d"),
        ("postgresql+asyncpg://u:geheim@h/d?ssl=true", "postgresql://u@h/d?sslmode=verify-full"),
        ("mysql+pymysql://u:geheim@h/d?charset=utf8mb4", "mysql://u@h/d"),
        ("sqlite:////abs/c.db", "sqlite:////abs/c.db"),
        (
            "mssql+pyodbc://u:geheim@h:1433/d?driver=ODBC+Driver+18+for+SQL+Server",
            "mssql://u@h:1433/d",
        ),
    ] {
        assert_eq!(World::new().with("DATABASE_URL", url).catalog(), means, "{url}");
    }
    // Secrets in mounted files.
    let world = World::new();
    world.file("url", "mysql://u:geheim@h/d\n");
    let file = world.path("url");
    let world = world.with("DATABASE_URL_FILE", &file);
    assert_eq!(world.catalog(), "mysql://u@h/d");
    let world = World::toml("catalog = 'mysql://u@h/d'");
    world.file("pw", "geheim\n");
    let file = world.path("pw");
    let world = world.with("DELTA_DATABASE_PASSWORD_FILE", &file);
    assert_eq!(world.catalog(), format!("mysql://u@h/d?password_file={file}"));
}

#[test]
fn passwords_go_to_their_own_catalog_only() {
    let file = "catalog = 'mysql://u@h/d'\n[database]\npassword = 'geheim'\n";
    let password = |world: &World, flag: Option<&str>| {
        let uri = world.load().unwrap().catalog(flag).unwrap();
        uri.server().unwrap().password().map(|password| password.expose().to_owned())
    };
    let world = World::toml(file);
    assert_eq!(password(&world, None).as_deref(), Some("geheim"));
    assert_eq!(password(&world, Some("mysql://u@elsewhere/d")), None);
    let world = world.with("DATABASE_URL", "mysql://u@elsewhere/d");
    assert_eq!(password(&world, None), None);
    // A file that names no catalog means whichever there is.
    let world = World::toml("[database]\npassword = 'geheim'\n");
    assert_eq!(password(&world, Some("mysql://u@h/d")).as_deref(), Some("geheim"));
    assert_eq!(password(&world, Some("mysql://u:own@h/d")).as_deref(), Some("own"));
    // The environment's goes before the file's, as the login reads it when the URL has none.
    let world = World::toml(file).with("DELTA_DB_PASSWORD", "other");
    assert_eq!(password(&world, None), None);
}

#[test]
fn profiles_and_variables() {
    let text = "catalog = 'sqlite:///c.db'\nretry.count = 1\n\
                [profiles.dev.retry]\ncount = 2\n[profiles.prod]\ncatalog = 'mysql://${USER_NAME:-dl}@${DB}/d'\n";
    let world = World::toml(text);
    assert_eq!(
        world.catalog(),
        "sqlite:///c.db?retry_count=1",
        "variables of other profiles are not asked for"
    );
    let world = world.with("ENVIRONMENT", "dev");
    assert_eq!(world.catalog(), "sqlite:///c.db?retry_count=2");
    let world = world.with("DELTA_PROFILE", "prod");
    world.fails(&["dl.toml:6", "profile prod", "catalog", "DB is not set"]);
    let world = world.with("DB", "h");
    assert_eq!(world.catalog(), "mysql://dl@h/d?retry_count=1");
    world.with("DELTA_PROFILE", "staging").fails(&["staging", "dev, prod", "DELTA_PROFILE"]);
    // What platforms give to all programs is no order to this one.
    let world = World::toml(text).with("ENVIRONMENT", "staging");
    assert_eq!(world.catalog(), "sqlite:///c.db?retry_count=1");
    let warned = |world: &World| -> Vec<String> {
        world.load().unwrap().warnings().iter().map(ToString::to_string).collect()
    };
    let told = warned(&world);
    assert_eq!(told.len(), 1);
    for word in ["ENVIRONMENT", "staging", "dev, prod", "no profile is chosen"] {
        assert!(told[0].contains(word), "{told:?}");
    }
    let world = World::toml(&format!("profile = 'dev'\n{text}")).with("ENVIRONMENT", "staging");
    assert_eq!(world.catalog(), "sqlite:///c.db?retry_count=2", "the key of the file holds");
    assert_eq!(warned(&world).len(), 1);
    let world = World::toml("format = 'json'").with("ENVIRONMENT", "staging");
    assert_eq!(warned(&world), Vec::<String>::new());
    World::toml("format = 'json'")
        .with("DELTA_PROFILE", "x")
        .fails(&["DELTA_PROFILE", "define none"]);
    let world = World::toml(&format!("profile = 'dev'\n{text}"));
    assert_eq!(world.catalog(), "sqlite:///c.db?retry_count=2");
    World::toml("profile = 'nope'\n[profiles.a]\n").fails(&["dl.toml:1", "nope", "there are a"]);
    let yaml = "profiles:\n  a:\n    profile: b\n    server: {port: 1}\n";
    World::of("dl.yaml", yaml).fails(&[
        "dl.yaml:3",
        "does not choose",
        "dl.yaml:4",
        "on the command line",
    ]);
    let world = World::toml("catalog = 'mysql://u@h/d'\n[database]\npassword = 'a$$b${PW}'\n");
    world.fails(&["dl.toml:3", "database.password", "PW is not set"]);
    let uri = world.with("PW", "$x").load().unwrap().catalog(None).unwrap();
    assert_eq!(uri.server().unwrap().password().unwrap().expose(), "a$b$x");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let world = World::toml(
        "catalog = 'sqlite:///c.db'\n[connection]\npoolsize = 3\npool_timeout = 'soon'\n\
         [server]\nport = 1\n[cache]\nsize = [1]\n[database]\npassword = 12345\n",
    );
    let inspection = world.inspect(None, None);
    let all: Vec<String> = inspection.problems.iter().map(ToString::to_string).collect();
    let expected = [
        ("dl.toml:3: connection.poolsize: ", "did you mean connection.pool_size?"),
        ("dl.toml:4: connection.pool_timeout: ", "500ms"),
        ("dl.toml:6: server.port: ", "on the command line"),
        ("dl.toml:8: cache.size: ", "no list"),
        ("dl.toml:10: database.password: ", "quotes"),
    ];
    assert_eq!(all.len(), expected.len(), "{all:?}");
    for (problem, (place, word)) in all.iter().zip(expected) {
        assert!(problem.contains(place) && problem.contains(word), "{problem}");
        assert!(!problem.contains("12345"), "{problem}");
    }
    assert!(inspection.config.is_none());
    World::toml("a = 'geheim\n").fails(&["dl.toml:1"]);
    World::of("dl.yaml", "a: [geheim\n").fails(&["dl.yaml:"]);
    let world = World::toml("format = 'json'");
    world.file("work/dl.yaml", "format: json");
    world.fails(&["dl.toml", "dl.yaml", "keep one"]);
    world.file("work/dl.conf", "format = 'json'\ncatalog 1\n");
    let inspection = world.inspect(Some("dl.conf"), None);
    assert!(
        inspection.problems[0].to_string().contains("dl.conf:2: "),
        "{:?}",
        inspection.problems
    );
}

#[test]
fn values_are_shown_with_where_they_are_from_and_without_secrets() {
    let world = World::toml(
        "catalog = 'mysql://u:geheim@h/d'\n[database]\nreplicas = 'mysql://u:geheim@r1,mysql://r2'\n\
         [retry]\ncount = 3\n",
    )
    .with("DELTA_CACHE_SIZE", "1MiB")
    .with("DELTA_DB_PASSWORD", "geheim");
    let inspection = world.inspect(None, None);
    assert!(inspection.problems.is_empty(), "{:?}", inspection.problems);
    let of = |key: &str| {
        let shown = inspection.values.iter().find(|shown| shown.key == key).unwrap();
        (shown.value.clone(), shown.origin.to_string())
    };
    assert_eq!(of("catalog").0, "mysql://u:***@h/d");
    assert!(of("catalog").1.ends_with("dl.toml:1"));
    assert_eq!(of("database.replicas").0, "***,mysql://r2");
    assert_eq!(
        of("database.password"),
        ("***".into(), "environment variable DELTA_DB_PASSWORD".into())
    );
    assert!(of("retry.count").1.ends_with("dl.toml:5"));
    assert_eq!(of("cache.size"), ("1MiB".into(), "environment variable DELTA_CACHE_SIZE".into()));
    assert_eq!(of("retry.base"), ("5ms".into(), "default".into()));
    let text = format!("{inspection:?} {:?} {:?}", inspection.values, world.load().unwrap());
    assert!(!text.contains("geheim"), "{text}");
    let flagged = world.inspect(None, Some("mysql://u:geheim@x/d"));
    let catalog = flagged.values.iter().find(|shown| shown.key == "catalog").unwrap();
    assert_eq!(
        (&*catalog.value, &*catalog.origin.to_string()),
        ("mysql://u:***@x/d", "option --catalog")
    );
    assert_eq!(inspection.values.len(), keys().len());
}

#[test]
fn the_example_is_right_and_fits_the_schema() {
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("config.json", json_schema()).unwrap();
    let schema = compiler.compile("config.json", &mut schemas).unwrap();
    let fits = |value: &serde_json::Value| schemas.validate(value, schema).is_ok();
    for (syntax, name) in [(Syntax::Toml, "dl.toml"), (Syntax::Yaml, "dl.yaml")] {
        let text = example(syntax);
        let world = World::of(name, &text);
        let inspection = world.inspect(None, None);
        assert!(inspection.problems.is_empty(), "{name}: {:?}", inspection.problems);
        // Each line that is commented out, by itself.
        for key in model::keys() {
            let (_, short) = key.split();
            let sign = if syntax == Syntax::Toml { " = " } else { ": " };
            let commented = format!("#{short}{sign}{}", key.example);
            if key.path == "catalog" || key.path == "profile" {
                continue;
            }
            assert!(text.contains(&commented), "{}: {commented}", key.path);
            let (_, found) = file_of(key, sign);
            let world = World::of(name, &found);
            let inspection = world.inspect(None, None);
            // These take others: nothing else may be wrong with them.
            let partial =
                ["database.host", "database.name", "database.ssl_cert", "database.ssl_key"];
            let wrong = inspection.problems.iter().any(|problem| problem.key.is_some());
            assert!(!wrong, "{found}: {:?}", inspection.problems);
            assert!(inspection.problems.is_empty() || partial.contains(&key.path), "{found}");
            assert!(
                inspection
                    .values
                    .iter()
                    .any(|shown| shown.key == key.path
                        && matches!(shown.origin, Origin::File { .. })),
                "{found}"
            );
            let value: serde_json::Value = serde_json::from_str(key.example).unwrap();
            let document =
                key.path.rsplit('.').fold(value, |inner, name| serde_json::json!({name: inner}));
            assert!(fits(&document), "{document}");
            assert!(fits(&serde_json::json!({"profiles": {"a": document}})));
        }
    }
    for wrong in [
        serde_json::json!({"catalogue": "x"}),
        serde_json::json!({"cache": {"size": true}}),
        serde_json::json!({"cache": {"sise": 1}}),
        serde_json::json!({"logging": {"level": "loud"}}),
        serde_json::json!({"profiles": {"a": {"b": 1}}}),
        serde_json::json!({"connection": {"pool_size": 0}}),
    ] {
        assert!(!fits(&wrong), "{wrong}");
    }
    assert!(fits(&serde_json::json!({"foreign_check_interval": "5m"})), "a name of before");
}

/// A file with this key alone, in its section.
fn file_of(key: &model::Key, sign: &str) -> (&'static str, String) {
    let (section, name) = key.split();
    let line = format!("{name}{sign}{}", key.example);
    let text = match (section, sign) {
        (None, _) => line,
        (Some(section), ": ") => match section.split_once('.') {
            Some((outer, inner)) => format!("{outer}:\n  {inner}:\n    {line}"),
            None => format!("{section}:\n  {line}"),
        },
        (Some(section), _) => format!("[{section}]\n{line}"),
    };
    (key.path, format!("{text}\n"))
}

#[test]
fn the_page_has_every_key() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/operate/configuration.md");
    let page = fs::read_to_string(page).unwrap();
    for key in keys() {
        let variables: Vec<String> = key.variables.iter().map(|name| format!("`{name}`")).collect();
        let KeyInfo { key, about, kind, default, .. } = key;
        let row = format!("| `{key}` | {about} | {kind} | {default} | {} |", variables.join(", "));
        assert!(page.lines().any(|line| line == row), "the page lacks this row:\n{row}");
    }
}

/// What other programs made of such values: spring-boot #45307, pyyaml #107, and others.
#[test]
fn plain_scalars_of_yaml_are_taken_as_they_are_written() {
    for password in ["0123", "02142", "0o17", "1e3", "no", "yes", "123_456", "1.10", "0x1F"] {
        let world = World::of(
            "dl.yaml",
            &format!("catalog: mysql://u@h/d\ndatabase:\n  password: {password}\n"),
        );
        let uri = world.load().unwrap().catalog(None).unwrap();
        assert_eq!(uri.server().unwrap().password().unwrap().expose(), password);
    }
    World::of("dl.yaml", "database:\n  password:\n").fails(&["dl.yaml:2", "no value"]);
    World::of("dl.yaml", "\u{feff}format: json\n").load().unwrap();
    World::of("dl.yaml", "connection:\n  pre_ping: yes\n").load().unwrap();
}

#[test]
fn slips_in_the_environment_are_told() {
    let names = [
        "DELTA_CONNECTION_POOLSIZE",
        "DELTA_CONNECTION_POOL_SIZE",
        "DELTA_DATABASE_PASSWORD_FILE",
        "DELTA_DATABASE_URL_FILE",
        "DELTA_DB_CONNECTION",
        "DELTA_SOMETHING_ELSE",
        "DELTA_LOGGING_LEVL",
        "PATH",
    ];
    let told: Vec<String> = unknown_variables(names).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "environment variable DELTA_CONNECTION_POOLSIZE: it sets nothing; did you mean \
             DELTA_CONNECTION_POOL_SIZE?",
            "environment variable DELTA_LOGGING_LEVL: it sets nothing; did you mean DELTA_LOGGING_LEVEL?",
        ]
    );
}
