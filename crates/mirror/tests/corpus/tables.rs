//! Finds the tables of the corpus: folders with a `_delta_log/`, and tables in `*.tar.zst`.

use std::fs;
use std::path::{Path, PathBuf};

/// Environment variable that names the corpus folder.
const VARIABLE: &str = "DL_DELTA_TABLES";

/// A table of the corpus.
#[derive(Debug, Clone)]
pub(crate) struct CorpusTable {
    /// Path below the corpus folder, without `.tar.zst`.
    pub name: String,
    /// Its root.
    pub root: PathBuf,
}

/// All tables, by name. Archives are unpacked into a temporary folder that lives as long as this.
pub(crate) struct Corpus {
    pub tables: Vec<CorpusTable>,
    _unpacked: tempfile::TempDir,
}

impl Corpus {
    /// None, with the reason printed, if there is no corpus here.
    pub(crate) fn open() -> Option<Corpus> {
        let Some(folder) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
            let why = format!("{VARIABLE} does not name a folder of Delta tables");
            deltalakedb_test_servers::skip(&["corpus"], why);
            return None;
        };
        if !folder.is_dir() {
            let why = format!("{VARIABLE} names '{}', which is no folder", folder.display());
            deltalakedb_test_servers::skip(&["corpus"], why);
            return None;
        }
        let unpacked = tempfile::tempdir().unwrap();
        let mut tables = Vec::new();
        find(&folder, &folder, &mut tables, unpacked.path());
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(!tables.is_empty(), "no table in {}", folder.display());
        Some(Corpus { tables, _unpacked: unpacked })
    }
}

fn find(base: &Path, dir: &Path, tables: &mut Vec<CorpusTable>, unpacked: &Path) {
    let name = |path: &Path| {
        path.strip_prefix(base).unwrap().to_str().unwrap().trim_end_matches(".tar.zst").to_owned()
    };
    if dir.join("_delta_log").is_dir() {
        tables.push(CorpusTable { name: name(dir), root: dir.to_owned() });
        return;
    }
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(base, &path, tables, unpacked);
        } else if path.to_str().is_some_and(|p| p.ends_with(".tar.zst")) {
            let to = unpacked.join(path.file_name().unwrap());
            let file = fs::File::open(&path).unwrap();
            tar::Archive::new(zstd::stream::read::Decoder::new(file).unwrap()).unpack(&to).unwrap();
            let root = table_root(&to).unwrap_or_else(|| panic!("no table in {}", path.display()));
            tables.push(CorpusTable { name: name(&path), root });
        }
    }
}

fn table_root(dir: &Path) -> Option<PathBuf> {
    if dir.join("_delta_log").is_dir() {
        return Some(dir.to_owned());
    }
    let folders = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir());
    folders.into_iter().find_map(|d| table_root(&d))
}
