//! Counting tests from the events that test runners write.
//!
//! An event is a line of JSON, as Rust's own runner has it: `{"type": "test", "event": "ok", "name": …}`.
//! cargo-nextest, libtest-mimic and the interop script write them. A test that skips itself has passed for
//! its runner: it leaves a line in the file that `DL_SKIPS` names, `{"program": …, "test": …, "why": …}`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// A test, as nextest shows it: the program, which may be empty, and the name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    /// `package` for unit tests, `package::program` for others.
    pub(crate) program: String,
    /// Path of the test in it.
    pub(crate) name: String,
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let space = if self.program.is_empty() { "" } else { " " };
        write!(f, "{}{space}{}", self.program, self.name)
    }
}

/// What became of the tests so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Tests that passed.
    passed: BTreeSet<Test>,
    /// Tests that failed.
    pub(crate) failed: Vec<String>,
    /// Tests that did not run, and why.
    pub(crate) skipped: Vec<Skip>,
}

/// A test that did not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    /// Which.
    pub(crate) what: String,
    /// Why.
    pub(crate) why: String,
}

impl Tally {
    /// Reads the events of a command that has ended, and the file of what skipped itself. `program` is the
    /// program of tests that name none. `succeeded`: the command did; one that failed has failed tests, or
    /// is a failure itself.
    pub(crate) fn of_run(
        command: &str,
        program: &str,
        events: &Path,
        skips: &Path,
        succeeded: bool,
    ) -> Result<Tally> {
        // A command that does not compile has written none.
        let text = |path: &Path| match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            read => read.with_context(|| format!("cannot read {}", path.display())),
        };
        let mut tally = Tally::default();
        tally.events(program, &text(events)?, succeeded)?;
        tally.skips(program, &text(skips)?)?;
        if !succeeded && tally.failed.is_empty() {
            tally.failed.push(format!("`{command}` failed"));
        }
        if succeeded && tally.passed.is_empty() && tally.skipped.is_empty() {
            tally.failed.push(format!("`{command}` ran no test"));
        }
        Ok(tally)
    }

    /// Reads events. A test that began and did not end has failed, as its program died in it; but if the
    /// command `succeeded`, it is an ignored one of a program of which nextest ran no other.
    fn events(&mut self, program: &str, text: &str, succeeded: bool) -> Result<()> {
        let mut programs = BTreeMap::new();
        let mut open = BTreeSet::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let event: Value =
                serde_json::from_str(line).with_context(|| format!("not an event: {line}"))?;
            let told = |key: &str| event[key].as_str().unwrap_or_default();
            if told("type") == "suite" {
                programs.extend(suite(&event["nextest"]));
            }
            if told("type") != "test" {
                continue;
            }
            let test = named(told("name"), program, &programs);
            match told("event") {
                "started" => {
                    open.insert(test);
                    continue;
                }
                "ok" => {
                    self.passed.insert(test.clone());
                }
                "failed" | "timeout" => self.failed.push(test.to_string()),
                "ignored" => {
                    let why = event["reason"].as_str().unwrap_or(IGNORED);
                    self.skip(test.to_string(), why);
                }
                other => anyhow::bail!("the event '{other}' is not known: {line}"),
            }
            open.remove(&test);
        }
        for test in open {
            if succeeded {
                self.skip(test.to_string(), IGNORED);
            } else {
                self.failed.push(format!("{test} (its program died in it)"));
            }
        }
        Ok(())
    }

    /// Reads what tests have said that skipped themselves, or parts of themselves.
    fn skips(&mut self, program: &str, text: &str) -> Result<()> {
        let mut reasons: BTreeMap<Test, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            let skip: Value =
                serde_json::from_str(line).with_context(|| format!("not a skip: {line}"))?;
            let told = |key: &str| skip[key].as_str();
            let test = Test {
                program: told("program").unwrap_or(program).to_owned(),
                name: told("test")
                    .with_context(|| format!("a skip without a test: {line}"))?
                    .to_owned(),
            };
            let whys = reasons.entry(test).or_default();
            let why = told("why").unwrap_or_default().to_owned();
            if !whys.contains(&why) {
                whys.push(why);
            }
        }
        for (test, whys) in reasons {
            self.passed.remove(&test);
            let (what, why) = (test.to_string(), whys.join("; "));
            match self.skipped.iter_mut().find(|skip| skip.what == what) {
                Some(skip) => skip.why = why,
                None if self.failed.contains(&what) => {}
                None => self.skip(what, why),
            }
        }
        Ok(())
    }

    /// Counts one more test that passed.
    pub(crate) fn pass(&mut self, program: &str, name: impl Into<String>) {
        self.passed.insert(Test { program: program.to_owned(), name: name.into() });
    }

    /// Counts one more skipped test.
    pub(crate) fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.skipped.push(Skip { what: what.into(), why: why.into() });
    }

    /// Adds the counts of another run.
    pub(crate) fn add(&mut self, other: Tally) {
        self.passed.extend(other.passed);
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    /// Whether a test passed whose name (without that of its program) begins so.
    pub(crate) fn ran(&self, prefix: &str) -> bool {
        self.passed.iter().any(|test| test.name.starts_with(prefix))
    }

    /// The three counts, in words.
    pub(crate) fn counts(&self) -> String {
        let (passed, failed) = (self.passed.len(), self.failed.len());
        format!("{passed} passed, {failed} failed, {} skipped", self.skipped.len())
    }

    /// Prints what was skipped and what failed, then one line of counts. Whether all is well.
    pub(crate) fn report(&self) -> bool {
        println!();
        for skip in &self.skipped {
            println!("skipped: {}: {}", skip.what, skip.why);
        }
        for failed in &self.failed {
            println!("failed: {failed}");
        }
        println!("{}", self.counts());
        self.failed.is_empty()
    }
}

