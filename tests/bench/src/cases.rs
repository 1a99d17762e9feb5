//! Opening, planning, listing, history and commits: ours on each database, and peers beside, in turns.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde::Serialize;

use crate::generate::{self, Probe};
use crate::measure::Subject;
use crate::{AnyError, Figures, child, figures, plots};

/// What is measured, and with what.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Tables of a hundredth of the size, and fewer runs.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains one of these: import, bulk, connect, open, refresh, refresh-stale,
    /// plan-partition, plan-stats, replan, list, relist, travel, history, commit-1, commit-8, commit-64,
    /// processes-8, tables-16, add-all, backup, backup-next, backup-verify, restore.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Only these tables: T1, T2, T3, T4.
    #[arg(long = "table", value_name = "NAME")]
    tables: Vec<String>,
    /// Runs of each measurement [default: 7, quick: 3].
    #[arg(long)]
    runs: Option<usize>,
    /// Seconds of a commit loop [default: 10, quick: 2].
    #[arg(long)]
    seconds: Option<u64>,
    /// A Python with the packages of tests/bench/requirements.txt: peers are measured too.
    #[arg(long)]
    python: Option<PathBuf>,
    /// Leave PostgreSQL out.
    #[arg(long)]
    no_postgres: bool,
    /// Measure MariaDB too.
    #[arg(long)]
    mariadb: bool,
    /// File for all figures, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder for pictures of them, as SVG.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Folder in which the tables and the SQLite catalogs are made and left, to look at them with
    /// `bench one CASE` under a profiler.
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// A table to measure on.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    commits: u64,
    files_per_commit: u64,
}

impl Shape {
    fn files(self) -> u64 {
        self.commits * self.files_per_commit
    }
}

const SHAPES: [Shape; 4] = [
    Shape { name: "T1", commits: 1_000, files_per_commit: 100 },
    Shape { name: "T2", commits: 10_000, files_per_commit: 10 },
    Shape { name: "T3", commits: 1, files_per_commit: 1_000_000 },
    // A catalog to lose and to restore.
    Shape { name: "T4", commits: 10_000, files_per_commit: 100 },
];

/// Name, unit, and the tables it is measured on. Of `commits/s` more is better.
const CASES: [(&str, &str, &[&str]); 23] = [
    ("import", "ms", &["T1", "T2", "T3"]),
    ("bulk", "ms", &["T1", "T2", "T3"]),
    ("connect", "ms", &["T2"]),
    ("open", "ms", &["T1", "T2", "T3"]),
    ("refresh", "ms", &["T2"]),
    ("refresh-stale", "ms", &["T2"]),
    ("plan-partition", "ms", &["T2", "T3"]),
    ("plan-stats", "ms", &["T2", "T3"]),
    ("replan", "ms", &["T2", "T3"]),
    ("list", "ms", &["T2", "T3"]),
    ("relist", "ms", &["T2", "T3"]),
    ("travel", "ms", &["T2"]),
    ("history", "ms", &["T2"]),
    ("commit-1", "commits/s", &["T2", "T3"]),
    ("commit-8", "commits/s", &["T2"]),
    ("commit-64", "commits/s", &["T2"]),
    ("processes-8", "commits/s", &["T2"]),
    ("tables-16", "commits/s", &["T2"]),
    // Last, as it leaves a second table of that size in the catalog.
    ("add-all", "ms", &["T3"]),
    ("backup", "ms", &["T4"]),
    ("backup-next", "ms", &["T4"]),
    ("backup-verify", "ms", &["T4"]),
    ("restore", "ms", &["T4"]),
];

const PEERS: [&str; 5] = ["deltalake", "duckdb", "polars", "ducklake", "ducklake-pg"];

/// One case on one table by one side.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) table: &'static str,
    pub(crate) case: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) side: String,
    pub(crate) values: Vec<f64>,
    /// 99th percentile of single commits, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ms: Option<f64>,
    pub(crate) peak_mb: f64,
    /// Commits and files of the table.
    pub(crate) commits: f64,
    pub(crate) files: f64,
}

