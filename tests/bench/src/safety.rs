//! Backups of a catalog, and catalogs of backups.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use deltalakedb::Db;
use deltalakedb::backup::{self, BackupOptions, Place, RestoreOptions};
use deltalakedb::core::env::NoProgress;
use deltalakedb::uri::CatalogUri;

use crate::AnyError;
use crate::measure::{Subject, print_ms, uri};

/// A name for what is the subject's own, in its folder or in its database.
fn name(subject: &Subject) -> &'static str {
    match &subject.url {
        None => "sqlite",
        Some(url) if url.starts_with("postgres") => "postgres",
        Some(_) => "mysql",
    }
}

fn place(subject: &Subject) -> Result<Place, AnyError> {
    let folder: PathBuf = subject.dir.join(format!("backups-{}", name(subject)));
    Ok(Place::open(&folder.to_string_lossy(), &BTreeMap::new())?)
}

/// A catalog beside the subject's, of this run's own.
fn beside(subject: &Subject) -> Result<CatalogUri, AnyError> {
    let own = std::process::id();
    let Some(url) = &subject.url else {
        let folder = subject.dir.join(format!("restored-{own}"));
        std::fs::create_dir_all(&folder)?;
        return Ok(uri(&folder));
    };
    let base = url.split('?').next().unwrap_or(url);
    Ok(format!("{base}?table_prefix=restored_{own}_").parse()?)
}

/// A set that goes on from none, or one that goes on from the newest.
pub(crate) async fn back_up(subject: &Subject, full: bool) -> Result<(), AnyError> {
    let (db, place) = (Db::open(&subject.uri()?).await?, place(subject)?);
    let started = Instant::now();
    let options = BackupOptions { full, ..BackupOptions::default() };
    let report = backup::backup(db.catalog(), &place, &options, &NoProgress).await?;
    print_ms(started);
    println!("size_mb={}", report.size_bytes / 1_000_000);
    Ok(())
}

/// Reads every object of the newest sets.
pub(crate) async fn verify(subject: &Subject) -> Result<(), AnyError> {
    let place = place(subject)?;
    let started = Instant::now();
    backup::verify(&place, None, &NoProgress).await?;
    print_ms(started);
    Ok(())
}

/// Makes a catalog of the newest set, as `dl restore --init` does: with its comparison.
pub(crate) async fn restore(subject: &Subject) -> Result<(), AnyError> {
    let (place, target) = (place(subject)?, beside(subject)?);
    if place.list().await?.newest().is_none() {
        return Err("there is no backup: measure `backup` in the same run".into());
    }
    let started = Instant::now();
    let db = Db::create(&target).await?;
    let report =
        backup::restore(&place, db.catalog(), &RestoreOptions::default(), &NoProgress).await?;
    print_ms(started);
    if !report.agrees() {
        return Err(format!("it was not restored: {report:?}").into());
    }
    Ok(())
}
