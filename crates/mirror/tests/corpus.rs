#[path = "corpus/env.rs"]
mod env;
#[path = "corpus/tables.rs"]
mod tables;

use std::sync::Arc;

use deltalakedb_catalog_core::env::NoProgress;
use deltalakedb_catalog_core::ids::TableName;
use deltalakedb_catalog_core::memory::MemoryBackend;
use deltalakedb_mirror::import::{ImportOptions, import_table};

#[tokio::test(flavor = "multi_thread")]
async fn survey() {
    let Some(corpus) = tables::Corpus::open() else { return };
    let catalog = env::catalog(Arc::new(MemoryBackend::new()));
    for table in &corpus.tables {
        let name = TableName::new("corpus", table.name.replace(['/', '.'], "_")).unwrap();
        let options = ImportOptions::new(name, table.root.to_str().unwrap());
        let t = std::time::Instant::now();
        match import_table(&catalog, options, &NoProgress).await {
            Ok(r) => println!("OK  {} {:?} {}..{} files {} {:?} {:?} {:?}", table.name, r.base, r.base_version, r.head, r.num_files, r.validation, r.warnings, t.elapsed()),
            Err(e) => println!("ERR {} {e}", table.name),
        }
    }
}
