//! What runs beside what.
//!
//! Two lanes: in one cargo-nextest, a process a test, a few at a time; in the other, one after the other, what
//! must not: suites whose tests share a server that they set up, start and kill, doc tests, other engines, and
//! the crash program. Most of the second lane waits for servers and disks, most of the first computes.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Args, Needs, SLOW, record};
use crate::tally::Tally;
use crate::{crash, interop, python, run, workspace};

/// Suites that are programs of libtest-mimic, one process each: their tests share servers. The package
/// stands in the filter of .config/nextest.toml.
const SUITES: [&str; 3] = ["contention", "galera_conformance", "pgbouncer_conformance"];
const SUITES_PACKAGE: &str = "deltalakedb-contention";

/// Rounds of the crash test in a run of all tests: enough to find what breaks at once.
const CRASH_ROUNDS: u32 = 30;

/// Runs all tests.
pub(super) fn run(args: &Args, needs: &Needs, tally: &mut Tally) -> Result<()> {
    std::thread::scope(|scope| {
        let others = scope.spawn(|| others(args, needs));
        let tests = nextest(args, needs);
        let others =
            others.join().map_err(|_| anyhow::anyhow!("a thread of the tests panicked"))?;
        tally.add(tests?);
        tally.add(others?);
        Ok(())
    })
}

/// All that nextest runs, its own view of it on the terminal.
fn nextest(args: &Args, needs: &Needs) -> Result<Tally> {
    let mut tally = Tally::default();
    let (events, skips) = (record("nextest.json")?, record("nextest.skips")?);
    let mut command = Command::new(&needs.nextest);
    run::like_cargo(&mut command);
    command.args(["nextest", "run"]).args(workspace::WITH_EVERYTHING);
    if args.quick {
        command.args(SLOW.iter().flat_map(|package| ["--exclude", package]));
    }
    command.arg("--test-threads").arg(threads().to_string());
    if args.verbose {
        command.args(["--status-level", "all", "--success-output", "immediate"]);
    }
    command.args(["--message-format", "libtest-json-plus", "--message-format-version", "0.1"]);
    command.env("NEXTEST_EXPERIMENTAL_LIBTEST_JSON", "1");
    needs.lead(&mut command);
    command.env("DL_SKIPS", &skips);
    let file = std::fs::File::create(&events)
        .with_context(|| format!("cannot write {}", events.display()))?;
    command.stdout(file);
    let succeeded = run::on_terminal(&mut command)?;
    tally.add(Tally::of_run(&run::shown(&command), "", &events, &skips, succeeded)?);
    if args.quick {
        for package in SLOW {
            tally.skip(package, "left out by --quick");
        }
    }
    Ok(tally)
}

/// Most tests wait now and then: twice as many as there are cores.
fn threads() -> usize {
    2 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// All that nextest does not run.
fn others(args: &Args, needs: &Needs) -> Result<Tally> {
    let mut tally = Tally::default();
    part(&mut tally, "doc tests", || doc_tests(needs))?;
    part(&mut tally, "benches", benches)?;
    if args.quick {
        tally.skip("interop", "left out by --quick");
        tally.skip("python", "left out by --quick");
        tally.skip("crash", "left out by --quick");
        return Ok(tally);
    }
    if let Some(python) = &needs.python {
        let all = interop::Args::default();
        part(&mut tally, "interop", || interop::cases(&all, python, &needs.servers, false))?;
    }
    if let Some(package) = &needs.package {
        part(&mut tally, "python", || python::tests(package, &needs.servers))?;
    }
    for name in SUITES {
        part(&mut tally, name, || suite(name, needs))?;
    }
    part(&mut tally, "crash", || crash::run(&crash::Args::short(CRASH_ROUNDS), false))?;
    Ok(tally)
}

/// A part of the second lane; one line says how it went.
fn part(
    tally: &mut Tally,
    name: &str,
    run: impl FnOnce() -> Result<(Tally, String)>,
) -> Result<()> {
    let began = Instant::now();
    let (counts, text) = run().with_context(|| name.to_owned())?;
    shown(name, &counts, &text, began.elapsed());
    tally.add(counts);
    Ok(())
}

/// In one piece: the other lane prints, too.
fn shown(name: &str, counts: &Tally, text: &str, took: Duration) {
    let mut block = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let _ = writeln!(block, "{name} | {line}");
    }
    println!("{block}{name}: {} in {:.1} s", counts.counts(), took.as_secs_f64());
}

/// Runs a suite of libtest-mimic.
fn suite(name: &str, needs: &Needs) -> Result<(Tally, String)> {
    let (events, skips) = (record(&format!("{name}.json"))?, record(&format!("{name}.skips"))?);
    let mut command = run::cargo();
    command.arg("test").args(workspace::WITH_EVERYTHING).args(["--test", name, "--"]);
    command.args(["--format", "json", "--logfile"]).arg(&events);
    needs.lead(&mut command);
    command.env("DL_SKIPS", &skips);
    let (succeeded, text) = run::watched(&mut command, false)?;
    let program = format!("{SUITES_PACKAGE}::{name}");
    let tally = Tally::of_run(&run::shown(&command), &program, &events, &skips, succeeded)?;
    Ok((tally, text))
}

/// Each bench once, unmeasured, as criterion does without `--bench`: one that cannot run is worth nothing.
fn benches() -> Result<(Tally, String)> {
    let mut command = run::cargo();
    command.arg("test").args(workspace::WITH_EVERYTHING).args(["--bench", "hot_paths"]);
    let (passed, text) = run::watched(&mut command, false)?;
    let mut tally = Tally::default();
    if passed {
        tally.pass("deltalakedb-bench::bench/hot_paths", "runs once");
    } else {
        tally.failed.push("deltalakedb-bench::bench/hot_paths".to_owned());
    }
    Ok((tally, text))
}

/// rustdoc's runner has no events on a stable toolchain, but it lists its tests; if it succeeds, all of
/// them have passed.
fn doc_tests(needs: &Needs) -> Result<(Tally, String)> {
    let command = || {
        let mut command = run::cargo();
        command.arg("test").args(workspace::WITH_EVERYTHING).arg("--doc");
        command
    };
    let list = |more: &[&str]| -> Result<Vec<String>> {
        let text = run::capture(command().args(["--", "--list", "--format", "terse"]).args(more))?;
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    };
    let (all, ignored) = (list(&[])?, list(&["--ignored"])?);
    let mut tests = command();
    tests.arg("--no-fail-fast");
    needs.lead(&mut tests);
    let (succeeded, text) = run::watched(&mut tests, false)?;
    let mut tally = Tally::default();
    if !succeeded {
        tally.failed.push(format!("`{}`", run::shown(&tests)));
        return Ok((tally, text));
    }
    for test in all {
        if ignored.contains(&test) {
            tally.skip(format!("doc test {test}"), "marked `ignore`");
        } else {
            tally.pass("doc test", test);
        }
    }
    Ok((tally, String::new()))
}
