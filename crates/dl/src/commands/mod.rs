//! One module a command: its arguments and what it does.

mod access;
mod alter;
mod append;
mod audit;
mod backup;
mod check;
mod commit;
mod completions;
mod config;
mod copied;
mod copy_catalog;
mod create;
#[cfg(feature = "sql")]
mod data;
mod diff;
mod doctor;
mod drop;
mod files;
mod freeze;
mod grants;
mod history;
mod import;
mod init;
mod keys;
#[cfg(not(feature = "sql"))]
mod lean;
mod list;
mod maintain;
mod mirror;
mod ownership;
mod publish;
mod quickstart;
mod rebuild;
mod repair;
mod restore;
#[cfg(feature = "serve")]
mod serve;
mod show;
mod target;
mod vacuum;
mod views;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::{Result, exit};

/// What `dl` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a small lake in a folder and see everything work
    Quickstart(quickstart::Quickstart),
    /// Create a catalog, or upgrade one to this version
    Init(init::Init),
    /// Take over existing Delta tables
    Import(import::Import),
    /// Create a table
    Create(create::Create),
    /// Change a table's columns, properties, constraints and descriptions
    Alter(alter::Alter),
    /// Add existing Parquet files to a table
    Append(append::Append),
    /// Commit Delta actions, over one or more tables at once
    Commit(commit::Commit),
    /// Query tables in SQL
    #[cfg(feature = "sql")]
    Sql(data::sql::Sql),
    /// Write rows of files or of a query into a table
    #[cfg(feature = "sql")]
    Write(data::write::Write),
    /// Delete rows
    #[cfg(feature = "sql")]
    Delete(data::delete::Delete),
    /// Change rows
    #[cfg(feature = "sql")]
    Update(data::update::Update),
    /// Put rows of files or of a query into a table, by SQL's MERGE
    #[cfg(feature = "sql")]
    Merge(data::merge::Merge),
    /// Make few large files of many small ones
    #[cfg(feature = "sql")]
    Optimize(data::optimize::Optimize),
    /// What needs the feature `sql`
    #[cfg(not(feature = "sql"))]
    #[command(hide = true, aliases = ["write", "delete", "update", "merge", "optimize"])]
    Sql(lean::Lean),
    /// List tables
    List(list::List),
    /// Show a table: version, schema, protocol, features, properties, sizes, mirror
    Show(show::Show),
    /// List the files of a table
    Files(files::Files),
    /// Show who changed a table, when and how
    History(history::History),
    /// Show who did what to which table, when and from where
    Audit(audit::Audit),
    /// Drop a table; its data files, log and history are kept
    Drop(drop::Drop),
    /// Bring a dropped table back
    Undrop(drop::Undrop),
    /// Keep all writers out of tables, for a maintenance window
    Freeze(freeze::Freeze),
    /// Let writers into frozen tables again
    Unfreeze(freeze::Unfreeze),
    /// Keep writers that do not go through the catalog out of a table
    Cutover(ownership::Cutover),
    /// Hand a table back to writers of its files
    Release(ownership::Release),
    /// Publish commits to _delta_log/, and see how that goes
    #[command(subcommand)]
    Mirror(mirror::Mirror),
    /// Serve the catalog over HTTP
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
    /// Write a table's whole log, as published, to an empty place
    Publish(publish::Publish),
    /// Decide about commits that another program has put into a published log
    Repair(repair::Repair),
    /// Make a catalog from published logs alone
    Rebuild(rebuild::Rebuild),
    /// Delete data files that no version needs any more
    Vacuum(vacuum::Vacuum),
    /// Compare the catalog with a _delta_log/
    Diff(diff::Diff),
    /// Compare the catalog with the data files in the store
    Check(check::Check),
    /// Look at the database, the stores and publishing: what could be better, and why
    Doctor(doctor::Doctor),
    /// One pass of upkeep: indexes, logs, backup, what tables and the database like to have done
    Maintain(maintain::Maintain),
    /// Copy a whole catalog to another database
    CopyCatalog(copy_catalog::CopyCatalog),
    /// Back up a catalog to a folder or an object store
    Backup(backup::Backup),
    /// Restore a backup into a catalog
    Restore(restore::Restore),
    /// Print the SQL that gives a login its rights on the catalog
    Grants(grants::Grants),
    /// Roles of principals, for clients of a service
    #[command(subcommand)]
    Access(access::Access),
    /// Keys, by which a service knows its clients
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Look at the configuration: is it right, where is each value from
    #[command(subcommand)]
    Config(config::Config),
    /// Read-only SQL views of the catalog, for other tools
    #[command(subcommand)]
    Views(views::Views),
    /// Print a completion script for a shell
    Completions(completions::Completions),
}

