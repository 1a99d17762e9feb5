//! One pass of upkeep over a catalog: for `dl maintain`, and for programs that do the same by a schedule of their
//! own.
//!
//! A pass has steps. Each has its own longest time; one that fails or takes too long does not keep the others from
//! being done. Each step may be ended anywhere, by `kill -9` too, and two passes may run at the same time: what a
//! step does is a commit, a conditional put, or a deletion of what nothing needs, whoever looks.
//!
//! Nothing of a table's data is deleted or written anew unless a property of the table says so:
//! [`VACUUM_PROPERTY`], [`OPTIMIZE_PROPERTY`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> deltalakedb::Result<()> {
//! use deltalakedb::NoProgress;
//! use deltalakedb::maintain::{MaintainPlan, Step};
//!
//! let db = deltalakedb::Db::create(&"memory://".parse()?).await?;
//! db.create_table("t").location("memory://maintain/t").columns("id long").await?;
//! let plan = MaintainPlan::default().only(&[Step::SkippingIndex, Step::Reconcile]);
//! let report = db.maintain(&plan, &NoProgress).await;
//! assert!(report.is_ok(), "{report:?}");
//! # Ok(()) }
//! ```

mod clock;
mod expire;
mod meters;
#[cfg(feature = "config")]
mod schedule;
mod step;
mod tables;
mod whole;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use deltalakedb_catalog_core::ids::{TableRef, TimestampMs};
use deltalakedb_catalog_engine::env::Progress;
use deltalakedb_catalog_engine::spans;
use serde::Serialize;
use tracing::Instrument;
use tracing::field::Empty;

use crate::Db;
use crate::backup::Keep;

pub use expire::ExpirePlan;
pub(crate) use meters::timers;
pub use meters::{LAST_SUCCESS, go_on_from};
#[cfg(feature = "config")]
pub use schedule::Schedule;
pub use step::{Outcome, Step};
pub use tables::{OPTIMIZE_PROPERTY, VACUUM_PROPERTY};

use step::Done;

/// Files are kept at least so long by [`Step::Vacuum`], where nobody says.
const MIN_VACUUM_RETENTION: Duration = Duration::from_secs(24 * 3_600);

/// Whether a step is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// It is, for so long at most.
    Do(Duration),
    /// It is not, for this reason.
    Leave(String),
}

/// Where a backup goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupPlan {
    /// Folder or URL of an object store.
    pub to: String,
    /// Which sets are kept; none = all.
    pub keep: Option<Keep>,
    /// A set is a full one if the last full one is so old; none = only if there is none.
    pub full_every: Option<Duration>,
}

/// What a pass does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintainPlan {
    /// The steps. One that is not among them is not mentioned in the report either.
    pub choices: BTreeMap<Step, Choice>,
    /// Only these tables; empty = all. Steps that concern the whole catalog are left then.
    pub tables: Vec<TableRef>,
    /// Say what would be done, and write nothing.
    pub dry_run: bool,
    /// Data files are kept at least so long, also where a table says less.
    pub min_vacuum_retention: Duration,
    /// What is forgotten for its age.
    pub expire: ExpirePlan,
    /// Where backups go; none = there are none.
    pub backup: Option<BackupPlan>,
}

impl Default for MaintainPlan {
    fn default() -> Self {
        MaintainPlan {
            choices: Step::ALL.map(|step| (step, Choice::Do(step.usual_limit()))).into(),
            tables: Vec::new(),
            dry_run: false,
            min_vacuum_retention: MIN_VACUUM_RETENTION,
            expire: ExpirePlan::default(),
            backup: None,
        }
    }
}

impl MaintainPlan {
    /// The same with these steps alone. One that was left is done.
    #[must_use]
    pub fn only(mut self, steps: &[Step]) -> MaintainPlan {
        self.choices.retain(|step, _| steps.contains(step));
        for step in steps {
            let choice = self.choices.entry(*step).or_insert(Choice::Do(step.usual_limit()));
            if matches!(choice, Choice::Leave(_)) {
                *choice = Choice::Do(step.usual_limit());
            }
        }
        self
    }

    /// The same without these steps.
    #[must_use]
    pub fn without(mut self, steps: &[Step]) -> MaintainPlan {
        self.choices.retain(|step, _| !steps.contains(step));
        self
    }
}

/// How a step went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// The step.
    pub step: Step,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was skipped, what failed, or that the time was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// What was done, or would be, in numbers.
    pub counts: BTreeMap<&'static str, u64>,
    /// The same in words, and what went wrong, to a bound.
    pub notes: Vec<String>,
}

