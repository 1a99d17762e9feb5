//! A run: tables, worker processes, what happens to the server meanwhile, and the check.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use deltalakedb_catalog_core::ids::{CommitToken, TableId};
use deltalakedb_catalog_engine::catalog::CommitBatch;
use uuid::Uuid;

use crate::check::{Findings, check};
use crate::claims::Claims;
use crate::crew::{Crew, Order};
use crate::database;
use crate::journal::Failure;
use crate::report::Report;
use crate::rng::Rng;
use crate::scenario::{Scenario, create};

/// A run that takes longer hangs.
const TIME_LIMIT: Duration = Duration::from_secs(240);
/// How often the progress is looked at before something is done to the server.
const POLL: Duration = Duration::from_millis(2);

/// Something that happens to the server in the middle of a run.
pub struct Disturbance {
    /// After this share of the commits, percent.
    pub after_percent: u64,
    /// What, for errors.
    pub what: &'static str,
    /// Does it. May block.
    pub act: Box<dyn FnOnce() -> anyhow::Result<()> + Send>,
}

impl Disturbance {
    /// After so many percent of the commits.
    #[must_use]
    pub fn new(
        after_percent: u64,
        what: &'static str,
        act: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> Self {
        Disturbance { after_percent, what, act: Box::new(act) }
    }
}

impl fmt::Debug for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} %", self.what, self.after_percent)
    }
}

/// What to run.
#[derive(Debug)]
pub struct Plan {
    /// The `contention` program.
    pub program: PathBuf,
    /// One database, or the nodes of one cluster: worker `i` writes to node `i mod n`.
    pub urls: Vec<String>,
    /// What the workers do.
    pub scenario: Scenario,
    /// Number of workers.
    pub processes: usize,
    /// Commits of each.
    pub commits: u64,
    /// Seed of all that is random.
    pub seed: u64,
    /// How long a worker goes on while the server is away; zero = it must not be away.
    pub patience: Duration,
    /// What happens meanwhile, in order.
    pub disturbances: Vec<Disturbance>,
}

impl Plan {
    /// A run in its full size, in which nothing goes wrong.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, urls: Vec<String>, scenario: Scenario) -> Self {
        Plan {
            program: program.into(),
            urls,
            scenario,
            processes: 8,
            commits: scenario.full_size(),
            seed: 1,
            patience: Duration::ZERO,
            disturbances: Vec::new(),
        }
    }

    /// With so many commits of each worker.
    #[must_use]
    pub fn commits(mut self, commits: u64) -> Self {
        self.commits = commits;
        self
    }

    /// With outages, which a worker sits out for so long.
    #[must_use]
    pub fn disturbed(mut self, patience: Duration, disturbances: Vec<Disturbance>) -> Self {
        self.patience = patience;
        self.disturbances = disturbances;
        self
    }

    fn total(&self) -> u64 {
        self.commits.saturating_mul(u64::try_from(self.processes).unwrap_or(u64::MAX))
    }

    /// What each worker is told. They differ in their place, their node and their seed.
    fn orders(&self, run: &str) -> Vec<Order> {
        let mut rng = Rng::new(self.seed);
        let patience_ms = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
        self.urls
            .iter()
            .cycle()
            .take(self.processes)
            .enumerate()
            .map(|(index, url)| Order {
                url: url.clone(),
                arguments: vec![
                    format!("--scenario={}", self.scenario),
                    format!("--run={run}"),
                    format!("--index={index}"),
                    format!("--commits={}", self.commits),
                    format!("--seed={}", rng.next()),
                    format!("--patience-ms={patience_ms}"),
                ],
            })
            .collect()
    }
}

/// Runs a plan and checks what is left.
///
/// # Errors
/// If a worker saw an error that it should not see, or the check finds something.
pub fn run(mut plan: Plan) -> anyhow::Result<Report> {
    let run = Uuid::new_v4().simple().to_string()[..12].to_owned();
    let disturbances = std::mem::take(&mut plan.disturbances);
    run_as(&plan, &run, disturbances)
        .with_context(|| format!("{}, run {run}, seed {}", plan.scenario, plan.seed))
}

