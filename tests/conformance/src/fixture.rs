//! A catalog with everything that a row can be, what its reads answer, and how it goes on.
//!
//! [`build`] makes it through the contract, with fixed ids, tokens and times, so that each database has the
//! same one. [`answers`] reads everything back as text, and [`goes_on`] makes the usual calls on it. The files
//! in `fixtures` hold the catalog as programs of the schema versions in [`VERSIONS`] stored it, and [`ANSWERS`] what
//! each of these programs answered: [`upgraded`] compares a later program with it.

mod answers;
mod build;
mod goes_on;
mod imports;
mod outbox;
mod stored;
mod tables;

use deltalakedb_catalog_core::audit::{AuditFilter, AuditOrder};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_engine::memory::MemoryBackend;

pub use answers::answers;
pub use build::build;
pub use goes_on::goes_on;
pub use stored::{VERSIONS, mysql_statements, postgres_script, sqlite_file};

/// The version that came with the audit.
const AUDITED: u32 = 4;

/// What a program of version 2 answered, and those of versions 3 and 4, too. See [`answers`].
pub const ANSWERS: &str = include_str!("../fixtures/version-2.answers.txt");

/// The time of the first call of [`build`]. All of its calls are within the hour after it.
pub const START: TimestampMs = TimestampMs(1_700_000_000_000);

/// A catalog of this version that was loaded from `fixtures`: it is refused by name, upgraded, answers as it did,
/// and goes on.
///
/// # Errors
/// Those of the backend; `Corrupt` if it does otherwise, with the answers that differ.
pub async fn upgraded(db: &dyn CatalogBackend, version: u32) -> Result<()> {
    if version != db.info().await?.supported_schema_version {
        refused(db, version).await?;
    }
    db.migrate(START).await?;
    db.migrate(START).await?;
    let info = db.info().await?;
    if info.schema_version != info.supported_schema_version {
        return Err(CatalogError::corrupt(format!("after the upgrade: {info:?}")));
    }
    same("the upgrade", ANSWERS, &answers(db).await?)?;
    match db.registry_revision().await.plain() {
        Ok(0) | Err(CatalogError::Unsupported(_)) => {}
        other => return Err(CatalogError::corrupt(format!("the upgrade's registry: {other:?}"))),
    }
    if info.keeps_audit {
        let kept = audited(db).await?;
        let built = MemoryBackend::new();
        build(&built).await?;
        let want = if version < AUDITED { String::new() } else { audited(&built).await? };
        same("the upgrade's audit", &want, &kept)?;
    }
    goes_on(db).await
}

/// The rows of the audit, a line each, without their ids.
async fn audited(db: &dyn CatalogBackend) -> Result<String> {
    let filter = AuditFilter::default();
    let page = db.audit_list(&filter, AuditOrder::OldestFirst, None, 10_000).await?;
    let mut lines: Vec<String> =
        page.items.iter().map(|row| format!("{:?}\n", row.entry)).collect();
    // Ids of one time are given in the order of the calls, which are the same.
    lines.sort();
    Ok(lines.concat())
}

/// A catalog of an earlier version is refused: the error names that version and the way out.
///
/// # Errors
/// `Corrupt` if it is not.
pub async fn refused(db: &dyn CatalogBackend, version: u32) -> Result<()> {
    match db.skip_index(tables::MANY).await.plain() {
        Err(CatalogError::Schema(message))
            if message.contains(&format!("version {version}")) && message.contains("dl init") =>
        {
            Ok(())
        }
        other => Err(CatalogError::corrupt(format!("an old schema is not refused: {other:?}"))),
    }
}

/// The same lines, or an error with the first ones that differ.
///
/// # Errors
/// `Corrupt` if they are not the same.
pub fn same(what: &str, want: &str, got: &str) -> Result<()> {
    const SHOWN: usize = 8;
    if want == got {
        return Ok(());
    }
    let differ: Vec<String> = want
        .lines()
        .map(Some)
        .chain(std::iter::repeat(None))
        .zip(got.lines().map(Some).chain(std::iter::repeat(None)))
        .take_while(|(want, got)| want.is_some() || got.is_some())
        .enumerate()
        .filter(|(_, (want, got))| want != got)
        .take(SHOWN)
        .map(|(n, (want, got))| {
            let line = |text: Option<&str>| text.unwrap_or("(nothing)").to_owned();
            format!("line {}\n  before: {}\n  now:    {}", n + 1, line(want), line(got))
        })
        .collect();
    Err(CatalogError::corrupt(format!(
        "{what} changed answers, the first of them:\n{}",
        differ.join("\n")
    )))
}