impl Command {
    /// Its name, as it is typed.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Quickstart(_) => "quickstart",
            Command::Init(_) => "init",
            Command::Import(_) => "import",
            Command::Create(_) => "create",
            Command::Alter(_) => "alter",
            Command::Append(_) => "append",
            Command::Commit(_) => "commit",
            Command::Sql(_) => "sql",
            #[cfg(feature = "sql")]
            Command::Write(_) => "write",
            #[cfg(feature = "sql")]
            Command::Delete(_) => "delete",
            #[cfg(feature = "sql")]
            Command::Update(_) => "update",
            #[cfg(feature = "sql")]
            Command::Merge(_) => "merge",
            #[cfg(feature = "sql")]
            Command::Optimize(_) => "optimize",
            Command::List(_) => "list",
            Command::Show(_) => "show",
            Command::Files(_) => "files",
            Command::History(_) => "history",
            Command::Audit(_) => "audit",
            Command::Drop(_) => "drop",
            Command::Undrop(_) => "undrop",
            Command::Freeze(_) => "freeze",
            Command::Unfreeze(_) => "unfreeze",
            Command::Cutover(_) => "cutover",
            Command::Release(_) => "release",
            Command::Mirror(_) => "mirror",
            #[cfg(feature = "serve")]
            Command::Serve(_) => "serve",
            Command::Publish(_) => "publish",
            Command::Repair(_) => "repair",
            Command::Rebuild(_) => "rebuild",
            Command::Vacuum(_) => "vacuum",
            Command::Diff(_) => "diff",
            Command::Check(_) => "check",
            Command::Doctor(_) => "doctor",
            Command::Maintain(_) => "maintain",
            Command::CopyCatalog(_) => "copy-catalog",
            Command::Backup(_) => "backup",
            Command::Restore(_) => "restore",
            Command::Grants(_) => "grants",
            Command::Access(_) => "access",
            Command::Keys(_) => "keys",
            Command::Config(_) => "config",
            Command::Views(_) => "views",
            Command::Completions(_) => "completions",
        }
    }

    /// Whether it prints rows that have a form for spreadsheets.
    pub(crate) fn has_csv(&self) -> bool {
        matches!(self, Command::Audit(_))
    }

    /// Whether it goes on until it is told to stop.
    pub(crate) fn watches(&self) -> bool {
        match self {
            Command::Mirror(command) => command.watches(),
            Command::Maintain(command) => command.watches(),
            #[cfg(feature = "serve")]
            Command::Serve(_) => true,
            _ => false,
        }
    }

    /// Whether it prints an example of a file.
    pub(crate) fn is_example(&self) -> bool {
        matches!(self, Command::Config(config::Config::Example(_)))
    }
}

/// Runs a command to its exit code.
pub(crate) async fn run(command: Command, context: &Context) -> Result<u8> {
    match command {
        Command::Quickstart(command) => command.run(context).await?,
        Command::Init(command) => command.run(context).await?,
        Command::Import(command) => return command.run(context).await,
        Command::Create(command) => command.run(context).await?,
        Command::Alter(command) => command.run(context).await?,
        Command::Append(command) => command.run(context).await?,
        Command::Commit(command) => command.run(context).await?,
        #[cfg(feature = "sql")]
        Command::Sql(command) => command.run(context).await?,
        #[cfg(feature = "sql")]
        Command::Write(command) => command.run(context).await?,
        #[cfg(feature = "sql")]
        Command::Delete(command) => command.run(context).await?,
        #[cfg(feature = "sql")]
        Command::Update(command) => command.run(context).await?,
        #[cfg(feature = "sql")]
        Command::Merge(command) => command.run(context).await?,
        #[cfg(feature = "sql")]
        Command::Optimize(command) => command.run(context).await?,
        #[cfg(not(feature = "sql"))]
        Command::Sql(_) => lean::Lean::run()?,
        Command::List(command) => command.run(context).await?,
        Command::Show(command) => command.run(context).await?,
        Command::Files(command) => command.run(context).await?,
        Command::History(command) => command.run(context).await?,
        Command::Audit(command) => command.run(context).await?,
        Command::Drop(command) => command.run(context).await?,
        Command::Undrop(command) => command.run(context).await?,
        Command::Freeze(command) => command.run(context).await?,
        Command::Unfreeze(command) => command.run(context).await?,
        Command::Cutover(command) => command.run(context).await?,
        Command::Release(command) => command.run(context).await?,
        Command::Mirror(command) => return command.run(context).await,
        #[cfg(feature = "serve")]
        Command::Serve(command) => command.run(context).await?,
        Command::Publish(command) => command.run(context).await?,
        Command::Repair(command) => return command.run(context).await,
        Command::Rebuild(command) => return command.run(context).await,
        Command::Vacuum(command) => command.run(context).await?,
        Command::Diff(command) => return command.run(context).await,
        Command::Check(command) => return command.run(context).await,
        Command::Doctor(command) => return command.run(context).await,
        Command::Maintain(command) => return command.run(context).await,
        Command::CopyCatalog(command) => return command.run(context).await,
        Command::Backup(command) => return command.run(context).await,
        Command::Restore(command) => return command.run(context).await,
        Command::Grants(command) => command.run(context)?,
        Command::Access(command) => command.run(context).await?,
        Command::Keys(command) => command.run(context).await?,
        Command::Config(command) => return command.run(context).await,
        Command::Views(command) => command.run(context).await?,
        Command::Completions(command) => command.run(context)?,
    }
    Ok(exit::OK)
}
