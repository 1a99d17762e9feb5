//! The databases, and what is run on each.

mod answers;
mod mysql;
mod postgres;
mod server;

use std::path::PathBuf;

use deltalakedb_contention::run::{Plan, run};
use deltalakedb_contention::scenario::Scenario;
use deltalakedb_test_servers::{is_required, mssql_urls, tell_skip};
use libtest_mimic::{Completion, Trial};

/// Why a test has no result.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The database cannot be had here.
    Unavailable(String),
    /// The test failed.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Halt {
    fn from(error: E) -> Self {
        Halt::Failed(error.into())
    }
}

/// What a test prints when it passed: its figures.
pub(crate) type Outcome = Result<String, Halt>;

/// A test.
pub(crate) type Test = fn() -> Outcome;

/// Tests on one database.
pub(crate) struct Database {
    /// As in `DL_REQUIRE`.
    pub(crate) name: &'static str,
    /// Each with its name.
    pub(crate) tests: Vec<(&'static str, Test)>,
}

/// All of them.
pub(crate) fn databases() -> Vec<Database> {
    vec![
        sqlite(),
        postgres::postgres(),
        postgres::pgbouncer(),
        mysql::mysql(),
        mssql(),
        mysql::galera(),
    ]
}

/// Tests for the runner.
pub(crate) fn trials(database: Database) -> Vec<Trial> {
    let name = database.name;
    let trial = |(test, body): (&str, Test)| {
        let full = format!("{name}::{test}");
        Trial::ignorable_test(full.clone(), move || match body() {
            Ok(figures) => {
                println!("\n{name} {figures}");
                Ok(Completion::Completed)
            }
            Err(Halt::Unavailable(why)) if is_required(name) => {
                Err(format!("DL_REQUIRE asks for {name}, but {why}").into())
            }
            Err(Halt::Unavailable(why)) => {
                tell_skip(None, &full, &why)?;
                Ok(Completion::ignored_with(why))
            }
            Err(Halt::Failed(error)) => Err(format!("{error:#}").into()),
        })
    };
    database.tests.into_iter().map(trial).collect()
}

/// A run in its full size on these nodes.
pub(crate) fn plan(urls: &[String], scenario: Scenario) -> Plan {
    Plan::new(PathBuf::from(env!("CARGO_BIN_EXE_contention")), urls.to_vec(), scenario)
}

/// Runs it, for its figures.
pub(crate) fn figures(plan: Plan) -> Outcome {
    Ok(run(plan)?.to_string())
}

/// The embedded database. It has no server that could go away: `crash` kills its processes.
fn sqlite() -> Database {
    fn on_a_file(scenario: Scenario) -> Outcome {
        let folder = tempfile::tempdir()?;
        let url = format!("sqlite://{}", folder.path().join("catalog.db").display());
        figures(plan(&[url], scenario))
    }
    Database {
        name: "sqlite",
        tests: vec![
            ("appends", || on_a_file(Scenario::Appends)),
            ("batches", || on_a_file(Scenario::Batches)),
            ("mixed", || on_a_file(Scenario::Mixed)),
        ],
    }
}

/// SQL Server cannot be started here: only one that the environment names, and that is not ours to
/// kill.
fn mssql() -> Database {
    fn undisturbed(scenario: Scenario) -> Outcome {
        let Some(url) = mssql_urls().into_iter().next() else {
            return Err(Halt::Unavailable("DL_TEST_MSSQL_URL is not set".to_owned()));
        };
        // In a database that is not ours, our tables have names of their own.
        let separator = if url.contains('?') { '&' } else { '?' };
        figures(plan(&[format!("{url}{separator}table_prefix=contention_")], scenario))
    }
    Database {
        name: "mssql",
        tests: vec![
            ("appends", || undisturbed(Scenario::Appends)),
            ("batches", || undisturbed(Scenario::Batches)),
            ("mixed", || undisturbed(Scenario::Mixed)),
        ],
    }
}
