//! Counting tests from what test runners print.
//!
//! Understood is the format of Rust's own runner, which libtest-mimic, the interop script and the
//! crash program print too: `test NAME ... ok`, `FAILED` or `ignored`, and `test result:` at the
//! end of each program. A test of Rust's own runner cannot skip itself: one whose first printed line
//! is `skipped: REASON` counts as skipped.

use std::collections::BTreeSet;

/// What became of the tests so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Number of tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: Vec<String>,
    /// Tests that did not run, and why.
    pub(crate) skipped: Vec<Skip>,
    /// Names of tests that passed, for questions about what ran at all.
    ran: BTreeSet<String>,
    program: Program,
}

/// A test that did not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    /// Which.
    pub(crate) what: String,
    /// Why.
    pub(crate) why: String,
}

/// The test program whose output is being read.
#[derive(Debug, Default)]
struct Program {
    name: String,
    /// Says `running N tests` and has not said `test result:` yet.
    open: bool,
    /// Number of failures before it began.
    failures_before: usize,
    /// In the list of what tests that passed have printed.
    successes: bool,
    /// In the part that repeats what each test printed.
    printed_by: Option<String>,
    /// After that part: names follow that were printed before.
    names: bool,
    /// No line of that test was read yet.
    first_line: bool,
    /// A name without its outcome: a test that prints while it runs stands between the two.
    pending: Option<String>,
}

/// What a terminal need not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Worth reading.
    Yes,
    /// One of a thousand lines that say "ok".
    No,
}

impl Tally {
    /// Reads one line of a test program's output.
    pub(crate) fn line(&mut self, line: &str) -> Show {
        let text = line.trim_start();
        if let Some(rest) = text.strip_prefix("Running ").or(text.strip_prefix("Doc-tests ")) {
            self.end_program();
            rest.clone_into(&mut self.program.name);
            self.program.failures_before = self.failed.len();
            return Show::Yes;
        }
        if line.starts_with("error: test failed, to rerun")
            || line.starts_with("error: doctest failed, to rerun")
        {
            // A program that did not get as far as to run a test: it does not compile, say.
            if !self.program.open && self.failed.len() == self.program.failures_before {
                self.failed.push(format!("{} failed", self.program.name));
            }
            self.end_program();
            return Show::Yes;
        }
        if line.starts_with("running ") && line.trim_end().ends_with(['t', 's']) {
            self.program.open = true;
            return Show::No;
        }
        if line.starts_with("test result: ") {
            self.program = Program {
                name: std::mem::take(&mut self.program.name),
                failures_before: self.program.failures_before,
                ..Program::default()
            };
            return Show::Yes;
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----"))
        {
            self.program.printed_by = Some(name.to_owned());
            self.program.first_line = true;
            return self.show_printed();
        }
        if let Some(name) = self.program.printed_by.clone() {
            return self.printed(&name, line);
        }
        if let Some(test) = line.strip_prefix("test ")
            && let Some((name, outcome)) = test.split_once(" ... ")
        {
            let name = self.full_name(name.trim_end());
            if self.outcome(&name, outcome) {
                return if outcome == "ok" { Show::No } else { Show::Yes };
            }
            self.program.pending = Some(name);
            return Show::Yes;
        }
        if let Some(name) = self.program.pending.take() {
            if !self.outcome(&name, line) {
                self.program.pending = Some(name);
            }
            return Show::Yes;
        }
        if self.program.names && line.starts_with("    ") {
            return Show::No;
        }
        if line == "successes:" {
            // The second time, names follow.
            self.program.names = self.program.successes;
            self.program.successes = true;
        } else if line == "failures:" {
            self.program.successes = false;
        }
        if line.is_empty() || line == "successes:" { Show::No } else { Show::Yes }
    }

    /// What a unit test that passed has printed is for who runs it alone. What an integration test
    /// reports, such as a list of the tables it read, is for everyone.
    fn show_printed(&self) -> Show {
        if self.program.successes && self.program.name.starts_with("unittests ") {
            Show::No
        } else {
            Show::Yes
        }
    }

    /// Reads the part after the outcomes, in which the runner repeats what tests printed.
    fn printed(&mut self, name: &str, line: &str) -> Show {
        if line.is_empty() {
            return Show::No;
        }
        if line == "successes:" || line == "failures:" {
            self.program.printed_by = None;
            self.program.successes = false;
            self.program.names = true;
            return Show::No;
        }
        let first = std::mem::take(&mut self.program.first_line);
        if first && let Some(why) = line.strip_prefix("skipped: ") {
            let full = self.full_name(name);
            if self.ran.remove(&full) {
                self.passed -= 1;
                self.skip(full, why);
            }
        }
        self.show_printed()
    }

    /// Counts `ok`, `FAILED`, `ignored` with or without a reason; false for other text.
    fn outcome(&mut self, name: &str, outcome: &str) -> bool {
        let outcome = outcome.trim();
        if outcome == "ok" {
            self.pass(name);
        } else if outcome == "FAILED" || outcome.starts_with("FAILED ") {
            self.failed.push(name.to_owned());
        } else if let Some(rest) = outcome.strip_prefix("ignored") {
            let why = rest.trim_start_matches([',', ' ']);
            let why = why.strip_prefix('(').and_then(|w| w.strip_suffix(')')).unwrap_or(why);
            self.skip(name.to_owned(), if why.is_empty() { "marked #[ignore]" } else { why });
        } else {
            return false;
        }
        true
    }

    /// Names are unique within a program only.
    fn full_name(&self, name: &str) -> String {
        match self.program.name.split_whitespace().last() {
            // `unittests src/lib.rs (target/debug/deps/deltalakedb_mirror-0123456789abcdef)`
            Some(file) if file.starts_with('(') => {
                let file = file.trim_matches(['(', ')']);
                let stem = file.rsplit(['/', '\\']).next().unwrap_or(file);
                let stem = stem.rsplit_once('-').map_or(stem, |(stem, _)| stem);
                format!("{stem}: {name}")
            }
            Some(crate_name) => format!("{crate_name}: {name}"),
            None => name.to_owned(),
        }
    }

    /// A program is over. One that began and did not report was killed, or aborted.
    fn end_program(&mut self) {
        if self.program.open {
            let during = self.program.pending.take();
            self.failed.push(match during {
                Some(test) => format!("{test} (the test program died in it)"),
                None => format!("{} died", self.program.name),
            });
        }
        self.program = Program::default();
    }

    /// The output is over, and the command succeeded or not.
    pub(crate) fn end(&mut self, command: &str, success: bool) {
        let failed_before = self.failed.len();
        self.end_program();
        if !success && self.failed.is_empty() && failed_before == 0 {
            self.failed.push(format!("`{command}` failed"));
        }
    }

    /// Counts one more test that passed.
    pub(crate) fn pass(&mut self, name: impl Into<String>) {
        self.passed += 1;
        self.ran.insert(name.into());
    }

    /// Counts one more skipped test.
    pub(crate) fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.skipped.push(Skip { what: what.into(), why: why.into() });
    }

