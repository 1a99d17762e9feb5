//! One of the writers: a process of its own.

mod mixed;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TableRef};
use deltalakedb_catalog_engine::catalog::{Catalog, CommitBatch};

use crate::database;
use crate::journal::{Failure, Line, say};
use crate::retries::RetryCounter;
use crate::rng::Rng;
use crate::scenario::{Change, Scenario, table_name};

/// Environment variable with the URL: arguments show in the process list, and it has a password.
pub const CATALOG_VARIABLE: &str = "CONTENTION_CATALOG";
/// Pause of a worker that found the server gone.
const PAUSE: Duration = Duration::from_millis(50);

/// What a worker is told.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// What to do.
    #[arg(long)]
    pub scenario: Scenario,
    /// Name of the run: part of table names and tokens.
    #[arg(long)]
    pub run: String,
    /// Which worker this is: part of its tokens.
    #[arg(long)]
    pub index: usize,
    /// How many commits it makes.
    #[arg(long)]
    pub commits: u64,
    /// Seed of all that is random.
    #[arg(long)]
    pub seed: u64,
    /// How long it goes on trying while the server is away, milliseconds. 0 = an error is final.
    #[arg(long, default_value_t = 0)]
    pub patience_ms: u64,
}

/// A writer at work.
struct Worker {
    args: WorkerArgs,
    catalog: Catalog,
    tables: Vec<TableId>,
    rng: Rng,
    attempts: u64,
}

/// Connects, waits for the word to go, commits, and tells all of it on stdout.
///
/// # Errors
/// If it cannot begin, or the server stays away for longer than the patience. A commit that
/// fails is not an error here: the checker judges it.
pub fn main(args: WorkerArgs) -> anyhow::Result<()> {
    let retries = RetryCounter::install()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let url = std::env::var(CATALOG_VARIABLE)
            .with_context(|| format!("{CATALOG_VARIABLE} holds no URL"))?;
        let catalog = database::catalog(&url).await?;
        let mut tables = Vec::new();
        for table in 0..args.scenario.tables() {
            let name = TableRef::Name(table_name(&args.run, table)?);
            tables.push(catalog.table(&name).await?.id);
        }
        let rng = Rng::new(args.seed);
        let mut worker = Worker { args, catalog, tables, rng, attempts: 0 };
        say(&Line::Ready)?;
        tokio::task::spawn_blocking(|| std::io::stdin().lock().read_line(&mut String::new()))
            .await??;
        let start = Instant::now();
        worker.work().await?;
        say(&Line::Done { us: micros(start), retries: retries.read() })
    })
}

impl Worker {
    async fn work(&mut self) -> anyhow::Result<()> {
        match self.args.scenario {
            Scenario::Appends => {
                for _ in 0..self.args.commits {
                    self.insist(|worker| vec![worker.append(0)]).await?;
                }
                Ok(())
            }
            Scenario::Batches => {
                for _ in 0..self.args.commits {
                    let mut order: Vec<usize> = (0..self.tables.len()).collect();
                    self.rng.shuffle(&mut order);
                    order.truncate(2 + self.rng.index(order.len() - 1));
                    self.insist(|worker| order.iter().map(|t| worker.append(*t)).collect()).await?;
                }
                Ok(())
            }
            Scenario::Mixed => self.mixed().await,
        }
    }

    /// The token of the attempt that is being made.
    fn token(&self) -> String {
        format!("{}-w{}-{}", self.args.run, self.args.index, self.attempts)
    }

    fn append(&self, table: usize) -> Change {
        let path = format!("{}-t{table}.parquet", self.token());
        Change::append(self.tables[table], vec![path])
    }

    /// Commits until it is committed, while the server is away and the patience lasts.
    async fn insist(&mut self, changes: impl Fn(&Worker) -> Vec<Change>) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_millis(self.args.patience_ms);
        loop {
            self.attempts += 1;
            let (token, batch) = (self.token(), changes(self));
            loop {
                let answer = self.send(&token, &batch).await?;
                let Err(failure) = answer else { return Ok(()) };
                let away = matches!(failure, Failure::Unavailable | Failure::Unknown);
                if self.args.patience_ms == 0 || !away {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    bail!("the server is away for longer than {} ms", self.args.patience_ms);
                }
                tokio::time::sleep(PAUSE).await;
                // Of the attempts in doubt, half go again under their token. The others are left
                // as they are, for the checker to resolve.
                if failure != Failure::Unknown || self.rng.below(2) == 0 {
                    break;
                }
            }
        }
    }

    /// Commits once, and tells it before and after.
    async fn send(&self, token: &str, changes: &[Change]) -> anyhow::Result<Result<(), Failure>> {
        let planned: BTreeMap<_, _> =
            changes.iter().map(|change| (change.table_id, change.files.clone())).collect();
        say(&Line::Try { token: token.to_owned(), changes: planned })?;
        let batch = CommitBatch {
            token: Some(CommitToken::new(token)?),
            tables: changes.iter().map(Change::build).collect(),
        };
        let start = Instant::now();
        match self.catalog.commit(batch).await {
            Ok(report) => {
                say(&Line::Committed {
                    token: token.to_owned(),
                    attempts: report.attempts,
                    us: micros(start),
                    tables: report.tables.iter().map(Into::into).collect(),
                })?;
                Ok(Ok(()))
            }
            Err(error) => {
                let failure = Failure::of(&error);
                let text = error.to_string();
                say(&Line::Failed { token: token.to_owned(), failure, text })?;
                Ok(Err(failure))
            }
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
