//! Random operations on this backend and on the in-memory reference, answer by answer.

mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    deltalakedb_conformance::run_oracle(support::harnesses())
}
