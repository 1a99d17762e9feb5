//! `dl maintain`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use deltalakedb::Db;
use deltalakedb::core::ids::TimestampMs;
use deltalakedb::maintain::{
    LAST_SUCCESS, MaintainPlan, MaintainReport, Outcome, Schedule, Step, StepReport, go_on_from,
};
use deltalakedb::view;
use tokio::sync::watch;

use crate::context::Context;
use crate::failure::{Failure, Result, exit};
use crate::listen::{Listener, Pulse};
use crate::output::{count, one_line};
use crate::report_file::{prepare, replace};

/// Between two looks at the clock: a machine that slept, or whose clock was set, must not miss a moment by hours.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Notes shown of a step.
const SHOWN: usize = 20;

/// Arguments of `dl maintain`.
#[derive(Debug, Args)]
#[command(after_help = "\
One pass of upkeep, for cron or a job of its own. Its steps, in their order:
  skipping-index  bring the skipping index of each table up to date
  reconcile       compare published logs with the catalog, and put back what is missing
  backup          back the catalog up, if 'maintenance.backup.to' names a place; delete old sets
  expire          forget tokens that are older than 'maintenance.expire.tokens', if that is set, and
                  remove records of what was published longer ago than 'maintenance.expire.outbox'
  optimize        make few large files of many small ones, where the property
                  deltalakedb.maintain.optimize of a table is true
  log-retention   delete files of published logs that are older than delta.logRetentionDuration
  vacuum          delete data files that no version needs any more, where the property
                  deltalakedb.maintain.vacuum of a table is true
  database        statistics, dead rows: what may be done while others read and write

Each step ends after its own time ('maintenance.STEP.timeout' of the configuration); one that fails
does not keep the others from being done. Passes may run at the same time, and may be killed
anywhere. Exit code 1 if a step failed or took too long.

With --watch, passes begin by --schedule or 'maintenance.schedule': every so often (1h, the
default; the first one at once), or at the moments of a cron expression in UTC. A moment that comes
while a pass still works is left out.

Examples:
  dl maintain --dry-run
  dl maintain --step reconcile,backup
  dl maintain --skip vacuum --metrics-output /var/lib/node_exporter/dl_maintain.prom
  dl maintain --step vacuum --table sales.orders --dry-run
  dl maintain --watch --schedule '30 2 * * *' --listen 127.0.0.1:9465")]
pub(crate) struct Maintain {
    /// Only these steps, also where the configuration turns them off; can be repeated
    #[arg(long = "step", value_name = "STEP", value_delimiter = ',')]
    steps: Vec<Step>,
    /// Without these steps; can be repeated
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    skip: Vec<Step>,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Only this table; steps that concern the whole catalog are left out then; can be repeated
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Go on with pass after pass until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// When passes begin: 30m, 1h, 1d, or a cron expression of five fields in UTC
    #[arg(long, value_name = "CRON|DURATION", requires = "watch")]
    schedule: Option<Schedule>,
    /// Serve /health, /ready and /metrics over HTTP on this address, as 127.0.0.1:9465
    #[arg(long, value_name = "ADDR", requires = "watch")]
    listen: Option<String>,
    /// File for the times of the last success of each step, in Prometheus' text format; it goes on from what
    /// the file says. Its folder is made
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    metrics_output: Option<PathBuf>,
}

impl Maintain {
    /// Whether it goes on until it is told to stop.
    pub(crate) fn watches(&self) -> bool {
        self.watch
    }

