//! Arguments that several commands share.

use clap::Args;
use deltalakedb::core::error::Result;
use deltalakedb::core::ids::{At, Version};

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
}
