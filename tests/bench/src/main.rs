//! Figures of the main job, each measured in a process of its own so that peak memory means
//! something. Times are medians over the runs; run it in release (`cargo xtask bench`).
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command-line program")]

mod bulk;
mod cases;
mod generate;
mod measure;
mod mirror;
mod plots;
mod safety;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use measure::Subject;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Parser)]
enum Args {
    /// Opening, planning, listing, history and commits; prints Markdown tables.
    Cases(cases::Options),
    /// Publishing: checkpoints of a large table, rates and lag; prints a Markdown table.
    Mirror {
        /// Files of the table whose checkpoint is measured.
        #[arg(long, default_value_t = 1_000_000)]
        files: u64,
        /// Runs of each measurement.
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// Seconds during which 200 commits a second come.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// A Python with the `deltalake` package, to measure beside on the same table.
        #[arg(long)]
        python: Option<PathBuf>,
    },
    /// One measurement (started by the others); prints `name=value` lines.
    One {
        /// A case, or `import-validated`, `checkpoint`, `publish-local`, `publish-s3`, `lag-local` or
        /// `lag-s3`.
        what: String,
        #[command(flatten)]
        subject: measure::Subject,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse() {
        Args::Cases(options) => cases::run(&options),
        Args::Mirror { files, runs, seconds, python } => {
            publishing(files, runs, seconds, python.as_deref())
        }
        Args::One { what, subject } => measure::one(&what, &subject),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn publishing(
    files: u64,
    runs: usize,
    seconds: u64,
    python: Option<&Path>,
) -> Result<(), AnyError> {
    let mut rows: Vec<Row> = Vec::new();
    for (what, place) in [("publish-local", "local"), ("publish-s3", "S3 emulator, 20 ms away")] {
        for tables in [1, 16] {
            let figures = (0..runs)
                .map(|_| child(what, &publishing_of(tempfile::tempdir()?.path(), seconds, tables)))
                .collect::<Result<Vec<_>, _>>()?;
            let label = format!("publish one-file commits, {tables} table(s), {place}");
            rows.push(Row::named(&label, &figures, "versions_per_s", "versions/s"));
        }
    }
    for (what, tables, place) in [
        ("lag-local", 1, "local"),
        ("lag-local", 16, "local"),
        ("lag-s3", 16, "S3 emulator, 20 ms away"),
    ] {
        let figures =
            vec![child(what, &publishing_of(tempfile::tempdir()?.path(), seconds, tables))?];
        for name in ["p50", "p95", "p99", "max"] {
            let label =
                format!("lag, 200 commits/s for {seconds} s, {tables} table(s), {place}: {name}");
            rows.push(Row::named(&label, &figures, &format!("{name}_ms"), "ms"));
        }
    }
    let dir = tempfile::tempdir()?;
    let table = dir.path().join("t");
    let per_commit = files.div_ceil(100);
    generate::table(&table, files.div_ceil(per_commit), per_commit)?;
    let subject = Subject::in_folder(dir.path());
    child("import", &subject)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push(child("checkpoint", &subject)?);
        if let Some(python) = python {
            theirs.push(peer_checkpoint(python, &table)?);
        }
    }
    rows.push(Row::new(&format!("checkpoint of {files} files"), &ours, "ms"));
    rows.push(Row::named("… its size", &ours, "mb", "MB"));
    if python.is_some() {
        rows.push(Row::new("peer: Python deltalake, create_checkpoint", &theirs, "ms"));
        let label = "… opening the table, and then create_checkpoint";
        rows.push(Row::named(label, &theirs, "all_ms", "ms"));
    }
    print_rows(&rows);
    Ok(())
}

/// The same checkpoint by the peer. The commits are read by then.
fn peer_checkpoint(python: &Path, table: &Path) -> Result<Figures, AnyError> {
    let script = "import sys,time,resource,glob,os\nfrom deltalake import DeltaTable\n\
        a=time.perf_counter(); t=DeltaTable(sys.argv[1]); b=time.perf_counter()\n\
        t.create_checkpoint(); c=time.perf_counter()\n\
        print(f'ms={(c-b)*1e3}'); print(f'all_ms={(c-a)*1e3}')\n\
        print(f'peak_mb={resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024}')\n\
        log=sys.argv[1]+'/_delta_log/'\n\
        for f in glob.glob(log+'*.checkpoint*')+[log+'_last_checkpoint']: os.remove(f)\n";
    let output = Command::new(python).args(["-c", script]).arg(table).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    figures(&String::from_utf8_lossy(&output.stdout))
}

fn print_rows(rows: &[Row]) {
    println!("\n| what | median | peak memory, MB |\n| --- | --- | --- |");
    for row in rows {
        println!("| {} | {} {} | {} |", row.label, row.value, row.unit, row.memory);
    }
}

struct Row {
    label: String,
    value: String,
    unit: &'static str,
    memory: String,
}

type Figures = std::collections::BTreeMap<String, f64>;

impl Row {
    fn new(label: &str, figures: &[Figures], unit: &'static str) -> Row {
        Row::named(label, figures, "ms", unit)
    }

    fn named(label: &str, figures: &[Figures], name: &str, unit: &'static str) -> Row {
        let median_of = |name: &str| {
            let mut values: Vec<f64> =
                figures.iter().filter_map(|f| f.get(name).copied()).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        Row {
            label: label.to_owned(),
            value: median_of(name).map_or("?".to_owned(), |v| format!("{v:.1}")),
            unit,
            memory: median_of("peak_mb").map_or(String::new(), |v| format!("{v:.0}")),
        }
    }
}

fn publishing_of(dir: &Path, seconds: u64, tasks: u64) -> Subject {
    Subject { seconds, tasks, ..Subject::in_folder(dir) }
}

fn child(what: &str, subject: &Subject) -> Result<Figures, AnyError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["one", what]).arg(&subject.dir);
    if let Some(url) = &subject.url {
        command.args(["--url", url]);
    }
    for (option, value) in [
        ("--files", subject.files.to_string()),
        ("--version", subject.version.to_string()),
        ("--seconds", subject.seconds.to_string()),
        ("--tasks", subject.tasks.to_string()),
    ] {
        command.args([option, &value]);
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(format!("{what}: {text}{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    figures(&text)
}

fn figures(text: &str) -> Result<Figures, AnyError> {
    let mut figures = Figures::new();
    for line in text.lines() {
        if let Some((name, value)) = line.split_once('=') {
            figures.insert(name.to_owned(), value.trim().parse()?);
        }
    }
    Ok(figures)
}
