//! What must run: the one rule of all test programs.
//!
//! `DL_REQUIRE=postgres,galera,corpus` lists what this machine is expected to have. A test that cannot run
//! calls [`skip`], which fails where the list names what is missing: so it cannot pass for tested, whoever
//! starts the tests.
//!
//! What was skipped is told to the file that `DL_SKIPS` names, a line of JSON each: a test that skips itself
//! has passed for its runner.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;

/// Names that stand for the same thing.
const SAME: [[&str; 2]; 1] = [["mysql", "mariadb"]];

/// Whether `DL_REQUIRE` names this: a database, or one of `replica`, `pgbouncer`, `galera`, `s3`, `azure`,
/// `corpus`, `interop`.
#[must_use]
pub fn is_required(name: &str) -> bool {
    asks_for(&std::env::var("DL_REQUIRE").unwrap_or_default(), name)
}

fn asks_for(list: &str, name: &str) -> bool {
    let same = |asked: &str| {
        asked == name || SAME.iter().any(|names| names.contains(&asked) && names.contains(&name))
    };
    list.split(',').map(str::trim).any(|asked| !asked.is_empty() && same(asked))
}

/// To be called by a test that cannot run here, before it returns: says why, and tells it to `cargo xtask
/// test`. `needs` is what it would run on.
///
/// # Panics
/// If `DL_REQUIRE` names any of `needs`: then the test has failed. If the file that `DL_SKIPS` names cannot be
/// written.
#[track_caller]
#[allow(clippy::print_stdout, clippy::panic, reason = "only tests call it")]
pub fn skip(needs: &[&str], why: impl Display) {
    if let Some(name) = needs.iter().find(|name| is_required(name)) {
        panic!("DL_REQUIRE asks for {name}, but {why:#}");
    }
    println!("skipped: {why:#}");
    // Nextest runs each test in a process of its own, and names it there.
    let program = std::env::var("NEXTEST_BINARY_ID").ok();
    let thread = std::thread::current();
    let name = std::env::var("NEXTEST_TEST_NAME").ok();
    let name = name.as_deref().or(thread.name()).unwrap_or("a test").to_owned();
    if let Err(error) = tell_skip(program.as_deref(), &name, &format!("{why:#}")) {
        panic!("cannot write to the file that DL_SKIPS names: {error}");
    }
}

/// Tells `cargo xtask test`, if it runs this program, that a test was skipped. [`skip`] does it for a test of
/// Rust's own runner.
///
/// # Errors
/// If the file cannot be written.
pub fn tell_skip(program: Option<&str>, test: &str, why: &str) -> std::io::Result<()> {
    let Some(path) = std::env::var_os("DL_SKIPS") else { return Ok(()) };
    let mut skip = serde_json::json!({ "test": test, "why": why });
    if let Some(program) = program {
        skip["program"] = program.into();
    }
    // One write, so that lines of several processes do not mix.
    let mut file = File::options().append(true).create(true).open(path)?;
    file.write_all(format!("{skip}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::asks_for;

    #[test]
    fn a_list_names_what_it_asks_for() {
        for (list, name, asked) in [
            ("", "postgres", false),
            (" , ", "", false),
            ("postgres", "postgres", true),
            ("sqlite, postgres ,mysql", "postgres", true),
            ("postgresql", "postgres", false),
            ("mariadb", "mysql", true),
            ("mysql", "mariadb", true),
            ("mysql", "postgres", false),
        ] {
            assert_eq!(asks_for(list, name), asked, "{list}: {name}");
        }
    }
}