impl Measured {
    pub(crate) fn median(&self) -> f64 {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn worst(&self) -> f64 {
        let more_is_better = self.unit != "ms";
        let pick = if more_is_better { f64::min } else { f64::max };
        self.values.iter().copied().reduce(pick).unwrap_or(f64::NAN)
    }

    fn is_peer(&self) -> bool {
        PEERS.contains(&self.side.as_str())
    }
}

pub(crate) fn run(options: &Options) -> Result<(), AnyError> {
    let runs = options.runs.unwrap_or(if options.quick { 3 } else { 7 });
    let seconds = options.seconds.unwrap_or(if options.quick { 2 } else { 10 });
    let postgres = if options.no_postgres {
        None
    } else {
        deltalakedb_test_servers::shared_postgres()
            .map_err(|why| println!("skipped: PostgreSQL: {why}"))
            .ok()
    };
    let mariadb = if options.mariadb {
        deltalakedb_test_servers::shared_mysql()
            .map_err(|why| println!("skipped: MariaDB: {why}"))
            .ok()
    } else {
        None
    };
    let servers = [("PostgreSQL", postgres), ("MariaDB", mariadb)];
    let mut all = Vec::new();
    for mut shape in SHAPES {
        let wanted: Vec<_> = CASES
            .into_iter()
            .filter(|(case, _, tables)| {
                tables.contains(&shape.name)
                    && (options.cases.is_empty()
                        || options.cases.iter().any(|name| case.contains(name.as_str())))
            })
            .collect();
        let named = options.tables.iter().any(|name| name.eq_ignore_ascii_case(shape.name));
        if wanted.is_empty() || !(options.tables.is_empty() || named) {
            continue;
        }
        if options.quick {
            let by =
                if shape.commits > 1 { &mut shape.commits } else { &mut shape.files_per_commit };
            *by /= 100;
        }
        let bench = Bench::prepare(shape, seconds, &servers, options)?;
        for (case, unit, _) in wanted {
            all.extend(bench.measure(case, unit, runs)?);
        }
        print(&all, shape, &bench);
    }
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&all)?)?;
    }
    if let Some(folder) = &options.plots {
        plots::draw(&all, folder)?;
    }
    Ok(())
}

