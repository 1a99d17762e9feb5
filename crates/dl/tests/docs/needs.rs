//! What blocks need: servers, engines, features of this build.

use std::collections::BTreeMap;
use std::path::Path;

use deltalakedb_test_servers::{Database, EmulatedStore, ObjectStoreKind, shared_object_store};

use crate::markdown::Block;

/// What the pages call a server, and what a test puts in its place.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// As `postgresql://dl@db.example/lake`, and the URL that stands for it here.
    urls: BTreeMap<&'static str, String>,
    /// Variables of the environment that lead to it.
    pub(crate) variables: Vec<(String, String)>,
}

/// Servers by the words of blocks: how pages call them.
const SERVERS: [(&str, Database, &str); 3] = [
    ("postgres", Database::Postgres, "postgresql://dl@db.example/lake"),
    ("mysql", Database::MySql, "mysql://dl@db.example/lake"),
    ("mssql", Database::Mssql, "mssql://dl@db.example/lake"),
];

const STORES: [(&str, ObjectStoreKind, &str); 2] = [
    ("s3", ObjectStoreKind::S3, "s3://lake-bucket"),
    ("azure", ObjectStoreKind::Azure, "az://lake-bucket"),
];

/// Words of blocks that stand for what this program has, or has not.
const FEATURES: [(&str, bool); 6] = [
    ("sql", cfg!(feature = "sql")),
    ("postgres", cfg!(feature = "postgres")),
    ("mysql", cfg!(feature = "mysql")),
    ("mssql", cfg!(feature = "mssql")),
    ("s3", cfg!(feature = "s3")),
    ("azure", cfg!(feature = "azure")),
];

/// Every word that may stand behind `sh`.
pub(crate) fn is_known(word: &str) -> bool {
    FEATURES.iter().any(|(name, _)| *name == word)
}

/// Names a Python that has the engines of `tests/interop/requirements.txt`.
pub(crate) fn python() -> Result<String, String> {
    std::env::var("DL_TEST_PYTHON").map_err(|_| {
        "set DL_TEST_PYTHON (`cargo xtask test` does) to run what the pages say of other engines"
            .to_owned()
    })
}

impl Places {
    /// Makes room for what a block needs.
    ///
    /// # Errors
    /// What is missing, by its names in `DL_REQUIRE`, and why.
    pub(crate) fn prepare(&mut self, block: &Block) -> Result<(), (Vec<&'static str>, String)> {
        for (feature, built) in FEATURES {
            let needed = block.has(feature) || block.language == feature;
            if needed && !built {
                let why = format!("dl was built without the cargo feature {feature}");
                return Err((vec![feature], why));
            }
        }
        for (word, database, shown) in SERVERS {
            if block.has(word) && !self.urls.contains_key(shown) {
                let url = database.url(Path::new(""), "docs").map_err(|why| (vec![word], why))?;
                self.urls.insert(shown, url);
            }
        }
        for (word, kind, shown) in STORES {
            if block.has(word) && !self.urls.contains_key(shown) {
                let store = shared_object_store(kind).map_err(|why| (vec![word], why))?;
                let bucket = self.bucket(&store);
                self.urls.insert(shown, bucket);
            }
        }
        Ok(())
    }

    fn bucket(&mut self, store: &EmulatedStore) -> String {
        let bucket = format!("docs-{}-{}", std::process::id(), self.variables.len());
        store.make_bucket(&bucket).unwrap();
        for (name, value) in store.options() {
            self.variables.push((name.to_uppercase(), value));
        }
        store.url(&bucket)
    }

    /// Puts the servers of this machine in the place of those that pages name.
    pub(crate) fn fill_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (shown, url) in &self.urls {
            text = put_in(&text, shown, url);
        }
        text
    }
}

/// `shown/table?option` becomes the URL with the path and the option where they belong.
fn put_in(text: &str, shown: &str, url: &str) -> String {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut filled = String::new();
    let mut pieces = text.split(shown);
    filled.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let path = piece.find(|c: char| !(c.is_alphanumeric() || "/._-".contains(c)));
        let (path, rest) = piece.split_at(path.unwrap_or(piece.len()));
        filled.push_str(base);
        filled.push_str(path);
        if !query.is_empty() {
            filled.push('?');
            filled.push_str(query);
        }
        match rest.strip_prefix('?') {
            Some(more) if !query.is_empty() => {
                filled.push('&');
                filled.push_str(more);
            }
            _ => filled.push_str(rest),
        }
    }
    filled
}

#[test]
fn servers_are_filled_in() {
    let url = "p://u:w@h:1/db?prefix=x_";
    for (shown, want) in [
        ("dl init --catalog 'p://ex'", "dl init --catalog 'p://u:w@h:1/db?prefix=x_'"),
        ("'p://ex?a=b'", "'p://u:w@h:1/db?prefix=x_&a=b'"),
        ("d+p://ex/s.t p://ex", "d+p://u:w@h:1/db/s.t?prefix=x_ p://u:w@h:1/db?prefix=x_"),
        ("none", "none"),
    ] {
        assert_eq!(put_in(shown, "p://ex", url), want);
    }
    assert_eq!(put_in("s3://b/t?x", "s3://b", "s3://other"), "s3://other/t?x");
}
