//! Every case of the suite, on every database of this repository.

mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    deltalakedb_conformance::run(support::harnesses())
}