/// A table that is imported everywhere.
struct Bench {
    shape: Shape,
    dir: tempfile::TempDir,
    /// Our databases: name, URL.
    ours: Vec<(&'static str, Option<String>)>,
    python: Option<PathBuf>,
    /// PostgreSQL for DuckLake's catalog, which has a schema of its own there.
    lake_url: Option<String>,
    seconds: u64,
    log_bytes: u64,
    database_bytes: u64,
    imports: Vec<Measured>,
}

impl Bench {
    fn prepare(
        shape: Shape,
        seconds: u64,
        servers: &[(&'static str, Option<String>)],
        options: &Options,
    ) -> Result<Bench, AnyError> {
        let dir = match &options.keep {
            None => tempfile::tempdir()?,
            Some(folder) => {
                std::fs::create_dir_all(folder)?;
                let name = format!("{}-", shape.name);
                tempfile::Builder::new().prefix(&name).disable_cleanup(true).tempdir_in(folder)?
            }
        };
        if options.keep.is_some() {
            println!("left in {}", dir.path().display());
        }
        let table = dir.path().join("t");
        println!("\n{}: {} commits, {} files", shape.name, shape.commits, shape.files());
        generate::table(&table, shape.commits, shape.files_per_commit)?;
        let mut ours = vec![("SQLite", None)];
        for (side, url) in servers {
            let Some(url) = url else { continue };
            let sign = if url.contains('?') { '&' } else { '?' };
            let prefix = format!("{}_{}_", shape.name.to_lowercase(), std::process::id());
            ours.push((*side, Some(format!("{url}{sign}table_prefix={prefix}"))));
        }
        let log_bytes = generate::log_bytes(&table)?;
        // Peers have no backups.
        let python = options.python.clone().filter(|_| shape.name != "T4");
        let mut bench = Bench {
            shape,
            dir,
            ours,
            python,
            lake_url: servers.iter().find_map(|(side, url)| {
                let url = url.as_deref().filter(|_| *side == "PostgreSQL")?;
                Some(url.split('?').next().unwrap_or(url).to_owned())
            }),
            seconds,
            log_bytes,
            database_bytes: 0,
            imports: Vec::new(),
        };
        for (side, url) in bench.ours.clone() {
            let found = child("import", &bench.subject(url, 1))?;
            let case = ("import", "ms");
            bench.imports.extend(measured(shape, case, side, &[found]));
        }
        bench.database_bytes = std::fs::metadata(bench.dir.path().join("catalog.db"))?.len();
        if bench.python.is_some() {
            bench.peers(&["prepare-checkpoint"])?;
            bench.peers(&["prepare-ducklake"])?;
            if bench.lake_url.is_some() {
                bench.peers(&["prepare-ducklake-pg"])?;
            }
        }
        Ok(bench)
    }

    fn subject(&self, url: Option<String>, tasks: u64) -> Subject {
        let version = i64::try_from(self.shape.commits / 2).unwrap_or(0);
        let (files, seconds) = (self.shape.files(), self.seconds);
        let folder = Subject::in_folder(self.dir.path());
        Subject { url, files, version, seconds, tasks, ..folder }
    }

    /// Peers that can be measured here.
    fn peer_names(&self) -> impl Iterator<Item = &'static str> {
        let (python, postgres) = (self.python.is_some(), self.lake_url.is_some());
        PEERS.into_iter().filter(move |peer| python && (postgres || *peer != "ducklake-pg"))
    }

    /// Runs the script of the peers on this table.
    fn peers(&self, arguments: &[&str]) -> Result<Figures, AnyError> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers.py");
        let python = self.python.as_deref().ok_or("no Python")?;
        let mut command = Command::new(python);
        command.arg(script).args(arguments);
        command.arg(self.dir.path().join("t")).arg(self.dir.path().join("lake"));
        if let Some(url) = &self.lake_url {
            let schema = format!("lake_{}_{}", self.shape.name, std::process::id());
            command.env("LAKE_URL", url).env("LAKE_SCHEMA", schema.to_lowercase());
        }
        if let [_, _] = arguments {
            let probe = Probe::of(self.shape.files());
            command.arg(&probe.day).arg(probe.ids.0.to_string()).arg(probe.ids.1.to_string());
            command.arg((self.shape.commits / 2).to_string()).arg(self.seconds.to_string());
        }
        let output = command.output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {}", arguments.join(" "), text.trim()).into());
        }
        figures(&String::from_utf8_lossy(&output.stdout))
    }

    /// All sides in turns, so that what else the machine does hits all of them.
    fn measure(
        &self,
        case: &'static str,
        unit: &'static str,
        runs: usize,
    ) -> Result<Vec<Measured>, AnyError> {
        if case == "import" {
            return Ok(self.imports.iter().map(Measured::copy).collect());
        }
        let (what, tasks) = match case.split_once('-') {
            Some(("commit", tasks)) => ("commit", tasks.parse()?),
            Some(("processes", processes)) => ("commit-processes", processes.parse()?),
            // Four tasks a table.
            Some(("tables", _)) => ("commit-tables", 64),
            _ => (case, 1),
        };
        // A loop of some seconds is many measurements already.
        let runs = match case {
            "bulk" | "backup" | "backup-next" | "backup-verify" | "restore" => runs.min(3),
            "add-all" => 1,
            _ if unit == "ms" => runs,
            _ => 1,
        };
        let mut found: BTreeMap<String, Vec<Figures>> = BTreeMap::new();
        for _ in 0..runs {
            for (side, url) in &self.ours {
                let figures = child(what, &self.subject(url.clone(), tasks))?;
                if !figures.contains_key("absent") {
                    found.entry((*side).to_owned()).or_default().push(figures);
                }
            }
            for peer in self.peer_names() {
                let figures = self.peers(&[peer, case])?;
                if !figures.contains_key("absent") {
                    found.entry(peer.to_owned()).or_default().push(figures);
                }
            }
        }
        Ok(found
            .iter()
            .filter_map(|(side, found)| measured(self.shape, (case, unit), side, found))
            .collect())
    }
}

impl Measured {
    fn copy(&self) -> Measured {
        let (side, values) = (self.side.clone(), self.values.clone());
        Measured { side, values, ..*self }
    }
}

