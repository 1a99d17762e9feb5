//! Arguments that several commands share.

use clap::Args;
use deltalakedb::Db;
use deltalakedb::core::error::CatalogError;
use deltalakedb::core::ids::{At, TableRef, Version};
use deltalakedb::core::model::Snapshot;

use crate::failure::{Failure, Result};
use crate::time;

/// Which state of a table.
#[derive(Debug, Args)]
pub(super) struct AtArguments {
    /// The state at this version
    #[arg(long, value_name = "N", conflicts_with = "at")]
    version: Option<i64>,
    /// The state at this time: RFC 3339, YYYY-MM-DD, 'YYYY-MM-DD HH:MM:SS' (UTC) or Unix ms
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<String>,
}

impl AtArguments {
    pub(super) fn at(&self) -> Result<At> {
        Ok(match (self.version, &self.at) {
            (Some(version), _) => At::Version(Version::new(version)?),
            (None, Some(text)) => At::Timestamp(time::parse(text)?),
            (None, None) => At::Head,
        })
    }

    /// Opens a table there.
    pub(super) async fn snapshot(&self, db: &Db, table: &TableRef) -> Result<Snapshot> {
        let at = self.at()?;
        match (db.snapshot(table, at).await, at) {
            (
                Err(CatalogError::VersionNotFound { table, earliest, latest, .. }),
                At::Timestamp(time),
            ) => Err(Failure::Catalog(CatalogError::VersionNotFound {
                table,
                version: format!("at {} UTC", time::show(time)),
                earliest,
                latest,
            })),
            (Err(error @ CatalogError::TableNotFound(_)), _) => {
                // A table that is being imported is told apart here.
                db.catalog().table(table).await?;
                Err(error.into())
            }
            (other, _) => Ok(other?),
        }
    }
}
