//! Writers of many processes on every database, undisturbed and through outages.
//!
//! Each test prints its throughput. `DL_REQUIRE=postgres,mysql,…` turns a skip into a failure.

#![allow(clippy::print_stdout, reason = "figures are for who runs the tests")]

mod support;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two runs at a time would measure each other.
    arguments.test_threads.get_or_insert(1);
    let trials = support::databases().into_iter().flat_map(support::trials).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
