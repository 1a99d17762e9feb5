//! Cases as trials of a test runner.

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use deltalakedb_catalog_core::ids::TimestampMs;
use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;

use crate::Harness;
use crate::cases::{self, Case};
use crate::env::{CaseResult, Env, Halt};
use crate::oracle;

/// A case that takes longer than this hangs: none comes near it on a slow machine.
const CASE_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs all cases on all of these databases, with the arguments of the process.
pub fn run(harnesses: Vec<Arc<dyn Harness>>) -> ExitCode {
    main(&harnesses, |harness| {
        cases::all().into_iter().map(|case| trial(harness.clone(), case)).collect()
    })
}

/// Compares all of these databases with the in-memory reference over random operations.
///
/// `DL_ORACLE_CASES` is the number of sequences (default 48), `DL_SEED` replays one sequence.
pub fn run_oracle(harnesses: Vec<Arc<dyn Harness>>) -> ExitCode {
    main(&harnesses, |harness| vec![oracle::trial(harness.clone())])
}

fn main(
    harnesses: &[Arc<dyn Harness>],
    trials: impl Fn(&Arc<dyn Harness>) -> Vec<Trial>,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.test_threads.is_none() && harnesses.iter().any(|h| h.one_at_a_time()) {
        arguments.test_threads = Some(1);
    }
    let mut all = Vec::new();
    for harness in harnesses {
        all.extend(availability(harness, &trials));
    }
    all.extend(unknown_requirements(harnesses));
    let conclusion = libtest_mimic::run(&arguments, all);
    if conclusion.num_ignored > 0 {
        eprintln!("{} cases were skipped; see the reasons above", conclusion.num_ignored);
    }
    conclusion.exit_code()
}

/// The trials of one database, or one trial in their place that says why it cannot be had.
fn availability(
    harness: &Arc<dyn Harness>,
    trials: impl Fn(&Arc<dyn Harness>) -> Vec<Trial>,
) -> Vec<Trial> {
    let reason = match runtime() {
        Ok(runtime) => runtime.block_on(harness.unavailable()),
        Err(Halt::Skip(e) | Halt::Fail(e)) => Some(e),
    };
    let Some(reason) = reason else { return trials(harness) };
    let required = required().iter().any(|r| kind(harness.name()) == r);
    let name = format!("{}::available", harness.name());
    vec![telling(name, move || {
        if required {
            Err(format!("DL_REQUIRE asks for this database, but {reason}").into())
        } else {
            Ok(Completion::ignored_with(reason))
        }
    })]
}

/// All that `DL_REQUIRE` may name, beside the databases of a program.
const REQUIREMENTS: [&str; 16] = [
    "sqlite",
    "postgres",
    "replica",
    "pgbouncer",
    "mysql",
    "galera",
    "mssql",
    "s3",
    "azure",
    "corpus",
    "interop",
    "python",
    "crash",
    "prometheus",
    "otlp",
    "deploy",
];

/// A name in `DL_REQUIRE` that no test knows would pass for tested.
fn unknown_requirements(harnesses: &[Arc<dyn Harness>]) -> Vec<Trial> {
    let known = |name: &str| {
        REQUIREMENTS.contains(&name) || harnesses.iter().any(|h| kind(h.name()) == name)
    };
    required()
        .into_iter()
        .filter(|r| !known(r))
        .map(|r| {
            Trial::test(format!("{r}::available"), move || {
                let known = REQUIREMENTS.join(", ");
                Err(format!("DL_REQUIRE asks for what no test knows; it may name {known}").into())
            })
        })
        .collect()
}

fn required() -> Vec<String> {
    let list = std::env::var("DL_REQUIRE").unwrap_or_default();
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| if name == "mariadb" { "mysql" } else { name }.to_owned()).collect()
}

/// `postgres-15` is a `postgres`.
fn kind(name: &str) -> &str {
    name.split_once('-').map_or(name, |(kind, _)| kind)
}

fn runtime() -> CaseResult<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?)
}

fn trial(harness: Arc<dyn Harness>, case: Case) -> Trial {
    let name = format!("{}::{}::{}", harness.name(), case.module, case.name);
    telling(name, move || {
        conclude(case.clause, |runtime| {
            runtime.block_on(async {
                let fixture = harness.fresh().await?;
                let env = Env::new(harness.clone(), fixture);
                if case.migrated {
                    env.db().migrate(TimestampMs(1_600_000_000_000)).await?;
                }
                bounded((case.run)(&env)).await
            })
        })
    })
}

/// A trial that tells `cargo xtask test`, if it runs this program, why it was skipped: the events of the runner
/// have no reasons. The words are those of `deltalakedb_test_servers::skip`.
pub(crate) fn telling(
    name: String,
    runner: impl FnOnce() -> Result<Completion, Failed> + Send + 'static,
) -> Trial {
    let told = name.clone();
    Trial::ignorable_test(name, move || {
        let done = runner()?;
        if let Completion::Ignored { reason } = &done
            && let Some(path) = std::env::var_os("DL_SKIPS")
        {
            let program = std::env::var("NEXTEST_BINARY_ID").ok();
            let mut skip = serde_json::json!({ "test": told, "why": reason });
            if let Some(program) = program {
                skip["program"] = program.into();
            }
            // One write, so that lines of several processes do not mix.
            let mut file = File::options().append(true).create(true).open(path)?;
            file.write_all(format!("{skip}\n").as_bytes())?;
        }
        Ok(done)
    })
}

/// Runs one piece of work on a runtime of its own and reports it.
pub(crate) fn conclude(
    clause: &str,
    work: impl FnOnce(&Runtime) -> CaseResult,
) -> Result<Completion, Failed> {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(Halt::Fail(e) | Halt::Skip(e)) => return Err(e.into()),
    };
    // Assertions panic: without the clause the line of the assertion would stand alone.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&runtime)));
    runtime.shutdown_background();
    match outcome {
        Ok(Ok(())) => Ok(Completion::Completed),
        Ok(Err(Halt::Skip(reason))) => Ok(Completion::ignored_with(reason)),
        Ok(Err(Halt::Fail(e))) => Err(format!("{e}\nclause: {}", clause.trim()).into()),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("panicked");
            Err(format!("{text}\nclause: {}", clause.trim()).into())
        }
    }
}

async fn bounded(case: LocalBoxFuture<'_, CaseResult>) -> CaseResult {
    match tokio::time::timeout(CASE_TIMEOUT, case).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Halt::Fail(format!("hangs: no end after {CASE_TIMEOUT:?}"))),
    }
}