fn run_as(plan: &Plan, run: &str, disturbances: Vec<Disturbance>) -> anyhow::Result<Report> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let setup = format!("{run}-setup");
    let tables = runtime.block_on(prepare(plan, run, &setup)).context("creating the tables")?;
    let claims = write(plan, run, disturbances)?;

    let mut all: Option<Findings> = None;
    for (node, url) in plan.urls.iter().enumerate() {
        let found = runtime
            .block_on(async {
                check(&database::catalog(url).await?, &setup, &tables, &claims).await
            })
            .with_context(|| format!("what node {node} has is wrong"))?;
        match &all {
            None => all = Some(found),
            Some(first) => {
                ensure!(*first == found, "node 0 has {first:?}, node {node} has {found:?}");
            }
        }
    }
    judge(plan, &claims)?;
    let findings = all.context("no catalog was given")?;
    Ok(Report::new(plan.scenario, plan.processes, &claims, findings))
}

/// Creates the tables of a run, with the schema if there is none.
async fn prepare(plan: &Plan, run: &str, setup: &str) -> anyhow::Result<Vec<TableId>> {
    let url = plan.urls.first().context("no catalog was given")?;
    let catalog = database::catalog(url).await?;
    catalog.backend().migrate(catalog.clock().now()).await?;
    let tables: Vec<_> =
        (0..plan.scenario.tables()).map(|table| create(run, table)).collect::<Result<_, _>>()?;
    let batch = CommitBatch { token: Some(CommitToken::new(setup)?), tables };
    let report = catalog.commit(batch).await?;
    Ok(report.tables.iter().map(|table| table.table_id).collect())
}

/// Lets the workers write, and disturbs them.
fn write(plan: &Plan, run: &str, disturbances: Vec<Disturbance>) -> anyhow::Result<Claims> {
    let mut crew = Crew::start(&plan.program, plan.orders(run), TIME_LIMIT)?;
    crew.go()?;
    let (acknowledged, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let total = plan.total();
    let told = std::thread::scope(|scope| {
        let disturber = scope.spawn(|| disturb(total, disturbances, &acknowledged, &over));
        let told = crew.finish(&acknowledged);
        over.store(true, Ordering::Relaxed);
        let disturbed = disturber.join().map_err(|_| anyhow!("disturbing the run panicked"))?;
        // What the workers saw explains more than what the disturber did not get done.
        let told = told?;
        disturbed?;
        anyhow::Ok(told)
    })?;
    let mut claims = Claims::default();
    for lines in told {
        claims.add_worker(lines)?;
    }
    Ok(claims)
}

/// Does to the server what the plan says, while the workers are at work.
fn disturb(
    total: u64,
    disturbances: Vec<Disturbance>,
    acknowledged: &AtomicU64,
    over: &AtomicBool,
) -> anyhow::Result<()> {
    for Disturbance { after_percent, what, act } in disturbances {
        while acknowledged.load(Ordering::Relaxed).saturating_mul(100) < total * after_percent {
            ensure!(!over.load(Ordering::Relaxed), "the run was over before: {what}");
            std::thread::sleep(POLL);
        }
        act().with_context(|| what)?;
        ensure!(!over.load(Ordering::Relaxed), "the run was over with: {what}");
    }
    Ok(())
}

/// Whether the workers saw only errors that belong to the scenario, and got enough done.
fn judge(plan: &Plan, claims: &Claims) -> anyhow::Result<()> {
    let allowed: &[Failure] = match plan.scenario {
        Scenario::Mixed => &[Failure::Conflict, Failure::NoTable],
        _ if plan.patience.is_zero() => &[],
        _ => &[Failure::Unavailable, Failure::Unknown],
    };
    for (kind, (count, text)) in &claims.failures {
        ensure!(allowed.contains(kind), "{count} commits failed ({kind:?}), such as: {text}");
    }
    let acknowledged = u64::try_from(claims.latencies.len())?;
    if plan.scenario == Scenario::Mixed {
        ensure!(
            acknowledged * 2 > plan.total() && claims.drops_and_undrops > 0,
            "only {acknowledged} commits and {} drops got through",
            claims.drops_and_undrops
        );
    } else {
        ensure!(
            acknowledged == plan.total(),
            "{acknowledged} commits were acknowledged of {}",
            plan.total()
        );
    }
    Ok(())
}