fn measured(
    shape: Shape,
    (case, unit): (&'static str, &'static str),
    side: &str,
    found: &[Figures],
) -> Option<Measured> {
    let of = |name: &str| found.iter().filter_map(|f| f.get(name).copied()).collect::<Vec<_>>();
    let values = of(if unit == "ms" { "ms" } else { "commits_per_s" });
    let peak_mb = of("peak_mb").into_iter().fold(0.0, f64::max);
    let p99_ms = of("p99_ms").into_iter().reduce(f64::max);
    let side = side.to_owned();
    #[allow(clippy::cast_precision_loss)]
    let (commits, files) = (shape.commits as f64, shape.files() as f64);
    let table = shape.name;
    (!values.is_empty()).then_some(Measured {
        table,
        case,
        unit,
        side,
        values,
        p99_ms,
        peak_mb,
        commits,
        files,
    })
}

/// A table of Markdown: median (worst), peak memory; how much better than the best peer.
fn print(all: &[Measured], shape: Shape, bench: &Bench) {
    let mut sides: Vec<&str> = bench.ours.iter().map(|(side, _)| *side).collect();
    sides.extend(bench.peer_names());
    println!("\n| {} | {} | best peer : SQLite |", shape.name, sides.join(" | "));
    println!("| --- |{} --- |", " --- |".repeat(sides.len()));
    for (case, unit, _) in CASES {
        let of = |side: &str| {
            all.iter().find(|m| m.table == shape.name && m.case == case && m.side == side)
        };
        if sides.iter().all(|side| of(side).is_none()) {
            continue;
        }
        let cell = |side: &&str| match of(side) {
            None => "–".to_owned(),
            Some(m) => {
                let p99 = m.p99_ms.map(|p99| format!(", p99 {} ms", number(p99)));
                let p99 = p99.unwrap_or_default();
                let worst = if m.values.len() > 1 {
                    format!(" ({})", number(m.worst()))
                } else {
                    String::new()
                };
                format!("{}{worst} {unit}{p99}, {:.0} MB", number(m.median()), m.peak_mb)
            }
        };
        let cells: Vec<String> = sides.iter().map(cell).collect();
        println!(
            "| {case} | {} | {} |",
            cells.join(" | "),
            ratio(all, shape.name, case, of("SQLite"))
        );
    }
    let per_file = |bytes: u64| bytes / shape.files().max(1);
    println!(
        "\n{}: {} bytes of JSON log ({} a file), {} bytes of SQLite ({} a file)",
        shape.name,
        bench.log_bytes,
        per_file(bench.log_bytes),
        bench.database_bytes,
        per_file(bench.database_bytes)
    );
}

/// How much better ours is than the best peer.
fn ratio(all: &[Measured], table: &str, case: &str, ours: Option<&Measured>) -> String {
    let peers = all.iter().filter(|m| m.table == table && m.case == case && m.is_peer());
    let more_is_better = ours.is_some_and(|m| m.unit != "ms");
    let pick = if more_is_better { f64::max } else { f64::min };
    match (ours, peers.map(Measured::median).reduce(pick)) {
        (Some(ours), Some(best)) if more_is_better => format!("{:.1}", ours.median() / best),
        (Some(ours), Some(best)) => format!("{:.1}", best / ours.median()),
        _ => "–".to_owned(),
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(side: &str, unit: &'static str, values: &[f64]) -> Measured {
        let (side, values) = (side.to_owned(), values.to_vec());
        Measured {
            table: "T1",
            case: "open",
            unit,
            side,
            values,
            p99_ms: None,
            peak_mb: 1.0,
            commits: 1.0,
            files: 1.0,
        }
    }

    #[test]
    fn ratios_say_how_much_better() {
        let all = [
            one("SQLite", "ms", &[9.0, 2.0, 4.0]),
            one("deltalake", "ms", &[40.0]),
            one("duckdb", "ms", &[20.0]),
        ];
        assert_eq!((all[0].median(), all[0].worst()), (4.0, 9.0));
        assert_eq!(ratio(&all, "T1", "open", Some(&all[0])), "5.0");
        let all = [one("SQLite", "commits/s", &[50.0]), one("ducklake", "commits/s", &[100.0])];
        assert_eq!(ratio(&all, "T1", "open", Some(&all[0])), "0.5");
        assert_eq!(ratio(&all, "T2", "open", Some(&all[0])), "–");
    }
}