    pub(crate) async fn run(&self, context: &Context) -> Result<u8> {
        let configured = context.maintenance()?;
        let schedule = self.schedule.clone().or(configured.schedule);
        let mut successes = self.metrics_output.clone().map(Successes::open).transpose()?;
        if !configured.enabled && self.steps.is_empty() {
            context.out.warn(
                "maintenance.enabled is false: nothing is done. --step names what is to be done all the same",
            );
            if !self.watch {
                return Ok(exit::OK);
            }
        }
        // Not where the configuration lets workers listen: one may run on this machine, by the same file.
        let listener = match &self.listen {
            Some(address) => Some(Listener::bind(address).await?),
            None => None,
        };
        let (db, tables) = context.tables(self.tables.iter().map(String::as_str)).await?;
        let mut plan = MaintainPlan { tables, dry_run: self.dry_run, ..configured.plan };
        if !self.steps.is_empty() {
            plan = plan.only(&self.steps);
        } else if !configured.enabled {
            plan.choices.clear();
        }
        let plan = plan.without(&self.skip);
        if let Some(successes) = &successes {
            go_on_from(&successes.at);
        }
        context.to_go_on("each step of a pass may end anywhere; the next pass does what is left");
        if !self.watch {
            let report = db.maintain(&plan, &context.progress).await;
            if let Some(successes) = &mut successes {
                successes.add(&report)?;
            }
            show(context, &report)?;
            return Ok(if report.is_ok() { exit::OK } else { exit::ERROR });
        }
        let pulse = Arc::new(Pulse::new(LOOK_AGAIN));
        if let Some(listener) = listener {
            let address = listener.address()?;
            context.out.hint(format!("Listening on http://{address}"));
            let pulse = Arc::clone(&pulse);
            tokio::spawn(listener.serve(db.clone(), pulse, context.stop()));
        }
        let schedule = schedule.unwrap_or_else(|| Schedule::every(Duration::from_secs(3_600)));
        context.out.hint(format!("Passes begin by the schedule '{schedule}'. Ctrl-C ends it."));
        watch(context, &db, &plan, &schedule, &pulse, successes).await?;
        Ok(exit::OK)
    }
}

/// Pass after pass, until told to stop. A pass that is under way then is left where it is: each step may end anywhere.
async fn watch(
    context: &Context,
    db: &Db,
    plan: &MaintainPlan,
    schedule: &Schedule,
    pulse: &Pulse,
    mut successes: Option<Successes>,
) -> Result<()> {
    let mut stop = context.stop();
    let now = db.clock().now();
    let mut next = if schedule.begins_at_once() { Some(now) } else { schedule.next(now) };
    let mut kept = true;
    loop {
        let Some(at) = next else {
            return Err(Failure::invalid(format!("the schedule '{schedule}' has no moment left")));
        };
        if let Some(wait) = ms_until(at, db.clock().now()) {
            tracing::info!(seconds = wait.as_secs(), "the next pass of maintenance is waited for");
        }
        while ms_until(at, db.clock().now()).is_some() {
            pulse.beat();
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                _ = stop.changed() => return Ok(()),
            }
        }
        let begun = db.clock().now();
        let Some(report) = pass(context, db, plan, pulse, &mut stop).await else { return Ok(()) };
        show(context, &report)?;
        if let Some(successes) = &mut successes {
            let written = successes.add(&report);
            if let (Err(failure), true) = (&written, kept) {
                context
                    .out
                    .warn(format!("{failure}. Passes go on, and the file is tried after each"));
            }
            kept = written.is_ok();
        }
        // Moments that came meanwhile are left out.
        let now = db.clock().now();
        next = schedule.next(begun);
        while let Some(at) = next.filter(|at| *at <= now) {
            next = schedule.next(at.max(now));
        }
    }
}

/// How long to wait; none if it is time.
fn ms_until(at: TimestampMs, now: TimestampMs) -> Option<Duration> {
    let ms = u64::try_from(at.0.saturating_sub(now.0)).ok()?;
    (ms > 0).then(|| Duration::from_millis(ms))
}

/// One pass, with a beat each second. None: it was told to stop.
async fn pass(
    context: &Context,
    db: &Db,
    plan: &MaintainPlan,
    pulse: &Pulse,
    stop: &mut watch::Receiver<bool>,
) -> Option<MaintainReport> {
    let work = db.maintain(plan, &context.progress);
    tokio::pin!(work);
    loop {
        pulse.beat();
        tokio::select! {
            report = &mut work => return Some(report),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            _ = stop.changed() => return None,
        }
    }
}

fn show(context: &Context, report: &MaintainReport) -> Result<()> {
    if context.out.is_json() {
        return context.out.document(&view::plain(report));
    }
    let mut list = context.out.list(&["step", "result", "seconds", "what"], &[2]);
    for step in &report.steps {
        list.push(&(), || {
            let result = match step.outcome {
                Outcome::Ok if report.dry_run => "would do",
                Outcome::TimedOut => "TIMED OUT",
                Outcome::Failed => "FAILED",
                Outcome::Ok => "ok",
                Outcome::Skipped => "skipped",
            };
            let seconds = format!("{:.1}", step.seconds);
            vec![step.step.to_string(), result.to_owned(), seconds, what(step)]
        })?;
    }
    list.end()?;
    for step in &report.steps {
        for note in step.notes.iter().take(SHOWN) {
            context.out.say(format!("  {}: {}", step.step, one_line(note)))?;
        }
        if step.notes.len() > SHOWN {
            context.out.say(format!("  {}: and {} more", step.step, step.notes.len() - SHOWN))?;
        }
        if let (Outcome::Failed | Outcome::TimedOut, Some(reason)) = (step.outcome, &step.reason) {
            context.out.warn(format!("{} {}: {reason}", step.step, step.outcome));
        }
    }
    if report.dry_run {
        context.out.hint("Nothing was written.");
    }
    Ok(())
}

