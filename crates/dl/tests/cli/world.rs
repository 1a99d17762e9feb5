//! A folder with a catalog, and `dl` in it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::Value;

/// What a run of `dl` gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    #[track_caller]
    pub(crate) fn ok(self) -> Run {
        self.code(0)
    }

    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Run {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Fails with code 1 and a message that has all of these in it.
    #[track_caller]
    pub(crate) fn fails(self, words: &[&str]) -> Run {
        let run = self.code(1);
        assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "'{word}' is not in: {}", run.stderr);
        }
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        run
    }

    #[track_caller]
    pub(crate) fn says(self, word: &str) -> Run {
        assert!(self.stdout.contains(word), "'{word}' is not in: {}", self.stdout);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Three columns, of which `day` partitions where it is asked for.
pub(crate) const COLUMNS: &str = "id long not null, name string, day string";

/// On whose behalf `dl` commits here.
pub(crate) const USER: &str = "ann o'tester";

pub(crate) struct World {
    dir: tempfile::TempDir,
    /// The catalog's URL if it is not a file in the folder.
    server: Option<String>,
}

impl World {
    /// An empty folder.
    pub(crate) fn empty() -> World {
        World { dir: tempfile::tempdir().unwrap(), server: None }
    }

    /// An empty folder, and a place for a catalog that may be elsewhere.
    pub(crate) fn at(catalog: Option<String>) -> World {
        World { server: catalog, ..World::empty() }
    }

    /// A folder with a catalog.
    pub(crate) fn new() -> World {
        let world = World::empty();
        world.dl(&["init"]).ok();
        world
    }

    /// A folder with a catalog and a table `s.t` at `t/`, partitioned by `day`.
    pub(crate) fn with_table() -> World {
        let world = World::new();
        world.create("s.t", "t", &["--partition-by", "day"]).ok();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn catalog(&self) -> String {
        match &self.server {
            Some(url) => url.clone(),
            None => format!("sqlite://{}", self.path("catalog.db").display()),
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dl"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            // Nothing of this machine's configuration.
            .env_remove("DL_CONFIG")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("RUST_LOG")
            .env_remove("CARGO_MANIFEST_DIR")
            .env_remove("DELTA_DB_CONNECTION_FILE")
            .env_remove("DELTA_DB_PASSWORD")
            .env_remove("DELTA_DB_PASSWORD_FILE")
            .env_remove("DATABASE_URL")
            .env_remove("DELTA_CONFIG_PATH")
            .env_remove("DELTA_DB_TYPE")
            .env_remove("DELTA_CACHE_SIZE")
            .env_remove("DELTA_LOG_LEVEL")
            .env_remove("DELTA_PROFILE")
            .env_remove("LOG_LEVEL")
            .env_remove("LOG_FORMAT")
            .env_remove("ENVIRONMENT")
            .env_remove("DB_POOL_SIZE")
            .env_remove("DB_MAX_OVERFLOW")
            .env_remove("DB_TIMEOUT")
            .env_remove("TRACEPARENT")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .env_remove("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .env_remove("PGPASSWORD")
            .env_remove("PGPASSFILE")
            .env_remove("MYSQL_PWD")
            .env("HOME", self.dir.path())
            .env("DL_USER", USER)
            .env("DELTA_DB_CONNECTION", self.catalog())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn dl(&self, arguments: &[&str]) -> Run {
        self.command(arguments).output().unwrap().into()
    }

    /// The JSON document of a command that succeeds.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--format", "json"]);
        self.dl(&arguments).ok().json()
    }

    /// The JSON document of a command, whatever its exit code.
    #[track_caller]
    pub(crate) fn json_of(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--format", "json"]);
        self.dl(&arguments).json()
    }

    pub(crate) fn dl_with_input(&self, arguments: &[&str], input: &str) -> Run {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    pub(crate) fn create(&self, name: &str, location: &str, more: &[&str]) -> Run {
        let mut arguments = vec!["create", name, "--location", location, "--columns", COLUMNS];
        arguments.extend(more);
        self.dl(&arguments)
    }

    /// Writes a file; gives its path as text.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Writes Parquet with the columns `id` and `name`.
    pub(crate) fn parquet(&self, name: &str, ids: &[i64]) -> String {
        let names: Vec<String> = ids.iter().map(|id| format!("n{id}")).collect();
        self.parquet_of(
            name,
            vec![
                ("id", Arc::new(Int64Array::from(ids.to_vec()))),
                ("name", Arc::new(StringArray::from(names))),
            ],
        )
    }

    pub(crate) fn parquet_of(&self, name: &str, columns: Vec<(&str, ArrayRef)>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, column)| (name, column, name != "id")),
        )
        .unwrap();
        let file = fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Versions in a table's log, ascending.
    pub(crate) fn log_versions(&self, table: &str) -> Vec<u64> {
        log_versions(&self.path(table).join("_delta_log"))
    }
}

pub(crate) fn log_versions(log: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(log) else { return Vec::new() };
    let mut versions: Vec<u64> = entries
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".json")?.parse().ok()
        })
        .collect();
    versions.sort_unstable();
    versions
}

/// An `add` of a table that is partitioned by `day`.
pub(crate) fn add(path: &str, day: &str) -> String {
    format!(
        r#"{{"add":{{"path":"{path}","partitionValues":{{"day":"{day}"}},"size":10,"modificationTime":1,"dataChange":true}}}}"#
    )
}

pub(crate) fn remove(path: &str) -> String {
    format!(r#"{{"remove":{{"path":"{path}","deletionTimestamp":1,"dataChange":true}}}}"#)
}

/// A log of another engine: `commits` are the files of versions 0, 1, …
pub(crate) fn foreign_log(world: &World, table: &str, commits: &[&str]) -> String {
    for (version, text) in commits.iter().enumerate() {
        world.file(&format!("{table}/_delta_log/{version:020}.json"), text);
    }
    world.path(table).to_str().unwrap().to_owned()
}

/// Version 0 of a table with the column `id`.
pub(crate) const FIRST_COMMIT: &str = concat!(
    r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#,
    "\n",
    r#"{"metaData":{"id":"a","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{}}}"#,
    "\n",
);

/// An `add` of a table without partitions.
pub(crate) fn plain_add(path: &str) -> String {
    format!(
        r#"{{"add":{{"path":"{path}","partitionValues":{{}},"size":10,"modificationTime":1,"dataChange":true}}}}"#
    )
}
