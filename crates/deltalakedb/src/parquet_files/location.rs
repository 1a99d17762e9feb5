//! Where a data file lies, and what its path says.

use std::borrow::Cow;
use std::path::PathBuf;

use deltalakedb_catalog_core::action::NullableMap;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::paths;
use deltalakedb_catalog_engine::predicate::partition_value;
use deltalakedb_catalog_engine::schema::{DataType, StructType};
use deltalakedb_mirror::store::{Store, normalize_location};
use object_store::path::Path;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// How Hive and Spark name the folder of a null.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// What a relative URI cannot hold as it is. The colon would make a scheme of what stands before
/// it; a percent sign of a folder's own escapes becomes `%25`, so that it survives one decoding.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b':')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A file's path in the table's store, from what people write: a URL below the table's location;
/// for a local table also a path of this machine, relative to the working folder or, if it is not
/// there, to the table; for any other table a key relative to the table's root.
///
/// # Errors
/// `InvalidInput` if it lies outside of the table.
pub fn locate(table: &Store, location: &str) -> Result<Path> {
    let outside = || {
        CatalogError::invalid(format!(
            "file '{location}' is not below the table's location '{}': only files that lie there \
             can be appended; copy it there first",
            table.url
        ))
    };
    let is_file = location.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("file:/"));
    let is_url = is_file || location.contains("://");
    if !is_url && table.local.is_none() {
        return below(&table.root, location).ok_or_else(outside);
    }
    if is_url {
        // Whatever other schemes and names its store goes by.
        return match table.paths()?.resolve(location).map(|found| found.place) {
            Ok(paths::Place::Inside(key)) => below(&table.root, &key).ok_or_else(outside),
            Ok(paths::Place::Outside(_)) | Err(_) => Err(outside()),
        };
    }
    if let Some(relative) = below_url(table, &normalize_location(location)?) {
        return below(&table.root, &relative).ok_or_else(outside);
    }
    let Some(local) = table.local.as_ref() else {
        return Err(outside());
    };
    // Another way to the same folder, or a path that is meant to start at the table.
    let given = PathBuf::from(location);
    if !given.exists() {
        let here = local.join(&given);
        if given.is_relative() && here.exists() {
            return below(&table.root, location).ok_or_else(outside);
        }
        return Err(CatalogError::invalid(format!("file '{location}' does not exist")));
    }
    let relative = match (local.canonicalize(), given.canonicalize()) {
        (Ok(root), Ok(file)) => {
            file.strip_prefix(&root).ok().and_then(|p| p.to_str()).map(str::to_owned)
        }
        _ => None,
    };
    relative.and_then(|relative| below(&table.root, &relative)).ok_or_else(outside)
}

/// The decoded rest of a URL behind the table's.
fn below_url(table: &Store, url: &str) -> Option<String> {
    let base = table.url.as_str().trim_end_matches('/');
    let rest = url.strip_prefix(base)?.strip_prefix('/')?;
    percent_decode_str(rest).decode_utf8().ok().map(Cow::into_owned)
}

/// `root/relative`, unless that would leave the root.
fn below(root: &Path, relative: &str) -> Option<Path> {
    let clean: Vec<&str> =
        relative.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if relative.starts_with('/') || clean.is_empty() || clean.contains(&"..") {
        return None;
    }
    let clean = clean.join("/");
    let root = root.as_ref();
    Path::parse(if root.is_empty() { clean } else { format!("{root}/{clean}") }).ok()
}

/// A partition column.
#[derive(Debug, Clone)]
struct Partition {
    name: String,
    data_type: DataType,
    nullable: bool,
}

/// How a table lays out its files.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: Path,
    partitions: Vec<Partition>,
}

/// What a file's path says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    /// `add.path`: relative to the root, URI-encoded.
    pub(super) encoded: String,
    pub(super) partition_values: NullableMap,
}

