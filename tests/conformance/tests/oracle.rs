//! Random operations on every database of this repository, compared with the reference.

mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    deltalakedb_conformance::run_oracle(support::harnesses())
}
