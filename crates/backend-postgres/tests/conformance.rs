//! Every case of the suite, on the servers of `DL_TEST_POSTGRES_URL`, or on one that is started here.

mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    deltalakedb_conformance::run(support::harnesses())
}
