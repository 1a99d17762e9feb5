//! `dl grants`

use clap::{Args, ValueEnum};
use deltalakedb::grants::{self, grants};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;

/// Arguments of `dl grants`.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints SQL for an administrator to run in the catalog's database; nothing is run, and the server is
not asked. The login must exist. `dl init`, which makes the tables, needs more rights than all
roles: those to create tables in the database (or schema).

Examples:
  dl grants --role writer --login dl_writer | psql -d lake
  dl grants --role reader --login analyst@10.% | mysql lake
  dl grants --role reader --login analyst --catalog mssql://sa@host/lake")]
pub(crate) struct Grants {
    /// What the login does
    #[arg(long, value_enum)]
    role: Role,
    /// The login, as the server knows it; for MySQL and MariaDB also user@host
    #[arg(long, value_name = "NAME")]
    login: String,
}

/// What a login does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    /// Reads, commits and publishes, and changes the registry
    Admin,
    /// Reads, commits and publishes
    Writer,
    /// Reads all but the registry
    Reader,
}

#[derive(Debug, Serialize)]
struct Printed<'a> {
    catalog: String,
    role: Role,
    login: &'a str,
    statements: &'a [String],
}

impl Grants {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let uri = context.catalog_uri()?;
        let role = match self.role {
            Role::Admin => grants::Role::Admin,
            Role::Writer => grants::Role::Writer,
            Role::Reader => grants::Role::Reader,
        };
        let statements = grants(&uri, role, &self.login)?;
        if context.out.is_json() {
            return context.out.document(&Printed {
                catalog: uri.to_string(),
                role: self.role,
                login: &self.login,
                statements: &statements,
            });
        }
        for statement in &statements {
            let end = if statement.trim_end().ends_with(';') { "" } else { ";" };
            context.out.text(format!("{}{end}", statement.trim_end()))?;
        }
        Ok(())
    }
}
