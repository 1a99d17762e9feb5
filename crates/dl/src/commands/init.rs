//! `dl init`

use clap::Args;
use deltalakedb::Db;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;

/// Arguments of `dl init`.
#[derive(Debug, Args)]
#[command(after_help = "\
Running it again is harmless: a catalog that is up to date stays as it is. On a server the database
must exist, and the login needs the right to create tables in it; `dl grants` prints what the logins
need that work with the catalog afterwards.

Examples:
  dl init --catalog sqlite:///lake/catalog.db
  DELTA_DB_PASSWORD=… dl init --catalog postgresql://dl@db.example/lake
  dl init --catalog 'mysql://dl@db.example/lake?ssl-mode=verify_identity'
  DELTA_DB_CONNECTION=sqlite://catalog.db dl init
  dl init --catalog 'sqlite:///lake/shared.db?table_prefix=team_a_'")]
pub(crate) struct Init {}

#[derive(Debug, Serialize)]
struct Initialised {
    catalog: String,
    kind: &'static str,
    server_version: String,
    schema_version: u32,
}

impl Init {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let uri = context.catalog_uri()?;
        let db = Db::create(&uri).await?;
        let info = db.backend().info().await?;
        if context.out.is_json() {
            return context.out.document(&Initialised {
                catalog: uri.to_string(),
                kind: info.kind,
                server_version: info.server_version,
                schema_version: info.schema_version,
            });
        }
        context.out.say(format!(
            "Catalog {uri} is ready ({} {}, schema {}).",
            info.kind, info.server_version, info.schema_version
        ))
    }
}
