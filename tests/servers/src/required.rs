//! What must run: the one rule of all test programs.
//!
//! `DL_REQUIRE=postgres,galera,corpus` lists what this machine is expected to have. A test that cannot run
//! calls [`skip`], which fails where the list names what is missing: so it cannot pass for tested, whoever
//! starts the tests.

use std::fmt::Display;

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

/// To be called by a test that cannot run here, before it returns: says why, in the words that
/// `cargo xtask test` counts. `needs` is what it would run on.
///
/// # Panics
/// If `DL_REQUIRE` names any of `needs`: then the test has failed.
#[track_caller]
#[allow(clippy::print_stdout, clippy::panic, reason = "only tests call it")]
pub fn skip(needs: &[&str], why: impl Display) {
    if let Some(name) = needs.iter().find(|name| is_required(name)) {
        panic!("DL_REQUIRE asks for {name}, but {why:#}");
    }
    println!("skipped: {why:#}");
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