/// Why a test is skipped whose runner does not say why.
const IGNORED: &str = "marked #[ignore]: a measurement, or a part of another test";

/// How nextest calls a program, from the event that begins its tests: by the first part of their names.
fn suite(told: &Value) -> Option<(String, String)> {
    let part = |key: &str| told[key].as_str();
    let (package, program, kind) = (part("crate")?, part("test_binary")?, part("kind")?);
    let id = match kind {
        "lib" | "proc-macro" => package.to_owned(),
        "test" => format!("{package}::{program}"),
        kind => format!("{package}::{kind}/{program}"),
    };
    Some((format!("{package}::{program}"), id))
}

/// `package::program$test` of nextest, or a test of the program that is run.
fn named(name: &str, program: &str, programs: &BTreeMap<String, String>) -> Test {
    let (program, name) = match name.split_once('$') {
        Some((first, name)) => (programs.get(first).map_or(first, String::as_str), name),
        None => (program, name),
    };
    Test { program: program.to_owned(), name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(events: &str, skips: &str, succeeded: bool) -> Tally {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("events"), folder.path().join("skips"));
        std::fs::write(&one, events).unwrap();
        std::fs::write(&other, skips).unwrap();
        Tally::of_run("test", "suite", &one, &other, succeeded).unwrap()
    }

    /// As nextest writes them.
    const NEXTEST: &str = r#"
{"type":"suite","event":"started","test_count":2,"nextest":{"crate":"dl-mirror","test_binary":"dl_mirror","kind":"lib"}}
{"type":"test","event":"started","name":"dl-mirror::dl_mirror$a::one"}
{"type":"test","event":"started","name":"dl-mirror::dl_mirror$a::two"}
{"type":"test","event":"ok","name":"dl-mirror::dl_mirror$a::two","exec_time":0.01}
{"type":"test","event":"ok","name":"dl-mirror::dl_mirror$a::one","exec_time":0.01}
{"type":"suite","event":"ok","passed":2,"failed":0,"ignored":0,"measured":0,"filtered_out":0,"exec_time":0.5}
{"type":"suite","event":"started","test_count":2,"nextest":{"crate":"dl","test_binary":"cli","kind":"test"}}
{"type":"test","event":"started","name":"dl::cli$b::one"}
{"type":"test","event":"failed","name":"dl::cli$b::one","exec_time":0.01,"stdout":"no"}
{"type":"test","event":"started","name":"dl::cli$b::two"}
{"type":"test","event":"ok","name":"dl::cli$b::two","exec_time":0.01}
"#;

    #[test]
    fn events_of_several_programs_are_counted() {
        let skips = "{\"program\":\"dl-mirror\",\"test\":\"a::one\",\"why\":\"no corpus\"}\n\
             {\"program\":\"dl-mirror\",\"test\":\"a::one\",\"why\":\"no corpus\"}\n\
             {\"program\":\"dl::cli\",\"test\":\"b::two\",\"why\":\"no server\"}\n\
             {\"program\":\"dl::cli\",\"test\":\"b::two\",\"why\":\"no other\"}\n";
        let tally = read(NEXTEST, skips, false);
        assert_eq!(tally.counts(), "1 passed, 1 failed, 2 skipped");
        assert_eq!(tally.failed, ["dl::cli b::one"]);
        let skipped: Vec<_> =
            tally.skipped.iter().map(|s| (s.what.as_str(), s.why.as_str())).collect();
        assert_eq!(
            skipped,
            [("dl-mirror a::one", "no corpus"), ("dl::cli b::two", "no server; no other")]
        );
        assert!(tally.ran("a::") && !tally.ran("b::"));
    }

    #[test]
    fn a_program_without_a_name_in_its_events_has_that_of_the_run() {
        // libtest-mimic writes spaces, and no reason.
        let events = "{ \"type\": \"suite\", \"event\": \"started\", \"test_count\": 2 }\n\
             { \"type\": \"test\", \"event\": \"started\", \"name\": \"mssql::one\" }\n\
             { \"type\": \"test\", \"name\": \"mssql::one\", \"event\": \"ignored\" }\n\
             { \"type\": \"test\", \"event\": \"started\", \"name\": \"sqlite::one\" }\n\
             { \"type\": \"test\", \"name\": \"sqlite::one\", \"event\": \"ok\" }\n";
        let tally = read(events, "{\"test\":\"mssql::one\",\"why\":\"no URL\"}\n", true);
        assert_eq!(tally.counts(), "1 passed, 0 failed, 1 skipped");
        let skip = Skip { what: "suite mssql::one".to_owned(), why: "no URL".to_owned() };
        assert_eq!(tally.skipped, [skip]);
        assert!(tally.ran("sqlite::"));
    }

    #[test]
    fn a_test_that_did_not_end_has_failed() {
        let events = "{\"type\":\"test\",\"event\":\"started\",\"name\":\"a\"}\n";
        assert_eq!(read(events, "", false).failed, ["suite a (its program died in it)"]);
        assert_eq!(read(events, "", true).counts(), "0 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_command_that_ran_no_test_has_failed() {
        assert_eq!(read("", "", false).failed, ["`test` failed"]);
        assert_eq!(read("", "", true).failed, ["`test` ran no test"]);
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        let mut tally = Tally::default();
        assert!(tally.events("", "ok", true).is_err());
        assert!(
            tally.events("", "{\"type\":\"test\",\"event\":\"odd\",\"name\":\"a\"}", true).is_err()
        );
    }
}