/// Why nothing was done, else the numbers.
fn what(step: &StepReport) -> String {
    if let (Outcome::Skipped, Some(reason)) = (step.outcome, &step.reason) {
        return one_line(reason);
    }
    let numbers =
        step.counts.iter().map(|(what, n)| format!("{} {}", count(*n), what.replace('_', " ")));
    numbers.collect::<Vec<_>>().join(", ")
}

/// When each step succeeded last, kept in the file that it is given out in.
struct Successes {
    file: PathBuf,
    at: BTreeMap<Step, TimestampMs>,
}

impl Successes {
    fn open(file: PathBuf) -> Result<Successes> {
        prepare(&file)?;
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Failure::io(format!("cannot read '{}'", file.display()), e)),
        };
        Ok(Successes { file, at: Self::parse(&text) })
    }

    /// Lines of ours; others are not kept.
    fn parse(text: &str) -> BTreeMap<Step, TimestampMs> {
        let sample = |line: &str| {
            let rest = line.strip_prefix(LAST_SUCCESS)?.strip_prefix("{step=\"")?;
            let (step, seconds) = rest.split_once("\"} ")?;
            let (whole, part) = seconds.trim().split_once('.').unwrap_or((seconds.trim(), "0"));
            let ms: i64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
            let at = whole.parse::<i64>().ok()?.checked_mul(1_000)?.checked_add(ms)?;
            Some((step.parse().ok()?, TimestampMs(at)))
        };
        text.lines().filter_map(sample).collect()
    }

    fn add(&mut self, report: &MaintainReport) -> Result<()> {
        use std::fmt::Write as _;
        for step in report.steps.iter().filter(|step| step.outcome == Outcome::Ok) {
            self.at.insert(step.step, report.ended_at_ms);
        }
        let name = LAST_SUCCESS;
        let mut text = format!(
            "# HELP {name} When a step of upkeep succeeded last, seconds since 1970.\n# TYPE {name} gauge\n"
        );
        for (step, at) in &self.at {
            // Writing to a String cannot fail.
            let _ =
                writeln!(text, "{name}{{step=\"{step}\"}} {}.{:03}", at.0 / 1_000, at.0 % 1_000);
        }
        replace(&self.file, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_as_it_is_written() {
        let folder = std::env::temp_dir().join(format!("dl-maintain-{}", std::process::id()));
        let file = folder.join("a.prom");
        let mut successes = Successes::open(file.clone()).unwrap();
        let at = TimestampMs(1_764_458_000_007);
        let step = |step, outcome| StepReport {
            step,
            outcome,
            reason: None,
            seconds: 1.0,
            counts: BTreeMap::new(),
            notes: Vec::new(),
        };
        let report = MaintainReport {
            catalog: String::new(),
            dry_run: false,
            started_at_ms: TimestampMs(0),
            ended_at_ms: at,
            steps: vec![step(Step::Backup, Outcome::Ok), step(Step::Vacuum, Outcome::Failed)],
        };
        successes.add(&report).unwrap();
        let read = Successes::open(file).unwrap().at;
        std::fs::remove_dir_all(folder).unwrap();
        assert_eq!(read, BTreeMap::from([(Step::Backup, at)]));
        let odd =
            format!("{LAST_SUCCESS}{{step=\"vacuum\"}} 17\n{LAST_SUCCESS}{{step=\"x\"}} 1\n# x\n");
        assert_eq!(Successes::parse(&odd), BTreeMap::from([(Step::Vacuum, TimestampMs(17_000))]));
        let bad = format!(
            "{LAST_SUCCESS}{{step=\"vacuum\"}} 9e99\n{LAST_SUCCESS}{{step=\"backup\"}} NaN"
        );
        assert_eq!(Successes::parse(&bad), BTreeMap::new());
    }
}