    /// Adds the counts of another run.
    pub(crate) fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
        self.ran.extend(other.ran);
    }

    /// Whether a test passed whose name (without that of its program) begins so.
    pub(crate) fn ran(&self, prefix: &str) -> bool {
        self.ran
            .iter()
            .any(|t| t.split_once(": ").map_or(t.as_str(), |(_, n)| n).starts_with(prefix))
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
        println!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed.len(),
            self.skipped.len()
        );
        self.failed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, success: bool) -> Tally {
        let mut tally = Tally::default();
        for line in text.lines() {
            tally.line(line);
        }
        tally.end("cargo test", success);
        tally
    }

    #[test]
    fn counts_several_programs_and_doc_tests() {
        let tally = read(
            "     Running unittests src/lib.rs (target/debug/deps/core-0123456789abcdef)

running 3 tests
test a::one ... ok
test a::two ... ignored, needs a printer
test a::three ... ok

successes:

---- a::one stdout ----
hello
---- a::three stdout ----
skipped: corpus folder absent


successes:
    a::one
    a::three

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/conformance.rs (target/debug/deps/conformance-0123456789abcdef)

running 3 tests
test sqlite::commit::one          ... ok
test memory::commit::reopen       ... ignored (a second handle is not possible)
test memory::commit::two          ... FAILED

failures:

---- memory::commit::two ----
no

failures:
    memory::commit::two

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

   Doc-tests deltalakedb

running 1 test
test crates/deltalakedb/src/lib.rs - (line 3) - compile ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s
",
            false,
        );
        assert_eq!(tally.passed, 3);
        assert_eq!(tally.failed, ["conformance: memory::commit::two"]);
        let skipped: Vec<_> =
            tally.skipped.iter().map(|s| (s.what.as_str(), s.why.as_str())).collect();
        assert_eq!(
            skipped,
            [
                ("core: a::two", "needs a printer"),
                ("core: a::three", "corpus folder absent"),
                ("conformance: memory::commit::reopen", "a second handle is not possible"),
            ]
        );
        assert!(tally.ran("sqlite::") && !tally.ran("postgres::"));
    }

    #[test]
    fn a_test_may_print_between_its_name_and_its_outcome() {
        let tally =
            read("running 1 test\ntest noisy ... working\nstill\nok\ntest result: ok.\n", true);
        assert_eq!((tally.passed, tally.failed.len()), (1, 0));
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        let tally = read(
            "     Running tests/a.rs (target/debug/deps/a-0)\nrunning 2 tests\ntest x ... ok\n\
             error: test failed, process didn't exit successfully (signal: 11)\n",
            false,
        );
        assert_eq!((tally.passed, tally.failed.len()), (1, 1));
    }

    #[test]
    fn a_doc_test_that_does_not_compile_is_a_failure() {
        let tally = read(
            "     Running unittests src/lib.rs (target/debug/deps/core-0)\nrunning 1 test\n\
             test x ... FAILED\ntest result: FAILED. 0 passed; 1 failed\n\
             error: test failed, to rerun pass `-p core --lib`\n   Doc-tests core\n\
             error[E0463]: can't find crate\nerror: doctest failed, to rerun pass `-p core --doc`\n",
            false,
        );
        assert_eq!(tally.failed, ["core: x", "core failed"]);
    }

    #[test]
    fn a_command_that_does_not_compile_is_a_failure() {
        let tally = read("error[E0308]: mismatched types\n", false);
        assert_eq!((tally.passed, tally.failed.len()), (0, 1));
    }
}