impl Layout {
    pub(super) fn new(
        root: &Path,
        schema: &StructType,
        partition_columns: &[String],
    ) -> Result<Layout> {
        let mut partitions = Vec::with_capacity(partition_columns.len());
        for name in partition_columns {
            let field = schema.field(name).ok_or_else(|| {
                CatalogError::corrupt(format!(
                    "partition column '{name}' is not in the table's schema"
                ))
            })?;
            partitions.push(Partition {
                name: name.clone(),
                data_type: field.data_type.clone(),
                nullable: field.nullable,
            });
        }
        Ok(Layout { root: root.clone(), partitions })
    }

    pub(super) fn place(&self, file: &Path) -> Result<Place> {
        let name = super::shown(&self.root, file);
        let bad = |what: String| CatalogError::invalid(format!("file '{name}' {what}"));
        let parts: Vec<String> = match file.prefix_match(&self.root) {
            Some(parts) => parts.map(|part| part.as_ref().to_owned()).collect(),
            None => return Err(bad(format!("is not below the table's root '{}'", self.root))),
        };
        let Some((name, folders)) = parts.split_last() else {
            return Err(bad("is the table's root itself".to_owned()));
        };
        if name.is_empty() {
            return Err(bad("has no name".to_owned()));
        }
        // Logs and change data are not rows, and VACUUM leaves such folders alone.
        if let Some(hidden) = folders.iter().find(|f| f.starts_with('_') && !f.contains('=')) {
            return Err(bad(format!(
                "lies in the folder '{hidden}': folders that start with '_' do not hold table data"
            )));
        }
        let mut partition_values = NullableMap::new();
        if !self.partitions.is_empty() {
            for folder in folders {
                if let Some((name, value)) = folder.split_once('=') {
                    self.read_folder(name, value, &mut partition_values).map_err(bad)?;
                }
            }
            if let Some(missing) =
                self.partitions.iter().find(|p| !partition_values.contains_key(&p.name))
            {
                let folders: Vec<String> =
                    self.partitions.iter().map(|p| format!("{}=…", p.name)).collect();
                return Err(bad(format!(
                    "has no folder '{}=…' in its path: the table is partitioned, so that its \
                     files lie in {}/",
                    missing.name,
                    folders.join("/")
                )));
            }
        }
        let encoded: Vec<String> =
            parts.iter().map(|part| utf8_percent_encode(part, ENCODED).to_string()).collect();
        Ok(Place { encoded: encoded.join("/"), partition_values })
    }

    fn read_folder(
        &self,
        name: &str,
        value: &str,
        values: &mut NullableMap,
    ) -> std::result::Result<(), String> {
        let decode = |text: &str| {
            percent_decode_str(text).decode_utf8().map(Cow::into_owned).map_err(|_| {
                format!("has the folder '{name}={value}', which does not decode to UTF-8")
            })
        };
        let name = decode(name)?;
        let Some(partition) = self.partitions.iter().find(|p| p.name == name) else {
            let known: Vec<&str> = self.partitions.iter().map(|p| p.name.as_str()).collect();
            return Err(format!(
                "lies in a folder of '{name}', which is not a partition column: the table is \
                 partitioned by {}",
                known.join(", ")
            ));
        };
        // An empty string is null in Delta, too.
        let text = Some(decode(value)?).filter(|text| !text.is_empty() && text != HIVE_NULL);
        if partition.data_type == DataType::Binary {
            return Err(format!(
                "cannot be added: the table is partitioned by '{name}', which is binary, and writers and \
                 readers do not agree on how bytes are written as text"
            ));
        }
        let value = match text {
            None if partition.nullable => None,
            None => return Err(format!("has null for '{name}', which is not null")),
            Some(text) => match partition_value(&partition.data_type, &text) {
                Some(value) => Some(value),
                None => {
                    return Err(format!(
                        "has '{text}' for partition column '{name}', which is no {}",
                        partition.data_type
                    ));
                }
            },
        };
        if values.insert(name.clone(), value).is_some() {
            return Err(format!("has two folders for partition column '{name}'"));
        }
        Ok(())
    }
}
