//! `dl access list|grant|revoke`

use clap::{Args, Subcommand};
use deltalakedb::access::{Grant, Principal, Role, Scope};

use crate::context::Context;
use crate::failure::Result;

/// What can be done about roles.
#[derive(Debug, Subcommand)]
pub(crate) enum Access {
    /// List principals and their roles
    List(List),
    /// Give a principal a role
    Grant(Change),
    /// Take a role from a principal
    Revoke(Change),
}

/// Arguments of `dl access list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dl access list
  dl access list --format json | jq '.[] | select(.name == \"loader\").grants'")]
pub(crate) struct List {}

/// Arguments of `dl access grant` and `dl access revoke`.
#[derive(Debug, Args)]
#[command(after_help = "\
A role is on the whole catalog ('*'), on a namespace ('sales.*', which is not 'sales.eu.*'), or on a
table. Each may do what those before it may:
  read    see tables, their files, rows and history
  write   commit to tables
  admin   create, drop and bring back tables
Roles count for clients of `dl serve`. A program that opens the database itself has the rights of
its login: `dl grants`. Services know within 2 seconds.

Examples:
  dl access grant loader write 'sales.*'
  dl access grant analyst read '*'
  dl access revoke analyst read '*'")]
pub(crate) struct Change {
    /// The principal
    principal: String,
    /// read, write or admin
    role: Role,
    /// '*', 'namespace.*', or namespace.table
    #[arg(value_name = "ON")]
    on: Scope,
}

impl Access {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let db = context.db().await?;
        match self {
            Access::List(List {}) => {
                let mut list = context.out.list(&["principal", "role", "on"], &[]);
                for principal in db.principals().await? {
                    if context.out.is_json() {
                        list.push(&principal, Vec::new)?;
                        continue;
                    }
                    for grant in &principal.grants {
                        list.push(grant, || {
                            let (role, on) = (grant.role.to_string(), grant.on.to_string());
                            vec![principal.name.clone(), role, on]
                        })?;
                    }
                }
                list.end()
            }
            Access::Grant(change) => {
                let done = db.grant(&change.principal, change.grant()).await?;
                change.tell(context, done, "has now", "had already")
            }
            Access::Revoke(change) => {
                let done = db.ungrant(&change.principal, &change.grant()).await?;
                change.tell(context, done, "has no longer", "did not have")
            }
        }
    }
}

impl Change {
    fn grant(&self) -> Grant {
        Grant::new(self.role, self.on.clone())
    }

    fn tell(
        &self,
        context: &Context,
        (principal, changed): (Principal, bool),
        now: &str,
        before: &str,
    ) -> Result<()> {
        if context.out.is_json() {
            return context.out.document(&principal);
        }
        let verb = if changed { now } else { before };
        context
            .out
            .say(format!("'{}' {verb} the role {} on {}.", principal.name, self.role, self.on))
    }
}
