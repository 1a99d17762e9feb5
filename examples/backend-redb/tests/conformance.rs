//! Every case of the suite.

mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    deltalakedb_conformance::run(support::harnesses())
}