/// How a pass went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MaintainReport {
    /// Where the catalog is, without secrets.
    pub catalog: String,
    /// Whether nothing was to be written.
    pub dry_run: bool,
    /// When it began.
    pub started_at_ms: TimestampMs,
    /// When it ended.
    pub ended_at_ms: TimestampMs,
    /// The steps, in the order in which they were done.
    pub steps: Vec<StepReport>,
}

impl MaintainReport {
    /// Whether no step failed or took too long.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.steps.iter().all(|step| matches!(step.outcome, Outcome::Ok | Outcome::Skipped))
    }
}

impl Db {
    /// One pass of upkeep, see [`maintain`](crate::maintain). It ends after the sum of the steps' times at the
    /// latest. What went wrong is in the report.
    pub async fn maintain(&self, plan: &MaintainPlan, progress: &dyn Progress) -> MaintainReport {
        let db = self.clone().on_primary();
        let started_at_ms = db.clock().now();
        let mut steps = Vec::new();
        let pass = tracing::trace_span!("maintain", dry_run = plan.dry_run);
        for (step, choice) in &plan.choices {
            let work = one(&db, plan, *step, choice, progress);
            steps.push(work.instrument(pass.clone()).await);
        }
        drop(pass);
        MaintainReport {
            catalog: self.uri().to_string(),
            dry_run: plan.dry_run,
            started_at_ms,
            ended_at_ms: db.clock().now(),
            steps,
        }
    }
}

async fn one(
    db: &Db,
    plan: &MaintainPlan,
    step: Step,
    choice: &Choice,
    progress: &dyn Progress,
) -> StepReport {
    let begun = Instant::now();
    let mut done = Done::default();
    let (outcome, reason) = match choice {
        Choice::Leave(why) => (Outcome::Skipped, Some(why.clone())),
        Choice::Do(_) if step.is_whole() && !plan.tables.is_empty() => {
            let why = "it concerns the whole catalog, and tables are named";
            (Outcome::Skipped, Some(why.to_owned()))
        }
        Choice::Do(limit) => {
            let span = tracing::trace_span!(
                "maintain_step",
                %step,
                otel.status_code = Empty,
                error.type = Empty
            );
            let work = work(db, plan, step, *limit, &mut done, progress);
            let ended = tokio::time::timeout(*limit, work).instrument(span.clone()).await;
            spans::ended(
                &span,
                match &ended {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error.code()),
                    Err(_) => Some("timeout"),
                },
            );
            match ended {
                Ok(Ok(())) => done.outcome(),
                Ok(Err(error)) => (Outcome::Failed, Some(error.to_string())),
                Err(_) => {
                    let why = format!("it was not done within {} s", limit.as_secs_f64());
                    (Outcome::TimedOut, Some(why))
                }
            }
        }
    };
    let time = begun.elapsed();
    if !plan.dry_run {
        meters::ended(step, outcome, time, db.clock().now());
    }
    let (seconds, reason_text) = (time.as_secs_f64(), reason.as_deref().unwrap_or_default());
    match outcome {
        Outcome::Ok | Outcome::Skipped => {
            tracing::info!(%step, %outcome, seconds, reason = reason_text, "step of maintenance");
        }
        Outcome::Failed | Outcome::TimedOut => {
            tracing::warn!(%step, %outcome, seconds, reason = reason_text, "step of maintenance");
        }
    }
    let Done { counts, notes, .. } = done;
    StepReport { step, outcome, reason, seconds, counts, notes }
}

async fn work(
    db: &Db,
    plan: &MaintainPlan,
    step: Step,
    limit: Duration,
    done: &mut Done,
    progress: &dyn Progress,
) -> crate::Result<()> {
    match step {
        Step::SkippingIndex => tables::skipping_index(db, plan, done).await,
        Step::Reconcile => tables::reconcile(db, plan, done).await,
        Step::Backup => whole::backup(db, plan, done, progress).await,
        Step::Expire => expire::expire(db, plan, done).await,
        Step::Optimize => tables::optimize(db, plan, done).await,
        Step::LogRetention => tables::log_retention(db, plan, done).await,
        Step::Vacuum => tables::vacuum(db, plan, done).await,
        Step::Database => whole::database(db, plan, limit, done).await,
    }
}

#[cfg(test)]
#[cfg(feature = "sqlite")]
#[path = "maintain/tests.rs"]
mod tests;
